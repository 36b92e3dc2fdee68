"""The batches of a ticker: each is one statement, and one that fails is split in halves to find the bad routine."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from routines_core import tracing
from routines_core.db import Connection
from routines_core.db import tick as db
from routines_core.db.tick import Due, Tick
from routines_core.settings import Settings
from routines_ticker.metrics import TickerMetrics

SET_ASIDE_SECONDS = {"moment": 1.0, "routine": 60.0}
"""How long to skip a routine whose fire or resumption met a lock (`moment`), or whose strike could not be recorded, or
that could not be resumed (`routine`)."""

log = structlog.get_logger("ticker")


@dataclass
class Batches:
    """Runs ticks on one connection and remembers the routines that were set aside.

    Attributes:
        settings: Batch size, catch-up windows and the size limit of a run's parameters.
        connection: In autocommit mode.
        metrics: Updated after each batch.
    """

    settings: Settings
    connection: Connection
    metrics: TickerMetrics = field(default_factory=TickerMetrics)
    _aside_until: dict[int, float] = field(default_factory=dict[int, float])

    def set_aside(self) -> list[int]:
        """Return the ids of the routines that are set aside now."""
        now = time.monotonic()
        self._aside_until = {routine: until for routine, until in self._aside_until.items() if until > now}
        return list(self._aside_until)

    async def warm_up(self) -> None:
        """Prepare and plan the tick on the server now, so that the first slot does not wait for it."""
        self.connection.prepare_threshold = 0
        await self.tick()

    async def note_outage(self) -> None:
        """Record an outage of all tickers that ends now, if there was one."""
        try:
            began_at = await db.note_outage(self.connection)
        except db.STATEMENT_FAILED as error:  # the fires matter more
            self._raise_unless_of_a_routine(error)
            log.warning("outage not recorded", cause=db.cause_of(error))
            return
        if began_at:
            log.warning("no ticker ran while routines were due", since=began_at.isoformat())

    async def tick(self) -> int:
        """Run one batch, oldest slots first. Returns the number of routines claimed."""
        try:
            return (await self._tick()).claimed
        except db.STATEMENT_FAILED as error:
            self._raise_unless_of_a_routine(error)
        return await self._isolate(
            await db.due(self.connection, batch_size=self.settings.tick_batch_size, set_aside=self.set_aside())
        )

    async def tick_in_turns(self) -> int:
        """Run one batch that alternates between collections. Returns the number of routines claimed."""
        batch = await db.due_in_turns(
            self.connection, batch_size=self.settings.tick_batch_size, set_aside=self.set_aside()
        )
        try:
            return (await self._tick_chosen(batch)).claimed
        except db.STATEMENT_FAILED as error:
            self._raise_unless_of_a_routine(error)
        return await self._isolate(batch)

    async def resume(self) -> int:
        """End one batch of pauses that are over, alternating between collections.

        A batch that fails is retried in halves. A routine that cannot be resumed is set aside, so it delays no other.

        Returns:
            The number of routines resumed.
        """
        ids = await db.ended_pauses(
            self.connection, batch_size=self.settings.tick_batch_size, set_aside=self.set_aside()
        )
        untried, resumed = [ids] if ids else [], 0
        while untried:
            routines = untried.pop()
            try:
                resumed += await self._resume(routines)
            except db.STATEMENT_FAILED as error:
                self._raise_unless_of_a_routine(error)
                if routines is ids:  # if this fails too, the schema or the role's rights are wrong
                    await self._resume([])
                if len(routines) == 1:
                    blamed = "moment" if db.blame(error) == "moment" else "routine"
                    self._set_aside(routines[0], blamed, db.cause_of(error))
                else:
                    middle = len(routines) // 2
                    untried += [routines[middle:], routines[:middle]]
        return resumed

    async def _resume(self, routines: list[int]) -> int:
        done = await db.resume(self.connection, routines)
        if done.resumed:
            self.metrics.resumed.inc(done.resumed)
            log.info("pauses ended", routines=done.resumed, max_late_seconds=round(done.max_late_seconds, 4))
        return done.resumed

    async def expand(self) -> int:
        """Start runs of the backfills that are to be looked at. Returns the number of runs started.

        A backfill that fails waits for a minute, and shows why.
        """
        started = 0
        for backfill in await db.open_backfills(self.connection):
            try:
                started += await db.expand_backfill(self.connection, backfill)
            except db.STATEMENT_FAILED as error:
                self._raise_unless_of_a_routine(error)
                blamed = "moment" if db.blame(error) == "moment" else "routine"
                seconds, cause = SET_ASIDE_SECONDS[blamed], db.cause_of(error)
                log.error("backfill held", backfill_id=backfill, seconds=seconds, cause=cause)  # noqa: TRY400 - no traceback
                await db.hold_backfill(self.connection, backfill, cause=cause, seconds=seconds)
        if started:
            self.metrics.backfill_runs.inc(started)
            log.info("backfills expanded", runs=started)
        return started

    async def _isolate(self, batch: list[Due]) -> int:
        """Tick a failed batch in halves; about 20 statements find one bad routine among a thousand."""
        # If the empty tick fails too, the schema or the role's rights are wrong and no routine is to blame.
        await self._tick_chosen([])
        untried = [batch]
        while untried:
            routines = untried.pop()
            try:
                await self._tick_chosen(routines)
            except db.STATEMENT_FAILED as error:
                self._raise_unless_of_a_routine(error)
                if len(routines) == 1:
                    await self._strike(routines[0], error)
                else:
                    middle = len(routines) // 2
                    untried += [routines[middle:], routines[:middle]]
        return len(batch)

    async def _strike(self, routine: Due, error: db.StatementFailure) -> None:
        """Record a strike against this routine; if that fails or a lock was to blame, set the routine aside."""
        if db.blame(error) == "moment":
            self._set_aside(routine.id, "moment", db.cause_of(error))
            return
        try:
            await self._tick_chosen([routine], fault=db.cause_of(error))
        except db.STATEMENT_FAILED as second:
            self._raise_unless_of_a_routine(second)
            self._set_aside(routine.id, "routine", db.cause_of(second))

    def _set_aside(self, routine_id: int, blamed: str, cause: str) -> None:
        seconds = SET_ASIDE_SECONDS[blamed]
        self._aside_until[routine_id] = time.monotonic() + seconds
        self.metrics.set_aside.labels(blamed).inc()
        log.error("routine set aside", routine_id=routine_id, seconds=seconds, cause=cause)

    @staticmethod
    def _raise_unless_of_a_routine(error: db.StatementFailure) -> None:
        if db.blame(error) == "server":
            raise error

    async def _tick_chosen(self, only: Iterable[Due], fault: str | None = None) -> Tick:
        async with db.planned_anew(self.connection):
            return await self._tick(only, fault)

    async def _tick(self, only: Iterable[Due] | None = None, fault: str | None = None) -> Tick:
        began_at = time.monotonic()
        tracer = tracing.tracer()
        span = tracer.begin("tick") if tracer else None
        done = await db.tick(
            self.connection,
            batch_size=self.settings.tick_batch_size,
            hourly_catchup_seconds=self.settings.hourly_catchup_seconds,
            catchup_seconds=self.settings.catchup_seconds,
            max_init_params_bytes=self.settings.max_init_params_bytes,
            only=only,
            set_aside=self.set_aside(),
            fault=fault,
            traceparent=span.ref.traceparent if span else None,
        )
        if span and done.claimed:  # a tick that found nothing is not recorded
            span.end({"routines.claimed": done.claimed, "routines.fired": done.fired})
        self.metrics.ticked(done, time.monotonic() - began_at)
        if done.claimed:
            log.info("ticked", fired=done.fired, overlapped=done.overlapped, missed=done.missed,
                     max_delay_seconds=round(done.max_delay_seconds, 4))  # fmt: skip
        for routine_id in done.struck_ids:
            log.error("fire failed to start", routine_id=routine_id, paused=routine_id in done.paused_ids, cause=fault)
        return done
