"""Statements that move a batch do not join it row by row, even if the planner expects one row."""

import pytest

from routines_core.db import Connection, deliveries, dispatches, runs
from support.plans import explained, nodes
from support.rows import make_task, value

BATCH = 300
DECLARING = (deliveries, dispatches, runs)
RUNS = """INSERT INTO routines.trajectories (
              collection_id, task_id, task_version, trigger, init_params, status, fence, worker, lease_expires_at,
              started_at, deadline_at)
          SELECT 1, 1, 1, 'api', '{}', 'running', 1, 'w', now(), now(), now() + interval '1 day'
          FROM generate_series(1, %s)"""
DELIVERIES = """INSERT INTO routines.webhook_deliveries
                    (collection_id, trajectory_id, event_status, url, fence, claimed_at, next_attempt_at)
                SELECT 1, id, 'completed', 'http://a.test/', 1, now(), now() + interval '1 hour'
                FROM routines.trajectories"""
DISPATCHES = """INSERT INTO routines.dispatches (trajectory_id, collection_id, workflow_id, generation, fence)
                SELECT id, 1, 'w' || id, 1, 0 FROM routines.trajectories"""
HELD = {"ids": list(range(1, BATCH + 1)), "fences": [1] * BATCH}
PARAMETERS = {
    "runs.renew": {**HELD, "lease_seconds": 60.0},
    "runs.still_claimed": HELD,
    "runs.release": HELD,
    "runs.reap": {"max_crashes": 3, "most": BATCH},
    "deliveries.prepare": {**HELD, "most_value_bytes": 1000, "most_bytes": 10_000, "most_together": 1_000_000},
    "deliveries.release": HELD,
    "dispatches.taken_away": {"again_seconds": 60.0, "limit": BATCH},
}


@pytest.mark.parametrize("statement", PARAMETERS)
async def test_a_batch_is_not_joined_row_by_row(connection: Connection, statement: str) -> None:
    await make_task(connection)
    await connection.execute("ANALYZE")  # of empty tables
    await connection.execute(RUNS.encode(), [BATCH])
    await connection.execute(DELIVERIES.encode())
    await connection.execute(DISPATCHES.encode())
    assert await value(connection, "SELECT min(id) || ' ' || max(id) FROM routines.trajectories") == f"1 {BATCH}"
    plan = await explained(connection, statement, **PARAMETERS[statement])
    wasted = sum(
        (
            node.get("Rows Removed by Join Filter", 0)
            + ("CTE" in node["Node Type"]) * node.get("Rows Removed by Filter", 0)
        )
        * node["Actual Loops"]
        for node in nodes(plan)
    )
    assert wasted <= 4 * BATCH
