"""What a worker shows of itself: its runs, their steps, its leases and the webhooks that it delivers."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from routines_core.db.runs import StepRecord
from routines_core.metrics.distribution import DELAY_BUCKETS, DURATION_BUCKETS, Distribution
from routines_core.metrics.listener import ProgramHealth
from routines_core.metrics.program import ProgramMetrics
from routines_workflow.activity import ACTIVITIES

RUN_BUCKETS = (*DURATION_BUCKETS, 900, 3600)
"""Seconds: for runs, whose deadline is an hour where none is set."""
UNKNOWN = "unknown"
"""What a step is counted under whose workflow names an activity that there is not."""
DELIVERED, FAILED, GIVEN_UP, LOST = "delivered", "failed", "given_up", "lost"
"""How an attempt at a webhook ends: taken, to be tried again, not to be tried again, no longer this worker's."""
ANSWER_SECONDS = 10.0
"""Without an answer of the database for so long a worker counts as cut off: an idle one asks every second."""


@dataclass(frozen=True)
class WorkerLoad:
    """What a worker has in hand, asked for each page.

    Attributes:
        slots: The most runs at once.
        slots_in_use: Those that take a slot now.
        since_renewal_seconds: Since the lease that is oldest was renewed; 0: there is none.
    """

    slots: int
    slots_in_use: Callable[[], int]
    since_renewal_seconds: Callable[[], float]


class WorkerMetrics(ProgramMetrics):
    """The metrics of one worker; docs/metrics.md says what each means."""

    def __init__(self) -> None:
        super().__init__("worker")
        self._began_at = time.monotonic()
        self._claimed_at: float | None = None
        self._answered_at: float | None = None
        self._load = WorkerLoad(0, lambda: 0, lambda: 0.0)
        self._count_runs()
        self._count_leases()
        self._count_deliveries()

    def _count_runs(self) -> None:
        registry = self.registry
        self._claimed = Counter("routines_worker_claimed_total", "Runs that it claimed.", registry=registry)
        self._steps = Counter(
            "routines_worker_steps_total",
            "Steps that were recorded, by activity and how they went.",
            ["activity", "outcome"],
            registry=registry,
        )
        self._runs = Distribution(
            registry,
            "routines_worker_run_duration_seconds",
            "From the claim to the end of a run that it ended, by the final status.",
            RUN_BUCKETS,
            ["status"],
        )
        Gauge("routines_worker_slots", "The most runs that it has in hand at once.", registry=registry).set_function(
            self._slots
        )
        Gauge("routines_worker_slots_in_use", "Runs in hand that take a slot.", registry=registry).set_function(
            self._slots_in_use
        )
        Gauge(
            "routines_worker_since_claim_seconds",
            "Since it last asked for runs with success; 0 while every slot is taken; since its start before that.",
            registry=registry,
        ).set_function(lambda: self._since(self._asked_at()))

    def _count_leases(self) -> None:
        registry = self.registry
        self.lost_runs = Counter(
            "routines_worker_lost_runs_total",
            "Runs that it had to stop, by why: taken (cancelled or taken away), lease (it could not be renewed).",
            ["cause"],
            registry=registry,
        )
        for cause in ("taken", "lease"):
            self.lost_runs.labels(cause)
        self.fenced_writes = Counter(
            "routines_worker_fenced_writes_total",
            "Writes that the database refused, since the run was no longer this worker's.",
            registry=registry,
        )
        self.reaped = Counter(
            "routines_worker_reaped_total",
            "Runs that it took from lost workers or past their deadline, by what became of them.",
            ["status"],
            registry=registry,
        )
        for status in ("pending", "failed"):
            self.reaped.labels(status)
        self.heartbeat_lateness = Distribution(
            registry,
            "routines_worker_heartbeat_lateness_seconds",
            "How much later than planned the leases were renewed.",
            DELAY_BUCKETS,
        )
        Gauge(
            "routines_worker_since_renewal_seconds",
            "Since the lease that is oldest was renewed; 0 where nothing is in hand.",
            registry=registry,
        ).set_function(self._since_renewal)
        self.database_failures = Counter(
            "routines_worker_database_failures_total",
            "Times that the database was lost, silent or could not be reached.",
            registry=registry,
        )
        Gauge(
            "routines_worker_since_answer_seconds",
            "Since the database last answered it; since its start before that.",
            registry=registry,
        ).set_function(lambda: self._since(self._answered_at))

    def _count_deliveries(self) -> None:
        self._deliveries = Counter(
            "routines_worker_deliveries_total",
            "Attempts at webhooks, by how they ended.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in (DELIVERED, FAILED, GIVEN_UP, LOST):
            self._deliveries.labels(outcome)
        self._delivery_duration = Distribution(
            self.registry, "routines_worker_delivery_duration_seconds", "How long attempts at webhooks took."
        )

    def follow(self, hands: WorkerLoad) -> None:
        """Show what this worker has in hand."""
        self._load = hands

    def _slots(self) -> float:
        return self._load.slots

    def _slots_in_use(self) -> float:
        return self._load.slots_in_use()

    def _since_renewal(self) -> float:
        return self._load.since_renewal_seconds()

    def claimed(self, count: int) -> None:
        """Count a claim that went through, and the runs that it gave."""
        self._claimed_at = time.monotonic()
        self._claimed.inc(count)

    def answered(self) -> None:
        """Note that the database answered, at this moment."""
        self._answered_at = time.monotonic()

    def stepped(self, step: StepRecord) -> None:
        """Count a step that was recorded: its end, or a try that is made again; its start counts nothing."""
        outcome = "retried" if step.status == "running" and step.failed_try is not None else step.status
        if outcome != "running":
            self._steps.labels(step.activity if step.activity in ACTIVITIES else UNKNOWN, outcome).inc()

    def run_ended(self, status: str, seconds: float) -> None:
        """Count a run whose end was written."""
        self._runs.observe(seconds, status)

    def attempted(self, outcome: str, seconds: float | None) -> None:
        """Count an attempt at a webhook; None: nothing was sent."""
        self._deliveries.labels(outcome).inc()
        if seconds is not None:
            self._delivery_duration.observe(seconds)

    def _asked_at(self) -> float | None:
        """When it last asked for runs, or had no slot for any."""
        is_full = self._load.slots_in_use() >= self._load.slots > 0
        return time.monotonic() if is_full else self._claimed_at

    def _since(self, moment: float | None) -> float:
        return time.monotonic() - (self._began_at if moment is None else moment)

    async def health(self) -> ProgramHealth:
        """How the worker is."""
        asked_at = self._asked_at()
        is_heard = self._answered_at is not None and self._since(self._answered_at) < ANSWER_SECONDS
        return ProgramHealth(is_heard, None if asked_at is None else self._since(asked_at))
