"""Drives the console as a user would: read the screen, press buttons, and inspect the requests that were sent."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import pytest
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException, WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from support.service import Service, wait_until

Found = TypeVar("Found")
WAIT_SECONDS = 30
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>\"'{{7*7}}"
LONG = "a-routine-with-a-name-that-is-as-long-as-a-name-may-be-and-has-no-room-on-a-phone-0123456789-0123456"
WORKFLOW: dict[str, Any] = {
    "init_params": {"name": "world", "size": 3, "strict": True, "tags": ["a"], "options": {"deep": {"er": 1}}},
    "step_configs": {
        "greet": {"activity": "text_template", "template": "Hello {{ name }}", "variables_path": "init_params"},
        "words": {"activity": "text_split", "text_path": "greet.outputs.text", "separator": " "},
    },
    "steps": ["greet", "words"],
}
FAILING: dict[str, Any] = {
    "init_params": {"text": HOSTILE},
    "step_configs": {
        "echo": {"activity": "text_echo", "text_path": "init_params.text"},
        "read": {"activity": "read_text_file", "path_path": "echo.outputs.text"},
    },
    "steps": ["echo", "read"],
}
NESTING: dict[str, Any] = {
    "init_params": {},
    "step_configs": {"many": {"activity": "list_emit_await", "task": "greet", "items": ["a"], "item_param": "name"}},
    "steps": ["many"],
}
LONG_STEP = "a_step_with_a_name_that_is_as_long_as_names_may_be_and_has_no_room_on_a_phone_0123456789_0123456789"
WIDE: dict[str, Any] = {
    "init_params": {LONG_STEP: LONG_STEP},
    "step_configs": {LONG_STEP: {"activity": "text_echo", "text_path": f"init_params.{LONG_STEP}"}},
    "steps": [LONG_STEP],
}
HURRY = "const real = setTimeout; window.setTimeout = (work, wait) => real(work, wait >= 10_000 ? 300 : wait)"
"""Makes what the console does every ten seconds or less often happen at once; for `Console.script`."""
FAILS = """
    const asked = fetch;
    window.failing = "";
    window.fetch = async (url, options) => {
      if (!failing || !String(url).includes(failing)) return asked(url, options);
      failing = "";
      const problem = { title: "Unavailable", status: 503, detail: "The database is not available." };
      return Response.json(problem, { status: 503 });
    };
"""
"""Has the next request fail that has the text `failing` in its URL; for `Console.script`."""
FORGET = """
    new BroadcastChannel("routines.keys").postMessage({ kind: "forget", collection: null });
    sessionStorage.clear();
    localStorage.clear();
"""
"""Clears what the console has stored, and the keys of a tab that is still closing."""
SAVES = """
    window.saved = [];
    URL.createObjectURL = (blob) => { blob.text().then((text) => saved.push(text)); return "data:,"; };
    HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };
