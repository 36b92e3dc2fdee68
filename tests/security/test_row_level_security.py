"""Show that the database itself keeps tenants apart, even if a statement forgets its condition on the collection."""

import re
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager

import pytest
from litestar.testing import AsyncTestClient
from psycopg import DatabaseError

from api.test_tenants import OWN, ROWS, Client, fill, run_of
from routines_api.app import create_app
from routines_core.db import Connection, connect, open_pool
from routines_core.db.statements import Statement
from routines_core.db.tasks import create_task, list_tasks
from routines_core.errors import UnauthorizedError
from support.rows import Database, api_settings, make_key, value

NOT_OF_TENANTS = {
    "schema_migrations",
    "role_grants",
    "wakeups",
    "peppers",
    "retention",
    "day_sums_progress",
    "built_in_limits",
    "time_zones",
    "ticker_outages",
    "alert_rounds",
}
"""Tables without tenants' data; every other table has row-level security."""
OF_TABLES = {"collection_limits": {"defaults"}, "audit": {"kept"}}
"""Further policies: every tenant may read the defaults of limits; no program may delete a young entry of the audit."""
_CONDITION = re.compile(r"[\w.]+\s*=\s*\(SELECT routines\.collection_of_key\(%\(key_id\)s::routines\.caller\)\)")
FORGOTTEN = "(SELECT routines.collection_of_key(%(key_id)s::routines.caller)) IS NOT NULL"
"""Replaces each such condition in a statement that forgets the collection."""


# --- the catalogue ----------------------------------------------------------------------------------------------------


async def test_every_table_with_tenants_data_forces_row_level_security(connection: Connection) -> None:
    cursor = await connection.execute(
        """SELECT relname, relrowsecurity AND relforcerowsecurity,
                  ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = pg_class.oid ORDER BY 1)
           FROM pg_class WHERE relnamespace = 'routines'::regnamespace AND relkind IN ('r', 'p')"""
    )
    for table, is_forced, policies in await cursor.fetchall():
        if table not in NOT_OF_TENANTS:
            assert is_forced, f"{table} has no row-level security: call routines.protect('routines.{table}')"
            assert {"owner", "tenant"} <= set(policies), f"{table} lacks a policy: call routines.protect"
            others = {"routines_ticker", "routines_worker", "routines_reader"}
            assert {*policies} - {"owner", "tenant"} <= others | OF_TABLES.get(table, set())


async def test_every_view_checks_the_rights_of_its_reader(connection: Connection) -> None:
    cursor = await connection.execute(
        """SELECT relname FROM pg_class WHERE relnamespace = 'routines'::regnamespace AND relkind = 'v'
           AND NOT coalesce('security_invoker=true' = ANY (reloptions), false)"""
    )
    assert await cursor.fetchall() == [], "these views lack WITH (security_invoker = true)"


async def test_every_security_definer_function_has_a_fixed_search_path(connection: Connection) -> None:
    cursor = await connection.execute(
        """SELECT proname FROM pg_proc WHERE pronamespace = 'routines'::regnamespace AND prosecdef
           AND NOT EXISTS (SELECT FROM unnest(proconfig) AS setting WHERE setting LIKE 'search_path=pg_catalog%')"""
    )
    assert await cursor.fetchall() == []


async def test_a_function_that_reads_the_catalogue_has_a_fixed_search_path(connection: Connection) -> None:
    """Names in a body that is kept as text are looked up at each call, temporary tables first."""
    cursor = await connection.execute(
        """SELECT proname FROM pg_proc WHERE pronamespace = 'routines'::regnamespace AND prosqlbody IS NULL
           AND prosrc ~* '\\m(from|join)\\s+(pg_|information_schema)'
           AND NOT EXISTS (SELECT FROM unnest(proconfig) AS setting WHERE setting LIKE 'search_path=pg_catalog%')"""
    )
    assert await cursor.fetchall() == []


