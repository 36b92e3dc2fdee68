"""What is wrong, and what to do about it: one classification of errors for all programs.

Every error is one of three kinds. `away`: the database does not answer, so wait for it. `refused`: it answers and
refuses for a reason that an operator can remove. `bug`: anything else. Causes and remedies are fixed phrases, which are
safe to log: the text of an error may contain a database row or something that a client sent.
"""

import errno
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, cast

from routines_core.errors import (
    ConfigurationError,
    DatabaseError,
    MigrationError,
    RoutinesError,
    SecretError,
    SilenceError,
    StatementTimeoutError,
    StorageError,
)

Kind = Literal["away", "refused", "bug"]


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong.

    Attributes:
        kind: away, refused or bug.
        cause: What is wrong, as a clause.
        remedy: What to do, as a sentence without its full stop; empty for a bug.
        sqlstate: The SQLSTATE, if Postgres refused.
        object: What it is about, such as the table of a missing right.
    """

    kind: Kind
    cause: str
    remedy: str = ""
    sqlstate: str = ""
    object: str = ""

    @property
    def sentence(self) -> str:
        """Cause, object and remedy in words, for a person."""
        about = f" ({self.object})" if self.object else ""
        cause = self.cause[0].upper() + self.cause[1:]
        return f"{cause}{about}. {self.remedy}." if self.remedy else f"{cause}{about}."

    @property
    def facts(self) -> dict[str, str]:
        """What it adds to a line of the log; empty for a bug, about which no more is known."""
        if self.kind == "bug":
            return {}
        told = {"sqlstate": self.sqlstate, "cause": self.cause, "object": self.object, "remedy": self.remedy}
        return {name: text for name, text in told.items() if text}

    @property
    def is_of_the_server(self) -> bool:
        """Whether any other statement would fail too, or fail until an operator acts, and so may be repeated later."""
        if self.kind == "away":
            return True
        return self.kind == "refused" and self.sqlstate not in _OF_ONE_STATEMENT


def _refused(sqlstate: str, cause: str, remedy: str) -> Diagnosis:
    return Diagnosis("refused", cause, remedy, sqlstate)


def _away(sqlstate: str, cause: str, remedy: str) -> Diagnosis:
    return Diagnosis("away", cause, remedy, sqlstate)


_ROLES = "see docs/run/roles.md"
_LOGIN = "Check the user and password of DATABASE_URL, or PGPASSWORD and .pgpass, and pg_hba.conf on the server"
_MIGRATE = "`routines migrate` brings an older schema up to date, `routines doctor` says which of the two is newer"
_SCHEMA = "the database schema does not match this version of Routines"
_BUSY = "Another session holds a lock, or the database is overloaded. Try again"
_ROOM = "Free some space; nothing is lost, and the programs continue by themselves"

_BY_SQLSTATE: dict[str, Diagnosis] = {
    each.sqlstate: each
    for each in (
        _refused("28P01", "the server refuses the password", _LOGIN),
        _refused("28000", "the server refuses this login", _LOGIN),
        _refused("3D000", "the server has no database of this name", "Create it, or correct the name in DATABASE_URL"),
        _refused("3F000", _SCHEMA, _MIGRATE),
        _refused("42P01", _SCHEMA, _MIGRATE),  # no such table
        _refused("42703", _SCHEMA, _MIGRATE),  # column
        _refused("42704", _SCHEMA, _MIGRATE),  # type or role
        _refused("42883", _SCHEMA, _MIGRATE),  # function
        _refused(
            "42501",
            "this login lacks a right",
            "Use the login that ran `routines migrate`, or let it call SELECT routines.set_up_roles() for the role of "
            f"the program; {_ROLES}",
        ),
        _refused(
            "25006",
            "the database is read-only, for example because it is a standby",
            "Name the primary in DATABASE_URL, or every host",
        ),
        _refused(
            "53300", "the server has no connection left", "Raise max_connections, or run fewer programs, or a pooler"
        ),
        _refused("53100", "the disk of the database is full", _ROOM),
        _refused("53200", "the server is out of memory", "Give it more memory, or run fewer programs"),
        _refused("53400", "a limit of the server is reached", "Raise it in the server's configuration"),
        _refused("55000", "the database accepts no connections", "Allow them: ALTER DATABASE … ALLOW_CONNECTIONS true"),
        _refused("55P03", "the database did not finish in time", _BUSY),  # a lock that another session holds
        _refused("57014", "the database did not finish in time and cancelled the statement", _BUSY),
        _refused("25P03", "the database did not finish in time", _BUSY),  # idle in a transaction for too long
        _refused("40P01", "the database did not finish in time", _BUSY),  # a deadlock
        _refused("58030", "the server cannot read or write its files", "Check its disks and its log"),
        _refused("XX001", "the server found damaged data", "Check its disks and its log, and restore a backup"),
        _refused("XX002", "the server found a damaged index", "Check its disks and its log, then REINDEX"),
        _away("57P01", "the server is shutting down, or ended the session", "Wait for it, or start it"),
        _away("57P02", "the server has crashed and restarts", "Wait for it, and read its log"),
        _away("57P03", "the server is starting up or shutting down", "Wait for it, or start it"),
    )
}

_UNREACHABLE = Diagnosis("away", "the database cannot be reached", "Check DATABASE_URL and that the server runs")
_MALFORMED = Diagnosis("refused", "an option of the connection string is invalid", "Correct it in DATABASE_URL")
_LOST = Diagnosis("away", "the connection to the database was lost", "Check that the server runs, and the network")
_SILENT = Diagnosis("away", "the database does not answer in time", "Check that the server runs, and the network")
_NO_FILES = Diagnosis(
    "refused",
    "this process has as many files and connections open as it may",
    "Raise its limit of open files: LimitNOFILE of systemd, `--ulimit nofile` of a container, `ulimit -n` of a shell",
)
_BUG = Diagnosis("bug", "unexpected error")

_OF_ONE_STATEMENT = frozenset({"57014", "53200", "55P03", "25P03", "40P01"})
"""Refusals of a statement that took too much, or came at a bad moment; others may succeed."""
_NAMING = frozenset({"42501", "42P01", "42703", "42704", "42883", "3F000"})
"""States whose message names an object of the schema and contains no value."""

_REFUSALS_OF_CONNECTIONS = tuple(
    (re.compile(pattern), sqlstate)
    for pattern, sqlstate in (
        (r"password authentication failed|no password supplied", "28P01"),
        (r"authentication failed|no pg_hba\.conf entry|role \".*\" (does not exist|is not permitted)", "28000"),
        (r"database \".*\" does not exist", "3D000"),
        (r"permission denied for database", "42501"),
        (r"too many clients|too many connections|connection slots are reserved|sorry, too many", "53300"),
        (r"No space left on device", "53100"),
        (r"is (starting up|shutting down|in recovery mode|not yet accepting)", "57P03"),
        (r"not currently accepting connections", "55000"),
        (r"session is (not )?read-only|server is in hot standby", "25006"),
        (r"terminating connection due to administrator", "57P01"),
    )
)
"""libpq reports no SQLSTATE if a connection is refused, only the server's message."""
_NOT_MADE = re.compile(r"connection.*failed|failed to resolve|timeout expired", re.DOTALL)
"""What libpq and psycopg say if there is no connection, as against one that was lost."""
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_REMEMBERED_SECONDS = 60.0


