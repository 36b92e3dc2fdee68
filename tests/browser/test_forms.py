"""Tests that forms lose nothing that was typed, and say what is wrong where it is."""

import json
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from support.browsing import PAGES, Console, filled, plain, routine
from support.service import Service

pytestmark = pytest.mark.slow
OVERRIDE = ".override[data-field='init_params_overrides.{}']"


def sent(console: Console, method: str) -> list[dict[str, Any]]:
    """Return the bodies of the requests sent to routines since the last call."""
    asked = [each for each in console.requests() if each["method"] == method and "/routines/" in each["url"]]
    return [json.loads(each["postData"]) for each in asked]


def add_secret(console: Console, name: str, value: str) -> None:
    console.press("Add a secret")
    for field, text in zip(
        console.all(".secret")[-1].find_elements(By.CSS_SELECTOR, "input"), (name, value), strict=True
    ):
        field.send_keys(text)


# --- nothing is lost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("", "a value")], "Give the secret a name."),
        ([("TWICE", "one"), ("TWICE", "two")], "There is another secret TWICE above."),
        ([("EMPTY", "")], "Enter a value, or remove the secret."),
    ],
    ids=["no name", "one name twice", "no value"],
)
def test_a_secret_is_never_dropped_without_a_word(console: Console, rows: list[tuple[str, str]], words: str) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "with-secrets")
    for name, value in rows:
        add_secret(console, name, value)
    console.requests()
    console.press("Save routine")
    console.sees(words, ".secrets")
    assert console.focused().get_attribute("aria-invalid") == "true"
    assert sent(console, "POST") == []


def test_another_task_keeps_what_was_typed(console: Console) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "half-typed")
    console.press("Weekly")
    console.type("#cadence-hour_utc", "6")
    console.press("name string")
    console.type(f"{OVERRIDE.format('name')} .value input", "Ada")
    console.type("#webhook-url", "https://example.com/hook")
    add_secret(console, "TOKEN", "x")
    Select(console.find("#task")).select_by_value("hostile")
    console.find(OVERRIDE.format("text"))
    assert not console.all(OVERRIDE.format("name"))
    assert "task=hostile" in console.driver.current_url
    Select(console.find("#task")).select_by_value("greet")
    assert console.find(f"{OVERRIDE.format('name')} .value input").get_attribute("value") == "Ada"
    kept = [
        console.find(place).get_attribute("value")
        for place in ("#name", "#cadence-hour_utc", "#webhook-url", ".secret input")
    ]
    assert kept == ["half-typed", "6", "https://example.com/hook", "TOKEN"]


def test_leaving_a_changed_form_asks_first(console: Console) -> None:
    for leave in (
        lambda: console.press("Tasks"),
        console.driver.back,
        lambda: console.press("Cancel"),
        lambda: console.press("Sign out"),
    ):
        console.open("#/tasks/greet")
        console.press("New routine")
        console.type("#name", "half-typed")
        leave()
        console.sees("Leave without saving?", "dialog")
        console.press("Stay here")
        assert console.find("#name").get_attribute("value") == "half-typed"
        assert "#/new" in console.driver.current_url
    console.press("Tasks")
    console.find("dialog")
    console.press("Leave")
    console.until(lambda: console.title().endswith("tasks."))


def test_closing_the_tab_with_a_changed_form_asks_first(console: Console) -> None:
    asks = """const event = new Event("beforeunload", { cancelable: true });
              dispatchEvent(event);
              return event.defaultPrevented"""
    console.open("#/new?task=greet")
    assert console.driver.execute_script(asks) is False
    console.type("#name", "half-typed")
    assert console.driver.execute_script(asks) is True
    console.find("#name").clear()
    assert console.driver.execute_script(asks) is False


def test_leaving_a_form_that_is_as_it_was_does_not_ask(console: Console) -> None:
    console.open("#/routines/greet/morning/edit")
    console.press("Tasks")
    console.until(lambda: console.title().endswith("tasks."))


def test_leaving_a_changed_form_to_run_a_task_asks_first(console: Console) -> None:
    console.open("#/tasks/greet")
    console.press("name string")
    console.press("Overview")
    console.sees("Leave without saving?", "dialog")


