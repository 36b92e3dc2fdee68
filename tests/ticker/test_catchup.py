"""Catch-up: after an outage each routine fires at most once, and no collection waits for another's backlog."""

import asyncio
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

import routines_ticker.ticker as module
from routines_core.db import Connection
from routines_core.db import tick as db
from routines_core.db.tick import Tick, tick
from routines_core.settings import Settings
from routines_ticker.batches import Batches
from routines_ticker.ticker import Ticker
from support.rows import CATCHUP, at, ledger, make_routine, make_task, value

DUE = at("2026-05-04 09:00")


async def window(connection: Connection, seconds: int | None) -> int:
    routine = await make_routine(connection, await make_task(connection), DUE)
    await connection.execute("UPDATE routines.routines SET catchup_window_seconds = %s", [seconds])
    return routine


async def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query.encode())).fetchall()


async def tick_at(connection: Connection, now: datetime) -> Tick:
    return await tick(connection, batch_size=10, now=now, **CATCHUP)


async def test_a_routines_own_window_overrides_the_default_of_its_cadence(connection: Connection) -> None:
    routine = await window(connection, 600)
    assert (await tick_at(connection, DUE + timedelta(seconds=600))).fired == 1
    late = await tick_at(connection, DUE + timedelta(days=1, seconds=601))
    assert (late.fired, late.missed) == (0, 1)
    assert (await ledger(connection, routine))[-1][3] == "missed"


async def test_a_wider_window_still_catches_up_later(connection: Connection) -> None:
    await window(connection, 20 * 3600)
    assert (await tick_at(connection, DUE + timedelta(hours=19))).fired == 1


async def test_a_window_of_zero_never_catches_up_but_still_fires_on_time(connection: Connection) -> None:
    routine = await window(connection, 0)
    assert (await tick_at(connection, DUE + timedelta(seconds=5))).fired == 1
    await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    assert (await tick_at(connection, DUE + timedelta(days=3, seconds=61))).fired == 0
    assert await ledger(connection, routine) == [
        (DUE, 1, "started", None),
        (DUE + timedelta(days=1), 3, "skipped", "missed"),
    ]


async def test_a_negative_window_is_refused(connection: Connection) -> None:
    with pytest.raises(Exception, match="routines_catchup_window_seconds_is_not_negative"):
        await window(connection, -1)


async def test_ten_thousand_routines_with_thirty_days_of_missed_slots_drain_within_a_minute(
    connection: Connection,
) -> None:
    """Each routine gets at most one catch-up fire and one span; the whole backlog takes a second or two."""
    task = await make_task(connection)
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, minute_utc)
           SELECT collection_id, id, 'r' || n, 'hourly', n %% 60 FROM routines.tasks, generate_series(1, 10000) n
           WHERE id = %s""",
        [task],
    )
    await connection.execute(
        """UPDATE routines.routines
           SET next_run_at = routines.next_fire(routines.cadence_of(routines), now() - interval '30 days')"""
    )
    first = dict(await rows(connection, "SELECT id, next_run_at FROM routines.routines"))
    [[before]] = await rows(connection, "SELECT now()")
    began = time.monotonic()
    batches = Batches(Settings(), connection)
    while await batches.tick():
        pass
    assert time.monotonic() - began < 60
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 10_000
    spans = "SELECT count(*) FROM routines.skips WHERE reason = 'missed'"
    assert await value(connection, spans) == 10_000
    # No gaps. If a minute ended in the meantime, its slot is one more outcome.
    settled = await rows(
        connection,
        """SELECT routine_id, min(scheduled_for), max(scheduled_for + (slot_count - 1) * interval '1 hour'),
                  sum(slot_count)
           FROM routines.occurrences GROUP BY routine_id""",
    )
    hour = timedelta(hours=1)
    assert {routine: since for routine, since, _, _ in settled} == first
    assert all(slots == (until - since) / hour + 1 for _, since, until, slots in settled)
    assert all(until > before - hour for _, _, until, _ in settled)
    assert 10_000 * 30 * 24 <= sum(slots for *_, slots in settled) <= 10_000 * 30 * 24 + 1000


async def backlog(connection: Connection, count: int) -> int:
    """Make many older slots in one collection and one routine in another. Returns the id of that routine."""
    task = await make_task(connection)
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
           SELECT collection_id, id, 'r' || n, 'hourly' FROM routines.tasks, generate_series(1, %s) n WHERE id = %s""",
        [count, task],
    )
    await connection.execute("UPDATE routines.routines SET next_run_at = '2026-05-04 08:00Z'")
    await connection.execute("INSERT INTO routines.collections (name) VALUES ('other')")
    await connection.execute(
        """INSERT INTO routines.tasks (collection_id, name)
           SELECT id, 'echo' FROM routines.collections WHERE name = 'other'"""
    )
    await connection.execute(
        "INSERT INTO routines.task_versions (task_id, version, workflow) SELECT max(id), 1, '{}' FROM routines.tasks"
    )
    other = await value(connection, "SELECT max(id) FROM routines.tasks")
    assert isinstance(other, int)
    return await make_routine(connection, other, DUE)


async def test_in_turn_the_first_routine_of_each_collection_comes_before_any_second(connection: Connection) -> None:
    alone = await backlog(connection, 50)
    oldest_first = await db.due(connection, batch_size=10, now=DUE)
    in_turns = await db.due_in_turns(connection, batch_size=10, now=DUE)
    assert alone not in {routine.id for routine in oldest_first}
    assert in_turns[1].id == alone
    assert len(in_turns) == 10


async def test_an_alternating_batch_fires_another_collections_routine_despite_an_older_backlog(
    connection: Connection,
) -> None:
    alone = await backlog(connection, 50)
    ever = 10 * 365 * 86400
    batches = Batches(Settings(tick_batch_size=10, catchup_seconds=ever, hourly_catchup_seconds=ever), connection)
    assert await batches.tick_in_turns() == 10
    assert (await ledger(connection, alone))[-1][2] == "started"


async def test_while_a_backlog_drains_another_collections_routine_waits_for_few_batches_of_it(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is counted in fires, with frequent alternating batches; bench/fairness.py measures the time."""
    monkeypatch.setattr(module, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(module, "TURN_COST_FACTOR", 0)
    alone = await backlog(connection, 1000)
    ever = 10 * 365 * 86400
    settings = Settings(tick_batch_size=50, catchup_seconds=ever, hourly_catchup_seconds=ever)
    assert await Ticker(settings, asyncio.Event()).drain(Batches(settings, connection)) == 1001
    before = """SELECT count(*) FROM routines.trajectories
                WHERE id < (SELECT id FROM routines.trajectories WHERE triggered_by_routine_id = %s)"""
    fired_before = await value(connection, before, alone)
    assert isinstance(fired_before, int)
    assert fired_before < 2 * settings.tick_batch_size
