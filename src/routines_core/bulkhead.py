"""A bulkhead around each loop of a program: what goes wrong in one of them never ends the others."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from routines_core.diagnosis import diagnose
from routines_core.logging import describe

FIRST_SECONDS = 1.0
"""Delay before trying again, as long as the database is away. After a refusal or an unexpected error it doubles each
time."""
LONGEST_SECONDS = 10.0
"""The longest of those delays."""
REMIND_SECONDS = 300.0
"""How often the log is reminded of the same trouble, whether it lasts or comes back."""

EVENTS = {
    "away": "database unavailable, retrying",
    "refused": "refused, retrying",
    "bug": "unexpected error, retrying",
}
"""What the log says, by the kind of trouble."""

log = structlog.get_logger("bulkhead")


@dataclass
class Bulkhead:
    """Notes what goes wrong in one loop, and says how long it should wait before it tries again.

    The same trouble is logged once, with its cause and remedy, and when it is over.

    Attributes:
        loop: The loop's name, in the log and in the metrics.
        count: Counts each failure by loop and kind.
        longest_seconds: The longest delay.
        first_seconds: The first delay.
        is_in_trouble: Whether it has logged trouble that is not over yet.
    """

    loop: str
    count: Callable[[str, str], None] = lambda _loop, _kind: None
    longest_seconds: float = LONGEST_SECONDS
    first_seconds: float = FIRST_SECONDS
    _said_at: dict[tuple[str, ...], float] = field(default_factory=dict[tuple[str, ...], float])
    is_in_trouble: bool = field(default=False, init=False)
    _failures: int = 0

    def failed(self, error: Exception) -> float:
        """Count and log the failure. Returns the seconds to wait."""
        found = diagnose(error)
        self.count(self.loop, found.kind)
        self._say(found.kind, describe(error))
        if found.kind == "away":
            return min(self.first_seconds, self.longest_seconds)
        self._failures += 1
        return min(self.first_seconds * 2 ** min(self._failures - 1, 20), self.longest_seconds)

    def worked(self) -> None:
        """Note that the loop has done its work."""
        self._failures = 0
        if self.is_in_trouble:
            self.is_in_trouble = False
            log.info("works again", loop=self.loop)

    def _say(self, kind: str, facts: dict[str, str]) -> None:
        now = time.monotonic()
        self._said_at = {said: at for said, at in self._said_at.items() if now - at < REMIND_SECONDS}
        trouble = (kind, *facts.values())
        if trouble in self._said_at:
            return
        self._said_at[trouble] = now
        self.is_in_trouble = True
        (log.warning if kind == "away" else log.error)(EVENTS[kind], loop=self.loop, **facts)
