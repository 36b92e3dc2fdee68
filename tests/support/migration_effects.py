"""What a migration really does to the tables that exist already, as Postgres reports it."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from routines_core.db import Connection
from routines_core.db.migration_files import Effect, Migration

STRENGTH = ["ShareUpdateExclusiveLock", "ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]
"""The other locks of tables, the weakest first."""
TABLES = """
    SELECT 'routines.' || relname AS name, pg_relation_filenode(oid) AS node, pg_stat_get_xact_numscans(oid) AS scans,
           pg_stat_get_xact_tuples_inserted(oid) + pg_stat_get_xact_tuples_updated(oid)
           + pg_stat_get_xact_tuples_deleted(oid) AS writes,
           ARRAY(SELECT mode FROM pg_locks WHERE relation = pg_class.oid AND pid = pg_backend_pid()) AS locks
    FROM pg_class
    WHERE relnamespace = 'routines'::regnamespace AND relkind IN ('r', 'v', 'm') AND relname <> 'schema_migrations'
"""
"""What a transaction has done to each table so far. Counts may include what the session did shortly before."""


class Table(NamedTuple):
    """A row of TABLES."""

    name: str
    node: int | None
    scans: int
    writes: int
    locks: list[str]


@dataclass(frozen=True)
class Examined:
    """How a migration ran.

    Attributes:
        effects: What it did to tables that existed before, sorted.
        seconds: How long it held its locks.
    """

    effects: list[Effect]
    seconds: float


async def examine(connection: Connection, migration: Migration) -> Examined:
    """Apply a migration in a transaction, and look at what the transaction has locked, rewritten, read and written.

    An index that is built or dropped while rows are written does the same to its table under a lock that stops nobody.
    """
    text = migration.text.replace(" CONCURRENTLY", "") if migration.index_parts else migration.text
    async with connection.transaction():
        before = await _tables(connection)
        begun_at = time.monotonic()
        await connection.execute(text.encode())
        seconds = time.monotonic() - begun_at
        after = await _tables(connection)
    effects = sorted(each for name in before.keys() & after.keys() for each in _effects(before[name], after[name]))
    if migration.index_parts:
        weakest = _spelled(STRENGTH[0])
        effects = [Effect(each.kind, each.table, weakest if each.mode else "") for each in effects]
    return Examined(effects, 0.0 if migration.index_parts else seconds)


async def _tables(connection: Connection) -> dict[str, Table]:
    return {row[0]: Table(*row) for row in await (await connection.execute(TABLES)).fetchall()}


def _effects(before: Table, after: Table) -> Iterator[Effect]:
    if strong := set(after.locks) & set(STRENGTH):
        yield Effect("locks", after.name, _spelled(max(strong, key=STRENGTH.index)))
    if after.node != before.node:
        yield Effect("rewrites", after.name)
        return
    if after.scans > before.scans:
        yield Effect("reads", after.name)
    if after.writes > before.writes:
        yield Effect("writes", after.name)


def _spelled(mode: str) -> str:
    """Spell a lock as LOCK TABLE does: ShareRowExclusiveLock is SHARE ROW EXCLUSIVE."""
    return " ".join(re.findall("[A-Z][a-z]+", mode)[:-1]).upper()