def diagnose(error: BaseException) -> Diagnosis:
    """Return what is wrong. An error that was deliberately raised from another one is judged by both."""
    first = first_of(error)
    for each in _chain(first):
        if (found := _diagnosis_of(each)) is not None:
            return found
    # Raised by ourselves, so its sentence is safe.
    return Diagnosis("refused", str(first).rstrip(".")) if isinstance(first, DatabaseError) else _BUG


def is_own_trouble(error: BaseException) -> bool:
    """Return whether this process ran out of file descriptors, which is nobody else's fault and may pass."""
    return any(isinstance(each, OSError) and each.errno in _OUT_OF_FILES for each in _causes(error))


def first_of(error: BaseException) -> BaseException:
    """Return the first error of a group, or the error itself if it is not a group."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    return first_of(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])


@dataclass
class _LastRefusal:
    """Why the last connection was refused. A pool reports only that it has no connection, not why."""

    found: Diagnosis | None = None
    at: float = 0.0


_last_refusal = _LastRefusal()


def note_connection(refused: BaseException | None) -> None:
    """Remember why a connection was refused; None: one was made."""
    _last_refusal.found = None if refused is None else diagnose(refused)
    _last_refusal.at = time.monotonic()


def _diagnosis_of(error: BaseException) -> Diagnosis | None:
    """Return what is wrong if this error shows it, without the errors that it was raised from."""
    if isinstance(error, OSError) and error.errno in _OUT_OF_FILES:
        return _NO_FILES
    return _of_ours(error) if isinstance(error, RoutinesError) else _of_driver(error)


def _of_ours(error: RoutinesError) -> Diagnosis | None:
    """Return what is wrong if this is an error that we raised because of an operator's business."""
    match error:
        case StatementTimeoutError():
            return replace(_BY_SQLSTATE["57014"], object=error.statement)
        case SilenceError():
            return _SILENT
        case ConfigurationError() | MigrationError():
            return Diagnosis("refused", str(error).rstrip("."))
        case SecretError():
            remedy = "Set ROUTINES_ENCRYPTION_KEYS to the keys with which the secrets were stored"
            return Diagnosis("refused", str(error).rstrip("."), remedy)
        case StorageError():
            return Diagnosis("refused", "the file store refuses", "Check ROUTINES_FILES and the space there")
        case _:
            return None


