"""A gate that shares a bounded number of places between collections.

One collection alone may hold all places except the reserve. A place of the reserve goes only to a collection that holds
none, so a collection with many places never keeps out one without any. Among those that wait, the one with the fewest
places is served first.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_Queue = OrderedDict["asyncio.Future[None]", None]
"""What waits for a place, in order. Unlike a deque it also drops one from its middle in constant time."""


class GateFullError(Exception):
    """No place became free in time, or too many are already waiting."""


@dataclass
class FairGate:
    """Places shared between owners, such as collections. Belongs to one event loop.

    Attributes:
        size: How many places there are, the reserve included.
        reserve: How many of them are kept for owners that hold fewer than `few`.
        most_waiting: How many of one owner may wait at once; one more is refused at once.
        few: An owner may use the reserve while it holds fewer places than this; 1 leaves it to those that hold none.
    """

    size: int
    reserve: int
    most_waiting: int = 1_000_000
    few: int = 1
    _held: Counter[Hashable] = field(default_factory=Counter[Hashable])
    _waiting: "dict[Hashable, _Queue]" = field(default_factory=dict[Hashable, "_Queue"])

    @asynccontextmanager
    async def place(self, owner: Hashable, seconds: float | None = None) -> AsyncGenerator[None]:
        """Hold a place for as long as the block runs; arguments and errors are as in `enter`."""
        await self.enter(owner, seconds)
        try:
            yield
        finally:
            self.leave(owner)

    async def enter(self, owner: Hashable, seconds: float | None = None) -> None:
        """Take a place, waiting for one at most `seconds`, None: without limit; `leave` gives it back.

        Raises:
            GateFullError: No place came free in time, or too many of this owner wait.
        """
        if self.try_enter(owner):
            return
        queue = self._waiting.setdefault(owner, _Queue())
        if len(queue) >= self.most_waiting:
            self._forget_empty(owner)
            raise GateFullError
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue[admitted] = None
        try:
            async with asyncio.timeout(seconds):
                await admitted
        except TimeoutError:
            self._give_up(owner, admitted)
            raise GateFullError from None
        except asyncio.CancelledError:
            self._give_up(owner, admitted)
            raise

    def try_enter(self, owner: Hashable) -> bool:
        """Take a place if one is free now; `leave` gives it back."""
        if owner in self._waiting or not self._admits(owner):
            return False
        self._held[owner] += 1
        return True

    def leave(self, owner: Hashable) -> None:
        """Give back a place that `enter` or `try_enter` took."""
        self._held[owner] -= 1
        if self._held[owner] <= 0:
            del self._held[owner]
        self._admit_next()

    @property
    def in_use(self) -> int:
        """How many places are held."""
        return self._held.total()

    def held_by(self, owner: Hashable) -> int:
        """Return how many places this owner holds."""
        return self._held[owner]

    def _admits(self, owner: Hashable) -> bool:
        free = self.size - self._held.total()
        return free > (self.reserve if self._held[owner] >= self.few else 0)

    def _give_up(self, owner: Hashable, admitted: "asyncio.Future[None]") -> None:
        """Leave the queue; a place that was granted just now goes to the next owner."""
        if admitted.done() and not admitted.cancelled():
            self.leave(owner)
            return
        if owner in self._waiting:
            self._waiting[owner].pop(admitted, None)
        self._forget_empty(owner)

    def _admit_next(self) -> None:
        """Grant free places: to the owner with the fewest, and among equals to the one that has waited longest."""
        while self._waiting:
            owner = min(self._waiting, key=lambda each: self._held[each])
            if not self._admits(owner):
                return
            admitted, _ = self._waiting[owner].popitem(last=False)
            # To the end of the order, so that equals take turns.
            rest = self._waiting.pop(owner)
            if rest:
                self._waiting[owner] = rest
            if not admitted.done():
                self._held[owner] += 1
                admitted.set_result(None)

    def _forget_empty(self, owner: Hashable) -> None:
        if owner in self._waiting and not self._waiting[owner]:
            del self._waiting[owner]
