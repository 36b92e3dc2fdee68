"""Submitting runs to Temporal, by an id that Temporal accepts only once."""

from dataclasses import dataclass
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.common import TypedSearchAttributes, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from routines_core.db.dispatches import Submission
from routines_core.settings import Settings
from routines_engine.temporal.calls import Job
from routines_engine.temporal.connection import RPC_TIMEOUT
from routines_engine.temporal.search_attributes import attributes_of
from routines_engine.temporal.workflow import NAME

GRACE_SECONDS = 60.0
"""How long Temporal keeps a run open past its deadline, which the reaper enforces in the database."""
GENERATION = "generation"
"""The memo that tells one dispatch of a run from another."""
SUMMARY_CHARACTERS = 200
"""Maximum length of the line that Temporal shows for a run."""

log = structlog.get_logger("temporal")


@dataclass
class Submitter:
    """Submits runs.

    Attributes:
        settings: Task queue, lease and links.
        has_attributes: Whether the namespace has the search attributes.
    """

    settings: Settings
    has_attributes: bool = False

    async def submit(self, client: Client, run: Submission) -> bool:
        """Submit a run to Temporal. If this process can begin it, Temporal gives it the run at once.

        Returns:
            True if Temporal has it, from this call or an earlier one; False if that is unknown.
        """
        try:
            await self._start(client, run, attributes_of(run) if self.has_attributes else None)
        except WorkflowAlreadyStartedError:
            return True
        except RPCError as error:
            if error.status == RPCStatusCode.INVALID_ARGUMENT and self.has_attributes:
                self.has_attributes = False  # they were removed, or not all parts of the server know them yet
                return await self.submit(client, run)
            log.warning("run not submitted, retrying", trajectory_id=run.id, status=error.status.name)
            return False
        return True

    async def _start(self, client: Client, run: Submission, attributes: TypedSearchAttributes | None) -> None:
        job = job_of(self.settings, run)
        await client.start_workflow(
            NAME,
            job,
            id=run.workflow_id,
            task_queue=self.settings.temporal_task_queue,
            execution_timeout=timedelta(seconds=job.seconds + GRACE_SECONDS),
            task_timeout=timedelta(seconds=job.task_seconds),
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            memo={GENERATION: run.generation},
            search_attributes=attributes,
            static_summary=summary_of(run),
            static_details=self._details_of(run),
            request_eager_start=True,
            rpc_timeout=RPC_TIMEOUT,
        )

    def _details_of(self, run: Submission) -> str | None:
        """Return a link to the run, as Markdown; None if it is not known where people reach the console."""
        if self.settings.public_url is None or run.task is None:
            return None
        address = self.settings.public_url.rstrip("/")
        return f"[Run {run.id}]({address}/console/#/runs/{run.task}/{run.id})"


def job_of(settings: Settings, run: Submission) -> Job:
    """Return the run as its Temporal workflow is given it."""
    return Job(
        trajectory_id=run.id,
        generation=run.generation,
        seconds=max(run.seconds_left, 0.0) + GRACE_SECONDS,
        lease_seconds=settings.lease_seconds,
    )


def summary_of(run: Submission) -> str:
    """Return what the run is, in a line for people."""
    parts = [f"{run.collection}/{run.task or 'a deleted task'}"]
    if run.routine is not None:
        parts.append(f"by {run.routine}")
    if run.scheduled_for is not None:
        parts.append(f"for {run.scheduled_for:%Y-%m-%d %H:%M} UTC")
    else:
        parts.append(f"({run.trigger})")
    return " ".join(parts)[:SUMMARY_CHARACTERS]
