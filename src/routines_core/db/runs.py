"""Runs as a worker sees them: sql/queries/runs.sql called from Python.

A run is a row of routines.trajectories. The clients' side of the same rows is in trajectories.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from psycopg.types.json import Json, Jsonb

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement

MAX_CRASHES = 3
"""A run fails once it has lost this many workers."""

MOST_REAPED = 1000
"""Maximum number of runs reaped by one statement."""
MOST_ADMITTED = 10_000
"""Maximum number of waiting runs that one statement looks at."""
INLINE_BYTES = 4096
"""Parameters of at most this size, as Postgres stores them, come with the claim."""


class Claim(msgspec.Struct, frozen=True):
    """A run that a worker has claimed.

    Attributes:
        id: The run.
        fence: Named by every later write.
        task_version: The version of the workflow that the run was created with.
        workflow_id: As it was at the first claim.
        run_id: Unique among all runs of all databases. The idempotency keys of its steps begin with it.
        seconds_left: Seconds until the run's deadline.
        init_params: The run's parameters as JSON, if they are small and this is its first claim; otherwise None, and
            they are to be loaded.
        began_at: When it was first claimed, in Unix seconds by the database's clock.
        traceparent: The span that started it; None if that was not traced.
        is_scheduled: Whether that span is a tick, also of the run that this one retries.
    """

    id: int
    fence: int
    collection_id: int
    task_id: int
    task_version: int
    workflow_id: str
    run_id: str
    seconds_left: float
    init_params: str | None = None
    began_at: float = 0.0
    traceparent: str | None = None
    is_scheduled: bool = False


class NamedClaim(Claim, frozen=True):
    """A claimed run with the names that a log shows.

    Attributes:
        task: The collection and the name of its task, `my-org/report`; None if it was deleted.
        routine: The name of the routine that triggered it; None if none did, or it was deleted.
    """

    task: str | None = None
    routine: str | None = None


class Loaded(msgspec.Struct, frozen=True):
    """What a run's steps need beside the workflow.

    Attributes:
        init_params: The run's parameters as JSON.
        finished_steps: Inputs and outputs of its completed steps by name, as JSON, and has_file where it is true; None
            if there is too much of them.
        attempts: The attempt that each other step has reached, by name.
        finished: The number of completed steps.
        log_events: The number of events in the run's log. A new run has two: it was created and claimed.
    """

    init_params: str
    finished_steps: str | None
    attempts: dict[str, int]
    finished: int = 0
    log_events: int = 2


class Reaped(msgspec.Struct, frozen=True):
    """A run that was taken from a lost worker, failed at its deadline, or has waited for the next attempt of a step.

    Attributes:
        has_waited: Its wait is over, and no worker had it.
    """

    id: int
    status: str
    crashes: int
    has_waited: bool


class StepRecord(msgspec.Struct, frozen=True):
    """A checkpoint of a step.

    Attributes:
        position: Its place in workflow.steps, from 0.
        status: running, completed or failed.
        outputs: The result of the activity; None if there is none yet.
        has_file: Whether outputs is a reference to the file that holds them: see LargeOutputs.
        error: Why it failed; None if it did not.
        attempt: Which attempt of the step this is, from 1.
        failed_try: Why the previous attempt failed, appended to the earlier errors; None if there is nothing to append.
        answer: The HTTP response behind `error` or `failed_try`, without secrets; None if there was none.
        is_transient: Of a step that failed: whether the cause may go away by itself; otherwise None.
    """

    name: str
    position: int
    status: str
    activity: str
    inputs: dict[str, Any]
    outputs: Any = None
    error: str | None = None
    attempt: int = 1
    failed_try: str | None = None
    has_file: bool = False
    answer: dict[str, Any] | None = None
    is_transient: bool | None = None


class Checkpoint(msgspec.Struct, frozen=True):
    """Everything that is written for one run by one statement.

    Attributes:
        id: The run.
        fence: The fence of the claim.
        steps: Their checkpoints, each step at most once: records, or the same as JSON.
        status: completed or failed; None if the run goes on.
        error: Why it failed; None if it did not.
        bytes: How many bytes all steps of the run hold with these; 0 if that is not known.
    """

    id: int
    fence: int
    steps: Sequence[StepRecord | msgspec.Raw] = ()
    status: str | None = None
    error: str | None = None
    bytes: int = 0


class RunSecret(msgspec.Struct, frozen=True):
    """A ciphertext that a run may use, and its owner according to the row that refers to it.

    Attributes:
        secret_id: The secret; None if it was deleted.
        run_id: The run whose secret param it is; None if it is the collection's environment variable.
        routine_id: The routine that started that run; None if the API started it.
    """

    secret_id: UUID | None
    ciphertext: bytes | None
    run_id: int | None
    routine_id: int | None


class Admitted(msgspec.Struct, frozen=True):
    """What became of the runs that wait for a place.

    Attributes:
        admitted: Runs that were put into the queue.
        replacing: Runs that still wait for others to be cancelled.
    """

    admitted: int
    replacing: int


class _Id(msgspec.Struct):
    id: int


class _StillClaimed(msgspec.Struct):
    id: int
    must_stop: bool


class _Slot(msgspec.Struct):
    slot: dict[str, str | None]


class _Workflow(msgspec.Struct):
    workflow: str


class _Renewed(msgspec.Struct):
    id: int
    renewed: bool


class _Stopped(msgspec.Struct):
    is_replaced: bool


class _Noted(msgspec.Struct):
    is_noted: bool


_CLAIM = Statement("runs.claim", NamedClaim)
_REQUEST_WAKEUP = Statement("runs.request_wakeup", NoRow)
_RENEW = Statement("runs.renew", _Renewed)
_LOAD = Statement("runs.load", Loaded)
_LOAD_WORKFLOW = Statement("runs.load_workflow", _Workflow)
_SLOT = Statement("runs.slot", _Slot)
_SUSPEND = Statement("runs.suspend", _Id)
_STILL_CLAIMED = Statement("runs.still_claimed", _StillClaimed)
_STOP_RUN = Statement("runs.stop_run", _Stopped)
_FENCE_OFF = Statement("runs.fence_off", _Id)
_ADMIT = Statement("runs.admit", Admitted)
_CHECKPOINT = Statement("runs.checkpoint", _Id)
_RELEASE = Statement("runs.release", NoRow)
_REAP = Statement("runs.reap", Reaped)
_USE_FILE = Statement("runs.use_file", _Noted)
_SEALED_SECRET = Statement("runs.sealed_secret", RunSecret)

Pairs = Sequence[tuple[int, int]]
"""Runs by id and fence."""


async def claim(
    connection: Connection,
    *,
    capacity: int,
    worker: str,
    lease_seconds: float,
    deadline_seconds: float,
    last_tasks: Mapping[int, int] | None = None,
    but_collections: Sequence[int] = (),
    most_each: int | None = None,
) -> Sequence[Claim]:
    """Claim up to `capacity` pending runs, each for `lease_seconds` unless renewed.

    Collections get equal shares, and so do the tasks of each. The oldest runs of a task come first.

    Args:
        connection: In autocommit mode, so that the statement is the transaction.
        capacity: The maximum number to claim. Fewer may be claimed although more are pending.
        worker: The name to record with the runs.
        lease_seconds: By the database's clock.
        deadline_seconds: From a run's first claim; less if its routine has a smaller timeout_seconds.
        last_tasks: By collection, the task that was served last, after which the next claim starts. Its last entry is
            the collection that was served last.
        but_collections: Collections that get nothing.
        most_each: The maximum for each collection; None for no such limit.
    """
    served = last_tasks or {}
    return await _CLAIM.all(
        connection,
        capacity=capacity,
        worker=worker,
        lease_seconds=lease_seconds,
        deadline_seconds=deadline_seconds,
        after=next(reversed(served), 0),
        last_tasks=Jsonb(served),
        but_collections=list(but_collections),
        most_each=most_each,
        inline_bytes=INLINE_BYTES,
    )


async def load(connection: Connection, run: Claim, *, most_bytes: int = 2**30) -> Loaded | None:
    """Return what the run's steps need; None if the run no longer belongs to this worker."""
    return await _LOAD.first(connection, id=run.id, fence=run.fence, most_bytes=most_bytes)


