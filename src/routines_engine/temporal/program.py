"""The worker of the Temporal engine: dispatcher, Temporal worker and reconciler in one program."""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import (
    PollerBehaviorSimpleMaximum,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkerDeploymentConfig,
)

from routines_core.db.timeouts import within
from routines_core.distribution import installed_version
from routines_core.lifecycle import wait_or_stop
from routines_core.logging import describe
from routines_core.settings import Settings
from routines_engine.loops import Job
from routines_engine.runs.base import DRAIN_SECONDS, WorkerBase, process_name, serve
from routines_engine.runs.claimed_run import ClaimedRun
from routines_engine.temporal.activities import Activities
from routines_engine.temporal.capacity import MOST_HELD, POLLERS, cached_workflows_of, tuner_of
from routines_engine.temporal.connection import TemporalError, connect
from routines_engine.temporal.dispatcher import Dispatcher
from routines_engine.temporal.reconciler import Reconciler
from routines_engine.temporal.search_attributes import register
from routines_engine.temporal.submission import Submitter
from routines_engine.temporal.workflow import TemporalFlow

RECONNECT_SECONDS = 1.0
"""Delay before connecting to Temporal again after losing it."""
SHUTDOWN_SECONDS = 2.5
"""How long the SDK's worker may take to shut down."""
SETTLE_SECONDS = 1.0
"""How often the reconciler looks for runs to ask Temporal about."""
CANCEL_SECONDS = 0.4
"""How often the reconciler looks for runs to cancel in Temporal."""
STICKY_SECONDS = 5.0
"""How long the worker that has a workflow in memory gets to decide on it, before any other one does."""

log = structlog.get_logger("temporal")


