"""The worker: claims pending runs, runs FlowWorkflow for each, and keeps or gives back what it holds."""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from routines_core.db import Connection, Pool, open_pool, runs
from routines_core.db.pool import LOST
from routines_core.db.runs import Claim
from routines_core.db.timeouts import within
from routines_core.errors import DatabaseError, InvalidError, RoutinesError
from routines_core.files.opening import open_file_store
from routines_core.keyring import Keyring, load_keyring
from routines_core.lifecycle import sleep_or_stop, stop_event
from routines_core.metrics.listener import listening
from routines_core.settings import Settings
from routines_engine.loops import repeat, woken
from routines_engine.metrics import WorkerLoad, WorkerMetrics
from routines_engine.retention.history import run_retention
from routines_engine.runs.child_waiter import ChildWaiter
from routines_engine.runs.claimed_run import ClaimedRun, LostRunError
from routines_engine.runs.fair_share import FairShare
from routines_engine.runs.journal import Journal
from routines_engine.runs.record import Record
from routines_engine.runs.services import RunServices, WorkerResources
from routines_engine.steps.stepper import Stepper
from routines_engine.webhooks.deliveries import run_deliveries
from routines_workflow.catalogue import load_entry_points

POLL_SECONDS = 1.0
"""How often an idle worker polls for pending runs if no wakeup comes."""
HELD_SECONDS = 0.4
"""How often a worker asks whether its runs are still its own: so soon does a cancel reach a step."""
CHILDREN_SECONDS = 0.05
"""How often it is asked whether children have ended, while runs wait for any."""
REAP_SECONDS = 1.0
"""How often lost and late runs are looked for."""
REAP_COST_FACTOR = 20
"""Looking reads all that was begun; it comes no sooner than after this many times what the last look cost."""
TRUST_SHARE = 0.8
"""How much of a lease a worker relies on; the rest covers a busy event loop and clocks that run at different speeds."""
DRAIN_SECONDS = 0.8
"""How long a worker that stops takes for what is still to be written, and then to give its runs back."""
CONNECTIONS = 4
"""A worker's connections, beside the one that it listens on: no run holds one while its step works."""

Answer = TypeVar("Answer")

log = structlog.get_logger("worker")


