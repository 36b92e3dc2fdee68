"""Silence a worker's connections: it tries another one, and stops its steps before its leases expire."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from chaos.cluster import Cluster
from chaos.driver import Plan, fresh_database
from chaos.proxy import FaultProxy
from routines_core.db import Connection, open_pool, runs
from routines_core.db.runs import Checkpoint
from routines_core.errors import SilenceError
from routines_core.settings import Settings
from routines_engine.runs.claimed_run import ClaimedRun
from routines_engine.runs.worker import Worker
from routines_workflow.activity import ACTIVITIES, StepContext, activity
from support.rows import KEYRING, make_task, value

pytestmark = pytest.mark.slow
LEASE_SECONDS = 6.0
WORKFLOW = '{"steps": ["linger"], "step_configs": {"linger": {"activity": "linger"}}}'


@pytest.fixture
def cluster(tmp_path: Path) -> Generator[Cluster]:
    cluster = Cluster(tmp_path / "cluster")
    cluster.start()
    yield cluster
    cluster.stop()


class Linger(msgspec.Struct):
    """A step without parameters."""


@pytest.fixture
def executions() -> Generator[list[tuple[str, datetime]]]:
    """Yield what happened to each execution of a step that lingers the first time, until it is cancelled."""
    seen: list[tuple[str, datetime]] = []

    @activity("Lingers.", Linger)
    async def linger(given: Linger, _: StepContext) -> Linger:
        """Linger, the first time for longer than the test.

        Raises:
            CancelledError: The step was cancelled.
        """
        seen.append(("begun", datetime.now(UTC)))
        try:
            await asyncio.sleep(3600 if len(seen) == 1 else 0)
        except asyncio.CancelledError:
            seen.append(("cancelled", datetime.now(UTC)))
            raise
        seen.append(("done", datetime.now(UTC)))
        return given

    yield seen
    del ACTIVITIES["linger"]


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running_worker(url: str, name: str) -> AsyncGenerator[None]:
    """Run a worker on this URL; at the end of the block it ends at once, as a killed process would."""
    settings = Settings(lease_seconds=LEASE_SECONDS)  # type: ignore[call-arg]
    async with open_pool(url, "routines-worker", size=2) as pool:
        task = asyncio.create_task(Worker(settings, pool, asyncio.Event(), KEYRING, name).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})


async def make_run(connection: Connection) -> None:
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
           SELECT collection_id, id, 1, 'api', '{}' FROM routines.tasks WHERE id = %s""",
        [await make_task(connection, WORKFLOW)],
    )


def silence(proxy: FaultProxy) -> None:
    """Silence both directions of every connection, and accept no new one."""
    proxy.accepting.clear()
    for link in proxy.links:
        link.flowing.clear()


async def test_a_silenced_worker_stops_its_steps_before_its_lease_expires_and_the_run_ends_elsewhere(
    cluster: Cluster, executions: list[tuple[str, datetime]]
) -> None:
    proxy = FaultProxy(cluster.socket)
    await proxy.start()

    async def begun() -> bool:
        return bool(executions)

    async def cancelled() -> bool:
        return len(executions) > 1

    async with fresh_database(cluster, Plan(0, 0)) as connection:
        await make_run(connection)

        async def ended() -> object:
            return await value(connection, "SELECT ended_at FROM routines.trajectories")

        async with running_worker(f"postgresql://chaos_0@127.0.0.1:{proxy.port}/routines", "silenced"):
            await until(begun)
            silence(proxy)
            await until(cancelled)
            lease_expires_at = await value(connection, "SELECT lease_expires_at FROM routines.trajectories")
            async with running_worker(cluster.url, "other"):
                await until(ended)
            proxy.stop()
        assert [what for what, _ in executions] == ["begun", "cancelled", "begun", "done"]
        assert isinstance(lease_expires_at, datetime)
        assert executions[1][1] < lease_expires_at < executions[2][1]
        outcome = "SELECT status || ' by ' || worker || ', crashes ' || crashes FROM routines.trajectories"
        assert await value(connection, outcome) == "completed by other, crashes 1"


async def test_a_renewal_on_a_silent_connection_times_out_and_the_next_one_uses_another_connection(
    cluster: Cluster,
) -> None:
    proxy = FaultProxy(cluster.socket)
    await proxy.start()
    url = f"postgresql://chaos_0@127.0.0.1:{proxy.port}/routines"
    async with fresh_database(cluster, Plan(0, 0)) as connection, open_pool(url, "routines-worker", size=1) as pool:
        await make_run(connection)
        [run] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600)
        lease = "SELECT lease_expires_at FROM routines.trajectories"
        before = await value(connection, lease)
        worker = Worker(Settings(lease_seconds=LEASE_SECONDS), pool, asyncio.Event(), KEYRING)  # type: ignore[call-arg]
        running_step = asyncio.create_task(asyncio.sleep(3600))
        worker._claimed[run.id] = ClaimedRun(run, 0.0, running_step)
        await pool.wait()
        for link in proxy.links:
            link.flowing.clear()
        async with asyncio.timeout(30):  # without a time limit it would wait forever
            assert await worker._renew()
            assert not await worker._renew()
        assert await value(connection, lease) != before
        assert worker._claimed[run.id].renewed_at > 0
        assert running_step.cancel(), "the step had already been cancelled"
        proxy.stop()


async def test_every_statement_of_a_worker_times_out_on_a_silent_connection_and_the_next_one_uses_another(
    cluster: Cluster,
) -> None:
    proxy = FaultProxy(cluster.socket)
    await proxy.start()
    url = f"postgresql://chaos_0@127.0.0.1:{proxy.port}/routines"
    settings = Settings(lease_seconds=1.5)  # type: ignore[call-arg]
    async with fresh_database(cluster, Plan(0, 0)) as connection, open_pool(url, "routines-worker", size=1) as pool:
        await make_run(connection)
        worker = Worker(settings, pool, asyncio.Event(), KEYRING)
        [run] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600)
        worker._claimed[run.id] = ClaimedRun(run, 0.0, asyncio.create_task(asyncio.sleep(3600)))
        for statement in (worker._claim, worker._reap, worker._drop_lost):
            await pool.wait()
            for link in proxy.links:
                link.flowing.clear()
            async with asyncio.timeout(20):
                with pytest.raises(SilenceError):
                    await statement()
                await statement()
        for link in proxy.links:
            link.flowing.clear()
        writer = asyncio.create_task(worker._journal.run())
        async with asyncio.timeout(20):
            await worker._journal.write(Checkpoint(run.id, run.fence, status="completed"))
        writer.cancel()
        assert await value(connection, "SELECT status FROM routines.trajectories") == "completed"
        proxy.stop()
