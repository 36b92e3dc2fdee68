"""Every statement that moves a batch has one plan, whatever the statistics foresaw.

A batch is added to a database that already has many rows, in one transaction, so that no statistics change meanwhile.
What the planner knows of the batch differs; what the statement then does must not.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from routines_core.db import Connection
from support.plans import Plan, buffers, explained, nodes
from support.rows import make_task, value
from support.sampling import sample

OTHERS = 5000
BATCHES = (250, 1000)
GROWING = {"trajectories", "steps", "webhook_deliveries", "skips", "routines", "task_versions", "file_uses"}

Statements = tuple[str, ...]
Parameters = dict[str, Any]


class Move(NamedTuple):
    """A statement that moves a batch of rows.

    Attributes:
        statement: Its name.
        rows: Adds the rows of a batch. Their ids, or numbers, are from %(first)s to %(last)s.
        parameters: The statement's parameters for these ids.
    """

    statement: str
    rows: Statements
    parameters: Callable[[list[int]], Parameters]


def runs(status: str, lease: str = "NULL", *, ended: str = "NULL") -> str:
    """Return a statement that adds runs of this status."""
    return f"""INSERT INTO routines.trajectories (
                   id, collection_id, task_id, task_version, trigger, init_params, status, fence, worker,
                   lease_expires_at, started_at, deadline_at, ended_at, created_at, first_workflow_id)
               OVERRIDING SYSTEM VALUE
               SELECT n, 1, 1, 1, 'api', '{{}}', '{status}', 1, 'w', {lease}, now(), now() + interval '1 day', {ended},
                      coalesce({ended}, now()), 'flow-a-b--' || n
               FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""


def deliveries(columns: str, values: str) -> str:
    """Return a statement that adds deliveries of the runs of the same ids."""
    return f"""INSERT INTO routines.webhook_deliveries
                   (id, collection_id, trajectory_id, event_status, url, fence, created_at, {columns})
               OVERRIDING SYSTEM VALUE
               SELECT n, 1, n, 'completed', 'http://a.test/', 1, now() - interval '2 days', {values}
               FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""


LONG_AGO = "now() - interval '2 days'"
BEGUN = """INSERT INTO routines.begun_runs (task_id, trajectory_id, collection_id)
           SELECT 1, n, 1 FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
STEPS = """INSERT INTO routines.steps
               (trajectory_id, name, position, fence, status, activity, inputs, outputs, ended_at)
           SELECT n, 'one', 0, 1, 'completed', 'text_echo', '{}', '{}', now()
           FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
SKIPS = """INSERT INTO routines.skips
               (id, collection_id, routine_id, scheduled_for, last_scheduled_for, reason, recorded_at)
           OVERRIDING SYSTEM VALUE
           SELECT n, 1, n, now(), now(), 'missed', now() - interval '2 days'
           FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
VERSIONS = """INSERT INTO routines.task_versions (task_id, version, collection_id, workflow, init_params, created_at)
              SELECT n, 1, 1, '{}', '{}', now() - interval '2 days'
              FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
FILE_USES = """INSERT INTO routines.file_uses (trajectory_id, path, collection_id)
               SELECT n, md5(n::text) || '-a.txt', 1 FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
UNUSED_FILES = """INSERT INTO routines.unused_files (id, collection_id, path, noted_at) OVERRIDING SYSTEM VALUE
                  SELECT n, 1, md5('unused' || n) || '-a.txt', now() - interval '1 hour'
                  FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
ANSWERS = """INSERT INTO routines.idempotency_keys (key_id, idempotency_key, request_hash, status, body, created_at)
             SELECT 1, n, sha256(''), 200, '', now() - interval '2 days'
             FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
