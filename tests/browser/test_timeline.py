"""Tests the timeline: a lane for each routine, with runs, skipped slots and slots to come, by mouse and by keyboard."""

import re
from collections.abc import Generator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from support.browsing import FAILS, HURRY, Console, add_run, plain, routine
from support.looks import all_faults
from support.rows import Database
from support.service import Service
from support.serving import TASK, api_process, new_key

pytestmark = pytest.mark.slow
MANY = 220
"""More routines than four pages of the timeline hold."""
KINDS = "completed failed running cancelled overlap missed failed_to_start calendar paused coming"


def keys(console: Console, *pressed: str) -> None:
    ActionChains(console.driver).send_keys(*pressed).perform()


def lane(console: Console, name: str) -> WebElement:
    """Return the lane of a routine."""

    def found() -> WebElement | None:
        return next((each for each in console.all(".lane") if plain(each).partition(" ")[0] == name), None)

    element = console.until(found)
    assert element
    return element


def words(element: WebElement) -> list[str]:
    """Return the names of the marks in a lane."""
    return [str(each.get_attribute("aria-label")) for each in element.find_elements("css selector", ".lane-mark")]


def named(console: Console) -> str:
    """Return the name of what has the focus."""
    return str(console.focused().get_attribute("aria-label") or console.focused().text)


def asked(console: Console) -> list[str]:
    """Return the parameters of the requests for the timeline since the last call."""
    return [
        each["url"].partition("?")[2]
        for each in console.requests()
        if "/timeline/" in each["url"] and each["method"] == "GET"
    ]


def heard(console: Console, number: int) -> list[str]:
    """Wait until the page has asked so often what has changed.

    Returns:
        The parameters of the requests for the timeline since the last call.
    """
    queries: list[str] = []
    polls = 0

    def is_enough() -> bool:
        nonlocal polls
        for each in console.requests():
            path, _, query = each["url"].partition("?")
            queries.extend([query] if "/timeline/" in path else [])
            polls += "/db/changes/" in path
        return polls >= number

    console.until(is_enough)
    return queries


def scrolled(console: Console) -> list[WebElement]:
    """Scroll to the last lane that is there, and return all lanes."""
    console.driver.execute_script("document.querySelector('.lanes:last-child').scrollIntoView({ block: 'end' })")
    return console.all(".lane")


def skip(service: Service, name: str, reason: str, minutes: float) -> None:
    """Insert a skip of a slot that was due so many minutes ago."""
    service.execute(
        f"""INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason)
            SELECT collection_id, id, slot, slot, '{reason}'
            FROM routines.routines, (SELECT date_trunc('second', now() - interval '{minutes} minutes') AS slot) AS due
            WHERE name = '{name}'"""
    )


@pytest.fixture
def failed(service: Service) -> Generator[int]:
    """A routine that fires in an hour, with marks of all kinds; yields the id of its failed run."""
    soon = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:00Z}"
    with routine(service, "lane-of-all", cadence={"type": "once", "at": soon}):
        add_run(service, "lane-of-all", "completed", minutes=300)
        run = add_run(service, "lane-of-all", "failed", minutes=120)
        for hours, reason in enumerate(["overlap", "missed", "failed_to_start", "calendar", "paused"], 6):
            skip(service, "lane-of-all", reason, 60 * hours)
        add_run(service, "lane-of-all", "cancelled", minutes=90)
        going_on = add_run(service, "lane-of-all", "running", minutes=30, slot=False)
        yield run
        service.execute(
            f"UPDATE routines.trajectories SET status = 'cancelled', ended_at = now() WHERE id = {going_on}"
        )


def test_a_lane_shows_runs_skipped_slots_and_slots_to_come(console: Console, failed: int) -> None:
    console.press("Timeline")
    console.until(lambda: console.title() == "The last 12 hours, and 6 to come.")
    found = lane(console, "lane-of-all")
    assert [kind for kind in KINDS.split() if not found.find_elements("css selector", f".lane-mark.{kind}")] == []
    told = words(found)
    assert len(told) == 10
    [of_failed] = [each for each in told if "Failed, " in each]
    assert re.fullmatch(rf"lane-of-all: \w+ \d+ \w+, \d\d:\d\d(:\d\d)? UTC: Failed, run {failed}, 1.0 s", of_failed)
    assert told[-1].endswith("UTC: To come")
    assert any("Running, run" in each and "so far" in each for each in told)
    places = [each.rect["x"] for each in found.find_elements("css selector", ".lane-mark")]
    assert places == sorted(places)
    now = console.find(".lines .now").rect["x"]
    assert places[-2] < now < places[-1]
    assert "greet" in [plain(each) for each in console.all(".of-task")]
    found.find_element("css selector", ".lane-mark.failed").click()
    console.until(lambda: console.title() == f"Run {failed}")


