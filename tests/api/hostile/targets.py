"""Hostile paths and queries."""

from api.hostile.message import KEPT, ROUTINES, Hostile, request

SEGMENTS = {
    "SQL": "'%20OR%20'1'='1",
    "SQL in full": "kept';DROP%20TABLE%20routines.routines;--",
    "a percent sign of LIKE": "%25",
    "a template": "%7B%7B7*7%7D%7D",
    "a NUL": "kept%00",
    "only a NUL": "%00",
    "dots": "%2e%2e",
    "dots and slashes": "..%2f..%2f..%2fetc%2fpasswd",
    "twice encoded dots": "%252e%252e%252f",
    "backslashes": "..%5c..%5c",
    "an encoded slash": "kept%2f",
    "an overlong slash": "%c0%af",
    "an overlong NUL": "%c0%80",
    "invalid UTF-8": "%ff%fe",
    "a surrogate": "%ed%a0%80",
    "half an escape": "kept%2",
    "no escape": "kept%zz",
    "a line end": "kept%0d%0aSet-Cookie:%20a=b",
    "a space": "kept%20",
    "capitals": "KEPT",
    "a full-width letter": "%ef%bd%8bept",
    "a zero-width space": "kept%e2%80%8b",
    "an emoji": "%f0%9f%92%a9",
    "a semicolon": "kept;a=b",
    "a star": "*",
    "four thousand characters": "a" * 4000,
    "a thousand encoded NULs": "%00" * 1000,
}
"""Used instead of the name of a routine, and of a collection."""

PATHS = {
    "no such path": "/nothing",
    "an admin page": "/admin",
    "a dot file": "/.env",
    "the sources": "/static/../src/app.py",
    "the schema of Litestar": "/schema",
    "a generated page": "/openapi/swagger",
    "another version": "/api/v2/routines/my-org/echo/kept",
    "a missing sub-resource": f"{KEPT}/secrets",
    "a path after the runs": f"{KEPT}/runs/1/2/3",
    "dots up": f"{ROUTINES}/../../../../etc/passwd",
    "an encoded whole path": "/api%2fv1%2froutines%2fmy-org%2fecho%2fkept",
    "a thousand segments": "/a" * 1000,
}

QUERIES: dict[str, str] = {
    "limit of zero": "limit=0",
    "limit below zero": "limit=-1",
    "limit over the most": "limit=1001",
    "limit beyond bigint": "limit=9223372036854775808",
    "limit of five thousand digits": "limit=" + "9" * 5000,
    "a limit that is not a number": "limit=ten",
    "an empty limit": "limit=",
    "a fractional limit": "limit=1.5",
    "NaN as a limit": "limit=nan",
    "a limit with a NUL": "limit=1%00",
    "SQL as a limit": "limit=1;DROP%20TABLE%20x",
    "an array of limits": "limit[]=1",
    "an empty cursor": "cursor=",
    "a cursor that is not base64": "cursor=!!!",
    "a cursor of other JSON": "cursor=NDI=",
    "a cursor of three": "cursor=WyJhIiwiYiIsImMiXQ==",
    "a cursor of numbers": "cursor=WzEsMl0=",
    "a cursor with a NUL": "cursor=WyJhXHUwMDAwIiwiYiJd",
    "a cursor with half of a surrogate pair": "cursor=WyJcdWQ4MDAiLCJiIl0=",
    "a cursor of invalid UTF-8": "cursor=//79",
    "a cursor nested deep": "cursor=" + "W1tb" * 249,
    "a cursor over the limit": "cursor=" + "A" * 1001,
    "an unknown parameter": "limti=1",
    "an unknown parameter with a NUL": "%00=1",
    "an unknown parameter of invalid UTF-8": "%ff=%fe",
    "a thousand unknown parameters": "&".join(f"a{n}=1" for n in range(1000)),
    "__proto__": "__proto__[x]=1",
    "an unknown parameter with a line end": "a%0d%0aSet-Cookie:%20x=1",
}
"""Queries for the list of a task's routines."""

PAGES = {
    "page of zero": "page=0",
    "page beyond bigint": "page=9223372036854775808",
    "page that is not a number": "page=one",
    "page over the most": "page=1000001",
    "an unknown status": "status=lost",
    "status with a NUL": "status=%00",
    "SQL as a status": "status=pending'--",
    "a routine of id zero": "triggered_by_routine_id=0",
    "a routine beyond bigint": "triggered_by_routine_id=9223372036854775808",
}
"""Queries for the list of a task's runs."""

IDS = ["0", "-1", "9223372036854775808", "1e3", "1%00", "abc", "9" * 5000, "%d9%a1", "1%20OR%201=1", "0x1"]
"""Ids of runs."""


def targets() -> list[Hostile]:
    """Return all hostile targets."""
    absent, invalid = frozenset({404}), frozenset({400})
    # An encoded slash can change the path; a broken escape or an overlong path is not a path at all.
    refused = absent | {400, 414, 431}
    found = [
        Hostile(f"routine: {name}", request("GET", f"{ROUTINES}/{text}"), refused) for name, text in SEGMENTS.items()
    ]
    found += [
        Hostile(f"delete: {name}", request("DELETE", f"{ROUTINES}/{text}"), refused | {405})
        for name, text in SEGMENTS.items()
    ]
    found += [
        Hostile(f"collection: {name}", request("GET", f"/api/v1/routines/{text}"), refused)
        for name, text in SEGMENTS.items()
    ]
    found += [Hostile(f"path: {name}", request("GET", path), refused) for name, path in PATHS.items()]
    found += [
        Hostile(f"query: {name}", request("GET", f"{ROUTINES}?{text}"), invalid) for name, text in QUERIES.items()
    ]
    runs = "/api/v1/db/trajectories/my-org/echo"
    found += [Hostile(f"query: {name}", request("GET", f"{runs}?{text}"), invalid) for name, text in PAGES.items()]
    run = "/api/v1/db/trajectory/my-org/echo"
    found += [Hostile(f"run: {text[:30]}", request("GET", f"{run}/{text}"), absent) for text in IDS]
    raw = {
        "a raw space": f"{ROUTINES}/a b".encode(),
        "raw bytes": ROUTINES.encode() + b"/\xff\xfe",
        "a raw NUL": KEPT.encode() + b"\0",
        "a fragment": f"{ROUTINES}/x#y".encode(),
        "no slash": b"api",
        "another scheme": b"file:///etc/passwd",
        "a target of 100,000": b"/" + b"a" * 100_000,
        "a query of 100,000": KEPT.encode() + b"?a=" + b"a" * 100_000,
    }
    return found + [Hostile(f"target: {name}", request("GET", path), may_be_cut=True) for name, path in raw.items()]
