"""Each change leaves its trace: who, when, and the fields before and after."""

import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from routines_core.db import Connection, audit, retention
from routines_core.db.routines import Cadence, RoutineChanges, patch_routine, run_now, set_paused
from routines_core.db.tick import tick
from support.plans import buffers, explained
from support.rows import CATCHUP, Database, make_key, make_routine, make_task, value
from support.stepping import closed_gate, running, session, tick_at, tick_that_stops_before_its_locks, until_blocked

DECIDED_BY_THE_SCHEDULER = {
    "id", "upcoming", "paused_at", "active_minutes", "moved_to", "strikes", "counts_failures_since", "backoff_left",
    "spread_offset", "next_run_at", "settled_until", "last_run_at", "created_at", "updated_at",
}  # fmt: skip
"""Columns that the scheduler writes, or that follow from others. Any other column is one that a person decides."""
ABOVE_ALL = 2**63 - 1
DUE = datetime(2126, 5, 6, 9, tzinfo=UTC)
SECRET = """INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
            VALUES (%s, 1, 'secret_param', 'TOKEN', '', 'k', '')"""
FIRST, SECOND = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


@pytest.fixture
async def routine(connection: Connection) -> int:
    """Create a daily routine, and return its id."""
    return await make_routine(connection, await make_task(connection), DUE)


async def entries(connection: Connection, kind: str = "routine") -> list[tuple[Any, ...]]:
    """Return the action, before and after of each entry of this kind, oldest first."""
    found = await connection.execute(
        "SELECT action, before, after FROM routines.audit WHERE kind = %s ORDER BY id", [kind]
    )
    return await found.fetchall()


async def newest(connection: Connection, kind: str = "routine") -> tuple[Any, ...]:
    return (await entries(connection, kind))[-1]


async def numbers(connection: Connection) -> object:
    """Return the numbers of all revisions, oldest first."""
    return await value(connection, "SELECT array_agg(revision ORDER BY id) FROM routines.audit WHERE kind = 'routine'")


# --- routines ---------------------------------------------------------------------------------------------------------


async def test_every_column_of_routines_is_audited_or_the_schedulers(connection: Connection) -> None:
    found = await connection.execute(
        """SELECT attname::text, attnum = ANY (
                      (SELECT tgattr FROM pg_trigger WHERE tgname = 'note_changed_routine')::int2[])
           FROM pg_attribute WHERE attrelid = 'routines.routines'::regclass AND attnum > 0 AND NOT attisdropped"""
    )
    columns = dict(await found.fetchall())
    unaudited = {column for column, is_audited in columns.items() if not is_audited}
    assert unaudited == DECIDED_BY_THE_SCHEDULER, "name a new column in spec_of and note_changed_routine, or here"


CHANGED = {
    "name": "'other'",
    "cadence_type": "'hourly', hour_utc = NULL",
    "hour_utc": "10",
    "minute_utc": "30",
    "day_of_week": "'mon', cadence_type = 'weekly'",
    "expression": """'"0 9 * * *"', cadence_type = 'cron', hour_utc = NULL""",
    "timezone": """'Asia/Tokyo', expression = '"0 9 * * *"', cadence_type = 'cron', hour_utc = NULL""",
    "every_minutes": "90, cadence_type = 'interval', hour_utc = NULL",
    "anchor": "'2026-05-04 09:00Z', every_minutes = 90, cadence_type = 'interval', hour_utc = NULL",
    "once_at": "'2126-05-04 09:00Z', cadence_type = 'once', hour_utc = NULL",
    "starts_at": "'2026-05-04 09:00Z'",
    "ends_at": "'2126-05-04 09:00Z'",
    "init_params_overrides": """'{"size": null}'""",
    "init_params_from_slot": """'{"text": "slot.date"}'""",
    "secret_refs": f"""'{{"TOKEN": "{FIRST}"}}'""",
    "webhook_url": "'https://example.com'",
    "webhook_secret_id": f"'{FIRST}'",
    "paused": "true",
    "paused_reason": "'why', paused = true",
    "paused_until": "'2126-05-04 09:00Z', paused = true",
    "paused_note": "'why', paused = true",
    "calendar": """'{"exclude": ["holidays"]}'""",
    "active_hours": """'{"windows": ["mon 08:00-18:00"]}'""",
    "overlap_policy": "'queue_one'",
    "max_concurrent": "3, overlap_policy = 'allow'",
    "catchup_window_seconds": "60",
    "timeout_seconds": "60",
    "retry": """'{"max_attempts": 3}'""",
    "pause_after_failures": "3",
    "after_failures": "'backoff'",
    "spread_seconds": "60",
}
"""A new value for each audited column but the ids."""


