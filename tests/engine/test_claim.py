"""The claim is fair to collections and tasks, keeps limits, and costs the same however long the backlog is."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from routines_core.db import Connection, connect, limits, runs
from routines_core.db.runs import Claim
from routines_core.db.statements import Statement
from routines_core.errors import NotFoundError
from routines_core.limits import CONCURRENCY
from support.rows import Database, value

CLAIM = {"worker": "w", "lease_seconds": 60.0, "deadline_seconds": 600.0}
MADE = """WITH collection AS (INSERT INTO routines.collections (name) VALUES (%(collection)s)
                              ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id),
               task AS (INSERT INTO routines.tasks (collection_id, name) SELECT id, %(task)s FROM collection
                        RETURNING id)
          INSERT INTO routines.task_versions (task_id, version, workflow)
          SELECT id, 1, '{}' FROM task RETURNING task_id"""
PENDING = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
             SELECT collection_id, id, 1, 'api', '{}' FROM routines.tasks, generate_series(1, %s) WHERE id = %s"""


async def task_with(connection: Connection, collection: str, task: str, count: int) -> int:
    """Create a task with this many pending runs. Returns its id."""
    cursor = await connection.execute(MADE.encode(), {"collection": collection, "task": task})
    row = await cursor.fetchone()
    assert row
    await connection.execute(PENDING, [count, row[0]])
    return row[0]


async def set_limit(connection: Connection, *, collection: str, task: str | None, most: int | None) -> None:
    """Limit how many runs of a collection, or of one of its tasks, workers may have claimed at once."""
    collection_id = await limits.find_collection(connection, collection)
    if task is None:
        await limits.set_limit(connection, CONCURRENCY, most, collection_id=collection_id)
    else:
        await limits.limit_task(connection, task, most, collection_id=collection_id)


