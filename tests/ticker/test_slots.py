"""Runs take parameters from the slot that they are fired for."""

from datetime import datetime, timedelta

import pytest

from routines_core.db import Connection, runs
from routines_core.db.tick import Tick, tick
from support.rows import CATCHUP, at, ledger, make_routine, make_task, value

MONDAY = at("2026-05-04 09:00")
TAKE = "UPDATE routines.routines SET init_params_from_slot = %s"
FINISH = "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"


@pytest.fixture
async def routine(connection: Connection) -> int:
    """A daily routine that takes `text` from the date of its slot, and `size` from the last success."""
    routine = await make_routine(connection, await make_task(connection), MONDAY)
    await connection.execute(TAKE, ['{"text": "slot.date", "size": "slot.last_success"}'])
    return routine


async def fired(connection: Connection, now: datetime, **limits: int) -> Tick:
    return await tick(connection, batch_size=10, now=now, **CATCHUP, **limits)


async def test_a_late_fire_takes_the_values_of_its_slot(connection: Connection, routine: int) -> None:
    await fired(connection, MONDAY + timedelta(hours=3))
    # There was no success before, so that the task's own value stands.
    assert await value(connection, "SELECT init_params FROM routines.trajectories") == {"text": "2026-05-04", "size": 1}
    await connection.execute(FINISH)
    await fired(connection, MONDAY + timedelta(days=1))
    newest = "SELECT init_params FROM routines.trajectories ORDER BY id DESC LIMIT 1"
    assert await value(connection, newest) == {"text": "2026-05-05", "size": "2026-05-04T09:00:00Z"}
    assert routine


async def test_the_slot_wins_over_an_override(connection: Connection, routine: int) -> None:
    await connection.execute(
        "UPDATE routines.routines SET init_params_overrides = %s WHERE id = %s",
        ['{"text": "override", "size": 50}', routine],
    )
    await fired(connection, MONDAY)
    assert await value(connection, "SELECT init_params FROM routines.trajectories") == {
        "text": "2026-05-04",
        "size": 50,
    }


async def test_the_steps_of_the_run_see_the_values_that_it_took(connection: Connection, routine: int) -> None:
    await fired(connection, MONDAY)
    await connection.execute("UPDATE routines.routines SET hour_utc = 17 WHERE id = %s", [routine])
    [run] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600)
    seen = await runs.slot(connection, run)
    assert seen is not None
    assert (seen["date"], seen["previous"]) == ("2026-05-04", "2026-05-03T09:00:00Z")


async def test_the_date_is_that_of_the_cadences_time_zone(connection: Connection, routine: int) -> None:
    await connection.execute(
        """UPDATE routines.routines SET cadence_type = 'cron', hour_utc = NULL, expression = '"30 0 * * *"',
                                        timezone = 'Europe/Berlin' WHERE id = %s""",
        [routine],
    )
    await connection.execute("UPDATE routines.routines SET next_run_at = %s", [at("2126-05-03 22:30")])
    await fired(connection, at("2126-05-03 22:30"))
    assert await value(connection, "SELECT init_params ->> 'text' FROM routines.trajectories") == "2126-05-04"


async def test_a_routine_without_them_stores_nothing_of_its_slot(connection: Connection, routine: int) -> None:
    await connection.execute(TAKE, [None])
    await fired(connection, MONDAY)
    assert await value(connection, "SELECT slot_values IS NULL FROM routines.trajectories")
    assert routine


async def test_the_limit_of_init_params_counts_what_comes_from_the_slot(connection: Connection, routine: int) -> None:
    size = await value(connection, "SELECT pg_column_size(init_params) FROM routines.task_versions")
    assert isinstance(size, int)
    await fired(connection, MONDAY, max_init_params_bytes=size)
    assert await ledger(connection, routine) == [(MONDAY, 1, "skipped", "failed_to_start")]
    await fired(connection, MONDAY + timedelta(days=1), max_init_params_bytes=size + 3 * 60)
    stored = await value(connection, "SELECT pg_column_size(init_params) FROM routines.trajectories")
    assert isinstance(stored, int)
    assert size < stored <= size + 3 * 60
