"""Days of iCalendar files: what calendars of people and of holidays hold, and what an attacker might send."""

import time
from contextlib import suppress
from datetime import date
from typing import Any

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from routines_core.ics_days import DayRange, IcsError, days_of

YEAR = 2026


def file_of(*events: str, top: str = "") -> str:
    """Return a file of these events, each given by its lines."""
    parts = "".join(f"BEGIN:VEVENT\n{event}\nEND:VEVENT\n" for event in events)
    return f"BEGIN:VCALENDAR\nVERSION:2.0\n{top}{parts}END:VCALENDAR\n".replace("\n", "\r\n")


def days(*events: str, top: str = "", timezone: str | None = None) -> list[DayRange]:
    return days_of(file_of(*events, top=top), YEAR, timezone)[0]


def day(text: str, label: str | None = None) -> DayRange:
    return DayRange(date.fromisoformat(text), date.fromisoformat(text), label)


@pytest.mark.parametrize(
    ("event", "found"),
    [
        ("DTSTART;VALUE=DATE:20261225\nSUMMARY:Christmas", [day("2026-12-25", "Christmas")]),
        ("DTSTART;VALUE=DATE:20261225\nDTEND;VALUE=DATE:20261225", [day("2026-12-25")]),
        ("DTSTART;VALUE=DATE:20261225\nDTEND;VALUE=DATE:20261226", [day("2026-12-25")]),
        (
            "DTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261227\nSUMMARY:Weih\n nacht\n\tten\\, a\\nb\\; \\\\o/",
            [DayRange(date(2026, 12, 24), date(2026, 12, 26), "Weihnachtten, a b; \\o/")],
        ),
        ("DTSTART;VALUE=DATE:20261224\nDURATION:P3D", [DayRange(date(2026, 12, 24), date(2026, 12, 26), None)]),
        ("DTSTART;VALUE=DATE:20261224\nDURATION:P1W", [DayRange(date(2026, 12, 24), date(2026, 12, 30), None)]),
        ("DTSTART:20261224T220000\nDURATION:PT1H59M60S", [day("2026-12-24")]),
        ("DTSTART:20261224T220000\nDURATION:PT2H1S", [DayRange(date(2026, 12, 24), date(2026, 12, 25), None)]),
        ("DTSTART:20261224T180000Z", [day("2026-12-24")]),
        ("DTSTART;TZID=Europe/Berlin:20261224T180000\nDTEND;TZID=Europe/Berlin:20261225T000000", [day("2026-12-24")]),
        (
            'DTSTART;TZID="W: Europe; Standard Time":20261224T180000\nDTEND:20261225T000001',
            [DayRange(date(2026, 12, 24), date(2026, 12, 25), None)],
        ),
        ("DTSTART;VALUE=DATE:20261225\nSTATUS:CANCELLED", []),
        ("DTSTART;VALUE=DATE:20261225\nSUMMARY:" + "x" * 201, [day("2026-12-25", "x" * 199 + "…")]),
        ("DTSTART;VALUE=DATE:20261225\nSUMMARY: \x00\t\\n", [day("2026-12-25")]),
        (
            "DTSTART;VALUE=DATE:20261225\nRDATE;VALUE=DATE:20271224,20281222\nEXDATE;VALUE=DATE:20261225",
            [day("2027-12-24"), day("2028-12-22")],
        ),
        (
            "DTSTART;VALUE=DATE:20261225\nBEGIN:VALARM\nDTSTART;VALUE=DATE:20200101\nSUMMARY:alarm\nEND:VALARM",
            [day("2026-12-25")],
        ),
    ],
)
def test_an_event_takes_the_days_that_it_touches(event: str, found: list[DayRange]) -> None:
    assert days(event) == found


@pytest.mark.parametrize(
    ("event", "zone", "found"),
    [
        ("DTSTART:20261224T233000Z\nDTEND:20261224T234500Z", "Europe/Berlin", "2026-12-25"),
        ("DTSTART;TZID=America/New_York:20261224T200000\nDURATION:PT1H", "Europe/Berlin", "2026-12-25"),
        ("DTSTART:20261224T200000\nDURATION:PT1H", "Asia/Tokyo", "2026-12-24"),
        ("DTSTART;TZID=Eastern Standard Time:20261224T200000\nDURATION:PT1H", "Asia/Tokyo", "2026-12-24"),
        ("DTSTART;VALUE=DATE:20261224", "Asia/Tokyo", "2026-12-24"),
    ],
)
def test_an_event_with_times_takes_days_on_the_clocks_of_the_calendar(event: str, zone: str, found: str) -> None:
    assert days(event, timezone=zone) == [day(found)]
    assert days_of(file_of(event, top=f"X-WR-TIMEZONE:{zone}\n"), YEAR) == ([day(found)], zone)


