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


_FIND = Statement("trajectories.find_trajectory", Trajectory)
_LIST_RUNS = Statement("trajectories.list_runs", Run)


async def find_trajectory(connection: Connection, *, collection_id: int, task: str, trajectory_id: int) -> Trajectory:
    """The run of this id.

    Raises:
        NotFoundError: There is none of this task in this collection.
    """
    found = await _FIND.first(connection, collection_id=collection_id, task=task, id=trajectory_id)
    if found is None:
        raise NotFoundError
    return found


async def list_runs(connection: Connection, *, collection_id: int, routine_id: int, limit: int) -> list[Run]:
    """A routine's runs, newest first, at most `limit`."""
    return await _LIST_RUNS.all(connection, collection_id=collection_id, routine_id=routine_id, limit=limit)
