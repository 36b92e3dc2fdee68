"""The rules of cadences: which types exist, and which fields each type requires, allows or refuses.

The request models, the OpenAPI description, `GET /cadence-types` and the tests all read this table. To add a type, add
a row to `CADENCES`; if it has a new field, also add that to `FIELDS` and to the struct `Cadence` in
`routines_core.db.routines`. The database repeats the rules as constraints, and tests/api/test_cadence_rules.py compares
the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Value: TypeAlias = int | str | None
Format: TypeAlias = Literal["cron", "timezone", "date-time"]


@dataclass(frozen=True)
class CadenceField:
    """A field of a cadence: a number with its range, a word with its choices, or a text with its format.

    Attributes:
        description: One sentence for the API's documentation.
        default: The value of a field that is missing or null. Sending the default is the same as sending nothing.
        minimum: The smallest number allowed; None if it is no number.
        maximum: The largest number allowed; None if it is no number.
        choices: The words allowed, in display order; empty if it is no word.
        format: What a text has to be: a cron expression or an array of them, the IANA name of a time zone, or a time.
        example: A valid text; empty if it is no text.
    """

    name: str
    description: str
    default: Value = None
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    format: Format | None = None
    example: str = ""

    def is_given(self, value: object) -> bool:
        """Return whether a value differs from leaving the field out."""
        return value is not None and value != self.default


@dataclass(frozen=True)
class CadenceType:
    """A type of cadence; it refuses the fields that it neither requires nor takes as optional.

    Attributes:
        description: One sentence for the API's documentation.
        required: Fields that must be given.
        optional: Fields that may be left out.
    """

    name: str
    description: str
    required: tuple[CadenceField, ...] = ()
    optional: tuple[CadenceField, ...] = ()

    @property
    def fields(self) -> tuple[CadenceField, ...]:
        """The fields that this type takes, in display order."""
        return tuple(field for field in FIELDS if field in self.required or field in self.optional)


HOUR = CadenceField("hour_utc", "The hour in UTC.", minimum=0, maximum=23)
MINUTE = CadenceField("minute_utc", "The minute of the hour.", default=0, minimum=0, maximum=59)
DAY_OF_WEEK = CadenceField(
    "day_of_week", "The day of the week in UTC.", choices=("mon", "tue", "wed", "thu", "fri", "sat", "sun")
)
EXPRESSION = CadenceField(
    "expression",
    "A cron expression of five fields, or up to 10 of them: minute, hour, day of month, month, day of week.",
    format="cron",
    example="30 9 * * mon-fri",
)
TIMEZONE = CadenceField(
    "timezone",
    "The IANA name of the time zone in which the expression is read.",
    default="UTC",
    format="timezone",
    example="Europe/Berlin",
)
EVERY_MINUTES = CadenceField("every_minutes", "The minutes from slot to slot.", minimum=1, maximum=525_600)
ANCHOR = CadenceField(
    "anchor",
    "A time from which slots are counted, forwards and backwards; by default the minute in which the routine was made.",
    format="date-time",
    example="2026-05-04T09:00:00Z",
)
AT = CadenceField("at", "The only slot.", format="date-time", example="2026-05-04T09:00:00Z")
FIELDS = (HOUR, MINUTE, DAY_OF_WEEK, EXPRESSION, TIMEZONE, EVERY_MINUTES, ANCHOR, AT)
"""Every field besides `type`, in display order."""

CADENCES = (
    CadenceType("manual", "No schedule: it starts by run-now only."),
    CadenceType("hourly", "Every hour.", optional=(MINUTE,)),
    CadenceType("daily", "Every day.", required=(HOUR,), optional=(MINUTE,)),
    CadenceType("weekdays", "Monday to Friday.", required=(HOUR,), optional=(MINUTE,)),
    CadenceType("weekly", "Once a week.", required=(HOUR, DAY_OF_WEEK), optional=(MINUTE,)),
    CadenceType("cron", "By a cron expression, in any time zone.", required=(EXPRESSION,), optional=(TIMEZONE,)),
    CadenceType("interval", "Every so many minutes.", required=(EVERY_MINUTES,), optional=(ANCHOR,)),
    CadenceType("once", "At one time only.", required=(AT,)),
)
"""Every type, in display order."""
NAMES = tuple(cadence.name for cadence in CADENCES)


def fields_of(type_name: str) -> set[str]:
    """Return the names of the fields that a type takes; `type_name` is one of `NAMES`."""
    return {field.name for cadence in CADENCES if cadence.name == type_name for field in cadence.fields}


def broken_rules(type_name: str, given: Mapping[str, object]) -> list[tuple[str, str]]:
    """Compare the fields given for a cadence with what its type takes; ranges and choices are checked elsewhere.

    Args:
        type_name: One of `NAMES`.
        given: Values by field name; a missing field counts as null.

    Returns:
        The name of each offending field with the rule that it breaks, in display order.
    """
    cadence = next(cadence for cadence in CADENCES if cadence.name == type_name)
    broken: list[tuple[str, str]] = []
    for field in FIELDS:
        value = given.get(field.name)
        if field in cadence.required and value is None:
            broken.append((field.name, f"is required by {type_name}"))
        elif field not in cadence.fields and field.is_given(value):
            broken.append((field.name, f"does not go with {type_name}: leave it out"))
    return broken


def usage(field: CadenceField) -> str:
    """Describe a field and the types that require it or refuse it, in a sentence or two."""
    requiring = [cadence.name for cadence in CADENCES if field in cadence.required]
    refusing = [cadence.name for cadence in CADENCES if field not in cadence.fields]
    rules = [f"required by {_listed(requiring)}"] if requiring else []
    rules += [f"refused on {'the others' if requiring else _listed(refusing)}"] if refusing else []
    return " ".join([field.description, *([f"{'; '.join(rules).capitalize()}."] if rules else [])])


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
