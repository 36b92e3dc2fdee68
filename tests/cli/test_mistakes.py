"""Operator mistakes are reported in a clear line that says what to do, never in a traceback."""

import socket
import uuid
from collections.abc import Generator
from pathlib import Path
from subprocess import CompletedProcess

import psycopg
import pytest

from routines_core.db import Connection
from support.command import COMMANDS, TASK, routines
from support.rows import ENCRYPTION_KEYS, Database, with_database, with_login
from support.sampling import sample

pytestmark = pytest.mark.slow

WITH_A_KEY_FIRST = {"keys create", "keys rotate", "secrets rotate"}


def said(database: Database, command: str) -> CompletedProcess[str]:
    """Run a command that must fail with exit code 1, in one line and without a traceback."""
    done = routines(database, *COMMANDS[command], stdin=TASK if command == "tasks apply" else "")
    assert done.returncode == 1, (command, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, (command, done.stderr)
    assert len(done.stderr.splitlines()) <= 1, (command, done.stderr)
    return done


@pytest.fixture
def empty(server_url: str) -> Generator[Database]:
    """A database that was never migrated."""
    name = f"routines_empty_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        yield Database(with_database(server_url, name))
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def nobody(database: Database) -> Generator[Database]:
    """The database as seen by a login without any rights."""
    login = f"nobody_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database.url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x'")
        yield Database(with_login(database.url, login, "x"))
        admin.execute(f"DROP ROLE {login}")


@pytest.mark.parametrize("command", sample(COMMANDS, 5))
def test_without_rights_it_names_the_missing_right_and_the_login_that_has_it(nobody: Database, command: str) -> None:
    done = said(nobody, command)
    assert "permission denied" in done.stdout + done.stderr
    assert "the login that ran `routines migrate`" in done.stdout + done.stderr


@pytest.mark.parametrize("command", sample([name for name in COMMANDS if name != "migrate"], 5))
def test_in_a_database_without_a_schema_it_says_to_migrate(empty: Database, command: str) -> None:
    done = said(empty, command)
    assert "`routines migrate`" in done.stdout + done.stderr


@pytest.mark.parametrize("command", sample(COMMANDS, 5))
def test_on_a_standby_it_says_to_name_the_primary(database: Database, command: str) -> None:
    with psycopg.connect(database.url, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    done = said(database, command)
    assert "session is read-only. Name the primary in DATABASE_URL" in done.stderr


@pytest.mark.parametrize("command", ["doctor", "keys create"])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://nobody:hush@127.0.0.1:1/routines",
        "postgresql://nobody:hush@no-such-host.invalid/routines",
        "host=127.0.0.1 port=1 user=nobody password=hush",
        "postgresql://nobody:hush@127.0.0.1:many/routines",
        "postgresql://nobody:hush@127.0.0.1/routines?sslmode=bogus",
        "https://nobody:hush@127.0.0.1/routines",
        "/some/path hush",
    ],
)
def test_an_unusable_database_url_is_reported_but_not_repeated(url: str, command: str) -> None:
    done = said(Database(url), command)
    assert "DATABASE_URL" in done.stderr
    assert "hush" not in done.stdout + done.stderr


def test_a_missing_login_or_database_is_named(database: Database) -> None:
    assert (
        'role "no_such_login" does not exist'
        in said(Database(with_login(database.url, "no_such_login", "x")), "doctor").stderr
    )
    assert (
        'database "no_such_database" does not exist'
        in said(Database(with_database(database.url, "no_such_database")), "keys list").stderr
    )


async def test_a_statement_at_odds_with_the_schema_is_reported(database: Database, connection: Connection) -> None:
    await connection.execute("ALTER TABLE routines.api_keys RENAME COLUMN last_used_at TO last_seen_at")
    assert "`routines doctor` says which of the two is newer" in said(database, "keys list").stderr


