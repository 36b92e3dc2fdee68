"""`routines worker` with ROUTINES_ENGINE=temporal: dispatcher, worker of Temporal and reconciler in one program."""

import asyncio
import os
import socket
import time
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.worker import Worker

from routines_core.db import Pool, open_pool, runs
from routines_core.db.pool import LOST
from routines_core.db.timeouts import within
from routines_core.files.opening import open_file_store
from routines_core.keyring import Keyring, load_keyring
from routines_core.lifecycle import sleep_or_stop, stop_event, wait_or_stop
from routines_core.metrics.listener import listening
from routines_core.settings import Settings
from routines_engine.loops import repeat, woken
from routines_engine.metrics import WorkerLoad, WorkerMetrics
from routines_engine.retention.history import run_retention
from routines_engine.runs.child_waiter import ChildWaiter
from routines_engine.runs.journal import Journal
from routines_engine.runs.services import WorkerResources
from routines_engine.runs.worker import (
    CHILDREN_SECONDS,
    CONNECTIONS,
    DRAIN_SECONDS,
    HELD_SECONDS,
    REAP_COST_FACTOR,
    REAP_SECONDS,
)
from routines_engine.temporal.activities import Activities
from routines_engine.temporal.capacity import tuner_of
from routines_engine.temporal.connection import TemporalError, connect
from routines_engine.temporal.dispatcher import Dispatcher
from routines_engine.temporal.reconciler import Reconciler
from routines_engine.temporal.workflow import TemporalFlow
from routines_engine.webhooks.deliveries import run_deliveries
from routines_workflow.catalogue import load_entry_points

RECONNECT_SECONDS = 1.0
"""The wait before Temporal is tried again once it was away."""
SETTLE_SECONDS = 1.0
"""How often it is looked whether a run has to be asked for in Temporal."""
TELL_SECONDS = 0.4
"""How often it is looked whether runs were taken from Temporal."""

log = structlog.get_logger("temporal")


@dataclass
class TemporalWorker:
    """One worker of Temporal; any number may run against one database, beside workers of the other engine.

    Attributes:
        settings: Slots, lease, deadline, and where Temporal is.
        pool: Connections to the database.
        stop: Set from outside: nothing more is dispatched, and steps in hand are left to other workers.
        keyring: Opens the secrets of its runs.
        name: What runs in its hands bear.
        wake: Set when there may be something to dispatch.
        metrics: Told of what it does.
    """

    settings: Settings
    pool: Pool
    stop: asyncio.Event
    keyring: Keyring
    name: str = field(default_factory=lambda: f"temporal:{socket.gethostname()}:{os.getpid()}")
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    _client: Client | None = None

    def __post_init__(self) -> None:
        patience_seconds = self.settings.lease_seconds / 3
        self._journal = Journal(self.pool, self.settings.lease_seconds, self.metrics)
        self._child_waiter = ChildWaiter(self.pool, patience_seconds)
        files = open_file_store(self.settings)
        # A step that waits frees its slot by itself: see slots.py.
        self._engine = WorkerResources(
            self.pool, self.keyring, files, self._child_waiter, lambda: None, patience_seconds
        )
        self._activities = Activities(
            self._engine,
            self._journal,
            self.name,
            deadline_seconds=self.settings.run_deadline_seconds,
            allow_private=self.settings.webhook_allow_private,
        )
        self._dispatcher = Dispatcher(
            self.settings, self._engine, lambda: self._client, self.name, self.wake, self.metrics
        )
        self._reconciler = Reconciler(self.settings, self._engine, lambda: self._client)
        # Temporal asks for the leases: none is renewed here.
        self.metrics.follow(
            WorkerLoad(self.settings.worker_concurrency, lambda: len(self._activities.held), lambda: 0.0)
        )

    async def run(self) -> None:
        """Dispatch, do steps, reconcile and reap until `stop` is set; then leave what is in hand."""
        journal = asyncio.create_task(self._journal.run())
        try:
            async with asyncio.TaskGroup() as loops:
                for job, seconds in (
                    (self._dispatcher.dispatch, 0),
                    (self._activities.drop_lost, HELD_SECONDS),
                    (self._child_waiter.look, CHILDREN_SECONDS),
                    (self._reconciler.cancel_taken, TELL_SECONDS),
                    (self._reconciler.settle, SETTLE_SECONDS),
                    (self._reap, REAP_SECONDS),
                ):
                    loops.create_task(repeat(self.stop, job, seconds, self.metrics))
                loops.create_task(self._serve())
                loops.create_task(self._wake_at_stop())
            await self._drain()
        finally:
            journal.cancel()

    async def _drain(self) -> None:
        try:
            await within(DRAIN_SECONDS, self._journal.settled())
        except LOST as error:
            log.warning("not all was written", error=type(error).__name__)

    async def _wake_at_stop(self) -> None:
        await self.stop.wait()
        self.wake.set()
        self._child_waiter.wanted.set()

    async def _serve(self) -> None:
        """Work for Temporal, over every loss of it."""
        is_away = False
        while not self.stop.is_set():
            try:
                self._client = await connect(self.settings)
            except TemporalError as error:
                if not is_away:
                    log.warning("Temporal away, runs stay pending", cause=str(error))
                is_away = True
                await sleep_or_stop(self.stop, RECONNECT_SECONDS)
                continue
            is_away = False
            await self._work(self._client)
            self._client = None
            await sleep_or_stop(self.stop, RECONNECT_SECONDS)

    async def _work(self, client: Client) -> None:
        """Do steps until `stop` is set, or the SDK gives up."""
        worker = Worker(
            client,
            task_queue=self.settings.temporal_task_queue,
            workflows=[TemporalFlow],
            activities=[self._activities.step, self._activities.end],
            tuner=tuner_of(self.settings.worker_concurrency, self._activities.waiting),
            identity=self.name,
            max_heartbeat_throttle_interval=timedelta(seconds=min(5.0, self.settings.lease_seconds / 4)),
            graceful_shutdown_timeout=timedelta(0),
        )
        working = asyncio.create_task(worker.run())
        log.info("working for Temporal", address=self.settings.temporal_address, namespace=client.namespace)
        await wait_or_stop(self.stop, [working])
        if not working.done():
            await worker.shutdown()
        try:
            await working
        except Exception as error:  # noqa: BLE001 - whatever the SDK gives up for, another connection may do
            log.warning("the worker of Temporal ended, trying again", error=type(error).__name__)

    async def _reap(self) -> bool:
        """Runs past their deadline fail, whoever has them; those of lost workers of the other engine go back."""
        began_at = time.monotonic()
        reaped = await self._engine.ask_once(runs.reap)
        self.metrics.answered()
        for run in reaped:
            self.metrics.reaped.labels(run.status).inc()
            log.warning("run reaped", trajectory_id=run.id, status=run.status, crashes=run.crashes)
            self.wake.set()
        await sleep_or_stop(self.stop, REAP_COST_FACTOR * (time.monotonic() - began_at) - REAP_SECONDS)
        return False


async def run_temporal_worker(settings: Settings, database_url: str) -> None:
    """Work until SIGTERM or SIGINT, over every loss of the database and of Temporal.

    Raises:
        ConfigurationError: The encryption keys are missing or malformed, or a file for TLS cannot be read.
    """
    keyring, stop = load_keyring(settings), stop_event()
    load_entry_points()
    async with open_pool(
        database_url, "routines-worker", size=CONNECTIONS, role="routines_worker", statement_timeout="30s"
    ) as pool:
        worker = TemporalWorker(settings, pool, stop, keyring)
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
