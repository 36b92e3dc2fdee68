"""Tests that every page looks right in Firefox, as it does in Chromium: tests/browser/test_looks.py."""

import pytest

from support.browsing import PAGES, filled
from support.firefox import Firefox, FirefoxConsole
from support.looks import all_faults
from support.service import Service

pytestmark = pytest.mark.slow


@pytest.mark.timeout(1800)
def test_every_page_looks_right_in_firefox(firefox: Firefox, service: Service) -> None:
    console = FirefoxConsole(firefox, service.url, (service.data_dir / "demo.key").read_text().strip())
    console.arrive()
    found = {"sign-in": all_faults(console)}
    console.arrive(signed_in=True)
    for page in PAGES:
        console.screen(1280, 900)
        console.open(filled(service, page))
        found[page] = all_faults(console)
    assert {page: faults for page, faults in found.items() if faults} == {}
