"""The services for steps: secrets are decrypted and masked, child runs started and awaited, files saved."""

import asyncio
import base64
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from routines_core.db import Connection
from routines_workflow.activity import ACTIVITIES, Child, StepContext, activity
from support.rows import Database, value
from support.run_secrets import give, store
from support.working import run_id_of, run_of, task_of, until, until_ended, workflow_of, working

SECRET = 's3cr3t/väl"ue+'
STEPS = "SELECT jsonb_agg(jsonb_build_array(inputs, outputs, error) ORDER BY position)::text FROM routines.steps"


class Named(msgspec.Struct):
    """A name."""

    name: str = ""
    times: int = 1


class Value(msgspec.Struct):
    """Any value."""

    value: Any


@pytest.fixture(autouse=True)
def activities() -> Generator[None]:
    """Activities that use the engine's services."""
    known = set(ACTIVITIES)

    @activity("Looks up a secret and returns it.", Named)
    async def blab(given: Named, context: StepContext) -> Value:
        secret = await context.services.secret(given.name)
        if secret is None:
            return Value(None)
        encoded = base64.b64encode(f"user:{secret}".encode()).decode()
        return Value({"plain": f"the key is {secret}.", "basic": encoded, "hex": secret.encode().hex(), secret: 1})

    @activity("Fails with a secret in its error.", Named)
    async def blurt(given: Named, context: StepContext) -> Value:
        raise ValueError(f"refused: {await context.services.secret(given.name)}")

    @activity("Starts children and waits for all of them.", Named)
    async def beget(given: Named, context: StepContext) -> Value:
        children = (Child(given.name, {"text": f"child {index}"}, index) for index in range(given.times))
        results = await asyncio.gather(*(context.services.run_child(child) for child in children))
        return Value([msgspec.to_builtins(result) for result in results])

    @activity("Waits until it is cancelled.", Named)
    async def linger(_: Named, __: StepContext) -> Value:
        await asyncio.sleep(3600)
        return Value(None)

    @activity("Returns its idempotency key.", Named)
    async def keyed(_: Named, context: StepContext) -> Value:
        return Value(context.idempotency_key)

    @activity("Saves a file and reads it again.", Named)
    async def keep(given: Named, context: StepContext) -> Value:
        path = await context.services.save_file(given.name, b"content")
        return Value((await context.services.read_file(path)).decode())

    @activity("Reads earlier runs.", Named)
    async def recall(given: Named, context: StepContext) -> Value:
        found = await context.services.find_trajectories(task=given.name, status=None, limit=given.times)
        return Value([msgspec.to_builtins(run) for run in found])

    yield
    for name in set(ACTIVITIES) - known:
        del ACTIVITIES[name]


async def test_a_secret_that_a_step_returns_is_masked_in_everything_stored(
    connection: Connection, database: Database
) -> None:
    steps = [
        ("blab", {"activity": "blab", "name": "TOKEN"}),
        ("echo", {"activity": "text_echo", "text_path": "blab.outputs.value.plain"}),
        ("blurt", {"activity": "blurt", "name": "TOKEN"}),
    ]
    run = await run_of(connection, await task_of(connection, "t", workflow_of(*steps)))
    await give(connection, run, "TOKEN", SECRET)
    async with working(database.url):
        status, error = await until_ended(connection, run)
    assert (status, error) == ("failed", "step 'blurt' failed: refused: ********")
    stored = str(await value(connection, STEPS))
    assert "the key is ********." in stored
    raw = SECRET.encode()
    spellings = [
        SECRET,
        msgspec.json.encode(SECRET).decode()[1:-1],
        raw.hex(),
        base64.b64encode(b"user:" + raw).decode(),
    ]
    assert [spelling for spelling in spellings if spelling in stored] == []


async def test_a_secret_param_precedes_the_environment_and_a_missing_secret_is_none(
    connection: Connection, database: Database
) -> None:
    steps = [(name, {"activity": "blab", "name": name}) for name in ("OWN", "SHARED", "ABSENT")]
    run = await run_of(connection, await task_of(connection, "t", workflow_of(*steps)))
    await give(connection, run, "OWN", "own-value")
    environment = [
        await store(connection, secret, name, None)
        for name, secret in (("OWN", "not-this"), ("SHARED", "shared-value"))
    ]
    await connection.execute(
        "UPDATE routines.collections SET environment_refs = jsonb_build_object('OWN', %s::text, 'SHARED', %s::text)",
        environment,
    )
    async with working(database.url):
        assert await until_ended(connection, run) == ("completed", None)
    absent = "SELECT outputs ->> 'value' IS NULL FROM routines.steps WHERE name = %s"
    assert [await value(connection, absent, name) for name in ("OWN", "SHARED", "ABSENT")] == [False, False, True]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            "ciphertext = set_byte(ciphertext, 30, get_byte(ciphertext, 30) # 1)",
            "is damaged or belongs to something else",
        ),
        ("ciphertext = set_byte(ciphertext, 3, 57)", "needs encryption key 'k9'"),
        (
            "ciphertext = (SELECT ciphertext FROM routines.secrets AS other WHERE other.id <> secrets.id)",
            "is damaged or belongs to something else",
        ),
        ("id = gen_random_uuid()", "The secret 'TOKEN' was deleted"),
    ],
)
async def test_a_secret_that_cannot_be_decrypted_fails_only_its_run(
    connection: Connection, database: Database, damage: str, reason: str
) -> None:
    task = await task_of(connection, "t", workflow_of(("blab", {"activity": "blab", "name": "TOKEN"})))
    broken, sound = await run_of(connection, task), await run_of(connection, task)
    secret_id = await give(connection, broken, "TOKEN", SECRET)
    await give(connection, sound, "TOKEN", SECRET)
    await connection.execute(f"UPDATE routines.secrets SET {damage} WHERE id = %s".encode(), [secret_id])
    async with working(database.url):
        status, error = await until_ended(connection, broken)
        assert await until_ended(connection, sound) == ("completed", None)
    assert status == "failed"
    assert error
    assert reason in error
    assert SECRET not in error


