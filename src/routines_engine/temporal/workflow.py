"""FlowWorkflow as a workflow of Temporal: the same interpreter, its steps done as activities.

It runs in Temporal's sandbox and is replayed from its history: it decides by what it is given and by verdicts alone.
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
"""How Temporal knows the workflow."""
STEP = "step"
END = "end"
"""How Temporal knows the activities."""
AGAIN_AT_ONCE = RetryPolicy(
    initial_interval=timedelta(seconds=0.2), backoff_coefficient=2, maximum_interval=timedelta(seconds=10)
)
"""For attempts whose worker was lost. A step that fails is no failed activity: it has a verdict."""
CANCEL_SECONDS = 10.0
"""How long a run that was taken away waits to be cancelled, so that Temporal shows it as that."""


class LostError(Exception):
    """The run is no longer Temporal's."""


class OverError(Exception):
    """The run has been ended by the engine."""


class ActivityStepRunner:
    """Does what FlowWorkflow decides, as activities."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sequence = job.sequence
        self._finished = list(job.finished)

    async def try_step(self, position: int, name: str, attempt: int) -> Verdict:
        """Try a step once.

        Raises:
            LostError: The run is no longer Temporal's.
            OverError: The run has been ended.
        """
        self._go_on_with_a_new_history(name, attempt)
        self._sequence += 1
        call = StepCall(self._job.trajectory_id, self._job.generation, self._sequence, position, name, attempt)
        verdict = await workflow.execute_activity(
            STEP,
            call,
            result_type=StepVerdict,
            activity_id=f"{name}/{attempt}",
            start_to_close_timeout=timedelta(seconds=self._job.seconds),
            heartbeat_timeout=timedelta(seconds=self._job.lease_seconds),
            retry_policy=AGAIN_AT_ONCE,
        )
        if verdict.status == LOST:
            raise LostError
        if verdict.status == OVER:
            raise OverError
        if verdict.status == COMPLETED:
            self._finished.append(name)
        return Verdict(verdict.status, verdict.wait_seconds)

    async def wait(self, seconds: float) -> None:
        """Wait before a step is tried again."""
        if seconds > 0:
            await workflow.sleep(seconds)

    async def end(self, status: str, failed_step: str | None = None) -> str:
        """Have the end of the run written: how it has ended."""
        self._sequence += 1
        return await workflow.execute_activity(
            END,
            EndCall(self._job.trajectory_id, self._job.generation, self._sequence, status, failed_step),
            result_type=str,
            start_to_close_timeout=timedelta(seconds=self._job.seconds),
            heartbeat_timeout=timedelta(seconds=self._job.lease_seconds),
            retry_policy=AGAIN_AT_ONCE,
        )

    def _go_on_with_a_new_history(self, name: str, attempt: int) -> None:
        """Where the history has grown long: everything else is in Postgres."""
        if workflow.info().is_continue_as_new_suggested():
            tries = self._job.tries | {name: attempt}
            job = dataclasses.replace(self._job, finished=self._finished, tries=tries, sequence=self._sequence)
            workflow.continue_as_new(job)


@workflow.defn(name=NAME)
class TemporalFlow:
    """One run."""

    @workflow.run
    async def run(self, job: Job) -> str:
        """Do the run: its final status, or that it is no longer Temporal's.

        Raises:
            ApplicationError: It failed. Why is in Postgres, and not in Temporal.
        """
        hands = ActivityStepRunner(job)
        try:
            await FlowWorkflow(Outline(job.steps, job.finished, job.tries), hands).run()
            status = await hands.end("completed")
        except StepFailedError as error:
            status = await hands.end("failed", error.step)
        except OverError:
            status = "failed"
        except LostError:
            await asyncio.sleep(CANCEL_SECONDS)
            return LOST
        except BaseException as error:
            if is_cancelled_exception(error):
                await hands.end("cancelled")
            raise
        if status == "failed":
            raise ApplicationError("the run failed: see its trajectory", type="RunFailed", non_retryable=True)
        return status
