"""The endpoints of trajectories: lists, single runs, stats, statuses, labels and events.

A trajectory is what clients call a run. Both words mean a row of the table routines.trajectories.
"""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from litestar import Response, get, post
from litestar.params import Parameter

from routines_api.http.access import Caller, Door
from routines_api.http.large_answers import in_pieces, large_answer
from routines_api.http.pagination import Cursor, decode_cursor, next_link
from routines_api.http.paths import LARGEST_ID, id_of
from routines_api.openapi.description import operation
from routines_api.schemas.trajectories import (
    LabelCreate,
    StatsRead,
    StatusChanges,
    TrajectoryPage,
    WorkflowLog,
    stats_read,
    workflow_log,
)
from routines_core.db import trajectories as db
from routines_core.db.tasks import find_task
from routines_core.db.trajectories import (
    StatusChange,
    Trajectory,
    find_trajectory,
    list_trajectories,
    with_large_steps,
)
from routines_core.errors import ConflictError, Fault, FaultsConflictError, FaultsError

Status = Literal["pending", "running", "completed", "failed", "cancelled", "archived"]
_WORKFLOW_ID = re.compile(r"flow-.+--([0-9]{1,20})", re.ASCII)

TrajectoryLimit = Annotated[int, Parameter(ge=1, le=100, description="Maximum number of runs on a page.")]
PageNumber = Annotated[
    int,
    Parameter(
        ge=1,
        le=1_000_000,
        description="The number of the page, from 1. Runs that start in between move the pages on, so a run may be "
        "listed twice; with a cursor none is.",
    ),
]
StatusFilter = Annotated[Status | None, Parameter(description="Only runs with this status.")]
RoutineFilter = Annotated[
    int | None, Parameter(ge=1, le=LARGEST_ID, description="Only runs started by the routine with this id.")
]
EventLimit = Annotated[int, Parameter(ge=1, le=1000, description="Maximum number of events on a page.")]


@get("/db/trajectories/{collection:str}/{task:str}", tags=["Trajectories"], **operation("listTrajectories"))
async def get_trajectories(
    task: str,
    caller: Caller,
    *,
    limit: TrajectoryLimit = 10,
    page: PageNumber = 1,
    cursor: Cursor = None,
    status: StatusFilter = None,
    triggered_by_routine_id: RoutineFilter = None,
) -> Response[TrajectoryPage]:
    """List the runs of a task.

    Newest first. These are summaries: inputs and outputs of more than 2 KiB are left out, and after 4 MiB of a page so
    are the steps and parameters of the remaining runs. Where something was left out, the step and the run have
    `truncated`; get the run to see it all. With a cursor, `page` counts from there.
    """
    before = decode_cursor(cursor, int)
    found = await find_task(caller.connection, key_id=caller.key_id, name=task)
    trajectories, total = await list_trajectories(
        caller.connection,
        key_id=caller.key_id,
        task_id=found.id,
        status=status,
        routine_id=triggered_by_routine_id,
        limit=limit,
        offset=(page - 1) * limit,
        before=before,
    )
    has_more = len(trajectories) > limit
    filters = {"status": status, "triggered_by_routine_id": triggered_by_routine_id}
    link = next_link(caller.request, limit, trajectories[limit - 1].trajectory_id, **filters) if has_more else None
    return Response(
        TrajectoryPage(trajectories[:limit], total, page, limit, has_more), headers={"Link": link} if link else {}
    )


@get(
    "/db/trajectory/{collection:str}/{task:str}/{trajectory_id:str}",
    tags=["Trajectories"],
    **operation("getTrajectory"),
)
async def get_trajectory(task: str, trajectory_id: str, door: Door) -> Response[Trajectory]:
    """Get a run.

    With its steps. Runs of a deleted task are found under its last name. If the inputs and outputs of the steps take
    more than 16 MiB, those of the largest steps are left out; such a step, and the run, has `truncated`.
    """
    auth = await door.admit()
    async with door.open(auth) as caller:
        run = id_of(trajectory_id)
        found = await find_trajectory(
            caller.connection,
            key_id=caller.key_id,
            task=task,
            trajectory_id=run,
            temporal_ui=door.services.settings.temporal_ui,
        )
    if not found.truncated:
        return Response(found)
    async with large_answer(door, auth) as caller:
        return in_pieces(door, *await with_large_steps(caller.connection, found, key_id=caller.key_id))


