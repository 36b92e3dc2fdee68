"""Planning by HTTP: the load of the coming days, and quiet minutes near a wished time."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from routines_core.db import planning as db

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
LOAD = "/api/v1/schedule-load/my-org"
SUGGEST = "/api/v1/cadence-suggest/my-org"
PREVIEW = {"type": "daily", "hour_utc": 9}


@pytest.fixture
async def three(client: Client) -> None:
    """Two routines daily at 09:00 and one at 09:01."""
    for name, minute in {"a": 0, "b": 0, "c": 1}.items():
        made = await client.post(BASE, json={"name": name, "cadence": {**PREVIEW, "minute_utc": minute}})
        assert made.status_code == 201


@pytest.mark.usefixtures("three")
async def test_the_load_of_the_coming_week_is_shown_by_hour(client: Client) -> None:
    answer = await client.get(LOAD)
    assert answer.status_code == 200
    buckets = answer.json()["buckets"]
    assert [bucket["slots"] for bucket in buckets] in ([3] * 7, [1, *[3] * 6, 2], [*[3] * 7])
    assert {bucket["at"][11:] for bucket in buckets} == {"09:00:00Z"}
    assert {(bucket["expected_seconds"], bucket["started"], bucket["skipped"]) for bucket in buckets} == {(0.0, 0, 0)}


@pytest.mark.usefixtures("three")
async def test_a_stretch_and_a_bucket_can_be_chosen(client: Client) -> None:
    day = (datetime.now(UTC) + timedelta(days=2)).date()
    answer = await client.get(f"{LOAD}?from={day}T00:00:00Z&to={day}T09:01:00Z&bucket=minute")
    assert [(bucket["at"], bucket["slots"]) for bucket in answer.json()["buckets"]] == [(f"{day}T09:00:00Z", 2)]
    answer = await client.get(f"{LOAD}?from={day}T00:00:00Z&to={day}T09:01:00%2B09:00")
    assert answer.json() == {"buckets": []}


@pytest.mark.usefixtures("three")
async def test_paused_routines_have_no_coming_slots(client: Client) -> None:
    for name in ("a", "b", "c"):
        await client.post(f"{BASE}/{name}/pause")
    assert (await client.get(LOAD)).json() == {"buckets": []}


@pytest.mark.parametrize(
    ("query", "field", "rule"),
    [
        ("from=today", "from", "must be a time with a zone"),
        ("to=2026-05-04T09:00:00+00:00", "to", "write it as %2B"),
        ("from=2026-05-04T09:00:00Z&to=2026-05-04T09:00:00Z", "to", "must be later than from"),
        ("from=2026-05-04T09:00:00Z&to=2026-05-12T09:00:01Z&bucket=minute", "to", "at most 8 days"),
        ("from=2026-05-04T09:00:00Z&to=2026-08-04T09:00:01Z", "to", "at most 92 days"),
        ("bucket=day", "bucket", "minute"),
    ],
)
async def test_a_stretch_that_makes_no_sense_is_refused(client: Client, query: str, field: str, rule: str) -> None:
    answer = await client.get(f"{LOAD}?{query}")
    assert answer.status_code == 400
    assert field in answer.json()["detail"]
    assert rule in answer.text


@pytest.mark.usefixtures("three")
async def test_quiet_minutes_are_suggested_and_the_wish_is_among_them(client: Client, connection: Connection) -> None:
    answer = await client.post(SUGGEST, json={"cadence": {"type": "weekdays", "hour_utc": 9}, "window_minutes": 2})
    assert answer.status_code == 200
    found = answer.json()["suggestions"]
    assert [(each["minutes_away"], each["slots"]) for each in found] == [(-1, 0), (-2, 0), (2, 0), (1, 1), (0, 2)]
    quietest = found[0]["cadence"]
    assert quietest == {"type": "weekdays", "hour_utc": 8, "minute_utc": 59, "day_of_week": None}
    # It can be used as it is.
    assert (await client.post(BASE, json={"name": "d", "cadence": quietest})).status_code == 201
    many = await client.post(SUGGEST, json={"cadence": {"type": "hourly", "minute_utc": 30}})
    assert len(many.json()["suggestions"]) in {5, 6}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"cadence": {"type": "manual"}}, "cadence"),
        ({"cadence": {"type": "daily"}}, "hour_utc"),
        ({"cadence": PREVIEW, "window_minutes": 0}, "window_minutes"),
        ({"cadence": PREVIEW, "window_minutes": 181}, "window_minutes"),
        ({"cadence": PREVIEW, "wish": 1}, "wish"),
        ({}, "cadence"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused(client: Client, body: dict[str, Any], field: str) -> None:
    answer = await client.post(SUGGEST, json=body)
    assert answer.status_code == 400
    assert field in answer.text


async def test_the_load_of_another_collection_is_not_found(client: Client) -> None:
    assert (await client.get("/api/v1/schedule-load/other")).status_code == 404
    assert (await client.post("/api/v1/cadence-suggest/other", json={"cadence": PREVIEW})).status_code == 404


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("asks", ["load", "suggestions"])
async def test_a_collection_plans_one_at_a_time(client: Client, monkeypatch: pytest.MonkeyPatch, asks: str) -> None:
    gate, held = cast("Any", client).app.state.services.plans, list[int]()

    async def noted(*_: Any, **__: Any) -> list[Any]:
        held.append(gate.in_use)
        return []

    monkeypatch.setattr(db, "schedule_load" if asks == "load" else "quiet_minutes", noted)
    answer = await (client.get(LOAD) if asks == "load" else client.post(SUGGEST, json={"cadence": PREVIEW}))
    assert (answer.status_code, held, gate.in_use) == (200, [1], 0)
    assert [gate.try_enter("one") for _ in range(2)] == [True, False]
    assert gate.try_enter("another")