def test_the_time_zone_that_is_asked_for_comes_before_that_of_the_file() -> None:
    file = file_of("DTSTART:20261224T233000Z", top="X-WR-TIMEZONE:Europe/Berlin\n")
    assert days_of(file, YEAR, "UTC") == ([day("2026-12-24")], "UTC")


def test_an_occurrence_that_was_moved_or_cancelled_replaces_the_one_of_its_rule() -> None:
    master = "UID:a\nDTSTART;VALUE=DATE:20250501\nRRULE:FREQ=YEARLY;COUNT=4\nSUMMARY:May Day"
    moved = "UID:a\nRECURRENCE-ID;VALUE=DATE:20260501\nDTSTART;VALUE=DATE:20260504\nSUMMARY:moved"
    cancelled = "UID:a\nRECURRENCE-ID;VALUE=DATE:20270501\nDTSTART;VALUE=DATE:20270501\nSTATUS:CANCELLED"
    found = [day("2025-05-01", "May Day"), day("2026-05-04", "moved"), day("2028-05-01", "May Day")]
    assert days(moved, master, cancelled) == found


@st.composite
def yearly_rules(draw: Any) -> tuple[date, str]:
    start = draw(st.dates(date(1990, 1, 1), date(2030, 12, 31)))
    parts = ["FREQ=YEARLY"]
    if draw(st.booleans()):
        parts.append(f"INTERVAL={draw(st.integers(1, 5))}")
    bound = draw(st.sampled_from(["", "COUNT", "UNTIL"]))
    if bound:
        until = draw(st.dates(start, date(2045, 12, 31)))
        parts.append(f"COUNT={draw(st.integers(1, 60))}" if bound == "COUNT" else f"UNTIL={until:%Y%m%d}")
    months = draw(st.lists(st.integers(1, 12), min_size=1, max_size=3, unique=True))
    has_weekdays, has_days = draw(st.booleans()), draw(st.booleans())
    if has_weekdays or draw(st.booleans()):
        parts.append("BYMONTH=" + ",".join(map(str, months)))
    if has_weekdays:
        names = st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"])
        nth = "" if has_days else draw(st.sampled_from(["", "1", "4", "+5", "-1"]))
        parts.append(f"BYDAY={nth}{draw(names)}")
    if has_days:
        numbers = st.lists(st.integers(1, 31) | st.integers(-31, -1), min_size=1, max_size=8, unique=True)
        parts.append("BYMONTHDAY=" + ",".join(map(str, draw(numbers))))
    return start, ";".join(parts)


