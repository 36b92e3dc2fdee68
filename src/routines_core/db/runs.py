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
"""Number of lost workers at which a run fails."""

MOST_REAPED = 1000
"""Maximum number of runs reaped by one statement."""


class Claim(msgspec.Struct, frozen=True):
    """A run that a worker has claimed.

    Attributes:
        id: The run.
        fence: Named by every later write.
        workflow_id: As it was at the first claim. The idempotency keys of its steps begin with it.
        init_params: The run's parameters.
        workflow: The version of the workflow that the run was created with.
        seconds_left: Seconds until the run's deadline.
        finished_steps: Inputs and outputs of the steps that earlier claims completed, by name.
        tries: The attempt that earlier claims had reached, by the name of each step that is not complete.
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
    """A run that was taken from a lost worker, or failed at its deadline."""

    id: int
    status: str
    crashes: int


class StepRecord(msgspec.Struct, frozen=True):
    """A checkpoint of a step.

    Attributes:
        position: Its place in workflow.steps, from 0.
        status: running, completed or failed.
        outputs: The result of the activity; None if there is none yet.
        error: Why it failed; None if it did not.
        attempt: Which attempt of the step this is, from 1.
        failed_try: Why the previous attempt failed, appended to the earlier errors; None if there is nothing to append.
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
    """Everything that is written for one run by one statement.

    Attributes:
        id: The run.
        fence: The fence of the claim.
        steps: Their checkpoints, each step at most once.
        status: completed or failed; None if the run goes on.
        error: Why it failed; None if it did not.
    """

    id: int
    fence: int
    steps: list[StepRecord] = []
    status: str | None = None
    error: str | None = None


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
    """Claim up to `capacity` pending runs, each for `lease_seconds` unless renewed.

    Collections get equal shares, and so do the tasks of each. The oldest runs of a task come first.

    Args:
        connection: In autocommit mode, so that the statement is the transaction.
        capacity: The maximum number to claim. Fewer may be claimed although more are pending.
        worker: The name to record with the runs.
        lease_seconds: By the database's clock.
        deadline_seconds: From a run's first claim.
        last_tasks: By collection, the task that was served last, after which the next claim starts. Its last entry is
            the collection that was served last.
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


async def still_claimed(connection: Connection, pairs: Pairs) -> set[int]:
    """Return the ids of the runs that this worker still has claimed."""
    return {row.id for row in await _STILL_CLAIMED.all(connection, **_arrays(pairs))}


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
    """Take up to MOST_REAPED runs from lost workers; fail those lost too often or past their deadline."""
    return await _REAP.all(connection, max_crashes=MAX_CRASHES, most=MOST_REAPED)


async def use_file(connection: Connection, run: Claim, path: str) -> bool:
    """Record a file that a step of the run saved. Returns False if the run no longer belongs to this worker."""
    return await _USE_FILE.first(connection, id=run.id, fence=run.fence, path=path) is not None


async def sealed_secret(connection: Connection, run: Claim, name: str) -> RunSecret | None:
    """Return the secret of this name that the run may use; None if there is none."""
    return await _SEALED_SECRET.first(connection, id=run.id, fence=run.fence, name=name)


def _arrays(pairs: Pairs) -> dict[str, list[int]]:
    return {"ids": [run for run, _ in pairs], "fences": [fence for _, fence in pairs]}
