"""Processor-heavy work of requests: off the event loop if the body is large, and within a budget of each key.

Parsing and checking a body is pure code that holds the interpreter lock. In a thread it takes turns with the event
loop; small bodies are faster without one.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeVar

from routines_api.http.errors import WorkBudgetError
from routines_core.fair_gate import FairGate

Result = TypeVar("Result")
SMALL_BYTES = 8 * 1024
"""Bodies up to this size are worked on in the event loop; the worst of them takes a few milliseconds."""
THREADS = 2
"""Number of threads for large bodies. One collection alone gets all but one."""
MOST_KEYS = 10_000
"""Maximum number of keys whose use is remembered; at the limit the table is cleared."""


@dataclass
class _Balance:
    seconds: float
    at: float


@dataclass
class Work:
    """The processor time that requests of one process spend on their bodies.

    A key starts with `seconds_per_minute` and gains as much each minute. Its balance may become negative, since
    the cost of a body is only known afterwards. Until it is positive again, the key's requests with a body are refused.

    Attributes:
        seconds_per_minute: Processor seconds per minute that one key may use.
    """

    seconds_per_minute: float
    _gate: FairGate = field(default_factory=lambda: FairGate(THREADS, reserve=1))
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "body"))
    _balances: dict[int, _Balance] = field(default_factory=dict[int, _Balance])

    async def run(
        self,
        action: Callable[[], Result],
        *,
        key_id: int,
        owner: int,
        size: int,
        place: Callable[[FairGate, int], AbstractAsyncContextManager[None]],
    ) -> Result:
        """Return the result of `action`, which works on a body of `size` bytes, and charge the key for its time.

        Args:
            action: Pure code; it runs in a thread if the body is large.
            key_id: The key that is charged.
            owner: Its collection, which shares the threads with others.
            size: Bytes of the body.
            place: Holds a place of a gate, with the errors of the HTTP layer.

        Raises:
            WorkBudgetError: The key has used up its time.
        """
        balance = self._balance(key_id)
        if balance.seconds <= 0:
            wait = -balance.seconds * 60 / self.seconds_per_minute
            raise WorkBudgetError(
                "This key has used up its processor time for checking bodies: wait for the time in Retry-After.", wait
            )
        if size <= SMALL_BYTES:
            return self._timed(action, balance)
        async with place(self._gate, owner):
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._timed, action, balance)

    def seconds_left(self, key_id: int) -> float:
        """Return the processor seconds that this key may use now."""
        return self._balance(key_id).seconds

    def close(self) -> None:
        """End the threads once they are idle; called when the process stops."""
        self._threads.shutdown(wait=False)

    def _balance(self, key_id: int) -> _Balance:
        now = time.monotonic()
        if len(self._balances) >= MOST_KEYS:
            self._balances.clear()
        balance = self._balances.setdefault(key_id, _Balance(self.seconds_per_minute, now))
        gained = (now - balance.at) * self.seconds_per_minute / 60
        balance.seconds, balance.at = min(self.seconds_per_minute, balance.seconds + gained), now
        return balance

    @staticmethod
    def _timed(action: Callable[[], Result], balance: _Balance) -> Result:
        began_at = time.thread_time()
        try:
            return action()
        finally:
            balance.seconds -= time.thread_time() - began_at
