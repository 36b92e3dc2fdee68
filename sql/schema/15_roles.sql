-- Roles and grants. Roles belong to the cluster, not to the database: they may exist already, or an administrator may have to
-- create them. So the grants are rows of a table, and set_up_roles() applies them to the roles that exist, as often as it is
-- called. How to set the roles up: docs/run/roles.md.

-- No triggers.
CREATE TABLE routines.role_grants (
    role       text NOT NULL CONSTRAINT role_grants_role_is_known
               CHECK (role IN ('routines_api', 'routines_ticker', 'routines_worker', 'routines_reader')),
    on_object  text NOT NULL,
    privileges text NOT NULL,
    CONSTRAINT role_grants_pkey PRIMARY KEY (role, on_object)
);
COMMENT ON TABLE  routines.role_grants IS 'The privileges of each role. Call SELECT routines.set_up_roles(); after a change.';
COMMENT ON COLUMN routines.role_grants.role IS 'routines_api, routines_ticker and routines_worker for the programs, routines_reader for people at psql.';
COMMENT ON COLUMN routines.role_grants.on_object IS 'A table, a view or `FUNCTION name(arguments)`, as GRANT takes it.';
COMMENT ON COLUMN routines.role_grants.privileges IS 'As GRANT takes them: `SELECT (id), INSERT`.';

