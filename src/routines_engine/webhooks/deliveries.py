"""Delivers webhooks beside the runs, on database connections of their own, so that a hanging receiver delays no run."""

import asyncio
import random
import time
from dataclasses import dataclass, field

import httpx
import msgspec
import structlog

from routines_core.db import Pool, deliveries, open_pool
from routines_core.db.deliveries import SECRET_KIND, ClaimedDelivery, Outcome
from routines_core.db.pool import AWAY
from routines_core.errors import ForbiddenAddressError, NotFoundError, SecretError
from routines_core.guarded_http import guarded_client
from routines_core.keyring import Keyring, SecretContext, owner_of_run
from routines_core.lifecycle import sleep_or_stop, wait_or_stop
from routines_core.settings import Settings
from routines_core.signatures import headers
from routines_engine.metrics import DELIVERED, FAILED, GIVEN_UP, LOST, WorkerMetrics
from routines_engine.webhooks.retry_schedule import delay_seconds

TIMEOUT_SECONDS = 15.0
"""Time limit from the start of a request to the end of its response."""
LEASE_SECONDS = 60.0
"""How long until a delivery is taken from a worker that does not settle it."""
START_SECONDS = 30.0
"""How long after its claim a request may still begin, so that it ends well within the lease."""
GONE = 410
"""The HTTP status of a receiver that wants no more webhooks."""
POLL_SECONDS = 0.5
"""How often due deliveries are looked for."""
GATHER_SECONDS = 0.02
"""How long a worker waits for more requests to end before it claims again."""
RECONNECT_SECONDS = 1.0
"""Delay before trying the database again after losing it."""
DRAIN_SECONDS = 1.5
"""At shutdown: time for running requests to end."""
STOP_AFTER_SECONDS = 4 * 86400.0
"""An endpoint that has failed for this long is stopped."""
CONNECTIONS = 3
"""Pool size. No connection is held while a request runs."""
SWEEP = 1000
"""The most deliveries to stopped endpoints that one statement gives up."""

log = structlog.get_logger("webhooks")


@dataclass
class Deliverer:
    """Delivers due webhooks; any number of deliverers may run against one database.

    Attributes:
        pool: Connections to the database.
        stop: Set from outside: it claims nothing more and gives back its deliveries.
        client: Sends requests; it checks addresses and limits time and response size.
        keyring: Decrypts the secrets.
        capacity: The most requests at once.
        per_host: The most at once to one host of one collection, across all workers.
        per_collection: The most at once for one collection, across all workers.
        metrics: Counts the attempts.
    """

    pool: Pool
    stop: asyncio.Event
    client: httpx.AsyncClient
    keyring: Keyring
    capacity: int = 64
    per_host: int = 8
    per_collection: int = 32
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    _claimed: dict[asyncio.Task[None], ClaimedDelivery] = field(
        default_factory=dict[asyncio.Task[None], ClaimedDelivery]
    )

    async def run(self) -> None:
        """Deliver until `stop` is set, across database outages, then give back the claimed deliveries."""
        while not self.stop.is_set():
            try:
                await self._begin()
            except AWAY as error:
                self.metrics.database_failures.inc()
                log.warning("database away, trying again", error=type(error).__name__)
                await sleep_or_stop(self.stop, RECONNECT_SECONDS)
            else:
                await self._wait()
        await self._drain()

    async def _begin(self) -> None:
        """Claim due deliveries for the free capacity, and begin to send them."""
        free = self.capacity - len(self._claimed)
        if not free:
            return
        async with self.pool.connection() as connection:
            await deliveries.give_up_stopped(connection, batch_size=SWEEP)
            sent_at = time.monotonic()
            claimed = await deliveries.claim(
                connection,
                capacity=free,
                per_host=self.per_host,
                per_collection=self.per_collection,
                lease_seconds=LEASE_SECONDS,
            )
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery, sent_at))
            self._claimed[task] = delivery
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        delivery = self._claimed.pop(task)
        if not task.cancelled() and (error := task.exception()):
            # Its lease expires, and it is sent again.
            log.warning("delivery left", delivery_id=delivery.id, error=type(error).__name__)

    async def _wait(self) -> None:
        """Wait until a request ends, or until it is time to look for due deliveries."""
        if not self._claimed:
            await sleep_or_stop(self.stop, POLL_SECONDS)
            return
        await wait_or_stop(self.stop, self._claimed, POLL_SECONDS)
        await sleep_or_stop(self.stop, GATHER_SECONDS)

    async def _deliver(self, delivery: ClaimedDelivery, claimed_at: float) -> None:
        """Make one attempt and record its outcome, holding no connection while the request runs."""
        started_at = time.monotonic()
        outcome = await self._attempt(delivery, claimed_at)
        if outcome is None:
            self.metrics.attempted(LOST, None)
            log.warning("delivery lost", delivery_id=delivery.id)
            return
        duration_seconds = round(time.monotonic() - started_at, 3)
        await self._settle(delivery, msgspec.structs.replace(outcome, duration_seconds=duration_seconds))

    async def _settle(self, delivery: ClaimedDelivery, outcome: Outcome) -> None:
        """Record the outcome of an attempt."""
        delay = None if outcome.is_final else _delay_seconds(delivery)
        async with self.pool.connection() as connection:
            ours, stopped_reason = await deliveries.settle(
                connection,
                delivery,
                outcome,
                delay_seconds=delay,
                stop_after_seconds=STOP_AFTER_SECONDS,
            )
        self.metrics.attempted(_metric_of(outcome, delay) if ours else LOST, outcome.duration_seconds)
        log.info(
            "delivery attempted",
            delivery_id=delivery.id,
            trajectory_id=delivery.trajectory_id,
            routine_id=delivery.routine_id,
            status=outcome.status,
            error=outcome.error,
            ours=ours,
        )
        if stopped_reason:
            log.warning("endpoint stopped", delivery_id=delivery.id, reason=stopped_reason)

    async def _attempt(self, delivery: ClaimedDelivery, claimed_at: float) -> Outcome | None:
        """Send the webhook. Returns None if the delivery was lost and nothing was sent."""
        try:
            secret = self._secret(delivery)
            body = delivery.body or await self._make_body(delivery)
        except SecretError as error:
            return Outcome(None, f"it cannot be signed: {error}", is_endpoints_fault=False)
        except NotFoundError:  # the run was deleted meanwhile, and the delivery with it
            return None
        if body is None or time.monotonic() - claimed_at > START_SECONDS:
            return None
        signed = headers(
            event_id=delivery.event_id,
            trajectory_id=delivery.trajectory_id,
            timestamp=delivery.timestamp,
            body=body,
            secret=secret,
        )
        return await send(self.client, delivery.url, body, signed)

    def _secret(self, delivery: ClaimedDelivery) -> str | None:
        """Return the secret that signs it, decrypted for this attempt alone; None if it is not signed.

        Raises:
            SecretError: The secret was deleted, or cannot be decrypted.
        """
        if delivery.secret_id is None:
            return None
        if delivery.ciphertext is None:
            raise SecretError(f"Secret {delivery.secret_id} was deleted.")
        owner = owner_of_run(delivery.trajectory_id, delivery.routine_id)
        context = SecretContext(delivery.collection_id, SECRET_KIND, "", owner, delivery.secret_id)
        return self.keyring.open(delivery.ciphertext, context)

    async def _make_body(self, delivery: ClaimedDelivery) -> bytes | None:
        """Make and store the body, the run as the API shows it, for every attempt. Returns None if it was lost."""
        async with self.pool.connection() as connection:
            body = msgspec.json.encode(await deliveries.find_event(connection, delivery))
            return body if await deliveries.keep_body(connection, delivery, body) else None

    async def _drain(self) -> None:
        """Wait a moment for requests to end, then give back the rest, which will be sent again with the same id."""
        if self._claimed:
            await asyncio.wait(self._claimed, timeout=DRAIN_SECONDS)
        left = dict(self._claimed)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if left:
            async with self.pool.connection() as connection:
                released = await deliveries.release(connection, list(left.values()))
            log.info("deliveries given back", count=released)


