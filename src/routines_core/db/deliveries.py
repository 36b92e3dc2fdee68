"""Webhook deliveries: sql/queries/deliveries.sql called from Python."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.db.trajectories import Trajectory
from routines_core.errors import ConflictError, NotFoundError

SECRET_KIND = "webhook_secret"  # noqa: S105 # nosec B105 - what such a secret is called
"""The kind of a webhook's secret, part of its secret context."""


class ClaimedDelivery(msgspec.Struct, frozen=True):
    """A webhook that a worker has claimed.

    Attributes:
        fence: Named by every later write.
        routine_id: The routine that started the run; None if the API started it.
        event_id: The webhook-id, the same at every attempt.
        event_status: The final status that it reports.
        body: The body; None before the first attempt.
        failures: Attempts that failed before this one.
        secret_id: The secret that signs it; None if it is unsigned.
        ciphertext: The encrypted secret; None if it is unsigned or the secret was deleted.
        timestamp: When it was claimed, in Unix seconds by the database's clock.
    """

    id: int
    fence: int
    collection_id: int
    routine_id: int | None
    trajectory_id: int
    url: str
    event_id: str
    event_status: str
    body: bytes | None
    failures: int
    secret_id: UUID | None
    ciphertext: bytes | None
    timestamp: int


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of an attempt.

    Attributes:
        status: The HTTP status; None if there was no answer.
        error: Why it failed, without any of the answer's body; None if it was delivered.
        duration_seconds: How long it took.
        is_endpoints_fault: True if a failure counts against the endpoint.
        is_final: True if every further attempt would fail too.
        is_gone: True if the receiver wants no more webhooks (410): the endpoint is stopped.
    """

    status: int | None
    error: str | None
    duration_seconds: float = 0
    is_endpoints_fault: bool = True
    is_final: bool = False
    is_gone: bool = False


class Delivery(msgspec.Struct, frozen=True):
    """A webhook of a routine's run, as the API shows it.

    Attributes:
        id: The argument of `redeliver`.
        webhook_id: The header webhook-id of every attempt.
        status: The final status of the run that it reports.
        state: pending, delivered or given_up.
        attempts: The newest 50: {at, status, error, duration_seconds}.
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


class _Settled(msgspec.Struct):
    settled: int
    stopped_reason: str | None


_CLAIM = Statement("deliveries.claim", ClaimedDelivery)
_FIND_EVENT = Statement("deliveries.find_event", Trajectory)
_KEEP_BODY = Statement("deliveries.keep_body", NoRow)
_SETTLE = Statement("deliveries.settle", _Settled)
_RELEASE = Statement("deliveries.release", NoRow)
_GIVE_UP_STOPPED = Statement("deliveries.give_up_stopped", NoRow)
_LIST = Statement("deliveries.list_deliveries", Delivery)
_REDELIVER = Statement("deliveries.redeliver", NoRow)


async def claim(
    connection: Connection,
    *,
    capacity: int,
    per_host: int,
    per_collection: int,
    lease_seconds: float,
    now: datetime | None = None,
) -> list[ClaimedDelivery]:
    """Claim up to `capacity` due webhooks, each for `lease_seconds`.

    Args:
        connection: In autocommit mode: no transaction may be open while a request runs.
        capacity: The maximum number to claim.
        per_host: The maximum that all workers together may have claimed for one host of one collection.
        per_collection: The same for one collection.
        lease_seconds: After this time another worker may take them.
        now: Moves the clock in tests; None is the database's now().
    """
    return await _CLAIM.all(
        connection,
        capacity=capacity,
        per_host=per_host,
        per_collection=per_collection,
        lease_seconds=lease_seconds,
        now=now,
    )


async def find_event(connection: Connection, delivery: ClaimedDelivery) -> Trajectory:
    """Return the run that the delivery reports, with the status in which it ended.

    Raises:
        NotFoundError: The run was deleted.
    """
    found = await _FIND_EVENT.one(connection, trajectory_id=delivery.trajectory_id)
    return msgspec.structs.replace(found, status=delivery.event_status)


async def keep_body(connection: Connection, delivery: ClaimedDelivery, body: bytes) -> bool:
    """Store the body for all attempts. Returns False if the delivery no longer belongs to this worker."""
    return await _KEEP_BODY.run(connection, id=delivery.id, fence=delivery.fence, body=body) == 1


async def settle(
    connection: Connection,
    delivery: ClaimedDelivery,
    outcome: Outcome,
    *,
    delay_seconds: float | None,
    stop_after_seconds: float,
    now: datetime | None = None,
) -> tuple[bool, str | None]:
    """Record the outcome of an attempt.

    Args:
        connection: In autocommit mode.
        delivery: The claim.
        outcome: The outcome.
        delay_seconds: Delay before the next attempt after a failure; None to give up.
        stop_after_seconds: An endpoint that has failed for this long is stopped.
        now: Moves the clock in tests; None is the database's now().
    """
    row = await _SETTLE.one(
        connection,
        id=delivery.id,
        fence=delivery.fence,
        status=outcome.status,
        error=outcome.error,
        duration_seconds=outcome.duration_seconds,
        is_gone=outcome.is_gone,
        is_endpoints_fault=outcome.error is not None and outcome.is_endpoints_fault,
        delay_seconds=delay_seconds,
        stop_after_seconds=stop_after_seconds,
        now=now,
    )
    return row.settled == 1, row.stopped_reason


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
        ConflictError: The secret that signed it was deleted, and the routine names another URL by now.
    """
    asked = {"key_id": key_id, "task": task, "name": name, "id": delivery_id}
    is_due = await _REDELIVER.run(connection, **asked) == 1
    found = await _LIST.first(connection, **asked, before=None, limit=1)
    if found is None:
        raise NotFoundError
    if not is_due and found.state != "pending":
        raise ConflictError(
            "The secret that signed this webhook is gone, and the routine names another URL: it cannot be sent again."
        )
    return found
