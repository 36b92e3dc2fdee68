"""An activity: what one step of a workflow can do. It says in structs what it takes and what it gives."""

import asyncio
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec
import structlog

from routines_core.errors import InvalidError
from routines_workflow.bindings import REFERENCE_SUFFIX, RESERVED_KEYS
from routines_workflow.blocking import THREADS_OF_ACTIVITIES
from routines_workflow.type_names import rule_of

Parameters = TypeVar("Parameters", bound=msgspec.Struct)
FILLS_FROM = "fills_from"
"""In the `extra` of a text's Meta: the activity fills its placeholders, from the parameter that is named there."""

log = structlog.get_logger("activities")


class Child(msgspec.Struct, frozen=True):
    """A run to be started from within a step.

    Attributes:
        task: A task of the same collection.
        init_params: Merged over the task's own; each key must be declared there.
        index: Its place among the step's children, from 0: a step that is done again finds the child that it started.
    """

    task: str
    init_params: dict[str, Any]
    index: int


class ChildResult(msgspec.Struct, frozen=True):
    """How a child ended.

    Attributes:
        status: completed, failed, cancelled or archived.
        outputs: Outputs of its steps by name.
        error: Why it failed; None: it did not.
    """

    trajectory_id: int
    status: str
    outputs: dict[str, Any]
    error: str | None


class Found(msgspec.Struct, frozen=True):
    """An earlier run of the collection, as a step may read it."""

    trajectory_id: int
    status: str
    init_params: dict[str, Any]
    outputs: dict[str, Any]


class StepServices(Protocol):
    """What the engine does for a step. Everything stays within the run's own collection."""

    async def secret(self, name: str) -> str | None:
        """The secret param of this name, else the collection's environment variable; None: neither is there.

        Raises:
            SecretError: It is stored and does not open.
        """
        ...

    async def run_child(self, child: Child) -> ChildResult:
        """Start a run of another task, or find the one that this step started before, and wait until it has ended.

        A retry of the step starts anew what did not complete, and finds the rest.

        Raises:
            InvalidError: There is no such task, or it declares not all keys.
        """
        ...

    async def find_trajectories(self, *, task: str, status: str | None, limit: int) -> list[Found]:
        """Ended runs of a task, newest first; None for status means any final one."""
        ...

    async def read_file(self, path: str) -> bytes:
        """A file of the collection: one of init_params.file_paths, or one that a step saved.

        Raises:
            InvalidError: There is none of this path.
        """
        ...

    async def save_file(self, name: str, content: bytes) -> str:
        """Keep a file for the collection: the path that reads it again."""
        ...


@dataclass(frozen=True)
class StepContext:
    """What an activity may know of the step that it does, beside its parameters.

    Attributes:
        workflow_id: The run.
        step: The step's name.
        attempt: Which try of the step this is, from 1.
        services: What the engine does for it.
        timeout_seconds: When the try is given up, counted from its start; None: the step's config sets no limit.
        allow_private: Whether requests may go to loopback and private addresses.
    """

    workflow_id: str
    step: str
    attempt: int
    services: StepServices
    timeout_seconds: float | None = None
    allow_private: bool = False

    @property
    def idempotency_key(self) -> str:
        """The same for every try and every worker: for receivers that do a thing once."""
        return f"{self.workflow_id}/{self.step}"


Function = Callable[[Parameters, StepContext], Awaitable[msgspec.Struct] | msgspec.Struct]
"""A coroutine function, or a plain one, which is called in a thread."""


class ActivityError(Exception):
    """An activity ended in a way that would take more with it than its step."""


@dataclass(frozen=True)
class Activity(Generic[Parameters]):
    """An activity by name, with the struct of its parameters and the function that does it.

    Attributes:
        outputs: The struct that the function returns; None: its signature does not say.
        category: What it belongs to, for people who look for one.
    """

    name: str
    description: str
    parameters: type[Parameters]
    function: Function[Parameters]
    outputs: type[msgspec.Struct] | None = None
    category: str = "other"

    @cached_property
    def raw(self) -> dict[str, str]:
        """Parameters whose placeholders the activity fills itself: each with the parameter that holds their values."""
        return dict(_raw_parameters(self.parameters))

    async def call(self, inputs: dict[str, Any], context: StepContext) -> Any:
        """The outputs as JSON values.

        Raises:
            InvalidError: The inputs are not what the activity takes; the message names the field.
            ActivityError: It ended by SystemExit, or by a cancellation that nobody asked for.
        """
        try:
            given = msgspec.convert(inputs, self.parameters)
        except msgspec.ValidationError as error:
            raise InvalidError(rule_of(str(error))) from None
        return msgspec.to_builtins(await self._outputs(given, context))

    async def _outputs(self, given: Parameters, context: StepContext) -> msgspec.Struct:
        try:
            if inspect.iscoroutinefunction(self.function):
                return await self.function(given, context)
            called = cast("Callable[[Parameters, StepContext], msgspec.Struct]", self.function)
            return await THREADS_OF_ACTIVITIES.run(lambda: called(given, context))
        except SystemExit as error:
            raise ActivityError(f"it left with the exit code {error.code}") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ActivityError("it cancelled itself") from None


ACTIVITIES: dict[str, Activity[Any]] = {}
"""Every activity that a workflow can name, as far as it was imported: see catalogue.py."""


def activity(
    description: str, parameters: type[Parameters], *, category: str = "other"
) -> Callable[[Function[Parameters]], Function[Parameters]]:
    """Register the decorated function as an activity under its own name; its outputs are what it returns.

    A coroutine function runs on the event loop and must not block it; a plain one is called in a thread.
    """

    def decorate(function: Function[Parameters]) -> Function[Parameters]:
        register(Activity(function.__name__, description, parameters, function, _returned(function), category))
        return function

    return decorate


def register(made: Activity[Any]) -> None:
    """Add an activity to those that a workflow can name; one of a name that is taken is logged and left out.

    Raises:
        ValueError: A parameter's name is one that a step's config needs for itself.
        TypeError: The structs are none that msgspec can read from JSON.
    """
    msgspec.inspect.multi_type_info([made.parameters, made.outputs or made.parameters])
    for field in msgspec.structs.fields(made.parameters):
        if field.name in RESERVED_KEYS or field.name.endswith(REFERENCE_SUFFIX):
            raise ValueError(f"activity {made.name!r}: no parameter may be named {field.name!r}")
    there = ACTIVITIES.setdefault(made.name, made)
    if there.function.__module__ != made.function.__module__:
        log.warning("activity refused: its name is taken", activity=made.name, module=made.function.__module__)
    else:
        ACTIVITIES[made.name] = made


def _returned(function: Callable[..., Any]) -> type[msgspec.Struct] | None:
    """The struct that the signature returns; None: it names none, or one that only type checkers know."""
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
