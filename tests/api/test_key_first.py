"""The key comes first: no body is read before it is recognised, and bodies are bounded."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from routines_api.app import Api, create_app
from routines_api.http import access
from routines_core.db import Connection, open_pool
from support.rows import Database, api_settings, make_key, make_task

RUN = "/api/v1/run/my-org/echo"
PATHS = [
    ("POST", "/api/v1/tasks/my-org"),
    ("PUT", "/api/v1/tasks/my-org/echo"),
    ("POST", RUN),
    ("POST", "/api/v1/run-sync/my-org/echo"),
    ("PATCH", "/api/v1/routines/my-org/echo/r"),
    ("POST", "/api/v1/routines/my-org/echo/r/pause"),
    ("DELETE", "/api/v1/tasks/my-org/echo"),
]
TYPES = ["application/json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]


class Exchange:
    """One ASGI request whose body is sent piece by piece. Records whether the application asked for any of it."""

    def __init__(self, app: Api, method: str, path: str, key: str, **headers: str) -> None:
        self.app = app
        given = {"authorization": f"Bearer {key}", "content_type": "application/json", **headers}
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), text.encode()) for name, text in given.items()],
            "server": ("test", 80),
            "client": ("test", 1),
            "scheme": "http",
            "root_path": "",
        }
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.asked = asyncio.Event()
        self.headers: dict[str, str] = {}
        self.status = 0

    async def run(self) -> int:
        """Send the request and return the status of the answer."""
        await self.app(self.scope, self._receive, self._send)
        return self.status

    async def _receive(self) -> Any:
        self.asked.set()
        piece = await self.pieces.get()
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): text.decode() for name, text in message["headers"]}


@asynccontextmanager
async def serving(database: Database, **settings: Any) -> AsyncGenerator[Api]:
    app = create_app(api_settings(**settings), database.url)
    async with open_pool(database.url, "routines-api", size=10) as app.state.pool:
        yield app


@pytest.mark.parametrize("media_type", TYPES)
@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_no_byte_of_a_body_is_read_before_the_key_was_recognised_and_opens_the_collection(
    connection: Connection, database: Database, method: str, path: str, media_type: str
) -> None:
    foreign = await make_key(connection, "other")
    async with serving(database) as app:
        for key, status in (("", 401), ("rtn_1_" + "a" * 49, 401), (foreign, 404)):
            sent = Exchange(app, method, path, key, content_type=media_type, content_length="200000")
            async with asyncio.timeout(20):
                assert await sent.run() == status
            assert not sent.asked.is_set()


@pytest.mark.parametrize("path", [RUN, "/api/v1/tasks/my-org"])
async def test_no_byte_of_a_body_is_read_before_the_rate_token_was_taken(
    connection: Connection, database: Database, path: str
) -> None:
    key = await make_key(connection, "my-org")
    async with serving(database, rate_per_second=0.01, rate_burst=1) as app:
        first = Exchange(app, "POST", path, key, content_length="2")
        first.pieces.put_nowait(b"{}")
        first.pieces.put_nowait(None)
        assert await first.run() in {400, 404}
        second = Exchange(app, "POST", path, key, content_length="200000")
        async with asyncio.timeout(20):
            assert await second.run() == 429
        assert not second.asked.is_set()


async def test_bodies_of_one_collection_wait_for_room_while_those_of_others_are_read(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "ROOM_SECONDS", 0.2)
    mine, theirs = await make_key(connection, "my-org"), await make_key(connection, "other")
    limits = {"max_buffered_bytes": 3000, "max_buffered_bytes_per_collection": 2000, "max_body_bytes": 1024}
    async with serving(database, **limits) as app:
        slow = [Exchange(app, "POST", "/api/v1/tasks/my-org", mine, content_length="1000") for _ in range(2)]
        tasks = [asyncio.create_task(each.run()) for each in slow]
        await asyncio.gather(*(each.asked.wait() for each in slow))
        bodies = app.state.services.bodies
        assert bodies.in_use == 2000
        third = Exchange(app, "POST", "/api/v1/tasks/my-org", mine, content_length="1000")
        assert await third.run() == 429
        assert not third.asked.is_set()
        assert third.headers["retry-after"] == "1"
        other = Exchange(app, "POST", "/api/v1/tasks/other", theirs, transfer_encoding="chunked")
        assert await other.run() == 503  # its chunks may take 1024 bytes, which the process does not have
        other = Exchange(app, "POST", "/api/v1/tasks/other", theirs, content_length="2")
        for piece in (b"{}", None):
            other.pieces.put_nowait(piece)
        assert await other.run() == 400
        for each in slow:
            each.pieces.put_nowait(None)
        assert await asyncio.gather(*tasks) == [400, 400]
        assert bodies.in_use == 0


async def test_uploads_of_one_collection_leave_room_for_those_of_others(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(access, "ROOM_SECONDS", 0.2)
    await make_task(connection)
    mine, theirs = await make_key(connection, "my-org"), await make_key(connection, "other")
    await connection.execute(
        "WITH made AS (INSERT INTO routines.tasks (collection_id, name) "
        "SELECT id, 'echo' FROM routines.collections WHERE name = 'other' RETURNING id) "
        "INSERT INTO routines.task_versions (task_id, version, workflow) SELECT id, 1, '{}' FROM made"
    )
    form = {"content_type": TYPES[1], "transfer_encoding": "chunked"}
    async with serving(database, max_uploads=4, data_dir=tmp_path) as app:
        slow = [Exchange(app, "POST", RUN, mine, **form) for _ in range(3)]
        tasks = [asyncio.create_task(each.run()) for each in slow]
        async with asyncio.timeout(20):
            await asyncio.gather(*(each.asked.wait() for each in slow))
        fourth = Exchange(app, "POST", RUN, mine, **form)
        assert (await fourth.run(), fourth.asked.is_set()) == (429, False)
        other = Exchange(app, "POST", "/api/v1/run/other/echo", theirs, **form)
        tasks.append(asyncio.create_task(other.run()))
        async with asyncio.timeout(20):
            await other.asked.wait()
        for each in (*slow, other):
            each.pieces.put_nowait(None)
        assert set(await asyncio.gather(*tasks)) == {400}
        assert app.state.services.uploads.in_use == 0
