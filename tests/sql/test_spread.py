"""A spread makes each routine due some time after its slots; the slots and their outcomes stay what they were."""

import random
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from routines_core.db import Connection
from routines_core.db import tick as db
from routines_core.db.ledger import why
from routines_core.db.tick import tick
from support.clocks import move_clock, moved_clock
from support.oracle import Cadence, offset_of, slots
from support.rows import CATCHUP, Database, at, ledger, make_key, make_routine, make_task, value

MONDAY = at("2126-05-06 09:00")
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SPREAD = 3599
ID = 5
OFFSET = offset_of(ID, SPREAD)
"""The offset of the routine 5, somewhat less than half an hour."""
NEXT_ID = f"ALTER TABLE routines.routines ALTER COLUMN id RESTART WITH {ID}"
FINISH = "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"
CHANGE = "UPDATE routines.routines SET spread_seconds = %s"


def test_the_offset_of_these_tests_leaves_room_on_both_sides() -> None:
    assert 15 * MINUTE < OFFSET < 45 * MINUTE


@pytest.fixture
async def moved(database: Database) -> AsyncGenerator[Connection]:
    """Yield a session for which it is half past eight on that Monday."""
    async with moved_clock(database, MONDAY - HOUR / 2) as connection:
        yield connection


@pytest.fixture
async def routine(moved: Connection) -> int:
    """Create an hourly routine with a spread, whose first slot is 09:00."""
    await moved.execute(NEXT_ID.encode())
    made = await make_routine(moved, await make_task(moved), MONDAY, hourly=True)
    await moved.execute("UPDATE routines.routines SET created_at = now(), settled_until = NULL")
    await moved.execute(CHANGE, [SPREAD])
    return made


async def go(connection: Connection, now: datetime) -> db.Tick:
    """Move the clock and tick."""
    await move_clock(connection, now)
    await connection.execute(FINISH)
    return await tick(connection, batch_size=10, **CATCHUP)


async def next_run_at(connection: Connection) -> Any:
    return await value(connection, "SELECT next_run_at FROM routines.routines")


async def told(connection: Connection, slot: datetime) -> str:
    now: Any = await value(connection, "SELECT now()")
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    return (await why(connection, key_id=key_id, routine_id=ID, at=slot, now=now)).sentence


