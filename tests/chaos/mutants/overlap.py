"""Schedules that do not mind the runs that are active, and runs that wait for their place."""

from chaos.mutant import RUNS, SCHEMA, TICK, Edit, Mutant

MUTANTS = [
    Mutant(
        "scheduled runs do not hold back the schedule",
        (
            Edit(
                SCHEMA,
                "CREATE UNIQUE INDEX trajectories_active_schedule_key",
                "CREATE INDEX trajectories_active_schedule_key",
            ),
            Edit(SCHEMA, "WHERE trigger = 'schedule' AND", "WHERE false AND", "active_runs"),
        ),
        {"overlap"},
    ),
    Mutant(
        "run-now runs do not hold back the schedule",
        (
            Edit(SCHEMA, "WHERE (trigger <> 'schedule' OR place IS NOT NULL) AND", "WHERE false AND", "active_runs"),
            Edit(SCHEMA, "    IF FOUND THEN", "    IF false THEN", "refuse_overlap"),
        ),
        {"overlap"},
        traffic={"run_now": 80},
    ),
    Mutant(
        "retries do not hold back the schedule",
        (
            Edit(
                SCHEMA,
                "WHERE (trigger <> 'schedule' OR place IS NOT NULL) AND",
                "WHERE trigger = 'run-now' AND",
                "active_runs",
            ),
        ),
        test="concurrency/test_retry_interleavings.py::test_a_tick_never_sees_the_routine_between_a_run_and_its_retry",
    ),
    Mutant(
        "the tick overlooks run-now runs, and the database refuses the fire",
        (Edit(SCHEMA, "WHERE (trigger <> 'schedule' OR place IS NOT NULL) AND", "WHERE false AND", "active_runs"),),
        {"skip", "paused"},
        traffic={"run_now": 80},
    ),
    Mutant(
        "the tick reads active runs with its own snapshot",
        (Edit(SCHEMA, "LANGUAGE sql VOLATILE", "LANGUAGE sql STABLE", "active_runs"),),
        test="concurrency/test_tick_interleavings.py::test_a_tick_sees_a_run_now_run_committed_after_its_snapshot",
    ),
    Mutant(
        "an overlap names a run that did not block it",
        (Edit(TICK, "WHEN 'overlap' THEN blocked_by END", "WHEN 'overlap' THEN blocked_by - 1 END", "tick"),),
        {"skip"},
    ),
    Mutant(
        "more runs than may be are active at once",
        (
            Edit(SCHEMA, "cardinality(active) >= max_concurrent", "cardinality(active) > max_concurrent", "find_room"),
            Edit(SCHEMA, "generate_series(1, max_concurrent)", "generate_series(1, max_concurrent + 1)", "find_room"),
        ),
        test="ticker/test_overlap.py::test_allow_starts_runs_until_as_many_are_active_as_may_be",
    ),
    Mutant(
        "a later slot takes a waiting run over, and the slot that it had is on no record",
        (
            Edit(
                SCHEMA,
                "    INSERT INTO routines.skips (",
                "    IF false THEN INSERT INTO routines.skips (",
                "take_over_waiting_run",
            ),
            Edit(
                SCHEMA,
                "    UPDATE routines.trajectories",
                "    END IF; UPDATE routines.trajectories",
                "take_over_waiting_run",
            ),
        ),
        test="ticker/test_overlap.py::test_one_run_waits_and_a_later_slot_takes_it_over_with_all_that_the_routine_is_now[queue_one]",
    ),
    Mutant(
        "a run that waits begins beside another",
        (
            Edit(
                SCHEMA,
                "WHERE place IS DISTINCT FROM 0) >= most",
                "WHERE place IS DISTINCT FROM 0) < 0",
                "admit_waiting_run",
            ),
        ),
        test="ticker/test_overlap.py::test_a_waiting_run_waits_for_run_now_runs_and_retries_too",
    ),
    Mutant(
        "the end of a run waits for a tick that has its routine",
        (Edit(SCHEMA, "FOR UPDATE SKIP LOCKED;", "FOR UPDATE;", "admit_waiting_run"),),
        test="concurrency/test_overlap_interleavings.py::"
        "test_an_end_does_not_wait_for_a_tick_that_has_locked_the_routine",
    ),
    Mutant(
        "a tick waits for a person who cancels the waiting run",
        (Edit(SCHEMA, "AND place = 0 FOR UPDATE SKIP LOCKED)", "AND place = 0 FOR UPDATE)", "find_room"),),
        test="concurrency/test_overlap_interleavings.py::"
        "test_a_tick_does_not_wait_for_a_person_who_cancels_the_waiting_run[True]",
    ),
    Mutant(
        "a run that nobody stops is never fenced off",
        (Edit(RUNS, "OR waiting.created_at <= now() - routines.cancel_grace()", "OR false", "fence_off"),),
        test="ticker/test_overlap.py::"
        "test_runs_that_nobody_will_stop_are_fenced_off_at_once_and_others_after_the_grace",
    ),
]
