"""Trajectories as clients read them: sql/queries/trajectories.sql called from Python."""

from datetime import datetime
from typing import Any

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement
from routines_core.errors import NotFoundError


class Trajectory(msgspec.Struct, frozen=True):
    """One run of a task, whole, in the shape that clients decode. Times are UTC; no secret is in it."""

    trajectory_id: int
    workflow_id: str
    run_id: str
    name: str
    status: str
    created: datetime
    updated: datetime
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    init_params: dict[str, Any]
    step_configs: dict[str, Any]
    steps: dict[str, Any]
    total_steps: int
    completed_steps: int
    labels: list[Any]
    error: str | None
    triggered_by_routine_id: int | None
    scheduled_for: datetime | None
    trigger: str
    webhook_url: str | None


class Run(msgspec.Struct, frozen=True):
    """A trajectory's summary."""

    trajectory_id: int
    workflow_id: str
    status: str
    created_at: datetime
    scheduled_for: datetime | None
    trigger: str
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None


class _Total(msgspec.Struct):
    total: int


_FIND = Statement("trajectories.find_trajectory", Trajectory)
_LIST = Statement("trajectories.list_trajectories", Trajectory)
_COUNT = Statement("trajectories.count_trajectories", _Total)
_LIST_RUNS = Statement("trajectories.list_runs", Run)


async def find_trajectory(connection: Connection, *, key_id: int, task: str, trajectory_id: int) -> Trajectory:
    """The run of this id.

    Raises:
        NotFoundError: There is none of this task in this collection.
    """
    found = await _FIND.first(connection, key_id=key_id, task=task, id=trajectory_id)
    if found is None:
        raise NotFoundError
    return found


async def list_trajectories(
    connection: Connection,
    *,
    key_id: int,
    task_id: int,
    status: str | None,
    routine_id: int | None,
    limit: int,
    offset: int,
) -> tuple[list[Trajectory], int]:
    """A page of a task's runs, newest first, and how many there are in all; None for status or routine means any."""
    filters = {"key_id": key_id, "task_id": task_id, "status": status, "routine_id": routine_id}
    found = await _LIST.all(connection, **filters, limit=limit, offset=offset)
    return found, (await _COUNT.one(connection, **filters)).total


async def list_runs(
    connection: Connection, *, key_id: int, task: str, name: str, limit: int, before: int | None = None
) -> list[Run]:
    """A routine's runs, newest first, those older than `before`; none where there is no such routine."""
    return await _LIST_RUNS.all(connection, key_id=key_id, task=task, name=name, limit=limit, before=before)
