"""Runs as clients see them, under the name trajectory: sql/queries/trajectories.sql called from Python.

The worker's side of the same rows is in runs.py.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.pool import Connection
from routines_core.db.secrets import SealedSecret, as_parameters
from routines_core.db.statements import Statement
from routines_core.errors import NotFoundError

MOST_COUNTED = 100_000
"""A list counts a task's runs up to this number."""
MOST_MEASURED = 10_000
"""Statistics use the durations of at most this many of a task's newest ended runs."""
MOST_LABELS = 100
"""Maximum number of labels of a run."""
MOST_LABEL_BYTES = 64 * 1024
"""Maximum size of a run's labels together, in bytes of JSON."""
SMALL_BYTES = 256 * 1024
"""A run whose steps take at most this many bytes is read whole in one statement."""
SMALL_STEPS = 500
"""The same for their number. The JSON of more of them would be parsed for too long."""
WHOLE_BYTES = 16 * 1024 * 1024
"""Maximum size of the inputs and outputs in one answer, in bytes of JSON; those of the largest steps are left out."""
WORK_FACTOR = 16
"""How many times as many bytes may be read to select them, since stored values are compressed."""
LISTED_VALUE_BYTES = 2048
"""Maximum size of a step's inputs, and of its outputs, in a list."""
LISTED_STEPS = 200
"""Maximum number of steps of each run in a list."""
LISTED_PAGE_BYTES = 4 * 1024 * 1024
"""Maximum size of the steps, parameters and labels on a page. Runs after that are listed without them."""
_ABOVE_ALL_IDS = 2**63 - 1
DETAIL_LENGTH = 4096
"""Maximum length of the detail of an event, and of an error in a list of runs, in characters."""


class Trajectory(msgspec.Struct, frozen=True, omit_defaults=True):
    """A complete run of a task, in the shape that clients decode. Times are UTC. It contains no secrets.

    Attributes:
        retry_of: Of a later attempt at a run of a routine, a retry or a rerun: the first one; otherwise absent.
        retry_number: Of a retry: which one it is, from 1.
        retried_by: Of a run of a routine: its retry or, after the last retry, its newest rerun; absent if none.
        rerun_of: Of a rerun, also one by a backfill: the run that it repeats; otherwise absent.
        backfill_id: The backfill that started it; absent if none did.
        fills_slot: The slot that it fills, if a backfill started it; otherwise absent.
        kept_steps: Of a rerun from a step: the steps before it, each with the run that executed it; otherwise absent.
        lost_steps: Those of kept_steps that are not in `steps`, because their run has been deleted; absent if none.
        routine_revision: The revision of the routine that it was fired with; absent if that is the first or not known,
            if no routine started it, and in lists.
        parent_trajectory_id: The run whose step started it; absent if none did.
        parent_name: The `collection/task` of that run.
        children: The first 1,000 runs that its steps started, each as `{trajectory_id, name, status}`; absent if there
            are none, and in lists.
        temporal_url: The run in Temporal's UI; absent if it was not executed there, in lists, and without the setting.
        truncated: True if something was left out for its size; otherwise the field is absent. An affected step
            also has `truncated`, with {} as its inputs and null as its outputs.
    """

    trajectory_id: int
    workflow_id: str
    run_id: str
    name: str
    status: str
    created: datetime
    updated: datetime
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    init_params: dict[str, Any]
    step_configs: dict[str, Any]
    steps: dict[str, Any]
    total_steps: int
    completed_steps: int
    labels: list[Any]
    error: str | None
    triggered_by_routine_id: int | None
    scheduled_for: datetime | None
    trigger: str
    webhook_url: str | None
    retry_of: int | None = None
    retry_number: int | None = None
    retried_by: int | None = None
    rerun_of: int | None = None
    backfill_id: int | None = None
    fills_slot: datetime | None = None
    kept_steps: dict[str, int] | None = None
    lost_steps: list[str] = []
    routine_revision: int | None = None
    parent_trajectory_id: int | None = None
    parent_name: str | None = None
    children: list[Any] = []
    temporal_url: str | None = None
    truncated: bool = False


