"""Three people do their work by the keyboard alone, in few activations, and always see where the focus is.

An activation is a key that makes something happen. To move the focus and to type is none: see `Person`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from support.browsing import Console, plain
from support.firefox import FirefoxConsole
from support.people import Person
from support.service import Service, far_minute, wait_until

pytestmark = pytest.mark.slow
REPORT: dict[str, Any] = {
    "init_params": {"path": "sales.csv"},
    "step_configs": {
        "choose": {"activity": "text_echo", "text_path": "init_params.path"},
        "read": {"activity": "read_text_file", "path_path": "choose.outputs.text"},
        "send": {"activity": "text_echo", "text_path": "read.outputs.text"},
    },
    "steps": ["choose", "read", "send"],
}
NO_FILE = "step 'read' failed: there is no such file in this collection"
GREET: dict[str, Any] = {
    "init_params": {"name": "world", "copies": 1},
    "step_configs": {
        "greet": {"activity": "text_template", "template": "Dear {{ name }}", "variables_path": "init_params"}
    },
    "steps": ["greet"],
}


@pytest.fixture(scope="module")
def office(service: Service) -> str:
    """A key of the collection `office`, of whose two slots this morning one has failed."""
    key = service.create_key("office")
    routines = {
        "report/daily-report": {"type": "daily", "hour_utc": 6, "minute_utc": far_minute()},
        "letters/birthdays": {"type": "daily", "hour_utc": 7, "minute_utc": far_minute()},
        "letters/reminders": {"type": "hourly", "minute_utc": far_minute()},
        "letters/invoices": {"type": "cron", "expression": f"{far_minute()} 0-3,5-23 * * *"},
    }
    with service.client(key) as client:
        for name, workflow in (("report", REPORT), ("letters", GREET)):
            assert client.post("/tasks/office", json={"name": name, "workflow": workflow}).status_code == 201
        for path, cadence in routines.items():
            task, _, name = path.partition("/")
            answer = client.post(f"/routines/office/{task}", json={"name": name, "cadence": cadence})
            assert answer.status_code == 201, answer.text
        service.execute("UPDATE routines.routines SET next_run_at = now() WHERE name IN ('daily-report', 'birthdays')")

        def has_run(path: str) -> bool:
            return any(each["ended_at"] for each in client.get(f"/routines/office/{path}/runs").json())

        wait_until(lambda: has_run("report/daily-report") and has_run("letters/birthdays"))
    return key


@pytest.fixture(params=["chromium", "firefox"])
def person(request: pytest.FixtureRequest, service: Service, office: str) -> Person:
    """Somebody who has signed in to `office`, and looks at the overview."""
    in_firefox = request.param == "firefox"
    kind = FirefoxConsole if in_firefox else Console
    console = kind(request.getfixturevalue("firefox" if in_firefox else "browser"), service.url, office).arrive()
    console.until(lambda: console.focused().get_attribute("id") == "key")
    console.keys(office, Keys.ENTER)
    console.find(".row")
    assert console.focused().get_attribute("id") == "title"
    return Person(console)


def test_on_call_finds_what_failed_and_why_and_runs_the_failed_step_again(
    person: Person, service: Service, office: str
) -> None:
    console = person.console
    console.sees("2 due 1 completed 1 failed", ".today .numbers")
    console.sees("One routine needs attention.", "h1")
    console.sees(NO_FILE, ".row .cause")

    person.moves("j")
    assert plain(console.focused()) == "daily-report"
    person.moves(Keys.TAB, Keys.TAB)
    assert plain(console.focused()) == "Failed"
    person.activates()
    console.sees(NO_FILE, ".run .notice")
    console.find("details[open] > #step-read")
    failed = console.title()
    person.arrives_at(failed)
    assert person.activations <= 2

    person.activates("r")
    assert console.focused().get_attribute("id") == "rerun-from"
    console.sees("read, keeping 1 step", "#rerun-from option:checked")
    person.goes_to("rerun")
    person.activates()
    console.until(lambda: console.title() not in {"", failed})
    person.arrives_at(console.title())
    console.sees(f"Runs {failed.lower()} again.")
    console.sees("kept from run", ".timeline")
    assert person.activations <= 3
    with service.client(office) as client:
        again = client.get(f"/db/trajectory/office/report/{console.title().split()[-1]}").json()
    assert again["kept_steps"] == {"choose": int(failed.split()[-1])}


def test_an_author_makes_a_weekly_routine_and_runs_it_and_loses_nothing(
    person: Person, service: Service, office: str
) -> None:
    console = person.console
    person.finds("New routine")
    person.arrives_at("New routine")
    fill_in(person)
    stops = person.walks_round()
    assert {"save", "name", "task", "find", "sign-out"} <= set(stops)
    leave_by_mistake(person)
    person.goes_to("save")
    person.activates()
    person.arrives_at("keyboard-made")
    with service.client(office) as client:
        saved = client.get("/routines/office/letters/keyboard-made").json()
        try:
            assert (saved["cadence"]["expression"], saved["cadence"]["timezone"]) == ("44 6 * * thu", "Europe/Berlin")
            assert saved["init_params_overrides"] == {"name": "Ada", "copies": 3}
            assert list(saved["secret_params"]) == ["TOKEN"]
            person.moves("r")
            assert plain(console.focused()) == "Run now"
            person.activates()
            console.until(lambda: console.title().startswith("Run "))
            person.arrives_at(console.title())
            console.sees("Completed", ".lede")
            run = client.get(f"/db/trajectory/office/letters/{console.title().split()[-1]}").json()
            assert run["init_params"] == {"name": "Ada", "copies": 3}
        finally:
            client.delete("/routines/office/letters/keyboard-made")


def fill_in(person: Person) -> None:
    """Fill in the form of a new routine; the focus is then on the button that adds a secret."""
    console = person.console
    person.goes_to("task")
    console.keys("letters")
    console.sees("copies", ".overrides")
    person.goes_to("name")
    console.keys("keyboard-made")
    person.goes_to("cadence-type")
    person.moves(Keys.ARROW_RIGHT)  # from weekdays to weekly
    person.goes_to("cadence-day_of_week")
    console.keys("Thu")
    for field, text in (("hour_utc", "6"), ("minute_utc", "44"), ("timezone", "Europe/Berlin")):
        person.goes_to(f"cadence-{field}")
        person.types(text)
    console.keys(Keys.ESCAPE)  # closes the list of time zones
    console.sees("Thursdays at 06:44 Europe/Berlin", "#preview")
    for parameter, text in (("name", "Ada"), ("copies", "3")):
        box = console.find(f".override[data-field='init_params_overrides.{parameter}'] [type=checkbox]")
        person.goes_to(str(box.get_attribute("id")))
        person.activates(Keys.SPACE)
        person.moves(Keys.TAB)
        person.types(text)
    person.goes_to("add-secret")
    person.activates()
    console.keys("TOKEN", Keys.TAB, "s3cret")
    person.goes_to("add-secret")
    person.activates()
    person.goes_to("Remove")
    person.activates()
    assert len(console.all(".secret")) == 1
    assert console.focused().get_attribute("id") == "add-secret"
    person.sees_the_focus()


def leave_by_mistake(person: Person) -> None:
    """Choose another page, and stay when the console asks: the focus is where it was."""
    console = person.console
    before = console.focused().get_attribute("id")
    person.finds("Week")
    console.sees("Leave without saving?", "dialog")
    assert plain(console.focused()) == "Stay here"
    person.sees_the_focus()
    person.activates()
    console.until(lambda: console.focused().get_attribute("id") == before)


def test_a_manager_sees_the_load_of_the_week_and_the_quietest_hour_of_a_day(person: Person) -> None:
    console = person.console
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    person.goes_back_to("Week")
    person.activates()
    console.until(lambda: "in the week ahead" in console.title())
    person.arrives_at(console.title())
    console.sees("The busiest hour is", ".lede")
    for _ in range(10):
        person.moves(Keys.TAB)
        if console.focused().get_attribute("aria-pressed"):
            break
    person.moves(Keys.ARROW_RIGHT)
    assert str(console.focused().get_attribute("id")).startswith(f"hour-{tomorrow:%Y-%m-%d}")
    person.activates()
    console.sees(f"{tomorrow:%a} {tomorrow.day} {tomorrow:%b}, 04:00 to 05:00 UTC: 1 slot", ".minutes .facts")
    console.sees("have none.", ".minutes")
    assert console.focused().get_attribute("aria-pressed") == "true"
    person.sees_the_focus()
    assert person.activations <= 2
