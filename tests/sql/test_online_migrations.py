"""Each migration says what it does to tables in use, and that is true. CONTRIBUTING.md has the rules."""

import re
import shutil
from pathlib import Path

import pytest

from routines_cli.migrating import show_plan
from routines_core.db import Connection, connect
from routines_core.db.migration_files import Migration, migration_files
from routines_core.db.migrations import migrate
from routines_core.db.statements import sql_dir
from support.command import routines
from support.migration_effects import examine
from support.rows import Database, value
from support.schema_book import empty_database

ROWS = 20_000
"""Rows of the largest tables, so that reading or rewriting one takes time."""
MOST_SECONDS = 1.0
"""How long a migration may hold its locks with so many rows."""
FILL = f"""
    INSERT INTO routines.collections (name) VALUES ('my-org');
    INSERT INTO routines.tasks (collection_id, name) SELECT id, 'echo' FROM routines.collections;
    INSERT INTO routines.task_versions (task_id, version, workflow) SELECT id, 1, '{{}}' FROM routines.tasks;
    INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
    SELECT collection_id, id, 1, 'api', '{{}}' FROM routines.tasks, generate_series(1, {ROWS});
    INSERT INTO routines.steps (trajectory_id, name, position, fence, status, activity, inputs)
    SELECT id, 'one', 0, 1, 'running', 'text_echo', '{{}}' FROM routines.trajectories;
"""
MADE_UP = """-- Made up.
-- locks: routines.tasks ACCESS EXCLUSIVE
-- locks: routines.trajectories ACCESS EXCLUSIVE
-- locks: routines.steps ACCESS EXCLUSIVE
-- locks: routines.routines SHARE
-- locks: routines.skips SHARE ROW EXCLUSIVE
-- rewrites: routines.steps
-- reads: routines.routines
-- reads: routines.trajectories
-- writes: routines.audit
-- writes: routines.tasks
ALTER TABLE routines.tasks ADD COLUMN made_up text;
UPDATE routines.tasks SET description = 'made up' WHERE id = (SELECT id FROM routines.tasks ORDER BY id LIMIT 1);
ALTER TABLE routines.trajectories ADD CONSTRAINT made_up CHECK (fence >= 0);
ALTER TABLE routines.steps ADD COLUMN made_up float8 DEFAULT random();
CREATE INDEX made_up_idx ON routines.routines (name);
CREATE TABLE routines.made_up (id bigint REFERENCES routines.skips (id));
"""
BUILT = """DROP INDEX CONCURRENTLY IF EXISTS routines.made_up_idx;
CREATE INDEX CONCURRENTLY made_up_idx ON routines.trajectories (updated_at);
"""
DROPPED = "DROP INDEX CONCURRENTLY IF EXISTS routines.trajectories_root_id_idx;\n"


async def check(connection: Connection, migration: Migration) -> None:
    """Fail unless a migration does what it declares, and is quick."""
    examined = await examine(connection, migration)
    assert list(map(str, examined.effects)) == list(map(str, sorted(migration.effects))), migration.name
    assert examined.seconds < MOST_SECONDS, f"{migration.name} held {', '.join(map(str, examined.effects))}"


def made_up(*, without: str = "", more: str = "") -> Migration:
    """Return the made-up migration, without a line of it or with more SQL."""
    assert without in MADE_UP
    return Migration("21000101T000000", "21000101T000000_made_up", MADE_UP.replace(without, "") + more)


@pytest.mark.parametrize("migration", migration_files()[1:], ids=lambda migration: migration.name)
async def test_each_later_migration_declares_what_it_locks_rewrites_reads_and_writes(
    server_url: str, tmp_path: Path, migration: Migration
) -> None:
    """It is applied to rows in the schema that the earlier migrations make."""
    for earlier in migration_files():
        if earlier.version < migration.version:
            (tmp_path / f"{earlier.name}.sql").write_text(earlier.text, "utf-8")
    with empty_database(server_url) as database:
        async with connect(database.url, "tests") as connection:
            await migrate(connection, tmp_path)
            await connection.execute(FILL.encode())
            await check(connection, migration)


