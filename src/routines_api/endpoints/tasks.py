"""The endpoints of collections and tasks."""

from typing import Annotated, Any

from litestar import Response, delete, get, post, put
from litestar.params import Parameter

from routines_api.http.access import Caller
from routines_api.http.limit_gate import TASKS
from routines_api.http.pagination import Cursor, decode_cursor, page
from routines_api.openapi.description import operation
from routines_api.schemas import requests
from routines_api.schemas.responses import Message, TaskRead, task_read
from routines_core.db import tasks as db
from routines_core.db.collections import Collection, find_collection

TaskLimit = Annotated[int, Parameter(ge=1, le=1000, description="Maximum number of tasks on a page.")]


@get("/collections", tags=["Collections"], **operation("listCollections"))
async def list_collections(caller: Caller) -> list[Collection]:
    """List collections.

    The only one is the collection that the key opens.
    """
    return [await find_collection(caller.connection, caller.key_id)]


@get("/collections/{collection:str}", tags=["Collections"], **operation("getCollection"))
async def get_collection(caller: Caller) -> Collection:
    """Get a collection."""
    return await find_collection(caller.connection, caller.key_id)


@post("/tasks/{collection:str}", tags=["Tasks"], **operation("createTask", body=requests.TaskCreate, conflict=True))
async def create_task(caller: Caller) -> TaskRead:
    """Create a task."""
    body = await caller.body(requests.TaskCreate)
    fields = body.model_dump()
    if refusal := await caller.services.limits.ask(caller.connection, caller.auth, TASKS):
        raise refusal
    return task_read(await db.create_task(caller.connection, key_id=caller.key_id, **fields))


@get("/tasks/{collection:str}", tags=["Tasks"], **operation("listTasks"))
async def list_tasks(caller: Caller, *, limit: TaskLimit = 1000, cursor: Cursor = None) -> Response[list[TaskRead]]:
    """List the tasks of a collection.

    Sorted by name.
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

    A field that is left out keeps its value. A workflow becomes a new version; runs keep the version they started with.
    """
    body = await caller.body(requests.TaskUpdate)
    fields: dict[str, Any] = body.model_dump(include=body.model_fields_set - {"created_at", "updated_at"})
    if "name" in fields:
        fields["new_name"] = fields.pop("name")
    updated = await db.update_task(caller.connection, key_id=caller.key_id, name=task, **fields)
    return task_read(updated)


@delete("/tasks/{collection:str}/{task:str}", tags=["Tasks"], status_code=200, **operation("deleteTask", conflict=True))
async def delete_task(task: str, caller: Caller) -> Message:
    """Delete a task.

    Refused while it has routines. Its runs are kept and shown under its last name; active runs continue.
    """
    await db.delete_task(caller.connection, key_id=caller.key_id, name=task)
    return Message(f"Task {task} was deleted.")


HANDLERS = [
    list_collections,
    get_collection,
    create_task,
    list_tasks,
    get_task,
    update_task,
    delete_task,
]
