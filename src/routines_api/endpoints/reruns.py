"""The endpoint that runs an ended run again."""

from typing import NoReturn

from litestar import post

from routines_api.http.access import Caller
from routines_api.http.idempotency import once
from routines_api.http.paths import id_of
from routines_api.http.sealing import rerun_spec
from routines_api.http.tracing import traceparent_of
from routines_api.openapi.description import operation
from routines_api.schemas.runs import RerunCreate, WorkflowResponse, workflow_response
from routines_core.db import trajectories as db
from routines_core.errors import ConflictError, InvalidError, UnknownKeysError


@post(
    "/rerun/{collection:str}/{task:str}/{trajectory_id:str}",
    tags=["Runs"],
    status_code=200,
    **operation("rerunTrajectory", body=RerunCreate, body_required=False, idempotent=True),
)
async def rerun(task: str, trajectory_id: str, caller: Caller) -> WorkflowResponse:
    """Run an ended run again.

    Whole, or from a step: the steps before it are kept, and shown with the run that executed them. The new run has the
    version of the workflow and the parameters of that run, apart from those in the body. Of a routine's run it is the
    newest attempt, whose outcome is that of the slot.
    """
    body = await caller.body_if_any(RerunCreate)
    refusal = await caller.services.limits.ask_run(caller.connection, caller.auth, with_webhook=True)

    async def start() -> WorkflowResponse:
        if refusal:
            raise refusal
        original = id_of(trajectory_id)
        new = await db.rerun(
            caller.connection,
            await rerun_spec(caller, body, original),
            key_id=caller.key_id,
            task=task,
            trajectory_id=original,
            traceparent=traceparent_of(caller),
        )
        if new.id is None:
            _explain(new, body, original)
        found = await db.find_trajectory(caller.connection, key_id=caller.key_id, task=task, trajectory_id=new.id)
        return workflow_response(found, f"Run {original} was started again as run {new.id}.")

    return await once(caller, start, status=200)


def _explain(new: db.Rerun, body: RerunCreate, original: int) -> NoReturn:
    """Raise an error that explains why nothing was started."""
    if not new.has_ended:
        raise ConflictError(f"Run {original} is active: cancel it first, or wait for its end.")
    if new.unknown_keys:
        raise UnknownKeysError(new.unknown_keys, new.declared_keys, "init_params")
    if not new.has_step:
        raise InvalidError(f"from_step: the workflow of run {original} has no step {body.from_step!r}.", "from_step")
    if new.needs_webhook_secret:
        message = "is required, since the webhook of that run was signed, and its secret was deleted at its end."
        raise InvalidError(f"webhook_secret: {message}", "webhook_secret")
    raise ConflictError(
        f"Step {new.unready_step!r} before {body.from_step!r} cannot be kept: run {new.unready_run} has not completed "
        "it, or has been deleted.",
        "from_step",
    )


HANDLERS = [rerun]
