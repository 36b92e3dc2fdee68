"""Responses: msgspec structs in the shapes of the HTTP contract."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_core.cadence import CADENCES, CadenceField, CadenceType
from routines_core.db.calendars import Calendar
from routines_core.db.ledger import Why
from routines_core.db.limits import LimitedTask, LimitInUse
from routines_core.db.planning import Bucket, PreviewedSlot, QuietMinute
from routines_core.db.routines import Cadence, Routine
from routines_core.db.tasks import Task, TaskVersion, WholeVersion
from routines_core.db.timeline import Lane
from routines_core.db.trajectories import RunEvent, RunOfKey, Stats, Trajectory
from routines_core.limits import LIMITS
from routines_core.mask import MASK
from routines_workflow.catalogue import StepTemplate

STATUSES = ("pending", "running", "completed", "failed", "cancelled", "archived")
Time = Annotated[datetime, Meta(description="ISO 8601 in UTC.", examples=["2026-05-04T09:00:00Z"])]


class RoutineCalendarRead(msgspec.Struct):
    """Days on which a routine does not fire."""

    exclude: Annotated[list[str], Meta(description="Names of calendars.", examples=[["holidays-de"]])]
    on_excluded: Annotated[
        str, Meta(description="skip, next_day or next_business_day: where an excluded slot moves.", examples=["skip"])
    ] = "skip"


class ActiveHoursRead(msgspec.Struct):
    """The times of the week at which a routine may fire."""

    windows: Annotated[list[str], Meta(description="Days and times.", examples=[["mon-fri 08:00-18:00"]])]
    outside: Annotated[
        str, Meta(description="skip, or defer: a slot moves to the beginning of the next window.", examples=["skip"])
    ] = "skip"
    timezone: Annotated[str | msgspec.UnsetType, Meta(description="Of the windows; absent: that of the cadence.")] = (
        msgspec.UNSET
    )


class BackoffRead(msgspec.Struct):
    """Growing delays before retries, in seconds."""

    initial: Annotated[int | float, Meta(description="Before the first retry.")] = 60
    multiplier: Annotated[int | float, Meta(description="How many times longer each further delay is.")] = 2
    max: Annotated[int | float, Meta(description="No delay is longer.")] = 3600


class RetryRead(msgspec.Struct):
    """How a scheduled run that failed is retried."""

    max_attempts: Annotated[int, Meta(description="How many attempts a slot gets, the first included.", examples=[3])]
    backoff: Annotated[
        list[int | float] | BackoffRead,
        Meta(description="The delay before each retry, in seconds, or how the delays grow."),
    ] = msgspec.field(default_factory=BackoffRead)
    on: Annotated[str, Meta(description="any: after every failure; transient: only if the cause may go away.")] = "any"
    until: Annotated[
        int | str, Meta(description="next_slot, or how many seconds after the first attempt the last one may begin.")
    ] = "next_slot"


class CalendarDay(msgspec.Struct, omit_defaults=True):
    """A date, or several in a row."""

    from_: Annotated[date, Meta(description="The first date.")] = msgspec.field(name="from")
    to: Annotated[date | msgspec.UnsetType, Meta(description="The last date; absent: the same.")] = msgspec.UNSET
    label: Annotated[str | msgspec.UnsetType, Meta(description="What the days are called; absent: nothing.")] = (
        msgspec.UNSET
    )


class CalendarRead(msgspec.Struct):
    """Days that routines can exclude."""

    name: Annotated[str, Meta(description="Unique in its collection.", examples=["holidays-de"])]
    timezone: Annotated[
        str | None, Meta(description="Whose days they are; null: the time zone of each routine's cadence.")
    ]
    days: Annotated[list[CalendarDay], Meta(description="The dates, as they were given.")]
    updated_at: Annotated[Time, Meta(description="When it was last changed.")]


class RoutineRead(msgspec.Struct):
    """A routine, with its secrets masked."""

    id: Annotated[int, Meta(description="Unchanged when the routine is renamed.", examples=[42])]
    name: Annotated[str, Meta(description="Unique in its task.", examples=["morning-regression"])]
    task_name: Annotated[str, Meta(description="The task that it runs.", examples=["nl-to-sql-regression"])]
    collection_name: Annotated[str, Meta(description="The collection of the task.", examples=["my-org"])]
    cadence: Annotated[Cadence, Meta(description="When its slots are due.")]
    init_params_overrides: Annotated[dict[str, Any], Meta(description="Merged over the task's init_params.")]
    secret_params: Annotated[dict[str, str], Meta(description="Secrets by name; each reads as ********.")]
    webhook_url: Annotated[str | None, Meta(description="Called when a run has ended; null: no webhook.")]
    webhook_secret: Annotated[str | None, Meta(description="Signs the webhook; reads as ********; null: not signed.")]
    paused: Annotated[bool, Meta(description="Whether the schedule is stopped.")]
    last_run_at: Annotated[datetime | None, Meta(description="When it last started a run; null: never.")]
    next_run_at: Annotated[
        datetime | None,
        Meta(description="When it fires next, its spread included; null: paused, manual, or no slot is left."),
    ]
    overlap_policy: Annotated[
        str,
        Meta(
            description="What becomes of a slot that comes while a run is active: skip, queue_one, cancel_other or "
            "allow.",
            examples=["skip"],
        ),
    ]
    catchup_window_seconds: Annotated[
        int | msgspec.UnsetType,
        Meta(description="The age in seconds up to which a late slot still fires; absent: the default of the cadence."),
    ] = msgspec.UNSET
    paused_reason: Annotated[
        str | msgspec.UnsetType,
        Meta(
            description="Why the scheduler paused it, after slots that failed or failed to start; absent: it did not."
        ),
    ] = msgspec.UNSET
    paused_until: Annotated[
        datetime | msgspec.UnsetType,
        Meta(description="When the pause ends by itself; absent: when someone resumes it."),
    ] = msgspec.UNSET
    paused_note: Annotated[
        str | msgspec.UnsetType, Meta(description="What a person noted about the pause; absent: nothing.")
    ] = msgspec.UNSET
    starts_at: Annotated[datetime | msgspec.UnsetType, Meta(description="No slot is earlier; absent: no bound.")] = (
        msgspec.UNSET
    )
    ends_at: Annotated[datetime | msgspec.UnsetType, Meta(description="No slot is later; absent: no bound.")] = (
        msgspec.UNSET
    )
    spread_seconds: Annotated[
        int | msgspec.UnsetType,
        Meta(description="Each slot fires up to this many seconds after its time; absent: no spread."),
    ] = msgspec.UNSET
    calendar: Annotated[
        RoutineCalendarRead | msgspec.UnsetType, Meta(description="Days on which it does not fire; absent: none.")
    ] = msgspec.UNSET
    active_hours: Annotated[
        ActiveHoursRead | msgspec.UnsetType,
        Meta(description="The times of the week at which it may fire; absent: at any time."),
    ] = msgspec.UNSET
    init_params_from_slot: Annotated[
        dict[str, str] | msgspec.UnsetType,
        Meta(
            description="Parameters that each run takes from its slot; absent: none.", examples=[{"date": "slot.date"}]
        ),
    ] = msgspec.UNSET
    timeout_seconds: Annotated[
        int | msgspec.UnsetType,
        Meta(description="How long its runs may take, in seconds; absent: as long as any run of the service."),
    ] = msgspec.UNSET
    retry: Annotated[
        RetryRead | msgspec.UnsetType,
        Meta(description="How scheduled runs that failed are retried; absent: not at all."),
    ] = msgspec.UNSET
    pause_after_failures: Annotated[
        int | msgspec.UnsetType, Meta(description="After how many failed slots in a row it stops; absent: never.")
    ] = msgspec.UNSET
    then: Annotated[str | msgspec.UnsetType, Meta(description="How it stops: pause or backoff; absent: pause.")] = (
        msgspec.UNSET
    )
    backoff_left: Annotated[
        int | msgspec.UnsetType, Meta(description="How many slots it will still skip after failures; absent: none.")
    ] = msgspec.UNSET
    max_concurrent: Annotated[
        int | msgspec.UnsetType, Meta(description="How many runs may be active at once; absent without allow.")
    ] = msgspec.UNSET


class RoutineDetail(RoutineRead):
    """One routine, with a warning for each override key that its task no longer declares."""

    warnings: Annotated[list[str], Meta(description="One for each override that the task no longer declares.")] = []


class TaskRead(msgspec.Struct):
    """A task."""

    name: Annotated[str, Meta(description="Unique in its collection.", examples=["greet"])]
    description: Annotated[str, Meta(description="Free text for people.")]
    workflow: Annotated[dict[str, Any], Meta(description="{init_params, step_configs, steps}, as it was sent.")]
    created_at: Annotated[Time, Meta(description="When it was created.")]
    updated_at: Annotated[Time, Meta(description="When it was last changed.")]


class TaskVersionRead(msgspec.Struct, omit_defaults=True):
    """A version of a task's workflow."""

    version: Annotated[int, Meta(description="Counts from 1 within the task.", examples=[3])]
    saved_at: Annotated[Time, Meta(description="When it was saved.")]
    actor: Annotated[
        str | msgspec.UnsetType,
        Meta(description="Who saved it, as in the audit; absent if that does not go back so far.", examples=["key 7"]),
    ] = msgspec.UNSET


