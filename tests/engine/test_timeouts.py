"""A run has the deadline that its routine set when it was created."""

import asyncio
from collections.abc import Generator

import msgspec
import pytest
from psycopg.errors import CheckViolation

from routines_core.db import Connection, runs
from routines_core.db.tick import tick
from routines_workflow.activity import ACTIVITIES, StepContext, activity
from support.rows import CATCHUP, Database, at, make_routine, value
from support.working import run_of, task_of, until_ended, workflow_of, working

MONDAY = at("2026-05-04 09:00")
ALLOWED = """SELECT extract(epoch FROM deadline_at - started_at)::integer FROM routines.trajectories WHERE id = %s"""


class Nothing(msgspec.Struct):
    """No parameters."""


@pytest.fixture(autouse=True)
def lingers() -> Generator[None]:
    """An activity that waits until it is cancelled."""

    @activity("Waits until it is cancelled.", Nothing)
    async def linger(given: Nothing, _: StepContext) -> Nothing:
        await asyncio.sleep(3600)
        return given

    yield
    del ACTIVITIES["linger"]


async def fired(connection: Connection, timeout_seconds: int | None) -> int:
    """Fire a routine with this timeout, which is changed afterwards. Returns the run."""
    task = await task_of(connection, "wait", workflow_of(("wait", {"activity": "linger"})))
    await make_routine(connection, task, MONDAY)
    await connection.execute("UPDATE routines.routines SET timeout_seconds = %s", [timeout_seconds])
    await tick(connection, batch_size=10, now=MONDAY, **CATCHUP)
    await connection.execute("UPDATE routines.routines SET timeout_seconds = 7")
    run = await value(connection, "SELECT id FROM routines.trajectories")
    assert isinstance(run, int)
    return run


async def test_a_run_fails_at_the_timeout_of_its_routine(database: Database, connection: Connection) -> None:
    run = await fired(connection, 1)
    async with working(database.url):
        ended = await until_ended(connection, run)
    assert ended == ("failed", "deadline exceeded: the run took longer than it may")


@pytest.mark.parametrize(("seconds", "allowed"), [(None, 600), (60, 60), (601, 600)])
async def test_the_deadline_is_the_smaller_of_the_routines_and_the_workers(
    connection: Connection, seconds: int | None, allowed: int
) -> None:
    run = await fired(connection, seconds)
    [claimed] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600)
    assert await value(connection, ALLOWED, run) == allowed
    assert allowed - 60 < claimed.seconds_left <= allowed


async def test_a_run_of_no_routine_has_the_deadline_of_the_worker(connection: Connection) -> None:
    run = await run_of(connection, await task_of(connection, "wait", workflow_of(("wait", {"activity": "linger"}))))
    await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600)
    assert await value(connection, ALLOWED, run) == 600


async def test_a_timeout_below_a_second_is_refused_at_psql_too(connection: Connection) -> None:
    await fired(connection, None)
    with pytest.raises(CheckViolation, match="timeout_seconds: must be at least 1"):
        await connection.execute("UPDATE routines.routines SET timeout_seconds = 0")
