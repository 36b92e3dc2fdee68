"""A worker counts its runs, their steps, its leases and the webhooks it delivers."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from routines_core.db import Connection
from routines_engine.metrics import WorkerMetrics
from support.endpoint import Said, serving
from support.outbox import delivering, ended_runs, routine_with_webhook
from support.rows import Database
from support.working import run_of, task_of, until, until_ended, workflow_of, working


def sample(metrics: WorkerMetrics, name: str, **labels: str) -> Any:
    return metrics.registry.get_sample_value(f"routines_worker_{name}", labels)


SAY = ("say", {"activity": "text_echo", "text": "hello"})


async def test_recorded_runs_and_steps_are_counted(connection: Connection, database: Database) -> None:
    good = await task_of(connection, "good", workflow_of(SAY, ("again", SAY[1])))
    bad = await task_of(
        connection, "bad", workflow_of(SAY, ("break", {"activity": "text_echo", "text_path": "no.such"}))
    )
    odd = await task_of(connection, "odd", workflow_of(("what", {"activity": "made_up_by_a_tenant"})))
    retry = {"activity": "http_request", "url": "http://127.0.0.1:9/", "retry": {"max_attempts": 3, "backoff": 0.01}}
    tried = await task_of(connection, "tried", workflow_of(("ask", retry)))
    async with working(database.url, webhook_allow_private=True) as worker:
        for task in (good, good, bad, odd, tried):
            await until_ended(connection, await run_of(connection, task))
        metrics = worker.metrics
        assert sample(metrics, "concurrency") == worker.settings.worker_concurrency
        assert sample(metrics, "since_answer_seconds") < 30
        assert (await metrics.health()).is_good
    assert sample(metrics, "claimed_total") == 5
    assert sample(metrics, "run_duration_seconds_count", status="completed") == 2
    assert sample(metrics, "run_duration_seconds_count", status="failed") == 3
    assert sample(metrics, "steps_total", activity="text_echo", outcome="completed") == 5
    assert sample(metrics, "steps_total", activity="text_echo", outcome="failed") == 1
    assert sample(metrics, "steps_total", activity="unknown", outcome="failed") == 1
    assert sample(metrics, "steps_total", activity="http_request", outcome="failed") == 1
    assert sample(metrics, "steps_total", activity="http_request", outcome="retried") == 2
    assert b"made_up_by_a_tenant" not in await metrics.page()


async def test_capacity_in_use_and_a_run_that_was_taken_away_are_counted(
    connection: Connection, database: Database
) -> None:
    with serving() as endpoint:
        let_go = threading.Event()
        endpoint.answer = lambda _: (let_go.wait(30), Said(200, b"{}"))[1]
        hangs = workflow_of(("ask", {"activity": "http_request", "url": endpoint.url}))
        task = await task_of(connection, "hangs", hangs)
        async with working(database.url, webhook_allow_private=True, worker_concurrency=1, lease_seconds=1.5) as worker:
            run = await run_of(connection, task)
            await until(connection, "SELECT status = 'running' FROM routines.trajectories WHERE id = %s", run)
            metrics = worker.metrics
            await until_true(lambda: sample(metrics, "concurrency_in_use") == 1)
            assert sample(metrics, "since_claim_seconds") < 5  # at full capacity it need not ask for runs
            await until_true(lambda: sample(metrics, "heartbeat_lateness_seconds_count") >= 1)
            assert 0 <= sample(metrics, "since_renewal_seconds") < 30
            await connection.execute(
                """UPDATE routines.trajectories SET status = 'cancelled', fence = fence + 1, ended_at = now(),
                          lease_expires_at = NULL WHERE id = %s""",
                [run],
            )
            await until_true(lambda: sample(metrics, "lost_runs_total", cause="taken") == 1)
            let_go.set()
        assert sample(metrics, "lost_runs_total", cause="lease") == 0


async def until_true(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Return once the condition is true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the state is another task's
            await asyncio.sleep(0.01)


async def test_reaped_runs_are_counted_by_resulting_status(connection: Connection, database: Database) -> None:
    task = await task_of(connection, "good", workflow_of(SAY))
    run, late = await run_of(connection, task), await run_of(connection, task)
    await connection.execute(
        """UPDATE routines.trajectories SET status = 'running', fence = 1, worker = 'lost', started_at = now(),
                  lease_expires_at = now() - interval '1 second',
                  deadline_at = CASE WHEN id = %s THEN now() ELSE now() + interval '1 hour' END""",
        [late],
    )
    async with working(database.url) as worker:
        await until_ended(connection, run)
        await until_ended(connection, late)
        await until_true(lambda: sample(worker.metrics, "reaped_total", status="failed") == 1)
        assert sample(worker.metrics, "reaped_total", status="pending") == 1


async def test_delivery_attempts_are_counted_by_outcome(connection: Connection, database: Database) -> None:
    statuses = iter([200, 500, 410])
    with serving() as endpoint:
        endpoint.answer = lambda _: Said(next(statuses))
        for number in range(3):
            routine = await routine_with_webhook(connection, f"{endpoint.url}/{number}", name=f"r{number}")
            await ended_runs(connection, routine)
        async with delivering(database) as [deliverer]:
            await until(
                connection,
                "SELECT count(*) = 3 FROM routines.webhook_deliveries WHERE jsonb_array_length(attempts) = 1",
            )
            await until_true(lambda: sample(deliverer.metrics, "delivery_duration_seconds_count") == 3)
    outcomes = {
        o: sample(deliverer.metrics, "deliveries_total", outcome=o) for o in ("delivered", "failed", "given_up", "lost")
    }
    assert outcomes == {"delivered": 1, "failed": 1, "given_up": 1, "lost": 0}
