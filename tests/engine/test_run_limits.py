"""The limits of a run: what would exceed one fails its step, which names the limit and the use."""

import asyncio
import importlib
import re
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from routines_core.db import Connection, children, limits, runs
from routines_core.db.limits import RunLimits
from routines_core.db.runs import Claim, StepRecord
from routines_core.errors import SilenceError
from routines_engine.runs.run_limits import BUILT_IN, FRESH_SECONDS, MOST_COLLECTIONS, RunLimitsCache
from routines_engine.runs.worker import Worker
from routines_workflow.activity import ACTIVITIES
from support.rows import Database, value
from support.run_secrets import give
from support.stepping import session, until_blocked
from support.working import contained, run_of, task_of, until, until_ended, workflow_of, working

CLAIM = {"worker": "lost", "lease_seconds": 60.0, "deadline_seconds": 600.0}
EVENTS = "SELECT count(*) FROM routines.run_events WHERE trajectory_id = %s"
ECHO = {"activity": "text_echo", "text": "x"}
ECHO_SECRET = {"activity": "text_echo", "text": "{{ secret_params.ONE }}"}
NAMES = ["ONE", "TWO", "THREE"]


@pytest.fixture(autouse=True)
def activities() -> Generator[None]:
    """The greedy activities, also in this process."""
    known = set(ACTIVITIES)
    importlib.reload(importlib.import_module("support.greedy_activities"))
    yield
    for name in set(ACTIVITIES) - known:
        del ACTIVITIES[name]


async def limit(connection: Connection, **values: int | None) -> None:
    collection_id = await limits.find_collection(connection, "my-org")
    await limits.replace_limits(connection, values, collection_id=collection_id)


def echoes(count: int, text: str = "x") -> list[tuple[str, dict[str, Any]]]:
    return [(f"s{number}", {"activity": "text_echo", "text": text}) for number in range(count)]


RETRY = {"max_attempts": 10, "backoff": 0}
CASES: dict[str, tuple[dict[str, int], list[tuple[str, dict[str, Any]]], str]] = {
    "bytes": (
        {"run_step_bytes": 5000},
        echoes(3, "y" * 1000),
        ("step 's2' failed: the run's steps would hold N bytes, more than its limit run_step_bytes of 5000: keep "
        "large outputs in files"),
    ),
    "steps": (
        {"run_steps": 2},
        echoes(3),
        "step 's2' failed: the run would have 3 steps, more than its limit run_steps of 2",
    ),
    "log": (
        {"run_log_events": 8},
        echoes(3),
        ("step 's2' failed: the run's log would have 9 events, more than its limit run_log_events of 8: use fewer "
        "steps or attempts"),
    ),
    "children": (
        {"run_children": 2},
        [("emit", {"activity": "list_emit_await", "task": "child", "items": ["a", "b", "c"]})],
        "step 'emit' failed: the run's tree is at its limit run_children: it has 2 of 2 runs, ended ones included",
    ),
    "secrets": (
        {"run_secrets": 2},
        [("one", ECHO_SECRET), ("read", {"activity": "read_secrets", "names": NAMES})],
        "step 'read' failed: the run would read 3 secrets, more than its limit run_secrets of 2",
    ),
    "files": (
        {"files": 2},
        [("save", {"activity": "save_files", "names": ["a", "b", "c"]})],
        "step 'save' failed: the file was not saved, because the collection is at its limit files: it has 2 of 2 files",
    ),
    "bytes of files": (
        {"file_bytes": 25},
        [("save", {"activity": "save_files", "names": ["a", "b", "c"], "size": 10})],
        ("step 'save' failed: the file was not saved, because the collection is at its limit file_bytes: it has 20 of "
        "25 bytes, and the file 10"),
    ),
}  # fmt: skip


async def prepared(connection: Connection, case: str) -> tuple[int, dict[str, int]]:
    """Create the task of a case and a child for it. Returns the task and the limits."""
    values, steps, _ = CASES[case]
    await task_of(connection, "child", workflow_of(("it", ECHO), item=""))
    return await task_of(connection, "greedy", workflow_of(*steps)), values


async def greedy_run(connection: Connection, task: int) -> int:
    run = await run_of(connection, task)
    for name in NAMES:
        await give(connection, run, name, f"secret-{name}")
    return run


