"""What the runs of one collection ask of the worker keeps neither other runs nor the worker itself waiting."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from routines_core.db import open_pool
from routines_core.db.runs import Claim
from routines_core.files.directory import DirectoryStore
from routines_core.keyring import load_keyring
from routines_core.settings import Settings
from routines_engine.runs.base import CONNECTIONS
from routines_engine.runs.child_waiter import ChildWaiter
from routines_engine.runs.claimed_run import ClaimedRun
from routines_engine.runs.host import RunHost
from routines_engine.runs.journal import Journal
from routines_engine.runs.payloads import Payloads
from routines_engine.runs.record import Record
from routines_engine.runs.services import LOADED_AT_ONCE, RunServices, WorkerResources
from routines_engine.sandbox.messages import Payload
from support.rows import ENCRYPTION_KEYS, Database


def run_in(collection_id: int) -> Claim:
    return Claim(1, 1, collection_id, 1, 1, "flow-a-b--1", "1", 60.0)


async def nothing(connection: AsyncConnection[Any]) -> None:
    await connection.execute("SELECT 1")


async def forever(connection: AsyncConnection[Any]) -> None:
    await connection.execute("SELECT pg_sleep(600)")


@asynccontextmanager
async def resources_of(database: Database, directory: Path) -> AsyncGenerator[WorkerResources]:
    async with open_pool(database.url, "test", size=CONNECTIONS) as pool:
        keyring, waiter = load_keyring(Settings(encryption_keys=ENCRYPTION_KEYS)), ChildWaiter(pool, 600)
        store = DirectoryStore(directory)
        yield WorkerResources(pool, keyring, store, waiter, lambda: None, lambda _: True, timeout_seconds=600)


async def test_queries_of_one_collection_leave_connections_to_others(database: Database, tmp_path: Path) -> None:
    async with resources_of(database, tmp_path) as resources:
        slow = [asyncio.create_task(resources.ask_for(run_in(1), forever)) for _ in range(10 * CONNECTIONS)]
        try:
            await asyncio.sleep(0)  # all of them ask before
            async with asyncio.timeout(20):
                await asyncio.gather(*(resources.ask_once(nothing) for _ in range(10)))
                await asyncio.gather(*(resources.ask_for(run_in(2), nothing) for _ in range(10)))
        finally:
            for each in slow:
                each.cancel()
            await asyncio.gather(*slow, return_exceptions=True)


class CountedPayloads(Payloads):
    """Counts the runs that are loaded, without a database."""

    loaded = 0

    async def load(self, run: Claim) -> Payload:
        self.loaded += 1
        return Payload(b"{}", b"{}", b"{}", {}, run.workflow_id, run.run_id, False, 2**24)


async def test_a_run_is_loaded_once_the_processes_have_got_those_before(database: Database, tmp_path: Path) -> None:
    async with resources_of(database, tmp_path) as resources:
        payloads = CountedPayloads(resources, allow_private=False, most_bytes=2**24)
        task = asyncio.current_task()
        assert task

        def host_in(collection: int) -> RunHost:
            claimed = ClaimedRun(run_in(collection), 0.0, task)
            return RunHost(Record(Journal(resources.pool, 60.0), RunServices(resources, claimed)), payloads)

        hosts = [host_in(1) for _ in range(6)]
        loading = [asyncio.create_task(host.load()) for host in hosts]
        await asyncio.gather(*loading[: LOADED_AT_ONCE - 1])
        assert payloads.loaded == LOADED_AT_ONCE - 1
        other = host_in(2)
        await other.load()
        other.delivered()
        for host, waiting in zip(hosts, loading[LOADED_AT_ONCE - 1 :], strict=False):
            assert not waiting.done()
            host.delivered()
            host.delivered()  # which changes nothing
            await waiting
        assert payloads.loaded == len(hosts) + 1
