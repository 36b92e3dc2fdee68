"""Runs blocking calls in threads, so heartbeats continue on the event loop.

The loop's own executor would not do: a program waits for its threads when it ends, so an activity that hangs would keep
a worker from stopping. These are daemon threads, which end with the process.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")
Outcome = tuple[Any, BaseException | None]
THREADS = 32
"""Maximum number of concurrent blocking calls in a process; a call that was abandoned counts until it returns."""


@dataclass(frozen=True)
class _Call:
    """A queued call and the future for its outcome."""

    function: Callable[[], Any]
    outcome: "asyncio.Future[Outcome]"
    loop: asyncio.AbstractEventLoop

    def make(self) -> None:
        """Make the call, unless its caller was cancelled."""
        if not self.outcome.cancelled():
            outcome = _outcome_of(self.function)
            with suppress(RuntimeError):  # the loop is already closed
                self.loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


@dataclass
class DaemonThreads:
    """Up to `size` threads, started on demand."""

    size: int = THREADS
    _calls: "SimpleQueue[_Call]" = field(default_factory=SimpleQueue)
    _started: int = 0
    _unfinished: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def run(self, function: Callable[[], Result]) -> Result:
        """Call the function in a thread, with the caller's context variables, and return or raise its outcome.

        If cancelled while the call is queued, it is never made. If cancelled later, the thread continues and its result
        is dropped.
        """
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        call = _Call(lambda: context.run(function), loop.create_future(), loop)
        self._queue(call)
        result, error = await call.outcome
        if error is not None:
            raise error
        return result

    def _queue(self, call: _Call) -> None:
        self._calls.put(call)
        with self._lock:
            self._unfinished += 1
            if self._started < min(self._unfinished, self.size):
                self._started += 1
                threading.Thread(target=self._work, daemon=True, name=f"activity-{self._started}").start()

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            call.make()
            del call  # do not keep it alive while idle
            with self._lock:
                self._unfinished -= 1


def _outcome_of(function: Callable[[], Any]) -> Outcome:
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - raised again in the caller
        return None, error


THREADS_OF_ACTIVITIES = DaemonThreads()
"""The threads in which activities that are plain functions run."""
