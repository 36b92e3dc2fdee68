"""Tests what is done with several routines at once: selecting them, the preview, the work, and a result for each."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from support.browsing import SAVES, Console, add_run, plain, routine
from support.looks import all_faults
from support.service import Service, wait_until

pytestmark = pytest.mark.slow
COUNTS = """
    const real = fetch;
    window.sent = [];
    window.most = 0;
    let going = 0;
    window.fetch = async (url, options) => {
      if (!isWatched(String(url), options)) return real(url, options);
      sent.push(options.headers["Idempotency-Key"] ?? String(url).split("/").at(-2));
      going += 1;
      most = Math.max(most, going);
      try {
        return await answer(() => real(url, options));
      } finally {
        going -= 1;
      }
    };
    const isWatched = (url, { method }) => method === "POST" && /pause$|rerun/.test(url);
"""
"""Keeps what is sent in `sent`, and the most that was under way at once in `most`; `answer` decides what comes back."""
SLOW = "const answer = async (ask) => { await new Promise((go) => setTimeout(go, 300)); return ask(); };"
ASKS_TO_SLOW_DOWN = """
    const answer = async (ask) => sent.length === 2
      ? Response.json({ status: 429, detail: "Too many." }, { status: 429, headers: { "Retry-After": "2" } })
      : ask();
"""
LOSES_THE_SECOND = """
    const answer = async (ask) => {
      const mine = sent.length;
      const given = await ask();
      if (mine === 2) throw new TypeError("Failed to fetch");
      return given;
    };
