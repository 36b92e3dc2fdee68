-- The history of migrations: see src/routines_core/db/migration_files.py. How they are applied: migrations.py beside it.

-- name: notice_lost_client
-- Otherwise a migration whose process was killed would stay in the queue for its locks, and hold up everybody behind it.
SELECT set_config('client_connection_check_interval', '1s', false);

-- name: limit_waits
-- For the locks of the migration itself, until the end of its transaction.
SELECT set_config('lock_timeout', %(milliseconds)s::text, true);

-- name: blockers
-- The sessions that this one waits for: those that hold the lock, and those that wait for it ahead of it.
SELECT blocker.pid, nullif(application_name, '') AS program, usename::text AS login, state, xact_start AS since
FROM unnest(pg_blocking_pids(%(pid)s::integer)) AS blocker (pid)
LEFT JOIN pg_stat_activity ON pg_stat_activity.pid = blocker.pid
ORDER BY xact_start;

-- name: table_sizes
SELECT name, pg_total_relation_size(to_regclass(name)) AS bytes FROM unnest(%(names)s::text[]) AS name
WHERE to_regclass(name) IS NOT NULL;

-- name: lock_migrations
-- One migrator at a time. Kept until it is released or the connection ends. It is tried and not waited for: a session that waits has a
-- snapshot, and an index that is built while rows are written waits for the end of every older snapshot.
-- `holder` is the process of the session that has it; null if that has just ended.
SELECT pg_try_advisory_lock(key) AS is_locked, (
    SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = key
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS holder
FROM hashtextextended('routines.schema_migrations', 0) AS key;

-- name: unlock_migrations
SELECT pg_advisory_unlock(hashtextextended('routines.schema_migrations', 0));

-- name: create_history
CREATE SCHEMA IF NOT EXISTS routines;
COMMENT ON SCHEMA routines IS 'Routines: a scheduler that accounts for every slot. Start with TABLE routines.help;';
CREATE TABLE IF NOT EXISTS routines.schema_migrations (
    version    text CONSTRAINT schema_migrations_pkey PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  routines.schema_migrations IS 'The files of sql/migrations that were applied to this database.';
COMMENT ON COLUMN routines.schema_migrations.version IS 'The time that the file''s name starts with, YYYYMMDDTHHMMSS.';
COMMENT ON COLUMN routines.schema_migrations.name IS 'The file''s name without its extension.';
COMMENT ON COLUMN routines.schema_migrations.checksum IS 'SHA-256 of the file as it was applied.';
COMMENT ON COLUMN routines.schema_migrations.applied_at IS 'When it was applied.';

-- name: applied_migrations
SELECT version, name, checksum FROM routines.schema_migrations ORDER BY version;

-- name: history_exists
SELECT to_regclass('routines.schema_migrations') IS NOT NULL AS exists;

-- name: record_migration
INSERT INTO routines.schema_migrations (version, name, checksum)
VALUES (%(version)s::text, %(name)s::text, %(checksum)s::text);

-- name: server_version
SELECT current_setting('server_version_num')::integer AS number, current_setting('server_version') AS text,
       current_setting('server_encoding') AS encoding;
