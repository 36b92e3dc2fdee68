"""What people do in the console, against the whole service."""

import os
import re
import signal

import pytest
from selenium.webdriver.common.keys import Keys

from support.browsing import LONG, Console
from support.service import Service

pytestmark = pytest.mark.slow


# --- the door ---------------------------------------------------------------------------------------------------------


def test_a_key_opens_its_collection_and_survives_a_reload_in_this_tab_alone(door: Console) -> None:
    door.sign_in()
    door.sees("demo", "header")
    door.driver.refresh()
    door.sees("demo", "header")
    assert door.driver.execute_script("return [localStorage.length, document.cookie]") == [0, ""]
    assert door.key not in door.driver.current_url
    door.driver.switch_to.new_window("tab")
    try:
        door.driver.get(f"{door.origin}/console/")
        assert door.find("#key")
    finally:
        door.driver.close()
        door.driver.switch_to.window(door.driver.window_handles[0])


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("nonsense", "This key opens nothing"),
        ("schlüssel", "Type or paste the whole key"),
        ("rtn_1_" + "a" * 43 + "b" * 6, "mistyped or cut"),
    ],
    ids=["unknown", "no key", "mistyped"],
)
def test_a_wrong_key_is_refused_with_what_to_do_and_is_not_kept(door: Console, key: str, words: str) -> None:
    door.sign_in(key)
    door.sees(words, "#key-error")
    assert door.find("#key").get_attribute("aria-invalid") == "true"
    assert door.driver.execute_script("return sessionStorage.length") == 0


def test_sign_out_forgets_the_key(console: Console) -> None:
    console.press("Sign out")
    console.sees("signed out")
    assert console.driver.execute_script("return sessionStorage.length") == 0
    console.driver.refresh()
    assert console.find("#key")


def test_a_key_that_is_revoked_meanwhile_leads_back_to_the_door(console: Console, service: Service) -> None:
    console.find(".row")
    service.execute(
        "UPDATE routines.api_keys SET revoked_at = now() WHERE collection_id = "
        "(SELECT id FROM routines.collections WHERE name = 'demo')"
    )
    try:
        console.press("Tasks")
        console.sees("no longer opens")
        assert console.driver.execute_script("return sessionStorage.length") == 0
    finally:
        service.execute("UPDATE routines.api_keys SET revoked_at = NULL")


# --- the overview -----------------------------------------------------------------------------------------------------


def test_the_overview_shows_what_needs_a_look_first_with_the_reason(console: Console) -> None:
    console.find(".row.attention")
    assert "need" in console.title()
    assert "attention" in str(console.all(".row")[0].get_attribute("class"))
    console.sees("hostile", ".row.attention")
    console.sees("step 'read' failed", ".rows")


def test_a_strip_tells_the_outcomes_in_words_too(console: Console) -> None:
    console.sees("morning", ".rows")
    strip = console.find(".rows .strip[aria-label*='missed']")
    label = str(strip.get_attribute("aria-label"))
    assert "1 missed" in label
    assert "1 skipped, still running" in label


def test_filters_narrow_the_list_and_stay_in_the_address(console: Console) -> None:
    console.type("#search", "morning greet")
    console.until(lambda: len(console.all(".row")) == 1)
    console.driver.refresh()
    console.until(lambda: len(console.all(".row")) == 1)
    console.type("#search", "nothing-like-this")
    console.sees("No routine fits")


def test_names_link_to_the_routine_and_back_leads_to_the_same_list(console: Console) -> None:
    console.type("#search", "morning")
    console.until(lambda: len(console.all(".row")) == 1)
    console.press("morning")
    console.until(lambda: console.title() == "morning")
    console.driver.back()
    console.until(lambda: len(console.all(".row")) == 1)


# --- a routine --------------------------------------------------------------------------------------------------------


