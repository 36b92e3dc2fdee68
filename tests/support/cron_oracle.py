"""A second implementation of cron: it walks local days by the contract's rules, with the clocks of zoneinfo."""

import calendar
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
YEARS = 41
"""How long to look for a slot: 29 February comes on a certain weekday every 40 years at the latest."""


@cache
def zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def numbers(field: str, low: int, high: int, names: list[str]) -> set[int]:
    """Return the numbers of a field, without the items that only days have."""
    found: set[int] = set()
    for item in field.split(","):
        if "#" in item or (item not in names and item.endswith(("l", "w"))):
            continue
        span, _, step = item.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = names.index(first) + (low if names is MONTHS else 0) if first in names else int(first)
            end = (
                begin
                if not dash
                else names.index(last) + (low if names is MONTHS else 0)
                if last in names
                else int(last)
            )
        found.update(range(begin, end + 1, int(step or 1)))
    return found


class Cron:
    """One expression."""

    def __init__(self, expression: str) -> None:
        text = MACROS.get(expression.strip().lower(), expression.strip().lower())
        minute, hour, self.day, month, self.weekday = text.split()
        self.is_real_time = minute[0] == "*" or hour[0] == "*"
        self.is_either = self.day[0] != "*" and self.weekday[0] != "*"
        self.times = [(h, m) for h in sorted(numbers(hour, 0, 23, [])) for m in sorted(numbers(minute, 0, 59, []))]
        self.months = numbers(month, 1, 12, MONTHS)
        self.days = numbers(self.day, 1, 31, [])
        self.weekdays = {number % 7 for number in numbers(self.weekday, 0, 7, DAYS)}

    def matches(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        is_day = day.day in self.days or any(self.is_special_day(item, day) for item in self.day.split(","))
        weekday = day.isoweekday() % 7
        is_weekday = weekday in self.weekdays or any(
            self.is_special_weekday(item, day, weekday) for item in self.weekday.split(",")
        )
        return is_day or is_weekday if self.is_either else is_day and is_weekday

    @staticmethod
    def is_special_day(item: str, day: date) -> bool:
        last = calendar.monthrange(day.year, day.month)[1]
        if item == "l":
            return day.day == last
        if not item.endswith("w"):
            return False
        return day.day == nearest_weekday(day.year, day.month, last if item == "lw" else int(item[:-1]))

    @staticmethod
    def is_special_weekday(item: str, day: date, weekday: int) -> bool:
        name, sign, number = item.partition("#")
        if not sign:
            name = item[:-1] if item.endswith("l") else ""
        if not name or (DAYS.index(name) if name in DAYS else int(name) % 7) != weekday:
            return False
        last = calendar.monthrange(day.year, day.month)[1]
        return day.day + 7 > last if not sign else (day.day - 1) // 7 + 1 == int(number)

    def days_from(self, day: date, direction: int) -> Iterator[date]:
        """Yield the matching days from this one on, for YEARS years."""
        for _ in range(12 * YEARS):
            for number in days_of(self, day.year, day.month)[::direction]:
                if (number - day.day) * direction >= 0:
                    yield day.replace(day=number)
            first = day.replace(day=1)
            day = first - DAY if direction < 0 else (first + 31 * DAY).replace(day=1)


@cache
def nearest_weekday(year: int, month: int, wished: int) -> int | None:
    """Return the weekday of a month nearest to a day of it: no two are, since the days of a weekend are neighbours."""
    last = calendar.monthrange(year, month)[1]
    weekdays = [day for day in range(1, last + 1) if date(year, month, day).isoweekday() <= 5]
    return min(weekdays, key=lambda day: abs(day - wished)) if wished <= last else None


@lru_cache(1000)
def cron_of(expression: str) -> Cron:
    return Cron(expression)


@lru_cache(10_000)
def days_of(cron: Cron, year: int, month: int) -> list[int]:
    """Return the matching days of a month."""
    if month not in cron.months:
        return []
    length = calendar.monthrange(year, month)[1]
    return [day for day in range(1, length + 1) if cron.matches(date(year, month, day))]


@lru_cache(100_000)
def moments(local: datetime, name: str, is_real_time: bool) -> list[datetime]:  # noqa: FBT001
    """Return the times in UTC at which a local time counts."""
    here = zone(name)
    both = [local.replace(tzinfo=here, fold=fold).astimezone(UTC) for fold in (0, 1)]
    real = sorted({each for each in both if each.astimezone(here).replace(tzinfo=None) == local})
    if is_real_time or real:
        return real if is_real_time else real[:1]
    moment = min(both)
    while moment.astimezone(here).replace(tzinfo=None) < local:
        moment += MINUTE
    return [moment + MINUTE - timedelta(seconds=moment.astimezone(here).second or 60)]


@cache
def deviation(name: str) -> timedelta:
    """Return twice the largest change of a zone's clocks from one week to the next until 2050, and an hour."""
    weeks = (datetime(1970, 1, 1, tzinfo=UTC) + 7 * number * DAY for number in range(80 * 53))
    offsets = [week.astimezone(zone(name)).utcoffset() or timedelta() for week in weeks]
    return 2 * max(abs(after - before) for before, after in pairwise(offsets)) + timedelta(hours=1)


def search(expression: str, name: str, start: datetime, direction: int) -> datetime | None:
    """Return the nearest slot strictly later than `start`, or the nearest one at or before it.

    A time of the day may count later or earlier than it seems to by its date: clocks were set forward by up to a day,
    or back past midnight. So the search begins that much earlier, and goes on as long after it has found a slot.
    """
    cron, found, most = cron_of(expression), None, deviation(name)
    here = start.astimezone(zone(name)).replace(tzinfo=None)
    for day in cron.days_from((here - direction * most).date(), direction):
        for hour, minute in cron.times[::direction]:
            local = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001
            if (local - here) * direction < -most:
                continue
            if found and (local - found.astimezone(zone(name)).replace(tzinfo=None)) * direction > most:
                return found
            for slot in moments(local, name, cron.is_real_time):
                fits = slot > start if direction > 0 else slot <= start
                if fits and (found is None or (slot - found) * direction < timedelta(0)):
                    found = slot
    return found


def next_slot(expressions: list[str], name: str, after: datetime) -> datetime | None:
    return min(filter(None, (search(each, name, after, +1) for each in expressions)), default=None)


def latest_slot(expressions: list[str], name: str, until: datetime) -> datetime | None:
    return max(filter(None, (search(each, name, until, -1) for each in expressions)), default=None)