def test_shapes_differ_where_colours_do(console: Console, failed: int) -> None:
    console.open("#/timeline")
    assert failed
    found = lane(console, "lane-of-all")

    def shape(kind: str) -> tuple[int, str, bool]:
        mark = found.find_element("css selector", f".lane-mark.{kind}")
        style = [mark.value_of_css_property(each) for each in ("border-top-style", "border-top-width")]
        return round(mark.size["height"]), style[0], style[1] != "0px"

    shapes = {kind: shape(kind) for kind in ("completed", "failed", "missed", "overlap", "coming")}
    assert len(set(shapes.values())) == len(shapes)


def test_the_keyboard_alone_finds_a_failed_run_and_why_a_slot_is_to_come(
    signed_out: Console, service: Service, failed: int
) -> None:
    console = signed_out
    console.until(lambda: console.focused().get_attribute("id") == "key")
    keys(console, console.key, Keys.ENTER)
    console.find(".row")
    ActionChains(console.driver).key_down(Keys.CONTROL).send_keys("k").key_up(Keys.CONTROL).perform()
    console.find("#palette-words")
    keys(console, "timeline", Keys.ENTER)
    console.until(lambda: "to come" in console.title())
    lane(console, "lane-of-all")
    keys(console, "/", "lane-of")
    console.until(lambda: len(console.all(".lane")) == 1)
    keys(console, Keys.TAB)
    console.until(lambda: named(console) == "lane-of-all")
    keys(console, Keys.END)
    assert named(console).endswith("To come")
    console.until(lambda: plain(console.find(".readout")).endswith("To come"))
    for _ in range(9):
        keys(console, Keys.ARROW_LEFT)
        if "Failed, " in named(console):
            break
    assert f"run {failed}" in named(console)
    keys(console, "+")
    console.until(lambda: "span=6h" in console.driver.current_url)
    console.until(lambda: len(console.all(".lane .lane-mark")) < 10)
    assert f"run {failed}" in named(console)
    keys(console, "-")
    console.until(lambda: len(console.all(".lane .lane-mark")) == 10)
    assert f"run {failed}" in named(console)
    keys(console, Keys.END, Keys.ENTER)
    console.sees("Upcoming: the slot is due at", "#why-answer")
    console.driver.back()
    console.until(lambda: len(console.all(".lane")) == 1)
    keys(console, "j", Keys.ENTER)
    console.until(lambda: console.title() == "lane-of-all")


def test_arrows_lead_to_what_is_nearest_in_time_in_the_next_lane(console: Console, service: Service) -> None:
    cadence = {"type": "manual"}
    with (
        routine(service, "near-a", cadence=cadence),
        routine(service, "near-b", cadence=cadence),
        routine(service, "near-c", cadence=cadence),
    ):
        runs = {minutes: add_run(service, "near-a", "completed", minutes=minutes) for minutes in (600, 100)}
        runs |= {minutes: add_run(service, "near-c", "completed", minutes=minutes) for minutes in (590, 130)}
        console.open("#/timeline?q=near-")
        console.until(lambda: len(console.all(".lane .lane-mark")) == 4)
        console.find("#search").click()
        keys(console, Keys.TAB)
        assert named(console) == "near-a"
        assert len(console.all(".lane [tabindex='0']")) == 1
        keys(console, Keys.END, Keys.ARROW_DOWN)
        assert f"run {runs[130]}," in named(console)
        keys(console, Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_UP)
        assert f"run {runs[600]}," in named(console)
        keys(console, Keys.HOME, Keys.ARROW_DOWN)
        assert named(console) == "near-b"
        keys(console, Keys.ARROW_RIGHT)
        assert named(console) == "near-b"


