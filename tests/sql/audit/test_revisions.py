"""Revisions say what a routine was, and with which of them each run was fired."""

import random
from datetime import timedelta

import pytest

from routines_core.db import Connection
from routines_core.db.routines import run_now
from support.auditing import DUE, FIRST, SECOND, SECRET, change
from support.rows import Database, make_key, value
from support.stepping import closed_gate, running, session, tick_at, tick_that_stops_before_its_locks, until_blocked

UPDATES = {
    "name = '{}'": ["morning", "evening"],
    "cadence_type = 'daily', hour_utc = {}, every_minutes = NULL, anchor = NULL": ["9", "10"],
    "cadence_type = 'interval', hour_utc = NULL, every_minutes = {}": ["60", "90"],
    "init_params_overrides = '{}'": ["{}", '{"size": null}', '{"size": [1, {"a": null}]}'],
    "secret_refs = '{}'": ["{}", f'{{"A": "{FIRST}"}}', f'{{"A": "{SECOND}", "B": "{FIRST}"}}'],
    "webhook_secret_id = {}": ["NULL", f"'{FIRST}'", f"'{SECOND}'"],
    "webhook_url = {}": ["NULL", "'https://a.test'", "'https://b.test'"],
    "paused = {}": ["true", "false"],
    "paused = true, paused_until = '2126-05-04 09:00Z', paused_note = '{}'": ["a note", "another"],
    "retry = {}": ["NULL", """'{"max_attempts": 3, "until": 60}'"""],
    "starts_at = {}": ["NULL", "'2026-01-01Z'", "'2026-01-02 00:00:00.25Z'"],
    "after_failures = {}": ["NULL", "'pause'", "'backoff'"],
    "catchup_window_seconds = {}": ["NULL", "0", "60"],
}
"""Values for a change of a routine."""


@pytest.mark.parametrize("seed", range(5))
async def test_the_revisions_replay_to_what_the_routine_was(connection: Connection, routine: int, seed: int) -> None:
    draw = random.Random(seed)
    for secret in (FIRST, SECOND):
        await connection.execute(SECRET.encode(), [secret])
    # Secrets that no routine refers to are deleted; others hold these two.
    await connection.execute("ALTER TABLE routines.routines DISABLE TRIGGER forget_replaced_secrets")
    spec = "SELECT routines.spec_of(routines) FROM routines.routines"
    states = [await value(connection, spec)]
    for _ in range(40):
        zone = draw.choice(["UTC", "Asia/Tokyo"])
        await connection.execute(f"SET TimeZone = '{zone}'".encode())
        columns = draw.choice(list(UPDATES))
        await connection.execute(
            f"UPDATE routines.routines SET {columns.replace('{}', draw.choice(UPDATES[columns]))}".encode()
        )
        revision = await value(connection, "SELECT max(revision) FROM routines.audit WHERE kind = 'routine'")
        state = await value(connection, spec)
        if revision == len(states) + 1:
            states.append(state)
        else:  # nothing was changed, or it would have left an entry
            assert (revision, state) == (len(states), states[-1])
    assert len(states) > 10
    replayed = [await value(connection, "SELECT routines.spec_at(%s, %s)", routine, n + 1) for n in range(len(states))]
    assert replayed == states


async def revisions(connection: Connection) -> list[object]:
    """Return the revision that each run was fired with, oldest run first."""
    found = await connection.execute("SELECT routines.revision_of_run(id) FROM routines.trajectories ORDER BY id")
    return [revision for (revision,) in await found.fetchall()]


async def test_a_run_has_the_revision_that_it_was_fired_with(connection: Connection, routine: int) -> None:
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    await tick_at(connection, DUE)
    for hour in (10, 11):
        await change(connection, hour)
    await run_now(connection, key_id=key_id, task="echo", name="morning")
    await run_now(connection, key_id=key_id, task="echo", name="morning")
    await change(connection, 12)
    await connection.execute("UPDATE routines.trajectories SET status = 'cancelled', ended_at = now()")
    await tick_at(connection, DUE + timedelta(days=1))
    assert await revisions(connection) == [1, 3, 3, 4]
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
           VALUES (1, 1, 1, 'api', '{}')"""
    )
    assert (await revisions(connection))[-1] is None
    del routine


async def test_a_waiting_run_has_the_revision_of_the_slot_that_took_it_over(
    connection: Connection, routine: int
) -> None:
    await connection.execute("UPDATE routines.routines SET overlap_policy = 'queue_one'")
    for day in range(2):
        await tick_at(connection, DUE + timedelta(days=day))
    assert await revisions(connection) == [2, 2]
    await change(connection, 10)
    assert (await tick_at(connection, DUE + timedelta(days=2))).coalesced == 1
    await change(connection, 11)
    assert await revisions(connection) == [2, 3]
    del routine


async def test_a_change_that_waits_for_a_fire_comes_after_it(
    connection: Connection, database: Database, routine: int
) -> None:
    del routine
    async with session(database, "changer") as changer, session(database, "ticker") as ticker:
        await changer.execute("BEGIN")
        await changer.execute("SELECT now()")  # the change begins before the fire
        await ticker.execute("BEGIN")
        await tick_at(ticker, DUE)
        async with running(lambda: change(changer, 10)) as changing:
            await until_blocked(connection, changer)
            await ticker.execute("COMMIT")
            await changing
        await changer.execute("COMMIT")
    assert await revisions(connection) == [1]


async def test_a_fire_that_begins_before_a_change_and_locks_after_it_has_its_revision(
    connection: Connection, database: Database, routine: int
) -> None:
    del routine
    async with (
        closed_gate(database) as gate,
        session(database, "ticker") as ticker,
        running(lambda: tick_that_stops_before_its_locks(ticker, DUE)) as ticking,
    ):
        await until_blocked(connection, ticker)
        await change(connection, 10)
        await gate.open()
        assert (await ticking).fired == 1
    assert await revisions(connection) == [2]
    assert await value(connection, "SELECT init_params ->> 'size' FROM routines.trajectories") == "10"
