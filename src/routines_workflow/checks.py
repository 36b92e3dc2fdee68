"""What can be known of a workflow before it runs: every rule that it breaks."""

from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from typing import Any, cast

from routines_core.errors import Fault, InvalidError
from routines_workflow.activity import ACTIVITIES
from routines_workflow.bindings import MAX_DEPTH, RESERVED_ROOTS, depth_of
from routines_workflow.catalogue import find_activity
from routines_workflow.check_parameters import check_parameters
from routines_workflow.check_references import Surroundings
from routines_workflow.retry import patience_of

MOST_FINDINGS = 100
"""More do not help a person, and a workflow of many thousand faults must not hold up the API."""
KEYS = ("init_params", "step_configs", "steps")
"""The parts of a workflow."""
RESERVED_NAMES = RESERVED_ROOTS
"""Names that no step may have: references begin with them."""

Config = dict[str, Any]


def check_workflow(workflow: Config) -> list[Fault]:
    """The rules that the workflow breaks, each with its path, at most MOST_FINDINGS; none: it can be saved."""
    return list(islice(_malformed(workflow), MOST_FINDINGS)) or list(islice(_faults(workflow), MOST_FINDINGS))


def _malformed(workflow: Config) -> Iterator[Fault]:
    """What is not even the right kind of JSON: nothing else can be said then."""
    for key in workflow:
        if key not in KEYS:
            yield Fault(f"workflow.{key}", f"unknown field: a workflow has {', '.join(KEYS)}")
    for key, kind, word in (
        ("init_params", dict, "object"),
        ("step_configs", dict, "object"),
        ("steps", list, "array"),
    ):
        if not isinstance(workflow.get(key, kind()), kind):
            yield Fault(f"workflow.{key}", f"must be an {word}")
    yield from _malformed_items(workflow.get("steps"), workflow.get("step_configs"))


def _malformed_items(steps: Any, configs: Any) -> Iterator[Fault]:
    for index, name in enumerate(cast("list[Any]", steps) if isinstance(steps, list) else ()):
        if not isinstance(name, str) or not name:
            yield Fault(f"workflow.steps.{index}", "must be the name of a step")
    for name, config in cast("Config", configs).items() if isinstance(configs, dict) else ():
        if not isinstance(config, dict):
            yield Fault(f"workflow.step_configs.{name}", "must be an object")


def _faults(workflow: Config) -> Iterator[Fault]:
    steps: list[str] = workflow.get("steps", [])
    configs: dict[str, Config] = workflow.get("step_configs", {})
    positions = {name: index for index, name in reversed(list(enumerate(steps)))}
    yield from _misnamed(steps, positions, configs)
    for name, config in configs.items():
        if name not in positions:
            yield Fault(f"workflow.step_configs.{name}", "is not in steps")
        else:
            surroundings = Surroundings(name, positions, configs, workflow.get("init_params", {}))
            yield from _step(f"workflow.step_configs.{name}", config, surroundings)


def _misnamed(steps: list[str], positions: dict[str, int], configs: dict[str, Config]) -> Iterator[Fault]:
    for index, name in enumerate(steps):
        place = f"workflow.steps.{index}"
        if name in RESERVED_NAMES:
            yield Fault(place, f"no step may be named {name}: references begin with it")
        if positions[name] < index:
            yield Fault(place, f"the step {name!r} is there already")
        elif name not in configs:
            yield Fault(place, f"the step {name!r} has no entry in step_configs")


def _step(place: str, config: Config, surroundings: Surroundings) -> Iterator[Fault]:
    if depth_of(config) > MAX_DEPTH:
        yield Fault(place, f"is nested more than {MAX_DEPTH} levels deep")
        return
    try:
        patience_of(config)
    except InvalidError as error:
        yield Fault(f"{place}.{error.field}", str(error).removeprefix(f"{error.field}: "))
    if "activity" not in config:
        yield Fault(f"{place}.activity", "is required")
        return
    try:
        activity = find_activity(config["activity"])
    except InvalidError as error:
        yield Fault(f"{place}.activity", f"{error}{_near(config['activity'])}")
        return
    yield from check_parameters(place, config, activity, surroundings)


def _near(name: Any) -> str:
    near = get_close_matches(name, ACTIVITIES, n=1) if isinstance(name, str) else []
    return f": did you mean {near[0]!r}?" if near else ""
