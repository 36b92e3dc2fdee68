"""What a calendar feed shows, and when it ends."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from routines_core.db import Connection
from routines_core.db import feeds as db
from routines_core.db.peppers import Peppers
from routines_core.errors import NotFoundError
from support.rows import KEYRING, Database, at, make_key, make_routine, make_task, value
from support.stepping import running, session, until_blocked

NOW = at("2026-05-06 10:17")
DAY = timedelta(days=1)


async def key_of(connection: Connection, collection: str = "my-org") -> int:
    return int((await make_key(connection, collection)).split("_")[1])


async def make_feed(connection: Connection, task: str | None = None, routine: str | None = None) -> int:
    """Create a feed of the collection `my-org` and return its id."""
    made = await db.create_feed(
        connection, Peppers(KEYRING), key_id=await key_of(connection), task=task, routine=routine
    )
    return made.id


async def add(connection: Connection, task: int, name: str, cadence: str, **columns: Any) -> None:
    """Add a routine whose next slot is computed from NOW."""
    fields = {"cadence_type": cadence, **columns}
    await connection.execute(
        f"""INSERT INTO routines.routines (collection_id, task_id, name, {", ".join(fields)})
            SELECT collection_id, id, %s, {", ".join(["%s"] * len(fields))}
            FROM routines.tasks WHERE id = %s""".encode(),
        [name, *fields.values(), task],
    )
    await connection.execute(
        """UPDATE routines.routines SET next_run_at = routines.next_fire(routines.cadence_of(routines), %s)
           WHERE name = %s AND next_run_at IS NOT NULL""",
        [NOW, name],
    )


async def shown(connection: Connection, feed: int, **limits: int) -> dict[str, list[datetime]]:
    """Return the slots that the feed shows, by routine."""
    return {each.routine: each.slots for each in await db.feed_slots(connection, feed, now=NOW, **limits)}


def daily(hour: int, days: int) -> list[datetime]:
    """Return so many slots of a daily time, from tomorrow on if it was over today."""
    first = NOW.replace(hour=hour, minute=0)
    return [first + (number + (first < NOW)) * DAY for number in range(days)]


async def test_a_feed_shows_the_slots_of_its_days_in_the_time_of_their_routines(connection: Connection) -> None:
    task = await make_task(connection)
    await add(connection, task, "nine", "daily", hour_utc=9)
    await add(connection, task, "noon", "daily", hour_utc=12)
    await add(connection, task, "button", "manual")
    feed = await make_feed(connection)
    assert await shown(connection, feed, days=3) == {"echo/nine": daily(9, 3), "echo/noon": daily(12, 3)}
    assert len((await shown(connection, feed))["echo/nine"]) == 90


async def test_a_slot_that_was_set_by_hand_comes_first(connection: Connection) -> None:
    task = await make_task(connection)
    by_hand = NOW + timedelta(hours=30)
    await make_routine(connection, task, by_hand)
    feed = await make_feed(connection)
    assert await shown(connection, feed, days=3) == {
        "echo/morning": [by_hand, NOW.replace(hour=9, minute=0) + 2 * DAY, NOW.replace(hour=9, minute=0) + 3 * DAY]
    }


@pytest.mark.parametrize("days", [1, 20, 40])
@pytest.mark.parametrize("by_hand", [None, -3, 3])
async def test_slots_that_a_routine_keeps_and_slots_that_are_computed_are_the_same(
    connection: Connection, days: int, by_hand: int | None
) -> None:
    """A cron routine keeps its next 32 slots."""
    task = await make_task(connection)
    await add(connection, task, "cron", "cron", expression='"15,45 2 * * *"', timezone="Europe/Berlin")
    if by_hand:
        await connection.execute("UPDATE routines.routines SET next_run_at = now() + %s", [timedelta(days=by_hand)])
    feed = await make_feed(connection)
    now = await value(connection, "SELECT now()")
    assert isinstance(now, datetime)

    async def found() -> list[list[datetime]]:
        return [each.slots for each in await db.feed_slots(connection, feed, days=days, now=now)]

    kept = await found()
    await connection.execute("UPDATE routines.routines SET upcoming = NULL")
    assert kept == await found()
    assert kept or by_hand == 3


async def test_a_spread_moves_no_event(connection: Connection) -> None:
    task = await make_task(connection)
    await add(connection, task, "nine", "daily", hour_utc=9)
    feed = await make_feed(connection)
    await connection.execute("UPDATE routines.routines SET spread_seconds = 3600")
    moved = "SELECT next_run_at <> routines.without_spread(routines, next_run_at) FROM routines.routines"
    assert await value(connection, moved) is True
    assert await shown(connection, feed, days=3) == {"echo/nine": daily(9, 3)}


async def test_a_paused_routine_has_only_the_slots_after_its_pause(connection: Connection) -> None:
    task = await make_task(connection)
    for name in ("paused", "until"):
        await add(connection, task, name, "daily", hour_utc=12)
    await connection.execute("UPDATE routines.routines SET paused = true WHERE name = 'paused'")
    await connection.execute(
        "UPDATE routines.routines SET paused = true, paused_until = '2127-05-07 13:00Z' WHERE name = 'until'"
    )
    feed = await make_feed(connection)
    assert await shown(connection, feed) == {}
    later = at("2127-05-06 10:17")
    found = await db.feed_slots(connection, feed, days=3, now=later)
    assert [(each.routine, each.slots) for each in found] == [("echo/until", [at("2127-05-08 12:00")])]


async def test_a_feed_of_a_task_or_a_routine_shows_nothing_else(connection: Connection) -> None:
    task = await make_task(connection)
    await connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (1, 'other')")
    other = await value(connection, "SELECT id FROM routines.tasks WHERE name = 'other'")
    assert isinstance(other, int)
    await connection.execute(
        "INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (%s, 1, '{}')", [other]
    )
    for of, name in ((task, "a"), (task, "b"), (other, "a")):
        await add(connection, of, name, "daily", hour_utc=9)
    assert list(await shown(connection, await make_feed(connection))) == ["echo/a", "echo/b", "other/a"]
    assert list(await shown(connection, await make_feed(connection, "echo"))) == ["echo/a", "echo/b"]
    assert list(await shown(connection, await make_feed(connection, "other", "a"))) == ["other/a"]


async def test_the_cadence_and_the_usual_duration_come_with_a_routine(connection: Connection) -> None:
    task = await make_task(connection)
    await add(connection, task, "nine", "daily", hour_utc=9)
    await add(connection, task, "cron", "cron", expression='"0 9 * * *"', timezone="Europe/Berlin")
    feed = await make_feed(connection)
    cron, nine = await db.feed_slots(connection, feed, now=NOW)
    assert (nine.cadence, nine.seconds) == ("daily at 09:00 (UTC)", None)
    assert cron.cadence == "cron 0 9 * * * in Europe/Berlin"
    await connection.execute(
        """INSERT INTO routines.trajectories
               (collection_id, task_id, task_version, trigger, init_params, status, started_at, ended_at)
           SELECT 1, %s, 1, 'api', '{}', 'completed', now() - interval '1 hour', now()""",
        [task],
    )
    assert [each.seconds for each in await db.feed_slots(connection, feed, now=NOW)] == [3600, 3600]


# --- how much of it ---------------------------------------------------------------------------------------------------


async def test_with_too_many_slots_a_feed_has_all_before_some_time_and_none_after_it(connection: Connection) -> None:
    task = await make_task(connection)
    await add(connection, task, "often", "hourly", minute_utc=30)
    await add(connection, task, "nine", "daily", hour_utc=9)
    feed = await make_feed(connection)
    whole = await shown(connection, feed)
    for most in (1, 7, 24, 25, 26, 100, 2000):
        found = await db.feed_slots(connection, feed, now=NOW, slot_limit=most)
        [end] = {each.complete_until for each in found}
        assert end
        assert sum(len(each.slots) for each in found) == most
        assert {each.routine: each.slots for each in found} == {
            routine: [slot for slot in slots if slot < end] for routine, slots in whole.items() if slots[0] < end
        }
    assert {each.complete_until for each in await db.feed_slots(connection, feed, now=NOW)} == {None}


async def test_slots_at_the_same_time_are_shown_together_or_not_at_all(connection: Connection) -> None:
    task = await make_task(connection)
    for number in range(4):
        await add(connection, task, f"r{number}", "daily", hour_utc=9)
    found = await db.feed_slots(connection, await make_feed(connection), now=NOW, slot_limit=10)
    assert [len(each.slots) for each in found] == [2, 2, 2, 2]
    assert {each.complete_until for each in found} == {daily(9, 3)[2]}


async def test_with_too_many_routines_a_feed_ends_before_the_first_slot_of_those_left_out(
    connection: Connection,
) -> None:
    task = await make_task(connection)
    for hour in (12, 15, 18, 21):
        await add(connection, task, f"r{hour}", "daily", hour_utc=hour)
    found = await db.feed_slots(connection, await make_feed(connection), now=NOW, routine_limit=2)
    assert [(each.routine, each.slots) for each in found] == [("echo/r12", daily(12, 1)), ("echo/r15", daily(15, 1))]
    assert {each.complete_until for each in found} == {daily(18, 1)[0]}


async def test_of_too_many_routines_that_begin_together_a_feed_shows_some(connection: Connection) -> None:
    task = await make_task(connection)
    for number in range(4):
        await add(connection, task, f"r{number}", "daily", hour_utc=12)
    found = await db.feed_slots(connection, await make_feed(connection), now=NOW, routine_limit=3)
    assert [(each.routine, each.slots) for each in found] == [(f"echo/r{number}", daily(12, 1)) for number in range(3)]
    assert {each.complete_until for each in found} == {daily(12, 1)[0]}


async def test_routines_that_are_about_to_fire_do_not_end_a_feed(connection: Connection) -> None:
    task = await make_task(connection)
    for hour in (12, 15, 18):
        await add(connection, task, f"r{hour}", "daily", hour_utc=hour)
    await connection.execute("UPDATE routines.routines SET next_run_at = %s", [NOW - timedelta(seconds=1)])
    found = await db.feed_slots(connection, await make_feed(connection), now=NOW, routine_limit=2)
    assert [(each.routine, each.slots) for each in found] == [("echo/r12", daily(12, 1)), ("echo/r15", daily(15, 1))]


async def test_a_feed_of_routines_that_fire_every_minute_stays_cheap(connection: Connection) -> None:
    """A thousand of them have 130 million slots in 90 days."""
    task = await make_task(connection)
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, every_minutes, anchor)
           SELECT 1, %s, 'r' || n, 'interval', 1, '2026-01-01Z'::timestamptz + n * interval '1 second'
           FROM generate_series(1, 1000) AS n""",
        [task],
    )
    feed = await make_feed(connection)
    await connection.execute("SET statement_timeout = '5s'")
    found = await db.feed_slots(connection, feed)
    assert 4000 <= sum(len(each.slots) for each in found) <= 5000


