"""Work as the owners that a managed Postgres offers: not superusers, with or without the right to create roles."""

import asyncio
import re
import subprocess
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from routines_cli.role_report import describe
from routines_core.db import Connection, connect
from routines_core.db.migrations import migrate
from routines_core.db.roles import role_report
from routines_core.db.tasks import create_task, list_tasks
from routines_core.db.tick import tick
from routines_core.embedded import EmbeddedServer
from routines_core.embedded.binaries import find_binaries
from support.rows import CATCHUP, at, make_key, make_routine, value, with_database, with_login
from support.service import ROOT, wait_until

ALL = ["routines_api", "routines_reader", "routines_ticker", "routines_worker"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Yield the administrator's URL of a separate cluster, because roles belong to the cluster."""
    server = EmbeddedServer(tmp_path_factory.mktemp("owners"), settings={"fsync": "off"})
    server.start()
    try:
        yield server.url("postgres")
    finally:
        server.stop()


@pytest.fixture
async def admin(cluster: str) -> AsyncGenerator[Connection]:
    """Yield an administrator of a cluster that has neither roles of Routines nor databases with them."""
    async with connect(cluster, "admin") as opened:
        yield opened
        for name in ("one", "two"):
            await opened.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        await opened.execute(b"GRANT CREATE ON SCHEMA public TO PUBLIC")
        for role in (*ALL, "owner", "second"):
            await opened.execute(f"DROP ROLE IF EXISTS {role}".encode())


async def owned(admin: Connection, cluster: str, owner: str = "owner", name: str = "one", rights: str = "") -> str:
    """Create a role with only these rights and a database that it owns; return the URL."""
    await admin.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'owner' {rights}".encode())
    await admin.execute(f"CREATE DATABASE {name} OWNER {owner}".encode())
    return with_login(with_database(cluster, name), owner, "owner")


async def fill(connection: Connection) -> tuple[int, int]:
    """Create two collections with a task each, as the owner; return the ids of their keys."""
    mine, theirs = [int((await make_key(connection, name)).split("_")[1]) for name in ("mine", "theirs")]
    for key_id in (mine, theirs):
        await create_task(connection, key_id=key_id, name="echo", description="", workflow={"init_params": {}})
    return mine, theirs


async def test_an_owner_with_createrole_creates_the_roles_and_its_programs_assume_them(
    admin: Connection, cluster: str
) -> None:
    url = await owned(admin, cluster, rights="CREATEROLE")
    async with connect(url, "owner") as owner:
        await migrate(owner)
        mine, _ = await fill(owner)
        assert await value(owner, "SELECT count(*) FROM routines.tasks") == 2
        assert (await role_report(owner)).can_take_roles == ALL
    async with connect(url, "api", role="routines_api") as api:
        assert await value(api, "SELECT current_user::text") == "routines_api"
        assert len(await list_tasks(api, key_id=mine, limit=9)) == 1
        assert await value(api, "SELECT count(*) FROM routines.tasks") == 0


async def test_a_second_database_of_the_cluster_finds_the_roles_and_works_without_membership(
    admin: Connection, cluster: str
) -> None:
    async with connect(await owned(admin, cluster, rights="CREATEROLE"), "owner") as owner:
        await migrate(owner)
    async with connect(await owned(admin, cluster, "second", "two"), "owner") as second:
        await migrate(second)
        found = await role_report(second)
        assert (found.missing_roles, found.can_take_roles) == ([], [])
    await admin.execute(b"GRANT routines_ticker TO second")
    async with connect(with_login(with_database(cluster, "two"), "second", "owner"), "t", role="routines_ticker") as it:
        assert (await tick(it, batch_size=10, **CATCHUP)).claimed == 0
        assert await value(it, "SELECT current_user::text") == "routines_ticker"


async def test_an_owner_without_createrole_can_migrate_and_still_keeps_tenants_apart(
    admin: Connection, cluster: str
) -> None:
    url = await owned(admin, cluster)
    async with connect(url, "owner") as owner:
        await migrate(owner)
        mine, theirs = await fill(owner)
        assert (await role_report(owner)).missing_roles == ALL
        assert any("missing: routines_api" in line for line in describe(await role_report(owner), {}))
    async with connect(url, "api", role="routines_api") as api:
        assert await value(api, "SELECT current_user::text") == "owner"
        async with api.transaction():
            # Once a transaction has named a collection, not even the owner sees another one.
            assert len(await list_tasks(api, key_id=mine, limit=9)) == 1
            assert await value(api, "SELECT count(*) FROM routines.tasks") == 1
            assert len(await list_tasks(api, key_id=theirs, limit=9)) == 1
    async with connect(url, "ticker", role="routines_ticker") as ticker:
        task = await value(ticker, "SELECT min(id) FROM routines.tasks")
        assert isinstance(task, int)
        await make_routine(ticker, task, at("2026-05-04 09:00"))
        assert (await tick(ticker, batch_size=10, now=at("2026-05-04 09:00"), **CATCHUP)).fired == 1


def statements_of_the_manual() -> str:
    """The statements that docs/run/roles.md gives an administrator to make the roles with."""
    text = (ROOT / "docs" / "run" / "roles.md").read_text("utf-8")
    found = re.search(r"```pgsql\n(-- As an administrator.*?)```", text, re.DOTALL)
    assert found
    return found[1]


async def test_roles_created_by_an_administrator_as_the_manual_says_work_once_set_up(
    admin: Connection, cluster: str
) -> None:
    url = await owned(admin, cluster)
    async with connect(url, "owner") as owner:
        await migrate(owner)
        mine, _ = await fill(owner)
        await admin.execute(statements_of_the_manual().replace("OWNER", "owner").encode())
        await owner.execute(b"SELECT routines.set_up_roles()")
        assert (await role_report(owner)).missing_roles == []
    async with connect(url, "api", role="routines_api") as api:
        assert await value(api, "SELECT current_user::text") == "routines_api"
        assert len(await list_tasks(api, key_id=mine, limit=9)) == 1
    await admin.execute(b"ALTER ROLE routines_ticker LOGIN PASSWORD 'ticker'")
    login = with_login(url, "routines_ticker", "ticker")
    async with connect(login, "t", role="routines_ticker") as ticker:
        assert (await tick(ticker, batch_size=10, **CATCHUP)).claimed == 0
    async with await psycopg.AsyncConnection.connect(login) as person:
        assert await value(person, "SELECT current_setting('lock_timeout')") == "1s"


async def test_the_owner_can_dump_and_restore_every_collection(admin: Connection, cluster: str, tmp_path: Path) -> None:
    url = await owned(admin, cluster, rights="CREATEROLE")
    async with connect(url, "owner") as owner:
        await migrate(owner)
        mine, _ = await fill(owner)
    await admin.execute(b"CREATE DATABASE two OWNER owner")
    restored, dump, tools = (
        with_login(with_database(cluster, "two"), "owner", "owner"),
        tmp_path / "dump",
        find_binaries(),
    )
    if not (tools / "pg_dump").exists():
        pytest.skip(f"pg_dump is missing in {tools}")
    for command in (
        [tools / "pg_dump", "--enable-row-security", "--format=custom", f"--file={dump}", url],
        [tools / "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={restored}", dump],
    ):
        await asyncio.to_thread(subprocess.run, command, check=True)
    async with connect(restored, "owner") as owner:
        assert await value(owner, "SELECT count(*) FROM routines.tasks") == 2
    async with connect(restored, "api", role="routines_api") as api:
        assert len(await list_tasks(api, key_id=mine, limit=9)) == 1
        assert await value(api, "SELECT count(*) FROM routines.tasks") == 0


def test_two_databases_migrated_at_once_create_the_roles_only_once(cluster: str) -> None:
    """The second session waits for the first one and continues with the role that it created."""
    text = (ROOT / "sql" / "migrations" / "20261129T090000_schema.sql").read_text("utf-8")
    function = re.search(r"CREATE FUNCTION routines.make_role.*?END \$\$;", text, re.DOTALL)
    assert function
    make, blocked = b"SELECT routines.make_role('routines_race')", b"SELECT cardinality(pg_blocking_pids(%s)) > 0"
    with (
        psycopg.connect(cluster, autocommit=True) as one,
        psycopg.connect(cluster, autocommit=True) as two,
        ThreadPoolExecutor(1) as thread,
    ):
        one.execute(b"CREATE DATABASE two")
        with psycopg.connect(with_database(cluster, "two"), autocommit=True) as other:
            for each in (one, other):
                each.execute(b"CREATE SCHEMA routines")
                each.execute(function[0].encode())
            with one.transaction():
                one.execute(make)
                second = thread.submit(other.execute, make)
                wait_until(lambda: two.execute(blocked, [other.info.backend_pid]).fetchone() == (True,))
            second.result(timeout=30)
        one.execute(b"DROP DATABASE two WITH (FORCE)")
        one.execute(b"DROP SCHEMA routines CASCADE")
        one.execute(b"DROP ROLE routines_race")
