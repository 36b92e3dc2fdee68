"""FlowWorkflow: the interpreter of a task's workflow, the same on both engines.

Pure and deterministic. It decides which step comes next, how often a step is tried and what ends the run, and knows
nothing about inputs and outputs. Whatever takes time or is not deterministic is left to its `StepRunner`.
"""

from dataclasses import dataclass, field
from typing import Protocol

from routines_core.errors import RoutinesError

COMPLETED = "completed"
FAILED = "failed"
AGAIN = "again"


class StepFailedError(RoutinesError):
    """A step failed for good; the message names the step and the cause."""

    def __init__(self, step: str, cause: str) -> None:
        super().__init__(f"step {step!r} failed: {cause}")
        self.step = step
        self.cause = cause


@dataclass(frozen=True)
class Verdict:
    """The outcome of one attempt of a step.

    Attributes:
        status: COMPLETED; FAILED, for good; or AGAIN, to be retried after the wait.
        wait_seconds: Delay before the next attempt.
        cause: Why it failed, without secrets; empty if it did not fail, or if the text is kept elsewhere.
    """

    status: str
    wait_seconds: float = 0.0
    cause: str = ""


@dataclass(frozen=True)
class Outline:
    """What the interpreter needs to know about a run.

    Attributes:
        steps: The names of its steps, in order.
        finished: Steps that were completed before, and are not repeated.
        attempts: The attempt that each unfinished step had reached, by name.
    """

    steps: list[str]
    finished: list[str] = field(default_factory=list[str])
    attempts: dict[str, int] = field(default_factory=dict[str, int])


class StepRunner(Protocol):
    """Carries out what FlowWorkflow decides."""

    async def try_step(self, position: int, name: str, attempt: int) -> Verdict:
        """Attempt a step once. Its record is stored on return."""
        ...

    async def wait(self, seconds: float) -> None:
        """Wait before the next attempt of a step."""
        ...


class FlowWorkflow:
    """One run of a workflow."""

    def __init__(self, outline: Outline, runner: StepRunner) -> None:
        self._steps = outline.steps
        self._finished = frozenset(outline.finished)
        self._attempts = outline.attempts
        self._runner = runner

    async def run(self) -> None:
        """Run the steps in order.

        Raises:
            StepFailedError: A step failed for good; the steps after it were not begun.
        """
        for position, name in enumerate(self._steps):
            if name not in self._finished:
                await self._step(position, name)

    async def _step(self, position: int, name: str) -> None:
        attempt = self._attempts.get(name, 1)
        while (verdict := await self._runner.try_step(position, name, attempt)).status != COMPLETED:
            if verdict.status == FAILED:
                raise StepFailedError(name, verdict.cause)
            await self._runner.wait(verdict.wait_seconds)
            attempt += 1
