"""Limits of concurrent runs: sql/queries/limits.sql called from Python."""

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import NotFoundError


class Limit(msgspec.Struct, frozen=True):
    """A limit.

    Attributes:
        collection: Its name.
        task: The task's name; None for a limit of the collection.
        claimed: Runs that workers have claimed and that count towards it.
    """

    collection: str
    task: str | None
    max_concurrent_runs: int
    claimed: int


_LIST = Statement("limits.list_limits", Limit)
_LIMIT_COLLECTION = Statement("limits.limit_collection", NoRow)
_LIMIT_TASK = Statement("limits.limit_task", NoRow)


async def list_limits(connection: Connection) -> list[Limit]:
    """Return all limits, by collection and task."""
    return await _LIST.all(connection)


async def set_limit(connection: Connection, *, collection: str, task: str | None, most: int | None) -> None:
    """Limit the runs of a collection or task that workers may have claimed at once; None removes the limit.

    Raises:
        NotFoundError: The collection or task does not exist.
    """
    if task is None:
        changed = await _LIMIT_COLLECTION.run(connection, collection=collection, most=most)
    else:
        changed = await _LIMIT_TASK.run(connection, collection=collection, task=task, most=most)
    if not changed:
        raise NotFoundError(
            f"There is no {'collection ' + collection if task is None else f'task {collection}/{task}'}."
        )
