"""The worker's side of one step process: its connection, its watchdog and its end."""

import asyncio
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from routines_core.diagnosis import is_own_trouble
from routines_core.errors import RoutinesError
from routines_engine.sandbox.channel import LARGE_FRAME_BYTES, Channel
from routines_engine.sandbox.child import ANSWERS, MEMORY_EXIT_CODE
from routines_engine.sandbox.messages import (
    Answered,
    Arguments,
    Attempt,
    AwaitChild,
    Begun,
    Call,
    Cancel,
    Completed,
    Death,
    Ended,
    FromProcess,
    Payload,
    Ping,
    Pong,
    RecordedStep,
    Start,
)
from routines_engine.sandbox.progress import Progress, shared_memory

PLACES = 256
"""The most runs of one process, with those that wait for children."""
CALLS_AT_ONCE = 16
"""How many calls of one process are handled at once; the others wait as messages, which cost far less than tasks."""
START_SECONDS = 60.0
"""How long a process may take to start."""
UNSCHEDULED_FACTOR = 6
"""A stalled process that uses no processor time is killed after this many times the stall limit, because on a busy
machine it may simply not have been scheduled."""
PING_SECONDS = 0.5
"""How often a process that may be busy is pinged, to see that its event loop is alive."""
PRIVATE_VARIABLES = ("ROUTINES_", "DATABASE_URL", "PG", "AWS_", "TEMPORAL_", "OTEL_")
"""Prefixes of environment variables that a step process does not get."""

log = structlog.get_logger("worker")


@dataclass(frozen=True)
class Limits:
    """What one step process may use.

    Attributes:
        memory_bytes: Private memory beyond what the process has when it starts.
        stall_seconds: How long its event loop may stand still.
    """

    memory_bytes: int = 256 * 1024 * 1024
    stall_seconds: float = 5.0

    @property
    def memory_cause(self) -> str:
        """The cause for a process that exceeded its memory limit."""
        return f"it used more than {self.memory_bytes // (1024 * 1024)} MiB of memory"

    @property
    def stall_cause(self) -> str:
        """The cause for a process that stalled."""
        return f"it kept its process busy for more than {self.stall_seconds:g} s without a pause"


class StepProcessError(Exception):
    """A step process did not start."""


