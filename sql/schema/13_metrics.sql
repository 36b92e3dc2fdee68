-- Metrics for operators: counts and ages over all collections that reveal nothing about any single one. The API serves them but
-- sees only one collection at a time, so each is a narrow function that runs as the owner. Every read is bounded whatever the
-- number of rows, because metrics are scraped repeatedly, even while the database is in trouble. Why this design:
-- docs/decisions/0015. Statements: queries/metrics.sql.

CREATE FUNCTION routines.metrics_of_routines(most integer)
RETURNS TABLE (due integer, oldest_due_seconds float8, paused_by_strikes integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
    -- In the order of routines_next_run_at_idx: due routines are at its head.
    SELECT (SELECT count(*) FROM (SELECT FROM routines.routines WHERE next_run_at <= now()
                                  ORDER BY next_run_at LIMIT most) AS counted)::integer,
           coalesce(greatest(0, extract(epoch FROM now() - (
               SELECT next_run_at FROM routines.routines WHERE next_run_at IS NOT NULL ORDER BY next_run_at LIMIT 1))), 0)::float8,
           -- Not those that were paused after failed slots: these are their owners' business. They have no strikes.
           (SELECT count(*) FILTER (WHERE strikes > 0 OR pause_after_failures IS NULL)
            FROM (SELECT strikes, pause_after_failures FROM routines.routines WHERE paused_reason IS NOT NULL
                  ORDER BY id LIMIT most) AS counted)::integer;
$$;
COMMENT ON FUNCTION routines.metrics_of_routines IS
    'Over all collections: the number of due routines and of routines paused by strikes, each counted up to `most`, and how long the oldest slot has been due (0 if none is).';

CREATE FUNCTION routines.metrics_of_skips(most integer)
RETURNS TABLE (overlap bigint, coalesced bigint, missed bigint, paused bigint, failed_to_start bigint, calendar bigint, outside_hours bigint, backoff bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
    SELECT coalesce(sum(slot_count) FILTER (WHERE reason = 'overlap'), 0)::bigint,
           coalesce(sum(slot_count) FILTER (WHERE reason = 'coalesced'), 0)::bigint,
           coalesce(sum(slot_count) FILTER (WHERE reason = 'missed'), 0)::bigint,
           coalesce(sum(slot_count) FILTER (WHERE reason = 'paused'), 0)::bigint,
           coalesce(sum(slot_count) FILTER (WHERE reason = 'failed_to_start'), 0)::bigint,
           coalesce(sum(slot_count) FILTER (WHERE reason = 'calendar'), 0)::bigint,
           coalesce(sum(slot_count) FILTER (WHERE reason = 'outside_hours'), 0)::bigint,
           coalesce(sum(slot_count) FILTER (WHERE reason = 'backoff'), 0)::bigint
    FROM (SELECT reason, slot_count, recorded_at FROM routines.skips ORDER BY id DESC LIMIT most) AS newest
    WHERE recorded_at > now() - interval '1 hour';
$$;
COMMENT ON FUNCTION routines.metrics_of_skips IS
    'Over all collections: slots recorded as skipped in the last hour, by reason, among the newest `most` rows.';

CREATE FUNCTION routines.metrics_of_runs(most integer, most_lanes integer)
RETURNS TABLE (pending integer, running integer, oldest_pending_seconds float8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
    -- The oldest of each task, stepping through trajectories_active_idx as a claim does.
    WITH RECURSIVE lanes AS (
        (SELECT collection_id, task_id, created_at, 1 AS number FROM routines.trajectories
         WHERE ended_at IS NULL AND status = 'pending'
         ORDER BY collection_id, task_id, id LIMIT 1)
        UNION ALL
        SELECT following.collection_id, following.task_id, following.created_at, lanes.number + 1
        FROM lanes CROSS JOIN LATERAL (
            SELECT collection_id, task_id, created_at FROM routines.trajectories AS waiting
            WHERE ended_at IS NULL AND status = 'pending'
              AND (waiting.collection_id, waiting.task_id) > (lanes.collection_id, lanes.task_id)
            ORDER BY waiting.collection_id, waiting.task_id, waiting.id LIMIT 1) AS following
        WHERE lanes.number < most_lanes
    ),
    active AS (
        SELECT status FROM routines.trajectories WHERE ended_at IS NULL
        ORDER BY collection_id, task_id, id LIMIT most
    )
    SELECT (SELECT count(*) FROM active WHERE status = 'pending')::integer,
           (SELECT count(*) FROM active WHERE status = 'running')::integer,
           coalesce(greatest(0, extract(epoch FROM now() - (SELECT min(created_at) FROM lanes))), 0)::float8;
$$;
COMMENT ON FUNCTION routines.metrics_of_runs IS
    'Over all collections: pending and running runs among up to `most` active ones, and how long the oldest pending run has waited, judging by the oldest of each of `most_lanes` tasks (0 if none is pending).';

CREATE FUNCTION routines.metrics_of_deliveries(most integer)
RETURNS TABLE (due integer, oldest_due_seconds float8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
    SELECT count(*)::integer, coalesce(greatest(0, extract(epoch FROM now() - min(next_attempt_at))), 0)::float8
    FROM (SELECT next_attempt_at FROM routines.webhook_deliveries WHERE next_attempt_at <= now()
          ORDER BY next_attempt_at LIMIT most) AS waiting;
$$;
COMMENT ON FUNCTION routines.metrics_of_deliveries IS
    'Over all collections: due webhooks that no worker has claimed, counted up to `most`, and how long the oldest has been due (0 if none is).';

CREATE FUNCTION routines.metrics_of_alerts(most integer)
RETURNS TABLE (open integer, untold integer, since_round_seconds float8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
    SELECT (SELECT count(*) FROM (SELECT FROM routines.alerts WHERE closed_at IS NULL LIMIT most) AS counted)::integer,
           (SELECT count(*) FROM (SELECT FROM routines.alerts JOIN routines.alert_rules ON alert_rules.id = rule_id
                                  WHERE notice_id IS NULL AND suppressed_reason IS NULL AND digest_at_utc IS NULL
                                  LIMIT most) AS counted)::integer,
           -- Without rules there is nothing that could be late.
           CASE WHEN EXISTS (SELECT FROM routines.alert_rules)
                THEN (SELECT greatest(0, extract(epoch FROM now() - min(ran_at))) FROM routines.alert_rounds) ELSE 0 END::float8;
$$;
COMMENT ON FUNCTION routines.metrics_of_alerts IS
    'Over all collections: the number of open alerts, and of alerts that wait for their notice, each counted up to `most`, and how long ago the statement of queries/alerts.sql ran that has not run for the longest time (0 if there are no rules).';

CREATE FUNCTION routines.metrics_of_snapshots() RETURNS float8
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'the owner of Routines cannot see the sessions of other roles';
    END IF;
    RETURN (
        SELECT coalesce(greatest(0, extract(epoch FROM clock_timestamp() - min(started_at))), 0)
        FROM (SELECT xact_start AS started_at FROM pg_stat_activity
              WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'
                AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
              UNION ALL
              SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()) AS open);
END $$;
COMMENT ON FUNCTION routines.metrics_of_snapshots IS
    'The age of the oldest open snapshot of this database in seconds (0 if none is open). Raises an error if the owner lacks pg_read_all_stats.';

REVOKE EXECUTE ON FUNCTION routines.metrics_of_routines, routines.metrics_of_skips, routines.metrics_of_runs,
    routines.metrics_of_deliveries, routines.metrics_of_alerts, routines.metrics_of_snapshots FROM PUBLIC;
