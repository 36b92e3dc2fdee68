"""What needs attention: a trouble stands until a later run completes. The console, the API and psql go by one rule."""

import pytest

from routines_core.db import Connection
from support.rows import at, make_routine, make_task, value

MONDAY = at("2026-05-04 09:00")
CLOCK = at("2026-05-08 12:00")
"""Friday noon, when the questions are asked."""
SLOT = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
              scheduled_for, init_params, status, created_at, started_at, ended_at, lease_expires_at, error)
          SELECT 1, 1, 1, 1, CASE WHEN is_slot THEN 'schedule' ELSE 'run-now' END,
                 CASE WHEN is_slot THEN at END, '{}', status, at, at,
                 CASE WHEN status <> 'running' THEN at + interval '10 s' END,
                 CASE WHEN status = 'running' THEN '2127-01-01Z'::timestamptz END,
                 CASE WHEN status = 'failed' THEN 'no such table' END
          FROM (VALUES (%s::timestamptz, %s, %s::boolean)) AS run (at, status, is_slot)"""
SKIP = """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason, detail)
          VALUES (1, 1, %s, %s, %s, 'the detail')"""
URL = "https://example.com/hook"


@pytest.fixture
async def routine(connection: Connection) -> int:
    return await make_routine(connection, await make_task(connection), at("2127-01-04 09:00"))


async def became(connection: Connection, story: str) -> None:
    """Let one slot a day become each of these; a run-now, at 10:00 of the same day, follows its slot after a `+`."""
    for day, told in enumerate(story.split()):
        time = at(f"2026-05-0{4 + day} 09:00")
        slot, _, run_now = told.partition("+")
        if slot in {"running", "completed", "failed", "cancelled", "archived"}:
            await connection.execute(SLOT.encode(), [time, slot, True])
        elif slot:
            await connection.execute(SKIP.encode(), [time, time, slot])
        if run_now:
            await connection.execute(SLOT.encode(), [time.replace(hour=10), run_now, False])


async def troubles(connection: Connection) -> list[str]:
    cursor = await connection.execute("SELECT kind FROM routines.troubles_of(1, %s)", [CLOCK])
    return [kind for (kind,) in await cursor.fetchall()]


@pytest.mark.parametrize(
    ("story", "found"),
    [
        ("", []),
        ("completed", []),
        ("failed", ["failed"]),
        ("missed", ["missed"]),
        ("failed_to_start", ["failed_to_start"]),
        ("archived", []),
        ("cancelled", []),
        ("overlap", []),
        ("failed completed", []),
        ("failed missed", ["missed"]),
        ("missed failed", ["failed"]),
        ("missed completed", []),
        ("failed running", ["failed"]),
        ("failed cancelled", ["failed"]),
        ("failed overlap paused", ["failed"]),
        ("failed calendar outside_hours", ["failed"]),
        ("failed+running", ["failed"]),
        ("failed+cancelled", ["failed"]),
        ("failed+completed", []),
        ("missed+running", ["missed"]),
        ("completed+failed", ["failed"]),
        ("completed+failed completed", []),
        ("completed+failed running", ["failed"]),
    ],
)
async def test_a_failure_stands_until_a_later_run_completes(
    connection: Connection, routine: int, story: str, found: list[str]
) -> None:
    del routine
    await became(connection, story)
    assert await troubles(connection) == found
    assert await value(connection, "SELECT needs_attention FROM routines.routine_status") is bool(found)


async def test_a_trouble_names_its_run_and_cause(connection: Connection, routine: int) -> None:
    del routine
    await became(connection, "failed running")
    failed = await value(connection, "SELECT id FROM routines.trajectories WHERE status = 'failed'")
    cursor = await connection.execute("SELECT kind, trajectory_id, since, detail FROM routines.troubles_of(1)")
    assert await cursor.fetchall() == [("failed", failed, MONDAY.replace(second=10), "no such table")]
    assert await value(connection, "SELECT trouble FROM routines.routine_status") == "failed: no such table"


async def test_a_paused_routine_needs_no_attention(connection: Connection, routine: int) -> None:
    del routine
    await became(connection, "failed")
    await connection.execute("UPDATE routines.routines SET paused = true")
    status = await connection.execute("SELECT needs_attention, trouble FROM routines.routine_status")
    assert await status.fetchall() == [(False, None)]


@pytest.mark.parametrize(
    ("story", "running_since", "found"),
    [
        ("completed completed completed running", "2026-05-08 11:50", ["slow"]),
        ("completed completed completed+running", "2026-05-08 11:50", ["slow"]),
        ("completed completed completed running", "2026-05-08 11:59:20", []),  # 40 s, less than a minute
        ("completed completed running", "2026-05-08 11:50", []),  # too few to know what is usual
        ("failed failed failed completed running", "2026-05-08 11:50", []),
    ],
)
async def test_a_run_is_slow_beside_the_completed_ones(
    connection: Connection, routine: int, story: str, running_since: str, found: list[str]
) -> None:
    del routine
    await became(connection, story)
    await connection.execute(
        "UPDATE routines.trajectories SET started_at = %s WHERE ended_at IS NULL", [at(running_since)]
    )
    assert await troubles(connection) == found


async def test_a_run_is_not_slow_if_others_took_as_long(connection: Connection, routine: int) -> None:
    del routine
    await became(connection, "completed completed completed running")
    await connection.execute(
        "UPDATE routines.trajectories SET ended_at = started_at + interval '5 minutes' WHERE ended_at IS NOT NULL"
    )
    await connection.execute("UPDATE routines.trajectories SET started_at = %s WHERE ended_at IS NULL", [CLOCK])
    for minutes, found in ((14, []), (16, ["slow"])):
        await connection.execute(
            "UPDATE routines.trajectories SET started_at = %s - make_interval(mins => %s) WHERE ended_at IS NULL",
            [CLOCK, minutes],
        )
        assert await troubles(connection) == found


@pytest.mark.parametrize(
    ("deliveries", "found"),
    [
        ("delivered", []),
        ("waiting", []),
        ("failing", ["webhook"]),
        ("given up", ["webhook"]),
        ("failing waiting", ["webhook"]),
        ("failing delivered", []),
        ("given up delivered waiting", []),
        ("elsewhere", []),
    ],
)
async def test_a_webhook_fails_if_the_newest_did(
    connection: Connection, routine: int, deliveries: str, found: list[str]
) -> None:
    await connection.execute("UPDATE routines.routines SET webhook_url = %s", [URL])
    await became(connection, "completed")
    for told in deliveries.replace("given up", "given_up").split():
        url = "https://example.com/before" if told == "elsewhere" else URL
        await connection.execute(
            """INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, routine_id, event_status, url,
                   failures, attempts, next_attempt_at, delivered_at, give_up_reason)
               SELECT 1, id, %(routine)s, 'completed', %(url)s,
                      CASE WHEN %(told)s IN ('failing', 'elsewhere') THEN 3 ELSE 0 END,
                      '[{"error": "it answered 500"}]',
                      CASE WHEN %(told)s IN ('failing', 'waiting', 'elsewhere') THEN now() END,
                      CASE WHEN %(told)s = 'delivered' THEN now() END, CASE WHEN %(told)s = 'given_up' THEN 'spent' END
               FROM routines.trajectories""",
            {"routine": routine, "url": url, "told": told},
        )
    assert await troubles(connection) == found
    if found:
        trouble = await value(connection, "SELECT trouble FROM routines.routine_status")
        assert trouble == "webhook: the webhook does not arrive: it answered 500"


async def test_a_stopped_url_is_a_trouble_of_its_routines(connection: Connection, routine: int) -> None:
    del routine
    await connection.execute("UPDATE routines.routines SET webhook_url = %s", [URL])
    await connection.execute(
        """INSERT INTO routines.webhook_endpoints (collection_id, url, failing_since, stopped_at, stopped_reason)
           VALUES (1, %s, now(), now(), 'it failed for 4 days')""",
        [URL],
    )
    assert await troubles(connection) == ["webhook"]
    await connection.execute("UPDATE routines.routines SET webhook_url = NULL")
    assert await troubles(connection) == []


async def test_a_backoff_is_a_trouble_beside_its_failure(connection: Connection, routine: int) -> None:
    del routine
    await connection.execute("UPDATE routines.routines SET pause_after_failures = 1, after_failures = 'backoff'")
    await became(connection, "failed backoff")
    await connection.execute("UPDATE routines.routines SET backoff_left = 3")
    assert await troubles(connection) == ["failed", "backoff"]
    assert await value(connection, "SELECT trouble FROM routines.routine_status") == (
        "failed: no such table; backoff: 3 slots are skipped after failures, then one is tried"
    )
