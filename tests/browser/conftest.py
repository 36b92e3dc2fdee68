"""Runs a real browser against a real service: headless Chromium, and `routines up` with API, ticker and worker.

Without Chromium these tests are skipped with a reason; with ROUTINES_TEST_BROWSER=required they fail instead. Some run
in Firefox as well if ROUTINES_TEST_FIREFOX is set, as `make nightly` does.
"""

import os
from collections.abc import Generator

import pytest
from selenium.webdriver import Chrome

from support.browsing import Console, seed
from support.chromium import MISSING, chromium
from support.firefox import BINARY, Firefox
from support.service import Service

NO_FIREFOX = "Firefox is not installed (Debian: apt-get install firefox-esr)"


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
    if MISSING:
        if os.environ.get("ROUTINES_TEST_BROWSER") == "required":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


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
