"""The tick decides the outcome of each due slot."""

import asyncio

import pytest

from routines_core.db import Connection, connect
from routines_core.db.tick import tick
from routines_core.settings import Settings
from routines_ticker.ticker import Ticker
from support.rows import CATCHUP, Database, at, ledger, make_routine, make_task, value


async def test_a_due_routine_fires_once_and_advances_to_its_next_slot(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), at("2026-05-04 09:00"))
    now = at("2026-05-04 09:00:01")
    first = await tick(connection, batch_size=10, now=now, **CATCHUP)
    second = await tick(connection, batch_size=10, now=now, **CATCHUP)
    assert (first.claimed, first.fired, first.max_delay_seconds) == (1, 1, 1.0)
    assert second.claimed == 0
    assert await ledger(connection, routine) == [(at("2026-05-04 09:00"), 1, "started", None)]
    assert await value(connection, "SELECT next_run_at FROM routines.routines") == at("2026-05-05 09:00")
    assert await value(connection, "SELECT last_run_at FROM routines.routines") == now


async def test_nothing_fires_before_its_slot(connection: Connection) -> None:
    await make_routine(connection, await make_task(connection), at("2026-05-04 09:00"))
    early = await tick(connection, batch_size=10, now=at("2026-05-04 08:59:59.999999"), **CATCHUP)
    assert early.claimed == 0


async def test_overrides_are_merged_over_the_tasks_current_init_params_at_fire_time(connection: Connection) -> None:
    task = await make_task(connection)
    routine = await make_routine(connection, task, at("2026-05-04 09:00"))
    await connection.execute(
        "UPDATE routines.routines SET init_params_overrides = '{\"size\": 50}' WHERE id = %s", [routine]
    )
    await connection.execute("UPDATE routines.routines SET next_run_at = '2026-05-04 09:00Z'")
    await connection.execute(
        """INSERT INTO routines.task_versions (task_id, version, workflow)
           VALUES (%s, 2, '{"init_params": {"size": 1, "new": true}}')""",
        [task],
    )
    await connection.execute("UPDATE routines.tasks SET version = 2")
    await tick(connection, batch_size=10, now=at("2026-05-04 09:00"), **CATCHUP)
    assert await value(connection, "SELECT init_params FROM routines.trajectories") == {
        "size": 50,
        "new": True,
    }
    assert await value(connection, "SELECT task_version FROM routines.trajectories") == 2


async def test_a_slot_that_comes_while_a_scheduled_run_is_active_is_skipped_and_names_that_run(
    connection: Connection,
) -> None:
    routine = await make_routine(connection, await make_task(connection), at("2026-05-04 09:00"))
    await tick(connection, batch_size=10, now=at("2026-05-04 09:00"), **CATCHUP)
    result = await tick(connection, batch_size=10, now=at("2026-05-05 09:00"), **CATCHUP)
    assert (result.fired, result.overlapped) == (0, 1)
    assert (await ledger(connection, routine))[1] == (at("2026-05-05 09:00"), 1, "skipped", "overlap")
    blocked_by = await value(connection, "SELECT blocking_trajectory_id FROM routines.skips")
    assert blocked_by == await value(connection, "SELECT id FROM routines.trajectories")


async def test_a_run_now_run_in_progress_holds_back_the_schedule(connection: Connection) -> None:
    task = await make_task(connection)
    routine = await make_routine(connection, task, at("2026-05-04 09:00"))
    await connection.execute(
        """INSERT INTO routines.trajectories
               (collection_id, task_id, task_version, triggered_by_routine_id, trigger, init_params)
           SELECT collection_id, task_id, 1, id, 'run-now', '{}' FROM routines.routines"""
    )
    result = await tick(connection, batch_size=10, now=at("2026-05-04 09:00"), **CATCHUP)
    assert (result.fired, result.overlapped) == (0, 1)
    assert await ledger(connection, routine) == [(at("2026-05-04 09:00"), 1, "skipped", "overlap")]


async def test_missed_slots_become_one_catch_up_fire_and_one_span(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), at("2026-05-01 09:00"))
    result = await tick(connection, batch_size=10, now=at("2026-05-31 10:00"), **CATCHUP)
    assert (result.fired, result.missed) == (1, 30)
    assert await ledger(connection, routine) == [
        (at("2026-05-01 09:00"), 30, "skipped", "missed"),
        (at("2026-05-31 09:00"), 1, "started", None),
    ]


async def test_slots_older_than_the_catch_up_window_are_all_missed(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), at("2026-05-01 09:00"))
    result = await tick(connection, batch_size=10, now=at("2026-05-31 21:00:01"), **CATCHUP)
    assert (result.fired, result.missed) == (0, 31)
    assert await ledger(connection, routine) == [(at("2026-05-01 09:00"), 31, "skipped", "missed")]
    assert await value(connection, "SELECT next_run_at FROM routines.routines") == at("2026-06-01 09:00")


