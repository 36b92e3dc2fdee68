"""Each webhook arrives, signed, under every fault, and no receiver delays the webhooks of another."""

import asyncio
import hashlib
import hmac
from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from litestar.testing import AsyncTestClient
from standardwebhooks import Webhook

from routines_api.app import create_app
from routines_core.db import Connection, connect, deliveries
from routines_core.db.deliveries import Outcome
from routines_engine.webhooks.retry_schedule import DELAYS_SECONDS, delay_seconds
from support.outbox import (
    attempts,
    body_of,
    claim,
    decoded,
    delivering,
    ended_runs,
    routine_with_webhook,
    settle,
    until,
)
from support.receivers import answers, closes_early, endless, hangs, receiver
from support.rows import Database, api_settings, make_key, value

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FAILED = Outcome(500, "it answered 500")
ALL_DELIVERED = "SELECT count(*) > 0 AND bool_and(delivered_at IS NOT NULL) FROM routines.webhook_deliveries"
NONE_DUE = "SELECT count(*) > 0 AND bool_and(next_attempt_at IS NULL) FROM routines.webhook_deliveries"
ATTEMPTED = "SELECT count(*) > 0 AND bool_and(attempts <> '[]') FROM routines.webhook_deliveries"


@pytest.fixture
def start() -> datetime:
    """Return the time at which the test began, a moment before its webhooks are due."""
    return datetime.now(UTC)


def x_mise(secret: str, timestamp: str, body: bytes) -> str:
    """Compute HMAC by its definition (RFC 2104), without the hmac module: the oracle of the signatures."""
    key = secret.encode().ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + f"{timestamp}.".encode() + body).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()


async def test_a_thousand_bodies_are_verified_by_both_schemes(connection: Connection, database: Database) -> None:
    params = {"text": "Grüße, 世界 \N{ROCKET} \u2028 </script>", "deep": [{"a": [1.5, None, True]}]}
    async with receiver(answers(204)) as hook:
        routine = await routine_with_webhook(connection, hook.url, SECRET)
        await ended_runs(connection, routine, 1000, params=params)
        async with delivering(database, per_host=32):
            await until(connection, ALL_DELIVERED, seconds=60)
    assert len(hook.received) == 1000
    for request in hook.received:
        event = Webhook(SECRET).verify(request.body, request.headers)
        assert event["init_params"]["text"] == params["text"]
        assert request.headers["x-mise-trajectory-id"] == str(event["trajectory_id"])
        assert request.headers["x-mise-signature"] == x_mise(SECRET, request.headers["x-mise-timestamp"], request.body)
    assert len({request.headers["webhook-id"] for request in hook.received}) == 1000
    assert len({decoded(request.body)["init_params"]["n"] for request in hook.received}) == 1000


async def test_the_body_is_the_trajectory_of_the_api(connection: Connection, database: Database) -> None:
    async with receiver(answers(200)) as hook:
        await ended_runs(connection, await routine_with_webhook(connection, hook.url, "plain"))
        async with delivering(database):
            await until(connection, ALL_DELIVERED)
    [request] = hook.received
    key = await make_key(connection, "my-org")
    async with AsyncTestClient(create_app(api_settings(), database.url)) as client:
        path = f"/api/v1/db/trajectory/my-org/echo/{request.headers['x-mise-trajectory-id']}"
        shown = await client.get(path, headers={"Authorization": f"Bearer {key}"})
    assert decoded(request.body) == shown.json()
    assert decoded(request.body)["completed_steps"] == 1
    assert b"plain" not in request.body
    assert "content-encoding" not in request.headers


async def test_the_webhook_of_an_archived_run_tells_how_the_run_ended(
    connection: Connection, database: Database
) -> None:
    async with receiver(answers(200)) as hook:
        await ended_runs(connection, await routine_with_webhook(connection, hook.url))
        await connection.execute("UPDATE routines.trajectories SET status = 'archived'")
        async with delivering(database):
            await until(connection, ALL_DELIVERED)
    assert decoded(hook.received[0].body)["status"] == "completed"


