"""Overlap policies other than skip: what a tick makes of a slot while runs of its routine are active."""

from datetime import datetime, timedelta

import psycopg
import pytest

from routines_core.db import Connection, connect, runs
from routines_core.db.runs import Checkpoint, Claim
from routines_core.db.tick import tick
from support.rows import CATCHUP, Database, at, ledger, make_routine, make_task, value
from support.stepping import tick_at

NINE = at("2026-05-04 09:00")
HOUR = timedelta(hours=1)
RUN_NOW = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                                init_params)
             SELECT collection_id, task_id, 1, id, 'run-now', '{}' FROM routines.routines RETURNING id"""
CANCEL_WAITING = "UPDATE routines.trajectories SET status = 'cancelled', ended_at = now() WHERE place = 0"
PLACES = """SELECT array_agg(ARRAY[id, place] ORDER BY id) FROM routines.trajectories WHERE ended_at IS NULL"""
PLACED = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                               scheduled_for, init_params, place)
            SELECT collection_id, task_id, 1, id, %s, %s, '{}', %s FROM routines.routines"""


@pytest.fixture
async def routine(connection: Connection) -> int:
    """Create an hourly routine whose next slot is NINE, and return its id."""
    return await make_routine(connection, await make_task(connection), NINE, hourly=True)


async def follow(connection: Connection, policy: str, most: int | None = None) -> None:
    await connection.execute("UPDATE routines.routines SET overlap_policy = %s, max_concurrent = %s", [policy, most])


async def claimed(connection: Connection, most: int = 10) -> list[Claim]:
    found = await runs.claim(connection, capacity=most, worker="w", lease_seconds=600, deadline_seconds=600)
    return sorted(found, key=lambda run: run.id)


async def end(connection: Connection, run: Claim, error: str | None = None) -> None:
    assert await runs.finish(connection, run, error=error)


async def sentence(connection: Connection, routine: int, slot: datetime) -> str:
    return str(await value(connection, "SELECT sentence FROM routines.explain_time(%s, %s)", routine, slot))


@pytest.mark.parametrize("policy", ["queue_one", "cancel_other"])
async def test_a_slot_while_a_run_is_active_gets_a_run_that_waits_for_its_end(
    connection: Connection, routine: int, policy: str
) -> None:
    await follow(connection, policy)
    assert (await tick_at(connection, NINE)).fired == 1
    [first] = await claimed(connection)
    second = await tick_at(connection, NINE + HOUR)
    assert (second.fired, second.overlapped, second.coalesced) == (1, 0, 0)
    waiting = await value(connection, "SELECT id FROM routines.trajectories WHERE place = 0")
    assert await value(connection, PLACES) == [[first.id, 1], [waiting, 0]]
    assert await claimed(connection) == []
    assert await runs.reap(connection) == []
    assert f"waiting for the end of run {first.id}." in await sentence(connection, routine, NINE + HOUR)
    await end(connection, first)
    assert [run.id for run in await claimed(connection)] == [waiting]
    assert await value(connection, PLACES) == [[waiting, 1]]
    assert [row[2] for row in await ledger(connection, routine)] == ["started", "started"]


@pytest.mark.parametrize("policy", ["queue_one", "cancel_other"])
async def test_one_run_waits_and_a_later_slot_takes_it_over_with_all_that_the_routine_is_now(
    connection: Connection, routine: int, policy: str
) -> None:
    await follow(connection, policy)
    await tick_at(connection, NINE)
    await tick_at(connection, NINE + HOUR)
    waiting = await value(connection, "SELECT id FROM routines.trajectories WHERE place = 0")
    await connection.execute(
        """UPDATE routines.routines SET init_params_overrides = '{"text": "new"}', timeout_seconds = 7,
                                        init_params_from_slot = '{"size": "slot.scheduled_for"}'"""
    )
    for slot in (NINE + 2 * HOUR, NINE + 3 * HOUR):
        done = await tick_at(connection, slot)
        assert (done.claimed, done.advanced, done.fired, done.coalesced) == (1, 1, 0, 1)
    assert await ledger(connection, routine) == [
        (NINE, 1, "started", None),
        (NINE + HOUR, 1, "skipped", "coalesced"),
        (NINE + 2 * HOUR, 1, "skipped", "coalesced"),
        (NINE + 3 * HOUR, 1, "started", None),
    ]
    cursor = await connection.execute(
        "SELECT scheduled_for, created_at, init_params, timeout_seconds FROM routines.trajectories WHERE place = 0"
    )
    params = {"text": "new", "size": "2026-05-04T12:00:00Z"}
    assert await cursor.fetchall() == [(NINE + 3 * HOUR, NINE + 3 * HOUR, params, 7)]
    told = f"Skipped: run {waiting}, which waited, is now for the slot of 2026-05-04T11:00:00Z."
    assert await sentence(connection, routine, NINE + HOUR) == told
    assert await value(connection, "SELECT next_run_at FROM routines.routines") == NINE + 4 * HOUR


