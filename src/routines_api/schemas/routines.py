"""Routines as they are sent and shown."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field, StringConstraints, field_validator

from routines_api.schemas.cadences import CadenceConfig
from routines_api.schemas.calendars import ActiveHours, ActiveHoursRead, RoutineCalendar, RoutineCalendarRead
from routines_api.schemas.fields import (
    IGNORED,
    Bound,
    RequestBody,
    SecretName,
    Slug,
    Spread,
    Time,
    WebhookUrl,
    WithWebhook,
    refuse_mask,
    shown_as,
)
from routines_api.schemas.retries import RetryRead, RoutineRetry
from routines_core.db.routines import Cadence, Routine
from routines_core.mask import MASK

CatchupWindow = Annotated[
    int | None,
    Field(
        ge=0,
        le=366 * 86400,
        description="The age in seconds up to which a slot still fires after an outage; 0: late slots never fire; "
        "null: an hour for hourly, 12 hours for the others, unless the service is configured otherwise.",
    ),
]

PauseEnd = Annotated[Time, Field(description="Must be in the future.", examples=["2127-01-04T08:00:00Z"])]
PauseNote = Annotated[str, StringConstraints(min_length=1, max_length=500)]

SlotReference = Literal[
    "slot.scheduled_for", "slot.date", "slot.local_time", "slot.previous", "slot.last_success", "slot.trigger"
]
ParamsFromSlot = Annotated[
    dict[str, SlotReference] | None,
    Field(
        max_length=50,
        description="Parameters that each run takes from its slot, merged over init_params_overrides; each must be "
        "declared by the task. Where the slot has no value, the parameter keeps its other one.",
        examples=[{"date": "slot.date"}],
    ),
]

Timeout = Annotated[
    int | None,
    Field(
        ge=1,
        le=2**31 - 1,
        description="How long its runs may take from the moment at which a worker begins them, in seconds; at most the "
        "deadline of all runs of the service. null: that.",
        examples=[900],
    ),
]

PauseAfterFailures = Annotated[
    int | None,
    Field(
        ge=1,
        le=100,
        description="After how many failed slots in a row the routine stops; a slot that is retried fails with its "
        "last attempt. null: never.",
        examples=[3],
    ),
]
Then = Annotated[
    Literal["pause", "backoff"],
    Field(
        description="How it stops. pause: until someone resumes it. backoff: for 1 slot, and for twice as many each "
        "time that the slot after them fails too, up to 64."
    ),
]

Overlap = Annotated[
    Literal["skip", "queue_one", "cancel_other", "allow"],
    Field(
        description="What becomes of a slot that comes while a run of the routine is active. skip: it starts no run. "
        "queue_one: its run waits until none is active, and a later slot takes it over. cancel_other: the same, and "
        "the active runs are cancelled. allow: it starts a run unless max_concurrent are active."
    ),
]
MaxConcurrent = Annotated[
    int,
    Field(ge=1, le=100, description="Required by allow: how many runs may be active at once.", examples=[3]),
]


def _drop_default(schema: dict[str, Any]) -> None:
    del schema["default"]


_NOT_SENT: Any = Field(default=None, validate_default=False, json_schema_extra=_drop_default)
"""The default of a field that must not be null but may be left out."""


class RoutineCreate(WithWebhook):
    """A routine to save."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "morning-regression",
                    "cadence": {"type": "weekdays", "hour_utc": 9},
                    "init_params_overrides": {"sample_size": 50},
                }
            ]
        }
    )

    name: Slug
    cadence: CadenceConfig
    init_params_overrides: dict[str, Any] = Field(
        default={}, description="Merged over the task's init_params when it fires; each key must be declared there."
    )
    secret_params: dict[SecretName, str] = Field(default={}, description="Stored encrypted; they read as ********.")
    webhook_url: WebhookUrl | None = None
    webhook_secret: str | None = Field(default=None, min_length=1, description="Signs the webhook; reads as ********.")
    paused: bool = Field(default=False, description="A paused routine has no next slot.")
    catchup_window_seconds: CatchupWindow = None
    starts_at: Bound = Field(default=None, description="No slot is earlier; null: no bound.")
    ends_at: Bound = Field(default=None, description="No slot is later; null: no bound.")
    spread_seconds: Spread = None
    calendar: RoutineCalendar | None = Field(default=None, description="Days on which it does not fire; null: none.")
    active_hours: ActiveHours | None = Field(
        default=None, description="The times of the week at which it may fire; null: at any time."
    )
    init_params_from_slot: ParamsFromSlot = None
    timeout_seconds: Timeout = None
    retry: RoutineRetry | None = Field(
        default=None, description="How scheduled runs that failed are retried; null: not at all."
    )
    pause_after_failures: PauseAfterFailures = None
    then: Then = _NOT_SENT
    overlap_policy: Overlap = "skip"
    max_concurrent: MaxConcurrent | None = None

    @field_validator("secret_params", "webhook_secret")
    @classmethod
    def _no_mask(cls, value: Any) -> Any:
        return refuse_mask(value)


