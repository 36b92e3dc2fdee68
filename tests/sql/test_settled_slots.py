"""Every slot has exactly one outcome, whatever a person does to the routine between the ticks."""

import random
from datetime import datetime, timedelta

import psycopg
import pytest

from routines_core.db import Connection
from routines_core.db.ledger import why
from routines_core.db.tick import tick
from support.rows import CATCHUP, at, ledger, make_key, make_routine, make_task, value

DUE = at("2026-05-04 09:00")


async def hourly_since(connection: Connection, hours: int) -> int:
    """Create an hourly routine whose next slot was this many hours before the current hour, and return its id."""
    routine = await make_routine(connection, await make_task(connection), DUE, hourly=True)
    await connection.execute(
        "UPDATE routines.routines SET next_run_at = date_trunc('hour', now()) - %s * interval '1 hour'", [hours]
    )
    return routine


async def finish_runs(connection: Connection) -> None:
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"
    )


async def reasons(connection: Connection, routine: int) -> list[tuple[object, ...]]:
    return [(count, reason) for _, count, _, reason in await ledger(connection, routine)]


async def test_slots_that_are_due_when_a_routine_is_paused_are_recorded(connection: Connection) -> None:
    routine = await hourly_since(connection, 2)
    await connection.execute("UPDATE routines.routines SET paused = true")
    assert await reasons(connection, routine) == [(3, "paused")]
    assert await value(connection, "SELECT detail FROM routines.skips") == "paused by hand before a ticker picked it up"


async def test_slots_that_fell_in_a_pause_become_one_span_when_it_ends(connection: Connection) -> None:
    routine = await hourly_since(connection, 0)
    await tick(connection, batch_size=10, **CATCHUP)
    await connection.execute(
        """UPDATE routines.routines SET paused = true, paused_at = settled_until - interval '3 hours 30 minutes',
                                        settled_until = settled_until - interval '4 hours'"""
    )
    assert await reasons(connection, routine) == [(1, None)]
    await connection.execute("UPDATE routines.routines SET paused = false")
    assert await reasons(connection, routine) == [(4, "paused"), (1, None)]
    detail = await value(connection, "SELECT detail FROM routines.skips")
    assert str(detail).startswith("paused by hand, since 20")


async def test_a_cadence_that_changes_in_a_pause_adds_no_slots_before_the_change(connection: Connection) -> None:
    routine = await hourly_since(connection, 0)
    await connection.execute("UPDATE routines.routines SET paused = true")
    await connection.execute(
        "UPDATE routines.routines SET paused_at = now() - interval '10 hours', settled_until = NULL"
    )
    await connection.execute("UPDATE routines.routines SET minute_utc = (minute_utc + 30) % 60")
    before = await ledger(connection, routine)
    await connection.execute("UPDATE routines.routines SET paused = false")
    assert await ledger(connection, routine) == before


async def test_slots_after_the_third_strike_become_a_span_with_the_reason_at_the_resumption(
    connection: Connection,
) -> None:
    routine = await make_routine(connection, await make_task(connection), DUE)
    for day in range(3):
        await tick(connection, batch_size=10, now=DUE + timedelta(days=day), fault="poison", **CATCHUP)
    await connection.execute("UPDATE routines.routines SET paused = false")
    assert (await ledger(connection, routine))[3][0] == DUE + timedelta(days=3)
    assert (await ledger(connection, routine))[3][3] == "paused"
    detail = await value(connection, "SELECT detail FROM routines.skips WHERE reason = 'paused'")
    assert detail == "paused after 3 fires in a row that failed to start; the last: poison, since 2026-05-06T09:00:00Z"


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ("UPDATE routines.routines SET minute_utc = 30", "the cadence was changed before a ticker picked it up"),
        ("DELETE FROM routines.routines", "the routine was deleted before a ticker picked it up"),
    ],
)
async def test_slots_that_are_due_when_the_cadence_changes_or_the_routine_is_deleted_are_missed(
    connection: Connection, change: str, detail: str
) -> None:
    routine = await hourly_since(connection, 2)
    await connection.execute(change.encode())
    assert await reasons(connection, routine) == [(3, "missed")]
    assert await value(connection, "SELECT detail FROM routines.skips") == detail


async def test_a_change_that_leaves_cadence_and_pause_alone_settles_nothing(connection: Connection) -> None:
    routine = await hourly_since(connection, 2)
    await connection.execute("UPDATE routines.routines SET paused = false, init_params_overrides = '{\"size\": 2}'")
    assert await ledger(connection, routine) == []
    assert await value(connection, "SELECT next_run_at <= now() FROM routines.routines") is True


