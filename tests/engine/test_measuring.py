"""Workers measure what each collection has stored: runs and steps every few minutes, files with each retention pass."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from routines_core.bulkhead import Bulkhead
from routines_core.db import Connection
from routines_core.files.directory import DirectoryStore
from routines_core.settings import Settings
from routines_engine.retention.files import delete_unused_files
from routines_engine.retention.measuring import run_measuring
from support.rows import Database, make_task, value
from support.working import run_of, until


async def test_a_worker_measures_runs_and_steps(connection: Connection, database: Database) -> None:
    task = await make_task(connection)
    await run_of(connection, task, text="x" * 2000)
    stop = asyncio.Event()
    measuring = asyncio.create_task(run_measuring(database.url, stop, Bulkhead("measuring")))
    await until(connection, "SELECT stored_bytes > 0 FROM routines.collection_usage")
    stop.set()
    await asyncio.wait_for(measuring, 5)


async def test_a_retention_pass_counts_the_files_of_every_collection(connection: Connection, tmp_path: Path) -> None:
    await make_task(connection)
    collection = await value(connection, "SELECT id FROM routines.collections")
    assert isinstance(collection, int)
    store = DirectoryStore(tmp_path)
    paths = [await store.save(collection, "a.txt", b"12345"), await store.save(collection, "b.txt", b"67")]
    used = "SELECT concat(files, ' files, ', file_bytes, ' bytes') FROM routines.collection_usage"
    for expected in ("2 files, 7 bytes", "1 files, 2 bytes"):
        await delete_unused_files(connection, Settings(), store, asyncio.Event(), now=datetime.now(UTC))
        assert await value(connection, used) == expected
        await store.delete(collection, paths[0])
