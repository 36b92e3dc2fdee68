"""Fires per second of the real ticker program, against the bare statement from a bare connection in the same run.

python bench/fire_rate.py [--routines 100000] [--due 20000] [--tickers 1 2]
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from routines_core.db import Connection, connect
from routines_core.db.migrations import migrate
from routines_core.db.tick import tick
from routines_core.embedded import EmbeddedServer

BATCH = 1000
LIMIT_SECONDS = 120.0


async def fill(connection: Connection, routines: int) -> None:
    """One task and `routines` hourly routines."""
    await connection.execute("INSERT INTO routines.collections (name) VALUES ('bench')")
    await connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (1, 'echo')")
    await connection.execute(
        """INSERT INTO routines.task_versions (task_id, version, workflow)
           VALUES (1, 1, '{"init_params": {"text": "x"}}')"""
    )
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, minute_utc)
           SELECT 1, 1, 'r' || n, 'hourly', n %% 60 FROM generate_series(1, %s) n""",
        [routines],
    )
    await connection.execute("VACUUM (ANALYZE) routines.routines")


async def make_due(connection: Connection, due: int) -> None:
    """No run is left, and `due` routines have a slot a moment ago that was never fired."""
    await connection.execute(
        "TRUNCATE routines.trajectories, routines.steps, routines.webhook_deliveries, routines.skips"
    )
    await connection.execute(
        "UPDATE routines.routines SET next_run_at = date_trunc('minute', now()) WHERE id <= %s", [due]
    )
    await connection.execute("VACUUM (ANALYZE) routines.routines")
    await connection.execute("CHECKPOINT")


async def fired(connection: Connection) -> int:
    row = await (await connection.execute("SELECT count(*) FROM routines.trajectories")).fetchone()
    return row[0] if row else 0


async def control(url: str) -> float:
    """Seconds that the bare statement takes to drain what is due."""
    async with connect(url, "bench", plan_cache_mode="force_custom_plan") as connection:
        begun = time.perf_counter()
        while (await tick(connection, batch_size=BATCH, hourly_catchup_seconds=3600, catchup_seconds=3600)).claimed:
            pass
        return time.perf_counter() - begun


async def program(connection: Connection, url: str, tickers: int, due: int) -> float:
    """Fires per second of `tickers` processes, from the start of the first batch to that of the last.

    Start-up does not count, and neither do the fires of each ticker's last batch, whose end the rows do not tell.
    """
    command = [sys.executable, "-m", "routines_cli.main", "ticker"]
    environment = {**os.environ, "DATABASE_URL": url, "ROUTINES_TICK_BATCH_SIZE": str(BATCH)}
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for _ in range(tickers)]
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while await fired(connection) < due:
                await asyncio.sleep(0.05)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    row = await (
        await connection.execute(
            "SELECT extract(epoch FROM max(created_at) - min(created_at)) FROM routines.trajectories"
        )
    ).fetchone()
    return (due - tickers * BATCH) / float(row[0]) if row else 0.0


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routines", type=int, default=100_000)
    parser.add_argument("--due", type=int, default=20_000)
    parser.add_argument("--tickers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedServer(Path(directory))
        server.start()
        try:
            async with connect(server.url(), "bench") as connection:
                await migrate(connection)
                await fill(connection, options.routines)
                await make_due(connection, options.due)
                bare = options.due / await control(server.url())
                print(f"{options.due} due of {options.routines}, batches of {BATCH}; fires per second")
                print(f"control, bare statement   {bare:10.0f}")
                for tickers in options.tickers:
                    await make_due(connection, options.due)
                    rate = await program(connection, server.url(), tickers, options.due)
                    print(f"{tickers} ticker process(es)     {rate:10.0f}   {rate / bare:.2f} of the control")
        finally:
            server.stop()


if __name__ == "__main__":
    asyncio.run(main())
