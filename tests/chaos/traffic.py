"""What people do while things break: slots come due, schedules change, routines come and go.

The driver needs many slots in little time and leaves the clock alone. It gives a routine a cadence whose latest slot
has just passed, and sets next_run_at back to that slot or to one before it: as if the scheduler had been away since.
Slots stay true slots of the cadence, so that an oracle can tell which ones must have an outcome; the clock that says
what is due, early or late stays the database's own. Beside these orders, cadences are aimed at the coming minute and
come due by themselves.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import namedtuple_row

from chaos.stretches import cadence_of
from routines_core.db import connect, keys, routines
from routines_core.errors import DatabaseError, NotFoundError
from support.oracle import DAYS, MOMENT, Cadence, latest_slot
from support.rows import make_key

WORKFLOW = """{
  "init_params": {"first": 0.01, "second": 0.05, "third": 0.01, "fails": false, "kills": false, "ballast": ""},
  "steps": ["one", "two", "three"],
  "step_configs": {
    "one":   {"activity": "chaos_work", "step": "one", "seconds_path": "init_params.first"},
    "two":   {"activity": "chaos_work", "step": "two", "seconds_path": "init_params.second",
              "fails_path": "init_params.fails", "kills_path": "init_params.kills"},
    "three": {"activity": "chaos_work", "step": "three", "seconds_path": "init_params.third"}}}"""
MOST_BYTES = 1024
"""What a run's parameters may take, by the setting of the tickers; more, and the fire fails to start."""
OVERRIDES = {
    "quick": "{}",
    "slow": '{"second": 1.2}',
    "long": '{"first": 0.3, "second": 4, "third": 0.3}',
    "fails": '{"fails": true}',
    "poison": '{"kills": true}',
    "heavy": '{"ballast": "' + 2 * MOST_BYTES * "x" + '"}',
}
Act = Callable[[AsyncConnection[Any]], Awaitable[None]]
USUAL: dict[str, float] = {
    "due": 60,
    "burst": 4,
    "aim": 10,
    "pause": 5,
    "resume": 8,
    "run_now": 10,
    "delete": 2,
    "again": 4,
    "rewind": 4,
    "poison": 0.2,
}
"""How often each kind of order comes."""
STATE = """SELECT now() AS now, id, name, next_run_at, settled_until, paused, paused_at, strikes,
                  cadence_type, hour_utc::integer, minute_utc::integer, day_of_week
           FROM routines.routines WHERE id = %s FOR UPDATE"""
RECORD = """INSERT INTO chaos.orders (routine_id, kind, cadence_type, hour_utc, minute_utc, day_of_week, paused, was,
                                      was_paused_at, heavy, first, became)
            SELECT id, %(kind)s, cadence_type, hour_utc, minute_utc, day_of_week, paused, %(was)s, %(was_paused_at)s,
                   length(init_params_overrides::text) > %(most_bytes)s, %(first)s, next_run_at
            FROM routines.routines WHERE id = %(id)s RETURNING id"""
SET_CADENCE = """UPDATE routines.routines SET cadence_type = %s, hour_utc = %s, minute_utc = %s, day_of_week = %s
                 WHERE id = %s"""
NO_TICK_UNDERWAY = "SET LOCAL lock_timeout = '20s'; LOCK TABLE routines.routines IN SHARE MODE"
"""Setting next_run_at back is the driver's own act, made while no tick is underway: a tick that began before the slot
was set back could never have met it in nature, where a slot comes due by the clock alone."""
SET_BACK = """UPDATE routines.routines SET next_run_at = %s, settled_until = %s, strikes = %s WHERE id = %s"""
"""As if the cadence had been this one all along: what lies before is settled, and strikes were not forgiven."""

PAST_SHARE = 0.3
"""Of the slots that are made due, how many come with a next_run_at that was set past the slots before them."""
MOST_MINUTES = 45
"""Minutes of the hour that one routine is given before another takes its place."""


