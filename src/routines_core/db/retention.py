"""What is older than its age goes: sql/queries/retention.sql called from Python."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement

What = Literal["trajectories", "skips", "deliveries", "versions", "endpoints", "answers"]
"""What a pass deletes."""
PAGE_SIZE = 500
"""Rows that one statement looks at: it holds its locks for milliseconds."""


class Page(msgspec.Struct, frozen=True):
    """What one statement did.

    Attributes:
        deleted: Rows that went.
        last_id: Where the next page begins; None: at the beginning again.
        is_last: Whether nothing old is left behind this page.
    """

    deleted: int
    last_id: int | None
    is_last: bool


class UnusedFile(msgspec.Struct, frozen=True):
    """A file that was noted as unused.

    Attributes:
        is_condemned: Whether it is to be deleted; once it is, it always is.
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
_DELETE: dict[What, Statement[Page]] = {
    "trajectories": Statement("retention.delete_trajectories", Page),
    "skips": Statement("retention.delete_skips", Page),
    "deliveries": Statement("retention.delete_deliveries", Page),
    "versions": Statement("retention.delete_versions", Page),
    "endpoints": Statement("retention.delete_endpoints", Page),
    "answers": Statement("retention.delete_answers", Page),
}


@asynccontextmanager
async def one_pass(connection: Connection) -> AsyncGenerator[bool]:
    """Whether this session may make a pass until the end of the block; False: another makes one."""
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
) -> Page:
    """Delete what is old among the next rows.

    Args:
        connection: In autocommit mode, so that each page is a transaction.
        what: Which table.
        keep_seconds: The age from which rows go; the last three have ages of their own.
        after: The `last_id` of the page before.
        page_size: Rows to look at.
        now: Moves the clock in tests; None is the database's now().
    """
    aged: dict[str, Any] = (
        {} if what in {"versions", "endpoints", "answers"} else {"after": after, "keep_seconds": keep_seconds}
    )
    return await _DELETE[what].one(connection, page_size=page_size, now=now, **aged)


async def identity(connection: Connection) -> str:
    """What tells this database from every other one, a restored copy of it included."""
    return (await _IDENTITY.one(connection)).id


async def note_orphans(connection: Connection, files: Sequence[tuple[int, str]]) -> int:
    """Note those of these files, by collection and path, that no run uses: how many there were."""
    return await _NOTE_ORPHANS.run(
        connection, collection_ids=[collection for collection, _ in files], paths=[path for _, path in files]
    )


async def judge_files(
    connection: Connection, *, after: int, page_size: int = PAGE_SIZE, now: datetime | None = None
) -> list[UnusedFile]:
    """The next files that were noted as unused, with what is to become of them; `after` is the last id before."""
    return await _JUDGE_FILES.all(connection, after=after, page_size=page_size, now=now)


async def forget_files(connection: Connection, ids: list[int]) -> None:
    """Forget condemned files that are gone."""
    await _FORGET_FILES.run(connection, ids=ids)