INSERT INTO routines.role_grants (role, on_object, privileges) VALUES
    -- The API reads and writes its caller's collection. It encrypts secrets and never reads one.
    ('routines_api', 'FUNCTION routines.open_collection(bigint)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.key_to_check(bigint)', 'EXECUTE'),
    ('routines_api', 'routines.schema_migrations', 'SELECT'),
    ('routines_api', 'routines.role_grants', 'SELECT'),
    ('routines_api', 'routines.collections', 'SELECT, UPDATE (environment_refs, max_concurrent_runs)'),
    ('routines_api', 'routines.api_keys', 'SELECT (id, collection_id, expires_at, revoked_at, last_used_at), UPDATE (last_used_at)'),
    ('routines_api', 'routines.rate_buckets', 'SELECT, INSERT, UPDATE'),
    ('routines_api', 'routines.idempotency_keys', 'SELECT, INSERT, UPDATE'),
    ('routines_api', 'routines.tasks', 'SELECT, INSERT, DELETE, UPDATE (name, description, version, updated_at)'),
    ('routines_api', 'routines.task_versions', 'SELECT, INSERT'),
    ('routines_api', 'routines.routine_names', 'SELECT'),
    ('routines_api', 'routines.routines', 'SELECT, INSERT, DELETE, UPDATE (name, cadence_type, hour_utc, minute_utc, day_of_week, '
        'expression, timezone, every_minutes, anchor, once_at, starts_at, ends_at, spread_seconds, '
        'init_params_overrides, init_params_from_slot, secret_refs, webhook_url, webhook_secret_id, paused, paused_until, paused_note, '
        'calendar, active_hours, timeout_seconds, retry, pause_after_failures, after_failures, overlap_policy, max_concurrent, '
        'catchup_window_seconds, last_run_at)'),
    ('routines_api', 'routines.calendars', 'SELECT, INSERT, DELETE, UPDATE (timezone, days)'),
    ('routines_api', 'routines.calendar_days', 'SELECT'),
    ('routines_api', 'routines.routine_calendars', 'SELECT'),
    ('routines_api', 'routines.alert_rules', 'SELECT, INSERT, DELETE, UPDATE (events, task_id, routine_id, after_seconds, streak, webhook_url, '
        'webhook_secret_id, digest_at_utc)'),
    ('routines_api', 'SEQUENCE routines.alert_rules_id_seq', 'USAGE'),
    ('routines_api', 'routines.alerts', 'SELECT'),
    ('routines_api', 'routines.alert_details', 'SELECT'),
    ('routines_api', 'routines.secrets', 'SELECT (id, collection_id, kind, field, owner, key_id, created_at), INSERT'),
    ('routines_api', 'routines.trajectories', 'SELECT, INSERT, UPDATE (status, fence, error, labels, ended_at, lease_expires_at, updated_at)'),
    ('routines_api', 'routines.begun_runs', 'SELECT'),
    ('routines_api', 'routines.steps', 'SELECT'),
    ('routines_api', 'routines.skips', 'SELECT'),
    ('routines_api', 'routines.backfills', 'SELECT, INSERT, UPDATE (ended_at, end_reason, held_by)'),
    ('routines_api', 'routines.webhook_deliveries', 'SELECT, UPDATE (next_attempt_at, failures, give_up_reason, is_redelivery, secret_id)'),
    ('routines_api', 'routines.occurrences', 'SELECT'),
    ('routines_api', 'routines.routine_details', 'SELECT'),
    ('routines_api', 'routines.trajectory_details', 'SELECT'),
    ('routines_api', 'FUNCTION routines.ended_runs(bigint[])', 'EXECUTE'),
    ('routines_api', 'SEQUENCE routines.routines_id_seq', 'USAGE'),
    ('routines_api', 'SEQUENCE routines.trajectories_id_seq', 'USAGE'),
    ('routines_api', 'routines.peppers', 'SELECT'),
    ('routines_api', 'routines.deleted_tasks', 'SELECT'),
    ('routines_api', 'routines.deleted_routines', 'SELECT'),
    ('routines_api', 'routines.run_events', 'SELECT'),
    ('routines_api', 'routines.webhook_endpoints', 'SELECT'),
    ('routines_api', 'routines.retention', 'SELECT'),
    ('routines_api', 'routines.time_zones', 'SELECT'),
    ('routines_api', 'routines.slot_moves', 'SELECT'),
    ('routines_api', 'routines.ticker_outages', 'SELECT'),
    ('routines_api', 'FUNCTION routines.metrics_of_routines(integer)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.metrics_of_skips(integer)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.metrics_of_runs(integer, integer)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.metrics_of_deliveries(integer)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.metrics_of_alerts(integer)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.metrics_of_snapshots()', 'EXECUTE'),
    ('routines_api', 'routines.built_in_limits', 'SELECT'),
    ('routines_api', 'routines.feeds', 'SELECT (id, collection_id, task_id, routine_id, created_at, last_used_at), INSERT, DELETE'),
    ('routines_api', 'FUNCTION routines.feed_to_check(bigint)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.take_feed_tokens(bigint, float8, float8, float8)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.feed_slots(bigint, timestamptz, timestamptz, integer, integer)', 'EXECUTE'),
    ('routines_api', 'routines.collection_limits', 'SELECT, INSERT, UPDATE, DELETE'),
    ('routines_api', 'routines.audit', 'SELECT'),
    ('routines_api', 'routines.day_sums', 'SELECT'),
    ('routines_api', 'routines.day_sums_progress', 'SELECT'),
    ('routines_api', 'routines.day_changes', 'SELECT'),
    ('routines_api', 'routines.collection_usage', 'SELECT'),
    ('routines_api', 'routines.limited_runs', 'SELECT'),
    ('routines_api', 'routines.run_minutes', 'SELECT, INSERT, UPDATE'),
    ('routines_api', 'FUNCTION routines.note_saved_files(bigint, bigint, bigint)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.open_as_operator(text)', 'EXECUTE'),
    -- The ticker reads due routines, writes their outcomes, and sees no secrets and no keys.
    ('routines_ticker', 'routines.schema_migrations', 'SELECT'),
    ('routines_ticker', 'routines.role_grants', 'SELECT'),
    ('routines_ticker', 'routines.tasks', 'SELECT'),
    ('routines_ticker', 'routines.task_versions', 'SELECT'),
    ('routines_ticker', 'routines.routines', 'SELECT, UPDATE (next_run_at, upcoming, moved_to, settled_until, last_run_at, strikes, backoff_left, '
        'paused, paused_at, paused_reason)'),
    ('routines_ticker', 'routines.calendars', 'SELECT'),
    ('routines_ticker', 'routines.calendar_days', 'SELECT'),
    ('routines_ticker', 'routines.routine_calendars', 'SELECT'),
    ('routines_ticker', 'routines.trajectories', 'SELECT (id, collection_id, triggered_by_routine_id, scheduled_for, due_at, trigger, place, status, retried_by, '
        'final_status, created_at, ended_at), INSERT'),
    ('routines_ticker', 'routines.skips', 'SELECT, INSERT'),
    ('routines_ticker', 'routines.ticker_outages', 'SELECT, INSERT, DELETE'),
    ('routines_ticker', 'routines.backfills', 'SELECT, UPDATE (next_look_at, held_by)'),
    ('routines_ticker', 'FUNCTION routines.expand_backfill(bigint, integer)', 'EXECUTE'),
    ('routines_ticker', 'routines.time_zones', 'SELECT'),
    ('routines_ticker', 'FUNCTION routines.find_room(bigint, text, smallint)', 'EXECUTE'),
    ('routines_ticker', 'FUNCTION routines.take_over_waiting_run(bigint, timestamptz, timestamptz, integer, jsonb, jsonb, jsonb, text, '
        'uuid, integer, timestamptz)', 'EXECUTE'),
    -- Only the worker reads secrets. It creates none, and writes no keys, tasks or routines.
    ('routines_worker', 'routines.schema_migrations', 'SELECT'),
    ('routines_worker', 'routines.role_grants', 'SELECT'),
    ('routines_worker', 'routines.collections', 'SELECT'),
    ('routines_worker', 'routines.tasks', 'SELECT'),
    ('routines_worker', 'routines.task_versions', 'SELECT, DELETE'),
    ('routines_worker', 'routines.routines', 'SELECT'),
    ('routines_worker', 'routines.secrets', 'SELECT'),
    ('routines_worker', 'routines.trajectories', 'SELECT, INSERT, UPDATE, DELETE'),
    ('routines_worker', 'routines.steps', 'SELECT, INSERT, UPDATE'),
    ('routines_worker', 'routines.webhook_deliveries', 'SELECT, INSERT, UPDATE, DELETE'),
    ('routines_worker', 'SEQUENCE routines.webhook_deliveries_id_seq', 'USAGE'),
    ('routines_worker', 'routines.alert_rules', 'SELECT, UPDATE (digested_until)'),
    ('routines_worker', 'routines.alerts', 'SELECT, INSERT, UPDATE, DELETE'),
    ('routines_worker', 'routines.alert_details', 'SELECT'),
    ('routines_worker', 'routines.alert_events', 'SELECT, DELETE, UPDATE (at)'),
    ('routines_worker', 'routines.alert_rounds', 'SELECT, UPDATE'),
    ('routines_worker', 'routines.routine_names', 'SELECT'),
    ('routines_worker', 'FUNCTION routines.free_capacity_of_collection(bigint)', 'EXECUTE'),
    ('routines_worker', 'FUNCTION routines.free_capacity_of_task(bigint)', 'EXECUTE'),
    ('routines_worker', 'routines.limited_runs', 'SELECT, INSERT, DELETE'),
    ('routines_worker', 'FUNCTION routines.admit_waiting_run(bigint)', 'EXECUTE'),
    ('routines_worker', 'routines.wakeups', 'SELECT, INSERT, DELETE'),
    ('routines_worker', 'routines.skips', 'SELECT, DELETE'),
    ('routines_worker', 'routines.backfills', 'SELECT, DELETE'),
    ('routines_worker', 'routines.webhook_endpoints', 'SELECT, INSERT, UPDATE, DELETE'),
    ('routines_worker', 'routines.idempotency_keys', 'SELECT (key_id, idempotency_key, created_at), UPDATE (created_at), DELETE'),
    ('routines_worker', 'routines.retention', 'SELECT, INSERT, UPDATE'),
    ('routines_worker', 'routines.audit', 'SELECT, DELETE'),
    ('routines_worker', 'routines.day_sums', 'SELECT, INSERT, UPDATE, DELETE'),
    ('routines_worker', 'routines.day_sums_progress', 'SELECT, INSERT, UPDATE'),
    ('routines_worker', 'routines.day_changes', 'SELECT, UPDATE, DELETE'),
    ('routines_worker', 'routines.deleted_tasks', 'SELECT, DELETE'),
    ('routines_worker', 'routines.deleted_routines', 'SELECT, DELETE'),
    ('routines_worker', 'routines.trajectory_details', 'SELECT'),
    ('routines_worker', 'routines.begun_runs', 'SELECT'),
    ('routines_worker', 'routines.dispatches', 'SELECT, INSERT, UPDATE, DELETE'),
    ('routines_worker', 'routines.file_uses', 'SELECT'),
    ('routines_worker', 'FUNCTION routines.use_files(bigint, bigint, text[])', 'EXECUTE'),
    ('routines_worker', 'routines.unused_files', 'SELECT, INSERT, UPDATE (condemned_at), DELETE'),
    ('routines_worker', 'routines.built_in_limits', 'SELECT'),
    ('routines_worker', 'routines.collection_limits', 'SELECT'),
    ('routines_worker', 'routines.collection_usage', 'SELECT, INSERT, UPDATE'),
    ('routines_worker', 'FUNCTION routines.measure_stored_bytes(integer)', 'EXECUTE'),
    -- A person at psql sees everything except ciphertexts, hashes of keys and stored answers.
    ('routines_reader', 'routines.schema_migrations', 'SELECT'),
    ('routines_reader', 'routines.role_grants', 'SELECT'),
    ('routines_reader', 'routines.collections', 'SELECT'),
    ('routines_reader', 'routines.api_keys', 'SELECT (id, collection_id, created_at, expires_at, revoked_at, last_used_at)'),
    ('routines_reader', 'routines.tasks', 'SELECT'),
    ('routines_reader', 'routines.task_versions', 'SELECT'),
    ('routines_reader', 'routines.routines', 'SELECT'),
    ('routines_reader', 'routines.secrets', 'SELECT (id, collection_id, kind, field, owner, key_id, created_at)'),
    ('routines_reader', 'routines.trajectories', 'SELECT'),
    ('routines_reader', 'routines.steps', 'SELECT'),
    ('routines_reader', 'routines.skips', 'SELECT'),
    ('routines_reader', 'routines.backfills', 'SELECT'),
    ('routines_reader', 'routines.webhook_deliveries', 'SELECT'),
    ('routines_reader', 'routines.occurrences', 'SELECT'),
    ('routines_reader', 'routines.routine_details', 'SELECT'),
    ('routines_reader', 'routines.trajectory_details', 'SELECT'),
    ('routines_reader', 'routines.deleted_tasks', 'SELECT'),
    ('routines_reader', 'routines.deleted_routines', 'SELECT'),
    ('routines_reader', 'routines.time_zones', 'SELECT'),
    ('routines_reader', 'routines.slot_moves', 'SELECT'),
    ('routines_reader', 'routines.ticker_outages', 'SELECT'),
    ('routines_reader', 'routines.calendars', 'SELECT'),
    ('routines_reader', 'routines.calendar_days', 'SELECT'),
    ('routines_reader', 'routines.routine_calendars', 'SELECT'),
    ('routines_reader', 'routines.run_events', 'SELECT'),
    ('routines_reader', 'routines.limited_runs', 'SELECT'),
    ('routines_reader', 'routines.wakeups', 'SELECT'),
    ('routines_reader', 'routines.webhook_endpoints', 'SELECT'),
    ('routines_reader', 'routines.retention', 'SELECT'),
    ('routines_reader', 'routines.alert_rules', 'SELECT'),
    ('routines_reader', 'routines.alerts', 'SELECT'),
    ('routines_reader', 'routines.alert_details', 'SELECT'),
    ('routines_reader', 'routines.alert_events', 'SELECT'),
    ('routines_reader', 'routines.alert_rounds', 'SELECT'),
    ('routines_reader', 'routines.routine_names', 'SELECT'),
    ('routines_reader', 'routines.feeds', 'SELECT (id, collection_id, task_id, routine_id, created_at, last_used_at)'),
    ('routines_reader', 'routines.begun_runs', 'SELECT'),
    ('routines_reader', 'routines.dispatches', 'SELECT'),
    ('routines_reader', 'routines.file_uses', 'SELECT'),
    ('routines_reader', 'routines.unused_files', 'SELECT'),
    ('routines_reader', 'routines.built_in_limits', 'SELECT'),
    ('routines_reader', 'routines.collection_limits', 'SELECT'),
    ('routines_reader', 'routines.collection_usage', 'SELECT'),
    ('routines_reader', 'routines.run_minutes', 'SELECT'),
    ('routines_reader', 'routines.audit', 'SELECT'),
    ('routines_reader', 'routines.day_sums', 'SELECT'),
    ('routines_reader', 'routines.day_sums_progress', 'SELECT'),
    ('routines_reader', 'routines.day_changes', 'SELECT'),
    ('routines_reader', 'routines.changes', 'SELECT'),
    ('routines_reader', 'routines.routine_status', 'SELECT'),
    ('routines_reader', 'routines.help', 'SELECT');

