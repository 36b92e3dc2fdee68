"""The endpoints of what became of slots: the report of a collection, and the slots of a routine that never ran.

A collection makes one report at a time, and few are made at once: a month of ten thousand routines takes the database
seconds.
"""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple

from litestar import Response, get
from litestar.params import Parameter

from routines_api.http.access import ApiRequest, Caller, Door, place_of
from routines_api.http.pagination import Cursor, decode_cursor, next_link
from routines_api.http.times import AS_TIME, time_of
from routines_api.openapi.description import operation
from routines_api.schemas.report import Report, as_csv, report_line
from routines_core.db import report as db
from routines_core.db.collections import find_collection
from routines_core.db.keys import AuthContext
from routines_core.db.report import After, Gap, Reason, ReportRow
from routines_core.db.routines import find_routine
from routines_core.errors import InvalidError

MOST_DAYS = 366
"""The longest time that a report covers, and a list of gaps."""
MOST_ROUTINES = 10_000
"""Maximum number of routines on a page of a report."""
GAP_DAYS = 30
"""How far back gaps are listed by default."""
JSON, CSV = "application/json", "text/csv"
MICROSECOND = timedelta(microseconds=1)

From = Annotated[
    str | None,
    Parameter(
        query="from",
        description="Only slots at this time or later; by default 00:00 UTC of the last day before `to`.",
        **AS_TIME,
    ),
]
GapsFrom = Annotated[
    str | None,
    Parameter(
        query="from",
        description=f"Only slots at this time or later; by default {GAP_DAYS} days before `to`.",
        **AS_TIME,
    ),
]
To = Annotated[str | None, Parameter(description="Only slots before this time; by default now.", **AS_TIME)]
LateAfter = Annotated[
    int,
    Parameter(ge=0, le=MOST_DAYS * 86400, description="How long after its slot was due a run may begin in time."),
]
Format = Annotated[
    Literal["json", "csv"] | None,
    Parameter(query="format", description="json or csv; by default what the header Accept prefers."),
]
RoutineLimit = Annotated[int, Parameter(ge=1, le=MOST_ROUTINES, description="Maximum number of routines on a page.")]
GapLimit = Annotated[int, Parameter(ge=1, le=1000, description="Maximum number of slots on a page.")]
OnlyReason = Annotated[Reason | None, Parameter(description="Only slots that were skipped for this reason.")]
Include = Annotated[
    Literal["failed"] | None, Parameter(description="failed: also slots whose run failed, with the reason failed.")
]


@get(
    "/report/{collection:str}",
    tags=["Routines"],
    **operation("getReport", other_types=(CSV,)),
)
async def get_report(
    auth: AuthContext,
    door: Door,
    *,
    from_: From = None,
    to: To = None,
    late_after_seconds: LateAfter = 60,
    format_: Format = None,
    limit: RoutineLimit = 1000,
    cursor: Cursor = None,
) -> Response[Report]:
    """Report what became of the slots of a time.

    For all routines together, for each task and for each routine: how many slots were due, and of those how many
    started a run, in time or late, how these ended, how many were skipped and why, and how many failures a later run
    made up for. Slots of deleted routines count; slots that are not due yet do not. As CSV, one line for each routine.
    """
    async with place_of(door.services.plans, auth.collection_id):
        async with door.open(auth) as caller:
            since, until = _span(from_, to, _midnight)
            after = decode_cursor(cursor, After)
            await find_collection(caller.connection, caller.key_id)
            asked = _Asked(since, until, late_after_seconds, format_ or _preferred(caller.request), limit)
            rows = await db.report(
                caller.connection,
                key_id=caller.key_id,
                since=since,
                until=until,
                late_after_seconds=late_after_seconds,
                limit=limit + 1,
                with_sums=asked.form == "json",
                cursor=after,
            )
            complete_since = await db.complete_since(caller.connection, since)
        # Ten thousand routines take a twentieth of a second, in which other requests go on.
        return await asyncio.to_thread(asked.answer, caller.request, rows, complete_since)


