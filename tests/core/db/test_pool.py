"""The pool replaces connections that were lost, and makes nobody wait for those that it finds dead."""

import time
from contextlib import AsyncExitStack

import psycopg

from routines_core.db import Connection, Pool, connect, open_pool
from support.rows import Database, value
from support.stepping import until

SIZE = 10
AT_ONCE_SECONDS = 2.0
"""Less than a second time a pool would have waited between two dead connections, on a busy machine too."""


async def fill(pool: Pool) -> set[int]:
    """Have the pool open all of its connections. Returns their server processes."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(pool.connection()) for _ in range(SIZE)]
        return {connection.info.backend_pid for connection in opened}


async def end_all(connection: Connection, program: str) -> None:
    """End all sessions of a program, and wait until they are gone."""
    query = "SELECT bool_and(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE application_name = %s"
    assert await value(connection, query, program)


async def test_after_all_sessions_were_ended_the_next_caller_is_served_at_once(
    connection: Connection, database: Database
) -> None:
    async with open_pool(database.url, "ended", size=SIZE) as pool:
        for _ in range(3):
            before = await fill(pool)
            await end_all(connection, "ended")
            for _ in range(2):
                begun_at = time.monotonic()
                async with pool.connection() as served:
                    assert await value(served, "SELECT pg_backend_pid()") not in before
                assert time.monotonic() - begun_at < AT_ONCE_SECONDS
        assert len(await fill(pool)) == SIZE  # none was lost


async def test_the_servers_timeout_of_idle_sessions_ends_no_connection(
    connection: Connection, database: Database
) -> None:
    await connection.execute("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET idle_session_timeout = ''200ms''', "
                             "current_database()); END $$")  # fmt: skip
    async with open_pool(database.url, "idle", size=SIZE) as pool, connect(database.url, "listener") as listener:
        before = await fill(pool)
        await listener.execute("LISTEN routines_pending")
        # A session that nobody has set up, which is idle for as long as they are, is ended.
        async with await psycopg.AsyncConnection.connect(database.url, application_name="bare", autocommit=True):
            await until(connection, "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'bare'")
        assert await fill(pool) == before
        await connection.execute("NOTIFY routines_pending")
        assert [notify.channel async for notify in listener.notifies(timeout=10, stop_after=1)] == ["routines_pending"]
