"""Tests how a person says when a routine runs: its rhythm, zone and minute, with the slots and the year that follow."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from support.browsing import Console, plain, routine
from support.looks import all_faults
from support.service import Service

pytestmark = pytest.mark.slow


@contextmanager
def machine_in(console: Console, zone: str) -> Generator[None]:
    """Let the browser's machine be in a time zone."""
    override = "Emulation.setTimezoneOverride"
    console.driver.execute_cdp_cmd(override, {"timezoneId": zone})
    try:
        yield
    finally:
        console.driver.execute_cdp_cmd(override, {"timezoneId": ""})


def patches(console: Console) -> list[str]:
    return [str(each["postData"]) for each in console.requests() if each["method"] == "PATCH"]


# --- rhythms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rhythm", "fields", "expression", "words"),
    [
        ("Daily", {}, "30 7 * * *", "Every day at 07:30 Europe/Berlin"),
        ("Weekdays", {}, "30 7 * * mon-fri", "Weekdays at 07:30 Europe/Berlin"),
        ("Weekly", {"day_of_week": "Sunday"}, "30 7 * * sun", "Sundays at 07:30 Europe/Berlin"),
        ("Monthly", {"month_day": "Last day"}, "30 7 L * *", "Monthly on the last day at 07:30 Europe/Berlin"),
        (
            "Monthly",
            {"month_day": "First Monday"},
            "30 7 * * mon#1",
            "Monthly on the first Monday at 07:30 Europe/Berlin",
        ),
        ("Monthly", {"month_day": "Last Friday"}, "30 7 * * 5L", "Monthly on the last Friday at 07:30 Europe/Berlin"),
        ("Monthly", {"month_day": "22nd"}, "30 7 22 * *", "Monthly on the 22nd at 07:30 Europe/Berlin"),
    ],
)
def test_a_rhythm_on_the_clocks_of_a_zone_is_saved_and_read_in_words(
    console: Console, service: Service, rhythm: str, fields: dict[str, str], expression: str, words: str
) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "spoken")
    console.press(rhythm)
    for name, choice in fields.items():
        Select(console.find(f"#cadence-{name}")).select_by_visible_text(choice)
    console.type("#cadence-hour_utc", "7")
    console.type("#cadence-minute_utc", "30")
    console.type("#cadence-timezone", "Europe/Berlin")
    console.sees(words, "#preview")
    console.press("Save routine")
    console.until(lambda: console.title() == "spoken")
    with service.client() as client:
        try:
            console.sees(words, ".lede")
            cadence = client.get("/routines/demo/greet/spoken").json()["cadence"]
            assert (cadence["type"], cadence["expression"], cadence["timezone"]) == (
                "cron",
                expression,
                "Europe/Berlin",
            )
            console.open("#/routines/greet/spoken/edit")
            assert plain(console.find(".cadence-fields input:checked + span")) == rhythm
            assert console.find("#cadence-timezone").get_attribute("value") == "Europe/Berlin"
            console.requests()
            console.press("Save routine")
            console.until(lambda: console.title() == "spoken")
            assert patches(console) == []
        finally:
            client.delete("/routines/demo/greet/spoken")


def test_an_expression_that_people_have_words_for_stays_as_it_was_typed(console: Console, service: Service) -> None:
    cadence = {"type": "cron", "expression": "05  09 * * 1-5", "timezone": "Europe/Berlin"}
    with routine(service, "typed", cadence=cadence) as client:
        console.open("#/routines/greet/typed/edit")
        assert plain(console.find(".cadence-fields input:checked + span")) == "Weekdays"
        console.type("#timeout", "60")
        console.press("Save routine")
        console.until(lambda: console.title() == "typed")
        assert client.get("/routines/demo/greet/typed").json()["cadence"]["expression"] == "05  09 * * 1-5"
        console.open("#/routines/greet/typed/edit")
        console.type("#cadence-timezone", "UTC")
        console.press("Save routine")
        console.until(lambda: console.title() == "typed")
        changed = client.get("/routines/demo/greet/typed").json()["cadence"]
        assert {name: changed[name] for name in ("type", "hour_utc", "minute_utc")} == {
            "type": "weekdays",
            "hour_utc": 9,
            "minute_utc": 5,
        }


