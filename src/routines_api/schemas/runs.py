"""What starts a run, and the answer to it."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field, field_validator

from routines_api.schemas.fields import RequestBody, SecretName, Time, WebhookUrl, WithWebhook, refuse_mask
from routines_core.db.trajectories import Trajectory


class RunCreate(WithWebhook):
    """A run to start. In a form, `init_params` and `secret_params` are JSON texts, and `files` are the files."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"init_params": {"name": "team"}}]})

    init_params: dict[str, Any] = Field(
        default={}, description="Merged over the task's init_params; each key must be declared there."
    )
    secret_params: dict[SecretName, str] = Field(
        default={}, description="Stored encrypted until the run has ended; never returned."
    )
    webhook_url: WebhookUrl | None = None
    webhook_secret: str | None = Field(default=None, min_length=1, description="Signs the webhook; never returned.")
    files: list[Any] = Field(
        default=[], max_length=0, description="In a multipart form: files; their paths become init_params.file_paths."
    )

    @field_validator("secret_params", "webhook_secret")
    @classmethod
    def _no_mask(cls, value: Any) -> Any:
        return refuse_mask(value)


class RoutineRunNow(RequestBody):
    """What is different in a run that is started by hand. The body may be left out."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"init_params": {"sample_size": 5}, "as_of": "2026-05-04T09:00:00Z"}]}
    )

    init_params: dict[str, Any] = Field(
        default={}, description="Merged over the parameters that the routine gives its runs; each must be declared."
    )
    secret_params: dict[SecretName, str] = Field(
        default={}, description="Beside the routine's, or in place of those of the same name, until the run has ended."
    )
    as_of: Time | None = Field(
        default=None, description="The slot that references such as slot.date speak of; null: the run is for no slot."
    )
    respect_overlap: bool = Field(
        default=False, description="true: 409 while a run of the routine is active; false: the run starts beside it."
    )

    @field_validator("secret_params")
    @classmethod
    def _no_mask(cls, value: Any) -> Any:
        return refuse_mask(value)


class RerunCreate(RequestBody):
    """What is different in a rerun. The body may be left out: then all steps run again, with the same parameters."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"from_step": "summarize", "init_params": {"model": "gpt-4o-mini"}}]}
    )

    from_step: str | None = Field(
        default=None, description="Steps before this one are kept and not executed again; null: all are executed."
    )
    init_params: dict[str, Any] = Field(
        default={}, description="Merged over the parameters of that run; its version of the task must declare each key."
    )
    secret_params: dict[SecretName, str] = Field(
        default={},
        description="Secrets of the run itself, since those of the run that it repeats were deleted at its end. A "
        "rerun of a run of a routine also has those that the routine has today.",
    )
    webhook_secret: str | None = Field(
        default=None,
        min_length=1,
        description="Signs the webhook of a run that no routine started; required if its webhook was signed.",
    )

    @field_validator("secret_params", "webhook_secret")
    @classmethod
    def _no_mask(cls, value: Any) -> Any:
        return refuse_mask(value)


class WorkflowResponse(msgspec.Struct):
    """A started run."""

    workflow_id: Annotated[str, Meta(description="The id to poll with.", examples=["flow-my-org-greet--9876"])]
    trajectory_id: Annotated[int, Meta(description="The run.", examples=[9876])]
    run_id: Annotated[str, Meta(description="The run, as a UUID.")]
    message: Annotated[str, Meta(description="A sentence for people.")]
    result: Annotated[
        dict[str, Any],
        Meta(description="Once the run has ended: the outputs of each completed step by its name; before that, empty."),
    ]
    trajectory: Annotated[Trajectory, Meta(description="The whole run.")]
    metadata: Annotated[str, Meta(description="Empty.")] = ""


def workflow_response(trajectory: Trajectory, message: str, large_steps: str | None = None) -> WorkflowResponse:
    """Return the answer to the request that started this run, whose steps may be JSON that was read apart."""
    result = {} if trajectory.ended_at is None else _outputs(trajectory, large_steps)
    return WorkflowResponse(
        trajectory.workflow_id, trajectory.trajectory_id, trajectory.run_id, message, result, trajectory
    )


def _outputs(trajectory: Trajectory, large_steps: str | None) -> dict[str, Any]:
    """Return the outputs of completed steps by name; those of large steps as JSON that is not parsed."""
    if large_steps is None:
        return {name: step["outputs"] for name, step in trajectory.steps.items() if step["status"] == "completed"}
    large = msgspec.json.decode(large_steps, type=dict[str, _LargeStep])
    return {name: step.outputs for name, step in large.items() if step.status == "completed"}


class _LargeStep(msgspec.Struct):
    status: str
    outputs: msgspec.Raw
