"""Run the control of bench/api.py: bare Litestar handlers on a bare granian, running the real API's statements.

It uses the same pool, the same statements and the same answers, but has no keys, rate limit, validation or problem
documents. Usage: `python bench/bare_api.py PORT KEY_ID DATABASE_URL`
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from litestar import Litestar, Request, get, patch, post

from routines_api.http.access import CONNECTIONS
from routines_api.schemas.routines import RoutineDetail, RoutineRead, routine_detail, routine_read
from routines_api.schemas.runs import WorkflowResponse, workflow_response
from routines_api.server import BACKLOG
from routines_cli.main import _async_command
from routines_core.db import open_pool, trajectories
from routines_core.db import routines as db

TASK = "/api/v1/routines/bench/{task:str}"
KEY_ID = int(sys.argv[2])


@get(TASK + "/{name:str}")
async def get_routine(request: Request[Any, Any, Any], task: str, name: str) -> RoutineDetail:
    async with request.app.state.pool.connection() as connection:
        return routine_detail(await db.find_routine(connection, key_id=KEY_ID, task=task, name=name))


@get(TASK)
async def list_routines(request: Request[Any, Any, Any], task: str) -> list[RoutineRead]:
    async with request.app.state.pool.connection() as connection:
        found = await db.list_routines(connection, key_id=KEY_ID, task=task, limit=51)
        return [routine_read(routine) for routine in found[:50]]


@post(TASK)
async def create_routine(request: Request[Any, Any, Any], task: str) -> RoutineRead:
    spec = msgspec.json.decode(await request.body(), type=db.RoutineSpec)
    async with request.app.state.pool.connection() as connection:
        await db.create_routine(connection, spec, key_id=KEY_ID, task=task)
        return routine_read(await db.find_routine(connection, key_id=KEY_ID, task=task, name=spec.name))


@patch(TASK + "/{name:str}")
async def update_routine(request: Request[Any, Any, Any], task: str, name: str) -> RoutineRead:
    change = msgspec.json.decode(await request.body(), type=db.RoutineChanges)
    async with request.app.state.pool.connection() as connection:
        await db.patch_routine(connection, change, key_id=KEY_ID, task=task, name=name)
        return routine_read(await db.find_routine(connection, key_id=KEY_ID, task=task, name=name))


@post("/api/v1/run/bench/{task:str}", status_code=200)
async def run(request: Request[Any, Any, Any], task: str) -> WorkflowResponse:
    spec = msgspec.json.decode(await request.body(), type=trajectories.RunSpec)
    async with request.app.state.pool.connection() as connection:
        started = await trajectories.start_run(connection, spec, key_id=KEY_ID, task=task)
        found = await trajectories.find_trajectory(connection, key_id=KEY_ID, task=task, trajectory_id=started or 0)
        return workflow_response(found, f"Task {task} was started.")


def bare_app(database_url: str) -> Litestar:
    @asynccontextmanager
    async def pool(app: Litestar) -> AsyncGenerator[None]:
        async with open_pool(database_url, "bare-api", size=CONNECTIONS, statement_timeout="10s") as opened:
            app.state.pool = opened
            yield

    handlers = [get_routine, list_routines, create_routine, update_routine, run]
    return Litestar(handlers, lifespan=[pool], openapi_config=None)


@_async_command  # on the same event loop as the real program
async def main() -> None:
    server = Server(
        bare_app(sys.argv[3]),
        "127.0.0.1",
        int(sys.argv[1]),
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        backlog=BACKLOG,
        websockets=False,
        log_enabled=False,
    )
    await server.serve()


main()
