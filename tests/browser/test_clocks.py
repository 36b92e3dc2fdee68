"""Tests times by the clock of this machine: one switch for all pages, the zone always said, addresses in UTC."""

import re
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from support.browsing import PAGES, Console, filled, plain, routine
from support.looks import all_faults
from support.sampling import sample
from support.service import Service

pytestmark = pytest.mark.slow
ZONE = re.compile(r"(UTC|GMT[+-]\d+(:\d\d)?|GMT)$")
TIMES = """
    return [...document.querySelectorAll("main time:not([data-relative])")]
      .filter((each) => !each.closest(".log, .preview")).map((each) => each.textContent)
"""


@contextmanager
def machine_in(console: Console, zone: str, *, local: bool = True) -> Generator[None]:
    """Move the browser's machine to a time zone, and show its times."""
    console.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": zone})
    try:
        if local:
            console.driver.execute_script("localStorage.setItem('routines.clock', 'local')")
        yield
    finally:
        console.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})
        console.driver.execute_script("localStorage.clear()")


def test_one_switch_shows_the_times_of_this_machine_and_is_remembered(console: Console) -> None:
    with machine_in(console, "Europe/Berlin", local=False):
        console.open("#/routines/greet/morning")
        console.sees("Sat 9 May, 09:00 UTC", ".ledger")
        assert plain(console.find("#clock")) == "Times in UTC"
        slot = console.find(".ledger time")
        assert slot.get_attribute("title") == "Sat 9 May, 09:00 UTC\nSat 9 May, 11:00 GMT+2"
        address = console.driver.current_url
        console.driver.execute_script("document.querySelector('#clock').focus()")
        ActionChains(console.driver).send_keys(Keys.ENTER).perform()
        console.sees("Sat 9 May, 11:00 GMT+2", ".ledger")
        assert console.focused().get_attribute("id") == "clock"
        assert plain(console.find("#clock")).startswith("Times in GMT+")
        assert str(console.find(".ledger time").get_attribute("title")).endswith("\nSat 9 May, 09:00 UTC")
        assert console.driver.current_url == address
        console.open("#/routines/greet/morning?slot=2026-05-09T09:00:00Z")
        console.sees("Sat 9 May, 11:00 GMT+2", ".ledger")
        ActionChains(console.driver).key_down(Keys.CONTROL).send_keys("k").key_up(Keys.CONTROL).perform()
        ActionChains(console.driver).send_keys("times utc", Keys.ENTER).perform()
        console.sees("Sat 9 May, 09:00 UTC", ".ledger")
        assert console.driver.execute_script("return localStorage.length") == 0


@pytest.mark.parametrize("page", sample([*PAGES], 6))
def test_every_time_says_its_zone(console: Console, service: Service, page: str) -> None:
    with machine_in(console, "Asia/Kolkata"):
        console.open(filled(service, page))
        for time in console.driver.execute_script(TIMES):
            assert time.endswith(" GMT+5:30"), time
    console.open(filled(service, page))
    for time in console.driver.execute_script(TIMES):
        assert time.endswith(" UTC"), time


@pytest.mark.parametrize("page", ["routine", "run", "overview"])
def test_pages_look_well_with_local_times(console: Console, service: Service, page: str) -> None:
    with machine_in(console, "Asia/Kolkata"):
        console.open(filled(service, page))
        assert all_faults(console) == []


def test_times_are_typed_by_the_clock_that_the_field_names(console: Console, service: Service) -> None:
    with machine_in(console, "Europe/Berlin"), routine(service, "abroad") as client:
        console.open("#/routines/greet/abroad")
        console.press("Pause until…")
        console.sees("Until (Europe/Berlin)", "dialog")
        for typed, kept in (
            ("2126-01-04 09:00", "2126-01-04T08:00:00Z"),
            ("2126-07-04 09:00Z", "2126-07-04T09:00:00Z"),
        ):
            console.type("#pause-until-time", typed)
            console.find("#pause-save").click()
            console.until(lambda: not console.all("dialog"))
            assert client.get("/routines/demo/greet/abroad").json()["paused_until"] == kept
            console.press("Change pause…")
        assert console.find("#pause-until-time").get_attribute("value") == "2126-07-04 11:00"
        console.type("#pause-until-time", "2027-03-28 02:30")  # the clock goes from 02:00 to 03:00
        console.find("#pause-save").click()
        console.sees("Write it like 2026-05-04 09:00, in Europe/Berlin.", "dialog")


def test_a_day_ends_when_it_does_at_this_machine(console: Console) -> None:
    """The slot of 9 May, 09:00 UTC, falls on the next day in Kiritimati, 14 hours ahead."""
    with machine_in(console, "Pacific/Kiritimati"):
        console.open("#/routines/greet/morning")
        console.sees("Sat 9 May, 23:00 GMT+14", ".ledger")
        console.type("#until", "2026-05-08\n")
        console.until(lambda: "Sat 9 May" not in console.find(".ledger").text)
        console.sees("Fri 8 May, 23:00 GMT+14", ".ledger")


def test_a_report_of_local_times_has_an_address_in_utc(console: Console) -> None:
    with machine_in(console, "Europe/Berlin"):
        console.open("#/report?from=2026-05-04T00:00:00Z&to=2026-05-10T00:00:00Z")
        console.sees("slots from Mon 4 May, 02:00 GMT+2 to Sun 10 May, 02:00 GMT+2", ".lede")
        assert console.find("#report-from").get_attribute("value") == "2026-05-04 02:00"
        console.type("#report-from", "2026-05-05 02:00")
        console.find("#show").click()
        console.sees("slots from Tue 5 May, 02:00 GMT+2", ".lede")
        assert "from=2026-05-05T00%3A00%3A00Z" in console.driver.current_url


def test_the_switch_asks_before_a_changed_form_is_lost(console: Console) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "half-typed")
    console.find("#clock").click()
    console.sees("Leave without saving?", "dialog")
    console.press("Stay here")
    assert console.find("#name").get_attribute("value") == "half-typed"
    assert plain(console.find("#clock")) == "Times in UTC"
