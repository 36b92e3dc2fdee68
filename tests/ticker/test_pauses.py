"""The ticker ends pauses: on time, in turns between collections, and whatever becomes of a single routine."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

import routines_ticker.ticker as module
from routines_core.db import Connection, connect
from routines_core.db.statements import Statement
from routines_core.db.tick import Resumed, Sleep, ended_pauses, resume, seconds_until_due
from routines_core.settings import Settings
from routines_ticker.batches import Batches
from routines_ticker.ticker import Ticker
from support.clocks import move_clock, moved_clock
from support.plans import buffers, explained, nodes
from support.rows import Database, at, ledger, make_routine, make_task, value
from support.stepping import until

MONDAY = at("2126-05-06 09:00")
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
PAUSED = "SELECT count(*) FROM routines.routines WHERE paused"


async def paused(connection: Connection, ended_ago: str = "1 minute", *, names: Iterable[str] = ("r",)) -> list[int]:
    """Create hourly routines whose pause was over that long ago, and return their ids."""
    task = await value(connection, "SELECT id FROM routines.tasks") or await make_task(connection)
    assert isinstance(task, int)
    ids = [await make_routine(connection, task, MONDAY, name=name, hourly=True) for name in names]
    await connection.execute("ALTER TABLE routines.routines DISABLE TRIGGER USER")
    await connection.execute(
        """UPDATE routines.routines SET paused = true, next_run_at = NULL, paused_at = now() - interval '2 hours',
                                        settled_until = now() - interval '2 hours',
                                        paused_until = now() - %s::interval WHERE id = ANY (%s)""",
        [ended_ago, ids],
    )
    await connection.execute("ALTER TABLE routines.routines ENABLE TRIGGER USER")
    return ids


async def resumed(connection: Connection) -> list[str]:
    """Return the names of the routines that are not paused, in the order in which they were resumed."""
    cursor = await connection.execute("SELECT name FROM routines.routines WHERE NOT paused ORDER BY updated_at, id")
    return [name for (name,) in await cursor.fetchall()]


async def test_a_ticker_sleeps_exactly_until_the_end_of_a_pause(database: Database) -> None:
    async with moved_clock(database, MONDAY - SECOND / 4) as moved:
        await paused(moved, "-250 ms")
        sleep = await seconds_until_due(moved)
        assert sleep == Sleep(0.25, ends_at_event=True, ends_pause=True)
        await move_clock(moved, MONDAY + HOUR)
        assert await seconds_until_due(moved) == Sleep(0, ends_at_event=True, ends_pause=True)
        nothing = Sleep(1, ends_at_event=False, ends_pause=False)
        assert await seconds_until_due(moved, beyond_due=True) == nothing
        assert await seconds_until_due(moved, set_aside=await ended_pauses(moved, batch_size=9)) == nothing


async def test_the_end_of_a_later_pause_does_not_wake_the_ticker_and_a_slot_alone_ends_none(
    connection: Connection,
) -> None:
    await paused(connection, "-1 hour")
    sleep = await seconds_until_due(connection)
    assert (sleep.ends_at_event, sleep.ends_pause) == (False, False)
    await make_routine(connection, 1, at("2026-05-04 09:00"), name="due")
    sleep = await seconds_until_due(connection)
    assert (sleep.seconds, sleep.ends_at_event, sleep.ends_pause) == (0, True, False)


async def test_a_ticker_that_sleeps_until_the_end_of_a_pause_fires_the_slot_at_its_end(database: Database) -> None:
    """The clock stands still a moment before the end, and then is at the end."""
    stop = asyncio.Event()
    async with moved_clock(database, MONDAY - HOUR) as moved, connect(database.url, "watch") as watch:
        routine = await make_routine(moved, await make_task(moved), MONDAY - HOUR / 2, hourly=True)
        await moved.execute("UPDATE routines.routines SET created_at = now()")
        await moved.execute("UPDATE routines.routines SET paused = true, paused_until = %s", [MONDAY])
        await move_clock(moved, MONDAY - SECOND / 20)
        async with asyncio.timeout(15), asyncio.TaskGroup() as group:
            group.create_task(Ticker(Settings(), stop).run(moved))
            await move_clock(watch, MONDAY)
            await until(watch, "SELECT count(*) > 0 FROM routines.trajectories")
            stop.set()
        assert await ledger(watch, routine) == [(MONDAY, 1, "started", None)]


async def test_a_ticker_without_pauses_that_end_runs_no_statement_for_them(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await paused(connection, "-1 hour")
    stop, ran = asyncio.Event(), Counter[str]()
    execute = Statement._execute

    async def counted(self: Statement[Any], *arguments: Any) -> None:
        ran[self.name] += 1
        await execute(self, *arguments)

    async def slept(*_: object) -> None:
        if ran["tick.seconds_until_due"] == 5:
            stop.set()

    monkeypatch.setattr(Statement, "_execute", counted)
    monkeypatch.setattr(module, "sleep_or_stop", slept)
    ticker = Ticker(Settings(), stop)
    ticker.snapshots.takes_seconds = 60  # so that it does not look for snapshots
    await ticker.run(connection)
    # Once, at the start: a look for an outage, and a tick, which prepares the statement.
    assert ran == {"tick.note_outage": 1, "tick.tick": 1, "tick.seconds_until_due": 5}


async def test_pauses_end_while_a_backlog_lasts(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", 0.0)
    await paused(connection)
    for n in range(4):
        await make_routine(connection, 1, at("2026-05-04 09:00"), name=f"due{n}")
    settings = Settings(tick_batch_size=2, catchup_seconds=0)
    await Ticker(settings, asyncio.Event()).drain(Batches(settings, connection))
    assert await value(connection, PAUSED) == 0


async def test_collections_take_turns_and_a_batch_is_bounded(connection: Connection) -> None:
    await paused(connection, "1 hour", names=["a", "b", "c"])
    await connection.execute("INSERT INTO routines.collections (name) VALUES ('other')")
    await connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (2, 'echo')")
    await connection.execute("INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (2, 1, '{}')")
    await make_routine(connection, 2, MONDAY, name="other")
    await connection.execute(
        "UPDATE routines.routines SET paused = true, paused_until = now() + interval '1 ms' WHERE name = 'other'"
    )
    batches = Batches(Settings(tick_batch_size=2), connection)
    await until(connection, "SELECT max(paused_until) < now() FROM routines.routines")
    assert await batches.resume() == 2
    assert await resumed(connection) == ["a", "other"]
    assert [await batches.resume(), await batches.resume()] == [2, 0]


async def test_a_routine_that_cannot_be_resumed_delays_no_other_and_is_tried_again_later(
    connection: Connection,
) -> None:
    ids = await paused(connection, names=[f"r{n}" for n in range(9)])
    await connection.execute(
        f"""CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN IF NEW.id = {ids[4]} THEN RAISE EXCEPTION ''poison''; END IF; RETURN NEW; END'"""
    )
    await connection.execute(
        "CREATE TRIGGER a_poison BEFORE UPDATE ON routines.routines FOR EACH ROW EXECUTE FUNCTION poison()"
    )
    batches = Batches(Settings(), connection)
    with capture_logs() as logs:
        assert await batches.resume() == 8
    assert await value(connection, "SELECT array_agg(name::text) FROM routines.routines WHERE paused") == ["r4"]
    [error] = [log for log in logs if log["log_level"] == "error"]
    assert (error["routine_id"], error["cause"]) == (ids[4], "poison")
    assert batches.metrics.registry.get_sample_value("routines_ticker_resumed_total") == 8
    assert await batches.resume() == 0
    assert (await seconds_until_due(connection, set_aside=batches.set_aside())).ends_pause is False
    batches._aside_until.clear()  # as after a minute
    await connection.execute("DROP TRIGGER a_poison ON routines.routines")
    assert await batches.resume() == 1