async def test_after_the_clock_was_set_back_a_resumed_routine_waits_for_a_slot_without_outcome(
    connection: Connection,
) -> None:
    """The clock was set back by two days: the newest settled slot is two days ahead of it."""
    await hourly_since(connection, 0)
    await connection.execute(
        "UPDATE routines.routines SET settled_until = date_trunc('hour', now()) + interval '2 days'"
    )
    await connection.execute("UPDATE routines.routines SET minute_utc = 0, paused = true")
    await connection.execute("UPDATE routines.routines SET paused = false")
    ahead = await value(connection, "SELECT next_run_at - settled_until FROM routines.routines")
    assert ahead == timedelta(hours=1)


@pytest.mark.parametrize("time", ["infinity", "-infinity", "1969-12-31 23:59Z", "4714-11-24Z BC", "2200-01-01Z"])
@pytest.mark.parametrize("column", ["next_run_at", "settled_until", "created_at"])
async def test_a_time_outside_the_supported_range_is_refused(connection: Connection, column: str, time: str) -> None:
    await hourly_since(connection, 0)
    with pytest.raises(psycopg.errors.CheckViolation, match=f"routines_{column}_in_range"):
        await connection.execute(f"UPDATE routines.routines SET {column} = %s::timestamptz", [time])


async def test_next_run_at_set_back_over_settled_slots_gives_none_of_them_a_second_outcome(
    connection: Connection,
) -> None:
    routine = await make_routine(connection, await make_task(connection), DUE)
    await tick(connection, batch_size=10, now=DUE + timedelta(days=3), **CATCHUP)
    before = await ledger(connection, routine)
    await connection.execute("UPDATE routines.routines SET next_run_at = %s", [DUE + timedelta(days=1)])
    await tick(connection, batch_size=10, now=DUE + timedelta(days=3, hours=1), **CATCHUP)
    assert await ledger(connection, routine) == before
    await connection.execute("UPDATE routines.routines SET next_run_at = %s", [DUE])
    await tick(connection, batch_size=10, now=DUE + timedelta(days=5), **CATCHUP)
    assert (await ledger(connection, routine))[2:] == [
        (DUE + timedelta(days=4), 1, "skipped", "missed"),
        (DUE + timedelta(days=5), 1, "skipped", "overlap"),
    ]


async def test_slots_passed_over_by_a_manual_next_run_at_are_missed_and_say_so(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), DUE)
    await tick(connection, batch_size=10, now=DUE, **CATCHUP)
    await finish_runs(connection)
    await connection.execute("UPDATE routines.routines SET next_run_at = %s", [DUE + timedelta(days=4)])
    assert (await tick(connection, batch_size=10, now=DUE + timedelta(days=3, hours=23), **CATCHUP)).claimed == 0
    assert (await tick(connection, batch_size=10, now=DUE + timedelta(days=6), **CATCHUP)).fired == 1
    assert await ledger(connection, routine) == [
        (DUE, 1, "started", None),
        (DUE + timedelta(days=1), 3, "skipped", "missed"),
        (DUE + timedelta(days=4), 2, "skipped", "missed"),
        (DUE + timedelta(days=6), 1, "started", None),
    ]
    cursor = await connection.execute("SELECT detail FROM routines.skips ORDER BY scheduled_for")
    assert await cursor.fetchall() == [("next_run_at was set past it by hand, to 2026-05-08T09:00:00Z",), (None,)]


async def test_next_run_at_set_forward_and_back_again_passes_over_nothing(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), DUE)
    await tick(connection, batch_size=10, now=DUE, **CATCHUP)
    await finish_runs(connection)
    for days in (4, 1):
        await connection.execute("UPDATE routines.routines SET next_run_at = %s", [DUE + timedelta(days=days)])
    await tick(connection, batch_size=10, now=DUE + timedelta(days=1), **CATCHUP)
    assert await reasons(connection, routine) == [(1, None), (1, None)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE routines.routines SET paused = true", "paused"),
        ("UPDATE routines.routines SET minute_utc = 30", "missed"),
        ("DELETE FROM routines.routines", "missed"),
    ],
)
async def test_a_change_records_passed_over_slots_apart_from_due_ones(
    connection: Connection, change: str, reason: str
) -> None:
    routine = await hourly_since(connection, 1)
    await connection.execute("UPDATE routines.routines SET settled_until = next_run_at - interval '4 hours'")
    await connection.execute(change.encode())
    assert await reasons(connection, routine) == [(3, "missed"), (2, reason)]
    detail = await value(connection, "SELECT detail FROM routines.skips ORDER BY scheduled_for LIMIT 1")
    assert str(detail).startswith("next_run_at was set past it by hand")


