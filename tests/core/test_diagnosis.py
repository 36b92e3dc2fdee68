"""Errors are classified once: what is away, what is refused and why, and what is a bug."""

import errno
import uuid
from collections.abc import Generator

import httpx
import psycopg
import pytest

from routines_core.db import Connection, connect, open_pool
from routines_core.db.pool import PoolTimeout
from routines_core.diagnosis import diagnose, is_own_trouble
from routines_core.errors import DatabaseError, SilenceError, StatementTimeoutError, StorageError
from routines_core.logging import describe
from support.rows import Database, with_database, with_login
from support.service import free_port

CANARY = "canary-4711"


@pytest.fixture
def login(database: Database) -> Generator[str]:
    """A login of its own that may connect once at most."""
    name = f"few_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database.url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x' CONNECTION LIMIT 0".encode())
        yield name
        admin.execute(f"DROP ROLE {name}".encode())


@pytest.mark.parametrize(
    ("statement", "sqlstate", "told"),
    [
        ("SELECT FROM routines.no_such_table", "42P01", 'relation "routines.no_such_table" does not exist'),
        ("SELECT no_such_column FROM routines.tasks", "42703", 'column "no_such_column" does not exist'),
        ("SELECT routines.no_such_function()", "42883", "function routines.no_such_function() does not exist"),
        ("SET ROLE routines_ticker; SELECT FROM routines.secrets", "42501", "permission denied for table secrets"),
        ("SET default_transaction_read_only = on; DELETE FROM routines.tasks", "25006", None),
    ],
)
async def test_a_refusal_names_the_object_and_the_remedy(
    connection: Connection, statement: str, sqlstate: str, told: str | None
) -> None:
    *before, refused = statement.split("; ")
    for each in before:
        await connection.execute(each.encode())
    with pytest.raises(psycopg.Error) as raised:
        await connection.execute(refused.encode())
    found = diagnose(raised.value)
    assert (found.kind, found.sqlstate, found.object or None) == ("refused", sqlstate, told)
    assert found.remedy
    assert describe(raised.value).items() >= {"sqlstate": sqlstate, "remedy": found.remedy}.items()
    assert found.is_of_the_server


async def refusal_of(url: str) -> DatabaseError:
    with pytest.raises(DatabaseError) as raised:
        async with connect(url, "tests"):
            pass
    return raised.value


async def test_a_refused_connection_is_told_from_a_server_that_is_away(database: Database, login: str) -> None:
    refused = {
        with_database(database.url, "no_such_database"): "3D000",
        with_login(database.url, "no_such_login", "x"): "28000",
        with_login(database.url, login, "x"): "53300",
    }
    for url, sqlstate in refused.items():
        found = diagnose(await refusal_of(url))
        assert (found.kind, found.sqlstate) == ("refused", sqlstate), url
    away = await refusal_of(f"postgresql://127.0.0.1:{free_port()}/routines")
    assert (diagnose(away).kind, "cannot be reached" in str(away)) == ("away", True)


async def test_a_database_that_accepts_no_connections_or_no_writes_says_so(database: Database) -> None:
    with psycopg.connect(with_database(database.url, "postgres"), autocommit=True) as admin:
        name = psycopg.conninfo.conninfo_to_dict(database.url)["dbname"]
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())
        assert diagnose(await refusal_of(database.url)).sqlstate == "25006"
        admin.execute(f'ALTER DATABASE "{name}" RESET ALL'.encode())
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        assert diagnose(await refusal_of(database.url)).sqlstate == "55000"
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ('connection failed: FATAL:  password authentication failed for user "api"', "28P01"),
        ("connection failed: fe_sendauth: no password supplied", "28P01"),
        ('connection failed: FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "api"', "28000"),
        ('connection failed: FATAL:  permission denied for database "postgres"', "42501"),
        ("connection failed: FATAL:  sorry, too many clients already", "53300"),
        ("connection failed: FATAL:  the database system is starting up", "57P03"),
        ("connection failed: FATAL:  could not write init file: No space left on device", "53100"),
    ],
)
def test_the_message_of_a_refused_connection_stands_in_for_its_sqlstate(text: str, sqlstate: str) -> None:
    """A server that trusts everybody, as that of the tests does, never says these."""
    assert diagnose(psycopg.OperationalError(text)).sqlstate == sqlstate


async def test_a_pool_without_connections_says_why_the_last_one_was_refused(database: Database) -> None:
    async with open_pool(with_database(database.url, "no_such_database"), "tests", size=1) as pool:
        with pytest.raises(PoolTimeout) as raised:
            async with pool.connection(timeout=1):
                pass
    assert diagnose(raised.value).sqlstate == "3D000"
    async with open_pool(database.url, "tests", size=1) as pool, pool.connection():
        pass
    assert diagnose(raised.value).kind == "away"  # nothing is refused any more


async def test_what_belongs_to_one_statement_is_told_from_what_belongs_to_the_server(connection: Connection) -> None:
    await connection.execute("SET statement_timeout = '10ms'")
    with pytest.raises(psycopg.errors.QueryCanceled) as raised:
        await connection.execute("SELECT pg_sleep(5)")
    assert (diagnose(raised.value).sqlstate, diagnose(raised.value).is_of_the_server) == ("57014", False)
    assert diagnose(StatementTimeoutError("runs.claim")).object == "runs.claim"
    assert diagnose(SilenceError("…")).kind == "away"
    assert diagnose(StorageError("…")).kind == "refused"


def test_any_other_error_is_a_bug_and_its_text_is_not_repeated() -> None:
    for error in (KeyError(CANARY), ValueError(CANARY), psycopg.ProgrammingError(CANARY)):
        assert (diagnose(error).kind, describe(error).get("cause")) == ("bug", None)
        assert CANARY not in str(describe(error))


def lose(name: str) -> None:
    raise psycopg.OperationalError(name)


def blunder(name: str) -> None:
    try:
        lose(name)
    except psycopg.OperationalError:
        raise KeyError(name)  # noqa: B904 - as it happens by mistake


def test_a_bug_in_the_handling_of_a_lost_connection_is_still_a_bug() -> None:
    with pytest.raises(KeyError) as raised:
        blunder("the connection is lost")
    assert diagnose(raised.value).kind == "bug"


def connect_without_descriptors() -> None:
    try:
        raise ExceptionGroup("", [OSError(errno.EMFILE, "Too many open files")])  # noqa: TRY301
    except ExceptionGroup as group:
        raise httpx.ConnectError("no connection") from group


def store() -> None:
    try:
        connect_without_descriptors()
    except httpx.ConnectError:
        raise StorageError("no store") from None


def test_a_lack_of_file_descriptors_is_found_however_deep_it_is() -> None:
    with pytest.raises(StorageError) as raised:
        store()
    assert is_own_trouble(raised.value)
    assert not is_own_trouble(OSError(errno.ECONNREFUSED, "refused"))
