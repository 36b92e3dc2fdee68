"""Peppers, the encrypted secrets that API keys are hashed with."""

import secrets
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.keyring import Keyring, SecretContext

_PEPPER_BYTES = 32


class StoredPepper(msgspec.Struct, frozen=True):
    """A row of routines.peppers."""

    id: UUID
    ciphertext: bytes


_LIST = Statement("secrets.list_peppers", StoredPepper)
_FIND = Statement("secrets.find_pepper", StoredPepper)
_CREATE = Statement("secrets.create_pepper", NoRow)
_REPLACE = Statement("secrets.replace_pepper", NoRow)


@dataclass
class Peppers:
    """The peppers that a process has decrypted. They never change, so each is decrypted once."""

    keyring: Keyring
    _opened: dict[UUID, bytes] = field(default_factory=dict[UUID, bytes], repr=False)

    async def find(self, connection: Connection, pepper_id: UUID) -> bytes:
        """Return the pepper of this id.

        Raises:
            SecretError: It cannot be decrypted.
            NotFoundError: It does not exist.
        """
        if pepper_id not in self._opened:
            self._open(await _FIND.one(connection, id=pepper_id))
        return self._opened[pepper_id]

    async def newest(self, connection: Connection) -> tuple[UUID, bytes]:
        """Return id and pepper for a new API key. Creates the first pepper if there is none.

        Raises:
            SecretError: It cannot be decrypted.
        """
        stored = await list_peppers(connection)
        newest = stored[0] if stored else await self._create(connection)
        self._open(newest)
        return newest.id, self._opened[newest.id]

    async def _create(self, connection: Connection) -> StoredPepper:
        pepper_id = uuid4()
        ciphertext = self.keyring.seal(secrets.token_urlsafe(_PEPPER_BYTES), pepper_context(pepper_id))
        await _CREATE.run(connection, id=pepper_id, key_id=self.keyring.first_key_id, ciphertext=ciphertext)
        return StoredPepper(pepper_id, ciphertext)

    def _open(self, stored: StoredPepper) -> None:
        self._opened[stored.id] = self.keyring.open(stored.ciphertext, pepper_context(stored.id)).encode()


def pepper_context(pepper_id: UUID) -> SecretContext:
    """The secret context of a pepper: bound to itself and to no collection."""
    return SecretContext(0, "pepper", "", "", pepper_id)


async def list_peppers(connection: Connection) -> list[StoredPepper]:
    """Return all peppers, newest first."""
    return await _LIST.all(connection)


async def replace_pepper(connection: Connection, keyring: Keyring, old: StoredPepper, ciphertext: bytes) -> int:
    """Store a pepper under the keyring's first key. Returns 0 if another process did so first."""
    return await _REPLACE.run(connection, id=old.id, old=old.ciphertext, new=ciphertext, key_id=keyring.first_key_id)
