-- Tenants apart, held by the database itself: a statement that forgets its collection sees none of another's rows, and a
-- program can do no more than its role. Why so: docs/decisions/0010. How to set the roles up: docs/operations.md.

-- Whose transaction this is. Nothing is named at its start, and nothing stays named after it, so that a connection that is
-- used again knows nothing of who used it before. A setting that was set once reads as '' afterwards.
CREATE FUNCTION routines.current_collection() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('routines.collection_id', true), '')::bigint;
COMMENT ON FUNCTION routines.current_collection IS 'The collection that this transaction has named; null: none.';

CREATE FUNCTION routines.current_key() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('routines.key_id', true), '')::bigint;
COMMENT ON FUNCTION routines.current_key IS 'The API key by which this transaction has named its collection; null: none.';

CREATE FUNCTION routines.open_collection(of_key bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    opened bigint;
BEGIN
    SELECT collection_id INTO opened FROM routines.api_keys
    WHERE id = of_key AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());
    IF NOT FOUND THEN
        RAISE EXCEPTION 'API key % is unknown, revoked or expired', of_key USING ERRCODE = 'RT401';
    END IF;
    PERFORM set_config('routines.key_id', of_key::text, true), set_config('routines.collection_id', opened::text, true);
    RETURN true;
END $$;
COMMENT ON FUNCTION routines.open_collection IS
    'Names the collection that this key opens, until the transaction ends; raises RT401 for a key that opens none.';

-- A parameter is read before the statement is planned, so that its collection is named before any policy asks for it.
CREATE DOMAIN routines.caller AS bigint CONSTRAINT caller_opens_a_collection CHECK (routines.open_collection(VALUE));
COMMENT ON DOMAIN routines.caller IS
    'The id of an API key, as a parameter: to read it names the collection that it opens. Every statement of the API takes one.';

-- Asks its argument, so that it is read: a program of the version before sends a bigint, which becomes a caller only here.
DROP FUNCTION routines.collection_of_key(bigint);
CREATE FUNCTION routines.collection_of_key(key_id routines.caller) RETURNS bigint LANGUAGE sql STABLE
RETURN CASE WHEN key_id IS NOT NULL THEN routines.current_collection() END;
COMMENT ON FUNCTION routines.collection_of_key IS
    'The collection that a key opens; a key that is unknown, revoked or expired has raised RT401 when it was read. Every statement of the API asks it, so that a revoked key neither sees nor changes anything from that moment on.';

-- Whoever owns the tables migrates, makes keys and looks after all collections, but not once one is named: an API that has
-- to run as the owner is held to its caller's collection too. A superuser is held to nothing.
-- In plpgsql, so that it is no part of a plan: it is called for a row that no other policy shows, once, and else never.
CREATE FUNCTION routines.is_owner() RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = 'routines.collections'::regclass), 'USAGE');
END $$;
COMMENT ON FUNCTION routines.is_owner IS 'Whether the current role owns the tables of Routines.';