def test_the_time_moves_and_is_in_the_address(console: Console, failed: int) -> None:
    console.open("#/timeline")
    lane(console, "lane-of-all")
    assert failed
    console.press("Earlier")
    console.until(lambda: "from=" in console.driver.current_url)
    console.until(lambda: console.find(".lede").text == "Now leads back to the present.")
    title = console.title()
    console.press("Zoom in")
    console.until(lambda: console.title() != title)
    assert "span=6h" in console.driver.current_url
    title = console.title()
    console.driver.refresh()
    console.until(lambda: console.title() == title)
    console.press("Zoom out")
    console.press("Now")
    console.until(lambda: console.title() == "The last 12 hours, and 6 to come.")
    assert "from=" not in console.driver.current_url
    for _ in range(4):
        console.press("Zoom in")
    console.sees("This is the shortest time.", ".said")


def test_what_begins_together_is_one_mark_which_enter_shows_larger(console: Console, service: Service) -> None:
    with routine(service, "many-at-once", cadence={"type": "manual"}):
        for minute in (181, 182, 183):
            add_run(service, "many-at-once", "completed", minutes=minute, slot=False)
        console.open(f"#/timeline?q=many-at-once&from={datetime.now(UTC) - timedelta(hours=12):%Y-%m-%dT%H:%M:%SZ}")
        counted = words(lane(console, "many-at-once"))
        assert len(counted) < 3
        assert sum(int(found[1]) if (found := re.search(r", (\d+) runs$", each)) else 1 for each in counted) == 3
        for span in ("span=6h", "span=2h"):
            together = next(
                (
                    each
                    for each in console.all(".lane .lane-mark")
                    if str(each.get_attribute("aria-label")).endswith(" runs")
                ),
                None,
            )
            if together is None:
                break
            title = console.title()
            console.driver.execute_script("arguments[0].focus()", together)
            keys(console, Keys.ENTER)
            console.until(lambda: console.title() != title)  # noqa: B023 - called at once
            assert span in console.driver.current_url
        assert len(console.all(".lane .lane-mark")) == 3
        assert named(console).startswith("many-at-once: ")


def test_only_routines_with_trouble_are_shown_on_demand(console: Console, failed: int) -> None:
    console.open("#/timeline")
    assert failed
    lane(console, "every-hour")
    console.press("With trouble")
    console.until(lambda: not any(plain(each).startswith("every-hour") for each in console.all(".lane")))
    lane(console, "lane-of-all")
    assert "only=trouble" in console.driver.current_url
    console.open("#/timeline?only=trouble&from=2020-01-01T00:00:00Z")
    console.sees("Nothing went wrong")


def test_the_timeline_reads_only_the_lanes_that_have_changed(console: Console, service: Service) -> None:
    manual = {"type": "manual"}
    with (
        console.script(FAILS),
        console.script(HURRY),
        routine(service, "followed-a", cadence=manual) as client,
        routine(service, "followed-c", cadence=manual),
    ):
        console.open("#/timeline?q=followed")
        lane(console, "followed-c")
        asked(console)
        before = console.find(".as-of").text
        # Now and then everything is read again.
        assert len([query for query in heard(console, 5) if "ids=" not in query]) <= 1
        console.until(lambda: console.find(".as-of").text != before)
        # What could not be read is read the next time, although it has not changed again.
        console.driver.execute_script("window.failing = 'ids='")
        run = add_run(service, "followed-a", "failed", minutes=0)
        console.sees("Refresh failed: The database is not available.", ".said")
        console.until(lambda: any(f"run {run}" in each for each in words(lane(console, "followed-a"))))
        assert any("ids=" in query and "%2C" not in query for query in heard(console, 1))
        # Lanes come, go and move.
        body = {"name": "followed-b", "cadence": manual}
        assert client.post("/routines/demo/greet", json=body).status_code == 201
        lane(console, "followed-b")
        client.patch("/routines/demo/greet/followed-b", json={"name": "followed-d"})
        lane(console, "followed-d")
        assert [plain(each) for each in console.all(".lane")] == ["followed-a", "followed-c", "followed-d"]
        client.delete("/routines/demo/greet/followed-d")
        console.until(lambda: len(console.all(".lane")) == 2)
        assert client.post("/routines/demo/hostile", json={**body, "name": "elsewhere"}).status_code == 201
        asked(console)
        assert len([query for query in heard(console, 5) if "ids=" not in query]) <= 1
        client.delete("/routines/demo/hostile/elsewhere")


