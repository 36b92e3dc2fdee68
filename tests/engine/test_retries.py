"""Retries, timeouts and blocking steps."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from routines_core.db import Connection, runs
from routines_core.db.runs import StepRecord
from routines_core.errors import InvalidError
from routines_engine.steps.flow import StepFailedError
from routines_workflow.activity import ACTIVITIES, StepContext, activity
from routines_workflow.blocking import DaemonThreads
from routines_workflow.step_limits import Backoff, Retry
from support.flows import Journal, flow_of
from support.rows import make_task, value


class Nothing(msgspec.Struct):
    pass


class Attempted(msgspec.Struct):
    attempts: list[int]


@pytest.fixture
def does() -> Any:
    """Register an activity `attempt` that behaves as scripted on each attempt, and return the attempts made."""
    before = dict(ACTIVITIES)

    def make(*acts: Callable[[], Any]) -> list[int]:
        attempts: list[int] = []

        @activity("Does what the test wants.", Nothing)
        async def attempt(_: Nothing, context: StepContext) -> Attempted:
            attempts.append(context.attempt)
            done = acts[len(attempts) - 1]()
            if asyncio.iscoroutine(done):
                await done
            return Attempted(attempts)

        return attempts

    yield make
    ACTIVITIES.clear()
    ACTIVITIES.update(before)


def fails(error: Exception | None = None) -> Callable[[], Any]:
    def act() -> None:
        raise error or ValueError("not yet")

    return act


def works() -> None:
    """No parameters."""


async def attempted(journal: Journal, config: dict[str, Any], **options: Any) -> None:
    await flow_of({"steps": ["a"], "step_configs": {"a": {"activity": "attempt", **config}}}, journal, **options).run()


async def test_a_failed_step_is_retried_and_each_attempt_recorded(does: Any) -> None:
    attempts, journal = does(fails(), fails(ValueError("nor now")), works), Journal()
    await attempted(journal, {"retry": {"max_attempts": 3, "backoff": 0}})
    assert attempts == [1, 2, 3]
    assert [(each.status, each.attempt, each.failed_try) for each in journal.records] == [
        ("running", 1, None), ("running", 2, "not yet"), ("running", 3, "nor now"), ("completed", 3, None),
    ]  # fmt: skip


async def test_after_its_last_attempt_a_step_fails_with_the_last_error(does: Any) -> None:
    attempts, journal = does(fails(), fails(ValueError("nor now"))), Journal()
    with pytest.raises(StepFailedError, match="nor now"):
        await attempted(journal, {"retry": {"max_attempts": 2, "backoff": 0}})
    assert attempts == [1, 2]
    assert (journal.records[-1].status, journal.records[-1].attempt) == ("failed", 2)


async def test_without_retry_a_step_is_attempted_once(does: Any) -> None:
    attempts = does(fails())
    with pytest.raises(StepFailedError):
        await attempted(Journal(), {})
    assert attempts == [1]


@pytest.mark.parametrize("error", [InvalidError("bad input"), msgspec.ValidationError("bad input")])
async def test_errors_that_would_recur_are_not_retried(does: Any, error: Exception) -> None:
    attempts = does(fails(error))
    with pytest.raises(StepFailedError, match="bad input"):
        await attempted(Journal(), {"retry": {"max_attempts": 5, "backoff": 0}})
    assert attempts == [1]


async def test_a_resumed_run_continues_counting_attempts(does: Any) -> None:
    attempts = does(fails(), fails())
    with pytest.raises(StepFailedError):
        await attempted(Journal(), {"retry": {"max_attempts": 4, "backoff": 0}}, attempts={"a": 3})
    assert attempts == [3, 4]


async def test_an_attempt_that_takes_too_long_is_cancelled_and_retried(does: Any) -> None:
    attempts, journal = does(lambda: asyncio.sleep(60), works), Journal()
    await attempted(journal, {"timeout_seconds": 0.02, "retry": {"max_attempts": 2, "backoff": 0}})
    assert attempts == [1, 2]
    assert journal.records[1].failed_try == "it took longer than its timeout of 0.02 s"


async def test_an_activitys_own_timeout_keeps_its_message(does: Any) -> None:
    does(fails(TimeoutError("the printer did not answer")))
    with pytest.raises(StepFailedError, match="the printer did not answer"):
        await attempted(Journal(), {"timeout_seconds": 60})


@pytest.mark.parametrize(("act", "records"), [(lambda: asyncio.sleep(60), 1), (fails(), 2)])
async def test_a_run_cancelled_in_a_step_or_between_attempts_writes_nothing_more(
    does: Any, act: Any, records: int
) -> None:
    does(act)
    journal = Journal()
    run = asyncio.create_task(attempted(journal, {"retry": {"max_attempts": 2, "backoff": 60}}))
    async with asyncio.timeout(10):
        while len(journal.records) < records:  # noqa: ASYNC110 - until it has come so far
            await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (len(journal.records), journal.ends()) == (records, [])


@pytest.mark.parametrize(
    ("retry", "waits"),
    [
        (Retry(9, 5.0), [5, 5, 5]),
        (Retry(9, Backoff(1, 3, 5)), [1, 3, 5]),
        (Retry(9), [1, 2, 4]),
        (Retry(9, Backoff(0, 2, 9)), [0, 0, 0]),
    ],
)
def test_backoff_grows_up_to_its_maximum(retry: Retry, waits: list[float]) -> None:
    assert [retry.wait_seconds(failed) for failed in (1, 2, 3)] == waits
    assert retry.wait_seconds(10**6) <= 60


async def test_a_plain_function_runs_in_a_thread_and_does_not_block_the_loop() -> None:
    entered, release = threading.Event(), threading.Event()

    @activity("Blocks until it is released.", Nothing)
    def block(_: Nothing, __: StepContext) -> Attempted:
        entered.set()
        assert release.wait(30)
        return Attempted([threading.get_ident()])

    journal = Journal()
    run = asyncio.create_task(flow_of({"steps": ["a"], "step_configs": {"a": {"activity": "block"}}}, journal).run())
    async with asyncio.timeout(20):
        while not entered.is_set():  # noqa: ASYNC110 - the loop turns while the activity blocks
            await asyncio.sleep(0.001)
        release.set()
        await run
    del ACTIVITIES["block"]
    assert journal.records[-1].outputs["attempts"] != [threading.get_ident()]


async def test_blocking_calls_share_a_bounded_number_of_threads() -> None:
    threads = DaemonThreads(size=2)
    found = await asyncio.gather(*(threads.run(threading.get_ident) for _ in range(50)))
    assert 1 <= len(set(found)) <= 2
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    with pytest.raises(RuntimeError):
        await threads.run(lambda: next(iter(())))


async def test_a_blocking_call_that_was_cancelled_in_the_queue_is_not_begun() -> None:
    threads, release, begun = DaemonThreads(size=1), threading.Event(), []
    first = asyncio.create_task(threads.run(lambda: release.wait(30)))
    second = asyncio.create_task(threads.run(lambda: begun.append(2)))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    release.set()
    await first
    await threads.run(works)  # the thread is past the second call
    assert begun == []


async def test_attempts_and_their_errors_survive_the_worker(connection: Connection) -> None:
    task = await make_task(connection, '{"steps": ["a"], "step_configs": {"a": {"activity": "text_echo"}}}')
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
           SELECT collection_id, id, 1, 'api', '{}' FROM routines.tasks WHERE id = %s""",
        [task],
    )
    claim = {"capacity": 1, "worker": "w", "lease_seconds": 60, "deadline_seconds": 600}
    [first] = await runs.claim(connection, **claim)
    assert await loaded(connection, first) == ({}, [])
    await runs.checkpoint(connection, first, StepRecord("a", 0, "running", "text_echo", {}), lease_seconds=60)
    second_try = StepRecord("a", 0, "running", "text_echo", {}, attempt=2, failed_try="not yet")
    await runs.checkpoint(connection, first, second_try, lease_seconds=60)
    await runs.release(connection, [(first.id, first.fence)])
    [again] = await runs.claim(connection, **claim)
    assert await loaded(connection, again) == ({"a": 2}, [])
    done = StepRecord("a", 0, "completed", "text_echo", {}, {"text": "x"}, attempt=2)
    await runs.checkpoint(connection, again, done, lease_seconds=60)
    errors = await value(connection, "SELECT earlier_errors FROM routines.steps")
    assert isinstance(errors, list)
    [error] = errors
    assert error["error"] == "not yet"
    assert error["at"] <= str(await value(connection, "SELECT to_jsonb(now())"))
    assert await value(connection, "SELECT attempt FROM routines.steps") == 2
    await runs.release(connection, [(again.id, again.fence)])
    [last] = await runs.claim(connection, **claim)
    assert await loaded(connection, last) == ({}, ["a"])


async def loaded(connection: Connection, run: runs.Claim) -> tuple[dict[str, int], list[str]]:
    """Return the attempts that unfinished steps have reached, and the names of the finished ones."""
    found = await runs.load(connection, run)
    assert found
    return found.attempts, list(json.loads(found.finished_steps or ""))
