"""The ledger, read: sql/queries/ledger.sql called from Python."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from psycopg.types.json import Json

from routines_core.db.pool import Connection
from routines_core.db.routines import Cadence
from routines_core.db.statements import Statement

Outcome = Literal["started", "skipped", "overlap", "missed", "paused", "failed_to_start"]
"""What to list: a reason, or `skipped` for any of them."""
Kind = Literal[
    "started", "overlap", "missed", "paused", "failed_to_start",
    "pending", "future", "passed_over", "paused_in_future", "not_a_slot", "before_creation", "deleted", "forgotten",
]  # fmt: skip
"""What a time is to a routine."""

MAX_SLOTS = 100
"""The most coming slots that are computed at once."""


class Occurrence(msgspec.Struct, frozen=True):
    """A slot, or a span of slots, and its outcome.

    Attributes:
        scheduled_for: The slot; of a span, its first.
        last_scheduled_for: The same slot; of a span, its last.
        slot_count: How many slots the row accounts for.
        outcome: started or skipped.
        reason: Why it was skipped; None: it was not.
        delay_seconds: From the last slot to the decision.
        status: Of the run by now; None: none was started.
        error: Why the run failed; None: it did not.
    """

    scheduled_for: datetime
    last_scheduled_for: datetime
    slot_count: int
    outcome: str
    reason: str | None
    trajectory_id: int | None
    blocking_trajectory_id: int | None
    detail: str | None
    recorded_at: datetime
    delay_seconds: float
    status: str | None
    error: str | None


class LatestOutcome(msgspec.Struct, frozen=True):
    """What became of a slot, or of the newest run-now, with where the run stands.

    Attributes:
        scheduled_for: The slot, or the first of a span; None: somebody ran the routine.
        last_scheduled_for: The last slot of a span.
        slot_count: How many slots it accounts for; 0: somebody ran the routine.
        outcome: started or skipped.
        reason: Why it was skipped; None: it was not.
        trigger: schedule or run-now; None: no run was started.
        status: Of the run by now; None: no run was started.
        error: Why the run failed.
        detail: The cause of a skip, where it has one.
    """

    scheduled_for: datetime | None
    last_scheduled_for: datetime | None
    slot_count: int
    outcome: str
    reason: str | None
    trajectory_id: int | None
    trigger: str | None
    status: str | None
    error: str | None
    blocking_trajectory_id: int | None
    detail: str | None
    recorded_at: datetime
    ended_at: datetime | None


class RecentOutcomes(msgspec.Struct, frozen=True):
    """How a routine went lately.

    Attributes:
        paused_at: Since when it is paused; None: it is not.
        paused_reason: Why, where the scheduler itself paused it.
        outcomes: Newest first.
    """

    routine_id: int
    paused_at: datetime | None
    paused_reason: str | None
    outcomes: list[LatestOutcome]


class Why(msgspec.Struct, frozen=True):
    """The facts about a time of a routine; what does not apply to its kind is None.

    Attributes:
        kind: What the time is: an outcome of the ledger; `pending`: due, and no ticker has come yet; `paused` also for
            the present pause; `passed_over`: next_run_at was set past it by hand, and it is missed once that time
            comes; `forgotten`: older than what is kept; `before_creation`, `deleted`: no routine was there, and the
            ledger knows no such slot.
        scheduled_for: The first slot of the ledger's row; `last_scheduled_for` and `slot_count` tell the span.
        recorded_at: When the outcome was decided.
        blocking_started_at: When the run began that blocked this slot; `blocking_ended_at` None: it has not ended.
        paused_at: Since when the routine is paused now; None: it is not.
        is_slot_of_cadence: Whether the cadence of today has a slot at that time.
        next_slot: The first slot after that time, by the cadence of then; None: none is to come.
    """

    kind: Kind
    at: datetime
    now: datetime
    scheduled_for: datetime | None
    last_scheduled_for: datetime | None
    slot_count: int | None
    recorded_at: datetime | None
    trajectory_id: int | None
    trajectory_status: str | None
    blocking_trajectory_id: int | None
    blocking_started_at: datetime | None
    blocking_ended_at: datetime | None
    detail: str | None
    routine_created_at: datetime | None
    paused_at: datetime | None
    paused_reason: str | None
    cadence_type: str | None
    is_slot_of_cadence: bool
    next_slot: datetime | None


class Explanation(Why, frozen=True):
    """The facts, and what they come to in one sentence for a person."""

    sentence: str


class _Slot(msgspec.Struct):
    slot: datetime


class _LatestRow(msgspec.Struct):
    """A routine with one of its outcomes; all of that is None where it has none."""

    routine_id: int
    paused_at: datetime | None
    paused_reason: str | None
    scheduled_for: datetime | None
    last_scheduled_for: datetime | None
    slot_count: int | None
    outcome: str | None
    reason: str | None
    trajectory_id: int | None
    trigger: str | None
    status: str | None
    error: str | None
    blocking_trajectory_id: int | None
    detail: str | None
    recorded_at: datetime | None
    ended_at: datetime | None


_LIST = Statement("ledger.list_occurrences", Occurrence)
_LATEST = Statement("ledger.latest_outcomes", _LatestRow)
_WHY = Statement("ledger.why", Explanation)
_NEXT_SLOTS = Statement("ledger.next_slots", _Slot)
_PREVIEW = Statement("ledger.preview", _Slot)


async def list_occurrences(
    connection: Connection,
    *,
    key_id: int,
    routine_id: int,
    since: datetime | None = None,
    until: datetime | None = None,
    outcome: Outcome | None = None,
    limit: int = 20,
    cursor: datetime | None = None,
) -> list[Occurrence]:
    """What became of the slots of a routine, newest first; also of one that is gone.

    Args:
        connection: Any.
        key_id: The API key, whose collection is looked into.
        routine_id: The routine.
        since: Only rows whose last slot is at this time or later.
        until: Only rows whose first slot is before this time.
        outcome: Only these.
        limit: The most rows.
        cursor: The `scheduled_for` of the last row of the page before: a slot has one outcome, so it tells them apart.
    """
    return await _LIST.all(
        connection,
        key_id=key_id,
        routine_id=routine_id,
        since=since,
        until=until,
        outcome=outcome,
        before=cursor,
        page_size=limit,
    )


async def latest_outcomes(
    connection: Connection, *, key_id: int, routine_ids: Sequence[int], slots: int
) -> list[RecentOutcomes]:
    """How these routines went lately, by id: the newest `slots` of each, and its newest run-now.

    Ids that are not of the key's collection are left out.
    """
    rows = await _LATEST.all(connection, key_id=key_id, ids=list(set(routine_ids)), slots=slots)
    found: dict[int, RecentOutcomes] = {}
    for row in rows:
        recent = RecentOutcomes(row.routine_id, row.paused_at, row.paused_reason, [])
        recent = found.setdefault(row.routine_id, recent)
        if row.outcome is not None:
            recent.outcomes.append(msgspec.convert(row, LatestOutcome, from_attributes=True))
    return list(found.values())


async def why(
    connection: Connection, *, key_id: int, routine_id: int, at: datetime, now: datetime | None = None
) -> Explanation:
    """What this time is to this routine; `now` moves the clock in tests."""
    return await _WHY.one(connection, key_id=key_id, routine_id=routine_id, at=at, now=now)


async def next_slots(
    connection: Connection, *, key_id: int, routine_id: int, after: datetime | None = None, count: int = 10
) -> list[datetime]:
    """The first slots, at most `MAX_SLOTS`, of a saved routine later than `after` (None: now); none while paused."""
    rows = await _NEXT_SLOTS.all(
        connection,
        key_id=key_id,
        routine_id=routine_id,
        after=after,
        slot_limit=min(count, MAX_SLOTS),
    )
    return [row.slot for row in rows]


async def preview(
    connection: Connection, cadence: Cadence, *, after: datetime | None = None, count: int = 10
) -> list[datetime]:
    """The first slots of a cadence that is not saved, later than `after` (None: now). At most `MAX_SLOTS`."""
    rows = await _PREVIEW.all(
        connection,
        cadence=Json(cadence),
        after=after,
        slot_limit=min(count, MAX_SLOTS),
    )
    return [row.slot for row in rows]