CREATE FUNCTION routines.make_role(made text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF to_regrole(made) IS NULL THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', made);
        -- Defaults for a login as this role. Programs override them.
        EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', made,
                       CASE made WHEN 'routines_reader' THEN '60s' WHEN 'routines_worker' THEN '30s' ELSE '10s' END);
        EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', made,
                       CASE made WHEN 'routines_ticker' THEN '1s' WHEN 'routines_worker' THEN '30s' ELSE '5s' END);
        EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', made,
                       CASE made WHEN 'routines_reader' THEN '60s' ELSE '2s' END);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'the role % is missing and % may not create it: see docs/run/roles.md', made, current_user;
    -- Another database of the cluster created it at the same moment.
    WHEN unique_violation OR duplicate_object THEN NULL;
END $$;
COMMENT ON FUNCTION routines.make_role IS 'Creates a role of Routines with its timeouts, if it is missing and the current role may create it.';

CREATE FUNCTION routines.let_step_down(granted text, to_role text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('server_version_num')::integer < 160000 THEN
        IF NOT pg_has_role(to_role, granted, 'MEMBER') THEN
            EXECUTE format('GRANT %I TO %I', granted, to_role);
        END IF;
    ELSIF NOT pg_has_role(to_role, granted, 'SET') THEN
        EXECUTE format('GRANT %I TO %I WITH INHERIT FALSE, SET TRUE', granted, to_role);
    END IF;
EXCEPTION
    WHEN insufficient_privilege OR unique_violation THEN NULL;
END $$;
COMMENT ON FUNCTION routines.let_step_down IS
    'Lets a role switch to a role of Routines by SET ROLE, if the current role may grant that. Before Postgres 16 it inherits the privileges too.';

-- A login that may create temporary tables can shadow a table that a statement or a function names without a schema. Only
-- the database's owner may revoke that right; for others REVOKE would do nothing and warn.
CREATE FUNCTION routines.refuse_temporary_tables() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_has_role(current_user, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE') THEN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
END $$;
COMMENT ON FUNCTION routines.refuse_temporary_tables IS
    'Lets only the owner of the database and superusers create temporary tables in it, if the current role may decide that.';

CREATE FUNCTION routines.set_up_roles() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known   text;
    granted record;
BEGIN
    PERFORM routines.refuse_temporary_tables();
    FOREACH known IN ARRAY ARRAY['routines_api', 'routines_ticker', 'routines_worker', 'routines_reader'] LOOP
        PERFORM routines.make_role(known);
        CONTINUE WHEN to_regrole(known) IS NULL;
        PERFORM routines.let_step_down(known, current_user);
        EXECUTE format('GRANT USAGE ON SCHEMA routines TO %I', known);
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA routines FROM %I', known);
        FOR granted IN SELECT on_object, privileges FROM routines.role_grants WHERE role = known ORDER BY on_object LOOP
            EXECUTE format('GRANT %s ON %s TO %I', granted.privileges, granted.on_object, known);
            -- The policy `tenant` applies to the API. The other roles see all collections in the tables granted to them.
            IF known <> 'routines_api' AND granted.on_object NOT LIKE '% %' AND EXISTS (
                SELECT FROM pg_policy WHERE polrelid = to_regclass(granted.on_object) AND polname = 'tenant')
               AND NOT EXISTS (
                SELECT FROM pg_policy WHERE polrelid = to_regclass(granted.on_object) AND polname = known) THEN
                EXECUTE format('CREATE POLICY %I ON %s TO %I USING (true)', known, granted.on_object, known);
            END IF;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.set_up_roles IS
    'Creates missing roles of Routines if it may, grants existing ones the privileges in role_grants, and revokes the right to create temporary tables from PUBLIC. The owner calls it again after a role was created or role_grants has changed.';
REVOKE EXECUTE ON FUNCTION routines.make_role, routines.let_step_down, routines.refuse_temporary_tables, routines.set_up_roles
    FROM PUBLIC;

SELECT routines.set_up_roles();
-- Lets the ticker name the session that holds an old snapshot. Only a superuser may grant it; without it the ticker sees its own
-- sessions only.
DO $$
BEGIN
    IF to_regrole('routines_ticker') IS NOT NULL AND NOT pg_has_role('routines_ticker', 'pg_read_all_stats', 'MEMBER') THEN
        GRANT pg_read_all_stats TO routines_ticker;
    END IF;
EXCEPTION
    WHEN insufficient_privilege OR unique_violation THEN NULL;
END $$;
