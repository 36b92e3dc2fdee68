"""Binds the keys of a step's config to the parameters of its activity.

Every key other than `activity`, `retry` and `timeout_seconds` names a parameter: `text` gives a static value, in which
templates are expanded; `text_path` gives a reference, or a list of references that produces a list.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from routines_core.errors import InvalidError
from routines_workflow.references import SECRET_ROOTS, SLOT_NAMES, SLOT_ROOT, Reference, Room, parse_reference
from routines_workflow.templates import MAX_TEXT, expand, templates_in

REFERENCE_SUFFIX = "_path"
"""A key with this suffix contains a reference: `prompt_path` fills the parameter `prompt`."""
RESERVED_KEYS = ("activity", "retry", "timeout_seconds")
"""Keys of a step's config that are not parameters."""
RESERVED_ROOTS = ("init_params", *SECRET_ROOTS)
"""Roots of references that are not steps."""
MAX_DEPTH = 100
"""Maximum nesting of arrays and objects in a step's parameters, inputs and outputs."""


@dataclass(frozen=True)
class Binding:
    """One key of a step's config.

    Attributes:
        key: The key as written.
        parameter: The parameter that it fills.
        value: The static value or the reference.
        is_reference: Whether the value is a reference or a list of references.
        is_raw: Whether the activity fills the placeholders itself, so the text is passed on unchanged.
    """

    key: str
    parameter: str
    value: Any
    is_reference: bool = False
    is_raw: bool = False

    def references(self) -> list[Reference]:
        """List the references in the value, each once.

        Raises:
            InvalidError: A reference is malformed.
        """
        return self._found

    @cached_property
    def _found(self) -> list[Reference]:
        if self.is_reference:
            return list(dict.fromkeys(_references(self.value)))
        found = (reference for template in templates_in(self.value) for reference in template.references)
        return list(dict.fromkeys(found))

    def resolve(self, values: dict[str, Any], room: Room | None = None) -> Any:
        """Return the value of the parameter.

        Args:
            values: What references may name.
            room: How much the inputs of the step may still take; None for no limit.

        Raises:
            InvalidError: A reference is malformed or refers to a missing value, or `room` does not suffice.
        """
        if self.is_raw:
            return self.value
        return _resolve(self.value, values, room) if self.is_reference else expand(self.value, values, room)


def bindings_of(config: dict[str, Any], raw: dict[str, str]) -> list[Binding]:
    """Return a binding for each key of a step's config that fills a parameter.

    Args:
        config: An entry of step_configs.
        raw: The activity's raw parameters, see `Activity.raw`.
    """
    return [_binding(key, value, raw) for key, value in config.items() if key not in RESERVED_KEYS]


def inputs_of(bindings: list[Binding], raw: dict[str, str], values: dict[str, Any]) -> dict[str, Any]:
    """Resolve the parameters of a step by name.

    A placeholder of a raw template is a variable or a reference to a value of the run. Such a value is added to the
    variables under the spelling of its reference. Anything else is left for the activity to report.

    Args:
        bindings: The keys of the step's config.
        raw: The activity's raw parameters, see `Activity.raw`.
        values: `init_params`, each step by name, and the secrets that the step names.

    Raises:
        InvalidError: A reference is malformed or refers to a missing value.
        TooMuchError: The inputs would be larger than MAX_TEXT; they are not made.
    """
    room = Room(MAX_TEXT)
    inputs = {binding.parameter: binding.resolve(values, room) for binding in bindings}
    for binding in bindings:
        if binding.is_raw and isinstance(variables := inputs.get(raw[binding.parameter], {}), dict):
            known = cast("dict[str, Any]", variables)
            wanted = [each for each in binding.references() if _is_of_the_run(each, known, values)]
            if wanted:
                found = {str(each): each.resolve(values, room) for each in wanted}
                inputs[raw[binding.parameter]] = {**known, **found}
    return inputs


def secrets_in(bindings: list[Binding]) -> set[str]:
    """Return the names of the secrets that a step's config refers to.

    Raises:
        InvalidError: A reference is malformed, or does not name exactly one secret.
    """
    names: set[str] = set()
    for binding in bindings:
        for reference in binding.references():
            if reference.root in SECRET_ROOTS:
                fault = fault_of_secret(reference)
                if fault and not binding.is_raw:  # in a raw template it may be a variable with that name
                    raise InvalidError(fault)
                names |= {str(member) for member in reference.members[:1]}
    return names


def fault_of_secret(reference: Reference) -> str | None:
    """Return why a reference does not name a secret, or None if it does."""
    if len(reference.members) == 1 and isinstance(reference.members[0], str):
        return None
    return f"reference {reference}: name one secret, for example {reference.root}.NAME"


def refers_to_slot(bindings: list[Binding]) -> bool:
    """Return whether a step's config refers to the slot of its run, unless the workflow has a step of that name.

    Raises:
        InvalidError: A reference is malformed.
    """
    return any(reference.root == SLOT_ROOT for binding in bindings for reference in binding.references())


def fault_of_slot(reference: Reference) -> str | None:
    """Return why a reference names nothing of a slot, or None if it does."""
    if not reference.members or (len(reference.members) == 1 and reference.members[0] in SLOT_NAMES):
        return None
    return f"reference {reference}: a slot has {', '.join(SLOT_NAMES[:-1])} and {SLOT_NAMES[-1]}, which are texts"


def depth_of(value: Any) -> int:
    """Count the levels of arrays and objects, stopping one beyond the limit."""
    depth = 0
    level: list[Any] = [value]
    while level and depth <= MAX_DEPTH:
        level = [item for each in level for item in _items(each)]
        depth += 1
    return depth


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values())
    return cast("list[Any]", value) if isinstance(value, list) else []


def _is_of_the_run(reference: Reference, variables: dict[str, Any], values: dict[str, Any]) -> bool:
    """Check whether a placeholder of a raw template refers to a value of the run rather than to a variable."""
    if reference.root not in values or reference.root in variables or str(reference) in variables:
        return False
    return reference.root not in SECRET_ROOTS or fault_of_secret(reference) is None


def _binding(key: str, value: Any, raw: dict[str, str]) -> Binding:
    is_reference = key.endswith(REFERENCE_SUFFIX)
    parameter = key.removesuffix(REFERENCE_SUFFIX)
    return Binding(key, parameter, value, is_reference=is_reference, is_raw=not is_reference and parameter in raw)


def _references(value: Any) -> Iterator[Reference]:
    if isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _references(item)
    elif isinstance(value, str):
        yield parse_reference(value)
    else:
        raise InvalidError("a reference must be a text or a list of texts")


def _resolve(value: Any, values: dict[str, Any], room: Room | None) -> Any:
    if isinstance(value, list):
        return [_resolve(item, values, room) for item in cast("list[Any]", value)]
    if not isinstance(value, str):
        raise InvalidError("a reference must be a text or a list of texts")
    return parse_reference(value).resolve(values, room)
