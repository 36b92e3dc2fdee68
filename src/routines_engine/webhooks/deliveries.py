"""Delivers webhooks alongside the runs, on separate database connections, so that a hanging receiver delays no run."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import structlog
from msgspec.structs import replace

from routines_core import tracing
from routines_core.bulkhead import Bulkhead
from routines_core.db import Pool, deliveries, open_pool
from routines_core.db.deliveries import SECRET_KIND, ClaimedDelivery, Outcome, Settled, Settlement
from routines_core.diagnosis import diagnose, is_own_trouble
from routines_core.errors import ForbiddenAddressError, SecretError
from routines_core.fair_gate import FairGate
from routines_core.guarded_http import guarded_client
from routines_core.kept_answer import kept_answer
from routines_core.keyring import Keyring, SecretContext, owner_of_rule, owner_of_run
from routines_core.lifecycle import sleep_or_stop
from routines_core.logging import describe
from routines_core.settings import Settings
from routines_core.signatures import headers
from routines_core.tracing import Span
from routines_engine.metrics import DELIVERED, FAILED, GIVEN_UP, LOST, WorkerMetrics
from routines_engine.steps.masking import Masker
from routines_engine.webhooks.retry_schedule import MOST_ATTEMPTS, delay_seconds

TIMEOUT_SECONDS = 15.0
"""Time limit from the start of a request to the end of its response."""
LEASE_SECONDS = 60.0
"""How long until a delivery is taken from a worker that does not settle it."""
START_SECONDS = 30.0
"""How long after its claim a request may still begin, so that it ends well within the lease."""
LOAD_SECONDS = 5.0
"""Timeout of the statement that loads the bodies of one collection's claimed webhooks, or one of them."""
MOST_TOGETHER = 64 * 1024
"""A run or body that takes more bytes is loaded by a separate statement."""
MOST_MASKED = 1000
"""How long a signing secret may be for the body of a response to be kept, in characters: it has to be masked there."""
GONE = 410
"""The HTTP status of a receiver that wants no more webhooks."""
POLL_SECONDS = 0.5
"""How often to poll for due deliveries and for deliveries to stopped endpoints."""
GATHER_SECONDS = 0.02
"""The longest wait for half of the requests to end, before the worker records them together and claims again."""
DRAIN_SECONDS = 1.5
"""At shutdown: time for running requests to end."""
STOP_AFTER_SECONDS = 4 * 86400.0
"""An endpoint that has failed for this long is stopped."""
PREPARING = 3
"""How many statements load bodies at once; one place is reserved for a collection that has none."""
CONNECTIONS = 1
"""Connections that claim and record. None is held while a request runs."""
SWEEP = 1000
"""Maximum number of deliveries to stopped endpoints that one statement gives up."""

log = structlog.get_logger("webhooks")


