"""What a hostile workflow costs before it runs: bounded caches, linear checks, and parameters that do not multiply."""

import time
import tracemalloc
from typing import Any

import pytest

from routines_workflow.bindings import bindings_of, inputs_of
from routines_workflow.checks import LONGEST_TEXT, MOST_FINDINGS, check_workflow
from routines_workflow.references import Room, TooMuchError, parse_reference
from routines_workflow.templates import parse_template
from routines_workflow.text_cache import cached_by_text


def test_a_cache_forgets_by_characters_the_longest_unused_first() -> None:
    parsed: list[str] = []

    @cached_by_text(most_characters=10, longest=6)
    def parse(text: str) -> str:
        parsed.append(text)
        return text.upper()

    assert [parse(text) for text in ("aaaa", "bbbb", "aaaa", "cccc", "aaaa")] == [
        "AAAA",
        "BBBB",
        "AAAA",
        "CCCC",
        "AAAA",
    ]
    assert parsed == ["aaaa", "bbbb", "cccc"]
    assert parse("bbbb") == "BBBB"
    assert parsed[-1] == "bbbb"
    for _ in range(2):
        assert parse("too long") == "TOO LONG"
    assert parsed[-2:] == ["too long", "too long"]


def test_a_text_that_cannot_be_parsed_takes_no_room() -> None:
    @cached_by_text(most_characters=10, longest=10)
    def parse(text: str) -> str:
        raise ValueError(text)

    for _ in range(2):
        with pytest.raises(ValueError, match="a"):
            parse("a")


def test_templates_of_many_large_texts_leave_little_memory_behind() -> None:
    """10 texts of 60 KB and 200 texts of 6 KB; kept by count they would take over 50 MB."""
    tracemalloc.start()
    try:
        for number in range(10):
            parse_template(f"{number}" + "".join(f"{{{{p{index}}}}}" for index in range(7000)))
        for number in range(200):
            parse_template(f"{number}" + "".join(f"{{{{p{index}}}}}" for index in range(800)))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20 * 1024 * 1024


def seconds_to_check(placeholders: int) -> float:
    step = {"activity": "text_concatenate", "texts": ["{{a.inputs.text}}" * placeholders]}
    configs = {"a": {"activity": "text_echo", "text": "x"}, "s": step}
    workflow = {"init_params": {}, "steps": ["a", "s"], "step_configs": configs}
    began_at = time.thread_time()
    assert check_workflow(workflow) == []
    return time.thread_time() - began_at


def test_checking_is_linear_in_the_number_of_placeholders() -> None:
    few = min(seconds_to_check(2000) for _ in range(3))
    many = min(seconds_to_check(20_000) for _ in range(3))
    assert many < 40 * few + 0.05


def test_the_same_fault_is_found_once_and_findings_are_cut() -> None:
    step = {"activity": "text_echo", "text": "{{a}}" * 12_000}
    workflow: dict[str, Any] = {"init_params": {}, "steps": ["s"], "step_configs": {"s": step}}
    assert len(check_workflow(workflow)) == 1
    name = "n" * 60_000
    keys = {f"k{index}": 1 for index in range(200)}
    workflow = {"init_params": {}, "steps": [name], "step_configs": {name: {"activity": "text_echo", **keys}}}
    found = check_workflow(workflow)
    assert len(found) == MOST_FINDINGS
    assert max(len(fault.field) + len(fault.message) for fault in found) <= 2 * (LONGEST_TEXT + 1)


def test_a_message_lists_some_of_many_inputs() -> None:
    keys = {f"k{index}": 1 for index in range(3000)}
    configs = {
        "a": {"activity": "text_format_template", **keys},
        "s": {"activity": "text_echo", "text_path": "a.inputs.none"},
    }
    found = check_workflow({"init_params": {}, "steps": ["a", "s"], "step_configs": configs})
    assert all(len(fault.message) <= LONGEST_TEXT + 1 for fault in found)


LARGE = {"a": {"outputs": {"rows": [1] * 300_000, "text": "x" * 600_000}}}


@pytest.mark.parametrize(
    "config",
    [
        {"values_path": ["a.outputs.rows[*]"] * 5000},
        {"values_path": [["a.outputs.rows[*]"] * 50] * 100},
        {"values": ["{{ a.outputs.rows[*] }}"] * 5000},
        {"values": ["{{ a.outputs.text }}!"] * 5000},
        {"values": {f"k{index}": "{{ a.outputs.text }}!" for index in range(5000)}},
    ],
)
def test_parameters_that_repeat_a_large_value_are_refused_before_they_are_made(config: dict[str, Any]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TooMuchError):
            inputs_of(bindings_of(config, {}), {}, LARGE)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 32 * 1024 * 1024


def test_parameters_of_normal_size_are_not_affected() -> None:
    bindings = bindings_of({"values_path": ["a.outputs.rows[*]"] * 3, "text": "{{ a.outputs.text }}!"}, {})
    values = {"a": {"outputs": {"rows": [1] * 10_000, "text": "x" * 100_000}}}
    inputs = inputs_of(bindings, {}, values)
    assert (len(inputs["values"]), len(inputs["values"][2]), len(inputs["text"])) == (3, 10_000, 100_001)


def test_nested_arrays_are_counted_at_each_level() -> None:
    room = Room(100)
    with pytest.raises(TooMuchError):
        parse_reference("rows[*].cells[*]").resolve({"rows": [{"cells": [1] * 20}] * 10}, room)
