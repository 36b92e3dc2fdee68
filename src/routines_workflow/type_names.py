"""Describes types and validation errors in JSON terms, for people."""

import re
from typing import Any

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


_WRONG_CHOICE = re.compile(r"Invalid enum value (?P<value>.*?)( - at `(?P<path>\$.*)`)?", re.DOTALL)
_PATH_PART = re.compile(r"\.(?P<name>\w+)|\[[^\]]*\]")


def rule_of(message: str, kind: Any = None) -> str:
    """Rephrase a message of msgspec as a rule: `must be a string, got an integer`.

    Args:
        message: The message.
        kind: The type that was expected. If it is given, a value that is none of its choices is answered with them.
    """
    wrong = _WRONG_CHOICE.fullmatch(message)
    choices = _choices_at(inspect.type_info(kind), wrong["path"] or "") if wrong and kind is not None else ""
    if wrong and choices:
        return f"must be {choices}, not {wrong['value']}" + (f", at {wrong['path']}" if wrong["path"] else "")
    return re.sub("`([^`]*)`", _in_words, message).replace("Expected", "must be").replace(" - at $", ", at $")


def _choices_at(kind: Type, path: str) -> str:
    """Name the choices of the type at a path such as `$.method` or `$.items[2]`; empty if it has none."""
    kinds = [kind]
    for part in _PATH_PART.finditer(path):
        kinds = [inner for each in kinds for inner in _inside(each, part["name"])]
    found = [each for kind in kinds for each in _alternatives(kind) if isinstance(each, inspect.LiteralType)]
    return " or ".join(map(type_name, found))


def _alternatives(kind: Type) -> list[Type]:
    match kind:
        case inspect.Metadata():
            return _alternatives(kind.type)
        case inspect.UnionType():
            return [each for alternative in kind.types for each in _alternatives(alternative)]
        case _:
            return [kind]


def _inside(kind: Type, name: str | None) -> list[Type]:
    """Return the types that a field of this name may have, or without a name the items."""
    found: list[Type] = []
    for each in _alternatives(kind):
        match each:
            case inspect.StructType() if name is not None:
                found += [field.type for field in each.fields if field.encode_name == name]
            case inspect.CollectionType() if name is None:
                found.append(each.item_type)
            case inspect.DictType() if name is None:
                found.append(each.value_type)
            case _:
                pass
    return found


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
