"""The endpoint of the timeline: what many routines did and will do, beside each other."""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from litestar import Response, get
from litestar.params import Parameter

from routines_api.endpoints.ledger import RoutineIds, ids_of
from routines_api.http.access import Door, place_of
from routines_api.http.pagination import Cursor, decode_cursor, next_link
from routines_api.http.times import AS_TIME, time_of
from routines_api.openapi.description import operation
from routines_api.schemas.timeline import Timeline
from routines_core.db import timeline as db
from routines_core.db.collections import find_collection
from routines_core.db.keys import AuthContext
from routines_core.db.report import After
from routines_core.errors import InvalidError

BEHIND, LENGTH = timedelta(hours=12), timedelta(hours=18)
"""The time that is shown by default: how far before now it begins, and how long it is."""
MOST_HOURS = 48
"""The longest time that one answer covers."""
MOST_BUCKETS = 200
"""How many buckets that time may have."""
_PART_OF_NAME = re.compile(r"[a-z0-9_/-]*", re.ASCII)

From = Annotated[
    str | None,
    Parameter(
        query="from",
        description="Only what was going on, or is or was due, at this time or later; by default 12 hours ago.",
        **AS_TIME,
    ),
]
To = Annotated[
    str | None,
    Parameter(
        description="Only what began, or is or was due, before this time; by default 18 hours after `from`.", **AS_TIME
    ),
]
BucketSeconds = Annotated[
    int | None,
    Parameter(
        ge=1,
        le=MOST_HOURS * 3600,
        description=f"What is of one kind and begins in the same bucket is one mark. A time has at most {MOST_BUCKETS} "
        "buckets, which begin at multiples of their length since 1970; by default as many.",
    ),
]
PartOfName = Annotated[
    str,
    Parameter(
        query="q",
        max_length=201,
        description="Only routines with this text in `task/routine`.",
        schema_extra={"pattern": f"^{_PART_OF_NAME.pattern}$"},
    ),
]
LaneLimit = Annotated[int, Parameter(ge=1, le=100, description="Maximum number of routines on a page.")]


@get("/timeline/{collection:str}", tags=["Routines"], **operation("getTimeline"))
async def get_timeline(
    auth: AuthContext,
    door: Door,
    *,
    from_: From = None,
    to: To = None,
    bucket_seconds: BucketSeconds = None,
    ids: RoutineIds = None,
    part_of_name: PartOfName = "",
    limit: LaneLimit = 50,
    cursor: Cursor = None,
) -> Response[Timeline]:
    """Show what routines did and will do, beside each other.

    By task and name: for each routine its runs, whatever started them, skipped slots, and slots to come. Deleted
    routines are left out. Of runs that began before `from`, the newest 10 of each routine and trigger can be shown.
    """
    async with place_of(door.services.plans, auth.collection_id), door.open(auth) as caller:
        since, until = _span(from_, to)
        bucket = _bucket(bucket_seconds, until - since)
        if not _PART_OF_NAME.fullmatch(part_of_name):
            raise InvalidError("q: must consist of lower-case letters, digits, - and _, and at most one /.", "q")
        wanted = None if ids is None else ids_of(ids)
        after = decode_cursor(cursor, After)
        await find_collection(caller.connection, caller.key_id)
        lanes = await db.timeline(
            caller.connection,
            key_id=caller.key_id,
            since=since,
            until=until,
            bucket_seconds=bucket,
            limit=limit + 1,
            ids=wanted,
            part_of_name=part_of_name,
            cursor=after,
        )
    headers: dict[str, str] = {}
    if len(lanes) > limit:
        last = lanes[limit - 1]
        filters = {"from": _text(since), "to": _text(until), "bucket_seconds": bucket}
        filters |= {"ids": ids, "q": part_of_name or None}
        headers["Link"] = next_link(caller.request, limit, (last.task, last.routine, last.routine_id), **filters)
    return Response(Timeline(since, until, bucket, lanes[:limit]), headers=headers)


def _span(from_: str | None, to: str | None) -> tuple[datetime, datetime]:
    """Return from when until when the timeline is asked for.

    Raises:
        InvalidError: There is no such time, or it is too long.
    """
    since = datetime.now(UTC).replace(microsecond=0) - BEHIND if from_ is None else time_of("from", from_)
    until = since + LENGTH if to is None else time_of("to", to)
    if not since < until:
        raise InvalidError("to: must be later than from.", "to")
    if until - since > timedelta(hours=MOST_HOURS):
        raise InvalidError(f"to: must be at most {MOST_HOURS} hours after from.", "to")
    return since, until


def _bucket(given: int | None, length: timedelta) -> int:
    """Return the length of a bucket in seconds.

    Raises:
        InvalidError: There would be too many.
    """
    least = math.ceil(length.total_seconds() / MOST_BUCKETS)
    if given is not None and given < least:
        raise InvalidError(f"bucket_seconds: must be at least {least} for this time.", "bucket_seconds")
    return given or least


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


HANDLERS = [get_timeline]
