"""What is kept of an HTTP response because of which a step or a webhook failed."""

from collections.abc import Callable
from typing import Any

import httpx

MAX_BODY_BYTES = 4096
"""How much of the body is kept, in bytes of UTF-8."""
MAX_HEADER_BYTES = 128
"""How much of a header's value is kept, in bytes of UTF-8."""
UNREAD_TAIL = 4096
"""How many characters are dropped from the end of a body that was not read to its end: half a secret there would not be
masked. Masking finds long secrets in pieces of about 2048 characters, so less than that may be left of one."""
KEPT_HEADERS = (
    "content-type",
    "date",
    "retry-after",
    "server",
    "cf-ray",
    "ratelimit",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "request-id",
    "x-amzn-requestid",
    "x-correlation-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-request-id",
)
"""Headers that help to find out what happened. Others may hold cookies, tokens or addresses."""


def kept_answer(answer: httpx.Response, mask: Callable[[str], str]) -> dict[str, Any]:
    """Return what is kept of a response of the guarded client: {status, headers, body, truncated}.

    Args:
        answer: The response, with its body or as much of it as was read.
        mask: Replaces secrets. It is given whole texts, since half a secret would not be found.
    """
    body = mask(answer.text)
    is_partial = bool(answer.extensions.get("truncated"))
    kept, is_cut = _cut(body[:-UNREAD_TAIL] if is_partial else body, MAX_BODY_BYTES)
    found = {
        name: _cut(mask(answer.headers[name]), MAX_HEADER_BYTES)[0] for name in KEPT_HEADERS if name in answer.headers
    }
    return {"status": answer.status_code, "headers": found, "body": kept, "truncated": is_cut or is_partial}


def _cut(text: str, most_bytes: int) -> tuple[str, bool]:
    """Return the text without what Postgres cannot store, within this size, and whether it was cut."""
    encoded = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
    return encoded[:most_bytes].decode("utf-8", "ignore"), len(encoded) > most_bytes
