"""Runs as a worker sees them: sql/queries/runs.sql called from Python."""

from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from routines_core.db.pool import Connection
from routines_core.db.statements import Nothing, Statement

MAX_CRASHES = 3
"""Workers that a run may lose before it fails."""


class Claim(msgspec.Struct, frozen=True):
    """A run in a worker's hands.

    Attributes:
        id: The trajectory.
        attempt: The fence: named by every later write.
        init_params: The run's parameters.
        workflow: The version of the workflow that the run was made with.
        seconds_left: Seconds until the run's deadline.
        finished_steps: What earlier attempts completed, by the step's name.
        tries: Which try earlier attempts were at, by the name of a step that they did not complete.
    """

    id: int
    attempt: int
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
        try_number: Which try of the step this is, from 1.
        failed_try: Why the try before this one failed, kept beside the errors of those before it; None: nothing to add.
    """

    name: str
    position: int
    status: str
    activity: str
    inputs: dict[str, Any]
    outputs: Any = None
    error: str | None = None
    try_number: int = 1
    failed_try: str | None = None


class _Id(msgspec.Struct):
    id: int


_CLAIM = Statement("runs.claim", Claim)
_RENEW = Statement("runs.renew", _Id)
_CHECKPOINT = Statement("runs.checkpoint", Nothing)
_FINISH = Statement("runs.finish", Nothing)
_RELEASE = Statement("runs.release", Nothing)
_REAP = Statement("runs.reap", Reaped)


async def claim(
    connection: Connection, *, slots: int, worker: str, lease_seconds: float, deadline_seconds: float
) -> list[Claim]:
    """Take up to `slots` pending runs, oldest first; each is ours for `lease_seconds` unless renewed."""
    return await _CLAIM.all(
        connection, slots=slots, worker=worker, lease_seconds=lease_seconds, deadline_seconds=deadline_seconds
    )


async def renew(connection: Connection, held: list[tuple[int, int]], *, lease_seconds: float) -> set[int]:
    """Renew the leases of (id, attempt) pairs; returns the ids that are still ours."""
    ids, attempts = [run for run, _ in held], [attempt for _, attempt in held]
    rows = await _RENEW.all(connection, ids=ids, attempts=attempts, lease_seconds=lease_seconds)
    return {row.id for row in rows}


async def checkpoint(connection: Connection, run: Claim, step: StepRecord, *, lease_seconds: float) -> bool:
    """Record a step and renew the lease; False: the run is no longer ours and nothing was written."""
    written = await _CHECKPOINT.run(
        connection,
        id=run.id,
        attempt=run.attempt,
        name=step.name,
        position=step.position,
        status=step.status,
        activity=step.activity,
        inputs=Jsonb(step.inputs),
        outputs=None if step.outputs is None else Jsonb(step.outputs),
        error=step.error,
        try_number=step.try_number,
        failed_try=step.failed_try,
        lease_seconds=lease_seconds,
    )
    return written == 1


async def finish(connection: Connection, run: Claim, *, error: str | None) -> bool:
    """End a run: completed, or failed where there is an error; False: it was no longer ours."""
    status = "completed" if error is None else "failed"
    return await _FINISH.run(connection, id=run.id, attempt=run.attempt, status=status, error=error) == 1


async def release(connection: Connection, held: list[tuple[int, int]]) -> int:
    """Give (id, attempt) pairs back to the queue without counting a crash: how many were still ours."""
    return await _RELEASE.run(connection, ids=[run for run, _ in held], attempts=[attempt for _, attempt in held])


async def reap(connection: Connection) -> list[Reaped]:
    """Take runs from lost workers, fail what was lost too often or is past its deadline."""
    return await _REAP.all(connection, max_crashes=MAX_CRASHES)
