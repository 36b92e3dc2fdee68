"""Signals: whatever comes, no program ends before it has given back what it holds."""

import asyncio
import signal
import threading
from pathlib import Path

import pytest

from routines_core.db import Connection
from support.endpoint import Said, serving
from support.programs import program
from support.rows import Database, value
from support.service import free_port
from support.working import run_of, task_of, until, workflow_of

pytestmark = pytest.mark.slow
HANDED_BACK = "SELECT status = 'pending' AND lease_expires_at IS NULL AND crashes = 0 FROM routines.trajectories"


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGHUP,),
        (signal.SIGTERM, signal.SIGTERM, signal.SIGTERM),
        (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM),
    ],
    ids=["SIGHUP", "SIGTERM three times", "SIGUSR1 and SIGUSR2 first"],
)
async def test_a_worker_gives_back_its_run_whatever_signals_come(
    connection: Connection, database: Database, tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    answers = threading.Event()
    with serving() as endpoint:
        endpoint.answer = lambda _: Said(200 if answers.wait(60) else 504)
        step = {"activity": "http_request", "url": endpoint.url}
        await run_of(connection, await task_of(connection, "t", workflow_of(("call", step))))
        with program("worker", database.url, tmp_path, ROUTINES_WEBHOOK_ALLOW_PRIVATE="true") as worker:
            await asyncio.to_thread(worker.until_said, '"working"')
            await until(connection, "SELECT status = 'running' FROM routines.trajectories")
            async with asyncio.timeout(30):
                while not endpoint.asked:  # noqa: ASYNC110 - the receiver is in another thread
                    await asyncio.sleep(0.01)
            worker.signal(*numbers)
            assert await asyncio.to_thread(worker.end) == 0, worker.said
        answers.set()
    assert await value(connection, HANDED_BACK) is True


@pytest.mark.parametrize("name", ["api", "ticker", "worker"])
async def test_a_signal_that_means_nothing_to_a_program_does_not_end_it(
    database: Database, tmp_path: Path, name: str
) -> None:
    with program(name, database.url, tmp_path, ROUTINES_PORT=str(free_port())) as started:
        await asyncio.to_thread(started.until_said, '"started"')
        started.signal(signal.SIGUSR1, signal.SIGUSR2)
        assert started.process.poll() is None
        started.signal(signal.SIGHUP, signal.SIGHUP)
        assert await asyncio.to_thread(started.end) == 0
        assert '"stopped"' in started.said
