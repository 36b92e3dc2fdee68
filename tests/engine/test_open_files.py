"""A worker without file descriptors is in trouble of its own: no step and no receiver is blamed for it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from routines_core.db import Connection
from support.endpoint import Said, serving
from support.programs import program
from support.rows import Database, value
from support.service import ROOT
from support.working import run_of, task_of, until, workflow_of

pytestmark = pytest.mark.slow
RUNS = 100
CALLS = """
import asyncio, os, resource, sys
from routines_core.diagnosis import is_own_trouble
from routines_core.guarded_http import guarded_client
from routines_engine.webhooks.deliveries import send

async def call(url):
    async with guarded_client(allow_private=True, timeout_seconds=5) as client:
        await send(client, url, b"{}", {})
        held = []
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        try:
            outcome = await send(client, url, b"{}", {})
        except Exception as error:
            return is_own_trouble(error)
        finally:
            for each in held:
                os.close(each)
        return outcome.error

resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(asyncio.run(call(sys.argv[1])))
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_webhook_that_finds_no_descriptor_is_not_blamed_on_the_receiver(host: str) -> None:
    with serving() as endpoint:
        done = subprocess.run(
            [sys.executable, "-c", CALLS, endpoint.url.replace("127.0.0.1", host)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout == "True\n", done.stderr


async def test_no_run_fails_because_its_process_has_too_few_descriptors(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    together = threading.Semaphore(0)
    with serving() as endpoint:
        # Each answer takes a moment, so that the requests are many at once.
        endpoint.answer = lambda _: Said(200 if not together.acquire(timeout=0.3) else 500)
        step = {"activity": "http_request", "url": endpoint.url, "retry": {"max_attempts": 1}}
        task = await task_of(connection, "t", workflow_of(("call", step)))
        for _ in range(RUNS):
            await run_of(connection, task)
        few = ("prlimit", "--nofile=56:56")
        with program("worker", database.url, tmp_path, few, ROUTINES_WEBHOOK_ALLOW_PRIVATE="true") as worker:
            await until(connection, "SELECT count(*) = %s FROM routines.trajectories WHERE ended_at IS NOT NULL", RUNS)
            assert "step held off" in worker.said, "there were descriptors enough"
    assert await value(connection, "SELECT count(*) FROM routines.trajectories WHERE status = 'completed'") == RUNS
    assert await value(connection, "SELECT max(attempt) FROM routines.steps") == 1