ECHO = workflow_of(("say", {"activity": "text_echo", "text_path": "init_params.text"}), text="x")


async def test_a_run_waits_for_its_children_with_capacity_for_one_run_and_a_limit_of_one(
    connection: Connection, database: Database
) -> None:
    await task_of(connection, "echo", ECHO)
    parent_task = await task_of(
        connection, "p", workflow_of(("beget", {"activity": "beget", "name": "echo", "times": 3}))
    )
    await connection.execute("UPDATE routines.collections SET max_concurrent_runs = 1")
    parent = await run_of(connection, parent_task)
    async with working(database.url, worker_concurrency=1):
        assert await until_ended(connection, parent) == ("completed", None)
    outputs = await value(connection, "SELECT outputs -> 'value' FROM routines.steps WHERE name = 'beget'")
    assert isinstance(outputs, list)
    assert [(child["status"], child["outputs"]["say"]["text"]) for child in outputs] == [
        ("completed", f"child {index}") for index in range(3)
    ]
    children = "SELECT array_agg(child_index ORDER BY child_index) FROM routines.trajectories WHERE parent_id = %s"
    assert await value(connection, children, parent) == [0, 1, 2]
    assert await value(connection, "SELECT count(*) FROM routines.limited_runs") == 0


async def test_a_repeated_step_finds_the_children_it_started_before(connection: Connection, database: Database) -> None:
    await task_of(connection, "slow", workflow_of(("wait", {"activity": "linger"}), text="x"))
    parent = await run_of(
        connection,
        await task_of(connection, "p", workflow_of(("beget", {"activity": "beget", "name": "slow", "times": 2}))),
    )
    started = "SELECT count(*) = 2 FROM routines.trajectories WHERE parent_id IS NOT NULL AND status = 'running'"
    async with working(database.url):
        await until(connection, started)
    async with working(database.url):
        await until(connection, started)
        await connection.execute(
            "UPDATE routines.trajectories SET status = 'cancelled', ended_at = now() WHERE parent_id IS NOT NULL"
        )
        assert (await until_ended(connection, parent))[0] == "completed"
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 3


async def test_runs_that_cannot_wait_here_wait_without_a_worker_and_find_their_children_again(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routines_engine.runs.worker.MOST_WAITING", 1)
    monkeypatch.setattr("routines_engine.runs.services.SHORT_WAIT_SECONDS", 0.1)
    await task_of(connection, "slow", workflow_of(("wait", {"activity": "linger"}), text="x"))
    task = await task_of(connection, "p", workflow_of(("beget", {"activity": "beget", "name": "slow", "times": 2})))
    parents = [await run_of(connection, task) for _ in range(3)]
    waiting = "SELECT count(*) = 2 FROM routines.trajectories WHERE worker IS NULL AND lease_expires_at = 'infinity'"
    started = "SELECT count(*) = 6 FROM routines.trajectories WHERE parent_id IS NOT NULL AND status = 'running'"
    async with working(database.url):
        await until(connection, waiting)
        await until(connection, started)
        assert await value(connection, "SELECT count(*) FROM routines.limited_runs") == 0
        await asyncio.sleep(1.2)  # a look for waits that are over
        assert await value(connection, waiting)
        await connection.execute(
            "UPDATE routines.trajectories SET status = 'cancelled', ended_at = now() WHERE parent_id IS NOT NULL"
        )
        for parent in parents:
            assert await until_ended(connection, parent) == ("completed", None)
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 9
    assert await value(connection, "SELECT max(crashes) FROM routines.trajectories") == 0


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        ("absent", "the collection has no task 'absent'"),
        ("other", "the task 'other' does not declare text"),
        ("p", "runs cannot start runs more than 10 levels deep"),
    ],
)
async def test_a_child_that_cannot_be_started_fails_the_step_with_the_reason(
    connection: Connection, database: Database, child: str, reason: str
) -> None:
    await task_of(connection, "other", workflow_of())
    workflow = workflow_of(("beget", {"activity": "beget", "name": child}), text="x")
    parent = await run_of(connection, await task_of(connection, "p", workflow))
    async with working(database.url):
        await until(connection, "SELECT bool_and(ended_at IS NOT NULL) FROM routines.trajectories")
    errors = "SELECT string_agg(error, ' ') FROM routines.steps"
    assert reason in str(await value(connection, errors)), await until_ended(connection, parent)


