"""What goes out: msgspec structs in the shapes of the HTTP contract."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_core.db.ledger import Why
from routines_core.db.routines import Cadence, Routine
from routines_core.db.tasks import Task
from routines_core.db.trajectories import RunEvent, RunOfKey, Stats, Trajectory
from routines_core.mask import MASK
from routines_workflow.catalogue import StepTemplate

STATUSES = ("pending", "running", "completed", "failed", "cancelled", "archived")
Time = Annotated[datetime, Meta(description="ISO 8601 in UTC.", examples=["2026-05-04T09:00:00Z"])]


class RoutineRead(msgspec.Struct):
    """A routine, without what its secrets are."""

    id: Annotated[int, Meta(description="Stays the same when the routine is renamed.", examples=[42])]
    name: Annotated[str, Meta(description="Unique in its task.", examples=["morning-regression"])]
    task_name: Annotated[str, Meta(description="What it runs.", examples=["nl-to-sql-regression"])]
    collection_name: Annotated[str, Meta(description="Where the task lives.", examples=["my-org"])]
    cadence: Annotated[Cadence, Meta(description="When its slots fall, in UTC.")]
    init_params_overrides: Annotated[dict[str, Any], Meta(description="Merged over the task's init_params.")]
    secret_params: Annotated[dict[str, str], Meta(description="Names of secrets; each reads as ********.")]
    webhook_url: Annotated[str | None, Meta(description="Told when a run has ended; null: nobody is.")]
    webhook_secret: Annotated[str | None, Meta(description="Reads as ********; null: webhooks are not signed.")]
    paused: Annotated[bool, Meta(description="Whether the schedule is stopped.")]
    last_run_at: Annotated[datetime | None, Meta(description="When it last started a run; null: never.")]
    next_run_at: Annotated[datetime | None, Meta(description="Its next slot; null: paused or manual.")]
    overlap_policy: Annotated[str, Meta(description="skip: no slot starts while a run is active.", examples=["skip"])]
    catchup_window_seconds: Annotated[
        int | msgspec.UnsetType,
        Meta(description="How old a slot may be to still fire after an outage; absent: the default of its cadence."),
    ] = msgspec.UNSET
    paused_reason: Annotated[
        str | msgspec.UnsetType,
        Meta(description="Why the scheduler paused it, after three fires that failed to start; absent: it did not."),
    ] = msgspec.UNSET


class RoutineDetail(RoutineRead):
    """One routine, with a sentence for each override key that its task no longer declares."""

    warnings: Annotated[list[str], Meta(description="Overrides that the task no longer declares.")] = []


class TaskRead(msgspec.Struct):
    """A task."""

    name: Annotated[str, Meta(description="Unique in its collection.", examples=["greet"])]
    description: Annotated[str, Meta(description="Free text for people.")]
    workflow: Annotated[dict[str, Any], Meta(description="{init_params, step_configs, steps}, as it was sent.")]
    created_at: Annotated[Time, Meta(description="When it was made.")]
    updated_at: Annotated[Time, Meta(description="Its last change.")]


class InitParam(msgspec.Struct):
    """A parameter that a routine may override."""

    name: Annotated[str, Meta(description="The key.", examples=["model"])]
    default: Annotated[Any, Meta(description="Its value where no routine overrides it.", examples=["gpt-4o"])]
    type_hint: Annotated[str, Meta(description="The JSON type of the default; of null, string.", examples=["string"])]


class InitParamsSchema(msgspec.Struct):
    """The parameters of a task, in the order of its workflow."""

    keys: Annotated[list[InitParam], Meta(description="One for each parameter.")]


class WorkflowResponse(msgspec.Struct):
    """A run that was started."""

    workflow_id: Annotated[str, Meta(description="What to poll with.", examples=["flow-my-org-greet--9876"])]
    trajectory_id: Annotated[int, Meta(description="The run.", examples=[9876])]
    run_id: Annotated[str, Meta(description="The run, as a UUID.")]
    message: Annotated[str, Meta(description="A sentence for people.")]
    result: Annotated[
        dict[str, Any],
        Meta(description="Once the run has ended: the outputs of each completed step by its name; before that, empty."),
    ]
    trajectory: Annotated[Trajectory, Meta(description="The run, whole.")]
    metadata: Annotated[str, Meta(description="Empty.")] = ""


class TrajectoryPage(msgspec.Struct):
    """A page of a task's runs, newest first."""

    trajectories: Annotated[list[Trajectory], Meta(description="The runs of this page.")]
    total: Annotated[int, Meta(description="Runs on all pages, counted up to 100,000.", examples=[1])]
    page: Annotated[int, Meta(description="This page, from 1.", examples=[1])]
    limit: Annotated[int, Meta(description="Runs on a page.", examples=[10])]
    has_more: Annotated[bool, Meta(description="Whether there is a next page.")]


class Durations(msgspec.Struct):
    """Seconds from the first claim of a run to its end."""

    count: Annotated[int, Meta(description="Of how many runs: the newest that have ended, at most 10,000.")]
    avg_seconds: Annotated[float | None, Meta(description="Their mean; null: none has ended.")]
    min_seconds: Annotated[float | None, Meta(description="The shortest.")]
    p50_seconds: Annotated[float | None, Meta(description="Their median.")]
    p95_seconds: Annotated[float | None, Meta(description="95 of 100 took no longer.")]
    max_seconds: Annotated[float | None, Meta(description="The longest.")]


