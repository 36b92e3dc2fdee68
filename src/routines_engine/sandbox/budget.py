"""The byte budget of a run's steps."""

from routines_core.errors import InvalidError
from routines_engine.sandbox.messages import RecordedStep


class Budget:
    """The bytes of one run's completed steps, as JSON.

    Args:
        most_bytes: The limit.
        used_bytes: The bytes used so far.
    """

    def __init__(self, most_bytes: int, used_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.used_bytes = used_bytes

    def take(self, step: RecordedStep) -> None:
        """Count a completed step.

        Raises:
            InvalidError: The steps would hold too much; the step is not counted.
        """
        total = self.used_bytes + len(step.record)
        if total > self._most_bytes:
            raise InvalidError(
                f"the run's steps would hold {total} bytes, more than the limit of {self._most_bytes}: "
                "keep large outputs in files"
            )
        self.used_bytes = total
