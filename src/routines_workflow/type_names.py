"""Describes types and validation errors in JSON terms, for people."""

import re

from msgspec import inspect
from msgspec.inspect import Type

_WORDS: dict[type[Type], str] = {
    inspect.StrType: "string",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "boolean",
    inspect.NoneType: "null",
    inspect.StructType: "object",
    inspect.TypedDictType: "object",
    inspect.DataclassType: "object",
    inspect.DateTimeType: "string",
    inspect.UUIDType: "string",
}

_NOUNS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
}


def rule_of(message: str) -> str:
    """Rephrase a message of msgspec as a rule: `must be a string, got an integer`."""
    return re.sub("`([^`]*)`", _in_words, message).replace("Expected", "must be").replace(" - at $", ", at $")


def _in_words(quoted: re.Match[str]) -> str:
    return " or ".join(_NOUNS.get(word, word) for word in quoted[1].split(" | "))


def type_name(kind: Type) -> str:
    """Name a type, for example `string`, `array of (string or null)` or `"a" or "b"`; `any` for any JSON value."""
    match kind:
        case inspect.Metadata():
            return type_name(kind.type)
        case inspect.UnionType():
            return " or ".join(map(type_name, kind.types))
        case inspect.LiteralType():
            return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in kind.values)
        case inspect.CollectionType():
            return _holding("array", kind.item_type)
        case inspect.DictType():
            return _holding("object", kind.value_type)
        case _:
            return _WORDS.get(type(kind), "any")


def _holding(word: str, item: Type) -> str:
    name = type_name(item)
    if name == "any":
        return word
    return f"{word} of ({name})" if " or " in name else f"{word} of {name}"
