"""The activities of runs on Temporal. A run is executed as a whole, with its steps recorded in Postgres as they finish.

Parameters, outputs, errors and secrets are read from Postgres and written there. Temporal only gets verdicts.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, cast

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from routines_core.db import Connection, dispatches
from routines_core.db.pool import LOST as DATABASE_LOST
from routines_core.db.runs import Claim
from routines_core.db.timeouts import within
from routines_engine.runs.base import Executor
from routines_engine.runs.claimed_run import ClaimedRun, LostRunError
from routines_engine.runs.host import RunHost
from routines_engine.runs.journal import Journal
from routines_engine.runs.outcome import outcome_of, write_end
from routines_engine.runs.payloads import Payloads
from routines_engine.runs.record import Record
from routines_engine.runs.services import RunServices, WorkerResources
from routines_engine.runs.trace import RunTrace
from routines_engine.temporal.calls import AGAIN, HELD, LOST, RunCall, RunVerdict
from routines_engine.temporal.workflow import BEGIN, CANCEL, HOLD, RUN

LEAVE_SECONDS = 0.8
"""At shutdown: time to record that a run was released cleanly."""
KEPT_SECONDS = 60.0
"""How long a verdict is kept for an activity that has not asked for it yet."""
CAPACITY_SECONDS = 0.05
"""How often a run looks for free capacity that it was given to a full worker without."""
BEATS = 4
"""Heartbeats within the time after which Temporal counts a worker as lost."""
CANCELLED = "cancelled in Temporal"
"""The error of a run that was cancelled there."""

log = structlog.get_logger("temporal")


@dataclass(eq=False)
class Activities:
    """The activities of one Temporal worker.

    Attributes:
        resources: What its runs share.
        journal: Writes for all of them.
        worker: The name recorded in the runs it claims.
        concurrency: How many runs it executes at once.
        task_queue: Its own task queue in Temporal, where it answers for runs that take long.
        payloads: Loads what steps need.
        executor: Where workflows run.
        freed: Called when there may be capacity again.
        claimed: The runs it is executing.
        is_stopping: Whether it gives its runs to other workers.
    """

    resources: WorkerResources
    journal: Journal
    worker: str
    concurrency: int
    task_queue: str
    payloads: Payloads
    executor: Executor
    freed: Callable[[], None]
    claimed: set[ClaimedRun] = field(default_factory=set[ClaimedRun])
    is_stopping: bool = False
    _executing: "dict[tuple[int, int], asyncio.Task[RunVerdict]]" = field(
        default_factory=dict[tuple[int, int], "asyncio.Task[RunVerdict]"]
    )
    _verdicts: dict[RunCall, RunVerdict] = field(default_factory=dict[RunCall, RunVerdict])

    def load(self) -> int:
        """Return how many runs take capacity: those that wait for children take none. The SDK's threads call it too."""
        return len(self._executing) - sum(claimed.waiting_children > 0 for claimed in list(self.claimed))

    @property
    def is_full(self) -> bool:
        """Whether the worker is to be given no more runs."""
        return self.is_stopping or self.load() >= self.concurrency

    async def leave_all(self) -> None:
        """Release all runs, so that other workers go on with them at once, and take no more."""
        self.is_stopping = True
        executing = list(self._executing.values())
        for task in executing:
            task.cancel()
        if executing:
            await asyncio.wait(executing)

    @activity.defn(name=BEGIN)
    async def begin(self, call: RunCall) -> RunVerdict:
        """Execute the run. If it takes longer than a moment, return HELD and go on: another activity waits for it."""
        if (execution := self._found(call)) is None:
            if self.is_full:
                return RunVerdict(AGAIN)
            execution = self._execute(call, attempt=1)
        return await _verdict(execution, call, seconds=call.quick_seconds) or RunVerdict(
            HELD, task_queue=self.task_queue
        )

    @activity.defn(name=HOLD)
    async def hold(self, call: RunCall) -> RunVerdict:
        """Wait for a run that this worker has begun."""
        return await _beating(self._hold(call))

    async def _hold(self, call: RunCall) -> RunVerdict:
        if (execution := self._found(call)) is None:
            return await self._standing(call)
        return cast("RunVerdict", await _verdict(execution, call))

    @activity.defn(name=RUN)
    async def run(self, call: RunCall) -> RunVerdict:
        """Go on with the run after its last finished step.

        Raises:
            ApplicationError: The worker is stopping; another one continues.
        """
        return await _beating(self._run(call))

    async def _run(self, call: RunCall) -> RunVerdict:
        while (execution := self._found(call)) is None and self.is_full and not self.is_stopping:  # noqa: ASYNC110
            await asyncio.sleep(CAPACITY_SECONDS)
        if not self.is_stopping:
            execution = execution or self._execute(call, activity.info().attempt)
        verdict = execution and await _verdict(execution, call)
        if verdict is None or (self.is_stopping and verdict.status == AGAIN and not verdict.wait_seconds):
            raise _stopping()
        return verdict

    @activity.defn(name=CANCEL)
    async def cancel(self, call: RunCall) -> str:
        """Write the end of a run that was cancelled in Temporal. Returns the status in which it has ended."""
        run = await self._claim(call, attempt=1, holder=secrets.token_hex(8))
        if run is None:
            return (await self._standing(call)).status
        claimed = ClaimedRun(run, time.monotonic(), cast("asyncio.Task[None]", asyncio.current_task()))
        await self._host(claimed).record.end(CANCELLED, "cancelled")
        self.journal.metrics.run_ended("cancelled", max(0.0, time.time() - run.began_at))
        return "cancelled"

    def _found(self, call: RunCall) -> "asyncio.Future[RunVerdict] | None":
        """Return what this worker has of the run: its execution, or the verdict on it if it was for this activity.

        Temporal may ask again, having lost an answer, or after it was away. The run must not be begun a second time.
        """
        if call in self._verdicts:
            known: asyncio.Future[RunVerdict] = asyncio.get_running_loop().create_future()
            known.set_result(self._verdicts[call])
            return known
        return self._executing.get((call.trajectory_id, call.generation))

    def _execute(self, call: RunCall, attempt: int) -> "asyncio.Task[RunVerdict]":
        task = asyncio.create_task(self._execution(call, attempt))
        self._executing[call.trajectory_id, call.generation] = task
        task.add_done_callback(partial(self._executed, call))
        return task

    def _executed(self, call: RunCall, task: "asyncio.Task[RunVerdict]") -> None:
        del self._executing[call.trajectory_id, call.generation]
        if not task.cancelled() and task.exception() is None and task.result().status == AGAIN:
            self._verdicts[call] = task.result()
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._verdicts.pop, call, None)
        self.freed()

    async def _execution(self, call: RunCall, attempt: int) -> RunVerdict:
        """Claim the run and execute it until it ends, waits, is lost, or the worker stops."""
        holder = secrets.token_hex(8)
        try:
            run = await self._claim(call, attempt, holder)
            if run is not None:
                return await self._claimed_run(run, call, holder)
        except LostRunError:
            pass
        except asyncio.CancelledError:
            if self.is_stopping:
                await self._leave(call, holder)
                return RunVerdict(AGAIN)
            cast("asyncio.Task[RunVerdict]", asyncio.current_task()).uncancel()  # the run was lost, not this worker
        return await self._standing(call)

    async def _claim(self, call: RunCall, attempt: int, holder: str) -> Claim | None:
        return await self.resources.ask(
            lambda connection: dispatches.take(
                connection,
                trajectory_id=call.trajectory_id,
                generation=call.generation,
                sequence=call.sequence,
                attempt=attempt,
                holder=holder,
                worker=self.worker,
            )
        )

    async def _claimed_run(self, run: Claim, call: RunCall, holder: str) -> RunVerdict:
        began_at = time.monotonic()
        task = cast("asyncio.Task[None]", asyncio.current_task())
        claimed = ClaimedRun(run, began_at, task, trace=RunTrace.begin(run))
        self.claimed.add(claimed)
        host = self._host(claimed)
        try:
            # No time limit: the reaper ends what is late, and the reconciler tells Temporal.
            ended = await outcome_of(self.executor, host, None)
            if ended is None or ended.wait_seconds is not None:
                await host.record.flush()
                await self.resources.ask(partial(_released, call=call, holder=holder))
                return RunVerdict(AGAIN, (ended and ended.wait_seconds) or 0.0)
            error = await write_end(host, ended.error)
        finally:
            self.claimed.discard(claimed)
        status = "completed" if error is None else "failed"
        self.journal.metrics.run_ended(status, time.monotonic() - began_at)
        if claimed.trace:
            claimed.trace.ended(status)
        return RunVerdict(status)

    def _host(self, claimed: ClaimedRun) -> RunHost:
        return RunHost(Record(self.journal, RunServices(self.resources, claimed)), self.payloads)

    async def _standing(self, call: RunCall) -> RunVerdict:
        """Return the verdict on a run that this worker does not have, or no longer has."""
        found = await self.resources.ask(
            lambda connection: dispatches.standing(
                connection, trajectory_id=call.trajectory_id, generation=call.generation
            )
        )
        if found is not None and found.is_dispatched:  # another worker has it that Temporal may have forgotten
            return RunVerdict(AGAIN)
        if found is not None and found.status in {"completed", "failed"} and not found.has_dispatch:
            return RunVerdict(found.status)
        return RunVerdict(LOST)

    async def _leave(self, call: RunCall, holder: str) -> None:
        """Record that the run was released cleanly; if that fails, the next attempt counts a crash."""
        try:
            await within(LEAVE_SECONDS, self.resources.ask(partial(_released, call=call, holder=holder)))
        except DATABASE_LOST as error:
            log.warning("release of the run not recorded", trajectory_id=call.trajectory_id, error=type(error).__name__)


