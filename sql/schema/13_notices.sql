-- Alerts as the API and a person at psql see them, what a notice says, and what workers ask while they judge. The statements that
-- open and close alerts are in queries/alerts.sql.

CREATE VIEW routines.alert_details WITH (security_invoker = true) AS
    SELECT alerts.id, alert_rules.name AS rule, event, coalesce(tasks.name, deleted_tasks.name, 'deleted')::routines.slug AS task,
           coalesce(routine_names.name, deleted_routines.name, 'deleted')::routines.slug AS routine, alerts.routine_id,
           scheduled_for, alerts.trajectory_id, detail,
           CASE WHEN closed_at IS NULL THEN 'open' WHEN suppressed_reason IS NULL THEN 'recovered' ELSE 'suppressed' END AS state,
           opened_at, notice.delivered_at AS notified_at,
           CASE WHEN notice_id IS NULL THEN CASE WHEN suppressed_reason IS NULL THEN 'waiting' ELSE 'none' END
                WHEN notice.next_attempt_at IS NOT NULL THEN 'pending'
                WHEN notice.give_up_reason IS NOT NULL THEN 'given_up' ELSE 'delivered' END AS notice,
           CASE WHEN suppressed_reason IS NULL THEN closed_at END AS recovered_at,
           CASE WHEN suppressed_reason IS NOT NULL THEN closed_at END AS suppressed_at, suppressed_reason,
           alerts.rule_id, alerts.collection_id
    FROM routines.alerts
    JOIN routines.alert_rules ON alert_rules.id = alerts.rule_id
    LEFT JOIN routines.routine_names ON routine_names.routine_id = alerts.routine_id
    LEFT JOIN routines.deleted_routines ON deleted_routines.id = alerts.routine_id
    LEFT JOIN routines.tasks ON tasks.id = coalesce(routine_names.task_id, deleted_routines.task_id)
    LEFT JOIN routines.deleted_tasks ON deleted_tasks.id = deleted_routines.task_id
    LEFT JOIN routines.webhook_deliveries AS notice ON notice.id = notice_id;
COMMENT ON VIEW routines.alert_details IS
    'Alerts with their state and names. To list open ones: SELECT * FROM routines.alert_details WHERE state = ''open'' ORDER BY id DESC;';
COMMENT ON COLUMN routines.alert_details.id IS 'alert_id in a notice.';
COMMENT ON COLUMN routines.alert_details.rule IS 'The rule that it is of.';
COMMENT ON COLUMN routines.alert_details.event IS 'late, missed, failed, streak, slow, paused or webhook_stopped.';
COMMENT ON COLUMN routines.alert_details.task IS 'The task; for a deleted one, its last name.';
COMMENT ON COLUMN routines.alert_details.routine IS 'The routine; for a deleted one, its last name.';
COMMENT ON COLUMN routines.alert_details.routine_id IS 'Its id.';
COMMENT ON COLUMN routines.alert_details.scheduled_for IS 'The slot; of late the first that was; null if it is about none.';
COMMENT ON COLUMN routines.alert_details.trajectory_id IS 'The run; null if it is about none.';
COMMENT ON COLUMN routines.alert_details.detail IS 'A sentence for people.';
COMMENT ON COLUMN routines.alert_details.state IS 'open, recovered or suppressed.';
COMMENT ON COLUMN routines.alert_details.opened_at IS 'When it was found.';
COMMENT ON COLUMN routines.alert_details.notified_at IS 'When the receiver accepted its notice; null if it has not.';
COMMENT ON COLUMN routines.alert_details.notice IS
    'waiting (for the next round of a worker, or for the digest), pending (queued, perhaps after failed attempts), delivered, given_up, or none (suppressed before it was told).';
COMMENT ON COLUMN routines.alert_details.recovered_at IS 'When it was over; null if it is not.';
COMMENT ON COLUMN routines.alert_details.suppressed_at IS 'When it was suppressed; null if it was not.';
COMMENT ON COLUMN routines.alert_details.suppressed_reason IS 'Why it was suppressed, say by a pause; null if it was not.';
COMMENT ON COLUMN routines.alert_details.rule_id IS 'The id of the rule.';
COMMENT ON COLUMN routines.alert_details.collection_id IS 'The tenant.';

-------------------------------------------------------------------------------------------------------------- judging
CREATE FUNCTION routines.last_tick_at() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT greatest(
        (SELECT max(created_at) FROM (SELECT created_at, trigger FROM routines.trajectories ORDER BY id DESC LIMIT 1000) AS newest
         WHERE trigger = 'schedule'),
        (SELECT max(recorded_at) FROM (SELECT recorded_at, reason, detail FROM routines.skips ORDER BY id DESC LIMIT 1000) AS newest
         WHERE reason IN ('overlap', 'coalesced', 'failed_to_start', 'backoff') OR reason = 'missed' AND detail IS NULL));
