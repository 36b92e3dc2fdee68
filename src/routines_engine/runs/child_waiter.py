"""Waiting for child runs, with one query for all of them however many runs of this worker wait."""

import asyncio
from dataclasses import dataclass, field

from routines_core.db import Pool, children
from routines_core.db.children import EndedChild
from routines_core.db.timeouts import within


@dataclass
class ChildWaiter:
    """The runs that wait for children, and the query that tells them when a child has ended.

    Attributes:
        pool: Connections to the database; none is held while no run waits.
        timeout_seconds: Query timeout.
        wanted: Set while any run waits.
    """

    pool: Pool
    timeout_seconds: float
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _futures: "dict[int, asyncio.Future[EndedChild]]" = field(default_factory=dict[int, "asyncio.Future[EndedChild]"])

    async def wait_for(self, child_id: int) -> EndedChild:
        """Wait until the child has ended, and return it."""
        future = self._futures.get(child_id)
        if future is None:
            future = self._futures[child_id] = asyncio.get_running_loop().create_future()
        self.wanted.set()
        return await asyncio.shield(future)

    async def look(self) -> bool:
        """Resume the runs whose child has ended. While no run waits, wait for one that does."""
        await self.wanted.wait()
        if self._futures:
            for ended in await within(self.timeout_seconds, self._ended()):
                self._futures.pop(ended.trajectory_id).set_result(ended)
        if not self._futures:
            self.wanted.clear()
        return False

    async def _ended(self) -> list[EndedChild]:
        async with self.pool.connection() as connection:
            return await children.ended(connection, list(self._futures))