async def test_the_offset_depends_on_the_id_alone_and_spreads_ids_evenly(connection: Connection) -> None:
    cursor = await connection.execute(
        "SELECT id, extract(epoch FROM routines.spread_offset(id, 599))::integer FROM generate_series(1, 60000) AS id"
    )
    offsets = dict(await cursor.fetchall())
    for number in range(1, 200):
        assert timedelta(seconds=offsets[number]) == offset_of(number, 599)
    assert (min(offsets.values()), max(offsets.values())) == (0, 599)
    by_minute = Counter(offset // 60 for offset in offsets.values())
    assert all(abs(count - 6000) < 400 for count in by_minute.values())
    assert await value(connection, "SELECT routines.spread_offset(1, NULL)") is None
    wider = "SELECT bool_and(routines.spread_offset(id, 900) >= routines.spread_offset(id, 600))"
    assert await value(connection, f"{wider} FROM generate_series(1, 999) AS id") is True


async def test_a_slot_fires_at_its_offset_and_not_before_and_is_not_late(moved: Connection, routine: int) -> None:
    for hours in range(3):
        slot = MONDAY + hours * HOUR
        assert await next_run_at(moved) == slot + OFFSET
        assert (await go(moved, slot + OFFSET - timedelta(microseconds=1))).claimed == 0
        ticked = await go(moved, slot + OFFSET)
        assert (ticked.fired, list(ticked.delay_seconds)) == (1, [0])
    assert await ledger(moved, routine) == [(MONDAY + hours * HOUR, 1, "started", None) for hours in range(3)]
    cursor = await moved.execute("SELECT DISTINCT delay, due_at - scheduled_for FROM routines.occurrences")
    assert await cursor.fetchall() == [(timedelta(), OFFSET)]


async def test_without_a_spread_no_row_says_anything_of_one(moved: Connection, routine: int) -> None:
    await moved.execute(CHANGE, [0])
    assert (await go(moved, MONDAY)).fired == 1
    await go(moved, MONDAY + 5 * HOUR)
    assert await value(moved, "SELECT count(due_at) FROM routines.occurrences") == 0
    assert await value(moved, "SELECT num_nonnulls(spread_seconds, spread_offset) FROM routines.routines") == 0


@pytest.mark.parametrize(
    ("spread", "became"), [(None, timedelta()), (0, timedelta()), (600, OFFSET / 6), (3599, OFFSET)]
)
async def test_a_changed_spread_moves_the_slot_that_waits_and_loses_or_repeats_none(
    moved: Connection, routine: int, spread: int | None, became: timedelta
) -> None:
    await go(moved, MONDAY + MINUTE)
    await moved.execute(CHANGE, [spread])
    assert abs(await next_run_at(moved) - MONDAY - became) < timedelta(seconds=1)
    for minutes in range(2, 240):
        await go(moved, MONDAY + minutes * MINUTE)
    rows = await ledger(moved, routine)
    assert [row[:3] for row in rows] == [(MONDAY + hours * HOUR, 1, "started") for hours in range(4)]


async def test_a_spread_is_turned_on_for_slots_without_an_outcome_alone(moved: Connection, routine: int) -> None:
    await moved.execute(CHANGE, [None])
    await go(moved, MONDAY)
    await moved.execute(CHANGE, [SPREAD])
    assert await next_run_at(moved) == MONDAY + HOUR + OFFSET
    assert (await go(moved, MONDAY + OFFSET)).claimed == 0
    assert (await go(moved, MONDAY + HOUR + OFFSET)).fired == 1
    assert len(await ledger(moved, routine)) == 2


@pytest.mark.parametrize(
    ("paused_at", "resumed_at", "outcomes"),
    [
        (-20 * MINUTE, OFFSET - MINUTE, ["started"]),
        (MINUTE, OFFSET - MINUTE, ["started"]),
        (MINUTE, OFFSET + MINUTE, ["skipped"]),
        (OFFSET + MINUTE, OFFSET + 2 * MINUTE, ["skipped"]),
        (OFFSET + MINUTE, HOUR + OFFSET + MINUTE, ["skipped", "skipped"]),
    ],
)
async def test_a_pause_skips_the_slots_that_are_due_in_it(
    moved: Connection, routine: int, paused_at: timedelta, resumed_at: timedelta, outcomes: list[str]
) -> None:
    """A slot that waits for its offset has not come yet; one that was due when the pause began is recorded then."""
    await move_clock(moved, MONDAY + paused_at)
    await moved.execute("UPDATE routines.routines SET paused = true")
    await move_clock(moved, MONDAY + resumed_at)
    await moved.execute("UPDATE routines.routines SET paused = false")
    assert await next_run_at(moved) > MONDAY + resumed_at
    await go(moved, await next_run_at(moved))
    expected = [*outcomes, *["started"] * (outcomes[-1] == "skipped")]
    rows = await moved.execute(
        "SELECT scheduled_for, slot_count, outcome FROM routines.occurrences ORDER BY scheduled_for"
    )
    covered = [(slot + n * HOUR, outcome) for slot, count, outcome in await rows.fetchall() for n in range(count)]
    assert covered == [(MONDAY + n * HOUR, outcome) for n, outcome in enumerate(expected)]


@pytest.mark.parametrize("ends", [OFFSET - MINUTE, OFFSET, OFFSET + MINUTE])
async def test_a_pause_with_an_end_skips_what_is_due_before_its_end(
    moved: Connection, routine: int, ends: timedelta
) -> None:
    await move_clock(moved, MONDAY + MINUTE)
    await moved.execute("UPDATE routines.routines SET paused = true, paused_until = %s", [MONDAY + ends])
    await move_clock(moved, MONDAY + ends)
    await db.resume(moved, await db.ended_pauses(moved, batch_size=10))
    first = MONDAY if ends <= OFFSET else MONDAY + HOUR
    assert await next_run_at(moved) == first + OFFSET
    await go(moved, first + OFFSET)
    reasons = [(slot, reason) for slot, _, _, reason in await ledger(moved, routine)]
    assert reasons == ([(MONDAY, None)] if ends <= OFFSET else [(MONDAY, "paused"), (MONDAY + HOUR, None)])


async def test_a_spread_removed_in_a_pause_loses_no_slot(moved: Connection, routine: int) -> None:
    await move_clock(moved, MONDAY + MINUTE)
    await moved.execute("UPDATE routines.routines SET paused = true")
    await moved.execute(CHANGE, [None])
    await move_clock(moved, MONDAY + 2 * MINUTE)
    await moved.execute("UPDATE routines.routines SET paused = false")
    assert await ledger(moved, routine) == [(MONDAY, 1, "skipped", "paused")]
    assert await next_run_at(moved) == MONDAY + HOUR


@pytest.mark.parametrize("after", [MINUTE, OFFSET + MINUTE])
async def test_a_deleted_routine_leaves_an_outcome_for_each_slot_even_if_it_was_not_due_yet(
    moved: Connection, routine: int, after: timedelta
) -> None:
    await move_clock(moved, MONDAY + after)
    await moved.execute("DELETE FROM routines.routines")
    assert await ledger(moved, routine) == [(MONDAY, 1, "skipped", "missed")]


async def test_a_changed_cadence_records_the_slots_of_the_old_one_even_if_they_were_not_due_yet(
    moved: Connection, routine: int
) -> None:
    await go(moved, MONDAY + OFFSET)
    await move_clock(moved, MONDAY + HOUR + MINUTE)
    await moved.execute("UPDATE routines.routines SET minute_utc = 2")
    assert await next_run_at(moved) == MONDAY + 2 * MINUTE + HOUR + OFFSET
    await move_clock(moved, MONDAY + HOUR + OFFSET + 3 * MINUTE)
    await moved.execute("UPDATE routines.routines SET minute_utc = 0")
    hours = [MONDAY, MONDAY + HOUR, MONDAY + HOUR + 2 * MINUTE]
    assert [row[0] for row in await ledger(moved, routine)] == hours
    detail = "the cadence was changed before a ticker picked it up"
    assert await value(moved, "SELECT count(*) FROM routines.skips WHERE detail = %s", detail) == 2
    assert await value(moved, "SELECT min(delay) FROM routines.occurrences") == timedelta()
    assert await next_run_at(moved) == MONDAY + 2 * HOUR + OFFSET


async def test_cadence_and_spread_changed_together_leave_no_slot_without_an_outcome(
    moved: Connection, routine: int
) -> None:
    await move_clock(moved, MONDAY + MINUTE)
    await moved.execute("UPDATE routines.routines SET minute_utc = 30, spread_seconds = 0")
    assert await ledger(moved, routine) == [(MONDAY, 1, "skipped", "missed")]
    assert await next_run_at(moved) == MONDAY + HOUR / 2


async def test_a_routine_has_no_slot_from_before_its_creation(moved: Connection) -> None:
    """Whether the spread comes with the routine or later, and even if it is paused and resumed before the offset."""
    await move_clock(moved, MONDAY + MINUTE)
    await make_task(moved)
    await moved.execute(NEXT_ID.encode())
    insert = """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, created_at, spread_seconds,
                                               paused) VALUES (1, 1, %s, 'hourly', now(), %s, %s)"""
    for name, spread, paused in [("at-once", SPREAD, False), ("later", None, False), ("paused", SPREAD, True)]:
        await moved.execute(insert.encode(), [name, spread, paused])
    await moved.execute(CHANGE, [SPREAD])
    await moved.execute("UPDATE routines.routines SET paused = true")
    await moved.execute("UPDATE routines.routines SET paused = false")
    earliest = "SELECT min(next_run_at - spread_offset), max(next_run_at - spread_offset) FROM routines.routines"
    assert await (await moved.execute(earliest)).fetchall() == [(MONDAY + HOUR, MONDAY + HOUR)]
    assert await value(moved, "SELECT count(*) FROM routines.skips") == 0


async def test_a_pause_that_a_routine_was_created_with_ends_before_its_first_slot(moved: Connection) -> None:
    await move_clock(moved, MONDAY + MINUTE)
    await make_task(moved)
    await moved.execute(NEXT_ID.encode())
    await moved.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, created_at, spread_seconds,
                                          paused, paused_until) VALUES (1, 1, 'r', 'hourly', now(), %s, true, %s)""",
        [SPREAD, MONDAY + 5 * MINUTE],
    )
    await move_clock(moved, MONDAY + 5 * MINUTE)
    await db.resume(moved, await db.ended_pauses(moved, batch_size=10))
    await go(moved, MONDAY + HOUR + OFFSET)
    assert await ledger(moved, ID) == [(MONDAY + HOUR, 1, "started", None)]


async def test_why_tells_a_slot_that_waits_from_one_that_is_late(moved: Connection, routine: int) -> None:
    seconds = round(OFFSET.total_seconds())
    due = f"{MONDAY + OFFSET:%Y-%m-%dT%H:%M:%SZ}"
    for now in (MONDAY - MINUTE, MONDAY + MINUTE):
        await move_clock(moved, now)
        upcoming = f"Upcoming: the slot is due at {due}. Its spread makes it due {seconds} s after its time."
        assert await told(moved, MONDAY) == upcoming
    await move_clock(moved, MONDAY + OFFSET)
    assert (await told(moved, MONDAY)).startswith(f"Due since {due}; no ticker has picked it up yet.")
    await go(moved, MONDAY + OFFSET)
    assert await told(moved, MONDAY) == (
        f"Started: run 1 at {due}, still waiting for a worker. Its spread made it due {seconds} s after its time."
    )
    await moved.execute(CHANGE, [60])
    assert f"due {seconds} s after" in await told(moved, MONDAY)
    assert (await told(moved, MONDAY + MINUTE)).startswith("No slot: the next is 2126-05-06T10:00:00Z.")


async def test_next_shows_slots_and_when_they_are_due(moved: Connection, routine: int) -> None:
    await move_clock(moved, MONDAY + MINUTE)
    cursor = await moved.execute("SELECT slot, due_at FROM routines.next('my-org/echo/morning', 2)")
    assert await cursor.fetchall() == [(MONDAY, MONDAY + OFFSET), (MONDAY + HOUR, MONDAY + HOUR + OFFSET)]


async def test_slots_passed_over_by_a_manual_next_run_at_are_those_before_its_slot(
    moved: Connection, routine: int
) -> None:
    await go(moved, MONDAY + OFFSET)
    await moved.execute("UPDATE routines.routines SET next_run_at = %s", [MONDAY + 3 * HOUR + OFFSET])
    assert (await go(moved, MONDAY + 3 * HOUR + OFFSET - MINUTE)).claimed == 0
    assert (await go(moved, MONDAY + 3 * HOUR + OFFSET)).fired == 1
    assert await ledger(moved, routine) == [
        (MONDAY, 1, "started", None),
        (MONDAY + HOUR, 2, "skipped", "missed"),
        (MONDAY + 3 * HOUR, 1, "started", None),
    ]
    detail = f"next_run_at was set past it by hand, to {MONDAY + 3 * HOUR + OFFSET:%Y-%m-%dT%H:%M:%SZ}"
    assert await value(moved, "SELECT detail FROM routines.skips") == detail


async def test_the_offset_cannot_be_set_by_hand(moved: Connection, routine: int) -> None:
    await moved.execute("UPDATE routines.routines SET spread_offset = '5 minutes'")
    assert await value(moved, "SELECT spread_offset FROM routines.routines") == OFFSET
    assert await next_run_at(moved) == MONDAY + OFFSET


@pytest.mark.parametrize("seed", range(12))
async def test_every_slot_has_one_outcome_and_none_is_early_whatever_a_person_changes(
    moved: Connection, seed: int
) -> None:
    """Ticks, pauses, ends of pauses, spreads and cadences follow one another; the calendar says which slots there were.

    A change of cadence settles the slots of the old one up to settled_until, and those of the new one begin after it.
    """
    chance = random.Random(seed)
    await make_task(moved)
    await moved.execute(
        f"ALTER TABLE routines.routines ALTER COLUMN id RESTART WITH {chance.randrange(1, 999)}".encode()
    )
    now = MONDAY - timedelta(minutes=chance.randrange(60))
    await move_clock(moved, now)
    await moved.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, created_at, spread_seconds)
           VALUES (1, 1, 'r', 'hourly', now(), %s)""",
        [chance.choice([None, 60, 1800, SPREAD])],
    )
    cadence, since, expected = Cadence("hourly"), now, list[datetime]()
    for _ in range(120):
        now += timedelta(minutes=chance.choice([0, 3, 11, 29, 60, 61, 150]), seconds=chance.randrange(60))
        await move_clock(moved, now)
        act = chance.choice(["tick"] * 6 + ["spread"] * 3 + ["pause", "rest", "resume", "resume", "cadence", "both"])
        if act == "tick":
            await moved.execute(FINISH if chance.random() < 0.7 else "SELECT 1")
            await db.resume(moved, await db.ended_pauses(moved, batch_size=10))
            await tick(moved, batch_size=10, **CATCHUP)
        elif act in {"pause", "rest"}:
            ends = now + timedelta(minutes=chance.randrange(1, 90)) if act == "rest" else None
            await moved.execute("UPDATE routines.routines SET paused = true, paused_until = %s", [ends])
        elif act == "resume":
            await moved.execute("UPDATE routines.routines SET paused = false")
        else:
            spread = chance.choice([None, 0, 60, 1800, SPREAD]) if act in {"spread", "both"} else None
            minute = (cadence.minute_utc + 7) % 60 if act in {"cadence", "both"} else cadence.minute_utc
            sets = "minute_utc = %s, spread_seconds = " + ("spread_seconds" if act == "cadence" else "%s")
            values = [minute] if act == "cadence" else [minute, spread]
            await moved.execute(f"UPDATE routines.routines SET {sets}".encode(), values)
            if minute != cadence.minute_utc:
                settled: Any = await value(moved, "SELECT settled_until FROM routines.routines")
                assert settled == now
                expected += slots(cadence, since + timedelta(microseconds=1), settled + timedelta(microseconds=1))
                cadence, since = Cadence("hourly", minute_utc=minute), settled
    await moved.execute("DELETE FROM routines.routines")
    cursor = await moved.execute(
        "SELECT scheduled_for, last_scheduled_for, slot_count, outcome FROM routines.occurrences ORDER BY scheduled_for"
    )
    covered = [
        first + HOUR * n
        for first, last, count, _ in await cursor.fetchall()
        for n in range(count)
        if first + HOUR * (count - 1) == last
    ]
    last = max(covered)
    expected += slots(cadence, since + timedelta(microseconds=1), last + timedelta(microseconds=1))
    assert sorted(covered) == expected
    assert len(expected) > 40
    assert now - last < 2 * HOUR
    early = "SELECT count(*) FROM routines.occurrences WHERE outcome = 'started' AND delay < '0'"
    assert await value(moved, early) == 0


