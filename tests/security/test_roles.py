"""Try what each role may do, as a login that is a member of that role only: its work, and nothing else."""

from datetime import UTC, datetime

import pytest
from litestar.testing import AsyncTestClient
from psycopg.errors import InsufficientPrivilege

from routines_api.app import create_app
from routines_cli.role_report import describe
from routines_core.db import Connection, connect, runs
from routines_core.db.roles import role_report
from routines_core.db.runs import StepRecord
from routines_core.db.statements import Statement
from routines_core.db.tick import oldest_snapshot, seconds_until_due, tick
from support.rows import CATCHUP, Database, api_settings, make_key, make_routine, make_task, value
from support.serving import TASK

API, TICKER, WORKER, READER = "routines_api", "routines_ticker", "routines_worker", "routines_reader"
ALL = (API, TICKER, WORKER, READER)

FORBIDDEN = (
    # The schema.
    "CREATE TABLE routines.own (id bigint)",
    "CREATE TABLE public.own (id bigint)",
    "CREATE FUNCTION routines.own() RETURNS integer LANGUAGE sql RETURN 1",
    "CREATE OR REPLACE FUNCTION routines.is_owner() RETURNS boolean LANGUAGE sql RETURN true",
    "DROP TABLE routines.skips",
    # The audit.
    "INSERT INTO routines.audit (kind, action, before, after, actor) VALUES ('key', 'created', '{}', '{}', 'key 1')",
    "UPDATE routines.audit SET actor = 'key 1'",
    "TRUNCATE routines.audit",
    "SELECT routines.note_change('key', 'INSERT', 1, 1, 'x', '{}', '{\"a\": 1}')",
    "TRUNCATE routines.trajectories",
    "INSERT INTO routines.schema_migrations VALUES (9999, 'x', 'x')",
    # What keeps tenants apart.
    "ALTER TABLE routines.secrets DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE routines.secrets NO FORCE ROW LEVEL SECURITY",
    "DROP POLICY tenant ON routines.tasks",
    "CREATE POLICY own ON routines.tasks USING (true)",
    "ALTER TABLE routines.routines DISABLE TRIGGER USER",
    "SET session_replication_role = replica",
    # Other roles.
    "SELECT routines.set_up_roles()",
    "INSERT INTO routines.role_grants VALUES ('routines_api', 'routines.secrets', 'ALL')",
    "CREATE ROLE own SUPERUSER",
    "GRANT routines_api TO CURRENT_USER",
    "SET SESSION AUTHORIZATION pg_monitor",
    "SET ROLE pg_read_server_files",
    # Keys and secrets.
    "SELECT secret_hash FROM routines.api_keys",
    "INSERT INTO routines.api_keys (collection_id, secret_hash) VALUES (1, sha256('x'))",
    "UPDATE routines.api_keys SET secret_hash = sha256('x')",
    "UPDATE routines.api_keys SET collection_id = 1",
    "UPDATE routines.api_keys SET revoked_at = NULL, expires_at = NULL",
    "DELETE FROM routines.api_keys",
    "UPDATE routines.secrets SET ciphertext = '\\x00'",
    "UPDATE routines.secrets SET collection_id = 1",
    # The machine.
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "CREATE TEMP TABLE own (line text); COPY own FROM '/etc/passwd'",
    "ALTER SYSTEM SET log_statement = 'all'",
    "SELECT pg_reload_conf()",
    "SELECT lo_import('/etc/passwd')",
    "CREATE EXTENSION dblink",
)
"""What no role may do."""

