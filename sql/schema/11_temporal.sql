-- Runs that Temporal executes, where it is the engine. Why this design: docs/decisions/0016. Statements: queries/dispatches.sql.

-- No triggers. What is still to be settled between the two: only as many rows as Temporal currently has runs. The
-- trigger follow_end of trajectories deletes the row of a run that Temporal itself ended.
CREATE TABLE routines.dispatches (
    trajectory_id bigint CONSTRAINT dispatches_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    workflow_id   text NOT NULL,
    generation    integer NOT NULL,
    fence         integer NOT NULL,
    sequence      integer NOT NULL DEFAULT 0,
    attempt       integer NOT NULL DEFAULT 0,
    holder        text NOT NULL DEFAULT '',
    is_left       boolean NOT NULL DEFAULT true,
    waits         boolean NOT NULL DEFAULT false,
    dispatched_at timestamptz NOT NULL DEFAULT now(),
    submitted_at  timestamptz,
    checked_at    timestamptz NOT NULL DEFAULT now(),
    told_at       timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
COMMENT ON TABLE  routines.dispatches IS
    'Runs dispatched to Temporal: written with the claim, before Temporal is called, and deleted once both sides know the end.';
COMMENT ON COLUMN routines.dispatches.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.dispatches.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.dispatches.workflow_id IS 'Its id in Temporal, which accepts each id once: its workflow_id and run_id.';
COMMENT ON COLUMN routines.dispatches.generation IS
    'The run''s fence at the dispatch. It tells this dispatch from an earlier one of the same run that may still act in Temporal.';
COMMENT ON COLUMN routines.dispatches.fence IS
    'The fence of the current holder. If the trajectory''s fence differs, the run was taken from Temporal.';
COMMENT ON COLUMN routines.dispatches.sequence IS 'The activity of the workflow that has the run, counted from 1; 0 before the first.';
COMMENT ON COLUMN routines.dispatches.attempt IS 'The attempt of that activity, as Temporal counts.';
COMMENT ON COLUMN routines.dispatches.holder IS
    'Random, new for each claim of the run, so that a claim that was sent twice is known as one.';
COMMENT ON COLUMN routines.dispatches.is_left IS
    'True if the holder released the run cleanly, as at a shutdown or before a wait: the next one does not count as a crash.';
COMMENT ON COLUMN routines.dispatches.waits IS 'True while its step waits for children, during which it counts towards no limit.';
COMMENT ON COLUMN routines.dispatches.dispatched_at IS 'When it was claimed for Temporal.';
COMMENT ON COLUMN routines.dispatches.submitted_at IS 'When Temporal confirmed that it has the run; null if it has not confirmed it.';
COMMENT ON COLUMN routines.dispatches.checked_at IS 'When Temporal was last asked for its state.';
COMMENT ON COLUMN routines.dispatches.told_at IS
    'When Temporal was last told that the run was taken from it; null if it was not told or need not be.';
SELECT routines.protect('routines.dispatches');
