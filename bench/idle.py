"""Measure what an idle ticker and an idle worker cost per minute: statements and CPU seconds, with nothing due.

python bench/idle.py [--routines 10000 1000000] [--seconds 60]
"""

import argparse
import asyncio

from harness import cpu_used, filled, machine, one, programs, server, table

CALLS = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE userid = %s::regrole"
MAX_STATEMENTS, MAX_PERCENT = 66, 0.2
"""Limits for an idle ticker: statements per minute (one a second, and a few for clock drift), and share of a core."""


async def idle(program: str, routines: int, seconds: int) -> tuple[str, ...]:
    """Return a row of the table."""
    with server(shared_preload_libraries="pg_stat_statements") as url:
        async with filled(url, routines) as connection:
            await connection.execute("CREATE EXTENSION pg_stat_statements")
            async with programs(connection, url, program, 1) as [process]:
                await asyncio.sleep(2)  # let it finish starting
                role = f"routines_{program}"
                calls = await one(connection, CALLS, role)
                used = await cpu_used(connection, program, process, seconds)
                calls = await one(connection, CALLS, role) - calls
    if not calls:
        raise RuntimeError(f"pg_stat_statements counted no statement of {role}.")
    per_minute = 60 / seconds
    return (
        program,
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
    print(f"Idle programs, per minute, over {options.seconds} s; {machine()}\n")
    rows = [await idle("ticker", routines, options.seconds) for routines in options.routines]
    rows.append(await idle("worker", options.routines[0], options.seconds))
    table(["", "routines", "statements", "CPU s, program", "CPU s, its backends", "share of a core"], rows)
    for _, routines, statements, *_, share in rows[:-1]:
        if int(statements) > MAX_STATEMENTS or float(share.rstrip(" %")) > MAX_PERCENT:
            raise SystemExit(f"An idle ticker with {routines} routines sends too many statements or uses too much CPU.")


if __name__ == "__main__":
    asyncio.run(main())
