"""Routines: sql/queries/routines.sql called from Python."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from psycopg.types.json import Json, Jsonb

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.pool import Connection
from routines_core.db.secrets import SealedSecret, as_parameters
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import NotFoundError

Value = TypeVar("Value")

LISTED_BYTES = 8 * 1024 * 1024
"""A page of a list ends once its overrides take this many bytes."""


class Cadence(msgspec.Struct, frozen=True):
    """When a routine is due; the type routines.cadence of the database, without the routine's bounds.

    Attributes:
        type: manual, hourly, daily, weekdays, weekly, cron, interval or once.
        hour_utc: 0-23 for daily, weekdays and weekly; None otherwise.
        minute_utc: 0-59, for hourly the minute of the hour; 0 for types that do not take it.
        day_of_week: mon to sun for weekly; None otherwise.
        expression: For cron, as it was given. The fields from here on are UNSET for types that do not take them.
        timezone: For cron, the IANA name of the time zone of the expression.
        every_minutes: For interval, 1-525600.
        anchor: For interval, one of its slots; UNSET for the minute in which the routine is made.
        at: For once, its only slot.
    """

    type: str
    hour_utc: int | None = None
    minute_utc: int = 0
    day_of_week: str | None = None
    expression: str | list[str] | msgspec.UnsetType = msgspec.UNSET
    timezone: str | msgspec.UnsetType = msgspec.UNSET
    every_minutes: int | msgspec.UnsetType = msgspec.UNSET
    anchor: datetime | msgspec.UnsetType = msgspec.UNSET
    at: datetime | msgspec.UnsetType = msgspec.UNSET


class Routine(msgspec.Struct, frozen=True):
    """A stored routine, with the names of its secrets but not their values.

    Attributes:
        undeclared_keys: Override keys that the task's current version does not declare.
        catchup_window_seconds: The age up to which a missed slot still fires after an outage; None for the default of
            its cadence.
        paused_reason: Why the scheduler paused it; None if it did not.
        paused_until: When the pause ends by itself; None if it does not.
        paused_note: What a person noted about the pause; None for nothing.
        starts_at: No slot is earlier; None for no bound.
        ends_at: No slot is later; None for no bound.
        spread_seconds: Each slot fires up to this many seconds after its time; None for no spread.
        calendar: Days on which it does not fire: exclude and on_excluded; None for none.
        active_hours: Outside of these it does not fire: timezone, windows and outside; None for none.
        init_params_from_slot: Parameters that each run takes from its slot, each with its reference; None for none.
        undeclared_slot_keys: Those of them that the task's current version does not declare.
        timeout_seconds: How long its runs may take; None for as long as the worker allows.
        retry: How a scheduled run that failed is retried; None for not at all.
        pause_after_failures: After how many failed slots in a row it stops; None for never.
        after_failures: How it stops then: pause or backoff; None for pause.
        backoff_left: How many slots it will still skip after failures; None for none.
        max_concurrent: For the overlap policy allow: how many runs may be active at once; None otherwise.
    """

    id: int
    name: str
    task_name: str
    collection_name: str
    cadence: Cadence
    init_params_overrides: dict[str, Any]
    secret_names: list[str]
    webhook_url: str | None
    has_webhook_secret: bool
    paused: bool
    last_run_at: datetime | None
    next_run_at: datetime | None
    overlap_policy: str
    undeclared_keys: list[str]
    catchup_window_seconds: int | None
    paused_reason: str | None
    paused_until: datetime | None
    paused_note: str | None
    starts_at: datetime | None
    ends_at: datetime | None
    spread_seconds: int | None
    calendar: dict[str, Any] | None
    active_hours: dict[str, Any] | None
    init_params_from_slot: dict[str, str] | None
    undeclared_slot_keys: list[str]
    timeout_seconds: int | None
    retry: dict[str, Any] | None
    pause_after_failures: int | None
    after_failures: str | None
    backoff_left: int | None
    max_concurrent: int | None


class ListedRoutine(Routine, frozen=True):
    """A routine on a page of a list.

    Attributes:
        is_cut: True in the last routine of a page that ends for its size, so that more routines follow.
    """

    is_cut: bool


class RoutineSpec(msgspec.Struct, frozen=True):
    """A routine to save.

    Attributes:
        starts_at: No slot is earlier; None for no bound.
        ends_at: No slot is later; None for no bound.
        spread_seconds: Each slot fires up to this many seconds after its time; None or 0 for no spread.
        calendar: Days on which it does not fire: exclude and on_excluded; None for none.
        active_hours: Outside of these it does not fire: timezone, windows and outside; None for none.
        init_params_from_slot: Parameters that each run takes from its slot, each with its reference; None for none.
        timeout_seconds: How long its runs may take; None for as long as the worker allows.
        retry: How a scheduled run that failed is retried; None for not at all.
        pause_after_failures: After how many failed slots in a row it stops; None for never.
        after_failures: How it stops then: pause or backoff; None for pause.
        overlap_policy: What becomes of a slot that comes while a run is active: skip, queue_one, cancel_other or allow.
        max_concurrent: For allow: how many runs may be active at once; None otherwise.
        id: Drawn by `draw_routine_id`, if secrets are bound to it; None to let the database assign one.
    """

    name: str
    cadence: Cadence
    init_params_overrides: dict[str, Any] = {}
    secret_params: dict[str, SealedSecret] = {}
    webhook_url: str | None = None
    webhook_secret: SealedSecret | None = None
    paused: bool = False
    catchup_window_seconds: int | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    spread_seconds: int | None = None
    calendar: dict[str, Any] | None = None
    active_hours: dict[str, Any] | None = None
    init_params_from_slot: Mapping[str, str] | None = None
    timeout_seconds: int | None = None
    retry: dict[str, Any] | None = None
    pause_after_failures: int | None = None
    after_failures: str | None = None
    overlap_policy: str = "skip"
    max_concurrent: int | None = None
    id: int | None = None


class RoutineChanges(msgspec.Struct, frozen=True):
    """Fields to update on a routine. UNSET fields keep their value.

    Attributes:
        secret_params: Replaces them all. None instead of a secret keeps the stored one of that name.
        webhook_secret: None removes it.
        catchup_window_seconds: None restores the default of the cadence.
        paused_until: None lets the pause last until someone resumes the routine.
        paused_note: None removes it.
        starts_at: None removes the bound. The same for ends_at.
        spread_seconds: None or 0 removes the spread.
        calendar: None removes it. The same for active_hours, init_params_from_slot, timeout_seconds, retry,
            pause_after_failures and after_failures.
        keeps_webhook_secret: True to keep the stored secret, which must exist.
        id: The routine that new secrets are bound to, which must still have the name; None for any routine of the name.
    """

    name: str | msgspec.UnsetType = msgspec.UNSET
    cadence: Cadence | msgspec.UnsetType = msgspec.UNSET
    init_params_overrides: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    secret_params: dict[str, SealedSecret | None] | msgspec.UnsetType = msgspec.UNSET
    webhook_url: str | msgspec.UnsetType | None = msgspec.UNSET
    webhook_secret: SealedSecret | msgspec.UnsetType | None = msgspec.UNSET
    keeps_webhook_secret: bool = False
    paused: bool | msgspec.UnsetType = msgspec.UNSET
    catchup_window_seconds: int | msgspec.UnsetType | None = msgspec.UNSET
    paused_until: datetime | msgspec.UnsetType | None = msgspec.UNSET
    paused_note: str | msgspec.UnsetType | None = msgspec.UNSET
    starts_at: datetime | msgspec.UnsetType | None = msgspec.UNSET
    ends_at: datetime | msgspec.UnsetType | None = msgspec.UNSET
    spread_seconds: int | msgspec.UnsetType | None = msgspec.UNSET
    calendar: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    active_hours: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    init_params_from_slot: Mapping[str, str] | msgspec.UnsetType | None = msgspec.UNSET
    timeout_seconds: int | msgspec.UnsetType | None = msgspec.UNSET
    retry: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    pause_after_failures: int | msgspec.UnsetType | None = msgspec.UNSET
    after_failures: str | msgspec.UnsetType | None = msgspec.UNSET
    overlap_policy: str | msgspec.UnsetType = msgspec.UNSET
    max_concurrent: int | msgspec.UnsetType = msgspec.UNSET
    id: int | None = None


class RunNow(msgspec.Struct, frozen=True):
    """What is different in a run that is started by hand.

    Attributes:
        init_params: Merged over the parameters that the routine gives its runs.
        secret_params: Beside those of the routine, or in place of those of the same name.
        as_of: The slot that its references to `slot` speak of; None for no slot.
        respect_overlap: True to start nothing while a run of the routine is active.
        routine_id: The routine that the secrets are bound to, which must still have the name; None for any.
    """

    init_params: dict[str, Any] = {}
    secret_params: dict[str, SealedSecret] = {}
    as_of: datetime | None = None
    respect_overlap: bool = False
    routine_id: int | None = None


class NewRun(msgspec.Struct, frozen=True):
    """A run that was started by hand.

    Attributes:
        id: The run; None if none was started.
        unknown_keys: The parameters that the task does not declare, because of which none was started.
        blocked_by: The active run because of which none was started; None if there is none, or if it does not matter.
    """

    id: int | None
    unknown_keys: list[str]
    blocked_by: int | None


class _Id(msgspec.Struct):
    id: int


_DRAW_ID = Statement("routines.draw_routine_id", _Id)
_CREATE = Statement("routines.create_routine", _Id)
_PATCH = Statement("routines.patch_routine", _Id)
_FIND = Statement("routines.find_routine", Routine)
_FIND_BY_ID = Statement("routines.find_routines", Routine)
_LIST = Statement("routines.list_routines", ListedRoutine)
_SET_PAUSED = Statement("routines.set_paused", NoRow)
_DELETE = Statement("routines.delete_routine", NoRow)
_RUN_NOW = Statement("routines.run_now", NewRun)


async def draw_routine_id(connection: Connection, *, key_id: int) -> int:
    """Reserve an id for a routine to be created, so that secrets can be bound to it."""
    return (await _DRAW_ID.one(connection, key_id=key_id)).id


async def create_routine(connection: Connection, spec: RoutineSpec, *, key_id: int, task: str) -> bool:
    """Create a routine and its secrets. The database computes its next slot.

    Returns:
        False, without creating anything, if the task does not exist or does not declare a key of the overrides.

    Raises:
        ConflictError: The task already has a routine of this name.
        NotFoundError: The task was deleted at the same moment.
        InvalidError: The routine breaks a rule of the schema.
    """
    sealed = [*spec.secret_params.values(), *([spec.webhook_secret] if spec.webhook_secret else [])]
    with domain_errors(missing="routines_task_fkey"):
        made = await _CREATE.first(
            connection,
            key_id=key_id,
            task=task,
            id=spec.id,
            name=spec.name,
            cadence=Json(spec.cadence),
            init_params_overrides=Jsonb(spec.init_params_overrides),
            secret_refs=Jsonb({name: str(secret.id) for name, secret in spec.secret_params.items()}),
            webhook_url=spec.webhook_url,
            webhook_secret_id=spec.webhook_secret.id if spec.webhook_secret else None,
            paused=spec.paused,
            catchup_window_seconds=spec.catchup_window_seconds,
            starts_at=spec.starts_at,
            ends_at=spec.ends_at,
            spread_seconds=spec.spread_seconds,
            calendar=_json_or_none(spec.calendar),
            active_hours=_json_or_none(spec.active_hours),
            init_params_from_slot=_json_or_none(spec.init_params_from_slot),
            timeout_seconds=spec.timeout_seconds,
            retry=_json_or_none(spec.retry),
            pause_after_failures=spec.pause_after_failures,
            after_failures=spec.after_failures,
            overlap_policy=spec.overlap_policy,
            max_concurrent=spec.max_concurrent,
            **as_parameters(sealed),
        )
    return made is not None


async def patch_routine(connection: Connection, patch: RoutineChanges, *, key_id: int, task: str, name: str) -> bool:
    """Change a routine. Waits for a tick that has locked it. Its next slot is recomputed if cadence or paused change.

    If only its spread changes, its next slot stays and gets its new time.

    Returns:
        False, without changing anything, if the routine does not exist, if an added or changed override is not declared
        by the task, or if a secret to keep does not exist.

    Raises:
        ConflictError: The task already has a routine of the new name.
        InvalidError: The routine breaks a rule of the schema.
    """
    with domain_errors():
        patched = await _PATCH.first(
            connection, key_id=key_id, task=task, current_name=name, **_patch_parameters(patch)
        )
    return patched is not None


async def find_routine(connection: Connection, *, key_id: int, task: str, name: str) -> Routine:
    """Return the routine of this name.

    Raises:
        NotFoundError: The task of this collection has no such routine.
    """
    routine = await _FIND.first(connection, key_id=key_id, task=task, name=name)
    if routine is None:
        raise NotFoundError
    return routine


async def find_routines(connection: Connection, *, key_id: int, ids: Sequence[int]) -> list[Routine]:
    """Return those of these routines that the collection has, by id, and about LISTED_BYTES of them."""
    return await _FIND_BY_ID.all(connection, key_id=key_id, ids=list(ids), page_bytes=LISTED_BYTES)


async def list_routines(
    connection: Connection,
    *,
    key_id: int,
    limit: int,
    task: str | None = None,
    after: tuple[str, str] | None = None,
) -> list[ListedRoutine]:
    """Return the routines of a collection, or of one of its tasks, by task and name, after the (task, name) `after`.

    At most `limit`, and about LISTED_BYTES.
    """
    after_task, after_name = after or (None, None)
    return await _LIST.all(
        connection,
        key_id=key_id,
        task=task,
        after_task=after_task,
        after_name=after_name,
        limit=limit,
        page_bytes=LISTED_BYTES,
    )


async def set_paused(
    connection: Connection,
    *,
    key_id: int,
    task: str,
    name: str,
    paused: bool,
    until: datetime | None = None,
    note: str | None = None,
) -> None:
    """Pause or resume a routine. Waits for a tick that has locked it. Resuming computes the next slot from now.

    Args:
        connection: Any connection.
        key_id: The API key that determines the collection.
        task: The routine's task.
        name: The routine's name.
        paused: True to pause; a routine that is paused already gets the new end and note.
        until: When the pause ends by itself; None if it does not. Must be in the future.
        note: What a person notes about the pause.

    Raises:
        NotFoundError: The routine does not exist.
        InvalidError: The end or the note breaks a rule of the schema.
    """
    with domain_errors():
        found = await _SET_PAUSED.run(
            connection, key_id=key_id, task=task, name=name, paused=paused, until=until, note=note
        )
    if not found:
        raise NotFoundError


async def delete_routine(connection: Connection, *, key_id: int, task: str, name: str) -> None:
    """Delete a routine, which also removes its schedule. Its runs are kept. Waits for a tick that has locked it.

    Raises:
        NotFoundError: The routine does not exist.
    """
    if not await _DELETE.run(connection, key_id=key_id, task=task, name=name):
        raise NotFoundError


NOTHING_DIFFERENT = RunNow()


async def run_now(
    connection: Connection,
    *,
    key_id: int,
    task: str,
    name: str,
    asked: RunNow = NOTHING_DIFFERENT,
    traceparent: str | None = None,
) -> NewRun:
    """Start a run at once, whatever the cadence. Waits for a tick that has locked the routine.

    Args:
        connection: Any connection.
        key_id: The API key that determines the collection.
        task: The routine's task.
        name: The routine's name.
        asked: What is different in this run.
        traceparent: The span that starts it.

    Raises:
        NotFoundError: The routine does not exist.
    """
    found = await _RUN_NOW.first(
        connection,
        key_id=key_id,
        task=task,
        name=name,
        id=asked.routine_id,
        init_params=Jsonb(asked.init_params),
        secret_refs=Jsonb({key: str(secret.id) for key, secret in asked.secret_params.items()}),
        as_of=asked.as_of,
        respects_overlap=asked.respect_overlap,
        traceparent=traceparent,
        **as_parameters(list(asked.secret_params.values())),
    )
    if found is None:
        raise NotFoundError
    return found


def _patch_parameters(patch: RoutineChanges) -> dict[str, Any]:
    cadence = _or_none(patch.cadence)
    overrides = _or_none(patch.init_params_overrides)
    secret_params = _or_none(patch.secret_params)
    new_params = {name: secret for name, secret in (secret_params or {}).items() if secret}
    webhook_secret = _or_none(patch.webhook_secret)
    return {
        "id": patch.id,
        "name": _or_none(patch.name),
        "cadence": None if cadence is None else Json(cadence),
        "init_params_overrides": None if overrides is None else Jsonb(overrides),
        "secret_refs": None if secret_params is None else Jsonb({key: str(new.id) for key, new in new_params.items()}),
        "kept_secrets": [name for name in secret_params or {} if name not in new_params],
        "sets_webhook_url": patch.webhook_url is not msgspec.UNSET,
        "webhook_url": _or_none(patch.webhook_url),
        "sets_webhook_secret": patch.webhook_secret is not msgspec.UNSET,
        "webhook_secret_id": webhook_secret.id if webhook_secret else None,
        "keeps_webhook_secret": patch.keeps_webhook_secret,
        "paused": _or_none(patch.paused),
        "sets_paused_until": patch.paused_until is not msgspec.UNSET,
        "paused_until": _or_none(patch.paused_until),
        "sets_paused_note": patch.paused_note is not msgspec.UNSET,
        "paused_note": _or_none(patch.paused_note),
        "sets_catchup_window": patch.catchup_window_seconds is not msgspec.UNSET,
        "catchup_window_seconds": _or_none(patch.catchup_window_seconds),
        "sets_starts_at": patch.starts_at is not msgspec.UNSET,
        "starts_at": _or_none(patch.starts_at),
        "sets_ends_at": patch.ends_at is not msgspec.UNSET,
        "ends_at": _or_none(patch.ends_at),
        "sets_spread": patch.spread_seconds is not msgspec.UNSET,
        "spread_seconds": _or_none(patch.spread_seconds),
        "sets_calendar": patch.calendar is not msgspec.UNSET,
        "calendar": _json_or_none(_or_none(patch.calendar)),
        "sets_active_hours": patch.active_hours is not msgspec.UNSET,
        "active_hours": _json_or_none(_or_none(patch.active_hours)),
        "sets_init_params_from_slot": patch.init_params_from_slot is not msgspec.UNSET,
        "init_params_from_slot": _json_or_none(_or_none(patch.init_params_from_slot)),
        "sets_timeout": patch.timeout_seconds is not msgspec.UNSET,
        "timeout_seconds": _or_none(patch.timeout_seconds),
        "sets_retry": patch.retry is not msgspec.UNSET,
        "retry": _json_or_none(_or_none(patch.retry)),
        "sets_pause_after_failures": patch.pause_after_failures is not msgspec.UNSET,
        "pause_after_failures": _or_none(patch.pause_after_failures),
        "sets_after_failures": patch.after_failures is not msgspec.UNSET,
        "after_failures": _or_none(patch.after_failures),
        "overlap_policy": _or_none(patch.overlap_policy),
        "max_concurrent": _or_none(patch.max_concurrent),
        **as_parameters([*new_params.values(), *([webhook_secret] if webhook_secret else [])]),
    }


def _or_none(value: Value | msgspec.UnsetType) -> Value | None:
    return None if isinstance(value, msgspec.UnsetType) else value


def _json_or_none(value: Mapping[str, Any] | None) -> Jsonb | None:
    return None if value is None else Jsonb(value)
