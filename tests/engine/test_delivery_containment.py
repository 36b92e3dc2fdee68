"""No run and no receiver of one collection keeps the webhooks of another from being sent, or its own from ending."""

import time
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from routines_core.db import Connection, deliveries
from routines_core.db.deliveries import MAX_BODY_BYTES, MAX_VALUE_BYTES, MOST_LANES, Outcome
from routines_engine.webhooks.retry_schedule import DELAYS_SECONDS, MOST_ATTEMPTS
from support.outbox import (
    attempts,
    body_of,
    claim,
    decoded,
    delivering,
    due_webhooks,
    settle,
    until,
)
from support.plans import buffers, explained
from support.receivers import answers, hangs, receiver
from support.rows import Database, value

URL = "http://receiver.test/"
DELIVERED_TO_BETA = """
    SELECT bool_and(delivered_at IS NOT NULL) FROM routines.webhook_deliveries
    JOIN routines.collections ON collections.id = collection_id WHERE name = 'beta'"""
BLOCKS_OF_A_BODY = MAX_BODY_BYTES // 8192


async def add_steps(connection: Connection, outputs: str, count: int, *, inputs: str = "'{}'") -> None:
    """Give the newest run of `alpha` steps, whose values are SQL expressions of the step's number `n`."""
    await connection.execute(
        f"""INSERT INTO routines.steps (trajectory_id, name, position, fence, status, activity, inputs, outputs,
                                        ended_at)
            SELECT (SELECT max(trajectories.id) FROM routines.trajectories
                    JOIN routines.collections ON collections.id = collection_id WHERE collections.name = 'alpha'),
                   's' || n, n, 1, 'completed', 'text_echo', {inputs}, {outputs}, now()
            FROM generate_series(0, {count - 1}) AS n""".encode()
    )


def noise(kibibytes: int) -> str:
    """Return an SQL expression for a JSON object with so much text that does not compress."""
    text = "string_agg(md5(n || ':' || m), '')"
    return f"(SELECT jsonb_build_object('text', {text}) FROM generate_series(1, {kibibytes} * 32) AS m)"


async def test_a_huge_body_is_bounded_and_says_what_is_left_out(connection: Connection) -> None:
    await due_webhooks(connection, "alpha", [URL])
    await add_steps(connection, f"CASE WHEN n = 38 THEN {noise(300)} ELSE {noise(60)} END", 40, inputs="'{\"a\": 1}'")
    [delivery] = await claim(connection)
    body = await body_of(connection, delivery)
    assert MAX_BODY_BYTES - MAX_VALUE_BYTES < len(body) <= MAX_BODY_BYTES
    event = decoded(body)
    steps = event["steps"]
    assert list(steps) == [f"s{n}" for n in range(40)]
    assert event["truncated"] is True
    # The results of the last steps are there, except one that is too large; those of the first found no room.
    assert len(steps["s39"]["outputs"]["text"]) == 60 * 1024
    assert "truncated" not in steps["s39"]
    assert (steps["s38"]["outputs"], steps["s38"]["truncated"]) == (None, True)
    assert (steps["s0"]["outputs"], steps["s0"]["truncated"]) == (None, True)
    assert {str(step["inputs"]) for step in steps.values()} == {"{'a': 1}"}
    assert event["completed_steps"] == 40


async def test_a_body_of_very_many_steps_is_bounded(connection: Connection) -> None:
    await due_webhooks(connection, "alpha", [URL])
    await add_steps(connection, "'{}'", 10_000)
    [delivery] = await claim(connection)
    body = await body_of(connection, delivery)
    assert len(body) <= MAX_BODY_BYTES
    event = decoded(body)
    assert (event["truncated"], "s9999" in event["steps"], "s0" in event["steps"]) == (True, True, False)
    assert event["completed_steps"] == 10_000


async def test_large_parameters_and_labels_are_left_out_too(connection: Connection) -> None:
    await due_webhooks(connection, "alpha", [URL])
    await connection.execute(
        b"""UPDATE routines.trajectories SET init_params = jsonb_build_object('p', repeat('x', 300000)),
                   labels = jsonb_build_array(repeat('y', 300000))"""
    )
    [delivery] = await claim(connection)
    event = decoded(await body_of(connection, delivery))
    assert (event["init_params"], event["labels"], event["truncated"]) == (None, None, True)


