"""What is coming, and when it is quiet: sql/queries/planning.sql called from Python."""

from datetime import datetime

import msgspec
from psycopg.types.json import Json

from routines_core.db.pool import Connection
from routines_core.db.routines import Cadence
from routines_core.db.statements import Statement

MOST_SUGGESTIONS = 5


class Bucket(msgspec.Struct, frozen=True):
    """The load of a stretch of time.

    Attributes:
        at: When it begins.
        slots: How many slots are due in it, spread slots when they fire.
        expected_seconds: How long their runs usually take, added up. A task that has completed no run yet counts as 0.
        started: How many past slots started a run.
        skipped: How many past slots were skipped.
    """

    at: datetime
    slots: int
    expected_seconds: float
    started: int
    skipped: int


class QuietMinute(msgspec.Struct, frozen=True):
    """A cadence near a wished one.

    Attributes:
        cadence: The cadence.
        minutes_away: How much later it is than the wish; negative if earlier.
        slots: How many routines of the collection are due at the same time, at most, within the next eight days.
    """

    cadence: Cadence
    minutes_away: int
    slots: int


_LOAD = Statement("planning.schedule_load", Bucket)
_QUIET = Statement("planning.quiet_minutes", QuietMinute)


async def schedule_load(
    connection: Connection, *, key_id: int, since: datetime, until: datetime, minutes: int, now: datetime | None = None
) -> list[Bucket]:
    """Return the load of a collection's schedule, in buckets that have any.

    Args:
        connection: Any connection.
        key_id: The API key that determines the collection.
        since: Only slots at this time or later.
        until: Only slots before this time.
        minutes: The length of a bucket. Buckets begin at multiples of it since 1970.
        now: Moves the clock in tests; None is the database's now().
    """
    return await _LOAD.all(connection, key_id=key_id, **{"from": since}, until=until, minutes=minutes, now=now)


async def quiet_minutes(
    connection: Connection, *, key_id: int, wish: Cadence, window_minutes: int, now: datetime | None = None
) -> list[QuietMinute]:
    """Return up to `MOST_SUGGESTIONS` cadences near the wish, the quietest first, and the wish itself.

    Args:
        connection: Any connection.
        key_id: The API key that determines the collection.
        wish: hourly, daily, weekdays or weekly.
        window_minutes: How far from the wish a suggestion may be.
        now: Moves the clock in tests; None is the database's now().
    """
    return await _QUIET.all(
        connection,
        key_id=key_id,
        cadence=Json(wish),
        window_minutes=window_minutes,
        most=MOST_SUGGESTIONS,
        now=now,
    )
