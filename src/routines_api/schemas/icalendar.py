"""Slots as an iCalendar file (RFC 5545). Each is an event of its own, and none a recurrence rule.

Calendar programs know neither cron's days nor what a change of the clocks does to a slot.
"""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from routines_core.db.feeds import FeedRoutine

LINE_BYTES = 75
"""Longer lines are folded."""
REFRESH = "PT1H"
"""How often a calendar program is asked to read the feed again."""
_END = "\r\n"
_ESCAPED = {"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NOTHING = (
    "BEGIN:VTIMEZONE",
    "TZID:UTC",
    "BEGIN:STANDARD",
    "DTSTART:19700101T000000",
    "TZOFFSETFROM:+0000",
    "TZOFFSETTO:+0000",
    "END:STANDARD",
    "END:VTIMEZONE",
)
"""Stands in a calendar without events, since a calendar must have a component."""


def calendar(title: str, routines: Sequence[FeedRoutine]) -> str:
    """Return the calendar of these routines."""
    ends = {routine.complete_until for routine in routines if routine.complete_until}
    text = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Routines//Routines//EN",
        "CALSCALE:GREGORIAN",
        f"NAME:{escape(title)}",
        f"X-WR-CALNAME:{escape(title)}",
        *(f"X-WR-CALDESC:There are too many slots: this calendar is complete until {_stamp(end)}." for end in ends),
        f"REFRESH-INTERVAL;VALUE=DURATION:{REFRESH}",
        f"X-PUBLISHED-TTL:{REFRESH}",
    ]
    events = [event for routine in routines for event in _events(routine)]
    return _lines(text) + "".join(events or [_lines(_NOTHING)]) + _lines(["END:VCALENDAR"])


def _events(routine: FeedRoutine) -> Iterable[str]:
    # A start would do, but programs show an event without a duration as they like.
    minutes = max(1, math.ceil((routine.seconds or 0) / 60))
    shared = _lines(
        [
            f"DTSTAMP:{_stamp(routine.updated_at)}",
            f"DURATION:PT{minutes}M",
            f"SUMMARY:{escape(routine.routine)}",
            f"DESCRIPTION:{escape(routine.cadence)}",
            "STATUS:CONFIRMED",
            "TRANSP:TRANSPARENT",
            "END:VEVENT",
        ]
    )
    for slot in routine.slots:
        start = _stamp(slot)
        # Ids have at most 19 digits, so neither line is too long.
        yield f"BEGIN:VEVENT{_END}UID:{routine.routine_id}-{start}@routines{_END}DTSTART:{start}{_END}{shared}"


def escape(text: str) -> str:
    """Return the value of a TEXT property. Control characters, which none may hold, become spaces."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub(" ", "".join(_ESCAPED.get(each, each) for each in plain))


def fold(line: str) -> str:
    """Return a line folded to LINE_BYTES, without its end and without cutting a character."""
    if len(line.encode()) <= LINE_BYTES:
        return line
    folded, size = list[str](), 0
    for character in line:
        width = len(character.encode())
        if size + width > LINE_BYTES:
            folded.append(f"{_END} ")
            size = 1
        folded.append(character)
        size += width
    return "".join(folded)


def _lines(lines: Iterable[str]) -> str:
    return "".join(fold(line) + _END for line in lines)


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
