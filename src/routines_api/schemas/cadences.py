"""Cadences as they are sent and shown. Types and fields are listed only in `routines_core.cadence`."""

from datetime import datetime
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from routines_api.schemas.faults import faults_of
from routines_api.schemas.fields import Bound, RequestBody, Slug, Spread, Time
from routines_core import cadence
from routines_core.cadence import CadenceField, CadenceType
from routines_core.db.planning import PreviewedSlot
from routines_core.errors import Fault

MOVABLE = [each.name for each in cadence.CADENCES if cadence.MINUTE in each.optional]
"""The types of cadence that have a minute."""


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
            faults, checked = faults_of(error), None
        given = cast("dict[str, Any]", value) if checked is None else checked.given()
        if given.get("type") in cadence.NAMES:
            known = {fault.field for fault in faults}
            broken = cadence.broken_rules(given["type"], given)
            faults += [Fault(name, rule) for name, rule in broken if name not in known]
        if checked is None or faults:
            raise PydanticCustomError("cadence", "is not valid", {"faults": faults})
        return checked


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


class CadenceSlots(msgspec.Struct):
    """The coming slots of a cadence that is not saved."""

    slots: Annotated[
        list[datetime | PreviewedSlot],
        Meta(description="The next slot first: times in UTC, or objects if the request has more than a count."),
    ]
    warnings: Annotated[
        list[str] | msgspec.UnsetType,
        Meta(description="What to know before it is saved; absent with a count, and on the pages after the first."),
    ] = msgspec.UNSET


class CadenceFieldRead(msgspec.Struct):
    """How a type of cadence uses a field: a number has a range, a word choices, and a text a format."""

    required: Annotated[bool, Meta(description="Whether it must be given; otherwise it may be left out.")]
    default: Annotated[int | str | None, Meta(description="The value used if it is left out.", examples=[0])]
    minimum: Annotated[int | msgspec.UnsetType, Meta(description="The smallest number allowed.")] = msgspec.UNSET
    maximum: Annotated[int | msgspec.UnsetType, Meta(description="The largest number allowed.")] = msgspec.UNSET
    choices: Annotated[list[str] | msgspec.UnsetType, Meta(description="The words allowed, in display order.")] = (
        msgspec.UNSET
    )
    format: Annotated[
        str | msgspec.UnsetType,
        Meta(description="cron (an expression, or an array of up to 10), timezone (an IANA name) or date-time."),
    ] = msgspec.UNSET
    example: Annotated[str | msgspec.UnsetType, Meta(description="A valid text.")] = msgspec.UNSET


class CadenceTypeRead(msgspec.Struct):
    """A type of cadence. It refuses fields that are not listed here."""

    type: Annotated[str, Meta(description="Its name.", examples=["weekly"])]
    description: Annotated[str, Meta(description="A sentence for people.", examples=["Once a week."])]
    fields: Annotated[dict[str, CadenceFieldRead], Meta(description="The fields that it takes, in display order.")]


def cadence_types() -> list[CadenceTypeRead]:
    """Return the types of cadence that routines may have, in display order."""
    return [
        CadenceTypeRead(each.name, each.description, {field.name: _field_read(each, field) for field in each.fields})
        for each in cadence.CADENCES
    ]


def _field_read(kind: CadenceType, field: CadenceField) -> CadenceFieldRead:
    return CadenceFieldRead(
        required=field in kind.required,
        default=field.default,
        minimum=msgspec.UNSET if field.minimum is None else field.minimum,
        maximum=msgspec.UNSET if field.maximum is None else field.maximum,
        choices=list(field.choices) or msgspec.UNSET,
        format=field.format or msgspec.UNSET,
        example=field.example or msgspec.UNSET,
    )
