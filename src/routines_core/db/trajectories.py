"""Trajectories as clients start, read and change them: sql/queries/trajectories.sql called from Python."""

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
"""How far a task's runs are counted for a list."""
MOST_MEASURED = 10_000
"""How many of a task's newest ended runs the durations are taken of."""
MOST_LABELS = 100
"""Labels that one run may have."""


class Trajectory(msgspec.Struct, frozen=True):
    """One run of a task, whole, in the shape that clients decode. Times are UTC; no secret is in it."""

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


class Run(msgspec.Struct, frozen=True):
    """A trajectory's summary."""

    trajectory_id: int
    workflow_id: str
    status: str
    created_at: datetime
    scheduled_for: datetime | None
    trigger: str
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None


class RunSpec(msgspec.Struct, frozen=True):
    """A run to start.

    Attributes:
        init_params: Merged over the task's own; each key must be declared there.
        file_paths: Paths of the file store, handed on as init_params.file_paths; None: no file was sent.
        id: Drawn before by `draw_trajectory_id`, where secrets are bound to it; None: the database gives one.
    """

    init_params: dict[str, Any] = {}
    secret_params: dict[str, SealedSecret] = {}
    webhook_url: str | None = None
    webhook_secret: SealedSecret | None = None
    file_paths: list[str] | None = None
    id: int | None = None


class Stats(msgspec.Struct, frozen=True):
    """How a task's runs went.

    Attributes:
        counts: Runs by status; a status that none has is absent.
        measured: Of how many runs the durations are: the newest that started and ended.
    """

    counts: dict[str, int]
    measured: int
    avg_seconds: float | None
    min_seconds: float | None
    max_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None


class StatusChange(msgspec.Struct, frozen=True):
    """A status that was asked for.

    Attributes:
        status: What the run had.
        wanted: What it shall have.
        is_allowed: Whether the one may follow the other.
    """

    id: int
    status: str
    wanted: str
    is_allowed: bool


class RunOfKey(msgspec.Struct, frozen=True):
    """A run, as far as its events need it."""

    trajectory_id: int
    workflow_id: str
    status: str


class RunEvent(msgspec.Struct, frozen=True):
    """Something that happened to a run; the view routines.run_events says what each field means."""

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
        """Its place among the events of its run."""
        return self.at, self.rank, self.position, self.attempt


class _Total(msgspec.Struct):
    total: int


class _Id(msgspec.Struct):
    id: int


_FIND = Statement("trajectories.find_trajectory", Trajectory)
_LIST = Statement("trajectories.list_trajectories", Trajectory)
_COUNT = Statement("trajectories.count_trajectories", _Total)
_LIST_RUNS = Statement("trajectories.list_runs", Run)
_STATS = Statement("trajectories.stats", Stats)
_DRAW_ID = Statement("trajectories.draw_trajectory_id", _Id)
_START = Statement("trajectories.start_run", _Id)
_ENDED = Statement("trajectories.ended_runs", _Id)
_SET_STATUSES = Statement("trajectories.set_statuses", StatusChange)
_LABEL = Statement("trajectories.label", _Id)
_FIND_OF_KEY = Statement("trajectories.find_run_of_key", RunOfKey)
_LIST_EVENTS = Statement("trajectories.list_events", RunEvent)


async def find_trajectory(connection: Connection, *, key_id: int, task: str, trajectory_id: int) -> Trajectory:
    """The run of this id.

    Raises:
        NotFoundError: There is none of this task in this collection.
    """
    found = await _FIND.first(connection, key_id=key_id, task=task, id=trajectory_id)
    if found is None:
        raise NotFoundError
    return found


async def list_trajectories(
    connection: Connection,
    *,
    key_id: int,
    task_id: int,
    status: str | None,
    routine_id: int | None,
    limit: int,
    offset: int,
) -> tuple[list[Trajectory], int]:
    """A page of a task's runs, newest first, and how many there are in all; None for status or routine means any.

    They are counted up to MOST_COUNTED. The page has one run more than `limit` where there is another page.
    """
    filters = {"key_id": key_id, "task_id": task_id, "status": status, "routine_id": routine_id}
    found = await _LIST.all(connection, **filters, limit=limit + 1, offset=offset)
    return found, (await _COUNT.one(connection, **filters, most=MOST_COUNTED)).total


async def list_runs(
    connection: Connection, *, key_id: int, task: str, name: str, limit: int, before: int | None = None
) -> list[Run]:
    """A routine's runs, newest first, those older than `before`; none where there is no such routine."""
    return await _LIST_RUNS.all(connection, key_id=key_id, task=task, name=name, limit=limit, before=before)


async def stats_of_task(connection: Connection, *, key_id: int, task: str) -> Stats:
    """How the runs of a task went.

    Raises:
        NotFoundError: There is no such task.
    """
    return await _STATS.one(connection, key_id=key_id, task=task, most=MOST_MEASURED)


async def draw_trajectory_id(connection: Connection, *, key_id: int) -> int:
    """An id that no run has or will be given: for one to be started, since its secrets are bound to it."""
    return (await _DRAW_ID.one(connection, key_id=key_id)).id


async def start_run(connection: Connection, spec: RunSpec, *, key_id: int, task: str) -> int | None:
    """Start a run and store its secrets: the trajectory's id.

    Returns None, and starts nothing, where there is no such task or it does not declare a key of the parameters.
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
            **as_parameters(sealed),
        )
    return started.id if started else None


async def ended_runs(connection: Connection, trajectory_ids: Sequence[int]) -> set[int]:
    """Those of these runs that have ended."""
    return {row.id for row in await _ENDED.all(connection, ids=list(trajectory_ids))}


async def set_statuses(
    connection: Connection, wanted: Mapping[int, str], *, key_id: int, task: str
) -> list[StatusChange]:
    """Cancel active runs and archive ended ones: all or none. Waits for whoever is writing to one of them.

    Nothing was changed where a run of `wanted` is missing in what is returned, or is not allowed.
    """
    return await _SET_STATUSES.all(
        connection, key_id=key_id, task=task, ids=list(wanted), statuses=list(wanted.values())
    )


async def label_run(
    connection: Connection, *, key_id: int, task: str, trajectory_id: int, key: str, value: object, author: str
) -> bool:
    """Put a label on a run, in the place of the one of this key and author; False: no such run, or no room on it."""
    labelled = await _LABEL.first(
        connection,
        key_id=key_id,
        task=task,
        id=trajectory_id,
        key=key,
        value=Jsonb(value),
        author=author,
        most=MOST_LABELS,
    )
    return labelled is not None


async def find_run_of_key(connection: Connection, *, key_id: int, trajectory_id: int) -> RunOfKey:
    """The run of this id, of whichever task of the collection.

    Raises:
        NotFoundError: There is none.
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
    """What happened to a run, oldest first, after the event of this key."""
    at, rank, position, attempt = after or (None, None, None, None)
    return await _LIST_EVENTS.all(
        connection,
        key_id=key_id,
        id=trajectory_id,
        after_at=at,
        after_rank=rank,
        after_position=position,
        after_attempt=attempt,
        limit=limit,
    )
