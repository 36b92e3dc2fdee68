"""Receivers of webhooks on loopback: real sockets, well-behaved or not."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What a receiver does once it has a complete request. The connection is closed afterwards."""


@dataclass(frozen=True)
class Received:
    """A request; header names in lower case."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A server on loopback.

    Attributes:
        url: Where it listens.
        connections: The number of connections made to it.
        received: The complete requests.
    """

    url: str
    connections: int = 0
    received: list[Received] = field(default_factory=list[Received])


@asynccontextmanager
async def receiver(behaviour: Behaviour) -> AsyncGenerator[Receiver]:
    """Run a receiver with this behaviour until the end of the block."""
    made = Receiver("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            made.received.append(await _read(reader))
            await behaviour(reader, writer)
            await writer.drain()
        writer.close()

    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=2**24)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")[1:-2]
    headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in head)}
    return Received(headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def answers(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answer at once. Header names are spelled with _ for -."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return behave


async def hangs(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def closes_early(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Hang up without an answer."""


async def breaks_off(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hang up in the middle of the headers."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")


def endless(head: bytes, piece: bytes, pause_seconds: float = 0) -> Behaviour:
    """Send `head`, and then `piece` forever."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    return behave
