"""Nothing that a step reads or writes enters Temporal's history or files, nor the name of a step."""

import asyncio
from collections.abc import Generator
from typing import Any

import msgspec
import pytest
from temporalio.client import Client

from routines_core.db import Connection
from routines_workflow.activity import ACTIVITIES, StepContext, activity
from support.rows import Database, value
from support.run_secrets import give
from support.temporal_server import TemporalServer
from support.temporal_working import temporal_id_of, temporal_working
from support.working import run_of, task_of, until_ended, workflow_of

SECRET = "canary-of-the-secret"
PARAM = "canary-of-the-init-param"
STATIC = "canary-of-the-static-value"
STEP = "a-step"
TASK = "a-task-that-is-seen"


class Anything(msgspec.Struct):
    """Any value."""

    value: Any = None


@pytest.fixture(autouse=True)
def activities() -> Generator[None]:
    @activity("Fails with its inputs in the error.", Anything)
    async def blurt(given: Anything, context: StepContext) -> Anything:
        raise ValueError(f"refused: {given.value}, {await context.services.secret('TOKEN')}")

    @activity("Breaks in a way that does not fail its step.", Anything)
    async def break_off(given: Anything, context: StepContext) -> Anything:
        raise SystemExit(f"{given.value}")

    yield
    del ACTIVITIES["blurt"], ACTIVITIES["break_off"]


async def test_no_value_of_a_run_enters_temporals_history_or_files(
    connection: Connection, database: Database, temporal: Client, temporal_server: TemporalServer
) -> None:
    retried = {"retry": {"max_attempts": 2, "backoff": 0}}
    steps = {
        STEP: {"activity": "text_echo", "text": f"{STATIC} {{{{ init_params.p }}}} {{{{ secret_params.TOKEN }}}}"},
        "exit": {"activity": "break_off", "value_path": "secret_params.TOKEN", **retried},
        "blurt": {"activity": "blurt", "value_path": f"{STEP}.outputs.text", **retried},
    }
    made: dict[str, int] = {}
    for last in ("exit", "blurt"):
        task = await task_of(
            connection, f"{TASK}-{last}", workflow_of((STEP, steps[STEP]), (last, steps[last]), p=PARAM)
        )
        made[last] = await run_of(connection, task, p=PARAM)
        await give(connection, made[last], "TOKEN", SECRET)
    dumps: list[bytes] = []
    async with temporal_working(database.url, temporal):
        for last, run in made.items():
            status, error = await until_ended(connection, run)
            assert status == "failed"
            assert error
            assert SECRET not in error
            handle = temporal.get_workflow_handle(await temporal_id_of(connection, run, f"{TASK}-{last}"))
            async with asyncio.timeout(20):
                await asyncio.gather(handle.result(), return_exceptions=True)
            history = await handle.fetch_history()
            dumps.append(b"".join(event.SerializeToString() for event in history.events))
    errors = "SELECT array_agg(error ORDER BY trajectory_id) FROM routines.steps WHERE error IS NOT NULL"
    assert await value(connection, errors) == [
        "it exited with code ********",
        f"refused: {STATIC} {PARAM} ********, ********",
    ]
    dumps.append(temporal_server.stored())
    for dump in dumps:
        assert TASK.encode() in dump  # the dump does show what Temporal stores
        assert [canary for canary in (SECRET, PARAM, STATIC, STEP, "********") if canary.encode() in dump] == []
