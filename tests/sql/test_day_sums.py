"""Sums of days are those of the runs at any moment, whoever changes a run, and whenever."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from routines_core.bulkhead import Bulkhead
from routines_core.db import Connection
from routines_core.db.day_sums import sum_up
from routines_core.db.retention import delete_page
from routines_engine.retention.summing import run_summing
from support.rows import Database, make_routine, make_task, value
from support.stepping import session

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
FIRST = TODAY - 5 * DAY
"""The first day on which the routines ran."""
LATER = datetime.now(UTC) + 2 * HOUR + MINUTE
"""When yesterday has been over for two hours, and what has just been marked may be summed up again."""
RUN = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                            scheduled_for, created_at, started_at, ended_at, init_params, status)
         SELECT collection_id, task_id, 1, id, 'schedule', slot, slot, slot + delay, slot + delay, '{}', status
         FROM routines.routines, unnest(%s::timestamptz[], %s::interval[], %s::text[]) AS run (slot, delay, status)
         WHERE id = %s"""
STATUSES = ["completed", "completed", "failed", "cancelled", "completed"]
DELAYS = [timedelta(), timedelta(seconds=30), timedelta(seconds=61)]


@pytest.fixture
async def routine(connection: Connection) -> int:
    """Create an hourly routine that has run every three hours since the first day, and begin to sum up there."""
    routine = await make_routine(connection, await make_task(connection), LATER + 9 * DAY, hourly=True)
    await connection.execute(
        "INSERT INTO routines.day_sums_progress (summed_from, summed_until) VALUES (%(first)s, %(first)s)",
        {"first": FIRST.date()},
    )
    await run_at(connection, routine, *(FIRST + 3 * n * HOUR for n in range(40)))
    return routine


async def run_at(connection: Connection, routine: int, *times: datetime) -> None:
    """Add ended runs for these slots."""
    count = range(len(times))
    statuses, delays = [STATUSES[n % 5] for n in count], [DELAYS[n % 3] for n in count]
    await connection.execute(RUN, [list(times), delays, statuses, routine])


async def sum_up_all(connection: Connection, now: datetime = LATER, **given: Any) -> int:
    """Sum up all that can be, and return the number of batches."""
    batches = 0
    for part in ("gone", "next", "changed"):
        while await sum_up(connection, part, now=now, **given):
            batches += 1
            assert batches < 1000
    return batches


async def counted(connection: Connection, function: str, since: datetime, until: datetime, late: str = "60 s") -> Any:
    cursor = await connection.execute(
        f"""SELECT routine_id, started, late, completed, failed, cancelled, archived, active, max_delay,
                   ARRAY(SELECT unnest(failed_slots) ORDER BY 1), last_completed
            FROM routines.{function}(ARRAY(SELECT id FROM routines.routines), %s, %s, %s, %s) ORDER BY 1""".encode(),
        [since, until, late, LATER],
    )
    return await cursor.fetchall()


async def same(connection: Connection) -> Any:
    """Compare what the sums say with what the runs say, for times that begin and end anywhere. Returns the whole."""
    for since, until in [
        (FIRST, TODAY),
        (FIRST - DAY, TODAY + DAY),
        (FIRST + HOUR, TODAY - DAY),
        (FIRST + 13 * HOUR, FIRST + 14 * HOUR),
        (FIRST + 23 * HOUR, FIRST + 25 * HOUR),
        (FIRST + DAY, FIRST + 2 * DAY),
        (TODAY, FIRST),
    ]:
        by_sums = await counted(connection, "counted_runs", since, until)
        assert by_sums == await counted(connection, "count_runs", since, until), (since, until)
    return await counted(connection, "counted_runs", FIRST, TODAY)


async def unsure_days(connection: Connection) -> list[date]:
    cursor = await connection.execute(
        "SELECT day FROM routines.day_changes UNION SELECT day FROM routines.day_sums WHERE is_open ORDER BY day"
    )
    return [day for (day,) in await cursor.fetchall()]


async def read_from_sums(connection: Connection) -> bool:
    """Return whether reports read the sums: nothing that the ledger does not say is in them, so one is falsified."""
    async with connection.transaction(force_rollback=True):
        await connection.execute("UPDATE routines.day_sums SET started = started + 1000 WHERE NOT is_open")
        by_sums = await counted(connection, "counted_runs", FIRST, TODAY)
        return by_sums != await counted(connection, "count_runs", FIRST, TODAY)


async def test_sums_are_those_of_the_runs_before_and_after_they_are_made(connection: Connection, routine: int) -> None:
    before = await same(connection)
    assert not await read_from_sums(connection)
    await sum_up_all(connection)
    assert await unsure_days(connection) == []
    assert await read_from_sums(connection)
    assert await same(connection) == before


