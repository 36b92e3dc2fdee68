"""Previews of cadences that are not saved: up to a year of slots, and what to know about them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from psycopg.errors import CheckViolation
from psycopg.types.json import Jsonb

from routines_core.db import Connection
from support.rows import at, make_task, value

SINCE, UNTIL = at("2027-01-01 00:00"), at("2028-01-01 00:00")
PREVIEW = "SELECT slot, local_time, dst FROM routines.preview(routines.cadence_from_json(%s), %s, %s, %s)"
WARNINGS = "SELECT warning FROM routines.preview_warnings(routines.cadence_from_json(%s), %s, %s, %s) AS warning"
BERLIN = {"type": "cron", "timezone": "Europe/Berlin"}


async def slots_of(
    connection: Connection,
    cadence: dict[str, Any],
    since: datetime = SINCE,
    until: datetime = UNTIL,
    most: int = 10_000,
) -> list[tuple[datetime, str | None, str | None]]:
    return await (await connection.execute(PREVIEW.encode(), [Jsonb(cadence), since, until, most])).fetchall()


async def warnings_of(
    connection: Connection,
    cadence: dict[str, Any],
    since: datetime = SINCE,
    until: datetime = UNTIL,
    most: int = 10_000,
) -> list[str]:
    cursor = await connection.execute(WARNINGS.encode(), [Jsonb(cadence), since, until, most])
    return [row[0] for row in await cursor.fetchall()]


async def test_a_year_of_a_daily_time_has_its_local_time_and_both_changes_of_the_clocks(connection: Connection) -> None:
    found = await slots_of(connection, {**BERLIN, "expression": "30 2 * * *"})
    assert len(found) == 365
    assert found[0] == (at("2027-01-01 01:30"), "2027-01-01T02:30:00+01:00", None)
    assert [row for row in found if row[2]] == [
        (at("2027-03-28 01:00"), "2027-03-28T03:00:00+02:00", "shifted"),
        (at("2027-10-31 00:30"), "2027-10-31T02:30:00+02:00", "first of two"),
    ]


@pytest.mark.parametrize(
    "cadence",
    [
        {"type": "hourly", "minute_utc": 7},
        {"type": "weekdays", "hour_utc": 9, "minute_utc": 0},
        {"type": "weekly", "hour_utc": 9, "minute_utc": 0, "day_of_week": "sun", "ends_at": "2027-06-06T09:00:00Z"},
        {"type": "interval", "every_minutes": 100, "anchor": "2030-01-01T00:00:30Z"},
        {
            "type": "interval",
            "every_minutes": 100,
            "anchor": "2020-01-01T00:00:30Z",
            "starts_at": "2027-03-01T00:00:00Z",
        },
        {"type": "once", "at": "2027-03-04T09:00:00Z"},
        {**BERLIN, "expression": ["*/20 2 * * *", "15 1,2 * 3 *"], "starts_at": "2027-03-27T00:00:00Z"},
    ],
    ids=lambda cadence: f"{cadence['type']}-{len(cadence)}",
)
async def test_a_preview_has_the_slots_that_next_fire_finds(connection: Connection, cadence: dict[str, Any]) -> None:
    expected = """WITH RECURSIVE slots (slot) AS (
                      SELECT routines.next_fire(routines.cadence_from_json(%(cadence)s), %(since)s - interval '1 us')
                      UNION ALL
                      SELECT routines.next_fire(routines.cadence_from_json(%(cadence)s), slot) FROM slots
                      WHERE slot < %(until)s)
                  SELECT slot FROM slots WHERE slot < %(until)s"""
    until = SINCE + timedelta(days=100)
    cursor = await connection.execute(expected.encode(), {"cadence": Jsonb(cadence), "since": SINCE, "until": until})
    slots = [row[0] for row in await cursor.fetchall()]
    assert slots
    assert [row[0] for row in await slots_of(connection, cadence, until=until)] == slots
    assert [row[0] for row in await slots_of(connection, cadence, until=until, most=3)] == slots[:3]


@pytest.mark.parametrize(
    "cadence",
    [{"type": "interval", "every_minutes": 1, "anchor": "2026-01-01T00:00:00Z"}, {**BERLIN, "expression": "* * * * *"}],
    ids=["interval", "cron"],
)
async def test_a_cadence_of_every_minute_is_computed_only_as_far_as_it_is_shown(
    connection: Connection, cadence: dict[str, Any]
) -> None:
    """Half a million slots fall in the year."""
    found = await slots_of(connection, cadence)
    assert (len(found), found[-1][0]) == (10_000, SINCE + timedelta(minutes=9_999))
    await connection.execute("SET statement_timeout = '3s'")
    assert await warnings_of(connection, cadence) == [
        "This covers only the first 10000 slots, up to 2027-01-07T22:39:00Z."
    ]


async def test_an_interval_without_an_anchor_counts_as_made_at_a_given_time(connection: Connection) -> None:
    query = "SELECT min(slot) FROM routines.preview(routines.cadence_from_json(%s), %s, %s, 10, %s)"
    cadence = Jsonb({"type": "interval", "every_minutes": 7})
    made = at("2026-12-31 23:58")
    assert await value(connection, query, cadence, SINCE, UNTIL, made) == at("2027-01-01 00:05")
    # Any slot of it gives the same ones.
    slot = at("2027-01-01 00:12")
    assert await value(connection, query, cadence, SINCE, UNTIL, slot) == at("2027-01-01 00:05")


@pytest.mark.parametrize(
    ("cadence", "sentences"),
    [
        ({"type": "daily", "hour_utc": 9, "minute_utc": 0}, []),
        (
            {**BERLIN, "expression": "*/15 2 * * *"},
            [
                "Clocks in Europe/Berlin skip 02:00 to 03:00 on 2027-03-28: its slots at that time are left out.",
                "Clocks in Europe/Berlin show 02:00 to 03:00 twice on 2027-10-31: its slots at that time come twice.",
            ],
        ),
        ({**BERLIN, "expression": ["@hourly", "*/30 3 * * *", "*/30 2 * * mon"]}, []),
        (
            {"type": "cron", "expression": "* 2 3 10 *", "timezone": "Australia/Lord_Howe"},
            ["Clocks in Australia/Lord_Howe skip 02:00 to 02:30 on 2027-10-03: its slots at that time are left out."],
        ),
        (
            {**BERLIN, "expression": "30 2 * * *"},
            [
                "02:30 does not exist in Europe/Berlin on 2027-03-28; it fires at 03:00.",
                "02:30 comes twice in Europe/Berlin on 2027-10-31; it fires the first time.",
            ],
        ),
        (
            {**BERLIN, "expression": "0-6 2 31 10 *"},
            [
                *[
                    f"02:0{minute} comes twice in Europe/Berlin on 2027-10-31; it fires the first time."
                    for minute in range(5)
                ],
                "Clocks change at the time of 2 more slots.",
            ],
        ),
        ({"type": "manual"}, ["A manual routine has no slots: it runs only when someone starts it."]),
        (
            {"type": "once", "at": "2028-05-04T09:00:00Z"},
            ["No slot falls in this time: the next is 2028-05-04T09:00:00Z."],
        ),
        ({"type": "once", "at": "2026-05-04T09:00:00Z"}, ["No slot is left: the last was 2026-05-04T09:00:00Z."]),
        (
            {
                "type": "weekly",
                "hour_utc": 9,
                "minute_utc": 0,
                "day_of_week": "mon",
                "starts_at": "2027-01-05T00:00:00Z",
                "ends_at": "2027-01-08T00:00:00Z",
            },
            ["It never comes: no slot lies between its first and its last time."],
        ),
    ],
    ids=[
        "plain",
        "real time",
        "every hour",
        "half an hour",
        "both changes",
        "many",
        "manual",
        "later",
        "ended",
        "between",
    ],
)
async def test_warnings_say_what_to_know_about_the_slots(
    connection: Connection, cadence: dict[str, Any], sentences: list[str]
) -> None:
    assert await warnings_of(connection, cadence) == sentences


async def test_slots_that_a_change_of_the_clocks_moved_in_the_past_are_told_in_the_past_tense(
    connection: Connection,
) -> None:
    year = at("2024-01-01 00:00"), at("2024-06-01 00:00")
    assert await warnings_of(connection, {**BERLIN, "expression": "30 2 * * *"}, *year) == [
        "02:30 did not exist in Europe/Berlin on 2024-03-31; it fired at 03:00."
    ]


def changes_of(zone: str, year: int) -> list[tuple[datetime, timedelta, timedelta]]:
    """Return when the clocks of a zone change in a year, to the minute, by Python's own time zones."""
    clocks, minute = ZoneInfo(zone), timedelta(minutes=1)
    offset = lambda time: time.astimezone(clocks).utcoffset()  # noqa: E731 - short, for the loops below
    found, hour = list[tuple[datetime, timedelta, timedelta]](), datetime(year, 1, 1, tzinfo=UTC)
    while hour.year == year:
        before, after = offset(hour), offset(hour + 60 * minute)
        if before != after:
            moment = next(hour + n * minute for n in range(61) if offset(hour + n * minute) == after)
            found.append((moment.replace(tzinfo=None), before, after))
        hour += 60 * minute
    return found


