"""Temporal workers in processes of their own, to be killed."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from routines_core.lifecycle import LIFELINE_VARIABLE
from support.rows import ENCRYPTION_KEYS
from support.service import clean_environment

ENTRY = Path(__file__).parents[1] / "temporal" / "worker_entry.py"
LEASE_SECONDS = 2.0


class Workers:
    """The workers of one test. Their steps write to the file `trace`, their logs go to `log`."""

    def __init__(self, directory: Path, url: str, address: str, namespace: str) -> None:
        self.trace, self.log = directory / "trace", directory / "log"
        self.trace.touch()
        lifeline, self._lifeline_end = os.pipe()
        self._lifeline = lifeline
        self._processes: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **clean_environment(),
            "DATABASE_URL": url,
            "ROUTINES_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
            "ROUTINES_ENGINE": "temporal",
            "ROUTINES_TEMPORAL_ADDRESS": address,
            "ROUTINES_TEMPORAL_NAMESPACE": namespace,
            "ROUTINES_TEMPORAL_CHECK_SECONDS": "1",
            "ROUTINES_LEASE_SECONDS": str(LEASE_SECONDS),
            "TRACE": str(self.trace),
            LIFELINE_VARIABLE: str(lifeline),
        }

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(ENTRY)],
                env=self._environment | environment,
                stdout=log,
                stderr=log,
                pass_fds=[self._lifeline],
            )
        self._processes.append(process)
        return process

    def executions(self) -> Counter[str]:
        """Return how often each step was begun, by its idempotency key."""
        return Counter(json.loads(line)["key"] for line in self.trace.read_text("utf-8").splitlines())

    async def until(self, key: str, times: int = 1) -> None:
        """Return once a step has begun this many times."""
        async with asyncio.timeout(90):
            while self.executions()[key] < times:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def until_said(self, words: str) -> None:
        """Return once a worker has logged these words."""
        async with asyncio.timeout(90):
            while words not in self.log.read_text("utf-8"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        os.close(self._lifeline_end)
        os.close(self._lifeline)


@asynccontextmanager
async def workers_of(directory: Path, url: str, address: str, namespace: str) -> AsyncGenerator[Workers]:
    """Yield workers for the test to start; they are killed at the end of the block."""
    workers = Workers(directory, url, address, namespace)
    try:
        yield workers
    finally:
        workers.kill()