-- Each table of tenants: row-level security also for its owner; one policy for whoever has named a collection, one for the
-- owner who has named none. The sub-selects are asked once for a statement, and not for each row.
CREATE FUNCTION routines.protect(
    of_table regclass, is_own text DEFAULT 'collection_id = (SELECT routines.current_collection())'
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', of_table);
    EXECUTE format('CREATE POLICY tenant ON %s USING (%s)', of_table, is_own);
    EXECUTE format('CREATE POLICY owner ON %s USING ((SELECT routines.is_owner() AND routines.current_collection() IS NULL))',
                   of_table);
END $$;
COMMENT ON FUNCTION routines.protect IS
    'Gives a table of tenants its policies; `is_own` is the condition under which a row is the caller''s. Then say in role_grants who may use it, and call set_up_roles().';

-- A version is its task's collection's, also once the task is gone. What no task and no run refers to any more goes.
ALTER TABLE routines.task_versions ADD COLUMN collection_id bigint;
COMMENT ON COLUMN routines.task_versions.collection_id IS 'The tenant, the same as the task''s; where none is given, a trigger asks the task.';
ALTER TABLE routines.task_versions DISABLE TRIGGER refuse_change;
UPDATE routines.task_versions SET collection_id = coalesce(
    (SELECT tasks.collection_id FROM routines.tasks WHERE tasks.id = task_id),
    (SELECT trajectories.collection_id FROM routines.trajectories WHERE trajectories.task_id = task_versions.task_id LIMIT 1));
ALTER TABLE routines.task_versions ENABLE TRIGGER refuse_change;
DELETE FROM routines.task_versions WHERE collection_id IS NULL;
ALTER TABLE routines.task_versions ALTER COLUMN collection_id SET NOT NULL;

CREATE FUNCTION routines.keep_collection() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.collection_id := coalesce(
        NEW.collection_id, (SELECT tasks.collection_id FROM routines.tasks WHERE tasks.id = NEW.task_id));
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.keep_collection IS 'Gives a task version its task''s collection where none is given.';
CREATE TRIGGER keep_collection BEFORE INSERT ON routines.task_versions
    FOR EACH ROW EXECUTE FUNCTION routines.keep_collection();

SELECT routines.protect('routines.collections', 'id = (SELECT routines.current_collection())');
SELECT routines.protect('routines.tasks');
SELECT routines.protect('routines.task_versions');
SELECT routines.protect('routines.routines');
SELECT routines.protect('routines.trajectories');
SELECT routines.protect('routines.steps',
                        'EXISTS (SELECT FROM routines.trajectories WHERE trajectories.id = steps.trajectory_id)');
SELECT routines.protect('routines.skips');
SELECT routines.protect('routines.secrets');
SELECT routines.protect('routines.webhook_deliveries');
SELECT routines.protect('routines.webhook_endpoints');
SELECT routines.protect('routines.limited_runs');
SELECT routines.protect('routines.deleted_tasks');
SELECT routines.protect('routines.api_keys', 'id = (SELECT routines.current_key())');
SELECT routines.protect('routines.idempotency_keys', 'key_id = (SELECT routines.current_key())');
SELECT routines.protect('routines.rate_buckets', 'key_id = (SELECT routines.current_key())');
-- Keys are looked up whichever collection is named: open_collection names another.
ALTER POLICY owner ON routines.api_keys USING ((SELECT routines.is_owner()));

-- A view shows what its reader may see, and not what its owner may.
ALTER VIEW routines.occurrences SET (security_invoker = true);

-- Narrow doors: what a role needs of a table that it may not touch. They and the triggers below run as the owner, so that
-- a role needs no right to what follows from its changes.
CREATE FUNCTION routines.key_to_check(of_key bigint)
RETURNS TABLE (secret_hash bytea, pepper_id uuid, collection_id bigint, collection_name text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    PERFORM set_config('routines.collection_id', '', true);  -- whose token is still to be checked has named nothing
    RETURN QUERY SELECT api_keys.secret_hash, api_keys.pepper_id, collections.id, collections.name::text
        FROM routines.api_keys JOIN routines.collections ON collections.id = api_keys.collection_id
        WHERE api_keys.id = of_key AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());
END $$;
COMMENT ON FUNCTION routines.key_to_check IS
    'What a bearer token is compared with: the hash of one key that counts, and what it opens. No collection is named afterwards.';

CREATE FUNCTION routines.forget_old_answers() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    named text := current_setting('routines.collection_id', true);
BEGIN
    PERFORM set_config('routines.collection_id', '', true);  -- of any key
    DELETE FROM routines.idempotency_keys
    WHERE (key_id, idempotency_key) IN (
        SELECT key_id, idempotency_key FROM routines.idempotency_keys
        WHERE created_at < now() - interval '1 day'
        ORDER BY created_at LIMIT 10 FOR UPDATE SKIP LOCKED);
    PERFORM set_config('routines.collection_id', named, true);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_old_answers IS 'With each new mark, marks of any key that are a day old go, a few at a time.';
CREATE TRIGGER forget_old_answers AFTER INSERT ON routines.idempotency_keys
    FOR EACH STATEMENT EXECUTE FUNCTION routines.forget_old_answers();

ALTER FUNCTION routines.settle_slots SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.settle_end_of_run SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.forget_secrets_of_routine SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.forget_secrets_of_run SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.ring SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.note_limited_runs SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.free_limited_run SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.close_steps SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.cancel_children SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.room_of_collection SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.room_of_task SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.keep_name_of_task SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.forget_replaced_environment SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.forget_secret_of_delivery SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION routines.start_endpoint_again SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

REVOKE EXECUTE ON FUNCTION routines.open_collection, routines.key_to_check, routines.protect, routines.ended_runs,
    routines.room_of_collection, routines.room_of_task FROM PUBLIC;

-- Who may do what. The roles are the cluster's, not the database's: they may be there already, or must be made by an
-- administrator. So it stands in a table, and set_up_roles() grants it to the roles that there are, again and again.
CREATE TABLE routines.role_grants (
    role       text NOT NULL CONSTRAINT role_grants_role_is_known
               CHECK (role IN ('routines_api', 'routines_ticker', 'routines_worker', 'routines_reader')),
    on_object  text NOT NULL,
    privileges text NOT NULL,
    CONSTRAINT role_grants_pkey PRIMARY KEY (role, on_object)
);
COMMENT ON TABLE  routines.role_grants IS 'What each role may do. After a change: SELECT routines.set_up_roles();';
COMMENT ON COLUMN routines.role_grants.role IS 'routines_api, routines_ticker and routines_worker for the programs, routines_reader for people at psql.';
COMMENT ON COLUMN routines.role_grants.on_object IS 'A table, a view or `FUNCTION name(arguments)`, as GRANT takes it.';
COMMENT ON COLUMN routines.role_grants.privileges IS 'As GRANT takes them: `SELECT (id), INSERT`.';

INSERT INTO routines.role_grants (role, on_object, privileges) VALUES
    -- The API reads and writes what its caller's collection has. It seals secrets and never reads one.
    ('routines_api', 'FUNCTION routines.open_collection(bigint)', 'EXECUTE'),
    ('routines_api', 'FUNCTION routines.key_to_check(bigint)', 'EXECUTE'),
    ('routines_api', 'routines.schema_migrations', 'SELECT'),
    ('routines_api', 'routines.role_grants', 'SELECT'),
    ('routines_api', 'routines.collections', 'SELECT, UPDATE (environment_refs)'),
    ('routines_api', 'routines.api_keys', 'SELECT (id, collection_id, expires_at, revoked_at, last_used_at), UPDATE (last_used_at)'),
    ('routines_api', 'routines.rate_buckets', 'SELECT, INSERT, UPDATE'),
    ('routines_api', 'routines.idempotency_keys', 'SELECT, INSERT, UPDATE'),
    ('routines_api', 'routines.tasks', 'SELECT, INSERT, DELETE, UPDATE (name, description, version, updated_at)'),
    ('routines_api', 'routines.task_versions', 'SELECT, INSERT'),
    ('routines_api', 'routines.routines', 'SELECT, INSERT, DELETE, UPDATE (name, cadence_type, hour_utc, minute_utc, day_of_week, '
        'init_params_overrides, secret_refs, webhook_url, webhook_secret_id, paused, catchup_window_seconds, last_run_at)'),
    ('routines_api', 'routines.secrets', 'SELECT (id, collection_id, kind, field, owner, key_id, created_at), INSERT'),
    ('routines_api', 'routines.trajectories', 'SELECT, INSERT, UPDATE (status, attempt, error, labels, ended_at, lease_expires_at, updated_at)'),
    ('routines_api', 'routines.steps', 'SELECT'),
    ('routines_api', 'routines.skips', 'SELECT'),
    ('routines_api', 'routines.webhook_deliveries', 'SELECT, UPDATE (next_attempt_at, failures, give_up_reason, is_redelivery, secret_id)'),
    ('routines_api', 'routines.occurrences', 'SELECT'),
    ('routines_api', 'routines.routine_details', 'SELECT'),
    ('routines_api', 'routines.trajectory_details', 'SELECT'),
    ('routines_api', 'FUNCTION routines.ended_runs(bigint[])', 'EXECUTE'),
    ('routines_api', 'SEQUENCE routines.routines_id_seq', 'USAGE'),
    ('routines_api', 'SEQUENCE routines.trajectories_id_seq', 'USAGE'),
    ('routines_api', 'routines.peppers', 'SELECT'),
    ('routines_api', 'routines.deleted_tasks', 'SELECT'),
    ('routines_api', 'routines.run_events', 'SELECT'),
    ('routines_api', 'routines.webhook_endpoints', 'SELECT'),
    ('routines_api', 'routines.retention', 'SELECT'),
    -- The ticker reads what is due, writes what became of it, and sees no secret and no key.
    ('routines_ticker', 'routines.schema_migrations', 'SELECT'),
    ('routines_ticker', 'routines.role_grants', 'SELECT'),
    ('routines_ticker', 'routines.tasks', 'SELECT'),
    ('routines_ticker', 'routines.task_versions', 'SELECT'),
    ('routines_ticker', 'routines.routines', 'SELECT, UPDATE (next_run_at, settled_until, last_run_at, strikes, paused, paused_at, paused_reason)'),
    ('routines_ticker', 'routines.trajectories', 'SELECT (id, collection_id, triggered_by_routine_id, scheduled_for, trigger, status, created_at, '
        'ended_at), INSERT'),
    ('routines_ticker', 'routines.skips', 'SELECT, INSERT'),
    -- The worker alone reads secrets. It makes none and writes no key, task or routine.
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
    ('routines_worker', 'FUNCTION routines.room_of_collection(bigint)', 'EXECUTE'),
    ('routines_worker', 'FUNCTION routines.room_of_task(bigint)', 'EXECUTE'),
    ('routines_worker', 'routines.limited_runs', 'SELECT, INSERT, DELETE'),
    ('routines_worker', 'routines.bells', 'SELECT, INSERT, DELETE'),
    ('routines_worker', 'routines.skips', 'SELECT, DELETE'),
    ('routines_worker', 'routines.webhook_endpoints', 'SELECT, INSERT, UPDATE, DELETE'),
    ('routines_worker', 'routines.idempotency_keys', 'SELECT (key_id, idempotency_key, created_at), UPDATE (created_at), DELETE'),
    ('routines_worker', 'routines.retention', 'SELECT, INSERT, UPDATE'),
    ('routines_worker', 'routines.deleted_tasks', 'SELECT, DELETE'),
    ('routines_worker', 'routines.trajectory_details', 'SELECT'),
    -- A person at psql sees what there is, save ciphertexts, hashes of keys and kept answers.
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
    ('routines_reader', 'routines.webhook_deliveries', 'SELECT'),
    ('routines_reader', 'routines.occurrences', 'SELECT'),
    ('routines_reader', 'routines.routine_details', 'SELECT'),
    ('routines_reader', 'routines.trajectory_details', 'SELECT'),
    ('routines_reader', 'routines.deleted_tasks', 'SELECT'),
    ('routines_reader', 'routines.run_events', 'SELECT'),
    ('routines_reader', 'routines.limited_runs', 'SELECT'),
    ('routines_reader', 'routines.bells', 'SELECT'),
    ('routines_reader', 'routines.webhook_endpoints', 'SELECT'),
    ('routines_reader', 'routines.retention', 'SELECT');

CREATE FUNCTION routines.make_role(made text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regrole(made) IS NULL THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', made);
        -- For whoever logs in as this role; a program sets its own on top of them.
        EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', made,
                       CASE made WHEN 'routines_reader' THEN '60s' WHEN 'routines_worker' THEN '30s' ELSE '10s' END);
        EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', made,
                       CASE made WHEN 'routines_ticker' THEN '1s' WHEN 'routines_worker' THEN '30s' ELSE '5s' END);
        EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', made,
                       CASE made WHEN 'routines_reader' THEN '60s' ELSE '2s' END);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'the role % is missing and % may not create it: see Roles in docs/operations.md', made, current_user;
    -- Another database of the cluster made it at this moment.
    WHEN unique_violation OR duplicate_object THEN NULL;
