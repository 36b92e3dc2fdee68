"""The activities of FlowWorkflow on Temporal: each claims the run with a fence of its own, and does one thing with it.

Inputs, outputs, errors and secrets of steps are read from Postgres and written there. Temporal only gets verdicts.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from routines_core.db import dispatches, runs
from routines_core.db.pool import LOST as DATABASE_LOST
from routines_core.db.runs import Claim
from routines_core.db.timeouts import within
from routines_core.errors import RoutinesError
from routines_engine.runs.base import Executor
from routines_engine.runs.claimed_run import ClaimedRun, LostRunError
from routines_engine.runs.host import RunHost
from routines_engine.runs.journal import Journal
from routines_engine.runs.payloads import Payloads
from routines_engine.runs.record import Record
from routines_engine.runs.services import RunServices, WorkerResources
from routines_engine.sandbox.messages import Attempt
from routines_engine.sandbox.pool import RunDiedError
from routines_engine.steps.flow import AGAIN, COMPLETED, StepFailedError
from routines_engine.temporal.calls import LOST, OVER, EndCall, StepCall, StepVerdict
from routines_engine.temporal.workflow import END, STEP

LEAVE_SECONDS = 0.8
"""At shutdown: time to record that a run was released cleanly."""
BEATS = 4
"""Heartbeats within the time after which Temporal counts a worker as lost."""
CANCELLED = "cancelled in Temporal"
"""The error of a run that was cancelled there."""

Work = Callable[[ClaimedRun], Awaitable[str | StepVerdict]]

log = structlog.get_logger("temporal")


@dataclass
class Activities:
    """The activities of one Temporal worker.

    Attributes:
        resources: What its runs share.
        journal: Writes for all of them.
        worker: The name recorded in the runs it claims.
        deadline_seconds: How long a run may take from its claim to its end.
        payloads: Loads what steps need.
        executor: Where steps run.
        claimed: The runs it is working on.
    """

    resources: WorkerResources
    journal: Journal
    worker: str
    deadline_seconds: float
    payloads: Payloads
    executor: Executor
    claimed: set[ClaimedRun] = field(default_factory=set[ClaimedRun])

    def waiting(self) -> int:
        """Return how many steps are waiting for children."""
        return sum(claimed.waiting_children > 0 for claimed in list(self.claimed))

    @activity.defn(name=STEP)
    async def step(self, call: StepCall) -> StepVerdict:
        """Attempt a step once.

        Raises:
            ApplicationError: The worker is stopping; another one continues.
        """

        async def work(claimed: ClaimedRun) -> StepVerdict:
            return await self._step(claimed, call)

        verdict = await self._with_run(call, work)
        return verdict if isinstance(verdict, StepVerdict) else StepVerdict(verdict)

    @activity.defn(name=END)
    async def end(self, call: EndCall) -> str:
        """Write the end of a run.

        Returns:
            The status in which it ended, or LOST if it has not ended but no longer belongs to Temporal.

        Raises:
            ApplicationError: The worker is stopping; another one continues.
        """

        async def work(claimed: ClaimedRun) -> str:
            return await self._end(claimed, call)

        status = str(await self._with_run(call, work))
        if status != LOST:
            return status
        found = await self.resources.ask(lambda connection: dispatches.status(connection, call.trajectory_id))
        return LOST if found in {None, "pending", "running"} else str(found)

    async def _with_run(self, call: StepCall | EndCall, work: Work) -> str | StepVerdict:
        """Claim the run, heartbeat, and run `work`; returns LOST if the claim fails."""
        beating = asyncio.create_task(_beat())
        try:
            run = await self._claim(call)
            return await self._unless_lost(run, work) if run else LOST
        except asyncio.CancelledError:
            await self._leave(call)
            if activity.is_worker_shutdown():
                raise _stopping() from None
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, Temporal retries the activity
            # Temporal is not told the error's text, which may hold anything.
            log.error("activity failed unexpectedly", trajectory_id=call.trajectory_id, error=type(error).__name__)  # noqa: TRY400
            raise ApplicationError("internal error", type=type(error).__name__) from None
        finally:
            beating.cancel()

    async def _claim(self, call: StepCall | EndCall) -> Claim | None:
        attempt = activity.info().attempt
        return await self.resources.ask(
            lambda connection: dispatches.take(
                connection,
                trajectory_id=call.trajectory_id,
                generation=call.generation,
                sequence=call.sequence,
                attempt=attempt,
                worker=self.worker,
            )
        )

    async def _unless_lost(self, run: Claim, work: Work) -> str | StepVerdict:
        """Run `work` in a task that is cancelled if the run is lost or Temporal cancels the activity."""
        task = asyncio.create_task(self._work(run, work))
        try:
            return await task
        except LostRunError:
            return LOST
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current and current.cancelling():
                raise
            return LOST

    async def _work(self, run: Claim, work: Work) -> str | StepVerdict:
        task = cast("asyncio.Task[None]", asyncio.current_task())  # never None: this runs in a task
        claimed = ClaimedRun(run, time.monotonic(), task)
        self.claimed.add(claimed)
        try:
            return await work(claimed)
        finally:
            self.claimed.discard(claimed)

    async def _leave(self, call: StepCall | EndCall) -> None:
        """Record that the run was released cleanly; if that fails, the next attempt counts a crash."""
        attempt = activity.info().attempt
        leaving = self.resources.ask(
            lambda connection: dispatches.leave(
                connection,
                trajectory_id=call.trajectory_id,
                generation=call.generation,
                sequence=call.sequence,
                attempt=attempt,
            )
        )
        try:
            await within(LEAVE_SECONDS, leaving)
        except DATABASE_LOST as error:
            log.warning("release of the run not recorded", trajectory_id=call.trajectory_id, error=type(error).__name__)

    async def _step(self, claimed: ClaimedRun, call: StepCall) -> StepVerdict:
        """Attempt a step once. Any error but a verdict on the step ends the run, as in the Postgres engine."""
        run = claimed.run
        outline = await self.resources.ask(lambda connection: runs.outline(connection, run))
        if outline is None:
            raise LostRunError(run.id)
        if call.name in outline.finished:
            return StepVerdict(COMPLETED)
        if outline.attempts.get(call.name, 1) > call.attempt:  # this attempt failed, and Temporal has not heard of it
            return StepVerdict(AGAIN)
        host = self._host(claimed, call.name)
        attempt = Attempt(call.position, call.name, call.attempt)
        try:
            ended = await self.executor.run(run.collection_id, host, await host.load(), attempt)
            await host.record.flush()
        except LostRunError:
            raise
        except RunDiedError as died:
            await self._fail(host.record, run, str(await host.fail(died)))
        except RoutinesError as error:
            await self._fail(host.record, run, str(error))
        except Exception as error:  # noqa: BLE001 - a run must end, whatever is wrong with it
            # Without a traceback, which may show what steps were given.
            log.error("flow failed unexpectedly", error=type(error).__name__)  # noqa: TRY400
            await self._fail(host.record, run, f"internal error: {type(error).__name__}")
        else:
            if ended.verdict is not None:
                return StepVerdict(*ended.verdict)
            await self._fail(host.record, run, ended.error or "internal error: no verdict")
        finally:
            host.delivered()
        return StepVerdict(OVER)

    def _host(self, claimed: ClaimedRun, step: str = "") -> RunHost:
        services = RunServices(self.resources, claimed, step)
        return RunHost(Record(self.journal, services), self.payloads)

    async def _fail(self, record: Record, run: Claim, error: str) -> None:
        await record.end(error)
        self._count_end(run, "failed")

    async def _end(self, claimed: ClaimedRun, call: EndCall) -> str:
        error = CANCELLED if call.status == "cancelled" else None
        if call.failed_step is not None:
            error = await self._cause(claimed.run, call.failed_step)
        await self._host(claimed).record.end(error, call.status)
        self._count_end(claimed.run, call.status)
        log.info("run ended", trajectory_id=claimed.run.id, failed=error is not None)
        return call.status

    def _count_end(self, run: Claim, status: str) -> None:
        self.journal.metrics.run_ended(status, max(0.0, self.deadline_seconds - run.seconds_left))

    async def _cause(self, run: Claim, step: str) -> str:
        """Return the error of a run whose step failed, worded as in the Postgres engine."""
        cause = await self.resources.ask(lambda connection: dispatches.step_error(connection, run, step))
        return str(StepFailedError(step, cause or ""))


def _stopping() -> ApplicationError:
    """Return the error of an activity whose worker is stopping: another worker continues at once."""
    return ApplicationError(
        "the worker stops",
        type="WorkerStops",
        category=ApplicationErrorCategory.BENIGN,
        next_retry_delay=timedelta(seconds=0.1),
    )


async def _beat() -> None:
    """Send heartbeats to Temporal until cancelled."""
    timeout = activity.info().heartbeat_timeout
    seconds = (timeout or timedelta(seconds=BEATS)).total_seconds() / BEATS
    while True:
        activity.heartbeat()
        await asyncio.sleep(seconds)
