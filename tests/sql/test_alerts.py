"""Alert rules: which alerts are opened, what ends or suppresses them, and which notices are queued."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.errors import CheckViolation

from routines_core.db import Connection
from routines_core.db.alerts import judge
from support.alerting import (
    EVENTS,
    complete,
    end,
    fail,
    give_up_webhook,
    judge_all,
    judge_until_done,
    make_rule,
    miss,
    notices,
    run_on,
    set_late,
    start,
    states,
    told,
)
from support.rows import Database, make_routine, make_task, value
from support.stepping import running, session, tick_at, until_blocked

Act = Callable[[Connection, int], Awaitable[object]]
SOON = timedelta(minutes=30)
PAUSE = "UPDATE routines.routines SET paused = true, paused_reason = NULL, paused_note = 'holidays' WHERE id = %s"
STOP = "UPDATE routines.routines SET paused = true, paused_reason = 'paused after 3 strikes' WHERE id = %s"
RESUME = "UPDATE routines.routines SET paused = false WHERE id = %s"


@pytest.fixture
async def task(connection: Connection) -> int:
    return await make_task(connection)


@pytest.fixture
async def routine(connection: Connection, task: int) -> int:
    """Create an hourly routine whose next slot is in half an hour, and return its id."""
    return await make_routine(connection, task, datetime.now().astimezone() + SOON, hourly=True)


async def others(connection: Connection, task: int, count: int) -> list[int]:
    """Create further routines like it."""
    soon = datetime.now().astimezone() + SOON
    return [await make_routine(connection, task, soon, name=f"r{n}", hourly=True) for n in range(count)]


# --- each event, and how it ends --------------------------------------------------------------------------------------


async def be_late(connection: Connection, routine: int) -> None:
    await set_late(connection, routine)


async def be_missed(connection: Connection, routine: int) -> None:
    await miss(connection, routine, 1)


async def fail_once(connection: Connection, routine: int) -> None:
    await fail(connection, routine, 1)


async def fail_twice(connection: Connection, routine: int) -> None:
    await fail(connection, routine, 2)
    await fail(connection, routine, 1)


async def be_slow(connection: Connection, routine: int) -> None:
    for minutes in range(10, 15):
        run = await complete(connection, routine, minutes)
        await connection.execute(
            "UPDATE routines.trajectories SET ended_at = started_at + interval '30 s' WHERE id = %s", [run]
        )
    await run_on(connection, routine, 2)


async def be_stopped(connection: Connection, routine: int) -> None:
    await connection.execute(STOP.encode(), [routine])


async def lose_webhook(connection: Connection, routine: int) -> None:
    await give_up_webhook(connection, routine)


async def start_on_schedule(connection: Connection, routine: int) -> None:
    await start(connection, routine)


async def complete_a_slot(connection: Connection, routine: int) -> None:
    await complete(connection, routine)


async def end_run(connection: Connection, routine: int) -> None:
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', ended_at = now() "
        "WHERE triggered_by_routine_id = %s AND ended_at IS NULL",
        [routine],
    )


async def resume(connection: Connection, routine: int) -> None:
    await connection.execute(RESUME.encode(), [routine])


async def deliver(connection: Connection, routine: int) -> None:
    await connection.execute(
        "UPDATE routines.webhook_deliveries SET delivered_at = clock_timestamp(), give_up_reason = NULL "
        "WHERE routine_id = %s",
        [routine],
    )


HAPPENS: dict[str, tuple[Act, Act]] = {
    "late": (be_late, start_on_schedule),
    "missed": (be_missed, start_on_schedule),
    "failed": (fail_once, complete_a_slot),
    "streak": (fail_twice, complete_a_slot),
    "slow": (be_slow, end_run),
    "paused": (be_stopped, resume),
    "webhook_stopped": (lose_webhook, deliver),
}
"""How each event comes about, and how it is over."""


@pytest.fixture(params=EVENTS)
async def event(request: pytest.FixtureRequest, connection: Connection, routine: int) -> str:
    """Let each event happen, with a rule for it, and open its alert. Returns the event."""
    name: str = request.param
    await make_rule(connection, events=[name, "recovered"])
    await HAPPENS[name][0](connection, routine)
    await judge_all(connection)
    return name


async def test_it_opens_one_alert_with_one_notice_however_often_it_is_judged(
    connection: Connection, event: str
) -> None:
    assert await states(connection) == [(event, "open")]
    await judge_until_done(connection)
    assert await states(connection) == [(event, "open")]
    [notice] = await notices(connection)
    assert (notice["event"], notice["rule"], notice["collection"]) == (event, "on-call", "my-org")
    assert (notice["task"], notice["routine"], notice["recovered_at"]) == ("echo", "morning", None)
    assert notice["alert_id"] == await value(connection, "SELECT id FROM routines.alerts")
    detail = await value(connection, "SELECT detail FROM routines.alerts")
    assert notice["detail"].partition("; no ticker has recorded anything")[0] == detail
    has_slot = event not in {"paused", "webhook_stopped"}
    assert (notice["scheduled_for"] is not None) == has_slot


async def test_its_recovery_is_told_once(connection: Connection, routine: int, event: str) -> None:
    await HAPPENS[event][1](connection, routine)
    await judge_until_done(connection)
    assert await states(connection) == [(event, "recovered")]
    assert await told(connection) == [event, "recovered"]
    recovered = (await notices(connection))[1]
    assert recovered["of"] == event
    assert recovered["recovered_at"] >= recovered["opened_at"]


async def test_a_pause_by_hand_suppresses_it_and_says_so(connection: Connection, routine: int, event: str) -> None:
    await connection.execute(PAUSE.encode(), [routine])
    await judge_until_done(connection)
    assert await states(connection) == [(event, "suppressed")]
    reason = await value(connection, "SELECT suppressed_reason FROM routines.alerts")
    assert isinstance(reason, str)
    assert reason.startswith("the routine was paused by hand, since ")
    assert reason.endswith(": holidays")
    assert await told(connection) == [event]


async def test_a_deletion_of_the_routine_suppresses_it(connection: Connection, routine: int, event: str) -> None:
    await connection.execute("DELETE FROM routines.routines WHERE id = %s", [routine])
    await judge_until_done(connection)
    assert await value(connection, "SELECT suppressed_reason FROM routines.alerts") == "the routine was deleted"
    assert await told(connection) == [event]
    assert await value(connection, "SELECT routine FROM routines.alert_details") == "morning"


async def test_a_rule_that_no_longer_watches_it_suppresses_it(connection: Connection, event: str) -> None:
    other = next(each for each in ("late", "failed") if each != event)
    await connection.execute("UPDATE routines.alert_rules SET events = ARRAY[%s], streak = NULL", [other])
    await judge_until_done(connection)
    assert await value(connection, "SELECT suppressed_reason FROM routines.alerts") == "the rule no longer watches it"
    assert await told(connection) == [event]


async def test_without_recovered_in_the_rule_nobody_is_told_that_it_is_over(
    connection: Connection, routine: int, event: str
) -> None:
    await connection.execute("UPDATE routines.alert_rules SET events = array_remove(events, 'recovered')")
    await HAPPENS[event][1](connection, routine)
    await judge_until_done(connection)
    assert (await states(connection), await told(connection)) == ([(event, "recovered")], [event])


@pytest.mark.parametrize("event", sorted(set(EVENTS) - {"paused", "late"}))
async def test_while_a_person_has_paused_the_routine_it_is_suppressed_from_the_start(
    connection: Connection, routine: int, event: str
) -> None:
    await make_rule(connection, events=[event, "recovered"])
    await HAPPENS[event][0](connection, routine)
    await connection.execute(PAUSE.encode(), [routine])
    await judge_until_done(connection)
    assert await states(connection) == [(event, "suppressed")] * (event != "slow")
    assert await told(connection) == []


@pytest.mark.parametrize("event", EVENTS)
async def test_a_rule_for_other_events_opens_no_alert_for_it(connection: Connection, routine: int, event: str) -> None:
    related = {"streak": "failed", "failed": "streak"}.get(event)
    await make_rule(connection, events=[each for each in EVENTS if each not in {event, related}])
    await HAPPENS[event][0](connection, routine)
    await judge_until_done(connection)
    assert await states(connection) == []


@pytest.mark.parametrize("event", sorted(set(EVENTS) - {"late", "slow"}))
async def test_what_happened_before_the_rule_opens_no_alert(connection: Connection, routine: int, event: str) -> None:
    await make_rule(connection, name="other", events=["late"])
    await HAPPENS[event][0](connection, routine)
    await make_rule(connection, events=[event])
    await connection.execute("UPDATE routines.alert_rules SET created_at = clock_timestamp()")
    await judge_until_done(connection)
    assert await states(connection) == []


# --- late -------------------------------------------------------------------------------------------------------------


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


async def test_a_routine_that_is_stopped_again_before_anybody_looks_is_an_alert_of_its_own(
    connection: Connection, routine: int
) -> None:
    await make_rule(connection, events=["paused", "recovered"])
    await connection.execute(STOP, [routine])
    await judge(connection, "events", every_seconds=None)
    await connection.execute("UPDATE routines.alerts SET subject = 'pause:an hour ago'")
    await connection.execute(RESUME, [routine])
    await connection.execute(STOP, [routine])
    await judge(connection, "events", every_seconds=None)
    assert await states(connection) == [("paused", "recovered"), ("paused", "open")]


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


# --- other events -----------------------------------------------------------------------------------------------------


async def test_a_slot_fails_with_its_last_attempt(connection: Connection, routine: int) -> None:
    await make_rule(connection, events=["failed"])
    await connection.execute(
        """UPDATE routines.routines SET retry = '{"max_attempts": 2, "backoff": [0]}' WHERE id = %s""", [routine]
    )
    first = await fail(connection, routine, 1)
    await judge_all(connection)
    assert await states(connection) == []
    retry = await value(connection, "SELECT retried_by FROM routines.trajectories WHERE id = %s", first)
    assert isinstance(retry, int)
    await end(connection, retry, "failed", "step 'ask' failed: no response")
    await judge_all(connection)
    [notice] = await notices(connection)
    assert notice["detail"] == "2 attempts failed; the last: step 'ask' failed: no response"
    slot = await value(connection, "SELECT scheduled_for FROM routines.trajectories WHERE id = %s", first)
    assert (notice["trajectory_id"], datetime.fromisoformat(notice["scheduled_for"])) == (retry, slot)


async def test_each_slot_that_fails_is_an_alert_and_one_notice_tells_that_all_are_over(
    connection: Connection, routine: int
) -> None:
    await make_rule(connection, events=["failed", "recovered"])
    for minutes in (3, 2, 1):
        await fail(connection, routine, minutes)
        await judge_all(connection)
    await complete(connection, routine)
    await judge_until_done(connection)
    assert await states(connection) == [("failed", "recovered")] * 3
    assert await told(connection) == ["failed", "failed", "failed", "recovered"]
    assert (await notices(connection))[3]["count"] == 3


async def test_a_rerun_that_completes_ends_the_alert_of_its_slot(connection: Connection, routine: int) -> None:
    await make_rule(connection, events=["failed", "recovered"])
    run = await fail(connection, routine, 1)
    for status, state in (("failed", "open"), ("completed", "recovered")):
        await judge_until_done(connection)
        assert await states(connection) == [("failed", "open")]
        again = await value(
            connection,
            """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                                  trigger, rerun_of, init_params)
               SELECT collection_id, task_id, 1, triggered_by_routine_id, 'rerun', id, '{}'
               FROM routines.trajectories WHERE id = %s RETURNING id""",
            run,
        )
        assert isinstance(again, int)
        await end(connection, again, status)
        await judge_until_done(connection)
        assert await states(connection) == [("failed", state)]
    assert await told(connection) == ["failed", "recovered"]


async def test_a_run_now_that_fails_and_a_cancelled_slot_open_no_alert(connection: Connection, routine: int) -> None:
    await make_rule(connection)
    await end(connection, await start(connection, routine, trigger="run-now"), "failed", "no")
    await end(connection, await start(connection, routine), "cancelled")
    await judge_all(connection)
    assert await states(connection) == []


async def test_a_slot_that_could_not_start_has_failed(connection: Connection, routine: int) -> None:
    await make_rule(connection, events=["failed", "missed"])
    await miss(connection, routine, reason="failed_to_start")
    await judge_all(connection)
    assert await states(connection) == [("failed", "open")]


@pytest.mark.parametrize("reason", ["overlap", "paused", "calendar", "outside_hours", "backoff"])
async def test_a_slot_that_was_skipped_on_purpose_opens_no_alert(
    connection: Connection, routine: int, reason: str
) -> None:
    await make_rule(connection)
    await miss(connection, routine, 0.5, reason=reason)
    await judge_all(connection)
    assert await states(connection) == []


async def test_a_failure_that_is_judged_after_a_later_success_is_over_at_once(
    connection: Connection, database: Database, routine: int
) -> None:
    """Another worker may have held its event until then."""
    await make_rule(connection, events=["failed", "recovered"])
    await fail(connection, routine, 2)
    async with session(database, "other") as other, other.transaction():
        await other.execute("SELECT FROM routines.alert_events FOR UPDATE")
        await complete(connection, routine, 1)
        await judge_all(connection)
        assert await states(connection) == []
    await judge_until_done(connection)
    assert await states(connection) == [("failed", "recovered")]
    assert await told(connection) == ["failed"]


async def test_a_streak_is_told_once_and_begins_anew_after_a_success(connection: Connection, routine: int) -> None:
    await make_rule(connection, events=["streak"])
    for minutes in (9, 8, 7, 6):
        await fail(connection, routine, minutes)
        await judge_all(connection)
    assert await states(connection) == [("streak", "open")]
    await complete(connection, routine, 5)
    await fail(connection, routine, 4)
    await judge_all(connection)
    assert await states(connection) == [("streak", "recovered")]
    await fail(connection, routine, 3)
    await judge_all(connection)
    assert await states(connection) == [("streak", "recovered"), ("streak", "open")]


async def test_a_run_is_slow_after_as_long_as_the_rule_says(connection: Connection, routine: int) -> None:
    await make_rule(connection, events=["slow"], after_seconds=300)
    run = await run_on(connection, routine, 4)
    await judge_all(connection)
    assert await states(connection) == []
    await connection.execute(
        "UPDATE routines.trajectories SET started_at = started_at - interval '2 minutes' WHERE id = %s", [run]
    )
    await judge_all(connection)
    assert await states(connection) == [("slow", "open")]


async def test_a_routine_without_enough_runs_has_no_usual_duration(connection: Connection, routine: int) -> None:
    await make_rule(connection, events=["slow"])
    for minutes in range(100, 104):
        await complete(connection, routine, minutes)
    await run_on(connection, routine, 90)
    await judge_all(connection)
    assert await states(connection) == []


# --- scopes -----------------------------------------------------------------------------------------------------------


async def test_a_rule_watches_its_scope(connection: Connection, task: int, routine: int) -> None:
    [other] = await others(connection, task, 1)
    await make_rule(connection, "all", events=["failed"])
    await make_rule(connection, "of-task", events=["failed"], task_id=task)
    await make_rule(connection, "of-routine", events=["failed"], task_id=task, routine_id=routine)
    await fail(connection, other)
    await judge_all(connection)
    cursor = await connection.execute("SELECT rule FROM routines.alert_details ORDER BY 1")
    assert await cursor.fetchall() == [("all",), ("of-task",)]
    await set_late(connection, routine)
    await connection.execute("UPDATE routines.alert_rules SET events = '{late}'")
    await judge_all(connection)
    cursor = await connection.execute("SELECT rule FROM routines.alert_details WHERE event = 'late' ORDER BY 1")
    assert await cursor.fetchall() == [("all",), ("of-routine",), ("of-task",)]


async def test_a_rule_of_another_collection_watches_nothing_here(connection: Connection, routine: int) -> None:
    await connection.execute("INSERT INTO routines.collections (name) VALUES ('theirs')")
    await make_rule(connection)
    await connection.execute(
        "UPDATE routines.alert_rules SET collection_id = (SELECT id FROM routines.collections WHERE name = 'theirs')"
    )
    for happens, _ in HAPPENS.values():
        await happens(connection, routine)
        await connection.execute(RESUME.encode(), [routine])
        await connection.execute("DELETE FROM routines.trajectories")
        await connection.execute("DELETE FROM routines.skips")
    await set_late(connection, routine)
    await judge_all(connection)
    assert await states(connection) == []
    assert await value(connection, "SELECT count(*) FROM routines.alert_events") == 0


async def test_a_rule_goes_with_its_routine_and_its_task(connection: Connection, task: int, routine: int) -> None:
    [other] = await others(connection, task, 1)
    await make_rule(connection, "of-routine", task_id=task, routine_id=routine)
    await make_rule(connection, "of-task", task_id=task)
    await connection.execute("DELETE FROM routines.routines WHERE id = %s", [routine])
    assert await value(connection, "SELECT array_agg(name::text) FROM routines.alert_rules") == ["of-task"]
    await connection.execute("DELETE FROM routines.routines WHERE id = %s", [other])
    await connection.execute("DELETE FROM routines.tasks WHERE id = %s", [task])
    assert await value(connection, "SELECT count(*) FROM routines.alert_rules") == 0


# --- storms -----------------------------------------------------------------------------------------------------------


async def tick_elsewhere(connection: Connection, routine: int) -> None:
    """Let a ticker start something now."""
    await end(connection, await start(connection, routine), "cancelled")


async def test_one_notice_tells_a_whole_outage_whoever_follows(connection: Connection, task: int, routine: int) -> None:
    await make_rule(connection, events=["late", "recovered"])
    for other in await others(connection, task, 3):
        await set_late(connection, other)
    await judge_until_done(connection)
    await set_late(connection, routine)
    await judge_until_done(connection)
    assert len(await states(connection)) == 4
    [notice] = await notices(connection)
    assert (notice["count"], len(notice["alerts"])) == (3, 3)
    assert notice["detail"].startswith("3 routines are late; no ticker has recorded anything")
    assert {alert["routine"] for alert in notice["alerts"]} == {"r0", "r1", "r2"}


async def test_the_end_of_an_outage_is_told_once_all_have_started(
    connection: Connection, task: int, routine: int
) -> None:
    await make_rule(connection, events=["late", "recovered"])
    [other] = await others(connection, task, 1)
    for each in (routine, other):
        await set_late(connection, each)
    await judge_until_done(connection)
    await start(connection, routine)
    await judge_until_done(connection)
    assert await told(connection) == ["late"]
    await start(connection, other)
    await judge_until_done(connection)
    assert await told(connection) == ["late", "recovered"]
    assert (await notices(connection))[1]["count"] == 2


async def test_routines_that_are_late_while_tickers_work_are_told_one_by_one(
    connection: Connection, task: int, routine: int
) -> None:
    await make_rule(connection, events=["late"])
    for other in await others(connection, task, 3):
        await set_late(connection, other)
    await tick_elsewhere(connection, routine)
    await judge_until_done(connection)
    assert await told(connection) == ["late"] * 3


async def test_more_than_ten_at_once_are_told_by_one_notice_and_so_are_those_that_follow(
    connection: Connection, task: int, routine: int
) -> None:
    await make_rule(connection, events=["late"])
    late = await others(connection, task, 15)
    for other in late[:11]:
        await set_late(connection, other)
    await tick_elsewhere(connection, routine)
    await judge_until_done(connection)
    for other in late[11:]:
        await set_late(connection, other)
    await connection.execute("DELETE FROM routines.trajectories")
    await tick_elsewhere(connection, routine)
    await judge_until_done(connection)
    assert len(await states(connection)) == 15
    assert [notice["count"] for notice in await notices(connection)] == [11]


async def test_a_notice_lists_twenty_alerts_however_many_it_tells(connection: Connection, task: int) -> None:
    await make_rule(connection, events=["failed"])
    for other in await others(connection, task, 25):
        await fail(connection, other)
    await judge_until_done(connection)
    [notice] = await notices(connection)
    assert (notice["count"], len(notice["alerts"]), notice["detail"]) == (25, 20, "25 alerts at once")


# --- digests ----------------------------------------------------------------------------------------------------------


def at_eight(days: int, minutes: int) -> datetime:
    """Return the next 08:00 UTC, that of so many days later, or minutes before or after it."""
    now = datetime.now(UTC)
    eight = now.replace(hour=8, minute=0, second=0, microsecond=0)
    return eight + timedelta(days=days + (eight <= now), minutes=minutes)


async def test_a_digest_tells_once_a_day_what_happened_since(connection: Connection, task: int, routine: int) -> None:
    await make_rule(connection, events=["failed", "missed", "recovered"], digest_at_utc="08:00")
    await connection.execute("UPDATE routines.alert_rules SET digested_until = now()")
    [other] = await others(connection, task, 1)
    await fail(connection, routine, 2)
    await miss(connection, other)
    await judge_until_done(connection)
    await judge_all(connection, at_eight(0, -1))
    assert await told(connection) == []
    await judge_all(connection, at_eight(0, 1))
    await judge_all(connection, at_eight(0, 2))
    [digest] = await notices(connection)
    assert (digest["event"], digest["counts"], digest["count"]) == ("digest", {"failed": 1, "missed": 1}, 2)
    assert {alert["event"] for alert in digest["alerts"]} == {"failed", "missed"}
    assert datetime.fromisoformat(digest["until"]) == at_eight(0, 0)
    await complete(connection, routine)
    await judge_all(connection)
    await judge_all(connection, at_eight(1, 1))
    await judge_all(connection, at_eight(2, 1))
    assert [notice["counts"] for notice in await notices(connection)][1:] == [{"recovered": 1}]
    assert await told(connection) == ["digest", "digest"]


async def test_what_a_pause_has_suppressed_is_in_no_digest(connection: Connection, routine: int) -> None:
    await make_rule(connection, digest_at_utc="08:00")
    await set_late(connection, routine)
    await judge(connection, "late", every_seconds=None)
    await connection.execute(PAUSE.encode(), [routine])
    await judge(connection, "events", every_seconds=None)
    await judge_all(connection, at_eight(0, 1))
    assert (await states(connection), await told(connection)) == ([("late", "suppressed")], [])


# --- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["late", "events", "notices"])
async def test_a_worker_that_is_lost_in_the_middle_leaves_its_work_to_the_next(
    connection: Connection, database: Database, routine: int, what: str
) -> None:
    await make_rule(connection, events=["late", "failed"])
    await set_late(connection, routine)
    await fail(connection, routine, 5)
    if what == "notices":
        await judge(connection, "late", every_seconds=None)
        await judge(connection, "events", every_seconds=None)
    async with session(database, "lost") as lost:
        await lost.execute("BEGIN")
        judged = await judge(lost, what, every_seconds=None)  # pyright: ignore[reportArgumentType]
        assert judged.handled > 0
        # It is another worker's turn only once this one is gone.
        assert (await judge(connection, what, every_seconds=None)).handled == 0  # pyright: ignore[reportArgumentType]
        await lost.close()
    await judge_until_done(connection)
    assert sorted(await states(connection)) == [("failed", "open"), ("late", "open")]
    assert sorted(await told(connection)) == ["failed", "late"]


async def test_all_workers_together_take_one_turn_in_an_interval(connection: Connection, routine: int) -> None:
    await make_rule(connection)
    await set_late(connection, routine)
    await connection.execute("UPDATE routines.alert_rounds SET ran_at = now() - interval '4 s'")
    assert (await judge(connection, "late", every_seconds=5)).opened == 0
    await connection.execute("UPDATE routines.alert_rounds SET ran_at = now() - interval '6 s'")
    assert (await judge(connection, "late", every_seconds=5)).opened == 1
    await connection.execute("UPDATE routines.alert_rounds SET ran_at = now() + interval '1 day'")
    await connection.execute("DELETE FROM routines.alerts")
    assert (await judge(connection, "late", every_seconds=5)).opened == 1


async def test_two_workers_queue_each_notice_once_whatever_the_turns(
    connection: Connection, database: Database, task: int
) -> None:
    """As if the row of the turn were not there: alerts that one worker has locked are passed over by the other."""
    await make_rule(connection, events=["failed"])
    for other in await others(connection, task, 5):
        await fail(connection, other)
    await judge(connection, "events", every_seconds=None)
    await connection.execute(
        "CREATE OR REPLACE FUNCTION routines.take_alert_turn(of_round text, every_seconds float8, at timestamptz) "
        "RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT now()'"
    )
    async with session(database, "other") as other, other.transaction():
        assert (await judge(other, "notices", every_seconds=None)).notices == 5
        assert (await judge(connection, "notices", every_seconds=None)).notices == 0
    assert (await judge(connection, "notices", every_seconds=None)).notices == 0


async def test_a_change_of_the_rule_waits_for_the_notice_that_its_secret_signs(
    connection: Connection, database: Database, routine: int
) -> None:
    await make_rule(connection, events=["failed"])
    await fail(connection, routine)
    await judge(connection, "events", every_seconds=None)
    async with session(database, "worker") as worker, session(database, "api") as api:
        await worker.execute("BEGIN")
        await judge(worker, "notices", every_seconds=None)
        async with running(
            lambda: api.execute("UPDATE routines.alert_rules SET webhook_url = 'http://new.test/'")
        ) as changed:
            await until_blocked(connection, api)
            await worker.execute("COMMIT")
            await changed
    assert await told(connection) == ["failed"]


async def test_without_rules_nothing_is_noted_and_no_round_is_made(connection: Connection, routine: int) -> None:
    for happens, _ in HAPPENS.values():
        await happens(connection, routine)
        await connection.execute(RESUME.encode(), [routine])
        await connection.execute("DELETE FROM routines.trajectories")
        await connection.execute("DELETE FROM routines.skips")
    assert await value(connection, "SELECT count(*) FROM routines.alert_events") == 0
    before = await value(connection, "SELECT max(ran_at) FROM routines.alert_rounds")
    await judge_all(connection)
    assert await value(connection, "SELECT max(ran_at) FROM routines.alert_rounds") == before


# --- what a person types at psql --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [
        "events = '{}'",
        "events = '{recovered}'",
        "events = '{nonsense}'",
        "events = '{late,NULL}'",
        "events = '{failed}', streak = NULL, after_seconds = 5",
        "events = '{streak}', streak = NULL",
        "streak = 1",
        "after_seconds = 0",
        "webhook_url = 'ftp://a.test/'",
        "webhook_url = 'http://user:password@a.test/'",
        "digest_at_utc = '08:00:30'",
        "digest_at_utc = '24:00'",
        "name = 'On Call'",
    ],
)
async def test_a_rule_that_is_not_valid_is_refused(connection: Connection, task: int, field: str) -> None:
    await make_rule(connection)
    with pytest.raises(CheckViolation):
        await connection.execute(f"UPDATE routines.alert_rules SET {field}".encode())