def test_every_statement_casts_its_key_to_caller() -> None:
    """With any other cast the statement would name no collection, or name it too late."""
    for name, statement in Statement.declared.items():
        for cast in re.findall(r"%\(key_id\)s(\S*)", statement.text):
            assert cast.startswith(("::routines.caller", "::text")), f"{name}: %(key_id)s{cast}"


# --- naming a collection ----------------------------------------------------------------------------------------------


async def two_tenants(connection: Connection) -> list[int]:
    """Create the collections `mine` and `theirs`, each with a task of the same name; return the ids of their keys."""
    keys = [int((await make_key(connection, name)).split("_")[1]) for name in ("mine", "theirs")]
    for key_id, name in zip(keys, ("mine", "theirs"), strict=True):
        await create_task(connection, key_id=key_id, name=name, description="", workflow={"init_params": {}})
    return keys


async def count_tasks(connection: Connection) -> object:
    return await value(connection, "SELECT count(*) FROM routines.tasks")


async def test_without_a_named_collection_nothing_can_be_read_or_written(
    connection: Connection, logins: dict[str, str]
) -> None:
    await two_tenants(connection)
    cursor = await connection.execute(
        "SELECT on_object FROM routines.role_grants WHERE role = 'routines_api' AND on_object LIKE 'routines.%'"
    )
    tables = {table for (table,) in await cursor.fetchall()} - {f"routines.{name}" for name in NOT_OF_TENANTS}
    async with connect(logins["routines_api"], "api") as api:
        for named in (None, ""):
            await api.execute("SELECT set_config('routines.collection_id', %s, false)", [named])
            for table in tables:
                assert await value(api, f"SELECT count(*) FROM {table}") == 0
        assert (await api.execute("DELETE FROM routines.tasks")).rowcount == 0


async def test_a_reused_connection_keeps_nothing_of_its_previous_user(
    connection: Connection, logins: dict[str, str]
) -> None:
    mine, theirs = await two_tenants(connection)
    async with open_pool(logins["routines_api"], "api", size=1) as pool:
        for key_id, name in ((mine, "mine"), (theirs, "theirs")) * 8:  # from the fifth on the statement is prepared
            async with pool.connection() as api:
                assert [task.name for task in await list_tasks(api, key_id=key_id, limit=9)] == [name]
                assert await count_tasks(api) == 0
        async with pool.connection() as api:
            async with api.transaction():
                await list_tasks(api, key_id=mine, limit=9)
                assert await count_tasks(api) == 1
            assert await count_tasks(api) == 0
            with pytest.raises(UnauthorizedError):
                await list_tasks(api, key_id=999, limit=9)
            assert await count_tasks(api) == 0


async def test_a_program_of_the_previous_version_keeps_working_until_it_is_replaced(connection: Connection) -> None:
    mine, _ = await two_tenants(connection)
    before = (
        "SELECT name::text FROM routines.tasks WHERE collection_id = (SELECT routines.collection_of_key(%s::bigint))"
    )
    assert await value(connection, before, mine) == "mine"
    with pytest.raises(DatabaseError, match="revoked or expired"):
        await connection.execute(before.encode(), [999])


async def test_a_row_of_another_collection_cannot_be_inserted(connection: Connection, logins: dict[str, str]) -> None:
    mine, _ = await two_tenants(connection)
    other = await value(connection, "SELECT id FROM routines.collections WHERE name = 'theirs'")
    async with connect(logins["routines_api"], "api") as api, api.transaction(force_rollback=True):
        await list_tasks(api, key_id=mine, limit=9)
        with pytest.raises(Exception, match="new row violates row-level security policy"):
            await api.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (%s, 'x')", [other])


# --- statements without their condition on the collection -------------------------------------------------------------


