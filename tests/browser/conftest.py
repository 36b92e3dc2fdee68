"""Runs a real browser against a real service: headless Chromium, and `routines up` with API, ticker and worker.

Without Chromium these tests are skipped with a reason; with ROUTINES_TEST_BROWSER=required they fail instead. Some run
in Firefox as well if ROUTINES_TEST_FIREFOX is set, as `make nightly` does.
"""

import os
import shutil
from collections.abc import Generator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service as Driver

from support.browsing import Console, seed
from support.firefox import BINARY, Firefox
from support.service import Service

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
REASON = "Chromium or chromedriver is not installed (Debian: apt-get install chromium chromium-driver)"
NO_FIREFOX = "Firefox is not installed (Debian: apt-get install firefox-esr)"
QUIET = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-default-apps "
    "--disable-extensions --hide-scrollbars --lang=en-GB"
)
"""Disable everything that sends requests of its own, and the sandbox, because tests also run as root."""


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """Start a service with routines that succeeded, failed, were skipped and were missed."""
    service = Service(tmp_path_factory.mktemp("console"))
    service.start()
    try:
        seed(service)
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[Chrome]:
    """Start one browser for all tests of a process."""
    if not (BROWSER and DRIVER):
        if os.environ.get("ROUTINES_TEST_BROWSER") == "required":
            pytest.fail(REASON)
        pytest.skip(REASON)
    options = Options()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in [*QUIET.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(argument)
    driver = Chrome(options=options, service=Driver(DRIVER, log_output=os.devnull))
    driver.set_page_load_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Generator[Firefox]:
    """Start one Firefox for all tests of a process."""
    asked = os.environ.get("ROUTINES_TEST_FIREFOX")
    if not asked:
        pytest.skip("Firefox takes minutes: `make nightly` runs this, or ROUTINES_TEST_FIREFOX=1")
    if not BINARY:
        if asked == "required":
            pytest.fail(NO_FIREFOX)
        pytest.skip(NO_FIREFOX)
    driver = Firefox(tmp_path_factory.mktemp("firefox"))
    yield driver
    driver.quit()


@pytest.fixture
def signed_out(browser: Chrome, service: Service) -> Console:
    """Open the console without a key, in light mode, on a screen 1280 pixels wide."""
    return _console(browser, service).arrive()


@pytest.fixture
def console(browser: Chrome, service: Service) -> Console:
    """Open the console with a key, on the same screen."""
    return _console(browser, service).arrive(signed_in=True)


def _console(browser: Chrome, service: Service) -> Console:
    return Console(browser, service.url, (service.data_dir / "demo.key").read_text().strip())