@settings(deadline=None)
@given(yearly_rules())
def test_yearly_repetitions_are_those_that_dateutil_finds(case: tuple[date, str]) -> None:
    start, rule = case
    naive = f"DTSTART:{start:%Y%m%d}T000000\nRRULE:{rule}"
    first, horizon = date(YEAR - 1, 1, 1), date(YEAR + 10, 12, 31)
    expected: list[date] = []
    for found in rrulestr(naive):
        if found.date() > horizon or found.year > horizon.year:
            break
        if found.date() >= first:
            expected.append(found.date())
    found_days = days(f"DTSTART;VALUE=DATE:{start:%Y%m%d}\nRRULE:{rule}")
    assert [each.first for each in found_days] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "END:VCALENDAR is missing"),
        ("{}", "it must begin with BEGIN:VCALENDAR"),
        ("BEGIN:VEVENT\nEND:VEVENT", "it must begin with BEGIN:VCALENDAR, and its parts must not be nested deeply"),
        ("BEGIN:VCALENDAR\n" * 9, "it must begin with BEGIN:VCALENDAR, and its parts must not be nested deeply"),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VCALENDAR", "'END:VCALENDAR' ends nothing that has begun"),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT", "END:VEVENT is missing"),
        (file_of("SUMMARY:x"), "event 1: it has no DTSTART"),
        (file_of("DTSTART:20261224", "DTSTART:2026-12-24"), "event 2: '2026-12-24' is not a date"),
        (file_of("DTSTART:20260230"), "event 1: '20260230' is not a date"),
        (file_of("DTSTART:20261224T250000"), "event 1: '20261224T250000' is not a date"),
        (file_of("DTSTART:00010101"), "event 1: its dates must be in the years 1970 to 2199"),
        (file_of("DTSTART:19690101"), "event 1: its dates must be in the years 1970 to 2199"),
        (file_of("DTSTART:21991231\nDURATION:P2D"), "event 1: its dates must be in the years 1970 to 2199"),
        (file_of("DTSTART:20261224\nDTEND:20261223"), "event 1: it ends before it begins"),
        (file_of("DTSTART:20261224\nDURATION:-P1D"), "event 1: the DURATION '-P1D' is not supported"),
        (file_of("DTSTART:20261224\nRRULE:FREQ=WEEKLY"), "event 1: the RRULE 'FREQ=WEEKLY' is not supported"),
        (file_of("DTSTART:20261224\nRRULE:FREQ=YEARLY;BYSETPOS=1"), "event 1: the RRULE "),
        (file_of("DTSTART:20261224\nRRULE:FREQ=YEARLY;BYDAY=MO"), "event 1: BYDAY must be days such as MO or 4TH"),
        (file_of("DTSTART:20261224\nRRULE:FREQ=YEARLY;INTERVAL=0"), "event 1: INTERVAL must be numbers from 1 to 1000"),
        (file_of("DTSTART:20261224\nRRULE:FREQ=YEARLY\nRRULE:FREQ=YEARLY"), "event 1: it has several RRULEs"),
        (file_of(*["DTSTART:20261224"] * 2001), "it has more than 2,000 events"),
        (
            file_of(*["DTSTART:20261224\nRRULE:FREQ=YEARLY"] * 200),
            "it has more than 2,000 days or ranges of days",
        ),
    ],
)
def test_a_file_is_refused_with_the_event_and_the_reason(text: str, message: str) -> None:
    with pytest.raises(IcsError) as refused:
        days_of(text, YEAR)
    assert str(refused.value).startswith(message)


ALL_MONTHS = "BYMONTH=" + ",".join(map(str, range(1, 13)))
MEBIBYTE = 2**20


@pytest.mark.parametrize(
    "text",
    [
        file_of(*[f"DTSTART:19700101\nRRULE:FREQ=YEARLY;COUNT=9999;{ALL_MONTHS};BYMONTHDAY=31;BYDAY=MO"] * 2000),
        file_of(*[f"DTSTART:19700101\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30;COUNT={n}" for n in range(1, 1500)]),
        file_of("DTSTART:20261224\nRRULE:FREQ=YEARLY;BYMONTH=1;BYDAY=" + ",".join(["MO"] * (MEBIBYTE // 3))),
        file_of("DTSTART:20261224\nRRULE:FREQ=SECONDLY;COUNT=999999999"),
        file_of("DTSTART:20261224\nRDATE:" + ",".join(["20261224"] * (MEBIBYTE // 9))),
        file_of("DTSTART" + ";A=B" * (MEBIBYTE // 4) + ":20261224"),
        file_of("DTSTART;TZID=" + '"' * MEBIBYTE),
        file_of("SUMMARY:" + "\\" * MEBIBYTE),
        file_of("SUMMARY:" + "\n " * (MEBIBYTE // 2)),
        "BEGIN:VCALENDAR\n" + "BEGIN:A\nEND:A\n" * (MEBIBYTE // 14),
        "BEGIN:" * (MEBIBYTE // 6),
        "\n" * MEBIBYTE,
        file_of(*[f"DTSTART;TZID=../../etc/{n}:20261224T000000" for n in range(2000)], top="X-WR-TIMEZONE:UTC\n"),
    ],
    ids=range(13),
)
def test_a_hostile_file_of_a_mebibyte_takes_little_time(text: str) -> None:
    began = time.process_time()
    with suppress(IcsError):
        days_of(text, YEAR)
    assert time.process_time() - began < 3