class TaskVersionDetail(TaskVersionRead, kw_only=True):
    """A version of a task with its workflow."""

    workflow: Annotated[dict[str, Any], Meta(description="{init_params, step_configs, steps}.")]


class InitParam(msgspec.Struct):
    """A parameter that a routine may override."""

    name: Annotated[str, Meta(description="The key.", examples=["model"])]
    default: Annotated[Any, Meta(description="Its value unless a routine overrides it.", examples=["gpt-4o"])]
    type_hint: Annotated[
        str, Meta(description="The JSON type of the default; string if it is null.", examples=["string"])
    ]


class InitParamsSchema(msgspec.Struct):
    """The parameters of a task, in the order of its workflow."""

    keys: Annotated[list[InitParam], Meta(description="One for each parameter.")]


class WorkflowResponse(msgspec.Struct):
    """A started run."""

    workflow_id: Annotated[str, Meta(description="The id to poll with.", examples=["flow-my-org-greet--9876"])]
    trajectory_id: Annotated[int, Meta(description="The run.", examples=[9876])]
    run_id: Annotated[str, Meta(description="The run, as a UUID.")]
    message: Annotated[str, Meta(description="A sentence for people.")]
    result: Annotated[
        dict[str, Any],
        Meta(description="Once the run has ended: the outputs of each completed step by its name; before that, empty."),
    ]
    trajectory: Annotated[Trajectory, Meta(description="The whole run.")]
    metadata: Annotated[str, Meta(description="Empty.")] = ""


