"""The ticker's loop: when it wakes, its warnings, and how it alternates between collections."""

import asyncio

import pytest
from structlog.testing import capture_logs

import routines_ticker.ticker as module
from routines_core.db import Connection, connect
from routines_core.db.tick import seconds_until_due
from routines_core.settings import Settings
from routines_ticker.batches import Batches
from routines_ticker.snapshots import SnapshotWatch
from routines_ticker.ticker import Ticker
from support.rows import Database, at, make_routine, make_task, value


async def test_a_ticker_sleeps_exactly_until_the_slot(connection: Connection) -> None:
    await make_routine(connection, await make_task(connection), at("2026-05-04 09:00"))
    await connection.execute("UPDATE routines.routines SET next_run_at = date_trunc('second', now()) + interval '1 s'")
    sleep = await seconds_until_due(connection)
    assert sleep.ends_at_event is (sleep.seconds <= 1)
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '1 hour'")
    sleep = await seconds_until_due(connection)
    assert (sleep.ends_at_event, 0 < sleep.seconds <= 1) == (False, True)
    await connection.execute("UPDATE routines.routines SET next_run_at = now() - interval '1 hour'")
    assert (await seconds_until_due(connection)).seconds == 0


async def test_a_slot_that_comes_while_the_ticker_sleeps_fires_after_its_time_and_not_before(
    connection: Connection, database: Database
) -> None:
    await make_routine(connection, await make_task(connection), at("2026-05-04 09:00"))
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '1500 ms'")
    stop = asyncio.Event()

    async def one_ticker() -> None:
        async with connect(database.url, "ticker") as own:
            await Ticker(Settings(), stop).run(own)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(one_ticker())
        while not await value(connection, "SELECT count(*) FROM routines.trajectories"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # until the ticker is done, within the timeout above
        stop.set()
    assert await value(connection, "SELECT created_at >= scheduled_for FROM routines.trajectories") is True


async def test_a_slot_fires_on_time_while_another_due_routine_is_locked(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", (20.0, 20.0))
    task = await make_task(connection)
    held = await make_routine(connection, task, at("2026-05-04 09:00"), name="held")
    free = await make_routine(connection, task, at("2026-05-04 09:00"), name="free")
    await connection.execute(
        "UPDATE routines.routines SET next_run_at = now() + interval '1500 ms' WHERE id = %s", [free]
    )
    stop = asyncio.Event()

    async def one_ticker() -> None:
        async with connect(database.url, "ticker") as own:
            await Ticker(Settings(), stop).run(own)

    async with connect(database.url, "psql", idle_in_transaction_session_timeout="0") as psql, psql.transaction():
        await psql.execute("SELECT FROM routines.routines WHERE id = %s FOR UPDATE", [held])
        async with asyncio.timeout(15), asyncio.TaskGroup() as group:
            group.create_task(one_ticker())
            while not await value(connection, "SELECT count(*) FROM routines.trajectories"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # until the ticker is done, within the timeout above
            stop.set()
    assert await value(connection, "SELECT triggered_by_routine_id FROM routines.trajectories") == free


@pytest.fixture
def turns_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(module, "TURN_COST_FACTOR", 0)


async def test_while_a_backlog_lasts_the_collections_are_served_in_turn(
    connection: Connection, turns_at_once: None
) -> None:
    class Watched(Batches):
        in_turns = 0

        async def tick_in_turns(self) -> int:
            self.in_turns += 1
            return await super().tick_in_turns()

    task = await make_task(connection)
    for n in range(6):
        await make_routine(connection, task, at("2026-05-04 09:00"), name=f"r{n}")
    settings = Settings(tick_batch_size=2, catchup_seconds=0)
    batches = Watched(settings, connection)
    assert await Ticker(settings, asyncio.Event()).drain(batches) == 6
    assert batches.in_turns > 0


async def test_a_warning_names_the_holder_of_an_old_snapshot_at_most_once_a_minute(
    connection: Connection, database: Database
) -> None:
    watch = SnapshotWatch(old_seconds=0)
    async with connect(database.url, "somebody") as other, other.transaction():
        await other.execute("SELECT pg_current_xact_id()")
        with capture_logs() as logs:
            await watch.look(connection)
            await watch.look(connection)
    [warning] = logs
    assert warning["log_level"] == "warning"
    assert "somebody" in warning["holder"]


async def test_an_old_snapshot_is_also_reported_during_a_backlog(
    connection: Connection, database: Database, turns_at_once: None
) -> None:
    task = await make_task(connection)
    for n in range(4):
        await make_routine(connection, task, at("2026-05-04 09:00"), name=f"r{n}")
    settings = Settings(tick_batch_size=2, catchup_seconds=0)
    ticker = Ticker(settings, asyncio.Event(), SnapshotWatch(old_seconds=0))
    async with connect(database.url, "somebody") as other, other.transaction():
        await other.execute("SELECT pg_current_xact_id()")
        with capture_logs() as logs:
            assert await ticker.drain(Batches(settings, connection)) == 4
    assert [log["holder"].partition(", ")[2] for log in logs if log["log_level"] == "warning"] == ["somebody"]


async def test_a_young_snapshot_causes_no_warning(connection: Connection, database: Database) -> None:
    async with connect(database.url, "somebody") as other, other.transaction():
        await other.execute("SELECT pg_current_xact_id()")
        with capture_logs() as logs:
            await SnapshotWatch().look(connection)
    assert logs == []
