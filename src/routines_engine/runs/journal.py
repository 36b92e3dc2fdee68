"""The journal of a worker: batches what its runs have to write into one statement, and so into one commit.

While one batch is being written the next one gathers, so a checkpoint costs less the more runs the worker has claimed,
and a single checkpoint is written at once. Each entry names its run's fence: a lost run does not affect the others.
"""

import asyncio
import time
from dataclasses import dataclass, field
from functools import cached_property

from routines_core.bulkhead import Bulkhead
from routines_core.db import Pool, runs
from routines_core.db.runs import Checkpoint
from routines_core.db.timeouts import within
from routines_core.diagnosis import diagnose
from routines_core.errors import InvalidError
from routines_engine.metrics import WorkerMetrics
from routines_engine.runs.claimed_run import LostRunError

BATCH = 200
"""Maximum number of runs that one statement writes."""
BATCH_BYTES = 4 * 1024 * 1024
"""Maximum size of the JSON that one statement writes; its first run may exceed this."""
LARGE_BYTES = 64 * 1024
"""An entry of more than this size is written apart from the small ones."""
RETRY_SECONDS = 0.2
"""Delay before sending a batch again after losing the database."""
LONGEST_RETRY_SECONDS = 2.0
"""The longest delay before sending it again after the database refused it."""
WRITERS = 2
"""How many batches are written at once: while the answer to one is handled, Postgres writes the other."""
LOCKED_SECONDS = 0.01
"""Delay before retrying a run that another session had locked, such as a claim that examined it."""


@dataclass(eq=False)
class Entry:
    """A checkpoint waiting to be written.

    Attributes:
        written: Resolves to the time at which the statement that wrote it was sent, by the monotonic clock.
        size: Roughly its bytes as JSON.
        is_settled: Whether its outcome is known.
    """

    checkpoint: Checkpoint
    written: asyncio.Future[float]
    size: int
    is_settled: bool = False

    @property
    def is_large(self) -> bool:
        """Whether it takes Postgres so long that others should not wait for it."""
        return self.size > LARGE_BYTES

    def settle(self, outcome: float | Exception) -> None:
        """Set the outcome, unless the run that waited for it was cancelled."""
        self.is_settled = True
        if self.written.done():
            return
        if isinstance(outcome, Exception):
            self.written.set_exception(outcome)
        else:
            self.written.set_result(outcome)


