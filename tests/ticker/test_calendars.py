"""Slots that a calendar or active hours exclude: each has its outcome, and moves only where the routine says so."""

from datetime import datetime
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from routines_core.db import Connection
from routines_core.db.ledger import next_slots, why
from routines_core.db.tick import Tick, tick
from support.clocks import move_clock, moved_clock
from support.rows import CATCHUP, Database, at, make_key, make_task, value

CADENCE = "routines.cadence_of(routines)"
CHRISTMAS = {"from": "2026-12-24", "to": "2026-12-26", "label": "Christmas"}


async def make(connection: Connection, since: datetime, days: list[dict[str, str]], **fields: Any) -> None:
    """Create a calendar and the routine 1, as if it had been made at the time `since`."""
    await make_task(connection)
    await connection.execute(
        "INSERT INTO routines.calendars (collection_id, name, days) VALUES (1, 'holidays', %s)", [Jsonb(days)]
    )
    columns = {"cadence_type": fields.pop("type"), **fields}
    names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
    insert = f"INSERT INTO routines.routines (collection_id, task_id, name, {names}) VALUES (1, 1, 'r', {places})"
    values = [Jsonb(each) if isinstance(each, dict) else each for each in columns.values()]
    await connection.execute(insert.encode(), values)
    await connection.execute(
        f"""UPDATE routines.routines SET created_at = %(since)s, upcoming = routines.slot_window({CADENCE}, %(since)s),
                                        next_run_at = routines.next_fire({CADENCE}, %(since)s)""".encode(),
        {"since": since},
    )


def rule(on_excluded: str = "skip") -> dict[str, Any]:
    return {"exclude": ["holidays"], "on_excluded": on_excluded}


async def tick_at(connection: Connection, text: str) -> Tick:
    return await tick(connection, batch_size=10, now=at(text), **CATCHUP)


async def run_until(connection: Connection, text: str, most: int = 100) -> None:
    """Tick on time at each slot up to this one, ending each run before the next."""
    for _ in range(most):
        due: Any = await value(connection, "SELECT next_run_at FROM routines.routines")
        if due is None or due > at(text):
            return
        await tick(connection, batch_size=10, now=due, **CATCHUP)
        await finish(connection)
    raise AssertionError("the routine is due again and again")


async def finish(connection: Connection) -> None:
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"
    )


async def outcomes(connection: Connection) -> list[tuple[str, int, str]]:
    """Return (slot, number of slots, `started` or the reason with its detail) of the ledger, oldest first."""
    cursor = await connection.execute(
        """SELECT to_char(scheduled_for AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), slot_count,
                  coalesce(reason || coalesce(': ' || detail, ''), outcome)
           FROM routines.occurrences ORDER BY scheduled_for"""
    )
    return await cursor.fetchall()


async def next_run_at(connection: Connection) -> Any:
    return await value(connection, "SELECT next_run_at FROM routines.routines")


async def test_an_excluded_slot_is_skipped_with_the_label_of_its_day(connection: Connection) -> None:
    await make(connection, at("2026-12-23 00:00"), [CHRISTMAS], type="daily", hour_utc=9, calendar=rule())
    await run_until(connection, "2026-12-27 12:00")
    assert await outcomes(connection) == [
        ("12-23 09:00", 1, "started"),
        ("12-24 09:00", 1, "calendar: Christmas"),
        ("12-25 09:00", 1, "calendar: Christmas"),
        ("12-26 09:00", 1, "calendar: Christmas"),
        ("12-27 09:00", 1, "started"),
    ]
    done = await tick_at(connection, "2026-12-28 09:00")
    assert (done.claimed, done.fired, done.advanced) == (1, 1, 1)


