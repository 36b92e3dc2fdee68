"""Applies pending migrations to a database that is in use, one after another.

A migration that waits for a lock makes everybody wait who comes after it. So it waits for a short time only, gives up
all that it has locked, says who was in the way, and tries again later. An index that is built while rows are written
waits for old transactions instead, which holds up nobody, and says for which.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from psycopg.conninfo import make_conninfo
from psycopg.errors import LockNotAvailable

from routines_core.db.migration_files import Migration, apply_next, prepare_session
from routines_core.db.pool import LOST, Connection, connect
from routines_core.db.sessions import backend_pid
from routines_core.db.statements import Statement
from routines_core.errors import DatabaseError, MigrationError

WATCH_SECONDS = 0.2
"""How often to look who is in the way."""

log = structlog.get_logger("migrations")


@dataclass(frozen=True)
class Patience:
    """How long a migration waits for the locks that it needs.

    Attributes:
        lock_seconds: How long it waits at once, and so how long it may keep others waiting. More than Postgres's
            deadlock_timeout (1 s), after which an autovacuum that is in the way gives up.
        pause_seconds: How long it lets others work before it tries again.
        attempts: How often it tries before it fails.
    """

    lock_seconds: float = 2.0
    pause_seconds: float = 5.0
    attempts: int = 30


class Blocker(msgspec.Struct, frozen=True):
    """A session that holds a lock, or waits for it ahead of us.

    Attributes:
        pid: Its process; 0 for a prepared transaction.
        program: Its application_name; None if it has none, or this login may not see it. The same for the others.
        state: What it does, such as `idle in transaction`.
        since: When its transaction began.
    """

    pid: int
    program: str | None
    login: str | None
    state: str | None
    since: datetime | None

    def __str__(self) -> str:
        """Describe it in words for an operator."""
        if not self.pid:
            return "a prepared transaction (see pg_prepared_xacts)"
        names = " of ".join(name for name in (self.program, self.login) if name)
        doing = f"{self.state} since {self.since:%Y-%m-%d %H:%M:%S}Z" if self.state and self.since else self.state
        shown = ", ".join(part for part in (names, doing) if part)
        return f"pid {self.pid} ({shown or 'this login may not see what it does'})"


_BLOCKERS = Statement("migrations.blockers", Blocker)


async def migrate(
    connection: Connection, directory: Path | None = None, *, patience: Patience | None = None
) -> list[Migration]:
    """Apply all pending migrations and return them. Each is applied in a transaction of its own, or builds one index.

    If several programs start at once, one migrates and the others wait.

    Raises:
        DatabaseError: The server is older than Postgres 15, or the database's encoding is not UTF8.
        MigrationError: An applied migration is missing on disk or has changed, or a lock could not be had.
    """
    await prepare_session(connection)
    pid = await backend_pid(connection)
    applied: list[Migration] = []
    while migration := await _apply_next_patiently(connection, pid, directory, patience or Patience()):
        applied.append(migration)
    return applied


async def _apply_next_patiently(
    connection: Connection, pid: int, directory: Path | None, patience: Patience
) -> Migration | None:
    name = holder = end = ""
    for attempt in range(1, patience.attempts + 1):
        begun: list[Migration] = []
        async with _watching(connection, pid, begun) as blockers:
            try:
                return await apply_next(connection, directory, lock_seconds=patience.lock_seconds, begin=begun)
            except LockNotAvailable:
                if not begun:  # a lock of the history itself
                    raise
        name, holder = begun[0].name, " and ".join(map(str, blockers)) or "another session"
        end = f"End it with SELECT pg_terminate_backend({blockers[0].pid})" if blockers else "End it"
        log.warning(
            "migration waits for a lock", migration=name, holder=holder, attempt=attempt, attempts=patience.attempts
        )
        if attempt < patience.attempts:
            await asyncio.sleep(patience.pause_seconds)
    raise MigrationError(
        f"Migration {name} did not get its locks in {patience.attempts} attempts of {patience.lock_seconds:g} s: "
        f"{holder} was in the way. Nothing of it was applied. {end}, or wait, and run `routines migrate` again."
    )


@asynccontextmanager
async def _watching(connection: Connection, pid: int, begun: list[Migration]) -> AsyncGenerator[list[Blocker]]:
    """Yield a list that holds the sessions which last kept this connection waiting, whose server process is `pid`."""
    found: list[Blocker] = []
    watching = asyncio.create_task(_watch(connection, pid, begun, found))
    try:
        yield found
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError, *LOST, DatabaseError):  # the migration does not depend on it
            await watching


async def _watch(connection: Connection, pid: int, begun: list[Migration], found: list[Blocker]) -> None:
    await asyncio.sleep(WATCH_SECONDS)  # most migrations wait for nobody
    url = make_conninfo(connection.info.dsn, password=connection.info.password)
    async with connect(url, "routines-migrate-watch") as own:
        told: list[Blocker] = []
        while True:
            blockers = await _BLOCKERS.all(own, pid=pid)
            found[:] = blockers or found
            if begun and begun[0].index_parts and blockers and blockers != told:
                told = blockers
                log.warning(
                    "index waits for a transaction",
                    migration=begun[0].name,
                    holder=" and ".join(map(str, blockers)),
                )
            await asyncio.sleep(WATCH_SECONDS)
