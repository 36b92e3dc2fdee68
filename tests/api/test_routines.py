"""Part 1 of the HTTP contract, routines: one test for each sentence."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.cadence import FIELDS, NAMES
from routines_core.db import Connection
from routines_core.db.tick import tick
from support.rows import CATCHUP, at, value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
DAILY = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}
MASK = "********"
NOTHING_GIVEN = {field.name: field.default for field in FIELDS[:3]}
"""The fields of the first part of the contract, which every cadence has, as an answer shows them if not given."""


async def made(client: Client, **fields: Any) -> dict[str, Any]:
    """Create a routine, daily at 09:00 unless the fields say otherwise."""
    answer = await client.post(BASE, json={**DAILY, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def patched(client: Client, name: str = "r", **fields: Any) -> dict[str, Any]:
    answer = await client.patch(f"{BASE}/{name}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_create_answers_201_with_the_routine_and_its_next_slot(client: Client) -> None:
    body = await made(client)
    assert list(body) == [
        "id", "name", "task_name", "collection_name", "cadence", "init_params_overrides", "secret_params",
        "webhook_url", "webhook_secret", "paused", "last_run_at", "next_run_at", "overlap_policy",
    ]  # fmt: skip
    assert body["cadence"] == NOTHING_GIVEN | {"type": "daily", "hour_utc": 9}
    assert body["next_run_at"].endswith("T09:00:00Z")
    assert (body["overlap_policy"], body["secret_params"], body["webhook_secret"]) == ("skip", {}, None)
    assert (body["task_name"], body["collection_name"], body["last_run_at"]) == ("echo", "my-org", None)


async def test_create_saves_every_field(client: Client) -> None:
    body = await made(
        client, init_params_overrides={"a": 5}, secret_params={"TOKEN": "s3cret"}, paused=True,
        webhook_url="https://example.com/hook", webhook_secret="whsec",
    )  # fmt: skip
    assert (body["init_params_overrides"], body["secret_params"]) == ({"a": 5}, {"TOKEN": MASK})
    assert (body["webhook_url"], body["webhook_secret"]) == ("https://example.com/hook", MASK)
    assert (body["paused"], body["next_run_at"]) == (True, None)


async def test_create_for_a_missing_task_answers_404(client: Client) -> None:
    assert (await client.post("/api/v1/routines/my-org/absent", json=DAILY)).status_code == 404


@pytest.mark.parametrize(
    ("cadence", "rule"),
    [
        ({"type": "daily"}, "hour_utc: is required by daily"),
        ({"type": "weekly", "hour_utc": 1}, "day_of_week: is required by weekly"),
        ({"type": "hourly", "hour_utc": 1}, "hour_utc: does not go with hourly"),
        ({"type": "manual", "minute_utc": 1}, "minute_utc: does not go with manual"),
        ({"type": "daily", "hour_utc": 1, "day_of_week": "mon"}, "day_of_week: does not go with daily"),
        ({"type": "daily", "hour_utc": 24}, "cadence.hour_utc: must be less than or equal to 23, not 24"),
        ({"type": "daily", "hour_utc": "9"}, 'cadence.hour_utc: must be a valid integer, not "9"'),
        ({"type": "hourly", "minute_utc": 60}, "cadence.minute_utc: must be less than or equal to 59, not 60"),
        (
            {"type": "yearly"},
            f'cadence.type: must be {", ".join(map(repr, NAMES[:-1]))} or {NAMES[-1]!r}, not "yearly"',
        ),
        ({"hour_utc": 1}, "cadence.type: is required"),
        ({"type": "hourly", "minute": 5}, "cadence.minute: unknown field"),
        ("daily", "cadence: must be an object"),
        (None, "cadence: must be an object"),
    ],
)
async def test_a_cadence_that_breaks_a_rule_answers_400_with_the_rule(client: Client, cadence: Any, rule: str) -> None:
    answer = await client.post(BASE, json={"name": "r", "cadence": cadence})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert rule in answer.json()["detail"]


async def test_every_fault_of_a_body_is_named_at_once(client: Client) -> None:
    body = {"name": "No Slug", "cadence": {"type": "weekly"}, "paused": "yes", "extra": 1}
    answer = (await client.post(BASE, json=body)).json()
    assert [error["field"] for error in answer["errors"]] == [
        "name", "cadence.hour_utc", "cadence.day_of_week", "paused", "extra",
    ]  # fmt: skip
    assert answer["type"] == "urn:routines:problem:invalid-request"


async def test_null_and_default_parameters_count_as_not_given(client: Client) -> None:
    cadence = NOTHING_GIVEN | {"type": "manual"}
    assert (await made(client, cadence=cadence))["next_run_at"] is None
    cadence = dict.fromkeys(NOTHING_GIVEN) | {"type": "hourly"}
    assert (await made(client, name="s", cadence=cadence))["cadence"]["minute_utc"] == 0


async def test_unknown_override_keys_answer_400_with_the_keys(client: Client) -> None:
    answer = await client.post(BASE, json={**DAILY, "init_params_overrides": {"b": 1, "a": 2, "c": 3}})
    assert (answer.status_code, answer.json()["unknown_keys"]) == (400, ["b", "c"])
    assert answer.json()["type"] == "urn:routines:problem:unknown-override-keys"


async def test_a_taken_name_answers_409(client: Client) -> None:
    await made(client)
    answer = await client.post(BASE, json=DAILY)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (409, "name")


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a b", "ä", "a" * 101, "a/b", None, 1])
async def test_a_name_that_is_not_a_slug_answers_400(client: Client, name: Any) -> None:
    answer = await client.post(BASE, json={**DAILY, "name": name})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "name")


@pytest.mark.parametrize(
    "url", ["", "ftp://example.com", "https://", "https://user:pw@example.com", "https://a b", "x"]
)
async def test_an_invalid_webhook_url_answers_400(client: Client, url: str) -> None:
    answer = await client.post(BASE, json={**DAILY, "webhook_url": url})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "webhook_url")


async def test_a_mask_instead_of_a_new_secret_answers_400(client: Client) -> None:
    for fields in ({"secret_params": {"T": MASK}}, {"webhook_secret": MASK}):
        answer = await client.post(BASE, json={**DAILY, **fields})
        assert (answer.status_code, "stands for a stored value" in answer.json()["detail"]) == (400, True)


async def test_an_error_never_shows_a_secret(client: Client) -> None:
    answer = await client.post(BASE, json={**DAILY, "secret_params": {"T": 123454321}, "webhook_secret": 678987})
    assert answer.status_code == 400
    assert "123454321" not in answer.text
    assert "678987" not in answer.text


async def test_list_gives_the_routines_of_a_collection_by_task_and_name(client: Client) -> None:
    await client.post("/api/v1/tasks/my-org", json={"name": "alpha", "workflow": {}})
    for name in ("b", "a"):
        await made(client, name=name)
    await client.post("/api/v1/routines/my-org/alpha", json={**DAILY, "name": "z"})
    found = (await client.get("/api/v1/routines/my-org")).json()
    assert [(routine["task_name"], routine["name"]) for routine in found] == [
        ("alpha", "z"), ("echo", "a"), ("echo", "b"),
    ]  # fmt: skip
    assert [routine["name"] for routine in (await client.get(BASE)).json()] == ["a", "b"]
    assert "warnings" not in found[0]


async def test_list_for_a_missing_task_answers_404(client: Client) -> None:
    assert (await client.get("/api/v1/routines/my-org/absent")).status_code == 404


async def test_get_answers_the_routine_with_warnings(client: Client) -> None:
    created = await made(client)
    assert (await client.get(f"{BASE}/r")).json() == {**created, "warnings": []}


async def test_get_warns_of_each_override_that_the_task_no_longer_declares(client: Client) -> None:
    await made(client, init_params_overrides={"a": 2, "zeta": "y"})
    await client.put("/api/v1/tasks/my-org/echo", json={"workflow": {"init_params": {"zeta": 1}}})
    assert (await client.get(f"{BASE}/r")).json()["warnings"] == [
        "init_params_overrides: the task no longer declares 'a'."
    ]


async def test_patch_changes_the_given_fields_and_nothing_else(client: Client) -> None:
    before = await made(client, init_params_overrides={"a": 2}, secret_params={"T": "s"}, webhook_url="https://x.org")
    after = await patched(client, cadence={"type": "hourly", "minute_utc": 5})
    assert after["cadence"] == NOTHING_GIVEN | {"type": "hourly", "minute_utc": 5}
    assert after["next_run_at"][14:] == "05:00Z"
    unchanged = {key: kept for key, kept in before.items() if key not in {"cadence", "next_run_at"}}
    assert {key: after[key] for key in unchanged} == unchanged


async def test_patch_replaces_overrides_and_secrets_whole(client: Client) -> None:
    await made(client, init_params_overrides={"a": 2}, secret_params={"T": "s", "U": "t"})
    after = await patched(client, init_params_overrides={"zeta": "y"}, secret_params={"U": MASK, "V": "v"})
    assert after["init_params_overrides"] == {"zeta": "y"}
    assert after["secret_params"] == {"U": MASK, "V": MASK}


async def test_a_mask_sent_back_keeps_the_stored_secret(client: Client, connection: Connection) -> None:
    await made(client, secret_params={"T": "s"}, webhook_url="https://x.org", webhook_secret="w")
    refs = "SELECT array[secret_refs ->> 'T', webhook_secret_id::text] FROM routines.routines"
    before = await value(connection, refs)
    await patched(client, secret_params={"T": MASK}, webhook_secret=MASK)
    assert await value(connection, refs) == before
    await patched(client, secret_params={"T": "new"}, webhook_secret="new")
    assert await value(connection, refs) != before


async def test_a_mask_for_a_secret_that_is_not_stored_answers_400(client: Client) -> None:
    await made(client)
    for fields, field in (
        ({"secret_params": {"T": MASK}}, "secret_params.T"),
        ({"webhook_secret": MASK}, "webhook_secret"),
    ):
        answer = await client.patch(f"{BASE}/r", json=fields)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)


async def test_null_clears_webhook_url_and_webhook_secret(client: Client) -> None:
    await made(client, webhook_url="https://x.org", webhook_secret="w")
    after = await patched(client, webhook_url=None, webhook_secret=None)
    assert (after["webhook_url"], after["webhook_secret"]) == (None, None)


@pytest.mark.parametrize("field", ["name", "cadence", "init_params_overrides", "secret_params", "paused"])
async def test_null_for_another_field_answers_400(client: Client, field: str) -> None:
    await made(client)
    answer = await client.patch(f"{BASE}/r", json={field: None})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)


async def test_the_answer_of_get_can_be_sent_back_whole(client: Client) -> None:
    await made(
        client,
        init_params_overrides={"a": 2},
        secret_params={"T": "s"},
        webhook_url="https://x.org",
        webhook_secret="w",
    )
    await client.put("/api/v1/tasks/my-org/echo", json={"workflow": {"init_params": {}}})
    read = (await client.get(f"{BASE}/r")).json()
    assert read["warnings"]
    assert await patched(client, **read) == {key: kept for key, kept in read.items() if key != "warnings"}


async def test_patch_refuses_an_undeclared_override_that_is_new_or_changed(client: Client) -> None:
    await made(client, init_params_overrides={"a": 2})
    await client.put("/api/v1/tasks/my-org/echo", json={"workflow": {"init_params": {}}})
    for overrides, unknown in (({"a": 3}, ["a"]), ({"a": 2, "b": 1}, ["b"])):
        answer = await client.patch(f"{BASE}/r", json={"init_params_overrides": overrides})
        assert (answer.status_code, answer.json()["unknown_keys"]) == (400, unknown)


async def test_patch_refuses_unknown_fields_by_name(client: Client) -> None:
    await made(client)
    answer = await client.patch(f"{BASE}/r", json={"cadance": {"type": "hourly"}})
    assert (answer.status_code, answer.json()["detail"]) == (400, "cadance: unknown field.")


async def test_the_catch_up_window_can_be_set_and_null_restores_the_default(client: Client) -> None:
    assert "catchup_window_seconds" not in await made(client)
    assert (await made(client, name="s", catchup_window_seconds=0))["catchup_window_seconds"] == 0
    assert (await patched(client, catchup_window_seconds=60))["catchup_window_seconds"] == 60
    assert (await patched(client, paused=True))["catchup_window_seconds"] == 60
    assert "catchup_window_seconds" not in await patched(client, catchup_window_seconds=None)
    assert (await client.patch(f"{BASE}/r", json={"catchup_window_seconds": -1})).status_code == 400


async def test_a_routine_that_the_scheduler_paused_says_why_until_it_is_resumed(
    client: Client, connection: Connection
) -> None:
    assert "paused_reason" not in await made(client)
    await connection.execute("UPDATE routines.routines SET next_run_at = '2026-05-04 09:00Z'")
    for day in ("04", "05", "06"):
        await tick(connection, batch_size=1, now=at(f"2026-05-{day} 09:00"), fault="poison", **CATCHUP)
    reason = "paused after 3 fires in a row that failed to start; the last: poison"
    read = (await client.get(f"{BASE}/r")).json()
    assert (read["paused"], read["paused_reason"]) == (True, reason)
    assert (await client.get(BASE)).json()[0]["paused_reason"] == reason
    assert await value(connection, "SELECT paused_reason FROM routines.routine_details") == reason
    assert reason in (await client.get(f"{BASE}/r/why?at=2199-05-04T09:00:00Z")).json()["sentence"]
    assert (await patched(client, **read))["paused_reason"] == reason
    assert "paused_reason" not in (await client.post(f"{BASE}/r/resume")).json()


async def test_patch_renames_and_answers_409_if_the_name_is_taken(client: Client) -> None:
    await made(client)
    await made(client, name="other")
    assert (await client.patch(f"{BASE}/r", json={"name": "other"})).status_code == 409
    assert (await patched(client, name="r"))["name"] == "r"
    answer = await client.patch(f"{BASE}/r", json={"name": "renamed"})
    assert (answer.status_code, answer.json()["name"]) == (200, "renamed")
    assert (await client.get(f"{BASE}/r")).status_code == 404


async def test_patch_with_paused_pauses_and_resumes(client: Client) -> None:
    await made(client)
    assert (await patched(client, paused=True))["next_run_at"] is None
    assert (await patched(client, paused=False))["next_run_at"] is not None


async def test_a_patch_without_a_new_cadence_keeps_the_next_slot(client: Client, connection: Connection) -> None:
    await made(client)
    await connection.execute("UPDATE routines.routines SET next_run_at = '2026-05-04 09:00Z'")
    after = await patched(client, init_params_overrides={"a": 9}, cadence={"type": "daily", "hour_utc": 9})
    assert after["next_run_at"] == "2026-05-04T09:00:00Z"


async def test_the_next_fire_follows_the_patched_spec(client: Client, connection: Connection) -> None:
    await made(client, init_params_overrides={"a": 2})
    await patched(client, init_params_overrides={"a": 3})
    await connection.execute("UPDATE routines.routines SET next_run_at = '2026-05-04 09:00Z'")
    await tick(connection, batch_size=1, now=at("2026-05-04 09:00"), **CATCHUP)
    fired = (await client.get(f"{BASE}/r/runs")).json()[0]
    whole = (await client.get(f"/api/v1/db/trajectory/my-org/echo/{fired['trajectory_id']}")).json()
    assert whole["init_params"] == {"zeta": "z", "a": 3, "none": None, "list": []}
    assert (whole["trigger"], whole["scheduled_for"]) == ("schedule", "2026-05-04T09:00:00Z")


async def test_delete_removes_the_routine_and_keeps_its_trajectories(client: Client) -> None:
    await made(client, name="m", cadence={"type": "manual"})
    run = (await client.post(f"{BASE}/m/run-now")).json()["trajectory_id"]
    deleted = await client.delete(f"{BASE}/m")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await client.get(f"{BASE}/m")).status_code == 404
    assert (await client.delete(f"{BASE}/m")).status_code == 404
    assert (await client.get(f"/api/v1/db/trajectory/my-org/echo/{run}")).status_code == 200


async def test_pause_clears_the_next_slot_and_resume_computes_a_new_one(client: Client) -> None:
    await made(client)
    for _ in range(2):
        paused = (await client.post(f"{BASE}/r/pause")).json()
        assert (paused["paused"], paused["next_run_at"]) == (True, None)
    for _ in range(2):
        resumed = (await client.post(f"{BASE}/r/resume")).json()
        assert not resumed["paused"]
        assert resumed["next_run_at"].endswith("T09:00:00Z")


async def test_resume_does_not_make_up_for_slots_in_the_pause(client: Client, connection: Connection) -> None:
    await made(client)
    await client.post(f"{BASE}/r/pause")
    await connection.execute("UPDATE routines.routines SET paused_at = now() - interval '30 days'")
    await client.post(f"{BASE}/r/resume")
    assert await value(connection, "SELECT next_run_at > now() FROM routines.routines") is True


async def test_run_now_works_on_a_manual_routine_and_its_run_is_listed(client: Client) -> None:
    await made(client, name="m", cadence={"type": "manual"}, init_params_overrides={"a": 2})
    started = (await client.post(f"{BASE}/m/run-now")).json()
    assert started["workflow_id"] == f"flow-my-org-echo--{started['trajectory_id']}"
    assert (started["trajectory"]["init_params"]["a"], started["result"]) == (2, {})
    [run] = (await client.get(f"{BASE}/m/runs")).json()
    assert (run["trajectory_id"], run["status"], run["trigger"]) == (started["trajectory_id"], "pending", "run-now")
    whole = (await client.get(f"/api/v1/db/trajectory/my-org/echo/{run['trajectory_id']}")).json()
    assert whole["triggered_by_routine_id"] == (await client.get(f"{BASE}/m")).json()["id"]


async def test_run_now_works_while_paused_or_running_and_keeps_the_next_slot(client: Client) -> None:
    before = await made(client)
    for _ in range(2):
        assert (await client.post(f"{BASE}/r/run-now")).status_code == 200
    after = (await client.get(f"{BASE}/r")).json()
    assert (after["next_run_at"], after["cadence"]) == (before["next_run_at"], before["cadence"])
    assert after["last_run_at"] is not None
    await client.post(f"{BASE}/r/pause")
    assert (await client.post(f"{BASE}/r/run-now")).status_code == 200
    assert len((await client.get(f"{BASE}/r/runs")).json()) == 3


async def test_runs_are_newest_first_with_the_summary_of_each(client: Client) -> None:
    await made(client)
    started = [(await client.post(f"{BASE}/r/run-now")).json()["trajectory_id"] for _ in range(3)]
    found = (await client.get(f"{BASE}/r/runs")).json()
    assert [run["trajectory_id"] for run in found] == started[::-1]
    assert set(found[0]) == {
        "trajectory_id", "workflow_id", "status", "created_at",
        "scheduled_for", "trigger", "started_at", "ended_at", "error",
    }  # fmt: skip


async def test_runs_of_a_missing_routine_answer_404(client: Client) -> None:
    assert (await client.get(f"{BASE}/absent/runs")).status_code == 404


async def test_init_params_schema_keeps_the_order_of_the_workflow(client: Client) -> None:
    keys = (await client.get("/api/v1/tasks/my-org/echo/init-params-schema")).json()["keys"]
    assert [(key["name"], key["default"], key["type_hint"]) for key in keys] == [
        ("zeta", "z", "string"), ("a", 1, "integer"), ("none", None, "string"), ("list", [], "array"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("default", "hint"),
    [("x", "string"), (1, "integer"), (1.5, "number"), (True, "boolean"), ([], "array"), ({}, "object")],
)
async def test_the_type_hint_is_the_json_type_of_the_default(client: Client, default: Any, hint: str) -> None:
    await client.put("/api/v1/tasks/my-org/echo", json={"workflow": {"init_params": {"p": default}}})
    [key] = (await client.get("/api/v1/tasks/my-org/echo/init-params-schema")).json()["keys"]
    assert key == {"name": "p", "default": default, "type_hint": hint}


@pytest.mark.parametrize("action", ["run-now", "pause", "resume"])
async def test_fields_sent_to_an_operation_without_fields_are_refused(client: Client, action: str) -> None:
    await client.post(BASE, json=DAILY)
    answer = await client.post(f"{BASE}/r/{action}", json={"init_params_overrides": {"a": 1}})
    assert (answer.status_code, answer.json()["detail"]) == (400, "init_params_overrides: unknown field.")
    assert (await client.get(f"{BASE}/r/runs")).json() == []
    assert (await client.post(f"{BASE}/r/{action}", data={"a": "1"})).status_code == 400
    for nothing in ("", "{}", "\n"):  # `curl -d` sends the media type of a form
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await client.post(f"{BASE}/r/{action}", content=nothing, headers=headers)).status_code == 200