class Claimer:
    """Claims as a worker does, remembering which task of each collection it served last."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.last_tasks: dict[int, int] = {}

    async def claim(self, capacity: int) -> list[Claim]:
        claimed = await runs.claim(self._connection, capacity=capacity, last_tasks=self.last_tasks, **CLAIM)
        for run in claimed:
            self.last_tasks.pop(run.collection_id, None)
            self.last_tasks[run.collection_id] = run.task_id
        return claimed

    async def order(self, claims: int, capacity: int) -> list[int]:
        """Claim this many times. Returns the tasks of the claimed runs, in order."""
        return [run.task_id for _ in range(claims) for run in await self.claim(capacity)]


async def finish(connection: Connection, claimed: list[Claim]) -> None:
    """End these runs, retrying those that another claim has locked while it checks whether they are pending."""
    for run in claimed:
        while not await runs.finish(connection, run, error=None):
            assert await runs.still_claimed(connection, [(run.id, run.fence)])


async def test_a_backlog_of_fifty_thousand_delays_another_collections_runs_by_no_more_than_its_share(
    connection: Connection,
) -> None:
    big = await task_with(connection, "big", "flood", 50_000)
    small = await task_with(connection, "small", "drop", 3)
    order = await Claimer(connection).order(claims=3, capacity=2)
    assert Counter(order) == {big: 3, small: 3}


async def test_a_worker_with_capacity_for_one_run_serves_the_collections_in_turn(connection: Connection) -> None:
    big = await task_with(connection, "big", "flood", 100)
    small = await task_with(connection, "small", "drop", 3)
    third = await task_with(connection, "third", "drop", 1)
    order = await Claimer(connection).order(claims=7, capacity=1)
    assert order == [big, small, third, big, small, big, small]


async def test_the_tasks_of_a_collection_take_turns_and_the_oldest_run_of_each_comes_first(
    connection: Connection,
) -> None:
    one = await task_with(connection, "big", "one", 4)
    two = await task_with(connection, "big", "two", 2)
    claimer = Claimer(connection)
    claimed = [run for _ in range(6) for run in await claimer.claim(1)]
    assert [run.task_id for run in claimed] == [one, two, one, two, one, one]
    ids = [run.id for run in claimed if run.task_id == one]
    assert ids == sorted(ids)


async def test_with_more_collections_than_capacity_each_claim_continues_where_the_last_one_ended(
    connection: Connection,
) -> None:
    tasks = [await task_with(connection, f"c{number}", "t", 2) for number in range(5)]
    order = await Claimer(connection).order(claims=5, capacity=2)
    assert order == [*tasks, *tasks]


async def test_a_collection_has_no_more_claimed_runs_than_its_limit(connection: Connection) -> None:
    limited = await task_with(connection, "limited", "t", 10)
    free = await task_with(connection, "free", "t", 10)
    await set_limit(connection, collection="limited", task=None, most=3)
    claimer = Claimer(connection)
    first = [run for _ in range(4) for run in await claimer.claim(10)]
    assert Counter(run.task_id for run in first) == {limited: 3, free: 10}
    await finish(connection, [run for run in first if run.task_id == limited][:2])
    assert len(await claimer.claim(10)) == 2


async def test_a_limited_task_delays_no_other_task_of_its_collection(connection: Connection) -> None:
    limited = await task_with(connection, "c", "limited", 1000)
    free = await task_with(connection, "c", "free", 2)
    await set_limit(connection, collection="c", task="limited", most=1)
    claimer = Claimer(connection)
    order = await claimer.order(claims=4, capacity=4)
    assert Counter(order) == {limited: 1, free: 2}
    [limit] = await limits.list_set_limits(connection)
    assert (limit.collection, limit.task, limit.limit_name, limit.value) == ("c", "limited", CONCURRENCY, 1)


async def test_whatever_takes_a_run_away_frees_its_share_of_the_limit(connection: Connection) -> None:
    await task_with(connection, "c", "t", 20)
    await set_limit(connection, collection="c", task=None, most=1)

    async def place() -> Claim:
        [run] = await runs.claim(connection, capacity=5, **CLAIM)
        assert await runs.claim(connection, capacity=5, **CLAIM) == []
        return run

    run = await place()
    await runs.release(connection, [(run.id, run.fence)])
    run = await place()
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'cancelled', ended_at = now() WHERE id = %s", [run.id]
    )
    run = await place()
    await connection.execute("UPDATE routines.trajectories SET lease_expires_at = now() WHERE id = %s", [run.id])
    await runs.reap(connection)
    run = await place()
    await connection.execute("DELETE FROM routines.trajectories WHERE id = %s", [run.id])
    await finish(connection, [await place()])
    assert await value(connection, "SELECT count(*) FROM routines.limited_runs") == 0


async def test_a_new_limit_counts_runs_that_are_already_claimed(connection: Connection) -> None:
    await task_with(connection, "c", "t", 5)
    assert len(await runs.claim(connection, capacity=2, **CLAIM)) == 2
    await set_limit(connection, collection="c", task="t", most=3)
    assert len(await runs.claim(connection, capacity=5, **CLAIM)) == 1
    await set_limit(connection, collection="c", task="t", most=None)
    assert len(await runs.claim(connection, capacity=5, **CLAIM)) == 2
    with pytest.raises(NotFoundError):
        await set_limit(connection, collection="c", task="absent", most=3)


async def test_workers_that_claim_at_once_do_not_exceed_a_limit_together(
    connection: Connection, database: Database
) -> None:
    await task_with(connection, "c", "t", 200)
    await task_with(connection, "d", "u", 200)
    await set_limit(connection, collection="c", task=None, most=3)
    await set_limit(connection, collection="d", task="u", most=2)
    in_hand = """SELECT count(*) FILTER (WHERE collection_id = 1) <= 3
                        AND count(*) FILTER (WHERE collection_id <> 1) <= 2
                 FROM routines.trajectories WHERE status = 'running'"""
    done: Counter[int] = Counter()

    async def work(number: int) -> None:
        async with connect(database.url, f"worker-{number}") as own:
            claimer = Claimer(own)
            for _ in range(40):
                claimed = await claimer.claim(4)
                assert await value(own, in_hand)
                done.update(run.collection_id for run in claimed)
                await finish(own, claimed)

    await asyncio.gather(*(work(number) for number in range(4)))
    assert all(done[collection] > 20 for collection in (1, 2)), done


async def explained(connection: Connection) -> dict[str, Any]:
    """Return the plan of a claim and what it read, its functions included."""
    parameters = {
        **CLAIM,
        "capacity": 10,
        "after": 0,
        "last_tasks": "{}",
        "but_collections": [],
        "most_each": None,
        "inline_bytes": 4096,
    }
    cursor = await connection.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT JSON) {Statement.declared['runs.claim'].text}".encode(),
        parameters,
    )
    row = await cursor.fetchone()
    assert row
    return row[0][0]["Plan"]


@pytest.mark.slow
async def test_a_claim_reads_no_more_of_a_backlog_of_two_hundred_thousand_than_of_one_of_two_thousand(
    connection: Connection,
) -> None:
    first = await task_with(connection, "a", "t", 1000)
    full = await task_with(connection, "a", "full", 1000)
    await set_limit(connection, collection="a", task="full", most=1)
    read: list[int] = []
    for more in (0, 99_000):
        for task in (first, full) if more else ():
            await connection.execute(PENDING, [more, task])
        await connection.execute("VACUUM (ANALYZE) routines.trajectories")
        await runs.claim(connection, capacity=10, **CLAIM)  # caches the functions' plans
        plan = await explained(connection)
        read.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    assert read[1] < 1.5 * read[0] + 50, read


async def test_a_task_with_few_runs_is_not_searched_into_the_backlog_of_the_next_task(connection: Connection) -> None:
    """Before Postgres 18 a comparison of rows ends a scan only where the first column differs."""
    await task_with(connection, "a", "short", 2)
    long = await task_with(connection, "a", "long", 100)
    read: list[int] = []
    for more in (0, 20_000):
        await connection.execute(PENDING, [more, long])
        await connection.execute("VACUUM (ANALYZE) routines.trajectories")
        for _ in range(2):  # the first one caches the functions' plans
            async with connection.transaction(force_rollback=True):
                plan = await explained(connection)
        read.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    assert read[1] < read[0] + 50, read


async def test_claims_and_renewals_are_heap_only_updates(connection: Connection) -> None:
    """A heap-only update touches no index: no indexed column changes while a run is active."""
    await task_with(connection, "c", "t", 200)
    claimed = await runs.claim(connection, capacity=50, **CLAIM)
    await runs.renew(connection, [(run.id, run.fence) for run in claimed], lease_seconds=60)
    await connection.execute("SELECT pg_stat_force_next_flush()")
    cursor = await connection.execute(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'routines.trajectories'::regclass"
    )
    row = await cursor.fetchone()
    assert row
    assert row[0] == 100
    assert row[1] >= 90
