"""The worker's side of one run in a step process: answers its calls and keeps its budget."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from routines_core.db.children import EndedChild
from routines_core.db.runs import StepRecord
from routines_core.errors import InvalidError, RoutinesError
from routines_engine.runs.payloads import Payloads
from routines_engine.runs.record import Record
from routines_engine.sandbox.messages import FoundRun, Payload, RecordedStep
from routines_engine.sandbox.pool import RunDiedError
from routines_engine.steps.flow import StepFailedError


class Named(msgspec.Struct):
    """The arguments of `secret`."""

    name: str


class NewChild(msgspec.Struct):
    """The arguments of `start_child`; init_params is JSON."""

    task: str
    init_params: bytes
    index: int


class EndedChildId(msgspec.Struct):
    """The arguments of `child_outputs`."""

    child_id: int


class Search(msgspec.Struct):
    """The arguments of `find_trajectories`."""

    task: str
    status: str | None
    limit: int


class Path(msgspec.Struct):
    """The arguments of `read_file`."""

    path: str
    max_bytes: int | None = None


class File(msgspec.Struct):
    """The arguments of `save_file`."""

    name: str
    content: bytes


@dataclass
class RunHost:
    """Answers one run's step process.

    Attributes:
        record: Where its checkpoints go, and its services.
        payloads: Loads the run again after its process ended.
    """

    record: Record
    payloads: Payloads
    _is_loading: bool = False

    async def load(self) -> Payload:
        """Return what the run's process needs, and begin to count its steps' bytes."""
        run = self.record.services.claimed.run
        if run.init_params is not None:  # a new run, whose parameters came with the claim
            return self._counted(await self.payloads.load(run))
        return await self._loaded(lambda: self.payloads.load(run))

    async def reload(self) -> Payload:
        """Return the run as it stands after its last checkpoint."""
        await self.record.flush()
        run = self.record.services.claimed.run
        return await self._loaded(lambda: self.payloads.reload(run))

    async def _loaded(self, load: Callable[[], Awaitable[Payload]]) -> Payload:
        """Load the run when it is its turn. The next run's turn comes once this one's process has got it."""
        if not self._is_loading:
            resources = self.record.services.resources
            await resources.loading.enter(self.record.services.claimed.run.collection_id)
            self._is_loading = True
        return self._counted(await load())

    def delivered(self) -> None:
        """Note that the process has got the run, or will never need it."""
        if self._is_loading:
            self._is_loading = False
            self.record.services.resources.loading.leave(self.record.services.claimed.run.collection_id)

    @property
    def is_waiting(self) -> bool:
        """Whether the run waits for a child, and so takes no place of its process from others."""
        return self.record.services.claimed.waiting_children > 0

    def placed(self, *, is_alone: bool) -> None:
        """Note whether the run has a process of its own now."""
        self.record.services.claimed.is_alone = is_alone

    def begun(self, step: RecordedStep) -> asyncio.Future[float]:
        """Store that an attempt begins or has failed; the future is done once it is stored, and raises as `handle`."""
        self.delivered()
        return self.record.begun(step)

    def completed(self, step: RecordedStep) -> None:
        """Record a completed step; it is stored with what follows."""
        self.delivered()
        self.record.completed(step)

    def _counted(self, payload: Payload) -> Payload:
        self.record.bytes = max(self.record.bytes, len(payload.finished_steps))
        trace = self.record.services.claimed.trace
        return payload if trace is None else msgspec.structs.replace(payload, traceparent=trace.traceparent)

    async def handle(self, method: str, arguments: msgspec.Raw) -> Any:
        """Answer a call of the step process.

        Raises:
            RoutinesError: The service refused.
            LostRunError: The run no longer belongs to this worker.
        """
        self.delivered()
        services = self.record.services
        match method:
            case "secret":
                found = await services.secret(msgspec.msgpack.decode(arguments, type=Named).name)
                return [] if found is None else [found]
            case "slot":
                return await services.slot()
            case "start_child":
                new = msgspec.msgpack.decode(arguments, type=NewChild)
                return await services.start_child(new.task, new.init_params.decode(), new.index)
            case "child_outputs":
                ended = msgspec.msgpack.decode(arguments, type=EndedChildId)
                return (await services.child_outputs(ended.child_id)).encode()
            case "find_trajectories":
                return await self._find(msgspec.msgpack.decode(arguments, type=Search))
            case _:
                return await self._handle_file(method, arguments)

    def child_ended(self, child_id: int) -> asyncio.Future[EndedChild]:
        """Return a future that is done once the child has ended: see RunServices."""
        return self.record.services.child_ended(child_id)

    async def _handle_file(self, method: str, arguments: msgspec.Raw) -> str | bytes:
        services = self.record.services
        match method:
            case "read_file":
                given = msgspec.msgpack.decode(arguments, type=Path)
                return await services.read_file(given.path, given.max_bytes)
            case "save_file":
                file = msgspec.msgpack.decode(arguments, type=File)
                return await services.save_file(file.name, file.content)
            case _:
                raise InvalidError(f"there is no service {method!r}")

    async def _find(self, search: Search) -> list[FoundRun]:
        found = await self.record.services.find_trajectories(search.task, search.status, search.limit)
        return [
            FoundRun(run.trajectory_id, run.status, run.init_params.encode(), (run.outputs or "{}").encode())
            for run in found
        ]

    async def fail(self, died: RunDiedError) -> RoutinesError:
        """Record the failure of a step that ended every process. Returns the run's error."""
        if died.attempt is None:
            return InvalidError(f"the run could not be started: {died.cause}")
        position, name, number = died.attempt.position, died.attempt.step, died.attempt.number
        failed = StepRecord(name, position, "failed", "", {}, error=died.cause, attempt=number)
        await self.record.begun(
            RecordedStep(name, "", "failed", number, is_retry=False, record=msgspec.json.encode(failed))
        )
        return StepFailedError(name, died.cause)
