"""Sums of days for reports: sql/queries/day_sums.sql called from Python."""

from datetime import datetime
from typing import Literal

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement

Part = Literal["gone", "next", "changed"]
"""What is to be done, in this order: what retention deleted, a day for the first time, what has changed since."""
BATCH_SIZE = 500
"""How many days of routines one statement sums up: tenths of a second for hourly routines."""


class _Handled(msgspec.Struct):
    handled: int


_SUM_UP_NEXT = Statement("day_sums.sum_up_next", _Handled)
_SUM_UP_CHANGED = Statement("day_sums.sum_up_changed", _Handled)
_FORGET = Statement("day_sums.forget", _Handled)


async def sum_up(
    connection: Connection, part: Part, *, batch_size: int = BATCH_SIZE, now: datetime | None = None
) -> int:
    """Do the next batch of a part, in one transaction.

    Args:
        connection: A worker's connection, in autocommit mode.
        part: What to do.
        batch_size: The maximum number of days of routines.
        now: Moves the clock in tests; None is the database's now().

    Returns:
        How many were handled. 0 if nothing is to be done, or another session is at it.
    """
    if part == "gone":
        return (await _FORGET.one(connection, batch_size=batch_size)).handled
    if part == "changed":
        return (await _SUM_UP_CHANGED.one(connection, batch_size=batch_size)).handled
    return (await _SUM_UP_NEXT.one(connection, batch_size=batch_size, now=now)).handled
