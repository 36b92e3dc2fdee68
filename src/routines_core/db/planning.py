"""What is coming, and when it is quiet: sql/queries/planning.sql called from Python."""

from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Json

from routines_core.db.constraint_errors import domain_errors
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


class PreviewedSlot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A slot of a cadence that is not saved.

    Attributes:
        at: The slot.
        local_time: The same as the clocks of the cadence's time zone show it; absent for types without one.
        dst: shifted if it stands in for a time that does not exist because clocks are set forward; first of two if its
            time comes twice because they are set back; otherwise absent.
    """

    at: datetime
    local_time: str | None = None
    dst: str | None = None


class Preview(msgspec.Struct, frozen=True):
    """A cadence to preview.

    Attributes:
        cadence: The cadence.
        since: Only slots at this time or later.
        until: Only slots before this time.
        starts_at: No slot is earlier; None for no bound.
        ends_at: No slot is later; None for no bound.
    """

    cadence: Cadence
    since: datetime
    until: datetime
    starts_at: datetime | None = None
    ends_at: datetime | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the parameters that its statements share."""
        return {
            "cadence": Json(self.cadence),
            "from": self.since,
            "until": self.until,
            "starts_at": self.starts_at,
            "ends_at": self.ends_at,
        }


class _Warning(msgspec.Struct):
    warning: str


_PREVIEW = Statement("planning.preview", PreviewedSlot)
_WARNINGS = Statement("planning.preview_warnings", _Warning)
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


async def preview(
    connection: Connection,
    wanted: Preview,
    *,
    slot_limit: int,
    made_at: datetime | None = None,
    spread_seconds: int | None = None,
) -> list[PreviewedSlot]:
    """Return the first `slot_limit` slots of a preview, in order.

    Args:
        connection: Any connection.
        wanted: What to preview.
        slot_limit: Maximum number of slots.
        made_at: When the routine counts as made, which decides on the slots of an interval without an anchor; None for
            now. A slot of the interval gives the same slots.
        spread_seconds: Only checked: a routine has its offset once it has an id.

    Raises:
        InvalidError: The expression or the time zone is not valid, or the spread does not fit the cadence.
    """
    with domain_errors():
        return await _PREVIEW.all(
            connection,
            **wanted.parameters(),
            slot_limit=slot_limit,
            made_at=made_at,
            spread_seconds=spread_seconds,
        )


async def preview_warnings(
    connection: Connection,
    wanted: Preview,
    *,
    key_id: int,
    slot_limit: int,
    task: str | None = None,
    made_at: datetime | None = None,
) -> list[str]:
    """Return what to know before a cadence is saved, in sentences.

    Args:
        connection: Any connection.
        wanted: What to preview.
        key_id: The API key that determines the collection of the task.
        slot_limit: How many slots are considered.
        task: The task whose runs it would start; None if that is not known.
        made_at: As in `preview`.

    Raises:
        InvalidError: The expression or the time zone is not valid.
    """
    with domain_errors():
        found = await _WARNINGS.all(
            connection, **wanted.parameters(), key_id=key_id, slot_limit=slot_limit, task=task, made_at=made_at
        )
    return [row.warning for row in found]
