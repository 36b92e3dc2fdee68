"""The loops of a worker, whichever engine it serves: a job again and again, over every loss of the database."""

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
"""The wait before the database is tried again once it was away."""

Job = Callable[[], Awaitable[bool]]
"""Something that a worker does again and again; True: there is more to do at once."""

log = structlog.get_logger("worker")


async def repeat(stop: asyncio.Event, job: Job, seconds: float, metrics: WorkerMetrics) -> None:
    """Do a job again and again until `stop` is set; while the database is away, wait for it and count that."""
    while not stop.is_set():
        try:
            again_at_once = await job()
        except LOST as error:
            metrics.database_failures.inc()
            log.warning("database away, trying again", error=type(error).__name__)
            await sleep_or_stop(stop, RECONNECT_SECONDS)
        else:
            await sleep_or_stop(stop, 0 if again_at_once else seconds)


@asynccontextmanager
async def woken(wake: asyncio.Event, database_url: str) -> AsyncGenerator[None]:
    """Set `wake` at each notification within the block, across reconnections to the database."""
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
