"""Tests the form of a routine: its cadence with the slots that follow, what is sent, and what is refused."""

import json
from typing import Any

import pytest

from routines_core.cadence import CADENCES
from support.browsing import Console, plain
from support.service import Service

pytestmark = pytest.mark.slow
ADDS_QUARTERLY = """
    const real = fetch;
    window.fetch = async (url, options) => {
      const answer = await real(url, options);
      if (!String(url).includes("/cadence-types/")) return answer;
      const types = await answer.json();
      const { hour_utc, minute_utc } = types.find(({ type }) => type === "daily").fields;
      const day_of_month = { required: true, minimum: 1, maximum: 31, default: null };
      return Response.json([...types, { type: "quarterly", fields: { hour_utc, minute_utc, day_of_month } }]);
    };
"""
"""Makes the service offer a cadence type that it does not have."""
CADENCES_FAIL_ONCE = """
    const real = fetch;
    let failures = 1;
    window.fetch = async (url, options) => String(url).includes("/cadence-types/") && failures-- > 0
      ? Response.json({ title: "Internal error", status: 500, detail: "It failed." }, { status: 500 })
      : real(url, options);
"""


def cadence_in(request: dict[str, Any]) -> Any:
    """Return the cadence that a request carries, or None."""
    return json.loads(request.get("postData", "{}")).get("cadence")


def test_the_form_previews_the_slots_and_creates_the_routine(console: Console, service: Service) -> None:
    console.open("#/new?task=greet")
    console.sees("Weekdays at 09:00 UTC", "#preview")
    assert len(console.all("#preview li")) == 10
    console.press("Weekly")
    console.type("#cadence-hour_utc", "6")
    console.type("#cadence-minute_utc", "30")
    console.sees("Mondays at 06:30 UTC", "#preview")
    assert all(each.text.startswith("Mon ") for each in console.all("#preview li"))
    console.type("#name", "created-here")
    console.press("size integer")
    console.type(".override[data-field='init_params_overrides.size'] .value input", "7")
    console.press("Save routine")
    console.until(lambda: console.title() == "created-here")
    [(cadence, overrides)] = service.execute(
        "SELECT to_jsonb(routines.cadence_of(routines)), init_params_overrides FROM routines.routines "
        "WHERE name = 'created-here'"
    )
    assert cadence.items() >= {"type": "weekly", "hour_utc": 6, "minute_utc": 30, "day_of_week": "mon"}.items()
    assert overrides == {"size": 7}


def test_the_form_shows_only_the_fields_that_the_cadence_takes(console: Console) -> None:
    console.open("#/new?task=greet")
    shown = {}
    for kind in [plain(each) for each in console.all(".cadence-fields legend ~ label")]:
        console.press(kind)
        shown[kind] = console.labels()
    time = ["Hour", "Minute", "Time zone"]
    assert shown == {
        "Hourly": ["Minute"],
        "Daily": time,
        "Weekdays": time,
        "Weekly": ["Day", *time],
        "Monthly": ["Day of the month", *time],
        "Every … min": ["Minutes from slot to slot", "Counted from"],
        "Once": ["At"],
        "Manual": [],
        "Cron": ["Cron expression", "Time zone"],
    }
    assert list(shown)[-1] == "Cron"
    assert len(shown) == len(CADENCES) + 1


@pytest.mark.parametrize(
    ("cadence", "words"),
    [
        (
            {"type": "cron", "expression": ["0 9 * * mon-fri", "0 12 L * *"], "timezone": "Europe/Berlin"},
            "Cron 0 9 * * mon-fri; 0 12 L * *, Europe/Berlin",
        ),
        ({"type": "cron", "expression": ["@daily"], "timezone": "UTC"}, "Cron @daily, UTC"),
        ({"type": "interval", "every_minutes": 90, "anchor": "2026-05-04T09:00:00Z"}, "Every 90 minutes"),
        ({"type": "once", "at": "2099-05-04T09:00:00Z"}, "Once at 2099-05-04T09:00:00Z"),
    ],
    ids=["cron", "one of an array", "interval", "once"],
)
def test_an_edit_keeps_the_cadence_the_bounds_and_the_spread_of_a_routine(
    console: Console, service: Service, cadence: dict[str, Any], words: str
) -> None:
    bounds = {"starts_at": "2026-01-01T00:00:00Z", "ends_at": "2100-01-01T00:00:00Z"}
    with service.client() as client:
        planned = {"name": "planned", "cadence": cadence, "spread_seconds": 30, **bounds}
        made = client.post("/routines/demo/greet", json=planned).json()
        console.open("#/routines/greet/planned")
        console.sees(words, "main")
        console.sees("starts up to 30 seconds after each slot", "main")
        console.open("#/routines/greet/planned/edit")
        console.type("#name", "renamed")
        console.press("Save routine")
        console.until(lambda: console.title() == "renamed")
        assert client.get("/routines/demo/greet/renamed").json() == {**made, "name": "renamed", "warnings": []}
        client.delete("/routines/demo/greet/renamed")


