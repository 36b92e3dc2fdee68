"""Tasks: sql/queries/tasks.sql called from Python."""

from datetime import datetime
from typing import Any

import msgspec

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import NotFoundError

LISTED_BYTES = 8 * 1024 * 1024
"""A page of a list ends once its workflows take this many bytes."""
_ABOVE_ALL = 2**63 - 1


class Task(msgspec.Struct, frozen=True):
    """A task with the workflow of its current version, keys in the order they were sent."""

    id: int
    name: str
    description: str
    version: int
    workflow: dict[str, Any]
    created_at: datetime
    updated_at: datetime

    @property
    def init_params(self) -> dict[str, Any]:
        """Return the declared parameters with their defaults."""
        return self.workflow.get("init_params", {})


class ListedTask(Task, frozen=True):
    """A task on a page of a list.

    Attributes:
        is_cut: True in the last task of a page that ends for its size, so that more tasks follow.
    """

    is_cut: bool


class TaskVersion(msgspec.Struct, frozen=True):
    """A version of a task's workflow.

    Attributes:
        saved_at: When it was saved.
        actor: Who saved it, as `key 7`; None if the audit does not go back so far.
    """

    version: int
    saved_at: datetime
    actor: str | None


class WholeVersion(TaskVersion, frozen=True):
    """A version of a task with its workflow."""

    workflow: dict[str, Any]


class _Id(msgspec.Struct):
    id: int


class _Version(msgspec.Struct):
    version: int


_INSERT = Statement("tasks.insert_task", NoRow)
_UPDATE = Statement("tasks.update_task", _Id)
_FIND = Statement("tasks.find_task", Task)
_LIST = Statement("tasks.list_tasks", ListedTask)
_LIST_VERSIONS = Statement("tasks.list_versions", TaskVersion)
_FIND_VERSION = Statement("tasks.find_version", WholeVersion)
_DELETE = Statement("tasks.delete_task", NoRow)
_APPLY = Statement("tasks.apply_task", _Version)


async def create_task(
    connection: Connection, *, key_id: int, name: str, description: str, workflow: dict[str, Any]
) -> Task:
    """Create a task and the first version of its workflow.

    Raises:
        ConflictError: The name is taken in this collection.
    """
    text = msgspec.json.encode(workflow).decode()
    with domain_errors():
        await _INSERT.run(connection, key_id=key_id, name=name, description=description, workflow=text)
    return await find_task(connection, key_id=key_id, name=name)


async def update_task(
    connection: Connection,
    *,
    key_id: int,
    name: str,
    new_name: str | None = None,
    description: str | None = None,
    workflow: dict[str, Any] | None = None,
) -> Task:
    """Change the fields that are not None. A workflow becomes a new version. Returns the changed task.

    Raises:
        NotFoundError: The task does not exist.
        ConflictError: The new name is taken in this collection.
    """
    text = None if workflow is None else msgspec.json.encode(workflow).decode()
    with domain_errors():
        await _UPDATE.one(
            connection,
            key_id=key_id,
            name=name,
            new_name=new_name,
            description=description,
            workflow=text,
        )
    return await find_task(connection, key_id=key_id, name=new_name or name)


async def find_task(connection: Connection, *, key_id: int, name: str) -> Task:
    """Return the task of this name.

    Raises:
        NotFoundError: The collection has no such task.
    """
    task = await _FIND.first(connection, key_id=key_id, name=name)
    if task is None:
        raise NotFoundError
    return task


async def list_tasks(connection: Connection, *, key_id: int, limit: int, after: str | None = None) -> list[ListedTask]:
    """Return the collection's tasks by name, after the name `after`: at most `limit`, and about LISTED_BYTES."""
    return await _LIST.all(connection, key_id=key_id, limit=limit, after=after, page_bytes=LISTED_BYTES)


async def list_versions(
    connection: Connection, *, key_id: int, name: str, limit: int, before: int | None = None
) -> list[TaskVersion]:
    """Return at most `limit` versions of a task before the version `before`, newest first; none of a missing task."""
    return await _LIST_VERSIONS.all(
        connection, key_id=key_id, name=name, limit=limit, before=_ABOVE_ALL if before is None else before
    )


async def find_version(connection: Connection, *, key_id: int, name: str, version: int) -> WholeVersion:
    """Return a version of a task with its workflow.

    Raises:
        NotFoundError: The collection has no such task, or the task no such version, or no longer.
    """
    found = await _FIND_VERSION.first(connection, key_id=key_id, name=name, version=version)
    if found is None:
        raise NotFoundError
    return found


async def delete_task(connection: Connection, *, key_id: int, name: str) -> None:
    """Delete a task. Its runs are kept.

    Raises:
        NotFoundError: The task does not exist.
        ConflictError: The task has routines.
    """
    with domain_errors():
        deleted = await _DELETE.run(connection, key_id=key_id, name=name)
    if not deleted:
        raise NotFoundError


async def apply_task(
    connection: Connection, *, collection: str, name: str, description: str, workflow: dict[str, Any]
) -> int:
    """Save a task, and its collection if that is new. Returns the task's version.

    For operators: no API key is needed. Saving the same workflow again makes no new version.

    Raises:
        InvalidError: The collection's name is not a slug.
    """
    text = msgspec.json.encode(workflow).decode()
    with domain_errors():
        row = await _APPLY.one(connection, collection=collection, name=name, description=description, workflow=text)
    return row.version
