"""FlowWorkflow runs steps, resolves references and handles failures."""

from typing import Any

import msgspec
import pytest

from routines_core.errors import InvalidError
from routines_engine.steps.flow import StepFailedError
from routines_engine.steps.storable import MAX_BYTES
from routines_workflow.activity import ACTIVITIES, StepContext, activity
from support.flows import FakeServices, Journal, flow_of, run_step

WORKFLOW: dict[str, Any] = {
    "init_params": {"name": "world"},
    "step_configs": {
        "greet": {"activity": "text_template", "template": "hello {{ name }}", "variables_path": "init_params"},
        "split": {"activity": "text_split", "text_path": "greet.outputs.text", "separator": " "},
        "join": {
            "activity": "text_concatenate",
            "texts_path": ["split.outputs.parts[1]", "split.outputs.parts[0]"],
            "separator": ", ",
        },
    },
    "steps": ["greet", "split", "join"],
}


class Anything(msgspec.Struct):
    """Any value."""

    value: Any = None


@pytest.fixture
def leaves_no_activity() -> Any:
    before = dict(ACTIVITIES)
    yield
    ACTIVITIES.clear()
    ACTIVITIES.update(before)


async def test_steps_run_in_order_and_pass_on_their_outputs() -> None:
    journal = Journal()
    await flow_of(WORKFLOW, journal).run()
    assert journal.ends() == [
        ("greet", "completed", {"text": "hello world"}),
        ("split", "completed", {"parts": ["hello", "world"], "count": 2}),
        ("join", "completed", {"text": "world, hello"}),
    ]


async def test_a_resumed_run_does_not_repeat_finished_steps() -> None:
    journal = Journal()
    finished = {"greet": {"inputs": {}, "outputs": {"text": "good day"}}}
    await flow_of(WORKFLOW, journal, finished=finished).run()
    assert [name for name, _, _ in journal.ends()] == ["split", "join"]
    assert journal.ends()[-1][2] == {"text": "day, good"}


async def test_later_steps_may_refer_to_the_inputs_of_a_step() -> None:
    journal = Journal()
    configs = {
        "a": {"activity": "text_echo", "text": "x"},
        "b": {"activity": "text_echo", "text_path": "a.inputs.text"},
    }
    await flow_of({"steps": ["a", "b"], "step_configs": configs}, journal).run()
    assert journal.ends()[-1] == ("b", "completed", {"text": "x"})


async def test_templates_are_filled_in_static_parameters() -> None:
    config = {
        "activity": "conditional_branch",
        "value": 1,
        "if_true": {"n": "{{ init_params.n }}", "t": "n={{ init_params.n }}"},
    }
    outputs = await run_step(config, init_params={"n": 3})
    assert outputs == {"result": True, "value": {"n": 3, "t": "n=3"}}


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"template": "{{ a }} {{ b.c }} {{ d[0] }}", "variables": {"a": 1, "b": {"c": "Ann"}, "d": ["x"]}}, "1 Ann x"),
        ({"template": "{{ init_params.n }}{{ a }}", "variables": {"a": "{{ init_params.n }}"}}, "33"),
        ({"template": "{{ init_params.n }}"}, "3"),
        ({"template": "{{ init_params }}", "variables": {"init_params": "mine"}}, "mine"),
        ({"template": '{{ "{{" }} n }}'}, "{{ n }}"),
        # A value is never filled in again, and a template that came as a value only sees its variables.
        ({"template": "{{ init_params.braces }}"}, "{{ init_params.n }}"),
        ({"template_path": "init_params.own", "variables": {"a": "x"}}, "x"),
    ],
)  # fmt: skip
async def test_a_text_template_looks_up_variables_before_values_of_the_run(config: dict[str, Any], text: str) -> None:
    params = {"n": 3, "braces": "{{ init_params.n }}", "own": "{{ a }}"}
    assert await run_step({"activity": "text_template", **config}, init_params=params) == {"text": text}


