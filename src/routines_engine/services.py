"""What the engine does for the steps of one run."""

from dataclasses import dataclass

from routines_core.errors import InvalidError
from routines_workflow.activity import Child, ChildResult, Found


@dataclass(frozen=True)
class RunServices:
    """The services of one run; everything stays within its collection."""

    async def secret(self, name: str) -> str | None:
        """The secret param of this name, else the collection's environment variable; None: neither is there."""
        raise InvalidError(f"the secret {name!r} cannot be read")

    async def run_child(self, child: Child) -> ChildResult:
        """Start a run of another task and wait until it has ended."""
        raise InvalidError(f"no run of {child.task!r} can be started from a step")

    async def find_trajectories(self, *, task: str, status: str | None, limit: int) -> list[Found]:
        """Ended runs of a task, newest first."""
        raise InvalidError(f"runs of {task!r} cannot be read ({status}, {limit})")

    async def read_file(self, path: str) -> bytes:
        """A file of the collection."""
        raise InvalidError(f"the file {path!r} cannot be read")

    async def save_file(self, name: str, content: bytes) -> str:
        """Keep a file for the collection."""
        raise InvalidError(f"the file {name!r} of {len(content)} bytes cannot be kept")
