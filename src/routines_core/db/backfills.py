"""Backfills: sql/queries/backfills.sql called from Python."""

from datetime import datetime
from typing import Literal

import msgspec

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.pool import Connection
from routines_core.db.statements import Statement
from routines_core.errors import NotFoundError

MOST_SLOTS = 10_000
"""Maximum number of slots of a backfill, as in routines.most_slots_to_fill()."""
Reprocess = Literal["missing", "failed", "all"]
"""Which slots a backfill runs: those without a run; also those that failed or were cancelled; or all."""
Order = Literal["oldest", "newest"]
"""Which slot a backfill runs first."""


class BackfillSpec(msgspec.Struct, frozen=True):
    """A backfill to plan or create.

    Attributes:
        since: No slot is earlier.
        until: Every slot is earlier; None for now. A later time counts as now.
        max_active: How many of its runs may be active at once.
    """

    since: datetime
    until: datetime | None = None
    reprocess: Reprocess = "missing"
    order: Order = "oldest"
    max_active: int = 1


class PlannedSlot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A slot of a backfill that is only planned.

    Attributes:
        scheduled_for: The slot.
        becomes: run: its first run. rerun: another attempt. left: nothing.
        reason: What it is now: the status of its last attempt, or the reason why it has none.
        trajectory_id: Its last attempt; absent if it has none.
    """

    scheduled_for: datetime
    becomes: str
    reason: str
    trajectory_id: int | None = None


class Backfill(msgspec.Struct, frozen=True):
    """A backfill, with the number of its runs by status.

    Attributes:
        status: active until its last run has ended; then completed, or cancelled.
        made_by: Who requested it.
        reached: The last slot that was decided; None at the start.
        started: How many runs it has started.
        left_out: How many slots it has left as they were.
        held_by: Why no run is started at the moment; None for nothing.
        ended_at: From when on it starts no more runs; None until then.
    """

    id: int
    since: datetime
    until: datetime
    reprocess: str
    order: str
    max_active: int
    status: str
    created_at: datetime
    made_by: str
    reached: datetime | None
    started: int
    left_out: int
    active: int
    completed: int
    failed: int
    cancelled: int
    archived: int
    held_by: str | None
    ended_at: datetime | None


class _Id(msgspec.Struct):
    id: int


class _Done(msgspec.Struct):
    is_done: bool


_PLAN = Statement("backfills.plan", PlannedSlot)
_CREATE = Statement("backfills.create_backfill", _Id)
_LIST = Statement("backfills.list_backfills", Backfill)
_CANCEL = Statement("backfills.cancel_backfill", _Done)


async def plan_backfill(
    connection: Connection, spec: BackfillSpec, *, key_id: int, routine_id: int
) -> list[PlannedSlot]:
    """Return what a backfill would make of each slot, in its order, up to one slot more than it may have."""
    return await _PLAN.all(
        connection,
        key_id=key_id,
        routine_id=routine_id,
        since=spec.since,
        until=spec.until,
        reprocess=spec.reprocess,
        order=spec.order,
    )


async def create_backfill(connection: Connection, spec: BackfillSpec, *, key_id: int, routine_id: int) -> int:
    """Create a backfill, which tickers expand. Returns its id.

    Raises:
        ConflictError: The routine is manual, or the collection has too many open backfills.
        FaultsError: The range has too many slots.
        NotFoundError: The routine does not exist.
    """
    with domain_errors():
        return (
            await _CREATE.one(
                connection,
                key_id=key_id,
                routine_id=routine_id,
                since=spec.since,
                until=spec.until,
                reprocess=spec.reprocess,
                order=spec.order,
                max_active=spec.max_active,
            )
        ).id


async def list_backfills(
    connection: Connection, *, key_id: int, routine_id: int, limit: int, before: int | None = None
) -> list[Backfill]:
    """Return the backfills of a routine below this id, newest first."""
    return await _LIST.all(connection, key_id=key_id, routine_id=routine_id, limit=limit, before=before, id=None)


async def find_backfill(connection: Connection, *, key_id: int, routine_id: int, backfill_id: int) -> Backfill:
    """Return a backfill of a routine.

    Raises:
        NotFoundError: The routine has no such backfill.
    """
    found = await _LIST.first(connection, key_id=key_id, routine_id=routine_id, limit=1, before=None, id=backfill_id)
    if found is None:
        raise NotFoundError
    return found


async def cancel_backfill(connection: Connection, *, key_id: int, routine_id: int, backfill_id: int) -> None:
    """End a backfill, and cancel those of its runs that no worker has begun. An ended one stays as it is.

    Raises:
        NotFoundError: The routine has no such backfill.
    """
    await _CANCEL.one(connection, key_id=key_id, routine_id=routine_id, id=backfill_id)
