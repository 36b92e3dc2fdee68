"""Tells a watchman outside of the system that routines run on time: a request each minute, but none while one is late.

A watchman that expects the requests raises the alarm when they stop, also if every ticker, the database or the whole
machine is gone.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from routines_core.db import connect
from routines_core.db import tick as db
from routines_core.diagnosis import diagnose
from routines_core.lifecycle import sleep_or_stop
from routines_ticker.metrics import TickerMetrics

if TYPE_CHECKING:
    import httpx

BEAT_SECONDS = 60.0
"""Interval between requests."""
TIMEOUT_SECONDS = 10.0
"""How long the watchman may take to answer."""
STATEMENT_TIMEOUT = "5s"

log = structlog.get_logger("ticker")


@dataclass
class Heartbeat:
    """The requests of one ticker. Each one is decided by a session of its own, so that a tick never waits for it.

    Attributes:
        url: Gets the requests. Who knows it could send them, so the log names its host alone.
        database_url: Where to ask whether a routine is late.
        metrics: Counts what became of each request.
        is_in_trouble: Whether the last request was not taken, or the database could not be asked.
    """

    url: str
    database_url: str
    metrics: TickerMetrics
    is_in_trouble: bool = False

    async def beat(self, client: "httpx.AsyncClient") -> None:
        """Send one request unless a routine is late."""
        try:
            if await self._is_late():
                self.metrics.beat("withheld")
                return
        except Exception as error:  # noqa: BLE001 - nothing is known, so nothing is said
            self._failed(diagnose(error).cause)
            return
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await client.send(client.build_request("GET", self.url), stream=True)
                await answer.aclose()  # without its body
            fault = None if answer.is_success else f"it answered {answer.status_code}"
        except Exception as error:  # noqa: BLE001 - a hostile or broken watchman must not end the ticker
            fault = f"it did not answer: {type(error).__name__}"
        if fault:
            self._failed(fault)
            return
        self.metrics.beat("sent")
        if self.is_in_trouble:
            self.is_in_trouble = False
            log.info("heartbeat works again", host=urlsplit(self.url).hostname)

    async def _is_late(self) -> bool:
        async with connect(
            self.database_url, "routines-heartbeat", role="routines_ticker", statement_timeout=STATEMENT_TIMEOUT
        ) as connection:
            return await db.is_late(connection)

    def _failed(self, cause: str) -> None:
        self.metrics.beat("failed")
        if not self.is_in_trouble:
            self.is_in_trouble = True
            log.warning("heartbeat not sent, retrying", host=urlsplit(self.url).hostname, cause=cause)


@asynccontextmanager
async def beating(heartbeat: Heartbeat | None, stop: asyncio.Event) -> AsyncGenerator[None]:
    """Send requests within the block, until `stop` is set; none without a heartbeat."""
    if heartbeat is None:
        yield
        return
    task = asyncio.create_task(_beat_on(heartbeat, stop))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _beat_on(heartbeat: Heartbeat, stop: asyncio.Event) -> None:
    import httpx

    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
        while not stop.is_set():
            await heartbeat.beat(client)
            await sleep_or_stop(stop, BEAT_SECONDS)
