"""The ledger by HTTP: the outcome of each slot, explanations of times, and coming slots."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from routines_core.db.tick import tick
from support.rows import CATCHUP, at, value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
HISTORY = [("2026-05-01 09:00", "2026-05-04 09:00:01"), ("2026-05-05 09:00", "2026-05-05 09:00:02")]


@pytest.fixture
async def routine(client: Client, connection: Connection) -> str:
    """A daily routine: three slots missed, one started on 4 May, one skipped on 5 May because that run was active."""
    await client.post(BASE, json={"name": "r", "cadence": {"type": "daily", "hour_utc": 9}})
    await connection.execute("UPDATE routines.routines SET created_at = '2026-05-01Z'")
    for due, now in HISTORY:
        await connection.execute("UPDATE routines.routines SET next_run_at = %s", [at(due)])
        await tick(connection, batch_size=1, now=at(now), **CATCHUP)
    return f"{BASE}/r"


async def test_occurrences_are_the_outcome_of_each_slot_newest_first(client: Client, routine: str) -> None:
    found = (await client.get(f"{routine}/occurrences")).json()
    assert [(row["scheduled_for"], row["slot_count"], row["outcome"], row["reason"]) for row in found] == [
        ("2026-05-05T09:00:00Z", 1, "skipped", "overlap"),
        ("2026-05-04T09:00:00Z", 1, "started", None),
        ("2026-05-01T09:00:00Z", 3, "skipped", "missed"),
    ]
    assert found[0]["blocking_trajectory_id"] == found[1]["trajectory_id"]
    assert found[1]["delay_seconds"] == 1.0


@pytest.mark.parametrize(
    ("query", "reasons"),
    [
        ("outcome=started", [None]),
        ("outcome=skipped", ["overlap", "missed"]),
        ("outcome=missed", ["missed"]),
        ("since=2026-05-05T00:00:00Z", ["overlap"]),
        ("until=2026-05-04T00:00:00Z", ["missed"]),
        ("since=2026-05-04T02:00:00%2B02:00&until=2026-05-05T00:00:00Z", [None]),
    ],
)
async def test_occurrences_are_filtered_by_time_and_outcome(
    client: Client, routine: str, query: str, reasons: list[str | None]
) -> None:
    found = (await client.get(f"{routine}/occurrences?{query}")).json()
    assert [row["reason"] for row in found] == reasons


async def test_the_link_header_leads_to_the_next_page_of_occurrences(client: Client, routine: str) -> None:
    first = await client.get(f"{routine}/occurrences?limit=2")
    rest = await client.get(first.headers["link"].split(">")[0][1:])
    assert (len(first.json()), len(rest.json()), "link" in rest.headers) == (2, 1, False)


async def test_the_next_page_of_occurrences_keeps_the_filters(client: Client, routine: str) -> None:
    query = "outcome=skipped&since=2026-05-01T02:00:00%2B02:00&until=2026-05-06T00:00:00Z&limit=1"
    first = await client.get(f"{routine}/occurrences?{query}")
    rest = await client.get(first.headers["link"].split(">")[0][1:])
    assert [row["reason"] for row in [*first.json(), *rest.json()]] == ["overlap", "missed"]


@pytest.mark.parametrize(
    ("time", "kind", "sentence"),
    [
        ("2026-05-02T09:00:00Z", "missed", "Missed: no ticker picked it up in time, as were all 3 slots"),
        ("2026-05-04T09:00:00Z", "started", "Started: run "),
        ("2026-05-05T09:00:00Z", "overlap", "Skipped: run "),
        ("2026-05-05T10:00:00Z", "not_a_slot", "No slot: the next is 2026-05-06T09:00:00Z."),
        ("2199-01-01T09:00:00Z", "future", "Upcoming: "),
    ],
)
async def test_why_explains_a_time_in_a_sentence_with_the_facts_behind_it(
    client: Client, routine: str, time: str, kind: str, sentence: str
) -> None:
    answer = (await client.get(f"{routine}/why?at={time}")).json()
    assert answer["facts"]["kind"] == kind
    assert answer["sentence"].startswith(sentence)


async def test_why_explains_a_pause(client: Client, routine: str, connection: Connection) -> None:
    await client.post(f"{routine}/pause")
    answer = (await client.get(f"{routine}/why?at=2199-01-01T09:00:00Z")).json()
    paused_at = await value(connection, "SELECT to_char(paused_at, 'YYYY-MM-DD') FROM routines.routines")
    assert answer["facts"]["kind"] == "paused_in_future"
    assert str(paused_at) in answer["sentence"]


async def test_a_plus_that_was_not_encoded_is_explained(client: Client, routine: str) -> None:
    answer = await client.get(f"{routine}/why?at=2026-05-04T09:00:00+00:00")
    assert answer.status_code == 400
    assert "write it as %2B" in answer.json()["detail"]
    assert (await client.get(f"{routine}/why?at=2026-05-04T09:00:00%2B00:00")).status_code == 200


@pytest.mark.parametrize(
    "time", ["", "yesterday", "2026-05-04T09:00:00", "2026-05-04T09:00:00 02:00", "0.5", "9999-12-31T00:00:00Z"]
)
async def test_why_refuses_anything_but_a_time_with_a_zone(client: Client, routine: str, time: str) -> None:
    answer = await client.get(f"{routine}/why", params={"at": time})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "at")


async def test_next_lists_the_coming_slots_and_is_empty_during_a_pause(client: Client, routine: str) -> None:
    await client.patch(routine, json={"cadence": {"type": "hourly", "minute_utc": 7}})
    slots = (await client.get(f"{routine}/next?count=3")).json()["slots"]
    assert [slot[14:] for slot in slots] == ["07:00Z"] * 3
    assert slots[0] == (await client.get(routine)).json()["next_run_at"]
    await client.post(f"{routine}/pause")
    assert (await client.get(f"{routine}/next")).json() == {"slots": []}


async def test_why_without_a_time_explains_the_newest_slot_as_at_psql(
    client: Client, routine: str, connection: Connection
) -> None:
    answer = (await client.get(f"{routine}/why")).json()
    assert answer["facts"]["at"][10:] == "T09:00:00Z"
    assert answer["facts"]["kind"] == "pending"
    assert answer["sentence"] == await value(connection, "SELECT routines.why('my-org/echo/r')")


async def test_why_explains_how_a_run_failed(client: Client, routine: str, connection: Connection) -> None:
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'failed', error = 'no such table', ended_at = now()"
    )
    answer = (await client.get(f"{routine}/why?at=2026-05-04T09:00:00Z")).json()
    assert ": no such table. The 3 slots before it were missed." in answer["sentence"]
    assert (answer["facts"]["error"], answer["facts"]["delay_seconds"]) == ("no such table", 1.0)
    assert "step" not in answer["facts"]


async def test_the_latest_outcomes_of_several_routines_come_in_one_answer(client: Client, routine: str) -> None:
    other = await client.post(BASE, json={"name": "other", "cadence": {"type": "manual"}})
    run = (await client.post(f"{BASE}/other/run-now")).json()["trajectory_id"]
    silent = await client.post(BASE, json={"name": "silent", "cadence": {"type": "manual"}})
    ids = [(await client.get(routine)).json()["id"], other.json()["id"], silent.json()["id"]]
    asked = ",".join(map(str, [*ids, 987654321]))
    found = (await client.get(f"/api/v1/db/outcomes/my-org?ids={asked}&slots=2")).json()
    assert [each["routine_id"] for each in found] == ids
    shown = [
        [(row["scheduled_for"], row["reason"], row["status"], row["trigger"]) for row in each["outcomes"]]
        for each in found
    ]
    assert shown == [
        [("2026-05-05T09:00:00Z", "overlap", None, None), ("2026-05-04T09:00:00Z", None, "pending", "schedule")],
        [(None, None, "pending", "run-now")],
        [],
    ]
    assert found[1]["outcomes"][0]["trajectory_id"] == run


async def test_the_latest_outcomes_say_why_the_scheduler_paused_a_routine(
    client: Client, routine: str, connection: Connection
) -> None:
    await connection.execute("UPDATE routines.routines SET paused = true")
    await connection.execute("UPDATE routines.routines SET paused_reason = 'three strikes'")
    asked = (await client.get(routine)).json()["id"]
    [found] = (await client.get(f"/api/v1/db/outcomes/my-org?ids={asked}")).json()
    assert (found["paused_reason"], found["paused_at"] is None, len(found["outcomes"])) == ("three strikes", False, 1)


async def test_the_latest_outcomes_say_what_is_wrong(client: Client, routine: str, connection: Connection) -> None:
    asked = (await client.get(routine)).json()["id"]
    [found] = (await client.get(f"/api/v1/db/outcomes/my-org?ids={asked}")).json()
    assert [each["kind"] for each in found["troubles"]] == ["missed"]
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'failed', error = 'no such table', ended_at = '2026-05-04 09:00:30Z'"
    )
    [found] = (await client.get(f"/api/v1/db/outcomes/my-org?ids={asked}")).json()
    run = await value(connection, "SELECT id FROM routines.trajectories")
    failed = {"kind": "failed", "trajectory_id": run, "since": "2026-05-04T09:00:30Z", "detail": "no such table"}
    assert found["troubles"] == [failed]
    await connection.execute("DELETE FROM routines.skips")
    await connection.execute("DELETE FROM routines.trajectories")
    [found] = (await client.get(f"/api/v1/db/outcomes/my-org?ids={asked}")).json()
    assert "troubles" not in found


@pytest.mark.parametrize("ids", ["", "x", "1,", "0", "-1", "1,,2", ",".join(["1"] * 501)])
async def test_latest_outcomes_refuse_anything_but_ids(client: Client, ids: str) -> None:
    answer = await client.get("/api/v1/db/outcomes/my-org", params={"ids": ids})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "ids")
