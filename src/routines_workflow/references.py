"""References, with which a step's parameter names a value that the run already has.

    reference := name member*
    member    := "." name | "[" index "]" | "[*]" | "[" string "]"
    name      := letters, digits, "_" and "-"
    string    := as in JSON, for a key that is not a name

Examples: `init_params.prompt`, `expand.outputs.text`, `generate.outputs.images[0].path`, `load.outputs.rows[*].id`,
`call.outputs.json["a key"]`. Pure code, independent of workflows and the database.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, cast

from routines_core.errors import InvalidError
from routines_workflow.text_cache import cached_by_text

MAX_MEMBERS = 100
"""Maximum number of members of a reference; more are a mistake, and each takes a level of recursion."""

SECRET_ROOTS = ("secret_params", "environment")
"""Roots of references to secrets, which are loaded only for the step that names them and never shown."""
SET_SECRETS = (
    "there is no secret {name}: set it in secret_params of the run or routine, or in the environment of the collection"
)
SLOT_ROOT = "slot"
"""Root of references to the slot that a run is for. A step of this name wins."""
SLOT_NAMES = ("scheduled_for", "date", "local_time", "previous", "last_success", "trigger")
"""What a reference may name of a slot. Routines take parameters by the same names, see check_slot_params."""
NAME = re.compile(r"[A-Za-z0-9_-]+")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_SHOWN_CHARACTERS = 30
"""How much text an error message shows on either side of the fault."""


@dataclass(frozen=True)
class Each:
    """`[*]`: the following members apply to every item of the array."""


Member = str | int | Each


class GrammarError(InvalidError):
    """A reference or a template does not follow the grammar.

    Attributes:
        position: Position of the fault, in characters from 0.
        expected: What the grammar expects there.
    """

    def __init__(self, text: str, position: int, expected: str) -> None:
        super().__init__(f"not valid at character {position + 1}: expected {expected}\n{_point_at(text, position)}")
        self.position = position
        self.expected = expected


class MissingReferenceError(InvalidError):
    """A reference names a value that the run does not have."""


class TooMuchError(InvalidError):
    """The resolved parameters of a step are larger than its inputs may be."""


@dataclass
class Room:
    """How large the resolved parameters of one step may still become.

    Counted while they are made: a workflow may repeat a reference so often that the result does not fit into memory.

    Attributes:
        left: Characters and items, a lower bound of the bytes that they take as JSON.
    """

    left: int

    def take(self, size: int) -> None:
        """Count a text of so many characters, or an array of so many items.

        Raises:
            TooMuchError: It does not fit.
        """
        self.left -= size + 1
        if self.left < 0:
            raise TooMuchError("the resolved parameters are larger than a step's inputs may be")


@dataclass(frozen=True)
class Reference:
    """A parsed reference; its `str` parses to the same reference."""

    root: str
    members: tuple[Member, ...] = ()

    def __str__(self) -> str:
        """Return the reference as spelled in a workflow."""
        return self.root + "".join(map(_spell, self.members))

    def resolve(self, values: dict[str, Any], room: Room | None = None) -> Any:
        """Look the reference up in `values`, which contains `init_params` and each step by name.

        Raises:
            MissingReferenceError: There is no such value; the message names the missing member.
            TooMuchError: `room` does not suffice for the arrays that `[*]` makes.
        """
        return self._descend(values, (self.root, *self.members), room)

    def _descend(self, value: Any, members: tuple[Member, ...], room: Room | None) -> Any:
        if not members:
            return value
        member, rest = members[0], members[1:]
        if isinstance(member, Each):
            if not isinstance(value, list):
                raise MissingReferenceError(f"reference {self} is missing: [*] needs an array")
            items = cast("list[Any]", value)
            if room is not None:
                room.take(len(items))
            return [self._descend(item, rest, room) for item in items]
        try:
            return self._descend(_item(value, member), rest, room)
        except (KeyError, IndexError, TypeError):
            raise MissingReferenceError(f"reference {self} is missing: {self._cause(value, member)}") from None

    def _cause(self, value: Any, member: str | int) -> str:
        if value is None:
            return f"the value before {_spell(member)} is null"
        if self.root in SECRET_ROOTS and len(self.members) == 1:
            return SET_SECRETS.format(name=member)
        return f"there is no {_spell(member)}"


@cached_by_text(most_characters=64 * 1024, longest=1024)
def parse_reference(text: str) -> Reference:
    """Parse a reference.

    Raises:
        GrammarError: `text` is not a reference; the error points at the position.
    """
    reference, end = scan_reference(text, 0)
    if end < len(text):
        raise GrammarError(text, end, "'.', '[' or the end")
    return reference


def scan_reference(text: str, start: int) -> tuple[Reference, int]:
    """Scan a reference that begins at `start`; returns it and its end.

    Raises:
        GrammarError: No reference begins there.
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
    """Scan a JSON string whose opening quote is at `start`; returns the string and its end.

    Raises:
        GrammarError: It is not closed or not valid JSON.
    """
    try:
        found, end = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise GrammarError(text, error.pos, "a string as in JSON") from None
    return str(found), end


def spell_string(text: str) -> str:
    """Return the string as ASCII-only JSON."""
    return json.dumps(text)


def _scan_name(text: str, start: int) -> tuple[str, int]:
    found = NAME.match(text, start)
    if found is None:
        raise GrammarError(text, start, "a name (letters, digits, _ and -)")
    return found.group(), found.end()


def _scan_brackets(text: str, start: int) -> tuple[Member, int]:
    """Scan the content of brackets; returns the member and the end of the closing bracket."""
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


def _point_at(text: str, position: int) -> str:
    """Show the text around the position on one line, with a caret below it."""
    start = max(0, position - _SHOWN_CHARACTERS)
    line = text[start : position + _SHOWN_CHARACTERS]
    shown = "".join(character if character.isprintable() else " " for character in line)
    return f"    {shown}\n    {' ' * (position - start)}^"
