"""The activities that need only the engine's services."""

import asyncio
import tracemalloc
from typing import Any

import pytest

from routines_engine.steps.flow import StepFailedError
from routines_workflow.activity import Child, ChildResult, Found
from support.flows import FakeServices, run_step

BRANCH = {"activity": "conditional_branch"}


@pytest.mark.parametrize(
    ("config", "outputs"),
    [
        ({"activity": "text_echo", "text": " x "}, {"text": " x "}),
        ({"activity": "text_concatenate", "texts": ["a", "b"], "separator": "-"}, {"text": "a-b"}),
        ({"activity": "text_concatenate", "texts": []}, {"text": ""}),
        ({"activity": "text_split", "text": "a\nb\n"}, {"parts": ["a", "b", ""], "count": 3}),
        ({"activity": "number_sequence_generator", "count": 3}, {"numbers": [0, 1, 2], "count": 3}),
        (
            {"activity": "number_sequence_generator", "count": 3, "start": 1, "step": 0.1},
            {"numbers": [1.0, 1.1, 1.2], "count": 3},
        ),
        ({"activity": "number_sequence_generator", "count": 0}, {"numbers": [], "count": 0}),
        ({"activity": "loop_counter"}, {"count": 0, "done": False}),
        ({"activity": "loop_counter", "count": 0, "limit": 2}, {"count": 1, "done": False}),
        ({"activity": "loop_counter", "count": 1, "limit": 2}, {"count": 2, "done": True}),
        ({"activity": "loop_counter", "count": 9, "limit": 2}, {"count": 2, "done": True}),
        ({"activity": "loop_counter", "count": 3, "step": -2, "limit": 0}, {"count": 1, "done": False}),
        ({"activity": "loop_counter", "count": 1, "step": -2, "limit": 0}, {"count": 0, "done": True}),
    ],
)
async def test_an_activity_returns(config: dict[str, Any], outputs: dict[str, Any]) -> None:
    assert await run_step(config) == outputs


@pytest.mark.parametrize(
    ("value", "operator", "other", "result"),
    [
        (1, "eq", 1.0, True), (1, "eq", True, False), ("a", "ne", "b", True), ([1], "eq", [1], True),
        (1, "lt", 2, True), (2, "le", 2, True), ("a", "gt", "b", False), (3, "ge", 4, False),
        ("a", "in", ["a", "b"], True), (1, "in", [True], False), ("k", "in", {"k": 1}, True),
        ("bc", "in", "abcd", True),
        (["a"], "contains", "a", True), ("abc", "contains", "d", False), ({"k": 1}, "contains", "k", True),
        (None, "exists", None, False), (0, "exists", None, True), (0, "truthy", None, False),
        ([0], "truthy", None, True),
    ],
)  # fmt: skip
async def test_a_branch_compares(value: Any, operator: str, other: Any, *, result: bool) -> None:
    config = {"activity": "conditional_branch", "value": value, "operator": operator, "other": other}
    branch = await run_step(config | {"if_true": "yes", "if_false": ["no"]})
    assert branch == {"result": result, "value": "yes" if result else ["no"]}


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        (BRANCH | {"value": 1, "operator": "lt", "other": "a"}, "a number and a text cannot be ordered"),
        (BRANCH | {"value": True, "operator": "lt", "other": 1}, "a boolean and a number cannot be ordered"),
        (BRANCH | {"value": 1, "operator": "in", "other": "a1"}, "a text cannot contain a number"),
        (BRANCH | {"operator": "like"}, "operator"),
        ({"activity": "loop_counter", "step": 0}, "step: must not be 0"),
        ({"activity": "number_sequence_generator", "count": 10**6}, "count"),
        ({"activity": "read_text_file", "path": "gone"}, "there is no file gone"),
        ({"activity": "read_text_file", "path": "latin"}, "latin is not valid UTF-8 at byte 2"),
        ({"activity": "extract_from_trajectories", "task": "t", "path": "a..b"}, "not valid at character 3"),
    ],
)  # fmt: skip
async def test_an_activity_refuses(config: dict[str, Any], cause: str) -> None:
    with pytest.raises(StepFailedError) as caught:
        await run_step(config, services=FakeServices(files={"latin": b"a\xe4"}))
    assert cause in str(caught.value)


