"""Times and dates that a person sends: RFC 3339, in years that the database and Python can represent."""

import re
from datetime import UTC, date, datetime

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
YEARS = range(1970, 2200)
"""The years that a time may have."""


def parse_time(text: object) -> datetime:
    """Return the time in UTC.

    Raises:
        ValueError: It is not such a time; the message is the rule, without the field.
    """
    wrong = ValueError("must be a time with a zone, for example 2026-05-04T09:00:00Z")
    if not isinstance(text, str) or not _RFC_3339.fullmatch(text):
        raise wrong
    try:
        time = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong from None
    if time.year not in YEARS:
        raise ValueError(f"must be in the years {YEARS.start} to {YEARS.stop - 1}")
    return time


def parse_day(text: object) -> date:
    """Return the date.

    Raises:
        ValueError: It is not a date; the message is the rule, without the field.
    """
    wrong = ValueError("must be a date, for example 2026-12-24")
    if not isinstance(text, str) or not _DATE.fullmatch(text):
        raise wrong
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise wrong from None
    if day.year not in YEARS:
        raise ValueError(f"must be in the years {YEARS.start} to {YEARS.stop - 1}")
    return day


def has_lost_its_plus(text: str) -> bool:
    """Return whether this would be a time if its space were the + that a URL turned into one."""
    return _RFC_3339.fullmatch(text) is None and _RFC_3339.fullmatch(text.replace(" ", "+")) is not None