@dataclass
class Known:
    """What the driver remembers of a routine, so as never to order a slot twice."""

    id: int
    calm: bool
    minutes: set[int] = field(default_factory=set[int])

    @property
    def worn(self) -> bool:
        """Few minutes are left that were never a slot of it."""
        return len(self.minutes) > MOST_MINUTES


@dataclass
class Traffic:
    """Random orders from one seed, each in one transaction with its record in chaos.orders.

    Attributes:
        url: The database, not through the proxy.
        rng: Decides everything.
        per_second: Orders on average.
        weights: How often each kind of order comes, where not as usual.
    """

    url: str
    rng: random.Random
    per_second: float
    weights: dict[str, float] = field(default_factory=dict[str, float])
    done: Counter[str] = field(default_factory=Counter[str])
    last_acknowledged: int = 0
    known: list[Known] = field(default_factory=list[Known])
    _names: int = 0

    async def populate(self, connection: AsyncConnection[Any], count: int) -> None:
        """The task and the first routines.

        One in six is calm, which nobody but `again`, `rewind` and `due` touches; one in twelve is heavy: its fires fail
        to start.
        """
        row = await (
            await connection.execute(
                """WITH c AS (INSERT INTO routines.collections (name) VALUES ('chaos') RETURNING id),
                    t AS (INSERT INTO routines.tasks (collection_id, name) SELECT id, 'work' FROM c RETURNING *)
                INSERT INTO routines.task_versions (task_id, version, workflow) SELECT id, 1, %s FROM t
                RETURNING task_id, (SELECT id FROM c)""",
                [WORKFLOW],
            )
        ).fetchone()
        assert row
        self.task_id, self.collection_id = row
        self.key_id = keys.parse_token(await make_key(connection, "chaos")).key_id
        await self._insert(connection, "poison", "manual", 0)  # the first: its name is poison-1
        for number in range(count):
            await self._create(connection, calm=number % 6 == 0, kind="heavy" if number % 12 == 1 else None)

    async def run(self) -> None:
        """Order until cancelled, over every loss of the database."""
        while True:
            with contextlib.suppress(psycopg.Error, DatabaseError):
                async with connect(self.url, "chaos-driver") as connection:
                    while True:
                        await self.order(connection)
                        await asyncio.sleep(self.rng.expovariate(self.per_second))
            await asyncio.sleep(0.2)

    async def order(self, connection: AsyncConnection[Any]) -> None:
        """One random order."""
        if any(routine.worn for routine in self.known):
            await self._delete(connection)
        weights = {**USUAL, **self.weights}
        [kind] = self.rng.choices(list(weights), list(weights.values()))
        acts: dict[str, Act] = {
            "due": self._due,
            "burst": self._burst,
            "aim": self._aim,
            "pause": self._pause,
            "resume": self._resume,
            "run_now": self._run_now,
            "delete": self._delete,
            "again": self._again,
            "rewind": self._rewind,
            "poison": self._poison,
        }
        await acts[kind](connection)

    def _pick(self, *, calm: bool = False) -> Known:
        return self.rng.choice([routine for routine in self.known if calm or not routine.calm])

    async def _create(self, connection: AsyncConnection[Any], *, calm: bool = False, kind: str | None = None) -> None:
        kinds = {"quick": 1.0} if calm else {"quick": 56, "slow": 22, "long": 10, "fails": 6, "heavy": 6}
        kind = kind or self.rng.choices(list(kinds), list(kinds.values()))[0]
        minute = self.rng.randrange(60)
        self.known.append(Known(await self._insert(connection, kind, "hourly", minute), calm, {minute}))

    async def _insert(self, connection: AsyncConnection[Any], kind: str, cadence: str, minute: int) -> int:
        self._names += 1
        async with connection.transaction():
            row = await (
                await connection.execute(
                    """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, minute_utc,
                                                      init_params_overrides)
                       VALUES (%s, %s, %s, %s, %s, %s::jsonb) RETURNING id""",
                    [self.collection_id, self.task_id, f"{kind}-{self._names}", cadence, minute, OVERRIDES[kind]],
                )
            ).fetchone()
            assert row
            acknowledged = await self._record(connection, row[0], "create", None)
        self._done("create", acknowledged)
        return row[0]

    async def _record(
        self, connection: AsyncConnection[Any], routine: int, kind: str, before: Any, first: Any = None
    ) -> int:
        was, was_paused_at = (before.next_run_at, before.paused_at) if before else (None, None)
        values = {"id": routine, "kind": kind, "was": was, "was_paused_at": was_paused_at, "first": first}
        row = await (await connection.execute(RECORD, {**values, "most_bytes": MOST_BYTES})).fetchone()
        return row[0] if row else 0

    def _done(self, kind: str, acknowledged: int = 0) -> None:
        self.done[kind] += 1
        self.last_acknowledged = max(self.last_acknowledged, acknowledged)

    async def _state(self, connection: AsyncConnection[Any], routine: Known) -> Any:
        async with connection.cursor(row_factory=namedtuple_row) as cursor:
            return await (await cursor.execute(STATE, [routine.id])).fetchone()

    async def _due(self, connection: AsyncConnection[Any], count: int = 1) -> None:
        """Slots that have just passed, some with slots before them that were missed too."""
        acknowledged = 0
        async with connection.transaction():
            await connection.execute(NO_TICK_UNDERWAY)
            for routine in {id(each): each for each in (self._pick(calm=True) for _ in range(count))}.values():
                acknowledged = await self._set_back(connection, routine) or acknowledged
        if acknowledged:
            self._done("burst" if count > 1 else "due", acknowledged)

    async def _burst(self, connection: AsyncConnection[Any]) -> None:
        """Many at once, so that tickers meet over them."""
        await self._due(connection, count=15)

    async def _set_back(self, connection: AsyncConnection[Any], routine: Known) -> int:
        state = await self._state(connection, routine)
        if state.paused or state.next_run_at is None or state.next_run_at <= state.now:
            return 0
        cadence, first = self._passed(state.now, calm=routine.calm)
        if cadence[2] in routine.minutes:
            return 0
        routine.minutes.add(cadence[2])
        # Some are set past slots that wait for their outcome, as a person may: to the newest that is due.
        is_past = not routine.calm and self.rng.random() < PAST_SHARE
        due = latest_slot(cadence, state.now) if is_past else first
        await connection.execute(SET_CADENCE, [*cadence, routine.id])
        await connection.execute(SET_BACK, [due, first - MOMENT, state.strikes, routine.id])
        return await self._record(connection, routine.id, "past" if is_past else "due", state, first)

    def _passed(self, now: datetime, *, calm: bool) -> tuple[Cadence, datetime]:
        """A cadence and the first of its slots that shall count as not handled yet."""
        kind = "hourly" if calm else self.rng.choices(["hourly", "daily", "weekdays", "weekly"], [6, 2, 1, 1])[0]
        # Some are older than the catch-up window of daily and its kin, 12 hours: those must not fire.
        age = timedelta(minutes=self.rng.randrange(59), hours=self.rng.choice([0, 0, 3, 11, 13]))
        slot = now - age
        hour = None if kind == "hourly" else slot.hour
        cadence = (kind, hour, slot.minute, DAYS[slot.weekday()] if kind == "weekly" else None)
        first = latest_slot(cadence, now)
        for _ in range(0 if calm else self.rng.choice([0, 0, 0, 1, 5, 40])):
            assert first
            first = latest_slot(cadence, first - MOMENT)
        assert first
        return cadence, first

    async def _change(
        self, connection: AsyncConnection[Any], kind: str, routine: Known, sql: str, *values: Any
    ) -> None:
        """A change that any client may make at any time: it races with the tick."""
        async with connection.transaction():
            state = await self._state(connection, routine)
            if state is None:
                return
            await connection.execute(sql.encode(), [*values, routine.id])
            acknowledged = await self._record(connection, routine.id, kind, state)
        self._done(kind, acknowledged)

    async def _aim(self, connection: AsyncConnection[Any]) -> None:
        """A new cadence whose next slot is the coming minute: it comes due by the clock alone."""
        routine = self._pick()
        row = await (await connection.execute("SELECT now()")).fetchone()
        assert row
        soon = row[0] + timedelta(minutes=self.rng.choice([1, 1, 1, 2]))
        if soon.minute in routine.minutes:
            return
        routine.minutes.add(soon.minute)
        cadence = self.rng.choice([("hourly", None), ("daily", soon.hour)])
        await self._change(connection, "aim", routine, SET_CADENCE, *cadence, soon.minute, None)

    async def _pause(self, connection: AsyncConnection[Any]) -> None:
        await self._change(
            connection, "pause", self._pick(), "UPDATE routines.routines SET paused = true WHERE id = %s"
        )

    async def _resume(self, connection: AsyncConnection[Any]) -> None:
        await self._change(
            connection, "resume", self._pick(), "UPDATE routines.routines SET paused = false WHERE id = %s"
        )

    async def _delete(self, connection: AsyncConnection[Any]) -> None:
        """A routine that was ordered much goes, or any one, and a new one comes."""
        routine = next((each for each in self.known if each.worn), None) or self._pick()
        async with connection.transaction():
            state = await self._state(connection, routine)
            if state is not None:  # else an earlier delete went through unheard
                acknowledged = await self._record(connection, routine.id, "delete", state)
                await connection.execute("DELETE FROM routines.routines WHERE id = %s", [routine.id])
                self.last_acknowledged = max(self.last_acknowledged, acknowledged)
        self.known.remove(routine)
        self._done("delete")
        await self._create(connection, calm=routine.calm)

    async def _run_now(self, connection: AsyncConnection[Any]) -> None:
        state = await self._state(connection, self._pick())
        if state is None:  # an earlier delete went through unheard
            return
        with contextlib.suppress(NotFoundError):
            await routines.run_now(connection, key_id=self.key_id, task="work", name=state.name)
            self._done("run_now")

    async def _poison(self, connection: AsyncConnection[Any]) -> None:
        """A run that takes its worker down each time, and fails at the third."""
        await routines.run_now(connection, key_id=self.key_id, task="work", name="poison-1")
        self._done("poison")

    async def _again(self, connection: AsyncConnection[Any]) -> None:
        """next_run_at is set back by hand to a slot that has its outcome: it must not get another."""
        routine = self._pick(calm=True)
        async with connection.transaction():
            state = await self._state(connection, routine)
            slot = latest_slot(cadence_of(state), state.now) if state and not state.paused else None
            cursor = await connection.execute(
                """SELECT EXISTS (SELECT FROM routines.occurrences
                                  WHERE routine_id = %(id)s AND %(slot)s IN (scheduled_for, last_scheduled_for))""",
                {"slot": slot, "id": routine.id},
            )
            row = await cursor.fetchone()
            if not (row and row[0]):
                return
            await connection.execute("UPDATE routines.routines SET next_run_at = %s WHERE id = %s", [slot, routine.id])
            acknowledged = await self._record(connection, routine.id, "again", state, slot)
        self._done("again", acknowledged)

    async def _rewind(self, connection: AsyncConnection[Any]) -> None:
        """A calm routine's whole state is set back to before a slot that was fired: the key on slots is left alone."""
        routine = self.rng.choice([each for each in self.known if each.calm])
        async with connection.transaction():
            await connection.execute(NO_TICK_UNDERWAY)
            state = await self._state(connection, routine)
            slot = latest_slot(cadence_of(state), state.now)
            cursor = await connection.execute(
                """SELECT coalesce(bool_or(scheduled_for = %(slot)s), false)
                          AND coalesce(bool_and(ended_at IS NOT NULL), true)
                   FROM routines.trajectories WHERE triggered_by_routine_id = %(id)s""",
                {"slot": slot, "id": routine.id},
            )
            row = await cursor.fetchone()
            if state.next_run_at is None or state.next_run_at <= state.now or not (row and row[0]):
                return
            assert slot
            await connection.execute(SET_BACK, [slot, slot - MOMENT, state.strikes, routine.id])
            acknowledged = await self._record(connection, routine.id, "rewind", state, slot)
        self._done("rewind", acknowledged)
