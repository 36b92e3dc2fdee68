"""What an operator is alerted by, of all collections together: sql/queries/metrics.sql called from Python."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement

MOST = 10_000
"""How far is counted: each figure that says "at most" reads no more rows than this."""
MOST_LANES = 1000
"""Of how many tasks the oldest pending run is looked up."""


class RoutineFigures(msgspec.Struct, frozen=True):
    """What is due, and what the scheduler paused.

    Attributes:
        due: Routines that are due, at most `MOST`.
        oldest_due_seconds: For how long the oldest slot has been due; 0: none is.
        paused_by_strikes: Routines that were paused since their fires failed to start, at most `MOST`.
    """

    due: int
    oldest_due_seconds: float
    paused_by_strikes: int


class SkipFigures(msgspec.Struct, frozen=True):
    """Slots that were recorded as skipped in the last hour, by reason; the newest `MOST` skips are looked at."""

    overlap: int
    missed: int
    paused: int
    failed_to_start: int


class RunFigures(msgspec.Struct, frozen=True):
    """Runs that have not ended.

    Attributes:
        pending: Those that wait for a worker, among the first `MOST` active ones.
        running: Those that a worker has in hand, among the same.
        oldest_pending_seconds: For how long the oldest has waited; 0: none waits.
    """

    pending: int
    running: int
    oldest_pending_seconds: float


class DeliveryFigures(msgspec.Struct, frozen=True):
    """Webhooks that are due and that no worker has in hand.

    Attributes:
        due: How many, at most `MOST`.
        oldest_due_seconds: For how long the oldest has been; 0: none is.
    """

    due: int
    oldest_due_seconds: float


class ProgramFigures(msgspec.Struct, frozen=True):
    """Programs that are connected to the database."""

    tickers: int
    workers: int


class SnapshotFigures(msgspec.Struct, frozen=True):
    """The age of the oldest open snapshot; 0: none is open."""

    oldest_seconds: float


class SchemaFigures(msgspec.Struct, frozen=True):
    """The number of the last migration that was applied."""

    version: int


_ROUTINES = Statement("metrics.routines", RoutineFigures)
_SKIPS = Statement("metrics.skips", SkipFigures)
_RUNS = Statement("metrics.runs", RunFigures)
_DELIVERIES = Statement("metrics.deliveries", DeliveryFigures)
_PROGRAMS = Statement("metrics.programs", ProgramFigures)
_SNAPSHOTS = Statement("metrics.snapshots", SnapshotFigures)
_SCHEMA = Statement("metrics.schema", SchemaFigures)

Figures: TypeAlias = (
    RoutineFigures | SkipFigures | RunFigures | DeliveryFigures | ProgramFigures | SnapshotFigures | SchemaFigures
)  # fmt: skip


async def of_routines(connection: Connection) -> RoutineFigures:
    """What is due, and what the scheduler paused."""
    return await _ROUTINES.one(connection, most=MOST)


async def of_skips(connection: Connection) -> SkipFigures:
    """What was skipped lately."""
    return await _SKIPS.one(connection, most=MOST)


async def of_runs(connection: Connection) -> RunFigures:
    """Runs that have not ended."""
    return await _RUNS.one(connection, most=MOST, most_lanes=MOST_LANES)


async def of_deliveries(connection: Connection) -> DeliveryFigures:
    """Webhooks that are due."""
    return await _DELIVERIES.one(connection, most=MOST)


async def of_programs(connection: Connection) -> ProgramFigures:
    """Programs that are connected."""
    return await _PROGRAMS.one(connection)


async def of_snapshots(connection: Connection) -> SnapshotFigures:
    """The oldest open snapshot.

    Raises:
        psycopg.Error: The owner of the schema may not see the sessions of others.
    """
    return await _SNAPSHOTS.one(connection)


async def of_schema(connection: Connection) -> SchemaFigures:
    """The number of the last migration that was applied."""
    return await _SCHEMA.one(connection)


KINDS: Mapping[str, Callable[[Connection], Awaitable[Figures]]] = {
    "routines": of_routines,
    "skips": of_skips,
    "runs": of_runs,
    "deliveries": of_deliveries,
    "programs": of_programs,
    "snapshots": of_snapshots,
    "schema": of_schema,
}
"""By name, what matters most first: each is asked by itself, and fails by itself."""
