"""Tests several keys in one console: which page goes by which, what other tabs get, and where no key may be."""

from collections.abc import Generator
from contextlib import ExitStack

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from support.browsing import Console, plain, routine
from support.looks import all_faults
from support.service import Service

pytestmark = pytest.mark.slow
HOLDS_PAUSES = """
    const real = fetch;
    window.held = [];
    window.fetch = async (url, options) => {
      if (/[/]pause$/.test(url)) await new Promise((go) => held.push(go));
      return real(url, options);
    };
"""
"""Lets no request that pauses a routine go out until what is in `held` is called; for `Console.script`."""
WHERE_KEYS_MUST_NOT_BE = (
    "return location.href + document.cookie + JSON.stringify(localStorage) + document.documentElement.outerHTML"
)


@pytest.fixture(scope="module")
def other_key(service: Service) -> str:
    """A key of the collection `other`, which has a task `theirs`."""
    key = service.create_key("other")
    with service.client(key) as client:
        body = {"name": "theirs", "workflow": {"init_params": {}, "step_configs": {}, "steps": []}}
        assert client.post("/tasks/other", json=body).status_code == 201
    return key


@pytest.fixture
def both(console: Console, other_key: str) -> Generator[Console]:
    """Sign in with the key of `other` as well, by the keyboard alone; ends with one window."""
    console.driver.execute_script("document.querySelector('#collection').focus()")
    ActionChains(console.driver).send_keys(Keys.ENTER, Keys.TAB, Keys.TAB, Keys.ENTER).perform()
    console.until(lambda: console.focused().get_attribute("id") == "key")
    ActionChains(console.driver).send_keys(other_key, Keys.ENTER).perform()
    console.until(lambda: plain(console.find("#collection")) == "other")
    yield console
    for window in console.driver.window_handles[1:]:
        console.driver.switch_to.window(window)
        console.driver.close()
    console.driver.switch_to.window(console.driver.window_handles[0])


def shown(console: Console, collection: str, name: str) -> None:
    """Check that the page of the tasks is that of this collection."""
    console.until(lambda: plain(console.find("#collection")) == collection)
    console.sees(name, ".tasks")


def choose(console: Console, collection: str) -> None:
    console.find("#collection").click()
    console.press(collection)


def palette(console: Console, collection: str) -> None:
    """Switch to a collection by the palette."""
    ActionChains(console.driver).key_down(Keys.CONTROL).send_keys("k").key_up(Keys.CONTROL).perform()
    console.find("#palette-words")
    console.keys(collection)
    console.sees(f"{collection} collection", ".palette")
    console.keys(Keys.ENTER)


def test_a_page_goes_by_the_key_of_its_collection(both: Console, other_key: str) -> None:
    both.press("Tasks")
    shown(both, "other", "theirs")
    assert both.driver.current_url.endswith("#/~other/tasks")
    choose(both, "demo")
    both.until(lambda: both.driver.current_url.endswith("#/~demo/"))
    both.press("Tasks")
    shown(both, "demo", "greet")
    both.driver.back()
    both.driver.back()
    shown(both, "other", "theirs")
    both.driver.refresh()
    shown(both, "other", "theirs")
    for key in (both.key, other_key):
        assert key not in both.driver.execute_script(WHERE_KEYS_MUST_NOT_BE)


def test_the_palette_switches(both: Console) -> None:
    both.find("h1")
    palette(both, "demo")
    both.until(lambda: plain(both.find("#collection")) == "demo")
    both.find(".row")


def test_a_link_in_another_tab_goes_by_its_key(both: Console) -> None:
    both.press("Tasks")
    shown(both, "other", "theirs")
    tasks = both.find(".tasks a")
    ActionChains(both.driver).key_down(Keys.CONTROL).click(tasks).key_up(Keys.CONTROL).perform()
    both.until(lambda: len(both.driver.window_handles) == 2)
    both.driver.switch_to.window(both.driver.window_handles[1])
    both.until(lambda: both.title() == "theirs")
    assert both.driver.current_url.endswith("#/~other/tasks/theirs")

    # A tab that nobody opened from the console gets the keys as well, and stays when the other goes on elsewhere.
    both.driver.switch_to.new_window("tab")
    both.driver.get(f"{both.origin}/console/#/~demo/tasks")
    shown(both, "demo", "greet")
    both.driver.switch_to.window(both.driver.window_handles[0])
    shown(both, "other", "theirs")


