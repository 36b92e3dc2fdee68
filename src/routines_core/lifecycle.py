"""Starting a program, and stopping it: on a signal, or when the supervisor that started it is gone."""

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from routines_core.early import IGNORED, STOPPING

LIFELINE_VARIABLE = "ROUTINES_LIFELINE_FD"
"""File descriptor of a pipe's read end. Only the supervisor holds the write end, so end of file means it is gone."""

MOST_FILES = 1_048_576
"""As many descriptors as a program asks for; some systems allow a billion, which is slow to go through."""


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one. Returns the limit that applies.

    Every run and every request has connections of its own, and 1024 of them are few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def freeze_loaded() -> None:
    """Exempt what is loaded by now from garbage collection.

    Modules and their classes stay as long as the program runs. To look at them again in every full collection stops the
    event loop for about a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def stop_event() -> asyncio.Event:
    """Return an event that is set when this program should finish its current work and exit.

    A second signal changes nothing, and one that means nothing to the program is ignored: neither kills it while runs
    are in hand.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop.set)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    lifeline = os.environ.get(LIFELINE_VARIABLE)
    if lifeline:
        # The supervisor never writes, so the pipe becomes readable only when the supervisor is gone.
        loop.add_reader(int(lifeline), lambda: (loop.remove_reader(int(lifeline)), stop.set()))
    return stop


def finish() -> None:
    """Ignore further signals: the program has finished its work, and its event loop is about to close."""
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


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
