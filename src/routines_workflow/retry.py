"""When a step that failed is tried again, and how long one try may take: pure code."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_core.errors import InvalidError
from routines_workflow.type_names import rule_of

LONGEST_SECONDS = 86400.0
"""A day: runs have a deadline anyway."""

Attempts = Annotated[int, Meta(ge=1, le=100)]
Seconds = Annotated[float, Meta(ge=0, le=LONGEST_SECONDS)]
Timeout = Annotated[float, Meta(gt=0, le=LONGEST_SECONDS)]


class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The wait before the next try: `initial_seconds`, each time `multiplier` as long, at most `max_seconds`."""

    initial_seconds: Seconds = 1.0
    multiplier: Annotated[float, Meta(ge=1, le=100)] = 2.0
    max_seconds: Seconds = 60.0


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often a step is tried, the first time included, and how long it waits in between.

    A backoff that is a number of seconds is always the same.
    """

    max_attempts: Attempts = 1
    backoff: Backoff | Seconds = Backoff()

    def wait_seconds(self, failed_tries: int) -> float:
        """How long to wait after as many tries as failed, at least one."""
        if not isinstance(self.backoff, Backoff):
            return self.backoff
        try:
            grown = self.backoff.initial_seconds * self.backoff.multiplier ** (failed_tries - 1)
        except OverflowError:
            return self.backoff.max_seconds
        return min(grown, self.backoff.max_seconds)


class Patience(msgspec.Struct, frozen=True):
    """What a step's config says of tries and time; None: a try may take as long as the run."""

    retry: Retry = Retry()
    timeout_seconds: Timeout | None = None


def patience_of(config: dict[str, Any]) -> Patience:
    """The `retry` and `timeout_seconds` of a step's config.

    Raises:
        InvalidError: One breaks its rule; `field` is its path in the config.
    """
    try:
        return msgspec.convert(config, Patience)
    except msgspec.ValidationError as error:
        rule, _, path = str(error).partition(" - at `$.")
        field = path.removesuffix("`")
        raise InvalidError(f"{field}: {rule_of(rule)}", field) from None
