"""What a backfill makes of each slot, how it is expanded, and what the ledger then says."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.errors import CheckViolation

from routines_core.db import Connection
from support.rows import make_routine, make_task, value
from support.stepping import tick_at

MIDNIGHT = datetime(2026, 5, 4, tzinfo=UTC)
END = """UPDATE routines.trajectories SET status = %s, ended_at = now(), fence = fence + 1, error = 'no'
         WHERE id = %s AND ended_at IS NULL"""
RUN_NOW = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                                init_params)
             SELECT collection_id, task_id, 1, id, 'run-now', '{}' FROM routines.routines RETURNING id"""
BACKFILL = """INSERT INTO routines.backfills (routine_id, from_time, until_time, reprocess, slot_order, max_active)
              SELECT id, %s, %s, %s, %s, %s FROM routines.routines RETURNING id"""
OVER = "SELECT ended_at IS NOT NULL FROM routines.backfills WHERE id = %s"
HELD = "SELECT held_by FROM routines.backfills"
HOURS = "SELECT array_agg(extract(hour FROM scheduled_for AT TIME ZONE 'UTC')::integer) FROM "
END_ALL = "UPDATE routines.trajectories SET status = %s, ended_at = now() WHERE ended_at IS NULL"
ACTIVE = "SELECT id FROM routines.trajectories WHERE backfill_id IS NOT NULL AND final_status IS NULL ORDER BY id"


def hour(number: int) -> datetime:
    return MIDNIGHT + timedelta(hours=number)


@pytest.fixture
async def routine(connection: Connection) -> int:
    """Create an hourly routine at 08:30 of a day in the past, and return its id."""
    task = await make_task(connection)
    routine = await make_routine(connection, task, hour(9), hourly=True)
    await connection.execute("UPDATE routines.routines SET created_at = %s", [hour(8) + timedelta(minutes=30)])
    return routine


async def end(connection: Connection, run: int, status: str = "completed") -> None:
    await connection.execute(END, [status, run])


async def fire(connection: Connection, number: int, status: str = "completed") -> int:
    """Let the run of an hour's slot start and end. Returns it."""
    assert (await tick_at(connection, hour(number))).fired == 1
    run = await value(connection, "SELECT id FROM routines.trajectories WHERE scheduled_for = %s", hour(number))
    assert isinstance(run, int)
    await end(connection, run, status)
    return run


async def history(connection: Connection) -> None:
    """Fill the ledger: 9 completed, 10 failed, 11 cancelled, 12 an overlap, 13 to 15 missed, 16 completed."""
    await fire(connection, 9)
    await fire(connection, 10, "failed")
    await fire(connection, 11, "cancelled")
    beside = await value(connection, RUN_NOW)
    assert isinstance(beside, int)
    assert (await tick_at(connection, hour(12))).overlapped == 1
    await end(connection, beside)
    assert (await tick_at(connection, hour(16))).missed == 3
    await end_newest(connection)


async def end_newest(connection: Connection) -> None:
    run = await value(connection, "SELECT max(id) FROM routines.trajectories")
    assert isinstance(run, int)
    await end(connection, run)


async def idle(connection: Connection) -> None:
    """Let the next slot of the routine be in half an hour, so that the schedule has nothing to do."""
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '30 minutes'")


