"""Which settings count: ours before those of other tools, none of the current folder's, and none that is misspelt."""

import subprocess
import uuid
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest

from routines_cli.target import target_of
from routines_cli.up import _environment
from routines_core.db.standing import place_of
from routines_core.errors import ConfigurationError, StorageError
from routines_core.files.opening import open_file_store
from routines_core.keyring import generate_key, load_keyring
from routines_core.settings import Settings, misspelt_variables
from support.command import routines
from support.rows import Database, with_login
from support.schema_book import empty_database
from support.service import Service, free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def empty(server_url: str) -> Generator[Database]:
    with empty_database(server_url) as made:
        yield made


@pytest.fixture
def foreign(empty: Database) -> Database:
    """A database of another tool."""
    with psycopg.connect(empty.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.customers (id integer)")
    return empty


def test_our_own_variable_wins_over_the_one_that_every_tool_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://another/tool")
    assert Settings().database_url == "postgresql://another/tool"
    monkeypatch.setenv("ROUTINES_DATABASE_URL", "postgresql://ours/routines")
    assert Settings().database_url == "postgresql://ours/routines"
    assert target_of(Settings()) == "ours/routines, from ROUTINES_DATABASE_URL"
    assert "ours" not in repr(Settings())


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://me:hush@db1,db2:6000/routines", "db1,db2:6000/routines"),
        ("postgresql://me@/routines?host=%2Fvar%2Frun&port=5432", "/var/run/routines"),
        ("host=db password=hush dbname=x", "db/x"),
    ],
)
def test_a_database_is_named_without_user_and_password(url: str, place: str) -> None:
    assert place_of(url) == place


@pytest.mark.slow
def test_up_refuses_a_database_of_another_tool_and_names_it_first(foreign: Database, tmp_path: Path) -> None:
    service = Service(tmp_path, DATABASE_URL=foreign.url)
    done = subprocess.run(
        service.command,
        cwd=tmp_path,
        env=service.environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    first, last = done.stderr.splitlines()
    assert f"{place_of(foreign.url)}, from DATABASE_URL" in first
    assert (done.returncode, "has other tables and none of Routines" in last) == (1, True)
    assert "set ROUTINES_DATABASE_URL" in last
    with psycopg.connect(foreign.url) as connection:
        assert connection.execute("SELECT to_regnamespace('routines') IS NULL").fetchone() == (True,)


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["DATABASE_URL", "ROUTINES_DATABASE_URL"])
def test_up_uses_an_empty_database_and_any_that_our_own_variable_names(
    empty: Database, foreign: Database, tmp_path: Path, variable: str
) -> None:
    if variable == "DATABASE_URL":
        with psycopg.connect(foreign.url, autocommit=True) as connection:
            connection.execute("DROP TABLE public.customers")
    service = Service(tmp_path, **{"DATABASE_URL": "postgresql://127.0.0.1:1/wrong", variable: empty.url})
    service.start()
    service.process.terminate()
    assert service.process.wait(timeout=20) == 0


@pytest.mark.parametrize(("given", "enabled"), [(None, "true"), ("true", "true"), ("false", "false")])
def test_up_enables_routines_unless_it_is_told_not_to(
    monkeypatch: pytest.MonkeyPatch, given: str | None, enabled: str
) -> None:
    if given is not None:
        monkeypatch.setenv("ENABLE_ROUTINES", given)
    assert _environment(Settings(), "postgresql://x/y")["ENABLE_ROUTINES"] == enabled


def test_a_program_takes_no_key_and_no_files_from_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".routines").mkdir()
    (tmp_path / ".routines" / "encryption.key").write_text(generate_key("kept"))
    (tmp_path / ".routines" / "encryption.key").chmod(0o600)
    assert load_keyring(Settings()).key_ids == ["kept"]  # with the database of the same folder
    elsewhere = Settings(database_url="postgresql://db/routines")
    with pytest.raises(ConfigurationError, match="Neither ROUTINES_ENCRYPTION_KEYS nor"):
        load_keyring(elsewhere)
    named = Settings(database_url="postgresql://db/routines", data_dir=tmp_path / ".routines")
    assert load_keyring(named).key_ids == ["kept"]


