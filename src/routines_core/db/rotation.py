"""Checks that all stored secrets can be decrypted, and re-encrypts them under a new key while the programs run."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from routines_core.db.peppers import list_peppers, pepper_context, replace_pepper
from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import SecretError
from routines_core.keyring import Keyring, SecretContext, key_id_of

BATCH = 500
"""Secrets read and written by one statement."""
WAIT_SECONDS = 0.1
"""Delay before retrying secrets that another session has locked."""


class StoredSecret(msgspec.Struct, frozen=True):
    """A row of routines.secrets."""

    id: UUID
    collection_id: int
    kind: str
    field: str
    owner: str
    ciphertext: bytes

    @property
    def context(self) -> SecretContext:
        """Its secret context, according to its own row."""
        return SecretContext(self.collection_id, self.kind, self.field, self.owner, self.id)


@dataclass
class Examined:
    """The result of checking all stored secrets.

    Attributes:
        by_key_id: The number of secrets per encryption key.
        unopened: Secrets that cannot be decrypted.
    """

    by_key_id: Counter[str] = field(default_factory=Counter[str])
    unopened: list[UUID] = field(default_factory=list[UUID])


@dataclass
class Rotated:
    """The progress of a rotation.

    Attributes:
        replaced: Secrets that were re-encrypted under the first key.
        unopened: Secrets that cannot be decrypted and were left unchanged.
    """

    replaced: int = 0
    unopened: set[UUID] = field(default_factory=set[UUID])


_LIST = Statement("secrets.list_secrets", StoredSecret)
_LIST_STALE = Statement("secrets.list_stale_secrets", StoredSecret)
_REPLACE = Statement("secrets.replace_ciphertexts", NoRow)


async def examine_secrets(connection: Connection, keyring: Keyring) -> Examined:
    """Decrypt every stored secret, including peppers, and discard the result."""
    examined = Examined()
    everything = [(pepper.ciphertext, pepper_context(pepper.id)) for pepper in await list_peppers(connection)]
    _examine(everything, keyring, examined)
    after: UUID | None = None
    while batch := await _LIST.all(connection, after=after, limit=BATCH):
        after = batch[-1].id
        _examine([(secret.ciphertext, secret.context) for secret in batch], keyring, examined)
    return examined


def _examine(secrets: list[tuple[bytes, SecretContext]], keyring: Keyring, examined: Examined) -> None:
    for ciphertext, context in secrets:
        examined.by_key_id[key_id_of(ciphertext)] += 1
        if _opened(ciphertext, context, keyring) is None:
            examined.unopened.append(context.secret_id)


async def rotate_secrets(
    connection: Connection, keyring: Keyring, *, tell: Callable[[Rotated], None] = lambda _: None
) -> Rotated:
    """Re-encrypt all secrets that are not under the first key, in batches, each in a transaction of its own.

    It may be stopped and restarted at any time, and several may run concurrently. Secrets that others change or
    delete in the meantime stay that way. It repeats its round over the table until nothing is left to do.

    Args:
        connection: In autocommit mode.
        keyring: Its first key encrypts.
        tell: Called after each batch.
    """
    rotated = Rotated()
    await _rotate_peppers(connection, keyring, rotated)
    while await _rotate_once(connection, keyring, rotated, tell):  # noqa: ASYNC110 - the state is the database's
        await asyncio.sleep(WAIT_SECONDS)
    return rotated


async def _rotate_once(
    connection: Connection, keyring: Keyring, rotated: Rotated, tell: Callable[[Rotated], None]
) -> bool:
    """Make one round over the table. Returns True if another session had locked a secret, which needs another round."""
    is_left = False
    async for batch in _stale(connection, keyring):
        fresh = {secret.id: _reseal(secret.ciphertext, secret.context, keyring) for secret in batch}
        rotated.unopened |= {secret_id for secret_id, ciphertext in fresh.items() if ciphertext is None}
        opened = [secret for secret in batch if fresh[secret.id]]
        replaced = await _REPLACE.run(
            connection,
            ids=[secret.id for secret in opened],
            old=[secret.ciphertext for secret in opened],
            new=[fresh[secret.id] for secret in opened],
            key_id=keyring.first_key_id,
        )
        rotated.replaced += replaced
        is_left |= replaced < len(opened)
        tell(rotated)
    return is_left


async def _stale(connection: Connection, keyring: Keyring) -> AsyncGenerator[list[StoredSecret]]:
    after: UUID | None = None
    while batch := await _LIST_STALE.all(connection, after=after, limit=BATCH, key_id=keyring.first_key_id):
        after = batch[-1].id
        yield batch


async def _rotate_peppers(connection: Connection, keyring: Keyring, rotated: Rotated) -> None:
    for pepper in await list_peppers(connection):
        if key_id_of(pepper.ciphertext) == keyring.first_key_id:
            continue
        fresh = _reseal(pepper.ciphertext, pepper_context(pepper.id), keyring)
        if fresh is None:
            rotated.unopened.add(pepper.id)
        else:
            rotated.replaced += await replace_pepper(connection, keyring, pepper, fresh)


def _reseal(ciphertext: bytes, context: SecretContext, keyring: Keyring) -> bytes | None:
    """Re-encrypt under the first key. Returns None if it cannot be decrypted."""
    plaintext = _opened(ciphertext, context, keyring)
    return None if plaintext is None else keyring.seal(plaintext, context)


def _opened(ciphertext: bytes, context: SecretContext, keyring: Keyring) -> str | None:
    try:
        return keyring.open(ciphertext, context)
    except SecretError:
        return None
