"""What an idle ticker costs: statements and CPU seconds per minute, with nothing due for half a day.

python bench/idle.py [--routines 10000 1000000] [--seconds 60]
"""

import argparse
import asyncio
import os
from pathlib import Path

from support import filled, machine, one, programs, server, table

CALLS = """SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
           WHERE userid = (SELECT usesysid FROM pg_user WHERE usename = current_user)
             AND position('pg_stat_statements' IN query) = 0"""


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def idle(routines: int, seconds: int) -> tuple[object, ...]:
    """One line of the table."""
    with server(shared_preload_libraries="pg_stat_statements") as url:
        async with filled(url, routines) as connection:
            await connection.execute("CREATE EXTENSION pg_stat_statements")
            async with programs(connection, url, "ticker", 1) as [ticker]:
                backend = await one(
                    connection, "SELECT pid FROM pg_stat_activity WHERE application_name = 'routines-ticker'"
                )
                calls, pids = await one(connection, CALLS), (ticker.pid, backend)
                before = [cpu_seconds(pid) for pid in pids]
                await asyncio.sleep(seconds)
                used = [cpu_seconds(pid) - cpu for pid, cpu in zip(pids, before, strict=True)]
                calls = await one(connection, CALLS) - calls
    per_minute = 60 / seconds
    return (
        f"{routines:,}",
        f"{float(calls) * per_minute:.0f}",
        *(f"{value * per_minute:.2f}" for value in used),
        f"{100 * sum(used) / seconds:.2f} %",
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routines", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    print(f"An idle ticker, per minute, over {options.seconds} s; {machine()}\n")
    rows = [await idle(routines, options.seconds) for routines in options.routines]
    table(["routines", "statements", "CPU s, ticker", "CPU s, its backend", "of a core"], rows)


if __name__ == "__main__":
    asyncio.run(main())
