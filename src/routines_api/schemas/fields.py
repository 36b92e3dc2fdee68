"""What schemas have in common: the base classes of request bodies, and the types of fields."""

import re
from datetime import datetime
from typing import Annotated, Any, TypeVar, cast

import msgspec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from routines_api.schemas.times import parse_time
from routines_core.mask import MASK

SLUG = r"^[a-z0-9]([a-z0-9_-]{0,98}[a-z0-9])?$"
"""The same rule as the domain routines.slug."""
SLUG_RULE = "must be 1 to 100 lower-case letters, digits, - or _, starting and ending with a letter or digit"

Slug = Annotated[str, Field(pattern=SLUG, description="A slug.", examples=["morning-regression"])]
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
Bound = Time | None
TimeRead = Annotated[datetime, msgspec.Meta(description="ISO 8601 in UTC.", examples=["2026-05-04T09:00:00Z"])]

WEBHOOK_URL = re.compile(r"(?i:https?)://[^\s/?#@]+([/?#]\S*)?", re.ASCII)
"""The same rule as the constraint routines_webhook_url_is_http."""
WebhookUrl = Annotated[
    str, Field(max_length=2048, description="Called when a run has ended.", examples=["https://example.com/hook"])
]
SecretName = Annotated[str, StringConstraints(min_length=1, max_length=100)]

IGNORED: Any = Field(default=None, description="Managed by the server: accepted and ignored.")

RUN_ID = r"^[1-9][0-9]{0,17}$"
ENVIRONMENT_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
TIME_OF_DAY = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
PATTERN_RULES = {
    SLUG: SLUG_RULE,
    RUN_ID: "must be the id of a run",
    TIME_OF_DAY: "must be a time of day such as 08:00",
    ENVIRONMENT_NAME: "must be a name of 1 to 100 letters, digits and _ that does not begin with a digit",
}


class RequestBody(BaseModel):
    """A request body. Unknown fields are refused, and no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class EmptyBody(RequestBody):
    """The body of an operation without fields: empty, or an empty object."""


class WithWebhook(RequestBody):
    """A request body with a webhook_url."""

    @field_validator("webhook_url", check_fields=False)
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not WEBHOOK_URL.fullmatch(url):
            raise ValueError("must be an http or https URL without user or password")
        return url


class RoutineScope(RequestBody):
    """Some of a collection's routines."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"task": "greet", "routine": "morning-regression"}]})

    task: Slug | None = Field(default=None, description="Only routines of this task; null: of all tasks.")
    routine: Slug | None = Field(default=None, description="Only this routine of the task; null: all of them.")

    @field_validator("routine")
    @classmethod
    def _has_a_task(cls, routine: str | None, info: ValidationInfo) -> str | None:
        if routine is not None and info.data.get("task", "") is None:
            raise ValueError("needs the task that it belongs to")
        return routine


def refuse_mask(value: Any) -> Any:
    """Return a secret, or secrets by name.

    Raises:
        ValueError: One is the mask, which stands for a stored value where none can be stored yet.
    """
    if value == MASK or (isinstance(value, dict) and MASK in cast("dict[str, str]", value).values()):
        raise ValueError(f"{MASK} stands for a stored value, but none is stored yet: send the secret itself")
    return cast("Any", value)


Shape = TypeVar("Shape", bound=msgspec.Struct)


def shown_as(shape: type[Shape], stored: dict[str, Any]) -> Shape:
    """Convert fields that are stored as JSON to the shape in which they are shown; those that are null are not set."""
    return msgspec.convert({name: value for name, value in stored.items() if value is not None}, shape)
