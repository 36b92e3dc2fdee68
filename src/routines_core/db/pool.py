"""Connections to Postgres: their setup, and the pool."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from routines_core.db.noted import NotedConnection
from routines_core.db.roles import take_role
from routines_core.diagnosis import diagnose
from routines_core.errors import ConfigurationError, DatabaseError, SilenceError, StatementTimeoutError
from routines_core.json_numbers import loads
from routines_core.mask import MASK

Connection: TypeAlias = AsyncConnection[Any]
Pool: TypeAlias = AsyncConnectionPool[Connection]

CONNECT_TIMEOUT_SECONDS = 5
"""Timeout of one attempt to connect."""
POOL_TIMEOUT_SECONDS = 5.0
"""How long a caller waits for a free connection before it gets an error."""


def _connection_arguments(program: str, settings: dict[str, str]) -> dict[str, Any]:
    """Return the keyword arguments of each connection. `settings` are session settings of Postgres by name."""
    session = {"timezone": "UTC", "idle_in_transaction_session_timeout": "2s", **settings}
    return {
        "autocommit": True,
        "application_name": program,
        "client_encoding": "UTF8",  # overrides the server's setting and PGCLIENTENCODING: text is str, never bytes
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "options": " ".join(f"-c {name}={value}" for name, value in session.items()),
        # A vanished peer is noticed after 5 s plus three probes of 2 s on a silent connection,
        # and after 11,000 ms while a statement is in flight, which would otherwise be retransmitted for 15 minutes.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 11_000,
        # After a failover the old primary may come back read-only: reject it and try the next host.
        "target_session_attrs": "read-write",
    }


async def _set_up(connection: Connection, role: str | None) -> None:
    """Use our JSON, and switch to the program's role if the login may."""
    set_json_loads(loads, connection)
    set_json_dumps(msgspec.json.encode, connection)
    if role:
        await take_role(connection, role)


@asynccontextmanager
async def open_pool(
    url: str, program: str, *, size: int, role: str | None = None, **settings: str
) -> AsyncGenerator[Pool]:
    """Open a pool of at most `size` connections that reconnects by itself. Closed at the end of the block.

    Args:
        url: The `DATABASE_URL`. If it lists several hosts, the one that accepts writes is used.
        program: Its name in pg_stat_activity.
        size: The maximum number of connections. Two stay open when idle.
        role: The role of Postgres to switch to, if this login may; None to keep the login's own.
        settings: Session settings of Postgres (`statement_timeout="30s"`).

    Raises:
        ConfigurationError: The URL is malformed.
    """
    refuse_malformed(url)
    pool: Pool = AsyncConnectionPool(
        url,
        connection_class=NotedConnection,
        min_size=min(2, size),
        max_size=size,
        timeout=POOL_TIMEOUT_SECONDS,
        # Reconnection attempts back off. Once they are given up, the next caller starts again at once.
        reconnect_timeout=POOL_TIMEOUT_SECONDS,
        kwargs=_connection_arguments(program, settings),
        configure=partial(_set_up, role=role),
        check=_refuse_closed,
        open=False,
    )
    async with pool:
        yield pool


class PoolState(NamedTuple):
    """The state of a pool.

    Attributes:
        connections: Open connections.
        idle: Open connections that are not in use.
        waiting: Callers that wait for a connection.
    """

    connections: int
    idle: int
    waiting: int


def state_of(pool: Pool) -> PoolState:
    """Return the current state of the pool."""
    stats = pool.get_stats()
    return PoolState(stats.get("pool_size", 0), stats.get("pool_available", 0), stats.get("requests_waiting", 0))


def refuse_if_away(pool: Pool) -> None:
    """Raise the error of an unavailable database if the pool has no open connection."""
    if not state_of(pool).connections:
        raise PoolTimeout("the pool has no open connection")


async def _refuse_closed(connection: Connection) -> None:
    """Raise if the server has closed the connection, which the socket shows without a round trip."""
    connection.pgconn.consume_input()  # data received before it closed
    connection.pgconn.consume_input()  # end of stream
    if connection.closed:
        raise psycopg.OperationalError("the server has closed the connection")


@asynccontextmanager
async def connect(url: str, program: str, *, role: str | None = None, **settings: str) -> AsyncGenerator[Connection]:
    """Open a single connection, closed at the end of the block. `role` is as in `open_pool`.

    Raises:
        ConfigurationError: The URL is malformed.
        DatabaseError: The database cannot be reached. The message contains neither user nor password.
    """
    refuse_malformed(url)
    try:
        connection = await AsyncConnection.connect(url, **_connection_arguments(program, settings))
    except psycopg.OperationalError as error:
        raise DatabaseError(_unreachable(error)) from None
    async with connection:
        await _set_up(connection, role)
        yield connection


def refuse_malformed(url: str) -> dict[str, Any]:
    """Return the parts of a connection string.

    Raises:
        ConfigurationError: It is malformed. The message does not repeat it.
    """
    try:
        return conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # the original message repeats the URL with the password
        raise ConfigurationError(
            "DATABASE_URL is not a connection string: write postgresql://USER@HOST/NAME."
        ) from None


def without_password(url: str) -> str:
    """Return a connection string without its password, wherever the string contains it.

    Raises:
        ConfigurationError: It is malformed.
    """
    parts = refuse_malformed(url)
    given = urlsplit(url)
    if parts.get("password") is None:
        return url
    if given.password is not None:
        return urlunsplit(given._replace(netloc=given.netloc.replace(f":{given.password}@", f":{MASK}@")))
    return make_conninfo(**{**parts, "password": MASK})


def _unreachable(error: psycopg.Error) -> str:
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    found = diagnose(error)
    said = "cannot be reached" if found.kind == "away" else "refuses the connection"
    return f"The database {said}: {cause}. {found.remedy}."


AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.ReadOnlySqlTransaction,
    PoolTimeout,
    SilenceError,
)
"""Errors that mean that the database is unavailable or read-only: wait and try again.

StatementTimeoutError is not among them, since the statement would take as long again.
"""

LOST = (psycopg.Error, PoolTimeout, SilenceError, StatementTimeoutError)
"""Errors after which a program's loop continues with a new connection."""