@dataclass
class TemporalWorker(WorkerBase):
    """A worker of the Temporal engine. Workers of the Postgres engine may run alongside it."""

    name: str = field(default_factory=lambda: f"temporal:{process_name()}")
    _client: Client | None = None
    _is_away: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._activities = Activities(
            self._resources,
            self._journal,
            self.name,
            concurrency=self.settings.worker_concurrency,
            # Not the name alone: in a container each process may have the same one.
            task_queue=f"{self.settings.temporal_task_queue}/{self.name}/{secrets.token_hex(4)}",
            payloads=self._payloads,
            executor=self.executor,
            freed=self.wake.set,
        )
        self._submitter = Submitter(self.settings)
        self._dispatcher = Dispatcher(
            self.settings,
            self._resources,
            lambda: self._client,
            self._submitter,
            self._room,
            self.name,
            self.wake,
            self.metrics,
        )
        self._reconciler = Reconciler(self.settings, self._resources, lambda: self._client, self._submitter)

    def _jobs(self) -> Iterable[tuple[Job, float]]:
        return (
            (self._dispatcher.dispatch, 0),
            (self._serve_temporal, RECONNECT_SECONDS),
            (self._reconciler.cancel_taken, CANCEL_SECONDS),
            (self._reconciler.settle, SETTLE_SECONDS),
        )

    def _claimed_runs(self) -> list[ClaimedRun]:
        return list(self._activities.claimed)

    def _capacity_in_use(self) -> int:
        return self._activities.load()

    def _room(self) -> int:
        return 0 if self._activities.is_full else self.settings.worker_concurrency - self._activities.load()

    def _since_renewal_seconds(self) -> float:
        return 0.0  # Temporal tracks its own heartbeats; there are no leases to renew

    def _capacity_freed(self) -> None:
        self.wake.set()

    def _may_wait(self, claimed: ClaimedRun) -> bool:
        del claimed
        return True

    async def _give_up_runs(self) -> None:
        """Write what is queued. The runs were given to other workers before, through Temporal."""
        await self._dispatcher.close()
        try:
            await within(DRAIN_SECONDS, self._journal.settled())
        except Exception as error:  # noqa: BLE001 - whatever it is, the program is about to end
            log.warning("checkpoints not written", **describe(error))

    async def _serve_temporal(self) -> bool:
        """Connect to Temporal, and do steps until `stop` is set or the connection fails for good."""
        try:
            client = await self._connected()
        except TemporalError as error:
            if not self._is_away:
                log.warning("Temporal unavailable, runs stay pending", cause=str(error))
            self._is_away = True
            return False
        self._is_away = False
        if client:
            self._client = client
            await self._execute_runs(client)
        self._client = None
        return False

    async def _connected(self) -> Client | None:
        """Return a client; None if the program stops first.

        Raises:
            TemporalError: Temporal cannot be reached or used.
        """
        connecting = asyncio.create_task(self._connect())
        await wait_or_stop(self.stop, [connecting])
        if connecting.done():
            return connecting.result()
        connecting.cancel()
        return None

    async def _connect(self) -> Client:
        client = await connect(self.settings)
        self._submitter.has_attributes = await register(client)
        return client

    async def _execute_runs(self, client: Client) -> None:
        workers = [self._worker(client), self._holding_worker(client)]
        working = [asyncio.create_task(worker.run()) for worker in workers]
        log.info("working for Temporal", address=client.service_client.config.target_host, namespace=client.namespace)
        await wait_or_stop(self.stop, working)
        if self.stop.is_set():
            await self._activities.leave_all()
        if not await _are_shut_down(workers, working):
            return
        for ended in await asyncio.gather(*working, return_exceptions=True):
            if isinstance(ended, Exception):  # whatever made the SDK give up, a new connection may work
                log.warning("Temporal worker ended, restarting it", error=type(ended).__name__)

    def _worker(self, client: Client) -> Worker:
        """Return the SDK's worker that decides on workflows and executes runs."""
        concurrency = self.settings.worker_concurrency
        return Worker(
            client,
            task_queue=self.settings.temporal_task_queue,
            workflows=[TemporalFlow],
            activities=[self._activities.begin, self._activities.run, self._activities.cancel],
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_cached_workflows=cached_workflows_of(concurrency),
            tuner=tuner_of(concurrency, lambda: self._activities.is_full),
            workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(POLLERS),
            activity_task_poller_behavior=PollerBehaviorSimpleMaximum(POLLERS),
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=STICKY_SECONDS),
            deployment_config=_deployment_of(self.settings),
            identity=self.name,
            max_heartbeat_throttle_interval=timedelta(seconds=min(5.0, self.settings.lease_seconds / 4)),
            graceful_shutdown_timeout=timedelta(0),
        )

    def _holding_worker(self, client: Client) -> Worker:
        """Return the SDK's worker that answers for the runs that this process goes on with."""
        return Worker(
            client,
            task_queue=self._activities.task_queue,
            activities=[self._activities.hold],
            max_concurrent_activities=MOST_HELD,
            activity_task_poller_behavior=PollerBehaviorSimpleMaximum(POLLERS),
            identity=self.name,
            max_heartbeat_throttle_interval=timedelta(seconds=min(5.0, self.settings.lease_seconds / 4)),
            graceful_shutdown_timeout=timedelta(0),
        )


def _deployment_of(settings: Settings) -> WorkerDeploymentConfig | None:
    """Return the version that Temporal knows the worker by; None if the workers have no versions."""
    if settings.temporal_deployment is None:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.temporal_deployment, installed_version()),
        use_worker_versioning=True,
        # Every version replays the histories of the earlier ones: see docs/run/temporal.md.
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


async def _are_shut_down(workers: Sequence[Worker], working: Sequence[asyncio.Task[None]]) -> bool:
    """Shut the SDK's workers down. Returns False if Temporal does not answer: they would wait minutes for that."""
    pending = [(worker, task) for worker, task in zip(workers, working, strict=True) if not task.done()]
    if not pending:
        return True
    shutting_down = [asyncio.create_task(worker.shutdown()) for worker, _ in pending]
    _, late = await asyncio.wait([task for _, task in pending], timeout=SHUTDOWN_SECONDS)
    for task in (*shutting_down, *late):
        task.cancel()
    if late:
        log.warning("Temporal does not answer, other workers continue its runs")
    return not late


async def run_temporal_worker(settings: Settings, database_url: str, modules: Sequence[str] = ()) -> None:
    """Run a worker of the Temporal engine, with webhook deliveries and retention, until SIGTERM or SIGINT.

    Step processes import `modules` too, where more activities are.

    Raises:
        ConfigurationError: The encryption keys are missing or malformed, or a TLS file cannot be read.
    """
    await serve(settings, database_url, TemporalWorker, modules)
