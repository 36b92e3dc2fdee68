"""The ticker's loop: sleep until the next slot, then tick until nothing is due. One bad routine never stops it."""

import asyncio
import time
from dataclasses import dataclass, field
from math import inf

import structlog

from routines_core.banner import introduce
from routines_core.bulkhead import Bulkhead
from routines_core.db import Connection, connect
from routines_core.db import tick as db
from routines_core.db.schema import await_schema
from routines_core.diagnosis import diagnose
from routines_core.lifecycle import freeze_loaded, sleep_or_stop, stop_event
from routines_core.metrics.listener import listening
from routines_core.settings import Settings
from routines_ticker.batches import Batches
from routines_ticker.heartbeat import Heartbeat, beating
from routines_ticker.metrics import TickerMetrics
from routines_ticker.snapshots import SnapshotWatch

STATEMENT_TIMEOUT = "10s"
"""No healthy tick takes this long; a tick that does is cancelled, which frees its routines."""
LOCK_TIMEOUT = "1s"
"""How long a tick waits for locks other than those of routines, which it skips."""
BUSY_SECONDS = (0.02, 1.0)
"""First and longest delay while other sessions hold the due routines; doubles each time."""
RECONNECT_SECONDS = (0.1, 5.0)
"""First and longest delay before reconnecting; doubles each time."""
TIMER_SECONDS = 0.002
"""Resolution of the event loop's timer, rounded up. Before a slot, the ticker wakes this much early and spins for the
rest. Otherwise it wakes this much late, since waking early would cost a second query."""
TURN_SECONDS = 0.5
"""Minimum interval, during a backlog, between batches that alternate between collections."""
TURN_COST_FACTOR = 10
"""Such a batch reads everything that is due, so the next one waits this many times its duration."""

log = structlog.get_logger("ticker")


@dataclass
class TurnSchedule:
    """Decides when a batch alternates between collections; a backlog must last for a while first."""

    due_at: float = field(default_factory=lambda: time.monotonic() + TURN_SECONDS)

    def are_due(self) -> bool:
        """Return whether the next alternating batch is due."""
        return time.monotonic() >= self.due_at

    def done(self, began_at: float) -> None:
        """Schedule the next alternating batch, depending on the duration of this one."""
        ended_at = time.monotonic()
        self.due_at = ended_at + max(TURN_SECONDS, TURN_COST_FACTOR * (ended_at - began_at))


