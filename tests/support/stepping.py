"""Step real sessions through a chosen interleaving.

A statement stops at a lock that the test holds. The test continues once the lock manager reports that the statement is
waiting. No step relies on elapsed time.
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
"""The advisory lock at which statements stop."""
TIMEOUT_SECONDS = 10.0
"""How long a test waits for a lock state before it fails."""


@asynccontextmanager
async def session(database: Database, name: str) -> AsyncGenerator[Connection]:
    """Yield a session that may keep a transaction open for as long as the test likes."""
    settings = {"idle_in_transaction_session_timeout": "0", "lock_timeout": f"{TIMEOUT_SECONDS:.0f}s"}
    async with connect(database.url, name, **settings) as opened:
        yield opened


async def until(watch: Connection, query: str, *parameters: object) -> None:
    """Wait until the query's single value is true."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not await value(watch, query, *parameters):  # noqa: ASYNC110 - the database has no event to wait for
            await asyncio.sleep(0.002)


async def until_blocked(watch: Connection, blocked: Connection | int) -> None:
    """Wait until the session, or the backend with this pid, is waiting for a lock that another session holds."""
    pid = blocked if isinstance(blocked, int) else blocked.info.backend_pid
    await until(watch, "SELECT cardinality(pg_blocking_pids(%s)) > 0", pid)


class Gate:
    """A gate that a session of its own keeps closed: statements that reach it wait until it opens."""

    def __init__(self, keeper: Connection) -> None:
        self._keeper = keeper

    async def close(self) -> None:
        await self._keeper.execute("SELECT pg_advisory_lock(%s)", [GATE])

    async def open(self) -> None:
        await self._keeper.execute("SELECT pg_advisory_unlock(%s)", [GATE])


@asynccontextmanager
async def closed_gate(database: Database) -> AsyncGenerator[Gate]:
    """Yield a closed gate; it opens at the end of the block at the latest."""
    async with session(database, "gate") as keeper:
        await keeper.execute(
            f"""CREATE FUNCTION pass_gate() RETURNS boolean LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN true; END'"""
        )
        gate = Gate(keeper)
        await gate.close()
        yield gate


async def stop_inserts_at_gate(connection: Connection) -> None:
    """Make fires by the session `ticker` stop at the gate: their routines are locked, their runs not yet inserted."""
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
    "traceparent": None, "looks_for_runs": False,
}  # fmt: skip
"""The parameters of the statement tick.tick, except `now`."""


async def tick_at(connection: Connection, now: datetime, batch_size: int = 10) -> Tick:
    """Run the product's tick."""
    return await tick(connection, batch_size=batch_size, now=now, **CATCHUP)


async def tick_that_stops_before_its_locks(connection: Connection, now: datetime) -> Tick:
    """Run the product's tick, stopped at the gate after it has taken its snapshot and before it locks a routine."""
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
    """Yield the step as a task, which is cancelled at the end of the block unless it has finished."""

    async def awaited() -> Any:
        return await step()

    async with AsyncExitStack() as stack:
        task = asyncio.create_task(awaited())
        stack.callback(task.cancel)
        yield task
