"""Trajectories by HTTP: lists, stats, statuses, labels, events, and the runs of deleted tasks."""

from base64 import urlsafe_b64encode
from datetime import datetime
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from support.rows import make_key, value

Client = AsyncTestClient[Any]
RUN = "/api/v1/run/my-org/echo"
LIST, STATS = "/api/v1/db/trajectories/my-org/echo", "/api/v1/db/stats/my-org/echo"
STATUSES = "/api/v1/trajectory/my-org/echo/statuses"


async def runs_of(client: Client, count: int) -> list[int]:
    return [(await client.post(RUN)).json()["trajectory_id"] for _ in range(count)]


async def end(connection: Connection, run: int, status: str, seconds: float = 1) -> None:
    await connection.execute(
        "UPDATE routines.trajectories SET status = %s, started_at = now(), "
        "ended_at = now() + make_interval(secs => %s) WHERE id = %s",
        [status, seconds, run],
    )


async def claim(connection: Connection, run: int) -> None:
    """Claim the run as a worker does, with a first step running."""
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'running', fence = fence + 1, started_at = now(), "
        "lease_expires_at = now() + interval '1 minute' WHERE id = %s",
        [run],
    )
    await connection.execute(
        """INSERT INTO routines.steps (trajectory_id, name, position, fence, status, activity, inputs, earlier_errors)
           VALUES (%s, 'one', 0, 1, 'running', 'text_echo', '{}',
                   '[{"at": "2026-05-04T09:00:00Z", "error": "no"}]')""",
        [run],
    )


@pytest.mark.parametrize("status", ["pending", "running", "completed", "failed", "cancelled", "archived"])
async def test_a_list_can_be_filtered_by_status(client: Client, connection: Connection, status: str) -> None:
    pending, running, *ended = await runs_of(client, 6)
    await claim(connection, running)
    for run, its in zip(ended, ["completed", "failed", "cancelled", "archived"], strict=True):
        await end(connection, run, its)
    page = (await client.get(f"{LIST}?status={status}")).json()
    assert [run["status"] for run in page["trajectories"]] == [status]
    assert (page["total"], page["has_more"]) == (1, False)
    assert pending


async def test_pages_list_each_run_once_newest_first(client: Client) -> None:
    runs = await runs_of(client, 5)
    pages = [(await client.get(f"{LIST}?limit=2&page={page}")).json() for page in (1, 2, 3, 4)]
    assert [[run["trajectory_id"] for run in page["trajectories"]] for page in pages] == [
        [runs[4], runs[3]],
        [runs[2], runs[1]],
        [runs[0]],
        [],
    ]
    assert [(page["total"], page["has_more"]) for page in pages] == [(5, True), (5, True), (5, False), (5, False)]


@pytest.mark.parametrize("status", [None, "pending", "running", "failed"])
async def test_a_cursor_lists_each_run_once_while_others_start(
    client: Client, connection: Connection, status: str | None
) -> None:
    async def started() -> list[int]:
        new = await runs_of(client, 2)
        for run in new:
            if status == "running":
                await claim(connection, run)
            elif status == "failed":
                await end(connection, run, "failed")
        return new

    runs = [*await started(), *await started(), *await started()]
    path, listed = f"{LIST}?limit=2" + (f"&status={status}" if status else ""), list[int]()
    while path:
        answer = await client.get(path)
        listed += [run["trajectory_id"] for run in answer.json()["trajectories"]]
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
        await started()
    assert listed == runs[::-1]


async def test_a_cursor_keeps_the_routine_and_refuses_another_lists(client: Client, connection: Connection) -> None:
    made = await client.post("/api/v1/routines/my-org/echo", json={"name": "r", "cadence": {"type": "manual"}})
    for _ in range(3):
        await client.post("/api/v1/routines/my-org/echo/r/run-now")
        await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    await runs_of(client, 2)
    first = await client.get(f"{LIST}?limit=2&triggered_by_routine_id={made.json()['id']}")
    second = await client.get(first.headers["link"].partition(">")[0].removeprefix("<"))
    assert [len(page.json()["trajectories"]) for page in (first, second)] == [2, 1]
    assert "link" not in second.headers
    for cursor in ("W10=", "WyJ4Il0=", "x"):
        assert (await client.get(f"{LIST}?cursor={cursor}")).status_code == 400