@dataclass
class Ticker:
    """One ticker; any number of them may run against one database.

    Attributes:
        settings: Batch size, catch-up windows and the size limit of a run's parameters.
        stop: Once set, the ticker finishes the current batch and starts no other.
    """

    settings: Settings
    stop: asyncio.Event
    snapshots: SnapshotWatch = field(default_factory=SnapshotWatch)
    metrics: TickerMetrics = field(default_factory=TickerMetrics)
    _seen_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.metrics.oldest_snapshot.set_function(lambda: self.snapshots.age_seconds)
        self.bulkhead = Bulkhead("tick", self.metrics.loop_failed)
        self.snapshots.bulkhead = Bulkhead("snapshots", self.metrics.loop_failed)

    async def run(self, connection: Connection) -> None:
        """Tick until `stop` is set.

        Raises:
            psycopg.Error: The connection is lost or the database is unsuitable. No batch is half done; try again later.
        """
        batches = Batches(self.settings, connection, self.metrics)
        await batches.note_outage()
        await batches.warm_up()
        self.bulkhead.worked()
        busy_seconds, longest = BUSY_SECONDS
        while not self.stop.is_set():
            if await self._await_due(batches):
                busy_seconds = BUSY_SECONDS[0]
            else:  # other sessions hold the due routines
                await self._await_due(batches, beyond_due=True, at_most=busy_seconds)
                busy_seconds = min(2 * busy_seconds, longest)

    async def _await_due(self, batches: Batches, *, beyond_due: bool = False, at_most: float = inf) -> bool:
        """Sleep until a routine comes due or a pause ends, then tick and end pauses.

        Args:
            batches: The ticker's batches.
            beyond_due: Ignore routines that are due and pauses that are over already.
            at_most: Maximum number of seconds to sleep.

        Returns:
            True if there was time to sleep, or something to do that no other session held.
        """
        asked_at = time.monotonic()
        sleep = await db.seconds_until_due(batches.connection, set_aside=batches.set_aside(), beyond_due=beyond_due)
        # The database read its clock at some time between our request and its answer.
        wakes_at = (asked_at + time.monotonic()) / 2 + min(sleep.seconds, at_most)
        ends_at_event = sleep.ends_at_event and sleep.seconds <= at_most
        if sleep.seconds > 0:
            self.metrics.succeeded()
            await self._sleep(batches.connection, wakes_at, precisely=ends_at_event)
            await self._note_gap(batches)
        done = await self.drain(batches) if ends_at_event else 0
        # After the slots that are due anyway, which should not wait for it.
        if ends_at_event and sleep.ends_pause and (resumed := await batches.resume()):
            done += resumed + await self.drain(batches)
        if sleep.has_backfill:
            await batches.expand()
        return sleep.seconds > 0 or done > 0

    async def _note_gap(self, batches: Batches) -> None:
        """Record an outage if this process did not run for a while.

        By the wall clock, which goes on while a machine is suspended. If it is set, the statement finds no outage.
        """
        seen_at, self._seen_at = self._seen_at, time.time()
        if self._seen_at - seen_at > db.OUTAGE_SECONDS:
            await batches.note_outage()

    async def _sleep(self, connection: Connection, wakes_at: float, *, precisely: bool) -> None:
        if wakes_at - time.monotonic() > self.snapshots.takes_seconds:
            await self.snapshots.look(connection)
        early = TIMER_SECONDS if precisely else -TIMER_SECONDS
        await sleep_or_stop(self.stop, wakes_at - early - time.monotonic())
        while precisely and time.monotonic() < wakes_at and not self.stop.is_set():  # noqa: ASYNC110 - see TIMER_SECONDS
            await asyncio.sleep(0)

    async def drain(self, batches: Batches) -> int:
        """Tick until nothing is due or other tickers hold the rest. Returns the number of routines claimed or resumed.

        Pauses are ended in turns with batches, so that they need not wait for the end of a backlog.
        """
        done, turns = 0, TurnSchedule()
        while not self.stop.is_set():
            last = await batches.tick()
            done += last
            if last < self.settings.tick_batch_size:
                break
            if turns.are_due():
                # Check here too: a ticker that an old snapshot keeps busy is never idle.
                await self.snapshots.look(batches.connection)
                began_at = time.monotonic()
                done += await batches.resume() + await batches.tick_in_turns()
                await batches.expand()
                turns.done(began_at)
        return done


async def run_ticker(settings: Settings, database_url: str) -> None:
    """Tick until SIGTERM or SIGINT, reconnecting whenever the database is lost.

    Raises:
        MigrationError: This version cannot work with the database's schema.
    """
    ticker = Ticker(settings, stop_event())
    freeze_loaded()
    async with listening(settings, ticker.metrics, ticker.metrics.health), ticker.metrics.loop_lag.observed():
        await await_schema(database_url, "routines-ticker", ticker.stop, role="routines_ticker")
        await introduce("ticker", settings, database_url, ticker.stop)
        url = settings.heartbeat_url
        async with beating(Heartbeat(url, database_url, ticker.metrics) if url else None, ticker.stop):
            await _tick_on(ticker, database_url)
    log.info("stopped")


async def _tick_on(ticker: Ticker, database_url: str) -> None:
    first_wait, longest_wait = RECONNECT_SECONDS
    wait = first_wait
    while not ticker.stop.is_set():
        began_at = time.monotonic()
        try:
            await _tick_until_lost(ticker, database_url)
        except Exception as error:  # noqa: BLE001 - no batch is half done, whatever went wrong
            if diagnose(error).kind == "away":
                ticker.metrics.database_failures.inc()
            ticker.bulkhead.failed(error)
            # Start over with short delays if the connection had lasted; otherwise back off.
            wait = first_wait if time.monotonic() - began_at > longest_wait else min(2 * wait, longest_wait)
            await sleep_or_stop(ticker.stop, wait)


async def _tick_until_lost(ticker: Ticker, database_url: str) -> None:
    async with connect(
        database_url,
        "routines-ticker",
        role="routines_ticker",
        statement_timeout=STATEMENT_TIMEOUT,
        lock_timeout=LOCK_TIMEOUT,
        **db.PLANNED_ONCE,
    ) as connection:
        if not ticker.bulkhead.is_in_trouble:  # otherwise it says when it ticks again
            log.info("connected")
        with ticker.metrics.connected():
            await ticker.run(connection)
