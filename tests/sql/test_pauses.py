"""A pause may have a note, and an end at which it is over by itself."""

import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from routines_core.db import Connection
from routines_core.db import tick as db
from routines_core.db.tick import Resumed, tick
from support.clocks import move_clock, moved_clock
from support.oracle import MOMENT, Cadence, next_slot, slots
from support.rows import CATCHUP, Database, at, ledger, make_routine, make_task, value
from support.stepping import until

MONDAY = at("2126-05-06 09:00")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PAUSE = "UPDATE routines.routines SET paused = true, paused_until = %s, paused_note = %s"
RESUME = "UPDATE routines.routines SET paused = false"
FINISH = "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"


@pytest.fixture
async def moved(database: Database) -> AsyncGenerator[Connection]:
    """Yield a session for which it is half past eight on that Monday."""
    async with moved_clock(database, MONDAY - HOUR / 2) as connection:
        yield connection


@pytest.fixture
async def routine(moved: Connection) -> int:
    """Create a daily routine at 09:00, whose first slot is on that Monday."""
    routine = await make_routine(moved, await make_task(moved), MONDAY)
    await moved.execute("UPDATE routines.routines SET created_at = now()")
    return routine


async def resume(connection: Connection) -> Resumed:
    """End pauses as the ticker does."""
    return await db.resume(connection, await db.ended_pauses(connection, batch_size=10))


async def tick_at(connection: Connection, now: datetime) -> None:
    await move_clock(connection, now)
    await tick(connection, batch_size=10, **CATCHUP)


async def details(connection: Connection) -> list[object]:
    cursor = await connection.execute("SELECT detail FROM routines.skips ORDER BY scheduled_for")
    return [detail for (detail,) in await cursor.fetchall()]


async def state(connection: Connection) -> tuple[Any, ...] | None:
    cursor = await connection.execute("SELECT paused, next_run_at, paused_until, paused_note FROM routines.routines")
    return await cursor.fetchone()


async def test_a_pause_is_over_at_its_end_and_the_slot_at_its_end_fires(moved: Connection, routine: int) -> None:
    end = MONDAY + 3 * DAY
    await moved.execute(PAUSE, [end, "office closed."])
    await move_clock(moved, end - MOMENT)
    assert (await resume(moved)).resumed == 0
    await move_clock(moved, end)
    assert await resume(moved) == Resumed(1, 0)
    assert await state(moved) == (False, end, None, None)
    await tick_at(moved, end)
    assert await ledger(moved, routine) == [(MONDAY, 3, "skipped", "paused"), (end, 1, "started", None)]
    assert await details(moved) == [
        "paused by hand, since 2126-05-06T08:30:00Z, until 2126-05-09T09:00:00Z: office closed"
    ]


async def test_slots_since_the_end_of_a_pause_are_missed_or_caught_up_if_all_tickers_were_away(
    moved: Connection, routine: int
) -> None:
    await moved.execute(PAUSE, [MONDAY + DAY + HOUR, None])
    await move_clock(moved, MONDAY + 4 * DAY + HOUR)
    assert await resume(moved) == Resumed(1, 3 * 86400.0)
    await tick_at(moved, MONDAY + 4 * DAY + HOUR)
    assert await ledger(moved, routine) == [
        (MONDAY, 2, "skipped", "paused"),
        (MONDAY + 2 * DAY, 2, "skipped", "missed"),
        (MONDAY + 4 * DAY, 1, "started", None),
    ]


async def test_resuming_by_hand_after_the_end_gives_the_slots_since_then_the_same_outcomes(
    moved: Connection, routine: int
) -> None:
    await moved.execute(PAUSE, [MONDAY + DAY + HOUR, None])
    await move_clock(moved, MONDAY + 4 * DAY + HOUR)
    await moved.execute(RESUME)
    assert await state(moved) == (False, MONDAY + 2 * DAY, None, None)
    await tick_at(moved, MONDAY + 4 * DAY + HOUR)
    assert [row[1:] for row in await ledger(moved, routine)] == [
        (2, "skipped", "paused"),
        (2, "skipped", "missed"),
        (1, "started", None),
    ]


async def test_resuming_by_hand_before_the_end_computes_the_next_slot_from_now(moved: Connection, routine: int) -> None:
    await moved.execute(PAUSE, [MONDAY + 9 * DAY, "tests"])
    await move_clock(moved, MONDAY + DAY + HOUR)
    await moved.execute(RESUME)
    assert await state(moved) == (False, MONDAY + 2 * DAY, None, None)
    assert await ledger(moved, routine) == [(MONDAY, 2, "skipped", "paused")]
    await move_clock(moved, MONDAY + 10 * DAY)
    assert (await resume(moved)).resumed == 0