@pytest.fixture
async def filled(connection: Connection) -> Connection:
    await connection.execute(FILL.encode())
    return connection


async def test_what_a_migration_does_is_found_out_and_compared_with_what_it_declares(filled: Connection) -> None:
    await check(filled, made_up())


@pytest.mark.parametrize("text", [BUILT, DROPPED], ids=["built", "dropped"])
async def test_what_an_index_migration_does_is_compared_with_what_it_declares(filled: Connection, text: str) -> None:
    declared = "-- locks: routines.trajectories SHARE UPDATE EXCLUSIVE\n"
    declared += "-- reads: routines.trajectories\n" if text == BUILT else ""
    await check(filled, Migration("21000101T000000", "21000101T000000_index", text + declared))


@pytest.mark.parametrize("text", [BUILT, DROPPED], ids=["built", "dropped"])
async def test_an_effect_of_an_index_migration_that_is_not_declared_is_noticed(filled: Connection, text: str) -> None:
    with pytest.raises(AssertionError, match="_index"):
        await check(filled, Migration("21000101T000000", "21000101T000000_index", text))


@pytest.mark.parametrize("line", [line for line in MADE_UP.splitlines(keepends=True) if line.startswith("-- ")][1:])
async def test_an_effect_that_is_not_declared_is_noticed(filled: Connection, line: str) -> None:
    with pytest.raises(AssertionError, match="made_up"):
        await check(filled, made_up(without=line))


async def test_an_effect_that_is_declared_wrongly_is_noticed(filled: Connection) -> None:
    with pytest.raises(AssertionError, match="made_up"):
        await check(filled, made_up(more="-- rewrites: routines.skips\n"))


async def test_a_migration_that_holds_its_locks_for_long_is_noticed(filled: Connection) -> None:
    with pytest.raises(AssertionError, match="made_up held locks: routines"):
        await check(filled, made_up(more=f"SELECT pg_sleep({MOST_SECONDS});"))


async def test_the_plan_names_what_each_pending_migration_does_and_applies_nothing(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    files = Path(shutil.copytree(sql_dir() / "migrations", tmp_path / "migrations"))
    (files / f"{made_up().name}.sql").write_text(made_up().text, "utf-8")
    (files / "21000102T000000_new.sql").write_text("CREATE TABLE routines.new ();", "utf-8")
    plan = [re.sub(r"\(\d+ (B|KiB)\)", "(size)", line) for line in await show_plan(database.url, files)]
    assert plan == [
        "21000101T000000_made_up",
        (
            "  locks     routines.tasks ACCESS EXCLUSIVE (size), routines.trajectories ACCESS EXCLUSIVE (size), "
            "routines.steps ACCESS EXCLUSIVE (size), routines.routines SHARE (size), "
            "routines.skips SHARE ROW EXCLUSIVE (size)"
        ),
        "  rewrites  routines.steps (size)",
        "  reads     routines.routines (size), routines.trajectories (size)",
        "  writes    routines.audit (size), routines.tasks (size)",
        "21000102T000000_new",
        *(f"  {kind:<9} nothing that exists" for kind in ("locks", "rewrites", "reads", "writes")),
        "2 migrations are pending",
    ]
    assert await value(connection, "SELECT to_regclass('routines.made_up')::text") is None


def test_the_plan_of_the_command_applies_nothing(server_url: str) -> None:
    with empty_database(server_url) as database:
        for _ in range(2):
            done = routines(database, "migrate", "--plan")
            assert (done.returncode, done.stdout.splitlines()[0]) == (0, migration_files()[0].name)
        assert routines(database, "migrate").returncode == 0
        assert routines(database, "migrate", "--plan").stdout == "nothing to apply\n"