async def test_a_change_records_only_passed_over_slots_before_now(connection: Connection) -> None:
    routine = await hourly_since(connection, -5)
    await connection.execute("UPDATE routines.routines SET settled_until = next_run_at - interval '7 hours'")
    await connection.execute("UPDATE routines.routines SET paused = true")
    assert await reasons(connection, routine) == [(2, "missed")]


async def test_a_new_cadence_passes_over_no_slots_before_the_change(connection: Connection) -> None:
    routine = await hourly_since(connection, 0)
    await tick(connection, batch_size=10, **CATCHUP)
    await finish_runs(connection)
    await connection.execute(
        """UPDATE routines.routines SET settled_until = settled_until - interval '2 hours',
                                        next_run_at = next_run_at - interval '2 hours'"""
    )
    await connection.execute("UPDATE routines.routines SET minute_utc = 1 + extract(minute FROM now())::int % 59")
    before = await ledger(connection, routine)
    coming = await value(connection, "SELECT next_run_at FROM routines.routines")
    assert isinstance(coming, datetime)
    await tick(connection, batch_size=10, now=coming, **CATCHUP)
    assert await ledger(connection, routine) == [*before, (coming, 1, "started", None)]


@pytest.mark.parametrize("seed", range(12))
async def test_every_slot_is_in_exactly_one_row_however_ticks_faults_ends_and_changes_follow_one_another(
    connection: Connection, seed: int
) -> None:
    """An oracle that knows only the cadence walks the slots; the rows must cover each once, and nothing else.

    `why` must tell each slot from the times between slots, and know which one is next.
    """
    chance = random.Random(seed)
    kind, step = chance.choice([("hourly", timedelta(hours=1)), ("daily", timedelta(days=1))])
    start = at("2026-05-04 09:00")
    routine = await make_routine(connection, await make_task(connection), start, hourly=kind == "hourly")
    now = start - timedelta(minutes=1)
    await connection.execute(
        "UPDATE routines.routines SET created_at = %s, catchup_window_seconds = %s",
        [now, chance.choice([None, 0, 7200])],
    )
    for _ in range(40):
        now += step * chance.choice([0, 0.3, 1, 1, 1, 2.5, 9])
        if chance.random() < 0.4:
            await finish_runs(connection)
        if chance.random() < 0.2:
            back = start + step * chance.randrange(30)
            await connection.execute(
                "UPDATE routines.routines SET next_run_at = %s WHERE settled_until >= %s", [back, back]
            )
        if chance.random() < 0.2:
            forward = start + step * ((now - start) // step + chance.randrange(12))
            await connection.execute(
                "UPDATE routines.routines SET next_run_at = %s WHERE next_run_at < %s", [forward, forward]
            )
        await tick(connection, batch_size=1, now=now, fault="poison" if chance.random() < 0.1 else None, **CATCHUP)
    cursor = await connection.execute(
        "SELECT scheduled_for, last_scheduled_for, slot_count FROM routines.occurrences WHERE routine_id = %s",
        [routine],
    )
    covered = [
        first + step * n
        for first, last, count in await cursor.fetchall()
        for n in range(round((last - first) / step) + 1)
        if (count == round((last - first) / step) + 1) or pytest.fail("slot_count does not match the span")
    ]
    settled = await value(connection, "SELECT settled_until FROM routines.routines")
    expected = [start + step * n for n in range(round((settled - start) / step) + 1)]  # type: ignore[operator]
    assert sorted(covered) == expected
    assert len(expected) > 20
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    for slot in chance.sample(expected[:-1], 10):
        for asked_at, is_slot in ((slot, True), (slot + step * chance.uniform(0.01, 0.99), False)):
            facts = await why(connection, key_id=key_id, routine_id=routine, at=asked_at, now=now)
            assert (facts.slot_count is not None, facts.next_slot) == (is_slot, slot + step)


async def test_after_a_million_advances_a_slot_is_still_on_its_grid(connection: Connection) -> None:
    """A century of hours: each advance is computed from some time within the hour before."""
    drifted = await value(
        connection,
        """SELECT count(*) FROM generate_series(1, 1000000) n, LATERAL (
               SELECT routines.cadence_from_json('{"type": "hourly", "minute_utc": 17}') AS cadence,
                      '2026-01-01 00:17Z'::timestamptz + n * interval '1 hour' AS slot,
                      (mod(n::bigint * 7919, 3600) + 1) * interval '0.999 second' AS early) AS grid
           WHERE routines.next_fire(cadence, slot - early) <> slot""",
    )
    assert drifted == 0