async def _released(connection: Connection, *, call: RunCall, holder: str) -> None:
    await dispatches.leave(connection, trajectory_id=call.trajectory_id, generation=call.generation, holder=holder)


async def _verdict(
    execution: "asyncio.Future[RunVerdict]", call: RunCall, seconds: float | None = None
) -> RunVerdict | None:
    """Return the verdict of an execution, or None if there is none after this time.

    Raises:
        ApplicationError: It met an error that is not the run's fault. Temporal has it repeated.
    """
    await asyncio.wait({execution}, timeout=seconds)
    if not execution.done():
        return None
    try:
        return execution.result()
    except asyncio.CancelledError:
        return RunVerdict(AGAIN)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on elsewhere
        # Temporal is not told the error's text, which may hold anything.
        log.error("activity failed unexpectedly", trajectory_id=call.trajectory_id, error=type(error).__name__)  # noqa: TRY400
        raise ApplicationError("internal error", type=type(error).__name__) from None


def _stopping() -> ApplicationError:
    """Return the error of an activity whose worker is stopping: another worker continues at once."""
    return ApplicationError(
        "the worker stops",
        type="WorkerStops",
        category=ApplicationErrorCategory.BENIGN,
        next_retry_delay=timedelta(seconds=0.1),
    )


async def _beating(work: Coroutine[Any, Any, RunVerdict]) -> RunVerdict:
    """Return the result of `work`, and send heartbeats to Temporal until then.

    Raises:
        ApplicationError: The worker is stopping.
    """
    beating = asyncio.create_task(_beat())
    try:
        return await work
    except asyncio.CancelledError:
        if activity.is_worker_shutdown():
            raise _stopping() from None
        return RunVerdict(AGAIN)  # Temporal has given the activity up, and hears no verdict
    finally:
        beating.cancel()


async def _beat() -> None:
    """Send heartbeats to Temporal until cancelled."""
    timeout = activity.info().heartbeat_timeout
    seconds = (timeout or timedelta(seconds=BEATS)).total_seconds() / BEATS
    while True:
        activity.heartbeat()
        await asyncio.sleep(seconds)
