"""What `why` says of a run and of a slot that came late: the step and the cause, and what held it up."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from routines_core.db import Connection, ledger
from routines_core.db.ledger import Explanation
from routines_core.db.tick import note_outage, tick
from support.rows import CATCHUP, at, make_key, make_routine, make_task

MONDAY = at("2026-05-04 09:00")
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
STARTED = "Started: run 1 at 2026-05-04T09:00:00Z, "


async def asked(connection: Connection, time: datetime | None = MONDAY, now: datetime = MONDAY + DAY) -> Explanation:
    """Explain a time of routine 1 to a new key of its collection."""
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    return await ledger.why(connection, key_id=key_id, routine_id=1, at=time, now=now)


async def make(connection: Connection, *, hourly: bool = False) -> None:
    await make_routine(connection, await make_task(connection), MONDAY, hourly=hourly)
    await connection.execute("UPDATE routines.routines SET created_at = %s", [MONDAY - DAY])


async def ticked(connection: Connection, now: datetime = MONDAY) -> None:
    await tick(connection, batch_size=10, now=now, **CATCHUP)


async def in_step(connection: Connection, name: str, attempt: int) -> None:
    """Let a worker have run 1 since a second after its start, in this step."""
    await connection.execute(
        """UPDATE routines.trajectories
           SET status = 'running', started_at = '2026-05-04 09:00:01Z', lease_expires_at = 'infinity', fence = 1"""
    )
    await connection.execute(
        """INSERT INTO routines.steps (trajectory_id, name, position, fence, attempt, status, activity, inputs)
           VALUES (1, 'before', 0, 1, 2, 'running', 'text_echo', '{}'),
                  (1, %s, 1, 1, %s, 'running', 'text_echo', '{}')""",
        [name, attempt],
    )
    await connection.execute("UPDATE routines.steps SET status = 'completed', ended_at = now() WHERE position = 0")


async def end(connection: Connection, status: str, error: str | None = None) -> None:
    """End run 1 at 09:05."""
    await connection.execute(
        "UPDATE routines.trajectories SET status = %s, error = %s, ended_at = '2026-05-04 09:05Z'", [status, error]
    )


async def fail_step(connection: Connection, cause: str) -> None:
    await connection.execute(
        "UPDATE routines.steps SET status = 'failed', error = %s, ended_at = now() WHERE status = 'running'", [cause]
    )


# --- runs -------------------------------------------------------------------------------------------------------------


async def test_a_failed_run_is_explained_by_its_step_its_tries_and_the_cause(connection: Connection) -> None:
    await make(connection)
    await ticked(connection)
    await in_step(connection, "fetch", 3)
    await fail_step(connection, "the response has the status 503, not 200 to 299")
    await end(connection, "failed", "step 'fetch' failed: the response has the status 503, not 200 to 299")
    told = await asked(connection)
    assert told.sentence == (
        f"{STARTED}failed at 2026-05-04T09:05:00Z: step 'fetch' failed after 3 tries: "
        "the response has the status 503, not 200 to 299."
    )
    assert (told.kind, told.step, told.tries) == ("started", "fetch", 3)
    assert told.error == "the response has the status 503, not 200 to 299"


async def test_a_run_that_failed_at_its_deadline_names_the_step_that_was_running(connection: Connection) -> None:
    await make(connection)
    await ticked(connection)
    await in_step(connection, "wait", 1)
    await end(connection, "failed", "deadline exceeded: the run took longer than it may")
    assert (await asked(connection)).sentence == (
        f"{STARTED}failed at 2026-05-04T09:05:00Z: step 'wait' failed after 1 try: "
        "deadline exceeded: the run took longer than it may."
    )


async def test_a_run_that_failed_before_any_step_is_explained_by_its_own_error(connection: Connection) -> None:
    await make(connection)
    await ticked(connection)
    await end(connection, "failed", "the workflow is malformed.")
    assert (await asked(connection)).sentence == f"{STARTED}failed at 2026-05-04T09:05:00Z: the workflow is malformed."


@pytest.mark.parametrize(
    ("cause", "quoted"),
    [
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 200 + "…"),
        ("first line\nsecond line", "first line"),
        ("é" * 5000, "é" * 200 + "…"),
    ],
)
async def test_a_cause_is_quoted_by_its_first_line_of_at_most_200_characters(
    connection: Connection, cause: str, quoted: str
) -> None:
    await make(connection)
    await ticked(connection)
    await end(connection, "failed", cause)
    told = await asked(connection)
    assert (told.sentence, told.error) == (f"{STARTED}failed at 2026-05-04T09:05:00Z: {quoted}.", quoted)


async def test_a_cancelled_run_is_explained_by_its_step_and_by_what_cancelled_it(connection: Connection) -> None:
    await make(connection)
    await ticked(connection)
    await in_step(connection, "wait", 1)
    await end(connection, "cancelled")
    cancelled = f"{STARTED}cancelled at 2026-05-04T09:05:00Z during step 'wait'"
    assert (await asked(connection)).sentence == f"{cancelled}."
    await connection.execute("UPDATE routines.trajectories SET error = 'cancelled: run 7, which started it, is failed'")
    assert (await asked(connection)).sentence == f"{cancelled}: run 7, which started it, is failed."


async def test_an_active_run_is_explained_by_what_it_does_or_waits_for(connection: Connection) -> None:
    await make(connection)
    await ticked(connection)
    assert (await asked(connection)).sentence == f"{STARTED}still waiting for a worker."
    await in_step(connection, "fetch", 2)
    running = f"{STARTED}running since 2026-05-04T09:00:01Z, at try 2 of step 'fetch'."
    assert (await asked(connection)).sentence == running
    await connection.execute("UPDATE routines.trajectories SET status = 'pending', lease_expires_at = NULL")
    assert (await asked(connection)).sentence == f"{STARTED}still waiting for a worker to go on."


async def test_a_completed_run_and_an_archived_one_are_explained_by_their_end(connection: Connection) -> None:
    await make(connection)
    await ticked(connection)
    await end(connection, "completed")
    told = await asked(connection)
    assert told.sentence == f"{STARTED}completed at 2026-05-04T09:05:00Z."
    assert (told.step, told.error, told.delay_seconds, told.delay_reason) == (None, None, 0, None)
    await connection.execute("UPDATE routines.trajectories SET status = 'archived'")
    assert (await asked(connection)).sentence == f"{STARTED}ended at 2026-05-04T09:05:00Z, now archived."


# --- late slots -------------------------------------------------------------------------------------------------------


async def late(connection: Connection, delay: timedelta, *, hourly: bool = False) -> None:
    """Make the routine and fire it this long after its slot, by a ticker that was back just then."""
    await make(connection, hourly=hourly)
    await note_outage(connection, now=MONDAY + delay)
    await ticked(connection, MONDAY + delay)
    await end(connection, "completed")


async def test_a_slot_that_fires_while_no_ticker_ran_names_the_outage(connection: Connection) -> None:
    await late(connection, 26 * MINUTE)
    told = await asked(connection)
    assert told.sentence == (
        "Started: run 1 at 2026-05-04T09:26:00Z, completed at 2026-05-04T09:05:00Z. "
        "It was 26 minutes late: no ticker ran from 2026-05-04T09:00:00Z to 2026-05-04T09:26:00Z."
    )
    assert (told.delay_seconds, told.delay_reason, told.missed_before) == (1560, "no_ticker", None)


@pytest.mark.parametrize(("seconds", "is_late"), [(60, False), (61, True)])
async def test_a_slot_is_late_after_more_than_a_minute(connection: Connection, seconds: int, is_late: bool) -> None:  # noqa: FBT001
    await late(connection, timedelta(seconds=seconds))
    told = await asked(connection)
    assert ("late" in told.sentence, told.delay_reason) == (is_late, "no_ticker" if is_late else None)


async def test_a_late_slot_without_an_outage_was_behind(connection: Connection) -> None:
    await make(connection)
    await ticked(connection, MONDAY + 3 * MINUTE)
    told = await asked(connection)
    assert told.sentence.endswith("worker. It was 3 minutes late: the tickers were behind.")
    assert told.delay_reason == "backlog"


async def test_a_slot_that_waits_long_after_an_outage_names_both(connection: Connection) -> None:
    await make(connection)
    await note_outage(connection, now=MONDAY + 10 * MINUTE)
    await ticked(connection, MONDAY + 15 * MINUTE)
    told = await asked(connection)
    assert told.sentence.endswith(
        "It was 15 minutes late: no ticker ran from 2026-05-04T09:00:00Z to 2026-05-04T09:10:00Z, "
        "and then the tickers were behind."
    )


async def test_a_slot_that_was_caught_up_says_how_many_before_it_were_missed(connection: Connection) -> None:
    await late(connection, timedelta(hours=3, minutes=26), hourly=True)
    told = await asked(connection, MONDAY + timedelta(hours=3))
    assert told.sentence.endswith(
        "It was 26 minutes late: no ticker ran from 2026-05-04T12:00:00Z to 2026-05-04T12:26:00Z. "
        "The 3 slots before it were missed."
    )
    assert told.missed_before == 3
    missed = await asked(connection, MONDAY + timedelta(hours=1))
    assert missed.sentence.startswith(
        "Missed: no ticker ran from 2026-05-04T10:00:00Z to 2026-05-04T12:26:00Z, as were all 3 slots from "
    )
    assert (missed.kind, missed.delay_reason) == ("missed", "no_ticker")


async def test_the_slot_of_another_tenant_is_not_shown_as_the_beginning_of_an_outage(connection: Connection) -> None:
    await make(connection)
    await connection.execute(
        """WITH other AS (INSERT INTO routines.collections (name) VALUES ('other-org') RETURNING id),
           task AS (
               INSERT INTO routines.tasks (collection_id, name)
               SELECT id, 'echo' FROM other RETURNING id, collection_id),
           version AS (INSERT INTO routines.task_versions (task_id, version, workflow) SELECT id, 1, '{}' FROM task)
           INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
           SELECT collection_id, id, 'r', 'hourly' FROM task"""
    )
    await connection.execute("UPDATE routines.routines SET next_run_at = '2026-05-04 07:13Z' WHERE name = 'r'")
    assert await note_outage(connection, now=MONDAY + 5 * MINUTE) == at("2026-05-04 07:13")
    await ticked(connection, MONDAY + 5 * MINUTE)
    told = await asked(connection)
    assert "no ticker ran from 2026-05-04T09:00:00Z to 2026-05-04T09:05:00Z" in told.sentence
    assert "07:13" not in repr(told)


# --- times without a slot ---------------------------------------------------------------------------------------------


async def test_before_its_creation_a_routine_tells_its_first_slot(connection: Connection) -> None:
    await make(connection)
    created = "No slot: the routine was created later, at 2026-05-03T09:00:00Z; its first slot "
    before = MONDAY - 2 * DAY
    assert (await asked(connection, before, MONDAY - MINUTE)).sentence == f"{created}is 2026-05-04T09:00:00Z."
    await ticked(connection)
    assert (await asked(connection, before, MONDAY + DAY)).sentence == f"{created}was 2026-05-04T09:00:00Z."


@pytest.mark.parametrize(
    ("change", "ending"),
    [
        ("cadence_type = 'manual', hour_utc = NULL", "; it is manual and has none."),
        ("ends_at = '2026-01-01Z'", "; none is coming."),
    ],
)
async def test_before_its_creation_a_routine_tells_that_no_slot_comes(
    connection: Connection, change: str, ending: str
) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)
    await connection.execute(f"UPDATE routines.routines SET {change}".encode())
    await connection.execute("UPDATE routines.routines SET created_at = now()")
    await connection.execute("DELETE FROM routines.skips")
    told = await asked(connection, at("2020-01-01 00:00"), MONDAY)
    assert told.sentence.startswith("No slot: the routine was created later, at ")
    assert told.sentence.endswith(ending)


async def test_a_first_slot_that_retention_may_have_deleted_is_not_told(connection: Connection) -> None:
    await make(connection)
    await ticked(connection)
    await connection.execute(
        "INSERT INTO routines.retention (what, deleted_until) VALUES ('trajectories', '2026-05-04Z')"
    )
    told = await asked(connection, MONDAY - 2 * DAY)
    assert told.sentence == "No slot: the routine was created later, at 2026-05-03T09:00:00Z."


async def test_without_a_time_the_newest_slot_is_explained(connection: Connection) -> None:
    await make(connection)
    await ticked(connection)
    told: Any = await asked(connection, None, MONDAY + 90 * MINUTE)
    assert (told.at, told.trajectory_id) == (MONDAY, 1)
    await connection.execute("UPDATE routines.routines SET cadence_type = 'manual', hour_utc = NULL")
    told = await asked(connection, None, MONDAY + 90 * MINUTE)
    assert (told.at, told.sentence) == (MONDAY + 90 * MINUTE, "No slot: the routine is manual and has none.")
