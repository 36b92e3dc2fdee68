"""Both file stores, a directory and a bucket on an S3-compatible server, behave in the same way."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from routines_core.errors import ConfigurationError, InvalidError, StorageError
from routines_core.files.opening import open_file_store
from routines_core.files.store import FileStore
from routines_core.settings import Settings
from support.buckets import name_server, s3_server

LARGE = 12 * 1024 * 1024
"""Larger than two parts of a multipart upload."""


@pytest.fixture(scope="module")
def s3() -> Generator[str]:
    """The address of an S3-compatible server on loopback with the bucket `files`."""
    with s3_server() as url:
        yield url


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    if request.param == "directory":
        return open_file_store(Settings(data_dir=tmp_path))
    name_server(monkeypatch, request.getfixturevalue("s3"))
    return open_file_store(Settings(files=f"s3://files/{tmp_path.name}"))


async def all_of(store: FileStore) -> list[tuple[int, str]]:
    return [(found.collection_id, found.path) async for found in store.stored()]


async def test_a_saved_file_is_read_back_unchanged(store: FileStore) -> None:
    path = await store.save(7, "report.pdf", b"\0content")
    assert await store.read(7, path) == b"\0content"
    assert re.fullmatch(r"[0-9a-f]{32}-report\.pdf", path)
    assert await store.read(7, await store.save(7, "", b"")) == b""


async def test_a_file_larger_than_its_reader_takes_is_not_read(store: FileStore) -> None:
    path = await store.save(7, "a", b"12345")
    assert await store.read(7, path, 5) == b"12345"
    with pytest.raises(InvalidError, match="the file has 5 bytes; at most 4 can be read here"):
        await store.read(7, path, 4)


async def test_a_text_that_cannot_be_a_path_is_not_quoted(store: FileStore) -> None:
    """It might be a secret, and the end of a long one would be cut off, so that masking would not find the rest."""
    with pytest.raises(InvalidError) as caught:
        await store.read(7, "secret/" + "x" * 200)
    assert str(caught.value) == "there is no such file in this collection"


async def test_a_file_of_another_collection_looks_like_a_missing_file(store: FileStore) -> None:
    path = await store.save(1, "a", b"theirs")
    for collection, asked in ((2, path), (1, "0" * 32 + "-a"), (2, f"../1/{path}"), (2, f"1/{path}"), (1, f"./{path}")):
        with pytest.raises(InvalidError, match=r"there is no (such )?file"):
            await store.read(collection, asked)


@pytest.mark.parametrize("path", ["", ".", "..", "/etc/passwd", "../../etc/passwd", "a\0b", "%2e%2e", "x" * 5000])
async def test_a_path_that_leads_elsewhere_is_refused(store: FileStore, path: str) -> None:
    with pytest.raises(InvalidError, match=r"there is no (such )?file"):
        await store.read(1, path)
    await store.delete(1, path)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\bericht.docx", "bericht.docx"),
        (".bashrc", "bashrc"),
        ("..", "file"),
        ("", "file"),
        ("a b\0\n\u00fc.txt", "a_b_.txt"),
        ("x" * 300 + ".csv", "x" * 96 + ".csv"),
    ],
)
async def test_only_the_safe_characters_of_a_name_are_kept(store: FileStore, name: str, safe: str) -> None:
    path = await store.save(1, name, b"x")
    assert path[33:] == safe
    assert await store.read(1, path) == b"x"


async def pieces(count: int, *, breaks: bool = False) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * 65536
    if breaks:
        raise ConnectionError("the client went away")


async def test_a_large_file_is_stored_in_pieces(store: FileStore) -> None:
    path = await store.write(1, "large", pieces(LARGE // 65536))
    content = await store.read(1, path)
    assert len(content) == LARGE
    assert content[65536:65538] == b"\1\1"


async def test_an_interrupted_upload_leaves_nothing_behind(store: FileStore) -> None:
    for count in (1, LARGE // 65536):
        with pytest.raises(ConnectionError, match="the client went away"):
            await store.write(1, "broken", pieces(count, breaks=True))
    assert await all_of(store) == []


async def test_a_deleted_file_is_gone_and_deleting_it_again_is_not_an_error(store: FileStore) -> None:
    path = await store.save(1, "a", b"x")
    other = await store.save(2, "b", b"x")
    await store.delete(2, path)
    assert sorted(await all_of(store)) == [(1, path), (2, other)]
    for _ in range(2):
        await store.delete(1, path)
    assert await all_of(store) == [(2, other)]


async def test_a_store_belongs_to_the_first_database_that_used_it(store: FileStore) -> None:
    assert [await store.belongs_to(name) for name in ("7/1", "8/1", "7/1", "7/12")] == [True, False, True, False]
    path = await store.save(1, "a", b"x")
    assert await all_of(store) == [(1, path)]


async def test_files_in_a_directory_are_readable_by_this_account_only(tmp_path: Path) -> None:
    path = await open_file_store(Settings(data_dir=tmp_path)).save(1, "a", b"x")
    file = tmp_path / "files" / "1" / path
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_files_in_a_directory_of_a_group_can_be_read_and_deleted_by_it(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files").chmod(0o2770)
    kept = os.umask(0o007)  # as in deploy/systemd
    try:
        path = await open_file_store(Settings(data_dir=tmp_path)).save(1, "a", b"x")
    finally:
        os.umask(kept)
    file = tmp_path / "files" / "1" / path
    assert (file.stat().st_mode & 0o7777, file.parent.stat().st_mode & 0o7777) == (0o660, 0o2770)


async def test_files_saved_concurrently_get_different_paths(store: FileStore) -> None:
    paths = await asyncio.gather(*(store.save(1, "same", bytes([number])) for number in range(20)))
    assert len(set(paths)) == 20
    assert [await store.read(1, path) for path in paths] == [bytes([number]) for number in range(20)]


@pytest.mark.parametrize("where", ["gs://bucket", "s3://", "s3://UPPER/x", "s3://bucket/a?b"])
def test_an_invalid_store_address_is_refused_in_one_sentence(where: str) -> None:
    with pytest.raises(ConfigurationError, match="ROUTINES_FILES"):
        open_file_store(Settings(files=where))


async def test_an_unusable_store_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("no directory")
    for name, text in {"ENDPOINT_URL": "http://127.0.0.1:1", "ALLOW_HTTP": "true", "SKIP_SIGNATURE": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", text)
    with pytest.raises(StorageError):
        await open_file_store(Settings(files=str(tmp_path / "taken"))).save(1, "a", b"x")
