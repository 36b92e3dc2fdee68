"""Files are deleted with the last run that uses them, or unused after a day; a crash in between is harmless."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from routines_core.db import Connection, connect
from routines_core.db.retention import forget_files, judge_files, note_orphans
from routines_core.errors import StorageError
from routines_core.files.directory import DirectoryStore
from routines_core.files.opening import open_file_store
from routines_core.files.store import MARK, StoredFile, new_path
from routines_core.settings import Settings
from routines_engine.retention.files import delete_unused_files
from routines_engine.retention.history import delete_old
from support.buckets import name_server, s3_server
from support.rows import Database, make_routine, value
from support.working import run_of, task_of, until, until_ended, workflow_of, working

LATER = datetime.now(UTC) + timedelta(days=1000)
"""A time at which every run created here is old, and so is every note of an unused file."""
KEEP_A_DAY = Settings(keep_trajectories_days=1)
SOON = timedelta(minutes=11)
"""After this long a file that was noted as unused is judged."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def store(root: Path) -> DirectoryStore:
    return DirectoryStore(root)


@pytest.fixture
async def task(connection: Connection) -> int:
    return await task_of(connection, "echo", workflow_of(("say", {"activity": "text_echo"}), file_paths=[]))


async def ended(connection: Connection, task: int, *, outputs: dict[str, Any] | None = None, **params: Any) -> int:
    """Create a run that was claimed and has ended. Returns its id."""
    run = await run_of(connection, task, **params)
    await connection.execute(
        """UPDATE routines.trajectories
           SET status = 'running', fence = 1, started_at = now(), lease_expires_at = now() WHERE id = %s""",
        [run],
    )
    await connection.execute(
        """INSERT INTO routines.steps
               (trajectory_id, name, position, fence, status, activity, inputs, outputs, ended_at)
           VALUES (%s, 'say', 0, 1, 'completed', 'text_echo', '{}', %s::jsonb, now())""",
        [run, "{}" if outputs is None else str(outputs).replace("'", '"')],
    )
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE id = %s", [run]
    )
    return run


async def retire(connection: Connection, run: int | None = None) -> None:
    """Delete an old run as retention does, or all of them."""
    if run is None:
        await delete_old(connection, KEEP_A_DAY, asyncio.Event(), now=LATER)
    else:
        await connection.execute("DELETE FROM routines.trajectories WHERE id = %s", [run])


async def sweep(connection: Connection, store: Any, after: timedelta = SOON) -> int:
    return await delete_unused_files(connection, Settings(), store, asyncio.Event(), now=datetime.now(UTC) + after)


async def stored(store: DirectoryStore) -> set[str]:
    return {file.path async for file in store.stored()}


async def test_files_are_deleted_after_their_run_and_no_others(
    connection: Connection, store: DirectoryStore, task: int
) -> None:
    own, other = await store.save(1, "own.txt", b"x"), await store.save(1, "other.txt", b"x")
    run = await ended(connection, task, file_paths=[own])
    await ended(connection, task, file_paths=[other])
    await retire(connection, run)
    assert await sweep(connection, store, timedelta(minutes=9)) == 0
    assert await stored(store) == {own, other}
    assert await sweep(connection, store) == 1
    assert await stored(store) == {other}
    await retire(connection)
    assert (await sweep(connection, store), await stored(store)) == (1, set())
    assert await value(connection, "SELECT count(*) FROM routines.unused_files") == 0


async def test_a_file_is_kept_as_long_as_any_run_names_it(
    connection: Connection, store: DirectoryStore, task: int
) -> None:
    path = await store.save(1, "a.txt", b"x")
    came = await ended(connection, task, file_paths=[path])
    given = await ended(connection, task, text=f"read {path}.")
    showed = await ended(connection, task, outputs={"found": [{"at": path}]})
    never_claimed = await run_of(connection, task, file_paths=[path])
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'cancelled', fence = 1, ended_at = now() WHERE id = %s",
        [never_claimed],
    )
    for run in (came, given, showed):
        await retire(connection, run)
        await sweep(connection, store, timedelta(days=10))
        assert await stored(store) == {path}, run
    await retire(connection, never_claimed)
    await sweep(connection, store, timedelta(days=10))
    assert await stored(store) == set()


