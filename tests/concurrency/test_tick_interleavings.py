"""Step two sessions through chosen interleavings of the tick with everything else that can touch a routine."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from routines_core.db import Connection, connect, routines
from routines_core.db.routines import Cadence, RoutineChanges, RunNow
from routines_core.db.statements import Statement
from support.rows import Database, at, ledger, make_key, make_routine, make_task, value
from support.stepping import (
    TICK,
    TIMEOUT_SECONDS,
    Gate,
    closed_gate,
    running,
    session,
    stop_inserts_at_gate,
    tick_at,
    tick_that_stops_before_its_locks,
    until,
    until_blocked,
)

SLOT = at("2026-05-04 09:00")
LATER = SLOT + timedelta(days=400)
STARTED = [(SLOT, 1, "started", None)]

Path = dict[str, Any]
Change = Callable[[Connection, Path], Awaitable[object]]


async def pause(connection: Connection, path: Path) -> None:
    await routines.set_paused(connection, **path, paused=True)


async def patch(connection: Connection, path: Path) -> None:
    assert await routines.patch_routine(connection, RoutineChanges(cadence=Cadence("daily", 17)), **path)


async def delete(connection: Connection, path: Path) -> None:
    await routines.delete_routine(connection, **path)


async def pause_in_psql(connection: Connection, path: Path) -> None:
    await connection.execute("UPDATE routines.routines SET paused = true WHERE name = %s", [path["name"]])


async def delete_in_psql(connection: Connection, path: Path) -> None:
    await connection.execute("DELETE FROM routines.routines WHERE name = %s", [path["name"]])


CHANGES = pytest.mark.parametrize("change", [pause, patch, delete, pause_in_psql, delete_in_psql])

RUN_NOW_IN_PSQL = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                                trigger, init_params)
             SELECT collection_id, task_id, 1, id, 'run-now', '{}' FROM routines.routines"""
SCHEDULED_BY_HAND = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                                          trigger, init_params, scheduled_for)
                       SELECT collection_id, task_id, 1, id, 'schedule', '{}', '2026-01-01Z' FROM routines.routines"""
FINISH = "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"


@pytest.fixture
async def routine(connection: Connection) -> int:
    """Create a daily routine whose slot is due, and return its id."""
    return await make_routine(connection, await make_task(connection), SLOT)


@pytest.fixture
async def path(connection: Connection, routine: int) -> Path:
    """Return the arguments by which the API's statements find the routine."""
    token = await make_key(connection, "my-org")
    return {"key_id": int(token.split("_")[1]), "task": "echo", "name": "morning"}


@pytest.fixture
async def ticker(database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "ticker") as opened:
        yield opened


@pytest.fixture
async def other(database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "other") as opened:
        yield opened


@pytest.fixture
async def gate(database: Database) -> AsyncGenerator[Gate]:
    async with closed_gate(database) as closed:
        yield closed


async def nothing_fires(connection: Connection) -> bool:
    """Return whether nothing fires, neither now nor when the clock is far ahead."""
    before = await value(connection, "SELECT count(*) FROM routines.trajectories")
    await connection.execute(FINISH)
    await tick_at(connection, SLOT)
    await tick_at(connection, LATER)
    return await value(connection, "SELECT count(*) FROM routines.trajectories") == before


async def test_a_ticker_skips_routines_that_another_has_locked_and_claims_the_rest(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate
) -> None:
    await stop_inserts_at_gate(connection)
    async with running(lambda: tick_at(ticker, SLOT)) as first:
        await until_blocked(connection, ticker)
        task = await value(connection, "SELECT id FROM routines.tasks")
        assert isinstance(task, int)
        rest = await make_routine(connection, task, SLOT, name="rest")
        assert (await tick_at(other, SLOT)).fired == 1
        await gate.open()
        assert (await first).fired == 1
    assert await ledger(connection, routine) == STARTED
    assert await ledger(connection, rest) == STARTED


