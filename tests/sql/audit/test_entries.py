"""Entries of the audit: who is named in them, what it costs to read them, and how long they are kept."""

import itertools
from datetime import UTC, datetime, timedelta

from routines_core.db import Connection, audit, retention
from routines_core.db.routines import Cadence, RoutineChanges, patch_routine, set_paused
from support.auditing import change
from support.plans import buffers, explained
from support.rows import make_key, value

ABOVE_ALL = 2**63 - 1


async def test_a_key_the_scheduler_and_a_login_are_told_apart(connection: Connection, routine: int) -> None:
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    path = {"key_id": key_id, "task": "echo", "name": "morning"}
    await patch_routine(connection, RoutineChanges(cadence=Cadence("hourly")), **path)
    await set_paused(connection, **path, paused=True)
    await connection.execute("SET ROLE routines_ticker")
    await connection.execute("UPDATE routines.routines SET paused = false")
    await connection.execute("RESET ROLE")
    await connection.execute("DELETE FROM routines.routines")
    found = await connection.execute(
        """SELECT actor, key_id, login = session_user FROM routines.audit
           WHERE object_id = %s AND kind = 'routine' ORDER BY id""",
        [routine],
    )
    me = await value(connection, "SELECT 'login ' || session_user")
    assert await found.fetchall() == [
        (me, None, True),
        (f"key {key_id}", key_id, True),
        (f"key {key_id}", key_id, True),
        ("scheduler", None, True),
        (me, None, True),
    ]


async def test_the_view_of_changes_has_a_row_for_each_field(connection: Connection, routine: int) -> None:
    del routine
    await connection.execute("UPDATE routines.routines SET hour_utc = 10, name = 'evening'")
    found = await connection.execute(
        "SELECT what, revision, field, before, after FROM routines.changes WHERE revision = 2 ORDER BY field"
    )
    daily = {"type": "daily", "hour_utc": 9, "minute_utc": 0}
    what = "my-org/echo/evening"
    assert await found.fetchall() == [
        (what, 2, "cadence", daily, daily | {"hour_utc": 10}),
        (what, 2, "name", "morning", "evening"),
    ]


MANY = 20_000
READ = "SELECT seq_tup_read FROM pg_stat_xact_all_tables WHERE relid = 'routines.audit'::regclass"


async def test_a_page_costs_what_it_shows_among_many_entries_of_others(connection: Connection, routine: int) -> None:
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    await connection.execute(
        """INSERT INTO routines.audit
               (collection_id, kind, action, object_id, name, revision, last_run_id, before, after, actor)
           SELECT owner, 'routine', 'changed', routine, 'r', 1 + n, n, '{}', '{}', 'key 1'
           FROM generate_series(1, %s) AS n CROSS JOIN (VALUES (1, %s::bigint), (2, 1000)) AS of (owner, routine)""",
        [MANY, routine],
    )
    page = {"key_id": key_id, "limit": 10, "page_bytes": audit.LISTED_BYTES}
    for kinds in ((None, "key", "feed"), (None, "key", "feed", "routine")):  # without statistics, and with them
        for kind, before in itertools.product(kinds, (ABOVE_ALL, MANY)):
            plan = await explained(connection, "audit.list_changes", **page, kind=kind, before=before)
            assert buffers(plan) < 150, (kind, before)
        plan = await explained(connection, "audit.list_revisions", **page, routine_id=routine, before=500)
        assert buffers(plan) < 250
        async with connection.transaction():
            began = await value(connection, READ)
            await change(connection, 10)
            assert await value(connection, READ) == began
        await connection.execute("ANALYZE routines.audit")


async def test_retention_deletes_old_entries_but_the_newest_revision_of_a_routine(
    connection: Connection, routine: int
) -> None:
    for hour in (10, 11, 12):
        await change(connection, hour)
    later = datetime.now(UTC) + timedelta(days=400)
    page = await retention.delete_page(connection, "audit", keep_seconds=86400.0 * 401, now=later)
    assert (page.deleted, page.is_last) == (0, True)
    page = await retention.delete_page(connection, "audit", keep_seconds=86400.0, now=later)
    assert page.deleted == 4  # of the task, and three of the routine
    assert await value(connection, "SELECT array_agg(revision) FROM routines.audit") == [4]
    await change(connection, 13)
    assert await value(connection, "SELECT max(revision) FROM routines.audit") == 5
    assert (
        await value(connection, "SELECT routines.spec_at(%s, 4) -> 'init_params_overrides' ->> 'size'", routine) == "12"
    )
    await connection.execute("DELETE FROM routines.routines")
    page = await retention.delete_page(connection, "audit", keep_seconds=86400.0, now=later)
    assert page.deleted == 3
