-- After a restore or an asynchronous failover: see src/routines_core/db/restore.py.

-- name: restored_state
-- How far the records reach, and what the programs will make up for. The newest record is not older than the restore point by
-- more than the time in which nothing happened.
SELECT greatest((SELECT created_at FROM routines.trajectories ORDER BY id DESC LIMIT 1),
                (SELECT recorded_at FROM routines.skips ORDER BY id DESC LIMIT 1),
                (SELECT max(applied_at) FROM routines.schema_migrations)) AS newest_record_at,
       (SELECT count(*) FROM routines.routines WHERE next_run_at <= now()) AS due_routines,
       (SELECT count(*) FROM routines.trajectories WHERE ended_at IS NULL) AS active_runs,
       (SELECT count(*) FROM routines.webhook_deliveries WHERE next_attempt_at <= now()) AS due_webhooks;

-- name: move_identities
-- Moves the identity of every table of the schema on. setval is not undone by a rollback, and nextval may be called meanwhile.
WITH identities AS MATERIALIZED (
    SELECT pg_class.relname::text AS name, sequence, coalesce(pg_sequence_last_value(sequence), 0) AS last_id
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attidentity <> ''
    CROSS JOIN LATERAL (
        SELECT pg_get_serial_sequence(quote_ident(nspname) || '.' || quote_ident(relname), attname)::regclass AS sequence
        FROM pg_namespace WHERE pg_namespace.oid = relnamespace) AS owned
    WHERE relnamespace = 'routines'::regnamespace
)
SELECT name, last_id, setval(sequence, last_id + %(by)s::bigint) + 1 AS next_id FROM identities ORDER BY name;