@dataclass
class Journal:
    """Writes the checkpoints of one worker's runs.

    Attributes:
        pool: Connections to the database; the journal uses up to WRITERS of them.
        lease_seconds: How long a checkpoint renews a lease for. A third of it is the query timeout.
        metrics: Counts refused writes.
    """

    pool: Pool
    lease_seconds: float
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    _waiting: list[Entry] = field(default_factory=list[Entry])
    _being_written: set[int] = field(default_factory=set[int])
    _is_writing_large: bool = False
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=lambda: _is_set(asyncio.Event()))

    def write(self, checkpoint: Checkpoint, *, size: int = 0) -> asyncio.Future[float]:
        """Write a checkpoint, however long the database is unavailable.

        Cancelling the future does not withdraw it: it is still written if the run is the worker's.

        Args:
            checkpoint: What to write.
            size: Roughly its size in bytes, as JSON.

        Returns:
            A future of when the statement that wrote it was sent, by the monotonic clock. It raises LostRunError if the
            run no longer belongs to this worker, and InvalidError if it holds something that cannot be stored; nothing
            was written then.
        """
        entry = Entry(checkpoint, self._loop.create_future(), size)
        self._waiting.append(entry)
        self._wanted.set()
        return entry.written

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()  # kept, because to ask for it costs a system call (Python 3.11)

    async def run(self) -> None:
        """Write checkpoints as they come, until cancelled."""
        async with asyncio.TaskGroup() as writers:
            for _ in range(WRITERS):
                writers.create_task(self._write_batches())

    async def _write_batches(self) -> None:
        while True:
            await self._wanted.wait()
            batch = self._next_batch()
            if not batch:  # the other writer has all runs that wait
                self._wanted.clear()
                continue
            runs_of_batch, is_large = {entry.checkpoint.id for entry in batch}, batch[0].is_large
            self._being_written |= runs_of_batch
            self._is_writing_large |= is_large
            try:
                await self._send(batch)
            except Exception as error:  # noqa: BLE001 - what runs have done is written once it can be
                await self._wait_after(error)
                self._requeue([entry for entry in batch if not entry.is_settled])
            else:
                self._bulkhead.worked()
            finally:
                self._being_written -= runs_of_batch
                self._is_writing_large &= not is_large
            if self._waiting:
                self._wanted.set()
            else:
                self._wanted.clear()
                if not self._being_written:
                    self._idle.set()

    async def _wait_after(self, error: Exception) -> None:
        if diagnose(error).kind == "away":
            self.metrics.database_failures.inc()
        await asyncio.sleep(self._bulkhead.failed(error))

    @cached_property
    def _bulkhead(self) -> Bulkhead:
        return Bulkhead("journal", self.metrics.loop_failed, LONGEST_RETRY_SECONDS, RETRY_SECONDS)

    async def settled(self) -> None:
        """Wait until everything is written."""
        if self._waiting or self._being_written:
            self._idle.clear()
        await self._idle.wait()

    def _next_batch(self) -> list[Entry]:
        """Take the oldest waiting entry of each run that is not being written; the others stay queued, in order.

        Large entries are taken by themselves, by one writer at a time: they take Postgres long, and small ones of other
        runs must not wait for them.
        """
        self._idle.clear()
        batch: list[Entry] = []
        rest: list[Entry] = []
        passed = set(self._being_written)
        size = 0
        for entry in self._waiting:
            is_free = entry.checkpoint.id not in passed
            passed.add(entry.checkpoint.id)
            is_allowed = not (entry.is_large and self._is_writing_large) and (
                not batch
                or (entry.is_large == batch[0].is_large and len(batch) < BATCH and size + entry.size <= BATCH_BYTES)
            )
            if is_free and is_allowed:
                batch.append(entry)
                size += entry.size
            else:
                rest.append(entry)
        self._waiting = rest
        return batch

    def _requeue(self, entries: list[Entry]) -> None:
        """Put entries back at the head of the queue, which preserves the order of each run's entries."""
        self._waiting = [*entries, *self._waiting]
        self._wanted.set()

    async def _send(self, batch: list[Entry]) -> None:
        try:
            sent_at, written = await self._written([entry.checkpoint for entry in batch])
        except InvalidError as error:
            if len(batch) == 1:
                batch[0].settle(error)
                return
            for entry in batch:  # one at a time, to find the one at fault
                await self._send([entry])
            return
        for entry in batch:
            if entry.checkpoint.id in written:
                entry.settle(sent_at)
        await self._settle_refused([entry for entry in batch if entry.checkpoint.id not in written])

    async def _written(self, checkpoints: list[Checkpoint]) -> tuple[float, set[int]]:
        """Write the checkpoints. Returns when the statement was sent, and the ids of the runs it wrote."""

        async def send() -> tuple[float, set[int]]:
            async with self.pool.connection() as connection:
                sent_at = time.monotonic()
                return sent_at, await runs.write(connection, checkpoints, lease_seconds=self.lease_seconds)

        return await within(self.lease_seconds / 3, send())

    async def _settle_refused(self, refused: list[Entry]) -> None:
        """Report the lost runs among the refused entries, and retry those that another session had locked."""
        if not refused:
            return

        async def ask() -> set[int]:
            async with self.pool.connection() as connection:
                pairs = [(entry.checkpoint.id, entry.checkpoint.fence) for entry in refused]
                return set(await runs.still_claimed(connection, pairs))

        ours = await within(self.lease_seconds / 3, ask())
        for entry in refused:
            if entry.checkpoint.id not in ours:
                self.metrics.fenced_writes.inc()
                entry.settle(LostRunError(entry.checkpoint.id))
        locked = [entry for entry in refused if entry.checkpoint.id in ours]
        if locked:
            self._loop.call_later(LOCKED_SECONDS, self._requeue, locked)


def _is_set(event: asyncio.Event) -> asyncio.Event:
    event.set()
    return event
