"""What an API process shows: its requests, its connections, the database's figures, and pages of other programs."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from litestar.types import HTTPScope, Message, Send
from prometheus_client import Counter, Gauge

from routines_api.metrics.database import DatabaseFigures
from routines_api.metrics.parts import Parts
from routines_core.db.pool import PoolState
from routines_core.metrics.distribution import Distribution
from routines_core.metrics.listener import ProgramHealth
from routines_core.metrics.program import ProgramMetrics
from routines_core.settings import Settings

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
"""What is served at all."""
NONE = "none"
"""The label of a request without a route, with a method that is not served, or that broke off before its answer."""


@dataclass(eq=False)
class Watched:
    """One request, followed to its end.

    Attributes:
        status: The HTTP status of its answer; None: there has been none.
    """

    began_at: float
    status: int | None = None

    def sending(self, send: Send) -> Send:
        """The same as `send`, with the status noted."""

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            await send(message)

        return noted


class ApiMetrics(ProgramMetrics):
    """The metrics of one API process; docs/metrics.md says what each means.

    Attributes:
        figures: Of the database.
        parts: Pages of other programs.
    """

    def __init__(self, settings: Settings, database_url: str) -> None:
        super().__init__("api")
        self._count_requests()
        self._pool: Callable[[], PoolState] = lambda: PoolState(0, 0, 0)
        self._gauge_pool()
        self.figures = DatabaseFigures(database_url)
        self.registry.register(self.figures)
        self.refreshes.append(self.figures.refresh)
        self.parts = Parts(settings.metrics_parts, settings.metrics_token)
        if self.parts.names:
            self.registry.register(self.parts)
            self.refreshes.append(self.parts.refresh)

    def _count_requests(self) -> None:
        registry = self.registry
        self._requests = Counter(
            "routines_api_requests_total",
            "Requests that were answered, by the template of their route.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._durations = Distribution(
            registry,
            "routines_api_request_duration_seconds",
            "From the headers of a request to the end of its answer.",
            labels=["route", "method"],
        )
        self._answered: dict[tuple[str, str, str], Counter] = {}
        self._in_hand = 0
        Gauge("routines_api_requests_in_flight", "Requests in hand.", registry=registry).set_function(
            lambda: self._in_hand
        )
        self._rate_limited = Counter(
            "routines_api_rate_limited_total", "Requests that were answered 429.", registry=registry
        )

    def _gauge_pool(self) -> None:
        registry = self.registry
        Gauge("routines_api_pool_connections", "Connections to the database.", registry=registry).set_function(
            lambda: self._pool().connections
        )
        Gauge("routines_api_pool_idle_connections", "Those that no request uses.", registry=registry).set_function(
            lambda: self._pool().idle
        )
        Gauge("routines_api_pool_waiting", "Requests that wait for a connection.", registry=registry).set_function(
            lambda: self._pool().waiting
        )

    def follow(self, pool: Callable[[], PoolState]) -> None:
        """Show the state of this pool."""
        self._pool = pool

    def begin(self) -> Watched:
        """Follow a request from now on."""
        self._in_hand += 1
        return Watched(time.monotonic())

    def end(self, watched: Watched, scope: HTTPScope) -> None:
        """Count it."""
        self._in_hand -= 1
        route = cast("dict[str, Any]", scope).get("path_template") or NONE
        method = scope["method"] if scope["method"] in METHODS else NONE
        status = NONE if watched.status is None else str(int(watched.status))
        labels = (route, method, status)
        if (answered := self._answered.get(labels)) is None:
            answered = self._answered[labels] = self._requests.labels(*labels)
        answered.inc()
        self._durations.observe(time.monotonic() - watched.began_at, route, method)
        if watched.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._rate_limited.inc()

    async def health(self) -> ProgramHealth:
        """How the process is: it is well where the database answers."""
        await self.figures.refresh()
        return ProgramHealth(self.figures.is_up, 0.0)
