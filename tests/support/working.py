"""Workers of the Postgres engine inside a test, and tasks and runs for them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from routines_core.db import Connection, open_pool
from routines_core.settings import Settings
from routines_engine.runs.worker import Worker
from routines_engine.sandbox.pool import ProcessPool
from routines_engine.sandbox.process import Limits
from support.rows import KEYRING, value

TIMEOUT_SECONDS = 90  # on a machine that is busy with other work
TASK = """WITH collection AS (INSERT INTO routines.collections (name) VALUES ('my-org')
                              ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id),
               task AS (INSERT INTO routines.tasks (collection_id, name) SELECT id, %(name)s FROM collection
                        RETURNING id)
          INSERT INTO routines.task_versions (task_id, version, workflow)
          SELECT id, 1, %(workflow)s::json FROM task RETURNING task_id"""
RUN = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
         SELECT collection_id, id, 1, 'api', %s::jsonb FROM routines.tasks WHERE id = %s RETURNING id"""


def workflow_of(*steps: tuple[str, dict[str, Any]], **init_params: Any) -> dict[str, Any]:
    """Return a workflow of these steps, each with its name and config."""
    return {"init_params": init_params, "steps": [name for name, _ in steps], "step_configs": dict(steps)}


async def task_of(connection: Connection, name: str, workflow: dict[str, Any]) -> int:
    """Create a task. Returns its id."""
    cursor = await connection.execute(TASK.encode(), {"name": name, "workflow": msgspec.json.encode(workflow).decode()})
    row = await cursor.fetchone()
    assert row
    return row[0]


async def run_of(connection: Connection, task: int, **init_params: Any) -> int:
    """Create a pending run. Returns its id."""
    cursor = await connection.execute(RUN, [msgspec.json.encode(init_params).decode(), task])
    row = await cursor.fetchone()
    assert row
    return row[0]


async def run_id_of(connection: Connection, run: int) -> str:
    """Return a run's run_id, with which the idempotency keys of its steps begin."""
    return str(
        await value(
            connection, "SELECT routines.run_id(id, created_at, nonce) FROM routines.trajectories WHERE id = %s", run
        )
    )


@asynccontextmanager
async def working(url: str, **settings: Any) -> AsyncGenerator[Worker]:
    """Run a worker, and stop it gracefully at the end of the block."""
    stop = asyncio.Event()
    async with open_pool(url, "routines-worker", size=4) as pool:
        worker = Worker(Settings(**settings), pool, stop, KEYRING)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            stop.set()
            await task


@asynccontextmanager
async def contained(url: str, **settings: Any) -> AsyncGenerator[Worker]:
    """Run a worker with step processes that know the activities of tests."""
    stop = asyncio.Event()
    limits = Limits(memory_bytes=128 * 1024 * 1024, stall_seconds=1.0)
    pool = ProcessPool(limits, modules=["support.hostile_activities", "support.greedy_activities"])
    await pool.open()
    try:
        async with open_pool(url, "routines-worker", size=4) as connections:
            worker = Worker(Settings(**settings), connections, stop, KEYRING, executor=pool)
            task = asyncio.create_task(worker.run())
            try:
                yield worker
            finally:
                stop.set()
                await task
    finally:
        await pool.close()


async def until(connection: Connection, query: str, *parameters: object) -> None:
    """Return once the query's single value is true."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not await value(connection, query, *parameters):  # noqa: ASYNC110 - the state is the database's
            await asyncio.sleep(0.01)


async def until_ended(connection: Connection, run: int) -> tuple[str, str | None]:
    """Wait for a run to end. Returns its status and error."""
    await until(connection, "SELECT ended_at IS NOT NULL FROM routines.trajectories WHERE id = %s", run)
    cursor = await connection.execute("SELECT status, error FROM routines.trajectories WHERE id = %s", [run])
    row = await cursor.fetchone()
    assert row
    return row[0], row[1]
