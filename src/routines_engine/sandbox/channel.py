"""The connection between a worker and a step process: frames of bytes over a socket pair."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""The largest frame: a file that a step reads or saves, with room to spare."""
LARGE_FRAME_BYTES = 64 * 1024
"""Messages of at least this size wait until they have been sent."""
_LENGTH = struct.Struct(">I")

Message = TypeVar("Message")


class FrameTooLargeError(ValueError):
    """A message is larger than MAX_FRAME_BYTES."""


class Channel(asyncio.Protocol, Generic[Message]):
    """One end of the connection. Messages sent in the same iteration of the event loop share one write.

    Args:
        types: The type of the messages that arrive.
        received: Called with each of them.
        closed: Called once at the end, with the error if the other end broke the protocol.
    """

    def __init__(
        self, types: Any, received: Callable[[Message], None], closed: Callable[[Exception | None], None]
    ) -> None:
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(types)
        self._encoder = msgspec.msgpack.Encoder()
        self._received = received
        self._closed = closed
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._incoming = bytearray()
        self._outgoing: list[bytes] = []
        self._error: Exception | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    async def open(self, end: socket.socket) -> None:
        """Take over this end of a socket pair."""
        self._loop = asyncio.get_running_loop()
        await self._loop.create_connection(lambda: self, sock=end)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of this end, kept because to ask for it costs a system call (Python 3.11).

        Raises:
            RuntimeError: The connection was not opened.
        """
        if self._loop is None:
            raise RuntimeError("the connection was not opened")
        return self._loop

    def send(self, message: Any) -> int:
        """Queue a message and return its size in bytes; after the end of the connection it is dropped.

        Raises:
            FrameTooLargeError: It is too large to be sent.
        """
        body = self._encoder.encode(message)
        if len(body) > MAX_FRAME_BYTES:
            raise FrameTooLargeError(f"a message of {len(body)} bytes is larger than the limit of {MAX_FRAME_BYTES}")
        if not self._outgoing:
            self.loop.call_soon(self.flush)
        self._outgoing += (_LENGTH.pack(len(body)), body)
        return len(body)

    async def drain(self) -> None:
        """Wait until the other end has read enough of what was sent."""
        self.flush()
        await self._writable.wait()

    def close(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def flush(self) -> None:
        """Write what was sent at once, before a computation that may keep the event loop busy."""
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(outgoing))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)  # a socket pair is a stream

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._incoming += data
        first = 0
        try:
            while len(self._incoming) >= first + _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._incoming, first)
                if length > MAX_FRAME_BYTES:
                    raise FrameTooLargeError(f"a frame of {length} bytes")  # noqa: TRY301 - handled with broken ones
                last = first + _LENGTH.size + length
                if len(self._incoming) < last:
                    break
                body = bytes(self._incoming[first + _LENGTH.size : last])  # decoded messages may refer to it
                first = last
                self._received(self._decoder.decode(body))
        except (FrameTooLargeError, msgspec.DecodeError) as error:
            self._error = error
            self.close()
        finally:
            del self._incoming[:first]

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - that the other end is gone is no error
        """See asyncio.Protocol."""
        self._writable.set()
        self._closed(self._error)
