"""What scale.py measures in a database that scale_fill.py has filled. Each function returns its rows of the table."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from fire_rate import bare_rate
from harness import (
    NotReadyError,
    column,
    cpu_used,
    make_due,
    median,
    one,
    percentile,
    programs,
    timed,
    until_nothing_waits,
)
from routines_core.db import Connection, connect, ledger, planning, report, runs
from routines_core.db.keys import create_key
from routines_core.db.peppers import Peppers
from routines_core.db.retention import delete_page
from routines_core.db.trajectories import list_runs, list_trajectories
from routines_core.keyring import Keyring, generate_key
from routines_core.settings import Settings
from routines_engine.runs.fair_share import FairShare
from scale_fill import GIGABYTE, Size, ids_of, say

Value = TypeVar("Value")

SAMPLES = 20
"""How often a statement is sent, for another routine or task each time where it is of one."""
STRIDE = 499
"""From one such routine to the next: of another task, and with another fate."""
SLOTS, EVERY_SECONDS = 50, 0.23
"""Single slots for the start delay, and how far apart they are."""
KEEP_SECONDS = 90 * 86400.0
"""How long retention keeps runs."""
CAPACITY: int = Settings.model_fields["worker_concurrency"].default
LEASE_SECONDS: float = Settings.model_fields["lease_seconds"].default
DEADLINE_SECONDS: float = Settings.model_fields["run_deadline_seconds"].default
SIZED = ("routines", "routine_names", "audit", "trajectories", "steps", "day_sums")
"""Tables that have a row for each routine, and those that have one for each run."""
COMMITTED = """SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(xmin) - scheduled_for)
               FROM routines.trajectories WHERE ended_at IS NULL AND scheduled_for >= %s"""
END_RUNS = """UPDATE routines.trajectories SET status = 'completed', started_at = coalesce(started_at, now()),
                     ended_at = now(), updated_at = now(), lease_expires_at = NULL WHERE ended_at IS NULL"""
SOME_ROUTINES = """SELECT routines.id, routines.name, tasks.name AS task, task_id, last_run_at
                   FROM routines.routines JOIN routines.tasks ON tasks.id = task_id
                   WHERE routines.id = ANY (%s) ORDER BY routines.id"""


class Figure(NamedTuple):
    """A measured value. A cost grows if it gets larger, a rate if it gets smaller; a fact has no growth."""

    value: float
    kind: Literal["cost", "rate", "fact"] = "cost"


Figures = dict[str, Figure]


class Routine(NamedTuple):
    """A routine to ask about, with its last slot."""

    id: int
    name: str
    task: str
    task_id: int
    slot: datetime


async def median_ms(act: Callable[[int], Awaitable[object]], samples: int = SAMPLES) -> Figure:
    """Return the median milliseconds of `act`, which is given the number of the sample; the first one warms up."""
    took = [await timed(lambda: act(number)) for number in range(samples + 1)]  # noqa: B023
    return Figure(1000 * median(took[1:]))


async def sizes(connection: Connection) -> Figures:
    """Return the size of the data directory, and the bytes of a row of each table with its indexes and TOAST."""
    directory = Path(await one(connection, "SHOW data_directory"))
    used = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    found: Figures = {"data directory, GB": Figure(used / GIGABYTE, "fact")}
    for name in SIZED:
        per_row = f"SELECT pg_total_relation_size('routines.{name}') / count(*)::float8 FROM routines.{name}"
        found[f"bytes of a row of {name}"] = Figure(await one(connection, per_row))
    return found


async def reads(connection: Connection, url: str, size: Size, midnight: datetime) -> Figures:
    """Return how long it takes to answer questions about one collection, from the statements of the API."""
    collection = (size.collections + 1) // 2
    await create_key(connection, f"c{collection}", Peppers(Keyring.parse(generate_key())))
    key_id = await one(connection, "SELECT max(id) FROM routines.api_keys")
    some = ids_of(collection, size)
    chosen = [some[STRIDE * number % len(some)] for number in range(SAMPLES + 1)]
    rows = await (await connection.execute(SOME_ROUTINES, [chosen])).fetchall()
    of = [Routine(*row) for row in rows]
    yesterday, now = midnight - timedelta(days=1), await one(connection, "SELECT now()")
    async with connect(url, "scale-api", role="routines_api") as api:
        return {
            "first page of a routine's runs, ms": await median_ms(
                lambda number: list_runs(api, key_id=key_id, task=of[number].task, name=of[number].name, limit=21)
            ),
            "first page of a task's trajectories, ms": await median_ms(
                lambda number: list_trajectories(
                    api, key_id=key_id, task_id=of[number].task_id, status=None, routine_id=None, limit=10
                )
            ),
            "why of a routine, ms": await median_ms(
                lambda number: ledger.why(api, key_id=key_id, routine_id=of[number].id, at=of[number].slot)
            ),
            "gaps of a routine's day, ms": await median_ms(
                lambda number: report.gaps(
                    api,
                    key_id=key_id,
                    routine_id=of[number].id,
                    since=yesterday,
                    until=midnight,
                    limit=101,
                    with_failed=True,
                )
            ),
            "report of a collection's day, ms": await median_ms(
                lambda _: report.report(
                    api, key_id=key_id, since=yesterday, until=midnight, late_after_seconds=60, limit=1001
                ),
                5,
            ),
            "schedule load of a collection's week, ms": await median_ms(
                lambda _: planning.schedule_load(
                    api, key_id=key_id, since=now, until=now + timedelta(days=7), minutes=60
                ),
                5,
            ),
        }


async def idle(connection: Connection, url: str, seconds: int) -> Figures:
    """Return the CPU time of a ticker with nothing to do, and of its backends."""
    async with programs(connection, url, "ticker", 1) as [process]:
        await asyncio.sleep(2)  # let it finish starting
        used = sum(await cpu_used(connection, "ticker", process, seconds))
    return {"idle ticker, CPU s a minute": Figure(60 / seconds * used)}


async def fires(connection: Connection, url: str, due: range, how: str, rounds: int) -> Figures:
    """Return the rate of the tick, how long a worker's claims from these runs take, and vacuum after each round."""
    rates: list[float] = []
    claims: list[float] = []
    vacuums: dict[str, list[float]] = {"routines": [], "trajectories": []}
    async with autovacuum_off(connection):
        for _ in range(rounds):
            await connection.execute("VACUUM routines.trajectories")
            rates.append(await patiently(connection, lambda: bare_rate(connection, url, due)))
            say(f"{rates[-1]:,.0f} fires/s")
            claims += await claim_some(url)
            await connection.execute(END_RUNS)
            for name, took in vacuums.items():
                took.append(await vacuum_seconds(connection, url, name))
    return {
        f"fires/s, due {how}": Figure(median(rates), "rate"),
        f"claim of {CAPACITY} runs {how}, ms": Figure(1000 * median(claims)),
        **{f"autovacuum of {name} after fires {how}, s": Figure(median(took)) for name, took in vacuums.items()},
    }


