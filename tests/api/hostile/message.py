"""Hostile requests: the bytes sent, and the statuses that may answer them."""

import json
from dataclasses import dataclass
from typing import Any

KEY = b"$KEY"
"""A placeholder for the key of the collection my-org, which has the task echo with the routine kept."""
TASKS = "/api/v1/tasks/my-org"
ROUTINES = "/api/v1/routines/my-org/echo"
KEPT = f"{ROUTINES}/kept"


@dataclass(frozen=True)
class Hostile:
    """One request of the corpus.

    Attributes:
        message: The whole request, with KEY as a placeholder for the key.
        statuses: The statuses allowed; empty for any 4xx.
        may_be_cut: Whether it is malformed HTTP, which the web server may refuse before the application sees it, with a
            4xx of its own or by closing the connection.
    """

    name: str
    message: bytes
    statuses: frozenset[int] = frozenset()
    may_be_cut: bool = False


def request(
    method: str,
    target: str | bytes,
    *,
    body: bytes = b"",
    headers: dict[str, str | bytes] | None = None,
    version: str = "1.1",
) -> bytes:
    """Build a request as bytes, with a key and a length unless the headers override them; None omits a header."""
    lines: dict[str, Any] = {"Host": "localhost", "Connection": "close", "Authorization": b"Bearer " + KEY}
    if body:
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines |= headers or {}
    head = [_bytes(method) + b" " + _bytes(target) + b" HTTP/" + _bytes(version)]
    head += [_bytes(name) + b": " + _bytes(text) for name, text in lines.items() if text is not None]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def body_of(**changed: Any) -> bytes:
    """Build a valid body for a routine, with these fields replaced."""
    good: dict[str, Any] = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}
    return json.dumps(good | changed).encode()


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
