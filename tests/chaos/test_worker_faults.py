"""Kill, freeze and stop real workers, and cancel their runs, while steps are running."""

import asyncio
import json
import signal
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from chaos.fleet import Fleet, Program
from routines_core.db import Connection, children, connect, runs
from routines_core.db.runs import Checkpoint, Claim, StepRecord
from support.rows import Database, value
from support.working import run_of, task_of, until, until_ended, workflow_of

pytestmark = pytest.mark.slow
LEASE_SECONDS = 2.0
SLACK_SECONDS = 10.0
"""Allowance for a machine that is busy with other work."""
TRIALS = 1000
DIGEST = """SELECT md5(string_agg(t::text || s::text, ',' ORDER BY t.id, s.name))
            FROM routines.trajectories AS t JOIN routines.steps AS s ON s.trajectory_id = t.id WHERE t.id <= %s"""


@asynccontextmanager
async def fleet_of(database: Database, directory: Path, **environment: str) -> AsyncGenerator[Fleet]:
    """Yield a fleet whose workers the test starts; they are killed at the end of the block."""
    settings = {"ROUTINES_LEASE_SECONDS": str(LEASE_SECONDS), **environment}
    fleet = Fleet(directory, lambda _: database.url, settings)
    try:
        yield fleet
    finally:
        fleet.kill()


def work(**seconds: float) -> dict[str, Any]:
    """Return a workflow whose steps work for this many seconds each."""
    return workflow_of(
        *((name, {"activity": "chaos_work", "step": name, "seconds": took}) for name, took in seconds.items())
    )


