"""The reconciler: settles what was lost between Temporal and the database.

Runs that were taken away (cancelled by the API, late, deleted) are cancelled in Temporal. Runs of which nothing was
heard for a while are asked for: whether Temporal has them, whether they go on, and how they ended there. Any number of
reconcilers may run; each run is one's at a time.
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
from routines_engine.steps.stepper import parse_workflow
from routines_engine.temporal.activities import CANCELLED
from routines_engine.temporal.connection import RPC_TIMEOUT
from routines_engine.temporal.submission import GENERATION, job_of, submit

BATCH = 100
"""The most runs that are settled at once."""
UNSUBMITTED_SECONDS = 3.0
"""How long after its dispatch a run that Temporal is not known to have is handed over again."""
TELL_AGAIN_SECONDS = 5.0
"""How long after Temporal could not be told that a run was taken from it that is tried again."""
STATUS = WorkflowExecutionStatus
ENDS = {
    STATUS.CANCELED: ("cancelled", CANCELLED),
    STATUS.TERMINATED: ("failed", "terminated in Temporal"),
    STATUS.TIMED_OUT: ("failed", "deadline exceeded: the run took longer than it may"),
    STATUS.FAILED: ("failed", "failed in Temporal"),
}
"""What becomes of a run that is still running by the database, and has ended so in Temporal."""
UNRECORDED = "lost: it has completed in Temporal, and not all of its steps are recorded"
OF_ANOTHER = "Temporal had a run of this workflow_id before: give it a namespace for this database alone"

log = structlog.get_logger("temporal")


@dataclass
class Reconciler:
    """One reconciler.

    Attributes:
        engine: Asks the database.
        client: The connection to Temporal; None: there is none at this moment.
    """

    settings: Settings
    engine: WorkerResources
    client: Callable[[], Client | None]

    async def cancel_taken(self) -> bool:
        """Tell Temporal which runs were taken from it; True: there may be more."""
        client = self.client()
        if client is None:
            return False
        taken = await self.engine.ask_once(
            lambda connection: dispatches.taken_away(connection, again_seconds=TELL_AGAIN_SECONDS, limit=BATCH)
        )
        for run in taken:
            await self._cancel(client, run)
        return len(taken) == BATCH

    async def _cancel(self, client: Client, run: Dispatched) -> None:
        try:
            await client.get_workflow_handle(run.workflow_id).cancel(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # that: it is not there, or has ended
                log.warning("Temporal not told of a cancel", trajectory_id=run.id, status=error.status.name)
                return
        await self.engine.ask_once(lambda connection: dispatches.forget(connection, run))

    async def settle(self) -> bool:
        """Ask Temporal for runs of which nothing was heard; True: there may be more."""
        client = self.client()
        if client is None:
            return False
        unsettled = await self.engine.ask_once(
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
                log.warning("Temporal not asked for a run", trajectory_id=run.id, status=error.status.name)
        return len(unsettled) == BATCH

    async def _settle(self, client: Client, run: Unsettled) -> None:
        found = await self._describe(client, run)
        if found is None:
            await (self._give_back(run) if run.is_submitted else self._submit(client, run))
        elif found.status in {STATUS.RUNNING, STATUS.CONTINUED_AS_NEW, None}:
            if not run.is_submitted and await _is_of(found, run):
                await self.engine.ask_once(
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
        job = job_of(
            self.settings,
            trajectory_id=run.id,
            generation=run.generation,
            steps=parse_workflow(run.workflow).steps,
            finished=run.finished,
            tries=run.tries,
            seconds_left=run.seconds_left,
        )
        if await submit(client, self.settings, run.workflow_id, job):
            log.info("run submitted again", trajectory_id=run.id)
            await self.engine.ask_once(lambda connection: dispatches.submitted(connection, [(run.id, run.generation)]))

    async def _give_back(self, run: Unsettled) -> None:
        given = await self.engine.ask_once(lambda connection: dispatches.give_back(connection, run))
        if given:
            log.warning("Temporal no longer knows a run", trajectory_id=run.id, status=given.status)

    async def _end_of(
        self, client: Client, found: WorkflowExecutionDescription, run: Unsettled
    ) -> tuple[str, str | None]:
        """How a run ends that has ended in Temporal: status and error."""
        if not await _is_of(found, run):
            return "failed", OF_ANOTHER
        if found.status is not None and found.status in ENDS:
            return ENDS[found.status]
        # Completed there, and the database has not kept it: it may have lost its last transactions in a failover.
        is_recorded = set(parse_workflow(run.workflow).steps) <= set(run.finished)
        try:
            result = await client.get_workflow_handle(run.workflow_id).result(rpc_timeout=RPC_TIMEOUT)
        except WorkflowFailureError:
            result = None
        return ("completed", None) if result == "completed" and is_recorded else ("failed", UNRECORDED)

    async def _end(self, run: Unsettled, status: str, error: str | None) -> None:
        end = Checkpoint(run.id, run.fence, status=status, error=error)
        if await self.engine.ask_once(lambda connection: runs.write(connection, [end], lease_seconds=0)):
            log.warning("run settled as Temporal has it", trajectory_id=run.id, status=status)


async def _is_of(found: WorkflowExecutionDescription, run: Unsettled) -> bool:
    """Whether it is this dispatch of the run that Temporal has."""
    return (await found.memo()).get(GENERATION) == run.generation
