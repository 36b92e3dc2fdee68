"""Run `routines up` as a user does: real processes, a real server, real signals."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import httpx
import psycopg

from routines_core.embedded import running_url
from routines_core.embedded.binaries import BINARIES_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
"""The root directory of the checkout."""
ROUTINES = (sys.executable, "-m", "routines_cli.main")
"""The command `routines`, run by the interpreter that runs the tests."""


def far_minute() -> int:
    """Return a minute that is half an hour away, so that a routine fires only when the test makes it due."""
    return (datetime.now(UTC).minute + 30) % 60


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Poll until the condition holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {seconds:g} s"
        time.sleep(0.05)


def free_port() -> int:
    """Return a TCP port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the variables that would change what a program of Routines does."""
    ours = ("ROUTINES_", "DATABASE_URL", "ENABLE_ROUTINES", "PG", "OTEL_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    # The caller chooses which Postgres the tests run on.
    return kept | {name: os.environ[name] for name in (BINARIES_VARIABLE,) if name in os.environ}


def process_table() -> dict[int, tuple[int, str]]:
    """Return the parent's id and the command line of every process that is not a zombie, by process id."""
    ps = ["ps", "-A", "-w", "-w", "-o", "pid=,ppid=,stat=,command="]  # -w -w: do not truncate lines
    listed = subprocess.run(ps, capture_output=True, text=True, check=True)
    rows = (line.split(maxsplit=3) for line in listed.stdout.splitlines())
    return {int(row[0]): (int(row[1]), row[3]) for row in rows if len(row) > 3 and row[2][0] not in "ZX"}


def descendants(pid: int) -> dict[int, str]:
    """Return the command lines of all processes that this one started, directly or indirectly, by process id."""
    table = process_table()
    found = {pid}
    while more := {child for child, (parent, _) in table.items() if parent in found} - found:
        found |= more
    return {child: table[child][1] for child in found - {pid} if child in table}


class Service:
    """A `routines up` in a directory of its own.

    Args:
        directory: Its working directory. The data directory is `.routines` below it, as it is for a user.
        prefix: A command prefix, for example to run it as another account.
        routines: The command `routines`.
        environment: Environment variables, added to a clean environment.
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
        """Start the service without waiting for it to be ready."""
        self.process = subprocess.Popen(
            self.command, cwd=self.directory, env=self.environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )

    def start(self) -> None:
        """Start the service and wait until it reports that it is ready; if it does not, fail with its output."""
        with (self.directory / "up.log").open("w") as log:
            self.launch(stderr=log)
        assert self.process.stdout
        said = self.process.stdout.readline()
        assert said == f"ready {self.url}\n", (said, (self.directory / "up.log").read_text())

    def refusal(self) -> str:
        """Start a service that must refuse to start, and return its one-line message."""
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
        *named, line = done.stderr.splitlines()
        assert all("target=" in each for each in named), done.stderr  # the database that it would have worked on
        return line

    def stop(self) -> None:
        """Stop the service; fails if it takes too long or leaves a database server behind."""
        self.process.terminate()
        assert self.process.wait(timeout=10) == 0
        assert running_url(self.data_dir) is None

    def program_pid(self, name: str) -> int:
        """Return the process id of `api`, `ticker` or `worker`; waits for the restart of a program that was killed."""
        wait_until(lambda: self._program_pids(name))
        [pid] = self._program_pids(name)
        return pid

    def _program_pids(self, name: str) -> list[int]:
        running = descendants(self.process.pid).items()
        return [pid for pid, command in running if command.endswith(f"-m routines_cli.main {name}")]

    def database_url(self) -> str:
        """Return the embedded server's URL."""
        url = running_url(self.data_dir)
        assert url
        return url

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement as a person at psql would, and return its rows."""
        with psycopg.connect(self.database_url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_key(self, collection: str) -> str:
        """Create a key of a collection, and the collection if it is new; returns the key."""
        command = [*ROUTINES, "keys", "create", "--collection", collection]
        made = subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, check=True
        )
        return made.stdout.strip()

    def client(self, key: str | None = None) -> httpx.Client:
        """Return an HTTP client that uses this key; the demo key if it is left out."""
        key = key or (self.data_dir / "demo.key").read_text().strip()
        return httpx.Client(
            base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=10, verify=False
        )
