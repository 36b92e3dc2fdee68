"""The size of a result, computed before it is made. Pure code.

A few hundred kilobytes of inputs can ask for gigabytes, for example a separator between thousands of empty texts. The
limit on stored outputs comes too late for that.
"""

from typing import Any, cast

from routines_core.errors import InvalidError

MAX_BYTES = 1024 * 1024
"""Maximum size as JSON of what the activities of this package return; a step's record holds as much."""


class TooLargeError(InvalidError):
    """The result of an activity would be too large, so it was not computed."""

    def __init__(self, what: str, size_bytes: int) -> None:
        super().__init__(
            f"{what} would take at least {size_bytes} bytes, more than the limit of 1 MiB ({MAX_BYTES} bytes): "
            "keep large data in a file"
        )


def refuse_larger(size_bytes: int, what: str) -> None:
    """Refuse a result of this size.

    Args:
        size_bytes: Its size, or a lower bound.
        what: What is too large, as the subject of a sentence ("the joined text").

    Raises:
        TooLargeError: It exceeds MAX_BYTES.
    """
    if size_bytes > MAX_BYTES:
        raise TooLargeError(what, size_bytes)


def size_of(value: Any, most_bytes: int = MAX_BYTES) -> int:
    """Return a lower bound of the bytes that a JSON value takes, without encoding it.

    Counting stops above `most_bytes`, so the time is bounded even if the value contains one part many times.
    """
    pending: list[Any] = [value]
    size = 0
    while pending and size <= most_bytes:
        item = pending.pop()
        if isinstance(item, str):
            size += len(item) + 2
        elif isinstance(item, dict):
            fields = cast("dict[str, Any]", item)
            size += 1 + sum(len(key) + 4 for key in fields)
            pending.extend(fields.values())
        elif isinstance(item, list):
            items = cast("list[Any]", item)
            size += 1 + len(items)
            pending.extend(items)
        else:
            size += digits_of(item) if isinstance(item, int) else 1
    return size


def digits_of(number: float) -> int:
    """Return about how many characters a number takes, without spelling it; for an integer, a lower bound."""
    if isinstance(number, int):
        return 1 + max(0, number.bit_length() - 1) * 30102 // 100_000
    return 24
