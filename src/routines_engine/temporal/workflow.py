"""FlowWorkflow as a Temporal workflow: the same interpreter, with its steps run as activities.

It runs in Temporal's sandbox and is replayed from its history, so its decisions depend only on its job and on verdicts.
"""

import asyncio
import dataclasses
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from routines_engine.steps.flow import COMPLETED, FlowWorkflow, Outline, StepFailedError, Verdict
    from routines_engine.temporal.calls import LOST, OVER, EndCall, Job, StepCall, StepVerdict

NAME = "FlowWorkflow"
"""The workflow's name in Temporal."""
STEP = "step"
END = "end"
"""The activities' names in Temporal."""
RETRY_LOST_WORKERS = RetryPolicy(
    initial_interval=timedelta(seconds=0.2), backoff_coefficient=2, maximum_interval=timedelta(seconds=10)
)
"""Retries activities whose worker was lost. A step that fails does not fail its activity: it returns a verdict."""
CANCEL_SECONDS = 10.0
"""How long a run that was taken away waits to be cancelled, so that Temporal shows it as cancelled."""


class LostError(Exception):
    """The run no longer belongs to Temporal."""


class OverError(Exception):
    """The engine has ended the run."""


class ActivityStepRunner:
    """Carries out what FlowWorkflow decides, as activities."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sequence = job.sequence
        self._finished = list(job.finished)

    async def try_step(self, position: int, name: str, attempt: int) -> Verdict:
        """Attempt a step once.

        Raises:
            LostError: The run no longer belongs to Temporal.
            OverError: The engine has ended the run.
        """
        self._continue_with_new_history_if_long(name, attempt)
        self._sequence += 1
        call = StepCall(self._job.trajectory_id, self._job.generation, self._sequence, position, name, attempt)
        verdict = await workflow.execute_activity(
            STEP,
            call,
            result_type=StepVerdict,
            activity_id=f"{name}/{attempt}",
            start_to_close_timeout=timedelta(seconds=self._job.seconds),
            heartbeat_timeout=timedelta(seconds=self._job.lease_seconds),
            retry_policy=RETRY_LOST_WORKERS,
        )
        if verdict.status == LOST:
            raise LostError
        if verdict.status == OVER:
            raise OverError
        if verdict.status == COMPLETED:
            self._finished.append(name)
        return Verdict(verdict.status, verdict.wait_seconds)

    async def wait(self, seconds: float) -> None:
        """Wait before the next attempt of a step."""
        if seconds > 0:
            await workflow.sleep(seconds)

    async def end(self, status: str, failed_step: str | None = None) -> str:
        """Have the run's end written. Returns the status in which it ended."""
        self._sequence += 1
        return await workflow.execute_activity(
            END,
            EndCall(self._job.trajectory_id, self._job.generation, self._sequence, status, failed_step),
            result_type=str,
            start_to_close_timeout=timedelta(seconds=self._job.seconds),
            heartbeat_timeout=timedelta(seconds=self._job.lease_seconds),
            retry_policy=RETRY_LOST_WORKERS,
        )

    def _continue_with_new_history_if_long(self, name: str, attempt: int) -> None:
        """Begin a new history if this one has grown long. The job is all it needs: the rest is in Postgres."""
        if workflow.info().is_continue_as_new_suggested():
            attempts = self._job.attempts | {name: attempt}
            job = dataclasses.replace(self._job, finished=self._finished, attempts=attempts, sequence=self._sequence)
            workflow.continue_as_new(job)


@workflow.defn(name=NAME)
class TemporalFlow:
    """One run."""

    @workflow.run
    async def run(self, job: Job) -> str:
        """Execute the run. Returns its final status, or LOST if it no longer belongs to Temporal.

        Raises:
            ApplicationError: The run failed. The reason is in Postgres, not in Temporal.
        """
        runner = ActivityStepRunner(job)
        try:
            await FlowWorkflow(Outline(job.steps, job.finished, job.attempts), runner).run()
            status = await runner.end("completed")
        except StepFailedError as error:
            status = await runner.end("failed", error.step)
        except OverError:
            status = "failed"
        except LostError:
            await asyncio.sleep(CANCEL_SECONDS)
            return LOST
        except BaseException as error:
            if is_cancelled_exception(error):
                await runner.end("cancelled")
            raise
        if status == "failed":
            raise ApplicationError("the run failed: see its trajectory", type="RunFailed", non_retryable=True)
        return status
