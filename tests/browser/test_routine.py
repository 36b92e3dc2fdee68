"""Tests the page of a routine: its ledger, why it ran or did not, pauses, runs by hand, and its end."""

import pytest
from selenium.webdriver.common.keys import Keys

from support.browsing import HOSTILE, LONG, Console
from support.service import Service

pytestmark = pytest.mark.slow


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


def test_a_long_name_is_shown_in_full_on_its_page(console: Console) -> None:
    console.open(f"#/routines/greet/{LONG}")
    assert console.title() == LONG
