"""The endpoints of collections and tasks."""

from typing import Annotated, Any

from litestar import Response, delete, get, post, put
from litestar.params import Parameter

from routines_api.http.access import Caller
from routines_api.http.limit_gate import TASKS
from routines_api.http.pagination import Cursor, decode_cursor, page
from routines_api.http.paths import id_of
from routines_api.openapi.description import operation
from routines_api.schemas.tasks import (
    Message,
    TaskCreate,
    TaskRead,
    TaskUpdate,
    TaskVersionDetail,
    TaskVersionRead,
    task_read,
    task_version_detail,
    task_version_read,
)
from routines_core.db import tasks as db
from routines_core.db.collections import Collection, find_collection

TaskLimit = Annotated[int, Parameter(ge=1, le=1000, description="Maximum number of tasks on a page.")]
VersionLimit = Annotated[int, Parameter(ge=1, le=100, description="Maximum number of versions on a page.")]


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


@post("/tasks/{collection:str}", tags=["Tasks"], **operation("createTask", body=TaskCreate, conflict=True))
async def create_task(caller: Caller) -> TaskRead:
    """Create a task."""
    body = await caller.body(TaskCreate)
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
    **operation("updateTask", body=TaskUpdate, conflict=True),
)
async def update_task(task: str, caller: Caller) -> TaskRead:
    """Update a task.

    A field that is left out keeps its value. A workflow becomes a new version; runs keep the version they started with.
    """
    body = await caller.body(TaskUpdate)
    fields: dict[str, Any] = body.model_dump(include=body.model_fields_set - {"created_at", "updated_at"})
    if "name" in fields:
        fields["new_name"] = fields.pop("name")
    updated = await db.update_task(caller.connection, key_id=caller.key_id, name=task, **fields)
    return task_read(updated)


@get("/tasks/{collection:str}/{task:str}/versions", tags=["Tasks"], **operation("listTaskVersions"))
async def list_versions(
    task: str, caller: Caller, *, limit: VersionLimit = 50, cursor: Cursor = None
) -> Response[list[TaskVersionRead]]:
    """List the versions of a task.

    Newest first: each workflow that was saved, with when and by whom. A version stays as long as a run needs it or the
    audit has it.
    """
    before = decode_cursor(cursor, int)
    await db.find_task(caller.connection, key_id=caller.key_id, name=task)
    found = await db.list_versions(caller.connection, key_id=caller.key_id, name=task, limit=limit + 1, before=before)
    return page(caller.request, found, limit, key=lambda each: each.version, show=task_version_read)


@get("/tasks/{collection:str}/{task:str}/versions/{version:str}", tags=["Tasks"], **operation("getTaskVersion"))
async def get_version(task: str, version: str, caller: Caller) -> TaskVersionDetail:
    """Get a version of a task.

    With its workflow.
    """
    found = await db.find_version(caller.connection, key_id=caller.key_id, name=task, version=id_of(version))
    return task_version_detail(found)


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
    list_versions,
    get_version,
    delete_task,
]