async def test_the_tick_counts_what_it_excluded(connection: Connection) -> None:
    await make(connection, at("2026-12-24 00:00"), [CHRISTMAS], type="daily", hour_utc=9, calendar=rule())
    done = await tick_at(connection, "2026-12-24 09:00")
    assert (done.claimed, done.fired, done.advanced) == (1, 0, 1)
    assert (done.excluded_by_calendar, done.outside_hours, done.missed, done.overlapped) == (1, 0, 0, 0)


@pytest.mark.parametrize(("on_excluded", "moved_to"), [("next_day", "12-27"), ("next_business_day", "12-28")])
async def test_an_excluded_slot_moves_to_a_later_day(connection: Connection, on_excluded: str, moved_to: str) -> None:
    await make(
        connection, at("2026-12-24 00:00"), [CHRISTMAS], type="weekly", day_of_week="thu", hour_utc=9,
        calendar=rule(on_excluded),
    )  # fmt: skip
    await tick_at(connection, "2026-12-24 09:00")
    assert await next_run_at(connection) == at(f"2026-{moved_to} 09:00")
    await run_until(connection, "2026-12-31 12:00")
    assert await outcomes(connection) == [
        ("12-24 09:00", 1, f"calendar: Christmas; moved to 2026-{moved_to}T09:00:00Z"),
        (f"{moved_to} 09:00", 1, "started"),
        ("12-31 09:00", 1, "started"),
    ]
    assert await value(connection, "SELECT moved_to FROM routines.routines") is None


async def test_a_slot_does_not_move_past_the_next_slot(connection: Connection) -> None:
    await make(
        connection, at("2026-12-23 00:00"), [CHRISTMAS], type="daily", hour_utc=9, calendar=rule("next_business_day")
    )
    await run_until(connection, "2026-12-28 12:00")
    assert await outcomes(connection) == [
        ("12-23 09:00", 1, "started"),
        ("12-24 09:00", 1, "calendar: Christmas; not moved, since the next slot is 2026-12-25T09:00:00Z"),
        ("12-25 09:00", 1, "calendar: Christmas; not moved, since the next slot is 2026-12-26T09:00:00Z"),
        ("12-26 09:00", 1, "calendar: Christmas; not moved, since the next slot is 2026-12-27T09:00:00Z"),
        ("12-27 09:00", 1, "started"),
        ("12-28 09:00", 1, "started"),
    ]


async def test_a_moved_slot_keeps_the_local_time_when_clocks_change(connection: Connection) -> None:
    days = [{"from": "2026-03-27", "to": "2026-03-28"}]
    await make(
        connection, at("2026-03-27 00:00"), days, type="cron", expression=Jsonb("30 2 27 * *"),
        timezone="Europe/Berlin", calendar=rule("next_day"),
    )  # fmt: skip
    await tick_at(connection, "2026-03-27 01:30")
    # 02:30 does not exist on the 29th; the first minute after the gap is 03:00, as for a slot of the cadence.
    assert await next_run_at(connection) == at("2026-03-29 01:00")


async def test_a_moved_slot_that_a_changed_calendar_excludes_moves_again(connection: Connection) -> None:
    await make(connection, at("2026-12-24 00:00"), [CHRISTMAS], type="once", once_at=at("2026-12-24 09:00"),
               calendar=rule("next_day"))  # fmt: skip
    await tick_at(connection, "2026-12-24 09:00")
    await connection.execute(
        """UPDATE routines.calendars SET days = '[{"from": "2026-12-27", "label": "inventory"}]'"""
    )
    await run_until(connection, "2027-01-31 00:00")
    assert await outcomes(connection) == [
        ("12-24 09:00", 1, "calendar: Christmas; moved to 2026-12-27T09:00:00Z"),
        ("12-27 09:00", 1, "calendar: inventory; moved to 2026-12-28T09:00:00Z"),
        ("12-28 09:00", 1, "started"),
    ]


