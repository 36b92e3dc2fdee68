"""The timeline has every run, skip and coming slot of a time once, and costs no more than what it shows."""

from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Any

import pytest

from routines_core.db import Connection
from routines_core.db import timeline as db
from support.clocks import moved_clock
from support.plans import buffers, explained
from support.rows import Database, at, make_key, make_routine, make_task, value

NOW = at("2026-05-04 09:17")
SINCE, UNTIL = at("2026-05-04 06:00"), at("2026-05-04 12:00")
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
async def moved(database: Database) -> AsyncGenerator[Connection]:
    """Yield a session for which it is 17 minutes past nine on that Monday, with a key of the collection."""
    async with moved_clock(database, NOW) as connection:
        await make_key(connection, "my-org")
        yield connection


@pytest.fixture
async def hourly(moved: Connection) -> int:
    """Return the id of an hourly routine that fires next at 10:00."""
    routine = await make_routine(moved, await make_task(moved), at("2026-05-04 10:00"), hourly=True)
    # Columns keep the real clock.
    await moved.execute("UPDATE routines.routines SET created_at = '2026-05-01Z'")
    return routine


async def timeline(
    connection: Connection, since: datetime = SINCE, until: datetime = UNTIL, **given: Any
) -> list[db.Lane]:
    arguments = {"bucket_seconds": 60, "limit": 100, **given}
    return await db.timeline(connection, key_id=1, since=since, until=until, now=NOW, **arguments)


async def marks(connection: Connection, **given: Any) -> list[tuple[str, str]]:
    """Return the time and the kind of each mark of the only routine."""
    [lane] = await timeline(connection, **given)
    return [(f"{mark.at:%H:%M:%S}", mark.kind) for mark in lane.marks]