async def test_a_waiting_run_waits_for_run_now_runs_and_retries_too(connection: Connection, routine: int) -> None:
    await follow(connection, "queue_one")
    by_hand = await value(connection, RUN_NOW)
    assert (await tick_at(connection, NINE)).fired == 1
    assert await value(connection, "SELECT count(*) FROM routines.trajectories WHERE place = 0") == 1
    assert (await runs.admit(connection)).admitted == 0
    [run] = await claimed(connection)
    assert run.id == by_hand
    await end(connection, run)
    [waited] = await claimed(connection)
    await connection.execute('UPDATE routines.routines SET retry = \'{"max_attempts": 2, "until": 604800}\'')
    await connection.execute("UPDATE routines.trajectories SET created_at = now() WHERE id = %s", [waited.id])
    await end(connection, waited, "no")
    assert await value(connection, "SELECT count(*) FROM routines.trajectories WHERE trigger = 'retry'") == 1
    await tick_at(connection, NINE + HOUR)
    assert await claimed(connection) == []
    assert await value(connection, "SELECT count(*) FROM routines.trajectories WHERE place = 0") == 1


@pytest.mark.parametrize(("policy", "until"), [("queue_one", '"next_slot"'), ("cancel_other", "604800")])
async def test_a_run_that_fails_while_the_run_of_the_next_slot_waits_is_not_retried(
    connection: Connection, routine: int, policy: str, until: str
) -> None:
    await follow(connection, policy)
    await connection.execute(
        "UPDATE routines.routines SET retry = jsonb_build_object('max_attempts', 3, 'until', %s::jsonb)", [until]
    )
    await tick_at(connection, NINE)
    [run] = await claimed(connection)
    await tick_at(connection, NINE + HOUR)
    await end(connection, run, "no")
    assert await value(connection, "SELECT count(*) FROM routines.trajectories WHERE trigger = 'retry'") == 0
    assert len(await claimed(connection)) == 1


async def test_allow_starts_runs_until_as_many_are_active_as_may_be(connection: Connection, routine: int) -> None:
    await follow(connection, "allow", 3)
    by_hand = await value(connection, RUN_NOW)
    for hour in range(3):
        await tick_at(connection, NINE + hour * HOUR)
    found = await ledger(connection, routine)
    assert [row[2:] for row in found] == [("started", None), ("started", None), ("skipped", "overlap")]
    assert await value(connection, "SELECT blocking_trajectory_id FROM routines.skips") == by_hand
    [_, first, second] = await claimed(connection)
    assert await value(connection, PLACES) == [[by_hand, None], [first.id, 1], [second.id, 2]]
    await end(connection, first)
    await tick_at(connection, NINE + 3 * HOUR)
    places = "SELECT array_agg(place ORDER BY place) FROM routines.trajectories WHERE ended_at IS NULL"
    assert await value(connection, places) == [1, 2, None]


async def test_a_waiting_run_ends_with_its_routine(connection: Connection, routine: int) -> None:
    await follow(connection, "queue_one")
    for change, word in (
        ("UPDATE routines.routines SET paused = true", "paused"),
        ("DELETE FROM routines.routines", "deleted"),
    ):
        await connection.execute("UPDATE routines.routines SET paused = false")
        await connection.execute("UPDATE routines.routines SET next_run_at = %s, settled_until = NULL", [NINE])
        await connection.execute("DELETE FROM routines.trajectories")
        await connection.execute("DELETE FROM routines.skips")
        await tick_at(connection, NINE)
        await tick_at(connection, NINE + HOUR)
        await connection.execute(change.encode())
        statuses = "SELECT array_agg(status ORDER BY id) FROM routines.trajectories"
        assert await value(connection, statuses) == ["pending", "cancelled"]
        error = await value(connection, "SELECT max(error) FROM routines.trajectories")
        assert error == f"cancelled: its routine was {word} before the run began"


