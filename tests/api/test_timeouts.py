"""The timeout of a routine's runs, by HTTP."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.app import create_app
from routines_core.db import Connection
from support.rows import Database, api_settings, make_key, value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
ROUTINE = f"{BASE}/r"
DAILY = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}


@pytest.fixture
async def strict(client: Client, connection: Connection, database: Database) -> AsyncGenerator[Client]:
    """A client of another process, whose operator allows runs only a minute."""
    del client  # it makes the collection and the task
    key = await make_key(connection, "my-org")
    async with AsyncTestClient(create_app(api_settings(run_deadline_seconds=60), database.url)) as opened:
        opened.headers["Authorization"] = f"Bearer {key}"
        yield opened


async def test_a_timeout_is_saved_shown_changed_and_removed(client: Client) -> None:
    made = await client.post(BASE, json={**DAILY, "timeout_seconds": 900})
    assert (made.status_code, made.json()["timeout_seconds"]) == (201, 900)
    assert (await client.get(ROUTINE)).json() == {**made.json(), "warnings": []}
    assert (await client.get(BASE)).json() == [made.json()]
    assert (await client.patch(ROUTINE, json=made.json())).json() == made.json()
    assert (await client.patch(ROUTINE, json={"timeout_seconds": 60})).json()["timeout_seconds"] == 60
    assert (await client.patch(ROUTINE, json={"paused": True})).json()["timeout_seconds"] == 60
    assert "timeout_seconds" not in (await client.patch(ROUTINE, json={"timeout_seconds": None})).json()
    assert "timeout_seconds" not in (await client.post(BASE, json={**DAILY, "name": "s"})).json()


@pytest.mark.parametrize(
    ("seconds", "detail"),
    [
        (0, "timeout_seconds: must be greater than or equal to 1, not 0."),
        (1.5, "timeout_seconds: must be a valid integer, not 1.5."),
        ("60", 'timeout_seconds: must be a valid integer, not "60".'),
        (3601, "timeout_seconds: must be at most 3600, as long as any run may take."),
        (2**31, "timeout_seconds: must be less than or equal to 2147483647, not 2147483648."),
    ],
)
async def test_a_timeout_that_is_not_valid_is_refused(client: Client, seconds: object, detail: str) -> None:
    refused = await client.post(BASE, json={**DAILY, "timeout_seconds": seconds})
    assert (refused.status_code, refused.json()["detail"]) == (400, detail)
    await client.post(BASE, json=DAILY)
    patched = await client.patch(ROUTINE, json={"timeout_seconds": seconds})
    assert (patched.status_code, patched.json()["detail"]) == (400, detail)


async def test_a_timeout_that_was_read_may_be_sent_back_once_the_operator_allows_less(
    client: Client, strict: Client
) -> None:
    made = (await client.post(BASE, json={**DAILY, "timeout_seconds": 900})).json()
    assert (await strict.patch(ROUTINE, json=made)).json() == made
    assert (await strict.patch(ROUTINE, json={"timeout_seconds": 901})).status_code == 400
    assert (await strict.patch(f"{BASE}/absent", json={"timeout_seconds": 901})).status_code == 404


async def test_run_now_gives_its_run_the_timeout_of_the_routine(client: Client, connection: Connection) -> None:
    await client.post(BASE, json={**DAILY, "timeout_seconds": 900})
    await client.post(f"{ROUTINE}/run-now")
    assert await value(connection, "SELECT timeout_seconds FROM routines.trajectories") == 900
