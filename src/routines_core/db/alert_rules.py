"""Alert rules and their alerts: sql/queries/alert_rules.sql called from Python."""

from datetime import datetime
from typing import Any, Literal, NoReturn

import msgspec

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.pool import Connection
from routines_core.db.secrets import SealedSecret, as_parameters
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import ConflictError, InvalidError, NotFoundError
from routines_core.mask import MASK

State = Literal["open", "recovered", "suppressed"]
Event = Literal["late", "missed", "failed", "streak", "slow", "paused", "webhook_stopped"]
"""What opens an alert. A rule may also name `recovered`."""


class RuleSpec(msgspec.Struct, frozen=True):
    """A rule to store.

    Attributes:
        id: The id that its secret is bound to: the rule's own, or drawn for a new one.
        task: Watches only routines of this task; None for all.
        routine: Watches only this routine of the task; None for all.
        webhook_secret: The secret, encrypted; None for none.
        keeps_secret: Keep the stored secret.
        digest_at_utc: When its daily digest is sent, as HH:MM; None to tell each alert at once.
    """

    id: int
    name: str
    events: list[str]
    task: str | None
    routine: str | None
    after_seconds: int | None
    streak: int | None
    webhook_url: str
    webhook_secret: SealedSecret | None
    keeps_secret: bool
    digest_at_utc: str | None


class Rule(msgspec.Struct, frozen=True):
    """A stored rule. The attributes are as in `RuleSpec`."""

    id: int
    name: str
    events: list[str]
    after_seconds: int | None
    streak: int | None
    task: str | None
    routine: str | None
    webhook_url: str
    has_webhook_secret: bool
    digest_at_utc: str | None
    updated_at: datetime


class Alert(msgspec.Struct, frozen=True):
    """An alert.

    Attributes:
        id: alert_id in its notice.
        rule: The rule that it is of.
        event: What happened.
        task: The task; for a deleted one, its last name.
        routine: The routine; for a deleted one, its last name.
        routine_id: The routine.
        scheduled_for: The slot, and of late the first that was; None if it is about none.
        trajectory_id: The run; None if it is about none.
        detail: A sentence for people.
        state: open, recovered or suppressed.
        opened_at: When it was found.
        notice: waiting, pending, delivered, given_up, or none if it was suppressed before it was told.
        notified_at: When the receiver accepted its notice; None if it has not.
        recovered_at: When it was over; None if it is not.
        suppressed_at: When it was suppressed; None if it was not.
        suppressed_reason: Why it was suppressed, say by a pause; None if it was not.
    """

    id: int
    rule: str
    event: Event
    task: str
    routine: str
    routine_id: int
    scheduled_for: datetime | None
    trajectory_id: int | None
    detail: str
    state: State
    opened_at: datetime
    notice: Literal["waiting", "pending", "delivered", "given_up", "none"]
    notified_at: datetime | None
    recovered_at: datetime | None
    suppressed_at: datetime | None
    suppressed_reason: str | None


class _Id(msgspec.Struct):
    id: int


_DRAW_ID = Statement("alert_rules.draw_rule_id", _Id)
_CREATE = Statement("alert_rules.create_rule", _Id)
_REPLACE = Statement("alert_rules.replace_rule", _Id)
_FIND = Statement("alert_rules.find_rule", Rule)
_LIST = Statement("alert_rules.list_rules", Rule)
_DELETE = Statement("alert_rules.delete_rule", NoRow)
_ALERTS = Statement("alert_rules.list_alerts", Alert)


async def draw_rule_id(connection: Connection, *, key_id: int) -> int:
    """Return the id of a rule that is about to be created."""
    return (await _DRAW_ID.one(connection, key_id=key_id)).id


async def find_rule(connection: Connection, *, key_id: int, name: str) -> Rule | None:
    """Return the rule of this name; None if the collection has none."""
    return await _FIND.first(connection, key_id=key_id, name=name)


async def put_rule(connection: Connection, spec: RuleSpec, *, key_id: int, is_new: bool) -> None:
    """Create a rule, or replace one whole.

    Raises:
        InvalidError: The task or routine of its scope does not exist, there is no secret to keep, or the rule breaks
            another rule of the schema.
        ConflictError: A rule of this name was created or deleted at the same time.
    """
    given: dict[str, Any] = msgspec.structs.asdict(spec)
    secret = given.pop("webhook_secret")
    keeps_secret = given.pop("keeps_secret")
    given |= as_parameters([secret] if secret else []) | {"webhook_secret_id": secret.id if secret else None}
    if is_new and keeps_secret:
        await _explain(connection, spec, key_id, is_new=is_new)
    with domain_errors():
        if is_new:
            stored = await _CREATE.first(connection, key_id=key_id, **given)
        else:
            stored = await _REPLACE.first(connection, key_id=key_id, keeps_secret=keeps_secret, **given)
    if stored is None:
        await _explain(connection, spec, key_id, is_new=is_new)


async def _explain(connection: Connection, spec: RuleSpec, key_id: int, *, is_new: bool) -> NoReturn:
    """Raise an error that says why nothing was stored."""
    rule = await find_rule(connection, key_id=key_id, name=spec.name)
    if spec.keeps_secret and not (rule and rule.has_webhook_secret):
        raise InvalidError(
            f"webhook_secret: {MASK} keeps a stored value, but none is stored: send the secret itself.",
            "webhook_secret",
        )
    if spec.task is None or (rule is None and not is_new):
        raise ConflictError("The rule was changed at the same time: send the request again.")
    field = "scope.task" if spec.routine is None else "scope.routine"
    missing = f"task {spec.task}" if spec.routine is None else f"routine {spec.routine} of the task {spec.task}"
    raise InvalidError(f"{field}: the collection has no {missing}.", field)


async def list_rules(connection: Connection, *, key_id: int, limit: int, after: str | None = None) -> list[Rule]:
    """Return at most `limit` of the collection's rules by name, after the name `after`."""
    return await _LIST.all(connection, key_id=key_id, limit=limit, after=after)


async def delete_rule(connection: Connection, *, key_id: int, name: str) -> None:
    """Delete a rule. Its alerts are no longer shown; notices that are queued are still sent.

    Raises:
        NotFoundError: The collection has no such rule.
    """
    if not await _DELETE.run(connection, key_id=key_id, name=name):
        raise NotFoundError


async def list_alerts(
    connection: Connection,
    *,
    key_id: int,
    limit: int,
    before: int | None = None,
    state: State | None = None,
    event: Event | None = None,
    rule: str | None = None,
) -> list[Alert]:
    """Return at most `limit` of the collection's alerts older than `before`, newest first; None matches any."""
    return await _ALERTS.all(connection, key_id=key_id, limit=limit, before=before, state=state, event=event, rule=rule)
