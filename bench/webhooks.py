"""Measure webhooks per second, what a claim costs in a backlog, and how fast old runs are deleted.

python bench/webhooks.py [--webhooks 5000] [--rounds 5] [--backlog 200000] [--lanes 1000] [--runs 1000000]

The control of the delivery is the same client: it posts as many bodies to the same receivers, with as many requests at
once, but without a database. The two alternate, so that other work on the machine slows both. The CPU times are those
of this process, which runs the client and the receivers, and for a delivery also the worker.
"""

import argparse
import asyncio
import base64
import logging
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from harness import filled, machine, median, one, percentile, server, table, until
from routines_core.db import Connection, deliveries
from routines_core.db.retention import delete_page
from routines_core.guarded_http import guarded_client
from routines_core.keyring import Keyring
from routines_engine.webhooks.deliveries import LEASE_SECONDS, Deliverer, open_pools, send
from routines_engine.webhooks.retry_schedule import MOST_ATTEMPTS

RECEIVERS = 8
CAPACITY = 64
"""Requests at once: 8 to each receiver, and what a worker gives to one collection."""
BODY = b'{"status": "completed"}' * 40


async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept any request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    writer.close()


async def receivers() -> list[str]:
    """Start receivers on loopback, each a lane of its own, and return their URLs."""
    servers = [await asyncio.start_server(receive, "127.0.0.1", 0) for _ in range(RECEIVERS)]
    return [f"http://127.0.0.1:{each.sockets[0].getsockname()[1]}/hook" for each in servers]


class Rate(NamedTuple):
    """How fast it went, and how much CPU time of this process one request took."""

    per_second: float
    cpu_ms: float


@dataclass
class Stopwatch:
    """Measures from its creation on."""

    started_at: float = field(default_factory=time.perf_counter)
    cpu_at: float = field(default_factory=time.process_time)

    def rate(self, requests: int) -> Rate:
        """Return the rate of so many requests until now."""
        cpu_ms = 1000 * (time.process_time() - self.cpu_at) / requests
        return Rate(requests / (time.perf_counter() - self.started_at), cpu_ms)


async def control(urls: list[str], webhooks: int) -> Rate:
    """Return the rate of requests without a database."""
    numbers = iter(range(webhooks))

    async def post_some() -> None:
        for number in numbers:
            assert (await send(client, urls[number % RECEIVERS], BODY, {})).error is None

    async with guarded_client(allow_private=True, timeout_seconds=15) as client:
        watch = Stopwatch()
        await asyncio.gather(*(post_some() for _ in range(CAPACITY)))
        return watch.rate(webhooks)


async def fill(connection: Connection, runs: int, *, days: int) -> None:
    """Insert ended runs, spread over the last `days`."""
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params, status,
                                              created_at, ended_at)
           SELECT 1, 1, 1, 'api', '{"text": "x"}', 'completed', at, at
           FROM generate_series(1, %(runs)s) AS n,
                LATERAL (SELECT now() - %(days)s * interval '1 day' * (1 - n / %(runs)s::float8) AS at) AS moment""",
        {"runs": runs, "days": days},
    )


async def delivered(connection: Connection, url: str, urls: list[str], webhooks: int) -> Rate:
    """Return the rate of one worker, from the first claim to the last record."""
    await fill(connection, webhooks, days=1)
    await connection.execute(
        """INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, event_status, url)
           SELECT 1, id, 'completed', (%s::text[])[1 + id %% %s] FROM routines.trajectories""",
        [urls, RECEIVERS],
    )
    stop, keyring = asyncio.Event(), Keyring.parse("k1:" + base64.b64encode(bytes(32)).decode())
    async with (
        open_pools(url, "bench-webhooks") as (pool, loading),
        guarded_client(allow_private=True, timeout_seconds=15) as client,
        asyncio.TaskGroup() as group,
    ):
        watch = Stopwatch()
        group.create_task(Deliverer(pool, loading, stop, client, keyring).run())
        await until(
            connection, "SELECT NOT EXISTS (SELECT FROM routines.webhook_deliveries WHERE next_attempt_at IS NOT NULL)"
        )
        rate = watch.rate(webhooks)
        stop.set()
    assert (
        await one(
            connection, "SELECT count(*) FILTER (WHERE delivered_at IS NOT NULL) FROM routines.webhook_deliveries"
        )
        == webhooks
    )
    await connection.execute("TRUNCATE routines.trajectories CASCADE")
    return rate


async def claims(connection: Connection, backlog: int, lanes: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of claims from a backlog, and of claims when nothing is due."""
    await fill(connection, 1, days=1)
    await connection.execute(
        """INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, event_status, url)
           SELECT 1 + n %% 20, max, 'completed', 'https://receiver-' || n %% %s || '.example/'
           FROM generate_series(1, %s) AS n, (SELECT max(id) FROM routines.trajectories) AS run""",
        [lanes, backlog],
    )
    await connection.execute("VACUUM ANALYZE routines.webhook_deliveries")
    busy = [await claim(connection) for _ in range(10)]
    await connection.execute("UPDATE routines.webhook_deliveries SET next_attempt_at = 'tomorrow', claimed_at = NULL")
    await connection.execute("VACUUM ANALYZE routines.webhook_deliveries")
    idle = [await claim(connection) for _ in range(10)]
    await connection.execute("TRUNCATE routines.trajectories CASCADE")
    return busy, idle