async def test_a_person_may_cancel_a_waiting_run_and_the_next_slot_waits_again(
    connection: Connection, routine: int
) -> None:
    await follow(connection, "queue_one")
    await tick_at(connection, NINE)
    await tick_at(connection, NINE + HOUR)
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'cancelled', ended_at = now(), lease_expires_at = NULL "
        "WHERE place = 0"
    )
    assert (await tick_at(connection, NINE + 2 * HOUR)).fired == 1
    assert [row[2] for row in await ledger(connection, routine)] == ["started"] * 3
    assert (await runs.admit(connection)).admitted == 0


@pytest.mark.parametrize("policy", ["skip", "queue_one", "cancel_other", "allow"])
async def test_a_policy_may_change_while_a_run_waits(connection: Connection, routine: int, policy: str) -> None:
    await follow(connection, "queue_one")
    await tick_at(connection, NINE)
    [run] = await claimed(connection)
    await tick_at(connection, NINE + HOUR)
    await follow(connection, policy, 1 if policy == "allow" else None)
    done = await tick_at(connection, NINE + 2 * HOUR)
    assert (done.overlapped, done.coalesced) == ((0, 1) if policy in {"queue_one", "cancel_other"} else (1, 0))
    await end(connection, run)
    assert len(await claimed(connection)) == 1


async def test_a_run_without_a_place_that_is_active_when_the_policy_changes_is_waited_for(
    connection: Connection, routine: int
) -> None:
    await tick_at(connection, NINE)
    [run] = await claimed(connection)
    await follow(connection, "queue_one")
    assert (await tick_at(connection, NINE + HOUR)).fired == 1
    assert await value(connection, PLACES) == [[run.id, None], [run.id + 1, 0]]
    await end(connection, run)
    assert await claimed(connection) == []
    assert (await runs.admit(connection)).admitted == 1
    assert len(await claimed(connection)) == 1


async def test_runs_that_nobody_will_stop_are_fenced_off_at_once_and_others_after_the_grace(
    connection: Connection, routine: int
) -> None:
    await follow(connection, "cancel_other")
    by_hand = await value(connection, RUN_NOW)
    [run] = await claimed(connection)
    await connection.execute(RUN_NOW)
    await tick_at(connection, NINE)
    await connection.execute("UPDATE routines.trajectories SET created_at = now() WHERE place = 0")
    assert (await runs.admit(connection)).replacing == 1
    assert await runs.fence_off(connection) == [run.id + 1]
    assert await runs.still_claimed(connection, [(run.id, run.fence)]) == {run.id: True}
    await connection.execute(
        "UPDATE routines.trajectories SET created_at = now() - routines.cancel_grace() WHERE place = 0"
    )
    assert await runs.fence_off(connection) == [by_hand]
    assert await runs.still_claimed(connection, [(run.id, run.fence)]) == {}
    assert not await runs.finish(connection, run, error=None)
    assert len(await claimed(connection)) == 1
    error = await value(connection, "SELECT error FROM routines.trajectories WHERE id = %s", by_hand)
    assert error == "cancelled: by its overlap policy, for the run of a later slot"


async def test_a_run_whose_later_one_was_cancelled_meanwhile_returns_to_the_queue(
    connection: Connection, routine: int
) -> None:
    await follow(connection, "cancel_other")
    await tick_at(connection, NINE)
    [run] = await claimed(connection)
    await tick_at(connection, NINE + HOUR)
    assert await runs.still_claimed(connection, [(run.id, run.fence)]) == {run.id: True}
    await connection.execute(CANCEL_WAITING)
    assert not await runs.stop(connection, run)
    [again] = await claimed(connection)
    assert (again.id, again.fence) == (run.id, run.fence + 2)


async def test_no_run_is_stopped_for_one_that_is_being_cancelled(
    connection: Connection, database: Database, routine: int
) -> None:
    await follow(connection, "cancel_other")
    await connection.execute(RUN_NOW)  # which no worker has
    await tick_at(connection, NINE)
    [by_hand, waiting] = await value(connection, PLACES)
    async with connect(database.url, "person") as person, person.transaction():
        await person.execute(CANCEL_WAITING)
        assert await runs.fence_off(connection) == []
    assert await runs.fence_off(connection) == []
    assert await value(connection, PLACES) == [by_hand]
    assert waiting[1] == 0


