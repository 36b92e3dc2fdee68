"""The commands of `routines limits`."""

import structlog

from routines_core.db import Connection
from routines_core.db import limits as db
from routines_core.errors import InvalidError, NotFoundError
from routines_core.limits import CONCURRENCY, LIMITS, parse_limit


async def list_set(connection: Connection) -> list[str]:
    """Return a line for each limit that an operator has set."""
    return [
        f"{_scope(limit.collection, limit.task)}\t{limit.limit_name}\t{_shown(limit.limit_name, limit.value)}"
        for limit in await db.list_set_limits(connection)
    ]


async def list_all(connection: Connection, collection: str) -> list[str]:
    """Return a line for each limit of a collection, with its use.

    Raises:
        NotFoundError: The collection does not exist.
    """
    limits, tasks = await db.list_limits(connection, await db.find_collection(connection, collection))
    lines = [
        f"{limit.name}\t{_shown(limit.name, limit.value)}{' (set)' if limit.is_set else ''}\t"
        f"{'each run' if limit.use is None else f'{limit.use} used'}"
        for limit in limits
        if limit.name in LIMITS
    ]
    return lines + [
        f"{CONCURRENCY} of {task.task}\t{_shown(CONCURRENCY, task.max_concurrent_runs)} (set)\t{task.use} used"
        for task in tasks
    ]


async def set_limit(
    connection: Connection, name: str, text: str, *, collection: str | None, task: str | None = None
) -> None:
    """Set a limit of a collection or task or, if the collection is None, the default of all collections.

    Raises:
        InvalidError: The limit does not exist, the value is out of range, or tasks do not have this limit.
        NotFoundError: The collection or task does not exist.
    """
    value = parse_limit(name, text)
    collection_id = await db.find_collection(connection, collection) if collection else None
    if task is None:
        await db.set_limit(connection, name, value, collection_id=collection_id)
    else:
        await _limit_task(connection, name, value, collection=collection, collection_id=collection_id, task=task)
    _log("limit set", collection=collection, task=task, limit=name, value=value)


async def reset_limit(connection: Connection, name: str, *, collection: str | None, task: str | None = None) -> None:
    """Reset a limit to its default or, if the collection is None, the default to its built-in value.

    Raises:
        InvalidError: The limit does not exist, or tasks do not have it.
        NotFoundError: The collection or task does not exist.
    """
    collection_id = await db.find_collection(connection, collection) if collection else None
    if task is None:
        await db.reset_limit(connection, name, collection_id=collection_id)
    else:
        await _limit_task(connection, name, None, collection=collection, collection_id=collection_id, task=task)
    _log("limit reset", collection=collection, task=task, limit=name)


async def _limit_task(
    connection: Connection,
    name: str,
    value: int | None,
    *,
    collection: str | None,
    collection_id: int | None,
    task: str,
) -> None:
    if name != CONCURRENCY:
        raise InvalidError(f"{name}: a task has no such limit of its own, only {CONCURRENCY}.", name)
    if collection_id is None:
        raise InvalidError("--task needs --collection.")
    try:
        await db.limit_task(connection, task, value, collection_id=collection_id)
    except NotFoundError:
        raise NotFoundError(f"There is no task {collection}/{task}.") from None


def _log(event: str, **fields: str | int | None) -> None:
    structlog.get_logger("limits").info(event, **fields, by="command line")


def _scope(collection: str | None, task: str | None) -> str:
    if collection is None:
        return "every collection"
    return f"{collection}/{task}" if task else collection


def _shown(name: str, value: int | None) -> str:
    return "no limit" if value is None else f"{value} {LIMITS[name].unit}"