class TrajectoryPage(msgspec.Struct):
    """A page of a task's runs, newest first."""

    trajectories: Annotated[list[Trajectory], Meta(description="The runs of this page.")]
    total: Annotated[int, Meta(description="The number of runs on all pages, counted up to 100,000.", examples=[1])]
    page: Annotated[int, Meta(description="The number of this page, from 1.", examples=[1])]
    limit: Annotated[int, Meta(description="Maximum number of runs on a page.", examples=[10])]
    has_more: Annotated[bool, Meta(description="Whether there is a next page.")]


class Durations(msgspec.Struct):
    """Seconds from the first claim of a run to its end."""

    count: Annotated[int, Meta(description="How many runs were measured: the newest that have ended, at most 10,000.")]
    avg_seconds: Annotated[float | None, Meta(description="Their mean; null: no run has ended.")]
    min_seconds: Annotated[float | None, Meta(description="The shortest.")]
    p50_seconds: Annotated[float | None, Meta(description="Their median.")]
    p95_seconds: Annotated[float | None, Meta(description="Their 95th percentile.")]
    max_seconds: Annotated[float | None, Meta(description="The longest.")]


class StatsRead(msgspec.Struct):
    """Statistics of a task's runs."""

    total: Annotated[int, Meta(description="The number of runs.", examples=[12])]
    counts: Annotated[dict[str, int], Meta(description="The number of runs of each status; all six are listed.")]
    success_rate: Annotated[
        float | None,
        Meta(description="Completed runs as a share of completed and failed ones, 0 to 1; null: there are none."),
    ]
    durations: Annotated[Durations, Meta(description="How long runs took.")]


class Event(msgspec.Struct):
    """An event of a run."""

    at: Annotated[Time, Meta(description="When.")]
    event: Annotated[str, Meta(description="What happened, for example step_completed.", examples=["step_completed"])]
    step: Annotated[str | None, Meta(description="The step; null: the event concerns the whole run.")]
    attempt: Annotated[int | None, Meta(description="How many times a worker had claimed the run; null: not known.")]
    try_number: Annotated[int | None, Meta(description="The attempt at the step or webhook, from 1; null: neither.")]
    detail: Annotated[
        str | None, Meta(description="The trigger, the activity, the error, or the answer of the webhook's receiver.")
    ]