class Run(msgspec.Struct, frozen=True, omit_defaults=True):
    """The summary of a run.

    Attributes:
        retry_of: Of a later attempt at a run of a routine, a retry or a rerun: the first one; otherwise absent.
        retry_number: Of a retry: which one it is, from 1.
        retried_by: Of a run of a routine: its retry or, after the last retry, its newest rerun; absent if none.
        rerun_of: Of a rerun, also one by a backfill: the run that it repeats; otherwise absent.
        backfill_id: The backfill that started it; absent if none did.
        fills_slot: The slot that it fills, if a backfill started it; otherwise absent.
    """

    trajectory_id: int
    workflow_id: str
    status: str
    created_at: datetime
    scheduled_for: datetime | None
    trigger: str
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    retry_of: int | None = None
    retry_number: int | None = None
    retried_by: int | None = None
    rerun_of: int | None = None
    backfill_id: int | None = None
    fills_slot: datetime | None = None


class RunSpec(msgspec.Struct, frozen=True):
    """A run to start.

    Attributes:
        init_params: Merged over the task's own, which must declare each key.
        file_paths: Paths in the file store, passed as init_params.file_paths; None if no file was sent.
        id: Drawn by `draw_trajectory_id`, if secrets are bound to it; None to let the database assign one.
    """

    init_params: dict[str, Any] = {}
    secret_params: dict[str, SealedSecret] = {}
    webhook_url: str | None = None
    webhook_secret: SealedSecret | None = None
    file_paths: list[str] | None = None
    id: int | None = None


class RerunSpec(msgspec.Struct, frozen=True):
    """What is different in a rerun.

    Attributes:
        from_step: Steps before this one are kept; None to repeat them all.
        init_params: Merged over those of the run that is repeated; its version of the task must declare each key.
        secret_params: Beside those that the routine has today, or in place of those of the same name.
        webhook_secret: Signs the webhook if there is no routine.
        id: Drawn by `draw_trajectory_id`, if secrets are bound to it; None to let the database assign one.
    """

    from_step: str | None = None
    init_params: dict[str, Any] = {}
    secret_params: dict[str, SealedSecret] = {}
    webhook_secret: SealedSecret | None = None
    id: int | None = None


class Rerun(msgspec.Struct, frozen=True):
    """The outcome of `rerun`.

    Attributes:
        id: The new run; None if nothing was started, for one of the reasons that follow.
        status: The status of the run to repeat.
        has_ended: False if it is active.
        unknown_keys: The keys of the parameters that its version of the task does not declare.
        declared_keys: Those that it declares.
        has_step: False if its workflow has no such step.
        unready_step: The first step before that one that cannot be kept.
        unready_run: The run that should have completed that step.
        needs_webhook_secret: True if the secret that signs its webhook has been deleted.
    """

    id: int | None
    status: str
    has_ended: bool
    unknown_keys: list[str]
    declared_keys: list[str]
    has_step: bool
    unready_step: str | None
    unready_run: int | None
    needs_webhook_secret: bool


class Stats(msgspec.Struct, frozen=True):
    """Statistics of a task's runs.

    Attributes:
        counts: Runs by status. A status without runs is absent.
        measured: The number of runs behind the durations: the newest that started and ended.
    """

    counts: dict[str, int]
    measured: int
    avg_seconds: float | None
    min_seconds: float | None
    max_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None


class StatusChange(msgspec.Struct, frozen=True):
    """A requested change of status.

    Attributes:
        status: The status before.
        wanted: The requested status.
        is_allowed: True if the transition is allowed.
    """

    id: int
    status: str
    wanted: str
    is_allowed: bool


class RunOfKey(msgspec.Struct, frozen=True):
    """The fields of a run that its list of events and a rerun need."""

    trajectory_id: int
    workflow_id: str
    status: str
    triggered_by_routine_id: int | None


class RunEvent(msgspec.Struct, frozen=True):
    """An event in the history of a run. The view routines.run_events describes the fields."""

    at: datetime
    rank: int
    position: int
    attempt: int
    event: str
    step: str | None
    fence: int | None
    detail: str | None

    @property
    def key(self) -> tuple[datetime, int, int, int]:
        """Return its sort key among the events of its run."""
        return self.at, self.rank, self.position, self.attempt


class _Total(msgspec.Struct):
    total: int


class _Id(msgspec.Struct):
    id: int


class _Steps(msgspec.Struct):
    steps: str
    truncated: bool


STEPS_PLACE = b"\0"
"""Stands for steps that are inserted once the rest is encoded. No JSON contains it."""

