"""A ticker that starts, or was held up, records that no ticker ran while routines were due."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import routines_ticker.ticker as module
from routines_core.db import Connection, connect
from routines_core.db.tick import note_outage, tick
from routines_core.settings import Settings
from routines_ticker.ticker import Ticker
from support.rows import CATCHUP, Database, at, make_routine, make_task, value
from support.stepping import session, until

MONDAY = at("2026-05-04 09:00")
MINUTE = timedelta(minutes=1)


async def make(connection: Connection) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)


async def outages(connection: Connection) -> list[Any]:
    cursor = await connection.execute("SELECT began_at, ended_at FROM routines.ticker_outages ORDER BY id")
    return await cursor.fetchall()


async def test_an_outage_lasts_from_the_oldest_slot_until_a_ticker_is_back(connection: Connection) -> None:
    await make(connection)
    assert await note_outage(connection, now=MONDAY + 26 * MINUTE) == MONDAY
    assert await outages(connection) == [(MONDAY, MONDAY + 26 * MINUTE)]


@pytest.mark.parametrize("minutes", [-5, 0, 1])
async def test_nothing_is_recorded_while_nothing_has_been_due_for_more_than_a_minute(
    connection: Connection, minutes: int
) -> None:
    await make(connection)
    assert await note_outage(connection, now=MONDAY + minutes * MINUTE) is None
    assert await outages(connection) == []


async def test_an_outage_begins_with_the_last_outcome_of_a_tick(connection: Connection) -> None:
    task = await make_task(connection)
    for name in ("one", "two"):
        await make_routine(connection, task, MONDAY, name=name)
    await tick(connection, batch_size=1, now=MONDAY + 5 * MINUTE, **CATCHUP)
    assert await note_outage(connection, now=MONDAY + 5.5 * MINUTE) is None, "a ticker was there just now"
    assert await note_outage(connection, now=MONDAY + 9 * MINUTE) == MONDAY + 5 * MINUTE


async def test_what_other_programs_record_is_no_sign_of_a_ticker(connection: Connection) -> None:
    await make(connection)
    await connection.execute(
        """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason, detail,
                                       recorded_at)
           SELECT 1, 9, at, at, reason, 'by a person', '2026-05-04 09:20Z'
           FROM (VALUES ('paused', '2026-05-01Z'::timestamptz), ('missed', '2026-05-02Z')) AS other (reason, at)"""
    )
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params, created_at)
           VALUES (1, 1, 1, 'api', '{}', '2026-05-04 09:20Z')"""
    )
    assert await note_outage(connection, now=MONDAY + 26 * MINUTE) == MONDAY


async def test_among_many_runs_of_the_api_an_outage_is_claimed_only_as_far_back_as_was_read(
    connection: Connection,
) -> None:
    await make(connection)
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params, created_at)
           SELECT 1, 1, 1, 'api', '{}', '2026-05-04 09:10Z'::timestamptz + n * interval '1 s'
           FROM generate_series(1, 1000) AS n"""
    )
    assert await note_outage(connection, now=MONDAY + 40 * MINUTE) == MONDAY + 10 * MINUTE + timedelta(seconds=1)


async def test_a_pause_that_nobody_ended_is_a_sign_of_an_outage(connection: Connection) -> None:
    await make(connection)
    await connection.execute("UPDATE routines.routines SET paused = true, paused_until = now() + interval '1 hour'")
    end = await value(connection, "SELECT paused_until FROM routines.routines")
    assert await note_outage(connection, now=end + 2 * MINUTE) == end  # type: ignore[operator]


async def test_two_tickers_that_start_together_record_one_outage(connection: Connection) -> None:
    await make(connection)
    await note_outage(connection, now=MONDAY + 26 * MINUTE)
    assert await note_outage(connection, now=MONDAY + 26.1 * MINUTE) is None
    assert len(await outages(connection)) == 1


async def test_a_routine_that_somebody_has_locked_is_no_sign_of_an_outage(
    connection: Connection, database: Database
) -> None:
    await make(connection)
    async with session(database, "person") as person, person.transaction():
        await person.execute("SELECT FROM routines.routines FOR UPDATE")
        assert await note_outage(connection, now=MONDAY + 26 * MINUTE) is None


async def test_only_the_newest_outages_are_kept(connection: Connection) -> None:
    await make(connection)
    await connection.execute(
        """INSERT INTO routines.ticker_outages (began_at, ended_at)
           SELECT at, at + interval '2 min' FROM generate_series(1, 10000) AS n,
                LATERAL (SELECT '2000-01-01Z'::timestamptz + n * interval '1 hour' AS at) AS times"""
    )
    await note_outage(connection, now=MONDAY + 26 * MINUTE)
    assert await value(connection, "SELECT count(*) FROM routines.ticker_outages") == 10_000
    assert await value(connection, "SELECT max(began_at) FROM routines.ticker_outages") == MONDAY


async def running(database: Database, stop: asyncio.Event) -> None:
    async with connect(database.url, "ticker", role="routines_ticker") as own:
        await Ticker(Settings(), stop).run(own)


async def test_a_ticker_records_the_outage_before_its_first_tick(connection: Connection, database: Database) -> None:
    await make(connection)
    await connection.execute("UPDATE routines.routines SET next_run_at = now() - interval '26 minutes'")
    stop = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(running(database, stop))
        await until(connection, "SELECT last_run_at IS NOT NULL FROM routines.routines")
        stop.set()
    sentence = await value(
        connection, "SELECT sentence FROM routines.explain_time(1, (SELECT scheduled_for FROM routines.trajectories))"
    )
    assert "It was 26 minutes late: no ticker ran from " in str(sentence)


@pytest.mark.parametrize(("held_up_seconds", "recorded"), [(61, 1), (1, 0)])
async def test_a_ticker_that_was_held_up_in_its_sleep_records_the_outage(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, held_up_seconds: int, recorded: int
) -> None:
    await make(connection)
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '500 ms'")
    stop, wall = asyncio.Event(), module.time.time

    async def slept(*_: object) -> None:
        """Sleep until the slot has long been due, as a stopped process does."""
        await connection.execute("UPDATE routines.routines SET next_run_at = now() - interval '5 minutes'")
        monkeypatch.setattr(module.time, "time", lambda: wall() + held_up_seconds)
        monkeypatch.setattr(module, "sleep_or_stop", woken)

    async def woken(*_: object) -> None:
        stop.set()

    monkeypatch.setattr(module, "sleep_or_stop", slept)
    ticker = Ticker(Settings(), stop)
    ticker.snapshots.takes_seconds = 60  # so that it does not look for snapshots
    await ticker.run(connection)
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 1
    assert len(await outages(connection)) == recorded
