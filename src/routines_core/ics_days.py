"""The days that an iCalendar file (RFC 5545) names, for a calendar of excluded days.

Reads the events of a file: their dates, titles and yearly repetitions. Everything else is passed over, above all the
definitions of time zones, which a general parser would compute with. Files come from tenants, so the work is bounded by
the length of the text and the limits below.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

MOST_EVENTS = 2_000
MOST_ENTRIES = 2_000
"""Entries of a calendar; each occurrence of an event is one."""
MOST_STEPS = 200_000
"""Dates that the repetitions of a file may look at."""
YEARS_AHEAD = 10
"""Up to how many years from now a repetition is written out, and beginning with the previous year."""
MOST_LABEL_CHARACTERS = 200
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2199, 12, 31)

_WEEKDAYS = {name: number for number, name in enumerate(("MO", "TU", "WE", "TH", "FR", "SA", "SU"))}
_READ = {"DTSTART", "DTEND", "DURATION", "SUMMARY", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID", "UID", "STATUS"}
_RULE_PARTS = {"FREQ", "INTERVAL", "COUNT", "UNTIL", "BYMONTH", "BYMONTHDAY", "BYDAY", "WKST"}
_DURATION = re.compile(
    r"\+?P(?:(\d{1,5})W|(?:(\d{1,5})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,5})M)?(?:(\d{1,5})S)?)?)", re.ASCII
)
_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?", re.ASCII)
_BY_DAY = re.compile(r"([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,4}", re.ASCII)


class IcsError(ValueError):
    """The file cannot be read; the message says where and why."""


class DayRange(NamedTuple):
    """Dates that an event takes, both included."""

    first: date
    last: date
    label: str | None


class _Property(NamedTuple):
    parameters: dict[str, str]
    value: str


@dataclass
class _Event:
    number: int
    properties: dict[str, list[_Property]] = field(default_factory=dict[str, list[_Property]])

    def first(self, name: str) -> _Property | None:
        found = self.properties.get(name)
        return found[0] if found else None

    def text(self, name: str) -> str:
        found = self.first(name)
        return found.value if found else ""

    def wrong(self, why: str) -> IcsError:
        return IcsError(f"event {self.number}: {why}")


@dataclass
class _Steps:
    """Counts the dates that repetitions look at."""

    left: int = MOST_STEPS

    def take(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise IcsError(f"its repetitions have more than {MOST_STEPS:,} dates to look at")


def days_of(text: str, this_year: int, timezone: str | None = None) -> tuple[list[DayRange], str | None]:
    """Return the days that the events of a file take, and the time zone of the file; None if it names none.

    An event with times takes the days that it touches, on the clocks of `timezone`, by default those of the file. If
    there is neither, its days are those that are written.

    Raises:
        IcsError: The file is malformed, repeats an event in a way that is not supported, or is over a limit.
    """
    events, own_zone = _parse(text)
    zone = _zone(timezone or own_zone)
    replaced = {
        (event.text("UID"), _day(event, found))
        for event in events
        if (found := event.first("RECURRENCE-ID")) and event.text("UID")
    }
    ranges: list[DayRange] = []
    steps = _Steps()
    for event in events:
        if event.text("STATUS").upper() == "CANCELLED":
            continue
        for occurrence in _occurrences(event, replaced, zone, this_year, steps):
            ranges.append(occurrence)
            if len(ranges) > MOST_ENTRIES:
                raise IcsError(f"it has more than {MOST_ENTRIES:,} days or ranges of days")
    return sorted(ranges, key=lambda found: found[:2]), timezone or own_zone


def _parse(text: str) -> tuple[list[_Event], str | None]:
    """Return the events of a file, and its X-WR-TIMEZONE."""
    unfolded = re.sub(r"\n[ \t]", "", text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff"))
    events: list[_Event] = []
    open_parts: list[str] = []
    own_zone = None
    for line in filter(str.strip, unfolded.split("\n")):
        name = re.split("[;:]", line, maxsplit=1)[0].strip().upper()
        if name in {"BEGIN", "END"}:
            _enter_or_leave(open_parts, name, line)
            if name == "BEGIN" and open_parts == _EVENT:
                events.append(_Event(len(events) + 1))
        elif not open_parts:
            raise IcsError("it must begin with BEGIN:VCALENDAR")
        elif open_parts == _EVENT and name in _READ:
            events[-1].properties.setdefault(name, []).append(_property(line))
        elif open_parts == _EVENT[:1] and name == "X-WR-TIMEZONE":
            own_zone = _property(line).value[:100] or None
        if len(events) > MOST_EVENTS:
            raise IcsError(f"it has more than {MOST_EVENTS:,} events")
    if open_parts or not unfolded.strip():
        raise IcsError(f"END:{(open_parts or ['VCALENDAR'])[-1][:40]} is missing")
    return events, own_zone


_EVENT = ["VCALENDAR", "VEVENT"]
_DEPTH = 4
"""Parts within each other: a calendar, a time zone, a kind of time in it, and one to spare."""


def _enter_or_leave(open_parts: list[str], name: str, line: str) -> None:
    part = line.partition(":")[2].strip().upper()
    if name == "BEGIN":
        open_parts.append(part)
        if len(open_parts) > _DEPTH or open_parts[0] != "VCALENDAR":
            raise IcsError("it must begin with BEGIN:VCALENDAR, and its parts must not be nested deeply")
    elif not open_parts or open_parts.pop() != part:
        raise IcsError(f"{line.strip()[:40]!a} ends nothing that has begun")


def _property(line: str) -> _Property:
    is_quoted, colon = False, len(line)
    for position, character in enumerate(line):
        if character == '"':
            is_quoted = not is_quoted
        elif character == ":" and not is_quoted:
            colon = position
            break
    pairs = (part.partition("=") for part in line[:colon].split(";")[1:])
    return _Property({name.strip().upper(): value.strip('" ') for name, _, value in pairs}, line[colon + 1 :].strip())


def _occurrences(
    event: _Event, replaced: set[tuple[str, date]], zone: ZoneInfo | None, this_year: int, steps: _Steps
) -> Iterator[DayRange]:
    start = event.first("DTSTART")
    if start is None:
        raise event.wrong("it has no DTSTART")
    first, last = _first_and_last(event, start, zone)
    length = last - first
    label = _label(event.text("SUMMARY"))
    # Repetitions are computed on the clocks of the event, and may fall on another day in the zone of the calendar.
    written = _day(event, start)
    shift = first - written
    if event.first("RECURRENCE-ID"):
        days = {written}
    else:
        days = set(_repeated(event, written, this_year, steps))
        days |= {_day(event, each) for each in _listed(event, "RDATE")}
        days -= {_day(event, each) for each in _listed(event, "EXDATE")}
        days = {day for day in days if (event.text("UID"), day) not in replaced}
    for day in sorted(days):
        begin, end = day + shift, day + shift + length
        if not FIRST_DAY <= begin <= end <= LAST_DAY:
            raise event.wrong(f"its dates must be in the years {FIRST_DAY.year} to {LAST_DAY.year}")
        yield DayRange(begin, end, label)


def _first_and_last(event: _Event, start: _Property, zone: ZoneInfo | None) -> tuple[date, date]:
    """Return the first and the last day that the event itself touches. DTEND is not part of it."""
    begin = _moment(event, start, zone)
    end_property, duration = event.first("DTEND"), event.text("DURATION")
    if end_property:
        end = _moment(event, end_property, zone)
    elif duration:
        end = begin + _duration(event, duration)
    else:
        end = begin + (timedelta(days=1) if _is_date(start) else timedelta(0))
    if end < begin:
        raise event.wrong("it ends before it begins")
    if end > begin:
        end -= timedelta(microseconds=1)
    return begin.date(), end.date()


def _moment(event: _Event, found: _Property, zone: ZoneInfo | None) -> datetime:
    """Return the time on the clocks of `zone`; as it is written if that cannot be told."""
    time, is_utc = _parse_date(event, found)
    own = UTC if is_utc else _zone(found.parameters.get("TZID"))
    if zone is None or own is None or _is_date(found):
        return time
    try:
        return time.replace(tzinfo=own).astimezone(zone).replace(tzinfo=None)
    except OverflowError:
        raise event.wrong(f"{found.value[:20]} is out of range") from None


def _day(event: _Event, found: _Property) -> date:
    return _parse_date(event, found)[0].date()


def _parse_date(event: _Event, found: _Property) -> tuple[datetime, bool]:
    parts = _DATE.fullmatch(found.value)
    wrong = event.wrong(f"{found.value[:20]!a} is not a date such as 20261224 or 20261224T180000Z")
    if parts is None:
        raise wrong
    year, month, day, hour, minute, second = (int(part or 0) for part in parts.groups()[:6])
    try:
        # A leap second is the last second of its minute.
        time = datetime(year, month, day, hour, minute, min(second, 59))  # noqa: DTZ001 - local
    except ValueError:
        raise wrong from None
    if not FIRST_DAY.year - 1 <= time.year <= LAST_DAY.year + 1:
        raise event.wrong(f"its dates must be in the years {FIRST_DAY.year} to {LAST_DAY.year}")
    return time, parts[7] == "Z"


def _is_date(found: _Property) -> bool:
    return "T" not in found.value


def _duration(event: _Event, text: str) -> timedelta:
    parts = _DURATION.fullmatch(text)
    if parts is None:
        raise event.wrong(f"the DURATION {text[:20]!a} is not supported")
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)


def _listed(event: _Event, name: str) -> Iterator[_Property]:
    for found in event.properties.get(name, ()):
        for value in found.value.split(","):
            yield _Property(found.parameters, value.partition("/")[0].strip())


def _zone(name: str | None) -> ZoneInfo | None:
    """Return the time zone of an IANA name; None for other names, such as those of Windows."""
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError):
        return None


def _label(summary: str) -> str | None:
    text = re.sub(r"\\(.)", lambda found: " " if found[1] in "nN" else found[1], summary)
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return (text if len(text) <= MOST_LABEL_CHARACTERS else text[: MOST_LABEL_CHARACTERS - 1] + "…") or None


# --- repetitions


class _Rule(NamedTuple):
    interval: int
    most: int | None
    until: date
    months: list[int]
    month_days: list[int]
    weekdays: list[tuple[int, int]]


def _repeated(event: _Event, start: date, this_year: int, steps: _Steps) -> Iterator[date]:
    """Return the first date of each occurrence of an event that repeats every year, or of its only one."""
    rules = event.properties.get("RRULE", [])
    if not rules:
        yield start
        return
    if len(rules) > 1:
        raise event.wrong("it has several RRULEs, which is not supported")
    rule = _rule(event, rules[0].value, start)
    horizon = min(date(this_year + YEARS_AHEAD, 12, 31), rule.until, LAST_DAY)
    begin = start.year
    if rule.most is None:  # skip years that nobody asks for
        begin += max(0, this_year - 1 - start.year) // rule.interval * rule.interval
    found = 0
    for year in range(begin, horizon.year + 1, rule.interval):
        for day in _days_of_year(year, rule, steps):
            if day < start:
                continue
            found += 1
            if day > horizon or (rule.most is not None and found > rule.most):
                return
            if day.year >= this_year - 1:
                yield day


def _rule(event: _Event, text: str, start: date) -> _Rule:
    pairs = (part.partition("=") for part in text.upper().split(";") if part)
    parts = {name: value for name, _, value in pairs}
    if parts.get("FREQ") != "YEARLY" or not parts.keys() <= _RULE_PARTS:
        raise event.wrong(
            f"the RRULE {text[:60]!a} is not supported: FREQ must be YEARLY, with INTERVAL, COUNT, UNTIL, BYMONTH, "
            "BYMONTHDAY and BYDAY; for others give each date as an event or an RDATE"
        )
    weekdays = [_BY_DAY.fullmatch(each) for each in parts["BYDAY"].split(",")] if "BYDAY" in parts else []
    if not all(weekdays) or (weekdays and "BYMONTH" not in parts):
        raise event.wrong("BYDAY must be days such as MO or 4TH, beside BYMONTH")
    month_days = _numbers(event, parts, "BYMONTHDAY", -31, 31)
    return _Rule(
        interval=(_numbers(event, parts, "INTERVAL", 1, 1000) or [1])[0],
        most=(_numbers(event, parts, "COUNT", 1, 9999) or [None])[0],
        until=_day(event, _Property({}, parts["UNTIL"])) if "UNTIL" in parts else LAST_DAY,
        months=_numbers(event, parts, "BYMONTH", 1, 12) or ([*range(1, 13)] if month_days else [start.month]),
        month_days=month_days or ([] if weekdays else [start.day]),
        weekdays=sorted({(int(each[1] or 0), _WEEKDAYS[each[2]]) for each in weekdays if each}),
    )


def _numbers(event: _Event, parts: dict[str, str], name: str, low: int, high: int) -> list[int]:
    if name not in parts:
        return []
    texts = parts[name].split(",")
    numbers = {int(text) for text in texts if _NUMBER.fullmatch(text)}
    if len(texts) > 100 or not all(_NUMBER.fullmatch(text) for text in texts) or not numbers:  # noqa: PLR2004 - any list of days is shorter
        raise event.wrong(f"{name} must be numbers from {low} to {high}")
    if not all(low <= number <= high and number for number in numbers):
        raise event.wrong(f"{name} must be numbers from {low} to {high}")
    return sorted(numbers)


def _days_of_year(year: int, rule: _Rule, steps: _Steps) -> Iterator[date]:
    for month in rule.months:
        first = date(year, month, 1)
        length = ((first + timedelta(days=31)).replace(day=1) - first).days
        for number in range(1, length + 1):
            steps.take()
            if _matches(first, number, length, rule):
                yield first.replace(day=number)


def _matches(first: date, number: int, length: int, rule: _Rule) -> bool:
    if rule.month_days and number not in rule.month_days and number - length - 1 not in rule.month_days:
        return False
    if not rule.weekdays:
        return True
    weekday = (first.weekday() + number - 1) % 7
    from_begin, from_end = (number + 6) // 7, -((length - number) // 7 + 1)
    return any(each == weekday and nth in {0, from_begin, from_end} for nth, each in rule.weekdays)