def _of_driver(error: BaseException) -> Diagnosis | None:
    """Return what is wrong if this is an error of the driver, known here by its attributes."""
    if sqlstate := str(getattr(error, "sqlstate", None) or ""):
        return _of_sqlstate(sqlstate, error)
    kinds = {each.__name__ for each in type(error).__mro__}
    if "PoolTimeout" in kinds:
        is_fresh = time.monotonic() - _last_refusal.at < _REMEMBERED_SECONDS
        return (is_fresh and _last_refusal.found) or _UNREACHABLE
    if kinds & {"OperationalError", "InterfaceError"}:
        return _of_text(str(error))
    return None


def _of_sqlstate(sqlstate: str, error: BaseException) -> Diagnosis:
    found = _BY_SQLSTATE.get(sqlstate)
    if found is None:
        return replace(_LOST, sqlstate=sqlstate) if sqlstate.startswith("08") else replace(_BUG, sqlstate=sqlstate)
    if sqlstate not in _NAMING:
        return found
    return replace(found, object=str(getattr(getattr(error, "diag", None), "message_primary", None) or ""))


def _of_text(text: str) -> Diagnosis:
    if "Too many open files" in text:
        return _NO_FILES
    sqlstate = next((state for pattern, state in _REFUSALS_OF_CONNECTIONS if pattern.search(text)), None)
    if sqlstate is not None:
        return _BY_SQLSTATE[sqlstate]
    if "connection is bad: invalid" in text:
        return _MALFORMED
    return _UNREACHABLE if _NOT_MADE.search(text) else _LOST


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, and what it was deliberately raised from."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        is_translated = following.__suppress_context__ or isinstance(following, DatabaseError)
        following = following.__cause__ or (following.__context__ if is_translated else None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and everything that led to it, with the errors of groups."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            left += cast("BaseExceptionGroup[BaseException]", each).exceptions