@pytest.mark.parametrize(
    ("zone", "year"),
    [
        ("Europe/Berlin", 2027),
        ("America/New_York", 2027),
        ("Australia/Lord_Howe", 2027),
        ("Africa/Casablanca", 2021),
        ("Pacific/Apia", 2011),
        ("Asia/Kathmandu", 1986),
        ("UTC", 2027),
    ],
)
async def test_changes_of_the_clocks_are_found_to_the_second(connection: Connection, zone: str, year: int) -> None:
    cursor = await connection.execute(
        "SELECT * FROM routines.clock_changes(%s, %s, %s)",
        [zone, at(f"{year}-01-01 00:17"), at(f"{year}-12-31 23:59")],
    )
    assert await cursor.fetchall() == changes_of(zone, year)


async def test_changes_of_the_clocks_outside_the_time_of_the_preview_are_not_told(connection: Connection) -> None:
    quarters = {**BERLIN, "expression": "*/15 2 * * *"}
    skipped = "Clocks in Europe/Berlin skip 02:00 to 03:00 on 2027-03-28: its slots at that time are left out."
    before, after = at("2027-03-28 00:59"), at("2027-03-28 01:01")
    assert await warnings_of(connection, quarters, SINCE, before) == []
    assert await warnings_of(connection, quarters, after, at("2027-10-01 00:00")) == []
    assert await warnings_of(connection, quarters, before, at("2027-03-29 12:00")) == [skipped]
    assert await warnings_of(connection, {**quarters, "ends_at": "2027-03-28T00:59:00Z"}) == []
    assert await warnings_of(connection, {**quarters, "starts_at": "2027-03-28T01:01:00Z"}, most=10) == [
        "This covers only the first 10 slots, up to 2027-03-31T00:15:00Z."
    ]


