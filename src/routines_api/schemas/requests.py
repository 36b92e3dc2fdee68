"""Request bodies: pydantic models that refuse unknown fields."""

import re
from datetime import date, datetime
from itertools import islice
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    RootModel,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from routines_api.schemas.times import parse_day, parse_time
from routines_core import cadence
from routines_core.cadence import CadenceField
from routines_core.errors import Fault, FaultsError
from routines_core.mask import MASK
from routines_workflow.checks import check_workflow

SLUG = r"^[a-z0-9]([a-z0-9_-]{0,98}[a-z0-9])?$"
"""The same rule as the domain routines.slug."""
SLUG_RULE = "must be 1 to 100 lower-case letters, digits, - or _, starting and ending with a letter or digit"

_WEBHOOK_URL = re.compile(r"(?i:https?)://[^\s/?#@]+([/?#]\S*)?", re.ASCII)
"""The same rule as the constraint routines_webhook_url_is_http."""

Slug = Annotated[str, Field(pattern=SLUG, description="A slug.", examples=["morning-regression"])]
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

Spread = Annotated[
    int | None,
    Field(
        ge=0,
        le=3600,
        description="Each slot fires up to this many seconds after its time, always by the same offset. "
        "Must be below the shortest time between two slots. 0 or null: no spread.",
    ),
]

Time = Annotated[
    datetime, BeforeValidator(parse_time), WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation")
]
"""A time in RFC 3339 with a zone, in UTC."""
PauseEnd = Annotated[Time, Field(description="Must be in the future.", examples=["2127-01-04T08:00:00Z"])]
Bound = Time | None
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

MOVABLE = [each.name for each in cadence.CADENCES if cadence.MINUTE in each.optional]
"""The types of cadence that have a minute."""
RUN_ID = r"^[1-9][0-9]{0,17}$"
ENVIRONMENT_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
_PATTERN_RULES = {
    SLUG: SLUG_RULE,
    RUN_ID: "must be the id of a run",
    ENVIRONMENT_NAME: "must be a name of 1 to 100 letters, digits and _ that does not begin with a digit",
}


class RequestBody(BaseModel):
    """A request body. Unknown fields are refused, and no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class EmptyBody(RequestBody):
    """The body of an operation without fields: empty, or an empty object."""


def _expression(value: Any) -> Any:
    """Check the shape of a cron expression; the database parses it."""
    texts = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not 1 <= len(texts) <= MOST_EXPRESSIONS or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"must be a string, or an array of 1 to {MOST_EXPRESSIONS} strings")
    return cast("Any", value)


MOST_EXPRESSIONS = 10
"""Cron expressions of a cadence."""
_EXPRESSION_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_EXPRESSIONS},
    ]
}
_FORMATS: dict[str, Any] = {
    "cron": Annotated[Any, BeforeValidator(_expression), WithJsonSchema(_EXPRESSION_SCHEMA)],
    "timezone": str,
    "date-time": Time,
}
"""The type of a text in a cadence, by its format."""


def _field(field: CadenceField) -> tuple[Any, Any]:
    """The type and the rules of a cadence's field, as pydantic's `create_model` takes them."""
    kind: Any = _FORMATS[field.format] if field.format else Literal[field.choices] if field.choices else int
    rules = Field(default=field.default, ge=field.minimum, le=field.maximum, description=cadence.usage(field))
    return kind | None, rules


# Generated, so that routines_core.cadence is the only place that lists types and fields.
_TYPE: Any = Literal[cadence.NAMES]
_CADENCE_FIELDS: dict[str, Any] = {
    "type": (_TYPE, Field(description="How often; weekdays means Monday to Friday.", examples=["weekdays"])),
    **{field.name: _field(field) for field in cadence.FIELDS},
}
_CadenceFields: type[RequestBody] = create_model("_CadenceFields", __base__=RequestBody, **_CADENCE_FIELDS)


class CadenceConfig(_CadenceFields):
    """When the slots fall. Sending null, or a field's default, is the same as leaving the field out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "weekdays", "hour_utc": 9, "minute_utc": 0}]})

    def given(self) -> dict[str, Any]:
        """Return the fields that are not null, `type` among them."""
        return self.model_dump(exclude_none=True)

    def used(self) -> dict[str, Any]:
        """Return those of them that the type takes."""
        given = self.given()
        taken = {"type", *cadence.fields_of(given["type"])}
        return {name: value for name, value in given.items() if name in taken}

    @model_validator(mode="wrap")
    @classmethod
    def _fits_its_type(cls, value: Any, handler: ModelWrapValidatorHandler["CadenceConfig"]) -> "CadenceConfig":
        """Report the rules that the type's fields break beside the faults of each field by itself."""
        faults: list[Fault] = []
        try:
            checked = handler(value)
        except ValidationError as error:
            if not isinstance(value, dict):
                raise
            faults, checked = _faults_of(error), None
        given = cast("dict[str, Any]", value) if checked is None else checked.given()
        if given.get("type") in cadence.NAMES:
            known = {fault.field for fault in faults}
            broken = cadence.broken_rules(given["type"], given)
            faults += [Fault(name, rule) for name, rule in broken if name not in known]
        if checked is None or faults:
            raise PydanticCustomError("cadence", "is not valid", {"faults": faults})
        return checked


