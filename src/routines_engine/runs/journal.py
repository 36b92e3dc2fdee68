"""What a worker writes of its runs: whatever waits to be written goes in one statement, and so in one commit.

While one batch is on its way the next one gathers, so that a checkpoint costs less the more runs are in hand, and a
single one is written at once. Each run has its own fence in the batch: one that was lost changes nothing for the rest.
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
"""The most runs that one statement writes."""
BATCH_BYTES = 4 * 1024 * 1024
"""The most that it holds as JSON, beyond its first run."""
RETRY_SECONDS = 0.2
"""The wait before a batch is sent again once the database was away."""
LOCKED_SECONDS = 0.01
"""The wait before a run is tried again that another session had locked, such as a claim that looked at it."""

log = structlog.get_logger("journal")


@dataclass(eq=False)
class Entry:
    """What one run waits to have written.

    Attributes:
        written: Its result is when the statement that wrote it was sent, by the monotonic clock.
        size: Bytes as JSON.
        is_settled: Whether its outcome is known.
    """

    checkpoint: Checkpoint
    written: asyncio.Future[float]
    size: int
    is_settled: bool = False

    def settle(self, outcome: float | Exception) -> None:
        """Tell whoever still waits."""
        self.is_settled = True
        if self.written.done():  # whoever waited was cancelled
            return
        if isinstance(outcome, Exception):
            self.written.set_exception(outcome)
        else:
            self.written.set_result(outcome)


@dataclass
class Journal:
    """Writes what the runs of one worker ask it to.

    Attributes:
        pool: Connections; one at a time is used.
        lease_seconds: For how long a checkpoint renews a lease; after a third of it a silent connection is given up.
        metrics: Told of writes that were refused.
    """

    pool: Pool
    lease_seconds: float
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    _waiting: list[Entry] = field(default_factory=list[Entry])
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=lambda: _is_set(asyncio.Event()))

    async def write(self, checkpoint: Checkpoint) -> float:
        """Write it, however long the database is away: when the statement that did was sent, by the monotonic clock.

        Whoever is cancelled meanwhile has written all the same, where the run is still the worker's.

        Raises:
            LostRunError: The run is no longer this worker's, and nothing was written.
            InvalidError: It holds what cannot be stored, and nothing was written.
        """
        size = len(msgspec.json.encode(checkpoint))
        entry = Entry(checkpoint, asyncio.get_running_loop().create_future(), size)
        self._waiting.append(entry)
        self._wanted.set()
        return await entry.written

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await self._wanted.wait()
            batch = self._next_batch()
            try:
                await self._send(batch)
            except LOST as error:
                self.metrics.database_failures.inc()
                log.warning("database away, trying again", error=type(error).__name__)
                self._again([entry for entry in batch if not entry.is_settled])
                await asyncio.sleep(RETRY_SECONDS)
            if not self._waiting:
                self._wanted.clear()
                self._idle.set()

    async def settled(self) -> None:
        """Wait until nothing is left to be written."""
        if self._waiting:
            self._idle.clear()
        await self._idle.wait()

    def _next_batch(self) -> list[Entry]:
        """What waits, of each run the oldest entry alone: what comes after it is written after it."""
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

    def _again(self, entries: list[Entry]) -> None:
        """Before whatever waits: the order of one run's entries stays."""
        self._waiting = [*entries, *self._waiting]
        self._wanted.set()

    async def _send(self, batch: list[Entry]) -> None:
        try:
            sent_at, written = await self._written([entry.checkpoint for entry in batch])
        except InvalidError as error:
            if len(batch) == 1:
                batch[0].settle(error)
                return
            for entry in batch:  # one of them is at fault
                await self._send([entry])
            return
        for entry in batch:
            if entry.checkpoint.id in written:
                entry.settle(sent_at)
        await self._tell_apart([entry for entry in batch if entry.checkpoint.id not in written])

    async def _written(self, checkpoints: list[Checkpoint]) -> tuple[float, set[int]]:
        async def send() -> tuple[float, set[int]]:
            async with self.pool.connection() as connection:
                sent_at = time.monotonic()
                return sent_at, await runs.write(connection, checkpoints, lease_seconds=self.lease_seconds)

        return await within(self.lease_seconds / 3, send())

    async def _tell_apart(self, refused: list[Entry]) -> None:
        """Those that are lost hear of it; those that another session has locked are tried again."""
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
            asyncio.get_running_loop().call_later(LOCKED_SECONDS, self._again, locked)


def _is_set(event: asyncio.Event) -> asyncio.Event:
    event.set()
    return event
