"""Hostile forms for the run endpoints."""

from api.hostile.message import Hostile, request

RUN = "/api/v1/run/my-org/echo"
FORM = "multipart/form-data; boundary=x"
END = b"\r\n--x--\r\n"


def part(headers: bytes, content: bytes = b"{}") -> bytes:
    """Build a form with one part that has these headers."""
    return b"--x\r\n" + headers + b"\r\n\r\n" + content + END


def field(name: bytes, content: bytes = b"{}") -> bytes:
    """Build a form with one field."""
    return part(b'Content-Disposition: form-data; name="' + name + b'"', content)


MALFORMED: dict[str, bytes] = {
    "no body": b" ",
    "only a boundary": b"--x",
    "only line ends": b"\r\n" * 100,
    "no end": field(b"init_params").removesuffix(END),
    "half an end": field(b"init_params").removesuffix(b"--\r\n"),
    "another boundary": field(b"init_params").replace(b"--x", b"--y"),
    "only line feeds": field(b"init_params").replace(b"\r\n", b"\n"),
    "a byte before the boundary": b"a" + field(b"init_params"),
    "bytes after the boundary": b"--xa\r\n\r\n{}" + END,
    "no headers": b"--x\r\n\r\n{}" + END,
    "no disposition": part(b"Content-Type: text/plain"),
    "an attachment": part(b'Content-Disposition: attachment; name="init_params"'),
    "no name": part(b"Content-Disposition: form-data"),
    "an empty name": field(b""),
    "a NUL for a name": field(b"\0"),
    "a header without a colon": part(b"nothing"),
    "a header that is not text": part(b"\xff\xfe: \xff"),
    "a header with a space": part(b'Content Disposition: form-data; name="a"'),
    "a continued header": b"--x\r\n Content-Disposition: form-data\r\n\r\n" + END,
    "a negative length": part(b'Content-Disposition: form-data; name="init_params"\r\nContent-Length: -1'),
    "a wrong length": part(b'Content-Disposition: form-data; name="init_params"\r\nContent-Length: 1'),
    "a length of ten thousand digits": part(b"Content-Length: " + b"9" * 3000),
    "an unknown field": field(b"init_param"),
    "a prototype": field(b"__proto__"),
    "an array of a field": field(b"init_params[a]"),
    "invalid JSON": field(b"init_params", b"{"),
    "JSON that is not an object": field(b"init_params", b"[]"),
    "NaN": field(b"init_params", b'{"text": NaN}'),
    "JSON ten thousand deep": field(b"init_params", b"[" * 10_000),
    "a NUL in JSON": field(b"init_params", b'{"text": "\\u0000"}'),
    "a raw NUL": field(b"webhook_secret", b"a\0b"),
    "invalid UTF-8": field(b"webhook_secret", b"\xff\xfe"),
    "a secret that is a number": field(b"secret_params", b'{"A": 1}'),
    "a webhook without a scheme": field(b"webhook_url", b"//example.com"),
    "a field twice": field(b"webhook_secret").removesuffix(END) + b"\r\n" + field(b"webhook_secret"),
    "a file that is a text": field(b"files", b"text"),
    "a nested form": field(b"init_params", field(b"init_params").replace(b"--x", b"--y")),
}

TOO_LARGE: dict[str, bytes] = {
    "a header of 5,000": part(b"X-Long: " + b"a" * 5000),
    "a header that never ends": b"--x\r\nX-Long: " + b"a" * 100_000,
    "nine headers": part(b"\r\n".join(b"X-%d: a" % n for n in range(9))),
    "a thousand parts": b"".join(
        b'--x\r\nContent-Disposition: form-data; name="webhook_url"\r\n\r\n\r\n' for _ in range(1000)
    )
    + b"--x--",
    "a field of 300,000": field(b"webhook_secret", b"a" * 300_000),
    "21 files": b"".join(
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\na\r\n' for _ in range(21)
    )
    + b"--x--",
}

BOUNDARIES = ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "x" * 71]
BOUNDARIES += [
    'multipart/form-data; boundary=""',
    "multipart/form-data; boundary=\u00fc",
    "multipart/form-data; xboundary=x",
]

URLENCODED: dict[str, bytes] = {
    "an unknown field": b"init_param=%7B%7D",
    "no name": b"=a",
    "no value": b"init_params",
    "a NUL": b"webhook_secret=%00",
    "invalid UTF-8": b"webhook_secret=%ff%fe",
    "raw bytes": b"webhook_secret=\xff",
    "a thousand fields": b"&".join(b"a%d=1" % n for n in range(1000)),
    "a field twice": b"init_params=%7B%7D&init_params=%7B%7D",
    "a string of 70,000": b"webhook_secret=" + b"a" * 70_000,
}


def forms() -> list[Hostile]:
    """Return all hostile forms."""
    found = [
        Hostile(f"form: {name}", _form(body), frozenset({status}))
        for bodies, status in ((MALFORMED, 400), (TOO_LARGE, 413))
        for name, body in bodies.items()
    ]
    found += [
        Hostile(f"boundary: {text[20:60]!a}", _form(field(b"init_params"), text), frozenset({400}))
        for text in BOUNDARIES
    ]
    found += [
        Hostile(f"urlencoded: {name}", _form(body, "application/x-www-form-urlencoded"), frozenset({400}))
        for name, body in URLENCODED.items()
    ]
    found += [
        Hostile("form: a length of a terabyte", _form(b"", FORM, {"Content-Length": str(10**12)}), frozenset({413})),
        Hostile("form: a Content-Encoding", _form(field(b"a"), FORM, {"Content-Encoding": "gzip"}), frozenset({415})),
        Hostile("form: multipart of mixed", _form(field(b"a"), "multipart/mixed; boundary=x"), frozenset({415})),
        Hostile("form: no key", _form(field(b"a"), FORM, {"Authorization": "Bearer"}), frozenset({401})),
        Hostile("form: of another collection", request("POST", "/api/v1/run/x/echo", body=field(b"a"),
                                                       headers={"Content-Type": FORM}), frozenset({404})),
    ]  # fmt: skip
    return found


def _form(body: bytes, content_type: str = FORM, headers: dict[str, str | bytes] | None = None) -> bytes:
    return request("POST", RUN, body=body, headers={"Content-Type": content_type.encode(), **(headers or {})})
