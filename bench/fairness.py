"""Measure how long a collection's fires wait while another has 100,000 routines due at once, with the real programs.

python bench/fairness.py [--backlog 100000] [--others 100] [--tickers 1 3] [--rounds 3]

All of them come due at one whole second. The other collection's routines are the newest rows, so a claim in slot order
reaches them last. The control is the same without the backlog. The server times the commits (track_commit_timestamp).
"""

import argparse
import asyncio

from harness import (
    clear,
    column,
    filled,
    machine,
    make_due,
    one,
    percentile,
    programs,
    server,
    table,
    until_nothing_waits,
)
from routines_core.db import Connection

MAX_DELAY_SECONDS = 2.0
"""How late the other collection's fires may be."""
OTHERS = """SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - scheduled_for)
            FROM routines.trajectories WHERE collection_id = 2"""
LAST = """SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin) - scheduled_for)) FROM routines.trajectories"""


async def add_collection(connection: Connection, backlog: int) -> None:
    """Move all routines after the first `backlog` ones to a collection and a task of their own."""
    await connection.execute("INSERT INTO routines.collections (name) VALUES ('other')")
    await connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (2, 'echo')")
    await connection.execute(
        """INSERT INTO routines.task_versions (task_id, version, workflow)
           SELECT 2, 1, workflow FROM routines.task_versions"""
    )
    await connection.execute("ALTER TABLE routines.routines DISABLE TRIGGER keep_next_run_at")
    await connection.execute("UPDATE routines.routines SET collection_id = 2, task_id = 2 WHERE id > %s", [backlog])
    await connection.execute("ALTER TABLE routines.routines ENABLE TRIGGER keep_next_run_at")


async def delays(connection: Connection, url: str, tickers: int, first: int, last: int) -> tuple[list[float], float]:
    """Let the routines from `first` to `last` come due at once.

    Returns:
        The delays of the other collection's fires, and the longest delay of all fires, in seconds.
    """
    await clear(connection)
    async with programs(connection, url, "ticker", tickers):
        slot = await make_due(connection, range(first, last + 1), every_seconds=0, each=last)
        await until_nothing_waits(connection, slot, slot)
    return await column(connection, OTHERS), float(await one(connection, LAST))


def row(tickers: int, backlog: int, waited: list[float], last: float) -> tuple[object, ...]:
    """Return a row of the table, in seconds."""
    shares = [f"{percentile(waited, share):.2f}" for share in (0.5, 0.99)]
    return (tickers, f"{backlog:,}", f"{len(waited):,}", *shares, f"{max(waited):.2f}", f"{last:.2f}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--others", type=int, default=100)
    parser.add_argument("--tickers", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"Delay in s of another collection's fires, {options.rounds} rounds; {machine()}\n")
    everything = options.backlog + options.others
    found: dict[tuple[int, int], tuple[list[float], float]] = {}
    with server() as url:
        async with filled(url, everything) as connection:
            await add_collection(connection, options.backlog)
            for _ in range(options.rounds):
                for tickers in options.tickers:
                    for backlog in (0, options.backlog):
                        waited, last = await delays(connection, url, tickers, options.backlog - backlog + 1, everything)
                        before, until = found.get((tickers, backlog), ([], 0.0))
                        found[tickers, backlog] = before + waited, max(until, last)
    rows = [row(*key, *values) for key, values in found.items()]
    table(["tickers", "backlog", "samples", "p50", "p99", "max", "last overall"], rows)
    worst = max(max(waited) for waited, _ in found.values())
    if worst > MAX_DELAY_SECONDS:
        raise SystemExit(f"The other collection waited {worst:.2f} s; the limit is {MAX_DELAY_SECONDS:.0f} s.")


if __name__ == "__main__":
    asyncio.run(main())
