"""The tick: sql/queries/tick.sql called from Python."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import cache, partial
from typing import Literal, TypeAlias

import msgspec
import psycopg

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement
from routines_core.errors import StatementTimeoutError


class Tick(msgspec.Struct, frozen=True):
    """The result of one batch.

    Attributes:
        claimed: Locked routines. Fewer than the batch size means that there are no more to claim.
        fired: Inserted runs.
        overlapped: Slots that were skipped because a run was active.
        coalesced: Slots whose run waited, and was taken over by a later slot.
        missed: Slots that were recorded as missed.
        excluded_by_calendar: Slots that were recorded as excluded by a calendar.
        outside_hours: Slots that were recorded as outside active hours.
        backed_off: Slots that were skipped because those before them failed.
        advanced: Routines whose next_run_at was advanced; equals `claimed`.
        struck_ids: Routines whose fire failed to start.
        paused_ids: Those of them that were paused by their last strike.
        delay_seconds: The distinct delays in this batch, from when a slot was due to its fire, ascending.
        fires_by_delay: The number of fires with each of these delays.
    """

    claimed: int
    fired: int
    overlapped: int
    coalesced: int
    missed: int
    excluded_by_calendar: int
    outside_hours: int
    backed_off: int
    advanced: int
    struck_ids: list[int]
    paused_ids: list[int]
    delay_seconds: list[float]
    fires_by_delay: list[int]

    @property
    def max_delay_seconds(self) -> float:
        """Return the longest delay; 0 if nothing fired."""
        return self.delay_seconds[-1] if self.delay_seconds else 0.0


class Due(msgspec.Struct, frozen=True):
    """A due routine, and the slot that it was seen to wait for."""

    id: int
    slot: datetime


class Sleep(msgspec.Struct, frozen=True):
    """How long to sleep.

    Attributes:
        seconds: Until the earliest slot or end of a pause, at most until the next whole second; 0 if a routine is due
            or a pause is over.
        ends_at_event: True if a routine will be due, or a pause over, then.
        ends_pause: True if a pause will be over then.
        has_backfill: True if a backfill is to be looked at now.
    """

    seconds: float
    ends_at_event: bool
    ends_pause: bool
    has_backfill: bool = False


class Resumed(msgspec.Struct, frozen=True):
    """The result of ending pauses.

    Attributes:
        resumed: Routines that were resumed.
        max_late_seconds: The longest delay from the end of a pause until it was ended.
    """

    resumed: int
    max_late_seconds: float


class _Id(msgspec.Struct):
    id: int


class _Started(msgspec.Struct):
    started: int


class _Late(msgspec.Struct):
    is_late: bool


class _Outage(msgspec.Struct):
    began_at: datetime


class Snapshot(msgspec.Struct, frozen=True):
    """The oldest open snapshot of the database, and the session that holds it."""

    age_seconds: float
    holder: str


_SECONDS_UNTIL_DUE = Statement("tick.seconds_until_due", Sleep)
_TICK = Statement("tick.tick", Tick)
_NOTE_OUTAGE = Statement("tick.note_outage", _Outage)
_IS_LATE = Statement("tick.is_late", _Late)
_SET_PLAN_MODE = Statement("tick.set_plan_mode", NoRow)
_DUE = Statement("tick.due", Due)
_DUE_IN_TURNS = Statement("tick.due_in_turns", Due)
_ENDED_PAUSES = Statement("tick.ended_pauses", _Id)
_RESUME = Statement("tick.resume", Resumed)
_OPEN_BACKFILLS = Statement("tick.open_backfills", _Id)
_EXPAND_BACKFILL = Statement("tick.expand_backfill", _Started)
_HOLD_BACKFILL = Statement("tick.hold_backfill", NoRow)
_OLDEST_SNAPSHOT = Statement("tick.oldest_snapshot", Snapshot)

MAX_STRIKES = 3
"""Consecutive fires that fail to start before the routine is paused."""
MAX_INIT_PARAMS_BYTES = 256 * 1024
"""Default limit of a run's merged init_params, in bytes as jsonb."""
ON_TIME_SECONDS = 60.0
"""A slot younger than this is on time and not a catch-up: it fires even if the catch-up window is 0."""
LATE_SECONDS = 60.0
"""How long a slot or the end of a pause must have been due to be late."""
OUTAGE_SECONDS = 60.0
"""How long no ticker must have run, while routines were due, for this to be recorded as an outage."""
MOST_BACKFILLS = 50
"""How many backfills a ticker looks at in one go."""
MOST_ENDED_PAUSES = 200_000
"""How many ended pauses are read to find a batch that alternates between collections."""


