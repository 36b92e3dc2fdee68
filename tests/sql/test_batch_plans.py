"""Every statement that moves a batch has one plan, whatever the statistics foresaw.

A batch is added to a database that already has many rows, in one transaction that is rolled back, so that no statistics
change meanwhile. What the planner knows of the batch differs; what the statement then does must not.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from psycopg.rows import class_row

from routines_core.db import (
    Connection,
    alerts,
    connect,
    deliveries,
    dispatches,
    retention,
    rotation,
    runs,
    trajectories,
)
from routines_core.db.statements import Statement, sql_dir, texts
from support.plans import Plan, buffers, explained, explained_once, nodes, prepared_once
from support.rows import Database, make_key, make_task
from support.sampling import sample
from support.serving import copy_of

OTHERS = 60_000
"""The other rows of each table: so many, and so wide, that reading all of them costs more than looking up a batch."""
BATCHES = (250, 1000)
DECLARING = (alerts, deliveries, dispatches, retention, rotation, runs, trajectories)
"""The modules that declare the statements."""

Statements = tuple[str, ...]
Parameters = dict[str, Any]


class Move(NamedTuple):
    """A statement that moves a batch of rows.

    Attributes:
        statement: Its name.
        rows: Adds the rows of a batch. Their ids, or numbers, are from %(first)s to %(last)s.
        parameters: The statement's parameters for these ids.
        writes: Whether it writes at least a row for each; otherwise it only reads them.
        searches: The tables that it must search for words, whole.
    """

    statement: str
    rows: Statements
    parameters: Callable[[list[int]], Parameters]
    writes: bool = True
    searches: frozenset[str] = frozenset()


WIDE = '{"text": "' + 600 * "x" + '"}'


def added_runs(status: str, lease: str = "NULL", *, ended: str = "NULL") -> str:
    """Return a statement that adds runs of this status."""
    return f"""INSERT INTO routines.trajectories (
                   id, collection_id, task_id, task_version, trigger, init_params, status, fence, worker,
                   lease_expires_at, started_at, deadline_at, ended_at, created_at, first_workflow_id)
               OVERRIDING SYSTEM VALUE
               SELECT n, 1, 1, 1, 'api', '{WIDE}', '{status}', 1, 'w', {lease}, now(), now() + interval '1 day',
                      {ended}, coalesce({ended}, now()), 'flow-a-b--' || n
               FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""


def added_deliveries(columns: str, values: str) -> str:
    """Return a statement that adds deliveries of the runs of the same ids."""
    return f"""INSERT INTO routines.webhook_deliveries
                   (id, collection_id, trajectory_id, event_status, url, fence, created_at, {columns})
               OVERRIDING SYSTEM VALUE
               SELECT n, 1, n, 'completed', 'http://a.test/', 1, now() - interval '2 days', {values}
               FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""


LONG_AGO = "now() - interval '2 days'"
BEGUN = """INSERT INTO routines.begun_runs (task_id, trajectory_id, collection_id)
           SELECT 1, n, 1 FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
STEPS = f"""INSERT INTO routines.steps
               (trajectory_id, name, position, fence, status, activity, inputs, outputs, ended_at)
           SELECT n, 'one', 0, 1, 'completed', 'text_echo', '{WIDE}', '{{}}', now()
           FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
SKIPS = """INSERT INTO routines.skips
               (id, collection_id, routine_id, scheduled_for, last_scheduled_for, reason, recorded_at)
           OVERRIDING SYSTEM VALUE
           SELECT n, 1, n, now(), now(), 'missed', now() - interval '2 days'
           FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
AUDIT = """INSERT INTO routines.audit
               (id, at, collection_id, kind, action, object_id, revision, last_run_id, before, after, actor)
           OVERRIDING SYSTEM VALUE
           SELECT n, now() - interval '9 days', 1, 'routine', 'changed', n, 1, 0, '{}', '{}', 'key 1'
           FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
VERSIONS = """INSERT INTO routines.task_versions (task_id, version, collection_id, workflow, init_params, created_at)
              SELECT n, 1, 1, '{}', '{}', now() - interval '2 days'
              FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n ON CONFLICT DO NOTHING"""
REPLACED = (
    """INSERT INTO routines.routines (id, collection_id, task_id, name, cadence_type, overlap_policy)
       OVERRIDING SYSTEM VALUE
       SELECT n, 1, 1, 'r' || n, 'manual', 'cancel_other'
       FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n""",
    f"""INSERT INTO routines.trajectories (id, collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                           init_params, status, fence, worker, lease_expires_at, started_at)
        OVERRIDING SYSTEM VALUE
        SELECT n, 1, 1, 1, n, 'run-now', '{WIDE}', 'running', 1, 'w', now() + interval '1 hour', now()
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n""",
    f"""INSERT INTO routines.trajectories (id, collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                           init_params, status, lease_expires_at, scheduled_for, created_at, place)
        OVERRIDING SYSTEM VALUE
        SELECT -n, 1, 1, 1, n, 'schedule', '{WIDE}', 'running', 'infinity', now(), now() - interval '1 day', 0
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n""",
)
"""For each id a run that is active, and another that waits for its end."""
DELETED = """INSERT INTO routines.deleted_routines (id, collection_id, task_id, name, deleted_at)
             SELECT n, 1, 1, 'r' || n, now() - interval '2 days'
             FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
