"""The Litestar application."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from typing import Any

import msgspec
from litestar import Controller, Litestar, Router, get
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.response import Response
from litestar.types import HTTPScope

from routines_api.endpoints import (
    alerts,
    audit,
    backfills,
    cadences,
    calendars,
    environment,
    feeds,
    limits,
    planning,
    report,
    reruns,
    runs,
    service,
    step_templates,
    tasks,
    timeline,
    trajectories,
)
from routines_api.endpoints.changes import get_changes, get_run_changes
from routines_api.endpoints.deliveries import DeliveriesController
from routines_api.endpoints.ledger import LedgerController, get_latest_outcomes
from routines_api.endpoints.routines import RoutinesController, get_init_params_schema
from routines_api.http.access import CONNECTIONS, ApiRequest, ApiServices, provide_auth, provide_caller, provide_door
from routines_api.http.byte_budget import ByteBudget
from routines_api.http.compression import Compressing, accepts_gzip
from routines_api.http.errors import HeadersTooLargeError
from routines_api.http.known_keys import KnownKeys
from routines_api.http.large_answers import HELD
from routines_api.http.limit_gate import LimitGate
from routines_api.http.problems import HANDLERS, send_answer
from routines_api.http.rate_limiter import RateLimiter
from routines_api.http.readiness import ReadinessCheck
from routines_api.http.run_waiter import RunWaiter
from routines_api.http.sending import Sending
from routines_api.http.tracing import begin_span, end_span
from routines_api.http.work import Work
from routines_api.metrics.api import METHODS, ApiMetrics
from routines_api.metrics.endpoint import metrics
from routines_api.openapi.description import describe, operation
from routines_api.schemas.service import Health
from routines_console.site import MOUNT, Console
from routines_core.bulkhead import Bulkhead
from routines_core.db import open_pool
from routines_core.db.peppers import Peppers
from routines_core.db.pool import state_of
from routines_core.errors import NotFoundError, RoutinesError
from routines_core.fair_gate import FairGate
from routines_core.files.opening import open_file_store
from routines_core.keyring import load_keyring
from routines_core.settings import Settings

_HANDLERS = [
    *tasks.HANDLERS,
    *environment.HANDLERS,
    *limits.HANDLERS,
    *runs.HANDLERS,
    *reruns.HANDLERS,
    *trajectories.HANDLERS,
    *step_templates.HANDLERS,
    get_run_changes,
]
"""Served whether or not ENABLE_ROUTINES is set."""
_ROUTINES_HANDLERS = [
    RoutinesController,
    LedgerController,
    DeliveriesController,
    get_init_params_schema,
    get_latest_outcomes,
    get_changes,
    *cadences.HANDLERS,
    *calendars.HANDLERS,
    *planning.HANDLERS,
    *report.HANDLERS,
    *timeline.HANDLERS,
    *audit.HANDLERS,
    *backfills.HANDLERS,
    *feeds.HANDLERS,
    *alerts.HANDLERS,
]
"""Served only with ENABLE_ROUTINES."""


@get("/health", tags=["Service"], **operation("getHealth"))
async def health() -> Health:
    """Check that the service answers.

    No key needed.
    """
    return Health()


@get("/openapi.json", include_in_schema=False)
async def openapi_json(request: ApiRequest) -> Response[bytes]:
    """Return the OpenAPI description; no key needed.

    It is made at the first request, in a thread, because that takes a tenth of a second.
    """
    app = request.app
    if not app.state.get("description"):
        app.state["description"] = asyncio.ensure_future(asyncio.to_thread(_description, app))
    return Response(await asyncio.shield(app.state["description"]), media_type="application/json")


@get("/docs", include_in_schema=False)
async def docs() -> Response[bytes]:
    """Return the description as a page for people, which loads nothing from other sites; no key needed."""
    page = resources.files("routines_api.openapi").joinpath("docs.html").read_bytes()
    return Response(page, media_type="text/html", headers=_PAGE_HEADERS)


_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _description(app: Litestar) -> bytes:
    return msgspec.json.encode(describe(app))


class _NoPages(Controller):
    """Replaces Litestar's own documentation pages, which load scripts from other sites."""


