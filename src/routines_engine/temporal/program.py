"""The worker of the Temporal engine: dispatcher, Temporal worker and reconciler in one program."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.worker import Worker

from routines_core.db.timeouts import within
from routines_core.lifecycle import wait_or_stop
from routines_core.logging import describe
from routines_core.settings import Settings
from routines_engine.loops import Job
from routines_engine.runs.base import DRAIN_SECONDS, WorkerBase, process_name, serve
from routines_engine.runs.claimed_run import ClaimedRun
from routines_engine.temporal.activities import Activities
from routines_engine.temporal.capacity import tuner_of
from routines_engine.temporal.connection import TemporalError, connect
from routines_engine.temporal.dispatcher import Dispatcher
from routines_engine.temporal.reconciler import Reconciler
from routines_engine.temporal.workflow import TemporalFlow

RECONNECT_SECONDS = 1.0
"""Delay before connecting to Temporal again after losing it."""
SHUTDOWN_SECONDS = 2.5
"""How long the SDK's worker may take to shut down."""
SETTLE_SECONDS = 1.0
"""How often the reconciler looks for runs to ask Temporal about."""
CANCEL_SECONDS = 0.4
"""How often the reconciler looks for runs to cancel in Temporal."""

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
            deadline_seconds=self.settings.run_deadline_seconds,
            payloads=self._payloads,
            executor=self.executor,
        )
        self._dispatcher = Dispatcher(
            self.settings, self._resources, lambda: self._client, self.name, self.wake, self.metrics
        )
        self._reconciler = Reconciler(self.settings, self._resources, lambda: self._client)

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
        return len(self._activities.claimed)

    def _since_renewal_seconds(self) -> float:
        return 0.0  # Temporal tracks its own heartbeats; there are no leases to renew

    def _capacity_freed(self) -> None:
        pass  # StepCapacity looks for itself

    def _may_wait(self, claimed: ClaimedRun) -> bool:
        del claimed
        return True

    async def _give_up_runs(self) -> None:
        """Write what is queued: Temporal hands the runs to other workers on its own."""
        try:
            await within(DRAIN_SECONDS, self._journal.settled())
        except Exception as error:  # noqa: BLE001 - whatever it is, the program is about to end
            log.warning("checkpoints not written", **describe(error))

    async def _serve_temporal(self) -> bool:
        """Connect to Temporal, and do steps until `stop` is set or the connection fails for good."""
        try:
            self._client = await self._connected()
        except TemporalError as error:
            if not self._is_away:
                log.warning("Temporal unavailable, runs stay pending", cause=str(error))
            self._is_away = True
            return False
        self._is_away = False
        if self._client:
            await self._do_steps(self._client)
        self._client = None
        return False

    async def _connected(self) -> Client | None:
        """Return a client; None if the program stops first.

        Raises:
            TemporalError: Temporal cannot be reached or used.
        """
        connecting = asyncio.create_task(connect(self.settings))
        await wait_or_stop(self.stop, [connecting])
        if connecting.done():
            return connecting.result()
        connecting.cancel()
        return None

    async def _do_steps(self, client: Client) -> None:
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
        if not working.done() and not await _is_shut_down(worker, working):
            return
        try:
            await working
        except Exception as error:  # noqa: BLE001 - whatever made the SDK give up, a new connection may work
            log.warning("Temporal worker ended, restarting it", error=type(error).__name__)


async def _is_shut_down(worker: Worker, working: asyncio.Task[None]) -> bool:
    """Shut the SDK's worker down. Returns False if Temporal does not answer: it would wait minutes for that."""
    shutting_down = asyncio.create_task(worker.shutdown())
    await asyncio.wait({working}, timeout=SHUTDOWN_SECONDS)
    shutting_down.cancel()
    if not working.done():
        working.cancel()
        log.warning("Temporal does not answer, other workers continue its runs")
    return working.done()


async def run_temporal_worker(settings: Settings, database_url: str, modules: Sequence[str] = ()) -> None:
    """Run a worker of the Temporal engine, with webhook deliveries and retention, until SIGTERM or SIGINT.

    Step processes import `modules` too, where more activities are.

    Raises:
        ConfigurationError: The encryption keys are missing or malformed, or a TLS file cannot be read.
    """
    await serve(settings, database_url, TemporalWorker, modules)
