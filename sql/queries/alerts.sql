-- The rounds in which workers judge alert rules. Any worker may run any of these statements at any time; `every_seconds` keeps all
-- workers together from doing it more often, and null runs it again at once: see take_alert_turn. Each is one transaction, and safe
-- to repeat: an alert's subject is unique, and a notice is queued in the statement that notes it in its alerts. `now` moves the clock
-- in tests. Each returns how many rows it handled, a full batch if there are more, and what became of them.

-- name: open_late
-- Slots that have been due for longer than a rule allows, and have no outcome. It needs no ticker: due routines are at the head of
-- their index. One alert for a routine until it starts on schedule again, however many slots fall in between. Also slots after a
-- pause that is over and that no ticker has ended.
WITH turn AS MATERIALIZED (
    SELECT now FROM routines.take_alert_turn('late', %(every_seconds)s::float8, %(now)s::timestamptz) AS now WHERE now IS NOT NULL
),
watching AS MATERIALIZED (
    SELECT id, collection_id, task_id, routine_id, make_interval(secs => coalesce(after_seconds, 60)) AS after
    FROM routines.alert_rules WHERE 'late' = ANY (events) AND EXISTS (SELECT FROM turn)
),
waiting AS MATERIALIZED (
    SELECT id, collection_id, task_id, routines.without_spread(routines, next_run_at) AS slot, next_run_at AS due_at
    FROM routines.routines
    WHERE next_run_at < (SELECT now FROM turn) - (SELECT min(after) FROM watching)
      AND (routines.without_spread(routines, next_run_at) <= settled_until) IS NOT TRUE
    UNION ALL
    SELECT id, collection_id, task_id, slot, due_at
    FROM (SELECT routines.*, routines.slot_after_pause(routines) AS slot,
                 routines.with_spread(routines, routines.slot_after_pause(routines)) AS due_at
          FROM routines.routines WHERE paused_until < (SELECT now FROM turn) - (SELECT min(after) FROM watching)) AS paused
    WHERE due_at < (SELECT now FROM turn) - (SELECT min(after) FROM watching)
),
opened AS (
    INSERT INTO routines.alerts (collection_id, rule_id, routine_id, event, subject, scheduled_for, detail, opened_at)
    SELECT waiting.collection_id, watching.id, waiting.id, 'late', routines.slot_subject(slot), slot,
           'its slot has been due since ' || routines.utc(due_at) || ' and no ticker has picked it up', (SELECT now FROM turn)
    FROM waiting JOIN watching ON watching.collection_id = waiting.collection_id
    WHERE coalesce(watching.task_id = waiting.task_id, true) AND coalesce(watching.routine_id = waiting.id, true)
      AND due_at < (SELECT now FROM turn) - after
      -- In an outage of many routines nearly all are known. A hashed subquery tells it at once, which an anti-join by stale
      -- statistics does not; the search by index is for the others.
      AND CASE WHEN (watching.id, waiting.id) IN (
                   SELECT rule_id, alerts.routine_id FROM routines.alerts WHERE event = 'late' AND closed_at IS NULL) THEN false
               ELSE (SELECT same.id FROM routines.alerts AS same
                     WHERE same.rule_id = watching.id AND same.routine_id = waiting.id AND same.event = 'late'
                       AND same.subject = routines.slot_subject(slot)) IS NULL END
    ORDER BY due_at
    LIMIT %(batch_size)s::integer
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*)::integer AS handled, count(*)::integer AS opened, 0 AS recovered, 0 AS suppressed, 0 AS notices FROM opened;