BACKFILLS = """INSERT INTO routines.backfills
                   (id, collection_id, routine_id, from_time, until_time, made_by, ended_at, end_reason)
               OVERRIDING SYSTEM VALUE
               SELECT n, 1, n, now() - interval '3 days', now() - interval '2 days', 'key 1', now() - interval '2 days',
                      'expanded'
               FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
FILE_USES = """INSERT INTO routines.file_uses (trajectory_id, path, collection_id)
               SELECT n, md5(n::text) || '-a.txt', 1 FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
SECRETS = """INSERT INTO routines.secrets (id, collection_id, kind, field, owner, ciphertext, key_id)
             SELECT lpad(to_hex(n), 32, '0')::uuid, 1, 'environment', 'A', '', 'old', 'a'
             FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
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
ALERTS = """INSERT INTO routines.alerts
                (id, collection_id, rule_id, routine_id, event, subject, scheduled_for, detail, opened_at, {columns})
            OVERRIDING SYSTEM VALUE
            SELECT n, 1, 1, n, {event}, 'slot:' || n, now(), 'it is late', now() - interval '2 days', {values}
            FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
RULE = """INSERT INTO routines.alert_rules
              (id, collection_id, name, events, webhook_url, digest_at_utc, digested_until)
          OVERRIDING SYSTEM VALUE
          SELECT 1, 1, 'on-call', '{late,missed,failed,recovered}', 'http://a.test/', {digest},
                 now() - interval '2 days'
          WHERE %(first)s::bigint <= %(last)s::bigint"""
EVENTS = """INSERT INTO routines.alert_events (id, collection_id, routine_id, event, subject, scheduled_for, at)
            OVERRIDING SYSTEM VALUE
            SELECT n, 1, n, {event}, 'slot:' || n, now() + interval '1 day', now() + interval '1 hour'
            FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
ROUTINES = """INSERT INTO routines.routines
                  (id, collection_id, task_id, name, cadence_type, next_run_at, init_params_overrides)
              OVERRIDING SYSTEM VALUE
              SELECT n, 1, 1, 'r' || n, 'hourly', {due}, jsonb_build_object('text', repeat('x', 600))
              FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
