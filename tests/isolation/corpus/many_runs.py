"""Attacks by many runs: runs that only wait, backlogs, and trees of runs."""

from typing import Any

from isolation.alpha import Alpha, answering, hangs, receiver
from isolation.attacks import Containment, attack
from isolation.corpus.workflows import FLEETING, PIECE, big_steps, slow_step

MORE_THAN_PLACES = 120
"""More runs than a worker executes at once."""

# Kind 6: runs that only wait


@attack(Containment.WAITING_IS_FREE, kind=6, in_make_test=True)
def retries_in_a_day_in_every_place(alpha: Alpha) -> None:
    """More of alpha's runs than a worker has places fail once and wait a day for their next attempt."""
    with receiver(answering(b"no", status=500)) as url:
        retry = {"max_attempts": 100, "backoff": 86_400}
        alpha.task({"fail": {"activity": "http_request", "url": url, "retry": retry}})
        alpha.runs(MORE_THAN_PLACES)
        alpha.hold()


@attack(Containment.FAIR_SHARES, kind=6, in_make_test=True)
def slow_steps_in_every_place(alpha: Alpha) -> None:
    """More of alpha's runs than a worker has places have a step that waits for a receiver that never responds."""
    with receiver(hangs) as url:
        alpha.task({"wait": slow_step(url)})
        alpha.runs(MORE_THAN_PLACES)
        alpha.hold()


@attack(Containment.WAITING_IS_FREE, kind=6)
def parents_that_wait_for_slow_children(alpha: Alpha) -> None:
    """Sixty of alpha's runs wait for ten children each, and every child waits for a receiver that never responds."""
    with receiver(hangs) as url:
        alpha.task({"wait": slow_step(url)}, {"item": 0}, name="child")
        alpha.task({"emit": {"activity": "list_emit_await", "task": "child", "items": list(range(10))}})
        alpha.runs(60)
        alpha.hold()


@attack(Containment.FAIR_SHARES, kind=6)
def a_backlog_of_a_thousand_runs(alpha: Alpha) -> None:
    """Alpha starts a thousand runs of five steps at the full rate."""
    alpha.task({f"s{number}": FLEETING for number in range(5)})
    alpha.runs(1000)


@attack(Containment.FAIR_SHARES, kind=6)
def thirty_tasks_with_a_backlog(alpha: Alpha) -> None:
    """Alpha has 30 tasks with 40 slow runs each, so it would get thirty shares if tasks had equal shares."""
    with receiver(hangs) as url:
        for number in range(30):
            alpha.task({"wait": slow_step(url)}, name=f"t{number}")
        alpha.begin()
        alpha.at_once(lambda number: alpha.run(f"t{number % 30}") if alpha.goes_on() else None, range(1200), threads=16)
        alpha.hold()


# Kind 7: trees of runs


@attack(Containment.RUN_BUDGET, kind=7, in_make_test=True)
def a_fan_out_that_starts_itself(alpha: Alpha) -> None:
    """A run starts 20 runs of its own task, ten at a time, and each of those does the same."""
    _start_itself(alpha, 20, 10)


@attack(Containment.RUN_BUDGET, kind=7)
def a_fan_out_of_a_thousand(alpha: Alpha) -> None:
    """A run starts 1,000 runs of its own task, a hundred at a time, and each of those does the same."""
    _start_itself(alpha, 1000, 100)


@attack(Containment.RUN_BUDGET, kind=7)
def big_results_of_a_hundred_children(alpha: Alpha) -> None:
    """Four of alpha's runs gather the outputs of a hundred children of 4 MiB each."""
    alpha.task(big_steps(4), {"item": 0}, name="child")
    emit = {"activity": "list_emit_await", "task": "child", "items": list(range(100)), "max_concurrency": 100}
    alpha.task({"emit": emit})
    alpha.runs(4)


@attack(Containment.RUN_BUDGET, kind=5)
def a_mebibyte_in_each_of_ninety_steps(alpha: Alpha) -> None:
    """Alpha runs 90 steps of 1 MiB, eight runs at a time."""
    alpha.task(big_steps(90))
    alpha.runs(8)


@attack(Containment.RUN_BUDGET)
def thousands_of_steps(alpha: Alpha) -> None:
    """Twenty of alpha's runs have 3,000 steps each, of which the limit lets them run 1,000."""
    alpha.task({f"s{number}": {"activity": "loop_counter"} for number in range(3000)})
    alpha.runs(20)


@attack(Containment.RUN_BUDGET)
def attempts_without_a_pause(alpha: Alpha) -> None:
    """Sixty of alpha's runs fail a hundred times each, without a pause between attempts."""
    retry = {"max_attempts": 100, "backoff": 0}
    alpha.task({"fail": {"activity": "http_request", "url": "http://127.0.0.1:9/", "retry": retry}})
    alpha.runs(60)


@attack(Containment.COLLECTION_LIMITS)
def files_without_end(alpha: Alpha) -> None:
    """Thirty of alpha's runs save 200 files of 60 KB each."""
    save = {"activity": "save_text_file", "name": "file.txt", "text": PIECE}
    steps: dict[str, Any] = {f"s{number}": save for number in range(3)}
    alpha.task(steps, {"item": 0}, name="child")
    alpha.task(
        {"emit": {"activity": "list_emit_await", "task": "child", "items": list(range(67)), "max_concurrency": 20}}
    )
    alpha.runs(30)


def _start_itself(alpha: Alpha, items: int, at_once: int) -> None:
    alpha.task({"echo": FLEETING}, {"item": 0}, name="attack")
    emit = {
        "activity": "list_emit_await", "task": "attack", "items": list(range(items)), "max_concurrency": at_once,
        "continue_on_error": True,
    }  # fmt: skip
    workflow = {"init_params": {"item": 0}, "step_configs": {"emit": emit}, "steps": ["emit"]}
    alpha.send("PUT", f"/tasks/{alpha.collection}/attack", {"workflow": workflow})
    alpha.run()
    alpha.hold()
