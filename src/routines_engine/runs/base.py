"""What the workers of both engines share: their loops, and the program that runs one of them."""

import asyncio
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Container, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from routines_core.banner import introduce
from routines_core.bulkhead import LONGEST_SECONDS, Bulkhead
from routines_core.db import Connection, Pool, open_pool, runs
from routines_core.db.schema import await_schema
from routines_core.files.opening import open_file_store
from routines_core.keyring import Keyring, load_keyring
from routines_core.lifecycle import freeze_loaded, sleep_or_stop, stop_event
from routines_core.logging import describe
from routines_core.metrics.listener import listening
from routines_core.settings import Settings
from routines_engine.alerts import run_alerts
from routines_engine.loops import Job, repeat, woken
from routines_engine.metrics import WorkerLoad, WorkerMetrics
from routines_engine.retention.history import run_retention
from routines_engine.runs.child_waiter import ChildWaiter
from routines_engine.runs.claimed_run import ClaimedRun, named
from routines_engine.runs.host import RunHost
from routines_engine.runs.inline import InlineExecutor
from routines_engine.runs.journal import WRITERS, Journal
from routines_engine.runs.payloads import Payloads
from routines_engine.runs.run_limits import RunLimitsCache
from routines_engine.runs.services import RUN_CONNECTIONS, WorkerResources
from routines_engine.sandbox.messages import Ended, Payload
from routines_engine.sandbox.pool import ProcessPool
from routines_engine.sandbox.process import Limits
from routines_engine.webhooks.deliveries import run_deliveries
from routines_workflow.catalogue import load_entry_points

CLAIMS_SECONDS = 0.4
"""How often a worker checks that its runs are still its own: a cancel reaches a step this soon."""
CHILDREN_SECONDS = 0.05
"""How often a worker checks whether children have ended, while any run waits for one."""
REAP_SECONDS = 1.0
"""How often a worker looks for lost and late runs, and for waiting runs that may begin."""
REAP_COST_FACTOR = 20
"""Reaping reads every run that was begun, so a worker waits at least this many times as long as the last one took. The
same for the runs that wait for a place."""
STOP_SECONDS = 3.0
"""At shutdown: time that jobs have to end, for example to hear from a server that does not answer."""
DRAIN_SECONDS = 0.8
"""At shutdown: time to write what is still queued, and then to give back the runs."""
CONNECTIONS = WRITERS + RUN_CONNECTIONS + 1
"""Pool size, not counting the connection for notifications: for the journal, the runs and the worker itself. No run
holds a connection while its step works."""

Answer = TypeVar("Answer")

log = structlog.get_logger("worker")


class Executor(Protocol):
    """Where workflows run."""

    async def open(self) -> None:
        """Get ready to run workflows."""
        ...

    async def close(self) -> None:
        """End every workflow at once."""
        ...

    async def run(self, collection_id: int, handler: RunHost, payload: Payload) -> Ended:
        """Run a workflow and return how it ended.

        Raises:
            RunDiedError: It ended every process that it was given to.
            LostRunError: The run no longer belongs to this worker.
        """
        ...