def test_the_ledger_tells_each_skip_in_a_sentence_with_the_run_that_blocked_it(console: Console) -> None:
    console.open("#/routines/greet/morning")
    console.sees("The run before it was still running: Run", ".ledger")
    console.sees("3 slots", ".ledger")
    console.sees("its parameters are too large", ".ledger")
    console.find("#outcome").send_keys("Missed")
    console.until(lambda: len(console.all(".ledger li")) == 1)


@pytest.mark.parametrize(
    ("time", "sentence"),
    [
        ("2026-05-04T09:00", "was still running"),
        ("2026-05-06T09:00", "Missed: no ticker came in time"),
        ("2026-05-04T10:00", "No slot: the next is"),
        ("2020-01-01T00:00", "the routine was made later"),
    ],
)
def test_why_answers_in_a_sentence(console: Console, time: str, sentence: str) -> None:
    console.open("#/routines/greet/morning")
    field = console.find("#why-at")
    console.driver.execute_script("arguments[0].value = arguments[1]", field, time)
    console.find("#ask-why").click()
    console.sees(sentence, "#why-answer")


def test_pause_and_resume_stop_and_start_the_schedule(console: Console, service: Service) -> None:
    paused = "SELECT paused FROM routines.routines WHERE name = 'morning'"
    console.open("#/routines/greet/morning")
    console.press("Pause")
    console.sees("None while it is paused")
    assert service.execute(paused) == [(True,)]
    console.until(lambda: console.focused().get_attribute("id") == "toggle")
    console.press("Resume")
    console.until(lambda: console.find("#toggle").text == "Pause")
    assert service.execute(paused) == [(False,)]


def test_run_now_leads_to_the_run_and_follows_it_to_its_end(console: Console, service: Service) -> None:
    before = service.execute("SELECT count(*) FROM routines.trajectories")[0][0]
    console.open("#/routines/greet/morning")
    console.press("Run now")
    console.until(lambda: console.title().startswith("Run "))
    console.sees("Completed after", ".lede")
    console.sees("2 of 2 steps done", ".lede")
    console.sees("run completed", ".log")
    assert service.execute("SELECT count(*) FROM routines.trajectories")[0][0] == before + 1
    console.find("#step-greet").click()
    console.sees("Hello world", ".timeline")


def test_a_routine_is_deleted_once_its_name_is_typed(console: Console, service: Service) -> None:
    with service.client() as client:
        client.post("/routines/demo/greet", json={"name": "doomed", "cadence": {"type": "manual"}})
    console.open("#/routines/greet/doomed")
    console.press("Delete")
    console.type("#confirm-name", "doome")
    assert not console.find("dialog button.danger").is_enabled()
    console.find("#confirm-name").send_keys("d", Keys.ENTER)
    console.sees("doomed was deleted")
    assert service.execute("SELECT count(*) FROM routines.routines WHERE name = 'doomed'") == [(0,)]


# --- make and change --------------------------------------------------------------------------------------------------


def test_a_routine_is_made_with_its_slots_seen_before(console: Console, service: Service) -> None:
    console.open("#/new?task=greet")
    console.sees("Weekdays at 09:00 UTC", "#preview")
    assert len(console.all("#preview li")) == 10
    console.press("Weekly")
    console.type("#hour", "6")
    console.type("#minute", "30")
    console.sees("Mondays at 06:30 UTC", "#preview")
    assert all(each.text.startswith("Mon ") for each in console.all("#preview li"))
    console.type("#name", "made-here")
    console.press("size integer")
    console.type(".override[data-field='init_params_overrides.size'] .value input", "7")
    console.press("Save routine")
    console.until(lambda: console.title() == "made-here")
    [(cadence, hour, minute, day, overrides)] = service.execute(
        "SELECT cadence_type, hour_utc, minute_utc, day_of_week, init_params_overrides FROM routines.routines "
        "WHERE name = 'made-here'"
    )
    assert (cadence, hour, minute, day, overrides) == ("weekly", 6, 30, "mon", {"size": 7})


