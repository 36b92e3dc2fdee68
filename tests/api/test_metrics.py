"""`/metrics` of the API: who may read it, what it counts, and what it shows while the database cannot answer."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.app import Api, create_app
from routines_api.metrics import database as database_metrics
from routines_core.db import Connection
from support.endpoint import serving
from support.rows import Database, api_settings, at, make_key, make_routine, make_task
from support.scraping import Page
from support.serving import free_port

TOKEN = "a token of more than 16"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
Client = AsyncTestClient[Api]


@asynccontextmanager
async def client_of(database_url: str, **settings: Any) -> AsyncGenerator[Client]:
    async with AsyncTestClient(create_app(api_settings(**settings), database_url)) as client:
        yield client


async def page(client: Client) -> Page:
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Page(answer.text)


# --- access -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
async def test_on_a_loopback_address_metrics_are_open(database: Database, host: str) -> None:
    async with client_of(database.url, host=host) as client:
        assert (await client.get("/metrics")).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "metrics.example.com"])
async def test_on_other_addresses_metrics_answer_404_until_a_token_is_set(database: Database, host: str) -> None:
    async with client_of(database.url, host=host) as client:
        hidden, absent = await client.get("/metrics", headers=BEARER), await client.get("/nothing", headers=BEARER)
        assert (hidden.status_code, hidden.content) == (404, absent.content)
    async with client_of(database.url, host=host, metrics_token=TOKEN) as client:
        assert (await client.get("/metrics", headers=BEARER)).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(
    "sent", ["", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer tökén"]
)
async def test_once_a_token_is_set_nothing_else_opens_metrics(database: Database, host: str, sent: str) -> None:
    async with client_of(database.url, host=host, metrics_token=TOKEN) as client:
        answer = await client.get("/metrics", headers={"Authorization": sent.encode()} if sent else {})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "ROUTINES_METRICS_TOKEN" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/metrics/", "//metrics", "/%6detrics", "/metrics//"])
async def test_only_the_path_that_a_proxy_blocks_serves_metrics(database: Database, path: str) -> None:
    async with client_of(database.url) as client:
        answer = await client.get("http://testserver.local" + path)
        assert (answer.status_code, b"routines_" in answer.content) == (404, False)


async def test_the_key_of_a_collection_does_not_open_metrics(database: Database, connection: Connection) -> None:
    key = await make_key(connection, "my-org")
    async with client_of(database.url, host="0.0.0.0", metrics_token=TOKEN) as client:
        assert (await client.get("/metrics", headers={"Authorization": f"Bearer {key}"})).status_code == 401


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_requests_are_counted_by_route_method_and_status(database: Database, connection: Connection) -> None:
    key = await make_key(connection, "my-secret-org")
    async with client_of(database.url) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        for _ in range(3):
            assert (await client.get("/api/v1/tasks/my-secret-org/")).status_code == 200
        assert (await client.get("/api/v1/tasks/my-secret-org/no-such-task")).status_code == 404
        assert (await client.get("/api/v1/tasks/my-secret-org", headers={"Authorization": ""})).status_code == 401
        assert (await client.get("/somewhere/else")).status_code == 404
        assert (await client.options("/api/v1/health")).status_code == 404
        found = await page(client)
    tasks = {"route": "/api/v1/tasks/{collection}", "method": "GET"}
    assert found.total("routines_api_requests_total", **tasks, status="200") == 3
    assert found.total("routines_api_requests_total", **tasks, status="401") == 1
    one = {"route": "/api/v1/tasks/{collection}/{task}", "method": "GET", "status": "404"}
    assert found.total("routines_api_requests_total", **one) == 1
    assert found.total("routines_api_requests_total", route="none") == 2
    assert found.total("routines_api_requests_total", route="none", method="none") == 1
    assert found.total("routines_api_request_duration_seconds_count", **tasks) == 4
    assert found.total("routines_api_request_duration_seconds_sum") > 0
    assert found.total("routines_api_requests_in_flight") == 1  # the scrape itself
    assert found.total("routines_api_pool_connections") >= 1
    assert found.total("routines_api_pool_waiting") == 0
    assert "my-secret-org" not in found.text
    assert "no-such-task" not in found.text


async def test_rate_limited_requests_are_counted(database: Database, connection: Connection) -> None:
    key = await make_key(connection, "my-org")
    async with client_of(database.url, rate_per_second=0.001, rate_burst=2) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        statuses = [(await client.get("/api/v1/collections")).status_code for _ in range(5)]
        assert (await page(client)).total("routines_api_rate_limited_total") == statuses.count(429) == 3


# --- the database's metrics -------------------------------------------------------------------------------------------


async def test_the_other_metrics_are_shown_while_the_database_is_unavailable() -> None:
    async with client_of(f"postgresql://nobody@127.0.0.1:{free_port()}/none") as client:
        found = await page(client)
    assert found.total("routines_database_up") == 0
    assert found.total("routines_database_metrics_error") == len(database_metrics.SHOWN)
    assert found.total("routines_api_requests_in_flight") == 1
    assert not found.has("routines_oldest_due_seconds")


async def test_a_group_that_cannot_be_read_does_not_affect_the_others(
    database: Database, connection: Connection
) -> None:
    await connection.execute("REVOKE EXECUTE ON FUNCTION routines.metrics_of_runs FROM routines_api")
    async with client_of(database.url) as client:
        found = await page(client)
    assert found.total("routines_database_up") == 1
    assert found.total("routines_database_metrics_error", group="runs") == 1
    assert found.total("routines_database_metrics_error") == 1
    assert not found.has("routines_active_runs")
    assert found.total("routines_due") == 0
    assert found.total("routines_schema_version") >= 24


async def test_a_group_that_takes_too_long_is_cancelled_and_the_page_arrives_in_time(
    database: Database, connection: Connection
) -> None:
    await connection.execute(
        """CREATE OR REPLACE FUNCTION routines.metrics_of_deliveries(most integer)
           RETURNS TABLE (due integer, oldest_due_seconds float8) LANGUAGE sql SECURITY DEFINER
           SET search_path = pg_catalog AS 'SELECT 1, 1.0::float8 FROM pg_sleep(30)'"""
    )
    async with client_of(database.url) as client:
        began_at = time.monotonic()
        found = await page(client)
        assert time.monotonic() - began_at < 9
    assert found.total("routines_database_metrics_error", group="deliveries") == 1
    assert found.total("routines_database_metrics_error") == 1
    assert found.has("routines_workers_connected")


async def test_a_database_that_never_answers_delays_a_scrape_by_a_few_seconds_only() -> None:
    with serving() as silent:  # speaks HTTP, so it waits for the rest of a request
        port = silent.url.rpartition(":")[2]
        async with client_of(f"postgresql://nobody@127.0.0.1:{port}/none") as client:
            began_at = time.monotonic()
            found = await page(client)
            assert time.monotonic() - began_at < 9
    assert found.total("routines_database_up") == 0


async def test_frequent_scrapes_query_the_database_once_per_interval(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(database.url) as client:
        assert (await page(client)).total("routines_due") == 0
        await make_routine(connection, await make_task(connection), at("2026-05-04 09:00"))
        assert (await page(client)).total("routines_due") == 0
        monkeypatch.setattr(database_metrics, "KEPT_SECONDS", 0.0)
        found = await page(client)
        assert found.total("routines_due") == 1
        assert found.total("routines_oldest_due_seconds") > 3600
