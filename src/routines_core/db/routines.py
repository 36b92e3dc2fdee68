"""Routines: sql/queries/routines.sql called from Python."""

from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from routines_core.db.pool import Connection
from routines_core.db.statements import Nothing, Statement
from routines_core.db.violations import domain_errors
from routines_core.errors import NotFoundError


class Cadence(msgspec.Struct, frozen=True):
    """When a routine's slots fall, in UTC."""

    type: str
    hour_utc: int | None = None
    minute_utc: int = 0
    day_of_week: str | None = None


class Routine(msgspec.Struct, frozen=True):
    """A routine as it is stored; `secret_refs` names its secrets and holds none."""

    id: int
    name: str
    task_name: str
    collection_name: str
    cadence_type: str
    hour_utc: int | None
    minute_utc: int
    day_of_week: str | None
    init_params_overrides: dict[str, Any]
    secret_refs: dict[str, str]
    webhook_url: str | None
    has_webhook_secret: bool
    paused: bool
    last_run_at: datetime | None
    next_run_at: datetime | None
    overlap_policy: str


class _Id(msgspec.Struct):
    id: int


_INSERT = Statement("routines.insert_routine", Nothing)
_LIST = Statement("routines.list_routines", Routine)
_SET_PAUSED = Statement("routines.set_paused", Nothing)
_DELETE = Statement("routines.delete_routine", Nothing)
_RUN_NOW = Statement("routines.run_now", _Id)


async def create_routine(
    connection: Connection,
    *,
    collection_id: int,
    task_id: int,
    name: str,
    cadence: Cadence,
    init_params_overrides: dict[str, Any],
    webhook_url: str | None,
    paused: bool,
) -> None:
    """Save a routine; the database computes its next slot.

    Raises:
        ConflictError: The name is taken for this task.
        InvalidError: It breaks a rule of the schema.
    """
    with domain_errors():
        await _INSERT.run(
            connection,
            collection_id=collection_id,
            task_id=task_id,
            name=name,
            cadence_type=cadence.type,
            hour_utc=cadence.hour_utc,
            minute_utc=cadence.minute_utc,
            day_of_week=cadence.day_of_week,
            init_params_overrides=Jsonb(init_params_overrides),
            webhook_url=webhook_url,
            paused=paused,
        )


async def list_routines(connection: Connection, *, collection_id: int, task: str | None = None) -> list[Routine]:
    """The routines of a collection, or of one of its tasks, by task and name."""
    return await _LIST.all(connection, collection_id=collection_id, task=task, name=None)


async def find_routine(connection: Connection, *, collection_id: int, task: str, name: str) -> Routine:
    """The routine of this name.

    Raises:
        NotFoundError: There is none for this task of this collection.
    """
    routine = await _LIST.first(connection, collection_id=collection_id, task=task, name=name)
    if routine is None:
        raise NotFoundError
    return routine


async def set_paused(connection: Connection, *, collection_id: int, routine_id: int, paused: bool) -> None:
    """Pause or resume; waits for a tick that holds the routine. Resuming computes the next slot from now."""
    await _SET_PAUSED.run(connection, collection_id=collection_id, id=routine_id, paused=paused)


async def delete_routine(connection: Connection, *, collection_id: int, routine_id: int) -> None:
    """Remove a routine and its schedule; its trajectories stay. Waits for a tick that holds it."""
    await _DELETE.run(connection, collection_id=collection_id, id=routine_id)


async def run_now(connection: Connection, *, collection_id: int, routine_id: int) -> int:
    """Start a run at once, whatever the cadence; returns its trajectory's id.

    Raises:
        NotFoundError: The routine is gone.
    """
    return (await _RUN_NOW.one(connection, collection_id=collection_id, id=routine_id)).id
