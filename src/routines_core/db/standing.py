"""Where a connection stands: sql/queries/standing.sql called from Python."""

import os

import msgspec

from routines_core.db.pool import Connection, refuse_malformed
from routines_core.db.statements import Statement

DEFAULT_PORT = "5432"


class Standing(msgspec.Struct, frozen=True):
    """The role and schema of a connection.

    Attributes:
        role: The role in effect.
        login: The role that it logged in as.
        schema_version: The newest migration of the database; None if there is none.
        is_read_only: Whether it accepts no writes.
    """

    role: str
    login: str
    schema_version: str | None
    is_read_only: bool


class _Right(msgspec.Struct):
    right: str


class _Holds(msgspec.Struct):
    holds: bool


_STANDING = Statement("standing.standing", Standing)
_LACKING = Statement("standing.lacking_rights", _Right)
_HOLDS_OTHERS = Statement("standing.holds_other_tables", _Holds)


async def standing(connection: Connection) -> Standing:
    """Return where this connection stands. Needs a schema of Routines."""
    return await _STANDING.one(connection)


async def lacking_rights(connection: Connection, role: str, grantee: str) -> list[str]:
    """Return the rights of a role of Routines that a grantee lacks, each as the object and its privileges."""
    return [each.right for each in await _LACKING.all(connection, role=role, grantee=grantee)]


async def holds_other_tables(connection: Connection) -> bool:
    """Return whether the database has tables of somebody else and none of Routines."""
    return (await _HOLDS_OTHERS.one(connection)).holds


def place_of(url: str) -> str:
    """Return the database that a connection string names as `host/name`, without user and password.

    Raises:
        ConfigurationError: It is malformed.
    """
    parts = refuse_malformed(url)
    hosts = str(parts.get("host") or parts.get("hostaddr") or os.environ.get("PGHOST") or "local").split(",")
    ports = [port or DEFAULT_PORT for port in str(parts.get("port") or os.environ.get("PGPORT") or "").split(",")]
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    named = (host if port == DEFAULT_PORT else f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))
    database = parts.get("dbname") or os.environ.get("PGDATABASE") or parts.get("user") or "?"
    return f"{','.join(named)}/{database}"