async def test_values_that_are_left_out_are_not_read(connection: Connection) -> None:
    await due_webhooks(connection, "alpha", [URL])
    await add_steps(connection, noise(600), 30)
    [delivery] = await claim(connection)
    parameters: dict[str, Any] = {
        "ids": [delivery.id],
        "fences": [delivery.fence],
        "most_value_bytes": MAX_VALUE_BYTES,
        "most_bytes": MAX_BODY_BYTES,
        "most_together": None,
    }
    async with connection.transaction(force_rollback=True):  # so that the session has read the catalogues it needs
        await explained(connection, "deliveries.prepare", **parameters)
    plan = await explained(connection, "deliveries.prepare", **parameters)
    assert buffers(plan) < 2 * BLOCKS_OF_A_BODY  # the values take 2,250 blocks


async def test_after_a_few_values_that_prove_large_when_written_none_is_read(connection: Connection) -> None:
    """1e400, which only an activity can make, is short in the table and has 401 digits in the body: that takes time."""
    await due_webhooks(connection, "alpha", [URL])
    large = "jsonb_build_object('n', array_fill(1e400::numeric, ARRAY[2000]))"
    await add_steps(connection, f"CASE WHEN n BETWEEN 4 AND 9 THEN {large} ELSE '{{}}' END", 12)
    [delivery] = await claim(connection)
    event = decoded(await body_of(connection, delivery))
    read = [name for name, step in event["steps"].items() if step["inputs"] is not None]
    assert read == ["s7", "s8", "s9", "s10", "s11"]  # the outputs of s9 to s6 have proved too large
    assert {name for name, step in event["steps"].items() if step["outputs"] is not None} == {"s10", "s11"}


async def test_a_large_body_is_loaded_by_itself(connection: Connection) -> None:
    for kibibytes in (1, 100):
        await due_webhooks(connection, "alpha", [URL])
        await add_steps(connection, noise(kibibytes), 1)
    small, large = claimed = await claim(connection)
    for _ in range(2):  # to be built, and stored
        together = await deliveries.prepare(connection, claimed, most_together=64 * 1024)
        assert [together[each.id] is None for each in (small, large)] == [False, True]
        assert len(await body_of(connection, large)) > 100 * 1024


@pytest.mark.parametrize("fault", ["PERFORM pg_sleep(60)", "RAISE EXCEPTION 'it is broken'"])
async def test_a_run_that_cannot_be_loaded_fails_its_own_webhook_alone(
    connection: Connection, database: Database, fault: str
) -> None:
    async with receiver(answers(200)) as hook:
        await due_webhooks(connection, "alpha", [hook.url], 6)
        await due_webhooks(connection, "beta", [hook.url], 3)
        await connection.execute("ALTER FUNCTION routines.webhook_body RENAME TO sound_body")
        await connection.execute(
            f"""CREATE FUNCTION routines.webhook_body(run bigint, status text, one integer, most integer) RETURNS text
                LANGUAGE plpgsql AS $$ BEGIN
                    IF run IN (SELECT min(id) + 2 FROM routines.trajectories) THEN {fault}; END IF;
                    RETURN routines.sound_body(run, status, one, most);
                END $$""".encode()
        )
        async with delivering(database, load_seconds=0.5):
            await until(
                connection, "SELECT count(*) = 8 FROM routines.webhook_deliveries WHERE delivered_at IS NOT NULL"
            )
            await until(connection, "SELECT sum(failures) = 1 FROM routines.webhook_deliveries")
    failed = "FROM routines.webhook_deliveries WHERE delivered_at IS NULL"
    assert await value(connection, f"SELECT count(*) {failed} AND claimed_at IS NULL") == 1
    assert str(await value(connection, f"SELECT attempts -> 0 ->> 'error' {failed}")).startswith(
        "its run could not be loaded ("
    )
    delay = await value(connection, f"SELECT extract(epoch FROM next_attempt_at - now())::float8 {failed}")
    assert isinstance(delay, float)
    assert 0 < delay <= 1.1 * DELAYS_SECONDS[1]
    assert await value(connection, "SELECT count(*) FROM routines.webhook_endpoints") == 0


