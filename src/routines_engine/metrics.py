"""The metrics of a worker: its runs, their steps, its leases and the webhooks it delivers."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from routines_core.db.alerts import Judged
from routines_core.metrics.distribution import DELAY_BUCKETS, DURATION_BUCKETS, Distribution
from routines_core.metrics.listener import ProgramHealth
from routines_core.metrics.program import ProgramMetrics
from routines_engine.sandbox.messages import RecordedStep
from routines_workflow.activity import ACTIVITIES

RUN_BUCKETS = (*DURATION_BUCKETS, 900, 3600)
"""Seconds. Runs have a deadline of one hour by default."""
UNKNOWN = "unknown"
"""The label of a step whose activity does not exist: labels must not contain what a tenant wrote."""
DELIVERED, FAILED, GIVEN_UP, LOST = "delivered", "failed", "given_up", "lost"
"""Outcomes of a delivery attempt: accepted, to be retried, not to be retried, no longer this worker's."""
ANSWER_SECONDS = 10.0
"""A worker without an answer from the database for this long counts as cut off; even an idle one asks every second."""


@dataclass(frozen=True)
class WorkerLoad:
    """How busy a worker is. The callables are called each time the metrics are read.

    Attributes:
        concurrency: Maximum number of runs at once.
        in_use: How much of the concurrency is in use.
        since_renewal_seconds: Seconds since the oldest lease was renewed; 0 if there is none.
    """

    concurrency: int
    in_use: Callable[[], int]
    since_renewal_seconds: Callable[[], float]


