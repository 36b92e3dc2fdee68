"""The catalogue of activities, with parameters and outputs read from their structs.

Installed packages can add activities with entry points of the group `routines.activities`, which name an Activity or a
module that registers activities when imported.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

import msgspec
import structlog
from msgspec.inspect import Field, Metadata, StructType, Type, type_info

from routines_core.errors import InvalidError
from routines_workflow.activities import ACTIVITIES
from routines_workflow.activity import Activity, register
from routines_workflow.type_names import type_name

GROUP = "routines.activities"
"""The group of entry points with which packages add activities."""

log = structlog.get_logger("activities")


class UnknownActivityError(InvalidError):
    """No activity has this name; the message also names packages that could not be loaded."""

    def __init__(self, name: Any, broken: list[str]) -> None:
        reason = f" (not loaded: {'; '.join(broken)})" if broken else ""
        super().__init__(f"unknown activity {name!r}{reason}")


class ParameterTemplate(msgspec.Struct, frozen=True):
    """A parameter of an activity.

    Attributes:
        type: Its JSON type in words, for example `array of string`.
        default: The default; also null if the parameter is required.
    """

    name: str
    type: str
    required: bool
    default: Any
    description: str


class OutputTemplate(msgspec.Struct, frozen=True):
    """An output of an activity."""

    name: str
    type: str
    description: str


class StepTemplate(msgspec.Struct, frozen=True):
    """Describes how a step can use an activity.

    Attributes:
        example_config: An entry of step_configs: required parameters as references, the others with their defaults.
    """

    activity_name: str
    description: str
    category: str
    parameters: list[ParameterTemplate]
    outputs: list[OutputTemplate]
    example_config: dict[str, Any]


def find_activity(name: Any) -> Activity[Any]:
    """Find an activity by name.

    Raises:
        UnknownActivityError: No activity has this name.
    """
    broken = load_entry_points()
    found = ACTIVITIES.get(name) if isinstance(name, str) else None
    if found is None:
        raise UnknownActivityError(name, list(broken))
    return found


def step_templates() -> list[StepTemplate]:
    """List the templates of all activities, sorted by category and name."""
    load_entry_points()
    return sorted(map(step_template, ACTIVITIES.values()), key=lambda each: (each.category, each.activity_name))


def step_template(activity: Activity[Any]) -> StepTemplate:
    """Build the template of an activity."""
    parameters = [_parameter(field) for field in fields_of(activity.parameters)]
    outputs = [
        OutputTemplate(field.name, type_name(field.type), _description(field.type))
        for field in (fields_of(activity.outputs) if activity.outputs else ())
    ]
    return StepTemplate(
        activity.name, activity.description, activity.category, parameters, outputs, _example(activity.name, parameters)
    )


@cache
def fields_of(struct: type[msgspec.Struct]) -> tuple[Field, ...]:
    """Return the fields of a struct, in order."""
    found = type_info(struct)
    return found.fields if isinstance(found, StructType) else ()


@cache
def load_entry_points() -> tuple[str, ...]:
    """Import the activities of all packages, once per process. Returns a message for each entry point that failed."""
    faults = [_load(each) for each in sorted(entry_points(group=GROUP), key=lambda each: each.name)]
    return tuple(fault for fault in faults if fault)


def _load(entry_point: EntryPoint) -> str | None:
    """Import one entry point. Returns why it failed, or None."""
    try:
        found: Any = entry_point.load()
        if isinstance(found, Activity):
            register(cast("Activity[Any]", found))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - importing a package may raise anything
        package = entry_point.dist.name if entry_point.dist else "unknown"
        fault = f"entry point {entry_point.name!r} of {package}: {type(error).__name__}"
        log.warning("activities not loaded", fault=fault, error=str(error))
        return fault
    return None


def _parameter(field: Field) -> ParameterTemplate:
    return ParameterTemplate(
        field.name, type_name(field.type), field.required, default_of(field), _description(field.type)
    )


def default_of(field: Field) -> Any:
    """Return a field's default as a JSON value, or None if it has no default."""
    if field.default is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default)
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default_factory())
    return None


def _description(kind: Type) -> str:
    described: Any = kind if isinstance(kind, Metadata) else None
    return str(described.extra_json_schema.get("description", "")) if described and described.extra_json_schema else ""


def _example(name: str, parameters: list[ParameterTemplate]) -> dict[str, Any]:
    example: dict[str, Any] = {"activity": name}
    for parameter in parameters:
        if parameter.required:
            example[f"{parameter.name}_path"] = f"init_params.{parameter.name}"
        elif parameter.default is not None:
            example[parameter.name] = parameter.default
    return example
