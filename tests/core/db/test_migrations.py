"""Migrations: applied once, in order, and never silently changed."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from routines_core.db import Connection, connect
from routines_core.db.migration_files import migration_files
from routines_core.db.migrations import migrate
from routines_core.db.statements import sql_dir
from routines_core.errors import DatabaseError, MigrationError
from support.rows import Database, value

FIRST = "20261129T090000_schema"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return Path(shutil.copytree(sql_dir() / "migrations", tmp_path / "migrations"))


async def test_a_second_run_applies_nothing(connection: Connection) -> None:
    assert await migrate(connection) == []


async def test_a_new_file_is_applied_and_recorded(connection: Connection, files: Path) -> None:
    (files / "21000101T000000_more.sql").write_text("CREATE TABLE routines.more ();")
    assert [migration.name for migration in await migrate(connection, files)] == ["21000101T000000_more"]
    assert await value(connection, "SELECT max(version) FROM routines.schema_migrations") == "21000101T000000"


async def test_a_changed_file_is_refused(connection: Connection, files: Path) -> None:
    first = files / f"{FIRST}.sql"
    first.write_text(first.read_text() + "-- changed")
    with pytest.raises(MigrationError, match=f"{FIRST} has changed"):
        await migrate(connection, files)


async def test_a_missing_file_with_newer_ones_beside_it_is_refused(connection: Connection, files: Path) -> None:
    (files / f"{FIRST}.sql").rename(files / "21000101T000000_other.sql")
    with pytest.raises(MigrationError, match=f"{FIRST} was applied to this database but is not"):
        await migrate(connection, files)


async def test_an_older_version_applies_nothing_to_a_newer_schema(connection: Connection, files: Path) -> None:
    (files / "21000101T000000_more.sql").write_text("CREATE TABLE routines.more ();")
    await migrate(connection, files)
    assert await migrate(connection) == []


async def test_a_file_older_than_what_was_applied_is_refused(connection: Connection, files: Path) -> None:
    (files / "20200101T000000_early.sql").write_text("CREATE TABLE routines.early ();")
    with pytest.raises(MigrationError, match="20200101T000000_early is older than 20261129T090000"):
        await migrate(connection, files)


async def test_a_failing_migration_leaves_nothing_behind(connection: Connection, files: Path) -> None:
    (files / "21000101T000000_more.sql").write_text("CREATE TABLE routines.more (); SELECT 1 / 0;")
    with pytest.raises(Exception, match="division by zero"):
        await migrate(connection, files)
    assert await value(connection, "SELECT to_regclass('routines.more')::text") is None


async def test_of_two_migrators_one_applies(database: Database, files: Path) -> None:
    (files / "21000101T000000_more.sql").write_text("CREATE TABLE routines.more ();")

    async def one() -> int:
        async with connect(database.url, "migrator") as own:
            return len(await migrate(own, files))

    assert sorted(await asyncio.gather(one(), one())) == [0, 1]


async def test_an_unreachable_database_is_reported_in_one_sentence() -> None:
    with pytest.raises(DatabaseError, match="The database cannot be reached"):
        async with connect("postgresql://127.0.0.1:1/none", "tests"):
            pass


async def test_every_table_column_and_function_has_a_comment(connection: Connection) -> None:
    cursor = await connection.execute(
        """SELECT relname || coalesce('.' || attname, '') FROM pg_class
           LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
           WHERE relnamespace = 'routines'::regnamespace AND relkind IN ('r', 'v', 'c')
             AND NOT (relkind = 'c' AND attnum IS NULL) AND col_description(pg_class.oid, attnum) IS NULL
           UNION ALL SELECT proname FROM pg_proc
           WHERE pronamespace = 'routines'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL"""
    )
    assert await cursor.fetchall() == []


def test_each_file_is_named_by_a_time_of_its_own() -> None:
    versions = [migration.version for migration in migration_files()]
    assert len(versions) == len(list((sql_dir() / "migrations").iterdir()))
    assert versions == sorted(set(versions))
    assert [version for version in versions if not re.fullmatch(r"\d{8}T\d{6}", version)] == []
