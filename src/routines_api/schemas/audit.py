"""The shapes of the audit, and what of a revision is sent to restore it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_core.db.audit import Change
from routines_core.db.routines import Routine
from routines_core.mask import MASK

UNSET_FIELDS: Mapping[str, Any] = {
    "init_params_overrides": {},
    "webhook_url": None,
    "catchup_window_seconds": None,
    "starts_at": None,
    "ends_at": None,
    "spread_seconds": None,
    "calendar": None,
    "active_hours": None,
    "init_params_from_slot": None,
    "timeout_seconds": None,
    "retry": None,
    "pause_after_failures": None,
}
"""Fields of a routine, with the value that stands for "not set". A revision leaves out fields that are not set."""


class ChangeRead(msgspec.Struct, omit_defaults=True):
    """A change of the collection, with what was before and after."""

    id: Annotated[int, Meta(description="The entry of the audit.", examples=[512])]
    at: Annotated[datetime, Meta(description="When it was changed.", examples=["2026-05-04T09:00:00.25Z"])]
    actor: Annotated[
        str,
        Meta(
            description="Who changed it: a key, as key 7; the operator, by HTTP; the scheduler; or a login of the "
            "database, as login alice.",
            examples=["key 7"],
        ),
    ]
    kind: Annotated[
        str,
        Meta(
            description="What was changed: routine, task, key, limit, calendar, feed, rule or environment.",
            examples=["routine"],
        ),
    ]
    action: Annotated[str, Meta(description="created, changed or deleted.", examples=["changed"])]
    before: Annotated[
        dict[str, Any], Meta(description="The fields that changed, as they were. A field that is missing was not set.")
    ]
    after: Annotated[
        dict[str, Any],
        Meta(description="The same fields as they are since. A secret reads as ********, or as changed."),
    ]
    task_name: Annotated[
        str | msgspec.UnsetType, Meta(description="The task of the routine; absent for other kinds.")
    ] = msgspec.UNSET
    name: Annotated[
        str | msgspec.UnsetType,
        Meta(description="What it was called then; the id of a key or a feed; absent for the environment."),
    ] = msgspec.UNSET
    routine_id: Annotated[int | msgspec.UnsetType, Meta(description="The routine; absent for other kinds.")] = (
        msgspec.UNSET
    )
    revision: Annotated[
        int | msgspec.UnsetType,
        Meta(description="The number of this change of the routine, from 1, its creation; absent for other kinds."),
    ] = msgspec.UNSET


def change_read(change: Change) -> ChangeRead:
    """Convert an entry of the audit."""
    return ChangeRead(
        change.id,
        change.at,
        change.actor,
        change.kind,
        change.action,
        change.before,
        change.after,
        msgspec.UNSET if change.task_name is None else change.task_name,
        msgspec.UNSET if change.name is None else change.name,
        msgspec.UNSET if change.routine_id is None else change.routine_id,
        msgspec.UNSET if change.revision is None else change.revision,
    )


def update_to(spec: Mapping[str, Any], routine: Routine) -> tuple[dict[str, Any], list[str]]:
    """Return the body of a PATCH that brings a routine back to a revision, and what it cannot bring back.

    Its name stays, and so does its pause: to restore what a routine does must not start or stop it.

    Args:
        spec: What the routine was to do at the revision, from `find_spec`.
        routine: The routine as it is now, whose secrets are kept where the revision has one of the name.
    """
    names = list(spec.get("secret_params", {}))
    lost = [f"secret_params.{name}" for name in names if name not in routine.secret_names]
    had_webhook_secret = "webhook_secret" in spec
    if had_webhook_secret and not routine.has_webhook_secret:
        lost.append("webhook_secret")
    body = {field: spec.get(field, unset) for field, unset in UNSET_FIELDS.items()}
    body |= {
        **{field: spec[field] for field in ("cadence", "overlap_policy", "max_concurrent") if field in spec},
        "secret_params": {name: MASK for name in names if name in routine.secret_names},
        "webhook_secret": MASK if had_webhook_secret and routine.has_webhook_secret else None,
    }
    return body, [f"{field}: its value is not stored any more; send it with PATCH." for field in lost]
