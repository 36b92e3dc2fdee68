"""Alerts of routines that are late: what is late, and until when one alert tells it."""

from datetime import datetime, timedelta

import pytest

from routines_core.db import Connection
from routines_core.db.alerts import judge
from support.alerting import (
    PAUSE,
    end,
    judge_all,
    judge_until_done,
    make_rule,
    miss,
    notices,
    others,
    set_late,
    start,
    states,
    told,
)
from support.rows import value
from support.stepping import tick_at


async def test_only_a_start_on_schedule_clears_late(connection: Connection, routine: int) -> None:
    await make_rule(connection)
    await set_late(connection, routine)
    await judge_all(connection)
    await end(connection, await start(connection, routine, trigger="run-now"))
    await judge_all(connection)
    assert await states(connection) == [("late", "open")]
    await miss(connection, routine, 2, reason="overlap")
    await judge_all(connection)
    assert await states(connection) == [("late", "open")]
    await start(connection, routine)
    await judge_all(connection)
    assert await states(connection) == [("late", "recovered")]


@pytest.mark.parametrize(("minutes", "is_late"), [(0.9, False), (1.1, True)])
async def test_a_slot_is_late_once_it_has_been_due_for_a_minute(
    connection: Connection, routine: int, minutes: float, *, is_late: bool
) -> None:
    await make_rule(connection)
    await set_late(connection, routine, minutes)
    await judge_all(connection)
    assert await states(connection) == [("late", "open")] * is_late


@pytest.mark.parametrize(("minutes", "is_late"), [(4.9, False), (5.1, True)])
async def test_or_for_as_long_as_the_rule_says(
    connection: Connection, routine: int, minutes: float, *, is_late: bool
) -> None:
    await make_rule(connection, after_seconds=300)
    await set_late(connection, routine, minutes)
    await judge_all(connection)
    assert await states(connection) == [("late", "open")] * is_late


async def this_hour(connection: Connection) -> datetime:
    now = await value(connection, "SELECT date_trunc('hour', now())")
    assert isinstance(now, datetime)
    return now


async def set_due(connection: Connection, routine: int, slot: datetime) -> None:
    """Make this the first slot of the routine without an outcome."""
    await connection.execute(
        "UPDATE routines.routines SET next_run_at = %s, settled_until = %s, created_at = %s WHERE id = %s",
        [slot, slot - timedelta(minutes=1), slot - timedelta(days=1), routine],
    )


async def test_a_slot_that_started_late_between_two_rounds_is_told_by_one_notice(
    connection: Connection, routine: int
) -> None:
    await make_rule(connection)
    now = await this_hour(connection)
    await set_due(connection, routine, now)
    assert (await tick_at(connection, now + timedelta(seconds=75))).fired == 1
    await judge_until_done(connection)
    assert await states(connection) == [("late", "recovered")]
    [notice] = await notices(connection)
    assert notice["detail"] == "it started 75 seconds after it was due"
    assert notice["recovered_at"] is not None


async def test_a_slot_that_starts_in_time_opens_no_alert(connection: Connection, routine: int) -> None:
    await make_rule(connection)
    now = await this_hour(connection)
    await set_due(connection, routine, now)
    assert (await tick_at(connection, now + timedelta(seconds=59))).fired == 1
    await judge_until_done(connection)
    assert await states(connection) == []


async def test_the_slots_of_an_outage_are_one_alert_until_the_routine_starts_again(
    connection: Connection, routine: int
) -> None:
    await make_rule(connection, events=["late", "recovered"])
    now = await this_hour(connection)
    await set_due(connection, routine, now - timedelta(hours=5))
    await judge_all(connection)
    assert (await tick_at(connection, now + timedelta(minutes=2))).fired == 1
    await judge_until_done(connection)
    assert await states(connection) == [("late", "recovered")]
    assert await told(connection) == ["late", "recovered"]
    assert (await notices(connection))[0]["count"] == 1


async def test_a_slot_that_is_skipped_late_after_the_outage_is_an_alert_of_its_own(
    connection: Connection, routine: int
) -> None:
    """Although the alert of the outage is still open when it is judged."""
    await make_rule(connection, events=["late", "recovered"])
    now = await this_hour(connection)
    await set_due(connection, routine, now - timedelta(hours=5))
    await judge(connection, "late", every_seconds=None)
    assert (await tick_at(connection, now - timedelta(minutes=59))).fired == 1
    assert (await tick_at(connection, now + timedelta(minutes=5))).overlapped == 1
    await judge(connection, "events", every_seconds=None)
    assert await states(connection) == [("late", "recovered"), ("late", "open")]
    assert await value(connection, "SELECT max(scheduled_for) FROM routines.alerts") == now


async def test_a_late_slot_that_takes_over_a_waiting_run_is_an_alert_of_its_own(
    connection: Connection, routine: int
) -> None:
    await make_rule(connection, events=["late", "recovered"])
    await connection.execute("UPDATE routines.routines SET overlap_policy = 'queue_one' WHERE id = %s", [routine])
    now = await this_hour(connection)
    await set_due(connection, routine, now - timedelta(hours=2))
    assert (await tick_at(connection, now - timedelta(hours=2))).fired == 1
    assert (await tick_at(connection, now - timedelta(minutes=55))).fired == 1
    assert (await tick_at(connection, now + timedelta(minutes=5))).coalesced == 1
    await judge_until_done(connection)
    assert await states(connection) == [("late", "recovered"), ("late", "recovered")]
    assert await value(connection, "SELECT max(scheduled_for) FROM routines.alerts") == now


async def test_a_pause_that_is_over_and_that_no_ticker_ended_makes_its_routine_late(
    connection: Connection, routine: int
) -> None:
    await make_rule(connection)
    await connection.execute(
        "UPDATE routines.routines SET paused = true, paused_until = now() + interval '1 hour' WHERE id = %s", [routine]
    )
    await judge_until_done(connection)
    await judge_all(connection, await value(connection, "SELECT now() + interval '1 hour'"))  # pyright: ignore[reportArgumentType]
    assert await states(connection) == []
    await judge_all(connection, await value(connection, "SELECT now() + interval '3 hours'"))  # pyright: ignore[reportArgumentType]
    assert await states(connection) == [("late", "open")]


async def test_a_paused_routine_and_one_without_slots_are_never_late(connection: Connection, task: int) -> None:
    await make_rule(connection)
    [paused, manual] = await others(connection, task, 2)
    await connection.execute(PAUSE.encode(), [paused])
    await connection.execute("UPDATE routines.routines SET cadence_type = 'manual' WHERE id = %s", [manual])
    await judge_all(connection, datetime.now().astimezone() + timedelta(days=30))
    assert await states(connection) == []
