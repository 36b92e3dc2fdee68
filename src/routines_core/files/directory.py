"""A file store in a local directory."""

import asyncio
import os
import secrets
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from routines_core.errors import InvalidError, StorageError
from routines_core.files.store import MARK, StoredFile, check_path, gathered, new_path, no_file, one_piece, too_large

Result = TypeVar("Result")

_LISTED_AT_ONCE = 1000
"""How many files of a directory are listed per thread call."""


class DirectoryStore:
    """Keeps files below a directory, one folder per collection, readable by this account only.

    A directory with the setgid bit is shared: its group can read and delete files too, if the umask allows it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def save(self, collection_id: int, name: str, content: bytes) -> str:
        """See FileStore."""
        return await self.write(collection_id, name, one_piece(content))

    async def write(self, collection_id: int, name: str, chunks: AsyncIterable[bytes]) -> str:
        """See FileStore."""
        path = new_path(name)
        target = self._folder(collection_id) / path
        unfinished = target.with_name(f".{path}")  # finished files never begin with a dot
        descriptor = await _on_disk(_create, unfinished)
        try:
            async for piece in gathered(chunks):
                await _on_disk(_write_all, descriptor, piece)
            await _on_disk(_finish, descriptor, unfinished, target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return path

    async def read(self, collection_id: int, path: str, max_bytes: int | None = None) -> bytes:
        """See FileStore."""
        try:
            return await asyncio.to_thread(_read, self._folder(collection_id) / check_path(path), max_bytes)
        except FileNotFoundError:
            raise no_file(path) from None

    async def delete(self, collection_id: int, path: str) -> None:
        """See FileStore."""
        with suppress(InvalidError):
            check_path(path.removeprefix("."))  # an unfinished upload
            await _on_disk(partial((self._folder(collection_id) / path).unlink, missing_ok=True))

    async def stored(self) -> AsyncIterator[StoredFile]:
        """See FileStore; also yields unfinished uploads."""
        found = self._found()
        while some := await _on_disk(lambda: list(islice(found, _LISTED_AT_ONCE))):
            for file in some:
                yield file

    async def belongs_to(self, database: str) -> bool:
        """See FileStore."""
        return await _on_disk(self._mark, database) == database

    def _mark(self, database: str) -> str:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            unfinished = self._root / f".{MARK}-{secrets.token_hex(8)}"
            unfinished.write_text(database, "utf-8")
            try:
                os.link(unfinished, self._root / MARK)  # atomic, and fails if a marker exists
            finally:
                unfinished.unlink()
        return (self._root / MARK).read_text("utf-8", "replace")

    def _found(self) -> Iterator[StoredFile]:
        for folder in self._root.glob("[0-9]*") if self._root.is_dir() else ():
            for file in folder.iterdir():
                with suppress(FileNotFoundError):
                    found = file.stat()
                    modified_at = datetime.fromtimestamp(found.st_mtime, UTC)
                    yield StoredFile(int(folder.name), file.name, modified_at, found.st_size)

    def _folder(self, collection_id: int) -> Path:
        return self._root / str(int(collection_id))


async def _on_disk(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call the function in a thread.

    Raises:
        StorageError: The disk is full or read-only.
    """
    try:
        return await asyncio.to_thread(function, *arguments)
    except OSError as error:
        raise StorageError(f"The file could not be stored: {error.strerror}.") from None


def _read(path: Path, max_bytes: int | None) -> bytes:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise too_large(size, max_bytes)
        return file.read()


def _create(path: Path) -> int:
    """Create a file and its collection's folder, for this account, or for a group that shares the root (setgid)."""
    root = path.parent.parent
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_shared = root.stat().st_mode & stat.S_ISGID
    path.parent.mkdir(mode=0o770 if is_shared else 0o700, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o660 if is_shared else 0o600)


def _write_all(descriptor: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]


def _finish(descriptor: int, unfinished: Path, target: Path) -> None:
    """Flush the content to disk, rename the file, then flush the directory."""
    os.fsync(descriptor)
    unfinished.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
