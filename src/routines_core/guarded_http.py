"""The HTTP client for URLs from users: it connects only to public addresses, and bounds time and memory.

The client resolves the host itself, once per request, checks every address it gets, and connects to one of those
addresses, so the name is never resolved again. TLS still sends and verifies the host name.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from http.cookiejar import CookieJar
from typing import Any

import httpx

from routines_core.addresses import Address, is_allowed, is_allowed_host
from routines_core.answer_body import BoundedBody, codec_of
from routines_core.errors import ForbiddenAddressError, InvalidError
from routines_core.resolver import RESOLVER

MAX_ANSWER_BYTES = 64 * 1024
"""How many bytes of a response body are read, and how many are kept after decompression."""
MAX_ADDRESSES = 3
"""How many addresses of a host are tried, in order, until a connection succeeds."""

PORTS = range(1, 65536)
OWNER = "owner"
"""Key in a request's extensions: its owner. Owners share the threads that resolve names."""


class UnknownHostError(httpx.ConnectError):
    """The name of the host cannot be resolved."""


def guarded_client(
    *, allow_private: bool, timeout_seconds: float, max_answer_bytes: int = MAX_ANSWER_BYTES
) -> httpx.AsyncClient:
    """Create a client that is safe to use with any URL.

    It follows redirects only on request (and checks each hop), ignores proxies from the environment, and keeps neither
    cookies nor connections. Responses are returned fully read and decompressed. Their `text` is decoded by a codec that
    takes linear time, whatever charset the receiver names. Their extensions say whether the body was cut (`truncated`)
    and whether its compression is unknown or broken (`undecodable`). Requests raise ForbiddenAddressError or what httpx
    raises.

    Args:
        allow_private: Also allow loopback and private addresses.
        timeout_seconds: For the whole exchange, from the start of the request to the end of the response.
        max_answer_bytes: How much of a response body is read; the rest is dropped.
    """
    return httpx.AsyncClient(
        transport=_GuardedTransport(allow_private, timeout_seconds, max_answer_bytes),
        timeout=httpx.Timeout(timeout_seconds, connect=timeout_seconds / MAX_ADDRESSES),
        trust_env=False,
        follow_redirects=False,
        cookies=_NoCookies(),
    )


def refuse_forbidden_url(url: str, *, allow_private: bool, field: str) -> None:
    """Refuse a URL that the client would never call, judging by its spelling; names are not resolved.

    Raises:
        InvalidError: It is not a URL.
        ForbiddenAddressError: Its host is an address that is not public, or a name of this machine or of a metadata
            service.
    """
    try:
        host = _host(httpx.URL(url))
    except (httpx.InvalidURL, UnicodeError):
        raise InvalidError(f"{field}: is not a valid URL.", field) from None
    if not is_allowed_host(host, allow_private=allow_private):
        raise ForbiddenAddressError(f"{host} is not a public address", field)


def _host(url: httpx.URL) -> str:
    """Return the host in ASCII, as DNS expects it.

    Raises:
        httpx.InvalidURL: The port is out of range.
        UnicodeError: The host is not a valid internationalized name.
    """
    if url.port is not None and url.port not in PORTS:
        raise httpx.InvalidURL("no such port")
    _ = url.host  # raises if the IDNA encoding is invalid
    return url.raw_host.decode("ascii")


class _GuardedTransport(httpx.AsyncBaseTransport):
    """Resolves and checks addresses, connects to a checked one, and reads a bounded response in bounded time."""

    def __init__(self, allow_private: bool, timeout_seconds: float, max_answer_bytes: int) -> None:  # noqa: FBT001 - called once, above
        self._allow_private = allow_private
        self._timeout_seconds = timeout_seconds
        self._max_answer_bytes = max_answer_bytes
        # Keep no connections: a reused connection would skip the address check.
        self._inner = httpx.AsyncHTTPTransport(
            verify=_tls(), trust_env=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._answer(request)
        except TimeoutError:
            raise httpx.ReadTimeout(f"no complete answer within {self._timeout_seconds:g} s", request=request) from None

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        addresses = await self._addresses(request)
        request.headers["Accept-Encoding"] = "identity"
        request.extensions["sni_hostname"] = _host(request.url).rstrip(".")
        named = request.url  # the Host header already contains the name
        try:
            return await self._bounded(await self._first_that_connects(request, addresses))
        finally:
            request.url = named

    async def _addresses(self, request: httpx.Request) -> Sequence[Address]:
        host = _host(request.url)
        if request.url.scheme not in {"http", "https"}:
            raise httpx.UnsupportedProtocol("only http and https", request=request)
        # Not quoted: in a host, a secret is in lower case, and masking would not find it.
        refused = ForbiddenAddressError("the host of the URL is not a public address")
        if not is_allowed_host(host, allow_private=self._allow_private):
            raise refused
        try:
            addresses = await RESOLVER.resolve(host, request.extensions.get(OWNER))
        except OSError:
            raise UnknownHostError("the host cannot be resolved", request=request) from None
        # Require all to be allowed: a private address among public ones is deliberate.
        if not addresses or not all(is_allowed(each, allow_private=self._allow_private) for each in addresses):
            raise refused
        return addresses[:MAX_ADDRESSES]

    async def _first_that_connects(self, request: httpx.Request, addresses: Sequence[Address]) -> httpx.Response:
        for address in addresses[:-1]:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):  # no part of the request was sent
                return await self._send(request, address)
        return await self._send(request, addresses[-1])

    async def _send(self, request: httpx.Request, address: Address) -> httpx.Response:
        request.url = request.url.copy_with(host=str(address))
        return await self._inner.handle_async_request(request)

    async def _bounded(self, answer: httpx.Response) -> httpx.Response:
        """Read the body within the limit and return the response with it, decompressed."""
        body = BoundedBody(answer.headers.get("content-encoding", ""), self._max_answer_bytes)
        try:
            async for chunk in answer.aiter_raw():
                if not body.add(chunk):
                    break
        finally:
            await answer.aclose()
        body.end()
        # Drop the headers that would make httpx decode the body.
        headers = [(name, text) for name, text in answer.headers.raw if name.lower() not in _OF_THE_WIRE]
        bounded = httpx.Response(
            answer.status_code,
            headers=headers,
            content=bytes(body.content),
            extensions={
                **_plain(answer.extensions),
                "truncated": body.is_truncated,
                "undecodable": body.is_undecodable,
            },
        )
        bounded.encoding = codec_of(answer.headers.get("content-type", ""))
        return bounded


class _NoCookies(CookieJar):
    """Neither keeps nor parses cookies: the standard parser takes quadratic time."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep nothing."""

    def add_cookie_header(self, request: Any) -> None:
        """Send nothing."""


_OF_THE_WIRE = {b"content-encoding", b"transfer-encoding", b"content-length"}


def _plain(extensions: Any) -> dict[str, Any]:
    return {name: extensions[name] for name in ("http_version", "reason_phrase") if name in extensions}


@cache
def _tls() -> ssl.SSLContext:
    """Create the TLS context once; trusts certifi's CAs, or those of SSL_CERT_FILE or SSL_CERT_DIR."""
    return httpx.create_ssl_context()
