"""Compresses answers with gzip for clients that accept it."""

import asyncio
import zlib
from collections.abc import Iterable
from typing import Any

from litestar.types import HTTPResponseStartEvent, Message, Send

MINIMUM_BYTES = 1024
"""Smaller answers are sent as they are: compressing them costs more time than it saves."""
IN_THREAD_BYTES = 64 * 1024
"""Larger pieces are compressed in a thread, since they would keep the event loop busy for more than a millisecond."""
LEVEL = 1
"""The level of zlib. Higher ones take two to five times as long and make JSON smaller by a fifth."""
_GZIP = 31
"""What zlib calls the gzip format: its largest window, with header and checksum."""
_COMPRESSIBLE = ("application/json", "application/problem+json", "text/")

Headers = Iterable[tuple[bytes, bytes]]


def accepts_gzip(headers: Headers) -> bool:
    """Return whether the headers of a request name gzip in Accept-Encoding, with a weight above 0."""
    for name, text in headers:
        if name == b"accept-encoding":
            for coding in text.lower().split(b","):
                token, _, weight = coding.partition(b";")
                if token.strip() == b"gzip":
                    return not _is_zero(weight)
    return False


def _is_zero(weight: bytes) -> bool:
    """Return whether a parameter such as `q=0.000` says that the coding is not acceptable."""
    name, _, number = weight.replace(b" ", b"").partition(b"=")
    return name == b"q" and number.strip(b"0.") == b"" and number.startswith(b"0")


class Compressing:
    """Sends one answer, compressed if it has at least MINIMUM_BYTES.

    Its start is held back until its first piece, because its headers depend on whether it is compressed.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: HTTPResponseStartEvent | None = None
        self._compressor: Any = None

    async def __call__(self, message: Message) -> None:
        """Send a message of the answer."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        content, is_last = message.get("body", b""), not message.get("more_body", False)
        start, self._start = self._start, None
        if start is not None and _is_worth_it(start, content, is_last=is_last):
            self._compressor = zlib.compressobj(LEVEL, wbits=_GZIP)
        if self._compressor is not None:
            content = await self._compressed(content, is_last=is_last)
            if start is not None:
                start = _announcing(start, len(content) if is_last else None)
        if start is not None:
            await self._send(start)
        await self._send({**message, "body": content})

    async def _compressed(self, content: bytes, *, is_last: bool) -> bytes:
        def compress() -> bytes:
            compressed = self._compressor.compress(content)
            return compressed + self._compressor.flush(zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH)

        return await asyncio.to_thread(compress) if len(content) > IN_THREAD_BYTES else compress()


def _is_worth_it(start: HTTPResponseStartEvent, content: bytes, *, is_last: bool) -> bool:
    if is_last and len(content) < MINIMUM_BYTES:
        return False
    headers = {name.lower(): text for name, text in start["headers"]}
    kind = headers.get(b"content-type", b"").decode("latin-1")
    return kind.startswith(_COMPRESSIBLE) and b"content-encoding" not in headers


def _announcing(start: HTTPResponseStartEvent, size: int | None) -> HTTPResponseStartEvent:
    """Return the start of a compressed answer of this size; None if that is not known."""
    kept = [(name, text) for name, text in start["headers"] if name.lower() != b"content-length"]
    length = [] if size is None else [(b"content-length", str(size).encode())]
    coding = [(b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")]
    return {**start, "headers": [*kept, *length, *coding]}
