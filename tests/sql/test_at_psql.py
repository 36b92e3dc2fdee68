"""Questions at psql: the statements of docs/use/psql.md work as printed, and answer what they should."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from routines_core.db import Connection
from routines_core.db.tick import tick
from support.oracle import Cadence
from support.rows import CATCHUP, at, make_routine, make_task, value

PAGE = (Path(__file__).parents[2] / "docs" / "use" / "psql.md").read_text()
STATEMENTS = [
    statement.strip()
    for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    for statement in re.split(r";|\\gx", re.sub(r"--.*|^\\d.*", "", block, flags=re.MULTILINE))
    if statement.strip()
]
MONDAY = at("2026-05-04 09:00")
ROUTINE = "my-org/echo/morning"
FINISH = "UPDATE routines.trajectories SET status = 'failed', ended_at = now(), error = 'no such table'"


async def ticked(connection: Connection, **arguments: Any) -> None:
    await tick(connection, batch_size=10, now=MONDAY, **CATCHUP, **arguments)


async def status(connection: Connection) -> tuple[Any, ...]:
    """Return the state, newest slot, outcome and detail of the one routine."""
    cursor = await connection.execute("SELECT state, last_slot, last_outcome, detail FROM routines.routine_status")
    [row] = await cursor.fetchall()
    return row


@pytest.mark.parametrize("number", range(len(STATEMENTS)))
async def test_every_statement_of_the_page_works_as_printed(connection: Connection, number: int) -> None:
    await connection.execute(
        """WITH collection AS (INSERT INTO routines.collections (name) VALUES ('demo') RETURNING id)
           INSERT INTO routines.tasks (collection_id, name) SELECT id, 'hello' FROM collection"""
    )
    await connection.execute("INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (1, 1, '{}')")
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
           VALUES (1, 1, 'every-hour', 'hourly')"""
    )
    await connection.execute(STATEMENTS[number].encode())


def test_the_page_prints_statements() -> None:
    assert len(STATEMENTS) > 10


async def test_help_describes_everything_that_it_lists(connection: Connection) -> None:
    cursor = await connection.execute("SELECT ask, description FROM routines.help")
    rows = await cursor.fetchall()
    assert len(rows) > 10
    assert [row for row in rows if not row[1]] == []


async def test_status_shows_the_outcome_of_the_newest_slot(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), MONDAY)
    assert await status(connection) == ("due", None, None, None)
    await ticked(connection)
    assert (await status(connection))[1:] == (MONDAY, "pending", None)
    await connection.execute(FINISH.encode())
    assert (await status(connection))[1:] == (MONDAY, "failed", "no such table")
    await connection.execute(
        """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason,
                                       blocking_trajectory_id)
           VALUES (1, %s, '2026-05-05 09:00Z', '2026-05-05 09:00Z', 'overlap', 7)""",
        [routine],
    )
    assert (await status(connection))[1:] == (MONDAY + timedelta(days=1), "overlap", "run 7 was active")
    await connection.execute("UPDATE routines.routines SET paused = true")
    assert (await status(connection))[0] == "paused"


async def test_status_shows_why_the_scheduler_paused_a_routine(connection: Connection) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)
    for day in range(3):
        await tick(connection, batch_size=10, now=MONDAY + timedelta(days=day), fault="poison", **CATCHUP)
    state, slot, outcome, detail = await status(connection)
    assert (state, slot, outcome) == ("paused by the scheduler", MONDAY + timedelta(days=2), "failed_to_start")
    assert detail == "paused after 3 fires in a row that failed to start; the last: poison"


async def ask(connection: Connection) -> object:
    """Return whether the one routine needs attention, never null."""
    return await value(connection, "SELECT needs_attention FROM routines.routine_status")


async def run_now(connection: Connection, status: str, created_at: str = "now()") -> None:
    """Let a run-now of routine 1 end like this, with an error if it failed."""
    await connection.execute(
        f"""INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                               init_params, created_at)
            VALUES (1, 1, 1, 1, 'run-now', '{{}}', {created_at})""".encode()
    )
    await connection.execute(
        """UPDATE routines.trajectories SET status = %s, ended_at = now(),
                                           error = CASE %s WHEN 'failed' THEN 'no such table' END
           WHERE ended_at IS NULL""",
        [status, status],
    )


