"""Every program and command compares the schema with its version: older is refused, newer accepted, missing awaited."""

import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg
import pytest

from support.command import COMMANDS, TASK, routines
from support.rows import ENCRYPTION_KEYS, Database
from support.sampling import sample
from support.schema_book import empty_database
from support.service import ROOT, clean_environment, free_port, wait_until

pytestmark = pytest.mark.slow
NEXT = "21000101T000000_next"
"""The migration that the next version brings."""
OLDER = f"older than this version of Routines: 1 migrations are pending, the first is {NEXT}. Run `routines migrate`."
NEWER = f"newer than this version of Routines, by 1 migrations up to {NEXT}. Continuing; install the newer version."
MISSING = "no schema yet, waiting for `routines migrate`"
EXAMINING = [command for command in COMMANDS if command != "migrate"]


class Program(NamedTuple):
    """A program, and the words that it logs once it works; None for the API, which answers."""

    command: str
    works: str | None
    environment: dict[str, str] = {}  # noqa: RUF012 - never changed


PROGRAMS = {
    "api": Program("api", None),
    "ticker": Program("ticker", "connected"),
    "worker": Program("worker", "working"),
    "temporal worker": Program("worker", "working", {"ROUTINES_ENGINE": "temporal"}),
}


@pytest.fixture(scope="module")
def next_version(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The PYTHONPATH of the next version: the same programs, and one more migration."""
    directory = tmp_path_factory.mktemp("next")
    for part in ("src", "sql"):
        shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "sql" / "migrations" / f"{NEXT}.sql").write_text("CREATE TABLE routines.next ();")
    return str(directory / "src")


@pytest.fixture
def newer(database: Database, next_version: str) -> Database:
    """A database that the next version has migrated."""
    assert routines(database, "migrate", PYTHONPATH=next_version).stdout.startswith(f"applied {NEXT}")
    return database


@pytest.fixture
def empty(server_url: str) -> Iterator[Database]:
    """A database that was never migrated."""
    with empty_database(server_url) as made:
        yield made


class Running:
    """A program in a process of its own."""

    def __init__(self, database: Database, directory: Path, program: Program, **environment: str) -> None:
        self._log = directory / "log"
        self._works, self._port = program.works, free_port()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "routines_cli.main", program.command],
                cwd=directory,
                env={
                    **clean_environment(),
                    "PYTHONPATH": str(ROOT / "src"),
                    "DATABASE_URL": database.url,
                    "ROUTINES_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
                    "ROUTINES_PORT": str(self._port),
                    **program.environment,
                    **environment,
                },
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    @property
    def said(self) -> str:
        return self._log.read_text("utf-8")

    def works(self) -> bool:
        """Return whether it does its work."""
        assert self.process.poll() is None, self.said
        if self._works is not None:
            return self._works in self.said
        try:
            return httpx.get(f"http://127.0.0.1:{self._port}/api/v1/health").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running(database: Database, directory: Path, program: Program, **environment: str) -> Generator[Running]:
    """Run a program, which must stop when it is told to."""
    started = Running(database, directory, program, **environment)
    try:
        yield started
        started.process.terminate()
        assert started.process.wait(timeout=20) == 0, started.said
    finally:
        started.process.kill()
        started.process.wait()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_refuses_an_older_schema_in_one_line(
    database: Database, next_version: str, tmp_path: Path, program: str
) -> None:
    started = Running(database, tmp_path, PROGRAMS[program], PYTHONPATH=next_version)
    try:
        assert started.process.wait(timeout=30) == 1
    finally:
        started.process.kill()
    assert started.said == f"routines: The database schema is {OLDER}\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_works_with_a_newer_schema_and_says_so(newer: Database, tmp_path: Path, program: str) -> None:
    with running(newer, tmp_path, PROGRAMS[program]) as started:
        wait_until(started.works)
        assert NEWER in started.said


@pytest.mark.parametrize("program", sample(PROGRAMS, 2))
def test_a_program_waits_for_a_schema_and_says_so(empty: Database, tmp_path: Path, program: str) -> None:
    with running(empty, tmp_path, PROGRAMS[program]) as started:
        wait_until(lambda: MISSING in started.said)
        assert not started.works()
        assert routines(empty, "migrate").returncode == 0
        wait_until(started.works)
        assert started.said.count(MISSING) == 1


@pytest.mark.parametrize("program", sample(PROGRAMS, 2))
def test_a_program_that_waits_for_a_schema_stops_when_it_is_told_to(
    empty: Database, tmp_path: Path, program: str
) -> None:
    with running(empty, tmp_path, PROGRAMS[program]) as started:
        wait_until(lambda: MISSING in started.said)


@pytest.mark.parametrize("program", sample(PROGRAMS, 2))
def test_a_program_that_waited_for_the_database_refuses_an_older_schema(
    database: Database, next_version: str, tmp_path: Path, program: str
) -> None:
    with psycopg.connect(database.url, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())  # as on a standby
    started = Running(database, tmp_path, PROGRAMS[program], PYTHONPATH=next_version)
    try:
        wait_until(lambda: "refused, retrying" in started.said and "25006" in started.said)
        with psycopg.connect(database.url, autocommit=True) as admin:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'.encode())
        assert started.process.wait(timeout=30) == 1
    finally:
        started.process.kill()
    assert started.said.endswith(f"routines: The database schema is {OLDER}\n")


def test_up_works_with_a_newer_schema_and_says_so(newer: Database, tmp_path: Path) -> None:
    with running(newer, tmp_path, Program("up", "console available")) as started:
        wait_until(started.works)
        wait_until(lambda: started.said.count(NEWER) == 1 + len({"api", "ticker", "worker"}))


@pytest.mark.parametrize("command", sample(EXAMINING, 5))
def test_a_command_refuses_an_older_schema_in_one_line(database: Database, next_version: str, command: str) -> None:
    done = routines(
        database, *COMMANDS[command], stdin=TASK if command == "tasks apply" else "", PYTHONPATH=next_version
    )
    assert done.returncode == 1
    if command.startswith("doctor"):
        assert f"schema    The database schema is {OLDER}\n" in done.stdout
    else:
        assert (done.stdout, done.stderr) == ("", f"routines: The database schema is {OLDER}\n")


@pytest.mark.parametrize("command", sample(COMMANDS, 5))
def test_a_command_works_with_a_newer_schema_and_says_so(newer: Database, command: str) -> None:
    assert routines(newer, "keys", "create", "--collection", "my-org").returncode == 0
    done = routines(newer, *COMMANDS[command], stdin=TASK if command == "tasks apply" else "")
    assert (done.returncode, "newer than this version" in done.stdout + done.stderr) == (0, True), done.stderr
