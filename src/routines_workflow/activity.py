"""Activities: what a step of a workflow can do. Structs declare their parameters and outputs."""

import asyncio
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec
import structlog

from routines_core.errors import InvalidError, RoutinesError
from routines_workflow.bindings import REFERENCE_SUFFIX, RESERVED_KEYS
from routines_workflow.blocking import THREADS_OF_ACTIVITIES
from routines_workflow.type_names import rule_of

Parameters = TypeVar("Parameters", bound=msgspec.Struct)
FILLS_FROM = "fills_from"
"""Key in the `extra` of a text's Meta: names the parameter from which the activity fills the text's placeholders."""

log = structlog.get_logger("activities")


class Child(msgspec.Struct, frozen=True):
    """A run to be started by a step.

    Attributes:
        task: A task of the same collection.
        init_params: Merged over the task's own; every key must be declared there.
        index: Position among the step's children, from 0; a repeated step finds its earlier child by it.
    """

    task: str
    init_params: dict[str, Any]
    index: int


class ChildResult(msgspec.Struct, frozen=True):
    """The result of a child run.

    Attributes:
        status: completed, failed, cancelled or archived.
        outputs: Outputs of its steps by name.
        error: Why it failed; None if it did not.
    """

    trajectory_id: int
    status: str
    outputs: dict[str, Any]
    error: str | None


class Found(msgspec.Struct, frozen=True):
    """An earlier run of the collection, as a step may see it."""

    trajectory_id: int
    status: str
    init_params: dict[str, Any]
    outputs: dict[str, Any]


class StepServices(Protocol):
    """What the engine offers to a step, limited to the run's own collection."""

    async def secret(self, name: str) -> str | None:
        """Return the secret param of this name or else the collection's environment variable; None if neither exists.

        Raises:
            SecretError: It is stored but cannot be decrypted.
        """
        ...

    async def slot(self) -> dict[str, str | None]:
        """Return what references to `slot` refer to in this run, by name; None for what it does not have."""
        ...

    async def run_child(self, child: Child) -> ChildResult:
        """Start a run of another task, or find the one that this step started before, and wait until it ends.

        A retry of the step restarts children that did not complete and reuses the others.

        Raises:
            InvalidError: The task does not exist or does not declare all keys.
        """
        ...

    async def find_trajectories(self, *, task: str, status: str | None, limit: int) -> list[Found]:
        """Find ended runs of a task, newest first; a status of None matches every final status."""
        ...

    async def read_file(self, path: str, max_bytes: int | None = None) -> bytes:
        """Read a file of the collection: one of init_params.file_paths, or one that a step saved.

        Raises:
            InvalidError: There is no file at this path, or it is larger than `max_bytes`; None: any size.
        """
        ...

    async def save_file(self, name: str, content: bytes) -> str:
        """Save a file in the collection and return the path to read it by."""
        ...


class AnsweredError(RoutinesError):
    """A step failed because of an HTTP response.

    Attributes:
        answer: What is kept of the response, without secrets: see `kept_answer`.
    """

    def __init__(self, message: str, answer: dict[str, Any]) -> None:
        super().__init__(message)
        self.answer = answer