async def test_nothing_is_stopped_for_a_run_that_waits_in_line(connection: Connection, routine: int) -> None:
    await follow(connection, "queue_one")
    await tick_at(connection, NINE)
    [run] = await claimed(connection)
    await tick_at(connection, NINE + HOUR)
    await connection.execute("UPDATE routines.trajectories SET created_at = now() - interval '1 day' WHERE place = 0")
    assert (await runs.admit(connection)).replacing == 0
    assert await runs.fence_off(connection) == []
    assert await runs.still_claimed(connection, [(run.id, run.fence)]) == {run.id: False}


async def test_a_slot_whose_fire_fails_to_start_leaves_the_waiting_run_its_slot(
    connection: Connection, routine: int
) -> None:
    await follow(connection, "queue_one")
    await tick_at(connection, NINE)
    await tick_at(connection, NINE + HOUR)
    done = await tick(connection, batch_size=10, now=NINE + 2 * HOUR, fault="broken", **CATCHUP)
    assert (len(done.struck_ids), done.coalesced) == (1, 0)
    assert await value(connection, "SELECT scheduled_for FROM routines.trajectories WHERE place = 0") == NINE + HOUR


@pytest.mark.parametrize(
    ("policy", "trigger", "place", "constraint"),
    [
        ("skip", "schedule", 1, "trajectories_place_fits_policy"),
        ("queue_one", "schedule", 2, "trajectories_place_fits_policy"),
        ("queue_one", "schedule", -1, "trajectories_place_fits_policy"),
        ("queue_one", "run-now", 1, "trajectories_place_fits_policy"),
        ("queue_one", "schedule", 1, "trajectories_schedule_does_not_overlap"),
        ("allow", "schedule", 2, "trajectories_schedule_does_not_overlap"),
        ("queue_one", "schedule", None, "trajectories_schedule_does_not_overlap"),
    ],
)
async def test_an_insert_at_psql_keeps_to_the_policy(
    connection: Connection, routine: int, policy: str, trigger: str, place: int | None, constraint: str
) -> None:
    await follow(connection, policy, 2 if policy == "allow" else None)
    await connection.execute(RUN_NOW)
    if policy == "allow":
        await connection.execute(PLACED, ["schedule", NINE, 1])
    slot = NINE + HOUR if trigger == "schedule" else None
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        await connection.execute(PLACED, [trigger, slot, place])
    assert refused.value.diag.constraint_name == constraint


async def test_two_runs_never_wait_for_one_place(connection: Connection, routine: int) -> None:
    await follow(connection, "queue_one")
    await tick_at(connection, NINE)
    await tick_at(connection, NINE + HOUR)
    with pytest.raises(psycopg.errors.UniqueViolation, match="trajectories_active_place_key"):
        await connection.execute(PLACED, ["schedule", NINE + 2 * HOUR, 0])


@pytest.mark.parametrize(
    ("policy", "most"), [("allow", None), ("allow", 0), ("allow", 101), ("skip", 2), ("queue_one", 1), ("often", None)]
)
async def test_the_database_refuses_a_policy_that_is_not_valid(
    connection: Connection, routine: int, policy: str, most: int | None
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await follow(connection, policy, most)


async def test_a_secret_that_only_the_waiting_run_had_is_deleted_when_its_slot_is_taken_over(
    connection: Connection, routine: int
) -> None:
    secret = "00000000-0000-4000-8000-00000000000{}"
    for number in (1, 2):
        await connection.execute(
            """INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
               SELECT %s::uuid, collection_id, 'secret_param', 'K', 'routine:' || id, 'k', '' FROM routines.routines""",
            [secret.format(number)],
        )
    refer = "UPDATE routines.routines SET secret_refs = jsonb_build_object('K', %s::text)"
    await follow(connection, "queue_one")
    await connection.execute(RUN_NOW)
    await connection.execute(refer, [secret.format(1)])
    await tick_at(connection, NINE)
    await connection.execute(refer, [secret.format(2)])
    kept = "SELECT count(*) FROM routines.secrets"
    assert await value(connection, kept) == 2
    await tick_at(connection, NINE + HOUR)
    assert await value(connection, kept) == 1
    [run] = await claimed(connection)
    await connection.execute("UPDATE routines.routines SET secret_refs = '{}'")
    assert await value(connection, kept) == 1
    await runs.write(connection, [Checkpoint(run.id, run.fence, status="completed")], lease_seconds=60)
    [waited] = await claimed(connection)
    await end(connection, waited)
    assert await value(connection, kept) == 0
