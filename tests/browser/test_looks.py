"""That everybody can read and use it: names of controls, contrast in light and dark, a phone's width, the keyboard."""

from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from support.browsing import PAGES, Console, filled
from support.service import Service

pytestmark = pytest.mark.slow
CHECKS = Path(__file__).with_name("checks.js").read_text("utf-8")
"""What is measured in the page: WCAG 2.2, levels A and AA, as far as a machine can see it."""
EVERY_PAGE = ["door", *PAGES]


def opened(browser: Chrome, service: Service, page: str) -> Console:
    console = Console(browser, service.url, (service.data_dir / "demo.key").read_text().strip())
    console.arrive(signed_in=page != "door")
    if page != "door":
        console.open(filled(service, page))
    return console


def faults(console: Console) -> list[str]:
    return console.driver.execute_script(f"{CHECKS}; return faults()")


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_texts_and_controls_can_be_read_in_light_and_dark_and_have_names(
    browser: Chrome, service: Service, page: str
) -> None:
    console = opened(browser, service, page)
    console.driver.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert faults(console) == []
    light = console.find("body").find_element("xpath", "..").value_of_css_property("background-color")
    console.screen(1280, 900, dark=True)
    assert console.find("body").find_element("xpath", "..").value_of_css_property("background-color") != light
    assert faults(console) == []


def test_the_checks_find_what_is_wrong(door: Console) -> None:
    door.driver.execute_script(
        """const pale = document.createElement("p"); pale.textContent = "pale"; pale.style.color = "#ccc";
           const bare = document.createElement("input"); const twin = document.createElement("p"); twin.id = "key";
           document.querySelector("main").append(pale, bare, twin)"""
    )
    found = " ".join(faults(door))
    assert "contrast" in found
    assert "no name" in found
    assert "twice" in found


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_a_phone_shows_every_page_without_scrolling_sideways(browser: Chrome, service: Service, page: str) -> None:
    console = opened(browser, service, page)
    console.screen(390, 844)
    widths = console.driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths[1] == 390
    assert widths[0] <= 390, widths


def test_a_person_with_a_keyboard_alone_gets_from_the_door_to_a_paused_routine(door: Console, service: Service) -> None:
    def keys(*pressed: str) -> None:
        ActionChains(door.driver).send_keys(*pressed).perform()

    door.until(lambda: door.focused().get_attribute("id") == "key")
    keys(door.key, Keys.ENTER)
    door.find(".row")
    assert door.focused().tag_name == "h1"
    keys(*[Keys.TAB] * 2)
    walked = []
    for _ in range(30):
        if door.focused().get_attribute("id") == "search":
            break
        walked.append(door.focused().text)
        keys(Keys.TAB)
    keys("morning")
    door.until(lambda: len(door.all(".row")) == 1)
    keys(Keys.TAB, Keys.TAB)
    assert door.focused().text == "morning", walked
    keys(Keys.ENTER)
    door.until(lambda: door.title() == "morning")
    keys(Keys.TAB, Keys.TAB)
    assert door.focused().text == "Pause"
    keys(Keys.SPACE)
    door.sees("None while it is paused")
    door.until(lambda: door.focused().text == "Resume")
    keys(Keys.SPACE)
    door.until(lambda: door.focused().text == "Pause")


def test_the_content_can_be_reached_past_the_head(console: Console) -> None:
    console.open("#/tasks")
    console.driver.execute_script("document.querySelector('.skip-link').focus()")
    ActionChains(console.driver).send_keys(Keys.ENTER).perform()
    assert console.focused().tag_name == "h1"


def test_what_has_the_focus_can_be_seen(console: Console) -> None:
    console.open("#/routines/greet/morning")
    ActionChains(console.driver).send_keys(Keys.TAB).perform()
    outline = console.focused().value_of_css_property("outline-style"), console.focused().text
    assert outline == ("solid", "Run now")
