"""Checks how a page looks: against WCAG as far as that can be automated, and whether it fits the screen."""

import itertools
from pathlib import Path

import pytest

from support.browsing import Console

CHECKS = Path(__file__).with_name("checks.js").read_text("utf-8")
"""Checks that run in the page: WCAG 2.2, levels A and AA, as far as they can be automated."""
AXE = Path(__file__).parents[2] / ".venv" / "axe" / "package" / "axe.min.js"
"""axe-core, which knows more rules than `CHECKS`."""
RUN_AXE = """
    const done = arguments[0];
    const told = ({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120))}`;
    axe.run().then(({ violations }) => done(violations.map(told)));
"""
needs_axe = pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not unpacked: .ci/browser.sh does that")


def faults(console: Console) -> list[str]:
    """Return what `CHECKS` finds on the page as it is now."""
    return console.driver.execute_script(f"{CHECKS}; return faults()")


def focus_fault(console: Console) -> str | None:
    """Return what is wrong with the focus: nothing has it, it is out of sight or does not show; None if all is well."""
    return console.driver.execute_script(f"{CHECKS}; return focusFault()")


def axe_violations(console: Console) -> list[str]:
    """Return what axe finds on the page, on a wide screen and on two phones, in light and in dark mode.

    Contrasts that axe leaves open, such as those of a single character, are computed by `faults`.
    """
    console.driver.execute_script(AXE.read_text("utf-8"))
    found: list[str] = []
    for width, dark in itertools.product((1440, 390, 320), (False, True)):
        console.screen(width, 900, dark=dark)
        told = console.driver.execute_async_script(RUN_AXE)
        found += [f"{width} pixels, {'dark' if dark else 'light'}: {each}" for each in told]
    return found


def widths(console: Console) -> tuple[int, int]:
    """Return how wide the page is, and the screen."""
    whole, screen = console.driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    return whole, screen


def all_faults(console: Console) -> list[str]:
    """Return what all checks find in both themes and on phones, with all parts of the page open."""
    console.driver.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    found: list[str] = []
    for dark in (False, True):
        console.screen(1280, 900, dark=dark)
        found += faults(console)
    for width in (390, 320):
        console.screen(width, 844)
        if widths(console) != (width, width):
            found.append(f"it scrolls sideways at {width} pixels")
    return found + (axe_violations(console) if AXE.is_file() else [])
