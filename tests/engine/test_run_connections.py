"""Queries of one collection's runs keep neither other runs nor the worker itself waiting for a connection."""

import asyncio
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
from routines_engine.runs.services import WorkerResources
from support.rows import ENCRYPTION_KEYS, Database


def run_in(collection_id: int) -> Claim:
    return Claim(1, 1, collection_id, 1, 1, "flow-a-b--1", "1", 60.0)


async def nothing(connection: AsyncConnection[Any]) -> None:
    await connection.execute("SELECT 1")


async def forever(connection: AsyncConnection[Any]) -> None:
    await connection.execute("SELECT pg_sleep(600)")


async def test_queries_of_one_collection_leave_connections_to_others(database: Database, tmp_path: Path) -> None:
    async with open_pool(database.url, "test", size=CONNECTIONS) as pool:
        waiter = ChildWaiter(pool, 600)
        resources = WorkerResources(
            pool,
            load_keyring(Settings(encryption_keys=ENCRYPTION_KEYS)),
            DirectoryStore(tmp_path),
            waiter,
            lambda: None,
            lambda _: True,
            timeout_seconds=600,
        )
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