class StatsRead(msgspec.Struct):
    """How the runs of a task went."""

    total: Annotated[int, Meta(description="All its runs.", examples=[12])]
    counts: Annotated[dict[str, int], Meta(description="Runs by status; all six are there.")]
    success_rate: Annotated[
        float | None,
        Meta(description="Completed runs among the completed and failed ones, 0 to 1; null: there are none of them."),
    ]
    durations: Annotated[Durations, Meta(description="How long runs took.")]


class Event(msgspec.Struct):
    """Something that happened to a run."""

    at: Annotated[Time, Meta(description="When.")]
    event: Annotated[str, Meta(description="What, as in step_completed.", examples=["step_completed"])]
    step: Annotated[str | None, Meta(description="The step; null: it happened to the run.")]
    attempt: Annotated[int | None, Meta(description="The worker's attempt at the run, as far as it is known.")]
    try_number: Annotated[int | None, Meta(description="Which try of the step or of the webhook; null: of neither.")]
    detail: Annotated[
        str | None, Meta(description="The trigger, the activity, the error, or what the webhook's receiver answered.")
    ]


class WorkflowLog(msgspec.Struct):
    """What happened to a run."""

    workflow_id: Annotated[str, Meta(description="The run.", examples=["flow-my-org-greet--9876"])]
    trajectory_id: Annotated[int, Meta(description="The run.", examples=[9876])]
    status: Annotated[str, Meta(description="Where it stands.", examples=["completed"])]
    events: Annotated[list[Event], Meta(description="Oldest first.")]


class Environment(msgspec.Struct):
    """The environment variables of a collection."""

    environment_variables: Annotated[dict[str, str], Meta(description="By name; each reads as ********.")]


class StepTemplates(msgspec.Struct):
    """What steps can be made of."""

    templates: Annotated[list[StepTemplate], Meta(description="One for each activity.")]
    categories: Annotated[list[str], Meta(description="Their categories, sorted.", examples=[["text"]])]
    total_count: Annotated[int, Meta(description="How many activities there are.", examples=[4])]


class Slots(msgspec.Struct):
    """Coming slots, the next one first."""

    slots: Annotated[list[datetime], Meta(description="Times in UTC.", examples=[["2026-05-04T09:00:00Z"]])]


class WhyRead(msgspec.Struct):
    """What a time is to a routine."""

    sentence: Annotated[str, Meta(description="For people.", examples=["No slot: the next is 2026-05-05T09:00:00Z."])]
    facts: Annotated[Why, Meta(description="For programs; what does not apply is null.")]


class Message(msgspec.Struct):
    """A sentence for people."""

    message: Annotated[str, Meta(description="What was done.", examples=["Task greet was deleted."])]


class Health(msgspec.Struct):
    """The service answers."""

    status: Annotated[str, Meta(description="ok.", examples=["ok"])] = "ok"


def routine_read(routine: Routine) -> RoutineRead:
    """The routine as lists show it."""
    return RoutineRead(*_fields(routine))


def routine_detail(routine: Routine) -> RoutineDetail:
    """The routine as GET shows it."""
    warnings = [f"init_params_overrides: the task no longer declares {key!r}." for key in routine.undeclared_keys]
    return RoutineDetail(*_fields(routine), warnings=warnings)


def task_read(task: Task) -> TaskRead:
    """The task as clients see it."""
    return TaskRead(task.name, task.description, task.workflow, task.created_at, task.updated_at)


def init_params_schema(task: Task) -> InitParamsSchema:
    """The keys that may be overridden, in the order of the workflow."""
    return InitParamsSchema(
        [InitParam(name, default, _type_hint(default)) for name, default in task.init_params.items()]
    )


def workflow_response(trajectory: Trajectory, message: str) -> WorkflowResponse:
    """The answer to whoever started this run."""
    result = {} if trajectory.ended_at is None else _outputs(trajectory)
    return WorkflowResponse(
        trajectory.workflow_id, trajectory.trajectory_id, trajectory.run_id, message, result, trajectory
    )


def _outputs(trajectory: Trajectory) -> dict[str, Any]:
    return {name: step["outputs"] for name, step in trajectory.steps.items() if step["status"] == "completed"}


def stats_read(stats: Stats) -> StatsRead:
    """How a task's runs went, with what follows from the counts."""
    counts = {status: stats.counts.get(status, 0) for status in STATUSES}
    tried = counts["completed"] + counts["failed"]
    durations = Durations(
        stats.measured, stats.avg_seconds, stats.min_seconds, stats.p50_seconds, stats.p95_seconds, stats.max_seconds
    )
    return StatsRead(sum(counts.values()), counts, counts["completed"] / tried if tried else None, durations)


def workflow_log(run: RunOfKey, events: Sequence[RunEvent]) -> WorkflowLog:
    """The events of a run."""
    shown = [Event(each.at, each.event, each.step, each.fence, each.attempt or None, each.detail) for each in events]
    return WorkflowLog(run.workflow_id, run.trajectory_id, run.status, shown)


def _fields(routine: Routine) -> Sequence[Any]:
    """The fields of RoutineRead, in their order."""
    return (
        routine.id,
        routine.name,
        routine.task_name,
        routine.collection_name,
        routine.cadence,
        routine.init_params_overrides,
        dict.fromkeys(routine.secret_names, MASK),
        routine.webhook_url,
        MASK if routine.has_webhook_secret else None,
        routine.paused,
        routine.last_run_at,
        routine.next_run_at,
        routine.overlap_policy,
        msgspec.UNSET if routine.catchup_window_seconds is None else routine.catchup_window_seconds,
        routine.paused_reason or msgspec.UNSET,
    )


def _type_hint(default: Any) -> str:
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(default), "string")  # pyright: ignore[reportUnknownArgumentType] - any JSON value
