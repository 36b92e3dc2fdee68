"""Tests what the overview says needs attention: a trouble stays in sight until it is over."""

from datetime import UTC, datetime, timedelta

import pytest

from support.browsing import Console, add_run, routine
from support.service import Service

pytestmark = pytest.mark.slow


def row(name: str) -> str:
    """Return the selector of a routine's row on the overview."""
    return f".row:has(a[href='#/routines/greet/{name}'])"


def test_a_failed_slot_stays_in_sight_behind_a_run_now(console: Console, service: Service) -> None:
    with routine(service, "behind"):
        failed = add_run(service, "behind", "failed", minutes=10)
        active = add_run(service, "behind", "running", minutes=0, slot=False)
        console.open("#/")
        console.sees("Failed", row("behind"))
        console.sees("no such table", row("behind"))
        assert console.all(f"{row('behind')}.attention a[href='#/runs/greet/{failed}']")
        console.open("#/routines/greet/behind")
        console.sees("no such table", ".notice")
        service.execute(
            "UPDATE routines.trajectories SET status = 'completed', ended_at = now(), lease_expires_at = NULL "
            f"WHERE id = {active}"
        )
        console.open("#/")
        console.sees("Completed", row("behind"))
        assert not console.all(f"{row('behind')}.attention")


def test_a_run_that_takes_far_longer_than_usual_needs_attention(console: Console, service: Service) -> None:
    with routine(service, "slow"):
        for minutes in (40, 50, 60):
            add_run(service, "slow", "completed", minutes=minutes)
        active = add_run(service, "slow", "running", minutes=20)
        console.open("#/")
        console.sees("Takes unusually long", row("slow"))
        console.sees(f"Run {active} has been running since", row("slow"))
        console.sees("19 of 20 runs take at most 1 s", row("slow"))


def test_a_routine_whose_webhook_fails_does_not_go_well(console: Console, service: Service) -> None:
    with routine(service, "unheard", webhook_url="https://example.com/hook"):
        run = add_run(service, "unheard", "completed", minutes=5)
        service.execute("DELETE FROM routines.webhook_deliveries")
        service.execute(
            f"""INSERT INTO routines.webhook_deliveries
                    (collection_id, trajectory_id, routine_id, event_status, url, failures, attempts, next_attempt_at)
                SELECT collection_id, {run}, id, 'completed', webhook_url, 3, $${ATTEMPTS}$$, now() + interval '1 hour'
                FROM routines.routines WHERE name = 'unheard'"""
        )
        console.open("#/")
        console.sees("Webhook fails", f"{row('unheard')}.attention")
        console.sees("The webhook does not arrive: it answered 500", row("unheard"))
        console.open("#/routines/greet/unheard")
        badge = console.find(".deliveries .badge")
        assert (badge.text, badge.get_attribute("class")) == ("3 failed attempts", "badge failed")


ATTEMPTS = (
    '[{"at": "2026-05-04T09:00:02Z", "status": 500, "error": "it answered 500", "duration_seconds": 0.1},'
    ' {"at": "2026-05-04T09:00:09Z", "status": 500, "error": "it answered 500", "duration_seconds": 0.1},'
    ' {"at": "2026-05-04T09:00:39Z", "status": 500, "error": "it answered 500", "duration_seconds": 0.1}]'
)


def test_the_reason_of_three_strikes_is_told_once(console: Console, service: Service) -> None:
    reason = "paused after 3 fires in a row that failed to start; the last: poison"
    with routine(service, "struck"):
        service.execute(
            """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason, detail)
               SELECT collection_id, id, now(), now(), 'failed_to_start', 'poison'
               FROM routines.routines WHERE name = 'struck'"""
        )
        service.execute("UPDATE routines.routines SET paused = true WHERE name = 'struck'")
        service.execute(f"UPDATE routines.routines SET paused_reason = '{reason}' WHERE name = 'struck'")
        console.open("#/")
        console.sees("Paused after 3 fires in a row that failed to start; the last: poison", row("struck"))
        assert console.find(row("struck")).text.count("poison") == 1
        console.open("#/routines/greet/struck")
        console.sees("the last: poison", ".notices")
        assert console.find(".notices").text.count("poison") == 1


def test_a_backoff_says_how_many_slots_are_skipped(console: Console, service: Service) -> None:
    with routine(service, "resting", pause_after_failures=1, then="backoff"):
        add_run(service, "resting", "failed", minutes=5)
        service.execute("UPDATE routines.routines SET backoff_left = 3 WHERE name = 'resting'")
        for page, place in (("#/", row("resting")), ("#/routines/greet/resting", ".notices")):
            console.open(page)
            console.sees("no such table 3 slots are skipped after failures, then one is tried", place)


def test_the_numbers_of_the_last_hours_narrow_the_list_to_the_routines_behind_them(
    console: Console, service: Service
) -> None:
    with routine(service, "todays") as client:
        add_run(service, "todays", "failed", minutes=5)
        add_run(service, "todays", "completed", minutes=4)
        console.open("#/?since=24h")
        total = client.get(
            "/report/demo", params={"from": f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"}
        ).json()["total"]
        console.sees(f"{total['expected']} due", ".today")
        console.sees(f"{total['failed']} failed", ".today")
        console.find("#of-failed").click()
        console.until(lambda: "of=failed" in console.driver.current_url)
        assert len(console.all(row("todays"))) == 1
        assert not console.all(row("morning"))  # it has no slot of these hours
        console.driver.refresh()
        console.until(lambda: console.all(row("todays")) and not console.all(row("morning")))
        assert console.find("#of-failed").get_attribute("aria-pressed") == "true"
        console.find("#of-failed").click()
        console.until(lambda: console.all(row("morning")))
        assert console.driver.current_url.endswith("#/?since=24h")


def test_a_window_or_number_that_there_is_not_shows_all_of_today(console: Console) -> None:
    console.open("#/?since=bogus&of=bogus")
    console.find("#of-due")
    assert console.all("input[name=since][value='']")[0].is_selected()
    console.sees("morning", ".rows")


def test_a_long_error_shows_its_beginning_and_the_rest_on_demand(console: Console, service: Service) -> None:
    with routine(service, "wordy"):
        run = add_run(service, "wordy", "failed", minutes=5)
        lines = "\n".join(f"line {number}" for number in range(1, 14))
        service.execute(f"UPDATE routines.trajectories SET error = $${lines}$$ WHERE id = {run}")
        for page, place in (
            ("#/routines/greet/wordy", ".notices"),
            ("#/routines/greet/wordy", ".ledger"),
            (f"#/runs/greet/{run}", ".run .notice"),
        ):
            console.open(page)
            console.sees("line 3…", place)
            assert "line 4" not in console.find(place).text
            console.find(f"{place} .more, {place}.long .more").click()
            console.sees("line 13", place)
