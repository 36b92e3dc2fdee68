"""Workers of the Temporal engine inside a test."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from temporalio.client import Client

from routines_core.db import Connection, open_pool
from routines_core.settings import Settings
from routines_engine.runs.base import Executor, opened
from routines_engine.runs.inline import InlineExecutor
from routines_engine.temporal.program import TemporalWorker
from support.rows import KEYRING
from support.working import run_id_of


def settings_of(client: Client, **changed: Any) -> Settings:
    """Return the settings of a worker with short intervals."""
    defaults = {
        "engine": "temporal",
        "temporal_address": client.service_client.config.target_host,
        "temporal_namespace": client.namespace,
        "temporal_check_seconds": 1,
        "lease_seconds": 3,
    }
    return Settings(**{**defaults, **changed})


async def temporal_id_of(connection: Connection, run: int, task: str) -> str:
    """Return the id of a run in Temporal."""
    return f"flow-my-org-{task}--{run}/{await run_id_of(connection, run)}"


@asynccontextmanager
async def temporal_working(
    url: str, client: Client, executor: Executor | None = None, **settings: Any
) -> AsyncGenerator[TemporalWorker]:
    """Run a worker, and stop it gracefully at the end of the block. By default it has no step processes."""
    stop, executor = asyncio.Event(), executor or InlineExecutor()
    async with opened(executor), open_pool(url, "routines-worker", size=4) as pool:
        worker = TemporalWorker(settings_of(client, **settings), pool, stop, KEYRING, executor=executor)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            stop.set()
            await task
