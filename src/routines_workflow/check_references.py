"""Checks a step's references: they may lead to values that the workflow declares and to earlier steps."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from routines_workflow.activity import Activity
from routines_workflow.bindings import RESERVED_ROOTS, bindings_of, fault_of_secret, fault_of_slot
from routines_workflow.catalogue import UnknownActivityError, fields_of, find_activity
from routines_workflow.references import SECRET_ROOTS, SLOT_ROOT, Reference

ADDED_PARAMS = ("file_paths",)
"""Init params that the endpoints for runs add themselves, so they need not be declared."""

Names: TypeAlias = dict[str, None]
"""Names in order, quick to search."""
_SHOWN_NAMES = 20
"""Maximum number of names listed in a message."""


@dataclass(frozen=True)
class StepScope:
    """A step and the values that its references may use.

    Attributes:
        step: The step whose references are checked.
        positions: The workflow's steps: name to position, from 0.
        configs: The workflow's step_configs.
        init_params: The declared parameters with their defaults.
        parts: Cache of the names of steps' inputs and outputs, shared by all scopes of a workflow.
    """

    step: str
    positions: dict[str, int]
    configs: dict[str, dict[str, Any]]
    init_params: dict[str, Any]
    parts: dict[tuple[str, str], Names | None] = field(default_factory=dict[tuple[str, str], "Names | None"])

    def knows(self, root: str) -> bool:
        """Check whether a reference may begin with this name."""
        return root in (*RESERVED_ROOTS, SLOT_ROOT) or root in self.positions

    def fault_of(self, reference: Reference) -> str | None:
        """Return why the step may not use this reference, or None if it may."""
        if reference.root == "init_params":
            return self._fault_of_param(reference)
        if reference.root in SECRET_ROOTS:
            return fault_of_secret(reference)
        if reference.root == SLOT_ROOT and SLOT_ROOT not in self.positions:
            return fault_of_slot(reference)
        return self._fault_of_order(reference) or self._fault_of_part(reference)

    def _fault_of_param(self, reference: Reference) -> str | None:
        if not reference.members:
            return None
        name = reference.members[0]
        if not isinstance(name, str):
            return f"reference {reference}: init_params is an object, name one of its keys"
        if name not in self.init_params and name not in ADDED_PARAMS:
            return f"reference {reference}: init_params declares no {name!r}"
        return None

    def _fault_of_order(self, reference: Reference) -> str | None:
        root = reference.root
        if root == self.step:
            return f"reference {reference}: a step cannot refer to itself"
        if root not in self.positions:
            return f"reference {reference}: there is no step {root!r}"
        if self.positions[root] > self.positions[self.step]:
            return f"reference {reference}: the step {root!r} comes later"
        return None

    def _fault_of_part(self, reference: Reference) -> str | None:
        """Check that the earlier step has the input or output that is referred to."""
        if not reference.members:
            return None
        part, *rest = reference.members
        if part not in {"inputs", "outputs"}:
            return f"reference {reference}: a step has inputs and outputs"
        if not rest:
            return None
        names = self._names(reference.root, str(part))
        if names is None or rest[0] in names:
            return None
        shown = [*names][:_SHOWN_NAMES] + ["…"] * (len(names) > _SHOWN_NAMES)
        return f"reference {reference}: the {part} of {reference.root!r} are {', '.join(shown) or 'none'}"

    def _names(self, root: str, part: str) -> Names | None:
        """Return the names of a step's inputs or outputs, or None if they are not known."""
        if (root, part) not in self.parts:
            config = self.configs.get(root, {})
            names = _outputs(config) if part == "outputs" else _inputs(config)
            self.parts[root, part] = None if names is None else dict.fromkeys(names)
        return self.parts[root, part]


def _activity(config: dict[str, Any]) -> Activity[Any] | None:
    try:
        return find_activity(config.get("activity"))
    except UnknownActivityError:
        return None


def _outputs(config: dict[str, Any]) -> list[str] | None:
    """Return the names of a step's outputs, or None if they are not known."""
    activity = _activity(config)
    if activity is None or activity.outputs is None:
        return None
    return [field.encode_name for field in fields_of(activity.outputs)]


def _inputs(config: dict[str, Any]) -> list[str] | None:
    """Return the names of a step's inputs, which are the parameters in its config, or None if they are not known."""
    activity = _activity(config)
    if activity is None:
        return None
    bindings = bindings_of(config, activity.raw)
    return [binding.parameter for binding in bindings] + [
        activity.raw[each.parameter] for each in bindings if each.is_raw
    ]