# --- what is wrong is seen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1280, 390])
def test_bad_json_has_the_focus_in_sight_below_the_header(console: Console, width: int) -> None:
    console.screen(width, 700)
    console.open("#/new?task=greet")
    console.type("#name", "bad-json")
    console.press("options object")
    console.type(f"{OVERRIDE.format('options')} textarea", "{")
    console.driver.execute_script("scrollTo(0, document.body.scrollHeight)")
    console.find("#save").click()
    console.sees("Must be JSON", OVERRIDE.format("options"))
    assert console.focused().tag_name == "textarea"
    seen = """const { top } = document.activeElement.closest(".override").getBoundingClientRect();
              return [document.querySelector("header").getBoundingClientRect().bottom, top, innerHeight]"""
    header, field, height = console.driver.execute_script(seen)
    assert header <= field < height


def test_no_page_has_an_input_that_writes_dates_in_another_way(console: Console, service: Service) -> None:
    for page in PAGES:
        console.open(filled(service, page))
        assert not console.all("input[type=date], input[type=datetime-local], input[type=time]")
    console.open("#/routines/greet/morning")
    console.press("Pause until…")
    assert not console.all("input[type=date], input[type=datetime-local], input[type=time]")


@pytest.mark.parametrize("typed", ["tomorrow", "2026-02-30 09:00", "2026-05-04 25:00", "05/04/2026 09:00 AM"])
def test_a_time_that_is_none_is_refused_with_an_example(console: Console, typed: str) -> None:
    console.open("#/routines/greet/morning")
    console.type("#why-at", typed)
    console.find("#ask-why").click()
    console.sees("Write it like 2026-05-04 09:00, in UTC.", "#why-answer")
    console.press("Pause until…")
    console.type("#pause-until-time", typed)
    console.find("#pause-save").click()
    console.sees("Write it like 2026-05-04 09:00, in UTC.", "dialog")


def test_the_ledger_is_shown_up_to_a_day(console: Console) -> None:
    console.open("#/routines/greet/morning")
    console.type("#until", "2026-05-04\n")
    console.until(lambda: len(console.all(".ledger > li")) == 1)
    console.find("#until").send_keys("th\n")
    console.until(lambda: console.find("#until").get_attribute("aria-invalid") == "true")
    assert len(console.all(".ledger > li")) == 1


# --- what routines do when runs fail, and what they take from the slot ------------------------------------------------


def test_a_routine_says_in_words_what_it_does_when_runs_fail(console: Console, service: Service) -> None:
    console.open(filled(service, "retrying"))
    shown = plain(console.find("aside"))
    for words in (
        "Each run may take 30 min",
        "Up to 2 retries, after 1 min and 5 min.",
        "Only if the cause may go away by itself, such as a timeout.",
        "No later than 2 h after the first try.",
        "After 3 failed slots in a row it skips 1 slot and tries the next.",
        "text is the date of the slot",
    ):
        assert words in shown


def test_the_form_sets_retries_and_what_a_run_takes_from_its_slot(console: Console, service: Service) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "careful")
    console.type("#timeout", "900")
    console.type("#retry-attempts", "4")
    console.sees("Up to 3 retries, the first after 1 min, each further one after 2 times as long, at most 1 h.", "form")
    console.type("#retry-initial", "30")
    console.find("#retry-on").send_keys("Only if")
    console.type("#pause-after", "5")
    console.find("#then").send_keys("Skip slots")
    console.press("Take a parameter from the slot")
    parameter, value = console.all(".from-slot select")
    parameter.send_keys("name")
    value.send_keys("The date of the slot")
    console.press("Save routine")
    console.until(lambda: console.title() == "careful")
    with service.client() as client:
        saved = client.get("/routines/demo/greet/careful").json()
        client.delete("/routines/demo/greet/careful")
    assert saved["retry"] == {
        "max_attempts": 4,
        "backoff": {"initial": 30, "multiplier": 2, "max": 3600},
        "on": "transient",
        "until": "next_slot",
    }
    assert (saved["timeout_seconds"], saved["pause_after_failures"], saved["then"]) == (900, 5, "backoff")
    assert saved["init_params_from_slot"] == {"name": "slot.date"}