@pytest.mark.parametrize("number", [2**63, -(2**70)])
@pytest.mark.parametrize(
    "path", [LIST, "/api/v1/routines/my-org/echo/r/runs", "/api/v1/routines/my-org/echo/r/deliveries"]
)
async def test_a_cursor_with_a_number_that_no_id_can_be_is_refused(client: Client, path: str, number: int) -> None:
    await client.post("/api/v1/routines/my-org/echo", json={"name": "r", "cadence": {"type": "manual"}})
    cursor = urlsafe_b64encode(str(number).encode()).decode()
    assert (await client.get(path, params={"cursor": cursor})).status_code == 400


async def test_a_cursor_of_events_with_large_numbers_finds_nothing_and_is_no_error(client: Client) -> None:
    started = (await client.post(RUN)).json()
    path = f"/api/v1/workflows-logs/{started['workflow_id']}"
    for number, status in ((2**40, 200), (2**63, 400)):
        cursor = urlsafe_b64encode(f'["2026-01-01T00:00:00Z",{number},{number},{number}]'.encode()).decode()
        assert (await client.get(path, params={"cursor": cursor})).status_code == status


async def test_a_run_names_its_parent_and_its_children(client: Client, connection: Connection) -> None:
    parent, *children = await runs_of(client, 3)
    await connection.execute(
        """UPDATE routines.trajectories SET parent_id = %s, parent_step = 'emit', child_index = id
           WHERE id = ANY (%s)""",
        [parent, children],
    )
    seen = {run: (await client.get(f"/api/v1/db/trajectory/my-org/echo/{run}")).json() for run in (parent, *children)}
    assert seen[parent]["children"] == [
        {"trajectory_id": run, "name": "my-org/echo", "status": "pending"} for run in children
    ]
    assert [(seen[run]["parent_trajectory_id"], seen[run]["parent_name"]) for run in children] == [
        (parent, "my-org/echo")
    ] * 2
    assert not {"parent_trajectory_id", "parent_name"} & set(seen[parent])
    assert not any("children" in seen[run] for run in children)
    listed = {run["trajectory_id"]: run for run in (await client.get(LIST)).json()["trajectories"]}
    assert "children" not in listed[parent]
    assert listed[children[0]]["parent_trajectory_id"] == parent
    body = "SELECT routines.webhook_body(%s, 'completed', 1000, 100000)::jsonb -> %s"
    assert await value(connection, body, children[0], "parent_trajectory_id") == parent
    assert await value(connection, body, children[0], "parent_name") == "my-org/echo"
    assert await value(connection, body, parent, "parent_trajectory_id") is None


