"""Planning counts the slots that the cadences and the ledger have, no more and no fewer."""

import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from routines_core.db import Connection
from routines_core.db.tick import tick
from support.oracle import DAYS, Cadence, next_slot, offset_of, slots
from support.rows import CATCHUP, at, make_routine, make_task, value

NOW = at("2026-05-06 10:17")
WEEK = timedelta(days=7)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def some_cadence(rng: random.Random) -> Cadence:
    """Return a cadence; few hours and minutes, so that several routines are due at once."""
    kind = rng.choice(["manual", "hourly", "daily", "weekdays", "weekly"])
    hour = None if kind in {"manual", "hourly"} else rng.choice([0, 9, 10, 23])
    minute = 0 if kind == "manual" else rng.choice([0, 17, 59])
    return Cadence(kind, hour, minute, rng.choice(DAYS) if kind == "weekly" else None)


async def all_of(connection: Connection, query: str, *parameters: object) -> list[Any]:
    return await (await connection.execute(query.encode(), parameters)).fetchall()


async def add(connection: Connection, name: str, cadence: Cadence, next_run_at: datetime | None) -> None:
    """Add a routine to the task 1; without a next slot it is paused, or manual."""
    await connection.execute(
        """INSERT INTO routines.routines
               (collection_id, task_id, name, cadence_type, hour_utc, minute_utc, day_of_week, paused)
           VALUES (1, 1, %s, %s, %s, %s, %s, %s)""",
        [name, *cadence[:4], next_run_at is None and cadence.type != "manual"],
    )
    if next_run_at:
        await connection.execute("UPDATE routines.routines SET next_run_at = %s WHERE name = %s", [next_run_at, name])


async def test_slots_between_two_times_are_those_of_the_calendar(connection: Connection) -> None:
    rng = random.Random(15)
    for _ in range(200):
        cadence = some_cadence(rng)
        first = NOW + timedelta(seconds=rng.randrange(-(10**6), 10**6)) if rng.random() < 0.5 else NOW.replace(minute=0)
        end = first + timedelta(seconds=rng.randrange(2 * 10**6))
        found = await all_of(
            connection,
            "SELECT * FROM routines.slots_between(routines.cadence_from_json(%s), %s, %s)",
            Jsonb(cadence._asdict()),
            first,
            end,
        )
        assert [row[0] for row in found] == slots(cadence, first, end), (cadence, first, end)


async def test_slots_of_an_interval_keep_its_grid(connection: Connection) -> None:
    anchor = NOW + timedelta(days=3, minutes=4)
    cadence = {"type": "interval", "every_minutes": 7, "anchor": anchor.isoformat()}
    found = await all_of(
        connection,
        "SELECT * FROM routines.slots_between(routines.cadence_from_json(%s), %s, %s)",
        Jsonb(cadence),
        NOW,
        NOW + WEEK,
    )
    minutes = [NOW + number * MINUTE for number in range(7 * 24 * 60)]
    assert [row[0] for row in found] == [
        each for each in minutes if (each - anchor) % timedelta(minutes=7) == timedelta()
    ]


async def test_the_coming_slots_of_a_collection_are_those_of_all_its_routines(connection: Connection) -> None:
    await make_task(connection)
    rng, expected = random.Random(16), Counter[datetime]()
    for number in range(60):
        cadence = some_cadence(rng)
        # Paused, due, waiting for its next slot, or set ahead by hand.
        first = rng.choice(
            [None, next_slot(cadence, NOW - timedelta(days=1)), next_slot(cadence, NOW), NOW + 3 * WEEK / 7]
        )
        await add(connection, f"r{number}", cadence, None if cadence.type == "manual" else first)
        if first and cadence.type != "manual":
            due = [first, *slots(cadence, first + MINUTE, NOW + WEEK)]
            expected.update(slot for slot in due if NOW <= slot < NOW + WEEK)
    await connection.execute(
        """WITH other AS (INSERT INTO routines.collections (name) VALUES ('other') RETURNING id),
                task AS (INSERT INTO routines.tasks (collection_id, name) SELECT id, 't' FROM other
                         RETURNING id, collection_id),
                version AS (INSERT INTO routines.task_versions (task_id, version, workflow)
                            SELECT id, 1, '{}' FROM task)
           INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
           SELECT collection_id, id, 'r', 'hourly' FROM task"""
    )
    found = await all_of(connection, "SELECT slot, slots FROM routines.coming_slots(1, %s, %s)", NOW, NOW + WEEK)
    assert dict(found) == dict(expected)
    assert len(found) > 100


