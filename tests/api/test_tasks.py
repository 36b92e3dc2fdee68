"""Collections, tasks and trajectories: one test for each sentence of the contract."""

import json
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from support.rows import value

Client = AsyncTestClient[Any]
TASK = "/api/v1/tasks/my-org/echo"
VERSIONS = f"{TASK}/versions"
TRAJECTORIES = "/api/v1/db/trajectories/my-org/echo"


async def started(client: Client, times: int = 1) -> list[int]:
    """Run a new manual routine this many times and return the trajectories."""
    await client.post("/api/v1/routines/my-org/echo", json={"name": "m", "cadence": {"type": "manual"}})
    path = "/api/v1/routines/my-org/echo/m/run-now"
    return [(await client.post(path)).json()["trajectory_id"] for _ in range(times)]


async def test_the_list_of_collections_is_the_one_that_the_key_opens(client: Client, connection: Connection) -> None:
    await connection.execute("INSERT INTO routines.collections (name) VALUES ('other')")
    for path in ("/api/v1/collections/", "/api/v1/collections"):
        [collection] = (await client.get(path)).json()
        assert (collection["name"], collection["description"]) == ("my-org", "")
    assert (await client.get("/api/v1/collections/my-org")).json() == collection
    assert (await client.get("/api/v1/collections/other")).status_code == 404


async def test_tasks_are_listed_by_name_with_and_without_the_slash(client: Client) -> None:
    await client.post("/api/v1/tasks/my-org", json={"name": "alpha", "workflow": {}})
    for path in ("/api/v1/tasks/my-org/", "/api/v1/tasks/my-org"):
        assert [task["name"] for task in (await client.get(path)).json()] == ["alpha", "echo"]


async def test_a_taken_task_name_answers_409(client: Client) -> None:
    answer = await client.post("/api/v1/tasks/my-org/", json={"name": "echo", "workflow": {}})
    assert answer.status_code == 409


async def test_put_of_a_task_is_partial(client: Client) -> None:
    before = (await client.get(TASK)).json()
    after = (await client.put(TASK, json={"description": "new"})).json()
    assert (after["description"], after["workflow"]) == ("new", before["workflow"])
    assert (await client.put("/api/v1/tasks/my-org/absent", json={"description": "x"})).status_code == 404


async def test_a_changed_workflow_is_a_new_version_and_runs_keep_the_old_one(client: Client) -> None:
    [run] = await started(client)
    await client.put(TASK, json={"workflow": {"init_params": {"b": 1}, "steps": [], "step_configs": {}}})
    whole = (await client.get(f"/api/v1/db/trajectory/my-org/echo/{run}")).json()
    assert whole["init_params"] == {"zeta": "z", "a": 1, "none": None, "list": []}
    assert (await client.get(TASK)).json()["workflow"]["init_params"] == {"b": 1}


async def test_versions_are_listed_newest_first_with_who_saved_them(client: Client, connection: Connection) -> None:
    for number in (2, 3):
        await client.put(TASK, json={"workflow": {"init_params": {"zeta": number, "alpha": 1}}})
        await client.put(TASK, json={"description": f"no version {number}"})
    key = f"key {await value(connection, 'SELECT max(id) FROM routines.api_keys')}"
    first = await client.get(VERSIONS, params={"limit": 2})
    assert [(each["version"], each["actor"]) for each in first.json()] == [(3, key), (2, key)]
    assert list(first.json()[0]) == ["version", "saved_at", "actor"]
    second = await client.get(first.links["next"]["url"])
    assert ([each["version"] for each in second.json()], "next" in second.links) == ([1], False)
    whole = (await client.get(f"{VERSIONS}/2")).json()
    assert (whole["version"], whole["workflow"]) == (2, {"init_params": {"zeta": 2, "alpha": 1}})
    assert list(whole["workflow"]["init_params"]) == ["zeta", "alpha"]


async def test_a_version_is_found_in_the_audit_or_in_what_is_kept_for_runs(
    client: Client, connection: Connection
) -> None:
    for number in (2, 3):
        await client.put(TASK, json={"workflow": {"init_params": {"number": number}}})
    await connection.execute("DELETE FROM routines.task_versions WHERE version = 2")
    await connection.execute("ALTER TABLE routines.audit DISABLE ROW LEVEL SECURITY")
    await connection.execute("DELETE FROM routines.audit WHERE (after ->> 'version')::integer = 3")
    listed = (await client.get(VERSIONS)).json()
    assert [each["version"] for each in listed] == [3, 2, 1]
    assert ["actor" in each for each in listed] == [False, True, True]
    for number in (2, 3):
        found = (await client.get(f"{VERSIONS}/{number}")).json()
        assert found["workflow"] == {"init_params": {"number": number}}


async def test_a_version_that_jsonb_cannot_hold_is_found_in_the_audit(client: Client, connection: Connection) -> None:
    workflow = '{"steps": ["a"], "step_configs": {"a": {"number": 1e-200000}}}'
    await connection.execute(
        """WITH saved AS (INSERT INTO routines.task_versions (task_id, version, collection_id, workflow, init_params)
                          SELECT id, 2, collection_id, %s, '{}' FROM routines.tasks WHERE name = 'echo' RETURNING 1)
           UPDATE routines.tasks SET version = 2 FROM saved WHERE name = 'echo'""",
        [workflow],
    )
    await connection.execute("DELETE FROM routines.task_versions WHERE version = 2")
    answer = await client.get(f"{VERSIONS}/2")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["version"], answer.json()["workflow"]) == (2, json.loads(workflow))


