"""Workers judge alert rules by themselves: no ticker runs in these tests."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from engine.test_delivery_by_processes import hangs_at_first, worker
from routines_core.db import Connection
from routines_engine.alerts import run_alerts
from routines_engine.metrics import WorkerMetrics
from support.alerting import fail, make_hourly, make_rule, notices, set_late, states
from support.outbox import decoded, until
from support.receivers import answers, receiver
from support.rows import Database, make_task, value
from support.stepping import closed_gate, until_blocked

pytestmark = pytest.mark.slow

OPENED = "SELECT count(*) > 0 FROM routines.alerts"
TOLD = "SELECT count(*) > 0 AND bool_and(delivered_at IS NOT NULL) FROM routines.webhook_deliveries"


@pytest.fixture
async def routine(connection: Connection) -> int:
    return await make_hourly(connection, await make_task(connection))


@asynccontextmanager
async def judging(database: Database, metrics: WorkerMetrics | None = None) -> AsyncGenerator[WorkerMetrics]:
    """Judge rules until the end of the block."""
    metrics, stop = metrics or WorkerMetrics(), asyncio.Event()
    running = asyncio.create_task(run_alerts(database.url, stop, metrics))
    try:
        yield metrics
    finally:
        stop.set()
        await running


async def test_a_worker_tells_that_a_slot_is_late_without_any_ticker(
    connection: Connection, database: Database, routine: int
) -> None:
    async with receiver(answers(204)) as hook:
        await make_rule(connection, webhook_url=hook.url)
        await set_late(connection, routine)
        async with worker(database):
            await until(connection, TOLD, seconds=90)
    [request] = hook.received
    assert (decoded(request.body)["event"], decoded(request.body)["routine"]) == ("late", "morning")


async def test_a_notice_that_a_killed_worker_was_sending_is_sent_again_with_the_same_id(
    connection: Connection, database: Database, routine: int
) -> None:
    async with receiver(hangs_at_first()) as hook:
        await make_rule(connection, webhook_url=hook.url)
        await set_late(connection, routine)
        async with worker(database) as first:
            while not hook.received:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # until the request has arrived, within the test's timeout
            first.kill()
            await first.wait()
        await connection.execute("UPDATE routines.webhook_deliveries SET next_attempt_at = now()")
        async with worker(database):
            await until(connection, TOLD, seconds=90)
    one, two = hook.received
    assert (one.headers["webhook-id"], one.body) == (two.headers["webhook-id"], two.body)
    assert await states(connection) == [("late", "open")]


async def test_a_worker_that_is_killed_between_an_alert_and_its_notice_leaves_one_notice(
    connection: Connection, database: Database, routine: int
) -> None:
    await make_rule(connection)
    await set_late(connection, routine)
    async with closed_gate(database) as gate:
        await connection.execute(
            """CREATE FUNCTION stop_notices() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN PERFORM pass_gate(); RETURN NEW; END'"""
        )
        await connection.execute(
            "CREATE TRIGGER stop_notices BEFORE INSERT ON routines.webhook_deliveries "
            "FOR EACH ROW EXECUTE FUNCTION stop_notices()"
        )
        await connection.execute("GRANT EXECUTE ON FUNCTION pass_gate, stop_notices TO PUBLIC")
        async with worker(database) as first:
            await until(connection, OPENED, seconds=90)
            waiting = (
                "SELECT pid FROM pg_stat_activity "
                "WHERE application_name = 'routines-alerts' AND wait_event = 'advisory'"
            )
            await until(connection, f"SELECT EXISTS ({waiting})")
            pid = await value(connection, waiting)
            assert isinstance(pid, int)
            await until_blocked(connection, pid)
            first.kill()
            await first.wait()
        assert await notices(connection) == []
        async with worker(database):
            await gate.open()
            await until(connection, "SELECT bool_and(notice_id IS NOT NULL) FROM routines.alerts", seconds=90)
    assert (await states(connection), len(await notices(connection))) == ([("late", "open")], 1)


async def test_what_goes_wrong_with_one_kind_of_alert_holds_up_no_other(
    connection: Connection, database: Database, routine: int
) -> None:
    await make_rule(connection)
    await connection.execute("ALTER TABLE routines.begun_runs RENAME COLUMN collection_id TO nothing")
    await set_late(connection, routine)
    await connection.execute("UPDATE routines.alert_rounds SET ran_at = now() - interval '1 hour'")
    async with judging(database) as metrics:
        await until(connection, "SELECT bool_and(notice_id IS NOT NULL) AND count(*) = 1 FROM routines.alerts")
    failed = {"program": "worker", "loop": "alerts: slow", "kind": "refused"}
    assert metrics.registry.get_sample_value("routines_process_loop_failures_total", failed) == 1
    assert await states(connection) == [("late", "open")]


async def test_the_metrics_count_alerts_and_notices(connection: Connection, database: Database, routine: int) -> None:
    await make_rule(connection, events=["failed", "late"])
    await fail(connection, routine, 5)
    await set_late(connection, routine)
    await connection.execute("UPDATE routines.alert_rounds SET ran_at = now() - interval '1 hour'")
    async with judging(database) as metrics:
        await until(connection, "SELECT count(*) = 2 FROM routines.webhook_deliveries")
    assert metrics.registry.get_sample_value("routines_worker_alerts_total", {"change": "opened"}) == 2
    assert metrics.registry.get_sample_value("routines_worker_notices_total") == 2
