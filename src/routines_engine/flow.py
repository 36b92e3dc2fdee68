"""FlowWorkflow: the interpreter of a task's workflow, `{init_params, step_configs, steps}`.

It knows no database: what it does is told to a `checkpoint`, and what an earlier attempt finished is given to it.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec

from routines_core.db.runs import StepRecord
from routines_core.errors import InvalidError, RoutinesError
from routines_workflow.activities import ACTIVITIES
from routines_workflow.activity import Services, StepContext
from routines_workflow.references import parse_reference

Checkpoint = Callable[[StepRecord], Awaitable[None]]
REFERENCE_SUFFIX = "_path"
"""A parameter of this ending is a reference: `prompt_path` fills the parameter `prompt`."""


class StepFailedError(RoutinesError):
    """A step cannot be done: the message names it and the cause."""

    def __init__(self, step: str, cause: str) -> None:
        super().__init__(f"step {step!r} failed: {cause}")
        self.step = step
        self.cause = cause


class Workflow(msgspec.Struct, frozen=True):
    """A workflow as it is stored; parts that are left out are empty."""

    steps: list[str] = []
    step_configs: dict[str, dict[str, Any]] = {}


class FlowWorkflow:
    """One run of a workflow.

    Args:
        workflow: The stored workflow.
        init_params: The parameters of this run.
        finished_steps: `{inputs, outputs}` by name of what earlier attempts completed: not done again.
        checkpoint: Told of each step as it starts and as it ends; what it raises ends the run.
        workflow_id: The run, as steps and clients name it.
        services: What the steps may ask of the engine.
    """

    def __init__(
        self,
        workflow: dict[str, Any],
        init_params: dict[str, Any],
        finished_steps: Mapping[str, Any],
        checkpoint: Checkpoint,
        *,
        workflow_id: str,
        services: Services,
    ) -> None:
        self._workflow = workflow
        self._values: dict[str, Any] = {**finished_steps, "init_params": init_params}
        self._finished = set(finished_steps)
        self._checkpoint = checkpoint
        self._workflow_id = workflow_id
        self._services = services

    async def run(self) -> None:
        """Do the steps in order.

        Raises:
            StepFailedError: One cannot be done; the ones after it were not begun.
            InvalidError: The workflow itself is malformed.
        """
        try:
            workflow = msgspec.convert(self._workflow, Workflow)
        except msgspec.ValidationError as error:
            raise InvalidError(f"workflow is not valid: {error}") from None
        for position, name in enumerate(workflow.steps):
            if name not in self._finished:
                await self._step(position, name, workflow.step_configs.get(name))

    async def _step(self, position: int, name: str, config: dict[str, Any] | None) -> None:
        activity_name = str((config or {}).get("activity", ""))
        started = StepRecord(name, position, "running", activity_name, {})
        try:
            started = msgspec.structs.replace(started, inputs=self._inputs(name, config))
        except InvalidError as error:
            raise await self._failed(started, str(error)) from None
        await self._checkpoint(started)
        try:
            context = StepContext(self._workflow_id, name, try_number=1, services=self._services)
            outputs = await ACTIVITIES[activity_name].call(started.inputs, context)
            _refuse_nul(outputs)
        except Exception as error:  # noqa: BLE001 - an activity may raise whatever it likes: its step fails
            raise await self._failed(started, _cause(error)) from None
        await self._checkpoint(msgspec.structs.replace(started, status="completed", outputs=outputs))
        self._values[name] = {"inputs": started.inputs, "outputs": outputs}

    async def _failed(self, started: StepRecord, cause: str) -> StepFailedError:
        """The error of a step that failed, once its checkpoint is written."""
        await self._checkpoint(msgspec.structs.replace(started, status="failed", error=cause))
        return StepFailedError(started.name, cause)

    def _inputs(self, name: str, config: dict[str, Any] | None) -> dict[str, Any]:
        """The step's parameters with their references resolved."""
        if config is None:
            raise InvalidError(f"{name!r} has no entry in step_configs")
        if config.get("activity") not in ACTIVITIES:
            raise InvalidError(f"unknown activity {config.get('activity')!r}")
        return dict(self._input(key, value) for key, value in config.items() if key != "activity")

    def _input(self, key: str, value: Any) -> tuple[str, Any]:
        if not key.endswith(REFERENCE_SUFFIX):
            return key, value
        return key.removesuffix(REFERENCE_SUFFIX), self._resolve(value)

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolve(item) for item in cast("list[Any]", value)]
        if not isinstance(value, str):
            raise InvalidError("a reference must be a text or a list of texts")
        return parse_reference(value).resolve(self._values)


def _refuse_nul(outputs: Any) -> None:
    if b"\\u0000" in msgspec.json.encode(outputs):
        raise ValueError("its outputs hold a NUL character, which Postgres cannot store")


def _cause(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"missing {error}"
    return str(error) or type(error).__name__
