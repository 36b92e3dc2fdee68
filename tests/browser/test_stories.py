"""Tests the page of a run as a story: what was reached, where it failed, its tries, its children, how long it takes."""

import pytest

from support.browsing import SAVES, Console, add_run, plain, routine
from support.service import Service

pytestmark = pytest.mark.slow
STOPS = {
    "init_params": {"path": "missing.txt"},
    "step_configs": {
        "begin": {"activity": "text_echo", "text_path": "init_params.path"},
        "read": {"activity": "read_text_file", "path_path": "begin.outputs.text"},
        "finish": {"activity": "text_echo", "text_path": "read.outputs.text"},
    },
    "steps": ["begin", "read", "finish"],
}
ECHOES = {
    "init_params": {"text": ""},
    "step_configs": {"echo": {"activity": "text_echo", "text_path": "init_params.text"}},
    "steps": ["echo"],
}
EMITS = {
    "init_params": {},
    "step_configs": {
        "all": {
            "activity": "list_emit_await",
            "task": "echoes",
            "items": ["a", 7, "c"],  # a number is no text, so the second fails
            "item_param": "text",
            "continue_on_error": True,
        }
    },
    "steps": ["all"],
}


def test_a_failed_run_opens_the_step_that_failed_and_tells_the_cause_once(console: Console, service: Service) -> None:
    with service.client() as client, console.script(SAVES):
        assert client.post("/tasks/demo", json={"name": "stops", "workflow": STOPS}).status_code == 201
        run = client.post("/run-sync/demo/stops", json={}).json()["trajectory_id"]
        service.execute(
            f"""UPDATE routines.steps SET attempt = 2, earlier_errors = jsonb_build_array(jsonb_build_object(
                    'started_at', created_at - interval '2 s', 'at', created_at - interval '1 s',
                    'error', 'it was busy'))
                WHERE trajectory_id = {run} AND name = 'read'"""
        )
        error = client.get(f"/db/trajectory/demo/stops/{run}").json()["error"].partition(": ")[2]
        console.open(f"#/runs/stops/{run}")
        console.sees(error, ".run .notice")
        assert console.find("main").text.count(error) == 1
        console.sees("not reached", ".timeline .waiting")
        assert plain(console.find(".timeline .waiting")).startswith("finish")
        assert console.all("details[open] > #step-read")
        assert not console.all("details[open] > #step-begin")
        console.sees("Try 1 failed after 1.0 s: it was busy", ".tries")
        assert len(console.all(".track:has(.earlier) i")) == 2

        console.find("#step-read").click()  # the user may close it
        console.until(lambda: not console.all("details[open] > #step-read"))
        console.find("#step-begin").click()
        console.press("Save the outputs of begin")
        console.until(lambda: len(console.driver.execute_script("return saved")) == 2)
        saved = console.driver.execute_script("return saved")
        assert f"run-{run}-begin-outputs.json" in saved
        assert '{\n  "text": "missing.txt"\n}\n' in saved


def test_children_are_counted_and_link_there_and_back(console: Console, service: Service) -> None:
    with service.client() as client:
        for name, workflow in (("echoes", ECHOES), ("emits", EMITS)):
            assert client.post("/tasks/demo", json={"name": name, "workflow": workflow}).status_code == 201
        run = client.post("/run-sync/demo/emits", json={}).json()["trajectory_id"]
        children = client.get(f"/db/trajectory/demo/emits/{run}").json()["children"]
    [failed] = [each["trajectory_id"] for each in children if each["status"] == "failed"]
    console.open(f"#/runs/emits/{run}")
    console.sees("1 failed 2 completed", "section[aria-label='Children']")
    assert len(console.all(".cells a")) == 3
    # One stop of the Tab key, at what failed.
    assert [each.get_attribute("id") for each in console.all(".cells a[tabindex='0']")] == [f"child-{failed}"]
    console.find(f"#child-{failed}").click()
    console.until(lambda: console.title() == f"Run {failed}")
    console.sees(f"emits / run {run} / child run", ".crumbs")
    console.press(f"run {run}")
    console.until(lambda: console.title() == f"Run {run}")


def test_a_run_stands_beside_the_newest_runs_of_its_routine(console: Console, service: Service) -> None:
    with routine(service, "measured"):
        for minutes in (50, 40, 30, 20):
            add_run(service, "measured", "completed", minutes=minutes)
        slow = add_run(service, "measured", "completed", minutes=10)
        service.execute(f"UPDATE routines.trajectories SET ended_at = started_at + interval '12 s' WHERE id = {slow}")
        console.open(f"#/runs/greet/{slow}")
        console.sees("It took 12 s, 12 times as long as usual.", "aside")
        console.sees("Half of the last 4 completed runs took less than 1.0 s.", "aside")
        assert len(console.all(".durations li")) == 5
        assert len(console.all(".durations .this")) == 1
        console.find(".durations a").click()
        console.sees("It took 1.0 s.", "aside")
