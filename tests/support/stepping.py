"""Steps real sessions through a chosen interleaving.

A statement is stopped where it meets a lock that the test holds; the test goes on when the lock manager says that it
waits. No step waits for a time.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

from routines_core.db import Connection, connect
from routines_core.db.statements import Statement
from routines_core.db.tick import MAX_INIT_PARAMS_BYTES, MAX_STRIKES, ON_TIME_SECONDS, Tick, tick
from support.rows import CATCHUP, Database, value

GATE = 4711
"""The advisory lock at which statements are stopped."""
PATIENCE_SECONDS = 10.0
"""After this a test fails instead of waiting for a lock state that never comes."""


@asynccontextmanager
async def session(database: Database, name: str) -> AsyncGenerator[Connection]:
    """A session that may hold a transaction open for as long as the test likes."""
    settings = {"idle_in_transaction_session_timeout": "0", "lock_timeout": f"{PATIENCE_SECONDS:.0f}s"}
    async with connect(database.url, name, **settings) as opened:
        yield opened


async def until(watch: Connection, query: str, *parameters: object) -> None:
    """Return once the query's one value is true."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await value(watch, query, *parameters):  # noqa: ASYNC110 - the state is the database's
            await asyncio.sleep(0.002)


async def until_blocked(watch: Connection, blocked: Connection | int) -> None:
    """Return once the session, or the backend of this pid, waits for a lock that another holds."""
    pid = blocked if isinstance(blocked, int) else blocked.info.backend_pid
    await until(watch, "SELECT cardinality(pg_blocking_pids(%s)) > 0", pid)


class Gate:
    """Closed by one session of its own: whoever comes to it waits until it is opened."""

    def __init__(self, keeper: Connection) -> None:
        self._keeper = keeper

    async def close(self) -> None:
        await self._keeper.execute("SELECT pg_advisory_lock(%s)", [GATE])

    async def open(self) -> None:
        await self._keeper.execute("SELECT pg_advisory_unlock(%s)", [GATE])


@asynccontextmanager
async def closed_gate(database: Database) -> AsyncGenerator[Gate]:
    """A gate that is closed; opened at the end at the latest."""
    async with session(database, "gate") as keeper:
        await keeper.execute(
            f"""CREATE FUNCTION pass_gate() RETURNS boolean LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN true; END'"""
        )
        gate = Gate(keeper)
        await gate.close()
        yield gate


async def stop_inserts_at_gate(connection: Connection) -> None:
    """A fire by the session `ticker` stops where it holds its routines and is about to insert its runs."""
    await connection.execute(
        """CREATE FUNCTION stop_at_gate() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN PERFORM pass_gate(); RETURN NEW; END'"""
    )
    await connection.execute(
        """CREATE TRIGGER a_stop_at_gate BEFORE INSERT ON routines.trajectories FOR EACH ROW
           WHEN (NEW.trigger = 'schedule' AND current_setting('application_name') = 'ticker')
           EXECUTE FUNCTION stop_at_gate()"""
    )


TICK = {
    **CATCHUP, "batch_size": 10, "only_ids": None, "only_slots": None, "set_aside": None, "fault": None,
    "on_time_seconds": ON_TIME_SECONDS, "max_init_params_bytes": MAX_INIT_PARAMS_BYTES, "max_strikes": MAX_STRIKES,
}  # fmt: skip
"""The parameters of the statement tick.tick, but for `now`."""


async def tick_at(connection: Connection, now: datetime, batch_size: int = 10) -> Tick:
    """The tick of the product."""
    return await tick(connection, batch_size=batch_size, now=now, **CATCHUP)


async def tick_that_stops_before_its_locks(connection: Connection, now: datetime) -> Tick:
    """The tick of the product, stopped at the gate after it took its snapshot and before it locks a routine."""
    text = Statement.declared["tick.tick"].text
    stopped = text.replace("    WHERE next_run_at <=", "    WHERE pass_gate() AND next_run_at <=", 1)
    assert stopped != text
    cursor = await connection.execute(stopped.encode(), {**TICK, "now": now})
    row = await cursor.fetchone()
    assert row
    assert cursor.description
    return Tick(**dict(zip([column.name for column in cursor.description], row, strict=True)))


@asynccontextmanager
async def running(step: Callable[[], Awaitable[Any]]) -> AsyncGenerator[asyncio.Task[Any]]:
    """The step as a task, awaited or cancelled at the end."""

    async def awaited() -> Any:
        return await step()

    async with AsyncExitStack() as stack:
        task = asyncio.create_task(awaited())
        stack.callback(task.cancel)
        yield task
