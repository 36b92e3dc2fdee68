"""Measure what planning takes for a collection, beside a larger one: the load of a week, its report, and quiet minutes.

python bench/planning.py [--routines 10000] [--others 200000] [--rounds 5]

The routines are hourly, daily, on weekdays and weekly, in 50 tasks. Each has started a run a day in the past week.
"""

import argparse
import asyncio
import time

from harness import machine, median, one, server, table
from routines_core.db import Connection, connect
from routines_core.db.migrations import migrate

TASKS = """
    INSERT INTO routines.collections (name) VALUES ('planned'), ('other');
    INSERT INTO routines.tasks (collection_id, name)
    SELECT collection, 't' || n FROM generate_series(1, 2) AS collection, generate_series(1, 50) AS n;
    INSERT INTO routines.task_versions (task_id, version, workflow) SELECT id, 1, '{}' FROM routines.tasks;
"""
ROUTINES = """
    INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, hour_utc, minute_utc, day_of_week)
    SELECT %(collection)s::bigint, 50 * (%(collection)s - 1) + 1 + mod(n, 50), 'r' || n, type,
           CASE WHEN type <> 'hourly' THEN mod(n, 24) END, mod(7 * n, 60),
           CASE WHEN type = 'weekly' THEN (ARRAY['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'])[1 + mod(n, 7)] END
    FROM generate_series(1, %(count)s) AS n,
         LATERAL (SELECT (ARRAY['hourly', 'daily', 'daily', 'weekdays', 'weekly'])[1 + mod(n, 5)] AS type) AS kind
"""
RUNS = """
    INSERT INTO routines.trajectories (
        collection_id, task_id, task_version, triggered_by_routine_id, trigger, scheduled_for, init_params, status,
        started_at, ended_at)
    SELECT collection_id, task_id, 1, id, 'schedule', date_trunc('hour', now()) - day * interval '1 day', '{}',
           'completed', now() - interval '1 minute', now()
    FROM routines.routines, generate_series(1, 7) AS day WHERE collection_id = 1
"""
QUESTIONS = {
    "the coming week by the hour": "routines.schedule_load(1, now(), now() + interval '7 days', '1 hour')",
    "by the minute": "routines.schedule_load(1, now(), now() + interval '7 days', '1 minute')",
    "the past week by the hour": "routines.schedule_load(1, now() - interval '7 days', now(), '1 hour')",
    "the report of the past week": "routines.report_of(1, now() - interval '7 days', now())",
    "quiet minutes within an hour": "routines.quiet_minutes(1, routines.cadence_from_json("
    '\'{"type": "daily", "hour_utc": 9, "minute_utc": 0}\'), 60)',
}


async def fill(connection: Connection, routines: int, others: int) -> None:
    await connection.execute(TASKS.encode())
    for collection, count in ((1, routines), (2, others)):
        await connection.execute(ROUTINES.encode(), {"collection": collection, "count": count})
    await connection.execute(RUNS.encode())
    await connection.execute("VACUUM (ANALYZE)")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routines", type=int, default=10_000)
    parser.add_argument("--others", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.routines:,} routines beside {options.others:,} of another collection; {machine()}\n")
    rows: list[tuple[object, ...]] = []
    with server() as url:
        async with connect(url, "bench", statement_timeout="600s") as connection:
            await migrate(connection)
            await fill(connection, options.routines, options.others)
            for name, question in QUESTIONS.items():
                took: list[float] = []
                for _ in range(options.rounds):
                    began_at = time.perf_counter()
                    await one(connection, f"SELECT count(*) FROM {question}")
                    took.append(1000 * (time.perf_counter() - began_at))
                rows.append((name, f"{median(took):,.0f}", f"{min(took):,.0f}-{max(took):,.0f}"))
    table(["", "ms, median", "range"], rows)


if __name__ == "__main__":
    asyncio.run(main())