@pytest.mark.parametrize("status", ["failed", "cancelled", "archived"])
async def test_every_final_status_has_a_webhook(connection: Connection, status: str) -> None:
    await ended_runs(connection, await routine_with_webhook(connection, "http://receiver.test/"))
    await connection.execute("DELETE FROM routines.webhook_deliveries")
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params, webhook_url)
           SELECT collection_id, task_id, 1, 'api', '{}', webhook_url FROM routines.trajectories""",
    )
    await connection.execute(
        "UPDATE routines.trajectories SET status = %s, ended_at = now() WHERE ended_at IS NULL", [status]
    )
    [delivery] = await claim(connection)
    assert decoded(await body_of(connection, delivery))["status"] == status


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        (answers(500, b"busy"), 500, "it answered 500"),
        (answers(302, Location="http://127.0.0.1/"), 302, "it answered 302"),
        (answers(404), 404, "it answered 404"),
        (hangs, None, "no complete answer within 15 s"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.05), None, "no complete answer within 15 s"),
        (
            endless(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
            None,
            "the answer is not valid HTTP, has too many headers, or was cut off",
        ),
        (closes_early, None, "the answer is not valid HTTP, has too many headers, or was cut off"),
    ],
    ids=["500", "302", "404", "hangs", "drips", "endless headers", "closes early"],
)
async def test_a_failure_is_recorded_and_retried_with_the_same_id_and_body(
    connection: Connection, database: Database, behaviour: object, status: int | None, error: str
) -> None:
    async with receiver(behaviour) as hook, delivering(database, timeout_seconds=0.5):  # pyright: ignore[reportArgumentType]
        await ended_runs(connection, await routine_with_webhook(connection, hook.url, SECRET))
        await until(connection, ATTEMPTED)
        await connection.execute("UPDATE routines.webhook_deliveries SET next_attempt_at = now()")
        # Changes to the run after its end do not change the webhook.
        await connection.execute('UPDATE routines.trajectories SET labels = \'[{"key": "late"}]\'')
        await until(connection, "SELECT failures = 2 FROM routines.webhook_deliveries")
    made = await attempts(connection)
    assert [(each["status"], each["error"]) for each in made] == [(status, error)] * 2
    assert not await value(connection, "SELECT delivered_at FROM routines.webhook_deliveries")
    first, second = hook.received
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)


async def test_a_failed_attempt_keeps_what_was_answered_without_the_signing_secret(
    connection: Connection, database: Database
) -> None:
    said = answers(503, b"try again, " + SECRET.encode() + b"! " + b"x" * 5000, Retry_After="9", Set_Cookie="a=b")
    async with receiver(said) as hook, delivering(database):
        await ended_runs(connection, await routine_with_webhook(connection, hook.url, SECRET))
        for failures in range(1, 5):
            await until(connection, f"SELECT failures = {failures} FROM routines.webhook_deliveries")
            await connection.execute("UPDATE routines.webhook_deliveries SET next_attempt_at = now()")
        await until(connection, "SELECT failures = 5 FROM routines.webhook_deliveries")
    made = await attempts(connection)
    assert [each["status"] for each in made] == [503] * 5
    assert ["answer" in each for each in made] == [False, False, True, True, True]
    kept = made[-1]["answer"]
    assert (kept["status"], kept["headers"]["retry-after"], kept["truncated"]) == (503, "9", True)
    assert kept["body"].startswith("try again, ********! xxx")
    assert (len(kept["body"]), "set-cookie" in kept["headers"]) == (4096, False)


async def test_a_very_long_signing_secret_is_not_looked_for_where_leases_are_held(
    connection: Connection, database: Database
) -> None:
    secret = "********a" * 8000
    async with receiver(answers(503, secret.encode()[:9000])) as hook, delivering(database):
        await ended_runs(connection, await routine_with_webhook(connection, hook.url, secret))
        await until(connection, "SELECT failures = 1 FROM routines.webhook_deliveries")
    [made] = await attempts(connection)
    assert made["answer"] == {"status": 503, "headers": {}, "body": "", "truncated": True}


async def test_a_delivered_webhook_keeps_nothing_of_the_answer(connection: Connection, database: Database) -> None:
    async with receiver(answers(200, b"thank you")) as hook, delivering(database):
        await ended_runs(connection, await routine_with_webhook(connection, hook.url))
        await until(connection, "SELECT delivered_at IS NOT NULL FROM routines.webhook_deliveries")
    [made] = await attempts(connection)
    assert sorted(made) == ["at", "duration_seconds", "error", "status"]


async def test_a_decompression_bomb_counts_as_success_and_is_not_unpacked(
    connection: Connection, database: Database
) -> None:
    bomb = endless(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 100000000000\r\n\r\n", b"\x1f\x8b" * 999
    )
    async with receiver(bomb) as hook, delivering(database):
        await ended_runs(connection, await routine_with_webhook(connection, hook.url))
        await until(connection, ALL_DELIVERED)


async def test_a_receiver_down_for_a_day_gets_its_event_once(connection: Connection, start: datetime) -> None:
    """Moves the clock: each attempt is claimed and recorded at the time that the schedule names."""
    await ended_runs(connection, await routine_with_webhook(connection, "http://receiver.test/"))
    received: list[str] = []
    now = start
    while next_at := await value(connection, "SELECT next_attempt_at FROM routines.webhook_deliveries"):
        assert isinstance(next_at, datetime)
        assert await claim(connection, now=next_at - timedelta(seconds=1)) == []
        now = max(now, next_at)
        [delivery] = await claim(connection, now=now)
        is_down = now - start < timedelta(days=1)
        received += [] if is_down else [delivery.event_id]
        wait = delay_seconds(delivery.failures + 1, jitter=0.5)
        outcome = FAILED if is_down else Outcome(200, None)
        assert await settle(connection, delivery, outcome, delay_seconds=wait, now=now)
    assert len(received) == 1
    assert len(await attempts(connection)) == 8
    assert await value(connection, "SELECT count(*) FROM routines.webhook_endpoints") == 0


async def test_after_the_last_attempt_it_is_given_up_with_the_reason(connection: Connection, start: datetime) -> None:
    await ended_runs(connection, await routine_with_webhook(connection, "http://receiver.test/"))
    now = start + timedelta(minutes=1)
    for _ in DELAYS_SECONDS:
        [delivery] = await claim(connection, now=now)
        wait = delay_seconds(delivery.failures + 1, jitter=0)
        await settle(connection, delivery, FAILED, delay_seconds=wait, now=now)
        now += timedelta(seconds=wait or 0)
    assert await value(connection, "SELECT next_attempt_at FROM routines.webhook_deliveries") is None
    assert await value(connection, "SELECT give_up_reason FROM routines.webhook_deliveries") == "it answered 500"


async def test_two_workers_never_send_the_same_attempt_twice(connection: Connection, database: Database) -> None:
    async with receiver(answers(200)) as hook:
        await ended_runs(connection, await routine_with_webhook(connection, hook.url), 200)
        async with delivering(database, count=3):
            await until(connection, ALL_DELIVERED)
    ids = Counter(request.headers["webhook-id"] for request in hook.received)
    assert (len(ids), set(ids.values())) == (200, {1})


async def test_two_simultaneous_claims_share_no_delivery(connection: Connection, database: Database) -> None:
    await ended_runs(connection, await routine_with_webhook(connection, "http://receiver.test/"), 100)
    async with connect(database.url, "other") as other:
        claims = await asyncio.gather(
            *(claim(each, capacity=100, per_host=100, per_collection=100) for each in (connection, other))
        )
    ids = [each.id for some in claims for each in some]
    assert len(ids) == len(set(ids))


async def test_late_writes_of_a_worker_that_lost_a_delivery_change_nothing(
    connection: Connection, start: datetime
) -> None:
    await ended_runs(connection, await routine_with_webhook(connection, "http://receiver.test/"))
    [lost] = await claim(connection)
    [ours] = await claim(connection, now=start + timedelta(hours=1))
    assert (ours.id, ours.event_id, ours.failures) == (lost.id, lost.event_id, 1)
    assert not await settle(connection, lost, Outcome(200, None))
    assert not await deliveries.prepare(connection, [lost], most_together=None)
    assert await deliveries.release(connection, [lost]) == 0
    [attempt] = await attempts(connection)
    assert attempt["error"] == "the worker was lost: it is unknown whether it arrived"
    assert await settle(connection, ours, Outcome(200, None))


async def test_a_hanging_receiver_delays_no_other(connection: Connection, database: Database) -> None:
    async with receiver(hangs) as slow, receiver(answers(200)) as quick:
        await ended_runs(connection, await routine_with_webhook(connection, slow.url, name="slow"), 300)
        await ended_runs(connection, await routine_with_webhook(connection, quick.url, name="quick"), 50)
        async with delivering(database, timeout_seconds=30, per_host=4):
            await until(
                connection, "SELECT count(*) = 50 FROM routines.webhook_deliveries WHERE delivered_at IS NOT NULL"
            )
            assert len(slow.received) == 4


async def test_hosts_and_collections_take_turns_and_get_no_more_than_their_share(connection: Connection) -> None:
    for name, count in (("a", 30), ("b", 30), ("c", 1)):
        routine = await routine_with_webhook(connection, f"http://{name}.test/", name=name)
        await ended_runs(connection, routine, count)
    first = await claim(connection, capacity=7, per_host=3)
    assert Counter(each.url for each in first) == {"http://a.test/": 3, "http://b.test/": 3, "http://c.test/": 1}
    assert await claim(connection, per_host=3) == []
    assert len(await claim(connection, per_host=5, per_collection=9)) == 2


async def test_410_stops_the_endpoint_at_once_and_gives_up_what_is_due_there(
    connection: Connection, database: Database
) -> None:
    async with receiver(answers(410)) as gone, delivering(database, per_host=1):
        await ended_runs(connection, await routine_with_webhook(connection, gone.url), 3)
        await until(connection, NONE_DUE)
    assert gone.connections == 1
    cursor = await connection.execute("SELECT give_up_reason FROM routines.webhook_deliveries ORDER BY 1")
    stopped = "the endpoint is stopped: it answered 410: gone"
    assert [reason for (reason,) in await cursor.fetchall()] == ["it answered 410", stopped, stopped]


async def test_four_days_of_failure_stop_the_endpoint_and_a_success_restarts_the_count(
    connection: Connection, start: datetime
) -> None:
    routine = await routine_with_webhook(connection, "http://receiver.test/")
    stopped_at = "SELECT stopped_at FROM routines.webhook_endpoints"
    for day, outcome in [
        (0, FAILED),
        (3, FAILED),
        (3.5, Outcome(200, None)),
        (4, FAILED),
        (7.9, FAILED),
        (8.1, FAILED),
    ]:
        await ended_runs(connection, routine)
        now = start + timedelta(days=day, minutes=1)
        [delivery] = await claim(connection, now=now, capacity=1)
        await settle(connection, delivery, outcome, now=now, delay_seconds=None)
        assert (await value(connection, stopped_at) is not None) == (day == 8.1), day
    await ended_runs(connection, routine)
    assert await claim(connection, now=start + timedelta(days=9)) == []
    assert await deliveries.give_up_stopped(connection, batch_size=10) == 1


async def test_a_failure_on_our_side_stops_no_endpoint(connection: Connection, database: Database) -> None:
    async with receiver(answers(200)) as hook, delivering(database):
        routine = await routine_with_webhook(connection, hook.url, SECRET)
        await connection.execute("UPDATE routines.secrets SET ciphertext = ciphertext || '\\x00'")
        await ended_runs(connection, routine)
        good = await routine_with_webhook(connection, hook.url, "good", name="good")
        await ended_runs(connection, good)
        await until(connection, ATTEMPTED)
    bad = (await attempts(connection))[0]
    assert bad["error"].startswith("it cannot be signed: Secret ")
    assert (bad["status"], len(hook.received)) == (None, 1)
    assert await value(connection, "SELECT count(*) FROM routines.webhook_endpoints") == 0


async def test_a_private_address_is_refused_and_the_record_names_the_setting_that_allows_it(
    connection: Connection, database: Database
) -> None:
    async with receiver(answers(200)) as inside, delivering(database, allow_private=False):
        await ended_runs(connection, await routine_with_webhook(connection, inside.url))
        await until(connection, ATTEMPTED)
    assert "ROUTINES_WEBHOOK_ALLOW_PRIVATE=true" in (await attempts(connection))[0]["error"]
    assert inside.connections == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/", "http://xn--a/", "http://[v1.a]/", "http://a..b/"])
async def test_a_url_that_cannot_be_called_fails_like_any_other(
    connection: Connection, database: Database, url: str
) -> None:
    async with delivering(database):
        await ended_runs(connection, await routine_with_webhook(connection, url))
        await until(connection, ATTEMPTED)
    assert await value(connection, "SELECT failures = 1 FROM routines.webhook_deliveries")


async def test_the_webhook_of_a_deleted_task_carries_its_last_name(connection: Connection, database: Database) -> None:
    async with receiver(answers(200)) as hook:
        await ended_runs(connection, await routine_with_webhook(connection, hook.url))
        await connection.execute("DELETE FROM routines.routines")
        await connection.execute("DELETE FROM routines.tasks")
        async with delivering(database):
            await until(connection, ALL_DELIVERED)
    assert msgspec.json.decode(hook.received[0].body)["name"] == "my-org/echo"


async def test_a_secret_that_only_its_webhook_needs_is_deleted_with_it(connection: Connection) -> None:
    routine = await routine_with_webhook(connection, "http://receiver.test/", SECRET)
    await ended_runs(connection, routine, 2)
    await connection.execute("UPDATE routines.routines SET webhook_secret_id = NULL")
    for delivery, left in zip(await claim(connection), (1, 0), strict=True):
        await settle(connection, delivery, Outcome(200, None))
        assert await value(connection, "SELECT count(*) FROM routines.secrets") == left


async def test_when_two_webhooks_end_at_once_the_second_deletes_their_secret(
    connection: Connection, database: Database
) -> None:
    routine = await routine_with_webhook(connection, "http://receiver.test/", SECRET)
    await ended_runs(connection, routine, 2)
    await connection.execute("UPDATE routines.routines SET webhook_secret_id = NULL")
    one, two = await claim(connection)
    async with connect(database.url, "other") as other:
        async with connection.transaction():
            await settle(connection, one, Outcome(200, None))
            second = asyncio.create_task(settle(other, two, Outcome(200, None)))
            await until(
                connection,
                "SELECT count(*) > 0 FROM pg_stat_activity "
                "WHERE wait_event_type = 'Lock' AND datname = current_database()",
            )
        assert await second
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 0


async def test_a_worker_that_stops_gives_back_its_deliveries(connection: Connection, database: Database) -> None:
    async with receiver(hangs) as hook:
        await ended_runs(connection, await routine_with_webhook(connection, hook.url))
        async with delivering(database, timeout_seconds=60):
            await until(connection, "SELECT claimed_at IS NOT NULL FROM routines.webhook_deliveries")
    assert await value(connection, "SELECT claimed_at IS NULL AND failures = 0 FROM routines.webhook_deliveries")
    [again] = await claim(connection)
    assert (await attempts(connection))[0]["error"] == "the worker was stopped before the attempt ended"
    assert again.failures == 0


async def test_at_most_fifty_attempts_are_kept(connection: Connection) -> None:
    await ended_runs(connection, await routine_with_webhook(connection, "http://receiver.test/"))
    for status in range(60):
        [delivery] = await claim(connection)
        await settle(connection, delivery, Outcome(status, "it failed"), delay_seconds=0)
    assert [each["status"] for each in await attempts(connection)] == list(range(10, 60))


async def test_an_endpoint_of_another_collection_is_not_touched(connection: Connection) -> None:
    await ended_runs(connection, await routine_with_webhook(connection, "http://receiver.test/"))
    await connection.execute(
        """INSERT INTO routines.webhook_endpoints (collection_id, url, failing_since, stopped_at, stopped_reason)
           VALUES (999, 'http://receiver.test/', now(), now(), 'it answered 410: gone')"""
    )
    [delivery] = await claim(connection)
    await settle(connection, delivery, Outcome(200, None))
    assert await value(connection, "SELECT count(*) FROM routines.webhook_endpoints") == 1


async def test_setting_the_url_again_restarts_a_stopped_endpoint(connection: Connection) -> None:
    await routine_with_webhook(connection, "http://receiver.test/")
    await connection.execute(
        """INSERT INTO routines.webhook_endpoints (collection_id, url, failing_since, stopped_at, stopped_reason)
           SELECT id, 'http://receiver.test/', now(), now(), 'it answered 410: gone' FROM routines.collections"""
    )
    await connection.execute("UPDATE routines.routines SET webhook_url = webhook_url, paused = true")
    assert await value(connection, "SELECT count(*) FROM routines.webhook_endpoints") == 1
    await routine_with_webhook(connection, "http://receiver.test/", name="other")
    assert await value(connection, "SELECT count(*) FROM routines.webhook_endpoints") == 0


async def test_the_secret_is_not_in_what_is_stored(connection: Connection, database: Database) -> None:
    async with receiver(answers(200)) as hook, delivering(database):
        await ended_runs(connection, await routine_with_webhook(connection, hook.url, "very-secret-indeed"))
        await until(connection, ALL_DELIVERED)
    kept = await value(
        connection, "SELECT webhook_deliveries::text || encode(body, 'escape') FROM routines.webhook_deliveries"
    )
    assert "very-secret-indeed" not in str(kept)
    assert hmac.compare_digest(
        hook.received[0].headers["x-mise-signature"],
        x_mise("very-secret-indeed", hook.received[0].headers["x-mise-timestamp"], hook.received[0].body),
    )
    assert msgspec.json.decode(hook.received[0].body)["webhook_url"] == hook.url
