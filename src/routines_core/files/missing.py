"""The file store of a program that was not told where files are."""
# ruff: noqa: ARG002 - its methods have the arguments of a FileStore

from collections.abc import AsyncIterable, AsyncIterator

from routines_core.errors import StorageError
from routines_core.files.store import StoredFile

SENTENCE = "ROUTINES_FILES is not set, so there is no place for files."


class MissingStore:
    """Refuses every file and holds none."""

    async def save(self, collection_id: int, name: str, content: bytes) -> str:
        """See FileStore."""
        raise StorageError(SENTENCE)

    async def write(self, collection_id: int, name: str, chunks: AsyncIterable[bytes]) -> str:
        """See FileStore."""
        raise StorageError(SENTENCE)

    async def read(self, collection_id: int, path: str, max_bytes: int | None = None) -> bytes:
        """See FileStore."""
        raise StorageError(SENTENCE)

    async def delete(self, collection_id: int, path: str) -> None:
        """See FileStore."""
        raise StorageError(SENTENCE)

    async def stored(self) -> AsyncIterator[StoredFile]:
        """See FileStore."""
        for nothing in ():
            yield nothing

    async def belongs_to(self, database: str) -> bool:
        """See FileStore."""
        raise StorageError(SENTENCE)
