"""Tests the order and the filters of the overview, saved views, and that Back leads to the same place."""

from contextlib import ExitStack

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from support.browsing import Console, add_run, plain, routine
from support.looks import all_faults
from support.service import Service

pytestmark = pytest.mark.slow


def names(console: Console) -> list[str]:
    return [plain(each) for each in console.all(".row .name")]


def test_the_list_is_sorted_by_name_next_slot_or_last_outcome(console: Console, service: Service) -> None:
    late, early = {"type": "daily", "hour_utc": 9}, {"type": "hourly"}
    with (
        routine(service, "sort-b", cadence=late),
        routine(service, "sort-c", cadence=early),
        routine(service, "sort-a", cadence={"type": "manual"}),
    ):
        add_run(service, "sort-c", "completed", minutes=9)
        add_run(service, "sort-b", "failed", minutes=20)
        add_run(service, "sort-a", "completed", minutes=3, slot=False)
        service.execute("UPDATE routines.routines SET next_run_at = now() + interval '30 hours' WHERE name = 'sort-b'")
        console.open("#/?q=sort-")
        console.until(lambda: names(console)[:1] == ["sort-b"])
        for order, wanted in (("By name", "abc"), ("Next slot first", "cba"), ("Last outcome first", "acb")):
            Select(console.find("#sort")).select_by_visible_text(order)
            console.until(lambda wanted=wanted: names(console) == [f"sort-{each}" for each in wanted])
        assert console.driver.current_url.endswith("#/?q=sort-&sort=last")
        console.driver.refresh()
        console.until(lambda: names(console) == ["sort-a", "sort-c", "sort-b"])
        console.open("#/?q=sort-&sort=bogus")
        console.until(lambda: names(console)[:1] == ["sort-b"])


def test_skipped_routines_and_those_that_never_ran_are_found(console: Console, service: Service) -> None:
    with routine(service, "find-new"), routine(service, "find-cancelled"):
        add_run(service, "find-cancelled", "cancelled", minutes=3)
        console.open("#/?q=find-")
        console.until(lambda: len(names(console)) == 2)
        console.all("input[name=state][value=other]")[0].click()
        console.until(lambda: names(console) == ["find-cancelled"])
        console.all("input[name=state][value=silent]")[0].click()
        console.until(lambda: names(console) == ["find-new"])
        assert "state=silent" in console.driver.current_url


def test_a_view_is_saved_under_a_name_found_again_and_deleted(console: Console) -> None:
    console.driver.execute_script("localStorage.clear()")
    try:
        console.open("#/")
        console.find(".row")
        assert not console.find(".overview").find_elements("css selector", ".saved-views:not([hidden])")
        console.type("#search", "morning")
        console.press("Save this view")
        console.find("#view-keep").click()
        console.sees("Give it a name", "dialog")
        console.find("#view-name").send_keys("Mornings <b>", Keys.ENTER)
        console.sees("The view Mornings <b> was saved in this browser.", ".said")
        assert console.find(".saved-views .chip").get_attribute("aria-current") == "page"
        assert console.key not in str(console.driver.execute_script("return JSON.stringify(localStorage)"))
        assert all_faults(console) == []
        console.screen(1280, 900)
        console.open("#/tasks")
        console.open("#/")
        console.until(lambda: len(names(console)) > 1)
        console.press("Mornings <b>")
        console.until(lambda: names(console) == ["morning"])
        assert console.find("#search").get_attribute("value") == "morning"
        console.press("Delete the view Mornings <b>")
        console.until(lambda: not console.all(".saved-views .chip"))
        assert console.driver.execute_script("return localStorage.length") == 0
        console.driver.execute_script("localStorage.setItem('routines.views', '[{\"demo\": 1}')")  # spoilt by someone
        console.driver.refresh()
        console.find("#view-save")
    finally:
        console.driver.execute_script("localStorage.clear()")


def test_back_leads_to_the_same_place_of_the_list(console: Console, service: Service) -> None:
    with ExitStack() as made:
        for number in range(70):
            made.enter_context(routine(service, f"place-{number:02}"))
        console.open("#/?q=place&sort=name")
        console.until(lambda: len(names(console)) == 50)
        console.find("#more").click()
        console.until(lambda: len(names(console)) == 70)
        console.driver.execute_script("document.querySelectorAll('.pick input')[61].click()")
        link = console.all(".row .name")[62]
        console.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", link)
        top = console.driver.execute_script("return scrollY")
        assert top > 1000
        link.click()
        console.until(lambda: console.title() == "place-62")
        assert console.driver.execute_script("return scrollY") == 0
        console.driver.back()
        console.until(lambda: len(names(console)) == 70)
        assert console.focused().text == "place-62"
        assert abs(console.driver.execute_script("return scrollY") - top) < 40
        console.sees("1 selected", ".bulk-bar")
        console.driver.forward()
        console.until(lambda: console.title() == "place-62")
        ActionChains(console.driver).send_keys("e").perform()
        console.until(lambda: console.title() == "Edit place-62")
        console.driver.back()
        console.until(lambda: console.title() == "place-62")
        console.driver.back()
        console.until(lambda: len(names(console)) == 70)
        console.open("#/?q=place&sort=name")  # opened anew it begins at the top
        console.until(lambda: len(names(console)) == 50)
        assert console.driver.execute_script("return scrollY") == 0