ALSO_FORBIDDEN = {
    API: (
        "SELECT ciphertext FROM routines.secrets",
        "SELECT * FROM routines.secrets",
        "UPDATE routines.routines SET next_run_at = now()",
        "UPDATE routines.routines SET collection_id = 1",
        "UPDATE routines.routines SET spread_offset = '1 minute'",
        "UPDATE routines.task_versions SET workflow = '{}'",
        "UPDATE routines.steps SET outputs = '{}'",
        """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason)
           VALUES (1, 1, now(), now(), 'missed')""",
        "DELETE FROM routines.skips",
        "INSERT INTO routines.collections (name) VALUES ('own')",
    ),
    TICKER: (
        "SELECT id FROM routines.secrets",
        "SELECT id FROM routines.api_keys",
        "SELECT routines.key_to_check(1)",
        "SELECT routines.open_collection(1)",
        "SELECT init_params FROM routines.trajectories",
        "UPDATE routines.routines SET spread_seconds = 60",
        "SELECT * FROM routines.steps",
        "SELECT * FROM routines.webhook_deliveries",
        "SELECT * FROM routines.idempotency_keys",
        "UPDATE routines.trajectories SET status = 'failed', ended_at = now()",
        "DELETE FROM routines.trajectories",
        "UPDATE routines.routines SET secret_refs = '{}'",
        "UPDATE routines.routines SET webhook_url = 'https://example.com'",
        "INSERT INTO routines.routines (collection_id, task_id, name, cadence_type) VALUES (1, 1, 'x', 'manual')",
        "DELETE FROM routines.routines",
        "UPDATE routines.tasks SET version = 1",
        "INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (1, 2, '{}')",
        "DELETE FROM routines.skips",
    ),
    WORKER: (
        "SELECT id FROM routines.api_keys",
        "SELECT routines.key_to_check(1)",
        """INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
           VALUES (gen_random_uuid(), 1, 'environment', '', '', 'k', '')""",
        "UPDATE routines.routines SET paused = true",
        "DELETE FROM routines.routines",
        "INSERT INTO routines.tasks (collection_id, name) VALUES (1, 'x')",
        "UPDATE routines.tasks SET version = 1",
        "INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (1, 2, '{}')",
        "UPDATE routines.collections SET name = 'x'",
    ),
    READER: (
        "SELECT ciphertext FROM routines.secrets",
        "SELECT body FROM routines.idempotency_keys",
        "SELECT routines.key_to_check(1)",
        "UPDATE routines.routines SET paused = true",
        "DELETE FROM routines.skips",
        "INSERT INTO routines.tasks (collection_id, name) VALUES (1, 'x')",
        "UPDATE routines.trajectories SET labels = '[]'",
        "SELECT FROM routines.routines FOR UPDATE",
    ),
}
"""What each role may not do in addition."""


async def is_refused(stolen: Connection, statement: str) -> bool:
    """Return whether the role lacks the right to this statement; any other error is raised."""
    try:
        await stolen.execute(statement.encode())
    except InsufficientPrivilege:
        return True
    return False


@pytest.mark.parametrize("role", ALL)
async def test_a_role_is_refused_everything_outside_its_work(
    connection: Connection, logins: dict[str, str], role: str
) -> None:
    await make_routine(connection, await make_task(connection), datetime(2026, 5, 4, 9, tzinfo=UTC))
    others = tuple(f"SET ROLE {other}" for other in ALL if other != role)
    async with connect(logins[role], "stolen") as stolen:
        for statement in (*FORBIDDEN, *ALSO_FORBIDDEN[role], *others):
            assert await is_refused(stolen, statement), f"{role} may run: {statement}"


async def test_a_temporary_table_named_like_the_catalogue_makes_nobody_the_owner(
    connection: Connection, logins: dict[str, str]
) -> None:
    await make_task(connection)
    await connection.execute(
        "DO $$ BEGIN EXECUTE format('GRANT TEMP ON DATABASE %I TO PUBLIC', current_database()); END $$"
    )
    async with connect(logins[API], "stolen") as stolen:
        await stolen.execute(
            """CREATE TEMP TABLE pg_class AS
               SELECT oid, 'routines_api'::regrole::oid AS relowner FROM pg_catalog.pg_class"""
        )
        await stolen.execute("SET search_path = pg_temp, pg_catalog, public")
        assert not await value(stolen, "SELECT routines.is_owner()")
        assert await value(stolen, "SELECT count(*) FROM routines.tasks") == 0


async def test_only_the_owner_of_the_database_may_create_temporary_tables(
    connection: Connection, logins: dict[str, str]
) -> None:
    report = await role_report(connection)
    assert report.lets_create_temporary_tables  # a copy of a database has the rights of a new one
    assert f'REVOKE TEMPORARY ON DATABASE "{report.database}" FROM PUBLIC' in "".join(describe(report, {}))
    await connection.execute("SELECT routines.set_up_roles()")
    for role in ALL:
        async with connect(logins[role], "stolen") as stolen:
            assert await is_refused(stolen, "CREATE TEMP TABLE own (id bigint)"), role
    await connection.execute("CREATE TEMP TABLE own (id bigint)")
    report = await role_report(connection)
    assert not report.lets_create_temporary_tables
    assert "temporary tables are refused to the logins of the programs" in describe(report, {})


async def test_turning_row_security_off_raises_an_error_instead_of_showing_rows(
    connection: Connection, logins: dict[str, str]
) -> None:
    await make_task(connection)
    async with connect(logins[API], "stolen") as stolen:
        await stolen.execute("SET row_security = off")
        with pytest.raises(InsufficientPrivilege, match="would be affected by row-level security"):
            await stolen.execute("SELECT FROM routines.tasks")


