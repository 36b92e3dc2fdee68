"""Bearer keys: made, listed, revoked, the collection that one opens, and how fast it may ask."""

import hashlib
import hmac
import re
import secrets
from datetime import datetime

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Nothing, Statement
from routines_core.db.violations import domain_errors
from routines_core.errors import NotFoundError, UnauthorizedError

_TOKEN = re.compile(r"rtn_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})", re.ASCII)
_SECRET_BYTES = 32
_NO_HASH = bytes(32)


class AuthContext(msgspec.Struct, frozen=True):
    """Whom a request speaks for: a key, and the one collection that it opens."""

    key_id: int
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


class _Tokens(msgspec.Struct):
    tokens: float


_CREATE = Statement("keys.create_key", _Id)
_FIND = Statement("keys.find_key", _FoundKey)
_LIST = Statement("keys.list_keys", ListedKey)
_REVOKE = Statement("keys.revoke_key", Nothing)
_TAKE = Statement("keys.take_tokens", _Tokens)


async def create_key(connection: Connection, collection: str, *, expires_in_seconds: float | None = None) -> str:
    """A new key of this collection, which is made where it is new; only the key's hash is kept.

    Raises:
        InvalidError: The collection's name is no slug.
    """
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    with domain_errors():
        row = await _CREATE.one(
            connection, collection=collection, secret_hash=hash_of(secret), expires_in_seconds=expires_in_seconds
        )
    return f"rtn_{row.id}_{secret}"


async def authenticate(connection: Connection, token: str) -> AuthContext:
    """Whom this bearer token speaks for.

    Raises:
        UnauthorizedError: It is malformed, unknown, revoked or expired; the error does not say which.
    """
    parsed = _TOKEN.fullmatch(token)
    if parsed is None:
        raise UnauthorizedError
    key_id = int(parsed[1])
    found = await _FIND.first(connection, id=key_id)
    # Compared in constant time, and compared where there is nothing to compare with too.
    same = hmac.compare_digest(hash_of(parsed[2]), found.secret_hash if found else _NO_HASH)
    if not found or not same:
        raise UnauthorizedError
    return AuthContext(key_id, found.collection_id, found.collection_name)


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


async def take_tokens(connection: Connection, key_id: int, *, wanted: int, rate: float, burst: float) -> bool:
    """Take `wanted` tokens out of the key's bucket, all or none; False: it does not hold so many by now.

    Args:
        connection: Any connection.
        key_id: The API key.
        wanted: Requests to make.
        rate: Tokens that the bucket gains a second.
        burst: Tokens that the bucket holds at most.
    """
    return await _TAKE.first(connection, key_id=key_id, wanted=wanted, rate=rate, burst=burst) is not None


def hash_of(secret: str) -> bytes:
    """SHA-256 of a secret: what is stored, and looked up, in its place."""
    return hashlib.sha256(secret.encode()).digest()
