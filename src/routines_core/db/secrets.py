"""Sealed secrets on their way into the table routines.secrets."""

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec

from routines_core.keyring import Keyring, SecretPlace

SecretKind = Literal["secret_param", "webhook_secret", "environment"]


class SealedSecret(msgspec.Struct, frozen=True):
    """A ciphertext and what it is bound to."""

    id: UUID
    kind: SecretKind
    key_id: str
    ciphertext: bytes


def seal(keyring: Keyring, plaintext: str, *, collection_id: int, kind: SecretKind) -> SealedSecret:
    """A new secret under the keyring's first key, bound to its collection, kind and new id."""
    secret_id = uuid4()
    ciphertext = keyring.seal(plaintext, SecretPlace(collection_id, kind, secret_id))
    return SealedSecret(secret_id, kind, keyring.first_key_id, ciphertext)


def as_parameters(sealed: Sequence[SealedSecret]) -> dict[str, list[Any]]:
    """The arrays that a statement unnests into routines.secrets."""
    return {
        "secret_ids": [secret.id for secret in sealed],
        "secret_kinds": [secret.kind for secret in sealed],
        "secret_key_ids": [secret.key_id for secret in sealed],
        "ciphertexts": [secret.ciphertext for secret in sealed],
    }
