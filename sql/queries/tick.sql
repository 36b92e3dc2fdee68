-- The scheduler's heart. Any number of tickers run these against the same rows; none of them leads.

-- name: seconds_until_due
-- How long to sleep: until the earliest slot, at most until the next whole second, on the database's clock; 0 when
-- something is due. Slots are whole minutes, so a routine made a moment ago is never slept over.
SELECT greatest(0, extract(epoch FROM
           least((SELECT min(next_run_at) FROM routines.routines WHERE next_run_at IS NOT NULL),
                 date_trunc('second', clock_timestamp()) + interval '1 second')
           - clock_timestamp()))::float8 AS seconds;

-- name: tick
-- One batch: claim, skip, fire and advance, all or nothing. It is one statement, so that no state can come between
-- its parts and a ticker that freezes holds no transaction open. `now` moves the clock in tests; null is now().
-- `only_id` narrows the batch to one routine: how a routine that makes the statement fail is told from the others.
WITH
-- FOR UPDATE, since PATCH, pause, DELETE and run-now of a routine must wait for its tick or go before it. SKIP LOCKED,
-- since another ticker's rows are its own business. MATERIALIZED, since a LIMIT that ran twice would lock twice.
claimed AS MATERIALIZED (
    SELECT id, collection_id, task_id, cadence_type, hour_utc, minute_utc, day_of_week, init_params_overrides,
           secret_refs, webhook_url, webhook_secret_id, next_run_at AS first_slot,
           -- The newest slot; next_run_at itself where somebody set it to a time between two slots.
           greatest(next_run_at, routines.latest_slot(cadence_type, hour_utc, minute_utc, day_of_week,
                                                      coalesce(%(now)s::timestamptz, now()))) AS slot,
           coalesce(%(now)s::timestamptz, now()) AS now
    FROM routines.routines
    WHERE next_run_at <= coalesce(%(now)s::timestamptz, now())
      AND (%(only_id)s::bigint IS NULL OR id = %(only_id)s::bigint)
    ORDER BY next_run_at
    LIMIT %(batch_size)s::integer
    FOR UPDATE SKIP LOCKED
),
-- Called with the locks held, and with a snapshot of its own: a run-now run that was committed while this statement
-- began is seen, and the next one waits for this statement's end (trigger hold_routine).
run_nows AS MATERIALIZED (
    SELECT routine_id, trajectory_id FROM routines.active_run_nows((SELECT array_agg(id) FROM claimed))
),
considered AS MATERIALIZED (
    SELECT claimed.*, run_nows.trajectory_id AS run_now_id,
           claimed.now - slot <= make_interval(secs => CASE cadence_type
               WHEN 'hourly' THEN %(hourly_catchup_seconds)s::float8
               ELSE %(catchup_seconds)s::float8 END) AS in_time
    FROM claimed LEFT JOIN run_nows ON run_nows.routine_id = claimed.id
),
-- The active-run check for scheduled runs is the insert itself: trajectories_active_schedule_key refuses the second,
-- and trajectories_slot_key refuses a slot that was fired before.
fired AS (
    INSERT INTO routines.trajectories (
        collection_id, task_id, task_version, triggered_by_routine_id, scheduled_for, trigger,
        init_params, secret_refs, webhook_url, webhook_secret_id, created_at, updated_at)
    SELECT considered.collection_id, considered.task_id, task_versions.version, considered.id, considered.slot, 'schedule',
           task_versions.init_params || considered.init_params_overrides,
           considered.secret_refs, considered.webhook_url, considered.webhook_secret_id, considered.now, considered.now
    FROM considered
    JOIN routines.tasks ON tasks.id = considered.task_id
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    WHERE considered.in_time AND considered.run_now_id IS NULL
    ON CONFLICT DO NOTHING
    RETURNING triggered_by_routine_id AS routine_id, created_at - scheduled_for AS delay
),
held_back AS MATERIALIZED (
    SELECT considered.*,
           -- A scalar subquery on purpose: it runs for these few rows alone and cannot become a join over all runs.
           coalesce(run_now_id, (SELECT id FROM routines.trajectories
                                 WHERE triggered_by_routine_id = considered.id
                                   AND trigger = 'schedule' AND ended_at IS NULL)) AS blocked_by
    FROM considered LEFT JOIN fired ON fired.routine_id = considered.id
    WHERE in_time AND fired.routine_id IS NULL
),
overlapped AS (
    INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason,
                                blocking_trajectory_id, recorded_at)
    SELECT collection_id, id, slot, slot, 'overlap', blocked_by, now FROM held_back
    WHERE blocked_by IS NOT NULL  -- null: this slot was fired before, so it has its outcome
    ON CONFLICT ON CONSTRAINT skips_slot_key DO NOTHING
    RETURNING 1
),
-- What fell while no ticker ran: all slots but the newest, and the newest too where it is too old to catch up.
missed AS (
    INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, slot_count, reason, recorded_at)
    SELECT collection_id, id, first_slot, last_missed,
           greatest(1, routines.count_slots(cadence_type, first_slot, last_missed)), 'missed', now
    FROM (SELECT *, CASE WHEN in_time
                    THEN greatest(first_slot, routines.latest_slot(
                             cadence_type, hour_utc, minute_utc, day_of_week, slot - interval '1 microsecond'))
                    ELSE slot END AS last_missed
          FROM considered WHERE NOT in_time OR first_slot < slot) AS late
    ON CONFLICT ON CONSTRAINT skips_slot_key DO NOTHING
    RETURNING slot_count
),
advanced AS (
    UPDATE routines.routines
    SET next_run_at = routines.next_fire(considered.cadence_type, considered.hour_utc, considered.minute_utc,
                                         considered.day_of_week, considered.now),
        last_run_at = CASE WHEN fired.routine_id IS NULL THEN routines.last_run_at ELSE considered.now END,
        strikes = 0
    FROM considered LEFT JOIN fired ON fired.routine_id = considered.id
    WHERE routines.id = considered.id
    RETURNING 1
)
SELECT (SELECT count(*) FROM claimed)::integer AS claimed,
       (SELECT count(*) FROM fired)::integer AS fired,
       (SELECT count(*) FROM overlapped)::integer AS overlapped,
       (SELECT coalesce(sum(slot_count), 0) FROM missed)::bigint AS missed,
       (SELECT count(*) FROM advanced)::integer AS advanced,
       (SELECT coalesce(extract(epoch FROM max(delay)), 0) FROM fired)::float8 AS max_delay_seconds;

