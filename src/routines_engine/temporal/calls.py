"""What goes to Temporal and back: ids, names of steps and numbers. What runs are given and give stays in Postgres.

Whatever is here is kept in Temporal's history, for everybody who may read it there, and for workflows that are still
under way when this program is replaced by a newer one: add a field with a default, never rename one.
"""

from dataclasses import dataclass, field

LOST = "lost"
"""A verdict: the run is no longer Temporal's."""
OVER = "over"
"""A verdict: the run has been ended by the engine, with its reason."""


@dataclass(frozen=True)
class Job:
    """A run, as a workflow of Temporal is started with it.

    Attributes:
        generation: Which dispatch of the run this is: see routines.dispatches.
        steps: All its steps, in order.
        finished: Those that are completed.
        tries: Which try each other step that was begun was at.
        seconds: How long one activity may take: until the run's deadline.
        lease_seconds: After how long without a heartbeat a worker counts as lost.
        sequence: How many activities it has had: above 0 where it goes on with a history of its own.
    """

    trajectory_id: int
    generation: int
    steps: list[str]
    finished: list[str]
    tries: dict[str, int]
    seconds: float
    lease_seconds: float
    sequence: int = 0


@dataclass(frozen=True)
class StepCall:
    """One try of a step, as an activity of Temporal."""

    trajectory_id: int
    generation: int
    sequence: int
    position: int
    name: str
    attempt: int


@dataclass(frozen=True)
class EndCall:
    """The end of a run, as an activity of Temporal.

    Attributes:
        status: completed, failed or cancelled.
        failed_step: Which step failed; None: none did.
    """

    trajectory_id: int
    generation: int
    sequence: int
    status: str
    failed_step: str | None = None


@dataclass(frozen=True)
class StepVerdict:
    """What came of one try: as flow.Verdict, without the cause, or LOST or OVER."""

    status: str
    wait_seconds: float = field(default=0.0)
