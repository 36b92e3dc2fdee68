"""Submitting runs to Temporal, by an id that Temporal accepts only once."""

from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from routines_core.settings import Settings
from routines_engine.temporal.calls import Job
from routines_engine.temporal.connection import RPC_TIMEOUT
from routines_engine.temporal.workflow import NAME

GRACE_SECONDS = 60.0
"""How long Temporal keeps a run open past its deadline, which the reaper enforces in the database."""
GENERATION = "generation"
"""The memo that tells one dispatch of a run from another."""

log = structlog.get_logger("temporal")


def job_of(
    settings: Settings,
    *,
    trajectory_id: int,
    generation: int,
    steps: list[str],
    finished: list[str],
    attempts: dict[str, int],
    seconds_left: float,
) -> Job:
    """Return the run as Temporal is given it."""
    return Job(
        trajectory_id=trajectory_id,
        generation=generation,
        steps=steps,
        finished=finished,
        attempts=attempts,
        seconds=max(seconds_left, 0.0) + GRACE_SECONDS,
        lease_seconds=settings.lease_seconds,
    )


async def submit(client: Client, settings: Settings, workflow_id: str, job: Job) -> bool:
    """Submit a run to Temporal.

    Returns:
        True if Temporal has it, from this call or an earlier one; False if that is unknown.
    """
    try:
        await client.start_workflow(
            NAME,
            job,
            id=workflow_id,
            task_queue=settings.temporal_task_queue,
            execution_timeout=timedelta(seconds=job.seconds + GRACE_SECONDS),
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            memo={GENERATION: job.generation},
            rpc_timeout=RPC_TIMEOUT,
        )
    except WorkflowAlreadyStartedError:
        return True
    except RPCError as error:
        log.warning("run not submitted, retrying", trajectory_id=job.trajectory_id, status=error.status.name)
        return False
    return True