async def patiently(connection: Connection, act: Callable[[], Awaitable[Value]]) -> Value:
    """Repeat what was not ready for its slot: an hour of filling should not be lost to one busy moment."""
    for _ in range(2):
        try:
            return await act()
        except NotReadyError:
            say("the machine is busy: again")
            await connection.execute(END_RUNS)
    return await act()


async def claim_some(url: str) -> list[float]:
    """Claim batches of pending runs as a worker does, and return the seconds of each after the first."""
    served, took = FairShare(), list[float]()
    async with connect(url, "scale-worker", role="routines_worker") as worker:
        for _ in range(SAMPLES):
            began_at = time.perf_counter()
            claimed = await runs.claim(
                worker,
                capacity=CAPACITY,
                worker="scale",
                lease_seconds=LEASE_SECONDS,
                deadline_seconds=DEADLINE_SECONDS,
                last_tasks=served.last_tasks,
            )
            took.append(time.perf_counter() - began_at)
            for run in claimed:
                served.note(run)
    return took[1:]


@asynccontextmanager
async def autovacuum_off(connection: Connection) -> AsyncGenerator[None]:
    """Leave what is to be vacuumed to this program until the end of the block."""
    await connection.execute("ALTER SYSTEM SET autovacuum = off")
    await connection.execute("SELECT pg_reload_conf()")
    yield
    await connection.execute("ALTER SYSTEM RESET autovacuum")
    await connection.execute("SELECT pg_reload_conf()")


async def vacuum_seconds(connection: Connection, url: str, name: str) -> float:
    """Vacuum and analyze a table as autovacuum does: with its pauses, and without other processes."""
    pauses = await one(connection, "SHOW autovacuum_vacuum_cost_delay")
    async with connect(url, "scale-vacuum", vacuum_cost_delay=pauses) as vacuum:
        return await timed(lambda: vacuum.execute(f"VACUUM (ANALYZE, PARALLEL 0) routines.{name}".encode()))


async def delays(connection: Connection, url: str, size: Size) -> Figures:
    """Return the milliseconds from the slot of a single routine to its commit by the real ticker."""
    ids = size.spread(SLOTS)
    async with programs(connection, url, "ticker", 1):
        first = await patiently(connection, lambda: make_due(connection, ids, every_seconds=EVERY_SECONDS, each=1))
        await until_nothing_waits(connection, first, first + timedelta(seconds=EVERY_SECONDS * len(ids)))
    found = await column(connection, COMMITTED, first)
    if len(found) != len(ids):
        raise RuntimeError(f"{len(found)} of {len(ids)} slots fired")
    await connection.execute(END_RUNS)
    return {
        "slot to commit, p50, ms": Figure(percentile(found, 0.5)),
        "slot to commit, p99, ms": Figure(percentile(found, 0.99)),
    }


async def retention(url: str) -> Figures:
    """Delete the old runs, and return how many a second."""
    deleted, after, took = 0, 0, 0.0
    async with connect(url, "scale-retention", role="routines_worker") as worker:
        while True:
            began_at = time.perf_counter()
            page = await delete_page(worker, "trajectories", keep_seconds=KEEP_SECONDS, after=after)
            took += time.perf_counter() - began_at
            deleted, after = deleted + page.deleted, page.last_id or 0
            if page.is_last:
                return {"retention, runs/s": Figure(deleted / took, "rate")}
