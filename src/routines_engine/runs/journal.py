"""The journal of a worker: batches what its runs have to write into one statement, and so into one commit.

While one batch is being written the next one gathers, so a checkpoint costs less the more runs the worker has claimed,
and a single checkpoint is written at once. Each entry names its run's fence: a lost run does not affect the others.
"""

import asyncio
import time
from dataclasses import dataclass, field

import msgspec
import structlog

from routines_core.db import Pool, runs
from routines_core.db.pool import LOST
from routines_core.db.runs import Checkpoint
from routines_core.db.timeouts import within
from routines_core.errors import InvalidError
from routines_engine.metrics import WorkerMetrics
from routines_engine.runs.claimed_run import LostRunError

BATCH = 200
"""Maximum number of runs that one statement writes."""
BATCH_BYTES = 4 * 1024 * 1024
"""Maximum size of the JSON that one statement writes; its first run may exceed this."""
RETRY_SECONDS = 0.2
"""Delay before sending a batch again after losing the database."""
LOCKED_SECONDS = 0.01
"""Delay before retrying a run that another session had locked, such as a claim that examined it."""

log = structlog.get_logger("journal")


@dataclass(eq=False)
class Entry:
    """A checkpoint waiting to be written.

    Attributes:
        written: Resolves to the time at which the statement that wrote it was sent, by the monotonic clock.
        size: Bytes as JSON.
        is_settled: Whether its outcome is known.
    """

    checkpoint: Checkpoint
    written: asyncio.Future[float]
    size: int
    is_settled: bool = False

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
        pool: Connections to the database; the journal uses one at a time.
        lease_seconds: How long a checkpoint renews a lease for. A third of it is the query timeout.
        metrics: Counts refused writes.
    """

    pool: Pool
    lease_seconds: float
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    _waiting: list[Entry] = field(default_factory=list[Entry])
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=lambda: _is_set(asyncio.Event()))

    async def write(self, checkpoint: Checkpoint) -> float:
        """Write a checkpoint, however long the database is unavailable.

        Cancelling the caller does not withdraw it: it is still written if the run is the worker's.

        Returns:
            When the statement that wrote it was sent, by the monotonic clock.

        Raises:
            LostRunError: The run no longer belongs to this worker, and nothing was written.
            InvalidError: It holds something that cannot be stored, and nothing was written.
        """
        size = len(msgspec.json.encode(checkpoint))
        entry = Entry(checkpoint, asyncio.get_running_loop().create_future(), size)
        self._waiting.append(entry)
        self._wanted.set()
        return await entry.written

    async def run(self) -> None:
        """Write checkpoints as they come, until cancelled."""
        while True:
            await self._wanted.wait()
            batch = self._next_batch()
            try:
                await self._send(batch)
            except LOST as error:
                self.metrics.database_failures.inc()
                log.warning("database unavailable, retrying", error=type(error).__name__)
                self._requeue([entry for entry in batch if not entry.is_settled])
                await asyncio.sleep(RETRY_SECONDS)
            if not self._waiting:
                self._wanted.clear()
                self._idle.set()

    async def settled(self) -> None:
        """Wait until everything is written."""
        if self._waiting:
            self._idle.clear()
        await self._idle.wait()

    def _next_batch(self) -> list[Entry]:
        """Take the oldest waiting entry of each run; later entries stay queued to preserve order."""
        self._idle.clear()
        batch: dict[int, Entry] = {}
        rest: list[Entry] = []
        size = 0
        for entry in self._waiting:
            fits = not batch or (len(batch) < BATCH and size + entry.size <= BATCH_BYTES)
            if fits and not rest and entry.checkpoint.id not in batch:
                batch[entry.checkpoint.id] = entry
                size += entry.size
            else:
                rest.append(entry)
        self._waiting = rest
        return list(batch.values())

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
                return await runs.still_claimed(connection, pairs)

        ours = await within(self.lease_seconds / 3, ask())
        for entry in refused:
            if entry.checkpoint.id not in ours:
                self.metrics.fenced_writes.inc()
                entry.settle(LostRunError(entry.checkpoint.id))
        locked = [entry for entry in refused if entry.checkpoint.id in ours]
        if locked:
            asyncio.get_running_loop().call_later(LOCKED_SECONDS, self._requeue, locked)


def _is_set(event: asyncio.Event) -> asyncio.Event:
    event.set()
    return event