@get("/db/stats/{collection:str}/{task:str}", tags=["Trajectories"], **operation("getStats"))
async def get_stats(task: str, caller: Caller) -> StatsRead:
    """Count the runs of a task.

    By status, with the success rate and the durations of the newest runs.
    """
    return stats_read(await db.stats_of_task(caller.connection, key_id=caller.key_id, task=task))


@post(
    "/trajectory/{collection:str}/{task:str}/statuses",
    tags=["Trajectories"],
    status_code=200,
    **operation("setStatuses", body=StatusChanges, conflict=True),
)
async def set_statuses(task: str, caller: Caller) -> dict[str, str]:
    """Cancel or archive runs.

    Changes all of them, or none. Only active runs can be cancelled, and only ended runs archived. Repeating a request
    changes nothing. The answer repeats the statuses that were asked for.
    """
    body = await caller.body(StatusChanges)
    wanted = {int(run): status for run, status in sorted(body.root.items(), key=lambda item: int(item[0]))}
    found = await db.set_statuses(caller.connection, wanted, key_id=caller.key_id, task=task)
    if len(found) < len(wanted):
        await find_task(caller.connection, key_id=caller.key_id, name=task)  # no such runs, or no such task
    _refuse(found, wanted)
    return {str(run): status for run, status in wanted.items()}


def _refuse(found: list[StatusChange], wanted: dict[int, str]) -> None:
    """Raise an error that lists every reason why the changes cannot be made."""
    missing = [
        Fault(str(run), "the task has no such run") for run in sorted(set(wanted) - {change.id for change in found})
    ]
    not_allowed = [
        Fault(str(change.id), f"is {change.status} and cannot be {change.wanted}")
        for change in found
        if not change.is_allowed
    ]
    if missing:
        raise FaultsError([*missing, *not_allowed])
    if not_allowed:
        raise FaultsConflictError(not_allowed)


@post(
    "/trajectory/{collection:str}/{task:str}/{trajectory_id:str}/labels",
    tags=["Trajectories"],
    status_code=200,
    **operation("labelTrajectory", body=LabelCreate, conflict=True),
)
async def add_label(task: str, trajectory_id: str, caller: Caller) -> Trajectory:
    """Label a run.

    Replaces the label with the same key and author, if there is one. A run may have at most 100 labels, of 64 KiB in
    all. Answers the run; if its steps are large, the largest are truncated.
    """
    body, run = await caller.body(LabelCreate), id_of(trajectory_id)
    where: dict[str, Any] = {"key_id": caller.key_id, "task": task, "trajectory_id": run}
    is_labelled = await db.label_run(caller.connection, **where, **body.model_dump())
    found = await find_trajectory(caller.connection, **where)
    if not is_labelled:
        raise ConflictError(
            f"A run may have at most {db.MOST_LABELS} labels, which take at most {db.MOST_LABEL_BYTES} bytes together."
        )
    return found


@get("/workflows-logs/{workflow_id:str}", tags=["Trajectories"], **operation("getWorkflowLog"))
async def get_log(
    workflow_id: str, caller: Caller, *, limit: EventLimit = 1000, cursor: Cursor = None
) -> Response[WorkflowLog]:
    """List the events of a run.

    Oldest first: its creation, its first claim, each step with its attempts, its end, and its webhook. The run is the
    one whose id follows the last --.
    """
    after = decode_cursor(cursor, tuple[datetime, int, int, int])
    parsed = _WORKFLOW_ID.fullmatch(workflow_id)
    run = await db.find_run_of_key(
        caller.connection, key_id=caller.key_id, trajectory_id=id_of(parsed[1]) if parsed else 0
    )
    events = await db.list_events(
        caller.connection, key_id=caller.key_id, trajectory_id=run.trajectory_id, limit=limit + 1, after=after
    )
    link = {"Link": next_link(caller.request, limit, events[limit - 1].key)} if len(events) > limit else {}
    return Response(workflow_log(run, events[:limit]), headers=link)


HANDLERS = [get_trajectories, get_trajectory, get_stats, set_statuses, add_label, get_log]
