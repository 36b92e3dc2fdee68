"""Templates: texts with values of the run in them, wherever a static parameter is or holds a text.

    template    := (text | placeholder)*
    placeholder := "{{" (reference | string) "}}"        blanks may stand inside the braces
    string      := as in JSON: `{{ "{{" }}` writes two braces

A template that is one reference alone gives the value itself; otherwise values are spliced into the text, strings as
they are and everything else as JSON. What was spliced in is never looked at again. Pure code.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import msgspec

from routines_core.errors import InvalidError
from routines_workflow.references import GrammarError, Reference, scan_reference, scan_string, spell_string

MAX_TEXT = 1024 * 1024
"""Characters that a template may give: as much as a step may be given, so that a few braces cannot fill the memory."""

_BLANKS = re.compile(r"\s*")
_BRACES = re.compile(r"\{\{|\{\Z")
_SINGLE = 1

Part = str | Reference


class TemplateTooLargeError(InvalidError):
    """A template gives more text than a step may be given."""

    def __init__(self) -> None:
        super().__init__(f"a template gives more than {MAX_TEXT} characters")


@dataclass(frozen=True)
class Template:
    """A parsed template: no part is an empty text, and no two texts stand side by side."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        """A template that parses to the same again."""
        return "".join(_spell(self.parts, index) for index in range(len(self.parts)))

    @property
    def references(self) -> list[Reference]:
        """Its references, in order."""
        return [part for part in self.parts if isinstance(part, Reference)]

    @property
    def is_one_reference(self) -> bool:
        """Whether it stands for a value, not for a text."""
        return len(self.parts) == _SINGLE and isinstance(self.parts[0], Reference)

    def render(self, values: dict[str, Any]) -> Any:
        """What the template stands for.

        Raises:
            MissingReferenceError: A placeholder names what is not there.
            TemplateTooLargeError: The text is too large.
        """
        if self.is_one_reference:
            return self.references[0].resolve(values)
        return splice(part if isinstance(part, str) else part.resolve(values) for part in self.parts)


def splice(pieces: Iterator[Any]) -> str:
    """The pieces as one text: strings as they are, everything else as JSON.

    Raises:
        TemplateTooLargeError: The text is too large.
    """
    texts: list[str] = []
    size = 0
    for piece in pieces:
        texts.append(piece if isinstance(piece, str) else msgspec.json.encode(piece).decode())
        size += len(texts[-1])
        if size > MAX_TEXT:
            raise TemplateTooLargeError
    return "".join(texts)


@lru_cache(maxsize=1024)
def parse_template(text: str) -> Template:
    """The template that `text` is.

    Raises:
        GrammarError: Its braces hold no reference; the error knows the position and points at it.
    """
    parts: list[Part] = []
    position = 0
    while (start := text.find("{{", position)) >= 0:
        parts.append(text[position:start])
        part, position = _scan_placeholder(text, start + 2)
        parts.append(part)
    return Template(_merged([*parts, text[position:]]))


def expand(value: Any, values: dict[str, Any]) -> Any:
    """The JSON value with each template in it replaced by what it stands for; keys stay as they are.

    Raises:
        InvalidError: As `parse_template` and `Template.render` do.
    """
    if isinstance(value, str):
        return parse_template(value).render(values) if "{{" in value else value
    if isinstance(value, list):
        return [expand(item, values) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: expand(item, values) for key, item in cast("dict[str, Any]", value).items()}
    return value


def templates_in(value: Any) -> Iterator[Template]:
    """Each template in the JSON value that has a placeholder.

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
    """What the braces that opened before `start` hold, and where the closing ones end."""
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
    """The parts without empty texts, and with neighbouring texts in one."""
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
    # A brace at the end would run into those of the placeholder after it.
    return _BRACES.sub(lambda braces: f"{{{{ {spell_string(braces.group())} }}}}", part)
