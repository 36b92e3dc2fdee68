"""Measure fires per second of the real ticker against the bare statement on a bare connection, in the same run.

python bench/fire_rate.py [--routines 10000 100000 1000000] [--due 10000] [--tickers 1 2 4] [--rounds 5]

The routines come due at one whole second, which all tickers are waiting for. The clock stops at the last commit, which
the server records (track_commit_timestamp). Each round starts just after a checkpoint. The due routines were either
created one after the other ("together") or are every n-th of all ("spread"), so that hardly any two share a page. Each
figure is the median of the rounds.
"""

import argparse
import asyncio
import time

from harness import (
    BATCH,
    clear,
    filled,
    machine,
    make_due,
    median,
    one,
    programs,
    server,
    table,
    until_nothing_waits,
)
from routines_core.db import Connection, connect
from routines_core.db.tick import tick

LAST_COMMIT = """SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin)) - %s)
                 FROM (SELECT DISTINCT xmin FROM routines.trajectories) AS batches"""


async def control(connection: Connection, url: str, due: range) -> float:
    """Return the fires per second of the bare statement, batch after batch, on a connection that has already run it."""
    async with connect(url, "control", plan_cache_mode="force_custom_plan") as bare:
        await clear(connection)
        first = await make_due(connection, due, every_seconds=0, each=len(due))
        await asyncio.sleep(float(await one(connection, "SELECT extract(epoch FROM %s - clock_timestamp())", first)))
        begun, fired = time.perf_counter(), 0
        while fired < len(due):
            fired += (await tick(bare, batch_size=BATCH, hourly_catchup_seconds=3600, catchup_seconds=3600)).fired
        return len(due) / (time.perf_counter() - begun)


async def program(connection: Connection, url: str, tickers: int, due: range) -> float:
    """Return the fires per second of `tickers` processes, from the slot to the last commit."""
    await clear(connection)
    async with programs(connection, url, "ticker", tickers):
        first = await make_due(connection, due, every_seconds=0, each=len(due))
        await until_nothing_waits(connection, first, first)
    if (fired := await one(connection, "SELECT count(*) FROM routines.trajectories")) != len(due):
        raise RuntimeError(f"{fired} of {len(due)} slots fired")
    return len(due) / float(await one(connection, LAST_COMMIT, first))


async def rates(routines: int, due: int, tickers: list[int], rounds: int) -> list[tuple[object, ...]]:
    """Return a row for each number of tickers, the control first; also the spread rows if not all routines are due."""
    chosen = {"together": range(1, due + 1), "spread": range(1, routines + 1, routines // due)[:due]}
    if routines == due:
        del chosen["spread"]
    measured: dict[tuple[str, int], list[float]] = {(how, count): [] for how in chosen for count in (0, *tickers)}
    with server() as url:
        async with filled(url, routines) as connection:
            for _ in range(rounds):  # alternate, so that a busy moment of the machine does not spoil just one of them
                for how, ids in chosen.items():
                    measured[how, 0].append(await control(connection, url, ids))
                    for count in tickers:
                        measured[how, count].append(await program(connection, url, count, ids))
    return [
        (
            f"{routines:,}",
            f"{due:,} {how}",
            f"{count} ticker(s)" if count else "control",
            f"{median(values):,.0f}",
            f"{min(values):,.0f}-{max(values):,.0f}",
            f"{median(values) / median(measured[how, 0]):.2f}",
        )
        for (how, count), values in measured.items()
    ]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routines", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--due", type=int, default=10_000)
    parser.add_argument("--tickers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"Fires per second, batches of {BATCH}; {machine()}\n")
    rows = [
        row
        for routines in options.routines
        for row in await rates(routines, min(options.due, routines), options.tickers, options.rounds)
    ]
    table(["routines", "due", "", "fires/s, median", "range", "ratio to control"], rows)


if __name__ == "__main__":
    asyncio.run(main())
