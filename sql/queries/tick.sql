-- The scheduler's heart. Any number of tickers run these statements against the same rows, without a leader.

-- name: seconds_until_due
-- How long to sleep: until the earliest slot or the earliest end of a pause, at most until the next whole second, by the
-- database's clock; 0 if a routine is due or a pause is over. Nearly all slots are whole minutes, so the ticker does not oversleep
-- the slot of a new routine.
-- `set_aside` lists routines that this ticker ignores for a while because their strike could not be recorded. `beyond_due`
-- ignores due routines and ended pauses, for when other tickers hold them.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
earliest AS (
    SELECT (SELECT min(next_run_at) FROM routines.routines
            WHERE next_run_at > CASE WHEN %(beyond_due)s::boolean THEN (SELECT now FROM clock) ELSE '-infinity' END
              AND (%(set_aside)s::bigint[] IS NULL OR id <> ALL (%(set_aside)s::bigint[]))) AS slot,
           (SELECT min(paused_until) FROM routines.routines
            WHERE paused_until > CASE WHEN %(beyond_due)s::boolean THEN (SELECT now FROM clock) ELSE '-infinity' END
              AND (%(set_aside)s::bigint[] IS NULL OR id <> ALL (%(set_aside)s::bigint[]))) AS pause_end
),
awake AS (
    SELECT now, pause_end, least(slot, pause_end) AS event, date_trunc('second', now) + interval '1 second' AS next_second
    FROM earliest, clock
)
SELECT greatest(0, extract(epoch FROM least(event, next_second) - now))::float8 AS seconds,
       coalesce(event <= next_second, false) AS ends_at_event,
       coalesce(pause_end <= greatest(now, least(event, next_second)), false) AS ends_pause,
       EXISTS (SELECT FROM routines.backfills WHERE ended_at IS NULL AND next_look_at <= now) AS has_backfill
FROM awake;

-- name: ended_pauses
-- Pauses that are over, alternating between collections: the oldest of each, then the second oldest of each. Reads the oldest
-- `most` of them.
SELECT id FROM (
    SELECT id, paused_until, row_number() OVER (PARTITION BY collection_id ORDER BY paused_until, id) AS turn
    FROM (SELECT id, collection_id, paused_until FROM routines.routines
          WHERE paused_until <= now() AND (%(set_aside)s::bigint[] IS NULL OR id <> ALL (%(set_aside)s::bigint[]))
          ORDER BY paused_until LIMIT %(most)s::integer) AS ended
) AS waiting
ORDER BY turn, paused_until
LIMIT %(batch_size)s::integer;

-- name: resume
-- Ends those of these pauses that are still over once the routine is locked: a person may have resumed the routine, deleted it or
-- extended the pause. The triggers keep_next_run_at and settle_slots do the rest, as when a person resumes it: slots in the pause
-- get their outcome, and slots since its end are due. FOR UPDATE SKIP LOCKED as in the tick.
WITH ended AS MATERIALIZED (
    SELECT id, extract(epoch FROM now() - paused_until)::float8 AS late_seconds FROM routines.routines
    WHERE id = ANY (%(ids)s::bigint[]) AND paused_until <= now()
    FOR UPDATE SKIP LOCKED
),
resumed AS (
    UPDATE routines.routines SET paused = false FROM ended WHERE routines.id = ended.id RETURNING late_seconds
)
SELECT count(*)::integer AS resumed, coalesce(max(late_seconds), 0)::float8 AS max_late_seconds FROM resumed;

-- name: open_backfills
-- Backfills to look at, those that have waited longest first.
SELECT id FROM routines.backfills WHERE ended_at IS NULL AND next_look_at <= now()
ORDER BY next_look_at LIMIT %(most)s::integer;

-- name: expand_backfill
-- Starts as many runs of a backfill as may be active now. A statement for each, so that one that fails does not hold up the others.
SELECT routines.expand_backfill(%(id)s::bigint) AS started;

-- name: hold_backfill
-- Lets a backfill that could not be expanded wait.
UPDATE routines.backfills SET held_by = %(cause)s::text, next_look_at = now() + make_interval(secs => %(seconds)s::float8)
WHERE id = %(id)s::bigint AND end_reason IS NULL;

