"""`routines up` as a user runs it: real processes, a real server, real signals."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import httpx
import psycopg

from routines_core.embedded import running_url
from routines_core.embedded.binaries import BINARIES_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
ROUTINES = (sys.executable, "-m", "routines_cli.main")
"""The command `routines`, by the interpreter that runs the tests."""


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Look until it is so; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment() -> dict[str, str]:
    """This process's environment without what would lead a program of Routines elsewhere."""
    ours = ("ROUTINES_", "DATABASE_URL", "ENABLE_ROUTINES", "PG")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    # Which Postgres the tests run on is the caller's choice.
    return kept | {name: os.environ[name] for name in (BINARIES_VARIABLE,) if name in os.environ}


def process_table() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process that is not a zombie."""
    ps = ["ps", "-A", "-w", "-w", "-o", "pid=,ppid=,stat=,command="]  # -w -w: no line is cut
    listed = subprocess.run(ps, capture_output=True, text=True, check=True)
    rows = (line.split(maxsplit=3) for line in listed.stdout.splitlines())
    return {int(row[0]): (int(row[1]), row[3]) for row in rows if len(row) > 3 and row[2][0] not in "ZX"}


def descendants(pid: int) -> dict[int, str]:
    """Process id and command line of everything that this process started, directly or not."""
    table = process_table()
    found = {pid}
    while more := {child for child, (parent, _) in table.items() if parent in found} - found:
        found |= more
    return {child: table[child][1] for child in found - {pid} if child in table}


class Service:
    """One `routines up` in a directory of its own.

    Args:
        directory: Its working directory; the data directory is `.routines` below it, as for a user.
        prefix: A command line that runs the rest of it in another way.
        routines: The command `routines`.
        environment: What it gets to see, over a clean environment.
    """

    process: subprocess.Popen[str]

    def __init__(
        self,
        directory: Path,
        *,
        prefix: Sequence[str] = (),
        routines: Sequence[str] = ROUTINES,
        **environment: str,
    ) -> None:
        self.directory = directory
        self.data_dir = directory / ".routines"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.command = [*prefix, *routines, "up"]
        self.environment = {**clean_environment(), "ROUTINES_PORT": str(port), **environment}

    def launch(self, *, stderr: int | IO[Any] = subprocess.DEVNULL) -> None:
        """Start it and return at once."""
        self.process = subprocess.Popen(
            self.command, cwd=self.directory, env=self.environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )

    def start(self) -> None:
        """Start it and wait until it says that it is ready; where it does not, fail with what it said."""
        with (self.directory / "up.log").open("w") as log:
            self.launch(stderr=log)
        assert self.process.stdout
        said = self.process.stdout.readline()
        assert said == f"ready {self.url}\n", (said, (self.directory / "up.log").read_text())

    def refusal(self) -> str:
        """Start what shall not start: the one line that it says before it exits with 1."""
        done = subprocess.run(
            self.command,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert not done.stdout
        [line] = done.stderr.splitlines()
        return line

    def stop(self) -> None:
        """Ask it to stop, and see that it does so in time and leaves no server behind."""
        self.process.terminate()
        assert self.process.wait(timeout=10) == 0
        assert running_url(self.data_dir) is None

    def part(self, name: str) -> int:
        """The process id of `api`, `ticker` or `worker`; one that was killed is waited for until it is back."""
        wait_until(lambda: self._parts(name))
        [pid] = self._parts(name)
        return pid

    def _parts(self, name: str) -> list[int]:
        running = descendants(self.process.pid).items()
        return [pid for pid, command in running if command.endswith(f"-m routines_cli.main {name}")]

    def database_url(self) -> str:
        """The embedded server's URL."""
        url = running_url(self.data_dir)
        assert url
        return url

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as a person at psql would; its rows."""
        with psycopg.connect(self.database_url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def client(self) -> httpx.Client:
        """An HTTP client with the demo's key."""
        key = (self.data_dir / "demo.key").read_text().strip()
        return httpx.Client(base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=10)
