"""A routine stops after slots in a row that failed: it is paused, or skips slots between tries."""

from datetime import datetime

import pytest
from psycopg.errors import CheckViolation

from routines_core.db import Connection, runs
from routines_core.db.runs import Checkpoint
from routines_core.db.tick import Tick
from support.rows import ledger, make_routine, make_task, value
from support.stepping import tick_at

STATE = "SELECT {} FROM routines.routines"


@pytest.fixture
async def routine(connection: Connection) -> int:
    """Create an hourly routine, and return its id."""
    return await make_routine(connection, await make_task(connection), datetime.now().astimezone(), hourly=True)


async def stop_after(
    connection: Connection, failures: int | None, then: str | None = None, retry: str | None = None
) -> None:
    await connection.execute(
        "UPDATE routines.routines SET pause_after_failures = %s, after_failures = %s, retry = %s",
        [failures, then, retry],
    )


async def slot(connection: Connection) -> Tick:
    """Let a slot be due now, and tick."""
    await connection.execute(
        "UPDATE routines.routines SET settled_until = now() - interval '1 microsecond', next_run_at = now()"
    )
    due = await value(connection, STATE.format("next_run_at"))
    assert isinstance(due, datetime)
    return await tick_at(connection, due)


async def end(connection: Connection, status: str = "failed") -> int:
    """End the active run. Returns it."""
    [run] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600)
    last = Checkpoint(run.id, run.fence, status=status, error="no luck" if status == "failed" else None)
    assert await runs.write(connection, [last], lease_seconds=60) == {run.id}
    return run.id


async def play(connection: Connection, statuses: str) -> str:
    """Let slots come: `f` fails, `c` completes. Returns what became of each: the same, or `-` for a skip."""
    became = ""
    for each in statuses:
        if (await slot(connection)).fired:
            await end(connection, {"f": "failed", "c": "completed"}[each])
            became += each
        else:
            became += "-"
    return became


async def test_a_routine_is_paused_after_so_many_failed_slots_in_a_row(connection: Connection, routine: int) -> None:
    await stop_after(connection, 3)
    assert await play(connection, "ffcff") == "ffcff"
    assert await value(connection, STATE.format("paused")) is False
    await slot(connection)
    await end(connection)
    assert await value(connection, STATE.format("paused")) is True
    reason = "paused after 3 failed slots in a row; the last: no luck"
    assert await value(connection, STATE.format("paused_reason")) == reason
    status = await connection.execute("SELECT state, needs_attention FROM routines.routine_status")
    assert await status.fetchall() == [("paused by the scheduler", True)]
    del routine


async def test_a_routine_without_it_is_never_stopped(connection: Connection, routine: int) -> None:
    del routine
    assert await play(connection, "ffffff") == "ffffff"


async def test_after_a_resumption_the_count_begins_anew(connection: Connection, routine: int) -> None:
    del routine
    await stop_after(connection, 2)
    await play(connection, "ff")
    await connection.execute("UPDATE routines.routines SET paused = false")
    await play(connection, "f")
    assert await value(connection, STATE.format("paused")) is False
    await play(connection, "f")
    assert await value(connection, STATE.format("paused")) is True


async def test_failures_from_before_it_was_set_do_not_count(connection: Connection, routine: int) -> None:
    del routine
    await play(connection, "fff")
    await stop_after(connection, 2)
    await play(connection, "f")
    assert await value(connection, STATE.format("paused")) is False


async def test_cancelled_runs_neither_count_nor_end_the_row(connection: Connection, routine: int) -> None:
    del routine
    await stop_after(connection, 2)
    await play(connection, "f")
    await slot(connection)
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'cancelled', ended_at = now() WHERE ended_at IS NULL"
    )
    assert await value(connection, STATE.format("paused")) is False
    await play(connection, "f")
    assert await value(connection, STATE.format("paused")) is True


async def test_run_now_runs_do_not_count(connection: Connection, routine: int) -> None:
    await stop_after(connection, 1)
    await connection.execute(
        "INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger, "
        "init_params) SELECT collection_id, task_id, 1, id, 'run-now', '{}' FROM routines.routines WHERE id = %s",
        [routine],
    )
    await end(connection)
    assert await value(connection, STATE.format("paused")) is False


async def test_a_slot_counts_once_its_retries_are_spent(connection: Connection, routine: int) -> None:
    del routine
    await stop_after(connection, 1, retry='{"max_attempts": 2, "backoff": [0], "until": 86400}')
    await slot(connection)
    await end(connection)
    assert await value(connection, STATE.format("paused")) is False
    await runs.reap(connection)
    await end(connection)
    assert await value(connection, STATE.format("paused")) is True


