"""Hostile framing: false lengths, two lengths, malformed chunks, and other protocols."""

from api.hostile.message import KEPT, ROUTINES, Hostile, body_of, request


def _framed(headers: dict[str, str | bytes | None], body: bytes = b"") -> bytes:
    lines = {"Content-Type": "application/json", **headers}
    return request("POST", ROUTINES, headers={k: v for k, v in lines.items() if v is not None}) + body


GOOD = body_of()
CHUNKED = {"Transfer-Encoding": "chunked"}

LENGTHS: dict[str, bytes] = {
    "a negative length": _framed({"Content-Length": "-1"}, GOOD),
    "a length with a sign": _framed({"Content-Length": "+10"}, GOOD),
    "a length in hexadecimal": _framed({"Content-Length": "0x10"}, GOOD),
    "a length that is not a number": _framed({"Content-Length": "ten"}, GOOD),
    "an empty length": _framed({"Content-Length": ""}, GOOD),
    "a fractional length": _framed({"Content-Length": "1.5"}, GOOD),
    "a length beyond bigint": _framed({"Content-Length": "9" * 30}, GOOD),
    "two lengths": _framed({"Content-Length": "10, 20"}, GOOD),
    "two length headers": _framed({"Content-Length": "10", "content-length": "20"}, GOOD),
    "a length and chunks": _framed({"Content-Length": "5", **CHUNKED}, b"0\r\n\r\n"),
    "chunks without a length": _framed(CHUNKED, b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk of negative length": _framed(CHUNKED, b"-1\r\n{}\r\n0\r\n\r\n"),
    "a chunk beyond 64 bits": _framed(CHUNKED, b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
    "a chunk longer than it says": _framed(CHUNKED, b"1\r\n{}\r\n0\r\n\r\n"),
    "an unknown encoding": _framed({"Transfer-Encoding": "smuggled"}, b"0\r\n\r\n"),
    "chunked twice": _framed({"Transfer-Encoding": "chunked, chunked"}, b"0\r\n\r\n"),
    "chunked and identity": _framed({"Transfer-Encoding": "chunked, identity"}, b"0\r\n\r\n"),
    "an obfuscated encoding": _framed({"Transfer-Encoding": "xchunked"}, b"0\r\n\r\n"),
    "a tab before the encoding": _framed({"Transfer-Encoding": "\tchunked"}, b"0\r\n\r\n"),
}

OTHER: dict[str, bytes] = {
    "HTTP/2 by prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "TLS": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160) + b"\r\n\r\n",
    "HTTP/0.9": b"GET /api/v1/health\r\n\r\n",
    "HTTP/3.0": request("GET", KEPT, version="3.0"),
    "HTTP/9": request("GET", KEPT, version="9"),
    "no version": b"GET /api/v1/health HTTP\r\n\r\n",
    "no method": b" /api/v1/health HTTP/1.1\r\n\r\n",
    "an SSH banner": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "SMTP": b"EHLO localhost\r\n\r\n",
    "the startup packet of Postgres": b"\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n\r\n",
    "only NULs": bytes(100) + b"\r\n\r\n",
    "a folded header": b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n c\r\nConnection: close\r\n\r\n",
    "a header without a colon": b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nnothing\r\n\r\n",
    "two hosts": b"GET /nothing HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
    "no host": b"GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n",
    "a method of 10,000": b"A" * 10_000 + b" /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
}

BOUNDED: dict[str, bytes] = {
    "a length over the limit": _framed({"Content-Length": str(256 * 1024 + 1)}),
    "a length of a terabyte": _framed({"Content-Length": str(10**12)}),
    "a body over the limit": request("POST", ROUTINES, body=b" " * (256 * 1024 + 1)),
    "chunks over the limit": _framed(CHUNKED, b"50000\r\n" + b" " * 0x50000 + b"\r\n0\r\n\r\n"),
}


def framing() -> list[Hostile]:
    """Return all requests with hostile framing."""
    malformed = [Hostile(f"framing: {name}", text, may_be_cut=True) for name, text in {**LENGTHS, **OTHER}.items()]
    too_large = [Hostile(f"framing: {name}", text, frozenset({413})) for name, text in BOUNDED.items()]
    empty = [
        Hostile("framing: no body", _framed({"Content-Length": "0"}), frozenset({400})),
        Hostile("framing: chunks of nothing", _framed(CHUNKED, b"0\r\n\r\n"), frozenset({400})),
        Hostile(
            "framing: a body on DELETE of nothing", request("DELETE", f"{ROUTINES}/x", body=GOOD), frozenset({404})
        ),
        Hostile("framing: a body on GET of nothing", request("GET", f"{ROUTINES}/x", body=GOOD), frozenset({404})),
    ]
    return malformed + too_large + empty
