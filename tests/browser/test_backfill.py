"""Tests that the page of gaps fills slots of the past: the preview, the start, what is shown of it, its end."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from support.browsing import Console, add_run, plain, routine
from support.looks import all_faults
from support.sampling import left_out
from support.service import Service, far_minute

pytestmark = pytest.mark.slow
GAPS = ".gaps section[aria-label='Gaps'] .ledger > li"
LOSES_THE_ANSWER = """
    const real = fetch;
    window.fetch = async (url, options) => {
      const answer = await real(url, options);
      const isStart = String(url).endsWith("/backfills") && options.body && !options.body.includes("dry_run");
      if (!isStart || window.hasLost) return answer;
      window.hasLost = true;
      throw new TypeError("the connection broke");
    };
"""
"""Loses the first answer to the start of a backfill, which the service has carried out."""


@contextmanager
def hourly(service: Service, name: str, *, missed: int, **fields: Any) -> Generator[httpx.Client]:
    """Create an hourly routine that missed so many slots, the last over an hour ago; the next is half an hour away."""
    with routine(service, name, cadence={"type": "hourly", "minute_utc": far_minute()}, **fields) as client:
        service.execute(
            f"""INSERT INTO routines.skips
                    (collection_id, routine_id, cadence, scheduled_for, last_scheduled_for, reason)
                SELECT collection_id, id, cadence, slot, slot, 'missed'
                FROM routines.routines CROSS JOIN LATERAL (SELECT routines.cadence_of(routines) AS cadence) AS own,
                     generate_series(1, {missed}) AS hours,
                     LATERAL (SELECT routines.latest_slot(cadence, now()) - hours * interval '1 hour' AS slot) AS missed
                WHERE name = '{name}'"""
        )
        service.execute(
            f"""UPDATE routines.routines SET created_at = now() - interval '3 days', settled_until = now()
                WHERE name = '{name}'"""
        )
        yield client


def opened(console: Console, name: str) -> None:
    console.open(f"#/routines/greet/{name}/gaps")
    console.press("Fill these gaps")


def test_missed_slots_are_filled_and_are_gaps_no_more(console: Console, service: Service) -> None:
    with hourly(service, "to-fill", missed=2) as client:
        failed = add_run(service, "to-fill", "failed", minutes=45)
        opened(console, "to-fill")
        assert len(console.all(GAPS)) == 3
        console.press("See what would happen")
        console.sees("2 slots would run and 1 slot would stay as it is.", "#fill-plan")
        assert len(console.all("#fill-plan > .ledger .badge.missed")) == 2
        console.press("1 slot would stay as it is")
        console.sees(f"So far: Run {failed}", "#fill-plan details")
        assert client.get("/routines/demo/greet/to-fill/backfills").json() == []

        console.press("Start 2 runs")
        console.sees("Done", ".backfills")
        console.sees("2 completed", ".backfills")
        console.until(lambda: len(console.all(GAPS)) == 1)
        [made] = client.get("/routines/demo/greet/to-fill/backfills").json()
        assert console.focused().get_attribute("id") == f"backfill-{made['id']}"
        assert not console.all("#fill[open]")
        slots = client.get("/routines/demo/greet/to-fill/occurrences", params={"outcome": "missed"}).json()
        assert [each["filled_status"] for each in slots] == ["completed"] * 2

        console.find(f"{GAPS} .end a").click()  # the slot whose run failed
        console.until(lambda: console.all("#fill[open]") and len(console.all(GAPS)) == 1)
        assert Select(console.find("#fill-what")).first_selected_option.get_attribute("value") == "failed"
        console.press("See what would happen")
        console.sees(f"Would run again, after Run {failed}", "#fill-plan")
        console.press("Start 1 run")
        console.sees("No gaps")


def test_a_run_of_a_backfill_leads_to_its_slot_and_back(console: Console, service: Service) -> None:
    with hourly(service, "to-and-fro", missed=1) as client:
        opened(console, "to-and-fro")
        console.press("See what would happen")
        console.press("Start 1 run")
        console.sees("1 completed", ".backfills")
        [run] = client.get("/routines/demo/greet/to-and-fro/runs").json()
        console.open(f"#/runs/greet/{run['trajectory_id']}")
        console.press(f"Backfill {run['backfill_id']}")
        console.sees(f"Backfill {run['backfill_id']}", ".backfills")
        console.open(f"#/runs/greet/{run['trajectory_id']}")
        console.find("aside dd a[href*='slot=']").click()
        console.sees("Filled afterwards", "#why-answer")
        console.sees(f"Filled by Run {run['trajectory_id']}", ".ledger")
        console.press(f"Open run {run['trajectory_id']}")
        console.until(lambda: console.title() == f"Run {run['trajectory_id']}")


def test_a_backfill_says_what_it_waits_for_and_can_be_cancelled(console: Console, service: Service) -> None:
    with hourly(service, "held", missed=2, paused=True) as client:
        opened(console, "held")
        console.press("See what would happen")
        console.sees("waits until it is resumed", "#fill-plan")
        console.press("Start 2 runs")
        console.sees("Waits: the routine is paused.", ".backfills")
        [made] = client.get("/routines/demo/greet/held/backfills").json()
        console.find(f"#cancel-backfill-{made['id']}").click()
        console.press("Let it go on")
        assert console.focused().get_attribute("id") == f"cancel-backfill-{made['id']}"
        assert client.get(f"/routines/demo/greet/held/backfills/{made['id']}").json()["status"] == "active"
        console.focused().send_keys(Keys.ENTER)
        console.press("Cancel backfill")
        console.sees("Cancelled", ".backfills")
        console.until(lambda: console.focused().get_attribute("id") == f"backfill-{made['id']}")
        assert not console.all(".backfills button")
        assert client.get(f"/routines/demo/greet/held/backfills/{made['id']}").json()["status"] == "cancelled"
        assert len(console.all(GAPS)) == 2


def test_what_is_wrong_is_told_beside_its_field(console: Console, service: Service) -> None:
    with hourly(service, "asked-wrongly", missed=1):
        opened(console, "asked-wrongly")
        begin = console.find("#fill-from").get_attribute("value")
        console.type("#fill-from", "yesterday")
        console.press("See what would happen")
        console.sees("Write it like 2026-05-04 09:00", "[data-field=from]")
        console.type("#fill-from", "2026-05-04 09:00")
        console.type("#fill-to", "2026-05-04 08:00")
        console.press("See what would happen")
        console.sees("Must be later than from", "[data-field=to]")
        console.type("#fill-from", "1971-01-01 00:00")
        console.type("#fill-to", "")
        console.press("See what would happen")
        console.sees("The range has more than 10000 slots", "[data-field=to]")
        console.type("#fill-from", str(begin))
        console.type("#fill-most", "21")
        console.press("See what would happen")
        console.sees("Must be less than or equal to 20", "[data-field=max_active]")
        console.type("#fill-most", "2")
        console.press("See what would happen")
        console.sees("1 slot would run", "#fill-plan")
        console.type("#fill-most", "3")  # what was shown is not what would be started now
        console.until(lambda: not console.all("#fill-start"))


def test_a_range_without_slots_and_a_manual_routine_start_nothing(console: Console, service: Service) -> None:
    with routine(service, "by-hand", cadence={"type": "manual"}):
        console.open("#/routines/greet/by-hand/gaps")
        console.sees("it has no slots to fill", ".gaps")
        assert not console.all("#fill")
    console.open("#/routines/greet/morning/gaps?from=2026-05-04T10:00:00Z&to=2026-05-04T11:00:00Z&fill=nonsense")
    console.press("Fill these gaps")
    console.press("See what would happen")
    console.sees("there is no slot in this time", "#fill-plan")
    assert not console.all("#fill-start")


def test_slots_from_before_the_routine_was_created_are_pointed_out(console: Console, service: Service) -> None:
    with hourly(service, "just-made", missed=1):
        opened(console, "just-made")
        console.press("See what would happen")
        console.sees("1 slot would run.", "#fill-plan")  # it begins with the gap, not with the 30 days of the list
        console.type("#fill-to", "2026-05-04 12:00")
        console.type("#fill-from", "2026-05-04 09:00")
        console.press("See what would happen")
        console.sees("3 of them are from before the routine was created", "#fill-plan")


def test_a_start_whose_answer_was_lost_is_sent_again_without_a_second_backfill(
    console: Console, service: Service
) -> None:
    with hourly(service, "once-only", missed=1, paused=True) as client, console.script(LOSES_THE_ANSWER):
        opened(console, "once-only")
        console.press("See what would happen")
        console.press("Start 1 run")
        console.sees("Check that the API is running", "#fill")
        console.press("Start 1 run")
        console.sees("Waits: the routine is paused.", ".backfills")
        assert len(client.get("/routines/demo/greet/once-only/backfills").json()) == 1
        console.press("Fill these gaps")  # asked for once more, on purpose
        console.press("See what would happen")
        console.find("#fill-start").click()
        console.until(lambda: len(console.all(".backfills > li")) == 2)


def test_slots_are_filled_with_the_keyboard_alone(console: Console, service: Service) -> None:
    def keys(*pressed: str) -> None:
        ActionChains(console.driver).send_keys(*pressed).perform()

    with hourly(service, "by-keys", missed=1, paused=True):
        console.open("#/routines/greet/by-keys/gaps")
        keys(Keys.TAB)
        assert console.focused().text == "Fill these gaps"
        keys(Keys.ENTER)
        keys(*[Keys.TAB] * 6)
        assert console.focused().text == "See what would happen"
        keys(Keys.ENTER)
        console.find("#fill-start")
        keys(Keys.TAB)
        assert console.focused().text == "Start 1 run"
        keys(Keys.ENTER)
        console.until(lambda: plain(console.focused()).startswith("Backfill "))


@left_out
def test_a_plan_and_a_backfill_are_legible_and_fit_a_phone(console: Console, service: Service) -> None:
    with hourly(service, "looked-at", missed=12, paused=True) as client:
        add_run(service, "looked-at", "failed", minutes=45)
        add_run(service, "looked-at", "completed", minutes=44)
        body = {"from": "2026-05-04T00:00:00Z", "reprocess": "failed"}
        assert client.post("/routines/demo/greet/looked-at/backfills", json=body).status_code == 201
        opened(console, "looked-at")
        Select(console.find("#fill-what")).select_by_value("failed")
        console.press("See what would happen")
        console.press("Show 3 more")
        console.sees("Waits: the routine is paused.", ".backfills")
        assert all_faults(console) == []
