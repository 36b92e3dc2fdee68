"""A retried step starts new children for those that did not complete, and finds the others again."""

from collections.abc import Generator
from typing import Any

import msgspec
import pytest

from routines_core.db import Connection, children, runs
from routines_core.db.runs import Claim
from routines_workflow.activity import ACTIVITIES, StepContext, activity
from support.rows import Database, value
from support.working import run_of, task_of, until_ended, workflow_of, working

CLAIM = {"worker": "w", "lease_seconds": 60.0, "deadline_seconds": 600.0}
CHILDREN = """SELECT jsonb_agg(jsonb_build_array(init_params ->> 'item', status, child_index, parent_attempt)
              ORDER BY id)
              FROM routines.trajectories WHERE parent_id IS NOT NULL"""
RETRY = {"max_attempts": 3, "backoff": 0.05}


class Item(msgspec.Struct):
    """The child's input."""

    item: str


@pytest.fixture(autouse=True)
def seen() -> Generator[list[str]]:
    """The inputs of the children, in order; `flaky` fails the first time, `bad` always."""
    known, asked = set(ACTIVITIES), list[str]()

    @activity("Fails for some items.", Item)
    async def moody(given: Item, _: StepContext) -> Item:
        asked.append(given.item)
        if given.item == "bad" or (given.item == "flaky" and asked.count("flaky") == 1):
            raise RuntimeError("not today")
        return given

    yield asked
    for name in set(ACTIVITIES) - known:
        del ACTIVITIES[name]


async def parent_of(connection: Connection, items: list[str], **config: Any) -> int:
    """Create a run that starts a `moody` child for each of these items, one after the other."""
    child = workflow_of(("ask", {"activity": "moody", "item_path": "init_params.item"}), item="")
    await task_of(connection, "child", child)
    emit = {"activity": "list_emit_await", "task": "child", "items": items, "max_concurrency": 1, "retry": RETRY}
    return await run_of(connection, await task_of(connection, "parent", workflow_of(("emit", {**emit, **config}))))


async def test_a_retry_restarts_the_failed_child_and_finds_the_completed_one(
    connection: Connection, database: Database, seen: list[str]
) -> None:
    parent = await parent_of(connection, ["fine", "flaky", "last"])
    async with working(database.url):
        assert await until_ended(connection, parent) == ("completed", None)
    assert seen == ["fine", "flaky", "flaky", "last"]
    assert await value(connection, CHILDREN) == [
        ["fine", "completed", 0, 1],
        ["flaky", "failed", None, 1],
        ["flaky", "completed", 1, 2],
        ["last", "completed", 2, 2],
    ]
    outputs = "SELECT outputs -> 'trajectory_ids' FROM routines.steps WHERE name = 'emit'"
    current = """SELECT jsonb_agg(id ORDER BY child_index) FROM routines.trajectories WHERE child_index IS NOT NULL"""
    assert await value(connection, outputs) == await value(connection, current)


async def test_a_child_that_fails_in_every_attempt_is_started_once_in_each(
    connection: Connection, database: Database, seen: list[str]
) -> None:
    parent = await parent_of(connection, ["bad"])
    async with working(database.url):
        status, error = await until_ended(connection, parent)
    assert (status, seen) == ("failed", ["bad"] * 3)
    assert "not today" in str(error)


async def test_without_a_retry_nothing_is_started_twice(
    connection: Connection, database: Database, seen: list[str]
) -> None:
    parent = await parent_of(connection, ["bad", "fine"], continue_on_error=True)
    async with working(database.url):
        assert await until_ended(connection, parent) == ("completed", None)
    assert seen == ["bad", "fine"]


async def start(connection: Connection, parent: Claim, attempt: int) -> int | None:
    started = await children.start_child(
        connection, parent, step="s", task="child", init_params="{}", index=0, attempt=attempt
    )
    return started.id


async def test_a_worker_that_resumes_an_attempt_finds_its_child_however_it_ended(connection: Connection) -> None:
    await task_of(connection, "child", workflow_of())
    await run_of(connection, await task_of(connection, "parent", workflow_of()))
    [parent] = await runs.claim(connection, capacity=1, **CLAIM)
    first = await start(connection, parent, 1)
    assert await start(connection, parent, 2) == first  # still running
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'failed', ended_at = now() WHERE id = %s", [first]
    )
    assert await start(connection, parent, 1) == first
    second = await start(connection, parent, 2)
    assert second not in {None, first}
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'cancelled', ended_at = now() WHERE id = %s", [second]
    )
    assert await start(connection, parent, 2) == second
    third = await start(connection, parent, 3)
    assert third not in {None, first, second}
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE id = %s", [third]
    )
    assert await start(connection, parent, 9) == third
    await runs.finish(connection, parent, error=None)
    assert await start(connection, parent, 9) == third  # the parent has ended, and the caller is told so
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 4


async def test_a_retry_for_a_deleted_task_keeps_the_earlier_child(connection: Connection) -> None:
    task = await task_of(connection, "child", workflow_of())
    await run_of(connection, await task_of(connection, "parent", workflow_of()))
    [parent] = await runs.claim(connection, capacity=1, **CLAIM)
    first = await start(connection, parent, 1)
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'failed', ended_at = now() WHERE id = %s", [first]
    )
    await connection.execute("DELETE FROM routines.tasks WHERE id = %s", [task])
    assert await start(connection, parent, 2) == first


async def test_claims_after_the_first_are_events_of_the_run(connection: Connection) -> None:
    run = await run_of(connection, await task_of(connection, "t", workflow_of()))
    for crash in (False, True, False):
        [claimed] = await runs.claim(connection, capacity=1, **CLAIM)
        if crash:
            await connection.execute("UPDATE routines.trajectories SET lease_expires_at = now()")
            await runs.reap(connection)
        else:
            await runs.release(connection, [(claimed.id, claimed.fence)])
    [claimed] = await runs.claim(connection, capacity=1, **CLAIM)
    await runs.finish(connection, claimed, error=None)
    events = """SELECT jsonb_agg(jsonb_build_array(event, fence, detail) ORDER BY at, rank, position, attempt)
                FROM routines.run_events WHERE trajectory_id = %s"""
    assert await value(connection, events, run) == [
        ["run_created", None, "api"],
        ["run_started", None, None],
        ["run_resumed", 3, "workers lost so far: 0"],
        ["run_resumed", 5, "workers lost so far: 1"],
        ["run_resumed", 7, "workers lost so far: 1"],
        ["run_completed", 7, None],
    ]


async def test_only_the_newest_fifty_claims_of_a_run_are_kept(
    connection: Connection,
) -> None:
    await run_of(connection, await task_of(connection, "t", workflow_of()))
    for _ in range(55):
        [claimed] = await runs.claim(connection, capacity=1, **CLAIM)
        await runs.release(connection, [(claimed.id, claimed.fence)])
    assert await value(connection, "SELECT jsonb_array_length(later_claims) FROM routines.trajectories") == 50
    assert await value(connection, "SELECT later_claims -> -1 ->> 'fence' FROM routines.trajectories") == str(
        claimed.fence
    )
