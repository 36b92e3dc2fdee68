-- The ledger: every slot has exactly one outcome, a trajectory or a skip.

-- No foreign keys: history outlives the routine.
CREATE TABLE routines.skips (
    id                     bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT skips_pkey PRIMARY KEY,
    collection_id          bigint NOT NULL,
    routine_id             bigint NOT NULL,
    scheduled_for          timestamptz NOT NULL,
    last_scheduled_for     timestamptz NOT NULL,
    slot_count             bigint NOT NULL DEFAULT 1 CONSTRAINT skips_slot_count_is_positive CHECK (slot_count > 0),
    reason                 text NOT NULL CONSTRAINT skips_reason_is_known
                           CHECK (reason IN ('overlap', 'missed', 'paused', 'failed_to_start')),
    blocking_trajectory_id bigint,
    detail                 text,
    recorded_at            timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT skips_span_is_ordered CHECK (last_scheduled_for >= scheduled_for),
    CONSTRAINT skips_overlap_names_run CHECK (reason = 'overlap' OR blocking_trajectory_id IS NULL),
    CONSTRAINT skips_slot_key UNIQUE (routine_id, scheduled_for)
);
COMMENT ON TABLE  routines.skips IS 'A slot, or a span of slots, that did not start a run, and why.';
COMMENT ON COLUMN routines.skips.id IS 'Database id.';
COMMENT ON COLUMN routines.skips.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.skips.routine_id IS 'The routine, which may be gone by now.';
COMMENT ON COLUMN routines.skips.scheduled_for IS 'The slot; of a span, its first.';
COMMENT ON COLUMN routines.skips.last_scheduled_for IS 'The same slot; of a span, its last.';
COMMENT ON COLUMN routines.skips.slot_count IS 'How many slots this row accounts for.';
COMMENT ON COLUMN routines.skips.reason IS 'overlap: a run was active. missed: no ticker ran, or it came after the catch-up window. paused: three strikes. failed_to_start: the fire raised.';
COMMENT ON COLUMN routines.skips.blocking_trajectory_id IS 'The run that was active, for overlap.';
COMMENT ON COLUMN routines.skips.detail IS 'The cause, for failed_to_start.';
COMMENT ON COLUMN routines.skips.recorded_at IS 'When the tick decided.';

CREATE VIEW routines.occurrences AS
    SELECT triggered_by_routine_id AS routine_id, collection_id, scheduled_for, scheduled_for AS last_scheduled_for,
           1::bigint AS slot_count, 'started' AS outcome, NULL::text AS reason, id AS trajectory_id,
           NULL::bigint AS blocking_trajectory_id, NULL::text AS detail, created_at AS recorded_at,
           created_at - scheduled_for AS delay
    FROM routines.trajectories WHERE scheduled_for IS NOT NULL
    UNION ALL
    SELECT routine_id, collection_id, scheduled_for, last_scheduled_for, slot_count, 'skipped', reason, NULL,
           blocking_trajectory_id, detail, recorded_at, recorded_at - last_scheduled_for
    FROM routines.skips;
COMMENT ON VIEW routines.occurrences IS
    'The ledger: what became of each slot. SELECT * FROM routines.occurrences WHERE routine_id = 1 ORDER BY scheduled_for DESC;';
COMMENT ON COLUMN routines.occurrences.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.occurrences.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.occurrences.scheduled_for IS 'The slot; of a span, its first.';
COMMENT ON COLUMN routines.occurrences.last_scheduled_for IS 'The same slot; of a span, its last.';
COMMENT ON COLUMN routines.occurrences.slot_count IS 'How many slots the row accounts for.';
COMMENT ON COLUMN routines.occurrences.outcome IS 'started or skipped.';
COMMENT ON COLUMN routines.occurrences.reason IS 'Why it was skipped; null: it was not.';
COMMENT ON COLUMN routines.occurrences.trajectory_id IS 'The run it started; null: none.';
COMMENT ON COLUMN routines.occurrences.blocking_trajectory_id IS 'The run that was active, for overlap.';
COMMENT ON COLUMN routines.occurrences.detail IS 'The cause, for failed_to_start.';
COMMENT ON COLUMN routines.occurrences.recorded_at IS 'When the tick decided.';
COMMENT ON COLUMN routines.occurrences.delay IS 'From the slot to the decision.';
