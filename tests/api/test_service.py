"""What the API says of itself without a key, and what it says in its log when a request fails."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from litestar.testing import AsyncTestClient
from structlog.testing import capture_logs

from routines_api.app import Api, create_app
from routines_api.http import readiness
from routines_cli import probe
from routines_core.db import Connection
from support.programs import program
from support.rows import Database, api_settings, make_key, with_login
from support.service import free_port

Client = AsyncTestClient[Api]
OTHER_KEY = "k1:" + "A" * 43 + "="
"""Another key of the same id."""
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@asynccontextmanager
async def client_of(url: str, key: str = "", **settings: Any) -> AsyncGenerator[Client]:
    async with AsyncTestClient(create_app(api_settings(**settings), url)) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


@pytest.fixture(autouse=True)
def always_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "KEPT_SECONDS", 0)


async def readyz(client: Client) -> tuple[int, dict[str, str]]:
    answer = await client.get("/readyz", headers={"Authorization": ""})
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()


# --- /livez, /readyz, /health and / -----------------------------------------------------------------------------------


async def test_a_process_that_can_do_its_work_is_ready(connection: Connection, database: Database) -> None:
    await make_key(connection, "my-org")
    async with client_of(database.url) as client:
        assert await readyz(client) == (
            200,
            {"status": "ok", "database": "ok", "schema": "ok", "role": "ok", "keys": "ok"},
        )


async def test_a_process_lives_and_health_is_as_before_although_the_database_is_away() -> None:
    async with client_of(f"postgresql://127.0.0.1:{free_port()}/routines") as client:
        assert ((await client.get("/livez")).status_code, (await client.get("/livez")).json()) == (
            200,
            {"status": "ok"},
        )
        assert (await client.get("/api/v1/health")).json() == {"status": "ok"}
        status, found = await readyz(client)
        assert (status, found["status"], found["database"]) == (503, "failing", "the database cannot be reached")
        assert found["schema"] == found["role"] == found["keys"] == "unknown"


@pytest.mark.parametrize(
    ("broken", "check", "cause"),
    [
        ("ALTER TABLE routines.schema_migrations RENAME TO gone", "schema", "missing, or older than this version"),
        ("DELETE FROM routines.schema_migrations", "schema", "missing, or older than this version"),
        ("REVOKE UPDATE (status) ON routines.trajectories FROM routines_api", "role", "the role lacks rights"),
        ("REVOKE EXECUTE ON FUNCTION routines.key_to_check(bigint) FROM routines_api", "role", "the role lacks rights"),
        ("REVOKE SELECT ON routines.schema_migrations FROM routines_api", "schema", "this login lacks a right"),
    ],
)
async def test_readiness_names_what_is_broken(
    connection: Connection, database: Database, broken: str, check: str, cause: str
) -> None:
    await make_key(connection, "my-org")
    async with client_of(database.url) as client:
        await connection.execute(broken.encode())
        status, found = await readyz(client)
        assert (status, found[check]) == (503, cause)


async def test_a_wrong_encryption_key_is_named_by_readiness_and_in_the_log(
    connection: Connection, database: Database
) -> None:
    key = await make_key(connection, "my-org")
    async with client_of(database.url, key, encryption_keys=OTHER_KEY) as client:
        with capture_logs() as said:
            status, found = await readyz(client)
            assert (status, found["keys"]) == (503, "the encryption keys do not open what is stored")
            answer = await client.get("/api/v1/tasks/my-org", headers={"traceparent": TRACEPARENT})
    assert (answer.status_code, answer.json()["trace_id"]) == (500, TRACE_ID)
    [line] = [line for line in said if line["event"] == "request failed"]
    assert "is not opened by encryption key 'k1'" in line["cause"]
    assert "ROUTINES_ENCRYPTION_KEYS" in line["remedy"]
    assert (line["status"], line["trace_id"]) == (500, TRACE_ID)


async def test_readiness_is_examined_once_for_all_who_ask_at_once(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "KEPT_SECONDS", 60)
    async with client_of(database.url) as client:
        assert {status for status, _ in await asyncio.gather(*(readyz(client) for _ in range(20)))} == {200}
        await connection.execute("ALTER TABLE routines.schema_migrations RENAME TO gone")
        assert (await readyz(client))[0] == 200


@pytest.mark.parametrize(("settings", "page"), [({}, "console/"), ({"console": False}, "docs")])
async def test_the_root_leads_to_a_page_for_people(database: Database, settings: dict[str, Any], page: str) -> None:
    async with client_of(database.url, **settings) as client:
        answer = await client.get("/", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (307, page)
        assert (await client.get("/", follow_redirects=True)).status_code == 200


@pytest.mark.slow
async def test_the_probe_of_the_container_asks_a_real_program(database: Database, tmp_path: Path) -> None:
    port = free_port()
    with program("api", database.url, tmp_path, ROUTINES_PORT=str(port)) as api:
        await asyncio.to_thread(api.until_said, '"started"')
        async with asyncio.timeout(30):
            while await asyncio.to_thread(probe.main, "/readyz", str(port)):  # noqa: ASYNC110 - it starts
                await asyncio.sleep(0.05)
        assert probe.main("/no-such-path", str(port)) == 1
        with psycopg.connect(database.url, autocommit=True) as admin:
            admin.execute("REVOKE SELECT ON routines.peppers FROM routines_api")
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(probe.main, "/readyz", str(port)):  # noqa: ASYNC110 - the answer is kept
                await asyncio.sleep(0.05)
    assert probe.main("/readyz", str(port)) == 1


# --- the log of 5xx ---------------------------------------------------------------------------------------------------


async def test_a_missing_right_is_logged_with_its_object_the_remedy_and_the_key(
    connection: Connection, database: Database
) -> None:
    key = await make_key(connection, "my-org")
    async with client_of(database.url, key) as client:
        await connection.execute("REVOKE SELECT ON routines.tasks FROM routines_api")
        with capture_logs() as said:
            answer = await client.get("/api/v1/tasks/my-org")
    assert answer.status_code == 500
    assert "permission denied" not in answer.text
    [line] = [line for line in said if line["event"] == "request failed"]
    assert (line["sqlstate"], line["object"]) == ("42501", "permission denied for table tasks")
    assert "set_up_roles" in line["remedy"]
    assert (line["status"], line["route"], line["key_id"]) == (500, "/api/v1/tasks/{collection}", 1)
    assert re.fullmatch("[0-9a-f]{32}", line["trace_id"])
    assert answer.json()["trace_id"] == line["trace_id"]


async def test_a_503_is_logged_with_why_the_database_refuses(connection: Connection, database: Database) -> None:
    key = await make_key(connection, "my-org")
    async with client_of(with_login(database.url, "no_such_login", "x"), key) as client:
        with capture_logs() as said:
            answer = await client.get("/api/v1/tasks/my-org")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:routines:problem:database-away")
    [line] = [line for line in said if line["event"] == "request failed"]
    assert (line["status"], line["sqlstate"], line["cause"]) == (503, "28000", "the server refuses this login")
    assert answer.json()["trace_id"] == line["trace_id"]


async def test_an_answer_below_500_has_no_trace_id_and_is_not_logged(
    connection: Connection, database: Database
) -> None:
    key = await make_key(connection, "my-org")
    async with client_of(database.url, key) as client:
        with capture_logs() as said:
            answer = await client.get("/api/v1/tasks/my-org/none")
    assert (answer.status_code, "trace_id" in answer.json()) == (404, False)
    assert not [line for line in said if line["event"] == "request failed"]
