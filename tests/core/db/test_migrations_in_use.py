"""Migrations of a database that is in use wait briefly for locks, name the blocker, and hold nobody up."""

import asyncio
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from routines_core.db import Connection, connect
from routines_core.db.migrations import Patience, migrate
from routines_core.db.statements import sql_dir
from routines_core.errors import MigrationError
from support.rows import Database, value
from support.stepping import session, until, until_blocked

MORE = "21000101T000000_more"
LOCK_SECONDS = 0.5
MARGIN_SECONDS = 2.0
"""Allowance for a busy machine."""
MIGRATE = """
import asyncio, sys
from pathlib import Path
from routines_core.db import connect
from routines_core.db.migrations import Patience, migrate

async def main():
    async with connect(sys.argv[1], "routines-migrate") as connection:
        await migrate(connection, Path(sys.argv[2]), patience=Patience(lock_seconds=60))

asyncio.run(main())
"""
WAITS = """SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'routines-migrate'
           AND datname = current_database() AND wait_event_type = 'Lock'"""
INDEX = "21000103T000000_index"
CREATE_INDEX = """-- locks: routines.trajectories SHARE UPDATE EXCLUSIVE
-- reads: routines.trajectories
DROP INDEX CONCURRENTLY IF EXISTS routines.made_up_idx;
CREATE INDEX CONCURRENTLY made_up_idx ON routines.trajectories (updated_at);
"""
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('routines.made_up_idx')"
GONE = """SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'routines-migrate'
          AND datname = current_database()"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The migrations and one more, which needs an exclusive lock."""
    directory = Path(shutil.copytree(sql_dir() / "migrations", tmp_path / "migrations"))
    (directory / f"{MORE}.sql").write_text("ALTER TABLE routines.trajectories ADD COLUMN more text;")
    return directory


@pytest.fixture
async def reader(database: Database) -> AsyncGenerator[Connection]:
    """A session that has read the runs and is idle in its transaction."""
    async with session(database, "forgotten") as opened:
        await opened.execute("BEGIN")
        await value(opened, "SELECT count(*) FROM routines.trajectories")
        yield opened


async def test_a_migration_in_the_queue_holds_nobody_up_for_long_and_says_who_is_in_the_way(
    connection: Connection, database: Database, reader: Connection, files: Path
) -> None:
    pid, longest = reader.info.backend_pid, 0.0
    patience = Patience(lock_seconds=LOCK_SECONDS, pause_seconds=0.1, attempts=1000)
    async with connect(database.url, "migrator") as own:
        with capture_logs() as logs:
            migrating = asyncio.create_task(migrate(own, files, patience=patience))
            while len(logs) < 3:
                begun_at = time.monotonic()
                await value(connection, "SELECT count(*) FROM routines.trajectories")
                longest = max(longest, time.monotonic() - begun_at)
                await asyncio.sleep(0.01)
            await reader.execute("ROLLBACK")
            assert [migration.name for migration in await migrating] == [MORE]
    assert LOCK_SECONDS / 2 < longest < LOCK_SECONDS + MARGIN_SECONDS
    assert {log["event"] for log in logs} == {"migration waits for a lock"}
    assert logs[0]["migration"] == MORE
    assert logs[0]["holder"].startswith(f"pid {pid} (forgotten of {reader.info.user}, idle in transaction since 20")


async def test_a_migration_that_never_gets_its_lock_names_the_session_and_how_to_end_it(
    connection: Connection, reader: Connection, files: Path
) -> None:
    patience = Patience(lock_seconds=LOCK_SECONDS, pause_seconds=0.1, attempts=2)
    since = await value(connection, "SELECT to_char(xact_start, 'YYYY-MM-DD HH24:MI:SS\"Z\"') FROM pg_stat_activity "
                        "WHERE pid = %s", reader.info.backend_pid)  # fmt: skip
    with pytest.raises(MigrationError) as caught:
        await migrate(connection, files, patience=patience)
    said, pid = str(caught.value), reader.info.backend_pid
    assert f"{MORE} did not get its locks in 2 attempts of 0.5 s: pid {pid} (forgotten of" in said
    assert f"idle in transaction since {since})" in said
    assert f"SELECT pg_terminate_backend({pid})" in said
    assert await value(connection, "SELECT count(*) FROM routines.schema_migrations WHERE name = %s", MORE) == 0


async def test_a_killed_migration_leaves_the_queue(
    connection: Connection, database: Database, reader: Connection, files: Path
) -> None:
    assert reader
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes no time
        [sys.executable, "-c", MIGRATE, database.url, str(files)]
    )
    try:
        await until(connection, WAITS)
        process.send_signal(signal.SIGKILL)
        begun_at = time.monotonic()
        await until(connection, GONE)
        await value(connection, "SELECT count(*) FROM routines.trajectories")
        assert time.monotonic() - begun_at < 1 + MARGIN_SECONDS
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def index_files(tmp_path: Path) -> Path:
    """The migrations and one more, which builds an index while rows are written."""
    directory = Path(shutil.copytree(sql_dir() / "migrations", tmp_path / "index-migrations"))
    (directory / f"{INDEX}.sql").write_text(CREATE_INDEX)
    return directory