"""
"""The service does what the second request asks, and its answer is lost."""


@contextmanager
def several(service: Service, *names: str) -> Generator[None]:
    """Create daily routines for the time of a test."""
    with ExitStack() as made:
        for name in names:
            made.enter_context(routine(service, name))
        yield


def narrowed(console: Console, words: str, number: int) -> None:
    """Open the overview with only the routines that have these words."""
    console.open(f"#/?q={words}&sort=name")
    console.until(lambda: len(console.all(".row")) == number)


def press(console: Console, *keys: str, shift: bool = False) -> None:
    chain = ActionChains(console.driver)
    if shift:
        chain.key_down(Keys.SHIFT)
    chain.send_keys(*keys)
    if shift:
        chain.key_up(Keys.SHIFT)
    chain.perform()


def select_all(console: Console, number: int) -> None:
    console.find("#pick-shown").click()
    console.sees(f"{number} selected", ".bulk-bar")


def start(console: Console, action: str) -> None:
    """Press the button of an action, and agree to what the preview says."""
    console.find(f"#bulk-{action}").click()
    console.find("#bulk-go").click()


def end(service: Service, run: int) -> None:
    """End a run that nobody works at."""
    ended = "status = 'completed', ended_at = now(), lease_expires_at = NULL"
    service.execute(f"UPDATE routines.trajectories SET {ended} WHERE id = {run}")


def paused(service: Service, words: str) -> list[str]:
    rows = service.execute(f"SELECT name FROM routines.routines WHERE name LIKE '{words}%' AND paused ORDER BY name")
    return [name for (name,) in rows]


# --- selecting --------------------------------------------------------------------------------------------------------


def test_ranges_the_routines_shown_and_all_that_fit_are_selected(console: Console, service: Service) -> None:
    names = [f"many-{number:02}" for number in range(53)]
    with several(service, *names):
        console.open("#/?q=many&sort=name")
        console.until(lambda: len(console.all(".row")) == 50)
        assert not console.find(".overview").find_elements("css selector", ".bulk-bar:not([hidden])")
        boxes = console.all(".pick")
        boxes[1].click()
        console.sees("1 selected", ".bulk-bar")
        ActionChains(console.driver).key_down(Keys.SHIFT).click(boxes[5]).key_up(Keys.SHIFT).perform()
        console.sees("5 selected", ".bulk-bar")
        assert console.driver.execute_script("return document.getElementById('pick-shown').indeterminate")
        ActionChains(console.driver).key_down(Keys.SHIFT).click(boxes[4]).key_up(Keys.SHIFT).perform()
        console.sees("3 selected", ".bulk-bar")  # the range was unselected
        console.find("#pick-shown").click()
        console.sees("50 selected", ".bulk-bar")
        console.press("Select all 53 that fit")
        console.sees("53 selected", ".bulk-bar")
        assert console.focused().get_attribute("id") == "bulk-bar"
        console.type("#search", "many-0")
        console.sees("53 selected, 43 not in this list", ".bulk-bar")
        console.press("Clear")
        console.until(lambda: not console.find(".overview").find_elements("css selector", ".pick input:checked"))
        assert console.focused().get_attribute("id") == "pick-shown"


def test_routines_are_selected_and_paused_by_the_keyboard_alone(console: Console, service: Service) -> None:
    with several(service, "typed-1", "typed-2", "typed-3", "typed-4"):
        narrowed(console, "typed", 4)
        press(console, "j", "x")
        press(console, "j", shift=True)
        press(console, Keys.ARROW_DOWN, shift=True)
        console.sees("3 selected", ".bulk-bar")
        assert console.focused().text == "typed-3"
        press(console, "x")
        console.sees("2 selected", ".bulk-bar")
        ActionChains(console.driver).key_down(Keys.CONTROL).send_keys("k").key_up(Keys.CONTROL).perform()
        press(console, "pause")
        console.sees("Pause… on this page", ".palette")
        press(console, Keys.ESCAPE)
        console.until(lambda: not console.all("dialog"))
        press(console, "a")
        assert console.focused().get_attribute("id") == "bulk-bar"
        while console.focused().text != "Pause…":
            press(console, Keys.TAB)
        press(console, Keys.ENTER)
        console.sees("2 routines will be paused.", ".bulk-ask")
        console.until(lambda: console.focused().get_attribute("id") == "bulk-until")
        press(console, Keys.TAB, "for the move", Keys.ENTER)
        console.sees("All 2 paused.", ".work")
        assert console.focused().get_attribute("id") == "work-heading"
        assert paused(service, "typed") == ["typed-1", "typed-2"]
        console.sees("paused", ".row")  # the list has been read again


def test_single_keys_select_nothing_where_they_are_turned_off(console: Console, service: Service) -> None:
    with several(service, "mute-1"):
        narrowed(console, "mute", 1)
        console.driver.execute_script("sessionStorage.setItem('routines.single-keys', 'off')")
        console.driver.execute_script("document.querySelector('.row .name').focus()")
        press(console, "x")
        assert not console.all(".pick input:checked")
        press(console, Keys.TAB, shift=True)
        press(console, Keys.SPACE)
        console.sees("1 selected", ".bulk-bar")


# --- pausing and resuming ---------------------------------------------------------------------------------------------


def test_a_pause_says_what_becomes_of_each_and_leaves_those_that_are_paused(console: Console, service: Service) -> None:
    with several(service, "rest-1", "rest-2", "rest-3"), service.client() as client:
        client.post("/routines/demo/greet/rest-3/pause", json={"note": "since May"})
        narrowed(console, "rest-", 3)
        select_all(console, 3)
        console.find("#bulk-pause").click()
        console.sees("2 routines will be paused.", ".bulk-ask")
        console.sees("1 routine is paused already, and stays as it is.", ".bulk-ask")
        assert all_faults(console) == []
        console.screen(1280, 900)
        console.type("#bulk-until", "2026-05-04 09:00")
        console.find("#bulk-go").click()
        console.sees("Must be later than now", ".bulk-ask")
        console.type("#bulk-until", "2100-05-04 09:00")
        console.type("#bulk-note", "the move")
        console.find("#bulk-go").click()
        console.sees("All 2 paused.", ".work")
        notes = """SELECT name, paused_note, paused_until::date::text FROM routines.routines
                   WHERE name LIKE 'rest-%' ORDER BY 1"""
        moved = ("the move", "2100-05-04")
        assert service.execute(notes) == [("rest-1", *moved), ("rest-2", *moved), ("rest-3", "since May", None)]

        console.find("#bulk-pause").click()
        console.sees("3 routines are paused already, and stay as they are.", ".bulk-ask")
        assert not console.all("#bulk-go")
        console.find("#bulk-also").click()
        console.sees("3 routines are paused already, and get this end and note.", ".bulk-ask")
        console.find("#bulk-go").click()
        console.sees("All 3 paused.", ".work")
        assert service.execute(notes) == [(f"rest-{number}", None, None) for number in (1, 2, 3)]

        start(console, "resume")
        console.sees("All 3 resumed.", ".work")
        assert paused(service, "rest-") == []


def test_one_that_was_paused_since_the_preview_stays_as_it_is(console: Console, service: Service) -> None:
    with several(service, "race-1", "race-2"), service.client() as client:
        narrowed(console, "race-", 2)
        select_all(console, 2)
        console.find("#bulk-pause").click()
        console.sees("2 routines will be paused.", ".bulk-ask")
        client.post("/routines/demo/greet/race-2/pause", json={"note": "mine"})
        console.find("#bulk-go").click()
        console.sees("1 of 2 paused. 1 needed nothing any more.", ".work")
        console.press("1 needed nothing any more")
        console.sees("greet/race-2: Was paused already, and stays as it is.", ".work")
        note = "SELECT paused_note FROM routines.routines WHERE name = 'race-2'"
        assert service.execute(note) == [("mine",)]


# --- the work ---------------------------------------------------------------------------------------------------------


def test_few_requests_are_under_way_at_once_and_a_429_is_waited_for(console: Console, service: Service) -> None:
    names = [f"crowd-{number}" for number in range(9)]
    with several(service, *names), console.script(COUNTS + ASKS_TO_SLOW_DOWN):
        narrowed(console, "crowd", 9)
        select_all(console, 9)
        start(console, "pause")
        console.sees("All 9 paused.", ".work")
        assert paused(service, "crowd") == names
        assert len(console.driver.execute_script("return sent")) == 10
        assert 1 < console.driver.execute_script("return most") <= 4


def test_work_that_waits_says_so_and_can_be_stopped_and_gone_on_with(console: Console, service: Service) -> None:
    names = [f"slowly-{number}" for number in range(9)]
    always = ASKS_TO_SLOW_DOWN.replace("sent.length === 2", "window.isFull && sent.length > 2").replace('"2"', '"20"')
    with several(service, *names), console.script(COUNTS + always):
        narrowed(console, "slowly", 9)
        select_all(console, 9)
        console.driver.execute_script("window.isFull = true")
        start(console, "pause")
        console.sees("The service asks to slow down: it goes on in 20 s.", ".work")
        assert not console.find("#bulk-resume").is_enabled()
        console.find("#work-stop").click()
        console.sees("2 of 9 paused. 7 were not begun.", ".work")  # long before the 20 seconds are over
        assert len(paused(service, "slowly")) == 2
        console.driver.execute_script("window.isFull = false")
        console.press("Go on with the 7 that were not begun")
        console.sees("All 9 paused.", ".work")
        assert paused(service, "slowly") == names


def test_a_lost_answer_stops_the_work_and_says_what_was_done_and_what_not(console: Console, service: Service) -> None:
    names = [f"lost-{number}" for number in range(9)]
    with several(service, *names), console.script(COUNTS + LOSES_THE_SECOND):
        narrowed(console, "lost-", 9)
        select_all(console, 9)
        start(console, "pause")
        console.sees("1 has no answer", ".work")
        console.sees("It has stopped, since the service does not answer. Check that the API", ".work")
        console.sees("No answer came. It may have been done or not.", ".work .open")
        assert len(console.all(".work .open .badge.missed")) == 1
        waiting = len(console.all(".work .open .badge.pending"))
        assert len(paused(service, "lost-")) == 9 - waiting
        assert all_faults(console) == []
        console.screen(1280, 900)
        console.press(f"Go on with the {waiting} that were not begun")
        console.sees("8 of 9 paused. 1 has no answer.", ".work")
        console.press("Try the 1 again")
        console.sees("8 of 9 paused. 1 needed nothing any more.", ".work")
        assert paused(service, "lost-") == names


def test_what_was_refused_is_told_with_its_reason_and_tried_again_alone(console: Console, service: Service) -> None:
    with several(service, "fine-1", "fine-2"), console.script(COUNTS + SLOW):
        narrowed(console, "fine-", 2)
        select_all(console, 2)
        console.find("#bulk-pause").click()
        console.find("#bulk-go")
        service.execute("UPDATE routines.routines SET name = 'other' WHERE name = 'fine-2'")
        console.find("#bulk-go").click()
        console.sees("1 of 2 paused. 1 was refused.", ".work")
        console.sees("greet/fine-2", ".work .open")
        assert len(console.all(".work .open a[href='#/routines/greet/fine-2']")) == 1
        service.execute("UPDATE routines.routines SET name = 'fine-2' WHERE name = 'other'")
        console.press("Try the 1 again")
        console.sees("All 2 paused.", ".work")
        assert sorted(console.driver.execute_script("return sent")) == ["fine-1", "fine-2"]
        console.find("#work-close").click()
        console.until(lambda: not console.all(".work"))
        assert console.focused().get_attribute("id") == "bulk-bar"


def test_work_goes_on_while_another_page_is_open_and_is_found_again(console: Console, service: Service) -> None:
    names = [f"away-{number}" for number in range(6)]
    with several(service, *names), console.script(COUNTS + SLOW):
        narrowed(console, "away", 6)
        select_all(console, 6)
        start(console, "pause")
        console.sees("Pausing: ", ".work")
        console.press("Limits")
        console.sees("All 6 paused.", ".said")
        assert paused(service, "away") == names
        console.driver.back()
        console.sees("All 6 paused.", ".work")
        console.sees("6 selected", ".bulk-bar")  # what was selected still is


# --- runs -------------------------------------------------------------------------------------------------------------


def test_what_failed_runs_again_but_not_beside_a_run_that_goes_on(console: Console, service: Service) -> None:
    with several(service, "again-1", "again-2", "again-3"), console.script(COUNTS + SLOW):
        add_run(service, "again-1", "failed", minutes=9)
        newest = add_run(service, "again-1", "failed", minutes=5)
        busy = add_run(service, "again-2", "failed", minutes=5)
        active = add_run(service, "again-2", "running", minutes=1, slot=False)
        narrowed(console, "again-&since=24h", 3)
        select_all(console, 3)
        console.find("#bulk-rerun").click()
        console.sees("1 failed run of 1 routine will be run again.", ".bulk-ask")
        console.sees("1 routine has a run going on, and is left out.", ".bulk-ask")
        console.sees("1 routine has no failed run since", ".bulk-ask")
        console.sees("but all 3: those of one routine then go side by side", ".bulk-ask")
        assert all_faults(console) == []
        console.screen(1280, 900)
        console.find("#bulk-beside").click()
        console.sees("2 failed runs of 2 routines will be run again.", ".bulk-ask")
        console.find("#bulk-each").click()
        console.sees("3 failed runs of 2 routines will be run again.", ".bulk-ask")
        console.find("#bulk-each").click()
        console.find("#bulk-beside").click()
        console.find("#bulk-go").click()
        console.sees("1 started again.", ".work")
        console.find(".work .some summary").click()
        console.sees(f"greet/again-1, Run {newest}: Goes again. Open run ", ".work")
        again = "SELECT rerun_of FROM routines.trajectories WHERE rerun_of IN ({}) ORDER BY 1"
        assert service.execute(again.format(f"{newest}, {busy}")) == [(newest,)]
        console.find(".work a[href*='#/runs/greet/']").click()
        console.sees(f"Attempt 1: run {newest}", "aside")
        end(service, active)


def test_only_the_last_attempt_of_a_run_counts_as_failed(console: Console, service: Service) -> None:
    with routine(service, "tried") as client:
        first = add_run(service, "tried", "failed", minutes=5)
        for _ in range(2):
            last = client.post(f"/rerun/demo/greet/{first}", json={}).json()["trajectory_id"]
            wait_until(lambda last=last: client.get(f"/db/trajectory/demo/greet/{last}").json()["status"] == "failed")
        narrowed(console, "tried&since=24h", 1)
        select_all(console, 1)
        console.find("#bulk-rerun").click()
        console.press("1 failed run of 1 routine will be run again.")
        console.sees(f"greet/tried, Run {last}", ".bulk-ask")


def test_a_run_whose_answer_was_lost_is_started_once(console: Console, service: Service) -> None:
    with several(service, "once-1", "once-2"), console.script(COUNTS + LOSES_THE_SECOND):
        runs = [add_run(service, name, "failed", minutes=5) for name in ("once-1", "once-2")]
        narrowed(console, "once-&since=24h", 2)
        select_all(console, 2)
        start(console, "rerun")
        console.sees("1 of 2 started again. 1 has no answer.", ".work")
        console.press("Try the 1 again")
        console.sees("1 needed nothing any more.", ".work")
        again = f"SELECT count(*) FROM routines.trajectories WHERE rerun_of IN ({runs[0]}, {runs[1]})"
        assert service.execute(again) == [(2,)]


def test_active_runs_are_cancelled_after_they_have_been_counted(console: Console, service: Service) -> None:
    with several(service, "busy-1", "busy-2", "busy-3"):
        runs = [add_run(service, name, "running", minutes=2, slot=False) for name in ("busy-1", "busy-1", "busy-2")]
        narrowed(console, "busy-", 3)
        select_all(console, 3)
        console.find("#bulk-cancel").click()
        console.sees("3 runs of 2 routines will be cancelled. This cannot be undone.", ".bulk-ask")
        console.sees("1 routine has no active run.", ".bulk-ask")
        console.until(lambda: console.focused().get_attribute("id") == "bulk-stay")
        end(service, runs[2])
        console.find("#bulk-go").click()
        console.sees("2 of 3 cancelled. 1 was refused.", ".work")
        console.sees(f"greet/busy-2, Run {runs[2]}: ", ".work .open")
        status = f"SELECT status FROM routines.trajectories WHERE id IN ({runs[0]}, {runs[1]})"
        assert service.execute(status) == [("cancelled",), ("cancelled",)]


def test_a_second_run_now_beside_one_that_goes_on_asks_first(console: Console, service: Service) -> None:
    with routine(service, "twice"):
        active = add_run(service, "twice", "running", minutes=1, slot=False)
        runs = """SELECT count(*) FROM routines.trajectories
                  WHERE triggered_by_routine_id = (SELECT id FROM routines.routines WHERE name = 'twice')"""
        console.open("#/routines/greet/twice")
        console.find("#run-now").click()
        console.sees(f"Run {active} of the routine is active.", "dialog")
        console.press("Leave it")
        console.until(lambda: not console.all("dialog"))
        assert console.focused().get_attribute("id") == "run-now"
        assert service.execute(runs) == [(1,)]
        console.find("#run-now").click()
        console.find("dialog")
        console.driver.find_element("xpath", "//dialog//button[.='Run now']").click()
        console.until(lambda: console.title().startswith("Run "))
        assert service.execute(runs) == [(2,)]
        end(service, active)


# --- CSV --------------------------------------------------------------------------------------------------------------


def test_the_selected_routines_are_saved_as_csv_without_formulas(console: Console, service: Service) -> None:
    with several(service, "saved-1", "saved-2", "saved-3"), service.client() as client, console.script(SAVES):
        client.post("/routines/demo/greet/saved-2/pause", json={"note": '=HYPERLINK("x"), \n"quoted"'})
        narrowed(console, "saved-", 3)
        for box in console.all(".pick")[:2]:
            box.click()
        console.find("#bulk-csv").click()
        console.until(lambda: len(console.driver.execute_script("return saved")) == 2)
        name, text = sorted(console.driver.execute_script("return saved"), key=len)
        assert name.startswith("routines-demo-")
        assert text.startswith("task,routine,cadence,state,")
        assert "greet,saved-1,Every day at 09:00 UTC,Has not run yet,false," in text
        assert '"\'=HYPERLINK(""x""), \n""quoted"""' in text
        assert "saved-3" not in text
        console.sees("2 routines were saved.", ".said")


# --- looks ------------------------------------------------------------------------------------------------------------


def test_the_bar_looks_well_and_hides_no_row_that_has_the_focus(console: Console, service: Service) -> None:
    with several(service, *[f"row-{number:02}" for number in range(20)]):
        narrowed(console, "row-", 20)
        select_all(console, 20)
        assert all_faults(console) == []
        console.screen(390, 844)
        press(console, "j")
        for _ in range(12):
            press(console, "j")
        shown = console.driver.execute_script(
            """const row = document.activeElement.getBoundingClientRect();
               const [bar, head] = [".bulk-bar", "header"].map((each) =>
                 document.querySelector(each).getBoundingClientRect());
               return [head.bottom <= row.top, row.bottom <= bar.top]"""
        )
        assert shown == [True, True]
        assert plain(console.focused()) == "row-12"
