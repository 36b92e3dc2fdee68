"""The record of one run: turns what FlowWorkflow reports of its steps into journal entries."""

from dataclasses import dataclass, field

from routines_core.db.runs import Checkpoint, StepRecord
from routines_engine.runs.journal import Journal
from routines_engine.runs.services import RunServices


@dataclass
class Record:
    """Writes one run's steps and end to the journal.

    The end of a step is written in one statement with the start of the next step, or with the end of the run; nothing
    is awaited between the two. The start of a step is written before its activity is called.
    """

    journal: Journal
    services: RunServices
    _unwritten: dict[str, StepRecord] = field(default_factory=dict[str, StepRecord])

    async def checkpoint(self, step: StepRecord) -> None:
        """Record a step. Its start and its failure are stored on return; its completion is stored with what follows.

        Raises:
            LostRunError: The run no longer belongs to this worker.
            InvalidError: The step holds something that cannot be stored.
        """
        self.services.step, self.services.attempt = step.name, step.attempt
        self._unwritten[step.name] = step
        if step.status != "completed":
            await self._write(None, None)

    async def flush(self) -> None:
        """Store what is recorded so far, without waiting for what follows.

        Raises:
            LostRunError: The run no longer belongs to this worker.
            InvalidError: A step holds something that cannot be stored.
        """
        if self._unwritten:
            await self._write(None, None)

    async def end(self, error: str | None, status: str | None = None) -> None:
        """Store the end of the run. Without a status it has failed if there is an error, and otherwise completed.

        Raises:
            LostRunError: The run no longer belongs to this worker.
            InvalidError: Its last step holds something that cannot be stored.
        """
        self.services.claimed.is_ending = True
        await self._write(status or ("completed" if error is None else "failed"), error)

    async def _write(self, status: str | None, error: str | None) -> None:
        claimed, steps = self.services.claimed, list(self._unwritten.values())
        self._unwritten.clear()
        checkpoint = Checkpoint(claimed.run.id, claimed.run.fence, steps, status, error)
        claimed.renewed(await self.journal.write(checkpoint))
        for step in steps:
            self.journal.metrics.stepped(step)
