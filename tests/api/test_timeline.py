"""The timeline by HTTP: what many routines did and will do, beside each other."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import timeline as db

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
TIMELINE = "/api/v1/timeline/my-org"
DAY = "2026-05-04T"


@pytest.fixture
async def three(client: Client) -> None:
    """Two hourly routines, and a manual one that has run."""
    for name, kind in {"a": "hourly", "b": "hourly", "by-hand": "manual"}.items():
        made = await client.post(BASE, json={"name": name, "cadence": {"type": kind}})
        assert made.status_code == 201
    assert (await client.post(f"{BASE}/by-hand/run-now")).status_code == 200


@pytest.mark.usefixtures("three")
async def test_by_default_it_reaches_from_twelve_hours_ago_to_six_hours_ahead(client: Client) -> None:
    answer = (await client.get(TIMELINE)).json()
    since, until = (datetime.fromisoformat(answer[end]) for end in ("from", "to"))
    assert until - since == timedelta(hours=18)
    assert abs(datetime.now(UTC) - since - timedelta(hours=12)) < timedelta(minutes=1)
    assert answer["bucket_seconds"] == 324
    lanes = {lane["routine"]: lane["marks"] for lane in answer["routines"]}
    assert list(lanes) == ["a", "b", "by-hand"]
    assert [mark["kind"] for mark in lanes["a"]] in (["coming"] * 6, ["coming"] * 7)
    [run] = lanes["by-hand"]
    assert run == {"at": run["at"], "until": None, "kind": "pending", "trajectory_id": run["trajectory_id"]}


@pytest.mark.usefixtures("three")
async def test_a_page_links_to_the_next_with_the_same_time_and_choice(client: Client) -> None:
    ids = ",".join(str(each["id"]) for each in (await client.get("/api/v1/routines/my-org")).json())
    first = await client.get(f"{TIMELINE}?limit=1&q=echo/&ids={ids}&bucket_seconds=3600")
    assert [lane["routine"] for lane in first.json()["routines"]] == ["a"]
    link = first.headers["link"].removeprefix("<").partition(">")[0]
    second = await client.get(link)
    assert second.status_code == 200, link
    assert [lane["routine"] for lane in second.json()["routines"]] == ["b"]
    assert {key: second.json()[key] for key in ("from", "to", "bucket_seconds")} == {
        key: first.json()[key] for key in ("from", "to", "bucket_seconds")
    }
    third = await client.get(second.headers["link"].removeprefix("<").partition(">")[0])
    assert [lane["routine"] for lane in third.json()["routines"]] == ["by-hand"]
    assert "link" not in third.headers


@pytest.mark.usefixtures("three")
async def test_it_can_be_narrowed_to_a_part_of_a_name_and_to_ids(client: Client) -> None:
    for query, names in {"q=by-": ["by-hand"], "q=echo/a": ["a"], "q=nothing": [], "ids=999999": []}.items():
        lanes = (await client.get(f"{TIMELINE}?{query}")).json()["routines"]
        assert [lane["routine"] for lane in lanes] == names


@pytest.mark.parametrize(
    ("query", "field", "rule"),
    [
        ("from=today", "from", "must be a time with a zone"),
        (f"from={DAY}09:00:00Z&to={DAY}09:00:00Z", "to", "must be later than from"),
        (f"from={DAY}09:00:00Z&to=2026-05-06T09:00:01Z", "to", "at most 48 hours"),
        ("bucket_seconds=0", "bucket_seconds", "1"),
        ("bucket_seconds=323", "bucket_seconds", "must be at least 324"),
        ("ids=1,x", "ids", "separated by commas"),
        ("ids=", "ids", "separated by commas"),
        ("q=%00", "q", "must consist of"),
        ("q=Morning", "q", "must consist of"),
        ("limit=101", "limit", "100"),
        ("cursor=W10=", "cursor", "unchanged"),
        ("form=csv", "form", "unknown query parameter"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(client: Client, query: str, field: str, rule: str) -> None:
    answer = await client.get(f"{TIMELINE}?{query}")
    assert answer.status_code == 400
    assert field in answer.json()["detail"]
    assert rule in answer.text


async def test_the_timeline_of_another_collection_is_not_found(client: Client) -> None:
    assert (await client.get("/api/v1/timeline/other")).status_code == 404


async def test_a_collection_reads_one_timeline_at_a_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, held = cast("Any", client).app.state.services.plans, list[int]()

    async def noted(*_: Any, **__: Any) -> list[Any]:
        held.append(gate.in_use)
        return []

    monkeypatch.setattr(db, "timeline", noted)
    answer = await client.get(TIMELINE)
    assert (answer.status_code, held, gate.in_use) == (200, [1], 0)
