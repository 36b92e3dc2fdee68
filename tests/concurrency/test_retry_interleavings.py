"""Step the end of a run that is retried through interleavings with whatever else may touch its routine."""

from collections.abc import AsyncGenerator
from datetime import datetime, timedelta

import pytest

from routines_core.db import Connection, runs, trajectories
from routines_core.db.runs import Checkpoint, Claim
from support.rows import Database, make_key, make_routine, make_task, value
from support.stepping import running, session, tick_at, until_blocked

RETRIES = "SELECT array_agg(status) FROM routines.trajectories WHERE trigger = 'retry'"
RUN_NOW = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                                init_params)
             SELECT collection_id, task_id, 1, id, 'run-now', '{}' FROM routines.routines"""
PAUSE = "UPDATE routines.routines SET paused = true"
DELETE = "DELETE FROM routines.routines"
TOUCH = "UPDATE routines.routines SET next_run_at = next_run_at"


@pytest.fixture
async def run(connection: Connection) -> Claim:
    """Claim the run of an hourly routine that is retried once, and let its next slot be due in an hour."""
    routine = await make_routine(connection, await make_task(connection), datetime.now().astimezone(), hourly=True)
    await connection.execute('UPDATE routines.routines SET retry = \'{"max_attempts": 2, "backoff": [60]}\'')
    assert (await tick_at(connection, await now(connection))).fired == 1
    await connection.execute(
        "UPDATE routines.routines SET next_run_at = now() + interval '1 hour' WHERE id = %s", [routine]
    )
    [claimed] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=600, deadline_seconds=600)
    return claimed


@pytest.fixture
async def worker(database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "worker") as opened:
        yield opened


@pytest.fixture
async def other(database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "other") as opened:
        yield opened


async def now(connection: Connection, minutes: int = 0) -> datetime:
    found = await value(connection, "SELECT now()")
    assert isinstance(found, datetime)
    return found + timedelta(minutes=minutes)


async def fail(connection: Connection, run: Claim) -> bool:
    end = Checkpoint(run.id, run.fence, status="failed", error="no")
    return bool(await runs.write(connection, [end], lease_seconds=60))


@pytest.mark.parametrize(("change", "retries"), [(PAUSE, None), (DELETE, None), (TOUCH, ["running"])])
async def test_the_end_of_a_run_waits_for_a_change_of_its_routine_and_follows_it(
    connection: Connection, run: Claim, worker: Connection, other: Connection, change: str, retries: object
) -> None:
    await other.execute("BEGIN")
    await other.execute(change.encode())
    async with running(lambda: fail(worker, run)) as ending:
        await until_blocked(connection, worker)
        await other.execute("COMMIT")
        assert await ending
    assert await value(connection, RETRIES) == retries


@pytest.mark.parametrize("change", [PAUSE, DELETE])
async def test_a_pause_or_a_deletion_waits_for_the_end_of_a_run_and_cancels_its_retry(
    connection: Connection, run: Claim, worker: Connection, other: Connection, change: str
) -> None:
    await worker.execute("BEGIN")
    assert await fail(worker, run)
    async with running(lambda: other.execute(change.encode())) as changing:
        await until_blocked(connection, other)
        await worker.execute("COMMIT")
        await changing
    assert await value(connection, RETRIES) == ["cancelled"]


async def test_a_tick_never_sees_the_routine_between_a_run_and_its_retry(
    connection: Connection, run: Claim, worker: Connection
) -> None:
    slot = await now(connection, minutes=61)
    await worker.execute("BEGIN")
    assert await fail(worker, run)
    assert (await tick_at(connection, slot)).claimed == 0
    await worker.execute("COMMIT")
    assert (await tick_at(connection, slot)).overlapped == 1
    retry = await value(connection, "SELECT id FROM routines.trajectories WHERE trigger = 'retry'")
    assert await value(connection, "SELECT blocking_trajectory_id FROM routines.skips") == retry


async def test_a_run_now_waits_for_the_end_of_a_run_and_starts_beside_its_retry(
    connection: Connection, run: Claim, worker: Connection, other: Connection
) -> None:
    await worker.execute("BEGIN")
    assert await fail(worker, run)
    async with running(lambda: other.execute(RUN_NOW)) as starting:
        await until_blocked(connection, other)
        await worker.execute("COMMIT")
        await starting
    active = "SELECT array_agg(trigger ORDER BY id) FROM routines.trajectories WHERE ended_at IS NULL"
    assert await value(connection, active) == ["retry", "run-now"]


async def test_a_cancel_that_comes_before_the_end_leaves_nothing_to_retry(
    connection: Connection, run: Claim, worker: Connection, other: Connection
) -> None:
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    await other.execute("BEGIN")
    await trajectories.set_statuses(other, {run.id: "cancelled"}, key_id=key_id, task="echo")
    assert not await fail(worker, run)
    await other.execute("COMMIT")
    assert not await fail(worker, run)
    assert await value(connection, RETRIES) is None


async def test_a_pause_waits_for_a_worker_that_begins_the_retry_and_leaves_it_alone(
    connection: Connection, run: Claim, worker: Connection, other: Connection
) -> None:
    assert await fail(connection, run)
    await connection.execute("UPDATE routines.trajectories SET lease_expires_at = now() WHERE trigger = 'retry'")
    await runs.reap(connection)
    await worker.execute("BEGIN")
    assert await runs.claim(worker, capacity=1, worker="w", lease_seconds=600, deadline_seconds=600)
    async with running(lambda: other.execute(PAUSE.encode())) as pausing:
        await until_blocked(connection, other)
        await worker.execute("COMMIT")
        await pausing
    assert await value(connection, RETRIES) == ["running"]
    assert await value(connection, "SELECT worker FROM routines.trajectories WHERE trigger = 'retry'") == "w"


async def test_a_pause_after_failures_waits_for_a_tick_that_has_locked_the_routine(
    connection: Connection, run: Claim, worker: Connection, other: Connection
) -> None:
    await connection.execute("UPDATE routines.routines SET retry = NULL, pause_after_failures = 1")
    await connection.execute("UPDATE routines.routines SET counts_failures_since = NULL")
    await other.execute("BEGIN")
    assert (await tick_at(other, await now(connection, minutes=61))).overlapped == 1
    async with running(lambda: fail(worker, run)) as ending:
        await until_blocked(connection, worker)
        await other.execute("COMMIT")
        assert await ending
    assert await value(connection, "SELECT paused FROM routines.routines") is True
    assert await value(connection, "SELECT count(*) FROM routines.skips WHERE reason = 'overlap'") == 1


async def test_a_tick_passes_over_a_routine_that_begins_to_back_off_and_then_skips_its_slot(
    connection: Connection, run: Claim, worker: Connection
) -> None:
    await connection.execute(
        "UPDATE routines.routines SET retry = NULL, pause_after_failures = 1, after_failures = 'backoff'"
    )
    await connection.execute("UPDATE routines.routines SET counts_failures_since = NULL")
    slot = await now(connection, minutes=61)
    await worker.execute("BEGIN")
    assert await fail(worker, run)
    assert (await tick_at(connection, slot)).claimed == 0
    await worker.execute("COMMIT")
    done = await tick_at(connection, slot)
    assert (done.fired, done.backed_off) == (0, 1)
