"""The retry of a routine's runs, by HTTP."""

from datetime import datetime
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection, runs
from routines_core.db.runs import Checkpoint, StepRecord
from routines_core.db.tick import tick
from support.rows import CATCHUP, value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
ROUTINE = f"{BASE}/r"
HOURLY = {"name": "r", "cadence": {"type": "hourly"}}
GIVEN = {"max_attempts": 3, "backoff": [60, 300.5], "on": "transient", "until": 7200}
GROWING = {"initial": 60, "multiplier": 2, "max": 3600}


async def test_a_retry_is_saved_shown_changed_and_removed(client: Client) -> None:
    made = await client.post(BASE, json={**HOURLY, "retry": GIVEN})
    assert (made.status_code, made.json()["retry"]) == (201, GIVEN)
    assert (await client.get(ROUTINE)).json() == {**made.json(), "warnings": []}
    assert (await client.get(BASE)).json() == [made.json()]
    assert (await client.patch(ROUTINE, json=made.json())).json() == made.json()
    assert (await client.patch(ROUTINE, json={"paused": True})).json()["retry"] == GIVEN
    changed = (await client.patch(ROUTINE, json={"retry": {"max_attempts": 2}})).json()
    assert changed["retry"] == {"max_attempts": 2, "backoff": GROWING, "on": "any", "until": "next_slot"}
    assert (await client.patch(ROUTINE, json=changed)).json() == changed
    assert "retry" not in (await client.patch(ROUTINE, json={"retry": None})).json()
    assert "retry" not in (await client.post(BASE, json={**HOURLY, "name": "s"})).json()


@pytest.mark.parametrize(
    ("retry", "detail"),
    [
        ({}, "retry.max_attempts: is required."),
        ({"max_attempts": 1}, "retry.max_attempts: must be greater than or equal to 2, not 1."),
        ({"max_attempts": 21}, "retry.max_attempts: must be less than or equal to 20, not 21."),
        ({"max_attempts": 2, "on": "never"}, "retry.on: must be 'any' or 'transient', not \"never\"."),
        ({"max_attempts": 2, "tries": 3}, "retry.tries: unknown field."),
        ({"max_attempts": 2, "until": 0}, "retry.until: must be greater than or equal to 1, not 0."),
        ({"max_attempts": 2, "until": "ever"}, "retry.until: must be 'next_slot', not \"ever\"."),
        ({"max_attempts": 2, "backoff": []}, "retry.backoff: must have at least 1 item"),
        ({"max_attempts": 2, "backoff": [-1]}, "retry.backoff.0: must be greater than or equal to 0, not -1."),
        (
            {"max_attempts": 2, "backoff": {"multiplier": 0.5}},
            "retry.backoff.multiplier: must be greater than or equal to 1",
        ),
        ({"max_attempts": 2, "backoff": 5}, "retry.backoff: must be an object"),
    ],
)
async def test_a_retry_that_is_not_valid_is_refused(client: Client, retry: object, detail: str) -> None:
    refused = await client.post(BASE, json={**HOURLY, "retry": retry})
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith(detail)
    await client.post(BASE, json=HOURLY)
    patched = await client.patch(ROUTINE, json={"retry": retry})
    assert (patched.status_code, patched.json()["detail"]) == (400, refused.json()["detail"])


async def fail(connection: Connection) -> int:
    """Claim the pending run and let it fail. Returns the run."""
    [run] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600)
    step = StepRecord("ask", 0, "failed", "http_request", {}, error="no response")
    end = Checkpoint(run.id, run.fence, [step], "failed", "step 'ask' failed: no response")
    assert await runs.write(connection, [end], lease_seconds=60) == {run.id}
    return run.id


async def failed_slot(client: Client, connection: Connection, **fields: Any) -> int:
    """Let the run of a slot fail. Returns it."""
    await client.post(BASE, json={**HOURLY, "retry": {"max_attempts": 2, "until": 7200}, **fields})
    now = await value(connection, "SELECT date_trunc('hour', now())")
    assert isinstance(now, datetime)
    await connection.execute("UPDATE routines.routines SET settled_until = NULL, next_run_at = %s", [now])
    assert (await tick(connection, batch_size=10, now=now, **CATCHUP)).fired == 1
    return await fail(connection)


async def begin(connection: Connection) -> None:
    await connection.execute(
        "UPDATE routines.trajectories SET lease_expires_at = now() WHERE trigger = 'retry' AND ended_at IS NULL"
    )
    await runs.reap(connection)


async def test_runs_and_slots_show_the_retry(client: Client, connection: Connection) -> None:
    first = await failed_slot(client, connection)
    [waiting, failed] = (await client.get(f"{ROUTINE}/runs")).json()
    assert (waiting["trigger"], waiting["status"], waiting["started_at"]) == ("retry", "running", None)
    assert (waiting["retry_of"], waiting["retry_number"]) == (first, 1)
    assert (failed["trajectory_id"], failed["retried_by"]) == (first, waiting["trajectory_id"])
    assert not {"retry_of", "retry_number"} & failed.keys()
    assert "retried_by" not in waiting
    [slot] = (await client.get(f"{ROUTINE}/occurrences")).json()
    assert (slot["trajectory_id"], slot["last_trajectory_id"], slot["status"]) == (
        first,
        waiting["trajectory_id"],
        "running",
    )
    await begin(connection)
    [claimed] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600)
    await runs.finish(connection, claimed, error=None)
    [slot] = (await client.get(f"{ROUTINE}/occurrences")).json()
    assert (slot["status"], slot["error"], slot["outcome"]) == ("completed", None, "started")
    why = (await client.get(f"{ROUTINE}/why", params={"at": slot["scheduled_for"]})).json()
    assert " Retried: run " in why["sentence"]
    assert why["facts"]["trajectory_status"] == "completed"
    [line] = (await client.get("/api/v1/report/my-org")).json()["routines"]
    assert (line["started"], line["completed"], line["failed"]) == (1, 1, 0)
    listed = (await client.get("/api/v1/db/trajectories/my-org/echo")).json()["trajectories"]
    assert [each["trigger"] for each in listed] == ["retry", "schedule"]
    shown = (await client.get(f"/api/v1/db/trajectory/my-org/echo/{waiting['trajectory_id']}")).json()
    assert (shown["trigger"], shown["retry_of"], shown["retry_number"]) == ("retry", first, 1)


async def test_a_waiting_retry_can_be_cancelled(client: Client, connection: Connection) -> None:
    await failed_slot(client, connection)
    [waiting, _] = (await client.get(f"{ROUTINE}/runs")).json()
    url = "/api/v1/trajectory/my-org/echo/statuses"
    answer = await client.post(url, json={str(waiting["trajectory_id"]): "cancelled"})
    assert answer.status_code == 200, answer.text
    await begin(connection)
    assert await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600) == []
    [cancelled, _] = (await client.get(f"{ROUTINE}/runs")).json()
    assert cancelled["status"] == "cancelled"


async def test_a_pause_by_http_cancels_a_waiting_retry(client: Client, connection: Connection) -> None:
    await failed_slot(client, connection)
    await client.post(f"{ROUTINE}/pause")
    [cancelled, _] = (await client.get(f"{ROUTINE}/runs")).json()
    assert (cancelled["status"], cancelled["error"]) == (
        "cancelled",
        "cancelled: its routine was paused before the retry began",
    )
