"""A collection at one of its limits is refused with 429, others are not, and only operators change limits."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.app import create_app
from routines_core.db import Connection
from routines_core.db import limits as db
from routines_core.limits import LIMITS
from support.rows import Database, api_settings, make_key, value

Client = AsyncTestClient[Any]
TOKEN = "an operator's token of at least 32 characters".replace(" ", "-")
TASK = {"init_params": {}, "steps": [], "step_configs": {}}
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
LIMITS_OF = "/api/v1/operator/collections/{}/limits"


@pytest.fixture
async def client(connection: Connection, database: Database, tmp_path: Path) -> AsyncGenerator[Client]:
    """A client with a key for the collection `my-org`, which has the task `echo`; `others` has one too."""
    async with AsyncTestClient(
        create_app(api_settings(operator_token=TOKEN, files=str(tmp_path)), database.url)
    ) as opened:
        for collection in ("others", "my-org"):
            opened.headers["Authorization"] = f"Bearer {await make_key(connection, collection)}"
            body = {"name": "echo", "workflow": TASK}
            assert (await opened.post(f"/api/v1/tasks/{collection}", json=body)).status_code == 201
        yield opened


async def limit(client: Client, collection: str = "my-org", **limits: int | None) -> None:
    """Set limits as an operator, and wait until the process no longer uses its previous count."""
    answer = await client.put(LIMITS_OF.format(collection), json={"limits": limits}, headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    client.app.state.services.limits._counts.clear()


async def create_routine(client: Client, name: str, collection: str = "my-org") -> Any:
    body = {"name": name, "cadence": {"type": "manual"}}
    return await client.post(f"/api/v1/routines/{collection}/echo", json=body)


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_the_last_routine_that_fits_is_created_and_the_next_one_is_refused(client: Client) -> None:
    await limit(client, routines=2)
    assert [(await create_routine(client, name)).status_code for name in ("a", "b", "c")] == [201, 201, 429]
    refused = (await create_routine(client, "d")).json()
    assert refused == {
        "type": "urn:routines:problem:limit-exceeded",
        "title": "Limit exceeded",
        "status": 429,
        "detail": "The collection is at its limit routines: it has 2 of 2 routines. Make room first, or ask the "
        "operator to raise the limit.",
        "limit": "routines",
        "value": 2,
        "use": 2,
    }
    assert (await client.delete("/api/v1/routines/my-org/echo/a")).status_code == 204
    await until_created(client, "c")


async def until_created(client: Client, name: str) -> None:
    """Try until the process has counted again, which it does within a second."""
    for _ in range(50):
        if (await create_routine(client, name)).status_code == 201:
            return
        await asyncio.sleep(0.1)
    pytest.fail("a deleted routine still counts")


async def test_a_failed_request_does_not_use_up_the_limit(client: Client) -> None:
    await limit(client, routines=2)
    assert (await create_routine(client, "a")).status_code == 201
    assert (await create_routine(client, "a")).status_code == 409
    await until_created(client, "b")


async def test_tasks_are_limited(client: Client) -> None:
    await limit(client, tasks=2)
    codes = [
        (await client.post("/api/v1/tasks/my-org", json={"name": name, "workflow": TASK})).status_code
        for name in ("a", "b")
    ]
    assert codes == [201, 429]


async def begin(client: Client, path: str, **body: Any) -> tuple[int, str | None, str | None]:
    """Begin a run. Returns the status, the limit in the answer and Retry-After."""
    answer = await client.post(f"/api/v1/{path}", json=body or None)
    return answer.status_code, answer.json().get("limit"), answer.headers.get("retry-after")


async def begin_of_a_minute(connection: Connection) -> None:
    """Wait until the present minute has ten seconds left by the clock of the database."""
    await connection.execute(
        "SELECT pg_sleep(61 - second) FROM extract(second FROM clock_timestamp()) AS second WHERE second > 50"
    )


@pytest.mark.parametrize("path", ["run/my-org/echo", "run-sync/my-org/echo", "routines/my-org/echo/manual/run-now"])
async def test_active_runs_are_limited_however_they_are_begun(
    connection: Connection, database: Database, client: Client, path: str
) -> None:
    assert (await create_routine(client, "manual")).status_code == 201
    await limit(client, active_runs=1)
    assert (await begin(client, "run/my-org/echo"))[0] == 200
    assert await begin(client, path) == (429, "active_runs", None)
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 1


async def test_runs_of_a_minute_are_limited_with_the_time_to_wait(connection: Connection, client: Client) -> None:
    await limit(client, runs_per_minute=3)
    await begin_of_a_minute(connection)
    assert [(await begin(client, "run/my-org/echo"))[0] for _ in range(3)] == [200] * 3
    status, name, wait = await begin(client, "run/my-org/echo")
    assert (status, name) == (429, "runs_per_minute")
    assert 1 <= int(wait or 0) <= 60


async def test_two_processes_share_the_runs_of_a_minute(
    connection: Connection, database: Database, client: Client
) -> None:
    await limit(client, runs_per_minute=5)
    await begin_of_a_minute(connection)
    async with AsyncTestClient(create_app(api_settings(), database.url)) as other:
        other.headers = client.headers
        codes = [(await begin(each, "run/my-org/echo"))[0] for _ in range(4) for each in (client, other)]
    assert sorted(codes) == [200] * 5 + [429] * 3


async def test_pending_webhooks_refuse_only_runs_that_would_add_one(connection: Connection, client: Client) -> None:
    assert (await begin(client, "run/my-org/echo"))[0] == 200
    await connection.execute(
        """INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, event_status, url)
           SELECT collection_id, id, 'completed', 'https://example.com' FROM routines.trajectories"""
    )
    await limit(client, pending_webhooks=1)
    assert (await begin(client, "run/my-org/echo"))[0] == 200
    hooked = await begin(client, "run/my-org/echo", webhook_url="https://example.com/hook")
    assert hooked == (429, "pending_webhooks", None)


async def test_stored_bytes_refuse_runs(connection: Connection, client: Client) -> None:
    await connection.execute(
        "INSERT INTO routines.collection_usage (collection_id, stored_bytes) "
        "SELECT id, 1000 FROM routines.collections WHERE name = 'my-org'"
    )
    await limit(client, stored_bytes=1000)
    assert await begin(client, "run/my-org/echo") == (429, "stored_bytes", None)


async def test_files_are_counted_and_refused_before_they_are_stored(connection: Connection, client: Client) -> None:
    await limit(client, files=2, file_bytes=100)
    files = [("files", ("a.txt", b"12345")), ("files", ("b.txt", b"678"))]
    sent = await client.post("/api/v1/run/my-org/echo", files=files)
    assert sent.status_code == 200, sent.text
    used = "SELECT concat(files, ' files, ', file_bytes, ' bytes') FROM routines.collection_usage"
    assert await value(connection, used) == "2 files, 8 bytes"
    refused = await client.post("/api/v1/run/my-org/echo", files=files[:1])
    assert (refused.status_code, refused.json()["limit"]) == (429, "files")


async def test_the_kept_answer_of_a_repeated_request_is_given_at_the_limit_too(client: Client) -> None:
    await limit(client, active_runs=1)
    headers = {"Idempotency-Key": "once"}
    first = await client.post("/api/v1/run/my-org/echo", headers=headers)
    assert first.status_code == 200
    again = await client.post("/api/v1/run/my-org/echo", headers=headers)
    assert (again.status_code, again.content) == (200, first.content)
    other = await client.post("/api/v1/run/my-org/echo", headers={"Idempotency-Key": "twice"})
    assert other.status_code == 429


async def test_a_collection_at_its_limits_does_not_keep_another_from_anything(
    connection: Connection, client: Client
) -> None:
    await limit(client, routines=0, tasks=0, active_runs=0, runs_per_minute=0)
    assert (await create_routine(client, "a")).status_code == 429
    client.headers["Authorization"] = f"Bearer {await make_key(connection, 'others')}"
    assert (await create_routine(client, "a", "others")).status_code == 201
    assert (await begin(client, "run/others/echo"))[0] == 200


async def test_the_default_of_all_collections_is_a_limit_too(connection: Connection, client: Client) -> None:
    await db.set_limit(connection, "routines", 0, collection_id=None)
    assert (await create_routine(client, "a")).status_code == 429
    await limit(client, routines=None)
    assert (await create_routine(client, "a")).status_code == 201


async def test_a_process_counts_once_a_second_and_not_at_each_request(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[object] = []
    measure = db.measure

    async def noted(*arguments: Any) -> Any:
        counted.append(arguments)
        return await measure(*arguments)

    monkeypatch.setattr(db, "measure", noted)
    began = asyncio.get_running_loop().time()
    codes = [(await begin(client, "run/my-org/echo"))[0] for _ in range(40)]
    seconds = asyncio.get_running_loop().time() - began
    assert codes == [200] * 40
    assert len(counted) <= 1 + seconds


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_a_key_reads_the_limits_of_its_own_collection_with_their_use(
    connection: Connection, client: Client
) -> None:
    await limit(client, "others", tasks=1)
    await limit(client, tasks=7, max_concurrent_runs=3)
    await connection.execute("UPDATE routines.tasks SET max_concurrent_runs = 2")
    answer = (await client.get("/api/v1/collections/my-org/limits")).json()
    assert [each["name"] for each in answer["limits"]] == list(LIMITS)
    found = {each.pop("name"): each for each in answer["limits"]}
    assert found["tasks"] == {
        "value": 7,
        "default": 10_000,
        "use": 1,
        "unit": "tasks",
        "description": LIMITS["tasks"].description,
    }
    assert (found["max_concurrent_runs"]["value"], found["max_concurrent_runs"]["default"]) == (3, None)
    assert found["run_steps"]["use"] is None
    assert answer["tasks"] == [{"task": "echo", "max_concurrent_runs": 2, "use": 0}]


# --- operators --------------------------------------------------------------------------------------------------------


async def test_a_put_sets_what_it_names_and_resets_the_rest(client: Client) -> None:
    await limit(client, tasks=7, routines=8)
    path = LIMITS_OF.format("my-org")
    answer = await client.put(path, json={"limits": {"routines": None}}, headers=OPERATOR)
    values = {each["name"]: each["value"] for each in answer.json()["limits"]}
    assert (values["tasks"], values["routines"]) == (10_000, None)
    assert (await client.get(path, headers=OPERATOR)).json() == answer.json()


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        ({"limits": {"taks": 1}}, "limits.taks", "no limit has this name"),
        ({"limits": {"tasks": -1}}, "limits.tasks", "must be 0 to"),
        ({"limits": {"tasks": 2**53}}, "limits.tasks", "must be 0 to"),
        ({"limits": {"max_concurrent_runs": 0}}, "limits.max_concurrent_runs", "must be 1 to"),
        ({"limits": {"tasks": "5"}}, "limits.tasks", "must be a valid integer"),
        ({"limits": {"tasks": True}}, "limits.tasks", "must be a valid integer"),
        ({"tasks": 1}, "tasks", "unknown field"),
        ({}, "limits", "is required"),
    ],
)
async def test_a_body_that_breaks_a_rule_changes_nothing(
    connection: Connection, client: Client, body: dict[str, Any], field: str, rule: str
) -> None:
    answer = await client.put(LIMITS_OF.format("my-org"), json=body, headers=OPERATOR)
    assert answer.status_code == 400
    assert any(fault["field"] == field and rule in fault["message"] for fault in answer.json()["errors"]), answer.text
    assert await value(connection, "SELECT count(*) FROM routines.collection_limits") == 0


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_only_the_operators_token_opens_the_operators_endpoints(
    connection: Connection, client: Client, method: str
) -> None:
    path, body = LIMITS_OF.format("my-org"), {"limits": {"tasks": 1}} if method == "PUT" else None
    tenant = client.headers["Authorization"]
    for given in (tenant, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer ", TOKEN):
        for each in (path, LIMITS_OF.format("absent")):
            answer = await client.request(method, each, json=body, headers={"Authorization": given})
            assert answer.status_code == 401, given
            assert answer.headers["www-authenticate"] == "Bearer"
    assert await value(connection, "SELECT count(*) FROM routines.collection_limits") == 0
    absent = await client.request(method, LIMITS_OF.format("absent"), json=body, headers=OPERATOR)
    assert absent.status_code == 404


async def test_the_operators_token_opens_nothing_else(client: Client) -> None:
    for path in ("collections", "collections/my-org/limits", "routines/my-org"):
        assert (await client.get(f"/api/v1/{path}", headers=OPERATOR)).status_code == 401


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST", "DELETE"])
async def test_a_key_cannot_change_limits(client: Client, method: str) -> None:
    body = {"limits": {"tasks": 1}}
    answer = await client.request(method, "/api/v1/collections/my-org/limits", json=body)
    assert answer.status_code == 404


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_without_a_token_in_the_settings_the_operators_endpoints_do_not_exist(
    connection: Connection, database: Database, method: str
) -> None:
    async with AsyncTestClient(create_app(api_settings(), database.url)) as plain:
        for token in ("", TOKEN, await make_key(connection, "my-org")):
            headers = {"Authorization": f"Bearer {token}"}
            asked = await plain.request(method, LIMITS_OF.format("my-org"), json={}, headers=headers)
            unknown = await plain.request(method, "/api/v1/nothing", json={}, headers=headers)
            assert (asked.status_code, asked.content) == (404, unknown.content)


async def test_each_change_is_logged_with_the_value_before(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    from routines_core.logging import configure_logging

    configure_logging("json")
    await limit(client, tasks=7)
    await limit(client)
    logged = "".join(capfd.readouterr())
    assert '"event":"limit set"' in logged.replace(": ", ":")
    assert '"event":"limit reset"' in logged.replace(": ", ":")
    assert "operator token" in logged
    assert TOKEN not in logged
