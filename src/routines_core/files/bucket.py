"""A file store in an S3-compatible bucket, using the package obstore."""

import re
from collections.abc import AsyncIterable, AsyncIterator

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from routines_core.errors import ConfigurationError, InvalidError, StorageError
from routines_core.files.store import MARK, StoredFile, check_path, gathered, new_path, no_file, one_piece, too_large

PARTS_AT_ONCE = 2
"""Concurrent uploads of a large file; with the part being buffered, they bound its memory use."""
_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9._/-]*))?", re.ASCII)


class BucketStore:
    """Keeps files below `s3://bucket/prefix`; credentials, region and endpoint come from the AWS_ variables.

    An interrupted upload leaves no file, but its parts may stay in the bucket unseen: configure a lifecycle rule that
    aborts incomplete multipart uploads.
    """

    def __init__(self, address: str) -> None:
        parsed = _ADDRESS.fullmatch(address)
        if parsed is None:
            raise ConfigurationError("ROUTINES_FILES: must be a directory or s3://bucket/prefix.")
        self._store = S3Store(parsed[1], prefix=(parsed[2] or "").strip("/") or None)

    async def save(self, collection_id: int, name: str, content: bytes) -> str:
        """See FileStore."""
        return await self.write(collection_id, name, one_piece(content))

    async def write(self, collection_id: int, name: str, chunks: AsyncIterable[bytes]) -> str:
        """See FileStore."""
        path = new_path(name)
        key = _key_of(collection_id, path)
        raised: list[Exception] = []
        try:
            await obstore.put_async(self._store, key, _remembering(chunks, raised), max_concurrency=PARTS_AT_ONCE)
        except Exception as error:  # noqa: BLE001 - re-raised as the original error
            # obstore wraps what `chunks` raises in an error of its own.
            raise (raised[0] if raised else _unusable(error)) from None
        return path

    async def read(self, collection_id: int, path: str, max_bytes: int | None = None) -> bytes:
        """See FileStore."""
        try:
            found = await obstore.get_async(self._store, _key_of(collection_id, check_path(path)))
            if max_bytes is not None and found.meta["size"] > max_bytes:
                raise too_large(found.meta["size"], max_bytes)
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            raise no_file(path) from None
        except BaseError as error:
            raise _unusable(error) from None

    async def delete(self, collection_id: int, path: str) -> None:
        """See FileStore."""
        try:
            await obstore.delete_async(self._store, _key_of(collection_id, check_path(path)))
        except (FileNotFoundError, InvalidError):
            return
        except BaseError as error:
            raise _unusable(error) from None

    async def stored(self) -> AsyncIterator[StoredFile]:
        """See FileStore."""
        try:
            async for batch in obstore.list(self._store):  # pyright: ignore[reportUnknownMemberType] - another overload is
                for found in batch:
                    folder, _, path = found["path"].rpartition("/")
                    if folder.isdigit():
                        yield StoredFile(int(folder), path, found["last_modified"], found["size"])
        except BaseError as error:
            raise _unusable(error) from None

    async def belongs_to(self, database: str) -> bool:
        """See FileStore."""
        try:
            try:
                found = await obstore.get_async(self._store, MARK)
            except FileNotFoundError:
                await obstore.put_async(self._store, MARK, database.encode())
                found = await obstore.get_async(self._store, MARK)
            return bytes(await found.bytes_async()) == database.encode()
        except BaseError as error:
            raise _unusable(error) from None


def _key_of(collection_id: int, path: str) -> str:
    return f"{int(collection_id)}/{path}"


async def _remembering(chunks: AsyncIterable[bytes], raised: list[Exception]) -> AsyncIterator[bytes]:
    """Yield the chunks, remembering what they raise."""
    try:
        async for piece in gathered(chunks):
            yield piece
    except Exception as error:
        raised.append(error)
        raise


def _unusable(error: Exception) -> StorageError:
    return StorageError(f"The bucket is unusable: {type(error).__name__}.")
