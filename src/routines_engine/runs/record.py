"""The record of one run: what FlowWorkflow tells of its steps, as it is stored."""

from dataclasses import dataclass, field

from routines_core.db.runs import Checkpoint, StepRecord
from routines_engine.runs.journal import Journal
from routines_engine.runs.services import RunServices


@dataclass
class Record:
    """Keeps the journal of one run.

    The end of a step is written together with the start of the next one, or with the end of the run: one statement for
    both, and nothing is awaited between them. The start of a step is written before its activity is called.
    """

    journal: Journal
    services: RunServices
    _finished: dict[str, StepRecord] = field(default_factory=dict[str, StepRecord])

    async def checkpoint(self, step: StepRecord) -> None:
        """Take note of a step; on return its start, and its failure, are stored.

        Raises:
            LostRunError: The run is no longer this worker's.
            InvalidError: It holds what cannot be stored.
        """
        self.services.step, self.services.attempt = step.name, step.attempt
        self._finished[step.name] = step
        if step.status != "completed":
            await self._write(None, None)

    async def flush(self) -> None:
        """Store what is noted, without waiting for what comes after it.

        Raises:
            LostRunError: The run is no longer this worker's.
            InvalidError: It holds what cannot be stored.
        """
        if self._finished:
            await self._write(None, None)

    async def end(self, error: str | None, status: str | None = None) -> None:
        """Store the end of the run: where no status is given, completed, or failed where there is an error.

        Raises:
            LostRunError: The run is no longer this worker's.
        """
        self.services.held.ends = True
        await self._write(status or ("completed" if error is None else "failed"), error)

    async def _write(self, status: str | None, error: str | None) -> None:
        run, steps = self.services.held.run, list(self._finished.values())
        self._finished.clear()
        checkpoint = Checkpoint(run.id, run.fence, steps, status, error)
        self.services.held.renewed(await self.journal.write(checkpoint))
        for step in steps:
            self.journal.metrics.stepped(step)
