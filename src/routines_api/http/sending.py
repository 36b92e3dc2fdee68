"""How every answer is sent: its headers, its status for the metrics, and the time that a client may take."""

import asyncio

from litestar.types import Message, Send

PIECE_SECONDS = 10.0
"""Maximum time for a client to receive a piece of a large answer; after that the connection is closed."""
_GUARDS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class Sending:
    """Sends one answer.

    Caching and content sniffing are forbidden, except where the answer sets these headers itself.

    Attributes:
        status: The HTTP status of the answer; None before it began.
    """

    __slots__ = ("_send", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        """Send a message of the answer.

        Raises:
            TimeoutError: The client did not take a piece of the answer in time.
        """
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name.lower() for name, _ in message["headers"]}
            headers = [*message["headers"], *(guard for guard in _GUARDS if guard[0] not in given)]
            await self._send({**message, "headers": headers})
        elif message["type"] == "http.response.body" and message.get("more_body"):
            async with asyncio.timeout(PIECE_SECONDS):
                await self._send(message)
        else:
            await self._send(message)
