"""The retries and the timeout of a step. Pure code."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_core.errors import InvalidError
from routines_workflow.type_names import rule_of

LONGEST_SECONDS = 86400.0
"""A day; runs have a deadline anyway."""

Attempts = Annotated[int, Meta(ge=1, le=100)]
Seconds = Annotated[float, Meta(ge=0, le=LONGEST_SECONDS)]
Timeout = Annotated[float, Meta(gt=0, le=LONGEST_SECONDS)]


class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exponential backoff: `initial_seconds`, multiplied by `multiplier` each time, up to `max_seconds`."""

    initial_seconds: Seconds = 1.0
    multiplier: Annotated[float, Meta(ge=1, le=100)] = 2.0
    max_seconds: Seconds = 60.0


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often a step is attempted, including the first time, and the delay between attempts.

    A backoff given as a number of seconds is constant.
    """

    max_attempts: Attempts = 1
    backoff: Backoff | Seconds = Backoff()

    def wait_seconds(self, failed_attempts: int) -> float:
        """Return the delay after this many failed attempts, at least one."""
        if not isinstance(self.backoff, Backoff):
            return self.backoff
        try:
            grown = self.backoff.initial_seconds * self.backoff.multiplier ** (failed_attempts - 1)
        except OverflowError:
            return self.backoff.max_seconds
        return min(grown, self.backoff.max_seconds)


class StepLimits(msgspec.Struct, frozen=True):
    """The retries and the timeout in a step's config.

    Attributes:
        timeout_seconds: For one attempt; None: an attempt may take as long as the run.
    """

    retry: Retry = Retry()
    timeout_seconds: Timeout | None = None


def step_limits(config: dict[str, Any]) -> StepLimits:
    """Read `retry` and `timeout_seconds` from a step's config.

    Raises:
        InvalidError: One breaks its rule; `field` is its path in the config.
    """
    try:
        return msgspec.convert(config, StepLimits)
    except msgspec.ValidationError as error:
        rule, _, path = str(error).partition(" - at `$.")
        field = path.removesuffix("`")
        raise InvalidError(f"{field}: {rule_of(rule)}", field) from None