async def test_a_list_can_be_filtered_by_routine(client: Client, connection: Connection) -> None:
    await runs_of(client, 2)
    made = await client.post("/api/v1/routines/my-org/echo", json={"name": "r", "cadence": {"type": "hourly"}})
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                              scheduled_for, trigger, init_params, status, ended_at)
           SELECT collection_id, task_id, 1, id, now(), 'schedule', '{}', 'completed', now() FROM routines.routines"""
    )
    await client.post("/api/v1/routines/my-org/echo/r/run-now")
    routine = f"{LIST}?triggered_by_routine_id={made.json()['id']}"
    found = (await client.get(routine)).json()
    assert [run["trigger"] for run in found["trajectories"]] == ["run-now", "schedule"]
    assert (await client.get(f"{routine}&status=completed")).json()["total"] == 1


async def test_stats_count_runs_by_status_and_measure_ended_ones(client: Client, connection: Connection) -> None:
    runs = await runs_of(client, 6)
    for run, (status, seconds) in zip(
        runs, [("completed", 1), ("completed", 2), ("completed", 3), ("failed", 6)], strict=False
    ):
        await end(connection, run, status, seconds)
    stats = (await client.get(STATS)).json()
    assert (stats["total"], stats["success_rate"]) == (6, 0.75)
    assert {status: count for status, count in stats["counts"].items() if count} == {
        "pending": 2,
        "completed": 3,
        "failed": 1,
    }
    durations = stats["durations"]
    assert (durations["count"], durations["min_seconds"], durations["max_seconds"]) == (4, 1.0, 6.0)
    assert (durations["avg_seconds"], durations["p50_seconds"]) == (3.0, 2.5)


async def test_stats_of_a_task_without_runs_are_zero(client: Client) -> None:
    stats = (await client.get(STATS)).json()
    assert (stats["total"], stats["success_rate"], stats["durations"]["p95_seconds"]) == (0, None, None)


async def test_lists_and_stats_of_a_large_task_use_indexes(client: Client, connection: Connection) -> None:
    """With generic and custom plans: no sequential scan, and no more rows read than a page holds."""
    from routines_core.db.statements import Statement

    await connection.execute(
        """INSERT INTO routines.trajectories
               (collection_id, task_id, task_version, trigger, init_params, status, ended_at)
           SELECT 1, 1 + n % 2, 1, 'api', '{}', CASE WHEN n % 1000 < 2 THEN 'failed' ELSE 'completed' END, now()
           FROM generate_series(1, 20000) AS n"""
    )
    await connection.execute("VACUUM (ANALYZE) routines.trajectories")
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    parameters: dict[str, Any] = {"key_id": 1, "task_id": 1, "task": "echo", "routine_id": None}
    parameters |= {"limit": 10, "offset": 0, "before": 15_000, "most": 10000}
    parameters |= {"value_bytes": 2048, "page_bytes": 4_000_000, "most_steps": 200}
    for name, statuses in (("list_trajectories", (None, "failed", "pending")), ("stats", (None,))):
        for status in statuses:
            text = "EXPLAIN (ANALYZE, FORMAT JSON) " + Statement.declared[f"trajectories.{name}"].text
            cursor = await connection.execute(text.encode(), {**parameters, "status": status}, prepare=True)
            row = await cursor.fetchone()
            assert row
            scans = [node for node in nodes(row[0][0]["Plan"]) if node.get("Relation Name") == "trajectories"]
            assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}, (name, status, scans)
            most = 10_000 if name == "stats" else 11
            assert max(node["Actual Rows"] for node in scans) <= most, (name, status)


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


async def test_a_cancelled_run_and_its_running_step_are_fenced_off(client: Client, connection: Connection) -> None:
    pending, running = await runs_of(client, 2)
    await claim(connection, running)
    wanted = {str(pending): "cancelled", str(running): "cancelled"}
    for _ in range(2):  # a repeated request changes nothing
        answer = await client.post(STATUSES, json=wanted)
        assert (answer.status_code, answer.json()) == (200, wanted)
    rows = await (
        await connection.execute("SELECT status, fence, lease_expires_at FROM routines.trajectories ORDER BY id")
    ).fetchall()
    assert rows == [("cancelled", 1, None), ("cancelled", 2, None)]
    assert await value(connection, "SELECT status FROM routines.steps") == "cancelled"


async def test_ended_runs_can_be_archived(client: Client, connection: Connection) -> None:
    [run] = await runs_of(client, 1)
    await end(connection, run, "completed")
    for _ in range(2):
        assert (await client.post(STATUSES, json={str(run): "archived"})).json() == {str(run): "archived"}
    assert await value(connection, "SELECT status FROM routines.trajectories") == "archived"


async def test_several_changes_are_all_made_or_none_and_each_fault_is_named(
    client: Client, connection: Connection
) -> None:
    active, ended = await runs_of(client, 2)
    await end(connection, ended, "completed")
    conflict = await client.post(STATUSES, json={str(active): "archived", str(ended): "cancelled"})
    assert (conflict.status_code, [fault["field"] for fault in conflict.json()["errors"]]) == (
        409,
        [str(active), str(ended)],
    )
    mixed = await client.post(STATUSES, json={str(active): "cancelled", str(ended): "cancelled"})
    absent = await client.post(STATUSES, json={str(active): "cancelled", "987654321": "cancelled"})
    assert (mixed.status_code, absent.status_code) == (409, 400)
    assert absent.json()["errors"] == [{"field": "987654321", "message": "the task has no such run"}]
    assert await value(connection, "SELECT string_agg(status, ' ' ORDER BY id) FROM routines.trajectories") == (
        "pending completed"
    )


async def test_a_run_of_another_collection_or_task_is_not_found_in_this_task(
    client: Client, connection: Connection
) -> None:
    other = await make_key(connection, "other")
    headers = {"Authorization": f"Bearer {other}"}
    await client.post("/api/v1/tasks/other", json={"name": "echo", "workflow": {}}, headers=headers)
    theirs = (await client.post("/api/v1/run/other/echo", headers=headers)).json()["trajectory_id"]
    await client.post("/api/v1/tasks/my-org", json={"name": "second", "workflow": {}})
    mine = (await client.post("/api/v1/run/my-org/second")).json()["trajectory_id"]
    for run in (theirs, mine):
        answer = await client.post(STATUSES, json={str(run): "cancelled"})
        assert (answer.status_code, answer.json()["errors"][0]["message"]) == (400, "the task has no such run")
        label = await client.post(f"/api/v1/trajectory/my-org/echo/{run}/labels", json={"key": "a", "value": 1})
        assert label.status_code == 404
    assert (await client.get(f"/api/v1/workflows-logs/flow-other-echo--{theirs}")).status_code == 404
    assert await value(connection, "SELECT count(*) FROM routines.trajectories WHERE status = 'pending'") == 2


@pytest.mark.parametrize("body", [[], {}, {"0": "cancelled"}, {"x": "cancelled"}, {"1": "completed"}, {"1": None}])
async def test_malformed_statuses_answer_400(client: Client, body: Any) -> None:
    assert (await client.post(STATUSES, json=body)).status_code == 400


async def test_a_label_replaces_the_one_with_the_same_key_and_author(client: Client) -> None:
    [run] = await runs_of(client, 1)
    labels = f"/api/v1/trajectory/my-org/echo/{run}/labels"
    for label in (
        {"key": "rating", "value": 3, "author": "ada"},
        {"key": "rating", "value": 5, "author": "ada"},
        {"key": "rating", "value": "good", "author": "bob"},
    ):
        answer = await client.post(labels, json=label)
        assert answer.status_code == 200, answer.text
    found = answer.json()["labels"]
    created = [datetime.fromisoformat(label.pop("created")) for label in found]
    assert created == sorted(created)
    assert found == [
        {"key": "rating", "value": 5, "author": "ada"},
        {"key": "rating", "value": "good", "author": "bob"},
    ]


async def test_a_run_has_at_most_a_hundred_labels(client: Client, connection: Connection) -> None:
    [run] = await runs_of(client, 1)
    await connection.execute(
        """UPDATE routines.trajectories SET labels = (
               SELECT jsonb_agg(jsonb_build_object('key', n::text, 'value', n, 'author', ''))
               FROM generate_series(1, 100) AS n)"""
    )
    labels = f"/api/v1/trajectory/my-org/echo/{run}/labels"
    assert (await client.post(labels, json={"key": "101", "value": 1})).status_code == 409
    assert len((await client.post(labels, json={"key": "100", "value": 1})).json()["labels"]) == 100


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key": "", "value": 1},
        {"key": "a", "value": None},
        {"key": "a", "value": "x" * 1001},
        {"key": "a", "value": []},
    ],
)
async def test_a_malformed_label_answers_400(client: Client, body: Any) -> None:
    [run] = await runs_of(client, 1)
    assert (await client.post(f"/api/v1/trajectory/my-org/echo/{run}/labels", json=body)).status_code == 400


async def test_the_log_lists_events_in_order_page_by_page(client: Client, connection: Connection) -> None:
    started = (await client.post(RUN, json={"webhook_url": "https://x.org/"})).json()
    run = started["trajectory_id"]
    await claim(connection, run)
    await client.post(STATUSES, json={str(run): "cancelled"})
    await client.post(STATUSES, json={str(run): "archived"})
    await connection.execute(
        """UPDATE routines.webhook_deliveries
           SET attempts = '[{"at": "2199-01-01T00:00:00Z", "status": 500, "error": null}]'"""
    )
    path: str | None = f"/api/v1/workflows-logs/{started['workflow_id']}?limit=3"
    events: list[dict[str, Any]] = []
    while path:
        answer = await client.get(path)
        events += answer.json()["events"]
        path = answer.headers.get("link", "").partition(">")[0][1:] or None
    assert [event["event"] for event in events] == [
        "step_try_failed",  # its time was set by the test
        "run_created",
        "run_started",
        "step_started",
        "step_cancelled",
        "run_ended",
        "run_archived",
        "webhook_attempted",
    ]
    assert (events[0]["detail"], events[-1]["detail"], events[3]["step"]) == ("no", "500", "one")


@pytest.mark.parametrize("workflow_id", ["flow-my-org-echo--987654321", "1", "flow---", "flow-x--" + "9" * 40, "x--1"])
async def test_the_log_of_a_missing_run_answers_404(client: Client, workflow_id: str) -> None:
    await runs_of(client, 1)
    assert (await client.get(f"/api/v1/workflows-logs/{workflow_id}")).status_code == 404


async def test_runs_of_a_deleted_task_are_found_by_its_name_and_may_continue(
    client: Client, connection: Connection
) -> None:
    [run] = await runs_of(client, 1)
    assert (await client.delete("/api/v1/tasks/my-org/echo")).status_code == 200
    found = await client.get(f"/api/v1/db/trajectory/my-org/echo/{run}")
    assert (found.status_code, found.json()["name"], found.json()["status"]) == (200, "my-org/echo", "pending")
    assert (await client.get(f"/api/v1/workflows-logs/{found.json()['workflow_id']}")).status_code == 200
    await end(connection, run, "completed")


@pytest.mark.parametrize("path", ["/api/v1/collections/", "/api/v1/tasks/my-org/", "/api/v1/step-templates/"])
async def test_a_trailing_slash_changes_nothing(client: Client, path: str) -> None:
    assert (await client.get(path)).json() == (await client.get(path.rstrip("/"))).json()


async def test_step_templates_list_every_activity(client: Client) -> None:
    found = (await client.get("/api/v1/step-templates")).json()
    names = [template["activity_name"] for template in found["templates"]]
    assert "text_echo" in names
    assert found["total_count"] == len(names)
    assert (await client.get("/api/v1/step-templates/text_echo")).json() in found["templates"]
    assert (await client.get("/api/v1/step-templates/none")).status_code == 404


async def test_an_unknown_status_is_answered_with_the_known_ones(client: Client) -> None:
    answer = (await client.get(f"{LIST}?status=done")).json()
    assert answer["detail"] == "status: must be pending, running, completed, failed, cancelled or archived."


async def test_an_empty_change_of_statuses_is_refused(client: Client) -> None:
    assert (await client.post(STATUSES, json={})).json()["detail"] == "must have at least 1 item."


async def test_the_log_lists_the_end_of_a_step_before_a_start_at_the_same_moment(
    client: Client, connection: Connection
) -> None:
    started = (await client.post(RUN)).json()
    await connection.execute(
        """INSERT INTO routines.steps
                  (trajectory_id, name, position, fence, status, activity, inputs, created_at, ended_at)
           SELECT %s, format('step-%%s', n), n, 1, 'completed', 'text_echo', '{}',
                  timestamptz '2199-01-01Z' + n * interval '1 s', timestamptz '2199-01-01Z' + (n + 1) * interval '1 s'
           FROM generate_series(0, 2) AS n""",
        [started["trajectory_id"]],
    )
    path: str | None = f"/api/v1/workflows-logs/{started['workflow_id']}?limit=2"
    told: list[tuple[str, str]] = []
    while path:
        answer = await client.get(path)
        told += [(event["event"], event["step"]) for event in answer.json()["events"]]
        path = answer.headers.get("link", "").partition(">")[0][1:] or None
    assert told[1:] == [(event, f"step-{n}") for n in range(3) for event in ("step_started", "step_completed")]


async def test_a_parameter_of_the_wrong_type_is_described_in_json_terms(client: Client) -> None:
    answer = (await client.get(f"{LIST}?triggered_by_routine_id=x&page=0")).json()
    assert {error["field"]: error["message"] for error in answer["errors"]} == {
        "triggered_by_routine_id": "must be an integer or null, got a string",
        "page": "must be an integer >= 1",
    }
