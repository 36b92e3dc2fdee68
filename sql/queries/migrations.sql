-- The history of migrations: see src/routines_core/db/migrations.py.

-- name: lock_migrations
-- One migrator at a time. Released at the end of the transaction, or with the connection.
SELECT pg_advisory_xact_lock(hashtextextended('routines.schema_migrations', 0));

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
