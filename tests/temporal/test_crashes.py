"""Crashes between the database and Temporal: each run is executed once, and no finished step is repeated."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from chaos.cluster import Cluster
from routines_core.db import Connection, connect
from routines_core.db.migrations import migrate
from routines_core.db.tick import tick
from support.receivers import answers, receiver
from support.rows import CATCHUP, Database, at, make_routine, value
from support.sampling import left_out, sample
from support.temporal_processes import LEASE_SECONDS, Workers, workers_of
from support.temporal_server import BINARY, MISSING, TemporalServer
from support.temporal_working import temporal_id_of
from support.working import run_id_of, run_of, task_of, until, until_ended, workflow_of

pytestmark = pytest.mark.slow


def work(**configs: dict[str, Any]) -> dict[str, Any]:
    return workflow_of(*((name, {"activity": "traced_work", **config}) for name, config in configs.items()))


@pytest.fixture
async def workers(
    tmp_path: Path, database: Database, temporal: Client, temporal_server: TemporalServer
) -> AsyncGenerator[Workers]:
    async with workers_of(tmp_path, database.url, temporal_server.address, temporal.namespace) as made:
        yield made


@pytest.fixture
def own_server(tmp_path: Path) -> Generator[TemporalServer]:
    """A Temporal server that the test may stop and start."""
    if BINARY is None:
        pytest.skip(MISSING)
    server = TemporalServer(tmp_path, ["own"])
    server.start()
    yield server
    server.stop()


async def executions_in(temporal: Client) -> list[str]:
    """Return the ids of all executions in the namespace, whatever their status."""
    async with asyncio.timeout(30):
        while not (found := [execution.id async for execution in temporal.list_workflows("")]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # the list lags behind the histories
    return found


@left_out
@pytest.mark.parametrize("moment", sample(["before", "after"], 1))
async def test_a_run_whose_dispatcher_was_killed_before_or_after_temporal_had_it_is_executed_once(
    connection: Connection, temporal: Client, workers: Workers, moment: str
) -> None:
    run = await run_of(connection, await task_of(connection, "t", work(one={}, two={})))
    killed = workers.start(CRASH_AT=moment)
    assert await asyncio.to_thread(killed.wait, 90) == -signal.SIGKILL
    state = """SELECT status || ' ' || engine || ' ' || (submitted_at IS NULL) || ' ' ||
                      (SELECT count(*) FROM routines.steps)
               FROM routines.trajectories, routines.dispatches"""
    assert await value(connection, state) == "running temporal true 0"
    workers.start()
    assert await until_ended(connection, run) == ("completed", None)
    temporal_id, key = await temporal_id_of(connection, run, "t"), await run_id_of(connection, run)
    assert await temporal.get_workflow_handle(temporal_id).result() == "completed"
    assert workers.executions() == {f"{key}/one": 1, f"{key}/two": 1}
    assert await executions_in(temporal) == [temporal_id]
    assert await value(connection, "SELECT count(*) FROM routines.dispatches") == 0


async def test_after_a_worker_is_killed_only_its_current_step_is_repeated(
    connection: Connection, temporal: Client, workers: Workers
) -> None:
    run = await run_of(connection, await task_of(connection, "t", work(one={}, two={"kills": 1}, three={})))
    killed = workers.start()
    assert await asyncio.to_thread(killed.wait, 90) == -signal.SIGKILL
    workers.start()
    assert await until_ended(connection, run) == ("completed", None)
    key = await run_id_of(connection, run)
    assert workers.executions() == {f"{key}/one": 1, f"{key}/two": 2, f"{key}/three": 1}
    assert await value(connection, "SELECT crashes FROM routines.trajectories") == 1
    assert await executions_in(temporal) == [await temporal_id_of(connection, run, "t")]


@left_out
async def test_a_run_that_kills_three_workers_fails(connection: Connection, temporal: Client, workers: Workers) -> None:
    run = await run_of(connection, await task_of(connection, "t", work(boom={"kills": 99})))
    for _ in range(3):
        killed = workers.start()
        assert await asyncio.to_thread(killed.wait, 60) == -signal.SIGKILL
    workers.start()
    end = ("failed", "worker lost: 3 workers were lost while they ran it")
    assert await until_ended(connection, run) == end
    assert workers.executions() == {f"{await run_id_of(connection, run)}/boom": 3}
    await until(connection, "SELECT count(*) = 0 FROM routines.dispatches")
    handle = temporal.get_workflow_handle(await temporal_id_of(connection, run, "t"))
    async with asyncio.timeout(30):
        while (await handle.describe()).status != WorkflowExecutionStatus.CANCELED:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@left_out
async def test_late_writes_of_a_frozen_worker_that_lost_its_step_change_nothing(
    connection: Connection, workers: Workers
) -> None:
    run = await run_of(connection, await task_of(connection, "t", work(one={"seconds": 1}, two={"seconds": 3})))
    key = await run_id_of(connection, run)
    frozen = workers.start()
    await workers.until(f"{key}/one")
    frozen.send_signal(signal.SIGSTOP)
    workers.start()
    await workers.until(f"{key}/two")
    by_the_other = "SELECT fence FROM routines.steps WHERE name = 'one' AND status = 'completed'"
    attempt = await value(connection, by_the_other)
    frozen.send_signal(signal.SIGCONT)  # its step ends at once
    assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, by_the_other) == attempt
    assert workers.executions() == {f"{key}/one": 2, f"{key}/two": 1}
    assert await value(connection, "SELECT crashes FROM routines.trajectories") == 1


async def test_restarting_temporal_in_the_middle_of_a_step_loses_no_run(
    connection: Connection, database: Database, own_server: TemporalServer, tmp_path: Path
) -> None:
    """The step continues. After an absence longer than a lease, Temporal assigns it to a worker again."""
    async with workers_of(tmp_path, database.url, own_server.address, "own") as workers:
        workers.start()
        run = await run_of(connection, await task_of(connection, "t", work(one={}, two={"seconds": 1}, three={})))
        key = await run_id_of(connection, run)
        await workers.until(f"{key}/two")
        own_server.stop()
        await until(connection, "SELECT count(*) = 1 FROM routines.steps WHERE name = 'two' AND status = 'completed'")
        await asyncio.sleep(LEASE_SECONDS)
        own_server.start()
        assert await until_ended(connection, run) == ("completed", None)
        # Its end was recorded before Temporal heard of it, so it is not repeated and no crash is counted.
        assert workers.executions() == {f"{key}/one": 1, f"{key}/two": 1, f"{key}/three": 1}
        assert await value(connection, "SELECT crashes FROM routines.trajectories") == 0


@pytest.mark.parametrize("absence", sample(["frozen", "killed"], 1))
async def test_a_step_that_outlasts_an_absence_of_temporal_is_not_repeated_if_its_worker_lives(
    connection: Connection, database: Database, own_server: TemporalServer, tmp_path: Path, absence: str
) -> None:
    """Its heartbeats were not heard for longer than a lease. The same worker is asked again, and still has the run."""
    async with workers_of(tmp_path, database.url, own_server.address, "own") as workers:
        workers.start()
        workers.start()
        run = await run_of(connection, await task_of(connection, "t", work(one={}, two={"seconds": 10}, three={})))
        key = await run_id_of(connection, run)
        await workers.until(f"{key}/two")
        await asyncio.sleep(1)  # until the worker has told Temporal that it goes on with the run
        if absence == "frozen":
            own_server.freeze()
        else:
            own_server.kill()
        await asyncio.sleep(2 * LEASE_SECONDS)
        if absence == "frozen":
            own_server.thaw()
        else:
            own_server.start()
        assert await until_ended(connection, run) == ("completed", None)
        assert workers.executions() == {f"{key}/one": 1, f"{key}/two": 1, f"{key}/three": 1}
        assert await value(connection, "SELECT crashes FROM routines.trajectories") == 0


@left_out
async def test_a_run_that_waits_for_its_next_attempt_is_taken_up_by_another_worker(
    connection: Connection, workers: Workers
) -> None:
    retry = {"max_attempts": 2, "backoff": 3}
    run = await run_of(connection, await task_of(connection, "t", work(one={}, two={"fails": 1, "retry": retry})))
    key = await run_id_of(connection, run)
    first = workers.start()
    await until(connection, "SELECT bool_or(is_left) FROM routines.dispatches WHERE sequence > 0")
    first.kill()
    workers.start()
    assert await until_ended(connection, run) == ("completed", None)
    assert workers.executions() == {f"{key}/one": 1, f"{key}/two": 2}
    waited = "SELECT ended_at - started_at >= interval '3 s' FROM routines.trajectories"
    assert await value(connection, waited)
    assert await value(connection, "SELECT crashes FROM routines.trajectories") == 0


async def test_a_temporal_worker_delivers_webhooks(connection: Connection, workers: Workers) -> None:
    run = await run_of(connection, await task_of(connection, "t", work(one={})))
    async with receiver(answers(200)) as hook:
        await connection.execute("UPDATE routines.trajectories SET webhook_url = %s", [hook.url])
        workers.start(ROUTINES_WEBHOOK_ALLOW_PRIVATE="true")
        assert await until_ended(connection, run) == ("completed", None)
        await until(connection, "SELECT delivered_at IS NOT NULL FROM routines.webhook_deliveries")
    [request] = hook.received
    assert f"flow-my-org-t--{run}".encode() in request.body


async def test_a_stopped_worker_leaves_its_step_to_another_at_once_without_a_crash(
    connection: Connection, workers: Workers
) -> None:
    run = await run_of(connection, await task_of(connection, "t", work(one={}, two={"seconds": 4})))
    stopped = workers.start(ROUTINES_LEASE_SECONDS="60")
    key = await run_id_of(connection, run)
    await workers.until(f"{key}/two")
    stopped.terminate()
    assert await asyncio.to_thread(stopped.wait, 20) == 0
    workers.start()
    assert await until_ended(connection, run) == ("completed", None)
    assert workers.executions() == {f"{key}/one": 1, f"{key}/two": 2}
    assert await value(connection, "SELECT crashes FROM routines.trajectories") == 0


async def test_runs_stay_pending_while_temporal_is_down_and_are_executed_once_it_is_back(
    connection: Connection, database: Database, own_server: TemporalServer, tmp_path: Path
) -> None:
    async with workers_of(tmp_path, database.url, own_server.address, "own") as workers:
        workers.start()
        task = await task_of(connection, "t", work(one={}))
        before = await run_of(connection, task)
        assert await until_ended(connection, before) == ("completed", None)
        own_server.stop()
        await workers.until_said("Temporal unavailable, runs stay pending")
        workers.start()  # one that has never been connected
        for number in range(3):
            await make_routine(connection, task, at("2026-05-04 09:00"), name=f"r{number}")
        await tick(connection, batch_size=10, now=at("2026-05-04 09:00"), **CATCHUP)
        fired = "SELECT count(*) FROM routines.trajectories WHERE trigger = 'schedule' AND status = %s"
        assert await value(connection, fired, "pending") == 3
        await asyncio.sleep(2.5)  # several polls of both workers
        assert await value(connection, fired, "pending") == 3
        own_server.start()
        await until(connection, "SELECT count(*) = 4 FROM routines.trajectories WHERE status = 'completed'")
        assert set(workers.executions().values()) == {1}
        assert "cannot be reached" in workers.log.read_text("utf-8")


@left_out
async def test_a_postgres_crash_in_the_middle_of_a_step_fails_and_repeats_nothing(
    temporal: Client, temporal_server: TemporalServer, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path / "postgres")
    cluster.start()
    try:
        async with connect(cluster.url, "tests") as connection:
            await migrate(connection)
            run = await run_of(connection, await task_of(connection, "t", work(one={}, two={"seconds": 4}, three={})))
            key = await run_id_of(connection, run)
        async with workers_of(tmp_path, cluster.url, temporal_server.address, temporal.namespace) as workers:
            workers.start()
            await workers.until(f"{key}/two")
            cluster.crash()
            await asyncio.sleep(1)  # keep it away for a while
            cluster.start()
            async with connect(cluster.url, "tests") as connection:
                assert await until_ended(connection, run) == ("completed", None)
                assert await value(connection, "SELECT crashes FROM routines.trajectories") == 0
            assert workers.executions() == {f"{key}/one": 1, f"{key}/two": 1, f"{key}/three": 1}
    finally:
        cluster.stop()