async def test_a_ticker_without_the_right_to_resume_blames_no_routine(
    connection: Connection, database: Database
) -> None:
    await paused(connection, names=["a", "b"])
    await connection.execute("REVOKE UPDATE ON routines.routines FROM routines_ticker")
    async with connect(database.url, "ticker", role="routines_ticker") as ticker:
        batches = Batches(Settings(), ticker)
        with pytest.raises(Exception, match="permission denied"):
            await batches.resume()
        assert batches.set_aside() == []


async def test_pauses_are_ended_with_the_rights_of_the_ticker(connection: Connection, database: Database) -> None:
    [routine] = await paused(connection)
    async with connect(database.url, "ticker", role="routines_ticker") as ticker:
        assert await Batches(Settings(), ticker).resume() == 1
    assert [row[3] for row in await ledger(connection, routine)] == ["paused"]


async def test_a_routine_that_another_session_holds_is_left_to_it(connection: Connection, database: Database) -> None:
    held, free = await paused(connection, names=["held", "free"])
    async with connect(database.url, "psql", idle_in_transaction_session_timeout="0") as psql, psql.transaction():
        await psql.execute("SELECT FROM routines.routines WHERE id = %s FOR UPDATE", [held])
        assert (await resume(connection, [held, free])).resumed == 1
    assert await resumed(connection) == ["free"]
    assert (await resume(connection, [held, free, 999])).resumed == 1
    assert await resume(connection, [held, free]) == Resumed(0, 0)


async def test_ending_a_pause_reads_the_ended_pauses_and_not_all_routines(connection: Connection) -> None:
    [routine] = await paused(connection)
    await connection.execute("ALTER TABLE routines.routines DISABLE TRIGGER USER")
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, next_run_at)
           SELECT 1, 1, 'n' || n, 'hourly', now() + interval '1 hour' FROM generate_series(1, 40000) AS n"""
    )
    await connection.execute("ALTER TABLE routines.routines ENABLE TRIGGER USER")
    await connection.execute("VACUUM (ANALYZE) routines.routines")
    for name, parameters in {
        "tick.seconds_until_due": {"set_aside": None, "beyond_due": False},
        "tick.ended_pauses": {"set_aside": None, "most": 200_000, "batch_size": 1000},
        "tick.resume": {"ids": [routine]},
    }.items():
        plan = await explained(connection, name, **parameters)
        assert [node for node in nodes(plan) if node["Node Type"] == "Seq Scan"] == [], name
        assert buffers(plan) < 500, name
