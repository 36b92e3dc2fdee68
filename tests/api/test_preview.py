"""Previews of up to a year by HTTP, in pages and with warnings."""

import base64
import json
from typing import Any, cast

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from routines_core.db import planning as db
from support.rows import value

Client = AsyncTestClient[Any]
PREVIEW = "/api/v1/cadence-preview/my-org"
NIGHTLY = {"type": "cron", "expression": "30 2 * * *", "timezone": "Europe/Berlin"}
YEAR = {"from": "2027-01-01T00:00:00Z", "to": "2028-01-01T00:00:00Z"}


async def test_a_request_with_a_count_alone_is_answered_with_times_alone(client: Client) -> None:
    answer = await client.post(PREVIEW, json={"cadence": {"type": "hourly", "minute_utc": 5}, "count": 2})
    assert answer.status_code == 200
    assert list(answer.json()) == ["slots"]
    assert [slot[13:] for slot in answer.json()["slots"]] == [":05:00Z", ":05:00Z"]
    nulls = dict.fromkeys(("from", "to", "starts_at", "ends_at", "task"))
    same = await client.post(PREVIEW, json={"cadence": {"type": "hourly", "minute_utc": 5}, "count": 2, **nulls})
    assert same.content == answer.content


async def test_a_year_has_local_times_and_the_warnings_of_the_whole_year(
    client: Client, connection: Connection
) -> None:
    answer = await client.post(PREVIEW, json={"cadence": NIGHTLY, **YEAR})
    assert answer.status_code == 200
    slots = answer.json()["slots"]
    assert len(slots) == 365
    assert slots[0] == {"at": "2027-01-01T01:30:00Z", "local_time": "2027-01-01T02:30:00+01:00"}
    assert [slot["dst"] for slot in slots if "dst" in slot] == ["shifted", "first of two"]
    assert answer.json()["warnings"] == [
        "02:30 does not exist in Europe/Berlin on 2027-03-28; it fires at 03:00.",
        "02:30 comes twice in Europe/Berlin on 2027-10-31; it fires the first time.",
    ]
    assert "link" not in answer.headers
    assert await value(connection, "SELECT count(*) FROM routines.routines") == 0


async def test_types_without_a_time_zone_have_no_local_time(client: Client) -> None:
    answer = await client.post(PREVIEW, json={"cadence": {"type": "daily", "hour_utc": 9}, **YEAR})
    assert answer.json()["slots"][0] == {"at": "2027-01-01T09:00:00Z"}
    assert answer.json()["warnings"] == []


