"""Bearer keys: made, listed, revoked, and the collection that one opens."""

import hashlib
import hmac
import re
import secrets
from datetime import datetime

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Nothing, Statement
from routines_core.errors import NotFoundError, UnauthorizedError

_TOKEN = re.compile(r"rtn_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})", re.ASCII)
_SECRET_BYTES = 32
_NO_HASH = bytes(32)


class AuthContext(msgspec.Struct, frozen=True):
    """Whom a request speaks for: the one collection that its key opens."""

    collection_id: int
    collection_name: str


class ListedKey(msgspec.Struct, frozen=True):
    """A key without its secret."""

    id: int
    collection_name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class _FoundKey(msgspec.Struct):
    secret_hash: bytes
    collection_id: int
    collection_name: str


class _Id(msgspec.Struct):
    id: int


_CREATE = Statement("keys.create_key", _Id)
_FIND = Statement("keys.find_key", _FoundKey)
_LIST = Statement("keys.list_keys", ListedKey)
_REVOKE = Statement("keys.revoke_key", Nothing)


async def create_key(connection: Connection, collection: str) -> str:
    """A new key of this collection, which is made where it is new; only the key's hash is kept."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    row = await _CREATE.one(connection, collection=collection, secret_hash=_hash(secret))
    return f"rtn_{row.id}_{secret}"


async def authenticate(connection: Connection, token: str) -> AuthContext:
    """Whom this bearer token speaks for.

    Raises:
        UnauthorizedError: It is malformed, unknown, revoked or expired; the error does not say which.
    """
    parsed = _TOKEN.fullmatch(token)
    if parsed is None:
        raise UnauthorizedError
    found = await _FIND.first(connection, id=int(parsed[1]))
    # Compared in constant time, and compared where there is nothing to compare with too.
    same = hmac.compare_digest(_hash(parsed[2]), found.secret_hash if found else _NO_HASH)
    if not found or not same:
        raise UnauthorizedError
    return AuthContext(found.collection_id, found.collection_name)


async def list_keys(connection: Connection) -> list[ListedKey]:
    """All keys, oldest first."""
    return await _LIST.all(connection)


async def revoke_key(connection: Connection, key_id: int) -> None:
    """Close a key at once; doing it again changes nothing.

    Raises:
        NotFoundError: There is no such key.
    """
    if await _REVOKE.run(connection, id=key_id) == 0:
        raise NotFoundError(f"There is no key {key_id}.")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
