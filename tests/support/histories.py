"""A random history of a schedule: routines whose slots became this or that, and what a test knows of each slot."""

import random
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from routines_core.db import Connection
from routines_core.db.tick import tick
from support.clocks import move_clock
from support.oracle import MOMENT, Cadence, next_slot, offset_of, slots
from support.rows import CATCHUP, at, make_task, value

MONDAY = at("2026-05-04 09:00")
HOUR = timedelta(hours=1)
SKIPPED = {"overlap", "coalesced", "missed", "paused", "failed_to_start", "calendar", "outside_hours", "backoff"}
FILL = """WITH asked AS (
              INSERT INTO routines.backfills
                  (collection_id, routine_id, from_time, until_time, made_by, ended_at, end_reason)
              SELECT collection_id, id, %(slot)s, %(slot)s::timestamptz + '1 minute', 'key 1', now(), 'expanded'
              FROM routines.routines WHERE id = %(routine)s RETURNING id),
          made AS (
              INSERT INTO routines.trajectories (
                  collection_id, task_id, task_version, triggered_by_routine_id, trigger, backfill_id, fills_slot,
                  init_params, status, ended_at)
              SELECT collection_id, task_id, 1, routines.id, 'backfill', asked.id, %(slot)s, '{}', %(status)s, now()
              FROM routines.routines, asked WHERE routines.id = %(routine)s RETURNING id)
          UPDATE routines.skips SET filled_by = made.id FROM made
          WHERE routine_id = %(routine)s AND %(slot)s BETWEEN scheduled_for AND last_scheduled_for"""


class Slot(NamedTuple):
    """A slot as a test knows it.

    Attributes:
        outcome: A status, a reason or pending.
        fill: The status of the run that has filled it.
    """

    time: datetime
    outcome: str
    delay: timedelta | None = None
    due_at: datetime | None = None
    fill: str | None = None


async def all_of(connection: Connection, query: str, *parameters: object) -> list[Any]:
    return await (await connection.execute(query.encode(), parameters)).fetchall()