# --- its end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("DELETE FROM routines.routines WHERE name = 'morning'", 2),
        ("TRUNCATE routines.routines", 2),
        ("DELETE FROM routines.routines; DELETE FROM routines.tasks", 1),
        ("UPDATE routines.routines SET name = 'evening'", 3),
    ],
    ids=["routine", "all routines", "task", "rename"],
)
async def test_a_feed_ends_with_its_task_or_routine(connection: Connection, change: str, left: int) -> None:
    await make_routine(connection, await make_task(connection), NOW)
    for scope in ((), ("echo",), ("echo", "morning")):
        await make_feed(connection, *scope)
    await connection.execute(change.encode())
    assert await value(connection, "SELECT count(*) FROM routines.feeds") == left


async def test_a_feed_of_a_routine_that_is_being_deleted_is_not_created(
    connection: Connection, database: Database
) -> None:
    await make_routine(connection, await make_task(connection), NOW)
    key = await key_of(connection)
    async with session(database, "deletes") as deletes, session(database, "creates") as creates:
        await deletes.execute("BEGIN")
        await deletes.execute("DELETE FROM routines.routines")

        async def create() -> object:
            return await db.create_feed(creates, Peppers(KEYRING), key_id=key, task="echo", routine="morning")

        async with running(create) as waiting:
            await until_blocked(connection, creates)
            await deletes.execute("COMMIT")
            with pytest.raises(NotFoundError):
                await waiting
    assert await value(connection, "SELECT count(*) FROM routines.feeds") == 0


