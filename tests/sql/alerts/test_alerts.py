"""Alert rules: which alerts are opened, what ends or suppresses them, and which notices are queued."""

from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest
from psycopg.errors import CheckViolation

from routines_core.db import Connection
from routines_core.db.alerts import judge
from support.alerting import (
    EVENTS,
    PAUSE,
    RESUME,
    STOP,
    complete,
    end,
    fail,
    give_up_webhook,
    judge_all,
    judge_until_done,
    make_rule,
    miss,
    notices,
    others,
    run_on,
    set_late,
    start,
    states,
    told,
)
from support.rows import Database, value
from support.stepping import session

Act = Callable[[Connection, int], Awaitable[object]]


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
