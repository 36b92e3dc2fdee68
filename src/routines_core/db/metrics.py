"""Metrics for operators, over all collections: sql/queries/metrics.sql called from Python."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement

MOST = 10_000
"""Counts stop at this number of rows."""
MOST_LANES = 1000
"""Number of tasks whose oldest pending run is looked up."""


class RoutineMetrics(msgspec.Struct, frozen=True):
    """Due routines, and routines that the scheduler paused.

    Attributes:
        due: Due routines, counted up to `MOST`.
        oldest_due_seconds: How long the oldest slot has been due; 0 if none is.
        paused_by_strikes: Routines that were paused because their fires failed to start, counted up to `MOST`.
    """

    due: int
    oldest_due_seconds: float
    paused_by_strikes: int


class SkipMetrics(msgspec.Struct, frozen=True):
    """Slots recorded as skipped in the last hour, by reason, among the newest `MOST` skips."""

    overlap: int
    coalesced: int
    missed: int
    paused: int
    failed_to_start: int
    calendar: int
    outside_hours: int
    backoff: int


class RunMetrics(msgspec.Struct, frozen=True):
    """Runs that have not ended.

    Attributes:
        pending: Runs that wait for a worker, among the first `MOST` active ones.
        running: Runs that a worker has claimed, among the same.
        oldest_pending_seconds: How long the oldest pending run has waited; 0 if none is pending.
    """

    pending: int
    running: int
    oldest_pending_seconds: float


class DeliveryMetrics(msgspec.Struct, frozen=True):
    """Due webhooks that no worker has claimed.

    Attributes:
        due: Their number, counted up to `MOST`.
        oldest_due_seconds: How long the oldest has been due; 0 if none is.
    """

    due: int
    oldest_due_seconds: float


class AlertMetrics(msgspec.Struct, frozen=True):
    """Alerts, and the rounds in which workers judge them.

    Attributes:
        open: Open alerts, counted up to `MOST`.
        untold: Alerts that wait for their notice to be queued, counted up to `MOST`; those for a digest are not.
        since_round_seconds: How long ago the part of a round ran that has not run for the longest time; 0 if there are
            no rules.
    """

    open: int
    untold: int
    since_round_seconds: float


class ConnectedPrograms(msgspec.Struct, frozen=True):
    """Programs connected to the database."""

    tickers: int
    workers: int


class SnapshotMetrics(msgspec.Struct, frozen=True):
    """The age of the oldest open snapshot; 0 if none is open."""

    oldest_seconds: float


class SchemaMetrics(msgspec.Struct, frozen=True):
    """The newest applied migration: the time in its name as a number, 20261129090000."""

    version: int


_ROUTINES = Statement("metrics.routines", RoutineMetrics)
_SKIPS = Statement("metrics.skips", SkipMetrics)
_RUNS = Statement("metrics.runs", RunMetrics)
_DELIVERIES = Statement("metrics.deliveries", DeliveryMetrics)
_ALERTS = Statement("metrics.alerts", AlertMetrics)
_PROGRAMS = Statement("metrics.programs", ConnectedPrograms)
_SNAPSHOTS = Statement("metrics.snapshots", SnapshotMetrics)
_SCHEMA = Statement("metrics.schema", SchemaMetrics)

Metrics: TypeAlias = (
    RoutineMetrics | SkipMetrics | RunMetrics | DeliveryMetrics | AlertMetrics | ConnectedPrograms | SnapshotMetrics
    | SchemaMetrics
)  # fmt: skip


async def of_routines(connection: Connection) -> RoutineMetrics:
    """Count due routines and those that the scheduler paused."""
    return await _ROUTINES.one(connection, most=MOST)


async def of_skips(connection: Connection) -> SkipMetrics:
    """Count recently skipped slots."""
    return await _SKIPS.one(connection, most=MOST)


async def of_runs(connection: Connection) -> RunMetrics:
    """Count active runs."""
    return await _RUNS.one(connection, most=MOST, most_lanes=MOST_LANES)


async def of_deliveries(connection: Connection) -> DeliveryMetrics:
    """Count due webhooks."""
    return await _DELIVERIES.one(connection, most=MOST)


async def of_alerts(connection: Connection) -> AlertMetrics:
    """Count open alerts and those without a notice, and look when workers last judged rules."""
    return await _ALERTS.one(connection, most=MOST)


async def of_programs(connection: Connection) -> ConnectedPrograms:
    """Count connected programs."""
    return await _PROGRAMS.one(connection)


async def of_snapshots(connection: Connection) -> SnapshotMetrics:
    """Return the age of the oldest open snapshot.

    Raises:
        psycopg.Error: The owner of the schema cannot see the sessions of other roles.
    """
    return await _SNAPSHOTS.one(connection)


async def of_schema(connection: Connection) -> SchemaMetrics:
    """Return the newest applied migration."""
    return await _SCHEMA.one(connection)


KINDS: Mapping[str, Callable[[Connection], Awaitable[Metrics]]] = {
    "routines": of_routines,
    "skips": of_skips,
    "runs": of_runs,
    "deliveries": of_deliveries,
    "alerts": of_alerts,
    "programs": of_programs,
    "snapshots": of_snapshots,
    "schema": of_schema,
}
"""The groups of metrics by name, the most important first. Each is read, and fails, separately."""