def test_the_form_sets_what_becomes_of_a_slot_while_a_run_is_active(console: Console, service: Service) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "beside")
    assert [each.is_displayed() for each in console.all("#most")] == [False]
    Select(console.find("#overlap")).select_by_value("allow")
    console.type("#most", "101")
    console.press("Save routine")
    console.until(lambda: "less than or equal to 100" in console.find("[data-field=max_concurrent] .field-error").text)
    console.type("#most", "3")
    console.press("Save routine")
    console.until(lambda: console.title() == "beside")
    console.sees("slots start further runs, up to 3 at once", "aside")
    console.open("#/routines/greet/beside/edit")
    Select(console.find("#overlap")).select_by_value("queue_one")
    console.requests()
    console.press("Save routine")
    console.until(lambda: console.title() == "beside")
    assert sent(console, "PATCH") == [{"overlap_policy": "queue_one"}]
    with service.client() as client:
        saved = client.get("/routines/demo/greet/beside").json()
        client.delete("/routines/demo/greet/beside")
    assert (saved["overlap_policy"], "max_concurrent" in saved) == ("queue_one", False)


def test_an_edit_keeps_and_removes_what_a_routine_does_when_runs_fail(console: Console, service: Service) -> None:
    retry = {"max_attempts": 3, "backoff": [60, 300], "on": "any", "until": 7200}
    given = {
        "retry": retry,
        "pause_after_failures": 3,
        "timeout_seconds": 60,
        "init_params_from_slot": {"name": "slot.date"},
    }
    with routine(service, "edited", **given) as client:
        before = client.get("/routines/demo/greet/edited").json()
        console.open("#/routines/greet/edited/edit")
        assert console.find("#retry-delays").get_attribute("value") == "60, 300"
        console.type("#timeout", "61")
        console.requests()
        console.press("Save routine")
        console.until(lambda: console.title() == "edited")
        assert sent(console, "PATCH") == [{"timeout_seconds": 61}]
        assert client.get("/routines/demo/greet/edited").json() == {**before, "timeout_seconds": 61}
        console.open("#/routines/greet/edited/edit")
        for field in ("#retry-attempts", "#pause-after", "#timeout"):
            console.type(field, "")
        console.find(".from-slot .secret button").click()
        console.press("Save routine")
        console.until(lambda: console.title() == "edited")
        after = client.get("/routines/demo/greet/edited").json()
        assert not {"retry", "pause_after_failures", "timeout_seconds", "init_params_from_slot"} & after.keys()


@pytest.mark.parametrize(
    ("field", "typed", "place", "words"),
    [
        ("#retry-attempts", "1", "retry.max_attempts", "greater than or equal to 2"),
        ("#retry-initial", "-1", "retry.backoff.initial", "greater than or equal to 0"),
        ("#retry-until", "0", "retry.until", "greater than or equal to 1"),
        ("#pause-after", "101", "pause_after_failures", "less than or equal to 100"),
        ("#timeout", "0", "timeout_seconds", "greater than or equal to 1"),
    ],
)
def test_a_value_out_of_range_is_refused_at_its_field(
    console: Console, field: str, typed: str, place: str, words: str
) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "refused")
    console.type("#retry-attempts", "3")
    console.type(field, typed)
    console.press("Save routine")
    console.sees(words, f".field[data-field='{place}'] > .field-error")


def test_delays_that_are_no_numbers_are_refused_at_their_field(console: Console) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "refused")
    console.type("#retry-attempts", "3")
    console.press("One by one")
    console.type("#retry-delays", "soon")
    console.press("Save routine")
    console.sees("Must be numbers of seconds, such as 60, 300", ".field[data-field='retry.backoff'] > .field-error")
    assert console.focused().get_attribute("id") == "retry-delays"


def test_a_parameter_is_taken_from_the_slot_once(console: Console) -> None:
    console.open("#/new?task=greet")
    for _ in range(2):
        console.press("Take a parameter from the slot")
        console.all(".from-slot select")[-2].send_keys("name")
    console.press("Save routine")
    console.sees("name is taken from the slot already.", ".from-slot")
