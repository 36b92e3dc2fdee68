"""Errors of Postgres as sentences for the person at the command line: what is wrong, and what to do."""

import psycopg
from psycopg.errors import InsufficientPrivilege

from routines_core.errors import DatabaseError

__all__ = ["InsufficientPrivilege", "lacking", "refusal"]

_ROLES = "see docs/run/roles.md"
_SCHEMA = (
    "The database schema does not match this version of Routines: `routines migrate` brings an older one up to date, "
    "`routines doctor` says which of the two is newer."
)
_STANDBY = "The database is read-only, for example because it is a standby. Name the primary in DATABASE_URL."
_BUSY = "The database did not finish in time: another session holds a lock, or it is overloaded. Try again."
_GONE = "The connection to the database was lost, and unconfirmed changes may not have been saved. Try again."
_FULL = "The database is out of disk space, memory or connections. Free some and try again."

_SENTENCES = {
    "3F000": _SCHEMA,  # no such schema
    "42P01": _SCHEMA,  # table
    "42703": _SCHEMA,  # column
    "42704": _SCHEMA,  # type
    "42883": _SCHEMA,  # function
    "25006": _STANDBY,
    "25P03": _BUSY,  # idle in a transaction for too long
    "55P03": _BUSY,  # a lock that another session holds
    "57014": _BUSY,  # statement_timeout
    "40P01": _BUSY,  # a deadlock
    "53100": _FULL,
    "53200": _FULL,
    "53300": _FULL,
}
"""By SQLSTATE."""


def refusal(error: BaseException) -> DatabaseError | None:
    """Translate an error of the driver for an operator; None if it is not one that an operator can fix.

    The message contains no values. Of Postgres's own text it repeats only the object of a missing privilege.
    """
    if isinstance(error, InsufficientPrivilege):
        return DatabaseError(
            f"The login may not do this ({lacking(error)}). Use the login that ran `routines migrate`, or {_ROLES}."
        )
    if isinstance(error, psycopg.Error) and error.sqlstate in _SENTENCES:
        return DatabaseError(_SENTENCES[error.sqlstate])
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseError(_GONE)
    return None


def lacking(error: InsufficientPrivilege) -> str:
    """Return the missing privilege in Postgres's words, which name the object and contain no values."""
    return error.diag.message_primary or "permission denied"
