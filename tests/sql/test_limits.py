"""Limits in the database: their defaults, what counts towards them, and who may read and set them."""

import asyncio

import msgspec
import psycopg
import pytest

from routines_core.db import Connection
from routines_core.db import limits as db
from routines_core.limits import LIMITS
from support.rows import Database, at, make_routine, make_task, value
from support.stepping import session, until_blocked

COLLECTION = "(SELECT id FROM routines.collections WHERE name = 'my-org')"


async def use_of(connection: Connection, name: str, most: int = 100) -> object:
    return await value(connection, f"SELECT routines.limit_use({COLLECTION}, %s, %s)", name, most)


async def add_runs(
    connection: Connection, count: int, *, parent_id: int | None = None, ended: bool = False
) -> list[int]:
    """Insert runs of the task `echo` and return their ids."""
    cursor = await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, status, ended_at,
                                              init_params, parent_id, parent_step, child_index)
           SELECT collection_id, id, 1, 'api', CASE WHEN %(ended)s THEN 'completed' ELSE 'pending' END,
                  CASE WHEN %(ended)s THEN now() END, '{}', %(parent)s::bigint,
                  CASE WHEN %(parent)s::bigint IS NOT NULL THEN 'fan-out' END,
                  CASE WHEN %(parent)s::bigint IS NOT NULL THEN number END
           FROM routines.tasks, generate_series(1, %(count)s) AS number WHERE name = 'echo' RETURNING id""",
        {"ended": ended, "parent": parent_id, "count": count},
    )
    return [row[0] for row in await cursor.fetchall()]


# --- names and values -------------------------------------------------------------------------------------------------


async def test_python_and_sql_have_the_same_limits_with_the_same_built_in_values(connection: Connection) -> None:
    rows = await (await connection.execute("SELECT name, value FROM routines.built_in_limits")).fetchall()
    assert dict(rows) == {name: rule.default for name, rule in LIMITS.items()}
    for name in LIMITS:
        assert await value(connection, "SELECT routines.limit_of(NULL, %s)", name) == LIMITS[name].default


async def test_an_unknown_limit_raises_instead_of_counting_as_no_limit(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no limit has the name taks"):
        await connection.execute("SELECT routines.limit_of(1, 'taks')")
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="collection_limits_name_is_known"):
        await connection.execute("INSERT INTO routines.collection_limits (name, value) VALUES ('taks', 1)")


async def test_the_concurrency_of_runs_has_one_place(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="collection_limits_has_no_concurrency"):
        await connection.execute(
            "INSERT INTO routines.collection_limits (name, value) VALUES ('max_concurrent_runs', 1)"
        )


async def test_there_is_one_value_for_each_collection_and_one_default(connection: Connection) -> None:
    insert = "INSERT INTO routines.collection_limits (collection_id, name, value) VALUES (%s, 'tasks', 1)"
    await connection.execute(insert, [None])
    with pytest.raises(psycopg.errors.UniqueViolation, match="collection_limits_key"):
        await connection.execute(insert, [None])


async def test_the_limits_of_a_run_come_in_one_row(connection: Connection) -> None:
    await make_task(connection)
    collection_id = await db.find_collection(connection, "my-org")
    await db.set_limit(connection, "run_children", 7, collection_id=collection_id)
    await db.set_limit(connection, "run_steps", None, collection_id=collection_id)
    found = await db.run_limits(connection, collection_id)
    assert msgspec.structs.asdict(found) == {
        "step_bytes": 16 * 2**20, "steps": None, "children": 7, "log_events": 10_000, "secrets": 100
    }  # fmt: skip


async def test_replacing_returns_what_is_left_out_to_its_default(connection: Connection) -> None:
    await make_task(connection)
    collection_id = await db.find_collection(connection, "my-org")
    await db.replace_limits(connection, {"tasks": 3, "max_concurrent_runs": 4}, collection_id=collection_id)
    await db.replace_limits(connection, {"routines": None}, collection_id=collection_id)
    limits = {limit.name: limit for limit in (await db.list_limits(connection, collection_id))[0]}
    assert [name for name, limit in limits.items() if limit.is_set] == ["routines"]
    assert limits["routines"].value is None
    assert limits["tasks"].value == limits["tasks"].default_value == 10_000
    assert limits["max_concurrent_runs"].value is None


# --- uses -------------------------------------------------------------------------------------------------------------


async def test_each_use_counts_rows_of_the_collection_and_stops_at_the_most(connection: Connection) -> None:
    task = await make_task(connection)
    await connection.execute("INSERT INTO routines.collections (name) VALUES ('other')")
    await make_routine(connection, task, at("2026-05-04 09:00"))
    await add_runs(connection, 3)
    [ended] = await add_runs(connection, 1, ended=True)
    await connection.execute(
        """INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, event_status, url, next_attempt_at,
                                                    delivered_at)
           SELECT collection_id, id, 'completed', 'https://example.com', due, CASE WHEN due IS NULL THEN now() END
           FROM routines.trajectories, (VALUES (now()), (now() + interval '1 hour'), (NULL)) AS moments (due)
           WHERE id = %s""",
        [ended],
    )
    uses = {"tasks": 1, "routines": 1, "active_runs": 3, "pending_webhooks": 2, "stored_bytes": 0, "files": 0}
    uses |= {"file_bytes": 0, "runs_per_minute": 0, "max_concurrent_runs": 0, "run_steps": None}
    assert {name: await use_of(connection, name) for name in uses} == uses
    assert await use_of(connection, "active_runs", 2) == 2
    other = "SELECT routines.limit_use((SELECT id FROM routines.collections WHERE name = 'other'), %s, 100)"
    assert {name: await value(connection, other, name) for name in uses if uses[name] is not None} == (
        dict.fromkeys((name for name in uses if uses[name] is not None), 0)
    )


async def test_every_limit_of_a_collection_has_a_use(connection: Connection) -> None:
    await make_task(connection)
    limits, _ = await db.list_limits(connection, await db.find_collection(connection, "my-org"))
    assert [limit.name for limit in limits] == list(LIMITS)
    assert [limit.name for limit in limits if limit.use is None] == [
        name for name, rule in LIMITS.items() if rule.of_run
    ]


@pytest.mark.parametrize("name", ["active_runs", "routines", "tasks", "pending_webhooks"])
async def test_a_use_is_counted_from_an_index(connection: Connection, name: str) -> None:
    """The plan of the counting query, without sequential scans, reads one of the indexes made for it."""
    body = await value(connection, "SELECT prosrc FROM pg_proc WHERE proname = 'limit_use'")
    query = (
        str(body).partition(f"WHEN '{name}' THEN ")[2].partition(" AS counted)")[0].removeprefix("(") + " AS counted"
    )
    query = query.replace("of_collection", "1").replace("most", "10")
    await connection.execute("SET enable_seqscan = off")
    plan = await (await connection.execute(("EXPLAIN " + query).encode())).fetchall()
    index = {
        "active_runs": "trajectories_active_idx",
        "routines": "routine_names_collection_id_idx",
        "tasks": "tasks_",
        "pending_webhooks": "webhook_deliveries_lane_idx",
    }[name]
    assert index in "\n".join(row[0] for row in plan)


async def test_runs_of_a_minute_are_granted_up_to_the_limit(connection: Connection) -> None:
    await make_task(connection)
    collection_id = await db.find_collection(connection, "my-org")
    await db.set_limit(connection, "runs_per_minute", 5, collection_id=collection_id)
    take = f"SELECT granted FROM routines.take_runs({COLLECTION}, %s)"
    # The test needs one minute by the clock.
    await connection.execute(
        "SELECT pg_sleep(61 - second) FROM extract(second FROM clock_timestamp()) AS second WHERE second > 55"
    )
    assert [await value(connection, take, wanted) for wanted in (3, 3, 1)] == [3, 2, 0]
    assert await use_of(connection, "runs_per_minute") == 5
    await connection.execute("UPDATE routines.run_minutes SET minute = minute - interval '1 minute'")
    assert await use_of(connection, "runs_per_minute") == 0
    assert await value(connection, take, 3) == 3
    await db.set_limit(connection, "runs_per_minute", None, collection_id=collection_id)
    assert await value(connection, take, 1000) == 1000


async def test_a_tree_counts_all_runs_below_its_root_from_any_of_its_runs(connection: Connection) -> None:
    await make_task(connection)
    [root, other] = await add_runs(connection, 2)
    children = await add_runs(connection, 3, parent_id=root)
    grandchildren = await add_runs(connection, 2, parent_id=children[0])
    await add_runs(connection, 1, parent_id=other)
    size = "SELECT routines.tree_size(%s, %s)"
    for run in (root, children[2], grandchildren[0]):
        assert await value(connection, size, run, 100) == 5
    assert await value(connection, size, root, 4) == 4
    roots = "SELECT array_agg(root_id ORDER BY id) FROM routines.trajectories"
    assert await value(connection, roots) == [None, None, root, root, root, root, root, other]


async def test_stored_bytes_are_estimated_for_every_collection(connection: Connection) -> None:
    await make_task(connection)
    [run] = await add_runs(connection, 1, ended=True)
    await connection.execute(
        """INSERT INTO routines.steps (trajectory_id, name, position, fence, status, activity, inputs, outputs,
                                       ended_at)
           SELECT %s, 'step' || number, number, 1, 'completed', 'text_echo', '{}',
                  to_jsonb((SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 1000 + number))), now()
           FROM generate_series(1, 50) AS number""",
        [run],
    )
    assert await db.measure_stored_bytes(connection, most_pages=1000) == 1
    stored = await use_of(connection, "stored_bytes")
    assert isinstance(stored, int)
    assert 50 * 32_000 < stored < 50 * 35_000
    await connection.execute("DELETE FROM routines.trajectories")
    assert await db.measure_stored_bytes(connection, most_pages=1000) == 1
    assert await use_of(connection, "stored_bytes") == 0
    assert await db.measure_stored_bytes(connection, most_pages=1000) == 0


async def test_files_are_counted_as_they_are_saved_and_corrected_by_a_listing(connection: Connection) -> None:
    await make_task(connection)
    collection_id = await db.find_collection(connection, "my-org")
    for size in (10, 20):
        assert (await db.take_file(connection, collection_id, size_bytes=size)).is_taken
    assert [await use_of(connection, name) for name in ("files", "file_bytes")] == [2, 30]
    await db.note_listed_files(connection, {collection_id: (1, 25), 999_999: (1, 1)})
    assert [await use_of(connection, name) for name in ("files", "file_bytes")] == [1, 25]
    await db.note_listed_files(connection, {})
    assert [await use_of(connection, name) for name in ("files", "file_bytes")] == [0, 0]


async def test_files_that_are_saved_at_once_do_not_exceed_a_limit_together(
    connection: Connection, database: Database
) -> None:
    await make_task(connection)
    collection_id = await db.find_collection(connection, "my-org")
    await db.set_limit(connection, "files", 1, collection_id=collection_id)
    async with session(database, "first") as first, session(database, "second") as second:
        await db.note_listed_files(connection, {collection_id: (0, 0)})
        async with first.transaction():
            assert (await db.take_file(first, collection_id, size_bytes=5)).is_taken
            late = asyncio.create_task(db.take_file(second, collection_id, size_bytes=5))
            await until_blocked(connection, second)
        assert not (await late).is_taken
    assert [await use_of(connection, name) for name in ("files", "file_bytes")] == [1, 5]


@pytest.mark.parametrize(
    ("limits", "used", "fits"),
    [
        ({"files": 2, "file_bytes": 100}, (1, 90), True),
        ({"files": 2, "file_bytes": 100}, (2, 90), False),
        ({"files": 2, "file_bytes": 100}, (1, 91), False),
        ({"files": None, "file_bytes": None}, (2, 91), True),
        ({"files": 0}, (0, 0), False),
        ({"file_bytes": 9}, (0, 0), False),
    ],
)
async def test_a_file_is_counted_only_if_it_fits(
    connection: Connection, limits: dict[str, int | None], used: tuple[int, int], *, fits: bool
) -> None:
    await make_task(connection)
    collection_id = await db.find_collection(connection, "my-org")
    await db.replace_limits(connection, limits, collection_id=collection_id)
    if used != (0, 0):
        await db.note_listed_files(connection, {collection_id: used})
    taken = await db.take_file(connection, collection_id, size_bytes=10)
    assert (taken.is_taken, taken.files, taken.file_bytes) == (fits, *used)
    assert (taken.most_files, taken.most_bytes) == (limits.get("files", 100_000), limits.get("file_bytes", 100 * 2**30))
    added = (1, 10) if fits else (0, 0)
    assert [await use_of(connection, name) for name in ("files", "file_bytes")] == [
        used[0] + added[0],
        used[1] + added[1],
    ]
    if fits:
        await db.give_back_file(connection, collection_id, size_bytes=10)
        assert [await use_of(connection, name) for name in ("files", "file_bytes")] == list(used)


# --- who may ----------------------------------------------------------------------------------------------------------


async def test_a_tenant_sees_its_own_limits_and_the_defaults_and_cannot_write_defaults(
    connection: Connection, database: Database
) -> None:
    await make_task(connection)
    await connection.execute("INSERT INTO routines.collections (name) VALUES ('other')")
    own, other = [await db.find_collection(connection, name) for name in ("my-org", "other")]
    for collection_id, most in ((own, 1), (other, 2), (None, 3)):
        await db.set_limit(connection, "tasks", most, collection_id=collection_id)
    await connection.execute("SET ROLE routines_api")
    async with connection.transaction():
        await connection.execute("SELECT set_config('routines.collection_id', %s, true)", [str(own)])
        seen = "SELECT array_agg(value ORDER BY value) FROM routines.collection_limits"
        assert await value(connection, seen) == [1, 3]
        await connection.execute("DELETE FROM routines.collection_limits")
        await connection.execute("UPDATE routines.collection_limits SET value = 9")
        for collection_id in (other, None):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                async with connection.transaction():
                    await db.set_limit(connection, "routines", 1, collection_id=collection_id)
    await connection.execute("RESET ROLE")
    assert await value(connection, "SELECT array_agg(value ORDER BY value) FROM routines.collection_limits") == [2, 3]
