"""Webhook deliveries: sql/queries/deliveries.sql called from Python."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import ConflictError, NotFoundError

SECRET_KIND = "webhook_secret"  # noqa: S105 # nosec B105 - the name of such a secret
"""The kind of a webhook's secret, part of its secret context."""
MAX_BODY_BYTES = 1024 * 1024
"""Maximum size of a webhook's body, in bytes. Values that do not fit are left out, and the body says so."""
MAX_VALUE_BYTES = 256 * 1024
"""Maximum size of one value in a body: the inputs or outputs of a step, init_params, step_configs or labels."""
MOST_LANES = 128
"""How many receivers of a collection one claim considers, starting at a random one."""


class ClaimedDelivery(msgspec.Struct, frozen=True):
    """A webhook that a worker has claimed.

    Attributes:
        fence: Named by every later write.
        routine_id: The routine that started the run; None if the API started it, and for a notice of alerts.
        rule_id: Of a notice: the alert rule; None for the webhook of a run.
        trajectory_id: The run; None for a notice.
        event_id: The webhook-id, the same at every attempt.
        failures: Attempts that failed before this one.
        secret_id: The secret that signs it; None if it is unsigned.
        ciphertext: The encrypted secret; None if it is unsigned or the secret was deleted.
        timestamp: When it was claimed, in Unix seconds by the database's clock.
        run_id: The run's; None if nothing is traced.
        traceparent: The span that started the run, unless it was a tick; None if that was not traced.
    """

    id: int
    fence: int
    collection_id: int
    routine_id: int | None
    rule_id: int | None
    trajectory_id: int | None
    url: str
    event_id: str
    failures: int
    secret_id: UUID | None
    ciphertext: bytes | None
    timestamp: int
    run_id: str | None = None
    traceparent: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of an attempt.

    Attributes:
        status: The HTTP status; None if there was no answer.
        error: Why it failed, in our own words; None if it was delivered.
        duration_seconds: How long it took.
        is_endpoints_fault: True if a failure counts against the endpoint.
        is_final: True if every further attempt would fail too.
        is_gone: True if the receiver wants no more webhooks (410): the endpoint is stopped.
        answer: What is kept of the response if it failed: see `kept_answer`; None if there was none.
    """

    status: int | None
    error: str | None
    duration_seconds: float = 0
    is_endpoints_fault: bool = True
    is_final: bool = False
    is_gone: bool = False
    answer: dict[str, Any] | None = None


class Delivery(msgspec.Struct, frozen=True):
    """A webhook of a routine's run, as the API shows it.

    Attributes:
        id: The argument of `redeliver`.
        webhook_id: The header webhook-id of every attempt.
        status: The final status of the run that it reports.
        state: pending, delivered or given_up.
        attempts: The newest 50: {at, status, error, duration_seconds}, and what was answered to the newest three of
            these, if they failed: {status, headers, body, truncated}, as `answer`.
        next_attempt_at: When it is tried next; None once delivered or given up.
        delivered_at: When the receiver last accepted it; None if it has not.
        give_up_reason: Why it is not tried again; None if delivered or still due.
        endpoint_stopped_at: When sending to this URL was stopped; None if it was not.
    """

    id: int
    webhook_id: str
    trajectory_id: int
    url: str
    status: str
    state: Literal["pending", "delivered", "given_up"]
    attempts: list[dict[str, Any]]
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    give_up_reason: str | None
    created_at: datetime
    endpoint_stopped_at: datetime | None
    endpoint_stopped_reason: str | None


class Settlement(msgspec.Struct, frozen=True):
    """The outcome of an attempt, to be recorded.

    Attributes:
        delay_seconds: Delay before the next attempt after a failure; None to give up.
    """

    delivery: ClaimedDelivery
    outcome: Outcome
    delay_seconds: float | None


class Settled(msgspec.Struct, frozen=True):
    """A delivery whose outcome was recorded.

    Attributes:
        stopped_reason: Why its endpoint was stopped by this outcome; None if it was not.
    """

    id: int
    stopped_reason: str | None


class _Body(msgspec.Struct):
    id: int
    body: bytes | None


_CLAIM = Statement("deliveries.claim", ClaimedDelivery)
_PREPARE = Statement("deliveries.prepare", _Body)
_SETTLE = Statement("deliveries.settle", Settled)
_RELEASE = Statement("deliveries.release", NoRow)
_GIVE_UP_STOPPED = Statement("deliveries.give_up_stopped", NoRow)
_LIST = Statement("deliveries.list_deliveries", Delivery)
_REDELIVER = Statement("deliveries.redeliver", NoRow)


async def claim(
    connection: Connection,
    *,
    capacity: int,
    reserve: int,
    per_host: int,
    per_collection: int,
    lease_seconds: float,
    most_attempts: int,
    is_traced: bool = False,
    now: datetime | None = None,
) -> list[ClaimedDelivery]:
    """Claim up to `capacity` due webhooks, each for `lease_seconds`.

    Args:
        connection: In autocommit mode: no transaction may be open while a request runs.
        capacity: The maximum number to claim.
        reserve: How much of the capacity must stay free for others after a collection's claim of more than `per_host`
            webhooks, and proportionally less for fewer. The first of a collection may take the last place.
        per_host: The maximum that all workers together may have claimed for one host of one collection.
        per_collection: The same for one collection.
        lease_seconds: After this time another worker may take them.
        most_attempts: After this many failures a webhook whose worker was lost is given up.
        is_traced: Whether to read what the trace of an attempt needs.
        now: Moves the clock in tests; None is the database's now().
    """
    return await _CLAIM.all(
        connection,
        capacity=capacity,
        reserve=reserve,
        per_host=per_host,
        per_collection=per_collection,
        lease_seconds=lease_seconds,
        most_lanes=MOST_LANES,
        most_failures=most_attempts,
        is_traced=is_traced,
        now=now,
    )


async def prepare(
    connection: Connection, claimed: Sequence[ClaimedDelivery], *, most_together: int | None
) -> dict[int, bytes | None]:
    """Return the bodies of claimed webhooks by delivery id, building and storing those that have none yet.

    Every attempt sends the body that the first one stored. It takes at most MAX_BODY_BYTES.

    Args:
        connection: In autocommit mode, with a statement timeout that a very expensive run may reach.
        claimed: The claims. A delivery that no longer belongs to this worker is missing from the result.
        most_together: A body that takes more bytes than this, or whose run does, is None; None to build it regardless.
    """
    rows = await _PREPARE.all(
        connection,
        ids=[each.id for each in claimed],
        fences=[each.fence for each in claimed],
        most_value_bytes=MAX_VALUE_BYTES,
        most_bytes=MAX_BODY_BYTES,
        most_together=most_together,
    )
    return {row.id: row.body for row in rows}


async def settle(
    connection: Connection,
    settlements: Sequence[Settlement],
    *,
    stop_after_seconds: float,
    now: datetime | None = None,
) -> list[Settled]:
    """Record the outcomes of attempts. Returns the deliveries that still belonged to this worker.

    Args:
        connection: In autocommit mode.
        settlements: The outcomes.
        stop_after_seconds: An endpoint that has failed for this long is stopped.
        now: Moves the clock in tests; None is the database's now().
    """
    outcomes = [each.outcome for each in settlements]
    return await _SETTLE.all(
        connection,
        ids=[each.delivery.id for each in settlements],
        fences=[each.delivery.fence for each in settlements],
        statuses=[each.status for each in outcomes],
        errors=[each.error for each in outcomes],
        durations=[each.duration_seconds for each in outcomes],
        delays=[each.delay_seconds for each in settlements],
        are_gone=[each.is_gone for each in outcomes],
        are_endpoints_faults=[each.error is not None and each.is_endpoints_fault for each in outcomes],
        answers=[None if each.answer is None else msgspec.json.encode(each.answer).decode() for each in outcomes],
        stop_after_seconds=stop_after_seconds,
        now=now,
    )


async def release(connection: Connection, held: list[ClaimedDelivery]) -> int:
    """Release deliveries, which are then due at once. Returns how many still belonged to this worker."""
    return await _RELEASE.run(connection, ids=[each.id for each in held], fences=[each.fence for each in held])


async def give_up_stopped(connection: Connection, *, batch_size: int, now: datetime | None = None) -> int:
    """Give up due deliveries to stopped endpoints. Returns their number, at most `batch_size`."""
    return await _GIVE_UP_STOPPED.run(connection, batch_size=batch_size, now=now)


async def list_deliveries(
    connection: Connection, *, key_id: int, task: str, name: str, limit: int, before: int | None = None
) -> list[Delivery]:
    """Return a routine's webhooks older than `before`, newest first; an empty list if the routine does not exist."""
    return await _LIST.all(connection, key_id=key_id, task=task, name=name, id=None, before=before, limit=limit)


async def redeliver(connection: Connection, *, key_id: int, task: str, name: str, delivery_id: int) -> Delivery:
    """Make a webhook due at once, from the start of its retry schedule. A claimed one is left alone.

    Raises:
        NotFoundError: The routine has no webhook of this id.
        ConflictError: The secret that signed it was deleted, and the routine now names another URL.
    """
    asked = {"key_id": key_id, "task": task, "name": name, "id": delivery_id}
    is_due = await _REDELIVER.run(connection, **asked) == 1
    found = await _LIST.first(connection, **asked, before=None, limit=1)
    if found is None:
        raise NotFoundError
    if not is_due and found.state != "pending":
        raise ConflictError(
            "The secret that signed this webhook was deleted, and the routine now names another URL: "
            "it cannot be sent again."
        )
    return found