async def test_a_revoked_feed_shows_nothing_from_that_moment_on(connection: Connection) -> None:
    await make_task(connection)
    feed, key = await make_feed(connection), await key_of(connection)
    other = await key_of(connection, "other")
    with pytest.raises(NotFoundError):
        await db.delete_feed(connection, key_id=other, feed_id=feed)
    assert await db.feed_slots(connection, feed) == []
    await db.delete_feed(connection, key_id=key, feed_id=feed)
    with pytest.raises(NotFoundError):
        await db.feed_slots(connection, feed)


async def test_a_bucket_holds_so_many_tokens_and_fills_over_time(connection: Connection) -> None:
    await make_task(connection)
    feed = await make_feed(connection)
    takes = {"wanted": 1, "rate": 0.001, "burst": 3}
    assert [await db.take_feed_tokens(connection, feed, **takes) for _ in range(4)] == [True, True, True, False]
    await connection.execute("UPDATE routines.feeds SET filled_at = filled_at - interval '1001 s'")
    assert [await db.take_feed_tokens(connection, feed, **takes) for _ in range(2)] == [True, False]
    await connection.execute("UPDATE routines.feeds SET filled_at = filled_at - interval '1 year'")
    assert [await db.take_feed_tokens(connection, feed, **takes) for _ in range(4)] == [True, True, True, False]
