"""Retention deletes what has passed its maximum age, and nothing else."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from routines_core.db import Connection, connect, ledger, retention
from routines_core.db.deliveries import Outcome
from routines_core.settings import Settings
from routines_engine.retention.history import delete_old
from support.outbox import claim, ended_runs, routine_with_webhook, settle
from support.rows import Database, make_key, make_routine, make_task, value

LATER = datetime.now(UTC) + timedelta(days=1000)
"""A time at which everything created here is old."""
KEEP_ALL = {"keep_trajectories_days": 0, "keep_deliveries_days": 0, "keep_skips_days": 0, "keep_audit_days": 0}


async def delete(connection: Connection, *, now: datetime | None = LATER, **settings: float) -> dict[str, int]:
    """Make a pass with these settings, keeping everything else forever. Returns what was deleted."""
    given = Settings(**{**KEEP_ALL, **settings})
    deleted = await delete_old(connection, given, asyncio.Event(), now=now)
    return {what: count for what, count in deleted.items() if count}


async def ids(connection: Connection, table: str = "trajectories") -> list[int]:
    cursor = await connection.execute(f"SELECT id FROM routines.{table} ORDER BY id".encode())
    return [row[0] for row in await cursor.fetchall()]


async def scheduled(connection: Connection, routine: int, days: list[int]) -> None:
    """Create ended scheduled runs of these days of May 2026, in this order. Returns their ids."""
    for day in days:
        await connection.execute(
            """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                                  trigger, scheduled_for, init_params, status, created_at, ended_at)
               SELECT collection_id, task_id, 1, id, 'schedule', %(at)s, '{}', 'completed', %(at)s, %(at)s
               FROM routines.routines WHERE id = %(id)s""",
            {"at": datetime(2026, 5, day, 9, tzinfo=UTC), "id": routine},
        )


@pytest.fixture
async def routine(connection: Connection) -> int:
    return await make_routine(connection, await make_task(connection), datetime(2030, 1, 1, 9, tzinfo=UTC))


async def test_old_runs_are_deleted_with_their_steps_except_the_newest_of_a_routine(
    connection: Connection, routine: int
) -> None:
    await ended_runs(connection, routine, 5)
    newest = (await ids(connection))[-1]
    assert await delete(connection, keep_trajectories_days=90) == {"trajectories": 4}
    assert await ids(connection) == [newest]
    assert await value(connection, "SELECT array_agg(trajectory_id) FROM routines.steps") == [newest]


async def test_rows_below_the_maximum_age_are_kept(connection: Connection, routine: int) -> None:
    await ended_runs(connection, routine, 5)
    young = datetime.now(UTC) + timedelta(days=89)
    assert await delete(connection, now=young, keep_trajectories_days=90) == {}
    assert await delete(connection, now=None, keep_trajectories_days=90) == {}


async def test_an_age_of_zero_keeps_rows_forever(connection: Connection) -> None:
    await ended_runs(connection, await routine_with_webhook(connection, "http://receiver.test/"), 3)
    assert await delete(connection) == {}


async def test_active_runs_and_their_children_are_kept_however_old(connection: Connection, routine: int) -> None:
    await ended_runs(connection, routine, 4)
    old, parent, child, _ = await ids(connection)
    await connection.execute("ALTER TABLE routines.trajectories DISABLE TRIGGER refuse_second_end")
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'pending', ended_at = NULL WHERE id = %s", [parent]
    )
    await connection.execute(
        "UPDATE routines.trajectories SET parent_id = %s, parent_step = 's', child_index = 0 WHERE id = %s",
        [parent, child],
    )
    assert await delete(connection, keep_trajectories_days=1) == {"trajectories": 1}
    assert old not in await ids(connection)
    assert {parent, child} <= set(await ids(connection))


async def test_all_runs_of_a_deleted_routine_are_deleted(connection: Connection, routine: int) -> None:
    await ended_runs(connection, routine, 3)
    await connection.execute("DELETE FROM routines.routines")
    assert (await delete(connection, keep_trajectories_days=1))["trajectories"] == 3


async def test_a_run_whose_webhook_is_due_is_kept(connection: Connection) -> None:
    routine = await routine_with_webhook(connection, "http://receiver.test/")
    await ended_runs(connection, routine, 3)
    one, *_ = await claim(connection)
    await settle(connection, one, Outcome(200, None))
    assert await delete(connection, keep_trajectories_days=1) == {"trajectories": 1}


RERUN = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, triggered_by_routine_id,
                                              rerun_of, kept_steps, init_params)
           SELECT collection_id, task_id, task_version, 'rerun', triggered_by_routine_id, id,
                  jsonb_build_object('one', %s::bigint), '{}' FROM routines.trajectories WHERE id = %s RETURNING id"""
COMPLETE = "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE id = %s"


