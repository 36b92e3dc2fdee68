"""Retries of scheduled runs: when one is inserted, what it is, and what becomes of its slot."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.errors import CheckViolation, UniqueViolation
from psycopg.types.json import Jsonb

from routines_core.db import Connection, runs
from routines_core.db.runs import Checkpoint, Claim, StepRecord
from support.rows import make_routine, make_task, value
from support.stepping import tick_at

TWICE = {"max_attempts": 2, "backoff": [60]}
RETRY = "SELECT {} FROM routines.trajectories WHERE trigger = 'retry' ORDER BY id DESC LIMIT 1"
STEP = StepRecord("ask", 0, "failed", "http_request", {}, error="no response")


@pytest.fixture
async def routine(connection: Connection) -> int:
    """Create an hourly routine, and return its id."""
    return await make_routine(connection, await make_task(connection), datetime.now().astimezone(), hourly=True)


async def fire(connection: Connection, routine: int, retry: dict[str, Any] | None = None) -> int:
    """Fire the routine now, with its next slot in an hour. Returns the run."""
    await connection.execute("UPDATE routines.routines SET retry = %s WHERE id = %s", [retry and Jsonb(retry), routine])
    now = await value(connection, "SELECT now()")
    assert isinstance(now, datetime)
    await connection.execute("UPDATE routines.routines SET next_run_at = %s WHERE id = %s", [now, routine])
    assert (await tick_at(connection, now)).fired == 1
    await connection.execute(
        "UPDATE routines.routines SET next_run_at = now() + interval '1 hour' WHERE id = %s", [routine]
    )
    run = await value(connection, "SELECT max(id) FROM routines.trajectories")
    assert isinstance(run, int)
    return run


async def claimed(connection: Connection) -> Claim:
    [run] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600)
    return run


async def fail(connection: Connection, step: StepRecord = STEP) -> int:
    """Claim the pending run and let it fail in this step. Returns the run."""
    run = await claimed(connection)
    end = Checkpoint(run.id, run.fence, [step], "failed", f"step 'ask' failed: {step.error}")
    assert await runs.write(connection, [end], lease_seconds=60) == {run.id}
    return run.id


async def begin_retry(connection: Connection) -> None:
    """Let the time of the waiting retry come."""
    await connection.execute(
        "UPDATE routines.trajectories SET lease_expires_at = now() WHERE trigger = 'retry' AND ended_at IS NULL"
    )
    await runs.reap(connection)


async def wait_seconds(connection: Connection) -> int | None:
    """Return how long the newest retry waits."""
    found = await value(connection, RETRY.format("extract(epoch FROM lease_expires_at - created_at)::integer"))
    assert found is None or isinstance(found, int)
    return found


async def retries(connection: Connection) -> object:
    return await value(connection, "SELECT count(*) FROM routines.trajectories WHERE trigger = 'retry'")


async def test_a_run_that_fails_is_retried_by_a_run_of_its_own(connection: Connection, routine: int) -> None:
    first = await fire(connection, routine, TWICE)
    await connection.execute('UPDATE routines.trajectories SET init_params = \'{"text": "this run"}\'')
    assert await fail(connection) == first
    cursor = await connection.execute(
        "SELECT retry_of, retry_number, triggered_by_routine_id, scheduled_for, status, started_at, worker, "
        "init_params, task_version FROM routines.trajectories WHERE trigger = 'retry'"
    )
    assert await cursor.fetchall() == [(first, 1, routine, None, "running", None, None, {"text": "this run"}, 1)]
    retried_by = await value(connection, "SELECT retried_by FROM routines.trajectories WHERE id = %s", first)
    assert retried_by == await value(connection, RETRY.format("id"))
    assert await wait_seconds(connection) == 60


async def test_a_retry_waits_for_its_time_and_then_counts_as_no_loss_of_a_worker(
    connection: Connection, routine: int
) -> None:
    await fire(connection, routine, TWICE)
    await fail(connection)
    assert await runs.reap(connection) == []
    assert await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600) == []
    await begin_retry(connection)
    retry = await claimed(connection)
    assert retry.is_scheduled
    assert 590 < retry.seconds_left <= 600
    assert await value(connection, RETRY.format("crashes")) == 0


async def test_the_attempts_are_counted_with_the_first(connection: Connection, routine: int) -> None:
    first = await fire(connection, routine, {"max_attempts": 3, "backoff": [5, 7]})
    await fail(connection)
    for number, seconds in [(1, 5), (2, 7)]:
        assert await value(connection, RETRY.format("retry_number")) == number
        assert await value(connection, RETRY.format("retry_of")) == first
        assert await wait_seconds(connection) == seconds
        await begin_retry(connection)
        await fail(connection)
    assert await retries(connection) == 2


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (None, [60, 120, 240, 480]),
        ([10, 20], [10, 20, 20, 20]),
        ({"initial": 1, "multiplier": 10, "max": 50}, [1, 10, 50, 50]),
        ({"initial": 1800}, [1800, 3600, 3600, 3600]),
    ],
)
async def test_the_delays_follow_the_backoff(connection: Connection, backoff: object, delays: list[int]) -> None:
    retry = {"max_attempts": 5} if backoff is None else {"max_attempts": 5, "backoff": backoff}
    for number, delay in enumerate(delays, 1):
        found = await value(connection, "SELECT routines.retry_delay(%s, %s)", Jsonb(retry), number)
        assert found == timedelta(seconds=delay)


@pytest.mark.parametrize("status", ["completed", "cancelled"])
async def test_only_a_failure_is_retried(connection: Connection, routine: int, status: str) -> None:
    await fire(connection, routine, TWICE)
    await connection.execute(
        "UPDATE routines.trajectories SET status = %s, ended_at = now(), lease_expires_at = NULL", [status]
    )
    assert await retries(connection) == 0


async def test_a_routine_without_a_retry_retries_nothing(connection: Connection, routine: int) -> None:
    await fire(connection, routine)
    await fail(connection)
    assert await retries(connection) == 0


async def test_a_run_now_is_not_retried(connection: Connection, routine: int) -> None:
    await connection.execute("UPDATE routines.routines SET retry = %s", [Jsonb(TWICE)])
    await connection.execute(
        "INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger, "
        "init_params) SELECT collection_id, task_id, 1, id, 'run-now', '{}' FROM routines.routines WHERE id = %s",
        [routine],
    )
    await fail(connection)
    assert await retries(connection) == 0


@pytest.mark.parametrize(("is_transient", "retried"), [(True, 1), (False, 0), (None, 0)])
async def test_transient_retries_only_failures_whose_cause_may_go_away(
    connection: Connection, routine: int, *, is_transient: bool | None, retried: int
) -> None:
    await fire(connection, routine, {**TWICE, "on": "transient"})
    await fail(connection, StepRecord("ask", 0, "failed", "http_request", {}, error="x", is_transient=is_transient))
    assert await retries(connection) == retried
    first = await value(connection, "SELECT is_transient FROM routines.trajectories ORDER BY id LIMIT 1")
    assert first is bool(is_transient)


async def test_lost_workers_and_a_passed_deadline_are_transient(connection: Connection, routine: int) -> None:
    await fire(connection, routine, {"max_attempts": 3, "backoff": [60], "on": "transient"})
    for _ in range(3):
        await claimed(connection)
        await connection.execute("UPDATE routines.trajectories SET lease_expires_at = now() WHERE status = 'running'")
        await runs.reap(connection)
    assert await retries(connection) == 1
    await begin_retry(connection)
    await claimed(connection)
    await connection.execute("UPDATE routines.trajectories SET deadline_at = now() WHERE trigger = 'retry'")
    await runs.reap(connection)
    assert await retries(connection) == 2


@pytest.mark.parametrize(
    ("until", "minutes_to_next", "retried"),
    [("next_slot", 2, 1), ("next_slot", 1, 0), ("next_slot", None, 1), (90, 1, 1), (59, 1, 0), (59, None, 0)],
)
async def test_no_retry_begins_after_its_end(
    connection: Connection, routine: int, until: object, minutes_to_next: int | None, retried: int
) -> None:
    await fire(connection, routine, {**TWICE, "until": until})
    if minutes_to_next is None:
        await connection.execute("UPDATE routines.routines SET ends_at = now() - interval '1 hour', next_run_at = NULL")
    else:
        await connection.execute(
            "UPDATE routines.routines SET next_run_at = now() + make_interval(mins => %s)", [minutes_to_next]
        )
    await fail(connection)
    assert await retries(connection) == retried


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"retry-after": "300"}, 300),
        (503, {"retry-after": "Mon, 01 Jun 2026 10:10:00 GMT", "date": "Mon, 01 Jun 2026 10:00:00 GMT"}, 600),
        (429, {"retry-after": "soon"}, 60),
        (429, {"retry-after": "Mon, 31 Feb 2026 10:10:00 GMT"}, 60),
        (429, {"retry-after": "30"}, 60),
        (429, {"x-ratelimit-reset": "120"}, 120),
        (429, {"ratelimit": '"default";r=0;t=200'}, 200),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "120"}, 120),
        (500, {"x-ratelimit-remaining": "7", "x-ratelimit-reset": "120"}, 60),
        (429, {"retry-after": "7200"}, None),
    ],
)
async def test_a_retry_comes_no_earlier_than_the_provider_wants(
    connection: Connection, routine: int, status: int, headers: dict[str, str], seconds: int | None
) -> None:
    await fire(connection, routine, TWICE)
    answer = {"status": status, "headers": headers, "body": "", "truncated": False}
    await fail(connection, StepRecord("ask", 0, "failed", "http_request", {}, error="x", answer=answer))
    assert await wait_seconds(connection) == seconds


@pytest.mark.parametrize(("days", "is_retried"), [(6, True), (8, False), (10_000, False)])
async def test_a_provider_cannot_keep_a_routine_without_a_next_slot_waiting_for_more_than_a_week(
    connection: Connection, routine: int, *, days: int, is_retried: bool
) -> None:
    await fire(connection, routine, TWICE)
    await connection.execute("UPDATE routines.routines SET ends_at = now() - interval '1 hour', next_run_at = NULL")
    answer = {"status": 429, "headers": {"retry-after": str(days * 86400)}, "body": "", "truncated": False}
    await fail(connection, StepRecord("ask", 0, "failed", "http_request", {}, error="x", answer=answer))
    assert (await wait_seconds(connection) is not None) == is_retried


@pytest.mark.parametrize(("factor", "reset"), [(1, "seconds"), (1000, "milliseconds")])
async def test_a_reset_may_be_a_time_since_1970(connection: Connection, factor: int, reset: str) -> None:
    del reset
    answer = Jsonb({"status": 429, "headers": {"x-ratelimit-reset": str(1_800_000_000 * factor)}})
    until = await value(connection, "SELECT routines.answered_until(%s, now()) = to_timestamp(1800000000)", answer)
    assert until is True


async def test_a_waiting_retry_holds_back_the_schedule(connection: Connection, routine: int) -> None:
    await fire(connection, routine, TWICE)
    await fail(connection)
    now = await value(connection, "SELECT now() + interval '61 minutes'")
    assert isinstance(now, datetime)
    assert (await tick_at(connection, now)).overlapped == 1
    blocking = await value(connection, "SELECT blocking_trajectory_id FROM routines.skips")
    assert blocking == await value(connection, RETRY.format("id"))


async def test_a_scheduled_run_next_to_a_retry_is_refused_at_psql_too(connection: Connection, routine: int) -> None:
    await fire(connection, routine, TWICE)
    await fail(connection)
    with pytest.raises(CheckViolation, match="has an active run"):
        await connection.execute(
            "INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, "
            "trigger, init_params, scheduled_for) "
            "SELECT collection_id, task_id, 1, id, 'schedule', '{}', '2026-01-01Z' FROM routines.routines"
        )


@pytest.mark.parametrize(
    ("end", "outcome"), [("completed", "completed"), ("failed", "failed"), ("cancelled", "cancelled")]
)
async def test_the_outcome_of_a_slot_is_that_of_its_last_attempt(
    connection: Connection, routine: int, end: str, outcome: str
) -> None:
    first = await fire(connection, routine, TWICE)
    await fail(connection)
    await begin_retry(connection)
    retry = (await claimed(connection)).id
    await connection.execute(
        "UPDATE routines.trajectories SET status = %s, error = 'the end', ended_at = now(), lease_expires_at = NULL "
        "WHERE id = %s",
        [end, retry],
    )
    cursor = await connection.execute("SELECT outcome, trajectory_id, last_trajectory_id FROM routines.occurrences")
    assert await cursor.fetchall() == [("started", first, retry)]
    status = await (await connection.execute("SELECT last_outcome, detail FROM routines.routine_status")).fetchall()
    assert status == [(outcome, "the end")]
    report = await connection.execute(
        "SELECT expected, started, completed, failed, cancelled, active "
        "FROM routines.report('my-org', now() - interval '1 hour', now())"
    )
    assert await report.fetchall() == [
        (1, 1, *(int(outcome == each) for each in ("completed", "failed", "cancelled")), 0)
    ]
    gaps = await connection.execute(
        "SELECT trajectory_id FROM routines.gaps('my-org/echo/morning', now() - interval '1 hour', now(), true)"
    )
    assert await gaps.fetchall() == ([(retry,)] if outcome == "failed" else [])
    success = await value(connection, "SELECT routines.last_success(%s, NULL) IS NOT NULL", routine)
    assert success is (outcome == "completed")


async def test_while_a_retry_waits_its_slot_is_neither_failed_nor_done(connection: Connection, routine: int) -> None:
    await fire(connection, routine, TWICE)
    await fail(connection)
    assert await value(connection, "SELECT last_outcome FROM routines.routine_status") == "running"
    assert await value(connection, "SELECT needs_attention FROM routines.routine_status") is False
    report = "SELECT array[active, failed] FROM routines.report('my-org', now() - interval '1 hour', now())"
    assert await value(connection, report) == [1, 0]


async def test_why_tells_of_every_attempt(connection: Connection, routine: int) -> None:
    first = await fire(connection, routine, {"max_attempts": 3, "backoff": [60]})
    await fail(connection)
    slot = await value(connection, "SELECT scheduled_for FROM routines.trajectories WHERE id = %s", first)
    why = "SELECT sentence FROM routines.explain_time(%s, %s)"
    retry = await value(connection, RETRY.format("id"))
    waiting = str(await value(connection, why, routine, slot))
    assert f"Started: run {first} at " in waiting
    assert "step 'ask' failed after 1 try: no response. " in waiting
    assert f" Retried: run {retry} at " in waiting
    begin = await value(connection, RETRY.format("routines.utc(lease_expires_at)"))
    assert waiting.endswith(f", to begin at {begin}.")
    await begin_retry(connection)
    await fail(connection)
    await begin_retry(connection)
    last = await claimed(connection)
    await runs.finish(connection, last, error=None)
    done = str(await value(connection, why, routine, slot))
    assert f" Retried 2 times, last: run {last.id} at " in done
    assert ", completed at " in done
    facts = await connection.execute(
        "SELECT trajectory_id, trajectory_status, last_trajectory_id, error FROM routines.explain_time(%s, %s)",
        [routine, slot],
    )
    assert await facts.fetchall() == [(first, "completed", last.id, None)]


async def test_a_retry_has_the_slot_of_the_first_run(connection: Connection, routine: int) -> None:
    await fire(connection, routine, TWICE)
    slot = await value(connection, "SELECT routines.utc(scheduled_for) FROM routines.trajectories")
    await fail(connection)
    values = await value(connection, RETRY.format("slot_values"))
    assert isinstance(values, dict)
    assert (values["scheduled_for"], values["trigger"]) == (slot, "schedule")


@pytest.mark.parametrize(
    ("change", "word"),
    [("UPDATE routines.routines SET paused = true", "paused"), ("DELETE FROM routines.routines", "deleted")],
)
async def test_a_pause_or_a_deletion_cancels_a_retry_that_has_not_begun(
    connection: Connection, routine: int, change: str, word: str
) -> None:
    await fire(connection, routine, TWICE)
    await fail(connection)
    await connection.execute(change.encode())
    assert await value(connection, RETRY.format("status")) == "cancelled"
    error = f"cancelled: its routine was {word} before the retry began"
    assert await value(connection, RETRY.format("error")) == error


@pytest.mark.parametrize("change", ["UPDATE routines.routines SET paused = true", "DELETE FROM routines.routines"])
async def test_a_run_that_fails_in_a_pause_or_after_the_deletion_is_not_retried(
    connection: Connection, routine: int, change: str
) -> None:
    await fire(connection, routine, TWICE)
    await connection.execute(change.encode())
    await fail(connection)
    assert await retries(connection) == 0


async def test_a_pause_leaves_a_retry_that_has_begun_alone(connection: Connection, routine: int) -> None:
    await fire(connection, routine, TWICE)
    await fail(connection)
    await begin_retry(connection)
    await claimed(connection)
    await connection.execute("UPDATE routines.routines SET paused = true")
    assert await value(connection, RETRY.format("status")) == "running"


async def test_only_the_last_attempt_sends_a_webhook(connection: Connection, routine: int) -> None:
    await connection.execute("UPDATE routines.routines SET webhook_url = 'https://example.com/hook'")
    first = await fire(connection, routine, TWICE)
    await fail(connection)
    assert await value(connection, "SELECT count(*) FROM routines.webhook_deliveries") == 0
    await begin_retry(connection)
    retry = await fail(connection)
    sent = await connection.execute(
        "SELECT trajectory_id, event_status, "
        "routines.webhook_body(trajectory_id, event_status, 1000, 10000)::json ->> 'retry_of' "
        "FROM routines.webhook_deliveries"
    )
    assert await sent.fetchall() == [(retry, "failed", str(first))]


async def test_a_retry_keeps_the_secrets_until_it_has_ended(connection: Connection, routine: int) -> None:
    secret = "11111111-1111-1111-1111-111111111111"
    await connection.execute(
        "INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext) "
        "SELECT %s, id, 'secret_param', 'token', '', 'k1', '' FROM routines.collections",
        [secret],
    )
    await connection.execute("UPDATE routines.routines SET secret_refs = %s", [Jsonb({"token": secret})])
    await fire(connection, routine, TWICE)
    await connection.execute("UPDATE routines.routines SET secret_refs = '{}'")
    await fail(connection)
    assert await value(connection, RETRY.format("secret_refs")) == {"token": secret}
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 1
    await begin_retry(connection)
    await fail(connection)
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 0


async def test_a_retry_uses_the_files_of_the_run(connection: Connection, routine: int) -> None:
    await fire(connection, routine, TWICE)
    path = f"{'0' * 32}-a.txt"
    await connection.execute("UPDATE routines.trajectories SET init_params = %s", [Jsonb({"text": path})])
    await fail(connection)
    used = "SELECT count(*) FROM routines.file_uses WHERE trajectory_id = (SELECT max(id) FROM routines.trajectories)"
    assert await value(connection, used) == 1


@pytest.mark.parametrize(
    ("retry", "message"),
    [
        ([], "retry: must be an object of max_attempts, backoff, on and until"),
        ({"max_attempts": 2, "tries": 1}, "retry: must be an object"),
        ({}, "retry.max_attempts: must be 2 to 20, the first attempt included"),
        ({"max_attempts": 1}, "retry.max_attempts: must be 2 to 20"),
        ({"max_attempts": 21}, "retry.max_attempts: must be 2 to 20"),
        ({"max_attempts": 2.5}, "retry.max_attempts: must be 2 to 20"),
        ({**TWICE, "on": "never"}, "retry.on: must be any or transient"),
        ({**TWICE, "until": "ever"}, "retry.until: must be next_slot, or 1 to 604800 seconds"),
        ({**TWICE, "until": 0}, "retry.until: must be next_slot"),
        ({**TWICE, "backoff": []}, "retry.backoff: must be 1 to 20 delays of 0 to 86400 seconds"),
        ({**TWICE, "backoff": [86401]}, "retry.backoff: must be 1 to 20 delays"),
        ({**TWICE, "backoff": 5}, "retry.backoff: must be an array of seconds, or an object"),
        ({**TWICE, "backoff": {"first": 1}}, "retry.backoff: takes initial, multiplier and max"),
        ({**TWICE, "backoff": {"initial": -1}}, "retry.backoff: initial and max must be 0 to 86400 seconds"),
        ({**TWICE, "backoff": {"multiplier": 11}}, "retry.backoff: multiplier must be 1 to 10"),
    ],
)
async def test_a_retry_that_is_not_valid_is_refused_at_psql_too(
    connection: Connection, routine: int, retry: object, message: str
) -> None:
    del routine
    with pytest.raises(CheckViolation, match=message):
        await connection.execute("UPDATE routines.routines SET retry = %s", [Jsonb(retry)])


async def test_a_slot_still_has_one_scheduled_run(connection: Connection, routine: int) -> None:
    await fire(connection, routine, TWICE)
    await fail(connection)
    await begin_retry(connection)
    await fail(connection)
    with pytest.raises(UniqueViolation, match="trajectories_slot_key"):
        await connection.execute(
            "INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, "
            "trigger, init_params, scheduled_for) SELECT collection_id, task_id, 1, triggered_by_routine_id, "
            "'schedule', '{}', scheduled_for FROM routines.trajectories WHERE trigger = 'schedule'"
        )
