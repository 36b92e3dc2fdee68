"""Tests that pages follow what happens, say when they were read, and are not overtaken by late answers."""

import pytest
from selenium.webdriver.support.ui import Select

from support.browsing import HURRY, Console, add_run, filled, routine
from support.service import Service

pytestmark = pytest.mark.slow
CLOCK_CAN_JUMP = "const real = Date.now; window.jump = 0; Date.now = () => real() + window.jump"
HOLDS = """
    const real = fetch;
    window.fetch = async (url, options) => {
      const answer = await real(url, options);
      if (String(url).includes("%s")) await new Promise((resolve) => { window.release = resolve; });
      return answer;
    };
"""
"""Holds back the answers to requests with this text in their URL, until `release` is called."""
RELEASE = "const done = arguments[0]; window.release(); setTimeout(done, 100)"
"""Lets the answer that is held go, and returns once the page has had the time to show it."""


def test_as_of_is_when_the_routines_were_read(console: Console) -> None:
    with console.script(CLOCK_CAN_JUMP):
        console.open("#/")
        console.until(lambda: console.all(".rows .bar:not(.none)"))
        read = console.find(".as-of").text
        console.driver.execute_script("window.jump = 600_000")
        console.type("#search", "morning")
        console.until(lambda: len(console.all(".row")) == 1)
        assert console.find(".as-of").text == read
        console.driver.execute_script("window.jump = 0")
        console.press("Refresh")
        console.until(lambda: console.find(".as-of").text != read)


def test_the_page_of_a_routine_follows_it(console: Console, service: Service) -> None:
    with routine(service, "followed") as client, console.script(HURRY):
        console.open("#/routines/greet/followed")
        console.sees("No slots yet", "main")
        console.type("#why-at", "2026-05-04 09:00")
        run = add_run(service, "followed", "failed", minutes=3)
        console.sees(f"Run {run} started", ".ledger")
        console.sees("no such table", ".notices")
        client.post("/routines/demo/greet/followed/pause")
        console.sees("None while it is paused", "aside")
        console.until(lambda: console.find("#toggle").text == "Resume")
        client.post("/routines/demo/greet/followed/run-now")
        console.sees(", run now", ".runs")
        assert console.focused().get_attribute("value") == "2026-05-04 09:00"
        client.delete("/routines/demo/greet/followed")
        console.sees("deleted or renamed")


def test_following_keeps_older_slots_that_the_user_has_loaded(console: Console, service: Service) -> None:
    with routine(service, "long-ago"), console.script(HURRY):
        for minutes in range(1, 28):
            add_run(service, "long-ago", "completed", minutes=minutes)
        console.open("#/routines/greet/long-ago")
        console.press("Older slots")
        console.until(lambda: len(console.all(".ledger > li")) == 27)
        add_run(service, "long-ago", "failed", minutes=0)
        console.sees("no such table", ".notices")
        assert len(console.all(".ledger > li")) == 27


def test_the_clock_of_a_running_step_goes_on(console: Console, service: Service) -> None:
    with routine(service, "busy"):
        run = add_run(service, "busy", "running", minutes=1)
        service.execute(
            f"""INSERT INTO routines.steps (trajectory_id, name, position, fence, status, activity, inputs, created_at)
                VALUES ({run}, 'greet', 0, 1, 'running', 'text_template', '{{}}', now() - interval '58 seconds')"""
        )
        console.open(f"#/runs/greet/{run}")
        console.sees("Running for 1 min", ".lede")
        for place in (".step-line .number", ".lede .number"):
            shown = console.find(place).text
            console.until(lambda place=place, shown=shown: console.find(place).text != shown)
        length = "return document.querySelector('.track i').style.getPropertyValue('--length')"
        before = console.driver.execute_script(length)
        console.until(lambda: console.driver.execute_script(length) != before)


def test_a_late_answer_does_not_replace_that_to_a_newer_filter_of_the_ledger(console: Console) -> None:
    with console.script(HOLDS % "outcome=missed"):
        console.open("#/routines/greet/morning")
        console.until(lambda: len(console.all(".ledger > li")) > 3)
        for outcome in ("missed", "failed_to_start"):
            Select(console.find("#outcome")).select_by_value(outcome)
            console.until(lambda: console.driver.execute_script("return Boolean(window.release)"))
        console.until(lambda: "its parameters are too large" in console.find(".ledger").text)
        console.driver.execute_async_script(RELEASE)
        assert "Failed to start" in console.find(".ledger").text
        assert "Missed" not in console.find(".ledger").text


