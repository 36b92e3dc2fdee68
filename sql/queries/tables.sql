-- How well the tables are kept: what `routines doctor` says of them.

-- name: large_tables
-- Whether tables lack statistics, have some from before most of their changes, or have more dead rows than others. Only of those
-- that this login may read, and larger than a megabyte: in a small one, neither matters. Statistics are looked for themselves,
-- because the time of the last ANALYZE is forgotten after a crash.
SELECT relname::text AS name, n_live_tup AS live_rows, n_dead_tup AS dead_rows, n_mod_since_analyze AS changed_rows,
       NOT EXISTS (SELECT FROM pg_stats WHERE pg_stats.schemaname = 'routines' AND tablename = relname) AS lacks_statistics,
       n_mod_since_analyze > greatest(n_live_tup, 10000) / 2 AS has_old_statistics,
       n_dead_tup > greatest(n_live_tup, 10000) AS has_dead_rows
FROM pg_stat_user_tables
WHERE schemaname = 'routines' AND pg_table_size(relid) > 2 ^ 20 AND has_table_privilege(relid, 'SELECT')
ORDER BY relname;