def test_a_cadence_shows_only_the_fields_that_it_takes(console: Console) -> None:
    console.open("#/new?task=greet")
    shown = {}
    for kind in ("By hand", "Hourly", "Daily", "Weekdays", "Weekly"):
        console.press(kind)
        shown[kind] = [name for name in ("day", "hour", "minute") if console.all(f"#{name}")[0].is_displayed()]
    assert shown == {
        "By hand": [],
        "Hourly": ["minute"],
        "Daily": ["hour", "minute"],
        "Weekdays": ["hour", "minute"],
        "Weekly": ["day", "hour", "minute"],
    }


def test_what_the_service_refuses_is_shown_at_the_field_that_it_names(console: Console) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "Not a Slug")
    console.type("#hour", "24")
    console.press("Save routine")
    console.sees("lower-case letters", ".field[data-field='name'] .field-error")
    console.sees("less than or equal to 23", ".field[data-field='cadence.hour_utc'] .field-error")
    assert console.focused().get_attribute("id") == "name"
    console.type("#name", "morning")
    console.type("#hour", "9")
    console.press("Save routine")
    console.sees("A routine of this name exists", ".field[data-field='name'] .field-error")


def test_an_edit_sends_what_changed_and_keeps_secrets(console: Console, service: Service) -> None:
    secret = "SELECT secret_names FROM routines.routine_details WHERE name = 'morning'"
    assert service.execute(secret) == [(["TOKEN"],)]
    console.open("#/routines/greet/morning/edit")
    console.sees("TOKEN", ".secrets")
    console.type("#minute", "5")
    console.requests()
    console.press("Save routine")
    console.sees("Every day at 09:05 UTC", ".lede")
    [patch] = [each for each in console.requests() if each["method"] == "PATCH"]
    assert patch["postData"] == '{"cadence":{"type":"daily","hour_utc":9,"minute_utc":5}}'
    assert service.execute(secret) == [(["TOKEN"],)]


# --- tasks and runs ---------------------------------------------------------------------------------------------------


def test_a_task_shows_its_steps_and_runs_with_parameters(console: Console) -> None:
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


def test_a_run_that_waits_can_be_cancelled(console: Console, service: Service) -> None:
    worker = service.program_pid("worker")
    with service.client() as client:
        nested = {"task": "greet", "items": list(range(40)), "item_param": "name", "activity": "list_emit_await"}
        workflow = {"init_params": {}, "step_configs": {"many": nested}, "steps": ["many"]}
        assert client.post("/tasks/demo", json={"name": "many", "workflow": workflow}).status_code == 201
        os.kill(worker, signal.SIGSTOP)  # so that the run is still waiting when somebody cancels it
        try:
            run = client.post("/run/demo/many", json={}).json()["trajectory_id"]
            console.open(f"#/runs/many/{run}")
            console.sees("Waiting for a worker", ".lede")
            console.press("Cancel run")
            console.sees("Cancelled", ".lede")
        finally:
            os.kill(worker, signal.SIGCONT)


def test_relative_times_go_by_the_services_clock(console: Console, service: Service) -> None:
    """This machine's clock is three hours ahead, and the newest run still ended moments ago, not hours."""
    [(run,)] = service.execute(
        "SELECT max(id) FROM routines.trajectories WHERE task_id = (SELECT id FROM routines.tasks WHERE name = 'greet')"
    )
    source = {"source": "const real = Date.now; Date.now = () => real() + 3 * 3600e3"}
    added = console.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", source)
    try:
        console.open(f"#/runs/greet/{run}")
        ahead = console.driver.execute_script("return Date.now() - new Date()")
        assert ahead > 3 * 3600e3 - 1000
        shown = console.find("aside time[data-relative]").text
        assert re.fullmatch(r"now|\d+ (s|min) ago", shown), shown
    finally:
        console.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_what_is_not_there_says_what_to_do(console: Console) -> None:
    console.open("#/routines/greet/nothing")
    console.sees("deleted or renamed")
    console.open("#/no/such/page")
    console.sees("no page of the console")


def test_long_names_are_whole_on_their_page(console: Console) -> None:
    console.open(f"#/routines/greet/{LONG}")
    assert console.title() == LONG
