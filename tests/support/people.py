"""People who use the console by the keyboard alone, and count what they have to press."""

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from support.browsing import Console, plain
from support.looks import focus_fault

MOST_STOPS = 150
"""More stops of the Tab key than any page of these tests has."""


class Person:
    """Someone with a keyboard and no mouse, who wants to see where the focus is.

    Tab, arrows, `j` and `k` move the focus, and text is typed. What makes something happen is an activation: Enter,
    the space bar, Ctrl-K, another key of the console.

    Args:
        console: The console, with the first page open.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.activations = 0

    def moves(self, *keys: str) -> None:
        """Press keys that only move the focus."""
        for key in keys:
            self.console.keys(key)
            self.sees_the_focus()

    def goes_to(self, wanted: str) -> None:
        """Press Tab until an element with this id, name or text has the focus."""
        self.console.tab_to(wanted)
        self.sees_the_focus()

    def goes_back_to(self, wanted: str) -> None:
        """Press Shift-Tab until an element with this text has the focus."""
        for _ in range(MOST_STOPS):
            self._press_with(Keys.SHIFT, Keys.TAB)
            if plain(self.console.focused()) == wanted:
                return self.sees_the_focus()
        pytest.fail(f"Shift-Tab does not reach {wanted}")

    def types(self, text: str) -> None:
        """Replace what is in the field that has the focus."""
        self._press_with(Keys.CONTROL, "a")
        self.console.keys(text)

    def activates(self, key: str = Keys.ENTER) -> None:
        """Press a key that makes something happen."""
        self.activations += 1
        self.console.keys(key)

    def finds(self, words: str) -> None:
        """Open the palette, type, and take what it offers first: two activations."""
        self.activations += 1
        self._press_with(Keys.CONTROL, "k")
        self.console.find("#palette-words")
        self.sees_the_focus()
        self.console.keys(words)
        self.console.sees(words, "#palette-list [aria-selected=true]")
        self.activates()

    def arrives_at(self, title: str) -> None:
        """Wait until a page has opened, with the focus on its heading."""
        self.console.until(lambda: self.console.title() == title and plain(self.console.focused()) == title)
        self.sees_the_focus()

    def sees_the_focus(self) -> None:
        """Check that something has the focus, and shows it."""
        try:
            self.console.until(lambda: focus_fault(self.console) is None)
        except TimeoutException:
            pytest.fail(str(focus_fault(self.console)))

    def walks_round(self) -> list[str]:
        """Press Tab until the focus is back where it is now; returns the ids, or else the texts, of the other stops."""
        begin = self.console.focused()
        stops: list[str] = []
        for _ in range(MOST_STOPS):
            self.console.keys(Keys.TAB)
            focused = self.console.focused()
            if focused == begin:
                return stops
            if focused.tag_name != "body":  # which stands for the stops that the browser itself has
                self.sees_the_focus()
                stops.append(focused.get_attribute("id") or plain(focused))
        pytest.fail(f"the Tab key does not come round: {stops}")

    def _press_with(self, modifier: str, key: str) -> None:
        ActionChains(self.console.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()
