"""Define copies of the product with one thing broken in each, and the run that must catch each of them.

An edit fails if its text is not found, so no mutant can silently turn into the intact product.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from routines_core.db.statements import sql_dir

ROOT = sql_dir().parent
TICK, RUNS, SCHEMA = "sql/queries/tick.sql", "sql/queries/runs.sql", "sql/migrations/20261129T090000_schema.sql"
OWN_NOW = "routines.without_spread(routines, coalesce(%(now)s::timestamptz, now()))"
OWN_SLOT = "routines.without_spread(routines, next_run_at)"
NEXT_SLOT = f"routines.next_slot_of(routines, {OWN_NOW}) AS next_slot"
STALE = "chaos/test_stale_snapshots.py::"


@dataclass(frozen=True)
class Edit:
    """Replaces `old` with `new`, once; `statement` limits the search to this statement or function of the schema."""

    file: str
    old: str
    new: str
    statement: str = ""

    def apply(self, source: Path) -> None:
        """Edit this source tree.

        Raises:
            LookupError: The text was not found.
        """
        path = source / self.file
        before, mark, rest = "", "", path.read_text("utf-8")
        end, after = "", ""
        if self.statement:
            start, stop = (
                (f"CREATE FUNCTION routines.{self.statement}(", "\nCOMMENT ON FUNCTION ")
                if self.file == SCHEMA
                else (f"-- name: {self.statement}\n", "\n-- name: ")
            )
            before, mark, rest = rest.partition(start)
            rest, end, after = rest.partition(stop)
        if self.old not in rest:
            raise LookupError(f"{self.file} {self.statement} no longer holds: {self.old!r}")
        path.write_text("".join([before, mark, rest.replace(self.old, self.new, 1), end, after]), "utf-8")


@dataclass(frozen=True)
class Mutant:
    """A broken product.

    Attributes:
        name: What is broken.
        edits: How it is broken.
        caught_by: The invariants that it breaks. At least one must be seen; chance decides which comes first.
        faults: The faults of its run; empty for traffic only; None to run late_writer.py, step by step, instead.
        traffic: The orders that its run sends more often.
        in_ci: Whether it is one of the few that every test run tries: those that a busy machine catches too.
        test: A test below tests/ that must fail, instead of a chaos run.
    """

    name: str
    edits: tuple[Edit, ...]
    caught_by: set[str] = field(default_factory=set[str])
    faults: dict[str, int] | None = field(default_factory=dict[str, int])
    traffic: dict[str, float] = field(default_factory=dict[str, float])
    in_ci: bool = False
    test: str = ""

    def source(self, directory: Path) -> Path:
        """Return a copy of the product with the edits made."""
        for top in ("src", "sql"):
            shutil.copytree(ROOT / top, directory / top, ignore=shutil.ignore_patterns("__pycache__"))
        for edit in self.edits:
            edit.apply(directory)
        return directory


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
        "the tick overlooks run-now runs, and the database refuses the fire",
        (Edit(SCHEMA, "WHERE (trigger <> 'schedule' OR place IS NOT NULL) AND", "WHERE false AND", "active_runs"),),
        {"skip", "paused"},
        traffic={"run_now": 80},
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
        "more runs than may be are active at once",
        (
            Edit(SCHEMA, "cardinality(active) >= max_concurrent", "cardinality(active) > max_concurrent", "find_room"),
            Edit(SCHEMA, "generate_series(1, max_concurrent)", "generate_series(1, max_concurrent + 1)", "find_room"),
        ),
        test="ticker/test_overlap.py::test_allow_starts_runs_until_as_many_are_active_as_may_be",
    ),
    Mutant(
        "a run that nobody stops is never fenced off",
        (Edit(RUNS, "OR waiting.created_at <= now() - routines.cancel_grace()", "OR false", "fence_off"),),
        test="ticker/test_overlap.py::"
        "test_runs_that_nobody_will_stop_are_fenced_off_at_once_and_others_after_the_grace",
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
    Mutant(
        "the tick reads active runs with its own snapshot",
        (Edit(SCHEMA, "LANGUAGE sql VOLATILE", "LANGUAGE sql STABLE", "active_runs"),),
        test="concurrency/test_tick_interleavings.py::test_a_tick_sees_a_run_now_run_committed_after_its_snapshot",
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
        "a worker that cannot renew its lease continues",
        (Edit("src/routines_engine/runs/worker.py", "TRUST_SHARE = 0.8", "TRUST_SHARE = 1.5"),),
        test="chaos/test_silent_connections.py::test_a_silenced_worker_stops_its_steps_before_its_lease_expires_and_the_run_ends_elsewhere",
    ),
    Mutant(
        "claims do not continue where the last one ended",
        (Edit(RUNS, "%(after)s::bigint", "0::bigint", "claim"),),
        test="engine/test_claim.py::test_a_worker_with_capacity_for_one_run_serves_the_collections_in_turn",
        in_ci=True,
    ),
    Mutant(
        "two claims may count the runs against a limit at the same time",
        (
            Edit(
                SCHEMA,
                "WHERE id = of_id FOR NO KEY UPDATE SKIP LOCKED",
                "WHERE id = of_id",
                "free_capacity_of_collection",
            ),
            Edit(SCHEMA, "WHERE id = of_id FOR NO KEY UPDATE SKIP LOCKED", "WHERE id = of_id", "free_capacity_of_task"),
        ),
        test="engine/test_claim.py::test_workers_that_claim_at_once_do_not_exceed_a_limit_together",
    ),
    Mutant(
        "a run that ends leaves its children running",
        (Edit(SCHEMA, "WHERE parent_id = NEW.id AND status IN ('pending', 'running')", "WHERE false", "follow_end"),),
        test="engine/test_services.py::"
        "test_taking_a_run_away_ends_its_children_and_theirs_and_leaves_no_step_running[failed]",
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
        "slots that were due when a person paused, changed or deleted the routine get no outcome",
        (Edit(SCHEMA, "IF first_slot <= clock THEN", "IF false THEN", "settle_slots"),),
        {"lost"},
        traffic={"burst": 20, "pause": 40, "resume": 40},
    ),
    Mutant(
        "slots that were due when a person deleted the routine get no outcome",
        (
            Edit(
                SCHEMA,
                "IF first_slot <= clock THEN",
                "IF first_slot <= clock AND TG_OP = 'UPDATE' THEN",
                "settle_slots",
            ),
        ),
        {"lost"},
        traffic={"burst": 20, "delete": 60},
    ),
    Mutant(
        "slots that were due when a person paused the routine count as missed",
        (Edit(SCHEMA, "CASE WHEN is_paused THEN 'paused' ELSE 'missed' END", "'missed'", "settle_slots"),),
        {"skip"},
        traffic={"burst": 20, "pause": 40, "resume": 40},
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
        "slots that a person set next_run_at past get no outcome",
        (Edit(TICK, "FROM late WHERE first_passed < first_slot", "FROM late WHERE false", "tick"),),
        {"lost"},
        traffic={"due": 300, "aim": 0, "pause": 0, "resume": 0, "delete": 0},
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
        "finished steps are forgotten",
        (
            Edit(
                RUNS, "status = 'completed')::text END AS finished_steps", "false)::text END AS finished_steps", "load"
            ),
        ),
        {"repeated"},
        faults={"stop_worker": 2, "kill_worker": 1},
    ),
    Mutant(
        "checkpoints and the end of a run ignore the fence",
        (Edit(RUNS, "AND trajectories.fence = given.fence", "", "checkpoint"),),
        {"fence"},
        faults=None,
        in_ci=True,
    ),
    Mutant(
        "renewals ignore the fence",
        (
            Edit(
                RUNS,
                "AND trajectories.fence = claimed.fence\n    WHERE status = 'running'\n    FOR NO KEY UPDATE",
                "WHERE status = 'running'\n    FOR NO KEY UPDATE",
                "renew",
            ),
        ),
        {"fence"},
        faults=None,
    ),
    Mutant(
        "the reaper does not raise the fence",
        (Edit(RUNS, "SET fence = fence + 1", "SET fence = fence + 0", "reap"),),
        {"fence"},
        faults=None,
        in_ci=True,
    ),
    Mutant(
        "the reaper counts no crash",
        (
            Edit(
                RUNS,
                "crashes = crashes + CASE WHEN deadline_at <= now() OR worker IS NULL THEN 0 ELSE 1 END",
                "crashes = crashes + 0",
                "reap",
            ),
        ),
        {"crashes"},
        faults=None,
    ),
    Mutant(
        "leases follow a host's clock that is 40 s ahead",
        (Edit(RUNS, "lease_expires_at = now() +", "lease_expires_at = now() + interval '40 seconds' +", "claim"),),
        {"lease"},
        faults=None,
    ),
    Mutant(
        "a run is taken from a worker whose lease has not expired",
        (Edit(RUNS, "lease_expires_at <= now()", "lease_expires_at <= now() + interval '1 hour'", "reap"),),
        {"lease"},
        faults=None,
    ),
    Mutant(
        "an overlap names a run that did not block it",
        (Edit(TICK, "WHEN 'overlap' THEN blocked_by END", "WHEN 'overlap' THEN blocked_by - 1 END", "tick"),),
        {"skip"},
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
        "resuming makes up for the pause",
        (
            Edit(
                SCHEMA,
                "ELSE least(routines.next_slot_of(NEW, routines.without_spread(NEW, now())),",
                "ELSE least(routines.next_slot_of(NEW, now() - interval '3 hours'),",
                "keep_next_run_at",
            ),
            Edit(
                SCHEMA,
                "IF routines.without_spread(NEW, NEW.next_run_at) <= NEW.settled_until THEN",
                "IF false THEN",
                "settle_slots",
            ),
        ),
        {"next_run_at", "unordered"},
        traffic={"pause": 20, "resume": 30},
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
    Mutant(
        "a spread is turned off while the slot waits, and the slot is passed over",
        (
            Edit(
                SCHEMA,
                "routines.with_spread(NEW, routines.without_spread(OLD, OLD.next_run_at))",
                "routines.with_spread(NEW, routines.next_slot_of(NEW, now()))",
                "keep_next_run_at",
            ),
        ),
        test="sql/test_spread.py::"
        "test_a_changed_spread_moves_the_slot_that_waits_and_loses_or_repeats_none[None-became0]",
        in_ci=True,
    ),
    Mutant(
        "slots in a pause with an end get no outcome",
        (Edit(SCHEMA, "IF first_slot <= last_slot THEN", "IF false THEN", "settle_slots"),),
        {"lost"},
        traffic={"rest": 100},
    ),
    Mutant(
        "pauses end two seconds early",
        (
            Edit(TICK, "AND paused_until <= now()", "AND paused_until <= now() + interval '2 seconds'", "resume"),
            Edit(TICK, "paused_until <= now() AND", "paused_until <= now() + interval '2 seconds' AND", "ended_pauses"),
            Edit(TICK, "min(paused_until)", "min(paused_until) - interval '2 seconds'", "seconds_until_due"),
        ),
        {"early", "paused", "skip", "next_run_at", "lost"},
        traffic={"rest": 100},
    ),
    Mutant(
        "a run completes without its last step",
        (Edit("src/routines_engine/steps/flow.py", "enumerate(self._steps)", "enumerate(self._steps[:-1])"),),
        {"final"},
    ),
    Mutant(
        "how a slot ended is not noted for alert rules",
        (Edit(SCHEMA, "PERFORM routines.note_end(NEW);", "NULL;", "follow_end"),),
        {"alert"},
    ),
    Mutant(
        "an alert is told, and its notice is not noted",
        (Edit(SCHEMA, "WHERE id = ANY (alert_ids);", "WHERE id = ANY (alert_ids) AND false;", "note_notice"),),
        test="sql/alerts/test_alerts.py::test_it_opens_one_alert_with_one_notice_however_often_it_is_judged[failed]",
        in_ci=True,
    ),
]
