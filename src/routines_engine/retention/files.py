"""Deletes files that runs no longer use or never used; failures are retried by the next pass.

The database decides: `file_uses` lists the files that runs use, and a file to be deleted stays in `unused_files` until
it is gone. So a worker that crashes in between leaves no file behind, and never deletes one that a run uses.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog

from routines_core.db import Connection
from routines_core.db.limits import note_listed_files
from routines_core.db.retention import (
    PAGE_SIZE,
    UnusedFile,
    forget_files,
    identity,
    judge_files,
    note_orphans,
    one_pass,
)
from routines_core.errors import InvalidError, StorageError
from routines_core.files.missing import MissingStore
from routines_core.files.store import FileStore, StoredFile, check_path
from routines_core.lifecycle import sleep_or_stop
from routines_core.settings import Settings

ORPHAN_SECONDS = 86400.0
"""The age, beyond the time an upload may take, at which a file that no run refers to counts as unused."""
PAUSE_SECONDS = 0.05
"""Pause after each page."""
MOST_FAILURES = 5
"""The store counts as unavailable after this many failed deletions without a successful one."""

log = structlog.get_logger("retention")


async def delete_unused_files(
    connection: Connection, settings: Settings, files: FileStore, stop: asyncio.Event, *, now: datetime | None = None
) -> int:
    """Make one pass.

    Returns:
        The number of files deleted; 0 if another session is making a pass or the store belongs to another database.

    Raises:
        StorageError: The store is unavailable. The next pass deletes the rest.
    """
    if isinstance(files, MissingStore):
        return 0
    async with one_pass(connection) as is_ours:
        if not is_ours:
            return 0
        if not await files.belongs_to(await identity(connection)):
            log.warning("no files deleted: the marker in the file store names another database")
            return 0
        young = timedelta(seconds=ORPHAN_SECONDS + settings.upload_timeout_seconds)
        await _note_orphans(connection, files, (now or datetime.now(UTC)) - young, stop)
        return await _delete(connection, files, stop, now)


async def _note_orphans(connection: Connection, files: FileStore, until: datetime, stop: asyncio.Event) -> None:
    """Note files in the store that are older than `until` and unknown to the database. Also counts all files."""
    page: list[tuple[int, str]] = []
    listed: dict[int, tuple[int, int]] = {}
    async for file in files.stored():
        if stop.is_set():
            return
        count, size_bytes = listed.get(file.collection_id, (0, 0))
        listed[file.collection_id] = (count + 1, size_bytes + file.size_bytes)
        if file.modified_at < until and _is_ours(file):
            page.append((file.collection_id, file.path))
        if len(page) == PAGE_SIZE:
            await note_orphans(connection, page)
            page = []
            await sleep_or_stop(stop, PAUSE_SECONDS)
    await note_orphans(connection, page)
    await note_listed_files(connection, listed)


def _is_ours(file: StoredFile) -> bool:
    """Return whether the store has named this file; an unfinished file has a dot before its name."""
    with suppress(InvalidError):
        return bool(check_path(file.path.removeprefix(".")))
    return False


async def _delete(connection: Connection, files: FileStore, stop: asyncio.Event, now: datetime | None) -> int:
    deleted, after = 0, 0
    while not stop.is_set():
        page = await judge_files(connection, after=after, now=now)
        deleted += await _delete_page(connection, files, [file for file in page if file.is_condemned])
        if len(page) < PAGE_SIZE:
            break
        after = page[-1].id
        await sleep_or_stop(stop, PAUSE_SECONDS)
    return deleted


async def _delete_page(connection: Connection, files: FileStore, condemned: list[UnusedFile]) -> int:
    """Delete each file and then its row. After a crash in between both are repeated; a missing file is not an error.

    Raises:
        StorageError: No file could be deleted. If only some failed, they are left for a later pass.
    """
    gone: list[int] = []
    failures: list[StorageError] = []
    for file in condemned:
        try:
            await files.delete(file.collection_id, file.path)
        except StorageError as error:
            failures.append(error)
            if len(failures) >= MOST_FAILURES and not gone:
                break
        else:
            gone.append(file.id)
    await forget_files(connection, gone)
    if failures and not gone:
        raise failures[0]
    if failures:
        log.warning("files not deleted, retrying later", count=len(failures))
    return len(gone)
