"""Settings of the database that change how values read change no answer of the API, no tick and no run."""

import re
from collections.abc import Generator
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from api.test_tenants import ALERT_RULE, PAST, ROWS, Row, webhook_of
from routines_api.app import create_app
from routines_core.db import connect
from routines_core.db.tick import tick
from support.hostile_settings import make_hostile
from support.rows import CATCHUP, Database, api_settings, at, make_key
from support.serving import copy_of
from support.working import until_ended, workflow_of, working

WORKFLOW = workflow_of(
    ("first", {"activity": "text_echo", "text": "{{init_params.text}}"}),
    text="Ä 1e300", number=1e300, none=None, list=[None, "NULL"],
)  # fmt: skip
CADENCES: dict[str, dict[str, Any]] = {
    "kept": {"type": "daily", "hour_utc": 9},
    "hourly": {"type": "hourly", "minute_utc": 5},
    "weekdays": {"type": "weekdays", "hour_utc": 9, "minute_utc": 30},
}
DUE = at("2026-05-04 09:00")
CURSOR = re.compile(r'"cursor":"[^"]+"')
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|\d{8}T\d{6}Z")
RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|rt[nf]_[\w-]+|\d+\.\d+")
Answer = tuple[str, int, str]


@pytest.fixture
def other(server_url: str, template: str) -> Generator[Database]:
    """A second database, where nothing is set."""
    with copy_of(server_url, template) as made:
        yield made


async def answers_of(database: Database) -> list[Answer]:
    """Have the API, a tick and a worker do everything once. Returns the answers of all routes, without what varies."""
    async with (
        connect(database.url, "tests") as connection,
        AsyncTestClient(create_app(api_settings(run_sync_seconds=0), database.url)) as client,
    ):
        client.headers["Authorization"] = f"Bearer {await make_key(connection, 'mine')}"
        await prepare(client)
        await connection.execute("UPDATE routines.routines SET next_run_at = %s WHERE name = 'kept'", [DUE])
        async with connect(database.url, "ticker", role="routines_ticker") as ticker:
            ticked = await tick(ticker, batch_size=10, now=DUE, **CATCHUP)
        async with working(database.url):
            ended = await until_ended(connection, 1)
        names = {"collection": "mine", "task": "echo", "name": "kept", "trajectory_id": "1"}
        names |= {"workflow_id": "flow-mine-echo--1", "activity_name": "text_echo"}
        names["delivery_id"] = await webhook_of("1", connection)
        await client.put(
            "/api/v1/calendars/mine/holidays", json={"days": [{"from": "2026-12-24", "label": "Christmas"}]}
        )
        await client.put("/api/v1/alert-rules/mine/on-call", json=ALERT_RULE)
        names |= {"calendar": "holidays", "revision": "1", "version": "1", "rule": "on-call"}
        backfills = "/api/v1/routines/mine/echo/kept/backfills"
        names["backfill_id"] = str((await client.post(backfills, json=PAST)).json()["id"])
        names["feed_id"] = str((await client.post("/api/v1/ics/mine")).json()["id"])
        return [
            ("tick", ticked.fired, str(ticked)),
            ("run", 0, str(ended)),
            await feed_of(client),
            *[await asked(client, row, names) for row in sorted(ROWS, key=_deletions_last)],
        ]


def _deletions_last(row: Row) -> int:
    """Order what is deleted after everything else, and what is within another before that."""
    return -row.path.count("/") if row.method == "DELETE" else -100


async def prepare(client: AsyncTestClient[Any]) -> None:
    task = {"name": "echo", "workflow": WORKFLOW}
    made = await client.post("/api/v1/tasks/mine", json=task)
    assert made.status_code == 201, made.text
    environment = {"environment_variables": {"TOKEN": "a secret \\ Ä"}}
    assert (await client.patch("/api/v1/collections/mine/environment", json=environment)).status_code == 200
    for name, cadence in CADENCES.items():
        routine = {"name": name, "cadence": cadence, "init_params_overrides": {"number": 1e300}}
        assert (await client.post("/api/v1/routines/mine/echo", json=routine)).status_code == 201


async def feed_of(client: AsyncTestClient[Any]) -> Answer:
    token = (await client.post("/api/v1/ics/mine")).json()["token"]
    answer = await client.get(f"/api/v1/ics/{token}.ics")
    return "feed", answer.status_code, TIME.sub("TIME", answer.text)


async def asked(client: AsyncTestClient[Any], row: Row, names: dict[str, str]) -> Answer:
    body = row.body and {key.format(**names): given for key, given in row.body.items()}
    answer = await client.request(row.method, row.path.format(**names), json=body)
    text = RANDOM.sub("RANDOM", TIME.sub("TIME", CURSOR.sub("CURSOR", answer.text)))
    return f"{row.method} {row.path}", answer.status_code, text


async def test_the_api_a_tick_and_a_run_answer_alike_whatever_is_set_on_the_database(
    database: Database, other: Database
) -> None:
    expected = await answers_of(other)
    assert [each for each in expected if each[1] not in {0, 1, 200, 201, 202, 204, 409}] == []
    make_hostile(database.url)
    for hostile, plain in zip(await answers_of(database), expected, strict=True):
        assert hostile == plain