async def test_a_change_of_any_audited_column_leaves_an_entry(connection: Connection, routine: int) -> None:
    await connection.execute("INSERT INTO routines.calendars (collection_id, name) VALUES (1, 'holidays')")
    await connection.execute(SECRET.encode(), [FIRST])
    audited = await value(
        connection,
        """SELECT array_agg(attname::text) FROM pg_attribute JOIN pg_trigger ON tgrelid = attrelid
           WHERE tgname = 'note_changed_routine' AND attnum = ANY (tgattr::int2[])""",
    )
    assert isinstance(audited, list)
    assert set(audited) == CHANGED.keys() | {"task_id", "collection_id"}
    for column, changed in CHANGED.items():
        async with connection.transaction(force_rollback=True):
            await connection.execute(f"UPDATE routines.routines SET {column} = {changed}".encode())
            action, before, after = await newest(connection)
            assert (action, before != after) == ("changed", True), column
            assert await value(connection, "SELECT routines.spec_at(%s, 1) ->> 'name'", routine) == "morning", column


async def test_a_routine_that_moves_to_another_task_says_from_where(connection: Connection, routine: int) -> None:
    del routine
    await connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (1, 'other')")
    await connection.execute(
        "UPDATE routines.routines SET task_id = (SELECT id FROM routines.tasks WHERE name = 'other')"
    )
    assert await newest(connection) == ("changed", {"task_name": "echo"}, {"task_name": "other"})


async def test_an_entry_has_the_fields_that_changed_and_no_others(connection: Connection, routine: int) -> None:
    await connection.execute("UPDATE routines.routines SET hour_utc = 10, paused_note = NULL, paused = true")
    daily = {"type": "daily", "hour_utc": 9, "minute_utc": 0}
    assert await newest(connection) == (
        "changed",
        {"cadence": daily, "paused": False},
        {"cadence": daily | {"hour_utc": 10}, "paused": True},
    )
    await connection.execute("DELETE FROM routines.routines")
    action, before, after = await newest(connection)
    assert (action, before["paused"], before["name"], after) == ("deleted", True, "morning", {})
    assert await numbers(connection) == [1, 2, 3]
    del routine


async def test_an_update_that_changes_nothing_leaves_no_entry(connection: Connection, routine: int) -> None:
    del routine
    await connection.execute("UPDATE routines.routines SET hour_utc = hour_utc, paused = false, retry = NULL")
    assert len(await entries(connection)) == 1


async def test_a_fire_leaves_no_entry(connection: Connection, routine: int) -> None:
    del routine
    await connection.execute("UPDATE routines.routines SET next_run_at = %s", [DUE])
    assert (await tick_at(connection, DUE)).fired == 1
    assert len(await entries(connection)) == 1


async def test_three_strikes_leave_one_entry(connection: Connection, routine: int) -> None:
    del routine
    for number in range(3):
        due = DUE + timedelta(days=number)
        ticked = await tick(connection, batch_size=10, now=due, fault="no luck", **CATCHUP)
        assert ticked.advanced == 1
    assert [action for action, *_ in await entries(connection)] == ["created", "changed"]
    _, before, after = await newest(connection)
    assert before == {"paused": False}
    assert after["paused_reason"].startswith("paused after 3 fires in a row")


async def test_secrets_are_masked_and_replaced_ones_read_as_changed(connection: Connection, routine: int) -> None:
    del routine
    for secret in (FIRST, SECOND):
        await connection.execute(SECRET.encode(), [secret])
    seen = []
    for refs in (f'{{"A": "{FIRST}"}}', f'{{"A": "{SECOND}", "B": "{SECOND}"}}', "{}"):
        await connection.execute("UPDATE routines.routines SET secret_refs = %s", [refs])
        seen.append((await newest(connection))[1:])
    mask = "********"
    assert seen == [
        ({}, {"secret_params": {"A": mask}}),
        ({"secret_params": {"A": mask}}, {"secret_params": {"A": "changed", "B": mask}}),
        ({"secret_params": {"A": mask, "B": mask}}, {}),
    ]


async def test_times_are_in_utc_whatever_the_time_zone_of_the_session(connection: Connection, routine: int) -> None:
    del routine
    await connection.execute("SET TimeZone = 'Asia/Tokyo'")
    await connection.execute(
        "UPDATE routines.routines SET starts_at = '2026-05-04 09:00:00.5Z', ends_at = '2126-05-04 09:00Z'"
    )
    assert (await newest(connection))[2] == {
        "starts_at": "2026-05-04T09:00:00.500000Z",
        "ends_at": "2126-05-04T09:00:00Z",
    }