async def seconds_until_due(
    connection: Connection, *, set_aside: Iterable[int] = (), beyond_due: bool = False
) -> Sleep:
    """Return how long until a routine is due or a pause ends, by the database's clock, except of routines set aside.

    `beyond_due` also ignores routines that are due and pauses that are over now.
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
    traceparent: str | None = None,
) -> Tick:
    """Claim, skip, fire and advance one batch of due routines, oldest slot first.

    Locks each claimed routine FOR UPDATE until the statement ends, and skips those that another session has locked.

    Args:
        connection: In autocommit mode, so that the statement is the transaction.
        batch_size: The maximum number of routines to claim.
        hourly_catchup_seconds: The age up to which the newest slot of an hourly routine still fires.
        catchup_seconds: The same for every other cadence. A routine's catchup_window_seconds overrides both.
        max_init_params_bytes: Limit of a run's merged init_params, in bytes as jsonb.
        now: Moves the clock in tests; None is the database's now().
        only: Claim only these, if they still wait for the slot that they were seen with.
        set_aside: Claim none of these.
        fault: Why the fires of these routines are known to fail. They are not attempted, and each counts as a strike.
        traceparent: The tick's span, which the runs are linked to; None if it is not traced.
    """
    some = None if only is None else list(only)
    send = partial(
        tick_of(batch_size).one,
        connection,
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
        traceparent=traceparent,
    )
    try:
        return await send(looks_for_runs=False)
    except psycopg.errors.UniqueViolation:
        # Of a slot, or of the active run of a routine: a person inserted a run that this batch did not see.
        return await send(looks_for_runs=True)


@cache
def tick_of(batch_size: int) -> Statement[Tick]:
    """Return the tick with its batch size in the text. A plan for any batch size would expect a tenth of the table."""
    return Statement("tick.tick", Tick, literals={"batch_size": batch_size})


PLANNED_ONCE = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
"""Settings of a session whose ticks are all planned once, without a look at their parameters.