@contextmanager
def forgetful() -> Generator[list[str]]:
    """Remove every condition on the collection from the statements; yields the names of those that had one."""
    changed: dict[Statement[object], bytes] = {}
    for statement in Statement.declared.values():
        text, count = _CONDITION.subn(FORGOTTEN, statement.text)
        if count:
            changed[statement] = statement._sql
            statement._sql = text.encode()
    try:
        yield [statement.name for statement in changed]
    finally:
        for statement, original in changed.items():
            statement._sql = original


@pytest.fixture
async def client(connection: Connection, database: Database, logins: dict[str, str]) -> AsyncGenerator[Client]:
    """Yield the API as the login of its role, with a key of `mine`, next to `theirs` with the same names."""
    app = create_app(api_settings(run_sync_seconds=0), logins["routines_api"])
    async with AsyncTestClient(app, raise_server_exceptions=False) as opened:
        for collection in ("theirs", "mine"):
            opened.headers["Authorization"] = f"Bearer {await make_key(connection, collection)}"
            await fill(opened, collection)
        # Marks the rows of `theirs`, wherever they turn up.
        await connection.execute("UPDATE routines.tasks SET description = 'CANARY' WHERE collection_id = 1")
        await connection.execute(
            """UPDATE routines.trajectories SET labels = '[{"key": "CANARY"}]' WHERE collection_id = 1"""
        )
        await connection.execute("UPDATE routines.routines SET webhook_url = 'https://CANARY' WHERE collection_id = 1")
        yield opened


async def theirs(connection: Connection) -> list[object]:
    """Return everything that the other collection has, as text."""
    tables = (
        "collections",
        "tasks",
        "task_versions",
        "routines",
        "trajectories",
        "skips",
        "secrets",
        "webhook_deliveries",
        "feeds",
    )
    return [
        await value(
            connection,
            f"""SELECT array_agg(t::text ORDER BY t::text) FROM routines.{table} AS t
                WHERE {"id" if table == "collections" else "collection_id"} = 1""",
        )
        for table in tables
    ]


async def leaks(client: Client, connection: Connection) -> tuple[set[str], set[str]]:
    """Return the routes whose answer shows something of `theirs`, and those that changed something."""
    shown, changed = set[str](), set[str]()
    foreign, before = await run_of(client, "theirs", connection), await theirs(connection)
    for row in sorted(ROWS, key=lambda row: row.method == "DELETE"):
        for run in {foreign, await run_of(client, "mine", connection)}:
            names = {**OWN, "trajectory_id": run, "workflow_id": f"flow-x--{run}"}
            names |= {"feed_id": "1"} if run == foreign else {}
            body = row.body and {key.format(**names): given for key, given in row.body.items()}
            answer = await client.request(row.method, row.path.format(**names), json=body, timeout=20)
            if "CANARY" in answer.text or f'"trajectory_id":{foreign},' in answer.text:
                shown.add(f"{row.method} {row.path}")
            if (now := await theirs(connection)) != before:
                changed.add(f"{row.method} {row.path}")
                before = now
    return shown, changed


async def test_without_any_condition_on_the_collection_no_other_tenants_rows_are_shown_or_changed(
    client: Client, connection: Connection
) -> None:
    with forgetful() as names:
        assert {"tasks.find_task", "routines.patch_routine", "trajectories.find_trajectory"} <= set(names)
        assert await leaks(client, connection) == (set(), set())


async def test_without_row_level_security_the_same_statements_would_show_and_change_them(
    client: Client, connection: Connection
) -> None:
    """The control: what the test above would see without the policies behind the conditions."""
    cursor = await connection.execute("SELECT DISTINCT tablename FROM pg_policies WHERE schemaname = 'routines'")
    for (table,) in await cursor.fetchall():
        await connection.execute(f"ALTER TABLE routines.{table} DISABLE ROW LEVEL SECURITY".encode())
    with forgetful():
        shown, changed = await leaks(client, connection)
    assert {"GET /api/v1/tasks/{collection}", "GET /api/v1/routines/{collection}"} <= shown
    assert any(route.startswith("PATCH") for route in changed)
    assert any(route.startswith("DELETE") for route in changed)