async def test_a_slot_does_not_move_if_every_day_of_a_year_is_excluded_or_the_routine_ends(
    connection: Connection,
) -> None:
    days = [{"from": "2026-12-24", "to": "2027-12-31", "label": "closed"}]
    await make(connection, at("2026-12-24 00:00"), days, type="once", once_at=at("2026-12-24 09:00"),
               calendar=rule("next_day"))  # fmt: skip
    await run_until(connection, "2030-01-01 00:00")
    assert await outcomes(connection) == [
        ("12-24 09:00", 1, "calendar: closed; not moved, since no later time is free")
    ]
    assert await next_run_at(connection) is None


async def test_outside_active_hours_slots_are_skipped_and_the_detail_names_local_time_and_windows(
    connection: Connection,
) -> None:
    await make(
        connection, at("2026-05-08 15:30"), [], type="hourly",
        active_hours={"timezone": "Europe/Berlin", "windows": ["mon-fri 08:00-18:00"]},
    )  # fmt: skip
    await tick_at(connection, "2026-05-08 16:00")
    assert await outcomes(connection) == [
        ("05-08 16:00", 1, "outside_hours: Fri 18:00 in Europe/Berlin is outside mon-fri 08:00-18:00")
    ]
    await run_until(connection, "2026-05-11 06:30", most=70)
    assert await value(connection, "SELECT array_agg(scheduled_for) FROM routines.trajectories") == [
        at("2026-05-11 06:00")
    ]
    assert await value(connection, "SELECT sum(slot_count) FROM routines.skips WHERE reason = 'outside_hours'") == 62


async def test_a_slot_outside_active_hours_is_deferred_to_the_next_window(connection: Connection) -> None:
    await make(
        connection, at("2026-05-08 00:00"), [{"from": "2026-05-11", "label": "inventory"}], type="daily", hour_utc=20,
        calendar=rule(), active_hours={"windows": ["mon-fri 08:00-18:00"], "outside": "defer"},
    )  # fmt: skip
    await run_until(connection, "2026-05-12 12:00")
    assert await outcomes(connection) == [
        (
            "05-08 20:00",
            1,
            (
                "outside_hours: Fri 20:00 in UTC is outside mon-fri 08:00-18:00; not moved, since the next slot is "
                "2026-05-09T20:00:00Z"
            ),
        ),
        (
            "05-09 20:00",
            1,
            (
                "outside_hours: Sat 20:00 in UTC is outside mon-fri 08:00-18:00; not moved, since the next slot is "
                "2026-05-10T20:00:00Z"
            ),
        ),
        (
            "05-10 20:00",
            1,
            (
                "outside_hours: Sun 20:00 in UTC is outside mon-fri 08:00-18:00; not moved, since the next slot is "
                "2026-05-11T20:00:00Z"
            ),
        ),
        ("05-11 20:00", 1, "calendar: inventory"),
    ]
    await run_until(connection, "2026-05-13 12:00")
    assert (await outcomes(connection))[4:] == [
        (
            "05-12 20:00",
            1,
            "outside_hours: Tue 20:00 in UTC is outside mon-fri 08:00-18:00; moved to 2026-05-13T08:00:00Z",
        ),
        ("05-13 08:00", 1, "started"),
    ]


async def test_a_slot_that_moves_to_a_time_outside_active_hours_goes_on_as_they_say(connection: Connection) -> None:
    fields = {"type": "once", "once_at": at("2026-12-24 20:00"), "calendar": rule("next_day")}
    hours = {"windows": ["mon-fri 08:00-18:00", "thu 18:00-24:00"], "outside": "defer"}
    await make(connection, at("2026-12-24 00:00"), [CHRISTMAS], **fields, active_hours=hours)
    await tick_at(connection, "2026-12-24 20:00")
    assert await next_run_at(connection) == at("2026-12-28 08:00")
    await connection.execute(
        """UPDATE routines.routines SET active_hours = active_hours || '{"outside": "skip"}', settled_until = NULL,
                                        next_run_at = once_at, moved_to = NULL"""
    )
    await connection.execute("TRUNCATE routines.skips")
    await tick_at(connection, "2026-12-24 20:00")
    assert await next_run_at(connection) == at("2026-12-31 20:00")


