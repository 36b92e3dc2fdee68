"""The web server that serves the application."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from routines_api.app import Api, create_app
from routines_core.banner import introduce
from routines_core.db.schema import await_schema
from routines_core.db.standing import place_of
from routines_core.errors import DatabaseError, MigrationError
from routines_core.keyring import load_keyring
from routines_core.lifecycle import freeze_loaded, stop_event, wait_or_stop
from routines_core.listening import refuse_unfit_address
from routines_core.logging import describe
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
        MigrationError: This version cannot work with the database's schema.
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
    async with listening(settings, app.metrics, app.metrics.health), app.metrics.loop_lag.observed():
        checking = await _check_schema(settings, database_url, stop, app)
        serving = asyncio.create_task(server.serve())
        await wait_or_stop(stop, [serving])
    app.release_waiters()
    server.stop()
    # A client that stalls in the middle of a request must not keep the server from stopping.
    await asyncio.wait({serving}, timeout=STOP_SECONDS)
    for task in checking:
        await task
    log.info("stopped")


async def _check_schema(
    settings: Settings, database_url: str, stop: asyncio.Event, app: Api
) -> list[asyncio.Task[None]]:
    """Wait for a schema that this version can work with, and introduce the program in the log.

    Returns:
        If the database cannot be reached, a task that goes on waiting: until then the API answers 503.
    """
    keyring = load_keyring(settings)

    async def look(*, waits_for_server: bool) -> None:
        await await_schema(database_url, "routines-api", stop, role="routines_api", waits_for_server=waits_for_server)
        await introduce("api", settings, database_url, stop, keyring)
        await app.readiness.check()  # says in the log if the encryption keys are wrong

    try:
        await look(waits_for_server=False)
    except MigrationError:
        raise
    except DatabaseError as error:
        log.warning("answering 503 until the database can be used", database=place_of(database_url), **describe(error))
        return [asyncio.create_task(_stop_if_it_fails(look(waits_for_server=True), stop))]
    return []


async def _stop_if_it_fails(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    try:
        await work
    except BaseException:
        stop.set()
        raise