@pytest.mark.parametrize("delete", [False, True])
async def test_a_change_after_the_end_records_what_was_due_since_apart_from_the_pause(
    moved: Connection,
    routine: int,
    delete: bool,  # noqa: FBT001
) -> None:
    await moved.execute(PAUSE, [MONDAY + DAY + HOUR, None])
    await move_clock(moved, MONDAY + 3 * DAY + HOUR)
    change = "DELETE FROM routines.routines" if delete else "UPDATE routines.routines SET hour_utc = 15"
    await moved.execute(change.encode())
    assert [row[1:] for row in await ledger(moved, routine)] == [(2, "skipped", "paused"), (2, "skipped", "missed")]
    cause = "the routine was deleted" if delete else "the cadence was changed"
    assert (await details(moved))[1] == f"{cause} before a ticker picked it up"
    if not delete:
        assert (await resume(moved)).resumed == 1
        assert await state(moved) == (False, MONDAY + 3 * DAY + 6 * HOUR, None, None)


async def test_a_new_cadence_and_a_new_end_after_the_end_begin_another_pause(moved: Connection, routine: int) -> None:
    await moved.execute(PAUSE, [MONDAY + DAY + HOUR, "first"])
    await move_clock(moved, MONDAY + 2 * DAY + HOUR)
    await moved.execute("UPDATE routines.routines SET hour_utc = 15, paused_until = now() + interval '1 day'")
    assert await details(moved) == [
        "paused by hand, since 2126-05-06T08:30:00Z, until 2126-05-07T10:00:00Z: first",
        "paused by hand before a ticker picked it up",
    ]
    await move_clock(moved, MONDAY + 3 * DAY + HOUR)
    assert (await resume(moved)).resumed == 1
    assert [row[1:] for row in await ledger(moved, routine)] == [
        (2, "skipped", "paused"),
        (1, "skipped", "paused"),
        (1, "skipped", "paused"),
    ]


async def test_pausing_again_changes_end_and_note_and_keeps_when_it_began(moved: Connection, routine: int) -> None:
    await moved.execute(PAUSE, [MONDAY + DAY, "first"])
    await move_clock(moved, MONDAY + HOUR)
    await moved.execute(PAUSE, [MONDAY + 2 * DAY, None])
    assert await state(moved) == (True, None, MONDAY + 2 * DAY, None)
    assert await value(moved, "SELECT paused_at FROM routines.routines") == MONDAY - HOUR / 2
    await move_clock(moved, MONDAY + 2 * DAY - MOMENT)
    assert (await resume(moved)).resumed == 0


async def test_a_pause_by_the_third_strike_can_be_given_an_end_and_keeps_its_reason(
    moved: Connection, routine: int
) -> None:
    for day in range(3):
        await move_clock(moved, MONDAY + day * DAY)
        await tick(moved, batch_size=10, fault="poison", **CATCHUP)
    await moved.execute(PAUSE, [MONDAY + 4 * DAY, "the provider is down"])
    await move_clock(moved, MONDAY + 4 * DAY)
    assert (await resume(moved)).resumed == 1
    assert (await details(moved))[3] == (
        "paused after 3 fires in a row that failed to start; the last: poison, since 2126-05-08T09:00:00Z, "
        "until 2126-05-10T09:00:00Z: the provider is down"
    )
    assert await value(moved, "SELECT strikes FROM routines.routines") == 0
    assert await state(moved) == (False, MONDAY + 4 * DAY, None, None)


async def test_a_manual_routine_is_resumed_too(moved: Connection, routine: int) -> None:
    await moved.execute("UPDATE routines.routines SET cadence_type = 'manual', hour_utc = NULL")
    await moved.execute(PAUSE, [MONDAY + DAY, None])
    await move_clock(moved, MONDAY + 2 * DAY)
    assert (await resume(moved)).resumed == 1
    assert await state(moved) == (False, None, None, None)
    assert await ledger(moved, routine) == []


