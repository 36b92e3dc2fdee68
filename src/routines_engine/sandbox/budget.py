"""What a run may still use of those of its limits that its step process counts."""

from routines_core.errors import RunLimitError
from routines_engine.sandbox.messages import Payload, RecordedStep

ENDS = 2
"""Events that a log has room for as a step begins: the end of the step, and that of the run."""


class Budget:
    """The steps of one run, their bytes as JSON, and the events of its log.

    Args:
        payload: The run as it was claimed, with its limits and what it has used of them.

    Attributes:
        used_bytes: What its completed steps hold.
    """

    def __init__(self, payload: Payload) -> None:
        self._most_bytes = payload.most_bytes
        self._limits = payload.limits
        self.used_bytes = len(payload.finished_steps)
        self._finished = payload.finished
        self._log_events = payload.log_events
        self._begun = set(payload.attempts)

    def take(self, step: RecordedStep) -> None:
        """Count a checkpoint of a step. A failure is not counted: it ends the run.

        Raises:
            RunLimitError: The run would exceed a limit; the checkpoint is not counted.
        """
        if step.status == "completed":
            self._complete(len(step.record))
        elif step.status == "running":
            self._begin(step)

    def _begin(self, step: RecordedStep) -> None:
        """Count the beginning of a step, or a failed attempt after which it is tried again."""
        is_new = step.name not in self._begun
        most_steps, most_events = self._limits.steps, self._limits.log_events
        if is_new and most_steps is not None and self._finished >= most_steps:
            raise RunLimitError(
                f"the run would have {self._finished + 1} steps, more than its limit run_steps of {most_steps}"
            )
        log_events = self._log_events + is_new + 2 * step.is_retry  # the end of one attempt, the start of the next
        if log_events > self._log_events and most_events is not None and log_events + ENDS > most_events:
            raise RunLimitError(
                f"the run's log would have {log_events + ENDS} events, more than its limit run_log_events of "
                f"{most_events}: use fewer steps or attempts"
            )
        self._begun.add(step.name)
        self._log_events = log_events

    def _complete(self, size_bytes: int) -> None:
        total = self.used_bytes + size_bytes
        if total > self._most_bytes:
            name = "run_step_bytes" if self._most_bytes == self._limits.step_bytes else "ROUTINES_MAX_RUN_BYTES"
            raise RunLimitError(
                f"the run's steps would hold {total} bytes, more than its limit {name} of {self._most_bytes}: "
                "keep large outputs in files"
            )
        self.used_bytes = total
        self._finished += 1
        self._log_events += 1
