"""Tasks as they are shown, their versions and their parameters."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_api.schemas.fields import TimeRead
from routines_core.db.tasks import Task, TaskVersion, WholeVersion


class TaskRead(msgspec.Struct):
    """A task."""

    name: Annotated[str, Meta(description="Unique in its collection.", examples=["greet"])]
    description: Annotated[str, Meta(description="Free text for people.")]
    workflow: Annotated[dict[str, Any], Meta(description="{init_params, step_configs, steps}, as it was sent.")]
    created_at: Annotated[TimeRead, Meta(description="When it was created.")]
    updated_at: Annotated[TimeRead, Meta(description="When it was last changed.")]


class TaskVersionRead(msgspec.Struct, omit_defaults=True):
    """A version of a task's workflow."""

    version: Annotated[int, Meta(description="Counts from 1 within the task.", examples=[3])]
    saved_at: Annotated[TimeRead, Meta(description="When it was saved.")]
    actor: Annotated[
        str | msgspec.UnsetType,
        Meta(description="Who saved it, as in the audit; absent if that does not go back so far.", examples=["key 7"]),
    ] = msgspec.UNSET


class TaskVersionDetail(TaskVersionRead, kw_only=True):
    """A version of a task with its workflow."""

    workflow: Annotated[dict[str, Any], Meta(description="{init_params, step_configs, steps}.")]


class InitParam(msgspec.Struct):
    """A parameter that a routine may override."""

    name: Annotated[str, Meta(description="The key.", examples=["model"])]
    default: Annotated[Any, Meta(description="Its value unless a routine overrides it.", examples=["gpt-4o"])]
    type_hint: Annotated[
        str, Meta(description="The JSON type of the default; string if it is null.", examples=["string"])
    ]


class InitParamsSchema(msgspec.Struct):
    """The parameters of a task, in the order of its workflow."""

    keys: Annotated[list[InitParam], Meta(description="One for each parameter.")]


class Message(msgspec.Struct):
    """A sentence for people."""

    message: Annotated[str, Meta(description="What happened.", examples=["Task greet was deleted."])]


def task_read(task: Task) -> TaskRead:
    """Convert a task."""
    return TaskRead(task.name, task.description, task.workflow, task.created_at, task.updated_at)


def task_version_read(version: TaskVersion) -> TaskVersionRead:
    """Convert a version of a task."""
    return TaskVersionRead(version.version, version.saved_at, version.actor or msgspec.UNSET)


def task_version_detail(version: WholeVersion) -> TaskVersionDetail:
    """Convert a version of a task with its workflow."""
    return TaskVersionDetail(
        version.version, version.saved_at, version.actor or msgspec.UNSET, workflow=version.workflow
    )


def init_params_schema(task: Task) -> InitParamsSchema:
    """Return the keys that may be overridden, in the order of the workflow."""
    return InitParamsSchema(
        [InitParam(name, default, _type_hint(default)) for name, default in task.init_params.items()]
    )


def _type_hint(default: Any) -> str:
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(default), "string")  # pyright: ignore[reportUnknownArgumentType] - any JSON value