-- name: follow_events
-- What happened since, oldest first: opens alerts for it, and closes those that it ends. A routine that is paused by hand opens
-- alerts that are suppressed from the start.
WITH turn AS MATERIALIZED (
    SELECT now FROM routines.take_alert_turn('events', %(every_seconds)s::float8, %(now)s::timestamptz) AS now WHERE now IS NOT NULL
),
taken AS MATERIALIZED (
    DELETE FROM routines.alert_events
    WHERE id = ANY (ARRAY(SELECT id FROM routines.alert_events WHERE EXISTS (SELECT FROM turn)
                          ORDER BY id LIMIT %(batch_size)s::integer FOR UPDATE SKIP LOCKED))
    RETURNING *
),
-- By the routines as they are now; a deleted one opens nothing.
happened AS MATERIALIZED (
    SELECT taken.*, routines.task_id, paused AND paused_reason IS NULL AND coalesce(paused_until > (SELECT now FROM turn), true) AS is_held,
           paused AND paused_reason IS NOT NULL AS is_stopped, coalesce(paused_at, taken.at) AS paused_at, paused_until, paused_note
    FROM taken JOIN routines.routines ON routines.id = taken.routine_id
    WHERE routines.id = ANY (ARRAY(SELECT routine_id FROM taken))
      AND event IN ('late', 'missed', 'failed', 'paused', 'webhook_stopped') AND subject IS NOT NULL
),
found AS MATERIALIZED (
    SELECT happened.*, alert_rules.id AS rule_id, opens, alert_rules.streak,
           -- Whether it is over already: events of one routine may come in any order.
           CASE opens WHEN 'late' THEN CASE WHEN trajectory_id IS NOT NULL THEN at END
                      WHEN 'paused' THEN CASE WHEN NOT is_stopped THEN (SELECT now FROM turn) END
                      WHEN 'webhook_stopped' THEN NULL WHEN 'missed' THEN NULL
                      ELSE CASE WHEN routines.has_completed_since(happened.routine_id, scheduled_for) THEN (SELECT now FROM turn) END
           END AS recovered_at,
           alert_rules.events
    FROM happened
    CROSS JOIN LATERAL unnest(CASE event WHEN 'failed' THEN ARRAY['failed', 'streak'] ELSE ARRAY[event] END) AS opens
    JOIN routines.alert_rules ON alert_rules.collection_id = happened.collection_id
         AND coalesce(alert_rules.task_id = happened.task_id, true) AND coalesce(alert_rules.routine_id = happened.routine_id, true)
         AND opens = ANY (alert_rules.events) AND alert_rules.created_at <= happened.at
    -- A slot that comes while the routine is known to be late is part of that alert.
    WHERE CASE opens
        WHEN 'late' THEN late_seconds > coalesce(after_seconds, 60) AND NOT EXISTS (
            SELECT FROM routines.alerts
            WHERE alerts.rule_id = alert_rules.id AND alerts.routine_id = happened.routine_id AND alerts.event = 'late'
              AND alerts.scheduled_for <= happened.scheduled_for
              AND coalesce(coalesce(closed_at, routines.started_since(alerts.routine_id, alerts.scheduled_for)) >= happened.at, true))
        WHEN 'streak' THEN 1 + routines.failures_in_a_row(
            happened.routine_id, happened.scheduled_for, NULL, alert_rules.streak - 1) >= alert_rules.streak
        ELSE true END
),
endings AS MATERIALIZED (
    SELECT routine_id, max(scheduled_for) FILTER (WHERE event = 'completed') AS completed_slot,
           max(at) FILTER (WHERE event = 'completed') AS completed_at, max(at) FILTER (WHERE event = 'resumed') AS resumed_at,
           max(at) FILTER (WHERE event IN ('held', 'deleted')) AS held_at,
           (array_agg(detail ORDER BY id DESC) FILTER (WHERE event IN ('held', 'deleted')))[1] AS held_reason,
           bool_or(event = 'deleted') AS is_deleted, bool_or(event = 'late') AS was_late
    FROM taken WHERE event IN ('completed', 'resumed', 'held', 'deleted', 'late') GROUP BY routine_id
),
-- Routine by routine: OFFSET 0 makes it one search for each, where a join may compare each with each.
ended AS MATERIALIZED (
    SELECT open.id, ending.at, ending.reason
    FROM endings
    CROSS JOIN LATERAL (
        SELECT id, event, scheduled_for, opened_at FROM routines.alerts
        WHERE alerts.event = ANY ('{late,missed,failed,streak,slow,paused,webhook_stopped}')
          AND alerts.routine_id = endings.routine_id AND closed_at IS NULL
        OFFSET 0) AS open
    CROSS JOIN LATERAL (
        SELECT held_at AS at, held_reason AS reason
        -- An alert that was opened while the pause was not committed yet is suppressed too.
        WHERE open.opened_at <= held_at OR is_deleted OR held_at IS NOT NULL AND EXISTS (
            SELECT FROM routines.routines WHERE routines.id = endings.routine_id AND paused AND paused_reason IS NULL)
        UNION ALL
        SELECT completed_at, NULL WHERE open.event IN ('failed', 'streak') AND open.scheduled_for <= completed_slot
        UNION ALL
        SELECT resumed_at, NULL WHERE open.event = 'paused' AND resumed_at IS NOT NULL
        UNION ALL
        -- What came after its start is judged by itself, although close_ended has not seen the start yet.
        SELECT started_at, NULL FROM routines.started_since(endings.routine_id, open.scheduled_for) AS started_at
        WHERE open.event = 'late' AND was_late AND started_at IS NOT NULL
        LIMIT 1) AS ending
    ORDER BY endings.routine_id, open.id
),
closed AS MATERIALIZED (
    SELECT reason IS NULL AS is_over, routines.close_alert(id, at, reason) AS is_closed FROM ended
),
opened AS (
    INSERT INTO routines.alerts (collection_id, rule_id, routine_id, event, subject, scheduled_for, trajectory_id, detail, opened_at,
                                 closed_at, suppressed_reason, tells_recovery)
    SELECT collection_id, rule_id, routine_id, opens, subject, scheduled_for, trajectory_id,
           CASE opens WHEN 'streak' THEN streak || ' slots in a row failed; the last: ' || coalesce(detail, '') ELSE coalesce(detail, opens) END,
           (SELECT now FROM turn),
           CASE WHEN is_held AND opens <> 'paused' THEN (SELECT now FROM turn) ELSE recovered_at END,
           CASE WHEN is_held AND opens <> 'paused'
                THEN 'the routine was ' || routines.pause_in_words(NULL, paused_at, paused_until, paused_note) END,
           recovered_at IS NOT NULL AND (NOT is_held OR opens = 'paused') AND 'recovered' = ANY (events)
    FROM found
    WHERE (SELECT count(*) FROM closed) >= 0  -- these are closed first: of a rule and an event a routine has one open alert
    ORDER BY id, rule_id
    ON CONFLICT DO NOTHING
    RETURNING closed_at, suppressed_reason
)
SELECT (SELECT count(*) FROM taken)::integer AS handled, (SELECT count(*) FROM opened)::integer AS opened,
       ((SELECT count(*) FROM closed WHERE is_closed AND is_over)
        + (SELECT count(*) FROM opened WHERE suppressed_reason IS NULL AND closed_at IS NOT NULL))::integer AS recovered,
       ((SELECT count(*) FROM closed WHERE is_closed AND NOT is_over)
        + (SELECT count(*) FROM opened WHERE suppressed_reason IS NOT NULL))::integer AS suppressed,
       0 AS notices;

