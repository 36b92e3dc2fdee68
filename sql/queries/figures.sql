-- What an operator is alerted by. Each is a statement of its own, so that one that cannot be answered takes no other along.
-- They are asked by the API's role, which sees the rows of no collection here: migrations/0026_figures.sql.

-- name: routines
SELECT due, oldest_due_seconds, paused_by_strikes FROM routines.figures_of_routines(%(most)s::integer);

-- name: skips
SELECT overlap, missed, paused, failed_to_start FROM routines.figures_of_skips(%(most)s::integer);

-- name: runs
SELECT pending, running, oldest_pending_seconds FROM routines.figures_of_runs(%(most)s::integer, %(most_lanes)s::integer);

-- name: deliveries
SELECT due, oldest_due_seconds FROM routines.figures_of_deliveries(%(most)s::integer);

-- name: programs
-- Tickers and workers that are connected: each has one session of this name. The names of sessions are shown to everybody.
SELECT count(*) FILTER (WHERE application_name = 'routines-ticker')::integer AS tickers,
       count(*) FILTER (WHERE application_name = 'routines-worker-bell')::integer AS workers
FROM pg_stat_activity WHERE datname = current_database();

-- name: snapshots
SELECT routines.figures_of_snapshots() AS oldest_seconds;

-- name: schema
SELECT max(version)::integer AS version FROM routines.schema_migrations;
