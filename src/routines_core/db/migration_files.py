"""Forward-only migrations: the files sql/migrations/YYYYMMDDTHHMMSS_name.sql, and a database's history of them."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
from psycopg.errors import InvalidParameterValue

from routines_core.db.pool import LOST, Connection
from routines_core.db.statements import NoRow, Statement, sql_dir
from routines_core.errors import DatabaseError, MigrationError

OLDEST_SERVER_VERSION = 150000
"""`server_version_num` of the oldest Postgres that is supported: 15."""
TURN_SECONDS = 0.2
"""How often a migrator asks whether another one has finished."""

log = structlog.get_logger("migrations")


class _Applied(msgspec.Struct):
    version: str
    name: str
    checksum: str


class _Exists(msgspec.Struct):
    exists: bool


class _Locked(msgspec.Struct):
    is_locked: bool
    holder: int | None


class _Size(msgspec.Struct):
    name: str
    bytes: int


class _ServerVersion(msgspec.Struct):
    number: int
    text: str
    encoding: str


_LOCK = Statement("migrations.lock_migrations", _Locked)
_UNLOCK = Statement("migrations.unlock_migrations", NoRow)
_LIMIT_WAITS = Statement("migrations.limit_waits", NoRow)
_NOTICE_LOST_CLIENT = Statement("migrations.notice_lost_client", NoRow)
_CREATE_HISTORY = Statement("migrations.create_history", NoRow)
_HISTORY_EXISTS = Statement("migrations.history_exists", _Exists)
_APPLIED = Statement("migrations.applied_migrations", _Applied)
_RECORD = Statement("migrations.record_migration", NoRow)
_SIZES = Statement("migrations.table_sizes", _Size)
_SERVER_VERSION = Statement("migrations.server_version", _ServerVersion)
_EFFECT = re.compile(r"^-- (locks|rewrites|reads|writes): (routines\.\w+)(?: ([A-Z ]+))?$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n?", re.MULTILINE)
_CONCURRENTLY = re.compile(r"\bINDEX\s+CONCURRENTLY\b", re.IGNORECASE)
_INDEX = re.compile(
    r"""\s*(DROP\s+INDEX\s+CONCURRENTLY\s+IF\s+EXISTS\s+routines\.(?P<name>\w+)\s*;)
        \s*(CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?P=name)\s+ON\s+routines\.\w+[^;]*;)?\s*""",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Migration:
    """One file of sql/migrations.

    Attributes:
        version: The time that its name starts with, `YYYYMMDDTHHMMSS`. Versions sort as text.
        name: The file's name without its extension.
    """

    version: str
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, with line endings normalized because Git may have changed them."""
        return hashlib.sha256(self.text.replace("\r\n", "\n").encode()).hexdigest()

    @property
    def effects(self) -> "list[Effect]":
        """What it declares to do to tables that exist already, in lines such as `-- locks: routines.tasks SHARE`."""
        return [Effect(kind, table, mode or "") for kind, table, mode in _EFFECT.findall(self.text)]

    @property
    def index_parts(self) -> list[str]:
        """The statements that drop, and build, an index while rows are written; empty for any other migration.

        Raises:
            MigrationError: It does something else as well, or could not be repeated after an interruption.
        """
        statements = _COMMENT.sub("", self.text)
        if not _CONCURRENTLY.search(statements):
            return []
        if not (found := _INDEX.fullmatch(statements)):
            raise MigrationError(
                f"Migration {self.name} must be DROP INDEX CONCURRENTLY IF EXISTS routines.name; and, to build the "
                "index, CREATE INDEX CONCURRENTLY name ON routines.…; after it. It is applied without a transaction, "
                "and again after an interruption."
            )
        return [part for part in found.group(1, 3) if part]


@dataclass(frozen=True, order=True)
class Effect:
    """Something that a migration does to a table that exists already.

    Attributes:
        kind: locks, rewrites, reads (all of it) or writes (rows of it).
        mode: Of a lock, as LOCK TABLE spells it; otherwise empty.
    """

    kind: str
    table: str
    mode: str = ""

    def __str__(self) -> str:
        """Return it as it is declared in a migration."""
        return f"{self.kind}: {self.table} {self.mode}".rstrip()


@dataclass(frozen=True)
class Comparison:
    """How the migration files and the history of a database differ.

    Attributes:
        has_history: Whether any migration was ever applied.
        pending: Files that were not applied, in order.
        unknown: Names of applied migrations that are newer than all files.
    """

    has_history: bool
    pending: list[Migration]
    unknown: list[str]


def migration_files(directory: Path | None = None) -> list[Migration]:
    """Return the migrations on disk, in order."""
    paths = sorted((directory or sql_dir() / "migrations").glob("[0-9]*T[0-9]*_*.sql"))
    return [Migration(path.stem.partition("_")[0], path.stem, path.read_text("utf-8")) for path in paths]


