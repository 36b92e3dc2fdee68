"""A spread by HTTP: it is kept, shown where it is set, and refused where it reaches the next slot."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from routines_core.db.tick import tick
from support.rows import CATCHUP, value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
ROUTINE = f"{BASE}/r"
HOURLY = {"type": "hourly"}
DAILY = {"type": "daily", "hour_utc": 9}


async def made(client: Client, **fields: Any) -> dict[str, Any]:
    answer = await client.post(BASE, json={"name": "r", "cadence": DAILY, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def patched(client: Client, **fields: Any) -> dict[str, Any]:
    answer = await client.patch(ROUTINE, json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def offset(connection: Connection) -> timedelta:
    found = await value(connection, "SELECT coalesce(spread_offset, '0') FROM routines.routines")
    assert isinstance(found, timedelta)
    return found


async def test_a_spread_is_shown_where_it_is_set_and_next_run_at_includes_it(
    client: Client, connection: Connection
) -> None:
    plain = await made(client)
    spread = await patched(client, spread_seconds=3600)
    slot, due = (datetime.fromisoformat(read["next_run_at"]) for read in (plain, spread))
    assert timedelta() < due - slot == await offset(connection)
    assert spread == {**plain, "next_run_at": spread["next_run_at"], "spread_seconds": 3600}
    assert (await client.get(ROUTINE)).json() == {**spread, "warnings": []}
    assert (await client.get(BASE)).json() == [spread]
    assert (await client.get(f"{ROUTINE}/next", params={"count": 1})).json()["slots"] == [plain["next_run_at"]]


@pytest.mark.parametrize("off", [None, 0])
async def test_null_and_0_turn_it_off_and_the_answer_is_as_if_there_were_none(client: Client, off: int | None) -> None:
    plain = await made(client, spread_seconds=off)
    assert "spread_seconds" not in plain
    await patched(client, spread_seconds=60)
    after = await patched(client, spread_seconds=off)
    assert after == plain
    assert list(after) == list(plain)


async def test_a_spread_is_kept_by_a_patch_of_something_else_and_can_be_sent_back(client: Client) -> None:
    await made(client, spread_seconds=900)
    assert (await patched(client, cadence=HOURLY))["spread_seconds"] == 900
    read = (await client.get(ROUTINE)).json()
    assert await patched(client, **read) == {name: read[name] for name in read if name != "warnings"}


@pytest.mark.parametrize(
    ("cadence", "spread", "rule"),
    [
        (DAILY, -1, "spread_seconds: must be greater than or equal to 0, not -1"),
        (DAILY, 3601, "spread_seconds: must be less than or equal to 3600, not 3601"),
        (DAILY, "60", "spread_seconds"),
        (DAILY, 1.5, "spread_seconds"),
        (HOURLY, 3600, "spread_seconds: must be below 3600, the seconds between two of its slots, not 3600"),
        ({"type": "interval", "every_minutes": 5}, 300, "spread_seconds: must be below 300"),
        ({"type": "cron", "expression": "0,20 9 * * *"}, 1200, "spread_seconds: must be below 1200"),
    ],
)
async def test_a_spread_that_is_not_valid_is_refused_by_name(
    client: Client, cadence: dict[str, Any], spread: Any, rule: str
) -> None:
    body = {"name": "r", "cadence": cadence, "spread_seconds": spread}
    await made(client, name="other", cadence=cadence)
    for answer in (
        await client.post(BASE, json=body),
        await client.patch(f"{BASE}/other", json={"spread_seconds": spread}),
        await client.post("/api/v1/cadence-preview/my-org", json={"cadence": cadence, "spread_seconds": spread}),
    ):
        assert (answer.status_code, answer.json()["detail"][: len(rule)]) == (400, rule)
        assert [error["field"] for error in answer.json()["errors"]] == ["spread_seconds"]


async def test_a_cadence_that_comes_more_often_than_its_spread_is_refused(client: Client) -> None:
    await made(client, spread_seconds=3600)
    answer = await client.patch(ROUTINE, json={"cadence": HOURLY})
    assert (answer.status_code, answer.json()["detail"].split(":")[0]) == (400, "spread_seconds")
    assert (await patched(client, cadence=HOURLY, spread_seconds=3599))["spread_seconds"] == 3599
    assert (await patched(client, cadence={"type": "manual"}))["next_run_at"] is None


async def test_a_preview_shows_the_slots_of_the_cadence(client: Client) -> None:
    body = {"cadence": HOURLY, "spread_seconds": 900, "count": 3}
    answer = await client.post("/api/v1/cadence-preview/my-org", json=body)
    assert all(slot.endswith(":00:00Z") for slot in answer.json()["slots"])


async def test_occurrences_and_why_show_when_a_slot_was_due(client: Client, connection: Connection) -> None:
    routine = await made(client, spread_seconds=3600)
    due = datetime.fromisoformat(routine["next_run_at"])
    await tick(connection, batch_size=10, now=due + timedelta(seconds=2), **CATCHUP)
    [shown] = (await client.get(f"{ROUTINE}/occurrences")).json()
    slot = (due - await offset(connection)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (shown["scheduled_for"], shown["due_at"], shown["delay_seconds"]) == (slot, routine["next_run_at"], 2)
    told = (await client.get(f"{ROUTINE}/why", params={"at": slot})).json()
    assert (told["facts"]["kind"], told["facts"]["due_at"]) == ("started", routine["next_run_at"])
    await client.delete(ROUTINE)
    await made(client)
    await connection.execute("UPDATE routines.routines SET next_run_at = %s", [slot])
    await tick(connection, batch_size=10, now=due, **CATCHUP)
    [plain] = (await client.get(f"{ROUTINE}/occurrences")).json()
    assert set(shown) - set(plain) == {"due_at"}
    assert "due_at" not in (await client.get(f"{ROUTINE}/why", params={"at": slot})).json()["facts"]
