"""Read what the checker knows: the orders, the ledger, the journals and the trace of executions, in one snapshot."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import namedtuple_row

IN_CHAOS = "collection_id = (SELECT id FROM routines.collections WHERE name = 'chaos')"
"""The others are attackers, of whose routines and runs the checker knows nothing."""
AWAY = """LATERAL (SELECT coalesce((SELECT away FROM chaos.orders WHERE orders.routine_id = {routine} LIMIT 1), '0')
                         AS away) AS spread"""
"""The offset of a routine. Its slots, and what becomes of them, are told on its own clock, which is behind by it."""
QUERIES = {
    "orders": "SELECT *, false AS changes_cadence, at AS settled FROM chaos.orders ORDER BY id",
    "routines": f"""SELECT id, now() - away AS now, away,
                          routines.cadence_to_json(routines.cadence_of(routines)) AS cadence, paused,
                          paused_at - away AS paused_at, paused_until - away AS paused_until, paused_reason,
                          strikes, next_run_at - away AS next_run_at, last_run_at, spread_offset
                    FROM routines.routines, {AWAY.format(routine="routines.id")}
                    WHERE {IN_CHAOS} ORDER BY id""",
    "runs": f"""SELECT id, triggered_by_routine_id AS routine_id, trigger, scheduled_for, created_at, ended_at, status,
                      crashes, error, away, due_at, retry_of, retried_by, retry_number, rerun_of, kept_steps,
                      backfill_id, fills_slot FROM routines.trajectories,
                      {AWAY.format(routine="triggered_by_routine_id")}
                WHERE {IN_CHAOS} ORDER BY id""",
    "skips": f"""SELECT skips.id, routine_id, scheduled_for, last_scheduled_for, slot_count, reason,
                       blocking_trajectory_id, detail, recorded_at - away AS recorded_at,
                       recorded_at AS really_recorded_at, due_at, away, filled_by
                FROM routines.skips, {AWAY.format(routine="skips.routine_id")} WHERE {IN_CHAOS} ORDER BY id""",
    "backfills": f"SELECT * FROM routines.backfills WHERE {IN_CHAOS} ORDER BY id",
    "days_off": f"SELECT day FROM routines.calendar_days WHERE {IN_CHAOS}",
    "alerts": f"""SELECT id, routine_id, event, scheduled_for, trajectory_id, opened_at, closed_at, suppressed_reason,
                         notice_id, recovery_notice_id
                  FROM routines.alerts WHERE {IN_CHAOS} ORDER BY id""",
    "notices": f"""SELECT id, event_id, event_status, delivered_at, give_up_reason
                   FROM routines.webhook_deliveries WHERE rule_id IS NOT NULL AND {IN_CHAOS} ORDER BY id""",
    "run_journal": "SELECT * FROM chaos.run_journal ORDER BY id",
    "step_journal": "SELECT * FROM chaos.step_journal ORDER BY id",
}


@dataclass(frozen=True)
class Execution:
    """One execution of a step, recorded by the step itself when it began."""

    trajectory_id: int
    step: str
    fence: int
    at: datetime


@dataclass(frozen=True)
class History:
    """Rows as named tuples, ordered by id."""

    now: datetime
    orders: list[Any]
    routines: list[Any]
    runs: list[Any]
    skips: list[Any]
    backfills: list[Any]
    days_off: list[Any]
    alerts: list[Any]
    notices: list[Any]
    run_journal: list[Any]
    step_journal: list[Any]
    executions: list[Execution]


async def read_history(connection: AsyncConnection[Any], trace: Path | None) -> History:
    """Read everything as of one moment."""
    # Executions first: their claims were committed before they began, so the snapshot contains them.
    executions = _executions(trace) if trace and trace.exists() else []
    rows: dict[str, list[Any]] = {}
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    async with connection.transaction(), connection.cursor(row_factory=namedtuple_row) as cursor:
        for name, query in QUERIES.items():
            await cursor.execute(query.encode())
            rows[name] = await cursor.fetchall()
        await cursor.execute("SELECT clock_timestamp() AS now")
        row = await cursor.fetchone()
        assert row
    return History(now=row.now, executions=executions, **rows)


def _executions(trace: Path) -> list[Execution]:
    lines = trace.read_text("utf-8").splitlines()
    return [Execution(**{**row, "at": datetime.fromtimestamp(row["at"], UTC)}) for row in map(json.loads, lines)]
