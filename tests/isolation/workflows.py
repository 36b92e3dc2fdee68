"""Attacks by hostile workflows that alpha runs."""

import time
from typing import Any

from isolation.alpha import Alpha, Step, answering, hangs, receiver
from isolation.attacks import Containment, attack

PIECE = "x" * 60_000
"""A text slightly shorter than the limit for strings in a request."""
COPIES = 16
"""This many pieces take nearly 1 MiB, the limit for a step's outputs."""
FLEETING = {"activity": "text_echo", "text": "done"}


def big_steps(count: int) -> dict[str, Step]:
    """Return steps with outputs of nearly 1 MiB each."""
    big = {"activity": "text_template", "template": "{{ piece.outputs.text }}" * COPIES}
    return {"piece": {"activity": "text_echo", "text": PIECE}} | {f"big{number}": big for number in range(count)}


def slow_step(url: str, seconds: float = 60) -> Step:
    """Return a step that waits for a receiver that never responds."""
    return {"activity": "http_request", "url": url, "timeout_seconds": seconds}


def sixteen_times(name: str) -> Step:
    """Return a step that repeats the text of another one sixteen times."""
    return {"activity": "text_concatenate", "texts_path": [f"{name}.outputs.text"] * COPIES}


# Row 1: what a claim carries


@attack(Containment.SMALL_CLAIMS, row=1, in_make_test=True)
def a_big_run_loses_its_worker(alpha: Alpha) -> None:
    """Alpha's run has 90 finished steps of 1 MiB and loses its worker again and again."""
    with receiver(hangs) as url:
        alpha.task({**big_steps(90), "wait": slow_step(url)})
        run = alpha.run()
        _until_steps(alpha, run, 91)
        alpha.begin()
        while alpha.goes_on():
            alpha.lose_leases()
            time.sleep(1)


@attack(Containment.SMALL_CLAIMS, row=1)
def many_big_runs_lose_their_worker(alpha: Alpha) -> None:
    """Twelve of alpha's runs have 20 finished steps of 1 MiB each, and all lose their worker at once."""
    with receiver(hangs) as url:
        alpha.task({**big_steps(20), "wait": slow_step(url)})
        for run in alpha.runs(12):
            _until_steps(alpha, run, 21)
        alpha.begin()
        while alpha.goes_on():
            alpha.lose_leases()
            time.sleep(2)


@attack(Containment.SMALL_CLAIMS, row=1)
def a_backlog_of_big_parameters(alpha: Alpha) -> None:
    """Alpha starts 300 runs with 200 KB of parameters each."""
    alpha.task({"echo": FLEETING}, {"load": None})
    alpha.runs(300, init_params={"load": [PIECE, PIECE, PIECE]})


@attack(Containment.SMALL_CLAIMS, row=1)
def a_backlog_of_big_workflows(alpha: Alpha) -> None:
    """Alpha starts 500 runs of a task with a workflow of 230 KB."""
    steps = {f"s{number}": {"activity": "text_echo", "text": PIECE} for number in range(3)}
    alpha.task({**steps, "echo": FLEETING}, {"load": PIECE[:40_000]})
    alpha.runs(500)


def _until_steps(alpha: Alpha, run: int | None, count: int, seconds: float = 60) -> None:
    """Wait until this many steps of a run have finished, or the run has failed, for example by exceeding its budget."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        [(done, has_ended)] = alpha.execute(
            """SELECT (SELECT count(*) FROM routines.steps WHERE trajectory_id = trajectories.id
                       AND steps.status = 'completed'), ended_at IS NOT NULL
               FROM routines.trajectories WHERE id = %s""",
            run,
        )
        if done >= count or has_ended:
            return
        time.sleep(0.2)


# Row 2: reading big runs


@attack(Containment.BOUNDED_READS, row=2, in_make_test=True)
def forty_readers_of_a_big_run(alpha: Alpha) -> None:
    """Forty connections of alpha read a run of 90 steps of 1 MiB."""
    run = _big_run(alpha)
    alpha.repeat(lambda: alpha.send("GET", f"/db/trajectory/{alpha.collection}/attack/{run}"), threads=40)


@attack(Containment.BOUNDED_READS, row=2)
def lists_of_big_runs(alpha: Alpha) -> None:
    """On ten connections, alpha lists its runs, including six with 40 steps of 1 MiB each."""
    alpha.task(big_steps(40))
    for _ in range(6):
        alpha.ended_run("attack", seconds=60)
    alpha.repeat(lambda: alpha.send("GET", f"/db/trajectories/{alpha.collection}/attack?limit=100"), threads=10)


@attack(Containment.BOUNDED_READS, row=2)
def webhooks_of_big_runs(alpha: Alpha) -> None:
    """Three of alpha's runs, with 90 steps of 1 MiB each, end with a webhook."""
    with receiver(answering(b"")) as url:
        alpha.task(big_steps(90))
        alpha.runs(3, webhook_url=url)
        alpha.hold()


