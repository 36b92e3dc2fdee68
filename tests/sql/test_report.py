"""A report says what became of every slot, no more and no fewer; gaps are the slots that never ran."""

import random
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Any, get_args

import pytest

from routines_core.db import Connection
from routines_core.db import report as db
from routines_core.db.day_sums import Part, sum_up
from routines_core.db.retention import delete_page
from routines_core.db.tick import tick
from support.clocks import move_clock, moved_clock
from support.histories import HOUR, MONDAY, SKIPPED, History, Slot, all_of
from support.oracle import MOMENT
from support.plans import buffers, explained
from support.rows import CATCHUP, Database, at, make_key, make_routine, make_task, value

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
LATE = timedelta(seconds=60)
COUNTS = db.ReportRow.__struct_fields__[4:]


async def report(connection: Connection, since: datetime, until: datetime, **given: Any) -> list[db.ReportRow]:
    arguments = {"late_after_seconds": 60, "limit": 1000, **given}
    return await db.report(connection, key_id=1, since=since, until=until, **arguments)


async def gaps(connection: Connection, routine: int, since: datetime, until: datetime, **given: Any) -> list[db.Gap]:
    return await db.gaps(
        connection, key_id=1, routine_id=routine, since=since, until=until, **{"limit": 10_000, **given}
    )


def counts(found: list[Slot], since: datetime, until: datetime) -> dict[str, Any]:
    """Count by hand what a report should say."""
    inside = [slot for slot in found if since <= slot.time < until]
    by = Counter(slot.outcome for slot in inside)
    delays = [slot.delay for slot in inside if slot.delay is not None]
    late = sum(delay > LATE for delay in delays)
    completed = [slot.time for slot in found if slot.outcome == "completed" and slot.time >= since]
    failed = [slot for slot in inside if slot.outcome in {"failed", "missed", "failed_to_start"}]
    return {
        "expected": len(inside),
        "started": len(delays),
        "on_time": len(delays) - late,
        "late": late,
        **{status: by[status] for status in ("completed", "failed", "cancelled", "archived", "pending")},
        "active": by["active"],
        "skipped": sum(by[reason] for reason in SKIPPED),
        **{reason: by[reason] for reason in SKIPPED},
        "recovered": sum(slot.fill == "completed" or any(slot.time < other for other in completed) for slot in failed),
        "max_delay_seconds": max(delays).total_seconds() if delays else None,
    }


@pytest.fixture
async def moved(database: Database) -> AsyncGenerator[Connection]:
    """Yield a session for which it is 17 minutes past nine on that Monday, with a key of the collection."""
    async with moved_clock(database, MONDAY + 17 * MINUTE) as connection:
        await make_key(connection, "my-org")
        yield connection


@pytest.mark.parametrize("seed", range(8))
async def test_the_sums_of_a_random_history_are_those_of_its_slots(moved: Connection, seed: int) -> None:
    history, seen = History(moved, random.Random(seed)), set[str]()
    await history.begin()
    for number in range(72):
        await history.go_on()
        if number % 6 == 5:
            found = await history.slots()
            seen |= {slot.outcome for slots_of_one in found.values() for slot in slots_of_one}
            await check(history, found)
            await sum_up_days(history)
            await check(history, found)
    assert seen >= {"completed", "failed", "cancelled", "active", "overlap", "missed", "paused", "pending"}


async def sum_up_days(history: History) -> None:
    """Sum up the days that have been over for a day."""
    parts: tuple[Part, ...] = get_args(Part)
    for part in parts:
        while await sum_up(history.connection, part, now=history.now, batch_size=3):
            pass


async def check(history: History, found: dict[int, list[Slot]]) -> None:
    """Compare reports of several times with what the test knows."""
    whole = int((history.now - history.made_at).total_seconds())
    windows = [(history.made_at, history.now + MINUTE), (history.made_at - DAY, history.now + DAY)]
    for _ in range(2):
        first, last = sorted(history.rng.sample(range(whole), 2))
        windows.append((history.made_at + timedelta(seconds=first), history.made_at + timedelta(seconds=last)))
    for since, until in windows:
        rows = await report(history.connection, since, until)
        by_routine = {row.routine_id: row for row in rows if row.routine_id is not None}
        for routine in history.cadences:
            expected = counts(found[routine], since, until)
            if routine in history.deleted and not expected["expected"]:
                assert routine not in by_routine
                continue
            row = by_routine[routine]
            assert {name: getattr(row, name) for name in COUNTS} == expected, (routine, since, until)
            assert row.is_deleted == (routine in history.deleted)
        everything = counts_of_many(found, since, until)
        assert {name: getattr(rows[0], name) for name in COUNTS} == everything
        assert [row.task for row in rows if row.routine_id is None] == [None, "echo", "other"]


