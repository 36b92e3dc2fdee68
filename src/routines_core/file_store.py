"""Files of a collection: what runs are given and what their steps keep, behind one small interface."""

import asyncio
from pathlib import Path, PurePosixPath
from typing import Protocol
from uuid import uuid4

from routines_core.errors import InvalidError
from routines_core.settings import Settings


class FileStore(Protocol):
    """Keeps files apart by collection."""

    async def save(self, collection_id: int, name: str, content: bytes) -> str:
        """Keep it: the path that reads it again."""
        ...

    async def read(self, collection_id: int, path: str) -> bytes:
        """Its content.

        Raises:
            InvalidError: The collection has no such file.
        """
        ...


class LocalFileStore:
    """A directory, with one below it for each collection.

    Args:
        root: Made when the first file is saved.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def save(self, collection_id: int, name: str, content: bytes) -> str:
        """Keep it under a new name, so that none is ever written over."""
        path = f"{uuid4().hex}/{PurePosixPath(name).name or 'file'}"
        target = self._root / str(collection_id) / path
        await asyncio.to_thread(_write, target, content)
        return path

    async def read(self, collection_id: int, path: str) -> bytes:
        """Its content.

        Raises:
            InvalidError: The collection has no such file.
        """
        own = (self._root / str(collection_id)).resolve()
        wanted = (own / path).resolve()
        if "\0" in path or not wanted.is_relative_to(own) or not wanted.is_file():
            raise InvalidError(f"there is no file {path!r} in the collection")
        return await asyncio.to_thread(wanted.read_bytes)


def open_file_store(settings: Settings) -> FileStore:
    """The file store of these settings."""
    return LocalFileStore(settings.data_dir / "files")


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
