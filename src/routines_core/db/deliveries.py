"""Webhooks on their way: sql/queries/deliveries.sql called from Python."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.db.trajectories import Trajectory
from routines_core.errors import ConflictError, NotFoundError

SECRET_KIND = "webhook_secret"  # noqa: S105 # nosec B105 - what such a secret is called
"""The kind under which a webhook's secret is sealed."""


class ClaimedDelivery(msgspec.Struct, frozen=True):
    """A webhook in a worker's hands.

    Attributes:
        fence: The fence: named by every later write.
        routine_id: The routine that caused the run; None: the API started it.
        event_id: The webhook-id, the same at every attempt.
        event_status: The final status that it tells of.
        body: What is sent; None: it is not made yet.
        failures: Attempts that failed before this one.
        secret_id: What signs it; None: it is not signed.
        ciphertext: The sealed secret; None: there is none, or it is gone.
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
    """How an attempt ended.

    Attributes:
        status: The HTTP status; None: there was no answer.
        error: Why it failed, without anything of the answer's body; None: it was delivered.
        duration_seconds: How long it took.
        is_endpoints_fault: Whether a failure counts against the endpoint.
        is_final: Whether it would fail again whenever it is tried.
        is_gone: Whether the receiver said that nothing shall come any more: the endpoint is stopped.
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
        id: What `redeliver` takes.
        webhook_id: The header webhook-id of every attempt.
        status: The final status of the run that it tells of.
        state: pending, delivered or given_up.
        attempts: The newest 50: {at, status, error, duration_seconds}.
        next_attempt_at: When it is tried next; None: delivered or given up.
        delivered_at: When the receiver took it, the last time; None: it has not.
        give_up_reason: Why it is not tried again; None: it was delivered, or is still due.
        endpoint_stopped_at: Since when nothing is sent to this URL; None: it is not stopped.
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
    """Take up to `capacity` webhooks that are due; each is ours for `lease_seconds`.

    Args:
        connection: In autocommit mode: no transaction may be open while a request runs.
        capacity: The most to take.
        per_host: The most that all workers together have in hand for one host of one collection.
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
    """The run that the delivery tells of, with the status in which it ended.

    Raises:
        NotFoundError: Its task is gone.
    """
    found = await _FIND_EVENT.one(connection, trajectory_id=delivery.trajectory_id)
    return msgspec.structs.replace(found, status=delivery.event_status)


async def keep_body(connection: Connection, delivery: ClaimedDelivery, body: bytes) -> bool:
    """Keep what is sent, for every attempt; False: the delivery is no longer ours."""
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
    """Record how an attempt ended: whether the delivery was still ours, and why its endpoint was stopped, if it was.

    Args:
        connection: In autocommit mode.
        delivery: The claim.
        outcome: How it ended.
        delay_seconds: When to try again after a failure; None: give up.
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
    """Give deliveries back, due at once: how many were still ours."""
    return await _RELEASE.run(connection, ids=[each.id for each in held], fences=[each.fence for each in held])


async def give_up_stopped(connection: Connection, *, batch_size: int, now: datetime | None = None) -> int:
    """Give up what is due at endpoints that were stopped: how many there were, at most `batch_size`."""
    return await _GIVE_UP_STOPPED.run(connection, batch_size=batch_size, now=now)


async def list_deliveries(
    connection: Connection, *, key_id: int, task: str, name: str, limit: int, before: int | None = None
) -> list[Delivery]:
    """A routine's webhooks, newest first, those older than `before`; none where there is no such routine."""
    return await _LIST.all(connection, key_id=key_id, task=task, name=name, id=None, before=before, limit=limit)


async def redeliver(connection: Connection, *, key_id: int, task: str, name: str, delivery_id: int) -> Delivery:
    """Send a webhook again, at once and from the start of its schedule; one that is in hand is left as it is.

    Raises:
        NotFoundError: There is none of this id of this routine.
        ConflictError: The secret that signed it is gone, and the routine names another URL by now.
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
