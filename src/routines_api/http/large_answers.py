"""Large answers: few at a time, shared between collections, and sent in pieces."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
from litestar.response import Stream

from routines_api.http.access import Caller, Door, place_of
from routines_core.db.keys import AuthContext

PIECE_BYTES = 256 * 1024
"""The size of the pieces of a large answer, in bytes."""
HELD = "routines_held"
"""Key in the ASGI scope: an AsyncExitStack with what the request holds until its answer is sent."""


@asynccontextmanager
async def large_answer(door: Door, auth: AuthContext) -> AsyncGenerator[Caller]:
    """Yield the caller of a request whose answer is large: load and encode it within the block.

    That takes several times its size in memory, so few do it at once. A second place is held until the answer has been
    sent.

    Raises:
        CollectionBusyError: The collection has too many requests in progress.
        ServiceBusyError: The process has.
    """
    scope: Any = door.request.scope
    services, owner = door.services, auth.collection_id
    held: AsyncExitStack = scope.setdefault(HELD, AsyncExitStack())
    await held.enter_async_context(place_of(services.large_answers, owner))
    async with place_of(services.large_loads, owner), door.open(auth) as caller:
        yield caller


def in_pieces(answer: Any) -> Any:
    """Encode an answer as JSON and return a response that sends it in pieces."""
    return Stream(_pieces(msgspec.json.encode(answer)), media_type="application/json")


async def _pieces(content: bytes) -> AsyncGenerator[bytes]:
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]