class History:
    """Routines whose slots became this or that, by the product's own hands and those of a person."""

    def __init__(self, connection: Connection, rng: random.Random) -> None:
        self.connection, self.rng = connection, rng
        self.now = MONDAY + timedelta(minutes=17)
        self.made_at = self.now
        self.cadences: dict[int, Cadence] = {}
        self.offsets: dict[int, timedelta | None] = {}
        self.changed: dict[int, datetime] = {}
        self.deleted: dict[int, datetime] = {}

    async def begin(self) -> None:
        await make_task(self.connection)
        await self.connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (1, 'other')")
        await self.connection.execute(
            "INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (2, 1, '{}')"
        )
        for number in range(10):
            await self._add(number)

    async def _add(self, number: int) -> None:
        kind = self.rng.choice(["hourly", "hourly", "daily", "weekdays", "weekly"])
        cadence = Cadence(
            kind,
            None if kind == "hourly" else self.rng.randrange(24),
            self.rng.choice([0, 17, 45]),
            self.rng.choice(["mon", "thu"]) if kind == "weekly" else None,
        )
        [(routine,)] = await all_of(
            self.connection,
            """INSERT INTO routines.routines
                   (collection_id, task_id, name, cadence_type, hour_utc, minute_utc, day_of_week, created_at)
               VALUES (1, %s, %s, %s, %s, %s, %s, now()) RETURNING id""",
            1 + number % 2,
            f"r{number}",
            *cadence[:4],
        )
        spread = self.rng.choice([None, None, 1800])
        await self.connection.execute(
            "UPDATE routines.routines SET spread_seconds = %s WHERE id = %s", [spread, routine]
        )
        self.cadences[routine] = cadence
        self.offsets[routine] = offset_of(routine, spread) if spread else None

    async def go_on(self) -> None:
        """Let time pass, and something happen."""
        self.now += timedelta(minutes=self.rng.choice([7, 30, 65, 65, 240, 1500]))
        await move_clock(self.connection, self.now)
        happens = self.rng.choices(
            ["tick", "strike", "end", "pause", "resume", "delete", "change", "set", "set_back", "fill"],
            [20, 2, 10, 4, 1, 0.5, 0.5, 3, 1, 4],
        )[0]
        await getattr(self, happens)()

    def some(self) -> int:
        return self.rng.choice(list(self.cadences))

    async def tick(self, fault: str | None = None) -> None:
        await tick(self.connection, batch_size=100, fault=fault, **CATCHUP)

    async def strike(self) -> None:
        await self.tick("poison")

    async def end(self) -> None:
        """End most runs, which began sooner or later."""
        for (run,) in await all_of(self.connection, "SELECT id FROM routines.trajectories WHERE ended_at IS NULL"):
            if self.rng.random() < 0.8:
                await self.connection.execute(
                    """UPDATE routines.trajectories
                       SET status = %s, started_at = created_at + %s * interval '1 second', ended_at = now()
                       WHERE id = %s""",
                    [
                        self.rng.choice(["completed", "completed", "failed", "cancelled"]),
                        self.rng.choice([0, 30, 61, 3000]),
                        run,
                    ],
                )

    async def pause(self) -> None:
        until = self.now + timedelta(hours=self.rng.randrange(1, 60)) if self.rng.random() < 0.5 else None
        await self.connection.execute(
            "UPDATE routines.routines SET paused = true, paused_until = %s WHERE id = %s AND NOT paused",
            [until, self.some()],
        )

    async def resume(self) -> None:
        await self.connection.execute("UPDATE routines.routines SET paused = false WHERE paused")

    async def delete(self) -> None:
        routine = self.some()
        if await value(self.connection, "DELETE FROM routines.routines WHERE id = %s RETURNING id", routine):
            self.deleted[routine] = self.now

    async def change(self) -> None:
        routine = self.some()
        changed = "UPDATE routines.routines SET minute_utc = 31 WHERE id = %s AND minute_utc <> 31 RETURNING id"
        if await value(self.connection, changed, routine):
            self.changed[routine] = self.now

    async def set(self) -> None:
        """Set the next slot ahead by hand, past others."""
        routine = self.some()
        cadence = self.cadences[routine]
        ahead = next_slot(cadence._replace(minute_utc=31) if routine in self.changed else cadence, self.now + 5 * HOUR)
        assert ahead
        await self.connection.execute(
            "UPDATE routines.routines SET next_run_at = %s WHERE id = %s AND next_run_at < %s",
            [ahead + (self.offsets[routine] or timedelta()), routine, ahead],
        )

    async def set_back(self) -> None:
        """Set the next slot back to one that has its outcome."""
        await self.connection.execute(
            """UPDATE routines.routines SET next_run_at = settled_until
               WHERE id = %s AND NOT paused AND spread_offset IS NULL AND settled_until = (
                   SELECT max(last_scheduled_for) FROM routines.occurrences AS outcome
                   WHERE outcome.routine_id = routines.id)""",
            [self.some()],
        )

    async def fill(self) -> None:
        """Fill a slot that never ran, well or badly."""
        routine = self.some()
        skipped = [slot for slot in (await self.ledger())[routine] if slot.outcome in SKIPPED and not slot.fill]
        if skipped and routine not in self.deleted:
            status = self.rng.choice(["completed", "completed", "failed"])
            given = {"slot": self.rng.choice(skipped).time, "routine": routine, "status": status}
            await self.connection.execute(FILL, given)

    async def ledger(self) -> dict[int, list[Slot]]:
        """Return the outcome of each slot in the ledger, spans taken apart by the calendar."""
        found = defaultdict[int, list[Slot]](list)
        for routine, slot, due, status, began in await all_of(
            self.connection,
            """SELECT triggered_by_routine_id, scheduled_for, due_at, status, coalesce(started_at, ended_at, now())
               FROM routines.trajectories WHERE scheduled_for IS NOT NULL""",
        ):
            outcome = "active" if status in {"pending", "running"} else status
            found[routine].append(Slot(slot, outcome, max(began - (due or slot), timedelta()), due))
        fills = {
            (routine, slot): status
            for routine, slot, status in await all_of(
                self.connection,
                """SELECT triggered_by_routine_id, fills_slot, status FROM routines.trajectories
                   WHERE fills_slot IS NOT NULL""",
            )
        }
        for routine, first, last, reason, count, cadence in await all_of(
            self.connection,
            """SELECT routine_id, scheduled_for, last_scheduled_for, reason, slot_count,
                      routines.cadence_to_json(cadence) FROM routines.skips""",
        ):
            between = slots(Cadence(**cadence), first + MOMENT, last) if cadence else []
            times = [first, *between, *([last] if last > first else [])]
            assert len(times) == count
            found[routine] += [Slot(time, reason, fill=fills.get((routine, time))) for time in times]
        return found

    async def slots(self) -> dict[int, list[Slot]]:
        """Return what became of each slot that was due; those without an outcome by the calendar."""
        found = await self.ledger()
        paused = dict(
            await all_of(
                self.connection, "SELECT id, coalesce(paused_until, '2100-01-01Z') FROM routines.routines WHERE paused"
            )
        )
        for routine, calendar in self.calendar().items():
            known = {slot.time for slot in found[routine]}
            assert known <= set(calendar), "the ledger has no slot that the calendar does not have"
            for time in sorted(set(calendar) - known):
                due_at = time + self.offsets[routine] if self.offsets[routine] else None
                is_paused = routine in paused and (due_at or time) < paused[routine]
                found[routine].append(Slot(time, "paused" if is_paused else "pending", None, due_at))
        return found

    def calendar(self) -> dict[int, list[datetime]]:
        """Return the slots that were due of each routine, by the cadences that it had."""
        found = dict[int, list[datetime]]()
        for routine, cadence in self.cadences.items():
            offset = self.offsets[routine] or timedelta()
            changed, deleted = self.changed.get(routine), self.deleted.get(routine)
            end = deleted or self.now - offset
            times = slots(cadence, self.made_at + MOMENT, (changed or end) + MOMENT)
            if changed:
                times += slots(cadence._replace(minute_utc=31), changed + MOMENT, end + MOMENT)
            found[routine] = times
        return found
