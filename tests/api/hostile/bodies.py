"""Hostile bodies: invalid JSON, JSON that cannot be stored, and wrong types in each field."""

import json

from api.hostile.message import KEPT, ROUTINES, TASKS, Hostile, body_of, request

PLACES = {
    "create": ("POST", ROUTINES),
    "PATCH": ("PATCH", KEPT),
    "task": ("POST", TASKS),
    "PUT": ("PUT", TASKS + "/echo"),
}

NO_JSON: dict[str, bytes] = {
    "an empty body": b" ",
    "a lone brace": b"{",
    "no value": b'{"name":}',
    "a trailing comma": b'{"name": "r",}',
    "two values": b"{} {}",
    "a comment": b'{"name": "r"} // routine',
    "single quotes": b"{'name': 'r'}",
    "no quotes": b"{name: 1}",
    "a control character in a string": b'{"name": "a\x01b"}',
    "a byte order mark": b'\xef\xbb\xbf{"name": "r"}',
    "UTF-16": '{"name": "r"}'.encode("utf-16"),
    "invalid UTF-8": b'{"name": "\xff\xfe"}',
    "an overlong slash": b'{"name": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"name": "\xed\xa0\x80"}',
    "half of a surrogate pair": b'{"name": "\\ud800"}',
    "a low surrogate first": b'{"name": "\\udc00\\ud800"}',
    "half of a surrogate pair as a key": b'{"\\udfff": 1}',
    "a bad escape": b'{"name": "\\x41"}',
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": Infinity}',
    "minus Infinity": b'{"name": -Infinity}',
    "an integer beyond bigint": b'{"name": 9223372036854775808}',
    "an integer below bigint": b'{"name": -9223372036854775809}',
    "an integer of ten thousand digits": b'{"name": ' + b"9" * 10_000 + b"}",
    "a float beyond double": b'{"name": 1e400}',
    "a negative float beyond double": b'{"name": -1e400}',
    "a leading zero": b'{"name": 01}',
    "a hexadecimal number": b'{"name": 0x10}',
    "the same key twice": b'{"name": "a", "name": "b"}',
    "the same key twice, once escaped": b'{"name": "a", "n\\u0061me": "b"}',
    "the same key twice, deep down": b'{"cadence": {"type": "manual", "type": "daily"}}',
    "arrays ten thousand deep": b"[" * 10_000 + b"]" * 10_000,
    "objects ten thousand deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "arrays that are never closed": b"[" * 100_000,
    "a body 33 deep": b'{"init_params_overrides":' + b"[" * 32 + b"]" * 32 + b"}",
    "a NUL in a key": b'{"na\\u0000me": 1}',
    "a raw NUL": b'{"name": "a\x00b"}',
    "only a NUL": b"\x00",
    "a string of 70,000": b'{"name": "' + b"a" * 70_000 + b'"}',
    "a key of 70,000": b'{"' + b"a" * 70_000 + b'": 1}',
    "ten thousand and one items": b'{"init_params_overrides": [' + b"1," * 10_000 + b"1]}",
    "an array": b"[]",
    "a string": b'"name"',
    "a number": b"42",
    "null": b"null",
    "an unknown field": b'{"cadance": {"type": "manual"}}',
    "__proto__": b'{"__proto__": {"paused": true}}',
    "__class__": b'{"__class__": "x"}',
    "a form": b"name=r&cadence=daily",
    "XML": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>',
    "a pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94.",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00C\xbf\xa6\xa3\x02\x00\x00\x00",
}
"""Refused by every operation that takes a body."""

TEXTS = {
    "a NUL": "a\0b",
    "SQL": "'; DROP TABLE routines.routines; --",
    "a union": "x' UNION SELECT secret_hash FROM routines.api_keys --",
    "a template": "{{7*7}}",
    "a lookup": "${jndi:ldap://127.0.0.1/a}",
    "a format string": "%s%s%s%n",
    "a way up": "../../etc/passwd",
    "markup": "<script>alert(1)</script>",
    "a line end": "a\r\nSet-Cookie: b=c",
    "a space": "a b",
    "capitals": "ROUTINE",
    "full-width letters": "\uff41\uff42",
    "a right-to-left mark": "a\u202eb",
    "nothing": "",
    "101 characters": "a" * 101,
    "a hyphen at the end": "a-",
    "a line end at the end": "a\n",
}
"""Strings that are not slugs."""

WRONG: dict[str, list[object]] = {
    "name": [None, 1, True, [], {}, ["r"]],
    "cadence": [None, "daily", 1, [], {}, {"type": None}, {"type": "yearly"}, {"type": ["daily"]}, {"type": "daily\0"}],
    "cadence.hour_utc": [24, -1, "9", 9.5, True, [], 2**63 - 1],
    "cadence.minute_utc": [60, -1, "0", 0.5, True, {}],
    "cadence.day_of_week": ["mon", "monday", 1, [], "MON"],
    "init_params_overrides": [None, [], "text", 1, {"unknown": 1}, {"text": "a\0b"}, {"'; DROP x; --": 1}, {"": 1}],
    "secret_params": [None, [], "s", {"A": 1}, {"A": None}, {"": "s"}, {"a" * 101: "s"}, {"A": "a\0b"},
                      {"A": "********"}],
    "webhook_url": [
        1, [], "", "ftp://example.com", "javascript:alert(1)", "http://", "http://user:pw@example.com/", "http://a b/",
        "http://example.com/a\0b", "http://example.com/" + "a" * 2048, "//example.com", "http:/example.com",
        "http://example.com/\r\nX-Header: 1", "\thttp://example.com",
    ],
    "webhook_secret": [1, [], "", "a\0b", "********", True],
    "paused": [None, 0, "false", [], 1.0],
}  # fmt: skip
"""Wrong values for each field of create."""


WRONG_IN_A_PAUSE: dict[str, list[object]] = {
    "until": [
        0, 1e300, True, [], {}, "", "tomorrow", "infinity", "2126-05-04", "2126-05-04T09:00:00", "2126-13-04T09:00:00Z",
        "2126-05-04T09:00:00Z\0", "2126-05-04T09:00:00+99:99", "2026-05-04T09:00:00Z",
        "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59", "2199-06-01T00:00:00Z",
    ],
    "note": [0, True, [], {}, "", "a\0b", "a" * 501, "b" * 100_000],
    "paused_until": ["2126-05-04T09:00:00Z"],
    "paused": [True],
}  # fmt: skip
"""Wrong values for each field of a pause."""


def _wrong_field(field: str, wrong: object) -> bytes:
    if field.startswith("cadence."):
        return body_of(cadence={"type": "daily", "hour_utc": 9, field.removeprefix("cadence."): wrong})
    return body_of(**{field: wrong})


def bodies() -> list[Hostile]:
    """Return all hostile bodies."""
    found = [
        Hostile(f"{place}: {name}", request(*PLACES[place], body=body), frozenset({400}))
        for place in PLACES
        for name, body in NO_JSON.items()
    ]
    found += [
        Hostile(f"name: {name}", request("POST", ROUTINES, body=body_of(name=text)), frozenset({400}))
        for name, text in TEXTS.items()
    ]
    found += [
        Hostile(
            f"{field}: {str(wrong)[:40]!r}",
            request("POST", ROUTINES, body=_wrong_field(field, wrong)),
            frozenset({400}),
        )
        for field, values in WRONG.items()
        for wrong in values
    ]
    found += [
        Hostile(
            f"{field} of a pause: {str(wrong)[:40]!r}",
            request("POST", f"{KEPT}/pause", body=json.dumps({field: wrong}).encode()),
            frozenset({400}),
        )
        for field, values in WRONG_IN_A_PAUSE.items()
        for wrong in values
    ]
    return found
