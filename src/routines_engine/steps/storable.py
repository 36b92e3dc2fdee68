"""What Postgres can keep of a step, and how much of it: pure code.

Refused here, with a sentence, is what a checkpoint could not write: there it would cost the run its worker.
"""

from typing import Any, cast

import msgspec

from routines_core.errors import InvalidError
from routines_workflow.bindings import MAX_DEPTH

MAX_BYTES = 1024 * 1024
"""What the inputs or the outputs of a step may take as JSON: every later step and every reader loads them whole."""
MAX_ERROR_CHARACTERS = 10_000
"""The most of an error that is kept."""


def storable(value: Any, what: str) -> Any:
    """The JSON value as Postgres will give it back; `what` begins the sentence where it cannot be kept.

    Raises:
        InvalidError: It is too large or too deep, or holds what cannot be stored.
    """
    _measure(value, what)
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise InvalidError(f"{what} hold half of a surrogate pair, which is no character") from None
    if len(encoded) > MAX_BYTES:
        raise InvalidError(_too_large(what))
    return msgspec.json.decode(encoded)  # NaN and Infinity are null now


def storable_error(text: str) -> str:
    """An error's text without what Postgres cannot store, cut where it is very long."""
    kept = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    return kept if len(kept) <= MAX_ERROR_CHARACTERS else kept[:MAX_ERROR_CHARACTERS] + "…"


def _measure(value: Any, what: str) -> None:
    """Refuse early: a value may be small in memory and very large as JSON, since its parts may be shared."""
    pending: list[tuple[Any, int]] = [(value, 0)]
    size = 0
    while pending:
        item, depth = pending.pop()
        size += _own_size(item, what)
        if size > MAX_BYTES:
            raise InvalidError(_too_large(what))
        if depth > MAX_DEPTH:
            raise InvalidError(f"{what} are nested more than {MAX_DEPTH} levels deep")
        if isinstance(item, dict):
            fields = cast("dict[str, Any]", item)
            size += sum(_own_size(key, what) for key in fields)
            pending.extend((each, depth + 1) for each in fields.values())
        elif isinstance(item, list):
            pending.extend((each, depth + 1) for each in cast("list[Any]", item))


def _own_size(item: Any, what: str) -> int:
    """At most as many bytes as the item alone takes."""
    if not isinstance(item, str):
        return 1
    if "\0" in item:
        raise InvalidError(f"{what} hold a NUL character, which Postgres cannot store")
    return len(item) + 2


def _too_large(what: str) -> str:
    return f"{what} are larger than {MAX_BYTES} bytes as JSON: keep such things in a file"
