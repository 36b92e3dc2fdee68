"""Nobody but the owner can change, delete or forge an entry of the audit, and no tenant sees those of another."""

import uuid
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest
from psycopg.errors import InsufficientPrivilege

from routines_core.db import Connection, connect, retention
from routines_core.db.audit import list_changes
from routines_core.db.routines import set_paused
from support.rows import Database, make_key, make_routine, make_task, value, with_login

API, TICKER, WORKER, READER = "routines_api", "routines_ticker", "routines_worker", "routines_reader"
NEWEST = "SELECT {} FROM routines.audit WHERE kind = 'routine' ORDER BY id DESC LIMIT 1"


@pytest.fixture
async def key_id(connection: Connection) -> int:
    """Create a routine in the collection of a key, and return the key's id."""
    await make_routine(connection, await make_task(connection), datetime(2126, 5, 6, 9, tzinfo=UTC))
    return int((await make_key(connection, "my-org")).split("_")[1])


@pytest.fixture
async def alice(connection: Connection, database: Database) -> AsyncGenerator[Connection]:
    """Yield a session of a person who may update routines, and nothing else."""
    login, word = f"alice_{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    await connection.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{word}'".encode())
    try:
        await connection.execute(f"GRANT USAGE ON SCHEMA routines TO {login}".encode())
        await connection.execute(f"GRANT SELECT, UPDATE ON routines.routines TO {login}".encode())
        await connection.execute(f"CREATE POLICY alice ON routines.routines TO {login} USING (true)".encode())
        async with connect(with_login(database.url, login, word), "psql") as session:
            yield session
    finally:
        await connection.execute(
            f"DROP POLICY alice ON routines.routines; DROP OWNED BY {login}; DROP ROLE {login}".encode()
        )


@pytest.mark.parametrize("role", [API, TICKER, WORKER, READER])
async def test_no_program_can_change_or_forge_the_audit(
    connection: Connection, logins: dict[str, str], key_id: int, role: str
) -> None:
    before = await value(connection, "SELECT array_agg(audit::text ORDER BY id) FROM routines.audit")
    async with connect(logins[role], "program") as program:
        for statement in (
            "UPDATE routines.audit SET actor = 'key 1'",
            """INSERT INTO routines.audit (kind, action, before, after, actor)
               VALUES ('key', 'created', '{}', '{}', 'key 1')""",
            "TRUNCATE routines.audit",
            "ALTER TABLE routines.audit DISABLE ROW LEVEL SECURITY",
            "SELECT routines.note_change('key', 'INSERT', 1, 1, 'x', '{}', '{\"a\": 1}')",
            "ALTER TABLE routines.routines DISABLE TRIGGER note_changed_routine",
        ):
            with pytest.raises(InsufficientPrivilege):
                await program.execute(statement.encode())
        if role == WORKER:  # it deletes old entries, but these are young
            assert (await program.execute("DELETE FROM routines.audit")).rowcount == 0
        else:
            with pytest.raises(InsufficientPrivilege):
                await program.execute("DELETE FROM routines.audit")
    assert await value(connection, "SELECT array_agg(audit::text ORDER BY id) FROM routines.audit") == before
    del key_id


async def test_the_worker_deletes_what_is_old_enough_for_the_database(
    connection: Connection, logins: dict[str, str], key_id: int
) -> None:
    del key_id
    await connection.execute("UPDATE routines.audit SET at = now() - interval '6 days' WHERE kind = 'key'")
    await connection.execute("UPDATE routines.audit SET at = now() - interval '8 days' WHERE kind = 'task'")
    async with connect(logins[WORKER], "worker") as worker:
        far = datetime(2199, 1, 1, tzinfo=UTC)
        page = await retention.delete_page(worker, "audit", keep_seconds=1.0, now=far)
    assert page.deleted == 1
    assert await value(connection, "SELECT array_agg(kind ORDER BY id) FROM routines.audit") == ["routine", "key"]


async def test_a_login_cannot_pass_for_a_key(connection: Connection, alice: Connection, key_id: int) -> None:
    await alice.execute("SELECT set_config('routines.key_id', %s, false)", [str(key_id)])
    await alice.execute("SELECT set_config('routines.collection_id', '', false)")
    await alice.execute("SET application_name = 'routines-api'")
    await alice.execute("UPDATE routines.routines SET timeout_seconds = 60")
    me = await value(alice, "SELECT session_user::text")
    found = await connection.execute(NEWEST.format("actor, key_id, login").encode())
    assert await found.fetchone() == (f"login {me}", None, me)
    with pytest.raises(InsufficientPrivilege):
        await alice.execute("SET ROLE routines_ticker")


async def test_a_login_with_a_table_of_its_own_cannot_have_its_triggers_write(
    connection: Connection, alice: Connection, key_id: int
) -> None:
    del key_id
    me = await value(alice, "SELECT session_user::text")
    await connection.execute(f"CREATE SCHEMA alice AUTHORIZATION {me}".encode())
    await alice.execute("CREATE TABLE alice.own (LIKE routines.routines)")
    with pytest.raises(InsufficientPrivilege):
        await alice.execute(
            "CREATE TRIGGER t AFTER DELETE ON alice.own FOR EACH ROW EXECUTE FUNCTION routines.note_routine()"
        )


async def test_the_api_writes_its_key_and_its_own_login(
    connection: Connection, logins: dict[str, str], key_id: int
) -> None:
    async with connect(logins[API], "routines-api") as api:
        await set_paused(api, key_id=key_id, task="echo", name="morning", paused=True)
        me = await value(api, "SELECT session_user::text")
    found = await connection.execute(NEWEST.format("actor, key_id, login").encode())
    assert await found.fetchone() == (f"key {key_id}", key_id, me)


async def test_a_tenant_sees_no_entry_of_another_and_none_of_all_collections(
    connection: Connection, logins: dict[str, str], key_id: int
) -> None:
    other = int((await make_key(connection, "other")).split("_")[1])
    await connection.execute("INSERT INTO routines.collection_limits (name, value) VALUES ('tasks', 7)")
    async with connect(logins[API], "api") as api:
        own = await list_changes(api, key_id=key_id, kind=None, limit=100)
        assert [change.kind for change in own] == ["key", "routine", "task"]
        assert [change.name for change in await list_changes(api, key_id=other, kind=None, limit=100)] == [str(other)]
        assert await value(api, "SELECT count(*) FROM routines.audit") == 0
