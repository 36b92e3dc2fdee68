"""When a program shall stop: at SIGTERM, at SIGINT, or when the supervisor that started it is gone."""

import asyncio
import os
import signal
from collections.abc import Iterable
from typing import Any

LIFELINE_VARIABLE = "ROUTINES_LIFELINE_FD"
"""Names the read end of a pipe whose write end the supervisor alone holds: its end of file is the supervisor's."""


def stop_event() -> asyncio.Event:
    """An event that is set when this program shall finish what it has in hand and exit."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lifeline = os.environ.get(LIFELINE_VARIABLE)
    if lifeline:
        # The supervisor never writes: the pipe becomes readable only when the supervisor is gone.
        loop.add_reader(int(lifeline), lambda: (loop.remove_reader(int(lifeline)), stop.set()))
    return stop


async def sleep_or_stop(stop: asyncio.Event, seconds: float) -> None:
    """Sleep on the stop event: at most `seconds`, not a moment longer than until it is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def wait_or_stop(stop: asyncio.Event, tasks: Iterable[asyncio.Future[Any]], seconds: float | None = None) -> None:
    """Wait until one of the tasks has ended or the stop event is set; None: for however long. The tasks go on."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, *tasks}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
