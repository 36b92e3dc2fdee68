"""What has changed since an earlier answer: sql/queries/changes.sql called from Python."""

from datetime import datetime
from typing import Any

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement

MOST_CHANGES = 500
"""Maximum number of routines named in an answer."""
MOST_ENDED_RUNS = 20_000
"""Maximum number of runs looked at that have ended since."""


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """What an answer has seen.

    Attributes:
        xid: The effects of all transactions with a lower number.
        at: When it began.
    """

    xid: int
    at: datetime


class ChangedRoutines(msgspec.Struct, frozen=True):
    """The routines of a collection that may have changed.

    Attributes:
        xid: Of the moment of this answer.
        at: Of the moment of this answer.
        ids: Without those that were deleted.
        is_whole: False if they are not all: the moment is too old, or too much has changed.
    """

    xid: str
    at: datetime
    ids: list[int]
    deleted: list[int]
    is_whole: bool


class ChangedRun(msgspec.Struct, frozen=True):
    """Whether a run may have changed.

    Attributes:
        xid: Of the moment of this answer.
        at: Of the moment of this answer.
        has_changed: True as well if the moment is too old to tell.
    """

    xid: str
    at: datetime
    has_changed: bool


_ROUTINES = Statement("changes.changed_routines", ChangedRoutines)
_ROUTINE = Statement("changes.changed_routine", ChangedRoutines)
_RUN = Statement("changes.changed_run", ChangedRun)


async def changed_routines(
    connection: Connection, *, key_id: int, since: Moment | None, routine_id: int | None = None
) -> ChangedRoutines:
    """Return what may have changed since a moment, of one routine if it is given; nothing for None, which begins."""
    if routine_id is not None:
        return await _ROUTINE.one(connection, key_id=key_id, routine_id=routine_id, **_parameters(since))
    return await _ROUTINES.one(
        connection, key_id=key_id, most=MOST_CHANGES, most_runs=MOST_ENDED_RUNS, **_parameters(since)
    )


async def changed_run(
    connection: Connection, *, key_id: int, since: Moment | None, task: str, run_id: int
) -> ChangedRun:
    """Return whether a run of a task may have changed since a moment; no for None, which begins.

    Raises:
        NotFoundError: The task has no such run.
    """
    return await _RUN.one(connection, key_id=key_id, task=task, run_id=run_id, **_parameters(since))


def _parameters(since: Moment | None) -> dict[str, Any]:
    return {"since_xid": str(since.xid) if since else None, "since": since.at if since else None}
