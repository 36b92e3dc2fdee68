"""Claims, leases, fences and checkpoints of workers."""

from chaos.mutant import RUNS, SCHEMA, Edit, Mutant

MUTANTS = [
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
        "a run is taken from a worker whose lease has not expired",
        (Edit(RUNS, "lease_expires_at <= now()", "lease_expires_at <= now() + interval '1 hour'", "reap"),),
        {"lease"},
        faults=None,
    ),
    Mutant(
        "leases follow a host's clock that is 40 s ahead",
        (Edit(RUNS, "lease_expires_at = now() +", "lease_expires_at = now() + interval '40 seconds' +", "claim"),),
        {"lease"},
        faults=None,
    ),
    Mutant(
        "a worker that cannot renew its lease continues",
        (Edit("src/routines_engine/runs/worker.py", "TRUST_SHARE = 0.8", "TRUST_SHARE = 1.5"),),
        test="chaos/test_silent_connections.py::test_a_silenced_worker_stops_its_steps_before_its_lease_expires_and_the_run_ends_elsewhere",
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
        "a run completes without its last step",
        (Edit("src/routines_engine/steps/flow.py", "enumerate(self._steps)", "enumerate(self._steps[:-1])"),),
        {"final"},
    ),
    Mutant(
        "a run that ends leaves its children running",
        (Edit(SCHEMA, "WHERE parent_id = NEW.id AND status IN ('pending', 'running')", "WHERE false", "follow_end"),),
        test="engine/test_services.py::"
        "test_taking_a_run_away_ends_its_children_and_theirs_and_leaves_no_step_running[failed]",
    ),
]
