"""Calendars and active hours at psql: what is excluded and what is refused, compared with a walk of local clocks."""

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from holidays import country_holidays
from psycopg.types.json import Jsonb

from routines_core.db import Connection
from support.exclusion_oracle import Window, is_active, is_excluded_day, words_of
from support.rows import at, make_task, value

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
YEARS = range(2000, 2031)
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "America/Havana", "Asia/Beirut", "Australia/Lord_Howe",
    "Asia/Kathmandu", "Europe/London", "America/St_Johns", "Pacific/Chatham", "America/Santiago", "CET",
)  # fmt: skip
CASES = 60


async def make_calendar(
    connection: Connection, *days: dict[str, str], name: str = "holidays", timezone: str | None = None
) -> None:
    await connection.execute(
        "INSERT INTO routines.calendars (collection_id, name, timezone, days) VALUES (1, %s, %s, %s)",
        [name, timezone, Jsonb(days)],
    )


async def make(connection: Connection, **columns: Any) -> int:
    """Create a routine, by default hourly, and return its id."""
    fields = {"name": "r", "cadence_type": "hourly"} | columns
    names, places = ", ".join(fields), ", ".join(["%s"] * len(fields))
    insert = f"INSERT INTO routines.routines (collection_id, task_id, {names}) VALUES (1, 1, {places}) RETURNING id"
    values = [Jsonb(each) if isinstance(each, dict | list) else each for each in fields.values()]
    row = await (await connection.execute(insert.encode(), values)).fetchone()
    assert row
    return row[0]


async def stretch(connection: Connection, time: datetime) -> tuple[str | None, datetime, datetime]:
    cursor = await connection.execute(
        """SELECT reason, greatest(since, %(at)s - interval '3 days'), least(until, %(at)s + interval '3 days')
           FROM routines.routines, routines.stretch_at(routines, %(at)s)""",
        {"at": time},
    )
    row = await cursor.fetchone()
    assert row
    return row


def some_windows(chance: random.Random) -> list[Window]:
    def time() -> str:
        return f"{chance.randrange(24):02}:{chance.choice((0, 0, 15, 30, 45, 59)):02}"

    windows: list[Window] = []
    while len(windows) < chance.randint(1, 3):
        window = chance.randrange(7), chance.randrange(7), time(), chance.choice((time(), "24:00"))
        if window[2] != window[3]:
            windows.append(window)
    return windows


def near_a_change_of_clocks(chance: random.Random, zone: str) -> datetime:
    """Return a time, in half of the cases within a day of the moment at which the clocks of the zone change."""
    time = datetime(2026, 1, 1, tzinfo=UTC) + chance.randrange(366 * 1440) * MINUTE
    for _ in range(366 if chance.random() < 0.5 else 0):
        if time.astimezone(ZoneInfo(zone)).utcoffset() != (time + DAY).astimezone(ZoneInfo(zone)).utcoffset():
            return time + chance.randrange(1440) * MINUTE
        time += DAY
    return time


@pytest.mark.parametrize("number", range(CASES))
async def test_active_hours_are_those_that_local_clocks_show(connection: Connection, number: int) -> None:
    chance = random.Random(f"hours {number}")
    zone, windows = chance.choice(ZONES), some_windows(chance)
    await make_task(connection)
    await make(connection, active_hours={"timezone": zone, "windows": [words_of(window) for window in windows]})
    for _ in range(4):
        time = near_a_change_of_clocks(chance, zone)
        reason, since, until = await stretch(connection, time)
        expected = None if is_active(time, zone, windows) else "outside_hours"
        assert reason == expected, (zone, windows, time)
        assert since <= time < until
        minute = since + (-since.timestamp() % 60) * timedelta(seconds=1)
        while minute < until:
            assert is_active(minute, zone, windows) is (reason is None), (zone, windows, time, minute)
            minute += 5 * MINUTE