class RoutinePause(RequestBody):
    """How long a pause lasts, and why. The body may be left out."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"until": "2127-01-04T08:00:00Z", "note": "office closed"}]}
    )

    until: PauseEnd | None = Field(default=None, description="When it ends by itself; null: when someone resumes it.")
    note: PauseNote | None = Field(default=None, description="Shown with the pause and with each slot in it.")


class CadencePreview(RequestBody):
    """A cadence to preview before it is saved.

    With `count` the answer has the next slots only. With `from`, `to`, `starts_at`, `ends_at` or `task` it has the
    slots of up to a year, with their local time, and warnings.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"cadence": {"type": "weekdays", "hour_utc": 9}, "count": 3},
                {
                    "cadence": {"type": "cron", "expression": "30 2 * * *", "timezone": "Europe/Berlin"},
                    "from": "2127-01-01T00:00:00Z",
                    "to": "2128-01-01T00:00:00Z",
                },
            ]
        }
    )

    cadence: CadenceConfig
    count: int = Field(default=10, ge=1, le=100, description="How many slots; not with the fields from `from` on.")
    spread_seconds: Spread = Field(
        default=None, description="Checked as for a routine. The slots stay as they are: their offset comes with an id."
    )
    since: Bound = Field(
        default=None, alias="from", description="Only slots at this time or later; null: from now, if `to` is given."
    )
    to: Bound = Field(default=None, description="Only slots before this time, at most 366 days after `from`.")
    starts_at: Bound = Field(default=None, description="No slot is earlier; null: no bound.")
    ends_at: Bound = Field(default=None, description="No slot is later; null: no bound.")
    task: Slug | None = Field(
        default=None, description="A task: warns if its runs usually take longer than the time between two slots."
    )

    @property
    def is_long(self) -> bool:
        """Whether it asks for more than the next `count` slots."""
        return any(each is not None for each in (self.since, self.to, self.starts_at, self.ends_at, self.task))


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


class CadenceSuggest(RequestBody):
    """A wished cadence, for which to find a quiet minute."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"cadence": {"type": "weekdays", "hour_utc": 9}, "window_minutes": 15}]}
    )

    cadence: CadenceConfig
    window_minutes: int = Field(
        default=30, ge=1, le=180, description="How far from the wish a suggestion may be, in either direction."
    )

    @field_validator("cadence")
    @classmethod
    def _has_a_minute(cls, wish: CadenceConfig) -> CadenceConfig:
        name = wish.given()["type"]
        if name not in MOVABLE:
            raise ValueError(f"must be {', '.join(MOVABLE[:-1])} or {MOVABLE[-1]}: {name} has no minute to move")
        return wish


class _Exclusion(RequestBody):
    def stored(self) -> dict[str, Any]:
        """Return the fields as they are stored and shown: without those that are null."""
        return self.model_dump(exclude_none=True)


class RoutineCalendar(_Exclusion):
    """Days on which a routine does not fire."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"exclude": ["holidays-de"], "on_excluded": "next_business_day"}]}
    )

    exclude: list[Slug] = Field(min_length=1, max_length=10, description="Names of calendars of the collection.")
    on_excluded: Literal["skip", "next_day", "next_business_day"] = Field(
        default="skip",
        description="Where an excluded slot moves: to the same local time on the first day that is not excluded; "
        "next_business_day also passes over weekends. It does not move if the next slot comes no later.",
    )


