"""Loops shared by the workers of both engines: repeat a job, and wake up on notifications, whatever goes wrong."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from routines_core.bulkhead import LONGEST_SECONDS, Bulkhead
from routines_core.db import connect
from routines_core.db.wakeup import wakeups
from routines_core.diagnosis import diagnose
from routines_core.lifecycle import sleep_or_stop
from routines_engine.metrics import WorkerMetrics

Job = Callable[[], Awaitable[bool]]
"""A job that a worker repeats. It returns True to be repeated at once."""


async def repeat(
    stop: asyncio.Event,
    job: Job,
    seconds: float,
    metrics: WorkerMetrics,
    *,
    name: str,
    longest_seconds: float = LONGEST_SECONDS,
) -> None:
    """Repeat a job every `seconds` until `stop` is set, whatever goes wrong with it.

    Args:
        stop: Ends the repetition.
        job: What to do.
        seconds: The delay after it.
        metrics: Counts its failures.
        name: The job's name in the log and in the metrics.
        longest_seconds: The longest delay after a failure.
    """
    bulkhead = Bulkhead(name, metrics.loop_failed, longest_seconds)
    while not stop.is_set():
        try:
            again_at_once = await job()
        except Exception as error:  # noqa: BLE001 - runs in hand go on, whatever is wrong with one job
            if diagnose(error).kind == "away":
                metrics.database_failures.inc()
            await sleep_or_stop(stop, bulkhead.failed(error))
        else:
            bulkhead.worked()
            await sleep_or_stop(stop, 0 if again_at_once else seconds)


@asynccontextmanager
async def woken(wake: asyncio.Event, database_url: str, metrics: WorkerMetrics) -> AsyncGenerator[None]:
    """Set `wake` on every wakeup notification within the block, reconnecting after each database outage."""
    listening = asyncio.create_task(_listen(wake, database_url, Bulkhead("wakeup", metrics.loop_failed)))
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.wait({listening})


async def _listen(wake: asyncio.Event, database_url: str, bulkhead: Bulkhead) -> None:
    while True:
        try:
            async with connect(database_url, "routines-worker-wakeup", role="routines_worker") as connection:
                async for _ in wakeups(connection):
                    bulkhead.worked()
                    wake.set()
        except Exception as error:  # noqa: BLE001 - without wakeups the worker polls
            await asyncio.sleep(bulkhead.failed(error))
        else:
            await asyncio.sleep(AGAIN_SECONDS)


AGAIN_SECONDS = 1.0
"""Delay before listening again after the connection has ended without an error."""


async def wait_for_wakeup(wake: asyncio.Event, seconds: float) -> bool:
    """Wait up to `seconds` for `wake` to be set. Returns whether it was."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return False
    return True
