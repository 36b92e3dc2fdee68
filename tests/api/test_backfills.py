"""Backfills by HTTP: the dry run, what is shown of a backfill, its end, and what is refused."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from routines_core.db.tick import expand_backfill
from support.rows import value

Client = AsyncTestClient[Any]
ROUTINE = "/api/v1/routines/my-org/echo/r"
BACKFILLS = f"{ROUTINE}/backfills"
RANGE = {"from": "2026-05-04T09:00:00Z", "to": "2026-05-04T12:00:00Z"}
END = "UPDATE routines.trajectories SET status = %s, ended_at = now() WHERE ended_at IS NULL"


@pytest.fixture
async def hourly(client: Client, connection: Connection) -> Client:
    """A client of a collection with an hourly routine, whose next slot is half an hour away."""
    made = await client.post("/api/v1/routines/my-org/echo", json={"name": "r", "cadence": {"type": "hourly"}})
    assert made.status_code == 201, made.text
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '30 minutes'")
    return client


async def created(client: Client, **fields: Any) -> dict[str, Any]:
    answer = await client.post(BACKFILLS, json={**RANGE, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def shown(client: Client, backfill: int) -> dict[str, Any]:
    answer = await client.get(f"{BACKFILLS}/{backfill}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_dry_run_says_what_becomes_of_each_slot_and_starts_nothing(
    hourly: Client, connection: Connection
) -> None:
    answer = await hourly.post(BACKFILLS, json={**RANGE, "dry_run": True})
    assert answer.status_code == 200
    slots = [
        {"scheduled_for": f"2026-05-04T{hour:02}:00:00Z", "becomes": "run", "reason": "before_creation"}
        for hour in (9, 10, 11)
    ]
    assert answer.json() == {"run": 3, "rerun": 0, "left": 0, "slots": slots}
    newest = await hourly.post(BACKFILLS, json={**RANGE, "dry_run": True, "order": "newest"})
    assert newest.json()["slots"] == slots[::-1]
    assert (await hourly.get(BACKFILLS)).json() == []
    assert await value(connection, "SELECT count(*) FROM routines.backfills") == 0


async def test_a_dry_run_lists_the_first_thousand_slots_and_counts_all(hourly: Client) -> None:
    answer = await hourly.post(BACKFILLS, json={**RANGE, "from": "2026-03-01T00:00:00Z", "dry_run": True})
    plan = answer.json()
    assert (plan["run"], len(plan["slots"]), plan["truncated"]) == (1548, 1000, True)


async def test_a_backfill_is_created_expanded_and_shown(hourly: Client, connection: Connection) -> None:
    made = await created(hourly, max_active=2)
    assert {**made, "created_at": None} == {
        "id": 1, **RANGE, "reprocess": "missing", "max_active": 2, "order": "oldest", "status": "active",
        "created_at": None, "created_by": "key 1", "started": 0, "left": 0, "active": 0, "completed": 0, "failed": 0,
        "cancelled": 0, "archived": 0, "reached": None, "ended_at": None,
    }  # fmt: skip
    assert await expand_backfill(connection, 1) == 2
    [second, first] = (await hourly.get(f"{ROUTINE}/runs")).json()
    assert (first["trigger"], first["backfill_id"], first["fills_slot"]) == ("backfill", 1, "2026-05-04T09:00:00Z")
    assert second["fills_slot"] == "2026-05-04T10:00:00Z"
    whole = (await hourly.get(f"/api/v1/db/trajectory/my-org/echo/{first['trajectory_id']}")).json()
    assert (whole["backfill_id"], whole["fills_slot"], whole["scheduled_for"]) == (1, "2026-05-04T09:00:00Z", None)
    await connection.execute(END, ["completed"])
    await expand_backfill(connection, 1)
    running = await shown(hourly, 1)
    assert (running["status"], running["started"], running["active"], running["completed"]) == ("active", 3, 1, 2)
    await connection.execute(END, ["failed"])
    await expand_backfill(connection, 1)
    ended = await shown(hourly, 1)
    assert (ended["status"], ended["failed"], ended["reached"]) == ("completed", 1, "2026-05-04T11:00:00Z")
    assert (await hourly.get(BACKFILLS)).json() == [ended]


async def test_a_gap_can_be_filled_as_it_is_listed_and_the_ledger_says_so(
    hourly: Client, connection: Connection
) -> None:
    await connection.execute(
        """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason)
           SELECT collection_id, id, at, at, 'missed'
           FROM routines.routines, date_trunc('hour', now() - interval '2 hours') AS at"""
    )
    await connection.execute("UPDATE routines.routines SET created_at = now() - interval '150 minutes'")
    [gap] = (await hourly.get(f"{ROUTINE}/gaps")).json()
    until = (datetime.fromisoformat(gap["scheduled_for"]) + timedelta(seconds=1)).isoformat().replace("+00:00", "Z")
    made = await created(hourly, **{"from": gap["scheduled_for"], "to": until})
    assert await expand_backfill(connection, made["id"]) == 1
    [run] = (await hourly.get(f"{ROUTINE}/runs")).json()
    assert run["fills_slot"] == gap["scheduled_for"]
    [slot] = (await hourly.get(f"{ROUTINE}/occurrences")).json()
    assert (slot["outcome"], slot["reason"], slot["filled_by"], slot["filled_status"]) == (
        "skipped", "missed", run["trajectory_id"], "pending",
    )  # fmt: skip
    assert (await hourly.get(f"{ROUTINE}/gaps")).json() == []
    why = (await hourly.get(f"{ROUTINE}/why", params={"at": gap["scheduled_for"]})).json()
    assert f" Filled afterwards: run {run['trajectory_id']} at " in why["sentence"]
    assert why["facts"]["filled_by"] == run["trajectory_id"]
    plan = (await hourly.post(BACKFILLS, json={"from": gap["scheduled_for"], "to": until, "dry_run": True})).json()
    assert plan["slots"] == [
        {**gap_slot(gap), "becomes": "left", "reason": "pending", "trajectory_id": run["trajectory_id"]}
    ]


def gap_slot(gap: dict[str, Any]) -> dict[str, Any]:
    return {"scheduled_for": gap["scheduled_for"]}


async def test_a_held_backfill_says_why(hourly: Client, connection: Connection) -> None:
    made = await created(hourly)
    assert (await hourly.post(f"{ROUTINE}/pause")).status_code == 200
    await expand_backfill(connection, made["id"])
    assert (await shown(hourly, made["id"]))["held_by"] == "the routine is paused"


async def test_a_backfill_can_be_cancelled_again_and_again(hourly: Client, connection: Connection) -> None:
    made = await created(hourly)
    await expand_backfill(connection, made["id"])
    for _ in range(2):
        assert (await hourly.delete(f"{BACKFILLS}/{made['id']}")).status_code == 204
        ended = await shown(hourly, made["id"])
        assert (ended["status"], ended["cancelled"], ended["active"]) == ("cancelled", 1, 0)
    for path in (f"{BACKFILLS}/987654321", f"{BACKFILLS}/x"):
        assert (await hourly.delete(path)).status_code == 404
        assert (await hourly.get(path)).status_code == 404


async def test_a_list_has_pages(hourly: Client) -> None:
    for _ in range(3):
        await created(hourly)
    first = await hourly.get(BACKFILLS, params={"limit": 2})
    assert [each["id"] for each in first.json()] == [3, 2]
    second = await hourly.get(first.links["next"]["url"])
    assert [each["id"] for each in second.json()] == [1]


async def test_an_idempotency_key_creates_one_backfill(hourly: Client) -> None:
    answers = [await hourly.post(BACKFILLS, json=RANGE, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len((await hourly.get(BACKFILLS)).json()) == 1


async def test_the_range_ends_now_at_the_latest(hourly: Client) -> None:
    for to in (None, "2150-01-01T00:00:00Z"):
        made = await created(hourly, **{"from": "2026-05-04T09:00:00Z", "to": to})
        assert made["to"] < "2150"
        plan = await hourly.post(BACKFILLS, json={"from": made["to"], "to": "2150-01-01T00:00:00Z", "dry_run": True})
        assert plan.json()["slots"] == []


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "from: is required."),
        ({"from": "yesterday"}, "from: must be a time with a zone"),
        ({**RANGE, "to": RANGE["from"]}, "to: must be later than from."),
        ({"from": "2150-01-01T00:00:00Z"}, "from: must be in the past."),
        ({**RANGE, "reprocess": "none"}, "reprocess: must be 'missing', 'failed' or 'all'"),
        ({**RANGE, "order": "random"}, "order: must be 'oldest' or 'newest'"),
        ({**RANGE, "max_active": 0}, "max_active: must be greater than or equal to 1"),
        ({**RANGE, "max_active": 21}, "max_active: must be less than or equal to 20"),
        ({**RANGE, "dry_run": "yes"}, "dry_run: must be a valid boolean"),
        ({**RANGE, "until": None}, "until: unknown field."),
        ({"from": "1970-01-01T00:00:00Z"}, "to: the range has more than 10000 slots."),
        ({"from": "1970-01-01T00:00:00Z", "dry_run": True}, "to: the range has more than 10000 slots."),
        ([], "must be an object"),
    ],
)
async def test_a_backfill_that_is_not_valid_is_refused(hourly: Client, body: object, detail: str) -> None:
    refused = await hourly.post(BACKFILLS, json=body)
    assert refused.status_code == 400, refused.text
    assert refused.json()["detail"].startswith(detail)
    assert (await hourly.get(BACKFILLS)).json() == []


async def test_a_manual_routine_has_no_slots(hourly: Client) -> None:
    await hourly.patch(ROUTINE, json={"cadence": {"type": "manual"}})
    for dry_run in (False, True):
        refused = await hourly.post(BACKFILLS, json={**RANGE, "dry_run": dry_run})
        assert (refused.status_code, refused.json()["detail"]) == (409, "A manual routine has no slots.")


async def test_a_collection_has_a_bounded_number_of_open_backfills(hourly: Client) -> None:
    for _ in range(20):
        await created(hourly)
    refused = await hourly.post(BACKFILLS, json=RANGE)
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("The collection has 20 open backfills, as many as it may")
    assert (await hourly.delete(f"{BACKFILLS}/1")).status_code == 204
    await created(hourly)
