"""Activities that start other runs or read the results of earlier ones."""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from routines_core.errors import InvalidError, RoutinesError
from routines_workflow.activity import Child, ChildResult, StepContext, activity
from routines_workflow.references import GrammarError, MissingReferenceError, Reference, parse_reference
from routines_workflow.sizes import refuse_larger, size_of

MOST_ITEMS = 10_000
"""Maximum number of runs that one step may start."""
MAX_CHILDREN_BYTES = 16 * 1024 * 1024
"""Maximum size of the init params of all these runs together, as JSON."""
FinalStatus = Literal["completed", "failed", "cancelled", "archived"]


class ChildFailedError(RoutinesError):
    """A child run did not complete, and continue_on_error is off."""


class Emission(msgspec.Struct, forbid_unknown_fields=True):
    """A task and the items to run it for."""

    items: Annotated[list[Any], Meta(description="The items; each starts one run.", max_length=MOST_ITEMS)]
    task: Annotated[str, Meta(description="The task to run, in the same collection.", min_length=1)]
    item_param: Annotated[str, Meta(description="The init param that receives the item.", min_length=1)] = "item"
    init_params: Annotated[dict[str, Any], Meta(description="Further init params, the same for every run.")] = {}
    max_concurrency: Annotated[int, Meta(description="Maximum number of runs at the same time.", ge=1, le=100)] = 10
    continue_on_error: Annotated[
        bool,
        Meta(description="Continue if a run does not complete; otherwise no more runs are started and the step fails."),
    ] = False


class Emitted(msgspec.Struct):
    """The results of the runs, in the order of the items."""

    results: Annotated[
        list[dict[str, Any] | None],
        Meta(description="Outputs of each run's steps by name; null if the run did not complete."),
    ]
    trajectory_ids: Annotated[list[int], Meta(description="Ids of the runs.")]
    errors: Annotated[list[str | None], Meta(description="Why each run did not complete; null if it did.")]
    completed: Annotated[int, Meta(description="How many runs completed.")]
    failed: Annotated[int, Meta(description="How many runs did not complete.")]


class Extraction(msgspec.Struct, forbid_unknown_fields=True):
    """The runs to read and the values to extract."""

    task: Annotated[str, Meta(description="A task of the same collection.", min_length=1)]
    path: Annotated[
        str | None,
        Meta(
            description="A reference within each run, for example sum.outputs.text or init_params.topic; "
            "null: all outputs."
        ),
    ] = None
    status: Annotated[FinalStatus | None, Meta(description="Only runs with this status; null: any.")] = "completed"
    limit: Annotated[int, Meta(description="Maximum number of runs to read, newest first.", ge=1, le=100)] = 10


class Extracted(msgspec.Struct):
    """The extracted values, newest run first."""

    values: Annotated[list[Any], Meta(description="The value at the path, of each run that has one.")]
    trajectory_ids: Annotated[list[int], Meta(description="Ids of the runs of those values.")]
    missing: Annotated[list[int], Meta(description="Ids of the runs without a value at the path.")]
    count: Annotated[int, Meta(description="How many values there are.")]


@activity("Runs a task for each item of a list and waits for all runs.", Emission, category="runs")
async def list_emit_await(given: Emission, context: StepContext) -> Emitted:
    """Run a task once per item and collect the results.

    If a worker repeats the step, it finds the runs that the step started before. A retry of the step restarts those
    that did not complete.

    Raises:
        ChildFailedError: A run did not complete, and continue_on_error is off.
        InvalidError: The task does not exist or does not declare all keys; or the params of all runs, or their results,
            are too large together.
    """
    _refuse_large_params(given)
    capacity = asyncio.Semaphore(given.max_concurrency)
    results_bytes = 0

    async def run(index: int, item: Any) -> ChildResult:
        nonlocal results_bytes
        await capacity.acquire()
        child = Child(given.task, {**given.init_params, given.item_param: item}, index)
        result = await context.services.run_child(child)
        if result.status != "completed" and not given.continue_on_error:
            raise ChildFailedError(f"the run {result.trajectory_id} of item {index}: {_error_of(result)}")
        if result.status == "completed":
            results_bytes += size_of(result.outputs)
            refuse_larger(results_bytes, "the results of the runs")
        capacity.release()  # not after a failure: no further run may start then
        return result

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(index, item)) for index, item in enumerate(given.items)]
    except* Exception as errors:  # noqa: BLE001 - the first error is the cause
        raise _first(errors) from None
    return _emitted([task.result() for task in tasks])


def _refuse_large_params(given: Emission) -> None:
    size = size_of(given.items) + len(given.items) * size_of(given.init_params)
    if size > MAX_CHILDREN_BYTES:
        raise InvalidError(
            f"init_params: for {len(given.items)} runs they would take at least {size} bytes together, more than the "
            f"limit of 16 MiB ({MAX_CHILDREN_BYTES} bytes): use fewer items, or keep large data in a file"
        )


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


@activity("Reads values from earlier runs of a task.", Extraction, category="runs")
async def extract_from_trajectories(given: Extraction, context: StepContext) -> Extracted:
    """Extract a value from each run, newest run first.

    Raises:
        InvalidError: The path is not a reference, the task does not exist, or the values are too large together.
    """
    reference = _parsed(given.path) if given.path is not None else None
    found = await context.services.find_trajectories(task=given.task, status=given.status, limit=given.limit)
    values: list[Any] = []
    with_value: list[int] = []
    size = 0
    for run in found:
        steps = {name: {"outputs": outputs} for name, outputs in run.outputs.items()}
        try:
            value = run.outputs if reference is None else reference.resolve({**steps, "init_params": run.init_params})
        except MissingReferenceError:
            continue
        size += size_of(value)
        refuse_larger(size, "the values")
        values.append(value)
        with_value.append(run.trajectory_id)
    missing = [run.trajectory_id for run in found if run.trajectory_id not in with_value]
    return Extracted(values, with_value, missing, len(values))


def _parsed(path: str) -> Reference:
    try:
        return parse_reference(path)
    except GrammarError as error:
        # Not quoted: a path given by reference may be a secret, and masking does not find parts of secrets.
        raise InvalidError(f"path: not valid at character {error.position + 1}: expected {error.expected}") from None
