"""What many routines did and will do, beside each other: sql/queries/timeline.sql called from Python."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.report import After
from routines_core.db.statements import Statement

MarkKind = Literal[
    "pending", "running", "completed", "failed", "cancelled", "archived",
    "overlap", "coalesced", "missed", "paused", "failed_to_start", "calendar", "outside_hours", "backoff",
    "due", "coming",
]  # fmt: skip
"""The status of a run, the reason of a skip, or of a slot without an outcome whether it is due already."""


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """Runs or slots of one kind that begin at nearly the same time; mostly there is one.

    Attributes:
        at: When the first of them began, or is or was due.
        until: When the last of them ended, or was due; None if a run goes on or waits.
        kind: The status of the runs; the reason of the skips; `due` for slots that no ticker has picked up yet;
            `coming` for slots to come.
        count: How many runs or slots there are.
        trajectory_id: The run; absent if there is none, or more than one.
        scheduled_for: The slot, or the first of them; absent for runs that no slot started.
    """

    at: datetime
    until: datetime | None
    kind: MarkKind
    count: int = 1
    trajectory_id: int | None = None
    scheduled_for: datetime | None = None


class Lane(msgspec.Struct, frozen=True, omit_defaults=True):
    """A routine and what it did and will do.

    Attributes:
        marks: In the order in which they begin.
        paused_at: When it was paused; absent if it is not paused. The slots of this pause have no marks yet.
        paused_until: When the pause ends by itself; absent if it does not.
    """

    routine_id: int
    task: str
    routine: str
    marks: list[Mark]
    paused_at: datetime | None = None
    paused_until: datetime | None = None


class _MarkRow(msgspec.Struct):
    """A routine with one of its marks, whose fields are None if it has none."""

    task: str
    routine: str
    routine_id: int
    paused_at: datetime | None
    paused_until: datetime | None
    kind: MarkKind | None
    at: datetime | None
    until: datetime | None
    number: int | None
    trajectory_id: int | None
    scheduled_for: datetime | None


_TIMELINE = Statement("timeline.timeline", _MarkRow)


async def timeline(
    connection: Connection,
    *,
    key_id: int,
    since: datetime,
    until: datetime,
    bucket_seconds: int,
    limit: int,
    ids: Sequence[int] | None = None,
    part_of_name: str = "",
    cursor: After | None = None,
    now: datetime | None = None,
) -> list[Lane]:
    """Return what routines did and will do in a time, by task and name.

    Args:
        connection: Any connection.
        key_id: The API key that determines the collection.
        since: Only what was going on, or is or was due, at this time or later.
        until: Only what began, or is or was due, before this time.
        bucket_seconds: What is of one kind and begins in the same bucket is one mark. Buckets begin at multiples of
            this since 1970.
        limit: The maximum number of routines.
        ids: Only these routines; None for all.
        part_of_name: Only routines with this text in `task/routine`.
        cursor: The last routine of the previous page.
        now: Moves the clock in tests; None is the database's now().
    """
    task, routine, routine_id = cursor or (None, None, None)
    rows = await _TIMELINE.all(
        connection,
        key_id=key_id,
        **{"from": since},
        until=until,
        bucket_seconds=bucket_seconds,
        page_size=limit,
        ids=None if ids is None else list(ids),
        part_of_name=part_of_name,
        after_task=task,
        after_routine=routine,
        after_id=routine_id,
        now=now,
    )
    lanes: dict[int, Lane] = {}
    for row in rows:
        lane = lanes.get(row.routine_id)
        if lane is None:
            lane = Lane(row.routine_id, row.task, row.routine, [], row.paused_at, row.paused_until)
            lanes[row.routine_id] = lane
        if row.kind is not None and row.at is not None:
            lane.marks.append(Mark(row.at, row.until, row.kind, row.number or 1, row.trajectory_id, row.scheduled_for))
    return list(lanes.values())
