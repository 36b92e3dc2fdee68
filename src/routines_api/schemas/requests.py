"""What people send in: pydantic models that refuse what they do not know."""

import re
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from routines_core.errors import Fault, FaultsError
from routines_core.mask import MASK
from routines_workflow.checks import check_workflow

SLUG = r"^[a-z0-9]([a-z0-9_-]{0,98}[a-z0-9])?$"
"""The same rule as the domain routines.slug."""
SLUG_RULE = "must be 1 to 100 lower-case letters, digits, - or _, starting and ending with a letter or digit"

_WEBHOOK_URL = re.compile(r"https?://[^\s/?#@]+([/?#]\S*)?", re.ASCII)
"""The same rule as the constraint routines_webhook_url_is_http."""

Slug = Annotated[str, Field(pattern=SLUG, description="A slug.", examples=["morning-regression"])]
SecretName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
WebhookUrl = Annotated[
    str, Field(max_length=2048, description="Told when a run has ended.", examples=["https://example.com/hook"])
]

CatchupWindow = Annotated[
    int | None,
    Field(
        ge=0,
        le=366 * 86400,
        description="How many seconds old a slot may be to still fire after an outage; 0: never; "
        "null: an hour for hourly, 12 hours for the others, unless the service is set up otherwise.",
    ),
]


RUN_ID = r"^[1-9][0-9]{0,17}$"
ENVIRONMENT_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
_PATTERN_RULES = {
    SLUG: SLUG_RULE,
    RUN_ID: "must be the id of a run",
    ENVIRONMENT_NAME: "must be a name of 1 to 100 letters, digits and _, not beginning with a digit",
}


class RequestBody(BaseModel):
    """A body: unknown fields are refused, and nothing is converted to what it is not."""

    model_config = ConfigDict(extra="forbid", strict=True)


class EmptyBody(RequestBody):
    """What an operation without fields takes: an empty object, if anything."""


class CadenceConfig(RequestBody):
    """When the slots fall, in UTC. A parameter that is null, or its default, counts as not given."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "weekdays", "hour_utc": 9, "minute_utc": 0}]})

    type: Literal["manual", "hourly", "daily", "weekdays", "weekly"] = Field(
        description="How often; weekdays means Monday to Friday.", examples=["weekdays"]
    )
    hour_utc: int | None = Field(
        default=None, ge=0, le=23, description="Required by daily, weekdays and weekly; refused on the others."
    )
    minute_utc: int | None = Field(
        default=0, ge=0, le=59, description="The minute of the hour; refused on manual.", examples=[0]
    )
    day_of_week: Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"] | None = Field(
        default=None, description="Required by weekly; refused on the others."
    )

    @model_validator(mode="after")
    def _fits_its_type(self) -> "CadenceConfig":
        faults = list(_misfits(self))
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _misfits(cadence: CadenceConfig) -> list[str]:
    """Each parameter that the cadence's type lacks, or has and must not have."""
    kind = cadence.type
    wants_hour, wants_day = kind in {"daily", "weekdays", "weekly"}, kind == "weekly"
    rules = [
        (wants_hour and cadence.hour_utc is None, f"hour_utc is required by {kind}"),
        (not wants_hour and cadence.hour_utc is not None, f"hour_utc does not go with {kind}: leave it out"),
        (kind == "manual" and bool(cadence.minute_utc), "minute_utc does not go with manual: leave it out"),
        (wants_day and cadence.day_of_week is None, "day_of_week is required by weekly"),
        (not wants_day and cadence.day_of_week is not None, f"day_of_week does not go with {kind}: leave it out"),
    ]
    return [message for broken, message in rules if broken]


class CadencePreview(RequestBody):
    """A cadence to look at before it is saved."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"cadence": {"type": "weekdays", "hour_utc": 9}, "count": 3}]}
    )

    cadence: CadenceConfig
    count: int = Field(default=10, ge=1, le=100, description="How many slots.")


class _RoutineFields(RequestBody):
    """The rules of fields that create and PATCH share."""

    @field_validator("webhook_url", check_fields=False)
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not _WEBHOOK_URL.fullmatch(url):
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

    @field_validator("secret_params", "webhook_secret")
    @classmethod
    def _no_mask(cls, value: Any) -> Any:
        return _refuse_mask(value)


class RunCreate(_RoutineFields):
    """A run to start. In a form `init_params` and `secret_params` are JSON texts, and `files` are its files."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"init_params": {"name": "team"}}]})

    init_params: dict[str, Any] = Field(
        default={}, description="Merged over the task's init_params; each key must be declared there."
    )
    secret_params: dict[SecretName, str] = Field(
        default={}, description="Stored encrypted until the run has ended; in no answer."
    )
    webhook_url: WebhookUrl | None = None
    webhook_secret: str | None = Field(default=None, min_length=1, description="Signs the webhook; in no answer.")
    files: list[Any] = Field(
        default=[], max_length=0, description="In a multipart form: files; their paths become init_params.file_paths."
    )

    @field_validator("secret_params", "webhook_secret")
    @classmethod
    def _no_mask(cls, value: Any) -> Any:
        return _refuse_mask(value)