async def add_run(
    connection: Connection,
    routine: int,
    began: datetime,
    ended: datetime | None,
    *,
    status: str = "completed",
    trigger: str = "schedule",
    slot: datetime | None = None,
) -> int:
    """Insert a run, for the slot at which it began, or for another one, if a schedule started it. Returns its id."""
    found = await value(
        connection,
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
               scheduled_for, init_params, status, created_at, started_at, ended_at, lease_expires_at)
           SELECT collection_id, task_id, 1, id, %s, %s, '{}', %s, %s, %s, %s,
                  CASE WHEN %s = 'running' THEN timestamptz '2100-01-01Z' END
           FROM routines.routines WHERE id = %s RETURNING id""",
        trigger,
        (slot or began) if trigger == "schedule" else None,
        status,
        began,
        began,
        ended,
        status,
        routine,
    )
    assert isinstance(found, int)
    return found


async def add_skip(connection: Connection, routine: int, first: datetime, reason: str, slots: int = 1) -> None:
    """Insert a skip of an hourly routine."""
    await connection.execute(
        """INSERT INTO routines.skips (collection_id, routine_id, cadence, scheduled_for, last_scheduled_for,
                                       slot_count, reason)
           SELECT collection_id, id, routines.cadence_of(routines), %s, %s, %s, %s
           FROM routines.routines WHERE id = %s""",
        [first, first + (slots - 1) * HOUR, slots, reason, routine],
    )


async def test_a_lane_has_runs_skipped_slots_and_coming_slots_in_order(moved: Connection, hourly: int) -> None:
    done = await add_run(moved, hourly, SINCE + HOUR, SINCE + HOUR + MINUTE)
    failed = await add_run(moved, hourly, SINCE + 2 * HOUR, SINCE + 2 * HOUR + SECOND, status="failed")
    await add_skip(moved, hourly, SINCE + 3 * HOUR, "overlap")
    [lane] = await timeline(moved)
    assert (lane.routine_id, lane.task, lane.routine, lane.paused_at) == (hourly, "echo", "morning", None)
    assert lane.marks == [
        db.Mark(SINCE + HOUR, SINCE + HOUR + MINUTE, "completed", 1, done, SINCE + HOUR),
        db.Mark(SINCE + 2 * HOUR, SINCE + 2 * HOUR + SECOND, "failed", 1, failed, SINCE + 2 * HOUR),
        db.Mark(SINCE + 3 * HOUR, SINCE + 3 * HOUR, "overlap", 1, None, SINCE + 3 * HOUR),
        db.Mark(SINCE + 4 * HOUR, SINCE + 4 * HOUR, "coming", 1, None, SINCE + 4 * HOUR),
        db.Mark(SINCE + 5 * HOUR, SINCE + 5 * HOUR, "coming", 1, None, SINCE + 5 * HOUR),
    ]


async def test_a_slot_that_no_ticker_has_picked_up_is_due(moved: Connection, hourly: int) -> None:
    await moved.execute("UPDATE routines.routines SET next_run_at = '2026-05-04 08:00Z' WHERE id = %s", [hourly])
    assert await marks(moved) == [
        ("08:00:00", "due"),
        ("09:00:00", "due"),
        ("10:00:00", "coming"),
        ("11:00:00", "coming"),
    ]


async def test_runs_that_reach_into_the_time_are_shown_whatever_started_them(moved: Connection, hourly: int) -> None:
    await add_run(moved, hourly, SINCE - 2 * HOUR, SINCE - HOUR)
    await add_run(moved, hourly, SINCE - HOUR, SINCE + MINUTE)
    await add_run(moved, hourly, SINCE - 3 * HOUR, None, status="running", trigger="run-now")
    await add_run(moved, hourly, SINCE + MINUTE, SINCE + 2 * MINUTE, trigger="run-now", status="failed")
    await add_run(moved, hourly, UNTIL, None, trigger="run-now", status="pending")
    found = (await timeline(moved, until=SINCE + HOUR))[0].marks
    assert [(mark.at, mark.until, mark.kind, mark.scheduled_for) for mark in found] == [
        (SINCE - 3 * HOUR, None, "running", None),
        (SINCE - HOUR, SINCE + MINUTE, "completed", SINCE - HOUR),
        (SINCE + MINUTE, SINCE + 2 * MINUTE, "failed", None),
    ]


async def test_a_run_that_began_late_stands_where_it_began(moved: Connection, hourly: int) -> None:
    await add_run(moved, hourly, SINCE + MINUTE, SINCE + HOUR, slot=SINCE - HOUR)
    assert await marks(moved, until=SINCE + HOUR) == [("06:01:00", "completed")]
    assert await marks(moved, since=SINCE - 2 * HOUR, until=SINCE) == []


async def test_what_is_of_one_kind_and_begins_in_one_bucket_is_one_mark(moved: Connection, hourly: int) -> None:
    for minute, status in enumerate(["completed", "failed", "completed", "completed"]):
        began = SINCE + (10 + 5 * minute) * MINUTE
        await add_run(moved, hourly, began, began + 7 * MINUTE, status=status, trigger="run-now")
    found = (await timeline(moved, until=SINCE + HOUR, bucket_seconds=900))[0].marks
    assert [(f"{mark.at:%M}", f"{mark.until:%M}", mark.kind, mark.count) for mark in found] == [
        ("10", "17", "completed", 1),
        ("15", "22", "failed", 1),
        ("20", "32", "completed", 2),
    ]
    assert [mark.trajectory_id is None for mark in found] == [False, False, True]


async def test_a_span_of_skipped_slots_is_one_mark_also_if_it_began_before(moved: Connection, hourly: int) -> None:
    await add_skip(moved, hourly, SINCE - 2 * HOUR, "missed", slots=4)
    [mark] = (await timeline(moved, until=UNTIL - 3 * HOUR))[0].marks
    assert (mark.at, mark.until, mark.kind, mark.count) == (SINCE - 2 * HOUR, SINCE + HOUR, "missed", 4)


async def test_a_paused_routine_has_its_pause_and_the_slots_after_it(moved: Connection, hourly: int) -> None:
    await moved.execute(
        "UPDATE routines.routines SET paused = true, paused_until = '2026-05-04 10:30Z' WHERE id = %s", [hourly]
    )
    [lane] = await timeline(moved)
    assert lane.paused_until == at("2026-05-04 10:30")
    assert lane.paused_at is not None
    assert [(f"{mark.at:%H:%M}", mark.kind) for mark in lane.marks if mark.kind == "coming"] == [("11:00", "coming")]


async def test_spread_slots_stand_where_they_are_due(moved: Connection, hourly: int) -> None:
    await moved.execute("UPDATE routines.routines SET spread_seconds = 3000 WHERE id = %s", [hourly])
    offset = await value(moved, "SELECT spread_offset FROM routines.routines WHERE id = %s", hourly)
    assert isinstance(offset, timedelta)
    found = [mark for mark in (await timeline(moved))[0].marks if mark.kind == "coming"]
    assert [(mark.scheduled_for, mark.at) for mark in found][-1] == (UNTIL - HOUR, UNTIL - HOUR + offset)


async def test_manual_routines_and_those_without_marks_have_a_lane_too(moved: Connection, hourly: int) -> None:
    await moved.execute(
        "INSERT INTO routines.routines (collection_id, task_id, name, cadence_type) VALUES (1, 1, 'by-hand', 'manual')"
    )
    lanes = await timeline(moved)
    assert [(lane.routine, len(lane.marks)) for lane in lanes] == [("by-hand", 0), ("morning", 2)]
    assert lanes[1].routine_id == hourly


async def test_pages_follow_each_other_and_can_be_narrowed(moved: Connection, hourly: int) -> None:
    for number in range(4):
        await make_routine(moved, 1, UNTIL, name=f"r-{number}")
    names = []
    cursor = None
    while True:
        lanes = await timeline(moved, limit=2, cursor=cursor)
        names += [lane.routine for lane in lanes]
        if len(lanes) < 2:
            break
        cursor = (lanes[-1].task, lanes[-1].routine, lanes[-1].routine_id)
    assert names == ["morning", "r-0", "r-1", "r-2", "r-3"]
    assert [lane.routine for lane in await timeline(moved, ids=[hourly, 10**12])] == ["morning"]
    assert [lane.routine for lane in await timeline(moved, part_of_name="echo/r-3")] == ["r-3"]
    assert await timeline(moved, part_of_name="cho/x") == []


async def test_another_collection_sees_none_of_it(moved: Connection, hourly: int) -> None:
    await make_key(moved, "theirs")
    found = await db.timeline(
        moved, key_id=2, since=SINCE, until=UNTIL, bucket_seconds=60, limit=10, ids=[hourly], now=NOW
    )
    assert found == []


@pytest.mark.parametrize("trigger", ["schedule", "run-now"])
async def test_the_cost_of_a_lane_does_not_depend_on_its_history(moved: Connection, hourly: int, trigger: str) -> None:
    fill = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                  scheduled_for, init_params, status, created_at, started_at, ended_at)
              SELECT 1, 1, 1, %s, %s, CASE WHEN %s = 'schedule' THEN slot END, '{}', 'completed', slot, slot,
                     slot + interval '1 minute'
              FROM generate_series(%s::timestamptz, %s::timestamptz, '1 hour') AS slot"""
    for routine in (hourly, 10**6):
        await moved.execute(fill, [routine, trigger, trigger, SINCE - 6000 * HOUR, SINCE + 3 * HOUR])
    await moved.execute("ANALYZE routines.trajectories")
    given = {
        "key_id": "1",
        "from": SINCE,
        "until": UNTIL,
        "bucket_seconds": 60,
        "page_size": 10,
        "ids": None,
        "part_of_name": "",
        "now": NOW,
    }
    given |= {"after_task": None, "after_routine": None, "after_id": None}
    await explained(moved, "timeline.timeline", **given)
    assert buffers(await explained(moved, "timeline.timeline", **given)) < 200
    assert len((await timeline(moved))[0].marks) == 6
