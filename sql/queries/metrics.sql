-- Metrics for operators. Each is a separate statement, so that one failure does not affect the others. The API's role runs
-- them without naming a collection, so it sees no rows here: see schema/13_metrics.sql.

-- name: routines
SELECT due, oldest_due_seconds, paused_by_strikes FROM routines.metrics_of_routines(%(most)s::integer);

-- name: skips
SELECT overlap, coalesced, missed, paused, failed_to_start, calendar, outside_hours, backoff FROM routines.metrics_of_skips(%(most)s::integer);

-- name: runs
SELECT pending, running, oldest_pending_seconds FROM routines.metrics_of_runs(%(most)s::integer, %(most_lanes)s::integer);

-- name: deliveries
SELECT due, oldest_due_seconds FROM routines.metrics_of_deliveries(%(most)s::integer);

-- name: alerts
SELECT open, untold, since_round_seconds FROM routines.metrics_of_alerts(%(most)s::integer);

-- name: programs
-- Connected tickers and workers: each has one session of this name. Every role can see the names of sessions.
SELECT count(*) FILTER (WHERE application_name = 'routines-ticker')::integer AS tickers,
       count(*) FILTER (WHERE application_name = 'routines-worker-wakeup')::integer AS workers
FROM pg_stat_activity WHERE datname = current_database();

-- name: snapshots
SELECT routines.metrics_of_snapshots() AS oldest_seconds;

-- name: schema
-- The time in the name of the newest migration, as a number: 20261129090000.
SELECT replace(max(version), 'T', '')::bigint AS version FROM routines.schema_migrations;