@pytest.mark.parametrize("number", range(CASES // 2))
async def test_a_calendar_excludes_the_days_that_local_clocks_show(connection: Connection, number: int) -> None:
    chance = random.Random(f"days {number}")
    zone = chance.choice(ZONES)
    time = near_a_change_of_clocks(chance, zone)
    days = {time.date() + chance.randint(-5, 5) * DAY for _ in range(chance.randint(1, 4))}
    await make_task(connection)
    await make_calendar(connection, *({"from": str(day)} for day in days), timezone=zone)
    await make(connection, calendar={"exclude": ["holidays"]})
    for _ in range(4):
        asked = time + chance.randint(-4 * 1440, 4 * 1440) * MINUTE
        reason, since, until = await stretch(connection, asked)
        assert reason == ("calendar" if is_excluded_day(asked, zone, days) else None), (zone, days, asked)
        assert since <= asked < until
        minute = since
        while minute < until:
            assert is_excluded_day(minute, zone, days) is (reason is not None), (zone, days, asked, minute)
            minute += 5 * MINUTE


@pytest.mark.parametrize(
    ("country", "zone"),
    [
        ("DE", "Europe/Berlin"),
        ("US", "America/New_York"),
        ("JP", "Asia/Tokyo"),
        ("SA", "Asia/Riyadh"),
        ("NZ", "Pacific/Auckland"),
        ("WS", "Pacific/Apia"),  # has no 30 December 2011
    ],
)
async def test_each_day_of_thirty_years_is_excluded_if_it_is_a_holiday(
    connection: Connection, country: str, zone: str
) -> None:
    """At noon, by the calendars of the package `holidays`."""
    expected = {day: label[:200] for day, label in country_holidays(country, years=YEARS).items()}
    await make_task(connection)
    await make_calendar(connection, *({"from": str(day), "label": label} for day, label in expected.items()))
    await make(
        connection,
        cadence_type="cron",
        expression=Jsonb("0 12 * * *"),
        timezone=zone,
        calendar={"exclude": ["holidays"]},
    )
    cursor = await connection.execute(
        """SELECT slot, routines.exclusion_of(routines, slot)
           FROM routines.routines, routines.slots_between(routines.cadence_of(routines), %s, %s) AS slot""",
        [datetime(YEARS[0], 1, 1, tzinfo=ZoneInfo(zone)), datetime(YEARS[-1] + 1, 1, 1, tzinfo=ZoneInfo(zone))],
    )
    found = [(slot.astimezone(ZoneInfo(zone)).date(), label) for slot, label in await cursor.fetchall()]
    assert len(found) > 30 * 365
    assert {day: label for day, label in found if label} == expected


@pytest.mark.parametrize(
    ("window", "minutes"),
    [
        ("mon 08:00-18:00", "{[480,1080)}"),
        ("mon,wed 00:00-24:00", "{[0,1440),[2880,4320)}"),
        ("fri 22:00-06:00", "{[7080,7560)}"),
        ("sun 22:00-06:00", "{[0,360),[9960,10080)}"),
        ("sat-mon 12:00-13:00", "{[720,780),[7920,7980),[9360,9420)}"),
        ("MON-SUN 00:00-24:00", "{[0,10080)}"),
        (
            "mon-sun 12:00-00:00",
            "{[720,1440),[2160,2880),[3600,4320),[5040,5760),[6480,7200),[7920,8640),[9360,10080)}",
        ),
        ("mon 08:00-08:00", None),
        ("mon 24:00-08:00", None),
        ("mon 08:00-24:01", None),
        ("mon 8:00-18:00", None),
        ("mon  08:00-18:00", None),
        ("monday 08:00-18:00", None),
        ("mon-wed-fri 08:00-18:00", None),
        ("mon, 08:00-18:00", None),
        ("08:00-18:00", None),
        ("mon 08:00-18:00\n", None),
        ("", None),
    ],
)
async def test_a_window_is_read_as_minutes_of_the_week(
    connection: Connection, window: str, minutes: str | None
) -> None:
    assert await value(connection, "SELECT routines.window_minutes(%s)::text", window) == minutes


@pytest.mark.parametrize(
    ("calendar", "message"),
    [
        ([], "calendar: must be an object of exclude and on_excluded"),
        ({"exclude": ["holidays"], "on": 1}, "calendar: must be an object of exclude and on_excluded"),
        ({}, "calendar.exclude: must be an array of 1 to 10 different names of calendars"),
        ({"exclude": "holidays"}, "calendar.exclude: must be an array of 1 to 10 different names of calendars"),
        ({"exclude": []}, "calendar.exclude: must be an array of 1 to 10 different names of calendars"),
        ({"exclude": ["holidays"] * 2}, "calendar.exclude: must be an array of 1 to 10 different names of calendars"),
        ({"exclude": [1]}, "calendar.exclude: must be an array of 1 to 10 different names of calendars"),
        (
            {"exclude": ["holidays"], "on_excluded": "later"},
            "calendar.on_excluded: must be skip, next_day or next_business_day",
        ),
        (
            {"exclude": ["holidays"], "on_excluded": None},
            "calendar.on_excluded: must be skip, next_day or next_business_day",
        ),
        ({"exclude": ["holidays", "typo"]}, 'calendar.exclude: the collection has no calendar "typo"'),
    ],
)
async def test_a_routine_is_refused_whose_calendar_is_not_valid(
    connection: Connection, calendar: Any, message: str
) -> None:
    await make_task(connection)
    await make_calendar(connection, {"from": "2026-12-25"})
    with pytest.raises(psycopg.errors.IntegrityError) as refused:
        await make(connection, calendar=calendar)
    assert refused.value.diag.message_primary == message


@pytest.mark.parametrize(
    ("hours", "field"),
    [
        ([], "active_hours"),
        ({"windows": ["mon 08:00-18:00"], "typo": 1}, "active_hours"),
        ({}, "active_hours.windows"),
        ({"windows": []}, "active_hours.windows"),
        ({"windows": ["mon 08:00-18:00"] * 21}, "active_hours.windows"),
        ({"windows": ["mon 08:00-18:00", "mon 08:00"]}, "active_hours.windows.1"),
        ({"windows": [1]}, "active_hours.windows.0"),
        ({"windows": ["mon 08:00-18:00"], "outside": "wait"}, "active_hours.outside"),
        ({"windows": ["mon 08:00-18:00"], "timezone": "Foo5"}, "active_hours.timezone"),
        ({"windows": ["mon 08:00-18:00"], "timezone": None}, "active_hours.timezone"),
    ],
)
async def test_a_routine_is_refused_whose_active_hours_are_not_valid(
    connection: Connection, hours: Any, field: str
) -> None:
    await make_task(connection)
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        await make(connection, active_hours=hours)
    assert (refused.value.diag.message_primary or "").startswith(f"{field}: must be ")


@pytest.mark.parametrize(
    ("days", "message"),
    [
        ({}, "days: must be an array of at most 2,000 entries"),
        ([{"from": "2026-12-25"}] * 2001, "days: must be an array of at most 2,000 entries"),
        (["2026-12-25"], "days.0: must be an object of from, to and label"),
        ([{"from": "2026-12-25", "note": "x"}], "days.0: must be an object of from, to and label"),
        (
            [{"from": "2026-12-25"}, {"to": "2026-12-25"}],
            "days.1.from: must be a date in the years 1970 to 2199, for example 2026-12-24",
        ),
        ([{"from": "2026-02-30"}], "days.0.from: must be a date in the years 1970 to 2199, for example 2026-12-24"),
        ([{"from": "1969-12-31"}], "days.0.from: must be a date in the years 1970 to 2199, for example 2026-12-24"),
        ([{"from": "today"}], "days.0.from: must be a date in the years 1970 to 2199, for example 2026-12-24"),
        (
            [{"from": "2026-12-25", "to": "2200-01-01"}],
            "days.0.to: must be a date in the years 1970 to 2199, for example 2026-12-24",
        ),
        ([{"from": "2026-12-25", "to": "2026-12-24"}], "days.0.to: must not be earlier than from"),
        ([{"from": "2026-12-25", "label": ""}], "days.0.label: must have 1 to 200 characters"),
        ([{"from": "2026-12-25", "label": 1}], "days.0.label: must have 1 to 200 characters"),
        ([{"from": "1970-01-01", "to": "2199-12-31"}], "days: must be at most 10,000 dates"),
        ([{"from": "2000-01-01", "to": "2010-01-01"}] * 3, "days: must be at most 10,000 dates"),
    ],
)
async def test_a_calendar_is_refused_whose_days_are_not_valid(connection: Connection, days: Any, message: str) -> None:
    await make_task(connection)
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        await connection.execute(
            "INSERT INTO routines.calendars (collection_id, name, days) VALUES (1, 'holidays', %s)", [Jsonb(days)]
        )
    assert refused.value.diag.message_primary == message


async def test_a_calendar_is_refused_whose_time_zone_is_unknown_and_cannot_be_renamed(connection: Connection) -> None:
    await make_task(connection)
    with pytest.raises(psycopg.errors.CheckViolation, match="timezone: must be the name of a time zone"):
        await make_calendar(connection, timezone="Foo5")
    await make_calendar(connection)
    with pytest.raises(psycopg.errors.CheckViolation, match="name: a calendar cannot be renamed"):
        await connection.execute("UPDATE routines.calendars SET name = 'other'")


async def test_a_date_that_two_entries_name_has_the_label_of_the_first(connection: Connection) -> None:
    await make_task(connection)
    await make_calendar(
        connection,
        {"from": "2026-12-24", "to": "2026-12-26", "label": "Christmas"},
        {"from": "2026-12-26", "label": "x"},
    )
    cursor = await connection.execute("SELECT day, label FROM routines.calendar_days ORDER BY day")
    assert await cursor.fetchall() == [(date(2026, 12, day), "Christmas") for day in (24, 25, 26)]
    await connection.execute("""UPDATE routines.calendars SET days = '[{"from": "2027-01-01"}]'""")
    assert await value(connection, "SELECT array_agg(day) FROM routines.calendar_days") == [date(2027, 1, 1)]


async def test_a_calendar_in_use_cannot_be_deleted_until_no_routine_names_it(connection: Connection) -> None:
    await make_task(connection)
    await make_calendar(connection)
    first = await make(connection, name="a", calendar={"exclude": ["holidays"]})
    await make(connection, name="b", calendar={"exclude": ["holidays"]})
    delete = "DELETE FROM routines.calendars"
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await connection.execute(delete.encode())
    await connection.execute("DELETE FROM routines.routines WHERE id = %s", [first])
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await connection.execute(delete.encode())
    await connection.execute("UPDATE routines.routines SET calendar = NULL")
    await connection.execute(delete.encode())
    assert await value(connection, "SELECT count(*) FROM routines.routine_calendars") == 0


async def test_next_shows_which_slots_will_not_fire_and_why(connection: Connection) -> None:
    await make_task(connection)
    await make_calendar(connection, {"from": "2126-12-25", "to": "2126-12-26", "label": "Christmas"})
    await make(
        connection, cadence_type="daily", hour_utc=9, starts_at=at("2126-12-24 00:00"),
        calendar={"exclude": ["holidays"], "on_excluded": "next_day"},
    )  # fmt: skip
    cursor = await connection.execute("SELECT slot, excluded FROM routines.next('my-org/echo/r', 4)")
    assert await cursor.fetchall() == [
        (at("2126-12-24 09:00"), None),
        (at("2126-12-25 09:00"), "Christmas; not moved, since the next slot is 2126-12-26T09:00:00Z"),
        (at("2126-12-26 09:00"), "Christmas; not moved, since the next slot is 2126-12-27T09:00:00Z"),
        (at("2126-12-27 09:00"), None),
    ]
    sentence = await value(connection, "SELECT routines.why('my-org/echo/r', '2126-12-26 09:00Z')")
    assert sentence == "It will be skipped: Christmas; not moved, since the next slot is 2126-12-27T09:00:00Z."


async def test_the_load_of_the_schedule_leaves_out_excluded_slots(connection: Connection) -> None:
    await make_task(connection)
    await make_calendar(connection, {"from": "2126-12-25"})
    await make(connection, name="plain")
    await make(connection, name="a", calendar={"exclude": ["holidays"]})
    await make(connection, name="b", active_hours={"windows": ["mon-sun 08:00-12:00"]})
    await connection.execute("UPDATE routines.routines SET next_run_at = '2126-12-24 00:00Z'")
    cursor = await connection.execute(
        "SELECT slots FROM routines.schedule_load(1, '2126-12-24 12:00Z', '2126-12-26 12:00Z', '12 hours')"
    )
    assert [slots for (slots,) in await cursor.fetchall()] == [24, 12 + 4, 12, 24 + 4]


async def test_a_feed_leaves_out_excluded_slots(connection: Connection) -> None:
    await make_task(connection)
    await make_calendar(connection, {"from": "2126-12-25"})
    await make(connection, name="plain")
    await make(connection, name="a", calendar={"exclude": ["holidays"]})
    await make(connection, name="b", active_hours={"windows": ["mon-sun 08:00-12:00"]})
    cursor = await connection.execute(
        """SELECT routine_id, count(*)
           FROM routines.slots_of_routines(ARRAY[1, 2, 3], array_fill(timestamptz '2126-12-25 00:00Z', ARRAY[3]),
                                           '2126-12-25 00:00Z', '2126-12-26 06:00Z')
           GROUP BY 1 ORDER BY 1"""
    )
    assert await cursor.fetchall() == [(1, 30), (2, 6), (3, 4)]
