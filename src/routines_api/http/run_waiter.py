"""Waiting for the end of runs: one poll serves every request of the process that waits."""

import asyncio
from dataclasses import dataclass, field

import structlog

from routines_core.db import Pool
from routines_core.db.pool import AWAY
from routines_core.db.trajectories import ended_runs

POLL_SECONDS = 0.05
"""How often it is asked which runs have ended, while anybody waits; nothing is asked while nobody does."""
AWAY_SECONDS = 1.0
"""The wait before the database is asked again once it was away."""

log = structlog.get_logger("api")


@dataclass
class RunWaiter:
    """The runs whose end requests of one process wait for.

    Attributes:
        seats: How many requests may wait at once.
    """

    seats: int
    _waiting: dict[int, list[asyncio.Future[bool]]] = field(default_factory=dict[int, "list[asyncio.Future[bool]]"])
    _poll: "asyncio.Task[None] | None" = None
    _is_closed: bool = False

    async def wait(self, pool: Pool, trajectory_id: int, seconds: float) -> bool:
        """Whether the run has ended, at most `seconds` from now; False at once where no seat is free."""
        if self._is_closed or sum(map(len, self._waiting.values())) >= self.seats:
            return False
        ended = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(trajectory_id, []).append(ended)
        if self._poll is None:
            self._poll = asyncio.create_task(self._ask(pool))
        try:
            async with asyncio.timeout(seconds):
                return await ended
        except TimeoutError:
            return False
        finally:
            self._leave(trajectory_id, ended)

    def close(self) -> None:
        """Let everybody go, and nobody wait any more: the process stops."""
        self._is_closed = True
        self._tell(list(self._waiting), has_ended=False)

    def _leave(self, trajectory_id: int, ended: "asyncio.Future[bool]") -> None:
        others = [each for each in self._waiting.get(trajectory_id, []) if each is not ended]
        if others:
            self._waiting[trajectory_id] = others
        else:
            self._waiting.pop(trajectory_id, None)

    def _tell(self, trajectory_ids: list[int], *, has_ended: bool) -> None:
        for trajectory_id in trajectory_ids:
            for ended in self._waiting.pop(trajectory_id, []):
                if not ended.done():
                    ended.set_result(has_ended)

    async def _ask(self, pool: Pool) -> None:
        try:
            while self._waiting:  # noqa: ASYNC110 - what is waited for is in the database
                await asyncio.sleep(await self._ask_once(pool))
        finally:
            self._poll = None

    async def _ask_once(self, pool: Pool) -> float:
        """Ask, and tell whom it concerns: the seconds until it is to be asked again."""
        try:
            async with pool.connection() as connection:
                self._tell(list(await ended_runs(connection, list(self._waiting))), has_ended=True)
        except AWAY as error:
            log.warning("database away, trying again", error=type(error).__name__)
            return AWAY_SECONDS
        return POLL_SECONDS
