"""Behind a real PgBouncer: in session mode everything works; in other modes every program and command refuses."""

import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psycopg
import pytest

from routines_core.db import connect
from routines_core.db.migrations import Patience, migrate
from routines_core.db.sessions import PINNED, is_pooled, set_up
from routines_core.errors import MigrationError, SessionError
from support.command import COMMANDS, routines
from support.pgbouncer import asked, needs_pgbouncer, pgbouncer
from support.rows import ENCRYPTION_KEYS, Database, value
from support.schema_book import empty_database
from support.service import ROOT, Service, clean_environment, free_port
from support.stepping import session
from support.working import run_of, task_of, until_ended, workflow_of

pytestmark = [needs_pgbouncer, pytest.mark.slow]
PROGRAMS = ("api", "ticker", "worker", "up")
WAYS = ("migrate", "doctor", "keys list")
"""One command for each way in which commands connect."""
REFUSED = (
    "routines: DATABASE_URL leads to a pooler that does not keep sessions. Use its session mode (PgBouncer: pool_mode "
    "= session), or connect to Postgres directly.\n"
)


@contextmanager
def traffic(url: str) -> Generator[None]:
    """Have other clients of the pooler send one short statement after another."""
    stop = threading.Event()

    def send() -> None:
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            while not stop.is_set():
                connection.execute("SELECT 1")

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    try:
        yield
    finally:
        stop.set()
        for sender in senders:
            sender.join()


def refusal(database: Database, directory: Path, program: str) -> tuple[int, str]:
    """Start a program. Returns its exit code and the last line that it said: `up` names its database first."""
    ended = subprocess.run(
        [sys.executable, "-m", "routines_cli.main", program],
        cwd=directory,
        env={
            **clean_environment(),
            "PYTHONPATH": str(ROOT / "src"),
            "DATABASE_URL": database.url,
            "ENABLE_ROUTINES": "true",
            "ROUTINES_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
            "ROUTINES_PORT": str(free_port()),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stderr.splitlines(keepends=True)[-1]


# --- session mode -----------------------------------------------------------------------------------------------------


async def test_in_session_mode_all_programs_work(tmp_path: Path, server_url: str) -> None:
    with empty_database(server_url) as empty, pgbouncer(tmp_path, empty, "session") as pooled:
        service = Service(
            tmp_path, DATABASE_URL=pooled.url, ROUTINES_ENCRYPTION_KEYS=ENCRYPTION_KEYS, ROUTINES_LEASE_SECONDS="2"
        )
        service.start()
        try:
            async with connect(pooled.url, "tests") as connection:
                task = await task_of(connection, "echo", workflow_of(("one", {"activity": "text_echo", "text": "x"})))
                assert await until_ended(connection, await run_of(connection, task)) == ("completed", None)
                listening = (
                    "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'routines-worker-wakeup'"
                )
                assert await value(connection, listening)
        finally:
            service.stop()


async def test_in_session_mode_a_session_has_its_settings_and_its_role(tmp_path: Path, database: Database) -> None:
    with pgbouncer(tmp_path, database, "session", default_pool_size=1) as pooled:
        for role in ("routines_api", "routines_ticker"):
            async with connect(pooled.url, "tests", role=role, statement_timeout="7s") as connection:
                assert await is_pooled(connection)
                assert await value(connection, "SELECT current_user::text") == role
                for name, setting in {**PINNED, "statement_timeout": "7s"}.items():
                    assert await value(connection, f"SELECT current_setting('{name}', true)") in {setting, None}
        assert asked(pooled.url, "SELECT current_setting('role')") == "none"


async def test_in_session_mode_a_migration_names_the_session_in_its_way(tmp_path: Path, database: Database) -> None:
    (tmp_path / "migrations").mkdir()
    for path in [*(ROOT / "sql" / "migrations").glob("*.sql")]:
        (tmp_path / "migrations" / path.name).write_text(path.read_text("utf-8"))
    (tmp_path / "migrations" / "21000101T000000_more.sql").write_text("LOCK TABLE routines.tasks;")
    with pgbouncer(tmp_path, database, "session") as pooled:
        async with session(database, "reader") as reader, connect(pooled.url, "migrator") as migrator:
            await reader.execute("BEGIN")
            await value(reader, "SELECT count(*) FROM routines.tasks")
            with pytest.raises(MigrationError, match=f"pid {reader.info.backend_pid} "):
                await migrate(migrator, tmp_path / "migrations", patience=Patience(0.5, 0.1, attempts=1))


# --- other modes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool_mode", ["transaction", "statement"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_in_other_modes_no_connection_is_made(
    tmp_path: Path, database: Database, pool_mode: str, *, busy: bool
) -> None:
    with pgbouncer(tmp_path, database, pool_mode) as pooled:
        with traffic(pooled.url) if busy else nullcontext():
            begun_at = time.monotonic()
            with pytest.raises(SessionError, match="pool_mode = session"):
                async with connect(pooled.url, "tests", role="routines_api"):
                    pass
            assert time.monotonic() - begun_at < 10
        # Nothing of it is left in sessions that others get.
        assert asked(pooled.url, "SELECT current_setting('role')") == "none"
        assert asked(pooled.url, "SELECT current_setting('search_path')") != PINNED["search_path"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_in_transaction_mode_a_program_refuses_to_start_in_one_line(
    tmp_path: Path, database: Database, program: str
) -> None:
    with pgbouncer(tmp_path, database, "transaction") as pooled:
        assert refusal(pooled, tmp_path, program) == (1, REFUSED)


@pytest.mark.parametrize("command", WAYS)
def test_in_transaction_mode_a_command_refuses_in_one_line(tmp_path: Path, database: Database, command: str) -> None:
    with pgbouncer(tmp_path, database, "transaction") as pooled:
        refused = routines(pooled, *COMMANDS[command])
        assert (refused.returncode, refused.stderr) == (1, REFUSED)


async def test_a_session_that_loses_its_settings_is_refused(tmp_path: Path, database: Database) -> None:
    """A pooler may be switched to transaction mode while a program runs, which asks only once."""
    with pgbouncer(tmp_path, database, "transaction", server_round_robin=1) as pooled:
        async with await psycopg.AsyncConnection.connect(pooled.url, autocommit=True) as one:
            async with await psycopg.AsyncConnection.connect(pooled.url) as two:
                await two.execute("SELECT 1")  # in a transaction, so that `one` makes the pooler open another session
                await one.execute("SELECT 1")
            with pytest.raises(SessionError, match="does not keep what is set in it"):
                await set_up(one, None, {})