async def test_a_slot_that_was_fired_before_is_not_fired_again(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), at("2026-05-04 09:00"))
    await tick(connection, batch_size=10, now=at("2026-05-04 09:00"), **CATCHUP)
    await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    for settled in ("settled_until", "NULL"):  # the ledger's guard, then only that of trajectories_slot_key
        await connection.execute(
            f"UPDATE routines.routines SET next_run_at = '2026-05-04 09:00Z', settled_until = {settled}"
        )
        result = await tick(connection, batch_size=10, now=at("2026-05-04 09:01"), **CATCHUP)
        assert (result.claimed, result.fired) == (1, 0)
    assert len(await ledger(connection, routine)) == 1


async def test_a_slot_that_was_fired_before_holds_up_no_other_routine_of_its_batch(connection: Connection) -> None:
    task = await make_task(connection)
    fired = await make_routine(connection, task, at("2026-05-04 09:00"))
    await tick(connection, batch_size=10, now=at("2026-05-04 09:00"), **CATCHUP)
    await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    await connection.execute("UPDATE routines.routines SET next_run_at = '2026-05-04 09:00Z', settled_until = NULL")
    others = [await make_routine(connection, task, at("2026-05-04 09:00"), name=f"other-{n}") for n in range(3)]
    result = await tick(connection, batch_size=10, now=at("2026-05-04 09:01"), **CATCHUP)
    assert (result.claimed, result.fired, result.overlapped) == (4, 3, 0)
    for routine in (fired, *others):
        assert await ledger(connection, routine) == [(at("2026-05-04 09:00"), 1, "started", None)]
    again = await tick(connection, batch_size=10, now=at("2026-05-04 09:01"), **CATCHUP)
    assert again.claimed == 0


INSERT_RUN = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                                   scheduled_for, trigger, init_params, status, ended_at)
                SELECT collection_id, task_id, 1, id, '2026-05-04 09:00Z', 'schedule', '{}', %(status)s::text,
                       CASE %(status)s WHEN 'completed' THEN now() END
                FROM routines.routines WHERE id = %(routine)s"""


@pytest.mark.parametrize("status", ["pending", "completed"])
@pytest.mark.parametrize("now", ["2026-05-04 09:00", "2026-05-05 08:00"], ids=["on time", "late"])
async def test_a_run_that_a_person_inserted_for_a_slot_is_its_only_outcome(
    connection: Connection, status: str, now: str
) -> None:
    routine = await make_routine(connection, await make_task(connection), at("2026-05-03 09:00"))
    await tick(connection, batch_size=10, now=at("2026-05-03 09:00"), **CATCHUP)
    await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    await connection.execute(INSERT_RUN, {"routine": routine, "status": status})
    result = await tick(connection, batch_size=10, now=at(now), **CATCHUP)
    assert (result.claimed, result.advanced, result.fired, result.overlapped, result.missed) == (1, 1, 0, 0, 0)
    assert await ledger(connection, routine) == [
        (at("2026-05-03 09:00"), 1, "started", None),
        (at("2026-05-04 09:00"), 1, "started", None),
    ]
    assert await value(connection, "SELECT next_run_at FROM routines.routines") == at("2026-05-05 09:00")


async def test_paused_and_manual_routines_have_no_next_slot(connection: Connection) -> None:
    task = await make_task(connection)
    routine = await make_routine(connection, task, at("2026-05-04 09:00"))
    await connection.execute("UPDATE routines.routines SET paused = true")
    assert await value(connection, "SELECT next_run_at FROM routines.routines") is None
    await connection.execute("UPDATE routines.routines SET paused = false")
    resumed = await value(connection, "SELECT next_run_at > now() FROM routines.routines WHERE id = %s", routine)
    assert resumed is True


async def test_four_tickers_fire_five_hundred_due_routines_once_each(
    connection: Connection, database: Database
) -> None:
    task = await make_task(connection)
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
           SELECT collection_id, id, 'r' || n, 'hourly' FROM routines.tasks, generate_series(1, 500) n WHERE id = %s""",
        [task],
    )
    await connection.execute("UPDATE routines.routines SET next_run_at = date_trunc('hour', now())")
    stop = asyncio.Event()
    settings = Settings(tick_batch_size=25, hourly_catchup_seconds=7200)

    async def one_ticker() -> None:
        async with connect(database.url, "ticker") as own:
            await Ticker(settings, stop).run(own)

    async with asyncio.timeout(30), asyncio.TaskGroup() as tickers:
        for _ in range(4):
            tickers.create_task(one_ticker())
        while await value(connection, "SELECT count(*) FROM routines.routines WHERE next_run_at <= now()"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # until the tickers are done, within the timeout above
        stop.set()
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 500
    assert await value(connection, "SELECT count(DISTINCT triggered_by_routine_id) FROM routines.trajectories") == 500
