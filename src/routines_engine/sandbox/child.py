"""A step process: runs the workflows that its worker sends, one collection's at a time.

It has no database, no encryption key and no file store, and asks its worker for everything. It ends with its worker.
"""

import asyncio
import ctypes
import importlib
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop

from routines_core.db.runs import StepRecord
from routines_core.errors import InvalidError, RoutinesError, RunLimitError, SecretError, StorageError
from routines_core.json_numbers import loads
from routines_core.lifecycle import freeze_loaded
from routines_core.logging import configure_logging
from routines_engine.sandbox.budget import Budget
from routines_engine.sandbox.channel import LARGE_FRAME_BYTES, Channel
from routines_engine.sandbox.messages import (
    Answered,
    Arguments,
    Attempt,
    AwaitChild,
    Begun,
    Call,
    Cancel,
    ChildEnded,
    Completed,
    Ended,
    FoundRun,
    FromWorker,
    Ping,
    Pong,
    RecordedStep,
    Start,
)
from routines_engine.sandbox.progress import Progress
from routines_engine.steps.flow import Verdict
from routines_engine.steps.plan import PlanCache, WorkflowPlan
from routines_engine.steps.stepper import OWN_TROUBLE_SECONDS, Step, Stepper
from routines_workflow.activity import Child, ChildResult, Found
from routines_workflow.catalogue import load_entry_points
from routines_workflow.step_limits import StepLimits

MEMORY_EXIT_CODE = 77
"""Exit code of a process that exceeded its memory limit."""

SMALL_RUN_BYTES = 8 * 1024
"""A run of at most this size cannot exceed a limit of its process merely by making a step's inputs. Its completed steps
are sent with what follows."""
SHORT_WAIT_SECONDS = 1.0
"""Longest wait for the next attempt of a step during which a run keeps its place, in seconds."""
LARGE_FILE_BYTES = 1024 * 1024
"""Files that may be larger go to and from the worker one at a time."""
THREAD_STACK_BYTES = 512 * 1024
"""Stack size of a thread for blocking activities: 32 stacks must fit the memory limit."""
_PR_SET_PDEATHSIG = 1
ANSWERS: dict[str, type[RoutinesError]] = {
    each.__name__: each for each in (InvalidError, RunLimitError, SecretError, StorageError)
}
"""Errors of a service that the step receives; any other error leaves the run unchanged."""

Result = TypeVar("Result")


class ProcessDiedError(RoutinesError):
    """An earlier process ended while it ran this attempt of the step."""


