"""Tasks, their versions and their parameters, as they are sent and shown."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from routines_api.schemas.fields import IGNORED, RequestBody, Slug, TimeRead
from routines_core.db.tasks import Task, TaskVersion, WholeVersion
from routines_workflow.checks import check_workflow

_EXAMPLE_WORKFLOW: dict[str, Any] = {
    "init_params": {"name": "world"},
    "step_configs": {"greet": {"activity": "text_echo", "text_path": "init_params.name"}},
    "steps": ["greet"],
}


class _TaskFields(RequestBody):
    """Rules for fields that creating and updating share."""

    @field_validator("workflow", check_fields=False)
    @classmethod
    def _can_be_run(cls, workflow: dict[str, Any]) -> dict[str, Any]:
        if faults := check_workflow(workflow):
            raise PydanticCustomError("workflow", "is not valid", {"faults": faults})
        return workflow


class TaskCreate(_TaskFields):
    """A task to save."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "greet", "workflow": _EXAMPLE_WORKFLOW}]})

    name: Slug
    description: str = Field(default="", description="Free text for people.")
    workflow: dict[str, Any] = Field(description="{init_params, step_configs, steps}.")


class TaskUpdate(_TaskFields):
    """Fields to update on a task; a field that is left out keeps its value.

    Times managed by the server are accepted and ignored, so that the answer of a GET can be sent back whole.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"description": "Says hello."}]})

    name: Slug = Field(default="", validate_default=False)
    description: str = Field(default="", description="Free text for people.")
    workflow: dict[str, Any] = Field(
        default={}, description="Becomes a new version; runs keep the version they started with."
    )
    created_at: Any = IGNORED
    updated_at: Any = IGNORED


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
