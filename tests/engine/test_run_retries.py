"""A scheduled run that failed is run again, by the worker, and knows which failures may go away by themselves."""

from collections.abc import Generator
from datetime import datetime
from typing import Any

import httpx
import pytest
from psycopg.types.json import Jsonb

from routines_core.db import Connection
from routines_core.db.runs import StepRecord
from routines_core.db.tick import tick
from routines_core.errors import InvalidError, StorageError
from routines_engine.steps.flow import StepFailedError
from routines_workflow.activity import AnsweredError
from routines_workflow.transient import is_transient
from support.endpoint import Endpoint, Said, serving
from support.flows import Journal, flow_of
from support.rows import CATCHUP, Database, make_routine, value
from support.working import task_of, until, until_ended, workflow_of, working

ATTEMPTS = "SELECT array_agg(status ORDER BY id) FROM routines.trajectories"


@pytest.fixture
def endpoint() -> Generator[Endpoint]:
    """An HTTP server that answers as the test says."""
    with serving() as opened:
        yield opened


async def fire(connection: Connection, url: str, retry: dict[str, Any]) -> int:
    """Fire a routine that asks this URL. Returns the run."""
    ask = {"activity": "http_request", "url": url}
    day = {"activity": "text_echo", "text_path": "slot.scheduled_for"}
    task = await task_of(connection, "ask", workflow_of(("day", day), ("ask", ask)))
    now = await value(connection, "SELECT date_trunc('minute', now())")
    assert isinstance(now, datetime)
    routine = await make_routine(connection, task, now, hourly=True)
    await connection.execute("UPDATE routines.routines SET retry = %s", [Jsonb(retry)])
    assert (await tick(connection, batch_size=10, now=now, **CATCHUP)).fired == 1
    await connection.execute(
        "UPDATE routines.routines SET next_run_at = now() + interval '1 day' WHERE id = %s", [routine]
    )
    run = await value(connection, "SELECT id FROM routines.trajectories")
    assert isinstance(run, int)
    return run


async def test_a_worker_runs_a_failed_run_again_at_its_time(
    database: Database, connection: Connection, endpoint: Endpoint
) -> None:
    endpoint.answer = lambda _: Said(503 if len(endpoint.asked) == 1 else 200)
    run = await fire(connection, endpoint.url, {"max_attempts": 3, "backoff": [1], "on": "transient"})
    async with working(database.url, webhook_allow_private=True):
        assert (await until_ended(connection, run))[0] == "failed"
        await until(connection, "SELECT count(*) = 2 AND bool_and(ended_at IS NOT NULL) FROM routines.trajectories")
    assert await value(connection, ATTEMPTS) == ["failed", "completed"]
    waited = "SELECT started_at - created_at >= interval '1 s' FROM routines.trajectories WHERE trigger = 'retry'"
    assert await value(connection, waited) is True
    slots = "SELECT count(DISTINCT outputs -> 'text') FROM routines.steps WHERE name = 'day'"
    assert await value(connection, slots) == 1


async def test_a_request_that_is_wrong_is_not_retried_where_only_transient_failures_are(
    database: Database, connection: Connection, endpoint: Endpoint
) -> None:
    endpoint.answer = lambda _: Said(404)
    run = await fire(connection, endpoint.url, {"max_attempts": 3, "backoff": [0], "on": "transient"})
    async with working(database.url, webhook_allow_private=True):
        assert (await until_ended(connection, run))[0] == "failed"
    assert await value(connection, ATTEMPTS) == ["failed"]


async def test_a_retry_waits_as_long_as_the_provider_asks(
    database: Database, connection: Connection, endpoint: Endpoint
) -> None:
    endpoint.answer = lambda _: Said(429, b"", {"Retry-After": "600"})
    run = await fire(connection, endpoint.url, {"max_attempts": 3, "backoff": [0]})
    async with working(database.url, webhook_allow_private=True):
        assert (await until_ended(connection, run))[0] == "failed"
    waits = """SELECT extract(epoch FROM lease_expires_at - created_at)::integer FROM routines.trajectories
               WHERE trigger = 'retry'"""
    assert await value(connection, waits) == 600


def answered(status: int) -> AnsweredError:
    return AnsweredError("no", {"status": status})


@pytest.mark.parametrize(
    "error",
    [
        *map(answered, (408, 425, 429, 500, 503)),
        TimeoutError(),
        ConnectionResetError(),
        StorageError("full"),
        httpx.ReadError(""),
    ],
    ids=repr,
)
def test_errors_that_may_go_away(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error", [*map(answered, (302, 400, 401, 404, 409, 422)), InvalidError("no"), ValueError("no")], ids=repr
)
def test_errors_that_stay(error: Exception) -> None:
    assert not is_transient(error)


async def failed(**config: Any) -> StepRecord:
    """Let a step that sends a request fail. Returns its record."""
    journal = Journal()
    step = {"activity": "http_request", **config}
    with pytest.raises(StepFailedError):
        await flow_of({"steps": ["a"], "step_configs": {"a": step}}, journal, allow_private=True).run()
    return journal.records[-1]


async def test_a_step_records_whether_its_failure_may_go_away(endpoint: Endpoint) -> None:
    assert (await failed(url="http://127.0.0.1:1/")).is_transient is True
    assert (await failed(url="nowhere")).is_transient is False
    endpoint.answer = lambda asked: Said(int(asked.path[1:]))
    assert (await failed(url=f"{endpoint.url}/502")).is_transient is True
    assert (await failed(url=f"{endpoint.url}/410")).is_transient is False


async def test_a_step_that_takes_too_long_may_succeed_another_time(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: Said(200)
    record = await failed(url=endpoint.url, timeout_seconds=0.000001)
    assert (record.status, record.is_transient) == ("failed", True)
