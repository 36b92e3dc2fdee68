"""What the engine does for the steps of one run; everything stays within its collection."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from routines_core.db import Connection, Pool, children, runs
from routines_core.db.pool import AWAY
from routines_core.db.runs import Claim
from routines_core.db.timeouts import within
from routines_core.errors import InvalidError, SecretError
from routines_core.files.store import FileStore
from routines_core.keyring import Keyring, SecretContext, owner_of_run
from routines_engine.runs.child_waiter import ChildWaiter
from routines_engine.runs.claimed_run import ClaimedRun, LostRunError
from routines_workflow.activity import Child, ChildResult, Found

Answer = TypeVar("Answer")
RETRY_SECONDS = 0.2
"""The wait before the database is asked again once it was away."""


@dataclass(frozen=True)
class WorkerResources:
    """What all runs of a worker share.

    Attributes:
        pool: Connections to the database.
        keyring: Opens secrets.
        files: Where files are.
        waits: Who waits for children.
        capacity_freed: Called when a run that was in hand takes no slot any more.
        patience_seconds: How long an answer of the database is waited for before another connection is asked.
    """

    pool: Pool
    keyring: Keyring
    files: FileStore
    waits: ChildWaiter
    capacity_freed: Callable[[], None]
    patience_seconds: float

    async def ask(self, question: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        """The database's answer, however long it is away: no step fails of that. It may be asked again."""
        while True:
            try:
                return await self.ask_once(question)
            except AWAY:
                await asyncio.sleep(RETRY_SECONDS)

    async def ask_once(self, question: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        """The database's answer, on a connection that is given up once it is silent for too long."""

        async def put() -> Answer:
            async with self.pool.connection() as connection:
                return await question(connection)

        return await within(self.patience_seconds, put())


@dataclass
class RunServices:
    """The services of one run.

    Attributes:
        step: The step in hand: its children are known by it.
        attempt: Which try of it this is.
    """

    engine: WorkerResources
    held: ClaimedRun
    step: str = ""
    attempt: int = 1

    @property
    def _run(self) -> Claim:
        return self.held.run

    async def secret(self, name: str) -> str | None:
        """The secret param of this name, else the collection's environment variable; None: neither is there.

        Raises:
            SecretError: It is stored and does not open.
        """
        sealed = await self.engine.ask(lambda connection: runs.sealed_secret(connection, self._run, name))
        if sealed is None:
            return None
        if sealed.secret_id is None or sealed.ciphertext is None:
            raise SecretError(f"The secret {name!r} is gone: set it again.")
        kind = "environment" if sealed.run_id is None else "secret_param"
        owner = "" if sealed.run_id is None else owner_of_run(sealed.run_id, sealed.routine_id)
        context = SecretContext(self._run.collection_id, kind, name, owner, sealed.secret_id)
        return self.engine.keyring.open(sealed.ciphertext, context)

    async def run_child(self, child: Child) -> ChildResult:
        """Start a run of another task, or find the one that this step started before, and wait until it has ended.

        One that an earlier try of the step started, and that did not complete, is started anew. The run takes no slot
        meanwhile and counts towards no limit.

        Raises:
            InvalidError: There is no such task, it declares not all keys, or runs start runs too deep.
            LostRunError: The run is no longer this worker's.
        """
        child_id = await self._start(child)
        self.held.waits += 1
        self.engine.capacity_freed()
        try:
            ended = await self.engine.waits.end_of(child_id)
        finally:
            self.held.waits -= 1
        if not self.held.waits:
            await self.engine.ask(lambda connection: children.count_again(connection, self._run))
        return msgspec.convert(ended, ChildResult, from_attributes=True)

    async def _start(self, child: Child) -> int:
        started = await self.engine.ask(
            lambda connection: children.start_child(
                connection,
                self._run,
                step=self.step,
                task=child.task,
                init_params=child.init_params,
                index=child.index,
                attempt=self.attempt,
            )
        )
        if not started.is_ours:
            raise LostRunError(self._run.id)
        if not started.has_task:
            raise InvalidError(f"the collection has no task {child.task!r}")
        if started.unknown_keys:
            raise InvalidError(f"the task {child.task!r} does not declare {', '.join(started.unknown_keys)}")
        if started.id is None:
            raise InvalidError(f"runs start runs more than {children.MAX_DEPTH} deep")
        return started.id

    async def find_trajectories(self, *, task: str, status: str | None, limit: int) -> list[Found]:
        """Ended runs of a task, newest first; None for status means any final one."""
        found = await self.engine.ask(
            lambda connection: children.find_ended(
                connection, collection_id=self._run.collection_id, task=task, status=status, limit=limit
            )
        )
        return [msgspec.convert(run, Found, from_attributes=True) for run in found]

    async def read_file(self, path: str) -> bytes:
        """A file of the collection.

        Raises:
            InvalidError: There is none of this path.
        """
        return await self.engine.files.read(self._run.collection_id, path)

    async def save_file(self, name: str, content: bytes) -> str:
        """Keep a file for the collection, as long as the run is kept: the path that reads it again.

        Raises:
            LostRunError: The run is no longer this worker's; the file goes again.
        """
        path = await self.engine.files.save(self._run.collection_id, name, content)
        if not await self.engine.ask(lambda connection: runs.use_file(connection, self._run, path)):
            raise LostRunError(self._run.id)
        return path