def test_a_late_answer_does_not_replace_that_to_a_newer_filter_of_runs(console: Console) -> None:
    with console.script(HOLDS % "status=cancelled"):
        console.open("#/tasks/greet")
        Select(console.find("#status")).select_by_value("cancelled")
        console.until(lambda: console.driver.execute_script("return Boolean(window.release)"))
        Select(console.find("#status")).select_by_value("completed")
        console.until(lambda: len(console.all(".runs .badge.completed")) == len(console.all(".runs > li")) > 0)
        console.driver.execute_async_script(RELEASE)
        assert console.all(".runs .badge.completed")


def test_a_late_answer_does_not_replace_that_to_a_newer_question(console: Console) -> None:
    with console.script(HOLDS % "why?at=2020"):
        console.open("#/routines/greet/morning")
        console.type("#why-at", "2020-01-01 00:00")
        console.find("#ask-why").click()
        console.until(lambda: console.driver.execute_script("return Boolean(window.release)"))
        console.type("#why-at", "2026-05-04 09:00")
        console.find("#ask-why").click()
        console.sees("was still running", "#why-answer")
        console.driver.execute_async_script(RELEASE)
        console.sees("was still running", "#why-answer")


def test_why_begins_with_the_newest_slot_that_has_its_outcome(console: Console, service: Service) -> None:
    with routine(service, "asked"):
        add_run(service, "asked", "failed", minutes=3)
        [(slot,)] = service.execute(
            "SELECT to_char(max(scheduled_for) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') FROM routines.trajectories "
            "WHERE triggered_by_routine_id = (SELECT id FROM routines.routines WHERE name = 'asked')"
        )
        console.open("#/routines/greet/asked")
        assert str(console.find("#why-at").get_attribute("value")).startswith(slot)


# --- runs: where they come from, and what is in them ------------------------------------------------------------------


def test_a_child_run_says_which_run_started_it(console: Console, service: Service) -> None:
    with service.client() as client:
        parent = client.post("/run-sync/demo/nesting", json={}).json()["trajectory_id"]
    console.open("#/tasks/greet")
    console.sees(f"by a step of run {parent}", ".runs")
    console.find(".runs a.name").click()
    console.sees(f"a step of Run {parent}", "aside")
    console.sees(f"by a step of run {parent}", ".log")
    console.press(f"Run {parent} of nesting")
    console.until(lambda: console.title() == f"Run {parent}")


def test_a_retry_and_the_run_that_it_retries_link_to_each_other(console: Console, service: Service) -> None:
    with service.client() as client:
        body = {
            "name": "again",
            "cadence": {"type": "daily", "hour_utc": 9},
            "retry": {"max_attempts": 2, "backoff": [86000], "until": 86400},
        }
        assert client.post("/routines/demo/hostile", json=body).status_code == 201
        service.execute("UPDATE routines.routines SET next_run_at = date_trunc('minute', now()) WHERE name = 'again'")
        console.open("#/routines/hostile/again")
        console.sees("Last attempt: Run", ".ledger")
        console.press("Retried by run " + console.find(".runs a[href^='#/runs/']").text.split()[1])
        console.sees("Waits for its time and then tries the slot again", ".lede")
        console.sees("Retry 1 of run", ".run")
        console.find(".run > div a[href^='#/runs/hostile/']").click()
        console.sees("It failed and was retried by run", ".run")
        client.delete("/routines/demo/hostile/again")


def test_nested_json_of_a_step_shows_that_it_unfolds(console: Console, service: Service) -> None:
    console.open(filled(service, "run"))
    console.find("#step-greet").click()
    style = "return getComputedStyle(arguments[0]).listStyleType"
    nested = console.find(".timeline .json details[open] > summary")
    assert console.driver.execute_script(style, nested) == "disclosure-open"
    nested.click()
    assert console.driver.execute_script(style, nested) == "disclosure-closed"


# --- addresses --------------------------------------------------------------------------------------------------------


def test_an_unknown_page_says_only_that(console: Console) -> None:
    console.open("#/no/such/page")
    console.sees("The console has no page at this address", ".failure")
    assert "deleted or renamed" not in console.find(".failure").text
    assert "no access" not in console.find(".failure").text


def test_a_state_that_there_is_not_shows_all_routines(console: Console) -> None:
    console.open("#/?state=bogus")
    console.sees("morning", ".rows")
    assert console.all("input[name=state][value='']")[0].is_selected()


def test_a_task_without_routines_in_the_address_is_shown_as_the_filter_that_it_is(console: Console) -> None:
    console.open("#/?task=bogus")
    console.sees("No routines match", "main")
    assert console.find("#task-filter").get_attribute("value") == "bogus"
    Select(console.find("#task-filter")).select_by_value("")
    console.sees("morning", ".rows")
