"""Runs as a worker sees them: sql/queries/runs.sql called from Python."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from psycopg.types.json import Json, Jsonb

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement

MAX_CRASHES = 3
"""Workers that a run may lose before it fails."""

MOST_REAPED = 1000
"""Runs that are taken from lost workers at once."""


class Claim(msgspec.Struct, frozen=True):
    """A run in a worker's hands.

    Attributes:
        id: The trajectory.
        fence: The fence: named by every later write.
        workflow_id: As it was at the first claim; the idempotency keys of its steps begin with it.
        init_params: The run's parameters.
        workflow: The version of the workflow that the run was made with.
        seconds_left: Seconds until the run's deadline.
        finished_steps: What earlier attempts completed, by the step's name.
        tries: Which try earlier attempts were at, by the name of a step that they did not complete.
    """

    id: int
    fence: int
    collection_id: int
    task_id: int
    workflow_id: str
    init_params: dict[str, Any]
    workflow: dict[str, Any]
    seconds_left: float
    finished_steps: dict[str, Any]
    tries: dict[str, int]


class Reaped(msgspec.Struct, frozen=True):
    """A run that was taken from a lost worker, or from one that was too late."""

    id: int
    status: str
    crashes: int


class StepRecord(msgspec.Struct, frozen=True):
    """A checkpoint: where a step stands.

    Attributes:
        position: Its place in workflow.steps, from 0.
        status: running, completed or failed.
        outputs: What the activity returned; None: nothing yet.
        error: Why it failed; None: it did not.
        attempt: Which try of the step this is, from 1.
        failed_try: Why the try before this one failed, kept beside the errors of those before it; None: nothing to add.
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


class Checkpoint(msgspec.Struct, frozen=True):
    """What is written of one run at once.

    Attributes:
        id: The trajectory.
        fence: The fence.
        steps: Where they stand; no step twice.
        status: completed or failed; None: the run goes on.
        error: Why it failed; None: it did not.
    """

    id: int
    fence: int
    steps: list[StepRecord] = []
    status: str | None = None
    error: str | None = None


class RunSecret(msgspec.Struct, frozen=True):
    """A ciphertext that a run may have opened, and whose it is by what refers to it.

    Attributes:
        secret_id: None: it is referred to and gone.
        run_id: Whose secret param it is; None: it is the collection's environment variable.
        routine_id: What caused that run; None: the API.
    """

    secret_id: UUID | None
    ciphertext: bytes | None
    run_id: int | None
    routine_id: int | None


class _Id(msgspec.Struct):
    id: int


class _Renewed(msgspec.Struct):
    id: int
    renewed: bool


class _Noted(msgspec.Struct):
    is_noted: bool


_CLAIM = Statement("runs.claim", Claim)
_REQUEST_WAKEUP = Statement("runs.request_wakeup", NoRow)
_RENEW = Statement("runs.renew", _Renewed)
_STILL_CLAIMED = Statement("runs.still_claimed", _Id)
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
) -> list[Claim]:
    """Take up to `capacity` pending runs; each is ours for `lease_seconds` unless renewed.

    The collections have equal shares, and in each its tasks; of a task the oldest come first.

    Args:
        connection: In autocommit mode, so that the statement is the transaction.
        capacity: The most to take; there may be more although fewer were taken.
        worker: The name that the runs will bear.
        lease_seconds: By the database's clock.
        deadline_seconds: From a run's first claim.
        last_tasks: By collection, the task that was served last: the ones after it are next. Its last entry is the
            collection that was served last.
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
    )


async def request_wakeup(connection: Connection, *, worker: str) -> None:
    """Say that this worker is idle: it is notified of the next run that is inserted."""
    await _REQUEST_WAKEUP.run(connection, worker=worker)


async def renew(connection: Connection, pairs: Pairs, *, lease_seconds: float) -> dict[int, bool]:
    """Renew the leases: the ids that are still ours, and of each whether its lease was renewed.

    It was not where another session has the run locked at this moment.
    """
    rows = await _RENEW.all(connection, **_arrays(pairs), lease_seconds=lease_seconds)
    return {row.id: row.renewed for row in rows}


async def still_claimed(connection: Connection, pairs: Pairs) -> set[int]:
    """Return the ids of the runs that this worker still has claimed."""
    return {row.id for row in await _STILL_CLAIMED.all(connection, **_arrays(pairs))}


async def write(connection: Connection, checkpoints: Sequence[Checkpoint], *, lease_seconds: float) -> set[int]:
    """Record steps and ends of runs, and renew the leases of those that go on; one for each run.

    Returns the ids that were written. The others are no longer ours, or locked by another session at this moment:
    `still_claimed` tells them apart.

    Raises:
        InvalidError: One of them holds what cannot be stored; nothing of any was written.
    """
    with domain_errors():
        rows = await _CHECKPOINT.all(connection, runs=Json(checkpoints), lease_seconds=lease_seconds)
    return {row.id for row in rows}


async def checkpoint(connection: Connection, run: Claim, step: StepRecord, *, lease_seconds: float) -> bool:
    """Record one step; False: nothing was written."""
    one = Checkpoint(run.id, run.fence, [step])
    return bool(await write(connection, [one], lease_seconds=lease_seconds))


async def finish(connection: Connection, run: Claim, *, error: str | None) -> bool:
    """End a run: completed, or failed where there is an error; False: nothing was written."""
    end = Checkpoint(run.id, run.fence, status="completed" if error is None else "failed", error=error)
    return bool(await write(connection, [end], lease_seconds=0))


async def release(connection: Connection, pairs: Pairs) -> int:
    """Give runs back to the queue without counting a crash: how many were still ours."""
    return await _RELEASE.run(connection, **_arrays(pairs))


async def reap(connection: Connection) -> list[Reaped]:
    """Take runs from lost workers, fail what was lost too often or is past its deadline; MOST_REAPED at most."""
    return await _REAP.all(connection, max_crashes=MAX_CRASHES, most=MOST_REAPED)


async def use_file(connection: Connection, run: Claim, path: str) -> bool:
    """Note a file that a step of the run has saved; False: the run is no longer ours."""
    return await _USE_FILE.first(connection, id=run.id, fence=run.fence, path=path) is not None


async def sealed_secret(connection: Connection, run: Claim, name: str) -> RunSecret | None:
    """The secret of this name that the run may have opened; None: there is none."""
    return await _SEALED_SECRET.first(connection, id=run.id, fence=run.fence, name=name)


def _arrays(pairs: Pairs) -> dict[str, list[int]]:
    return {"ids": [run for run, _ in pairs], "fences": [fence for _, fence in pairs]}
