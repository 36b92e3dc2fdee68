"""The dispatcher: claims pending runs, records that they are dispatched to Temporal, and submits them there.

Any number of dispatchers may run. One that crashes in between leaves runs that are recorded but not submitted, which
the reconciler submits.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from routines_core.db import Connection, dispatches, runs
from routines_core.db.runs import Claim
from routines_core.settings import Settings
from routines_engine.loops import wait_for_wakeup
from routines_engine.metrics import WorkerMetrics
from routines_engine.runs.fair_share import FairShare
from routines_engine.runs.services import WorkerResources
from routines_engine.temporal.connection import describe, probe
from routines_engine.temporal.submission import job_of, submit

BATCH = 100
"""Maximum number of runs that are claimed and submitted at once."""
POLL_SECONDS = 1.0
"""How long an idle dispatcher waits for a wakeup before it looks for pending runs anyway."""
AWAY_SECONDS = 1.0
"""Delay before asking Temporal again while it is unavailable."""

log = structlog.get_logger("temporal")


@dataclass
class Dispatcher:
    """One dispatcher.

    Attributes:
        resources: Queries the database.
        client: Returns the connection to Temporal, or None while there is none.
        worker: The name recorded in claimed runs until one of their steps begins.
        wake: Set when there may be something to claim.
        metrics: Counts claims.
    """

    settings: Settings
    resources: WorkerResources
    client: Callable[[], Client | None]
    worker: str
    wake: asyncio.Event
    metrics: WorkerMetrics
    _fair_share: FairShare = field(default_factory=FairShare)
    _is_away: bool = False

    async def dispatch(self) -> bool:
        """Claim and submit a batch of pending runs; if there are none, wait for a wakeup. Always returns True.

        Nothing is claimed while Temporal does not answer, so runs that it cannot receive stay pending.
        """
        self.wake.clear()
        client = self.client()
        if client is None or not await self._answers(client):
            await wait_for_wakeup(self.wake, AWAY_SECONDS)
            return True
        claims = await self.resources.ask_once(self._claim)
        self.metrics.claimed(len(claims))
        if claims:
            await self._submit_all(client, claims)
            return True
        await self.resources.ask_once(lambda connection: runs.request_wakeup(connection, worker=self.worker))
        await wait_for_wakeup(self.wake, POLL_SECONDS)
        return True

    async def _answers(self, client: Client) -> bool:
        try:
            await probe(client)
        except RPCError as error:
            if not self._is_away:
                log.warning("Temporal unavailable, runs stay pending", cause=describe(self.settings, error))
            self._is_away = True
            return False
        if self._is_away:
            log.info("Temporal is back")
        self._is_away = False
        return True

    async def _claim(self, connection: Connection) -> Sequence[Claim]:
        """Claim runs, and record in the same transaction that they are dispatched."""
        async with connection.transaction():
            free = await dispatches.free_capacity(connection, most=self.settings.temporal_open_runs)
            if not free:
                return []
            claims = await runs.claim(
                connection,
                capacity=min(free, BATCH),
                worker=self.worker,
                lease_seconds=self.settings.lease_seconds,
                deadline_seconds=self.settings.run_deadline_seconds,
                last_tasks=self._fair_share.last_tasks,
            )
            if claims:
                await dispatches.dispatch(connection, claims)
        return claims

    async def _submit_all(self, client: Client, claims: Sequence[Claim]) -> None:
        for run in claims:
            self._fair_share.note(run)
        accepted = await asyncio.gather(*(self._submit(client, run) for run in claims))
        submitted = [(run.id, run.fence) for run, is_accepted in zip(claims, accepted, strict=True) if is_accepted]
        if submitted:
            await self.resources.ask_once(lambda connection: dispatches.submitted(connection, submitted))

    async def _submit(self, client: Client, run: Claim) -> bool:
        """Submit a run. Returns whether Temporal is known to have it."""
        outline = await self.resources.ask_once(lambda connection: runs.outline(connection, run))
        if outline is None:  # it was cancelled meanwhile
            return False
        job = job_of(
            self.settings,
            trajectory_id=run.id,
            generation=run.fence,
            steps=outline.steps,
            finished=outline.finished,
            attempts=outline.attempts,
            seconds_left=run.seconds_left,
        )
        return await submit(client, self.settings, dispatches.temporal_id(run), job)