def process_name() -> str:
    """Return the name of this process: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass
class WorkerBase(ABC):
    """A worker of either engine; any number of them may run against one database.

    Attributes:
        settings: Concurrency, lease and deadline.
        pool: Connections to the database.
        stop: Set from outside: the worker claims nothing more and gives up its runs.
        keyring: Decrypts the secrets of its runs.
        name: Recorded in the runs that it claims.
        wake: Set when there may be something to claim.
        metrics: Counts what the worker does.
        executor: Where workflows run: in step processes, or for tests in this one.
    """

    settings: Settings
    pool: Pool
    stop: asyncio.Event
    keyring: Keyring
    name: str = field(default_factory=process_name)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    executor: Executor = field(default_factory=InlineExecutor)

    def __post_init__(self) -> None:
        self._recording = set[asyncio.Task[None]]()
        # Query timeout: short enough to retry on another connection before the lease expires.
        timeout_seconds = self.settings.lease_seconds / 3
        self._journal = Journal(self.pool, self.settings.lease_seconds, self.metrics)
        self._child_waiter = ChildWaiter(self.pool, timeout_seconds)
        self._resources = WorkerResources(
            self.pool,
            self.keyring,
            open_file_store(self.settings),
            self._child_waiter,
            self._capacity_freed,
            self._may_wait,
            timeout_seconds,
            self.metrics.loop_failed,
            RunLimitsCache(Bulkhead("run_limits", self.metrics.loop_failed)),
        )
        self._payloads = Payloads(self._resources, self.settings.webhook_allow_private, self.settings.max_run_bytes)
        self.metrics.follow(
            WorkerLoad(self.settings.worker_concurrency, self._capacity_in_use, self._since_renewal_seconds)
        )

    @abstractmethod
    def _jobs(self) -> Iterable[tuple[Job, float]]:
        """Return the engine's own jobs, each with the seconds between two of its runs."""

    @abstractmethod
    def _claimed_runs(self) -> list[ClaimedRun]:
        """Return the runs that the worker is executing."""

    @abstractmethod
    def _capacity_in_use(self) -> int:
        """Return how much of the worker's concurrency is in use."""

    @abstractmethod
    def _since_renewal_seconds(self) -> float:
        """Return the seconds since the oldest lease was renewed; 0 if there is none to renew."""

    @abstractmethod
    def _capacity_freed(self) -> None:
        """Act on the capacity that a claimed run has freed by waiting for a child."""

    @abstractmethod
    def _may_wait(self, claimed: ClaimedRun) -> bool:
        """Return whether the run may stay claimed while it waits for a child."""

    @abstractmethod
    async def _give_up_runs(self) -> None:
        """Leave the claimed runs to other workers; called at shutdown, once all jobs have stopped."""

    async def run(self) -> None:
        """Work until `stop` is set, then give up the claimed runs."""
        journal = asyncio.create_task(self._journal.run())
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._end_at_stop([loops.create_task(each) for each in self._loops()]))
            await self._give_up_runs()
        finally:
            journal.cancel()

    def _loops(self) -> Iterable[Coroutine[Any, Any, None]]:
        """Return the worker's loops, each in a bulkhead of its own."""
        # A job that must be done in time for a lease is tried again in time for it.
        longest = min(LONGEST_SECONDS, self.settings.lease_seconds / 3)
        for job, seconds in (
            *self._jobs(),
            (self._drop_lost, CLAIMS_SECONDS),
            (self._child_waiter.look, CHILDREN_SECONDS),
            (self._reap, REAP_SECONDS),
            (self._admit, REAP_SECONDS),
        ):
            name = getattr(job, "__name__", "job").strip("_")
            yield repeat(self.stop, job, seconds, self.metrics, name=name, longest_seconds=longest)

    async def _end_at_stop(self, loops: Collection[asyncio.Task[None]]) -> None:
        """End the waits of the jobs once `stop` is set, and after a while the jobs that wait for something else."""
        await self.stop.wait()
        self.wake.set()
        self._child_waiter.wanted.set()
        _, late = await asyncio.wait(loops, timeout=STOP_SECONDS)
        for each in late:
            each.cancel()

    async def _ask(
        self, query: Callable[[Connection], Awaitable[Answer]], timeout_seconds: float | None = None
    ) -> Answer:
        """Query the database once, and note for the metrics that it answered."""
        answer = await self._resources.ask_once(query, timeout_seconds)
        self.metrics.answered()
        return answer

    async def _drop_lost(self) -> bool:
        """Cancel runs that were taken away, for example by a cancel, by the reaper or with their parent run.

        Also stop those that the overlap policy of their routine ends for the run of a later slot.
        """
        claimed = self._claimed_runs()
        if claimed:
            pairs = [each.pair for each in claimed]
            must_stop = await self._ask(lambda connection: runs.still_claimed(connection, pairs))
            self._drop_all_but(must_stop, claimed)
            for each in claimed:
                if must_stop.get(each.run.id):
                    self._stop(each)
        return False

    def _stop(self, claimed: ClaimedRun) -> None:
        """Stop a run for that of a later slot. Nothing waits for it here: one slow to stop would delay the others."""
        if claimed.cancel_unless_ending():
            recording = asyncio.create_task(self._record_stop(claimed))
            self._recording.add(recording)
            recording.add_done_callback(self._recording.discard)

    async def _record_stop(self, claimed: ClaimedRun) -> None:
        """Record that a run was cancelled, once it has stopped: the run that waits for its end may begin at once.

        If that fails, the run is fenced off after a while.
        """
        await asyncio.wait([claimed.task])
        try:
            is_stopped = await self._ask(lambda connection: runs.stop(connection, claimed.run))
        except Exception as error:  # noqa: BLE001 - whatever it is, others will end the run
            log.warning("stop not recorded", **named(claimed.run), **describe(error))
        else:
            what = "run stopped for a later slot" if is_stopped else "run given back, no later slot waits any more"
            log.info(what, **named(claimed.run))

    def _drop_all_but(self, still_ours: Container[int], claimed: list[ClaimedRun]) -> None:
        for each in claimed:
            if each.run.id not in still_ours and each.cancel_unless_ending():
                self.metrics.lost_runs.labels("taken").inc()
                log.warning("run lost", **named(each.run))

    async def _reap(self) -> bool:
        """Requeue the runs of lost workers, and fail those that are past their deadline or were lost too often."""
        began_at = time.monotonic()
        reaped = await self._ask(runs.reap)
        for run in reaped:
            if run.has_waited and run.status == "pending":
                continue
            self.metrics.reaped.labels(run.status).inc()
            log.warning("run reaped", trajectory_id=run.id, status=run.status, crashes=run.crashes)
        if reaped:
            self.wake.set()
        await sleep_or_stop(self.stop, REAP_COST_FACTOR * (time.monotonic() - began_at) - REAP_SECONDS)
        return len(reaped) == runs.MOST_REAPED

    async def _admit(self) -> bool:
        """Let runs that wait for a place begin, and fence off those that they replace and that nobody stops."""
        began_at = time.monotonic()
        done = await self._ask(runs.admit)
        fenced_off = await self._ask(runs.fence_off) if done.replacing else []
        for trajectory_id in fenced_off:
            log.info("run cancelled for a later slot", trajectory_id=trajectory_id)
        if done.admitted or fenced_off:
            self.wake.set()
        await sleep_or_stop(self.stop, REAP_COST_FACTOR * (time.monotonic() - began_at) - REAP_SECONDS)
        return False


