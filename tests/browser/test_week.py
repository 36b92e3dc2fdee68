"""Tests the week ahead: how much falls in each hour, in which minutes, and which hours stand out."""

from datetime import UTC, datetime, timedelta

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from support.browsing import Console, plain, routine
from support.service import Service

pytestmark = pytest.mark.slow


def tomorrow() -> str:
    return f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"


def cell(hour: int) -> str:
    """Return the selector of an hour of tomorrow."""
    return f"#hour-{tomorrow()}T{hour:02}"


def test_an_hour_shows_its_slots_and_opens_its_minutes(console: Console, service: Service) -> None:
    with (
        routine(service, "planned", cadence={"type": "daily", "hour_utc": 3, "minute_utc": 30}),
        routine(service, "beside", cadence={"type": "daily", "hour_utc": 3, "minute_utc": 7}),
    ):
        console.open("#/week")
        assert "in the week ahead" in console.title()
        console.find(cell(3)).click()
        console.sees(":07 1 to come", ".minute-list")
        console.sees(":30 1 to come", ".minute-list")
        console.sees("minutes have none.", ".minutes")
        assert f"at={tomorrow()}T03" in console.driver.current_url

        # The table is one stop of the Tab key; arrows move between hours and days.
        assert len(console.all(".week button[tabindex='0']")) == 1
        ActionChains(console.driver).send_keys(Keys.ARROW_DOWN, Keys.ENTER).perform()
        console.sees("04:00 to 05:00 UTC", ".minutes")
        assert ":07" not in console.find(".minutes").text
        assert console.focused() == console.find(cell(4))
        ActionChains(console.driver).send_keys(Keys.ARROW_RIGHT).perform()
        assert str(console.focused().get_attribute("id")).endswith("T04")
        assert console.focused() != console.find(cell(4))

        console.find(cell(3)).click()
        console.sees(":07", ".minutes")
        console.press("Worker minutes")
        console.sees("<1", cell(3))
        console.driver.refresh()
        console.sees(":07 1 to come", ".minute-list")
        assert "by=minutes" in console.driver.current_url
        console.press("Week after")
        console.until(lambda: "in the week from" in console.title())
        console.press("This week")
        console.until(lambda: "in the week ahead" in console.title())


def test_overfull_hours_and_days_of_a_calendar_are_marked_in_words(console: Console, service: Service) -> None:
    with service.client() as client:
        task = {"name": "heavy", "workflow": {"init_params": {}, "step_configs": {}, "steps": []}}
        assert client.post("/tasks/demo", json=task).status_code == 201
        body = {"name": "nightly", "cadence": {"type": "daily", "hour_utc": 2}}
        assert client.post("/routines/demo/heavy", json=body).status_code == 201
        days = [{"from": tomorrow(), "label": "Stocktaking"}]
        assert client.put("/calendars/demo/closed", json={"days": days}).status_code == 200
    service.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params, status,
                                              created_at, started_at, ended_at)
           SELECT collection_id, id, 1, 'api', '{}', 'completed', began, began, began + interval '2 hours'
           FROM routines.tasks, (SELECT now() - interval '3 hours' AS began) AS clock WHERE name = 'heavy'"""
    )
    service.execute("UPDATE routines.collections SET max_concurrent_runs = 1 WHERE name = 'demo'")
    try:
        console.open("#/week")
        assert "overfull" in plain(console.find(cell(2)))
        assert "overfull" not in plain(console.find(cell(9)))
        assert console.all(f".overfull {cell(2)}")
        console.sees("in a calendar", ".week thead")
        console.sees("Stocktaking (closed)", ".legend")
        console.find(cell(2)).click()
        console.sees("1 run at once can do 1 h of work in an hour", ".minutes")
    finally:
        service.execute("UPDATE routines.collections SET max_concurrent_runs = NULL WHERE name = 'demo'")
        with service.client() as client:
            client.delete("/routines/demo/heavy/nightly")
            client.delete("/calendars/demo/closed")
