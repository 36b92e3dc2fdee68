"""Settings that an operator may have made for other programs. Each changes how values read, or what statements do."""

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from routines_core.db.sessions import PINNED

HOSTILE = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "America/St_Johns",
    "timezone_abbreviations": "Australia",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "array_nulls": "off",
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "client_encoding": "LATIN1",
    "search_path": "nowhere",
    "row_security": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "session_replication_role": "replica",
    "exit_on_error": "on",
    "routines.collection_id": "987654321",
    "routines.key_id": "987654321",
    "statement_timeout": "1s",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "500ms",
}
NEEDS_17 = {"transaction_timeout": "1s"}
"""Settings that came with Postgres 17."""
NEEDS_SUPERUSER = "session_replication_role"
"""The one of them that only a superuser may change."""


def hostile_on(server_version: int) -> dict[str, str]:
    """Return the settings that this version of the server has, by its `server_version_num`."""
    return HOSTILE | (NEEDS_17 if server_version >= 170000 else {})


def calm_session(url: str) -> psycopg.Connection:
    """Open a session of a test's own, for many statements in one transaction, that no setting of the database ends."""
    connection = psycopg.connect(url, autocommit=True)
    for setting, value in {**PINNED, "idle_in_transaction_session_timeout": "0"}.items():
        if "." in setting or connection.execute("SELECT FROM pg_settings WHERE name = %s", [setting]).rowcount:
            connection.execute("SELECT set_config(%s, %s, false)", [setting, value])
    connection.autocommit = False
    return connection


def make_hostile(url: str) -> None:
    """Set all of them on this database."""
    with psycopg.connect(url, autocommit=True) as admin:
        name = sql.Identifier(conninfo_to_dict(url)["dbname"])
        for setting, value in hostile_on(admin.info.server_version).items():
            admin.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.SQL(setting), _literal(setting, value))
            )


def make_login_hostile(url: str, login: str) -> None:
    """Set all of them on this login, for every database."""
    with psycopg.connect(url, autocommit=True) as admin:
        for setting, value in hostile_on(admin.info.server_version).items():
            admin.execute(
                sql.SQL("ALTER ROLE {} SET {} = {}").format(
                    sql.Identifier(login), sql.SQL(setting), _literal(setting, value)
                )
            )


def _literal(setting: str, value: str) -> sql.Composable:
    # DateStyle is a list: quoted as a whole it would be one unknown style.
    return sql.SQL(value) if setting == "DateStyle" else sql.Literal(value)