def _refuse_mask(value: Any) -> Any:
    if value == MASK or (isinstance(value, dict) and MASK in cast("dict[str, str]", value).values()):
        raise ValueError(f"{MASK} stands for a stored value, and there is none yet: send the secret itself")
    return cast("Any", value)


class StatusChanges(RootModel[dict[Annotated[str, Field(pattern=RUN_ID)], Literal["cancelled", "archived"]]]):
    """The status that each of these runs shall have, by its id; all of them or none."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"9876": "cancelled"}]})

    root: dict[Annotated[str, Field(pattern=RUN_ID)], Literal["cancelled", "archived"]] = Field(
        min_length=1, max_length=100
    )


class LabelCreate(RequestBody):
    """A label to put on a run, in the place of the one of this key and author."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key": "rating", "value": 5, "author": "ada"}]})

    key: str = Field(min_length=1, max_length=100, description="What it says something about.")
    value: Annotated[str, StringConstraints(max_length=1000)] | int | float | bool = Field(
        description="A text of at most 1000 characters, a number or a truth value."
    )
    author: str = Field(default="", max_length=100, description="Who says so.")


class EnvironmentPatch(RequestBody):
    """Environment variables to set or to remove; the others stay."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"environment_variables": {"API_URL": "https://example.com"}}]}
    )

    environment_variables: dict[Annotated[str, Field(pattern=ENVIRONMENT_NAME)], str | None] = Field(
        max_length=100, description="By name: null removes, ******** keeps the stored value."
    )


_IGNORED: Any = Field(default=None, description="Kept by the server: accepted and ignored.")


class RoutinePatch(_RoutineFields):
    """What shall change of a routine; a field that is left out keeps its value.

    The server-managed fields are accepted and ignored, so that what GET returned can be sent back whole.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"cadence": {"type": "hourly", "minute_utc": 15}}]})

    name: Slug = Field(default="", validate_default=False)
    cadence: CadenceConfig = Field(default=None, description="Replaced whole.")  # pyright: ignore[reportAssignmentType] - not given, null is refused
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
    id: Any = _IGNORED
    task_name: Any = _IGNORED
    collection_name: Any = _IGNORED
    last_run_at: Any = _IGNORED
    next_run_at: Any = _IGNORED
    overlap_policy: Any = _IGNORED
    paused_reason: Any = _IGNORED
    warnings: Any = _IGNORED


_EXAMPLE_WORKFLOW: dict[str, Any] = {
    "init_params": {"name": "world"},
    "step_configs": {"greet": {"activity": "text_echo", "text_path": "init_params.name"}},
    "steps": ["greet"],
}


class _TaskFields(RequestBody):
    """The rules of fields that create and PUT share."""

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
    """What shall change of a task; a field that is left out keeps its value.

    The times that the server keeps are accepted and ignored, so that what GET returned can be sent back whole.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"description": "Says hello."}]})

    name: Slug = Field(default="", validate_default=False)
    description: str = Field(default="", description="Free text for people.")
    workflow: dict[str, Any] = Field(
        default={}, description="Becomes a new version; runs keep the one they started with."
    )
    created_at: Any = _IGNORED
    updated_at: Any = _IGNORED


Body = TypeVar("Body", bound=BaseModel)
_SECRET_FIELDS = {"secret_params", "webhook_secret", "environment_variables"}
_SHOWN_CHARACTERS = 40
_SAY_ENOUGH = {"missing", "extra_forbidden", "value_error", "too_short", "too_long"}
"""Faults that are clear without what was given."""


def validate(model: type[Body], value: Any) -> Body:
    """The model that this JSON value is.

    Raises:
        FaultsError: It breaks rules; each is named with its field and with what was given, secrets excepted.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise FaultsError([fault for detail in error.errors() for fault in _faults(dict(detail))]) from None


def _faults(detail: dict[str, Any]) -> list[Fault]:
    """The faults that one error of pydantic stands for."""
    location: tuple[int | str, ...] = tuple(part for part in detail["loc"] if part != "[key]")
    field = ".".join(map(str, location))
    if detail["type"] == "workflow":
        return detail["ctx"]["faults"]
    if detail["type"] == "value_error" and field == "cadence":
        # One fault for each parameter, with the parameter's own path.
        messages = str(detail["ctx"]["error"]).split("; ")
        return [Fault(f"cadence.{message.split()[0]}", message.partition(" ")[2]) for message in messages]
    return [Fault(field, _rule(detail) + _given(detail, location))]


def _rule(detail: dict[str, Any]) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "missing":
            return "is required"
        case "string_pattern_mismatch":
            return _PATTERN_RULES[detail["ctx"]["pattern"]]
        case "too_short" | "too_long":
            return "must " + detail["msg"].partition(" should ")[2].partition(" after ")[0]
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be an object"
        case _:
            message = str(detail["msg"]).removeprefix("Value error, ")
            return message.replace("Input should be", "must be").replace("String should", "must").replace("Input", "it")


def _given(detail: dict[str, Any], location: tuple[int | str, ...]) -> str:
    """`, not 24`; nothing where nothing was given, or where it may be a secret."""
    if detail["type"] in _SAY_ENOUGH or (location and location[0] in _SECRET_FIELDS):
        return ""
    text = msgspec.json.encode(detail["input"]).decode()
    return f", not {text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + '…'}"