def worker_of(kind: str, url: str, directory: Path) -> AbstractAsyncContextManager[Worker]:
    return (working if kind == "inline" else contained)(url, data_dir=directory)


@pytest.mark.parametrize("kind", ["inline", "processes"])
@pytest.mark.parametrize("case", CASES)
async def test_the_step_that_would_exceed_a_limit_fails_and_names_it_with_the_use(
    connection: Connection, database: Database, tmp_path: Path, case: str, kind: str
) -> None:
    task, values = await prepared(connection, case)
    await limit(connection, **values)
    run = await greedy_run(connection, task)
    async with worker_of(kind, database.url, tmp_path):
        status, error = await until_ended(connection, run)
    assert (status, re.sub(r"hold \d+", "hold N", str(error))) == ("failed", CASES[case][2])
    failed = "SELECT name FROM routines.steps WHERE trajectory_id = %s AND status = 'failed'"
    assert await value(connection, failed, run) == CASES[case][1][-1][0]


@pytest.mark.parametrize("case", CASES)
async def test_without_the_limit_the_same_run_completes(
    connection: Connection, database: Database, tmp_path: Path, case: str
) -> None:
    task, values = await prepared(connection, case)
    await limit(connection, **dict.fromkeys(values))
    run = await greedy_run(connection, task)
    async with working(database.url, data_dir=tmp_path):
        assert await until_ended(connection, run) == ("completed", None)


async def test_a_changed_limit_applies_within_about_a_second(connection: Connection, database: Database) -> None:
    task = await task_of(connection, "t", workflow_of(*echoes(2)))
    await limit(connection, run_steps=1)
    async with working(database.url):
        assert (await until_ended(connection, await run_of(connection, task)))[0] == "failed"
        await limit(connection, run_steps=2)
        changed_at = asyncio.get_running_loop().time()
        while (await until_ended(connection, await run_of(connection, task)))[0] == "failed":
            assert asyncio.get_running_loop().time() < changed_at + 10 * FRESH_SECONDS
    late = """SELECT count(*) FROM routines.trajectories
              WHERE status = 'failed'
                AND started_at > (SELECT set_at FROM routines.collection_limits) + make_interval(secs => 1.5)"""
    assert await value(connection, late) == 0


# --- what counts ------------------------------------------------------------------------------------------------------


async def test_a_log_may_have_exactly_as_many_events_as_the_limit_says(
    connection: Connection, database: Database
) -> None:
    task = await task_of(connection, "t", workflow_of(*echoes(3)))
    await limit(connection, run_log_events=9)
    run = await run_of(connection, task)
    async with working(database.url):
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, EVENTS, run) == 9


async def test_failed_attempts_count_as_events_of_the_log(connection: Connection, database: Database) -> None:
    task = await task_of(connection, "t", workflow_of(("try", {"activity": "fail", "retry": RETRY})))
    await limit(connection, run_log_events=9)
    run = await run_of(connection, task)
    async with working(database.url):
        status, error = await until_ended(connection, run)
    assert status == "failed"
    assert error is not None
    assert "the run's log would have 11 events, more than its limit run_log_events of 9" in error
    assert await value(connection, EVENTS, run) == 9


async def half_done(connection: Connection, *steps: tuple[str, dict[str, Any]], begun: bool = False) -> int:
    """Create a run that was released after its first step, which failed once, or after the second has begun."""
    run = await run_of(connection, await task_of(connection, "t", workflow_of(*steps)))
    for name in NAMES:
        await give(connection, run, name, f"secret-{name}")
    [claim] = await runs.claim(connection, capacity=1, **CLAIM)
    name, config = steps[0]
    record = StepRecord(name, 0, "running", config["activity"], {"text": "z" * 1000})
    assert await runs.checkpoint(connection, claim, record, lease_seconds=60)
    record = StepRecord(name, 0, "running", config["activity"], {"text": "z" * 1000}, attempt=2, failed_try="no")
    assert await runs.checkpoint(connection, claim, record, lease_seconds=60)
    done = StepRecord(name, 0, "completed", config["activity"], {"text": "z" * 1000}, {"text": "x"}, attempt=2)
    assert await runs.checkpoint(connection, claim, done, lease_seconds=60)
    if begun:
        record = StepRecord(steps[1][0], 1, "running", steps[1][1]["activity"], {})
        assert await runs.checkpoint(connection, claim, record, lease_seconds=60)
    await runs.release(connection, [(claim.id, claim.fence)])
    return run


