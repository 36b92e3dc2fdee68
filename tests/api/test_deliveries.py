"""The webhook deliveries of a routine by HTTP, and the URLs that may be saved."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.app import create_app
from routines_core.db import Connection
from routines_core.db.deliveries import Outcome
from support.outbox import claim, delivering, ended_runs, routine_with_webhook, settle, until
from support.receivers import answers, receiver
from support.rows import Database, api_settings, make_key, value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
DELIVERIES = f"{BASE}/morning/deliveries"
URL = "https://receiver.test/hook"


async def given_up(connection: Connection, secret: str | None = None) -> int:
    """The id of a delivery that was given up because its endpoint answered 410."""
    await ended_runs(connection, await routine_with_webhook(connection, URL, secret))
    [delivery] = await claim(connection)
    await settle(connection, delivery, Outcome(410, "it answered 410", 0.1, is_gone=True), delay_seconds=None)
    return delivery.id


async def test_the_webhooks_of_a_routine_are_listed_newest_first_with_each_attempt(
    client: Client, connection: Connection
) -> None:
    delivery = await given_up(connection)
    [shown] = (await client.get(DELIVERIES)).json()
    [attempt] = shown.pop("attempts")
    assert (attempt["status"], attempt["error"], attempt["duration_seconds"]) == (410, "it answered 410", 0.1)
    assert (shown["id"], shown["url"], shown["status"], shown["state"]) == (delivery, URL, "completed", "given_up")
    assert shown["endpoint_stopped_reason"] == "it answered 410: gone"
    assert shown["endpoint_stopped_at"].endswith("Z")


async def test_the_link_header_leads_to_the_next_page(client: Client, connection: Connection) -> None:
    await ended_runs(connection, await routine_with_webhook(connection, URL), 3)
    first = await client.get(DELIVERIES, params={"limit": 2})
    rest = await client.get(first.headers["link"].split(">")[0][1:])
    ids = [each["id"] for each in first.json() + rest.json()]
    assert ids == sorted(ids, reverse=True)
    assert (len(first.json()), len(rest.json()), "link" in rest.headers) == (2, 1, False)


async def test_a_routine_without_webhooks_has_an_empty_list_and_a_missing_routine_answers_404(
    client: Client, connection: Connection
) -> None:
    await routine_with_webhook(connection, URL)
    assert (await client.get(DELIVERIES)).json() == []
    assert (await client.get(f"{BASE}/none/deliveries")).status_code == 404


async def test_a_redelivery_goes_to_a_stopped_endpoint_with_the_same_id_and_starts_it_again(
    client: Client, connection: Connection, database: Database
) -> None:
    delivery = await given_up(connection)
    async with receiver(answers(200)) as hook:
        await connection.execute("UPDATE routines.webhook_deliveries SET url = %s", [hook.url])
        await connection.execute("UPDATE routines.webhook_endpoints SET url = %s", [hook.url])
        answer = await client.post(f"{DELIVERIES}/{delivery}/redeliver")
        assert (answer.status_code, answer.json()["state"]) == (200, "pending")
        async with delivering(database):
            await until(connection, "SELECT delivered_at IS NOT NULL FROM routines.webhook_deliveries")
    [shown] = (await client.get(DELIVERIES)).json()
    assert hook.received[0].headers["webhook-id"] == shown["webhook_id"]
    assert (shown["state"], shown["endpoint_stopped_at"], len(shown["attempts"])) == ("delivered", None, 2)


async def test_a_redelivery_that_fails_at_a_stopped_endpoint_is_not_retried(
    client: Client, connection: Connection, database: Database
) -> None:
    delivery = await given_up(connection)
    await client.post(f"{DELIVERIES}/{delivery}/redeliver")
    [again] = await claim(connection)
    await settle(connection, again, Outcome(500, "it answered 500"), delay_seconds=0)
    async with delivering(database):
        await until(connection, "SELECT give_up_reason IS NOT NULL FROM routines.webhook_deliveries")
    [shown] = (await client.get(DELIVERIES)).json()
    assert shown["give_up_reason"] == "the endpoint is stopped: it answered 410: gone"


async def test_a_redelivery_is_signed_with_the_current_secret_of_the_routine(
    client: Client, connection: Connection
) -> None:
    delivery = await given_up(connection, "old")
    await client.patch(f"{BASE}/morning", json={"webhook_secret": "new"})
    assert (await client.post(f"{DELIVERIES}/{delivery}/redeliver")).status_code == 200
    [again] = await claim(connection)
    assert again.secret_id == await value(connection, "SELECT webhook_secret_id FROM routines.routines")


async def test_a_redelivery_without_its_secret_is_refused_with_the_reason(
    client: Client, connection: Connection
) -> None:
    delivery = await given_up(connection, "old")
    await client.patch(f"{BASE}/morning", json={"webhook_secret": None, "webhook_url": "https://other.test/"})
    answer = await client.post(f"{DELIVERIES}/{delivery}/redeliver")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:routines:problem:conflict")
    assert "secret" in answer.json()["detail"]
    assert await claim(connection) == []


async def test_a_claimed_delivery_is_left_to_its_worker(client: Client, connection: Connection) -> None:
    await ended_runs(connection, await routine_with_webhook(connection, URL))
    [held] = await claim(connection)
    answer = await client.post(f"{DELIVERIES}/{held.id}/redeliver")
    assert (answer.status_code, answer.json()["state"]) == (200, "pending")
    assert await claim(connection) == []
    assert await settle(connection, held, Outcome(200, None))


async def test_the_list_of_webhooks_contains_no_secret(client: Client, connection: Connection) -> None:
    await given_up(connection, "very-secret-indeed")
    secret_id = await value(connection, "SELECT webhook_secret_id FROM routines.routines")
    shown = (await client.get(DELIVERIES)).text
    assert "very-secret-indeed" not in shown
    assert secret_id
    assert str(secret_id) not in shown


REFUSED = ["http://127.1/", "http://localhost:8080/x", "https://[::ffff:7f00:1]/", "http://2130706433/", "http://[::1/"]


@pytest.mark.parametrize("url", REFUSED)
async def test_a_url_with_a_private_address_is_not_saved(client: Client, url: str) -> None:
    created = {"name": "r", "cadence": {"type": "manual"}}
    refused = await client.post(BASE, json={**created, "webhook_url": url})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "webhook_url")
    assert (await client.post(BASE, json=created)).status_code == 201
    assert (await client.patch(f"{BASE}/r", json={"webhook_url": url})).status_code == 400


async def test_a_url_with_a_private_address_is_saved_if_the_setting_allows_it(
    connection: Connection, database: Database, client: Client
) -> None:
    key = await make_key(connection, "my-org")
    async with AsyncTestClient(create_app(api_settings(webhook_allow_private=True), database.url)) as inside:
        inside.headers["Authorization"] = f"Bearer {key}"
        body = {"name": "r", "cadence": {"type": "manual"}, "webhook_url": "http://127.0.0.1:9/"}
        assert (await inside.post(BASE, json=body)).status_code == 201
        body["webhook_url"] = "http://169.254.169.254/"
        assert (await inside.patch(f"{BASE}/r", json=body)).status_code == 400
