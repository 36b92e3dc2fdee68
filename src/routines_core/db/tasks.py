"""Tasks: sql/queries/tasks.sql called from Python."""

from datetime import datetime
from typing import Any

import msgspec

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import NotFoundError


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
        """The declared parameters and their defaults."""
        return self.workflow.get("init_params", {})


class _Id(msgspec.Struct):
    id: int


class _Version(msgspec.Struct):
    version: int


_INSERT = Statement("tasks.insert_task", NoRow)
_UPDATE = Statement("tasks.update_task", _Id)
_FIND = Statement("tasks.find_task", Task)
_LIST = Statement("tasks.list_tasks", Task)
_DELETE = Statement("tasks.delete_task", NoRow)
_APPLY = Statement("tasks.apply_task", _Version)


async def create_task(
    connection: Connection, *, key_id: int, name: str, description: str, workflow: dict[str, Any]
) -> Task:
    """Make a task and the first version of its workflow.

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
    """Change what is not None; a workflow becomes a new version. Returns the task as it is now.

    Raises:
        NotFoundError: There is no such task.
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
    """The task of this name.

    Raises:
        NotFoundError: There is none in this collection.
    """
    task = await _FIND.first(connection, key_id=key_id, name=name)
    if task is None:
        raise NotFoundError
    return task


async def list_tasks(connection: Connection, *, key_id: int, limit: int, after: str | None = None) -> list[Task]:
    """The collection's tasks, by name, after the name of `after`."""
    return await _LIST.all(connection, key_id=key_id, limit=limit, after=after)


async def delete_task(connection: Connection, *, key_id: int, name: str) -> None:
    """Remove a task; its runs stay.

    Raises:
        NotFoundError: There is no such task.
        ConflictError: Routines hang on it.
    """
    with domain_errors():
        deleted = await _DELETE.run(connection, key_id=key_id, name=name)
    if not deleted:
        raise NotFoundError


async def apply_task(
    connection: Connection, *, collection: str, name: str, description: str, workflow: dict[str, Any]
) -> int:
    """Make the task what is given, with its collection where that is new; returns its version.

    For operators: no key is asked. The same workflow again makes no new version.

    Raises:
        InvalidError: The collection's name is no slug.
    """
    text = msgspec.json.encode(workflow).decode()
    with domain_errors():
        row = await _APPLY.one(connection, collection=collection, name=name, description=description, workflow=text)
    return row.version