class WorkerMetrics(ProgramMetrics):
    """The metrics of one worker; docs/run/metrics.md explains each."""

    def __init__(self) -> None:
        super().__init__("worker")
        self._began_at = time.monotonic()
        self._claimed_at: float | None = None
        self._answered_at: float | None = None
        self._load = WorkerLoad(0, lambda: 0, lambda: 0.0)
        self._register_runs()
        self._register_capacity()
        self._register_losses()
        self._register_leases()
        self._register_database()
        self._register_deliveries()
        self._register_alerts()

    def _register_runs(self) -> None:
        self._claimed = Counter("routines_worker_claimed_total", "Runs claimed.", registry=self.registry)
        self._steps = Counter(
            "routines_worker_steps_total",
            "Steps recorded, by activity and outcome.",
            ["activity", "outcome"],
            registry=self.registry,
        )
        self._runs = Distribution(
            self.registry,
            "routines_worker_run_duration_seconds",
            "Time from claim to end of the runs that this worker ended, by final status.",
            RUN_BUCKETS,
            ["status"],
        )

    def _register_capacity(self) -> None:
        Gauge(
            "routines_worker_concurrency",
            "Maximum number of runs that the worker executes at once.",
            registry=self.registry,
        ).set_function(self._concurrency)
        Gauge(
            "routines_worker_concurrency_in_use", "Claimed runs that take capacity.", registry=self.registry
        ).set_function(self._in_use)
        Gauge(
            "routines_worker_since_claim_seconds",
            "Seconds since the worker last asked for runs, or since its start; 0 while it is at full capacity.",
            registry=self.registry,
        ).set_function(lambda: self._since(self._asked_at()))

    def _register_losses(self) -> None:
        self.lost_runs = Counter(
            "routines_worker_lost_runs_total",
            "Runs that the worker had to stop, by cause: taken (cancelled or taken away), lease (not renewed in time).",
            ["cause"],
            registry=self.registry,
        )
        for cause in ("taken", "lease"):
            self.lost_runs.labels(cause)
        self.fenced_writes = Counter(
            "routines_worker_fenced_writes_total",
            "Writes that the database refused because the run no longer belonged to this worker.",
            registry=self.registry,
        )
        self.reaped = Counter(
            "routines_worker_reaped_total",
            "Runs taken from lost workers or past their deadline, by resulting status.",
            ["status"],
            registry=self.registry,
        )
        for status in ("pending", "failed"):
            self.reaped.labels(status)

    def _register_leases(self) -> None:
        self.heartbeat_lateness = Distribution(
            self.registry,
            "routines_worker_heartbeat_lateness_seconds",
            "How late the leases were renewed.",
            DELAY_BUCKETS,
        )
        Gauge(
            "routines_worker_since_renewal_seconds",
            "Seconds since the oldest lease was renewed; 0 if no run is claimed.",
            registry=self.registry,
        ).set_function(self._since_renewal)

    def _register_database(self) -> None:
        self.database_failures = Counter(
            "routines_worker_database_failures_total",
            "Times that the database was lost, silent or unreachable.",
            registry=self.registry,
        )
        Gauge(
            "routines_worker_since_answer_seconds",
            "Seconds since the database last answered the worker, or since its start.",
            registry=self.registry,
        ).set_function(lambda: self._since(self._answered_at))

    def _register_deliveries(self) -> None:
        self._deliveries = Counter(
            "routines_worker_deliveries_total",
            "Delivery attempts, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in (DELIVERED, FAILED, GIVEN_UP, LOST):
            self._deliveries.labels(outcome)
        self._delivery_duration = Distribution(
            self.registry, "routines_worker_delivery_duration_seconds", "Duration of delivery attempts."
        )

    def _register_alerts(self) -> None:
        self._alerts = Counter(
            "routines_worker_alerts_total",
            "Alerts that this worker opened, or closed because they had recovered or were suppressed.",
            ["change"],
            registry=self.registry,
        )
        for change in ("opened", "recovered", "suppressed"):
            self._alerts.labels(change)
        self._notices = Counter(
            "routines_worker_notices_total", "Notices of alerts that this worker queued.", registry=self.registry
        )

    def follow(self, load: WorkerLoad) -> None:
        """Report the load of this worker from now on."""
        self._load = load

    def _concurrency(self) -> float:
        return self._load.concurrency

    def _in_use(self) -> float:
        return self._load.in_use()

    def _since_renewal(self) -> float:
        return self._load.since_renewal_seconds()

    def claimed(self, count: int) -> None:
        """Count a successful claim and the runs it returned."""
        self._claimed_at = time.monotonic()
        self._claimed.inc(count)

    def answered(self) -> None:
        """Note that the database has just answered."""
        self._answered_at = time.monotonic()

    def stepped(self, step: RecordedStep) -> None:
        """Count a recorded step if it ended or is to be retried; the start of a step is not counted."""
        outcome = "retried" if step.status == "running" and step.is_retry else step.status
        if outcome != "running":
            self._steps.labels(step.activity if step.activity in ACTIVITIES else UNKNOWN, outcome).inc()

    def run_ended(self, status: str, seconds: float) -> None:
        """Count a run whose end was written."""
        self._runs.observe(seconds, status)

    def attempted(self, outcome: str, seconds: float | None) -> None:
        """Count a delivery attempt; None for seconds means that nothing was sent."""
        self._deliveries.labels(outcome).inc()
        if seconds is not None:
            self._delivery_duration.observe(seconds)

    def judged(self, judged: Judged) -> None:
        """Count what a statement of a round of alerts did."""
        self._alerts.labels("opened").inc(judged.opened)
        self._alerts.labels("recovered").inc(judged.recovered)
        self._alerts.labels("suppressed").inc(judged.suppressed)
        self._notices.inc(judged.notices)

    def _asked_at(self) -> float | None:
        """Return when the worker last asked for runs; at full capacity it need not ask, so that counts as now."""
        is_full = self._load.in_use() >= self._load.concurrency > 0
        return time.monotonic() if is_full else self._claimed_at

    def _since(self, moment: float | None) -> float:
        return time.monotonic() - (self._began_at if moment is None else moment)

    async def health(self) -> ProgramHealth:
        """Return whether the database answers the worker, and how long ago the worker last asked for runs."""
        asked_at = self._asked_at()
        is_connected = self._answered_at is not None and self._since(self._answered_at) < ANSWER_SECONDS
        return ProgramHealth(is_connected, None if asked_at is None else self._since(asked_at))
