"""The web server that serves the application."""

import asyncio

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from routines_api.app import create_app
from routines_core.lifecycle import freeze_loaded, stop_event, wait_or_stop
from routines_core.listening import refuse_unfit_address
from routines_core.metrics.listener import listening
from routines_core.settings import Settings
from routines_workflow.catalogue import load_entry_points

STOP_SECONDS = 5.0
"""How long open requests may take to end once the server stops."""
BACKLOG = 1024
"""How many connections may wait to be accepted. How many may be open is ROUTINES_MAX_CONNECTIONS."""

log = structlog.get_logger("api")


async def run_api(settings: Settings, database_url: str) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: ROUTINES_ENCRYPTION_KEYS is missing or malformed, or the address cannot be used.
    """
    stop = stop_event()
    refuse_unfit_address(settings)
    load_entry_points()  # here rather than in the first request that checks a workflow
    app = create_app(settings, database_url)
    server = Server(
        app,
        settings.host,
        settings.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.header_timeout_seconds * 1000)),
        backlog=BACKLOG,
        backpressure=settings.max_connections,
        websockets=False,
        log_enabled=False,
    )
    freeze_loaded()
    serving = asyncio.create_task(server.serve())
    async with listening(settings, app.metrics, app.metrics.health), app.metrics.loop_lag.observed():
        await wait_or_stop(stop, [serving])
    app.release_waiters()
    server.stop()
    # A client that stalls in the middle of a request must not keep the server from stopping.
    await asyncio.wait({serving}, timeout=STOP_SECONDS)
    log.info("stopped")
