"""The database's metrics: queried on demand, at most once every few seconds, within a time limit."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, get_args

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from routines_core.bulkhead import Bulkhead
from routines_core.db import Connection, connect
from routines_core.db import metrics as db
from routines_core.db.report import Reason
from routines_core.db.timeouts import within

KEPT_SECONDS = 5.0
"""How long results are reused before the database is queried again, however frequent the scrapes."""
STATEMENT_TIMEOUT = "1s"
"""The limit for one group of metrics; a group that takes longer is reported as failed."""
LIMIT_SECONDS = 3.0
"""The limit for connecting and querying all groups: well within the 10 s that Prometheus gives a scrape."""


class Shown(NamedTuple):
    """One metric, read from a field of a struct of routines_core.db.metrics."""

    name: str
    field: str
    documentation: str
    labels: dict[str, str] = {}  # noqa: RUF012 - never changed


_SKIPPED = "Slots recorded as skipped in the last hour, counted among the newest 10,000 skips."
_ACTIVE = "Runs that have not ended, counted among the first 10,000."
SHOWN: dict[str, tuple[Shown, ...]] = {
    "routines": (
        Shown("routines_due", "due", "Routines that are due now, counted up to 10,000."),
        Shown("routines_oldest_due_seconds", "oldest_due_seconds", "How long the oldest slot has been due."),
        Shown("routines_paused_by_strikes", "paused_by_strikes", "Routines paused by the scheduler."),
    ),
    "skips": tuple(
        Shown("routines_skipped_slots_last_hour", reason, _SKIPPED, {"reason": reason})
        for reason in get_args(Reason)
    ),
    "runs": (
        Shown("routines_active_runs", "pending", _ACTIVE, {"status": "pending"}),
        Shown("routines_active_runs", "running", _ACTIVE, {"status": "running"}),
        Shown(
            "routines_oldest_pending_run_seconds",
            "oldest_pending_seconds",
            "How long the oldest run has waited for a worker.",
        ),
    ),
    "deliveries": (
        Shown("routines_deliveries_due", "due", "Webhooks that are due and unclaimed, counted up to 10,000."),
        Shown("routines_oldest_due_delivery_seconds", "oldest_due_seconds", "How long the oldest one has been due."),
    ),
    "alerts": (
        Shown("routines_open_alerts", "open", "Open alerts, counted up to 10,000."),
        Shown("routines_untold_alerts", "untold", "Alerts whose notice is not queued yet, counted up to 10,000."),
        Shown(
            "routines_since_alert_round_seconds",
            "since_round_seconds",
            "Seconds since workers last made a whole round of judging alert rules; 0 if there are none.",
        ),
    ),
    "programs": (
        Shown("routines_tickers_connected", "tickers", "Tickers connected to the database."),
        Shown("routines_workers_connected", "workers", "Workers connected to the database."),
    ),
    "snapshots": (
        Shown("routines_oldest_snapshot_seconds", "oldest_seconds", "Age of the oldest open snapshot in the database."),
    ),
    "schema": (Shown("routines_schema_version", "version", "The number of the last applied migration."),),
}  # fmt: skip
"""The metrics of each group; a group is read by one statement, and its name is the key."""


class DatabaseMetrics(Collector):
    """Collects the metrics of one database for one process.

    Attributes:
        is_up: Whether the database answered when it was last queried.
    """

    def __init__(self, database_url: str, loop_failed: Callable[[str, str], None] = lambda _loop, _kind: None) -> None:
        self._database_url = database_url
        self._found: dict[str, db.Metrics] = {}
        self._failed: set[str] = set(SHOWN)
        self._queried_at: float | None = None
        self._took_seconds = 0.0
        self._querying = asyncio.Lock()
        self.is_up = False
        self._bulkhead = Bulkhead("metrics", loop_failed)
        self._bulkheads = {group: Bulkhead(f"metrics of {group}", loop_failed) for group in SHOWN}

    async def refresh(self) -> None:
        """Query the database unless the last results are fresh; concurrent calls wait for the same results."""
        async with self._querying:
            if self._queried_at is not None and time.monotonic() - self._queried_at < KEPT_SECONDS:
                return
            began_at = time.monotonic()
            self._found, self.is_up = {}, False
            try:
                await within(LIMIT_SECONDS, self._query())
            except Exception as error:  # noqa: BLE001 - a scrape must be answered, whatever is wrong
                self._bulkhead.failed(error)
            else:
                self._bulkhead.worked()
            self._failed = set(SHOWN) - set(self._found)
            self._queried_at = time.monotonic()
            self._took_seconds = self._queried_at - began_at

    async def _query(self) -> None:
        """Query every group on a separate connection, so that scrapes and requests never wait for each other."""
        async with connect(
            self._database_url, "routines-metrics", role="routines_api", statement_timeout=STATEMENT_TIMEOUT
        ) as connection:
            for group in db.KINDS:
                await self._query_group(connection, group)

    async def _query_group(self, connection: Connection, group: str) -> None:
        try:
            self._found[group] = await db.KINDS[group](connection)
        except Exception as error:
            if connection.closed:
                raise
            self._bulkheads[group].failed(error)
        else:
            self._bulkheads[group].worked()
        self.is_up = True

    def describe(self) -> Iterable[Metric]:
        """Return no names: which metrics there are depends on what could be read."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of the groups that were read, and which groups failed."""
        yield GaugeMetricFamily("routines_database_up", "1 if the database answered.", value=float(self.is_up))
        failed = GaugeMetricFamily(
            "routines_database_metrics_error", "1 if this group of metrics could not be read.", labels=["group"]
        )
        for group in SHOWN:
            failed.add_metric([group], float(group in self._failed))
        yield failed
        yield GaugeMetricFamily(
            "routines_database_metrics_duration_seconds",
            "How long it took to connect and read them.",
            value=self._took_seconds,
        )
        for group, found in self._found.items():
            yield from _families(group, found)


def _families(group: str, found: db.Metrics) -> Iterable[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for shown in SHOWN[group]:
        family = families.setdefault(
            shown.name, GaugeMetricFamily(shown.name, shown.documentation, labels=list(shown.labels))
        )
        family.add_metric(list(shown.labels.values()), float(getattr(found, shown.field)))
    return families.values()
