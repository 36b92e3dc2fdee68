"""Activities on other runs: they start them, or read what came of them."""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from routines_core.errors import RoutinesError
from routines_workflow.activity import Child, ChildResult, StepContext, activity
from routines_workflow.references import MissingReferenceError, parse_reference

MOST_ITEMS = 10_000
"""Runs that one step may start."""
FinalStatus = Literal["completed", "failed", "cancelled", "archived"]


class ChildFailedError(RoutinesError):
    """A child did not complete, and its step was not told to go on."""


class Emission(msgspec.Struct, forbid_unknown_fields=True):
    """A task and the items that it is run for."""

    items: Annotated[list[Any], Meta(description="One run is started for each.", max_length=MOST_ITEMS)]
    task: Annotated[str, Meta(description="The task to run, in the same collection.", min_length=1)]
    item_param: Annotated[str, Meta(description="The init param that gets the item.", min_length=1)] = "item"
    init_params: Annotated[dict[str, Any], Meta(description="More init params, the same for each run.")] = {}
    max_concurrency: Annotated[int, Meta(description="How many runs may be under way at once.", ge=1, le=100)] = 10
    continue_on_error: Annotated[
        bool, Meta(description="Go on where a run does not complete; otherwise no more are started and the step fails.")
    ] = False


class Emitted(msgspec.Struct):
    """What came of the runs, in the order of the items."""

    results: Annotated[
        list[dict[str, Any] | None], Meta(description="Outputs of each run's steps by name; null: it did not complete.")
    ]
    trajectory_ids: Annotated[list[int], Meta(description="The runs.")]
    errors: Annotated[list[str | None], Meta(description="Why each run did not complete; null: it did.")]
    completed: Annotated[int, Meta(description="How many runs completed.")]
    failed: Annotated[int, Meta(description="How many did not.")]


class Extraction(msgspec.Struct, forbid_unknown_fields=True):
    """Which runs, and what of them."""

    task: Annotated[str, Meta(description="A task of the same collection.", min_length=1)]
    path: Annotated[
        str | None,
        Meta(description="A reference within each run, as sum.outputs.text or init_params.topic; null: all outputs."),
    ] = None
    status: Annotated[FinalStatus | None, Meta(description="Only runs that ended so; null: any.")] = "completed"
    limit: Annotated[int, Meta(description="The most runs, newest first.", ge=1, le=100)] = 10


class Extracted(msgspec.Struct):
    """What was found, newest run first."""

    values: Annotated[list[Any], Meta(description="What the path names in each run that has it.")]
    trajectory_ids: Annotated[list[int], Meta(description="The runs of those values.")]
    missing: Annotated[list[int], Meta(description="Runs that have nothing at the path.")]
    count: Annotated[int, Meta(description="How many values there are.")]


@activity("Runs a task for each item of a list and waits for all runs.", Emission, category="runs")
async def list_emit_await(given: Emission, context: StepContext) -> Emitted:
    """What came of the runs. Done again, it finds the runs that it started before.

    A retry of the step starts anew those that did not complete.

    Raises:
        ChildFailedError: A run did not complete, and continue_on_error is off.
        InvalidError: There is no such task, or it declares not all keys.
    """
    places = asyncio.Semaphore(given.max_concurrency)

    async def run(index: int, item: Any) -> ChildResult:
        await places.acquire()
        child = Child(given.task, {**given.init_params, given.item_param: item}, index)
        result = await context.services.run_child(child)
        if result.status != "completed" and not given.continue_on_error:
            raise ChildFailedError(f"the run {result.trajectory_id} of item {index}: {_error_of(result)}")
        places.release()  # not where it failed: no other run may start in its place
        return result

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(index, item)) for index, item in enumerate(given.items)]
    except* Exception as errors:  # noqa: BLE001 - the one that was raised first says it
        raise _first(errors) from None
    return _emitted([task.result() for task in tasks])


def _emitted(results: list[ChildResult]) -> Emitted:
    errors = [_error_of(result) for result in results]
    return Emitted(
        [result.outputs if result.status == "completed" else None for result in results],
        [result.trajectory_id for result in results],
        errors,
        errors.count(None),
        len(errors) - errors.count(None),
    )


def _error_of(result: ChildResult) -> str | None:
    return None if result.status == "completed" else result.error or result.status


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


@activity("Reads values out of earlier runs of a task.", Extraction, category="runs")
async def extract_from_trajectories(given: Extraction, context: StepContext) -> Extracted:
    """The values, newest run first.

    Raises:
        InvalidError: The path is no reference, or there is no such task.
    """
    reference = parse_reference(given.path) if given.path is not None else None
    found = await context.services.find_trajectories(task=given.task, status=given.status, limit=given.limit)
    values: list[Any] = []
    having: list[int] = []
    for run in found:
        steps = {name: {"outputs": outputs} for name, outputs in run.outputs.items()}
        try:
            value = run.outputs if reference is None else reference.resolve({**steps, "init_params": run.init_params})
        except MissingReferenceError:
            continue
        values.append(value)
        having.append(run.trajectory_id)
    missing = [run.trajectory_id for run in found if run.trajectory_id not in having]
    return Extracted(values, having, missing, len(values))
