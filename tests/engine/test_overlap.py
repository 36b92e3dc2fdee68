"""A worker stops a run for the run of a later slot, and lets runs that wait for a place begin."""

import threading
from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any

import pytest

from routines_core.db import Connection
from routines_core.db.tick import tick
from routines_engine.runs import base
from support.endpoint import Said, serving
from support.rows import CATCHUP, Database, make_routine, value
from support.working import contained, task_of, until, workflow_of, working

STATUSES = "SELECT array_agg(status ORDER BY id) FROM routines.trajectories"
FAST = {"activity": "text_echo", "text": "done"}


@pytest.fixture
def slow() -> Generator[dict[str, Any]]:
    """A step that takes as long as the test."""
    over = threading.Event()

    def answer(_: object) -> Said:
        over.wait(60)
        return Said()

    with serving() as opened:
        opened.answer = answer
        yield {"activity": "http_request", "url": opened.url}
        over.set()


async def routine_of(connection: Connection, policy: str, step: dict[str, Any]) -> datetime:
    """Create an hourly routine with this policy, whose task has this step. Returns its next slot, which is due."""
    task = await task_of(connection, "work", workflow_of(("work", step)))
    now = await value(connection, "SELECT date_trunc('hour', now())")
    assert isinstance(now, datetime)
    await make_routine(connection, task, now, hourly=True)
    await connection.execute("UPDATE routines.routines SET overlap_policy = %s", [policy])
    return now


async def fire(connection: Connection, slot: datetime) -> None:
    """Run a tick at this slot; the waiting run seems to wait since now."""
    await tick(connection, batch_size=10, now=slot, **CATCHUP)
    await connection.execute("UPDATE routines.trajectories SET created_at = now() WHERE place = 0")


async def until_at_work(connection: Connection, run: int = 1) -> None:
    await until(
        connection, "SELECT count(*) = 1 FROM routines.steps WHERE trajectory_id = %s AND status = 'running'", run
    )


@pytest.mark.parametrize("program", [working, contained])
async def test_a_worker_stops_the_run_of_the_earlier_slot_before_that_of_the_later_begins(
    database: Database, connection: Connection, slow: dict[str, Any], program: Any
) -> None:
    slot = await routine_of(connection, "cancel_other", slow)
    await fire(connection, slot)
    async with program(database.url, webhook_allow_private=True):
        await until_at_work(connection)
        await fire(connection, slot + timedelta(hours=1))
        await until_at_work(connection, 2)
        assert await value(connection, STATUSES) == ["cancelled", "running"]
    error = "SELECT error FROM routines.trajectories WHERE id = 1"
    assert await value(connection, error) == "cancelled: by its overlap policy, for the run of a later slot"
    assert await value(connection, "SELECT status FROM routines.steps WHERE trajectory_id = 1") == "cancelled"
    assert await value(connection, "SELECT max(crashes) FROM routines.trajectories") == 0
    order = "SELECT max(ended_at) <= max(started_at) FILTER (WHERE id = 2) FROM routines.trajectories"
    assert await value(connection, order) is True


async def test_a_run_that_waits_in_line_begins_when_the_run_before_it_has_ended(
    database: Database, connection: Connection
) -> None:
    slot = await routine_of(connection, "queue_one", FAST)
    await fire(connection, slot)
    await fire(connection, slot + timedelta(hours=1))
    async with working(database.url):
        await until(connection, "SELECT count(*) = 2 FROM routines.trajectories WHERE status = 'completed'")
    order = (
        "SELECT max(ended_at) FILTER (WHERE id = 1) <= max(started_at) FILTER (WHERE id = 2) FROM routines.trajectories"
    )
    assert await value(connection, order) is True


async def test_a_worker_lets_a_run_begin_whose_admission_was_missed(database: Database, connection: Connection) -> None:
    slot = await routine_of(connection, "queue_one", FAST)
    await fire(connection, slot)
    await fire(connection, slot + timedelta(hours=1))
    # As if the routine had been locked when the first run ended.
    await connection.execute("ALTER TABLE routines.trajectories DISABLE TRIGGER follow_end")
    await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE id = 1")
    await connection.execute("ALTER TABLE routines.trajectories ENABLE TRIGGER follow_end")
    async with working(database.url):
        await until(connection, "SELECT count(*) = 2 FROM routines.trajectories WHERE status = 'completed'")


async def test_a_run_whose_worker_does_not_stop_it_is_fenced_off(
    database: Database, connection: Connection, slow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = await routine_of(connection, "cancel_other", slow)
    await fire(connection, slot)
    async with working(database.url, lease_seconds=60, webhook_allow_private=True):
        await until_at_work(connection)
        monkeypatch.setattr(base.WorkerBase, "_stop", lambda *_: None)  # a worker that hangs
        await fire(connection, slot + timedelta(hours=1))
        await connection.execute(
            "UPDATE routines.trajectories SET created_at = now() - routines.cancel_grace() WHERE place = 0"
        )
        await until_at_work(connection, 2)
        assert await value(connection, STATUSES) == ["cancelled", "running"]