async def started(connection: Connection, fleet: Fleet) -> Program:
    """Start one more worker and wait until it is connected."""
    before = await value(connection, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'routines-worker'")
    fleet.add("worker")
    await until(
        connection,
        "SELECT count(*) > %s FROM pg_stat_activity WHERE application_name = 'routines-worker'",
        before,
    )
    return fleet.programs[-1]


def executions(fleet: Fleet) -> dict[str, list[int]]:
    """Return the fences under which each step was executed, as the steps themselves recorded them."""
    found: dict[str, list[int]] = defaultdict(list)
    for line in fleet.trace.read_text("utf-8").splitlines():
        execution = json.loads(line)
        found[execution["step"]].append(execution["fence"])
    return dict(found)


async def executing(fleet: Fleet, step: str) -> None:
    """Wait until the step itself has begun; the worker writes its record a moment earlier."""
    async with asyncio.timeout(30):
        while step not in executions(fleet):
            await asyncio.sleep(0.01)


async def seconds_since(connection: Connection, begun: object, query: str, *parameters: object) -> float:
    """Return the seconds from `begun` to a time in the database, both by the database's clock."""
    seconds = await value(
        connection, f"SELECT extract(epoch FROM ({query}) - %s::timestamptz)::float8", *parameters, begun
    )
    assert isinstance(seconds, float)
    return seconds


async def now(connection: Connection) -> object:
    return await value(connection, "SELECT clock_timestamp()")


RUNNING = "SELECT count(*) = %s FROM routines.steps WHERE status = 'running' AND name = %s"


async def test_a_killed_workers_run_is_finished_by_another_soon_after_the_lease_without_repeating_finished_steps(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    async with fleet_of(database, tmp_path) as fleet:
        killed = await started(connection, fleet)
        run = await run_of(connection, await task_of(connection, "t", work(one=0, two=0.5, three=0)))
        await executing(fleet, "two")
        killed.send(signal.SIGKILL)
        killed_at = await now(connection)
        fleet.add("worker")
        assert await until_ended(connection, run) == ("completed", None)
        assert executions(fleet) == {"one": [1], "two": [1, 3], "three": [3]}
        again = "SELECT created_at FROM routines.steps WHERE name = 'two'"
        assert 0 < await seconds_since(connection, killed_at, again) < LEASE_SECONDS + 2 + SLACK_SECONDS
    assert await value(connection, "SELECT crashes FROM routines.trajectories") == 1


async def test_late_writes_of_workers_frozen_past_their_lease_change_nothing(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """Forty runs in a real worker, whose steps are over as soon as it thaws."""
    count = 40
    async with fleet_of(database, tmp_path) as fleet:
        frozen = await started(connection, fleet)
        task = await task_of(connection, "t", work(one=0, two=0.3, three=0))
        last = [await run_of(connection, task) for _ in range(count)][-1]
        await until(connection, RUNNING, count, "two")
        frozen.send(signal.SIGSTOP)
        other = await started(connection, fleet)
        await until(connection, "SELECT bool_and(status = 'completed') FROM routines.trajectories")
        assert (
            await value(connection, "SELECT count(*) FROM routines.trajectories WHERE crashes = 1 AND fence = 3")
            == count
        )
        before = await value(connection, DIGEST, last)
        other.send(signal.SIGTERM)
        frozen.send(signal.SIGCONT)
        later = await run_of(connection, task)  # shows that the worker is back at work
        assert await until_ended(connection, later) == ("completed", None)
        frozen.send(signal.SIGTERM)
        assert await asyncio.to_thread(frozen.process.wait, 20) == 0
        assert await value(connection, DIGEST, last) == before


STEP = StepRecord("two", 1, "completed", "chaos_work", {}, {})
Write = Callable[[Connection, Claim], Any]
LATE_WRITES: list[Write] = [
    lambda late, run: runs.checkpoint(late, run, STEP, lease_seconds=60),
    lambda late, run: runs.finish(late, run, error=None),
    lambda late, run: runs.finish(late, run, error="late"),
    lambda late, run: runs.write(late, [Checkpoint(run.id, run.fence, [STEP], "completed")], lease_seconds=60),
    lambda late, run: runs.renew(late, [(run.id, run.fence)], lease_seconds=60),
    lambda late, run: runs.release(late, [(run.id, run.fence)]),
    lambda late, run: runs.still_claimed(late, [(run.id, run.fence)]),
    lambda late, run: runs.sealed_secret(late, run, "TOKEN"),
]


async def test_none_of_a_thousand_late_writes_is_accepted(connection: Connection, database: Database) -> None:
    """Real connections with stale fences: each run was reaped, then claimed again, given back, ended or cancelled."""
    task = await task_of(connection, "t", work(one=0, two=0))
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params, secret_refs)
           SELECT collection_id, id, 1, 'api', '{}', jsonb_build_object('TOKEN', gen_random_uuid())
           FROM routines.tasks, generate_series(1, %s) WHERE id = %s""",
        [TRIALS, task],
    )
    claim = {"capacity": TRIALS, "lease_seconds": 60, "deadline_seconds": 600}
    one = StepRecord("one", 0, "completed", "chaos_work", {}, {})
    async with connect(database.url, "late") as late:
        lost = await runs.claim(late, worker="first", **claim)
        assert len(lost) == TRIALS
        await runs.write(late, [Checkpoint(run.id, run.fence, [one]) for run in lost], lease_seconds=60)
        await connection.execute("UPDATE routines.trajectories SET lease_expires_at = now()")
        assert len(await runs.reap(connection)) == TRIALS
        taken = await runs.claim(connection, worker="second", **claim)
        await runs.release(connection, [(run.id, run.fence) for run in taken if run.id % 4 == 1])
        ends = [Checkpoint(run.id, run.fence, status="completed") for run in taken if run.id % 4 == 2]
        assert len(await runs.write(connection, ends, lease_seconds=60)) == len(ends)
        await connection.execute(
            """UPDATE routines.trajectories SET status = 'cancelled', fence = fence + 1, ended_at = now()
               WHERE mod(id, 4) = 3"""
        )
        before = await value(connection, DIGEST, TRIALS)
        accepted = [
            run.id for number, run in enumerate(lost) if await LATE_WRITES[number % len(LATE_WRITES)](late, run)
        ]
        refused = [
            await children.start_child(late, run, step="s", task="t", init_params="{}", index=0) for run in lost[:50]
        ]
        at_once = [Checkpoint(run.id, run.fence, [STEP], "failed", "late") for run in lost]
        assert await runs.write(late, at_once, lease_seconds=60) == set()
    assert accepted == []
    assert not any(child.is_ours or child.id for child in refused)
    assert await value(connection, DIGEST, TRIALS) == before
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == TRIALS


async def test_a_cancel_reaches_a_running_step_within_a_second(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """By the database's record: the worker has capacity for one run, and claims the next once the step has stopped."""
    async with fleet_of(database, tmp_path, ROUTINES_WORKER_CONCURRENCY="1", ROUTINES_LEASE_SECONDS="15") as fleet:
        task = await task_of(connection, "t", work(one=600))
        queue = [await run_of(connection, task) for _ in range(6)]
        await started(connection, fleet)
        took: list[float] = []
        for run, following in pairwise(queue):
            await until(
                connection,
                "SELECT count(*) = 1 FROM routines.steps WHERE status = 'running' AND trajectory_id = %s",
                run,
            )
            await connection.execute(
                """UPDATE routines.trajectories SET status = 'cancelled', fence = fence + 1, ended_at = now()
                   WHERE id = %s""",
                [run],
            )
            ended_at = await value(connection, "SELECT ended_at FROM routines.trajectories WHERE id = %s", run)
            started_at = "SELECT started_at FROM routines.trajectories WHERE id = %s"
            await until(connection, f"SELECT ({started_at}) IS NOT NULL", following)
            took.append(await seconds_since(connection, ended_at, started_at, following))
        assert sorted(took)[len(took) // 2] < 1, took
        assert max(took) < 1 + SLACK_SECONDS
    statuses = "SELECT count(*) FROM routines.steps WHERE status = 'cancelled' AND ended_at IS NOT NULL"
    assert await value(connection, statuses) == len(took)


async def test_a_worker_told_to_stop_gives_its_runs_back_within_two_seconds_without_counting_a_crash(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    async with fleet_of(database, tmp_path) as fleet:
        worker = await started(connection, fleet)
        task = await task_of(connection, "t", work(one=0, two=600))
        for _ in range(10):
            await run_of(connection, task)
        await until(connection, RUNNING, 10, "two")
        told_at = await now(connection)
        worker.send(signal.SIGTERM)
        await until(connection, "SELECT bool_and(status = 'pending') FROM routines.trajectories")
        took = await seconds_since(connection, told_at, "SELECT max(updated_at) FROM routines.trajectories")
        assert took < 2 + SLACK_SECONDS / 2
        assert await asyncio.to_thread(worker.process.wait, 20) == 0
    assert await value(connection, "SELECT array_agg(DISTINCT crashes::integer) FROM routines.trajectories") == [0]
    completed = "SELECT count(*) FROM routines.steps WHERE name = 'one' AND status = 'completed'"
    assert await value(connection, completed) == 10


async def test_a_run_that_kills_its_workers_fails_at_the_third_and_another_run_completes(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    async with fleet_of(database, tmp_path, ROUTINES_LEASE_SECONDS="1") as fleet:
        poison = workflow_of(("boom", {"activity": "chaos_work", "step": "boom", "kills": True}))
        run = await run_of(connection, await task_of(connection, "poison", poison))
        fleet.start(tickers=0, workers=1)
        keeper = asyncio.create_task(fleet.keep())
        assert await until_ended(connection, run) == ("failed", "worker lost: 3 workers were lost while they ran it")
        other = await run_of(connection, await task_of(connection, "sound", work(one=0)))
        assert await until_ended(connection, other) == ("completed", None)
        keeper.cancel()
    assert executions(fleet)["boom"] == [1, 3, 5]
    assert await value(connection, "SELECT status || ', ' || error FROM routines.steps WHERE name = 'boom'") == (
        "failed, worker lost: 3 workers were lost while they ran it"
    )
