"""The stepper: does the steps of one run in the process that holds it, and keeps a record of each.

It knows no database: what it does is told to a `checkpoint`, and what an earlier attempt finished is given to it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from routines_core.db.runs import StepRecord
from routines_core.errors import InvalidError, RoutinesError
from routines_core.mask import MASK
from routines_engine.steps.flow import AGAIN, COMPLETED, FAILED, FlowWorkflow, Outline, Verdict
from routines_engine.steps.masking import Masker
from routines_engine.steps.masking_services import MaskingServices
from routines_engine.steps.storable import storable, storable_error
from routines_workflow.activity import Activity, StepContext, StepServices
from routines_workflow.bindings import MAX_DEPTH, SECRET_ROOTS, bindings_of, depth_of, inputs_of, secrets_in
from routines_workflow.catalogue import find_activity
from routines_workflow.retry import Patience, patience_of

Checkpoint = Callable[[StepRecord], Awaitable[None]]
NOT_RETRIED = (InvalidError, msgspec.ValidationError)
"""What the step was given is wrong: it would be as wrong the next time."""


class StepTimeoutError(RoutinesError):
    """A try of a step took longer than its config allows."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it took longer than its timeout of {seconds:g} s")


class Workflow(msgspec.Struct, frozen=True):
    """A workflow as it is stored; parts that are left out are empty."""

    steps: list[str] = []
    step_configs: dict[str, dict[str, Any]] = {}


def parse_workflow(stored: dict[str, Any]) -> Workflow:
    """The workflow of this JSON object.

    Raises:
        InvalidError: It is malformed.
    """
    try:
        return msgspec.convert(stored, Workflow)
    except msgspec.ValidationError as error:
        raise InvalidError(f"workflow is not valid: {error}") from None


@dataclass(frozen=True)
class Step:
    """A step that is ready to be done.

    Attributes:
        inputs: What the activity is given.
        shown: The same as it may be kept: without secrets.
        patience: How often and how long it is tried.
    """

    activity: Activity[Any]
    inputs: dict[str, Any]
    shown: dict[str, Any]
    patience: Patience


