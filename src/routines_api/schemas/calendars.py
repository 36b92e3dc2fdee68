"""Days and hours on which routines do not fire, as they are sent and shown."""

from datetime import date
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from routines_api.schemas.fields import IGNORED, RequestBody, Slug, TimeRead, shown_as
from routines_api.schemas.times import parse_day
from routines_core.db.calendars import Calendar


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
    name: Any = IGNORED
    updated_at: Any = IGNORED

    def stored_days(self) -> list[dict[str, str]]:
        """Return the days as they are stored and shown."""
        return [entry.model_dump(mode="json", by_alias=True, exclude_none=True) for entry in self.days]


class RoutineCalendarRead(msgspec.Struct):
    """Days on which a routine does not fire."""

    exclude: Annotated[list[str], Meta(description="Names of calendars.", examples=[["holidays-de"]])]
    on_excluded: Annotated[
        str, Meta(description="skip, next_day or next_business_day: where an excluded slot moves.", examples=["skip"])
    ] = "skip"


class ActiveHoursRead(msgspec.Struct):
    """The times of the week at which a routine may fire."""

    windows: Annotated[list[str], Meta(description="Days and times.", examples=[["mon-fri 08:00-18:00"]])]
    outside: Annotated[
        str, Meta(description="skip, or defer: a slot moves to the beginning of the next window.", examples=["skip"])
    ] = "skip"
    timezone: Annotated[str | msgspec.UnsetType, Meta(description="Of the windows; absent: that of the cadence.")] = (
        msgspec.UNSET
    )


class CalendarDay(msgspec.Struct, omit_defaults=True):
    """A date, or several in a row."""

    from_: Annotated[date, Meta(description="The first date.")] = msgspec.field(name="from")
    to: Annotated[date | msgspec.UnsetType, Meta(description="The last date; absent: the same.")] = msgspec.UNSET
    label: Annotated[str | msgspec.UnsetType, Meta(description="What the days are called; absent: nothing.")] = (
        msgspec.UNSET
    )


class CalendarRead(msgspec.Struct):
    """Days that routines can exclude."""

    name: Annotated[str, Meta(description="Unique in its collection.", examples=["holidays-de"])]
    timezone: Annotated[
        str | None, Meta(description="Whose days they are; null: the time zone of each routine's cadence.")
    ]
    days: Annotated[list[CalendarDay], Meta(description="The dates, as they were given.")]
    updated_at: Annotated[TimeRead, Meta(description="When it was last changed.")]


def calendar_read(calendar: Calendar) -> CalendarRead:
    """Convert a calendar."""
    days = [shown_as(CalendarDay, entry) for entry in calendar.days]
    return CalendarRead(calendar.name, calendar.timezone, days, calendar.updated_at)