DISPATCHES = """INSERT INTO routines.dispatches
                    (trajectory_id, collection_id, workflow_id, generation, fence, submitted_at, checked_at)
                SELECT n, 1, 'w' || n, 1, %(fence)s, now(), now() - interval '1 day'
                FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
ENDED = runs("completed", ended=LONG_AGO)
CLAIMED = (runs("running", "now() + interval '1 hour'"), BEGUN)
DELIVERED = deliveries("next_attempt_at, delivered_at", f"NULL, {LONG_AGO}")
SENT = (ENDED, deliveries("claimed_at, next_attempt_at", "now(), now() + interval '1 hour'"))


def held(ids: list[int]) -> Parameters:
    return {"ids": ids, "fences": [1] * len(ids)}


def checkpoints(status: str | None) -> Callable[[list[int]], Parameters]:
    step = {"name": "two", "position": 1, "attempt": 1, "status": "completed", "activity": "text_echo", "inputs": {}}
    return lambda ids: {
        "lease_seconds": 60.0,
        "runs": json.dumps(
            [{"id": each, "fence": 1, "status": status, "bytes": 1, "steps": [step | {"outputs": {}}]} for each in ids]
        ),
    }


def page(ids: list[int]) -> Parameters:
    """Return the parameters of a page of retention that begins with the batch and is all of it."""
    return {"now": None, "keep_seconds": 3600.0, "after": ids[0] - 1, "page_size": len(ids)}


def outcomes(ids: list[int]) -> Parameters:
    many = len(ids)
    failed = {"statuses": [500] * many, "errors": ["it answered 500"] * many, "durations": [0.1] * many}
    return {
        **held(ids),
        **failed,
        "delays": [60.0] * many,
        "are_gone": [False] * many,
        "are_endpoints_faults": [True] * many,
        "stop_after_seconds": 86400.0,
        "now": None,
    }


CLAIM = {"worker": "w", "lease_seconds": 60.0, "deadline_seconds": 600.0, "last_tasks": "{}", "after": 0,
         "but_collections": [], "most_each": None, "inline_bytes": 1000}  # fmt: skip
CLAIM_OF_DELIVERIES = {"reserve": 0, "lease_seconds": 60.0, "most_lanes": 100, "most_failures": 5, "is_traced": False,
                       "now": None}  # fmt: skip
PREPARE = {"most_value_bytes": 1000, "most_bytes": 10_000, "most_together": 1_000_000}
STOPPED = """INSERT INTO routines.webhook_endpoints (collection_id, url, failing_since, stopped_at, stopped_reason)
             SELECT 1, 'http://a.test/', now(), now(), 'gone' WHERE %(first)s::bigint <= %(last)s::bigint"""
MOVES = [
    Move("runs.claim", (runs("pending"),), lambda ids: {**CLAIM, "capacity": len(ids)}),
    Move("runs.renew", CLAIMED, lambda ids: {**held(ids), "lease_seconds": 60.0}),
    Move("runs.checkpoint", CLAIMED, checkpoints(None)),
    Move("runs.checkpoint", CLAIMED, checkpoints("completed")),
    Move("runs.release", CLAIMED, held),
    Move("runs.reap", (runs("running", "now()"), BEGUN), lambda ids: {"max_crashes": 3, "most": len(ids)}),
    Move(
        "deliveries.claim",
        (ENDED, deliveries("next_attempt_at", "now() - interval '1 minute'")),
        lambda ids: {**CLAIM_OF_DELIVERIES, **dict.fromkeys(("capacity", "per_host", "per_collection"), len(ids))},
    ),
    Move("deliveries.prepare", (*SENT, STEPS), lambda ids: {**held(ids), **PREPARE}),
    Move("deliveries.settle", SENT, outcomes),
    Move("deliveries.release", SENT, held),
    Move(
        "deliveries.give_up_stopped",
        (ENDED, deliveries("next_attempt_at", "now() - interval '1 minute'"), STOPPED),
        lambda ids: {"batch_size": len(ids), "now": None},
    ),
    Move(
        "dispatches.dispatch",
        CLAIMED,
        lambda ids: {**held(ids), "workflow_ids": [f"w{each}" for each in ids]},
    ),
    Move(
        "dispatches.taken_away",
        (*CLAIMED, DISPATCHES.replace("%(fence)s", "0")),
        lambda ids: {"again_seconds": 60.0, "limit": len(ids)},
    ),
    Move(
        "dispatches.unsettled",
        (*CLAIMED, DISPATCHES.replace("%(fence)s", "1")),
        lambda ids: {"unsubmitted_seconds": 1.0, "submitted_seconds": 1.0, "limit": len(ids)},
    ),
    Move("retention.delete_trajectories", (ENDED, STEPS, DELIVERED), page),
    Move("retention.delete_skips", (SKIPS,), page),
    Move("retention.delete_deliveries", (ENDED, DELIVERED), page),
    Move("retention.delete_versions", (VERSIONS,), lambda ids: {"now": None, "page_size": len(ids)}),
    Move("retention.delete_answers", (ANSWERS,), lambda ids: {"now": None, "page_size": len(ids)}),
    Move(
        "retention.note_orphans",
        (),
        lambda ids: {"collection_ids": [1] * len(ids), "paths": [f"{each:032x}-a.txt" for each in ids]},
    ),
    Move("retention.judge_files", (UNUSED_FILES,), lambda ids: {"now": None, "after": 0, "page_size": len(ids)}),
]
KNOWN = {
    "both": ("others", "batch", "analyze"),
    "no batch": ("others", "analyze", "batch"),
    "nothing but the batch": ("batch", "analyze", "others"),
    "nothing": ("others", "batch"),
}
"""What the statistics knew: the order in which the rows come and statistics are made."""


async def fill(connection: Connection, order: Statements, move: Move, first: int, last: int) -> None:
    """Add the rows in this order, without triggers."""
    await connection.execute("SET LOCAL session_replication_role = replica")
    for part in order:
        if part == "analyze":
            await connection.execute("ANALYZE")
            continue
        rows = move.rows if part == "batch" else (ENDED, STEPS, DELIVERED, SKIPS, FILE_USES)
        # The others come first by id, except where a statement begins at the first id.
        span = {"first": first, "last": last} if part == "batch" else {"first": 1, "last": OTHERS}
        for statement in rows:
            await connection.execute(statement.encode(), span)
    await connection.execute("SET LOCAL session_replication_role = origin")


async def moved(connection: Connection) -> int:
    """Return how many rows of the product this transaction has written."""
    written = await value(
        connection,
        """SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_xact_user_tables
           WHERE schemaname = 'routines'""",
    )
    assert isinstance(written, int)
    return written


def wasted(plan: Plan) -> int:
    """Return how many rows were looked at in vain by joins, and by scans of a CTE for each row of another."""
    return sum(
        node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"]
        + (node.get("Rows Removed by Filter", 0) * node["Actual Loops"] if node["Node Type"] == "CTE Scan" else 0)
        for node in nodes(plan)
    )


def read_whole(plan: Plan) -> set[str]:
    """Return the tables that grow and were read from one end to the other."""
    return {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"} & GROWING


@pytest.mark.parametrize("known", sample(KNOWN, 2))
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.statement)
async def test_a_batch_costs_what_it_holds_whatever_the_statistics_foresaw(
    connection: Connection, move: Move, known: str
) -> None:
    await make_task(connection)
    read: dict[int, int] = {}
    for batch in BATCHES:
        async with connection.transaction(force_rollback=True):
            ids = list(range(OTHERS + 1, OTHERS + batch + 1))
            await fill(connection, KNOWN[known], move, ids[0], ids[-1])
            before = await moved(connection)
            plan = await explained(connection, move.statement, **move.parameters(ids))
            assert await moved(connection) - before >= batch
            assert wasted(plan) <= 4 * batch
            assert read_whole(plan) == set()
            read[batch] = buffers(plan)
    least, most = BATCHES
    assert read[most] <= 1.3 * most / least * read[least]
