"""The endpoints of collections, tasks and their trajectories."""

from typing import Annotated, Any, Literal

from litestar import Response, delete, get, post, put
from litestar.params import Parameter

from routines_api import requests
from routines_api.access import Caller
from routines_api.openapi import operation
from routines_api.pagination import Cursor, decode_cursor, page
from routines_api.responses import Message, TaskRead, TrajectoryPage, task_read
from routines_core.db import tasks as db
from routines_core.db.collections import Collection, find_collection
from routines_core.db.trajectories import Trajectory, find_trajectory, list_trajectories

Status = Literal["pending", "running", "completed", "failed", "cancelled", "archived"]
LARGEST_ID = 2**63 - 1
"""The largest bigint."""

TaskLimit = Annotated[int, Parameter(ge=1, le=1000, description="The most tasks of a page.")]
TrajectoryLimit = Annotated[int, Parameter(ge=1, le=100, description="The most runs of a page.")]
PageNumber = Annotated[int, Parameter(ge=1, le=1_000_000, description="Which page, from 1.")]
StatusFilter = Annotated[Status | None, Parameter(description="Only runs of this status.")]
RoutineFilter = Annotated[
    int | None, Parameter(ge=1, le=LARGEST_ID, description="Only runs that the routine of this id caused.")
]


@get("/collections", tags=["Collections"], **operation("listCollections"))
async def list_collections(caller: Caller) -> list[Collection]:
    """List collections.

    The one that the key opens.
    """
    return [await find_collection(caller.connection, caller.key_id)]


@get("/collections/{collection:str}", tags=["Collections"], **operation("getCollection"))
async def get_collection(caller: Caller) -> Collection:
    """Get a collection."""
    return await find_collection(caller.connection, caller.key_id)


@post("/tasks/{collection:str}", tags=["Tasks"], **operation("createTask", body=requests.TaskCreate, conflict=True))
async def create_task(caller: Caller) -> TaskRead:
    """Create a task."""
    body = caller.body(requests.TaskCreate)
    fields = body.model_dump()
    return task_read(await db.create_task(caller.connection, key_id=caller.key_id, **fields))


@get("/tasks/{collection:str}", tags=["Tasks"], **operation("listTasks"))
async def list_tasks(caller: Caller, *, limit: TaskLimit = 1000, cursor: Cursor = None) -> Response[list[TaskRead]]:
    """List the tasks of a collection.

    By name.
    """
    after = decode_cursor(cursor, str)
    found = await db.list_tasks(caller.connection, key_id=caller.key_id, limit=limit + 1, after=after)
    return page(caller.request, found, limit, key=lambda task: task.name, show=task_read)


@get("/tasks/{collection:str}/{task:str}", tags=["Tasks"], **operation("getTask"))
async def get_task(task: str, caller: Caller) -> TaskRead:
    """Get a task."""
    return task_read(await db.find_task(caller.connection, key_id=caller.key_id, name=task))


@put(
    "/tasks/{collection:str}/{task:str}",
    tags=["Tasks"],
    **operation("updateTask", body=requests.TaskUpdate, conflict=True),
)
async def update_task(task: str, caller: Caller) -> TaskRead:
    """Update a task.

    A field that is left out keeps its value. A workflow becomes a new version; runs keep the one they started with.
    """
    body = caller.body(requests.TaskUpdate)
    fields: dict[str, Any] = body.model_dump(include=body.model_fields_set)
    if "name" in fields:
        fields["new_name"] = fields.pop("name")
    updated = await db.update_task(caller.connection, key_id=caller.key_id, name=task, **fields)
    return task_read(updated)


@delete("/tasks/{collection:str}/{task:str}", tags=["Tasks"], status_code=200, **operation("deleteTask", conflict=True))
async def delete_task(task: str, caller: Caller) -> Message:
    """Delete a task.

    Refused while routines hang on it.
    """
    await db.delete_task(caller.connection, key_id=caller.key_id, name=task)
    return Message(f"Task {task} was deleted.")


@get("/db/trajectories/{collection:str}/{task:str}", tags=["Trajectories"], **operation("listTrajectories"))
async def get_trajectories(
    task: str,
    caller: Caller,
    *,
    limit: TrajectoryLimit = 10,
    page: PageNumber = 1,
    status: StatusFilter = None,
    triggered_by_routine_id: RoutineFilter = None,
) -> TrajectoryPage:
    """List the runs of a task.

    Newest first.
    """
    found = await db.find_task(caller.connection, key_id=caller.key_id, name=task)
    skipped = (page - 1) * limit
    trajectories, total = await list_trajectories(
        caller.connection,
        key_id=caller.key_id,
        task_id=found.id,
        status=status,
        routine_id=triggered_by_routine_id,
        limit=limit,
        offset=skipped,
    )
    return TrajectoryPage(trajectories, total, page, limit, has_more=skipped + len(trajectories) < total)


@get(
    "/db/trajectory/{collection:str}/{task:str}/{trajectory_id:str}",
    tags=["Trajectories"],
    **operation("getTrajectory"),
)
async def get_trajectory(task: str, trajectory_id: str, caller: Caller) -> Trajectory:
    """Get a run.

    With its steps.
    """
    return await find_trajectory(caller.connection, key_id=caller.key_id, task=task, trajectory_id=id_of(trajectory_id))


def id_of(text: str) -> int:
    """The id that a path spells; 0, which no row has, for what no bigint can be."""
    is_id = text.isascii() and text.isdigit() and int(text[:20]) <= LARGEST_ID
    return int(text[:20]) if is_id else 0


HANDLERS = [
    list_collections,
    get_collection,
    create_task,
    list_tasks,
    get_task,
    update_task,
    delete_task,
    get_trajectories,
    get_trajectory,
]