async def test_the_doctor_checks_whatever_the_login_may_see(database: Database, connection: Connection) -> None:
    for role in ("routines_api", "routines_ticker", "routines_worker", "routines_reader"):
        login = f"{role}_{uuid.uuid4().hex[:8]}"
        await connection.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE {role}".encode())
        own = Database(with_login(database.url, login, "x"))
        done = said(own, "doctor")
        assert "secrets   not examined: this login may not read them (permission denied" in done.stdout
        assert f"login     {login}, can take on {role}" in done.stdout
        assert routines(own, "doctor", "--quick").returncode == 0
        await connection.execute(f"DROP ROLE {login}".encode())


def test_a_lock_held_for_too_long_is_reported(database: Database) -> None:
    with psycopg.connect(database.url) as holder:
        holder.execute("LOCK TABLE routines.api_keys")
        assert "did not finish in time" in said(database, "keys list").stderr


@pytest.mark.parametrize("given", ["", "no json", "[]", "\x00", '{"name": "a"'])
def test_a_file_that_is_not_a_task_is_reported(database: Database, given: str) -> None:
    done = routines(database, "tasks", "apply", "-", "--collection", "my-org", stdin=given)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr


def test_an_unreadable_file_is_reported(database: Database, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none.json"):
        done = routines(database, "tasks", "apply", str(place), "--collection", "my-org")
        assert (done.returncode, "Traceback" in done.stderr, str(place) in done.stderr) == (2, False, True)


def test_unreadable_encryption_keys_are_reported(database: Database) -> None:
    for keys in ("", "k1:short", "no key"):
        for command in sorted(WITH_A_KEY_FIRST):
            done = routines(database, *COMMANDS[command], keys=keys)
            assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
            assert "ROUTINES_ENCRYPTION_KEYS" in done.stderr
    assert routines(database, "keys", "list", keys=ENCRYPTION_KEYS).returncode == 0


def test_a_key_file_that_others_can_read_is_reported_with_what_to_do(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(ENCRYPTION_KEYS, "ascii")
    file.chmod(0o644)
    for command in ("keys create", "doctor"):
        done = routines(database, *COMMANDS[command], keys="", ROUTINES_ENCRYPTION_KEYS_FILE=str(file))
        assert done.returncode == 1
        assert f"run chmod 0400 {file}" in done.stdout + done.stderr
    file.chmod(0o400)
    assert routines(database, "doctor", keys="", ROUTINES_ENCRYPTION_KEYS_FILE=str(file)).returncode == 0


@pytest.mark.parametrize("program", ["api", "ticker", "worker", "up"])
def test_a_program_that_cannot_start_says_why(program: str, tmp_path: Path) -> None:
    done = routines(Database("https://hush@127.0.0.1"), program, ROUTINES_DATA_DIR=str(tmp_path))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "routines: DATABASE_URL is not a connection string: write postgresql://USER@HOST/NAME.",
    )


@pytest.mark.parametrize("program", ["api", "up"])
def test_an_unusable_address_is_named(program: str, tmp_path: Path) -> None:
    nowhere = Database("postgresql://127.0.0.1:1/routines")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = routines(nowhere, program, ROUTINES_PORT=port, ROUTINES_DATA_DIR=str(tmp_path))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert f"Cannot listen on 127.0.0.1:{port} (Address already in use)" in done.stderr
    for host in ("localhost", "no-such-host.invalid"):
        done = routines(nowhere, program, ROUTINES_HOST=host, ROUTINES_DATA_DIR=str(tmp_path))
        assert (done.returncode, "is not an IP address: use 127.0.0.1" in done.stderr) == (1, True), done.stderr
    done = routines(nowhere, program, ROUTINES_HOST="203.0.113.9", ROUTINES_DATA_DIR=str(tmp_path))
    assert (done.returncode, "an address of this machine" in done.stderr) == (1, True), done.stderr


def test_a_damaged_data_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "postmaster.pid").write_bytes(bytes([255, 254, 0]))
    done = routines(Database(""), "doctor", ROUTINES_DATA_DIR=str(tmp_path))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "no server is running in" in done.stderr
