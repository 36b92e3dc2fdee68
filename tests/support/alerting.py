"""Alert rules and what happens to routines, in plain SQL, and rounds of judging them."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import msgspec

from routines_core.db import Connection
from routines_core.db.alerts import EVERY_SECONDS, Judged, judge
from support.rows import make_routine, value

EVENTS = ["late", "missed", "failed", "streak", "slow", "paused", "webhook_stopped"]
RULE = {"events": [*EVENTS, "recovered"], "streak": 2, "webhook_url": "http://receiver.test/alerts"}
MINUTE = timedelta(minutes=1)
PAUSE = "UPDATE routines.routines SET paused = true, paused_reason = NULL, paused_note = 'holidays' WHERE id = %s"
STOP = "UPDATE routines.routines SET paused = true, paused_reason = 'paused after 3 strikes' WHERE id = %s"
RESUME = "UPDATE routines.routines SET paused = false WHERE id = %s"


async def make_hourly(connection: Connection, task: int, name: str = "morning") -> int:
    """Create an hourly routine whose next slot is in half an hour, and return its id."""
    soon = datetime.now().astimezone() + timedelta(minutes=30)
    return await make_routine(connection, task, soon, name=name, hourly=True)


async def others(connection: Connection, task: int, count: int) -> list[int]:
    """Create more such routines, and return their ids."""
    return [await make_hourly(connection, task, f"r{n}") for n in range(count)]


async def make_rule(connection: Connection, name: str = "on-call", **fields: Any) -> int:
    """Create a rule of the collection `my-org` that was made yesterday, by default for all events. Returns its id."""
    fields = {**RULE, **fields}
    if "streak" not in fields["events"]:
        fields["streak"] = None
    columns = ", ".join(fields)
    cursor = await connection.execute(
        f"""INSERT INTO routines.alert_rules (collection_id, name, created_at, digested_until, {columns})
            SELECT id, %s, now() - interval '1 day', now() - interval '1 day', {", ".join(["%s"] * len(fields))}
            FROM routines.collections WHERE name = 'my-org' RETURNING id""".encode(),
        [name, *fields.values()],
    )
    row = await cursor.fetchone()
    assert row
    return row[0]


async def judge_all(connection: Connection, now: datetime | None = None, **arguments: Any) -> list[Judged]:
    """Make one round. Returns what each statement did."""
    return [await judge(connection, what, every_seconds=None, now=now, **arguments) for what in EVERY_SECONDS]


async def judge_until_done(connection: Connection) -> None:
    """Make rounds until nothing is left to do."""
    async with asyncio.timeout(30):
        while any(judged.handled for judged in await judge_all(connection)):
            pass


async def states(connection: Connection) -> list[tuple[str, str]]:
    """Return the event and state of each alert, oldest first."""
    cursor = await connection.execute("SELECT event, state FROM routines.alert_details ORDER BY id")
    return await cursor.fetchall()


async def notices(connection: Connection) -> list[dict[str, Any]]:
    """Return the bodies of all notices, oldest first."""
    cursor = await connection.execute(
        "SELECT body FROM routines.webhook_deliveries WHERE rule_id IS NOT NULL ORDER BY id"
    )
    return [msgspec.json.decode(bytes(body)) for (body,) in await cursor.fetchall()]


async def told(connection: Connection) -> list[str]:
    """Return the event of each notice, oldest first."""
    return [notice["event"] for notice in await notices(connection)]


async def set_late(connection: Connection, routine: int, minutes: float = 2) -> None:
    """Let a slot of the routine be due for so long."""
    await connection.execute(
        "UPDATE routines.routines SET next_run_at = now() - %s, settled_until = NULL WHERE id = %s",
        [minutes * MINUTE, routine],
    )


async def start(connection: Connection, routine: int, minutes_ago: float = 0, *, trigger: str = "schedule") -> int:
    """Start a run of the routine, on schedule for a slot that was due so long ago. Returns the run."""
    cursor = await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                              scheduled_for, created_at, init_params)
           SELECT collection_id, task_id, 1, id, %(trigger)s,
                  CASE %(trigger)s WHEN 'schedule' THEN now() - %(ago)s::interval END,
                  now() - %(ago)s::interval, '{}'
           FROM routines.routines WHERE id = %(id)s RETURNING id""",
        {"trigger": trigger, "ago": minutes_ago * MINUTE, "id": routine},
    )
    row = await cursor.fetchone()
    assert row
    return row[0]


async def end(connection: Connection, run: int, status: str = "completed", error: str | None = None) -> None:
    """End a run."""
    await connection.execute(
        "UPDATE routines.trajectories SET status = %s, error = %s, started_at = created_at, ended_at = now() "
        "WHERE id = %s",
        [status, error, run],
    )


async def fail(connection: Connection, routine: int, minutes_ago: float = 0) -> int:
    """Let a slot of the routine fail. Returns the run."""
    run = await start(connection, routine, minutes_ago)
    await end(connection, run, "failed", "step 'ask' failed: no response")
    return run


async def complete(connection: Connection, routine: int, minutes_ago: float = 0) -> int:
    """Let a slot of the routine complete. Returns the run."""
    run = await start(connection, routine, minutes_ago)
    await end(connection, run)
    return run


async def miss(connection: Connection, routine: int, minutes_ago: float = 0, reason: str = "missed") -> None:
    """Record that the slots of a routine were missed, or what else became of them."""
    await connection.execute(
        """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason)
           SELECT collection_id, id, now() - %s, now() - %s, %s FROM routines.routines WHERE id = %s""",
        [minutes_ago * MINUTE, minutes_ago * MINUTE, reason, routine],
    )


async def run_on(connection: Connection, routine: int, minutes: float) -> int:
    """Begin a scheduled run that has been running for so long. Returns it."""
    run = await start(connection, routine, minutes)
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'running', started_at = created_at, "
        "lease_expires_at = now() + interval '1 hour' WHERE id = %s",
        [run],
    )
    return run


async def give_up_webhook(connection: Connection, routine: int, reason: str = "it answered 500") -> int:
    """Let a webhook of a run of the routine be given up. Returns the delivery."""
    run = await start(connection, routine, trigger="run-now")
    await connection.execute("UPDATE routines.trajectories SET webhook_url = 'http://a.test/' WHERE id = %s", [run])
    await end(connection, run)
    delivery = await value(
        connection,
        "UPDATE routines.webhook_deliveries SET next_attempt_at = NULL, give_up_reason = %s "
        "WHERE trajectory_id = %s RETURNING id",
        reason,
        run,
    )
    assert isinstance(delivery, int)
    return delivery