-- name: open_slow
-- Scheduled runs, and retries of these, that go on for longer than the rule allows; without after_seconds, for longer than three
-- times what is usual for the routine, and than ten seconds. A run that ends in between was slow unnoticed: the alert is for runs
-- that somebody may still look at.
WITH turn AS MATERIALIZED (
    SELECT now FROM routines.take_alert_turn('slow', %(every_seconds)s::float8, %(now)s::timestamptz) AS now WHERE now IS NOT NULL
),
watching AS MATERIALIZED (
    SELECT id, collection_id, task_id, routine_id, after_seconds
    FROM routines.alert_rules WHERE 'slow' = ANY (events) AND EXISTS (SELECT FROM turn)
),
running AS MATERIALIZED (
    SELECT run.id, run.collection_id, run.task_id, run.triggered_by_routine_id AS routine_id, run.started_at,
           coalesce(run.scheduled_for, first.scheduled_for) AS slot,
           extract(epoch FROM (SELECT now FROM turn) - run.started_at)::float8 AS seconds
    FROM routines.begun_runs
    JOIN routines.trajectories AS run ON run.id = begun_runs.trajectory_id
    LEFT JOIN routines.trajectories AS first ON first.id = run.retry_of
    WHERE begun_runs.collection_id = ANY (ARRAY(SELECT collection_id FROM watching))
      AND run.trigger IN ('schedule', 'retry') AND run.ended_at IS NULL
      AND run.started_at < (SELECT now FROM turn) - make_interval(secs => (SELECT least(10, min(after_seconds)) FROM watching))
),
-- Once for each run, and only where a rule asks.
usual AS MATERIALIZED (
    SELECT id, routines.slow_percentile(routine_id) AS seconds FROM running
    WHERE seconds > 10 AND EXISTS (SELECT FROM watching WHERE watching.collection_id = running.collection_id AND after_seconds IS NULL)
),
opened AS (
    INSERT INTO routines.alerts (collection_id, rule_id, routine_id, event, subject, scheduled_for, trajectory_id, detail, opened_at)
    SELECT running.collection_id, watching.id, running.routine_id, 'slow', 'run:' || running.id, slot, running.id,
           'run ' || running.id || ' has been running since ' || routines.utc(started_at) || CASE
               WHEN after_seconds IS NULL THEN ', and 95 of 100 runs take less than ' || routines.duration_in_words(usual.seconds)
               ELSE ', longer than ' || routines.duration_in_words(after_seconds) END,
           (SELECT now FROM turn)
    FROM running
    JOIN watching ON watching.collection_id = running.collection_id
    LEFT JOIN usual ON usual.id = running.id
    JOIN routines.routines ON routines.id = running.routine_id
    WHERE coalesce(watching.task_id = running.task_id, true) AND coalesce(watching.routine_id = running.routine_id, true)
      AND running.seconds > coalesce(after_seconds, greatest(10, 3 * usual.seconds))
      AND (after_seconds IS NOT NULL OR usual.seconds IS NOT NULL)
      AND NOT (paused AND paused_reason IS NULL)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*)::integer AS handled, count(*)::integer AS opened, 0 AS recovered, 0 AS suppressed, 0 AS notices FROM opened;