-- name: tick
-- One batch: claim, skip, fire and advance, all or nothing. It is one statement, so no state can come between its parts and a
-- frozen ticker holds no transaction open. `now` moves the clock in tests; null means now().
-- `only_ids` and `only_slots` restrict the batch to routines that still wait for the slot they were seen with. `fault` is the
-- reason why the fire of these is known to fail: it is not tried, and counts as a strike. `looks_for_runs`: this batch has failed
-- because a run was already there, so runs of these slots are looked for.
WITH
-- FOR UPDATE, because PATCH, pause, DELETE and run-now of a routine must come before its tick or wait for it. SKIP LOCKED
-- leaves rows to the ticker that has locked them. MATERIALIZED, because a LIMIT that ran twice would lock twice.
-- Slots are computed here, once, and the cadence itself goes no further: a composite value carried through a
-- MATERIALIZED CTE doubled the cost of the tick. The few routines that are late read theirs again.
-- Slots go by the routine's own clock, which is behind if it has a spread; next_run_at and `now` by the database's.
claimed AS MATERIALIZED (
    SELECT id, collection_id, task_id, init_params_overrides, init_params_from_slot, secret_refs, webhook_url, webhook_secret_id,
           timeout_seconds, backoff_left, settled_until, spread_offset, nullif(overlap_policy, 'skip') AS overlap_policy, max_concurrent,
           calendar IS NOT NULL OR active_minutes IS NOT NULL AS has_exclusions,
           -- A slot younger than on_time_seconds is not a catch-up: it fires whatever the window is.
           coalesce(%(now)s::timestamptz, now()) - make_interval(secs => greatest(%(on_time_seconds)s::float8, coalesce(
               catchup_window_seconds, CASE cadence_type WHEN 'hourly' THEN %(hourly_catchup_seconds)s::float8
                                                         ELSE %(catchup_seconds)s::float8 END))) AS in_time_since,
           -- A settled slot is not settled again, whatever a person set next_run_at to.
           CASE WHEN routines.without_spread(routines, next_run_at) <= settled_until
                THEN routines.next_slot_of(routines, settled_until)
                ELSE routines.without_spread(routines, next_run_at) END AS first_slot,
           -- Earlier than that only if a person set next_run_at past slots without outcome.
           least(moved_to, routines.next_slot_of(routines, coalesce(settled_until, created_at))) AS first_passed,
           -- The newest slot; or next_run_at itself if a person set it to a time between two slots.
           greatest(routines.without_spread(routines, next_run_at), routines.latest_slot_of(
               routines, routines.without_spread(routines, coalesce(%(now)s::timestamptz, now())))) AS newest,
           -- From now on and not from the slot, because the slots between have their outcome; on the cadence's grid, so no drift. Null
           -- if no slot is left.
           routines.next_slot_of(routines, routines.without_spread(routines, coalesce(%(now)s::timestamptz, now()))) AS next_slot,
           coalesce(%(now)s::timestamptz, now()) AS now
    FROM routines.routines
    WHERE next_run_at <= coalesce(%(now)s::timestamptz, now())
      AND (%(only_ids)s::bigint[] IS NULL
           OR id = ANY (%(only_ids)s::bigint[]) AND next_run_at = ANY (%(only_slots)s::timestamptz[]))
      AND (%(set_aside)s::bigint[] IS NULL OR id <> ALL (%(set_aside)s::bigint[]))
    ORDER BY next_run_at
    LIMIT %(batch_size)s::integer
    FOR UPDATE SKIP LOCKED
),
-- Called with the locks held, and with a snapshot of its own: it sees a run that was committed while this statement began, and
-- the next run-now run waits for the end of this statement (trigger hold_routine). It is a read, which waits for no lock. If the
-- INSERT made the active-run check, it would wait for the session that is about to end the blocking run.
active AS MATERIALIZED (
    SELECT routine_id, trajectory_id FROM routines.active_runs((SELECT array_agg(id) FROM claimed))
),
-- Not materialized: read once, by `decided`. OFFSET 0 makes Postgres compute each row once. FULL JOIN, because `active` has no
-- other routines than `claimed` and a full join is never made by nested loops, however few rows the planner expects. Overrides that
-- are merged go no further.
considered AS NOT MATERIALIZED (
    SELECT claimed.id, claimed.collection_id, claimed.task_id, init_params_from_slot, secret_refs, webhook_url, webhook_secret_id,
           timeout_seconds, backoff_left, settled_until, spread_offset, has_exclusions, in_time_since, first_slot, first_passed, newest,
           next_slot, now, overlap_policy,
           active.trajectory_id AS active_run, task.version, task.init_params || init_params_overrides AS init_params,
           CASE WHEN overlap_policy IS NOT NULL THEN routines.find_room(claimed.id, overlap_policy, max_concurrent) END AS room,
           -- Asked only for routines with a calendar or active hours. If these exclude the newest slot, an earlier one may fire.
           CASE WHEN has_exclusions AND newest > coalesce(settled_until, '-infinity')
                THEN routines.judge(claimed.id, first_slot, newest, next_slot, coalesce(in_time_since - spread_offset, in_time_since))
           END AS judgement
    FROM claimed
    FULL JOIN active ON active.routine_id = claimed.id
    LEFT JOIN LATERAL (
        SELECT task_versions.version, task_versions.init_params
        FROM routines.tasks JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
        WHERE tasks.id = claimed.task_id OFFSET 0) AS task ON true
    OFFSET 0
),
-- The outcome of the newest slot that is not excluded: the first of these that holds.
decided AS MATERIALIZED (
    SELECT CASE WHEN slot <= settled_until THEN 'settled'
                   -- Asked only where it may be so: a run that a person inserted for the slot is its outcome, even if it is active or
                   -- the slot is late. By its index for each slot. For EXISTS, Postgres might read all runs once instead.
                   WHEN (%(looks_for_runs)s::boolean OR active_run IS NOT NULL OR coalesce(slot + spread_offset, slot) < in_time_since)
                        AND (SELECT trajectories.id FROM routines.trajectories
                             WHERE triggered_by_routine_id = examined.id AND scheduled_for = slot) IS NOT NULL THEN 'fired_before'
                   WHEN (judgement).reason IS NOT NULL AND (judgement).slot IS NULL THEN 'excluded'
                   WHEN coalesce(slot + spread_offset, slot) < in_time_since THEN 'missed'
                   WHEN backoff_left > 0 THEN 'backoff'
                   WHEN blocked_by IS NOT NULL THEN 'overlap'
                   WHEN fault IS NOT NULL THEN 'failed_to_start'
                   WHEN (room).waiting IS NOT NULL THEN 'take_over'
                   ELSE 'fire' END AS verdict,
           CASE WHEN init_params_from_slot IS NOT NULL THEN routines.slot_values(id, slot, 'schedule') END AS slot_values, *
    FROM (SELECT *, coalesce((judgement).slot, newest) AS slot,
              CASE WHEN overlap_policy IS NULL THEN active_run ELSE (room).blocked_by END AS blocked_by,
              coalesce(%(fault)s::text, CASE
              WHEN version IS NULL THEN 'the task or its current version is gone'
              WHEN init_params_bytes > %(max_init_params_bytes)s::integer THEN
                  'init_params take ' || init_params_bytes || ' bytes, the limit is ' || %(max_init_params_bytes)s::integer
              END) AS fault
          -- With what the slot adds at most: a value and its key take less than three times as much as the reference.
          FROM (SELECT *, pg_column_size(init_params) + coalesce(3 * octet_length(init_params_from_slot::text), 0) AS init_params_bytes
                FROM considered) AS measured) AS examined
),
-- Most batches only fire the one slot of each routine. Then this is empty at once, and nothing looks for what else there may be.
is_mixed AS MATERIALIZED (
    SELECT bool_or(verdict <> 'fire' OR has_exclusions OR first_slot < slot OR first_passed < first_slot) AS answer FROM decided
),
mixed AS NOT MATERIALIZED (SELECT * FROM decided WHERE (SELECT answer FROM is_mixed)),
-- The second guard: trajectories_slot_key rejects a slot that was fired before, trajectories_active_schedule_key (or
-- trajectories_active_place_key, see find_room) a second active scheduled run. Any of them fails the whole batch, which is then tried
-- again with `looks_for_runs`. That is rare, since it takes a run that a person inserted; ON CONFLICT DO NOTHING would cost every fire
-- three searches and a record of WAL.
fired AS (
    INSERT INTO routines.trajectories (
        collection_id, task_id, task_version, triggered_by_routine_id, scheduled_for, due_at, trigger,
        init_params, slot_values, secret_refs, webhook_url, webhook_secret_id, timeout_seconds, created_at, updated_at,
        traceparent, place)
    SELECT collection_id, task_id, version, id, slot, slot + spread_offset, 'schedule',
           CASE WHEN slot_values IS NULL THEN init_params
                ELSE init_params || routines.params_from_slot(init_params_from_slot, slot_values) END,
           slot_values, secret_refs, webhook_url, webhook_secret_id, timeout_seconds, now, now, %(traceparent)s::text, (room).place
    FROM decided WHERE verdict = 'fire'
    RETURNING created_at - coalesce(due_at, scheduled_for) AS delay
),
-- A slot that comes while the run of an earlier one waits. Computed for such routines only.
taken_over AS MATERIALIZED (
    SELECT routines.take_over_waiting_run(
        (room).waiting, slot, slot + spread_offset, version,
        CASE WHEN slot_values IS NULL THEN init_params ELSE init_params || routines.params_from_slot(init_params_from_slot, slot_values) END,
        slot_values, secret_refs, webhook_url, webhook_secret_id, timeout_seconds, now)
    FROM mixed WHERE verdict = 'take_over'
),
-- Slots that fell while no ticker ran: all but the newest, and the newest too if it is too old to catch up. Also slots that a
-- person set next_run_at past.
late AS MATERIALIZED (
    SELECT *, CASE WHEN verdict = 'missed' THEN slot
                   ELSE greatest(first_slot, routines.latest_slot(cadence, slot - interval '1 microsecond')) END AS last_missed,
           greatest(first_passed, routines.latest_slot(cadence, first_slot - interval '1 microsecond')) AS last_passed
    FROM mixed CROSS JOIN LATERAL (SELECT routines.current_cadence(id) AS cadence) AS whole
    WHERE (verdict = 'missed' OR first_slot < slot AND verdict <> 'settled' OR first_passed < first_slot) AND NOT has_exclusions
),
skipped AS (
    INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, due_at, slot_count, cadence,
                                reason, blocking_trajectory_id, detail, recorded_at)
    SELECT collection_id, id, slot, slot, slot + spread_offset, 1, NULL::routines.cadence, verdict,
           CASE verdict WHEN 'overlap' THEN blocked_by END,
           CASE verdict WHEN 'failed_to_start' THEN fault WHEN 'backoff' THEN routines.backoff_detail(backoff_left) END, now
    FROM mixed WHERE verdict IN ('overlap', 'failed_to_start', 'backoff')
    UNION ALL
    SELECT collection_id, id, first_slot, last_missed, last_missed + spread_offset,
           routines.slots_in_span(cadence, first_slot, last_missed),
           CASE WHEN first_slot < last_missed THEN cadence END, 'missed', NULL, NULL, now
    FROM late WHERE verdict = 'missed' OR first_slot < slot
    UNION ALL
    SELECT collection_id, id, span_begin, span_end, span_end + spread_offset, slot_count, CASE WHEN slot_count > 1 THEN span.cadence END, span.reason, NULL,
           span.detail, now
    FROM mixed CROSS JOIN LATERAL routines.spans_to_skip(
        id, first_passed, first_slot, newest, CASE WHEN verdict NOT IN ('excluded', 'missed') THEN slot END, (judgement).detail) AS span
    WHERE has_exclusions AND verdict <> 'settled'
      AND (verdict = 'missed' OR first_passed < newest OR (judgement).reason IS NOT NULL)
    UNION ALL
    SELECT collection_id, id, first_passed, last_passed, last_passed + spread_offset,
           routines.slots_in_span(cadence, first_passed, last_passed),
           CASE WHEN first_passed < last_passed THEN cadence END, 'missed', NULL,
           routines.passed_over_detail(coalesce(first_slot + spread_offset, first_slot)), now
    FROM late WHERE first_passed < first_slot
    ON CONFLICT ON CONSTRAINT skips_slot_key DO NOTHING
    RETURNING reason, slot_count
),
advanced AS (
    UPDATE routines.routines
    SET next_run_at = routines.with_spread(routines, coalesce((judgement).moved_to, decided.next_slot)),
        moved_to = (judgement).moved_to,
        -- Once the last slot of the window is next, the fire of that slot would have to compute.
        upcoming = CASE WHEN decided.next_slot >= upcoming[cardinality(upcoming)]
                        THEN routines.slot_window(routines.cadence_of(routines), routines.without_spread(routines, decided.now))
                        ELSE upcoming END,
        settled_until = greatest(decided.settled_until, decided.newest),
        last_run_at = CASE WHEN verdict IN ('fire', 'take_over') THEN decided.now ELSE routines.last_run_at END,
        strikes = CASE WHEN verdict IN ('fire', 'take_over') THEN 0 ELSE routines.strikes END,
        backoff_left = CASE WHEN verdict = 'backoff' THEN nullif(decided.backoff_left - 1, 0) ELSE routines.backoff_left END
    FROM decided
    -- The ids a second time: they are searched for in the index of the key, where a join alone might read all routines.
    WHERE routines.id = decided.id AND routines.id = ANY (ARRAY(SELECT id FROM claimed)) AND verdict <> 'failed_to_start'
    RETURNING 1
),
-- Separate from `advanced`, because writing `paused` calls the triggers that maintain next_run_at, for every row.
struck AS (
    UPDATE routines.routines
    SET next_run_at = routines.with_spread(routines, coalesce((judgement).moved_to, mixed.next_slot)),
        moved_to = (judgement).moved_to,
        settled_until = greatest(mixed.settled_until, mixed.newest),
        strikes = routines.strikes + 1,
        paused = routines.strikes + 1 >= %(max_strikes)s::integer,
        paused_at = CASE WHEN routines.strikes + 1 >= %(max_strikes)s::integer THEN mixed.now END,
        paused_reason = CASE WHEN routines.strikes + 1 >= %(max_strikes)s::integer THEN
            'paused after ' || (routines.strikes + 1) || ' fires in a row that failed to start; the last: ' || fault END
    FROM mixed
    WHERE routines.id = mixed.id AND routines.id = ANY (ARRAY(SELECT id FROM claimed)) AND verdict = 'failed_to_start'
    RETURNING routines.id, routines.paused
),
-- A batch has few different delays, because slots are whole minutes and the whole batch fires at the same time.
delays AS (SELECT extract(epoch FROM delay)::float8 AS seconds, count(*) AS fires FROM fired GROUP BY delay)
SELECT (SELECT count(*) FROM claimed)::integer AS claimed,
       (SELECT coalesce(sum(fires), 0) FROM delays)::integer AS fired,
       (SELECT count(*) FROM skipped WHERE reason = 'overlap')::integer AS overlapped,
       (SELECT count(*) FROM taken_over)::integer AS coalesced,
       (SELECT coalesce(sum(slot_count), 0) FROM skipped WHERE reason = 'missed')::bigint AS missed,
       (SELECT coalesce(sum(slot_count), 0) FROM skipped WHERE reason = 'calendar')::bigint AS excluded_by_calendar,
       (SELECT coalesce(sum(slot_count), 0) FROM skipped WHERE reason = 'outside_hours')::bigint AS outside_hours,
       (SELECT count(*) FROM skipped WHERE reason = 'backoff')::integer AS backed_off,
       (SELECT count(*) FROM advanced)::integer + (SELECT count(*) FROM struck)::integer AS advanced,
       (SELECT coalesce(array_agg(id), '{}') FROM struck) AS struck_ids,
       (SELECT coalesce(array_agg(id), '{}') FROM struck WHERE paused) AS paused_ids,
       (SELECT coalesce(array_agg(seconds ORDER BY seconds), '{}') FROM delays) AS delay_seconds,
       (SELECT coalesce(array_agg(fires ORDER BY seconds), '{}') FROM delays) AS fires_by_delay;