class RoutinePatch(WithWebhook):
    """Fields to update on a routine; a field that is left out keeps its value.

    Fields managed by the server are accepted and ignored, so that the answer of a GET can be sent back whole.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"cadence": {"type": "hourly", "minute_utc": 15}}]})

    name: Slug = Field(default="", validate_default=False)
    cadence: CadenceConfig = Field(default=None, description="Replaced whole.")  # pyright: ignore[reportAssignmentType] - the default means "not sent"; null is refused
    init_params_overrides: dict[str, Any] = Field(default={}, description="Replaced whole.")
    secret_params: dict[SecretName, str] = Field(
        default={}, description="Replaced whole; ******** keeps the stored value of that name."
    )
    webhook_url: WebhookUrl | None = Field(default=None, description="null clears it.")
    webhook_secret: str | None = Field(
        default=None, min_length=1, description="null clears it; ******** keeps the stored value."
    )
    paused: bool = Field(default=False, description="true pauses, false resumes from now.")
    catchup_window_seconds: CatchupWindow = None
    paused_until: PauseEnd | None = Field(
        default=None, description="When the pause ends by itself; null: it does not. Ignored with paused: false."
    )
    paused_note: PauseNote | None = Field(default=None, description="null clears it. Ignored with paused: false.")
    starts_at: Bound = Field(default=None, description="No slot is earlier; null removes the bound.")
    ends_at: Bound = Field(default=None, description="No slot is later; null removes the bound.")
    spread_seconds: Spread = None
    calendar: RoutineCalendar | None = Field(default=None, description="Replaced whole; null removes it.")
    active_hours: ActiveHours | None = Field(default=None, description="Replaced whole; null removes it.")
    init_params_from_slot: ParamsFromSlot = None
    timeout_seconds: Timeout = None
    retry: RoutineRetry | None = Field(default=None, description="Replaced whole; null removes it.")
    pause_after_failures: PauseAfterFailures = None
    then: Then = _NOT_SENT
    overlap_policy: Overlap = _NOT_SENT
    max_concurrent: MaxConcurrent = _NOT_SENT
    backoff_left: Any = IGNORED
    id: Any = IGNORED
    task_name: Any = IGNORED
    collection_name: Any = IGNORED
    last_run_at: Any = IGNORED
    next_run_at: Any = IGNORED
    paused_reason: Any = IGNORED
    warnings: Any = IGNORED


class RoutinePause(RequestBody):
    """How long a pause lasts, and why. The body may be left out."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"until": "2127-01-04T08:00:00Z", "note": "office closed"}]}
    )

    until: PauseEnd | None = Field(default=None, description="When it ends by itself; null: when someone resumes it.")
    note: PauseNote | None = Field(default=None, description="Shown with the pause and with each slot in it.")


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
