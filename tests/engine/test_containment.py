"""One tenant's runs in a worker do not keep another's from running."""

import asyncio
from typing import Any

from routines_core.db import Connection, runs
from routines_core.db.runs import StepRecord
from support.rows import Database, value
from support.working import contained, run_of, task_of, until, until_ended, workflow_of

MIB = 1024 * 1024
CLAIM = {"worker": "lost", "lease_seconds": 60.0, "deadline_seconds": 600.0}


async def task_in(connection: Connection, collection: str, name: str, *steps: tuple[str, dict[str, Any]]) -> int:
    """Create a task in a collection of its own."""
    task = await task_of(connection, name, workflow_of(*steps))
    await connection.execute("INSERT INTO routines.collections (name) VALUES (%s) ON CONFLICT DO NOTHING", [collection])
    for table, key in (("tasks", "id"), ("task_versions", "task_id")):
        if table == "task_versions":
            await connection.execute("ALTER TABLE routines.task_versions DISABLE TRIGGER USER")
        await connection.execute(
            f"UPDATE routines.{table} SET collection_id = (SELECT id FROM routines.collections WHERE name = %s) "
            f"WHERE {key} = %s".encode(),
            [collection, task],
        )
        if table == "task_versions":
            await connection.execute("ALTER TABLE routines.task_versions ENABLE TRIGGER USER")
    return task


async def test_a_step_that_exhausts_its_process_fails_with_the_reason_and_others_complete(
    connection: Connection, database: Database
) -> None:
    bad = await run_of(connection, await task_in(connection, "alpha", "hoard", ("it", {"activity": "hoard"})))
    good = await run_of(
        connection, await task_in(connection, "beta", "echo", ("it", {"activity": "text_echo", "text": "x"}))
    )
    async with contained(database.url):
        assert await until_ended(connection, good) == ("completed", None)
        assert await until_ended(connection, bad) == (
            "failed",
            "step 'it' failed: it used more than 128 MiB of memory",
        )
    step = "SELECT status || ': ' || error FROM routines.steps WHERE trajectory_id = %s"
    assert await value(connection, step, bad) == "failed: it used more than 128 MiB of memory"


async def test_runs_that_wait_for_a_retry_hold_no_capacity(connection: Connection, database: Database) -> None:
    config = {"activity": "http_request", "url": "http://127.0.0.1:1/", "retry": {"max_attempts": 2, "backoff": 3600}}
    failing = await task_in(connection, "alpha", "failing", ("it", config))
    waiting = [await run_of(connection, failing) for _ in range(3)]
    good = await task_in(connection, "alpha", "echo", ("it", {"activity": "text_echo", "text": "x"}))
    async with contained(database.url, worker_concurrency=1, webhook_allow_private=True):
        for run in waiting:
            waits = "SELECT started_at IS NOT NULL AND worker IS NULL FROM routines.trajectories WHERE id = %s"
            await until(connection, waits, run)
        assert await until_ended(connection, await run_of(connection, good)) == ("completed", None)


async def test_a_waiting_run_returns_to_the_queue_when_its_wait_is_over(
    connection: Connection, database: Database
) -> None:
    config = {"activity": "vanish", "fail_at": 1, "retry": {"max_attempts": 2, "backoff": 1.5}}
    run = await run_of(connection, await task_in(connection, "alpha", "again", ("it", config)))
    async with contained(database.url):
        await until(
            connection, "SELECT worker IS NULL AND started_at IS NOT NULL FROM routines.trajectories WHERE id = %s", run
        )
        assert await value(connection, "SELECT status FROM routines.trajectories WHERE id = %s", run) == "running"
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, "SELECT crashes FROM routines.trajectories WHERE id = %s", run) == 0


async def test_a_full_worker_still_claims_the_first_run_of_another_collection(
    connection: Connection, database: Database
) -> None:
    slow = await task_in(connection, "alpha", "slow", ("it", {"activity": "linger", "seconds": 30}))
    for _ in range(4):
        await run_of(connection, slow)
    quick = await task_in(connection, "beta", "quick", ("it", {"activity": "text_echo", "text": "x"}))
    async with contained(database.url, worker_concurrency=2) as worker:
        await until(connection, "SELECT count(*) = 2 FROM routines.trajectories WHERE status = 'running'")
        assert await until_ended(connection, await run_of(connection, quick)) == ("completed", None)
        assert await value(connection, "SELECT count(*) FROM routines.trajectories WHERE status = 'running'") == 2
        assert worker.settings.worker_concurrency == 2


async def test_the_first_runs_of_another_collection_are_a_tenth_of_the_capacity(
    connection: Connection, database: Database
) -> None:
    running = """SELECT count(*) FROM routines.trajectories JOIN routines.collections ON collections.id = collection_id
                 WHERE status = 'running' AND collections.name = %s"""
    linger = ("it", {"activity": "linger", "seconds": 30})
    slow, other = [await task_in(connection, name, "slow", linger) for name in ("alpha", "beta")]
    for _ in range(31):
        await run_of(connection, slow)
    async with contained(database.url, worker_concurrency=30):
        await until(connection, f"SELECT ({running}) = 30", "alpha")
        await run_of(connection, other)
        await until(connection, f"SELECT ({running}) = 1", "beta")
        for _ in range(4):
            await run_of(connection, other)
        await until(connection, f"SELECT ({running}) = 3", "beta")
        await asyncio.sleep(0.3)
        assert await value(connection, running, "beta") == 3
        assert await value(connection, running, "alpha") == 30


async def test_a_run_with_ninety_megabytes_of_steps_delays_no_claim(connection: Connection, database: Database) -> None:
    """The run dates from before there was a budget, and its worker was lost."""
    steps = {f"s{number}": {"activity": "text_echo", "text": "x"} for number in range(91)}
    large = await run_of(connection, await task_in(connection, "alpha", "large", *steps.items()))
    [claim] = await runs.claim(connection, capacity=1, **CLAIM)
    for number in range(90):
        step = StepRecord(f"s{number}", number, "completed", "text_echo", {"text": "x"}, {"text": "y" * MIB})
        assert await runs.checkpoint(connection, claim, step, lease_seconds=60)
    await runs.release(connection, [(claim.id, claim.fence)])
    quick = await task_in(connection, "beta", "quick", ("it", {"activity": "text_echo", "text": "x"}))
    async with contained(database.url):
        for _ in range(3):
            async with asyncio.timeout(5):
                assert await until_ended(connection, await run_of(connection, quick)) == ("completed", None)
        status, error = await until_ended(connection, large)
    assert status == "failed"
    assert error is not None
    assert "bytes" in error


async def test_a_run_whose_steps_hold_too_much_fails_and_names_the_limit(
    connection: Connection, database: Database
) -> None:
    steps = [(f"s{number}", {"activity": "text_echo", "text": "y" * 1000}) for number in range(5)]
    run = await run_of(connection, await task_in(connection, "alpha", "large", *steps))
    async with contained(database.url, max_run_bytes=4096):
        status, error = await until_ended(connection, run)
    assert status == "failed"
    assert error is not None
    assert "more than its limit ROUTINES_MAX_RUN_BYTES of 4096: keep large outputs in files" in error
    stored = await value(connection, "SELECT step_bytes FROM routines.trajectories WHERE id = %s", run)
    assert 2000 < stored <= 4096
