"""A newer program continues the runs that are open in Temporal: it replays their histories and decides as before.

If this fails after a change to TemporalFlow, guard that change with `workflow.patched` and keep the histories. Add a
history for a new case with `python tests/temporal/record_histories.py`.
"""

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from routines_engine.temporal.workflow import RunInTemporal, TemporalFlow

HISTORIES = sorted(Path(__file__).with_name("histories").glob("*.json"))


def test_all_histories_are_found() -> None:
    assert [path.stem for path in HISTORIES] == ["cancelled", "continued", "failed", "long", "quick", "retried"]


async def replay(path: Path) -> None:
    history = WorkflowHistory.from_json(path.stem, path.read_text("utf-8"))  # noqa: ASYNC240
    replayer = Replayer(workflows=[TemporalFlow], workflow_runner=UnsandboxedWorkflowRunner())
    await replayer.replay_workflow(history)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_history_of_the_first_version_is_replayed(path: Path) -> None:
    await replay(path)


async def test_a_program_that_decides_differently_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def without_beginning(self: RunInTemporal) -> str:
        return (await self._run()).status

    monkeypatch.setattr(RunInTemporal, "until_ended", without_beginning)
    [path] = [path for path in HISTORIES if path.stem == "retried"]
    with pytest.raises(Exception, match="Nondeterminism"):
        await replay(path)