Planning takes as long as a hundred fires. The plan may be made while the tables are empty, so it must use indexes.
"""


@asynccontextmanager
async def planned_anew(connection: Connection) -> AsyncGenerator[None]:
    """Plan each statement of the block for its own parameters, in a session that otherwise plans once.

    A batch of chosen routines is found by their ids, any other one by when they are due.
    """
    await _SET_PLAN_MODE.run(connection, mode="force_custom_plan")
    try:
        yield
    finally:
        with suppress(psycopg.OperationalError):  # the session is lost, or the statement before says more
            await _SET_PLAN_MODE.run(connection, mode=PLANNED_ONCE["plan_cache_mode"])


async def due(
    connection: Connection, *, batch_size: int, now: datetime | None = None, set_aside: Iterable[int] = ()
) -> list[Due]:
    """Return the due routines, oldest slot first. Locks nothing."""
    return await _DUE.all(connection, batch_size=batch_size, now=now, set_aside=list(set_aside) or None)


async def due_in_turns(
    connection: Connection, *, batch_size: int, now: datetime | None = None, set_aside: Iterable[int] = ()
) -> list[Due]:
    """The same, alternating between collections. Reads all due routines and locks nothing."""
    return await _DUE_IN_TURNS.all(connection, batch_size=batch_size, now=now, set_aside=list(set_aside) or None)


async def ended_pauses(connection: Connection, *, batch_size: int, set_aside: Iterable[int] = ()) -> list[int]:
    """Return routines whose pause is over, alternating between collections. Locks nothing."""
    found = await _ENDED_PAUSES.all(
        connection, batch_size=batch_size, most=MOST_ENDED_PAUSES, set_aside=list(set_aside) or None
    )
    return [each.id for each in found]


async def resume(connection: Connection, routine_ids: Iterable[int]) -> Resumed:
    """Resume those of these routines whose pause is over. Slots since its end are due, and left to the tick.

    Locks each routine FOR UPDATE until the statement ends, and skips those that another session has locked.
    """
    return await _RESUME.one(connection, ids=list(routine_ids))


async def open_backfills(connection: Connection) -> list[int]:
    """Return up to MOST_BACKFILLS backfills to look at, those that have waited longest first. Locks nothing."""
    return [each.id for each in await _OPEN_BACKFILLS.all(connection, most=MOST_BACKFILLS)]


async def expand_backfill(connection: Connection, backfill_id: int) -> int:
    """Start as many runs of a backfill as may be active now. Returns their number.

    Locks the backfill and its routine until the statement ends, and does nothing if another session has locked one.
    """
    return (await _EXPAND_BACKFILL.one(connection, id=backfill_id)).started


async def hold_backfill(connection: Connection, backfill_id: int, *, cause: str, seconds: float) -> None:
    """Let a backfill that could not be expanded wait, and show why."""
    await _HOLD_BACKFILL.run(connection, id=backfill_id, cause=cause, seconds=seconds)


async def note_outage(connection: Connection, *, now: datetime | None = None) -> datetime | None:
    """Record an outage of all tickers that ends now: for `OUTAGE_SECONDS` routines were due and no tick did anything.

    Locks the oldest due routine FOR UPDATE until the statement ends, and skips those that another session has locked.

    Returns:
        When the outage began; None if there was none, or if another ticker has recorded it.
    """
    found = await _NOTE_OUTAGE.first(connection, outage_seconds=OUTAGE_SECONDS, now=now)
    return found.began_at if found else None


async def oldest_snapshot(connection: Connection) -> Snapshot | None:
    """Return the oldest open snapshot that the role may see, other than its own; None if there is none."""
    return await _OLDEST_SNAPSHOT.first(connection)


async def is_late(connection: Connection) -> bool:
    """Return whether a slot or the end of a pause has been due for over `LATE_SECONDS`. Locks nothing."""
    return (await _IS_LATE.one(connection, late_seconds=LATE_SECONDS)).is_late


StatementFailure: TypeAlias = psycopg.DatabaseError | StatementTimeoutError
STATEMENT_FAILED = (psycopg.DatabaseError, StatementTimeoutError)
"""Raised by a tick whose statement fails: a row breaks a rule, or a value does not fit."""

# Classes of SQLSTATE about the server or the connection, never about a single routine.
_SERVER_CLASSES = frozenset({"08", "25", "53", "57", "58"})
# Classes about the moment: a deadlock, or a lock that another session holds.
_PASSING_CLASSES = frozenset({"40", "55"})
_OUT_OF_MEMORY = "53200"


def blame(error: StatementFailure) -> Literal["server", "moment", "routine"]:
    """Return what made a tick fail: the server is unavailable, the moment was wrong, or a routine is at fault.

    A statement that ran out of time or memory may have done so because of a single routine.
    """
    if isinstance(error, StatementTimeoutError):
        return "routine"
    state = error.sqlstate or "08000"
    if state == _OUT_OF_MEMORY:
        return "routine"
    if state[:2] in _SERVER_CLASSES:
        return "server"
    return "moment" if state[:2] in _PASSING_CLASSES else "routine"


def cause_of(error: StatementFailure) -> str:
    """Return the first line of the server's error. The rest is dropped because DETAIL would show the row."""
    if isinstance(error, StatementTimeoutError):
        return str(error)
    return error.diag.message_primary or type(error).__name__