class _Asked(NamedTuple):
    """What a report is asked for."""

    since: datetime
    until: datetime
    late_after_seconds: int
    form: Literal["json", "csv"]
    limit: int

    def answer(self, request: ApiRequest, rows: list[ReportRow], complete_since: datetime | None) -> Response[Any]:
        """Return the answer with these rows, of which one may be of the next page."""
        found = [row for row in rows if row.routine_id is not None]
        headers = {"Vary": "Accept"}
        if len(found) > self.limit:
            headers["Link"] = self._link(request, found[self.limit - 1])
        if self.form == "csv":
            name = f"report-{request.path_params['collection']}-{self.since:%Y-%m-%d}.csv"
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
            headers |= {"Complete-Since": _text(complete_since)} if complete_since else {}
            return Response(as_csv(found[: self.limit]), media_type=CSV, headers=headers)
        routines = [report_line(row) for row in found[: self.limit]]
        answered = Report(self.since, self.until, self.late_after_seconds, complete_since, routines)
        if sums := [report_line(row) for row in rows if row.routine_id is None]:
            answered.total, *answered.tasks = sums
        return Response(answered, headers=headers)

    def _link(self, request: ApiRequest, last: ReportRow) -> str:
        filters = {"from": _text(self.since), "to": _text(self.until), "late_after_seconds": self.late_after_seconds}
        return next_link(request, self.limit, (last.task, last.routine, last.routine_id), **filters, format=self.form)


@get("/routines/{collection:str}/{task:str}/{name:str}/gaps", tags=["Routines"], **operation("listGaps"))
async def list_gaps(
    task: str,
    name: str,
    caller: Caller,
    *,
    from_: GapsFrom = None,
    to: To = None,
    reason: OnlyReason = None,
    include: Include = None,
    limit: GapLimit = 100,
    cursor: Cursor = None,
) -> Response[list[Gap]]:
    """List the slots of a routine that never ran.

    Oldest first, one by one, with the reason: those that were skipped, and those of a current pause. Slots that are due
    and may still run are not among them.
    """
    after = decode_cursor(cursor, datetime)
    since, until = _span(from_, to, lambda until: until - timedelta(days=GAP_DAYS))
    routine = await find_routine(caller.connection, key_id=caller.key_id, task=task, name=name)
    found = await db.gaps(
        caller.connection,
        key_id=caller.key_id,
        routine_id=routine.id,
        since=since,
        until=until,
        limit=limit + 1,
        reason=reason,
        with_failed=include == "failed",
        cursor=after,
    )
    headers: dict[str, str] = {}
    if len(found) > limit:
        filters = {"from": _text(since), "to": _text(until), "reason": reason, "include": include}
        headers["Link"] = next_link(caller.request, limit, found[limit - 1].scheduled_for, **filters)
    return Response(found[:limit], headers=headers)


def _span(from_: str | None, to: str | None, default: Callable[[datetime], datetime]) -> tuple[datetime, datetime]:
    """Return from when until when slots are asked for, by default from `default` of the end until now.

    Raises:
        InvalidError: There is no such time, or it is too long.
    """
    until = datetime.now(UTC).replace(microsecond=0) if to is None else time_of("to", to)
    since = default(until) if from_ is None else time_of("from", from_)
    if not since < until:
        raise InvalidError("to: must be later than from.", "to")
    if until - since > timedelta(days=MOST_DAYS):
        raise InvalidError(f"to: must be at most {MOST_DAYS} days after from.", "to")
    return since, until


def _midnight(until: datetime) -> datetime:
    """Return the beginning of the last day before `until`."""
    return (until - MICROSECOND).replace(hour=0, minute=0, second=0, microsecond=0)


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _preferred(request: ApiRequest) -> Literal["json", "csv"]:
    """Return csv if the header Accept names it with a greater weight than JSON, whatever it says of other types."""
    weights: dict[str, float] = {}
    for each in request.headers.get("accept", "").lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        found = [_WEIGHT.fullmatch(parameter) for parameter in parameters]
        weights[kind] = min((float(match[1]) for match in found if match), default=1.0)
    return "csv" if weights.get(CSV, 0) > weights.get(JSON, 0) else "json"


_WEIGHT = re.compile(r"q=([01](?:\.[0-9]{0,3})?)", re.ASCII)

HANDLERS = [get_report, list_gaps]