def test_every_day_of_the_month_that_is_offered_is_known_to_the_service(console: Console, service: Service) -> None:
    console.open("#/new?task=greet")
    console.press("Monthly")
    days = [str(each.get_attribute("value")) for each in console.all("#cadence-month_day option")]
    assert len(days) == 31 + 3 + 14
    with service.client() as client:
        for day in days:
            is_weekday = "#" in day or (day[0].isdigit() and day.endswith("L"))
            expression = f"0 9 * * {day}" if is_weekday else f"0 9 {day} * *"
            body = {"cadence": {"type": "cron", "expression": expression}, "count": 1}
            answer = client.post("/cadence-preview/demo", json=body)
            assert answer.status_code == 200, (day, answer.text)


@pytest.mark.parametrize(
    ("rhythm", "field", "typed", "place"),
    [
        ("Daily", "#cadence-timezone", "Mars/Base", "cadence.timezone"),
        ("Daily", "#cadence-hour_utc", "24", "cadence.hour_utc"),
        ("Monthly", "#cadence-hour_utc", "", "cadence.hour_utc"),
        ("Once", "#cadence-at", "tomorrow", "cadence.at"),
        ("Every … min", "#cadence-every_minutes", "0", "cadence.every_minutes"),
    ],
)
def test_what_is_no_rhythm_is_refused_at_its_field(
    console: Console, rhythm: str, field: str, typed: str, place: str
) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "refused")
    console.press(rhythm)
    if rhythm in {"Daily", "Monthly"}:
        console.type("#cadence-timezone", "Europe/Berlin")
    console.type(field, typed)
    console.sees("Not valid yet.", "#preview")
    console.press("Save routine")
    console.until(lambda: console.find(f"[data-field='{place}'] .field-error").text)
    assert console.title() == "New routine"


# --- the load of its hour ---------------------------------------------------------------------------------------------


def test_a_quieter_minute_of_the_hour_is_offered_and_taken(console: Console, service: Service) -> None:
    at = {"type": "daily", "hour_utc": 3, "minute_utc": 20}
    with routine(service, "first", cadence=at), routine(service, "second", cadence=at) as client:
        console.open("#/new?task=greet")
        console.type("#name", "third")
        console.press("Daily")
        console.type("#cadence-hour_utc", "3")
        console.type("#cadence-minute_utc", "20")
        console.sees("03:20 has 2 starts, 03:19 none.", ".hour-load")
        assert len(console.all(".minute-bars i")) == 60
        assert "03:20 2 starts" in str(console.find(".hour-load").get_attribute("textContent"))
        console.press("Use 03:19")
        console.sees("Nothing else starts at 03:19.", ".hour-load")
        assert console.focused().get_attribute("id") == "cadence-minute_utc"
        console.sees("Every day at 03:19 UTC", "#preview")
        console.press("Save routine")
        console.until(lambda: console.title() == "third")
        assert client.get("/routines/demo/greet/third").json()["cadence"]["minute_utc"] == 19
        client.delete("/routines/demo/greet/third")


def test_a_routine_that_is_edited_does_not_count_itself(console: Console, service: Service) -> None:
    with routine(service, "alone", cadence={"type": "daily", "hour_utc": 4, "minute_utc": 40}):
        console.open("#/routines/greet/alone/edit")
        console.sees("Nothing else starts at 04:40.", ".hour-load")


def test_the_hour_is_that_of_the_zone_and_goes_with_the_rhythm(console: Console) -> None:
    console.open("#/new?task=greet")
    console.press("Daily")
    console.type("#cadence-hour_utc", "9")
    console.type("#cadence-minute_utc", "10")
    console.type("#cadence-timezone", "Asia/Kolkata")
    console.sees("Nothing else starts at 09:10.", ".hour-load")
    console.sees("03:30 UTC", ".hour-load")
    console.press("Manual")
    console.until(lambda: not console.all(".hour-load > *") and not console.all(".year"))


# --- its slots and its year -------------------------------------------------------------------------------------------


def test_slots_are_shown_in_utc_and_on_local_clocks_with_the_changes_of_these(console: Console) -> None:
    with machine_in(console, "America/New_York"):
        console.open("#/new?task=greet")
        console.sees("America/New_York", "#preview .zones")
        console.sees("Clocks in America/New_York go forward on", "#preview")
        console.sees("an hour later there.", "#preview")
        console.press("Daily")
        console.type("#cadence-hour_utc", "2")
        console.sees("Every day at 02:00 UTC", "#preview")
        # In New York it is still the evening before.
        console.until(
            lambda: len(console.all("#preview li .quiet")) == 10 and "," in console.all("#preview li .quiet")[0].text
        )
        console.type("#cadence-timezone", "Europe/Berlin")
        console.sees("Europe/Berlin", "#preview .zones")
        console.sees("an hour earlier in UTC.", "#preview")
        console.until(lambda: all("02:00 in Europe/Berlin" in plain(each) for each in console.all("#preview li")))