async def test_slots_nearer_than_a_run_usually_takes_are_warned_of(connection: Connection) -> None:
    task = await make_task(connection)
    query = """SELECT warning FROM routines.preview_warnings(
                   routines.cadence_from_json(%s), %s, %s, of_task => %s) AS warning"""
    nearest = Jsonb({"type": "cron", "expression": "0,45 9 * * mon", "timezone": "UTC"})
    assert await value(connection, query, nearest, SINCE, UNTIL, task) is None
    await connection.execute(
        """INSERT INTO routines.trajectories
               (collection_id, task_id, task_version, trigger, init_params, status, started_at, ended_at)
           SELECT 1, %s, 1, 'api', '{}', 'completed', now() - interval '50 min', now()""",
        [task],
    )
    assert await value(connection, query, nearest, SINCE, UNTIL, task) == (
        "Runs of echo usually take 50 minutes, but two slots are only 45 minutes apart, the first of them "
        "2027-01-04T09:00:00Z: a slot that comes while a run is active is skipped."
    )
    apart = Jsonb({"type": "hourly", "minute_utc": 0})
    assert await value(connection, query, apart, SINCE, UNTIL, task) is None


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "61 * * * *"])
async def test_an_expression_that_is_not_valid_is_refused(connection: Connection, expression: str) -> None:
    for query in (PREVIEW, WARNINGS):
        with pytest.raises(CheckViolation):
            await connection.execute(query.encode(), [Jsonb({**BERLIN, "expression": expression}), SINCE, UNTIL, 10])
