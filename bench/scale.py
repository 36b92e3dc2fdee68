"""Measure what grows with the number of routines, and with the number of runs that have ended.

python bench/scale.py [--routines 10000 1000000 10000000] [--runs 1000000 20000000] [--due 10000] [--rounds 3]
                      [--idle-seconds 60]

By itself, not in `make bench`: ten million routines take most of an hour and tens of gigabytes where TMPDIR points to.
The first table has a column for each number of routines. Each of these had one slot on the day before. The second has a
column for each number of past slots, spread over a million routines at most; scale_fill.py describes the data. What
belongs to one collection should cost the same in all columns.

Rates are inverted for the growth, so it is always that of the cost. Times are medians. The statements are those of the
programs, under their roles.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence

from harness import machine, server, table
from routines_core.db import connect
from scale_fill import COLLECTION, GIGABYTE, Size, fill, ids_of, say
from scale_measures import Figure, Figures, delays, fires, idle, reads, retention, sizes

MOST_GROWTH = 1.25
RUNS_AMONG = 1_000_000
"""Runs are added to at most so many routines."""
BYTES_PER_ROUTINE, BYTES_PER_SLOT, SPARE_BYTES = 1000, 1400, 5 * GIGABYTE
"""Disk space that a database needs: for a routine and a past slot with all that belongs to them, and for WAL."""


async def measured(size: Size, options: argparse.Namespace) -> Figures:
    """Fill a server of this size and measure everything."""
    say(f"{size.routines:,} routines, {size.slots:,} past slots")
    with server() as url:
        async with connect(url, "bench") as connection:
            began_at = time.monotonic()
            midnight = await fill(connection, size)
            found: Figures = {"filling, s": Figure(time.monotonic() - began_at, "fact")}
            for name, measure in {
                "sizes": lambda: sizes(connection),
                "reads": lambda: reads(connection, url, size, midnight),
                "idle ticker": lambda: idle(connection, url, options.idle_seconds),
                "start delay": lambda: delays(connection, url, size),
                "fires together": lambda: fires(
                    connection, url, ids_of(1, size)[: options.due], "in one collection", options.rounds
                ),
                "fires spread": lambda: fires(
                    connection, url, size.spread(options.due), "spread over all", options.rounds
                ),
                "retention": lambda: retention(url),
            }.items():
                say(name)
                figures = await measure()
                for row, figure in figures.items():
                    say(f"  {row}: {shown(figure.value)}")
                found |= figures
    return found


def sizes_of(options: argparse.Namespace) -> tuple[list[Size], list[Size]]:
    """Return the columns of both tables."""
    among = min([*options.runs, RUNS_AMONG])
    return [Size(each, 1) for each in options.routines], [Size(among, each // among) for each in options.runs]


def check_space(columns: Sequence[Size]) -> None:
    """Say how much disk space the largest database needs, and end the program if there is less."""
    most = max(size.routines * BYTES_PER_ROUTINE + size.slots * BYTES_PER_SLOT for size in columns) + SPARE_BYTES
    directory = tempfile.gettempdir()
    free = shutil.disk_usage(directory).free
    space = f"{most / GIGABYTE:,.0f} GB of disk space in {directory}, where {free / GIGABYTE:,.0f} GB are free"
    if free < most:
        raise SystemExit(f"This needs {space}. Set TMPDIR to a larger one, or ask for less.")
    say(f"needs {space}")


def print_table(heading: str, columns: Sequence[tuple[int, Figures]]) -> None:
    """Print a row for each figure, a column for each size, and the growth from the first to the last."""
    rows: list[list[str]] = []
    for name in columns[0][1]:
        figures = [found[name] for _, found in columns]
        rows.append([name, *(shown(figure.value) for figure in figures), growth(figures[0], figures[-1])])
    table([heading, *(f"{number:,}" for number, _ in columns), "growth"], rows)
    print()


def shown(value: float) -> str:
    """Return three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def growth(first: Figure, last: Figure) -> str:
    """Return by what factor the cost grew, in bold if that is above the mark."""
    before, after = (last.value, first.value) if first.kind == "rate" else (first.value, last.value)
    if first.kind == "fact" or not before:
        return ""
    grown = f"{after / before:.2f}"
    return f"**{grown}**" if after / before > MOST_GROWTH else grown


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routines", type=int, nargs="*", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--runs", type=int, nargs="*", default=[1_000_000, 20_000_000])
    parser.add_argument("--due", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle-seconds", type=int, default=60)
    options = parser.parse_args()
    by_routines, by_runs = sizes_of(options)
    check_space([*by_routines, *by_runs])
    print(f"Collections of {COLLECTION:,} daily routines, {options.due:,} due at once; {machine()}\n")
    found = {size: await measured(size, options) for size in dict.fromkeys([*by_routines, *by_runs])}
    if by_routines:
        print_table("routines", [(size.routines, found[size]) for size in by_routines])
    if by_runs:
        print_table(f"past slots, of {by_runs[0].routines:,} routines", [(size.slots, found[size]) for size in by_runs])


if __name__ == "__main__":
    asyncio.run(main())
