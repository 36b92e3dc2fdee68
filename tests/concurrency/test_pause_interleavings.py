"""Step the end of a pause through chosen interleavings with ticks and with whatever a person does at that moment."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from routines_core.db import Connection, routines
from routines_core.db import tick as db
from routines_core.db.routines import Cadence, RoutineChanges
from routines_core.db.statements import Statement
from routines_core.db.tick import tick
from support.clocks import move_clock, moved_clock
from support.rows import CATCHUP, Database, at, ledger, make_key, make_routine, make_task, value
from support.stepping import Gate, closed_gate, running, session, until_blocked

MONDAY = at("2126-05-06 09:00")
END = MONDAY + timedelta(days=2)
NOW = END + timedelta(hours=1)
DAY = timedelta(days=1)
IN_PAUSE = (MONDAY, 2, "skipped", "paused")

Path = dict[str, Any]
Change = Callable[[Connection, Path], Awaitable[object]]


async def resume_by_hand(connection: Connection, path: Path) -> None:
    await routines.set_paused(connection, **path, paused=False)


async def pause_again(connection: Connection, path: Path) -> None:
    await routines.set_paused(connection, **path, paused=True)


async def extend(connection: Connection, path: Path) -> None:
    await routines.set_paused(connection, **path, paused=True, until=NOW + DAY, note="longer")


async def patch(connection: Connection, path: Path) -> None:
    assert await routines.patch_routine(connection, RoutineChanges(cadence=Cadence("daily", 17)), **path)


async def delete(connection: Connection, path: Path) -> None:
    await routines.delete_routine(connection, **path)


CHANGES = pytest.mark.parametrize("change", [resume_by_hand, pause_again, extend, patch, delete])
RESULTS: dict[Change, list[tuple[object, ...]]] = {
    resume_by_hand: [IN_PAUSE, (END, 1, "started", None)],
    pause_again: [],
    extend: [],
    patch: [IN_PAUSE, (END, 1, "skipped", "missed")],
    delete: [IN_PAUSE, (END, 1, "skipped", "missed")],
}
"""The ledger if the change comes before the end of the pause is recorded, after one more tick."""
AFTERWARDS: dict[Change, list[tuple[object, ...]]] = {
    resume_by_hand: [IN_PAUSE, (END, 1, "started", None)],
    pause_again: [IN_PAUSE, (END, 1, "skipped", "paused")],
    extend: [IN_PAUSE, (END, 1, "skipped", "paused")],
    patch: [IN_PAUSE, (END, 1, "skipped", "missed")],
    delete: [IN_PAUSE, (END, 1, "skipped", "missed")],
}
"""The ledger if the change comes after the end of the pause is recorded and before the tick."""


@pytest.fixture
async def moved(database: Database) -> AsyncGenerator[Connection]:
    """Yield a session for which the pause of the routine was over an hour ago, with a slot at its end."""
    async with moved_clock(database, MONDAY - timedelta(hours=1)) as connection:
        await make_routine(connection, await make_task(connection), MONDAY)
        await connection.execute("UPDATE routines.routines SET created_at = now()")
        await connection.execute("UPDATE routines.routines SET paused = true, paused_until = %s", [END])
        await move_clock(connection, NOW)
        yield connection


@pytest.fixture
async def path(moved: Connection) -> Path:
    """Return the arguments by which the API's statements find the routine."""
    token = await make_key(moved, "my-org")
    return {"key_id": int(token.split("_")[1]), "task": "echo", "name": "morning"}


async def with_clock(connection: Connection) -> Connection:
    await connection.execute("SET search_path = moved, pg_catalog, public")
    return connection


@pytest.fixture
async def ticker(moved: Connection, database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "ticker") as opened:
        yield await with_clock(opened)


@pytest.fixture
async def other(moved: Connection, database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "other") as opened:
        yield await with_clock(opened)


@pytest.fixture
async def gate(database: Database, moved: Connection) -> AsyncGenerator[Gate]:
    async with closed_gate(database) as closed:
        yield closed


async def resume(connection: Connection) -> int:
    return (await db.resume(connection, [1])).resumed


async def stop_updates_at_gate(connection: Connection) -> None:
    """Make the session `ticker` stop at the gate when it resumes: the routine is locked and not yet changed."""
    await connection.execute(
        """CREATE FUNCTION stop_at_gate() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN PERFORM pass_gate(); RETURN NEW; END'"""
    )
    await connection.execute(
        """CREATE TRIGGER a_stop_at_gate BEFORE UPDATE ON routines.routines FOR EACH ROW
           WHEN (OLD.paused AND current_setting('application_name') = 'ticker') EXECUTE FUNCTION stop_at_gate()"""
    )


