"""Drives Firefox by Selenium without geckodriver, which Debian does not package.

geckodriver translates the requests of WebDriver into Marionette, the protocol of Firefox itself: arrays of JSON over
TCP, each with its length before it. `Marionette` does the same for the commands that these tests need.
"""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from selenium.webdriver.common.options import ArgOptions
from selenium.webdriver.remote.webdriver import WebDriver

from support.browsing import Console
from support.service import wait_until

BINARY = shutil.which("firefox-esr") or shutil.which("firefox")
START_SECONDS = 180
ANSWER_SECONDS = 120
PREFERENCES = {
    "marionette.port": 0,  # a free one, which Firefox writes into its profile
    "datareporting.policy.dataSubmissionEnabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "intl.accept_languages": "en-GB",
}
"""Besides those that Firefox sets by itself while it is driven, against requests of its own."""
WINDOW = {"MOZ_HEADLESS_WIDTH": "1500", "MOZ_HEADLESS_HEIGHT": "1100"}
"""Larger than any page that is looked at."""
COMMANDS = {
    "newSession": "WebDriver:NewSession",
    "setTimeouts": "WebDriver:SetTimeouts",
    "get": "WebDriver:Navigate",
    "goBack": "WebDriver:Back",
    "goForward": "WebDriver:Forward",
    "refresh": "WebDriver:Refresh",
    "getCurrentUrl": "WebDriver:GetCurrentURL",
    "getTitle": "WebDriver:GetTitle",
    "w3cGetWindowHandles": "WebDriver:GetWindowHandles",
    "switchToWindow": "WebDriver:SwitchToWindow",
    "w3cGetActiveElement": "WebDriver:GetActiveElement",
    "findElement": "WebDriver:FindElement",
    "findElements": "WebDriver:FindElements",
    "findChildElement": "WebDriver:FindElement",
    "findChildElements": "WebDriver:FindElements",
    "getElementText": "WebDriver:GetElementText",
    "getElementTagName": "WebDriver:GetElementTagName",
    "getElementRect": "WebDriver:GetElementRect",
    "getElementProperty": "WebDriver:GetElementProperty",
    "getElementValueOfCssProperty": "WebDriver:GetElementCSSValue",
    "isElementSelected": "WebDriver:IsElementSelected",
    "isElementEnabled": "WebDriver:IsElementEnabled",
    "clickElement": "WebDriver:ElementClick",
    "clearElement": "WebDriver:ElementClear",
    "sendKeysToElement": "WebDriver:ElementSendKeys",
    "actions": "WebDriver:PerformActions",
    "clearActionState": "WebDriver:ReleaseActions",
    "w3cExecuteScript": "WebDriver:ExecuteScript",
    "w3cExecuteScriptAsync": "WebDriver:ExecuteAsyncScript",
    "screenshot": "WebDriver:TakeScreenshot",
    "setContext": "Marionette:SetContext",
}
"""Marionette's names of Selenium's commands; the last is not Selenium's: it turns to the window around the page."""
SCREEN = """
    const [width, height, theme] = arguments;
    const page = gBrowser.selectedBrowser;
    for (const [name, length] of [["width", width], ["height", height]]) {
      for (const each of [name, `min-${name}`, `max-${name}`]) page.style.setProperty(each, `${length}px`, "important");
    }
    page.browsingContext.prefersColorSchemeOverride = theme;
"""
"""Gives the page a size, smaller than a window can be if need be, and a theme."""


class Marionette:
    """A connection to Firefox, in place of Selenium's connection to a driver.

    Args:
        port: Where this Firefox listens.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        self._stream = self._socket.makefile("rb")
        self._sent = 0
        self._read()  # its greeting

    def execute(self, command: str, params: dict[str, Any] | None) -> dict[str, Any]:
        """Send a command of Selenium, and return the answer, or the error, as a driver would."""
        given = dict(params or {})
        given.pop("sessionId", None)
        if command == "newSession":
            given = {}
        elif command.startswith("findChild"):
            given["element"] = given.pop("id")
        self._sent += 1
        text = json.dumps([0, self._sent, COMMANDS[command], given])
        self._socket.sendall(f"{len(text)}:{text}".encode())
        _, _, error, answer = self._read()
        if error:
            return {"status": error["error"], "value": error}
        return {"value": answer["value"] if isinstance(answer, dict) and set(answer) == {"value"} else answer}

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._socket.close()

    def _read(self) -> Any:
        digits = b""
        while (digit := self._stream.read(1)) != b":":
            assert digit, "Firefox has closed the connection"
            digits += digit
        return json.loads(self._stream.read(int(digits)))


class Firefox(WebDriver):
    """A headless Firefox with a new profile.

    Args:
        profile: An empty directory.
    """

    def __init__(self, profile: Path) -> None:
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
        (profile / "user.js").write_text("".join(lines))
        assert BINARY
        # The last argument lets a driver see the window around the page, which was always so before Firefox 138.
        flags = ["--headless", "--no-remote", "--marionette", "--remote-allow-system-access"]
        self.process = subprocess.Popen(
            [BINARY, *flags, "--profile", str(profile)],
            env=os.environ | WINDOW,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        listening = profile / "MarionetteActivePort"
        wait_until(lambda: listening.exists() and listening.read_text(), START_SECONDS)
        self.connection = Marionette(int(listening.read_text()))
        super().__init__(self.connection, options=ArgOptions())  # pyright: ignore[reportArgumentType]
        self.set_script_timeout(ANSWER_SECONDS)

    def emulate(self, width: int, height: int, theme: str) -> None:
        """Give the page a size and a theme, `light` or `dark`."""
        self.execute("setContext", {"value": "chrome"})
        self.execute_script(SCREEN, width, height, theme)
        self.execute("setContext", {"value": "content"})

    def quit(self) -> None:
        """Stop Firefox."""
        self.connection.close()
        self.process.terminate()
        self.process.wait(30)


class FirefoxConsole(Console):
    """The console in Firefox. What only Chromium tells is left out: the requests, and the messages in the log."""

    driver: Firefox  # pyright: ignore[reportIncompatibleVariableOverride]

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Emulate a screen of this size and theme."""
        self.driver.emulate(width, height, "dark" if dark else "light")

    def requests(self) -> list[dict[str, Any]]:
        """Return nothing: Firefox keeps no list."""
        return []

    def messages(self) -> list[str]:
        """Return nothing: Firefox keeps no list."""
        return []
