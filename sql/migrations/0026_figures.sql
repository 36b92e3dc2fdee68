-- What an operator is alerted by: a few figures of all collections together, which say nothing of any of them. The API serves
-- them and sees one collection at a time, so each is a narrow door that runs as the owner. Every read is bounded, whatever the
-- number of rows: they are asked again and again, also while the database is in trouble. Why so: docs/decisions/0015.

-- Nearly empty, so nearly free: a tick writes no row that belongs in it.
CREATE INDEX routines_struck_idx ON routines.routines (id) WHERE paused_reason IS NOT NULL;

CREATE FUNCTION routines.figures_of_routines(most integer)
RETURNS TABLE (due integer, oldest_due_seconds float8, paused_by_strikes integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
    -- In the order of routines_next_run_at_idx, whose head is what is due.
    SELECT (SELECT count(*) FROM (SELECT FROM routines.routines WHERE next_run_at <= now()
                                  ORDER BY next_run_at LIMIT most) AS counted)::integer,
           coalesce(greatest(0, extract(epoch FROM now() - (
               SELECT next_run_at FROM routines.routines WHERE next_run_at IS NOT NULL ORDER BY next_run_at LIMIT 1))), 0)::float8,
           (SELECT count(*) FROM (SELECT FROM routines.routines WHERE paused_reason IS NOT NULL
                                  ORDER BY id LIMIT most) AS counted)::integer;
$$;
COMMENT ON FUNCTION routines.figures_of_routines IS
    'Of all collections: routines that are due and those that were paused by strikes, counted up to `most`, and for how long the oldest slot has been due (0: none is).';

CREATE FUNCTION routines.figures_of_skips(most integer)
RETURNS TABLE (overlap bigint, missed bigint, paused bigint, failed_to_start bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
    SELECT coalesce(sum(slot_count) FILTER (WHERE reason = 'overlap'), 0)::bigint,
           coalesce(sum(slot_count) FILTER (WHERE reason = 'missed'), 0)::bigint,
           coalesce(sum(slot_count) FILTER (WHERE reason = 'paused'), 0)::bigint,
           coalesce(sum(slot_count) FILTER (WHERE reason = 'failed_to_start'), 0)::bigint
    FROM (SELECT reason, slot_count, recorded_at FROM routines.skips ORDER BY id DESC LIMIT most) AS newest
    WHERE recorded_at > now() - interval '1 hour';
$$;
COMMENT ON FUNCTION routines.figures_of_skips IS
    'Of all collections: slots that were recorded as skipped in the last hour, by reason; the newest `most` rows are looked at.';

CREATE FUNCTION routines.figures_of_runs(most integer, most_lanes integer)
RETURNS TABLE (pending integer, running integer, oldest_pending_seconds float8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
    -- The oldest of each task, from one to the next through trajectories_active_idx, as a claim goes.
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
COMMENT ON FUNCTION routines.figures_of_runs IS
    'Of all collections: active runs, of which `most` are looked at, and for how long the oldest pending one has waited, by the oldest of each of `most_lanes` tasks (0: none is pending).';

CREATE FUNCTION routines.figures_of_deliveries(most integer)
RETURNS TABLE (due integer, oldest_due_seconds float8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
    SELECT count(*)::integer, coalesce(greatest(0, extract(epoch FROM now() - min(next_attempt_at))), 0)::float8
    FROM (SELECT next_attempt_at FROM routines.webhook_deliveries WHERE next_attempt_at <= now()
          ORDER BY next_attempt_at LIMIT most) AS waiting;
$$;
COMMENT ON FUNCTION routines.figures_of_deliveries IS
    'Of all collections: webhooks that are due and that no worker has in hand, counted up to `most`, and for how long the oldest has been (0: none is).';

CREATE FUNCTION routines.figures_of_snapshots() RETURNS float8
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'the owner of Routines does not see the sessions of others';
    END IF;
    RETURN (
        SELECT coalesce(greatest(0, extract(epoch FROM clock_timestamp() - min(started_at))), 0)
        FROM (SELECT xact_start AS started_at FROM pg_stat_activity
              WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'
                AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
              UNION ALL
              SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()) AS open);
END $$;
COMMENT ON FUNCTION routines.figures_of_snapshots IS
    'The age of the oldest open snapshot of this database in seconds (0: none is open); an error where the owner lacks pg_read_all_stats.';

REVOKE EXECUTE ON FUNCTION routines.figures_of_routines, routines.figures_of_skips, routines.figures_of_runs,
    routines.figures_of_deliveries, routines.figures_of_snapshots FROM PUBLIC;
INSERT INTO routines.role_grants (role, on_object, privileges) VALUES
    ('routines_api', 'FUNCTION routines.figures_of_routines(integer)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.figures_of_skips(integer)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.figures_of_runs(integer, integer)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.figures_of_deliveries(integer)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.figures_of_snapshots()', 'EXECUTE');
SELECT routines.set_up_roles();
