"""Encrypted secrets to be inserted into routines.secrets."""

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec

from routines_core.keyring import Keyring, SecretContext

SecretKind = Literal["secret_param", "webhook_secret", "environment"]


class SealedSecret(msgspec.Struct, frozen=True):
    """A ciphertext and what it is bound to besides its collection."""

    id: UUID
    kind: SecretKind
    field: str
    owner: str
    key_id: str
    ciphertext: bytes


def seal(
    keyring: Keyring, plaintext: str, *, collection_id: int, kind: SecretKind, field: str = "", owner: str
) -> SealedSecret:
    """Encrypt a secret under the keyring's first key, bound to its context: see `SecretContext`."""
    context = SecretContext(collection_id, kind, field, owner, uuid4())
    return SealedSecret(
        context.secret_id, kind, field, owner, keyring.first_key_id, ciphertext=keyring.seal(plaintext, context)
    )


def as_parameters(sealed: Sequence[SealedSecret]) -> dict[str, list[Any]]:
    """Return the arrays that a statement unnests into routines.secrets."""
    return {
        "secret_ids": [secret.id for secret in sealed],
        "secret_kinds": [secret.kind for secret in sealed],
        "secret_fields": [secret.field for secret in sealed],
        "secret_owners": [secret.owner for secret in sealed],
        "secret_key_ids": [secret.key_id for secret in sealed],
        "ciphertexts": [secret.ciphertext for secret in sealed],
    }
