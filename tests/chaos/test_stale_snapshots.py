"""Hold a statement up between its snapshot and its locks: it must act on rows as they are now, not as they were.

A backend may lose the CPU at any moment. Here a row-security policy that waits for an advisory lock stops it: Postgres
evaluates the policy when the scan meets a row, after the snapshot was taken and before the row is locked.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

from routines_core.db import Connection, connect, runs
from routines_core.db import tick as db
from routines_core.db.runs import StepRecord
from support.rows import CATCHUP, Database, at, ledger, make_routine, make_task, value

GATE = 4712
HOLD_UP = """
    CREATE FUNCTION public.pass_gate() RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock_shared({gate}); RETURN true; END $$;
    ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
    CREATE POLICY pass_gate ON {table} AS RESTRICTIVE USING (public.pass_gate()) WITH CHECK (true);
    CREATE ROLE {role} LOGIN IN ROLE routines_ticker, routines_worker;
    GRANT USAGE ON SCHEMA routines TO {role};
    GRANT ALL ON ALL TABLES IN SCHEMA routines TO {role};
"""
WAITING = """SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


@asynccontextmanager
async def held_up_at(table: str, connection: Connection, database: Database) -> AsyncGenerator[Connection]:
    """Yield a connection whose statements wait at each row of this table while the test keeps the gate closed."""
    role = f"held_up_{uuid.uuid4().hex[:8]}"
    await connection.execute(HOLD_UP.format(gate=GATE, table=table, role=role).encode())
    parts = urlsplit(database.url)
    url = urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
    try:
        async with connect(url, "held-up") as held_up:
            yield held_up
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


async def while_held_up(
    connection: Connection, statement: Awaitable[object], meanwhile: Callable[[], Awaitable[None]]
) -> object:
    """Return the statement's result if something else happens between its snapshot and its locks."""
    await connection.execute("SELECT pg_advisory_lock(%s)", [GATE])
    task = asyncio.ensure_future(statement)
    async with asyncio.timeout(20):
        while not await value(connection, WAITING):
            await asyncio.sleep(0.01)
        await meanwhile()
        await connection.execute("SELECT pg_advisory_unlock(%s)", [GATE])
        return await task


async def test_a_slot_blocked_by_a_run_newer_than_the_ticks_snapshot_is_recorded_as_an_overlap(
    connection: Connection, database: Database
) -> None:
    """One ticker catches up on 09:00 across 10:00, when another one's tick of 10:00 has already begun."""
    routine = await make_routine(connection, await make_task(connection), at("2026-05-04 09:00"), hourly=True)

    async def fire_the_first_slot() -> None:
        done = await db.tick(connection, batch_size=10, now=at("2026-05-04 09:59:59"), **CATCHUP)
        assert done.fired == 1

    async with held_up_at("routines.routines", connection, database) as held_up:
        second = db.tick(held_up, batch_size=10, now=at("2026-05-04 10:00:01"), **CATCHUP)
        await while_held_up(connection, second, fire_the_first_slot)
    assert await ledger(connection, routine) == [
        (at("2026-05-04 09:00"), 1, "started", None),
        (at("2026-05-04 10:00"), 1, "skipped", "overlap"),
    ]


async def test_a_claim_returns_steps_that_were_finished_after_its_snapshot(
    connection: Connection, database: Database
) -> None:
    """Another worker claims the run, finishes a step and gives the run back while this claim is held up."""
    task = await make_task(connection)
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
           SELECT collection_id, id, 1, 'api', '{}' FROM routines.tasks WHERE id = %s""",
        [task],
    )

    async def finish_a_step() -> None:
        [run] = await runs.claim(connection, capacity=1, worker="other", lease_seconds=60, deadline_seconds=600)
        step = StepRecord("one", 0, "completed", "text_echo", {}, {"text": "hi"})
        assert await runs.checkpoint(connection, run, step, lease_seconds=60)
        assert await runs.release(connection, [(run.id, run.fence)]) == 1

    async with held_up_at("routines.trajectories", connection, database) as held_up:
        claim = runs.claim(held_up, capacity=1, worker="held-up", lease_seconds=60, deadline_seconds=600)
        claimed = await while_held_up(connection, claim, finish_a_step)
    assert isinstance(claimed, list)
    loaded = [await runs.load(connection, run) for run in claimed]
    assert [list(json.loads(run.finished_steps or "")) for run in loaded if run] == [["one"]]