MakeWorker = Callable[..., WorkerBase]
"""Makes a worker from its settings, pool, stop event and keyring, and `executor=`."""


async def serve(settings: Settings, database_url: str, make_worker: MakeWorker, modules: Sequence[str] = ()) -> None:
    """Run the worker program until SIGTERM or SIGINT: a worker, webhook deliveries, alerts and retention.

    It survives every loss of the database. Step processes import `modules` too, where more activities are.

    Raises:
        ConfigurationError: The encryption keys are missing or malformed.
        MigrationError: This version cannot work with the database's schema.
    """
    keyring, stop = load_keyring(settings), stop_event()
    load_entry_points()  # before any run is claimed: importing takes time, in which no lease would be renewed
    freeze_loaded()
    async with open_pool(
        database_url, "routines-worker", size=CONNECTIONS, role="routines_worker", statement_timeout="30s"
    ) as pool:
        executor = pool_of(settings, modules)
        worker = make_worker(settings, pool, stop, keyring, executor=executor)
        metrics = worker.metrics
        async with opened(executor), listening(settings, metrics, metrics.health), metrics.loop_lag.observed():
            await await_schema(database_url, "routines-worker", stop, role="routines_worker")
            await introduce("worker", settings, database_url, stop, keyring)
            log.info("working", concurrency=settings.worker_concurrency)
            async with woken(worker.wake, database_url, metrics), asyncio.TaskGroup() as programs:
                programs.create_task(worker.run())
                for name, beside in _beside(settings, database_url, worker).items():
                    programs.create_task(repeat(stop, beside, 0, metrics, name=name))
    log.info("stopped")


def _beside(settings: Settings, database_url: str, worker: WorkerBase) -> dict[str, Job]:
    """Return what the program does beside the runs. Each ends with `stop`, and begins again if it could not begin."""
    files = open_file_store(settings)

    async def deliver() -> bool:
        await run_deliveries(settings, database_url, worker.stop, keyring=worker.keyring, metrics=worker.metrics)
        return False

    async def keep_tidy() -> bool:
        await run_retention(settings, database_url, worker.stop, files, worker.metrics)
        return False

    async def judge() -> bool:
        await run_alerts(database_url, worker.stop, worker.metrics)
        return False

    return {"webhooks": deliver, "alerts": judge, "upkeep": keep_tidy}


def pool_of(settings: Settings, modules: Sequence[str] = ()) -> ProcessPool:
    """Return the pool of step processes that these settings describe."""
    limits = Limits(settings.step_memory_mib * 1024 * 1024, settings.step_stall_seconds)
    return ProcessPool(limits, settings.worker_processes, log_format=settings.log_format, modules=list(modules))


@asynccontextmanager
async def opened(executor: Executor) -> AsyncGenerator[None]:
    """Have the executor ready within the block."""
    await executor.open()
    try:
        yield
    finally:
        await executor.close()
