"""Deletion of old rows: sql/queries/retention.sql called from Python."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement

What = Literal[
    "trajectories", "skips", "audit", "alerts", "deliveries", "versions", "names", "backfills", "endpoints", "answers"
]
"""The kinds of rows that a pass deletes."""
PAGE_SIZE = 500
"""Rows that one statement examines, few enough to hold its locks for milliseconds."""


class DeletedRows(msgspec.Struct, frozen=True):
    """The result of one statement.

    Attributes:
        deleted: Deleted rows.
        last_id: Where the next page begins; None to start from the beginning again.
        is_last: True if no old rows are left after this page.
    """

    deleted: int
    last_id: int | None
    is_last: bool


class UnusedFile(msgspec.Struct, frozen=True):
    """A file that was recorded as unused.

    Attributes:
        is_condemned: True if it is to be deleted, which is never revoked.
    """

    id: int
    collection_id: int
    path: str
    is_condemned: bool


class _Identity(msgspec.Struct):
    id: str


class _Begun(msgspec.Struct):
    is_ours: bool


_BEGIN = Statement("retention.begin_pass", _Begun)
_END = Statement("retention.end_pass", NoRow)
_IDENTITY = Statement("retention.identity", _Identity)
_NOTE_ORPHANS = Statement("retention.note_orphans", NoRow)
_JUDGE_FILES = Statement("retention.judge_files", UnusedFile)
_FORGET_FILES = Statement("retention.forget_files", NoRow)
_DELETE: dict[What, Statement[DeletedRows]] = {
    "trajectories": Statement("retention.delete_trajectories", DeletedRows),
    "skips": Statement("retention.delete_skips", DeletedRows),
    "audit": Statement("retention.delete_audit", DeletedRows),
    "alerts": Statement("retention.delete_alerts", DeletedRows),
    "deliveries": Statement("retention.delete_deliveries", DeletedRows),
    "versions": Statement("retention.delete_versions", DeletedRows),
    "names": Statement("retention.delete_names", DeletedRows),
    "backfills": Statement("retention.delete_backfills", DeletedRows),
    "endpoints": Statement("retention.delete_endpoints", DeletedRows),
    "answers": Statement("retention.delete_answers", DeletedRows),
}


@asynccontextmanager
async def one_pass(connection: Connection) -> AsyncGenerator[bool]:
    """Yield True if this session may make a pass until the end of the block, False if another session makes one."""
    is_ours = (await _BEGIN.one(connection)).is_ours
    try:
        yield is_ours
    finally:
        if is_ours and not connection.closed:
            await _END.run(connection)


async def delete_page(
    connection: Connection,
    what: What,
    *,
    keep_seconds: float,
    after: int = 0,
    page_size: int = PAGE_SIZE,
    now: datetime | None = None,
) -> DeletedRows:
    """Delete the old ones among the next rows.

    Args:
        connection: In autocommit mode, so that each page is a transaction.
        what: Which table.
        keep_seconds: The age from which rows are deleted. Kinds without such a setting have ages of their own.
        after: The `last_id` of the previous page.
        page_size: Rows to examine.
        now: Moves the clock in tests; None is the database's now().
    """
    paged: dict[str, Any] = {} if what in {"endpoints", "answers"} else {"after": after}
    is_aged = what in {"trajectories", "skips", "audit", "alerts", "deliveries"}
    aged = {"keep_seconds": keep_seconds} if is_aged else {}
    return await _DELETE[what].one(connection, page_size=page_size, now=now, **paged, **aged)


async def identity(connection: Connection) -> str:
    """Return an id of this database that differs even from a restored copy of it."""
    return (await _IDENTITY.one(connection)).id


async def note_orphans(connection: Connection, files: Sequence[tuple[int, str]]) -> int:
    """Record those of these files, by collection and path, that no run uses. Returns their number."""
    return await _NOTE_ORPHANS.run(
        connection, collection_ids=[collection for collection, _ in files], paths=[path for _, path in files]
    )


async def judge_files(
    connection: Connection, *, after: int, page_size: int = PAGE_SIZE, now: datetime | None = None
) -> list[UnusedFile]:
    """Return the next unused files, and which of them to delete. `after` is the last id of the previous page."""
    return await _JUDGE_FILES.all(connection, after=after, page_size=page_size, now=now)


async def forget_files(connection: Connection, ids: list[int]) -> None:
    """Forget condemned files after their deletion."""
    await _FORGET_FILES.run(connection, ids=ids)