@dataclass
class Worker:
    """One worker; any number of them may run against one database.

    Attributes:
        settings: Slots, lease and deadline.
        pool: Connections to the database.
        stop: Set from outside: nothing more is claimed, and what is in hand goes back to the queue.
        keyring: Opens the secrets of its runs.
        name: What its runs bear.
        wake: Set when there may be something to claim.
        metrics: Told of what it does.
    """

    settings: Settings
    pool: Pool
    stop: asyncio.Event
    keyring: Keyring
    name: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    _held: dict[int, ClaimedRun] = field(default_factory=dict[int, ClaimedRun])
    _fair_share: FairShare = field(default_factory=FairShare)

    def __post_init__(self) -> None:
        self._journal = Journal(self.pool, self.settings.lease_seconds, self.metrics)
        self._child_waiter = ChildWaiter(self.pool, self._patience_seconds)
        files = open_file_store(self.settings)
        self._engine = WorkerResources(
            self.pool, self.keyring, files, self._child_waiter, self.wake.set, self._patience_seconds
        )
        self.metrics.follow(
            WorkerLoad(self.settings.worker_concurrency, self._capacity_in_use, self._since_renewal_seconds)
        )

    @property
    def _trusted_seconds(self) -> float:
        """How long after a renewal was sent the run is surely still ours."""
        return TRUST_SHARE * self.settings.lease_seconds

    @property
    def _patience_seconds(self) -> float:
        """How long an answer is waited for: then another connection may be alive, and the lease is not yet over."""
        return self.settings.lease_seconds / 3

    async def run(self) -> None:
        """Claim, renew and reap until `stop` is set; then give back what is in hand."""
        journal = asyncio.create_task(self._journal.run())
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(repeat(self.stop, self._claim_or_wait, 0, self.metrics))
                loops.create_task(repeat(self.stop, self._renew, self.settings.lease_seconds / 3, self.metrics))
                loops.create_task(repeat(self.stop, self._drop_lost, HELD_SECONDS, self.metrics))
                loops.create_task(repeat(self.stop, self._let_go, self.settings.lease_seconds / 20, self.metrics))
                loops.create_task(repeat(self.stop, self._child_waiter.look, CHILDREN_SECONDS, self.metrics))
                loops.create_task(repeat(self.stop, self._reap, REAP_SECONDS, self.metrics))
                loops.create_task(self._wake_at_stop())
            await self._give_back()
        finally:
            journal.cancel()

    async def _wake_at_stop(self) -> None:
        await self.stop.wait()
        self.wake.set()
        self._child_waiter.wanted.set()

    async def _ask(self, question: Callable[[Connection], Awaitable[Answer]], seconds: float | None = None) -> Answer:
        """The database's answer, on a connection that is given up once it is silent for too long."""

        async def put() -> Answer:
            async with self.pool.connection() as connection:
                return await question(connection)

        answer = await within(seconds or self._patience_seconds, put())
        self.metrics.answered()
        return answer

    async def _claim_or_wait(self) -> bool:
        """Claim runs. If none is pending, request a wakeup, and wait for it or poll."""
        self.wake.clear()
        if await self._claim():
            return True
        if self._free_capacity() > 0:
            await self._ask(lambda connection: runs.request_wakeup(connection, worker=self.name))
        while not await self._claim() and not await self._is_woken():
            pass
        return True

    async def _is_woken(self) -> bool:
        """Wait until something may be pending, for a while: whether it was so."""
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self.wake.wait()
        except TimeoutError:
            return False
        return True

    def _free_capacity(self) -> int:
        return self.settings.worker_concurrency - self._capacity_in_use()

    def _capacity_in_use(self) -> int:
        return sum(not held.waits for held in self._held.values())

    def _since_renewal_seconds(self) -> float:
        """Since the lease that is oldest was renewed; 0: nothing is in hand."""
        return max((held.since_renewal_seconds() for held in self._held.values()), default=0.0)

    async def _claim(self) -> bool:
        """Claim runs for the free capacity; True: some were claimed, and there may be more."""
        free = self._free_capacity()
        if free <= 0:
            return False
        sent_at = time.monotonic()
        claimed = await self._ask(lambda connection: self._claim_on(connection, free))
        if time.monotonic() - sent_at > self._trusted_seconds:
            # Nothing of them has begun: their leases run out.
            log.warning("claimed too late", count=len(claimed))
            return False
        self.metrics.claimed(len(claimed))
        for run in claimed:
            self._begin(run, sent_at)
        return bool(claimed)

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
        held = self._held[run.id] = ClaimedRun(run, sent_at, task)
        task.add_done_callback(lambda _: self._ended(held))

    def _ended(self, held: ClaimedRun) -> None:
        if self._held.get(held.run.id) is held:
            del self._held[held.run.id]
        self.wake.set()
        if not held.task.cancelled() and (error := held.task.exception()):
            # Its lease runs out, and the reaper gives it to a worker that can write.
            log.warning("run left", trajectory_id=held.run.id, error=type(error).__name__)

    async def _execute(self, run: Claim) -> None:
        """Run one flow to its end, within its deadline."""
        services = RunServices(self._engine, self._held[run.id])
        record = Record(self._journal, services)
        flow = Stepper(
            run.workflow,
            run.init_params,
            run.finished_steps,
            record.checkpoint,
            workflow_id=run.workflow_id,
            services=services,
            tries=run.tries,
            allow_private=self.settings.webhook_allow_private,
        )
        began_at = time.monotonic()
        error = await self._error_of(flow, run.seconds_left)
        try:
            await record.end(error)
        except InvalidError as cause:  # what the last step gave
            error = str(cause)
            await record.end(error)
        self.metrics.run_ended("completed" if error is None else "failed", time.monotonic() - began_at)
        log.info("run ended", trajectory_id=run.id, failed=error is not None)

    async def _error_of(self, flow: Stepper, seconds: float) -> str | None:
        """Run the flow: why it failed, None where it did not."""
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
            log.error("flow broke", error=type(error).__name__)  # noqa: TRY400 - a traceback may show what steps hold
            return f"internal error: {type(error).__name__}"
        return None

    async def _renew(self) -> bool:
        """Renew every lease, or give up when the next renewal is due: another connection may be alive."""
        if not self._held:
            return False
        try:
            await self._send_renewal(list(self._held.values()))
        except DatabaseError:
            self.metrics.database_failures.inc()
            log.warning("leases not renewed in time")
            return True
        return False

    async def _send_renewal(self, held: list[ClaimedRun]) -> None:
        """What does not come back is no longer ours: it is cancelled and writes nothing more."""
        sent_at = time.monotonic()
        pairs, lease_seconds = [each.pair for each in held], self.settings.lease_seconds
        ours = await self._ask(lambda connection: runs.renew(connection, pairs, lease_seconds=lease_seconds))
        self.metrics.heartbeat_lateness.observe(max(0.0, self._since_renewal_seconds() - lease_seconds / 3))
        for each in held:
            if ours.get(each.run.id):
                each.renewed(sent_at)
        self._drop_all_but(set(ours), held)

    async def _drop_lost(self) -> bool:
        """Cancel what was taken away: by a cancel, by the reaper, by another run that it was a child of."""
        held = list(self._held.values())
        if held:
            pairs = [each.pair for each in held]
            self._drop_all_but(await self._ask(lambda connection: runs.still_claimed(connection, pairs)), held)
        return False

    def _drop_all_but(self, ours: set[int], asked: list[ClaimedRun]) -> None:
        for each in asked:
            if each.run.id not in ours and each.drop():
                self.metrics.lost_runs.labels("taken").inc()
                log.warning("run lost", trajectory_id=each.run.id)

    async def _let_go(self) -> bool:
        """Cancel what could not be renewed, before its lease can have expired in the database.

        It asks nobody: it must work while every connection is silent.
        """
        for held in list(self._held.values()):
            if held.is_late(self._trusted_seconds) and held.let_go():
                self.metrics.lost_runs.labels("lease").inc()
                log.warning("run let go: its lease could not be renewed", trajectory_id=held.run.id)
        return False

    async def _reap(self) -> bool:
        began_at = time.monotonic()
        reaped = await self._ask(runs.reap)
        for run in reaped:
            self.metrics.reaped.labels(run.status).inc()
            log.warning("run reaped", trajectory_id=run.id, status=run.status, crashes=run.crashes)
        if reaped:
            self.wake.set()
        await sleep_or_stop(self.stop, REAP_COST_FACTOR * (time.monotonic() - began_at) - REAP_SECONDS)
        return len(reaped) == runs.MOST_REAPED

    async def _give_back(self) -> None:
        """Stop what is in hand and put it back into the queue, without counting a crash."""
        held = list(self._held.values())
        for each in held:
            each.task.cancel()
        await asyncio.gather(*(each.task for each in held), return_exceptions=True)
        if not held:
            return
        try:
            await within(DRAIN_SECONDS, self._journal.settled())
            pairs = [each.pair for each in held]
            given_back = await self._ask(lambda connection: runs.release(connection, pairs), DRAIN_SECONDS)
        except LOST as error:
            log.warning("runs not given back: their leases run out", error=type(error).__name__)
        else:
            log.info("runs given back", count=given_back)


async def run_worker(settings: Settings, database_url: str) -> None:
    """Work until SIGTERM or SIGINT, over every loss of the database: do runs, deliver webhooks, let go of what is old.

    Raises:
        ConfigurationError: The encryption keys are missing or malformed.
    """
    keyring, stop = load_keyring(settings), stop_event()
    load_entry_points()  # now: an import takes its time, and leases would not be renewed meanwhile
    async with open_pool(
        database_url, "routines-worker", size=CONNECTIONS, role="routines_worker", statement_timeout="30s"
    ) as pool:
        log.info("working", concurrency=settings.worker_concurrency)
        worker = Worker(settings, pool, stop, keyring)
        metrics = worker.metrics
        async with (
            listening(settings, metrics, metrics.health),
            woken(worker.wake, database_url),
            asyncio.TaskGroup() as loops,
        ):
            loops.create_task(worker.run())
            loops.create_task(run_deliveries(settings, database_url, stop, keyring=keyring, metrics=metrics))
            loops.create_task(run_retention(settings, database_url, stop, open_file_store(settings)))
    log.info("stopped")