async def test_runs_are_expected_to_take_what_they_usually_took(connection: Connection) -> None:
    task = await make_task(connection)
    for name in ("a", "b"):
        await add(connection, name, Cadence("daily", 12), NOW.replace(hour=12, minute=0))
    load = "SELECT slots, expected_seconds FROM routines.schedule_load(1, %s, %s, '1 hour', %s)"
    assert await all_of(connection, load, NOW, NOW + timedelta(days=1), NOW) == [(2, 0)]
    await connection.execute(
        """INSERT INTO routines.trajectories
               (collection_id, task_id, task_version, trigger, init_params, status, started_at, ended_at)
           SELECT 1, %s, 1, 'api', '{}', CASE n WHEN 4 THEN 'failed' ELSE 'completed' END, now() - interval '1 day',
                  now() - interval '1 day' + n * interval '10 seconds' FROM generate_series(1, 4) AS n""",
        [task],
    )
    assert await all_of(connection, load, NOW, NOW + timedelta(days=1), NOW) == [(2, 40)]


async def test_the_past_is_that_of_the_ledger_with_spans_taken_apart(connection: Connection) -> None:
    task = await make_task(connection)
    # Hourly: an outage of ten hours, then a run that blocks the slots after it.
    await make_routine(connection, task, NOW.replace(hour=0, minute=0), hourly=True)
    await connection.execute("UPDATE routines.routines SET created_at = %s", [NOW - WEEK])
    for hour in (10, 11, 12):
        await tick(connection, batch_size=1, now=NOW.replace(hour=hour, minute=0, second=1), **CATCHUP)
    since, until = NOW.replace(hour=3, minute=30), NOW.replace(hour=12, minute=0)
    found = await all_of(
        connection,
        "SELECT at, started, skipped FROM routines.schedule_load(1, %s, %s, '1 hour', %s)",
        since,
        until,
        NOW,
    )
    assert [(row[0].hour, row[1], row[2]) for row in found] == [
        *[(hour, 0, 1) for hour in range(4, 10)],
        (10, 1, 0),
        (11, 0, 1),
    ]


async def test_each_bucket_has_what_fell_in_it(connection: Connection) -> None:
    await make_task(connection)
    for minute in (0, 17, 59):
        await add(
            connection, f"r{minute}", Cadence("hourly", None, minute), next_slot(Cadence("hourly", None, minute), NOW)
        )
    load = "SELECT at, slots FROM routines.schedule_load(1, %s, %s, %s::interval, %s)"
    until = NOW + timedelta(hours=2)
    assert await all_of(connection, load, NOW, until, "1 hour", NOW) == [
        (NOW.replace(hour=10, minute=0), 1),
        (NOW.replace(hour=11, minute=0), 3),
        (NOW.replace(hour=12, minute=0), 1),
    ]
    assert len(await all_of(connection, load, NOW, until, "1 minute", NOW)) == 5