async def send(client: httpx.AsyncClient, url: str, body: bytes, signed: dict[str, str]) -> Outcome:
    """POST a webhook and return the outcome. Any 2xx is success; redirects are not followed and count as failures."""
    try:
        answer = await client.post(url, content=body, headers=signed)
    except ForbiddenAddressError as error:
        return Outcome(None, str(error))
    except httpx.HTTPError as error:
        return Outcome(None, _cause(error))
    except Exception as error:  # noqa: BLE001 - a URL that a library cannot handle fails like any other
        return Outcome(None, f"the URL cannot be called ({type(error).__name__})")
    if answer.is_success:
        return Outcome(answer.status_code, None)
    is_gone = answer.status_code == GONE
    return Outcome(answer.status_code, f"it answered {answer.status_code}", is_final=is_gone, is_gone=is_gone)


_CAUSES: dict[type[httpx.HTTPError], str] = {
    httpx.ConnectTimeout: "no connection in time",
    httpx.TimeoutException: f"no complete answer within {TIMEOUT_SECONDS:g} s",
    httpx.ConnectError: "no connection",
    httpx.RemoteProtocolError: "the answer is not valid HTTP, has too many headers, or was cut off",
    httpx.ReadError: "the connection was lost",
    httpx.WriteError: "the connection was lost",
}


def _cause(error: httpx.HTTPError) -> str:
    """Return the cause in our own words: the text of httpx may hold what the receiver sent."""
    return next((cause for kind, cause in _CAUSES.items() if isinstance(error, kind)), type(error).__name__)


def _metric_of(outcome: Outcome, delay: float | None) -> str:
    if outcome.error is None:
        return DELIVERED
    return GIVEN_UP if delay is None else FAILED


def _delay_seconds(delivery: ClaimedDelivery) -> float | None:
    return delay_seconds(delivery.failures + 1, jitter=random.random())  # noqa: S311 # nosec B311 - spreads load


async def run_deliveries(
    settings: Settings, database_url: str, stop: asyncio.Event, *, keyring: Keyring, metrics: WorkerMetrics
) -> None:
    """Deliver webhooks until `stop` is set."""
    client = guarded_client(allow_private=settings.webhook_allow_private, timeout_seconds=TIMEOUT_SECONDS)
    pool = open_pool(
        database_url, "routines-webhooks", size=CONNECTIONS, role="routines_worker", statement_timeout="30s"
    )
    async with client, pool as opened:
        await Deliverer(opened, stop, client, keyring, metrics=metrics).run()
