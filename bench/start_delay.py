"""Measure the delay from the slot to the committed trajectory and to the first started step, with the real programs.

python bench/start_delay.py [--due 1 100 10000 100000] [--tickers 1 3] [--samples 300] [--worker-due 1 100 1000]

`--due` routines share a moment. A single routine is repeated `--samples` times and a hundred are repeated 30 times, to
give p99 enough samples; larger numbers bring enough of their own. The server times the commits
(track_commit_timestamp); a step starts at its row's created_at.
"""

import argparse
import asyncio
from datetime import timedelta
from typing import NamedTuple

from harness import (
    clear,
    column,
    filled,
    machine,
    make_due,
    percentile,
    programs,
    server,
    table,
    until,
    until_nothing_waits,
)
from routines_core.db import Connection

COMMITTED = """SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(xmin) - scheduled_for)
               FROM routines.trajectories WHERE scheduled_for IS NOT NULL"""
DECIDED = "SELECT 1000 * extract(epoch FROM created_at - scheduled_for) FROM routines.trajectories"
FIRST_STEP = """SELECT 1000 * extract(epoch FROM min(steps.created_at) - scheduled_for)
                FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id
                GROUP BY trajectories.id, scheduled_for"""
NO_RUN_WAITS = """SELECT NOT EXISTS (SELECT FROM routines.trajectories
                                     WHERE ended_at IS NULL AND NOT EXISTS (
                                         SELECT FROM routines.steps WHERE trajectory_id = trajectories.id))"""


class Moments(NamedTuple):
    """How many moments routines come due at, and how far apart they are."""

    many: int
    every_seconds: float


def moments_of(due: int, samples: int) -> Moments:
    """Choose the moments: few suffice if each brings many samples."""
    if due == 1:
        # Out of step with the worker, which polls every 100 ms: each sample meets it at a different point of its wait.
        return Moments(samples, 0.23)
    if due <= 100:
        return Moments(30, 1)
    return Moments(3 if due <= 10_000 else 1, 4)


async def fire(connection: Connection, due: int, moments: Moments) -> None:
    """Let the routines come due and wait until every slot has its outcome."""
    count, every_seconds = moments
    first = await make_due(connection, range(1, due * count + 1), every_seconds=every_seconds, each=due)
    await until_nothing_waits(connection, first, first + timedelta(seconds=(count - 1) * every_seconds))


def row(what: str, tickers: int, due: int, delays: list[float]) -> tuple[object, ...]:
    """Return a row of the table; `delays` in milliseconds."""
    shares = [f"{percentile(delays, share):,.1f}" for share in (0.5, 0.95, 0.99)]
    return (what, tickers, f"{due:,}", f"{len(delays):,}", f"{min(delays):,.1f}", *shares, f"{max(delays):,.1f}")


async def committed(connection: Connection, url: str, tickers: int, due: int, samples: int) -> tuple[object, ...]:
    """Measure from the slot to the committed trajectory, without a worker."""
    await clear(connection)
    async with programs(connection, url, "ticker", tickers):
        await fire(connection, due, moments_of(due, samples))
    if min(await column(connection, DECIDED)) < 0:
        raise RuntimeError("A fire was early.")
    return row("committed", tickers, due, await column(connection, COMMITTED))


async def first_step(connection: Connection, url: str, tickers: int, due: int, samples: int) -> tuple[object, ...]:
    """Measure from the slot to the first started step, with one worker."""
    await clear(connection)
    async with programs(connection, url, "worker", 1), programs(connection, url, "ticker", tickers):
        await fire(connection, due, moments_of(due, samples))
        await until(connection, NO_RUN_WAITS)
    return row("first step", tickers, due, await column(connection, FIRST_STEP))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--due", type=int, nargs="*", default=[1, 100, 10_000, 100_000])
    parser.add_argument("--worker-due", type=int, nargs="*", default=[1, 100, 1000])
    parser.add_argument("--tickers", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--samples", type=int, default=300)
    options = parser.parse_args()
    most = max(due * moments_of(due, options.samples).many for due in (*options.due, *options.worker_due))
    print(f"Delay from the slot in ms, {most:,} routines; {machine()}\n")
    rows: list[tuple[object, ...]] = []
    with server() as url:
        async with filled(url, most) as connection:
            for tickers in options.tickers:
                rows += [await committed(connection, url, tickers, due, options.samples) for due in options.due]
                rows += [await first_step(connection, url, tickers, due, options.samples) for due in options.worker_due]
    table(["to", "tickers", "due at once", "samples", "min", "p50", "p95", "p99", "max"], rows)


if __name__ == "__main__":
    asyncio.run(main())
