"""Hostile headers and methods."""

from api.hostile.message import KEPT, KEY, ROUTINES, TASKS, Hostile, body_of, request

AUTHORIZATIONS: dict[str, str | bytes] = {
    "empty": "",
    "no key": "Bearer",
    "spaces for a key": "Bearer    ",
    "another scheme": "Basic cnRuOnJ0bg==",
    "Token": b"Token " + KEY,
    "no scheme": KEY,
    "a comma": b"Bearer, " + KEY,
    "a tab": b"Bearer\t" + KEY,
    "two keys": b"Bearer " + KEY + b" " + KEY,
    "a letter more": b"Bearer " + KEY + b"a",
    "quotes": b'Bearer "' + KEY + b'"',
    "an unknown key": "Bearer rtn_999_" + "a" * 43,
    "another secret": "Bearer rtn_1_" + "a" * 43,
    "id zero": "Bearer rtn_0_" + "a" * 43,
    "an id beyond bigint": "Bearer rtn_9223372036854775808_" + "a" * 43,
    "an id below zero": "Bearer rtn_-1_" + "a" * 43,
    "an id in other digits": "Bearer rtn_\u0661_".encode() + b"a" * 43,
    "SQL": "Bearer rtn_1' OR '1'='1",
    "a template": "Bearer {{7*7}}",
    "bytes that are no text": b"Bearer \xff\xfe",
    "UTF-8": "Bearer schl\u00fcssel".encode(),
    "8,000 characters": "Bearer " + "a" * 8000,
}

IDEMPOTENCY_KEYS: dict[str, str | bytes] = {
    "empty": "",
    "256 characters": "a" * 256,
    "a space": "a b",
    "a tab": "a\tb",
    "bytes that are no text": b"\xff\xfe",
    "UTF-8": "schl\u00fcssel".encode(),
}

CONTENT_TYPES: dict[str, str | bytes] = {
    "a form": "application/x-www-form-urlencoded",
    "multipart": "multipart/form-data; boundary=x",
    "text": "text/plain",
    "XML": "application/xml",
    "markup": "text/html",
    "JSON of old": "text/json",
    "bytes": "application/octet-stream",
    "nothing": "",
    "nonsense": ";;;",
    "bytes that are no text": b"\xff/\xfe",
    "only a suffix": "json",
    "msgpack": "application/msgpack",
}

HOSTS: dict[str, str | bytes] = {
    "a space": "a b",
    "a path": "localhost/x",
    "a query": "localhost?x",
    "bytes that are no text": b"\xff\xfe",
}

CHARSETS = ["utf-16", "iso-8859-1", "utf-7", "none", "\u00fc"]

METHODS = ["HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "MKCOL", "LOCK", "PURGE", "LINK", "QUERY", "get", "FOO"]


def headers() -> list[Hostile]:
    """Return all requests with hostile headers."""
    good = body_of()
    found = [
        Hostile(f"Authorization: {name}", request("GET", KEPT, headers={"Authorization": text}), frozenset({401}))
        for name, text in AUTHORIZATIONS.items()
    ]
    found += [
        Hostile(
            f"Idempotency-Key: {name}",
            request("POST", ROUTINES, body=good, headers={"Idempotency-Key": text}),
            frozenset({400}),
        )
        for name, text in IDEMPOTENCY_KEYS.items()
    ]
    found += [
        Hostile(
            f"Content-Type: {name}, {method} {path}",
            request(method, path, body=body_of(), headers={"Content-Type": text}),
            frozenset({415}),
        )
        for name, text in CONTENT_TYPES.items()
        for method, path in [("POST", ROUTINES), ("PATCH", KEPT), ("POST", TASKS)]
    ]
    found += [
        Hostile(
            f"charset: {charset}",
            request(
                "POST", ROUTINES, body=good, headers={"Content-Type": f"application/json; charset={charset}".encode()}
            ),
            frozenset({415}),
        )
        for charset in CHARSETS
    ]
    found += [
        Hostile(f"Host: {name}, {method}", request(method, target, headers={"Host": text}), may_be_cut=True)
        for name, text in HOSTS.items()
        for method, target in [("GET", KEPT), ("POST", "/api/v1/ics/my-org")]
    ]
    found += [Hostile(f"{method} of a routine", request(method, KEPT), may_be_cut=True) for method in METHODS]
    found += [Hostile(f"{method} of health", request(method, "/api/v1/health"), may_be_cut=True) for method in METHODS]
    found += [
        Hostile("PUT of a routine", request("PUT", KEPT, body=good), frozenset({404})),
        Hostile("POST of a routine", request("POST", KEPT, body=good), frozenset({404})),
        Hostile("GET of pause", request("GET", f"{KEPT}/pause"), frozenset({404})),
        Hostile("DELETE of a list", request("DELETE", ROUTINES), frozenset({404})),
        Hostile("POST of the docs", request("POST", "/docs", body=good), frozenset({404})),
        Hostile(
            "an overridden method",
            request("POST", KEPT, headers={"X-HTTP-Method-Override": "DELETE"}),
            frozenset({404}),
        ),
        Hostile("a header of 17,000", request("GET", KEPT, headers={"X-Long": "a" * 17_000}), frozenset({431})),
        Hostile("a header of a million", request("GET", KEPT, headers={"X-Long": "a" * 10**6}), may_be_cut=True),
        Hostile(
            "90 headers of 200",
            request("GET", KEPT, headers={f"X-{n}": "a" * 200 for n in range(90)}),
            frozenset({431}),
        ),
        Hostile(
            "10,000 headers", request("GET", KEPT, headers={f"X-{n}": "a" for n in range(10_000)}), may_be_cut=True
        ),
        Hostile("a cookie of 20,000", request("GET", KEPT, headers={"Cookie": "a=" + "b" * 20_000}), frozenset({431})),
        Hostile("a NUL in a header", request("GET", KEPT, headers={"X-Nul": b"a\0b"}), may_be_cut=True),
        Hostile("a space in a header's name", request("GET", KEPT, headers={"X Y": "a"}), may_be_cut=True),
        Hostile("an empty header name", request("GET", KEPT, headers={"": "a"}), may_be_cut=True),
        Hostile(
            "compressed, it says",
            request("POST", ROUTINES, body=good, headers={"Content-Encoding": "gzip"}),
            frozenset({415}),
        ),
    ]
    return found
