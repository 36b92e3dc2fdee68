"""The activities of FlowWorkflow on Temporal: each takes the run with a fence of its own, and does one thing with it.

What a step is given and gives, its errors and its secrets are read from Postgres and written there: Temporal hears
verdicts.
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
from routines_engine.runs.claimed_run import ClaimedRun, LostRunError
from routines_engine.runs.journal import Journal
from routines_engine.runs.record import Record
from routines_engine.runs.services import RunServices, WorkerResources
from routines_engine.steps.flow import AGAIN, COMPLETED, StepFailedError
from routines_engine.steps.stepper import Stepper
from routines_engine.temporal.calls import LOST, OVER, EndCall, StepCall, StepVerdict
from routines_engine.temporal.workflow import END, STEP

LEAVE_SECONDS = 0.8
"""How long a worker that stops takes to say that it leaves a run."""
BEATS = 4
"""Heartbeats in the time after which a worker counts as lost."""
CANCELLED = "cancelled in Temporal"
"""The error of a run that was cancelled there."""

Work = Callable[[ClaimedRun], Awaitable[str | StepVerdict]]

log = structlog.get_logger("temporal")


@dataclass
class Activities:
    """What a worker of Temporal does for runs.

    Attributes:
        engine: What its runs share.
        journal: Writes for all of them.
        worker: What runs in its hands bear.
        deadline_seconds: What a run may take from its claim to its end.
        allow_private: Whether steps may send requests to loopback and private addresses.
        held: What it has in hand.
    """

    engine: WorkerResources
    journal: Journal
    worker: str
    deadline_seconds: float
    allow_private: bool = False
    held: set[ClaimedRun] = field(default_factory=set[ClaimedRun])

    def waiting(self) -> int:
        """How many steps wait for children."""
        return sum(held.waits > 0 for held in list(self.held))

    async def drop_lost(self) -> bool:
        """Stop the steps of runs that were taken away: by a cancel, the reaper, or a later attempt of the activity."""
        held = list(self.held)
        if held:
            pairs = [each.pair for each in held]
            ours = await self.engine.ask_once(lambda connection: runs.still_claimed(connection, pairs))
            for each in held:
                if each.run.id not in ours and each.drop():
                    self.journal.metrics.lost_runs.labels("taken").inc()
                    log.warning("run lost", trajectory_id=each.run.id)
        return False

    @activity.defn(name=STEP)
    async def step(self, call: StepCall) -> StepVerdict:
        """Try a step once.

        Raises:
            ApplicationError: The worker stops; another one goes on.
        """

        async def work(held: ClaimedRun) -> StepVerdict:
            return await self._step(held, call)

        verdict = await self._in_hand(call, work)
        return verdict if isinstance(verdict, StepVerdict) else StepVerdict(verdict)

    @activity.defn(name=END)
    async def end(self, call: EndCall) -> str:
        """Write the end of a run: how it has ended, or LOST where it has not, and is no longer Temporal's.

        Raises:
            ApplicationError: The worker stops; another one goes on.
        """

        async def work(held: ClaimedRun) -> str:
            return await self._end(held, call)

        status = str(await self._in_hand(call, work))
        if status != LOST:
            return call.status if status == OVER else status
        found = await self.engine.ask(lambda connection: dispatches.status(connection, call.trajectory_id))
        return LOST if found in {None, "pending", "running"} else str(found)

    async def _in_hand(self, call: StepCall | EndCall, work: Work) -> str | StepVerdict:
        """Do it with the run in hand, with heartbeats: what came of it, or LOST where the run is not to be had."""
        beating = asyncio.create_task(_beat())
        try:
            run = await self._take(call)
            return await self._watched(run, work) if run else LOST
        except asyncio.CancelledError:
            await self._leave(call)
            if activity.is_worker_shutdown():
                raise _stops() from None
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, Temporal tries again
            # Its text may hold anything, and would go to Temporal.
            log.error("activity broke", trajectory_id=call.trajectory_id, error=type(error).__name__)  # noqa: TRY400
            raise ApplicationError("internal error", type=type(error).__name__) from None
        finally:
            beating.cancel()

    async def _take(self, call: StepCall | EndCall) -> Claim | None:
        attempt = activity.info().attempt
        return await self.engine.ask(
            lambda connection: dispatches.take(
                connection,
                trajectory_id=call.trajectory_id,
                generation=call.generation,
                sequence=call.sequence,
                attempt=attempt,
                worker=self.worker,
            )
        )

    async def _watched(self, run: Claim, work: Work) -> str | StepVerdict:
        """Do it in a task that is cancelled where the run is lost, or Temporal says so."""
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

    async def _leave(self, call: StepCall | EndCall) -> None:
        """Say that the next attempt is no crash; where that cannot be said, it counts as one."""
        attempt = activity.info().attempt
        leaving = self.engine.ask(
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
            log.warning("run left without a word", trajectory_id=call.trajectory_id, error=type(error).__name__)

    async def _work(self, run: Claim, work: Work) -> str | StepVerdict:
        task = cast("asyncio.Task[None]", asyncio.current_task())  # it runs in one
        held = ClaimedRun(run, time.monotonic(), task)
        self.held.add(held)
        try:
            return await work(held)
        finally:
            self.held.discard(held)

    async def _step(self, held: ClaimedRun, call: StepCall) -> StepVerdict:
        """One try of a step. What is no verdict on the step ends the run, as it does without Temporal."""
        run, services = held.run, RunServices(self.engine, held, call.name)
        if call.name in run.finished_steps:
            return StepVerdict(COMPLETED)
        if run.tries.get(call.name, 1) > call.attempt:  # it failed, and Temporal has not heard of it
            return StepVerdict(AGAIN)
        record = Record(self.journal, services)
        stepper = Stepper(
            run.workflow,
            run.init_params,
            run.finished_steps,
            record.checkpoint,
            workflow_id=run.workflow_id,
            services=services,
            allow_private=self.allow_private,
        )
        try:
            await stepper.begin()
            verdict = await stepper.try_step(call.position, call.name, call.attempt)
            await record.flush()
        except LostRunError:
            raise
        except RoutinesError as error:
            await record.end(str(error))
            self._count_end(run, "failed")
        except Exception as error:  # noqa: BLE001 - a run must end, whatever is wrong with it
            log.error("flow broke", error=type(error).__name__)  # noqa: TRY400 - a traceback may show what steps hold
            await record.end(f"internal error: {type(error).__name__}")
            self._count_end(run, "failed")
        else:
            return StepVerdict(verdict.status, verdict.wait_seconds)
        return StepVerdict(OVER)

    async def _end(self, held: ClaimedRun, call: EndCall) -> str:
        error = CANCELLED if call.status == "cancelled" else None
        if call.failed_step is not None:
            error = await self._cause(held.run, call.failed_step)
        await Record(self.journal, RunServices(self.engine, held)).end(error, call.status)
        self._count_end(held.run, call.status)
        log.info("run ended", trajectory_id=held.run.id, failed=error is not None)
        return call.status

    def _count_end(self, run: Claim, status: str) -> None:
        self.journal.metrics.run_ended(status, max(0.0, self.deadline_seconds - run.seconds_left))

    async def _cause(self, run: Claim, step: str) -> str:
        """The error of a run whose step failed: the same as it is without Temporal."""
        cause = await self.engine.ask(lambda connection: dispatches.step_error(connection, run, step))
        return str(StepFailedError(step, cause or ""))


def _stops() -> ApplicationError:
    """Of an activity whose worker stops: another one goes on at once."""
    return ApplicationError(
        "the worker stops",
        type="WorkerStops",
        category=ApplicationErrorCategory.BENIGN,
        next_retry_delay=timedelta(seconds=0.1),
    )


async def _beat() -> None:
    """Tell Temporal that the worker lives, until cancelled."""
    timeout = activity.info().heartbeat_timeout
    seconds = (timeout or timedelta(seconds=BEATS)).total_seconds() / BEATS
    while True:
        activity.heartbeat()
        await asyncio.sleep(seconds)
