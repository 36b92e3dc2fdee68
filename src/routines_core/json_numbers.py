"""JSON from the database, with floats as floats.

jsonb holds numbers as `numeric` and writes out all of their digits: 1e22 comes back as an integer of 23 digits, 1e300
as one of 301, and 1e-300 with 300 zeros. Clients would read other numbers than they sent, and the API would refuse
them. Nothing is lost by turning them back: it is done only where the shortest form of the float means the very same
number. The time is linear in the text, and up to a tenth of a second for 16 MiB: call it where that stops nobody.
"""

import re
from decimal import Decimal
from typing import Any, cast

import msgspec

_BIGINT = range(-(2**63), 2**63)
"""Integers that clients may send. The others were floats, or come from an activity, and are then left alone."""
_HAS_LONG = re.compile(r"[0-9]{19}")
_HAS_LONG_IN_BYTES = re.compile(rb"[0-9]{19}")


def loads(text: bytes | str) -> Any:
    """Parse JSON that the database wrote."""
    value = msgspec.json.decode(text)
    return _restored(value) if _may_need_it(text) else value


def _may_need_it(text: bytes | str) -> bool:
    # A float has at most 17 significant digits, so with 19 of them there are two zeros; they are found much faster.
    if isinstance(text, str):
        return "00" in text and _HAS_LONG.search(text) is not None
    return b"00" in text and _HAS_LONG_IN_BYTES.search(text) is not None


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_restored(item) for item in cast("list[Any]", value)]
    return _as_float(value) if type(value) is int and value not in _BIGINT else value


def _as_float(value: int) -> float | int:
    try:
        found = float(value)
    except OverflowError:
        return value
    return found if Decimal(repr(found)) == value else value
