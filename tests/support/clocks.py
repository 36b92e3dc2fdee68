"""Move a database's clock: every now() in the product's statements and triggers follows it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime

from routines_core.db import Connection, connect
from support.rows import Database

SET_UP = """
CREATE SCHEMA moved;
CREATE TABLE moved.clock (now timestamptz NOT NULL);
CREATE FUNCTION moved.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now FROM moved.clock';
CREATE FUNCTION moved.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now FROM moved.clock';
ALTER FUNCTION routines.settle_slots() SET search_path = moved, pg_catalog, pg_temp;
INSERT INTO moved.clock VALUES (pg_catalog.now());
"""


async def move_clock(connection: Connection, now: datetime) -> None:
    """Set the clock of a database prepared by `moved_clock`, forward or back."""
    await connection.execute("UPDATE moved.clock SET now = %s", [now])


@asynccontextmanager
async def moved_clock(database: Database, now: datetime, name: str = "moved") -> AsyncGenerator[Connection]:
    """Yield a session for which it is `now`, until `move_clock` says otherwise.

    In its search path a schema comes before pg_catalog. Defaults of columns keep the real clock.
    """
    async with connect(database.url, name) as connection:
        await connection.execute(SET_UP)
        await connection.execute("SET search_path = moved, pg_catalog, public")
        await move_clock(connection, now)
        yield connection
