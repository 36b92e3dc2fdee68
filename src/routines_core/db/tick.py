"""The tick: sql/queries/tick.sql called from Python."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

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
        struck_ids: Routines whose fire failed to start.
        paused_ids: Those of them for which it was the last strike.
        delay_seconds: The times from a slot to its fire in this batch, each once, ascending.
        fires_by_delay: How many fires had each of them.
    """

    claimed: int
    fired: int
    overlapped: int
    missed: int
    advanced: int
    struck_ids: list[int]
    paused_ids: list[int]
    delay_seconds: list[float]
    fires_by_delay: list[int]

    @property
    def max_delay_seconds(self) -> float:
        """The longest of them; 0 where nothing fired."""
        return self.delay_seconds[-1] if self.delay_seconds else 0.0


class Due(msgspec.Struct, frozen=True):
    """A routine that is due, and the slot that it was seen to wait for."""

    id: int
    slot: datetime


class Sleep(msgspec.Struct, frozen=True):
    """How long nothing is due.

    Attributes:
        seconds: Until the earliest slot, at most until the next whole second; 0: something is due.
        ends_at_slot: Whether something will be due then.
    """

    seconds: float
    ends_at_slot: bool


class Snapshot(msgspec.Struct, frozen=True):
    """The oldest open snapshot of the database, and who holds it."""

    age_seconds: float
    holder: str


_SECONDS_UNTIL_DUE = Statement("tick.seconds_until_due", Sleep)
_TICK = Statement("tick.tick", Tick)
_DUE = Statement("tick.due", Due)
_DUE_IN_TURNS = Statement("tick.due_in_turns", Due)
_OLDEST_SNAPSHOT = Statement("tick.oldest_snapshot", Snapshot)

MAX_STRIKES = 3
"""Fires in a row that fail to start before the routine is paused."""
MAX_INIT_PARAMS_BYTES = 256 * 1024
"""The default of the most bytes, as jsonb, that a run's merged init_params may take."""
ON_TIME_SECONDS = 60.0
"""A slot younger than this is on time: it is no catch-up, and fires even where the catch-up window is 0."""


async def seconds_until_due(
    connection: Connection, *, set_aside: Iterable[int] = (), beyond_due: bool = False
) -> Sleep:
    """How long nothing is due by the database's clock, but for the routines that are set aside.

    `beyond_due`: nor for what is due by now.
    """
    return await _SECONDS_UNTIL_DUE.one(connection, set_aside=list(set_aside) or None, beyond_due=beyond_due)


async def tick(
    connection: Connection,
    *,
    batch_size: int,
    hourly_catchup_seconds: float,
    catchup_seconds: float,
    max_init_params_bytes: int = MAX_INIT_PARAMS_BYTES,
    now: datetime | None = None,
    only: Iterable[Due] | None = None,
    set_aside: Iterable[int] = (),
    fault: str | None = None,
) -> Tick:
    """Claim, skip, fire and advance one batch of due routines, oldest slot first.

    Locks each claimed routine FOR UPDATE until the statement ends and passes over those that another session holds.

    Args:
        connection: In autocommit mode, so that the statement is the transaction.
        batch_size: The most routines to claim.
        hourly_catchup_seconds: How old the newest slot of an hourly routine may be to still fire.
        catchup_seconds: The same for daily, weekdays and weekly; a routine's catchup_window_seconds goes over both.
        max_init_params_bytes: The most bytes, as jsonb, that a run's merged init_params may take.
        now: Moves the clock in tests; None is the database's now().
        only: Claim none but these, as far as they still wait for the slot that they were seen with.
        set_aside: Claim none of these.
        fault: Why the fire of these routines is known to raise: it counts as a strike and is not tried.
    """
    some = None if only is None else list(only)
    return await _TICK.one(
        connection,
        batch_size=batch_size,
        hourly_catchup_seconds=hourly_catchup_seconds,
        catchup_seconds=catchup_seconds,
        on_time_seconds=ON_TIME_SECONDS,
        max_init_params_bytes=max_init_params_bytes,
        max_strikes=MAX_STRIKES,
        now=now,
        only_ids=None if some is None else [routine.id for routine in some],
        only_slots=None if some is None else [routine.slot for routine in some],
        set_aside=list(set_aside) or None,
        fault=fault,
    )


async def due(
    connection: Connection, *, batch_size: int, now: datetime | None = None, set_aside: Iterable[int] = ()
) -> list[Due]:
    """The routines that are due, oldest slot first; locks nothing."""
    return await _DUE.all(connection, batch_size=batch_size, now=now, set_aside=list(set_aside) or None)


async def due_in_turns(
    connection: Connection, *, batch_size: int, now: datetime | None = None, set_aside: Iterable[int] = ()
) -> list[Due]:
    """The same with the collections in turns; reads everything that is due and locks nothing."""
    return await _DUE_IN_TURNS.all(connection, batch_size=batch_size, now=now, set_aside=list(set_aside) or None)


async def oldest_snapshot(connection: Connection) -> Snapshot | None:
    """The oldest open snapshot of this database that the role may see, other than its own; None: there is none."""
    return await _OLDEST_SNAPSHOT.first(connection)


STATEMENT_FAILED = psycopg.DatabaseError
"""What a tick raises when the statement itself fails: a row that breaks a rule, a value that does not fit."""

# Classes of SQLSTATE that speak of the server or the connection, and never of one routine.
_SERVER_CLASSES = frozenset({"08", "25", "53", "57", "58"})
# Classes that speak of the moment: a deadlock, a lock that somebody else holds.
_PASSING_CLASSES = frozenset({"40", "55"})
_STATEMENT_TOO_LONG, _OUT_OF_MEMORY = "57014", "53200"


def blame(error: psycopg.DatabaseError) -> Literal["server", "moment", "routine"]:
    """What a tick that failed speaks of: the server is away or unfit, the moment was wrong, or a routine is at fault.

    A statement that ran out of time or memory may have done so for one routine alone.
    """
    state = error.sqlstate or "08000"
    if state in {_STATEMENT_TOO_LONG, _OUT_OF_MEMORY}:
        return "routine"
    if state[:2] in _SERVER_CLASSES:
        return "server"
    return "moment" if state[:2] in _PASSING_CLASSES else "routine"


def cause_of(error: psycopg.DatabaseError) -> str:
    """Why a statement failed, in the server's first line alone: its DETAIL would show the row."""
    return error.diag.message_primary or type(error).__name__
