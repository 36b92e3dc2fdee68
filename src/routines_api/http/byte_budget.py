"""A budget of bytes that collections share for the data that a process buffers for them."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from routines_core.fair_gate import GateFullError


@dataclass
class ByteBudget:
    """Bytes that may be buffered at once. Belongs to one event loop.

    Among owners that wait, the one that holds the fewest bytes is served first; one owner's requests are served in
    order.

    Attributes:
        total: The most bytes in all.
        per_owner: The most bytes of one owner, such as a collection.
    """

    total: int
    per_owner: int
    _held: Counter[Hashable] = field(default_factory=Counter[Hashable])
    _waiting: "dict[Hashable, deque[tuple[int, asyncio.Future[None]]]]" = field(
        default_factory=dict[Hashable, "deque[tuple[int, asyncio.Future[None]]]"]
    )

    @asynccontextmanager
    async def hold(self, owner: Hashable, size: int, seconds: float) -> AsyncGenerator[None]:
        """Hold `size` bytes, waiting for them at most `seconds`. A size over the whole budget counts as all of it.

        Raises:
            GateFullError: They did not come free in time.
        """
        taken = min(size, self.total, self.per_owner)
        if taken == 0:
            yield
            return
        await self._take(owner, taken, seconds)
        try:
            yield
        finally:
            self._give_back(owner, taken)

    @property
    def in_use(self) -> int:
        """How many bytes are held."""
        return self._held.total()

    def held_by(self, owner: Hashable) -> int:
        """Return how many bytes this owner holds."""
        return self._held[owner]

    def is_spent_by(self, owner: Hashable, size: int) -> bool:
        """Check whether the owner itself holds too much for `size` bytes more."""
        return self._held[owner] + min(size, self.total, self.per_owner) > self.per_owner

    def _fits(self, owner: Hashable, size: int) -> bool:
        return self._held[owner] + size <= self.per_owner and self._held.total() + size <= self.total

    async def _take(self, owner: Hashable, size: int, seconds: float) -> None:
        if owner not in self._waiting and self._fits(owner, size):
            self._held[owner] += size
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append((size, granted))
        try:
            async with asyncio.timeout(seconds):
                await granted
        except TimeoutError:
            self._give_up(owner, size, granted)
            raise GateFullError from None
        except asyncio.CancelledError:
            self._give_up(owner, size, granted)
            raise

    def _give_up(self, owner: Hashable, size: int, granted: "asyncio.Future[None]") -> None:
        """Leave the queue, or give back bytes that were granted just now."""
        if granted.done() and not granted.cancelled():
            self._give_back(owner, size)
            return
        queue = self._waiting.get(owner)
        if queue is not None:
            self._waiting[owner] = deque(each for each in queue if each[1] is not granted)
            self._grant()

    def _give_back(self, owner: Hashable, size: int) -> None:
        self._held[owner] -= size
        if not self._held[owner]:
            del self._held[owner]
        self._grant()

    def _grant(self) -> None:
        """Grant the requests that fit, starting with the owners that hold the fewest bytes."""
        for owner in sorted(self._waiting, key=lambda each: self._held[each]):
            queue = self._waiting[owner]
            while queue and (queue[0][1].done() or self._fits(owner, queue[0][0])):
                size, granted = queue.popleft()
                if not granted.done():
                    self._held[owner] += size
                    granted.set_result(None)
            if not queue:
                del self._waiting[owner]
