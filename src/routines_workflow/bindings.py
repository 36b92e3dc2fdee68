"""How the config of one step fills the parameters of its activity.

Beside `activity`, `retry` and `timeout_seconds` each key names a parameter: `text` gives it a static value, in which
templates are filled; `text_path` a reference, or a list of references that gives a list.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from routines_core.errors import InvalidError
from routines_workflow.references import Reference, parse_reference
from routines_workflow.templates import expand, templates_in

REFERENCE_SUFFIX = "_path"
"""A key of this ending is a reference: `prompt_path` fills the parameter `prompt`."""
RESERVED_KEYS = ("activity", "retry", "timeout_seconds")
"""Keys of a step's config that are no parameters."""
SECRET_ROOTS = ("secret_params", "environment")
"""Roots of references whose values are looked up, each in the step that names it, and never shown."""
RESERVED_ROOTS = ("init_params", *SECRET_ROOTS)
"""Roots of references that are no steps."""
MAX_DEPTH = 100
"""Levels of arrays and objects in a step's parameters, inputs and outputs."""


@dataclass(frozen=True)
class Binding:
    """One key of a step's config.

    Attributes:
        key: As it is written.
        parameter: What it fills.
        value: The static value or the reference.
        is_reference: Whether it is a reference, or a list of them.
        is_raw: Whether the activity itself fills the placeholders: the text is handed over as it is.
    """

    key: str
    parameter: str
    value: Any
    is_reference: bool = False
    is_raw: bool = False

    def references(self) -> list[Reference]:
        """Every reference in it.

        Raises:
            InvalidError: It is malformed.
        """
        if self.is_reference:
            return list(_references(self.value))
        return [reference for template in templates_in(self.value) for reference in template.references]

    def resolve(self, values: dict[str, Any]) -> Any:
        """The value of the parameter.

        Raises:
            InvalidError: It is malformed, or names what is not there.
        """
        if self.is_raw:
            return self.value
        return _resolve(self.value, values) if self.is_reference else expand(self.value, values)


def bindings_of(config: dict[str, Any], raw: dict[str, str]) -> list[Binding]:
    """The keys of a step's config that fill parameters.

    Args:
        config: An entry of step_configs.
        raw: The parameters whose placeholders the activity fills, as `Activity.raw` has them.
    """
    return [_binding(key, value, raw) for key, value in config.items() if key not in RESERVED_KEYS]


def inputs_of(bindings: list[Binding], raw: dict[str, str], values: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a step by name.

    A placeholder of a raw template is one of its variables, or else a reference to a value of the run, which then
    stands among the variables under its own spelling. What is neither is left for the activity to complain of.

    Args:
        bindings: The keys of the step's config.
        raw: As `Activity.raw` has them.
        values: `init_params`, each step by name, and the secrets that the step names.

    Raises:
        InvalidError: A reference is malformed or names what is not there.
    """
    inputs = {binding.parameter: binding.resolve(values) for binding in bindings}
    for binding in bindings:
        if binding.is_raw and isinstance(variables := inputs.get(raw[binding.parameter], {}), dict):
            known = cast("dict[str, Any]", variables)
            wanted = [each for each in binding.references() if _is_of_the_run(each, known, values)]
            if wanted:
                found = {str(each): each.resolve(values) for each in wanted}
                inputs[raw[binding.parameter]] = {**known, **found}
    return inputs


def secrets_in(bindings: list[Binding]) -> set[str]:
    """The names of the secrets that a step's config refers to.

    Raises:
        InvalidError: A reference is malformed, or does not name one secret.
    """
    names: set[str] = set()
    for binding in bindings:
        for reference in binding.references():
            if reference.root in SECRET_ROOTS:
                fault = fault_of_secret(reference)
                if fault and not binding.is_raw:  # in a raw template it may be a variable of that name
                    raise InvalidError(fault)
                names |= {str(member) for member in reference.members[:1]}
    return names


def fault_of_secret(reference: Reference) -> str | None:
    """Why a reference to a secret is none; None: it is one."""
    if len(reference.members) == 1 and isinstance(reference.members[0], str):
        return None
    return f"reference {reference}: name one secret, as {reference.root}.NAME"


def depth_of(value: Any) -> int:
    """Levels of arrays and objects, counted no further than one beyond the limit."""
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
    """Whether a placeholder of a raw template is a reference to a value of the run, not a variable."""
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


def _resolve(value: Any, values: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_resolve(item, values) for item in cast("list[Any]", value)]
    if not isinstance(value, str):
        raise InvalidError("a reference must be a text or a list of texts")
    return parse_reference(value).resolve(values)