class WorkflowLog(msgspec.Struct):
    """The events of a run."""

    workflow_id: Annotated[str, Meta(description="The run.", examples=["flow-my-org-greet--9876"])]
    trajectory_id: Annotated[int, Meta(description="The run.", examples=[9876])]
    status: Annotated[str, Meta(description="The status of the run.", examples=["completed"])]
    events: Annotated[list[Event], Meta(description="Oldest first.")]


class Environment(msgspec.Struct):
    """The environment variables of a collection."""

    environment_variables: Annotated[dict[str, str], Meta(description="Variables by name; each reads as ********.")]


class StepTemplates(msgspec.Struct):
    """The activities that steps can use."""

    templates: Annotated[list[StepTemplate], Meta(description="One for each activity.")]
    categories: Annotated[list[str], Meta(description="Their categories, sorted.", examples=[["text"]])]
    total_count: Annotated[int, Meta(description="How many activities there are.", examples=[4])]


class Slots(msgspec.Struct):
    """Coming slots, the next one first."""

    slots: Annotated[list[datetime], Meta(description="Times in UTC.", examples=[["2026-05-04T09:00:00Z"]])]


class Changes(msgspec.Struct):
    """What has changed since an earlier answer."""

    cursor: Annotated[
        str, Meta(description="For `since` of the next request.", examples=["WzczNSwiMjAyNi0wNS0wNFQwOTowMDowMFoiXQ=="])
    ]
    as_of: Annotated[datetime, Meta(description="Up to when changes are known.")]
    is_whole: Annotated[bool, Meta(description="Whether these are all changes; false: read everything again.")]
    routines: Annotated[list[RoutineRead], Meta(description="Changed ones, as they are now.")] = []
    deleted: Annotated[list[int], Meta(description="The ids of routines that were deleted.", examples=[[41]])] = []


class RunChanges(msgspec.Struct):
    """Whether a run has come further since an earlier answer."""

    cursor: Annotated[str, Meta(description="For `since` of the next request.")]
    as_of: Annotated[datetime, Meta(description="Up to when changes are known.")]
    has_changed: Annotated[bool, Meta(description="Whether to read the run again.")]


class CadenceSlots(msgspec.Struct):
    """The coming slots of a cadence that is not saved."""

    slots: Annotated[
        list[datetime | PreviewedSlot],
        Meta(description="The next slot first: times in UTC, or objects if the request has more than a count."),
    ]
    warnings: Annotated[
        list[str] | msgspec.UnsetType,
        Meta(description="What to know before it is saved; absent with a count, and on the pages after the first."),
    ] = msgspec.UNSET


class ScheduleLoad(msgspec.Struct):
    """The load of a schedule. Buckets without a slot are left out."""

    buckets: Annotated[list[Bucket], Meta(description="The earliest first.")]


class Timeline(msgspec.Struct):
    """What routines did and will do in a time, beside each other."""

    from_: Annotated[datetime, Meta(description="When the time begins.")] = msgspec.field(name="from")
    to: Annotated[datetime, Meta(description="When it ends.")]
    bucket_seconds: Annotated[
        int, Meta(description="What is of one kind and begins within so many seconds is one mark.", examples=[600])
    ]
    routines: Annotated[list[Lane], Meta(description="A page of routines, by task and name.")]


class Suggestions(msgspec.Struct):
    """Cadences near a wished one."""

    suggestions: Annotated[list[QuietMinute], Meta(description="The quietest first, the wish among them.")]


class FeedRead(msgspec.Struct):
    """A new calendar feed."""

    id: Annotated[int, Meta(description="By which it can be revoked.", examples=[7])]
    url: Annotated[str, Meta(description="To subscribe to in a calendar program. It holds the token.")]
    token: Annotated[str, Meta(description="Opens the feed; shown only now.")]