@attack(Containment.BOUNDED_READS, row=2)
def extraction_from_big_runs(alpha: Alpha) -> None:
    """Ten of alpha's runs read the outputs of six runs of 40 MiB each."""
    alpha.task(big_steps(40))
    for _ in range(6):
        alpha.ended_run("attack", seconds=60)
    alpha.task({"read": {"activity": "extract_from_trajectories", "task": "attack", "limit": 100}}, name="reader")
    alpha.begin()
    alpha.runs(10, "reader")


@attack(Containment.BOUNDED_READS, row=2)
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


@attack(Containment.BOUNDED_READS, row=9)
def labels_on_a_big_run(alpha: Alpha) -> None:
    """Four connections of alpha label a run of 60 MiB; each response contains the run."""
    run = _big_run(alpha, 60)
    numbers = iter(range(10**6))
    path = f"/trajectory/{alpha.collection}/attack/{run}/labels"
    alpha.repeat(lambda: alpha.send("POST", path, {"key": f"k{next(numbers)}", "value": "v" * 1000}), threads=4)


@attack(Containment.BOUNDED_READS, row=9)
def run_syncs_of_big_runs(alpha: Alpha) -> None:
    """Four connections of alpha run 40 steps of 1 MiB and wait for the result."""
    alpha.task(big_steps(40))
    alpha.repeat(lambda: alpha.send("POST", f"/run-sync/{alpha.collection}/attack", {}), threads=4)


def _big_run(alpha: Alpha, steps: int = 90) -> int:
    alpha.task(big_steps(steps))
    run = alpha.ended_run("attack", seconds=60)
    alpha.begin()
    return run


# Row 3: masking


@attack(Containment.LINEAR_MASKING, row=3, in_make_test=True)
def a_secret_that_looks_like_a_mask(alpha: Alpha) -> None:
    """The secret is `********a`, and a step returns it with 64,000 more `a`, so every mask spells it again."""
    alpha.task({"echo": {"activity": "text_template", "template": "{{ secret_params.S }}" + "a" * 64_000}})
    alpha.runs(4, secret_params={"S": "********a"})


@attack(Containment.LINEAR_MASKING, row=3)
def a_mask_in_a_mebibyte(alpha: Alpha) -> None:
    """The secret is `********a`, and a step returns it followed by 1 MiB of `a`."""
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": "a" * 60_000},
            "big": sixteen_times("piece"),
            "echo": {
                "activity": "text_concatenate",
                "texts_path": ["secret_params.S", "big.outputs.text"],
            },
        }
    )
    alpha.run(secret_params={"S": "********a"})


@attack(Containment.LINEAR_MASKING, row=3)
def a_hundred_secrets(alpha: Alpha) -> None:
    """A run has 100 secrets, as many as it may, and its text of nearly 1 MiB is searched for all spellings of each."""
    secrets = {f"V{number}": f"secret-{number}-{number * 7919 % 10007:05}" for number in range(100)}
    names = [f"secret_params.V{number}" for number in range(100)]
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": "secret-1 " * 6_600},
            "mask": {"activity": "text_concatenate", "texts_path": [*["piece.outputs.text"] * 15, *names]},
        }
    )
    alpha.runs(3, secret_params=secrets)


