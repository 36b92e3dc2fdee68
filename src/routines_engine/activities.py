"""Activities: what a step of a workflow can do. Each says in a struct what it takes and what it gives."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

Parameters = TypeVar("Parameters", bound=msgspec.Struct)
Function = Callable[[Parameters], Awaitable[msgspec.Struct]]


@dataclass(frozen=True)
class Activity(Generic[Parameters]):
    """An activity by name, with the struct of its parameters and the function that does it."""

    name: str
    description: str
    parameters: type[Parameters]
    function: Function[Parameters]

    async def call(self, inputs: dict[str, Any]) -> Any:
        """The outputs as JSON values.

        Raises:
            msgspec.ValidationError: The inputs are not what the activity takes; the message names the field.
        """
        outputs = await self.function(msgspec.convert(inputs, self.parameters))
        return msgspec.to_builtins(outputs)


ACTIVITIES: dict[str, Activity[Any]] = {}
"""Every activity that a workflow can name."""


def activity(description: str, parameters: type[Parameters]) -> Callable[[Function[Parameters]], Function[Parameters]]:
    """Register the decorated function as an activity under its own name."""

    def register(function: Function[Parameters]) -> Function[Parameters]:
        name = function.__name__
        ACTIVITIES[name] = Activity(name, description, parameters, function)
        return function

    return register


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
async def text_echo(given: Text) -> Text:
    """The text itself."""
    return given


@activity("Fills the placeholders {{ name }} of a template.", Template)
async def text_template(given: Template) -> Text:
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
async def text_concatenate(given: Texts) -> Text:
    """The texts in one."""
    return Text(given.separator.join(given.texts))


@activity("Splits a text at a separator.", TextToSplit)
async def text_split(given: TextToSplit) -> Parts:
    """The parts, in order.

    Raises:
        ValueError: The separator is empty.
    """
    if not given.separator:
        raise ValueError("separator: must not be empty")
    parts = given.text.split(given.separator)
    return Parts(parts, len(parts))