-- name: close_ended
-- Open alerts that nothing but a look can end: a late or missed routine has started on schedule, a slow run has ended, a webhook of
-- the routine has arrived. What is locked waits for the next round.
WITH turn AS MATERIALIZED (
    SELECT now FROM routines.take_alert_turn('ends', %(every_seconds)s::float8, %(now)s::timestamptz) AS now WHERE now IS NOT NULL
),
ended AS MATERIALIZED (
    SELECT alerts.id, ending.at
    FROM routines.alerts CROSS JOIN LATERAL (
        SELECT CASE alerts.event
            WHEN 'late' THEN routines.started_since(alerts.routine_id, alerts.scheduled_for)
            WHEN 'missed' THEN (SELECT created_at FROM routines.trajectories
                                WHERE triggered_by_routine_id = alerts.routine_id AND trajectories.scheduled_for > alerts.scheduled_for
                                ORDER BY trajectories.scheduled_for LIMIT 1)
            WHEN 'slow' THEN coalesce((SELECT coalesce(ended_at, 'infinity') FROM routines.trajectories
                                       WHERE trajectories.id = alerts.trajectory_id), (SELECT now FROM turn))
            ELSE (SELECT delivered_at FROM routines.webhook_deliveries
                  WHERE webhook_deliveries.routine_id = alerts.routine_id AND delivered_at > alerts.opened_at
                    AND webhook_deliveries.id >= substr(alerts.subject, 9)::bigint
                  ORDER BY webhook_deliveries.id LIMIT 1) END AS at) AS ending
    WHERE alerts.event = ANY ('{late,missed,slow,webhook_stopped}') AND alerts.closed_at IS NULL AND ending.at < 'infinity'
      AND EXISTS (SELECT FROM turn)
    LIMIT %(batch_size)s::integer
    FOR UPDATE OF alerts SKIP LOCKED
),
closed AS MATERIALIZED (
    SELECT routines.close_alert(id, at, NULL) AS is_closed FROM ended
)
SELECT count(*)::integer AS handled, 0 AS opened, count(*) FILTER (WHERE is_closed)::integer AS recovered, 0 AS suppressed,
       0 AS notices