class CadenceFieldRead(msgspec.Struct):
    """How a type of cadence uses a field: a number has a range, a word choices, and a text a format."""

    required: Annotated[bool, Meta(description="Whether it must be given; otherwise it may be left out.")]
    default: Annotated[int | str | None, Meta(description="The value used if it is left out.", examples=[0])]
    minimum: Annotated[int | msgspec.UnsetType, Meta(description="The smallest number allowed.")] = msgspec.UNSET
    maximum: Annotated[int | msgspec.UnsetType, Meta(description="The largest number allowed.")] = msgspec.UNSET
    choices: Annotated[list[str] | msgspec.UnsetType, Meta(description="The words allowed, in display order.")] = (
        msgspec.UNSET
    )
    format: Annotated[
        str | msgspec.UnsetType,
        Meta(description="cron (an expression, or an array of up to 10), timezone (an IANA name) or date-time."),
    ] = msgspec.UNSET
    example: Annotated[str | msgspec.UnsetType, Meta(description="A valid text.")] = msgspec.UNSET


class CadenceTypeRead(msgspec.Struct):
    """A type of cadence. It refuses fields that are not listed here."""

    type: Annotated[str, Meta(description="Its name.", examples=["weekly"])]
    description: Annotated[str, Meta(description="A sentence for people.", examples=["Once a week."])]
    fields: Annotated[dict[str, CadenceFieldRead], Meta(description="The fields that it takes, in display order.")]


class WhyRead(msgspec.Struct):
    """The explanation of a time of a routine."""

    sentence: Annotated[str, Meta(description="For people.", examples=["No slot: the next is 2026-05-05T09:00:00Z."])]
    facts: Annotated[Why, Meta(description="For programs; facts that do not apply are null.")]


class Message(msgspec.Struct):
    """A sentence for people."""

    message: Annotated[str, Meta(description="What happened.", examples=["Task greet was deleted."])]


class Health(msgspec.Struct):
    """The service answers."""

    status: Annotated[str, Meta(description="ok.", examples=["ok"])] = "ok"


def routine_read(routine: Routine) -> RoutineRead:
    """Convert a routine for lists."""
    return RoutineRead(*_fields(routine))


def routine_detail(routine: Routine) -> RoutineDetail:
    """Convert a routine for the answer that shows it alone."""
    undeclared = {
        "init_params_overrides": routine.undeclared_keys,
        "init_params_from_slot": routine.undeclared_slot_keys,
    }
    warnings = [f"{field}: the task no longer declares {key!r}." for field, keys in undeclared.items() for key in keys]
    return RoutineDetail(*_fields(routine), warnings=warnings)


def calendar_read(calendar: Calendar) -> CalendarRead:
    """Convert a calendar."""
    days = msgspec.convert([_given(entry) for entry in calendar.days], list[CalendarDay])
    return CalendarRead(calendar.name, calendar.timezone, days, calendar.updated_at)


def task_read(task: Task) -> TaskRead:
    """Convert a task."""
    return TaskRead(task.name, task.description, task.workflow, task.created_at, task.updated_at)


def task_version_read(version: TaskVersion) -> TaskVersionRead:
    """Convert a version of a task."""
    return TaskVersionRead(version.version, version.saved_at, version.actor or msgspec.UNSET)


def task_version_detail(version: WholeVersion) -> TaskVersionDetail:
    """Convert a version of a task with its workflow."""
    return TaskVersionDetail(
        version.version, version.saved_at, version.actor or msgspec.UNSET, workflow=version.workflow
    )


def init_params_schema(task: Task) -> InitParamsSchema:
    """Return the keys that may be overridden, in the order of the workflow."""
    return InitParamsSchema(
        [InitParam(name, default, _type_hint(default)) for name, default in task.init_params.items()]
    )


def workflow_response(trajectory: Trajectory, message: str, large_steps: str | None = None) -> WorkflowResponse:
    """Return the answer to the request that started this run, whose steps may be JSON that was read apart."""
    result = {} if trajectory.ended_at is None else _outputs(trajectory, large_steps)
    return WorkflowResponse(
        trajectory.workflow_id, trajectory.trajectory_id, trajectory.run_id, message, result, trajectory
    )


def _outputs(trajectory: Trajectory, large_steps: str | None) -> dict[str, Any]:
    """Return the outputs of completed steps by name; those of large steps as JSON that is not parsed."""
    if large_steps is None:
        return {name: step["outputs"] for name, step in trajectory.steps.items() if step["status"] == "completed"}
    large = msgspec.json.decode(large_steps, type=dict[str, _LargeStep])
    return {name: step.outputs for name, step in large.items() if step.status == "completed"}


