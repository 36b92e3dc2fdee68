-- The ledger: every slot has exactly one outcome, a trajectory or a skip.

-- Triggers:
--   AFTER INSERT, per statement  note_skips  slots missed, that could not start, or skipped late: notes them for alert rules (chapter
--                                            08_alerts)
-- No foreign keys: history outlives the routine.
CREATE TABLE routines.skips (
    id                     bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT skips_pkey PRIMARY KEY,
    collection_id          bigint NOT NULL,
    routine_id             bigint NOT NULL,
    scheduled_for          timestamptz NOT NULL,
    last_scheduled_for     timestamptz NOT NULL,
    due_at                 timestamptz,
    slot_count             bigint NOT NULL DEFAULT 1 CONSTRAINT skips_slot_count_is_positive CHECK (slot_count > 0),
    cadence                routines.cadence,
    reason                 text NOT NULL CONSTRAINT skips_reason_is_known
                           CHECK (reason IN ('overlap', 'coalesced', 'missed', 'paused', 'failed_to_start', 'calendar', 'outside_hours', 'backoff')),
    blocking_trajectory_id bigint,
    detail                 text,
    recorded_at            timestamptz NOT NULL DEFAULT now(),
    filled_by              bigint,
    CONSTRAINT skips_slot_key UNIQUE (routine_id, scheduled_for),
    CONSTRAINT skips_span_is_ordered CHECK (last_scheduled_for >= scheduled_for),
    CONSTRAINT skips_span_names_cadence CHECK (slot_count = 1 OR (cadence).type IS NOT NULL),
    CONSTRAINT skips_overlap_names_run CHECK (reason = 'overlap' OR blocking_trajectory_id IS NULL)
);
-- For span_across. Few skips are spans, so it is small.
CREATE INDEX skips_span_idx ON routines.skips (routine_id, scheduled_for) WHERE last_scheduled_for > scheduled_for;
COMMENT ON TABLE  routines.skips IS 'A slot, or a span of slots, that did not start a run, and why. Spans of a routine do not overlap.';
COMMENT ON COLUMN routines.skips.id IS 'Database id.';
COMMENT ON COLUMN routines.skips.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.skips.routine_id IS 'The routine, which may have been deleted.';
COMMENT ON COLUMN routines.skips.scheduled_for IS 'The slot, or the first slot of a span.';
COMMENT ON COLUMN routines.skips.last_scheduled_for IS 'The same slot, or the last slot of a span.';
COMMENT ON COLUMN routines.skips.due_at IS
    'When last_scheduled_for was due, if the routine had a spread; null if it was due at that time.';
COMMENT ON COLUMN routines.skips.slot_count IS 'The number of slots that this row accounts for.';
COMMENT ON COLUMN routines.skips.cadence IS 'The cadence that the slots of a span follow; null for a single slot.';
COMMENT ON COLUMN routines.skips.reason IS
    'overlap: a run was active. coalesced: its run waited for another, and a later slot took it over. missed: no ticker ran, or it came after the catch-up window, or the detail says why. paused: during a pause. failed_to_start: the fire raised an error. calendar: a calendar excludes the day. outside_hours: outside the active hours. backoff: the slots before it failed, see after_failures of routines.';
COMMENT ON COLUMN routines.skips.blocking_trajectory_id IS 'For overlap: the run that was active.';
COMMENT ON COLUMN routines.skips.detail IS
    'The cause, for failed_to_start and paused, and for coalesced the later slot, and for slots missed because of a person''s change. For calendar the label of the day, for outside_hours the local time; and where the slot has moved to.';
COMMENT ON COLUMN routines.skips.recorded_at IS 'When the tick decided.';
COMMENT ON COLUMN routines.skips.filled_by IS
    'The run by which a backfill has filled the slot since; for a span the last one. Null for none. The runs of all slots have fills_slot.';
SELECT routines.protect('routines.skips');

-- No triggers. No foreign keys: history outlives the routine.
CREATE TABLE routines.slot_moves (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT slot_moves_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    routine_id    bigint NOT NULL,
    moved_from    timestamptz NOT NULL,
    moved_to      timestamptz NOT NULL,
    timezone      text NOT NULL,
    moved_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT slot_moves_slot_key UNIQUE (routine_id, moved_from, moved_at)
);
COMMENT ON TABLE  routines.slot_moves IS
    'The next slots that `routines recompute` has moved, because the server has newer time zone data than when they were computed.';
COMMENT ON COLUMN routines.slot_moves.id IS 'Database id.';
COMMENT ON COLUMN routines.slot_moves.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.slot_moves.routine_id IS 'The routine, which may have been deleted.';
COMMENT ON COLUMN routines.slot_moves.moved_from IS 'The slot that was expected.';
COMMENT ON COLUMN routines.slot_moves.moved_to IS 'The slot in its place.';
COMMENT ON COLUMN routines.slot_moves.timezone IS 'The time zone whose rules have changed.';
COMMENT ON COLUMN routines.slot_moves.moved_at IS 'When it was moved.';
SELECT routines.protect('routines.slot_moves');