async def test_after_an_outage_excluded_slots_are_told_from_missed_ones(connection: Connection) -> None:
    await make(
        connection, at("2026-12-23 12:00"), [CHRISTMAS], type="hourly", calendar=rule(),
        active_hours={"windows": ["mon-sun 08:00-18:00"]},
    )  # fmt: skip
    await tick_at(connection, "2026-12-27 10:10")
    outside = "in UTC is outside mon-sun 08:00-18:00"
    assert await outcomes(connection) == [
        ("12-23 13:00", 5, "missed"),
        ("12-23 18:00", 6, f"outside_hours: Wed 18:00 to Wed 23:00 {outside}"),
        ("12-24 00:00", 24, "calendar: Christmas"),
        ("12-25 00:00", 24, "calendar: Christmas"),
        ("12-26 00:00", 24, "calendar: Christmas"),
        ("12-27 00:00", 8, f"outside_hours: Sun 00:00 to Sun 07:00 {outside}"),
        ("12-27 08:00", 2, "missed"),
        ("12-27 10:00", 1, "started"),
    ]


async def test_catch_up_fires_the_newest_slot_that_is_not_excluded_if_it_is_in_time(connection: Connection) -> None:
    hours = {"windows": ["mon-sun 08:00-18:00"]}
    await make(connection, at("2026-05-04 15:30"), [], type="hourly", active_hours=hours, catchup_window_seconds=7200)
    await tick_at(connection, "2026-05-04 18:30")
    detail = "outside_hours: Mon 18:00 in UTC is outside mon-sun 08:00-18:00"
    assert await outcomes(connection) == [
        ("05-04 16:00", 1, "missed"),
        ("05-04 17:00", 1, "started"),
        ("05-04 18:00", 1, detail),
    ]
    assert await next_run_at(connection) == at("2026-05-04 19:00")
    await finish(connection)
    await connection.execute("TRUNCATE routines.skips")
    await tick_at(connection, "2026-05-05 20:01")
    assert (await outcomes(connection))[-1] == (
        "05-05 18:00", 3, "outside_hours: Tue 18:00 to Tue 20:00 in UTC is outside mon-sun 08:00-18:00"
    )  # fmt: skip
    assert (await outcomes(connection))[-2] == ("05-05 08:00", 10, "missed")


async def test_after_an_outage_the_newest_slot_still_moves(connection: Connection) -> None:
    await make(
        connection, at("2026-12-24 00:00"), [CHRISTMAS], type="weekly", day_of_week="thu", hour_utc=9,
        calendar=rule("next_day"),
    )  # fmt: skip
    await tick_at(connection, "2026-12-27 10:00")
    assert await next_run_at(connection) == at("2026-12-27 09:00")
    await tick_at(connection, "2026-12-27 10:00")
    assert await outcomes(connection) == [
        ("12-24 09:00", 1, "calendar: Christmas; moved to 2026-12-27T09:00:00Z"),
        ("12-27 09:00", 1, "started"),
    ]
    await finish(connection)
    await tick_at(connection, "2026-12-31 09:00")
    assert (await outcomes(connection))[2:] == [("12-31 09:00", 1, "started")]


async def test_a_moved_slot_that_comes_too_late_is_missed(connection: Connection) -> None:
    await make(
        connection, at("2026-12-24 00:00"), [CHRISTMAS], type="weekly", day_of_week="thu", hour_utc=9,
        calendar=rule("next_day"),
    )  # fmt: skip
    await tick_at(connection, "2026-12-24 09:00")
    await tick_at(connection, "2027-01-07 09:01")
    assert await outcomes(connection) == [
        ("12-24 09:00", 1, "calendar: Christmas; moved to 2026-12-27T09:00:00Z"),
        ("12-27 09:00", 2, "missed"),
        ("01-07 09:00", 1, "started"),
    ]


