"""Show that no log holds a value: neither ours, nor those of libraries, nor Postgres's own, nor uncaught errors."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import yaml

from routines_core.db.statements import sql_dir
from routines_core.embedded import EmbeddedServer
from routines_core.embedded.server import DEFAULT_SETTINGS
from routines_core.logging import describe
from support.command import routines
from support.rows import Database

CANARY = "canary-4711"
RAISES = f"""
import asyncio, sys, threading, psycopg
from routines_core.logging import configure_logging, reduce_tracebacks
configure_logging("json")
reduce_tracebacks()

def fail():
    with psycopg.connect(sys.argv[1]) as connection:
        connection.execute("CREATE TEMP TABLE t (x text CONSTRAINT t_x_is_short CHECK (length(x) < 3))")
        connection.execute("INSERT INTO t VALUES (%s)", ["{CANARY}"])

async def fail_in_a_task():
    async def task():
        fail()
    forgotten = asyncio.create_task(task())
    await asyncio.wait({{forgotten}})
    del forgotten
    import gc; gc.collect()

async def fail_in_a_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(fail))
"""


def stderr_of(code: str, url: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", RAISES + code, url], capture_output=True, text=True, check=False
    ).stderr


@pytest.mark.parametrize(
    "code",
    [
        "fail()",
        "asyncio.run(fail_in_a_task())",
        "asyncio.run(fail_in_a_group())",
        "thread = threading.Thread(target=fail); thread.start(); thread.join()",
        f"int('{CANARY}')",
        f"raise ExceptionGroup('{CANARY}', [ValueError('{CANARY}')])",
    ],
)
def test_an_uncaught_error_is_reported_without_its_text(server_url: str, code: str) -> None:
    said = stderr_of(code, server_url)
    assert "CheckViolation" in said or "ValueError" in said
    assert CANARY not in said
    if "fail" in code:
        assert "t_x_is_short" in said
        assert "23514" in said


def test_a_library_logs_its_message_without_the_values_and_without_placeholders(server_url: str) -> None:
    code = f"""
import logging
logging.getLogger("psycopg.pool").warning("error connecting in %r: %s", "{CANARY}", ValueError("{CANARY}"))
logging.getLogger("asyncio").error("Task exception was never retrieved\\nfuture: {CANARY}")
logging.getLogger("x").error({{"a": "{CANARY}"}})
"""
    lines = [json.loads(line) for line in stderr_of(code, server_url).splitlines()]
    assert [line["event"] for line in lines] == [
        "error connecting in …: …",
        "Task exception was never retrieved",
        "dict",
    ]
    assert lines[0]["error"] == "ValueError"
    assert CANARY not in str(lines)


def test_an_error_is_described_by_its_type_location_code_and_constraint(server_url: str) -> None:
    with psycopg.connect(server_url) as connection:
        connection.execute("CREATE TEMP TABLE t (x text CONSTRAINT t_x_is_short CHECK (length(x) < 3))")
        with pytest.raises(psycopg.errors.CheckViolation) as caught:
            connection.execute("INSERT INTO t VALUES (%s)", [CANARY])
    assert CANARY in str(caught.value)
    said = describe(ExceptionGroup("", [ExceptionGroup("", [caught.value])]))
    assert said.pop("at").partition(":")[2].isdigit()
    assert said == {"error": "CheckViolation", "sqlstate": "23514", "constraint": "t_x_is_short"}


FAILING = [
    f"INSERT INTO t VALUES ('{CANARY}')",
    f"SELECT '{CANARY}' FROM no_such_table",
    f"SELECT '{CANARY}'::text, 1/0",
    f"DO $$ BEGIN INSERT INTO t VALUES ('{CANARY}'); END $$",
    f"SET statement_timeout = 1; SELECT pg_sleep(1), '{CANARY}'",
    f"SELECT '{CANARY}' FROM",
    f"PREPARE p AS SELECT $1::text, 1/$2; EXECUTE p('{CANARY}', 0)",
]


def test_the_embedded_servers_log_holds_no_value_of_a_failed_statement(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, settings={"fsync": "off"})
    server.start()
    try:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE t (x text UNIQUE CHECK (length(x) < 3))")
            for statement in FAILING:
                with pytest.raises(psycopg.Error):
                    connection.execute(statement.encode())
                connection.execute("RESET statement_timeout")
            for parameters in ([CANARY], [CANARY * 1000]):
                with pytest.raises(psycopg.Error):
                    connection.execute("INSERT INTO t VALUES (%s)", parameters)
                with pytest.raises(psycopg.Error):
                    connection.execute("SELECT %s::text, 1/0", parameters)
            kill_a_backend_in_the_middle(server.url())
    finally:
        server.stop()
    log = (tmp_path / "postgres.log").read_text()
    assert log.count("ERROR:") >= len(FAILING) + 4
    assert CANARY not in log


def kill_a_backend_in_the_middle(url: str) -> None:
    """Terminate a backend in the middle of a statement: the server then logs what the process was running."""

    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as victim:
            asleep = asyncio.create_task(victim.execute(f"SELECT pg_sleep(60), '{CANARY}'".encode()))
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as other:
                running = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
                async with asyncio.timeout(20):
                    while not await (await other.execute(running)).fetchone():  # noqa: ASYNC110 - the server has no event to wait for
                        await asyncio.sleep(0.01)
                await other.execute("SELECT pg_terminate_backend(%s)", [victim.info.backend_pid])
            with pytest.raises(psycopg.OperationalError):
                await asleep

    asyncio.run(run())


def test_the_compose_server_logs_as_little_as_the_embedded_one() -> None:
    compose = yaml.safe_load((sql_dir().parent / "compose.yaml").read_text("utf-8"))
    given = {setting for setting in compose["services"]["postgres"]["command"] if "=" in setting}
    assert given == {f"{name}={text}" for name, text in DEFAULT_SETTINGS.items() if name.startswith("log_")}


def test_a_malformed_database_url_is_not_repeated() -> None:
    for url in (f"postgres//routines:{CANARY}@host", f"postgresql://routines:{CANARY}%zz@host/x"):
        done = routines(Database(url), "doctor")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "DATABASE_URL is not a connection string" in done.stderr
        assert CANARY not in done.stderr + done.stdout
