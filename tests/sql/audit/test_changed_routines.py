"""Each change of a routine leaves its trace: the fields that changed, before and after."""

from datetime import timedelta

from routines_core.db import Connection
from routines_core.db.tick import tick
from support.auditing import DUE, FIRST, SECOND, SECRET, entries, newest
from support.rows import CATCHUP, make_task, value
from support.stepping import tick_at

DECIDED_BY_THE_SCHEDULER = {
    "id", "upcoming", "paused_at", "active_minutes", "moved_to", "strikes", "counts_failures_since", "backoff_left",
    "spread_offset", "next_run_at", "settled_until", "last_run_at", "created_at", "updated_at",
}  # fmt: skip
"""Columns that the scheduler writes, or that follow from others. Any other column is one that a person decides."""


async def numbers(connection: Connection) -> object:
    """Return the numbers of all revisions, oldest first."""
    return await value(connection, "SELECT array_agg(revision ORDER BY id) FROM routines.audit WHERE kind = 'routine'")


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
