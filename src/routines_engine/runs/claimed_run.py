"""A run that this worker has claimed, and what the worker knows about it beyond the database."""

import asyncio
import time
from dataclasses import dataclass

from routines_core.db.runs import Claim, NamedClaim
from routines_engine.runs.trace import RunTrace


class LostRunError(Exception):
    """The run no longer belongs to this worker, which must stop it and write nothing more.

    Not a RoutinesError: steps fail on those, and this must never fail a step.
    """


class WaitsForChildrenError(Exception):
    """The run waits for its children without a worker; not a RoutinesError, which would fail the step."""


def named(run: Claim) -> dict[str, int | str]:
    """Return how a run is named in the log: by its ids, and by its task and routine."""
    if not isinstance(run, NamedClaim):
        return {"trajectory_id": run.id, "workflow_id": run.workflow_id}
    names = {"task": run.task, "routine": run.routine}
    return {"trajectory_id": run.id, **{what: name for what, name in names.items() if name is not None}}


@dataclass(eq=False)
class ClaimedRun:
    """A claimed run.

    Attributes:
        run: The claim.
        renewed_at: When the last successful renewal was sent, by this process's monotonic clock. The lease began when
            the renewal reached the database, so it never ends earlier than a lease counted from here.
        task: The task that executes the run.
        waiting_children: Children the run is waiting for; while there are any, it takes no capacity.
        is_alone: Whether it has a step process of its own, because it may have ended one.
        trace: Its spans; None if nothing is traced.
        is_ending: Whether its end is being written, after which it no longer belongs to this worker.
    """

    run: Claim
    renewed_at: float
    task: asyncio.Task[None]
    waiting_children: int = 0
    is_alone: bool = False
    is_ending: bool = False
    trace: RunTrace | None = None

    @property
    def pair(self) -> tuple[int, int]:
        """The run's id and fence."""
        return self.run.id, self.run.fence

    def renewed(self, sent_at: float) -> None:
        """Note that a renewal sent at this time succeeded."""
        self.renewed_at = max(self.renewed_at, sent_at)

    def since_renewal_seconds(self) -> float:
        """Return the seconds since the last successful renewal was sent."""
        return time.monotonic() - self.renewed_at

    def is_late(self, seconds: float) -> bool:
        """Return whether the last successful renewal was sent more than `seconds` ago."""
        return self.since_renewal_seconds() > seconds

    def cancel_unless_ending(self) -> bool:
        """Cancel the run unless its end is being written. Returns True if it was cancelled."""
        return not self.is_ending and self.cancel()

    def cancel(self) -> bool:
        """Cancel the run, even if its end is about to be written. Returns True if it was cancelled now."""
        if self.task.done() or self.task.cancelling():
            return False
        return self.task.cancel()
