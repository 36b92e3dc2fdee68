"""The management listener: what it serves, to whom, and its limits."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

import routines_core.metrics.listener as module
from routines_core.metrics.listener import ProgramHealth, listening
from routines_core.metrics.program import ProgramMetrics
from routines_core.settings import Settings
from support.serving import free_port

GOOD = ProgramHealth(is_connected=True, since_success_seconds=0.1)
TOKEN = "a token of more than 16"


@asynccontextmanager
async def listener(health: ProgramHealth = GOOD, token: str | None = None) -> AsyncGenerator[int]:
    async def ask() -> ProgramHealth:
        return health

    settings = Settings(metrics_port=free_port(), metrics_token=token)
    port = settings.metrics_port
    assert port
    async with listening(settings, ProgramMetrics("ticker"), ask):
        async with asyncio.timeout(20):
            while not await is_open(port):  # noqa: ASYNC110 - until the port is bound
                await asyncio.sleep(0.01)
        yield port


async def is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def send(port: int, message: bytes, seconds: float = 20) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body; status 0 if the connection was closed without a response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(message)
        async with asyncio.timeout(seconds):
            answer = await reader.read()
    except ConnectionResetError:
        return 0, {}, b""
    finally:
        writer.close()
    if not answer:
        return 0, {}, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    assert int(headers["content-length"]) == len(body)
    return int(status.split()[1]), headers, body


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


async def test_it_serves_the_metrics_and_the_health_of_its_program() -> None:
    async with listener() as port:
        status, headers, body = await send(port, get("/metrics?x=1"))
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b'routines_build_info{program="ticker"' in body
        status, _, body = await send(port, get("/health"))
        assert status == 200
        told = {"status": "ok", "program": "ticker", "database": True, "since_success_seconds": 0.1}
        assert json.loads(body) == told


@pytest.mark.parametrize(
    "health",
    [
        ProgramHealth(is_connected=False, since_success_seconds=0.1),
        ProgramHealth(is_connected=True, since_success_seconds=31),
        ProgramHealth(is_connected=True, since_success_seconds=None),
    ],
)
async def test_a_program_that_is_disconnected_or_idle_too_long_is_unhealthy(health: ProgramHealth) -> None:
    async with listener(health) as port:
        status, _, body = await send(port, get("/health"))
        assert (status, json.loads(body)["status"]) == (503, "failing")


async def test_a_token_is_required_for_the_metrics_but_not_for_the_health() -> None:
    async with listener(token=TOKEN) as port:
        for header in (
            (),
            (f"Authorization: Bearer {TOKEN}x",),
            (f"Authorization: Basic {TOKEN}",),
            ("Authorization: ",),
        ):
            status, headers, body = await send(port, get("/metrics", *header))
            assert (status, headers["www-authenticate"], body) == (401, "Bearer", b"")
        assert (await send(port, get("/metrics", f"authorization: bearer {TOKEN}")))[0] == 200
        assert (await send(port, get("/health")))[0] == 200


@pytest.mark.parametrize(
    "message", [get("/"), get("//metrics"), get("/metrics/"), b"POST /metrics HTTP/1.1\r\n\r\n", b"\0\xff\r\n\r\n"]
)
async def test_every_other_request_answers_404(message: bytes) -> None:
    async with listener() as port:
        assert (await send(port, message))[0] == 404


async def test_a_client_that_sends_too_much_or_too_slowly_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.2)
    async with listener() as port:
        assert (await send(port, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 200_000))[0] == 0
        assert (await send(port, b"GET /metrics HT"))[0] == 0
        assert (await send(port, get("/metrics")))[0] == 200


async def test_connections_beyond_the_limit_are_closed() -> None:
    async with listener() as port:
        waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(module.CONNECTIONS)]
        assert (await send(port, get("/metrics")))[0] == 0
        for _, writer in waiting:
            writer.close()
        async with asyncio.timeout(20):
            while (await send(port, get("/metrics")))[0] != 200:  # noqa: ASYNC110 - until the listener has noticed
                await asyncio.sleep(0.01)


async def test_a_taken_port_does_not_stop_the_program_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTEN_AGAIN_SECONDS", 0.01)
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]

    async def ask() -> ProgramHealth:
        return GOOD

    async with listening(Settings(metrics_port=port), ProgramMetrics("ticker"), ask):
        assert (await send(port, get("/health")))[0] == 0
        taken.close()
        await taken.wait_closed()
        async with asyncio.timeout(20):
            while not await is_open(port):  # noqa: ASYNC110 - until the port is bound
                await asyncio.sleep(0.01)
        assert (await send(port, get("/health")))[0] == 200


async def test_without_a_port_no_listener_is_started() -> None:
    async def ask() -> ProgramHealth:
        raise AssertionError

    tasks = len(asyncio.all_tasks())
    async with listening(Settings(), ProgramMetrics("ticker"), ask):
        assert len(asyncio.all_tasks()) == tasks
