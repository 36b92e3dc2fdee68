"""The ledger, read only: sql/queries/ledger.sql called from Python."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from psycopg.types.json import Json

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.pool import Connection
from routines_core.db.routines import Cadence
from routines_core.db.statements import Statement

Outcome = Literal[
    "started", "skipped", "overlap", "coalesced", "missed", "paused", "failed_to_start", "calendar", "outside_hours",
    "backoff",
]  # fmt: skip
"""Filter of a list: an outcome or a reason. `skipped` includes all reasons."""
Kind = Literal[
    "started", "overlap", "coalesced", "missed", "paused", "failed_to_start", "calendar", "outside_hours", "backoff",
    "pending", "future", "passed_over", "paused_in_future", "excluded_in_future",
    "not_a_slot", "before_creation", "deleted", "forgotten",
]  # fmt: skip
"""The kinds of explanations of a time of a routine."""

MAX_SLOTS = 100
"""Maximum number of coming slots computed at once."""


class Occurrence(msgspec.Struct, frozen=True, omit_defaults=True):
    """A slot, or a span of slots, and its outcome.

    Attributes:
        scheduled_for: The slot, or the first slot of a span.
        last_scheduled_for: The same slot, or the last slot of a span.
        slot_count: The number of slots that the row accounts for.
        outcome: started or skipped.
        reason: Why it was skipped; None if it started a run.
        delay_seconds: From the time at which the last slot was due to the decision.
        status: The current status of the last attempt at the slot; None if none was started.
        error: Why the run failed; None if it did not.
        local_time: scheduled_for as the clocks of the routine's time zone show it; absent for types without one.
        dst: shifted if it stands in for a time that did not exist because clocks were set forward; first of two if its
            time came twice because they were set back; otherwise absent.
        due_at: When the last slot was due, if its routine had a spread; otherwise absent: at its time.
        last_trajectory_id: The last attempt at the slot, a retry or a rerun, whose status and error are shown; absent
            if the first was the last.
        filled_by: Of a skip: the run by which a backfill has filled it since, for a span the last one; absent for none.
        filled_status: The status of the last attempt at that run.
        filled_slots: Of a span: how many of its slots have been filled.
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
    local_time: str | None = None
    dst: str | None = None
    due_at: datetime | None = None
    last_trajectory_id: int | None = None
    filled_by: int | None = None
    filled_status: str | None = None
    filled_slots: int | None = None


class LatestOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of a slot or of the newest run-now, with the current status of the run.

    Attributes:
        scheduled_for: The slot, or the first slot of a span; None for a run-now.
        last_scheduled_for: The last slot of a span.
        slot_count: The number of slots that it accounts for; 0 for a run-now.
        outcome: started or skipped.
        reason: Why it was skipped; None if it started a run.
        trigger: schedule or run-now; None if no run was started.
        status: The run's current status, or that of its last retry; None if no run was started.
        error: Why that run failed.
        detail: The cause of the skip, where the reason alone does not say it.
        last_trajectory_id: The last retry of the run; absent if it was not retried.
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
    last_trajectory_id: int | None = None


class Trouble(msgspec.Struct, frozen=True):
    """Something that is wrong with a routine.

    Attributes:
        kind: failed, failed_to_start, missed: its newest slot or run-now that came to an end did so. backoff: it skips
            slots after failures. slow: an active run takes three times as long as usual. webhook: it does not arrive.
        trajectory_id: The run; None if there is none.
        since: When that run ended, the skip was recorded, the slow run started, or the webhook was to be sent; None for
            backoff.
        detail: The error or the cause, for people; None if there is nothing to say.
    """

    kind: Literal["failed", "failed_to_start", "missed", "backoff", "slow", "webhook"]
    trajectory_id: int | None
    since: datetime | None
    detail: str | None


class RecentOutcomes(msgspec.Struct, frozen=True, omit_defaults=True):
    """The recent outcomes of a routine.

    Attributes:
        paused_at: When it was paused; None if it is not paused.
        paused_reason: Why the scheduler paused it; None if a person did.
        outcomes: Newest first.
        troubles: What is wrong with it, whether it is paused or not; absent if nothing is.
    """

    routine_id: int
    paused_at: datetime | None
    paused_reason: str | None
    outcomes: list[LatestOutcome]
    troubles: list[Trouble] = []


