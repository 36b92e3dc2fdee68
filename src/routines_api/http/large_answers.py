"""Large answers: few at a time, shared between collections, and sent in pieces."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from litestar.response import Stream

from routines_api.http.access import Caller, Door, place_of
from routines_core.db.keys import AuthContext
from routines_core.db.trajectories import STEPS_PLACE

PIECE_CHARACTERS = 256 * 1024
"""The size of the pieces of a large answer."""
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
        try:
            yield caller
        finally:
            # libpq keeps the buffer of the largest row it has received, of twice its size, as long as the connection.
            await caller.connection.close()


def in_pieces(door: Door, answer: Any, steps: str) -> Any:
    """Encode an answer as JSON and return a response that sends it in pieces, with the steps wherever they belong."""
    pieces = _Pieces(msgspec.json.encode(answer).split(STEPS_PLACE), steps)
    held: AsyncExitStack = cast("Any", door.request.scope)[HELD]
    held.callback(pieces.forget)
    return Stream(pieces.each(), media_type="application/json")


@dataclass
class _Pieces:
    """The pieces of an answer. The steps are encoded one piece at a time, so that they are in memory once."""

    around: list[bytes]
    steps: str

    async def each(self) -> AsyncGenerator[bytes]:
        for number, part in enumerate(self.around):
            if number:
                for start in range(0, len(self.steps), PIECE_CHARACTERS):
                    yield self.steps[start : start + PIECE_CHARACTERS].encode()
            yield part

    def forget(self) -> None:
        """Let go of the answer. After an error its traceback keeps the generator until the next garbage collection."""
        self.around, self.steps = [], ""
