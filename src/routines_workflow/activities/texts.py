"""Activities on texts."""

import re
from typing import Any

import msgspec

from routines_workflow.activity import StepContext, activity


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """One text."""

    text: str


class Template(msgspec.Struct, forbid_unknown_fields=True):
    """A text with placeholders, `{{ name }}`, and their values."""

    template: str
    variables: dict[str, Any] = {}


class Texts(msgspec.Struct, forbid_unknown_fields=True):
    """Texts and what goes between them."""

    texts: list[str]
    separator: str = ""


class TextToSplit(msgspec.Struct, forbid_unknown_fields=True):
    """A text and what parts it."""

    text: str
    separator: str = "\n"


class Parts(msgspec.Struct):
    """The parts of a text, and how many they are."""

    parts: list[str]
    count: int


_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z0-9_-]+)\s*\}\}")


@activity("Returns its text unchanged.", Text)
async def text_echo(given: Text, _: StepContext) -> Text:
    """The text itself."""
    return given


@activity("Fills the placeholders {{ name }} of a template.", Template)
async def text_template(given: Template, _: StepContext) -> Text:
    """The template with each placeholder replaced.

    Raises:
        LookupError: A placeholder has no variable.
    """

    def fill(placeholder: re.Match[str]) -> str:
        name = placeholder.group(1)
        if name not in given.variables:
            raise LookupError(f"template: no variable for the placeholder {name!r}")
        value = given.variables[name]
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()

    return Text(_PLACEHOLDER.sub(fill, given.template))


@activity("Joins texts, with a separator between them.", Texts)
async def text_concatenate(given: Texts, _: StepContext) -> Text:
    """The texts in one."""
    return Text(given.separator.join(given.texts))


@activity("Splits a text at a separator.", TextToSplit)
async def text_split(given: TextToSplit, _: StepContext) -> Parts:
    """The parts, in order.

    Raises:
        ValueError: The separator is empty.
    """
    if not given.separator:
        raise ValueError("separator: must not be empty")
    parts = given.text.split(given.separator)
    return Parts(parts, len(parts))