def counts_of_many(found: dict[int, list[Slot]], since: datetime, until: datetime) -> dict[str, Any]:
    each = [counts(of_one, since, until) for of_one in found.values()]
    delays = [one["max_delay_seconds"] for one in each if one["max_delay_seconds"] is not None]
    sums = {name: sum(one[name] for one in each) for name in COUNTS if name != "max_delay_seconds"}
    return {**sums, "max_delay_seconds": max(delays, default=None)}


@pytest.mark.parametrize("seed", range(8, 12))
async def test_the_gaps_of_a_random_history_are_the_slots_that_never_ran(moved: Connection, seed: int) -> None:
    history = History(moved, random.Random(seed))
    await history.begin()
    for _ in range(50):
        await history.go_on()
    found, rng = await history.slots(), random.Random(seed)
    since, until = history.made_at + 20 * HOUR, history.now - 20 * HOUR
    for routine, slots_of_one in found.items():
        inside = sorted(slot for slot in slots_of_one if since <= slot.time < until)
        ran = {"completed", "cancelled", "archived", "active", "pending"}
        outcomes = [(slot.time, slot.fill or slot.outcome) for slot in inside]
        expected = [(time, outcome) for time, outcome in outcomes if outcome not in ran]
        with_failed = await gaps(moved, routine, since, until, with_failed=True)
        assert [(gap.scheduled_for, gap.reason) for gap in with_failed] == expected
        without = await gaps(moved, routine, since, until)
        assert [(gap.scheduled_for, gap.reason) for gap in without] == [row for row in expected if row[1] != "failed"]
        assert {gap.due_at - gap.scheduled_for for gap in without if gap.due_at} <= {history.offsets[routine]}
        # Page by page.
        paged, size, cursor = list[db.Gap](), rng.choice([1, 2, 7]), None
        while page := await gaps(moved, routine, since, until, with_failed=True, limit=size, cursor=cursor):
            paged += page
            cursor = page[-1].scheduled_for
        assert paged == with_failed
        missed = await gaps(moved, routine, since, until, reason="missed")
        assert missed == [gap for gap in without if gap.reason == "missed"]


# --- any cadence ------------------------------------------------------------------------------------------------------

ANY_CADENCES = [
    "cadence_type = 'cron', hour_utc = NULL, timezone = 'Europe/Berlin', expression = '\"*/20 8-18 * * mon-fri\"'",
    "cadence_type = 'interval', hour_utc = NULL, every_minutes = 50, anchor = '2026-05-04 09:05Z'",
    "cadence_type = 'hourly', hour_utc = NULL, ends_at = '2026-05-06 12:00Z'",
    "cadence_type = 'once', hour_utc = NULL, once_at = '2026-05-05 10:00Z'",
    """cadence_type = 'hourly', hour_utc = NULL,
       active_hours = '{"timezone": "UTC", "windows": ["mon-fri 08:30-18:00"], "outside": "defer"}'""",
    """calendar = '{"exclude": ["may"], "on_excluded": "next_business_day"}'""",
    "cadence_type = 'manual', hour_utc = NULL",
]


