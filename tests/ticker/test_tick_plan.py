"""The tick has one plan: it joins no batch with another row by row, whatever the statistics foresaw."""

import pytest

from routines_core.db import Connection
from routines_core.db.tick import PLANNED_ONCE
from support.plans import Plan, explained, explained_once, nodes, planned_once
from support.rows import make_task, value
from support.stepping import TICK

BATCH = 250
LATER = "UPDATE routines.routines SET next_run_at = date_trunc('minute', now()) + interval '10 minutes'"
DUE = "UPDATE routines.routines SET next_run_at = date_trunc('minute', now())"
BLOCKED = """INSERT INTO routines.trajectories
                 (collection_id, task_id, task_version, triggered_by_routine_id, trigger, init_params)
             SELECT collection_id, task_id, 1, id, 'run-now', '{}' FROM routines.routines"""
ANALYZE = "ANALYZE routines.routines, routines.trajectories"
STATISTICS = {
    "fresh": [DUE, ANALYZE],
    "made when nothing was due": [LATER, ANALYZE, DUE],
    "made while the tables were empty": [DUE],
}


async def filled(connection: Connection, statements: list[str], *, are_blocked: bool) -> None:
    await make_task(connection)
    await connection.execute(ANALYZE)
    await connection.execute("ALTER TABLE routines.routines DISABLE TRIGGER USER")
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, minute_utc, next_run_at)
           SELECT 1, 1, 'r' || n, 'hourly', extract(minute FROM now()), now() FROM generate_series(1, %s) AS n""",
        [4 * BATCH],
    )
    for statement in statements:
        await connection.execute(statement.encode())
    await connection.execute("ALTER TABLE routines.routines ENABLE TRIGGER USER")
    if are_blocked:
        await connection.execute(BLOCKED)


def wasted(plan: Plan) -> int:
    """Return how many pairs of rows the joins of a plan compared in vain."""
    return sum(node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"] for node in nodes(plan))


@pytest.mark.parametrize("are_blocked", [False, True], ids=["fires", "overlaps"])
@pytest.mark.parametrize("in_turns", [False, True], ids=["by slot", "in turns"])
@pytest.mark.parametrize("statistics", STATISTICS)
async def test_a_batch_is_not_joined_row_by_row(
    connection: Connection, statistics: str, *, in_turns: bool, are_blocked: bool
) -> None:
    names = [] if in_turns else await planned_once(connection, BATCH)
    await filled(connection, STATISTICS[statistics], are_blocked=are_blocked)
    if in_turns:
        cursor = await connection.execute(
            "SELECT array_agg(id), array_agg(next_run_at) FROM (SELECT * FROM routines.routines LIMIT %s) AS due",
            [BATCH],
        )
        chosen = dict(zip(("only_ids", "only_slots"), await cursor.fetchone() or (), strict=True))
        plan = await explained(connection, "tick.tick", **{**TICK, "batch_size": BATCH, "now": None, **chosen})
    else:
        plan = await explained_once(connection, names, **TICK, now=None)
    [claimed] = [node for node in nodes(plan) if node.get("Subplan Name") == "CTE claimed"]
    assert claimed["Actual Rows"] == BATCH
    assert wasted(plan) <= 4 * BATCH


RUNS = """INSERT INTO routines.trajectories
              (collection_id, task_id, task_version, triggered_by_routine_id, scheduled_for, trigger, init_params)
          SELECT 1, 1, 1, 1000000 + n, CASE trigger WHEN 'schedule' THEN now() END, trigger, '{}'
          FROM generate_series(1, 60) AS n, unnest(ARRAY['schedule', 'run-now']) AS trigger"""
ENDED = "UPDATE routines.trajectories SET status = 'completed', ended_at = now()"
DELETED = "TRUNCATE routines.trajectories CASCADE"
FEW_RUNS = {
    "none, ever": [],
    "none, and the statistics say so": [ANALYZE],
    "a few": [RUNS, ANALYZE],
    "a few that have ended": [RUNS, ENDED, ANALYZE],
    "none any more": [RUNS, ANALYZE, DELETED, ANALYZE],
    "none any more, unforeseen": [RUNS, ANALYZE, DELETED],
}


@pytest.mark.parametrize("runs", FEW_RUNS)
async def test_a_plan_made_at_few_runs_looks_only_for_those_of_its_batch(connection: Connection, runs: str) -> None:
    """It goes on in use when there are thousands. Every other index would be read whole, and costs as little then."""
    await connection.execute("ALTER TABLE routines.trajectories DISABLE TRIGGER USER")
    for statement in FEW_RUNS[runs]:
        await connection.execute(statement.encode())
    for name, setting in PLANNED_ONCE.items():
        await connection.execute("SELECT set_config(%s, %s, false)", [name, setting])
    text = await value(connection, "SELECT prosrc FROM pg_proc WHERE oid = 'routines.active_runs'::regproc")
    await connection.execute(f"PREPARE active (bigint[]) AS {text.replace('routine_ids', '$1')}".encode())
    plan = await value(connection, "EXPLAIN (FORMAT JSON) EXECUTE active ('{1}')")
    used = {node["Index Name"]: node["Index Cond"] for node in nodes(plan[0]["Plan"]) if "Index Name" in node}
    assert used == dict.fromkeys(
        ["trajectories_active_schedule_key", "trajectories_active_other_idx"],
        "(triggered_by_routine_id = ANY ($1))",
    )
