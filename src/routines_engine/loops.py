"""Loops shared by the workers of both engines: repeat a job, and wake up on notifications, across database outages."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from routines_core.db import connect
from routines_core.db.pool import LOST
from routines_core.db.wakeup import wakeups
from routines_core.errors import DatabaseError
from routines_core.lifecycle import sleep_or_stop
from routines_engine.metrics import WorkerMetrics

RECONNECT_SECONDS = 1.0
"""Delay before trying the database again after losing it."""

Job = Callable[[], Awaitable[bool]]
"""A job that a worker repeats. It returns True to be repeated at once."""

log = structlog.get_logger("worker")


async def repeat(stop: asyncio.Event, job: Job, seconds: float, metrics: WorkerMetrics) -> None:
    """Repeat a job every `seconds` until `stop` is set. Database outages are counted and waited out."""
    while not stop.is_set():
        try:
            again_at_once = await job()
        except LOST as error:
            metrics.database_failures.inc()
            log.warning("database unavailable, retrying", error=type(error).__name__)
            await sleep_or_stop(stop, RECONNECT_SECONDS)
        else:
            await sleep_or_stop(stop, 0 if again_at_once else seconds)


@asynccontextmanager
async def woken(wake: asyncio.Event, database_url: str) -> AsyncGenerator[None]:
    """Set `wake` on every wakeup notification within the block, reconnecting after each database outage."""
    listening = asyncio.create_task(_listen(wake, database_url))
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.wait({listening})


async def _listen(wake: asyncio.Event, database_url: str) -> None:
    while True:
        with contextlib.suppress(*LOST, DatabaseError):
            async with connect(database_url, "routines-worker-wakeup", role="routines_worker") as connection:
                async for _ in wakeups(connection):
                    wake.set()
        await asyncio.sleep(RECONNECT_SECONDS)


async def wait_for_wakeup(wake: asyncio.Event, seconds: float) -> bool:
    """Wait up to `seconds` for `wake` to be set. Returns whether it was."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return False
    return True
