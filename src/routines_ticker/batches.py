"""Batches of one ticker: each is one statement, and one that raises is gone through in halves."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from routines_core.db import Connection
from routines_core.db import tick as db
from routines_core.db.tick import Due, Tick
from routines_core.settings import Settings
from routines_ticker.metrics import TickerMetrics

SET_ASIDE_SECONDS = {"moment": 1.0, "routine": 60.0}
"""How long a routine is left alone whose fire met a lock, or whose strike could not even be recorded."""

log = structlog.get_logger("ticker")


@dataclass
class Batches:
    """Ticks over one connection, and the routines that these leave alone for a while.

    Attributes:
        settings: Batch size, catch-up windows and the limit of a run's parameters.
        connection: In autocommit mode.
        metrics: Told of each batch.
    """

    settings: Settings
    connection: Connection
    metrics: TickerMetrics = field(default_factory=TickerMetrics)
    _aside_until: dict[int, float] = field(default_factory=dict[int, float])

    def set_aside(self) -> list[int]:
        """The ids of the routines that are left alone now."""
        now = time.monotonic()
        self._aside_until = {routine: until for routine, until in self._aside_until.items() if until > now}
        return list(self._aside_until)

    async def warm_up(self) -> None:
        """Have the server parse and prepare the tick now, so that the first slot need not wait for it."""
        self.connection.prepare_threshold = 0
        await self._tick(only=[])

    async def tick(self) -> int:
        """One batch, the oldest slots first: how many routines it claimed."""
        try:
            return (await self._tick()).claimed
        except db.STATEMENT_FAILED as error:
            self._raise_unless_of_a_routine(error)
        return await self._isolate(
            await db.due(self.connection, batch_size=self.settings.tick_batch_size, set_aside=self.set_aside())
        )

    async def tick_in_turns(self) -> int:
        """One batch with the collections in turns: how many routines it claimed."""
        batch = await db.due_in_turns(
            self.connection, batch_size=self.settings.tick_batch_size, set_aside=self.set_aside()
        )
        try:
            return (await self._tick(only=batch)).claimed
        except db.STATEMENT_FAILED as error:
            self._raise_unless_of_a_routine(error)
        return await self._isolate(batch)

    async def _isolate(self, batch: list[Due]) -> int:
        """Tick a batch that raised in halves, so that 20 statements find one bad routine among a thousand."""
        # Raises where the statement is at odds with the schema or its rights: then no routine is to blame.
        await self._tick(only=[])
        parts = [batch]
        while parts:
            part = parts.pop()
            try:
                await self._tick(only=part)
            except db.STATEMENT_FAILED as error:
                self._raise_unless_of_a_routine(error)
                if len(part) == 1:
                    await self._strike(part[0], error)
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
        return len(batch)

    async def _strike(self, routine: Due, error: db.STATEMENT_FAILED) -> None:
        """Record that this routine's fire raised; where that is not possible, leave it alone for a while."""
        if db.blame(error) == "moment":
            self._set_aside(routine, "moment", db.cause_of(error))
            return
        try:
            await self._tick(only=[routine], fault=db.cause_of(error))
        except db.STATEMENT_FAILED as second:
            self._raise_unless_of_a_routine(second)
            self._set_aside(routine, "routine", db.cause_of(second))

    def _set_aside(self, routine: Due, blamed: str, cause: str) -> None:
        seconds = SET_ASIDE_SECONDS[blamed]
        self._aside_until[routine.id] = time.monotonic() + seconds
        self.metrics.set_aside.labels(blamed).inc()
        log.error("routine set aside", routine_id=routine.id, seconds=seconds, cause=cause)

    @staticmethod
    def _raise_unless_of_a_routine(error: db.STATEMENT_FAILED) -> None:
        if db.blame(error) == "server":
            raise error

    async def _tick(self, only: Iterable[Due] | None = None, fault: str | None = None) -> Tick:
        began_at = time.monotonic()
        done = await db.tick(
            self.connection,
            batch_size=self.settings.tick_batch_size,
            hourly_catchup_seconds=self.settings.hourly_catchup_seconds,
            catchup_seconds=self.settings.catchup_seconds,
            max_init_params_bytes=self.settings.max_init_params_bytes,
            only=only,
            set_aside=self.set_aside(),
            fault=fault,
        )
        self.metrics.ticked(done, time.monotonic() - began_at)
        if done.claimed:
            log.info("ticked", fired=done.fired, overlapped=done.overlapped, missed=done.missed,
                     max_delay_seconds=round(done.max_delay_seconds, 4))  # fmt: skip
        for routine_id in done.struck_ids:
            log.error("fire failed to start", routine_id=routine_id, paused=routine_id in done.paused_ids, cause=fault)
        return done
