"""Where the files are kept that come with runs and that steps save: a directory, or an S3-like bucket.

A path names a file within one collection; there is no path that leads out of it. It has no separator, so that `..` and
absolute paths are no paths at all, and begins with 128 random bits, so that none can be guessed.
"""

import asyncio
import os
import re
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from routines_core.errors import ConfigurationError, InvalidError, StorageError
from routines_core.settings import Settings

Result = TypeVar("Result")

_PATH = re.compile(r"[0-9a-f]{32}-[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_LONGEST_NAME = 100
MARK = "database"
"""The name of the mark in a store, which says whose it is; no collection is called so."""
_FOUND_AT_ONCE = 1000
"""Files of a directory that are looked at in one go."""
_BUFFER_BYTES = 1024 * 1024
"""How much of a file that comes in pieces is in memory at once."""


@dataclass(frozen=True)
class StoredFile:
    """A file and its age.

    Attributes:
        modified_at: When it was saved, by the clock of whoever keeps it.
    """

    collection_id: int
    path: str
    modified_at: datetime


class FileStore(Protocol):
    """The files of all collections, each apart from the others; raises StorageError where it is away or full."""

    async def save(self, collection_id: int, name: str, content: bytes) -> str:
        """Keep a file: the path that reads it again. It is on disk once this returns."""
        ...

    async def write(self, collection_id: int, name: str, chunks: AsyncIterable[bytes]) -> str:
        """The same for a file that comes in pieces, whatever its size. What the pieces raise leaves nothing behind."""
        ...

    async def read(self, collection_id: int, path: str) -> bytes:
        """A file of this collection.

        Raises:
            InvalidError: There is none of this path.
        """
        ...

    async def delete(self, collection_id: int, path: str) -> None:
        """Remove a file; one that is not there is none."""
        ...

    def stored(self) -> AsyncIterator[StoredFile]:
        """Every file, in no order: for whoever removes old ones."""
        ...

    async def belongs_to(self, database: str) -> bool:
        """Whether the files are those of this database, by the mark in the store; one without a mark gets it now.

        Who deletes what a database does not know must not do so in the store of another one.
        """
        ...


def open_file_store(settings: Settings) -> FileStore:
    """The store that ROUTINES_FILES names.

    Raises:
        ConfigurationError: It names a bucket, and the package for that is not installed or the address is malformed.
    """
    where = settings.files
    if where is None or "://" not in where:
        return DirectoryStore(Path(where) if where else settings.data_dir / "files")
    if not where.startswith("s3://"):
        raise ConfigurationError("ROUTINES_FILES: must be a directory or s3://bucket/prefix.")
    try:
        from routines_core.bucket_store import BucketStore
    except ModuleNotFoundError:
        raise ConfigurationError("ROUTINES_FILES: s3:// needs a package: pip install 'routines[s3]'.") from None
    return BucketStore(where)


def new_path(name: str) -> str:
    """A path that nothing has, with as much of this name as is safe."""
    tail = re.split(r"[/\\]", name)[-1]
    safe = _UNSAFE.sub("_", tail).lstrip(".")[-_LONGEST_NAME:].lstrip(".") or "file"
    return f"{secrets.token_hex(16)}-{safe}"


def check_path(path: str) -> str:
    """The path itself.

    Raises:
        InvalidError: No file has such a path.
    """
    if not _PATH.fullmatch(path):
        raise no_file(path)
    return path


def no_file(path: str) -> InvalidError:
    """The error of a path that leads to nothing in the collection."""
    shown = ascii(path[:_LONGEST_NAME])
    return InvalidError(f"there is no file {shown} in this collection")


async def one_piece(content: bytes) -> AsyncIterator[bytes]:
    """A file that is there already, as one that comes in pieces."""
    yield content


async def gathered(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same pieces, small ones put together."""
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) >= _BUFFER_BYTES:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


class DirectoryStore:
    """Files below a directory, one folder for each collection, for this account alone."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def save(self, collection_id: int, name: str, content: bytes) -> str:
        """See FileStore."""
        return await self.write(collection_id, name, one_piece(content))

    async def write(self, collection_id: int, name: str, chunks: AsyncIterable[bytes]) -> str:
        """See FileStore."""
        path = new_path(name)
        place = self._folder(collection_id) / path
        begun = place.with_name(f".{path}")  # no path of a file begins with a dot
        descriptor = await _on_disk(_create, begun)
        try:
            async for piece in gathered(chunks):
                await _on_disk(_write_all, descriptor, piece)
            await _on_disk(_finish, descriptor, begun, place)
        except BaseException:
            begun.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return path

    async def read(self, collection_id: int, path: str) -> bytes:
        """See FileStore."""
        try:
            return await asyncio.to_thread((self._folder(collection_id) / check_path(path)).read_bytes)
        except FileNotFoundError:
            raise no_file(path) from None

    async def delete(self, collection_id: int, path: str) -> None:
        """See FileStore."""
        with suppress(InvalidError):
            check_path(path.removeprefix("."))  # what was begun and never finished
            await _on_disk(partial((self._folder(collection_id) / path).unlink, missing_ok=True))

    async def stored(self) -> AsyncIterator[StoredFile]:
        """See FileStore; what was begun and never finished is among them."""
        found = self._found()
        while some := await _on_disk(lambda: list(islice(found, _FOUND_AT_ONCE))):
            for file in some:
                yield file

    async def belongs_to(self, database: str) -> bool:
        """See FileStore."""
        return await _on_disk(self._mark, database) == database

    def _mark(self, database: str) -> str:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            begun = self._root / f".{MARK}-{secrets.token_hex(8)}"
            begun.write_text(database, "utf-8")
            try:
                os.link(begun, self._root / MARK)  # whole or not at all, and only where there is none
            finally:
                begun.unlink()
        return (self._root / MARK).read_text("utf-8", "replace")

    def _found(self) -> Iterator[StoredFile]:
        for folder in self._root.glob("[0-9]*") if self._root.is_dir() else ():
            for file in folder.iterdir():
                with suppress(FileNotFoundError):
                    modified_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
                    yield StoredFile(int(folder.name), file.name, modified_at)

    def _folder(self, collection_id: int) -> Path:
        return self._root / str(int(collection_id))


async def _on_disk(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call it in a thread.

    Raises:
        StorageError: The disk is full, or not to be written to.
    """
    try:
        return await asyncio.to_thread(function, *arguments)
    except OSError as error:
        raise StorageError(f"A file cannot be kept: {error.strerror}.") from None


def _create(place: Path) -> int:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _write_all(descriptor: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]


def _finish(descriptor: int, begun: Path, place: Path) -> None:
    """Give the file its name once its content, and then that name, is on disk."""
    os.fsync(descriptor)
    begun.rename(place)
    folder = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