async def test_a_webhook_that_costs_every_worker_is_given_up(connection: Connection) -> None:
    await due_webhooks(connection, "alpha", [URL])
    now = datetime.now(UTC) + timedelta(minutes=1)
    for lost in range(MOST_ATTEMPTS):
        [delivery] = await claim(connection, now=now)
        assert delivery.failures == lost
        now += timedelta(minutes=2)
    assert await claim(connection, now=now) == []
    reason = "the worker was lost: it is unknown whether it arrived"
    assert await value(connection, "SELECT give_up_reason FROM routines.webhook_deliveries") == reason
    assert [each["error"] for each in await attempts(connection)] == [reason] * MOST_ATTEMPTS


async def test_slow_receivers_of_others_delay_no_first_webhook(connection: Connection, database: Database) -> None:
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(receiver(hangs)) for _ in range(12)]
        quick = await stack.enter_async_context(receiver(answers(200)))
        await due_webhooks(connection, "alpha", [each.url for each in slow], 3000)
        await due_webhooks(connection, "gamma", [each.url for each in slow], 3000)
        await stack.enter_async_context(delivering(database, timeout_seconds=60))
        await until(connection, "SELECT count(*) >= 64 FROM routines.webhook_deliveries WHERE claimed_at IS NOT NULL")
        for _ in range(3):
            started_at = time.monotonic()
            await due_webhooks(connection, "beta", [quick.url])
            await until(connection, DELIVERED_TO_BETA)
            assert time.monotonic() - started_at < 5
        assert sum(len(each.received) for each in slow) >= 64
        # What the others hold, they hold for the whole test.
        held = "SELECT count(*) FROM routines.webhook_deliveries WHERE claimed_at IS NOT NULL"
        assert 64 <= int(str(await value(connection, held))) < 96


async def test_the_more_a_collection_holds_the_more_must_stay_free(connection: Connection) -> None:
    urls = [f"http://h{n}.test/" for n in range(20)]
    claim_of = partial(claim, connection, reserve=32, per_host=8, per_collection=64)
    await due_webhooks(connection, "alpha", urls, 200)
    assert len(await claim_of(capacity=96)) == 64
    await due_webhooks(connection, "beta", urls, 200)
    assert len(await claim_of(capacity=32)) == 7  # the eighth would have to leave 28 of 25
    assert await claim_of(capacity=25) == []
    await due_webhooks(connection, "gamma", urls, 200)
    assert len(await claim_of(capacity=1)) == 1
    assert await claim_of(capacity=0) == []


async def test_a_claim_serves_those_first_that_hold_least(connection: Connection) -> None:
    urls = [f"http://h{n}.test/" for n in range(20)]
    await due_webhooks(connection, "alpha", urls, 200)
    alpha = {each.collection_id for each in await claim(connection, capacity=30)}
    await due_webhooks(connection, "beta", urls, 200)
    assert not alpha & {each.collection_id for each in await claim(connection, capacity=30)}
    assert sorted(Counter(each.collection_id for each in await claim(connection, capacity=10)).values()) == [5, 5]


async def test_a_collection_with_very_many_receivers_makes_no_claim_slow_and_reaches_them_all(
    connection: Connection,
) -> None:
    read: list[int] = []
    limits = {"capacity": 0, "reserve": 0, "per_host": 8, "per_collection": 64, "lease_seconds": 60, "now": None}
    parameters = {**limits, "most_lanes": MOST_LANES, "most_failures": MOST_ATTEMPTS, "is_traced": False}
    for first, last in ((0, MOST_LANES + 20), (MOST_LANES + 20, 3000)):
        urls = [f"http://h{n}.test/" for n in range(first, last)]
        await due_webhooks(connection, "alpha", urls, last - first)
        await connection.execute("VACUUM (ANALYZE) routines.webhook_deliveries")
        read.append(buffers(await explained(connection, "deliveries.claim", **parameters)))
        if first == 0:
            reached: set[str] = set()
            for _ in range(100):
                some = await claim(connection, capacity=50)
                for each in some:
                    await settle(connection, each, Outcome(500, "it answered 500"), delay_seconds=0)
                reached |= {each.url for each in some}
            assert reached == set(urls)
    assert read[1] < 2 * read[0] + 200, read
