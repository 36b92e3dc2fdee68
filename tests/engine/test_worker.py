"""The worker claims, fences, gives back and reaps runs."""

import asyncio
import json
import time
from collections.abc import Generator
from typing import Any

import msgspec
import pytest

from routines_core.db import Connection, connect, open_pool, runs
from routines_core.db.runs import Checkpoint, Claim, StepRecord
from routines_core.errors import InvalidError
from routines_core.settings import Settings
from routines_engine.runs.journal import LARGE_BYTES, Journal
from routines_engine.runs.worker import Worker
from routines_workflow.activity import ACTIVITIES, StepContext, activity
from support.endpoint import Said, serving
from support.rows import KEYRING, Database, make_task, value
from support.stepping import session
from support.working import run_of, task_of, until, until_ended, workflow_of, working

WORKFLOW = """{"init_params": {"text": "hi"}, "steps": ["say"],
               "step_configs": {"say": {"activity": "text_echo", "text_path": "init_params.text"}}}"""
STEP_BEGUN = StepRecord("say", 0, "running", "text_echo", {})
STEP = StepRecord("say", 0, "completed", "text_echo", {}, {"text": "hi"})


ECHO = {"activity": "text_echo", "text": "hi"}
PASS_GATE = {"activity": "pass_gate"}


class Nothing(msgspec.Struct):
    """No parameters."""


@pytest.fixture
def gate() -> Generator[asyncio.Event]:
    """A closed gate: a step `pass_gate` waits until the test opens it."""
    opened = asyncio.Event()

    @activity("Waits for the test.", Nothing)
    async def pass_gate(given: Nothing, _: StepContext) -> Nothing:
        await opened.wait()
        return given

    yield opened
    del ACTIVITIES["pass_gate"]