@pytest.fixture
async def writer(database: Database) -> AsyncGenerator[Connection]:
    """A session that has written runs and is idle in its transaction."""
    async with session(database, "forgotten") as opened:
        await opened.execute("BEGIN")
        await opened.execute("UPDATE routines.trajectories SET labels = '[]'")
        yield opened


async def test_an_index_is_built_while_rows_are_written_and_says_which_transaction_it_waits_for(
    connection: Connection, database: Database, writer: Connection, index_files: Path
) -> None:
    async with connect(database.url, "migrator") as own, connect(database.url, "second") as second:
        with capture_logs() as logs:
            migrating = asyncio.create_task(migrate(own, index_files))
            while not logs:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.05)
            waiting = asyncio.create_task(migrate(second, index_files))
            begun_at = time.monotonic()
            await connection.execute("INSERT INTO routines.collections (name) VALUES ('other')")
            await connection.execute("DELETE FROM routines.trajectories")
            assert time.monotonic() - begun_at < MARGIN_SECONDS
            assert not migrating.done()
            await writer.execute("ROLLBACK")
            assert [migration.name for migration in await migrating] == [INDEX]
            assert await waiting == []
    assert logs[0]["event"] == "index waits for a transaction"
    assert (logs[0]["migration"], logs[0]["holder"].split(" (")[0]) == (INDEX, f"pid {writer.info.backend_pid}")
    assert await value(connection, IS_VALID) is True


async def test_a_migrator_says_once_that_it_waits_for_another_one(connection: Connection, database: Database) -> None:
    async with connect(database.url, "first") as first, connect(database.url, "second") as second:
        with capture_logs() as logs:
            async with session(database, "third") as third, third.transaction():
                await third.execute("LOCK TABLE routines.schema_migrations")
                applying = asyncio.create_task(migrate(first, patience=Patience(lock_seconds=20.0)))
                await until_blocked(connection, first)
                waiting = asyncio.create_task(migrate(second))
                while not logs:  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.05)
            assert (await applying, await waiting) == ([], [])
        [told] = logs
        assert told["event"] == "another program applies migrations"
        assert told["holder"] == f"pid {first.info.backend_pid}"


async def test_an_index_whose_build_was_interrupted_is_built_again(
    connection: Connection, database: Database, writer: Connection, index_files: Path
) -> None:
    async with connect(database.url, "migrator") as own:
        migrating = asyncio.create_task(migrate(own, index_files))
        await until(connection, f"SELECT EXISTS ({IS_VALID})")
        await connection.execute("SELECT pg_terminate_backend(%s, 10000)", [own.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            await migrating
    await writer.execute("ROLLBACK")
    assert await value(connection, IS_VALID) is False
    assert [migration.name for migration in await migrate(connection, index_files)] == [INDEX]
    assert await value(connection, IS_VALID) is True


async def test_an_index_that_was_built_but_not_recorded_is_built_again(
    connection: Connection, index_files: Path
) -> None:
    await connection.execute("CREATE INDEX made_up_idx ON routines.trajectories (created_at)")
    assert [migration.name for migration in await migrate(connection, index_files)] == [INDEX]
    assert await value(connection, "SELECT pg_get_indexdef('routines.made_up_idx'::regclass) LIKE '%%(updated_at)'")


async def test_an_index_is_dropped_while_rows_are_written(connection: Connection, index_files: Path) -> None:
    await migrate(connection, index_files)
    drop = index_files / "21000104T000000_drop.sql"
    drop.write_text("DROP INDEX CONCURRENTLY IF EXISTS routines.made_up_idx;")
    assert [migration.name for migration in await migrate(connection, index_files)] == [drop.stem]
    assert await value(connection, IS_VALID) is None


@pytest.mark.parametrize(
    "text",
    [
        CREATE_INDEX + "SELECT 1;",
        CREATE_INDEX.replace("DROP INDEX CONCURRENTLY IF EXISTS routines.made_up_idx;\n", ""),
        CREATE_INDEX.replace("CONCURRENTLY made_up_idx", "CONCURRENTLY another_idx"),
        "DROP INDEX CONCURRENTLY routines.made_up_idx;",
        "REINDEX INDEX CONCURRENTLY routines.trajectories_pkey;",
    ],
    ids=["another statement", "creates what may be there", "two indexes", "drops what may be gone", "no index"],
)
async def test_an_index_migration_that_could_not_be_repeated_is_refused(
    connection: Connection, index_files: Path, text: str
) -> None:
    (index_files / f"{INDEX}.sql").write_text(text)
    with pytest.raises(MigrationError, match="must be DROP INDEX CONCURRENTLY IF EXISTS"):
        await migrate(connection, index_files)
    assert await value(connection, "SELECT count(*) FROM routines.schema_migrations WHERE name = %s", INDEX) == 0


async def test_each_migration_is_applied_in_a_transaction_of_its_own(connection: Connection, files: Path) -> None:
    (files / "21000102T000000_bad.sql").write_text("CREATE TABLE routines.bad (); SELECT 1 / 0;")
    with pytest.raises(Exception, match="division by zero"):
        await migrate(connection, files)
    assert await value(connection, "SELECT max(name) FROM routines.schema_migrations") == MORE
    assert await value(connection, "SELECT to_regclass('routines.bad')::text") is None
