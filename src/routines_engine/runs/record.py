"""The record of one run: turns what FlowWorkflow reports of its steps into journal entries."""

import asyncio
from dataclasses import dataclass, field
from functools import partial

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

    def begun(self, step: RecordedStep) -> asyncio.Future[float]:
        """Record the start of an attempt or a failure.

        Returns:
            A future that is done once it is stored. It raises LostRunError if the run no longer belongs to this worker,
            and InvalidError if the step holds something that cannot be stored.
        """
        self.services.step, self.services.attempt = step.name, step.attempt
        self._unwritten[step.name] = step
        if trace := self.services.claimed.trace:
            trace.begun(step)
        return self._write(None, None)

    def completed(self, step: RecordedStep) -> None:
        """Record a completed step; it is stored with what follows."""
        self._unwritten[step.name] = step
        self.bytes += len(step.record)
        if trace := self.services.claimed.trace:
            trace.completed(step)

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

    def _write(self, status: str | None, error: str | None) -> asyncio.Future[float]:
        claimed, steps = self.services.claimed, list(self._unwritten.values())
        self._unwritten.clear()
        records = [msgspec.Raw(step.record) for step in steps]
        written = self.journal.write(
            Checkpoint(claimed.run.id, claimed.run.fence, records, status, error, self.bytes),
            size=sum(len(step.record) for step in steps),
        )
        written.add_done_callback(partial(self._written, steps))
        return written

    def _written(self, steps: list[RecordedStep], written: asyncio.Future[float]) -> None:
        if written.cancelled() or written.exception() is not None:
            return
        self.services.claimed.renewed(written.result())
        for step in steps:
            self.journal.metrics.stepped(step)
