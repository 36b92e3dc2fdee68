"""The database's figures on a page of metrics: asked when somebody looks, now and then, within a time limit."""

import asyncio
import time
from collections.abc import Iterable
from typing import NamedTuple

import structlog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from routines_core.db import Connection, connect
from routines_core.db import metrics as db
from routines_core.db.pool import LOST
from routines_core.db.timeouts import within
from routines_core.errors import DatabaseError, NotFoundError
from routines_core.logging import describe

KEPT_SECONDS = 5.0
"""How long figures are shown before they are asked again, however often somebody looks."""
STATEMENT_TIMEOUT = "1s"
"""No figure takes so long; one that does is an error of its own."""
LIMIT_SECONDS = 3.0
"""For all of them, with the connection: well within the 10 s that Prometheus gives a scrape."""

log = structlog.get_logger("metrics")


class Shown(NamedTuple):
    """One metric: a field of a record of routines_core.db.metrics."""

    name: str
    field: str
    documentation: str
    labels: dict[str, str] = {}  # noqa: RUF012 - never changed


_SKIPPED = "Slots that were recorded as skipped in the last hour; the newest 10,000 skips are looked at."
_ACTIVE = "Runs that have not ended; the first 10,000 are looked at."
SHOWN: dict[str, tuple[Shown, ...]] = {
    "routines": (
        Shown("routines_due", "due", "Routines that are due now, counted up to 10,000."),
        Shown("routines_oldest_due_seconds", "oldest_due_seconds", "For how long the oldest slot has been due."),
        Shown("routines_paused_by_strikes", "paused_by_strikes", "Routines that the scheduler itself has paused."),
    ),
    "skips": tuple(
        Shown("routines_skipped_slots_last_hour", reason, _SKIPPED, {"reason": reason})
        for reason in ("overlap", "missed", "paused", "failed_to_start")
    ),
    "runs": (
        Shown("routines_active_runs", "pending", _ACTIVE, {"status": "pending"}),
        Shown("routines_active_runs", "running", _ACTIVE, {"status": "running"}),
        Shown(
            "routines_oldest_pending_run_seconds",
            "oldest_pending_seconds",
            "For how long the oldest run has waited for a worker.",
        ),
    ),
    "deliveries": (
        Shown("routines_deliveries_due", "due", "Webhooks that are due and that no worker has, up to 10,000."),
        Shown("routines_oldest_due_delivery_seconds", "oldest_due_seconds", "For how long the oldest has been due."),
    ),
    "programs": (
        Shown("routines_tickers_connected", "tickers", "Tickers that are connected to the database."),
        Shown("routines_workers_connected", "workers", "Workers that are connected to the database."),
    ),
    "snapshots": (
        Shown("routines_oldest_snapshot_seconds", "oldest_seconds", "Age of the oldest open snapshot of the database."),
    ),
    "schema": (Shown("routines_schema_version", "version", "The number of the last migration that was applied."),),
}  # fmt: skip
"""By the name of the statement that tells them."""


class DatabaseFigures(Collector):
    """The figures of one database, as one process shows them.

    Attributes:
        is_up: Whether the database answered, the last time that it was asked.
    """

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._found: dict[str, db.Metrics] = {}
        self._failed: set[str] = set(SHOWN)
        self._asked_at: float | None = None
        self._took_seconds = 0.0
        self._asking = asyncio.Lock()
        self.is_up = False

    async def refresh(self) -> None:
        """Ask the database, unless that was done a moment ago; whoever comes meanwhile waits for the same answer."""
        async with self._asking:
            if self._asked_at is not None and time.monotonic() - self._asked_at < KEPT_SECONDS:
                return
            began_at = time.monotonic()
            self._found, self.is_up = {}, False
            try:
                await within(LIMIT_SECONDS, self._ask())
            except (*LOST, DatabaseError) as error:
                log.warning("figures of the database not read", **describe(error))
            self._failed = set(SHOWN) - set(self._found)
            self._asked_at = time.monotonic()
            self._took_seconds = self._asked_at - began_at

    async def _ask(self) -> None:
        """On a connection of its own: neither does a scrape wait for requests, nor they for it."""
        async with connect(
            self._database_url, "routines-metrics", role="routines_api", statement_timeout=STATEMENT_TIMEOUT
        ) as connection:
            for kind in db.KINDS:
                await self._ask_for(connection, kind)

    async def _ask_for(self, connection: Connection, kind: str) -> None:
        try:
            self._found[kind] = await db.KINDS[kind](connection)
        except (*LOST, NotFoundError) as error:
            if connection.closed:
                raise
            log.info("figures not known", figure=kind, **describe(error))
        self.is_up = True

    def describe(self) -> Iterable[Metric]:
        """No names: what is not known is not there."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """What was found, and what was not."""
        yield GaugeMetricFamily("routines_database_up", "1 where the database answered.", value=float(self.is_up))
        failed = GaugeMetricFamily(
            "routines_database_figure_error", "1 where these figures could not be read.", labels=["figure"]
        )
        for kind in SHOWN:
            failed.add_metric([kind], float(kind in self._failed))
        yield failed
        yield GaugeMetricFamily(
            "routines_database_figures_duration_seconds", "How long it took to read them.", value=self._took_seconds
        )
        for kind, found in self._found.items():
            yield from _families(kind, found)


def _families(kind: str, found: db.Metrics) -> Iterable[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for shown in SHOWN[kind]:
        family = families.setdefault(
            shown.name, GaugeMetricFamily(shown.name, shown.documentation, labels=list(shown.labels))
        )
        family.add_metric(list(shown.labels.values()), float(getattr(found, shown.field)))
    return families.values()
