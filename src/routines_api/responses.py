"""What goes out: msgspec structs in the shapes of the HTTP contract."""

from datetime import datetime
from typing import Any

import msgspec

from routines_core.db.routines import Cadence, Routine
from routines_core.db.tasks import Task
from routines_core.db.trajectories import Trajectory

MASK = "********"
"""What a secret reads as."""


class RoutineRead(msgspec.Struct):
    """A routine, without what its secrets are."""

    id: int
    name: str
    task_name: str
    collection_name: str
    cadence: Cadence
    init_params_overrides: dict[str, Any]
    secret_params: dict[str, str]
    webhook_url: str | None
    webhook_secret: str | None
    paused: bool
    last_run_at: datetime | None
    next_run_at: datetime | None
    overlap_policy: str


class RoutineDetail(RoutineRead):
    """One routine, with a sentence for each override key that its task no longer declares."""

    warnings: list[str] = []


class TaskRead(msgspec.Struct):
    """A task."""

    name: str
    description: str
    workflow: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class InitParam(msgspec.Struct):
    """A parameter that a routine may override."""

    name: str
    default: Any
    type_hint: str


class InitParamsSchema(msgspec.Struct):
    """The parameters of a task, in the order of its workflow."""

    keys: list[InitParam]


class WorkflowResponse(msgspec.Struct):
    """A run that was started."""

    workflow_id: str
    trajectory_id: int
    run_id: str
    message: str
    result: dict[str, Any]
    trajectory: Trajectory
    metadata: str = ""


def routine_read(routine: Routine) -> RoutineRead:
    """The routine as lists show it."""
    return RoutineRead(**_fields(routine))


def routine_detail(routine: Routine, task: Task) -> RoutineDetail:
    """The routine as GET shows it."""
    stale = sorted(set(routine.init_params_overrides) - set(task.init_params))
    warnings = [f"init_params_overrides: the task no longer declares {key!r}." for key in stale]
    return RoutineDetail(**_fields(routine), warnings=warnings)


def init_params_schema(task: Task) -> InitParamsSchema:
    """The keys that may be overridden, in the order of the workflow."""
    return InitParamsSchema(
        [InitParam(name, default, _type_hint(default)) for name, default in task.init_params.items()]
    )


def _fields(routine: Routine) -> dict[str, Any]:
    return {
        "id": routine.id,
        "name": routine.name,
        "task_name": routine.task_name,
        "collection_name": routine.collection_name,
        "cadence": Cadence(routine.cadence_type, routine.hour_utc, routine.minute_utc, routine.day_of_week),
        "init_params_overrides": routine.init_params_overrides,
        "secret_params": dict.fromkeys(routine.secret_refs, MASK),
        "webhook_url": routine.webhook_url,
        "webhook_secret": MASK if routine.has_webhook_secret else None,
        "paused": routine.paused,
        "last_run_at": routine.last_run_at,
        "next_run_at": routine.next_run_at,
        "overlap_policy": routine.overlap_policy,
    }


def _type_hint(default: Any) -> str:
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(default), "string")  # pyright: ignore[reportUnknownArgumentType] - any JSON value
