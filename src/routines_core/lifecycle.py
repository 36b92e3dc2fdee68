"""Starting a program, and stopping it: on SIGTERM, on SIGINT, or when the supervisor that started it is gone."""

import asyncio
import gc
import os
import signal
from collections.abc import Iterable
from typing import Any

LIFELINE_VARIABLE = "ROUTINES_LIFELINE_FD"
"""File descriptor of a pipe's read end. Only the supervisor holds the write end, so end of file means it is gone."""


def freeze_loaded() -> None:
    """Exempt what is loaded by now from garbage collection.

    Modules and their classes stay as long as the program runs. To look at them again in every full collection stops the
    event loop for about a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def stop_event() -> asyncio.Event:
    """Return an event that is set when this program should finish its current work and exit."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lifeline = os.environ.get(LIFELINE_VARIABLE)
    if lifeline:
        # The supervisor never writes, so the pipe becomes readable only when the supervisor is gone.
        loop.add_reader(int(lifeline), lambda: (loop.remove_reader(int(lifeline)), stop.set()))
    return stop


async def sleep_or_stop(stop: asyncio.Event, seconds: float) -> None:
    """Sleep for `seconds` or until `stop` is set, whichever comes first."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def wait_or_stop(stop: asyncio.Event, tasks: Iterable[asyncio.Future[Any]], seconds: float | None = None) -> None:
    """Wait until one of the tasks ends, `stop` is set, or `seconds` have passed (None: no limit); cancels no task."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, *tasks}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
