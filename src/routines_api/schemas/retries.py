"""Retries of scheduled runs, as they are sent and shown."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Discriminator, Field, Tag

from routines_api.schemas.fields import RequestBody

DELAYS, GROWING, SLOT, SECONDS = "[delays]", "[growing]", "[slot]", "[seconds]"
TAGS = frozenset({DELAYS, GROWING, SLOT, SECONDS})
"""Which of two forms a field has, where pydantic names the path of a fault."""
Seconds = Annotated[float, Field(ge=0, le=86400)]


class RetryBackoff(RequestBody):
    """Growing delays before retries, in seconds."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"initial": 30, "multiplier": 2, "max": 600}]})

    initial: Seconds = Field(default=60, description="Before the first retry.")
    multiplier: float = Field(default=2, ge=1, le=10, description="How many times longer each further delay is.")
    max: Seconds = Field(default=3600, description="No delay is longer.")


class RoutineRetry(RequestBody):
    """How scheduled runs that failed are retried, by runs of their own."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"max_attempts": 3, "backoff": [60, 300], "on": "transient"}]}
    )

    max_attempts: int = Field(ge=2, le=20, description="How many attempts a slot gets, the first included.")
    backoff: Annotated[
        Annotated[list[Seconds], Field(min_length=1, max_length=20), Tag(DELAYS)]
        | Annotated[RetryBackoff, Tag(GROWING)],
        Discriminator(lambda given: DELAYS if isinstance(given, list) else GROWING),
    ] = Field(
        default_factory=RetryBackoff,
        description="The delay before each retry, in seconds, the last one for all further retries; or how the delays "
        "grow. A retry also waits as long as the failed response asked for.",
    )
    on: Literal["any", "transient"] = Field(
        default="any",
        description="transient: only after a failure whose cause may go away by itself: a timeout, a failed "
        "connection, an HTTP status of 408, 425, 429 or 500 and above, or lost workers.",
    )
    until: Annotated[
        Annotated[Literal["next_slot"], Tag(SLOT)] | Annotated[int, Field(ge=1, le=604800), Tag(SECONDS)],
        Discriminator(lambda given: SLOT if isinstance(given, str) else SECONDS),
    ] = Field(
        default="next_slot",
        description="next_slot: a retry begins only before the next slot is due; a number: only within that many "
        "seconds after the first attempt was started, and slots that come meanwhile are skipped.",
    )

    def stored(self) -> dict[str, Any]:
        """Return the fields as they are stored and shown, with whole numbers as they are usually written."""
        if isinstance(self.backoff, RetryBackoff):
            given: Any = {name: _short(number) for name, number in self.backoff}
        else:
            given = [_short(number) for number in self.backoff]
        return {**self.model_dump(), "backoff": given}


def _short(number: float) -> float:
    return int(number) if number == int(number) else number


class BackoffRead(msgspec.Struct):
    """Growing delays before retries, in seconds."""

    initial: Annotated[int | float, Meta(description="Before the first retry.")] = 60
    multiplier: Annotated[int | float, Meta(description="How many times longer each further delay is.")] = 2
    max: Annotated[int | float, Meta(description="No delay is longer.")] = 3600


class RetryRead(msgspec.Struct):
    """How a scheduled run that failed is retried."""

    max_attempts: Annotated[int, Meta(description="How many attempts a slot gets, the first included.", examples=[3])]
    backoff: Annotated[
        list[int | float] | BackoffRead,
        Meta(description="The delay before each retry, in seconds, or how the delays grow."),
    ] = msgspec.field(default_factory=BackoffRead)
    on: Annotated[str, Meta(description="any: after every failure; transient: only if the cause may go away.")] = "any"
    until: Annotated[
        int | str, Meta(description="next_slot, or how many seconds after the first attempt the last one may begin.")
    ] = "next_slot"
