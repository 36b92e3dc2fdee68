"""What the server, the database, the login or the URL sets does not change how a program's sessions read values."""

import re
import uuid
from collections.abc import Generator
from urllib.parse import quote

import psycopg
import pytest

from routines_core.db import Connection, connect
from routines_core.db.sessions import PINNED, backend_pid, is_pooled
from routines_core.errors import SessionError
from support.hostile_settings import HOSTILE, NEEDS_SUPERUSER, hostile_on, make_hostile, make_login_hostile
from support.rows import Database, value, with_login
from support.service import ROOT

PASSWORD = "not-a-secret"


async def shown(connection: Connection, names: dict[str, str]) -> dict[str, object]:
    return {name: await value(connection, f"SELECT current_setting('{name}', true)") for name in names}


@pytest.fixture
def login(database: Database) -> Generator[str]:
    """The URL of a login that is no superuser and may switch to the API's role."""
    name = f"app_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(database.url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' IN ROLE routines_api".encode())
        yield with_login(database.url, name, PASSWORD)
        admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def test_every_hostile_setting_is_one_that_is_pinned() -> None:
    assert set(HOSTILE) | {"transaction_timeout"} == set(PINNED)


def test_the_page_names_every_pinned_setting() -> None:
    page = (ROOT / "docs" / "run" / "databases.md").read_text("utf-8")
    table = page.partition("| Setting | Value |")[2].partition("\n\n")[0]
    settings = [row.split("|")[1] for row in table.splitlines()[2:-1]]
    assert set(re.findall(r"`(\w+)`", " ".join(settings))) == {name for name in PINNED if "." not in name}


async def test_settings_of_the_database_do_not_reach_a_session(database: Database) -> None:
    make_hostile(database.url)
    async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as bare:
        hostile = hostile_on(bare.info.server_version)
        assert await shown(bare, hostile) == hostile
    async with connect(database.url, "tests") as connection:
        assert await shown(connection, hostile) == {name: PINNED[name] for name in hostile}


async def test_settings_of_the_login_do_not_reach_a_session(database: Database, login: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(login)["user"]
    make_login_hostile(database.url, str(name))
    with psycopg.connect(database.url, autocommit=True) as admin:
        admin.execute(f"ALTER ROLE {name} RESET {NEEDS_SUPERUSER}".encode())
        admin.execute(f"ALTER ROLE {name} SET role = 'pg_monitor'; GRANT pg_monitor TO {name}".encode())
        hostile = hostile_on(admin.info.server_version)
    async with connect(login, "tests", role="routines_api") as connection:
        assert await shown(connection, hostile) == {name: PINNED[name] for name in hostile}
        assert await value(connection, "SELECT current_user::text") == "routines_api"


async def test_options_in_the_url_are_kept_unless_they_change_what_a_program_needs(database: Database) -> None:
    url = f"{database.url}{'&' if '?' in database.url else '?'}options={quote('-c work_mem=7MB -c DateStyle=German')}"
    async with connect(url, "tests") as connection:
        assert await shown(connection, {"work_mem": "", "DateStyle": ""}) == {
            "work_mem": "7MB",
            "DateStyle": PINNED["DateStyle"],
        }


async def test_a_program_sets_its_own_timeouts(database: Database) -> None:
    async with connect(database.url, "tests", statement_timeout="2500ms", lock_timeout="60000ms") as connection:
        assert await shown(connection, {"statement_timeout": "", "lock_timeout": ""}) == {
            "statement_timeout": "2500ms",
            "lock_timeout": "1min",
        }


async def test_a_setting_that_only_a_superuser_may_undo_is_refused_in_one_line(database: Database, login: str) -> None:
    make_hostile(database.url)
    with pytest.raises(SessionError, match=NEEDS_SUPERUSER) as caught:
        async with connect(login, "tests", role="routines_api"):
            pass
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


async def test_a_direct_connection_is_told_from_a_pooled_one_by_its_server_process(connection: Connection) -> None:
    assert not await is_pooled(connection)
    assert await backend_pid(connection) == connection.info.backend_pid