FROM closed;

-- name: queue_notices
-- Queues a notice for each alert that none tells yet, of rules that tell at once. One notice tells several if there are more than 10
-- of a rule and event, and all late ones if no ticker has recorded anything since their slots. A late alert joins the newest notice
-- of its rule about late routines, and is told by that, while no ticker has recorded anything since that was queued; or if that tells
-- more than 10, until all of these are over, and for five minutes at least. The rules are locked, so that a secret that is replaced
-- is not deleted before the notice that it signs is seen.
WITH turn AS MATERIALIZED (
    SELECT now FROM routines.take_alert_turn('notices', %(every_seconds)s::float8, %(now)s::timestamptz) AS now WHERE now IS NOT NULL
),
untold AS MATERIALIZED (
    SELECT alerts.id, alerts.rule_id, alerts.event, alerts.scheduled_for
    FROM routines.alerts JOIN routines.alert_rules ON alert_rules.id = alerts.rule_id
    WHERE notice_id IS NULL AND suppressed_reason IS NULL AND digest_at_utc IS NULL AND EXISTS (SELECT FROM turn)
    ORDER BY alerts.id
    LIMIT %(batch_size)s::integer
    FOR UPDATE OF alerts SKIP LOCKED FOR SHARE OF alert_rules SKIP LOCKED
),
tick AS MATERIALIZED (
    SELECT routines.last_tick_at() AS at WHERE EXISTS (SELECT FROM untold WHERE event = 'late')
),
storms AS MATERIALIZED (
    SELECT newest.rule_id, newest.notice_id
    FROM (SELECT late.rule_id, (SELECT max(notice_id) FROM routines.alerts
                                WHERE alerts.rule_id = late.rule_id AND alerts.event = 'late' AND notice_id IS NOT NULL) AS notice_id
          FROM (SELECT DISTINCT rule_id FROM untold WHERE event = 'late') AS late) AS newest
    JOIN routines.webhook_deliveries AS told ON told.id = newest.notice_id
    CROSS JOIN tick
    WHERE coalesce(told.created_at > tick.at, true)
       OR (SELECT count(*) FROM (SELECT FROM routines.alerts WHERE notice_id = newest.notice_id LIMIT 11) AS counted) > 10
          AND (told.created_at > (SELECT now FROM turn) - interval '5 minutes'
               OR EXISTS (SELECT FROM routines.alerts WHERE notice_id = newest.notice_id AND coalesce(closed_at, 'infinity') = 'infinity'))
),
told_apart AS MATERIALIZED (
    SELECT untold.id, untold.rule_id, untold.event, storms.notice_id, together.is_outage,
           CASE WHEN together.is_outage OR count(*) OVER (PARTITION BY untold.rule_id, untold.event, storms.notice_id IS NULL) > 10
                THEN 0 ELSE untold.id END AS part
    FROM untold
    LEFT JOIN storms ON storms.rule_id = untold.rule_id AND untold.event = 'late'
    CROSS JOIN LATERAL (
        SELECT untold.event = 'late' AND coalesce(untold.scheduled_for > (SELECT at FROM tick), true) AS is_outage) AS together
),
parts AS MATERIALIZED (
    SELECT rule_id, event, array_agg(id ORDER BY id) AS ids, bool_or(is_outage) AS is_outage
    FROM told_apart WHERE notice_id IS NULL GROUP BY rule_id, event, part
),
numbered AS MATERIALIZED (
    SELECT *, nextval(pg_get_serial_sequence('routines.webhook_deliveries', 'id')) AS notice_id FROM parts
),
queued AS (
    INSERT INTO routines.webhook_deliveries (id, collection_id, rule_id, event_status, url, secret_id, body, next_attempt_at, created_at)
    OVERRIDING SYSTEM VALUE
    SELECT notice_id, collection_id, rule_id, event, webhook_url, webhook_secret_id,
           routines.notice_body(rule_id, event, ids, CASE WHEN is_outage THEN
               'no ticker has recorded anything' || coalesce(' since ' || routines.utc((SELECT at FROM tick)), '')
               || ', and routines that follow are not told one by one' END),
           (SELECT now FROM turn), (SELECT now FROM turn)
    FROM numbered JOIN routines.alert_rules ON alert_rules.id = rule_id
    RETURNING 1
),
noted AS MATERIALIZED (
    SELECT routines.note_notice(ids, notice_id) AS alerts FROM numbered
    UNION ALL
    SELECT routines.note_notice(array_agg(id), notice_id) FROM told_apart WHERE notice_id IS NOT NULL GROUP BY notice_id
)
SELECT (SELECT coalesce(sum(alerts), 0) FROM noted)::integer AS handled, 0 AS opened, 0 AS recovered, 0 AS suppressed,
       (SELECT count(*) FROM queued)::integer AS notices;

