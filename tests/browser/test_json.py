"""Tests the views of JSON values: search, wrap, and that a run that goes on leaves them as they are."""

import json
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from support.browsing import HOSTILE, Console, add_run, plain, routine
from support.looks import all_faults
from support.service import Service

pytestmark = pytest.mark.slow
VALUE: dict[str, Any] = {
    "orders": [
        {"id": 7, "city": "Lisbon", "note": None},
        {"id": 8, "city": "Oslo", "lines": {"deep": {"city": "lisbon"}}},
    ],
    "lisbon_only": True,
    "log": "x" * 3000 + " Lisbon " + "y" * 3000,
    "hostile": HOSTILE,
    "many": [f"item {number}" for number in range(2000)],
    "line": "one very long line " * 40,
}
PARAMETERS = "section[aria-label=Parameters]"


@pytest.fixture
def shown(console: Console, service: Service) -> Console:
    """Open a run whose parameters are VALUE."""
    with routine(service, "valued"):
        run = add_run(service, "valued", "completed", minutes=10)
        service.execute(
            f"UPDATE routines.trajectories SET init_params = $value${json.dumps(VALUE)}$value$ WHERE id = {run}"
        )
        console.open(f"#/runs/greet/{run}")
    return console


def keys(console: Console, *pressed: str) -> None:
    ActionChains(console.driver).send_keys(*pressed).perform()


def test_a_search_shows_marks_and_counts_what_matches_on_any_level(shown: Console) -> None:
    shown.press("Search the parameters")
    assert shown.focused().get_attribute("type") == "search"
    keys(shown, "LISBON")
    shown.sees("1 of 4 matches", PARAMETERS)
    assert [each.text for each in shown.all("mark")] == ["Lisbon", "Lisbon", "lisbon", "lisbon"]
    text = plain(shown.find(".json-body"))
    assert "deep: city: lisbon" in text
    assert "Oslo" not in text
    assert len(text) < 600  # of the long text only what surrounds the match
    current = "mark[aria-current]"
    assert shown.find(current) == shown.all("mark")[0]
    keys(shown, Keys.ENTER)
    shown.sees("2 of 4 matches", PARAMETERS)
    assert shown.find(current) == shown.all("mark")[1]
    ActionChains(shown.driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER, Keys.ENTER).key_up(Keys.SHIFT).perform()
    shown.sees("4 of 4 matches", PARAMETERS)
    shown.press("Next match in the parameters")
    shown.sees("1 of 4 matches", PARAMETERS)


def test_closing_a_search_leaves_the_value_as_it_was(shown: Console) -> None:
    shown.find(f"{PARAMETERS} details summary").click()
    before = plain(shown.find(".json-body"))
    shown.press("Search the parameters")
    keys(shown, "no such thing")
    shown.sees("No matches", PARAMETERS)
    assert plain(shown.find(".json-body")) == before
    ActionChains(shown.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys("Oslo").perform()
    shown.sees("1 of 1 match", PARAMETERS)
    keys(shown, Keys.ESCAPE)
    assert plain(shown.find(".json-body")) == before
    assert not shown.all("mark")
    assert plain(shown.focused()) == "Search the parameters"
    shown.press("Search the parameters")
    assert shown.focused().get_attribute("value") == ""


def test_a_search_takes_any_text_and_shows_only_so_much(shown: Console) -> None:
    shown.press("Search the parameters")
    keys(shown, "{{7*7}}")
    shown.sees("1 of 1 match", PARAMETERS)
    ActionChains(shown.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys("<img").perform()
    shown.sees("1 of 1 match", PARAMETERS)
    assert not shown.all("main img")
    for typed in ("\\", "(", "[a", "a{2", "*", ".", "/", "|"):
        ActionChains(shown.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys(typed).perform()
    assert not [each for each in shown.messages() if "SyntaxError" in each]
    ActionChains(shown.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys("item").perform()
    shown.sees("1 of the first 1,000 matches", PARAMETERS)
    assert len(shown.all("mark")) == 1000


def test_lines_wrap_or_scroll_within_the_value(shown: Console) -> None:
    def scrolls() -> bool:
        return shown.driver.execute_script(
            "const body = document.querySelector('.json-body'); return body.scrollWidth > body.clientWidth"
        )

    assert not scrolls()
    shown.press("Wrap the lines of the parameters")
    assert scrolls()
    assert shown.find(".json-body").get_attribute("aria-label") == "the parameters"
    shown.driver.execute_script("document.querySelector('.json-body').focus()")
    keys(shown, Keys.ARROW_RIGHT)
    shown.until(lambda: shown.driver.execute_script("return document.querySelector('.json-body').scrollLeft") > 0)
    shown.press("Wrap the lines of the parameters")
    assert not scrolls()
    assert shown.find(".json-body").get_attribute("tabindex") is None


@pytest.mark.parametrize("is_wrapped", [True, False])
def test_views_are_legible_everywhere(shown: Console, is_wrapped: bool) -> None:  # noqa: FBT001
    if not is_wrapped:
        shown.press("Wrap the lines of the parameters")
    shown.press("Search the parameters")
    keys(shown, "lisbon")
    shown.sees("1 of 4 matches", PARAMETERS)
    assert all_faults(shown) == []


def test_a_run_that_goes_on_takes_neither_the_search_nor_the_focus_away(console: Console, service: Service) -> None:
    with routine(service, "ongoing"):
        run = add_run(service, "ongoing", "running", minutes=1)
        step = """INSERT INTO routines.steps (trajectory_id, name, position, fence, status, activity, inputs, outputs,
                                              ended_at)
                  VALUES ({}, '{}', {}, 1, 'completed', 'text_echo', '{{"text": "moon"}}', '{{"text": "moon"}}',
                          now())"""
        service.execute(step.format(run, "greet", 1))
        console.open(f"#/runs/greet/{run}")
        console.find("#step-greet").click()
        console.press("Search the outputs of greet")
        keys(console, "moo")
        console.sees("1 of 1 match", ".timeline")
        service.execute(step.format(run, "words", 2))
        service.execute(f"UPDATE routines.trajectories SET updated_at = now() WHERE id = {run}")
        console.find("#step-words")
        keys(console, "n")
        assert console.focused().get_attribute("value") == "moon"
        console.sees("1 of 1 match", ".timeline")
        service.execute(
            f"""UPDATE routines.trajectories SET status = 'cancelled', ended_at = now(), lease_expires_at = NULL
                WHERE id = {run}"""
        )
