"""Services of a step that register each secret it reads for masking, and notice when the engine itself fails."""

from collections.abc import Awaitable
from typing import TypeVar

from routines_core.errors import InvalidError, RoutinesError
from routines_engine.steps.masking import Masker
from routines_workflow.activity import Child, ChildResult, Found, StepServices

Result = TypeVar("Result")


class MaskingServices:
    """Passes every call on to the engine's services.

    Attributes:
        fault: An exception of the engine that is not an answer to the step, such as a lost database. The step did not
            fail then, so the run must be left to another worker.
    """

    def __init__(self, services: StepServices, masker: Masker) -> None:
        self._services = services
        self._masker = masker
        self.fault: Exception | None = None

    async def secret(self, name: str) -> str | None:
        """Return a secret, which is masked from now on in what the run stores; None if it does not exist."""
        found = await self._noting_faults(self._services.secret(name))
        if found is not None:
            self._masker.add(found)
        return found

    async def slot(self) -> dict[str, str | None]:
        """Return what references to `slot` refer to."""
        return await self._noting_faults(self._services.slot())

    async def run_child(self, child: Child) -> ChildResult:
        """Start a run of another task, or find the one started before, and wait until it ends.

        Raises:
            InvalidError: Its init_params hold a secret, although they are stored and shown.
        """
        if self._masker.mask(child.init_params) != child.init_params:
            raise InvalidError(
                "a secret cannot be passed on in init_params, which are stored in plain text: "
                "let the other task read it from the collection's environment"
            )
        return await self._noting_faults(self._services.run_child(child))

    async def find_trajectories(self, *, task: str, status: str | None, limit: int) -> list[Found]:
        """Return a task's ended runs, newest first."""
        return await self._noting_faults(self._services.find_trajectories(task=task, status=status, limit=limit))

    async def read_file(self, path: str, max_bytes: int | None = None) -> bytes:
        """Return the content of one of the collection's files."""
        return await self._noting_faults(self._services.read_file(path, max_bytes))

    async def save_file(self, name: str, content: bytes) -> str:
        """Save a file for the collection. Returns the path to read it by.

        Raises:
            InvalidError: Its name holds a secret: names are stored and shown.
        """
        if self._masker.mask(name) != name:
            raise InvalidError("a file's name cannot hold a secret")
        return await self._noting_faults(self._services.save_file(name, content))

    async def save_outputs(self, name: str, content: bytes) -> str:
        """Save outputs of the step, which the engine has masked, under a name of its own. Returns the path."""
        return await self._noting_faults(self._services.save_file(name, content))

    async def _noting_faults(self, answer: Awaitable[Result]) -> Result:
        try:
            return await answer
        except (
            RoutinesError,
            OSError,
        ):  # an answer to the step; an unreadable file may be readable at the next attempt
            raise
        except Exception as error:
            self.fault = error
            raise
