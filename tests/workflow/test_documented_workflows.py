"""docs/use/workflows.md: every workflow in it can be saved, and gives what the page says."""

import json
import re

import pytest

from routines_api.schemas.tasks import TaskCreate
from routines_workflow.checks import check_workflow
from support.flows import FakeServices, Journal, flow_of
from support.service import ROOT

PAGE = (ROOT / "docs" / "use" / "workflows.md").read_text()
BLOCK = r"```json\n(.*?)```\n"
EXAMPLES = re.findall(rf"<!-- workflow -->\n{BLOCK}\n<!-- outputs of (\w+) -->\n{BLOCK}", PAGE, re.DOTALL)


def test_every_block_of_the_page_is_run() -> None:
    assert len(EXAMPLES) * 2 == PAGE.count("```json") >= 8


@pytest.mark.parametrize(("workflow", "step", "outputs"), EXAMPLES)
async def test_a_documented_workflow_produces_the_documented_outputs(workflow: str, step: str, outputs: str) -> None:
    assert check_workflow(json.loads(workflow)) == []
    journal = Journal()
    slot = {"date": "2026-05-04", "previous": "2026-05-03T09:00:00Z", "scheduled_for": "2026-05-04T09:00:00Z"}
    services = FakeServices(secrets={"TOKEN": "very-secret"}, slot_values=slot)
    await flow_of(json.loads(workflow), journal, services=services).run()
    assert journal.finished()[step]["outputs"] == json.loads(outputs)


def test_the_demo_and_the_example_of_the_api_can_be_saved() -> None:
    demo = json.loads((ROOT / "src" / "routines_cli" / "demo.json").read_text())
    for workflow in (demo, TaskCreate.model_config["json_schema_extra"]["examples"][0]["workflow"]):
        assert check_workflow(workflow) == []