NAMES = """INSERT INTO routines.routine_names (task_id, name, routine_id, collection_id)
           SELECT 1, 'r' || n, n, 1 FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
STARTED = """INSERT INTO routines.trajectories (
                 id, collection_id, task_id, task_version, trigger, triggered_by_routine_id, scheduled_for, init_params)
             OVERRIDING SYSTEM VALUE
             SELECT n, 1, 1, 1, 'schedule', n, now() + interval '1 minute', '{}'
             FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"""
ENDED = added_runs("completed", ended=LONG_AGO)
CLAIMED = (added_runs("running", "now() + interval '1 hour'"), BEGUN)
RULE_NOW = RULE.replace("{digest}", "NULL")
NEVER_DUE = (ROUTINES.format(due="now() + interval '1 day'"), NAMES)
CLOSED = ALERTS.format(columns="closed_at, notice_id", event="'late'", values=f"{LONG_AGO}, n")
RECOVERED = ALERTS.format(
    columns="closed_at, tells_recovery, notice_id", event="'late'", values=f"{LONG_AGO}, true, 1000000 + n"
)
DELIVERED = added_deliveries("next_attempt_at, delivered_at", f"NULL, {LONG_AGO}")
SENT = (ENDED, added_deliveries("claimed_at, next_attempt_at", "now(), now() + interval '1 hour'"))


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


def judged(ids: list[int]) -> Parameters:
    return {"every_seconds": None, "now": None, "batch_size": len(ids)}


def outcomes(ids: list[int]) -> Parameters:
    many = len(ids)
    failed = {"statuses": [500] * many, "errors": ["it answered 500"] * many, "durations": [0.1] * many}
    return {
        **held(ids),
        **failed,
        "delays": [60.0] * many,
        "answers": ['{"status": 500}'] * many,
        "are_gone": [False] * many,
        "are_endpoints_faults": [True] * many,
        "stop_after_seconds": 86400.0,
        "now": None,
    }


def rotated(ids: list[int]) -> Parameters:
    names = [UUID(int=each) for each in ids]
    return {"ids": names, "old": [b"old"] * len(ids), "new": [b"new"] * len(ids), "key_id": "b"}


CLAIM = {"worker": "w", "lease_seconds": 60.0, "deadline_seconds": 600.0, "last_tasks": "{}", "after": 0,
         "but_collections": [], "most_each": None, "inline_bytes": 1000}  # fmt: skip
CLAIM_OF_DELIVERIES = {"reserve": 0, "lease_seconds": 60.0, "most_lanes": 100, "most_failures": 5, "is_traced": False,
                       "now": None}  # fmt: skip
PREPARE = {"most_value_bytes": 1000, "most_bytes": 10_000, "most_together": 1_000_000}
STOPPED = """INSERT INTO routines.webhook_endpoints (collection_id, url, failing_since, stopped_at, stopped_reason)
             SELECT 1, 'http://a.test/', now(), now(), 'gone' WHERE %(first)s::bigint <= %(last)s::bigint"""
MOVES = [
    Move("runs.claim", (added_runs("pending"),), lambda ids: {**CLAIM, "capacity": len(ids)}),
    Move("runs.renew", CLAIMED, lambda ids: {**held(ids), "lease_seconds": 60.0}),
    Move("runs.still_claimed", CLAIMED, held, writes=False),
    Move("runs.checkpoint", CLAIMED, checkpoints(None)),
    Move("runs.checkpoint", CLAIMED, checkpoints("completed")),
    Move("runs.release", CLAIMED, held),
    Move("runs.fence_off", REPLACED, lambda ids: {"most": len(ids)}),
    Move("runs.reap", (added_runs("running", "now()"), BEGUN), lambda ids: {"max_crashes": 3, "most": len(ids)}),
    Move(
        "deliveries.claim",
        (ENDED, added_deliveries("next_attempt_at", "now() - interval '1 minute'")),
        lambda ids: {**CLAIM_OF_DELIVERIES, **dict.fromkeys(("capacity", "per_host", "per_collection"), len(ids))},
    ),
    Move("deliveries.prepare", (*SENT, STEPS), lambda ids: {**held(ids), **PREPARE}),
    Move("deliveries.settle", SENT, outcomes),
    Move("deliveries.release", SENT, held),
    Move(
        "deliveries.give_up_stopped",
        (ENDED, added_deliveries("next_attempt_at", "now() - interval '1 minute'"), STOPPED),
        lambda ids: {"batch_size": len(ids), "now": None},
    ),
    Move(
        "dispatches.dispatch",
        CLAIMED,
        lambda ids: {**held(ids), "workflow_ids": [f"w{each}" for each in ids]},
    ),
    Move(
        "dispatches.submitted",
        (*CLAIMED, DISPATCHES.replace("%(fence)s", "1")),
        lambda ids: {"ids": ids, "generations": [1] * len(ids)},
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
    Move("retention.delete_audit", (AUDIT,), page),
    Move("retention.delete_deliveries", (ENDED, DELIVERED), page),
    Move(
        "retention.delete_alerts",
        (ALERTS.format(columns="closed_at", event="'late'", values=LONG_AGO),),
        page,
    ),
    Move(
        "alerts.open_late",
        (RULE_NOW, ROUTINES.format(due="now() - interval '5 minutes'"), NAMES),
        judged,
    ),
    Move("alerts.follow_events", (RULE_NOW, *NEVER_DUE, EVENTS.format(event="'failed'")), judged),
    Move(
        "alerts.follow_events",
        (
            RULE_NOW,
            *NEVER_DUE,
            ALERTS.format(columns="closed_at", event="'failed'", values="NULL"),
            EVENTS.format(event="'completed'"),
        ),
        judged,
    ),
    Move(
        "alerts.close_ended",
        (RULE_NOW, *NEVER_DUE, ALERTS.format(columns="closed_at", event="'late'", values="NULL"), STARTED),
        judged,
    ),
    Move(
        "alerts.queue_notices",
        (RULE_NOW, *NEVER_DUE, ALERTS.format(columns="closed_at", event="'failed'", values="NULL")),
        judged,
    ),
    Move(
        "alerts.queue_recoveries",
        (RULE_NOW, *NEVER_DUE, RECOVERED),
        judged,
    ),
    Move(
        "alerts.queue_digests",
        (RULE.replace("{digest}", "'08:00'"), *NEVER_DUE, RECOVERED),
        judged,
    ),
    Move("retention.delete_versions", (VERSIONS,), page),
    Move("retention.delete_names", (DELETED,), page),
    Move("retention.delete_backfills", (BACKFILLS,), page),
    Move("retention.delete_answers", (ANSWERS,), lambda ids: {"now": None, "page_size": len(ids)}),
    Move(
        "retention.note_orphans",
        (),
        lambda ids: {"collection_ids": [1] * len(ids), "paths": [f"{each:032x}-a.txt" for each in ids]},
    ),
    Move("secrets.replace_ciphertexts", (SECRETS,), rotated),
    Move(
        "trajectories.set_statuses",
        (added_runs("pending"),),
        lambda ids: {"ids": ids, "statuses": ["cancelled"] * len(ids), "task": "echo", "key_id": 1},
    ),
    Move(
        "retention.judge_files",
        (UNUSED_FILES,),
        lambda ids: {"now": None, "after": 0, "page_size": len(ids)},
        searches=frozenset({"routines", "task_versions"}),
    ),
]
KNOWN = ("the others", "both", "nothing")
"""Which rows the statistics know of. Where these are the others, the plan was made before the batch was there.

