"""Cron, interval and once, and cadences with bounds: the tick, the ledger and `why` work for them as for the others."""

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from routines_core.db import Connection
from routines_core.db.ledger import list_occurrences, why
from routines_core.db.tick import Tick, tick
from support.cron_oracle import next_slot
from support.rows import CATCHUP, at, ledger, make_key, make_task, value

CADENCE = "routines.cadence_of(routines)"
DAY = timedelta(days=1)


async def make(connection: Connection, since: datetime, **fields: Any) -> None:
    """Create the routine 1 with these columns, as if it had been made at the time `since`."""
    await make_task(connection)
    columns = {"cadence_type": fields.pop("type"), **fields}
    if "expression" in columns:
        columns["expression"] = Jsonb(columns["expression"])
    names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
    insert = f"INSERT INTO routines.routines (collection_id, task_id, name, {names}) VALUES (1, 1, 'r', {places})"
    await connection.execute(insert.encode(), list(columns.values()))
    await connection.execute(
        f"""UPDATE routines.routines SET created_at = %(since)s, upcoming = routines.slot_window({CADENCE}, %(since)s),
                                        next_run_at = routines.next_fire({CADENCE}, %(since)s)""".encode(),
        {"since": since},
    )


async def tick_at(connection: Connection, now: datetime) -> Tick:
    return await tick(connection, batch_size=10, now=now, **CATCHUP)


async def finish(connection: Connection) -> None:
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"
    )


async def fired(connection: Connection) -> list[datetime]:
    cursor = await connection.execute("SELECT scheduled_for FROM routines.trajectories ORDER BY id")
    return [slot for (slot,) in await cursor.fetchall()]


async def next_run_at(connection: Connection) -> Any:
    return await value(connection, "SELECT next_run_at FROM routines.routines")


async def run_on_time(connection: Connection, count: int) -> None:
    """Tick at each of the next slots, and end each run before the next."""
    for _ in range(count):
        due: Any = await next_run_at(connection)
        if due is None:
            return
        assert (await tick_at(connection, due)).fired == 1
        await finish(connection)


async def told(connection: Connection, time: datetime, now: datetime) -> str:
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    return (await why(connection, key_id=key_id, routine_id=1, at=time, now=now)).sentence


async def test_a_cron_routine_fires_at_each_slot_across_a_change_of_clocks(connection: Connection) -> None:
    """Seventy fires make the window of coming slots anew twice."""
    since = at("2027-03-12 12:00")
    await make(connection, since, type="cron", expression=["30 2 * * *", "0 17 * * *"], timezone="America/New_York")
    await run_on_time(connection, 70)
    expected, slot = [], since
    while len(expected) < 70:
        slot = next_slot(["30 2 * * *", "0 17 * * *"], "America/New_York", slot) or slot
        expected.append(slot)
    assert await fired(connection) == expected
    assert expected[3] == at("2027-03-14 07:00")
    assert await value(connection, "SELECT count(*) FROM routines.skips") == 0


async def test_the_next_slot_is_never_the_last_of_the_window(connection: Connection) -> None:
    """So the tick reads every slot that is on time from the row."""
    await make(connection, at("2027-03-12 12:00"), type="interval", every_minutes=90, anchor=at("2027-01-01 00:00"))
    for _ in range(40):
        covered = (
            "SELECT next_run_at >= upcoming[1] AND next_run_at < upcoming[cardinality(upcoming)] FROM routines.routines"
        )
        assert await value(connection, covered) is True
        await run_on_time(connection, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "cron", "expression": "*/20 1-3 * * *", "timezone": "Europe/Berlin"},
        {"type": "cron", "expression": "0 0 29 2 *"},
        {"type": "interval", "every_minutes": 7},
        {"type": "once", "once_at": at("2027-03-28 01:30")},
        {"type": "daily", "hour_utc": 9, "starts_at": at("2027-03-28 09:00"), "ends_at": at("2027-03-30 09:00")},
        {"type": "hourly", "ends_at": at("2027-03-28 03:10")},
        {"type": "cron", "expression": "@hourly", "timezone": "Asia/Tokyo", "starts_at": at("2027-03-28 01:00")},
        {"type": "hourly"},
        {"type": "manual"},
    ],
    ids=lambda fields: f"{fields['type']}{'-bounded' if 'ends_at' in fields or 'starts_at' in fields else ''}",
)
async def test_the_window_holds_the_slots_that_the_cadence_has(connection: Connection, fields: dict[str, Any]) -> None:
    await make(connection, at("2027-03-28 00:40"), **fields)
    cursor = await connection.execute(
        f"""SELECT time, routines.next_slot_of(routines, time), routines.next_fire({CADENCE}, time),
                   routines.latest_slot_of(routines, time), routines.latest_slot({CADENCE}, time)
            FROM routines.routines,
                 generate_series('2027-03-27 20:00Z'::timestamptz, '2027-03-31Z', '7 minutes') AS time""".encode()
    )
    rows = await cursor.fetchall()
    assert len(rows) > 500
    assert [row for row in rows if row[1] != row[2] or row[3] != row[4]] == []


