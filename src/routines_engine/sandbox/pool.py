"""The step processes of one worker: each has one collection's runs at a time."""

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from routines_core.logging import describe
from routines_engine.sandbox.messages import Attempt, Death, Ended, Payload
from routines_engine.sandbox.process import Limits, ProcessGoneError, RunHandler, StepProcessError, StepProcessHandle

RESTART_SECONDS = 1.0
"""Delay after a process failed to start, in seconds."""
BUSY_RUNS = 8
"""How many runs of a collection share a process before the collection gets another idle one."""
MOST_EXCLUSIVE = 2
"""How many runs of a collection may each run alone in a process at once, after their process ended."""
MOST_FOR_SPEED = max(1, (os.cpu_count() or 1) - 1)
"""The most processes that one collection gets for speed: the worker itself needs a core too."""

log = structlog.get_logger("worker")


class RunDiedError(Exception):
    """A run ended every process that it was given to, even the one that only had to record why.

    Attributes:
        attempt: The attempt that was in progress; None if none had begun.
        cause: Why, as the rest of a sentence about the step or the run.
    """

    def __init__(self, attempt: Attempt | None, cause: str) -> None:
        super().__init__(cause)
        self.attempt = attempt
        self.cause = cause


@dataclass
class ProcessPool:
    """Gives each run a process of its collection.

    Attributes:
        limits: Of each process.
        size: The most processes at once.
        runs_per_process: The most runs that one process has at once, without those that wait for children.
        spare: How many idle processes are kept ready.
        most_idle: How many idle processes are kept at most; the rest end.
        log_format: How the processes log: `console` or `json`.
        modules: What the processes import at their start, for activities beside the installed ones.
    """

    limits: Limits = field(default_factory=Limits)
    size: int = 32
    runs_per_process: int = 50
    spare: int = 1
    most_idle: int = 8
    log_format: str = "console"
    modules: list[str] = field(default_factory=list[str])
    _processes: list[StepProcessHandle] = field(default_factory=list[StepProcessHandle])
    _starting: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set["asyncio.Task[None]"])
    _is_closed: bool = False

    async def open(self) -> None:
        """Start the process that the first run gets, and the spare ones."""
        first = 1 + self.spare
        self._starting += first
        await asyncio.gather(*(self._start() for _ in range(first)))

    async def close(self) -> None:
        """End every process."""
        self._is_closed = True
        await asyncio.gather(*(process.close() for process in list(self._processes)))

    async def run(self, collection_id: int, handler: RunHandler, payload: Payload) -> Ended:
        """Run a workflow and return how it ended.

        If its process ends first, the run starts again from its last checkpoint, in a process of its own. A step that
        ends that process too gets another one, which only records the failure and follows the step's retry policy.

        Raises:
            RunDiedError: The run ended every process that it was given to.
        """
        death: Death | None = None
        last: Attempt | None = None
        is_alone = False
        payloads = [payload]  # taken out when it is sent: a large one must not stay in memory for as long as the run
        del payload
        while True:
            process = await self._process_for(collection_id, is_alone=is_alone)
            handler.placed(is_alone=is_alone)
            try:
                return await process.run(handler, payloads.pop(), death)
            except ProcessGoneError as gone:
                if self._is_closed:
                    raise asyncio.CancelledError from None
                if gone.was_alone:
                    if is_alone and gone.attempt == last:
                        raise RunDiedError(last, gone.cause) from None
                    last = gone.attempt
                    death = Death(last.step, last.number, gone.cause) if last else None
                is_alone = True
            finally:
                self._release(process)
            payloads.append(await handler.reload())

    async def _process_for(self, collection_id: int, *, is_alone: bool) -> StepProcessHandle:
        """Return a process for one more run of this collection, waiting until there is one."""
        while True:
            found = self._own_process(collection_id) if is_alone else self._shared(collection_id)
            if found is not None:
                found.collection_id, found.is_exclusive = collection_id, is_alone
                self._refill()
                return found
            self._changed.clear()
            self._refill(wanted=1 + self.spare)
            await self._changed.wait()

    def _shared(self, collection_id: int) -> StepProcessHandle | None:
        """Return the least busy process of this collection, or an idle one if that is too busy.

        The spare processes are left to collections that have none.
        """
        own = [each for each in self._living() if each.collection_id == collection_id and not each.is_exclusive]
        least = min(own, key=lambda each: len(each.runs), default=None)
        if least is None:
            return self._idle()
        is_busy = len(least.runs) >= BUSY_RUNS and len(own) < MOST_FOR_SPEED
        has_room = least.has_room_beside(self.runs_per_process)
        if is_busy or not has_room:
            self._refill(wanted=1 + self.spare)
            idle = [each for each in self._living() if each.collection_id is None]
            if len(idle) > self.spare:
                return idle[0]
        return least if has_room else None

    def _own_process(self, collection_id: int) -> StepProcessHandle | None:
        """Return an idle process for a run alone, unless this collection has enough of those.

        The spare processes are left to collections that have none, unless there can be no more.
        """
        own = sum(each.collection_id == collection_id and each.is_exclusive for each in self._living())
        idle = sum(each.collection_id is None for each in self._living())
        is_enough = idle > self.spare or len(self._living()) >= self.size
        return self._idle() if own < MOST_EXCLUSIVE and is_enough else None

    def _idle(self) -> StepProcessHandle | None:
        return next((each for each in self._living() if each.collection_id is None), None)

    def _living(self) -> list[StepProcessHandle]:
        return [each for each in self._processes if not each.is_gone]

    def _release(self, process: StepProcessHandle) -> None:
        """Let other collections have the process once it has no runs, and has stopped those that were cancelled."""
        if not process.runs and process.is_settled:
            process.collection_id, process.is_exclusive = None, False
            idle = [each for each in self._living() if each.collection_id is None]
            if len(idle) > self.most_idle:
                self._in_background(process.close())
        self._changed.set()

    def _refill(self, wanted: int = 0) -> None:
        """Start processes until enough are idle, within the size of the pool."""
        idle = sum(each.collection_id is None for each in self._living()) + self._starting
        while (
            not self._is_closed and idle < max(self.spare, wanted) and len(self._living()) + self._starting < self.size
        ):
            self._starting += 1
            idle += 1
            self._in_background(self._start())

    async def _start(self) -> None:
        try:
            process = await StepProcessHandle.start(self.limits, self.log_format, self.modules)
        except (StepProcessError, OSError) as error:
            log.error("step process not started, trying again", **_why(error))  # noqa: TRY400 - it says all
            await asyncio.sleep(RESTART_SECONDS)
            self._changed.set()
            return
        finally:
            self._starting -= 1
        process.on_gone = lambda: self._forget(process)
        process.on_settled = lambda: self._release(process)
        self._processes.append(process)
        if self._is_closed:
            await process.close()
        self._changed.set()

    def _forget(self, process: StepProcessHandle) -> None:
        self._processes.remove(process)
        self._refill()
        self._changed.set()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _why(error: StepProcessError | OSError) -> dict[str, str]:
    return {"cause": str(error)} if isinstance(error, StepProcessError) else describe(error)
