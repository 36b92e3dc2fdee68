"""Test whether response times reveal what exists: 401 and 404 paths in interleaved pairs, on the real API.

For each pair, print the median difference with its 95 % interval (by order statistics, which assume nothing about the
distribution) and the probability that one of the first kind is slower than one of the second (0.5: no difference), with
the p-value of the Mann-Whitney test. This prints statistics and does not fail; the first pair is a control of two
identical requests.
"""

import argparse
import asyncio
import http.client
import math
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from harness import machine, table
from http_load import free_port, server
from routines_core.db import connect
from routines_core.db.keys import checksum, create_key
from routines_core.db.migrations import migrate
from routines_core.db.peppers import Peppers
from routines_core.embedded import EmbeddedServer
from routines_core.keyring import Keyring, generate_key

FOREIGN, ABSENT = "theirs", "absent"


class Request(NamedTuple):
    """A path to request, and the key to use."""

    path: str
    key: str


class Pair(NamedTuple):
    """Two requests whose answers are the same to the byte."""

    name: str
    first: Request
    second: Request


async def fill(url: str, keyring: Keyring) -> str:
    """Create the collections `mine` and `theirs`, the latter with a task, a routine and a run; return `mine`'s key."""
    async with connect(url, "bench") as connection:
        await migrate(connection)
        key = await create_key(connection, "mine", Peppers(keyring))
        await create_key(connection, FOREIGN, Peppers(keyring))
        await connection.execute(
            """WITH task AS (INSERT INTO routines.tasks (collection_id, name)
                             VALUES (1, 'echo'), (2, 'echo'), (2, 'theirs') RETURNING id, collection_id, name),
                    made AS (INSERT INTO routines.task_versions (task_id, version, workflow)
                             SELECT id, 1, '{}' FROM task),
                    routine AS (INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
                                SELECT collection_id, id, 'kept', 'manual' FROM task WHERE collection_id = 2)
               INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
               SELECT collection_id, id, 1, 'api', '{}' FROM task WHERE collection_id = 2 AND name = 'echo'"""
        )
    return key


def pairs(key: str) -> list[Pair]:
    """Return the requests that must not be distinguishable."""
    wrong = key[:-7] + ("A" if key[-7] != "A" else "B")
    unknown = "rtn_999_" + key.split("_", 2)[2][:-6]
    own = "/api/v1/routines/mine"
    return [
        Pair("control: identical", Request(f"{own}/none/x", key), Request(f"{own}/none/x", key)),
        Pair("collection", Request(f"/api/v1/routines/{FOREIGN}/echo/kept", key),
             Request(f"/api/v1/routines/{ABSENT}/echo/kept", key)),
        Pair("task", Request(f"{own}/theirs/kept", key), Request(f"{own}/absent/kept", key)),
        Pair("trajectory", Request("/api/v1/db/trajectory/mine/echo/1", key),
             Request("/api/v1/db/trajectory/mine/echo/999", key)),
        Pair("key: wrong or unknown", Request(f"{own}/echo/kept", wrong + checksum(wrong)),
             Request(f"{own}/echo/kept", unknown + checksum(unknown))),
    ]  # fmt: skip


def seconds_of(client: http.client.HTTPConnection, request: Request) -> tuple[float, int, bytes]:
    """Return how long the answer took, its status and its body."""
    begun = time.perf_counter()
    client.request("GET", request.path, headers={"Authorization": f"Bearer {request.key}"})
    answer = client.getresponse()
    body = answer.read()
    return time.perf_counter() - begun, answer.status, body


def measure(client: http.client.HTTPConnection, pair: Pair, count: int) -> tuple[list[float], list[float]]:
    """Measure the microseconds of each kind, in pairs in random order; exits if the answers of a pair differ."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(count + 100):
        answers: dict[int, tuple[float, int, bytes]] = {}
        for which in random.sample((0, 1), 2):
            answers[which] = seconds_of(client, (pair.first, pair.second)[which])
        if answers[0][1:] != answers[1][1:] or answers[0][1] not in {401, 404}:
            sys.exit(f"{pair.name}: the answers differ: {answers}")
        if number >= 100:  # the first 100 are the warm-up
            for which in (0, 1):
                times[which].append(answers[which][0] * 1e6)
    return times


def interval_of_median(values: list[float]) -> tuple[float, float, float]:
    """Return the median and its 95 % interval."""
    ordered, half = sorted(values), 0.98 * math.sqrt(len(values))
    low, high = int(len(values) / 2 - half), min(len(values) - 1, int(len(values) / 2 + half) + 1)
    return statistics.median(ordered), ordered[max(0, low)], ordered[high]


def mann_whitney(first: list[float], second: list[float]) -> tuple[float, float]:
    """Return the probability that one of the first is larger than one of the second, and the two-sided p-value."""
    ranked = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 0)
    n, m = len(first), len(second)
    larger = ranks - n * (n + 1) / 2
    deviation = math.sqrt(n * m * (n + m + 1) / 12)
    return larger / (n * m), math.erfc(abs(larger - n * m / 2) / deviation / math.sqrt(2))


def row_of(pair: Pair, times: tuple[list[float], list[float]]) -> list[str]:
    differences = [one - other for one, other in zip(*times, strict=True)]
    middle, low, high = interval_of_median(differences)
    chance, p = mann_whitney(*times)
    medians = [f"{statistics.median(each):,.0f}" for each in times]
    return [pair.name, *medians, f"{middle:+.1f} ({low:+.1f} to {high:+.1f})", f"{chance:.3f}", f"{p:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=10_000)
    options = parser.parse_args()
    keys = generate_key()
    with tempfile.TemporaryDirectory() as directory:
        postgres = EmbeddedServer(Path(directory))
        postgres.start()
        try:
            key = asyncio.run(fill(postgres.url(), Keyring.parse(keys)))
            port = free_port()
            settings = {"DATABASE_URL": postgres.url(), "ROUTINES_PORT": str(port), "ENABLE_ROUTINES": "true",
                        "ROUTINES_ENCRYPTION_KEYS": keys, "ROUTINES_RATE_PER_SECOND": "1e6",
                        "ROUTINES_RATE_BURST": "1000000"}  # fmt: skip
            with server([sys.executable, "-m", "routines_cli.main", "api"], port, settings):
                client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                print(f"{options.pairs:,} pairs each; {machine()}\n")
                table(
                    ["pair", "first, µs", "second, µs", "median difference, µs", "P(first slower)", "p"],
                    (row_of(pair, measure(client, pair, options.pairs)) for pair in pairs(key)),
                )
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
