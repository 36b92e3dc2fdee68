"""Tests that the page of a failed run says in what it differs from the last good run of its routine."""

from typing import Any

import httpx
import pytest

from support.browsing import Console, add_run, plain, routine
from support.looks import all_faults
from support.service import Service, wait_until

pytestmark = pytest.mark.slow
SECTION = "section[aria-label='Against the last good run']"
NONE = "No run of this routine before it has completed."
CHECKED: dict[str, Any] = {
    "init_params": {"path": "orders.csv", "options": {"limit": 3, "strict": True}, "names": ["a"]},
    "step_configs": {
        "begin": {"activity": "text_echo", "text_path": "init_params.path"},
        "words": {"activity": "text_split", "text_path": "begin.outputs.text", "separator": "."},
    },
    "steps": ["begin", "words"],
}
BROKEN: dict[str, Any] = {
    **CHECKED,
    "step_configs": {
        **CHECKED["step_configs"],
        "words": {**CHECKED["step_configs"]["words"], "separator": "-"},
        "read": {"activity": "read_text_file", "path_path": "begin.outputs.text"},
    },
    "steps": ["begin", "words", "read"],
}


def fire(client: httpx.Client, routine: str, **body: Any) -> int:
    """Run a routine now, and return its run once that has ended."""
    run = client.post(f"/routines/demo/{routine}/run-now", json=body).json()["trajectory_id"]
    task = routine.partition("/")[0]
    wait_until(lambda: client.get(f"/db/trajectory/demo/{task}/{run}").json()["ended_at"])
    return run


def asked(console: Console) -> list[str]:
    """Return the paths of the API that were read since the last call, after the version."""
    return [each["url"].partition("/api/v1/")[2] for each in console.requests() if "/api/v1/" in each["url"]]


@pytest.fixture(scope="module")
def pair(service: Service) -> tuple[int, int]:
    """Run a routine, change it and its task, and run it with other parameters so that it fails; returns both runs."""
    with service.client() as client:
        assert client.post("/tasks/demo", json={"name": "checked", "workflow": CHECKED}).status_code == 201
        body = {"name": "compared", "cadence": {"type": "manual"}}
        assert client.post("/routines/demo/checked", json=body).status_code == 201
        good = fire(client, "checked/compared")
        assert client.put("/tasks/demo/checked", json={"workflow": BROKEN}).status_code == 200
        overrides = {"init_params_overrides": {"options": {"limit": 4, "strict": True}}}
        assert client.patch("/routines/demo/checked/compared", json=overrides).status_code == 200
        failed = fire(client, "checked/compared", init_params={"path": "orders-of-may.csv"})
    service.execute(
        f"""UPDATE routines.steps SET created_at = ended_at - interval '9 s'
            WHERE trajectory_id = {failed} AND name = 'words'"""
    )
    return good, failed


def test_a_failed_run_tells_parameters_steps_outputs_and_durations_that_differ(
    console: Console, pair: tuple[int, int]
) -> None:
    good, failed = pair
    console.open(f"#/runs/checked/{failed}")
    console.sees(f"Run {good} completed", SECTION)
    parts = {plain(each).partition(" ")[0]: plain(each) for each in console.all(f"{SECTION} .against > div")}
    assert list(parts) == ["Parameters", "Task", "Routine", "Outputs", "Time"]
    assert "path: orders.csv → is now orders-of-may.csv" in parts["Parameters"]
    assert "options.limit: 3 → is now 4" in parts["Parameters"]
    assert "strict" not in parts["Parameters"]
    assert "names" not in parts["Parameters"]
    assert "words.separator: . → is now -" in parts["Task"]
    assert "read: not set" in parts["Task"]
    assert parts["Routine"] == "Routine This run had revision 2 of compared, that one an earlier one."
    assert "begin text: orders.csv → is now orders-of-may.csv" in parts["Outputs"]
    assert parts["Time"].startswith("Time words 9.0 s ")
    assert "begin" not in parts["Time"]
    console.find(f"{SECTION} a").click()
    console.until(lambda: console.title() == f"Run {good}")
    console.find(".log li")
    assert not console.all(SECTION)


def test_the_comparison_is_legible_everywhere(console: Console, pair: tuple[int, int]) -> None:
    console.open(f"#/runs/checked/{pair[1]}")
    console.sees(f"Run {pair[0]} completed", SECTION)
    assert all_faults(console) == []


