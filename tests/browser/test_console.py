"""Tests what people do in the console, against a complete service."""

import json
import os
import re
import signal
from typing import Any

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from routines_core.cadence import CADENCES
from support.browsing import HOSTILE, LONG, Console, filled, plain
from support.service import Service

pytestmark = pytest.mark.slow
ADDS_QUARTERLY = """
    const real = fetch;
    window.fetch = async (url, options) => {
      const answer = await real(url, options);
      if (!String(url).includes("/cadence-types/")) return answer;
      const types = await answer.json();
      const { hour_utc, minute_utc } = types.find(({ type }) => type === "daily").fields;
      const day_of_month = { required: true, minimum: 1, maximum: 31, default: null };
      return Response.json([...types, { type: "quarterly", fields: { hour_utc, minute_utc, day_of_month } }]);
    };
"""
"""Makes the service offer a cadence type that it does not have."""
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
CADENCES_FAIL_ONCE = """
    const real = fetch;
    let failures = 1;
    window.fetch = async (url, options) => String(url).includes("/cadence-types/") && failures-- > 0
      ? Response.json({ title: "Internal error", status: 500, detail: "It failed." }, { status: 500 })
      : real(url, options);
"""


def cadence_in(request: dict[str, Any]) -> Any:
    """Return the cadence that a request carries, or None."""
    return json.loads(request.get("postData", "{}")).get("cadence")


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


# --- the overview -----------------------------------------------------------------------------------------------------


def test_the_overview_shows_routines_that_need_attention_first_with_the_reason(console: Console) -> None:
    console.find(".row.attention")
    assert "attention" in console.title()
    assert "attention" in str(console.all(".row")[0].get_attribute("class"))
    console.sees("hostile", ".row.attention")
    console.sees("step 'read' failed", ".rows")


def test_a_run_shows_how_often_its_failed_step_was_tried_and_what_was_answered(
    console: Console, service: Service
) -> None:
    console.open(filled(service, "failed run"))
    console.sees("Tried 3 times.", ".timeline")
    console.press("What was answered: 503")
    console.sees("retry-after", ".timeline")


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
        shown = [str(row.get_attribute("href")) for row in console.all(".row.attention a[href*='#/routines/']")]
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


# --- a routine --------------------------------------------------------------------------------------------------------


def test_the_ledger_explains_each_skipped_slot_and_links_to_the_run_that_blocked_it(console: Console) -> None:
    console.open("#/routines/greet/morning")
    console.sees("The previous run was still running: Run", ".ledger")
    console.sees("3 slots", ".ledger")
    console.sees("its parameters are too large", ".ledger")
    console.find("#outcome").send_keys("Missed")
    console.until(lambda: len(console.all(".ledger li")) == 1)


