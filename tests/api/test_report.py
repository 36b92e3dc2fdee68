"""The report of a collection by HTTP, as JSON and CSV, and the slots of a routine that never ran."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
import pytest
from litestar.testing import AsyncTestClient

from routines_api.schemas.report import as_csv, cell
from routines_core.db import Connection
from routines_core.db import report as db
from support.rows import value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
REPORT = "/api/v1/report/my-org"
DAY = "from=2026-05-04T00:00:00Z&to=2026-05-05T00:00:00Z"
NO_SLOTS = {
    "overlap": 0, "coalesced": 0, "missed": 0, "paused": 0, "failed_to_start": 0, "calendar": 0, "outside_hours": 0,
    "backoff": 0,
}  # fmt: skip


@pytest.fixture
async def day(client: Client, connection: Connection) -> None:
    """Two routines and what became of their slots on 2026-05-04: 24 of `a`, of which 22 ran, and 1 of `b`."""
    for name, cadence in {"a": {"type": "hourly"}, "b": {"type": "daily", "hour_utc": 9}}.items():
        assert (await client.post(BASE, json={"name": name, "cadence": cadence})).status_code == 201
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
               scheduled_for, init_params, status, error, created_at, started_at, ended_at)
           SELECT collection_id, task_id, 1, routines.id, 'schedule', slot, '{}',
                  CASE WHEN slot::text LIKE '%% 10:%%' THEN 'failed' ELSE 'completed' END,
                  CASE WHEN slot::text LIKE '%% 10:%%' THEN '=1+1' END, slot,
                  slot + CASE WHEN slot::text LIKE '%% 05:%%' THEN interval '26 minutes' ELSE '2 seconds' END, slot
           FROM routines.routines, generate_series('2026-05-04 00:00Z', '2026-05-04 23:00Z', interval '1 hour') AS slot
           WHERE name = 'a' AND slot NOT IN ('2026-05-04 03:00Z', '2026-05-04 04:00Z')
              OR name = 'b' AND slot = '2026-05-04 09:00Z'"""
    )
    await connection.execute(
        """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, slot_count,
                                       cadence, reason, recorded_at)
           SELECT collection_id, id, '2026-05-04 03:00Z', '2026-05-04 04:00Z', 2, routines.cadence_of(routines),
                  'missed', '2026-05-04 05:00Z'
           FROM routines.routines WHERE name = 'a'"""
    )


@pytest.mark.usefixtures("day")
async def test_a_report_has_the_sums_of_all_of_each_task_and_of_each_routine(client: Client) -> None:
    answer = await client.get(f"{REPORT}?{DAY}")
    assert answer.status_code == 200
    report = answer.json()
    assert set(report) == {"from", "to", "late_after_seconds", "complete_since", "total", "tasks", "routines"}
    assert (report["from"], report["to"]) == ("2026-05-04T00:00:00Z", "2026-05-05T00:00:00Z")
    assert report["complete_since"] is None
    first, second = report["routines"]
    assert first == {
        "task": "echo", "routine": "a", "routine_id": first["routine_id"], "deleted": False, "expected": 24,
        "started": 22, "on_time": 21, "late": 1, "completed": 21, "failed": 1, "cancelled": 0, "archived": 0,
        "active": 0, "skipped": NO_SLOTS | {"missed": 2}, "pending": 0, "recovered": 3, "max_delay_seconds": 1560.0,
    }  # fmt: skip
    assert (second["routine"], second["expected"], second["max_delay_seconds"]) == ("b", 1, 2.0)
    [task] = report["tasks"]
    assert task.pop("task") == "echo"
    assert task == report["total"]
    assert (task["expected"], task["completed"], task["skipped"]["missed"]) == (25, 22, 2)


@pytest.mark.usefixtures("day")
async def test_what_counts_as_late_can_be_chosen(client: Client) -> None:
    for seconds, late in ((1, 23), (60, 1), (1560, 0)):
        report = (await client.get(f"{REPORT}?{DAY}&late_after_seconds={seconds}")).json()
        assert (report["total"]["late"], report["total"]["on_time"]) == (late, 23 - late)


async def test_a_report_is_of_today_unless_told_otherwise(client: Client) -> None:
    report = (await client.get(REPORT)).json()
    now = datetime.now(UTC)
    assert report["from"] in {f"{now:%Y-%m-%d}T00:00:00Z", f"{now - timedelta(minutes=1):%Y-%m-%d}T00:00:00Z"}
    assert now - datetime.fromisoformat(report["to"]) < timedelta(minutes=1)
    assert report["routines"] == report["tasks"] == []
    assert report["total"]["expected"] == 0
    assert report["total"]["max_delay_seconds"] is None
    # Of the day before, if it ends at midnight.
    report = (await client.get(f"{REPORT}?to=2026-05-04T00:00:00Z")).json()
    assert report["from"] == "2026-05-03T00:00:00Z"


