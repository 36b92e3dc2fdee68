"""Tests the pages of alerts: what is open, why, who was told, and the rules, created and changed in a form."""

import pytest
from selenium.webdriver.support.ui import Select

from support.browsing import Console, add_run, routine
from support.service import Service

pytestmark = pytest.mark.slow
RULE = {"on": ["failed", "paused"], "scope": {"task": "greet"}, "webhook_url": "https://example.com/secret-path"}


def test_an_open_alert_says_what_happened_and_who_was_told(console: Console, service: Service) -> None:
    with routine(service, "alerting") as client:
        assert client.put("/alert-rules/demo/duty", json=RULE).status_code == 200
        run = add_run(service, "alerting", "running", minutes=1)
        service.execute(
            "UPDATE routines.trajectories SET status = 'failed', error = 'no such table', ended_at = now(), "
            f"lease_expires_at = NULL WHERE id = {run}"
        )
        console.until(lambda: client.get("/alerts/demo", params={"rule": "duty"}).json())
        console.open("#/alerts")
        assert console.title() == "1 open alert."
        console.sees("Failed greet/alerting no such table", ".alert")
        console.sees(f"Run {run}. Opened", ".alert")
        console.sees("duty watches all routines of greet failed and paused by the scheduler; at once, to example.com")
        assert "secret-path" not in console.find("main").text
        service.execute("UPDATE routines.routines SET paused = true, paused_note = 'moving' WHERE name = 'alerting'")
        console.until(lambda: client.get("/alerts/demo", params={"state": "suppressed"}).json())
        console.open("#/alerts")
        assert console.title() == "No open alerts."
        console.sees("No longer watched: the routine was paused by hand", "section[aria-label=Past]")
        console.press("Delete")
        console.sees("Delete the rule duty?", "dialog")
        console.press("Keep it")
        console.find("button[aria-label='Delete the rule duty']").click()
        console.find("dialog button:not(.primary)").click()
        console.sees("The rule duty was deleted.")
        assert client.get("/alert-rules/demo/duty").status_code == 404


def test_a_rule_is_created_and_changed_in_the_form(console: Console, service: Service) -> None:
    with service.client() as client:
        console.open("#/alerts/new")
        console.press("Save rule")
        console.sees("Needs a name", "[data-field=name]")
        console.type("#name", "form-made")
        assert not console.find("#after").get_attribute("disabled")
        console.find("#on-late").click()
        assert not console.all("#after")[0].is_displayed()
        console.find("#on-streak").click()
        console.type("#streak", "5")
        Select(console.find("#scope-task")).select_by_value("greet")
        console.type("#scope-routine", "nobody")
        console.type("#webhook-url", "nonsense")
        console.press("Save rule")
        console.sees("Must be an http or https URL", "[data-field=webhook_url]")
        console.type("#webhook-url", "https://example.com/alerts")
        console.press("Save rule")
        console.sees("routine nobody of the task greet", "form")
        console.type("#scope-routine", "morning")
        Select(console.find("#digest")).select_by_value("daily")
        console.type("#digest-at", "07:30")
        Select(console.find("#webhook-secret-choice")).select_by_value("new")
        console.type("#webhook-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        console.press("Save rule")
        console.sees("The rule form-made was saved.")
        made = client.get("/alert-rules/demo/form-made").json()
        assert (made["on"], made["streak"], made["after_seconds"]) == (
            ["missed", "failed", "streak", "paused", "recovered"],
            5,
            None,
        )
        assert made["scope"] == {"task": "greet", "routine": "morning"}
        assert (made["digest"], made["digest_at_utc"], bool(made["webhook_secret"])) == ("daily", "07:30", True)
        console.press("form-made")
        console.find("#on-streak").click()
        console.press("Save rule")
        console.until(lambda: "streak" not in client.get("/alert-rules/demo/form-made").json()["on"])
        changed = client.get("/alert-rules/demo/form-made").json()
        assert (changed["on"], changed["streak"]) == (["missed", "failed", "paused", "recovered"], None)
        assert changed["webhook_secret"] == made["webhook_secret"]
        client.delete("/alert-rules/demo/form-made")
