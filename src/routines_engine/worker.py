"""The worker: claims pending runs, runs FlowWorkflow for each, and keeps or gives back what it holds."""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from routines_core.db import Pool, open_pool, runs
from routines_core.db.pool import AWAY
from routines_core.db.runs import Claim, StepRecord
from routines_core.errors import RoutinesError
from routines_core.lifecycle import sleep_or_stop, stop_event
from routines_core.settings import Settings
from routines_engine.flow import FlowWorkflow
from routines_engine.services import RunServices

POLL_SECONDS = 0.1
"""How long an idle worker waits before it looks for pending runs again."""
REAP_SECONDS = 1.0
"""How often lost and late runs are looked for."""
RECONNECT_SECONDS = 1.0
"""The wait before the database is tried again once it was away."""
TRUST_SHARE = 0.8
"""How much of a lease a worker relies on; the rest covers a busy event loop and clocks that run at different speeds."""
HANG_UP_SECONDS = 0.1
"""How long a renewal that was given up may take to end in order."""
CONNECTIONS = 4
"""A worker's connections: no run holds one while its step works."""

Job = Callable[[], Awaitable[bool]]
"""Something that a worker does again and again; True: there is more to do at once."""

log = structlog.get_logger("worker")


class LostRunError(Exception):
    """The run is no longer this worker's: stop, and write nothing. No RoutinesError, so that no step can fail of it."""


@dataclass(eq=False)
class Held:
    """A run in hand.

    Attributes:
        run: The claim.
        renewed_at: When the last renewal that went through was sent, by this process's monotonic clock. The lease
            began when the database got it, so it cannot end earlier than one counted from here.
        task: What runs it.
    """

    run: Claim
    renewed_at: float
    task: "asyncio.Task[None]"


