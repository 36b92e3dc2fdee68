"""The endpoints of calendar feeds: created, listed and revoked with an API key, and read with a token of their own."""

import hashlib
from typing import Annotated

from litestar import Response, delete, get, post
from litestar.di import Provide
from litestar.params import Parameter

from routines_api.http.access import UNKNOWN, ApiRequest, Caller, Door, place_of, provide_auth
from routines_api.http.limit_gate import FEEDS
from routines_api.http.pagination import Cursor, decode_cursor, page
from routines_api.http.paths import id_of
from routines_api.openapi.description import FEED_PATH, operation
from routines_api.schemas.feeds import FeedCreate, FeedRead
from routines_api.schemas.icalendar import calendar
from routines_core.db import feeds as db
from routines_core.db.feeds import Feed, OpenFeed
from routines_core.db.keys import AuthContext

SUFFIX = ".ics"
"""Tells the address of a feed from the name of a collection, which contains no dot."""
FeedLimit = Annotated[int, Parameter(ge=1, le=1000, description="Maximum number of feeds on a page.")]


@post(
    "/ics/{collection:str}",
    tags=["Routines"],
    **operation("createFeed", body=FeedCreate, body_required=False),
)
async def create_feed(caller: Caller) -> FeedRead:
    """Create a calendar feed.

    A calendar program that subscribes to its `url` shows the coming slots of the collection, a task or a routine. The
    token is shown only in this answer, opens nothing else, and works until the feed is revoked or its task or routine
    is deleted.
    """
    body = await caller.body_if_any(FeedCreate)
    if refusal := await caller.services.limits.ask(caller.connection, caller.auth, FEEDS):
        raise refusal
    made = await db.create_feed(
        caller.connection, caller.services.keys.peppers, key_id=caller.key_id, task=body.task, routine=body.routine
    )
    base = caller.services.settings.public_url or str(caller.request.base_url)
    return FeedRead(made.id, f"{base.rstrip('/')}/api/v1/ics/{made.token}{SUFFIX}", made.token)


async def _provide_auth(request: ApiRequest) -> AuthContext | None:
    """Return the key of an admitted request; None where the path holds a token, which needs no key."""
    return None if request.path_params["collection"].endswith(SUFFIX) else await provide_auth(request)


@get(
    "/ics/{collection:str}", tags=["Routines"], dependencies={"auth": Provide(_provide_auth)}, **operation("listFeeds")
)
async def list_feeds(
    collection: str, auth: AuthContext | None, door: Door, *, limit: FeedLimit = 1000, cursor: Cursor = None
) -> Response[list[Feed]]:
    """List the calendar feeds of a collection.

    Oldest first, without their tokens.
    """
    if auth is None:
        return await _read_feed(door, collection.removesuffix(SUFFIX))  # pyright: ignore[reportReturnType] - not JSON
    async with door.open(auth) as caller:
        after = decode_cursor(cursor, int)
        found = await db.list_feeds(caller.connection, key_id=caller.key_id, limit=limit + 1, after=after)
        return page(caller.request, found, limit, key=lambda feed: feed.id, show=lambda feed: feed)


@delete("/ics/{collection:str}/{feed_id:str}", tags=["Routines"], **operation("deleteFeed"))
async def delete_feed(feed_id: str, caller: Caller) -> None:
    """Revoke a calendar feed.

    Its token opens nothing from that moment on.
    """
    await db.delete_feed(caller.connection, key_id=caller.key_id, feed_id=id_of(feed_id))


async def _read_feed(door: Door, token: str) -> Response[bytes]:
    """Answer the calendar of a feed. Query parameters, which some programs add, are ignored."""
    door.request.scope["path_template"] = FEED_PATH  # which has no token in it, for metrics, traces and the log
    feed = await _open(door, token)
    async with (
        place_of(door.services.plans, feed.collection_id),
        door.connection(feed.collection_id) as connection,
    ):
        routines = await db.feed_slots(connection, feed.feed_id)
    content = calendar(feed.title, routines).encode()
    headers = {
        # Weak, because the answer may be compressed.
        "ETag": f'W/"{hashlib.sha256(content).hexdigest()[:32]}"',
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'inline; filename="{feed.title.replace("/", "-")}{SUFFIX}"',
    }
    if _has(door.request, headers["ETag"]):
        return Response(b"", status_code=304, headers=headers)
    return Response(content, media_type="text/calendar", headers=headers)


async def _open(door: Door, token: str) -> OpenFeed:
    """Check the token, and take one of the times that the feed may be read.

    Raises:
        NotFoundError: It opens no feed.
        RateLimitedError: The feed is read too often.
    """
    parsed = db.parse_feed_token(token)  # before it takes a connection
    async with door.connection(UNKNOWN) as connection:
        feed = await db.open_feed(connection, parsed, door.services.keys.peppers)
        if not door.services.feeds.spend_taken(feed.feed_id):
            await door.services.feeds.spend(connection, feed.feed_id)
    return feed


def _has(request: ApiRequest, etag: str) -> bool:
    """Return whether the client says that it has this version."""
    given = request.headers.get("if-none-match", "")
    opaque = etag.removeprefix("W/")
    return any(each.strip().removeprefix("W/") in {opaque, "*"} for each in given.split(","))


HANDLERS = [create_feed, list_feeds, delete_feed]