@attack(Containment.LINEAR_MASKING, row=3)
def secrets_within_one_another(alpha: Alpha) -> None:
    """Alpha's 90 secrets are `aaaa`, `aaaaa` and so on, and the text is 1 MiB of `a`."""
    alpha.environment({f"V{number}": "a" * (4 + number) for number in range(90)})
    names = [f"environment.V{number}" for number in range(90)]
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": "a" * 60_000},
            "big": sixteen_times("piece"),
            "mask": {"activity": "text_concatenate", "texts_path": ["big.outputs.text", *names]},
        }
    )
    alpha.begin()
    alpha.runs(3)


@attack(Containment.LINEAR_MASKING, row=3)
def a_secret_of_many_thousand_letters(alpha: Alpha) -> None:
    """A secret has nearly 60,000 letters and almost matches throughout a text of 1 MiB."""
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": "ab" * 30_000},
            "big": sixteen_times("piece"),
            "mask": {
                "activity": "text_concatenate",
                "texts_path": ["big.outputs.text", "secret_params.A"],
            },
        }
    )
    alpha.runs(4, secret_params={"A": "ab" * 29_000 + "c"})


@attack(Containment.LINEAR_MASKING, row=3)
def secrets_among_thousands_of_texts(alpha: Alpha) -> None:
    """A step that uses 60 secrets returns 100,000 short texts, each of which must be masked."""
    secrets = {f"S{number}": f"secret number {number}" for number in range(60)}
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": "a," * 30_000},
            "many": {"activity": "text_concatenate", "texts_path": ["piece.outputs.text"] * 4 +
                     [f"secret_params.{name}" for name in secrets]},
            "split": {"activity": "text_split", "separator": ",",
                      "text_path": "many.outputs.text"},
        }
    )  # fmt: skip
    alpha.runs(4, secret_params=secrets)


# Rows 5 and 9: memory


@attack(Containment.MEMORY_LIMIT, row=5, in_make_test=True)
def a_separator_of_600_kilobytes(alpha: Alpha) -> None:
    """Alpha joins 3,000 empty texts with a separator of 660 KB, which would take 2 GB."""
    piece = {"activity": "text_echo", "text": PIECE}
    separator = {"activity": "text_concatenate", "texts_path": ["piece.outputs.text"] * 11}
    join = {"activity": "text_concatenate", "texts": [""] * 3000, "separator_path": "long.outputs.text"}
    alpha.task({"piece": piece, "long": separator, "join": join})
    alpha.run()


@attack(Containment.MEMORY_LIMIT, row=9, in_make_test=True)
def references_that_multiply_a_list(alpha: Alpha) -> None:
    """A step refers 3,000 times to a list of 10,000 numbers."""
    alpha.task(
        {
            "numbers": {"activity": "number_sequence_generator", "count": 10_000},
            "many": {"activity": "conditional_branch", "value_path": ["numbers.outputs.numbers"] * 3000},
        }
    )
    alpha.runs(3)


@attack(Containment.MEMORY_LIMIT, row=9)
def references_that_multiply_step_by_step(alpha: Alpha) -> None:
    """Each step refers 100 times to the previous step's list."""
    steps: dict[str, Step] = {"s0": {"activity": "number_sequence_generator", "count": 100}}
    steps["s1"] = {"activity": "conditional_branch", "if_false_path": ["s0.outputs.numbers"] * 90}
    for number in range(2, 6):
        steps[f"s{number}"] = {
            "activity": "conditional_branch", "if_false_path": [f"s{number - 1}.outputs.value[*][*]"] * 100,
            "value": False,
        }  # fmt: skip
        steps[f"s{number}"].pop("value")
    alpha.task(steps)
    alpha.runs(3)


@attack(Containment.MEMORY_LIMIT, row=5)
def a_template_that_multiplies(alpha: Alpha) -> None:
    """A static parameter holds 2,000 templates, each with a value of 1 MiB."""
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": PIECE},
            "big": sixteen_times("piece"),
            "all": {"activity": "conditional_branch", "value": ["{{ big.outputs.text }}!"] * 2000},
        }
    )
    alpha.runs(2)


