"""What a routine does after failures, by HTTP."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection, runs
from routines_core.db.runs import Checkpoint
from routines_core.db.tick import tick
from support.rows import CATCHUP, value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
ROUTINE = f"{BASE}/r"
HOURLY = {"name": "r", "cadence": {"type": "hourly"}}
FIELDS = {"pause_after_failures", "then", "backoff_left"}


async def test_it_is_saved_shown_changed_and_removed(client: Client) -> None:
    made = (await client.post(BASE, json={**HOURLY, "pause_after_failures": 3, "then": "backoff"})).json()
    assert (made["pause_after_failures"], made["then"]) == (3, "backoff")
    assert "backoff_left" not in made
    assert (await client.get(ROUTINE)).json() == {**made, "warnings": []}
    assert (await client.patch(ROUTINE, json=made)).json() == made
    assert (await client.patch(ROUTINE, json={"then": "pause"})).json()["then"] == "pause"
    assert (await client.patch(ROUTINE, json={"paused": True})).json()["pause_after_failures"] == 3
    assert "pause_after_failures" not in (await client.patch(ROUTINE, json={"pause_after_failures": None})).json()
    alone = (await client.post(BASE, json={**HOURLY, "name": "s", "pause_after_failures": 1})).json()
    assert FIELDS & alone.keys() == {"pause_after_failures"}
    assert not FIELDS & (await client.post(BASE, json={**HOURLY, "name": "t"})).json().keys()


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"pause_after_failures": 0}, "pause_after_failures: must be greater than or equal to 1, not 0."),
        ({"pause_after_failures": 101}, "pause_after_failures: must be less than or equal to 100, not 101."),
        ({"then": "stop"}, "then: must be 'pause' or 'backoff', not \"stop\"."),
        ({"then": None}, "then: must be 'pause' or 'backoff', not null."),
    ],
)
async def test_what_is_not_valid_is_refused(client: Client, fields: dict[str, Any], detail: str) -> None:
    refused = await client.post(BASE, json={**HOURLY, **fields})
    assert (refused.status_code, refused.json()["detail"]) == (400, detail)
    await client.post(BASE, json=HOURLY)
    assert (await client.patch(ROUTINE, json=fields)).json()["detail"] == detail


async def slot(connection: Connection) -> int:
    """Let a slot be due now, and tick. Returns how many runs were started."""
    await connection.execute(
        "UPDATE routines.routines SET settled_until = now() - interval '1 microsecond', next_run_at = now()"
    )
    now = await value(connection, "SELECT next_run_at FROM routines.routines")
    assert isinstance(now, datetime)
    return (await tick(connection, batch_size=10, now=now, **CATCHUP)).fired


async def failed_slot(connection: Connection) -> None:
    assert await slot(connection) == 1
    [run] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600)
    await runs.write(connection, [Checkpoint(run.id, run.fence, status="failed", error="no luck")], lease_seconds=60)


async def test_a_routine_that_failed_too_often_says_why_it_is_paused(client: Client, connection: Connection) -> None:
    await client.post(BASE, json={**HOURLY, "pause_after_failures": 1})
    await failed_slot(connection)
    found = (await client.get(ROUTINE)).json()
    assert (found["paused"], found["next_run_at"]) == (True, None)
    assert found["paused_reason"] == "paused after a failed slot; the last: no luck"
    resumed = (await client.post(f"{ROUTINE}/resume")).json()
    assert "paused_reason" not in resumed
    assert resumed["paused"] is False


async def test_a_backoff_shows_how_many_slots_are_left(client: Client, connection: Connection) -> None:
    await client.post(BASE, json={**HOURLY, "pause_after_failures": 1, "then": "backoff"})
    await failed_slot(connection)
    assert (await client.get(ROUTINE)).json()["backoff_left"] == 1
    assert await slot(connection) == 0
    found = (await client.get(ROUTINE)).json()
    assert "backoff_left" not in found
    [skipped] = (await client.get(f"{ROUTINE}/occurrences", params={"outcome": "backoff"})).json()
    assert skipped["detail"] == "the slots before it failed, and the next slot is the next try"
    slot_at = datetime.fromisoformat(skipped["scheduled_for"])
    around = {"from": (slot_at - timedelta(hours=1)).isoformat(), "to": (slot_at + timedelta(hours=1)).isoformat()}
    [gap] = (await client.get(f"{ROUTINE}/gaps", params={"reason": "backoff", **around})).json()
    assert gap["reason"] == "backoff"