async def test_a_text_file_is_read_and_saved_in_utf_8() -> None:
    services = FakeServices(files={"in.txt": "\N{BYTE ORDER MARK}grün".encode()})
    read = await run_step(
        {"activity": "read_text_file", "path_path": "init_params.f"}, init_params={"f": "in.txt"}, services=services
    )
    assert read == {"text": "grün", "size_bytes": 8}
    saved = await run_step({"activity": "save_text_file", "name": "out.txt", "text": "grün"}, services=services)
    assert saved == {"path": "saved/out.txt", "size_bytes": 5}
    assert services.files["saved/out.txt"] == "grün".encode()


MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        (
            {"activity": "text_concatenate", "texts": [""] * 3000, "separator": "x" * 660_000},
            "the joined text would take at least 1979340000 bytes, more than the limit of 1 MiB",
        ),
        (
            {"activity": "text_split", "text": "ab," * 340_000, "separator": ","},
            "the list of parts would take at least 1700003 bytes, more than the limit of 1 MiB",
        ),
        (
            {"activity": "text_template", "template": "{{ a }}" * 60_000, "variables": {"a": "x" * 600_000}},
            "the expanded template would take at least 1200000 bytes, more than the limit of 1 MiB",
        ),
        (
            {"activity": "number_sequence_generator", "count": 10_000, "start": 10**3000},
            "the sequence would take at least 3000",
        ),
        ({"activity": "number_sequence_generator", "count": 2, "start": 10**4100}, "start: must have at most 4000"),
        ({"activity": "number_sequence_generator", "count": 2, "start": 10**400, "step": 0.5}, "added to a fraction"),
        ({"activity": "loop_counter", "count": 10**4200}, "count: must have at most 4000 digits"),
        (
            {"activity": "list_emit_await", "task": "t", "items": [1] * 10_000, "init_params": {"a": "x" * 250_000}},
            "init_params: for 10000 runs they would take at least 25",
        ),
        ({"activity": "read_text_file", "path": "large"}, "too large"),
        (
            {"activity": "text_concatenate", "texts": ["{{ init_params.a }} "] * 5000},
            "the resolved parameters are larger than a step's inputs may be",
        ),
        (
            {"activity": "text_echo", **{f"k{n}": "{{ init_params.a }} " for n in range(5000)}},
            "the resolved parameters are larger than a step's inputs may be",
        ),
    ],
    ids=lambda value: value["activity"] if isinstance(value, dict) else "",
)
async def test_a_result_that_would_be_too_large_is_refused_before_it_is_made(
    config: dict[str, Any], cause: str
) -> None:
    services = FakeServices(files={"large": bytes(MIB + 1)})
    tracemalloc.start()
    with pytest.raises(StepFailedError) as caught:
        await run_step(config, services=services, init_params={"a": "x" * 200_000})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert cause in str(caught.value)
    assert peak < 16 * MIB
    assert services.children == []


async def test_results_of_runs_that_are_too_large_together_start_no_more_runs() -> None:
    services = FakeServices(end_of=lambda child: ChildResult(child.index, "completed", {"s": "x" * 300_000}, None))
    with pytest.raises(StepFailedError, match="the results of the runs would take at least 12000"):
        await run_step(EMIT | {"items": list(range(100)), "max_concurrency": 1}, services=services)
    assert len(services.children) == 4


async def test_values_of_earlier_runs_that_are_too_large_together_are_refused() -> None:
    found = [Found(n, "completed", {}, {"s": {"text": "x" * 300_000, "n": n}}) for n in range(5)]
    config = {"activity": "extract_from_trajectories", "task": "work"}
    with pytest.raises(StepFailedError, match="the values would take at least 12000"):
        await run_step(config, services=FakeServices(found=found))
    outputs = await run_step(config | {"path": "s.outputs.n"}, services=FakeServices(found=found))
    assert outputs["values"] == [0, 1, 2, 3, 4]


SECRET = "first/second-part {{ third.part }} fourth.txt"


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        (
            {"activity": "save_text_file", "name_path": "secret_params.S", "text": "x"},
            "name: must not contain a secret",
        ),
        (
            {"activity": "save_text_file", "name": "a-{{ secret_params.S }}", "text": "x"},
            "name: must not contain a secret",
        ),
        (
            {"activity": "extract_from_trajectories", "task": "t", "path_path": "secret_params.S"},
            "path: not valid at character 6",
        ),
        (
            {"activity": "text_template", "template_path": "secret_params.S", "variables": {"third": {"part": "p"}}},
            "template: a placeholder is part of a secret",
        ),
        (
            {"activity": "text_template", "template_path": "secret_params.S"},
            "template: a placeholder is part of a secret",
        ),
        ({"activity": "read_text_file", "path_path": "secret_params.S"}, "there is no file ********"),
    ],
)
async def test_a_cut_text_shows_no_part_of_a_secret(config: dict[str, Any], cause: str) -> None:
    services = FakeServices(secrets={"S": SECRET})
    with pytest.raises(StepFailedError) as caught:
        await run_step(config, services=services)
    said = str(caught.value)
    assert cause in said
    for part in ("first", "second", "third", "fourth"):
        assert part not in said
    assert services.files == {}