-- name: note_outage
-- Records that routines were due and no ticker ran, for the sentences of `why`. A ticker asks when it connects and when it was held
-- up, before its next tick. The outage began when the oldest slot, or end of a pause, that still waits was due, or with the last
-- outcome of a tick, if that is later. SKIP LOCKED: a routine that another session has locked waits for that session. Two tickers
-- that start together find the same beginning. Only the newest runs and skips are read; if no tick wrote any of these, the oldest of
-- the runs counts as the last outcome. Outcomes that the API records have a detail or another reason.
WITH clock AS MATERIALIZED (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now),
slot AS MATERIALIZED (
    SELECT next_run_at AS due_at FROM routines.routines
    WHERE next_run_at < (SELECT now FROM clock) - make_interval(secs => %(outage_seconds)s::float8)
    ORDER BY next_run_at LIMIT 1 FOR UPDATE SKIP LOCKED
),
pause AS MATERIALIZED (
    SELECT paused_until AS due_at FROM routines.routines
    WHERE paused_until < (SELECT now FROM clock) - make_interval(secs => %(outage_seconds)s::float8)
    ORDER BY paused_until LIMIT 1 FOR UPDATE SKIP LOCKED
),
waiting AS MATERIALIZED (SELECT least((SELECT due_at FROM slot), (SELECT due_at FROM pause)) AS since),
newest AS MATERIALIZED (
    SELECT CASE WHEN count(*) = 1000 THEN min(created_at) END AS looked_back_to,
           max(created_at) FILTER (WHERE trigger = 'schedule') AS fired_at
    FROM (SELECT created_at, trigger FROM routines.trajectories ORDER BY id DESC LIMIT 1000) AS runs
),
outage AS (
    SELECT greatest(since, fired_at, looked_back_to,
                    (SELECT max(recorded_at) FROM (SELECT * FROM routines.skips ORDER BY id DESC LIMIT 1000) AS skipped
                     WHERE reason IN ('overlap', 'coalesced', 'failed_to_start', 'backoff') OR reason = 'missed' AND detail IS NULL)) AS began_at, now
    FROM waiting, newest, clock WHERE since IS NOT NULL
),
noted AS (
    INSERT INTO routines.ticker_outages (began_at, ended_at)
    SELECT began_at, now FROM outage WHERE began_at < now - make_interval(secs => %(outage_seconds)s::float8)
    ON CONFLICT ON CONSTRAINT ticker_outages_began_at_key DO NOTHING
    RETURNING id, began_at
),
forgotten AS (
    DELETE FROM routines.ticker_outages USING noted WHERE ticker_outages.id <= noted.id - 10000
)
SELECT began_at FROM noted;

