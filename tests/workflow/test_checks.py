"""The checks of a workflow report every broken rule with its path."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routines_workflow.catalogue import step_templates
from routines_workflow.checks import check_workflow

ECHO = {"activity": "text_echo", "text": "x"}
FROM = {"activity": "text_echo"}


def findings(workflow: Any) -> list[tuple[str, str]]:
    return [(fault.field.removeprefix("workflow."), fault.message) for fault in check_workflow(workflow)]


def of_step(config: dict[str, Any], **init_params: Any) -> list[tuple[str, str]]:
    """Check a workflow with the step `s` between the steps `before` and `after`, and return the findings."""
    configs = {"before": ECHO, "s": config, "after": ECHO}
    found = findings({"init_params": init_params, "step_configs": configs, "steps": list(configs)})
    return [(field.removeprefix("step_configs.s."), message) for field, message in found]


def test_a_workflow_without_faults_has_no_findings() -> None:
    assert findings({}) == []
    config = {
        "activity": "text_template",
        "template": "{{ a }} {{ before.outputs.text }} {{ user.name }}",
        "variables": {"a": 1, "user": "{{ init_params.user }}"},
        "retry": {"max_attempts": 3, "backoff": {"initial_seconds": 1}},
        "timeout_seconds": 5,
    }
    assert of_step(config, user={}) == []


@pytest.mark.parametrize(
    ("workflow", "field", "message"),
    [
        ({"init_params": []}, "init_params", "must be an object"),
        ({"steps": {}}, "steps", "must be an array"),
        ({"step_configs": []}, "step_configs", "must be an object"),
        ({"stepz": []}, "stepz", "unknown field: a workflow has init_params, step_configs, steps"),
        ({"steps": [1]}, "steps.0", "must be the name of a step"),
        ({"steps": [""]}, "steps.0", "must be the name of a step"),
        ({"steps": ["a"], "step_configs": {"a": 1}}, "step_configs.a", "must be an object"),
        ({"steps": ["a"]}, "steps.0", "the step 'a' has no entry in step_configs"),
        ({"steps": ["a", "a"], "step_configs": {"a": ECHO}}, "steps.1", "the step 'a' is listed already"),
        ({"step_configs": {"a": ECHO}}, "step_configs.a", "is not in steps"),
        (
            {"steps": ["init_params"], "step_configs": {"init_params": ECHO}},
            "steps.0",
            "no step may be named init_params: references begin with it",
        ),
    ],
)
def test_faults_of_the_whole_workflow_are_found(workflow: Any, field: str, message: str) -> None:
    assert findings(workflow) == [(field, message)]


@pytest.mark.parametrize(
    ("config", "field", "message"),
    [
        ({}, "activity", "is required"),
        ({"activity": "text_ecko"}, "activity", "unknown activity 'text_ecko': did you mean 'text_echo'?"),
        ({"activity": 5}, "activity", "unknown activity 5"),
        ({"activity": "text_echo"}, "text", "is required by text_echo"),
        (ECHO | {"text_path": "init_params.p"}, "text", "is given twice, as a value and as a reference"),
        (ECHO | {"txt": "x"}, "txt", "text_echo has no parameter 'txt': it has text"),
        (ECHO | {"txt_path": "init_params.p"}, "txt_path", "text_echo has no parameter 'txt': it has text"),
        (ECHO | {"text": 5}, "text", "must be a string, got an integer"),
        (
            {"activity": "http_request", "url": "https://example.com", "method": "FETCH"},
            "method",
            'must be "DELETE" or "GET" or "HEAD" or "OPTIONS" or "PATCH" or "POST" or "PUT", not \'FETCH\'',
        ),
        (
            {"activity": "extract_from_trajectories", "task": "t", "status": "done"},
            "status",
            'must be "archived" or "cancelled" or "completed" or "failed", not \'done\'',
        ),
        ({"activity": "text_concatenate", "texts": ["a", 1]}, "texts", "must be a string, got an integer, at $[1]"),
        ({"activity": "number_sequence_generator", "count": -1}, "count", "must be an integer >= 0"),
        (ECHO | {"text": "{{ init_params.q }}"}, "text", "reference init_params.q: init_params declares no 'q'"),
        ({"activity": "text_echo", "text_path": 5}, "text_path", "a reference must be a text or a list of texts"),
        (FROM | {"text_path": "gone.outputs"}, "text_path", "reference gone.outputs: there is no step 'gone'"),
        (FROM | {"text_path": "s.inputs"}, "text_path", "reference s.inputs: a step cannot refer to itself"),
        (
            {"activity": "text_echo", "text_path": "after.outputs.text"},
            "text_path",
            "reference after.outputs.text: the step 'after' comes later",
        ),
        (FROM | {"text_path": "before.text"}, "text_path", "reference before.text: a step has inputs and outputs"),
        (
            {"activity": "text_echo", "text_path": "before.outputs.txt"},
            "text_path",
            "reference before.outputs.txt: the outputs of 'before' are text",
        ),
        (
            {"activity": "text_echo", "text_path": "secret_params"},
            "text_path",
            "reference secret_params: name one secret, for example secret_params.NAME",
        ),
        (
            {"activity": "text_template", "template": "{{ who }}"},
            "template",
            "no variable for the placeholder 'who'",
        ),
        (ECHO | {"retry": {"max_attempts": 0}}, "retry.max_attempts", "must be an integer >= 1"),
        (ECHO | {"retry": {"tries": 2}}, "retry", "Object contains unknown field tries"),
        (ECHO | {"retry": {"max_attempts": 2, "backoff": -1}}, "retry.backoff", "must be a number >= 0.0"),
        (ECHO | {"timeout_seconds": 0}, "timeout_seconds", "must be a number > 0.0"),
    ],
)  # fmt: skip
def test_faults_of_a_step_are_found(config: dict[str, Any], field: str, message: str) -> None:
    assert of_step(config, p="") == [(field, message)]


def test_a_syntax_error_points_at_the_character() -> None:
    [(field, message)] = of_step({"activity": "text_echo", "text": "hello {{ init_params..p }}"}, p="")
    assert (field, message.split("\n")) == (
        "text",
        [
            "not valid at character 22: expected a name (letters, digits, _ and -)",
            "    hello {{ init_params..p }}",
            "                         ^",
        ],
    )


@pytest.mark.parametrize(
    "config",
    [
        {"activity": "text_echo", "text_path": "init_params.file_paths[0]"},
        {"activity": "text_echo", "text_path": "environment.GREETING"},
        {"activity": "text_echo", "text": "{{ secret_params.KEY }}"},
        {"activity": "text_echo", "text_path": "before.inputs.text"},
        {"activity": "number_sequence_generator", "count": "{{ init_params.p }}"},
        {"activity": "text_template", "template": "{{ anything }}", "variables_path": "init_params"},
        {"activity": "text_template", "template": "{{ environment }}", "variables": {"environment": "prod"}},
        {"activity": "text_concatenate", "texts_path": ["init_params.p", "before.outputs.text"]},
    ],
)
def test_faults_that_depend_on_values_are_left_to_the_run(config: dict[str, Any]) -> None:
    assert of_step(config, p="") == []


def test_all_faults_are_found_at_once() -> None:
    found = findings(
        {
            "steps": ["a", "b", "b"],
            "step_configs": {
                "a": {"activity": "x"},
                "b": {"activity": "text_echo", "text_path": "a..b", "y": 1},
                "c": ECHO,
            },
        }
    )
    assert [field for field, _ in found] == [
        "steps.2", "step_configs.a.activity", "step_configs.b.text_path", "step_configs.b.y", "step_configs.c",
    ]  # fmt: skip


@pytest.mark.parametrize("template", step_templates(), ids=lambda template: template.activity_name)
def test_the_example_of_each_activity_can_be_saved(template: Any) -> None:
    declared = {parameter.name: None for parameter in template.parameters}
    workflow = {"init_params": declared, "steps": ["a"], "step_configs": {"a": template.example_config}}
    assert check_workflow(msgspec.json.decode(msgspec.json.encode(workflow))) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
configs = st.fixed_dictionaries(
    {}, optional={"activity": st.sampled_from(["text_echo", "text_template", "http_request"]) | json_values,
                  "text": json_values, "text_path": json_values, "template": json_values, "variables": json_values,
                  "retry": json_values, "timeout_seconds": json_values, "url": json_values},
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    json_values,
    st.lists(st.sampled_from(["a", "b", "init_params"]) | json_values, max_size=4),
    st.dictionaries(st.sampled_from(["a", "b"]), configs | json_values),
)
def test_checking_never_raises(init_params: Any, steps: Any, step_configs: Any) -> None:
    check_workflow({"init_params": init_params, "steps": steps, "step_configs": step_configs})


def test_a_value_that_is_nested_too_deep_is_a_finding() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    for key in ("text", "text_path"):
        [(field, message)] = of_step({"activity": "text_echo", key: deep})
        assert (field, message) == ("step_configs.s", "is nested more than 100 levels deep")


@pytest.mark.parametrize(
    "config",
    [
        {**FROM, "text_path": "slot.date"},
        {**FROM, "text_path": "slot"},
        {**FROM, "text": "since {{ slot.last_success }}"},
        {"activity": "text_template", "template": "{{ slot.previous }} to {{ slot.scheduled_for }}"},
        {"activity": "text_concatenate", "texts_path": ["slot.local_time", "slot.trigger"]},
    ],
)
def test_a_step_may_refer_to_the_slot_of_its_run(config: dict[str, Any]) -> None:
    assert of_step(config) == []


@pytest.mark.parametrize("reference", ["slot.foo", "slot.date.year", "slot[0]", "slot.outputs.text"])
def test_a_reference_to_something_that_a_slot_does_not_have_lists_what_it_has(reference: str) -> None:
    rule = (
        f"reference {reference}: a slot has scheduled_for, date, local_time, previous, last_success and trigger, "
        "which are texts"
    )
    assert of_step({**FROM, "text_path": reference}) == [("text_path", rule)]
    template = {"activity": "text_template", "template": f"{{{{ {reference} }}}}"}
    assert of_step(template) == [("template", rule)]


def test_a_step_named_slot_wins_over_the_slot_of_the_run() -> None:
    configs = {"early": {**FROM, "text_path": "slot.date"}, "slot": ECHO, "late": {**FROM, "text_path": "slot.date"}}
    assert findings({"step_configs": configs, "steps": list(configs)}) == [
        ("step_configs.early.text_path", "reference slot.date: the step 'slot' comes later"),
        ("step_configs.late.text_path", "reference slot.date: a step has inputs and outputs"),
    ]
    configs["early"], configs["late"] = ECHO, {**FROM, "text_path": "slot.outputs.text"}
    assert findings({"step_configs": configs, "steps": list(configs)}) == []
