"""A run as a Temporal workflow: a worker executes it as a whole, and the workflow sees to it that one does.

It is replayed from its history, so its decisions depend only on its job and on verdicts. It needs no sandbox for that:
nothing in it comes from a tenant, whose workflows run in step processes.
"""

import asyncio
import dataclasses
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from routines_engine.temporal.calls import AGAIN, HELD, LOST, Job, RunCall, RunVerdict

NAME = "FlowWorkflow"
"""The workflow's name in Temporal."""
BEGIN = "begin"
HOLD = "hold"
RUN = "run"
CANCEL = "cancel"
"""The activities' names in Temporal."""
RETRY_LOST_WORKERS = RetryPolicy(
    initial_interval=timedelta(seconds=0.2), backoff_coefficient=2, maximum_interval=timedelta(seconds=10)
)
"""Retries activities whose worker was lost. A run that fails does not fail its activity: it returns a verdict."""
ONCE = RetryPolicy(maximum_attempts=1)
ANSWER_SECONDS = 10.0
"""How long a worker that goes on with a run may not ask for tasks: it may pause so long after an outage of Temporal."""
QUICK_SHARE = 0.2
"""How much of the time after which a worker counts as lost a run may take without heartbeats."""
CLOSE_SHARE = 0.6
"""After how much of that time a worker that has not answered for a run is not waited for."""
CANCEL_SECONDS = 10.0
"""How long a run that was taken away waits to be cancelled, so that Temporal shows it as cancelled."""
CANCEL_RETRY_SECONDS = 5.0
"""Delay before the end of a cancelled run is written again, if that failed."""


class RunInTemporal:
    """Has workers execute a run until it has ended."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sequence = job.sequence

    async def until_ended(self) -> str:
        """Return the status in which the run ended, or LOST if it no longer belongs to Temporal."""
        verdict = await self._begin() if self._sequence == 0 else RunVerdict(AGAIN)
        while verdict.status in {AGAIN, HELD}:
            if verdict.status == HELD:
                verdict = await self._hold(verdict.task_queue)
                continue
            if verdict.wait_seconds > 0:
                await workflow.sleep(verdict.wait_seconds)
            self._continue_with_new_history_if_long()
            verdict = await self._run()
        return verdict.status

    async def write_cancel(self) -> None:
        """Have the run's end written: it was cancelled in Temporal."""
        call = self._next_call()
        while True:
            try:
                await workflow.execute_local_activity(
                    CANCEL, call, result_type=str, start_to_close_timeout=self._close_timeout, retry_policy=ONCE
                )
            except ActivityError:
                await workflow.sleep(CANCEL_RETRY_SECONDS)
            else:
                return

    async def _begin(self) -> RunVerdict:
        """Have the worker that decides on the workflow execute the run at once: a run that is quick ends with that."""
        try:
            return await workflow.execute_local_activity(
                BEGIN,
                self._next_call(),
                result_type=RunVerdict,
                schedule_to_close_timeout=self._close_timeout,
                retry_policy=ONCE,
            )
        except ActivityError as error:
            return _again_unless_cancelled(error)

    async def _hold(self, task_queue: str) -> RunVerdict:
        """Wait for the worker that goes on with the run. If Temporal did not hear its heartbeats, ask it again."""
        try:
            return await workflow.execute_activity(
                HOLD,
                self._call,
                task_queue=task_queue,
                result_type=RunVerdict,
                schedule_to_start_timeout=timedelta(seconds=ANSWER_SECONDS),
                start_to_close_timeout=timedelta(seconds=self._job.seconds),
                heartbeat_timeout=timedelta(seconds=self._job.lease_seconds),
                retry_policy=RETRY_LOST_WORKERS,
            )
        except ActivityError as error:
            return _again_unless_cancelled(error)

    async def _run(self) -> RunVerdict:
        """Have any worker go on with the run after its last finished step."""
        return await workflow.execute_activity(
            RUN,
            self._next_call(),
            result_type=RunVerdict,
            start_to_close_timeout=timedelta(seconds=self._job.seconds),
            heartbeat_timeout=timedelta(seconds=self._job.lease_seconds),
            retry_policy=RETRY_LOST_WORKERS,
        )

    def _next_call(self) -> RunCall:
        self._sequence += 1
        return self._call

    @property
    def _call(self) -> RunCall:
        quick_seconds = QUICK_SHARE * self._job.task_seconds
        return RunCall(self._job.trajectory_id, self._job.generation, self._sequence, quick_seconds)

    @property
    def _close_timeout(self) -> timedelta:
        return timedelta(seconds=CLOSE_SHARE * self._job.task_seconds)

    def _continue_with_new_history_if_long(self) -> None:
        """Begin a new history if this one has grown long. The job is all it needs: the rest is in Postgres."""
        if workflow.info().is_continue_as_new_suggested():
            workflow.continue_as_new(dataclasses.replace(self._job, sequence=self._sequence))


def _again_unless_cancelled(error: ActivityError) -> RunVerdict:
    """Return the verdict on a run whose worker did not answer.

    Raises:
        ActivityError: The workflow was cancelled.
    """
    if is_cancelled_exception(error):
        raise error
    return RunVerdict(AGAIN)


@workflow.defn(name=NAME)
class TemporalFlow:
    """One run."""

    @workflow.run
    async def run(self, job: Job) -> str:
        """Execute the run. Returns its final status, or LOST if it no longer belongs to Temporal.

        Raises:
            ApplicationError: The run failed. The reason is in Postgres, not in Temporal.
        """
        run = RunInTemporal(job)
        try:
            status = await run.until_ended()
        except BaseException as error:
            if is_cancelled_exception(error):
                await run.write_cancel()
            raise
        if status == LOST:
            await asyncio.sleep(CANCEL_SECONDS)
        if status == "failed":
            raise ApplicationError("the run failed: see its trajectory", type="RunFailed", non_retryable=True)
        return status
