"""Limits of collections and their runs: sql/queries/limits.sql called from Python."""

from collections.abc import Mapping, Sequence

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import InvalidError, NotFoundError
from routines_core.limits import CONCURRENCY, LIMITS, check_limit

COUNTED_UP_TO = 1_000_000
"""Maximum number of rows counted to show a use."""


class LimitInUse(msgspec.Struct, frozen=True):
    """A limit of a collection.

    Attributes:
        name: As in routines_core.limits.
        value: In the unit of the limit; None for no limit.
        default_value: The value for collections for which no other was set; None for no limit.
        is_set: Whether an operator has set the value for this collection.
        use: How much of it the collection uses; None for a limit of each run.
    """

    name: str
    value: int | None
    default_value: int | None
    is_set: bool
    use: int | None


class LimitedTask(msgspec.Struct, frozen=True):
    """A task that has a limit of concurrent runs of its own.

    Attributes:
        task: Its name.
        max_concurrent_runs: The limit.
        use: Its runs that workers have claimed and that count towards the limit.
    """

    task: str
    max_concurrent_runs: int
    use: int


class SetLimit(msgspec.Struct, frozen=True):
    """A limit that an operator has set.

    Attributes:
        collection: Its name; None for the default of all collections.
        task: The task's name; None for a limit of the collection.
        value: None for no limit.
    """

    collection: str | None
    task: str | None
    limit_name: str
    value: int | None


class TakenRuns(msgspec.Struct, frozen=True):
    """Runs that a process has reserved in the present minute.

    Attributes:
        granted: How many it may begin.
        most: The limit; None for no limit.
        begun: How many runs all processes have begun or reserved; None without a limit.
        seconds_left: The time until the next minute.
    """

    granted: int
    most: int | None
    begun: int | None
    seconds_left: float


class RunLimits(msgspec.Struct, frozen=True):
    """The limits of each run of a collection; None for no limit.

    Attributes:
        step_bytes: Inputs and outputs of all its steps, in bytes.
        steps: Its steps.
        children: The runs in its tree, without the root.
        log_events: The events of its log.
        secrets: The different secrets that it reads, those of the collection included.
    """

    step_bytes: int | None = None
    steps: int | None = None
    children: int | None = None
    log_events: int | None = None
    secrets: int | None = None


class TakenFile(msgspec.Struct, frozen=True):
    """Whether a step may save a file, with the limits and what the collection used of them before.

    Attributes:
        is_taken: Whether the file fits and was counted.
        most_files: None for no limit.
        most_bytes: None for no limit.
    """

    is_taken: bool
    files: int
    most_files: int | None
    file_bytes: int
    most_bytes: int | None


class _Id(msgspec.Struct):
    id: int | None


class _Noted(msgspec.Struct):
    is_noted: bool


class _Changed(msgspec.Struct):
    changed: int


_LIST_OWN = Statement("limits.list_own_limits", LimitInUse)
_LIST_OWN_TASKS = Statement("limits.list_own_limited_tasks", LimitedTask)
_MEASURE = Statement("limits.measure", LimitInUse)
_TAKE_RUNS = Statement("limits.take_runs", TakenRuns)
_NOTE_OWN_FILES = Statement("limits.note_own_files", _Noted)
_OPEN_AS_OPERATOR = Statement("limits.open_as_operator", _Id)
_FIND_COLLECTION = Statement("limits.find_collection", _Id)
_LIST = Statement("limits.list_limits", LimitInUse)
_LIST_TASKS = Statement("limits.list_limited_tasks", LimitedTask)
_LIST_SET = Statement("limits.list_set_limits", SetLimit)
_SET = Statement("limits.set_limit", NoRow)
_RESET = Statement("limits.reset_limit", NoRow)
_LIMIT_COLLECTION = Statement("limits.limit_collection", NoRow)
_LIMIT_TASK = Statement("limits.limit_task", NoRow)
_MEASURE_STORED_BYTES = Statement("limits.measure_stored_bytes", _Changed)
_NOTE_LISTED_FILES = Statement("limits.note_listed_files", NoRow)
_TAKE_FILE = Statement("limits.take_file", TakenFile)
_GIVE_BACK_FILE = Statement("limits.give_back_file", NoRow)
_RUN_LIMITS = Statement("limits.run_limits", RunLimits)


# --- the API on behalf of a key ---------------------------------------------------------------------------------------


async def list_own_limits(connection: Connection, key_id: int) -> tuple[list[LimitInUse], list[LimitedTask]]:
    """Return all limits of the key's collection, in the order of routines_core.limits, and its limited tasks."""
    found = await _LIST_OWN.all(connection, key_id=key_id, most=COUNTED_UP_TO)
    return in_order(found), await _LIST_OWN_TASKS.all(connection, key_id=key_id)


async def measure(connection: Connection, key_id: int, names: Sequence[str]) -> list[LimitInUse]:
    """Return these limits of the key's collection. Each use is counted up to its limit, which is enough to refuse."""
    return in_order(await _MEASURE.all(connection, key_id=key_id, names=list(names)))


async def take_runs(connection: Connection, key_id: int, *, wanted: int) -> TakenRuns:
    """Reserve up to `wanted` of the runs that the key's collection may begin in this minute. Locks its counter."""
    return await _TAKE_RUNS.one(connection, key_id=key_id, wanted=wanted)


