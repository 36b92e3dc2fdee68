"""The management listener of a program, which serves `/metrics`, `/health`, `/livez` and `/readyz`.

A minimal HTTP server: GET only, one response per connection, and limits on connections, bytes and time. Why not a
library: docs/decisions/0017-management-listener.md.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec
import structlog

from routines_core.metrics.access import is_bearer
from routines_core.metrics.program import MEDIA_TYPE, ProgramMetrics
from routines_core.settings import Settings

HEAD_BYTES = 8192
"""Maximum size of a request."""
REQUEST_SECONDS = 5.0
"""Time a client may take to send its request."""
ANSWER_SECONDS = 10.0
"""Time to produce and send the response."""
CONNECTIONS = 16
"""Maximum number of connections; further ones are closed without a response."""
LISTEN_AGAIN_SECONDS = 5.0
"""Delay before trying again to listen on a port that is taken."""
HEALTHY_SECONDS = 30.0
"""A program whose last success is longer ago is not healthy."""

log = structlog.get_logger("metrics")


class ProgramHealth(msgspec.Struct, frozen=True):
    """What a program knows about its own health.

    Attributes:
        is_connected: Whether it can reach the database, as far as it knows.
        since_success_seconds: Time since its last successful tick or claim; None before the first.
    """

    is_connected: bool
    since_success_seconds: float | None

    @property
    def is_good(self) -> bool:
        """Whether the program is connected and doing its work."""
        since = self.since_success_seconds
        return self.is_connected and since is not None and since <= HEALTHY_SECONDS


class _HealthAnswer(msgspec.Struct):
    status: str
    program: str
    database: bool
    since_success_seconds: float | None


AskHealth = Callable[[], Awaitable[ProgramHealth]]


@dataclass(frozen=True)
class _Answer:
    status: HTTPStatus
    content: bytes = b""
    media_type: str = "text/plain"


@dataclass
class _Handler:
    metrics: ProgramMetrics
    health: AskHealth
    token: str | None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    def hang_up(self) -> None:
        """Abort every open connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close the connection."""
        if len(self._writers) >= CONNECTIONS:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(ANSWER_SECONDS):
                writer.write(_encoded(await self._answer(head)))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, head: bytes) -> _Answer:
        request, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method != "GET":
            return _Answer(HTTPStatus.NOT_FOUND)
        if path == "/livez":
            return _Answer(HTTPStatus.OK, b'{"status":"ok"}', "application/json")
        if path in {"/health", "/readyz"}:
            return await self._health()
        if path != "/metrics":
            return _Answer(HTTPStatus.NOT_FOUND)
        if self.token is not None and not is_bearer(_header(lines, "authorization"), self.token):
            return _Answer(HTTPStatus.UNAUTHORIZED)
        return _Answer(HTTPStatus.OK, await self.metrics.page(), MEDIA_TYPE)

    async def _health(self) -> _Answer:
        health = await self.health()
        since = health.since_success_seconds
        body = _HealthAnswer(
            "ok" if health.is_good else "failing",
            self.metrics.program,
            health.is_connected,
            None if since is None else round(since, 3),
        )
        status = HTTPStatus.OK if health.is_good else HTTPStatus.SERVICE_UNAVAILABLE
        return _Answer(status, msgspec.json.encode(body), "application/json")


def _header(lines: list[str], name: str) -> str:
    found = (line.partition(":")[2] for line in lines if line.lower().startswith(f"{name}:"))
    return next(found, "").strip()


def _encoded(answer: _Answer) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.media_type}; charset=utf-8",
        f"Content-Length: {len(answer.content)}",
        "Connection: close",
        *(["WWW-Authenticate: Bearer"] if answer.status == HTTPStatus.UNAUTHORIZED else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + answer.content


@asynccontextmanager
async def listening(settings: Settings, metrics: ProgramMetrics, health: AskHealth) -> AsyncGenerator[None]:
    """Serve the program's metrics and health within the block, if ROUTINES_METRICS_PORT is set.

    If the port is taken, the program starts its work anyway and the listener keeps trying.
    """
    if settings.metrics_port is None:
        yield
        return
    handler = _Handler(metrics, health, settings.metrics_token)
    serving = asyncio.create_task(_serve(handler, settings.metrics_host, settings.metrics_port))
    try:
        yield
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def _serve(handler: _Handler, host: str, port: int) -> None:
    while True:
        try:
            server = await asyncio.start_server(handler.serve, host, port, limit=HEAD_BYTES)
        except OSError as error:
            log.error("management port unavailable", host=host, port=port,  # noqa: TRY400 - a traceback adds nothing
                      error=type(error).__name__, retry_seconds=LISTEN_AGAIN_SECONDS)  # fmt: skip
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)
            continue
        try:
            await asyncio.Event().wait()
        finally:  # do not wait for slow clients
            server.close()
            handler.hang_up()
