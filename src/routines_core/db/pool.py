"""Connections to Postgres: how each is set up, and the pool that keeps them."""

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

from routines_core.db.roles import take_role
from routines_core.errors import ConfigurationError, DatabaseError, SilenceError
from routines_core.mask import MASK

Connection: TypeAlias = AsyncConnection[Any]
Pool: TypeAlias = AsyncConnectionPool[Connection]

CONNECT_TIMEOUT_SECONDS = 5
"""How long one attempt to connect may take."""
POOL_TIMEOUT_SECONDS = 5.0
"""How long a caller waits for a free connection before it hears that the database is away."""


def _connection_arguments(program: str, settings: dict[str, str]) -> dict[str, Any]:
    """The keyword arguments of each connection: `settings` are session settings of Postgres by name."""
    session = {"timezone": "UTC", "idle_in_transaction_session_timeout": "2s", **settings}
    return {
        "autocommit": True,
        "application_name": program,
        "client_encoding": "UTF8",  # whatever the server's or PGCLIENTENCODING say: text is str, never bytes
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "options": " ".join(f"-c {name}={value}" for name, value in session.items()),
        # A peer that vanished without a word is noticed after 5 s + three probes of 2 s where the connection is silent,
        # and after 11,000 ms where a statement is on its way: the system would send it again for a quarter of an hour.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 11_000,
        # After a failover the old primary may come back read-only: it is refused, and the next host is tried.
        "target_session_attrs": "read-write",
    }


async def _set_up(connection: Connection, role: str | None) -> None:
    """JSON goes through msgspec, and the program does no more than its role, where its login may take it on."""
    set_json_loads(msgspec.json.decode, connection)
    set_json_dumps(msgspec.json.encode, connection)
    if role:
        await take_role(connection, role)


@asynccontextmanager
async def open_pool(
    url: str, program: str, *, size: int, role: str | None = None, **settings: str
) -> AsyncGenerator[Pool]:
    """A pool of at most `size` connections that reconnects by itself; closed at the end of the block.

    Args:
        url: The `DATABASE_URL`; with several hosts, the one that takes writes is used.
        program: Its name in pg_stat_activity.
        size: The most connections that it opens; two stay open when idle.
        role: The role of Postgres to take on, where there is one for this login; None: the login's own.
        settings: Session settings of Postgres (`statement_timeout="30s"`).

    Raises:
        ConfigurationError: The URL is malformed.
    """
    refuse_malformed(url)
    pool: Pool = AsyncConnectionPool(
        url,
        connection_class=AsyncConnection[Any],
        min_size=min(2, size),
        max_size=size,
        timeout=POOL_TIMEOUT_SECONDS,
        # Attempts to reconnect grow rare; once they are given up, the next caller begins anew, at once.
        reconnect_timeout=POOL_TIMEOUT_SECONDS,
        kwargs=_connection_arguments(program, settings),
        configure=partial(_set_up, role=role),
        check=_refuse_closed,
        open=False,
    )
    async with pool:
        yield pool


class PoolState(NamedTuple):
    """What a pool has.

    Attributes:
        connections: Open ones.
        idle: Those of them that nobody uses.
        waiting: Who waits for one.
    """

    connections: int
    idle: int
    waiting: int


def state_of(pool: Pool) -> PoolState:
    """What the pool has at this moment."""
    stats = pool.get_stats()
    return PoolState(stats.get("pool_size", 0), stats.get("pool_available", 0), stats.get("requests_waiting", 0))


async def _refuse_closed(connection: Connection) -> None:
    """Refuse a connection that the server has closed: its socket says so, without a round trip."""
    connection.pgconn.consume_input()  # what it said before it closed
    connection.pgconn.consume_input()  # the end
    if connection.closed:
        raise psycopg.OperationalError("the server has closed the connection")


@asynccontextmanager
async def connect(url: str, program: str, *, role: str | None = None, **settings: str) -> AsyncGenerator[Connection]:
    """One connection of its own, closed at the end of the block; `role` as in `open_pool`.

    Raises:
        ConfigurationError: The URL is malformed.
        DatabaseError: It cannot be reached; the message names neither user nor password.
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
    """The parts of a connection string.

    Raises:
        ConfigurationError: It is none; the message does not repeat it.
    """
    try:
        return conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its text repeats the URL, with the password
        raise ConfigurationError("DATABASE_URL is no connection string: write postgresql://USER@HOST/NAME.") from None


def without_password(url: str) -> str:
    """A connection string as it may be shown, however it spells its password.

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
    advice = (
        "It is a standby, or set to be read-only: name the primary in DATABASE_URL, or every host"
        if "read-only" in cause
        else "Check DATABASE_URL and that the server runs"
    )
    return f"The database cannot be reached: {cause}. {advice}."


AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.ReadOnlySqlTransaction,
    PoolTimeout,
    SilenceError,
)
"""What is raised when the database is away, or is one that cannot be written to: wait and try again."""

LOST = (psycopg.Error, PoolTimeout, SilenceError)
"""What a program's loop may meet: whatever it is, the loop goes on with a new connection."""