async def test_a_template_that_came_as_a_value_cannot_read_secrets() -> None:
    services = FakeServices(secrets={"KEY": "hidden-value"})
    with pytest.raises(StepFailedError, match=r"no variable for the placeholder 'secret_params\.KEY'"):
        await run_step(
            {"activity": "text_template", "template_path": "init_params.own"},
            init_params={"own": "{{ secret_params.KEY }}"},
            services=services,
        )
    assert services.asked_secrets == []


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        (None, "step 'only' failed: 'only' has no entry in step_configs"),
        ({"activity": "text_shout"}, "step 'only' failed: unknown activity 'text_shout'"),
        ({"activity": "text_echo", "text_path": "later.outputs.text"}, "reference later.outputs.text is missing"),
        ({"activity": "text_echo", "text_path": "a..b"}, "not valid at character 3"),
        ({"activity": "text_echo", "text": "{{ a"}, "not valid at character 5"),
        ({"activity": "text_echo", "text": "{{ secret_params }}"}, "name one secret, for example secret_params.NAME"),
        ({"activity": "text_echo", "text": "{{ secret_params.GONE }}"}, "secret_params.GONE is missing"),
        ({"activity": "text_echo", "txt": "x"}, "unknown field txt"),
        ({"activity": "text_echo", "text": "x", "retry": {"max_attempts": 0}}, "max_attempts: must be an integer >= 1"),
        ({"activity": "text_split", "text": "x", "separator": ""}, "separator"),
        ({"activity": "text_echo", "text": "{{ init_params.object }}"}, "must be a string, got an object, at $.text"),
        ({"activity": "text_template", "template": "{{ who }}"}, "no variable for the placeholder 'who'"),
        ({"activity": "text_echo", "text": "\0"}, "its inputs hold a NUL character"),
        ({"activity": "text_echo", "text_path": "init_params.half"}, "its inputs hold half of a surrogate pair"),
        ({"activity": "text_echo", "text": "x" * (MAX_BYTES + 1)}, "its inputs are larger than 1048576 bytes"),
        ({"activity": "conditional_branch", "value": nested(200)}, "its config is nested more than 100 levels deep"),
    ],
)  # fmt: skip
async def test_a_step_that_cannot_run_fails_with_its_name_and_the_cause(config: Any, cause: str) -> None:
    journal = Journal()
    workflow = {"steps": ["only"], "step_configs": {"only": config} if config else {}}
    with pytest.raises(StepFailedError) as caught:
        await flow_of(workflow, journal, init_params={"half": "\ud800", "object": {}}).run()
    assert "step 'only' failed: " in str(caught.value)
    assert cause in str(caught.value)
    assert journal.records[-1].status == "failed"


async def test_a_malformed_workflow_is_refused() -> None:
    with pytest.raises(InvalidError, match="workflow is not valid"):
        await flow_of({"steps": "x"}, Journal(), init_params={}).run()


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ("\0", "its outputs hold a NUL character"),
        ({"\0": 1}, "its outputs hold a NUL character"),
        ("\ud800", "its outputs hold half of a surrogate pair"),
        (["x" * 1000] * 17_000, "its outputs are larger than 16777216 bytes as JSON"),
        (["é" * 300_000] * 30, "its outputs are larger than 16777216 bytes as JSON"),
        ([["x" * 1000] * 1000] * 1000, "its outputs are larger than 16777216 bytes as JSON"),
        ([0] * 17_000_000, "its outputs are larger than 16777216 bytes as JSON"),
        (nested(200), "its outputs are nested more than 100 levels deep"),
        (object(), "object"),
    ],
    ids=["NUL", "NUL in a key", "surrogate", "long list", "long texts", "repeated", "many", "deep", "not JSON"],
)
@pytest.mark.usefixtures("leaves_no_activity")
async def test_outputs_that_cannot_be_stored_fail_the_step(value: Any, cause: str) -> None:
    @activity("Returns what the test wants.", Anything)
    async def give(_given: Anything, _: StepContext) -> Anything:
        return Anything(value)

    with pytest.raises(StepFailedError) as caught:
        await run_step({"activity": "give"})
    assert cause in str(caught.value)


@pytest.mark.usefixtures("leaves_no_activity")
async def test_outputs_are_what_the_database_gives_back() -> None:
    @activity("Returns values that JSON cannot express.", Anything)
    async def give(_given: Anything, _: StepContext) -> Anything:
        return Anything([float("nan"), float("inf"), "\\u0000", (1, 2)])

    assert await run_step({"activity": "give"}) == {"value": [None, None, "\\u0000", [1, 2]]}


@pytest.mark.usefixtures("leaves_no_activity")
async def test_an_activity_cannot_change_what_later_steps_see() -> None:
    @activity("Changes its inputs.", Anything)
    async def change(given: Anything, _: StepContext) -> Anything:
        given.value["list"].append(2)
        return given

    configs = {
        "first": {"activity": "change", "value_path": "init_params"},
        "second": {"activity": "conditional_branch", "value_path": "init_params.list", "operator": "eq", "other": [1]},
    }
    journal = Journal()
    await flow_of({"steps": list(configs), "step_configs": configs, "init_params": {"list": [1]}}, journal).run()
    assert journal.records[1].inputs == {"value": {"list": [1]}}
    assert journal.records[-1].outputs["result"] is True


@pytest.mark.parametrize("ending", [SystemExit(3), "cancel", MemoryError("too much"), StopIteration()])
@pytest.mark.usefixtures("leaves_no_activity")
async def test_whatever_an_activity_raises_fails_only_its_step(ending: Any) -> None:
    import asyncio

    @activity("Ends as the test wants.", Anything)
    async def end(_given: Anything, _: StepContext) -> Anything:
        raise asyncio.CancelledError if ending == "cancel" else ending

    with pytest.raises(StepFailedError, match="step 'only' failed: "):
        await run_step({"activity": "end"})


@pytest.mark.usefixtures("leaves_no_activity")
async def test_an_error_is_stored_cut_and_without_characters_that_cannot_be_stored() -> None:
    @activity("Fails at length.", Anything)
    async def fail(_given: Anything, _: StepContext) -> Anything:
        raise ValueError("\0\ud800" + "x" * 20_000)

    journal = Journal()
    with pytest.raises(StepFailedError):
        await flow_of({"steps": ["a"], "step_configs": {"a": {"activity": "fail"}}}, journal).run()
    error = journal.records[-1].error
    assert error
    assert (error[:3], len(error), error[-1]) == ("\N{REPLACEMENT CHARACTER}?x", 10_001, "…")
