"""The HTTP client for addresses that people typed in: it connects to public addresses alone, and holds little."""

import asyncio
from ipaddress import ip_address

import httpx

from routines_core.errors import ForbiddenAddressError

MAX_ANSWER_BYTES = 64 * 1024
"""How much of an answer's body is read, as it comes over the wire: it is never decompressed."""


def guarded_client(
    *, allow_private: bool, timeout_seconds: float, max_answer_bytes: int = MAX_ANSWER_BYTES
) -> httpx.AsyncClient:
    """A client that may be given any URL; `extensions["truncated"]` of an answer says whether its body went on."""
    transport = _Guarded(max_answer_bytes, allow_private=allow_private)
    return httpx.AsyncClient(transport=transport, timeout=timeout_seconds, trust_env=False)


class _Guarded(httpx.AsyncBaseTransport):
    def __init__(self, max_answer_bytes: int, *, allow_private: bool) -> None:
        self._max_answer_bytes = max_answer_bytes
        self._allow_private = allow_private
        self._inner = httpx.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        found = await asyncio.get_running_loop().getaddrinfo(request.url.host, None)
        address = str(found[0][4][0])
        if not self._allow_private and not ip_address(address).is_global:
            raise ForbiddenAddressError(f"{request.url.host} is not a public address")
        request.headers["Accept-Encoding"] = "identity"
        request.extensions["sni_hostname"] = request.url.host
        named, request.url = request.url, request.url.copy_with(host=address)
        try:
            answer = await self._inner.handle_async_request(request)
        finally:
            request.url = named
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > self._max_answer_bytes:
                break
        await answer.aclose()
        headers = [(name, text) for name, text in answer.headers.raw if name.lower() != b"content-encoding"]
        kept = bytes(body[: self._max_answer_bytes])
        truncated = len(body) > self._max_answer_bytes
        return httpx.Response(answer.status_code, headers=headers, content=kept, extensions={"truncated": truncated})

    async def aclose(self) -> None:
        await self._inner.aclose()