async def plan(
    connection: Connection, reprocess: str, first: int = 7, until: int = 17, order: str = "oldest"
) -> dict[int, str]:
    """Return what a backfill would make of the slots of these hours, and why, in its order."""
    cursor = await connection.execute(
        "SELECT plan.* FROM routines.routines, routines.slots_to_fill(id, %s, %s, %s, %s) AS plan",
        [hour(first), hour(until), reprocess, order],
    )
    rows = await cursor.fetchall()
    return {(row[0] - MIDNIGHT) // timedelta(hours=1): f"{row[1]} {row[2]}" for row in rows}


async def backfill(
    connection: Connection, first: int, until: int, reprocess: str = "missing", order: str = "oldest", most: int = 1
) -> int:
    made = await value(connection, BACKFILL, hour(first), hour(until), reprocess, order, most)
    assert isinstance(made, int)
    return made


async def expand(connection: Connection, backfill: int) -> int:
    started = await value(connection, "SELECT routines.expand_backfill(%s)", backfill)
    assert isinstance(started, int)
    return started


async def active(connection: Connection) -> list[int]:
    return [row[0] for row in await (await connection.execute(ACTIVE)).fetchall()]


async def complete(connection: Connection, backfill: int, status: str = "completed") -> list[int]:
    """Expand the backfill to its end, and end each of its runs. Returns the hours of their slots, in order."""
    for _ in range(100):
        started = await expand(connection, backfill)
        for run in await active(connection):
            await end(connection, run, status)
        if not started and await value(connection, OVER, backfill):
            break
    cursor = await connection.execute(
        "SELECT fills_slot FROM routines.trajectories WHERE backfill_id = %s ORDER BY id", [backfill]
    )
    return [(row[0] - MIDNIGHT) // timedelta(hours=1) for row in await cursor.fetchall()]


PLANS = {
    "missing": {
        7: "run before_creation", 8: "run before_creation", 9: "left completed", 10: "left failed",
        11: "left cancelled", 12: "run overlap", 13: "run missed", 14: "run missed", 15: "run missed",
        16: "left completed",
    },
}  # fmt: skip
PLANS["failed"] = {**PLANS["missing"], 10: "rerun failed", 11: "rerun cancelled"}
PLANS["all"] = {**PLANS["failed"], 9: "rerun completed", 16: "rerun completed"}


@pytest.mark.parametrize("reprocess", PLANS)
async def test_each_slot_becomes_a_run_or_another_attempt_or_is_left(
    connection: Connection, routine: int, reprocess: str
) -> None:
    await history(connection)
    assert await plan(connection, reprocess) == PLANS[reprocess]
    backwards = await plan(connection, reprocess, order="newest")
    assert list(backwards.items()) == list(reversed(PLANS[reprocess].items()))
    await idle(connection)
    made = await backfill(connection, 7, 17, reprocess)
    assert await complete(connection, made) == [slot for slot, fate in PLANS[reprocess].items() if "run" in fate]
    assert await value(connection, "SELECT array[started, left_out] FROM routines.backfills") == [
        sum("run" in fate for fate in PLANS[reprocess].values()),
        sum("left" in fate for fate in PLANS[reprocess].values()),
    ]


async def test_the_range_is_half_open_and_any_part_of_a_span(connection: Connection, routine: int) -> None:
    await history(connection)
    assert list(await plan(connection, "missing", 14, 15)) == [14]
    assert list(await plan(connection, "missing", 14, 15, "newest")) == [14]
    assert list(await plan(connection, "missing", 15, 16)) == [15]
    assert await plan(connection, "missing", 17, 20) == {}


async def test_the_newest_slot_can_be_first(connection: Connection, routine: int) -> None:
    await history(connection)
    await idle(connection)
    made = await backfill(connection, 7, 17, order="newest")
    assert await complete(connection, made) == [15, 14, 13, 12, 8, 7]


async def test_no_more_runs_are_active_than_asked(connection: Connection, routine: int) -> None:
    await history(connection)
    await idle(connection)
    made = await backfill(connection, 12, 16, most=3)
    assert [await expand(connection, made), await expand(connection, made)] == [3, 0]
    first, *_ = await active(connection)
    await end(connection, first)
    assert [await expand(connection, made), await expand(connection, made)] == [1, 0]
    assert len(await active(connection)) == 3
    assert await value(connection, "SELECT ended_at IS NULL FROM routines.backfills")
    for run in await active(connection):
        await end(connection, run)
    assert await expand(connection, made) == 0
    assert await value(connection, "SELECT end_reason FROM routines.backfills") == "expanded"


# --- the ledger -------------------------------------------------------------------------------------------------------


async def test_the_skip_stays_and_says_which_run_filled_it(connection: Connection, routine: int) -> None:
    await history(connection)
    await idle(connection)
    before = """SELECT array_agg(row(scheduled_for, last_scheduled_for, slot_count, reason)::text ORDER BY id)
                FROM routines.skips"""
    skips = await value(connection, before)
    made = await backfill(connection, 12, 13)
    await complete(connection, made)
    assert await value(connection, before) == skips
    filled = """SELECT filled_by = (SELECT id FROM routines.trajectories WHERE fills_slot = occurrences.scheduled_for)
                FROM routines.occurrences WHERE scheduled_for = %s"""
    assert await value(connection, filled, hour(12)) is True
    assert await value(connection, "SELECT count(filled_by) FROM routines.occurrences") == 1
    why = await value(connection, "SELECT routines.why('my-org/echo/morning', %s)", hour(12))
    assert "Skipped: run " in str(why)
    assert " Filled afterwards: run " in str(why)


async def test_slots_of_a_span_are_filled_one_by_one(connection: Connection, routine: int) -> None:
    await history(connection)
    await idle(connection)
    assert await complete(connection, await backfill(connection, 14, 15)) == [14]
    gaps = HOURS + "routines.gaps('my-org/echo/morning', %s, %s)"
    assert await value(connection, gaps, hour(7), hour(17)) == [12, 13, 15]
    limited = HOURS + "routines.gaps('my-org/echo/morning', %s, %s, false, 2)"
    assert await value(connection, limited, hour(13), hour(17)) == [13, 15]
    assert await plan(connection, "missing", 13, 16) == {13: "run missed", 14: "left completed", 15: "run missed"}
    assert await complete(connection, await backfill(connection, 7, 17)) == [7, 8, 12, 13, 15]
    assert await value(connection, gaps, hour(7), hour(17)) is None


async def test_a_gap_that_was_filled_in_vain_is_a_failed_one(connection: Connection, routine: int) -> None:
    await history(connection)
    await idle(connection)
    await complete(connection, await backfill(connection, 12, 13), "failed")
    gaps = "SELECT array_agg(reason ORDER BY scheduled_for) FROM routines.gaps('my-org/echo/morning', %s, %s, %s)"
    assert await value(connection, gaps, hour(12), hour(13), False) is None
    assert await value(connection, gaps, hour(12), hour(13), True) == ["failed"]
    assert await plan(connection, "missing", 12, 13) == {12: "left failed"}
    assert await plan(connection, "failed", 12, 13) == {12: "rerun failed"}
    assert await complete(connection, await backfill(connection, 12, 13, "failed")) == [12]
    assert await value(connection, gaps, hour(12), hour(13), True) is None


async def test_another_attempt_at_a_failed_slot_is_its_outcome(connection: Connection, routine: int) -> None:
    await history(connection)
    await idle(connection)
    status = """SELECT routines.status_of_slot(id, status, retried_by) FROM routines.trajectories
                WHERE scheduled_for = %s"""
    made = await backfill(connection, 10, 11, "failed")
    await expand(connection, made)
    assert await value(connection, status, hour(10)) == "pending"
    assert await complete(connection, made) == [10]
    assert await value(connection, status, hour(10)) == "completed"
    linked = """SELECT again.rerun_of = first.id AND again.retry_of = first.id AND first.retried_by = again.id
                FROM routines.trajectories AS again, routines.trajectories AS first
                WHERE again.backfill_id IS NOT NULL AND first.scheduled_for = %s"""
    assert await value(connection, linked, hour(10)) is True


async def test_a_run_of_a_backfill_is_made_as_the_tick_would_make_it_today(
    connection: Connection, routine: int
) -> None:
    await history(connection)
    await connection.execute(
        """INSERT INTO routines.task_versions (task_id, version, workflow)
           SELECT id, 2, '{"init_params": {"text": "hi", "size": 2, "day": null}}' FROM routines.tasks"""
    )
    await connection.execute("UPDATE routines.tasks SET version = 2")
    await connection.execute(
        """UPDATE routines.routines SET init_params_overrides = '{"size": 3}', timeout_seconds = 60,
                                        init_params_from_slot = '{"day": "slot.local_time"}'"""
    )
    await idle(connection)
    await expand(connection, await backfill(connection, 10, 11, "failed"))
    made = """SELECT task_version, init_params, timeout_seconds, slot_values ->> 'scheduled_for',
                     slot_values ->> 'trigger', scheduled_for
              FROM routines.trajectories WHERE trigger = 'backfill'"""
    assert await (await connection.execute(made)).fetchone() == (
        2, {"text": "hi", "size": 3, "day": "2026-05-04T10:00:00+00:00"}, 60, "2026-05-04T10:00:00Z", "backfill", None,
    )  # fmt: skip


async def test_a_missed_slot_that_was_filled_needs_no_attention(connection: Connection, routine: int) -> None:
    await fire(connection, 9)
    await connection.execute("UPDATE routines.routines SET catchup_window_seconds = 0")
    assert (await tick_at(connection, hour(57) + timedelta(minutes=59))).missed == 48
    await idle(connection)
    needs = "SELECT needs_attention FROM routines.routine_status"
    assert await value(connection, needs) is True
    await complete(connection, await backfill(connection, 10, 60, "missing", "oldest", 20))
    assert await value(connection, needs) is False


# --- slots without a row ----------------------------------------------------------------------------------------------


async def test_what_retention_has_deleted_is_repeated_only_if_all_is(connection: Connection, routine: int) -> None:
    await history(connection)
    await connection.execute("DELETE FROM routines.trajectories WHERE scheduled_for = %s", [hour(9)])
    await connection.execute("DELETE FROM routines.skips WHERE scheduled_for <= %s", [hour(12)])
    deleted = "INSERT INTO routines.retention VALUES ('trajectories', %s), ('skips', %s)"
    await connection.execute(deleted, [hour(9), hour(12)])
    assert await plan(connection, "missing", 8, 14) == {
        8: "run before_creation", 9: "left forgotten", 10: "left failed", 11: "left cancelled", 12: "left forgotten",
        13: "run missed",
    }  # fmt: skip
    assert (await plan(connection, "all", 9, 10)) == {9: "run forgotten"}
    await idle(connection)
    assert await complete(connection, await backfill(connection, 9, 13, "all")) == [9, 10, 11, 12]
    assert (await plan(connection, "missing", 9, 10)) == {9: "left completed"}


async def test_a_skip_whose_filling_run_was_deleted_is_forgotten(connection: Connection, routine: int) -> None:
    await history(connection)
    await idle(connection)
    await complete(connection, await backfill(connection, 12, 13))
    await connection.execute("DELETE FROM routines.trajectories WHERE fills_slot IS NOT NULL")
    assert await plan(connection, "failed", 12, 13) == {12: "left forgotten"}
    assert await plan(connection, "all", 12, 13) == {12: "run forgotten"}


async def test_slots_that_a_calendar_excludes_are_never_filled(connection: Connection, routine: int) -> None:
    await connection.execute(
        "INSERT INTO routines.calendars (collection_id, name, days) SELECT collection_id, 'off', "
        """'[{"from": "2026-05-03"}]' FROM routines.tasks"""
    )
    await connection.execute("""UPDATE routines.routines SET calendar = '{"exclude": ["off"]}'""")
    assert await plan(connection, "all", -2, 2) == {
        -2: "left excluded", -1: "left excluded", 0: "run before_creation", 1: "run before_creation",
    }  # fmt: skip


async def test_the_slots_of_a_current_pause_are_planned_and_filled_after_it(
    connection: Connection, routine: int
) -> None:
    await history(connection)
    await connection.execute("UPDATE routines.routines SET paused = true")
    await connection.execute("UPDATE routines.routines SET paused_at = %s, settled_until = %s", [hour(16), hour(16)])
    assert await plan(connection, "missing", 16, 19) == {16: "left completed", 17: "run paused", 18: "run paused"}
    backwards = await plan(connection, "missing", 16, 19, "newest")
    assert list(backwards.items()) == [(18, "run paused"), (17, "run paused"), (16, "left completed")]
    made = await backfill(connection, 16, 19)
    assert await expand(connection, made) == 0
    assert await value(connection, HELD) == "the routine is paused"
    await connection.execute("UPDATE routines.routines SET paused = false")
    await idle(connection)
    assert await complete(connection, made) == [17, 18]


# --- beside the schedule ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "started"), [("skip", 0), ("queue_one", 0), ("cancel_other", 0), ("allow", 1)])
async def test_a_backfill_waits_while_another_run_of_the_routine_is_active(
    connection: Connection, routine: int, policy: str, started: int
) -> None:
    await history(connection)
    most = 2 if policy == "allow" else None
    await connection.execute("UPDATE routines.routines SET overlap_policy = %s, max_concurrent = %s", [policy, most])
    await idle(connection)
    made = await backfill(connection, 12, 16)
    beside = await value(connection, RUN_NOW)
    assert isinstance(beside, int)
    assert await expand(connection, made) == started
    held = await value(connection, HELD)
    assert held == (None if started else "another run of the routine is active")
    await end(connection, beside)
    assert await expand(connection, made) == 1 - started


async def next_slot_in(connection: Connection, minutes: int) -> None:
    """Change the cadence so that the next slot is in at most so many minutes, and in more than one less."""
    await connection.execute(
        """UPDATE routines.routines
           SET minute_utc = extract(minute FROM (now() + make_interval(mins => %s)) AT TIME ZONE 'UTC')""",
        [minutes],
    )


@pytest.mark.parametrize(("usual", "held_at", "free_at"), [(10, 9, 12), (24 * 60, 29, 32)])
async def test_a_backfill_starts_no_run_that_would_hold_back_the_next_slot(
    connection: Connection, routine: int, usual: int, held_at: int, free_at: int
) -> None:
    """Runs that usually take longer leave the schedule half of the time between two slots."""
    await history(connection)
    made = await backfill(connection, 12, 16)
    await connection.execute(
        """UPDATE routines.trajectories SET started_at = created_at, ended_at = created_at + make_interval(mins => %s)
           WHERE scheduled_for = %s""",
        [usual, hour(16)],
    )
    await next_slot_in(connection, held_at)
    assert await expand(connection, made) == 0
    assert await value(connection, HELD) == "the next slot comes before a run would usually end"
    await next_slot_in(connection, free_at)
    assert await expand(connection, made) == 1


async def test_a_backfill_starts_no_run_while_a_slot_is_due(connection: Connection, routine: int) -> None:
    await history(connection)
    made = await backfill(connection, 12, 16)
    await connection.execute("UPDATE routines.routines SET next_run_at = now() - interval '1 minute'")
    assert await expand(connection, made) == 0


async def test_a_run_of_a_backfill_holds_back_a_slot_as_any_active_run(connection: Connection, routine: int) -> None:
    await history(connection)
    await idle(connection)
    made = await backfill(connection, 12, 13)
    assert await expand(connection, made) == 1
    [run] = await active(connection)
    await connection.execute("UPDATE routines.routines SET next_run_at = %s", [hour(17)])
    assert (await tick_at(connection, hour(17))).overlapped == 1
    await connection.execute("UPDATE routines.routines SET overlap_policy = 'queue_one'")
    assert (await tick_at(connection, hour(18))).fired == 1
    waiting = "SELECT status FROM routines.trajectories WHERE scheduled_for = %s"
    assert await value(connection, waiting, hour(18)) == "running"
    await end(connection, run)
    assert await value(connection, waiting, hour(18)) == "pending"


async def test_a_failed_run_of_a_backfill_is_not_retried_and_stops_no_routine(
    connection: Connection, routine: int
) -> None:
    await history(connection)
    await connection.execute(
        """UPDATE routines.routines SET retry = '{"max_attempts": 2, "until": 600000}', pause_after_failures = 1"""
    )
    await idle(connection)
    await complete(connection, await backfill(connection, 12, 13), "failed")
    assert await value(connection, "SELECT count(*) FROM routines.trajectories WHERE trigger = 'retry'") == 0
    assert await value(connection, "SELECT paused FROM routines.routines") is False


# --- its end, and its bounds ------------------------------------------------------------------------------------------


async def test_a_cancelled_backfill_starts_nothing_and_cancels_what_has_not_begun(
    connection: Connection, routine: int
) -> None:
    await history(connection)
    await idle(connection)
    made = await backfill(connection, 12, 16, most=2)
    await expand(connection, made)
    begun, waiting = await active(connection)
    await connection.execute(
        """UPDATE routines.trajectories SET status = 'running', started_at = now(), lease_expires_at = now()
           WHERE id = %s""",
        [begun],
    )
    assert await value(connection, "SELECT routines.cancel_backfill(%s)", made) is True
    assert await active(connection) == [begun]
    assert await value(connection, "SELECT error FROM routines.trajectories WHERE id = %s", waiting) == (
        "cancelled: its backfill was cancelled before the run began"
    )
    assert await expand(connection, made) == 0
    assert await value(connection, "SELECT end_reason FROM routines.backfills") == "cancelled"
    assert await value(connection, "SELECT routines.cancel_backfill(0)") is False


async def test_the_deletion_of_the_routine_ends_its_backfills(connection: Connection, routine: int) -> None:
    await history(connection)
    await idle(connection)
    made = await backfill(connection, 12, 16)
    await expand(connection, made)
    await connection.execute("DELETE FROM routines.routines")
    assert await value(connection, "SELECT end_reason FROM routines.backfills") == "routine_deleted"
    assert await active(connection) == []
    assert await expand(connection, made) == 0


async def test_a_backfill_that_cannot_be_is_rejected(connection: Connection, routine: int) -> None:
    with pytest.raises(CheckViolation, match="backfills_range_is_ordered"):
        await backfill(connection, 12, 12)
    with pytest.raises(CheckViolation, match="backfills_max_active_in_range"):
        await backfill(connection, 12, 13, most=21)
    with pytest.raises(CheckViolation, match="the range has more than 10000 slots"):
        await backfill(connection, -10_001, 9)
    await backfill(connection, -9_991, 9)
    for _ in range(19):
        await backfill(connection, 12, 13)
    with pytest.raises(CheckViolation, match="the collection has 20 open backfills"):
        await backfill(connection, 12, 13)
    await connection.execute("UPDATE routines.routines SET cadence_type = 'manual'")
    with pytest.raises(CheckViolation, match="a manual routine has no slots"):
        await backfill(connection, 12, 13)
    with pytest.raises(CheckViolation, match="there is no routine 0"):
        await connection.execute(
            """INSERT INTO routines.backfills (routine_id, from_time, until_time)
               VALUES (0, '2026-01-01Z', '2026-01-02Z')"""
        )


async def test_the_range_ends_now_at_the_latest(connection: Connection, routine: int) -> None:
    made = await value(connection, BACKFILL, hour(12), datetime(2150, 1, 1, tzinfo=UTC), "missing", "oldest", 1)
    clipped = "SELECT until_time <= now() AND made_by LIKE 'login %%' FROM routines.backfills WHERE id = %s"
    assert await value(connection, clipped, made) is True


# --- each slot once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_each_missing_slot_of_overlapping_ranges_is_run_exactly_once(
    connection: Connection, routine: int, seed: int
) -> None:
    """Backfills, ticks, run-now runs and ends of runs follow one another at random."""
    chance = random.Random(seed)
    await connection.execute("UPDATE routines.routines SET overlap_policy = %s, max_concurrent = %s",
                             chance.choice([("skip", None), ("queue_one", None), ("allow", 3)]))  # fmt: skip
    number = 9
    while number < 30:
        number += chance.choice([1, 1, 1, 4])
        if chance.random() < 0.3:
            await connection.execute(RUN_NOW)
        await tick_at(connection, hour(number))
        if chance.random() < 0.8:
            await connection.execute(END_ALL, [chance.choice(["completed", "failed"])])
    await connection.execute(END_ALL, ["completed"])
    missing = {slot for slot, fate in (await plan(connection, "missing", 0, number)).items() if fate.startswith("run")}
    covered: set[int] = set()
    await idle(connection)
    open_ones: list[tuple[int, int]] = []
    for _ in range(3):
        first = chance.randrange(0, number)
        until = chance.randrange(first + 1, number + 1)
        most = chance.choice([1, 2, 5])
        order = chance.choice(["oldest", "newest"])
        open_ones.append((await backfill(connection, first, until, "missing", order, most), most))
        covered |= missing & set(range(first, until))
    while await value(connection, "SELECT count(*) FROM routines.backfills WHERE ended_at IS NULL"):
        made, most = chance.choice(open_ones)
        await expand(connection, made)
        is_bounded = "SELECT count(*) <= %s FROM routines.trajectories WHERE backfill_id = %s AND final_status IS NULL"
        assert await value(connection, is_bounded, most, made) is True
        for run in await active(connection):
            if chance.random() < 0.6:
                await end(connection, run, chance.choice(["completed", "failed"]))
    cursor = await connection.execute(
        "SELECT fills_slot FROM routines.trajectories WHERE trigger = 'backfill' ORDER BY fills_slot"
    )
    assert [(row[0] - MIDNIGHT) // timedelta(hours=1) for row in await cursor.fetchall()] == sorted(covered)
