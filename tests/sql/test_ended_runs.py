"""Searches among ended runs: they find what a plain query finds, and read few pages however common a status is."""

import pytest

from routines_core.db import Connection, runs
from routines_core.db.keys import parse_token
from routines_core.db.trajectories import MOST_COUNTED, MOST_MEASURED, list_trajectories
from support.plans import Plan, buffers, explained
from support.rows import make_key, value
from support.working import task_of, workflow_of

ENDED = ("completed", "failed", "cancelled", "archived")
RUNS = """INSERT INTO routines.trajectories
              (collection_id, task_id, task_version, trigger, init_params, status, started_at, ended_at)
          SELECT 1, %(task)s, %(version)s, 'api', '{}', (%(statuses)s::text[])[1 + mod(n * 7919, %(most)s)],
                 now(), now()
          FROM generate_series(1, %(runs)s) AS n"""
ACTIVE = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
            SELECT 1, %(task)s, 1, 'api', '{}' FROM generate_series(1, %(runs)s)"""
SEARCHES = (
    "SELECT routines.oldest_version_in_use(1, %(task)s)",
    "SELECT routines.usual_seconds(%(task)s)",
    "SELECT count(*) FROM routines.newest_ended(%(task)s, 'archived', NULL, 10)",
    "SELECT count(*) FROM routines.newest_ended(%(task)s, NULL, NULL, 10)",
)
PAGE = {
    "limit": 11, "offset": 0, "before": 2**63 - 1, "value_bytes": 2048, "page_bytes": 4_000_000, "most_steps": 200,
}  # fmt: skip


async def make_runs(
    connection: Connection, task: int, number: int, statuses: tuple[str, ...], version: int = 1
) -> None:
    await connection.execute("ALTER TABLE routines.trajectories DISABLE TRIGGER USER")
    await connection.execute(
        RUNS, {"task": task, "runs": number, "statuses": list(statuses), "most": len(statuses), "version": version}
    )
    await connection.execute("ALTER TABLE routines.trajectories ENABLE TRIGGER USER")


@pytest.fixture
async def tasks(connection: Connection) -> tuple[int, int]:
    """Two tasks, the second of which has no runs."""
    return await task_of(connection, "busy", workflow_of()), await task_of(connection, "new", workflow_of())


@pytest.mark.parametrize("status", [None, *ENDED])
async def test_the_newest_ended_runs_are_those_that_a_plain_query_finds(
    connection: Connection, tasks: tuple[int, int], status: str | None
) -> None:
    busy, other = tasks
    for task in (busy, other, busy):
        await make_runs(connection, task, 30, ENDED)
    plain = """SELECT ARRAY(SELECT id FROM routines.trajectories
                            WHERE task_id = %s AND ended_at IS NOT NULL AND status = coalesce(%s, status)
                              AND id < coalesce(%s, 1000) ORDER BY id DESC LIMIT %s)"""
    found = "SELECT ARRAY(SELECT routines.newest_ended(%s, %s, %s, %s))"
    for before in (None, 1, 31, 75, 1000):
        for most in (0, 1, 7, 100):
            parameters = (busy, status, before, most)
            assert await value(connection, found, *parameters) == await value(connection, plain, *parameters)


async def test_the_oldest_version_in_use_is_that_of_any_run(connection: Connection, tasks: tuple[int, int]) -> None:
    busy, other = tasks
    oldest = "SELECT routines.oldest_version_in_use(1, %s)"
    assert await value(connection, oldest, busy) is None
    await make_runs(connection, other, 1, ("completed",), version=1)
    await make_runs(connection, busy, 1, ("archived",), version=2)
    await make_runs(connection, busy, 1, ("failed",), version=3)
    assert await value(connection, oldest, busy) == 2
    await connection.execute("DELETE FROM routines.trajectories WHERE status = 'archived'")
    assert await value(connection, oldest, busy) == 3
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
           VALUES (1, %s, 4, 'api', '{}')""",
        [busy],
    )
    assert await value(connection, oldest, busy) == 3
    await connection.execute("DELETE FROM routines.trajectories WHERE status = 'failed'")
    assert await value(connection, oldest, busy) == 4


@pytest.mark.parametrize("search", SEARCHES)
async def test_a_search_for_a_status_that_no_run_has_reads_few_pages(
    connection: Connection, tasks: tuple[int, int], search: str
) -> None:
    """The statistics say that every run has the task and the status: then any index seems to find the first at once."""
    busy, new = tasks
    await make_runs(connection, busy, 20_000, ("completed",))
    await connection.execute("VACUUM (ANALYZE) routines.trajectories")
    for task in (busy, new):
        await connection.execute(search.encode(), {"task": task})  # reads the catalogue
        cursor = await connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {search}".encode(), {"task": task})
        [[[explanation]]] = await cursor.fetchall()
        assert buffers(explanation["Plan"]) < 150


@pytest.mark.parametrize("status", [None, "archived"])
@pytest.mark.parametrize("made", ["ANALYZE", "VACUUM (ANALYZE)"])
async def test_lists_and_counts_of_a_task_without_runs_read_few_pages(
    connection: Connection, tasks: tuple[int, int], made: str, status: str | None
) -> None:
    """The statistics know of one task only, so every task seems to have all runs."""
    busy, new = tasks
    key_id = str(parse_token(await make_key(connection, "my-org")).key_id)
    await make_runs(connection, busy, 20_000, ("completed",))
    await connection.execute(f"{made} routines.trajectories".encode())
    given = {"key_id": key_id, "task_id": new, "status": status, "routine_id": None}
    plans: dict[str, Plan] = {}
    async with connection.transaction():
        await connection.execute("SET LOCAL ROLE routines_api")
        plans["list"] = await explained(connection, "trajectories.list_trajectories", **given, **PAGE)
        plans["count"] = await explained(connection, "trajectories.count_trajectories", **given, most=MOST_COUNTED)
        plans["stats"] = await explained(
            connection, "trajectories.stats", key_id=key_id, task="new", most=MOST_MEASURED
        )
    read = {name: buffers(plan) for name, plan in plans.items()}
    assert max(read.values()) < 300, read


@pytest.mark.parametrize("status", [None, "pending", "running", *ENDED])
async def test_pages_and_totals_of_runs_are_those_that_a_plain_query_finds(
    connection: Connection, tasks: tuple[int, int], status: str | None
) -> None:
    busy, other = tasks
    key_id = parse_token(await make_key(connection, "my-org")).key_id
    for task in (busy, other, busy):
        await make_runs(connection, task, 20, ENDED)
        await connection.execute(ACTIVE, {"task": task, "runs": 6})
    await runs.claim(connection, capacity=7, worker="w", lease_seconds=60.0, deadline_seconds=600.0)
    cursor = await connection.execute(
        "SELECT id FROM routines.trajectories WHERE task_id = %s AND status = coalesce(%s, status) ORDER BY id DESC",
        [busy, status],
    )
    expected = [row[0] for row in await cursor.fetchall()]
    given = {"key_id": key_id, "task_id": busy, "routine_id": None, "status": status}
    for offset in (0, 3, len(expected)):
        found, total = await list_trajectories(connection, limit=4, offset=offset, **given)
        assert ([run.trajectory_id for run in found], total) == (expected[offset : offset + 5], len(expected))
