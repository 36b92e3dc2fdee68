"""Put a proxy in front of Postgres, on loopback, whose connections can be cut, silenced and slowed."""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, with a timeout of 0


@dataclass(eq=False)
class Link:
    """A client's connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    swallows_answers: bool = False
    delay_seconds: float = 0

    def cut(self) -> None:
        """Reset the client's side and drop the server's."""
        peer: socket.socket = self.client.get_extra_info("socket")
        with contextlib.suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.client.transport.abort()
        self.server.transport.abort()


class FaultProxy:
    """Passes bytes between its port and Postgres's socket; faults act on its links."""

    def __init__(self, server_socket: Path) -> None:
        self._server_socket = server_socket
        self.links: set[Link] = set()
        self.accepting = asyncio.Event()
        self.accepting.set()
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Stop listening and cut all open connections."""
        self._listener.close()
        for link in list(self.links):
            link.flowing.set()
            link.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.accepting.wait()
        try:
            from_server, to_server = await asyncio.open_unix_connection(str(self._server_socket))
        except OSError:  # Postgres is down
            writer.transport.abort()
            return
        link = Link(writer, to_server)
        link.flowing.set()
        self.links.add(link)
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._pump(link, reader, to_server, answers=False)),
                    asyncio.ensure_future(self._pump(link, from_server, writer, answers=True)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self.links.discard(link)
            writer.transport.abort()
            to_server.transport.abort()

    async def _pump(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(link.delay_seconds)
                await link.flowing.wait()
                if answers and link.swallows_answers:
                    continue
                writer.write(data)
                await writer.drain()