async def test_a_long_outage_of_a_minutely_routine_is_recorded_in_a_bounded_number_of_rows(
    connection: Connection,
) -> None:
    await make(
        connection, at("2025-01-01 00:00"), [], type="interval", every_minutes=1, anchor=at("2025-01-01 00:00"),
        active_hours={"windows": ["mon-sun 08:00-18:00"]},
    )  # fmt: skip
    await tick_at(connection, "2026-01-01 12:00")
    rows: Any = await value(connection, "SELECT count(*) FROM routines.skips")
    assert rows == 100
    assert await value(connection, "SELECT sum(slot_count) FROM routines.occurrences") == 365 * 1440 + 720
    oldest = await value(connection, "SELECT detail FROM routines.skips ORDER BY scheduled_for LIMIT 1")
    assert oldest == "too many slots were due to ask calendars and active hours about each"


async def test_in_a_pause_excluded_slots_are_paused(connection: Connection) -> None:
    await make(connection, at("2026-12-23 00:00"), [CHRISTMAS], type="daily", hour_utc=9, calendar=rule())
    await connection.execute("UPDATE routines.routines SET paused = true")
    await connection.execute(
        "UPDATE routines.routines SET paused_at = now() - interval '40 days', "
        "settled_until = now() - interval '40 days'"
    )
    await connection.execute("""UPDATE routines.calendars SET days = '[{"from": "2020-01-01", "to": "2040-12-31"}]'""")
    await connection.execute("UPDATE routines.routines SET paused = false")
    reasons = await value(connection, "SELECT array_agg(DISTINCT reason) FROM routines.skips WHERE slot_count >= 39")
    assert reasons == ["paused"]


async def test_slots_that_no_tick_saw_are_excluded_too_when_the_routine_is_deleted(database: Database) -> None:
    async with moved_clock(database, at("2026-12-23 00:00")) as moved:
        await make(moved, at("2026-12-23 00:00"), [CHRISTMAS], type="daily", hour_utc=9, calendar=rule())
        await move_clock(moved, at("2026-12-27 12:00"))
        await moved.execute("DELETE FROM routines.routines")
        missed = "missed: the routine was deleted before a ticker picked it up"
        assert await outcomes(moved) == [
            ("12-23 09:00", 1, missed),
            ("12-24 09:00", 1, "calendar: Christmas"),
            ("12-25 09:00", 1, "calendar: Christmas"),
            ("12-26 09:00", 1, "calendar: Christmas"),
            ("12-27 09:00", 1, missed),
        ]


async def moved_weekly(moved: Connection) -> None:
    """Create a routine whose slot on 24 December has moved to the 28th."""
    await make(
        moved, at("2026-12-23 00:00"), [CHRISTMAS], type="weekly", day_of_week="thu", hour_utc=9,
        calendar=rule("next_business_day"),
    )  # fmt: skip
    await tick_at(moved, "2026-12-24 09:00")
    assert await next_run_at(moved) == at("2026-12-28 09:00")


MOVED = ("12-24 09:00", 1, "calendar: Christmas; moved to 2026-12-28T09:00:00Z")


async def test_a_moved_slot_outlasts_a_pause_that_ends_before_it(database: Database) -> None:
    async with moved_clock(database, at("2026-12-23 00:00")) as moved:
        await moved_weekly(moved)
        await move_clock(moved, at("2026-12-26 00:00"))
        await moved.execute("UPDATE routines.routines SET paused = true")
        assert await next_run_at(moved) is None
        await move_clock(moved, at("2026-12-27 00:00"))
        await moved.execute("UPDATE routines.routines SET paused = false")
        await run_until(moved, "2026-12-31 12:00")
        assert await outcomes(moved) == [MOVED, ("12-28 09:00", 1, "started"), ("12-31 09:00", 1, "started")]


