"""Headers of every answer of the API."""

from litestar.types import Message, Send

_GUARDS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


def guarded(send: Send) -> Send:
    """Wrap `send` to forbid caching and content sniffing, except where an answer sets these headers itself."""

    async def guarding(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message["headers"])
            given = {name.lower() for name, _ in headers}
            message = {**message, "headers": [*headers, *(guard for guard in _GUARDS if guard[0] not in given)]}
        await send(message)

    return guarding
