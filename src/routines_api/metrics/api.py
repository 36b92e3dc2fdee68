"""The metrics of an API process: its requests, its connections and the database's metrics."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from litestar.types import HTTPScope
from prometheus_client import Counter, Gauge

from routines_api.metrics.database import DatabaseMetrics
from routines_core.db.pool import PoolState
from routines_core.metrics.distribution import Distribution
from routines_core.metrics.listener import ProgramHealth
from routines_core.metrics.program import ProgramMetrics

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
"""The methods that have handlers."""
NONE = "none"
"""The label for an unknown route, an unknown method, or a request that ended before its answer."""


class ApiMetrics(ProgramMetrics):
    """The metrics of one API process; docs/run/metrics.md explains each.

    Attributes:
        database: The metrics that the database is queried for.
    """

    def __init__(self, database_url: str) -> None:
        super().__init__("api")
        self._count_requests()
        self._pool: Callable[[], PoolState] = lambda: PoolState(0, 0, 0)
        self._gauge_pool()
        self.database = DatabaseMetrics(database_url, self.loop_failed)
        self.registry.register(self.database)
        self.refreshes.append(self.database.refresh)

    def _count_requests(self) -> None:
        registry = self.registry
        self._requests = Counter(
            "routines_api_requests_total",
            "Requests answered, by route template, method and status.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._durations = Distribution(
            registry,
            "routines_api_request_duration_seconds",
            "Time from the headers of a request to the end of its answer.",
            labels=["route", "method"],
        )
        self._answered: dict[tuple[str, str, str], Counter] = {}
        self._in_flight = 0
        Gauge("routines_api_requests_in_flight", "Requests being processed.", registry=registry).set_function(
            lambda: self._in_flight
        )
        self._rate_limited = Counter(
            "routines_api_rate_limited_total", "Requests answered with 429.", registry=registry
        )

        self._refused = Counter(
            "routines_api_refused_total",
            "Requests refused to protect the service, by type of problem.",
            ["reason"],
            registry=registry,
        )

    def refused(self, reason: str) -> None:
        """Count a request that was refused to protect the service; `reason` is its type of problem."""
        self._refused.labels(reason).inc()

    def _gauge_pool(self) -> None:
        registry = self.registry
        Gauge(
            "routines_api_pool_connections", "Connections in the pool to the database.", registry=registry
        ).set_function(lambda: self._pool().connections)
        Gauge(
            "routines_api_pool_idle_connections", "Connections in the pool that no request uses.", registry=registry
        ).set_function(lambda: self._pool().idle)
        Gauge("routines_api_pool_waiting", "Requests waiting for a connection.", registry=registry).set_function(
            lambda: self._pool().waiting
        )

    def follow(self, pool: Callable[[], PoolState]) -> None:
        """Report the state of this pool from now on."""
        self._pool = pool

    def begin(self) -> float:
        """Count a request that begins. Returns the time, by the monotonic clock."""
        self._in_flight += 1
        return time.monotonic()

    def end(self, scope: HTTPScope, began_at: float, answered_with: int | None) -> None:
        """Count a request that has ended, with the HTTP status of its answer; None if it has not been answered."""
        self._in_flight -= 1
        route = cast("dict[str, Any]", scope).get("path_template") or NONE
        method = scope["method"] if scope["method"] in METHODS else NONE
        status = NONE if answered_with is None else str(int(answered_with))
        labels = (route, method, status)
        if (answered := self._answered.get(labels)) is None:
            answered = self._answered[labels] = self._requests.labels(*labels)
        answered.inc()
        self._durations.observe(time.monotonic() - began_at, route, method)
        if answered_with == HTTPStatus.TOO_MANY_REQUESTS:
            self._rate_limited.inc()

    async def health(self) -> ProgramHealth:
        """Return the health of the process: it is healthy if the database answers."""
        await self.database.refresh()
        return ProgramHealth(self.database.is_up, 0.0)
