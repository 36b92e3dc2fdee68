"""The worker of the Postgres engine: claims pending runs, executes each with FlowWorkflow and renews their leases."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from routines_core.db import Connection, runs
from routines_core.db.runs import Claim
from routines_core.db.timeouts import within
from routines_core.errors import DatabaseError
from routines_core.logging import describe
from routines_core.settings import Settings
from routines_engine.loops import Job, wait_for_wakeup
from routines_engine.runs.base import DRAIN_SECONDS, WorkerBase, serve
from routines_engine.runs.claimed_run import ClaimedRun, named
from routines_engine.runs.fair_share import FairShare
from routines_engine.runs.host import RunHost
from routines_engine.runs.outcome import outcome_of, write_end
from routines_engine.runs.record import Record
from routines_engine.runs.services import RunServices
from routines_engine.runs.trace import RunTrace

POLL_SECONDS = 1.0
"""How long an idle worker waits for a wakeup before it looks for pending runs anyway."""
FULL_SECONDS = 0.05
"""How long a worker at capacity waits for its own runs before it looks for the first runs of other collections."""
FIRST_SHARE = 10
"""What part of the capacity a collection's first runs are, which get in even if it is in use: a tenth, at least one."""
MOST_WAITING = 100
"""How many runs of a collection wait for children in one worker; further ones are given up until their children end."""
TRUST_SHARE = 0.8
"""How much of a lease a worker relies on; the rest covers a busy event loop and clocks that run at different speeds."""

log = structlog.get_logger("worker")


