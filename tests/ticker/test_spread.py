"""The tick fires the slots of a spread routine at their offset: windows, delays and sleeps count from there."""

from collections.abc import AsyncGenerator
from datetime import datetime, timedelta

import pytest

from routines_core.db import Connection
from routines_core.db.tick import Tick, seconds_until_due, tick
from support.clocks import move_clock, moved_clock
from support.oracle import offset_of
from support.rows import CATCHUP, Database, at, ledger, make_routine, make_task, value

MONDAY = at("2126-05-06 09:00")
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
OFFSET = offset_of(5, 3600)
"""The offset of the routine 5 if it spreads by an hour: 28 minutes."""
SPREAD = "UPDATE routines.routines SET spread_seconds = 3600"


async def tick_at(connection: Connection, now: datetime, *, fault: str | None = None) -> Tick:
    return await tick(connection, batch_size=10, now=now, fault=fault, **CATCHUP)


@pytest.fixture
async def routine(connection: Connection) -> int:
    """Create a daily routine at 09:00 with a spread, created on that Monday at eight."""
    await connection.execute("ALTER TABLE routines.routines ALTER COLUMN id RESTART WITH 5")
    routine = await make_routine(connection, await make_task(connection), MONDAY)
    await connection.execute(SPREAD)
    await connection.execute("UPDATE routines.routines SET created_at = %s", [MONDAY - HOUR])
    return routine


async def test_the_next_slot_keeps_the_offset(connection: Connection, routine: int) -> None:
    assert (await tick_at(connection, MONDAY + OFFSET - MINUTE)).claimed == 0
    assert (await tick_at(connection, MONDAY + OFFSET + MINUTE)).fired == 1
    assert await value(connection, "SELECT next_run_at FROM routines.routines") == MONDAY + DAY + OFFSET
    assert await value(connection, "SELECT settled_until FROM routines.routines") == MONDAY


async def test_only_the_time_since_a_slot_was_due_counts_as_delay(connection: Connection, routine: int) -> None:
    ticked = await tick_at(connection, MONDAY + OFFSET + 3 * SECOND)
    assert list(ticked.delay_seconds) == [3]
    cursor = await connection.execute("SELECT delay, due_at FROM routines.occurrences")
    assert await cursor.fetchall() == [(3 * SECOND, MONDAY + OFFSET)]


@pytest.mark.parametrize(("late", "outcome"), [(10 * MINUTE, "started"), (10 * MINUTE + SECOND, "skipped")])
async def test_the_catch_up_window_begins_when_a_slot_is_due(
    connection: Connection, routine: int, late: timedelta, outcome: str
) -> None:
    await connection.execute("UPDATE routines.routines SET catchup_window_seconds = 600")
    await tick_at(connection, MONDAY + 2 * DAY + OFFSET + late)
    rows = [row[:3] for row in await ledger(connection, routine)]
    if outcome == "started":
        assert rows == [(MONDAY, 2, "skipped"), (MONDAY + 2 * DAY, 1, "started")]
    else:
        assert rows == [(MONDAY, 3, "skipped")]
        assert await value(connection, "SELECT delay FROM routines.occurrences") == late


async def test_a_slot_whose_time_has_come_but_not_its_offset_is_not_missed(
    connection: Connection, routine: int
) -> None:
    """A ticker that comes back in between catches up the slot before; this one is still to come."""
    await tick_at(connection, MONDAY + DAY + OFFSET - MINUTE)
    assert [row[:2] for row in await ledger(connection, routine)] == [(MONDAY, 1)]
    assert await value(connection, "SELECT next_run_at FROM routines.routines") == MONDAY + DAY + OFFSET


async def test_a_run_that_is_still_active_at_the_offset_is_an_overlap(connection: Connection, routine: int) -> None:
    await tick_at(connection, MONDAY + OFFSET)
    assert (await tick_at(connection, MONDAY + DAY + OFFSET + SECOND)).overlapped == 1
    cursor = await connection.execute("SELECT scheduled_for, delay FROM routines.occurrences WHERE reason = 'overlap'")
    assert await cursor.fetchall() == [(MONDAY + DAY, SECOND)]


async def test_strikes_advance_by_the_same_offset_and_pause_the_routine(connection: Connection, routine: int) -> None:
    for day in range(2):
        await tick_at(connection, MONDAY + day * DAY + OFFSET, fault="poison")
        assert await value(connection, "SELECT next_run_at FROM routines.routines") == MONDAY + (day + 1) * DAY + OFFSET
    await tick_at(connection, MONDAY + 2 * DAY + OFFSET, fault="poison")
    assert await value(connection, "SELECT paused FROM routines.routines") is True
    rows = [(slot, reason) for slot, _, _, reason in await ledger(connection, routine)]
    assert rows == [(MONDAY + day * DAY, "failed_to_start") for day in range(3)]
    assert (
        await value(connection, "SELECT count(*) FROM routines.skips WHERE due_at - scheduled_for <> %s", OFFSET) == 0
    )


async def test_a_cron_routine_reads_spread_slots_from_its_window(connection: Connection, routine: int) -> None:
    """Eighty fires make the window anew twice; it always reaches beyond the next slot."""
    await connection.execute(
        """UPDATE routines.routines SET cadence_type = 'cron', hour_utc = NULL, expression = '"0 9,17 * * *"',
                                        timezone = 'Europe/Berlin', spread_seconds = 3600"""
    )
    await connection.execute(
        """UPDATE routines.routines SET settled_until = %(since)s, next_run_at = routines.with_spread(
               routines, routines.next_fire(routines.cadence_of(routines), %(since)s)),
               upcoming = routines.slot_window(routines.cadence_of(routines), %(since)s)""",
        {"since": MONDAY},
    )
    for _ in range(80):
        due = await value(connection, "SELECT next_run_at FROM routines.routines")
        assert isinstance(due, datetime)
        assert (await tick_at(connection, due - SECOND)).claimed == 0
        assert (await tick_at(connection, due)).fired == 1
        inside = """SELECT next_run_at - spread_offset >= upcoming[1]
                           AND next_run_at - spread_offset < upcoming[cardinality(upcoming)] FROM routines.routines"""
        assert await value(connection, inside) is True
        await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    fired = await value(
        connection,
        """SELECT count(*) FROM routines.trajectories
           WHERE extract(hour FROM timezone('Europe/Berlin', scheduled_for)) IN (9, 17)
             AND due_at - scheduled_for = %s""",
        OFFSET,
    )
    assert (fired, await value(connection, "SELECT count(*) FROM routines.skips")) == (80, 0)


@pytest.fixture
async def moved(database: Database) -> AsyncGenerator[Connection]:
    async with moved_clock(database, MONDAY) as connection:
        yield connection


async def test_a_ticker_sleeps_until_the_offset(moved: Connection) -> None:
    await moved.execute("ALTER TABLE routines.routines ALTER COLUMN id RESTART WITH 5")
    await make_routine(moved, await make_task(moved), MONDAY)
    await moved.execute(SPREAD)
    sleep = await seconds_until_due(moved)
    assert (sleep.seconds, sleep.ends_at_event) == (1, False)
    await move_clock(moved, MONDAY + OFFSET - SECOND / 4)
    sleep = await seconds_until_due(moved)
    assert (sleep.seconds, sleep.ends_at_event) == (0.25, True)