-- name: is_late
-- Whether a slot, or the end of a pause, has been due for so long.
SELECT EXISTS (SELECT FROM routines.routines WHERE next_run_at < now() - make_interval(secs => %(late_seconds)s::float8))
    OR EXISTS (SELECT FROM routines.routines WHERE paused_until < now() - make_interval(secs => %(late_seconds)s::float8)) AS is_late;

-- name: set_plan_mode
SELECT set_config('plan_cache_mode', %(mode)s::text, false);

-- name: due
-- The batch that a tick would claim, without claiming it. After a batch has failed, it is retried in halves.
SELECT id, next_run_at AS slot FROM routines.routines
WHERE next_run_at <= coalesce(%(now)s::timestamptz, now())
  AND (%(set_aside)s::bigint[] IS NULL OR id <> ALL (%(set_aside)s::bigint[]))
ORDER BY next_run_at
LIMIT %(batch_size)s::integer;

-- name: due_in_turns
-- The same, alternating between collections: the oldest of each, then the second oldest of each, so that no collection waits
-- for the end of another's backlog. It reads all due routines, so it is only used from time to time, while a backlog lasts.
SELECT id, slot FROM (
    SELECT id, next_run_at AS slot, row_number() OVER (PARTITION BY collection_id ORDER BY next_run_at) AS turn
    FROM routines.routines
    WHERE next_run_at <= coalesce(%(now)s::timestamptz, now())
      AND (%(set_aside)s::bigint[] IS NULL OR id <> ALL (%(set_aside)s::bigint[]))
) AS waiting
ORDER BY turn, slot
LIMIT %(batch_size)s::integer;

-- name: oldest_snapshot
-- The session that holds the oldest snapshot of this database, other than vacuum. While it is open, vacuum cannot remove dead row
-- versions, and claims have to read through them. Shows other roles' sessions only to members of pg_read_all_stats.
SELECT coalesce(extract(epoch FROM clock_timestamp() - started_at), 0)::float8 AS age_seconds, holder
FROM (SELECT xact_start AS started_at, 'pid ' || pid || ', ' || coalesce(nullif(application_name, ''), backend_type) AS holder
      FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'
        AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND xact_start IS NOT NULL
      UNION ALL
      SELECT prepared, 'prepared transaction ' || gid FROM pg_prepared_xacts WHERE database = current_database()) AS open
ORDER BY started_at
LIMIT 1;