async def test_a_stolen_ticker_login_can_read_no_secret_and_no_key(
    connection: Connection, logins: dict[str, str]
) -> None:
    key = await make_key(connection, "my-org")
    await connection.execute(
        "INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext) "
        "VALUES (gen_random_uuid(), 1, 'environment', '', '', 'k1', '\\xc0ffee')"
    )
    async with connect(logins[TICKER], "stolen") as stolen:
        cursor = await stolen.execute(
            """SELECT c.oid::regclass::text, string_agg(quote_ident(attname), ', ')
               FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
               WHERE relnamespace = 'routines'::regnamespace AND has_column_privilege(c.oid, attnum, 'SELECT')
               GROUP BY 1"""
        )
        found = [
            str(await (await stolen.execute(f"SELECT {columns} FROM {table}".encode())).fetchall())
            for table, columns in await cursor.fetchall()
        ]
    digest = await value(connection, "SELECT encode(secret_hash, 'hex') FROM routines.api_keys")
    for hidden in (key.split("_", 2)[2], str(digest), "c0ffee", r"\xc0\xff\xee"):
        assert not any(hidden in row for row in found)


# --- the work of each program -----------------------------------------------------------------------------------------


async def test_the_api_does_its_work(connection: Connection, database: Database, logins: dict[str, str]) -> None:
    key = await make_key(connection, "my-org")
    async with AsyncTestClient(create_app(api_settings(), logins[API])) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        assert (await client.post("/api/v1/tasks/my-org", json={"name": "echo", "workflow": TASK})).status_code == 201
        assert (await client.put("/api/v1/tasks/my-org/echo", json={"workflow": TASK})).status_code == 200
        body = {
            "name": "daily",
            "cadence": {"type": "daily", "hour_utc": 9},
            "secret_params": {"token": "one"},
            "webhook_url": "https://example.com",
            "webhook_secret": "two",
        }
        routines = "/api/v1/routines/my-org/echo"
        for _ in range(2):  # the second gets the first one's answer
            made = await client.post(routines, json=body, headers={"Idempotency-Key": "once"})
            assert made.status_code == 201
        await connection.execute("UPDATE routines.idempotency_keys SET created_at = now() - interval '2 days'")
        again = await client.post(routines, json={**body, "name": "other"}, headers={"Idempotency-Key": "twice"})
        assert again.status_code == 201
        patch = {"secret_params": {"token": "three"}, "cadence": {"type": "hourly"}}
        await connection.execute("UPDATE routines.routines SET next_run_at = now() - interval '1 hour'")
        assert (await client.patch(f"{routines}/daily", json=patch)).status_code == 200
        assert (await client.post(f"{routines}/daily/run-now")).status_code == 200
        assert (await client.post(f"{routines}/daily/pause")).status_code == 200
        assert (await client.delete(f"{routines}/other")).status_code == 204
    # Replaced and deleted secrets are gone, so is the idempotency key of two days ago, and the due slots are settled.
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 2
    assert await value(connection, "SELECT array_agg(idempotency_key) FROM routines.idempotency_keys") == ["twice"]
    assert await value(connection, "SELECT array_agg(reason ORDER BY id) FROM routines.skips") == ["missed", "missed"]


