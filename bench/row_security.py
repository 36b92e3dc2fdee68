"""What row-level security costs: the real API on a database, and on a copy of it where it is switched off.

python bench/row_security.py [--rounds 9] [--seconds 2] [--connections 16]

Both servers run all the time and are asked in turns, as in bench/api.py. Printed are the medians of the rounds, and the
median of their ratios.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from api import LOADS, SETTINGS, fill, median, rounds_of
from http_load import free_port, require_wrk, server
from routines_core.db import connect
from routines_core.embedded import EmbeddedServer

COPY = "without_row_security"


async def copy_without(postgres: EmbeddedServer) -> str:
    """The key of the filled database and of its copy."""
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
    """The URL of a real API on this database."""
    port = free_port()
    environment = {**SETTINGS, "DATABASE_URL": url, "ROUTINES_PORT": str(port)}
    with server([sys.executable, "-m", "routines_cli.main", "api"], port, environment) as api:
        yield api


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
            with api_on(postgres.url()) as secured, api_on(postgres.url(COPY)) as bare:
                print(f"{'':16}    with  without    ratio   (requests/s)")
                for _, load in LOADS:
                    ours, control = rounds_of(load, (secured, bare), key, options)
                    ratio = statistics.median(a.per_second / b.per_second for a, b in zip(ours, control, strict=True))
                    print(
                        f"{load.name:16}{median(ours).per_second:8.0f}{median(control).per_second:9.0f}{ratio:9.2f}",
                        flush=True,
                    )
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
