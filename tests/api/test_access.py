"""Access to the API, and the order of its checks: one test for each sentence of the contract."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.app import create_app
from routines_core.db import Connection
from routines_core.db.keys import revoke_key
from support.rows import Database, api_settings, make_key, value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"


async def test_another_collection_and_an_absent_one_answer_the_same_404(client: Client, connection: Connection) -> None:
    await make_key(connection, "other")
    foreign = await client.get("/api/v1/routines/other/echo/r")
    absent = await client.get("/api/v1/routines/absent/echo/r")
    missing = await client.get(f"{BASE}/absent")
    assert foreign.status_code == absent.status_code == missing.status_code == 404
    assert foreign.content == absent.content == missing.content
    assert foreign.headers == absent.headers == missing.headers


@pytest.mark.parametrize("header", [None, "Basic x", "Bearer", "Bearer x", "Bearer rtn_1_" + "a" * 43])
async def test_an_invalid_key_answers_401(client: Client, header: str | None) -> None:
    answer = await client.get(BASE, headers={"Authorization": header or ""})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_revoked_key_answers_401_at_once(client: Client, connection: Connection) -> None:
    assert (await client.get(BASE)).status_code == 200
    await revoke_key(connection, 1)
    assert (await client.get(BASE)).status_code == 401


async def test_an_expired_key_answers_401_at_once(client: Client, connection: Connection) -> None:
    assert (await client.get(BASE)).status_code == 200
    await connection.execute("UPDATE routines.api_keys SET expires_at = now()")
    assert (await client.get(BASE)).status_code == 401
    assert (await client.post(BASE, json={})).status_code == 401


async def test_a_key_works_until_it_expires(client: Client, connection: Connection) -> None:
    key = await make_key(connection, "my-org", expires_in_seconds=3600)
    assert (await client.get(BASE, headers={"Authorization": f"Bearer {key}"})).status_code == 200


async def test_access_is_checked_before_validity(client: Client) -> None:
    invalid = {"content": b"{", "headers": {"Authorization": "Bearer x"}}
    assert (await client.post("/api/v1/routines/other/echo", **invalid)).status_code == 401
    assert (await client.post("/api/v1/routines/other/echo", content=b"{")).status_code == 404
    assert (await client.post(BASE, content=b"{")).status_code == 400
    assert (await client.get(f"{BASE}?limit=0", headers={"Authorization": "Bearer x"})).status_code == 401
    assert (await client.get("/api/v1/routines/other?limit=0")).status_code == 404
    assert (await client.get(f"{BASE}?limit=0")).status_code == 400


async def test_with_the_flag_off_every_routine_endpoint_answers_like_an_unknown_path(
    client: Client, connection: Connection, database: Database
) -> None:
    key = await make_key(connection, "my-org")
    async with AsyncTestClient(create_app(api_settings(enable_routines=False), database.url)) as off:
        for headers in ({}, {"Authorization": f"Bearer {key}"}):
            unknown = await off.get("/api/v1/no-such-path", headers=headers)
            for path in (BASE, f"{BASE}/r", f"{BASE}/r/run-now", "/api/v1/tasks/my-org/echo/init-params-schema"):
                for method in ("GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "HEAD"):
                    answer = await off.request(method, path, headers=headers)
                    assert (answer.status_code, answer.headers) == (404, unknown.headers)
                    assert method == "HEAD" or answer.content == unknown.content
        described = (await off.get("/openapi.json")).json()["paths"]
    assert not [path for path in described if "routines" in path or "init-params" in path]


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "TRACE", "PUT"])
async def test_an_unknown_method_answers_like_an_unknown_path(client: Client, method: str) -> None:
    answer = await client.request(method, BASE)
    unknown = await client.request(method, "/api/v1/no-such-path")
    assert (answer.status_code, answer.headers, answer.content) == (404, unknown.headers, unknown.content)
    assert "allow" not in answer.headers


async def test_a_key_over_its_rate_answers_429_with_retry_after(connection: Connection, database: Database) -> None:
    key = await make_key(connection, "my-org")
    other = await make_key(connection, "my-org")
    async with AsyncTestClient(create_app(api_settings(rate_per_second=0.5, rate_burst=3), database.url)) as slow:
        path, headers = "/api/v1/collections", {"Authorization": f"Bearer {key}"}
        answers = [await slow.get(path, headers=headers) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].headers["retry-after"] == "2"
        assert (await slow.get(path, headers={"Authorization": f"Bearer {other}"})).status_code == 200


async def test_the_last_use_of_a_key_is_recorded_to_the_minute(client: Client, connection: Connection) -> None:
    await client.get(BASE)
    used = await value(connection, "SELECT last_used_at = date_trunc('minute', last_used_at) FROM routines.api_keys")
    assert used is True


async def test_health_docs_and_openapi_answer_without_a_key(client: Client) -> None:
    for path in ("/api/v1/health", "/docs", "/openapi.json"):
        assert (await client.get(path, headers={"Authorization": ""})).status_code == 200


async def test_the_documentation_page_names_its_charset_once(client: Client) -> None:
    assert (await client.get("/docs")).headers["content-type"] == "text/html; charset=utf-8"


async def test_a_missing_parameter_is_reported_only_to_a_valid_key(client: Client) -> None:
    path = "/api/v1/db/outcomes/my-org"
    assert (await client.get(path, headers={"Authorization": "Bearer x"})).status_code == 401
    assert (await client.get(path.replace("my-org", "other"))).status_code == 404
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["errors"][0]["message"]) == (400, "is required")


async def test_answers_forbid_caching_and_content_sniffing(client: Client) -> None:
    answers = [
        await client.get(BASE),
        await client.get(f"{BASE}/missing"),
        await client.get(BASE, headers={"Authorization": ""}),
        await client.get("/api/v1/health"),
        await client.get("/openapi.json"),
        await client.options(BASE),
    ]
    for answer in answers:
        assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    page = await client.get("/docs")
    assert page.headers.get_list("x-content-type-options") == ["nosniff"]
    console = await client.get("/console/")
    assert console.headers.get_list("cache-control") == ["no-cache"]
