"""Tests the palette and the keys: finding and moving without the mouse."""

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from support.browsing import Console, filled, plain
from support.service import Service

pytestmark = pytest.mark.slow


def keys(console: Console, *pressed: str) -> None:
    ActionChains(console.driver).send_keys(*pressed).perform()


def find(console: Console, *typed: str) -> None:
    """Open the palette and type."""
    ActionChains(console.driver).key_down(Keys.CONTROL).send_keys("k").key_up(Keys.CONTROL).perform()
    console.find("#palette-words")
    keys(console, *typed)


def test_the_palette_finds_routines_tasks_pages_runs_and_actions(console: Console, service: Service) -> None:
    console.open("#/tasks")
    find(console, "morn")
    console.sees("greet/morning", ".palette")
    keys(console, Keys.ENTER)
    console.until(lambda: console.title() == "morning")
    find(console, "pause until")
    console.sees("Pause until… on this page", ".palette")
    keys(console, Keys.ENTER)
    console.sees("Pause this routine", "dialog")
    keys(console, Keys.ESCAPE)
    console.until(lambda: not console.all("dialog"))
    run = filled(service, "failed run").rpartition("/")[2]
    find(console, run, Keys.ENTER)
    console.until(lambda: console.title() == f"Run {run}")
    find(console, "limits", Keys.ENTER)
    console.sees("limits", "h1")
    find(console, "99999999", Keys.ENTER)
    console.sees("There is no run 99999999.", ".said")
    find(console, "no such thing")
    console.sees("Nothing is called that.", ".palette")
    keys(console, Keys.ESCAPE)
    console.until(lambda: not console.all("dialog"))
    console.find("#find").click()
    console.sees("Overview page", ".palette")
    keys(console, Keys.ARROW_DOWN)
    console.until(lambda: plain(console.find(".palette [aria-selected=true]")) == "Timeline page")


def test_single_keys_move_search_and_explain_themselves_and_can_be_turned_off(console: Console) -> None:
    console.open("#/")
    console.find(".row")
    keys(console, "j")
    first = console.focused().text
    assert first == plain(console.all(".row .name")[0])
    keys(console, "j", "j", "k")
    assert console.focused().text == plain(console.all(".row .name")[1])
    keys(console, "/")
    assert console.focused().get_attribute("id") == "search"
    keys(console, "j?")
    assert console.focused().get_attribute("value") == "j?"
    console.find("h1").click()
    console.driver.execute_script("document.activeElement.blur()")
    keys(console, "?")
    console.sees("Next and previous line of a list", "dialog")
    console.find("#single-keys").click()
    keys(console, Keys.ESCAPE)
    console.until(lambda: not console.all("dialog"))
    keys(console, "/")
    assert console.focused().get_attribute("id") != "search"
    console.driver.refresh()
    console.find(".filters")
    keys(console, "?")
    assert not console.all("dialog")


def test_a_key_opens_what_runs_again_and_sends_nothing(console: Console, service: Service) -> None:
    console.open(filled(service, "failed run"))
    console.requests()
    keys(console, "r")
    assert console.all("#run-again[open]")
    assert console.focused().get_attribute("id") == "rerun-from"
    console.open("#/routines/greet/morning")
    keys(console, "r")
    assert console.focused().get_attribute("id") == "run-now"
    console.open("#/tasks/greet")
    keys(console, "r")
    assert console.focused().find_elements("xpath", "ancestor::form[@id='run-task']")
    assert [each["method"] for each in console.requests() if each["method"] not in ("GET", "OPTIONS")] == []
    console.open("#/tasks")  # where there is nothing to run or to edit
    keys(console, "r", "e")
    assert console.driver.current_url.endswith("#/tasks")


def test_a_key_edits_the_routine_of_the_page(console: Console, service: Service) -> None:
    console.open("#/routines/greet/morning")
    keys(console, "e")
    console.until(lambda: console.title() == "Edit morning")
    keys(console, "e")  # in no field, and there is nothing more to edit
    assert console.title() == "Edit morning"
    console.open(filled(service, "run"))
    console.sees("Edit the routine", "aside")
    keys(console, "e")
    console.until(lambda: console.title() == "Edit morning")


def test_the_help_lists_every_key(console: Console) -> None:
    console.open("#/")
    keys(console, "?")
    shown = {key for each in console.all("dialog kbd") for key in each.text.replace(",", "").split()}
    assert {"/", "j", "k", "r", "e", "?"} <= shown
