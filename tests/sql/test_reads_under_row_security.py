"""What the API reads costs what it answers with, under row-level security and in a large installation.

The policies of the tables keep a condition that calls a function out of the search of an index, unless the function is
known to leak nothing. The owner of the tables, as whom most tests run, sees no policies and gets other plans.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from routines_core.db import Connection
from support.plans import buffers, explained
from support.rows import at, make_key, make_routine, make_task, value
from support.statements import DECLARED

MONDAY = at("2026-05-04 09:00")
MOST_PAGES = 900
"""What a read of 50 rows may take. The table of runs has four times as many pages."""
RUNS = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                             scheduled_for, trigger, init_params, status, ended_at, error)
          SELECT {part}, {part}, 1, {part}, '2000-01-01Z'::timestamptz + n * interval '1 hour', 'schedule', '{{}}',
                 CASE mod(n, 10) WHEN 0 THEN 'failed' ELSE 'completed' END, now(), CASE mod(n, 10) WHEN 0 THEN 'no' END
          FROM generate_series(1, {count}) AS n"""
LARGE = (
    "INSERT INTO routines.collections (id, name) OVERRIDING SYSTEM VALUE VALUES (2, 'other')",
    "INSERT INTO routines.tasks (collection_id, name) VALUES (2, 'echo')",
    "INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (2, 1, '{}')",
    "INSERT INTO routines.routines (collection_id, task_id, name, cadence_type) VALUES (2, 2, 'r', 'manual')",
    "SET session_replication_role = replica",
    RUNS.format(part=1, count=2000),
    RUNS.format(part=2, count=80_000),
    # Each failed run was retried, once.
    """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                          retry_of, retry_number, init_params, status, ended_at)
       SELECT collection_id, task_id, 1, triggered_by_routine_id, 'retry', id, 1, '{}', 'completed', now()
       FROM routines.trajectories WHERE status = 'failed'""",
    """UPDATE routines.trajectories SET retried_by = retry.id FROM routines.trajectories AS retry
       WHERE retry.retry_of = trajectories.id""",
    """INSERT INTO routines.steps (trajectory_id, position, name, fence, status, activity, inputs, ended_at)
       SELECT id, 0, 'say', 1, 'completed', 'text_echo', '{}', now() FROM routines.trajectories""",
    """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason)
       SELECT part, part, slot, slot, 'missed' FROM generate_series(1, 2) AS part,
              generate_series('2006-01-01Z'::timestamptz, '2007-12-31Z', '1 hour') AS slot
       WHERE part = 2 OR slot < '2006-03-01Z'""",
    "SET session_replication_role = origin",
    "VACUUM (ANALYZE)",
)
OF_ROUTINE = {"routine_id": 1}
NAMED = {"task": "echo", "name": "morning"}
PAGE = {"before": None, "limit": 50}
BOUNDS = {"page_bytes": 10**6, "total_bytes": 10**6, "work_bytes": 10**6, "most_steps": 100, "value_bytes": 1000}
TIMES = {"since": None, "until": None, "before": None}
A_DAY = {"since": at("2006-01-01 00:00"), "until": at("2006-01-02 00:00")}
GAPS = {**OF_ROUTINE, "from": at("2000-03-20 00:00"), "until": at("2006-01-02 00:00"), "after": None, "page_size": 50,
        "reason": None, "now": None}  # fmt: skip
REPORT = {"from": at("2000-01-03 00:00"), "until": at("2000-01-04 00:00"), "late_after_seconds": 60, "now": None,
          "after_task": None, "after_routine": None, "after_id": None, "with_sums": True, "page_size": 50}  # fmt: skip
TIMELINE = {"from": at("2000-01-03 00:00"), "until": at("2000-01-04 00:00"), "bucket_seconds": 900, "now": None,
            "ids": None, "part_of_name": "", "after_task": None, "after_routine": None, "after_id": None,
            "page_size": 50}  # fmt: skip
