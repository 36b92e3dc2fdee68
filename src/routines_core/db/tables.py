"""How well the tables are kept: sql/queries/tables.sql called from Python."""

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement


class TableState(msgspec.Struct, frozen=True):
    """What Postgres counts of a table. It may be a few seconds behind, and begins at 0 after a crash.

    Attributes:
        changed_rows: Rows that were written since the statistics were made.
        has_old_statistics: Whether that is more than half of its rows.
        has_dead_rows: Whether more rows are dead than alive.
    """

    name: str
    live_rows: int
    dead_rows: int
    changed_rows: int
    lacks_statistics: bool
    has_old_statistics: bool
    has_dead_rows: bool


_LARGE = Statement("tables.large_tables", TableState)


async def large_tables(connection: Connection) -> list[TableState]:
    """Return the tables over a megabyte that this login may read, by name."""
    return await _LARGE.all(connection)