class _LargeStep(msgspec.Struct):
    status: str
    outputs: msgspec.Raw


def cadence_types() -> list[CadenceTypeRead]:
    """Return the types of cadence that routines may have, in display order."""
    return [
        CadenceTypeRead(each.name, each.description, {field.name: _field_read(each, field) for field in each.fields})
        for each in CADENCES
    ]


def _field_read(cadence: CadenceType, field: CadenceField) -> CadenceFieldRead:
    return CadenceFieldRead(
        required=field in cadence.required,
        default=field.default,
        minimum=msgspec.UNSET if field.minimum is None else field.minimum,
        maximum=msgspec.UNSET if field.maximum is None else field.maximum,
        choices=list(field.choices) or msgspec.UNSET,
        format=field.format or msgspec.UNSET,
        example=field.example or msgspec.UNSET,
    )


def stats_read(stats: Stats) -> StatsRead:
    """Convert the stats of a task, adding the total and the success rate."""
    counts = {status: stats.counts.get(status, 0) for status in STATUSES}
    tried = counts["completed"] + counts["failed"]
    durations = Durations(
        stats.measured, stats.avg_seconds, stats.min_seconds, stats.p50_seconds, stats.p95_seconds, stats.max_seconds
    )
    return StatsRead(sum(counts.values()), counts, counts["completed"] / tried if tried else None, durations)


def workflow_log(run: RunOfKey, events: Sequence[RunEvent]) -> WorkflowLog:
    """Convert the events of a run."""
    shown = [Event(each.at, each.event, each.step, each.fence, each.attempt or None, each.detail) for each in events]
    return WorkflowLog(run.workflow_id, run.trajectory_id, run.status, shown)


def _fields(routine: Routine) -> Sequence[Any]:
    """Return the fields of RoutineRead, in their order."""
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
        routine.paused_until or msgspec.UNSET,
        routine.paused_note or msgspec.UNSET,
        routine.starts_at or msgspec.UNSET,
        routine.ends_at or msgspec.UNSET,
        routine.spread_seconds or msgspec.UNSET,
        msgspec.UNSET if routine.calendar is None else msgspec.convert(_given(routine.calendar), RoutineCalendarRead),
        msgspec.UNSET
        if routine.active_hours is None
        else msgspec.convert(_given(routine.active_hours), ActiveHoursRead),
        routine.init_params_from_slot or msgspec.UNSET,
        routine.timeout_seconds or msgspec.UNSET,
        msgspec.UNSET if routine.retry is None else msgspec.convert(_given(routine.retry), RetryRead),
        routine.pause_after_failures or msgspec.UNSET,
        routine.after_failures or msgspec.UNSET,
        routine.backoff_left or msgspec.UNSET,
        routine.max_concurrent or msgspec.UNSET,
    )


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _type_hint(default: Any) -> str:
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(default), "string")  # pyright: ignore[reportUnknownArgumentType] - any JSON value


class CollectionLimit(msgspec.Struct):
    """A limit of the collection or of each of its runs."""

    name: Annotated[str, Meta(description="Name of the limit, as in limit-exceeded problems.", examples=["tasks"])]
    value: Annotated[int | None, Meta(description="The limit; null: no limit.")]
    default: Annotated[int | None, Meta(description="The value unless an operator sets another; null: no limit.")]
    use: Annotated[int | None, Meta(description="How much is used; null for a limit of each run.")]
    unit: Annotated[str, Meta(description="Unit of value, default and use.", examples=["tasks"])]
    description: Annotated[str, Meta(description="What it bounds, and what happens when it is reached.")]


class CollectionLimits(msgspec.Struct):
    """The limits of a collection and of its runs."""

    limits: Annotated[list[CollectionLimit], Meta(description="All of them.")]
    tasks: Annotated[list[LimitedTask], Meta(description="Tasks with a limit of concurrent runs of their own.")]


def collection_limits(limits: Sequence[LimitInUse], tasks: Sequence[LimitedTask]) -> CollectionLimits:
    """Return the answer for these limits."""
    known = [(limit, LIMITS[limit.name]) for limit in limits if limit.name in LIMITS]
    return CollectionLimits(
        [
            CollectionLimit(limit.name, limit.value, limit.default_value, limit.use, rule.unit, rule.description)
            for limit, rule in known
        ],
        list(tasks),
    )
