"""`routines doctor`: each thing that must be fit in a line of its own, with what to do where it is not."""

from shlex import quote

from routines_cli import secrets
from routines_cli.engines import examine_engine
from routines_cli.role_report import describe
from routines_core.db import Connection, connect, roles
from routines_core.db.migrations import check_server_version, pending_migrations
from routines_core.db.operator_messages import InsufficientPrivilege, lacking
from routines_core.db.pool import without_password
from routines_core.embedded import find_psql
from routines_core.errors import DatabaseError, MigrationError
from routines_core.settings import Settings

_OWNER = "use the login that ran `routines migrate`"


async def examine(settings: Settings, url: str, *, quick: bool) -> bool:
    """Print what there is to say; False: something must be mended.

    Raises:
        DatabaseError: The database cannot be reached.
    """
    print(f"database  {without_password(url)}")
    async with connect(url, "routines-doctor") as connection:
        is_fit = await _examine_database(settings, connection, quick=quick)
    psql = find_psql()
    print(f"psql      {f'{quote(psql)} {quote(without_password(url))}' if psql else 'not found: install it'}")
    return is_fit


async def _examine_database(settings: Settings, connection: Connection, *, quick: bool) -> bool:
    try:
        print(f"postgres  {await check_server_version(connection)}")
    except DatabaseError as error:
        print(f"postgres  unfit: {error}")
        return False
    schema, is_current = await _schema(connection)
    print(f"schema    {schema}")
    if not is_current:
        return False
    secrets_line, all_open = ("not examined", True) if quick else await _secrets(settings, connection)
    print(f"secrets   {secrets_line}")
    engine_line, engine_is_fit = await _engine(settings, connection, quick=quick)
    print(f"engine    {engine_line}")
    lines, are_apart = await _standing(connection)
    for line in lines:
        print(line)
    return all_open and engine_is_fit and are_apart


async def _schema(connection: Connection) -> tuple[str, bool]:
    """Whether the schema is this version's."""
    try:
        pending = await pending_migrations(connection)
    except MigrationError as error:
        return f"does not fit: {error}", False
    except InsufficientPrivilege as error:
        return f"not readable by this login ({lacking(error)}): {_OWNER}, or a role of Routines", False
    if pending:
        return f"{len(pending)} migrations to apply: run `routines migrate`", False
    return "up to date", True


async def _secrets(settings: Settings, connection: Connection) -> tuple[str, bool]:
    """Whether every stored secret opens."""
    try:
        return await secrets.examine(settings, connection)
    except InsufficientPrivilege as error:
        return f"not examined: this login may not read them ({lacking(error)}): {_OWNER}, or --quick", False


async def _engine(settings: Settings, connection: Connection, *, quick: bool) -> tuple[str, bool]:
    """Whether the chosen engine can work."""
    try:
        return await examine_engine(settings, connection, quick=quick)
    except InsufficientPrivilege as error:
        return f"not examined: this login may not look at what it has in hand ({lacking(error)}): {_OWNER}", True


async def _standing(connection: Connection) -> tuple[list[str], bool]:
    """Lines on the login, and whether tenants are kept apart."""
    try:
        report = await roles.role_report(connection)
    except InsufficientPrivilege as error:
        return [f"login     may not look at the roles ({lacking(error)}): {_OWNER}, or a role of Routines"], False
    return describe(report), not report.open_tables
