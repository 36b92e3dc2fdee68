"""An API process while its database is stopped, restarted, or closes all connections."""

import asyncio
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from routines_api.app import CONNECTIONS
from routines_core.db import connect
from routines_core.db.migrations import migrate
from routines_core.db.pool import POOL_TIMEOUT_SECONDS
from routines_core.embedded import EmbeddedServer
from support.rows import Database
from support.serving import TASK, ApiProcess, api_process, new_key

pytestmark = pytest.mark.slow

MARGIN_SECONDS = 10.0
"""Allowance for a busy machine."""
AT_ONCE_SECONDS = 2.0
"""Less than a pool that waits between two dead connections would take for three of them."""
PATH = "/api/v1/tasks/my-org"


@pytest.fixture
def server(tmp_path: Path) -> Generator[EmbeddedServer]:
    """A Postgres server with the schema, for this test only."""
    server = EmbeddedServer(tmp_path, settings={"fsync": "off"})
    server.start()
    asyncio.run(_migrate(server.url()))
    yield server
    server.stop()


async def _migrate(url: str) -> None:
    async with connect(url, "tests") as connection:
        await migrate(connection)


@pytest.fixture
def key(server: EmbeddedServer) -> str:
    return new_key(Database(server.url()), "my-org")


@pytest.fixture
def api(server: EmbeddedServer) -> Generator[ApiProcess]:
    with api_process(server.url()) as process:
        yield process


@pytest.fixture
def client(api: ApiProcess, key: str) -> Generator[httpx.Client]:
    with api.client(key) as client:
        assert client.post(PATH, json={"name": "echo", "workflow": TASK}).status_code == 201
        yield client


def seconds_of(client: httpx.Client) -> tuple[float, httpx.Response]:
    begun = time.monotonic()
    answer = client.get(PATH)
    return time.monotonic() - begun, answer


def all_at_once(client: httpx.Client) -> list[int]:
    """Send as many requests at once as the pool has connections, and return their statuses."""
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(lambda _: client.get(PATH).status_code, range(CONNECTIONS)))


def test_an_unavailable_database_means_503_in_time_and_200_once_it_is_back(
    server: EmbeddedServer, api: ApiProcess, client: httpx.Client
) -> None:
    server.stop()
    for _ in range(4):  # long enough for attempts to reconnect to grow rare
        seconds, answer = seconds_of(client)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["detail"]
        assert seconds < POOL_TIMEOUT_SECONDS + MARGIN_SECONDS
        assert api.is_healthy()
    server.start()
    assert [client.get(PATH).status_code for _ in range(20)] == [200] * 20


def test_a_restart_of_the_database_between_requests_goes_unnoticed(
    server: EmbeddedServer, client: httpx.Client
) -> None:
    assert all_at_once(client) == [200] * CONNECTIONS  # the pool is full
    server.stop()
    server.start()
    assert all_at_once(client) == [200] * CONNECTIONS


def end_all_sessions(server: EmbeddedServer) -> int:
    """End all of the API's sessions, and return how many there were."""
    with psycopg.connect(server.url(), autocommit=True) as admin:
        ended = admin.execute(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE application_name = 'routines-api'"
        ).fetchone()
    assert ended
    return ended[0]


def test_after_losing_all_connections_single_requests_are_answered_at_once(
    server: EmbeddedServer, client: httpx.Client
) -> None:
    assert all_at_once(client) == [200] * CONNECTIONS
    assert end_all_sessions(server) >= 2
    for _ in range(5):
        seconds, answer = seconds_of(client)
        assert answer.status_code == 200
        assert seconds < AT_ONCE_SECONDS


def test_losing_all_connections_between_requests_goes_unnoticed(server: EmbeddedServer, client: httpx.Client) -> None:
    assert all_at_once(client) == [200] * CONNECTIONS
    assert end_all_sessions(server) >= 2
    assert all_at_once(client) == [200] * CONNECTIONS
