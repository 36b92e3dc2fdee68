"""The iCalendar files of feeds, read back by a library that others wrote."""

from datetime import UTC, datetime, timedelta

import icalendar
from hypothesis import given
from hypothesis import strategies as st

from routines_api.schemas.icalendar import LINE_BYTES, calendar, escape, fold
from routines_core.db.feeds import FeedRoutine
from support.rows import at

SLOTS = [at("2027-03-28 01:00"), at("2027-10-31 00:30")]
ROUTINE = FeedRoutine(
    42, "greet/morning", "cron 30 2 * * * in Europe/Berlin", at("2026-05-01 08:00"), 2999.5, SLOTS, None
)


def test_each_slot_is_an_event_of_its_own() -> None:
    read = icalendar.Calendar.from_ical(calendar("my-org", [ROUTINE]))
    assert read.errors == []
    assert (read["X-WR-CALNAME"], read["VERSION"], "X-WR-CALDESC" in read) == ("my-org", "2.0", False)
    events = list(read.walk("VEVENT"))
    assert [(event["UID"], event.start, event.duration) for event in events] == [
        ("42-20270328T010000Z@routines", SLOTS[0], timedelta(minutes=50)),
        ("42-20271031T003000Z@routines", SLOTS[1], timedelta(minutes=50)),
    ]
    for event in events:
        assert event.errors == []
        assert (event["SUMMARY"], event["DESCRIPTION"]) == ("greet/morning", "cron 30 2 * * * in Europe/Berlin")
        assert event["DTSTAMP"].dt == datetime(2026, 5, 1, 8, tzinfo=UTC)
        assert (event["STATUS"], event["TRANSP"]) == ("CONFIRMED", "TRANSPARENT")
        assert "RRULE" not in event


def test_a_slot_of_a_task_without_completed_runs_lasts_a_minute() -> None:
    routine = FeedRoutine(1, "greet/new", "hourly at minute 5 (UTC)", at("2026-05-01 08:00"), None, SLOTS[:1], None)
    [event] = icalendar.Calendar.from_ical(calendar("my-org", [routine])).walk("VEVENT")
    assert event.duration == timedelta(minutes=1)


def test_a_calendar_without_slots_is_valid_and_has_no_event() -> None:
    read = icalendar.Calendar.from_ical(calendar("my-org/greet", []))
    assert (read["X-WR-CALNAME"], list(read.walk("VEVENT"))) == ("my-org/greet", [])
    assert len(read.subcomponents) == 1  # the standard asks for one


def test_a_calendar_that_was_cut_says_where() -> None:
    routine = FeedRoutine(1, "greet/often", "hourly", at("2026-05-01 08:00"), None, SLOTS[:1], at("2027-03-28 02:00"))
    read = icalendar.Calendar.from_ical(calendar("my-org", [routine, routine]))
    assert read["X-WR-CALDESC"] == "There are too many slots: this calendar is complete until 20270328T020000Z."


def test_lines_end_and_are_folded_as_the_standard_says() -> None:
    long = FeedRoutine(1, f"{'t' * 100}/{'r' * 100}", "ünïcödé " * 40, at("2026-05-01 08:00"), 60, SLOTS, None)
    text = calendar("my-org", [long])
    assert text.endswith("END:VCALENDAR\r\n")
    lines = text.split("\r\n")
    assert not [line for line in lines if "\n" in line or "\r" in line]
    assert max(len(line.encode()) for line in lines) <= LINE_BYTES
    [event, _] = icalendar.Calendar.from_ical(text).walk("VEVENT")
    assert (event["SUMMARY"], event["DESCRIPTION"]) == (long.routine, long.cadence)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\x85\u2028\u2029")))
def test_a_folded_line_unfolds_to_itself(line: str) -> None:
    folded = fold(line)
    assert folded.replace("\r\n ", "") == line
    assert all(len(part.encode()) <= LINE_BYTES for part in folded.split("\r\n"))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_reads_back_as_it_was(text: str) -> None:
    routine = FeedRoutine(1, "greet/r", text, at("2026-05-01 08:00"), None, SLOTS[:1], None)
    [event] = icalendar.Calendar.from_ical(calendar("my-org", [routine])).walk("VEVENT")
    assert event["DESCRIPTION"] == text


def test_control_characters_and_line_ends_cannot_add_a_line() -> None:
    assert escape("a\r\nRRULE:x\rb\x00\x0b\x1b;,\\") == "a\\nRRULE:x\\nb   \\;\\,\\\\"