-- No triggers.
CREATE TABLE routines.retention (
    what          text CONSTRAINT retention_pkey PRIMARY KEY
                  CONSTRAINT retention_what_is_known CHECK (what IN ('trajectories', 'skips')),
    deleted_until timestamptz NOT NULL
);
COMMENT ON TABLE  routines.retention IS 'Up to which slot the ledger may have gaps, because retention has deleted old rows.';
COMMENT ON COLUMN routines.retention.what IS 'trajectories or skips.';
COMMENT ON COLUMN routines.retention.deleted_until IS
    'The newest slot that was deleted. Outcomes up to this slot may be missing; every later outcome is present.';

-- No triggers. Rows are written by a ticker that starts or was held up, never by a tick.
CREATE TABLE routines.ticker_outages (
    id       bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT ticker_outages_pkey PRIMARY KEY,
    began_at timestamptz NOT NULL CONSTRAINT ticker_outages_began_at_key UNIQUE,
    ended_at timestamptz NOT NULL,
    CONSTRAINT ticker_outages_is_ordered CHECK (ended_at > began_at)
);
COMMENT ON TABLE  routines.ticker_outages IS
    'Times in which routines were due and no ticker ran. The newest 10,000 are kept. Of no tenant: began_at may be the slot of any routine.';
COMMENT ON COLUMN routines.ticker_outages.id IS 'Database id.';
COMMENT ON COLUMN routines.ticker_outages.began_at IS
    'Since when the oldest slot was due, or the time of the last outcome that a ticker recorded, if that is later. The tickers may have stopped earlier.';
COMMENT ON COLUMN routines.ticker_outages.ended_at IS 'When a ticker was back, before its first tick.';

-- A view runs with the rights of its reader (security_invoker), not of its owner, so that policies apply.
CREATE VIEW routines.occurrences WITH (security_invoker = true) AS
    SELECT triggered_by_routine_id AS routine_id, collection_id, scheduled_for, scheduled_for AS last_scheduled_for,
           1::bigint AS slot_count, 'started' AS outcome, NULL::text AS reason, id AS trajectory_id,
           NULL::bigint AS blocking_trajectory_id, NULL::text AS detail, created_at AS recorded_at,
           created_at - coalesce(due_at, scheduled_for) AS delay, due_at,
           CASE WHEN retried_by IS NOT NULL THEN routines.last_attempt(id, retried_by) END AS last_trajectory_id, NULL::bigint AS filled_by
    FROM routines.trajectories WHERE scheduled_for IS NOT NULL
    UNION ALL
    SELECT routine_id, collection_id, scheduled_for, last_scheduled_for, slot_count, 'skipped', reason, NULL,
           blocking_trajectory_id, detail, recorded_at, greatest(recorded_at - coalesce(due_at, last_scheduled_for), '0'), due_at,
           NULL, filled_by
    FROM routines.skips;
COMMENT ON VIEW routines.occurrences IS
    'The ledger: the outcome of each slot. SELECT * FROM routines.occurrences WHERE routine_id = 1 ORDER BY scheduled_for DESC;';
COMMENT ON COLUMN routines.occurrences.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.occurrences.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.occurrences.scheduled_for IS 'The slot, or the first slot of a span.';
COMMENT ON COLUMN routines.occurrences.last_scheduled_for IS 'The same slot, or the last slot of a span.';
COMMENT ON COLUMN routines.occurrences.slot_count IS 'The number of slots that the row accounts for.';
COMMENT ON COLUMN routines.occurrences.outcome IS 'started or skipped.';
COMMENT ON COLUMN routines.occurrences.reason IS 'Why it was skipped; null if it started a run.';
COMMENT ON COLUMN routines.occurrences.trajectory_id IS 'The run that it started; null if skipped.';
COMMENT ON COLUMN routines.occurrences.blocking_trajectory_id IS 'For overlap: the run that was active.';
COMMENT ON COLUMN routines.occurrences.detail IS 'The cause of the skip, where the reason alone does not say it.';
COMMENT ON COLUMN routines.occurrences.recorded_at IS 'When the tick decided.';
COMMENT ON COLUMN routines.occurrences.delay IS 'From the time at which the slot was due to the decision; 0 if a change came before it was due.';
COMMENT ON COLUMN routines.occurrences.due_at IS
    'When the last slot was due, if the routine had a spread; null if it was due at that time.';
COMMENT ON COLUMN routines.occurrences.last_trajectory_id IS
    'The last attempt at the slot, a retry or a rerun, whose status is its outcome; null if the first was the last.';
COMMENT ON COLUMN routines.occurrences.filled_by IS 'Of a skip: the run by which a backfill has filled it since, for a span the last one; null for none.';
