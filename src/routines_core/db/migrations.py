"""Forward-only migrations: sql/migrations/YYYYMMDDTHHMMSS_name.sql, applied in order under an advisory lock."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement, sql_dir
from routines_core.errors import DatabaseError, MigrationError

OLDEST_SERVER_VERSION = 150000
"""`server_version_num` of the oldest Postgres that is supported: 15."""


class _Applied(msgspec.Struct):
    version: str
    name: str
    checksum: str


class _Exists(msgspec.Struct):
    exists: bool


class _ServerVersion(msgspec.Struct):
    number: int
    text: str
    encoding: str


_LOCK = Statement("migrations.lock_migrations", NoRow)
_CREATE_HISTORY = Statement("migrations.create_history", NoRow)
_HISTORY_EXISTS = Statement("migrations.history_exists", _Exists)
_APPLIED = Statement("migrations.applied_migrations", _Applied)
_RECORD = Statement("migrations.record_migration", NoRow)
_SERVER_VERSION = Statement("migrations.server_version", _ServerVersion)


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


def migration_files(directory: Path | None = None) -> list[Migration]:
    """Return the migrations on disk, in order."""
    paths = sorted((directory or sql_dir() / "migrations").glob("[0-9]*T[0-9]*_*.sql"))
    return [Migration(path.stem.partition("_")[0], path.stem, path.read_text("utf-8")) for path in paths]


async def migrate(connection: Connection, directory: Path | None = None) -> list[Migration]:
    """Apply all pending migrations in one transaction, and return them.

    Takes the advisory lock of the migrations: if several programs start at once, one migrates and the others wait.

    Raises:
        DatabaseError: The server is older than Postgres 15, or the database's encoding is not UTF8.
        MigrationError: An applied migration is missing on disk or has changed.
    """
    await check_server_version(connection)
    async with connection.transaction():
        await _LOCK.run(connection)
        await _CREATE_HISTORY.run(connection)
        pending = _pending(migration_files(directory), await _APPLIED.all(connection))
        for migration in pending:
            await connection.execute(migration.text.encode())
            await _RECORD.run(connection, version=migration.version, name=migration.name, checksum=migration.checksum)
    return pending


async def pending_migrations(connection: Connection) -> list[Migration]:
    """Return the migrations that `migrate` would apply, without changing anything.

    Raises:
        MigrationError: An applied migration is missing on disk or has changed.
    """
    history = await _HISTORY_EXISTS.one(connection)
    applied = await _APPLIED.all(connection) if history.exists else []
    return _pending(migration_files(), applied)


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


def _pending(files: list[Migration], applied: list[_Applied]) -> list[Migration]:
    by_version = {migration.version: migration for migration in files}
    for row in applied:
        migration = by_version.pop(row.version, None)
        if migration is None:
            raise MigrationError(
                f"Migration {row.name} was applied to this database but is not in sql/migrations: "
                "this Routines is older than the database. Install the newer version again."
            )
        if migration.checksum != row.checksum:
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
    return list(by_version.values())
