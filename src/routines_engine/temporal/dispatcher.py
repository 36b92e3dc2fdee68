"""The dispatcher: claims pending runs, records that they are dispatched to Temporal, and submits them there.

Each worker dispatches as many runs as it can execute, and Temporal lets it begin them at once. Any number of
dispatchers may run. One that crashes in between leaves runs that are recorded but not submitted, which the reconciler
submits.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from routines_core.db import Connection, dispatches, runs
from routines_core.db.dispatches import Submission
from routines_core.settings import Settings
from routines_engine.loops import wait_for_wakeup
from routines_engine.metrics import WorkerMetrics
from routines_engine.runs.fair_share import FairShare
from routines_engine.runs.services import WorkerResources
from routines_engine.temporal.connection import describe, probe
from routines_engine.temporal.submission import Submitter
from routines_engine.temporal.target import target_of

MOST_SUBMITTING = 30
"""Maximum number of runs that are being submitted at once. A slow server answers more of them too late to count."""
POLL_SECONDS = 1.0
"""How long an idle dispatcher waits for a wakeup before it looks for pending runs anyway."""
GATHER_SECONDS = 0.05
"""How long a busy dispatcher waits before it claims again, so that one claim is for several runs that have ended."""
AWAY_SECONDS = 1.0
"""Delay before asking Temporal again while it is unavailable."""
FRESH_SECONDS = 1.0
"""How long after an answer of Temporal it need not be asked whether it is there."""

log = structlog.get_logger("temporal")


@dataclass
class Dispatcher:
    """One dispatcher.

    Attributes:
        resources: Queries the database.
        client: Returns the connection to Temporal, or None while there is none.
        submitter: Submits runs.
        room: Returns how many more runs this worker could execute.
        worker: The name recorded in claimed runs until a worker begins them.
        wake: Set when there may be something to claim.
        metrics: Counts claims.
    """

    settings: Settings
    resources: WorkerResources
    client: Callable[[], Client | None]
    submitter: Submitter
    room: Callable[[], int]
    worker: str
    wake: asyncio.Event
    metrics: WorkerMetrics
    _fair_share: FairShare = field(default_factory=FairShare)
    _is_away: bool = False
    _answered_at: float = float("-inf")
    _submitting: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])

    async def dispatch(self) -> bool:
        """Claim and submit a batch of pending runs; if there are none, wait for a wakeup. Always returns True.

        Nothing is claimed while Temporal does not answer, so runs that it cannot receive stay pending.
        """
        self.wake.clear()
        client = self.client()
        if client is None or not await self._answers(client):
            await wait_for_wakeup(self.wake, AWAY_SECONDS)
            return True
        has_room = self._room() > 0
        dispatched = await self.resources.ask_once(self._claim) if has_room else []
        self.metrics.claimed(len(dispatched))
        for run in dispatched:
            self._begin_submitting(client, run)
        if dispatched:
            await asyncio.sleep(GATHER_SECONDS if self._room() < MOST_SUBMITTING / 2 else 0)
            return True
        if has_room:
            await self.resources.ask_once(lambda connection: runs.request_wakeup(connection, worker=self.worker))
        await wait_for_wakeup(self.wake, POLL_SECONDS)
        return True

    def _room(self) -> int:
        return min(self.room(), MOST_SUBMITTING - len(self._submitting))

    async def close(self) -> None:
        """Submit nothing more. What is under way is settled by a reconciler."""
        for task in self._submitting:
            task.cancel()
        await asyncio.gather(*self._submitting, return_exceptions=True)

    async def _answers(self, client: Client) -> bool:
        if time.monotonic() - self._answered_at < FRESH_SECONDS:
            return True
        try:
            await probe(client)
        except RPCError as error:
            if not self._is_away:
                cause = describe(target_of(self.settings), error)
                log.warning("Temporal unavailable, runs stay pending", cause=cause)
            self._is_away = True
            return False
        if self._is_away:
            log.info("Temporal is back")
        self._is_away = False
        self._answered_at = time.monotonic()
        return True

    async def _claim(self, connection: Connection) -> list[Submission]:
        """Claim runs, and record in the same transaction that they are dispatched."""
        async with connection.transaction():
            free = await self._free_capacity(connection)
            if free <= 0:
                return []
            claims = await runs.claim(
                connection,
                capacity=free,
                worker=self.worker,
                lease_seconds=self.settings.lease_seconds,
                deadline_seconds=self.settings.run_deadline_seconds,
                last_tasks=self._fair_share.last_tasks,
            )
            dispatched = await dispatches.dispatch(connection, claims) if claims else []
        for run in claims:
            self._fair_share.note(run)
        return dispatched

    async def _free_capacity(self, connection: Connection) -> int:
        taking = await dispatches.taking_capacity(connection)
        # The room is asked for afterwards: a run that is begun in between then counts twice, instead of not at all.
        free, most = self._room() - taking.unbegun, self.settings.temporal_open_runs
        return free if most is None else min(free, most - taking.runs)

    def _begin_submitting(self, client: Client, run: Submission) -> None:
        """Submit a run. Its first claim records that Temporal has it."""
        task = asyncio.create_task(self._submit(client, run))
        self._submitting.add(task)
        task.add_done_callback(self._submitted)

    def _submitted(self, task: "asyncio.Task[None]") -> None:
        self._submitting.discard(task)
        self.wake.set()

    async def _submit(self, client: Client, run: Submission) -> None:
        if await self.submitter.submit(client, run):
            self._answered_at = time.monotonic()