async def test_the_ticker_does_its_work(connection: Connection, logins: dict[str, str]) -> None:
    now = datetime(2026, 5, 6, 9, tzinfo=UTC)
    task = await make_task(connection)
    for name in ("fires", "overlaps"):
        await make_routine(connection, task, now, name=name)
    await make_routine(connection, task, datetime(2026, 5, 4, 9, tzinfo=UTC), name="catches-up")
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                              init_params)
           SELECT 1, task_id, 1, id, 'run-now', '{}' FROM routines.routines WHERE name = 'overlaps'"""
    )
    async with connect(logins[TICKER], "ticker") as ticker:
        done = await tick(ticker, batch_size=10, now=now, **CATCHUP)
        assert (done.claimed, done.fired, done.overlapped, done.missed, done.advanced) == (3, 2, 1, 2, 3)
        await connection.execute("UPDATE routines.trajectories SET status = 'failed', ended_at = now()")
        for day in (7, 8, 9):
            struck = await tick(
                ticker, batch_size=10, now=datetime(2026, 5, day, 9, tzinfo=UTC), fault="poison", **CATCHUP
            )
            assert len(struck.struck_ids) == 3
        assert len(struck.paused_ids) == 3
        assert (await seconds_until_due(ticker)).seconds > 0
        await oldest_snapshot(ticker)


async def test_no_plan_of_the_ticker_contains_row_level_security_conditions(logins: dict[str, str]) -> None:
    async with connect(logins[TICKER], "ticker") as ticker:
        for name in ("tick.tick", "tick.due", "tick.due_in_turns", "tick.seconds_until_due"):
            text = Statement.declared[name].text
            parameters = dict.fromkeys(part.split(")s")[0] for part in text.split("%(")[1:])
            cursor = await ticker.execute(f"EXPLAIN (VERBOSE) {text}".encode(), parameters)
            plan = "\n".join([row[0] for row in await cursor.fetchall()])
            assert "routines_next_run_at_idx" in plan or "routines.routines" in plan
            assert "current_collection" not in plan
            assert "collection_id =" not in plan, plan
            assert "pg_has_role" not in plan


async def test_the_worker_does_its_work(connection: Connection, logins: dict[str, str]) -> None:
    task = await make_task(connection)
    secret = (
        "INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext) "
        "VALUES (%s, 1, %s, '', '', 'k', '\\x01')"
    )
    ids = ["00000000-0000-4000-8000-00000000000" + digit for digit in "12"]
    for id_, kind in zip(ids, ("secret_param", "webhook_secret"), strict=True):
        await connection.execute(secret.encode(), [id_, kind])
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params, secret_refs,
                                              webhook_url, webhook_secret_id)
           SELECT 1, %s, 1, 'api', '{}', jsonb_build_object('token', %s::text), 'https://example.com', %s::uuid
           FROM generate_series(1, 2)""",
        [task, *ids],
    )
    async with connect(logins[WORKER], "worker") as worker:
        first, second = await runs.claim(worker, capacity=2, worker="w", lease_seconds=60, deadline_seconds=60)
        assert await value(worker, "SELECT count(*) FROM routines.secrets WHERE ciphertext = '\\x01'") == 2
        step = StepRecord("say", 0, "completed", "text_echo", {}, {"text": "hi"})
        assert await runs.checkpoint(worker, first, step, lease_seconds=60)
        assert await runs.renew(worker, [(first.id, first.fence)], lease_seconds=60) == {first.id: True}
        assert await runs.finish(worker, first, error=None)
        assert await runs.release(worker, [(second.id, second.fence)]) == 1
        await connection.execute("UPDATE routines.trajectories SET deadline_at = now() WHERE id = %s", [second.id])
        assert [late.status for late in await runs.reap(worker)] == ["failed"]
    assert await value(connection, "SELECT count(*) FROM routines.webhook_deliveries") == 2
    # The param's secret was deleted with the run's end; the webhook's is needed until the delivery.
    assert await value(connection, "SELECT array_agg(kind) FROM routines.secrets") == ["webhook_secret"]


async def test_a_reader_sees_every_collection_except_its_secrets(
    connection: Connection, logins: dict[str, str]
) -> None:
    await make_routine(connection, await make_task(connection), datetime(2026, 5, 4, 9, tzinfo=UTC))
    await make_key(connection, "other")
    async with connect(logins[READER], "psql") as reader:
        assert await value(reader, "SELECT name::text FROM routines.routine_details") == "morning"
        assert await value(reader, "SELECT count(*) FROM routines.collections") == 2
        assert await value(reader, "SELECT count(id) FROM routines.api_keys") == 1
        assert await value(reader, "SELECT count(*) FROM routines.occurrences") == 0


# --- assuming a role --------------------------------------------------------------------------------------------------


async def test_a_program_assumes_its_role_if_its_login_may(database: Database, logins: dict[str, str]) -> None:
    me = "SELECT current_user::text"
    async with connect(database.url, "routines-ticker", role=TICKER) as ticker:
        assert await value(ticker, me) == TICKER
        with pytest.raises(InsufficientPrivilege):
            await ticker.execute("SELECT id FROM routines.secrets")
    async with connect(logins[TICKER], "routines-ticker", role=TICKER) as ticker:
        assert await value(ticker, me) == TICKER
    async with connect(logins[TICKER], "routines-api", role=API) as mistaken:
        assert str(await value(mistaken, me)).startswith(f"{TICKER}_")
    async with connect(database.url, "routines-api", role="routines_nobody") as before_the_migration:
        assert await value(before_the_migration, "SELECT current_user = session_user") is True


async def test_a_role_has_the_timeouts_that_its_program_needs(connection: Connection) -> None:
    cursor = await connection.execute(
        "SELECT rolname, rolconfig FROM pg_roles WHERE rolname = ANY (%s) ORDER BY 1", [list(ALL)]
    )
    for role, settings in await cursor.fetchall():
        names = {setting.partition("=")[0] for setting in settings}
        assert (role, names) == (
            role,
            {"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"},
        )


async def test_the_role_report_describes_the_connections_login(connection: Connection, logins: dict[str, str]) -> None:
    mighty = await role_report(connection)
    assert (mighty.bypasses_row_security, mighty.can_take_roles, mighty.missing_roles) == (True, sorted(ALL), [])
    async with connect(logins[TICKER], "doctor") as ticker:
        narrow = await role_report(ticker)
        assert (narrow.bypasses_row_security, narrow.is_owner) == (False, False)
        assert (narrow.can_take_roles, narrow.open_tables) == ([TICKER], [])
        await connection.execute("ALTER TABLE routines.tasks NO FORCE ROW LEVEL SECURITY")
        assert (await role_report(ticker)).open_tables == ["tasks"]