@pytest.mark.parametrize("spread", [None, 600])
@pytest.mark.parametrize("seed", range(3))
async def test_a_tick_decides_on_slots_and_makes_none(moved: Connection, seed: int, spread: int | None) -> None:
    """Whatever the cadence: what is expected stays the same when pending slots get their outcome or a pause ends."""
    rng, task = random.Random(seed), await make_task(moved)
    await moved.execute(
        """INSERT INTO routines.calendars (collection_id, name, timezone, days)
           VALUES (1, 'may', 'UTC', '[{"from": "2026-05-06", "to": "2026-05-07"}]')"""
    )
    for number, cadence in enumerate(ANY_CADENCES):
        routine = await make_routine(moved, task, MONDAY, name=f"r{number}")
        await moved.execute("UPDATE routines.routines SET created_at = now() WHERE id = %s", [routine])
        await moved.execute(f"UPDATE routines.routines SET {cadence} WHERE id = {routine}".encode())
        if "'once'" not in cadence and "'manual'" not in cadence:
            await moved.execute("UPDATE routines.routines SET spread_seconds = %s WHERE id = %s", [spread, routine])
    now, since, until, pending = MONDAY + 17 * MINUTE, MONDAY - DAY, MONDAY + 20 * DAY, 0
    for _ in range(40):
        now += timedelta(minutes=rng.choice([10, 65, 65, 600, 1500]))
        await move_clock(moved, now)
        before = await report(moved, since, until)
        pending += before[0].pending
        if rng.random() < 0.2:
            await moved.execute("UPDATE routines.routines SET paused = NOT paused")
        await tick(moved, batch_size=100, **CATCHUP)
        after = await report(moved, since, until)
        assert [row.expected for row in after] == [row.expected for row in before], now
        slots_in_ledger = await value(moved, "SELECT coalesce(sum(slot_count), 0)::bigint FROM routines.occurrences")
        paused = await value(moved, "SELECT count(*) FROM routines.routines WHERE paused")
        assert after[0].pending == 0
        assert paused or after[0].expected == slots_in_ledger
        await moved.execute(
            "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"
        )
    assert pending > 50


# --- case by case -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def routine(moved: Connection) -> int:
    """Create an hourly routine whose first slot is 10:00 on that Monday."""
    made = await make_routine(moved, await make_task(moved), MONDAY + HOUR, hourly=True)
    await moved.execute("UPDATE routines.routines SET created_at = now()")
    return made


async def one(connection: Connection, since: datetime, until: datetime, **given: Any) -> db.ReportRow:
    [row] = [row for row in await report(connection, since, until, **given) if row.routine_id is not None]
    return row


async def test_a_span_counts_where_its_slots_are(moved: Connection, routine: int) -> None:
    await move_clock(moved, MONDAY + 11 * HOUR)
    await tick(moved, batch_size=10, **CATCHUP)
    # From 10:00 to 19:00 none ran, and the slot of 20:00 did.
    whole = await one(moved, MONDAY, MONDAY + DAY)
    assert (whole.expected, whole.missed, whole.started, whole.pending) == (11, 10, 1, 0)
    part = await one(moved, MONDAY + 3 * HOUR - MOMENT, MONDAY + 6 * HOUR)
    assert (part.expected, part.missed) == (3, 3)
    assert [gap.scheduled_for.hour for gap in await gaps(moved, routine, MONDAY + 3 * HOUR, MONDAY + 6 * HOUR)] == [
        12, 13, 14,
    ]  # fmt: skip
    sums = [await one(moved, MONDAY + n * HOUR, MONDAY + (n + 1) * HOUR) for n in range(24)]
    assert sum(row.expected for row in sums) == whole.expected


async def test_a_run_is_late_by_when_it_began(moved: Connection, routine: int) -> None:
    await move_clock(moved, MONDAY + HOUR)
    await tick(moved, batch_size=10, **CATCHUP)
    await move_clock(moved, MONDAY + HOUR + timedelta(seconds=60))
    assert (await one(moved, MONDAY, MONDAY + DAY)).late == 0
    await move_clock(moved, MONDAY + HOUR + timedelta(seconds=61))
    waiting = await one(moved, MONDAY, MONDAY + DAY)
    assert (waiting.active, waiting.late, waiting.max_delay_seconds) == (1, 1, 61)
    await moved.execute("UPDATE routines.trajectories SET started_at = scheduled_for + interval '30 seconds'")
    began = await one(moved, MONDAY, MONDAY + DAY)
    assert (began.on_time, began.late, began.max_delay_seconds) == (1, 0, 30)
    assert (await one(moved, MONDAY, MONDAY + DAY, late_after_seconds=29)).late == 1


