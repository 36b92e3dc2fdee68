"""Errors of Postgres as sentences for the person at the command line: what is wrong, and what to do."""

import psycopg
from psycopg.errors import InsufficientPrivilege

from routines_core.db.pool import LOST
from routines_core.diagnosis import diagnose
from routines_core.errors import DatabaseError

__all__ = ["InsufficientPrivilege", "lacking", "refusal"]

_GONE = "The connection to the database was lost, and unconfirmed changes may not have been saved. Try again."


def refusal(error: BaseException) -> DatabaseError | None:
    """Translate an error of the driver for an operator; None if it is not one that an operator can fix.

    The message contains no values. Of Postgres's own text it repeats only the object that it is about.
    """
    if not isinstance(error, LOST):
        return None
    found = diagnose(error)
    match found.kind:
        case "refused":
            return DatabaseError(found.sentence)
        case "away":
            return DatabaseError(_GONE)
        case "bug":
            return DatabaseError(_GONE) if isinstance(error, psycopg.OperationalError) else None


def lacking(error: InsufficientPrivilege) -> str:
    """Return the missing privilege in Postgres's words, which name the object and contain no values."""
    return error.diag.message_primary or "permission denied"