async def test_runs_whose_steps_an_active_rerun_keeps_are_kept(connection: Connection, routine: int) -> None:
    await ended_runs(connection, routine, 4)
    old, kept, rerun_of, newest = await ids(connection)
    again = await value(connection, RERUN, kept, rerun_of)
    assert await delete(connection, keep_trajectories_days=1) == {"trajectories": 1}
    assert await ids(connection) == [kept, rerun_of, newest, again]
    assert old not in await ids(connection)
    await connection.execute(COMPLETE, [again])
    assert await delete(connection, keep_trajectories_days=1) == {"trajectories": 3}
    assert await ids(connection) == [newest]


async def test_a_rerun_of_the_newest_run_is_kept_as_the_outcome_of_its_slot(
    connection: Connection, routine: int
) -> None:
    await ended_runs(connection, routine, 2)
    _, newest = await ids(connection)
    again = await value(connection, RERUN, newest, newest)
    await connection.execute(COMPLETE, [again])
    assert await delete(connection, keep_trajectories_days=1) == {"trajectories": 1}
    assert await ids(connection) == [newest, again]


async def test_the_version_of_a_rerun_is_kept_although_older_runs_have_newer_ones(
    connection: Connection, routine: int
) -> None:
    await ended_runs(connection, routine, 2)
    old, newer = await ids(connection)
    task = await value(connection, "SELECT task_id FROM routines.trajectories LIMIT 1")
    await connection.execute(
        """INSERT INTO routines.task_versions (task_id, version, workflow, created_at)
           VALUES (%s, 2, '{}', '2026-05-01Z')""",
        [task],
    )
    await connection.execute("UPDATE routines.tasks SET version = 2")
    await connection.execute("UPDATE routines.trajectories SET task_version = 2 WHERE id = %s", [newer])
    again = await value(connection, RERUN, old, old)
    await connection.execute(COMPLETE, [again])
    await connection.execute("DELETE FROM routines.trajectories WHERE id = %s", [old])
    await delete(connection)
    assert await value(connection, "SELECT array_agg(version ORDER BY version) FROM routines.task_versions") == [1, 2]
    await connection.execute("DELETE FROM routines.trajectories WHERE id = %s", [again])
    await delete(connection)
    assert await value(connection, "SELECT array_agg(version) FROM routines.task_versions") == [2]


async def test_settled_webhooks_are_deleted_and_due_ones_kept(connection: Connection) -> None:
    await ended_runs(connection, await routine_with_webhook(connection, "http://receiver.test/"), 3)
    one, two, three = await claim(connection)
    await settle(connection, one, Outcome(200, None))
    await settle(connection, two, Outcome(500, "it answered 500"), delay_seconds=None)
    assert (await delete(connection, keep_deliveries_days=30))["deliveries"] == 2
    assert await ids(connection, "webhook_deliveries") == [three.id]


async def test_old_skips_are_deleted_if_an_age_is_set(connection: Connection, routine: int) -> None:
    await connection.execute(
        """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason)
           SELECT 1, %s, at, at, 'missed' FROM generate_series('2026-05-01Z', '2026-05-10Z', interval '1 day') AS at""",
        [routine],
    )
    assert await delete(connection, keep_skips_days=1) == {"skips": 10}