async def test_after_the_clock_was_set_back_an_ended_pause_gives_no_slot_a_second_outcome(
    moved: Connection, routine: int
) -> None:
    """The pause ends by a clock that is behind the newest slot with an outcome."""
    await tick_at(moved, MONDAY + 5 * DAY)
    await moved.execute(FINISH)
    before = await ledger(moved, routine)
    await move_clock(moved, MONDAY + DAY)
    await moved.execute(PAUSE, [MONDAY + 2 * DAY, None])
    await move_clock(moved, MONDAY + 3 * DAY)
    assert (await resume(moved)).resumed == 1
    assert (await state(moved) or ())[1] == MONDAY + 6 * DAY
    assert await ledger(moved, routine) == before
    await tick_at(moved, MONDAY + 6 * DAY)
    assert (await ledger(moved, routine))[len(before) :] == [(MONDAY + 6 * DAY, 1, "started", None)]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("paused = true, paused_until = now()", "routines_paused_until_in_future"),
        ("paused = true, paused_until = now() - interval '1 hour'", "routines_paused_until_in_future"),
        ("paused = true, paused_until = '-infinity'", "routines_paused_until_in_future"),
        ("paused = true, paused_until = '2199-01-01Z'", "routines_paused_until_in_range"),
        ("paused = true, paused_until = 'infinity'", "routines_paused_until_in_range"),
        ("paused_until = '2198-12-31Z'", "routines_paused_until_fits_state"),
        ("paused_note = 'why'", "routines_paused_note_fits_state"),
        ("paused = true, paused_note = ''", "routines_paused_note_length"),
        ("paused = true, paused_note = repeat('x', 501)", "routines_paused_note_length"),
    ],
)
async def test_an_end_or_a_note_that_breaks_a_rule_is_refused(connection: Connection, change: str, rule: str) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        await connection.execute(f"UPDATE routines.routines SET {change}".encode())
    assert refused.value.diag.constraint_name == rule


async def test_a_routine_cannot_be_created_with_a_pause_that_ends_in_the_past(connection: Connection) -> None:
    await make_task(connection)
    create = """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, paused, paused_until)
                SELECT collection_id, id, 'r', 'hourly', true, now() + %s::interval FROM routines.tasks"""
    with pytest.raises(psycopg.errors.CheckViolation, match="must be in the future"):
        await connection.execute(create, ["-1 second"])
    await connection.execute(create, ["1 hour"])


async def test_what_was_accepted_stays_accepted_once_its_time_has_passed(moved: Connection, routine: int) -> None:
    await moved.execute(PAUSE, [MONDAY + DAY, "first"])
    await move_clock(moved, MONDAY + 2 * DAY)
    await moved.execute("UPDATE routines.routines SET paused_until = paused_until, paused = paused, paused_note = 'x'")
    assert (await state(moved) or ())[2:] == (MONDAY + DAY, "x")
    with pytest.raises(psycopg.errors.CheckViolation, match="must be in the future"):
        await moved.execute(PAUSE, [MONDAY + DAY + HOUR, None])


async def test_a_person_at_psql_sees_how_long_it_lasts_and_why(moved: Connection, routine: int) -> None:
    status = "SELECT state || '; ' || detail FROM routines.routine_status"
    pause = "paused by hand, since 2126-05-06T08:30:00Z, until 2126-05-08T10:00:00Z: office closed"
    await moved.execute(PAUSE, [MONDAY + 2 * DAY + HOUR, "office closed"])
    assert await value(moved, status) == f"paused; {pause}"
    cursor = await moved.execute("SELECT slot FROM routines.next('my-org/echo/morning', 2)")
    assert await cursor.fetchall() == [(MONDAY + 3 * DAY,), (MONDAY + 4 * DAY,)]
    await move_clock(moved, MONDAY + 3 * DAY)
    why = "SELECT sentence FROM routines.explain_time(routines.routine_id('my-org/echo/morning'), %s, now())"
    assert await value(moved, why, MONDAY + 2 * DAY) == f"Skipped: {pause}."
    waiting = "Due since 2126-05-09T09:00:00Z; no ticker has picked it up yet."
    assert await value(moved, why, MONDAY + 3 * DAY) == waiting
    assert await value(moved, why, MONDAY + 2 * DAY + HOUR) == "No slot: the next is 2126-05-09T09:00:00Z."
    await resume(moved)
    assert await value(moved, why, MONDAY + 2 * DAY) == f"Skipped: {pause}."
    assert await value(moved, why, MONDAY + 3 * DAY) == waiting


async def test_the_status_of_a_pause_that_is_over_and_waits_for_a_ticker_is_due(connection: Connection) -> None:
    await make_routine(connection, await make_task(connection), MONDAY)
    await connection.execute("UPDATE routines.routines SET paused = true, paused_until = now() + interval '10 ms'")
    await until(connection, "SELECT state = 'due' FROM routines.routine_status")