async def test_a_slot_that_has_moved_into_a_pause_is_paused(moved: Connection, routine: int) -> None:
    tuesday = MONDAY + DAY
    await moved.execute(
        """UPDATE routines.routines SET cadence_type = 'daily', hour_utc = 7,
               active_hours = '{"timezone": "UTC", "windows": ["mon-fri 08:30-18:00"], "outside": "defer"}'"""
    )
    await move_clock(moved, tuesday - 2 * HOUR)
    await tick(moved, batch_size=10, **CATCHUP)
    await moved.execute("UPDATE routines.routines SET paused = true")
    await move_clock(moved, tuesday)
    row = await one(moved, MONDAY, MONDAY + 2 * DAY)
    assert (row.expected, row.outside_hours, row.paused) == (2, 1, 1)
    found = await gaps(moved, routine, MONDAY, MONDAY + 2 * DAY)
    assert [(gap.scheduled_for, gap.reason) for gap in found] == [
        (tuesday - 2 * HOUR, "outside_hours"),
        (tuesday - HOUR / 2, "paused"),
    ]
    await moved.execute("UPDATE routines.routines SET paused = false")
    assert await one(moved, MONDAY, MONDAY + 2 * DAY) == row


async def test_a_failure_has_recovered_once_a_later_slot_completes_even_after_the_time_of_the_report(
    moved: Connection, routine: int
) -> None:
    for hour, status in ((1, "failed"), (2, "failed"), (3, "completed")):
        await move_clock(moved, MONDAY + hour * HOUR)
        await tick(moved, batch_size=10, **CATCHUP)
        if status == "completed":
            assert (await one(moved, MONDAY, MONDAY + 3 * HOUR)).recovered == 0
        await moved.execute(
            "UPDATE routines.trajectories SET status = %s, ended_at = now() WHERE ended_at IS NULL", [status]
        )
    assert (await one(moved, MONDAY, MONDAY + 3 * HOUR)).recovered == 2
    assert (await one(moved, MONDAY, MONDAY + 4 * HOUR)).recovered == 2
    assert (await one(moved, MONDAY + 3 * HOUR, MONDAY + 4 * HOUR)).recovered == 0


async def test_deleted_routines_and_tasks_are_reported_by_their_last_name(moved: Connection, routine: int) -> None:
    await move_clock(moved, MONDAY + HOUR)
    await tick(moved, batch_size=10, **CATCHUP)
    await moved.execute("DELETE FROM routines.routines")
    await moved.execute("DELETE FROM routines.tasks")
    row = await one(moved, MONDAY, MONDAY + DAY)
    assert (row.task, row.routine, row.routine_id, row.is_deleted, row.started) == ("echo", "morning", routine, True, 1)
    # No slot, no line.
    assert [row.routine_id for row in await report(moved, MONDAY - DAY, MONDAY)] == [None]


async def test_a_report_says_up_to_when_retention_has_deleted_slots(moved: Connection, routine: int) -> None:
    await move_clock(moved, MONDAY + 5 * HOUR)
    await tick(moved, batch_size=10, **CATCHUP)
    assert await db.complete_since(moved, MONDAY) is None
    deleted = await delete_page(moved, "skips", keep_seconds=0, now=MONDAY + DAY)
    assert deleted.deleted == 1
    assert await db.complete_since(moved, MONDAY) == MONDAY + 4 * HOUR
    assert await db.complete_since(moved, MONDAY + 4 * HOUR + MOMENT) is None
    assert (await one(moved, MONDAY, MONDAY + DAY)).expected == 1


async def test_pages_of_routines_are_those_of_the_whole_list(moved: Connection) -> None:
    task = await make_task(moved)
    for name in ("c", "a", "b", "d"):
        await make_routine(moved, task, MONDAY + HOUR, name=name)
    names, cursor = list[str | None](), None
    while page := [row for row in await report(moved, MONDAY, MONDAY + DAY, limit=3, cursor=cursor) if row.routine_id]:
        names += [row.routine for row in page]
        cursor = ("echo", str(page[-1].routine), page[-1].routine_id or 0)
    assert names == ["a", "b", "c", "d"]
    later = await report(moved, MONDAY, MONDAY + DAY, cursor=("echo", "c", 10**9))
    assert [(row.task, row.routine) for row in later] == [("echo", "d")]
    assert [row.routine for row in await report(moved, MONDAY, MONDAY + DAY, with_sums=False, limit=2)] == ["a", "b"]