async def pending_run(connection: Connection, workflow: str = WORKFLOW) -> None:
    task = await make_task(connection, workflow)
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
           SELECT collection_id, id, 1, 'api', '{"text": "hi"}' FROM routines.tasks WHERE id = %s""",
        [task],
    )


async def claim_one(connection: Connection, lease_seconds: float = 60) -> Claim:
    [run] = await runs.claim(connection, capacity=5, worker="w", lease_seconds=lease_seconds, deadline_seconds=600)
    return run


async def expire_lease(connection: Connection) -> None:
    await connection.execute("UPDATE routines.trajectories SET lease_expires_at = now() - interval '1 second'")


async def test_a_pending_run_is_executed_and_its_steps_are_recorded(connection: Connection, database: Database) -> None:
    await pending_run(connection)
    stop = asyncio.Event()
    async with asyncio.timeout(20), open_pool(database.url, "worker", size=2) as pool, asyncio.TaskGroup() as group:
        group.create_task(Worker(Settings(), pool, stop, KEYRING).run())
        while await value(connection, "SELECT ended_at FROM routines.trajectories") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # until the worker is done, within the timeout above
        stop.set()
    assert await value(connection, "SELECT status FROM routines.trajectories") == "completed"
    assert await value(connection, "SELECT outputs FROM routines.steps") == {"text": "hi"}


RETRIED = """{"steps": ["call"], "step_configs": {"call": {"activity": "http_request", "url": "http://127.0.0.1:1/",
               "retry": {"max_attempts": 3, "backoff": 0}}}}"""


async def test_the_worker_records_each_attempt_of_a_step(connection: Connection, database: Database) -> None:
    await pending_run(connection, RETRIED)
    stop, settings = asyncio.Event(), Settings(webhook_allow_private=True)
    async with asyncio.timeout(20), open_pool(database.url, "worker", size=2) as pool, asyncio.TaskGroup() as group:
        group.create_task(Worker(settings, pool, stop, KEYRING).run())
        while await value(connection, "SELECT ended_at FROM routines.trajectories") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # until the worker is done, within the timeout above
        stop.set()
    assert await value(connection, "SELECT status FROM routines.trajectories") == "failed"
    assert await value(connection, "SELECT attempt FROM routines.steps") == 3
    assert await value(connection, "SELECT jsonb_array_length(earlier_errors) FROM routines.steps") == 2
    assert str(await value(connection, "SELECT earlier_errors -> 0 ->> 'error' FROM routines.steps")).startswith(
        "no response"
    )


async def test_a_run_keeps_what_its_failed_tries_were_answered_and_when_each_began(
    connection: Connection, database: Database
) -> None:
    with serving() as endpoint:
        endpoint.answer = lambda _: Said(503, b"try %d" % len(endpoint.asked), {"Retry-After": "1"})
        config = {"activity": "http_request", "url": endpoint.url, "retry": {"max_attempts": 8, "backoff": 0}}
        run = await run_of(connection, await task_of(connection, "calling", workflow_of(("call", config))))
        async with working(database.url, webhook_allow_private=True):
            status, _ = await until_ended(connection, run)
    assert status == "failed"
    bodies = "SELECT jsonb_path_query_array({}, '{}') FROM routines.steps WHERE trajectory_id = %s"
    assert await value(connection, bodies.format("answer", "$.body"), run) == ["try 8"]
    kept = [f"try {number}" for number in range(3, 8)]  # of the newest five before the last
    assert await value(connection, bodies.format("earlier_errors", "$[*].answer.body"), run) == kept
    shown = "SELECT steps -> 'call' FROM routines.trajectory_details WHERE trajectory_id = %s"
    step: Any = await value(connection, shown, run)
    assert (step["tries"], step["answer"]["status"], step["answer"]["headers"]["retry-after"]) == (8, 503, "1")
    cursor = await connection.execute(
        """SELECT event, attempt FROM routines.run_events WHERE trajectory_id = %s AND step = 'call'
           ORDER BY at, rank, position, attempt""",
        [run],
    )
    log = [row for n in range(1, 8) for row in (("step_started", n), ("step_try_failed", n))]
    assert await cursor.fetchall() == [*log, ("step_started", 8), ("step_failed", 8)]


async def test_a_claimed_run_is_not_claimed_again(connection: Connection) -> None:
    await pending_run(connection)
    await claim_one(connection)
    assert await runs.claim(connection, capacity=5, worker="v", lease_seconds=60, deadline_seconds=600) == []


async def test_late_writes_of_a_worker_that_lost_its_run_change_nothing(connection: Connection) -> None:
    await pending_run(connection)
    lost = await claim_one(connection)
    await expire_lease(connection)
    [reaped] = await runs.reap(connection)
    assert (reaped.status, reaped.crashes) == ("pending", 1)
    assert not await runs.checkpoint(connection, lost, STEP, lease_seconds=60)
    assert not await runs.finish(connection, lost, error=None)
    assert await runs.renew(connection, [(lost.id, lost.fence)], lease_seconds=60) == {}
    assert await value(connection, "SELECT count(*) FROM routines.steps") == 0
    assert await value(connection, "SELECT status FROM routines.trajectories") == "pending"


async def test_a_claim_returns_the_finished_steps_of_a_resumed_run(connection: Connection) -> None:
    await pending_run(connection)
    first = await claim_one(connection)
    assert await runs.checkpoint(connection, first, STEP, lease_seconds=60)
    assert await runs.release(connection, [(first.id, first.fence)]) == 1
    second = await claim_one(connection)
    loaded = await runs.load(connection, second)
    assert loaded
    assert json.loads(loaded.finished_steps or "") == {"say": {"inputs": {}, "outputs": {"text": "hi"}}}
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


async def test_a_run_that_was_given_back_fails_at_its_deadline_without_a_worker(connection: Connection) -> None:
    await pending_run(connection)
    run = await claim_one(connection)
    await runs.release(connection, [(run.id, run.fence)])
    await connection.execute("UPDATE routines.trajectories SET deadline_at = now()")
    [reaped] = await runs.reap(connection)
    assert (reaped.status, reaped.crashes) == ("failed", 0)
    assert await value(connection, "SELECT error FROM routines.trajectories") == (
        "deadline exceeded: the run took longer than it may"
    )


async def test_a_locked_run_delays_no_other_run_of_the_worker(
    connection: Connection, database: Database, gate: asyncio.Event
) -> None:
    locked = await run_of(connection, await task_of(connection, "gated", workflow_of(("one", PASS_GATE))))
    free = await task_of(connection, "free", workflow_of(("one", ECHO), ("two", ECHO)))
    async with session(database, "locker") as locker, working(database.url, lease_seconds=3) as worker:
        await until(connection, "SELECT count(*) = 1 FROM routines.steps")
        async with locker.transaction():
            await locker.execute("SELECT FROM routines.trajectories WHERE id = %s FOR UPDATE", [locked])
            gate.set()
            others = [await run_of(connection, free) for _ in range(3)]
            for other in others:
                assert await until_ended(connection, other) == ("completed", None)
            assert locked in worker._claimed
        assert await until_ended(connection, locked) == ("completed", None)
    assert await value(connection, "SELECT max(fence) FROM routines.trajectories") == 1


async def test_outputs_that_cannot_be_stored_fail_only_their_run(connection: Connection, database: Database) -> None:
    """They are written in one batch, which is refused, and then one by one."""
    task = await make_task(connection, WORKFLOW)
    for _ in range(2):
        await run_of(connection, task)
    bad, good = await runs.claim(connection, capacity=5, worker="w", lease_seconds=60, deadline_seconds=600)
    async with open_pool(database.url, "worker", size=1) as pool:
        journal = Journal(pool, 60)
        writer = asyncio.create_task(journal.run())
        torn = StepRecord("say", 0, "completed", "text_echo", {}, {"text": "\0"})
        outcomes = await asyncio.gather(
            journal.write(Checkpoint(bad.id, bad.fence, [torn])),
            journal.write(Checkpoint(good.id, good.fence, [STEP], "completed")),
            return_exceptions=True,
        )
        writer.cancel()
    assert isinstance(outcomes[0], InvalidError)
    assert isinstance(outcomes[1], float)
    assert await value(connection, "SELECT array_agg(status ORDER BY id) FROM routines.trajectories") == [
        "running",
        "completed",
    ]


async def test_many_checkpoints_are_written_in_few_statements(connection: Connection, database: Database) -> None:
    task = await make_task(connection, WORKFLOW)
    for _ in range(30):
        await run_of(connection, task)
    claimed = await runs.claim(connection, capacity=30, worker="w", lease_seconds=60, deadline_seconds=600)
    async with open_pool(database.url, "worker", size=1) as pool:
        journal = Journal(pool, 60)
        writer = asyncio.create_task(journal.run())
        await asyncio.gather(*(journal.write(Checkpoint(run.id, run.fence, [STEP])) for run in claimed))
        writer.cancel()
    transactions = await value(connection, "SELECT count(DISTINCT xmin::text) FROM routines.steps")
    assert await value(connection, "SELECT count(*) FROM routines.steps") == 30
    assert transactions == 1


async def test_only_an_idle_worker_is_notified_of_a_new_run(connection: Connection, database: Database) -> None:
    task = await make_task(connection, WORKFLOW)
    async with connect(database.url, "listener") as listener:
        await listener.execute("LISTEN routines_pending")
        await run_of(connection, task)
        await runs.request_wakeup(connection, worker="w")
        await runs.request_wakeup(connection, worker="w")
        await run_of(connection, task)
        await run_of(connection, task)
        channels = [notify.channel async for notify in listener.notifies(timeout=0.3)]
    assert channels == ["routines_pending"]
    assert await value(connection, "SELECT count(*) FROM routines.wakeups") == 0


async def test_the_lease_is_renewed_while_a_step_blocks_its_thread(connection: Connection, database: Database) -> None:
    @activity("Blocks.", Nothing)
    def block(given: Nothing, _: StepContext) -> Nothing:
        time.sleep(1.6)  # longer than the lease
        return given

    try:
        run = await run_of(connection, await task_of(connection, "t", workflow_of(("block", {"activity": "block"}))))
        async with working(database.url, lease_seconds=1):
            assert await until_ended(connection, run) == ("completed", None)
    finally:
        del ACTIVITIES["block"]
    assert await value(connection, "SELECT fence FROM routines.trajectories") == 1


async def test_a_short_database_outage_costs_a_run_neither_its_worker_nor_a_step(
    connection: Connection, database: Database, gate: asyncio.Event
) -> None:
    """Every connection of the worker is cut while a step is running."""
    steps = workflow_of(("one", PASS_GATE), ("two", ECHO))
    run = await run_of(connection, await task_of(connection, "t", steps))
    async with working(database.url):
        await until(connection, "SELECT count(*) = 1 FROM routines.steps")
        cut = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE application_name = 'routines-worker' AND datname = current_database()"""
        assert await value(connection, cut)
        gate.set()
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, "SELECT fence || ' ' || crashes FROM routines.trajectories") == "1 0"


