"""Fill a database for scale.py as production would have filled it: all indexes, and the same rows beside each row.

Each collection has 10,000 daily routines in 50 tasks. Each routine had a slot on every past day: 2 % of the slots were
missed, and 1 % failed. A run has one step. Some runs are old enough to be deleted. Nothing is due for six hours.
"""

import sys
import time
from datetime import datetime, timedelta
from typing import NamedTuple

from harness import chunks, one, slots_given
from routines_core.db import Connection
from routines_core.db.day_sums import sum_up
from routines_core.db.migrations import migrate

COLLECTION = 10_000
"""Routines of a collection. Their ids follow one another."""
TASKS = 50
OLD_AGE_DAYS, OLD_DAYS, OLD_ROUTINES = 100, 5, 10_000
"""Old runs: how long ago they began, and of how many days and routines."""
SUMMED_AT_ONCE = 5_000
GIGABYTE = 1024**3

TENANTS = f"""
    INSERT INTO routines.collections (name) SELECT 'c' || n FROM generate_series(1, %(collections)s) AS n;
    INSERT INTO routines.tasks (collection_id, name)
    SELECT id, 't' || n FROM routines.collections, generate_series(1, {TASKS}) AS n ORDER BY id, n;
    INSERT INTO routines.task_versions (task_id, version, workflow)
    SELECT id, 1, '{{"init_params": {{"text": "x"}}, "steps": ["say"],
                    "step_configs": {{"say": {{"activity": "text_echo", "text_path": "init_params.text"}}}}}}'
    FROM routines.tasks
"""
ROUTINES = f"""
    INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, hour_utc, minute_utc, next_run_at,
                                   settled_until, last_run_at, created_at)
    SELECT collection, {TASKS} * (collection - 1) + 1 + mod(n, {TASKS}), 'r' || n, 'daily', extract(hour FROM slot),
           extract(minute FROM slot), slot, now(), %(yesterday)s::timestamptz + (slot - date_trunc('day', slot)),
           %(created_at)s
    FROM generate_series(%(first)s, %(last)s::integer) AS n
    CROSS JOIN LATERAL (SELECT 1 + (n - 1) / {COLLECTION}, date_trunc('hour', now()) + make_interval(
        hours => 6 + mod(n, 16), mins => mod(n / 16, 60))) AS chosen (collection, slot)
"""
SLOTS = """
    FROM (SELECT *, %(day)s::timestamptz + make_interval(hours => hour_utc, mins => minute_utc) AS slot,
                 mod(id + %(number)s, 100) AS fate
          FROM routines.routines WHERE id BETWEEN %(first)s AND %(last)s AND mod(id, %(every)s) = 0) AS routine
"""
"""The slots of a day, of every n-th of these routines. Those with the fates 0 and 50 were missed, 1 is a failed run."""
SKIPS = f"""
    INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason, recorded_at)
    SELECT collection_id, id, slot, slot, 'missed', slot + interval '1 hour' {SLOTS}
    WHERE mod(fate, 50) = 0 ORDER BY slot
"""
RUNS = f"""
    WITH run AS MATERIALIZED (
        SELECT nextval('routines.trajectories_id_seq') AS id, due.*, slot + interval '1 second' AS started_at,
               slot + interval '2 seconds' AS ended_at
        FROM (SELECT id AS routine_id, collection_id, task_id, slot,
                     CASE fate WHEN 1 THEN 'failed' ELSE 'completed' END AS status,
                     CASE fate WHEN 1 THEN 'refused' END AS error, CASE fate WHEN 1 THEN false END AS is_transient
              {SLOTS} WHERE mod(fate, 50) <> 0 ORDER BY slot) AS due
    ),
    step AS (
        INSERT INTO routines.steps (trajectory_id, name, position, fence, status, activity, inputs, outputs, error,
                                    is_transient, created_at, ended_at)
        SELECT id, 'say', 0, 1, status, 'text_echo', '{{"text": "x"}}',
               CASE status WHEN 'completed' THEN '{{"text": "x"}}'::jsonb END, error, is_transient, started_at, ended_at
        FROM run
    )
    INSERT INTO routines.trajectories (
        id, collection_id, task_id, task_version, triggered_by_routine_id, trigger, scheduled_for, created_at,
        updated_at, started_at, ended_at, deadline_at, fence, step_bytes, worker, first_workflow_id, init_params,
        status, error, is_transient)
    OVERRIDING SYSTEM VALUE
    SELECT id, collection_id, task_id, 1, routine_id, 'schedule', slot, slot,
           ended_at, started_at, ended_at, started_at + interval '1 hour', 1, 24, 'worker-1:4711',
           routines.workflow_id('c' || collection_id, 't' || task_id, id), '{{"text": "x"}}',
           status, 'say: ' || error, is_transient
    FROM run ORDER BY id
"""