async def load_workflow(connection: Connection, *, task_id: int, version: int) -> str | None:
    """Return a version of a workflow as JSON; None if it was deleted."""
    found = await _LOAD_WORKFLOW.first(connection, task_id=task_id, version=version)
    return found.workflow if found else None


async def slot(connection: Connection, run: Claim) -> dict[str, str | None] | None:
    """Return what references to `slot` refer to in this run; None if the run no longer belongs to this worker.

    The first call fixes the values: a worker that resumes the run gets the same.
    """
    found = await _SLOT.first(connection, id=run.id, fence=run.fence)
    return found.slot if found else None


async def suspend(connection: Connection, run: Claim, *, seconds: float | None) -> bool:
    """Let the run wait without a worker. Returns False if it was lost.

    It returns to the queue after `seconds`, or for None once all its children have ended.
    """
    return await _SUSPEND.first(connection, id=run.id, fence=run.fence, seconds=seconds) is not None


async def request_wakeup(connection: Connection, *, worker: str) -> None:
    """Record that this worker is idle, so that the next inserted run notifies it."""
    await _REQUEST_WAKEUP.run(connection, worker=worker)


async def renew(connection: Connection, pairs: Pairs, *, lease_seconds: float) -> dict[int, bool]:
    """Renew the leases of claimed runs.

    Returns:
        The ids that still belong to this worker, each with True if its lease was renewed. It is not renewed while
        another session has locked the run.
    """
    rows = await _RENEW.all(connection, **_arrays(pairs), lease_seconds=lease_seconds)
    return {row.id: row.renewed for row in rows}


