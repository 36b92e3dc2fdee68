"""Runs workflows in the worker's own process, for tests and for activities that exist only in the test's process."""

from typing import Any

import msgspec

from routines_core.db.runs import StepRecord
from routines_core.errors import InvalidError, RoutinesError
from routines_core.json_numbers import loads
from routines_engine.runs.host import RunHost
from routines_engine.sandbox.budget import Budget
from routines_engine.sandbox.child import recorded
from routines_engine.sandbox.messages import Ended, Payload
from routines_engine.steps.stepper import Stepper
from routines_workflow.activity import Child, ChildResult, Found


class InlineServices:
    """The services of a run, called directly: see StepServices."""

    def __init__(self, host: RunHost) -> None:
        self._services = host.record.services
        self.secret = self._services.secret
        self.slot = self._services.slot
        self.read_file = self._services.read_file
        self.save_file = self._services.save_file

    async def run_child(self, child: Child) -> ChildResult:
        """See StepServices."""
        given = msgspec.json.encode(child.init_params).decode()
        child_id = await self._services.start_child(child.task, given, child.index)
        ended = await self._services.child_ended(child_id)
        outputs = await self._services.child_outputs(child_id)
        return ChildResult(ended.trajectory_id, ended.status, _decoded(outputs), ended.error)

    async def find_trajectories(self, *, task: str, status: str | None, limit: int) -> list[Found]:
        """See StepServices."""
        found = await self._services.find_trajectories(task, status, limit)
        return [
            Found(run.trajectory_id, run.status, _decoded(run.init_params), _decoded(run.outputs or "{}"))
            for run in found
        ]


class InlineExecutor:
    """Runs workflows in this process, without containment."""

    async def open(self) -> None:
        """Do nothing: there is nothing to start."""

    async def close(self) -> None:
        """Do nothing: there is nothing to end."""

    async def run(self, collection_id: int, handler: RunHost, payload: Payload) -> Ended:
        """Run a workflow and return how it ended: see ProcessPool."""
        del collection_id
        run = handler.record.services.claimed.run.id
        budget = Budget(payload)

        async def checkpoint(record: StepRecord) -> None:
            step = recorded(record)
            budget.take(step)
            if step.status != "completed":
                await handler.begun(step)
                return
            handler.completed(step)

        stepper = Stepper(
            payload.workflow,
            _decoded(payload.init_params),
            _decoded(payload.finished_steps),
            checkpoint,
            workflow_id=payload.workflow_id,
            run_id=payload.run_id,
            services=InlineServices(handler),
            attempts=payload.attempts,
            allow_private=payload.allow_private,
            traceparent=payload.traceparent,
        )
        try:
            await stepper.run()
        except (RoutinesError, InvalidError) as error:
            return Ended(run, str(error))
        return Ended(run)


def _decoded(text: str | bytes) -> dict[str, Any]:
    return loads(text)
