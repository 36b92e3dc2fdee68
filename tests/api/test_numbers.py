"""Numbers in what clients send come back as they were sent, and what was read may be sent back."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from support.numbers import NUMBERS
from support.rows import Database, value
from support.sampling import sample
from support.working import run_of, task_of, until_ended, workflow_of, working

Client = AsyncTestClient[Any]
ROUTINE = "/api/v1/routines/my-org/echo"
DAILY = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}
ZEROS = "0" * 19
"""No number is written with so many."""


@pytest.mark.parametrize("number", sample(NUMBERS, 16), ids=repr)
async def test_a_routine_returns_a_number_as_it_was_sent_and_takes_it_back(client: Client, number: float) -> None:
    sent = {"a": number, "list": [number, {"deep": number}]}
    created = await client.post(ROUTINE, json={**DAILY, "init_params_overrides": sent})
    assert (created.status_code, created.json()["init_params_overrides"]) == (201, sent)
    read = await client.get(f"{ROUTINE}/r")
    assert read.json()["init_params_overrides"] == sent
    assert ZEROS not in read.text
    given = read.json()
    del given["warnings"]
    patched = await client.patch(f"{ROUTINE}/r", json=given)
    assert (patched.status_code, patched.json()["init_params_overrides"]) == (200, sent), patched.text
    assert (await client.get(f"{ROUTINE}/r")).text == read.text


@pytest.mark.parametrize("number", sample(NUMBERS, 16), ids=repr)
async def test_a_task_returns_a_number_as_it_was_sent_and_takes_it_back(client: Client, number: float) -> None:
    workflow = {"init_params": {"x": number}, "steps": ["s"], "step_configs": {
        "s": {"activity": "conditional_branch", "value": [number]}}}  # fmt: skip
    created = await client.post("/api/v1/tasks/my-org/", json={"name": "numbers", "workflow": workflow})
    assert created.status_code == 201, created.text
    read = await client.get("/api/v1/tasks/my-org/numbers")
    assert read.json()["workflow"] == workflow
    assert ZEROS not in read.text
    replaced = await client.put("/api/v1/tasks/my-org/numbers", json={"workflow": read.json()["workflow"]})
    assert (replaced.status_code, replaced.json()["workflow"]) == (200, workflow), replaced.text
    keys = (await client.get("/api/v1/tasks/my-org/numbers/init-params-schema")).json()["keys"]
    assert keys[0]["default"] == number


@pytest.mark.parametrize("number", sample(NUMBERS, 16), ids=repr)
async def test_a_run_and_its_webhook_show_a_number_as_it_was_sent(
    client: Client, connection: Connection, number: float
) -> None:
    started = await client.post("/api/v1/run/my-org/echo", json={"init_params": {"a": number}})
    assert started.json()["trajectory"]["init_params"]["a"] == number, started.text
    run = started.json()["trajectory_id"]
    labelled = await client.post(
        f"/api/v1/trajectory/my-org/echo/{run}/labels", json={"key": "k", "value": number, "author": "a"}
    )
    assert labelled.json()["labels"][0]["value"] == number
    body = await value(connection, "SELECT routines.webhook_body(%s, 'completed', 10000, 10000)", run)
    for text in ((await client.get(f"/api/v1/db/trajectory/my-org/echo/{run}")).text, str(body)):
        assert ZEROS not in text


async def test_large_steps_show_floats_in_all_digits(client: Client, connection: Connection) -> None:
    run = (await client.post("/api/v1/run/my-org/echo", json={})).json()["trajectory_id"]
    await connection.execute(
        """INSERT INTO routines.steps
               (trajectory_id, name, position, fence, status, activity, inputs, outputs, ended_at)
           SELECT %s, 'large', 0, 1, 'completed', 'text_echo', '{}',
                  jsonb_build_object('text', repeat('x', 900000), 'numbers', '[1e22, 1e300, 1e-300]'::jsonb), now()""",
        [run],
    )
    read = await client.get(f"/api/v1/db/trajectory/my-org/echo/{run}")
    numbers = read.json()["steps"]["large"]["outputs"]["numbers"]
    assert [float(number) for number in numbers] == [1e22, 1e300, 1e-300]
    assert ZEROS in read.text


async def test_a_step_gets_floats_as_floats(connection: Connection, database: Database) -> None:
    say = {"activity": "text_echo", "text": "{{ init_params.x }} {{ init_params.y }}"}
    again = {"activity": "text_echo", "text": "again {{ branch.outputs.value }}"}
    branch = {"activity": "conditional_branch", "value": 1, "if_true_path": "init_params.x"}
    workflow = workflow_of(("say", say), ("branch", branch), ("again", again), x=None, y=None)
    run = await run_of(connection, await task_of(connection, "t", workflow), x=1e300, y=1e-300)
    async with working(database.url):
        assert await until_ended(connection, run) == ("completed", None)
    said = "SELECT array_agg(outputs ->> 'text' ORDER BY position) FROM routines.steps WHERE activity = 'text_echo'"
    short = await value(connection, said)
    assert isinstance(short, list)
    assert [float(each) for each in f"{short[0]} {short[1]}".replace("again", "").split()] == [1e300, 1e-300, 1e300]
    assert ZEROS not in "".join(short)