@pytest.mark.parametrize("kind", ["inline", "processes"])
@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"run_steps": 1}, "would have 2 steps, more than its limit run_steps of 1"),
        ({"run_step_bytes": 1100}, "more than its limit run_step_bytes of 1100"),
        # Created, claimed, resumed; started and failed, started and completed; two of the second step, and the end.
        ({"run_log_events": 9}, "would have 10 events, more than its limit run_log_events of 9"),
        ({"run_secrets": 1}, "would read 2 secrets, more than its limit run_secrets of 1"),
    ],
)  # fmt: skip
async def test_a_resumed_run_counts_what_it_used_before(
    connection: Connection, database: Database, tmp_path: Path, values: dict[str, int], cause: str, kind: str
) -> None:
    run = await half_done(connection, ("first", ECHO_SECRET), ("then", {"activity": "read_secrets", "names": ["TWO"]}))
    await limit(connection, **values)
    async with worker_of(kind, database.url, tmp_path):
        status, error = await until_ended(connection, run)
    assert status == "failed"
    assert str(error).startswith("step 'then' failed: ")
    assert cause in str(error)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_resumed_run_at_its_limits_completes(
    connection: Connection, database: Database, *, begun: bool
) -> None:
    then = {"activity": "read_secrets", "names": ["TWO"]}
    run = await half_done(connection, ("first", ECHO_SECRET), ("then", then), begun=begun)
    await limit(connection, run_steps=2, run_log_events=10, run_secrets=2)
    async with working(database.url):
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, EVENTS, run) == 10


async def test_a_run_fails_rather_than_go_on_with_a_secret_that_is_not_masked(
    connection: Connection, database: Database
) -> None:
    """The limit was lowered below what its finished steps have read."""
    first = {"activity": "text_echo", "text": "{{ secret_params.ONE }} {{ secret_params.TWO }}"}
    run = await half_done(connection, ("first", first), ("then", ECHO))
    await limit(connection, run_secrets=1)
    async with working(database.url):
        assert await until_ended(connection, run) == (
            "failed",
            "the run would read 2 secrets, more than its limit run_secrets of 1",
        )


async def test_a_secret_that_is_read_again_or_missing_does_not_count(
    connection: Connection, database: Database
) -> None:
    steps = [(f"s{number}", {"activity": "read_secrets", "names": ["ONE", "ABSENT", "ONE"]}) for number in range(2)]
    run = await greedy_run(connection, await task_of(connection, "t", workflow_of(*steps)))
    await limit(connection, run_secrets=1)
    async with working(database.url):
        assert await until_ended(connection, run) == ("completed", None)


# --- trees ------------------------------------------------------------------------------------------------------------


async def claimed_parent(connection: Connection) -> Claim:
    await task_of(connection, "child", workflow_of())
    await run_of(connection, await task_of(connection, "parent", workflow_of()))
    [parent] = await runs.claim(connection, capacity=1, **CLAIM)
    return parent


async def start(connection: Connection, parent: Claim, index: int, most: int | None) -> children.Started:
    return await children.start_child(
        connection, parent, step="s", task="child", init_params="{}", index=index, most_children=most
    )


async def test_a_child_is_found_again_in_a_full_tree_and_counts_once(connection: Connection) -> None:
    parent = await claimed_parent(connection)
    first = await start(connection, parent, 0, 2)
    assert (await start(connection, parent, 0, 2)).id == first.id
    second = await start(connection, parent, 1, 2)
    assert (first.is_tree_full, second.is_tree_full) == (False, False)
    full = await start(connection, parent, 2, 2)
    assert (full.id, full.is_tree_full) == (None, True)
    assert (await start(connection, parent, 1, 2)).id == second.id
    assert (await start(connection, parent, 1, 0)).id == second.id
    assert (await start(connection, parent, 2, None)).id is not None


async def test_ended_runs_and_runs_of_all_levels_count(connection: Connection) -> None:
    parent = await claimed_parent(connection)
    child = await start(connection, parent, 0, 3)
    [claim] = await runs.claim(connection, capacity=1, **CLAIM)
    assert claim.id == child.id
    grandchild = await start(connection, claim, 0, 3)
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE id = %s", [grandchild.id]
    )
    assert (await start(connection, claim, 1, 3)).id is not None
    assert (await start(connection, claim, 2, 3)).is_tree_full
    assert (await start(connection, parent, 1, 3)).is_tree_full


