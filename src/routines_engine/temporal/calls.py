"""The messages to and from Temporal: ids, step names and numbers. Inputs and outputs stay in Postgres.

Temporal keeps all of this in its history, where everyone with access to Temporal can read it, and replays it for
workflows that are still open when a newer version of this program takes over. Give each new field a default, and never
rename one.
"""

from dataclasses import dataclass, field

LOST = "lost"
"""A verdict: the run no longer belongs to Temporal."""
OVER = "over"
"""A verdict: the engine has ended the run and recorded why."""


@dataclass(frozen=True)
class Job:
    """A run, as its Temporal workflow is started with it.

    Attributes:
        generation: Which dispatch of the run this is: see routines.dispatches.
        steps: The names of all its steps, in order.
        finished: The steps that are completed.
        attempts: The attempt that each other step had reached, by name.
        seconds: How long one activity may take: until the run's deadline.
        lease_seconds: How long without a heartbeat until a worker counts as lost.
        sequence: Activities it has had so far; above 0 if it continues with a new history.
    """

    trajectory_id: int
    generation: int
    steps: list[str]
    finished: list[str]
    attempts: dict[str, int]
    seconds: float
    lease_seconds: float
    sequence: int = 0


@dataclass(frozen=True)
class StepCall:
    """One attempt of a step, as a Temporal activity."""

    trajectory_id: int
    generation: int
    sequence: int
    position: int
    name: str
    attempt: int


@dataclass(frozen=True)
class EndCall:
    """The end of a run, as a Temporal activity.

    Attributes:
        status: completed, failed or cancelled.
        failed_step: The step that failed; None if no step did.
    """

    trajectory_id: int
    generation: int
    sequence: int
    status: str
    failed_step: str | None = None


@dataclass(frozen=True)
class StepVerdict:
    """The outcome of one attempt: a flow.Verdict without its cause, or LOST or OVER."""

    status: str
    wait_seconds: float = field(default=0.0)