async def test_a_text_is_masked_before_it_is_split() -> None:
    services = FakeServices(secrets={"S": "first-second"})
    config = {"activity": "text_split", "text": "a-{{ secret_params.S }}-b", "separator": "-"}
    assert (await run_step(config, services=services))["parts"] == ["a", "********", "b"]


EMIT = {"activity": "list_emit_await", "task": "work", "items": ["a", "b", "c"]}


def half(child: Child) -> ChildResult:
    """Children of which the second fails and the others echo."""
    if child.index == 1:
        return ChildResult(101, "failed", {"begun": {}}, "it broke")
    return ChildResult(100 + child.index, "completed", {"echo": child.init_params}, None)


async def test_a_run_is_started_per_item_and_results_keep_the_order() -> None:
    services = FakeServices()
    outputs = await run_step(EMIT | {"item_param": "letter", "init_params": {"size": 1}}, services=services)
    assert outputs == {
        "results": [{"echo": {"size": 1, "letter": letter}} for letter in "abc"],
        "trajectory_ids": [100, 101, 102],
        "errors": [None, None, None],
        "completed": 3,
        "failed": 0,
    }
    assert [(child.task, child.index) for child in services.children] == [("work", 0), ("work", 1), ("work", 2)]


async def test_a_failed_run_is_tolerated_with_continue_on_error() -> None:
    outputs = await run_step(EMIT | {"continue_on_error": True}, services=FakeServices(end_of=half))
    assert outputs["results"] == [{"echo": {"item": "a"}}, None, {"echo": {"item": "c"}}]
    assert (outputs["errors"], outputs["completed"], outputs["failed"]) == ([None, "it broke", None], 2, 1)


async def test_otherwise_no_more_runs_are_started_and_the_error_names_the_failed_run() -> None:
    services = FakeServices(end_of=half)
    with pytest.raises(StepFailedError, match="the run 101 of item 1: it broke"):
        await run_step(EMIT | {"max_concurrency": 1}, services=services)
    assert [child.index for child in services.children] == [0, 1]


class Slow(FakeServices):
    """Children that end only once the expected number of them is running."""

    together = 0
    most = 0

    async def run_child(self, child: Child) -> ChildResult:
        self.together += 1
        self.most = max(self.most, self.together)
        for _ in range(5):
            await asyncio.sleep(0)
        self.together -= 1
        return await super().run_child(child)


async def test_no_more_runs_are_active_at_once_than_allowed() -> None:
    services = Slow()
    await run_step(EMIT | {"items": list(range(20)), "max_concurrency": 3}, services=services)
    assert services.most == 3
    assert len(services.children) == 20


async def test_values_are_extracted_from_earlier_runs() -> None:
    services = FakeServices(
        found=[
            Found(7, "completed", {"topic": "x"}, {"sum": {"text": "seven"}}),
            Found(6, "completed", {"topic": "y"}, {"other": {}}),
            Found(5, "completed", {"topic": "z"}, {"sum": {"text": "five"}}),
        ]
    )
    config = {"activity": "extract_from_trajectories", "task": "work"}
    outputs = await run_step(config | {"path": "sum.outputs.text"}, services=services)
    assert outputs == {"values": ["seven", "five"], "trajectory_ids": [7, 5], "missing": [6], "count": 2}
    outputs = await run_step(config | {"path": "init_params.topic", "limit": 2, "status": None}, services=services)
    assert outputs["values"] == ["x", "y"]
    outputs = await run_step(config | {"limit": 1, "status": "failed"}, services=services)
    assert outputs["values"] == [{"sum": {"text": "seven"}}]
    assert services.asked_runs == [
        {"task": "work", "status": "completed", "limit": 10},
        {"task": "work", "status": None, "limit": 2},
        {"task": "work", "status": "failed", "limit": 1},
    ]
