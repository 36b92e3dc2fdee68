"""Activities that count."""

from typing import Annotated

import msgspec
from msgspec import Meta

from routines_core.errors import InvalidError
from routines_workflow.activity import StepContext, activity

MOST_NUMBERS = 10_000
"""As many as a list in a request may have."""


class Sequence(msgspec.Struct, forbid_unknown_fields=True):
    """How many numbers, and which."""

    count: Annotated[int, Meta(description="How many numbers.", ge=0, le=MOST_NUMBERS)]
    start: Annotated[int | float, Meta(description="The first number.")] = 0
    step: Annotated[int | float, Meta(description="What each is larger than the one before it; may be negative.")] = 1


class Numbers(msgspec.Struct):
    """Numbers in order."""

    numbers: Annotated[list[int | float], Meta(description="The numbers in order.")]
    count: Annotated[int, Meta(description="How many they are.")]


class Loop(msgspec.Struct, forbid_unknown_fields=True):
    """A counter and how far it goes."""

    count: Annotated[int | None, Meta(description="Where the counter stands; null: it begins.")] = None
    start: Annotated[int, Meta(description="Where it begins.")] = 0
    step: Annotated[int, Meta(description="How far it goes each time; may be negative, not 0.")] = 1
    limit: Annotated[int | None, Meta(description="Where it is done; null: never.")] = None


class Counted(msgspec.Struct):
    """The counter after one more round."""

    count: Annotated[int, Meta(description="Where the counter stands now, at most the limit.")]
    done: Annotated[bool, Meta(description="Whether it has reached the limit.")]


@activity("Gives evenly spaced numbers.", Sequence, category="numbers")
async def number_sequence_generator(given: Sequence, _: StepContext) -> Numbers:
    """Computed from the first each time, so that fractions do not add up their errors."""
    numbers = [given.start + index * given.step for index in range(given.count)]
    return Numbers(numbers, len(numbers))


@activity("Counts on by one step and says whether the limit is reached.", Loop, category="numbers")
async def loop_counter(given: Loop, _: StepContext) -> Counted:
    """The start where there is no count yet, else the count and one step.

    Raises:
        InvalidError: The step is 0.
    """
    if given.step == 0:
        raise InvalidError("step: must not be 0")
    count = given.start if given.count is None else given.count + given.step
    if given.limit is None:
        return Counted(count, done=False)
    done = count >= given.limit if given.step > 0 else count <= given.limit
    return Counted(given.limit if done else count, done=done)