def test_signing_out_of_one_collection_keeps_the_other_in_every_tab(both: Console) -> None:
    both.find("h1")
    first = both.driver.current_window_handle
    both.driver.switch_to.new_window("tab")
    both.driver.get(f"{both.origin}/console/#/~other/tasks")
    shown(both, "other", "theirs")
    both.driver.switch_to.window(first)
    both.find("#collection").click()
    both.press("Sign out of other")
    both.sees("You have signed out of other.")
    both.press("Back to demo")
    both.find(".row")
    assert plain(both.find("#sign-out")) == "Sign out"
    both.driver.switch_to.window(both.driver.window_handles[1])
    both.sees("You have signed out in another tab.")
    both.driver.refresh()
    both.sees("You have no key of other in this tab.")
    both.press("Back to demo")
    both.find(".row")


def test_signing_out_of_all_leaves_no_key_in_any_tab(both: Console) -> None:
    both.find("h1")
    both.driver.switch_to.new_window("tab")
    both.driver.get(f"{both.origin}/console/")
    both.find("header")
    both.press("Sign out of all")
    for window in both.driver.window_handles[:2]:
        both.driver.switch_to.window(window)
        both.sees("You have signed out")
        assert both.driver.execute_script("return sessionStorage.length") == 0
        both.driver.refresh()
        assert both.find("#key")


def test_switching_asks_before_a_changed_form_is_lost_or_work_stops(both: Console, service: Service) -> None:
    both.open("#/~other/new/task")
    both.type("#name", "half-typed")
    for leave in (lambda: choose(both, "demo"), lambda: palette(both, "demo"), lambda: choose(both, "Add a key…")):
        leave()
        both.sees("Leave without saving?", "dialog")
        both.press("Stay here")
        assert both.find("#name").get_attribute("value") == "half-typed"
        assert both.driver.current_url.endswith("#/~other/new/task")
    choose(both, "demo")
    both.press("Leave")
    both.until(lambda: plain(both.find("#collection")) == "demo")

    with ExitStack() as made, both.script(HOLDS_PAUSES):
        for number in range(6):
            made.enter_context(routine(service, f"held-{number}"))
        both.open("#/~demo/?q=held-")
        both.until(lambda: len(both.all(".row")) == 6)
        both.find("#pick-shown").click()
        both.find("#bulk-pause").click()
        both.find("#bulk-go").click()
        both.until(lambda: both.driver.execute_script("return held.length") == 4)
        for leave in (
            lambda: choose(both, "other"),
            lambda: palette(both, "other"),
            lambda: choose(both, "Add a key…"),
        ):
            leave()
            both.sees("Pausing is going on: 6 of 6 are left.", "dialog")
            both.press("Stay here")
            both.sees("Pausing: 0 of 6", ".work")
        choose(both, "other")
        both.press("Switch to other")
        both.until(lambda: plain(both.find("#collection")) == "other")
        both.driver.execute_script("held.forEach((go) => go())")
        choose(both, "demo")
        both.sees("4 of 6 paused. 2 were not begun.", ".work")


def test_a_key_that_is_revoked_leaves_the_others(both: Console, service: Service) -> None:
    both.find("h1")
    revoked = "WHERE collection_id = (SELECT id FROM routines.collections WHERE name = 'other')"
    service.execute(f"UPDATE routines.api_keys SET revoked_at = now() {revoked}")
    try:
        both.press("Tasks")
        both.sees("This key no longer works")
        both.press("Back to demo")
        both.find(".row")
    finally:
        service.execute(f"UPDATE routines.api_keys SET revoked_at = NULL {revoked}")


def test_a_link_to_a_collection_without_a_key_asks_for_one(console: Console, other_key: str) -> None:
    console.open("#/~other/tasks")
    console.sees("You have no key of other in this tab.")
    console.sign_in(other_key)
    shown(console, "other", "theirs")
    console.open("#/~nobody%3Cimg%3E/tasks")
    console.sees("You have no key of nobody<img> in this tab.")
    console.press("Back to demo")
    console.find(".row")


def test_the_menu_looks_well_and_closes_with_escape(both: Console) -> None:
    both.find("#collection").click()
    both.find(".menu a")
    assert all_faults(both) == []
    both.screen(1280, 900)
    both.driver.execute_script("document.querySelector('.menu a').focus()")
    ActionChains(both.driver).send_keys(Keys.ESCAPE).perform()
    both.until(lambda: not both.all(".collection[open]"))
    assert both.focused().get_attribute("id") == "collection"
