"""Tests when a routine does not run: before or after a time, on days of calendars, outside active hours."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from selenium.webdriver.support.ui import Select

from support.browsing import Console, plain, routine
from support.looks import all_faults
from support.service import Service

pytestmark = pytest.mark.slow
PLACE = ".days-and-hours"
FIELDS = {"starts_at", "ends_at", "calendar", "active_hours"}


@contextmanager
def calendar(service: Service, name: str) -> Generator[None]:
    """Save a calendar with the day after tomorrow in it for the time of a test."""
    day = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    body = {"days": [{"from": day, "label": "Office closed"}], "timezone": "UTC"}
    with service.client() as client:
        assert client.put(f"/calendars/demo/{name}", json=body).status_code == 200
        try:
            yield
        finally:
            client.delete(f"/calendars/demo/{name}")


def save(console: Console) -> list[dict[str, Any]]:
    """Save the routine, and return the bodies that were sent."""
    console.requests()
    console.press("Save routine")
    console.until(lambda: console.title() == "limited")
    sent = [each for each in console.requests() if each["method"] in {"POST", "PATCH"} and "/routines/" in each["url"]]
    return [json.loads(each["postData"]) for each in sent]


def edit(console: Console) -> None:
    console.open("#/routines/greet/limited/edit")
    console.find("#preview li")


def is_open(console: Console) -> bool:
    return bool(console.all(f"{PLACE}[open]"))


def test_days_and_hours_are_set_previewed_kept_and_removed(console: Console, service: Service) -> None:
    with calendar(service, "office"), service.client() as client:
        console.open("#/new?task=greet")
        console.type("#name", "limited")
        console.press("Daily")
        assert not is_open(console)
        console.find(f"{PLACE} summary").click()

        # The preview knows what is left out, and what is no window.
        console.find("#calendar-office").click()
        console.sees("left out: Office closed", "#preview")
        Select(console.find("#on-excluded")).select_by_value("next_business_day")
        console.sees("moves to the next business day, unless the next slot comes first.", "#preview")
        console.type("#windows", "weekdays")
        console.sees("Not valid yet. Only in these hours: weekdays is no window", "#preview")
        console.press("Save routine")
        console.sees("Entry 1: must be days and times such as mon-fri", "[data-field='active_hours.windows']")
        console.type("#windows", "mon-fri 08:00-18:00\nsat 22:00-06:00")
        console.sees("left out: outside active hours", "#preview")
        console.sees("It runs on 26", ".year")

        # An error is shown at its field, also where that was closed.
        console.type("#starts-at", "2127-01-04 09:00")
        console.sees("The year from Sat 4 Jan 2127", ".year")
        console.type("#ends-at", "2127-01-01")
        console.sees("Not valid yet. No slot after: must not be earlier than starts_at", "#preview")
        console.find(f"{PLACE} summary").click()
        console.press("Save routine")
        console.sees("Must not be earlier than starts_at", "[data-field=ends_at]")
        assert is_open(console)
        assert console.focused().get_attribute("id") == "ends-at"
        console.type("#ends-at", "2127-02-01")
        console.sees("It runs on 20 days", ".year")
        assert all_faults(console) == []
        console.screen(1280, 900)
        save(console)
        console.sees("not before Sat 4 Jan 2127, 09:00 UTC", "aside")
        saved = client.get("/routines/demo/greet/limited").json()
        assert {name: saved[name] for name in FIELDS} == {
            "starts_at": "2127-01-04T09:00:00Z",
            "ends_at": "2127-02-01T00:00:00Z",
            "calendar": {"exclude": ["office"], "on_excluded": "next_business_day"},
            "active_hours": {"windows": ["mon-fri 08:00-18:00", "sat 22:00-06:00"], "outside": "skip"},
        }

        # An edit sends only what was changed, and drops nothing that the form shows less precisely.
        client.patch("/routines/demo/greet/limited", json={"starts_at": "2127-01-04T09:00:00.25Z"})
        edit(console)
        assert is_open(console)
        assert "Not on days of office" in plain(console.find(f"{PLACE} summary"))
        assert save(console) == []
        edit(console)
        Select(console.find("#outside")).select_by_value("defer")
        assert save(console) == [{"active_hours": {**saved["active_hours"], "outside": "defer"}}]
        edit(console)
        for field in ("#starts-at", "#ends-at", "#windows"):
            console.type(field, "")
        console.find("#calendar-office").click()
        assert save(console) == [dict.fromkeys(("starts_at", "ends_at", "calendar", "active_hours"))]
        assert not FIELDS & client.get("/routines/demo/greet/limited").json().keys()
        edit(console)
        assert not is_open(console)
        client.delete("/routines/demo/greet/limited")


def test_the_preview_leaves_out_what_the_service_leaves_out(console: Console, service: Service) -> None:
    limits = {
        "calendar": {"exclude": ["closed"], "on_excluded": "skip"},
        "active_hours": {"timezone": "Asia/Kolkata", "windows": ["fri-mon 21:30-03:00", "wed 00:00-24:00"]},
    }
    cadence = {"type": "cron", "expression": "5 */2 * * *", "timezone": "America/New_York"}
    with calendar(service, "closed"), routine(service, "limited", cadence=cadence, **limits) as client:
        coming = client.get("/routines/demo/greet/limited/next?count=10").json()["slots"]
        edit(console)
        console.sees("left out: outside active hours", "#preview")
        shown = [each.get_attribute("datetime") for each in console.all("#preview time")]
        assert shown == coming
