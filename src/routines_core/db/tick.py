"""The tick: sql/queries/tick.sql called from Python."""

from datetime import datetime

import msgspec
import psycopg

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement


class Tick(msgspec.Struct, frozen=True):
    """What one batch did.

    Attributes:
        claimed: Routines that were locked; below the batch size there is nothing more to claim.
        fired: Trajectories that were inserted.
        overlapped: Slots that were skipped since a run was active.
        missed: Slots that were recorded as missed.
        advanced: Routines whose next_run_at was advanced; equals `claimed`.
        max_delay_seconds: The longest time from a slot to its fire in this batch; 0 where nothing fired.
    """

    claimed: int
    fired: int
    overlapped: int
    missed: int
    advanced: int
    max_delay_seconds: float


class Strike(msgspec.Struct, frozen=True):
    """A fire that raised: how many in a row by now, and whether that paused the routine."""

    id: int
    strikes: int
    paused: bool


class _Seconds(msgspec.Struct):
    seconds: float


class _Id(msgspec.Struct):
    id: int


_SECONDS_UNTIL_DUE = Statement("tick.seconds_until_due", _Seconds)
_TICK = Statement("tick.tick", Tick)
_DUE_IDS = Statement("tick.due_ids", _Id)
_RECORD_STRIKE = Statement("tick.record_strike", Strike)

MAX_STRIKES = 3
"""Fires in a row that raise before the routine is paused."""


async def seconds_until_due(connection: Connection) -> float:
    """Seconds until the earliest slot by the database's clock, at most 1; 0 when something is due."""
    return (await _SECONDS_UNTIL_DUE.one(connection)).seconds


async def tick(
    connection: Connection,
    *,
    batch_size: int,
    hourly_catchup_seconds: float,
    catchup_seconds: float,
    now: datetime | None = None,
    only_id: int | None = None,
) -> Tick:
    """Claim, skip, fire and advance one batch of due routines, oldest slot first.

    Locks each claimed routine FOR UPDATE until the statement ends and passes over those that another session holds.

    Args:
        connection: In autocommit mode, so that the statement is the transaction.
        batch_size: The most routines to claim.
        hourly_catchup_seconds: How old the newest slot of an hourly routine may be to still fire.
        catchup_seconds: The same for daily, weekdays and weekly.
        now: Moves the clock in tests; None is the database's now().
        only_id: Claim this routine or none.
    """
    return await _TICK.one(
        connection,
        batch_size=batch_size,
        hourly_catchup_seconds=hourly_catchup_seconds,
        catchup_seconds=catchup_seconds,
        now=now,
        only_id=only_id,
    )


async def due_ids(connection: Connection, *, batch_size: int, now: datetime | None = None) -> list[int]:
    """The ids of the routines that are due, oldest slot first; locks nothing."""
    return [row.id for row in await _DUE_IDS.all(connection, batch_size=batch_size, now=now)]


async def record_strike(
    connection: Connection, *, routine_id: int, cause: str, now: datetime | None = None
) -> Strike | None:
    """Record that this routine's fire raised and go on to its next slot; the third strike in a row pauses it.

    Returns None where the routine is no longer due or another session holds it: then there is nothing to record.
    """
    return await _RECORD_STRIKE.first(connection, id=routine_id, cause=cause, max_strikes=MAX_STRIKES, now=now)


STATEMENT_FAILED = psycopg.DatabaseError
"""What a tick raises when the statement itself fails: a row that breaks a rule, a value that does not fit."""


def cause_of(error: psycopg.DatabaseError) -> str:
    """Why a statement failed, in the server's first line alone: its DETAIL would show the row."""
    return error.diag.message_primary or type(error).__name__