@pytest.mark.parametrize("until", [None, "2026-12-30 00:00"])
async def test_a_moved_slot_that_falls_in_a_pause_is_paused(database: Database, until: str | None) -> None:
    async with moved_clock(database, at("2026-12-23 00:00")) as moved:
        await moved_weekly(moved)
        await move_clock(moved, at("2026-12-26 00:00"))
        await moved.execute("UPDATE routines.routines SET paused = true, paused_until = %s", [until and at(until)])
        await move_clock(moved, at("2026-12-30 06:00"))
        await moved.execute("UPDATE routines.routines SET paused = false")
        await run_until(moved, "2026-12-31 12:00")
        found = await outcomes(moved)
        assert [found[0], found[2]] == [MOVED, ("12-31 09:00", 1, "started")]
        assert found[1][:2] == ("12-28 09:00", 1)
        assert found[1][2].startswith("paused: paused by hand, since 2026-12-26T00:00:00Z")
        assert await value(moved, "SELECT moved_to FROM routines.routines") is None


async def test_a_moved_slot_is_dropped_when_the_cadence_changes(database: Database) -> None:
    async with moved_clock(database, at("2026-12-23 00:00")) as moved:
        await moved_weekly(moved)
        await move_clock(moved, at("2026-12-26 00:00"))
        await moved.execute("UPDATE routines.routines SET day_of_week = 'wed'")
        assert await next_run_at(moved) == at("2026-12-30 09:00")
        await run_until(moved, "2026-12-31 12:00")
        assert await outcomes(moved) == [MOVED, ("12-30 09:00", 1, "started")]


async def test_a_moved_slot_stays_when_the_calendar_is_removed(database: Database) -> None:
    async with moved_clock(database, at("2026-12-23 00:00")) as moved:
        await moved_weekly(moved)
        await moved.execute("UPDATE routines.routines SET calendar = NULL")
        await run_until(moved, "2026-12-31 12:00")
        assert await outcomes(moved) == [MOVED, ("12-28 09:00", 1, "started"), ("12-31 09:00", 1, "started")]


async def test_a_moved_slot_that_next_run_at_is_set_past_is_missed(connection: Connection) -> None:
    await make(
        connection, at("2026-12-24 00:00"), [CHRISTMAS], type="weekly", day_of_week="thu", hour_utc=9,
        calendar=rule("next_day"),
    )  # fmt: skip
    await tick_at(connection, "2026-12-24 09:00")
    await connection.execute("UPDATE routines.routines SET next_run_at = '2026-12-31 09:00Z'")
    await tick_at(connection, "2026-12-31 09:00")
    assert await outcomes(connection) == [
        ("12-24 09:00", 1, "calendar: Christmas; moved to 2026-12-27T09:00:00Z"),
        ("12-27 09:00", 1, "missed: next_run_at was set past it by hand, to 2026-12-31T09:00:00Z"),
        ("12-31 09:00", 1, "started"),
    ]


async def test_why_explains_excluded_and_moved_slots(connection: Connection) -> None:
    await make(
        connection, at("2026-12-24 00:00"), [CHRISTMAS], type="weekly", day_of_week="thu", hour_utc=9,
        calendar=rule("next_day"),
    )  # fmt: skip
    await make_key(connection, "my-org")

    async def sentence(slot: str, now: str) -> tuple[str, str]:
        found = await why(connection, key_id=1, routine_id=1, at=at(slot), now=at(now))
        return found.kind, found.sentence

    excluded = "Christmas; moved to 2026-12-27T09:00:00Z."
    assert await sentence("2026-12-24 09:00", "2026-12-24 08:00") == (
        "excluded_in_future", f"It will be skipped: {excluded}"
    )  # fmt: skip
    await tick_at(connection, "2026-12-24 09:00")
    assert await sentence("2026-12-24 09:00", "2026-12-24 10:00") == (
        "calendar", f"Skipped: a calendar excludes the day: {excluded}"
    )  # fmt: skip
    assert await sentence("2026-12-27 09:00", "2026-12-24 10:00") == (
        "future", "Upcoming: the slot is due at 2026-12-27T09:00:00Z."
    )  # fmt: skip
    assert await next_slots(connection, key_id=1, routine_id=1, count=3, after=at("2026-12-24 10:00")) == [
        at("2026-12-27 09:00"), at("2026-12-31 09:00"), at("2027-01-07 09:00")
    ]  # fmt: skip


