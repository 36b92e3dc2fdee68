"""Checks the parameters that a step's config gives its activity."""

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from routines_core.errors import Fault, InvalidError
from routines_workflow.activity import Activity
from routines_workflow.bindings import Binding, bindings_of
from routines_workflow.catalogue import fields_of
from routines_workflow.check_references import StepScope
from routines_workflow.references import Reference
from routines_workflow.type_names import rule_of

Config = dict[str, Any]


def check_parameters(path: str, config: Config, activity: Activity[Any], scope: StepScope) -> Iterator[Fault]:
    """Yield every fault of a step's parameters; `path` is the path of its config."""
    bindings = bindings_of(config, activity.raw)
    yield from _missing(path, bindings, activity)
    for binding in bindings:
        yield from (Fault(f"{path}.{binding.key}", message) for message in _faults(binding, activity))
        wrong = _raw_wrong(binding, bindings, activity, scope) if binding.is_raw else _wrong(binding, scope)
        yield from (Fault(f"{path}.{binding.key}", message) for message in wrong)


def _missing(path: str, bindings: list[Binding], activity: Activity[Any]) -> Iterator[Fault]:
    given = [binding.parameter for binding in bindings]
    for field in fields_of(activity.parameters):
        if field.required and field.encode_name not in given:
            yield Fault(f"{path}.{field.encode_name}", f"is required by {activity.name}")
        if given.count(field.encode_name) > 1:
            yield Fault(f"{path}.{field.encode_name}", "is given twice, as a value and as a reference")


def _faults(binding: Binding, activity: Activity[Any]) -> Iterator[str]:
    """Yield the faults of the binding that do not depend on other steps."""
    names = [field.encode_name for field in fields_of(activity.parameters)]
    if binding.parameter not in names:
        yield f"{activity.name} has no parameter {binding.parameter!r}: it has {', '.join(names) or 'none'}"
    else:
        try:
            binding.references()
        except InvalidError as error:
            yield str(error)
        else:
            yield from _mistyped(binding, activity)


def _mistyped(binding: Binding, activity: Activity[Any]) -> Iterator[str]:
    """Check a static value against the parameter's type; a value with a placeholder is checked when the step runs."""
    if binding.is_reference or _is_open(binding):
        return
    hints = msgspec.structs.fields(activity.parameters)
    kind = next(field.type for field in hints if field.encode_name == binding.parameter)
    try:
        msgspec.convert(binding.value, kind)
    except msgspec.ValidationError as error:
        yield rule_of(str(error), kind)


def _is_open(binding: Binding) -> bool:
    """Check whether the parameter's value is known only when the step runs."""
    return not binding.is_raw and bool(binding.references())


def _wrong(binding: Binding, scope: StepScope) -> Iterator[str]:
    """Yield a fault for each reference that the step may not use."""
    yield from filter(None, map(scope.fault_of, _references(binding)))


def _raw_wrong(binding: Binding, bindings: list[Binding], activity: Activity[Any], scope: StepScope) -> Iterator[str]:
    """Yield a fault for each placeholder that is neither a variable nor a reference that the step may use."""
    variables = _variables(activity.raw[binding.parameter], bindings)
    if variables is None:
        return  # any placeholder may be a variable
    for reference in _references(binding):
        if reference.root in variables or str(reference) in variables:
            continue
        if not scope.knows(reference.root):
            yield f"no variable for the placeholder {str(reference)!r}"
        elif fault := scope.fault_of(reference):
            yield fault


def _references(binding: Binding) -> list[Reference]:
    try:
        return binding.references()
    except InvalidError:
        return []  # reported already


def _variables(parameter: str, bindings: list[Binding]) -> Config | None:
    """Return the static variables of a template, or None if they are known only when the step runs."""
    given = [binding for binding in bindings if binding.parameter == parameter]
    if not given:
        return {}
    is_known = isinstance(given[0].value, dict) and not given[0].is_reference
    return cast("Config", given[0].value) if is_known else None
