"""The worker: claims, fences, gives back and reaps."""

import asyncio

from routines_core.db import Connection, open_pool, runs
from routines_core.db.runs import Claim, StepRecord
from routines_core.settings import Settings
from routines_engine.worker import Worker
from support import Database, make_task, value

WORKFLOW = """{"init_params": {"text": "hi"}, "steps": ["say"],
               "step_configs": {"say": {"activity": "text_echo", "text_path": "init_params.text"}}}"""
STEP = StepRecord("say", 0, "completed", "text_echo", {}, {"text": "hi"})


async def pending_run(connection: Connection, workflow: str = WORKFLOW) -> None:
    task = await make_task(connection, workflow)
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
           SELECT collection_id, id, 1, 'api', '{"text": "hi"}' FROM routines.tasks WHERE id = %s""",
        [task],
    )


async def claim_one(connection: Connection, lease_seconds: float = 60) -> Claim:
    [run] = await runs.claim(connection, slots=5, worker="w", lease_seconds=lease_seconds, deadline_seconds=600)
    return run


async def expire_lease(connection: Connection) -> None:
    await connection.execute("UPDATE routines.trajectories SET lease_expires_at = now() - interval '1 second'")


async def test_a_pending_run_is_run_and_its_steps_are_recorded(connection: Connection, database: Database) -> None:
    await pending_run(connection)
    stop = asyncio.Event()
    async with asyncio.timeout(20), open_pool(database.url, "worker", size=2) as pool, asyncio.TaskGroup() as group:
        group.create_task(Worker(Settings(), pool, stop).run())
        while await value(connection, "SELECT ended_at FROM routines.trajectories") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # until the worker, under the timeout above, is done
        stop.set()
    assert await value(connection, "SELECT status FROM routines.trajectories") == "completed"
    assert await value(connection, "SELECT outputs FROM routines.steps") == {"text": "hi"}


RETRIED = """{"steps": ["call"], "step_configs": {"call": {"activity": "http_request", "url": "http://127.0.0.1:1/",
               "retry": {"max_attempts": 3, "backoff": 0}}}}"""


async def test_the_worker_keeps_each_try_of_a_step(connection: Connection, database: Database) -> None:
    await pending_run(connection, RETRIED)
    stop, settings = asyncio.Event(), Settings(webhook_allow_private=True)
    async with asyncio.timeout(20), open_pool(database.url, "worker", size=2) as pool, asyncio.TaskGroup() as group:
        group.create_task(Worker(settings, pool, stop).run())
        while await value(connection, "SELECT ended_at FROM routines.trajectories") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # until the worker, under the timeout above, is done
        stop.set()
    assert await value(connection, "SELECT status FROM routines.trajectories") == "failed"
    assert await value(connection, "SELECT try_number FROM routines.steps") == 3
    assert await value(connection, "SELECT jsonb_array_length(earlier_errors) FROM routines.steps") == 2
    assert str(await value(connection, "SELECT earlier_errors -> 0 ->> 'error' FROM routines.steps")).startswith(
        "no answer"
    )


async def test_a_claimed_run_is_not_claimed_again(connection: Connection) -> None:
    await pending_run(connection)
    await claim_one(connection)
    assert await runs.claim(connection, slots=5, worker="v", lease_seconds=60, deadline_seconds=600) == []


async def test_late_writes_of_a_worker_that_lost_its_run_change_nothing(connection: Connection) -> None:
    await pending_run(connection)
    lost = await claim_one(connection)
    await expire_lease(connection)
    [reaped] = await runs.reap(connection)
    assert (reaped.status, reaped.crashes) == ("pending", 1)
    assert not await runs.checkpoint(connection, lost, STEP, lease_seconds=60)
    assert not await runs.finish(connection, lost, error=None)
    assert await runs.renew(connection, [(lost.id, lost.attempt)], lease_seconds=60) == set()
    assert await value(connection, "SELECT count(*) FROM routines.steps") == 0
    assert await value(connection, "SELECT status FROM routines.trajectories") == "pending"


async def test_a_run_that_is_taken_up_again_brings_its_finished_steps(connection: Connection) -> None:
    await pending_run(connection)
    first = await claim_one(connection)
    assert await runs.checkpoint(connection, first, STEP, lease_seconds=60)
    assert await runs.release(connection, [(first.id, first.attempt)]) == 1
    second = await claim_one(connection)
    assert second.finished_steps == {"say": {"inputs": {}, "outputs": {"text": "hi"}}}
    assert await value(connection, "SELECT crashes FROM routines.trajectories") == 0


async def test_after_three_lost_workers_a_run_fails(connection: Connection) -> None:
    await pending_run(connection)
    for _ in range(3):
        await claim_one(connection)
        await expire_lease(connection)
        [reaped] = await runs.reap(connection)
    assert reaped.status == "failed"
    assert await value(connection, "SELECT error FROM routines.trajectories") == (
        "worker lost: 3 workers were lost while they ran it"
    )


async def test_a_run_past_its_deadline_fails_wherever_it_is(connection: Connection) -> None:
    await pending_run(connection)
    await claim_one(connection)
    await connection.execute("UPDATE routines.trajectories SET deadline_at = now()")
    [reaped] = await runs.reap(connection)
    assert reaped.status == "failed"


async def test_a_final_status_is_final(connection: Connection) -> None:
    await pending_run(connection)
    run = await claim_one(connection)
    assert await runs.finish(connection, run, error=None)
    assert not await runs.finish(connection, run, error="late")
    assert await runs.reap(connection) == []
    assert await value(connection, "SELECT status FROM routines.trajectories") == "completed"