def test_a_slot_that_no_ticker_picks_up_is_shown_as_due(browser: Chrome, database: Database) -> None:
    with api_process(database.url) as api:
        with api.client(new_key(database, "my-org")) as client:
            assert client.post("/api/v1/tasks/my-org", json={"name": "echo", "workflow": TASK}).status_code == 201
        with psycopg.connect(database.url) as connection:
            connection.execute(
                """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, once_at)
                   SELECT collection_id, id, 'soon', 'once', now() + interval '1 hour' FROM routines.tasks"""
            )
        console = Console(browser, api.url, new_key(database, "my-org")).arrive(signed_in=True)
        with console.script(HURRY):
            console.open("#/timeline")
            assert words(lane(console, "soon"))[0].endswith("To come")
            with psycopg.connect(database.url) as connection:
                connection.execute("UPDATE routines.routines SET once_at = now() + interval '3 seconds'")
            console.until(lambda: words(lane(console, "soon"))[0].endswith("Due, not picked up"))


def test_hundreds_of_lanes_are_read_as_they_come_near_the_screen(browser: Chrome, database: Database) -> None:
    with api_process(database.url) as api:
        with api.client(new_key(database, "my-org")) as client:
            assert client.post("/api/v1/tasks/my-org", json={"name": "echo", "workflow": TASK}).status_code == 201
        with psycopg.connect(database.url) as connection:
            connection.execute(
                """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
                   SELECT collection_id, id, 'r-' || lpad(number::text, 5, '0'), 'hourly'
                   FROM routines.tasks, generate_series(1, %s) AS number""",
                [MANY],
            )
        console = Console(browser, api.url, new_key(database, "my-org")).arrive(signed_in=True)
        console.requests()
        console.open("#/timeline")
        console.until(lambda: len(console.all(".lane")) == 50)
        assert len(asked(console)) == 1
        console.until(lambda: len(scrolled(console)) == MANY)
        assert len({plain(each) for each in console.all(".lane")}) == MANY
        assert len(console.all(".of-task")) == 1
        assert len(asked(console)) == 4
        console.driver.execute_script("scrollTo(0, document.body.scrollHeight)")
        keys(console, "+")
        console.until(lambda: "span=6h" in console.driver.current_url)
        console.until(lambda: "4 hours" in console.title())
        assert 1 <= len(asked(console)) <= 2


@pytest.mark.parametrize("query", ["", "?span=30min", "?span=48h&only=trouble"])
def test_nothing_is_wrong_with_its_look(console: Console, failed: int, query: str) -> None:
    console.open(f"#/timeline{query}")
    assert failed
    lane(console, "lane-of-all")
    console.find("#search").click()
    keys(console, Keys.TAB, Keys.END)
    assert all_faults(console) == []


# --- strips -----------------------------------------------------------------------------------------------------------


def test_a_bar_of_a_strip_leads_to_its_run_or_to_why_there_is_none(console: Console, service: Service) -> None:
    with routine(service, "stripped", cadence={"type": "manual"}):
        failed = add_run(service, "stripped", "failed", minutes=100)
        skip(service, "stripped", "missed", 50)
        done = add_run(service, "stripped", "completed", minutes=10)
        console.open("#/?q=stripped")
        console.until(lambda: len(console.all(".rows .strip a")) == 3)
        assert len(console.all(".rows .strip a[tabindex='0']")) == 1
        console.find(".row .name").send_keys(Keys.TAB)
        assert named(console).endswith(f"Completed, run {done}")
        keys(console, Keys.ARROW_LEFT)
        assert re.fullmatch(r"\w+ \d+ \w+, \d\d:\d\d(:\d\d)? UTC: Missed", named(console))
        keys(console, Keys.HOME)
        assert named(console).endswith(f"Failed, run {failed}")
        keys(console, Keys.ENTER)
        console.until(lambda: console.title() == f"Run {failed}")
        console.driver.back()
        console.until(lambda: len(console.all(".rows .strip a")) == 3)
        console.all(".rows .strip a")[1].click()
        console.sees("Missed: no ticker picked it up in time", "#why-answer")
        assert len(console.all(".state .strip a")) == 3
