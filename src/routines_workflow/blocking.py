"""Blocking calls off the event loop, so that heartbeats go on while one of them works.

Not the loop's own executor: its threads are waited for when the program ends, and an activity that hangs would keep a
worker from stopping. These threads end with the process.
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
"""Blocking calls at once in one process; more wait, also behind one that was given up and still works."""


@dataclass(frozen=True)
class _Call:
    """A call that waits for a thread, and the future that waits for the call."""

    function: Callable[[], Any]
    outcome: "asyncio.Future[Outcome]"
    loop: asyncio.AbstractEventLoop

    def make(self) -> None:
        """Make the call, unless nobody waits for it any more."""
        if not self.outcome.cancelled():
            outcome = _outcome_of(self.function)
            with suppress(RuntimeError):  # the loop is closed by now
                self.loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


@dataclass
class DaemonThreads:
    """At most `size` threads, started as they are needed."""

    size: int = THREADS
    _calls: "SimpleQueue[_Call]" = field(default_factory=SimpleQueue)
    _started: int = 0
    _unfinished: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def run(self, function: Callable[[], Result]) -> Result:
        """What the function returns or raises, called in a thread with the caller's context variables.

        Cancelled while it waits, it is not called; cancelled later, the thread goes on and its result is dropped.
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
            del call  # an idle thread keeps nothing alive
            with self._lock:
                self._unfinished -= 1


def _outcome_of(function: Callable[[], Any]) -> Outcome:
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
        return None, error


THREADS_OF_ACTIVITIES = DaemonThreads()
"""Where activities that are plain functions run."""
