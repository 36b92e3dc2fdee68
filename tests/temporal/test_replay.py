"""A newer program continues the runs that are open in Temporal: it replays their histories and decides as before.

If this fails after a change to FlowWorkflow, guard that change with `workflow.patched` and keep the histories. Add a
history for a new case with `python tests/temporal/record_histories.py`.
"""

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from routines_engine.steps.flow import FlowWorkflow, StepFailedError, Verdict
from routines_engine.temporal.workflow import TemporalFlow

HISTORIES = sorted(Path(__file__).with_name("histories").glob("*.json"))


def test_all_histories_are_found() -> None:
    assert [path.stem for path in HISTORIES] == ["cancelled", "continued", "failed", "retried"]


async def replay(path: Path) -> None:
    history = WorkflowHistory.from_json(path.stem, path.read_text("utf-8"))  # noqa: ASYNC240
    await Replayer(workflows=[TemporalFlow]).replay_workflow(history)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_history_of_the_first_version_is_replayed(path: Path) -> None:
    await replay(path)


async def test_a_program_that_decides_differently_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def backwards(self: FlowWorkflow) -> None:
        for position, name in reversed(list(enumerate(self._steps))):
            verdict: Verdict = await self._runner.try_step(position, name, 1)
            if verdict.status == "failed":
                raise StepFailedError(name, "")

    monkeypatch.setattr(FlowWorkflow, "run", backwards)
    [path] = [path for path in HISTORIES if path.stem == "retried"]
    with pytest.raises(Exception, match="Nondeterminism"):
        await replay(path)