def test_a_spread_is_set_and_removed_and_one_that_is_too_wide_is_refused(console: Console, service: Service) -> None:
    with service.client() as client:
        hourly = {"name": "apart", "cadence": {"type": "hourly"}}
        plain = client.post("/routines/demo/greet", json=hourly).json()
        for typed, kept in (("900", 900), ("", None)):
            console.open("#/routines/greet/apart/edit")
            console.type("#spread", typed)
            console.press("Save routine")
            console.until(lambda: console.title() == "apart")
            assert client.get("/routines/demo/greet/apart").json().get("spread_seconds") == kept
        assert client.get("/routines/demo/greet/apart").json() == {**plain, "warnings": []}
        console.open("#/routines/greet/apart/edit")
        console.type("#spread", "3600")
        console.press("Save routine")
        console.sees("Must be below 3600, the seconds between two of its slots, not 3600", "form")
        client.delete("/routines/demo/greet/apart")


def test_cron_expressions_are_typed_one_on_a_line(console: Console) -> None:
    console.open("#/new?task=greet")
    console.press("Cron")
    console.type("#cadence-expression", "0 9 * * *\n0 25 * * *")
    console.sees("hour must be 0-23", "#preview")
    console.type("#cadence-expression", "0 9 * * *\n0 17 * * *")
    console.type("#cadence-timezone", "Europe/Berlin")
    expected = {"type": "cron", "expression": ["0 9 * * *", "0 17 * * *"], "timezone": "Europe/Berlin"}
    console.until(lambda: expected in [cadence_in(each) for each in console.requests()])


def test_the_form_warns_of_what_the_coming_year_has_in_store(console: Console) -> None:
    console.open("#/new?task=greet")
    console.press("Cron")
    console.type("#cadence-expression", "30 2 * * *")
    console.type("#cadence-timezone", "Europe/Berlin")
    console.sees("02:30 does not exist in Europe/Berlin", "#preview")
    console.sees("02:30 comes twice in Europe/Berlin", "#preview")
    console.press("Daily")
    console.sees("Every day at", "#preview")
    console.until(lambda: not console.all("#preview .notice"))


def test_a_cadence_type_that_the_service_adds_appears_in_the_form(console: Console) -> None:
    with console.script(ADDS_QUARTERLY):
        console.open("#/new?task=greet")
        console.press("Quarterly")
        assert console.labels() == ["Day of month", "Hour (UTC)", "Minute"]
        day = console.find("#cadence-day_of_month")
        assert [day.get_attribute(name) for name in ("min", "max", "value")] == ["1", "31", "1"]
        # The service does not know the type, and its answer to the preview says so.
        console.sees("Not valid yet. Type:", "#preview")
        console.type("#cadence-day_of_month", "15")
        expected = {"type": "quarterly", "day_of_month": 15, "hour_utc": 9, "minute_utc": 0}
        console.until(lambda: expected in [cadence_in(each) for each in console.requests()])


def test_cadences_are_loaded_once_per_session_and_a_failure_can_be_retried(console: Console) -> None:
    with console.script(CADENCES_FAIL_ONCE):
        console.open("#/new?task=greet")
        console.sees("Could not load the cadences", "main")
        console.press("Try again")
        console.find("#cadence-hour_utc")
    console.driver.execute_script("location.hash = '#/routines/greet/morning/edit'")
    console.until(lambda: console.title() == "Edit morning")
    asked = [each for each in console.requests() if "/cadence-types/" in each["url"]]
    assert len(asked) == 1  # the failure never left the browser


def test_errors_are_shown_next_to_the_field_that_the_service_names(console: Console) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "Not a Slug")
    console.type("#cadence-hour_utc", "24")
    console.press("Save routine")
    console.sees("lower-case letters", ".field[data-field='name'] .field-error")
    console.sees("less than or equal to 23", ".field[data-field='cadence.hour_utc'] .field-error")
    assert console.focused().get_attribute("id") == "name"
    console.type("#name", "morning")
    console.type("#cadence-hour_utc", "9")
    console.press("Save routine")
    console.sees("A routine of this name exists", ".field[data-field='name'] .field-error")


def test_an_edit_sends_only_what_changed_and_keeps_secrets(console: Console, service: Service) -> None:
    secret = "SELECT secret_names FROM routines.routine_details WHERE name = 'morning'"
    assert service.execute(secret) == [(["TOKEN"],)]
    console.open("#/routines/greet/morning/edit")
    console.sees("TOKEN", ".secrets")
    console.type("#cadence-minute_utc", "5")
    console.requests()
    console.press("Save routine")
    console.sees("Every day at 09:05 UTC", ".lede")
    [patch] = [each for each in console.requests() if each["method"] == "PATCH"]
    assert patch["postData"] == '{"cadence":{"type":"daily","hour_utc":9,"minute_utc":5}}'
    assert service.execute(secret) == [(["TOKEN"],)]


def test_saving_a_form_does_not_pause_a_routine_that_was_resumed_in_the_meantime(
    console: Console, service: Service
) -> None:
    service.execute("UPDATE routines.routines SET paused = true WHERE name = 'morning'")
    console.open("#/routines/greet/morning/edit")
    assert console.find("#paused").is_selected()
    service.execute("UPDATE routines.routines SET paused = false WHERE name = 'morning'")
    console.press("Save routine")
    console.until(lambda: console.title() == "morning" and console.find("#toggle").text == "Pause")