Sessions keep plans, and the tables of a new install may be analyzed while nothing is active.
"""
FORGET = """DELETE FROM pg_statistic;
            UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE relnamespace = 'routines'::regnamespace"""
"""As after a restore."""
OTHER_ROWS = (ENDED, VERSIONS, STEPS, DELIVERED, SKIPS, AUDIT, FILE_USES, SECRETS, *NEVER_DUE, CLOSED)
ONE_BY_ONE = {
    "alert_rules.create_rule",
    "alert_rules.replace_rule",
    "collections.patch_environment",
    "routines.create_routine",
    "routines.patch_routine",
    "routines.run_now",
    "trajectories.start_run",
    "trajectories.rerun",
}
"""Statements that write one row, and a few beside it."""
TESTED_ELSEWHERE = {"tick.tick", "tick.resume"}
"""See tests/ticker/test_tick_plan.py and tests/ticker/test_pauses.py."""
SMALL = {"limits.note_listed_files", "retention.delete_endpoints", "retention.forget_files"}
"""Statements whose tables stay small: a row for each collection, receiver that fails, or file that is about to go."""


@pytest.fixture(scope="module")
def large(server_url: str, template: str) -> Generator[Database]:
    """Yield a database with the other rows, and statistics of them."""
    with copy_of(server_url, template) as database:
        asyncio.run(enlarge(database))
        yield database


async def enlarge(database: Database) -> None:
    async with connect(database.url, "tests", statement_timeout="5min") as connection:
        await prepare(connection)
        async with connection.transaction():
            await fill(connection, OTHER_ROWS, 1, OTHERS)
        await connection.execute("VACUUM ANALYZE")


async def prepare(connection: Connection) -> None:
    """Create what the rows belong to: a collection and its key, and a task, each with the id 1."""
    await make_task(connection)
    await make_key(connection, "my-org")
    await connection.execute("DELETE FROM routines.audit")
    # Rows that a statement adds come after those that are filled in.
    for table in ("alerts", "webhook_deliveries"):
        await connection.execute(f"SELECT setval('routines.{table}_id_seq', 10000000)".encode())


@pytest.fixture
async def filled(large: Database) -> AsyncGenerator[Connection]:
    async with connect(large.url, "tests") as opened:
        yield opened


async def fill(connection: Connection, rows: Statements, first: int, last: int) -> None:
    """Add rows without triggers."""
    await connection.execute("SET LOCAL session_replication_role = replica")
    for statement in rows:
        await connection.execute(statement.encode(), {"first": first, "last": last})
    await connection.execute("SET LOCAL session_replication_role = origin")


class Touched(NamedTuple):
    """How many rows of the product this transaction has written and read, its functions and triggers included."""

    written: int
    read: int


async def touched(connection: Connection) -> Touched:
    cursor = connection.cursor(row_factory=class_row(Touched))
    await cursor.execute(
        """SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint AS written,
                  sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint AS read
           FROM pg_stat_xact_user_tables WHERE schemaname = 'routines'"""
    )
    row = await cursor.fetchone()
    assert row
    return row


def is_repeated_scan(node: Plan) -> bool:
    return node["Node Type"] == "CTE Scan" and node["Actual Loops"] > 1


def wasted(plan: Plan) -> int:
    """Return how many rows were looked at in vain by joins, and by scans of a CTE for each row of another."""
    return sum(
        node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"]
        + (node.get("Rows Removed by Filter", 0) * node["Actual Loops"] if is_repeated_scan(node) else 0)
        for node in nodes(plan)
    )


def read_whole(plan: Plan, batch: int) -> set[str]:
    """Return the tables that were read from one end to the other and hold much more than the batch."""
    return {
        node["Relation Name"]
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan"
        and (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] > 4 * batch
    }


class Cost(NamedTuple):
    """Pages that the statement read, without its triggers, and rows that it read with them."""

    pages: int
    rows: int


async def plan_early(connection: Connection, move: Move) -> list[str]:
    """Plan the statement for a single row, and those of its functions and triggers. Returns its parameters."""
    names = await prepared_once(
        connection, Statement.declared[move.statement].text, {"plan_cache_mode": "force_generic_plan"}
    )
    async with connection.transaction(force_rollback=True):
        await fill(connection, move.rows, OTHERS + 1, OTHERS + 1)
        await explained_once(connection, names, **move.parameters([OTHERS + 1]))
    return names


async def cost(connection: Connection, move: Move, ids: list[int], planned: list[str] | None = None) -> Cost:
    """Move a batch, and return what was read for it."""
    before = await touched(connection)
    parameters = move.parameters(ids)
    plan = await (
        explained(connection, move.statement, **parameters)
        if planned is None
        else explained_once(connection, planned, **parameters)
    )
    after = await touched(connection)
    assert after.written - before.written >= len(ids) * move.writes
    assert wasted(plan) <= 4 * len(ids)
    assert read_whole(plan, len(ids)) <= move.searches
    return Cost(buffers(plan), after.read - before.read)


@pytest.mark.parametrize("known", sample(KNOWN, 1))
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.statement)
async def test_a_batch_costs_what_it_holds_whatever_the_statistics_foresaw(
    filled: Connection, move: Move, known: str
) -> None:
    costs: list[Cost] = []
    planned = await plan_early(filled, move) if known == "the others" else None
    for batch in BATCHES:
        async with filled.transaction(force_rollback=True):
            ids = list(range(OTHERS + 1, OTHERS + batch + 1))
            await fill(filled, move.rows, ids[0], ids[-1])
            if known == "both":
                await filled.execute("ANALYZE")
            if known == "nothing":
                await filled.execute(FORGET)
            costs.append(await cost(filled, move, ids, planned))
    # A row may cost a page more or less by another plan, but not more with each row.
    assert costs[1].pages <= 1.5 * BATCHES[1] / BATCHES[0] * costs[0].pages
    assert costs[1].rows <= 1.5 * BATCHES[1] / BATCHES[0] * max(costs[0].rows, BATCHES[0])


@pytest.mark.parametrize("move", sample(MOVES, 2), ids=lambda move: move.statement)
async def test_statistics_of_the_batch_alone_make_no_difference(connection: Connection, move: Move) -> None:
    """They foresee that everything is due: nothing else had been there."""
    await prepare(connection)
    ids = list(range(OTHERS + 1, OTHERS + BATCHES[-1] + 1))
    async with connection.transaction(force_rollback=True):
        await fill(connection, move.rows, ids[0], ids[-1])
        await connection.execute("ANALYZE")
        await fill(connection, OTHER_ROWS, 1, OTHERS)
        await cost(connection, move, ids)


async def test_a_statement_that_reads_the_whole_table_is_noticed(
    filled: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Statement.declared["deliveries.claim"]
    whole = claim.text.replace("id = ANY (ARRAY(SELECT id FROM locked))", "id + 0 = ANY (ARRAY(SELECT id FROM locked))")
    assert whole != claim.text
    monkeypatch.setattr(claim, "text", whole)
    move = next(move for move in MOVES if move.statement == claim.name)
    ids = list(range(OTHERS + 1, OTHERS + BATCHES[-1] + 1))
    async with filled.transaction(force_rollback=True):
        await fill(filled, move.rows, ids[0], ids[-1])
        with pytest.raises(AssertionError, match="webhook_deliveries"):
            await cost(filled, move, ids)


def test_every_statement_that_moves_a_batch_is_tested() -> None:
    batch = re.compile(r"unnest|json_to_recordset|LIMIT %|ANY \(%|LIMIT shares")
    found = {
        f"{file.stem}.{name}"
        for file in (sql_dir() / "queries").glob("*.sql")
        for name, text in texts(file.stem).items()
        if re.search(r"\b(UPDATE|DELETE|INSERT)\b", text) and batch.search(text)
    }
    tested = {move.statement for move in MOVES}
    assert found - tested == ONE_BY_ONE | TESTED_ELSEWHERE | SMALL
