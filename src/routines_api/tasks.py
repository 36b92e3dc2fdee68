"""The endpoints of tasks and of their trajectories."""

from litestar import get, post

from routines_api.access import ApiRequest
from routines_api.requests import TaskCreate, parse_body
from routines_api.responses import TaskRead
from routines_core.db import Connection
from routines_core.db import tasks as db
from routines_core.db.keys import AuthContext
from routines_core.db.trajectories import Trajectory, find_trajectory


@post("/tasks/{collection:str}")
async def create_task(request: ApiRequest, connection: Connection, auth: AuthContext) -> TaskRead:
    """Save a task."""
    body = parse_body(TaskCreate, await request.body())
    task = await db.create_task(
        connection,
        collection_id=auth.collection_id,
        name=body.name,
        description=body.description,
        workflow=body.workflow,
    )
    return _read(task)


@get("/tasks/{collection:str}")
async def list_tasks(connection: Connection, auth: AuthContext) -> list[TaskRead]:
    """The collection's tasks, by name."""
    return [_read(task) for task in await db.list_tasks(connection, collection_id=auth.collection_id)]


@get("/tasks/{collection:str}/{task:str}")
async def get_task(task: str, connection: Connection, auth: AuthContext) -> TaskRead:
    """One task."""
    return _read(await db.find_task(connection, collection_id=auth.collection_id, name=task))


@get("/db/trajectory/{collection:str}/{task:str}/{trajectory_id:int}")
async def get_trajectory(task: str, trajectory_id: int, connection: Connection, auth: AuthContext) -> Trajectory:
    """One run, whole."""
    return await find_trajectory(connection, collection_id=auth.collection_id, task=task, trajectory_id=trajectory_id)


def _read(task: db.Task) -> TaskRead:
    return TaskRead(task.name, task.description, task.workflow, task.created_at, task.updated_at)
