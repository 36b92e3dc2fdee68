"""docs/run/limits.md lists every limit as it is in the code."""

import re

from routines_core.limits import LIMITS
from support.service import ROOT

PAGE = (ROOT / "docs" / "run" / "limits.md").read_text("utf-8")


def test_the_page_lists_every_limit_with_its_default_and_what_it_bounds() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:`(\d+)` (.+?)|no limit) \| (.+) \|$", PAGE, flags=re.MULTILINE)
    assert [(name, int(default) if default else None, bounds) for name, default, _, bounds in rows] == [
        (name, rule.default, rule.description) for name, rule in LIMITS.items()
    ]
    assert all(unit == LIMITS[name].unit for name, default, unit, _ in rows if default)


def test_the_limits_of_a_run_stand_under_their_own_heading() -> None:
    of_run = PAGE.partition("## The limits of a run")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", of_run, flags=re.MULTILINE) == [
        name for name, rule in LIMITS.items() if rule.of_run
    ]
