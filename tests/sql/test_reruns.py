"""The chain of attempts at a run of a routine, to which reruns belong, and what the schedule makes of them."""

from datetime import UTC, datetime, timedelta

import pytest
from psycopg.errors import CheckViolation, ForeignKeyViolation

from routines_core.db import Connection
from support.rows import make_routine, make_task, value
from support.stepping import tick_at

SLOT = datetime(2026, 5, 4, 9, tzinfo=UTC)
RERUN = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                              rerun_of, init_params)
           SELECT collection_id, task_id, task_version, triggered_by_routine_id, 'rerun', id, init_params
           FROM routines.trajectories WHERE id = %s RETURNING id"""
END = """UPDATE routines.trajectories SET status = %s, ended_at = now(), fence = fence + 1, error = 'no'
         WHERE id = %s"""
RETRY = """UPDATE routines.routines SET retry = '{"max_attempts": 2}', next_run_at = now() + interval '1 hour'"""
CHAIN = "SELECT array_agg(retried_by ORDER BY id) FROM routines.trajectories"
OUTCOME = """SELECT routines.status_of_slot(id, status, retried_by) FROM routines.trajectories
             WHERE scheduled_for IS NOT NULL ORDER BY scheduled_for DESC LIMIT 1"""


@pytest.fixture
async def routine(connection: Connection) -> int:
    """Create an hourly routine whose slot at 09:00 is next, and return its id."""
    return await make_routine(connection, await make_task(connection), SLOT, hourly=True)


async def fire(connection: Connection, hours: int = 0) -> int:
    assert (await tick_at(connection, SLOT + timedelta(hours=hours))).fired == 1
    return await newest(connection)


async def newest(connection: Connection) -> int:
    found = await value(connection, "SELECT max(id) FROM routines.trajectories")
    assert isinstance(found, int)
    return found


async def end(connection: Connection, run: int, status: str = "failed") -> None:
    await connection.execute(END, [status, run])


async def rerun(connection: Connection, run: int) -> int:
    made = await value(connection, RERUN, run)
    assert isinstance(made, int)
    return made


async def failed(connection: Connection) -> int:
    run = await fire(connection)
    await end(connection, run)
    return run


async def test_the_newest_rerun_is_the_outcome_of_the_slot(connection: Connection, routine: int) -> None:
    first = await failed(connection)
    for status in ("completed", "failed", "cancelled"):
        again = await rerun(connection, first)
        assert await value(connection, OUTCOME) == "pending"
        await end(connection, again, status)
        assert await value(connection, OUTCOME) == status


async def test_the_chain_has_the_retries_and_the_newest_rerun_alone(connection: Connection, routine: int) -> None:
    first = await fire(connection)
    await connection.execute(RETRY)
    await end(connection, first)
    retry = await newest(connection)
    await end(connection, retry)
    one = await rerun(connection, first)
    await end(connection, one)
    two = await rerun(connection, one)
    await end(connection, two)
    three = await rerun(connection, retry)
    assert await value(connection, CHAIN) == [retry, three, two, three, None]
    firsts = "SELECT array_agg(DISTINCT retry_of) FROM routines.trajectories WHERE trigger = 'rerun'"
    assert await value(connection, firsts) == [first]
    # Middle ones may be deleted, as retention does, which leaves the outcome as it is.
    await end(connection, three, "completed")
    await connection.execute("DELETE FROM routines.trajectories WHERE id IN (%s, %s)", [one, two])
    assert await value(connection, OUTCOME) == "completed"


async def test_a_run_that_no_routine_started_has_no_chain(connection: Connection, routine: int) -> None:
    await connection.execute(
        "INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params) "
        "SELECT collection_id, id, 1, 'api', '{}' FROM routines.tasks"
    )
    run = await newest(connection)
    await end(connection, run)
    await rerun(connection, run)
    await rerun(connection, run)
    linked = "SELECT count(*) FROM routines.trajectories WHERE num_nonnulls(retried_by, retry_of) > 0"
    assert await value(connection, linked) == 0


async def test_an_active_attempt_refuses_another_one(connection: Connection, routine: int) -> None:
    first = await fire(connection)
    with pytest.raises(CheckViolation, match=f"run {first} is active: cancel it first"):
        await rerun(connection, first)
    await end(connection, first)
    again = await rerun(connection, first)
    for run in (first, again):
        with pytest.raises(CheckViolation, match=f"run {again}.* is active: cancel it first"):
            await rerun(connection, run)


@pytest.mark.parametrize(
    ("task", "routine_id"),
    [("task_id + 1", "triggered_by_routine_id"), ("task_id", "triggered_by_routine_id + 1"), ("task_id", "NULL")],
)
async def test_a_rerun_belongs_to_the_task_and_routine_of_its_run(
    connection: Connection, routine: int, task: str, routine_id: str
) -> None:
    first = await failed(connection)
    text = f"""INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                                  trigger, rerun_of, init_params)
               SELECT collection_id, {task}, task_version, {routine_id}, 'rerun', id, '{{}}'
               FROM routines.trajectories"""
    with pytest.raises(ForeignKeyViolation, match=f"there is no run {first} of this task and routine"):
        await connection.execute(text.encode())


async def test_a_rerun_names_the_run_that_it_repeats(connection: Connection, routine: int) -> None:
    with pytest.raises(CheckViolation, match="trajectories_schedule_has_slot"):
        await connection.execute(
            "INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params) "
            "SELECT collection_id, id, 1, 'rerun', '{}' FROM routines.tasks"
        )


async def test_an_active_rerun_holds_back_the_schedule_as_a_run_now_does(connection: Connection, routine: int) -> None:
    again = await rerun(connection, await failed(connection))
    done = await tick_at(connection, SLOT + timedelta(hours=1))
    assert (done.fired, done.overlapped) == (0, 1)
    assert await value(connection, "SELECT blocking_trajectory_id FROM routines.skips") == again
    await end(connection, again, "completed")
    assert (await tick_at(connection, SLOT + timedelta(hours=2))).fired == 1


async def test_a_waiting_slot_begins_at_the_end_of_a_rerun(connection: Connection, routine: int) -> None:
    await connection.execute("UPDATE routines.routines SET overlap_policy = 'queue_one'")
    again = await rerun(connection, await failed(connection))
    waiting = await fire(connection, 1)
    status = "SELECT status FROM routines.trajectories WHERE id = %s"
    assert await value(connection, status, waiting) == "running"
    await end(connection, again, "completed")
    assert await value(connection, status, waiting) == "pending"


async def test_a_failed_rerun_is_not_retried_and_stops_no_routine(connection: Connection, routine: int) -> None:
    first = await fire(connection)
    await connection.execute(RETRY)
    await connection.execute("UPDATE routines.routines SET pause_after_failures = 2")
    await end(connection, first)
    await end(connection, await newest(connection))
    await end(connection, await rerun(connection, first))
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 3
    assert await value(connection, "SELECT paused FROM routines.routines") is False


async def test_a_slot_that_a_rerun_completed_ends_the_streak_of_failures(connection: Connection, routine: int) -> None:
    await connection.execute("UPDATE routines.routines SET pause_after_failures = 2")
    await connection.execute("UPDATE routines.routines SET counts_failures_since = NULL")
    await end(connection, await rerun(connection, await failed(connection)), "completed")
    await end(connection, await fire(connection, 1))
    assert await value(connection, "SELECT paused FROM routines.routines") is False
    await end(connection, await fire(connection, 2))
    assert await value(connection, "SELECT paused FROM routines.routines") is True


async def test_a_routine_needs_no_attention_once_its_run_now_was_rerun(connection: Connection, routine: int) -> None:
    await connection.execute("UPDATE routines.routines SET cadence_type = 'manual'")
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                              init_params)
           SELECT collection_id, task_id, 1, id, 'run-now', '{}' FROM routines.routines"""
    )
    run = await newest(connection)
    await end(connection, run)
    state = "SELECT needs_attention, last_outcome FROM routines.routine_status"
    assert await (await connection.execute(state)).fetchone() == (True, "failed")
    await end(connection, await rerun(connection, run), "completed")
    assert await (await connection.execute(state)).fetchone() == (False, "completed")
