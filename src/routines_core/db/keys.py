"""Bearer keys: creation, listing, rotation, revocation, authentication and rate limits."""

import hashlib
import hmac
import re
import secrets
import zlib
from datetime import datetime
from uuid import UUID

import msgspec

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.peppers import Peppers
from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import MistypedKeyError, NotFoundError, UnauthorizedError

_TOKEN = re.compile(r"rtn_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})([0-9A-Za-z]{6})", re.ASCII)
SECRET_BYTES = 32
"""Random bytes of a key, and of the token of a feed."""
_CHECKSUM_LENGTH = 6
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NO_HASH = bytes(32)
NO_PEPPER = bytes(32)
"""Compared with where there is no such id, so that the time of an answer does not tell which ids exist."""


class ParsedToken(msgspec.Struct, frozen=True):
    """The parts of a bearer token of the right form. Its repr hides the secret."""

    key_id: int
    secret: str

    def __repr__(self) -> str:
        """Return the key id without the secret."""
        return f"ParsedToken(key_id={self.key_id})"


class AuthContext(msgspec.Struct, frozen=True):
    """The key of a request, and the one collection that it opens."""

    key_id: int
    collection_id: int
    collection_name: str


class ListedKey(msgspec.Struct, frozen=True):
    """A key without its secret.

    Attributes:
        last_used_at: To the minute; None if never used.
        state: active, expired or revoked.
    """

    id: int
    collection_name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    state: str


class _FoundKey(msgspec.Struct):
    secret_hash: bytes
    pepper_id: UUID
    collection_id: int
    collection_name: str


class _Id(msgspec.Struct):
    id: int


class _Collection(msgspec.Struct):
    collection_name: str


class _Tokens(msgspec.Struct):
    tokens: float


_CREATE = Statement("keys.create_key", _Id)
_FIND = Statement("keys.find_key", _FoundKey)
_LIST = Statement("keys.list_keys", ListedKey)
_REVOKE = Statement("keys.revoke_key", NoRow)
_SUCCEED = Statement("keys.succeed_key", _Collection)
_TAKE = Statement("keys.take_tokens", _Tokens)


async def create_key(
    connection: Connection, collection: str, peppers: Peppers, *, expires_in_seconds: float | None = None
) -> str:
    """Create a key of a collection, and the collection if it is new. Only the key's hash is stored.

    Args:
        connection: Any connection.
        collection: The collection's name.
        peppers: The newest one keys the hash.
        expires_in_seconds: None for a key that never expires.

    Returns:
        The key, which is shown only now.

    Raises:
        InvalidError: The collection's name is not a slug.
        SecretError: The pepper cannot be decrypted.
    """
    secret = secrets.token_urlsafe(SECRET_BYTES)
    pepper_id, pepper = await peppers.newest(connection)
    with domain_errors():
        row = await _CREATE.one(
            connection,
            collection=collection,
            secret_hash=stored_hash(secret, pepper),
            pepper_id=pepper_id,
            expires_in_seconds=expires_in_seconds,
        )
    unchecked = f"rtn_{row.id}_{secret}"
    return unchecked + checksum(unchecked)


async def rotate_key(
    connection: Connection, key_id: int, peppers: Peppers, *, grace_seconds: float, expires_in_seconds: float | None
) -> str:
    """Create a key to replace an old one, which expires after the grace period at the latest. All or nothing.

    Returns:
        The new key, which is shown only now.

    Raises:
        NotFoundError: The key does not exist or is no longer valid.
    """
    async with connection.transaction():
        old = await _SUCCEED.first(connection, id=key_id, grace_seconds=grace_seconds)
        if old is None:
            raise NotFoundError(f"There is no active key {key_id}.")
        return await create_key(connection, old.collection_name, peppers, expires_in_seconds=expires_in_seconds)


def parse_token(token: str) -> ParsedToken:
    """Return the parts of a token, without querying the database.

    Raises:
        MistypedKeyError: The checksum is wrong, so the token was mistyped.
        UnauthorizedError: It does not have the form of a key.
    """
    parsed = _TOKEN.fullmatch(token)
    if parsed is None:
        raise UnauthorizedError
    if checksum(token[:-_CHECKSUM_LENGTH]) != parsed[3]:
        raise MistypedKeyError
    return ParsedToken(int(parsed[1]), parsed[2])


def checksum(unchecked: str) -> str:
    """Return the CRC32 of `rtn_<id>_<secret>` in base 62: the last six characters of a key. It is not a secret."""
    rest, digits = zlib.crc32(unchecked.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits


async def authenticate(connection: Connection, token: str, peppers: Peppers) -> AuthContext:
    """Return the key and collection of a bearer token.

    Raises:
        MistypedKeyError: Its own checksum is wrong.
        UnauthorizedError: It is malformed, unknown, revoked or expired. The error does not say which.
        SecretError: The pepper of its hash cannot be decrypted.
    """
    parsed = parse_token(token)
    found = await _FIND.first(connection, id=parsed.key_id)
    pepper = await peppers.find(connection, found.pepper_id) if found else NO_PEPPER
    # Compared in constant time, even if the key does not exist.
    same = hmac.compare_digest(stored_hash(parsed.secret, pepper), found.secret_hash if found else NO_HASH)
    if not found or not same:
        raise UnauthorizedError
    return AuthContext(parsed.key_id, found.collection_id, found.collection_name)


def stored_hash(secret: str, pepper: bytes) -> bytes:
    """Return what is stored of the secret part of a token."""
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)


async def list_keys(connection: Connection) -> list[ListedKey]:
    """Return all keys, oldest first."""
    return await _LIST.all(connection)


async def revoke_key(connection: Connection, key_id: int) -> None:
    """Revoke a key at once. Revoking it again changes nothing.

    Raises:
        NotFoundError: The key does not exist.
    """
    if await _REVOKE.run(connection, id=key_id) == 0:
        raise NotFoundError(f"There is no key {key_id}.")


async def take_tokens(connection: Connection, key_id: int, *, wanted: int, rate: float, burst: float) -> bool:
    """Take `wanted` tokens out of the key's bucket, all or none. Returns False if it holds too few.

    Args:
        connection: Any connection.
        key_id: The API key.
        wanted: The number of requests to make.
        rate: Tokens that the bucket gains per second.
        burst: The maximum number of tokens in the bucket.
    """
    return await _TAKE.first(connection, key_id=key_id, wanted=wanted, rate=rate, burst=burst) is not None


def hash_of(secret: str) -> bytes:
    """Return the SHA-256 of a token, the key of a process's cache."""
    return hashlib.sha256(secret.encode()).digest()
