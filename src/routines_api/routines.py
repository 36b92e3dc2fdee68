"""The endpoints of routines."""

from typing import Annotated, Any

from litestar import Controller, delete, get, post
from litestar.params import Parameter

from routines_api.access import ApiRequest, routines_enabled
from routines_api.requests import RoutineCreate, parse_body
from routines_api.responses import (
    InitParamsSchema,
    RoutineDetail,
    RoutineRead,
    WorkflowResponse,
    init_params_schema,
    routine_detail,
    routine_read,
)
from routines_core.db import Connection
from routines_core.db import routines as db
from routines_core.db.keys import AuthContext
from routines_core.db.tasks import find_task
from routines_core.db.trajectories import Run, find_trajectory, list_runs
from routines_core.errors import UnknownKeysError


class RoutinesController(Controller):
    """`/routines/…`; absent unless ENABLE_ROUTINES."""

    path = "/routines/{collection:str}"
    guards = [routines_enabled]  # noqa: RUF012 - Litestar's interface

    @post("/{task:str}")
    async def create_routine(
        self, task: str, request: ApiRequest, connection: Connection, auth: AuthContext
    ) -> RoutineRead:
        """Save a routine of this task."""
        body = parse_body(RoutineCreate, await request.body())
        found = await find_task(connection, collection_id=auth.collection_id, name=task)
        unknown = sorted(set(body.init_params_overrides) - set(found.init_params))
        if unknown:
            raise UnknownKeysError(unknown, list(found.init_params))
        cadence = db.Cadence(
            body.cadence.type, body.cadence.hour_utc, body.cadence.minute_utc or 0, body.cadence.day_of_week
        )
        await db.create_routine(
            connection,
            collection_id=auth.collection_id,
            task_id=found.id,
            name=body.name,
            cadence=cadence,
            init_params_overrides=body.init_params_overrides,
            webhook_url=body.webhook_url,
            paused=body.paused,
        )
        return routine_read(await _find(connection, auth, task, body.name))

    @get("/")
    async def list_collection(self, connection: Connection, auth: AuthContext) -> list[RoutineRead]:
        """The collection's routines, by task and name."""
        found = await db.list_routines(connection, collection_id=auth.collection_id)
        return [routine_read(routine) for routine in found]

    @get("/{task:str}")
    async def list_task(self, task: str, connection: Connection, auth: AuthContext) -> list[RoutineRead]:
        """The task's routines, by name."""
        await find_task(connection, collection_id=auth.collection_id, name=task)
        found = await db.list_routines(connection, collection_id=auth.collection_id, task=task)
        return [routine_read(routine) for routine in found]

    @get("/{task:str}/{name:str}")
    async def get_routine(self, task: str, name: str, connection: Connection, auth: AuthContext) -> RoutineDetail:
        """One routine, with warnings."""
        routine = await _find(connection, auth, task, name)
        return routine_detail(routine, await find_task(connection, collection_id=auth.collection_id, name=task))

    @delete("/{task:str}/{name:str}")
    async def delete_routine(self, task: str, name: str, connection: Connection, auth: AuthContext) -> None:
        """Remove a routine; its trajectories stay."""
        routine = await _find(connection, auth, task, name)
        await db.delete_routine(connection, collection_id=auth.collection_id, routine_id=routine.id)

    @post("/{task:str}/{name:str}/pause", status_code=200)
    async def pause(self, task: str, name: str, connection: Connection, auth: AuthContext) -> RoutineRead:
        """Stop the schedule; may be repeated."""
        return await _set_paused(connection, auth, task, name, paused=True)

    @post("/{task:str}/{name:str}/resume", status_code=200)
    async def resume(self, task: str, name: str, connection: Connection, auth: AuthContext) -> RoutineRead:
        """Go on with the next slot from now; may be repeated."""
        return await _set_paused(connection, auth, task, name, paused=False)

    @post("/{task:str}/{name:str}/run-now", status_code=200)
    async def run_now(self, task: str, name: str, connection: Connection, auth: AuthContext) -> WorkflowResponse:
        """Start a run at once, whatever the cadence."""
        routine = await _find(connection, auth, task, name)
        run = await db.run_now(connection, collection_id=auth.collection_id, routine_id=routine.id)
        trajectory = await find_trajectory(connection, collection_id=auth.collection_id, task=task, trajectory_id=run)
        return WorkflowResponse(
            trajectory.workflow_id, run, trajectory.run_id, f"Routine {name} was started.", {}, trajectory
        )

    @get("/{task:str}/{name:str}/runs")
    async def runs(
        self,
        task: str,
        name: str,
        connection: Connection,
        auth: AuthContext,
        limit: Annotated[int, Parameter(ge=1, le=100)] = 20,
    ) -> list[Run]:
        """Its trajectories, newest first."""
        routine = await _find(connection, auth, task, name)
        return await list_runs(connection, collection_id=auth.collection_id, routine_id=routine.id, limit=limit)


@get("/tasks/{collection:str}/{task:str}/init-params-schema", guards=[routines_enabled])
async def get_init_params_schema(task: str, connection: Connection, auth: AuthContext) -> InitParamsSchema:
    """The keys that a routine may override."""
    return init_params_schema(await find_task(connection, collection_id=auth.collection_id, name=task))


async def _find(connection: Connection, auth: AuthContext, task: str, name: str) -> db.Routine:
    return await db.find_routine(connection, collection_id=auth.collection_id, task=task, name=name)


async def _set_paused(connection: Connection, auth: AuthContext, task: str, name: str, **paused: Any) -> RoutineRead:
    routine = await _find(connection, auth, task, name)
    await db.set_paused(connection, collection_id=auth.collection_id, routine_id=routine.id, **paused)
    return routine_read(await _find(connection, auth, task, name))