@dataclass
class Deliverer:
    """Delivers due webhooks; any number of deliverers may run against one database.

    Claims and outcomes go to the database in batches. Bodies are loaded collection by collection, so that a run that is
    expensive to load delays no other collection.

    Attributes:
        pool: Connections to the database that claim and record.
        loading: Connections that load bodies, with a statement timeout of their own.
        stop: Set from outside: it claims nothing more and gives back its deliveries.
        client: Sends requests; it checks addresses and limits time and response size.
        keyring: Decrypts the secrets.
        capacity: The most requests at once.
        reserve: How much of the capacity is kept for collections that hold little of it.
        per_host: The most at once to one host of one collection, across all workers.
        per_collection: The most at once for one collection, across all workers.
        metrics: Counts the attempts.
    """

    pool: Pool
    loading: Pool
    stop: asyncio.Event
    client: httpx.AsyncClient
    keyring: Keyring
    capacity: int = 96
    reserve: int = 32
    per_host: int = 8
    per_collection: int = 64
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    _claimed: dict[int, ClaimedDelivery] = field(default_factory=dict[int, ClaimedDelivery], init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set["asyncio.Task[None]"], init=False)
    _ended: list[Settlement] = field(default_factory=list[Settlement], init=False)
    _has_ended: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _half_has_ended: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _preparing: FairGate = field(default_factory=lambda: FairGate(PREPARING, reserve=1), init=False)
    _swept_at: float = field(default=-POLL_SECONDS, init=False)

    async def run(self) -> None:
        """Deliver until `stop` is set, across database outages, then give back the claimed deliveries."""
        bulkhead = Bulkhead("deliveries", self.metrics.loop_failed)
        while not self.stop.is_set():
            try:
                await self._record()
                await self._begin()
                await self._sweep()
            except Exception as error:  # noqa: BLE001 - runs go on, whatever is wrong with webhooks
                if diagnose(error).kind == "away":
                    self.metrics.database_failures.inc()
                await sleep_or_stop(self.stop, bulkhead.failed(error))
            else:
                bulkhead.worked()
                await self._wait()
        try:
            await self._drain()
        except Exception as error:  # noqa: BLE001 - as above; what was not recorded is sent again
            log.warning("deliveries not given back, their leases will expire", **describe(error))

    async def _begin(self) -> None:
        """Claim due deliveries for the free capacity, and begin to prepare them."""
        free = self.capacity - len(self._claimed)
        if not free:
            return
        async with self.pool.connection() as connection:
            claimed_at = time.monotonic()
            claimed = await deliveries.claim(
                connection,
                capacity=free,
                reserve=self.reserve,
                per_host=self.per_host,
                per_collection=self.per_collection,
                lease_seconds=LEASE_SECONDS,
                most_attempts=MOST_ATTEMPTS,
                is_traced=tracing.tracer() is not None,
            )
        self._claimed.update((each.id, each) for each in claimed)
        for some in _by_collection(claimed):
            self._start(self._prepare(some, claimed_at))

    async def _sweep(self) -> None:
        """Now and then, give up what is due to stopped endpoints. The claim leaves it alone."""
        if time.monotonic() - self._swept_at < POLL_SECONDS:
            return
        async with self.pool.connection() as connection:
            await deliveries.give_up_stopped(connection, batch_size=SWEEP)
        self._swept_at = time.monotonic()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget(self, some: Iterable[ClaimedDelivery]) -> None:
        """Free the capacity of deliveries that no longer belong to this worker."""
        for each in some:
            self._claimed.pop(each.id, None)

    async def _wait(self) -> None:
        """Wait until a request ends, or until it is time to look for due deliveries."""
        if not self._has_ended.is_set():
            stopped = asyncio.ensure_future(self.stop.wait())
            ended = asyncio.ensure_future(self._has_ended.wait())
            await asyncio.wait({stopped, ended}, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            ended.cancel()
        if self._has_ended.is_set():
            await sleep_or_stop(self._half_has_ended, GATHER_SECONDS)

    async def _prepare(self, some: Sequence[ClaimedDelivery], claimed_at: float) -> None:
        """Load the bodies of one collection's deliveries, and begin to send each."""
        try:
            bodies = await self._bodies(some, MOST_TOGETHER)
        except Exception as error:  # noqa: BLE001 - if one of them breaks the statement, the others get another chance
            if _is_away(error):
                self._leave(some, error)
                return
            bodies = dict[int, bytes | None].fromkeys(each.id for each in some)
        large = [each for each in some if not self._begin_to_send(each, bodies, claimed_at)]
        for each in large:
            await self._prepare_alone(each, claimed_at)

    async def _prepare_alone(self, delivery: ClaimedDelivery, claimed_at: float) -> None:
        """Load the body of a delivery by itself, and begin to send it. If that fails, so has this attempt."""
        if time.monotonic() - claimed_at > START_SECONDS:
            self._fail(delivery, "it was not sent in time: other webhooks of the collection took too long to load")
            return
        try:
            bodies = await self._bodies([delivery], None)
        except Exception as error:  # noqa: BLE001 - as above
            if _is_away(error):
                self._leave([delivery], error)
            else:
                self._fail(delivery, f"its run could not be loaded ({type(error).__name__})")
            return
        if not self._begin_to_send(delivery, bodies, claimed_at):
            self._fail(delivery, "its run could not be loaded")

    def _begin_to_send(self, delivery: ClaimedDelivery, bodies: Mapping[int, bytes | None], claimed_at: float) -> bool:
        """Begin to send a delivery whose body is loaded. Returns False if it is not loaded yet."""
        if delivery.id not in bodies:
            self._lose(delivery)
            return True
        body = bodies[delivery.id]
        if body is not None:
            self._start(self._deliver(delivery, body, claimed_at))
        return body is not None

    async def _bodies(self, some: Sequence[ClaimedDelivery], most_together: int | None) -> dict[int, bytes | None]:
        async with self._preparing.place(some[0].collection_id), self.loading.connection() as connection:
            return await deliveries.prepare(connection, some, most_together=most_together)

    async def _deliver(self, delivery: ClaimedDelivery, body: bytes, claimed_at: float) -> None:
        """Make one attempt, holding no connection, and leave its outcome to be recorded."""
        started_at = time.monotonic()
        if started_at - claimed_at > START_SECONDS:
            self._fail(delivery, "it was not sent in time, since the worker was too busy")
            return
        try:
            outcome = await self._attempt(delivery, body)
        except Exception as error:  # noqa: BLE001 - an unexpected error is a failed attempt, too
            if is_own_trouble(error):
                self._leave([delivery], error)
                return
            outcome = Outcome(None, f"it could not be sent ({type(error).__name__})", is_endpoints_fault=False)
        self._end(delivery, replace(outcome, duration_seconds=round(time.monotonic() - started_at, 3)))

    async def _attempt(self, delivery: ClaimedDelivery, body: bytes) -> Outcome:
        """Sign the webhook and send it."""
        try:
            secret = self._secret(delivery)
        except SecretError as error:
            return Outcome(None, f"it cannot be signed: {error}", is_endpoints_fault=False)
        signed = headers(
            event_id=delivery.event_id,
            trajectory_id=delivery.trajectory_id,
            timestamp=delivery.timestamp,
            body=body,
            secret=secret,
        )
        span = _begin_span(delivery)
        if span is None:
            return await send(self.client, delivery.url, body, signed, secret)
        traced = {**signed, "traceparent": span.ref.traceparent}
        outcome = await send(self.client, delivery.url, body, traced, secret)
        _end_span(span, delivery, outcome)
        return outcome

    def _secret(self, delivery: ClaimedDelivery) -> str | None:
        """Return the secret that signs it, decrypted for this attempt only; None if it is not signed.

        Raises:
            SecretError: The secret was deleted, or cannot be decrypted.
        """
        if delivery.secret_id is None:
            return None
        if delivery.ciphertext is None:
            raise SecretError(f"Secret {delivery.secret_id} was deleted.")
        context = SecretContext(delivery.collection_id, SECRET_KIND, "", _owner(delivery), delivery.secret_id)
        return self.keyring.open(delivery.ciphertext, context)

    def _fail(self, delivery: ClaimedDelivery, reason: str) -> None:
        """Fail this attempt for a reason on our side."""
        self._end(delivery, Outcome(None, reason, is_endpoints_fault=False))

    def _end(self, delivery: ClaimedDelivery, outcome: Outcome) -> None:
        """Leave the outcome of an attempt to be recorded. Until then it takes capacity."""
        delay = None if outcome.is_final else _delay_seconds(delivery)
        self._ended.append(Settlement(delivery, outcome, delay))
        self._has_ended.set()
        if 2 * len(self._ended) >= len(self._claimed):
            self._half_has_ended.set()

    def _lose(self, delivery: ClaimedDelivery) -> None:
        """Drop a delivery that now belongs to another worker, or was deleted with its run."""
        self.metrics.attempted(LOST, None)
        log.warning("delivery lost", delivery_id=delivery.id)
        self._forget([delivery])

    def _leave(self, some: Sequence[ClaimedDelivery], error: Exception) -> None:
        """Drop deliveries because of trouble that is not theirs; they are due again when their lease expires."""
        log.warning("deliveries left", delivery_ids=[each.id for each in some], **describe(error))
        self._forget(some)

    async def _record(self) -> None:
        """Record the outcomes of the attempts that have ended. They are kept while the database is away."""
        some = self._ended.copy()
        if not some:
            return
        try:
            ours = await self._settle(some)
        except Exception as error:
            if _is_away(error):
                raise
            for each in some:  # one of them cannot be recorded, or another worker interfered
                await self._record_alone(each)
        else:
            self._report(some, ours)

    async def _record_alone(self, settlement: Settlement) -> None:
        try:
            ours = await self._settle([settlement])
        except Exception as error:
            if _is_away(error):
                raise
            del self._ended[0]
            self._leave([settlement.delivery], error)
        else:
            self._report([settlement], ours)

    async def _settle(self, some: Sequence[Settlement]) -> dict[int, Settled]:
        """Store the first outcomes of `_ended` and forget them; return what was stored, by delivery id."""
        async with self.pool.connection() as connection:
            settled = await deliveries.settle(connection, some, stop_after_seconds=STOP_AFTER_SECONDS)
        del self._ended[: len(some)]
        if not self._ended:
            self._has_ended.clear()
        self._half_has_ended.clear()
        self._forget([each.delivery for each in some])
        return {each.id: each for each in settled}

    def _report(self, some: Sequence[Settlement], ours: Mapping[int, Settled]) -> None:
        """Count and log attempts."""
        for each in some:
            self._report_one(each, ours.get(each.delivery.id))

    def _report_one(self, settlement: Settlement, settled: Settled | None) -> None:
        """Count and log an attempt; `settled` is None if the delivery belonged to another worker by then."""
        delivery, outcome = settlement.delivery, settlement.outcome
        name = _metric_of(outcome, settlement.delay_seconds) if settled else LOST
        self.metrics.attempted(name, outcome.duration_seconds)
        log.info(
            "delivery attempted",
            delivery_id=delivery.id,
            trajectory_id=delivery.trajectory_id,
            routine_id=delivery.routine_id,
            rule_id=delivery.rule_id,
            status=outcome.status,
            error=outcome.error,
            ours=settled is not None,
        )
        if settled and settled.stopped_reason:
            log.warning("endpoint stopped", delivery_id=delivery.id, reason=settled.stopped_reason)

    async def _drain(self) -> None:
        """Wait a moment for requests to end, then give back the rest, which will be sent again with the same id."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._record()
        if self._claimed:
            async with self.pool.connection() as connection:
                released = await deliveries.release(connection, list(self._claimed.values()))
            log.info("deliveries given back", count=released)


def _owner(delivery: ClaimedDelivery) -> str:
    """Return the owner of the secret that signs the webhook."""
    if delivery.trajectory_id is None:
        return owner_of_rule(delivery.rule_id or 0)
    return owner_of_run(delivery.trajectory_id, delivery.routine_id)


def _begin_span(delivery: ClaimedDelivery) -> Span | None:
    """Begin the span of an attempt in the trace of its run; None if nothing is traced."""
    tracer = tracing.tracer()
    if tracer is None or delivery.run_id is None:
        return None
    run = tracing.begin_run(tracer, delivery.run_id, tracing.parse_traceparent(delivery.traceparent))
    return tracer.begin("webhook", "client", parent=run.ref)


def _end_span(span: Span, delivery: ClaimedDelivery, outcome: Outcome) -> None:
    """Record the span of an attempt, without the URL, which may hold a secret."""
    attributes: dict[str, str | int] = {
        "http.request.method": "POST",
        "routines.trajectory_id": delivery.trajectory_id or 0,
        "routines.delivery_id": delivery.id,
        "routines.attempt": delivery.failures + 1,
    }
    if outcome.status is not None:
        attributes["http.response.status_code"] = outcome.status
    span.end(attributes, is_failure=outcome.error is not None)


def _by_collection(claimed: Iterable[ClaimedDelivery]) -> Iterable[list[ClaimedDelivery]]:
    found: defaultdict[int, list[ClaimedDelivery]] = defaultdict(list)
    for each in claimed:
        found[each.collection_id].append(each)
    return found.values()


def _is_away(error: Exception) -> bool:
    """Return True if the database is away or refuses whatever it is asked, False if only this statement failed."""
    return diagnose(error).is_of_the_server


async def send(
    client: httpx.AsyncClient, url: str, body: bytes, signed: dict[str, str], secret: str | None = None
) -> Outcome:
    """POST a webhook and return the outcome. Any 2xx is success; redirects are not followed and count as failures.

    Args:
        client: A guarded client.
        url: The URL.
        body: The body.
        signed: The headers.
        secret: The secret that signed it, which is masked in what is kept of a response; None if it is unsigned.

    Raises:
        Exception: This process has no file descriptor left for the connection, which says nothing about the receiver.
    """
    try:
        answer = await client.post(url, content=body, headers=signed)
    except ForbiddenAddressError as error:
        return Outcome(None, str(error))
    except Exception as error:
        if is_own_trouble(error):
            raise
        if isinstance(error, httpx.HTTPError):
            return Outcome(None, _cause(error))
        # A URL that a library cannot handle fails like any other.
        return Outcome(None, f"the URL cannot be called ({type(error).__name__})")
    if answer.is_success:
        return Outcome(answer.status_code, None)
    is_gone = answer.status_code == GONE
    kept = _kept(answer, secret)
    return Outcome(
        answer.status_code, f"it answered {answer.status_code}", is_final=is_gone, is_gone=is_gone, answer=kept
    )


def _kept(answer: httpx.Response, secret: str | None) -> dict[str, Any]:
    """Return what is kept of a response. Looking for a very long secret would hold up this process, and its leases."""
    if secret and len(secret) > MOST_MASKED:
        return {"status": answer.status_code, "headers": {}, "body": "", "truncated": True}
    masker = Masker()
    if secret:
        masker.add(secret)
    return kept_answer(answer, masker.mask)


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
    async with client, open_pools(database_url, "routines-webhooks", role="routines_worker") as (pool, loading):
        await Deliverer(pool, loading, stop, client, keyring, metrics=metrics).run()


@asynccontextmanager
async def open_pools(
    database_url: str, program: str, *, role: str | None = None, load_seconds: float = LOAD_SECONDS
) -> AsyncGenerator[tuple[Pool, Pool]]:
    """Open a deliverer's connections: those that claim and record, and those that load bodies.

    Args:
        database_url: The `DATABASE_URL`.
        program: Its name in pg_stat_activity.
        role: The role of Postgres to switch to, if this login may; None to keep the login's own.
        load_seconds: The statement timeout of those that load bodies.
    """
    loads = f"{round(1000 * load_seconds)}ms"
    async with (
        open_pool(database_url, program, size=CONNECTIONS, role=role, statement_timeout="30s") as pool,
        open_pool(database_url, program, size=PREPARING, role=role, statement_timeout=loads) as loading,
    ):
        yield pool, loading
