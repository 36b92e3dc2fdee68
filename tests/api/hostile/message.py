"""A hostile request: what is sent, byte for byte, and what may be answered."""

import json
from dataclasses import dataclass
from typing import Any

KEY = b"$KEY"
"""Stands for the key of the collection my-org, which has the task echo with the routine kept."""
TASKS = "/api/v1/tasks/my-org"
ROUTINES = "/api/v1/routines/my-org/echo"
KEPT = f"{ROUTINES}/kept"


@dataclass(frozen=True)
class Hostile:
    """One request of the corpus.

    Attributes:
        message: The whole request; KEY stands for the key.
        statuses: What may be answered; empty: any 4xx.
        may_be_cut: It is malformed as HTTP, so the web server may refuse it before the application sees it: with a 4xx
            of its own, or by closing the connection.
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
    """A request as bytes, with a key and a length where the headers do not say otherwise; None as a value omits one."""
    lines: dict[str, Any] = {"Host": "localhost", "Connection": "close", "Authorization": b"Bearer " + KEY}
    if body:
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines |= headers or {}
    head = [_bytes(method) + b" " + _bytes(target) + b" HTTP/" + _bytes(version)]
    head += [_bytes(name) + b": " + _bytes(text) for name, text in lines.items() if text is not None]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def body_of(**changed: Any) -> bytes:
    """The body of a routine that could be made, but for these fields."""
    good: dict[str, Any] = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}
    return json.dumps(good | changed).encode()


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