class Size(NamedTuple):
    """How many routines, and for how many days each of them has run."""

    routines: int
    days: int

    @property
    def slots(self) -> int:
        """Return the number of past slots. 98 % of them started a run."""
        return self.routines * self.days

    @property
    def collections(self) -> int:
        """Return the number of collections."""
        return -(-self.routines // COLLECTION)

    def spread(self, count: int) -> range:
        """Return the ids of so many routines, as far from each other as they can be."""
        return range(1, self.routines + 1, max(1, self.routines // count))[:count]


def ids_of(collection: int, size: Size) -> range:
    """Return the ids of a collection's routines."""
    return range(COLLECTION * (collection - 1) + 1, min(COLLECTION * collection, size.routines) + 1)


def say(text: str) -> None:
    """Tell of the progress on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


async def fill(connection: Connection, size: Size) -> datetime:
    """Fill an empty database and return the midnight after the last day of its runs."""
    await migrate(connection)
    midnight: datetime = await one(connection, "SELECT date_trunc('day', now())")
    for statement in TENANTS.split(";\n"):
        await connection.execute(statement.encode(), {"collections": size.collections})
    yesterday, oldest = midnight - timedelta(days=1), midnight - timedelta(days=OLD_AGE_DAYS)
    async with slots_given(connection):
        for part in chunks(1, size.routines):
            times = {"yesterday": yesterday, "created_at": oldest}
            await connection.execute(ROUTINES.encode(), {**part, **times})
            say(f"{part['last']:,} routines")
    await connection.execute("VACUUM (ANALYZE) routines.routines")
    every = max(1, size.routines // OLD_ROUTINES)
    for day in range(OLD_DAYS):
        await fill_day(connection, size.routines, oldest + timedelta(days=day), every=every)
    for ago in range(size.days, 0, -1):
        await fill_day(connection, size.routines, midnight - timedelta(days=ago))
    await sum_up_days(connection, midnight - timedelta(days=size.days), midnight)
    say("vacuum")
    await connection.execute("VACUUM (ANALYZE)")
    await connection.execute("CHECKPOINT")
    return midnight


async def fill_day(connection: Connection, routines: int, day: datetime, *, every: int = 1) -> None:
    """Add what became of the slots of a day, of every n-th routine.

    Without triggers: they would take each run for one that was inserted late, and note that its day has changed. What
    the life of a run leaves behind is in the statements.
    """
    await connection.execute("SET session_replication_role = replica")
    for part in chunks(1, routines):
        slots = {**part, "day": day, "number": day.toordinal(), "every": every}
        await connection.execute(SKIPS.encode(), slots)
        await connection.execute(RUNS.encode(), slots)
        say(f"runs of {day:%d %B}, {part['last']:,} routines")
    await connection.execute("SET session_replication_role = origin")


async def sum_up_days(connection: Connection, first: datetime, midnight: datetime) -> None:
    """Sum up the days from `first` on, as workers do two hours after the end of each."""
    await connection.execute(
        "INSERT INTO routines.day_sums_progress (summed_from, summed_until) VALUES (%(day)s, %(day)s)",
        {"day": first.date()},
    )
    summed = 0
    while handled := await sum_up(connection, "next", batch_size=SUMMED_AT_ONCE, now=midnight + timedelta(hours=2)):
        summed += handled
        if summed // 500_000 > (summed - handled) // 500_000:
            say(f"{summed:,} days of routines summed up")