NAMED = {
    "a pending run": (
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
           SELECT collection_id, id, 1, 'api', jsonb_build_object('text', %(path)s::text) FROM routines.tasks""",
        "DELETE FROM routines.trajectories",
    ),
    "a routine": (
        "UPDATE routines.routines SET init_params_overrides = jsonb_build_object('text', %(path)s::text)",
        "DELETE FROM routines.routines",
    ),
    "a workflow": (
        """INSERT INTO routines.task_versions (task_id, version, workflow)
           SELECT id, 2, json_build_object('step_configs', %(path)s::text || '.') FROM routines.tasks""",
        "DELETE FROM routines.task_versions WHERE version = 2",
    ),
}
"""Each way in which a file without a run may still be used, and how that use ends."""


@pytest.mark.parametrize(("name", "forget"), NAMED.values(), ids=NAMED)
async def test_a_file_that_may_still_be_used_is_kept(
    connection: Connection, store: DirectoryStore, task: int, name: str, forget: str
) -> None:
    path = await store.save(1, "a.txt", b"x")
    await make_routine(connection, task, LATER)
    await retire(connection, await ended(connection, task, file_paths=[path]))
    await connection.execute(name.encode(), {"path": path})
    assert (await sweep(connection, store, timedelta(days=10)), await stored(store)) == (0, {path})
    await connection.execute(forget.encode())
    assert (await sweep(connection, store, timedelta(days=10)), await stored(store)) == (1, set())


async def test_a_file_that_no_run_used_is_deleted_after_a_day_and_not_before(
    connection: Connection, store: DirectoryStore, root: Path, task: int
) -> None:
    orphan = await store.save(1, "a.txt", b"x")
    begun = root / "1" / f".{new_path('b.txt')}"
    begun.write_bytes(b"half")
    (root / "1" / "notes.txt").write_text("somebody's own")
    waits = await store.save(1, "c.txt", b"x")
    await run_of(connection, task, file_paths=[waits])
    for _ in range(2):
        assert await sweep(connection, store, timedelta(hours=23)) == 0
    assert {orphan, begun.name} <= await stored(store)
    for _ in range(2):  # the first pass finds it, the next deletes it
        await sweep(connection, store, timedelta(hours=26))
    assert await stored(store) == {"notes.txt", waits}


class Failing(DirectoryStore):
    """A store that refuses to delete some files for a while."""

    refused: set[str]

    async def delete(self, collection_id: int, path: str) -> None:
        if path in self.refused:
            raise StorageError("The disk is read-only.")
        await super().delete(collection_id, path)


async def test_a_failed_deletion_is_retried(connection: Connection, root: Path, task: int) -> None:
    store = Failing(root)
    paths = [await store.save(1, f"{number}", b"x") for number in range(3)]
    await ended(connection, task, file_paths=paths)
    await retire(connection)
    await connection.execute("UPDATE routines.unused_files SET id = DEFAULT WHERE path <> %s", [paths[1]])
    store.refused = {paths[1]}  # the first one, which must not stop the others
    assert (await sweep(connection, store), await stored(store)) == (2, {paths[1]})
    with pytest.raises(StorageError):
        await sweep(connection, store)
    store.refused = set()
    assert (await sweep(connection, store), await stored(store)) == (1, set())


KILLED_PASS = """
import asyncio, os, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from routines_core.db import connect, retention
from routines_core.files.directory import DirectoryStore
from routines_core.settings import Settings
from routines_engine.retention import files
from routines_engine.retention.history import delete_old

url, root, where, count = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

class Killed(DirectoryStore):
    async def delete(self, collection_id, path):
        global count
        if where == "before a file" and not count:
            os.kill(os.getpid(), signal.SIGKILL)
        await super().delete(collection_id, path)
        count -= 1
        if where == "after a file" and not count:
            os.kill(os.getpid(), signal.SIGKILL)

async def judged(*args, **kwargs):
    page = await retention.judge_files(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

async def forgotten(*args, **kwargs):
    await retention.forget_files(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

if where == "once condemned":
    files.judge_files = judged
if where == "once forgotten":
    files.forget_files = forgotten

async def run():
    async with connect(url, "routines-retention", role="routines_worker") as connection:
        later = datetime.now(UTC) + timedelta(minutes=11)
        await files.delete_unused_files(connection, Settings(), Killed(root), asyncio.Event(), now=later)

asyncio.run(run())
"""


@pytest.mark.parametrize("where", ["once condemned", "before a file", "after a file", "once forgotten"])
async def test_a_killed_pass_deletes_no_used_file_and_leaves_no_unused_one(
    connection: Connection, database: Database, store: DirectoryStore, root: Path, task: int, where: str
) -> None:
    kept = [await store.save(1, "kept", b"x") for _ in range(3)]
    going = [await store.save(1, "going", b"x") for _ in range(5)]
    shared = await store.save(1, "shared", b"x")
    run = await ended(connection, task, file_paths=[*going, shared])
    await ended(connection, task, file_paths=[*kept, shared])
    await retire(connection, run)
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED_PASS, database.url, str(root), where, "2"], check=False
    )
    assert killed.returncode == -9
    assert {*kept, shared} <= await stored(store)
    left = "SELECT FROM pg_stat_activity WHERE application_name = 'routines-retention' AND datname = current_database()"
    await until(connection, f"SELECT NOT EXISTS ({left})")  # the server frees the lock of the pass once it has noticed
    await sweep(connection, store)
    assert await stored(store) == {*kept, shared}
    assert await value(connection, "SELECT count(*) FROM routines.unused_files") == 0


async def test_a_use_before_the_judgement_saves_the_file_and_a_later_one_does_not(
    connection: Connection, database: Database, store: DirectoryStore, task: int
) -> None:
    paths = [await store.save(1, "a", b"x"), await store.save(1, "b", b"x")]
    await retire(connection, await ended(connection, task, file_paths=paths))
    run = await run_of(connection, task)
    later = datetime.now(UTC) + SOON
    use = "SELECT routines.use_files(%s, 1, ARRAY[%s])"
    async with connect(database.url, "judge") as judge:
        async with connection.transaction():
            await connection.execute(use.encode(), [run, paths[0]])
            judging = asyncio.create_task(judge_files(judge, after=0, now=later))
            waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = %s)"
            async with asyncio.timeout(20):
                while not await value(connection, waits, judge.info.backend_pid):  # noqa: ASYNC110 - the server's state
                    await asyncio.sleep(0.01)
        page = await judging
        assert {file.path: file.is_condemned for file in page} == {paths[0]: False, paths[1]: True}
        await connection.execute(use.encode(), [run, paths[1]])
        again = await judge_files(judge, after=0, now=later)
        assert [(file.path, file.is_condemned) for file in again] == [(paths[1], True)]
        await forget_files(judge, [file.id for file in again])
    assert await value(connection, "SELECT count(*) FROM routines.unused_files") == 0


async def test_a_store_of_another_database_is_left_alone(
    connection: Connection, store: DirectoryStore, root: Path, task: int
) -> None:
    path = await store.save(1, "a", b"x")
    await ended(connection, task, file_paths=[path])
    await sweep(connection, store)
    mark = (root / MARK).read_text()
    await retire(connection)
    (root / MARK).write_text("1/1")
    assert (await sweep(connection, store), await stored(store)) == (0, {path})
    (root / MARK).write_text(mark)
    assert (await sweep(connection, store), await stored(store)) == (1, set())


async def test_a_file_that_a_step_saved_belongs_to_its_run_even_if_the_step_fails(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    config = {"activity": "save_text_file", "name": "a.txt", "text": "x"}
    bad = workflow_of(("save", config), ("read", {"activity": "read_text_file", "path": secrets.token_hex(16) + "-x"}))
    task = await task_of(connection, "saves", bad)
    run = await run_of(connection, task)
    async with working(database.url, data_dir=tmp_path):
        assert (await until_ended(connection, run))[0] == "failed"
    store = DirectoryStore(tmp_path / "files")
    [path] = await stored(store)
    assert await value(connection, "SELECT bool_or(path = %s) FROM routines.file_uses", path)
    # Recorded when the step saved it, whatever the step returned.
    await connection.execute("DELETE FROM routines.steps")
    await sweep(connection, store, timedelta(days=10))
    assert await stored(store) == {path}
    await retire(connection)
    await sweep(connection, store)
    assert await stored(store) == set()


async def test_many_files_are_deleted_page_by_page(connection: Connection, store: DirectoryStore, task: int) -> None:
    class Listed(DirectoryStore):
        async def stored(self) -> AsyncIterator[StoredFile]:
            for number in range(1200):
                yield StoredFile(1, f"{number:032x}-x", datetime(2026, 1, 1, tzinfo=UTC))

    listed = Listed(store._root)
    assert await sweep(connection, listed, timedelta()) == 0
    assert await value(connection, "SELECT count(*) FROM routines.unused_files") == 1200
    assert await sweep(connection, listed) == 1200
    assert await note_orphans(connection, []) == 0
    assert os.listdir(store._root) == [MARK]  # noqa: PTH208 - the names


async def test_files_in_a_bucket_are_deleted_too(
    connection: Connection, task: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as url:
        name_server(monkeypatch, url)
        bucket = open_file_store(Settings(files="s3://files/prefix"))
        kept, going, orphan = [await bucket.save(1, name, b"x") for name in ("kept", "going", "orphan")]
        run = await ended(connection, task, file_paths=[going])
        await ended(connection, task, file_paths=[kept])
        await retire(connection, run)
        assert await sweep(connection, bucket) == 1
        assert {file.path async for file in bucket.stored()} == {kept, orphan}
        assert [await sweep(connection, bucket, timedelta(hours=26)) for _ in range(2)] == [1, 0]
        assert {file.path async for file in bucket.stored()} == {kept}
