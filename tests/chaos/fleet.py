"""Run the processes under test: real tickers and workers, restarted as soon as they end."""

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
from chaos.wrong_clock import SECONDS_VARIABLE, wrong_clock
from routines_core.lifecycle import LIFELINE_VARIABLE
from support.rows import ENCRYPTION_KEYS

WORKER_ENTRY = Path(__file__).with_name("worker_entry.py")
CLOCKS_SECONDS = (0, 3600, -3600)
"""How far the clocks of successive processes are off from the database's; the first one's is right."""
STOP_SECONDS = 20.0
"""How long a process may take to stop after SIGTERM."""


@dataclass(eq=False)
class Program:
    """A ticker or worker and its current process."""

    kind: str
    process: subprocess.Popen[bytes]
    frozen: bool = False

    @property
    def alive(self) -> bool:
        """Return whether the process is running."""
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process if it is still running."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


@dataclass
class Fleet:
    """Tickers and workers.

    Attributes:
        directory: Where their logs and the trace of executions go.
        url_of: Returns the DATABASE_URL for a role. Each process has its own role, so a write reveals its writer.
        environment: Settings of the product, by environment variable.
        source: A source tree that takes precedence over the installed one; None to use the installed one.
        clock_seconds: How far the database's clock is ahead of the machine's.
    """

    directory: Path
    url_of: Callable[[str], str]
    environment: dict[str, str]
    source: Path | None = None
    clock_seconds: int = 0
    programs: list[Program] = field(default_factory=list[Program])
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.lifeline, self._write_end = os.pipe()  # the programs end when this process does

    @property
    def trace(self) -> Path:
        """Return the file in which workers record each execution of a step."""
        return self.directory / "executions.jsonl"

    def start(self, *, tickers: int, workers: int) -> None:
        """Start this many of each."""
        for kind in ["ticker"] * tickers + ["worker"] * workers:
            self.add(kind)

    def add(self, kind: str) -> None:
        """Start one more."""
        self.programs.append(Program(kind, self._spawn(kind)))

    def of(self, kind: str) -> list[Program]:
        """Return the programs of one kind that are running and not frozen."""
        return [program for program in self.programs if program.kind == kind and program.alive and not program.frozen]

    async def keep(self) -> None:
        """Restart every program that has ended, until cancelled."""
        while True:
            for program in self.programs:
                if not program.alive:
                    program.process, program.frozen = self._spawn(program.kind), False
            await asyncio.sleep(0.05)

    async def stop_kind(self, kind: str) -> list[Violation]:
        """Let all programs of one kind finish; return what went wrong."""
        programs = [program for program in self.programs if program.kind == kind]
        self.programs = [program for program in self.programs if program.kind != kind]
        for program in programs:
            program.send(signal.SIGCONT)
            program.send(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + STOP_SECONDS
        while any(program.alive for program in programs) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        stuck = [program for program in programs if program.alive]
        for program in stuck:
            program.process.kill()
        return [
            Violation("unsettled", f"a {program.kind} did not stop within {STOP_SECONDS:.0f} s of SIGTERM")
            for program in stuck
        ]

    def kill(self) -> None:
        """Kill all of them at once."""
        for program in self.programs:
            program.process.kill()
            program.process.wait()
        os.close(self._write_end)
        os.close(self.lifeline)

    def _spawn(self, kind: str) -> subprocess.Popen[bytes]:
        number = next(self._numbers)
        plain = {name: text for name, text in os.environ.items() if not name.startswith(("ROUTINES_", "PG"))}
        clock = wrong_clock(self.clock_seconds + CLOCKS_SECONDS[number % len(CLOCKS_SECONDS)])
        environment = {
            **plain,
            **self.environment,
            **clock,
            "CHAOS_OFF_BY_SECONDS": str(int(clock.get(SECONDS_VARIABLE, "0")) - self.clock_seconds),
            "DATABASE_URL": self.url_of(f"chaos_{number}"),
            "CHAOS_TRACE": str(self.trace),
            "ROUTINES_LOG_FORMAT": "json",
            "ROUTINES_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
            LIFELINE_VARIABLE: str(self.lifeline),
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
                pass_fds=[self.lifeline],
                start_new_session=True,
            )
