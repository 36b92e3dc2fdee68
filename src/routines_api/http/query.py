"""Query parameters: unknown and missing ones, and numbers that are spelled oddly, are refused."""

import inspect
import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, get_args, get_type_hints

from litestar import Request
from litestar.params import ParameterKwarg
from litestar.typing import FieldDefinition

from routines_core.errors import Fault, FaultsError, InvalidError

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_LOOSE_NUMBER = re.compile(r"[0-9eE_.+\s-]+", re.ASCII)
"""What the framework might take for a number. It refuses anything else itself, with all other faults of the query."""


def refuse_parameters(request: Request[Any, Any, Any]) -> None:
    """Refuse missing and unknown query parameters: a misspelt filter must not look as if it had been applied.

    Raises:
        FaultsError: A parameter is missing or unknown.
    """
    handler = request.route_handler
    required: tuple[str, ...] = handler.opt.get("required", ())
    if not required and not request.scope["query_string"]:
        return
    given, known = request.query_params, _parameters_of(handler.fn)
    faults = [Fault(name, "is required") for name in required if name not in given]
    unknown = sorted(set(given) - known)
    allowed = ", ".join(sorted(known)) or "none"
    faults += [Fault(name[:100], f"unknown query parameter (known: {allowed})") for name in unknown]
    if faults:
        raise FaultsError(faults)


@cache
def _parameters_of(handler: Callable[..., Awaitable[Any]]) -> set[str]:
    """Return the names of a handler's query parameters: its keyword-only arguments, by the name they give."""
    hints = get_type_hints(handler, include_extras=True)
    return {_query_name(hints[name]) or name for name in inspect.getfullargspec(handler).kwonlyargs}


def _query_name(hint: Any) -> str | None:
    return next((each.query for each in get_args(hint) if isinstance(each, ParameterKwarg) and each.query), None)


def refuse_odd_numbers(request: Request[Any, Any, Any]) -> None:
    """Refuse spellings such as 1e3 and 1.0, which the framework would take for integers.

    Raises:
        InvalidError: A number in the query is not spelled as an integer.
    """
    if not request.scope["query_string"]:
        return
    parameters = request.route_handler.parsed_fn_signature.parameters
    for name, text in request.query_params.multi_items():
        is_number = name in parameters and parameters[name].match_predicate_recursively(_is_integer)
        if is_number and _LOOSE_NUMBER.fullmatch(str(text)) and not _INTEGER.fullmatch(str(text)):
            raise InvalidError(f"{name}: must be an integer, not {str(text)[:40]!r}.", name)


def _is_integer(field: FieldDefinition) -> bool:
    return field.is_subclass_of(int) and not field.is_subclass_of(bool)