@pytest.mark.parametrize(
    ("time", "sentence"),
    [
        ("2026-05-04T09:00", "was still running"),
        ("2026-05-06T09:00", "Missed: no ticker picked it up in time"),
        ("2026-05-04T10:00", "No slot: the next is"),
        ("2020-01-01T00:00", "the routine was created later"),
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


def test_a_pause_with_an_end_and_a_note_can_be_made_and_changed(console: Console, service: Service) -> None:
    def fill_in(until: str, note: str) -> None:
        field = console.find("#pause-until-time")
        console.driver.execute_script("arguments[0].value = arguments[1]", field, until)
        console.find("#pause-note").clear()
        console.find("#pause-note").send_keys(note)
        console.find("#pause-save").click()

    console.open("#/routines/greet/morning")
    console.press("Pause until…")
    fill_in("2020-01-04T08:00", HOSTILE)
    console.sees("Must be in the future", "dialog")
    fill_in("2126-01-04T08:00", HOSTILE)
    console.sees("Paused until Fri 4 Jan 2126, 08:00 UTC · <img", ".notice")
    console.sees("2126", ".times")
    console.until(lambda: console.focused().get_attribute("id") == "pause-until")
    console.press("Change pause…")
    assert console.find("#pause-until-time").get_attribute("value") == "2126-01-04 08:00"
    fill_in("", "office closed")
    console.sees("Paused · office closed", ".notice")
    kept = "SELECT paused, paused_until, paused_note FROM routines.routines WHERE name = 'morning'"
    assert service.execute(kept) == [(True, None, "office closed")]
    console.open("#/")
    console.sees("paused", ".row.paused")
    console.open("#/routines/greet/morning")
    console.press("Resume")
    console.until(lambda: console.find("#toggle").text == "Pause")
    assert service.execute(kept) == [(False, None, None)]


def test_saving_a_form_does_not_pause_a_routine_that_was_resumed_in_the_meantime(
    console: Console, service: Service
) -> None:
    service.execute("UPDATE routines.routines SET paused = true WHERE name = 'morning'")
    console.open("#/routines/greet/morning/edit")
    assert console.find("#paused").is_selected()
    service.execute("UPDATE routines.routines SET paused = false WHERE name = 'morning'")
    console.press("Save routine")
    console.until(lambda: console.title() == "morning" and console.find("#toggle").text == "Pause")


def test_run_now_opens_the_run_and_follows_it_to_its_end(console: Console, service: Service) -> None:
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


def test_a_routine_is_deleted_only_after_its_name_is_typed(console: Console, service: Service) -> None:
    with service.client() as client:
        client.post("/routines/demo/greet", json={"name": "doomed", "cadence": {"type": "manual"}})
    console.open("#/routines/greet/doomed")
    console.press("Delete")
    console.type("#confirm-name", "doome")
    assert not console.find("dialog button.danger").is_enabled()
    console.find("#confirm-name").send_keys("d", Keys.ENTER)
    console.sees("doomed was deleted")
    assert service.execute("SELECT count(*) FROM routines.routines WHERE name = 'doomed'") == [(0,)]


# --- creating and editing ---------------------------------------------------------------------------------------------


def test_the_form_previews_the_slots_and_creates_the_routine(console: Console, service: Service) -> None:
    console.open("#/new?task=greet")
    console.sees("Weekdays at 09:00 UTC", "#preview")
    assert len(console.all("#preview li")) == 10
    console.press("Weekly")
    console.type("#cadence-hour_utc", "6")
    console.type("#cadence-minute_utc", "30")
    console.sees("Mondays at 06:30 UTC", "#preview")
    assert all(each.text.startswith("Mon ") for each in console.all("#preview li"))
    console.type("#name", "created-here")
    console.press("size integer")
    console.type(".override[data-field='init_params_overrides.size'] .value input", "7")
    console.press("Save routine")
    console.until(lambda: console.title() == "created-here")
    [(cadence, overrides)] = service.execute(
        "SELECT to_jsonb(routines.cadence_of(routines)), init_params_overrides FROM routines.routines "
        "WHERE name = 'created-here'"
    )
    assert cadence.items() >= {"type": "weekly", "hour_utc": 6, "minute_utc": 30, "day_of_week": "mon"}.items()
    assert overrides == {"size": 7}


def test_the_form_shows_only_the_fields_that_the_cadence_takes(console: Console) -> None:
    console.open("#/new?task=greet")
    shown = {}
    for kind in [plain(each) for each in console.all(".cadence-fields legend ~ label")]:
        console.press(kind)
        shown[kind] = console.labels()
    time = ["Hour", "Minute", "Time zone"]
    assert shown == {
        "Hourly": ["Minute"],
        "Daily": time,
        "Weekdays": time,
        "Weekly": ["Day", *time],
        "Monthly": ["Day of the month", *time],
        "Every … min": ["Minutes from slot to slot", "Counted from"],
        "Once": ["At"],
        "Manual": [],
        "Cron": ["Cron expression", "Time zone"],
    }
    assert list(shown)[-1] == "Cron"
    assert len(shown) == len(CADENCES) + 1


@pytest.mark.parametrize(
    ("cadence", "words"),
    [
        (
            {"type": "cron", "expression": ["0 9 * * mon-fri", "0 12 L * *"], "timezone": "Europe/Berlin"},
            "Cron 0 9 * * mon-fri; 0 12 L * *, Europe/Berlin",
        ),
        ({"type": "cron", "expression": ["@daily"], "timezone": "UTC"}, "Cron @daily, UTC"),
        ({"type": "interval", "every_minutes": 90, "anchor": "2026-05-04T09:00:00Z"}, "Every 90 minutes"),
        ({"type": "once", "at": "2099-05-04T09:00:00Z"}, "Once at 2099-05-04T09:00:00Z"),
    ],
    ids=["cron", "one of an array", "interval", "once"],
)
def test_an_edit_keeps_the_cadence_the_bounds_and_the_spread_of_a_routine(
    console: Console, service: Service, cadence: dict[str, Any], words: str
) -> None:
    bounds = {"starts_at": "2026-01-01T00:00:00Z", "ends_at": "2100-01-01T00:00:00Z"}
    with service.client() as client:
        planned = {"name": "planned", "cadence": cadence, "spread_seconds": 30, **bounds}
        made = client.post("/routines/demo/greet", json=planned).json()
        console.open("#/routines/greet/planned")
        console.sees(words, "main")
        console.sees("starts up to 30 seconds after each slot", "main")
        console.open("#/routines/greet/planned/edit")
        console.type("#name", "renamed")
        console.press("Save routine")
        console.until(lambda: console.title() == "renamed")
        assert client.get("/routines/demo/greet/renamed").json() == {**made, "name": "renamed", "warnings": []}
        client.delete("/routines/demo/greet/renamed")


def test_a_spread_is_set_and_removed_and_one_that_is_too_wide_is_refused(console: Console, service: Service) -> None:
    with service.client() as client:
        hourly = {"name": "apart", "cadence": {"type": "hourly"}}
        plain = client.post("/routines/demo/greet", json=hourly).json()
        for typed, kept in (("900", 900), ("", None)):
            console.open("#/routines/greet/apart/edit")
            console.type("#spread", typed)
            console.press("Save routine")
            console.until(lambda: console.title() == "apart")
            assert client.get("/routines/demo/greet/apart").json().get("spread_seconds") == kept
        assert client.get("/routines/demo/greet/apart").json() == {**plain, "warnings": []}
        console.open("#/routines/greet/apart/edit")
        console.type("#spread", "3600")
        console.press("Save routine")
        console.sees("Must be below 3600, the seconds between two of its slots, not 3600", "form")
        client.delete("/routines/demo/greet/apart")


def test_cron_expressions_are_typed_one_on_a_line(console: Console) -> None:
    console.open("#/new?task=greet")
    console.press("Cron")
    console.type("#cadence-expression", "0 9 * * *\n0 25 * * *")
    console.sees("hour must be 0-23", "#preview")
    console.type("#cadence-expression", "0 9 * * *\n0 17 * * *")
    console.type("#cadence-timezone", "Europe/Berlin")
    expected = {"type": "cron", "expression": ["0 9 * * *", "0 17 * * *"], "timezone": "Europe/Berlin"}
    console.until(lambda: expected in [cadence_in(each) for each in console.requests()])


def test_the_form_warns_of_what_the_coming_year_has_in_store(console: Console) -> None:
    console.open("#/new?task=greet")
    console.press("Cron")
    console.type("#cadence-expression", "30 2 * * *")
    console.type("#cadence-timezone", "Europe/Berlin")
    console.sees("02:30 does not exist in Europe/Berlin", "#preview")
    console.sees("02:30 comes twice in Europe/Berlin", "#preview")
    console.press("Daily")
    console.sees("Every day at", "#preview")
    console.until(lambda: not console.all("#preview .notice"))


def test_a_cadence_type_that_the_service_adds_appears_in_the_form(console: Console) -> None:
    with console.script(ADDS_QUARTERLY):
        console.open("#/new?task=greet")
        console.press("Quarterly")
        assert console.labels() == ["Day of month", "Hour (UTC)", "Minute"]
        day = console.find("#cadence-day_of_month")
        assert [day.get_attribute(name) for name in ("min", "max", "value")] == ["1", "31", "1"]
        # The service does not know the type, and its answer to the preview says so.
        console.sees("Not valid yet. Type:", "#preview")
        console.type("#cadence-day_of_month", "15")
        expected = {"type": "quarterly", "day_of_month": 15, "hour_utc": 9, "minute_utc": 0}
        console.until(lambda: expected in [cadence_in(each) for each in console.requests()])


def test_a_cadence_of_an_unknown_type_is_described_by_its_fields(console: Console) -> None:
    with console.script(MORNING_IS_QUARTERLY):
        console.open("#/")
        console.sees("Quarterly, day of month 15, at 09:00 UTC", ".rows")


def test_cadences_are_loaded_once_per_session_and_a_failure_can_be_retried(console: Console) -> None:
    with console.script(CADENCES_FAIL_ONCE):
        console.open("#/new?task=greet")
        console.sees("Could not load the cadences", "main")
        console.press("Try again")
        console.find("#cadence-hour_utc")
    console.driver.execute_script("location.hash = '#/routines/greet/morning/edit'")
    console.until(lambda: console.title() == "Edit morning")
    asked = [each for each in console.requests() if "/cadence-types/" in each["url"]]
    assert len(asked) == 1  # the failure never left the browser


def test_errors_are_shown_next_to_the_field_that_the_service_names(console: Console) -> None:
    console.open("#/new?task=greet")
    console.type("#name", "Not a Slug")
    console.type("#cadence-hour_utc", "24")
    console.press("Save routine")
    console.sees("lower-case letters", ".field[data-field='name'] .field-error")
    console.sees("less than or equal to 23", ".field[data-field='cadence.hour_utc'] .field-error")
    assert console.focused().get_attribute("id") == "name"
    console.type("#name", "morning")
    console.type("#cadence-hour_utc", "9")
    console.press("Save routine")
    console.sees("A routine of this name exists", ".field[data-field='name'] .field-error")


def test_an_edit_sends_only_what_changed_and_keeps_secrets(console: Console, service: Service) -> None:
    secret = "SELECT secret_names FROM routines.routine_details WHERE name = 'morning'"
    assert service.execute(secret) == [(["TOKEN"],)]
    console.open("#/routines/greet/morning/edit")
    console.sees("TOKEN", ".secrets")
    console.type("#cadence-minute_utc", "5")
    console.requests()
    console.press("Save routine")
    console.sees("Every day at 09:05 UTC", ".lede")
    [patch] = [each for each in console.requests() if each["method"] == "PATCH"]
    assert patch["postData"] == '{"cadence":{"type":"daily","hour_utc":9,"minute_utc":5}}'
    assert service.execute(secret) == [(["TOKEN"],)]


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


def test_a_long_name_is_shown_in_full_on_its_page(console: Console) -> None:
    console.open(f"#/routines/greet/{LONG}")
    assert console.title() == LONG