async def test_status_shows_how_the_last_run_of_a_manual_routine_ended(connection: Connection) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)
    await connection.execute("UPDATE routines.routines SET cadence_type = 'manual', hour_utc = NULL")
    await connection.execute("DELETE FROM routines.skips")
    assert (await status(connection), await ask(connection)) == (("manual", None, None, None), False)
    await run_now(connection, "completed")
    assert (await status(connection), await ask(connection)) == (("manual", None, "completed", None), False)
    await run_now(connection, "failed")
    assert (await status(connection), await ask(connection)) == (("manual", None, "failed", "no such table"), True)


async def test_status_goes_by_the_newer_one_of_a_slot_and_a_run_now(connection: Connection) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)
    await ticked(connection)
    await connection.execute(FINISH.encode())
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '1 day'")
    await run_now(connection, "completed", "'2026-05-04 08:59Z'")
    assert (await status(connection), await ask(connection)) == (("scheduled", MONDAY, "failed", "no such table"), True)
    await run_now(connection, "completed", "'2026-05-04 09:01Z'")
    assert (await status(connection), await ask(connection)) == (("scheduled", None, "completed", None), False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("next_run_at = now() + interval '1 minute'", False),
        ("next_run_at = now() - interval '50 seconds'", False),
        ("next_run_at = now() - interval '61 seconds'", True),
        ("paused = true, paused_until = now() + interval '1 minute'", False),
        ("paused = true", False),
    ],
)
async def test_a_routine_needs_attention_once_it_is_overdue_by_a_minute(
    connection: Connection, *, change: str, expected: bool
) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)
    await connection.execute(f"UPDATE routines.routines SET {change}".encode())
    assert await ask(connection) is expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("missed", True), ("failed_to_start", True), ("overlap", False), ("calendar", False), ("paused", False)],
)
async def test_a_skipped_slot_needs_attention_if_it_should_have_run(
    connection: Connection, *, reason: str, expected: bool
) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '1 day'")
    await connection.execute(
        """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason)
           VALUES (1, 1, now(), now(), %s)""",
        [reason],
    )
    assert await ask(connection) is expected
    await connection.execute("UPDATE routines.routines SET paused = true")
    assert await ask(connection) is False, "a person has paused it"
    await connection.execute("UPDATE routines.routines SET paused_reason = 'three strikes'")
    assert await ask(connection) is True, "the scheduler has"


async def test_why_explains_the_newest_slot_or_any_time(connection: Connection) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)
    await ticked(connection)
    told = await value(connection, "SELECT routines.why(%s, %s)", ROUTINE, MONDAY)
    assert told == "Started: run 1 at 2026-05-04T09:00:00Z, still waiting for a worker."
    newest = await value(
        connection,
        "SELECT routines.latest_slot(routines.cadence_of(routines), now()) FROM routines.routines WHERE id = 1",
    )
    assert await value(connection, "SELECT routines.why(%s)", ROUTINE) == await value(
        connection, "SELECT sentence FROM routines.explain_time(1, %s)", newest
    )


async def test_next_begins_with_next_run_at_and_is_empty_during_a_pause(connection: Connection) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '1 year'")
    first = await value(connection, "SELECT slot FROM routines.next(%s, 1)", ROUTINE)
    later = await value(
        connection,
        "SELECT %s::timestamptz BETWEEN next_run_at AND next_run_at + interval '1 day' FROM routines.routines",
        first,
    )
    assert later is True
    await connection.execute("UPDATE routines.routines SET paused = true")
    assert await value(connection, "SELECT count(*) FROM routines.next(%s)", ROUTINE) == 0


@pytest.mark.parametrize("routine", ["my-org/echo/evening", "my-org/echo", "morning", "my-org/echo/morning/x", ""])
async def test_a_missing_routine_is_reported_with_what_to_do(connection: Connection, routine: str) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)
    with pytest.raises(psycopg.errors.NoDataFound) as refused:
        await connection.execute("SELECT routines.why(%s)", [routine])
    assert refused.value.diag.message_primary == f"there is no routine {routine}"
    assert "routines.routine_status" in (refused.value.diag.message_hint or "")


@pytest.mark.parametrize(
    ("cadence", "words"),
    [
        (Cadence("manual"), "manual"),
        (Cadence("hourly", minute_utc=5), "hourly at minute 5"),
        (Cadence("daily", 7, 30), "daily at 07:30"),
        (Cadence("weekdays", 9), "weekdays at 09:00"),
        (Cadence("weekly", 23, 59, day_of_week="mon"), "weekly on mon at 23:59"),
    ],
)
async def test_a_cadence_is_described_in_words(connection: Connection, cadence: Cadence, words: str) -> None:
    query = "SELECT routines.cadence_in_words(routines.cadence_from_json(%s))"
    assert await value(connection, query, Jsonb(cadence._asdict())) == words
