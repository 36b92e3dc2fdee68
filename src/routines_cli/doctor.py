"""`routines doctor`: prints one line per check, and says what to do if it fails."""

from shlex import quote

from routines_cli import clocks, secrets, tables
from routines_cli.engines import examine_engine
from routines_cli.role_report import are_tenants_isolated, describe
from routines_core.db import Connection, connect, roles
from routines_core.db.migration_files import check_server_version
from routines_core.db.operator_messages import InsufficientPrivilege, lacking
from routines_core.db.pool import without_password
from routines_core.db.schema import examine_schema
from routines_core.db.standing import lacking_rights
from routines_core.embedded import find_psql
from routines_core.errors import ConfigurationError, DatabaseError, MigrationError
from routines_core.keyring import key_file_of, load_keyring
from routines_core.settings import Settings

ROLES = ("routines_api", "routines_ticker", "routines_worker", "routines_reader")
"""The roles of Routines."""
_OWNER = "use the login that ran `routines migrate`"


async def examine(settings: Settings, url: str, *, quick: bool) -> bool:
    """Run the checks and print their results.

    Returns:
        False if at least one check failed.

    Raises:
        DatabaseError: The database cannot be reached.
    """
    print(f"database  {without_password(url)}")
    async with connect(url, "routines-doctor") as connection:
        passed = await _examine_database(settings, connection, quick=quick)
    psql = find_psql()
    print(f"psql      {f'{quote(psql)} {quote(without_password(url))}' if psql else 'not found: install it'}")
    return passed


async def _examine_database(settings: Settings, connection: Connection, *, quick: bool) -> bool:
    try:
        print(f"postgres  {await check_server_version(connection)}")
    except DatabaseError as error:
        print(f"postgres  not suitable: {error}")
        return False
    schema, is_usable = await _schema(connection)
    print(f"schema    {schema}")
    if not is_usable:
        return False
    secrets_line, all_open = ("not examined", True) if quick else await _secrets(settings, connection)
    print(f"secrets   {secrets_line}")
    key_line, keys_are_private = _key_file(settings)
    print(f"keys      {key_line}")
    engine_line, engine_works = await _engine(settings, connection, quick=quick)
    print(f"engine    {engine_line}")
    clocks_line, slots_are_right = ("not examined", True) if quick else await _clocks(connection)
    print(f"clocks    {clocks_line}")
    print(f"tables    {'not examined' if quick else await tables.examine(connection)}")
    lines, roles_work = await _roles(connection)
    for line in lines:
        print(line)
    return all_open and keys_are_private and engine_works and slots_are_right and roles_work


async def _schema(connection: Connection) -> tuple[str, bool]:
    """Return a line on the schema, and whether this version of Routines can work with it."""
    try:
        newer = await examine_schema(connection)
    except MigrationError as error:
        return str(error), False
    except InsufficientPrivilege as error:
        return f"not readable by this login ({lacking(error)}): {_OWNER}, or a role of Routines", False
    return newer or "up to date", True


async def _secrets(settings: Settings, connection: Connection) -> tuple[str, bool]:
    """Return a line on the stored secrets, and whether all of them can be decrypted."""
    try:
        return await secrets.examine(settings, connection)
    except InsufficientPrivilege as error:
        return f"not examined: this login may not read them ({lacking(error)}): {_OWNER}, or add --quick", False


async def _engine(settings: Settings, connection: Connection, *, quick: bool) -> tuple[str, bool]:
    """Return a line on the chosen engine, and whether it can work."""
    try:
        return await examine_engine(settings, connection, quick=quick)
    except InsufficientPrivilege as error:
        return f"not examined: this login may not read its open runs ({lacking(error)}): {_OWNER}", True


async def _clocks(connection: Connection) -> tuple[str, bool]:
    """Return a line on coming slots, and whether the server's time zones leave them where they are."""
    try:
        return await clocks.examine(connection)
    except InsufficientPrivilege as error:
        return f"not examined: this login may not read all routines ({lacking(error)}): {_OWNER}", True


async def _roles(connection: Connection) -> tuple[list[str], bool]:
    """Return lines on the login and the roles, and whether these have their rights and tenants are kept apart."""
    try:
        report = await roles.role_report(connection)
        rights = {
            role: await lacking_rights(connection, role, role) for role in ROLES if role not in report.missing_roles
        }
    except InsufficientPrivilege as error:
        return [f"login     may not read the roles ({lacking(error)}): {_OWNER}, or a role of Routines"], False
    return describe(report, rights), are_tenants_isolated(report) and not any(rights.values())


def _key_file(settings: Settings) -> tuple[str, bool]:
    """Return a line on where the encryption keys are, and whether no other user of the machine may read them."""
    path = key_file_of(settings)
    if path is None:
        return "from ROUTINES_ENCRYPTION_KEYS" if settings.encryption_keys else "none set", True
    try:
        load_keyring(settings)
    except ConfigurationError as error:
        return str(error), False
    return f"in {path}, private", True