async def test_a_checkpoint_that_is_sent_twice_counts_an_attempt_once(connection: Connection) -> None:
    """A worker sends it again if it did not hear that it was written."""
    await pending_run(connection)
    run = await claim_one(connection)
    again = StepRecord("say", 0, "running", "text_echo", {}, attempt=2, failed_try="no luck")
    rows = "SELECT jsonb_agg(to_jsonb(steps) - 'created_at') FROM routines.steps"
    await runs.checkpoint(connection, run, STEP_BEGUN, lease_seconds=60)
    for record in (again, STEP):
        assert await runs.checkpoint(connection, run, record, lease_seconds=60)
        before = await value(connection, rows)
        assert await runs.checkpoint(connection, run, record, lease_seconds=60)
        assert await value(connection, rows) == before
    assert await value(connection, "SELECT jsonb_array_length(earlier_errors) FROM routines.steps") == 1


async def test_small_checkpoints_are_written_beside_large_ones_and_each_run_keeps_its_order(database: Database) -> None:
    large = LARGE_BYTES + 1
    async with open_pool(database.url, "worker", size=1) as pool:
        journal = Journal(pool, 60)
        waiting = [(1, large), (2, 0), (3, large), (1, 0), (2, 0), (4, 0)]
        for run, size in waiting:
            journal.write(Checkpoint(run, 1), size=size)
        first = journal._next_batch()
        journal._being_written |= {entry.checkpoint.id for entry in first}
        journal._is_writing_large = True
        second = journal._next_batch()
        journal._being_written |= {entry.checkpoint.id for entry in second}
        assert [entry.checkpoint.id for entry in first] == [1, 3]
        assert [entry.checkpoint.id for entry in second] == [2, 4]
        assert journal._next_batch() == []
        journal._being_written.clear()
        assert [entry.checkpoint.id for entry in journal._next_batch()] == [1, 2]
