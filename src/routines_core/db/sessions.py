"""Makes a connection a session of Routines: every connection of every program goes through here.

Statements mean, and values read, the same on every database. What the server, the database, the login or the URL sets
is overridden where it would change a value, a name or a right, and then read back. This is done by a statement,
because a pooler refuses or drops most startup parameters.

A pooler that gives another session to each transaction keeps neither a setting nor a role, a prepared statement or
LISTEN. It is found before anything is set, and refused.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.errors import InsufficientPrivilege
from psycopg.types.json import set_json_dumps, set_json_loads

from routines_core.db.noted import NotedConnection
from routines_core.db.statements import NoRow, Statement
from routines_core.db.timeouts import within
from routines_core.errors import SessionError, SilenceError
from routines_core.json_numbers import loads

CONNECT_TIMEOUT_SECONDS = 5
"""Timeout of one attempt to connect."""
IDLE_SECONDS = (0.1, 0.4, 1.6)
"""After how long the server ends a session, to see whether its connection ends too. The later ones are used only if a
busy machine made the answer unclear."""
NOTICED_SECONDS = 1.0
"""How long a pooler may take to notice that the server has ended a session."""
LOOKS = 20
"""How many statements are sent to see whether they meet different sessions, as they do in a busy pooler."""
EXAMINE_SECONDS = 10.0
"""How long it may take to find out whether sessions are kept. A pooler whose connections are all in use keeps clients
waiting."""
PINNED: Mapping[str, str] = {
    # How values are written and read.
    "client_encoding": "UTF8",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "timezone_abbreviations": "Default",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    # What statements mean and may do.
    "search_path": "pg_catalog, pg_temp",
    "row_security": "on",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "session_replication_role": "origin",
    "exit_on_error": "off",
    "routines.collection_id": "",
    "routines.key_id": "",
    # When the server gives up. A program sets its own.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "2s",
    "idle_session_timeout": "0",
}
"""Settings of every session, as Postgres prints them.

`default_transaction_read_only` is not among them: it is how an operator locks a database, and such a one is refused.
"""


class _Setting(msgspec.Struct):
    name: str
    setting: str


class _Settings(msgspec.Struct):
    settings: dict[str, str | None]


class _Backend(msgspec.Struct):
    pid: int


_PIN = Statement("sessions.pin", _Setting)
_READ_BACK = Statement("sessions.read_back", _Settings)
_BACKEND = Statement("sessions.backend", _Backend)
_END_WHEN_IDLE = Statement("sessions.end_when_idle", NoRow)
_ADVICE = "Use its session mode (PgBouncer: pool_mode = session), or connect to Postgres directly."
_examined: set[str] = set()
"""Connection strings whose sessions this process has found to be kept."""


def connection_arguments(program: str) -> dict[str, Any]:
    """Return the keyword arguments of each connection. Only what every pooler accepts goes into the startup packet."""
    return {
        "autocommit": True,
        "application_name": program,
        "client_encoding": "UTF8",  # overrides the server's setting and PGCLIENTENCODING: text is str, never bytes
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        # A vanished peer is noticed after 5 s plus three probes of 2 s on a silent connection,
        # and after 11,000 ms while a statement is in flight, which would otherwise be retransmitted for 15 minutes.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 11_000,
        # After a failover the old primary may come back read-only: reject it and try the next host.
        "target_session_attrs": "read-write",
    }


async def set_up(connection: AsyncConnection[Any], role: str | None, settings: Mapping[str, str]) -> None:
    """Use our JSON, switch to the program's role if the login may, pin the session's settings and read them back.

    SET ROLE is not a security boundary, because the session can undo it; use a login with only this role.

    Args:
        connection: In autocommit mode.
        role: The role; None for the login's own.
        settings: Settings of Postgres that the program adds to PINNED, or has otherwise.

    Raises:
        SessionError: The session does not have these settings.
    """
    set_json_loads(loads, connection)
    set_json_dumps(msgspec.json.encode, connection)
    wanted = {**PINNED, **settings}
    try:
        pinned = await _PIN.all(connection, names=list(wanted), settings=list(wanted.values()), role=role)
    except InsufficientPrivilege as error:
        raise SessionError(
            f"This login may not work as every program must ({error.diag.message_primary}): "
            "reset that setting by ALTER DATABASE or ALTER ROLE."
        ) from None
    wanted |= {row.name: row.setting for row in pinned}  # as Postgres prints them: 2s for 2000ms
    found = (await _READ_BACK.one(connection, names=list(wanted))).settings
    lost = [name for name, setting in wanted.items() if found[name] not in {setting, None}]
    if lost:
        raise SessionError(
            f"The session does not keep what is set in it: {lost[0]} reads as {found[lost[0]]!r}. {_ADVICE}"
        )


async def backend_pid(connection: AsyncConnection[Any]) -> int:
    """Return the server process of this session. `connection.info.backend_pid` is what a pooler made up."""
    return (await _BACKEND.one(connection)).pid


async def is_pooled(connection: AsyncConnection[Any]) -> bool:
    """Return whether there is a pooler between this connection and its server process."""
    return await backend_pid(connection) != connection.info.backend_pid


async def require_sessions(url: str, program: str) -> None:
    """Check, once in this process, that this connection string leads to sessions that last as long as a connection.

    Raises:
        SessionError: It leads to a pooler that gives a server's session to a transaction or a statement.
        SilenceError: It took too long to find out.
        psycopg.OperationalError: The database cannot be reached.
    """
    if url in _examined:
        return
    arguments = connection_arguments(program)
    for idle_seconds in IDLE_SECONDS:
        # Prepares nothing: a pooler may not know the statement later.
        async with await NotedConnection.connect(url, **arguments, prepare_threshold=None) as connection:
            kept = not await is_pooled(connection) or await within(EXAMINE_SECONDS, _is_kept(connection, idle_seconds))
        if kept:
            _examined.add(url)
            return
        if kept is False:
            raise SessionError(f"DATABASE_URL leads to a pooler that does not keep sessions. {_ADVICE}")
    raise SilenceError("The pooler is too slow to find out whether it keeps sessions.")


async def _is_kept(connection: AsyncConnection[Any], idle_seconds: float) -> bool | None:
    """Find out whether a pooler keeps a server's session for this connection, which may be over afterwards.

    If all statements meet the same session, the server is told to end it once it is idle. A connection that has this
    session to itself ends with it; one that gave it back lives on, and its next statement finds another.

    Returns:
        None if the connection ended too early: a late pooler had not yet taken the session back, as it may have wanted.
    """
    if len({await backend_pid(connection) for _ in range(LOOKS)}) > 1:
        return False
    await _END_WHEN_IDLE.run(connection, milliseconds=round(1000 * idle_seconds))
    if await _ends_within(idle_seconds / 2, connection):
        return None
    if await _ends_within(idle_seconds / 2 + NOTICED_SECONDS, connection):
        return True
    try:
        await backend_pid(connection)
    except psycopg.OperationalError:
        return connection.closed
    return False


async def _ends_within(seconds: float, connection: AsyncConnection[Any]) -> bool:
    with suppress(psycopg.OperationalError):
        async for _ in connection.notifies(timeout=seconds):
            pass
    return is_closed(connection)


def is_closed(connection: AsyncConnection[Any]) -> bool:
    """Return whether the server has closed the connection, which the socket shows without a round trip."""
    with suppress(psycopg.OperationalError):
        connection.pgconn.consume_input()  # data received before it closed
        connection.pgconn.consume_input()  # end of stream
    return connection.closed