@pytest.mark.usefixtures("day")
async def test_pages_of_a_report_are_followed_by_its_link(client: Client) -> None:
    first = await client.get(f"{REPORT}?{DAY}&limit=1&late_after_seconds=1")
    assert [row["routine"] for row in first.json()["routines"]] == ["a"]
    assert first.json()["total"]["expected"] == 25
    link = first.headers["link"].partition(">")[0].removeprefix("<")
    second = await client.get(link)
    assert second.status_code == 200
    assert [row["routine"] for row in second.json()["routines"]] == ["b"]
    assert second.json()["late_after_seconds"] == 1
    assert {"total", "tasks"}.isdisjoint(second.json())
    assert "link" not in second.headers


# --- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("day")
@pytest.mark.parametrize(
    ("query", "accept", "is_csv"),
    [
        ("", "text/csv", True),
        ("", "text/csv, application/json;q=0.5", True),
        ("", "application/json, text/csv;q=0.5", False),
        ("", "*/*", False),
        ("", "text/html", False),
        ("", "text/csv;q=0", False),
        ("", "text/csv;q=1e999, application/json;q=0.", True),
        ("", "text/csv, application/json, */*", False),
        ("", ";,;q=,text/csv ; header=present; Q=0.7", True),
        ("&format=csv", "application/json", True),
        ("&format=json", "text/csv", False),
    ],
)
async def test_the_query_and_then_the_header_decide_on_the_format(
    client: Client,
    query: str,
    accept: str,
    is_csv: bool,  # noqa: FBT001
) -> None:
    answer = await client.get(f"{REPORT}?{DAY}{query}", headers={"Accept": accept})
    kind = "text/csv; charset=utf-8" if is_csv else "application/json"
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert "Accept" in answer.headers["vary"]


@pytest.mark.usefixtures("day")
async def test_csv_has_a_line_for_each_routine_and_the_numbers_of_the_json(client: Client) -> None:
    answer = await client.get(f"{REPORT}?{DAY}&format=csv&limit=1")
    assert answer.headers["content-disposition"] == 'attachment; filename="report-my-org-2026-05-04.csv"'
    assert "complete-since" not in answer.headers
    [line] = csv.DictReader(io.StringIO(answer.text))
    json = (await client.get(f"{REPORT}?{DAY}")).json()["routines"][0]
    flat = {**json, **json.pop("skipped"), "deleted": "false"}
    assert {name: line[name] for name in flat if name != "skipped"} == {
        name: str(number) for name, number in flat.items() if name != "skipped"
    }
    assert line["skipped"] == "2"
    link = answer.headers["link"].partition(">")[0].removeprefix("<")
    rest = await client.get(link)
    assert [row["routine"] for row in csv.DictReader(io.StringIO(rest.text))] == ["b"]


@pytest.mark.usefixtures("day")
async def test_a_report_with_deleted_slots_says_so(client: Client, connection: Connection) -> None:
    await connection.execute("INSERT INTO routines.retention VALUES ('trajectories', '2026-05-04 06:00Z')")
    assert (await client.get(f"{REPORT}?{DAY}")).json()["complete_since"] == "2026-05-04T06:00:00Z"
    answer = await client.get(f"{REPORT}?{DAY}&format=csv")
    assert answer.headers["complete-since"] == "2026-05-04T06:00:00Z"
    later = await client.get(f"{REPORT}?from=2026-05-04T06:00:01Z&to=2026-05-05T00:00:00Z")
    assert later.json()["complete_since"] is None


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")'])
def test_no_name_becomes_a_formula(text: str) -> None:
    zeros = [0] * len(db.ReportRow.__struct_fields__)
    row = msgspec.structs.replace(db.ReportRow(*zeros), task=text, routine=text, max_delay_seconds=None)
    [_, line] = csv.reader(io.StringIO(as_csv([row]), newline=""))
    assert line[:2] == ["'" + text] * 2
    assert (cell(-1.5), cell(None), cell("morning")) == ("-1.5", "", "morning")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [REPORT, f"{BASE}/a/gaps"])