class Api(Litestar):
    """The application; it answers console requests and refuses some others before routing."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request and count it in the metrics."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        metrics, sending = self.metrics, Sending(send)
        began_at = metrics.begin()
        begin_span(scope)
        try:
            await self._answer(scope, receive, Compressing(sending) if accepts_gzip(scope["headers"]) else sending)
        finally:
            if held := scope.get(HELD):
                await held.aclose()
            metrics.end(scope, began_at, sending.status)
            end_span(scope, sending.status)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        console: Console | None = self.state.console
        if console and console.serves(scope["method"], scope["path"]):
            scope["path_template"] = MOUNT  # the route label for console requests in the metrics
            await console(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is None:
            await super().__call__(scope, receive, send)
        else:
            await send_answer(refused, send)

    @property
    def metrics(self) -> ApiMetrics:
        """The metrics of this process."""
        services: ApiServices = self.state.services
        return services.metrics

    @property
    def readiness(self) -> ReadinessCheck:
        """Whether this process can do its work."""
        return self.state.readiness

    def release_waiters(self) -> None:
        """Answer the requests that wait for a run to end; called when the process is about to stop."""
        services: ApiServices = self.state.services
        services.run_waiter.close()

    def _refused(self, scope: HTTPScope) -> RoutinesError | None:
        # Litestar would answer OPTIONS itself, and so reveal which paths exist.
        raw_path = scope["raw_path"].partition(b"?")[0]  # some servers add the query
        if scope["method"] not in METHODS or not raw_path.startswith(b"/") or b"%2f" in raw_path.lower():
            return NotFoundError()  # no name contains a slash, and proxies may read an encoded one differently
        services: ApiServices = self.state.services
        limit = services.settings.max_header_bytes
        if sum(len(name) + len(value) for name, value in scope["headers"]) > limit:
            return HeadersTooLargeError(f"The headers have more than {limit} bytes.")
        return None


def _shared(places: int) -> FairGate:
    """Return a gate in which one collection alone gets three quarters of the places.

    For places that are held for a long time. The last quarter is reserved for collections that hold few places, so a
    collection that arrives while another holds its maximum gets more than one.
    """
    return FairGate(places, reserve=places // 4, few=max(1, places // 20))


@asynccontextmanager
async def _pool(app: Litestar) -> AsyncGenerator[None]:
    services: ApiServices = app.state.services
    async with open_pool(
        app.state.database_url,
        "routines-api",
        size=CONNECTIONS,
        role="routines_api",
        statement_timeout="10s",
        lock_timeout="5s",
    ) as opened:
        app.state.pool = opened
        services.metrics.follow(partial(state_of, opened))
        services.run_waiter.bulkhead.count = services.metrics.loop_failed
        yield
        services.run_waiter.close()
        services.work.close()


def create_app(settings: Settings, database_url: str) -> Api:
    """Create the application. Its connection pool opens when it starts and closes when it stops.

    Raises:
        ConfigurationError: ROUTINES_ENCRYPTION_KEYS is missing or malformed, or ROUTINES_FILES cannot be used.
    """
    routines = _ROUTINES_HANDLERS if settings.enable_routines else []
    operators = limits.OPERATOR_HANDLERS if settings.operator_token else []
    app = Api(
        [
            Router("/api/v1", route_handlers=[health, *_HANDLERS, *routines, *operators]),
            openapi_json,
            docs,
            metrics,
            *service.HANDLERS,
        ],
        dependencies={
            "auth": Provide(provide_auth),
            "caller": Provide(provide_caller),
            "door": Provide(provide_door, sync_to_thread=False),
        },
        exception_handlers=HANDLERS,
        lifespan=[_pool],
        logging_config=None,  # Litestar's own would bypass configure_logging and log for every library
        request_max_body_size=None,  # limited where the body is read
        openapi_config=OpenAPIConfig(title="Routines", version="1", openapi_controller=_NoPages),  # pyright: ignore[reportArgumentType] - any controller does
    )
    furnish(app, settings, database_url)
    return app


def furnish(app: Api, settings: Settings, database_url: str) -> None:
    """Give an application that is not running what it works with. Its routes stay those that it was created with.

    Raises:
        ConfigurationError: As create_app.
    """
    keyring = load_keyring(settings)
    services = ApiServices(
        settings,
        keyring=keyring,
        keys=KnownKeys(Peppers(keyring)),
        limiter=RateLimiter(settings.rate_per_second, settings.rate_burst),
        limits=LimitGate(),
        files=open_file_store(settings),
        run_waiter=RunWaiter(_shared(settings.run_sync_waiters)),
        metrics=ApiMetrics(database_url),
        bodies=ByteBudget(settings.max_buffered_bytes, settings.max_buffered_bytes_per_collection),
        uploads=_shared(settings.max_uploads),
        work=Work(settings.work_seconds_per_minute),
    )
    app.state.services = services
    app.state.database_url = database_url
    app.state.console = Console() if settings.console else None
    app.state.readiness = ReadinessCheck(
        database_url, keyring, Bulkhead("readyz", services.metrics.loop_failed, longest_seconds=1)
    )
