"""The metrics of the database: what they count, what they cost, and which roles may read them."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from routines_core.db import Connection, connect
from routines_core.db import metrics as db
from support.rows import Database, at, make_routine, make_task, value
from support.sampling import left_out
from ticker.test_claim_plan import fill

MOST_BUFFERS = 3 * db.MOST
"""A page of the index or the table for each row examined, and a few more: far fewer than a million."""


async def in_hours(connection: Connection, hours: float, name: str) -> int:
    """Create a routine whose next slot is this many hours from now, and return its id."""
    found = await value(connection, "SELECT id FROM routines.tasks")
    routine = await make_routine(
        connection, found if isinstance(found, int) else await make_task(connection), at("2026-05-04 09:00"), name=name
    )
    await connection.execute(
        "UPDATE routines.routines SET next_run_at = now() + %s * interval '1 hour' WHERE id = %s", [hours, routine]
    )
    return routine


async def test_in_an_empty_database_every_metric_is_zero(connection: Connection) -> None:
    assert await db.of_routines(connection) == db.RoutineMetrics(0, 0, 0)
    assert await db.of_skips(connection) == db.SkipMetrics(0, 0, 0, 0, 0, 0, 0, 0)
    assert await db.of_runs(connection) == db.RunMetrics(0, 0, 0)
    assert await db.of_deliveries(connection) == db.DeliveryMetrics(0, 0)


async def test_due_routines_are_counted_with_the_age_of_the_oldest_slot(connection: Connection) -> None:
    await in_hours(connection, 1, "later")
    assert await db.of_routines(connection) == db.RoutineMetrics(0, 0, 0)
    await in_hours(connection, -1, "late")
    await in_hours(connection, -2, "later-still")
    struck = await in_hours(connection, -3, "struck")
    await connection.execute(
        "UPDATE routines.routines SET paused = true, paused_reason = 'struck' WHERE id = %s", [struck]
    )
    found = await db.of_routines(connection)
    assert (found.due, found.paused_by_strikes) == (2, 1)
    assert 7200 <= found.oldest_due_seconds < 7260


async def test_slots_skipped_in_the_last_hour_are_counted_by_reason(connection: Connection) -> None:
    await connection.execute(
        """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, slot_count, reason,
                                       cadence, recorded_at)
           SELECT 1, n, now(), now() + (slots - 1) * interval '1 hour', slots, reason,
                  CASE WHEN slots > 1 THEN routines.cadence_from_json('{"type": "hourly", "minute_utc": 0}') END,
                  now() - age * interval '1 minute'
           FROM (VALUES (1, 'missed', 5, 70), (2, 'missed', 3, 10), (3, 'overlap', 1, 59), (4, 'missed', 1, 1),
                        (5, 'failed_to_start', 1, 0), (6, 'backoff', 1, 0)) AS given (n, reason, slots, age)"""
    )
    assert await db.of_skips(connection) == db.SkipMetrics(
        overlap=1, coalesced=0, missed=4, paused=0, failed_to_start=1, calendar=0, outside_hours=0, backoff=1
    )


async def make_run(connection: Connection, age_seconds: float, status: str, task: int) -> None:
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params, status,
                                              created_at, lease_expires_at, ended_at)
           VALUES (1, %(task)s, 1, 'api', '{}', %(status)s, now() - %(age)s * interval '1 second',
                   CASE WHEN %(status)s = 'running' THEN now() END,
                   CASE WHEN %(status)s = 'completed' THEN now() END)""",
        {"age": age_seconds, "status": status, "task": task},
    )


async def test_runs_are_counted_by_status_and_the_oldest_pending_one_is_found_in_any_task(
    connection: Connection,
) -> None:
    for age, status, task in (
        (10, "pending", 1),
        (5, "pending", 1),
        (900, "pending", 7),
        (5000, "running", 3),
        (9000, "completed", 2),
    ):
        await make_run(connection, age, status, task)
    found = await db.of_runs(connection)
    assert (found.pending, found.running) == (3, 1)
    assert 900 <= found.oldest_pending_seconds < 960


async def test_due_webhooks_are_counted_with_the_age_of_the_oldest(connection: Connection) -> None:
    await make_run(connection, 1, "completed", 1)
    await connection.execute(
        """INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, url, event_status, next_attempt_at)
           SELECT 1, id, 'https://example.com', 'completed', now() - late * interval '1 second'
           FROM routines.trajectories, unnest(ARRAY[400, 30, -60]) AS late"""
    )
    found = await db.of_deliveries(connection)
    assert found.due == 2
    assert 400 <= found.oldest_due_seconds < 460


async def test_connected_tickers_and_workers_are_counted(connection: Connection, database: Database) -> None:
    assert await db.of_programs(connection) == db.ConnectedPrograms(0, 0)
    async with (
        connect(database.url, "routines-ticker"),
        connect(database.url, "routines-ticker"),
        connect(database.url, "routines-worker-wakeup"),
        connect(database.url, "routines-worker"),
    ):
        assert await db.of_programs(connection) == db.ConnectedPrograms(2, 1)


async def test_the_age_of_the_oldest_snapshot_is_measured(connection: Connection, database: Database) -> None:
    async with connect(database.url, "somebody") as other, other.transaction():
        await other.execute("SELECT pg_current_xact_id(), pg_sleep(0.1)")
        assert (await db.of_snapshots(connection)).oldest_seconds >= 0.1


async def test_the_schema_version_is_that_of_the_newest_migration(connection: Connection) -> None:
    newest = await value(connection, "SELECT replace(max(version), 'T', '')::bigint FROM routines.schema_migrations")
    assert (await db.of_schema(connection)).version == newest


