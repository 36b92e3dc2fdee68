"""The interface of a file store, which keeps the files that requests upload and steps save.

A path names a file within one collection and cannot lead out of it: it has no separator, so `..` and absolute paths are
invalid, and it begins with 128 random bits, so it cannot be guessed.
"""

import re
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from routines_core.errors import InvalidError

_PATH = re.compile(r"[0-9a-f]{32}-[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_LONGEST_NAME = 100
MARK = "database"
"""Name of the marker that says which database a store belongs to; no collection folder has this name."""
_BUFFER_BYTES = 1024 * 1024
"""How much of a streamed file is held in memory at once."""


@dataclass(frozen=True)
class StoredFile:
    """A stored file.

    Attributes:
        modified_at: When it was saved, by the clock of the disk or bucket.
        size_bytes: Its size.
    """

    collection_id: int
    path: str
    modified_at: datetime
    size_bytes: int = 0


class FileStore(Protocol):
    """Keeps the files of each collection apart.

    Every method raises StorageError if the store is unreachable or full.
    """

    async def save(self, collection_id: int, name: str, content: bytes) -> str:
        """Store a file durably and return the path to read it by."""
        ...

    async def write(self, collection_id: int, name: str, chunks: AsyncIterable[bytes]) -> str:
        """Store a streamed file of any size and return its path; if `chunks` raises, nothing is left behind."""
        ...

    async def read(self, collection_id: int, path: str, max_bytes: int | None = None) -> bytes:
        """Return the content of a file of this collection.

        Raises:
            InvalidError: The collection has no file at this path, or the file is larger than `max_bytes` and was not
                read. With None, any size is allowed.
        """
        ...

    async def delete(self, collection_id: int, path: str) -> None:
        """Delete a file; a missing file is not an error."""
        ...

    def stored(self) -> AsyncIterator[StoredFile]:
        """Iterate over every file, in no particular order."""
        ...

    async def belongs_to(self, database: str) -> bool:
        """Check the store's marker, writing it first if there is none. Returns whether the store is this database's.

        Check this before deleting files that a database does not know: they may be another database's.
        """
        ...


def new_path(name: str) -> str:
    """Return a new unique path that ends in the safe characters of `name`."""
    tail = re.split(r"[/\\]", name)[-1]
    safe = _UNSAFE.sub("_", tail).lstrip(".")[-_LONGEST_NAME:].lstrip(".") or "file"
    return f"{secrets.token_hex(16)}-{safe}"


def check_path(path: str) -> str:
    """Return the path unchanged if it is well formed.

    Raises:
        InvalidError: No file can have this path.
    """
    if not _PATH.fullmatch(path):
        raise no_file(path)
    return path


def no_file(path: str) -> InvalidError:
    """Return the error for a path that names no file of the collection."""
    # Shown only if it is a path: otherwise it may be part of a secret, which masking does not find.
    shown = f"file {path!r}" if _PATH.fullmatch(path) else "such file"
    return InvalidError(f"there is no {shown} in this collection")


def too_large(size_bytes: int, max_bytes: int) -> InvalidError:
    """Return the error for a file that is larger than its reader takes."""
    return InvalidError(f"the file has {size_bytes} bytes; at most {max_bytes} can be read here")


async def one_piece(content: bytes) -> AsyncIterator[bytes]:
    """Yield content that is already in memory as a single chunk."""
    yield content


async def gathered(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Join small chunks into larger ones."""
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        if len(buffer) >= _BUFFER_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)
