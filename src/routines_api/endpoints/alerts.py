"""The endpoints of alerts: the rules by which a collection wants to be told, and what they found."""

from typing import Annotated

from litestar import Response, delete, get, put
from litestar.params import Parameter

from routines_api.http.access import Caller
from routines_api.http.limit_gate import ALERT_RULES
from routines_api.http.pagination import Cursor, decode_cursor, next_link, page
from routines_api.http.sealing import Sealer, refuse_forbidden_webhook
from routines_api.openapi.description import operation
from routines_api.schemas.alerts import AlertRulePut, AlertRuleRead, rule_read
from routines_core.db import alert_rules as db
from routines_core.db.alert_rules import Alert, Event, Rule, RuleSpec, State
from routines_core.errors import NotFoundError
from routines_core.keyring import owner_of_rule
from routines_core.mask import MASK

RuleLimit = Annotated[int, Parameter(ge=1, le=1000, description="Maximum number of rules on a page.")]
AlertLimit = Annotated[int, Parameter(ge=1, le=1000, description="Maximum number of alerts on a page.")]
# `state` is a name of the framework's.
StateFilter = Annotated[State | None, Parameter(query="state", description="Only alerts in this state.")]
EventFilter = Annotated[Event | None, Parameter(description="Only alerts of this event.")]
RuleFilter = Annotated[str | None, Parameter(max_length=100, description="Only alerts of this rule.")]


@get("/alert-rules/{collection:str}", tags=["Alerts"], **operation("listAlertRules"))
async def list_rules(
    caller: Caller, *, limit: RuleLimit = 1000, cursor: Cursor = None
) -> Response[list[AlertRuleRead]]:
    """List the alert rules of a collection.

    Sorted by name.
    """
    after = decode_cursor(cursor, str)
    found = await db.list_rules(caller.connection, key_id=caller.key_id, limit=limit + 1, after=after)
    return page(caller.request, found, limit, key=lambda rule: rule.name, show=rule_read)


@get("/alert-rules/{collection:str}/{rule:str}", tags=["Alerts"], **operation("getAlertRule"))
async def get_rule(rule: str, caller: Caller) -> AlertRuleRead:
    """Get an alert rule."""
    return rule_read(await _find(caller, rule))


@put(
    "/alert-rules/{collection:str}/{rule:str}",
    tags=["Alerts"],
    **operation("putAlertRule", body=AlertRulePut, conflict=True),
)
async def put_rule(rule: str, caller: Caller) -> AlertRuleRead:
    """Create or replace an alert rule.

    It watches from now on: what happened before opens no alert. Open alerts that the changed rule no longer watches are
    suppressed.
    """
    body = await caller.body(AlertRulePut)
    refuse_forbidden_webhook(caller, body.webhook_url)
    found = await db.find_rule(caller.connection, key_id=caller.key_id, name=rule)
    if found is None and (refusal := await caller.services.limits.ask(caller.connection, caller.auth, ALERT_RULES)):
        raise refusal
    rule_id = found.id if found else await db.draw_rule_id(caller.connection, key_id=caller.key_id)
    spec = _spec(caller, body, rule, rule_id)
    await db.put_rule(caller.connection, spec, key_id=caller.key_id, is_new=found is None)
    return rule_read(await _find(caller, rule))


@delete("/alert-rules/{collection:str}/{rule:str}", tags=["Alerts"], **operation("deleteAlertRule"))
async def delete_rule(rule: str, caller: Caller) -> None:
    """Delete an alert rule.

    Its alerts are no longer listed. Notices that are queued are still sent.
    """
    await db.delete_rule(caller.connection, key_id=caller.key_id, name=rule)


@get("/alerts/{collection:str}", tags=["Alerts"], **operation("listAlerts"))
async def list_alerts(
    caller: Caller,
    *,
    in_state: StateFilter = None,
    event: EventFilter = None,
    rule: RuleFilter = None,
    limit: AlertLimit = 100,
    cursor: Cursor = None,
) -> Response[list[Alert]]:
    """List the alerts of a collection.

    Newest first, open and past ones, each with what became of it and of its notice.
    """
    before = decode_cursor(cursor, int)
    found = await db.list_alerts(
        caller.connection,
        key_id=caller.key_id,
        limit=limit + 1,
        before=before,
        state=in_state,
        event=event,
        rule=rule,
    )
    headers: dict[str, str] = {}
    if len(found) > limit:
        headers["Link"] = next_link(caller.request, limit, found[limit - 1].id, state=in_state, event=event, rule=rule)
    return Response(found[:limit], headers=headers)


async def _find(caller: Caller, name: str) -> Rule:
    rule = await db.find_rule(caller.connection, key_id=caller.key_id, name=name)
    if rule is None:
        raise NotFoundError
    return rule


def _spec(caller: Caller, body: AlertRulePut, name: str, rule_id: int) -> RuleSpec:
    """Return the rule to store, with its secret encrypted for the caller's collection and the rule's id."""
    keeps_secret = body.webhook_secret == MASK
    sealer = Sealer(caller, owner_of_rule(rule_id))
    return RuleSpec(
        id=rule_id,
        name=name,
        events=list(body.on),
        task=body.scope.task,
        routine=body.scope.routine,
        after_seconds=body.after_seconds,
        streak=body.stored_streak(),
        webhook_url=body.webhook_url,
        webhook_secret=None if keeps_secret else sealer.webhook_secret(body.webhook_secret),
        keeps_secret=keeps_secret,
        digest_at_utc=body.stored_digest(),
    )


HANDLERS = [list_rules, get_rule, put_rule, delete_rule, list_alerts]
