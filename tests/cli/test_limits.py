"""`routines limits` sets, lists and resets limits."""

import asyncio

import pytest
from click.testing import CliRunner

from routines_cli.main import main
from routines_core.db import Connection
from routines_core.limits import LIMITS
from support.rows import Database, make_task, value


@pytest.fixture
def run(database: Database, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("DATABASE_URL", database.url)
    return CliRunner()


def routines(runner: CliRunner, *arguments: str) -> tuple[int, str]:
    told = runner.invoke(main, ["limits", *arguments])
    return told.exit_code, told.stdout + told.stderr


async def in_thread(runner: CliRunner, *arguments: str) -> tuple[int, str]:
    return await asyncio.to_thread(routines, runner, *arguments)


async def test_limits_of_concurrent_runs_are_set_listed_and_removed(run: CliRunner, connection: Connection) -> None:
    await make_task(connection)
    await told(run, "set", "max_concurrent_runs", "7", "--collection", "my-org")
    await told(run, "set", "max_concurrent_runs", "2", "--collection", "my-org", "--task", "echo")
    assert await in_thread(run) == (
        0,
        "my-org\tmax_concurrent_runs\t7 runs\nmy-org/echo\tmax_concurrent_runs\t2 runs\n",
    )
    assert await value(connection, "SELECT max_concurrent_runs FROM routines.collections") == 7
    await told(run, "reset", "max_concurrent_runs", "--collection", "my-org")
    assert await in_thread(run) == (0, "my-org/echo\tmax_concurrent_runs\t2 runs\n")
    await told(run, "reset", "max_concurrent_runs", "--collection", "my-org", "--task", "echo")
    assert await in_thread(run) == (0, "")


async def test_a_collection_has_its_own_value_or_the_default_of_all_or_the_built_in_one(
    run: CliRunner, connection: Connection
) -> None:
    await make_task(connection)
    limit_of = "SELECT routines.limit_of((SELECT id FROM routines.collections), 'run_step_bytes')"
    assert await value(connection, limit_of) == 16 * 2**20
    await told(run, "set-default", "run_step_bytes", "32MiB")
    assert await value(connection, limit_of) == 32 * 2**20
    await told(run, "set", "run_step_bytes", "1000", "--collection", "my-org")
    assert await value(connection, limit_of) == 1000
    assert await in_thread(run) == (
        0,
        "every collection\trun_step_bytes\t33554432 bytes\nmy-org\trun_step_bytes\t1000 bytes\n",
    )
    await told(run, "set", "run_step_bytes", "none", "--collection", "my-org")
    assert await value(connection, limit_of) is None
    await told(run, "reset", "run_step_bytes", "--collection", "my-org")
    assert await value(connection, limit_of) == 32 * 2**20
    await told(run, "reset", "run_step_bytes")
    assert await value(connection, limit_of) == 16 * 2**20


async def test_all_limits_of_a_collection_are_shown_with_their_use(run: CliRunner, connection: Connection) -> None:
    await make_task(connection)
    await told(run, "set", "tasks", "5", "--collection", "my-org")
    code, output = await in_thread(run, "--collection", "my-org")
    assert code == 0
    lines = output.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(LIMITS)
    assert "tasks\t5 tasks (set)\t1 used" in lines
    assert "max_concurrent_runs\tno limit\t0 used" in lines
    assert "run_steps\t1000 steps\teach run" in lines


async def test_each_change_is_logged(run: CliRunner, connection: Connection) -> None:
    await make_task(connection)
    logged = await told(run, "set", "tasks", "5", "--collection", "my-org")
    assert "limit set" in logged
    assert "tasks" in logged
    assert "my-org" in logged
    assert "limit reset" in await told(run, "reset", "tasks", "--collection", "my-org")


async def told(run: CliRunner, *arguments: str) -> str:
    code, output = await in_thread(run, *arguments)
    assert code == 0, output
    return output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "max_concurrent_runs", "0", "--collection", "my-org"), "must be 1 to 2147483647, or none, not 0"),
        (("set", "tasks", "many", "--collection", "my-org"), "'many' is not a value of tasks"),
        (("set", "tasks", "5MiB", "--collection", "my-org"), "'5MiB' is not a value of tasks"),
        (("set", "tasks", str(2**53), "--collection", "my-org"), "must be 0 to 9007199254740991"),
        (("set", "taks", "5", "--collection", "my-org"), "no limit has this name (known: max_concurrent_runs, "),
        (("set", "tasks", "3", "--collection", "absent"), "There is no collection absent"),
        (("set", "max_concurrent_runs", "3", "--collection", "my-org", "--task", "t"), "There is no task my-org/t"),
        (("set", "tasks", "3", "--collection", "my-org", "--task", "echo"), "a task has no such limit of its own"),
        (("set-default", "max_concurrent_runs", "3"), "has no default for all collections"),
        (("reset", "max_concurrent_runs", "--task", "echo"), "--task needs --collection"),
        (("reset", "taks"), "no limit has this name"),
        (("--collection", "absent"), "There is no collection absent"),
    ],
)
async def test_a_mistake_is_reported_in_one_line(
    run: CliRunner, connection: Connection, arguments: tuple[str, ...], said: str
) -> None:
    await make_task(connection)
    code, output = await in_thread(run, *arguments)
    assert code == 1
    assert said in output
    assert len(output.splitlines()) == 1
