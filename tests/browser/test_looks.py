"""Tests accessibility: names of controls, contrast in light and dark mode, narrow screens, and the keyboard."""

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from support.browsing import PAGES, Console, filled
from support.looks import axe_violations, faults, needs_axe, widths
from support.sampling import sample
from support.service import Service

pytestmark = pytest.mark.slow
EVERY_PAGE = ["sign-in", *PAGES]


def opened(browser: Chrome, service: Service, page: str) -> Console:
    console = Console(browser, service.url, (service.data_dir / "demo.key").read_text().strip())
    console.arrive(signed_in=page != "sign-in")
    if page != "sign-in":
        console.open(filled(service, page))
    return console


@pytest.mark.parametrize("page", sample(EVERY_PAGE, 6))
def test_texts_and_controls_are_legible_in_light_and_dark_mode_and_have_names(
    browser: Chrome, service: Service, page: str
) -> None:
    console = opened(browser, service, page)
    console.driver.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert faults(console) == []
    light = console.find("body").find_element("xpath", "..").value_of_css_property("background-color")
    console.screen(1280, 900, dark=True)
    assert console.find("body").find_element("xpath", "..").value_of_css_property("background-color") != light
    assert faults(console) == []


@needs_axe
@pytest.mark.parametrize("page", sample(EVERY_PAGE, 6))
def test_axe_finds_nothing(browser: Chrome, service: Service, page: str) -> None:
    console = opened(browser, service, page)
    console.driver.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert axe_violations(console) == []


def test_the_checks_find_faults(signed_out: Console) -> None:
    signed_out.driver.execute_script(
        """const other = document.createElement("button"); other.textContent = "Go"; other.ariaLabel = "Leave";
           document.querySelector("main").append(other);
           const pale = document.createElement("p"); pale.textContent = "pale"; pale.style.color = "#ccc";
           const bare = document.createElement("input"); const twin = document.createElement("p"); twin.id = "key";
           document.querySelector("main").append(pale, bare, twin)"""
    )
    found = " ".join(faults(signed_out))
    assert "contrast" in found
    assert "no name" in found
    assert "is named" in found
    assert "duplicate id" in found


@pytest.mark.parametrize("width", [390, 320])
@pytest.mark.parametrize("page", sample(EVERY_PAGE, 8))
def test_no_page_scrolls_sideways_on_a_phone(browser: Chrome, service: Service, page: str, width: int) -> None:
    console = opened(browser, service, page)
    console.screen(width, 844)
    console.driver.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    whole, screen = widths(console)
    assert screen == width
    assert whole <= width


@pytest.mark.parametrize("width", [1280, 390])
def test_a_long_step_name_stands_beside_what_follows_it(browser: Chrome, service: Service, width: int) -> None:
    console = opened(browser, service, "wide run")
    console.screen(width, 844)
    overprinted = """
        const boxes = [...document.querySelectorAll(".step-line > *")].map((each) => {
          const range = document.createRange();
          range.selectNodeContents(each);
          return range.getBoundingClientRect();
        });
        return boxes.filter((one, index) => boxes.slice(index + 1).some((other) =>
          one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom)).length
    """
    assert len(console.all(".step-line > *")) == 4
    assert console.driver.execute_script(overprinted) == 0


def test_a_routine_can_be_paused_with_the_keyboard_alone(signed_out: Console, service: Service) -> None:
    def keys(*pressed: str) -> None:
        ActionChains(signed_out.driver).send_keys(*pressed).perform()

    signed_out.until(lambda: signed_out.focused().get_attribute("id") == "key")
    keys(signed_out.key, Keys.ENTER)
    signed_out.find(".row")
    assert signed_out.focused().tag_name == "h1"
    keys(*[Keys.TAB] * 2)
    walked = []
    for _ in range(30):
        if signed_out.focused().get_attribute("id") == "search":
            break
        walked.append(signed_out.focused().text)
        keys(Keys.TAB)
    keys("morning")
    signed_out.until(lambda: len(signed_out.all(".row")) == 1)
    for _ in range(10):
        if signed_out.focused().text == "morning":
            break
        keys(Keys.TAB)
    assert signed_out.focused().text == "morning", walked
    keys(Keys.ENTER)
    signed_out.until(lambda: signed_out.title() == "morning")
    keys(Keys.TAB, Keys.TAB)
    assert signed_out.focused().text == "Pause"
    keys(Keys.SPACE)
    signed_out.sees("None while it is paused")
    signed_out.until(lambda: signed_out.focused().text == "Resume")
    keys(Keys.SPACE)
    signed_out.until(lambda: signed_out.focused().text == "Pause")


def test_a_link_skips_the_header(console: Console) -> None:
    console.open("#/tasks")
    console.driver.execute_script("document.querySelector('.skip-link').focus()")
    ActionChains(console.driver).send_keys(Keys.ENTER).perform()
    assert console.focused().tag_name == "h1"


def test_the_focus_is_visible(console: Console) -> None:
    console.open("#/routines/greet/morning")
    ActionChains(console.driver).send_keys(Keys.TAB).perform()
    outline = console.focused().value_of_css_property("outline-style"), console.focused().text
    assert outline == ("solid", "Run now")
