"""Calendars: sql/queries/calendars.sql called from Python."""

from datetime import date, datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import ConflictError, NotFoundError


class Calendar(msgspec.Struct, frozen=True):
    """A stored calendar.

    Attributes:
        timezone: Whose days they are; None for the time zone of each routine's cadence.
        days: Objects of from, to and label, as they were given.
    """

    name: str
    timezone: str | None
    days: list[dict[str, Any]]
    updated_at: datetime


class ListedCalendar(msgspec.Struct, frozen=True):
    """A calendar on a page of a list, without its days.

    Attributes:
        timezone: Whose days they are; None for the time zone of each routine's cadence.
        first_day: The first date that it excludes; None if it excludes none.
        last_day: The last one.
    """

    name: str
    timezone: str | None
    first_day: date | None
    last_day: date | None
    updated_at: datetime


class _User(msgspec.Struct):
    task_name: str
    name: str


_PUT = Statement("calendars.put_calendar", Calendar)
_FIND = Statement("calendars.find_calendar", Calendar)
_LIST = Statement("calendars.list_calendars", ListedCalendar)
_USER = Statement("calendars.routine_with_calendar", _User)
_DELETE = Statement("calendars.delete_calendar", NoRow)


async def put_calendar(
    connection: Connection, *, key_id: int, name: str, timezone: str | None, days: list[dict[str, str]]
) -> Calendar:
    """Create a calendar, or replace it whole. Returns it as stored.

    Raises:
        InvalidError: The name, the time zone or the days break a rule of the schema.
    """
    with domain_errors():
        return await _PUT.one(connection, key_id=key_id, name=name, timezone=timezone, days=Jsonb(days))


async def has_calendar(connection: Connection, *, key_id: int, name: str) -> bool:
    """Return whether the collection has a calendar of this name."""
    return await _FIND.first(connection, key_id=key_id, name=name) is not None


async def find_calendar(connection: Connection, *, key_id: int, name: str) -> Calendar:
    """Return the calendar of this name.

    Raises:
        NotFoundError: The collection has no such calendar.
    """
    calendar = await _FIND.first(connection, key_id=key_id, name=name)
    if calendar is None:
        raise NotFoundError
    return calendar


async def list_calendars(
    connection: Connection, *, key_id: int, limit: int, after: str | None = None
) -> list[ListedCalendar]:
    """Return at most `limit` of the collection's calendars by name, after the name `after`."""
    return await _LIST.all(connection, key_id=key_id, limit=limit, after=after)


async def delete_calendar(connection: Connection, *, key_id: int, name: str) -> None:
    """Delete a calendar.

    Raises:
        NotFoundError: The collection has no such calendar.
        ConflictError: A routine uses it; the message names one.
    """
    user = await _USER.first(connection, key_id=key_id, name=name)
    if user:
        raise ConflictError(f"The routine {user.name} of the task {user.task_name} uses the calendar.")
    with domain_errors():
        deleted = await _DELETE.run(connection, key_id=key_id, name=name)
    if not deleted:
        raise NotFoundError
