"""The client for URLs from users: where it connects, and how much it reads."""

import asyncio
import contextlib
import gzip
import socket
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import cycle
from typing import Any

import httpx
import pytest

from routines_core import guarded_http, resolver
from routines_core.addresses import Address
from routines_core.errors import ForbiddenAddressError, InvalidError
from routines_core.guarded_http import MAX_ANSWER_BYTES, OWNER, guarded_client, refuse_forbidden_url
from routines_core.resolver import Resolver
from support.receivers import Behaviour, answers, breaks_off, closes_early, endless, hangs, receiver
from support.tls import certificate

HOSTS_OF_LOOPBACK = [
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.1.", "127.255.255.254", "127.000.000.001", "0177.0.0.1",
    "0177.1", "017700000001", "0x7f.1", "0X7F.1", "0x7f.0.0.1", "0x7f000001", "0x7F000001", "2130706433", "0x7f.0x1",
    "00000177.0.0.01", "127.0x0.0.1", "0", "0.0.0.0", "0x0", "00", "0.0", "localhost", "LOCALHOST", "localhost.",
    "a.localhost", "x.y.localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback", "[::1]", "[::]",
    "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::FFFF:7F00:0001]",
    "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[::7f00:1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[64:ff9b:1:ffff::127.0.0.1]", "[2002:7f00:1::]", "[2002:7f00:1::1]",
    "[2001::80ff:fffe]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[::ffff:0.0.0.0]",
    "127\u30020\u30020\u30021", "127\uff0e0\uff0e0\uff0e1",
    "127\uff610\uff610\uff611",
]  # fmt: skip
OTHER_HOSTS = [
    "10.0.0.1", "10.1", "012.0.0.1", "0xa.1", "167772161", "172.16.0.1", "172.31.255.255", "0xac100001",
    "192.168.0.1", "192.168.257", "0xc0a80001", "3232235521", "0300.0250.0.1", "100.64.0.1", "100.127.255.255",
    "169.254.169.254", "169.254.43518", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.170.2",
    "169.254.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.0.1", "192.0.2.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.7", "203.0.113.9", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "4294967295", "0xffffffff", "metadata", "metadata.google.internal", "metadata.google.internal.",
    "METADATA.GOOGLE.INTERNAL", "metadata.goog", "instance-data", "instance-data.ec2.internal", "[fe80::1]",
    "[fe80::1%25eth0]", "[fe80::1%25lo]", "[febf::1]", "[fec0::1]", "[fc00::1]", "[fd00::1]", "[fd00:ec2::254]",
    "[fd20:ce::254]", "[fdff:ffff::1]", "[ff02::1]", "[ff0e::1]", "[2001:db8::1]", "[2001:2::1]", "[2001:10::1]",
    "[2001:20::1]", "[3fff::1]", "[3ffe::1]", "[100::1]", "[4000::1]", "[::ffff:10.0.0.1]", "[::ffff:a9fe:a9fe]",
    "[::ffff:169.254.169.254]", "[::ffff:8.8.8.8]", "[::8.8.8.8]", "[64:ff9b::a00:1]", "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]", "[2002:c0a8:1::1]", "[2001:0:5ef5:79fb::1]", "169.254.169.254.", "10.0.0.1.",
]  # fmt: skip
SHAPES = [
    "http://{host}:{port}/", "http://{host}:{port}", "http://user:pass@{host}:{port}/x", "http://example.com@{host}:{port}/",
]  # fmt: skip
URLS = [shape.format(host=host, port="PORT") for host in HOSTS_OF_LOOPBACK for shape in SHAPES] + [
    shape.format(host=host, port=port)
    for host in OTHER_HOSTS
    for shape, port in [("http://{host}/", 80), ("https://{host}:{port}/a?b#c", 8443)]
]


@contextmanager
def listening() -> Generator[socket.socket]:
    """A socket that accepts nothing; connections made to it are found in its backlog."""
    with socket.socket(socket.AF_INET6) as opened:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind(("::", 0))
        opened.listen(128)
        opened.setblocking(False)
        yield opened


def connections(opened: socket.socket) -> int:
    """Return how many connections were made since the last call."""
    made = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            opened.accept()[0].close()
            made += 1
    return made


@pytest.fixture
async def client() -> AsyncGenerator[httpx.AsyncClient]:
    async with guarded_client(allow_private=False, timeout_seconds=5) as opened:
        yield opened


async def test_no_url_that_leads_inside_is_ever_connected_to(client: httpx.AsyncClient) -> None:
    """No spelling of an address leads to a connection; the socket listens on IPv4 and IPv6."""
    with listening() as opened:
        port = opened.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        assert connections(opened) == 1
        allowed: list[str] = []
        for url in (url.replace("PORT", str(port)) for url in URLS):
            try:
                await client.get(url)
            except (ForbiddenAddressError, httpx.InvalidURL):
                continue
            allowed.append(url)
        assert not allowed
        assert connections(opened) == 0
    assert len(URLS) >= 150