async def test_without_a_place_for_files_each_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_file_store(Settings(database_url="postgresql://db/routines"))
    with pytest.raises(StorageError, match="ROUTINES_FILES is not set"):
        await store.save(1, "a", b"x")
    with pytest.raises(StorageError, match="ROUTINES_FILES is not set"):
        await store.read(1, "a")
    assert [file async for file in store.stored()] == []
    assert not (tmp_path / ".routines").exists()


def test_misspelt_variables_are_named_with_the_nearest_right_one() -> None:
    names = {
        "ROUTINES_ENCRYPTON_KEYS": "ROUTINES_ENCRYPTION_KEYS",
        "ROUTINES_DATA_DIRECTORY": "ROUTINES_DATA_DIR",
        "ROUTINES_WORKER_CONCURENCY": "ROUTINES_WORKER_CONCURRENCY",
        "ROUTINES_FROBNICATE": None,
    }
    right = ["ROUTINES_PORT", "ROUTINES_POSTGRES_BIN", "ROUTINES_TEST_SEED", "PATH"]
    of_kubernetes = ["ROUTINES_API_SERVICE_HOST", "ROUTINES_API_SERVICE_PORT_HTTP", "ROUTINES_API_PORT_8080_TCP_ADDR"]
    assert misspelt_variables([*names, *right, *of_kubernetes]) == names


@pytest.mark.parametrize("program", ["api", "ticker", "worker", "up"])
def test_each_program_names_misspelt_variables_and_starts(program: str, tmp_path: Path) -> None:
    done = routines(
        Database("https://nowhere"),
        program,
        ROUTINES_DATA_DIR=str(tmp_path),
        ROUTINES_WORKER_CONCURENCY="5",
        ROUTINES_PORT=str(free_port()),
    )
    said = [line for line in done.stderr.splitlines() if "ROUTINES_WORKER_CONCURENCY" in line]
    assert len(said) == 1
    assert "ROUTINES_WORKER_CONCURRENCY" in said[0]
    assert "DATABASE_URL is not a connection string" in done.stderr


# --- doctor -----------------------------------------------------------------------------------------------------------


def test_the_doctor_fails_if_a_role_lacks_a_right_and_names_it(database: Database) -> None:
    assert routines(database, "doctor", "--quick").returncode == 0
    with psycopg.connect(database.url, autocommit=True) as admin:
        admin.execute("REVOKE INSERT ON routines.skips FROM routines_ticker")
        admin.execute("REVOKE UPDATE (status) ON routines.trajectories FROM routines_api")
        admin.execute("REVOKE EXECUTE ON FUNCTION routines.measure_stored_bytes(integer) FROM routines_worker")
    done = routines(database, "doctor", "--quick")
    assert done.returncode == 1
    assert "routines_ticker: routines.skips INSERT" in done.stdout
    assert "routines_api: routines.trajectories UPDATE" in done.stdout
    assert "routines_worker: FUNCTION routines.measure_stored_bytes(integer) EXECUTE" in done.stdout
    assert "SELECT routines.set_up_roles()" in done.stdout
    with psycopg.connect(database.url, autocommit=True) as admin:
        admin.execute("SELECT routines.set_up_roles()")
    assert routines(database, "doctor", "--quick").returncode == 0


def test_the_doctor_fails_if_tenants_are_not_kept_apart(database: Database) -> None:
    """A login that bypasses row-level security and can take on no role sees every collection."""
    login = f"wide_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database.url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {login} LOGIN BYPASSRLS PASSWORD 'x'".encode())
        admin.execute(f"GRANT USAGE ON SCHEMA routines TO {login}".encode())
        admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA routines TO {login}".encode())
        try:
            done = routines(Database(with_login(database.url, login, "x")), "doctor", "--quick")
        finally:
            admin.execute(f"DROP OWNED BY {login}".encode())
            admin.execute(f"DROP ROLE {login}".encode())
    assert "NOT isolated" in done.stdout
    assert done.returncode == 1


def test_the_doctor_fails_if_others_can_read_the_key_file_even_when_it_is_quick(
    database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(generate_key())
    for mode, code in ((0o644, 1), (0o400, 0)):
        file.chmod(mode)
        done = routines(database, "doctor", "--quick", keys="", ROUTINES_ENCRYPTION_KEYS_FILE=str(file))
        assert done.returncode == code, done.stdout + done.stderr
    assert f"keys      in {file}, private" in done.stdout