async def still_claimed(connection: Connection, pairs: Pairs) -> dict[int, bool]:
    """Return the ids of the runs that this worker still has claimed, each with True if it must stop.

    A run must stop if the run of a later slot waits for its end, and the overlap policy is cancel_other.
    """
    return {row.id: row.must_stop for row in await _STILL_CLAIMED.all(connection, **_arrays(pairs))}


async def stop(connection: Connection, run: Claim) -> bool:
    """Cancel a run that must stop, once it does nothing more; if no later run waits any more, return it to the queue.

    Returns False if it was not cancelled, or was lost.
    """
    stopped = await _STOP_RUN.first(connection, id=run.id, fence=run.fence)
    return stopped is not None and stopped.is_replaced


async def admit(connection: Connection) -> Admitted:
    """Put up to MOST_ADMITTED runs that wait for a place into the queue, where their routines have room for them."""
    return await _ADMIT.one(connection, most=MOST_ADMITTED)


async def fence_off(connection: Connection) -> list[int]:
    """Cancel up to MOST_ADMITTED runs that must stop and that no worker stops in time. Returns their ids."""
    return [row.id for row in await _FENCE_OFF.all(connection, most=MOST_ADMITTED)]


async def write(connection: Connection, checkpoints: Sequence[Checkpoint], *, lease_seconds: float) -> set[int]:
    """Record steps and ends of runs, and renew the leases of those that go on. One checkpoint per run.

    Returns:
        The ids that were written. The others no longer belong to this worker, or another session has locked them;
        `still_claimed` tells which.

    Raises:
        InvalidError: A checkpoint contains a value that cannot be stored. Nothing was written.
    """
    with domain_errors():
        rows = await _CHECKPOINT.all(connection, runs=Json(checkpoints), lease_seconds=lease_seconds)
    return {row.id for row in rows}


async def checkpoint(connection: Connection, run: Claim, step: StepRecord, *, lease_seconds: float) -> bool:
    """Record one step. Returns False if nothing was written."""
    one = Checkpoint(run.id, run.fence, [step])
    return bool(await write(connection, [one], lease_seconds=lease_seconds))


async def finish(connection: Connection, run: Claim, *, error: str | None) -> bool:
    """End a run as completed, or as failed if there is an error. Returns False if nothing was written."""
    end = Checkpoint(run.id, run.fence, status="completed" if error is None else "failed", error=error)
    return bool(await write(connection, [end], lease_seconds=0))


async def release(connection: Connection, pairs: Pairs) -> int:
    """Return runs to the queue without counting a crash. Returns how many still belonged to this worker."""
    return await _RELEASE.run(connection, **_arrays(pairs))


async def reap(connection: Connection) -> list[Reaped]:
    """Take up to MOST_REAPED runs from lost workers, fail those lost too often or past their deadline, end waits."""
    return await _REAP.all(connection, max_crashes=MAX_CRASHES, most=MOST_REAPED)


async def use_file(connection: Connection, run: Claim, path: str) -> bool:
    """Record a file that a step of the run saved. Returns False if the run no longer belongs to this worker."""
    return await _USE_FILE.first(connection, id=run.id, fence=run.fence, path=path) is not None


async def sealed_secret(connection: Connection, run: Claim, name: str) -> RunSecret | None:
    """Return the secret of this name that the run may use; None if there is none."""
    return await _SEALED_SECRET.first(connection, id=run.id, fence=run.fence, name=name)


def _arrays(pairs: Pairs) -> dict[str, list[int]]:
    return {"ids": [run for run, _ in pairs], "fences": [fence for _, fence in pairs]}
