"""Give the benchmarks a server of their own, routines that come due at one moment, and the real programs."""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from routines_core.db import Connection, connect
from routines_core.db.migrations import migrate
from routines_core.embedded import EmbeddedServer
from routines_core.keyring import generate_key

BATCH = 1000
LIMIT_SECONDS = 180.0
"""How long a benchmark waits for a state of the database before it fails."""
SETTLE_SECONDS = 2.0
"""How long everything stays quiet before the slot."""
CHUNK = 250_000
"""Rows that one statement inserts: well within the timeout, whatever triggers do for each."""


class NotReadyError(RuntimeError):
    """The slot came before everything was ready."""

    def __init__(self) -> None:
        super().__init__("The slot came before everything was ready: the machine is too slow or too busy.")


@contextmanager
def server(**settings: str) -> Generator[str]:
    """Yield the URL of an embedded server with its default settings, which is removed at the end of the block.

    The one addition is track_commit_timestamp: the server times the commits, so that the programs need not report them.
    """
    with tempfile.TemporaryDirectory() as directory:
        embedded = EmbeddedServer(Path(directory), settings={"track_commit_timestamp": "on", **settings})
        embedded.start()
        try:
            yield embedded.url()
        finally:
            embedded.stop()


@asynccontextmanager
async def filled(url: str, routines: int) -> AsyncGenerator[Connection]:
    """Yield a connection to the migrated database with one task and `routines` daily routines, due in half a day."""
    async with connect(url, "bench", statement_timeout="300s") as connection:
        await migrate(connection)
        await connection.execute("INSERT INTO routines.collections (name) VALUES ('bench')")
        await connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (1, 'echo')")
        await connection.execute(
            """INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (1, 1,
                   '{"init_params": {"text": "x"}, "steps": ["say"],
                     "step_configs": {"say": {"activity": "text_echo", "text_path": "init_params.text"}}}')"""
        )
        await add_routines(connection, 1, routines)
        yield connection


async def add_routines(connection: Connection, first: int, last: int) -> None:
    """Insert routines, all due in half a day."""
    async with slots_given(connection):
        for part in chunks(first, last):
            await connection.execute(
                """INSERT INTO routines.routines
                       (collection_id, task_id, name, cadence_type, hour_utc, minute_utc, next_run_at)
                   SELECT 1, 1, 'r' || n, 'daily', extract(hour FROM half_a_day_on), mod(n, 60), half_a_day_on
                   FROM (SELECT now() AT TIME ZONE 'UTC' + interval '12 hours' AS half_a_day_on) AS clock,
                        generate_series(%(first)s, %(last)s::integer) n""",
                part,
            )
    await connection.execute("VACUUM (ANALYZE) routines.routines, routines.routine_names")


@asynccontextmanager
async def slots_given(connection: Connection) -> AsyncGenerator[None]:
    """Insert routines with their next_run_at, without the trigger that would compute the slot of each."""
    await connection.execute("ALTER TABLE routines.routines DISABLE TRIGGER keep_next_run_at")
    yield
    await connection.execute("ALTER TABLE routines.routines ENABLE TRIGGER keep_next_run_at")


def chunks(first: int, last: int) -> Generator[dict[str, int]]:
    """Yield `first` and `last` of each chunk of these numbers, as parameters of a statement."""
    for start in range(first, last + 1, CHUNK):
        yield {"first": start, "last": min(start + CHUNK - 1, last)}


async def clear(connection: Connection) -> None:
    """Delete all runs and skips."""
    await connection.execute("TRUNCATE routines.trajectories, routines.begun_runs, routines.skips CASCADE")


async def make_due(
    connection: Connection, ids: Iterable[int], *, every_seconds: float, each: int, is_foreseen: bool = True
) -> datetime:
    """Give these routines slots from a whole second in the near future on, `each` at once; return the first slot.

    That second is far enough ahead for the table to be vacuumed and the disk to be quiet when it comes. Unless
    `is_foreseen`, the planner's statistics are from before, when these routines were due in six hours, as they are in
    production after a change of many routines.

    Raises:
        NotReadyError: The machine is too slow or too busy.
    """
    listed = list(ids)
    begun = time.monotonic()
    await _set_slots(connection, listed, None, every_seconds, each)
    await connection.execute("VACUUM (ANALYZE) routines.routines")
    await connection.execute("CHECKPOINT")
    took = time.monotonic() - begun
    first = await one(
        connection,
        "SELECT date_trunc('second', clock_timestamp()) + make_interval(secs => ceil(%s::float8))",
        2 * took + SETTLE_SECONDS,
    )
    await _set_slots(connection, listed, first, every_seconds, each)
    await connection.execute(f"VACUUM (ANALYZE {is_foreseen}) routines.routines".encode())
    await connection.execute("CHECKPOINT")
    if not await one(connection, "SELECT clock_timestamp() < %s", first):
        raise NotReadyError
    return first