class LongWait(Exception):  # noqa: N818 - no error
    """The run waits so long for the next attempt of a step that it gives up its place.

    Attributes:
        seconds: How long it waits.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class CallAbandonedError(Exception):
    """The worker could not answer, so the run must be left as it is; not a RoutinesError, which would fail the step."""


@dataclass
class Calls:
    """The calls that wait for the worker's answer.

    Attributes:
        channel: The connection to the worker.
        large: Held while a large file is sent or received, so that few of them are in the worker's memory at once.
    """

    channel: Channel[FromWorker]
    large: asyncio.Lock = field(default_factory=asyncio.Lock)
    _waiting: "dict[int, asyncio.Future[msgspec.Raw]]" = field(default_factory=dict[int, "asyncio.Future[msgspec.Raw]"])
    _last: int = 0

    async def call(self, run: int, method: str, type_: type[Result], **arguments: Any) -> Result:
        """Ask the worker and return its answer.

        Raises:
            RoutinesError: The service refused.
            CallAbandonedError: The worker could not answer.
        """
        given = msgspec.Raw(msgspec.msgpack.encode(arguments))
        return msgspec.msgpack.decode(await self._answer(lambda call: Call(run, call, method, given)), type=type_)

    async def store(self, run: int, step: RecordedStep) -> None:
        """Have the worker store a checkpoint; raises as `call` does."""
        await self._answer(lambda call: Begun(run, call, step))

    async def await_child(self, run: int, child_id: int) -> ChildEnded:
        """Wait until a child has ended; raises as `call` does."""
        answer = await self._answer(lambda call: AwaitChild(run, call, child_id))
        return msgspec.msgpack.decode(answer, type=ChildEnded)

    async def _answer(self, make_message: Callable[[int], Call | Begun | AwaitChild]) -> msgspec.Raw:
        self._last += 1
        number = self._last
        future = self._waiting[number] = self.channel.loop.create_future()
        try:
            if self.channel.send(make_message(number)) > LARGE_FRAME_BYTES:
                await self.channel.drain()
            return await future
        finally:
            self._waiting.pop(number, None)

    def answered(self, answer: Answered) -> None:
        """Settle the call that this answers; answers to abandoned calls are dropped."""
        future = self._waiting.get(answer.call)
        if future is None or future.done():
            return
        if answer.error is None:
            future.set_result(answer.value)
        else:
            name, text = answer.error
            error_class = ANSWERS.get(name)
            future.set_exception(error_class(text) if error_class else CallAbandonedError(text))


@dataclass(frozen=True)
class RemoteServices:
    """The services of a run, asked of the worker: see StepServices."""

    calls: Calls
    run: int

    async def secret(self, name: str) -> str | None:
        """See StepServices."""
        found: list[str] = await self.calls.call(self.run, "secret", list[str], name=name)
        return found[0] if found else None

    async def slot(self) -> dict[str, str | None]:
        """See StepServices."""
        return await self.calls.call(self.run, "slot", dict[str, str | None])

    async def run_child(self, child: Child) -> ChildResult:
        """See StepServices."""
        given = msgspec.json.encode(child.init_params)
        child_id = await self.calls.call(
            self.run, "start_child", int, task=child.task, init_params=given, index=child.index
        )
        ended = await self.calls.await_child(self.run, child_id)
        outputs = await self.calls.call(self.run, "child_outputs", bytes, child_id=child_id)
        return ChildResult(ended.trajectory_id, ended.status, _decoded(outputs), ended.error)

    async def find_trajectories(self, *, task: str, status: str | None, limit: int) -> list[Found]:
        """See StepServices."""
        found = await self.calls.call(
            self.run, "find_trajectories", list[FoundRun], task=task, status=status, limit=limit
        )
        return [
            Found(each.trajectory_id, each.status, _decoded(each.init_params), _decoded(each.outputs)) for each in found
        ]

    async def read_file(self, path: str, max_bytes: int | None = None) -> bytes:
        """See StepServices."""
        async with self._turn(max_bytes):
            return await self.calls.call(self.run, "read_file", bytes, path=path, max_bytes=max_bytes)

    async def save_file(self, name: str, content: bytes) -> str:
        """See StepServices."""
        async with self._turn(len(content)):
            return await self.calls.call(self.run, "save_file", str, name=name, content=content)

    def _turn(self, most_bytes: int | None) -> AbstractAsyncContextManager[Any]:
        """Return what to wait for before a file of at most so many bytes is sent or received; None for any size."""
        return nullcontext() if most_bytes is not None and most_bytes <= LARGE_FILE_BYTES else self.calls.large


def recorded(record: StepRecord) -> RecordedStep:
    """Return a checkpoint as the worker passes it on."""
    is_retry, content = record.failed_try is not None, msgspec.json.encode(record)
    return RecordedStep(record.name, record.activity, record.status, record.attempt, is_retry, content)


def _decoded(text: bytes) -> dict[str, Any]:
    return loads(text)


class ProcessStepper(Stepper):
    """A Stepper that tells the worker which attempt begins, and fails the one that ended an earlier process."""

    def __init__(self, calls: Calls, progress: Progress, plans: PlanCache, start: Start) -> None:
        self._calls = calls
        self._plans = plans
        self._progress = progress
        self._start = start
        self._budget = Budget(start.payload)
        super().__init__(
            start.payload.workflow,
            _decoded(start.payload.init_params),
            _decoded(start.payload.finished_steps),
            self._write_checkpoint,
            workflow_id=start.payload.workflow_id,
            run_id=start.payload.run_id,
            services=RemoteServices(calls, start.run),
            attempts=start.payload.attempts,
            allow_private=start.payload.allow_private,
            traceparent=start.payload.traceparent,
        )

    def _planned(self, stored: bytes) -> WorkflowPlan:
        return self._plans.of(stored)

    async def try_step(self, position: int, name: str, attempt: int) -> Verdict:
        """See Stepper."""
        self._progress.note(self._start.place, self._start.run, Attempt(position, name, attempt))
        if self._held_bytes > SMALL_RUN_BYTES:
            self._calls.channel.flush()  # what has completed must not be lost if this step ends the process
        return await super().try_step(position, name, attempt)

    @property
    def _held_bytes(self) -> int:
        """What the next step can be made of, in bytes of JSON."""
        payload = self._start.payload
        return (
            len(payload.workflow) + len(payload.init_params) + self._budget.used_bytes + self._large_outputs.size_bytes
        )

    async def _attempt(self, step: Step, record: StepRecord) -> Any:
        death = self._start.death
        if death is not None and (death.step, death.attempt) == (record.name, record.attempt):
            raise ProcessDiedError(death.cause)
        return await super()._attempt(step, record)

    async def _after_error(self, error: Exception, limits: StepLimits, record: StepRecord) -> Verdict:
        if isinstance(error, MemoryError):
            os._exit(MEMORY_EXIT_CODE)  # the process is unusable now; the worker decides about its runs
        return await super()._after_error(error, limits, record)

    async def _held_off(self) -> Verdict:
        """See Stepper; the worker makes the same attempt again later, perhaps in another process."""
        raise LongWait(OWN_TROUBLE_SECONDS)

    async def _write_checkpoint(self, record: StepRecord) -> None:
        step = recorded(record)
        self._budget.take(step)
        if step.status != "completed":
            await self._calls.store(self._start.run, step)
            return
        if self._calls.channel.send(Completed(self._start.run, step)) > LARGE_FRAME_BYTES:
            await self._calls.channel.drain()

    async def wait(self, seconds: float) -> None:
        """See Stepper; a long wait ends the run in this process, and a worker takes it up again."""
        if seconds > SHORT_WAIT_SECONDS:
            raise LongWait(seconds)
        await super().wait(seconds)


class StepProcess:
    """Everything that one step process does."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._plans = PlanCache()
        self._channel = Channel[FromWorker](FromWorker, self._received, self._lost)
        self._calls = Calls(self._channel)
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()

    async def serve(self, end: socket.socket) -> None:
        """Do what the worker asks until it closes the connection."""
        await self._channel.open(end)
        self._channel.send(Pong(0))  # ready
        await self._ended.wait()

    def _lost(self, _: Exception | None) -> None:
        self._ended.set()

    def _received(self, message: FromWorker) -> None:
        match message:
            case Start() as start:
                self._begin(start)
            case Cancel(run):
                if run in self._runs:
                    self._runs[run].cancel()
            case Answered() as answer:
                self._calls.answered(answer)
            case Ping(number):
                self._channel.send(Pong(number))

    def _begin(self, start: Start) -> None:
        task = self._runs[start.run] = self._channel.loop.create_task(self._run(start))
        task.add_done_callback(lambda _: self._runs.pop(start.run, None))

    async def _run(self, start: Start) -> None:
        try:
            await ProcessStepper(self._calls, self._progress, self._plans, start).run()
            ended = Ended(start.run)
        except LongWait as wait:
            ended = Ended(start.run, wait_seconds=wait.seconds)
        except MemoryError:
            os._exit(MEMORY_EXIT_CODE)
        except RoutinesError as failed:
            ended = Ended(start.run, str(failed))
        except CallAbandonedError:
            return
        except Exception as broken:  # noqa: BLE001 - every error must end the run; its text may contain secrets
            ended = Ended(start.run, f"internal error: {type(broken).__name__}", is_internal=True)
        self._channel.send(ended)


