"""How commands reach the database."""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from routines_core.db import Connection, connect
from routines_core.db.pool import refuse_malformed
from routines_core.db.schema import examine_schema
from routines_core.embedded import running_url
from routines_core.errors import ConfigurationError
from routines_core.settings import Settings

LOCK_TIMEOUT = "5s"
"""How long a command waits for a lock that another session holds."""


def database_url(settings: Settings) -> str:
    """Return DATABASE_URL, or the URL of the server that `routines up` runs in the data directory.

    Raises:
        ConfigurationError: There is neither, or the URL is malformed.
    """
    url = settings.database_url or running_url(settings.data_dir)
    if url is None:
        raise ConfigurationError(
            f"No database: DATABASE_URL is not set, and no server is running in {settings.data_dir}. "
            "Start one with `routines up`, or set DATABASE_URL."
        )
    refuse_malformed(url)
    return url


@asynccontextmanager
async def connected(settings: Settings, command: str) -> AsyncGenerator[Connection]:
    """Connect for a command, and say on stderr if the schema is newer than this version of Routines.

    Raises:
        DatabaseError: The database cannot be reached.
        MigrationError: There is no schema, or this version cannot work with it.
    """
    async with connect(database_url(settings), f"routines-{command}", lock_timeout=LOCK_TIMEOUT) as connection:
        if newer := await examine_schema(connection):
            print(f"routines: {newer}", file=sys.stderr)
        yield connection