async def test_another_bound_of_lateness_is_counted_by_the_runs(connection: Connection, routine: int) -> None:
    await sum_up_all(connection)
    [by_sums] = await counted(connection, "counted_runs", FIRST, TODAY, "20 s")
    assert [by_sums] == await counted(connection, "count_runs", FIRST, TODAY, "20 s")
    assert by_sums[2] > (await counted(connection, "counted_runs", FIRST, TODAY))[0][2]


async def test_a_day_is_summed_up_once_it_has_been_over_for_two_hours(connection: Connection, routine: int) -> None:
    await sum_up_all(connection, TODAY + 2 * HOUR - MINUTE)
    last = await value(connection, "SELECT summed_until FROM routines.day_sums_progress")
    assert last == (TODAY - DAY).date()
    await sum_up_all(connection, TODAY + 2 * HOUR)
    assert await value(connection, "SELECT summed_until FROM routines.day_sums_progress") == TODAY.date()


async def test_routines_are_summed_up_page_by_page_and_deleted_ones_too(connection: Connection, routine: int) -> None:
    others = []
    for number in range(7):
        others.append(await make_routine(connection, 1, LATER, name=f"r{number}", hourly=True))
        await run_at(connection, others[-1], FIRST + 3 * HOUR, FIRST + 30 * HOUR)
    before = await same(connection)
    await connection.execute("DELETE FROM routines.routines WHERE id = ANY (%s)", [others[:2]])
    assert await sum_up_all(connection, batch_size=3) > 15
    assert len(await same(connection)) == len(before) - 2
    summed = "SELECT count(*) FROM routines.day_sums WHERE routine_id = %s AND collection_id = 1"
    assert await value(connection, summed, others[0]) == 2


CHANGES = {
    "archived": "UPDATE routines.trajectories SET status = 'archived' WHERE id = %(id)s",
    "moved to another day": "UPDATE routines.trajectories SET scheduled_for = scheduled_for + interval '25 hours' "
    "WHERE id = %(id)s",
    "another start": "UPDATE routines.trajectories SET started_at = started_at + interval '1 hour' WHERE id = %(id)s",
    "deleted": "DELETE FROM routines.trajectories WHERE id = %(id)s",
    "created": "INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, "
    "trigger, scheduled_for, created_at, init_params) SELECT collection_id, task_id, 1, triggered_by_routine_id, "
    "'schedule', scheduled_for + interval '1 hour', created_at, '{}' FROM routines.trajectories WHERE id = %(id)s",
    "retried": "WITH retry AS (INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, "
    "triggered_by_routine_id, retry_of, retry_number, created_at, init_params) SELECT collection_id, task_id, 1, "
    "'retry', triggered_by_routine_id, id, 1, created_at, '{}' FROM routines.trajectories WHERE id = %(id)s "
    "RETURNING id) UPDATE routines.trajectories SET retried_by = retry.id FROM retry "
    "WHERE trajectories.id = %(id)s",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_whatever_changes_an_old_run_marks_its_day(connection: Connection, routine: int, change: str) -> None:
    failed = "SELECT min(id) FROM routines.trajectories WHERE status = 'failed'"
    run = await value(connection, failed)
    before = await same(connection)
    await sum_up_all(connection)
    await connection.execute(CHANGES[change].encode(), {"id": run})
    days = {FIRST.date()} | ({(FIRST + DAY).date()} if change.startswith("moved") else set[date]())
    assert set(await unsure_days(connection)) == days
    after = await same(connection)
    assert after != before
    await sum_up_all(connection)
    # A day with an active run stays as it is until that has ended.
    assert set(await unsure_days(connection)) == (days if change in {"created", "retried"} else set())
    assert await same(connection) == after


async def test_the_end_of_a_retry_marks_the_day_of_its_slot(connection: Connection, routine: int) -> None:
    run = await value(connection, "SELECT min(id) FROM routines.trajectories WHERE status = 'failed'")
    await connection.execute(CHANGES["retried"].encode(), {"id": run})
    await sum_up_all(connection)
    assert await unsure_days(connection) == [FIRST.date()]
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE trigger = 'retry'"
    )
    await sum_up_all(connection)
    assert await unsure_days(connection) == []
    await same(connection)
    await connection.execute("UPDATE routines.trajectories SET status = 'archived' WHERE trigger = 'retry'")
    assert await unsure_days(connection) == [FIRST.date()]
    await same(connection)


