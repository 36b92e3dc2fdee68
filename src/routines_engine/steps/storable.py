"""What may be stored of a step: what Postgres accepts, up to a size limit. Pure code.

A value that no checkpoint could write is refused here, with an explanation; failing later would cost the run its
worker.
"""

from typing import Any, cast

import msgspec

from routines_core.errors import InvalidError
from routines_workflow.bindings import MAX_DEPTH

MAX_BYTES = 1024 * 1024
"""Maximum size as JSON of what a record holds of the inputs or outputs of a step: every later step and every reader
loads them."""
MAX_ERROR_CHARACTERS = 10_000
"""Maximum length of an error's text as it is stored."""


class LargeValueError(InvalidError):
    """A value is larger than allowed."""

    def __init__(self, what: str, most_bytes: int) -> None:
        super().__init__(f"{what} are larger than {most_bytes} bytes as JSON: keep large data in a file")


def storable(value: Any, what: str, most_bytes: int = MAX_BYTES) -> Any:
    """Return the JSON value as Postgres will give it back.

    Args:
        value: The value to store.
        what: What it is, in the plural; begins the sentence of the error ("its inputs").
        most_bytes: Its maximum size as JSON.

    Raises:
        LargeValueError: It is larger.
        InvalidError: It is too deeply nested, or holds something that cannot be stored.
    """
    _measure(value, what, most_bytes)
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise InvalidError(f"{what} hold half of a surrogate pair, which is not a character") from None
    if len(encoded) > most_bytes:
        raise LargeValueError(what, most_bytes)
    return msgspec.json.decode(encoded)  # NaN and Infinity have become null


def storable_error(text: str) -> str:
    """Return an error's text without what Postgres cannot store, cut if it is very long."""
    kept = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    return kept if len(kept) <= MAX_ERROR_CHARACTERS else kept[:MAX_ERROR_CHARACTERS] + "…"


def _measure(value: Any, what: str, most_bytes: int) -> None:
    """Refuse large values before encoding: shared parts can make a value that is small in memory very large as JSON."""
    pending: list[tuple[list[Any] | dict[str, Any], int]] = [([value], 0)]
    size = 0
    while pending:
        container, depth = pending.pop()
        if size + len(container) > most_bytes:
            raise LargeValueError(what, most_bytes)
        if depth > MAX_DEPTH and container:
            raise InvalidError(f"{what} are nested more than {MAX_DEPTH} levels deep")
        if isinstance(container, dict):
            size += sum(_own_size(key, what) for key in container)
            container = list(container.values())
        for item in container:
            size += _own_size(item, what)
            if isinstance(item, dict | list):
                pending.append((cast("list[Any] | dict[str, Any]", item), depth + 1))
        if size > most_bytes:
            raise LargeValueError(what, most_bytes)


def _own_size(item: Any, what: str) -> int:
    """Return a lower bound of the bytes that the item takes by itself."""
    if not isinstance(item, str):
        return 1
    if "\0" in item:
        raise InvalidError(f"{what} hold a NUL character, which Postgres cannot store")
    return len(item) + 2
