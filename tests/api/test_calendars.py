"""Calendars and active hours by HTTP."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from support.rows import value

Client = AsyncTestClient[Any]
LIST = "/api/v1/calendars/my-org"
HOLIDAYS = f"{LIST}/holidays"
BASE = "/api/v1/routines/my-org/echo"
ROUTINE = f"{BASE}/r"
CHRISTMAS = {"from": "2126-12-24", "to": "2126-12-26", "label": "Christmas"}
DAILY = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}
ICS = {"Content-Type": "text/calendar; charset=utf-8"}
FILE = (
    "BEGIN:VCALENDAR\r\nX-WR-TIMEZONE:Europe/Berlin\r\nBEGIN:VEVENT\r\nDTSTART;VALUE=DATE:21261224\r\n"
    "DTEND;VALUE=DATE:21261227\r\nSUMMARY:Christ\r\n mas\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)


async def put(client: Client, *days: dict[str, str], path: str = HOLIDAYS, **fields: Any) -> dict[str, Any]:
    answer = await client.put(path, json={"days": days, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: Client, method: str, path: str, status: int = 400, **sent: Any) -> str:
    answer = await client.request(method, path, **sent)
    assert answer.status_code == status, answer.text
    return answer.json()["detail"]


async def test_a_calendar_is_created_replaced_listed_and_deleted(client: Client) -> None:
    assert (await client.get(HOLIDAYS)).status_code == 404
    made = await put(client, CHRISTMAS, {"from": "2126-05-01"}, timezone="Europe/Berlin")
    assert made == {
        "name": "holidays",
        "timezone": "Europe/Berlin",
        "days": [CHRISTMAS, {"from": "2126-05-01"}],
        "updated_at": made["updated_at"],
    }
    assert (await client.get(HOLIDAYS)).json() == made
    assert (await client.get(LIST)).json() == [
        {
            "name": "holidays",
            "timezone": "Europe/Berlin",
            "first_day": "2126-05-01",
            "last_day": "2126-12-26",
            "updated_at": made["updated_at"],
        }
    ]
    assert (await put(client, CHRISTMAS))["timezone"] is None
    assert (await client.get(HOLIDAYS)).json()["days"] == [CHRISTMAS]
    assert (await client.delete(HOLIDAYS)).status_code == 204
    assert (await client.get(LIST)).json() == []
    assert (await client.delete(HOLIDAYS)).status_code == 404


async def test_what_a_get_returned_can_be_sent_back(client: Client) -> None:
    made = await put(client, CHRISTMAS)
    answer = await client.put(HOLIDAYS, json=made)
    assert {**answer.json(), "updated_at": ""} == {**made, "updated_at": ""}


async def test_calendars_are_listed_in_pages(client: Client) -> None:
    for name in ("c", "a", "b"):
        await put(client, path=f"{LIST}/{name}")
    first = await client.get(LIST, params={"limit": 2})
    assert [each["name"] for each in first.json()] == ["a", "b"]
    rest = await client.get(first.links["next"]["url"])
    assert [each["name"] for each in rest.json()] == ["c"]
    assert "next" not in rest.links


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "days: is required."),
        ({"days": [{}]}, "days.0.from: is required."),
        ({"days": [{"from": "2126-02-30"}]}, "days.0.from: must be a date, for example 2026-12-24."),
        ({"days": [{"from": "1969-12-31"}]}, "days.0.from: must be in the years 1970 to 2199."),
        ({"days": [{"from": "2126-12-24", "to": "2126-12-23"}]}, "days.0.to: must not be earlier than from."),
        ({"days": [{"from": "2126-12-24", "label": ""}]}, 'days.0.label: must have at least 1 character, not "".'),
        ({"days": [{"from": "2126-12-24", "day": 1}]}, "days.0.day: unknown field."),
        ({"days": [{"from": "1970-01-01", "to": "2199-12-31"}]}, "days: must be at most 10,000 dates."),
        ({"days": [{"from": "2126-12-24"}] * 2001}, None),
        (
            {"days": [], "timezone": "Foo5"},
            'timezone: must be the name of a time zone in the IANA database, such as Europe/Berlin or UTC, not "Foo5".',
        ),
        ({"days": [], "zone": "UTC"}, "zone: unknown field."),
    ],
)
async def test_a_calendar_that_is_not_valid_is_refused_with_the_field(
    client: Client, body: dict[str, Any], detail: str | None
) -> None:
    found = await refused(client, "PUT", HOLIDAYS, json=body)
    assert found == detail or detail is None
    assert (await client.get(LIST)).json() == []


async def test_a_name_that_is_no_slug_is_refused(client: Client) -> None:
    assert (await refused(client, "PUT", f"{LIST}/Holidays", json={"days": []})).startswith("name: must be 1 to 100")


async def test_an_icalendar_file_becomes_a_calendar(client: Client) -> None:
    answer = await client.put(HOLIDAYS, content=FILE, headers=ICS)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["days"], answer.json()["timezone"]) == ([CHRISTMAS], "Europe/Berlin")
    answer = await client.put(HOLIDAYS, params={"timezone": "UTC"}, content=FILE, headers=ICS)
    assert answer.json()["timezone"] == "UTC"


@pytest.mark.parametrize(
    ("content", "headers", "status", "detail"),
    [
        (b"", ICS, 400, "The body is no iCalendar file that can be read: END:VCALENDAR is missing."),
        (b"{}", ICS, 400, "The body is no iCalendar file that can be read: it must begin with BEGIN:VCALENDAR."),
        (b"\xff", ICS, 400, "The body is not valid UTF-8 at byte 1."),
        (FILE.replace("Europe/Berlin", "Foo5").encode(), ICS, 400, None),
        (b"a" * (9 * 1024), ICS, 400, None),
        (FILE.encode(), {"Content-Type": "text/calendar; charset=latin-1"}, 415, None),
        (FILE.encode(), {**ICS, "Content-Encoding": "gzip"}, 415, None),
        (FILE.encode(), {"Content-Type": "text/plain"}, 415, None),
    ],
)  # fmt: skip
async def test_a_file_that_cannot_be_read_is_refused(
    client: Client, content: bytes, headers: dict[str, str], status: int, detail: str | None
) -> None:
    found = await refused(client, "PUT", HOLIDAYS, status, content=content, headers=headers)
    assert found == detail or detail is None
    assert (await client.get(LIST)).json() == []


async def test_the_query_names_the_time_zone_of_a_file_only(client: Client) -> None:
    detail = await refused(client, "PUT", HOLIDAYS, params={"timezone": "UTC"}, json={"days": []})
    assert detail == "timezone: is for a text/calendar body; send it as a field of the JSON body."


CALENDAR = {"exclude": ["holidays"], "on_excluded": "next_business_day"}
HOURS = {"windows": ["mon-fri 08:00-18:00", "fri 22:00-06:00"], "outside": "defer", "timezone": "Europe/Berlin"}


async def test_a_routine_shows_its_calendar_and_active_hours_only_if_it_has_them(client: Client) -> None:
    await put(client, CHRISTMAS)
    plain = (await client.post(BASE, json=DAILY)).json()
    assert "calendar" not in plain
    assert "active_hours" not in plain
    both = {"calendar": CALENDAR, "active_hours": HOURS}
    assert (await client.patch(ROUTINE, json=both)).json() == {**plain, **both}
    assert (await client.get(ROUTINE)).json() == {**plain, **both, "warnings": []}
    assert (await client.get(BASE)).json() == [{**plain, **both}]
    read = (await client.get(ROUTINE)).json()
    assert (await client.patch(ROUTINE, json=read)).json() == {**plain, **both}
    assert (await client.patch(ROUTINE, json={"calendar": None})).json() == {**plain, "active_hours": HOURS}
    assert (await client.patch(ROUTINE, json={"active_hours": None})).json() == plain


async def test_a_routine_is_created_with_a_calendar_and_active_hours(client: Client) -> None:
    await put(client, CHRISTMAS)
    least = {"calendar": {"exclude": ["holidays"]}, "active_hours": {"windows": ["mon-fri 08:00-18:00"]}}
    answer = await client.post(BASE, json={**DAILY, **least})
    assert answer.status_code == 201, answer.text
    assert answer.json()["calendar"] == {"exclude": ["holidays"], "on_excluded": "skip"}
    assert answer.json()["active_hours"] == {"windows": ["mon-fri 08:00-18:00"], "outside": "skip"}


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"calendar": {"exclude": ["typo"]}}, 'calendar.exclude: the collection has no calendar "typo".'),
        ({"calendar": {"exclude": []}}, "calendar.exclude: must have at least 1 item."),
        ({"calendar": {"exclude": ["holidays", "holidays"]}}, None),
        ({"calendar": {"exclude": ["holidays"], "on_excluded": "later"}}, None),
        ({"calendar": {"exclude": ["holidays"], "include": []}}, "calendar.include: unknown field."),
        ({"calendar": "holidays"}, None),
        ({"active_hours": {"windows": []}}, "active_hours.windows: must have at least 1 item."),
        (
            {"active_hours": {"windows": ["mon-fri 8-18"]}},
            (
                "active_hours.windows.0: must be days and times such as mon-fri 08:00-18:00, sat 22:00-06:00 or "
                'mon,wed 00:00-24:00, not "mon-fri 8-18".'
            ),
        ),
        (
            {"active_hours": {"windows": ["mon 08:00-18:00"], "timezone": "CEST"}},
            (
                "active_hours.timezone: must be the name of a time zone in the IANA database, such as Europe/Berlin or "
                'UTC, not "CEST".'
            ),
        ),
    ],
)
async def test_a_routine_that_is_not_valid_is_refused_with_the_field(
    client: Client, fields: dict[str, Any], detail: str | None
) -> None:
    await put(client, CHRISTMAS)
    found = await refused(client, "POST", BASE, json={**DAILY, **fields})
    assert found == detail or detail is None
    await client.post(BASE, json=DAILY)
    assert await refused(client, "PATCH", ROUTINE, json=fields) == found
    assert "calendar" not in (await client.get(ROUTINE)).json()


async def test_a_calendar_in_use_is_not_deleted_and_the_answer_names_a_routine(client: Client) -> None:
    await put(client, CHRISTMAS)
    await client.post(BASE, json={**DAILY, "calendar": CALENDAR})
    detail = await refused(client, "DELETE", HOLIDAYS, 409)
    assert detail == "The routine r of the task echo uses the calendar."
    assert (await client.delete(ROUTINE)).status_code == 204
    assert (await client.delete(HOLIDAYS)).status_code == 204


async def test_a_calendar_of_another_collection_cannot_be_named(client: Client, connection: Connection) -> None:
    await connection.execute("INSERT INTO routines.collections (name) VALUES ('other')")
    await connection.execute(
        "INSERT INTO routines.calendars (collection_id, name) SELECT id, 'theirs' FROM routines.collections "
        "WHERE name = 'other'"
    )
    detail = await refused(client, "POST", BASE, json={**DAILY, "calendar": {"exclude": ["theirs"]}})
    assert detail == 'calendar.exclude: the collection has no calendar "theirs".'


async def test_at_the_limit_no_calendar_can_be_added_but_each_can_be_replaced(
    client: Client, connection: Connection
) -> None:
    await connection.execute("INSERT INTO routines.collection_limits (name, value) VALUES ('calendars', 1)")
    await put(client, CHRISTMAS)
    answer = await client.put(f"{LIST}/second", json={"days": []})
    assert answer.status_code == 429
    assert "calendars" in answer.json()["detail"]
    await put(client)
    assert await value(connection, "SELECT count(*) FROM routines.calendars") == 1


async def test_next_leaves_out_excluded_slots_and_shows_where_they_move(client: Client) -> None:
    weekly = {"type": "weekly", "day_of_week": "thu", "hour_utc": 9}
    body = {"name": "r", "cadence": weekly, "starts_at": "2126-12-20T00:00:00Z", "calendar": CALENDAR}
    await put(client, {"from": "2126-12-26"})
    made = (await client.post(BASE, json=body)).json()
    assert made["next_run_at"] == "2126-12-26T09:00:00Z"
    answer = await client.get(f"{ROUTINE}/next", params={"count": 2})
    assert answer.json()["slots"] == ["2126-12-27T09:00:00Z", "2127-01-02T09:00:00Z"]