@attack(Containment.MEMORY_LIMIT, row=5)
def a_text_of_a_million_parts(alpha: Alpha) -> None:
    """Twenty of alpha's runs split 1 MiB of commas at every comma."""
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": "," * 60_000},
            "big": sixteen_times("piece"),
            "split": {"activity": "text_split", "separator": ",", "text_path": "big.outputs.text"},
        }
    )
    alpha.runs(20)


@attack(Containment.MEMORY_LIMIT)
def slow_and_large_files(alpha: Alpha) -> None:
    """Eight of alpha's runs read the same file of 30 MiB as text."""
    alpha.task({"read": {"activity": "read_text_file", "path_path": "init_params.file_paths[0]"}})
    content = b"\xc3\xa9" * (15 * 1024 * 1024)

    def upload(_: int) -> None:
        if alpha.goes_on():
            alpha.send("POST", f"/run/{alpha.collection}/attack", files={"files": ("big.txt", content)})

    alpha.at_once(upload, range(8), threads=4)


# Cores


@attack(Containment.WATCHDOG, in_make_test=True)
def comparisons_of_long_lists(alpha: Alpha) -> None:
    """Alpha compares one list with thousands that differ only in the last item; every list is given by reference."""
    needle = {"activity": "number_sequence_generator", "count": 10_000}
    other = {"activity": "number_sequence_generator", "count": 10_000, "start": 0.0}
    look = {
        "activity": "conditional_branch", "operator": "in",
        "value_path": ["needle.outputs.numbers", "needle.outputs.count"],
        "other_path": [["other.outputs.numbers", "needle.outputs"]] * 5000,
    }  # fmt: skip
    alpha.task({"needle": needle, "other": other, "look": look})
    alpha.runs(4)


@attack(Containment.WATCHDOG)
def searches_in_long_texts(alpha: Alpha) -> None:
    """Alpha's eight runs search 480,000 letters for a near match of 240,000 letters, forty times each."""
    steps: dict[str, Step] = {
        "hay": {"activity": "text_echo", "text": "a" * 60_000},
        "stack": {"activity": "text_concatenate", "texts_path": ["hay.outputs.text"] * 8},
        "needle": {"activity": "text_concatenate", "separator": "", "texts_path": ["hay.outputs.text"] * 4},
        "point": {"activity": "text_template", "template": "{{ needle.outputs.text }}b"},
    }
    for number in range(40):
        steps[f"look{number}"] = {
            "activity": "conditional_branch", "operator": "contains",
            "value_path": "stack.outputs.text", "other_path": "point.outputs.text",
        }  # fmt: skip
    alpha.task(steps)
    alpha.runs(8)


@attack(Containment.WATCHDOG)
def references_of_a_hundred_members(alpha: Alpha) -> None:
    """A step has 2,000 references with [*] over nested lists, each of which visits 10,000 items."""
    alpha.task(
        {
            "numbers": {"activity": "number_sequence_generator", "count": 10_000},
            "many": {"activity": "conditional_branch", "value_path": ["numbers.outputs.numbers[*]"] * 2000},
        }
    )
    alpha.runs(4)


@attack(Containment.PROCESS_PER_COLLECTION, in_make_test=True)
def hundreds_of_busy_steps(alpha: Alpha) -> None:
    """Alpha's 40 runs of 60 steps process half a mebibyte per step and keep every core busy."""
    steps: dict[str, Step] = {
        "piece": {"activity": "text_echo", "text": "ab," * 20_000},
        "big": {"activity": "text_concatenate", "texts_path": ["piece.outputs.text"] * 4},
    }
    for number in range(60):
        steps[f"split{number}"] = {"activity": "text_split", "separator": ",", "text_path": "big.outputs.text"}
    alpha.task(steps)
    alpha.runs(40)


