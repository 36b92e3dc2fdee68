"""Attacks by steps that use much memory or keep every core busy."""

from isolation.alpha import Alpha, Step, hangs, receiver
from isolation.attacks import Containment, attack
from isolation.corpus.workflows import FITTING, PIECE, sixteen_times, slow_step, steps_of_many_parts

# Kinds 5 and 9: memory


@attack(Containment.MEMORY_LIMIT, kind=5, in_make_test=True)
def a_separator_of_600_kilobytes(alpha: Alpha) -> None:
    """Alpha joins 3,000 empty texts with a separator of 660 KB, which would take 2 GB."""
    piece = {"activity": "text_echo", "text": PIECE}
    separator = {"activity": "text_concatenate", "texts_path": ["piece.outputs.text"] * 11}
    join = {"activity": "text_concatenate", "texts": [""] * 3000, "separator_path": "long.outputs.text"}
    alpha.task({"piece": piece, "long": separator, "join": join})
    alpha.run()


@attack(Containment.MEMORY_LIMIT, kind=9, in_make_test=True)
def references_that_multiply_a_list(alpha: Alpha) -> None:
    """A step refers 3,000 times to a list of 10,000 numbers."""
    alpha.task(
        {
            "numbers": {"activity": "number_sequence_generator", "count": 10_000},
            "many": {"activity": "conditional_branch", "value_path": ["numbers.outputs.numbers"] * 3000},
        }
    )
    alpha.runs(3)


@attack(Containment.MEMORY_LIMIT, kind=9)
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


@attack(Containment.MEMORY_LIMIT, kind=5)
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


@attack(Containment.MEMORY_LIMIT, kind=5)
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


@attack(Containment.MEMORY_LIMIT, kind=5)
def twenty_runs_of_many_parts(alpha: Alpha) -> None:
    """Twenty of alpha's runs split texts into millions of short ones, as many as their budget allows, and keep them."""
    with receiver(hangs) as url:
        alpha.task({**steps_of_many_parts(FITTING - 1), "wait": slow_step(url)})
        alpha.runs(20)
        alpha.hold()


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