$$;
COMMENT ON FUNCTION routines.last_tick_at IS
    'When a ticker last recorded an outcome, judging by the newest 1,000 runs and skips; null if none of these is of a ticker.';

CREATE FUNCTION routines.slow_percentile(of_routine bigint) RETURNS float8 LANGUAGE sql STABLE AS $$
    SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - started_at))
    FROM (SELECT started_at, ended_at, final_status FROM routines.trajectories
          WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL ORDER BY scheduled_for DESC LIMIT 100) AS newest
    WHERE final_status = 'completed' AND started_at IS NOT NULL
    HAVING count(*) >= 5;
$$;
COMMENT ON FUNCTION routines.slow_percentile IS
    'The 95th percentile of how long the completed ones among the newest 100 scheduled runs of a routine took; null if fewer than 5 have completed.';

CREATE FUNCTION routines.has_completed_since(of_routine bigint, slot timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM (SELECT id, status, retried_by FROM routines.trajectories
                     WHERE triggered_by_routine_id = of_routine AND scheduled_for > slot ORDER BY scheduled_for LIMIT 100) AS later
        WHERE routines.status_of_slot(id, status, retried_by) = 'completed');
$$;
COMMENT ON FUNCTION routines.has_completed_since IS 'Whether one of the next 100 slots after this one has completed.';

------------------------------------------------------------------------------------------------------------- notices
CREATE FUNCTION routines.alert_json(alert_id bigint) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'alert_id', id, 'event', event, 'task', task, 'routine', routine, 'routine_id', routine_id,
        'scheduled_for', routines.json_time(scheduled_for)::json, 'trajectory_id', trajectory_id,
        'opened_at', routines.json_time(opened_at)::json, 'recovered_at', routines.json_time(recovered_at)::json, 'detail', detail)
    FROM routines.alert_details WHERE id = alert_id;
$$;
COMMENT ON FUNCTION routines.alert_json IS 'An alert as notices show it.';

CREATE FUNCTION routines.notice_body(
    of_rule bigint, notice text, alert_ids bigint[], remark text DEFAULT NULL, facts json DEFAULT '{}'
) RETURNS bytea LANGUAGE plpgsql STABLE AS $$
DECLARE
    number integer := cardinality(alert_ids);
    head   text;
    alone  json;
BEGIN
    SELECT format('"event":%s,"rule":%s,"collection":%s,"count":%s', to_json(notice), to_json(alert_rules.name),
                  to_json(collections.name), number) INTO head
    FROM routines.alert_rules JOIN routines.collections ON collections.id = collection_id WHERE alert_rules.id = of_rule;
    IF number = 1 AND notice <> 'digest' THEN
        alone := routines.alert_json(alert_ids[1]);
        RETURN convert_to(format(
            '{%s,"alert_id":%s,%s"task":%s,"routine":%s,"routine_id":%s,"scheduled_for":%s,"trajectory_id":%s,"opened_at":%s,'
            '"recovered_at":%s,"detail":%s}',
            head, alone -> 'alert_id', CASE WHEN notice = 'recovered' THEN format('"of":%s,', alone -> 'event') ELSE '' END,
            alone -> 'task', alone -> 'routine', alone -> 'routine_id', alone -> 'scheduled_for', alone -> 'trajectory_id',
            alone -> 'opened_at', alone -> 'recovered_at', to_json(concat_ws('; ', alone ->> 'detail', remark))), 'UTF8');
    END IF;
    RETURN convert_to(format(
        '{%s,"detail":%s,%s"alerts":%s}', head,
        to_json(concat_ws('; ', number || CASE WHEN notice = 'late' THEN ' routines are late'
                                               WHEN notice = 'recovered' THEN ' alerts are over'
                                               WHEN notice <> 'digest' THEN ' alerts at once'
                                               WHEN number = 1 THEN ' alert' ELSE ' alerts' END, remark)),
        (SELECT coalesce(string_agg(format('%s:%s,', to_json(key), value), ''), '') FROM json_each(facts)),
        (SELECT json_agg(routines.alert_json(listed) ORDER BY listed) FROM unnest(alert_ids[:20]) AS listed)), 'UTF8');
END $$;
COMMENT ON FUNCTION routines.notice_body IS
    'The body of a notice: of one alert its fields, of several and in a digest the first 20, with a remark and further facts. A few KiB, whatever their number.';