@dataclass
class Worker:
    """One worker; any number of them may run against one database.

    Attributes:
        settings: Slots, lease and deadline.
        pool: Connections to the database.
        stop: Set from outside: nothing more is claimed, and what is in hand goes back to the queue.
    """

    settings: Settings
    pool: Pool
    stop: asyncio.Event
    name: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    _held: dict[int, Held] = field(default_factory=dict[int, Held])

    @property
    def _trusted_seconds(self) -> float:
        """How long after a renewal was sent the run is surely still ours."""
        return TRUST_SHARE * self.settings.lease_seconds

    async def run(self) -> None:
        """Claim, renew and reap until `stop` is set; then give back what is in hand."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._repeat(self._claim, POLL_SECONDS))
            loops.create_task(self._repeat(self._renew, self.settings.lease_seconds / 3))
            loops.create_task(self._repeat(self._let_go, self.settings.lease_seconds / 20))
            loops.create_task(self._repeat(self._reap, REAP_SECONDS))
        await self._give_back()

    async def _repeat(self, job: Job, seconds: float) -> None:
        """Do a job again and again; while the database is away, wait for it."""
        while not self.stop.is_set():
            try:
                again_at_once = await job()
            except AWAY as error:
                log.warning("database away, trying again", error=type(error).__name__)
                await sleep_or_stop(self.stop, RECONNECT_SECONDS)
            else:
                await sleep_or_stop(self.stop, 0 if again_at_once else seconds)

    async def _claim(self) -> bool:
        """Claim as many runs as there are free slots; True: there may be more at once."""
        free = self.settings.worker_slots - len(self._held)
        if free <= 0:
            return False
        async with self.pool.connection() as connection:
            sent_at = time.monotonic()
            claimed = await runs.claim(
                connection,
                slots=free,
                worker=self.name,
                lease_seconds=self.settings.lease_seconds,
                deadline_seconds=self.settings.run_deadline_seconds,
            )
        if time.monotonic() - sent_at > self._trusted_seconds:
            # Nothing of them has begun: their leases run out.
            log.warning("claimed too late", count=len(claimed))
            return False
        for run in claimed:
            self._begin(run, sent_at)
        return len(claimed) == free

    def _begin(self, run: Claim, sent_at: float) -> None:
        task = asyncio.create_task(self._execute(run))
        held = self._held[run.id] = Held(run, sent_at, task)
        task.add_done_callback(lambda _: self._ended(held))

    def _ended(self, held: Held) -> None:
        if self._held.get(held.run.id) is held:
            del self._held[held.run.id]
        if not held.task.cancelled() and (error := held.task.exception()):
            # Its lease runs out, and the reaper gives it to a worker that can write.
            log.warning("run left", trajectory_id=held.run.id, error=type(error).__name__)

    async def _execute(self, run: Claim) -> None:
        """Run one flow to its end, within its deadline."""
        flow = FlowWorkflow(
            run.workflow,
            run.init_params,
            run.finished_steps,
            lambda step: self._checkpoint(run, step),
            workflow_id=str(run.id),
            services=RunServices(),
        )
        error: str | None = None
        try:
            async with asyncio.timeout(run.seconds_left):
                await flow.run()
        except TimeoutError:
            error = "deadline exceeded: the run took longer than it may"
        except RoutinesError as cause:
            error = str(cause)
        async with self.pool.connection() as connection:
            ours = await runs.finish(connection, run, error=error)
        log.info("run ended", trajectory_id=run.id, failed=error is not None, ours=ours)

    async def _checkpoint(self, run: Claim, step: StepRecord) -> None:
        async with self.pool.connection() as connection:
            sent_at = time.monotonic()
            ours = await runs.checkpoint(connection, run, step, lease_seconds=self.settings.lease_seconds)
        if not ours:
            raise LostRunError(run.id)
        held = self._held[run.id]
        held.renewed_at = max(held.renewed_at, sent_at)

    async def _renew(self) -> bool:
        """Renew every lease, or give up when the next renewal is due: another connection may be alive."""
        if not self._held:
            return False
        renewal = asyncio.create_task(self._send_renewal(list(self._held.values())))
        await asyncio.wait({renewal}, timeout=self.settings.lease_seconds / 3)
        if renewal.done():
            renewal.result()
            return False
        log.warning("leases not renewed in time")
        while not renewal.done():  # cancelled once, psycopg still waits for the server's word; twice, it hangs up
            renewal.cancel()
            await asyncio.wait({renewal}, timeout=HANG_UP_SECONDS)
        return True

    async def _send_renewal(self, held: list[Held]) -> None:
        """What does not come back is no longer ours: it is cancelled and writes nothing more."""
        async with self.pool.connection() as connection:
            sent_at = time.monotonic()
            pairs = [(each.run.id, each.run.attempt) for each in held]
            ours = await runs.renew(connection, pairs, lease_seconds=self.settings.lease_seconds)
        for each in held:
            if each.run.id in ours:
                each.renewed_at = max(each.renewed_at, sent_at)
            elif not each.task.done():
                log.warning("run lost", trajectory_id=each.run.id)
                each.task.cancel()

    async def _let_go(self) -> bool:
        """Cancel what could not be renewed, before its lease can have expired in the database.

        It asks nobody: it must work while every connection is silent.
        """
        for held in list(self._held.values()):
            is_late = time.monotonic() - held.renewed_at > self._trusted_seconds
            if is_late and not held.task.cancelling():
                log.warning("run let go: its lease could not be renewed", trajectory_id=held.run.id)
                held.task.cancel()
        return False

    async def _reap(self) -> bool:
        async with self.pool.connection() as connection:
            for reaped in await runs.reap(connection):
                log.warning("run reaped", trajectory_id=reaped.id, status=reaped.status, crashes=reaped.crashes)
        return False

    async def _give_back(self) -> None:
        """Stop what is in hand and put it back into the queue, without counting a crash."""
        held = list(self._held.values())
        for each in held:
            each.task.cancel()
        await asyncio.gather(*(each.task for each in held), return_exceptions=True)
        if held:
            async with self.pool.connection() as connection:
                given_back = await runs.release(connection, [(each.run.id, each.run.attempt) for each in held])
            log.info("runs given back", count=given_back)


async def run_worker(settings: Settings, database_url: str) -> None:
    """Work until SIGTERM or SIGINT, over every loss of the database."""
    stop = stop_event()
    async with open_pool(
        database_url, "routines-worker", size=CONNECTIONS, role="routines_worker", statement_timeout="30s"
    ) as pool:
        log.info("working", slots=settings.worker_slots)
        await Worker(settings, pool, stop).run()
    log.info("stopped")
