"""`routines limits` sets, lists and removes limits."""

import asyncio

import pytest
from click.testing import CliRunner

from routines_cli.main import main
from routines_core.db import Connection
from support.rows import Database, make_task


@pytest.fixture
def run(database: Database, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("DATABASE_URL", database.url)
    return CliRunner()


def routines(runner: CliRunner, *arguments: str) -> tuple[int, str]:
    told = runner.invoke(main, ["limits", *arguments])
    return told.exit_code, told.stdout + told.stderr


async def in_thread(runner: CliRunner, *arguments: str) -> tuple[int, str]:
    return await asyncio.to_thread(routines, runner, *arguments)


async def test_limits_are_set_listed_and_removed(run: CliRunner, connection: Connection) -> None:
    await make_task(connection)
    assert await in_thread(run, "set", "--collection", "my-org", "7") == (0, "")
    assert await in_thread(run, "set", "--collection", "my-org", "--task", "echo", "2") == (0, "")
    assert await in_thread(run) == (0, "my-org\tat most 7\tclaimed 0\nmy-org/echo\tat most 2\tclaimed 0\n")
    assert await in_thread(run, "set", "--collection", "my-org", "none") == (0, "")
    assert await in_thread(run) == (0, "my-org/echo\tat most 2\tclaimed 0\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "--collection", "my-org", "0"), "'0' is not a limit"),
        (("set", "--collection", "my-org", "many"), "'many' is not a limit"),
        (("set", "--collection", "absent", "3"), "There is no collection absent"),
        (("set", "--collection", "absent", "--task", "t", "3"), "There is no task absent/t"),
    ],
)
async def test_an_invalid_limit_or_collection_is_reported_in_one_line(
    run: CliRunner, arguments: tuple[str, ...], said: str
) -> None:
    code, output = await in_thread(run, *arguments)
    assert code == 1
    assert said in output
