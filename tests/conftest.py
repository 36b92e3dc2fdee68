"""Provide the Postgres server that every test talks to, and a migrated database for each test that asks for one.

The first available server wins: ROUTINES_TEST_DATABASE_URL; the binaries in ROUTINES_POSTGRES_BIN; a testcontainers
container if a Docker daemon answers; the embedded server. With ROUTINES_TEST_HOSTILE, every database has settings that
change how values read, which no program may notice.
"""

import asyncio
import logging
import os
import secrets
import shutil
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import structlog

from routines_core.db import Connection, connect
from routines_core.db.migrations import migrate
from routines_core.embedded import EmbeddedServer
from routines_core.embedded.binaries import BINARIES_VARIABLE
from support.hostile_settings import make_hostile
from support.rows import Database, with_database
from support.sampling import IS_SAMPLED

BROWSER = "tests/browser/"
LONG_WAITS = ("tests/chaos/test_chaos.py", BROWSER, "tests/chaos/test_mutants.py", "tests/temporal/test_crashes.py")
ALWAYS_WHOLE = ("tests/chaos/test_mutants.py", "tests/security")
SLOW_SHARE = 20
"""Of the slow tests of a file, a sample has the first, and then one of so many."""
ALWAYS_TRIED = 3
"""So many cases of a test are in every sample."""
CASES_SHARE = 20
"""Of its other cases, a sample has one of so many."""
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 6 * 2**30
"""How much must be free there."""
CHAOS_SEED = os.environ.get("ROUTINES_CHAOS_SEED") or str(secrets.randbelow(2**32))
# xdist's worker processes inherit the seed; their own output, and so their report header, is not shown.
os.environ["ROUTINES_CHAOS_SEED"] = CHAOS_SEED


def pytest_xdist_auto_num_workers() -> int:
    """Return two more processes than processors: tests spend half of their time waiting."""
    return (os.cpu_count() or 1) + 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files that wait for minutes first, so that other tests use the processors in the meantime.

    One process takes a whole file, and one takes all that need the browser: each would start a browser of its own.
    Of a sample, leave out most slow tests of a file, and most cases of a test that has many.
    """
    items.sort(key=lambda item: not item.nodeid.startswith(LONG_WAITS))
    for item in items:
        file = item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(BROWSER if file.startswith(BROWSER) else file))
    if IS_SAMPLED:
        slow, cases = Counter[str](), Counter[str]()
        left_out = {
            item
            for item in items
            if (_is_slow(item) and _counted(slow, item, "::") % SLOW_SHARE != 1)
            or (_counted(cases, item, "[") > ALWAYS_TRIED and cases[item.nodeid.partition("[")[0]] % CASES_SHARE)
        }
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None and not item.nodeid.startswith(ALWAYS_WHOLE)


def _counted(seen: Counter[str], item: pytest.Item, separator: str) -> int:
    """Count an item with those whose id has the same part before the separator: its file, or its test."""
    part = item.nodeid.partition(separator)[0]
    seen[part] += 1
    return seen[part]


def pytest_report_header() -> str:
    return f"chaos: ROUTINES_CHAOS_SEED={CHAOS_SEED}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts of faults and slots that the chaos run reported."""
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, text in report.user_properties:
            if name == "chaos":
                terminalreporter.write_sep("=", "chaos")
                terminalreporter.write_line(str(text))


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Undo the logging that a test configured: a logger that kept its captured stderr would fail in the next test."""
    configure, root = structlog.configure, logging.getLogger()
    handlers, level = set(root.handlers), root.level
    monkeypatch.setattr(
        structlog, "configure", lambda **given: configure(**given | {"cache_logger_on_first_use": False})
    )
    yield
    structlog.reset_defaults()
    for handler in root.handlers[:]:
        if type(handler).__module__ == "routines_core.logging" and handler not in handlers:
            root.removeHandler(handler)
    root.setLevel(level)


def _docker_answers() -> bool:
    try:
        import docker

        docker.from_env().ping()
    except Exception:  # noqa: BLE001 - whatever the error, there is no daemon to use
        return False
    return True


@contextmanager
def _container() -> Generator[str]:
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer("postgres:18", driver=None) as container:
        yield container.get_connection_url()


@contextmanager
def _embedded(data_dir: Path) -> Generator[str]:
    server = EmbeddedServer(data_dir, settings={"fsync": "off", "synchronous_commit": "off", "max_wal_size": "128MB"})
    server.start()
    try:
        yield server.url("postgres")
    finally:
        server.stop()


@contextmanager
def _data_dir(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """Yield a directory for a server's data: in memory where there is room.

    Each test copies and drops a database of 300 files. On ext4 that took a third of the CPU time of all tests, because
    it looks for inodes that were not deleted in the last seconds.
    """
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < MEMORY_BYTES:
        yield tmp_path_factory.mktemp("postgres")
        return
    for left in MEMORY.glob("routines-tests-*"):  # by a process that was killed
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    directory = MEMORY / f"routines-tests-{os.getpid()}"
    directory.mkdir(0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Yield the URL of a server on which tests may create databases."""
    given = os.environ.get("ROUTINES_TEST_DATABASE_URL")
    if given:
        yield given
        return
    if BINARIES_VARIABLE not in os.environ and _docker_answers():
        with _container() as url:
            yield url
    else:
        with _data_dir(tmp_path_factory) as directory, _embedded(directory) as url:
            yield url


@pytest.fixture(scope="session")
def template(server_url: str) -> str:
    """Create a migrated database to copy for each test, and return its name."""
    name = f"routines_template_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    asyncio.run(_migrate(with_database(server_url, name)))
    return name


async def _migrate(url: str) -> None:
    async with connect(url, "tests") as connection:
        await migrate(connection)


@pytest.fixture
def database(server_url: str, template: str) -> Generator[Database]:
    """Yield an empty, migrated database."""
    name = f"routines_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        if os.environ.get("ROUTINES_TEST_HOSTILE"):
            make_hostile(with_database(server_url, name))
        yield Database(with_database(server_url, name))
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def connection(database: Database) -> AsyncGenerator[Connection]:
    """Yield a connection to the test's database."""
    async with connect(database.url, "tests") as opened:
        yield opened
