"""Measure runs per second of three-step flows, and the idle delay from commit to first step, with the real worker.

python bench/runs.py [--runs 5000] [--workers 1 2] [--rounds 3] [--samples 200]

The control is the same SQL without Python in between: the claim and checkpoint statements that one worker sends, with
as many runs at once, from one bare connection that has the record of every step ready.
"""

import argparse
import asyncio
import time
from typing import NamedTuple

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
from routines_core.db import Connection, connect, runs
from routines_core.db.runs import Checkpoint, StepRecord
from routines_core.settings import Settings

STEPS = ("one", "two", "three")
WORKFLOW = """{"init_params": {"text": "x"}, "steps": ["one", "two", "three"], "step_configs": {
    "one": {"activity": "text_echo", "text_path": "init_params.text"},
    "two": {"activity": "text_echo", "text_path": "one.outputs.text"},
    "three": {"activity": "text_echo", "text_path": "two.outputs.text"}}}"""
INSERT = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
            SELECT 1, 1, 2, 'api', '{"text": "x"}' FROM generate_series(1, %s::integer)"""
COMPLETED = "SELECT count(*) FILTER (WHERE status = 'completed') FROM routines.trajectories"
NO_RUN_IS_ACTIVE = "SELECT NOT EXISTS (SELECT FROM routines.trajectories WHERE ended_at IS NULL)"
TOOK = "SELECT extract(epoch FROM max(ended_at) - min(started_at)) FROM routines.trajectories"
FIRST_STEP = """SELECT 1000 * extract(epoch FROM steps.created_at - trajectories.created_at)
                FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id WHERE name = 'one'"""
CAPACITY = Settings.model_fields["worker_concurrency"].default
LEASE_SECONDS = 15.0


def record(position: int, status: str) -> StepRecord:
    """Return a step's record as the flow writes it."""
    text = {"text": "x"}
    return StepRecord(STEPS[position], position, status, "text_echo", text, text if status == "completed" else None)


ROUNDS = [
    lambda run: Checkpoint(run.id, run.fence, [record(0, "running")]),
    lambda run: Checkpoint(run.id, run.fence, [record(0, "completed"), record(1, "running")]),
    lambda run: Checkpoint(run.id, run.fence, [record(1, "completed"), record(2, "running")]),
    lambda run: Checkpoint(run.id, run.fence, [record(2, "completed")], "completed"),
]
"""The checkpoints that a worker writes for a run, in order."""


class Measured(NamedTuple):
    """One round: runs per second, and CPU time of a run in milliseconds, of the workers and their step processes."""

    per_second: float
    worker_ms: float = 0.0
    steps_ms: float = 0.0


async def control(connection: Connection, url: str, count: int) -> Measured:
    """Measure the bare statements."""
    await clear(connection)
    await connection.execute(INSERT, [count])
    async with connect(url, "control") as bare:
        begun, done = time.perf_counter(), 0
        while done < count:
            claimed = await runs.claim(
                bare, capacity=CAPACITY, worker="control", lease_seconds=LEASE_SECONDS, deadline_seconds=3600
            )
            for checkpoint in ROUNDS:
                await runs.write(bare, [checkpoint(run) for run in claimed], lease_seconds=LEASE_SECONDS)
            done += len(claimed)
        return Measured(count / (time.perf_counter() - begun))


async def program(connection: Connection, url: str, workers: int, count: int) -> Measured:
    """Measure `workers` workers, from the first claim to the last end."""
    await clear(connection)
    async with programs(connection, url, "worker", workers) as processes:
        await connection.execute(INSERT, [100 * workers])  # so that every program has begun to work
        await until(connection, NO_RUN_IS_ACTIVE)
        await clear(connection)
        pids = [process.pid for process in processes]
        before = cpu_ms(pids)
        await connection.execute(INSERT, [count])
        await until(connection, NO_RUN_IS_ACTIVE)
        worker_ms, steps_ms = (used - idle for used, idle in zip(cpu_ms(pids), before, strict=True))
    if (completed := await one(connection, COMPLETED)) != count:
        raise RuntimeError(f"{completed} of {count} runs completed")
    return Measured(count / float(await one(connection, TOOK)), worker_ms / count, steps_ms / count)


def cpu_ms(pids: list[int]) -> tuple[float, float]:
    """Return the CPU time that these workers have used, and that of their step processes."""
    children = [child for pid in pids for child in children_of(pid)]
    return 1000 * sum(map(cpu_seconds, pids)), 1000 * sum(map(cpu_seconds, children))


async def delays(connection: Connection, url: str, samples: int) -> list[float]:
    """Insert runs into an idle system, one by one; return the milliseconds from each insert to the first step."""
    await clear(connection)
    async with programs(connection, url, "worker", 1):
        await connection.execute(INSERT, [1])  # so that every program has begun to work
        await until(connection, NO_RUN_IS_ACTIVE)
        await clear(connection)
        for sample in range(samples):
            await asyncio.sleep(0.05 + 0.5 * (sample * 0.618 % 1))  # out of step with the worker's polling
            await connection.execute(INSERT, [1])
            await until(connection, NO_RUN_IS_ACTIVE, poll_seconds=0.02)
    return await column(connection, FIRST_STEP)


def row(rounds: list[Measured], bare: float) -> tuple[str, ...]:
    """Return the figures of one row of the table; the CPU time of the control is not measured."""
    rates = [each.per_second for each in rounds]
    spent = [median([getattr(each, part) for each in rounds]) for part in ("worker_ms", "steps_ms")]
    return (
        f"{median(rates):,.0f}",
        f"{min(rates):,.0f}-{max(rates):,.0f}",
        f"{median(rates) / bare:.2f}",
        *(f"{each:.2f}" if each else "" for each in spent),
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    print(f"Three-step flows, {options.runs:,} pending at once; {machine()}\n")
    measured: dict[int, list[Measured]] = {0: [], **{count: [] for count in options.workers}}
    with server() as url:
        async with filled(url, 1) as connection:
            await connection.execute(
                "INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (1, 2, %s::json)", [WORKFLOW]
            )
            for _ in range(
                options.rounds
            ):  # alternate, so that a busy moment of the machine does not spoil just one of them
                measured[0].append(await control(connection, url, options.runs))
                for count in options.workers:
                    measured[count].append(await program(connection, url, count, options.runs))
            idle = await delays(connection, url, options.samples)
    bare = median([each.per_second for each in measured[0]])
    rows = [(f"{count} worker(s)" if count else "control", *row(rounds, bare)) for count, rounds in measured.items()]
    table(["", "runs/s, median", "range", "ratio to control", "CPU ms of a run: worker", "step processes"], rows)
    print("\nDelay from commit to first step on an idle system, ms\n")
    shares = [f"{percentile(idle, share):.1f}" for share in (0.5, 0.95, 0.99)]
    table(
        ["samples", "min", "p50", "p95", "p99", "max"], [(len(idle), f"{min(idle):.1f}", *shares, f"{max(idle):.1f}")]
    )


if __name__ == "__main__":
    asyncio.run(main())
