"""FlowWorkflow: what it does with steps, references and failures."""

from typing import Any

import pytest

from routines_core.db.runs import StepRecord
from routines_engine.flow import FlowWorkflow, StepFailedError

NO_SERVICES: Any = None
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


def flow_of(
    workflow: dict[str, Any], init_params: dict[str, Any], finished: dict[str, Any], write: Any
) -> FlowWorkflow:
    return FlowWorkflow(workflow, init_params, finished, write, workflow_id="flow-c-t--1", services=NO_SERVICES)


class Journal:
    """Keeps every checkpoint."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    async def write(self, record: StepRecord) -> None:
        self.records.append(record)

    def ends(self) -> list[tuple[str, str, Any]]:
        return [(step.name, step.status, step.outputs) for step in self.records if step.status != "running"]


async def test_steps_run_in_order_and_hand_on_their_outputs() -> None:
    journal = Journal()
    await flow_of(WORKFLOW, {"name": "world"}, {}, journal.write).run()
    assert journal.ends() == [
        ("greet", "completed", {"text": "hello world"}),
        ("split", "completed", {"parts": ["hello", "world"], "count": 2}),
        ("join", "completed", {"text": "world, hello"}),
    ]


async def test_a_resumed_run_does_not_repeat_finished_steps() -> None:
    journal = Journal()
    finished = {"greet": {"inputs": {}, "outputs": {"text": "good day"}}}
    await flow_of(WORKFLOW, {"name": "world"}, finished, journal.write).run()
    assert [name for name, _, _ in journal.ends()] == ["split", "join"]
    assert journal.ends()[-1][2] == {"text": "day, good"}


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        (None, "step 'only' failed: 'only' has no entry in step_configs"),
        ({"activity": "text_shout"}, "step 'only' failed: unknown activity 'text_shout'"),
        ({"activity": "text_echo", "text_path": "later.outputs.text"}, "reference later.outputs.text is missing"),
        ({"activity": "text_echo", "text_path": "a..b"}, "not valid at character 2"),
        ({"activity": "text_echo", "txt": "x"}, "`txt`"),
        ({"activity": "text_split", "text": "x", "separator": ""}, "separator: must not be empty"),
        ({"activity": "text_template", "template": "{{ who }}"}, "no variable for the placeholder 'who'"),
        ({"activity": "text_echo", "text": "\0"}, "NUL character"),
    ],
)
async def test_a_step_that_cannot_be_done_fails_with_its_name_and_the_cause(config: Any, cause: str) -> None:
    journal = Journal()
    workflow = {"steps": ["only"], "step_configs": {"only": config} if config else {}}
    with pytest.raises(StepFailedError) as caught:
        await flow_of(workflow, {}, {}, journal.write).run()
    assert "step 'only' failed: " in str(caught.value)
    assert cause in str(caught.value)
    assert journal.records[-1].status == "failed"
