"""The HTTP client for addresses that people typed in: it connects to public addresses alone, and holds little.

The host is resolved here, once for each request; every address of the answer is checked, and the connection goes to an
address that was checked: nothing resolves the name again. TLS still verifies the host's name, and sends it.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from socket import SOCK_STREAM, gaierror, getaddrinfo
from typing import Any

import httpx

from routines_core.addresses import Address, is_allowed, is_allowed_host
from routines_core.errors import ForbiddenAddressError, InvalidError

MAX_ANSWER_BYTES = 64 * 1024
"""How much of an answer's body is read, as it comes over the wire: it is never decompressed."""
MAX_ADDRESSES = 3
"""How many addresses of a host are tried, one after the other, until one can be connected to."""

PORTS = range(1, 65536)


def guarded_client(
    *, allow_private: bool, timeout_seconds: float, max_answer_bytes: int = MAX_ANSWER_BYTES
) -> httpx.AsyncClient:
    """A client that may be given any URL.

    Follows no redirect unless asked to (and then checks each hop), takes no proxy from the environment, keeps neither
    cookies nor connections. An answer is whole when it is returned; `extensions["truncated"]` says whether its body
    went on. Requests raise ForbiddenAddressError or what httpx raises.

    Args:
        allow_private: Allows loopback and private addresses too, for one's own network.
        timeout_seconds: From the start of a request to the end of its answer, however slowly that drips.
        max_answer_bytes: What of an answer's body is read; the rest is left.
    """
    return httpx.AsyncClient(
        transport=_GuardedTransport(allow_private, timeout_seconds, max_answer_bytes),
        timeout=httpx.Timeout(timeout_seconds, connect=timeout_seconds / MAX_ADDRESSES),
        trust_env=False,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


def refuse_forbidden_url(url: str, *, allow_private: bool, field: str) -> None:
    """Refuse a URL that can never be called, as far as its spelling tells: names are not looked up.

    Raises:
        InvalidError: It is no URL.
        ForbiddenAddressError: Its host is an address that is not public, or a name of this machine or of a metadata
            service.
    """
    try:
        host = _host(httpx.URL(url))
    except (httpx.InvalidURL, UnicodeError):
        raise InvalidError(f"{field}: is no URL that can be called.", field) from None
    if not is_allowed_host(host, allow_private=allow_private):
        raise ForbiddenAddressError(f"{host} is not a public address", field)


def _host(url: httpx.URL) -> str:
    """In ASCII, as it goes into DNS.

    Raises:
        httpx.InvalidURL: There is no such port.
        UnicodeError: It is no name in any script.
    """
    if url.port is not None and url.port not in PORTS:
        raise httpx.InvalidURL("no such port")
    _ = url.host  # decodes what IDNA encoded
    return url.raw_host.decode("ascii")


class _GuardedTransport(httpx.AsyncBaseTransport):
    """Resolves, checks, connects to what was checked, and reads a bounded answer in a bounded time."""

    def __init__(self, allow_private: bool, timeout_seconds: float, max_answer_bytes: int) -> None:  # noqa: FBT001 - called once, above
        self._allow_private = allow_private
        self._timeout_seconds = timeout_seconds
        self._max_answer_bytes = max_answer_bytes
        # No connection is kept: one that is used again would not be checked again.
        self._inner = httpx.AsyncHTTPTransport(
            verify=_tls(), trust_env=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._answer(request)
        except TimeoutError:
            raise httpx.ReadTimeout(f"no whole answer within {self._timeout_seconds:g} s", request=request) from None

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        addresses = await self._addresses(request)
        request.headers["Accept-Encoding"] = "identity"
        request.extensions["sni_hostname"] = _host(request.url).rstrip(".")
        named = request.url  # the header Host has the name already
        try:
            return await self._bounded(await self._first_that_connects(request, addresses))
        finally:
            request.url = named

    async def _addresses(self, request: httpx.Request) -> Sequence[Address]:
        host = _host(request.url)
        if request.url.scheme not in {"http", "https"}:
            raise httpx.UnsupportedProtocol("only http and https", request=request)
        refused = ForbiddenAddressError(f"{host} is not a public address")
        if not is_allowed_host(host, allow_private=self._allow_private):
            raise refused
        try:
            addresses = await resolve(host)
        except OSError:
            raise httpx.ConnectError("the host cannot be resolved", request=request) from None
        # All of them: one that is private among public ones is no accident.
        if not addresses or not all(is_allowed(each, allow_private=self._allow_private) for each in addresses):
            raise refused
        return addresses[:MAX_ADDRESSES]

    async def _first_that_connects(self, request: httpx.Request, addresses: Sequence[Address]) -> httpx.Response:
        for address in addresses[:-1]:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):  # nothing was sent yet
                return await self._send(request, address)
        return await self._send(request, addresses[-1])

    async def _send(self, request: httpx.Request, address: Address) -> httpx.Response:
        request.url = request.url.copy_with(host=str(address))
        return await self._inner.handle_async_request(request)

    async def _bounded(self, answer: httpx.Response) -> httpx.Response:
        """The same answer with what was read of its body, as it came."""
        body = bytearray()
        truncated = False
        try:
            async for chunk in answer.aiter_raw():
                body += chunk
                if truncated := len(body) > self._max_answer_bytes:
                    break
        finally:
            await answer.aclose()
        # Without the header that would make httpx decompress it.
        headers = [(name, text) for name, text in answer.headers.raw if name.lower() not in _OF_THE_WIRE]
        return httpx.Response(
            answer.status_code,
            headers=headers,
            content=bytes(body[: self._max_answer_bytes]),
            extensions={**_plain(answer.extensions), "truncated": truncated},
        )


_OF_THE_WIRE = {b"content-encoding", b"transfer-encoding", b"content-length"}


def _plain(extensions: Any) -> dict[str, Any]:
    return {name: extensions[name] for name in ("http_version", "reason_phrase") if name in extensions}


@cache
def _tls() -> ssl.SSLContext:
    """Verifies with the CAs of certifi, or with those of SSL_CERT_FILE or SSL_CERT_DIR."""
    return httpx.create_ssl_context()


async def resolve(host: str) -> list[Address]:
    """The addresses of a host, in the system's order.

    Each question has a thread of its own, which ends with the process: names whose servers do not answer must hold up
    neither other names nor the end of the program.

    Raises:
        OSError: It has none, or is no host name.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Address]] = loop.create_future()

    def settle(how: Callable[[Any], None], what: object) -> None:
        if not answer.done():
            how(what)

    def ask() -> None:
        try:
            found = _ask(host)
        except OSError as error:
            told, what = answer.set_exception, error
        else:
            told, what = answer.set_result, found
        with suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(settle, told, what)

    threading.Thread(target=ask, daemon=True, name="resolver").start()
    return await answer


def _ask(host: str) -> list[Address]:
    try:
        found = getaddrinfo(host.removeprefix("[").removesuffix("]"), None, type=SOCK_STREAM)
    except UnicodeError:  # a label that is too long
        raise gaierror from None
    return list(dict.fromkeys(ip_address(str(each[4][0])) for each in found))
