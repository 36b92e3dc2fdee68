"""The endpoints of planning: the load of the coming days, and the quiet minutes near a wished time.

A collection plans one at a time: a thousand routines that fire every minute take the database seconds.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from litestar import get, post
from litestar.params import Parameter

from routines_api.http.access import Door, place_of
from routines_api.http.sealing import cadence_of
from routines_api.http.times import AS_TIME, time_of
from routines_api.openapi.description import operation
from routines_api.schemas.cadences import CadenceSuggest
from routines_api.schemas.planning import ScheduleLoad, Suggestions
from routines_core.db import planning as db
from routines_core.db.collections import find_collection
from routines_core.db.keys import AuthContext
from routines_core.errors import InvalidError

MINUTES = {"minute": 1, "hour": 60}
MOST_DAYS = {"minute": 8, "hour": 92}
"""The longest time that one answer covers, by length of its buckets."""
WEEK = timedelta(days=7)

From = Annotated[
    str | None,
    Parameter(query="from", description="Only slots at this time or later; by default the present hour.", **AS_TIME),
]
To = Annotated[
    str | None,
    Parameter(description="Only slots before this time; by default a week after `from`.", **AS_TIME),
]
BucketLength = Annotated[
    Literal["minute", "hour"],
    Parameter(description="The length of a bucket. An answer covers at most 8 days by minute and 92 by hour."),
]


@get("/schedule-load/{collection:str}", tags=["Routines"], **operation("getScheduleLoad"))
async def get_schedule_load(
    auth: AuthContext, door: Door, *, from_: From = None, to: To = None, bucket: BucketLength = "hour"
) -> ScheduleLoad:
    """Show the load of the schedule.

    Coming slots with the time that their runs usually take, and beside them what past slots became. Buckets without any
    slot are left out. Paused routines have no coming slots, and deleted ones no past.
    """
    async with place_of(door.services.plans, auth.collection_id), door.open(auth) as caller:
        since = _hour(datetime.now(UTC)) if from_ is None else time_of("from", from_)
        until = since + WEEK if to is None else time_of("to", to)
        if not since < until:
            raise InvalidError("to: must be later than from.", "to")
        if until - since > timedelta(days=MOST_DAYS[bucket]):
            raise InvalidError(f"to: must be at most {MOST_DAYS[bucket]} days after from, by {bucket}.", "to")
        await find_collection(caller.connection, caller.key_id)
        buckets = await db.schedule_load(
            caller.connection, key_id=caller.key_id, since=since, until=until, minutes=MINUTES[bucket]
        )
    return ScheduleLoad(buckets)


@post(
    "/cadence-suggest/{collection:str}",
    status_code=200,
    tags=["Routines"],
    **operation("suggestCadence", body=CadenceSuggest),
)
async def suggest_cadence(door: Door) -> Suggestions:
    """Suggest quiet minutes near a cadence.

    The quietest first, and of those the nearest; the wished cadence itself is among them. Nothing is saved.
    """
    auth = await door.admit()
    async with (
        door.body(auth) as content,
        place_of(door.services.plans, auth.collection_id),
        door.open(auth, content) as caller,
    ):
        body = await caller.body(CadenceSuggest)
        await find_collection(caller.connection, caller.key_id)
        found = await db.quiet_minutes(
            caller.connection, key_id=caller.key_id, wish=cadence_of(body.cadence), window_minutes=body.window_minutes
        )
    return Suggestions(found)


def _hour(time: datetime) -> datetime:
    return time.replace(minute=0, second=0, microsecond=0)


HANDLERS = [get_schedule_load, suggest_cadence]