async def claim(connection: Connection) -> float:
    started_at = time.perf_counter()
    await deliveries.claim(
        connection,
        capacity=96,
        reserve=32,
        per_host=8,
        per_collection=64,
        lease_seconds=LEASE_SECONDS,
        most_attempts=MOST_ATTEMPTS,
    )
    return 1000 * (time.perf_counter() - started_at)


async def retention(connection: Connection, runs: int) -> tuple[int, float, list[float]]:
    """Delete old runs; return how many were deleted, how many per second, and the milliseconds of each page."""
    await fill(connection, runs, days=100)
    await connection.execute("VACUUM ANALYZE routines.trajectories")
    pages: list[float] = []
    deleted, after = 0, 0
    while True:
        started_at = time.perf_counter()
        page = await delete_page(connection, "trajectories", keep_seconds=90 * 86400.0, after=after)
        pages.append(1000 * (time.perf_counter() - started_at))
        deleted, after = deleted + page.deleted, page.last_id or 0
        if page.is_last:
            return deleted, 1000 * deleted / sum(pages), pages


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--webhooks", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backlog", type=int, default=200_000)
    parser.add_argument("--lanes", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=1_000_000)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with server() as url:
        async with filled(url, 1) as connection:
            urls = await receivers()
            rounds = [
                (await control(urls, options.webhooks), await delivered(connection, url, urls, options.webhooks))
                for _ in range(options.rounds)
            ]
            busy, idle = await claims(connection, options.backlog, options.lanes)
            removed, rate, pages = await retention(connection, options.runs)
            left = await one(connection, "SELECT count(*) FROM routines.trajectories")
    print(f"Webhooks and retention; {machine()}\n")
    bare, ours = (median([pair[place].per_second for pair in rounds]) for place in (0, 1))
    bare_cpu, our_cpu = (median([pair[place].cpu_ms for pair in rounds]) for place in (0, 1))
    ratios = sorted(worker.per_second / client.per_second for client, worker in rounds)
    table(
        [f"{options.webhooks:,} webhooks, median of {options.rounds}", "control", "1 worker", "ratio of each pair"],
        [
            (
                "per second",
                f"{bare:,.0f}",
                f"{ours:,.0f}",
                f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            ),
            ("CPU of the process", f"{bare_cpu:.2f} ms", f"{our_cpu:.2f} ms", f"{bare_cpu / our_cpu:.2f}"),
        ],
    )
    print()
    shares = [
        (what, f"{median(times):.1f} ms", f"{max(times):.1f} ms")
        for what, times in [("all due", busy), ("none due", idle)]
    ]
    table([f"claim from {options.backlog:,} in {options.lanes:,} lanes", "median", "max"], shares)
    print()
    longest = [f"{percentile(pages, share):.1f} ms" for share in (0.5, 0.99, 1)]
    table(
        ["deleted runs", "kept", "runs/s", "page p50", "p99", "max"],
        [(f"{removed:,}", f"{left:,}", f"{rate:,.0f}", *longest)],
    )


if __name__ == "__main__":
    asyncio.run(main())