async def test_if_two_tickers_see_the_same_due_routine_only_one_fires_it(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate
) -> None:
    async with running(lambda: tick_that_stops_before_its_locks(ticker, SLOT)) as late:
        await until_blocked(connection, ticker)
        assert (await tick_at(other, SLOT)).fired == 1
        await gate.open()
        assert (await late).claimed == 0
    assert await ledger(connection, routine) == STARTED


@CHANGES
async def test_a_change_waits_for_the_tick_that_locks_the_routine_and_the_old_spec_never_fires_afterwards(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate, path: Path, change: Change
) -> None:
    await stop_inserts_at_gate(connection)
    async with running(lambda: tick_at(ticker, SLOT)) as ticking:
        await until_blocked(connection, ticker)
        async with running(lambda: change(other, path)) as changing:
            await until_blocked(connection, other)
            await gate.open()
            assert (await ticking).fired == 1
            await changing
    assert (await ledger(connection, routine))[:1] == STARTED
    if change is patch:
        assert await value(connection, "SELECT extract(hour FROM next_run_at) FROM routines.routines") == 17
    else:
        assert await nothing_fires(connection)


@CHANGES
async def test_after_an_acknowledged_change_a_tick_with_an_older_snapshot_fires_nothing(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate, path: Path, change: Change
) -> None:
    """The change commits after the tick has taken its snapshot and before it locks the routine."""
    async with running(lambda: tick_that_stops_before_its_locks(ticker, SLOT)) as ticking:
        await until_blocked(connection, ticker)
        await change(other, path)
        await gate.open()
        assert (await ticking).claimed == 0
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 0
    [(first_slot, _, outcome, _)] = await ledger(connection, routine)
    assert (first_slot, outcome) == (SLOT, "skipped")


async def test_a_tick_with_a_snapshot_older_than_a_change_of_parameters_fires_with_the_new_ones(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate, path: Path
) -> None:
    async with running(lambda: tick_that_stops_before_its_locks(ticker, SLOT)) as ticking:
        await until_blocked(connection, ticker)
        assert await routines.patch_routine(other, RoutineChanges(init_params_overrides={"size": 2}), **path)
        await gate.open()
        assert (await ticking).fired == 1
    assert await value(connection, "SELECT init_params -> 'size' FROM routines.trajectories") == 2


async def test_a_tick_with_a_snapshot_older_than_a_change_of_cadence_counts_missed_slots_by_the_new_one(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate
) -> None:
    """The routine is still due after the change, because a person has set next_run_at back in the same transaction."""
    first = SLOT + timedelta(minutes=30)
    async with running(lambda: tick_that_stops_before_its_locks(ticker, SLOT + timedelta(hours=5))) as ticking:
        await until_blocked(connection, ticker)
        async with other.transaction():
            await other.execute(
                "UPDATE routines.routines SET cadence_type = 'hourly', hour_utc = NULL, minute_utc = 30"
            )
            await other.execute("DELETE FROM routines.skips")
            await other.execute("UPDATE routines.routines SET next_run_at = %s, settled_until = %s", [first, SLOT])
        await gate.open()
        assert (await ticking).fired == 1
    assert await ledger(connection, routine) == [
        (first, 4, "skipped", "missed"),
        (first + timedelta(hours=4), 1, "started", None),
    ]
    assert await value(connection, "SELECT (cadence).type FROM routines.skips") == "hourly"


@CHANGES
async def test_a_tick_skips_a_routine_that_is_being_changed(
    connection: Connection, routine: int, ticker: Connection, other: Connection, path: Path, change: Change
) -> None:
    async with other.transaction():
        await change(other, path)
        assert (await tick_at(ticker, SLOT)).claimed == 0
    assert (await tick_at(ticker, SLOT)).claimed == 0
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 0


async def test_after_a_change_is_rolled_back_the_next_tick_fires_the_slot(
    connection: Connection, routine: int, ticker: Connection, other: Connection, path: Path
) -> None:
    async with other.transaction(force_rollback=True):
        await pause(other, path)
        assert (await tick_at(ticker, SLOT)).claimed == 0
    assert (await tick_at(ticker, SLOT)).fired == 1
    assert await ledger(connection, routine) == STARTED


