"""The messages to and from Temporal: ids, numbers and verdicts. What steps read and write stays in Postgres.

Temporal keeps all of this in its history, where everyone with access to Temporal can read it, and replays it for
workflows that are still open when a newer version of this program takes over. Give each new field a default, and never
rename one.
"""

from dataclasses import dataclass

AGAIN = "again"
"""A verdict: the run has not ended and nobody has it. It is to be taken up again after the wait."""
HELD = "held"
"""A verdict: a worker goes on with the run, and answers for it in its own task queue."""
LOST = "lost"
"""A verdict: the run no longer belongs to Temporal."""
TASK_SECONDS = 10.0
"""How long without an answer until a worker that begins a run counts as lost, unless the lease is shorter."""


@dataclass(frozen=True)
class Job:
    """A run, as its Temporal workflow is started with it.

    Attributes:
        generation: Which dispatch of the run this is: see routines.dispatches.
        seconds: How long one activity may take: until the run's deadline.
        lease_seconds: How long without a heartbeat until a worker counts as lost.
        sequence: Activities it has had so far; above 0 if it continues with a new history.
    """

    trajectory_id: int
    generation: int
    seconds: float
    lease_seconds: float
    sequence: int = 0

    @property
    def task_seconds(self) -> float:
        """How long without an answer until the worker that begins the run counts as lost."""
        return min(TASK_SECONDS, self.lease_seconds)


@dataclass(frozen=True)
class RunCall:
    """The execution of a run by one worker, as one or two Temporal activities.

    Attributes:
        sequence: Which activity of the workflow this is, counted from 1.
        quick_seconds: After this time the run needs an activity with heartbeats.
    """

    trajectory_id: int
    generation: int
    sequence: int
    quick_seconds: float = 0.0


@dataclass(frozen=True)
class RunVerdict:
    """What came of a run so far.

    Attributes:
        status: completed or failed, in which the run has ended; AGAIN, HELD or LOST.
        wait_seconds: Delay before it is taken up again.
        task_queue: Where the worker that holds it answers for it.
    """

    status: str
    wait_seconds: float = 0.0
    task_queue: str = ""