@pytest.mark.parametrize("version", ["0", "4", "-1", "x", "99999999999999999999", "9223372036854775807"])
async def test_a_version_that_is_missing_answers_404(client: Client, version: str) -> None:
    assert (await client.get(f"{VERSIONS}/{version}")).status_code == 404


async def test_versions_of_a_missing_task_answer_404(client: Client) -> None:
    assert (await client.get("/api/v1/tasks/my-org/absent/versions")).status_code == 404
    assert (await client.get("/api/v1/tasks/my-org/absent/versions/1")).status_code == 404


async def test_a_task_can_be_renamed_unless_the_name_is_taken(client: Client) -> None:
    await client.post("/api/v1/tasks/my-org", json={"name": "alpha", "workflow": {}})
    assert (await client.put(TASK, json={"name": "alpha"})).status_code == 409
    assert (await client.put(TASK, json={"name": "beta"})).json()["name"] == "beta"
    assert (await client.get(TASK)).status_code == 404


async def test_delete_of_a_task_answers_409_while_it_has_routines(client: Client) -> None:
    await started(client)
    assert (await client.delete(TASK)).status_code == 409
    await client.delete("/api/v1/routines/my-org/echo/m")
    answer = await client.delete(TASK)
    assert (answer.status_code, answer.json()) == (200, {"message": "Task echo was deleted."})
    assert (await client.delete(TASK)).status_code == 404


async def test_trajectories_come_in_pages_newest_first(client: Client) -> None:
    runs = await started(client, 3)
    first = (await client.get(TRAJECTORIES, params={"limit": 2})).json()
    second = (await client.get(TRAJECTORIES, params={"limit": 2, "page": 2})).json()
    assert [one["trajectory_id"] for one in first["trajectories"] + second["trajectories"]] == runs[::-1]
    assert (first["total"], first["page"], first["limit"], first["has_more"]) == (3, 1, 2, True)
    assert (second["page"], second["has_more"]) == (2, False)


async def test_trajectories_are_filtered_by_status_and_routine(client: Client, connection: Connection) -> None:
    runs = await started(client, 2)
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'cancelled', ended_at = now() WHERE id = %s", [runs[0]]
    )
    routine = await value(connection, "SELECT id FROM routines.routines")
    for params, expected in (
        ({"status": "cancelled"}, runs[:1]),
        ({"status": "pending"}, runs[1:]),
        ({"triggered_by_routine_id": routine}, runs[::-1]),
        ({"triggered_by_routine_id": 12345}, []),
    ):
        found = (await client.get(TRAJECTORIES, params=params)).json()
        assert [one["trajectory_id"] for one in found["trajectories"]] == expected
        assert found["total"] == len(expected)


async def test_a_trajectory_has_the_shape_that_clients_decode(client: Client) -> None:
    [run] = await started(client)
    whole = (await client.get(f"/api/v1/db/trajectory/my-org/echo/{run}")).json()
    assert set(whole) == {
        "trajectory_id", "workflow_id", "run_id", "name", "status", "created", "updated", "created_at", "started_at",
        "ended_at", "init_params", "step_configs", "steps", "total_steps", "completed_steps", "labels", "error",
        "triggered_by_routine_id", "scheduled_for", "trigger", "webhook_url",
    }  # fmt: skip
    assert (whole["name"], whole["steps"], whole["trigger"]) == ("my-org/echo", {}, "run-now")
    [listed] = (await client.get(TRAJECTORIES)).json()["trajectories"]
    assert listed == whole


async def test_a_trajectory_of_another_task_or_with_an_impossible_id_answers_404(client: Client) -> None:
    [run] = await started(client)
    await client.post("/api/v1/tasks/my-org", json={"name": "alpha", "workflow": {}})
    for path in (f"alpha/{run}", "echo/0", "echo/x", "echo/-1", f"echo/{2**63}", "echo/" + "9" * 5000, "echo/\u0661"):
        assert (await client.get(f"/api/v1/db/trajectory/my-org/{path}")).status_code == 404, path


BROKEN = {
    "steps": ["a", "b"],
    "step_configs": {"a": {"activity": "text_ecko"}, "b": {"activity": "text_echo", "text_path": "init_params..x"}},
}


async def test_an_invalid_workflow_is_refused_with_all_its_faults(client: Client) -> None:
    for answer in (
        await client.post("/api/v1/tasks/my-org", json={"name": "broken", "workflow": BROKEN}),
        await client.put(TASK, json={"workflow": BROKEN}),
    ):
        assert answer.status_code == 400
        first, second = answer.json()["errors"]
        assert first == {
            "field": "workflow.step_configs.a.activity",
            "message": "unknown activity 'text_ecko': did you mean 'text_echo'?",
        }
        assert second["field"] == "workflow.step_configs.b.text_path"
        assert second["message"].startswith("not valid at character 13: expected a name")
        assert second["message"].endswith("\n    init_params..x\n                ^")


async def test_a_workflow_with_wrong_json_types_is_refused_with_their_paths(client: Client) -> None:
    answer = await client.post("/api/v1/tasks/my-org", json={"name": "x", "workflow": {"steps": {}, "init_params": []}})
    assert [error["field"] for error in answer.json()["errors"]] == ["workflow.init_params", "workflow.steps"]


async def test_the_answer_of_get_can_be_sent_back_whole(client: Client) -> None:
    before = (await client.get(TASK)).json()
    answer = await client.put(TASK, json=before)
    assert (answer.status_code, answer.json()) == (200, {**before, "updated_at": answer.json()["updated_at"]})
    assert (await client.put(TASK, json={"version": 2})).json()["detail"] == "version: unknown field."
