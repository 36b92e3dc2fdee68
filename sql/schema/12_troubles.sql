-- What is wrong with a routine: the one rule by which the console, the API and a person at psql tell what needs attention.

-- An outcome stands until another one replaces it. A run that is going on, was cancelled, or a slot that was left out on purpose
-- replaces none: a failed slot must not disappear behind a run-now that someone has just started. Each part reads the end of an index.
CREATE FUNCTION routines.troubles_of(of_routine bigint, clock timestamptz DEFAULT now())
RETURNS TABLE (kind text, trajectory_id bigint, since timestamptz, detail text)
LANGUAGE sql STABLE ROWS 1 AS $$
    WITH outcome AS (
        (SELECT slot.scheduled_for AS at, last.status AS kind, last.id, coalesce(last.ended_at, slot.scheduled_for) AS since,
                last.error AS detail
         FROM (SELECT id, scheduled_for, retried_by FROM routines.trajectories
               WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL
               ORDER BY scheduled_for DESC LIMIT 100) AS slot
         CROSS JOIN LATERAL (
             SELECT * FROM routines.trajectories
             WHERE trajectories.id = CASE WHEN slot.retried_by IS NULL THEN slot.id
                                          ELSE routines.last_attempt(slot.id, slot.retried_by) END
             LIMIT 1) AS last
         WHERE last.status IN ('completed', 'failed', 'archived')
         ORDER BY slot.scheduled_for DESC LIMIT 1)
        UNION ALL
        (SELECT run_now.created_at, last.status, last.id, last.ended_at, last.error
         FROM (SELECT id, created_at, retried_by FROM routines.trajectories
               WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NULL AND trigger = 'run-now'
               ORDER BY id DESC LIMIT 100) AS run_now
         CROSS JOIN LATERAL (
             SELECT * FROM routines.trajectories
             WHERE trajectories.id = CASE WHEN run_now.retried_by IS NULL THEN run_now.id
                                          ELSE routines.last_attempt(run_now.id, run_now.retried_by) END
             LIMIT 1) AS last
         WHERE last.status IN ('completed', 'failed', 'archived')
         ORDER BY run_now.id DESC LIMIT 1)
        UNION ALL
        (SELECT skip.scheduled_for, coalesce(fill.status, skip.reason), fill.id, coalesce(fill.ended_at, skip.recorded_at),
                CASE WHEN fill.id IS NULL THEN skip.detail ELSE fill.error END
         FROM (SELECT * FROM routines.skips WHERE routine_id = of_routine ORDER BY scheduled_for DESC LIMIT 100) AS skip
         LEFT JOIN LATERAL (
             SELECT attempt.* FROM routines.trajectories AS attempt
             WHERE skip.filled_by IS NOT NULL AND attempt.id = routines.last_fill(of_routine, skip.last_scheduled_for)
               AND attempt.status IN ('completed', 'failed', 'archived') LIMIT 1) AS fill ON true
         WHERE skip.reason IN ('failed_to_start', 'missed')
         ORDER BY skip.scheduled_for DESC LIMIT 1)
    ),
    active AS (
        SELECT id, started_at FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND trigger = 'schedule' AND place IS NULL AND final_status IS NULL
        UNION ALL
        SELECT id, started_at FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL
    ),
    slow AS (
        SELECT active.id, active.started_at, usual.longest
        FROM active CROSS JOIN LATERAL (
            SELECT percentile_disc(0.95) WITHIN GROUP (ORDER BY ended_at - started_at) AS longest, count(*) AS number
            FROM ((SELECT status, started_at, ended_at FROM routines.trajectories
                   WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL
                   ORDER BY scheduled_for DESC LIMIT 50)
                  UNION ALL
                  (SELECT status, started_at, ended_at FROM routines.trajectories
                   WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NULL AND trigger = 'run-now'
                   ORDER BY id DESC LIMIT 50)) AS run
            WHERE status = 'completed') AS usual
        WHERE active.started_at < clock - interval '1 minute' AND usual.number >= 3
          AND clock - active.started_at > 3 * usual.longest
    ),
    -- The newest webhook to the URL of today that arrived, was given up, or has failed three times.
    webhook AS (
        SELECT sent.trajectory_id, sent.created_at, sent.attempts -> -1 ->> 'error' AS error, stopped_at, stopped_reason,
               stopped_at IS NOT NULL OR sent.next_attempt_at IS NOT NULL OR sent.give_up_reason IS NOT NULL AS is_failing
        FROM routines.routines
        LEFT JOIN LATERAL (
            SELECT * FROM (SELECT * FROM routines.webhook_deliveries
                           WHERE routine_id = of_routine ORDER BY id DESC LIMIT 20) AS newest
            WHERE newest.url = routines.webhook_url AND (next_attempt_at IS NULL OR failures >= 3)
            ORDER BY id DESC LIMIT 1) AS sent ON true
        LEFT JOIN routines.webhook_endpoints ON webhook_endpoints.collection_id = routines.collection_id
             AND md5(webhook_endpoints.url) = md5(webhook_url)
        WHERE routines.id = of_routine AND webhook_url IS NOT NULL
    )
    (SELECT kind, id, since, detail FROM (SELECT * FROM outcome ORDER BY at DESC LIMIT 1) AS newest
     WHERE kind IN ('failed', 'failed_to_start', 'missed'))
    UNION ALL
    SELECT 'backoff', NULL, NULL, CASE backoff_left WHEN 1 THEN '1 slot is' ELSE backoff_left || ' slots are' END
                                  || ' skipped after failures, then one is tried'
    FROM routines.routines WHERE id = of_routine AND backoff_left IS NOT NULL
    UNION ALL
    SELECT 'slow', id, started_at, format('run %s has been running since %s, and 19 of 20 runs take at most %s s', id,
                                          routines.utc(started_at), greatest(1, ceil(extract(epoch FROM longest)))::bigint)
    FROM slow
    UNION ALL
    SELECT 'webhook', trajectory_id, coalesce(stopped_at, created_at),
           coalesce('nothing is sent to the webhook''s URL any more: ' || stopped_reason,
                    'the webhook does not arrive: ' || coalesce(error, 'it was given up'))
    FROM webhook WHERE is_failing;
$$;
COMMENT ON FUNCTION routines.troubles_of IS
    'What is wrong with a routine. failed, failed_to_start, missed: its newest slot or run-now that came to an end, if it ended so; those that are active, were cancelled or left out are passed over, up to 100 of them. backoff: it skips slots after failures. slow: an active run has taken more than a minute and three times as long as 19 of 20 of its newest completed runs, if there are three. webhook: the newest webhook has failed three times or was given up, or its URL was stopped.';
