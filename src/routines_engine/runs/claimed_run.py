"""A run in a worker's hands: what is known of it beside the database."""

import asyncio
import time
from dataclasses import dataclass

from routines_core.db.runs import Claim


class LostRunError(Exception):
    """The run is no longer this worker's: stop, and write nothing. No RoutinesError, so that no step can fail of it."""


@dataclass(eq=False)
class ClaimedRun:
    """A run in hand.

    Attributes:
        run: The claim.
        renewed_at: When the last renewal that went through was sent, by this process's monotonic clock. The lease
            began when the database got it, so it cannot end earlier than one counted from here.
        task: What runs it.
        waits: Children that it waits for; while there are any it takes no slot.
        ends: Whether its end is being written: it is no longer ours once that is done.
    """

    run: Claim
    renewed_at: float
    task: asyncio.Task[None]
    waits: int = 0
    ends: bool = False

    @property
    def pair(self) -> tuple[int, int]:
        """Its id and fence."""
        return self.run.id, self.run.fence

    def renewed(self, sent_at: float) -> None:
        """A renewal that was sent at this time went through."""
        self.renewed_at = max(self.renewed_at, sent_at)

    def since_renewal_seconds(self) -> float:
        """Since the last renewal that went through was sent."""
        return time.monotonic() - self.renewed_at

    def is_late(self, seconds: float) -> bool:
        """Whether no renewal went through for so long."""
        return self.since_renewal_seconds() > seconds

    def drop(self) -> bool:
        """Stop it, unless it ends by itself already: whether it was stopped now."""
        return not self.ends and self.let_go()

    def let_go(self) -> bool:
        """Stop it, even where its end is about to be written: whether it was stopped now."""
        if self.task.done() or self.task.cancelling():
            return False
        return self.task.cancel()
