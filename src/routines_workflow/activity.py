"""An activity: what one step of a workflow can do. It says in structs what it takes and what it gives."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

Parameters = TypeVar("Parameters", bound=msgspec.Struct)


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


class Services(Protocol):
    """What the engine does for a step. Everything stays within the run's own collection."""

    async def secret(self, name: str) -> str | None:
        """The secret param of this name, else the collection's environment variable; None: neither is there.

        Raises:
            SecretError: It is stored and does not open.
        """
        ...

    async def run_child(self, child: Child) -> ChildResult:
        """Start a run of another task, or find the one that this step started before, and wait until it has ended.

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
        try_number: Which try of the step this is, from 1.
        services: What the engine does for it.
    """

    workflow_id: str
    step: str
    try_number: int
    services: Services

    @property
    def idempotency_key(self) -> str:
        """The same for every try and every worker: for receivers that do a thing once."""
        return f"{self.workflow_id}/{self.step}"


Function = Callable[[Parameters, StepContext], Awaitable[msgspec.Struct]]


@dataclass(frozen=True)
class Activity(Generic[Parameters]):
    """An activity by name, with the struct of its parameters and the function that does it."""

    name: str
    description: str
    parameters: type[Parameters]
    function: Function[Parameters]

    async def call(self, inputs: dict[str, Any], context: StepContext) -> Any:
        """The outputs as JSON values.

        Raises:
            msgspec.ValidationError: The inputs are not what the activity takes; the message names the field.
        """
        outputs = await self.function(msgspec.convert(inputs, self.parameters), context)
        return msgspec.to_builtins(outputs)


ACTIVITIES: dict[str, Activity[Any]] = {}
"""Every activity that a workflow can name."""


def activity(description: str, parameters: type[Parameters]) -> Callable[[Function[Parameters]], Function[Parameters]]:
    """Register the decorated function as an activity under its own name."""

    def register(function: Function[Parameters]) -> Function[Parameters]:
        name = function.__name__
        ACTIVITIES[name] = Activity(name, description, parameters, function)
        return function

    return register