async def test_the_slots_of_a_year_long_pause_are_listed_a_few_at_a_time(moved: Connection, routine: int) -> None:
    await moved.execute(
        "UPDATE routines.routines SET cadence_type = 'interval', minute_utc = 0, every_minutes = 1, anchor = now()"
    )
    await moved.execute("UPDATE routines.routines SET paused = true, paused_note = 'moving house'")
    await move_clock(moved, MONDAY + 365 * DAY)
    plan = await all_of(
        moved,
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM routines.gaps_of(%s, %s, %s, 3)",
        routine,
        MONDAY,
        MONDAY + 365 * DAY,
    )
    assert plan[0][0][0]["Plan"]["Actual Rows"] == 3
    found = await gaps(moved, routine, MONDAY + 100 * DAY, MONDAY + 365 * DAY, limit=3)
    assert [gap.scheduled_for for gap in found] == [MONDAY + 100 * DAY + n * MINUTE for n in range(3)]
    assert {(gap.reason, gap.recorded_at) for gap in found} == {("paused", None)}
    assert str(found[0].detail).endswith("2026-05-04T09:17:00Z: moving house")
    row = await one(moved, MONDAY, MONDAY + 365 * DAY)
    assert row.paused == row.expected == 365 * 24 * 60 - 18


async def test_a_report_reads_no_runs_of_other_collections_or_other_times(moved: Connection, routine: int) -> None:
    await moved.execute("INSERT INTO routines.collections (name) VALUES ('other')")
    fill = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                  scheduled_for, init_params, status, ended_at)
              SELECT %s, 1, 1, %s, 'schedule', %s::timestamptz + n * interval '1 hour', '{}', 'completed', now()
              FROM generate_series(1, %s) AS n"""
    await moved.execute(fill, [2, 10**6, MONDAY, 20_000])
    await moved.execute(fill, [1, routine, MONDAY - 6000 * HOUR, 6000 + 24])
    await moved.execute("ANALYZE routines.trajectories")
    # The first time reads the catalogues too.
    assert (await one(moved, MONDAY + MINUTE, MONDAY + DAY + MINUTE)).completed == 24
    asked = {"late_after_seconds": 60, "after_task": None, "after_routine": None, "after_id": None, "page_size": 10}
    plan = await explained(
        moved,
        "report.report",
        key_id="1",
        **{"from": MONDAY + MINUTE},
        until=MONDAY + DAY + MINUTE,
        with_sums=True,
        now=MONDAY + 2 * DAY,
        **asked,
    )
    assert buffers(plan) < 200


async def test_a_failed_run_and_a_blocked_slot_name_their_runs(moved: Connection, routine: int) -> None:
    for hour in (1, 2):
        await move_clock(moved, MONDAY + hour * HOUR)
        await tick(moved, batch_size=10, **CATCHUP)
    await moved.execute("UPDATE routines.trajectories SET status = 'failed', error = 'no such table', ended_at = now()")
    run = await value(moved, "SELECT id FROM routines.trajectories")
    failed, blocked = await gaps(moved, routine, MONDAY, MONDAY + DAY, with_failed=True)
    assert (failed.reason, failed.detail, failed.trajectory_id) == ("failed", "no such table", run)
    assert (blocked.reason, blocked.blocking_trajectory_id, blocked.trajectory_id) == ("overlap", run, None)


async def test_the_names_of_deleted_routines_go_with_their_slots(moved: Connection, routine: int) -> None:
    await move_clock(moved, MONDAY + 5 * HOUR)
    await tick(moved, batch_size=10, **CATCHUP)
    await moved.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    await moved.execute("DELETE FROM routines.routines")
    long_after = at("2126-05-04 09:00")
    assert (await delete_page(moved, "names", keep_seconds=0, now=long_after)).deleted == 0
    for what in ("trajectories", "skips"):
        await delete_page(moved, what, keep_seconds=0, now=long_after)
    assert (await delete_page(moved, "names", keep_seconds=0, now=long_after)).deleted == 1
    assert await value(moved, "SELECT count(*) FROM routines.deleted_routines") == 0
