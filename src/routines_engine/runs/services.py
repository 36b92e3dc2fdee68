"""What the engine does for the steps of one run. Nothing reaches beyond the run's collection."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import structlog

from routines_core.bulkhead import Bulkhead
from routines_core.db import Connection, Pool, children, limits, runs
from routines_core.db.children import EndedChild, EndedRun
from routines_core.db.limits import RunLimits, TakenFile
from routines_core.db.pool import AWAY
from routines_core.db.runs import Claim
from routines_core.db.timeouts import within
from routines_core.diagnosis import diagnose
from routines_core.errors import InvalidError, RunLimitError, SecretError, StorageError
from routines_core.fair_gate import FairGate
from routines_core.files.store import FileStore
from routines_core.keyring import Keyring, SecretContext, owner_of_run
from routines_core.logging import describe
from routines_engine.runs.child_waiter import ChildWaiter
from routines_engine.runs.claimed_run import ClaimedRun, LostRunError, WaitsForChildrenError
from routines_engine.runs.run_limits import RunLimitsCache

log = structlog.get_logger("worker")
Answer = TypeVar("Answer")
FOUND_BYTES = 16 * 1024 * 1024
"""Maximum size of the steps of all runs that one step reads, in bytes."""
SHORT_WAIT_SECONDS = 1.0
"""How long a run waits for a child before it is given up, if it cannot stay: time to start its other children too."""
RUN_CONNECTIONS = 3
"""How many of the worker's connections its runs use at once; one is kept for collections that use none."""
LOADED_AT_ONCE = 3
"""How many runs a worker loads and gives to their processes at once. Each takes several times its size in memory."""
RETRY_SECONDS = 0.2
"""Delay before asking the database again after losing it."""
LONGEST_RETRY_SECONDS = 5.0
"""The longest delay before asking it again after it refused."""


