"""The notification by which idle workers hear of new runs: routines.ring in SQL."""

from collections.abc import AsyncGenerator

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement

_LISTEN = Statement("runs.listen", NoRow)


async def rings(connection: Connection) -> AsyncGenerator[None]:
    """One item as soon as it listens, since it may have missed one before, and one for each notification."""
    await _LISTEN.run(connection)
    yield
    async for _ in connection.notifies():
        yield
