"""The answer to a request that starts a run."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_core.db.trajectories import Trajectory


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
