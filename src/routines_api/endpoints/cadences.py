"""The endpoints of cadences: which types exist, and the slots that a cadence would have."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from litestar import Response, get, post
from litestar.params import Parameter

from routines_api.http.access import Caller, Door, place_of
from routines_api.http.pagination import Cursor, decode_cursor, next_link
from routines_api.http.sealing import cadence_of
from routines_api.openapi.description import operation
from routines_api.schemas.cadences import CadencePreview, CadenceSlots, CadenceTypeRead, cadence_types
from routines_api.schemas.times import YEARS
from routines_core.db import planning
from routines_core.db.collections import find_collection
from routines_core.db.keys import AuthContext
from routines_core.db.ledger import preview
from routines_core.db.planning import Preview
from routines_core.db.tasks import find_task
from routines_core.errors import InvalidError

YEAR = timedelta(days=366)
"""The longest time that a preview covers."""
MOST_SLOTS = 10_000
"""Maximum number of slots of a preview, over all its pages."""
PAGE_SLOTS = 1000
"""Number of slots on a page by default, and the maximum."""

PreviewLimit = Annotated[
    int | None,
    Parameter(
        ge=1, le=PAGE_SLOTS, description="Maximum number of slots on a page, by default 1000. Not with `count` alone."
    ),
]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Place(msgspec.Struct, array_like=True):
    """Where a page of a preview begins: after this slot, having shown so many, of those before `until`."""

    slot: _Time
    shown: Annotated[int, msgspec.Meta(ge=1, lt=MOST_SLOTS)]
    until: _Time

    def __post_init__(self) -> None:
        if self.slot.year not in YEARS:
            raise ValueError("no slot")


@get("/cadence-types/{collection:str}", tags=["Routines"], **operation("listCadenceTypes"))
async def list_cadence_types(caller: Caller) -> list[CadenceTypeRead]:
    """List the types of cadence.

    With the fields that each type takes, in display order. The list is the same for every collection.
    """
    await find_collection(caller.connection, caller.key_id)
    return cadence_types()


@post(
    "/cadence-preview/{collection:str}",
    status_code=200,
    tags=["Routines"],
    **operation("previewCadence", body=CadencePreview),
)
async def preview_cadence(
    auth: AuthContext, door: Door, *, limit: PreviewLimit = None, cursor: Cursor = None
) -> Response[CadenceSlots]:
    """List the coming slots of a cadence.

    Nothing is saved. With `count` these are the next slots; with `from`, `to`, `starts_at`, `ends_at` or `task` those
    of up to a year, in pages and at most 10,000, with warnings. For the next page, send the same body to the path in
    the Link header.
    """
    async with door.body(auth) as content:
        async with door.open(auth, content) as caller:
            body = await caller.body(CadencePreview)
            await find_collection(caller.connection, caller.key_id)
            if not body.is_long:
                return await _next_slots(caller, body, limit, cursor)
            wanted = _wanted(body, place := decode_cursor(cursor, _Place))
            if body.task is not None:
                await find_task(caller.connection, key_id=caller.key_id, name=body.task)
        # No connection is held while the request waits for its place.
        async with place_of(door.services.plans, auth.collection_id), door.open(auth, content) as caller:
            return await _page(caller, body, wanted, place, limit or PAGE_SLOTS)


async def _next_slots(
    caller: Caller, body: CadencePreview, limit: int | None, cursor: str | None
) -> Response[CadenceSlots]:
    for name, given in {"limit": limit, "cursor": cursor}.items():
        if given is not None:
            raise InvalidError(f"{name}: needs from or to in the body.", name)
    slots = await preview(
        caller.connection, cadence_of(body.cadence), count=body.count, spread_seconds=body.spread_seconds
    )
    return Response(CadenceSlots([*slots]))


def _wanted(body: CadencePreview, place: _Place | None) -> Preview:
    """Return what is left to preview, from the beginning of this page.

    Raises:
        InvalidError: The time makes no sense.
    """
    if "count" in body.model_fields_set:
        raise InvalidError("count: gives the next slots only; with from or to, limit the page in the query.", "count")
    since = body.since or datetime.now(UTC)
    until = body.to or since + YEAR
    if not since < until:
        raise InvalidError("to: must be later than from.", "to")
    if until - since > YEAR:
        raise InvalidError(f"to: must be at most {YEAR.days} days after from.", "to")
    if body.starts_at and body.ends_at and body.ends_at < body.starts_at:
        raise InvalidError("ends_at: must not be earlier than starts_at.", "ends_at")
    if place:
        since = place.slot + timedelta(microseconds=1)
        until = min(body.to or place.until, since + YEAR)
    return Preview(cadence_of(body.cadence), since, until, body.starts_at, body.ends_at)


async def _page(
    caller: Caller, body: CadencePreview, wanted: Preview, place: _Place | None, limit: int
) -> Response[CadenceSlots]:
    shown, made_at = (place.shown, place.slot) if place else (0, None)
    limit = min(limit, MOST_SLOTS - shown)
    found = await planning.preview(
        caller.connection, wanted, slot_limit=limit + 1, made_at=made_at, spread_seconds=body.spread_seconds
    )
    answer, headers = CadenceSlots([*found[:limit]]), dict[str, Any]()
    if place is None:
        answer.warnings = await planning.preview_warnings(
            caller.connection, wanted, key_id=caller.key_id, slot_limit=MOST_SLOTS, task=body.task
        )
    if len(found) > limit and shown + limit < MOST_SLOTS:
        last = _Place(found[limit - 1].at, shown + limit, wanted.until)
        headers["Link"] = next_link(caller.request, limit, last)
    return Response(answer, headers=headers)


HANDLERS = [list_cadence_types, preview_cadence]
