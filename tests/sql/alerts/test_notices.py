"""Notices of alerts: storms, digests, and workers that queue them at the same time."""

from datetime import UTC, datetime, timedelta

import pytest

from routines_core.db import Connection
from routines_core.db.alerts import judge
from support.alerting import (
    PAUSE,
    complete,
    end,
    fail,
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
from support.rows import Database
from support.stepping import running, session, until_blocked

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
