"""Measure requests per second of the real API against bare handlers that run the same statements (bench/bare_api.py).

python bench/api.py [--rounds 9] [--seconds 2] [--connections 16]

Both servers run all the time, and wrk loads them alternately, round by round, so that other work on the machine affects
both. The program prints the medians of the rounds. The database is the embedded one, with fsync on.
"""

import argparse
import asyncio
import base64
import statistics
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from http_load import Load, Measured, free_port, measure, require_wrk, server
from routines_core.db import connect
from routines_core.db.keys import create_key
from routines_core.db.migrations import migrate
from routines_core.db.peppers import Peppers
from routines_core.embedded import EmbeddedServer
from routines_core.keyring import Keyring

ROUTINES = "/api/v1/routines/bench"
CADENCE = '{"type": "weekdays", "hour_utc": 9}'
LOADS = [
    (0.8, Load("GET one routine", "GET", f"{ROUTINES}/read/r{{i}}")),
    (0.8, Load("list 50", "GET", f"{ROUTINES}/read?limit=50")),
    (0.7, Load("create", "POST", f"{ROUTINES}/write", f'{{"name": "r{{n}}", "cadence": {CADENCE}}}')),
    (0.7, Load("PATCH", "PATCH", f"{ROUTINES}/read/r{{i}}", '{"init_params_overrides": {"text": "{n}"}}')),
    (0.7, Load("run", "POST", "/api/v1/run/bench/write", '{"init_params": {"text": "{n}"}}')),
]
"""Each load with its target ratio to the bare handlers."""
SETTINGS = {
    "ENABLE_ROUTINES": "true",
    "ROUTINES_ENCRYPTION_KEYS": "k1:" + base64.b64encode(bytes(32)).decode(),
    "ROUTINES_RATE_PER_SECOND": "1000000",  # never exhausted; the burst keeps its default
}


async def fill(url: str) -> str:
    """Create two tasks without limits, `read` with 50 routines and `write` with none, and return an API key."""
    async with connect(url, "bench") as connection:
        await migrate(connection)
        key = await create_key(connection, "bench", Peppers(Keyring.parse(SETTINGS["ROUTINES_ENCRYPTION_KEYS"])))
        await connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (1, 'read'), (1, 'write')")
        await connection.execute(
            """INSERT INTO routines.task_versions (task_id, version, workflow)
               SELECT id, 1, '{"init_params": {"text": "x"}}' FROM routines.tasks"""
        )
        await connection.execute(
            """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, hour_utc)
               SELECT 1, tasks.id, 'r' || n, 'weekdays', 9
               FROM routines.tasks, generate_series(0, 49) n WHERE tasks.name = 'read'"""
        )
        await connection.execute(
            """INSERT INTO routines.collection_limits (name, value)
               SELECT name, NULL FROM unnest(ARRAY['runs_per_minute', 'active_runs', 'routines']) AS name"""
        )
        await connection.execute("VACUUM (ANALYZE) routines.routines")
    return key


@contextmanager
def both_servers(url: str, key: str) -> Generator[tuple[str, str]]:
    """Yield the URLs of the real server and of the bare one."""
    real, bare = free_port(), free_port()
    key_id = key.split("_")[1]
    environment = {**SETTINGS, "DATABASE_URL": url, "ROUTINES_PORT": str(real)}
    bare_command = [sys.executable, str(Path(__file__).with_name("bare_api.py")), str(bare), key_id, url]
    with (
        server([sys.executable, "-m", "routines_cli.main", "api"], real, environment) as real_url,
        server(bare_command, bare, {}) as bare_url,
    ):
        yield real_url, bare_url


def rounds_of(load: Load, urls: tuple[str, str], key: str, options: argparse.Namespace) -> list[list[Measured]]:
    """Return the measured rounds of each server; the server that goes first alternates."""
    found: list[list[Measured]] = [[], []]
    for each in range(options.rounds):
        for which in (0, 1) if each % 2 else (1, 0):
            run = 2 * each + which
            found[which].append(
                measure(load, urls[which], key, run=run, seconds=options.seconds, connections=options.connections)
            )
    return found


def median(rounds: list[Measured]) -> Measured:
    return Measured(*map(statistics.median, zip(*rounds, strict=True)))


def report(load: Load, target: float, real: list[Measured], bare: list[Measured]) -> None:
    ratio = statistics.median(one.per_second / other.per_second for one, other in zip(real, bare, strict=True))
    ours, control = median(real), median(bare)
    print(
        f"{load.name:16}{ours.per_second:8.0f}{ours.p50_ms:8.1f}{ours.p99_ms:8.1f}"
        f"{control.per_second:12.0f}{control.p50_ms:8.1f}{control.p99_ms:8.1f}{ratio:9.2f}{target:6.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--only", help="part of a name: GET, list, create, PATCH, run")
    options = parser.parse_args()
    require_wrk()
    with tempfile.TemporaryDirectory() as directory:
        postgres = EmbeddedServer(Path(directory))
        postgres.start()
        try:
            key = asyncio.run(fill(postgres.url()))
            with both_servers(postgres.url(), key) as urls:
                print(f"{'':16}     API  p50 ms  p99 ms        bare  p50 ms  p99 ms    ratio target  (requests/s)")
                for target, load in LOADS:
                    if not options.only or options.only in load.name:
                        report(load, target, *rounds_of(load, urls, key, options))
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
