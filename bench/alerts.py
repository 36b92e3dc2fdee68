"""Measure what judging alert rules costs, and how long it takes until all late routines of an outage have their alert.

python bench/alerts.py [--routines 100000] [--rules 1000] [--seconds 60]

The routines are hourly, in ten collections. Of each collection's rules, five watch all of its routines and the others
one routine each, all for all events. The traffic is that of as many hourly routines: runs start and end in time, one in
fifty fails. Nothing of it is the work of a ticker or a worker, so that only the judging is measured: the processor time
of its backend and of the process that asks.
"""

import argparse
import asyncio
import time

from harness import cpu_seconds, machine, one, server, table, until
from routines_core.db import Connection, connect
from routines_core.db.migrations import migrate
from routines_engine.alerts import run_alerts
from routines_engine.metrics import WorkerMetrics

MOST_PERCENT = 1.0
"""The limit for judging with this traffic: a share of one core."""
COLLECTIONS = 10
OF_ALL = 5
"""Rules of a collection that watch all its routines."""
TENANTS = """
    INSERT INTO routines.collections (name) SELECT 'c' || n FROM generate_series(1, %(collections)s) AS n;
    INSERT INTO routines.tasks (collection_id, name) SELECT id, 'echo' FROM routines.collections ORDER BY id;
    INSERT INTO routines.task_versions (task_id, version, workflow) SELECT id, 1, '{}' FROM routines.tasks;
"""
ROUTINES = """
    INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, minute_utc)
    SELECT 1 + mod(n, %(collections)s), 1 + mod(n, %(collections)s), 'r' || n, 'hourly', mod(n, 60)
    FROM generate_series(1, %(count)s) AS n
"""
RULES = """
    INSERT INTO routines.alert_rules (collection_id, name, events, streak, webhook_url, task_id, routine_id)
    SELECT collection_id, 'r' || number, '{late,missed,failed,streak,slow,paused,webhook_stopped,recovered}', 3,
           'http://receiver.test/', CASE WHEN number > %(of_all)s THEN task_id END,
           CASE WHEN number > %(of_all)s THEN id END
    FROM (SELECT *, row_number() OVER (PARTITION BY collection_id ORDER BY id) AS number
          FROM routines.routines) AS counted
    WHERE number <= %(rules)s / %(collections)s
"""
BEGIN = """
    INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                       scheduled_for, init_params)
    SELECT collection_id, task_id, 1, id, 'schedule', clock_timestamp(), '{}'
    FROM routines.routines WHERE id BETWEEN %(first)s AND %(last)s
"""
END = """
    UPDATE routines.trajectories
    SET status = CASE WHEN mod(id, 50) = 0 THEN 'failed' ELSE 'completed' END,
        error = CASE WHEN mod(id, 50) = 0 THEN 'no response' END, started_at = created_at, ended_at = clock_timestamp()
    WHERE final_status IS NULL
"""


async def fill(connection: Connection, routines: int, rules: int) -> None:
    given = {"collections": COLLECTIONS, "count": routines, "rules": rules, "of_all": OF_ALL}
    for statement in TENANTS.split(";")[:3]:
        await connection.execute(statement.encode(), given)
    await connection.execute(ROUTINES.encode(), given)
    await connection.execute(RULES.encode(), given)
    # Far from now, so that no ticker is missed.
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '1 day'")
    await connection.execute("VACUUM (ANALYZE)")


async def traffic(connection: Connection, routines: int, stop: asyncio.Event) -> None:
    """Start and end the runs of so many hourly routines, a second's worth each second."""
    each, first = max(1, routines // 3600), 1
    while not stop.is_set():
        began_at = time.monotonic()
        await connection.execute(BEGIN.encode(), {"first": first, "last": first + each - 1})
        await connection.execute(END.encode())
        first = 1 if first + 2 * each > routines else first + each
        await asyncio.sleep(max(0.0, 1 - (time.monotonic() - began_at)))


async def share(connection: Connection, url: str, routines: int, seconds: int, *, is_busy: bool) -> tuple[str, ...]:
    """Return a row of the table: the processor time of judging for so long."""
    stop = asyncio.Event()
    async with connect(url, "bench-traffic") as other:
        judging = asyncio.create_task(run_alerts(url, stop, WorkerMetrics()))
        load = asyncio.create_task(traffic(other, routines, stop)) if is_busy else None
        await asyncio.sleep(3)
        pid = await one(connection, "SELECT pid FROM pg_stat_activity WHERE application_name = 'routines-alerts'")
        opened = await one(connection, "SELECT count(*) FROM routines.alerts")
        before, own = cpu_seconds(pid), time.process_time()
        await asyncio.sleep(seconds)
        used, own = cpu_seconds(pid) - before, time.process_time() - own
        opened = await one(connection, "SELECT count(*) FROM routines.alerts") - opened
        stop.set()
        await judging
        if load:
            await load
    name = "slots end" if is_busy else "nothing happens"
    # The own time has the traffic in it, so without one it is the measure for both.
    return name, f"{opened:,}", f"{100 * used / seconds:.2f} %", f"{100 * own / seconds:.2f} %"


async def outage(connection: Connection, url: str, routines: int) -> tuple[str, ...]:
    """Return a row of the table: how long it takes until all alerts of routines that are all late are told."""
    await connection.execute("UPDATE routines.routines SET next_run_at = now() - interval '2 minutes'")
    await connection.execute("DELETE FROM routines.webhook_deliveries")
    stop, began_at = asyncio.Event(), time.monotonic()
    judging = asyncio.create_task(run_alerts(url, stop, WorkerMetrics()))
    of_one = await one(connection, "SELECT count(*) FROM routines.alert_rules WHERE routine_id > 0")
    expected = OF_ALL * routines + of_one
    first = "SELECT count(*) > 0 FROM routines.webhook_deliveries"
    every = "SELECT count(*) >= %s FROM routines.alerts WHERE event = 'late' AND notice_id IS NOT NULL"
    await until(connection, first)
    first_seconds = time.monotonic() - began_at
    await until(connection, every, expected)
    seconds = time.monotonic() - began_at
    notices = await one(connection, "SELECT count(*) FROM routines.webhook_deliveries WHERE event_status = 'late'")
    stop.set()
    await judging
    return f"{routines:,}", f"{expected:,}", f"{first_seconds:.1f}", f"{seconds:.1f}", f"{notices:,}"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routines", type=int, default=100_000)
    parser.add_argument("--rules", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    print(f"{options.rules:,} rules over {options.routines:,} routines, {options.seconds} s each; {machine()}\n")
    with server() as url:
        async with connect(url, "bench", statement_timeout="600s") as connection:
            await migrate(connection)
            await fill(connection, options.routines, options.rules)
            rows = [
                await share(connection, url, options.routines, options.seconds, is_busy=is_busy)
                for is_busy in (False, True)
            ]
            table(["", "alerts opened", "share of a core, backend", "program and bench"], rows)
            print()
            table(
                ["late at once", "alerts", "s until the first notice", "s until all are told", "notices"],
                [await outage(connection, url, options.routines)],
            )
    if float(rows[1][2].rstrip(" %")) > MOST_PERCENT:
        raise SystemExit("Judging takes too much processor time.")


if __name__ == "__main__":
    asyncio.run(main())