class Stepper:
    """The steps of one run.

    Args:
        workflow: The stored workflow.
        init_params: The parameters of this run.
        finished_steps: `{inputs, outputs}` by name of what earlier attempts completed: not done again.
        checkpoint: Told of each try of a step as it starts, and of the step's end; what it raises ends the run.
        workflow_id: The run, as steps and clients name it.
        services: What the steps may ask of the engine.
        tries: Which try an earlier attempt was at, by the name of a step that it did not finish.
        allow_private: Whether steps may send requests to loopback and private addresses.
    """

    def __init__(
        self,
        workflow: dict[str, Any],
        init_params: dict[str, Any],
        finished_steps: Mapping[str, Any],
        checkpoint: Checkpoint,
        *,
        workflow_id: str,
        services: StepServices,
        tries: Mapping[str, int] | None = None,
        allow_private: bool = False,
    ) -> None:
        self._stored = workflow
        self._workflow = Workflow()
        self._values: dict[str, Any] = {**finished_steps, "init_params": init_params}
        self._finished = set(finished_steps)
        self._checkpoint = checkpoint
        self._workflow_id = workflow_id
        self._masker = Masker()
        self._services = MaskingServices(services, self._masker)
        self._tries = dict(tries or {})
        self._allow_private = allow_private
        # What goes from one try of a step to the next.
        self._ready: tuple[str, Step] | None = None
        self._told_of: tuple[str, int] | None = None

    async def run(self) -> None:
        """Do the whole workflow here.

        Raises:
            StepFailedError: A step cannot be done; the ones after it were not begun.
            InvalidError: The workflow itself is malformed.
        """
        await self.begin()
        await FlowWorkflow(Outline(self._workflow.steps, sorted(self._finished), self._tries), self).run()

    async def begin(self) -> None:
        """Read the workflow, and mask what an uninterrupted run would mask by now.

        Raises:
            InvalidError: The workflow is malformed.
        """
        self._workflow = parse_workflow(self._stored)
        for name in self._finished & self._workflow.step_configs.keys():
            with suppress(RoutinesError):
                config = self._workflow.step_configs[name]
                for secret in secrets_in(bindings_of(config, find_activity(config.get("activity")).raw)):
                    await self._services.secret(secret)

    async def wait(self, seconds: float) -> None:
        """Wait before a step is tried again."""
        await asyncio.sleep(seconds)

    async def try_step(self, position: int, name: str, attempt: int) -> Verdict:
        """Try a step once; on return its record is stored."""
        config = self._workflow.step_configs.get(name)
        activity = str((config or {}).get("activity", ""))
        record = StepRecord(name, position, "running", activity, {}, attempt=attempt)
        try:
            step = await self._prepared(name, config)
        except RoutinesError as error:
            return await self._failed(record, error)
        record = msgspec.structs.replace(record, inputs=step.shown)
        if self._told_of != (name, attempt):
            await self._write(record)
        try:
            outputs = await self._try(step, record)
        except Exception as error:  # noqa: BLE001 - an activity may raise whatever it likes: its step fails
            return await self._after(error, step, record)
        await self._write(msgspec.structs.replace(record, status="completed", outputs=outputs))
        self._values[name] = {"inputs": step.shown, "outputs": outputs}
        return Verdict(COMPLETED)

    async def _prepared(self, name: str, config: dict[str, Any] | None) -> Step:
        """The step with its references and templates resolved, once for all its tries.

        Raises:
            RoutinesError: Its config is wrong, or names what the run does not have.
        """
        if self._ready is None or self._ready[0] != name:
            self._ready = name, await self._prepare(name, config)
        return self._ready[1]

    async def _prepare(self, name: str, config: dict[str, Any] | None) -> Step:
        if config is None:
            raise InvalidError(f"{name!r} has no entry in step_configs")
        if depth_of(config) > MAX_DEPTH:
            raise InvalidError(f"its config is nested more than {MAX_DEPTH} levels deep")
        activity = find_activity(config.get("activity"))
        bindings = bindings_of(config, activity.raw)
        secrets = await self._secrets(secrets_in(bindings))
        inputs = inputs_of(bindings, activity.raw, self._values | dict.fromkeys(SECRET_ROOTS, secrets))
        masks = dict.fromkeys(SECRET_ROOTS, dict.fromkeys(secrets, MASK))
        shown = inputs_of(bindings, activity.raw, self._values | masks) if secrets else inputs
        # Copies: an activity may change what it was given, and later steps must not see that.
        shown = storable(self._masker.mask(shown), "its inputs")
        return Step(activity, storable(inputs, "its inputs"), shown, patience_of(config))

    async def _secrets(self, names: set[str]) -> dict[str, str]:
        """The values of those that there are."""
        found = {name: await self._services.secret(name) for name in sorted(names)}
        return {name: value for name, value in found.items() if value is not None}

    async def _try(self, step: Step, record: StepRecord) -> Any:
        """The outputs of one try, as they may be kept and as later steps see them: without secrets."""
        self._services.fault = None
        seconds = step.patience.timeout_seconds
        context = StepContext(
            self._workflow_id,
            record.name,
            record.attempt,
            self._services,
            timeout_seconds=seconds,
            allow_private=self._allow_private,
        )
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                outputs = await step.activity.call(step.inputs, context)
        except TimeoutError:
            if limit.expired() and seconds is not None:
                raise StepTimeoutError(seconds) from None
            raise
        return self._masker.mask(storable(outputs, "its outputs"))

    async def _after(self, error: Exception, step: Step, record: StepRecord) -> Verdict:
        """What follows from a try that failed.

        Raises:
            Exception: The engine failed it, not the step: then the run has to be left.
        """
        if self._services.fault is not None:
            raise self._services.fault from None
        if isinstance(error, NOT_RETRIED) or record.attempt >= step.patience.retry.max_attempts:
            return await self._failed(record, error)
        following = msgspec.structs.replace(record, attempt=record.attempt + 1, failed_try=self._told(error))
        # Before the wait: a worker that is lost meanwhile must not forget the try.
        await self._write(following)
        self._told_of = following.name, following.attempt
        return Verdict(AGAIN, step.patience.retry.wait_seconds(record.attempt))

    async def _failed(self, record: StepRecord, error: Exception) -> Verdict:
        """The verdict on a step that failed, once its checkpoint is written."""
        cause = self._told(error)
        await self._write(msgspec.structs.replace(record, status="failed", error=cause, failed_try=None))
        return Verdict(FAILED, cause=cause)

    def _told(self, error: Exception) -> str:
        """The error's text as it may be kept: masked before it is cut, for half a secret would not be found."""
        return storable_error(self._masker.mask(_cause(error)))

    async def _write(self, record: StepRecord) -> None:
        masked = self._masker.mask({"inputs": record.inputs, "failed_try": record.failed_try})
        await self._checkpoint(msgspec.structs.replace(record, **masked))


def _cause(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"missing {error}"
    return str(error) or type(error).__name__
