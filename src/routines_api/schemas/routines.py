"""Routines as they are shown."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_api.schemas.calendars import ActiveHoursRead, RoutineCalendarRead
from routines_api.schemas.fields import shown_as
from routines_api.schemas.retries import RetryRead
from routines_core.db.routines import Cadence, Routine
from routines_core.mask import MASK


class RoutineRead(msgspec.Struct):
    """A routine, with its secrets masked."""

    id: Annotated[int, Meta(description="Unchanged when the routine is renamed.", examples=[42])]
    name: Annotated[str, Meta(description="Unique in its task.", examples=["morning-regression"])]
    task_name: Annotated[str, Meta(description="The task that it runs.", examples=["nl-to-sql-regression"])]
    collection_name: Annotated[str, Meta(description="The collection of the task.", examples=["my-org"])]
    cadence: Annotated[Cadence, Meta(description="When its slots are due.")]
    init_params_overrides: Annotated[dict[str, Any], Meta(description="Merged over the task's init_params.")]
    secret_params: Annotated[dict[str, str], Meta(description="Secrets by name; each reads as ********.")]
    webhook_url: Annotated[str | None, Meta(description="Called when a run has ended; null: no webhook.")]
    webhook_secret: Annotated[str | None, Meta(description="Signs the webhook; reads as ********; null: not signed.")]
    paused: Annotated[bool, Meta(description="Whether the schedule is stopped.")]
    last_run_at: Annotated[datetime | None, Meta(description="When it last started a run; null: never.")]
    next_run_at: Annotated[
        datetime | None,
        Meta(description="When it fires next, its spread included; null: paused, manual, or no slot is left."),
    ]
    overlap_policy: Annotated[
        str,
        Meta(
            description="What becomes of a slot that comes while a run is active: skip, queue_one, cancel_other or "
            "allow.",
            examples=["skip"],
        ),
    ]
    catchup_window_seconds: Annotated[
        int | msgspec.UnsetType,
        Meta(description="The age in seconds up to which a late slot still fires; absent: the default of the cadence."),
    ] = msgspec.UNSET
    paused_reason: Annotated[
        str | msgspec.UnsetType,
        Meta(
            description="Why the scheduler paused it, after slots that failed or failed to start; absent: it did not."
        ),
    ] = msgspec.UNSET
    paused_until: Annotated[
        datetime | msgspec.UnsetType,
        Meta(description="When the pause ends by itself; absent: when someone resumes it."),
    ] = msgspec.UNSET
    paused_note: Annotated[
        str | msgspec.UnsetType, Meta(description="What a person noted about the pause; absent: nothing.")
    ] = msgspec.UNSET
    starts_at: Annotated[datetime | msgspec.UnsetType, Meta(description="No slot is earlier; absent: no bound.")] = (
        msgspec.UNSET
    )
    ends_at: Annotated[datetime | msgspec.UnsetType, Meta(description="No slot is later; absent: no bound.")] = (
        msgspec.UNSET
    )
    spread_seconds: Annotated[
        int | msgspec.UnsetType,
        Meta(description="Each slot fires up to this many seconds after its time; absent: no spread."),
    ] = msgspec.UNSET
    calendar: Annotated[
        RoutineCalendarRead | msgspec.UnsetType, Meta(description="Days on which it does not fire; absent: none.")
    ] = msgspec.UNSET
    active_hours: Annotated[
        ActiveHoursRead | msgspec.UnsetType,
        Meta(description="The times of the week at which it may fire; absent: at any time."),
    ] = msgspec.UNSET
    init_params_from_slot: Annotated[
        dict[str, str] | msgspec.UnsetType,
        Meta(
            description="Parameters that each run takes from its slot; absent: none.", examples=[{"date": "slot.date"}]
        ),
    ] = msgspec.UNSET
    timeout_seconds: Annotated[
        int | msgspec.UnsetType,
        Meta(description="How long its runs may take, in seconds; absent: as long as any run of the service."),
    ] = msgspec.UNSET
    retry: Annotated[
        RetryRead | msgspec.UnsetType,
        Meta(description="How scheduled runs that failed are retried; absent: not at all."),
    ] = msgspec.UNSET
    pause_after_failures: Annotated[
        int | msgspec.UnsetType, Meta(description="After how many failed slots in a row it stops; absent: never.")
    ] = msgspec.UNSET
    then: Annotated[str | msgspec.UnsetType, Meta(description="How it stops: pause or backoff; absent: pause.")] = (
        msgspec.UNSET
    )
    backoff_left: Annotated[
        int | msgspec.UnsetType, Meta(description="How many slots it will still skip after failures; absent: none.")
    ] = msgspec.UNSET
    max_concurrent: Annotated[
        int | msgspec.UnsetType, Meta(description="How many runs may be active at once; absent without allow.")
    ] = msgspec.UNSET


class RoutineDetail(RoutineRead):
    """One routine, with a warning for each override key that its task no longer declares."""

    warnings: Annotated[list[str], Meta(description="One for each override that the task no longer declares.")] = []


def routine_read(routine: Routine) -> RoutineRead:
    """Convert a routine for lists."""
    return RoutineRead(*_fields(routine))


def routine_detail(routine: Routine) -> RoutineDetail:
    """Convert a routine for the answer that shows it alone."""
    undeclared = {
        "init_params_overrides": routine.undeclared_keys,
        "init_params_from_slot": routine.undeclared_slot_keys,
    }
    warnings = [f"{field}: the task no longer declares {key!r}." for field, keys in undeclared.items() for key in keys]
    return RoutineDetail(*_fields(routine), warnings=warnings)


def _fields(routine: Routine) -> Sequence[Any]:
    """Return the fields of RoutineRead, in their order."""
    return (
        routine.id,
        routine.name,
        routine.task_name,
        routine.collection_name,
        routine.cadence,
        routine.init_params_overrides,
        dict.fromkeys(routine.secret_names, MASK),
        routine.webhook_url,
        MASK if routine.has_webhook_secret else None,
        routine.paused,
        routine.last_run_at,
        routine.next_run_at,
        routine.overlap_policy,
        msgspec.UNSET if routine.catchup_window_seconds is None else routine.catchup_window_seconds,
        routine.paused_reason or msgspec.UNSET,
        routine.paused_until or msgspec.UNSET,
        routine.paused_note or msgspec.UNSET,
        routine.starts_at or msgspec.UNSET,
        routine.ends_at or msgspec.UNSET,
        routine.spread_seconds or msgspec.UNSET,
        msgspec.UNSET if routine.calendar is None else shown_as(RoutineCalendarRead, routine.calendar),
        msgspec.UNSET if routine.active_hours is None else shown_as(ActiveHoursRead, routine.active_hours),
        routine.init_params_from_slot or msgspec.UNSET,
        routine.timeout_seconds or msgspec.UNSET,
        msgspec.UNSET if routine.retry is None else shown_as(RetryRead, routine.retry),
        routine.pause_after_failures or msgspec.UNSET,
        routine.after_failures or msgspec.UNSET,
        routine.backoff_left or msgspec.UNSET,
        routine.max_concurrent or msgspec.UNSET,
    )