async def test_a_step_reads_only_as_many_bytes_of_earlier_runs_as_it_may(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await task_of(connection, "done", workflow_of(("say", {"activity": "text_echo", "text": "x" * 1000})))
    earlier = [await run_of(connection, done) for _ in range(3)]
    read = workflow_of(("read", {"activity": "extract_from_trajectories", "task": "done", "path": "outputs.say.text"}))
    reader = await task_of(connection, "reader", read)
    async with working(database.url):
        for run in earlier:
            await until_ended(connection, run)
        assert await until_ended(connection, await run_of(connection, reader)) == ("completed", None)
        monkeypatch.setattr("routines_engine.runs.services.FOUND_BYTES", 5000)
        status, error = await until_ended(connection, await run_of(connection, reader))
    assert status == "failed"
    assert error
    assert "the steps of these 3 runs hold more than 5000 bytes; those of the newest 2 do not" in error


@pytest.mark.parametrize("status", ["cancelled", "failed"])
async def test_taking_a_run_away_ends_its_children_and_theirs_and_leaves_no_step_running(
    connection: Connection, database: Database, status: str
) -> None:
    await task_of(connection, "leaf", workflow_of(("wait", {"activity": "linger"}), text="x"))
    await task_of(
        connection, "mid", workflow_of(("beget", {"activity": "beget", "name": "leaf", "times": 2}), text="x")
    )
    top = await run_of(
        connection,
        await task_of(connection, "top", workflow_of(("beget", {"activity": "beget", "name": "mid", "times": 2}))),
    )
    async with working(database.url) as worker:
        await until(connection, "SELECT count(*) = 7 FROM routines.steps WHERE status = 'running'")
        await connection.execute(
            """UPDATE routines.trajectories SET status = %s, fence = fence + 1, ended_at = now(), error = 'why'
               WHERE id = %s""",
            [status, top],
        )
        ended = """SELECT count(*) FROM routines.trajectories
                   WHERE status = 'cancelled' AND fence = 2 AND parent_id IS NOT NULL"""
        assert await value(connection, ended) == 6
        left = (
            "SELECT jsonb_object_agg(status, n) FROM (SELECT status, count(*) AS n FROM routines.steps GROUP BY 1) AS s"
        )
        expected = {"cancelled": 7} if status == "cancelled" else {"failed": 1, "cancelled": 6}
        assert await value(connection, left) == expected
        async with asyncio.timeout(10):
            while worker._claimed:  # noqa: ASYNC110 - the state is the worker's own
                await asyncio.sleep(0.01)


async def test_a_child_uses_its_parents_secrets_which_are_kept_while_the_parent_runs(
    connection: Connection, database: Database
) -> None:
    await task_of(connection, "c", workflow_of(("blab", {"activity": "blab", "name": "TOKEN"}), text="x"))
    steps = [("beget", {"activity": "beget", "name": "c"}), ("after", {"activity": "blab", "name": "TOKEN"})]
    parent = await run_of(connection, await task_of(connection, "p", workflow_of(*steps)))
    await give(connection, parent, "TOKEN", SECRET)
    async with working(database.url):
        assert await until_ended(connection, parent) == ("completed", None)
    plain = "SELECT array_agg(outputs #>> '{value,plain}') FROM routines.steps WHERE name IN ('blab', 'after')"
    assert await value(connection, plain) == ["the key is ********."] * 2
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 0


async def test_the_idempotency_key_of_a_step_survives_renaming_or_deleting_its_task(
    connection: Connection, database: Database
) -> None:
    run = await run_of(connection, await task_of(connection, "old", workflow_of(("key", {"activity": "keyed"}))))
    run_id = await run_id_of(connection, run)
    await connection.execute("DELETE FROM routines.tasks")
    async with working(database.url):
        assert await until_ended(connection, run) == ("completed", None)
    key = "SELECT outputs ->> 'value' FROM routines.steps WHERE trajectory_id = %s"
    assert await value(connection, key, run) == f"{run_id}/key"


async def test_a_step_saves_files_and_reads_earlier_runs_of_its_collection(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    echo = await task_of(connection, "echo", ECHO)
    earlier = await run_of(connection, echo, text="then")
    steps = [("keep", {"activity": "keep", "name": "a.txt"}), ("recall", {"activity": "recall", "name": "echo"})]
    async with working(database.url, data_dir=tmp_path):
        await until_ended(connection, earlier)
        run = await run_of(connection, await task_of(connection, "t", workflow_of(*steps)))
        assert await until_ended(connection, run) == ("completed", None)
    output = "SELECT outputs -> 'value' FROM routines.steps WHERE trajectory_id = %s AND name = %s"
    assert await value(connection, output, run, "keep") == "content"
    found = {
        "trajectory_id": earlier,
        "status": "completed",
        "init_params": {"text": "then"},
        "outputs": {"say": {"text": "then"}},
    }
    assert await value(connection, output, run, "recall") == [found]
