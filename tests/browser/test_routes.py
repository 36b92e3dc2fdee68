"""Tests that the tests of looks know every page of the console."""

import re

from support.browsing import PAGES
from support.service import ROOT

ROUTES = ROOT / "src/routines_console/static/routes.js"


def leads_to(page: str, route: str) -> bool:
    """Return whether an address is of this route."""
    path = page.removeprefix("#/").partition("?")[0].split("/")
    segments = route.removeprefix("/").split("/")
    return len(path) == len(segments) and all(
        segment.startswith(":") or segment == given for segment, given in zip(segments, path, strict=True)
    )


def test_every_route_has_a_page_that_is_looked_at_and_every_page_but_one_has_a_route() -> None:
    routes = re.findall(r'^ *\["(/.*)", \w+\],$', ROUTES.read_text("utf-8"), re.MULTILINE)
    assert len(routes) == ROUTES.read_text("utf-8").count('["/') >= 20
    assert [route for route in routes if not any(leads_to(page, route) for page in PAGES.values())] == []
    unknown = [name for name, page in PAGES.items() if not any(leads_to(page, route) for route in routes)]
    assert unknown == ["no such page"]
