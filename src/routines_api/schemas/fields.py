"""What schemas have in common: the base class of request bodies, and the types of fields."""

from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from routines_api.schemas.times import parse_time

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

Shape = TypeVar("Shape", bound=msgspec.Struct)

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


def shown_as(shape: type[Shape], stored: dict[str, Any]) -> Shape:
    """Convert fields that are stored as JSON to the shape in which they are shown; those that are null are not set."""
    return msgspec.convert({name: value for name, value in stored.items() if value is not None}, shape)
