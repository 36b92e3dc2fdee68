"""The stepper: runs the steps of one run in this process, and records each of them.

It does not use the database. It reports to a `checkpoint`, and is given the steps that earlier claims of the run
finished.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from routines_core.db.runs import StepRecord
from routines_core.diagnosis import is_own_trouble
from routines_core.errors import InvalidError, RoutinesError, RunLimitError, StorageError, TransientError
from routines_core.logging import describe
from routines_core.mask import MASK
from routines_core.tracing import parse_traceparent, step_ref
from routines_engine.steps.flow import AGAIN, COMPLETED, FAILED, FlowWorkflow, Outline, Verdict
from routines_engine.steps.large_outputs import MAX_LARGE_BYTES, LargeOutputs
from routines_engine.steps.masking import Masker
from routines_engine.steps.masking_services import MaskingServices
from routines_engine.steps.plan import Workflow, WorkflowPlan, plan_workflow
from routines_engine.steps.storable import LargeValueError, storable, storable_error
from routines_workflow.activity import Activity, AnsweredError, StepContext, StepServices
from routines_workflow.bindings import inputs_of
from routines_workflow.references import SECRET_ROOTS, SLOT_ROOT
from routines_workflow.step_limits import StepLimits, step_limits
from routines_workflow.transient import is_transient

PARTS = ("inputs", "outputs")
"""What a reference may name of a step."""
Checkpoint = Callable[[StepRecord], Awaitable[None]]
OWN_TROUBLE_SECONDS = 5.0
"""Delay before a step is tried again that failed only because its process had no file descriptor left."""
NOT_RETRIED = (InvalidError, msgspec.ValidationError)
"""Errors that would recur, since the step's inputs are wrong."""


log = structlog.get_logger("worker")


