"""Slots that are tried again: reruns, backfills, retries, and the end after failed slots."""

from chaos.mutant import RUNS, SCHEMA, TICK, Edit, Mutant

MUTANTS = [
    Mutant(
        "a rerun is executed from its first step",
        (Edit(RUNS, "claimed.fence = 1 AND claimed.kept_steps IS NULL", "claimed.fence = 1", "claim"),),
        test="api/test_reruns.py::test_a_worker_executes_only_the_steps_that_are_not_kept",
        in_ci=True,
    ),
    Mutant(
        "of two reruns at once both are the newest attempt",
        (
            Edit(SCHEMA, "    FOR NO KEY UPDATE;", ";", "link_rerun"),
            Edit(SCHEMA, "IN ('run-now', 'rerun', 'backfill')", "IN ('run-now')"),
        ),
        test="concurrency/test_rerun_interleavings.py::test_of_two_reruns_of_a_slots_run_at_once_the_second_is_refused",
    ),
    Mutant(
        "two tickers expand a backfill at once",
        (
            Edit(SCHEMA, "end_reason IS NULL FOR UPDATE SKIP LOCKED", "end_reason IS NULL", "expand_backfill"),
            Edit(
                SCHEMA,
                "WHERE id = asked.routine_id FOR UPDATE SKIP LOCKED",
                "WHERE id = asked.routine_id",
                "expand_backfill",
            ),
        ),
        test="concurrency/test_backfill_interleavings.py::"
        "test_a_ticker_leaves_a_backfill_alone_that_another_one_expands",
    ),
    Mutant(
        "a backfill begins anew at each look",
        (Edit(SCHEMA, "asked.reached, most_slots, free)", "NULL, most_slots, free)", "expand_backfill"),),
        test="sql/test_backfills.py::test_each_slot_becomes_a_run_or_another_attempt_or_is_left[missing]",
    ),
    Mutant(
        "a backfill starts all its runs at once",
        (Edit(SCHEMA, "asked.reached, most_slots, free)", "asked.reached, most_slots, NULL)", "expand_backfill"),),
        test="sql/test_backfills.py::test_no_more_runs_are_active_than_asked",
    ),
    Mutant(
        "the end of a run that is retried locks no routine",
        (Edit(SCHEMA, "    FOR SHARE;", "    ;", "retry_run"),),
        test="concurrency/test_retry_interleavings.py::"
        "test_a_pause_or_a_deletion_waits_for_the_end_of_a_run_and_cancels_its_retry",
    ),
    Mutant(
        "every failure counts towards a pause, also one that is retried",
        (Edit(SCHEMA, "    IF retry IS NULL THEN", "    IF true THEN", "follow_failure"),),
        test="sql/test_breaker.py::test_a_slot_counts_once_its_retries_are_spent",
    ),
    Mutant(
        "a backoff counts no slots down",
        (Edit(TICK, "nullif(decided.backoff_left - 1, 0)", "decided.backoff_left", "tick"),),
        test="sql/test_breaker.py::test_a_backoff_skips_twice_as_many_slots_after_each_failed_try",
    ),
]
