"""Request bodies of routines, runs, tasks and what belongs to them: pydantic models that refuse unknown fields."""

import re
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field, RootModel, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from routines_api.schemas.cadences import CadenceConfig
from routines_api.schemas.calendars import ActiveHours, RoutineCalendar
from routines_api.schemas.fields import ENVIRONMENT_NAME, RUN_ID, Bound, RequestBody, Slug, Spread, Time
from routines_api.schemas.retries import RoutineRetry
from routines_core.mask import MASK
from routines_workflow.checks import check_workflow

WEBHOOK_URL = re.compile(r"(?i:https?)://[^\s/?#@]+([/?#]\S*)?", re.ASCII)
"""The same rule as the constraint routines_webhook_url_is_http."""

SecretName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
WebhookUrl = Annotated[
    str, Field(max_length=2048, description="Called when a run has ended.", examples=["https://example.com/hook"])
]

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


class EmptyBody(RequestBody):
    """The body of an operation without fields: empty, or an empty object."""


class RoutinePause(RequestBody):
    """How long a pause lasts, and why. The body may be left out."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"until": "2127-01-04T08:00:00Z", "note": "office closed"}]}
    )

    until: PauseEnd | None = Field(default=None, description="When it ends by itself; null: when someone resumes it.")
    note: PauseNote | None = Field(default=None, description="Shown with the pause and with each slot in it.")


class FeedCreate(RequestBody):
    """What a calendar feed shows. The body may be left out: then all routines of the collection."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"task": "greet", "routine": "morning-regression"}]})

    task: Slug | None = Field(default=None, description="Only routines of this task; null: of all tasks.")
    routine: Slug | None = Field(default=None, description="Only this routine of the task; null: all of them.")

    @field_validator("routine")
    @classmethod
    def _has_a_task(cls, routine: str | None, info: ValidationInfo) -> str | None:
        if routine is not None and info.data.get("task", "") is None:
            raise ValueError("needs the task that it belongs to")
        return routine


class _RoutineFields(RequestBody):
    """Rules for fields that creating and updating share."""

    @field_validator("webhook_url", check_fields=False)
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not WEBHOOK_URL.fullmatch(url):
            raise ValueError("must be an http or https URL without user or password")
        return url


class RoutineCreate(_RoutineFields):
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
        return _refuse_mask(value)


class RoutineRunNow(RequestBody):
    """What is different in a run that is started by hand. The body may be left out."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"init_params": {"sample_size": 5}, "as_of": "2026-05-04T09:00:00Z"}]}
    )

    init_params: dict[str, Any] = Field(
        default={}, description="Merged over the parameters that the routine gives its runs; each must be declared."
    )
    secret_params: dict[SecretName, str] = Field(
        default={}, description="Beside the routine's, or in place of those of the same name, until the run has ended."
    )
    as_of: Time | None = Field(
        default=None, description="The slot that references such as slot.date speak of; null: the run is for no slot."
    )
    respect_overlap: bool = Field(
        default=False, description="true: 409 while a run of the routine is active; false: the run starts beside it."
    )

    @field_validator("secret_params")
    @classmethod
    def _no_mask(cls, value: Any) -> Any:
        return _refuse_mask(value)


class RerunCreate(RequestBody):
    """What is different in a rerun. The body may be left out: then all steps run again, with the same parameters."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"from_step": "summarize", "init_params": {"model": "gpt-4o-mini"}}]}
    )

    from_step: str | None = Field(
        default=None, description="Steps before this one are kept and not executed again; null: all are executed."
    )
    init_params: dict[str, Any] = Field(
        default={}, description="Merged over the parameters of that run; its version of the task must declare each key."
    )
    secret_params: dict[SecretName, str] = Field(
        default={},
        description="Secrets of the run itself, since those of the run that it repeats were deleted at its end. A "
        "rerun of a run of a routine also has those that the routine has today.",
    )
    webhook_secret: str | None = Field(
        default=None,
        min_length=1,
        description="Signs the webhook of a run that no routine started; required if its webhook was signed.",
    )

    @field_validator("secret_params", "webhook_secret")
    @classmethod
    def _no_mask(cls, value: Any) -> Any:
        return _refuse_mask(value)