class StepTimeoutError(TransientError):
    """An attempt of a step took longer than its config allows."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it took longer than its timeout of {seconds:g} s")


@dataclass(frozen=True)
class Step:
    """A step that is ready to run.

    Attributes:
        inputs: The activity's inputs.
        masked_inputs: The inputs as they are stored, without secrets.
        limits: How often it is tried, and how long one attempt may take.
    """

    activity: Activity[Any]
    inputs: dict[str, Any]
    masked_inputs: dict[str, Any]
    limits: StepLimits


class Stepper:
    """Runs the steps of one run.

    Args:
        workflow: The stored workflow as JSON.
        init_params: The parameters of this run.
        finished_steps: `{inputs, outputs}` of the steps that earlier claims completed, by name; they are not repeated.
            Outputs with `has_file: true` beside them are in a file.
        checkpoint: Called as each attempt of a step begins, and at the step's end. If it raises, the run ends.
        workflow_id: The id by which clients know the run.
        run_id: The id by which receivers of its steps know the run.
        services: What steps may ask of the engine.
        attempts: The attempt that each unfinished step had reached, by name.
        allow_private: Whether steps may send requests to loopback and private addresses.
        traceparent: The run's span; empty if it is not traced.
    """

    def __init__(
        self,
        workflow: bytes,
        init_params: dict[str, Any],
        finished_steps: Mapping[str, Any],
        checkpoint: Checkpoint,
        *,
        workflow_id: str,
        run_id: str,
        services: StepServices,
        attempts: Mapping[str, int] | None = None,
        allow_private: bool = False,
        traceparent: str = "",
    ) -> None:
        self._stored = workflow
        self._plan = WorkflowPlan(Workflow())
        finished = {name: {part: step.get(part) for part in PARTS} for name, step in finished_steps.items()}
        self._values: dict[str, Any] = {**finished, "init_params": init_params}
        self._finished = set(finished_steps)
        self._checkpoint = checkpoint
        self._workflow_id = workflow_id
        self._run_id = run_id
        self._masker = Masker()
        self._services = MaskingServices(services, self._masker)
        self._large_outputs = LargeOutputs(self._services, finished_steps)
        self._attempts = dict(attempts or {})
        self._allow_private = allow_private
        self._span = parse_traceparent(traceparent)
        # Kept from one attempt of a step to the next.
        self._prepared_step: tuple[str, Step] | None = None
        self._recorded_attempt: tuple[str, int] | None = None

    async def run(self) -> None:
        """Run the whole workflow in this process.

        Raises:
            StepFailedError: A step failed for good; the steps after it were not begun.
            InvalidError: The workflow itself is malformed.
        """
        await self.begin()
        await FlowWorkflow(Outline(self._plan.steps, sorted(self._finished), self._attempts), self).run()

    async def begin(self) -> None:
        """Parse the workflow, and mask the secrets that the finished steps have read.

        Raises:
            InvalidError: The workflow is malformed.
            RunLimitError: These are more secrets than the run may read. The rest would not be masked.
        """
        self._plan = self._planned(self._stored)
        for name in self._finished & self._plan.step_configs.keys():
            try:
                for secret in self._plan.of(name).secrets:
                    await self._services.secret(secret)
            except RunLimitError:
                raise
            except RoutinesError:
                continue

    def _planned(self, stored: bytes) -> WorkflowPlan:
        return plan_workflow(stored)

    async def wait(self, seconds: float) -> None:
        """Wait before the next attempt of a step."""
        await asyncio.sleep(seconds)

    async def try_step(self, position: int, name: str, attempt: int) -> Verdict:
        """Attempt a step once. Its record is stored on return."""
        config = self._plan.step_configs.get(name, {})
        activity = str(config.get("activity", ""))
        record = StepRecord(name, position, "running", activity, {}, attempt=attempt)
        try:
            step = await self._prepared(name)
        except (StorageError, OSError) as error:  # outputs in a file, which may be readable at the next attempt
            return await self._after_error(error, step_limits(config), record)
        except RoutinesError as error:
            return await self._failed(record, error)
        record = msgspec.structs.replace(record, inputs=step.masked_inputs)
        try:
            if self._recorded_attempt != (name, attempt):
                await self._write(record)
        except RunLimitError as error:
            return await self._failed(record, error)
        try:
            completed = await self._completed(record, await self._attempt(step, record))
        except Exception as error:  # noqa: BLE001 - an activity may raise anything, which fails its step
            return await self._after_error(error, step.limits, record)
        try:
            await self._write(completed)
        except InvalidError as error:  # the run holds too much
            return await self._failed(record, error)
        self._values[name] = {"inputs": step.masked_inputs, "outputs": completed.outputs}
        return Verdict(COMPLETED)

    async def _prepared(self, name: str) -> Step:
        """Return the step with its references and templates resolved, once for all its attempts.

        Raises:
            RoutinesError: Its config is wrong, or refers to something that the run does not have.
        """
        if self._prepared_step is None or self._prepared_step[0] != name:
            self._prepared_step = name, await self._prepare(name)
        return self._prepared_step[1]

    async def _prepare(self, name: str) -> Step:
        plan = self._plan.of(name)
        if plan.needs_slot and SLOT_ROOT not in self._values:
            self._values[SLOT_ROOT] = await self._services.slot()
        secrets = await self._secrets(plan.secrets) if plan.secrets else {}
        read = await self._large_outputs.referred_to(plan.bindings)
        values = self._values | {step: {**self._values[step], "outputs": outputs} for step, outputs in read.items()}
        raw = plan.activity.raw
        inputs = inputs_of(plan.bindings, raw, values | dict.fromkeys(SECRET_ROOTS, secrets))
        masks = dict.fromkeys(SECRET_ROOTS, dict.fromkeys(secrets, MASK))
        masked = inputs_of(plan.bindings, raw, values | masks) if secrets else inputs
        # Copies: an activity may modify its inputs, and later steps must not see that. Measured before they are masked.
        stored = storable(inputs, "its inputs")
        masked = self._masker.mask(storable(masked, "its inputs"))
        return Step(plan.activity, stored, masked, plan.limits)

    async def _secrets(self, names: frozenset[str]) -> dict[str, str]:
        """Return the values of the secrets that exist, by name."""
        found = {name: await self._services.secret(name) for name in sorted(names)}
        return {name: value for name, value in found.items() if value is not None}

    async def _attempt(self, step: Step, record: StepRecord) -> Any:
        """Call the activity once. Returns its outputs."""
        self._services.fault = None
        seconds = step.limits.timeout_seconds
        context = StepContext(
            self._workflow_id,
            self._run_id,
            record.name,
            record.attempt,
            self._services,
            timeout_seconds=seconds,
            allow_private=self._allow_private,
            mask=self._masker.mask,
            traceparent=step_ref(self._span, self._run_id, record.name).traceparent if self._span else None,
        )
        if seconds is None:
            return await step.activity.call(step.inputs, context)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await step.activity.call(step.inputs, context)
        except TimeoutError:
            if limit.expired():
                raise StepTimeoutError(seconds) from None
            raise

    async def _completed(self, record: StepRecord, outputs: Any) -> StepRecord:
        """Return the record of a completed step, with its outputs without secrets, as later steps see them.

        Outputs that are too large for it are saved in a file.
        """
        try:
            kept = self._masker.mask(storable(outputs, "its outputs"))
        except LargeValueError:
            # In a thread, since millions of values take seconds, in which the process must show that it is alive.
            content = await asyncio.to_thread(self._content_of, outputs)
            reference = await self._large_outputs.save(record.name, content)
            return msgspec.structs.replace(record, status="completed", outputs=reference, has_file=True)
        return msgspec.structs.replace(record, status="completed", outputs=kept)

    def _content_of(self, outputs: Any) -> bytes:
        """Return large outputs without secrets, as JSON."""
        return msgspec.json.encode(self._masker.mask(storable(outputs, "its outputs", MAX_LARGE_BYTES)))

    async def _after_error(self, error: Exception, limits: StepLimits, record: StepRecord) -> Verdict:
        """Return the verdict on an attempt that raised.

        Raises:
            Exception: The engine failed, not the step, so the run has to be left.
        """
        if self._services.fault is not None:
            raise self._services.fault from None
        if is_own_trouble(error):
            log.warning("step held off", workflow_id=self._workflow_id, step=record.name, **describe(error))
            return await self._held_off()
        if isinstance(error, NOT_RETRIED) or record.attempt >= limits.retry.max_attempts:
            return await self._failed(record, error)
        next_attempt = msgspec.structs.replace(
            record, attempt=record.attempt + 1, failed_try=self._text_of(error), answer=_answer_of(error)
        )
        # Written before the wait, so that the failed attempt is not forgotten if the worker is lost during it.
        try:
            await self._write(next_attempt)
        except RunLimitError as at_limit:
            return await self._failed(record, at_limit)
        self._recorded_attempt = next_attempt.name, next_attempt.attempt
        return Verdict(AGAIN, limits.retry.wait_seconds(record.attempt))

    async def _held_off(self) -> Verdict:
        """Return the verdict on an attempt that could not be made because of this process."""
        return Verdict(AGAIN, OWN_TROUBLE_SECONDS)

    async def _failed(self, record: StepRecord, error: Exception) -> Verdict:
        """Record that a step failed for good. Returns the verdict."""
        cause = self._text_of(error)
        failed = msgspec.structs.replace(record, status="failed", error=cause, failed_try=None)
        await self._write(msgspec.structs.replace(failed, answer=_answer_of(error), is_transient=is_transient(error)))
        return Verdict(FAILED, cause=cause)

    def _text_of(self, error: Exception) -> str:
        """Return the error's text as it is stored. Masked before it is cut, since half a secret would not be found."""
        return storable_error(self._masker.mask(_cause(error)))

    async def _write(self, record: StepRecord) -> None:
        masked = self._masker.mask({"inputs": record.inputs, "failed_try": record.failed_try, "answer": record.answer})
        await self._checkpoint(msgspec.structs.replace(record, **masked))


def _answer_of(error: Exception) -> dict[str, Any] | None:
    return error.answer if isinstance(error, AnsweredError) else None


def _cause(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"missing {error}"
    return str(error) or type(error).__name__