async def test_siblings_that_are_started_at_once_do_not_exceed_the_limit(
    connection: Connection, database: Database
) -> None:
    parent = await claimed_parent(connection)
    async with session(database, "first") as first, session(database, "second") as second:
        async with first.transaction():
            assert (await start(first, parent, 0, 1)).id is not None
            late = asyncio.create_task(start(second, parent, 1, 1))
            await until_blocked(connection, second)
        assert (await late).is_tree_full
    assert await value(connection, "SELECT count(*) FROM routines.trajectories WHERE parent_id IS NOT NULL") == 1


async def test_a_worker_that_resumes_a_run_with_a_full_tree_finds_its_children(
    connection: Connection, database: Database
) -> None:
    await task_of(connection, "child", workflow_of(("it", ECHO), item=""))
    emit = {"activity": "list_emit_await", "task": "child", "items": ["a", "b"]}
    run = await run_of(connection, await task_of(connection, "parent", workflow_of(("emit", emit))))
    await limit(connection, run_children=2)
    [claim] = await runs.claim(connection, capacity=1, **CLAIM)
    for index in range(2):
        await children.start_child(connection, claim, step="emit", task="child", init_params="{}", index=index)
    await runs.release(connection, [(claim.id, claim.fence)])
    async with working(database.url):
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 3


# --- files ------------------------------------------------------------------------------------------------------------


async def test_a_file_that_could_not_be_stored_does_not_count(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "files").write_text("in the way")
    run = await run_of(
        connection,
        await task_of(connection, "t", workflow_of(("save", {"activity": "save_files", "names": ["a"], "size": 3}))),
    )
    async with working(database.url, data_dir=tmp_path):
        status, error = await until_ended(connection, run)
    assert (status, "could not be stored" in str(error)) == ("failed", True)
    used = "SELECT concat(files, ' ', file_bytes) FROM routines.collection_usage"
    assert await value(connection, used) == "0 0"


# --- reading the limits -----------------------------------------------------------------------------------------------


async def test_a_worker_reads_the_limits_once_a_second_and_not_for_each_run(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    read = limits.run_limits

    async def noted(connection: Connection, collection_id: int) -> RunLimits:
        asked.append(collection_id)
        return await read(connection, collection_id)

    monkeypatch.setattr(limits, "run_limits", noted)
    task = await task_of(connection, "t", workflow_of(*echoes(2)))
    began_at = asyncio.get_running_loop().time()
    for _ in range(40):
        await run_of(connection, task)
    async with working(database.url):
        await until(connection, "SELECT bool_and(status = 'completed') FROM routines.trajectories")
    assert 1 <= len(asked) <= 1 + (asyncio.get_running_loop().time() - began_at) / FRESH_SECONDS


async def test_concurrent_runs_share_a_query_and_a_failure_leaves_the_last_known_limits() -> None:
    cache, asked = RunLimitsCache(), list[int]()
    answers = [RunLimits(steps=7), SilenceError("no answer")]

    async def read(collection_id: int) -> RunLimits:
        asked.append(collection_id)
        await asyncio.sleep(0)
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    found = await asyncio.gather(*(cache.of(1, read) for _ in range(10)))
    assert found == [RunLimits(steps=7)] * 10
    assert await cache.of(1, read) == RunLimits(steps=7)
    assert asked == [1]
    cache._known[1].fresh_until = 0.0
    assert await cache.of(1, read) == RunLimits(steps=7)
    assert await cache.of(1, read) == RunLimits(steps=7)
    assert asked == [1, 1]


async def test_limits_that_were_never_read_are_the_built_in_ones_and_few_collections_are_kept() -> None:
    cache = RunLimitsCache()

    async def read(_: int) -> RunLimits:
        raise SilenceError("no answer")

    assert await cache.of(0, read) == BUILT_IN
    assert RunLimits(16 * 2**20, 1_000, 1_000, 10_000, 100) == BUILT_IN
    for collection_id in range(MOST_COLLECTIONS + 1):
        await cache.of(collection_id, read)
    assert len(cache._known) == MOST_COLLECTIONS
