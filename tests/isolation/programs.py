"""The programs under attack, as in production: one API, one ticker and one worker, with their use of resources."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from routines_core.lifecycle import LIFELINE_VARIABLE
from support.rows import ENCRYPTION_KEYS
from support.serving import free_port, wait_until

ENTRY = Path(__file__).with_name("entry.py")
MIB = 1024 * 1024
STEP_PROCESSES = "step process"
"""The name for child processes of the worker."""
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Stall:
    """A stall of an event loop.

    Attributes:
        at: When it began, by time.monotonic().
        where: The innermost frames; empty if the meter did not sample them.
    """

    program: str
    at: float
    seconds: float
    where: str


@dataclass
class Programs:
    """The three programs on one database.

    Attributes:
        directory: For their logs, files and recorded stalls.
        environment: Settings on top of the defaults of production.
        source: A mutant's source tree, used instead of the installed one.
        peaks: Peak resident memory in bytes since `forget_peaks`, by program; for step processes, that of the largest.
    """

    directory: Path
    database_url: str
    environment: dict[str, str] = field(default_factory=dict[str, str])
    source: Path | None = None
    api_url: str = ""
    peaks: dict[str, int] = field(default_factory=dict[str, int])
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, subprocess.Popen[bytes]])
    _ports: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def files(self) -> Path:
        """The directory of the file store, which has a folder for each collection."""
        return self.directory / "files"

    def start(self) -> None:
        """Start all programs and wait until each reports that it is healthy."""
        self._lifeline, self._held = os.pipe()
        for name in ("api", "ticker", "worker"):
            self._ports[name] = free_port()
            self.processes[name] = self._spawn(name)
        self.api_url = f"http://127.0.0.1:{self._ports['api']}"
        for name in self.processes:
            wait_until(lambda name=name: self.ended() or self.is_healthy(name))
        for name in self.ended():
            raise AssertionError(f"the {name} did not start: {(self.directory / f'{name}.log').read_text()[-2000:]}")

    def is_healthy(self, name: str) -> bool:
        """Return True if the program reports within two seconds that it is healthy."""
        path = "/api/v1/health" if name == "api" else "/health"
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self._ports[name]}{path}", timeout=2, verify=False).is_success
        return False

    def stop(self) -> None:
        """Ask all programs to stop, and kill those that do not."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        os.close(self._held)
        os.close(self._lifeline)

    def ended(self) -> dict[str, int]:
        """Return the programs that have exited on their own, with their exit codes."""
        return {name: code for name, process in self.processes.items() if (code := process.poll()) is not None}

    def stalls(self, begin: float, end: float) -> list[Stall]:
        """Return the stalls that began between these times, longest first."""
        found: list[Stall] = []
        for name in self.processes:
            path = self._stalls_path(name)
            lines = path.read_text().splitlines() if path.exists() else []
            found += [Stall(name, **json.loads(line)) for line in lines]
        return sorted((each for each in found if begin <= each.at < end), key=lambda each: -each.seconds)

    def forget_peaks(self) -> None:
        """Reset the peaks to the memory in use now."""
        self.peaks = {}
        for process in self.processes.values():
            with contextlib.suppress(OSError):
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")

    def note_peaks(self) -> None:
        """Record the peak memory of each program. Called often, since step processes come and go."""
        for name, process in self.processes.items():
            self._note(name, process.pid)
        for pid in children_of(self.processes["worker"].pid):
            self._note(STEP_PROCESSES, pid)

    def cpu_seconds(self) -> dict[int, float]:
        """Return the processor time used by the programs and step processes, by process id."""
        own = [process.pid for process in self.processes.values()]
        return {pid: cpu_seconds(pid) for pid in [*own, *children_of(self.processes["worker"].pid)]}

    def running(self) -> dict[int, str]:
        """Return the programs and step processes that work or wait for a core at this moment, by process id."""
        own = {process.pid: name for name, process in self.processes.items()}
        steps = dict.fromkeys(children_of(self.processes["worker"].pid), STEP_PROCESSES)
        return {pid: name for pid, name in (own | steps).items() if state_of(pid) == "R"}

    def _note(self, name: str, pid: int) -> None:
        self.peaks[name] = max(self.peaks.get(name, 0), peak_bytes(pid))

    def _stalls_path(self, name: str) -> Path:
        return self.directory / f"{name}.stalls"

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        plain = {key: text for key, text in os.environ.items() if not key.startswith(("ROUTINES_", "PG"))}
        port = "ROUTINES_PORT" if name == "api" else "ROUTINES_METRICS_PORT"
        environment = {
            **plain,
            "DATABASE_URL": self.database_url,
            "ENABLE_ROUTINES": "true",
            "ROUTINES_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
            "ROUTINES_WEBHOOK_ALLOW_PRIVATE": "true",
            "ROUTINES_FILES": str(self.files),
            "ROUTINES_LOG_FORMAT": "json",
            port: str(self._ports[name]),
            LIFELINE_VARIABLE: str(self._lifeline),
            "ISOLATION_STALLS": str(self._stalls_path(name)),
            **self.environment,
        }
        if self.source:
            environment["PYTHONPATH"] = str(self.source / "src")
        with (self.directory / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, str(ENTRY), name],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._lifeline],
            )


@contextmanager
def running(programs: Programs) -> Generator[Programs]:
    """Run the programs for the duration of the block."""
    try:
        programs.start()
        yield programs
    finally:
        programs.stop()


def peak_bytes(pid: int) -> int:
    """Return the peak resident memory of a process; 0 if it has exited."""
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/status").open() as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in seconds; 0 if it has exited."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def state_of(pid: int) -> str:
    """Return the state of a process's main thread as in `ps`, such as R for running; empty if it has exited."""
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].strip()[:1]


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's children."""
    with contextlib.suppress(OSError):
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in _read(task / "children").split()]
    return []


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
