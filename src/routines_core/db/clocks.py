"""Slots that new time zone data has moved: sql/queries/clocks.sql called from Python.

Postgres reads the rules of time zones from files, its own or the system's. After an update of these files, slots that
were computed before may be at another time than the cadence now says.
"""

from collections.abc import AsyncGenerator
from datetime import datetime

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement

PAGE_SIZE = 500
"""Routines examined by one statement; each takes about a millisecond."""


class MovedSlot(msgspec.Struct, frozen=True):
    """A routine with a coming slot that its cadence no longer has.

    Attributes:
        routine: collection/task/name.
        timezone: Whose rules have changed.
        kept: The slot that was computed before.
        computed: The slot in its place; None if there is none.
    """

    routine_id: int
    routine: str
    timezone: str
    kept: datetime
    computed: datetime | None


class _Last(msgspec.Struct):
    id: int


_MOVED_SLOTS = Statement("clocks.moved_slots", MovedSlot)
_LAST_OF_PAGE = Statement("clocks.last_of_page", _Last)
_RECOMPUTE = Statement("clocks.recompute", NoRow)


async def moved_slots(connection: Connection) -> AsyncGenerator[MovedSlot]:
    """Yield the first moved slot of each routine that has one, by id. Locks nothing."""
    after = 0
    while last := await _LAST_OF_PAGE.first(connection, after=after, page_size=PAGE_SIZE):
        for moved in await _MOVED_SLOTS.all(connection, after=after, page_size=PAGE_SIZE):
            yield moved
        after = last.id


async def recompute(connection: Connection, routine_id: int) -> bool:
    """Compute the coming slots of a routine anew, and record it if its next slot moves.

    Waits for a tick that has locked the routine.

    Returns:
        False if its slots had not moved, or the routine is gone.
    """
    return await _RECOMPUTE.run(connection, routine_id=routine_id) > 0
