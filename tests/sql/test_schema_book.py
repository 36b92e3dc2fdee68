"""The chapters of sql/schema and the migrations produce the same catalogue, object by object."""

from collections.abc import AsyncGenerator

import pytest

from routines_core.db import Connection, connect
from routines_core.db.migration_files import migration_files
from support.catalogue import catalogue, differences
from support.schema_book import apply, chapters, empty_database

MUTATIONS = {
    "a comment": (
        "COMMENT ON COLUMN routines.trajectories.fence IS NULL",
        "-comment column fence of table routines.trajectories",
    ),
    "another comment": ("COMMENT ON FUNCTION routines.why IS 'Why.'", "+comment function routines.why(text,timestamp"),
    "a column": ("ALTER TABLE routines.skips ADD COLUMN note text", "+column skips.note: 14, text"),
    "a default": (
        "ALTER TABLE routines.secrets ALTER COLUMN field SET DEFAULT ''",
        "+column secrets.field: 4, text, not null, default",
    ),
    "null": ("ALTER TABLE routines.api_keys ALTER COLUMN pepper_id DROP NOT NULL", "-column api_keys.pepper_id"),
    "storage": ("ALTER TABLE routines.routines RESET (vacuum_index_cleanup)", "-table routines"),
    "a constraint": (
        "ALTER TABLE routines.skips DROP CONSTRAINT skips_span_is_ordered",
        "-constraint routines.skips.skips_span_is_ordered",
    ),
    "an index": ("DROP INDEX routines.trajectories_root_id_idx", "-index routines.trajectories_root_id_idx"),
    "a function": (
        "ALTER FUNCTION routines.settle_slots SECURITY INVOKER",
        "-function routines.settle_slots():  SECURITY DEFINER",
    ),
    "volatility": (
        "ALTER FUNCTION routines.active_runs STABLE",
        "+function routines.active_runs(bigint[]):  STABLE ROWS 1",
    ),
    "a trigger": (
        "DROP TRIGGER refuse_overlap ON routines.trajectories",
        "-trigger routines.trajectories.refuse_overlap",
    ),
    "a disabled trigger": (
        "ALTER TABLE routines.steps DISABLE TRIGGER note_files",
        "+trigger routines.steps.note_files",
    ),
    "a view": (
        "ALTER VIEW routines.occurrences SET (security_invoker = false)",
        "-table occurrences: v, p, security_invoker=true",
    ),
    "a policy": ("DROP POLICY tenant ON routines.skips", "-policy routines.skips.tenant"),
    "a policy's role": (
        "ALTER POLICY tenant ON routines.skips TO routines_api",
        "+policy routines.skips.tenant: *, permissive, to {routines_api}",
    ),
    "forced security": ("ALTER TABLE routines.tasks NO FORCE ROW LEVEL SECURITY", "+table tasks: r, p, row security"),
    "a grant": ("REVOKE DELETE ON routines.routines FROM routines_api", "-grant on table routines: routines_api"),
    "a column's grant": (
        "GRANT UPDATE (name) ON routines.routines TO routines_ticker",
        "+grant on column routines.name: routines_ticker",
    ),
    "everybody's grant": (
        "GRANT EXECUTE ON FUNCTION routines.open_collection TO PUBLIC",
        "+grant on function routines.open_collection(bigint): =X",
    ),
    "a type": (
        "ALTER TYPE routines.cadence ADD ATTRIBUTE note text",
        "+column cadence.note: 12, text",
    ),
    "a domain": ("ALTER DOMAIN routines.slug DROP CONSTRAINT slug_is_valid", "-constraint routines.slug.slug_is_valid"),
    "a row of role_grants": (
        "DELETE FROM routines.role_grants WHERE on_object = 'routines.help'",
        "-role grant routines_reader on routines.help",
    ),
}


@pytest.fixture
async def book(server_url: str) -> AsyncGenerator[Connection]:
    """A database to which the chapters were applied, and no migration."""
    with empty_database(server_url) as database:
        async with connect(database.url, "book") as connection:
            await apply(connection, [chapter.read_text("utf-8") for chapter in chapters()])
            yield connection


async def test_the_chapters_and_the_migrations_make_the_same_catalogue(
    book: Connection, connection: Connection
) -> None:
    different = differences(await catalogue(book), await catalogue(connection))
    assert not different, "edit the chapter in sql/schema and add a migration:\n" + "\n".join(different)


async def test_the_comparison_reports_every_kind_of_difference(book: Connection, connection: Connection) -> None:
    expected = await catalogue(book)
    for change, (statement, reported) in MUTATIONS.items():
        async with connection.transaction(force_rollback=True):
            await connection.execute(statement.encode())
            different = differences(expected, await catalogue(connection))
        assert [line for line in different if line.startswith(reported)], (change, different)


@pytest.mark.skipif(len(migration_files()) > 1, reason="later migrations change what the first one made")
def test_the_first_migration_is_the_chapters_joined() -> None:
    joined = "\n".join(f"-- == sql/schema/{path.name}\n\n{path.read_text('utf-8')}" for path in chapters())
    assert migration_files()[0].text == joined, "run `make schema`"