async def resume_that_stops_before_its_locks(connection: Connection) -> int:
    """End the pause as the product does, stopped at the gate after its snapshot and before it locks the routine."""
    text = Statement.declared["tick.resume"].text
    stopped = text.replace("    WHERE id = ANY", "    WHERE pass_gate() AND id = ANY", 1)
    assert stopped != text
    row = await (await connection.execute(stopped.encode(), {"ids": [1]})).fetchone()
    assert row
    return row[0]


async def tick_now(connection: Connection) -> None:
    await tick(connection, batch_size=10, **CATCHUP)


@CHANGES
async def test_a_change_that_comes_first_decides_and_the_pause_is_not_ended_with_an_older_snapshot(
    moved: Connection, ticker: Connection, other: Connection, gate: Gate, path: Path, change: Change
) -> None:
    async with running(lambda: resume_that_stops_before_its_locks(ticker)) as ending:
        await until_blocked(moved, ticker)
        await change(other, path)
        await gate.open()
        assert await ending == (1 if change is patch else 0)  # only a patch leaves the ended pause as it is
    await tick_now(moved)
    assert await ledger(moved, 1) == RESULTS[change]


@CHANGES
async def test_a_change_waits_for_the_end_of_the_pause_to_be_recorded(
    moved: Connection, ticker: Connection, other: Connection, gate: Gate, path: Path, change: Change
) -> None:
    await stop_updates_at_gate(moved)
    async with running(lambda: resume(ticker)) as ending:
        await until_blocked(moved, ticker)
        async with running(lambda: change(other, path)) as changing:
            await until_blocked(moved, other)
            await gate.open()
            assert await ending == 1
            await changing
    await tick_now(moved)
    assert await ledger(moved, 1) == AFTERWARDS[change]


@CHANGES
async def test_the_end_of_a_pause_is_left_alone_while_the_routine_is_being_changed(
    moved: Connection, ticker: Connection, other: Connection, path: Path, change: Change
) -> None:
    async with other.transaction():
        await change(other, path)
        assert await resume(ticker) == 0
    await resume(ticker)
    await tick_now(moved)
    assert await ledger(moved, 1) == RESULTS[change]


async def test_two_tickers_end_a_pause_once(
    moved: Connection, ticker: Connection, other: Connection, gate: Gate
) -> None:
    async with running(lambda: resume_that_stops_before_its_locks(ticker)) as late:
        await until_blocked(moved, ticker)
        assert await resume(other) == 1
        await gate.open()
        assert await late == 0
    assert await ledger(moved, 1) == [IN_PAUSE]


async def test_a_tick_waits_for_nothing_while_a_pause_is_being_ended_and_fires_the_slot_afterwards(
    moved: Connection, ticker: Connection, other: Connection, gate: Gate
) -> None:
    await stop_updates_at_gate(moved)
    async with running(lambda: resume(ticker)) as ending:
        await until_blocked(moved, ticker)
        await tick_now(other)
        assert await ledger(moved, 1) == []
        await gate.open()
        assert await ending == 1
    await tick_now(other)
    assert await ledger(moved, 1) == [IN_PAUSE, (END, 1, "started", None)]


async def test_a_backend_killed_while_it_ends_a_pause_leaves_it_to_another_ticker(
    moved: Connection, ticker: Connection, other: Connection, gate: Gate
) -> None:
    await stop_updates_at_gate(moved)
    async with running(lambda: resume(ticker)) as killed:
        await until_blocked(moved, ticker)
        await moved.execute("SELECT pg_terminate_backend(%s, 10000)", [ticker.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            await killed
    assert await ledger(moved, 1) == []
    assert await value(moved, "SELECT paused FROM routines.routines") is True
    assert await resume(other) == 1
    await tick_now(other)
    assert await ledger(moved, 1) == [IN_PAUSE, (END, 1, "started", None)]


async def test_a_run_now_run_that_is_active_at_the_end_of_the_pause_blocks_the_slot(
    moved: Connection, ticker: Connection, path: Path
) -> None:
    await routines.run_now(moved, **path)
    assert await resume(ticker) == 1
    await tick_now(moved)
    assert await ledger(moved, 1) == [IN_PAUSE, (END, 1, "skipped", "overlap")]
