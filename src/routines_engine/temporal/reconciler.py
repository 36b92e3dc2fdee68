"""The reconciler: settles what was lost between Temporal and the database.

Runs that were cancelled by the API, deleted or past their deadline are cancelled in Temporal too. It also asks
Temporal about runs that have been silent for a while: whether Temporal has them, whether they are open and how they
ended. Any number of reconcilers may run; each run is handled by one at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from routines_core.db import dispatches, runs
from routines_core.db.dispatches import Dispatched, Unsettled
from routines_core.db.runs import Checkpoint
from routines_core.settings import Settings
from routines_engine.runs.services import WorkerResources
from routines_engine.temporal.activities import CANCELLED
from routines_engine.temporal.connection import RPC_TIMEOUT
from routines_engine.temporal.submission import GENERATION, Submitter

BATCH = 100
"""Maximum number of runs that are settled at once."""
UNSUBMITTED_SECONDS = 3.0
"""How long after its dispatch a run is submitted again if Temporal has not confirmed it."""
CANCEL_AGAIN_SECONDS = 5.0
"""Delay before retrying a failed cancel request to Temporal."""
STATUS = WorkflowExecutionStatus
ENDS = {
    STATUS.CANCELED: ("cancelled", CANCELLED),
    STATUS.TERMINATED: ("failed", "terminated in Temporal"),
    STATUS.TIMED_OUT: ("failed", "deadline exceeded: the run took longer than it may"),
    STATUS.FAILED: ("failed", "failed in Temporal"),
}
"""Status and error of a run that ended this way in Temporal while the database has it as running."""
UNRECORDED = "lost: it completed in Temporal, but not all of its steps are recorded"
"""The error of such a run: the database may have lost its last transactions in a failover."""
OF_ANOTHER = "Temporal already had a run with this workflow_id: use a namespace for this database only"

log = structlog.get_logger("temporal")


@dataclass
class Reconciler:
    """One reconciler.

    Attributes:
        resources: Queries the database.
        client: Returns the connection to Temporal, or None while there is none.
        submitter: Submits runs.
    """

    settings: Settings
    resources: WorkerResources
    client: Callable[[], Client | None]
    submitter: Submitter

    async def cancel_taken(self) -> bool:
        """Cancel in Temporal the runs that were taken away from it. Returns True if there may be more."""
        client = self.client()
        if client is None:
            return False
        taken = await self.resources.ask_once(
            lambda connection: dispatches.taken_away(connection, again_seconds=CANCEL_AGAIN_SECONDS, limit=BATCH)
        )
        for run in taken:
            await self._cancel(client, run)
        return len(taken) == BATCH

    async def _cancel(self, client: Client, run: Dispatched) -> None:
        try:
            await client.get_workflow_handle(run.workflow_id).cancel(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # Temporal does not have it, or it has ended
                log.warning("run not cancelled in Temporal", trajectory_id=run.id, status=error.status.name)
                return
        await self.resources.ask_once(lambda connection: dispatches.forget(connection, run))

    async def settle(self) -> bool:
        """Ask Temporal about silent runs, and settle each. Returns True if there may be more."""
        client = self.client()
        if client is None:
            return False
        unsettled = await self.resources.ask_once(
            lambda connection: dispatches.unsettled(
                connection,
                unsubmitted_seconds=UNSUBMITTED_SECONDS,
                submitted_seconds=self.settings.temporal_check_seconds,
                limit=BATCH,
            )
        )
        for run in unsettled:
            try:
                await self._settle(client, run)
            except RPCError as error:
                log.warning("run not settled, retrying", trajectory_id=run.id, status=error.status.name)
        return len(unsettled) == BATCH

    async def _settle(self, client: Client, run: Unsettled) -> None:
        """Compare what Temporal and the database know about a run, and make them agree."""
        found = await self._describe(client, run)
        if found is None:
            await (self._give_back(run) if run.is_submitted else self._submit(client, run))
        elif found.status in {STATUS.RUNNING, STATUS.CONTINUED_AS_NEW, None}:
            if not run.is_submitted and await _is_of(found, run):
                await self.resources.ask_once(
                    lambda connection: dispatches.submitted(connection, [(run.id, run.generation)])
                )
        else:
            status, error = await self._end_of(client, found, run)
            await self._end(run, status, error)

    async def _describe(self, client: Client, run: Unsettled) -> WorkflowExecutionDescription | None:
        try:
            return await client.get_workflow_handle(run.workflow_id).describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return None
            raise

    async def _submit(self, client: Client, run: Unsettled) -> None:
        if await self.submitter.submit(client, run):
            log.info("run submitted again", trajectory_id=run.id)
            await self.resources.ask_once(
                lambda connection: dispatches.submitted(connection, [(run.id, run.generation)])
            )

    async def _give_back(self, run: Unsettled) -> None:
        given = await self.resources.ask_once(lambda connection: dispatches.give_back(connection, run))
        if given:
            log.warning("run lost by Temporal", trajectory_id=run.id, status=given.status)

    async def _end_of(
        self, client: Client, found: WorkflowExecutionDescription, run: Unsettled
    ) -> tuple[str, str | None]:
        """Return the status and error with which to end a run that has ended in Temporal."""
        if not await _is_of(found, run):
            return "failed", OF_ANOTHER
        if found.status is not None and found.status in ENDS:
            return ENDS[found.status]
        try:
            result = await client.get_workflow_handle(run.workflow_id).result(rpc_timeout=RPC_TIMEOUT)
        except WorkflowFailureError:
            result = None
        return ("completed", None) if result == "completed" and run.has_all_steps else ("failed", UNRECORDED)

    async def _end(self, run: Unsettled, status: str, error: str | None) -> None:
        end = Checkpoint(run.id, run.fence, status=status, error=error)
        if await self.resources.ask_once(lambda connection: runs.write(connection, [end], lease_seconds=0)):
            log.warning("run ended with the status from Temporal", trajectory_id=run.id, status=status)


async def _is_of(found: WorkflowExecutionDescription, run: Unsettled) -> bool:
    """Return whether Temporal has this dispatch of the run, not another."""
    return (await found.memo()).get(GENERATION) == run.generation