async def prepare_session(connection: Connection) -> None:
    """Check the server, and have it notice within a second if this process is gone, even while it waits for a lock.

    Raises:
        DatabaseError: The server is older than Postgres 15, or the database's encoding is not UTF8.
    """
    await check_server_version(connection)
    try:
        await _NOTICE_LOST_CLIENT.run(connection)
    except InvalidParameterValue:
        return  # a server on Windows cannot


async def apply_next(
    connection: Connection, directory: Path | None, *, lock_seconds: float, begin: "list[Migration]"
) -> Migration | None:
    """Apply the first pending migration, and return it; None if none is pending.

    It is applied in a transaction, unless it builds or drops an index while rows are written: that holds up nobody, may
    be interrupted, and waits as long as it takes for transactions that are older.

    Takes the advisory lock of the migrations: if several programs start at once, one migrates and the others wait.
    Other locks are waited for no longer than `lock_seconds`.

    Args:
        connection: In autocommit mode.
        directory: Where the files are; None for those of this version.
        lock_seconds: See above.
        begin: Gets the migration before it is applied.

    Raises:
        MigrationError: An applied migration is missing on disk or has changed.
        psycopg.errors.LockNotAvailable: Another session held a lock for too long; nothing was changed.
    """
    async with _alone(connection):
        async with connection.transaction():
            await _LIMIT_WAITS.run(connection, milliseconds=str(round(lock_seconds * 1000)))
            if not (await _HISTORY_EXISTS.one(connection)).exists:
                await _CREATE_HISTORY.run(connection)
            comparison = _compared(migration_files(directory), await _APPLIED.all(connection))
            if not comparison.pending:
                return None
            migration = comparison.pending[0]
            begin.append(migration)
            if not migration.index_parts:
                await connection.execute(migration.text.encode())
                await _record(connection, migration)
        if migration.index_parts:
            for part_of_migration in migration.index_parts:
                await connection.execute(part_of_migration.encode())
            await _record(connection, migration)
    return migration


@asynccontextmanager
async def _alone(connection: Connection) -> AsyncGenerator[None]:
    """Hold the advisory lock of the migrations for the block."""
    is_told = False
    while not (lock := await _LOCK.one(connection)).is_locked:
        if not is_told:
            is_told = True
            log.warning("another program applies migrations", holder=f"pid {lock.holder}")
        await asyncio.sleep(TURN_SECONDS)
    try:
        yield
    finally:
        with suppress(*LOST):  # then it is released with the session
            await _UNLOCK.run(connection)


async def _record(connection: Connection, migration: Migration) -> None:
    await _RECORD.run(connection, version=migration.version, name=migration.name, checksum=migration.checksum)


async def compare_history(connection: Connection, directory: Path | None = None) -> Comparison:
    """Compare the migration files with the database's history, without changing anything.

    Raises:
        MigrationError: They do not follow from one another: an applied migration is missing on disk or has changed.
    """
    history = await _HISTORY_EXISTS.one(connection)
    return _compared(migration_files(directory), await _APPLIED.all(connection) if history.exists else [])


async def sizes_of(connection: Connection, tables: Sequence[str]) -> dict[str, int]:
    """Return the size in bytes, with indexes, of those of these tables that exist."""
    return {found.name: found.bytes for found in await _SIZES.all(connection, names=list(tables))}


async def check_server_version(connection: Connection) -> str:
    """Return the server's version as it prints it.

    Raises:
        DatabaseError: The server is older than Postgres 15, or the database's encoding is not UTF8.
    """
    version = await _SERVER_VERSION.one(connection)
    if version.number < OLDEST_SERVER_VERSION:
        raise DatabaseError(f"The database is Postgres {version.text}; Routines needs 15 or newer.")
    if version.encoding != "UTF8":
        raise DatabaseError(
            f"The database's encoding is {version.encoding}; Routines needs UTF8. "
            "Make it with: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'."
        )
    return version.text


def _compared(files: list[Migration], applied: list[_Applied]) -> Comparison:
    by_version = {migration.version: migration for migration in files}
    newest_file = max(by_version, default="")
    unknown: list[str] = []
    for row in applied:
        migration = by_version.pop(row.version, None)
        if migration is None and row.version > newest_file:
            unknown.append(row.name)
        elif migration is None:
            raise MigrationError(
                f"Migration {row.name} was applied to this database but is not in sql/migrations, which has newer "
                "ones: this Routines and the database come from different branches. Install the version that did."
            )
        elif migration.checksum != row.checksum:
            raise MigrationError(
                f"Migration {migration.name} has changed since it was applied to this database. "
                "Restore the file and put the change into a new migration."
            )
    newest = max((row.version for row in applied), default="")
    for migration in by_version.values():
        if migration.version < newest:
            raise MigrationError(
                f"Migration {migration.name} is older than {newest}, which was already applied to this database. "
                "Rename it with the current time."
            )
    return Comparison(bool(applied), list(by_version.values()), unknown)
