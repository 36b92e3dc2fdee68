"""Measure fires per second of the real ticker against the bare statement on a bare connection, in the same run.

python bench/fire_rate.py [--routines 10000 100000 1000000] [--due 10000] [--tickers 1 2] [--rounds 5]

The routines come due at one whole second, which all tickers are waiting for. The clock stops at the last commit, which
the server records (track_commit_timestamp). Each round starts just after a checkpoint. The due routines were either
created one after the other ("together") or are every n-th of all ("spread"), so that hardly any two share a page. The
planner's statistics foresaw what is due or were made before it was set ("unforeseen"). The floor is the least that any
statement with the same guarantees could do (floor.py). Each figure is the median of the rounds.
"""

import argparse
import asyncio
import time

from floor import floor_rate
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
from routines_core.db.tick import PLANNED_ONCE, tick

LAST_COMMIT = """SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin)) - %s)
                 FROM (SELECT DISTINCT xmin FROM routines.trajectories) AS batches"""


async def control(connection: Connection, url: str, due: range, *, is_foreseen: bool) -> float:
    """Return the fires per second of the bare statement, from an empty table of runs."""
    await clear(connection)
    return await bare_rate(connection, url, due, is_foreseen=is_foreseen)


async def bare_rate(connection: Connection, url: str, due: range, *, is_foreseen: bool = True) -> float:
    """Return the fires per second of the bare statement, batch after batch, on a connection that has already run it."""
    async with connect(url, "control", **PLANNED_ONCE) as bare:
        first = await make_due(connection, due, every_seconds=0, each=len(due), is_foreseen=is_foreseen)
        bare.prepare_threshold = 0
        await tick(bare, batch_size=BATCH, hourly_catchup_seconds=3600, catchup_seconds=3600)
        await asyncio.sleep(float(await one(connection, "SELECT extract(epoch FROM %s - clock_timestamp())", first)))
        begun, fired = time.perf_counter(), 0
        while fired < len(due):
            fired += (await tick(bare, batch_size=BATCH, hourly_catchup_seconds=3600, catchup_seconds=3600)).fired
        return len(due) / (time.perf_counter() - begun)


async def program(connection: Connection, url: str, tickers: int, due: range, *, is_foreseen: bool) -> float:
    """Return the fires per second of `tickers` processes, from the slot to the last commit."""
    await clear(connection)
    async with programs(connection, url, "ticker", tickers):
        first = await make_due(connection, due, every_seconds=0, each=len(due), is_foreseen=is_foreseen)
        await until_nothing_waits(connection, first, first)
    if (fired := await one(connection, "SELECT count(*) FROM routines.trajectories")) != len(due):
        raise RuntimeError(f"{fired} of {len(due)} slots fired")
    return len(due) / float(await one(connection, LAST_COMMIT, first))


async def rates_of(routines: int, due: int, tickers: list[int], rounds: int) -> list[tuple[object, ...]]:
    """Return a row for each number of tickers, the control first; also the spread rows if not all routines are due."""
    chosen = {"together": range(1, due + 1), "spread": range(1, routines + 1, routines // due)[:due]}
    if routines == due:
        del chosen["spread"]
    measured: dict[tuple[str, bool, int], list[float]] = {
        (how, foreseen, count): [] for how in chosen for foreseen in (True, False) for count in (0, *tickers)
    }
    floors: dict[str, list[float]] = {how: [] for how in chosen}
    with server() as url:
        async with filled(url, routines) as connection:
            for _ in range(rounds):  # alternate, so that a busy moment of the machine does not spoil just one of them
                for (how, foreseen, count), rates in measured.items():
                    if count:
                        rate = await program(connection, url, count, chosen[how], is_foreseen=foreseen)
                    else:
                        rate = await control(connection, url, chosen[how], is_foreseen=foreseen)
                    rates.append(rate)
                for how, rates in floors.items():
                    rates.append(await floor_rate(connection, url, chosen[how]))
    rows: list[tuple[object, ...]] = [
        (
            f"{routines:,}",
            f"{due:,} {how}",
            "floor",
            f"{median(rates):,.0f}",
            f"{min(rates):,.0f}-{max(rates):,.0f}",
            f"{median(rates) / median(measured[how, True, 0]):.2f}",
        )
        for how, rates in floors.items()
    ]
    return rows + [
        (
            f"{routines:,}",
            f"{due:,} {how}" + ("" if foreseen else ", unforeseen"),
            f"{count} ticker(s)" if count else "control",
            f"{median(values):,.0f}",
            f"{min(values):,.0f}-{max(values):,.0f}",
            f"{median(values) / median(measured[how, foreseen, 0]):.2f}",
        )
        for (how, foreseen, count), values in measured.items()
    ]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routines", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--due", type=int, default=10_000)
    parser.add_argument("--tickers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"Fires per second, batches of {BATCH}; {machine()}\n")
    rows = [
        row
        for routines in options.routines
        for row in await rates_of(routines, min(options.due, routines), options.tickers, options.rounds)
    ]
    table(["routines", "due", "", "fires/s, median", "range", "ratio to control"], rows)


if __name__ == "__main__":
    asyncio.run(main())