@pytest.mark.parametrize(
    ("query", "field", "rule"),
    [
        ("from=today", "from", "must be a time with a zone"),
        ("from=2026-05-04T09:00:00", "from", "must be a time with a zone"),
        ("to=2026-05-04T09:00:00+00:00", "to", "write it as %2B"),
        ("from=2026-05-04T09:00:00Z&to=2026-05-04T09:00:00Z", "to", "must be later than from"),
        ("from=2026-05-04T09:00:00Z&to=2026-05-04T10:00:00%2B02:00", "to", "must be later than from"),
        ("from=2025-05-03T09:00:00Z&to=2026-05-04T09:00:01Z", "to", "at most 366 days"),
        ("limit=0", "limit", "1"),
        ("limit=1e1", "limit", "must be an integer"),
        ("cursor=IiI=", "cursor", "unchanged from the Link header"),
        ("cursor=x", "cursor", "unchanged from the Link header"),
        ("cursor=WyJhIiwiYiIsOTIyMzM3MjAzNjg1NDc3NTgwOF0=", "cursor", "unchanged from the Link header"),
        ("since=2026-05-04T09:00:00Z", "since", "unknown query parameter"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    client: Client, path: str, query: str, field: str, rule: str
) -> None:
    assert (await client.post(BASE, json={"name": "a", "cadence": {"type": "hourly"}})).status_code == 201
    answer = await client.get(f"{path}?{query}")
    assert answer.status_code == 400
    assert field in answer.json()["detail"]
    assert rule in answer.text


@pytest.mark.parametrize(
    ("query", "field"), [("late_after_seconds=-1", "late_after_seconds"), ("format=xml", "format")]
)
async def test_parameters_of_a_report_have_their_rules(client: Client, query: str, field: str) -> None:
    answer = await client.get(f"{REPORT}?{query}")
    assert (answer.status_code, field in answer.json()["detail"]) == (400, True)


async def test_a_report_of_another_collection_is_not_found(client: Client) -> None:
    answer = await client.get("/api/v1/report/other?format=csv")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert (await client.get(f"{BASE}/none/gaps")).status_code == 404


async def test_a_report_counts_no_slot_of_another_collection(client: Client, connection: Connection) -> None:
    await connection.execute(
        """WITH other AS (INSERT INTO routines.collections (name) VALUES ('other') RETURNING id),
                task AS (INSERT INTO routines.tasks (collection_id, name) SELECT id, 'echo' FROM other
                         RETURNING id, collection_id),
                version AS (INSERT INTO routines.task_versions (task_id, version, workflow)
                            SELECT id, 1, '{}' FROM task)
           INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
           SELECT collection_id, id, name, 'hourly' FROM task, unnest('{a,b}'::text[]) AS name"""
    )
    await connection.execute("UPDATE routines.routines SET next_run_at = now() - interval '3 hours'")
    await connection.execute("DELETE FROM routines.routines WHERE name = 'b'")
    assert await value(connection, "SELECT count(*) FROM routines.deleted_routines") == 1
    report = (await client.get(f"{REPORT}?from={datetime.now(UTC) - timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}")).json()
    assert (report["total"]["expected"], report["routines"], report["tasks"]) == (0, [], [])


async def test_a_collection_makes_one_report_at_a_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, held = cast("Any", client).app.state.services.plans, list[int]()

    async def noted(*_: Any, **__: Any) -> list[Any]:
        held.append(gate.in_use)
        return []

    monkeypatch.setattr(db, "report", noted)
    assert (await client.get(REPORT)).status_code == 200
    assert (held, gate.in_use) == ([1], 0)


# --- gaps -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("day")
async def test_gaps_are_the_slots_that_never_ran_oldest_first(client: Client) -> None:
    answer = await client.get(f"{BASE}/a/gaps?{DAY}")
    assert answer.status_code == 200
    assert answer.json() == [
        {"scheduled_for": f"2026-05-04T0{hour}:00:00Z", "reason": "missed", "recorded_at": "2026-05-04T05:00:00Z"}
        for hour in (3, 4)
    ]
    [*_, failed] = (await client.get(f"{BASE}/a/gaps?{DAY}&include=failed")).json()
    run = failed.pop("trajectory_id")
    assert failed == {
        "scheduled_for": "2026-05-04T10:00:00Z", "reason": "failed", "detail": "=1+1",
        "recorded_at": "2026-05-04T10:00:00Z",
    }  # fmt: skip
    assert run in [each["trajectory_id"] for each in (await client.get(f"{BASE}/a/runs?limit=100")).json()]
    assert (await client.get(f"{BASE}/a/gaps?{DAY}&reason=paused")).json() == []
    assert (await client.get(f"{BASE}/a/gaps?{DAY}&reason=late")).status_code == 400
    assert (await client.get(f"{BASE}/b/gaps?{DAY}")).json() == []


@pytest.mark.usefixtures("day")
async def test_pages_of_gaps_keep_what_was_asked_for(client: Client) -> None:
    path, hours = f"{BASE}/a/gaps?{DAY}&include=failed&limit=1", list[str]()
    while path:
        answer = await client.get(path)
        hours += [gap["scheduled_for"][11:13] for gap in answer.json()]
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert hours == ["03", "04", "10"]
