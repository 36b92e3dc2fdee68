"""Freeze a ticker in the middle of a batch: its routines are soon unlocked and fire once."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from chaos.fleet import Fleet
from routines_core.db import Connection
from support.rows import Database, at, make_routine, make_task, value

pytestmark = pytest.mark.slow
GATE = 4711
"""An advisory lock: a ticker that fires waits for it while its batch's rows are locked."""
WAIT_AT_GATE = f"""
    CREATE FUNCTION public.wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NEW; END $$;
    CREATE TRIGGER wait_at_gate BEFORE INSERT ON routines.trajectories
        FOR EACH ROW EXECUTE FUNCTION public.wait_at_gate();
"""
WAITING = """SELECT min(pid) FROM pg_locks
             WHERE locktype = 'advisory' AND NOT granted
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
FREE = "SELECT count(*) FROM (SELECT FROM routines.routines FOR UPDATE SKIP LOCKED) AS free"
DOUBLES = """SELECT count(*) FROM (SELECT FROM routines.occurrences
                                   GROUP BY routine_id, scheduled_for HAVING count(*) > 1) AS doubles"""
DUE = at("2026-05-04 09:00")
ROUTINES = 5
SOON_SECONDS = 10
"""Generous for busy machines: the session timeout is 2 s."""


async def until(condition: Callable[[], Awaitable[object]], seconds: float = 30) -> object:
    async with asyncio.timeout(seconds):
        while not (met := await condition()):
            await asyncio.sleep(0.02)
    return met


class Stage:
    """Due routines, a closed gate, and one ticker frozen at it in the middle of its batch."""

    def __init__(self, connection: Connection, database: Database, directory: Path) -> None:
        self.connection = connection
        self.fleet = Fleet(directory, lambda _: database.url, {"ROUTINES_CATCHUP_SECONDS": str(10**9)})

    async def set(self) -> int:
        """Freeze the ticker and return the process id of its backend."""
        await self.connection.execute(WAIT_AT_GATE)
        await self.connection.execute("SELECT pg_advisory_lock(%s)", [GATE])
        task = await make_task(self.connection)
        for number in range(ROUTINES):
            await make_routine(self.connection, task, DUE, name=f"routine-{number}")
        self.fleet.start(tickers=1, workers=0)
        backend = await until(lambda: value(self.connection, WAITING))
        assert await value(self.connection, FREE) == 0
        self.fleet.programs[0].send(signal.SIGSTOP)
        assert isinstance(backend, int)
        return backend

    async def open_gate(self) -> None:
        await self.connection.execute("SELECT pg_advisory_unlock(%s)", [GATE])

    async def settled(self) -> None:
        """Wait until every routine has an outcome for today and its row is unlocked."""

        async def fired() -> bool:
            return await value(self.connection, "SELECT count(*) FROM routines.trajectories") == ROUTINES

        async def free() -> bool:
            return await value(self.connection, FREE) == ROUTINES

        await until(fired, SOON_SECONDS)
        await until(free, SOON_SECONDS)

    async def thaw_and_fire_again(self) -> None:
        """Resume the ticker and make the routines due again, to show that it is back at work."""
        self.fleet.programs[0].send(signal.SIGCONT)
        for program in self.fleet.programs[1:]:
            program.process.kill()
            program.process.wait()
        await self.connection.execute("UPDATE routines.trajectories SET status = 'cancelled', ended_at = now()")
        await self.connection.execute("UPDATE routines.routines SET next_run_at = now() - interval '1 second'")

        async def fired() -> bool:
            return await value(self.connection, "SELECT count(*) FROM routines.trajectories") == 2 * ROUTINES

        await until(fired)
        assert await value(self.connection, DOUBLES) == 0


async def test_a_frozen_tickers_batch_fires_once_if_its_statement_completes(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    stage = Stage(connection, database, tmp_path)
    try:
        await stage.set()
        await stage.open_gate()
        await stage.settled()
        await stage.thaw_and_fire_again()
    finally:
        stage.fleet.kill()


async def test_a_frozen_tickers_batch_is_fired_by_another_ticker_if_its_connection_is_lost(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    stage = Stage(connection, database, tmp_path)
    try:
        backend = await stage.set()
        await connection.execute("SELECT pg_terminate_backend(%s)", [backend])
        await stage.open_gate()
        stage.fleet.add("ticker")
        await stage.settled()
        await stage.thaw_and_fire_again()
    finally:
        stage.fleet.kill()
