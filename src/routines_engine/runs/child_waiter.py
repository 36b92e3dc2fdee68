"""Waiting for children: one question for all of them, however many runs of this worker wait."""

import asyncio
from dataclasses import dataclass, field

from routines_core.db import Pool, children
from routines_core.db.children import Ended
from routines_core.db.timeouts import within


@dataclass
class ChildWaiter:
    """Who waits for which child.

    Attributes:
        pool: Connections; none is held while nobody looks.
        patience_seconds: How long the database's answer is waited for.
        wanted: Set while anybody waits.
    """

    pool: Pool
    patience_seconds: float
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _futures: "dict[int, asyncio.Future[Ended]]" = field(default_factory=dict[int, "asyncio.Future[Ended]"])

    async def end_of(self, child_id: int) -> Ended:
        """The child, once it has ended."""
        future = self._futures.get(child_id)
        if future is None:
            future = self._futures[child_id] = asyncio.get_running_loop().create_future()
        self.wanted.set()
        return await asyncio.shield(future)

    async def look(self) -> bool:
        """Tell those whose child has ended; where nobody waits, wait until somebody does."""
        await self.wanted.wait()
        if self._futures:
            for ended in await within(self.patience_seconds, self._ended()):
                self._futures.pop(ended.trajectory_id).set_result(ended)
        if not self._futures:
            self.wanted.clear()
        return False

    async def _ended(self) -> list[Ended]:
        async with self.pool.connection() as connection:
            return await children.ended(connection, list(self._futures))