def limit_memory(limit_bytes: int) -> None:
    """Limit what this process may allocate beyond what it has now, where the system supports it (Linux)."""
    threading.stack_size(THREAD_STACK_BYTES)
    limit = _data_bytes() + limit_bytes
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold secrets


def _data_bytes() -> int:
    """Return the private memory of this process as RLIMIT_DATA counts it; 0 where the system does not tell."""
    with suppress(OSError), Path("/proc/self/status").open() as status:
        for line in status:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


def die_with(worker_pid: int) -> None:
    """Have the kernel kill this process when its worker ends, even in the middle of a computation (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != worker_pid:  # it ended before it could be watched
        os._exit(1)


async def serve(arguments: Arguments, progress: Progress) -> None:
    """Serve the worker at the other end of the socket."""
    asyncio.get_running_loop().set_exception_handler(_exit_without_memory)
    await StepProcess(progress).serve(socket.socket(fileno=arguments.file_descriptor))


def _exit_without_memory(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if isinstance(context.get("exception"), MemoryError):
        os._exit(MEMORY_EXIT_CODE)
    loop.default_exception_handler(context)


def main(arguments: Arguments) -> None:
    """Serve a worker until it closes the connection or ends."""
    die_with(arguments.worker_pid)
    configure_logging(arguments.log_format)
    load_entry_points()
    for module in arguments.modules:
        importlib.import_module(module)
    progress = Progress(arguments.progress_descriptor, arguments.places)
    limit_memory(arguments.memory_bytes)
    freeze_loaded()
    try:
        uvloop.run(serve(arguments, progress))
    except MemoryError:
        os._exit(MEMORY_EXIT_CODE)
    os._exit(0)  # threads of blocking activities may still be running; nothing waits for them


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Arguments))