-- name: due_ids
-- The batch that a tick would claim, without claiming it: what to go through one by one after a batch has failed.
SELECT id FROM routines.routines
WHERE next_run_at <= coalesce(%(now)s::timestamptz, now())
ORDER BY next_run_at
LIMIT %(batch_size)s::integer;

-- name: record_strike
-- A fire that raised: its slots get their outcome, the schedule goes on, and the third strike in a row pauses it.
WITH struck AS MATERIALIZED (
    SELECT *, greatest(next_run_at, routines.latest_slot(cadence_type, hour_utc, minute_utc, day_of_week,
                                                         coalesce(%(now)s::timestamptz, now()))) AS slot
    FROM routines.routines
    WHERE id = %(id)s::bigint AND next_run_at <= coalesce(%(now)s::timestamptz, now())
    FOR UPDATE SKIP LOCKED
),
recorded AS (
    INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, slot_count, reason, detail)
    SELECT collection_id, id, next_run_at, slot, greatest(1, routines.count_slots(cadence_type, next_run_at, slot)),
           'failed_to_start', %(cause)s::text
    FROM struck
    ON CONFLICT ON CONSTRAINT skips_slot_key DO NOTHING
)
UPDATE routines.routines
SET strikes = routines.strikes + 1,
    next_run_at = routines.next_fire(struck.cadence_type, struck.hour_utc, struck.minute_utc, struck.day_of_week,
                                     coalesce(%(now)s::timestamptz, now())),
    paused = routines.strikes + 1 >= %(max_strikes)s::integer,
    paused_reason = CASE WHEN routines.strikes + 1 >= %(max_strikes)s::integer
                    THEN 'paused after ' || (routines.strikes + 1) || ' fires in a row that failed to start; the last: ' || %(cause)s::text END
FROM struck
WHERE routines.id = struck.id
RETURNING routines.id, routines.strikes::integer AS strikes, routines.paused;
