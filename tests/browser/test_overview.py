"""Tests the overview: what comes first, the words of each row, and its filters."""

import pytest

from support.browsing import Console
from support.service import Service

pytestmark = pytest.mark.slow
MORNING_IS_QUARTERLY = """
    const real = fetch;
    window.fetch = async (url, options) => {
      const answer = await real(url, options);
      if (!String(url).includes("/routines/demo?")) return answer;
      const cadence = { type: "quarterly", hour_utc: 9, minute_utc: 0, day_of_week: null, day_of_month: 15 };
      const routines = await answer.json();
      return Response.json(routines.map((each) => each.name === "morning" ? { ...each, cadence } : each));
    };
"""
"""Makes the service answer with a cadence type that the console does not know."""


def test_the_overview_shows_routines_that_need_attention_first_with_the_reason(console: Console) -> None:
    console.find(".row.attention")
    assert "attention" in console.title()
    assert "attention" in str(console.all(".row")[0].get_attribute("class"))
    console.find(".row.attention a[href*='#/routines/hostile/bad']")
    console.sees("step 'read' failed", ".rows")


@pytest.mark.parametrize("change", ["", "paused = true", "paused = true, paused_reason = 'three strikes'"])
def test_the_overview_and_psql_agree_on_what_needs_attention(console: Console, service: Service, change: str) -> None:
    if change:
        service.execute(f"UPDATE routines.routines SET {change} WHERE name IN ('bad', 'morning')")
    try:
        listed = service.execute("SELECT routine FROM routines.routine_status WHERE needs_attention ORDER BY 1")
        console.driver.refresh()
        console.find(".row")
        total = service.execute("SELECT count(*) FROM routines.routine_status")[0][0]
        console.until(lambda: len(console.all(".row")) == total)
        links = console.all(".row.attention a[href*='#/routines/']:not([href*='?'])")  # not those of its slots
        shown = [str(link.get_attribute("href")) for link in links]
        assert sorted({"demo/" + href.split("#/routines/")[1] for href in shown}) == [row[0] for row in listed]
    finally:
        service.execute("UPDATE routines.routines SET paused = false WHERE name IN ('bad', 'morning')")


def test_a_strip_also_describes_the_outcomes_in_words(console: Console) -> None:
    console.sees("morning", ".rows")
    strip = console.find(".rows .strip[aria-label*='missed']")
    label = str(strip.get_attribute("aria-label"))
    assert "1 missed" in label
    assert "1 skipped, still running" in label


def test_filters_narrow_the_list_and_are_kept_in_the_address(console: Console) -> None:
    console.type("#search", "morning greet")
    console.until(lambda: len(console.all(".row")) == 1)
    console.driver.refresh()
    console.until(lambda: len(console.all(".row")) == 1)
    console.type("#search", "nothing-like-this")
    console.sees("No routines match")


def test_a_name_links_to_its_routine_and_back_returns_to_the_same_list(console: Console) -> None:
    console.type("#search", "morning")
    console.until(lambda: len(console.all(".row")) == 1)
    console.press("morning")
    console.until(lambda: console.title() == "morning")
    console.driver.back()
    console.until(lambda: len(console.all(".row")) == 1)


def test_a_cadence_of_an_unknown_type_is_described_by_its_fields(console: Console) -> None:
    with console.script(MORNING_IS_QUARTERLY):
        console.open("#/")
        console.sees("Quarterly, day of month 15, at 09:00 UTC", ".rows")
