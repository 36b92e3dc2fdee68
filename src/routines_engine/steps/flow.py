"""FlowWorkflow: the interpreter of a task's workflow, which both engines drive.

Pure and deterministic: it knows which step comes next, how often one is tried and what ends the run, and nothing of
what steps are given and give. Whatever takes time or may turn out differently the next time is asked of its `StepRunner`.
"""

from dataclasses import dataclass, field
from typing import Protocol

from routines_core.errors import RoutinesError

COMPLETED = "completed"
FAILED = "failed"
AGAIN = "again"


class StepFailedError(RoutinesError):
    """A step cannot be done: the message names it and the cause."""

    def __init__(self, step: str, cause: str) -> None:
        super().__init__(f"step {step!r} failed: {cause}")
        self.step = step
        self.cause = cause


@dataclass(frozen=True)
class Verdict:
    """What came of one try of a step.

    Attributes:
        status: COMPLETED; FAILED, and no other try would mend it; AGAIN, after the wait.
        wait_seconds: How long to wait before the next try.
        cause: Why it failed, without secrets; empty: it did not, or its text stays where it was written.
    """

    status: str
    wait_seconds: float = 0.0
    cause: str = ""


@dataclass(frozen=True)
class Outline:
    """What of a run its interpreter needs to know.

    Attributes:
        steps: Their names, in order.
        finished: Those that earlier attempts completed: not done again.
        tries: Which try an earlier attempt was at, by the name of a step that it did not finish.
    """

    steps: list[str]
    finished: list[str] = field(default_factory=list[str])
    tries: dict[str, int] = field(default_factory=dict[str, int])


class StepRunner(Protocol):
    """Does what FlowWorkflow decides: in this process, or as activities of Temporal."""

    async def try_step(self, position: int, name: str, attempt: int) -> Verdict:
        """Try a step once; on return its record is stored."""
        ...

    async def wait(self, seconds: float) -> None:
        """Wait before a step is tried again."""
        ...


class FlowWorkflow:
    """One run of a workflow."""

    def __init__(self, outline: Outline, hands: StepRunner) -> None:
        self._steps = outline.steps
        self._finished = frozenset(outline.finished)
        self._tries = outline.tries
        self._hands = hands

    async def run(self) -> None:
        """Do the steps in order.

        Raises:
            StepFailedError: One cannot be done; the ones after it were not begun.
        """
        for position, name in enumerate(self._steps):
            if name not in self._finished:
                await self._step(position, name)

    async def _step(self, position: int, name: str) -> None:
        attempt = self._tries.get(name, 1)
        while (verdict := await self._hands.try_step(position, name, attempt)).status != COMPLETED:
            if verdict.status == FAILED:
                raise StepFailedError(name, verdict.cause)
            await self._hands.wait(verdict.wait_seconds)
            attempt += 1