-- name: queue_recoveries
-- Queues a notice for alerts that have been told and are over, of rules that want it and tell at once. One for a routine; and where
-- one notice has told several alerts, one once all of these are over. Of more than 10 of a rule, one tells all.
WITH turn AS MATERIALIZED (
    SELECT now FROM routines.take_alert_turn('recoveries', %(every_seconds)s::float8, %(now)s::timestamptz) AS now WHERE now IS NOT NULL
),
ended AS MATERIALIZED (
    SELECT alerts.id, alerts.rule_id,
           CASE WHEN EXISTS (SELECT FROM routines.alerts AS other WHERE other.notice_id = alerts.notice_id AND other.id <> alerts.id)
                THEN 'notice ' || alerts.notice_id ELSE 'routine ' || alerts.routine_id END AS part
    FROM routines.alerts JOIN routines.alert_rules ON alert_rules.id = alerts.rule_id
    WHERE tells_recovery AND alerts.notice_id IS NOT NULL AND digest_at_utc IS NULL AND EXISTS (SELECT FROM turn)
      AND NOT EXISTS (SELECT FROM routines.alerts AS other WHERE other.notice_id = alerts.notice_id AND coalesce(other.closed_at, 'infinity') = 'infinity')
    ORDER BY alerts.id
    LIMIT %(batch_size)s::integer
    FOR UPDATE OF alerts SKIP LOCKED FOR SHARE OF alert_rules SKIP LOCKED
),
parts AS MATERIALIZED (
    SELECT rule_id, array_agg(id ORDER BY id) AS ids
    FROM (SELECT ended.*, dense_rank() OVER (PARTITION BY rule_id ORDER BY part) AS rank FROM ended) AS ranked
    JOIN (SELECT rule_id, count(DISTINCT part) > 10 AS is_storm FROM ended GROUP BY rule_id) AS rules USING (rule_id)
    GROUP BY rule_id, CASE WHEN is_storm THEN 0 ELSE rank END
),
numbered AS MATERIALIZED (
    SELECT *, nextval(pg_get_serial_sequence('routines.webhook_deliveries', 'id')) AS notice_id FROM parts
),
queued AS (
    INSERT INTO routines.webhook_deliveries (id, collection_id, rule_id, event_status, url, secret_id, body, next_attempt_at, created_at)
    OVERRIDING SYSTEM VALUE
    SELECT notice_id, collection_id, rule_id, 'recovered', webhook_url, webhook_secret_id,
           routines.notice_body(rule_id, 'recovered', ids), (SELECT now FROM turn), (SELECT now FROM turn)
    FROM numbered JOIN routines.alert_rules ON alert_rules.id = rule_id
    RETURNING 1
),
noted AS MATERIALIZED (
    SELECT routines.note_notice(ids, notice_id) AS alerts FROM numbered
)
SELECT (SELECT coalesce(sum(alerts), 0) FROM noted)::integer AS handled, 0 AS opened, 0 AS recovered, 0 AS suppressed,
       (SELECT count(*) FROM queued)::integer AS notices;

