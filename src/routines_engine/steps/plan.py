"""What of a run's steps depends on the stored workflow alone, worked out once for all runs of a workflow. Pure code."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec

from routines_core.errors import InvalidError
from routines_workflow.activity import Activity
from routines_workflow.bindings import MAX_DEPTH, Binding, bindings_of, depth_of, refers_to_slot, secrets_in
from routines_workflow.catalogue import find_activity
from routines_workflow.references import SLOT_ROOT
from routines_workflow.step_limits import StepLimits, step_limits

CACHED_BYTES = 2 * 1024 * 1024
"""Maximum size of all cached workflows as JSON. Decoded and planned, they take at most about twenty times as much."""


class Workflow(msgspec.Struct, frozen=True):
    """A workflow as it is stored; a missing part is empty."""

    steps: list[str] = []
    step_configs: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class StepPlan:
    """What is known of a step before its run.

    Attributes:
        secrets: The names of the secrets that its config refers to.
        needs_slot: Whether it refers to the slot of its run.
        limits: How often it is tried, and how long one attempt may take.
    """

    activity: Activity[Any]
    bindings: list[Binding]
    secrets: frozenset[str]
    needs_slot: bool
    limits: StepLimits


class WorkflowPlan:
    """A parsed workflow and the plans of its steps, each made when it is first asked for.

    Attributes:
        steps: The names of the steps, in order.
        step_configs: By name, as stored.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.steps = workflow.steps
        self.step_configs = workflow.step_configs
        self._plans: dict[str, StepPlan] = {}

    def of(self, name: str) -> StepPlan:
        """Return the plan of a step.

        Raises:
            RoutinesError: Its config is missing or wrong.
        """
        plan = self._plans.get(name)
        if plan is None:
            plan = self._plans[name] = _plan(name, self.step_configs.get(name), has_slot_step=SLOT_ROOT in self.steps)
        return plan


def plan_workflow(stored: bytes) -> WorkflowPlan:
    """Parse a stored workflow.

    Raises:
        InvalidError: It is malformed.
    """
    try:
        return WorkflowPlan(msgspec.json.decode(stored, type=Workflow))
    except msgspec.DecodeError as error:
        raise InvalidError(f"workflow is not valid: {error}") from None


class PlanCache:
    """The plans of the workflows that a process used last."""

    def __init__(self) -> None:
        self._plans: OrderedDict[bytes, WorkflowPlan] = OrderedDict()
        self._bytes = 0

    def of(self, stored: bytes) -> WorkflowPlan:
        """Return the plan of a stored workflow; raises as `plan_workflow` does."""
        plan = self._plans.get(stored)
        if plan is None:
            plan = self._plans[stored] = plan_workflow(stored)
            self._bytes += len(stored)
            while self._bytes > CACHED_BYTES:
                self._bytes -= len(self._plans.popitem(last=False)[0])
        else:
            self._plans.move_to_end(stored)
        return plan


def _plan(name: str, config: dict[str, Any] | None, *, has_slot_step: bool) -> StepPlan:
    if config is None:
        raise InvalidError(f"{name!r} has no entry in step_configs")
    if depth_of(config) > MAX_DEPTH:
        raise InvalidError(f"its config is nested more than {MAX_DEPTH} levels deep")
    limits = step_limits(config)
    activity = find_activity(config.get("activity"))
    bindings = bindings_of(config, activity.raw)
    needs_slot = not has_slot_step and refers_to_slot(bindings)
    return StepPlan(activity, bindings, frozenset(secrets_in(bindings)), needs_slot, limits)