@dataclass
class Worker(WorkerBase):
    """A worker of the Postgres engine."""

    _claimed: dict[int, ClaimedRun] = field(default_factory=dict[int, ClaimedRun])
    _fair_share: FairShare = field(default_factory=FairShare)

    @property
    def _trusted_seconds(self) -> float:
        """How long after sending a renewal the worker can be sure that the run is still its own."""
        return TRUST_SHARE * self.settings.lease_seconds

    def _jobs(self) -> Iterable[tuple[Job, float]]:
        return (
            (self._claim_or_wait, 0),
            (self._renew, self.settings.lease_seconds / 3),
            (self._drop_late, self.settings.lease_seconds / 20),
        )

    def _claimed_runs(self) -> list[ClaimedRun]:
        return list(self._claimed.values())

    def _capacity_in_use(self) -> int:
        return sum(not claimed.waiting_children for claimed in self._claimed.values())

    def _since_renewal_seconds(self) -> float:
        return max((claimed.since_renewal_seconds() for claimed in self._claimed.values()), default=0.0)

    def _capacity_freed(self) -> None:
        self.wake.set()

    def _may_wait(self, claimed: ClaimedRun) -> bool:
        if claimed.is_alone:
            return False  # its process is one of few
        if claimed.waiting_children:
            return True
        collection_id = claimed.run.collection_id
        waiting = sum(
            each.waiting_children > 0 for each in self._claimed.values() if each.run.collection_id == collection_id
        )
        return waiting < MOST_WAITING

    async def _claim_or_wait(self) -> bool:
        """Claim pending runs. If there are none, request a wakeup, and poll until it comes.

        A worker whose capacity is in use waits a moment first: where runs are short, one of its own ends sooner.
        """
        self.wake.clear()
        if self._free_capacity() <= 0 and await wait_for_wakeup(self.wake, FULL_SECONDS):
            return True
        if await self._claim():
            return True
        await self._ask(lambda connection: runs.request_wakeup(connection, worker=self.name))
        while not await self._claim() and not await wait_for_wakeup(self.wake, POLL_SECONDS):
            pass
        return True

    def _free_capacity(self) -> int:
        return self.settings.worker_concurrency - self._capacity_in_use()

    async def _claim(self) -> bool:
        """Claim runs for the free capacity. Returns True if there were any, since there may be more.

        A worker whose capacity is in use still claims the first runs of each collection, as long as those present are
        fewer than `worker_processes`, so slow runs of some collections never keep the others waiting.
        """
        free = self._free_capacity()
        if free > 0:
            return await self._claim_up_to(free)
        held = Counter(claimed.run.collection_id for claimed in self._claimed.values())
        room = self.settings.worker_processes - len(held)
        first = max(1, self.settings.worker_concurrency // FIRST_SHARE)
        served = [collection for collection, count in held.items() if count >= first]
        most_each = first - max((count for count in held.values() if count < first), default=0)
        return room > 0 and await self._claim_up_to(room, but_collections=served, most_each=most_each)

    async def _claim_up_to(
        self, capacity: int, but_collections: Sequence[int] = (), most_each: int | None = None
    ) -> bool:
        sent_at = time.monotonic()

        async def claim(connection: Connection) -> Sequence[Claim]:
            return await runs.claim(
                connection,
                capacity=capacity,
                worker=self.name,
                lease_seconds=self.settings.lease_seconds,
                deadline_seconds=self.settings.run_deadline_seconds,
                last_tasks=self._fair_share.last_tasks,
                but_collections=but_collections,
                most_each=most_each,
            )

        claims = await self._ask(claim)
        if time.monotonic() - sent_at > self._trusted_seconds:
            # None of them has begun: let their leases expire.
            log.warning("claimed too late", count=len(claims))
            return False
        self.metrics.claimed(len(claims))
        for run in claims:
            self._begin(run, sent_at)
        return bool(claims)

    def _begin(self, run: Claim, sent_at: float) -> None:
        self._fair_share.note(run)
        task = asyncio.create_task(self._execute(run))
        claimed = self._claimed[run.id] = ClaimedRun(run, sent_at, task, trace=RunTrace.begin(run))
        task.add_done_callback(lambda _: self._ended(claimed))

    def _ended(self, claimed: ClaimedRun) -> None:
        if self._claimed.get(claimed.run.id) is claimed:
            del self._claimed[claimed.run.id]
        self.wake.set()
        if not claimed.task.cancelled() and (error := claimed.task.exception()):
            # Its lease expires, and the reaper requeues it for a worker that can write.
            log.warning("run left to another worker", **named(claimed.run), **describe(error))

    async def _execute(self, run: Claim) -> None:
        """Execute one run within its deadline, and write its end, or let it wait for the next attempt of a step."""
        services = RunServices(self._resources, self._claimed[run.id])
        host = RunHost(Record(self._journal, services), self._payloads)
        began_at = time.monotonic()
        ended = await outcome_of(self.executor, host, run.seconds_left)
        if ended is None or ended.wait_seconds is not None:
            await self._suspend(host, run, ended and ended.wait_seconds)
            return
        error = await write_end(host, ended.error)
        status = "completed" if error is None else "failed"
        self.metrics.run_ended(status, time.monotonic() - began_at)
        if trace := services.claimed.trace:
            trace.ended(status)

    async def _suspend(self, host: RunHost, run: Claim, seconds: float | None) -> None:
        """Give the run up until its wait is over, or for None until its children have ended."""
        await host.record.flush()
        self._claimed[run.id].is_ending = True  # it is no longer this worker's once this is written
        await self._resources.ask_for(run, lambda connection: runs.suspend(connection, run, seconds=seconds))
        log.info("run waits", **named(run), seconds=seconds if seconds is not None else "for its children")

    async def _renew(self) -> bool:
        """Renew every lease, and retry at once on another connection if no answer came in time."""
        if not self._claimed:
            return False
        try:
            await self._send_renewal(self._claimed_runs())
        except DatabaseError:
            self.metrics.database_failures.inc()
            log.warning("leases not renewed in time")
            return True
        return False

    async def _send_renewal(self, claimed: list[ClaimedRun]) -> None:
        """Renew the leases of these runs, and cancel those that no longer belong to this worker."""
        sent_at = time.monotonic()
        pairs, lease_seconds = [each.pair for each in claimed], self.settings.lease_seconds
        renewed_by_id = await self._ask(lambda connection: runs.renew(connection, pairs, lease_seconds=lease_seconds))
        self.metrics.heartbeat_lateness.observe(max(0.0, self._since_renewal_seconds() - lease_seconds / 3))
        for each in claimed:
            if renewed_by_id.get(each.run.id):
                each.renewed(sent_at)
        self._drop_all_but(renewed_by_id, claimed)

    async def _drop_late(self) -> bool:
        """Cancel runs whose lease was not renewed, before it can have expired in the database.

        It does not query the database, so it works while every connection is silent.
        """
        for claimed in self._claimed_runs():
            if claimed.is_late(self._trusted_seconds) and claimed.cancel():
                self.metrics.lost_runs.labels("lease").inc()
                log.warning("run stopped, its lease could not be renewed", **named(claimed.run))
        return False

    async def _give_up_runs(self) -> None:
        """Cancel the runs and put them back into the queue, without counting a crash."""
        claimed = self._claimed_runs()
        for each in claimed:
            each.task.cancel()
        await asyncio.gather(*(each.task for each in claimed), return_exceptions=True)
        if not claimed:
            return
        try:
            await within(DRAIN_SECONDS, self._journal.settled())
            pairs = [each.pair for each in claimed]
            count = await self._ask(lambda connection: runs.release(connection, pairs), DRAIN_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, the program is about to end
            log.warning("runs not given back, their leases will expire", **describe(error))
        else:
            log.info("runs given back", count=count)


async def run_worker(settings: Settings, database_url: str, modules: Sequence[str] = ()) -> None:
    """Run a worker of the Postgres engine, with webhook deliveries and retention, until SIGTERM or SIGINT.

    Step processes import `modules` too, where more activities are.

    Raises:
        ConfigurationError: The encryption keys are missing or malformed.
    """
    await serve(settings, database_url, Worker, modules)