_FIND = Statement("trajectories.find_trajectory", Trajectory)
_READ_STEPS = Statement("trajectories.read_steps", _Steps)
_LIST = Statement("trajectories.list_trajectories", Trajectory)
_COUNT = Statement("trajectories.count_trajectories", _Total)
_LIST_RUNS = Statement("trajectories.list_runs", Run)
_STATS = Statement("trajectories.stats", Stats)
_DRAW_ID = Statement("trajectories.draw_trajectory_id", _Id)
_START = Statement("trajectories.start_run", _Id)
_RERUN = Statement("trajectories.rerun", Rerun)
_ENDED = Statement("trajectories.ended_runs", _Id)
_SET_STATUSES = Statement("trajectories.set_statuses", StatusChange)
_LABEL = Statement("trajectories.label", _Id)
_FIND_OF_KEY = Statement("trajectories.find_run_of_key", RunOfKey)
_LIST_EVENTS = Statement("trajectories.list_events", RunEvent)


async def find_trajectory(
    connection: Connection, *, key_id: int, task: str, trajectory_id: int, temporal_ui: str | None = None
) -> Trajectory:
    """Return the run of this id, truncated if its steps take more than SMALL_BYTES or are more than SMALL_STEPS.

    Args:
        connection: To the database.
        key_id: The key, which opens its collection.
        task: The name of its task.
        trajectory_id: The run.
        temporal_ui: The address of the namespace in Temporal's UI; None for no link to it.

    Raises:
        NotFoundError: The task of this collection has no such run.
    """
    found = await _FIND.first(
        connection,
        key_id=key_id,
        task=task,
        id=trajectory_id,
        temporal_ui=temporal_ui,
        total_bytes=SMALL_BYTES,
        work_bytes=WORK_FACTOR * SMALL_BYTES,
        most_steps=SMALL_STEPS,
    )
    if found is None:
        raise NotFoundError
    return found


async def with_large_steps(
    connection: Connection, found: Trajectory, *, key_id: int, most_bytes: int = WHOLE_BYTES
) -> tuple[Trajectory, str]:
    """Return a truncated run with STEPS_PLACE for its steps, and all of them as JSON, up to `most_bytes`.

    The steps are JSON as Postgres writes it, with floats such as 1e300 in all of their digits: to look for them in so
    much text would stop the event loop.

    Raises:
        NotFoundError: The run was deleted meanwhile.
    """
    row = await _READ_STEPS.one(
        connection,
        key_id=key_id,
        id=found.trajectory_id,
        total_bytes=most_bytes,
        work_bytes=WORK_FACTOR * most_bytes,
    )
    place: Any = msgspec.Raw(STEPS_PLACE)
    return msgspec.structs.replace(found, steps=place, truncated=row.truncated), row.steps


async def list_trajectories(
    connection: Connection,
    *,
    key_id: int,
    task_id: int,
    status: str | None,
    routine_id: int | None,
    limit: int,
    offset: int = 0,
    before: int | None = None,
) -> tuple[list[Trajectory], int]:
    """Return a page of a task's runs, newest first, and their total number. None for status or routine matches any.

    The page begins after `offset` runs of those with an id below `before`, or of all if that is None.

    The total is counted up to MOST_COUNTED. The page has one run more than `limit` if there is another page. The runs
    are summaries: a step has no inputs or outputs of more than LISTED_VALUE_BYTES, and once a page has
    LISTED_PAGE_BYTES the runs have no steps, step_configs and init_params.
    """
    filters = {"key_id": key_id, "task_id": task_id, "status": status, "routine_id": routine_id}
    found = await _LIST.all(
        connection,
        **filters,
        limit=limit + 1,
        offset=offset,
        before=_ABOVE_ALL_IDS if before is None else before,
        value_bytes=LISTED_VALUE_BYTES,
        page_bytes=LISTED_PAGE_BYTES,
        most_steps=LISTED_STEPS,
    )
    return found, (await _COUNT.one(connection, **filters, most=MOST_COUNTED)).total


async def list_runs(
    connection: Connection, *, key_id: int, task: str, name: str, limit: int, before: int | None = None
) -> list[Run]:
    """Return a routine's runs older than `before`, newest first; an empty list if the routine does not exist."""
    return await _LIST_RUNS.all(
        connection, key_id=key_id, task=task, name=name, limit=limit, before=before, detail_length=DETAIL_LENGTH
    )


async def stats_of_task(connection: Connection, *, key_id: int, task: str) -> Stats:
    """Return statistics of a task's runs.

    Raises:
        NotFoundError: The task does not exist.
    """
    return await _STATS.one(connection, key_id=key_id, task=task, most=MOST_MEASURED)


