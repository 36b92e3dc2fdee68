"""Changes of tasks, keys, limits, alert rules, calendars, feeds and environments leave their trace too."""

from routines_core.db import Connection
from support.auditing import FIRST, SECOND, SECRET, entries, newest
from support.rows import make_key, make_task


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