@dataclass
class Story:
    """Random acts on a routine, and what must become of its slots, told only by what was done and when.

    Attributes:
        changes: When each cadence began to apply.
        pauses: The times in which the routine was paused: later than the first, earlier than the second.
        pausings: When someone paused the routine.
        attended: When a ticker was there while the routine was not paused.
        since: Since when it is paused; None if it is not.
        until: When the pause ends; None if it has no end.
    """

    connection: Connection
    chance: random.Random
    now: datetime
    changes: list[tuple[datetime, Cadence]]
    pauses: list[tuple[datetime, datetime]] = field(default_factory=list[tuple[datetime, datetime]])
    pausings: list[datetime] = field(default_factory=list[datetime])
    attended: list[datetime] = field(default_factory=list[datetime])
    since: datetime | None = None
    until: datetime | None = None

    @property
    def ended_at(self) -> datetime | None:
        """When the pause was over; None if it is not over."""
        return self.until if self.until and self.until <= self.now else None

    async def act(self) -> None:
        """Let some time pass, then do something."""
        self.now += self.chance.choice([timedelta(0), HOUR / 3, 7 * HOUR, DAY, DAY, 2.5 * DAY, 6 * DAY])
        await move_clock(self.connection, self.now)
        acts = [self.tick, self.tick, self.tick, self.pause, self.pause, self.resume, self.change, self.finish]
        await self.chance.choice(acts)()

    async def tick(self) -> None:
        await resume(self.connection)
        await tick(self.connection, batch_size=1, **CATCHUP)
        if self.ended_at:
            self.end_pause(self.ended_at)
        if not self.since:
            self.attended.append(self.now)

    async def resume(self) -> None:
        await self.connection.execute(RESUME)
        self.end_pause(self.ended_at or self.now + MOMENT)

    async def pause(self) -> None:
        coming = next_slot(self.changes[-1][1], self.now) or self.now
        end = self.chance.choice(
            [None, coming, coming + MOMENT, coming - MOMENT, self.now + MOMENT, self.now + 3 * DAY]
        )
        end = end if end and end > self.now else None
        await self.connection.execute(PAUSE, [end, self.chance.choice([None, "n"])])
        if self.ended_at or not self.since:  # a pause that is over, and that nobody has ended, goes on
            self.pausings.append(self.now)
        self.since, self.until = self.since or self.now, end

    async def change(self) -> None:
        daily = self.chance.random() < 0.5
        new = (
            Cadence("daily", self.chance.randrange(24)) if daily else Cadence("hourly", None, self.chance.randrange(60))
        )
        await self.connection.execute(
            "UPDATE routines.routines SET (cadence_type, hour_utc, minute_utc, day_of_week) = (%s, %s, %s, %s)", new[:4]
        )
        self.changes.append((self.now, new))
        if self.ended_at:  # slots since then have their outcome, and nobody has ended the pause yet
            self.pauses.append((self.since or self.now, self.ended_at))
            self.since = self.now

    async def finish(self) -> None:
        await self.connection.execute(FINISH)

    def end_pause(self, ended_at: datetime) -> None:
        if self.since:
            self.pauses.append((self.since, ended_at))
        self.since = self.until = None

    def slots(self) -> list[datetime]:
        """Return all slots until now, inclusive."""
        ends = [*(began for began, _ in self.changes[1:]), self.now]
        return [
            slot
            for (began, cadence), ended in zip(self.changes, ends, strict=True)
            for slot in slots(cadence, began + MOMENT, ended + MOMENT)
        ]

    def fell_in_a_pause(self, slot: datetime) -> bool:
        return any(began < slot < ended for began, ended in self.pauses)

    def was_due_when_paused(self, slot: datetime) -> bool:
        """Return whether someone paused the routine after the slot and before a ticker came."""
        return any(
            slot <= paused and not any(slot <= there <= paused for there in self.attended) for paused in self.pausings
        )


@pytest.mark.parametrize("seed", range(20))
async def test_every_slot_has_one_outcome_however_pauses_ticks_and_changes_follow_one_another(
    moved: Connection, routine: int, seed: int
) -> None:
    """Slots in a pause say `paused`; others only if a person paused the routine before a ticker came."""
    now = MONDAY - HOUR / 2
    story = Story(moved, random.Random(seed), now, [(now, Cadence("daily", 9))])
    for _ in range(60):
        await story.act()
    await moved.execute("DELETE FROM routines.routines")
    story.end_pause(story.ended_at or story.now + MOMENT)
    cursor = await moved.execute(
        """SELECT scheduled_for, NULL FROM routines.trajectories
           UNION ALL
           SELECT slot, reason FROM routines.skips, LATERAL (
               SELECT scheduled_for AS slot
               UNION ALL
               SELECT routines.next_slots(cadence, scheduled_for, (slot_count - 1)::integer)) AS each"""
    )
    found = sorted(await cursor.fetchall())
    assert [slot for slot, _ in found] == story.slots()
    for slot, reason in found:
        if story.fell_in_a_pause(slot):
            assert reason == "paused", slot
        elif reason == "paused":
            assert story.was_due_when_paused(slot), slot
    assert {reason for _, reason in found} >= {None, "paused"}
