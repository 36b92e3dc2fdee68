"""Templates: texts with placeholders for values of the run, in any static parameter that is or contains a text.

    template    := (text | placeholder)*
    placeholder := "{{" (reference | string) "}}"        spaces are allowed inside the braces
    string      := as in JSON: `{{ "{{" }}` produces two braces

A template that is a single reference produces the value itself. Otherwise values are inserted into the text, strings
as they are and everything else as JSON. Inserted text is not expanded again. Pure code.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import msgspec

from routines_core.errors import InvalidError
from routines_workflow.references import (
    MAX_MEMBERS,
    GrammarError,
    Reference,
    Room,
    scan_reference,
    scan_string,
    spell_string,
)
from routines_workflow.text_cache import cached_by_text

MAX_TEXT = 1024 * 1024
"""Maximum length of an expanded template, in characters. It equals the limit of a step's inputs and protects memory."""

_BLANKS = re.compile(r"\s*")
_BRACES = re.compile(r"\{\{|\{\Z")
_SIMPLE = re.compile(r"\{\{\s*([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\s*\}\}")
"""A placeholder with a reference of names alone, as most are."""
_SINGLE = 1

Part = str | Reference


class TemplateTooLargeError(InvalidError):
    """An expanded template is longer than a step's inputs may be."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"the expanded template would take at least {size} bytes, more than the limit of 1 MiB ({MAX_TEXT} bytes)"
        )


@dataclass(frozen=True)
class Template:
    """A parsed template without empty texts and without two texts in a row."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        """Return a spelling that parses to the same template."""
        return "".join(_spell(self.parts, index) for index in range(len(self.parts)))

    @cached_property
    def references(self) -> list[Reference]:
        """Its references, each once, in order."""
        return list(dict.fromkeys(part for part in self.parts if isinstance(part, Reference)))

    @property
    def is_one_reference(self) -> bool:
        """Whether it produces a value rather than a text."""
        return len(self.parts) == _SINGLE and isinstance(self.parts[0], Reference)

    def render(self, values: dict[str, Any], room: Room | None = None) -> Any:
        """Expand the template.

        Raises:
            MissingReferenceError: A placeholder refers to a missing value.
            TemplateTooLargeError: The text is too long.
            TooMuchError: `room` does not suffice.
        """
        if self.is_one_reference:
            return self.references[0].resolve(values, room)
        text = splice(part if isinstance(part, str) else part.resolve(values, room) for part in self.parts)
        if room is not None:
            room.take(len(text))
        return text


def splice(pieces: Iterator[Any]) -> str:
    """Join the pieces into one text: strings as they are, everything else as JSON.

    Raises:
        TemplateTooLargeError: The text is too long.
    """
    texts: list[str] = []
    size = 0
    for piece in pieces:
        texts.append(piece if isinstance(piece, str) else msgspec.json.encode(piece).decode())
        size += len(texts[-1])
        if size > MAX_TEXT:
            raise TemplateTooLargeError(size)
    return "".join(texts)


@cached_by_text(most_characters=256 * 1024, longest=16 * 1024)
def parse_template(text: str) -> Template:
    """Parse a template.

    Raises:
        GrammarError: A placeholder does not follow the grammar; the error points at the position.
    """
    parts: list[Part] = []
    simple: dict[str, Reference] = {}  # each spelling once
    position = 0
    while (start := text.find("{{", position)) >= 0:
        parts.append(text[position:start])
        found = _SIMPLE.match(text, start)
        if found and found[1].count(".") <= MAX_MEMBERS:
            part, position = simple.get(found[1]) or _simple(found[1], simple), found.end()
        else:
            part, position = _scan_placeholder(text, start + 2)
        parts.append(part)
    return Template(_merged([*parts, text[position:]]))


def _simple(spelling: str, known: dict[str, Reference]) -> Reference:
    root, *members = spelling.split(".")
    reference = known[spelling] = Reference(root, tuple(members))
    return reference


def expand(value: Any, values: dict[str, Any], room: Room | None = None) -> Any:
    """Expand every template in a JSON value; keys are not expanded.

    Args:
        value: The JSON value.
        values: What references may name.
        room: How much may still be made, shared with the other values of the step; None for no limit.

    Raises:
        InvalidError: As `parse_template` and `Template.render` do, or `room` does not suffice.
    """
    if isinstance(value, str):
        return parse_template(value).render(values, room) if "{{" in value else value
    if isinstance(value, list):
        return [expand(item, values, room) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: expand(item, values, room) for key, item in cast("dict[str, Any]", value).items()}
    return value


def templates_in(value: Any) -> Iterator[Template]:
    """Yield each template with placeholders in a JSON value.

    Raises:
        GrammarError: One does not follow the grammar.
    """
    if isinstance(value, str):
        if "{{" in value:
            yield parse_template(value)
    elif isinstance(value, list | dict):
        items = cast("dict[str, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value)
        for item in items:
            yield from templates_in(item)


def _scan_placeholder(text: str, start: int) -> tuple[Part, int]:
    """Scan a placeholder whose opening braces end at `start`; returns its content and the end of its closing braces."""
    position = _after_blanks(text, start)
    part: Part
    if text.startswith('"', position):
        part, position = scan_string(text, position)
    elif position == len(text):
        raise GrammarError(text, position, 'a reference or a "text", and }}')
    else:
        part, position = scan_reference(text, position)
    position = _after_blanks(text, position)
    if not text.startswith("}}", position):
        raise GrammarError(text, position, "'.', '[' or '}}'")
    return part, position + 2


def _after_blanks(text: str, start: int) -> int:
    blanks = _BLANKS.match(text, start)
    return blanks.end() if blanks else start


def _merged(parts: list[Part]) -> tuple[Part, ...]:
    """Drop empty texts and join adjacent ones."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part:
            merged.append(part)
    return tuple(merged)


def _spell(parts: tuple[Part, ...], index: int) -> str:
    part = parts[index]
    if isinstance(part, Reference):
        return f"{{{{ {part} }}}}"
    # Escape a brace at the end too: it would merge with the braces of the next placeholder.
    return _BRACES.sub(lambda braces: f"{{{{ {spell_string(braces.group())} }}}}", part)