async def test_a_run_of_today_marks_nothing(connection: Connection, routine: int) -> None:
    await connection.execute("DELETE FROM routines.day_changes")
    await run_at(connection, routine, datetime.now(UTC).replace(microsecond=0))
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'archived' WHERE scheduled_for > now() - interval '1 hour'"
    )
    assert await value(connection, "SELECT count(*) FROM routines.day_changes") == 0


async def test_days_of_which_retention_has_deleted_runs_are_read_from_the_runs(
    connection: Connection, routine: int
) -> None:
    await sum_up_all(connection)
    await connection.execute("UPDATE routines.trajectories SET created_at = scheduled_for, ended_at = scheduled_for")
    await delete_page(connection, "trajectories", keep_seconds=3 * 86400, page_size=100)
    assert await same(connection) != []
    await sum_up_all(connection)
    oldest = await value(connection, "SELECT min(day) FROM routines.day_sums")
    deleted = await value(connection, "SELECT deleted_until FROM routines.retention WHERE what = 'trajectories'")
    assert isinstance(deleted, datetime)
    assert oldest == deleted.astimezone(UTC).date() + DAY
    await same(connection)


async def test_a_run_whose_routine_is_not_known_any_more_holds_up_nothing(connection: Connection, routine: int) -> None:
    await sum_up_all(connection)
    await connection.execute("TRUNCATE routines.routines CASCADE")
    await connection.execute("UPDATE routines.trajectories SET status = 'archived' WHERE scheduled_for = %s", [FIRST])
    await sum_up_all(connection)
    assert await unsure_days(connection) == []


async def test_after_truncate_days_are_summed_up_anew_from_the_oldest_run(connection: Connection, routine: int) -> None:
    await sum_up_all(connection)
    before = await same(connection)
    await connection.execute("TRUNCATE routines.day_sums")
    assert await same(connection) == before
    assert not await read_from_sums(connection)
    await run_at(connection, routine, FIRST - 2 * DAY)  # for a slot before the first one that is summed up
    before = await same(connection)
    await sum_up_all(connection)
    since = await value(connection, "SELECT summed_from FROM routines.day_sums_progress")
    assert since == FIRST.date()
    assert await read_from_sums(connection)
    assert await same(connection) == before


# --- at the same time -------------------------------------------------------------------------------------------------

ARCHIVE = "UPDATE routines.trajectories SET status = 'archived' WHERE scheduled_for = %s"


async def test_sums_made_before_a_change_commits_do_not_count_after_it(
    connection: Connection, database: Database, routine: int
) -> None:
    """Neither waits for the other."""
    async with session(database, "changer") as other:
        async with other.transaction():
            await other.execute(ARCHIVE, [FIRST])
            await sum_up_all(connection)
            before = await same(connection)
        assert await unsure_days(connection) == [FIRST.date()]
        assert await same(connection) != before
        async with other.transaction():
            await other.execute(ARCHIVE, [FIRST + 3 * HOUR])
            await sum_up_all(connection)
        assert await unsure_days(connection) == [FIRST.date()]
        await same(connection)
        await sum_up_all(connection)
        assert await unsure_days(connection) == []


@pytest.mark.parametrize("part", ["next", "changed"])
async def test_a_change_during_the_summing_waits_for_nothing_and_is_not_lost(
    connection: Connection, database: Database, routine: int, part: Any
) -> None:
    if part == "changed":
        while await sum_up(connection, "next", now=LATER):
            assert await unsure_days(connection)
    async with session(database, "summer") as summer, session(database, "changer") as other, summer.transaction():
        assert await sum_up(summer, part, now=LATER)
        await asyncio.wait_for(other.execute(ARCHIVE, [FIRST]), 5)
    assert FIRST.date() in await unsure_days(connection)
    await same(connection)


async def test_one_session_at_a_time_sums_up(connection: Connection, database: Database, routine: int) -> None:
    async with session(database, "other") as other, other.transaction():
        assert await sum_up(other, "next", now=LATER)
        assert await sum_up(connection, "next", now=LATER) == 0
        assert await sum_up(connection, "changed", now=LATER) == 0
    assert await sum_up(connection, "next", now=LATER)


async def test_a_worker_sums_up(connection: Connection, database: Database, routine: int) -> None:
    stop = asyncio.Event()
    summing = asyncio.create_task(run_summing(database.url, stop, Bulkhead("summing")))
    async with asyncio.timeout(20):
        over = "SELECT summed_until >= (now() AT TIME ZONE 'UTC')::date - 1 FROM routines.day_sums_progress"
        while not await value(connection, over):  # noqa: ASYNC110 - the database has no event to wait for
            await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(summing, 5)
    await same(connection)
