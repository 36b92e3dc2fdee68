"""The floor: what it costs Postgres to fire at all, without anything of ours but the rows and what must never go wrong.

Twin tables hold the same rows, with the same columns and storage. One statement claims, inserts the run and advances.
The database guarantees what it does for us: one run for a slot, one active scheduled run for a routine, and the order
of the queue. Nothing else: no look for active runs, no catch-up, no skips, no merged parameters, no triggers.
"""

import asyncio
import time

from harness import BATCH, one
from routines_core.db import Connection, connect
from routines_core.db.tick import PLANNED_ONCE

TWINS = """
    DROP SCHEMA IF EXISTS floor CASCADE;
    CREATE SCHEMA floor;
    CREATE TABLE floor.routines (LIKE routines.routines INCLUDING DEFAULTS INCLUDING STORAGE);
    ALTER TABLE floor.routines SET (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, vacuum_index_cleanup = on);
    INSERT INTO floor.routines SELECT * FROM routines.routines;
    ALTER TABLE floor.routines ADD PRIMARY KEY (id);
    CREATE INDEX ON floor.routines (next_run_at) WHERE next_run_at IS NOT NULL;
    CREATE TABLE floor.runs (LIKE routines.trajectories INCLUDING DEFAULTS INCLUDING IDENTITY INCLUDING STORAGE);
    ALTER TABLE floor.runs SET (fillfactor = 50);
    ALTER TABLE floor.runs ADD PRIMARY KEY (id);
    CREATE UNIQUE INDEX ON floor.runs (triggered_by_routine_id, scheduled_for) WHERE scheduled_for IS NOT NULL;
    CREATE UNIQUE INDEX ON floor.runs (triggered_by_routine_id) WHERE trigger = 'schedule' AND ended_at IS NULL;
    CREATE INDEX ON floor.runs (collection_id, task_id, id) WHERE ended_at IS NULL;
"""
FIRE = """
    WITH due AS MATERIALIZED (
        SELECT id, collection_id, task_id, next_run_at FROM floor.routines
        WHERE next_run_at <= now() ORDER BY next_run_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
    ),
    fired AS (
        INSERT INTO floor.runs
            (collection_id, task_id, task_version, triggered_by_routine_id, trigger, scheduled_for, init_params)
        SELECT collection_id, task_id, 1, id, 'schedule', next_run_at, '{}' FROM due
    )
    UPDATE floor.routines SET next_run_at = routines.next_run_at + interval '1 day', last_run_at = now()
    FROM due WHERE routines.id = due.id AND routines.id = ANY (ARRAY(SELECT id FROM due))
"""


async def floor_rate(connection: Connection, url: str, due: range) -> float:
    """Return the fires per second of the floor, batch after batch, on one connection.

    The statistics are fresh, and the batches begin just after a checkpoint.
    """
    await connection.execute(TWINS.encode())
    await connection.execute("UPDATE floor.routines SET next_run_at = now() WHERE id = ANY (%s)", [list(due)])
    await connection.execute("VACUUM (ANALYZE) floor.routines, floor.runs")
    await connection.execute("CHECKPOINT")
    await asyncio.sleep(1)
    fire = FIRE.replace("%(batch)s", str(BATCH)).encode()
    async with connect(url, "floor", **PLANNED_ONCE) as bare:
        begun, fired = time.perf_counter(), 0
        while fired < len(due):
            fired += (await bare.execute(fire, prepare=True)).rowcount
        took = time.perf_counter() - begun
    if await one(connection, "SELECT count(*) FROM floor.runs") != len(due):
        raise RuntimeError("The floor did not fire each slot once.")
    return len(due) / took
