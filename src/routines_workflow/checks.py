"""Checks a workflow before it runs and lists every rule that it breaks."""

from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from typing import Any, cast

from routines_core.errors import Fault, InvalidError
from routines_workflow.activity import ACTIVITIES
from routines_workflow.bindings import MAX_DEPTH, RESERVED_ROOTS, depth_of
from routines_workflow.catalogue import find_activity
from routines_workflow.check_parameters import check_parameters
from routines_workflow.check_references import Names, StepScope
from routines_workflow.step_limits import step_limits

MOST_FINDINGS = 100
"""More would not help anyone, and a workflow with thousands of faults must not keep the API busy."""
LONGEST_TEXT = 500
"""Maximum length of a finding's field, and of its message, in characters."""
LONGEST_GUESSED = 100
"""Longest unknown activity name for which a similar one is suggested, in characters."""
KEYS = ("init_params", "step_configs", "steps")
"""The keys of a workflow."""
RESERVED_NAMES = RESERVED_ROOTS
"""Names that no step may have, since references begin with them."""

Config = dict[str, Any]


def check_workflow(workflow: Config) -> list[Fault]:
    """List the rules that the workflow breaks, at most MOST_FINDINGS; an empty list means that it can be saved."""
    found = list(islice(_malformed(workflow), MOST_FINDINGS)) or list(islice(_faults(workflow), MOST_FINDINGS))
    return [Fault(_cut(fault.field), _cut(fault.message)) for fault in found]


def _cut(text: str) -> str:
    """Cut a long text: the names in it come from the workflow, and each of a hundred findings may repeat them."""
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def _malformed(workflow: Config) -> Iterator[Fault]:
    """Yield values of the wrong JSON type; the other checks need the right types."""
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
    parts: dict[tuple[str, str], Names | None] = {}
    for name, config in configs.items():
        if name not in positions:
            yield Fault(f"workflow.step_configs.{name}", "is not in steps")
        else:
            scope = StepScope(name, positions, configs, workflow.get("init_params", {}), parts)
            yield from _step(f"workflow.step_configs.{name}", config, scope)


def _misnamed(steps: list[str], positions: dict[str, int], configs: dict[str, Config]) -> Iterator[Fault]:
    for index, name in enumerate(steps):
        path = f"workflow.steps.{index}"
        if name in RESERVED_NAMES:
            yield Fault(path, f"no step may be named {name}: references begin with it")
        if positions[name] < index:
            yield Fault(path, f"the step {name!r} is listed already")
        elif name not in configs:
            yield Fault(path, f"the step {name!r} has no entry in step_configs")


def _step(path: str, config: Config, scope: StepScope) -> Iterator[Fault]:
    if depth_of(config) > MAX_DEPTH:
        yield Fault(path, f"is nested more than {MAX_DEPTH} levels deep")
        return
    try:
        step_limits(config)
    except InvalidError as error:
        yield Fault(f"{path}.{error.field}", str(error).removeprefix(f"{error.field}: "))
    if "activity" not in config:
        yield Fault(f"{path}.activity", "is required")
        return
    try:
        activity = find_activity(config["activity"])
    except InvalidError as error:
        yield Fault(f"{path}.activity", f"{error}{_near(config['activity'])}")
        return
    yield from check_parameters(path, config, activity, scope)


def _near(name: Any) -> str:
    near = get_close_matches(name, ACTIVITIES, n=1) if isinstance(name, str) and len(name) <= LONGEST_GUESSED else []
    return f": did you mean {near[0]!r}?" if near else ""