@dataclass(frozen=True)
class WorkerResources:
    """What all runs of a worker share.

    Attributes:
        pool: Connections to the database.
        keyring: Decrypts secrets.
        files: The file store.
        child_waiter: Waits for child runs.
        capacity_freed: Called when a claimed run begins to wait for a child, and so takes no capacity.
        may_wait: Whether a claimed run may wait for a child in this worker. If not, it is given up for as long.
        timeout_seconds: Query timeout, after which another connection is tried.
        loop_failed: Counts queries that could not be made, in the metrics.
        limits: What is known of the limits of runs.
        connections: Shares the connections that runs may use between collections.
        loading: Shares between collections how many runs are loaded and given to their processes at once.
    """

    pool: Pool
    keyring: Keyring
    files: FileStore
    child_waiter: ChildWaiter
    capacity_freed: Callable[[], None]
    may_wait: Callable[[ClaimedRun], bool]
    timeout_seconds: float
    loop_failed: Callable[[str, str], None] = lambda _loop, _kind: None
    limits: RunLimitsCache = field(default_factory=RunLimitsCache)
    connections: FairGate = field(default_factory=lambda: FairGate(RUN_CONNECTIONS, reserve=1))
    loading: FairGate = field(default_factory=lambda: FairGate(LOADED_AT_ONCE, reserve=1))

    async def run_limits(self, collection_id: int) -> RunLimits:
        """Return the limits of each run of a collection, as they were at most a second ago."""

        async def read(collection_id: int) -> RunLimits:
            return await self.ask_once(lambda connection: limits.run_limits(connection, collection_id))

        return await self.limits.of(collection_id, read)

    async def ask(self, query: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        """Query the database, retrying while it is unavailable or refuses, so that no step fails because of it.

        A query whose answer was lost is sent again, so it must be safe to repeat.
        """
        while True:
            try:
                answer = await self.ask_once(query)
            except Exception as error:
                if not (isinstance(error, AWAY) or diagnose(error).is_of_the_server):
                    raise
                await asyncio.sleep(self._queries.failed(error))
            else:
                self._queries.worked()
                return answer

    @cached_property
    def _queries(self) -> Bulkhead:
        return Bulkhead("queries", self.loop_failed, LONGEST_RETRY_SECONDS, RETRY_SECONDS)

    async def ask_for(self, run: Claim, query: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        """Query the database for a run, as `ask` does, on a connection from its collection's share.

        However many queries the runs of a collection have, the worker itself and other collections need not wait.
        """
        async with self.connections.place(run.collection_id):
            return await self.ask(query)

    async def ask_once(
        self, query: Callable[[Connection], Awaitable[Answer]], timeout_seconds: float | None = None
    ) -> Answer:
        """Query the database, and give up a connection that stays silent for too long.

        Args:
            query: Sends the query on the connection it is given.
            timeout_seconds: None: the timeout of all queries.

        Raises:
            SilenceError: No answer came in time.
        """

        async def send() -> Answer:
            async with self.pool.connection() as connection:
                return await query(connection)

        return await within(self.timeout_seconds if timeout_seconds is None else timeout_seconds, send())


@dataclass
class RunServices:
    """The services of one run.

    Attributes:
        resources: What it shares with the worker's other runs.
        claimed: The run.
        step: The current step, by which its children are found again.
        attempt: Which attempt of the step this is, from 1.
    """

    resources: WorkerResources
    claimed: ClaimedRun
    step: str = ""
    attempt: int = 1
    _secrets: set[str] = field(default_factory=set[str])

    @property
    def _run(self) -> Claim:
        return self.claimed.run

    async def _ask(self, query: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        return await self.resources.ask_for(self._run, query)

    async def secret(self, name: str) -> str | None:
        """Return the secret param of this name or else the collection's environment variable; None if neither exists.

        A worker that resumes the run reads the secrets again that its finished steps name, so they count again.

        Raises:
            RunLimitError: The run has read as many other secrets as it may.
            SecretError: It is stored but cannot be decrypted.
        """
        sealed = await self._ask(lambda connection: runs.sealed_secret(connection, self._run, name))
        if sealed is None:
            return None
        most = (await self.resources.run_limits(self._run.collection_id)).secrets
        wanted = len(self._secrets | {name})
        if most is not None and name not in self._secrets and wanted > most:
            raise RunLimitError(f"the run would read {wanted} secrets, more than its limit run_secrets of {most}")
        self._secrets.add(name)
        if sealed.secret_id is None or sealed.ciphertext is None:
            raise SecretError(f"The secret {name!r} was deleted: set it again.")
        kind = "environment" if sealed.run_id is None else "secret_param"
        owner = "" if sealed.run_id is None else owner_of_run(sealed.run_id, sealed.routine_id)
        context = SecretContext(self._run.collection_id, kind, name, owner, sealed.secret_id)
        try:
            return self.resources.keyring.open(sealed.ciphertext, context)
        except SecretError as error:
            log.error("secret not decrypted", trajectory_id=self._run.id, **describe(error))  # noqa: TRY400 - no traceback
            raise

    async def slot(self) -> dict[str, str | None]:
        """Return what references to `slot` refer to, the same each time.

        Raises:
            LostRunError: The run no longer belongs to this worker.
        """
        found = await self._ask(lambda connection: runs.slot(connection, self._run))
        if found is None:
            raise LostRunError(self._run.id)
        return found

    async def start_child(self, task: str, init_params: str, index: int) -> int:
        """Start a run of another task, or find the one this step started before, and return its id.

        A child of an earlier attempt of the step is replaced by a new one if it did not complete.

        Raises:
            InvalidError: The task does not exist or does not declare all the keys, or runs are nested too deeply.
            RunLimitError: The run's tree has as many runs as it may.
            LostRunError: The run no longer belongs to this worker.
        """
        most = (await self.resources.run_limits(self._run.collection_id)).children
        started = await self._ask(
            lambda connection: children.start_child(
                connection,
                self._run,
                step=self.step,
                task=task,
                init_params=init_params,
                index=index,
                attempt=self.attempt,
                most_children=most,
                traceparent=trace.step(self.step).traceparent if (trace := self.claimed.trace) else None,
            )
        )
        if not started.is_ours:
            raise LostRunError(self._run.id)
        if not started.has_task:
            raise InvalidError(f"the collection has no task {task!r}")
        if started.unknown_keys:
            raise InvalidError(f"the task {task!r} does not declare {', '.join(started.unknown_keys)}")
        if started.id is None and started.is_tree_full:
            raise RunLimitError(
                f"the run's tree is at its limit run_children: it has {most} of {most} runs, ended ones included"
            )
        if started.id is None:
            raise InvalidError(f"runs cannot start runs more than {children.MAX_DEPTH} levels deep")
        return started.id

    def child_ended(self, child_id: int) -> "asyncio.Future[EndedChild]":
        """Return a future that is done once the child has ended; cancelling it ends the wait.

        A future and no coroutine, because thousands of children may be waited for: as many tasks would make each full
        garbage collection stop the worker for more than a tenth of a second. While the run waits, it takes no capacity
        and counts towards no limit.

        The future raises:
            WaitsForChildrenError: Too many runs of the collection wait here. The run is to be given up until its
                children have ended; the same attempt then finds them again.
        """
        may_stay = self.resources.may_wait(self.claimed)
        future = self.resources.child_waiter.ended(child_id)
        self.claimed.waiting_children += 1
        future.add_done_callback(self._waited)
        self.resources.capacity_freed()
        if not may_stay:
            future.get_loop().call_later(SHORT_WAIT_SECONDS, _end_wait, future)
        return future

    def _waited(self, _: "asyncio.Future[EndedChild]") -> None:
        self.claimed.waiting_children -= 1

    async def child_outputs(self, child_id: int) -> str:
        """Return the outputs of an ended child's completed steps by name, as JSON.

        If the run waits for no other child, it counts towards its limits again.
        """
        if not self.claimed.waiting_children:
            await self._ask(lambda connection: children.count_again(connection, self._run))
        return await self._ask(lambda connection: children.outputs(connection, child_id))

    async def find_trajectories(self, task: str, status: str | None, limit: int) -> list[EndedRun]:
        """Return a task's ended runs, newest first. None for status means any final status.

        Raises:
            InvalidError: Their steps hold more than FOUND_BYTES together.
        """
        found = await self._ask(
            lambda connection: children.find_ended(
                connection,
                collection_id=self._run.collection_id,
                task=task,
                status=status,
                limit=limit,
                most_bytes=FOUND_BYTES,
            )
        )
        if any(run.outputs is None for run in found):
            fitting = sum(run.outputs is not None for run in found)
            raise InvalidError(
                f"the steps of these {len(found)} runs hold more than {FOUND_BYTES} bytes; "
                f"those of the newest {fitting} do not"
            )
        return found

    async def read_file(self, path: str, max_bytes: int | None = None) -> bytes:
        """Return the content of one of the collection's files.

        Raises:
            InvalidError: The collection has no file with this path, or it is larger than `max_bytes`.
        """
        return await self.resources.files.read(self._run.collection_id, path, max_bytes)

    async def save_file(self, name: str, content: bytes) -> str:
        """Save a file for the collection, for as long as the run is kept. Returns the path to read it by.

        Raises:
            RunLimitError: The collection has as many files as it may.
            LostRunError: The run no longer belongs to this worker; retention deletes the file.
        """
        collection_id, size = self._run.collection_id, len(content)
        # Counted twice if the answer is lost and it is asked again; the next listing of the files corrects that.
        taken = await self._ask(lambda connection: limits.take_file(connection, collection_id, size_bytes=size))
        if not taken.is_taken:
            raise _too_many_files(taken, size)
        try:
            path = await self.resources.files.save(collection_id, name, content)
        except StorageError:
            await self._ask(lambda connection: limits.give_back_file(connection, collection_id, size_bytes=size))
            raise
        if not await self._ask(lambda connection: runs.use_file(connection, self._run, path)):
            raise LostRunError(self._run.id)
        return path


def _end_wait(future: "asyncio.Future[EndedChild]") -> None:
    if not future.done():
        future.set_exception(WaitsForChildrenError())


def _too_many_files(taken: TakenFile, size_bytes: int) -> RunLimitError:
    """Return the error for a file that was not saved because of a limit of the collection."""
    if taken.most_files is not None and taken.files >= taken.most_files:
        use = f"files: it has {taken.files} of {taken.most_files} files"
    else:
        use = f"file_bytes: it has {taken.file_bytes} of {taken.most_bytes} bytes, and the file {size_bytes}"
    return RunLimitError(f"the file was not saved, because the collection is at its limit {use}")