def test_a_slot_that_a_change_of_clocks_moves_says_so(console: Console) -> None:
    console.open("#/new?task=greet")
    console.press("Cron")
    console.type("#cadence-expression", "30 2 * 3 0L\n30 2 * 10 0L")
    console.type("#cadence-timezone", "Europe/Berlin")
    console.sees("Clocks go forward over its time: it runs at the first minute after.", "#preview li")
    console.sees("its time comes twice, and it runs the first time.", "#preview")


@pytest.mark.parametrize(
    ("rhythm", "field", "typed", "words"),
    [
        ("Weekly", "#cadence-hour_utc", "9", "It runs on 5"),
        ("Every … min", "#cadence-every_minutes", "1", "It runs every day."),
        ("Cron", "#cadence-expression", "*/5 * * * *", "More slots than can be counted: up to"),
        ("Cron", "#cadence-expression", "0 */4 * * *", "It runs"),
        ("Once", "#cadence-at", "2126-05-04 09:00", ""),
    ],
)
def test_the_year_shows_on_which_days_it_runs(
    console: Console, rhythm: str, field: str, typed: str, words: str
) -> None:
    console.open("#/new?task=greet")
    console.sees("It runs on 26", ".year")
    console.press(rhythm)
    console.type(field, typed)
    if not words:
        console.until(lambda: not console.all(".year"))
        return
    console.sees(words, ".year figcaption")
    console.until(lambda: len(console.all(".year li")) in {13, 14} or "counted" in words)
    running = len(console.all(".days i:not(.none)"))
    assert running in {52, 53} if rhythm == "Weekly" else running > 30


def test_the_year_is_told_in_words_by_month(console: Console) -> None:
    console.open("#/new?task=greet")
    console.press("Monthly")
    Select(console.find("#cadence-month_day")).select_by_visible_text("15th")

    def told() -> list[str]:
        return [str(each.get_attribute("textContent")) for each in console.all(".year li")]

    console.until(lambda: sum(each.endswith(": 15") for each in told()) == 12)
    assert len(console.all(".days i:not(.none)")) == 12


# --- for everybody ----------------------------------------------------------------------------------------------------


def test_a_weekly_routine_in_a_zone_is_made_with_the_keyboard_alone(console: Console, service: Service) -> None:
    busy = {"type": "weekly", "day_of_week": "fri", "hour_utc": 6, "minute_utc": 45}
    with routine(service, "busy", cadence=busy) as client:
        console.open("#/new?task=greet")
        console.tab_to("name")
        console.keys("by-keyboard")
        console.tab_to("cadence-type")
        console.keys(Keys.ARROW_RIGHT)  # from weekdays to weekly
        console.tab_to("cadence-day_of_week")
        console.keys("Fri")
        console.tab_to("cadence-hour_utc")
        console.keys("6")
        console.tab_to("cadence-minute_utc")
        console.keys("45")
        console.sees("06:45 has 1 start, 06:44 none.", ".hour-load")
        console.tab_to("use-quiet-minute")
        console.keys(Keys.ENTER)
        console.sees("Nothing else starts at 06:44.", ".hour-load")
        console.tab_to("cadence-timezone")
        console.keys("Europe/Berlin", Keys.ESCAPE)
        console.sees("Fridays at 06:44 Europe/Berlin", "#preview")
        console.tab_to("save")
        console.keys(Keys.ENTER)
        console.until(lambda: console.title() == "by-keyboard")
        saved: dict[str, Any] = client.get("/routines/demo/greet/by-keyboard").json()
        client.delete("/routines/demo/greet/by-keyboard")
    assert (saved["cadence"]["expression"], saved["cadence"]["timezone"]) == ("44 6 * * fri", "Europe/Berlin")


def test_the_rhythm_looks_right_everywhere(console: Console, service: Service) -> None:
    at = {"type": "daily", "hour_utc": 3, "minute_utc": 20}
    with routine(service, "beside", cadence=at), machine_in(console, "America/New_York"):
        console.open("#/new?task=greet")
        console.press("Monthly")
        console.type("#cadence-hour_utc", "3")
        console.type("#cadence-minute_utc", "20")
        console.sees("03:20 has 1 start", ".hour-load")
        console.find(".year")
        assert all_faults(console) == []
