"""All access to Postgres: the pool, the named statements of sql/queries, one module per aggregate.

The caller owns the transaction: functions here take a connection and never commit. Connections are in autocommit
mode, so that one statement is one transaction unless the caller opens `async with connection.transaction()`.
"""

from routines_core.db.pool import Connection, Pool, connect, open_pool

__all__ = ["Connection", "Pool", "connect", "open_pool"]