CRON = """UPDATE routines.routines SET cadence_type = 'cron', hour_utc = NULL, expression = %s, timezone = 'UTC',
                                       spread_seconds = %s"""
EVERY = "UPDATE routines.routines SET cadence_type = 'interval', every_minutes = %s, spread_seconds = %s"


async def refusal(connection: Connection, statement: str, *values: object) -> tuple[str | None, str | None]:
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        await connection.execute(statement.encode(), values)
    return refused.value.diag.constraint_name, refused.value.diag.message_primary


@pytest.mark.parametrize("spread", [-1, 3601, 2**31 - 1])
async def test_a_spread_out_of_range_is_refused(moved: Connection, routine: int, spread: int) -> None:
    message = f"spread_seconds: must be 0 to 3600, not {spread}"
    assert await refusal(moved, CHANGE, spread) == ("routines_spread_seconds_in_range", message)


@pytest.mark.parametrize("statement", [CHANGE, "UPDATE routines.routines SET paused = false, spread_seconds = %s"])
async def test_a_spread_that_reaches_the_next_slot_is_refused(moved: Connection, routine: int, statement: str) -> None:
    message = "spread_seconds: must be below 3600, the seconds between two of its slots, not 3600"
    assert await refusal(moved, statement, 3600) == ("routines_spread_seconds_below_interval", message)
    assert await value(moved, "SELECT spread_seconds FROM routines.routines") == SPREAD