async def test_an_import_of_many_routines_leaves_an_entry_for_each(connection: Connection) -> None:
    task = await make_task(connection)
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
           SELECT 1, %s, 'r' || n, 'manual' FROM generate_series(1, 100) AS n""",
        [task],
    )
    made = await entries(connection)
    assert len(made) == 100
    assert made[0] == (
        "created",
        {},
        {
            "name": "r1", "cadence": {"type": "manual"}, "paused": False, "overlap_policy": "skip",
            "init_params_overrides": {},
        },
    )  # fmt: skip


async def test_a_routine_that_comes_back_under_its_old_id_continues_its_revisions(
    connection: Connection, routine: int
) -> None:
    await connection.execute("DELETE FROM routines.routines")
    await connection.execute(
        """INSERT INTO routines.routines (id, collection_id, task_id, name, cadence_type) OVERRIDING SYSTEM VALUE
           VALUES (%s, 1, 1, 'morning', 'manual')""",
        [routine],
    )
    assert await numbers(connection) == [1, 2, 3]
    assert await value(connection, "SELECT routines.spec_at(%s, 2)", routine) == {}


# --- revisions --------------------------------------------------------------------------------------------------------

UPDATES = {
    "name = '{}'": ["morning", "evening"],
    "cadence_type = 'daily', hour_utc = {}, every_minutes = NULL, anchor = NULL": ["9", "10"],
    "cadence_type = 'interval', hour_utc = NULL, every_minutes = {}": ["60", "90"],
    "init_params_overrides = '{}'": ["{}", '{"size": null}', '{"size": [1, {"a": null}]}'],
    "secret_refs = '{}'": ["{}", f'{{"A": "{FIRST}"}}', f'{{"A": "{SECOND}", "B": "{FIRST}"}}'],
    "webhook_secret_id = {}": ["NULL", f"'{FIRST}'", f"'{SECOND}'"],
    "webhook_url = {}": ["NULL", "'https://a.test'", "'https://b.test'"],
    "paused = {}": ["true", "false"],
    "paused = true, paused_until = '2126-05-04 09:00Z', paused_note = '{}'": ["a note", "another"],
    "retry = {}": ["NULL", """'{"max_attempts": 3, "until": 60}'"""],
    "starts_at = {}": ["NULL", "'2026-01-01Z'", "'2026-01-02 00:00:00.25Z'"],
    "after_failures = {}": ["NULL", "'pause'", "'backoff'"],
    "catchup_window_seconds = {}": ["NULL", "0", "60"],
}
"""Values for a change of a routine."""


@pytest.mark.parametrize("seed", range(5))
async def test_the_revisions_replay_to_what_the_routine_was(connection: Connection, routine: int, seed: int) -> None:
    draw = random.Random(seed)
    for secret in (FIRST, SECOND):
        await connection.execute(SECRET.encode(), [secret])
    # Secrets that no routine refers to are deleted; others hold these two.
    await connection.execute("ALTER TABLE routines.routines DISABLE TRIGGER forget_replaced_secrets")
    spec = "SELECT routines.spec_of(routines) FROM routines.routines"
    states = [await value(connection, spec)]
    for _ in range(40):
        zone = draw.choice(["UTC", "Asia/Tokyo"])
        await connection.execute(f"SET TimeZone = '{zone}'".encode())
        columns = draw.choice(list(UPDATES))
        await connection.execute(
            f"UPDATE routines.routines SET {columns.replace('{}', draw.choice(UPDATES[columns]))}".encode()
        )
        revision = await value(connection, "SELECT max(revision) FROM routines.audit WHERE kind = 'routine'")
        state = await value(connection, spec)
        if revision == len(states) + 1:
            states.append(state)
        else:  # nothing was changed, or it would have left an entry
            assert (revision, state) == (len(states), states[-1])
    assert len(states) > 10
    replayed = [await value(connection, "SELECT routines.spec_at(%s, %s)", routine, n + 1) for n in range(len(states))]
    assert replayed == states


# --- the revision of a run --------------------------------------------------------------------------------------------


async def revisions(connection: Connection) -> list[object]:
    """Return the revision that each run was fired with, oldest run first."""
    found = await connection.execute("SELECT routines.revision_of_run(id) FROM routines.trajectories ORDER BY id")
    return [revision for (revision,) in await found.fetchall()]


async def change(connection: Connection, hour: int) -> None:
    await connection.execute("UPDATE routines.routines SET init_params_overrides = %s", [f'{{"size": {hour}}}'])


async def test_a_run_has_the_revision_that_it_was_fired_with(connection: Connection, routine: int) -> None:
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    await tick_at(connection, DUE)
    for hour in (10, 11):
        await change(connection, hour)
    await run_now(connection, key_id=key_id, task="echo", name="morning")
    await run_now(connection, key_id=key_id, task="echo", name="morning")
    await change(connection, 12)
    await connection.execute("UPDATE routines.trajectories SET status = 'cancelled', ended_at = now()")
    await tick_at(connection, DUE + timedelta(days=1))
    assert await revisions(connection) == [1, 3, 3, 4]
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
           VALUES (1, 1, 1, 'api', '{}')"""
    )
    assert (await revisions(connection))[-1] is None
    del routine


