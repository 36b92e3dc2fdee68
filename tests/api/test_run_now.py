"""The body of run-now: what is different in a run that is started by hand."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from support.rows import Database, value
from support.working import until_ended, working

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
NOW = f"{BASE}/r/run-now"
DAILY = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}
MONDAY = "2026-05-04T09:00:00Z"


async def made(client: Client, **fields: Any) -> dict[str, Any]:
    answer = await client.post(BASE, json={**DAILY, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def started(client: Client, **body: Any) -> dict[str, Any]:
    answer = await client.post(NOW, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["trajectory"]


async def test_init_params_are_merged_over_those_of_the_routine(client: Client) -> None:
    taken = {"none": "slot.trigger", "zeta": "slot.trigger"}
    await made(client, init_params_overrides={"a": 2, "list": [1]}, init_params_from_slot=taken)
    run = await started(client, init_params={"a": 3, "zeta": "mine"})
    assert run["init_params"] == {"zeta": "mine", "a": 3, "none": "run-now", "list": [1]}
    assert (await client.get(f"{BASE}/r")).json()["init_params_overrides"] == {"a": 2, "list": [1]}
    assert (await started(client))["init_params"]["a"] == 2


async def test_undeclared_init_params_are_refused_by_name(client: Client) -> None:
    await made(client)
    refused = await client.post(NOW, json={"init_params": {"y": 1, "x": 1, "a": 1}})
    assert (refused.status_code, refused.json()["unknown_keys"]) == (400, ["x", "y"])
    assert refused.json()["detail"].startswith("init_params: x, y not declared")
    assert (await client.get(f"{BASE}/r/runs")).json() == []
    assert (await client.get(f"{BASE}/r")).json()["last_run_at"] is None


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"foo": 1}, "foo: unknown field."),
        ({"as_of": "yesterday"}, "as_of: must be a time with a zone"),
        ({"respect_overlap": "yes"}, "respect_overlap: must be a valid boolean"),
        ({"init_params": []}, "init_params: must be an object"),
        ({"secret_params": {"K": "********"}}, "secret_params: ******** stands for a stored value"),
        ([], "must be an object"),
        ("run", "must be an object"),
    ],
)
async def test_a_body_that_is_not_valid_is_refused(client: Client, body: object, detail: str) -> None:
    await made(client)
    refused = await client.post(NOW, json=body)
    assert (refused.status_code, refused.json()["detail"].startswith(detail)) == (400, True), refused.text
    assert (await client.get(f"{BASE}/r/runs")).json() == []


async def test_a_missing_routine_answers_404_to_any_valid_body(client: Client) -> None:
    for body in ({"respect_overlap": True}, {"secret_params": {"K": "v"}}, {"init_params": {"x": 1}}):
        assert (await client.post(f"{BASE}/absent/run-now", json=body)).status_code == 404


async def test_the_same_key_and_body_start_one_run(client: Client) -> None:
    await made(client)
    key = {"Idempotency-Key": "once"}
    body = {"init_params": {"a": 5}, "secret_params": {"K": "v"}}
    first, second = [await client.post(NOW, json=body, headers=key) for _ in range(2)]
    assert first.json() == second.json()
    assert len((await client.get(f"{BASE}/r/runs")).json()) == 1
    assert (await client.post(NOW, json={}, headers=key)).status_code == 409


@pytest.mark.parametrize("trigger", ["schedule", "run-now"])
async def test_a_run_that_respects_overlap_is_refused_while_one_is_active(
    client: Client, connection: Connection, trigger: str
) -> None:
    await made(client)
    active = await value(
        connection,
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                              scheduled_for, init_params)
           SELECT collection_id, task_id, 1, id, %s, CASE %s WHEN 'schedule' THEN now() END, '{}' FROM routines.routines
           RETURNING id""",
        trigger,
        trigger,
    )
    refused = await client.post(NOW, json={"respect_overlap": True})
    assert (refused.status_code, refused.json()["detail"]) == (409, f"Run {active} of the routine is active.")
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 1
    assert (await client.get(f"{BASE}/r")).json()["last_run_at"] is None
    await started(client, respect_overlap=False)
    await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    await started(client, respect_overlap=True)


async def test_as_of_lets_a_run_speak_of_a_slot(client: Client, database: Database, connection: Connection) -> None:
    says = {"activity": "text_template", "template": "{{ slot.previous }} {{ slot.date }} {{ slot.trigger }}"}
    workflow = {"init_params": {"day": ""}, "steps": ["say"], "step_configs": {"say": says}}
    await client.put("/api/v1/tasks/my-org/echo", json={"workflow": workflow})
    await made(client, init_params_from_slot={"day": "slot.date"})
    run = await started(client, as_of="2026-05-04T11:00:00+02:00")
    assert (run["init_params"], run["scheduled_for"], run["trigger"]) == ({"day": "2026-05-04"}, None, "run-now")
    async with working(database.url):
        assert await until_ended(connection, run["trajectory_id"]) == ("completed", None)
    said = await value(connection, "SELECT outputs ->> 'text' FROM routines.steps")
    assert said == "2026-05-03T09:00:00Z 2026-05-04 run-now"


async def test_as_of_fixes_what_the_run_sees(client: Client, connection: Connection) -> None:
    await made(client)
    await started(client, as_of=MONDAY)
    await client.patch(f"{BASE}/r", json={"cadence": {"type": "manual"}})
    seen = await value(connection, "SELECT slot_values FROM routines.trajectories")
    assert seen == {
        "scheduled_for": MONDAY,
        "date": "2026-05-04",
        "local_time": "2026-05-04T09:00:00+00:00",
        "previous": "2026-05-03T09:00:00Z",
        "last_success": None,
        "trigger": "run-now",
    }


async def test_secret_params_go_before_those_of_the_routine_and_end_with_the_run(
    client: Client, database: Database, connection: Connection
) -> None:
    says = {"activity": "text_concatenate", "texts_path": ["secret_params.K", "secret_params.L"], "separator": "/"}
    check = {"activity": "conditional_branch", "value_path": "secret_params.K", "operator": "eq", "other": "of the run"}
    workflow = {"steps": ["say", "check"], "step_configs": {"say": says, "check": check}}
    await client.put("/api/v1/tasks/my-org/echo", json={"workflow": workflow})
    await made(client, secret_params={"K": "of the routine", "L": "kept"})
    run = await started(client, secret_params={"K": "of the run"})
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 3
    async with working(database.url):
        assert await until_ended(connection, run["trajectory_id"]) == ("completed", None)
    steps = await value(connection, "SELECT jsonb_object_agg(name, outputs) FROM routines.steps")
    assert steps == {"say": {"text": "********/********"}, "check": {"result": True, "value": True}}
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 2
    assert (await client.get(f"{BASE}/r")).json()["secret_params"] == {"K": "********", "L": "********"}


async def test_a_refused_run_stores_no_secret(client: Client, connection: Connection) -> None:
    await made(client)
    refused = await client.post(NOW, json={"secret_params": {"K": "v"}, "init_params": {"nope": 1}})
    assert refused.status_code == 400
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 0
