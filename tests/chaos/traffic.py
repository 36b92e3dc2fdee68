"""Imitate what people do while things break: slots come due, schedules change, routines come and go.

The driver needs many slots in little time, but leaves the clock alone. It gives a routine a cadence whose latest slot
has just passed, and sets next_run_at back to that slot or to an earlier one, as if the scheduler had been away since.
The slots remain true slots of the cadence, so an oracle can tell which ones need an outcome, and the database's clock
still decides what is due, early or late. Other orders give a routine a cadence whose next slot is the coming minute;
that slot comes due by itself.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

from chaos.exclusions import CALENDAR, EXCLUDE, WINDOWS
from chaos.stretches import cadence_of
from routines_core.db import backfills, connect, keys, routines, trajectories
from routines_core.db.backfills import BackfillSpec
from routines_core.db.trajectories import RerunSpec
from routines_core.errors import ConflictError, DatabaseError, InvalidError, NotFoundError
from support.oracle import DAYS, MOMENT, Cadence, latest_slot, next_slot, slots
from support.rows import make_key

WORKFLOW = """{
  "init_params": {"first": 0.01, "second": 0.05, "third": 0.01, "fails": false, "kills": false, "ballast": ""},
  "steps": ["one", "two", "three"],
  "step_configs": {
    "one":   {"activity": "chaos_work", "step": "one", "seconds_path": "init_params.first"},
    "two":   {"activity": "chaos_work", "step": "two", "seconds_path": "init_params.second",
              "fails_path": "init_params.fails", "kills_path": "init_params.kills"},
    "three": {"activity": "chaos_work", "step": "three", "seconds_path": "init_params.third"}}}"""
MAX_BYTES = 1024
"""How large a run's parameters may be, by the tickers' setting; with larger ones the fire fails to start."""
OVERRIDES = {
    "quick": "{}",
    "slow": '{"second": 1.2}',
    "long": '{"first": 0.3, "second": 4, "third": 0.3}',
    "fails": '{"fails": true}',
    "poison": '{"kills": true}',
    "heavy": '{"ballast": "' + 2 * MAX_BYTES * "x" + '"}',
}
Act = Callable[[AsyncConnection[Any]], Awaitable[None]]
DEFAULT_WEIGHTS: dict[str, float] = {
    "due": 60,
    "burst": 4,
    "aim": 10,
    "pause": 5,
    "rest": 12,
    "resume": 8,
    "run_now": 10,
    "rerun": 3,
    "backfill": 1.5,
    "delete": 2,
    "again": 4,
    "rewind": 4,
    "poison": 0.2,
}
"""The relative frequency of each kind of order."""
SPREAD_SECONDS = 40
"""The spread of every third routine. Its orders are given, recorded and checked on its own clock."""
POLICIES: dict[int, tuple[str, int | None]] = {1: ("queue_one", None), 2: ("cancel_other", None), 3: ("allow", 2)}
"""The overlap policies of three in five routines, by the last number of their names; the others skip."""
RETRY: dict[str, Any] = {"max_attempts": 3, "backoff": [1], "until": 30}
"""How the routines whose runs fail are retried: twice within half a minute."""
OWN = "LATERAL (SELECT coalesce(spread_offset, '0') AS away) AS own"
STATE = f"""SELECT now() - away AS now, id, name, next_run_at - away AS next_run_at, settled_until, paused,
                   paused_at - away AS paused_at, strikes, away,
                   routines.cadence_to_json(routines.cadence_of(routines)) AS cadence
            FROM routines.routines, {OWN} WHERE id = %s FOR UPDATE OF routines"""
RECORD = f"""INSERT INTO chaos.orders (routine_id, kind, away, at, cadence, paused, was, was_paused_at, heavy, first,
                                       became, until, note, policy, most)
             SELECT id, %(kind)s, away, now() - away, routines.cadence_to_json(routines.cadence_of(routines)), paused,
                    %(was)s, %(was_paused_at)s, length(init_params_overrides::text) > %(max_bytes)s, %(first)s,
                    next_run_at - away, paused_until - away, paused_note, overlap_policy, coalesce(max_concurrent, 1)
             FROM routines.routines, {OWN} WHERE id = %(id)s RETURNING id"""
COLUMNS = {"cadence_type" if field == "type" else field: field for field in Cadence._fields}
"""The columns of a routine that hold its cadence, each with its field."""
SET_CADENCE = f"""UPDATE routines.routines SET ({", ".join(COLUMNS)}) = (
                      SELECT {", ".join(COLUMNS.values())} FROM routines.cadence_from_json(%s)) WHERE id = %s"""
NO_TICK_UNDERWAY = "SET LOCAL lock_timeout = '20s'; LOCK TABLE routines.routines IN SHARE MODE"
"""Set next_run_at back only while no tick is running: a tick that began before could never meet such a slot in reality,
where only the clock makes slots due.
"""
REST = """UPDATE routines.routines SET paused = true, paused_until = %s, paused_note = %s WHERE id = %s"""
REST_SINCE = """UPDATE routines.routines SET paused_at = %s, settled_until = %s WHERE id = %s"""
"""As if the cadence had always been this one, and the routine paused since then."""
SET_BACK = """UPDATE routines.routines SET next_run_at = %s, settled_until = %s, strikes = %s WHERE id = %s"""
"""As if the cadence had always been this one: earlier slots are settled, and strikes are kept."""

PAST_SHARE = 0.3
"""The share of slots made due by setting next_run_at past earlier slots that have no outcome yet."""
ZONES = ("Europe/Berlin", "Europe/Lisbon", "America/New_York", "Asia/Kolkata", "Pacific/Auckland")
"""Time zones of cron expressions. Where clocks change, they do by an hour: slots that exist keep their minute."""
DAY_SHARE = 0.3
"""The share of fixed times that come on one day of the week only."""
HOUR = timedelta(hours=1)
MAX_AGE = timedelta(days=300)
"""How old a slot without outcome may be: the fortieth of one that comes each week."""
MAX_MINUTES = 45
"""How many minutes of the hour a routine uses before another takes its place."""


def minutes_of(cadence: Cadence, now: datetime) -> set[int]:
    """Return the minutes at which a cadence has slots: one, and another where clocks leave out its time of the day."""
    if cadence.type != "cron" or " * * * *" in str(cadence.expression):
        slot = next_slot(cadence, now)
        return {slot.minute} if slot else set()
    return {slot.minute for slot in slots(cadence, now - MAX_AGE, now + timedelta(days=1))}


@dataclass
class KnownRoutine:
    """What the driver remembers of a routine, so that it never orders a slot twice."""

    id: int
    calm: bool
    minutes: set[int] = field(default_factory=set[int])

    def takes(self, cadence: Cadence, now: datetime) -> bool:
        """Note the minutes at which the cadence has slots, unless there were slots at one of them before."""
        minutes = minutes_of(cadence, now)
        if minutes & self.minutes:
            return False
        self.minutes |= minutes
        return True

    @property
    def worn_out(self) -> bool:
        """Return whether few minutes are left at which it never had a slot."""
        return len(self.minutes) > MAX_MINUTES


@dataclass
class Traffic:
    """Random orders from one seed, each in one transaction with its record in chaos.orders.

    Attributes:
        url: The database's URL, not through the proxy.
        rng: Decides everything.
        per_second: The average number of orders.
        weights: The relative frequency of orders, where it differs from the default.
    """

    url: str
    rng: random.Random
    per_second: float
    weights: dict[str, float] = field(default_factory=dict[str, float])
    done: Counter[str] = field(default_factory=Counter[str])
    last_acknowledged: int = 0
    known: list[KnownRoutine] = field(default_factory=list[KnownRoutine])
    _names: int = 0

    async def populate(self, connection: AsyncConnection[Any], count: int) -> None:
        """Create the task and the first routines.

        One in six is calm: only `again`, `rewind`, `due` and `burst` touch it. One in twelve is heavy: its fires fail
        to start. One in four has a calendar and active hours. Three in five of the others have another overlap policy.
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
        await connection.execute(CALENDAR, [self.collection_id])
        self.key_id = keys.parse_token(await make_key(connection, "chaos")).key_id
        await self._insert(connection, "poison", "manual", 0)  # the first, so its name is poison-1
        for number in range(count):
            await self._create(connection, calm=number % 6 == 0, kind="heavy" if number % 12 == 1 else None)

    async def run(self) -> None:
        """Send orders until cancelled, reconnecting whenever the database is lost."""
        while True:
            with contextlib.suppress(psycopg.Error, DatabaseError):
                async with connect(self.url, "chaos-driver") as connection:
                    while True:
                        await self.order(connection)
                        await asyncio.sleep(self.rng.expovariate(self.per_second))
            await asyncio.sleep(0.2)

    async def order(self, connection: AsyncConnection[Any]) -> None:
        """Send one random order."""
        if any(routine.worn_out for routine in self.known):
            await self._delete(connection)
        weights = {**DEFAULT_WEIGHTS, **self.weights}
        [kind] = self.rng.choices(list(weights), list(weights.values()))
        acts: dict[str, Act] = {
            "due": self._due,
            "burst": self._burst,
            "aim": self._aim,
            "pause": self._pause,
            "rest": self._rest,
            "resume": self._resume,
            "run_now": self._run_now,
            "rerun": self._rerun,
            "backfill": self._backfill,
            "delete": self._delete,
            "again": self._again,
            "rewind": self._rewind,
            "poison": self._poison,
        }
        await acts[kind](connection)

    def _pick(self, *, calm: bool = False) -> KnownRoutine:
        return self.rng.choice([routine for routine in self.known if calm or not routine.calm])

    async def _create(self, connection: AsyncConnection[Any], *, calm: bool = False, kind: str | None = None) -> None:
        kinds = {"quick": 1.0} if calm else {"quick": 52, "slow": 22, "long": 10, "fails": 10, "heavy": 6}
        kind = kind or self.rng.choices(list(kinds), list(kinds.values()))[0]
        minute = self.rng.randrange(60)
        made = await self._insert(connection, kind, "hourly", minute, calm=calm)
        self.known.append(KnownRoutine(made, calm, {minute}))

    async def _insert(
        self, connection: AsyncConnection[Any], kind: str, cadence: str, minute: int, *, calm: bool = True
    ) -> int:
        self._names += 1
        policy, most = ("skip", None) if calm else POLICIES.get(self._names % 5, ("skip", None))
        async with connection.transaction():
            row = await (
                await connection.execute(
                    """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, minute_utc,
                                                      init_params_overrides, spread_seconds, overlap_policy,
                                                      max_concurrent, retry)
                       VALUES (%s, %s, %s, %s, %s, %s::jsonb, %s, %s, %s, %s) RETURNING id""",
                    [
                        self.collection_id,
                        self.task_id,
                        f"{kind}-{self._names}",
                        cadence,
                        minute,
                        OVERRIDES[kind],
                        SPREAD_SECONDS if self._names % 3 == 0 else None,
                        policy,
                        most,
                        Jsonb(RETRY) if kind == "fails" else None,
                    ],
                )
            ).fetchone()
            assert row
            await connection.execute(EXCLUDE, [Jsonb(WINDOWS), row[0]])
            acknowledged = await self._record(connection, row[0], "create", None)
        self._done("create", acknowledged)
        return row[0]

    async def _record(
        self, connection: AsyncConnection[Any], routine: int, kind: str, before: Any, first: Any = None
    ) -> int:
        was, was_paused_at = (before.next_run_at, before.paused_at) if before else (None, None)
        values = {"id": routine, "kind": kind, "was": was, "was_paused_at": was_paused_at, "first": first}
        row = await (await connection.execute(RECORD, {**values, "max_bytes": MAX_BYTES})).fetchone()
        return row[0] if row else 0

    def _done(self, kind: str, acknowledged: int = 0) -> None:
        self.done[kind] += 1
        self.last_acknowledged = max(self.last_acknowledged, acknowledged)

    async def _state(self, connection: AsyncConnection[Any], routine: KnownRoutine) -> Any:
        async with connection.cursor(row_factory=namedtuple_row) as cursor:
            return await (await cursor.execute(STATE, [routine.id])).fetchone()

    async def _due(self, connection: AsyncConnection[Any], count: int = 1) -> None:
        """Make slots due that have just passed, some with earlier slots that were missed too."""
        acknowledged = 0
        async with connection.transaction():
            await connection.execute(NO_TICK_UNDERWAY)
            for routine in {id(each): each for each in (self._pick(calm=True) for _ in range(count))}.values():
                acknowledged = await self._set_back(connection, routine) or acknowledged
        if acknowledged:
            self._done("burst" if count > 1 else "due", acknowledged)

    async def _burst(self, connection: AsyncConnection[Any]) -> None:
        """Make many routines due at once, so that tickers compete for them."""
        await self._due(connection, count=15)

    async def _set_back(self, connection: AsyncConnection[Any], routine: KnownRoutine) -> int:
        state = await self._state(connection, routine)
        if state is None or state.paused or state.next_run_at is None or state.next_run_at <= state.now:
            return 0  # or it was deleted meanwhile
        cadence, first = self._passed(state.now, calm=routine.calm)
        if not routine.takes(cadence, state.now):
            return 0
        # Sometimes next_run_at is set past slots without outcome, as a person may do, to the newest due one.
        is_past = not routine.calm and self.rng.random() < PAST_SHARE
        due = latest_slot(cadence, state.now) if is_past else first
        await connection.execute(SET_CADENCE.encode(), [Jsonb(cadence._asdict()), routine.id])
        assert due
        await connection.execute(SET_BACK, [due + state.away, first - MOMENT, state.strikes, routine.id])
        return await self._record(connection, routine.id, "past" if is_past else "due", state, first)

    def _passed(self, now: datetime, *, calm: bool) -> tuple[Cadence, datetime]:
        """Return a cadence and the first of its slots that counts as not handled yet."""
        kinds = {"hourly": 6, "daily": 2, "weekdays": 1, "weekly": 1, "cron": 3, "interval": 2}
        kind = "hourly" if calm else self.rng.choices(list(kinds), list(kinds.values()))[0]
        # Some slots are older than 12 hours, the catch-up window of all cadences but hourly: those must not fire.
        age = timedelta(minutes=self.rng.randrange(59), hours=self.rng.choice([0, 0, 3, 11, 13]))
        slot = (now - age).replace(second=0, microsecond=0)
        if kind == "cron":
            cadence = self._cron(slot)
        elif kind == "interval":
            cadence = Cadence(kind, every_minutes=60 * self.rng.choice([1, 6, 24]), anchor=slot.isoformat())
        else:
            hour = None if kind == "hourly" else slot.hour
            cadence = Cadence(kind, hour, slot.minute, day_of_week=DAYS[slot.weekday()] if kind == "weekly" else None)
        first = latest_slot(cadence, now)
        for _ in range(0 if calm else self.rng.choice([0, 0, 0, 1, 5, 40])):
            assert first
            first = latest_slot(cadence, first - MOMENT)
        assert first
        return cadence, first

    def _cron(self, slot: datetime) -> Cadence:
        """Return an expression in some time zone that has this slot: every hour, every day, or one day of the week.

        If clocks there have changed within the hour, sometimes one whose local time was left out or comes twice.
        """
        zone = self.rng.choice(ZONES)
        offset = (slot - self.rng.choice([timedelta(), HOUR])).astimezone(ZoneInfo(zone)).utcoffset()
        assert offset is not None
        local = slot + offset
        hour = self.rng.choice(["*", local.hour, local.hour])
        day = DAYS[local.weekday()] if hour != "*" and self.rng.random() < DAY_SHARE else "*"
        return Cadence("cron", expression=f"{local.minute} {hour} * * {day}", timezone=zone)

    async def _change(
        self, connection: AsyncConnection[Any], kind: str, routine: KnownRoutine, sql: str, *values: Any
    ) -> None:
        """Change a routine as any client may at any time, racing with the tick."""
        async with connection.transaction():
            state = await self._state(connection, routine)
            if state is None:
                return
            await connection.execute(sql.encode(), [*values, routine.id])
            acknowledged = await self._record(connection, routine.id, kind, state)
        self._done(kind, acknowledged)

    async def _aim(self, connection: AsyncConnection[Any]) -> None:
        """Set a cadence whose next slot is the coming minute: only the clock makes it due."""
        routine = self._pick()
        row = await (await connection.execute("SELECT now()")).fetchone()
        assert row
        soon = row[0].replace(second=0, microsecond=0) + timedelta(minutes=self.rng.choice([1, 1, 1, 2]))
        fixed = self.rng.choice([Cadence("hourly"), Cadence("daily", soon.hour)])._replace(minute_utc=soon.minute)
        cadence = self.rng.choice([fixed, self._cron(soon)])
        if not routine.takes(cadence, soon):
            return
        await self._change(connection, "aim", routine, SET_CADENCE, Jsonb(cadence._asdict()))

    async def _pause(self, connection: AsyncConnection[Any]) -> None:
        await self._change(
            connection, "pause", self._pick(), "UPDATE routines.routines SET paused = true WHERE id = %s"
        )

    async def _rest(self, connection: AsyncConnection[Any]) -> None:
        """Pause a routine until a time, as if it had been paused for some slots already.

        Most pauses end within seconds; some at a slot, or just after one.
        """
        routine = self._pick()
        async with connection.transaction():
            state = await self._state(connection, routine)
            if state is None or state.paused or state.next_run_at is None or state.next_run_at <= state.now:
                return
            soon = state.now.replace(second=0, microsecond=0) + timedelta(minutes=1)
            until, cadence = self.rng.choice(
                [
                    *[(state.now + timedelta(seconds=self.rng.uniform(0.2, 5)), self._passed(state.now, calm=False)[0])]
                    * 3,
                    (soon + timedelta(seconds=self.rng.choice([0, 0, 0.4])), Cadence("hourly", None, soon.minute)),
                ]
            )
            first = latest_slot(cadence, state.now - timedelta(hours=self.rng.choice([0, 0, 2, 30])))
            assert first
            if not routine.takes(cadence, soon):
                return
            await connection.execute(SET_CADENCE.encode(), [Jsonb(cadence._asdict()), routine.id])
            ends = until + state.away
            await connection.execute(REST, [ends, self.rng.choice([None, "maintenance"]), routine.id])
            await connection.execute(REST_SINCE, [first - MOMENT + state.away, first - MOMENT, routine.id])
            acknowledged = await self._record(connection, routine.id, "rest", state, first)
        self._done("rest", acknowledged)

    async def _resume(self, connection: AsyncConnection[Any]) -> None:
        await self._change(
            connection, "resume", self._pick(), "UPDATE routines.routines SET paused = false WHERE id = %s"
        )

    async def _delete(self, connection: AsyncConnection[Any]) -> None:
        """Delete a routine, preferably one that is worn out, and create a new one."""
        routine = next((each for each in self.known if each.worn_out), None) or self._pick()
        async with connection.transaction():
            state = await self._state(connection, routine)
            if state is not None:  # None: an earlier delete succeeded but its answer was lost
                acknowledged = await self._record(connection, routine.id, "delete", state)
                await connection.execute("DELETE FROM routines.routines WHERE id = %s", [routine.id])
                self.last_acknowledged = max(self.last_acknowledged, acknowledged)
        self.known.remove(routine)
        self._done("delete")
        await self._create(connection, calm=routine.calm)

    async def _run_now(self, connection: AsyncConnection[Any]) -> None:
        state = await self._state(connection, self._pick())
        if state is None:  # an earlier delete succeeded but its answer was lost
            return
        with contextlib.suppress(NotFoundError):
            await routines.run_now(connection, key_id=self.key_id, task="work", name=state.name)
            self._done("run_now")

    async def _rerun(self, connection: AsyncConnection[Any]) -> None:
        """Run the newest ended run of a routine again, whole or without its first step."""
        cursor = await connection.execute(
            """SELECT id FROM routines.trajectories WHERE triggered_by_routine_id = %s AND ended_at IS NOT NULL
               ORDER BY id DESC LIMIT 1""",
            [self._pick().id],
        )
        row = await cursor.fetchone()
        if row is None:
            return
        spec = RerunSpec(from_step=self.rng.choice([None, "two"]))
        with contextlib.suppress(NotFoundError, ConflictError):
            made = await trajectories.rerun(connection, spec, key_id=self.key_id, task="work", trajectory_id=row[0])
            if made.id is not None:  # None: the step before was not finished
                self._done("rerun")

    async def _backfill(self, connection: AsyncConnection[Any]) -> None:
        """Fill the slots of some hours, or cancel the newest backfill."""
        routine = self._pick()
        if self.rng.random() < 0.2:
            await connection.execute(
                "SELECT routines.cancel_backfill(max(id)) FROM routines.backfills WHERE routine_id = %s", [routine.id]
            )
            return
        row = await (await connection.execute("SELECT now()")).fetchone()
        assert row
        until = row[0] - timedelta(hours=self.rng.choice([0, 0, 1]))
        spec = BackfillSpec(
            until - timedelta(hours=self.rng.choice([1, 3, 14])),
            until,
            self.rng.choice(["missing", "failed", "all"]),
            self.rng.choice(["oldest", "newest"]),
            self.rng.choice([1, 2]),
        )
        with contextlib.suppress(NotFoundError, ConflictError, InvalidError):
            await backfills.create_backfill(connection, spec, key_id=self.key_id, routine_id=routine.id)
            self._done("backfill")

    async def _poison(self, connection: AsyncConnection[Any]) -> None:
        """Start a run that kills its worker each time, and fails after the third."""
        await routines.run_now(connection, key_id=self.key_id, task="work", name="poison-1")
        self._done("poison")

    async def _again(self, connection: AsyncConnection[Any]) -> None:
        """Set next_run_at back by hand to a slot that has its outcome: it must not get another."""
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
            assert slot
            back = "UPDATE routines.routines SET next_run_at = %s WHERE id = %s"
            await connection.execute(back, [slot + state.away, routine.id])
            acknowledged = await self._record(connection, routine.id, "again", state, slot)
        self._done("again", acknowledged)

    async def _rewind(self, connection: AsyncConnection[Any]) -> None:
        """Set a calm routine's state back to before a slot that has fired: only the key on slots prevents a double."""
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
            await connection.execute(SET_BACK, [slot + state.away, slot - MOMENT, state.strikes, routine.id])
            acknowledged = await self._record(connection, routine.id, "rewind", state, slot)
        self._done("rewind", acknowledged)