END $$;
COMMENT ON FUNCTION routines.make_role IS 'Makes a role of Routines with its timeouts, where it is missing and the current role may.';

CREATE FUNCTION routines.let_step_down(granted text, to_role text) RETURNS void LANGUAGE plpgsql AS $$
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
    'Lets a role take on a role of Routines by SET ROLE, where the current role may grant that. Before Postgres 16 it inherits its rights too.';

CREATE FUNCTION routines.set_up_roles() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    known   text;
    granted record;
BEGIN
    FOREACH known IN ARRAY ARRAY['routines_api', 'routines_ticker', 'routines_worker', 'routines_reader'] LOOP
        PERFORM routines.make_role(known);
        CONTINUE WHEN to_regrole(known) IS NULL;
        PERFORM routines.let_step_down(known, current_user);
        EXECUTE format('GRANT USAGE ON SCHEMA routines TO %I', known);
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA routines FROM %I', known);
        FOR granted IN SELECT on_object, privileges FROM routines.role_grants WHERE role = known ORDER BY on_object LOOP
            EXECUTE format('GRANT %s ON %s TO %I', granted.privileges, granted.on_object, known);
            -- The API is held to the policy `tenant`; the others see every collection of what they are granted.
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
    'Makes the roles of Routines where it may, and grants to those that there are what role_grants says. To be called again, by the owner, after a role was made or role_grants has changed.';
REVOKE EXECUTE ON FUNCTION routines.make_role, routines.let_step_down, routines.set_up_roles FROM PUBLIC;

SELECT routines.set_up_roles();
-- So that the ticker can name who holds an old snapshot. Only a superuser may grant it; without it the ticker sees its own.
DO $$
BEGIN
    IF to_regrole('routines_ticker') IS NOT NULL AND NOT pg_has_role('routines_ticker', 'pg_read_all_stats', 'MEMBER') THEN
        GRANT pg_read_all_stats TO routines_ticker;
    END IF;
EXCEPTION
    WHEN insufficient_privilege OR unique_violation THEN NULL;
END $$;