"""
"""Keeps what the console would save as a file, and under which name, in `saved`; for `Console.script`."""
PAGES = {
    "overview": "#/",
    "routine": "#/routines/greet/morning",
    "new": "#/new?task=greet",
    "edit": "#/routines/greet/morning/edit",
    "tasks": "#/tasks",
    "task": "#/tasks/greet",
    "new task": "#/new/task",
    "edit task": "#/tasks/hostile/edit",
    "versions": "#/tasks/greet/versions",
    "failed run": "#/runs/hostile/{failed}",
    "run": "#/runs/greet/{done}",
    "child run": "#/runs/greet/{child}",
    "parent run": "#/runs/nesting/{parent}",
    "wide run": "#/runs/wide/{wide}",
    "wide task": "#/tasks/wide",
    "retrying": "#/routines/hostile/retrying",
    "edit retrying": "#/routines/hostile/retrying/edit",
    "long": f"#/routines/greet/{LONG}",
    "timeline": "#/timeline",
    "week": "#/week",
    "report": "#/report?from=2026-05-04T00:00:00Z&to=2026-05-10T00:00:00Z",
    "gaps": "#/routines/greet/morning/gaps?from=2026-05-04T00:00:00Z&to=2026-05-10T00:00:00Z",
    "fill a slot": "#/routines/greet/morning/gaps?from=2026-05-05T09:00:00Z&to=2026-05-05T09:01:00Z&fill=missing",
    "changes": "#/changes",
    "environment": "#/environment",
    "limits": "#/limits",
    "feeds": "#/feeds?task=greet&routine=morning",
    "alerts": "#/alerts",
    "new alert rule": "#/alerts/new",
    "alert rule": "#/alerts/rules/on-duty",
    "nothing": "#/routines/greet/nothing",
    "no such page": "#/nowhere",
}
"""The part of the address after the page, for every kind of page; `filled` inserts the ids of the runs."""


def seed(service: Service) -> None:
    """Create two tasks, and routines with all outcomes in the ledger, with hostile texts and with a long name."""
    with service.client() as client:

        def make(path: str, body: dict[str, Any]) -> None:
            answer = client.post(path, json=body)
            assert answer.status_code == 201, answer.text

        make("/tasks/demo", {"name": "greet", "description": "Says hello.", "workflow": WORKFLOW})
        make("/tasks/demo", {"name": "hostile", "description": HOSTILE, "workflow": FAILING})
        make("/tasks/demo", {"name": "nesting", "workflow": NESTING})
        make("/tasks/demo", {"name": "wide", "workflow": WIDE})
        cadence = {"type": "daily", "hour_utc": 9}
        make("/routines/demo/greet", {"name": "morning", "cadence": cadence, "secret_params": {"TOKEN": "x"}})
        make("/routines/demo/greet", {"name": LONG, "cadence": cadence, "init_params_overrides": {"name": "x" * 300}})
        make("/routines/demo/hostile", {"name": "bad", "cadence": {"type": "manual"}})
        retrying = {
            "retry": {"max_attempts": 3, "backoff": [60, 300], "on": "transient", "until": 7200},
            "pause_after_failures": 3,
            "then": "backoff",
            "timeout_seconds": 1800,
            "init_params_from_slot": {"text": "slot.date"},
        }
        make("/routines/demo/hostile", {"name": "retrying", "cadence": {"type": "manual"}, **retrying})
        failed = client.post("/routines/demo/hostile/bad/run-now").json()["trajectory_id"]
        done = client.post("/routines/demo/greet/morning/run-now").json()["trajectory_id"]
        started = [client.post(f"/run/demo/{task}", json={}).json()["trajectory_id"] for task in ("nesting", "wide")]
        rule = {"on": ["late", "streak", "recovered"], "scope": {"task": "wide"}, "webhook_url": "https://example.com/"}
        assert client.put("/alert-rules/demo/on-duty", json=rule).status_code == 200
        label = {"key": HOSTILE[:100], "value": HOSTILE, "author": HOSTILE[:100]}
        assert client.post(f"/trajectory/demo/hostile/{failed}/labels", json=label).status_code == 200

        def has_ended(task: str, run: int) -> bool:
            return client.get(f"/db/trajectory/demo/{task}/{run}").json()["ended_at"] is not None

        wait_until(lambda: has_ended("hostile", failed) and has_ended("greet", done))
        wait_until(lambda: has_ended("nesting", started[0]) and has_ended("wide", started[1]))
    answer = {"status": 503, "headers": {"retry-after": HOSTILE}, "body": HOSTILE, "truncated": True}
    service.execute(
        f"UPDATE routines.steps SET attempt = 3, answer = $answer${json.dumps(answer)}$answer$ WHERE status = 'failed'"
    )
    service.execute(
        f"""INSERT INTO routines.skips (collection_id, routine_id, cadence, scheduled_for, last_scheduled_for,
                                        slot_count, reason, detail, blocking_trajectory_id)
            SELECT collection_id, id, routines.cadence_of(routines), slot,
                   slot + (slots - 1) * interval '1 day', slots, reason, detail, blocking
            FROM routines.routines, (VALUES
                ('2026-05-04 09:00Z'::timestamptz, 1, 'overlap', NULL, {int(done)}),
                ('2026-05-05 09:00Z', 3, 'missed', NULL, NULL),
                ('2026-05-08 09:00Z', 1, 'paused', 'paused by hand, since 2026-05-08T08:00:00Z', NULL),
                ('2026-05-09 09:00Z', 1, 'failed_to_start', 'its parameters are too large', NULL))
                AS skip (slot, slots, reason, detail, blocking)
            WHERE name = 'morning'"""
    )
    service.execute(
        "UPDATE routines.routines SET created_at = '2026-05-01Z', settled_until = now() WHERE name = 'morning'"
    )


def filled(service: Service, page: str) -> str:
    """Return the address of a page, with the ids of the runs that `seed` started."""
    rows = service.execute(
        "SELECT status, min(id) FROM routines.trajectories WHERE trigger = 'run-now' GROUP BY status"
    )
    ids = dict(rows)
    [(wide, child, parent)] = service.execute(
        """SELECT min(id) FILTER (WHERE task_id = (SELECT id FROM routines.tasks WHERE name = 'wide')),
                  min(id) FILTER (WHERE parent_id IS NOT NULL), min(parent_id)
           FROM routines.trajectories"""
    )
    return PAGES[page].format(failed=ids["failed"], done=ids["completed"], wide=wide, child=child, parent=parent)


@contextmanager
def routine(service: Service, name: str, **fields: Any) -> Generator[httpx.Client]:
    """Create a daily routine of the task greet for the time of a test; yields a client of the API."""
    with service.client() as client:
        body = {"name": name, "cadence": {"type": "daily", "hour_utc": 9}, **fields}
        answer = client.post("/routines/demo/greet", json=body)
        assert answer.status_code == 201, answer.text
        try:
            yield client
        finally:
            client.delete(f"/routines/demo/greet/{name}")


def add_run(service: Service, name: str, status: str, *, minutes: float, slot: bool = True) -> int:
    """Insert a run of a routine of the task greet, for a slot or by run-now, and return its id.

    It began so many minutes ago, and took a second if it has ended.
    """
    trigger, scheduled_for = ("schedule", "began") if slot else ("run-now", "NULL")
    ended_at, lease = ("NULL", "'2100-01-01Z'") if status == "running" else ("began + interval '1 s'", "NULL")
    error = "'no such table'" if status == "failed" else "NULL"
    [(run,)] = service.execute(
        f"""INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                scheduled_for, init_params, status, created_at, started_at, ended_at, lease_expires_at, error)
            SELECT collection_id, task_id, 1, id, '{trigger}', {scheduled_for}, '{{}}', '{status}',
                   began, began, {ended_at}, {lease}, {error}
            FROM routines.routines, (SELECT now() - interval '{minutes} minutes' AS began) AS clock
            WHERE name = '{name}' RETURNING id"""
    )
    return run


def plain(element: WebElement) -> str:
    """Return the text of an element in one line."""
    return " ".join(element.text.split())


class Console:
    """The console in a browser.

    Args:
        driver: The browser.
        origin: The URL of the service, without a path.
        key: An API key.
    """

    def __init__(self, driver: Chrome, origin: str, key: str) -> None:
        self.driver = driver
        self.origin = origin
        self.key = key

    def arrive(self, *, signed_in: bool = False) -> "Console":
        """Open the console in a clean tab, without anything that earlier tests left."""
        self.driver.switch_to.window(self.driver.window_handles[0])
        self.screen(1280, 900)
        self.driver.get(f"{self.origin}/console/")
        self.driver.execute_script(FORGET)
        if signed_in:
            held = json.dumps([["demo", self.key]])
            self.driver.execute_script("sessionStorage.setItem('routines.keys', arguments[0])", held)
        self.driver.get("about:blank")
        self.requests()
        self.messages()
        self.driver.get(f"{self.origin}/console/")
        self.find("main h1")
        return self

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Emulate a screen of this size and theme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})

    def sign_in(self, key: str | None = None) -> None:
        """Type the key and press Enter."""
        field = self.find("#key")
        field.clear()
        field.send_keys(self.key if key is None else key, Keys.ENTER)
        if key is None:
            self.find("header")

    def open(self, page: str) -> None:
        """Open a page by its address and wait until it has loaded."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.origin}/console/{page}")
        self.find("main h1")

    def until(self, condition: Callable[[], Found]) -> Found:
        """Wait until the condition returns something truthy, and return that."""
        waiting = WebDriverWait(self.driver, WAIT_SECONDS, 0.05, [StaleElementReferenceException, WebDriverException])
        return waiting.until(lambda _: condition())

    def find(self, selector: str) -> WebElement:
        """Wait for a visible element that matches, and return the first."""

        def shown() -> WebElement | None:
            found = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return next((element for element in found if element.is_displayed()), None)

        return self.until(shown)  # pyright: ignore[reportReturnType] - never None

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements that match now."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def sees(self, text: str, selector: str = "body") -> None:
        """Wait until this text is shown; on a timeout, fail with the text that is shown instead."""
        try:
            self.until(lambda: text in plain(self.driver.find_element(By.CSS_SELECTOR, selector)))
        except TimeoutException:
            pytest.fail(f"{text!r} is not in {[plain(each) for each in self.all(selector)]}")

    def press(self, text: str) -> None:
        """Press the button or link with this text."""

        def matching() -> WebElement | None:
            found = self.all("button, a, summary, label")
            return next((each for each in found if each.is_displayed() and plain(each) == text), None)

        element = self.until(matching)
        assert element
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def type(self, selector: str, text: str) -> None:
        """Replace the text in a field, as keys do: a field that the driver clears tells nobody."""
        field = self.find(selector)
        if text:
            field.clear()
            field.send_keys(text)
        else:
            field.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE)

    def labels(self) -> list[str]:
        """Return the labels of the cadence fields that the form shows."""
        return [plain(each) for each in self.all(".cadence-fields .side-by-side label:not(.days-and-hours *)")]

    @contextmanager
    def script(self, source: str) -> Generator[None]:
        """Run a script in every page that is opened inside the block, before the page's own scripts."""
        added = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)

    def title(self) -> str:
        """Return the heading of the page."""
        return self.find("main h1").text

    def focused(self) -> WebElement:
        """Return the element that has the focus."""
        return self.driver.switch_to.active_element

    def keys(self, *pressed: str) -> None:
        """Press keys, for whatever has the focus."""
        ActionChains(self.driver).send_keys(*pressed).perform()

    def tab_to(self, wanted: str) -> None:
        """Press Tab until an element with this id, name or text has the focus."""
        for _ in range(60):
            focused = self.focused()
            if wanted in {focused.get_attribute("id"), focused.get_attribute("name"), focused.text}:
                return
            self.keys(Keys.TAB)
        pytest.fail(f"the Tab key does not reach {wanted}")

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests sent since the last call: {url, method, headers}."""
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        return [each["params"]["request"] for each in entries if each["method"] == "Network.requestWillBeSent"]

    def messages(self) -> list[str]:
        """Return the messages in the browser's log since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