async def test_once_fires_and_has_no_next_slot_afterwards(connection: Connection) -> None:
    slot = at("2027-05-04 09:00")
    await make(connection, slot - DAY, type="once", once_at=slot)
    assert await next_run_at(connection) == slot
    await run_on_time(connection, 1)
    assert (await next_run_at(connection), (await tick_at(connection, slot + DAY)).claimed) == (None, 0)
    assert await ledger(connection, 1) == [(slot, 1, "started", None)]
    assert await value(connection, "SELECT state FROM routines.routine_status") == "ended"
    assert await told(connection, slot + DAY, slot + 2 * DAY) == "No slot: none is coming."
    await connection.execute("UPDATE routines.routines SET paused = true")
    await connection.execute("UPDATE routines.routines SET paused = false")
    await connection.execute("DELETE FROM routines.routines")
    assert await ledger(connection, 1) == [(slot, 1, "started", None)]


async def test_once_that_no_ticker_picked_up_in_time_is_missed(connection: Connection) -> None:
    slot = at("2027-05-04 09:00")
    await make(connection, slot - DAY, type="once", once_at=slot)
    late = await tick_at(connection, slot + 2 * DAY)
    assert (late.fired, late.missed, await next_run_at(connection)) == (0, 1, None)
    assert await ledger(connection, 1) == [(slot, 1, "skipped", "missed")]


@pytest.mark.parametrize("type_name", ["daily", "cron"])
async def test_bounds_are_kept_by_every_type(connection: Connection, type_name: str) -> None:
    """Both bounds are themselves slots here."""
    fields = {"hour_utc": 9} if type_name == "daily" else {"expression": "0 9 * * *"}
    first, last = at("2027-05-04 09:00"), at("2027-05-06 09:00")
    await make(connection, first - 10 * DAY, type=type_name, starts_at=first, ends_at=last, **fields)
    await run_on_time(connection, 9)
    assert await fired(connection) == [first, first + DAY, last]
    assert await next_run_at(connection) is None


async def test_an_outage_longer_than_the_window_of_slots_is_one_span(connection: Connection) -> None:
    since = at("2027-03-27 12:01")
    await make(connection, since, type="cron", expression="*/5 * * * *", timezone="Europe/Berlin")
    now = at("2027-03-29 12:01")
    late = await tick_at(connection, now)
    assert (late.fired, late.missed) == (1, 2 * 288 - 1)
    assert await ledger(connection, 1) == [
        (at("2027-03-27 12:05"), 2 * 288 - 1, "skipped", "missed"),
        (at("2027-03-29 12:00"), 1, "started", None),
    ]
    assert (await told(connection, at("2027-03-28 01:05"), now)).startswith("Missed: no ticker picked it up in time")
    assert await told(connection, at("2027-03-28 01:06"), now) == "No slot: the next is 2027-03-28T01:10:00Z."


async def test_slots_in_a_pause_and_before_a_change_are_settled(connection: Connection) -> None:
    """The real clock decides here, as it does for a person at psql."""
    await make(connection, at("2026-01-01 00:00"), type="cron", expression="0 0 1 1,7 *", timezone="Europe/Berlin")
    await connection.execute("UPDATE routines.routines SET paused = true")
    first = await ledger(connection, 1)
    assert first[0][0] == at("2026-06-30 22:00")
    assert {row[3] for row in first} == {"paused"}
    await connection.execute("UPDATE routines.routines SET paused = false, expression = '\"0 0 * * *\"'")
    coming = await next_run_at(connection)
    assert coming > await value(connection, "SELECT now()")
    await connection.execute(
        """UPDATE routines.routines SET next_run_at = date_trunc('minute', now()) - interval '1 hour',
                                        settled_until = now() - interval '2 hours'"""
    )
    await connection.execute("UPDATE routines.routines SET ends_at = now()")
    rows = await ledger(connection, 1)
    assert rows[-1][3] == "missed"
    assert await value(connection, "SELECT detail FROM routines.skips ORDER BY id DESC LIMIT 1") == (
        "the cadence was changed before a ticker picked it up"
    )
    assert await next_run_at(connection) is None


