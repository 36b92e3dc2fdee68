"""The HTTP contract, one test a sentence."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.app import create_app
from routines_core.db import Connection
from routines_core.db.keys import create_key, revoke_key
from support import Database, api_settings

Client = AsyncTestClient[Any]
WORKFLOW = {"init_params": {"zeta": "z", "a": 1, "none": None, "list": []}, "steps": [], "step_configs": {}}
BASE = "/api/v1/routines/my-org/echo"
DAILY = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}


@pytest.fixture
async def client(connection: Connection, database: Database) -> AsyncGenerator[Client]:
    key = await create_key(connection, "my-org")
    app = create_app(api_settings(), database.url)
    async with AsyncTestClient(app) as opened:
        opened.headers["Authorization"] = f"Bearer {key}"
        created = await opened.post("/api/v1/tasks/my-org/", json={"name": "echo", "workflow": WORKFLOW})
        assert created.status_code == 201
        yield opened


async def test_create_answers_201_with_the_routine_and_its_next_slot(client: Client) -> None:
    answer = await client.post(BASE, json=DAILY)
    body = answer.json()
    assert answer.status_code == 201
    assert body["cadence"] == {"type": "daily", "hour_utc": 9, "minute_utc": 0, "day_of_week": None}
    assert body["next_run_at"].endswith("T09:00:00Z")
    assert (body["overlap_policy"], body["secret_params"], body["webhook_secret"]) == ("skip", {}, None)


@pytest.mark.parametrize(
    ("cadence", "rule"),
    [
        ({"type": "daily"}, "hour_utc: is required"),
        ({"type": "weekly", "hour_utc": 1}, "day_of_week: is required"),
        ({"type": "hourly", "hour_utc": 1}, "hour_utc: does not go with hourly"),
        ({"type": "manual", "minute_utc": 1}, "minute_utc: does not go with manual"),
        ({"type": "daily", "hour_utc": 1, "day_of_week": "mon"}, "day_of_week: does not go with daily"),
        ({"type": "daily", "hour_utc": 24}, "cadence.hour_utc"),
        ({"type": "yearly"}, "cadence.type"),
        ({"hour_utc": 1}, "cadence.type"),
    ],
)
async def test_a_cadence_that_breaks_a_rule_answers_400_with_the_rule(client: Client, cadence: Any, rule: str) -> None:
    answer = await client.post(BASE, json={"name": "r", "cadence": cadence})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert rule in answer.json()["detail"]


async def test_null_and_default_parameters_count_as_not_given(client: Client) -> None:
    cadence = {"type": "manual", "hour_utc": None, "minute_utc": 0, "day_of_week": None}
    answer = await client.post(BASE, json={"name": "r", "cadence": cadence})
    assert (answer.status_code, answer.json()["next_run_at"]) == (201, None)


async def test_unknown_override_keys_answer_400_with_the_keys(client: Client) -> None:
    answer = await client.post(BASE, json={**DAILY, "init_params_overrides": {"b": 1, "a": 2}})
    assert (answer.status_code, answer.json()["unknown_keys"]) == (400, ["b"])


async def test_a_taken_name_answers_409(client: Client) -> None:
    await client.post(BASE, json=DAILY)
    assert (await client.post(BASE, json=DAILY)).status_code == 409


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 10_000, b'{"name": "\\u0000"}', b"NaN", b"[]"])
async def test_a_hostile_body_answers_400_with_a_detail(client: Client, body: bytes) -> None:
    answer = await client.post(BASE, content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"]


async def test_a_body_over_the_limit_answers_413(client: Client) -> None:
    assert (await client.post(BASE, content=b" " * (256 * 1024 + 1))).status_code == 413


async def test_another_collection_and_an_absent_one_answer_the_same_404(client: Client, connection: Connection) -> None:
    await create_key(connection, "other")
    foreign = await client.get("/api/v1/routines/other/echo/r")
    absent = await client.get("/api/v1/routines/absent/echo/r")
    missing = await client.get(f"{BASE}/absent")
    assert foreign.status_code == absent.status_code == missing.status_code == 404
    assert foreign.content == absent.content == missing.content


@pytest.mark.parametrize("header", [None, "Basic x", "Bearer", "Bearer x", "Bearer rtn_1_" + "a" * 43])
async def test_a_key_that_does_not_count_answers_401(client: Client, header: str | None) -> None:
    answer = await client.get(BASE, headers={"Authorization": header or ""})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_revoked_key_answers_401_at_once(client: Client, connection: Connection) -> None:
    assert (await client.get(BASE)).status_code == 200
    await revoke_key(connection, 1)
    assert (await client.get(BASE)).status_code == 401


async def test_with_the_flag_off_every_routine_endpoint_answers_404(database: Database) -> None:
    async with AsyncTestClient(create_app(api_settings(enable_routines=False), database.url)) as opened:
        assert (await opened.get(BASE)).status_code == 404
        assert (await opened.get("/api/v1/tasks/my-org/echo/init-params-schema")).status_code == 404


async def test_pause_clears_the_next_slot_and_resume_computes_it_anew(client: Client) -> None:
    await client.post(BASE, json=DAILY)
    for _ in range(2):
        paused = (await client.post(f"{BASE}/r/pause")).json()
        assert (paused["paused"], paused["next_run_at"]) == (True, None)
    for _ in range(2):
        resumed = (await client.post(f"{BASE}/r/resume")).json()
        assert not resumed["paused"]
        assert resumed["next_run_at"].endswith("T09:00:00Z")


async def test_run_now_works_on_a_manual_routine_and_its_run_is_listed(client: Client) -> None:
    await client.post(BASE, json={"name": "m", "cadence": {"type": "manual"}, "init_params_overrides": {"a": 2}})
    started = (await client.post(f"{BASE}/m/run-now")).json()
    assert started["workflow_id"] == f"flow-my-org-echo--{started['trajectory_id']}"
    assert started["trajectory"]["init_params"]["a"] == 2
    [run] = (await client.get(f"{BASE}/m/runs")).json()
    assert (run["trajectory_id"], run["status"], run["trigger"]) == (started["trajectory_id"], "pending", "run-now")
    whole = (await client.get(f"/api/v1/db/trajectory/my-org/echo/{run['trajectory_id']}")).json()
    assert whole["triggered_by_routine_id"] == (await client.get(f"{BASE}/m")).json()["id"]


async def test_delete_removes_the_routine_and_leaves_its_trajectories(client: Client) -> None:
    await client.post(BASE, json={"name": "m", "cadence": {"type": "manual"}})
    run = (await client.post(f"{BASE}/m/run-now")).json()["trajectory_id"]
    assert (await client.delete(f"{BASE}/m")).status_code == 204
    assert (await client.get(f"{BASE}/m")).status_code == 404
    assert (await client.get(f"/api/v1/db/trajectory/my-org/echo/{run}")).status_code == 200


async def test_init_params_schema_keeps_the_order_of_the_workflow(client: Client) -> None:
    keys = (await client.get("/api/v1/tasks/my-org/echo/init-params-schema")).json()["keys"]
    assert [(key["name"], key["type_hint"]) for key in keys] == [
        ("zeta", "string"),
        ("a", "integer"),
        ("none", "string"),
        ("list", "array"),
    ]


async def test_health_docs_and_openapi_answer_without_a_key(client: Client) -> None:
    for path in ("/api/v1/health", "/docs", "/openapi.json"):
        assert (await client.get(path, headers={"Authorization": ""})).status_code == 200
