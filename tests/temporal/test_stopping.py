"""A worker stops in time although Temporal does not answer."""

import asyncio
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from routines_core.db import Connection
from support.rows import Database
from support.temporal_processes import workers_of
from support.temporal_server import BINARY, MISSING, TemporalServer
from support.working import run_of, task_of, workflow_of

pytestmark = pytest.mark.slow
SECONDS = 10.0


@pytest.fixture
def own_server(tmp_path: Path) -> Generator[TemporalServer]:
    """A Temporal server that the test may stop."""
    if BINARY is None:
        pytest.skip(MISSING)
    server = TemporalServer(tmp_path, ["own"])
    server.start()
    yield server
    server.stop()


async def seconds_to_stop(process: Any) -> float:
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 60) == 0
    return time.monotonic() - begun


@pytest.mark.parametrize("is_busy", [True, False], ids=["with a step in hand", "idle"])
async def test_it_stops_within_ten_seconds_after_temporal_has_gone(
    connection: Connection,
    database: Database,
    own_server: TemporalServer,
    tmp_path: Path,
    is_busy: bool,  # noqa: FBT001 - a case
) -> None:
    async with workers_of(tmp_path, database.url, own_server.address, "own") as workers:
        process = workers.start()
        await workers.until_said("working for Temporal")
        if is_busy:
            work = workflow_of(("one", {"activity": "traced_work", "seconds": 60}))
            await run_of(connection, await task_of(connection, "t", work))
            async with asyncio.timeout(90):
                while not workers.executions():  # noqa: ASYNC110 - the step is in another process
                    await asyncio.sleep(0.05)
        own_server.stop()
        assert await seconds_to_stop(process) < SECONDS


async def test_it_stops_within_ten_seconds_if_temporal_was_never_there(
    database: Database, own_server: TemporalServer, tmp_path: Path
) -> None:
    own_server.stop()
    async with workers_of(tmp_path, database.url, own_server.address, "own") as workers:
        process = workers.start()
        await workers.until_said("Temporal unavailable")
        assert await seconds_to_stop(process) < SECONDS