@attack(Containment.PROCESS_PER_COLLECTION)
def numbers_of_all_kinds(alpha: Alpha) -> None:
    """Alpha's steps compute with extreme JSON numbers, in lists of 10,000."""
    sequence = {"activity": "number_sequence_generator", "count": 10_000}
    steps: dict[str, Step] = {
        "large": {**sequence, "start": 1.7e308, "step": 1e308},
        "small": {**sequence, "start": 5e-324, "step": 5e-324},
        "whole": {**sequence, "start": 2**62, "step": 2**62},
        "count": {"activity": "loop_counter", "count": 2**63 - 1, "step": 2**63 - 1},
        "order": {
            "activity": "conditional_branch",
            "operator": "lt",
            "value_path": "large.outputs.numbers[9]",
            "other": 1,
        },
    }
    alpha.task(steps)
    alpha.runs(40)


# Row 6: runs that only wait


@attack(Containment.WAITING_IS_FREE, row=6, in_make_test=True)
def sixty_retries_in_a_day(alpha: Alpha) -> None:
    """Sixty of alpha's runs fail once and wait a day for their next attempt."""
    with receiver(answering(b"no", status=500)) as url:
        retry = {"max_attempts": 100, "backoff": 86_400}
        alpha.task({"fail": {"activity": "http_request", "url": url, "retry": retry}})
        alpha.runs(60)
        alpha.hold()


@attack(Containment.FAIR_SHARES, row=6, in_make_test=True)
def sixty_slow_steps(alpha: Alpha) -> None:
    """Sixty of alpha's runs have a step that waits for a receiver that never responds."""
    with receiver(hangs) as url:
        alpha.task({"wait": slow_step(url)})
        alpha.runs(60)
        alpha.hold()


@attack(Containment.WAITING_IS_FREE, row=6)
def parents_that_wait_for_slow_children(alpha: Alpha) -> None:
    """Sixty of alpha's runs wait for ten children each, and every child waits for a receiver that never responds."""
    with receiver(hangs) as url:
        alpha.task({"wait": slow_step(url)}, {"item": 0}, name="child")
        alpha.task({"emit": {"activity": "list_emit_await", "task": "child", "items": list(range(10))}})
        alpha.runs(60)
        alpha.hold()


@attack(Containment.FAIR_SHARES, row=6)
def a_backlog_of_a_thousand_runs(alpha: Alpha) -> None:
    """Alpha starts a thousand runs of five steps at the full rate."""
    alpha.task({f"s{number}": FLEETING for number in range(5)})
    alpha.runs(1000)


@attack(Containment.FAIR_SHARES, row=6)
def thirty_tasks_with_a_backlog(alpha: Alpha) -> None:
    """Alpha has 30 tasks with 40 slow runs each, so it would get thirty shares if tasks had equal shares."""
    with receiver(hangs) as url:
        for number in range(30):
            alpha.task({"wait": slow_step(url)}, name=f"t{number}")
        alpha.begin()
        alpha.at_once(lambda number: alpha.run(f"t{number % 30}") if alpha.goes_on() else None, range(1200), threads=16)
        alpha.hold()


# Row 7: trees of runs


@attack(Containment.RUN_BUDGET, row=7, in_make_test=True)
def a_fan_out_that_starts_itself(alpha: Alpha) -> None:
    """A run starts 20 runs of its own task, ten at a time, and each of those does the same."""
    _start_itself(alpha, 20, 10)


@attack(Containment.RUN_BUDGET, row=7)
def a_fan_out_of_a_thousand(alpha: Alpha) -> None:
    """A run starts 1,000 runs of its own task, a hundred at a time, and each of those does the same."""
    _start_itself(alpha, 1000, 100)


@attack(Containment.RUN_BUDGET, row=7)
def big_results_of_a_hundred_children(alpha: Alpha) -> None:
    """Four of alpha's runs gather the outputs of a hundred children of 4 MiB each."""
    alpha.task(big_steps(4), {"item": 0}, name="child")
    emit = {"activity": "list_emit_await", "task": "child", "items": list(range(100)), "max_concurrency": 100}
    alpha.task({"emit": emit})
    alpha.runs(4)


@attack(Containment.RUN_BUDGET, row=5)
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
