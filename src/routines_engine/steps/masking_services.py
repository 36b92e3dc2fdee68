"""The services of a step, watched: which secrets it reads, and whether the engine itself failed it."""

from collections.abc import Awaitable
from typing import TypeVar

from routines_core.errors import InvalidError, RoutinesError
from routines_engine.steps.masking import Masker
from routines_workflow.activity import Child, ChildResult, Found, StepServices

Result = TypeVar("Result")


class MaskingServices:
    """Passes everything on to the engine's services.

    Attributes:
        fault: What the engine raised that is no answer to the step, as when the database is away: then the run has to
            be left, for the step did not fail.
    """

    def __init__(self, services: StepServices, masker: Masker) -> None:
        self._services = services
        self._masker = masker
        self.fault: Exception | None = None

    async def secret(self, name: str) -> str | None:
        """The secret of this name, which is masked in what the run leaves behind; None: there is none."""
        found = await self._asked(self._services.secret(name))
        if found is not None:
            self._masker.add(found)
        return found

    async def run_child(self, child: Child) -> ChildResult:
        """Start a run of another task, or find it again, and wait for its end.

        Raises:
            InvalidError: Its init_params hold a secret: they are stored and shown.
        """
        if self._masker.mask(child.init_params) != child.init_params:
            raise InvalidError(
                "a secret cannot be handed on in init_params, which are stored as they are: "
                "let the other task read it from the collection's environment"
            )
        return await self._asked(self._services.run_child(child))

    async def find_trajectories(self, *, task: str, status: str | None, limit: int) -> list[Found]:
        """Ended runs of a task, newest first."""
        return await self._asked(self._services.find_trajectories(task=task, status=status, limit=limit))

    async def read_file(self, path: str) -> bytes:
        """A file of the collection."""
        return await self._asked(self._services.read_file(path))

    async def save_file(self, name: str, content: bytes) -> str:
        """Keep a file for the collection: the path that reads it again."""
        return await self._asked(self._services.save_file(name, content))

    async def _asked(self, answer: Awaitable[Result]) -> Result:
        try:
            return await answer
        except (RoutinesError, OSError):  # an answer to the step; a file that cannot be read may be read next time
            raise
        except Exception as error:
            self.fault = error
            raise
