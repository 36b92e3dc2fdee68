"""The processes under test: real tickers and workers, started again as soon as they end."""

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos.stretches import Violation
from chaos.wrong_clock import wrong_clock
from routines_core.lifecycle import LIFELINE_VARIABLE
from support.rows import ENCRYPTION_KEYS

WORKER_ENTRY = Path(__file__).with_name("worker_entry.py")
CLOCKS_SECONDS = (0, 3600, -3600)
"""By how much the clocks of the processes are off, in turns: the first one's is right."""
STOP_SECONDS = 20.0
"""How long a process may take to finish what it has in hand."""


@dataclass(eq=False)
class Part:
    """One ticker or worker and its present process."""

    kind: str
    process: subprocess.Popen[bytes]
    frozen: bool = False

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, where it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


@dataclass
class Fleet:
    """Tickers and workers.

    Attributes:
        directory: Where their logs and the trace of executions go.
        url_of: The DATABASE_URL for a role: each process has a role of its own, so that a write tells its writer.
        environment: Settings of the product, by environment variable.
        source: A source tree that goes before the installed one; None: what is installed.
    """

    directory: Path
    url_of: Callable[[str], str]
    environment: dict[str, str]
    source: Path | None = None
    parts: list[Part] = field(default_factory=list[Part])
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._read_end, self._write_end = os.pipe()  # the lifeline that ends them when this process ends

    @property
    def trace(self) -> Path:
        """Where workers write each execution of a step."""
        return self.directory / "executions.jsonl"

    def start(self, *, tickers: int, workers: int) -> None:
        """Start so many of each."""
        for kind in ["ticker"] * tickers + ["worker"] * workers:
            self.add(kind)

    def add(self, kind: str) -> None:
        """Start one more."""
        self.parts.append(Part(kind, self._spawn(kind)))

    def of(self, kind: str) -> list[Part]:
        """Those of one kind that run and are not frozen."""
        return [part for part in self.parts if part.kind == kind and part.alive and not part.frozen]

    async def keep(self) -> None:
        """Start again whatever has ended, until cancelled."""
        while True:
            for part in self.parts:
                if not part.alive:
                    part.process, part.frozen = self._spawn(part.kind), False
            await asyncio.sleep(0.05)

    async def stop_kind(self, kind: str) -> list[Violation]:
        """Let those of one kind finish; returns what went wrong."""
        parts = [part for part in self.parts if part.kind == kind]
        self.parts = [part for part in self.parts if part.kind != kind]
        for part in parts:
            part.send(signal.SIGCONT)
            part.send(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + STOP_SECONDS
        while any(part.alive for part in parts) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        stuck = [part for part in parts if part.alive]
        for part in stuck:
            part.process.kill()
        return [
            Violation("unsettled", f"a {part.kind} did not stop within {STOP_SECONDS:.0f} s of SIGTERM")
            for part in stuck
        ]

    def kill(self) -> None:
        """End all at once, without a word."""
        for part in self.parts:
            part.process.kill()
            part.process.wait()
        os.close(self._write_end)
        os.close(self._read_end)

    def _spawn(self, kind: str) -> subprocess.Popen[bytes]:
        number = next(self._numbers)
        plain = {name: text for name, text in os.environ.items() if not name.startswith(("ROUTINES_", "PG"))}
        environment = {
            **plain,
            **self.environment,
            **wrong_clock(CLOCKS_SECONDS[number % len(CLOCKS_SECONDS)]),
            "DATABASE_URL": self.url_of(f"chaos_{number}"),
            "CHAOS_TRACE": str(self.trace),
            "ROUTINES_LOG_FORMAT": "json",
            "ROUTINES_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
            LIFELINE_VARIABLE: str(self._read_end),
        }
        if self.source:
            environment["PYTHONPATH"] = str(self.source / "src")
        command = [str(WORKER_ENTRY)] if kind == "worker" else ["-m", "routines_cli.main", kind]
        with (self.directory / f"{kind}-{number}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=[self._read_end],
                start_new_session=True,
            )
