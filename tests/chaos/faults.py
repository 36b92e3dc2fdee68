"""Break things: processes, connections, backends, the server. Each fault is one method; a seed says which and when."""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import psycopg

from chaos.cluster import Cluster
from chaos.fleet import Fleet, Program
from chaos.proxy import FaultProxy, Link
from support.temporal_server import TemporalServer

DEFAULT_WEIGHTS = {
    "kill_ticker": 6,
    "kill_worker": 6,
    "stop_ticker": 2,
    "stop_worker": 3,
    "freeze_ticker": 4,
    "freeze_worker": 6,
    "freeze_backend": 5,
    "terminate_backend": 8,
    "terminate_all_backends": 2,
    "cut": 8,
    "half_open": 4,
    "swallow_answers": 6,
    "delay": 4,
    "partition": 2,
    "restart_postgres": 2,
}
"""The relative frequency of each fault."""
TEMPORAL_WEIGHTS = {"kill_temporal": 3, "restart_temporal": 2, "freeze_temporal": 4}
"""The same of those that concern a Temporal server, where it is the engine."""
FREEZE_SECONDS = (3.5, 6.0)
"""Longer than both the lease and the session timeout."""

ServerAct = Callable[[TemporalServer], None]


@dataclass
class Faults:
    """Random faults from one seed, until cancelled.

    Attributes:
        per_second: The average number of faults.
        weights: The relative frequency of each kind.
        temporal: The Temporal server, where it is the engine.
    """

    cluster: Cluster
    proxy: FaultProxy
    fleet: Fleet
    rng: random.Random
    per_second: float
    weights: dict[str, int] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    temporal: TemporalServer | None = None
    done: Counter[str] = field(default_factory=Counter[str])
    _is_temporal_broken: bool = False
    _mending: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])
    _frozen_backends: set[int] = field(default_factory=set[int])

    async def run(self) -> None:
        """Cause faults until cancelled."""
        while self.weights:
            await asyncio.sleep(self.rng.expovariate(self.per_second))
            [kind] = self.rng.choices(list(self.weights), list(self.weights.values()))
            if await self._acts()[kind]():
                self.done[kind] += 1

    async def mend(self) -> None:
        """Wait until everything that was broken temporarily works again."""
        if self._mending:
            await asyncio.wait(self._mending)

    def _acts(self) -> dict[str, Callable[[], Awaitable[bool]]]:
        return {
            "kill_ticker": lambda: self._signal("ticker", signal.SIGKILL),
            "kill_worker": lambda: self._signal("worker", signal.SIGKILL),
            "stop_ticker": lambda: self._signal("ticker", signal.SIGTERM),
            "stop_worker": lambda: self._signal("worker", signal.SIGTERM),
            "freeze_ticker": lambda: self._freeze("ticker"),
            "freeze_worker": lambda: self._freeze("worker"),
            "freeze_backend": self._freeze_backend,
            "terminate_backend": self._terminate_backend,
            "terminate_all_backends": self._terminate_all_backends,
            "cut": lambda: self._with_link(self._cut),
            "half_open": lambda: self._with_link(self._half_open),
            "swallow_answers": lambda: self._with_link(self._swallow_answers),
            "delay": lambda: self._with_link(self._delay),
            "partition": self._partition,
            "restart_postgres": self._restart_postgres,
            "kill_temporal": lambda: self._break_temporal(TemporalServer.kill, TemporalServer.start, (0, 5)),
            "restart_temporal": lambda: self._break_temporal(TemporalServer.stop, TemporalServer.start, (0, 5)),
            "freeze_temporal": lambda: self._break_temporal(TemporalServer.freeze, TemporalServer.thaw, (1, 9)),
        }

    async def _break_temporal(self, breaks: ServerAct, mends: ServerAct, seconds: tuple[int, int]) -> bool:
        """Take the Temporal server away for a while; one such fault at a time."""
        if self.temporal is None or self._is_temporal_broken:
            return False
        self._is_temporal_broken = True
        self._later(self._break_and_mend(self.temporal, breaks, mends, self.rng.uniform(*seconds)))
        return True

    async def _break_and_mend(
        self, temporal: TemporalServer, breaks: ServerAct, mends: ServerAct, seconds: float
    ) -> None:
        """In one task, so that a server is mended even if the faults end while it is being broken."""
        await asyncio.to_thread(breaks, temporal)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(mends, temporal)
        self._is_temporal_broken = False

    def _later(self, mend: Awaitable[None]) -> None:
        task = asyncio.ensure_future(mend)
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)

    async def _signal(self, kind: str, number: signal.Signals) -> bool:
        programs = self.fleet.of(kind)
        if programs:
            self.rng.choice(programs).send(number)
        return bool(programs)

    async def _freeze(self, kind: str) -> bool:
        programs = self.fleet.of(kind)
        if programs:
            program = self.rng.choice(programs)
            program.frozen = True
            program.send(signal.SIGSTOP)
            self._later(self._thaw(program, self.rng.uniform(*FREEZE_SECONDS)))
        return bool(programs)

    async def _thaw(self, program: Program, seconds: float) -> None:
        process = program.process
        await asyncio.sleep(seconds)
        if program.process is process:
            program.send(signal.SIGCONT)
            program.frozen = False

    async def _backend(self) -> int | None:
        """Return the process id of a random backend of a ticker or worker, or half the time of one that is busy."""
        with contextlib.suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(self.cluster.url, autocommit=True) as connection:
                cursor = await connection.execute(
                    """SELECT pid FROM pg_stat_activity WHERE application_name IN ('routines-ticker', 'routines-worker')
                       ORDER BY state = 'active' DESC, pid"""
                )
                pids = [row[0] for row in await cursor.fetchall()]
                return pids[0] if pids and self.rng.random() < 0.5 else self.rng.choice(pids) if pids else None
        return None

    async def _freeze_backend(self) -> bool:
        """Give a server process no CPU time for a while, with luck in the middle of a statement."""
        pid = await self._backend()
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._frozen_backends.add(pid)
            self._later(self._thaw_backend(pid, self.rng.uniform(0.3, 2.5)))
        return True

    async def _thaw_backend(self, pid: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if pid in self._frozen_backends:
            self._frozen_backends.discard(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _terminate_backend(self) -> bool:
        pid = await self._backend()
        if pid is None:
            return False
        with contextlib.suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(self.cluster.url, autocommit=True) as connection:
                await connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        return True

    async def _terminate_all_backends(self) -> bool:
        """End the whole pool of every program at once, as an operator or a failover does."""
        with contextlib.suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(self.cluster.url, autocommit=True) as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'routines-%'"
                )
        return True

    async def _with_link(self, fault: Callable[[Link], Awaitable[None]]) -> bool:
        links = list(self.proxy.links)
        if links:
            await fault(self.rng.choice(links))
        return bool(links)

    async def _cut(self, link: Link) -> None:
        """Reset the connection, whatever was in transit."""
        link.cut()

    async def _half_open(self, link: Link) -> None:
        """Silence both directions, then reset: the way keepalive ends a connection whose peer has vanished."""
        link.flowing.clear()
        self._later(self._reset(link, self.rng.uniform(1, 8)))

    async def _reset(self, link: Link, seconds: float) -> None:
        await asyncio.sleep(seconds)
        link.flowing.set()
        link.cut()

    async def _swallow_answers(self, link: Link) -> None:
        """Let statements arrive and commit, but drop every answer."""
        link.swallows_answers = True
        self._later(self._reset(link, self.rng.uniform(0.5, 4)))

    async def _delay(self, link: Link) -> None:
        """Slow the line down."""
        link.delay_seconds = self.rng.uniform(0.02, 0.4)
        self._later(self._speed_up(link, self.rng.uniform(1, 5)))

    async def _speed_up(self, link: Link, seconds: float) -> None:
        await asyncio.sleep(seconds)
        link.delay_seconds = 0

    async def _partition(self) -> bool:
        """Silence every line and accept no new one; later all continue or all break."""
        links = list(self.proxy.links)
        self.proxy.accepting.clear()
        for link in links:
            link.flowing.clear()
        self._later(self._heal(links, self.rng.uniform(1, 6), breaks=self.rng.random() < 0.5))
        return True

    async def _heal(self, links: list[Link], seconds: float, *, breaks: bool) -> None:
        await asyncio.sleep(seconds)
        self.proxy.accepting.set()
        for link in links:
            link.flowing.set()
            if breaks:
                link.cut()

    async def _restart_postgres(self) -> bool:
        """Crash the server and let it recover."""
        for pid in list(self._frozen_backends):  # a stopped backend cannot quit, so the postmaster would wait for it
            await self._thaw_backend(pid, 0)
        self.cluster.crash()
        await asyncio.sleep(self.rng.uniform(0, 2))
        self.cluster.start()
        return True