async def test_a_run_now_request_during_a_tick_waits_for_it_and_runs_alongside_the_scheduled_run(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate, path: Path
) -> None:
    await stop_inserts_at_gate(connection)
    async with running(lambda: tick_at(ticker, SLOT)) as ticking:
        await until_blocked(connection, ticker)
        async with running(lambda: routines.run_now(other, **path)) as starting:
            await until_blocked(connection, other)
            await gate.open()
            assert (await ticking).fired == 1
            await starting
    triggers = await value(connection, "SELECT array_agg(trigger ORDER BY id) FROM routines.trajectories")
    assert sorted(triggers) == ["run-now", "schedule"]  # type: ignore[type-var]


async def test_a_run_now_request_that_respects_overlap_sees_the_run_of_a_tick_that_it_waited_for(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate, path: Path
) -> None:
    await stop_inserts_at_gate(connection)
    async with running(lambda: tick_at(ticker, SLOT)) as ticking:
        await until_blocked(connection, ticker)
        async with running(lambda: routines.run_now(other, **path, asked=RunNow(respect_overlap=True))) as starting:
            await until_blocked(connection, other)
            await gate.open()
            assert (await ticking).fired == 1
            refused = await starting
    fired = await value(connection, "SELECT id FROM routines.trajectories")
    assert (refused.id, refused.blocked_by) == (None, fired)
    assert await ledger(connection, routine) == STARTED


async def test_a_tick_skips_a_routine_while_a_run_now_run_is_being_created(
    connection: Connection, routine: int, ticker: Connection, other: Connection, path: Path
) -> None:
    async with other.transaction():
        await routines.run_now(other, **path)
        assert (await tick_at(ticker, SLOT)).claimed == 0
    assert (await tick_at(ticker, SLOT)).overlapped == 1
    assert await ledger(connection, routine) == [(SLOT, 1, "skipped", "overlap")]


async def test_a_tick_sees_a_run_now_run_committed_after_its_snapshot(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate, path: Path
) -> None:
    async with running(lambda: tick_that_stops_before_its_locks(ticker, SLOT)) as ticking:
        await until_blocked(connection, ticker)
        await routines.run_now(other, **path)
        await gate.open()
        assert (await ticking).overlapped == 1
    assert await ledger(connection, routine) == [(SLOT, 1, "skipped", "overlap")]


async def test_a_tick_does_not_wait_for_a_transaction_that_is_ending_the_blocking_run(
    connection: Connection, routine: int, ticker: Connection, other: Connection
) -> None:
    await tick_at(ticker, SLOT)
    tomorrow = SLOT + timedelta(days=1)
    async with other.transaction():
        await other.execute(FINISH)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            assert (await tick_at(ticker, tomorrow)).overlapped == 1
    assert (await ledger(connection, routine))[1] == (tomorrow, 1, "skipped", "overlap")


async def test_a_tick_fires_if_the_blocking_run_ended_after_its_snapshot(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate
) -> None:
    await tick_at(other, SLOT)
    tomorrow = SLOT + timedelta(days=1)
    async with running(lambda: tick_that_stops_before_its_locks(ticker, tomorrow)) as ticking:
        await until_blocked(connection, ticker)
        await other.execute(FINISH)
        await gate.open()
        assert (await ticking).fired == 1
    assert (await ledger(connection, routine))[1] == (tomorrow, 1, "started", None)


@pytest.mark.parametrize(("rolled_back", "outcome"), [(False, ("skipped", "overlap")), (True, ("started", None))])
async def test_a_scheduled_run_inserted_by_hand_during_a_tick_blocks_the_fire_once_committed(
    connection: Connection,
    routine: int,
    ticker: Connection,
    other: Connection,
    rolled_back: bool,  # noqa: FBT001
    outcome: tuple[str, str | None],
) -> None:
    async with AsyncExitStack() as stack:
        async with other.transaction(force_rollback=rolled_back):
            await other.execute(SCHEDULED_BY_HAND)
            ticking = await stack.enter_async_context(running(lambda: tick_at(ticker, SLOT)))
            await until_blocked(connection, ticker)
        await ticking
    assert (await ledger(connection, routine))[-1] == (SLOT, 1, *outcome)