async def draw_trajectory_id(connection: Connection, *, key_id: int) -> int:
    """Reserve an id for a run to be started, so that secrets can be bound to it."""
    return (await _DRAW_ID.one(connection, key_id=key_id)).id


async def start_run(
    connection: Connection, spec: RunSpec, *, key_id: int, task: str, traceparent: str | None = None
) -> int | None:
    """Start a run and store its secrets, with the span that starts it.

    Returns:
        The run's id; None if the task does not exist or does not declare a key of the parameters.
    """
    sealed = [*spec.secret_params.values(), *([spec.webhook_secret] if spec.webhook_secret else [])]
    with domain_errors():
        started = await _START.first(
            connection,
            key_id=key_id,
            task=task,
            id=spec.id,
            init_params=Jsonb(spec.init_params),
            file_params=Jsonb({} if spec.file_paths is None else {"file_paths": spec.file_paths}),
            secret_refs=Jsonb({name: str(secret.id) for name, secret in spec.secret_params.items()}),
            webhook_url=spec.webhook_url,
            webhook_secret_id=spec.webhook_secret.id if spec.webhook_secret else None,
            traceparent=traceparent,
            **as_parameters(sealed),
        )
    return started.id if started else None


async def rerun(
    connection: Connection,
    spec: RerunSpec,
    *,
    key_id: int,
    task: str,
    trajectory_id: int,
    traceparent: str | None = None,
) -> Rerun:
    """Run an ended run again, whole or from a step, with the span that starts it.

    Raises:
        NotFoundError: The task of this collection has no such run.
        ConflictError: The run, or a later attempt at it, is active.
    """
    sealed = [*spec.secret_params.values(), *([spec.webhook_secret] if spec.webhook_secret else [])]
    with domain_errors():
        return await _RERUN.one(
            connection,
            key_id=key_id,
            task=task,
            id=trajectory_id,
            new_id=spec.id,
            from_step=spec.from_step,
            init_params=Jsonb(spec.init_params),
            secret_refs=Jsonb({name: str(secret.id) for name, secret in spec.secret_params.items()}),
            webhook_secret_id=spec.webhook_secret.id if spec.webhook_secret else None,
            traceparent=traceparent,
            **as_parameters(sealed),
        )


async def ended_runs(connection: Connection, trajectory_ids: Sequence[int]) -> set[int]:
    """Return those of these runs that have ended."""
    return {row.id for row in await _ENDED.all(connection, ids=list(trajectory_ids))}


async def set_statuses(
    connection: Connection, wanted: Mapping[int, str], *, key_id: int, task: str
) -> list[StatusChange]:
    """Cancel active runs and archive ended ones, all or none. Waits for sessions that are writing to them.

    Returns:
        One entry per run found. If a run of `wanted` is missing or not allowed, nothing was changed.
    """
    return await _SET_STATUSES.all(
        connection, key_id=key_id, task=task, ids=list(wanted), statuses=list(wanted.values())
    )


async def label_run(
    connection: Connection, *, key_id: int, task: str, trajectory_id: int, key: str, value: object, author: str
) -> bool:
    """Set the label of this key and author on a run.

    Returns:
        False if the run does not exist, or its labels would be too many or too large.
    """
    labelled = await _LABEL.first(
        connection,
        key_id=key_id,
        task=task,
        id=trajectory_id,
        key=key,
        value=Jsonb(value),
        author=author,
        most=MOST_LABELS,
        most_bytes=MOST_LABEL_BYTES,
    )
    return labelled is not None


async def find_run_of_key(connection: Connection, *, key_id: int, trajectory_id: int) -> RunOfKey:
    """Return the run of this id, of any task of the collection.

    Raises:
        NotFoundError: The collection has no such run.
    """
    return await _FIND_OF_KEY.one(connection, key_id=key_id, id=trajectory_id)


async def list_events(
    connection: Connection,
    *,
    key_id: int,
    trajectory_id: int,
    limit: int,
    after: tuple[datetime, int, int, int] | None = None,
) -> list[RunEvent]:
    """Return the events of a run, oldest first, after the event with this key."""
    at, rank, position, attempt = after or (None, None, None, None)
    return await _LIST_EVENTS.all(
        connection,
        key_id=key_id,
        id=trajectory_id,
        after_at=at,
        after_rank=rank,
        after_position=position,
        after_attempt=attempt,
        detail_length=DETAIL_LENGTH,
        limit=limit,
    )
