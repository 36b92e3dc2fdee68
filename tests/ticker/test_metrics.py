"""The ticker's counters match the ledger."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from routines_core.db import Connection, connect
from routines_core.db import tick as db
from routines_core.db.pool import LOST
from routines_core.settings import Settings
from routines_ticker.batches import Batches
from routines_ticker.metrics import TickerMetrics
from routines_ticker.ticker import Ticker
from support.rows import Database, at, make_routine, make_task, value
from ticker.test_isolation import poison


def told(metrics: TickerMetrics, name: str, **labels: str) -> Any:
    return metrics.registry.get_sample_value(f"routines_ticker_{name}", labels)


async def due(connection: Connection, routine: int, seconds_ago: float) -> None:
    await connection.execute(
        "UPDATE routines.routines SET next_run_at = now() - %s * interval '1 second' WHERE id = %s",
        [seconds_ago, routine],
    )


async def in_the_ledger(connection: Connection, reason: str | None) -> object:
    query = (
        "SELECT coalesce(sum(slot_count), 0)::integer FROM routines.occurrences WHERE reason IS NOT DISTINCT FROM %s"
    )
    return await value(connection, query, reason)


async def test_fires_and_skips_by_reason_match_the_ledger(connection: Connection) -> None:
    task = await make_task(connection)
    started, blocked, late, bad = [
        await make_routine(connection, task, at("2026-05-04 09:00"), name=name, hourly=True)
        for name in ("started", "blocked", "late", "bad")
    ]
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                              init_params)
           SELECT collection_id, task_id, 1, id, 'run-now', '{}' FROM routines.routines WHERE id = %s""",
        [blocked],
    )
    await poison(connection, bad)
    batches = Batches(Settings(), connection)
    for routine, seconds_ago in ((started, 0.5), (blocked, 1), (bad, 1), (late, 5 * 3600)):
        await due(connection, routine, seconds_ago)
    assert await batches.tick() == 4
    for _ in range(2):
        await due(connection, bad, 1)
        await batches.tick()
    metrics = batches.metrics
    assert told(metrics, "fires_total") == await in_the_ledger(connection, None) == 2
    assert told(metrics, "skipped_slots_total", reason="overlap") == await in_the_ledger(connection, "overlap") == 1
    missed = await in_the_ledger(connection, "missed")
    assert told(metrics, "skipped_slots_total", reason="missed") == missed
    assert isinstance(missed, int)
    assert missed >= 4
    assert told(metrics, "skipped_slots_total", reason="failed_to_start") == 3
    assert told(metrics, "paused_total") == 1
    assert told(metrics, "claimed_total") == 6
    assert told(metrics, "start_delay_seconds_count") == 2


async def test_the_start_delay_is_measured_from_the_slot_to_the_run(connection: Connection) -> None:
    batches = Batches(Settings(), connection)
    await batches.warm_up()
    task = await make_task(connection)
    for number, delay in enumerate((0.25, 0.25, 3, 90)):
        await make_routine(connection, task, at("2026-05-04 09:00"), name=f"r{number}")
        await connection.execute(
            "UPDATE routines.routines SET next_run_at = %s, created_at = %s WHERE name = %s",
            [at("2026-05-04 09:00") + timedelta(seconds=100 - delay), at("2026-05-04 09:00"), f"r{number}"],
        )
    done = await db.tick(
        connection,
        batch_size=10,
        hourly_catchup_seconds=3600,
        catchup_seconds=3600,
        now=at("2026-05-04 09:00") + timedelta(seconds=100),
    )
    assert (done.delay_seconds, done.fires_by_delay, done.max_delay_seconds) == ([0.25, 3, 90], [2, 1, 1], 90)
    batches.metrics.ticked(done, 0.02)
    assert told(batches.metrics, "start_delay_seconds_sum") == 93.5
    for bound, count in (("0.2", 0), ("0.5", 2), ("2.0", 2), ("5.0", 3), ("60.0", 3), ("120.0", 4), ("3600.0", 4)):
        assert told(batches.metrics, "start_delay_seconds_bucket", le=bound) == count


async def test_a_routine_that_is_set_aside_is_counted(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), at("2026-05-04 09:00"))
    await poison(connection, routine)
    await poison(connection, routine, table="skips")  # its strike cannot be recorded either
    batches = Batches(Settings(catchup_seconds=1e9), connection)
    await batches.tick()
    assert told(batches.metrics, "set_aside_total", cause="routine") == 1
    assert told(batches.metrics, "set_aside_total", cause="moment") == 0


async def test_a_ticker_is_healthy_while_the_database_answers(connection: Connection, database: Database) -> None:
    ticker = Ticker(Settings(), asyncio.Event())
    metrics = ticker.metrics
    assert not (await metrics.health()).is_good
    async with connect(database.url, "ticker") as own:

        async def tick_on() -> None:
            with metrics.connected():
                await ticker.run(own)

        task = asyncio.create_task(tick_on())
        async with asyncio.timeout(30):
            while not (await metrics.health()).is_good:  # noqa: ASYNC110 - until the ticker is running
                await asyncio.sleep(0.01)
        assert told(metrics, "since_success_seconds") < 30
        await connection.execute("SELECT pg_terminate_backend(%s)", [own.info.backend_pid])
        with pytest.raises(LOST):
            await task
    health = await metrics.health()
    assert (health.is_connected, health.is_good) == (False, False)
