"""Times in query parameters."""

from datetime import datetime
from typing import Any

from routines_api.schemas.times import has_lost_its_plus, parse_time
from routines_core.errors import InvalidError

AS_TIME: Any = {"schema_extra": {"format": "date-time"}}
"""Describes a parameter that is a string, since Litestar would also accept numbers as times."""


def time_of(field: str, text: str) -> datetime:
    """Parse a time in a query parameter.

    Raises:
        InvalidError: It is not a time with a zone, or in no year that the database can represent.
    """
    if has_lost_its_plus(text):
        raise InvalidError(f"{field}: must be a time with a zone. In a URL, + means a space: write it as %2B.", field)
    try:
        return parse_time(text)
    except ValueError as error:
        raise InvalidError(f"{field}: {error}.", field) from None
