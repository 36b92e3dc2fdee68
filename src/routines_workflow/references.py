"""References: how a step's parameter names a value that the run has by then.

    reference := name member*
    member    := "." name | "[" index "]" | "[*]"

`init_params.prompt`, `expand.outputs.text`, `generate.outputs.images[0].path`, `load.outputs.rows[*].id`. Pure code:
it knows neither workflows nor the database.
"""

import re
from dataclasses import dataclass
from typing import Any, cast

from routines_core.errors import InvalidError

_TOKEN = re.compile(r"\.(?P<name>[A-Za-z0-9_-]+)|\[(?P<index>\d+)\]|\[(?P<each>\*)\]")
_ROOT = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Each:
    """`[*]`: what follows applies to every item of the array."""


Member = str | int | Each


class ReferenceSyntaxError(InvalidError):
    """A reference does not follow the grammar.

    Attributes:
        position: Where, counted in characters from 0.
    """

    def __init__(self, text: str, position: int) -> None:
        super().__init__(
            f"reference {text!r} is not valid at character {position + 1}: expected a name, [index] or [*]"
        )
        self.position = position


class MissingReferenceError(InvalidError):
    """A reference names something that the run does not have."""


@dataclass(frozen=True)
class Reference:
    """A parsed reference; `str` of it is what was parsed."""

    root: str
    members: tuple[Member, ...]

    def __str__(self) -> str:
        """The reference as it is spelled in a workflow."""
        return self.root + "".join(_spell(member) for member in self.members)

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


def parse_reference(text: str) -> Reference:
    """The reference that `text` spells.

    Raises:
        ReferenceSyntaxError: It spells none; the error knows the position.
    """
    root = _ROOT.match(text)
    if root is None:
        raise ReferenceSyntaxError(text, 0)
    members: list[Member] = []
    position = root.end()
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ReferenceSyntaxError(text, position)
        members.append(_member(token))
        position = token.end()
    return Reference(root.group(), tuple(members))


def _member(token: re.Match[str]) -> Member:
    if token["each"]:
        return Each()
    return int(token["index"]) if token["index"] else token["name"]


def _item(value: Any, member: str | int) -> Any:
    kind = list if isinstance(member, int) else dict
    if not isinstance(value, kind):
        raise TypeError
    return cast("Any", value)[member]


def _spell(member: Member) -> str:
    if isinstance(member, Each):
        return "[*]"
    return f"[{member}]" if isinstance(member, int) else f".{member}"
