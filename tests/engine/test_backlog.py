"""Reaping and the lists of active runs cost the same however many runs are pending."""

import pytest

from routines_core.db import Connection, connect, runs
from routines_core.db.keys import parse_token
from routines_core.db.trajectories import list_trajectories, stats_of_task
from support.plans import buffers, explained, nodes
from support.rows import Database, make_key, value
from support.working import task_of, workflow_of

PENDING = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
             SELECT collection_id, id, 1, 'api', '{}' FROM routines.tasks, generate_series(1, %s) WHERE id = %s"""
LISTED = {"value_bytes": 2048, "page_bytes": 4_000_000, "most_steps": 200}
CLAIM = {"worker": "w", "lease_seconds": 60.0, "deadline_seconds": 600.0}


async def read_by_each(connection: Connection, key_id: int, task: int) -> dict[str, int]:
    """Return the pages that each statement reads. None of them may scan the whole table."""
    page = {"task_id": task, "routine_id": None, "limit": 11, "offset": 0, "before": 2**63 - 1}
    read: dict[str, int] = {}
    async with connection.transaction(force_rollback=True):
        plans = {"reap": await explained(connection, "runs.reap", max_crashes=3, most=1000)}
    async with connection.transaction():
        await connection.execute("SET LOCAL ROLE routines_api")
        for status in ("pending", "running"):
            given = {"key_id": str(key_id), "status": status, **page}
            plans[f"list {status}"] = await explained(connection, "trajectories.list_trajectories", **LISTED, **given)
            plans[f"count {status}"] = await explained(
                connection, "trajectories.count_trajectories", most=1000, **given
            )
    for name, plan in plans.items():
        whole = [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Actual Loops"]]
        assert "trajectories" not in {node["Relation Name"] for node in whole}, (name, whole)
        read[name] = buffers(plan)
    return read


@pytest.mark.slow
async def test_a_backlog_a_hundred_times_as_long_costs_no_more_reads(
    connection: Connection, database: Database
) -> None:
    task = await task_of(connection, "echo", workflow_of())
    await task_of(connection, "other", workflow_of())
    key_id = parse_token(await make_key(connection, "my-org")).key_id
    read: list[dict[str, int]] = []
    for count in (3_000, 300_000):
        await connection.execute(PENDING, [count, task])
        await connection.execute("VACUUM (ANALYZE) routines.trajectories")
        if not read:
            await runs.claim(connection, capacity=50, **CLAIM)
        async with connect(database.url, "fresh") as fresh:
            read.append(await read_by_each(fresh, key_id, task))
    for name, pages in read[1].items():
        assert pages < 1.5 * read[0][name] + 20, read


async def test_the_lists_and_counts_of_active_runs_are_right(connection: Connection) -> None:
    task = await task_of(connection, "echo", workflow_of())
    other = await task_of(connection, "other", workflow_of())
    key_id = parse_token(await make_key(connection, "my-org")).key_id
    for each in (task, other):
        await connection.execute(PENDING, [10, each])
    claimed = await runs.claim(connection, capacity=8, **CLAIM)
    own = [run for run in claimed if run.task_id == task]
    assert len(own) == 4
    await runs.release(connection, [(own[0].id, own[0].fence)])
    await runs.finish(connection, own[1], error=None)
    ids = [row[0] for row in await (await connection.execute(
        "SELECT id FROM routines.trajectories WHERE task_id = %s ORDER BY id DESC", [task])).fetchall()]  # fmt: skip
    running = sorted((run.id for run in own[2:]), reverse=True)
    pending = [run for run in ids if run not in {*running, own[1].id}]
    page = {"key_id": key_id, "task_id": task, "routine_id": None}
    for status, expected in (("running", running), ("pending", pending), ("completed", [own[1].id])):
        found, total = await list_trajectories(connection, status=status, limit=20, offset=0, **page)
        assert ([run.trajectory_id for run in found], total) == (expected, len(expected)), status
        found, _ = await list_trajectories(connection, status=status, limit=1, offset=1, **page)
        assert [run.trajectory_id for run in found] == expected[1:3], status
    counts = (await stats_of_task(connection, key_id=key_id, task="echo")).counts
    assert counts == {"running": 2, "pending": 7, "completed": 1}


async def test_a_begun_run_stays_listed_until_it_ends_in_any_way(connection: Connection) -> None:
    task = await task_of(connection, "echo", workflow_of())
    await connection.execute(PENDING, [6, task])
    begun = """SELECT ARRAY(SELECT trajectory_id FROM routines.begun_runs ORDER BY 1)
                    = ARRAY(SELECT id FROM routines.trajectories WHERE started_at IS NOT NULL AND ended_at IS NULL
                            ORDER BY 1)"""
    finished, given_back, reaped, late, deleted = await runs.claim(connection, capacity=5, **CLAIM)
    assert await value(connection, "SELECT count(*) FROM routines.begun_runs") == 5
    await runs.finish(connection, finished, error="x")
    await runs.release(connection, [(given_back.id, given_back.fence)])
    await connection.execute("UPDATE routines.trajectories SET lease_expires_at = now() WHERE id = %s", [reaped.id])
    await connection.execute("UPDATE routines.trajectories SET deadline_at = now() WHERE id = %s", [late.id])
    assert {run.id: run.status for run in await runs.reap(connection)} == {reaped.id: "pending", late.id: "failed"}
    await connection.execute("DELETE FROM routines.trajectories WHERE id = %s", [deleted.id])
    assert await value(connection, begun)
    assert await value(connection, "SELECT count(*) FROM routines.begun_runs") == 2
    # A run that was given back and never claimed again still fails at its deadline.
    await connection.execute("UPDATE routines.trajectories SET deadline_at = now() WHERE id = %s", [given_back.id])
    assert [run.id for run in await runs.reap(connection)] == [given_back.id]
    await connection.execute("UPDATE routines.trajectories SET status = 'cancelled', ended_at = now()"
                             " WHERE ended_at IS NULL")  # fmt: skip
    assert await value(connection, "SELECT count(*) FROM routines.begun_runs") == 0
