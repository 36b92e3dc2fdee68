"""Alert rules and alerts by HTTP, and the notices that rules send."""

import hashlib
import hmac
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.app import create_app
from routines_core.db import Connection
from support.alerting import fail, judge_all, judge_until_done
from support.outbox import decoded, delivering, until
from support.receivers import answers, receiver
from support.rows import Database, api_settings, make_key, value

Client = AsyncTestClient[Any]
RULES = "/api/v1/alert-rules/my-org"
RULE = f"{RULES}/on-call"
ALERTS = "/api/v1/alerts/my-org"
BASE = "/api/v1/routines/my-org/echo"
URL = "https://receiver.test/alerts"
DEFAULTS = {
    "name": "on-call",
    "after_seconds": None,
    "streak": None,
    "scope": {"task": None, "routine": None},
    "webhook_url": URL,
    "webhook_secret": None,
    "digest": "now",
    "digest_at_utc": None,
}


async def put(client: Client, path: str = RULE, **fields: Any) -> dict[str, Any]:
    answer = await client.put(path, json={"on": ["failed"], "webhook_url": URL, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: Client, status: int = 400, **fields: Any) -> str:
    answer = await client.put(RULE, json={"on": ["failed"], "webhook_url": URL, **fields})
    assert answer.status_code == status, answer.text
    return answer.json()["detail"]


async def make_routine(client: Client, name: str = "morning") -> int:
    answer = await client.post(BASE, json={"name": name, "cadence": {"type": "hourly"}})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


# --- rules ------------------------------------------------------------------------------------------------------------


async def test_a_rule_is_created_replaced_listed_and_deleted(client: Client) -> None:
    assert (await client.get(RULE)).status_code == 404
    made = await put(client, on=["late", "recovered"])
    assert made == {**DEFAULTS, "on": ["late", "recovered"], "updated_at": made["updated_at"]}
    assert (await client.get(RULE)).json() == made
    await put(client, f"{RULES}/a")
    assert [rule["name"] for rule in (await client.get(RULES)).json()] == ["a", "on-call"]
    changed = await put(client, on=["slow"], after_seconds=600)
    assert (changed["on"], changed["after_seconds"]) == (["slow"], 600)
    assert (await client.delete(RULE)).status_code == 204
    assert (await client.get(RULE)).status_code == 404
    assert (await client.delete(RULE)).status_code == 404


async def test_what_a_get_returned_can_be_sent_back(client: Client) -> None:
    await make_routine(client)
    scope = {"task": "echo", "routine": "morning"}
    made = await put(client, on=["late", "streak"], streak=5, scope=scope, webhook_secret="s", digest="daily")
    assert (made["streak"], made["digest_at_utc"], made["webhook_secret"]) == (5, "08:00", "********")
    answer = await client.put(RULE, json=made)
    assert {**answer.json(), "updated_at": ""} == {**made, "updated_at": ""}


async def test_rules_are_listed_in_pages(client: Client) -> None:
    for name in ("c", "a", "b"):
        await put(client, f"{RULES}/{name}")
    first = await client.get(RULES, params={"limit": 2})
    assert [rule["name"] for rule in first.json()] == ["a", "b"]
    rest = await client.get(first.links["next"]["url"])
    assert [rule["name"] for rule in rest.json()] == ["c"]


async def test_a_streak_is_three_slots_by_default(client: Client) -> None:
    assert (await put(client, on=["streak"]))["streak"] == 3


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"on": []}, "on: "),
        ({"on": ["nonsense"]}, "on.0: "),
        ({"on": ["late", "late"]}, "on: must not name an event twice"),
        ({"on": ["recovered"]}, "on: must name what may recover, beside recovered"),
        ({"on": "late"}, "on: "),
        ({"after_seconds": 60}, "after_seconds: is for late and slow; on names neither"),
        ({"on": ["late"], "after_seconds": 0}, "after_seconds: "),
        ({"on": ["late"], "after_seconds": 10**12}, "after_seconds: "),
        ({"on": ["late"], "after_seconds": 1.5}, "after_seconds: "),
        ({"streak": 3}, "streak: is for streak, which on does not name"),
        ({"on": ["streak"], "streak": 1}, "streak: "),
        ({"scope": {"routine": "morning"}}, "scope.routine: needs the task that it belongs to"),
        ({"scope": {"task": "nothing"}}, "scope.task: the collection has no task nothing"),
        (
            {"scope": {"task": "echo", "routine": "nothing"}},
            "scope.routine: the collection has no routine nothing of the task echo",
        ),
        ({"scope": {"task": "Not A Slug"}}, "scope.task: "),
        ({"scope": {"tasks": "echo"}}, "scope.tasks: "),
        ({"webhook_url": None}, "webhook_url: "),
        ({"webhook_url": "ftp://a.test/"}, "webhook_url: must be an http or https URL"),
        ({"webhook_url": "http://user@a.test/"}, "webhook_url: must be an http or https URL"),
        ({"webhook_url": "http://127.0.0.1/"}, "webhook_url: "),
        ({"webhook_url": "http://169.254.169.254/latest"}, "webhook_url: "),
        ({"webhook_url": "http://[::1]/"}, "webhook_url: "),
        ({"webhook_secret": ""}, "webhook_secret: "),
        ({"webhook_secret": "********"}, "webhook_secret: ******** keeps a stored value, but none is stored"),
        ({"digest": "weekly"}, "digest: "),
        ({"digest_at_utc": "08:00"}, "digest_at_utc: is for digest: daily"),
        ({"digest": "daily", "digest_at_utc": "24:00"}, "digest_at_utc: must be a time of day such as 08:00"),
        ({"digest": "daily", "digest_at_utc": "8:00"}, "digest_at_utc: must be a time of day such as 08:00"),
        ({"nonsense": 1}, "nonsense: "),
    ],
)
async def test_a_rule_that_is_not_valid_is_refused_with_the_field(
    client: Client, fields: dict[str, Any], detail: str
) -> None:
    assert detail in await refused(client, **fields)
    assert (await client.get(RULE)).status_code == 404


