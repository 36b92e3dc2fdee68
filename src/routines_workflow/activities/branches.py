"""Activities that choose between values."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from routines_core.errors import InvalidError
from routines_workflow.activity import StepContext, activity

Operator = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "contains", "exists", "truthy"]


class Condition(msgspec.Struct, forbid_unknown_fields=True):
    """A comparison and the value for each result."""

    value: Annotated[Any, Meta(description="The value to test.")] = None
    operator: Annotated[
        Operator,
        Meta(
            description="eq, ne, lt, le, gt, ge compare with `other`; in: `other` contains the value; contains: the "
            "value contains `other`; exists: the value is not null; truthy: it is not null, false, 0 or empty."
        ),
    ] = "truthy"
    other: Annotated[Any, Meta(description="The value to compare with.")] = None
    if_true: Annotated[Any, Meta(description="The output if the comparison is true.")] = True
    if_false: Annotated[Any, Meta(description="The output if the comparison is false.")] = False


class Branch(msgspec.Struct):
    """The result of the comparison and the chosen value."""

    result: Annotated[bool, Meta(description="Whether the comparison is true.")]
    value: Annotated[Any, Meta(description="if_true or if_false.")]


def _equal(left: Any, right: Any) -> bool:
    """Compare as in JSON, where true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _within(item: Any, holder: Any) -> bool:
    if isinstance(holder, list):
        return any(_equal(each, item) for each in holder)  # pyright: ignore[reportUnknownVariableType] - any JSON value
    if isinstance(holder, str | dict) and isinstance(item, str):
        return item in holder
    raise InvalidError(f"{_kind(holder)} cannot contain {_kind(item)}")


def _order(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compared(left: Any, right: Any) -> bool:
        both_texts = isinstance(left, str) and isinstance(right, str)
        both_numbers = _kind(left) == "a number" == _kind(right)
        if not both_texts and not both_numbers:
            raise InvalidError(f"{_kind(left)} and {_kind(right)} cannot be ordered")
        return compare(left, right)

    return compared


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "an array" if isinstance(value, list) else "an object"


_OPERATORS: dict[Operator, Callable[[Any, Any], bool]] = {
    "eq": _equal,
    "ne": lambda left, right: not _equal(left, right),
    "lt": _order(lambda left, right: left < right),
    "le": _order(lambda left, right: left <= right),
    "gt": _order(lambda left, right: left > right),
    "ge": _order(lambda left, right: left >= right),
    "in": _within,
    "contains": lambda left, right: _within(right, left),
    "exists": lambda left, _: left is not None,
    "truthy": lambda left, _: bool(left),
}


@activity("Tests a value and outputs one of two others.", Condition, category="control")
async def conditional_branch(given: Condition, _: StepContext) -> Branch:
    """Choose between two values. It cannot skip steps: a workflow runs all its steps in order.

    Raises:
        InvalidError: The two values cannot be compared in this way.
    """
    result = _OPERATORS[given.operator](given.value, given.other)
    return Branch(result, given.if_true if result else given.if_false)
