"""Tests the report of a time, how it prints, its CSV, and the gaps that it leads to."""

import pytest

from support.browsing import SAVES, Console, add_run, plain, routine
from support.service import Service

pytestmark = pytest.mark.slow
TAKES_TOO_LONG = """
    const real = fetch;
    window.fetch = async (url, options) => String(url).includes("/report/")
      ? Response.json({ title: "Statement timeout", status: 503, detail: "Ask for less time." }, { status: 503 })
      : real(url, options);
"""
"""Makes every report take the database too long."""


def line(name: str) -> str:
    """Return the selector of a routine's line of the report."""
    return f".report tbody tr:has(a[href='#/routines/greet/{name}'])"


def test_the_report_shows_trouble_first_and_leads_to_the_gaps(console: Console, service: Service) -> None:
    with routine(service, "a-good-one"), routine(service, "made-up"), routine(service, "spoilt") as client:
        add_run(service, "a-good-one", "completed", minutes=4)
        add_run(service, "made-up", "failed", minutes=9)
        add_run(service, "made-up", "completed", minutes=8)
        add_run(service, "spoilt", "completed", minutes=7)
        failed = add_run(service, "spoilt", "failed", minutes=6)
        console.open("#/report?since=24h")
        console.sees("1 lost", line("spoilt"))
        console.sees("made up for", line("made-up"))
        assert "lost" not in console.find(line("made-up")).text
        names = [plain(each) for each in console.all(".report tbody th .name")]
        assert names.index("spoilt") < names.index("made-up") < names.index("a-good-one")
        assert "lost" in console.title()
        total = client.get("/report/demo", params=_window(console)).json()["total"]
        console.sees(f"{total['expected']} due", ".report .numbers")
        console.sees(f"{total['failed']} failed", ".report .numbers")

        console.find(f"{line('spoilt')} a[href*='/gaps']").click()
        console.until(lambda: console.title() == "Gaps of spoilt")
        console.sees("no such table", ".ledger")
        console.sees(f"Run {failed}", ".ledger")
        assert len(console.all(".ledger > li")) == 1
        console.press("Back to the report")
        console.sees("1 lost", line("spoilt"))


def test_the_report_is_saved_as_csv_and_prints_without_controls(console: Console, service: Service) -> None:
    with routine(service, "printed") as client, console.script(SAVES):
        add_run(service, "printed", "completed", minutes=4)
        console.open("#/report?since=24h")
        console.find("#csv").click()
        console.until(lambda: len(console.driver.execute_script("return saved")) == 2)
        name, text = sorted(console.driver.execute_script("return saved"), key=len)
        assert name.startswith("report-demo-")
        assert name.endswith(".csv")
        listed = client.get("/report/demo", params={**_window(console), "format": "csv"}).text
        assert text.splitlines()[0] == listed.splitlines()[0]
        assert any(",printed," in each for each in text.splitlines())

        console.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        try:
            assert not console.driver.find_element("css selector", "header").is_displayed()
            assert not console.driver.find_element("id", "csv").is_displayed()
            assert console.find(line("printed")).is_displayed()
        finally:
            console.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_any_time_can_be_reported_and_one_that_is_none_is_explained(console: Console) -> None:
    console.open("#/report?from=2026-05-04T00:00:00Z&to=2026-05-10T00:00:00Z")
    console.sees("morning", ".report tbody")
    console.sees("6 due", ".report .numbers")
    console.type("#report-to", "yesterday")
    console.find("#show").click()
    console.sees("Write it like 2026-05-04 09:00", ".field[data-field='to']")
    console.type("#report-to", "2026-05-03 00:00")
    console.find("#show").click()
    console.until(lambda: console.title() == "No such time.")
    console.sees("Must be later than from", ".field[data-field='to']")
    console.press("Yesterday")
    console.until(lambda: "since=yesterday" in console.driver.current_url and console.all(".report"))
    console.open("#/report?from=bogus&to=bogus")
    assert console.find(".span-form [aria-current]").text == "Since 00:00 UTC"
    with console.script(TAKES_TOO_LONG):
        console.open("#/report?since=7d")
        console.sees("Ask for less time", ".report .notice")
        assert console.find("#report-from").is_displayed()


def _window(console: Console) -> dict[str, str]:
    """Return the time that the page shows."""
    ends = [str(each.get_attribute("datetime")) for each in console.all(".report .lede time")]
    return {"from": ends[0], "to": ends[1]}