async def test_a_cadence_too_frequent_for_the_spread_is_refused_and_a_slower_one_is_not(
    moved: Connection, routine: int
) -> None:
    name, message = await refusal(moved, EVERY, 10, 600)
    assert (name, message) == (
        "routines_spread_seconds_below_interval",
        "spread_seconds: must be below 600, the seconds between two of its slots, not 600",
    )
    await moved.execute(EVERY, [10, 599])
    slower = """UPDATE routines.routines SET every_minutes = NULL, anchor = NULL, spread_seconds = 3600,
                                             cadence_type = %s, hour_utc = %s"""
    await moved.execute(slower, ["daily", 9])
    await moved.execute(slower, ["manual", None])
    assert await next_run_at(moved) is None


@pytest.mark.parametrize(
    ("expression", "closest"),
    [
        ("* * * * *", 1),
        ("*/15 * * * *", 15),
        ("*/45 * * * *", 15),
        ("5,20 8-17 * * mon-fri", 15),
        ("55 23 * * *", 24 * 60),
        ("0 9,10 * * *", 60),
        ("0 0,23 * * *", 60),
        ("0 0,23 * * mon", 23 * 60),
        ("0 0,23 1 * *", 23 * 60),
        ("0 0,23 28,1 feb-mar *", 60),
        (["55 23 * * sun", "5 0 * * mon"], 10),
        (["55 23 * * sun", "5 0 * * sun"], 23 * 60 + 50),
        (["0 9 * * mon", "30 9 * * tue"], 24 * 60 + 30),
        (["0 9 * * mon", "30 9 * * mon"], 30),
        (["0 9 13 * *", "30 9 * * fri"], 30),
        (["0 9 29 2 *", "30 9 * * *"], 30),
        (["0 9 30 4 *", "30 9 31 3 *"], None),
        ("0 0 29 2 *", 24 * 60),
    ],
    ids=str,
)
async def test_the_closest_slots_of_an_expression_decide_how_far_it_may_spread(
    moved: Connection, routine: int, expression: Any, closest: int | None
) -> None:
    found = await value(moved, "SELECT routines.closest_minutes(routines.cron_rules(%s))", Jsonb(expression))
    assert found == closest
    most = min(3600, 60 * closest - 1) if closest else 3600
    await moved.execute(CRON, [Jsonb(expression), most])
    if most < 3600:
        name, _ = await refusal(moved, CRON, Jsonb(expression), most + 1)
        assert name == "routines_spread_seconds_below_interval"


async def test_the_closest_slots_of_random_expressions_are_those_of_the_calendar(connection: Connection) -> None:
    """Expressions of minutes, hours and days of the week repeat every week, so two weeks show every distance."""
    rng = random.Random(21)
    for _ in range(150):
        parts = [
            (
                rng.sample(range(60), rng.randrange(1, 3)),
                rng.sample(range(24), rng.randrange(1, 3)),
                rng.sample(range(7), rng.randrange(1, 4)),
            )
            for _ in range(rng.randrange(1, 4))
        ]
        expression = [
            f"{','.join(map(str, m))} {','.join(map(str, h))} * * {','.join(map(str, d))}" for m, h, d in parts
        ]
        week = {1440 * day + 60 * hour + minute for ms, hs, ds in parts for day in ds for hour in hs for minute in ms}
        moments = sorted(week | {moment + 7 * 1440 for moment in week})
        closest = min(later - earlier for earlier, later in pairwise(moments))
        found = await value(connection, "SELECT routines.closest_minutes(routines.cron_rules(%s))", Jsonb(expression))
        assert found == closest or min(closest, int(str(found))) > 60, (expression, closest, found)
