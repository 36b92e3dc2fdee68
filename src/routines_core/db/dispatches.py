"""Runs dispatched to Temporal: sql/queries/dispatches.sql called from Python."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.runs import INLINE_BYTES, MAX_CRASHES, Claim
from routines_core.db.statements import NoRow, Statement


class Dispatched(msgspec.Struct, frozen=True):
    """A dispatch that Temporal has to be told about.

    Attributes:
        id: The run.
        generation: Identifies the dispatch among those of the run.
        workflow_id: Its id in Temporal.
    """

    id: int
    generation: int
    workflow_id: str


class Submission(msgspec.Struct, frozen=True):
    """What Temporal is told about a run.

    Attributes:
        id: The run.
        generation: Identifies the dispatch among those of the run.
        workflow_id: Its id in Temporal.
        seconds_left: Seconds until the run's deadline.
        collection: The collection's name.
        task: The task's name; None if it was deleted.
        routine: The name of the routine that started it; None if none did, or if it was deleted.
        trigger: What started it.
        scheduled_for: The slot that it was started for, if any.
    """

    id: int
    generation: int
    workflow_id: str
    seconds_left: float
    collection: str
    task: str | None
    routine: str | None
    trigger: str
    scheduled_for: datetime | None


class Unsettled(Submission, frozen=True, kw_only=True):
    """A dispatch whose state in Temporal has to be checked.

    Attributes:
        fence: The fence of its current holder.
        is_submitted: True if Temporal is known to have accepted it.
        has_all_steps: Whether all steps of its workflow are recorded as completed.
    """

    fence: int
    is_submitted: bool
    has_all_steps: bool


class RunStanding(msgspec.Struct, frozen=True):
    """What has become of a run.

    Attributes:
        has_dispatch: Whether something is still to be settled with Temporal.
        is_dispatched: Whether the run is Temporal's, by the dispatch that was asked about.
    """

    status: str
    has_dispatch: bool
    is_dispatched: bool


class GivenBack(msgspec.Struct, frozen=True):
    """A run that Temporal no longer knew, now pending again or failed."""

    id: int
    status: str


class OpenDispatches(msgspec.Struct, frozen=True):
    """The number of runs dispatched to Temporal, and of those that it is not known to have accepted."""

    runs: int
    unsubmitted: int


class TakingCapacity(msgspec.Struct, frozen=True):
    """The number of runs dispatched to Temporal, and of those that no worker has begun; without waiting parents."""

    runs: int
    unbegun: int


_TAKING_CAPACITY = Statement("dispatches.taking_capacity", TakingCapacity)
_DISPATCH = Statement("dispatches.dispatch", Submission)
_SUBMITTED = Statement("dispatches.submitted", NoRow)
_TAKE = Statement("dispatches.take", Claim)
_LEAVE = Statement("dispatches.leave", NoRow)
_STANDING = Statement("dispatches.standing", RunStanding)
_TAKEN_AWAY = Statement("dispatches.taken_away", Dispatched)
_FORGET = Statement("dispatches.forget", NoRow)
_UNSETTLED = Statement("dispatches.unsettled", Unsettled)
_GIVE_BACK = Statement("dispatches.give_back", GivenBack)
_OPEN_DISPATCHES = Statement("dispatches.open_dispatches", OpenDispatches)


async def taking_capacity(connection: Connection) -> TakingCapacity:
    """Return how many runs Temporal has that take capacity of a worker, now or soon."""
    return await _TAKING_CAPACITY.one(connection)


def temporal_id(run: Claim) -> str:
    """Return the run's id in Temporal, which belongs to no other run, even after the database was restored."""
    return f"{run.workflow_id}/{run.run_id}"


async def dispatch(connection: Connection, claims: Sequence[Claim]) -> list[Submission]:
    """Assign claimed runs to Temporal. Must be called in the transaction that claimed them."""
    return await _DISPATCH.all(
        connection,
        ids=[run.id for run in claims],
        fences=[run.fence for run in claims],
        workflow_ids=[temporal_id(run) for run in claims],
    )


async def submitted(connection: Connection, accepted: Sequence[tuple[int, int]]) -> None:
    """Record that Temporal has accepted these runs, given by id and generation."""
    await _SUBMITTED.run(
        connection, ids=[run for run, _ in accepted], generations=[generation for _, generation in accepted]
    )


async def take(
    connection: Connection,
    *,
    trajectory_id: int,
    generation: int,
    sequence: int,
    attempt: int,
    holder: str,
    worker: str,
) -> Claim | None:
    """Claim the run, with a new fence, for this attempt of this activity.

    Locks the run's row and its dispatch until the statement ends.

    Args:
        connection: In autocommit mode, so that the statement is the transaction.
        trajectory_id: The run.
        generation: The dispatch of the run.
        sequence: The activity of the workflow, counted from 1.
        attempt: The attempt of the activity, as Temporal counts.
        holder: Random, and the same only if this claim is sent again.
        worker: The name to record with the run.

    Returns:
        None if the run cannot be claimed.
    """
    return await _TAKE.first(
        connection,
        id=trajectory_id,
        generation=generation,
        sequence=sequence,
        attempt=attempt,
        holder=holder,
        worker=worker,
        max_crashes=MAX_CRASHES,
        inline_bytes=INLINE_BYTES,
    )


async def leave(connection: Connection, *, trajectory_id: int, generation: int, holder: str) -> None:
    """Record that its holder released the run cleanly. Arguments as for `take`."""
    await _LEAVE.run(connection, id=trajectory_id, generation=generation, holder=holder)


async def standing(connection: Connection, *, trajectory_id: int, generation: int) -> RunStanding | None:
    """Return what has become of a run; None if it was deleted."""
    return await _STANDING.first(connection, id=trajectory_id, generation=generation)


async def taken_away(connection: Connection, *, again_seconds: float, limit: int) -> list[Dispatched]:
    """Return dispatches whose run was taken from Temporal. Each is returned again only after `again_seconds`."""
    return await _TAKEN_AWAY.all(connection, again_seconds=again_seconds, limit=limit)


async def forget(connection: Connection, dispatched: Dispatched) -> None:
    """Delete a dispatch, once Temporal knows that the run was taken from it."""
    await _FORGET.run(connection, id=dispatched.id, generation=dispatched.generation)


async def unsettled(
    connection: Connection, *, unsubmitted_seconds: float, submitted_seconds: float, limit: int
) -> list[Unsettled]:
    """Return dispatches that have not been checked for this long, the oldest check first, and record the check."""
    return await _UNSETTLED.all(
        connection, unsubmitted_seconds=unsubmitted_seconds, submitted_seconds=submitted_seconds, limit=limit
    )


async def give_back(connection: Connection, run: Unsettled) -> GivenBack | None:
    """Take a run that Temporal no longer knows, as from a lost worker. Returns None if it was already taken."""
    return await _GIVE_BACK.first(
        connection, id=run.id, generation=run.generation, fence=run.fence, max_crashes=MAX_CRASHES
    )


async def open_dispatches(connection: Connection) -> OpenDispatches:
    """Return how many runs are dispatched to Temporal."""
    return await _OPEN_DISPATCHES.one(connection)
