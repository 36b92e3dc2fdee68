"""Check a body against its model, and say what is wrong with it."""

from itertools import islice
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from routines_api.schemas.fields import PATTERN_RULES
from routines_api.schemas.retries import TAGS
from routines_core.errors import Fault, FaultsError

Body = TypeVar("Body", bound=BaseModel)
_SECRET_FIELDS = {"secret_params", "webhook_secret", "environment_variables"}
_NO_FIELDS = {"[key]", *TAGS}
"""What pydantic adds to the path of a field."""
_SHOWN_CHARACTERS = 40
_SHOWN_FIELD = 500
"""Characters of a field's path that are shown; the names in it may come from the body."""
MOST_FAULTS = 100
"""Faults of a body that are listed."""
_SAY_ENOUGH = {"missing", "extra_forbidden", "value_error", "too_short", "too_long"}
"""Types of faults whose message is clear without the value given."""


def validate(model: type[Body], value: Any) -> Body:
    """Parse a JSON value as a model.

    Raises:
        FaultsError: It breaks rules. Each is named with its field and, unless it may be a secret, the value given.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise FaultsError(faults_of(error)) from None


def faults_of(error: ValidationError) -> list[Fault]:
    """Convert pydantic's errors to our faults, the first MOST_FAULTS of them."""
    faults = (fault for detail in error.errors() for fault in _faults(dict(detail)))
    return list(islice(faults, MOST_FAULTS))


def _faults(detail: dict[str, Any]) -> list[Fault]:
    """Convert one of pydantic's errors to our faults."""
    location: tuple[int | str, ...] = tuple(part for part in detail["loc"] if part not in _NO_FIELDS)
    field = ".".join(map(str, location))[:_SHOWN_FIELD]
    if detail["type"] == "workflow":
        return detail["ctx"]["faults"]
    if detail["type"] == "cadence":
        return [Fault(".".join(filter(None, [field, fault.field])), fault.message) for fault in detail["ctx"]["faults"]]
    return [Fault(field, _rule(detail) + _given(detail, location))]


def _rule(detail: dict[str, Any]) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "missing":
            return "is required"
        case "string_pattern_mismatch":
            return PATTERN_RULES[detail["ctx"]["pattern"]]
        case "too_short" | "too_long":
            return "must " + detail["msg"].partition(" should ")[2].partition(" after ")[0]
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be an object"
        case _:
            message = str(detail["msg"]).removeprefix("Value error, ")
            return message.replace("Input should be", "must be").replace("String should", "must").replace("Input", "it")


def _given(detail: dict[str, Any], location: tuple[int | str, ...]) -> str:
    """Return the value given, as in `, not 24`; empty if there is none or it may be a secret."""
    if detail["type"] in _SAY_ENOUGH or (location and location[0] in _SECRET_FIELDS):
        return ""
    text = msgspec.json.encode(detail["input"]).decode()
    return f", not {text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + '…'}"
