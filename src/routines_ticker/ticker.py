"""The loop around the tick: sleep to the next slot, claim until nothing is due, and never die of one routine."""

import asyncio
import time
from dataclasses import dataclass, field
from math import inf

import structlog

from routines_core.db import Connection, connect
from routines_core.db import tick as db
from routines_core.db.pool import LOST
from routines_core.errors import DatabaseError
from routines_core.lifecycle import sleep_or_stop, stop_event
from routines_core.metrics.listener import listening
from routines_core.settings import Settings
from routines_ticker.batches import Batches
from routines_ticker.metrics import TickerMetrics
from routines_ticker.snapshots import SnapshotWatch

STATEMENT_TIMEOUT = "10s"
"""No tick takes this long; one that does is cut and its routines are free again."""
LOCK_TIMEOUT = "1s"
"""How long a tick waits for a lock that is not a routine's: those it passes over."""
BUSY_SECONDS = (0.02, 1.0)
"""The first and the longest wait for tickers and people that hold what is due; each doubles the last."""
RECONNECT_SECONDS = (0.1, 5.0)
"""The first and the longest wait before the database is tried again; each doubles the last."""
TIMER_SECONDS = 0.002
"""How coarse the event loop's timer is, rounded up: the last of the way to a slot is gone without it. Where no slot is
known to come, it wakes by as much too late: too early it would ask twice."""
TURN_SECONDS = 0.5
"""How often, while a backlog lasts, a batch goes to the collections in turns."""
TURN_COST_FACTOR = 10
"""A batch in turns reads all that is due; it comes no sooner than after this many times what the last one cost."""

log = structlog.get_logger("ticker")


@dataclass
class TurnSchedule:
    """When the collections are next served in turns: a backlog has to last for a while before they are."""

    due_at: float = field(default_factory=lambda: time.monotonic() + TURN_SECONDS)

    def are_due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self.due_at

    def done(self, began_at: float) -> None:
        """Put the next ones off by what these cost."""
        ended_at = time.monotonic()
        self.due_at = ended_at + max(TURN_SECONDS, TURN_COST_FACTOR * (ended_at - began_at))


@dataclass
class Ticker:
    """One ticker: any number of them may run against one database.

    Attributes:
        settings: Batch size, catch-up windows and the limit of a run's parameters.
        stop: Set from outside: the batch in hand is finished, and no other is begun.
    """

    settings: Settings
    stop: asyncio.Event
    snapshots: SnapshotWatch = field(default_factory=SnapshotWatch)
    metrics: TickerMetrics = field(default_factory=TickerMetrics)

    def __post_init__(self) -> None:
        self.metrics.oldest_snapshot.set_function(lambda: self.snapshots.age_seconds)

    async def run(self, connection: Connection) -> None:
        """Tick until `stop` is set.

        Raises:
            psycopg.Error: The connection is lost or the database is unfit: nothing is half done, come back later.
        """
        batches = Batches(self.settings, connection, self.metrics)
        await batches.warm_up()
        busy_seconds, longest = BUSY_SECONDS
        while not self.stop.is_set():
            if await self._idle(batches) or await self.drain(batches):
                busy_seconds = BUSY_SECONDS[0]
            else:  # others hold what is due
                await self._idle(batches, beyond_due=True, at_most=busy_seconds)
                busy_seconds = min(2 * busy_seconds, longest)

    async def _idle(self, batches: Batches, *, beyond_due: bool = False, at_most: float = inf) -> bool:
        """Sleep until something comes due, and tick then: whether there was time to sleep.

        `beyond_due`: until something else does than what is due by now, and `at_most` so many seconds.
        """
        asked_at = time.monotonic()
        sleep = await db.seconds_until_due(batches.connection, set_aside=batches.set_aside(), beyond_due=beyond_due)
        # The database read its clock somewhere between the question and the answer.
        wakes_at = (asked_at + time.monotonic()) / 2 + min(sleep.seconds, at_most)
        ends_at_slot = sleep.ends_at_slot and sleep.seconds <= at_most
        if sleep.seconds > 0:
            self.metrics.succeeded()
            await self._sleep(batches.connection, wakes_at, precisely=ends_at_slot)
            if ends_at_slot:
                await self.drain(batches)
        return sleep.seconds > 0

    async def _sleep(self, connection: Connection, wakes_at: float, *, precisely: bool) -> None:
        if wakes_at - time.monotonic() > self.snapshots.takes_seconds:
            await self.snapshots.look(connection)
        early = TIMER_SECONDS if precisely else -TIMER_SECONDS
        await sleep_or_stop(self.stop, wakes_at - early - time.monotonic())
        while precisely and time.monotonic() < wakes_at and not self.stop.is_set():  # noqa: ASYNC110 - see TIMER_SECONDS
            await asyncio.sleep(0)

    async def drain(self, batches: Batches) -> int:
        """Tick until what is due is done or in other tickers' hands: how many routines were claimed."""
        claimed, turns = 0, TurnSchedule()
        while not self.stop.is_set():
            last = await batches.tick()
            claimed += last
            if last < self.settings.tick_batch_size:
                break
            if turns.are_due():
                # Here too, since a ticker that an old snapshot keeps busy is never idle.
                await self.snapshots.look(batches.connection)
                began_at = time.monotonic()
                claimed += await batches.tick_in_turns()
                turns.done(began_at)
        return claimed


async def run_ticker(settings: Settings, database_url: str) -> None:
    """Tick until SIGTERM or SIGINT, over every loss of the database."""
    ticker = Ticker(settings, stop_event())
    async with listening(settings, ticker.metrics, ticker.metrics.health):
        await _tick_on(ticker, database_url)
    log.info("stopped")


async def _tick_on(ticker: Ticker, database_url: str) -> None:
    first_wait, longest_wait = RECONNECT_SECONDS
    wait = first_wait
    while not ticker.stop.is_set():
        began_at = time.monotonic()
        try:
            await _tick_until_lost(ticker, database_url)
        except (*LOST, DatabaseError) as error:
            ticker.metrics.database_failures.inc()
            # A connection that lasted begins anew; one that fails at once is tried less and less often.
            wait = first_wait if time.monotonic() - began_at > longest_wait else min(2 * wait, longest_wait)
            log.warning("database away or unfit, trying again", seconds=wait, error=type(error).__name__)
            await sleep_or_stop(ticker.stop, wait)


async def _tick_until_lost(ticker: Ticker, database_url: str) -> None:
    # Always planned for the batch at hand: a generic plan takes LIMIT for a tenth of the table.
    async with connect(
        database_url,
        "routines-ticker",
        role="routines_ticker",
        statement_timeout=STATEMENT_TIMEOUT,
        lock_timeout=LOCK_TIMEOUT,
        plan_cache_mode="force_custom_plan",
    ) as connection:
        log.info("ticking")
        with ticker.metrics.connected():
            await ticker.run(connection)