async def test_the_time_of_a_slot_decides_and_not_when_its_spread_makes_it_due(database: Database) -> None:
    async with moved_clock(database, at("2026-12-23 00:00")) as moved:
        await moved.execute(
            """SELECT setval(pg_get_serial_sequence('routines.routines', 'id'), min(id), false)
               FROM generate_series(1, 100) AS id WHERE routines.spread_offset(id, 3600) > '10 minutes'"""
        )
        await make(
            moved, at("2026-12-23 00:00"), [{"from": "2026-12-25", "label": "Christmas"}], type="daily", hour_utc=23,
            minute_utc=59, calendar=rule(), spread_seconds=3600,
        )  # fmt: skip
        offset: Any = await value(moved, "SELECT spread_offset FROM routines.routines")
        assert offset.total_seconds() > 60, "the slot is due on the following day"
        await moved.execute("UPDATE routines.routines SET next_run_at = %s", [at("2026-12-23 23:59") + offset])
        await run_until(moved, "2026-12-27 12:00")
        assert await outcomes(moved) == [
            ("12-23 23:59", 1, "started"),
            ("12-24 23:59", 1, "started"),
            ("12-25 23:59", 1, "calendar: Christmas"),
            ("12-26 23:59", 1, "started"),
        ]
        assert await value(moved, "SELECT due_at - scheduled_for FROM routines.skips") == offset


async def test_a_moved_slot_is_spread_like_any_other(database: Database) -> None:
    async with moved_clock(database, at("2026-12-23 00:00")) as moved:
        await make(
            moved, at("2026-12-23 00:00"), [CHRISTMAS], type="weekly", day_of_week="thu", hour_utc=9,
            calendar=rule("next_business_day"), spread_seconds=3600,
        )  # fmt: skip
        offset: Any = await value(moved, "SELECT spread_offset FROM routines.routines")
        await moved.execute("UPDATE routines.routines SET next_run_at = %s", [at("2026-12-24 09:00") + offset])
        await tick(moved, batch_size=10, now=at("2026-12-24 09:00") + offset, **CATCHUP)
        assert await next_run_at(moved) == at("2026-12-28 09:00") + offset
        await move_clock(moved, at("2026-12-26 00:00"))
        await moved.execute("UPDATE routines.routines SET paused = true")
        await move_clock(moved, at("2026-12-27 00:00"))
        await moved.execute("UPDATE routines.routines SET paused = false")
        assert await next_run_at(moved) == at("2026-12-28 09:00") + offset
        await run_until(moved, "2026-12-31 12:00")
        assert await outcomes(moved) == [MOVED, ("12-28 09:00", 1, "started"), ("12-31 09:00", 1, "started")]


async def test_the_role_of_the_ticker_may_ask_calendars(connection: Connection) -> None:
    await make(
        connection, at("2026-12-22 00:00"), [CHRISTMAS], type="weekly", day_of_week="thu", hour_utc=9,
        calendar=rule("next_day"), active_hours={"windows": ["mon-fri 08:00-18:00"], "outside": "defer"},
    )  # fmt: skip
    await connection.execute("SET ROLE routines_ticker")
    done = await tick_at(connection, "2026-12-31 09:00")
    await connection.execute("RESET ROLE")
    assert (done.fired, done.excluded_by_calendar) == (1, 1)
    assert await outcomes(connection) == [("12-24 09:00", 1, "calendar: Christmas"), ("12-31 09:00", 1, "started")]