LIST = {**PAGE, **BOUNDS, "task_id": 1, "status": None, "offset": 0, "routine_id": None}
SINCE = {"since_xid": "3", "since": datetime.now(UTC) + timedelta(hours=1)}
"""A cursor after all that has ended, and before all transactions."""
READS: dict[str, tuple[str, dict[str, Any]]] = {
    "the ledger": ("ledger.list_occurrences", {**OF_ROUTINE, **TIMES, "outcome": None, "page_size": 50}),
    "the latest outcomes": ("ledger.latest_outcomes", {"ids": [1], "slots": 20}),
    "why of a slot": ("ledger.why", {**OF_ROUTINE, "now": None, "at": at("2000-01-01 01:00")}),
    "why of a retried slot": ("ledger.why", {**OF_ROUTINE, "now": None, "at": at("2000-01-01 10:00")}),
    "why of a skipped slot": ("ledger.why", {**OF_ROUTINE, "now": None, "at": at("2006-01-01 01:00")}),
    "why of no slot": ("ledger.why", {**OF_ROUTINE, "now": None, "at": at("2000-01-01 01:30")}),
    "gaps": ("report.gaps", {**GAPS, "with_failed": False}),
    "gaps with failures": ("report.gaps", {**GAPS, "with_failed": True}),
    "a report": ("report.report", REPORT),
    "a timeline": ("timeline.timeline", TIMELINE),
    "backfills": ("backfills.list_backfills", {**OF_ROUTINE, **PAGE, "id": None}),
    "the plan of a backfill": (
        "backfills.plan",
        {**OF_ROUTINE, **A_DAY, "reprocess": "missing", "order": "oldest"},
    ),
    "a run": ("trajectories.find_trajectory", {**BOUNDS, "task": "echo", "id": 10, "temporal_ui": None}),
    "runs": ("trajectories.list_trajectories", LIST),
    "failed runs": ("trajectories.list_trajectories", {**LIST, "status": "failed"}),
    "runs of a routine": ("trajectories.list_trajectories", {**LIST, "routine_id": 1}),
    "runs of a routine, by name": ("trajectories.list_runs", {**PAGE, **NAMED, "detail_length": 100}),
    "webhooks of a routine": ("deliveries.list_deliveries", {**PAGE, **NAMED, "id": None}),
    "a routine": ("routines.find_routine", NAMED),
    "routines": (
        "routines.list_routines",
        {**BOUNDS, "task": None, "after_task": None, "after_name": None, "limit": 50},
    ),
    "changes": ("changes.changed_routines", {**SINCE, "most": 500, "most_runs": 20_000}),
    "changes of a routine": ("changes.changed_routine", {**SINCE, **OF_ROUTINE}),
    "changes of a run": ("changes.changed_run", {**SINCE, "task": "echo", "run_id": 10}),
    "routines by id": ("routines.find_routines", {**BOUNDS, "ids": [1]}),
    "alerts": ("alert_rules.list_alerts", {**PAGE, "state": None, "event": None, "rule": None}),
}


@pytest.fixture
async def large(connection: Connection) -> tuple[Connection, str]:
    """A connection of the API to a large installation, and a key of its smaller collection."""
    await make_routine(connection, await make_task(connection), MONDAY)
    key = await make_key(connection, "my-org")
    for statement in LARGE:
        await connection.execute(statement.encode())
    await connection.execute("SET ROLE routines_api")
    return connection, key.split("_")[1]


async def test_no_read_takes_many_pages(large: tuple[Connection, str]) -> None:
    connection, key_id = large
    size = "SELECT pg_relation_size('routines.trajectories') / current_setting('block_size')::integer"
    assert await value(connection, size) > 4 * MOST_PAGES
    assert {statement for statement, _ in READS.values()} <= DECLARED.keys()
    pages = dict[str, int]()
    for what, (statement, parameters) in READS.items():
        for _ in range(2):  # the first one reads the catalog too
            pages[what] = buffers(await explained(connection, statement, key_id=key_id, **parameters))
    assert {what: count for what, count in pages.items() if count > MOST_PAGES} == {}, pages