async def test_a_name_that_is_no_slug_is_refused(client: Client) -> None:
    answer = await client.put(f"{RULES}/On%20Call", json={"on": ["failed"], "webhook_url": URL})
    assert (answer.status_code, answer.json()["detail"][:5]) == (400, "name:")


async def test_a_collection_has_no_more_rules_than_its_limit(client: Client, connection: Connection) -> None:
    await connection.execute("INSERT INTO routines.collection_limits (name, value) VALUES ('alert_rules', 1)")
    await put(client)
    answer = await client.put(f"{RULES}/second", json={"on": ["failed"], "webhook_url": URL})
    assert (answer.status_code, answer.json()["limit"]) == (429, "alert_rules")
    await put(client, on=["late"])


async def test_the_scope_follows_a_routine_that_is_renamed(client: Client) -> None:
    await make_routine(client)
    await put(client, scope={"task": "echo", "routine": "morning"})
    await client.patch(f"{BASE}/morning", json={"name": "evening"})
    assert (await client.get(RULE)).json()["scope"] == {"task": "echo", "routine": "evening"}


async def test_a_rule_names_nothing_of_another_collection(
    client: Client, connection: Connection, database: Database
) -> None:
    key = await make_key(connection, "theirs")
    async with AsyncTestClient(create_app(api_settings(), database.url)) as other:
        other.headers["Authorization"] = f"Bearer {key}"
        await other.post("/api/v1/tasks/theirs", json={"name": "private", "workflow": {"steps": []}})
        await other.put(
            "/api/v1/alert-rules/theirs/on-call", json={"on": ["failed"], "webhook_url": URL, "webhook_secret": "s"}
        )
    assert "no task private" in await refused(client, scope={"task": "private"})
    assert "none is stored" in await refused(client, webhook_secret="********")
    assert (await client.get(RULES)).json() == []


# --- secrets ----------------------------------------------------------------------------------------------------------


SECRETS = "SELECT count(*) FROM routines.secrets"


async def test_a_secret_is_kept_by_its_mask_replaced_and_removed(client: Client, connection: Connection) -> None:
    await put(client, webhook_secret="one")
    first = await value(connection, "SELECT webhook_secret_id FROM routines.alert_rules")
    await put(client, webhook_secret="********")
    assert await value(connection, "SELECT webhook_secret_id FROM routines.alert_rules") == first
    await put(client, webhook_secret="two")
    assert await value(connection, "SELECT webhook_secret_id FROM routines.alert_rules") != first
    assert await value(connection, SECRETS) == 1
    assert (await put(client))["webhook_secret"] is None
    assert await value(connection, SECRETS) == 0


async def test_a_secret_is_deleted_with_its_rule_or_with_the_last_notice_that_it_signs(
    client: Client, connection: Connection, database: Database
) -> None:
    routine = await make_routine(client)
    async with receiver(answers(204)) as hook:
        await put(client, webhook_secret="s")
        await connection.execute("UPDATE routines.alert_rules SET webhook_url = %s", [hook.url])
        await fail(connection, routine)
        await judge_until_done(connection)
        assert (await client.delete(RULE)).status_code == 204
        assert await value(connection, SECRETS) == 1
        async with delivering(database):
            await until(connection, "SELECT bool_and(delivered_at IS NOT NULL) FROM routines.webhook_deliveries")
    assert await value(connection, SECRETS) == 0
    assert "x-mise-signature" in hook.received[0].headers