async def test_a_slot_whose_retry_completed_has_not_failed(connection: Connection, routine: int) -> None:
    del routine
    await stop_after(connection, 2, retry='{"max_attempts": 2, "backoff": [0], "until": 86400}')
    for last in ("failed", "completed", "failed"):
        await slot(connection)
        await end(connection)
        await runs.reap(connection)
        await end(connection, last)
    assert await value(connection, STATE.format("paused")) is False


async def test_a_backoff_skips_twice_as_many_slots_after_each_failed_try(connection: Connection, routine: int) -> None:
    await stop_after(connection, 2, "backoff")
    assert await play(connection, "ff" + "ff" + "fff" + "fffff" + "c") == "ff" + "-f" + "--f" + "----f" + "-"
    assert await value(connection, STATE.format("backoff_left")) == 7
    assert await value(connection, STATE.format("paused")) is False
    reasons = {reason for _, _, outcome, reason in await ledger(connection, routine) if outcome == "skipped"}
    assert reasons == {"backoff"}


async def test_a_try_that_completes_ends_the_backoff(connection: Connection, routine: int) -> None:
    del routine
    await stop_after(connection, 2, "backoff")
    assert await play(connection, "ff" + "fc" + "fc" + "ff" + "ff") == "ff" + "-c" + "fc" + "ff" + "-f"


async def test_the_ledger_and_why_say_what_a_backoff_is(connection: Connection, routine: int) -> None:
    await stop_after(connection, 1, "backoff")
    await play(connection, "fff")
    await slot(connection)
    details = await connection.execute("SELECT detail FROM routines.skips ORDER BY scheduled_for")
    assert await details.fetchall() == [
        ("the slots before it failed, and the next slot is the next try",),
        ("the slots before it failed, and 1 more slot is skipped",),
    ]
    last = await value(connection, "SELECT max(scheduled_for) FROM routines.skips")
    why = await value(connection, "SELECT sentence FROM routines.explain_time(%s, %s)", routine, last)
    assert str(why).startswith("Skipped: the slots before it failed, and 1 more slot is skipped.")
    attention = await value(connection, "SELECT needs_attention FROM routines.routine_status")
    assert attention is True
    report = await connection.execute(
        "SELECT started, failed, skipped, backoff FROM routines.report('my-org', now() - interval '1 day', now())"
    )
    assert await report.fetchall() == [(2, 2, 2, 2)]


async def test_the_backoff_has_a_limit(connection: Connection, routine: int) -> None:
    del routine
    await stop_after(connection, 1, "backoff")
    for _ in range(9):
        await connection.execute("UPDATE routines.routines SET backoff_left = NULL")
        await play(connection, "f")
    assert await value(connection, STATE.format("backoff_left")) == 64


@pytest.mark.parametrize(
    "change",
    ["paused = true", "pause_after_failures = NULL", "after_failures = 'pause'"],
)
async def test_a_resumption_or_another_setting_ends_the_backoff(
    connection: Connection, routine: int, change: str
) -> None:
    del routine
    await stop_after(connection, 1, "backoff")
    await play(connection, "f")
    assert await value(connection, STATE.format("backoff_left")) == 1
    await connection.execute(f"UPDATE routines.routines SET {change}".encode())
    await connection.execute("UPDATE routines.routines SET paused = false")
    assert await value(connection, STATE.format("backoff_left")) is None


async def test_a_pause_by_failures_settles_the_slot_that_is_due(connection: Connection, routine: int) -> None:
    await stop_after(connection, 1)
    await slot(connection)
    await connection.execute("UPDATE routines.routines SET next_run_at = now()")
    await end(connection)
    detail = await value(
        connection, "SELECT detail FROM routines.skips WHERE routine_id = %s AND reason = 'paused'", routine
    )
    assert detail == "paused after a failed slot; the last: no luck, before a ticker picked it up"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("pause_after_failures = 0", "pause_after_failures: must be 1 to 100"),
        ("pause_after_failures = 101", "pause_after_failures: must be 1 to 100"),
        ("after_failures = 'explode'", "then: must be pause or backoff"),
    ],
)
async def test_settings_that_are_not_valid_are_refused_at_psql_too(
    connection: Connection, routine: int, setting: str, message: str
) -> None:
    del routine
    with pytest.raises(CheckViolation, match=message):
        await connection.execute(f"UPDATE routines.routines SET {setting}".encode())


async def test_a_routine_that_is_paused_after_failures_is_no_matter_for_operators(
    connection: Connection, routine: int
) -> None:
    del routine
    await stop_after(connection, 1)
    await play(connection, "f")
    assert await value(connection, "SELECT paused_by_strikes FROM routines.metrics_of_routines(10)") == 0