def as_cursor(place: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


async def pages(client: Client, body: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """Follow the links, and return the answers."""
    answer = await client.post(f"{PREVIEW}?limit={limit}", json=body)
    found = [answer.json()]
    while link := answer.headers.get("link"):
        assert link.endswith('>; rel="next"')
        answer = await client.post(link[1:].partition(">")[0], json=body)
        assert answer.status_code == 200
        found.append(answer.json())
    return found


async def test_pages_together_have_what_one_page_has(client: Client) -> None:
    body = {"cadence": NIGHTLY, **YEAR}
    whole = (await client.post(PREVIEW, json=body)).json()
    parts = await pages(client, body, 100)
    assert [len(part["slots"]) for part in parts] == [100, 100, 100, 65]
    assert [slot for part in parts for slot in part["slots"]] == whole["slots"]
    assert ["warnings" in part for part in parts] == [True, False, False, False]
    assert parts[0]["warnings"] == whole["warnings"]


@pytest.mark.parametrize("minute", [3, 4])
async def test_pages_of_an_interval_without_an_anchor_keep_its_grid(client: Client, minute: int) -> None:
    """The anchor is the minute of the first request, and later pages are requested later."""
    body = {"cadence": {"type": "interval", "every_minutes": 7}, **YEAR}
    cursor = as_cursor([f"2027-01-01T00:0{minute}:00Z", 1, YEAR["to"]])
    [first, second] = (await client.post(f"{PREVIEW}?limit=2&cursor={cursor}", json=body)).json()["slots"]
    assert (first["at"], second["at"]) == (f"2027-01-01T00:{minute + 7:02}:00Z", f"2027-01-01T00:{minute + 14}:00Z")


async def test_a_preview_ends_with_its_ten_thousandth_slot_and_says_so(client: Client) -> None:
    body = {"cadence": {"type": "cron", "expression": "* * * * *"}, **YEAR}
    parts = await pages(client, body, 1000)
    assert [len(part["slots"]) for part in parts] == [1000] * 10
    assert parts[-1]["slots"][-1]["at"] == "2027-01-07T22:39:00Z"
    assert parts[0]["warnings"] == ["This covers only the first 10000 slots, up to 2027-01-07T22:39:00Z."]
    odd = await pages(client, body, 999)
    assert sum(len(part["slots"]) for part in odd) == 10_000


async def test_the_bounds_of_the_routine_bound_the_slots(client: Client) -> None:
    bounds = {"starts_at": "2027-02-01T09:00:00Z", "ends_at": "2027-02-03T09:00:00Z"}
    answer = await client.post(PREVIEW, json={"cadence": {"type": "daily", "hour_utc": 9}, **YEAR, **bounds})
    assert [slot["at"][:10] for slot in answer.json()["slots"]] == ["2027-02-01", "2027-02-02", "2027-02-03"]


async def test_without_from_and_to_the_coming_year_is_previewed(client: Client) -> None:
    answer = await client.post(PREVIEW, json={"cadence": {"type": "daily", "hour_utc": 9}, "task": "echo"})
    assert len(answer.json()["slots"]) == 366


async def test_a_task_whose_runs_take_longer_than_the_time_between_two_slots_is_warned_of(
    client: Client, connection: Connection
) -> None:
    await connection.execute(
        """INSERT INTO routines.trajectories
               (collection_id, task_id, task_version, trigger, init_params, status, started_at, ended_at)
           SELECT collection_id, id, 1, 'api', '{}', 'completed', now() - interval '2 hours', now()
           FROM routines.tasks"""
    )
    body = {"cadence": {"type": "hourly"}, "task": "echo"}
    [warning] = (await client.post(PREVIEW, json=body)).json()["warnings"]
    assert warning.startswith("Runs of echo usually take 2.0 hours, but two slots are only 60 minutes apart")
    assert (await client.post(PREVIEW, json={**body, "task": "none"})).status_code == 404


FORGED = [["2027-01-01T01:30:00Z", 0, "2028-01-01T00:00:00Z"], ["2027-01-01T01:30:00Z", 10_000, "2028-01-01T00:00:00Z"]]
FORGED += [
    ["9999-12-31T23:59:59.999999Z", 1, "2028-01-01T00:00:00Z"],
    ["2027-01-01T01:30:00", 1, "2028-01-01T00:00:00Z"],
]


@pytest.mark.parametrize("place", [*FORGED, 1, None, []], ids=str)
async def test_a_cursor_that_comes_from_no_page_is_refused(client: Client, place: Any) -> None:
    answer = await client.post(f"{PREVIEW}?cursor={as_cursor(place)}", json={"cadence": NIGHTLY, **YEAR})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "cursor")


@pytest.mark.parametrize(
    ("query", "body", "field"),
    [
        ("", {"count": 3, **YEAR}, "count"),
        ("", {"from": "2027-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}, "to"),
        ("", {"from": "2027-01-01T00:00:00Z", "to": "2028-01-02T00:00:01Z"}, "to"),
        ("", {"from": "tomorrow"}, "from"),
        ("", {"since": "2027-01-01T00:00:00Z"}, "since"),
        ("", {"starts_at": "2027-01-02T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"}, "ends_at"),
        ("", {"spread_minutes": 3, **YEAR}, "spread_minutes"),
        ("", {"task": "Not a slug"}, "task"),
        ("?limit=5", {}, "limit"),
        ("?cursor=x", {}, "cursor"),
        ("?limit=1001", YEAR, "limit"),
        ("?limit=0", YEAR, "limit"),
        ("?page=2", YEAR, "page"),
    ],
)
async def test_a_preview_that_makes_no_sense_is_refused(
    client: Client, query: str, body: dict[str, Any], field: str
) -> None:
    answer = await client.post(PREVIEW + query, json={"cadence": NIGHTLY, **body})
    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (400, [field])


async def test_a_spread_is_checked_and_moves_no_slot(client: Client) -> None:
    body = {"cadence": NIGHTLY, **YEAR}
    plain = await client.post(PREVIEW, json=body)
    assert (await client.post(PREVIEW, json={**body, "spread_seconds": 3600})).json() == plain.json()
    quarters = {"cadence": {**NIGHTLY, "expression": "*/15 * * * *"}, **YEAR}
    refused = await client.post(PREVIEW, json={**quarters, "spread_seconds": 900})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "spread_seconds")
    assert (await client.post(PREVIEW, json={**quarters, "spread_seconds": 899})).status_code == 200


async def test_an_expression_that_never_comes_is_refused(client: Client) -> None:
    answer = await client.post(PREVIEW, json={"cadence": {**NIGHTLY, "expression": "0 0 30 2 *"}, **YEAR})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "cadence.expression")


async def test_a_preview_of_a_year_takes_one_of_the_places_for_plans_and_no_connection_while_it_waits(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, held = cast("Any", client).app.state.services, list[tuple[int, int]]()
    gate, real = services.plans, db.preview

    async def noted(*arguments: Any, **named: Any) -> list[Any]:
        held.append((gate.in_use, services.connections.in_use))
        return await real(*arguments, **named)

    monkeypatch.setattr(db, "preview", noted)
    assert (await client.post(PREVIEW, json={"cadence": NIGHTLY, **YEAR})).status_code == 200
    assert (held, gate.in_use) == ([(1, 1)], 0)
    assert (await client.post(PREVIEW, json={"cadence": NIGHTLY})).status_code == 200
    assert len(held) == 1


async def test_reading_the_description_of_the_api_changes_no_answer(client: Client) -> None:
    before = await client.post(PREVIEW + "?limit=0", json={"cadence": NIGHTLY, **YEAR})
    assert (await client.get("/openapi.json")).status_code == 200
    after = await client.post(PREVIEW + "?limit=0", json={"cadence": NIGHTLY, **YEAR})
    assert (after.status_code, after.json()) == (400, before.json())
