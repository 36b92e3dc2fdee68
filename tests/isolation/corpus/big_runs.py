"""Attacks by runs with large steps: on claims, which must not carry them, and on everything that reads a run."""

import time

from isolation.alpha import Alpha, Step, answering, hangs, receiver
from isolation.attacks import Containment, attack
from isolation.corpus.workflows import (
    FITTING,
    FLEETING,
    PIECE,
    big_run,
    big_steps,
    slow_step,
    steps_of_many_parts,
    until_steps,
)

# Kind 1: what a claim carries


@attack(Containment.SMALL_CLAIMS, kind=1, in_make_test=True)
def a_big_run_loses_its_worker(alpha: Alpha) -> None:
    """Alpha's run has as many finished steps of 1 MiB as it may, and loses its worker again and again."""
    with receiver(hangs) as url:
        alpha.task({**big_steps(FITTING), "wait": slow_step(url)})
        run = alpha.run()
        until_steps(alpha, run, FITTING + 1)
        alpha.begin()
        while alpha.goes_on():
            alpha.lose_leases()
            time.sleep(1)


@attack(Containment.SMALL_CLAIMS, kind=1)
def many_big_runs_lose_their_worker(alpha: Alpha) -> None:
    """Twelve of alpha's runs have as many finished steps of 1 MiB as they may, and all lose their worker at once."""
    with receiver(hangs) as url:
        alpha.task({**big_steps(FITTING), "wait": slow_step(url)})
        for run in alpha.runs(12):
            until_steps(alpha, run, FITTING + 1)
        alpha.begin()
        while alpha.goes_on():
            alpha.lose_leases()
            time.sleep(2)


@attack(Containment.RUN_BUDGET, kind=1)
def runs_beyond_their_budget_lose_their_worker(alpha: Alpha) -> None:
    """Six of alpha's runs try to have 75 finished steps of 1 MiB each, and all lose their worker at once."""
    with receiver(hangs) as url:
        alpha.task({**big_steps(75), "wait": slow_step(url)})
        for run in [alpha.run() for _ in range(6)]:
            until_steps(alpha, run, 76)
        alpha.begin()
        while alpha.goes_on():
            alpha.lose_leases()
            time.sleep(2)


@attack(Containment.SMALL_CLAIMS, kind=1)
def a_backlog_of_big_parameters(alpha: Alpha) -> None:
    """Alpha starts 300 runs with 200 KB of parameters each."""
    alpha.task({"echo": FLEETING}, {"load": None})
    alpha.runs(300, init_params={"load": [PIECE, PIECE, PIECE]})


@attack(Containment.SMALL_CLAIMS, kind=1)
def a_backlog_of_big_workflows(alpha: Alpha) -> None:
    """Alpha starts 500 runs of a task with a workflow of 230 KB."""
    steps = {f"s{number}": {"activity": "text_echo", "text": PIECE} for number in range(3)}
    alpha.task({**steps, "echo": FLEETING}, {"load": PIECE[:40_000]})
    alpha.runs(500)


# Kind 2: reading big runs


@attack(Containment.BOUNDED_READS, kind=2, in_make_test=True)
def forty_readers_of_a_big_run(alpha: Alpha) -> None:
    """Forty connections of alpha read a run of 90 steps of 1 MiB."""
    run = big_run(alpha)
    alpha.repeat(lambda: alpha.send("GET", f"/db/trajectory/{alpha.collection}/attack/{run}"), threads=40)


@attack(Containment.BOUNDED_READS, kind=2)
def readers_of_a_run_of_many_parts(alpha: Alpha) -> None:
    """Ten connections of alpha read a run whose outputs are lists of millions of short texts."""
    alpha.task(steps_of_many_parts(FITTING))
    run = alpha.ended_run("attack", seconds=60)
    alpha.begin()
    alpha.repeat(lambda: alpha.send("GET", f"/db/trajectory/{alpha.collection}/attack/{run}"), threads=10)


@attack(Containment.BOUNDED_READS, kind=2)
def lists_of_big_runs(alpha: Alpha) -> None:
    """On ten connections, alpha lists its runs, including six with 40 steps of 1 MiB each."""
    alpha.task(big_steps(40))
    for _ in range(6):
        alpha.ended_run("attack", seconds=60)
    alpha.repeat(lambda: alpha.send("GET", f"/db/trajectories/{alpha.collection}/attack?limit=100"), threads=10)


@attack(Containment.BOUNDED_READS, kind=2)
def webhooks_of_big_runs(alpha: Alpha) -> None:
    """Three of alpha's runs, with 90 steps of 1 MiB each, end with a webhook."""
    with receiver(answering(b"")) as url:
        alpha.task(big_steps(90))
        alpha.runs(3, webhook_url=url)
        alpha.hold()


@attack(Containment.BOUNDED_READS, kind=2)
def extraction_from_big_runs(alpha: Alpha) -> None:
    """Ten of alpha's runs read the outputs of six runs of 40 MiB each."""
    alpha.task(big_steps(40))
    for _ in range(6):
        alpha.ended_run("attack", seconds=60)
    alpha.task({"read": {"activity": "extract_from_trajectories", "task": "attack", "limit": 100}}, name="reader")
    alpha.begin()
    alpha.runs(10, "reader")


@attack(Containment.BOUNDED_READS, kind=2)
def a_log_of_thousands_of_events(alpha: Alpha) -> None:
    """One of alpha's runs has 50 steps that fail 100 times without a pause, and ten connections read its log."""
    failing = {
        "activity": "conditional_branch", "operator": "lt", "value": 1, "other": "a",
        "retry": {"max_attempts": 100, "backoff": 0},
    }  # fmt: skip
    refused = {**failing, "activity": "http_request", "url": "http://127.0.0.1:9/"}
    step = {key: refused[key] for key in ("activity", "url", "retry")}
    alpha.task({"fail": step})
    runs = alpha.runs(50)
    alpha.repeat(lambda: alpha.send("GET", f"/workflows-logs/flow-{alpha.collection}-attack--{runs[0]}"), threads=10)


@attack(Containment.BOUNDED_READS, kind=9)
def labels_on_a_big_run(alpha: Alpha) -> None:
    """Four connections of alpha label a run of 60 MiB; each response contains the run."""
    run = big_run(alpha, 60)
    numbers = iter(range(10**6))
    path = f"/trajectory/{alpha.collection}/attack/{run}/labels"
    alpha.repeat(lambda: alpha.send("POST", path, {"key": f"k{next(numbers)}", "value": "v" * 1000}), threads=4)


@attack(Containment.BOUNDED_READS, kind=9)
def run_syncs_of_big_runs(alpha: Alpha) -> None:
    """Four connections of alpha run 40 steps of 1 MiB and wait for the result."""
    alpha.task(big_steps(40))
    alpha.repeat(lambda: alpha.send("POST", f"/run-sync/{alpha.collection}/attack", {}), threads=4)


@attack(Containment.RUN_BUDGET)
def readers_of_a_run_of_thousands_of_steps(alpha: Alpha) -> None:
    """Forty connections of alpha read a run of 6,400 steps, as many as the body of a request can hold."""
    steps: dict[str, Step] = {f"{number:x}": {"activity": "loop_counter"} for number in range(6400)}
    alpha.task(steps)
    run = alpha.ended_run("attack", seconds=90)
    alpha.begin()
    alpha.repeat(lambda: alpha.send("GET", f"/db/trajectory/{alpha.collection}/attack/{run}"), threads=40)
