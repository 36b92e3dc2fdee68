"""The programs of Routines in processes of their own, with what they say."""

import os
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.rows import ENCRYPTION_KEYS
from support.service import ROOT, clean_environment

SECONDS = 40.0
"""How long something may take on a busy machine."""


class Program:
    """A running program. Its log is in JSON."""

    def __init__(self, name: str, url: str, directory: Path, prefix: Sequence[str] = (), **environment: str) -> None:
        self._log = directory / f"{name}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "routines_cli.main", name],
                cwd=directory,
                env={
                    **clean_environment(),
                    "PYTHONPATH": str(ROOT / "src"),
                    "DATABASE_URL": url,
                    "ENABLE_ROUTINES": "true",
                    "ROUTINES_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
                    "ROUTINES_LOG_FORMAT": "json",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    @property
    def said(self) -> str:
        """Its log so far."""
        return self._log.read_text("utf-8")

    def until_said(self, words: str) -> None:
        """Return once it has said this."""
        deadline = time.monotonic() + SECONDS
        while words not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def signal(self, *numbers: int) -> None:
        """Send signals, one after the other."""
        for number in numbers:
            os.kill(self.process.pid, number)

    def end(self, seconds: float = SECONDS) -> int:
        """Wait for its end. Returns its exit code."""
        return self.process.wait(timeout=seconds)


@contextmanager
def program(name: str, url: str, directory: Path, prefix: Sequence[str] = (), **environment: str) -> Generator[Program]:
    """Run a program; it is killed at the end of the block if it still runs."""
    started = Program(name, url, directory, prefix, **environment)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()