async def test_the_quietest_minutes_come_first_and_the_nearest_of_those(connection: Connection) -> None:
    await make_task(connection)
    taken = {-2: 1, -1: 3, 0: 4, 1: 2}
    for away, number in taken.items():
        for each in range(number):
            cadence = Cadence("daily", (9 * 60 + away) // 60, (9 * 60 + away) % 60)
            await add(connection, f"r{away}-{each}", cadence, next_slot(cadence, NOW))
    quiet = "SELECT cadence, minutes_away, slots FROM routines.quiet_minutes(1, routines.cadence_from_json(%s), %s, %s)"
    found = await all_of(connection, quiet, Jsonb(Cadence("weekdays", 9)._asdict()), 3, NOW)
    assert [row[1:] for row in found] == [(2, 0), (-3, 0), (3, 0), (-2, 1), (1, 2), (-1, 3), (0, 4)]
    assert found[0][0] == {"type": "weekdays", "hour_utc": 9, "minute_utc": 2, "day_of_week": None}
    # On Sundays too, and hourly at that minute.
    found = await all_of(connection, quiet, Jsonb(Cadence("weekly", 9, 0, "sun")._asdict()), 1, NOW)
    assert [row[1:] for row in found] == [(1, 2), (-1, 3), (0, 4)]
    found = await all_of(connection, quiet, Jsonb(Cadence("hourly", None, 58)._asdict()), 180, NOW)
    assert len(found) == 60
    assert {row[1]: row[2] for row in found}[2] == 4
    # A day stays the same day.
    found = await all_of(connection, quiet, Jsonb(Cadence("daily", 23, 59)._asdict()), 2, NOW)
    assert [row[1] for row in found] == [0, -1, -2]


async def test_planning_ten_thousand_routines_reads_them_once(connection: Connection) -> None:
    task = await make_task(connection)
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, hour_utc, minute_utc)
           SELECT 1, %s, 'r' || n, CASE mod(n, 2) WHEN 0 THEN 'daily' ELSE 'hourly' END,
                  CASE mod(n, 2) WHEN 0 THEN mod(n, 24) END, mod(n, 60) FROM generate_series(1, 10000) AS n""",
        [task],
    )
    await connection.execute("ANALYZE")
    hours = await value(
        connection,
        """SELECT count(*) FROM (SELECT date_trunc('hour', now()) + interval '2 hours' AS hour) AS clock,
                                routines.schedule_load(1, hour, hour + interval '7 days', '1 hour')""",
    )
    assert hours == 7 * 24
    total = await value(connection, "SELECT sum(slots) FROM routines.coming_slots(1, now(), now() + interval '7 days')")
    assert total == 5000 * 7 + 5000 * 7 * 24


@pytest.mark.parametrize(
    "cadence",
    [
        {"type": "cron", "expression": ["*/20 1-3 * * *", "0 2 * * *"], "timezone": "Europe/Berlin"},
        {"type": "cron", "expression": "@hourly", "timezone": "UTC", "starts_at": "2027-03-28T01:00:00Z"},
        {"type": "interval", "every_minutes": 45, "anchor": "2026-01-01T00:00:00Z", "ends_at": "2027-03-28T05:00:00Z"},
        {"type": "hourly", "minute_utc": 5, "starts_at": "2027-03-27T12:00:00Z", "ends_at": "2027-03-28T05:05:00Z"},
        {"type": "once", "at": "2027-03-28T01:00:00Z"},
    ],
    ids=["cron", "cron from a time", "interval", "bounded", "once"],
)
async def test_slots_between_two_times_are_those_that_next_fire_finds(
    connection: Connection, cadence: dict[str, Any]
) -> None:
    both = """SELECT ARRAY(SELECT routines.slots_between(cadence, '2027-03-27Z', '2027-03-30Z')),
                     ARRAY(SELECT slot FROM routines.next_slots(cadence, '2027-03-26 23:59:59Z', 500) AS slot
                           WHERE slot < '2027-03-30Z')
              FROM routines.cadence_from_json(%s) AS cadence"""
    found, expected = await (await connection.execute(both.encode(), [Jsonb(cadence)])).fetchone() or ((), ())
    assert found == expected
    assert found


async def test_spread_slots_count_in_the_minute_in_which_they_are_due(connection: Connection) -> None:
    """Before their outcome and after it, whether they started, were skipped alone, or were missed together."""
    await make_task(connection)
    rng, own = random.Random(23), list[tuple[Cadence, timedelta]]()
    for number in range(40):
        cadence = rng.choice([Cadence("hourly", minute_utc=17), Cadence("daily", 9, 59), Cadence("daily", 10, 0)])
        await add(connection, f"r{number}", cadence, None)
        own.append((cadence, offset_of(number + 1, 1800)))
    await connection.execute("UPDATE routines.routines SET spread_seconds = 1800, paused = false")
    await connection.execute("UPDATE routines.routines SET created_at = %s, settled_until = NULL", [NOW - DAY])
    for number, (cadence, offset) in enumerate(own):
        first = next_slot(cadence, NOW - DAY)
        assert first
        await connection.execute(
            "UPDATE routines.routines SET next_run_at = %s WHERE name = %s", [first + offset, f"r{number}"]
        )

    def due(since: datetime, until: datetime) -> dict[datetime, int]:
        """The slots by the minute in which they are due, but for those from before the creation."""
        found = [slot + offset for cadence, offset in own for slot in slots(cadence, NOW - DAY + MINUTE, until)]
        return Counter(time.replace(second=0) for time in found if since <= time < until)

    load = "SELECT at, slots, started + skipped FROM routines.schedule_load(1, %s, %s, '1 minute', %s)"
    coming = await all_of(connection, load, NOW, NOW + DAY, NOW)
    assert {minute: count for minute, count, _ in coming} == due(NOW, NOW + DAY)
    assert len(coming) > 200
    # A night without a ticker, then one that ticks every ten minutes.
    for minutes in range(-600, 240, 10):
        await tick(connection, batch_size=100, now=NOW + minutes * MINUTE, **CATCHUP)
    for since, until in ((NOW - DAY, NOW), (NOW - DAY / 2 + 7 * MINUTE, NOW - 3 * MINUTE)):
        past = await all_of(connection, load, since, until, NOW)
        assert {minute: count for minute, _, count in past} == due(since, until)


async def test_spread_slots_are_no_load_at_their_own_time(connection: Connection) -> None:
    await make_task(connection)
    for number in range(30):
        await add(connection, f"r{number}", Cadence("daily", 9), next_slot(Cadence("daily", 9), NOW))
    quiet = """SELECT slots FROM routines.quiet_minutes(1, routines.cadence_from_json(%s), 30, %s)
               WHERE minutes_away = 0"""
    wish = Jsonb(Cadence("daily", 9)._asdict())
    assert await value(connection, quiet, wish, NOW) == 30
    await connection.execute("UPDATE routines.routines SET spread_seconds = 3600")
    found = await value(connection, quiet, wish, NOW)
    assert isinstance(found, int)
    assert found < 5
