"""Strict JSON parsing: values that cannot be stored, or that parsers read differently, are refused with an explanation.

Besides malformed text this refuses duplicate keys, NaN and Infinity, integers beyond bigint, NUL and lone surrogates
in strings, and anything deeper, longer or larger than the limits.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from routines_api.http.errors import MalformedBodyError

_BIGINT = range(-(2**63), 2**63)


@dataclass(frozen=True)
class JsonLimits:
    """The limits of a JSON body.

    Attributes:
        depth: Maximum number of levels of arrays and objects.
        string_length: Maximum number of characters in a string.
        items: Maximum number of items in an array or object.
    """

    depth: int
    string_length: int
    items: int


def decode(body: bytes, limits: JsonLimits) -> Any:
    """Parse a JSON text.

    Raises:
        MalformedBodyError: It is not JSON, cannot be stored, or is over a limit; the message says which and where.
    """
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=_object, parse_constant=_refuse, parse_float=_float, parse_int=_integer
        )
    except UnicodeDecodeError as error:
        raise MalformedBodyError(f"The body is not valid UTF-8 at byte {error.start + 1}.") from None
    except json.JSONDecodeError as error:
        raise MalformedBodyError(
            f"The body is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None
    except RecursionError:
        raise MalformedBodyError(_too_deep(limits)) from None
    check(value, limits)
    return value


def check(value: Any, limits: JsonLimits) -> None:
    """Check that a value that did not arrive as JSON can be stored.

    Raises:
        MalformedBodyError: It cannot be stored, or is over a limit; the message says which.
    """
    _check(value, limits, limits.depth)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise MalformedBodyError(f"The body has the key {_shown(twice)} twice in one object.")
    return found


def _refuse(constant: str) -> NoReturn:
    raise MalformedBodyError(f"The body contains {constant}, which is not JSON.")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise MalformedBodyError(f"The body contains the number {_shown(text)}, which is too large.")
    return value


def _integer(text: str) -> int:
    # The length is checked first, since int() refuses thousands of digits with an error of its own.
    if len(text) > 20 or (value := int(text)) not in _BIGINT:  # noqa: PLR2004 - the digits of a bigint and its sign
        raise MalformedBodyError(f"The body contains the integer {_shown(text)}, which does not fit in 64 bits.")
    return value


def _check(value: Any, limits: JsonLimits, depth: int) -> None:
    if isinstance(value, str):
        _check_text(value, limits)
    elif isinstance(value, list | dict):
        _check_size(cast("list[Any] | dict[str, Any]", value), limits, depth)
        for key in cast("dict[str, Any]", value) if isinstance(value, dict) else ():
            _check_text(key, limits)
        for item in cast("dict[str, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value):
            _check(item, limits, depth - 1)


def _check_size(value: list[Any] | dict[str, Any], limits: JsonLimits, depth: int) -> None:
    if depth == 0:
        raise MalformedBodyError(_too_deep(limits))
    if len(value) > limits.items:
        raise MalformedBodyError(
            f"The body has {len(value)} items in one array or object; the limit is {limits.items}."
        )


def _check_text(text: str, limits: JsonLimits) -> None:
    if len(text) > limits.string_length:
        raise MalformedBodyError(
            f"The body has a string of {len(text)} characters; the limit is {limits.string_length}."
        )
    if "\0" in text:
        raise MalformedBodyError("The body contains a NUL character (\\u0000), which cannot be stored.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise MalformedBodyError("The body contains half of a surrogate pair (\\ud800 to \\udfff), not a character.")


def _too_deep(limits: JsonLimits) -> str:
    return f"The body is nested too deeply; the limit is {limits.depth} levels."


def _shown(text: str, characters: int = 40) -> str:
    return ascii(text if len(text) <= characters else text[:characters] + "…")