class RunCreate(_RoutineFields):
    """A run to start. In a form, `init_params` and `secret_params` are JSON texts, and `files` are the files."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"init_params": {"name": "team"}}]})

    init_params: dict[str, Any] = Field(
        default={}, description="Merged over the task's init_params; each key must be declared there."
    )
    secret_params: dict[SecretName, str] = Field(
        default={}, description="Stored encrypted until the run has ended; never returned."
    )
    webhook_url: WebhookUrl | None = None
    webhook_secret: str | None = Field(default=None, min_length=1, description="Signs the webhook; never returned.")
    files: list[Any] = Field(
        default=[], max_length=0, description="In a multipart form: files; their paths become init_params.file_paths."
    )

    @field_validator("secret_params", "webhook_secret")
    @classmethod
    def _no_mask(cls, value: Any) -> Any:
        return _refuse_mask(value)


def _refuse_mask(value: Any) -> Any:
    if value == MASK or (isinstance(value, dict) and MASK in cast("dict[str, str]", value).values()):
        raise ValueError(f"{MASK} stands for a stored value, but none is stored yet: send the secret itself")
    return cast("Any", value)


class StatusChanges(RootModel[dict[Annotated[str, Field(pattern=RUN_ID)], Literal["cancelled", "archived"]]]):
    """The new status of each run, by its id. All of them change, or none does."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"9876": "cancelled"}]})

    root: dict[Annotated[str, Field(pattern=RUN_ID)], Literal["cancelled", "archived"]] = Field(
        min_length=1, max_length=100
    )


class LabelCreate(RequestBody):
    """A label for a run. It replaces the label with the same key and author."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key": "rating", "value": 5, "author": "ada"}]})

    key: str = Field(min_length=1, max_length=100, description="The aspect that the label rates or describes.")
    value: Annotated[str, StringConstraints(max_length=1000)] | int | float | bool = Field(
        description="A text of at most 1000 characters, a number or a boolean."
    )
    author: str = Field(default="", max_length=100, description="Who set the label.")


class EnvironmentPatch(RequestBody):
    """Environment variables to set or remove; the others are kept."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"environment_variables": {"API_URL": "https://example.com"}}]}
    )

    environment_variables: dict[Annotated[str, Field(pattern=ENVIRONMENT_NAME)], str | None] = Field(
        max_length=100, description="Values by name: null removes the variable, ******** keeps the stored value."
    )


_IGNORED: Any = Field(default=None, description="Managed by the server: accepted and ignored.")


class RoutinePatch(_RoutineFields):
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
    backoff_left: Any = _IGNORED
    id: Any = _IGNORED
    task_name: Any = _IGNORED
    collection_name: Any = _IGNORED
    last_run_at: Any = _IGNORED
    next_run_at: Any = _IGNORED
    paused_reason: Any = _IGNORED
    warnings: Any = _IGNORED


_EXAMPLE_WORKFLOW: dict[str, Any] = {
    "init_params": {"name": "world"},
    "step_configs": {"greet": {"activity": "text_echo", "text_path": "init_params.name"}},
    "steps": ["greet"],
}


class _TaskFields(RequestBody):
    """Rules for fields that creating and updating share."""

    @field_validator("workflow", check_fields=False)
    @classmethod
    def _can_be_run(cls, workflow: dict[str, Any]) -> dict[str, Any]:
        if faults := check_workflow(workflow):
            raise PydanticCustomError("workflow", "is not valid", {"faults": faults})
        return workflow


class TaskCreate(_TaskFields):
    """A task to save."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "greet", "workflow": _EXAMPLE_WORKFLOW}]})

    name: Slug
    description: str = Field(default="", description="Free text for people.")
    workflow: dict[str, Any] = Field(description="{init_params, step_configs, steps}.")


class TaskUpdate(_TaskFields):
    """Fields to update on a task; a field that is left out keeps its value.

    Times managed by the server are accepted and ignored, so that the answer of a GET can be sent back whole.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"description": "Says hello."}]})

    name: Slug = Field(default="", validate_default=False)
    description: str = Field(default="", description="Free text for people.")
    workflow: dict[str, Any] = Field(
        default={}, description="Becomes a new version; runs keep the version they started with."
    )
    created_at: Any = _IGNORED
    updated_at: Any = _IGNORED


class LimitsPut(RequestBody):
    """The limits to set for a collection. Those left out return to their defaults."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limits": {"tasks": 50, "stored_bytes": None}}]})

    limits: dict[str, int | None] = Field(description="By name; null for no limit.")
