"""The loop around the tick: sleep to the next slot, claim until nothing is due, and never die of one routine."""

import asyncio
from dataclasses import dataclass

import structlog

from routines_core.db import Connection, connect
from routines_core.db import tick as db
from routines_core.db.pool import AWAY
from routines_core.db.tick import Tick
from routines_core.errors import DatabaseError
from routines_core.lifecycle import sleep_or_stop, stop_event
from routines_core.settings import Settings

STATEMENT_TIMEOUT = "30s"
"""No tick takes this long; one that does is cut and its routines are free again."""
BUSY_SECONDS = 0.02
"""How long to leave what is due to the tickers that hold it."""
RECONNECT_SECONDS = (0.1, 5.0)
"""The first and the longest wait before the database is tried again; each doubles the last."""

log = structlog.get_logger("ticker")


@dataclass(frozen=True)
class Ticker:
    """One ticker: any number of them may run against one database.

    Attributes:
        settings: Batch size and catch-up windows.
        stop: Set from outside: the batch in hand is finished, and no other is begun.
    """

    settings: Settings
    stop: asyncio.Event

    async def run(self, connection: Connection) -> None:
        """Tick until `stop` is set.

        Raises:
            psycopg.Error: The connection is lost: nothing is half done, come back with a new one.
        """
        while not self.stop.is_set():
            seconds = await db.seconds_until_due(connection)
            if seconds > 0:
                await sleep_or_stop(self.stop, seconds)
            else:
                await self.drain(connection)

    async def drain(self, connection: Connection) -> None:
        """Tick batch after batch until what is due is done or in other tickers' hands."""
        claimed = self.settings.tick_batch_size
        while claimed == self.settings.tick_batch_size and not self.stop.is_set():
            claimed = await self._batch(connection)
        if claimed == 0:
            await sleep_or_stop(self.stop, BUSY_SECONDS)

    async def _batch(self, connection: Connection) -> int:
        try:
            done = await self._tick(connection)
        except AWAY:
            raise
        except db.STATEMENT_FAILED as error:
            log.warning("batch failed, going through it one by one", error=type(error).__name__)
            return await self._one_by_one(connection)
        if done.claimed:
            log.info("ticked", fired=done.fired, overlapped=done.overlapped, missed=done.missed,
                     max_delay_seconds=round(done.max_delay_seconds, 4))  # fmt: skip
        return done.claimed

    async def _one_by_one(self, connection: Connection) -> int:
        """After a batch has failed: each routine in a statement of its own, so that the bad one is alone in failing."""
        ids = await db.due_ids(connection, batch_size=self.settings.tick_batch_size)
        for routine_id in ids:
            try:
                await self._tick(connection, only_id=routine_id)
            except AWAY:
                raise
            except db.STATEMENT_FAILED as error:
                await self._strike(connection, routine_id, db.cause_of(error))
        return len(ids)

    async def _tick(self, connection: Connection, only_id: int | None = None) -> Tick:
        return await db.tick(
            connection,
            batch_size=self.settings.tick_batch_size,
            hourly_catchup_seconds=self.settings.hourly_catchup_seconds,
            catchup_seconds=self.settings.catchup_seconds,
            only_id=only_id,
        )

    async def _strike(self, connection: Connection, routine_id: int, cause: str) -> None:
        strike = await db.record_strike(connection, routine_id=routine_id, cause=cause)
        if strike:
            log.error(
                "fire failed",
                routine_id=routine_id,
                strikes=strike.strikes,
                paused=strike.paused,
                cause=cause,
            )


async def run_ticker(settings: Settings, database_url: str) -> None:
    """Tick until SIGTERM or SIGINT, over every loss of the database."""
    ticker = Ticker(settings, stop_event())
    first_wait, longest_wait = RECONNECT_SECONDS
    wait = first_wait
    while not ticker.stop.is_set():
        try:
            # Always planned for the batch at hand: a generic plan takes LIMIT for a tenth of the table.
            async with connect(
                database_url,
                "routines-ticker",
                statement_timeout=STATEMENT_TIMEOUT,
                plan_cache_mode="force_custom_plan",
            ) as connection:
                log.info("ticking")
                wait = first_wait
                await ticker.run(connection)
        except (*AWAY, DatabaseError) as error:
            log.warning("database away, trying again", seconds=wait, error=type(error).__name__)
            await sleep_or_stop(ticker.stop, wait)
            wait = min(2 * wait, longest_wait)
    log.info("stopped")
