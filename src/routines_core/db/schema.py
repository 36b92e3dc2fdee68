"""Compares the database's schema with this version of Routines, as every program does when it starts.

An older schema is refused, since statements would fail on it. A newer one is accepted, so that the programs can be
replaced one after another once the database is migrated; migrations keep to what the previous version needs. Without
any schema, programs wait for it, since they may be started together with `routines migrate`.
"""

import asyncio

import structlog

from routines_core.bulkhead import Bulkhead
from routines_core.db.migration_files import compare_history
from routines_core.db.pool import AWAY, Connection, connect
from routines_core.errors import DatabaseError, MigrationError, StatementTimeoutError
from routines_core.lifecycle import sleep_or_stop

LOOK_AGAIN_SECONDS = 1.0
"""How often a program that waits for a schema, or for the database, looks again."""
MISSING = "The database has no schema of Routines: run `routines migrate`."

log = structlog.get_logger("schema")


async def examine_schema(connection: Connection) -> str | None:
    """Compare the schema with this version of Routines.

    Returns:
        None if it is the schema of this version; otherwise a sentence that says what differs, with which this version
        can work.

    Raises:
        NoSchemaError: There is no schema yet.
        MigrationError: This version cannot work with it. The message says what to do.
    """
    found = await compare_history(connection)
    if not found.has_history:
        raise NoSchemaError(MISSING)
    if found.pending:
        raise MigrationError(
            f"The database schema is older than this version of Routines: {len(found.pending)} migrations are pending, "
            f"the first is {found.pending[0].name}. Run `routines migrate`."
        )
    if found.unknown:
        return (
            f"The database schema is newer than this version of Routines, by {len(found.unknown)} migrations up to "
            f"{found.unknown[-1]}. Continuing; install the newer version."
        )
    return None


class NoSchemaError(MigrationError):
    """The database has no schema of Routines yet."""


async def await_schema(
    database_url: str, program: str, stop: asyncio.Event, *, role: str | None = None, waits_for_server: bool = True
) -> None:
    """Return once the database has a schema that this version can work with, or `stop` is set.

    Logs once what it waits for, and that the schema is newer.

    Args:
        database_url: The database.
        program: The name in pg_stat_activity.
        stop: Ends the wait.
        role: The role of Postgres that the program takes on.
        waits_for_server: Also wait for a database that cannot be reached; otherwise that is an error.

    Raises:
        MigrationError: The schema is older, or belongs to another branch.
        DatabaseError: The database cannot be reached.
    """
    said, bulkhead = "", Bulkhead("start", longest_seconds=LOOK_AGAIN_SECONDS)
    while not stop.is_set():
        try:
            async with connect(database_url, program, role=role, statement_timeout="10s") as connection:
                newer = await examine_schema(connection)
        except NoSchemaError:
            said = _say(said, "no schema yet, waiting for `routines migrate`")
        except MigrationError:
            raise
        except (*AWAY, DatabaseError, StatementTimeoutError) as error:
            if not waits_for_server:
                raise DatabaseError("The database cannot be reached.") from error
            bulkhead.failed(error)
        else:
            if newer:
                log.warning("schema is newer", detail=newer)
            return
        await sleep_or_stop(stop, LOOK_AGAIN_SECONDS)


def _say(said: str, message: str) -> str:
    """Log a message unless it was the last one. Returns it."""
    if message != said:
        log.warning(message)
    return message
