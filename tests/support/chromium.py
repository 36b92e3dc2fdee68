"""Starts a headless Chromium, for tests, benchmarks and pictures."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service as Driver

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
MISSING = (
    None
    if BROWSER and DRIVER
    else "Chromium or chromedriver is not installed (Debian: apt-get install chromium chromium-driver)"
)
"""Why no browser can be started; None if one can."""
QUIET = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-default-apps "
    "--disable-extensions --hide-scrollbars --lang=en-GB"
)
"""Disable everything that sends requests of its own, and the sandbox, because tests also run as root."""
LOAD_SECONDS = 30
"""How long a page may take to load."""


@contextmanager
def chromium(profile: Path) -> Generator[Chrome]:
    """Yield a browser that keeps its profile in this directory; it ends with the block."""
    options = Options()
    options.binary_location = BROWSER or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in [*QUIET.split(), f"--user-data-dir={profile}"]:
        options.add_argument(argument)
    driver = Chrome(options=options, service=Driver(DRIVER, log_output=os.devnull))
    driver.set_page_load_timeout(LOAD_SECONDS)
    try:
        yield driver
    finally:
        driver.quit()
