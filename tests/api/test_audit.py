"""Who changed what, by HTTP, and revisions that are restored."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.app import create_app
from routines_core.db import Connection
from support.rows import Database, api_settings, make_key, value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
ROUTINE = f"{BASE}/r"
REVISIONS = f"{ROUTINE}/revisions"
AUDIT = "/api/v1/audit/my-org"
DAILY = {"type": "daily", "hour_utc": 9, "minute_utc": 0}
TOKEN = "an-operators-token-of-32-characters"
MASK = "********"


async def ok(client: Client, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    answer = await client.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


async def refused(client: Client, method: str, path: str, status: int) -> dict[str, Any]:
    answer = await client.request(method, path)
    assert answer.status_code == status, answer.text
    return answer.json()


async def patch(client: Client, **fields: Any) -> dict[str, Any]:
    return await ok(client, "PATCH", ROUTINE, fields)


async def restore(client: Client, revision: int) -> dict[str, Any]:
    return await ok(client, "POST", f"{REVISIONS}/{revision}/restore")


@pytest.fixture
async def made(client: Client) -> dict[str, Any]:
    """Create a routine, and return it."""
    return await ok(client, "POST", BASE, {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}, 201)


async def test_revisions_say_who_changed_a_routine_and_what_was_before(
    client: Client, made: dict[str, Any], connection: Connection
) -> None:
    key_id = await value(connection, "SELECT max(id) FROM routines.api_keys")
    await patch(client, cadence={"type": "hourly"}, secret_params={"TOKEN": "s3cret"})
    await patch(client, cadence={"type": "hourly"})
    await connection.execute("UPDATE routines.routines SET timeout_seconds = 60")
    found = await ok(client, "GET", REVISIONS)
    me = await value(connection, "SELECT session_user::text")
    assert [(each["revision"], each["actor"], each["action"]) for each in found] == [
        (3, f"login {me}", "changed"),
        (2, f"key {key_id}", "changed"),
        (1, f"key {key_id}", "created"),
    ]
    shown = found[1]
    assert shown == {
        "id": shown["id"],
        "at": shown["at"],
        "actor": f"key {key_id}",
        "kind": "routine",
        "action": "changed",
        "before": {"cadence": DAILY},
        "after": {"cadence": {"type": "hourly", "minute_utc": 0}, "secret_params": {"TOKEN": MASK}},
        "task_name": "echo",
        "name": "r",
        "routine_id": made["id"],
        "revision": 2,
    }
    assert shown["at"].endswith("Z")
    assert "s3cret" not in str(await value(connection, "SELECT array_agg(audit::text) FROM routines.audit"))


async def test_the_audit_lists_every_kind_of_change_newest_first_in_pages(client: Client, made: dict[str, Any]) -> None:
    del made
    await ok(client, "PUT", "/api/v1/calendars/my-org/c", {"days": []})
    await ok(client, "PATCH", "/api/v1/collections/my-org/environment", {"environment_variables": {"A": "s3cret"}})
    feed = await ok(client, "POST", "/api/v1/ics/my-org", status=201)
    await ok(client, "DELETE", f"/api/v1/ics/my-org/{feed['id']}", status=204)
    await ok(client, "DELETE", ROUTINE, status=204)
    kinds = [
        ("routine", "deleted"), ("feed", "deleted"), ("feed", "created"), ("environment", "changed"),
        ("calendar", "created"), ("routine", "created"), ("task", "created"), ("key", "created"),
    ]  # fmt: skip
    whole = await ok(client, "GET", AUDIT)
    assert [(each["kind"], each["action"]) for each in whole] == kinds
    assert whole[3]["after"] == {"A": MASK}
    assert "name" not in whole[3]
    seen, path = list[Any](), f"{AUDIT}?limit=3"
    while path:
        answer = await client.get(path)
        seen += answer.json()
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    assert seen == whole


@pytest.mark.parametrize(("kind", "count"), [("routine", 3), ("task", 1), ("limit", 0)])
async def test_a_filter_of_the_kind_holds_on_every_page(
    client: Client, made: dict[str, Any], kind: str, count: int
) -> None:
    del made
    for hour in (10, 11):
        await patch(client, cadence={"type": "daily", "hour_utc": hour})
    seen, path = list[Any](), f"{AUDIT}?limit=1&kind={kind}"
    while path:
        answer = await client.get(path)
        seen += answer.json()
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    assert [each["kind"] for each in seen] == [kind] * count


async def test_a_page_ends_for_its_size(client: Client, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    del made
    monkeypatch.setattr("routines_core.db.audit.LISTED_BYTES", 3000)
    for number in range(4):
        await patch(client, init_params_overrides={"zeta": f"{number}" * 1000})
    for path in (AUDIT, REVISIONS):
        first = await client.get(path)
        assert len(first.json()) == 2
        assert "next" in first.links


async def test_a_request_that_changes_nothing_is_no_revision(client: Client, made: dict[str, Any]) -> None:
    await ok(client, "PATCH", ROUTINE, made)
    await ok(client, "POST", f"{ROUTINE}/resume")
    await ok(client, "POST", f"{ROUTINE}/run-now")
    assert len(await ok(client, "GET", REVISIONS)) == 1


async def test_a_kind_that_does_not_exist_is_refused(client: Client) -> None:
    assert "kind" in (await refused(client, "GET", f"{AUDIT}?kind=nothing", 400))["detail"]


# --- restore ----------------------------------------------------------------------------------------------------------

WHOLE = {
    "cadence": {"type": "cron", "expression": "30 2 * * *", "timezone": "Europe/Berlin"},
    "init_params_overrides": {"zeta": None, "list": [1, {"a": None}], "a": 1e300},
    "webhook_url": "https://example.com/hook",
    "catchup_window_seconds": 0,
    "starts_at": "2026-05-04T09:00:00Z",
    "ends_at": "2126-05-04T09:00:00.5Z",
    "spread_seconds": 30,
    "calendar": {"exclude": ["c"], "on_excluded": "next_day"},
    "active_hours": {"windows": ["mon-fri 08:00-18:00"], "outside": "defer"},
    "init_params_from_slot": {"a": "slot.date"},
    "timeout_seconds": 60,
    "retry": {"max_attempts": 3, "backoff": [1, 2.5], "on": "transient", "until": 600},
    "pause_after_failures": 3,
    "then": "backoff",
    "overlap_policy": "allow",
    "max_concurrent": 3,
}
TIMES = {"id", "next_run_at", "last_run_at", "warnings"}


def definition(routine: dict[str, Any]) -> dict[str, Any]:
    return {field: given for field, given in routine.items() if field not in TIMES}


async def test_every_field_of_a_revision_comes_back(client: Client, made: dict[str, Any]) -> None:
    await ok(client, "PUT", "/api/v1/calendars/my-org/c", {"days": []})
    whole = await patch(client, **WHOLE)
    assert definition(await restore(client, 1)) == definition(made)
    assert definition(await restore(client, 2)) == definition(whole)
    assert definition(await restore(client, 3)) == definition(made)
    assert [each["revision"] for each in await ok(client, "GET", REVISIONS)] == [5, 4, 3, 2, 1]
    assert (await restore(client, 5))["cadence"] == made["cadence"]
    assert len(await ok(client, "GET", REVISIONS)) == 5


async def test_the_name_and_the_pause_stay(client: Client, made: dict[str, Any]) -> None:
    del made
    await ok(client, "PATCH", ROUTINE, {"name": "other", "paused": True, "timeout_seconds": 60})
    restored = await ok(client, "POST", f"{BASE}/other/revisions/1/restore")
    assert (restored["name"], restored["paused"], "timeout_seconds" in restored) == ("other", True, False)


async def test_secrets_keep_todays_value_or_are_named_as_gone(client: Client, made: dict[str, Any]) -> None:
    del made
    await patch(client, secret_params={"A": "1", "B": "2"}, webhook_url="https://a.test", webhook_secret="whsec")
    await patch(client, secret_params={"A": "3", "C": "4"}, webhook_secret=None)
    restored = await restore(client, 2)
    assert restored["secret_params"] == {"A": MASK}
    assert restored["webhook_secret"] is None
    assert restored["warnings"] == [
        "secret_params.B: its value is not stored any more; send it with PATCH.",
        "webhook_secret: its value is not stored any more; send it with PATCH.",
    ]
    [newest, *_] = await ok(client, "GET", f"{REVISIONS}?limit=1")
    assert newest["before"] == {"secret_params": {"A": MASK, "C": MASK}}
    assert newest["after"] == {"secret_params": {"A": MASK}}


async def test_what_is_not_allowed_any_more_is_refused_as_by_a_patch(
    client: Client, made: dict[str, Any], connection: Connection
) -> None:
    del made
    await ok(client, "PUT", "/api/v1/calendars/my-org/c", {"days": []})
    await patch(client, calendar={"exclude": ["c"]}, init_params_overrides={"zeta": 1})
    await patch(client, calendar=None, init_params_overrides={})
    await ok(client, "DELETE", "/api/v1/calendars/my-org/c", status=204)
    gone = await refused(client, "POST", f"{REVISIONS}/2/restore", 400)
    assert "calendar.exclude: the collection has no calendar" in gone["detail"]
    await ok(
        client, "PUT", "/api/v1/tasks/my-org/echo", {"workflow": {"init_params": {}, "steps": [], "step_configs": {}}}
    )
    unknown = await refused(client, "POST", f"{REVISIONS}/2/restore", 400)
    assert unknown["unknown_keys"] == ["zeta"]
    assert await value(connection, "SELECT max(revision) FROM routines.audit") == 3


@pytest.mark.parametrize(
    "number", ["0", "2", "-1", "x", "1.0", "99999999999999999999", "9223372036854775807", "%00", "1e3"]
)
async def test_a_revision_that_does_not_exist_is_not_found(client: Client, made: dict[str, Any], number: str) -> None:
    del made
    await refused(client, "POST", f"{REVISIONS}/{number}/restore", 404)


async def test_fields_are_refused(client: Client, made: dict[str, Any]) -> None:
    del made
    await ok(client, "POST", f"{REVISIONS}/1/restore", {"name": "x"}, 400)


async def test_a_routine_of_another_id_has_revisions_of_its_own(client: Client, made: dict[str, Any]) -> None:
    del made
    await patch(client, timeout_seconds=60)
    await ok(client, "DELETE", ROUTINE, status=204)
    await ok(client, "POST", BASE, {"name": "r", "cadence": {"type": "manual"}}, 201)
    assert [each["revision"] for each in await ok(client, "GET", REVISIONS)] == [1]
    await refused(client, "POST", f"{REVISIONS}/2/restore", 404)


# --- runs and operators -----------------------------------------------------------------------------------------------


async def test_a_run_shows_the_revision_that_it_was_fired_with_once_there_is_more_than_one(
    client: Client, made: dict[str, Any]
) -> None:
    del made
    first = await ok(client, "POST", f"{ROUTINE}/run-now")
    assert "routine_revision" not in first["trajectory"]
    await patch(client, timeout_seconds=60)
    second = await ok(client, "POST", f"{ROUTINE}/run-now")
    assert second["trajectory"]["routine_revision"] == 2
    await patch(client, timeout_seconds=61)
    path = "/api/v1/db/trajectory/my-org/echo"
    assert "routine_revision" not in await ok(client, "GET", f"{path}/{first['trajectory_id']}")
    assert (await ok(client, "GET", f"{path}/{second['trajectory_id']}"))["routine_revision"] == 2


async def test_limits_that_the_operator_sets_name_the_operator(connection: Connection, database: Database) -> None:
    key = await make_key(connection, "my-org")
    async with AsyncTestClient(create_app(api_settings(operator_token=TOKEN), database.url)) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        await ok(client, "PUT", "/api/v1/operator/collections/my-org/limits", {"limits": {"tasks": 5}})
        client.headers["Authorization"] = f"Bearer {key}"
        [change] = await ok(client, "GET", f"{AUDIT}?kind=limit")
    assert (change["actor"], change["name"], change["after"]) == ("operator", "tasks", {"value": 5})