async def test_a_waiting_run_has_the_revision_of_the_slot_that_took_it_over(
    connection: Connection, routine: int
) -> None:
    await connection.execute("UPDATE routines.routines SET overlap_policy = 'queue_one'")
    for day in range(2):
        await tick_at(connection, DUE + timedelta(days=day))
    assert await revisions(connection) == [2, 2]
    await change(connection, 10)
    assert (await tick_at(connection, DUE + timedelta(days=2))).coalesced == 1
    await change(connection, 11)
    assert await revisions(connection) == [2, 3]
    del routine


async def test_a_change_that_waits_for_a_fire_comes_after_it(
    connection: Connection, database: Database, routine: int
) -> None:
    del routine
    async with session(database, "changer") as changer, session(database, "ticker") as ticker:
        await changer.execute("BEGIN")
        await changer.execute("SELECT now()")  # the change begins before the fire
        await ticker.execute("BEGIN")
        await tick_at(ticker, DUE)
        async with running(lambda: change(changer, 10)) as changing:
            await until_blocked(connection, changer)
            await ticker.execute("COMMIT")
            await changing
        await changer.execute("COMMIT")
    assert await revisions(connection) == [1]


async def test_a_fire_that_begins_before_a_change_and_locks_after_it_has_its_revision(
    connection: Connection, database: Database, routine: int
) -> None:
    del routine
    async with (
        closed_gate(database) as gate,
        session(database, "ticker") as ticker,
        running(lambda: tick_that_stops_before_its_locks(ticker, DUE)) as ticking,
    ):
        await until_blocked(connection, ticker)
        await change(connection, 10)
        await gate.open()
        assert (await ticking).fired == 1
    assert await revisions(connection) == [2]
    assert await value(connection, "SELECT init_params ->> 'size' FROM routines.trajectories") == "10"


# --- other kinds ------------------------------------------------------------------------------------------------------


async def test_a_task_leaves_its_versions_with_their_workflows(connection: Connection) -> None:
    task = await make_task(connection, '{"init_params": {"a": 1}}')
    await connection.execute(
        "INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (%s, 2, '{}')", [task]
    )
    await connection.execute("UPDATE routines.tasks SET version = 2, updated_at = now()")
    await connection.execute("UPDATE routines.tasks SET description = 'new', max_concurrent_runs = 5")
    await connection.execute("UPDATE routines.tasks SET updated_at = now(), description = description")
    await connection.execute("DELETE FROM routines.tasks")
    first = {"version": 1, "workflow": {"init_params": {"a": 1}}}
    assert await entries(connection, "task") == [
        ("created", {}, {"name": "echo", "description": "", **first}),
        ("changed", first, {"version": 2, "workflow": {}}),
        ("changed", {"description": ""}, {"description": "new", "max_concurrent_runs": 5}),
        ("deleted", {"name": "echo", "description": "new", "max_concurrent_runs": 5, "version": 2, "workflow": {}}, {}),
    ]


async def test_a_workflow_that_jsonb_cannot_hold_is_kept_as_text(connection: Connection) -> None:
    workflow = '{"steps": [], "n": 1e999999}'
    await make_task(connection, workflow)
    assert (await newest(connection, "task"))[2]["workflow"] == workflow


async def test_a_key_leaves_its_end_but_never_its_hash(connection: Connection) -> None:
    await make_key(connection, "my-org")
    await connection.execute("UPDATE routines.api_keys SET last_used_at = now()")
    await connection.execute("UPDATE routines.api_keys SET revoked_at = '2026-05-04 09:00Z'")
    await connection.execute("UPDATE routines.api_keys SET secret_hash = sha256('x')")
    await connection.execute("DELETE FROM routines.api_keys")
    mask = {"secret": "********"}
    assert await entries(connection, "key") == [
        ("created", {}, mask),
        ("changed", {}, {"revoked_at": "2026-05-04T09:00:00Z"}),
        ("changed", mask, {"secret": "changed"}),
        ("deleted", mask | {"revoked_at": "2026-05-04T09:00:00Z"}, {}),
    ]


