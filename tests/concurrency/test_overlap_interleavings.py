"""Step ticks, ends of runs and cancels of one routine through interleavings, where a run waits for a place."""

from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest

from routines_core.db import Connection, runs, trajectories
from routines_core.db.runs import Claim
from support.rows import Database, at, ledger, make_key, make_routine, make_task, value
from support.stepping import running, session, tick_at, until_blocked

NINE = at("2026-05-04 09:00")
HOUR = timedelta(hours=1)
ACTIVE = "SELECT array_agg(place ORDER BY id) FROM routines.trajectories WHERE ended_at IS NULL"
WAITING = "SELECT id FROM routines.trajectories WHERE place = 0"


@pytest.fixture
async def routine(connection: Connection) -> int:
    found = await make_routine(connection, await make_task(connection), NINE, hourly=True)
    await connection.execute("UPDATE routines.routines SET overlap_policy = 'queue_one'")
    return found


@pytest.fixture
async def run(connection: Connection, routine: int) -> Claim:
    """Claim the run of the first slot."""
    assert (await tick_at(connection, NINE)).fired == 1
    [claimed] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=600, deadline_seconds=600)
    assert routine
    return claimed


@pytest.fixture
async def worker(database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "worker") as opened:
        yield opened


@pytest.fixture
async def ticker(database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "other") as opened:
        yield opened


async def test_a_tick_that_sees_a_run_end_lets_its_own_wait_and_a_worker_admits_it(
    connection: Connection, run: Claim, worker: Connection, ticker: Connection
) -> None:
    await worker.execute("BEGIN")
    assert await runs.finish(worker, run, error=None)
    assert (await tick_at(ticker, NINE + HOUR)).fired == 1
    await worker.execute("COMMIT")
    assert await value(connection, ACTIVE) == [0]
    assert (await runs.admit(connection)).admitted == 1
    assert await value(connection, ACTIVE) == [1]


async def test_an_end_does_not_wait_for_a_tick_that_has_locked_the_routine(
    connection: Connection, run: Claim, worker: Connection, ticker: Connection
) -> None:
    await tick_at(connection, NINE + HOUR)
    await ticker.execute("BEGIN")
    assert (await tick_at(ticker, NINE + 2 * HOUR)).coalesced == 1
    assert await runs.finish(worker, run, error=None)
    await ticker.execute("COMMIT")
    assert await value(connection, ACTIVE) == [0]
    assert (await runs.admit(connection)).admitted == 1


async def test_a_tick_passes_over_a_routine_whose_waiting_run_is_being_admitted(
    connection: Connection, routine: int, run: Claim, worker: Connection, ticker: Connection
) -> None:
    await tick_at(connection, NINE + HOUR)
    await worker.execute("BEGIN")
    assert await runs.finish(worker, run, error=None)
    assert (await tick_at(ticker, NINE + 2 * HOUR)).claimed == 0
    await worker.execute("COMMIT")
    assert (await tick_at(ticker, NINE + 2 * HOUR)).fired == 1
    assert await value(connection, ACTIVE) == [1, 0]
    assert [row[2] for row in await ledger(connection, routine)] == ["started"] * 3


@pytest.mark.parametrize("commits", [True, False])
async def test_a_tick_does_not_wait_for_a_person_who_cancels_the_waiting_run(
    connection: Connection, routine: int, run: Claim, ticker: Connection, worker: Connection, *, commits: bool
) -> None:
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    await tick_at(connection, NINE + HOUR)
    waiting = await value(connection, WAITING)
    assert isinstance(waiting, int)
    await worker.execute("BEGIN")
    await trajectories.set_statuses(worker, {waiting: "cancelled"}, key_id=key_id, task="echo")
    assert (await tick_at(ticker, NINE + 2 * HOUR)).overlapped == 1
    await worker.execute("COMMIT" if commits else "ROLLBACK")
    assert await ledger(connection, routine) == [
        (NINE, 1, "started", None), (NINE + HOUR, 1, "started", None), (NINE + 2 * HOUR, 1, "skipped", "overlap"),
    ]  # fmt: skip
    assert await value(connection, "SELECT blocking_trajectory_id FROM routines.skips") == waiting
    assert await value(connection, ACTIVE) == ([1] if commits else [1, 0])
    assert run.id


async def test_a_cancel_waits_for_a_tick_that_takes_the_waiting_run_over_and_cancels_it_at_its_later_slot(
    connection: Connection, routine: int, run: Claim, ticker: Connection, worker: Connection
) -> None:
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    await tick_at(connection, NINE + HOUR)
    waiting = await value(connection, WAITING)
    assert isinstance(waiting, int)
    await ticker.execute("BEGIN")
    assert (await tick_at(ticker, NINE + 2 * HOUR)).coalesced == 1
    async with running(
        lambda: trajectories.set_statuses(worker, {waiting: "cancelled"}, key_id=key_id, task="echo")
    ) as cancelling:
        await until_blocked(connection, worker)
        await ticker.execute("COMMIT")
        await cancelling
    assert [row[2:] for row in await ledger(connection, routine)] == [
        ("started", None), ("skipped", "coalesced"), ("started", None),
    ]  # fmt: skip
    assert await value(connection, ACTIVE) == [1]
    assert run.id


async def test_two_runs_that_end_in_the_same_moment_leave_the_waiting_run_to_a_worker(
    connection: Connection, run: Claim, worker: Connection, ticker: Connection
) -> None:
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                              init_params)
           SELECT collection_id, task_id, 1, id, 'run-now', '{}' FROM routines.routines"""
    )
    [by_hand] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=600, deadline_seconds=600)
    await tick_at(connection, NINE + HOUR)
    for each in (worker, ticker):
        await each.execute("BEGIN")
    assert await runs.finish(worker, run, error=None)
    assert await runs.finish(ticker, by_hand, error=None)
    for each in (worker, ticker):
        await each.execute("COMMIT")
    assert await value(connection, ACTIVE) == [0]
    assert (await runs.admit(connection)).admitted == 1


async def test_a_pause_waits_for_a_tick_and_cancels_the_run_that_it_let_wait(
    connection: Connection, run: Claim, worker: Connection, ticker: Connection
) -> None:
    await ticker.execute("BEGIN")
    assert (await tick_at(ticker, NINE + HOUR)).fired == 1
    async with running(lambda: worker.execute("UPDATE routines.routines SET paused = true")) as pausing:
        await until_blocked(connection, worker)
        await ticker.execute("COMMIT")
        await pausing
    assert await value(connection, ACTIVE) == [1]
    assert run.id
