"""The record of one run: turns what FlowWorkflow reports of its steps into journal entries."""

from dataclasses import dataclass, field

import msgspec

from routines_core.db.runs import Checkpoint
from routines_engine.runs.journal import Journal
from routines_engine.runs.services import RunServices
from routines_engine.sandbox.messages import RecordedStep


@dataclass
class Record:
    """Writes one run's steps and end to the journal.

    The end of a step is written in one statement with the start of the next step, or with the end of the run, without
    an await in between. The start of a step is written before its activity is called.

    Attributes:
        bytes: How many bytes the run's completed steps hold, as JSON.
    """

    journal: Journal
    services: RunServices
    bytes: int = 0
    _unwritten: dict[str, RecordedStep] = field(default_factory=dict[str, RecordedStep])

    async def checkpoint(self, step: RecordedStep) -> None:
        """Record the start of an attempt or a failure; it is stored on return.

        Raises:
            LostRunError: The run no longer belongs to this worker.
            InvalidError: The step holds something that cannot be stored.
        """
        self.services.step, self.services.attempt = step.name, step.attempt
        self._unwritten[step.name] = step
        await self._write(None, None)

    def completed(self, step: RecordedStep) -> None:
        """Record a completed step; it is stored with what follows."""
        self._unwritten[step.name] = step
        self.bytes += len(step.record)

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
        records = [msgspec.Raw(step.record) for step in steps]
        checkpoint = Checkpoint(claimed.run.id, claimed.run.fence, records, status, error, self.bytes)
        claimed.renewed(await self.journal.write(checkpoint))
        for step in steps:
            self.journal.metrics.stepped(step)