class ProcessGoneError(Exception):
    """The process ended before the run did.

    Attributes:
        cause: Why, as the rest of a sentence about the step.
        was_alone: Whether the run was the only one of its process.
        attempt: The attempt that was in progress; None if none had begun.
    """

    def __init__(self, cause: str, *, was_alone: bool, attempt: Attempt | None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.was_alone = was_alone
        self.attempt = attempt


class RunHandler(Protocol):
    """What a process may ask for one run; each method returns what msgpack can encode."""

    @property
    def is_waiting(self) -> bool:
        """Whether the run waits for another one, and so takes no place from others."""
        ...

    def placed(self, *, is_alone: bool) -> None:
        """Note whether the run has a process of its own now."""
        ...

    async def handle(self, method: str, arguments: msgspec.Raw) -> Any:
        """Return the answer to a call.

        Raises:
            RoutinesError: It is refused; the step hears why.
            Exception: It cannot be answered; the run is left as it is.
        """
        ...

    def child_ended(self, child_id: int) -> asyncio.Future[Any]:
        """Return a future that is done once the child has ended; cancelling it ends the wait.

        It raises as `handle` does.
        """
        ...

    def begun(self, step: RecordedStep) -> asyncio.Future[float]:
        """Store that an attempt begins or has failed. The future is done once that is stored.

        It raises as `handle` does.
        """
        ...

    def completed(self, step: RecordedStep) -> None:
        """Record a completed step; it is stored with what follows."""
        ...

    async def reload(self) -> Payload:
        """Return the run as it stands after its last checkpoint."""
        ...


@dataclass(eq=False)
class RunInProcess:
    """A run that this process has.

    Attributes:
        place: Where the process notes its attempts.
        ended: Its result is the last message about the run.
        calls: What the process waits for.
    """

    handler: RunHandler
    place: int
    ended: "asyncio.Future[Ended]"
    calls: "set[asyncio.Future[Any]]" = field(default_factory=set["asyncio.Future[Any]"])


class StepProcessHandle:
    """A step process as its worker sees it.

    Attributes:
        collection_id: The collection whose runs it has; None while it has none.
        is_exclusive: Whether it takes no second run.
        runs: By their number on this connection.
        on_gone: Called once the process has ended.
        on_settled: Called once the process has stopped what was cancelled.
    """

    on_gone: Callable[[], None]
    on_settled: Callable[[], None]

    def __init__(self, process: asyncio.subprocess.Process, limits: Limits, progress: Progress) -> None:
        self._process = process
        self._limits = limits
        self._progress = progress
        self._places = list(range(PLACES))
        self._channel = Channel[FromProcess](FromProcess, self._received, self._lost)
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._calls = deque[tuple[RunInProcess, Call]]()
        self._calls_in_hand = 0
        self._last_run = 0
        self._last_ping = 0
        self._last_pong = 0
        self._settling_ping = 0
        self._ponged_at = time.monotonic()
        self._ponged_cpu_seconds = 0.0
        self._cause = "its process was lost"
        self.is_lost = False
        self.is_gone = False
        self.is_exclusive = False
        self.collection_id: int | None = None
        self.runs: dict[int, RunInProcess] = {}
        self.on_gone = self.on_settled = lambda: None

    @classmethod
    async def start(cls, limits: Limits, log_format: str, modules: list[str]) -> "StepProcessHandle":
        """Start a process and wait until it is ready.

        Raises:
            StepProcessError: It ended or was not ready within START_SECONDS.
        """
        ours, theirs = socket.socketpair()
        memory = shared_memory(PLACES)
        try:
            progress = Progress(memory, PLACES)
            arguments = Arguments(
                theirs.fileno(), memory, PLACES, os.getpid(), limits.memory_bytes, log_format, modules
            )
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "routines_engine.sandbox.child",
                msgspec.json.encode(arguments).decode(),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), memory],
                env=_environment(),
                start_new_session=True,
            )
        finally:
            os.close(memory)
            theirs.close()
        handle = cls(process, limits, progress)
        await handle._channel.open(ours)
        try:
            async with asyncio.timeout(START_SECONDS):
                await handle._ready.wait()
        except TimeoutError:
            handle.kill("it did not start")
        if handle.is_lost:
            raise StepProcessError(f"a step process did not start: exit code {await process.wait()}")
        handle._tasks = [*handle._tasks, asyncio.create_task(handle._watch())]
        return handle

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def has_room_beside(self, most_at_work: int) -> bool:
        """Return whether it can have one more run: fewer than `most_at_work` of its runs do not wait."""
        if len(self.runs) < most_at_work:
            return True
        return bool(self._places) and sum(not each.handler.is_waiting for each in self.runs.values()) < most_at_work

    @property
    def is_settled(self) -> bool:
        """Whether it has stopped what was cancelled. Until then it may still be busy with it."""
        return self._last_pong >= self._settling_ping

    async def run(self, handler: RunHandler, payload: Payload, death: Death | None = None) -> Ended:
        """Do what is asked and return how it ended; cancelling stops it.

        Raises:
            ProcessGoneError: The process ended first.
        """
        self._last_run += 1
        number = self._last_run
        place = self._places.pop()
        entry = self.runs[number] = RunInProcess(handler, place, self._channel.loop.create_future())
        if len(self.runs) == 1 and self.is_settled:
            self._ponged_at = time.monotonic()
        try:
            self._channel.send(Start(number, place, payload, death))
            del payload
            return await entry.ended
        except (Exception, asyncio.CancelledError):
            if not self.is_gone:
                self._channel.send(Cancel(number))
                self._settling_ping = self._ping()
            raise
        finally:
            self.runs.pop(number, None)
            self._places.append(place)
            for call in list(entry.calls):
                call.cancel()

    def kill(self, cause: str) -> None:
        """Kill the process at once; its runs fail with the cause."""
        if not self.is_gone:
            self._cause = cause
            with suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """Kill the process and wait until it is gone."""
        self.kill("its worker stopped")
        await self._process.wait()
        while pending := [task for task in self._tasks if not task.done() and task is not asyncio.current_task()]:
            await asyncio.wait(pending)

    def _lost(self, error: Exception | None) -> None:
        """Handle the end of the connection: the process is gone, or broke the protocol."""
        self.is_lost = True
        self._ready.set()
        if error is not None:
            log.error("a step process broke the protocol", pid=self.pid, error=type(error).__name__)
            self.kill(self._limits.memory_cause)
        self._tasks.append(asyncio.create_task(self._gone()))

    def _received(self, message: FromProcess) -> None:
        self._ponged_at = time.monotonic()
        self._ready.set()
        if isinstance(message, Pong):
            self._ponged_cpu_seconds = _cpu_seconds(self.pid) or 0.0
            was_settled, self._last_pong = self.is_settled, message.number
            if self.is_settled and not was_settled:
                self.on_settled()
        elif message.run in self.runs:
            self._received_of(self.runs[message.run], message)

    def _received_of(self, entry: RunInProcess, message: Begun | Completed | Call | AwaitChild | Ended) -> None:
        match message:
            case Begun(_, call, step):
                self._answer_when_done(entry, call, entry.handler.begun(step))
            case Completed(_, step):
                entry.handler.completed(step)
            case Call():
                self._calls.append((entry, message))
                self._handle_calls()
            case AwaitChild(_, call, child_id):
                self._answer_when_done(entry, call, entry.handler.child_ended(child_id))
            case Ended():
                if message.is_internal:
                    log.error("a run broke its stepper", error=message.error)
                if not entry.ended.done():
                    entry.ended.set_result(message)

    def _answer_when_done(self, entry: RunInProcess, call: int, answer: asyncio.Future[Any]) -> None:
        entry.calls.add(answer)
        answer.add_done_callback(partial(self._answer, entry, call))

    def _answer(self, entry: RunInProcess, call: int, answer: asyncio.Future[Any]) -> None:
        entry.calls.discard(answer)
        if answer.cancelled():
            return
        if error := answer.exception():
            self._refuse(entry, call, error)
        else:
            self._channel.send(Answered(call, msgspec.Raw(msgspec.msgpack.encode(answer.result()))))

    def _handle_calls(self) -> None:
        """Begin with calls that wait, as many as may be handled at once."""
        while self._calls and self._calls_in_hand < CALLS_AT_ONCE:
            entry, call = self._calls.popleft()
            if self.runs.get(call.run) is entry:
                self._calls_in_hand += 1
                task = asyncio.create_task(self._handle(entry, call))
                entry.calls.add(task)
                task.add_done_callback(partial(self._handled, entry))

    def _handled(self, entry: RunInProcess, task: asyncio.Future[None]) -> None:
        self._calls_in_hand -= 1
        entry.calls.discard(task)
        self._handle_calls()

    async def _handle(self, entry: RunInProcess, call: Call) -> None:
        try:
            value = await entry.handler.handle(call.method, call.arguments)
            size = self._channel.send(Answered(call.call, msgspec.Raw(msgspec.msgpack.encode(value))))
            if size > LARGE_FRAME_BYTES:
                await self._channel.drain()
        except Exception as error:  # noqa: BLE001 - any error goes to the run
            self._refuse(entry, call.call, error)

    def _refuse(self, entry: RunInProcess, call: int, error: BaseException) -> None:
        """Give the step an error that is an answer; leave the run at any other."""
        if isinstance(error, RoutinesError | OSError) and not is_own_trouble(error):
            name = next((each.__name__ for each in type(error).__mro__ if each.__name__ in ANSWERS), "StorageError")
            self._channel.send(Answered(call, error=(name, str(error))))
        elif not entry.ended.done():
            entry.ended.set_exception(error)

    async def _watch(self) -> None:
        """Kill the process if its event loop stalls."""
        while not self.is_gone:
            await asyncio.sleep(PING_SECONDS)
            if not self.runs and self.is_settled:
                self._ponged_at = time.monotonic()
                continue
            self._ping()
            if self._is_stalled():
                self.kill(self._limits.stall_cause)

    def _ping(self) -> int:
        """Send a ping. Its answer shows that the process has handled all that was sent before."""
        self._last_ping += 1
        self._channel.send(Ping(self._last_ping))
        return self._last_ping

    def _is_stalled(self) -> bool:
        still_seconds, limit = time.monotonic() - self._ponged_at, self._limits.stall_seconds
        if still_seconds <= limit:
            return False
        used = _cpu_seconds(self.pid)
        busy_seconds = still_seconds if used is None else used - self._ponged_cpu_seconds
        return busy_seconds > limit / 2 or still_seconds > limit * UNSCHEDULED_FACTOR

    async def _gone(self) -> None:
        code = await self._process.wait()
        self.is_gone = True
        if code == MEMORY_EXIT_CODE:
            self._cause = self._limits.memory_cause
        was_alone = len(self.runs) == 1
        for number, entry in self.runs.items():
            if not entry.ended.done():
                began = self._progress.read(entry.place, number)
                entry.ended.set_exception(ProcessGoneError(self._cause, was_alone=was_alone, attempt=began))
        if self.runs:
            log.warning("step process ended", pid=self.pid, runs=len(self.runs), cause=self._cause)
        self._progress.close()
        self.on_gone()


def _cpu_seconds(pid: int) -> float | None:
    """Return the processor time that a process has used, in seconds; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _environment() -> dict[str, str]:
    """The environment of a step process: the worker's without its credentials."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE_VARIABLES)}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MALLOC_ARENA_MAX": "2"}
