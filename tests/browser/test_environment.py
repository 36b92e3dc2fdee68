"""Tests the environment variables of a collection: added, replaced and removed, with no value left in the page."""

import json
from typing import Any

import pytest

from support.browsing import Console
from support.looks import all_faults
from support.service import Service

pytestmark = pytest.mark.slow
EVERYTHING = """
    const typed = [...document.querySelectorAll("input, textarea")].map(({ value }) => value);
    return document.documentElement.outerHTML + typed + JSON.stringify([{ ...localStorage }, { ...sessionStorage }])
"""
"""Returns the page, what is in its inputs, and what the console has stored."""


def sent(console: Console) -> list[dict[str, Any]]:
    """Return what was set and removed since the last call."""
    asked = [each for each in console.requests() if each["method"] == "PATCH"]
    return [json.loads(each["postData"])["environment_variables"] for each in asked]


def enter(console: Console, value: str, name: str | None = None) -> None:
    """Fill in the dialog and save."""
    if name:
        console.type("#variable-name", name)
    console.type("#variable-value", value)
    console.find("#variable-save").click()


def holds(console: Console) -> bool:
    """Return whether the page holds a value that was typed."""
    return "planted" in str(console.driver.execute_script(EVERYTHING))


def test_variables_are_added_replaced_and_removed_and_never_kept(console: Console, service: Service) -> None:
    def names() -> list[str]:
        with service.client() as client:
            return list(client.get("/collections/demo/environment").json()["environment_variables"])

    console.find("#collection").click()
    console.press("Environment")
    console.until(lambda: console.title() == "No variables yet.")
    console.press("Add a variable")
    enter(console, "planted\nin two lines\n", "1_BAD")
    console.sees("Must be a name of 1 to 100 letters", "dialog")
    assert console.focused().get_attribute("id") == "variable-name"
    assert all_faults(console) == []
    console.screen(1280, 900)
    console.requests()
    enter(console, "planted\nin two lines\n", "API_TOKEN")
    console.until(lambda: console.title() == "1 variable.")
    assert sent(console) == [{"API_TOKEN": "planted\nin two lines"}]
    assert not holds(console)
    assert console.focused().get_attribute("id") == "add-variable"

    # A name that is there is not replaced by mistake.
    console.press("Add a variable")
    enter(console, "planted-other", "API_TOKEN")
    console.sees("Replace API_TOKEN?")
    console.press("Go back")
    console.press("Cancel")
    console.press("Replace API_TOKEN")
    enter(console, "planted-newer")
    console.until(lambda: console.focused().get_attribute("id") == "replace-API_TOKEN")
    assert sent(console) == [{"API_TOKEN": "planted-newer"}]
    assert not holds(console)

    console.press("Remove API_TOKEN")
    console.press("Keep it")
    assert names() == ["API_TOKEN"]
    console.press("Remove API_TOKEN")
    console.press("Remove")
    console.until(lambda: console.title() == "No variables yet.")
    assert names() == []
