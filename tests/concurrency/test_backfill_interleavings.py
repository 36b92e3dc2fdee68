"""Step the expansion of backfills through interleavings with other tickers, people and the end of a ticker."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from routines_core.db import Connection
from routines_core.db.tick import expand_backfill, open_backfills
from support.rows import Database, make_routine, make_task, value
from support.stepping import running, session, tick_at, until, until_blocked

FIRST = datetime(2026, 5, 4, 9, tzinfo=UTC)
FILLED = "SELECT array_agg(fills_slot ORDER BY id) FROM routines.trajectories WHERE backfill_id IS NOT NULL"
END = "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"
DELETE = "DELETE FROM routines.routines"
CANCEL = "SELECT routines.cancel_backfill(id) FROM routines.backfills"


def slots(count: int) -> list[datetime]:
    return [FIRST + timedelta(hours=number) for number in range(count)]


@pytest.fixture
async def backfill(connection: Connection) -> int:
    """Create a backfill of the six slots before its hourly routine was created, one at a time. Returns it."""
    routine = await make_routine(connection, await make_task(connection), FIRST, hourly=True)
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '30 minutes'")
    made = await value(
        connection,
        "INSERT INTO routines.backfills (routine_id, from_time, until_time) VALUES (%s, %s, %s) RETURNING id",
        routine,
        FIRST,
        FIRST + timedelta(hours=6),
    )
    assert isinstance(made, int)
    return made


@pytest.fixture
async def one(database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "one") as opened:
        yield opened


@pytest.fixture
async def other(database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "other") as opened:
        yield opened


async def test_a_ticker_leaves_a_backfill_alone_that_another_one_expands(
    connection: Connection, backfill: int, one: Connection, other: Connection
) -> None:
    await one.execute("BEGIN")
    assert await expand_backfill(one, backfill) == 1
    assert await expand_backfill(other, backfill) == 0
    await one.execute("COMMIT")
    assert await expand_backfill(other, backfill) == 0
    assert await value(connection, FILLED) == slots(1)


async def test_two_tickers_in_turns_fill_each_slot_once(
    connection: Connection, backfill: int, one: Connection, other: Connection
) -> None:
    for number in range(7):
        await expand_backfill((one, other)[number % 2], backfill)
        await connection.execute(END)
    assert await value(connection, FILLED) == slots(6)
    assert await value(connection, "SELECT array[started, left_out] FROM routines.backfills") == [6, 0]


async def test_a_ticker_that_is_killed_while_it_expands_leaves_no_trace(
    connection: Connection, backfill: int, one: Connection, other: Connection
) -> None:
    """Killed before its commit, as by kill -9: the next ticker goes on from where the last commit was."""
    for killed in (one, other):
        await killed.execute("BEGIN")
        assert await expand_backfill(killed, backfill) == 1
        pid = killed.info.backend_pid
        await connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(psycopg.OperationalError):
            await killed.execute("COMMIT")
        await until(connection, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)", pid)
        assert await open_backfills(connection) == [backfill]
        assert await expand_backfill(connection, backfill) == 1
        await connection.execute(END)
        await connection.execute("UPDATE routines.backfills SET next_look_at = now()")
    assert await value(connection, FILLED) == slots(2)


async def test_a_tick_and_an_expansion_leave_a_locked_routine_to_each_other(
    connection: Connection, backfill: int, one: Connection, other: Connection
) -> None:
    await connection.execute("UPDATE routines.routines SET next_run_at = %s", [FIRST + timedelta(hours=8)])
    await one.execute("BEGIN")
    assert (await tick_at(one, FIRST + timedelta(hours=8))).fired == 1
    assert await expand_backfill(other, backfill) == 0
    await one.execute("COMMIT")
    await connection.execute(END)
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '30 minutes'")
    await one.execute("BEGIN")
    assert await expand_backfill(one, backfill) == 1
    await connection.execute("SET lock_timeout = '100ms'")
    assert (await tick_at(other, datetime.now(UTC) + timedelta(hours=1))).claimed == 0
    await one.execute("COMMIT")
    assert (await tick_at(other, datetime.now(UTC) + timedelta(hours=1))).overlapped == 1


@pytest.mark.parametrize(("change", "reason"), [(DELETE, "routine_deleted"), (CANCEL, "cancelled")])
async def test_an_end_waits_for_the_expansion_and_cancels_the_run_that_it_started(
    connection: Connection, backfill: int, one: Connection, other: Connection, change: str, reason: str
) -> None:
    await one.execute("BEGIN")
    assert await expand_backfill(one, backfill) == 1
    async with running(lambda: other.execute(change.encode())) as ending:
        await until_blocked(connection, other)
        await one.execute("COMMIT")
        await ending
    assert await value(connection, "SELECT end_reason FROM routines.backfills") == reason
    assert await value(connection, "SELECT array_agg(status) FROM routines.trajectories") == ["cancelled"]
    assert await expand_backfill(one, backfill) == 0


@pytest.mark.parametrize("change", [DELETE, CANCEL])
async def test_an_expansion_leaves_a_backfill_alone_that_is_about_to_end(
    connection: Connection, backfill: int, one: Connection, other: Connection, change: str
) -> None:
    await one.execute("BEGIN")
    await one.execute(change.encode())
    assert await expand_backfill(other, backfill) == 0
    await one.execute("COMMIT")
    assert await value(connection, FILLED) is None
