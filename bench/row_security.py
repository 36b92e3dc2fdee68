"""Measure what row-level security costs: the real API on a database, and on a copy without row-level security.

python bench/row_security.py [--rounds 9] [--seconds 2] [--connections 16]

Both servers run all the time and are loaded alternately, as in bench/api.py. The program prints the medians of the
rounds and the median of their ratios, both for requests per second and for the CPU time that the API and its server
processes spend on a request, which other work on the machine disturbs less. Needs Linux.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from api import LOADS, SETTINGS, fill
from http_load import Load, free_port, measure, require_wrk, server
from routines_core.db import connect
from routines_core.embedded import EmbeddedServer

COPY = "without_row_security"


async def copy_without(postgres: EmbeddedServer) -> str:
    """Fill the database, copy it, disable row-level security in the copy, and return the API key that both share."""
    key = await fill(postgres.url())
    async with connect(postgres.url("postgres"), "bench") as admin:
        await admin.execute(f"CREATE DATABASE {COPY} TEMPLATE routines".encode())
    async with connect(postgres.url(COPY), "bench") as owner:
        tables = await owner.execute("SELECT DISTINCT tablename FROM pg_policies WHERE schemaname = 'routines'")
        for (table,) in await tables.fetchall():
            await owner.execute(f"ALTER TABLE routines.{table} DISABLE ROW LEVEL SECURITY".encode())
    return key


@contextmanager
def api_on(url: str) -> Generator[str]:
    """Start a real API on this database and yield its URL."""
    port = free_port()
    environment = {**SETTINGS, "DATABASE_URL": url, "ROUTINES_PORT": str(port)}
    with server([sys.executable, "-m", "routines_cli.main", "api"], port, environment) as api:
        yield api


class Spent(NamedTuple):
    """The result of one round."""

    per_second: float
    cpu_us: float


def cpu_seconds(url: str, database: str) -> float:
    """Return the CPU time used so far by the API on this database and by the server processes behind it."""
    spent = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended, or belongs to another user
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            serves = command.startswith("postgres:") and f" {database} " in command
            asks = "main\0api" in command and f"DATABASE_URL={url}\0".encode() in (process / "environ").read_bytes()
            if serves or asks:
                spent += sum(int(path.read_text().split()[0]) for path in process.glob("task/*/schedstat")) / 1e9
    return spent


def one_round(load: Load, api: tuple[str, str, str], key: str, run: int, options: argparse.Namespace) -> Spent:
    """Load one server for a while."""
    address, url, database = api
    before = cpu_seconds(url, database)
    measured = measure(load, address, key, run=run, seconds=options.seconds, connections=options.connections)
    requests = measured.per_second * options.seconds
    return Spent(measured.per_second, (cpu_seconds(url, database) - before) / requests * 1e6)


def compare(load: Load, apis: list[tuple[str, str, str]], key: str, options: argparse.Namespace) -> str:
    """Return a row of the table; the server that goes first alternates."""
    rounds: list[list[Spent]] = [[], []]
    for each in range(options.rounds):
        for which in (0, 1) if each % 2 else (1, 0):
            rounds[which].append(one_round(load, apis[which], key, 2 * each + which, options))
    ours, control = (Spent(*map(statistics.median, zip(*spent, strict=True))) for spent in rounds)
    pairs = list(zip(*rounds, strict=True))
    rate = statistics.median(one.per_second / other.per_second for one, other in pairs)
    cpu = statistics.median(one.cpu_us / other.cpu_us for one, other in pairs)
    return (
        f"| {load.name} | {ours.per_second:,.0f} | {control.per_second:,.0f} | {rate:.2f} "
        f"| {ours.cpu_us:.0f} | {control.cpu_us:.0f} | {cpu:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    require_wrk()
    with tempfile.TemporaryDirectory() as directory:
        postgres = EmbeddedServer(Path(directory))
        postgres.start()
        try:
            key = asyncio.run(copy_without(postgres))
            urls = [(postgres.url(), "routines"), (postgres.url(COPY), COPY)]
            with api_on(urls[0][0]) as secured, api_on(urls[1][0]) as bare:
                apis = [(secured, *urls[0]), (bare, *urls[1])]
                print("| | requests/s with | without | ratio | CPU µs with | without | ratio |")
                print("|---" * 7 + "|")
                for _, load in LOADS:
                    print(compare(load, apis, key, options), flush=True)
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
