"""Activities that produce numbers."""

from typing import Annotated

import msgspec
from msgspec import Meta

from routines_core.errors import InvalidError
from routines_workflow.activity import StepContext, activity
from routines_workflow.sizes import digits_of, refuse_larger

MOST_NUMBERS = 10_000
"""The maximum length of a list in a request, too."""
MOST_DIGITS = 4000
"""The maximum length of a whole number; Python converts up to 4300 digits to text."""


class Sequence(msgspec.Struct, forbid_unknown_fields=True):
    """A sequence of evenly spaced numbers."""

    count: Annotated[int, Meta(description="How many numbers to generate.", ge=0, le=MOST_NUMBERS)]
    start: Annotated[int | float, Meta(description="The first number.")] = 0
    step: Annotated[int | float, Meta(description="Difference between neighbours; may be negative.")] = 1


class Numbers(msgspec.Struct):
    """Numbers in order."""

    numbers: Annotated[list[int | float], Meta(description="The numbers in order.")]
    count: Annotated[int, Meta(description="How many numbers there are.")]


class Loop(msgspec.Struct, forbid_unknown_fields=True):
    """A counter and its limit."""

    count: Annotated[int | None, Meta(description="The counter's current value; null at the start.")] = None
    start: Annotated[int, Meta(description="First value of the counter.")] = 0
    step: Annotated[int, Meta(description="Increment; may be negative, but not 0.")] = 1
    limit: Annotated[int | None, Meta(description="Value at which the counter is done; null: no limit.")] = None


class Counted(msgspec.Struct):
    """The counter after an increment."""

    count: Annotated[int, Meta(description="The counter's new value, never beyond the limit.")]
    done: Annotated[bool, Meta(description="Whether the counter has reached the limit.")]


@activity("Generates evenly spaced numbers.", Sequence, category="numbers")
async def number_sequence_generator(given: Sequence, _: StepContext) -> Numbers:
    """Compute each number from the first one, so rounding errors do not accumulate.

    Raises:
        InvalidError: The numbers would be too long, or too large to add to fractions.
    """
    _refuse_long(start=given.start, step=given.step)
    refuse_larger(given.count * max(digits_of(given.start), digits_of(given.step)), "the sequence")
    try:
        numbers = [given.start + index * given.step for index in range(given.count)]
    except OverflowError:
        raise InvalidError("start and step: a whole number this large cannot be added to a fraction") from None
    return Numbers(numbers, len(numbers))


@activity("Increments a counter and says whether it has reached its limit.", Loop, category="numbers")
async def loop_counter(given: Loop, _: StepContext) -> Counted:
    """Return the start value if there is no count yet, otherwise the count plus one step.

    Raises:
        InvalidError: The step is 0, or a number has too many digits.
    """
    _refuse_long(count=given.count or 0, start=given.start, step=given.step, limit=given.limit or 0)
    if given.step == 0:
        raise InvalidError("step: must not be 0")
    count = given.start if given.count is None else given.count + given.step
    if given.limit is None:
        return Counted(count, done=False)
    done = count >= given.limit if given.step > 0 else count <= given.limit
    return Counted(given.limit if done else count, done=done)


def _refuse_long(**numbers: float) -> None:
    for name, number in numbers.items():
        if digits_of(number) > MOST_DIGITS:
            raise InvalidError(f"{name}: must have at most {MOST_DIGITS} digits")
