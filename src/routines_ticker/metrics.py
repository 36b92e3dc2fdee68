"""The metrics of a ticker. They are updated once per batch, so a fire costs nothing extra."""

import time
from collections.abc import Generator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge

from routines_core.db.tick import Tick
from routines_core.metrics.distribution import DELAY_BUCKETS, Distribution
from routines_core.metrics.listener import ProgramHealth
from routines_core.metrics.program import ProgramMetrics

REASONS = ("overlap", "coalesced", "missed", "failed_to_start", "calendar", "outside_hours", "backoff")
"""Why a slot did not start a run, as spelled in the ledger."""


class TickerMetrics(ProgramMetrics):
    """The metrics of one ticker; docs/run/metrics.md explains each."""

    def __init__(self) -> None:
        super().__init__("ticker")
        self._began_at = time.monotonic()
        self._succeeded_at: float | None = None
        self._count_batches()
        self._gauge_state()

    def _count_batches(self) -> None:
        registry = self.registry
        self._batches = Counter("routines_ticker_batches_total", "Ticks that succeeded.", registry=registry)
        self._claimed = Counter("routines_ticker_claimed_total", "Routines claimed.", registry=registry)
        self._fires = Counter("routines_ticker_fires_total", "Runs started.", registry=registry)
        self._skipped = Counter(
            "routines_ticker_skipped_slots_total",
            "Slots that did not start a run, by the ledger's reason.",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:
            self._skipped.labels(reason)
        self._paused = Counter(
            "routines_ticker_paused_total", "Routines paused after three strikes.", registry=registry
        )
        self.resumed = Counter(
            "routines_ticker_resumed_total", "Routines resumed because their pause was over.", registry=registry
        )
        self.backfill_runs = Counter(
            "routines_ticker_backfill_runs_total", "Runs started to fill slots afterwards.", registry=registry
        )
        self.set_aside = Counter(
            "routines_ticker_set_aside_total",
            "Times that a routine was set aside for a while, by the cause of its failed tick.",
            ["cause"],
            registry=registry,
        )
        for cause in ("moment", "routine"):
            self.set_aside.labels(cause)
        self._heartbeats = Counter(
            "routines_ticker_heartbeats_total",
            "Requests to ROUTINES_HEARTBEAT_URL, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("sent", "withheld", "failed"):
            self._heartbeats.labels(outcome)
        self._duration = Distribution(registry, "routines_ticker_batch_duration_seconds", "Duration of a tick.")
        self._delay = Distribution(
            registry, "routines_ticker_start_delay_seconds", "Delay from a slot to the start of its run.", DELAY_BUCKETS
        )

    def _gauge_state(self) -> None:
        registry = self.registry
        self.database_failures = Counter(
            "routines_ticker_database_failures_total",
            "Times that the connection to the database was lost or could not be made.",
            registry=registry,
        )
        self._is_connected = Gauge(
            "routines_ticker_database_connected", "1 while the ticker is connected to the database.", registry=registry
        )
        self.oldest_snapshot = Gauge(
            "routines_ticker_oldest_snapshot_seconds",
            "Age of the oldest open snapshot in the database, as of the last check.",
            registry=registry,
        )
        Gauge(
            "routines_ticker_since_success_seconds",
            "Time since the last tick or the last answer that nothing is due; before the first, since the start.",
            registry=registry,
        ).set_function(lambda: self.since_success() or time.monotonic() - self._began_at)

    def ticked(self, done: Tick, seconds: float) -> None:
        """Count a successful batch."""
        self.succeeded()
        self._batches.inc()
        self._duration.observe(seconds)
        if not done.claimed:
            return
        self._claimed.inc(done.claimed)
        self._fires.inc(done.fired)
        counts = (
            done.overlapped,
            done.coalesced,
            done.missed,
            len(done.struck_ids),
            done.excluded_by_calendar,
            done.outside_hours,
            done.backed_off,
        )
        for reason, count in zip(REASONS, counts, strict=True):
            self._skipped.labels(reason).inc(count)
        self._paused.inc(len(done.paused_ids))
        for delay, fires in zip(done.delay_seconds, done.fires_by_delay, strict=True):
            self._delay.observe(delay, times=fires)

    def beat(self, outcome: str) -> None:
        """Count a heartbeat that was sent, withheld because a routine is late, or failed."""
        self._heartbeats.labels(outcome).inc()

    def succeeded(self) -> None:
        """Record that the ticker did its work just now."""
        self._succeeded_at = time.monotonic()

    def since_success(self) -> float | None:
        """Return the seconds since the last success, or None before the first."""
        return None if self._succeeded_at is None else time.monotonic() - self._succeeded_at

    @contextmanager
    def connected(self) -> Generator[None]:
        """Report the ticker as connected within the block."""
        self._is_connected.set(1)
        try:
            yield
        finally:
            self._is_connected.set(0)

    async def health(self) -> ProgramHealth:
        """Return the ticker's health."""
        return ProgramHealth(
            self.registry.get_sample_value("routines_ticker_database_connected") == 1, self.since_success()
        )
