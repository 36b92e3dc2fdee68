"""The notification that wakes idle workers when runs are inserted: routines.wake_workers in SQL."""

from collections.abc import AsyncGenerator

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement

_LISTEN = Statement("runs.listen", NoRow)


async def wakeups(connection: Connection) -> AsyncGenerator[None]:
    """Yield once at the start, because a notification may have been missed, and then once per notification."""
    await _LISTEN.run(connection)
    yield
    async for _ in connection.notifies():
        yield
