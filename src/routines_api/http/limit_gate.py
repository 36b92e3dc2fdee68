"""Refuses requests of a collection that is at one of its limits.

Counting rows on each request would make requests more expensive as the collection grows. So each process counts from
time to time, adds what it has let through since, and spends at most a twentieth of one connection's time on counting
for a collection. What other processes let through shows at the next count, so a limit may be exceeded by as much as
they let through in a second.
"""

import time
from dataclasses import dataclass, field

from routines_core.db import Connection
from routines_core.db import limits as db
from routines_core.db.keys import AuthContext
from routines_core.db.limits import LimitInUse
from routines_core.errors import LimitExceededError
from routines_core.limits import LIMITS

RUNS = ("active_runs", "stored_bytes", "pending_webhooks")
"""Checked before a run starts."""
ROUTINES = ("routines",)
TASKS = ("tasks",)
FEEDS = ("feeds",)
CALENDARS = ("calendars",)
ALERT_RULES = ("alert_rules",)
FILES = ("files", "file_bytes")
WEBHOOKS = "pending_webhooks"

FRESH_SECONDS = 1.0
"""Minimum age at which a count is repeated."""
COUNTING_SHARE = 0.05
"""Maximum share of one connection's time spent on counting."""
HANDFUL_SHARE = 0.02
"""Maximum share of a minute's runs that a process reserves at once. Reservations start at one and double."""
UNBOUNDED_HANDFUL = 1000
"""Number of runs after which a process without a limit checks again for one."""
_COUNTED_BY_RUNS = {"active_runs", "routines", "tasks", "feeds", "calendars", "alert_rules"}
"""Limits whose use grows by one with each request that is let through."""


@dataclass
class _Count:
    limits: list[LimitInUse]
    fresh_until: float
    repeat_at: float
    let_through: int = 0

    def exceeded(self, *, with_webhook: bool) -> LimitExceededError | None:
        for limit in self.limits:
            use = (limit.use or 0) + (self.let_through if limit.name in _COUNTED_BY_RUNS else 0)
            if limit.value is not None and use >= limit.value and (with_webhook or limit.name != WEBHOOKS):
                return LimitExceededError(limit.name, limit.value, use, LIMITS[limit.name].unit)
        return None


@dataclass
class _Minute:
    reserved: int = 0
    handful: int = 1
    ends_at: float = 0.0
    full_until: float = 0.0
    refusal: tuple[int, int] = (0, 0)


@dataclass
class LimitGate:
    """The gate of one process."""

    _counts: dict[tuple[int, tuple[str, ...]], _Count] = field(
        default_factory=dict[tuple[int, tuple[str, ...]], _Count]
    )
    _minutes: dict[int, _Minute] = field(default_factory=dict[int, _Minute])

    async def ask(
        self, connection: Connection, auth: AuthContext, names: tuple[str, ...], *, with_webhook: bool = True
    ) -> LimitExceededError | None:
        """Check these limits for one more object of the collection, and count it.

        Returns:
            None if it may, otherwise the error to raise once the request is known to be new.

        Args:
            connection: Any connection.
            auth: The key of the request.
            names: RUNS, ROUTINES, TASKS, FEEDS, CALENDARS, ALERT_RULES or FILES.
            with_webhook: Whether the limit of pending webhooks counts.
        """
        held, now = self._counts.get((auth.collection_id, names)), time.monotonic()
        refusal = held.exceeded(with_webhook=with_webhook) if held else None
        if held is None or now >= held.fresh_until or (refusal and now >= held.repeat_at):
            held = await self._count(connection, auth, names, held)
            refusal = held.exceeded(with_webhook=with_webhook)
        if refusal is None:
            held.let_through += 1
        return refusal

    async def ask_run(
        self, connection: Connection, auth: AuthContext, *, with_webhook: bool
    ) -> LimitExceededError | None:
        """Check whether the collection may start one more run by HTTP, and count it.

        Returns:
            None if it may, otherwise the error to raise once the request is known to be new.
        """
        refusal = await self.ask(connection, auth, RUNS, with_webhook=with_webhook)
        return refusal or await self._take_run(connection, auth)

    async def _count(
        self, connection: Connection, auth: AuthContext, names: tuple[str, ...], held: _Count | None
    ) -> _Count:
        began = time.monotonic()
        if held:
            # Until this count ends, other requests use the previous one.
            held.fresh_until = held.repeat_at = began + FRESH_SECONDS
        limits = await db.measure(connection, auth.key_id, names)
        now = time.monotonic()
        repeat_at = now + (now - began) / COUNTING_SHARE
        counted = _Count(limits, max(repeat_at, now + FRESH_SECONDS), repeat_at)
        if names == FILES:
            counted.fresh_until = now  # read from a single row, which every process updates when it saves files
        self._counts[auth.collection_id, names] = counted
        return counted

    async def _take_run(self, connection: Connection, auth: AuthContext) -> LimitExceededError | None:
        minute = self._minutes.setdefault(auth.collection_id, _Minute())
        now = time.monotonic()
        if now >= minute.ends_at:
            minute.reserved, minute.handful = 0, 1
        if minute.reserved == 0 and now >= minute.full_until:
            taken = await db.take_runs(connection, auth.key_id, wanted=minute.handful)
            now = time.monotonic()
            minute.reserved += taken.granted  # another request may have taken some meanwhile
            minute.ends_at = now + taken.seconds_left
            most = UNBOUNDED_HANDFUL if taken.most is None else max(1, int(taken.most * HANDFUL_SHARE))
            minute.handful = min(2 * minute.handful, most)
            if not taken.granted:
                minute.full_until = min(minute.ends_at, now + FRESH_SECONDS)
                minute.refusal = (taken.most or 0, taken.begun or 0)
        if minute.reserved == 0:
            most, begun = minute.refusal
            return LimitExceededError(
                "runs_per_minute", most, begun, LIMITS["runs_per_minute"].unit, max(0.0, minute.ends_at - now)
            )
        minute.reserved -= 1
        return None
