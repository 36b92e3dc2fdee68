"""Waiting for runs to end: a single poll serves all waiting requests of a process."""

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field

from routines_core.bulkhead import Bulkhead
from routines_core.db import Pool
from routines_core.db.trajectories import ended_runs
from routines_core.fair_gate import FairGate

POLL_SECONDS = 0.05
"""The poll interval while requests are waiting; without them there is no polling."""


@dataclass
class RunWaiter:
    """The requests of one process that wait for runs to end.

    Attributes:
        seats: Shares the seats between collections.
        bulkhead: Notes that the database cannot be asked.
    """

    seats: FairGate
    bulkhead: Bulkhead = field(default_factory=lambda: Bulkhead("run_waiter"))
    _waiting: dict[int, list[asyncio.Future[bool]]] = field(default_factory=dict[int, "list[asyncio.Future[bool]]"])
    _poll: "asyncio.Task[None] | None" = None
    _is_closed: bool = False

    async def wait(self, pool: Pool, owner: Hashable, trajectory_id: int, seconds: float) -> bool:
        """Wait for a run of a collection to end, for at most `seconds`.

        Returns:
            Whether it ended in time; False at once if no seat is free for this collection.
        """
        if self._is_closed or not self.seats.try_enter(owner):
            return False
        try:
            return await self._wait(pool, trajectory_id, seconds)
        finally:
            self.seats.leave(owner)

    def close(self) -> None:
        """Release all waiters and reject new ones; called at shutdown."""
        self._is_closed = True
        self._release(list(self._waiting), has_ended=False)

    async def _wait(self, pool: Pool, trajectory_id: int, seconds: float) -> bool:
        ended = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(trajectory_id, []).append(ended)
        if self._poll is None:
            self._poll = asyncio.create_task(self._poll_until_idle(pool))
        try:
            async with asyncio.timeout(seconds):
                return await ended
        except TimeoutError:
            return False
        finally:
            self._leave(trajectory_id, ended)

    def _leave(self, trajectory_id: int, ended: "asyncio.Future[bool]") -> None:
        others = [each for each in self._waiting.get(trajectory_id, []) if each is not ended]
        if others:
            self._waiting[trajectory_id] = others
        else:
            self._waiting.pop(trajectory_id, None)

    def _release(self, trajectory_ids: list[int], *, has_ended: bool) -> None:
        for trajectory_id in trajectory_ids:
            for ended in self._waiting.pop(trajectory_id, []):
                if not ended.done():
                    ended.set_result(has_ended)

    async def _poll_until_idle(self, pool: Pool) -> None:
        try:
            while self._waiting:  # noqa: ASYNC110 - the event happens in the database
                await asyncio.sleep(await self._poll_once(pool))
        finally:
            self._poll = None

    async def _poll_once(self, pool: Pool) -> float:
        """Ask the database which runs have ended, and release their waiters. Returns the seconds to the next poll."""
        try:
            async with pool.connection() as connection:
                self._release(list(await ended_runs(connection, list(self._waiting))), has_ended=True)
        except Exception as error:  # noqa: BLE001 - those who wait are answered 202 in time
            return self.bulkhead.failed(error)
        self.bulkhead.worked()
        return POLL_SECONDS