def _unmasked(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class StepContext:
    """What an activity knows about its step besides its parameters.

    Attributes:
        workflow_id: The id by which clients know the run.
        run_id: The run as a UUID. Unlike the number in workflow_id, it is never given to another run.
        step: The step's name.
        attempt: The number of this attempt, from 1.
        services: What the engine offers to the step.
        timeout_seconds: Timeout of the attempt; None if the step's config sets none.
        allow_private: Whether requests may go to loopback and private addresses.
        mask: Masks the secrets that the run has read so far in a JSON value. What an activity returns is masked anyway,
            but only whole secrets are found: mask a text before you cut it or put a part of it into a message.
        traceparent: The step's span, as a header for requests (W3C Trace Context); None if the run is not traced.
    """

    workflow_id: str
    run_id: str
    step: str
    attempt: int
    services: StepServices
    timeout_seconds: float | None = None
    allow_private: bool = False
    mask: Callable[[Any], Any] = _unmasked
    traceparent: str | None = None

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt and worker, and for no other step; lets receivers recognize repetitions."""
        return f"{self.run_id}/{self.step}"


Function = Callable[[Parameters, StepContext], Awaitable[msgspec.Struct] | msgspec.Struct]
"""A coroutine function, or a plain function, which is called in a thread."""


class ActivityError(Exception):
    """An activity ended in a way that would otherwise end more than its step."""


@dataclass(frozen=True)
class Activity(Generic[Parameters]):
    """An activity: its name, the struct of its parameters and its function.

    Attributes:
        outputs: The struct that the function returns; None if its signature does not say.
        category: Groups activities in listings.
    """

    name: str
    description: str
    parameters: type[Parameters]
    function: Function[Parameters]
    outputs: type[msgspec.Struct] | None = None
    category: str = "other"

    @cached_property
    def raw(self) -> dict[str, str]:
        """Parameters whose placeholders the activity fills itself, each with the parameter that contains the values."""
        return dict(_raw_parameters(self.parameters))

    async def call(self, inputs: dict[str, Any], context: StepContext) -> Any:
        """Run the activity and return its outputs as JSON values.

        Raises:
            InvalidError: The inputs do not match the parameters; the message names the field.
            ActivityError: It raised SystemExit, or CancelledError without having been cancelled.
        """
        try:
            given = msgspec.convert(inputs, self.parameters)
        except msgspec.ValidationError as error:
            raise InvalidError(rule_of(str(error), self.parameters)) from None
        return msgspec.to_builtins(await self._outputs(given, context))

    async def _outputs(self, given: Parameters, context: StepContext) -> msgspec.Struct:
        try:
            if inspect.iscoroutinefunction(self.function):
                return await self.function(given, context)
            called = cast("Callable[[Parameters, StepContext], msgspec.Struct]", self.function)
            return await THREADS_OF_ACTIVITIES.run(lambda: called(given, context))
        except SystemExit as error:
            raise ActivityError(f"it exited with code {error.code}") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ActivityError("it cancelled itself") from None


ACTIVITIES: dict[str, Activity[Any]] = {}
"""The activities that were imported so far, by name; see catalogue.py."""


def activity(
    description: str, parameters: type[Parameters], *, category: str = "other"
) -> Callable[[Function[Parameters]], Function[Parameters]]:
    """Register the decorated function as an activity under its own name; its return type declares the outputs.

    A coroutine function runs on the event loop and must not block it; a plain function is called in a thread.
    """

    def decorate(function: Function[Parameters]) -> Function[Parameters]:
        register(Activity(function.__name__, description, parameters, function, _returned(function), category))
        return function

    return decorate


def register(new: Activity[Any]) -> None:
    """Add an activity for workflows to use; if another module registered the name already, log it and do nothing.

    Raises:
        ValueError: A parameter has a name that is reserved in a step's config.
        TypeError: msgspec cannot read the structs from JSON.
    """
    msgspec.inspect.multi_type_info([new.parameters, new.outputs or new.parameters])
    for field in msgspec.structs.fields(new.parameters):
        if field.name in RESERVED_KEYS or field.name.endswith(REFERENCE_SUFFIX):
            raise ValueError(f"activity {new.name!r}: no parameter may be named {field.name!r}")
    registered = ACTIVITIES.setdefault(new.name, new)
    if registered.function.__module__ != new.function.__module__:
        log.warning("activity refused: its name is taken", activity=new.name, module=new.function.__module__)
    else:
        ACTIVITIES[new.name] = new


def _returned(function: Callable[..., Any]) -> type[msgspec.Struct] | None:
    """Return the struct in the signature, or None if there is none or only type checkers can resolve it."""
    try:
        returned = typing.get_type_hints(function).get("return")
    except NameError:
        return None
    return returned if isinstance(returned, type) and issubclass(returned, msgspec.Struct) else None


def _raw_parameters(parameters: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    for name, hint in typing.get_type_hints(parameters, include_extras=True).items():
        for meta in getattr(hint, "__metadata__", ()):
            if isinstance(meta, msgspec.Meta) and FILLS_FROM in (meta.extra or {}):
                yield name, str((meta.extra or {})[FILLS_FROM])
