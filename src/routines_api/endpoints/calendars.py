"""The endpoints of calendars: days on which routines do not fire."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from litestar import Response, delete, get, put
from litestar.params import Parameter

from routines_api.http.access import Caller, media_type_of, refuse_other_types
from routines_api.http.errors import MalformedBodyError
from routines_api.http.limit_gate import CALENDARS
from routines_api.http.pagination import Cursor, decode_cursor, page
from routines_api.openapi.description import operation
from routines_api.schemas.calendars import CalendarPut, CalendarRead, calendar_read
from routines_core.db import calendars as db
from routines_core.db.calendars import ListedCalendar
from routines_core.errors import InvalidError
from routines_core.ics_days import IcsError, days_of

ICS = "text/calendar"

CalendarLimit = Annotated[int, Parameter(ge=1, le=1000, description="Maximum number of calendars on a page.")]
FileZone = Annotated[
    str | None,
    Parameter(
        max_length=100,
        description="For a text/calendar body: whose days they are, as an IANA name; by default that of the file's "
        "X-WR-TIMEZONE, and without one the time zone of each routine's cadence.",
    ),
]


@get("/calendars/{collection:str}", tags=["Calendars"], **operation("listCalendars"))
async def list_calendars(
    caller: Caller, *, limit: CalendarLimit = 1000, cursor: Cursor = None
) -> Response[list[ListedCalendar]]:
    """List the calendars of a collection.

    Sorted by name, without their days.
    """
    after = decode_cursor(cursor, str)
    found = await db.list_calendars(caller.connection, key_id=caller.key_id, limit=limit + 1, after=after)
    return page(caller.request, found, limit, key=lambda calendar: calendar.name, show=lambda calendar: calendar)


@get("/calendars/{collection:str}/{calendar:str}", tags=["Calendars"], **operation("getCalendar"))
async def get_calendar(calendar: str, caller: Caller) -> CalendarRead:
    """Get a calendar."""
    return calendar_read(await db.find_calendar(caller.connection, key_id=caller.key_id, name=calendar))


@put(
    "/calendars/{collection:str}/{calendar:str}",
    tags=["Calendars"],
    **operation("putCalendar", body=CalendarPut, file_type=ICS),
)
async def put_calendar(calendar: str, caller: Caller, *, timezone: FileZone = None) -> CalendarRead:
    """Create or replace a calendar.

    The body is JSON or an iCalendar file. Of a file, the dates, the titles and yearly repetitions are read. Repetitions
    are written out for the next ten years. Routines that exclude the calendar follow at once.
    """
    if media_type_of(caller.request) == ICS:
        days, zone = await caller.compute(partial(_days_of_file, caller, timezone))
    elif timezone is not None:
        raise InvalidError("timezone: is for a text/calendar body; send it as a field of the JSON body.", "timezone")
    else:
        body = await caller.body(CalendarPut)
        days, zone = body.stored_days(), body.timezone
    if not await db.has_calendar(caller.connection, key_id=caller.key_id, name=calendar) and (
        refusal := await caller.services.limits.ask(caller.connection, caller.auth, CALENDARS)
    ):
        raise refusal
    return calendar_read(
        await db.put_calendar(caller.connection, key_id=caller.key_id, name=calendar, timezone=zone, days=days)
    )


@delete("/calendars/{collection:str}/{calendar:str}", tags=["Calendars"], **operation("deleteCalendar", conflict=True))
async def delete_calendar(calendar: str, caller: Caller) -> None:
    """Delete a calendar.

    Refused while a routine excludes it.
    """
    await db.delete_calendar(caller.connection, key_id=caller.key_id, name=calendar)


def _days_of_file(caller: Caller, timezone: str | None) -> tuple[list[dict[str, Any]], str | None]:
    refuse_other_types(caller.request, (ICS,))
    try:
        text = caller.raw_body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBodyError(f"The body is not valid UTF-8 at byte {error.start + 1}.") from None
    try:
        found, zone = days_of(text, datetime.now(UTC).year, timezone)
    except IcsError as error:
        raise MalformedBodyError(f"The body is no iCalendar file that can be read: {error}.") from None
    return [_entry(*each) for each in found], zone


def _entry(first: Any, last: Any, label: str | None) -> dict[str, Any]:
    entry = {"from": first.isoformat()}
    if last != first:
        entry["to"] = last.isoformat()
    return entry if label is None else {**entry, "label": label}


HANDLERS = [list_calendars, get_calendar, put_calendar, delete_calendar]