async def test_why_and_the_ledger_say_what_clocks_did_to_a_slot(connection: Connection) -> None:
    await make(connection, at("2027-03-13 12:00"), type="cron", expression="30 2 * * *", timezone="America/New_York")
    slot = at("2027-03-14 07:00")
    sentence = "02:30 does not exist in America/New_York on 2027-03-14; it fires at 03:00."
    assert (await told(connection, slot, slot - DAY / 2)).endswith(sentence)
    await run_on_time(connection, 2)
    sentence = await told(connection, slot, slot + DAY)
    assert sentence.startswith("Started: run 1 at 2027-03-14T07:00:00Z, completed at ")
    assert sentence.endswith(" 02:30 did not exist in America/New_York on 2027-03-14; it fired at 03:00.")
    assert not (await told(connection, at("2027-03-15 06:30"), slot + 2 * DAY)).endswith("03:00.")
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    rows = await list_occurrences(connection, key_id=key_id, routine_id=1)
    assert [(row.local_time, row.dst) for row in rows] == [
        ("2027-03-15T02:30:00-04:00", None),
        ("2027-03-14T03:00:00-04:00", "shifted"),
    ]


async def test_why_says_that_a_time_came_twice(connection: Connection) -> None:
    await make(connection, at("2027-11-06 12:00"), type="cron", expression="30 1 * * *", timezone="America/New_York")
    await run_on_time(connection, 1)
    assert (await told(connection, at("2027-11-07 05:30"), at("2027-11-08 00:00"))).endswith(
        "01:30 came twice in America/New_York on 2027-11-07; it fired the first time."
    )
    dst = f"SELECT routines.dst_of({CADENCE}, '2027-11-07 05:30Z') FROM routines.routines"
    assert await value(connection, dst) == "first of two"
    await connection.execute("UPDATE routines.routines SET expression = '\"*/30 1 * * *\"'")
    assert await value(connection, dst) is None


async def test_next_shows_slots_in_utc_and_in_local_time(connection: Connection) -> None:
    await make(connection, at("2027-03-13 12:00"), type="cron", expression="30 2 * * *", timezone="America/New_York")
    cursor = await connection.execute("SELECT utc, local_time, dst FROM routines.next('my-org/echo/r', 2)")
    assert await cursor.fetchall() == [
        ("2027-03-14T07:00:00Z", "2027-03-14T03:00:00-04:00", "shifted"),
        ("2027-03-15T06:30:00Z", "2027-03-15T02:30:00-04:00", None),
    ]


async def test_defaults_are_filled_in(connection: Connection) -> None:
    await make(connection, at("2027-03-13 12:00"), type="interval", every_minutes=10)
    defaults = "SELECT anchor = date_trunc('minute', now()) OR anchor < now() FROM routines.routines"
    assert await value(connection, defaults) is True
    await connection.execute(
        """UPDATE routines.routines
           SET cadence_type = 'cron', every_minutes = NULL, anchor = NULL, expression = '"@daily"'"""
    )
    assert await value(connection, "SELECT timezone FROM routines.routines") == "UTC"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("cadence_type = 'cron'", "routines_expression_fits_cadence"),
        ("expression = '\"@daily\"'", "routines_expression_fits_cadence"),
        ("cadence_type = 'cron', expression = '\"0 0 30 2 *\"'", "routines_expression_is_valid"),
        ("cadence_type = 'cron', expression = '5'", "routines_expression_is_valid"),
        ("cadence_type = 'cron', expression = '\"@daily\"', timezone = 'Foo5'", "routines_timezone_is_known"),
        ("timezone = 'UTC'", "routines_timezone_fits_cadence"),
        ("cadence_type = 'interval'", "routines_every_minutes_fits_cadence"),
        ("cadence_type = 'interval', every_minutes = 525601", "routines_every_minutes_in_range"),
        ("cadence_type = 'once'", "routines_once_at_fits_cadence"),
        ("cadence_type = 'once', once_at = '2200-01-01Z'", "routines_once_at_in_range"),
        ("once_at = now()", "routines_once_at_fits_cadence"),
        ("anchor = now()", "routines_anchor_fits_cadence"),
        ("starts_at = '2028-01-01Z', ends_at = '2027-01-01Z'", "routines_bounds_are_ordered"),
        ("next_run_at = NULL", "routines_next_run_at_fits_state"),
    ],
)
async def test_a_row_typed_in_psql_is_checked(connection: Connection, change: str, rule: str) -> None:
    await make(connection, at("2027-03-13 12:00"), type="hourly")
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        await connection.execute(f"UPDATE routines.routines SET {change}".encode())
    assert refused.value.diag.constraint_name == rule
