"""Files that no run uses any more, and those that none ever did, go; what goes wrong is done again at the next pass.

The database says which: `file_uses` holds what runs use, and whatever is to go stands in `unused_files` until it is
gone. So a worker that dies in between leaves nothing behind, and takes nothing away that a run still uses.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog

from routines_core.db import Connection
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
from routines_core.files.store import FileStore, StoredFile, check_path
from routines_core.lifecycle import sleep_or_stop
from routines_core.settings import Settings

ORPHAN_SECONDS = 86400.0
"""How old a file must be, beyond the time that an upload may take, to count as one that no run came to use."""
PAUSE_SECONDS = 0.05
"""The pause after each page."""
MOST_FAILURES = 5
"""Files that cannot be deleted, without one that can, before the store is taken to be away."""

log = structlog.get_logger("retention")


async def delete_unused_files(
    connection: Connection, settings: Settings, files: FileStore, stop: asyncio.Event, *, now: datetime | None = None
) -> int:
    """One pass: how many files went; none where another session makes one, or the store is another database's.

    Raises:
        StorageError: The store is away. What is left goes at the next pass.
    """
    async with one_pass(connection) as is_ours:
        if not is_ours:
            return 0
        if not await files.belongs_to(await identity(connection)):
            log.warning("no file is deleted: the mark in the file store says that it is another database's")
            return 0
        young = timedelta(seconds=ORPHAN_SECONDS + settings.upload_timeout_seconds)
        await _note_orphans(connection, files, (now or datetime.now(UTC)) - young, stop)
        return await _delete(connection, files, stop, now)


async def _note_orphans(connection: Connection, files: FileStore, until: datetime, stop: asyncio.Event) -> None:
    """Note what is in the store from before `until` and was never heard of."""
    page: list[tuple[int, str]] = []
    async for file in files.stored():
        if stop.is_set():
            return
        if file.modified_at < until and _is_ours(file):
            page.append((file.collection_id, file.path))
        if len(page) == PAGE_SIZE:
            await note_orphans(connection, page)
            page = []
            await sleep_or_stop(stop, PAUSE_SECONDS)
    await note_orphans(connection, page)


def _is_ours(file: StoredFile) -> bool:
    """Whether it has a path that the store gives; one that was begun has a dot before it."""
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
    """First the file, then its row: where this ends in between, both are done again, and an absent file is none.

    Raises:
        StorageError: None of them could be deleted. What could not while others could is passed over, and goes later.
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
        log.warning("files not deleted, trying again later", count=len(failures))
    return len(gone)