class Why(msgspec.Struct, frozen=True, omit_defaults=True):
    """The facts about a time of a routine. Fields that do not apply to its kind are None.

    Attributes:
        kind: The outcome in the ledger; or `pending` if it is due and no ticker has picked it up, `paused` also for the
            current pause, `passed_over` if next_run_at was set past it by hand (it is missed once that time comes),
            `forgotten` if it is older than what retention keeps, `before_creation` or `deleted` if the routine did not
            exist and the ledger has no such slot.
        scheduled_for: The first slot of the ledger's row. `last_scheduled_for` and `slot_count` describe the span.
        recorded_at: When the outcome was decided.
        blocking_started_at: When the run that blocked this slot started.
        blocking_ended_at: When that run ended; None if it is active.
        paused_at: When the routine was paused; None if it is not paused.
        paused_until: When the pause ends by itself; absent if it does not.
        paused_note: What a person noted about the pause; absent if nothing.
        is_slot_of_cadence: True if the current cadence has a slot at that time.
        next_slot: The first slot after that time, by the cadence of that time; None if there is none.
        due_at: When the slot is or was due, if the routine has a spread; otherwise absent: at its time.
        step: The step at which the run stands, or that failed or was cancelled; absent if there is none.
        tries: How often that step was tried.
        error: The first line of the error of that step, or of the run.
        delay_seconds: From the time at which the slot was due to the start of its run.
        delay_reason: Why it started more than a minute late, or was missed: `no_ticker` if no ticker ran, `backlog` if
            tickers ran and were behind.
        missed_before: The number of slots just before it that were missed when this one was caught up.
        last_trajectory_id: The last retry of the run, which trajectory_status, step, tries and error speak of; absent
            if it was not retried.
        filled_by: The run by which a backfill has filled the slot since, or its last attempt; absent for none.
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
    paused_until: datetime | None = None
    paused_note: str | None = None
    due_at: datetime | None = None
    step: str | None = None
    tries: int | None = None
    error: str | None = None
    delay_seconds: float | None = None
    delay_reason: str | None = None
    missed_before: int | None = None
    last_trajectory_id: int | None = None
    filled_by: int | None = None


class Explanation(Why, frozen=True, kw_only=True):
    """The facts, and a sentence for people that sums them up."""

    sentence: str


class _Slot(msgspec.Struct):
    slot: datetime


class _LatestRow(msgspec.Struct):
    """A routine with one of its outcomes, whose fields are None if it has none."""

    routine_id: int
    paused_at: datetime | None
    paused_reason: str | None
    troubles: list[Any]
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
    last_trajectory_id: int | None


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
    """Return the outcomes of a routine's slots, newest first, even if the routine was deleted.

    Args:
        connection: Any connection.
        key_id: The API key that determines the collection.
        routine_id: The routine.
        since: Only rows whose last slot is at or after this time.
        until: Only rows whose first slot is before this time.
        outcome: Only this outcome or reason.
        limit: The maximum number of rows.
        cursor: The `scheduled_for` of the previous page's last row. It is unique, because a slot has one outcome.
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
    """Return the newest `slots` outcomes of each of these routines, its newest run-now, and its troubles, by id.

    Ids of other collections are left out.
    """
    rows = await _LATEST.all(connection, key_id=key_id, ids=list(set(routine_ids)), slots=slots)
    found: dict[int, RecentOutcomes] = {}
    for row in rows:
        recent = found.get(row.routine_id)
        if recent is None:
            troubles = msgspec.convert(row.troubles, list[Trouble])
            recent = RecentOutcomes(row.routine_id, row.paused_at, row.paused_reason, [], troubles)
            found[row.routine_id] = recent
        if row.outcome is not None:
            recent.outcomes.append(msgspec.convert(row, LatestOutcome, from_attributes=True))
    return list(found.values())


async def why(
    connection: Connection, *, key_id: int, routine_id: int, at: datetime | None = None, now: datetime | None = None
) -> Explanation:
    """Explain a time of a routine, by default its newest slot. `now` moves the clock in tests."""
    return await _WHY.one(connection, key_id=key_id, routine_id=routine_id, at=at, now=now)


async def next_slots(
    connection: Connection, *, key_id: int, routine_id: int, after: datetime | None = None, count: int = 10
) -> list[datetime]:
    """Return up to `MAX_SLOTS` slots of a saved routine later than `after` (by default now).

    While it is paused, those after the end of the pause; none if it has no end.
    """
    rows = await _NEXT_SLOTS.all(
        connection,
        key_id=key_id,
        routine_id=routine_id,
        after=after,
        slot_limit=min(count, MAX_SLOTS),
    )
    return [row.slot for row in rows]


async def preview(
    connection: Connection,
    cadence: Cadence,
    *,
    after: datetime | None = None,
    count: int = 10,
    spread_seconds: int | None = None,
) -> list[datetime]:
    """Return up to `MAX_SLOTS` slots of a cadence that is not saved, later than `after` (by default now).

    `spread_seconds` is only checked: a routine has its offset once it has an id.

    Raises:
        InvalidError: The expression or the time zone is not valid, or the spread does not fit the cadence.
    """
    with domain_errors():
        rows = await _PREVIEW.all(
            connection,
            cadence=Json(cadence),
            after=after,
            slot_limit=min(count, MAX_SLOTS),
            spread_seconds=spread_seconds,
        )
    return [row.slot for row in rows]