def test_a_url_spelled_as_a_private_address_is_refused_when_saved() -> None:
    saved: list[str] = []
    for url in (url.replace("PORT", "80") for url in URLS):
        try:
            refuse_forbidden_url(url, allow_private=False, field="webhook_url")
        except InvalidError:
            continue
        saved.append(url)
    assert not saved


@pytest.mark.parametrize("url", ["http://a:0/", "http://a:65536/", "http://a:-1/", "http://a:x/", "http://xn--a/"])
def test_an_invalid_url_is_refused_when_saved(url: str) -> None:
    with pytest.raises(InvalidError, match="webhook_url: is not a valid URL"):
        refuse_forbidden_url(url, allow_private=True, field="webhook_url")


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names resolve to these answers in a cycle. Returns the list of names that were resolved."""
    asked: list[str] = []
    coming: Iterator[list[str]] = cycle(answers)

    async def resolve(_self: Resolver, host: str, _owner: object) -> list[Address]:
        asked.append(host)
        return [ip_address(text) for text in next(coming)]

    monkeypatch.setattr(Resolver, "resolve", resolve)
    return asked


async def test_names_are_resolved_on_behalf_of_the_requests_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    owners: list[object] = []

    async def resolve(_self: Resolver, _host: str, owner: object) -> list[Address]:
        owners.append(owner)
        return [ip_address("127.0.0.1")]

    monkeypatch.setattr(Resolver, "resolve", resolve)
    async with receiver(answers(200)) as inside, guarded_client(allow_private=True, timeout_seconds=5) as client:
        url = inside.url.replace("127.0.0.1", "example.com")
        await client.post(url, content=b"{}", extensions={OWNER: 7})
        await client.post(url, content=b"{}")
    assert owners == [7, None]


@pytest.mark.parametrize(
    "answer",
    [["127.0.0.1"], ["::1"], ["10.0.0.1"], ["169.254.169.254"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], []],
    ids=str,
)
async def test_a_name_with_one_private_address_is_refused(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, answer: list[str]
) -> None:
    resolving(monkeypatch, answer)
    with listening() as opened:
        with pytest.raises(ForbiddenAddressError, match="ROUTINES_WEBHOOK_ALLOW_PRIVATE") as refused:
            await client.get(f"http://example.com:{opened.getsockname()[1]}/")
        assert connections(opened) == 0
    assert not [
        address for address in answer if address in str(refused.value)
    ]  # the error must not reveal what internal names resolve to


async def test_a_name_whose_address_changes_after_the_check_is_connected_to_where_it_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name is resolved only once; a second answer would lead to the private listener."""
    real, lookups, dialled = socket.getaddrinfo, [], []

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        lookups.append(host)
        return real("192.0.2.7" if len(lookups) == 1 else "127.0.0.1", *arguments, **options)

    async def connect(_loop: object, _factory: object, host: str, *_: Any, **__: Any) -> Any:
        dialled.append(host)
        raise OSError("nothing leaves this machine")

    monkeypatch.setattr(resolver, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(guarded_http, "is_allowed", lambda address, **_: str(address) == "192.0.2.7")
    monkeypatch.setattr(type(asyncio.get_running_loop()), "create_connection", connect)
    with listening() as opened:
        async with guarded_client(allow_private=False, timeout_seconds=5) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://rebinding.example:{opened.getsockname()[1]}/")
        assert (lookups, dialled, connections(opened)) == (["rebinding.example"], ["192.0.2.7"], 0)


async def test_every_request_is_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that later resolves to a private address is refused, although a connection to it was open before."""
    asked = resolving(monkeypatch, ["127.0.0.1"], ["169.254.169.254"])
    async with receiver(answers(200)) as inside, guarded_client(allow_private=True, timeout_seconds=5) as client:
        url = inside.url.replace("127.0.0.1", "example.com")
        assert (await client.post(url)).status_code == 200
        with pytest.raises(ForbiddenAddressError):
            await client.post(url)
        assert inside.connections == 1
        assert inside.received[0].headers["host"].startswith("example.com:")
    assert asked == ["example.com"] * 2


async def test_if_one_address_does_not_answer_the_next_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["127.9.9.9", "127.0.0.1"])
    async with receiver(answers(200)) as inside, guarded_client(allow_private=True, timeout_seconds=5) as client:
        assert (await client.get(inside.url.replace("127.0.0.1", "example.com"))).status_code == 200


async def test_redirects_are_not_followed_by_default_and_otherwise_each_hop_is_checked() -> None:
    async with (
        receiver(answers(302, Location="http://169.254.169.254/latest/")) as inside,
        guarded_client(allow_private=True, timeout_seconds=5) as client,
    ):
        assert (await client.get(inside.url)).status_code == 302
        with pytest.raises(ForbiddenAddressError):
            await client.get(inside.url, follow_redirects=True)


async def test_proxies_from_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver(answers(500)) as proxy, receiver(answers(200)) as inside:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with guarded_client(allow_private=True, timeout_seconds=5) as client:
            assert (await client.get(inside.url)).status_code == 200
        assert proxy.connections == 0


async def test_cookies_are_not_kept() -> None:
    async with (
        receiver(answers(200, Set_Cookie="a=b")) as inside,
        guarded_client(allow_private=True, timeout_seconds=5) as client,
    ):
        for _ in range(2):
            await client.get(inside.url)
        assert "cookie" not in inside.received[1].headers


async def test_receivers_are_asked_not_to_compress() -> None:
    async with receiver(answers(200)) as inside, guarded_client(allow_private=True, timeout_seconds=5) as client:
        await client.get(inside.url, headers={"Accept-Encoding": "gzip"})
        assert inside.received[0].headers["accept-encoding"] == "identity"


async def test_a_compressed_bomb_is_decompressed_only_up_to_the_limit() -> None:
    bomb = gzip.compress(bytes(40 * 1024 * 1024))
    assert len(bomb) < MAX_ANSWER_BYTES
    async with (
        receiver(answers(200, bomb, Content_Encoding="gzip")) as inside,
        guarded_client(allow_private=True, timeout_seconds=5) as client,
    ):
        answer = await client.get(inside.url)
        assert (answer.content, answer.extensions["truncated"]) == (bytes(MAX_ANSWER_BYTES), True)


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "unicode_escape", "rot13", "hex", "no-such", "utf_8"])
async def test_a_text_is_decoded_by_a_known_charset_only(charset: str) -> None:
    """Python's codec for punycode takes a minute for this body."""
    body = b"-" + b"a" * 400 * 1024
    async with (
        receiver(answers(200, body, Content_Type=f"text/plain; charset={charset}")) as inside,
        guarded_client(allow_private=True, timeout_seconds=5, max_answer_bytes=len(body)) as client,
    ):
        answer = await client.get(inside.url)
        assert answer.text == body.decode()


async def test_headers_that_a_parser_takes_long_for_are_not_parsed() -> None:
    many = ";" * 40_000
    said = answers(200, b"x", Content_Type=f'text/plain; a="{many}', Set_Cookie2="a;" * 20_000)
    async with receiver(said) as inside, guarded_client(allow_private=True, timeout_seconds=5) as client:
        started_at = time.process_time()
        assert (await client.get(inside.url)).text == "x"
        assert time.process_time() - started_at < 0.25


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (hangs, httpx.TimeoutException),
        (endless(OK, b"X: y\r\n", 0.05), httpx.TimeoutException),
        (endless(OK + b"Content-Length: 100000\r\n\r\n", b"x", 0.05), httpx.TimeoutException),
        (endless(b"", b"HTTP/1.1 102 Wait\r\n\r\n", 0.05), httpx.TimeoutException),
        (endless(OK, b"X: " + b"y" * 1000 + b"\r\n"), httpx.RemoteProtocolError),
        (endless(OK + b"X: ", b"y" * 1000), httpx.RemoteProtocolError),
        (closes_early, httpx.RemoteProtocolError),
        (breaks_off, httpx.RemoteProtocolError),
    ],
    ids=["hangs", "drips headers", "drips", "drips 102", "endless headers", "endless header", "closes", "breaks off"],
)
async def test_a_receiver_that_does_not_answer_completely_is_given_up_in_time(
    behaviour: Behaviour, error: type[httpx.HTTPError]
) -> None:
    async with receiver(behaviour) as inside, guarded_client(allow_private=True, timeout_seconds=0.5) as client:
        started_at = time.monotonic()
        with pytest.raises(error):
            await client.post(inside.url, content=b"{}")
        assert time.monotonic() - started_at < 10


async def test_an_endless_body_is_read_only_up_to_the_limit() -> None:
    async with (
        receiver(endless(OK + b"Content-Length: 100000000000\r\n\r\n", b"x" * 4096)) as inside,
        guarded_client(allow_private=True, timeout_seconds=5, max_answer_bytes=1000) as client,
    ):
        answer = await client.post(inside.url, content=b"{}")
        assert (answer.content, answer.extensions["truncated"]) == (b"x" * 1000, True)


async def test_tls_sends_and_verifies_the_host_name_although_the_connection_goes_to_an_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    named, context, authority = certificate("hook.example", tmp_path_factory.mktemp("tls"))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    guarded_http._tls.cache_clear()
    resolving(monkeypatch, ["127.0.0.1"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server, guarded_client(allow_private=True, timeout_seconds=5) as client:
        assert (await client.get(f"https://hook.example:{port}/")).status_code == 200
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await client.get(f"https://other.example:{port}/")
    guarded_http._tls.cache_clear()
    assert named == ["hook.example", "other.example"]
