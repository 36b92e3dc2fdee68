"""Calendar feeds: sql/queries/feeds.sql called from Python."""

import hmac
import re
import secrets
from datetime import datetime
from uuid import UUID

import msgspec

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.keys import NO_HASH, NO_PEPPER, SECRET_BYTES, checksum, stored_hash
from routines_core.db.peppers import Peppers
from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import NotFoundError

DAYS = 90
"""How far ahead a feed shows slots."""
MOST_SLOTS = 5000
MOST_ROUTINES = 1000
"""Maximum numbers of slots and routines that a feed shows. It then ends earlier, with all slots before its end."""
_TOKEN = re.compile(r"(rtf_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43}))([0-9A-Za-z]{6})", re.ASCII)


class CreatedFeed(msgspec.Struct, frozen=True):
    """A new feed, with its token, which is shown only now. Its repr hides the token."""

    id: int
    token: str

    def __repr__(self) -> str:
        """Return the id without the token."""
        return f"CreatedFeed(id={self.id})"


class ParsedFeedToken(msgspec.Struct, frozen=True):
    """The parts of a token of the right form. Its repr hides the secret."""

    feed_id: int
    secret: str

    def __repr__(self) -> str:
        """Return the id without the secret."""
        return f"ParsedFeedToken(feed_id={self.feed_id})"


class Feed(msgspec.Struct, frozen=True):
    """A calendar feed without its token.

    Attributes:
        task: Shows only routines of this task; None for all tasks.
        routine: Shows only this routine; None for all routines.
        last_used_at: When it was last read, to the minute; None if never.
    """

    id: int
    task: str | None
    routine: str | None
    created_at: datetime
    last_used_at: datetime | None


class OpenFeed(msgspec.Struct, frozen=True):
    """A feed whose token was checked.

    Attributes:
        title: What it shows: the collection, collection/task, or collection/task/routine.
    """

    feed_id: int
    collection_id: int
    title: str


class FeedRoutine(msgspec.Struct, frozen=True):
    """A routine that a feed shows.

    Attributes:
        routine: task/routine.
        cadence: In words.
        updated_at: Its last change by a person.
        seconds: How long its runs usually take; None if none has completed.
        slots: In order.
        complete_until: All slots of the feed before this time are shown. From then on some or all are missing, because
            there are too many. None if it shows all.
    """

    routine_id: int
    routine: str
    cadence: str
    updated_at: datetime
    seconds: float | None
    slots: list[datetime]
    complete_until: datetime | None


class _FeedId(msgspec.Struct):
    id: int


class _FoundFeed(msgspec.Struct):
    secret_hash: bytes
    pepper_id: UUID
    collection_id: int
    title: str


class _Taken(msgspec.Struct):
    is_taken: bool


_CREATE = Statement("feeds.create_feed", _FeedId)
_LIST = Statement("feeds.list_feeds", Feed)
_DELETE = Statement("feeds.delete_feed", NoRow)
_FIND = Statement("feeds.find_feed", _FoundFeed)
_TAKE = Statement("feeds.take_feed_tokens", _Taken)
_SLOTS = Statement("feeds.feed_slots", FeedRoutine)


async def create_feed(
    connection: Connection, peppers: Peppers, *, key_id: int, task: str | None, routine: str | None
) -> CreatedFeed:
    """Create a feed. Only the hash of its token is stored.

    Args:
        connection: Any connection.
        peppers: The newest one keys the hash.
        key_id: The API key that determines the collection.
        task: Show only routines of this task; None for all tasks.
        routine: Show only this routine of the task; None for all routines.

    Raises:
        NotFoundError: The task or the routine does not exist.
        SecretError: The pepper cannot be decrypted.
    """
    secret = secrets.token_urlsafe(SECRET_BYTES)
    pepper_id, pepper = await peppers.newest(connection)
    with domain_errors():
        row = await _CREATE.one(
            connection,
            key_id=key_id,
            task=task,
            routine=routine,
            secret_hash=stored_hash(secret, pepper),
            pepper_id=pepper_id,
        )
    unchecked = f"rtf_{row.id}_{secret}"
    return CreatedFeed(row.id, unchecked + checksum(unchecked))


async def list_feeds(connection: Connection, *, key_id: int, limit: int, after: int | None = None) -> list[Feed]:
    """Return the feeds of a collection, oldest first, after the feed with the id `after`."""
    return await _LIST.all(connection, key_id=key_id, limit=limit, after=after)


async def delete_feed(connection: Connection, *, key_id: int, feed_id: int) -> None:
    """Delete a feed. Its token opens nothing from that moment on.

    Raises:
        NotFoundError: The collection has no such feed.
    """
    if await _DELETE.run(connection, key_id=key_id, feed_id=feed_id) == 0:
        raise NotFoundError


def parse_feed_token(token: str) -> ParsedFeedToken:
    """Return the parts of a feed's token, without querying the database.

    Raises:
        NotFoundError: It does not have the form of a token.
    """
    parsed = _TOKEN.fullmatch(token)
    if parsed is None or checksum(parsed[1]) != parsed[4]:
        raise NotFoundError
    return ParsedFeedToken(int(parsed[2]), parsed[3])


async def open_feed(connection: Connection, token: ParsedFeedToken, peppers: Peppers) -> OpenFeed:
    """Return the feed of a token.

    Raises:
        NotFoundError: It is unknown, or was revoked. The error does not say which.
        SecretError: The pepper of its hash cannot be decrypted.
    """
    found = await _FIND.first(connection, feed_id=token.feed_id)
    pepper = await peppers.find(connection, found.pepper_id) if found else NO_PEPPER
    # Compared in constant time, even if the feed does not exist.
    is_same = hmac.compare_digest(stored_hash(token.secret, pepper), found.secret_hash if found else NO_HASH)
    if not found or not is_same:
        raise NotFoundError
    return OpenFeed(token.feed_id, found.collection_id, found.title)


async def take_feed_tokens(connection: Connection, feed_id: int, *, wanted: int, rate: float, burst: float) -> bool:
    """Take `wanted` tokens out of a feed's bucket, all or none. Returns False if it holds too few.

    Args:
        connection: Any connection.
        feed_id: The feed.
        wanted: How often it is read.
        rate: Tokens that the bucket gains per second.
        burst: The maximum number of tokens in the bucket.
    """
    return (await _TAKE.one(connection, feed_id=feed_id, wanted=wanted, rate=rate, burst=burst)).is_taken


async def feed_slots(
    connection: Connection,
    feed_id: int,
    *,
    days: int = DAYS,
    slot_limit: int = MOST_SLOTS,
    routine_limit: int = MOST_ROUTINES,
    now: datetime | None = None,
) -> list[FeedRoutine]:
    """Return the routines of a feed that have slots within so many days, by name.

    Args:
        connection: Any connection.
        feed_id: The feed, whose token was checked.
        days: How far ahead.
        slot_limit: Maximum number of slots in all.
        routine_limit: Maximum number of routines.
        now: Moves the clock in tests; None is the database's now().

    Raises:
        NotFoundError: The feed was revoked.
    """
    return await _SLOTS.all(
        connection, feed_id=feed_id, days=days, slot_limit=slot_limit, routine_limit=routine_limit, now=now
    )