async def test_limits_leave_their_values_also_that_of_concurrent_runs(connection: Connection) -> None:
    await make_task(connection)
    put = """INSERT INTO routines.collection_limits (collection_id, name, value) VALUES (%s, 'tasks', %s)
             ON CONFLICT ON CONSTRAINT collection_limits_key DO UPDATE SET value = excluded.value, set_at = now()"""
    for collection, most in ((1, 5), (1, 5), (1, None), (None, 7)):
        await connection.execute(put.encode(), [collection, most])
    await connection.execute("DELETE FROM routines.collection_limits WHERE collection_id = 1")
    await connection.execute("UPDATE routines.collections SET max_concurrent_runs = 3")
    assert await entries(connection, "limit") == [
        ("created", {}, {"value": 5}),
        ("changed", {"value": 5}, {"value": None}),
        ("created", {}, {"value": 7}),
        ("deleted", {"value": None}, {}),
        ("changed", {"value": None}, {"value": 3}),
    ]


async def test_an_alert_rule_leaves_its_changes(connection: Connection, routine: int) -> None:
    for secret in (FIRST, SECOND):
        await connection.execute(SECRET.encode(), [secret])
    await connection.execute(
        """INSERT INTO routines.alert_rules
                   (collection_id, name, events, task_id, routine_id, webhook_url, webhook_secret_id)
           VALUES (1, 'a', '{failed}', 1, %s, 'http://a.test/', %s)""",
        [routine, FIRST],
    )
    await connection.execute("UPDATE routines.alert_rules SET digested_until = now(), webhook_secret_id = %s", [SECOND])
    await connection.execute("UPDATE routines.alert_rules SET events = '{late}', after_seconds = 90")
    await connection.execute("DELETE FROM routines.alert_rules")
    shared = {"task": "echo", "routine": "morning", "webhook_url": "http://a.test/", "webhook_secret": "********"}
    assert await entries(connection, "rule") == [
        ("created", {}, shared | {"on": ["failed"]}),
        ("changed", {"webhook_secret": "********"}, {"webhook_secret": "changed"}),
        ("changed", {"on": ["failed"]}, {"on": ["late"], "after_seconds": 90}),
        ("deleted", shared | {"on": ["late"], "after_seconds": 90}, {}),
    ]


async def test_a_calendar_a_feed_and_the_environment_leave_theirs(connection: Connection, routine: int) -> None:
    await make_key(connection, "my-org")
    day = {"from": "2026-12-24"}
    await connection.execute(
        """INSERT INTO routines.calendars (collection_id, name, days) VALUES (1, 'c', '[{"from": "2026-12-24"}]')"""
    )
    await connection.execute("UPDATE routines.calendars SET timezone = 'Europe/Berlin'")
    await connection.execute("DELETE FROM routines.calendars")
    assert await entries(connection, "calendar") == [
        ("created", {}, {"days": [day]}),
        ("changed", {}, {"timezone": "Europe/Berlin"}),
        ("deleted", {"days": [day], "timezone": "Europe/Berlin"}, {}),
    ]
    await connection.execute(
        """INSERT INTO routines.feeds (collection_id, task_id, routine_id, secret_hash, pepper_id)
           SELECT 1, 1, %s, sha256('x'), id FROM routines.peppers""",
        [routine],
    )
    await connection.execute("UPDATE routines.feeds SET last_used_at = now(), tokens = 1")
    await connection.execute("DELETE FROM routines.routines")
    token = {"token": "********", "task": "echo"}
    assert await entries(connection, "feed") == [
        ("created", {}, token | {"routine": "morning"}),
        ("deleted", token | {"routine": "(deleted)"}, {}),
    ]
    for secret in (FIRST, SECOND):
        await connection.execute(SECRET.encode(), [secret])
        await connection.execute(
            "UPDATE routines.collections SET environment_refs = jsonb_build_object('A', %s::text)", [secret]
        )
    assert await entries(connection, "environment") == [
        ("changed", {}, {"A": "********"}),
        ("changed", {"A": "********"}, {"A": "changed"}),
    ]


# --- who --------------------------------------------------------------------------------------------------------------


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


# --- reading ----------------------------------------------------------------------------------------------------------

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


# --- retention --------------------------------------------------------------------------------------------------------


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
