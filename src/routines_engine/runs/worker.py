"""The worker of the Postgres engine: claims pending runs, executes each with FlowWorkflow and renews their leases."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from routines_core.db import Connection, runs
from routines_core.db.pool import LOST
from routines_core.db.runs import Claim
from routines_core.db.timeouts import within
from routines_core.errors import DatabaseError, InvalidError, RoutinesError
from routines_core.settings import Settings
from routines_engine.loops import Job, wait_for_wakeup
from routines_engine.runs.base import DRAIN_SECONDS, WorkerBase, serve
from routines_engine.runs.claimed_run import ClaimedRun, LostRunError
from routines_engine.runs.fair_share import FairShare
from routines_engine.runs.record import Record
from routines_engine.runs.services import RunServices
from routines_engine.steps.stepper import Stepper

POLL_SECONDS = 1.0
"""How long an idle worker waits for a wake-up before it looks for pending runs anyway."""
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

    async def _claim_or_wait(self) -> bool:
        """Claim pending runs. If there are none, request a wake-up, and poll until it comes."""
        self.wake.clear()
        if await self._claim():
            return True
        if self._free_capacity() > 0:
            await self._ask(lambda connection: runs.request_wakeup(connection, worker=self.name))
        while not await self._claim() and not await wait_for_wakeup(self.wake, POLL_SECONDS):
            pass
        return True

    def _free_capacity(self) -> int:
        return self.settings.worker_concurrency - self._capacity_in_use()

    async def _claim(self) -> bool:
        """Claim runs for the free capacity. Returns True if there were any, since there may be more."""
        free = self._free_capacity()
        if free <= 0:
            return False
        sent_at = time.monotonic()
        claims = await self._ask(lambda connection: self._claim_on(connection, free))
        if time.monotonic() - sent_at > self._trusted_seconds:
            # None of them has begun: let their leases expire.
            log.warning("claimed too late", count=len(claims))
            return False
        self.metrics.claimed(len(claims))
        for run in claims:
            self._begin(run, sent_at)
        return bool(claims)

    async def _claim_on(self, connection: Connection, capacity: int) -> list[Claim]:
        return await runs.claim(
            connection,
            capacity=capacity,
            worker=self.name,
            lease_seconds=self.settings.lease_seconds,
            deadline_seconds=self.settings.run_deadline_seconds,
            last_tasks=self._fair_share.last_tasks,
        )

    def _begin(self, run: Claim, sent_at: float) -> None:
        self._fair_share.note(run)
        task = asyncio.create_task(self._execute(run))
        claimed = self._claimed[run.id] = ClaimedRun(run, sent_at, task)
        task.add_done_callback(lambda _: self._ended(claimed))

    def _ended(self, claimed: ClaimedRun) -> None:
        if self._claimed.get(claimed.run.id) is claimed:
            del self._claimed[claimed.run.id]
        self.wake.set()
        if not claimed.task.cancelled() and (error := claimed.task.exception()):
            # Its lease expires, and the reaper requeues it for a worker that can write.
            log.warning("run left", trajectory_id=claimed.run.id, error=type(error).__name__)

    async def _execute(self, run: Claim) -> None:
        """Execute one run within its deadline, and write its end."""
        services = RunServices(self._resources, self._claimed[run.id])
        record = Record(self._journal, services)
        flow = Stepper(
            run.workflow,
            run.init_params,
            run.finished_steps,
            record.checkpoint,
            workflow_id=run.workflow_id,
            services=services,
            attempts=run.tries,
            allow_private=self.settings.webhook_allow_private,
        )
        began_at = time.monotonic()
        error = await self._error_of(flow, run.seconds_left)
        try:
            await record.end(error)
        except InvalidError as cause:  # the last step's outputs cannot be stored
            error = str(cause)
            await record.end(error)
        self.metrics.run_ended("completed" if error is None else "failed", time.monotonic() - began_at)
        log.info("run ended", trajectory_id=run.id, failed=error is not None)

    async def _error_of(self, flow: Stepper, seconds: float) -> str | None:
        """Run the flow for at most `seconds`. Returns why it failed, or None if it completed."""
        try:
            async with asyncio.timeout(seconds):
                await flow.run()
        except LostRunError:
            raise
        except TimeoutError:
            return "deadline exceeded: the run took longer than it may"
        except RoutinesError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - a run must end, whatever is wrong with it
            # Without a traceback, which may show what steps were given.
            log.error("flow broke", error=type(error).__name__)  # noqa: TRY400
            return f"internal error: {type(error).__name__}"
        return None

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
        self._drop_all_but(set(renewed_by_id), claimed)

    async def _drop_late(self) -> bool:
        """Cancel runs whose lease was not renewed, before it can have expired in the database.

        It does not query the database, so it works while every connection is silent.
        """
        for claimed in self._claimed_runs():
            if claimed.is_late(self._trusted_seconds) and claimed.cancel():
                self.metrics.lost_runs.labels("lease").inc()
                log.warning("run dropped: its lease could not be renewed", trajectory_id=claimed.run.id)
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
        except LOST as error:
            log.warning("runs not given back: their leases expire", error=type(error).__name__)
        else:
            log.info("runs given back", count=count)


async def run_worker(settings: Settings, database_url: str) -> None:
    """Run a worker of the Postgres engine, with webhook deliveries and retention, until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: The encryption keys are missing or malformed.
    """
    await serve(settings, database_url, Worker)
