"""Tests signing in, tasks and runs, limits, feeds, and addresses without a page."""

import os
import re
import signal

import httpx
import pytest
from selenium.webdriver.common.by import By

from support.browsing import Console, filled, plain
from support.service import Service

pytestmark = pytest.mark.slow


# --- signing in -------------------------------------------------------------------------------------------------------


def test_a_key_opens_its_collection_and_survives_a_reload(signed_out: Console) -> None:
    signed_out.sign_in()
    signed_out.sees("demo", "header")
    signed_out.driver.refresh()
    signed_out.sees("demo", "header")
    assert signed_out.driver.execute_script("return [localStorage.length, document.cookie]") == [0, ""]
    assert signed_out.key not in signed_out.driver.current_url


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("nonsense", "This key does not work"),
        ("schlüssel", "Enter the whole key"),
        ("rtn_1_" + "a" * 43 + "b" * 6, "mistyped or truncated"),
    ],
    ids=["unknown", "not a key", "mistyped"],
)
def test_a_wrong_key_is_rejected_with_advice_and_not_stored(signed_out: Console, key: str, words: str) -> None:
    signed_out.sign_in(key)
    signed_out.sees(words, "#key-error")
    assert signed_out.find("#key").get_attribute("aria-invalid") == "true"
    assert signed_out.driver.execute_script("return sessionStorage.length") == 0


def test_sign_out_forgets_the_key(console: Console) -> None:
    console.press("Sign out")
    console.sees("You have signed out")
    assert console.driver.execute_script("return sessionStorage.length") == 0
    console.driver.refresh()
    assert console.find("#key")


def test_a_key_revoked_during_the_session_leads_back_to_signing_in(console: Console, service: Service) -> None:
    console.find(".row")
    service.execute(
        "UPDATE routines.api_keys SET revoked_at = now() WHERE collection_id = "
        "(SELECT id FROM routines.collections WHERE name = 'demo')"
    )
    try:
        console.press("Tasks")
        console.sees("no longer works")
        assert console.driver.execute_script("return sessionStorage.length") == 0
    finally:
        service.execute("UPDATE routines.api_keys SET revoked_at = NULL")


# --- tasks and runs ---------------------------------------------------------------------------------------------------


def test_a_task_shows_its_steps_and_can_be_run_with_parameters(console: Console) -> None:
    console.open("#/tasks")
    console.press("greet")
    console.sees("greet.outputs.text", ".workflow")
    console.press("name string")
    console.type(".override[data-field='init_params.name'] .value input", "console")
    console.press("Run task")
    console.until(lambda: console.title().startswith("Run "))
    console.sees("Completed after", ".lede")
    console.find("#step-greet").click()
    console.sees("Hello console", ".timeline")


def test_a_run_shows_how_often_its_failed_step_was_tried_and_what_was_answered(
    console: Console, service: Service
) -> None:
    console.open(filled(service, "failed run"))
    console.sees("Tried 3 times.", ".timeline")
    console.press("What was answered: 503")
    console.sees("retry-after", ".timeline")


def test_a_waiting_run_can_be_cancelled(console: Console, service: Service) -> None:
    worker = service.program_pid("worker")
    with service.client() as client:
        nested = {"task": "greet", "items": list(range(40)), "item_param": "name", "activity": "list_emit_await"}
        workflow = {"init_params": {}, "step_configs": {"many": nested}, "steps": ["many"]}
        assert client.post("/tasks/demo", json={"name": "many", "workflow": workflow}).status_code == 201
        os.kill(worker, signal.SIGSTOP)  # keeps the run waiting until it is cancelled
        try:
            run = client.post("/run/demo/many", json={}).json()["trajectory_id"]
            console.open(f"#/runs/many/{run}")
            console.sees("Waiting for a worker", ".lede")
            console.press("Cancel run")
            console.sees("Cancelled", ".lede")
        finally:
            os.kill(worker, signal.SIGCONT)


def test_relative_times_follow_the_clock_of_the_service(console: Console, service: Service) -> None:
    """With this machine's clock three hours ahead, the newest run still ended moments ago."""
    [(run,)] = service.execute(
        "SELECT max(id) FROM routines.trajectories WHERE task_id = (SELECT id FROM routines.tasks WHERE name = 'greet')"
    )
    with console.script("const real = Date.now; Date.now = () => real() + 3 * 3600e3"):
        console.open(f"#/runs/greet/{run}")
        ahead = console.driver.execute_script("return Date.now() - new Date()")
        assert ahead > 3 * 3600e3 - 1000
        shown = console.find("aside time[data-relative]").text
        assert re.fullmatch(r"now|\d+ (s|min) ago", shown), shown


# --- other pages ------------------------------------------------------------------------------------------------------


def test_the_limits_are_shown_with_their_use_and_the_reached_one_stands_out(console: Console, service: Service) -> None:
    service.execute(
        """INSERT INTO routines.collection_limits (collection_id, name, value)
           SELECT id, limit_name, value FROM routines.collections,
                  (VALUES ('tasks', 1), ('file_bytes', NULL), ('run_steps', 50)) AS limits (limit_name, value)
           WHERE collections.name = 'demo'"""
    )
    try:
        console.find("nav a[href='#/limits']").click()
        console.find(".limits")
        assert plain(console.find("main h1")) == "1 limit reached."
        rows = {plain(row.find_element(By.CSS_SELECTOR, ".name")): row for row in console.all(".row.limit")}
        tasks = service.execute("SELECT count(*) FROM routines.tasks")[0][0]
        assert f"{tasks} of 1 task" in plain(rows["Tasks"])
        assert "default: 10,000 tasks" in plain(rows["Tasks"])
        assert rows["Tasks"].find_elements(By.CSS_SELECTOR, ".gauge.full")
        assert "0 bytes, no limit" in plain(rows["File bytes"])
        assert "of 100 GiB" in plain(rows["Stored bytes"])
        assert "50 steps" in plain(rows["Steps"])
        assert not rows["Steps"].find_elements(By.CSS_SELECTOR, ".gauge")
        assert len(console.all(".gauge.full")) == 1
    finally:
        service.execute("DELETE FROM routines.collection_limits")


def test_a_person_subscribes_to_a_routine_and_revokes_the_feed(console: Console, service: Service) -> None:
    console.open("#/routines/greet/morning")
    console.press("Subscribe in a calendar")
    console.sees("It shows the routine greet/morning.", "main")
    console.press("Create a feed")
    address = str(console.find("#feed-address").get_attribute("value"))
    assert address.startswith(f"{service.url}/api/v1/ics/rtf_")
    answer = httpx.get(address)
    assert (answer.status_code, "SUMMARY:greet/morning" in answer.text) == (200, True)
    console.open("#/feeds")
    [row] = console.all("main .rows .row")
    assert "greet/morning" in plain(row)
    assert "last read now" in plain(row) or "ago" in plain(row)
    console.press("Revoke")
    console.until(lambda: console.title() == "No calendar feeds yet.")
    assert httpx.get(address).status_code == 404


def test_a_missing_page_says_what_may_have_happened(console: Console) -> None:
    console.open("#/routines/greet/nothing")
    console.sees("deleted or renamed")
    console.open("#/no/such/page")
    console.sees("The console has no page at this address")
