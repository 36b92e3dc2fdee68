"""Which slots calendars and active hours exclude, by walking local clocks instead of by stretches of time."""

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Window = tuple[int, int, str, str]
"""The first and last day of the week, 0-6, and the times at which it begins and ends."""


def words_of(window: Window) -> str:
    """Return a window as a person writes it."""
    first, last, begin, end = window
    days = DAYS[first] if first == last else f"{DAYS[first]}-{DAYS[last]}"
    return f"{days} {begin}-{end}"


def is_active(at: datetime, zone: str, windows: Sequence[Window]) -> bool:
    """Return whether the clocks of the zone show a time within one of the windows."""
    local = at.astimezone(ZoneInfo(zone))
    return any(_is_within(local, window) for window in windows)


def _is_within(local: datetime, window: Window) -> bool:
    first, last, begin, end = window
    days = {(first + step) % 7 for step in range((last - first) % 7 + 1)}
    shown = f"{local:%H:%M}"
    today, yesterday = local.weekday(), (local.date() - timedelta(days=1)).weekday()
    if begin < end:
        return today in days and begin <= shown < end
    return (today in days and shown >= begin) or (yesterday in days and shown < end)


def is_excluded_day(at: datetime, zone: str, days: Collection[date]) -> bool:
    """Return whether the clocks of the zone show one of these dates."""
    return at.astimezone(ZoneInfo(zone)).date() in days