async def test_a_pass_continues_past_pages_of_rows_that_are_kept(
    connection: Connection, routine: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routines_engine.retention.history.PAUSE_SECONDS", 0)
    await ended_runs(connection, routine, 30)
    await connection.execute("DELETE FROM routines.routines")
    kept = (await ids(connection))[:7]
    await connection.execute("UPDATE routines.trajectories SET ended_at = %s WHERE id = ANY (%s)", [LATER, kept])
    after, deleted, pages = 0, 0, 0
    while True:
        page = await retention.delete_page(
            connection, "trajectories", keep_seconds=60, after=after, page_size=5, now=LATER
        )
        after, deleted, pages = page.last_id or 0, deleted + page.deleted, pages + 1
        if page.is_last:
            break
    assert (deleted, pages, await ids(connection)) == (23, 7, kept)


async def test_locked_rows_are_skipped(connection: Connection, routine: int, database: Database) -> None:
    await ended_runs(connection, routine, 3)
    locked = (await ids(connection))[0]
    async with connect(database.url, "other") as other, other.transaction():
        await other.execute("SELECT FROM routines.trajectories WHERE id = %s FOR UPDATE", [locked])
        assert await delete(connection, keep_trajectories_days=1) == {"trajectories": 1}
    assert await delete(connection, keep_trajectories_days=1) == {"trajectories": 1}


async def test_only_one_pass_runs_at_a_time(connection: Connection, routine: int, database: Database) -> None:
    await ended_runs(connection, routine, 3)
    async with connect(database.url, "other") as other:
        async with retention.one_pass(other) as is_ours:
            assert is_ours
            assert await delete(connection, keep_trajectories_days=1) == {}
        assert await delete(connection, keep_trajectories_days=1) == {"trajectories": 2}


async def test_a_pass_ends_when_the_worker_stops(connection: Connection, routine: int) -> None:
    await ended_runs(connection, routine, 3)
    stop = asyncio.Event()
    stop.set()
    deleted = await delete_old(connection, Settings(keep_trajectories_days=1), stop, now=LATER)
    assert not any(deleted.values())


async def test_a_page_that_ends_within_a_task_leaves_its_other_versions_to_the_next_pass(
    connection: Connection, routine: int
) -> None:
    await connection.execute(
        """INSERT INTO routines.task_versions (task_id, version, workflow, created_at)
           SELECT id, number, '{}', '2026-05-01Z' FROM routines.tasks, generate_series(101, 103) AS number"""
    )
    await connection.execute("UPDATE routines.tasks SET version = 103")
    for left in ([101, 102, 103], [102, 103], [103], [103]):
        page = await retention.delete_page(connection, "versions", keep_seconds=0, page_size=1)
        while not page.is_last and page.last_id is not None:
            page = await retention.delete_page(connection, "versions", keep_seconds=0, page_size=1, after=page.last_id)
        query = "SELECT array_agg(version ORDER BY version) FROM routines.task_versions WHERE version > 100"
        assert await value(connection, query) == left


async def test_versions_that_neither_the_task_nor_a_run_needs_are_deleted(connection: Connection, routine: int) -> None:
    await ended_runs(connection, routine, 1)
    await connection.execute("UPDATE routines.trajectories SET task_version = 2")
    for version in (2, 3, 4):
        await connection.execute(
            "INSERT INTO routines.task_versions (task_id, version, workflow) SELECT id, %s, '{}' FROM routines.tasks",
            [version],
        )
    await connection.execute("UPDATE routines.tasks SET version = 4")
    assert await delete(connection, now=None) == {}
    assert await delete(connection) == {"versions": 1}
    await connection.execute("DELETE FROM routines.routines")
    assert await delete(connection, keep_trajectories_days=1) == {"trajectories": 1, "versions": 2, "names": 1}
    await connection.execute("DELETE FROM routines.tasks")
    assert await delete(connection) == {"versions": 1}


async def test_yesterdays_answers_to_idempotency_keys_are_deleted(connection: Connection, routine: int) -> None:
    await make_key(connection, "my-org")
    await connection.execute(
        """INSERT INTO routines.idempotency_keys (key_id, idempotency_key, request_hash)
           SELECT id, 'k', sha256('') FROM routines.api_keys"""
    )
    assert await delete(connection, now=None) == {}
    assert await delete(connection) == {"answers": 1}


async def test_a_stopped_endpoint_gets_another_chance_after_ninety_days(connection: Connection, routine: int) -> None:
    await connection.execute(
        """INSERT INTO routines.webhook_endpoints (collection_id, url, failing_since, stopped_at, stopped_reason)
           VALUES (1, 'http://a.test/', now(), NULL, NULL), (1, 'http://b.test/', now(), now(), 'gone')"""
    )
    assert await delete(connection, now=datetime.now(UTC) + timedelta(days=89)) == {}
    assert await delete(connection) == {"endpoints": 2}


async def test_why_says_that_the_run_of_a_slot_is_no_longer_kept(connection: Connection, routine: int) -> None:
    await connection.execute(
        "UPDATE routines.routines SET created_at = '2026-04-01Z', settled_until = '2026-05-03 09:00Z'"
    )
    await scheduled(connection, routine, [1, 2, 3])
    await delete(connection, keep_trajectories_days=90)

    key = int((await make_key(connection, "my-org")).split("_")[1])

    async def kind(day: int, hour: int = 9) -> str:
        at = datetime(2026, 5, day, hour, tzinfo=UTC)
        return (await ledger.why(connection, key_id=key, routine_id=routine, at=at)).kind

    assert [await kind(1), await kind(2), await kind(3), await kind(4, 8)] == [
        "forgotten",
        "forgotten",
        "started",
        "not_a_slot",
    ]


async def test_a_page_is_read_by_the_primary_key_however_many_runs_exist(connection: Connection, routine: int) -> None:
    await ended_runs(connection, routine, 3000)
    await connection.execute("DELETE FROM routines.webhook_deliveries")
    await connection.execute("VACUUM ANALYZE routines.trajectories")
    young = datetime.now(UTC)
    query = retention._DELETE["trajectories"].text
    cursor = await connection.execute(
        b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query.encode(),
        {"after": 0, "page_size": 100, "keep_seconds": 86400.0, "now": young},
    )
    row = await cursor.fetchone()
    assert row
    plan = row[0][0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 500
