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
    _futures: "dict[int, list[asyncio.Future[EndedChild]]]" = field(
        default_factory=dict[int, "list[asyncio.Future[EndedChild]]"]
    )

    def ended(self, child_id: int) -> "asyncio.Future[EndedChild]":
        """Return a future that is done once the child has ended. Cancel it to stop waiting."""
        future: asyncio.Future[EndedChild] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(child_id, []).append(future)
        self.wanted.set()
        return future

    async def look(self) -> bool:
        """Resume the runs whose child has ended. While no run waits, wait for one that does."""
        await self.wanted.wait()
        self._forget_abandoned()
        if self._futures:
            for ended in await within(self.timeout_seconds, self._ended()):
                for future in self._futures.pop(ended.trajectory_id):
                    if not future.done():
                        future.set_result(ended)
        if not self._futures:
            self.wanted.clear()
        return False

    def _forget_abandoned(self) -> None:
        abandoned = [child_id for child_id, futures in self._futures.items() if all(each.done() for each in futures)]
        for child_id in abandoned:
            del self._futures[child_id]

    async def _ended(self) -> list[EndedChild]:
        async with self.pool.connection() as connection:
            return await children.ended(connection, list(self._futures))