@asynccontextmanager
async def owned_without_superuser(connection: Connection) -> AsyncGenerator[str]:
    """Give the functions to an owner like that of a managed Postgres: no superuser, and bound by row-level security."""
    names = ("routines", "skips", "runs", "deliveries", "snapshots")
    owner, login = f"metrics_{uuid.uuid4().hex[:8]}", await value(connection, "SELECT quote_ident(current_user)")
    await connection.execute(f"CREATE ROLE {owner}; GRANT {login} TO {owner}".encode())
    for name in names:
        await connection.execute(f"ALTER FUNCTION routines.metrics_of_{name} OWNER TO {owner}".encode())
    try:
        yield owner
    finally:
        for name in names:
            await connection.execute(f"ALTER FUNCTION routines.metrics_of_{name} OWNER TO {login}".encode())
        await connection.execute(f"DROP ROLE {owner}".encode())


async def buffers(connection: Connection, call: str) -> int:
    """Return the number of pages that a call reads, including the statements inside it."""
    cursor = await connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM {call}".encode())
    row: Any = await cursor.fetchone()
    return row[0][0]["Plan"]["Shared Hit Blocks"] + row[0][0]["Plan"]["Shared Read Blocks"]


async def plans(connection: Connection, call: str) -> str:
    """Return the plans of all statements inside a call."""
    said: list[str] = []
    connection.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    await connection.execute(
        b"LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;"
        b"SET client_min_messages = log"
    )
    await connection.execute(f"SELECT * FROM {call}".encode())
    await connection.execute(b"SET client_min_messages = notice; SET auto_explain.log_min_duration = -1")
    return "\n".join(said)


@left_out
@pytest.mark.slow
async def test_at_a_million_routines_the_metrics_read_no_more_than_their_bound(connection: Connection) -> None:
    await make_task(connection)
    calls = {
        "routines": f"routines.metrics_of_routines({db.MOST})",
        "skips": f"routines.metrics_of_skips({db.MOST})",
        "runs": f"routines.metrics_of_runs({db.MOST}, {db.MOST_LANES})",
        "deliveries": f"routines.metrics_of_deliveries({db.MOST})",
    }
    await fill(connection, 1, 1_000_000)
    await connection.execute("ALTER TABLE routines.trajectories DISABLE TRIGGER USER")
    # A history of runs and webhooks, and a backlog of both that exceeds the bound of the counts.
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params, status,
                                              ended_at)
           SELECT mod(n, 7), mod(n, 1500), 1, 'api', '{}', CASE WHEN n > 250000 THEN 'pending' ELSE 'completed' END,
                  CASE WHEN n <= 250000 THEN now() END
           FROM generate_series(1, 270000) n"""
    )
    await connection.execute(
        """INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, url, event_status, next_attempt_at,
                                                    delivered_at)
           SELECT 1, 1, 'https://example.com', 'completed', CASE WHEN n > 100000 THEN now() END, now()
           FROM generate_series(1, 120000) n"""
    )
    await connection.execute(
        """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason)
           SELECT 1, n, now(), now(), 'missed' FROM generate_series(1, 100000) n"""
    )
    await connection.execute("UPDATE routines.routines SET next_run_at = now() WHERE id > 980000")
    await connection.execute(
        "VACUUM (ANALYZE) routines.routines, routines.skips, routines.trajectories, routines.webhook_deliveries"
    )
    assert (await db.of_skips(connection)).missed == db.MOST
    assert (await db.of_routines(connection)).due == db.MOST
    assert (await db.of_runs(connection)).pending == db.MOST
    assert (await db.of_deliveries(connection)).due == db.MOST
    for call in calls.values():
        assert await buffers(connection, call) < MOST_BUFFERS, call
    async with owned_without_superuser(connection):
        for call in calls.values():
            assert await buffers(connection, call) < MOST_BUFFERS, call
            assert "Seq Scan" not in await plans(connection, call)


async def test_a_metric_that_scans_a_table_is_detected(connection: Connection) -> None:
    """The control of the test above: without its index a metric scans the whole table, and the test notices."""
    await connection.execute("DROP INDEX routines.routines_next_run_at_idx")
    assert "Seq Scan on routines" in await plans(connection, f"routines.metrics_of_routines({db.MOST})")


async def test_an_owner_restricted_by_row_level_security_counts_all_collections(connection: Connection) -> None:
    await in_hours(connection, -1, "late")
    await make_run(connection, 60, "pending", 1)
    async with owned_without_superuser(connection) as owner:
        assert (await db.of_routines(connection)).due == 1
        assert (await db.of_runs(connection)).pending == 1
        # It cannot see other roles' sessions, and raises instead of reporting a wrong number.
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await db.of_snapshots(connection)
        await connection.execute(f"GRANT pg_read_all_stats TO {owner}".encode())
        assert (await db.of_snapshots(connection)).oldest_seconds >= 0


async def test_the_api_reads_the_metrics_of_all_collections_but_none_of_their_rows(
    connection: Connection, database: Database
) -> None:
    await in_hours(connection, -1, "late")
    async with connect(database.url, "api", role="routines_api") as api:
        assert (await db.of_routines(api)).due == 1
        for kind in db.KINDS.values():
            await kind(api)
        assert await value(api, "SELECT count(*) FROM routines.routines") == 0


@pytest.mark.parametrize("role", ["routines_ticker", "routines_worker", "routines_reader"])
async def test_no_other_role_can_read_the_metrics(connection: Connection, database: Database, role: str) -> None:
    async with connect(database.url, "other", role=role) as other:
        for name in ("routines", "skips", "runs", "deliveries", "snapshots"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await db.KINDS[name](other)
