"""The dispatcher: claims pending runs for Temporal, notes that they are its own, and hands them over.

Any number may run. One that is lost in between leaves runs that are noted and not handed over: the reconciler's work.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from routines_core.db import Connection, dispatches, runs
from routines_core.db.runs import Claim
from routines_core.errors import InvalidError
from routines_core.settings import Settings
from routines_engine.metrics import WorkerMetrics
from routines_engine.runs.fair_share import FairShare
from routines_engine.runs.services import WorkerResources
from routines_engine.steps.stepper import parse_workflow
from routines_engine.temporal.connection import describe, probe
from routines_engine.temporal.submission import job_of, submit

BATCH = 100
"""The most runs that are claimed and handed over at once."""
POLL_SECONDS = 1.0
"""How often an idle dispatcher polls for pending runs if no wakeup comes."""
AWAY_SECONDS = 1.0
"""The wait before Temporal is asked again once it was away."""

log = structlog.get_logger("temporal")


@dataclass
class Dispatcher:
    """One dispatcher.

    Attributes:
        engine: Asks the database.
        client: The connection to Temporal; None: there is none at this moment.
        worker: What claimed runs bear until a step of theirs is begun.
        wake: Set when there may be something to claim.
        metrics: Told of what is claimed.
    """

    settings: Settings
    engine: WorkerResources
    client: Callable[[], Client | None]
    worker: str
    wake: asyncio.Event
    metrics: WorkerMetrics
    _fair_share: FairShare = field(default_factory=FairShare)
    _is_away: bool = False

    async def dispatch(self) -> bool:
        """Hand over what is pending, as far as there is room; True: there may be more. Else wait for a while.

        Nothing is claimed while Temporal does not answer: what it cannot get stays pending.
        """
        self.wake.clear()
        client = self.client()
        if client is None or not await self._answers(client):
            await self._rest(AWAY_SECONDS)
            return True
        claimed = await self.engine.ask_once(self._claim)
        self.metrics.claimed(len(claimed))
        if claimed:
            await self._hand_over(client, claimed)
            return True
        await self.engine.ask_once(lambda connection: runs.request_wakeup(connection, worker=self.worker))
        await self._rest(POLL_SECONDS)
        return True

    async def _rest(self, seconds: float) -> None:
        """Wait until something may be pending, for a while."""
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            return

    async def _answers(self, client: Client) -> bool:
        try:
            await probe(client)
        except RPCError as error:
            if not self._is_away:
                log.warning("Temporal away, runs stay pending", cause=describe(self.settings, error))
            self._is_away = True
            return False
        if self._is_away:
            log.info("Temporal is back")
        self._is_away = False
        return True

    async def _claim(self, connection: Connection) -> list[Claim]:
        """Claim, and note in the same transaction whose they are."""
        async with connection.transaction():
            free = await dispatches.free_capacity(connection, most=self.settings.temporal_open_runs)
            if not free:
                return []
            claimed = await runs.claim(
                connection,
                capacity=min(free, BATCH),
                worker=self.worker,
                lease_seconds=self.settings.lease_seconds,
                deadline_seconds=self.settings.run_deadline_seconds,
                last_tasks=self._fair_share.last_tasks,
            )
            if claimed:
                await dispatches.dispatch(connection, claimed)
        return claimed

    async def _hand_over(self, client: Client, claimed: list[Claim]) -> None:
        for run in claimed:
            self._fair_share.note(run)
        accepted = await asyncio.gather(*(self._submit(client, run) for run in claimed))
        known = [(run.id, run.fence) for run, is_accepted in zip(claimed, accepted, strict=True) if is_accepted]
        if known:
            await self.engine.ask_once(lambda connection: dispatches.submitted(connection, known))

    async def _submit(self, client: Client, run: Claim) -> bool:
        try:
            steps = parse_workflow(run.workflow).steps
        except InvalidError as error:
            cause = str(error)
            await self.engine.ask_once(lambda connection: runs.finish(connection, run, error=cause))
            return False
        job = job_of(
            self.settings,
            trajectory_id=run.id,
            generation=run.fence,
            steps=steps,
            finished=sorted(run.finished_steps),
            tries=run.tries,
            seconds_left=run.seconds_left,
        )
        return await submit(client, self.settings, run.workflow_id, job)
