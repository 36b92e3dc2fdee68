"""Ticks that lose slots, fire them twice or early, or do not say what became of them."""

from chaos.mutant import SCHEMA, TICK, Edit, Mutant

OWN_NOW = "routines.without_spread(routines, coalesce(%(now)s::timestamptz, now()))"
OWN_SLOT = "routines.without_spread(routines, next_run_at)"
NEXT_SLOT = f"routines.next_slot_of(routines, {OWN_NOW}) AS next_slot"
ADVANCE_FIRST = """
    if only is None and now is None:
        cursor = await connection.execute(
            '''WITH due AS (SELECT id, next_run_at FROM routines.routines WHERE next_run_at <= now()
                            ORDER BY next_run_at LIMIT %s FOR UPDATE SKIP LOCKED)
               UPDATE routines.routines AS r
               SET next_run_at = routines.next_fire(routines.cadence_of(r), now())
               FROM due WHERE r.id = due.id RETURNING r.id, due.next_run_at''', [batch_size])
        for routine_id, was in await cursor.fetchall():
            async with connection.transaction():
                await connection.execute(
                    "UPDATE routines.routines SET next_run_at = %s WHERE id = %s", [was, routine_id])
                await tick(connection, batch_size=1, hourly_catchup_seconds=hourly_catchup_seconds,
                           catchup_seconds=catchup_seconds, max_init_params_bytes=max_init_params_bytes,
                           only=[Due(routine_id, was)])
    some = None if only is None else list(only)
"""

MUTANTS = [
    Mutant(
        "the tick locks nothing",
        (Edit(TICK, "FOR UPDATE SKIP LOCKED", "", "tick"),),
        {"lost", "double", "unordered", "next_run_at", "paused", "overlap"},
        traffic={"burst": 40, "aim": 60, "pause": 30, "resume": 40},
    ),
    Mutant(
        "the tick waits for routines that another ticker has locked",
        (Edit(TICK, "FOR UPDATE SKIP LOCKED", "FOR UPDATE", "tick"),),
        test="concurrency/test_tick_interleavings.py::"
        "test_a_ticker_skips_routines_that_another_has_locked_and_claims_the_rest",
        in_ci=True,
    ),
    Mutant(
        "the schedule is advanced in a transaction before the fire's",
        (Edit("src/routines_core/db/tick.py", "\n    some = None if only is None else list(only)\n", ADVANCE_FIRST),),
        {"lost", "next_run_at"},
        faults={"terminate_backend": 3, "kill_ticker": 1},
        traffic={"burst": 40, "aim": 0, "pause": 0, "resume": 0, "delete": 0},
    ),
    Mutant(
        "no unique key on the slot",
        (Edit(SCHEMA, "CREATE UNIQUE INDEX trajectories_slot_key", "CREATE INDEX trajectories_slot_key"),),
        {"double"},
        traffic={"rewind": 100},
    ),
    Mutant(
        "the tick asks no calendar",
        (Edit(TICK, "CASE WHEN has_exclusions AND newest", "CASE WHEN false AND newest", "tick"),),
        {"excluded"},
    ),
    Mutant(
        "the tick asks calendars with its own snapshot",
        (Edit(SCHEMA, "LANGUAGE plpgsql VOLATILE", "LANGUAGE plpgsql STABLE", "judge"),),
        test="concurrency/test_tick_interleavings.py::"
        "test_a_tick_with_a_snapshot_older_than_a_calendar_asks_the_calendar",
    ),
    Mutant(
        "an overlap is skipped and not recorded",
        (
            Edit(
                TICK,
                "WHERE verdict IN ('overlap', 'failed_to_start', 'backoff')",
                "WHERE verdict = 'failed_to_start'",
                "tick",
            ),
        ),
        {"lost"},
    ),
    Mutant(
        "a fire that failed to start is not recorded",
        (
            Edit(
                TICK, "WHERE verdict IN ('overlap', 'failed_to_start', 'backoff')", "WHERE verdict = 'overlap'", "tick"
            ),
        ),
        {"lost"},
    ),
    Mutant(
        "three strikes pause nothing",
        (Edit("src/routines_core/db/tick.py", "MAX_STRIKES = 3", "MAX_STRIKES = 1000"),),
        {"paused"},
        traffic={"due": 300, "aim": 0, "pause": 0, "resume": 0, "delete": 0},
    ),
    Mutant(
        "missed slots are not recorded",
        (Edit(TICK, "OR first_slot < slot AND verdict <> 'settled'", "", "tick"),),
        {"lost"},
    ),
    Mutant(
        "the tick ignores which slots are settled",
        (
            Edit(
                TICK,
                f"CASE WHEN {OWN_SLOT} <= settled_until",
                "CASE WHEN false",
                "tick",
            ),
            Edit(TICK, "CASE WHEN slot <= settled_until THEN", "CASE WHEN false THEN", "tick"),
        ),
        {"double", "paused"},
        traffic={"again": 100},
    ),
    Mutant(
        "catch-up fires every missed slot",
        (
            Edit(TICK, f"greatest({OWN_SLOT}, ", f"least({OWN_SLOT}, ", "tick"),
            Edit(TICK, "WHEN coalesce(slot + spread_offset, slot) < in_time_since THEN", "WHEN false THEN", "tick"),
            Edit(TICK, NEXT_SLOT, f"routines.next_slot_of(routines, {OWN_SLOT}) AS next_slot", "tick"),
        ),
        {"catch-up"},
        in_ci=True,
    ),
    Mutant(
        "the next slot drifts by a second",
        (Edit(TICK, NEXT_SLOT, NEXT_SLOT.replace(" AS next_slot", " + interval '1 second' AS next_slot"), "tick"),),
        {"next_run_at"},
    ),
    Mutant(
        "the clock of the ticker's host decides what is due",
        (
            Edit(
                "src/routines_ticker/batches.py",
                "            fault=fault,\n",
                "            fault=fault,\n            now=__import__('datetime').datetime.now("
                "__import__('datetime').UTC),\n",
            ),
        ),
        {"early"},
        traffic={"aim": 60},
        in_ci=True,
    ),
    Mutant(
        "last_run_at is not updated",
        (
            Edit(
                TICK,
                "last_run_at = CASE WHEN verdict IN ('fire', 'take_over')",
                "last_run_at = CASE WHEN false",
                "tick",
            ),
        ),
        {"last_run_at"},
    ),
    Mutant(
        "a tick advances to the slot itself, whatever the spread",
        (
            Edit(
                TICK,
                "routines.with_spread(routines, coalesce((judgement).moved_to, decided.next_slot)),\n        moved_to",
                "coalesce((judgement).moved_to, decided.next_slot),\n        moved_to",
                "tick",
            ),
        ),
        {"next_run_at", "early"},
        traffic={"aim": 60},
    ),
]