async def _set_slots(
    connection: Connection, ids: Sequence[int], first: datetime | None, every_seconds: float, each: int
) -> None:
    await connection.execute(
        """UPDATE routines.routines SET settled_until = NULL,
                  next_run_at = coalesce(%(first)s::timestamptz, now() + interval '6 hours')
                                + ((position - 1) / %(each)s) * %(every)s::float8 * interval '1 second'
           FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS given (id, position) WHERE routines.id = given.id""",
        {"ids": list(ids), "first": first, "each": each, "every": every_seconds},
    )


@asynccontextmanager
async def programs(
    connection: Connection, url: str, name: str, count: int, **settings: str
) -> AsyncGenerator[list[subprocess.Popen[bytes]]]:
    """Yield `count` processes of `routines NAME`, all connected and idle; they are stopped at the end of the block."""
    command = [sys.executable, "-m", "routines_cli.main", name]
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "ROUTINES_TICK_BATCH_SIZE": str(BATCH),
        "ROUTINES_ENCRYPTION_KEYS": generate_key(),
        **settings,
    }
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(count)
    ]
    try:
        await until(
            connection,
            """SELECT count(*) >= %s FROM pg_stat_activity
               WHERE application_name = %s AND state = 'idle' AND query <> ''""",
            count,
            f"routines-{name}",
        )
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def cpu_seconds(pid: int) -> float:
    """Return the user and system time that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started (Linux)."""
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


async def cpu_used(
    connection: Connection, program: str, process: subprocess.Popen[bytes], seconds: float
) -> tuple[float, float]:
    """Return the CPU seconds that a program and its backends use within these seconds."""
    named = "SELECT pid FROM pg_stat_activity WHERE starts_with(application_name, %s)"
    pids = (process.pid, *map(int, await column(connection, named, f"routines-{program}")))
    before = [cpu_seconds(pid) for pid in pids]
    await asyncio.sleep(seconds)
    own, *backends = (cpu_seconds(pid) - cpu for pid, cpu in zip(pids, before, strict=True))
    return own, sum(backends)


async def timed(act: Callable[[], Awaitable[object]]) -> float:
    """Return the seconds that it takes."""
    began_at = time.perf_counter()
    await act()
    return time.perf_counter() - began_at


async def one(connection: Connection, query: str, *parameters: object) -> Any:
    """Return the first column of the first row, or None if there is no row."""
    row = await (await connection.execute(query.encode(), parameters)).fetchone()
    return row[0] if row else None


async def column(connection: Connection, query: str, *parameters: object) -> list[float]:
    """Return the first column of every row."""
    return [float(row[0]) for row in await (await connection.execute(query.encode(), parameters)).fetchall()]


async def until(connection: Connection, query: str, *parameters: object, poll_seconds: float = 0.1) -> None:
    """Wait until the query's single value is true.

    Raises:
        TimeoutError: It was not true within `LIMIT_SECONDS`.
    """
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await one(connection, query, *parameters):
            await asyncio.sleep(poll_seconds)


async def until_nothing_waits(connection: Connection, first: datetime, last: datetime) -> None:
    """Wait until every slot up to `last` has its outcome; sends nothing until that time, to disturb nothing."""
    ahead = await one(connection, "SELECT extract(epoch FROM %s - clock_timestamp())", last)
    await asyncio.sleep(max(0.0, float(ahead)))
    waits = "SELECT NOT EXISTS (SELECT FROM routines.routines WHERE next_run_at BETWEEN %s AND %s)"
    await until(connection, waits, first, last)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is at least as large as this share of the values."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table, ready for docs/trust/performance.md."""
    print("| " + " | ".join(headings) + " |")
    print("|" + "---|" * len(headings))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def machine() -> str:
    """Describe the machine in one line, for the head of a table."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{os.cpu_count()} CPUs ({model}), Python {sys.version.split()[0]}, {sys.platform}"
