"""Connections to Postgres, single and pooled."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from routines_core.db.noted import NotedConnection
from routines_core.db.sessions import connection_arguments, is_closed, require_sessions, set_up
from routines_core.diagnosis import diagnose
from routines_core.errors import ConfigurationError, DatabaseError, SessionError, SilenceError, StatementTimeoutError
from routines_core.mask import MASK

Connection: TypeAlias = AsyncConnection[Any]
Pool: TypeAlias = AsyncConnectionPool[Connection]

POOL_TIMEOUT_SECONDS = 5.0
"""How long a caller waits for a free connection before it gets an error."""


class _Pool(AsyncConnectionPool[Connection]):
    """A pool that passes over connections which the server has closed, however many they are."""

    async def getconn(self, timeout: float | None = None) -> Connection:  # noqa: ASYNC109 - as in the base class
        """Return an open connection. The pool replaces each closed one that is met on the way."""
        ends_at = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            connection = await super().getconn(ends_at - time.monotonic())
            if not is_closed(connection):
                return connection
            await self.putconn(connection)


async def _arguments_once_examined(url: str, program: str) -> dict[str, Any]:
    await require_sessions(url, program)
    return connection_arguments(program)


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
        SessionError: The database is there, but its connections do not keep their session.
    """
    refuse_malformed(url)
    with suppress(psycopg.OperationalError, SilenceError):  # the pool waits for a database that is away
        await require_sessions(url, program)
    pool: Pool = _Pool(
        url,
        connection_class=NotedConnection,
        min_size=min(2, size),
        max_size=size,
        timeout=POOL_TIMEOUT_SECONDS,
        # Reconnection attempts back off. Once they are given up, the next caller starts again at once.
        reconnect_timeout=POOL_TIMEOUT_SECONDS,
        kwargs=partial(_arguments_once_examined, url, program),
        configure=partial(set_up, role=role, settings=settings),
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


@asynccontextmanager
async def connect(url: str, program: str, *, role: str | None = None, **settings: str) -> AsyncGenerator[Connection]:
    """Open a single connection, closed at the end of the block. `role` is as in `open_pool`.

    Raises:
        ConfigurationError: The URL is malformed.
        DatabaseError: The database cannot be reached. The message contains neither user nor password.
        SessionError: The connection does not keep its session.
    """
    refuse_malformed(url)
    try:
        await require_sessions(url, program)
        connection = await AsyncConnection.connect(url, **connection_arguments(program))
    except psycopg.OperationalError as error:
        raise DatabaseError(_unreachable(error)) from None
    async with connection:
        await set_up(connection, role, settings)
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

LOST = (psycopg.Error, PoolTimeout, SilenceError, StatementTimeoutError, SessionError)
"""Errors after which a program's loop continues with a new connection."""
