"""Help for tests of FlowWorkflow: fake services, and a journal of checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from routines_core.db.runs import StepRecord
from routines_core.errors import InvalidError
from routines_engine.steps.stepper import Stepper
from routines_workflow.activity import Child, ChildResult, Found

WORKFLOW_ID = "flow-c-t--1"
RUN_ID = "1b671a64-40d5-491e-99b0-da01ff1f3341"


def completed(child: Child) -> ChildResult:
    """Return a completed child that echoes its init_params."""
    return ChildResult(100 + child.index, "completed", {"echo": child.init_params}, None)


@dataclass
class FakeServices:
    """An engine without a database: keeps secrets, files and runs in memory, and records what it was asked."""

    secrets: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    end_of: Callable[[Child], ChildResult] = completed
    slot_values: dict[str, str | None] = field(default_factory=dict)
    asked_secrets: list[str] = field(default_factory=list)
    asked_slot: int = 0
    children: list[Child] = field(default_factory=list)
    asked_runs: list[dict[str, Any]] = field(default_factory=list)

    async def secret(self, name: str) -> str | None:
        self.asked_secrets.append(name)
        return self.secrets.get(name)

    async def slot(self) -> dict[str, str | None]:
        self.asked_slot += 1
        return self.slot_values

    async def run_child(self, child: Child) -> ChildResult:
        self.children.append(child)
        return self.end_of(child)

    async def find_trajectories(self, *, task: str, status: str | None, limit: int) -> list[Found]:
        self.asked_runs.append({"task": task, "status": status, "limit": limit})
        return self.found[:limit]

    async def read_file(self, path: str, max_bytes: int | None = None) -> bytes:
        if path not in self.files:
            raise InvalidError(f"there is no file {path}")
        if max_bytes is not None and len(self.files[path]) > max_bytes:
            raise InvalidError("the file is too large")
        return self.files[path]

    async def save_file(self, name: str, content: bytes) -> str:
        self.files[f"saved/{name}"] = content
        return f"saved/{name}"


class Journal:
    """Keeps every checkpoint."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    async def write(self, record: StepRecord) -> None:
        self.records.append(record)

    def ends(self) -> list[tuple[str, str, Any]]:
        return [(step.name, step.status, step.outputs) for step in self.records if step.status != "running"]

    def finished(self) -> dict[str, Any]:
        """Return the finished steps, as the next claim of the run gets them."""
        ended = [step for step in self.records if step.status == "completed"]
        return {step.name: {"inputs": step.inputs, "outputs": step.outputs} for step in ended}


def flow_of(workflow: dict[str, Any], journal: Journal, **options: Any) -> Stepper:
    """Return a run of the workflow, with its declared init_params unless others are given."""
    init_params = options.pop("init_params", workflow.get("init_params", {}))
    finished = options.pop("finished", {})
    services = options.pop("services", FakeServices())
    ids = {"workflow_id": WORKFLOW_ID, "run_id": RUN_ID}
    return Stepper(
        msgspec.json.encode(workflow), init_params, finished, journal.write, **ids, services=services, **options
    )


async def run_step(config: dict[str, Any], **options: Any) -> Any:
    """Run a workflow of one step. Returns the step's outputs."""
    journal = Journal()
    await flow_of({"steps": ["only"], "step_configs": {"only": config}}, journal, **options).run()
    return journal.records[-1].outputs