# --- notices ----------------------------------------------------------------------------------------------------------


async def test_a_notice_is_signed_with_the_secret_of_its_rule_and_has_no_run(
    client: Client, connection: Connection, database: Database
) -> None:
    routine = await make_routine(client)
    async with receiver(answers(204)) as hook:
        await put(client, webhook_secret="s3cret")
        await connection.execute("UPDATE routines.alert_rules SET webhook_url = %s", [hook.url])
        run = await fail(connection, routine)
        await judge_until_done(connection)
        async with delivering(database):
            await until(connection, "SELECT bool_and(delivered_at IS NOT NULL) FROM routines.webhook_deliveries")
    [request] = hook.received
    timestamp = request.headers["x-mise-timestamp"]
    signed = hmac.new(b"s3cret", f"{timestamp}.".encode() + request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-mise-signature"] == signed
    assert "x-mise-trajectory-id" not in request.headers
    body = decoded(request.body)
    [alert] = (await client.get(ALERTS)).json()
    assert body == {
        "event": "failed",
        "rule": "on-call",
        "collection": "my-org",
        "count": 1,
        "alert_id": alert["id"],
        "task": "echo",
        "routine": "morning",
        "routine_id": routine,
        "scheduled_for": body["scheduled_for"],
        "trajectory_id": run,
        "opened_at": body["opened_at"],
        "recovered_at": None,
        "detail": "step 'ask' failed: no response",
    }
    assert (alert["notice"], alert["state"], alert["scheduled_for"]) == ("delivered", "open", body["scheduled_for"])
    assert alert["notified_at"] >= alert["opened_at"]


async def test_notices_are_not_among_the_webhooks_of_a_routine(client: Client, connection: Connection) -> None:
    routine = await make_routine(client)
    await put(client)
    await fail(connection, routine)
    await judge_until_done(connection)
    assert await value(connection, "SELECT count(*) FROM routines.webhook_deliveries") == 1
    assert (await client.get(f"{BASE}/morning/deliveries")).json() == []


# --- alerts -----------------------------------------------------------------------------------------------------------


async def test_alerts_are_listed_newest_first_in_pages_and_by_filter(client: Client, connection: Connection) -> None:
    await put(client, on=["failed", "late"])
    await put(client, f"{RULES}/second")
    ids = [await make_routine(client, name) for name in ("a", "b", "c")]
    for routine in ids:
        await fail(connection, routine)
        await judge_all(connection)
    await client.post(f"{BASE}/a/pause", json={"note": "office closed"})
    await judge_all(connection)
    everything = (await client.get(ALERTS)).json()
    assert [alert["routine"] for alert in everything] == ["c", "c", "b", "b", "a", "a"]
    first = await client.get(ALERTS, params={"rule": "second", "limit": 2})
    assert [alert["routine"] for alert in first.json()] == ["c", "b"]
    suppressed = (await client.get(ALERTS, params={"state": "suppressed", "event": "failed"})).json()
    assert [alert["routine"] for alert in suppressed] == ["a", "a"]
    assert suppressed[0]["suppressed_reason"].endswith(": office closed")
    assert (await client.get(ALERTS, params={"event": "late"})).json() == []


async def test_a_page_of_filtered_alerts_leads_to_the_next_with_the_same_filter(
    client: Client, connection: Connection
) -> None:
    await put(client)
    await put(client, f"{RULES}/second")
    routine = await make_routine(client)
    for minutes in (3, 2, 1):
        await fail(connection, routine, minutes)
    await judge_all(connection)
    first = await client.get(ALERTS, params={"rule": "second", "limit": 2})
    rest = await client.get(first.links["next"]["url"])
    assert [alert["rule"] for alert in first.json() + rest.json()] == ["second"] * 3


@pytest.mark.parametrize("query", ["state=shut", "event=recovered", "limit=0", "nonsense=1", "cursor=x"])
async def test_a_filter_that_does_not_exist_is_refused(client: Client, query: str) -> None:
    assert (await client.get(f"{ALERTS}?{query}")).status_code == 400


async def test_alerts_of_a_deleted_rule_are_not_listed(client: Client, connection: Connection) -> None:
    await put(client)
    await fail(connection, await make_routine(client))
    await judge_all(connection)
    await client.delete(RULE)
    assert (await client.get(ALERTS)).json() == []
