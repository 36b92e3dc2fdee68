"""The endpoints for clients that follow a collection or a run: what has changed since their last request."""

import base64
from typing import Annotated

import msgspec
from litestar import get
from litestar.params import Parameter

from routines_api.http.access import Caller
from routines_api.http.pagination import decode_cursor
from routines_api.http.paths import LARGEST_ID, id_of
from routines_api.openapi.description import operation
from routines_api.schemas.changes import Changes, RunChanges
from routines_api.schemas.routines import routine_read
from routines_core.db import changes as db
from routines_core.db.changes import ChangedRoutines, ChangedRun, Moment
from routines_core.db.collections import find_collection
from routines_core.db.routines import find_routines

Since = Annotated[
    str | None,
    Parameter(
        max_length=200, description="The `cursor` of an earlier answer. Without it, the answer has only a cursor."
    ),
]
RoutineId = Annotated[int | None, Parameter(ge=1, le=LARGEST_ID, description="Only this routine.")]


@get("/db/changes/{collection:str}", tags=["Routines"], **operation("listChangedRoutines"))
async def get_changes(caller: Caller, *, since: Since = None, routine: RoutineId = None) -> Changes:
    """List the routines that have changed since an earlier answer.

    Those that were created, changed or deleted, that had a slot, or of which a run was started, claimed by a worker or
    ended. A change may be in two answers. None is missing from both, except the end of a run that a person wrote in a
    transaction of more than 15 s. If `is_whole` is false, read everything again: the changes are too many for an
    answer, or the cursor is more than an hour old. What becomes true as time goes on, such as a run that takes
    unusually long, is no change.
    """
    moment = _moment(since)
    await find_collection(caller.connection, caller.key_id)
    found = await db.changed_routines(caller.connection, key_id=caller.key_id, since=moment, routine_id=routine)
    routines = await find_routines(caller.connection, key_id=caller.key_id, ids=found.ids) if found.is_whole else []
    # One that is missing has been deleted meanwhile, or there is no room for it.
    is_whole = found.is_whole and len(routines) == len(found.ids)
    shown = [routine_read(each) for each in routines]
    return Changes(_cursor(found), found.at, moment is None or is_whole, shown, found.deleted if is_whole else [])


@get(
    "/db/trajectory/{collection:str}/{task:str}/{trajectory_id:str}/changes",
    tags=["Trajectories"],
    **operation("getRunChanges"),
)
async def get_run_changes(task: str, trajectory_id: str, caller: Caller, *, since: Since = None) -> RunChanges:
    """Say whether a run has come further since an earlier answer.

    Counts its steps and the runs that it has started. Costs little, however large the run.
    """
    found = await db.changed_run(
        caller.connection, key_id=caller.key_id, since=_moment(since), task=task, run_id=id_of(trajectory_id)
    )
    return RunChanges(_cursor(found), found.at, found.has_changed)


def _moment(since: str | None) -> Moment | None:
    return decode_cursor(since, Moment, "since", "`cursor` of an earlier answer")


def _cursor(found: ChangedRoutines | ChangedRun) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(Moment(int(found.xid), found.at))).decode()
