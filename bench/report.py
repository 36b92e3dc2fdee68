"""Measure what a report takes: of a month, a day and the past hours, by the sums of days and without them.

python bench/report.py [--routines 10000] [--days 30] [--rounds 5]

Hourly routines in 50 tasks, of whose slots 2 % were missed and 1 % failed. Filling in 10,000 takes minutes.
"""

import argparse
import asyncio

from harness import machine, median, one, server, table, timed
from routines_core.db import Connection, connect
from routines_core.db.day_sums import sum_up
from routines_core.db.migrations import migrate

ROUTINES = """
    INSERT INTO routines.collections (name) VALUES ('reported');
    INSERT INTO routines.tasks (collection_id, name) SELECT 1, 't' || n FROM generate_series(1, 50) AS n;
    INSERT INTO routines.task_versions (task_id, version, workflow) SELECT id, 1, '{}' FROM routines.tasks;
    INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, minute_utc)
    SELECT 1, 1 + mod(n, 50), 'r' || n, 'hourly', mod(n, 60) FROM generate_series(1, %(routines)s) AS n
"""
SLOTS = """
    WITH slot AS (
        SELECT id, task_id, hour + minute_utc * interval '1 minute' AS at, random() AS fate
        FROM routines.routines,
             generate_series(%(since)s::timestamptz, %(since)s::timestamptz + interval '23 hours', '1 hour') AS hour
        WHERE hour < now() - interval '1 hour' ORDER BY at
    ),
    missed AS (
        INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason)
        SELECT 1, id, at, at, 'missed' FROM slot WHERE fate < 0.02
    )
    INSERT INTO routines.trajectories (
        collection_id, task_id, task_version, triggered_by_routine_id, trigger, scheduled_for, init_params, status,
        created_at, started_at, ended_at)
    SELECT 1, task_id, 1, id, 'schedule', at, '{}', CASE WHEN fate > 0.99 THEN 'failed' ELSE 'completed' END, at,
           at + interval '1 second', at + interval '9 seconds'
    FROM slot WHERE fate >= 0.02
"""
LEFT = (
    "SELECT summed_until + 1 <= ((now() - interval '2 hours') AT TIME ZONE 'UTC')::date FROM routines.day_sums_progress"
)
"""Whether days are left to be summed up."""
EVERYTHING = "sum(expected), sum(recovered), max(max_delay_seconds)"
"""What needs all parts of a report: Postgres leaves out what no column asks for."""
TIMES = {
    "the month": "now() - %(days)s * interval '1 day', now()",
    "a day of it": "date_trunc('day', now()) - interval '3 days', date_trunc('day', now()) - interval '2 days'",
    "since midnight": "date_trunc('day', now()), now()",
}


async def fill(connection: Connection, routines: int, days: int) -> None:
    """Add the routines, and their slots without triggers, day by day."""
    for statement in ROUTINES.split(";\n"):
        await connection.execute(statement.encode(), {"routines": routines, "days": days})
    await connection.execute("SET session_replication_role = replica")
    for day in range(days, -1, -1):
        since = await one(connection, "SELECT date_trunc('day', now()) - %s * interval '1 day'", day)
        await connection.execute(SLOTS.encode(), {"since": since})
    await connection.execute(
        "UPDATE routines.routines SET settled_until = now(), next_run_at = now() + interval '1 hour'"
    )
    await connection.execute("SET session_replication_role = origin")
    await connection.execute("VACUUM (ANALYZE)")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routines", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.routines:,} hourly routines, {options.days} days; {machine()}\n")
    took: dict[tuple[str, int], list[float]] = {}
    with server() as url:
        async with connect(url, "bench", statement_timeout="600s") as connection:
            await migrate(connection)
            await fill(connection, options.routines, options.days)
            batches: list[float] = []
            while not batches or await one(connection, LEFT):
                batches.append(await timed(lambda: sum_up(connection, "next")))
            await connection.execute("VACUUM (ANALYZE) routines.day_sums")
            for _ in range(options.rounds):
                for name, time_range in TIMES.items():
                    for late_after in (60, 61):
                        question = f"SELECT {EVERYTHING} FROM routines.report_of(1, {time_range}, {late_after})"
                        days = {"days": options.days} if "%(days)" in question else None
                        seconds = await timed(lambda: connection.execute(question.encode(), days))  # noqa: B023
                        took.setdefault((name, late_after), []).append(1000 * seconds)
            size = await one(connection, "SELECT pg_size_pretty(pg_total_relation_size('routines.day_sums'))")
    rows = [
        (
            name,
            f"{median(took[name, 60]):,.0f}",
            f"{median(took[name, 61]):,.0f}",
            f"{min(took[name, 60]):,.0f}-{max(took[name, 60]):,.0f}",
        )
        for name in TIMES
    ]
    table(["report of", "ms, by sums", "ms, by runs", "range by sums"], rows)
    print(f"\nsumming up: {sum(batches):,.1f} s in {len(batches)} batches, the longest {max(batches):.2f} s; {size}")


if __name__ == "__main__":
    asyncio.run(main())
