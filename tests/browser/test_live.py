"""Tests that pages hear of changes by one small request, what the tab says, and what is shown before the first page."""

from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.keys import Keys

from support.browsing import FAILS, HURRY, Console, add_run, plain, routine
from support.looks import faults
from support.service import Service

pytestmark = pytest.mark.slow
HELD = """
    const real = fetch;
    window.fetch = async (url, options) => {
      if (String(url).endsWith("/collections/")) await new Promise((resolve) => { window.release = resolve; });
      return real(url, options);
    };
"""
"""Holds back the first answer until `release` is called."""


def asked(console: Console) -> list[str]:
    """Return what the API was asked since the last call: the last parts of the paths."""
    paths = [urlsplit(each["url"]).path for each in console.requests() if "/api/v1/" in each["url"]]
    return [path.partition("/api/v1/")[2] for path in paths]


def row(name: str) -> str:
    return f".row:has(a[href='#/routines/greet/{name}'])"


def number(console: Console) -> int:
    """Return the number in the title of the tab, 0 for none."""
    title = console.driver.title
    assert title.endswith("Routines")
    return int(title[1:].partition(")")[0]) if title.startswith("(") else 0


def test_the_overview_reads_only_what_has_changed(console: Console, service: Service) -> None:
    with routine(service, "watched") as client, console.script(FAILS), console.script(HURRY):
        console.open("#/")
        console.find(row("watched"))
        console.until(lambda: console.all(".rows .bar:not(.none)"))
        asked(console)
        before = console.find(".as-of").text
        console.until(lambda: console.find(".as-of").text != before)
        assert set(asked(console)) == {"db/changes/demo"}

        # What could not be read is read the next time, although it has not changed again.
        console.driver.execute_script("window.failing = '/db/outcomes/'")
        add_run(service, "watched", "failed", minutes=0)
        console.sees("Refresh failed: The database is not available.", ".said")
        console.sees("no such table", f"{row('watched')}.attention")
        console.until(lambda: console.all(f"{row('watched')} .bar.failed"))
        client.post("/routines/demo/greet/watched/pause")
        console.sees("paused", row("watched"))
        client.post("/routines/demo/greet", json={"name": "appeared", "cadence": {"type": "hourly"}})
        console.find(row("appeared"))
        client.delete("/routines/demo/greet/appeared")
        console.until(lambda: not console.all(row("appeared")))
        assert "routines/demo" not in asked(console)


def test_a_collection_of_more_than_a_thousand_routines_is_followed(console: Console, service: Service) -> None:
    service.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, hour_utc)
           SELECT collection_id, id, 'many-' || number, 'daily', 9
           FROM routines.tasks, generate_series(1, 1200) AS number WHERE tasks.name = 'greet'"""
    )
    try:
        with console.script(HURRY):
            console.open("#/?q=many-1100")
            console.find(row("many-1100"))
            console.until(lambda: "loading" not in console.find(".foot").text)
            asked(console)
            add_run(service, "many-1100", "failed", minutes=0)
            console.sees("no such table", f"{row('many-1100')}.attention")
            assert "routines/demo" not in asked(console)
    finally:
        service.execute("DELETE FROM routines.routines WHERE name LIKE 'many-%'")


def test_the_tab_counts_what_needs_attention_and_was_not_seen(console: Console, service: Service) -> None:
    with routine(service, "known") as client, console.script(HURRY):
        console.open("#/")
        console.find(row("known"))
        others = number(console)
        add_run(service, "known", "failed", minutes=0)
        console.until(lambda: number(console) == others + 1)
        assert console.driver.title == f"({others + 1}) Routines"
        console.driver.execute_script(f'document.querySelector("{row("known")} .seen-toggle").focus()')
        console.focused().send_keys(Keys.SPACE)
        console.until(lambda: number(console) == others)
        assert console.focused().get_attribute("aria-pressed") == "true"
        console.sees("you have seen 1", ".lede")
        assert faults(console) == []
        console.driver.refresh()
        console.find(f"{row('known')}.seen")
        assert number(console) == others
        assert "no such table" not in console.driver.execute_script("return JSON.stringify(localStorage)")
        # It stands behind what was not seen; a later failure is another trouble.
        names = [plain(each) for each in console.all(".row.attention .name")]
        assert names[-1] == "known"
        add_run(service, "known", "failed", minutes=-0.1)
        console.until(lambda: number(console) == others + 1)
        console.open("#/tasks")
        assert console.driver.title == "Tasks · Routines"
        client.delete("/routines/demo/greet/known")


def test_a_run_is_read_again_only_when_it_has_come_further(console: Console, service: Service) -> None:
    with routine(service, "going-on"):
        run = add_run(service, "going-on", "running", minutes=1)
        console.open(f"#/runs/greet/{run}")
        console.sees("Running for", ".lede")
        path = f"db/trajectory/demo/greet/{run}"
        paths: list[str] = []
        console.until(lambda: paths.extend(asked(console)) or paths.count(f"{path}/changes") > 3)
        assert paths.count(path) <= 2
        service.execute(
            f"""INSERT INTO routines.steps (trajectory_id, name, position, fence, status, activity, inputs)
                VALUES ({run}, 'greet', 0, 1, 'running', 'text_template', '{{}}')"""
        )
        service.execute(f"UPDATE routines.trajectories SET updated_at = now() WHERE id = {run}")
        console.until(lambda: paths.extend(asked(console)) or paths.count(path) > 2)
        service.execute(
            f"""UPDATE routines.trajectories
                SET status = 'failed', error = 'it broke', ended_at = now(), lease_expires_at = NULL WHERE id = {run}"""
        )
        console.sees("it broke", "main")


def test_what_is_shown_before_the_first_page(console: Console) -> None:
    with console.script(HELD):
        console.driver.get("about:blank")
        console.driver.get(f"{console.origin}/console/")
        console.sees("Loading", "main")
        assert console.find(".skeleton i")
        assert plain(console.find("#collection")) == "demo"
        assert [each for each in faults(console) if "h1" not in each] == []  # the page's heading is still to come
        console.until(lambda: console.driver.execute_script("return Boolean(window.release)"))
        console.driver.execute_script("window.release()")
        console.find(".row")
        assert not console.all(".skeleton")