async def test_a_backend_killed_in_the_middle_of_a_batch_leaves_nothing_half_done(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate
) -> None:
    await stop_inserts_at_gate(connection)
    async with running(lambda: tick_at(ticker, SLOT)) as killed:
        await until_blocked(connection, ticker)
        await connection.execute("SELECT pg_terminate_backend(%s, 10000)", [ticker.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            await killed
    assert await ledger(connection, routine) == []
    assert (await tick_at(other, SLOT)).fired == 1
    assert await ledger(connection, routine) == STARTED


async def test_a_tick_commits_even_if_its_client_is_frozen(
    connection: Connection, database: Database, routine: int, gate: Gate
) -> None:
    """The client has sent the statement and never reads the answer, as after SIGSTOP."""
    await stop_inserts_at_gate(connection)
    with closing(psycopg.connect(database.url, autocommit=True, application_name="ticker")) as frozen:
        pid = frozen.info.backend_pid
        text = psycopg.ClientCursor(frozen).mogrify(
            Statement.declared["tick.tick"].text.encode(), {**TICK, "now": SLOT}
        )
        frozen.pgconn.send_query(text.encode())
        frozen.pgconn.flush()
        await until_blocked(connection, pid)
        await gate.open()
        await until(connection, "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = %s", pid)
        assert await ledger(connection, routine) == STARTED
        await connection.execute("SELECT FROM routines.routines FOR UPDATE NOWAIT")
        assert (await tick_at(connection, SLOT)).claimed == 0


async def test_locks_of_a_frozen_session_are_released_after_the_session_timeout(
    connection: Connection, database: Database, routine: int
) -> None:
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        await _hold_until_cut_off(connection, database)
    assert (await tick_at(connection, SLOT)).fired == 1
    assert await ledger(connection, routine) == STARTED


async def _hold_until_cut_off(connection: Connection, database: Database) -> None:
    async with connect(database.url, "frozen") as frozen:
        await frozen.execute("BEGIN")
        await frozen.execute("SELECT FROM routines.routines FOR UPDATE")
        assert (await tick_at(connection, SLOT)).claimed == 0
        gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
        await until(connection, gone, frozen.info.backend_pid)


async def test_the_database_rejects_a_scheduled_run_while_a_run_of_any_trigger_is_active(
    connection: Connection, routine: int
) -> None:
    await connection.execute(RUN_NOW_IN_PSQL)
    with pytest.raises(psycopg.errors.CheckViolation, match="a scheduled run waits for its next slot"):
        await connection.execute(SCHEDULED_BY_HAND)
    await connection.execute(FINISH)
    await connection.execute(SCHEDULED_BY_HAND)
    with pytest.raises(psycopg.errors.UniqueViolation, match="trajectories_active_schedule_key"):
        await connection.execute(SCHEDULED_BY_HAND.replace("2026-01-01Z", "2026-01-02Z"))
    await connection.execute(RUN_NOW_IN_PSQL)  # a run-now run may overlap any other


async def test_a_tick_with_a_snapshot_older_than_a_calendar_asks_the_calendar(
    connection: Connection, routine: int, ticker: Connection, other: Connection, gate: Gate
) -> None:
    async with running(lambda: tick_that_stops_before_its_locks(ticker, SLOT)) as ticking:
        await until_blocked(connection, ticker)
        await other.execute(
            """INSERT INTO routines.calendars (collection_id, name, days)
               VALUES (1, 'holidays', '[{"from": "2026-05-04", "label": "Star Wars Day"}]')"""
        )
        await other.execute("""UPDATE routines.routines SET calendar = '{"exclude": ["holidays"]}'""")
        await gate.open()
        assert (await ticking).excluded_by_calendar == 1
    assert await ledger(connection, routine) == [(SLOT, 1, "skipped", "calendar")]
    assert await value(connection, "SELECT detail FROM routines.skips") == "Star Wars Day"