class ActiveHours(_Exclusion):
    """The times of the week at which a routine may fire."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"timezone": "Europe/Berlin", "windows": ["mon-fri 08:00-18:00"]}]}
    )

    timezone: str | None = Field(
        default=None, description="An IANA name; null: that of the cadence, which is UTC for all types but cron."
    )
    windows: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] = Field(
        min_length=1,
        max_length=20,
        description="Days and times such as mon-fri 08:00-18:00 or sat,sun 22:00-06:00. The end does not belong to it.",
    )
    outside: Literal["skip", "defer"] = Field(
        default="skip",
        description="defer: a slot outside moves to the beginning of the next window if no other slot comes before.",
    )


Day = Annotated[
    date, BeforeValidator(parse_day), WithJsonSchema({"type": "string", "format": "date"}, mode="validation")
]


class CalendarDays(RequestBody):
    """A date, or several in a row."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"from": "2026-12-24", "to": "2026-12-26", "label": "Christmas"}]}
    )

    from_: Day = Field(alias="from", description="The first date.")
    to: Day | None = Field(default=None, description="The last date; null: the same.")
    label: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None, description="What the ledger says about a slot on these days; null: the name of the calendar."
    )


class CalendarPut(RequestBody):
    """A calendar to save. What a GET returned may be sent back whole."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"days": [{"from": "2026-12-24", "to": "2026-12-26", "label": "Christmas"}], "timezone": None}]
        }
    )

    days: list[CalendarDays] = Field(max_length=2000, description="At most 10,000 dates, in the years 1970 to 2199.")
    timezone: str | None = Field(
        default=None,
        description="Whose days they are, as an IANA name; null: the time zone of each routine's cadence.",
    )
    name: Any = Field(default=None, description="Managed by the server: accepted and ignored.")
    updated_at: Any = Field(default=None, description="Managed by the server: accepted and ignored.")

    def stored_days(self) -> list[dict[str, str]]:
        """Return the days as they are stored and shown."""
        return [entry.model_dump(mode="json", by_alias=True, exclude_none=True) for entry in self.days]


class _RoutineFields(RequestBody):
    """Rules for fields that creating and updating share."""

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
    starts_at: Bound = Field(default=None, description="No slot is earlier; null: no bound.")
    ends_at: Bound = Field(default=None, description="No slot is later; null: no bound.")
    spread_seconds: Spread = None
    calendar: RoutineCalendar | None = Field(default=None, description="Days on which it does not fire; null: none.")
    active_hours: ActiveHours | None = Field(
        default=None, description="The times of the week at which it may fire; null: at any time."
    )
    init_params_from_slot: ParamsFromSlot = None
    timeout_seconds: Timeout = None

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


Body = TypeVar("Body", bound=BaseModel)
_SECRET_FIELDS = {"secret_params", "webhook_secret", "environment_variables"}
_SHOWN_CHARACTERS = 40
_SHOWN_FIELD = 500
"""Characters of a field's path that are shown; the names in it may come from the body."""
MOST_FAULTS = 100
"""Faults of a body that are listed."""
_SAY_ENOUGH = {"missing", "extra_forbidden", "value_error", "too_short", "too_long"}
"""Types of faults whose message is clear without the value given."""


def validate(model: type[Body], value: Any) -> Body:
    """Parse a JSON value as a model.

    Raises:
        FaultsError: It breaks rules. Each is named with its field and, unless it may be a secret, the value given.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise FaultsError(_faults_of(error)) from None


def _faults_of(error: ValidationError) -> list[Fault]:
    """Convert pydantic's errors to our faults, the first MOST_FAULTS of them."""
    faults = (fault for detail in error.errors() for fault in _faults(dict(detail)))
    return list(islice(faults, MOST_FAULTS))


def _faults(detail: dict[str, Any]) -> list[Fault]:
    """Convert one of pydantic's errors to our faults."""
    location: tuple[int | str, ...] = tuple(part for part in detail["loc"] if part != "[key]")
    field = ".".join(map(str, location))[:_SHOWN_FIELD]
    if detail["type"] == "workflow":
        return detail["ctx"]["faults"]
    if detail["type"] == "cadence":
        return [Fault(".".join(filter(None, [field, fault.field])), fault.message) for fault in detail["ctx"]["faults"]]
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
    """Return the value given, as in `, not 24`; empty if there is none or it may be a secret."""
    if detail["type"] in _SAY_ENOUGH or (location and location[0] in _SECRET_FIELDS):
        return ""
    text = msgspec.json.encode(detail["input"]).decode()
    return f", not {text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + '…'}"