-- name: queue_digests
-- The daily notice of rules whose time has come: all alerts opened since the last one, and earlier ones that are over since. None is
-- sent if there is nothing to tell.
WITH turn AS MATERIALIZED (
    SELECT now FROM routines.take_alert_turn('digests', %(every_seconds)s::float8, %(now)s::timestamptz) AS now WHERE now IS NOT NULL
),
due AS MATERIALIZED (
    SELECT id, collection_id, webhook_url, webhook_secret_id, events, digested_until, until
    FROM routines.alert_rules CROSS JOIN turn CROSS JOIN LATERAL (
        SELECT (date_trunc('day', (now AT TIME ZONE 'UTC') - digest_at_utc::interval) + digest_at_utc::interval) AT TIME ZONE 'UTC' AS until
    ) AS today
    WHERE digest_at_utc IS NOT NULL AND digested_until < until
    ORDER BY id
    LIMIT %(batch_size)s::integer
    FOR NO KEY UPDATE OF alert_rules SKIP LOCKED
),
-- Nobody else queues notices of these rules, which are locked. Each kind by its own index.
untold AS MATERIALIZED (
    SELECT alerts.id, due.id AS rule_id, event AS counts_as
    FROM due JOIN routines.alerts ON alerts.rule_id = due.id
    WHERE alerts.rule_id = ANY (ARRAY(SELECT id FROM due)) AND notice_id IS NULL AND suppressed_reason IS NULL AND opened_at < until
    UNION ALL
    SELECT alerts.id, due.id, 'recovered'
    FROM due JOIN routines.alerts ON alerts.rule_id = due.id
    WHERE alerts.rule_id = ANY (ARRAY(SELECT id FROM due)) AND tells_recovery AND notice_id IS NOT NULL AND closed_at < until
),
digests AS MATERIALIZED (
    SELECT rule_id, json_object_agg(counts_as, number ORDER BY counts_as) AS counts,
           (SELECT array_agg(id ORDER BY id) FROM untold WHERE untold.rule_id = counted.rule_id) AS ids
    FROM (SELECT rule_id, counts_as, count(*) AS number FROM untold GROUP BY rule_id, counts_as) AS counted GROUP BY rule_id
),
numbered AS MATERIALIZED (
    SELECT *, nextval(pg_get_serial_sequence('routines.webhook_deliveries', 'id')) AS notice_id FROM digests
),
queued AS (
    INSERT INTO routines.webhook_deliveries (id, collection_id, rule_id, event_status, url, secret_id, body, next_attempt_at, created_at)
    OVERRIDING SYSTEM VALUE
    SELECT notice_id, collection_id, rule_id, 'digest', webhook_url, webhook_secret_id,
           routines.notice_body(rule_id, 'digest', ids, NULL, json_build_object(
               'since', routines.json_time(digested_until)::json, 'until', routines.json_time(until)::json, 'counts', counts)),
           (SELECT now FROM turn), (SELECT now FROM turn)
    FROM numbered JOIN due ON due.id = rule_id
    RETURNING 1
),
noted AS MATERIALIZED (
    SELECT routines.note_notice(ids, notice_id) AS alerts FROM numbered
),
digested AS (
    UPDATE routines.alert_rules SET digested_until = due.until FROM due
    WHERE alert_rules.id = due.id AND alert_rules.id = ANY (ARRAY(SELECT id FROM due))
    RETURNING 1
)
SELECT (SELECT count(*) FROM digested)::integer AS handled, 0 AS opened, 0 AS recovered, 0 AS suppressed,
       -- As many as were noted, which are not noted unless they are asked for.
       (SELECT count(*) FROM queued WHERE (SELECT count(*) FROM noted) > 0)::integer AS notices;
