"""Judges alert rules beside the runs. Any worker may do it, so alerts need no ticker."""

import asyncio
import time
from dataclasses import dataclass, field

import structlog

from routines_core.bulkhead import Bulkhead
from routines_core.db import Connection, connect
from routines_core.db.alerts import BATCH, EVERY_SECONDS, What, judge
from routines_core.lifecycle import sleep_or_stop
from routines_engine.metrics import WorkerMetrics

ROUND_SECONDS = 1.0
"""How often a worker looks which statements it may be its turn to run."""
COST_FACTOR = 20
"""A worker waits this many times as long as its last round took, if that is longer."""
LONGEST_SECONDS = 10.0
"""But no longer than this: alerts are to be told within a minute."""
STATEMENT_TIMEOUT = "60s"
"""For an outage of very many routines on a busy database."""

log = structlog.get_logger("alerts")


@dataclass
class Judge:
    """The rounds of one worker.

    Each statement is a transaction of its own in a bulkhead of its own: one that fails holds up no other, and nothing
    is lost if the worker is killed between two of them.

    Attributes:
        connection: In autocommit mode.
        stop: Ends a round early.
        metrics: Counts what the rounds do.
    """

    connection: Connection
    stop: asyncio.Event
    metrics: WorkerMetrics
    _bulkheads: dict[What, Bulkhead] = field(default_factory=dict[What, Bulkhead], init=False)
    _not_before: dict[What, float] = field(default_factory=dict[What, float], init=False)

    def __post_init__(self) -> None:
        self._bulkheads = {what: Bulkhead(f"alerts: {what}", self.metrics.loop_failed) for what in EVERY_SECONDS}

    async def run(self) -> None:
        """Make rounds until `stop` is set.

        Raises:
            Exception: The connection is lost.
        """
        while not self.stop.is_set():
            began_at = time.monotonic()
            for what in EVERY_SECONDS:
                await self._judge(what)
            took = time.monotonic() - began_at
            await sleep_or_stop(self.stop, min(max(ROUND_SECONDS, COST_FACTOR * took), LONGEST_SECONDS))

    async def _judge(self, what: What) -> None:
        """Run one statement if it is this worker's turn, and again while there is more."""
        if time.monotonic() < self._not_before.get(what, 0):
            return
        every_seconds: float | None = EVERY_SECONDS[what]
        self._not_before[what] = time.monotonic() + EVERY_SECONDS[what]
        try:
            while not self.stop.is_set():
                judged = await judge(self.connection, what, every_seconds=every_seconds)
                self.metrics.judged(judged)
                if judged.opened or judged.notices:
                    log.info("alerts judged", round=what, opened=judged.opened, notices=judged.notices)
                if judged.handled < BATCH:
                    break
                every_seconds = None
        except Exception as error:
            if self.connection.closed:
                raise
            self._not_before[what] = time.monotonic() + self._bulkheads[what].failed(error)
        else:
            self._bulkheads[what].worked()


async def run_alerts(database_url: str, stop: asyncio.Event, metrics: WorkerMetrics) -> None:
    """Judge alert rules until `stop` is set, on a connection of its own.

    Raises:
        Exception: The database is away, or the connection was lost.
    """
    async with connect(
        database_url, "routines-alerts", role="routines_worker", statement_timeout=STATEMENT_TIMEOUT
    ) as connection:
        await Judge(connection, stop, metrics).run()