def test_a_routine_that_is_gone_is_still_compared_with_its_runs(console: Console, service: Service) -> None:
    with routine(service, "gone") as client:
        good = add_run(service, "gone", "completed", minutes=20)
        failed = add_run(service, "gone", "failed", minutes=10)
        client.delete("/routines/demo/greet/gone")
        console.open(f"#/runs/greet/{failed}")
        console.sees(f"Run {good} completed", SECTION)


def test_what_is_the_same_is_said_in_one_line(console: Console, service: Service) -> None:
    with routine(service, "unchanged"):
        good = add_run(service, "unchanged", "completed", minutes=20)
        failed = add_run(service, "unchanged", "failed", minutes=10)
        console.open(f"#/runs/greet/{failed}")
        console.sees("Nothing differs in parameters, steps", SECTION)
        console.sees(f"Run {good} completed", SECTION)
        assert not console.all(f"{SECTION} h3")


def test_a_run_that_failed_before_any_has_completed_says_so(console: Console, service: Service) -> None:
    with routine(service, "hopeless"):
        failed = add_run(service, "hopeless", "failed", minutes=20)
        add_run(service, "hopeless", "completed", minutes=10)
        console.open(f"#/runs/greet/{failed}")
        console.sees(NONE, SECTION)


def test_a_good_run_asks_for_nothing_and_a_failed_one_for_one_run_more(console: Console, service: Service) -> None:
    with routine(service, "thrifty"):
        good = add_run(service, "thrifty", "completed", minutes=30)
        failed = add_run(service, "thrifty", "failed", minutes=20)
        newest = add_run(service, "thrifty", "completed", minutes=10)
        asked(console)
        console.open(f"#/runs/greet/{newest}")
        console.sees("thrifty", ".crumbs")
        console.find("aside .facts")
        assert not console.all(SECTION)
        of_good = asked(console)
        console.open(f"#/runs/greet/{failed}")
        console.sees(f"Run {good} completed", SECTION)
        of_failed = asked(console)
        assert f"db/trajectory/demo/greet/{good}" in of_failed
        assert len(of_failed) == len(of_good) + 1, (of_good, of_failed)


@pytest.mark.parametrize("later", [3, 70])
def test_the_last_good_run_is_found_however_many_runs_have_completed_since(
    console: Console, service: Service, later: int
) -> None:
    with routine(service, "patient"):
        add_run(service, "patient", "completed", minutes=5000)
        good = add_run(service, "patient", "completed", minutes=4000)
        failed = add_run(service, "patient", "failed", minutes=3000)
        for number in range(later):
            add_run(service, "patient", "completed", minutes=2000 - number)
        console.open(f"#/runs/greet/{failed}")
        console.sees(f"Run {good} completed", SECTION)


def test_a_run_that_fails_while_its_page_is_open_is_compared_then(console: Console, service: Service) -> None:
    with routine(service, "watched"):
        good = add_run(service, "watched", "completed", minutes=20)
        run = add_run(service, "watched", "running", minutes=1)
        console.open(f"#/runs/greet/{run}")
        console.sees("Running", ".lede")
        assert not console.all(SECTION)
        service.execute(
            f"""UPDATE routines.trajectories SET status = 'failed', error = 'no such table', ended_at = now(),
                    lease_expires_at = NULL WHERE id = {run}"""
        )
        console.sees(f"Run {good} completed", SECTION)


def test_a_comparison_that_cannot_be_read_says_so_and_can_be_tried_again(console: Console, service: Service) -> None:
    with routine(service, "unread"):
        good = add_run(service, "unread", "completed", minutes=20)
        failed = add_run(service, "unread", "failed", minutes=10)
        broken = f"""
            const real = fetch;
            window.fetch = (url, options) => !window.mended && String(url).endsWith("/{good}")
              ? Promise.reject(new TypeError("offline")) : real(url, options);
        """
        with console.script(broken):
            console.open(f"#/runs/greet/{failed}")
            console.sees("Check that the API is running", f"{SECTION} .notice")
            console.driver.execute_script("window.mended = true")
            console.press("Try again")
            console.sees(f"Run {good} completed", SECTION)
