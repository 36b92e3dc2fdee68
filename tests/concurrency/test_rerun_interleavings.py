"""Step reruns through interleavings with whatever else may touch their run or its routine."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest

from routines_core.db import Connection, retention, trajectories
from routines_core.db.trajectories import Rerun, RerunSpec
from routines_core.errors import ConflictError, NotFoundError
from support.rows import Database, make_key, make_routine, make_task, value
from support.stepping import running, session, tick_at, until_blocked

SLOT = datetime(2026, 5, 4, 9, tzinfo=UTC)
WORKFLOW = '{"steps": ["one", "two"], "step_configs": {}}'
RERUNS = "SELECT count(*) FROM routines.trajectories WHERE trigger = 'rerun'"
FAIL = "UPDATE routines.trajectories SET status = 'failed', ended_at = now(), error = 'no'"


@pytest.fixture
async def run(connection: Connection) -> int:
    """Let the run of a slot fail after its first step, and return it."""
    await make_key(connection, "my-org")
    await make_routine(connection, await make_task(connection, WORKFLOW), SLOT, hourly=True)
    assert (await tick_at(connection, SLOT)).fired == 1
    await connection.execute(FAIL)
    await connection.execute(
        """INSERT INTO routines.steps (trajectory_id, name, position, fence, status, activity, inputs, ended_at)
           SELECT id, 'one', 0, 1, 'completed', 'text_echo', '{}', now() FROM routines.trajectories"""
    )
    found = await value(connection, "SELECT id FROM routines.trajectories")
    assert isinstance(found, int)
    return found


@pytest.fixture
async def one(database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "one") as opened:
        yield opened


@pytest.fixture
async def other(database: Database) -> AsyncGenerator[Connection]:
    async with session(database, "other") as opened:
        yield opened


async def rerun(connection: Connection, run: int) -> Rerun:
    spec = RerunSpec(from_step="two")
    return await trajectories.rerun(connection, spec, key_id=1, task="echo", trajectory_id=run)


async def test_of_two_reruns_of_a_slots_run_at_once_the_second_is_refused(
    connection: Connection, run: int, one: Connection, other: Connection
) -> None:
    await one.execute("BEGIN")
    first = await rerun(one, run)
    async with running(lambda: rerun(other, run)) as second:
        await until_blocked(connection, other)
        await one.execute("COMMIT")
        with pytest.raises(ConflictError, match=f"Run {first.id}, a later attempt, is active"):
            await second
    assert await value(connection, RERUNS) == 1


async def test_a_rerun_that_is_rolled_back_leaves_its_place_to_another(
    connection: Connection, run: int, one: Connection, other: Connection
) -> None:
    await one.execute("BEGIN")
    await rerun(one, run)
    async with running(lambda: rerun(other, run)) as second:
        await until_blocked(connection, other)
        await one.execute("ROLLBACK")
        assert (await second).id is not None
    assert await value(connection, RERUNS) == 1


async def test_a_tick_leaves_a_routine_alone_that_a_rerun_holds_and_then_finds_the_rerun(
    connection: Connection, run: int, one: Connection
) -> None:
    await one.execute("BEGIN")
    await rerun(one, run)
    assert (await tick_at(connection, SLOT + timedelta(hours=1))).claimed == 0
    await one.execute("COMMIT")
    assert (await tick_at(connection, SLOT + timedelta(hours=1))).overlapped == 1


async def test_a_rerun_waits_for_a_tick_and_starts_beside_its_run(
    connection: Connection, run: int, one: Connection, other: Connection
) -> None:
    await one.execute("BEGIN")
    assert (await tick_at(one, SLOT + timedelta(hours=1))).fired == 1
    async with running(lambda: rerun(other, run)) as starting:
        await until_blocked(connection, other)
        await one.execute("COMMIT")
        assert (await starting).id is not None
    assert await value(connection, "SELECT count(*) FROM routines.trajectories WHERE ended_at IS NULL") == 2


async def test_a_rerun_whose_run_is_deleted_meanwhile_finds_none(
    connection: Connection, run: int, one: Connection, other: Connection
) -> None:
    await one.execute("BEGIN")
    await one.execute("DELETE FROM routines.trajectories")
    async with running(lambda: rerun(other, run)) as starting:
        await until_blocked(connection, other)
        await one.execute("COMMIT")
        with pytest.raises(NotFoundError):
            await starting
    assert await value(connection, RERUNS) == 0


async def test_retention_passes_over_a_run_that_a_rerun_is_about_to_keep(
    connection: Connection, run: int, one: Connection
) -> None:
    """The run has no routine any more, so nothing else keeps it."""
    await connection.execute("DELETE FROM routines.routines")
    later = datetime.now(UTC) + timedelta(days=1000)
    await one.execute("BEGIN")
    assert (await rerun(one, run)).id is not None
    assert (await retention.delete_page(connection, "trajectories", keep_seconds=1, now=later)).deleted == 0
    await one.execute("COMMIT")
    assert (await retention.delete_page(connection, "trajectories", keep_seconds=1, now=later)).deleted == 0
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 2


async def test_a_cancel_of_both_runs_and_a_rerun_wait_for_one_another_without_a_deadlock(
    connection: Connection, run: int, one: Connection, other: Connection
) -> None:
    """Both lock runs in the order of their ids."""
    first = await rerun(connection, run)
    assert first.id is not None
    await connection.execute(FAIL + " WHERE ended_at IS NULL")
    await one.execute("BEGIN")
    await one.execute("SELECT FROM routines.trajectories WHERE id = %s FOR UPDATE", [run])
    async with running(lambda: rerun(other, first.id or 0)) as starting:
        await until_blocked(connection, other)
        archived = {run: "archived", first.id: "archived"}
        assert len(await trajectories.set_statuses(one, archived, key_id=1, task="echo")) == 2
        await one.execute("COMMIT")
        assert (await starting).id is not None
