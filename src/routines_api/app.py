"""The Litestar application and its server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from granian.constants import Interfaces
from granian.server.embed import Server
from litestar import Litestar, Router, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin

from routines_api.access import ApiRequest, provide_auth, provide_connection
from routines_api.problems import HANDLERS
from routines_api.routines import RoutinesController, get_init_params_schema
from routines_api.tasks import create_task, get_task, get_trajectory, list_tasks
from routines_core.db import open_pool
from routines_core.lifecycle import stop_event
from routines_core.settings import Settings

CONNECTIONS = 10
"""The API's connections to the database."""

log = structlog.get_logger("api")


@get("/health")
async def health() -> dict[str, str]:
    """The service answers; no key needed."""
    return {"status": "ok"}


@get("/openapi.json", include_in_schema=False)
async def openapi_json(request: ApiRequest) -> dict[str, Any]:
    """The description of the API; no key needed."""
    return request.app.openapi_schema.to_schema()


def create_app(settings: Settings, database_url: str) -> Litestar:
    """The application; its pool opens and closes with it."""

    @asynccontextmanager
    async def pool(app: Litestar) -> AsyncGenerator[None]:
        async with open_pool(database_url, "routines-api", size=CONNECTIONS, statement_timeout="10s") as opened:
            app.state.pool = opened
            yield

    handlers = [RoutinesController, get_init_params_schema, health, create_task, list_tasks, get_task, get_trajectory]
    return Litestar(
        [Router("/api/v1", route_handlers=handlers), openapi_json],
        dependencies={"connection": Provide(provide_connection), "auth": Provide(provide_auth)},
        exception_handlers=HANDLERS,
        lifespan=[pool],
        state=State({"settings": settings}),
        openapi_config=OpenAPIConfig(
            title="Routines", version="1", path="/docs", render_plugins=[SwaggerRenderPlugin(path="/")]
        ),
    )


async def run_api(settings: Settings, database_url: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = stop_event()
    app = create_app(settings, database_url)
    server = Server(app, settings.host, settings.port, interface=Interfaces.ASGI, websockets=False, log_enabled=False)
    serving = asyncio.create_task(server.serve())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    server.stop()
    await serving
    log.info("stopped")
