"""The endpoints of the ledger: the outcome of each slot, explanations of times, and coming slots."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get
from litestar.params import Parameter

from routines_api.http.access import Caller
from routines_api.http.pagination import Cursor, decode_cursor, page
from routines_api.http.paths import id_of
from routines_api.http.times import AS_TIME, time_of
from routines_api.openapi.description import operation
from routines_api.schemas.ledger import Slots, WhyRead
from routines_core.db import ledger as db
from routines_core.db.collections import find_collection
from routines_core.db.ledger import Occurrence, Outcome, RecentOutcomes, Why
from routines_core.db.routines import Routine, find_routine
from routines_core.errors import InvalidError

Time = Annotated[str | None, Parameter(description="RFC 3339, for example 2026-05-04T09:00:00Z.", **AS_TIME)]
Since = Annotated[str | None, Parameter(description="Only slots at this time or later; RFC 3339.", **AS_TIME)]
Until = Annotated[str | None, Parameter(description="Only slots before this time; RFC 3339.", **AS_TIME)]
OutcomeFilter = Annotated[
    Outcome | None, Parameter(description="started, the reason of a skip, or skipped for all reasons.")
]
MOST_IDS = 500
"""Maximum number of routines whose latest outcomes one request may ask for."""
_IDS: Any = {"schema_extra": {"pattern": r"^[1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*$"}}
RoutineIds = Annotated[
    str | None, Parameter(max_length=8000, description="Ids of routines, at most 500, separated by commas.", **_IDS)
]
SlotCount = Annotated[int, Parameter(ge=1, le=50, description="Maximum number of slots of each routine.")]
OccurrenceLimit = Annotated[int, Parameter(ge=1, le=1000, description="Maximum number of rows on a page.")]
Count = Annotated[int, Parameter(ge=1, le=db.MAX_SLOTS, description="How many slots.")]


class LedgerController(Controller):
    """Operations on the ledger of a routine."""

    path = "/routines/{collection:str}/{task:str}/{name:str}"

    @get("/occurrences", **operation("listOccurrences"))
    async def occurrences(
        self,
        task: str,
        name: str,
        caller: Caller,
        *,
        since: Since = None,
        until: Until = None,
        outcome: OutcomeFilter = None,
        limit: OccurrenceLimit = 100,
        cursor: Cursor = None,
    ) -> Response[list[Occurrence]]:
        """List the outcomes of a routine's slots.

        Newest first. Each slot either started a run or was skipped for a reason. A row may cover a span of slots that
        were all missed, or all fell in a pause.
        """
        before = decode_cursor(cursor, datetime)
        routine = await _find(caller, task, name)
        found = await db.list_occurrences(
            caller.connection,
            key_id=caller.key_id,
            routine_id=routine.id,
            since=time_of("since", since) if since is not None else None,
            until=time_of("until", until) if until is not None else None,
            outcome=outcome,
            limit=limit + 1,
            cursor=before,
        )
        filters = {"since": since, "until": until, "outcome": outcome}
        return page(caller.request, found, limit, lambda row: row.scheduled_for, lambda row: row, **filters)

    @get("/why", **operation("explainTime"))
    async def why(self, task: str, name: str, caller: Caller, *, at: Time = None) -> WhyRead:
        """Explain a time, by default the routine's newest slot.

        Says whether it is a slot of this routine and what its outcome was, with the facts behind it: how a run failed,
        and what delayed it.
        """
        moment = time_of("at", at) if at is not None else None
        routine = await _find(caller, task, name)
        explained = await db.why(
            caller.connection,
            key_id=caller.key_id,
            routine_id=routine.id,
            at=moment,
        )
        return WhyRead(explained.sentence, msgspec.convert(explained, Why, from_attributes=True))

    @get("/next", **operation("listNextSlots"))
    async def next_slots(self, task: str, name: str, caller: Caller, *, count: Count = 10) -> Slots:
        """List the coming slots of a routine.

        While the routine is paused, those after the end of the pause. Empty if the pause has no end, and for manual
        routines.
        """
        routine = await _find(caller, task, name)
        slots = await db.next_slots(caller.connection, key_id=caller.key_id, routine_id=routine.id, count=count)
        return Slots(slots)


@get("/db/outcomes/{collection:str}", tags=["Routines"], **operation("listLatestOutcomes", required=("ids",)))
async def get_latest_outcomes(caller: Caller, *, ids: RoutineIds = None, slots: SlotCount = 1) -> list[RecentOutcomes]:
    """List the latest outcomes of several routines.

    For each routine, newest first: the newest rows of its ledger with the status of their runs, and its newest run-now.
    Gives an overview of many routines in one request. Ids that the collection does not have are left out.
    """
    found = ids_of(ids or "")
    await find_collection(caller.connection, caller.key_id)
    return await db.latest_outcomes(caller.connection, key_id=caller.key_id, routine_ids=found, slots=slots)


def ids_of(text: str) -> list[int]:
    """Parse a list of ids of routines in the query parameter `ids`.

    Raises:
        InvalidError: It is not a list of ids, or too long.
    """
    found = [id_of(each) for each in text.split(",")]
    if len(found) > MOST_IDS or not all(found):
        raise InvalidError(f"ids: must be 1 to {MOST_IDS} ids of routines, separated by commas.", "ids")
    return found


async def _find(caller: Caller, task: str, name: str) -> Routine:
    return await find_routine(caller.connection, key_id=caller.key_id, task=task, name=name)