async def note_own_files(connection: Connection, key_id: int, *, files: int, size_bytes: int) -> None:
    """Count files that the key's collection has just stored."""
    await _NOTE_OWN_FILES.one(connection, key_id=key_id, files=files, bytes=size_bytes)


# --- operators --------------------------------------------------------------------------------------------------------


async def open_as_operator(connection: Connection, collection: str) -> int:
    """Name the collection until the transaction ends, without a key, and return its id. For the API only.

    Raises:
        NotFoundError: The collection does not exist.
    """
    found = await _OPEN_AS_OPERATOR.one(connection, collection=collection)
    if found.id is None:
        raise NotFoundError(f"There is no collection {collection}.")
    return found.id


async def find_collection(connection: Connection, collection: str) -> int:
    """Return the id of a collection. For the owner of the tables.

    Raises:
        NotFoundError: The collection does not exist.
    """
    found = await _FIND_COLLECTION.first(connection, collection=collection)
    if found is None or found.id is None:
        raise NotFoundError(f"There is no collection {collection}.")
    return found.id


async def list_limits(connection: Connection, collection_id: int | None) -> tuple[list[LimitInUse], list[LimitedTask]]:
    """Return all limits of a collection, or the defaults for None, and the tasks with a limit of their own."""
    found = await _LIST.all(connection, collection_id=collection_id, most=COUNTED_UP_TO)
    return in_order(found), await _LIST_TASKS.all(connection, collection_id=collection_id)


async def list_set_limits(connection: Connection) -> list[SetLimit]:
    """Return what operators have set: the defaults first, then by collection and task."""
    return await _LIST_SET.all(connection)


async def set_limit(connection: Connection, name: str, value: int | None, *, collection_id: int | None) -> None:
    """Set a limit of a collection, or its default for all collections; None as the value for no limit.

    Raises:
        InvalidError: The limit does not exist, the value is out of range, or the limit has no default.
    """
    check_limit(name, value)
    if name != CONCURRENCY:
        await _SET.run(connection, collection_id=collection_id, name=name, value=value)
    elif collection_id is None:
        raise InvalidError(f"{name}: has no default for all collections; set it for a collection or a task.", name)
    else:
        await _LIMIT_COLLECTION.run(connection, collection_id=collection_id, most=value)


async def limit_task(connection: Connection, task: str, most: int | None, *, collection_id: int) -> None:
    """Limit the runs of a task that workers may have claimed at once; None removes the limit.

    Raises:
        InvalidError: The value is out of range.
        NotFoundError: The collection has no such task.
    """
    check_limit(CONCURRENCY, most)
    if not await _LIMIT_TASK.run(connection, collection_id=collection_id, task=task, most=most):
        raise NotFoundError(f"The collection has no task {task}.")


async def reset_limit(connection: Connection, name: str, *, collection_id: int | None) -> None:
    """Return a limit of a collection to its default, or the default of all collections to the built-in value.

    Raises:
        InvalidError: The limit does not exist.
    """
    check_limit(name, None)
    if name == CONCURRENCY:
        await set_limit(connection, name, None, collection_id=collection_id)
    else:
        await _RESET.run(connection, collection_id=collection_id, name=name)


async def replace_limits(connection: Connection, limits: Mapping[str, int | None], *, collection_id: int) -> None:
    """Set these limits of a collection, and return all others to their defaults. Call it in a transaction.

    Raises:
        InvalidError: A limit does not exist, or a value is out of range.
    """
    for name, value in limits.items():
        check_limit(name, value)
    for name in LIMITS:
        if name in limits:
            await set_limit(connection, name, limits[name], collection_id=collection_id)
        else:
            await reset_limit(connection, name, collection_id=collection_id)


# --- workers ----------------------------------------------------------------------------------------------------------


async def measure_stored_bytes(connection: Connection, *, most_pages: int) -> int:
    """Estimate what every collection has stored, from a sample of about this many pages of each table.

    Returns:
        The number of collections whose estimate changed.
    """
    return (await _MEASURE_STORED_BYTES.one(connection, most_pages=most_pages)).changed


async def note_listed_files(connection: Connection, listed: Mapping[int, tuple[int, int]]) -> None:
    """Replace the counts of files of all collections.

    Args:
        connection: A worker's connection.
        listed: Files and their bytes by collection id; a collection left out has none.
    """
    await _NOTE_LISTED_FILES.run(
        connection,
        collection_ids=list(listed),
        files=[files for files, _ in listed.values()],
        bytes=[size for _, size in listed.values()],
    )


async def take_file(connection: Connection, collection_id: int, *, size_bytes: int) -> TakenFile:
    """Count a file that a step is about to save, unless it would exceed a limit. For a worker; locks the counter."""
    return await _TAKE_FILE.one(connection, collection_id=collection_id, bytes=size_bytes)


async def give_back_file(connection: Connection, collection_id: int, *, size_bytes: int) -> None:
    """Take back the count of a file that could not be saved. For a worker."""
    await _GIVE_BACK_FILE.run(connection, collection_id=collection_id, bytes=size_bytes)


async def run_limits(connection: Connection, collection_id: int) -> RunLimits:
    """Return the limits of each run of a collection. For a worker."""
    return await _RUN_LIMITS.one(connection, collection_id=collection_id)


def in_order(found: Sequence[LimitInUse]) -> list[LimitInUse]:
    """Sort limits in the order of routines_core.limits."""
    places = {name: place for place, name in enumerate(LIMITS)}
    return sorted(found, key=lambda limit: places.get(limit.name, len(places)))
