"""Which activities there are, and what each takes: read from its structs."""

from typing import Any

import msgspec
from msgspec.inspect import Field, StructType, type_info

from routines_workflow.activities import ACTIVITIES
from routines_workflow.activity import Activity


class ParameterTemplate(msgspec.Struct, frozen=True):
    """A parameter of an activity."""

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
    """What a step of an activity may be."""

    activity_name: str
    description: str
    category: str
    parameters: list[ParameterTemplate]
    outputs: list[OutputTemplate]
    example_config: dict[str, Any]


def step_templates() -> list[StepTemplate]:
    """What there is to build steps of, by name."""
    return [_template(ACTIVITIES[name]) for name in sorted(ACTIVITIES)]


def _template(activity: Activity[Any]) -> StepTemplate:
    found = type_info(activity.parameters)
    parameters = [_parameter(field) for field in (found.fields if isinstance(found, StructType) else ())]
    example = {"activity": activity.name} | {
        f"{parameter.name}_path": f"init_params.{parameter.name}" for parameter in parameters if parameter.required
    }
    return StepTemplate(activity.name, activity.description, "text", parameters, [], example)


def _parameter(field: Field) -> ParameterTemplate:
    default = None if field.default is msgspec.NODEFAULT else field.default
    return ParameterTemplate(
        field.name, type(field.type).__name__.removesuffix("Type").lower(), field.required, default, ""
    )
