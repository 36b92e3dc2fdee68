"""What `routines doctor` says about statistics and dead rows."""

from routines_core.db import Connection
from routines_core.db.tables import TableState, large_tables


async def examine(connection: Connection) -> str:
    """Return a line on the tables that Postgres keeps badly, and what to do. Autovacuum may be about to do it."""
    tables = await large_tables(connection)
    found = [
        _line(
            [each for each in tables if each.lacks_statistics],
            "no statistics of {}: run ANALYZE, as after every restore",
        ),
        _line(
            [each for each in tables if each.has_old_statistics and not each.lacks_statistics],
            "most of {} was written after its statistics were made: run ANALYZE, and see that autovacuum is on",
        ),
        _line(
            [each for each in tables if each.has_dead_rows],
            "more dead rows than others in {}: look for old transactions in pg_stat_activity, then run VACUUM",
        ),
    ]
    return "; ".join(filter(None, found)) or "have statistics, and few dead rows"


def _line(tables: list[TableState], sentence: str) -> str:
    return sentence.format(", ".join(each.name for each in tables)) if tables else ""
