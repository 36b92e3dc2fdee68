"""References: how a step's parameter names a value that the run has by then.

    reference := name member*
    member    := "." name | "[" index "]" | "[*]" | "[" string "]"
    name      := letters, digits, "_" and "-"
    string    := as in JSON: for a key that is no name

`init_params.prompt`, `expand.outputs.text`, `generate.outputs.images[0].path`, `load.outputs.rows[*].id`,
`call.outputs.json["a key"]`. Pure code: it knows neither workflows nor the database.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from routines_core.errors import InvalidError

MAX_MEMBERS = 100
"""Members of one reference: more are a mistake, and resolving them takes as many calls within one another."""

NAME = re.compile(r"[A-Za-z0-9_-]+")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_SHOWN_CHARACTERS = 30
"""How much of a text an error shows on either side of the fault."""


@dataclass(frozen=True)
class Each:
    """`[*]`: what follows applies to every item of the array."""


Member = str | int | Each


class GrammarError(InvalidError):
    """A reference or a template does not follow the grammar.

    Attributes:
        position: Where, counted in characters from 0.
        expected: What should stand there.
    """

    def __init__(self, text: str, position: int, expected: str) -> None:
        super().__init__(f"not valid at character {position + 1}: expected {expected}\n{_pointed_at(text, position)}")
        self.position = position
        self.expected = expected


class MissingReferenceError(InvalidError):
    """A reference names something that the run does not have."""


@dataclass(frozen=True)
class Reference:
    """A parsed reference; `str` of it parses to the same again."""

    root: str
    members: tuple[Member, ...] = ()

    def __str__(self) -> str:
        """The reference as it is spelled in a workflow."""
        return self.root + "".join(map(_spell, self.members))

    def resolve(self, values: dict[str, Any]) -> Any:
        """The value in `values`, which holds `init_params` and each step by name.

        Raises:
            MissingReferenceError: There is no such value; the message names the part that is missing.
        """
        return self._descend(values, (self.root, *self.members))

    def _descend(self, value: Any, members: tuple[Member, ...]) -> Any:
        if not members:
            return value
        member, rest = members[0], members[1:]
        if isinstance(member, Each):
            if not isinstance(value, list):
                raise MissingReferenceError(f"reference {self} is missing: [*] needs an array")
            return [self._descend(item, rest) for item in cast("list[Any]", value)]
        try:
            return self._descend(_item(value, member), rest)
        except (KeyError, IndexError, TypeError):
            raise MissingReferenceError(f"reference {self} is missing: there is no {_spell(member)}") from None


@lru_cache(maxsize=1024)
def parse_reference(text: str) -> Reference:
    """The reference that `text` spells.

    Raises:
        GrammarError: It spells none; the error knows the position and points at it.
    """
    reference, end = scan_reference(text, 0)
    if end < len(text):
        raise GrammarError(text, end, "'.', '[' or the end")
    return reference


def scan_reference(text: str, start: int) -> tuple[Reference, int]:
    """The reference that begins at `start`, and where it ends.

    Raises:
        GrammarError: None begins there.
    """
    root, end = _scan_name(text, start)
    members: list[Member] = []
    while text[end : end + 1] in {".", "["}:
        if len(members) == MAX_MEMBERS:
            raise GrammarError(text, end, f"the end: a reference has at most {MAX_MEMBERS} members")
        member, end = _scan_name(text, end + 1) if text[end] == "." else _scan_brackets(text, end + 1)
        members.append(member)
    return Reference(root, tuple(members)), end


def scan_string(text: str, start: int) -> tuple[str, int]:
    """The JSON string whose opening quote stands at `start`, and where it ends.

    Raises:
        GrammarError: It is not closed, or not as in JSON.
    """
    try:
        found, end = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise GrammarError(text, error.pos, "a string as in JSON") from None
    return str(found), end


def spell_string(text: str) -> str:
    """The string as in JSON, in ASCII alone."""
    return json.dumps(text)


def _scan_name(text: str, start: int) -> tuple[str, int]:
    found = NAME.match(text, start)
    if found is None:
        raise GrammarError(text, start, "a name (letters, digits, _ and -)")
    return found.group(), found.end()


def _scan_brackets(text: str, start: int) -> tuple[Member, int]:
    """What stands between brackets, and where the closing one ends."""
    member: Member
    if text.startswith("*", start):
        member, end = Each(), start + 1
    elif text.startswith('"', start):
        member, end = scan_string(text, start)
    elif found := _INDEX.match(text, start):
        member, end = int(found.group()), found.end()
    else:
        raise GrammarError(text, start, 'an index, * or a "key"')
    if not text.startswith("]", end):
        raise GrammarError(text, end, "']'")
    return member, end + 1


def _item(value: Any, member: str | int) -> Any:
    kind = list if isinstance(member, int) else dict
    if not isinstance(value, kind):
        raise TypeError
    return cast("Any", value)[member]


def _spell(member: Member) -> str:
    if isinstance(member, Each):
        return "[*]"
    if isinstance(member, int):
        return f"[{member}]"
    return f".{member}" if NAME.fullmatch(member) else f"[{spell_string(member)}]"


def _pointed_at(text: str, position: int) -> str:
    """The text around the position on one line, and below it a caret."""
    start = max(0, position - _SHOWN_CHARACTERS)
    line = text[start : position + _SHOWN_CHARACTERS]
    shown = "".join(character if character.isprintable() else " " for character in line)
    return f"    {shown}\n    {' ' * (position - start)}^"
