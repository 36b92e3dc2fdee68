"""What was expected of a schedule and what became of it: sql/queries/report.sql called from Python."""

from datetime import datetime
from typing import Literal

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement

Reason = Literal["overlap", "coalesced", "missed", "paused", "failed_to_start", "calendar", "outside_hours", "backoff"]
"""Why a slot was skipped."""
After = tuple[str, str, int]
"""Where a page begins: after this task, routine and its id."""


class ReportRow(msgspec.Struct, frozen=True):
    """The slots of a routine, or the sums of a task or of all routines.

    Attributes:
        task: None for the sums of all routines.
        routine: None for sums.
        routine_id: None for sums.
        is_deleted: True if the routine has been deleted.
        expected: Slots that were due: started, skipped and pending ones together.
        started: Slots that started a run.
        on_time: Of those, how many runs began in time.
        late: Of those, how many began late, or have not begun and are late.
        active: Of those, how many runs have not ended.
        skipped: Slots that were skipped, for any of the eight reasons that follow, or will be: see `paused`.
        paused: Skipped during a pause, the slots of a current one included.
        pending: Slots that are due and have no outcome yet.
        recovered: Slots that failed, failed to start, were missed or skipped after failures, and are followed by one
            whose run completed, or filled since.
        max_delay_seconds: How long the latest run began after its slot was due; None without a run.
    """

    task: str | None
    routine: str | None
    routine_id: int | None
    is_deleted: bool
    expected: int
    started: int
    on_time: int
    late: int
    completed: int
    failed: int
    cancelled: int
    archived: int
    active: int
    skipped: int
    overlap: int
    coalesced: int
    missed: int
    paused: int
    failed_to_start: int
    calendar: int
    outside_hours: int
    backoff: int
    pending: int
    recovered: int
    max_delay_seconds: float | None


class Gap(msgspec.Struct, frozen=True, omit_defaults=True):
    """A slot that never ran, or whose run failed.

    Attributes:
        scheduled_for: The slot.
        reason: Why it was skipped, or failed.
        due_at: When it was due, if its routine had a spread; otherwise absent: at its time.
        detail: The cause, where the reason alone does not say it.
        trajectory_id: The run that failed; absent if none was started.
        blocking_trajectory_id: For overlap: the run that was active.
        recorded_at: When that was decided, or when the run ended; absent in a pause that is not over.
    """

    scheduled_for: datetime
    reason: str
    due_at: datetime | None = None
    detail: str | None = None
    trajectory_id: int | None = None
    blocking_trajectory_id: int | None = None
    recorded_at: datetime | None = None


class _CompleteSince(msgspec.Struct):
    complete_since: datetime | None


_REPORT = Statement("report.report", ReportRow)
_COMPLETE_SINCE = Statement("report.complete_since", _CompleteSince)
_GAPS = Statement("report.gaps", Gap)


async def report(
    connection: Connection,
    *,
    key_id: int,
    since: datetime,
    until: datetime,
    late_after_seconds: int,
    limit: int,
    with_sums: bool = True,
    cursor: After | None = None,
    now: datetime | None = None,
) -> list[ReportRow]:
    """Return what became of the slots of each routine, by task and name.

    Args:
        connection: Any connection.
        key_id: The API key that determines the collection.
        since: Only slots at this time or later.
        until: Only slots before this time.
        late_after_seconds: A run is late if it began more than this after its slot was due.
        limit: The maximum number of routines.
        with_sums: Whether the first page begins with the sums of all routines, and of each task. They take the time of
            all pages.
        cursor: The last routine of the previous page.
        now: Moves the clock in tests; None is the database's now().
    """
    task, routine, routine_id = cursor or (None, None, None)
    return await _REPORT.all(
        connection,
        key_id=key_id,
        **{"from": since},
        until=until,
        late_after_seconds=late_after_seconds,
        after_task=task,
        after_routine=routine,
        after_id=routine_id,
        page_size=limit,
        with_sums=with_sums,
        now=now,
    )


async def complete_since(connection: Connection, since: datetime) -> datetime | None:
    """Return the newest slot that retention may have deleted, if it is not earlier than `since`; otherwise None."""
    return (await _COMPLETE_SINCE.one(connection, **{"from": since})).complete_since


async def gaps(
    connection: Connection,
    *,
    key_id: int,
    routine_id: int,
    since: datetime,
    until: datetime,
    limit: int,
    reason: Reason | None = None,
    with_failed: bool = False,
    cursor: datetime | None = None,
    now: datetime | None = None,
) -> list[Gap]:
    """Return the slots of a routine that never ran, one by one, oldest first.

    Args:
        connection: Any connection.
        key_id: The API key that determines the collection.
        routine_id: The routine.
        since: Only slots at this time or later.
        until: Only slots before this time.
        limit: The maximum number of slots.
        reason: Only slots that were skipped for this reason.
        with_failed: Whether slots whose run failed are among them.
        cursor: The last slot of the previous page.
        now: Moves the clock in tests; None is the database's now().
    """
    return await _GAPS.all(
        connection,
        key_id=key_id,
        routine_id=routine_id,
        **{"from": since},
        until=until,
        page_size=limit,
        reason=reason,
        with_failed=with_failed,
        after=cursor,
        now=now,
    )
