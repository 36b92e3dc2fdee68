-- == sql/schema/01_tenants_and_keys.sql

-- Tenants, the API keys that open them, and how one tenant is kept apart from another. The migrator has created the
-- schema `routines` and the table schema_migrations.

CREATE DOMAIN routines.slug AS text
    CONSTRAINT slug_is_valid CHECK (VALUE ~ '^[a-z0-9]([a-z0-9_-]{0,98}[a-z0-9])?$');
COMMENT ON DOMAIN routines.slug IS
    'Lower-case letters, digits, - and _, starting and ending with a letter or digit, 1 to 100 characters.';

CREATE DOMAIN routines.json_object AS jsonb
    CONSTRAINT json_is_object CHECK (jsonb_typeof(VALUE) = 'object');
COMMENT ON DOMAIN routines.json_object IS 'A JSON object; arrays, scalars and JSON null are rejected.';

-- Here and not with the secrets, because a constraint of collections calls it.
CREATE FUNCTION routines.secret_ids(secret_refs jsonb, webhook_secret_id uuid) RETURNS uuid[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(SELECT value::uuid FROM jsonb_each_text(secret_refs)) || array_remove(ARRAY[webhook_secret_id], NULL);
COMMENT ON FUNCTION routines.secret_ids IS 'The ids in secrets that a collection, a routine or a run refers to.';

---------------------------------------------------------------------------------------------------- row-level security
-- The database itself keeps tenants apart: a statement that forgets to name its collection sees no rows of another one.
-- Roles and grants come last, in the chapter on roles. Why this design: docs/decisions/0010.

-- A transaction names its collection, and the name ends with the transaction, so a reused connection remembers nothing of
-- its previous user. A setting that was set once reads as '' afterwards.
CREATE FUNCTION routines.current_collection() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('routines.collection_id', true), '')::bigint;
COMMENT ON FUNCTION routines.current_collection IS 'The collection that this transaction has named; null if it has named none.';

CREATE FUNCTION routines.current_key() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('routines.key_id', true), '')::bigint;
COMMENT ON FUNCTION routines.current_key IS
    'The API key with which this transaction named its collection; null if it has named none.';

-- The owner of the tables migrates, makes keys and serves all collections, but only while no collection is named: an API
-- that has to run as the owner is limited to its caller's collection too. Superusers bypass row-level security.
-- plpgsql keeps the body out of query plans. It runs at most once per statement, for the policy `owner`. The search_path keeps
-- it from reading a temporary table that a login has named pg_class: unqualified names resolve to temporary tables first.
CREATE FUNCTION routines.is_owner() RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = 'routines.collections'::regclass), 'USAGE');
END $$;
COMMENT ON FUNCTION routines.is_owner IS 'Returns true if the current role owns the tables of Routines.';

-- One policy for callers that have named a collection, one for an owner that has not. The subqueries run once per
-- statement, not once per row.
CREATE FUNCTION routines.protect(
    of_table regclass, is_own text DEFAULT 'collection_id = (SELECT routines.current_collection())'
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', of_table);
    EXECUTE format('CREATE POLICY tenant ON %s USING (%s)', of_table, is_own);
    EXECUTE format('CREATE POLICY owner ON %s USING ((SELECT routines.is_owner() AND routines.current_collection() IS NULL))',
                   of_table);
END $$;
COMMENT ON FUNCTION routines.protect IS
    'Turns on row-level security for a tenant table, even for its owner. `is_own` is the condition for rows of the named collection. Add rows to role_grants and call set_up_roles() afterwards.';
REVOKE EXECUTE ON FUNCTION routines.protect FROM PUBLIC;

------------------------------------------------------------------------------------------------------------ collections
-- Triggers, in the order in which they fire:
--   AFTER UPDATE  forget_replaced_environment  if environment_refs changes: deletes the ciphertexts no longer referred to
--   AFTER UPDATE  note_collection              adds to the audit (chapter 15_audit)
--   AFTER UPDATE  note_limited_runs            when a limit is set: counts the runs that are already claimed
CREATE TABLE routines.collections (
    id                  bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT collections_pkey PRIMARY KEY,
    name                routines.slug NOT NULL CONSTRAINT collections_name_key UNIQUE,
    description         text NOT NULL DEFAULT '',
    environment_refs    routines.json_object NOT NULL DEFAULT '{}'
                        CONSTRAINT collections_environment_refs_is_bounded
                        CHECK (cardinality(routines.secret_ids(environment_refs, NULL)) <= 100),
    max_concurrent_runs integer CONSTRAINT collections_max_concurrent_runs_is_positive CHECK (max_concurrent_runs > 0),
    created_at          timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  routines.collections IS 'A tenant. Every task, routine and key belongs to exactly one collection.';
COMMENT ON COLUMN routines.collections.id IS 'Database id, never exposed by HTTP.';
COMMENT ON COLUMN routines.collections.name IS 'The {collection} in every path.';
COMMENT ON COLUMN routines.collections.description IS 'Free text for people.';
COMMENT ON COLUMN routines.collections.environment_refs IS 'Environment variables: their names, with ids in secrets.';
COMMENT ON COLUMN routines.collections.max_concurrent_runs IS
    'The maximum number of runs that workers may have claimed at once; null if the collection sets no limit.';
COMMENT ON COLUMN routines.collections.created_at IS 'When its first key created it.';
SELECT routines.protect('routines.collections', 'id = (SELECT routines.current_collection())');

CREATE FUNCTION routines.forget_replaced_environment() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM routines.secrets WHERE id = ANY (routines.secret_ids(OLD.environment_refs, NULL))
        AND NOT id = ANY (routines.secret_ids(NEW.environment_refs, NULL));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_replaced_environment IS
    'Deletes the ciphertext of a replaced or removed environment variable in the same transaction.';
CREATE TRIGGER forget_replaced_environment AFTER UPDATE OF environment_refs ON routines.collections
    FOR EACH ROW WHEN (OLD.environment_refs IS DISTINCT FROM NEW.environment_refs)
    EXECUTE FUNCTION routines.forget_replaced_environment();

-- Shared by collections and tasks: both can limit their runs.
CREATE FUNCTION routines.note_limited_runs() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.limited_runs (trajectory_id, collection_id, task_id)
    SELECT id, collection_id, task_id FROM routines.trajectories
    WHERE ended_at IS NULL AND status = 'running'
      AND CASE TG_TABLE_NAME WHEN 'collections' THEN collection_id = NEW.id ELSE task_id = NEW.id END
      AND NOT EXISTS (SELECT FROM routines.trajectories AS child
                      WHERE child.parent_id = trajectories.id AND child.status IN ('pending', 'running'))
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_limited_runs IS
    'Counts the running runs of a collection or task towards its new limit, except those that wait for children.';
CREATE TRIGGER note_limited_runs AFTER UPDATE OF max_concurrent_runs ON routines.collections
    FOR EACH ROW WHEN (OLD.max_concurrent_runs IS NULL AND NEW.max_concurrent_runs IS NOT NULL)
    EXECUTE FUNCTION routines.note_limited_runs();

------------------------------------------------------------------------------------------------------- peppers, API keys
-- No triggers.
CREATE TABLE routines.peppers (
    id         uuid CONSTRAINT peppers_pkey PRIMARY KEY,
    key_id     text NOT NULL,
    ciphertext bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  routines.peppers IS
    'The encrypted secrets that API keys and tokens of feeds are hashed with. Without them the hashes alone are useless for guessing one.';
COMMENT ON COLUMN routines.peppers.id IS 'Chosen by the program that encrypts, because the ciphertext authenticates it.';
COMMENT ON COLUMN routines.peppers.key_id IS 'The key of ROUTINES_ENCRYPTION_KEYS that opens it. Rotation searches by it.';
COMMENT ON COLUMN routines.peppers.ciphertext IS 'Same format as in secrets.';
COMMENT ON COLUMN routines.peppers.created_at IS 'When it was created. New API keys use the newest pepper.';

-- Triggers:
--   AFTER INSERT, UPDATE or DELETE  note_key  adds to the audit (chapter 15_audit); the last use is no change
CREATE TABLE routines.api_keys (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT api_keys_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT api_keys_collection_id_fkey REFERENCES routines.collections (id),
    secret_hash   bytea NOT NULL CONSTRAINT api_keys_secret_hash_is_sha256 CHECK (octet_length(secret_hash) = 32),
    pepper_id     uuid NOT NULL CONSTRAINT api_keys_pepper_id_fkey REFERENCES routines.peppers (id),
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz
);
CREATE INDEX api_keys_collection_id_idx ON routines.api_keys (collection_id);
COMMENT ON TABLE  routines.api_keys IS
    'Bearer keys, rtn_<id>_<secret><checksum>. The secret is shown once, at creation; only its hash is stored.';
COMMENT ON COLUMN routines.api_keys.id IS 'The <id> of the key, and the argument of `routines keys revoke`.';
COMMENT ON COLUMN routines.api_keys.collection_id IS 'The one collection that the key opens.';
COMMENT ON COLUMN routines.api_keys.secret_hash IS
    'HMAC-SHA256 of the secret part, keyed with the pepper. 256 random bits need no slow hash.';
COMMENT ON COLUMN routines.api_keys.pepper_id IS 'The pepper that keys its hash.';
COMMENT ON COLUMN routines.api_keys.created_at IS 'When it was created.';
COMMENT ON COLUMN routines.api_keys.expires_at IS 'From this time on the key is refused; null if it never expires.';
COMMENT ON COLUMN routines.api_keys.revoked_at IS 'When it was revoked; null if it was not.';
COMMENT ON COLUMN routines.api_keys.last_used_at IS 'Its last use, to the minute; null if never used.';
SELECT routines.protect('routines.api_keys', 'id = (SELECT routines.current_key())');
-- The owner looks keys up whichever collection is named, because open_collection names another one.
ALTER POLICY owner ON routines.api_keys USING ((SELECT routines.is_owner()));

-- The API may not read hashes except one at a time, through this function, which runs as the owner.
CREATE FUNCTION routines.key_to_check(of_key bigint)
RETURNS TABLE (secret_hash bytea, pepper_id uuid, collection_id bigint, collection_name text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    PERFORM set_config('routines.collection_id', '', true);  -- a token that is still unchecked names no collection
    RETURN QUERY SELECT api_keys.secret_hash, api_keys.pepper_id, collections.id, collections.name::text
        FROM routines.api_keys JOIN routines.collections ON collections.id = api_keys.collection_id
        WHERE api_keys.id = of_key AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());
END $$;
COMMENT ON FUNCTION routines.key_to_check IS
    'The hash of one valid key, to compare a bearer token with, and the collection that the key opens. No collection is named afterwards.';

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
    'Names the collection that this key opens until the transaction ends; raises RT401 for an invalid key.';
REVOKE EXECUTE ON FUNCTION routines.open_collection, routines.key_to_check FROM PUBLIC;

-- Postgres reads a parameter before it plans the statement, so the collection is named before any policy asks for it.
CREATE DOMAIN routines.caller AS bigint CONSTRAINT caller_opens_a_collection CHECK (routines.open_collection(VALUE));
COMMENT ON DOMAIN routines.caller IS
    'The id of an API key, as a parameter. Reading it names the collection that the key opens. Every statement of the API takes one.';

CREATE FUNCTION routines.collection_of_key(key_id routines.caller) RETURNS bigint LANGUAGE sql STABLE
-- Refers to its argument, so that Postgres reads it.
RETURN CASE WHEN key_id IS NOT NULL THEN routines.current_collection() END;
COMMENT ON FUNCTION routines.collection_of_key IS
    'The collection that a key opens. Reading an unknown, revoked or expired key raises RT401. Every statement of the API calls this, so a revoked key neither sees nor changes anything from that moment on.';

-------------------------------------------------------------------------------------------------------- requests by key
-- Triggers:
--   AFTER INSERT, per statement  forget_old_answers  deletes a few answers that are a day old
CREATE TABLE routines.idempotency_keys (
    key_id          bigint NOT NULL CONSTRAINT idempotency_keys_key_id_fkey REFERENCES routines.api_keys (id) ON DELETE CASCADE,
    idempotency_key text NOT NULL CONSTRAINT idempotency_keys_length CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    request_hash    bytea NOT NULL CONSTRAINT idempotency_keys_hash_is_sha256 CHECK (octet_length(request_hash) = 32),
    status          smallint,
    body            bytea,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (key_id, idempotency_key)
);
-- Expired answers, oldest first.
CREATE INDEX idempotency_keys_created_at_idx ON routines.idempotency_keys (created_at);
COMMENT ON TABLE  routines.idempotency_keys IS 'The first answer to each Idempotency-Key, repeated when the request is repeated.';
COMMENT ON COLUMN routines.idempotency_keys.key_id IS 'The API key that sent it. Each API key has its own Idempotency-Keys.';
COMMENT ON COLUMN routines.idempotency_keys.idempotency_key IS 'The header''s value.';
COMMENT ON COLUMN routines.idempotency_keys.request_hash IS
    'HMAC-SHA256 of method, path and body, keyed with the bearer token. A different request under the same header is refused.';
COMMENT ON COLUMN routines.idempotency_keys.status IS 'The HTTP status; null only inside the transaction of the first request.';
COMMENT ON COLUMN routines.idempotency_keys.body IS 'The answer, with secrets masked as in any answer.';
COMMENT ON COLUMN routines.idempotency_keys.created_at IS 'When it was first sent. Answers are kept for a day.';
SELECT routines.protect('routines.idempotency_keys', 'key_id = (SELECT routines.current_key())');

-- Row by row: a join by two columns is planned by statistics, which may foresee no rows.
CREATE FUNCTION routines.delete_answers(before timestamptz, most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    old record;
    deleted integer := 0;
BEGIN
    FOR old IN
        SELECT key_id, idempotency_key FROM routines.idempotency_keys
        WHERE created_at < before ORDER BY created_at LIMIT most FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM routines.idempotency_keys WHERE key_id = old.key_id AND idempotency_key = old.idempotency_key;
        deleted := deleted + 1;
    END LOOP;
    RETURN deleted;
END $$;
COMMENT ON FUNCTION routines.delete_answers IS 'Deletes answers first sent before this time, the oldest first, and returns their number, at most `most`.';

CREATE FUNCTION routines.forget_old_answers() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    named text := current_setting('routines.collection_id', true);
BEGIN
    PERFORM set_config('routines.collection_id', '', true);  -- answers of every key
    PERFORM routines.delete_answers(now() - interval '1 day', 10);
    PERFORM set_config('routines.collection_id', named, true);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_old_answers IS 'Deletes up to ten day-old answers, of any key, with each new one.';
CREATE TRIGGER forget_old_answers AFTER INSERT ON routines.idempotency_keys
    FOR EACH STATEMENT EXECUTE FUNCTION routines.forget_old_answers();

-- No triggers. UNLOGGED: writes need no WAL and no flush. After a crash every bucket is full again.
CREATE UNLOGGED TABLE routines.rate_buckets (
    key_id    bigint CONSTRAINT rate_buckets_pkey PRIMARY KEY,
    tokens    float8 NOT NULL,
    filled_at timestamptz NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.rate_buckets IS 'A token bucket for each API key, shared by all API processes.';
COMMENT ON COLUMN routines.rate_buckets.key_id IS 'The API key.';
COMMENT ON COLUMN routines.rate_buckets.tokens IS 'The number of requests that it could make at once at filled_at.';
COMMENT ON COLUMN routines.rate_buckets.filled_at IS 'When tokens was computed.';
SELECT routines.protect('routines.rate_buckets', 'key_id = (SELECT routines.current_key())');

-- == sql/schema/02_tasks.sql

-- Tasks and the immutable versions of their workflows.

-- Triggers:
--   BEFORE UPDATE  refuse_older_version  if version decreases: raises
--   AFTER UPDATE   note_limited_runs     when a limit is set: counts the runs that are already claimed
--   AFTER DELETE   keep_name_of_task     records the name for the runs that remain
--   AFTER INSERT, UPDATE or DELETE  note_task  adds to the audit (chapter 15_audit)
CREATE TABLE routines.tasks (
    id                  bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT tasks_pkey PRIMARY KEY,
    collection_id       bigint NOT NULL CONSTRAINT tasks_collection_id_fkey REFERENCES routines.collections (id),
    name                routines.slug NOT NULL,
    description         text NOT NULL DEFAULT '',
    version             integer NOT NULL DEFAULT 1 CONSTRAINT tasks_version_is_positive CHECK (version > 0),
    max_concurrent_runs integer CONSTRAINT tasks_max_concurrent_runs_is_positive CHECK (max_concurrent_runs > 0),
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tasks_name_key UNIQUE (collection_id, name),
    -- Target of routines_task_fkey, which keeps a routine in its task's collection.
    CONSTRAINT tasks_id_in_collection_key UNIQUE (id, collection_id)
);
COMMENT ON TABLE  routines.tasks IS 'A named workflow in a collection. The workflow itself is in task_versions.';
COMMENT ON COLUMN routines.tasks.id IS 'Database id, never exposed by HTTP.';
COMMENT ON COLUMN routines.tasks.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.tasks.name IS 'The {task} in every path; unique in its collection.';
COMMENT ON COLUMN routines.tasks.description IS 'Free text for people.';
COMMENT ON COLUMN routines.tasks.version IS 'The row of task_versions that the next run starts with.';
COMMENT ON COLUMN routines.tasks.max_concurrent_runs IS
    'The maximum number of runs that workers may have claimed at once; null if the task sets no limit.';
COMMENT ON COLUMN routines.tasks.created_at IS 'When it was created.';
COMMENT ON COLUMN routines.tasks.updated_at IS 'Its last change.';
SELECT routines.protect('routines.tasks');

CREATE FUNCTION routines.refuse_older_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'task % is at version %: insert a new version instead of going back to %', OLD.id, OLD.version, NEW.version
        USING ERRCODE = 'check_violation', CONSTRAINT = 'tasks_version_only_grows';
END $$;
COMMENT ON FUNCTION routines.refuse_older_version IS
    'Keeps versions growing, so that a task''s oldest run shows which versions are no longer needed.';
CREATE TRIGGER refuse_older_version BEFORE UPDATE OF version ON routines.tasks
    FOR EACH ROW WHEN (NEW.version < OLD.version) EXECUTE FUNCTION routines.refuse_older_version();

-- The function is defined with the collections, which have the same trigger.
CREATE TRIGGER note_limited_runs AFTER UPDATE OF max_concurrent_runs ON routines.tasks
    FOR EACH ROW WHEN (OLD.max_concurrent_runs IS NULL AND NEW.max_concurrent_runs IS NOT NULL)
    EXECUTE FUNCTION routines.note_limited_runs();

CREATE FUNCTION routines.keep_name_of_task() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.deleted_tasks (id, collection_id, name) VALUES (OLD.id, OLD.collection_id, OLD.name);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.keep_name_of_task IS 'Records the name of a deleted task.';
CREATE TRIGGER keep_name_of_task AFTER DELETE ON routines.tasks
    FOR EACH ROW EXECUTE FUNCTION routines.keep_name_of_task();

-- No triggers.
CREATE TABLE routines.deleted_tasks (
    id            bigint CONSTRAINT deleted_tasks_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT deleted_tasks_collection_id_fkey REFERENCES routines.collections (id),
    name          routines.slug NOT NULL,
    deleted_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  routines.deleted_tasks IS 'Names of deleted tasks. Runs outlive their task and are still shown under its name.';
COMMENT ON COLUMN routines.deleted_tasks.id IS 'The id that the task had.';
COMMENT ON COLUMN routines.deleted_tasks.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.deleted_tasks.name IS 'Its last name.';
COMMENT ON COLUMN routines.deleted_tasks.deleted_at IS 'When it was deleted.';
SELECT routines.protect('routines.deleted_tasks');

-- Triggers:
--   BEFORE INSERT  complete_version  fills in init_params from the workflow, and collection_id from the task
--   BEFORE UPDATE  refuse_change     raises: a version is immutable
--
-- No foreign key to tasks: a run keeps the version it started with even if the task is deleted in the meantime.
CREATE TABLE routines.task_versions (
    task_id       bigint NOT NULL,
    version       integer NOT NULL,
    collection_id bigint NOT NULL,
    workflow      json NOT NULL CONSTRAINT task_versions_workflow_is_object CHECK (json_typeof(workflow) = 'object'),
    init_params   routines.json_object NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT task_versions_pkey PRIMARY KEY (task_id, version)
);
COMMENT ON TABLE  routines.task_versions IS 'Each change of a workflow is a new row; rows never change.';
COMMENT ON COLUMN routines.task_versions.task_id IS 'The task, which may have been deleted.';
COMMENT ON COLUMN routines.task_versions.version IS 'Counts from 1 within the task.';
COMMENT ON COLUMN routines.task_versions.collection_id IS 'The tenant, the same as the task''s. A trigger fills it in if it is missing.';
COMMENT ON COLUMN routines.task_versions.workflow IS
    'As sent: {init_params, step_configs, steps}. json rather than jsonb, to preserve the order of keys.';
COMMENT ON COLUMN routines.task_versions.init_params IS
    'workflow.init_params as jsonb, filled in by a trigger: parsed once here instead of at every fire.';
COMMENT ON COLUMN routines.task_versions.created_at IS 'When this version was saved.';
SELECT routines.protect('routines.task_versions');

CREATE FUNCTION routines.complete_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.init_params := coalesce(NEW.workflow -> 'init_params', '{}')::jsonb;
    NEW.collection_id := coalesce(
        NEW.collection_id, (SELECT tasks.collection_id FROM routines.tasks WHERE tasks.id = NEW.task_id));
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.complete_version IS
    'Derives init_params from the workflow, and fills in the task''s collection if it is missing.';
CREATE TRIGGER complete_version BEFORE INSERT ON routines.task_versions
    FOR EACH ROW EXECUTE FUNCTION routines.complete_version();

CREATE FUNCTION routines.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a task version is immutable: insert version % and point tasks.version at it', OLD.version + 1
        USING ERRCODE = 'check_violation', CONSTRAINT = 'task_versions_is_immutable';
END $$;
COMMENT ON FUNCTION routines.refuse_change IS 'Keeps task_versions immutable.';
CREATE TRIGGER refuse_change BEFORE UPDATE ON routines.task_versions
    FOR EACH ROW EXECUTE FUNCTION routines.refuse_change();

-- == sql/schema/03_cadence.sql

-- Cadences and their slots. The API, the ticker, the triggers and psql call these functions, and compute slots nowhere else.
--
-- The five types that fall on a fixed grid of UTC are pure SQL expressions, so the planner inlines them into the tick. They compute
-- on `timestamp` because timestamptz + interval is only STABLE (it depends on the session's time zone). date_bin floors to a grid
-- that is pinned by an origin. 0001-01-01 was a Monday (proleptic Gregorian), so origin + day + hour + minute pins the week,
-- origin + hour + minute the day, and origin + minute the hour.
--
-- Everything else goes through the ELSE branches: the types cron (chapter 03_cron), interval and once, and any type that is bounded
-- by starts_at or ends_at. The tick does not call those for each fire: it reads the slots that a routine keeps in `upcoming`.
--
-- Which fields each type needs is a set of constraints on the table routines.routines.

CREATE TYPE routines.cadence AS (
    type          text,
    hour_utc      integer,
    minute_utc    integer,
    day_of_week   text,
    expression    jsonb,
    timezone      text,
    every_minutes integer,
    anchor        timestamptz,
    at            timestamptz,
    starts_at     timestamptz,
    ends_at       timestamptz
);
COMMENT ON TYPE routines.cadence IS
    'When a routine is due. Write one as routines.cadence_from_json(''{"type": "weekdays", "hour_utc": 9, "minute_utc": 0}''); read one with routines.cadence_of(routines).';
COMMENT ON COLUMN routines.cadence.type IS 'manual, hourly, daily, weekdays (Monday to Friday), weekly, cron, interval or once.';
COMMENT ON COLUMN routines.cadence.hour_utc IS '0-23 for daily, weekdays and weekly; null otherwise.';
COMMENT ON COLUMN routines.cadence.minute_utc IS '0-59, for hourly the minute of the hour; 0 for types that do not take it.';
COMMENT ON COLUMN routines.cadence.day_of_week IS 'mon to sun for weekly; null otherwise.';
COMMENT ON COLUMN routines.cadence.expression IS 'For cron: a string, or an array of up to 10, as it was given; null otherwise.';
COMMENT ON COLUMN routines.cadence.timezone IS 'For cron: the IANA name of the time zone that the expression is read in; null otherwise.';
COMMENT ON COLUMN routines.cadence.every_minutes IS 'For interval: 1-525600; null otherwise.';
COMMENT ON COLUMN routines.cadence.anchor IS 'For interval: one of its slots, earlier or later than now; null otherwise.';
COMMENT ON COLUMN routines.cadence.at IS 'For once: its only slot; null otherwise.';
COMMENT ON COLUMN routines.cadence.starts_at IS 'No slot is earlier; null for no bound.';
COMMENT ON COLUMN routines.cadence.ends_at IS 'No slot is later; null for no bound.';

CREATE FUNCTION routines.cadence_from_json(cadence jsonb) RETURNS routines.cadence LANGUAGE sql STABLE PARALLEL SAFE
RETURN jsonb_populate_record(NULL::routines.cadence, cadence);
COMMENT ON FUNCTION routines.cadence_from_json IS
    'A cadence from a JSON object of its fields, the form in which programs pass it. to_jsonb() is the inverse.';

-- The first five types have no other fields.
CREATE FUNCTION routines.cadence_to_json(cadence routines.cadence) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
RETURN jsonb_build_object('type', (cadence).type, 'hour_utc', (cadence).hour_utc, 'minute_utc', (cadence).minute_utc,
                          'day_of_week', (cadence).day_of_week)
    || CASE WHEN (cadence).type IN ('manual', 'hourly', 'daily', 'weekdays', 'weekly') THEN '{}'
            ELSE jsonb_strip_nulls(to_jsonb(cadence) - '{type,hour_utc,minute_utc,day_of_week,starts_at,ends_at}'::text[]) END;
COMMENT ON FUNCTION routines.cadence_to_json IS
    'A cadence as the API shows it: without the fields that it does not have, but for the first four, and without its bounds.';

----------------------------------------------------------------------------------------- types that are on no fixed grid
-- plpgsql, because these call next_fire and latest_slot, which call them. A type that nobody knows has no slots.
-- Slots are computed for the years 1970 to 2199: the constraints of routines.routines allow no others.

CREATE FUNCTION routines.interval_slot(every_minutes integer, anchor timestamptz, until timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN date_bin(
    make_interval(mins => CASE WHEN every_minutes > 0 THEN every_minutes END), until AT TIME ZONE 'UTC',
    -- The grid of the anchor, pinned in year 1: some versions of Postgres are wrong by one step before the origin.
    timestamp '0001-01-01' + (anchor AT TIME ZONE 'UTC' - date_bin(
        make_interval(mins => CASE WHEN every_minutes > 0 THEN every_minutes END), anchor AT TIME ZONE 'UTC', timestamp '0001-01-01'))
) AT TIME ZONE 'UTC';
COMMENT ON FUNCTION routines.interval_slot IS 'The last slot of an interval at or before `until`.';

CREATE FUNCTION routines.without_bounds(cadence routines.cadence) RETURNS routines.cadence LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    cadence.starts_at := NULL;
    cadence.ends_at := NULL;
    RETURN cadence;
END $$;
COMMENT ON FUNCTION routines.without_bounds IS 'The same cadence without starts_at and ends_at.';

CREATE FUNCTION routines.later_slot(cadence routines.cadence, after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    since timestamptz := greatest(after, (cadence).starts_at - interval '1 microsecond', '1969-12-31 23:59:59.999999Z');
    slot  timestamptz;
BEGIN
    IF after IS NULL OR since >= '2200-01-01Z' OR since >= (cadence).ends_at THEN
        RETURN NULL;
    END IF;
    slot := CASE (cadence).type
        WHEN 'manual' THEN NULL
        WHEN 'cron' THEN routines.later_cron_slot(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone), since)
        WHEN 'interval' THEN routines.interval_slot((cadence).every_minutes, (cadence).anchor, since)
                             + make_interval(mins => (cadence).every_minutes)
        WHEN 'once' THEN CASE WHEN (cadence).at > since THEN (cadence).at END
        ELSE CASE WHEN num_nonnulls((cadence).starts_at, (cadence).ends_at) > 0
                  THEN routines.next_fire(routines.without_bounds(cadence), since) END END;
    RETURN CASE WHEN slot <= coalesce((cadence).ends_at, 'infinity') AND slot < '2200-01-01Z' THEN slot END;
END $$;
COMMENT ON FUNCTION routines.later_slot IS 'What next_fire returns for a cadence that is on no fixed grid, or is bounded; null if none is left.';

CREATE FUNCTION routines.earlier_slot(cadence routines.cadence, until timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    upto timestamptz := least(until, (cadence).ends_at, '2199-12-31 23:59:59.999999Z');
    slot timestamptz;
BEGIN
    IF until IS NULL OR upto < '1970-01-01Z' OR upto < (cadence).starts_at THEN
        RETURN NULL;
    END IF;
    slot := CASE (cadence).type
        WHEN 'manual' THEN NULL
        WHEN 'cron' THEN routines.earlier_cron_slot(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone), upto)
        WHEN 'interval' THEN routines.interval_slot((cadence).every_minutes, (cadence).anchor, upto)
        WHEN 'once' THEN CASE WHEN (cadence).at <= upto THEN (cadence).at END
        ELSE CASE WHEN num_nonnulls((cadence).starts_at, (cadence).ends_at) > 0
                  THEN routines.latest_slot(routines.without_bounds(cadence), upto) END END;
    RETURN CASE WHEN slot >= coalesce((cadence).starts_at, '-infinity') AND slot >= '1970-01-01Z' THEN slot END;
END $$;
COMMENT ON FUNCTION routines.earlier_slot IS 'What latest_slot returns for a cadence that is on no fixed grid, or is bounded; null if there is none.';

CREATE FUNCTION routines.count_more_slots(cadence routines.cadence, first_slot timestamptz, last_slot timestamptz) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN CASE (cadence).type
        WHEN 'cron' THEN routines.count_cron_slots(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone), first_slot, last_slot)
        WHEN 'interval' THEN extract(epoch FROM last_slot - first_slot)::bigint / ((cadence).every_minutes * 60)
        WHEN 'once' THEN 0
        ELSE CASE WHEN num_nonnulls((cadence).starts_at, (cadence).ends_at) > 0
                  THEN routines.count_slots(routines.without_bounds(cadence), first_slot, last_slot) - 1 END END;
END $$;
COMMENT ON FUNCTION routines.count_more_slots IS
    'The number of slots later than first_slot, up to last_slot, of a cadence that is on no fixed grid, or is bounded.';

------------------------------------------------------------------------------------------------------- all types of cadence
CREATE FUNCTION routines.next_fire(cadence routines.cadence, after timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE CASE WHEN (cadence).starts_at IS NULL AND (cadence).ends_at IS NULL THEN (cadence).type END
    WHEN 'hourly' THEN
        date_bin('1 hour', after AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(mins => (cadence).minute_utc)) + interval '1 hour'
    WHEN 'daily' THEN
        date_bin('1 day', after AT TIME ZONE 'UTC', timestamp '0001-01-01' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)) + interval '1 day'
    WHEN 'weekly' THEN
        date_bin('7 days', after AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(
                     days => array_position('{mon,tue,wed,thu,fri,sat,sun}'::text[], (cadence).day_of_week) - 1,
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)) + interval '7 days'
    -- The next daily slot, or if that falls on a weekend, the Monday after it. 0001-01-06 was a Saturday.
    WHEN 'weekdays' THEN greatest(
        date_bin('1 day', after AT TIME ZONE 'UTC', timestamp '0001-01-01' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)) + interval '1 day',
        date_bin('7 days', after AT TIME ZONE 'UTC' + interval '1 day', timestamp '0001-01-06' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)) + interval '2 days')
    WHEN 'manual' THEN NULL
    ELSE routines.later_slot(cadence, after) AT TIME ZONE 'UTC'
END AT TIME ZONE 'UTC';
COMMENT ON FUNCTION routines.next_fire IS
    'The first slot strictly later than `after`; null for manual, and if no slot is left. Try: SELECT routines.next_fire(routines.cadence_from_json(''{"type": "weekdays", "hour_utc": 9, "minute_utc": 0}''), now());';

CREATE FUNCTION routines.latest_slot(cadence routines.cadence, until timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE CASE WHEN (cadence).starts_at IS NULL AND (cadence).ends_at IS NULL THEN (cadence).type END
    WHEN 'hourly' THEN
        date_bin('1 hour', until AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(mins => (cadence).minute_utc))
    WHEN 'daily' THEN
        date_bin('1 day', until AT TIME ZONE 'UTC', timestamp '0001-01-01' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc))
    WHEN 'weekly' THEN
        date_bin('7 days', until AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(
                     days => array_position('{mon,tue,wed,thu,fri,sat,sun}'::text[], (cadence).day_of_week) - 1,
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc))
    -- The latest daily slot, or the Friday of its week if that is earlier.
    WHEN 'weekdays' THEN least(
        date_bin('1 day', until AT TIME ZONE 'UTC', timestamp '0001-01-01' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)),
        date_bin('7 days', until AT TIME ZONE 'UTC', timestamp '0001-01-01' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)) + interval '4 days')
    WHEN 'manual' THEN NULL
    ELSE routines.earlier_slot(cadence, until) AT TIME ZONE 'UTC'
END AT TIME ZONE 'UTC';
COMMENT ON FUNCTION routines.latest_slot IS
    'The last slot at or before `until`; null for manual, and before the first slot. Catch-up after an outage fires this slot.';

CREATE FUNCTION routines.count_slots(cadence routines.cadence, first_slot timestamptz, last_slot timestamptz)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 1 + CASE CASE WHEN (cadence).starts_at IS NULL AND (cadence).ends_at IS NULL THEN (cadence).type END
    WHEN 'hourly' THEN extract(epoch FROM last_slot - first_slot)::bigint / 3600
    WHEN 'daily'  THEN extract(epoch FROM last_slot - first_slot)::bigint / 86400
    WHEN 'weekly' THEN extract(epoch FROM last_slot - first_slot)::bigint / 604800
    -- Days between, less two for every weekend between. Weekends end where a Monday-pinned week begins.
    WHEN 'weekdays' THEN extract(epoch FROM last_slot - first_slot)::bigint / 86400
        - 2 * (extract(epoch FROM
            date_bin('7 days', last_slot AT TIME ZONE 'UTC', timestamp '0001-01-01')
          - date_bin('7 days', first_slot AT TIME ZONE 'UTC', timestamp '0001-01-01'))::bigint / 604800)
    ELSE routines.count_more_slots(cadence, first_slot, last_slot)
END;
COMMENT ON FUNCTION routines.count_slots IS
    'The number of slots from first_slot to last_slot. Both must be slots of the cadence; both are counted.';

-- plpgsql, because it is called rarely and every tick would have to plan the text of an inlined body.
CREATE FUNCTION routines.slots_in_span(cadence routines.cadence, first_slot timestamptz, last_slot timestamptz)
RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN coalesce(
        routines.count_slots(cadence, routines.latest_slot(cadence, first_slot), routines.latest_slot(cadence, last_slot)),
        -- first_slot is earlier than every slot, and counts as one.
        1 + routines.count_slots(cadence, routines.next_fire(cadence, first_slot), routines.latest_slot(cadence, last_slot)),
        1);
END $$;
COMMENT ON FUNCTION routines.slots_in_span IS
    'The number of slots from first_slot to last_slot. Both may be times between two slots that a person set.';

CREATE FUNCTION routines.next_slots(cadence routines.cadence, after timestamptz, slot_limit integer)
RETURNS SETOF timestamptz LANGUAGE plpgsql IMMUTABLE ROWS 10 AS $$
DECLARE
    slot timestamptz := after;
BEGIN
    IF (cadence).type = 'cron' THEN
        RETURN QUERY SELECT * FROM routines.later_cron_slots(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone),
            greatest(after, (cadence).starts_at - interval '1 microsecond'), (cadence).ends_at, slot_limit);
        RETURN;
    END IF;
    FOR position IN 1 .. slot_limit LOOP
        slot := routines.next_fire(cadence, slot);
        EXIT WHEN slot IS NULL;
        RETURN NEXT slot;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.next_slots IS
    'The first slot_limit slots later than `after`. Try: SELECT routines.next_slots(routines.cadence_from_json(''{"type": "weekdays", "hour_utc": 9, "minute_utc": 0}''), now(), 10);';

CREATE FUNCTION routines.cron_expressions(expression jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(expression) WHEN 'string' THEN ARRAY[expression #>> '{}']
    WHEN 'array' THEN ARRAY(SELECT each #>> '{}' FROM jsonb_array_elements(expression) WITH ORDINALITY AS listed (each, position)
                            ORDER BY position) END;
COMMENT ON FUNCTION routines.cron_expressions IS 'The expressions of a cadence, each as it was given.';

CREATE FUNCTION routines.cadence_in_words(cadence routines.cadence) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE RETURN concat_ws(', ',
    (cadence).type || CASE (cadence).type
        WHEN 'manual' THEN ''
        WHEN 'hourly' THEN ' at minute ' || (cadence).minute_utc
        WHEN 'cron' THEN ' ' || array_to_string(routines.cron_expressions((cadence).expression), '; ') || ' in ' || (cadence).timezone
        WHEN 'interval' THEN ' of ' || (cadence).every_minutes || ' minutes, on ' || to_char(
            (cadence).anchor AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
        WHEN 'once' THEN ' at ' || to_char((cadence).at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
        ELSE coalesce(' on ' || (cadence).day_of_week, '')
             || ' at ' || to_char((cadence).hour_utc, 'FM00') || ':' || to_char((cadence).minute_utc, 'FM00') END,
    'from ' || to_char((cadence).starts_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
    'until ' || to_char((cadence).ends_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'));
COMMENT ON FUNCTION routines.cadence_in_words IS
    'For example: weekly on mon at 09:00, hourly at minute 5, or cron 0 9 * * 1-5 in Europe/Berlin. Times without a zone are in UTC.';

------------------------------------------------------------------------------------------------------- spans of slots
-- A span of skipped slots (table skips) stores the cadence that its slots follow.

CREATE FUNCTION routines.is_slot_of_span(cadence routines.cadence, first_slot timestamptz, last_slot timestamptz, at timestamptz)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    at IN (first_slot, last_slot) OR at > first_slot AND at < last_slot AND at = routines.latest_slot(cadence, at);
COMMENT ON FUNCTION routines.is_slot_of_span IS
    'Returns true if `at` is one of the slots of a span in skips, and false or null if it falls between two of them.';

CREATE FUNCTION routines.next_slot_of_span(
    cadence routines.cadence, first_slot timestamptz, last_slot timestamptz, after timestamptz
) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN after < first_slot THEN first_slot
    WHEN after < last_slot THEN least(routines.next_fire(cadence, after), last_slot)
END;
COMMENT ON FUNCTION routines.next_slot_of_span IS 'The first slot of a span in skips that is later than `after`; null if there is none.';

--------------------------------------------------------------------------------------------------- slots kept in the row
-- A routine whose cadence is on no fixed grid, or is bounded, keeps a window of consecutive slots in its column `upcoming`: the last
-- slot at or before the time at which the window was made, and those after it. '-infinity' stands for no earlier slot, 'infinity' for
-- no later one. Within the window, finding a slot is a binary search. So a fire costs the same for every cadence; the window is made
-- anew once its last slot is next.

CREATE FUNCTION routines.slot_window(cadence routines.cadence, around timestamptz) RETURNS timestamptz[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    slots timestamptz[];
BEGIN
    IF (cadence).type = 'manual'
       OR (cadence).type NOT IN ('cron', 'interval', 'once') AND (cadence).starts_at IS NULL AND (cadence).ends_at IS NULL THEN
        RETURN NULL;
    END IF;
    slots := ARRAY(SELECT routines.next_slots(cadence, around, 32));
    RETURN coalesce(routines.latest_slot(cadence, around), '-infinity')
        || slots || CASE WHEN cardinality(slots) < 32 THEN ARRAY['infinity'::timestamptz] ELSE '{}' END;
END $$;
COMMENT ON FUNCTION routines.slot_window IS 'What the column `upcoming` holds at the time `around`; null for a cadence on a fixed grid.';

-- == sql/schema/03_clocks.sql

-- The clocks of time zones: their names, how far they are from UTC, and the moments at which they show a time.

-- No triggers. Reading the view pg_timezone_names takes 15 ms, since it opens the file of every time zone.
CREATE TABLE routines.time_zones (name text CONSTRAINT time_zones_pkey PRIMARY KEY);
COMMENT ON TABLE  routines.time_zones IS 'The names of time zones that the server had when the table was made. Others are looked up in pg_timezone_names.';
COMMENT ON COLUMN routines.time_zones.name IS 'As the IANA database has it, for example Europe/Berlin.';

CREATE FUNCTION routines.is_iana_name(name text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN name !~ '^(posix|right)/' AND name NOT IN ('Factory', 'localtime', 'posixrules');
COMMENT ON FUNCTION routines.is_iana_name IS 'Returns false for names in pg_timezone_names that are not names of places or of fixed offsets.';

INSERT INTO routines.time_zones SELECT name FROM pg_timezone_names WHERE routines.is_iana_name(name);

CREATE FUNCTION routines.knows_time_zone(name text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN name = 'UTC' OR EXISTS (SELECT FROM routines.time_zones AS known WHERE known.name = knows_time_zone.name)
        OR routines.is_iana_name(name) AND EXISTS (SELECT FROM pg_timezone_names AS known WHERE known.name = knows_time_zone.name);
END $$;
COMMENT ON FUNCTION routines.knows_time_zone IS 'Returns true if the server knows a time zone of this IANA name.';

CREATE FUNCTION routines.time_zone_rule(field text, name text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN format(
    '%s: must be the name of a time zone in the IANA database, such as Europe/Berlin or UTC, not %s', field, to_json(left(name, 40)));
COMMENT ON FUNCTION routines.time_zone_rule IS 'What an error says about a field whose time zone is not known.';

CREATE FUNCTION routines.check_time_zone(name text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT routines.knows_time_zone(name) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'routines_timezone_is_known',
            MESSAGE = routines.time_zone_rule('timezone', name);
    END IF;
END $$;
COMMENT ON FUNCTION routines.check_time_zone IS
    'Raises an error unless the server knows a time zone of this name. Postgres itself also takes abbreviations and strings such as Foo5.';

CREATE FUNCTION routines.clocks_of(zone text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE zone
    WHEN 'CET' THEN 'Europe/Brussels' WHEN 'MET' THEN 'Europe/Brussels' WHEN 'EET' THEN 'Europe/Athens' WHEN 'WET' THEN 'Europe/Lisbon'
    WHEN 'EST' THEN 'America/Panama' WHEN 'MST' THEN 'America/Phoenix' WHEN 'HST' THEN 'Pacific/Honolulu' ELSE zone END;
COMMENT ON FUNCTION routines.clocks_of IS
    'The time zone to compute with. Postgres reads these names as abbreviations without summer time; the IANA database has them as other names of these zones.';

CREATE FUNCTION routines.utc_offset(zone text, at timestamp) RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN timezone(zone, timezone('UTC', at)) - at;
COMMENT ON FUNCTION routines.utc_offset IS 'How far the clocks of a time zone are ahead of UTC at a time in UTC.';

-- Looks at the offsets a day and a half before and after, which lie on both sides of a change of the clocks.
CREATE FUNCTION routines.moments_of(zone text, local_time timestamp, is_real_time boolean) RETURNS timestamp[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    earlier interval := routines.utc_offset(zone, local_time - interval '36 hours');
    later   interval := routines.utc_offset(zone, local_time + interval '36 hours');
    moments timestamp[] := ARRAY(
        SELECT DISTINCT moment FROM unnest(ARRAY[local_time - earlier, local_time - later]) AS moment
        WHERE moment + routines.utc_offset(zone, moment) = local_time ORDER BY moment);
    before  timestamp := local_time - later;
    upto    timestamp := local_time - earlier;
    middle  timestamp;
BEGIN
    IF is_real_time OR moments <> '{}' THEN
        RETURN CASE WHEN is_real_time THEN moments ELSE moments[1:1] END;
    END IF;
    -- The gap ends after `before` and not after `upto`.
    WHILE upto - before > interval '1 second' LOOP
        middle := date_trunc('second', before + (upto - before) / 2);
        IF routines.utc_offset(zone, middle) = later THEN
            upto := middle;
        ELSE
            before := middle;
        END IF;
    END LOOP;
    -- In the past a gap could end between two minutes.
    RETURN ARRAY[date_trunc('minute', upto + later + interval '59 seconds') - later];
END $$;
COMMENT ON FUNCTION routines.moments_of IS
    'The times in UTC at which a minute on the clocks of a time zone counts: none, one or two by real time; otherwise one.';

-- == sql/schema/03_cron.sql

-- Cron expressions: the fields of Debian's crontab(5), with L, LW, 15W, MON#1 and 5L, in any time zone.
--
-- An expression is parsed into a rule: the days that it matches, and the minutes of such a day. Slots are found in these two stages,
-- so a search reads days, not minutes. On a day without a clock change nearby, a minute of the day is a constant away from UTC. Only
-- near a change is each minute converted by itself.
--
-- Summer time, by Debian's rule: if neither the minute nor the hour field begins with *, a time in the gap becomes the first minute
-- after it, and a time in the overlap counts once, the first time. All other expressions go by real time: nothing in the gap, and both
-- times in the overlap.
--
-- These functions are declared IMMUTABLE although they change with the server's time zone data, as timezone(text, timestamptz) is.

CREATE TYPE routines.cron_rule AS (
    is_real_time boolean,
    minutes      integer[],
    months       integer[],
    is_either    boolean,
    days         integer[],
    near_days    integer[],
    weekdays     integer[],
    nth_weekdays integer[]
);
COMMENT ON TYPE routines.cron_rule IS 'A parsed cron expression.';
COMMENT ON COLUMN routines.cron_rule.is_real_time IS 'True if the minute or the hour field begins with *: then it goes by real time when clocks change.';
COMMENT ON COLUMN routines.cron_rule.minutes IS 'Minutes of the day, 0-1439, ascending.';
COMMENT ON COLUMN routines.cron_rule.months IS 'Months, 1-12.';
COMMENT ON COLUMN routines.cron_rule.is_either IS 'True if a day needs to match only one of its two fields, because neither begins with *.';
COMMENT ON COLUMN routines.cron_rule.days IS 'Days of the month, 1-31; 32 for the last.';
COMMENT ON COLUMN routines.cron_rule.near_days IS 'Days of the month whose nearest weekday matches, 1-31; 32 for the last.';
COMMENT ON COLUMN routines.cron_rule.weekdays IS 'Days of the week, 0-6, Sunday first.';
COMMENT ON COLUMN routines.cron_rule.nth_weekdays IS 'Ten times the day of the week, plus its number in the month, 1-5; or plus 6 for the last.';

------------------------------------------------------------------------------------------------------------------ parsing
CREATE FUNCTION routines.refuse_expression(rule text) RETURNS void LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = 'expression: ' || rule, ERRCODE = 'check_violation', CONSTRAINT = 'routines_expression_is_valid';
END $$;
COMMENT ON FUNCTION routines.refuse_expression IS 'Raises the error of a cron expression that is not valid.';

CREATE FUNCTION routines.cron_names(field text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE field
    WHEN 'month' THEN '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}'::text[]
    WHEN 'day of week' THEN '{sun,mon,tue,wed,thu,fri,sat}'::text[]
    ELSE '{}'::text[] END;
COMMENT ON FUNCTION routines.cron_names IS 'The names that a field of a cron expression takes, in the order of their numbers.';

-- Returns null for anything that is not a number or a name of the field; the caller refuses it.
CREATE FUNCTION routines.cron_number(field text, word text, low integer, high integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN word ~ '^[0-9]{1,4}$' THEN CASE WHEN word::integer BETWEEN low AND high THEN word::integer END
    ELSE array_position(routines.cron_names(field), word) - 1 + CASE field WHEN 'month' THEN 1 ELSE 0 END END;
COMMENT ON FUNCTION routines.cron_number IS 'The number that a word of a cron expression stands for; null if it stands for none.';

-- Returns null for anything that is neither a star, a number nor a range; the caller refuses it.
CREATE FUNCTION routines.cron_numbers(field text, item text, low integer, high integer) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    part   text[] := regexp_match(item, '^(?:(\*)|([a-z0-9]+)(?:-([a-z0-9]+))?)(?:/([0-9]{1,4}))?$');
    first  integer := CASE WHEN part[1] IS NOT NULL THEN low ELSE routines.cron_number(field, part[2], low, high) END;
    last   integer := CASE WHEN part[1] IS NOT NULL THEN CASE field WHEN 'day of week' THEN 6 ELSE high END
                           WHEN part[3] IS NULL THEN first
                           ELSE routines.cron_number(field, part[3], low, high) END;
    step   integer := coalesce(part[4]::integer, 1);
BEGIN
    -- fri-sun ends on the Sunday after Friday.
    IF part[3] = 'sun' AND last < first THEN
        last := 7;
    END IF;
    IF part IS NULL OR first IS NULL OR last IS NULL OR first > last OR step = 0
       OR part[4] IS NOT NULL AND part[1] IS NULL AND part[3] IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN ARRAY(SELECT CASE WHEN field = 'day of week' THEN number % 7 ELSE number END
                 FROM generate_series(first, last, step) AS number);
END $$;
COMMENT ON FUNCTION routines.cron_numbers IS 'The numbers that an item of a list in a cron expression stands for; null if it is not valid.';

CREATE FUNCTION routines.cron_rule(expression text) RETURNS routines.cron_rule LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    labels  text[] := '{minute,hour,day of month,month,day of week}';
    lows    integer[] := '{0,0,1,1,0}';
    highs   integer[] := '{59,23,31,12,7}';
    allowed text[] := ARRAY[
        '0-59, *, a range such as 1-5, a step such as */15 or 10-40/5, or a list of these',
        '0-23, *, a range such as 9-17, a step such as */2 or 8-18/2, or a list of these',
        '1-31, *, a range such as 1-7, a step such as */2, L (the last), LW (the last weekday), 15W (the weekday nearest to the 15th), or a list of these',
        '1-12, jan to dec, *, a range such as 1-3, a step such as */3, or a list of these',
        '0-7 (0 and 7 are Sunday), sun to sat, *, a range such as mon-fri, a step such as */2, mon#1 (the first Monday), 5L (the last Friday), or a list of these'];
    text    text := lower(regexp_replace(expression, '^\s+|\s+$', '', 'g'));
    fields  text[];
    item    text;
    part    text[];
    found   integer[];
    sets    integer[][] := '{}';
    rule    routines.cron_rule;
    hours   integer[];
    minutes integer[];
BEGIN
    text := coalesce(CASE text WHEN '@yearly' THEN '0 0 1 1 *' WHEN '@annually' THEN '0 0 1 1 *' WHEN '@monthly' THEN '0 0 1 * *'
        WHEN '@weekly' THEN '0 0 * * 0' WHEN '@daily' THEN '0 0 * * *' WHEN '@midnight' THEN '0 0 * * *'
        WHEN '@hourly' THEN '0 * * * *' END, text);
    fields := regexp_split_to_array(text, '\s+');
    IF length(expression) > 1000 THEN
        PERFORM routines.refuse_expression('must be at most 1000 characters long');
    ELSIF text LIKE '@%' THEN
        PERFORM routines.refuse_expression(format(
            'must be @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly or five fields, not %s', to_json(left(expression, 40))));
    ELSIF text = '' OR cardinality(fields) <> 5 THEN
        PERFORM routines.refuse_expression(format(
            'must have five fields, minute hour day-of-month month day-of-week, such as "30 9 * * mon-fri"; %s has %s',
            to_json(left(expression, 40)), CASE text WHEN '' THEN 0 ELSE cardinality(fields) END));
    END IF;
    rule.near_days := '{}';
    rule.nth_weekdays := '{}';
    FOR field IN 1 .. 5 LOOP
        found := '{}';
        FOREACH item IN ARRAY string_to_array(fields[field], ',') LOOP
            IF field = 3 AND item ~ '^(l|lw|0*([1-9]|[12][0-9]|3[01])w)$' AND length(item) <= 5 THEN
                part := regexp_match(item, '^([0-9]*)(l?)(w?)$');
                IF part[3] = 'w' THEN
                    rule.near_days := rule.near_days || CASE part[2] WHEN 'l' THEN 32 ELSE part[1]::integer END;
                ELSE
                    found := found || 32;
                END IF;
            ELSIF field = 5 AND item ~ '^([0-7]|sun|mon|tue|wed|thu|fri|sat)(l|#[1-5])$' THEN
                part := regexp_match(item, '^(.*?)(?:l|#([1-5]))$');
                rule.nth_weekdays := rule.nth_weekdays
                    || routines.cron_number('day of week', part[1], 0, 7) % 7 * 10 + coalesce(part[2]::integer, 6);
            ELSIF routines.cron_numbers(labels[field], item, lows[field], highs[field]) IS NULL THEN
                PERFORM routines.refuse_expression(format('%s must be %s, not %s%s', labels[field], allowed[field],
                    to_json(left(fields[field], 40)),
                    CASE WHEN item ~ '^[a-z0-9]+/[0-9]+$' THEN format(
                        ': write %s-%s/%s for a step', split_part(item, '/', 1), highs[field], split_part(item, '/', 2)) ELSE '' END));
            ELSE
                found := found || routines.cron_numbers(labels[field], item, lows[field], highs[field]);
            END IF;
        END LOOP;
        found := ARRAY(SELECT DISTINCT number FROM unnest(found) AS number ORDER BY number);
        CASE field WHEN 1 THEN minutes := found;
                   WHEN 2 THEN hours := found;
                   WHEN 3 THEN rule.days := found;
                   WHEN 4 THEN rule.months := found;
                   ELSE rule.weekdays := found; END CASE;
    END LOOP;
    rule.minutes := ARRAY(SELECT hour * 60 + minute FROM unnest(hours) AS hour, unnest(minutes) AS minute ORDER BY hour, minute);
    rule.is_real_time := fields[1] LIKE '*%' OR fields[2] LIKE '*%';
    rule.is_either := fields[3] NOT LIKE '*%' AND fields[5] NOT LIKE '*%';
    RETURN rule;
END $$;
COMMENT ON FUNCTION routines.cron_rule IS
    'Parses a cron expression; raises an error that names the field and what it takes. Try: SELECT (routines.cron_rule(''*/15 9-17 * * mon-fri'')).*;';

CREATE FUNCTION routines.cron_rules(expression jsonb) RETURNS routines.cron_rule[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(SELECT routines.cron_rule(each) FROM unnest(routines.cron_expressions(expression)) AS each);
COMMENT ON FUNCTION routines.cron_rules IS 'The parsed expressions of a cadence; raises an error for one that cannot be parsed.';

--------------------------------------------------------------------------------------------------------------------- days
CREATE FUNCTION routines.nearest_weekdays(days integer[], month_begin date) RETURNS integer[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN ARRAY(
    SELECT day + CASE extract(dow FROM month_begin + (day - 1))
        WHEN 6 THEN CASE day WHEN 1 THEN 2 ELSE -1 END
        WHEN 0 THEN CASE day WHEN length THEN -2 ELSE 1 END
        ELSE 0 END
    FROM (SELECT extract(day FROM month_begin + interval '1 month' - interval '1 day')::integer AS length) AS month,
         LATERAL (SELECT CASE given WHEN 32 THEN length ELSE given END AS day FROM unnest(days) AS given) AS wished
    WHERE day <= length);
COMMENT ON FUNCTION routines.nearest_weekdays IS
    'The weekdays nearest to these days of a month, within the month; 32 stands for its last day.';

CREATE FUNCTION routines.cron_matches(rule routines.cron_rule, day date) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    number     integer := extract(day FROM day);
    weekday    integer := extract(dow FROM day);
    length     integer := extract(day FROM date_trunc('month', day::timestamp) + interval '1 month' - interval '1 day');
    is_day     boolean;
    is_weekday boolean;
BEGIN
    is_day := number = ANY (rule.days) OR number = length AND 32 = ANY (rule.days)
        OR rule.near_days <> '{}' AND number = ANY (routines.nearest_weekdays(rule.near_days, day - (number - 1)));
    is_weekday := weekday = ANY (rule.weekdays) OR weekday * 10 + (number + 6) / 7 = ANY (rule.nth_weekdays)
        OR number + 7 > length AND weekday * 10 + 6 = ANY (rule.nth_weekdays);
    RETURN CASE WHEN rule.is_either THEN is_day OR is_weekday ELSE is_day AND is_weekday END;
END $$;
COMMENT ON FUNCTION routines.cron_matches IS 'Returns true if a parsed cron expression matches a day of one of its months.';

-- 28 years in a row without a change of century have every kind of year there is: each of seven weekdays on which a year may begin,
-- with and without a leap day. The first year is tried first, because nearly every expression has a day in it.
CREATE FUNCTION routines.is_cron(expression jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    given text;
    rule  routines.cron_rule;
BEGIN
    IF jsonb_typeof(expression) NOT IN ('string', 'array')
       OR jsonb_typeof(expression) = 'array' AND (
           jsonb_array_length(expression) NOT BETWEEN 1 AND 10
           OR EXISTS (SELECT FROM jsonb_array_elements(expression) AS each WHERE jsonb_typeof(each) <> 'string')) THEN
        PERFORM routines.refuse_expression('must be a string, or an array of 1 to 10 strings');
    END IF;
    FOREACH given IN ARRAY routines.cron_expressions(expression) LOOP
        rule := routines.cron_rule(given);
        IF NOT EXISTS (SELECT FROM generate_series(0, 365) AS day 
                       WHERE extract(month FROM date '2001-01-01' + day) = ANY (rule.months)
                         AND routines.cron_matches(rule, date '2001-01-01' + day))
           AND NOT EXISTS (SELECT FROM generate_series(366, 10226) AS day 
                       WHERE extract(month FROM date '2001-01-01' + day) = ANY (rule.months)
                         AND routines.cron_matches(rule, date '2001-01-01' + day)) THEN
            PERFORM routines.refuse_expression(format('never comes: no year has a day that matches %s', to_json(left(given, 40))));
        END IF;
    END LOOP;
    RETURN true;
END $$;
COMMENT ON FUNCTION routines.is_cron IS
    'Returns true for a cron expression or an array of up to 10; raises an error that says what is wrong with any other value.';

-------------------------------------------------------------------------------------------------------------------- slots
-- A day is even if clocks do not change from the day before to the day after. Its slots then fall on no other day.
CREATE FUNCTION routines.cron_days(rules routines.cron_rule[], zone text, first_day date, last_day date)
RETURNS TABLE (day date, is_even boolean, rule_number bigint) LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 100 AS $$
    SELECT day, timezone(zone, (day + 2)::timestamp) - timezone(zone, (day - 1)::timestamp) = interval '72 hours', rule_number
    FROM (SELECT first_day + number AS day FROM generate_series(0, last_day - first_day) AS number) AS days
    CROSS JOIN unnest(rules) WITH ORDINALITY AS rule (
        is_real_time, minutes, months, is_either, days, near_days, weekdays, nth_weekdays, rule_number)
    WHERE extract(month FROM day) = ANY (months) AND routines.cron_matches(rules[rule_number], day);
$$;
COMMENT ON FUNCTION routines.cron_days IS 'The days that parsed expressions match, once for each that does.';

-- On an even day, a minute is found by its offset from the day's beginning. Minutes outside the range are left out before they become
-- times. Near a change, a time may fall on the day before or after.
CREATE FUNCTION routines.cron_slots(rules routines.cron_rule[], zone text, after timestamptz, until timestamptz)
RETURNS SETOF timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 100 AS $$
    WITH span AS MATERIALIZED (SELECT timezone(zone, after) AS first, timezone(zone, until) AS last),
    matched AS MATERIALIZED (
        SELECT day, is_even, (rules[rule_number]).is_real_time, (rules[rule_number]).minutes,
               timezone('UTC', timezone(zone, day::timestamp)) AS begin,
               floor(extract(epoch FROM first - day::timestamp) / 60) AS first, ceil(extract(epoch FROM last - day::timestamp) / 60) AS last
        FROM span, routines.cron_days(rules, zone, first::date - 1, last::date + 1)
    )
    SELECT DISTINCT timezone('UTC', moment) FROM (
        SELECT begin + minute * interval '1 minute' AS moment
        FROM matched CROSS JOIN unnest(minutes) AS minute WHERE is_even AND minute BETWEEN first AND last
        UNION ALL
        SELECT unnest(routines.moments_of(zone, day + minute * interval '1 minute', is_real_time))
        FROM matched CROSS JOIN unnest(minutes) AS minute WHERE NOT is_even
    ) AS found
    WHERE moment > timezone('UTC', after) AND moment <= timezone('UTC', until);
$$;
COMMENT ON FUNCTION routines.cron_slots IS 'The slots of parsed expressions later than `after`, up to `until`, in no order.';

-- The spans grow, since most expressions have a slot soon. The longest wait is 40 years: 29 February on a certain weekday, across the
-- end of a century that is no leap year.
CREATE FUNCTION routines.search_days(rules routines.cron_rule[]) RETURNS float8[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN cardinality((rules[1]).minutes) > 50 THEN '{0.1,2,14,70,400,3000,15000}'::float8[] ELSE '{2,14,70,400,3000,15000}' END;
COMMENT ON FUNCTION routines.search_days IS 'How many days to search for a slot, one span after the other.';

CREATE FUNCTION routines.later_cron_slots(
    rules routines.cron_rule[], zone text, after timestamptz, ends_at timestamptz, slot_limit integer
) RETURNS SETOF timestamptz LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    since   timestamptz := greatest(after, '1969-12-31 23:59:59.999999Z');
    upto    timestamptz;
    missing integer := slot_limit;
    found   integer;
    days    float8;
BEGIN
    FOREACH days IN ARRAY routines.search_days(rules) || 90000::float8 LOOP
        upto := least(since + make_interval(secs => days * 86400), ends_at, '2199-12-31 23:59:59.999999Z');
        EXIT WHEN missing <= 0 OR since >= upto OR after IS NULL;
        RETURN QUERY SELECT slot FROM routines.cron_slots(rules, zone, since, upto) AS slot ORDER BY slot LIMIT missing;
        GET DIAGNOSTICS found = ROW_COUNT;
        missing := missing - found;
        since := upto;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.later_cron_slots IS 'The first slot_limit slots later than `after`, and not later than ends_at, in order.';

CREATE FUNCTION routines.later_cron_slot(rules routines.cron_rule[], zone text, after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    since timestamptz := after;
    upto  timestamptz;
    found timestamptz;
    days  float8;
BEGIN
    FOREACH days IN ARRAY routines.search_days(rules) LOOP
        upto := since + make_interval(secs => days * 86400);
        found := (SELECT min(slot) FROM routines.cron_slots(rules, zone, since, upto) AS slot);
        EXIT WHEN found IS NOT NULL;
        since := upto;
    END LOOP;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.later_cron_slot IS 'The first slot later than `after`; null if there is none within 40 years.';

CREATE FUNCTION routines.earlier_cron_slot(rules routines.cron_rule[], zone text, until timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    since timestamptz;
    upto  timestamptz := until;
    found timestamptz;
    days  float8;
BEGIN
    FOREACH days IN ARRAY routines.search_days(rules) LOOP
        since := upto - make_interval(secs => days * 86400);
        found := (SELECT max(slot) FROM routines.cron_slots(rules, zone, since, upto) AS slot);
        EXIT WHEN found IS NOT NULL;
        upto := since;
    END LOOP;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.earlier_cron_slot IS 'The last slot at or before `until`; null if there is none within 40 years.';

-- Counts even days by kind, and lists slots of the other days only: years of an expression that comes every minute take milliseconds.
CREATE FUNCTION routines.count_cron_slots(rules routines.cron_rule[], zone text, first_slot timestamptz, last_slot timestamptz)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    WITH span AS MATERIALIZED (SELECT timezone(zone, first_slot)::date AS first, timezone(zone, last_slot)::date AS last),
    matched AS MATERIALIZED (
        SELECT day, rule_number, is_even AND day > first AND day < last AS is_whole
        FROM span, routines.cron_days(rules, zone, first - 1, last + 1)
    ),
    kinds AS (
        SELECT numbers, count(*) AS days
        FROM (SELECT array_agg(rule_number ORDER BY rule_number) AS numbers FROM matched WHERE is_whole GROUP BY day) AS whole
        GROUP BY numbers
    )
    SELECT coalesce((SELECT sum(days * (SELECT count(DISTINCT minute)
                                        FROM unnest(numbers) AS number, unnest((rules[number]).minutes) AS minute)) FROM kinds), 0)::bigint
        + (SELECT count(DISTINCT moment)
           FROM matched
           CROSS JOIN unnest((rules[rule_number]).minutes) AS minute
           CROSS JOIN unnest(routines.moments_of(
               zone, day + minute * interval '1 minute', (rules[rule_number]).is_real_time)) AS moment
           WHERE NOT is_whole AND moment > timezone('UTC', first_slot) AND moment <= timezone('UTC', last_slot));
$$;
COMMENT ON FUNCTION routines.count_cron_slots IS 'The number of slots later than first_slot, up to last_slot.';

------------------------------------------------------------------------------------------------------- what is not a constraint
-- Called by the trigger that sets next_run_at. A constraint would be checked by every fire, which takes a hundredth of the time that
-- parsing takes.
CREATE FUNCTION routines.check_cadence(cadence routines.cadence) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF (cadence).type = 'cron' AND (cadence).expression IS NOT NULL THEN
        PERFORM routines.check_time_zone((cadence).timezone);
        PERFORM routines.is_cron((cadence).expression);
        IF routines.next_fire(routines.without_bounds(cadence), now()) IS NULL THEN
            PERFORM routines.refuse_expression('never comes: the clocks of ' || (cadence).timezone || ' skip that time on every such day');
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION routines.check_cadence IS 'Raises an error if the time zone or the expression of a cadence is not valid, or if it never comes.';

-- Most expressions are answered by their minutes alone. Only where the closest two come from different expressions, or lie on both
-- sides of midnight, it matters which days match: those of a year, if that has the two, and otherwise of 28 years, which have every
-- date on every weekday.
CREATE FUNCTION routines.closest_minutes(rules routines.cron_rule[]) RETURNS integer LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    of_one integer := (
        SELECT min(minute - earlier) FROM unnest(rules) AS rule, LATERAL (
            SELECT minute, lag(minute) OVER (ORDER BY minute) AS earlier FROM unnest(rule.minutes) AS minute) AS stepped);
    of_all integer := (
        SELECT least(min(minute - earlier), min(minute) + 1440 - max(minute)) FROM (
            SELECT minute, lag(minute) OVER (ORDER BY minute) AS earlier
            FROM (SELECT DISTINCT unnest(rule.minutes) AS minute FROM unnest(rules) AS rule) AS merged) AS stepped);
    last_day date;
    closest  integer;
BEGIN
    IF of_one <= of_all OR of_all > 60 THEN
        RETURN of_all;
    END IF;
    FOREACH last_day IN ARRAY '{2000-12-31,2027-12-31}'::date[] LOOP
        WITH days AS MATERIALIZED (
            SELECT day, array_agg(rule_number ORDER BY rule_number) AS numbers
            FROM routines.cron_days(rules, 'UTC', '2000-01-01', last_day) GROUP BY day
        ),
        kinds AS MATERIALIZED (
            SELECT numbers, min(minute) AS first, max(minute) AS last, min(minute - earlier) AS step
            FROM (SELECT DISTINCT numbers FROM days) AS kind CROSS JOIN LATERAL (
                SELECT minute, lag(minute) OVER (ORDER BY minute) AS earlier
                FROM (SELECT DISTINCT unnest((rules[number]).minutes) AS minute
                      FROM unnest(numbers) AS number) AS merged) AS stepped
            GROUP BY numbers
        )
        SELECT least(min(step), min(CASE WHEN day = day_before + 1 THEN first + 1440 - last_before END)) INTO closest
        FROM (SELECT day, first, step, lag(day) OVER by_day AS day_before, lag(last) OVER by_day AS last_before
              FROM days JOIN kinds USING (numbers) WINDOW by_day AS (ORDER BY day)) AS stepped;
        EXIT WHEN closest = of_all;
    END LOOP;
    RETURN closest;
END $$;
COMMENT ON FUNCTION routines.closest_minutes IS
    'The fewest minutes between two slots of parsed expressions, on clocks that nobody changes; null for a single slot.';

CREATE FUNCTION routines.closest_seconds(cadence routines.cadence) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE (cadence).type
    WHEN 'hourly' THEN 3600
    WHEN 'interval' THEN 60 * (cadence).every_minutes
    WHEN 'cron' THEN 60 * routines.closest_minutes(routines.cron_rules((cadence).expression)) END;
COMMENT ON FUNCTION routines.closest_seconds IS
    'The shortest time between two slots of a cadence, on clocks that nobody changes; null for types whose slots are days apart, or that have one or none.';

CREATE FUNCTION routines.check_spread(cadence routines.cadence, spread_seconds integer) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF spread_seconds NOT BETWEEN 0 AND 3600 THEN
        RAISE EXCEPTION 'spread_seconds: must be 0 to 3600, not %', spread_seconds
            USING ERRCODE = 'check_violation', CONSTRAINT = 'routines_spread_seconds_in_range';
    ELSIF spread_seconds > 0 AND spread_seconds >= routines.closest_seconds(cadence) THEN
        RAISE EXCEPTION 'spread_seconds: must be below %, the seconds between two of its slots, not %',
            routines.closest_seconds(cadence), spread_seconds
            USING ERRCODE = 'check_violation', CONSTRAINT = 'routines_spread_seconds_below_interval';
    END IF;
END $$;
COMMENT ON FUNCTION routines.check_spread IS 'Raises an error if a spread is out of range, or reaches from one slot of its cadence to the next.';

CREATE FUNCTION routines.with_defaults(cadence routines.cadence, created_at timestamptz) RETURNS routines.cadence
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF cadence.type = 'cron' THEN
        cadence.timezone := coalesce(cadence.timezone, 'UTC');
    ELSIF cadence.type = 'interval' THEN
        cadence.anchor := coalesce(cadence.anchor, to_timestamp(floor(extract(epoch FROM created_at) / 60) * 60));
    END IF;
    RETURN cadence;
END $$;
COMMENT ON FUNCTION routines.with_defaults IS 'The cadence with the time zone and the anchor that it has if none is given.';

CREATE FUNCTION routines.preview_slots(
    cadence routines.cadence, after timestamptz, slot_limit integer, spread_seconds integer DEFAULT NULL
) RETURNS SETOF timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
    whole routines.cadence := routines.with_defaults(cadence, now());
BEGIN
    PERFORM routines.check_cadence(whole);
    PERFORM routines.check_spread(whole, spread_seconds);
    RETURN QUERY SELECT * FROM routines.next_slots(whole, after, slot_limit);
END $$;
COMMENT ON FUNCTION routines.preview_slots IS 'The coming slots of a cadence as it is given for a routine, without the defaults of its fields. Checks the cadence and the spread.';

-- == sql/schema/03_local_times.sql

-- Slots of cron routines as the clocks of their time zones show them, and what to say where clocks change.

CREATE FUNCTION routines.iso_local(zone text, at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    to_char(timezone(zone, at), 'YYYY-MM-DD"T"HH24:MI:SS')
    || CASE WHEN routines.utc_offset(zone, timezone('UTC', at)) < '0' THEN '-' ELSE '+' END
    || to_char(greatest(routines.utc_offset(zone, timezone('UTC', at)), -routines.utc_offset(zone, timezone('UTC', at))), 'HH24:MI');
COMMENT ON FUNCTION routines.iso_local IS 'A time as the clocks of a time zone show it, for example 2027-03-14T03:00:00-04:00.';

CREATE FUNCTION routines.moved_from(cadence routines.cadence, slot timestamptz) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    zone   text := routines.clocks_of((cadence).timezone);
    moment timestamp := timezone('UTC', slot);
    first  timestamp := moment + routines.utc_offset(zone, moment - interval '1 second');
    last   timestamp := moment + routines.utc_offset(zone, moment);
    rules  routines.cron_rule[];
BEGIN
    IF first >= last THEN
        RETURN NULL;
    END IF;
    rules := routines.cron_rules((cadence).expression);
    RETURN (SELECT min(day + minute * interval '1 minute')
            FROM routines.cron_days(rules, zone, first::date, last::date)
            CROSS JOIN unnest((rules[rule_number]).minutes) AS minute
            WHERE NOT (rules[rule_number]).is_real_time
              AND day + minute * interval '1 minute' >= first AND day + minute * interval '1 minute' < last);
END $$;
COMMENT ON FUNCTION routines.moved_from IS
    'The first local time that did not exist because clocks were set forward at the time `slot`, and that fires then instead; null if there is none.';

CREATE FUNCTION routines.is_first_of_two(cadence routines.cadence, slot timestamptz) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    zone    text := routines.clocks_of((cadence).timezone);
    shown   timestamp := timezone(zone, slot);
    moments timestamp[] := routines.moments_of(zone, shown, true);
    rules   routines.cron_rule[];
BEGIN
    IF cardinality(moments) < 2 OR moments[1] <> timezone('UTC', slot) THEN
        RETURN false;
    END IF;
    rules := routines.cron_rules((cadence).expression);
    RETURN (SELECT coalesce(bool_and(NOT (rules[rule_number]).is_real_time), false)
            FROM routines.cron_days(rules, zone, shown::date, shown::date)
            WHERE day + (extract(epoch FROM shown - day) / 60)::integer * interval '1 minute' = shown
              AND (extract(epoch FROM shown - day) / 60)::integer = ANY ((rules[rule_number]).minutes));
END $$;
COMMENT ON FUNCTION routines.is_first_of_two IS
    'Returns true if clocks show the time of this slot twice, and only the first counts.';

CREATE FUNCTION routines.local_time_of(cadence routines.cadence, slot timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE (cadence).type WHEN 'cron' THEN routines.iso_local(routines.clocks_of((cadence).timezone), slot) END;
COMMENT ON FUNCTION routines.local_time_of IS 'A slot as the clocks of its cadence show it; null for types without a time zone.';

CREATE FUNCTION routines.dst_of(cadence routines.cadence, slot timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN (cadence).type <> 'cron' THEN NULL
    WHEN routines.moved_from(cadence, slot) IS NOT NULL THEN 'shifted'
    WHEN routines.is_first_of_two(cadence, slot) THEN 'first of two' END;
COMMENT ON FUNCTION routines.dst_of IS
    'shifted if the slot stands in for a time that did not exist because clocks were set forward; first of two if its time came twice because they were set back; otherwise null.';

CREATE FUNCTION routines.clock_note(cadence routines.cadence, slot timestamptz, is_past boolean) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE routines.dst_of(cadence, slot)
    WHEN 'shifted' THEN format(
        CASE WHEN is_past THEN '%s did not exist in %s on %s; it fired at %s.'
             ELSE '%s does not exist in %s on %s; it fires at %s.' END,
        to_char(routines.moved_from(cadence, slot), 'HH24:MI'), (cadence).timezone,
        to_char(routines.moved_from(cadence, slot), 'YYYY-MM-DD'),
        to_char(timezone(routines.clocks_of((cadence).timezone), slot), 'HH24:MI'))
    WHEN 'first of two' THEN format(
        CASE WHEN is_past THEN '%s came twice in %s on %s; it fired the first time.'
             ELSE '%s comes twice in %s on %s; it fires the first time.' END,
        to_char(timezone(routines.clocks_of((cadence).timezone), slot), 'HH24:MI'), (cadence).timezone,
        to_char(timezone(routines.clocks_of((cadence).timezone), slot), 'YYYY-MM-DD')) END;
COMMENT ON FUNCTION routines.clock_note IS 'A sentence about a slot whose time did not exist or came twice; null for every other slot.';

-- == sql/schema/04_routines.sql

-- Routines. Each rule of a cadence is a named constraint, so a row typed in psql is as safe as one that came by HTTP, and an
-- error names the broken rule.

-- Triggers, in the order in which they fire. Where two share an event, Postgres fires them by name, and these names are
-- chosen for that order.
--   BEFORE INSERT                  check_exclusions_of_new     checks calendar and active_hours, and keeps active_minutes (chapter
--                                                              05_calendars)
--   BEFORE UPDATE                  check_exclusions            the same
--   BEFORE INSERT or UPDATE        check_run_settings          checks init_params_from_slot, timeout_seconds, retry,
--                                                              pause_after_failures and max_concurrent (chapter 06_slots)
--   BEFORE INSERT or UPDATE        keep_next_run_at            recomputes next_run_at if cadence or paused changes, moves it if the
--                                                              spread does; refuses a pause that ends in the past
--   BEFORE UPDATE                  settle_slots                if cadence or paused changes: records the slots that no tick will
--                                                              see; must come after keep_next_run_at
--   BEFORE DELETE                  settle_slots_of_deleted     the same for a deleted routine
--   AFTER INSERT                   follow_created_webhook_url  restarts a stopped webhook endpoint that the routine names
--   AFTER INSERT                   refuse_missing_secrets_of_new  raises if a secret does not exist in its collection
--   AFTER INSERT                   keep_calendar_uses_of_new   adds to routine_calendars; raises if a calendar does not exist in its
--                                                              collection (chapter 05_calendars)
--   AFTER INSERT, per statement    keep_names_of_new           adds to routine_names
--   AFTER INSERT, per statement    note_new_routines           adds to the audit (chapter 15_audit)
--   AFTER UPDATE                   cancel_unbegun              if it is paused: cancels a retry that no worker has begun, and a run
--                                                              that waits for a place (chapter 06_retries)
--   AFTER UPDATE                   follow_changed_webhook_url  like follow_created_webhook_url; must come before forget_replaced_secrets:
--                                                              the end of a delivery, too, locks the endpoint before the secret
--   AFTER UPDATE                   forget_replaced_secrets     deletes ciphertexts that the routine no longer refers to
--   AFTER UPDATE                   keep_calendar_uses          updates routine_calendars, with the same check
--   AFTER UPDATE                   keep_names_of_changed       updates routine_names
--   AFTER UPDATE                   note_changed_routine        adds to the audit
--   AFTER UPDATE                   note_pause                  if it is paused or resumed: notes it for alert rules (chapter 08_alerts)
--   AFTER UPDATE                   refuse_missing_secrets      raises if a secret does not exist in its collection
--   AFTER DELETE                   cancel_unbegun_of_deleted   the same for a deleted routine; must come before forget_secrets_of_deleted
--   AFTER DELETE                   forget_secrets_of_deleted   deletes its ciphertexts
--   AFTER DELETE                   keep_calendar_uses_of_deleted  deletes from routine_calendars
--   AFTER DELETE                   keep_names_of_deleted       moves the name from routine_names to deleted_routines
--   AFTER DELETE                   note_deleted_routine        adds to the audit
--   AFTER DELETE                   note_deletion               notes it for alert rules
--   AFTER TRUNCATE, per statement  keep_names_of_truncated     empties routine_names
-- A fire updates next_run_at, upcoming, moved_to, settled_until, last_run_at, strikes and backoff_left only, and fires none of them.
--
-- Names have their index in routine_names. Why: docs/decisions/0013.
CREATE TABLE routines.routines (
    id                     bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT routines_pkey PRIMARY KEY,
    collection_id          bigint NOT NULL,
    task_id                bigint NOT NULL,
    name                   routines.slug NOT NULL,
    cadence_type           text NOT NULL CONSTRAINT routines_cadence_type_is_known
                           CHECK (cadence_type IN ('manual', 'hourly', 'daily', 'weekdays', 'weekly', 'cron', 'interval', 'once')),
    hour_utc               smallint CONSTRAINT routines_hour_utc_in_range CHECK (hour_utc BETWEEN 0 AND 23),
    minute_utc             smallint NOT NULL DEFAULT 0 CONSTRAINT routines_minute_utc_in_range CHECK (minute_utc BETWEEN 0 AND 59),
    day_of_week            text CONSTRAINT routines_day_of_week_is_known
                           CHECK (day_of_week IN ('mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun')),
    expression             jsonb CONSTRAINT routines_expression_is_text CHECK (jsonb_typeof(expression) IN ('string', 'array')),
    timezone               text,
    every_minutes          integer CONSTRAINT routines_every_minutes_in_range CHECK (every_minutes BETWEEN 1 AND 525600),
    anchor                 timestamptz CONSTRAINT routines_anchor_in_range CHECK (anchor >= '1970-01-01Z' AND anchor < '2200-01-01Z'),
    once_at                timestamptz CONSTRAINT routines_once_at_in_range CHECK (once_at >= '1970-01-01Z' AND once_at < '2200-01-01Z'),
    starts_at              timestamptz CONSTRAINT routines_starts_at_in_range CHECK (starts_at >= '1970-01-01Z' AND starts_at < '2200-01-01Z'),
    ends_at                timestamptz CONSTRAINT routines_ends_at_in_range CHECK (ends_at >= '1970-01-01Z' AND ends_at < '2200-01-01Z'),
    upcoming               timestamptz[],
    init_params_overrides  routines.json_object NOT NULL DEFAULT '{}',
    init_params_from_slot  jsonb,
    secret_refs            routines.json_object NOT NULL DEFAULT '{}',
    webhook_url            text CONSTRAINT routines_webhook_url_is_http
                           CHECK (webhook_url ~ '^[Hh][Tt][Tt][Pp][Ss]?://[^[:space:]/?#@]+([/?#][^[:space:]]*)?$' AND length(webhook_url) <= 2048),
    webhook_secret_id      uuid,
    paused                 boolean NOT NULL DEFAULT false,
    paused_at              timestamptz,
    paused_reason          text,
    paused_until           timestamptz,
    paused_note            text CONSTRAINT routines_paused_note_length CHECK (length(paused_note) BETWEEN 1 AND 500),
    calendar               jsonb,
    active_hours           jsonb,
    active_minutes         int4multirange,
    moved_to               timestamptz,
    strikes                smallint NOT NULL DEFAULT 0,
    overlap_policy         text NOT NULL DEFAULT 'skip' CONSTRAINT routines_overlap_policy_is_known
                           CHECK (overlap_policy IN ('skip', 'queue_one', 'cancel_other', 'allow')),
    max_concurrent         smallint,
    catchup_window_seconds integer CONSTRAINT routines_catchup_window_seconds_is_not_negative CHECK (catchup_window_seconds >= 0),
    timeout_seconds        integer,
    retry                  jsonb,
    pause_after_failures   integer,
    after_failures         text,
    counts_failures_since  timestamptz,
    backoff_left           integer,
    spread_seconds         integer,
    spread_offset          interval,
    next_run_at            timestamptz,
    settled_until          timestamptz,
    last_run_at            timestamptz,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT routines_hour_utc_fits_cadence
        CHECK ((hour_utc IS NOT NULL) = (cadence_type IN ('daily', 'weekdays', 'weekly'))),
    CONSTRAINT routines_minute_utc_fits_cadence CHECK (cadence_type IN ('hourly', 'daily', 'weekdays', 'weekly') OR minute_utc = 0),
    CONSTRAINT routines_day_of_week_fits_cadence CHECK ((day_of_week IS NOT NULL) = (cadence_type = 'weekly')),
    CONSTRAINT routines_expression_fits_cadence CHECK ((expression IS NOT NULL) = (cadence_type = 'cron')),
    CONSTRAINT routines_timezone_fits_cadence CHECK ((timezone IS NOT NULL) = (cadence_type = 'cron')),
    CONSTRAINT routines_every_minutes_fits_cadence CHECK ((every_minutes IS NOT NULL) = (cadence_type = 'interval')),
    CONSTRAINT routines_anchor_fits_cadence CHECK ((anchor IS NOT NULL) = (cadence_type = 'interval')),
    CONSTRAINT routines_once_at_fits_cadence CHECK ((once_at IS NOT NULL) = (cadence_type = 'once')),
    CONSTRAINT routines_bounds_are_ordered CHECK (starts_at <= ends_at),
    -- Only a cadence that ends may have no next slot.
    CONSTRAINT routines_next_run_at_fits_state CHECK (
        CASE WHEN paused OR cadence_type = 'manual' THEN next_run_at IS NULL
             ELSE next_run_at IS NOT NULL OR cadence_type = 'once' OR ends_at IS NOT NULL END),
    -- Reject timestamps that Python cannot represent. The ticker retries a failed batch routine by routine, and one unreadable
    -- next_run_at would keep it from all the others.
    CONSTRAINT routines_next_run_at_in_range CHECK (next_run_at >= '1970-01-01Z' AND next_run_at < '2200-01-01Z'),
    CONSTRAINT routines_settled_until_in_range CHECK (settled_until >= '1970-01-01Z' AND settled_until < '2200-01-01Z'),
    CONSTRAINT routines_paused_until_fits_state CHECK (paused OR paused_until IS NULL),
    CONSTRAINT routines_paused_note_fits_state CHECK (paused OR paused_note IS NULL),
    -- A year less, so that the slot after the pause is in range too.
    CONSTRAINT routines_paused_until_in_range CHECK (paused_until >= '1970-01-01Z' AND paused_until < '2199-01-01Z'),
    CONSTRAINT routines_created_at_in_range CHECK (created_at >= '1970-01-01Z' AND created_at < '2200-01-01Z')
) WITH (
    -- Room for the next version of a row on its own page. Where there is none, a fire writes two pages and locks the old version in a
    -- record of WAL: 10.0 records and 1,106 bytes a fire without this room, 9.2 and 978 with it.
    fillfactor = 85,
    -- Each fire leaves a dead row version and dead index entries, so vacuum starts at 2 % instead of 20 %. It always cleans the
    -- indexes: among a million routines 10,000 fires touch less than 2 % of the pages, and vacuum would leave the indexes alone
    -- by default. Later fires then took 10 % more CPU time.
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05, vacuum_index_cleanup = on
);
-- The tick claims from this index. Due routines are at its head; routines without a next slot are not in it.
CREATE INDEX routines_next_run_at_idx ON routines.routines (next_run_at) WHERE next_run_at IS NOT NULL;
-- Routines paused by strikes, for metrics. Nearly empty: a fire writes no row that belongs in it.
CREATE INDEX routines_struck_idx ON routines.routines (id) WHERE paused_reason IS NOT NULL;
-- Pauses with an end, for the ticker that ends them. A fire writes no row that belongs in it either.
CREATE INDEX routines_paused_until_idx ON routines.routines (paused_until) WHERE paused_until IS NOT NULL;

COMMENT ON TABLE  routines.routines IS 'A saved, recurring invocation of a task.';
COMMENT ON COLUMN routines.routines.id IS 'Database id, and `id` in the API.';
COMMENT ON COLUMN routines.routines.collection_id IS 'The tenant, the same as the task''s.';
COMMENT ON COLUMN routines.routines.task_id IS 'The task that it runs. A task with routines cannot be deleted: see routine_names.';
COMMENT ON COLUMN routines.routines.name IS 'Unique in its task: see routine_names.';
COMMENT ON COLUMN routines.routines.cadence_type IS
    'manual, hourly, daily, weekdays (Monday to Friday), weekly, cron, interval or once. Read the columns of the cadence as one value with routines.cadence_of(routines).';
COMMENT ON COLUMN routines.routines.hour_utc IS '0-23, required for daily, weekdays and weekly; null otherwise.';
COMMENT ON COLUMN routines.routines.minute_utc IS '0-59, for hourly the minute of the hour; 0 for types that do not take it.';
COMMENT ON COLUMN routines.routines.day_of_week IS 'mon to sun, required for weekly; null otherwise.';
COMMENT ON COLUMN routines.routines.expression IS
    'Required for cron: a JSON string, or an array of up to 10, for example ''"30 9 * * mon-fri"''; null otherwise.';
COMMENT ON COLUMN routines.routines.timezone IS 'For cron: the IANA name of its time zone; UTC if it is not given; null otherwise.';
COMMENT ON COLUMN routines.routines.every_minutes IS 'Required for interval: 1-525600; null otherwise.';
COMMENT ON COLUMN routines.routines.anchor IS
    'For interval: one of its slots, earlier or later than now; the minute of its creation if it is not given; null otherwise.';
COMMENT ON COLUMN routines.routines.once_at IS 'Required for once: its only slot; null otherwise.';
COMMENT ON COLUMN routines.routines.starts_at IS 'No slot is earlier; null for no bound.';
COMMENT ON COLUMN routines.routines.ends_at IS 'No slot is later; null for no bound.';
COMMENT ON COLUMN routines.routines.upcoming IS
    'Slots around the present, from which the tick reads; null for a cadence that it computes at no cost. Maintained by a trigger and the tick: see slot_window.';
COMMENT ON COLUMN routines.routines.init_params_overrides IS
    'Merged over the task''s init_params when it fires, key by key at the top level.';
COMMENT ON COLUMN routines.routines.init_params_from_slot IS
    'Parameters that each run takes from its slot: {"date": "slot.date"}, merged over init_params_overrides; null for none. See slot_values.';
COMMENT ON COLUMN routines.routines.secret_refs IS 'Secret params: their names, with the ids of their ciphertexts in secrets.';
COMMENT ON COLUMN routines.routines.webhook_url IS 'Receives a webhook when a run has ended; null for none.';
COMMENT ON COLUMN routines.routines.webhook_secret_id IS 'The secret that signs the webhook; null for unsigned.';
COMMENT ON COLUMN routines.routines.paused IS 'True stops the schedule. If you UPDATE it in psql, next_run_at follows.';
COMMENT ON COLUMN routines.routines.paused_at IS 'When it was paused; null if not paused. Maintained by a trigger.';
COMMENT ON COLUMN routines.routines.paused_reason IS 'Why the scheduler paused it; null if a person did.';
COMMENT ON COLUMN routines.routines.paused_until IS
    'When the pause ends by itself; null if it lasts until someone resumes the routine. From then on slots are due, even if no ticker is there yet to end the pause. Must be in the future when it is set; cleared when the routine is resumed.';
COMMENT ON COLUMN routines.routines.paused_note IS 'What a person noted about the pause, for the ledger and for why; null for nothing. Cleared when the routine is resumed.';
COMMENT ON COLUMN routines.routines.calendar IS
    'Days on which it does not fire: {"exclude": ["holidays-de"], "on_excluded": "skip"}, with the names of calendars of its collection, and skip, next_day or next_business_day; null for none.';
COMMENT ON COLUMN routines.routines.active_hours IS
    'Outside of these it does not fire: {"timezone": "Europe/Berlin", "windows": ["mon-fri 08:00-18:00"], "outside": "skip"}, or defer; null for none.';
COMMENT ON COLUMN routines.routines.active_minutes IS
    'The minutes of the week within active_hours, from Monday 00:00. Maintained by a trigger.';
COMMENT ON COLUMN routines.routines.moved_to IS
    'The time to which its last excluded slot has moved, until that has its outcome; null otherwise. Maintained by the tick; kept during a pause.';
COMMENT ON COLUMN routines.routines.strikes IS
    'Consecutive fires that raised an error. At three the routine is paused; a successful fire resets it to 0.';
COMMENT ON COLUMN routines.routines.overlap_policy IS
    'What becomes of a slot that comes while a run is active. skip: it is recorded in skips and starts no run. queue_one: its run waits, and a later slot takes over a run that waits. cancel_other: the same, and the active runs are cancelled. allow: it starts unless max_concurrent runs are active. See chapter 06_overlap.';
COMMENT ON COLUMN routines.routines.max_concurrent IS 'For allow: how many runs may be active at once, 1-100; null otherwise.';
COMMENT ON COLUMN routines.routines.catchup_window_seconds IS
    'The age up to which a missed slot still fires after an outage; 0 to never catch up; null for the default of its cadence.';
COMMENT ON COLUMN routines.routines.timeout_seconds IS
    'How long its runs may take from their first claim, at most as long as the worker allows any run; null for that.';
COMMENT ON COLUMN routines.routines.retry IS
    'How a scheduled run that failed is retried: {"max_attempts": 3, "backoff": [60, 300], "on": "any", "until": "next_slot"}; null for not at all. See retry_run.';
COMMENT ON COLUMN routines.routines.pause_after_failures IS
    'After how many slots in a row whose last attempt failed the routine stops, 1-100; null for never. See trip_breaker.';
COMMENT ON COLUMN routines.routines.after_failures IS
    'How it stops then. pause, or null: until someone resumes it. backoff: for 1 slot, and for twice as many each time that the slot after them fails too, up to 64.';
COMMENT ON COLUMN routines.routines.counts_failures_since IS
    'Only runs since then count towards pause_after_failures: when the routine was last resumed, or these settings were changed; null for all. Maintained by a trigger.';
COMMENT ON COLUMN routines.routines.backoff_left IS
    'How many slots it will still skip with the reason backoff; null for none. Maintained by trip_breaker and the tick.';
COMMENT ON COLUMN routines.routines.spread_seconds IS
    'Each slot fires up to this many seconds after its time, always by the same spread_offset: 1-3600, and below the shortest time between two slots; null for off, which 0 becomes.';
COMMENT ON COLUMN routines.routines.spread_offset IS
    'How long after its time each slot of this routine is due, from 0 to spread_seconds; null without a spread. Maintained by a trigger: see spread_offset().';
COMMENT ON COLUMN routines.routines.next_run_at IS
    'When it fires next: its next slot, plus spread_offset if it has a spread; null while paused, for manual, and once no slot is left. A trigger maintains it and the tick advances it. Setting it forward by hand passes over the slots before it: they are recorded as missed. Setting it back fires no slot a second time.';
COMMENT ON COLUMN routines.routines.settled_until IS
    'Every slot up to here has its outcome and never gets another, whatever next_run_at is set to; null if no slot since created_at has one.';
COMMENT ON COLUMN routines.routines.last_run_at IS 'When it last started a run, on schedule or by run-now; null if never.';
COMMENT ON COLUMN routines.routines.created_at IS 'When it was created.';
COMMENT ON COLUMN routines.routines.updated_at IS 'Its last change by a person, or by the scheduler when it paused or resumed it. Fires do not count.';
SELECT routines.protect('routines.routines');

-- The only place that turns the columns of a cadence into a value. Plain SQL, so that it disappears from query plans.
CREATE FUNCTION routines.cadence_of(routine routines.routines) RETURNS routines.cadence
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW((routine).cadence_type, (routine).hour_utc, (routine).minute_utc, (routine).day_of_week, (routine).expression,
           (routine).timezone, (routine).every_minutes, (routine).anchor, (routine).once_at, (routine).starts_at,
           (routine).ends_at)::routines.cadence;
COMMENT ON FUNCTION routines.cadence_of IS
    'The cadence of a routine. Try: SELECT routines.next_fire(routines.cadence_of(routines), now()) FROM routines.routines;';

-- Plain SQL as well. width_bucket counts the slots of the window that are not later than a time.
CREATE FUNCTION routines.next_slot_of(routine routines.routines, after timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN nullif(coalesce(
    CASE WHEN after >= (routine).upcoming[1] THEN (routine).upcoming[width_bucket(after, (routine).upcoming) + 1] END,
    routines.next_fire(routines.cadence_of(routine), after)), 'infinity');
COMMENT ON FUNCTION routines.next_slot_of IS
    'The first slot of a routine strictly later than `after`: what next_fire returns, from `upcoming` where that reaches.';

CREATE FUNCTION routines.latest_slot_of(routine routines.routines, until timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN nullif(coalesce(
    CASE WHEN until < (routine).upcoming[cardinality((routine).upcoming)]
         THEN (routine).upcoming[width_bucket(until, (routine).upcoming)] END,
    routines.latest_slot(routines.cadence_of(routine), until)), '-infinity');
COMMENT ON FUNCTION routines.latest_slot_of IS
    'The last slot of a routine at or before `until`: what latest_slot returns, from `upcoming` where that reaches.';

-- A routine with a spread lives on a clock of its own, which is behind by its offset. On that clock a slot is due at its time, so
-- the rules of slots need no others for a spread: they take without_spread(now()) in place of now(). Plain SQL as well.
CREATE FUNCTION routines.without_spread(routine routines.routines, at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN coalesce(at - (routine).spread_offset, at);
COMMENT ON FUNCTION routines.without_spread IS
    'A time on the clock of a routine, which is behind by its spread_offset.';

CREATE FUNCTION routines.with_spread(routine routines.routines, slot timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN coalesce(slot + (routine).spread_offset, slot);
COMMENT ON FUNCTION routines.with_spread IS 'When a slot of a routine is due: spread_offset after its time.';

-- md5, because the hash functions of Postgres may change between versions. Scaled and not taken modulo, so that a wider spread
-- makes no offset smaller.
CREATE FUNCTION routines.spread_offset(of_routine bigint, spread_seconds integer) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN make_interval(
    secs => (('x' || left(md5('routines.spread.' || of_routine), 8))::bit(32)::bigint * (spread_seconds::bigint + 1)) >> 32);
COMMENT ON FUNCTION routines.spread_offset IS
    'The offset of a routine: 0 to spread_seconds in whole seconds, always the same for the same id; null without a spread.';

CREATE FUNCTION routines.first_moved_slot(routine routines.routines, OUT kept timestamptz, OUT computed timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    kept_slots     timestamptz[] := ARRAY(SELECT slot FROM unnest((routine).upcoming) AS slot
                                          WHERE slot > routines.without_spread(routine, now()) AND slot < 'infinity' ORDER BY slot);
    computed_slots timestamptz[] := ARRAY(SELECT routines.next_slots(
        routines.cadence_of(routine), routines.without_spread(routine, now()), greatest(cardinality(kept_slots), 1)));
BEGIN
    FOR position IN 1 .. greatest(cardinality(kept_slots), cardinality(computed_slots)) LOOP
        kept := kept_slots[position];
        computed := computed_slots[position];
        IF kept IS DISTINCT FROM computed AND kept IS NOT NULL THEN
            RETURN;
        END IF;
    END LOOP;
    kept := NULL;
    computed := NULL;
END $$;
COMMENT ON FUNCTION routines.first_moved_slot IS
    'The first coming slot in `upcoming` that the cadence does not have, with the slot in its place; null if there is none. Only new time zone data makes one.';

-- VOLATILE, so that it takes a snapshot of its own. The tick calls it once it has locked the routine, whose cadence may have been
-- changed since the tick began.
CREATE FUNCTION routines.current_cadence(of_routine bigint) RETURNS routines.cadence LANGUAGE sql VOLATILE AS $$
    SELECT routines.cadence_of(routines) FROM routines.routines WHERE id = of_routine;
$$;
COMMENT ON FUNCTION routines.current_cadence IS
    'The cadence that a routine has now, even if it was changed after the calling statement began.';

-- A pause is over when its end has come, whether or not a ticker has ended it: slots from then on are due.
CREATE FUNCTION routines.slot_after_pause(routine routines.routines) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN CASE WHEN (routine).paused_until IS NOT NULL THEN least(
    routines.next_fire(
        routines.cadence_of(routine), greatest(routines.without_spread(routine, (routine).paused_until) - interval '1 microsecond',
                                               coalesce((routine).settled_until, (routine).created_at))),
    CASE WHEN (routine).moved_to >= routines.without_spread(routine, (routine).paused_until) THEN (routine).moved_to END) END;
COMMENT ON FUNCTION routines.slot_after_pause IS
    'The first slot at or after the end of a routine''s pause, also one that has moved there; null if the pause has no end, and for manual.';

CREATE FUNCTION routines.keep_next_run_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    IF TG_OP = 'UPDATE' AND OLD.paused AND NOT NEW.paused THEN
        NEW.paused_until := NULL;
        NEW.paused_note := NULL;
    ELSIF NEW.paused_until <= now()
          AND (TG_OP = 'INSERT' OR (OLD.paused, OLD.paused_until) IS DISTINCT FROM (NEW.paused, NEW.paused_until)) THEN
        RAISE EXCEPTION 'paused_until must be in the future, but it is % and now is %', NEW.paused_until, now()
            USING ERRCODE = 'check_violation', CONSTRAINT = 'routines_paused_until_in_future';
    END IF;
    IF TG_OP = 'UPDATE' AND (OLD.paused AND NOT NEW.paused
                             OR (OLD.pause_after_failures, OLD.after_failures)
                                IS DISTINCT FROM (NEW.pause_after_failures, NEW.after_failures)) THEN
        NEW.counts_failures_since := CASE WHEN NEW.pause_after_failures IS NOT NULL THEN now() END;
        NEW.backoff_left := NULL;
    END IF;
    SELECT timezone, anchor INTO NEW.timezone, NEW.anchor FROM routines.with_defaults(routines.cadence_of(NEW), NEW.created_at);
    NEW.spread_seconds := nullif(NEW.spread_seconds, 0);
    NEW.spread_offset := routines.spread_offset(NEW.id, NEW.spread_seconds);
    IF TG_OP = 'UPDATE'
       AND (routines.cadence_of(NEW), NEW.paused) IS NOT DISTINCT FROM (routines.cadence_of(OLD), OLD.paused) THEN
        IF NEW.spread_seconds IS DISTINCT FROM OLD.spread_seconds THEN
            PERFORM routines.check_spread(routines.cadence_of(NEW), NEW.spread_seconds);
        END IF;
        -- The same slot at its new time; or a time that a person sets in the same statement.
        IF NEW.spread_offset IS DISTINCT FROM OLD.spread_offset AND NEW.next_run_at = OLD.next_run_at THEN
            NEW.next_run_at := routines.with_spread(NEW, routines.without_spread(OLD, OLD.next_run_at));
        END IF;
        RETURN NEW;
    END IF;
    PERFORM routines.check_cadence(routines.cadence_of(NEW));
    PERFORM routines.check_spread(routines.cadence_of(NEW), NEW.spread_seconds);
    IF TG_OP = 'INSERT' OR routines.cadence_of(NEW) IS DISTINCT FROM routines.cadence_of(OLD) THEN
        NEW.moved_to := NULL;
    END IF;
    IF NEW.paused THEN
        NEW.next_run_at := NULL;
        NEW.upcoming := NULL;
        NEW.paused_at := coalesce(NEW.paused_at, now());
    ELSE
        NEW.upcoming := routines.slot_window(routines.cadence_of(NEW), routines.without_spread(NEW, now()));
        NEW.next_run_at := routines.with_spread(NEW, CASE
            -- Slots from before are those of the cadence that there was, also if they are not due yet.
            WHEN TG_OP = 'INSERT' OR routines.cadence_of(NEW) IS DISTINCT FROM routines.cadence_of(OLD)
                THEN routines.next_slot_of(NEW, now())
            WHEN OLD.paused_until <= now() THEN routines.slot_after_pause(OLD)
            ELSE least(routines.next_slot_of(NEW, routines.without_spread(NEW, now())),
                       CASE WHEN NEW.moved_to > routines.without_spread(NEW, now()) THEN NEW.moved_to END) END);
        NEW.paused_at := NULL;
        NEW.paused_reason := NULL;
        NEW.strikes := 0;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.keep_next_run_at IS
    'Keeps next_run_at correct when cadence, spread or paused changes, and fills in the defaults of a cadence. Resuming computes from now, or from the end of the pause if that has passed: nothing that fell in the pause is caught up.';
CREATE TRIGGER keep_next_run_at
    BEFORE INSERT OR UPDATE OF name, cadence_type, hour_utc, minute_utc, day_of_week, expression, timezone, every_minutes, anchor,
        once_at, starts_at, ends_at, spread_seconds, spread_offset, paused, paused_until, paused_note, calendar, active_hours,
        init_params_overrides, init_params_from_slot, secret_refs, webhook_url, webhook_secret_id, timeout_seconds, retry,
        pause_after_failures, after_failures, overlap_policy, max_concurrent ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.keep_next_run_at();

------------------------------------------------------------------------------------------- webhook endpoints and secrets
CREATE FUNCTION routines.restart_endpoint() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM routines.webhook_endpoints WHERE collection_id = NEW.collection_id AND md5(url) = md5(NEW.webhook_url);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.restart_endpoint IS 'Tries a stopped webhook endpoint again when a routine is set to its URL.';
CREATE TRIGGER follow_created_webhook_url AFTER INSERT ON routines.routines
    FOR EACH ROW WHEN (NEW.webhook_url IS NOT NULL) EXECUTE FUNCTION routines.restart_endpoint();
CREATE TRIGGER follow_changed_webhook_url AFTER UPDATE OF webhook_url ON routines.routines
    FOR EACH ROW WHEN (NEW.webhook_url IS DISTINCT FROM OLD.webhook_url AND NEW.webhook_url IS NOT NULL)
    EXECUTE FUNCTION routines.restart_endpoint();

CREATE FUNCTION routines.forget_secrets_of_routine() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM routines.forget_secrets(routines.secret_ids(OLD.secret_refs, OLD.webhook_secret_id), OLD.id, NULL);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secrets_of_routine IS 'Deletes secrets that a routine no longer refers to.';
CREATE TRIGGER forget_replaced_secrets AFTER UPDATE OF secret_refs, webhook_secret_id ON routines.routines
    FOR EACH ROW WHEN (OLD.secret_refs IS DISTINCT FROM NEW.secret_refs
                       OR OLD.webhook_secret_id IS DISTINCT FROM NEW.webhook_secret_id)
    EXECUTE FUNCTION routines.forget_secrets_of_routine();
CREATE TRIGGER forget_secrets_of_deleted AFTER DELETE ON routines.routines
    FOR EACH ROW WHEN (OLD.secret_refs <> '{}' OR OLD.webhook_secret_id IS NOT NULL)
    EXECUTE FUNCTION routines.forget_secrets_of_routine();

-- Instead of a foreign key: deleting a secret would have to search all routines, which have no index on it, and a foreign
-- key cannot cover secret_refs. A secret is not deleted while its routine refers to it: see forget_secrets.
CREATE FUNCTION routines.refuse_missing_secrets() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    missing uuid;
BEGIN
    SELECT referred.id INTO missing
    FROM unnest(routines.secret_ids(NEW.secret_refs, NEW.webhook_secret_id)) AS referred (id)
    WHERE NOT EXISTS (SELECT FROM routines.secrets
                      WHERE secrets.id = referred.id AND secrets.collection_id = NEW.collection_id);
    IF FOUND THEN
        RAISE EXCEPTION 'routine % refers to the secret %, which its collection does not have', NEW.id, missing
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'routines_secrets_are_there';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.refuse_missing_secrets IS 'Rejects a routine that refers to a secret missing from its collection.';
CREATE TRIGGER refuse_missing_secrets_of_new AFTER INSERT ON routines.routines
    FOR EACH ROW WHEN (NEW.secret_refs <> '{}' OR NEW.webhook_secret_id IS NOT NULL)
    EXECUTE FUNCTION routines.refuse_missing_secrets();
CREATE TRIGGER refuse_missing_secrets AFTER UPDATE OF secret_refs, webhook_secret_id ON routines.routines
    FOR EACH ROW WHEN (OLD.secret_refs IS DISTINCT FROM NEW.secret_refs
                       OR OLD.webhook_secret_id IS DISTINCT FROM NEW.webhook_secret_id)
    EXECUTE FUNCTION routines.refuse_missing_secrets();

-- == sql/schema/04_settled_slots.sql

-- Slots that no tick will see.
--
-- Every slot from a routine's creation to its end is accounted for exactly once: by the tick, or by these triggers when a
-- person pauses, changes or deletes a routine before a ticker gets to it. A slot that a person passes over, by setting
-- next_run_at forward, is recorded as missed. The tick and settle_slots find such slots between settled_until and next_run_at,
-- where normally there are none, so no trigger needs to watch next_run_at, which each fire writes.

CREATE FUNCTION routines.utc(at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"');
COMMENT ON FUNCTION routines.utc IS 'A time as sentences show it: 2026-05-04T09:00:00Z, without fractions of a second.';

CREATE FUNCTION routines.pause_in_words(
    paused_reason text, paused_at timestamptz, paused_until timestamptz, paused_note text
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce(paused_reason, 'paused by hand') || ', since ' || routines.utc(paused_at)
    || coalesce(', until ' || routines.utc(paused_until), '') || coalesce(': ' || rtrim(paused_note, '.'), '');
COMMENT ON FUNCTION routines.pause_in_words IS
    'A pause as sentences show it: paused by hand, since 2026-12-24T08:00:00Z, until 2027-01-04T08:00:00Z: office closed.';

CREATE FUNCTION routines.passed_over_detail(next_run_at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'next_run_at was set past it by hand, to ' || routines.utc(next_run_at);
COMMENT ON FUNCTION routines.passed_over_detail IS 'The detail that skips records for slots that a person passed over.';

CREATE FUNCTION routines.settle_span(
    old routines.routines, first_slot timestamptz, last_slot timestamptz, reason text, detail text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    cadence    routines.cadence := routines.cadence_of(old);
    slot_count bigint := greatest(1, routines.slots_in_span(cadence, first_slot, last_slot));
BEGIN
    IF reason = 'missed' AND routines.has_exclusions(old) THEN
        INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, due_at, slot_count, cadence,
                                    reason, detail)
        SELECT old.collection_id, old.id, span.span_begin, span.span_end, span.span_end + old.spread_offset, span.slot_count,
               CASE WHEN span.slot_count > 1 THEN span.cadence END, span.reason,
               CASE WHEN span.reason = 'missed' THEN settle_span.detail ELSE span.detail END
        FROM routines.judged_spans(old.id, first_slot, last_slot, NULL, NULL) AS span
        ON CONFLICT ON CONSTRAINT skips_slot_key DO NOTHING;
        RETURN;
    END IF;
    INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, due_at, slot_count, cadence,
                                reason, detail)
    VALUES (old.collection_id, old.id, first_slot, last_slot, last_slot + old.spread_offset, slot_count,
            CASE WHEN slot_count > 1 THEN cadence END, reason, detail)
    ON CONFLICT ON CONSTRAINT skips_slot_key DO NOTHING;
END $$;
COMMENT ON FUNCTION routines.settle_span IS
    'Records that the slots of a routine from first_slot to last_slot, both included, started no run. Of missed slots, those that a calendar or active hours exclude are recorded as excluded.';

CREATE FUNCTION routines.settle_slots() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    cadence       routines.cadence := routines.cadence_of(OLD);
    settled_until timestamptz := CASE TG_OP WHEN 'UPDATE' THEN NEW.settled_until ELSE OLD.settled_until END;
    -- Slots up to here get their outcome now: those that are due, by the clock of the routine before or after the change; if its
    -- cadence changes or it is deleted, also one that waits for its offset.
    clock         timestamptz := CASE
        WHEN TG_OP = 'DELETE' THEN now()
        WHEN cadence IS DISTINCT FROM routines.cadence_of(NEW) THEN now()
        ELSE greatest(routines.without_spread(OLD, now()), routines.without_spread(NEW, now())) END;
    next_slot     timestamptz := routines.without_spread(OLD, OLD.next_run_at);
    pause_end     timestamptz := routines.without_spread(OLD, OLD.paused_until);
    is_paused     boolean := OLD.paused OR TG_OP = 'UPDATE' AND NEW.paused;
    pause         text := CASE WHEN OLD.paused THEN routines.pause_in_words(
        OLD.paused_reason, OLD.paused_at, OLD.paused_until, OLD.paused_note) END;
    moved_to      timestamptz := CASE WHEN OLD.moved_to > coalesce(settled_until, OLD.created_at) THEN OLD.moved_to END;
    -- The first slot without an outcome. What was due when a pause began was settled then. One that has moved comes before the next
    -- slot of the cadence.
    first_slot    timestamptz := least(moved_to, routines.next_fire(
        cadence, coalesce(settled_until, CASE WHEN OLD.paused THEN OLD.paused_at ELSE OLD.created_at END)));
    passed_until  timestamptz;
    last_slot     timestamptz;
BEGIN
    -- A statement that writes settled_until has settled the slots itself: the tick, when it pauses after three strikes.
    IF TG_OP = 'UPDATE' AND NEW.settled_until IS DISTINCT FROM OLD.settled_until THEN
        RETURN NEW;
    END IF;
    IF first_slot < next_slot AND first_slot <= clock THEN
        passed_until := greatest(first_slot, routines.latest_slot(cadence, least(clock, next_slot - interval '1 microsecond')));
        PERFORM routines.settle_span(OLD, first_slot, passed_until, 'missed', routines.passed_over_detail(OLD.next_run_at));
        settled_until := greatest(settled_until, passed_until);
    END IF;
    -- The pause is over, whether or not a ticker has ended it.
    IF OLD.paused_until <= now() THEN
        last_slot := greatest(routines.latest_slot(cadence, pause_end - interval '1 microsecond'),
                              CASE WHEN moved_to < pause_end THEN moved_to END);
        IF first_slot <= last_slot THEN
            PERFORM routines.settle_span(OLD, first_slot, last_slot, 'paused', pause);
        END IF;
        settled_until := greatest(coalesce(settled_until, OLD.created_at), pause_end - interval '1 microsecond');
        -- Slots since then are due, and left to the tick if the routine is only resumed.
        IF TG_OP = 'UPDATE' AND cadence IS NOT DISTINCT FROM routines.cadence_of(NEW) THEN
            NEW.settled_until := settled_until;
            NEW.moved_to := CASE WHEN moved_to > settled_until THEN moved_to END;
            RETURN NEW;
        END IF;
        first_slot := least(CASE WHEN moved_to > settled_until THEN moved_to END, routines.next_fire(cadence, settled_until));
        is_paused := TG_OP = 'UPDATE' AND NEW.paused AND NEW.paused_until IS DISTINCT FROM OLD.paused_until;
        pause := NULL;
    END IF;
    -- A person may have set next_run_at to a time between two slots, or to before the routine's creation.
    IF (next_slot <= settled_until) IS NOT TRUE AND NOT OLD.paused THEN
        first_slot := next_slot;
    END IF;
    IF first_slot <= clock THEN
        last_slot := greatest(first_slot, routines.latest_slot(cadence, clock));
        PERFORM routines.settle_span(
            OLD, first_slot, last_slot, CASE WHEN is_paused THEN 'paused' ELSE 'missed' END,
            CASE WHEN pause IS NOT NULL THEN pause
                 WHEN is_paused THEN coalesce(NEW.paused_reason || ', before a ticker picked it up',
                                              'paused by hand before a ticker picked it up')
                 WHEN TG_OP = 'DELETE' THEN 'the routine was deleted before a ticker picked it up'
                 ELSE 'the cadence was changed before a ticker picked it up' END);
        settled_until := greatest(settled_until, last_slot);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    -- A time in the past that was no slot does not become one when the cadence changes.
    NEW.settled_until := greatest(settled_until, clock, OLD.created_at);
    NEW.moved_to := CASE WHEN NEW.moved_to > NEW.settled_until THEN NEW.moved_to END;
    -- Only if the database's clock was set back, or the routine's by its spread: a slot with an outcome does not come again.
    IF routines.without_spread(NEW, NEW.next_run_at) <= NEW.settled_until THEN
        NEW.next_run_at := routines.with_spread(NEW, routines.next_fire(routines.cadence_of(NEW), NEW.settled_until));
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.settle_slots IS
    'Records the outcome of slots that no tick will see: those that were due or passed over when a person paused, changed or deleted the routine, and those that fell in a pause, once it ends.';
CREATE TRIGGER settle_slots
    BEFORE UPDATE OF cadence_type, hour_utc, minute_utc, day_of_week, expression, timezone, every_minutes, anchor, once_at, starts_at,
        ends_at, paused ON routines.routines
    FOR EACH ROW WHEN ((routines.cadence_of(OLD), OLD.paused) IS DISTINCT FROM (routines.cadence_of(NEW), NEW.paused))
    EXECUTE FUNCTION routines.settle_slots();
CREATE TRIGGER settle_slots_of_deleted BEFORE DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.settle_slots();

-- == sql/schema/04_unique_names.sql

-- The names of routines, which are unique in a task, and of deleted routines.

-- No triggers.
--
-- The table that every fire writes keeps two hot indexes: its key, and the due index. A fire moves next_run_at, so each index
-- of `routines` gets a new entry for each fire, and those of names are scattered: among a million routines, 10,000 fires
-- touched 5,600 pages of it. So names have their index here, in a table that no fire writes.
CREATE TABLE routines.routine_names (
    task_id       bigint NOT NULL,
    name          routines.slug NOT NULL,
    routine_id    bigint NOT NULL,
    collection_id bigint NOT NULL,
    CONSTRAINT routines_name_key PRIMARY KEY (task_id, name),
    -- For calendar feeds, which a foreign key deletes with their routine. One to routines would cost each fire.
    CONSTRAINT routine_names_routine_id_key UNIQUE (routine_id),
    CONSTRAINT routines_task_fkey FOREIGN KEY (task_id, collection_id) REFERENCES routines.tasks (id, collection_id)
);
-- Counts the routines of a collection, for its limit.
CREATE INDEX routine_names_collection_id_idx ON routines.routine_names (collection_id);
COMMENT ON TABLE  routines.routine_names IS 'Which routine has which name. Maintained by triggers on routines; do not write it directly.';
COMMENT ON COLUMN routines.routine_names.task_id IS 'The routine''s task.';
COMMENT ON COLUMN routines.routine_names.name IS 'Its name, unique in its task.';
COMMENT ON COLUMN routines.routine_names.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.routine_names.collection_id IS 'The tenant, the same as the task''s.';
SELECT routines.protect('routines.routine_names');

-- No triggers.
CREATE TABLE routines.deleted_routines (
    id            bigint CONSTRAINT deleted_routines_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT deleted_routines_collection_id_fkey REFERENCES routines.collections (id),
    task_id       bigint NOT NULL,
    name          routines.slug NOT NULL,
    deleted_at    timestamptz NOT NULL DEFAULT now()
);
-- A report finds the routines that were deleted since it begins.
CREATE INDEX deleted_routines_collection_id_idx ON routines.deleted_routines (collection_id, deleted_at);
COMMENT ON TABLE  routines.deleted_routines IS 'Names of deleted routines. Their slots outlive them in the ledger, and in reports of the time before.';
COMMENT ON COLUMN routines.deleted_routines.id IS 'The id that the routine had.';
COMMENT ON COLUMN routines.deleted_routines.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.deleted_routines.task_id IS 'Its task, which may have been deleted.';
COMMENT ON COLUMN routines.deleted_routines.name IS 'Its last name.';
COMMENT ON COLUMN routines.deleted_routines.deleted_at IS 'When it was deleted.';
SELECT routines.protect('routines.deleted_routines');

CREATE FUNCTION routines.keep_names() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    CASE TG_OP
        WHEN 'INSERT' THEN
            INSERT INTO routines.routine_names (task_id, name, routine_id, collection_id)
            SELECT task_id, name, id, collection_id FROM inserted;
        WHEN 'UPDATE' THEN
            UPDATE routines.routine_names
            SET task_id = NEW.task_id, name = NEW.name, routine_id = NEW.id, collection_id = NEW.collection_id
            WHERE task_id = OLD.task_id AND name = OLD.name;
        WHEN 'DELETE' THEN
            DELETE FROM routines.routine_names WHERE task_id = OLD.task_id AND name = OLD.name;
            INSERT INTO routines.deleted_routines (id, collection_id, task_id, name)
            VALUES (OLD.id, OLD.collection_id, OLD.task_id, OLD.name) ON CONFLICT DO NOTHING;
        WHEN 'TRUNCATE' THEN
            DELETE FROM routines.routine_names;
    END CASE;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.keep_names IS
    'Keeps routine_names in step with routines, which also rejects a name that is taken and a task that does not exist; records the name of a deleted routine.';
CREATE TRIGGER keep_names_of_new AFTER INSERT ON routines.routines
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.keep_names();
CREATE TRIGGER keep_names_of_changed AFTER UPDATE OF id, collection_id, task_id, name ON routines.routines
    FOR EACH ROW WHEN ((OLD.id, OLD.collection_id, OLD.task_id, OLD.name) IS DISTINCT FROM
                       (NEW.id, NEW.collection_id, NEW.task_id, NEW.name)) EXECUTE FUNCTION routines.keep_names();
CREATE TRIGGER keep_names_of_deleted AFTER DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.keep_names();
CREATE TRIGGER keep_names_of_truncated AFTER TRUNCATE ON routines.routines
    FOR EACH STATEMENT EXECUTE FUNCTION routines.keep_names();

-- == sql/schema/05_calendars.sql

-- Calendars and active hours: what a person writes, and how it is checked. What they exclude is in the next chapter.

-- Triggers, in the order in which they fire.
--   BEFORE INSERT or UPDATE  check_calendar      checks the time zone and the days; refuses to rename a calendar
--   AFTER INSERT or UPDATE   keep_calendar_days  fills calendar_days
--   AFTER INSERT, UPDATE or DELETE  note_calendar  adds to the audit (chapter 15_audit)
CREATE TABLE routines.calendars (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT calendars_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT calendars_collection_id_fkey REFERENCES routines.collections (id),
    name          routines.slug NOT NULL,
    timezone      text,
    days          jsonb NOT NULL DEFAULT '[]',
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT calendars_name_key UNIQUE (collection_id, name)
);
COMMENT ON TABLE  routines.calendars IS 'Named days on which routines that name the calendar do not fire.';
COMMENT ON COLUMN routines.calendars.id IS 'Database id.';
COMMENT ON COLUMN routines.calendars.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.calendars.name IS 'Unique in its collection. Cannot be changed.';
COMMENT ON COLUMN routines.calendars.timezone IS
    'Whose days they are: an IANA name; null for the time zone of each routine''s cadence, which is UTC for all types but cron.';
COMMENT ON COLUMN routines.calendars.days IS
    'An array of {"from", "to", "label"}: dates, both included; `to` and `label` may be left out. At most 2,000 entries and 10,000 dates in the years 1970 to 2199.';
COMMENT ON COLUMN routines.calendars.created_at IS 'When it was created.';
COMMENT ON COLUMN routines.calendars.updated_at IS 'When it was last changed.';
SELECT routines.protect('routines.calendars');

-- No triggers. A date that several entries name has the label of the first of them.
CREATE TABLE routines.calendar_days (
    calendar_id   bigint NOT NULL CONSTRAINT calendar_days_calendar_id_fkey REFERENCES routines.calendars (id) ON DELETE CASCADE,
    day           date NOT NULL,
    label         text,
    collection_id bigint NOT NULL,
    CONSTRAINT calendar_days_pkey PRIMARY KEY (calendar_id, day)
);
COMMENT ON TABLE  routines.calendar_days IS 'The dates of each calendar. Maintained by a trigger on calendars; do not write it directly.';
COMMENT ON COLUMN routines.calendar_days.calendar_id IS 'The calendar.';
COMMENT ON COLUMN routines.calendar_days.day IS 'A date on which no slot fires.';
COMMENT ON COLUMN routines.calendar_days.label IS 'What the day is called; null if it has no name.';
COMMENT ON COLUMN routines.calendar_days.collection_id IS 'The tenant.';
SELECT routines.protect('routines.calendar_days');

-- No triggers. Its foreign key keeps a calendar that is in use from being deleted, also by a session that does so at the same moment.
CREATE TABLE routines.routine_calendars (
    routine_id    bigint NOT NULL,
    calendar_id   bigint NOT NULL CONSTRAINT routine_calendars_calendar_id_fkey REFERENCES routines.calendars (id),
    position      integer NOT NULL,
    collection_id bigint NOT NULL,
    CONSTRAINT routine_calendars_pkey PRIMARY KEY (routine_id, position)
);
CREATE INDEX routine_calendars_calendar_id_idx ON routines.routine_calendars (calendar_id);
COMMENT ON TABLE  routines.routine_calendars IS 'Which routine uses which calendars. Maintained by triggers on routines; do not write it directly.';
COMMENT ON COLUMN routines.routine_calendars.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.routine_calendars.calendar_id IS 'A calendar that its `calendar` names.';
COMMENT ON COLUMN routines.routine_calendars.position IS 'Its place in the list, from 1. Where several exclude a day, the first gives the reason.';
COMMENT ON COLUMN routines.routine_calendars.collection_id IS 'The tenant, the same as the routine''s and the calendar''s.';
SELECT routines.protect('routines.routine_calendars');

------------------------------------------------------------------------------------------------------------------ checks
CREATE FUNCTION routines.parse_day(value jsonb) RETURNS date LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    day date;
BEGIN
    IF jsonb_typeof(value) = 'string' AND value #>> '{}' ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' THEN
        day := (value #>> '{}')::date;
    END IF;
    RETURN CASE WHEN day BETWEEN '1970-01-01' AND '2199-12-31' THEN day END;
EXCEPTION
    WHEN data_exception THEN RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.parse_day IS 'The date in a JSON string such as "2026-12-24"; null for anything else, and outside the years 1970 to 2199.';

CREATE FUNCTION routines.refuse_calendar(rule text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = rule, ERRCODE = 'check_violation', CONSTRAINT = 'calendars_days_are_valid';
END $$;
COMMENT ON FUNCTION routines.refuse_calendar IS 'Raises the error of a calendar that is not valid.';

CREATE FUNCTION routines.check_calendar() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    entry record;
    dates bigint := 0;
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.name, OLD.collection_id) IS DISTINCT FROM (NEW.name, NEW.collection_id) THEN
        PERFORM routines.refuse_calendar('name: a calendar cannot be renamed, since routines name it');
    END IF;
    NEW.updated_at := now();
    IF NEW.timezone IS NOT NULL AND NOT routines.knows_time_zone(NEW.timezone) THEN
        PERFORM routines.refuse_calendar(routines.time_zone_rule('timezone', NEW.timezone));
    ELSIF jsonb_typeof(NEW.days) <> 'array' OR jsonb_array_length(NEW.days) > 2000 THEN
        PERFORM routines.refuse_calendar('days: must be an array of at most 2,000 entries');
    END IF;
    FOR entry IN
        SELECT 'days.' || position - 1 AS field, listed.value, routines.parse_day(listed.value -> 'from') AS first_day,
               routines.parse_day(coalesce(nullif(listed.value -> 'to', 'null'), listed.value -> 'from')) AS last_day
        FROM jsonb_array_elements(NEW.days) WITH ORDINALITY AS listed (value, position)
    LOOP
        IF jsonb_typeof(entry.value) <> 'object' OR entry.value - '{from,to,label}'::text[] <> '{}' THEN
            PERFORM routines.refuse_calendar(entry.field || ': must be an object of from, to and label');
        ELSIF entry.first_day IS NULL THEN
            PERFORM routines.refuse_calendar(entry.field || '.from: must be a date in the years 1970 to 2199, for example 2026-12-24');
        ELSIF entry.last_day IS NULL THEN
            PERFORM routines.refuse_calendar(entry.field || '.to: must be a date in the years 1970 to 2199, for example 2026-12-24');
        ELSIF entry.last_day < entry.first_day THEN
            PERFORM routines.refuse_calendar(entry.field || '.to: must not be earlier than from');
        ELSIF jsonb_typeof(entry.value -> 'label') NOT IN ('string', 'null') OR length(entry.value ->> 'label') NOT BETWEEN 1 AND 200 THEN
            PERFORM routines.refuse_calendar(entry.field || '.label: must have 1 to 200 characters');
        END IF;
        dates := dates + (entry.last_day - entry.first_day + 1);
        IF dates > 10000 THEN
            PERFORM routines.refuse_calendar('days: must be at most 10,000 dates');
        END IF;
    END LOOP;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.check_calendar IS 'Rejects a calendar with an unknown time zone, or with days that are not valid or too many.';
CREATE TRIGGER check_calendar BEFORE INSERT OR UPDATE ON routines.calendars
    FOR EACH ROW EXECUTE FUNCTION routines.check_calendar();

CREATE FUNCTION routines.keep_calendar_days() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM routines.calendar_days WHERE calendar_id = NEW.id;
    INSERT INTO routines.calendar_days (calendar_id, day, label, collection_id)
    SELECT DISTINCT ON (day) NEW.id, day, value ->> 'label', NEW.collection_id
    FROM jsonb_array_elements(NEW.days) WITH ORDINALITY AS listed (value, position)
    CROSS JOIN LATERAL (
        SELECT (value ->> 'from')::date + number AS day
        FROM generate_series(0, coalesce(value ->> 'to', value ->> 'from')::date - (value ->> 'from')::date) AS number) AS dated
    ORDER BY day, position;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.keep_calendar_days IS 'Keeps calendar_days in step with calendars.';
CREATE TRIGGER keep_calendar_days AFTER INSERT OR UPDATE OF days ON routines.calendars
    FOR EACH ROW EXECUTE FUNCTION routines.keep_calendar_days();

CREATE FUNCTION routines.refuse_exclusion(rule text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = rule, ERRCODE = 'check_violation', CONSTRAINT = 'routines_exclusions_are_valid';
END $$;
COMMENT ON FUNCTION routines.refuse_exclusion IS 'Raises the error of a routine''s calendar or active hours that are not valid.';

CREATE FUNCTION routines.check_calendar_rule(rule jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(rule) <> 'object' OR rule - '{exclude,on_excluded}'::text[] <> '{}' THEN
        PERFORM routines.refuse_exclusion('calendar: must be an object of exclude and on_excluded');
    ELSIF jsonb_typeof(rule -> 'exclude') IS DISTINCT FROM 'array' OR jsonb_array_length(rule -> 'exclude') NOT BETWEEN 1 AND 10
       OR EXISTS (SELECT FROM jsonb_array_elements(rule -> 'exclude') AS name WHERE jsonb_typeof(name) <> 'string')
       OR (SELECT count(DISTINCT name) FROM jsonb_array_elements(rule -> 'exclude') AS name) <> jsonb_array_length(rule -> 'exclude') THEN
        PERFORM routines.refuse_exclusion('calendar.exclude: must be an array of 1 to 10 different names of calendars');
    ELSIF rule ->> 'on_excluded' IN ('skip', 'next_day', 'next_business_day') IS FALSE OR rule -> 'on_excluded' = 'null' THEN
        PERFORM routines.refuse_exclusion('calendar.on_excluded: must be skip, next_day or next_business_day');
    END IF;
END $$;
COMMENT ON FUNCTION routines.check_calendar_rule IS 'Raises an error if the column `calendar` of a routine is not valid.';

-- Monday 00:00 is minute 0 of the week.
CREATE FUNCTION routines.window_minutes(active_window text) RETURNS int4multirange LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    names   text[] := '{mon,tue,wed,thu,fri,sat,sun}';
    part    text[] := regexp_match(lower(active_window),
        '^((?:[a-z]{3}(?:-[a-z]{3})?)(?:,[a-z]{3}(?:-[a-z]{3})?)*) ([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|(24):(00))$');
    begins  integer := part[2]::integer * 60 + part[3]::integer;
    ends    integer := coalesce(part[4], part[6])::integer * 60 + coalesce(part[5], part[7])::integer;
    minutes int4multirange := '{}';
    days    text;
    first   integer;
    last    integer;
    since   integer;
    until   integer;
BEGIN
    IF begins IS NULL OR ends IS NULL OR begins = ends THEN
        RETURN NULL;
    END IF;
    FOREACH days IN ARRAY string_to_array(part[1], ',') LOOP
        first := array_position(names, split_part(days, '-', 1));
        last := array_position(names, coalesce(nullif(split_part(days, '-', 2), ''), split_part(days, '-', 1)));
        IF first IS NULL OR last IS NULL THEN
            RETURN NULL;
        END IF;
        FOR day IN first .. first + (last - first + 7) % 7 LOOP
            since := (day - 1) % 7 * 1440 + begins;
            until := since + ends - begins + CASE WHEN ends < begins THEN 1440 ELSE 0 END;
            minutes := minutes + int4multirange(int4range(since, least(until, 10080)), int4range(0, greatest(until - 10080, 0)));
        END LOOP;
    END LOOP;
    RETURN minutes;
END $$;
COMMENT ON FUNCTION routines.window_minutes IS
    'The minutes of the week, 0-10079 from Monday 00:00, of a window such as mon-fri 08:00-18:00 or fri,sat 22:00-06:00; null if it is not valid.';

CREATE FUNCTION routines.active_minutes(active_hours jsonb) RETURNS int4multirange LANGUAGE plpgsql STABLE AS $$
DECLARE
    minutes int4multirange := '{}';
    listed  record;
BEGIN
    IF jsonb_typeof(active_hours) <> 'object' OR active_hours - '{timezone,windows,outside}'::text[] <> '{}' THEN
        PERFORM routines.refuse_exclusion('active_hours: must be an object of timezone, windows and outside');
    ELSIF jsonb_typeof(active_hours -> 'windows') IS DISTINCT FROM 'array' OR jsonb_array_length(active_hours -> 'windows') NOT BETWEEN 1 AND 20 THEN
        PERFORM routines.refuse_exclusion('active_hours.windows: must be an array of 1 to 20 windows such as mon-fri 08:00-18:00');
    ELSIF active_hours ->> 'outside' IN ('skip', 'defer') IS FALSE OR active_hours -> 'outside' = 'null' THEN
        PERFORM routines.refuse_exclusion('active_hours.outside: must be skip or defer');
    ELSIF active_hours ? 'timezone' AND (jsonb_typeof(active_hours -> 'timezone') <> 'string'
                                         OR NOT routines.knows_time_zone(active_hours ->> 'timezone')) THEN
        PERFORM routines.refuse_exclusion(routines.time_zone_rule('active_hours.timezone', active_hours ->> 'timezone'));
    END IF;
    FOR listed IN SELECT position - 1 AS number, jsonb_typeof(value) AS kind, value #>> '{}' AS text
                  FROM jsonb_array_elements(active_hours -> 'windows') WITH ORDINALITY AS given (value, position) LOOP
        IF listed.kind <> 'string' OR length(listed.text) > 100 OR routines.window_minutes(listed.text) IS NULL THEN
            PERFORM routines.refuse_exclusion(format(
                'active_hours.windows.%s: must be days and times such as mon-fri 08:00-18:00, sat 22:00-06:00 or mon,wed 00:00-24:00, not %s',
                listed.number, to_json(left(listed.text, 40))));
        END IF;
        minutes := minutes + routines.window_minutes(listed.text);
    END LOOP;
    RETURN minutes;
END $$;
COMMENT ON FUNCTION routines.active_minutes IS
    'The minutes of the week, 0-10079 from Monday 00:00, within the windows of active hours. Raises an error if they are not valid.';

-- A trigger and not constraints, which each fire would check.
CREATE FUNCTION routines.check_exclusions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.calendar IS NOT NULL THEN
        PERFORM routines.check_calendar_rule(NEW.calendar);
    END IF;
    NEW.active_minutes := CASE WHEN NEW.active_hours IS NOT NULL THEN routines.active_minutes(NEW.active_hours) END;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.check_exclusions IS 'Rejects a calendar or active hours that are not valid, and keeps active_minutes in step.';
CREATE TRIGGER check_exclusions_of_new BEFORE INSERT ON routines.routines
    FOR EACH ROW WHEN (num_nonnulls(NEW.calendar, NEW.active_hours, NEW.active_minutes) > 0) EXECUTE FUNCTION routines.check_exclusions();
CREATE TRIGGER check_exclusions BEFORE UPDATE OF calendar, active_hours, active_minutes ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.check_exclusions();

CREATE FUNCTION routines.keep_calendar_uses() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing text;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM routines.routine_calendars WHERE routine_id = OLD.id;
    END IF;
    IF TG_OP = 'DELETE' OR NEW.calendar IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO routines.routine_calendars (routine_id, calendar_id, position, collection_id)
    SELECT NEW.id, calendars.id, position, NEW.collection_id
    FROM jsonb_array_elements_text(NEW.calendar -> 'exclude') WITH ORDINALITY AS named (name, position)
    JOIN routines.calendars ON calendars.collection_id = NEW.collection_id AND calendars.name = named.name
    FOR KEY SHARE OF calendars;
    SELECT named.name INTO missing
    FROM jsonb_array_elements_text(NEW.calendar -> 'exclude') WITH ORDINALITY AS named (name, position)
    WHERE NOT EXISTS (SELECT FROM routines.routine_calendars AS used WHERE used.routine_id = NEW.id AND used.position = named.position)
    ORDER BY position LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'routines_calendars_are_there', MESSAGE = format(
            'calendar.exclude: the collection has no calendar %s', to_json(left(missing, 100)));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.keep_calendar_uses IS
    'Keeps routine_calendars in step with routines, and rejects a routine that names a calendar missing from its collection.';
CREATE TRIGGER keep_calendar_uses_of_new AFTER INSERT ON routines.routines
    FOR EACH ROW WHEN (NEW.calendar IS NOT NULL) EXECUTE FUNCTION routines.keep_calendar_uses();
CREATE TRIGGER keep_calendar_uses AFTER UPDATE OF calendar, id, collection_id ON routines.routines
    FOR EACH ROW WHEN ((OLD.calendar, OLD.id, OLD.collection_id) IS DISTINCT FROM (NEW.calendar, NEW.id, NEW.collection_id))
    EXECUTE FUNCTION routines.keep_calendar_uses();
CREATE TRIGGER keep_calendar_uses_of_deleted AFTER DELETE ON routines.routines
    FOR EACH ROW WHEN (OLD.calendar IS NOT NULL) EXECUTE FUNCTION routines.keep_calendar_uses();

-- == sql/schema/05_exclusions.sql

-- Which slots of a routine its calendars and active hours exclude, and to when such a slot moves. An excluded slot stays a slot of
-- the cadence, and has its outcome in skips, with the reason `calendar` or `outside_hours`. Why this design: docs/decisions/0024.
--
-- Only routines that have a calendar or active hours call these functions, so no other routine pays for them.

--------------------------------------------------------------------------------------------------------- what is excluded
-- Time falls into stretches in which the answer is the same: a holiday, the hours between two windows, the days between two
-- holidays. So a search steps from stretch to stretch instead of from slot to slot.
CREATE TYPE routines.stretch AS (
    reason text,
    detail text,
    since  timestamptz,
    until  timestamptz
);
COMMENT ON TYPE routines.stretch IS 'A time in which slots of a routine are excluded for one reason, or in which none is.';
COMMENT ON COLUMN routines.stretch.reason IS 'calendar or outside_hours; null if slots are not excluded.';
COMMENT ON COLUMN routines.stretch.detail IS 'For calendar: the label of the day, or the name of the calendar if it has none.';
COMMENT ON COLUMN routines.stretch.since IS 'Its first moment, or a later one.';
COMMENT ON COLUMN routines.stretch.until IS 'The first moment after it, or an earlier one.';

CREATE FUNCTION routines.clock_change(zone text, since timestamp, until timestamp) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    before interval := routines.utc_offset(zone, since);
    middle timestamp;
BEGIN
    WHILE until - since > interval '1 second' LOOP
        middle := date_trunc('second', since + (until - since) / 2);
        EXIT WHEN middle <= since;
        IF routines.utc_offset(zone, middle) = before THEN
            since := middle;
        ELSE
            until := middle;
        END IF;
    END LOOP;
    RETURN until;
END $$;
COMMENT ON FUNCTION routines.clock_change IS
    'The time in UTC at which the clocks of a time zone change, between two times in UTC at which they differ. If there are several, one of them.';

-- A stretch ends where clocks change, because local times may come twice then.
CREATE FUNCTION routines.narrowed(whole routines.stretch, at timestamptz, zone text, first_local timestamp, last_local timestamp)
RETURNS routines.stretch LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    moment  timestamp := timezone('UTC', at);
    ahead   interval := routines.utc_offset(zone, moment);
    since   timestamp := first_local - ahead;
    until   timestamp := last_local - ahead;
BEGIN
    IF routines.utc_offset(zone, since) <> ahead THEN
        since := routines.clock_change(zone, since, moment);
    END IF;
    IF routines.utc_offset(zone, until) <> ahead THEN
        until := routines.clock_change(zone, moment, until);
    END IF;
    whole.since := greatest(whole.since, timezone('UTC', since));
    whole.until := least(whole.until, timezone('UTC', until));
    RETURN whole;
END $$;
COMMENT ON FUNCTION routines.narrowed IS 'The part of a stretch around `at` that lies between two local times of a time zone.';

CREATE FUNCTION routines.zone_of(routine routines.routines) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce((routine).timezone, 'UTC');
COMMENT ON FUNCTION routines.zone_of IS 'The time zone of a routine''s cadence: UTC for all types but cron.';

CREATE FUNCTION routines.calendar_stretch(routine routines.routines, at timestamptz) RETURNS routines.stretch
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found  routines.stretch := (NULL, NULL, '-infinity', 'infinity');
    used   record;
    today  date;
    before record;
    after  date;
BEGIN
    FOR used IN
        SELECT calendars.id, name, routines.clocks_of(coalesce(calendars.timezone, routines.zone_of(routine))) AS zone
        FROM routines.routine_calendars JOIN routines.calendars ON calendars.id = calendar_id
        WHERE routine_id = (routine).id ORDER BY position
    LOOP
        today := timezone(used.zone, at)::date;
        SELECT day, label INTO before FROM routines.calendar_days
        WHERE calendar_id = used.id AND day <= today ORDER BY day DESC LIMIT 1;
        IF before.day = today THEN
            found := ('calendar', coalesce(before.label, used.name), '-infinity', 'infinity');
            RETURN routines.narrowed(found, at, used.zone, today, today + 1);
        END IF;
        after := (SELECT day FROM routines.calendar_days WHERE calendar_id = used.id AND day > today ORDER BY day LIMIT 1);
        found.since := greatest(found.since, timezone(used.zone, (before.day + 1)::timestamp));
        found.until := least(found.until, timezone('UTC', (routines.moments_of(used.zone, after::timestamp, false))[1]));
    END LOOP;
    -- Where clocks are set back across midnight, a day comes twice.
    found.since := least(found.since, at);
    found.until := greatest(found.until, at + interval '1 minute');
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.calendar_stretch IS 'The stretch around `at` as the calendars of a routine have it.';

CREATE FUNCTION routines.active_zone(routine routines.routines) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce((routine).active_hours ->> 'timezone', routines.zone_of(routine));
COMMENT ON FUNCTION routines.active_zone IS 'The time zone of a routine''s active hours, by default that of its cadence.';

CREATE FUNCTION routines.hours_stretch(routine routines.routines, at timestamptz) RETURNS routines.stretch
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found     routines.stretch := (NULL, NULL, '-infinity', 'infinity');
    zone      text := routines.clocks_of(routines.active_zone(routine));
    shown     timestamp := timezone(zone, at);
    week      timestamp := date_trunc('week', shown);
    minute    integer := extract(epoch FROM date_trunc('minute', shown) - week)::integer / 60;
    is_active boolean := minute <@ (routine).active_minutes;
    alike     int4multirange := CASE WHEN is_active THEN (routine).active_minutes
                                     ELSE int4multirange(int4range(0, 10080)) - (routine).active_minutes END;
    inside    int4range := (SELECT part FROM unnest(alike) AS part WHERE part @> minute);
    since     integer := lower(inside);
    until     integer := upper(inside);
BEGIN
    IF NOT is_active THEN
        found.reason := 'outside_hours';
    END IF;
    IF since = 0 AND until = 10080 THEN
        RETURN found;
    END IF;
    -- A night from Sunday to Monday is one stretch.
    IF since = 0 THEN
        since := coalesce((SELECT lower(part) - 10080 FROM unnest(alike) AS part WHERE upper(part) = 10080), 0);
    END IF;
    IF until = 10080 THEN
        until := coalesce((SELECT upper(part) + 10080 FROM unnest(alike) AS part WHERE lower(part) = 0), 10080);
    END IF;
    RETURN routines.narrowed(found, at, zone, week + since * interval '1 minute', week + until * interval '1 minute');
END $$;
COMMENT ON FUNCTION routines.hours_stretch IS 'The stretch around `at` as the active hours of a routine have it.';

CREATE FUNCTION routines.stretch_at(routine routines.routines, at timestamptz) RETURNS routines.stretch
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found routines.stretch := (NULL, NULL, '-infinity', 'infinity');
    hours routines.stretch;
BEGIN
    IF (routine).calendar IS NOT NULL THEN
        found := routines.calendar_stretch(routine, at);
    END IF;
    IF found.reason IS NULL AND (routine).active_minutes IS NOT NULL THEN
        hours := routines.hours_stretch(routine, at);
        found := (hours.reason, NULL, greatest(found.since, hours.since), least(found.until, hours.until));
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.stretch_at IS
    'Whether a routine''s calendars or active hours exclude a slot at `at`, and the stretch around it in which the answer is the same. Calendars come first.';

CREATE FUNCTION routines.is_excluded(routine routines.routines, at timestamptz) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    shown timestamp;
BEGIN
    IF (routine).active_minutes IS NOT NULL THEN
        shown := timezone(routines.clocks_of(routines.active_zone(routine)), at);
        IF NOT extract(epoch FROM date_trunc('minute', shown) - date_trunc('week', shown))::integer / 60 <@ (routine).active_minutes THEN
            RETURN true;
        END IF;
    END IF;
    RETURN (routine).calendar IS NOT NULL AND EXISTS (
        SELECT FROM routines.routine_calendars
        JOIN routines.calendars ON calendars.id = calendar_id
        JOIN routines.calendar_days ON calendar_days.calendar_id = calendars.id
            AND day = timezone(routines.clocks_of(coalesce(calendars.timezone, routines.zone_of(routine))), at)::date
        WHERE routine_id = (routine).id);
END $$;
COMMENT ON FUNCTION routines.is_excluded IS
    'Whether a routine''s calendars or active hours exclude a slot at `at`: stretch_at gives the reason, and takes five times as long.';

CREATE FUNCTION routines.outside_detail(routine routines.routines, first_slot timestamptz, last_slot timestamptz) RETURNS text
LANGUAGE sql STABLE RETURN (
    SELECT CASE WHEN first_slot = last_slot THEN format('%s in %s is outside %s', first_local, zone, windows)
                ELSE format('%s to %s in %s is outside %s', first_local, last_local, zone, windows) END
    FROM (SELECT to_char(timezone(routines.clocks_of(routines.active_zone(routine)), first_slot), 'Dy HH24:MI') AS first_local,
                 to_char(timezone(routines.clocks_of(routines.active_zone(routine)), last_slot), 'Dy HH24:MI') AS last_local,
                 routines.active_zone(routine) AS zone,
                 (SELECT string_agg(listed, ', ' ORDER BY position)
                  FROM jsonb_array_elements_text((routine).active_hours -> 'windows') WITH ORDINALITY AS given (listed, position)) AS windows
         ) AS shown);
COMMENT ON FUNCTION routines.outside_detail IS
    'The detail of slots outside active hours: Sat 10:00 in Europe/Berlin is outside mon-fri 08:00-18:00.';

------------------------------------------------------------------------------------------------------ where a slot moves to
CREATE FUNCTION routines.next_opening(routine routines.routines, at timestamptz, before timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found routines.stretch;
BEGIN
    FOR step IN 1 .. 50 LOOP
        EXIT WHEN at >= before;
        found := routines.stretch_at(routine, at);
        IF found.reason IS NULL THEN
            RETURN at;
        END IF;
        at := found.until;
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.next_opening IS
    'The first time at or after `at` and earlier than `before` that neither calendars nor active hours exclude; null if there is none within 50 stretches.';

CREATE FUNCTION routines.next_free_day(routine routines.routines, slot timestamptz, before timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    zone  text := routines.clocks_of(routines.zone_of(routine));
    wall  timestamp := timezone(zone, slot);
    at    timestamptz;
BEGIN
    FOR days IN 1 .. 92 LOOP
        wall := wall + interval '1 day';
        CONTINUE WHEN (routine).calendar ->> 'on_excluded' = 'next_business_day' AND extract(isodow FROM wall) > 5;
        at := timezone('UTC', (routines.moments_of(zone, wall, false))[1]);
        EXIT WHEN at >= before;
        CONTINUE WHEN at <= slot;
        IF NOT routines.is_excluded(routine, at) THEN
            RETURN at;
        ELSIF (routine).active_hours ->> 'outside' = 'defer' AND (routines.stretch_at(routine, at)).reason = 'outside_hours' THEN
            RETURN routines.next_opening(routine, at, before);
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.next_free_day IS
    'The same local time on the first later day, or weekday, that is not excluded, earlier than `before`; null if there is none within 92 days.';

CREATE FUNCTION routines.should_move(routine routines.routines, reason text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(CASE reason WHEN 'calendar' THEN (routine).calendar ->> 'on_excluded'
                            WHEN 'outside_hours' THEN (routine).active_hours ->> 'outside' END, 'skip') <> 'skip';
COMMENT ON FUNCTION routines.should_move IS 'Returns true if slots that are excluded for this reason move rather than being skipped.';

-- The search is short, because a tenant may have many routines that search at once while all tenants wait.
CREATE FUNCTION routines.moved_slot(routine routines.routines, slot timestamptz, reason text, next_slot timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    before timestamptz := least(next_slot, (routine).ends_at + interval '1 microsecond', slot + interval '2208 hours', '2200-01-01Z');
BEGIN
    RETURN CASE WHEN NOT routines.should_move(routine, reason) THEN NULL
                WHEN reason = 'calendar' THEN routines.next_free_day(routine, slot, before)
                ELSE routines.next_opening(routine, slot, before) END;
END $$;
COMMENT ON FUNCTION routines.moved_slot IS
    'The time to which an excluded slot moves; null if it does not, because the routine says so or because next_slot comes no later.';

CREATE FUNCTION routines.exclusion_detail(
    routine routines.routines, slot timestamptz, found routines.stretch, moved_to timestamptz, next_slot timestamptz
) RETURNS text LANGUAGE sql STABLE RETURN
    CASE found.reason WHEN 'calendar' THEN found.detail ELSE routines.outside_detail(routine, slot, slot) END
    || CASE WHEN moved_to IS NOT NULL THEN '; moved to ' || routines.utc(moved_to)
            WHEN NOT routines.should_move(routine, found.reason) THEN ''
            WHEN next_slot IS NULL THEN '; not moved, since no later time is free'
            ELSE '; not moved, since the next slot is ' || routines.utc(next_slot) END;
COMMENT ON FUNCTION routines.exclusion_detail IS 'The detail of an excluded slot: Christmas; moved to 2026-12-28T09:00:00Z.';

------------------------------------------------------------------------------------------------------------- for the tick
CREATE TYPE routines.judgement AS (
    slot     timestamptz,
    reason   text,
    detail   text,
    moved_to timestamptz
);
COMMENT ON TYPE routines.judgement IS 'What calendars and active hours say about the newest due slot of a routine, if they exclude it.';
COMMENT ON COLUMN routines.judgement.slot IS 'The slot that fires instead: the newest that is not excluded, if it is in time; null if there is none.';
COMMENT ON COLUMN routines.judgement.reason IS 'Why the newest slot is excluded: calendar or outside_hours.';
COMMENT ON COLUMN routines.judgement.detail IS 'What the ledger says about it, if it should move; null if it says the same as about its neighbours.';
COMMENT ON COLUMN routines.judgement.moved_to IS 'When it is due instead; null if it does not move.';

-- VOLATILE, so that each of its statements takes a snapshot of its own. The tick calls it once it has locked the routine, whose
-- calendar may have been changed since the tick began. The ticker has its own statements planned anew each time; here that would
-- take longer than the work.
CREATE FUNCTION routines.judge(
    of_routine bigint, first_slot timestamptz, newest timestamptz, next_slot timestamptz, in_time_since timestamptz
) RETURNS routines.judgement LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    routine routines.routines;
    found   routines.stretch;
    at      timestamptz := newest;
    judged  routines.judgement;
BEGIN
    SELECT * INTO routine FROM routines.routines WHERE id = of_routine;
    IF NOT routines.is_excluded(routine, newest) THEN
        RETURN NULL;
    END IF;
    found := routines.stretch_at(routine, newest);
    judged.reason := found.reason;
    judged.moved_to := routines.moved_slot(routine, newest, found.reason, next_slot);
    IF routines.should_move(routine, found.reason) THEN
        judged.detail := routines.exclusion_detail(routine, newest, found, judged.moved_to, next_slot);
    END IF;
    FOR step IN 1 .. 100 LOOP
        EXIT WHEN found.since <= first_slot;
        at := greatest(first_slot, routines.latest_slot(routines.cadence_of(routine), found.since - interval '1 microsecond'));
        EXIT WHEN at < in_time_since;
        found := routines.stretch_at(routine, at);
        IF found.reason IS NULL THEN
            judged.slot := at;
            EXIT;
        END IF;
    END LOOP;
    RETURN judged;
END $$;
COMMENT ON FUNCTION routines.judge IS
    'Decides about the slots of a routine from first_slot to `newest`; null if the newest is not excluded. Searches for another that may fire through at most 100 stretches.';

-- From the newest to the oldest, so that of a long outage the newest slots are told apart. VOLATILE for the same reason as judge.
CREATE FUNCTION routines.judged_spans(
    of_routine bigint, first_slot timestamptz, newest timestamptz, spared timestamptz, newest_detail text
) RETURNS TABLE (
    span_begin timestamptz, span_end timestamptz, slot_count bigint, cadence routines.cadence, reason text, detail text
) LANGUAGE plpgsql VOLATILE ROWS 3 AS $$
DECLARE
    routine routines.routines;
    found   routines.stretch;
BEGIN
    SELECT * INTO routine FROM routines.routines WHERE id = of_routine;
    cadence := routines.cadence_of(routine);
    span_end := newest;
    FOR step IN 1 .. 100 LOOP
        EXIT WHEN span_end IS NULL;
        found := routines.stretch_at(routine, span_end);
        -- The slot that fires is the newest of its stretch, and the newest of all may have a detail of its own.
        span_begin := CASE WHEN span_end = spared OR span_end = newest AND newest_detail IS NOT NULL THEN span_end
                           WHEN found.since <= first_slot THEN first_slot
                           ELSE least(span_end, routines.next_fire(cadence, found.since - interval '1 microsecond')) END;
        IF span_end IS DISTINCT FROM spared THEN
            slot_count := routines.slots_in_span(cadence, span_begin, span_end);
            reason := coalesce(found.reason, 'missed');
            detail := CASE WHEN span_end = newest AND newest_detail IS NOT NULL THEN newest_detail
                           WHEN found.reason = 'outside_hours' THEN routines.outside_detail(routine, span_begin, span_end)
                           ELSE found.detail END;
            RETURN NEXT;
        END IF;
        span_end := CASE WHEN span_begin > first_slot THEN greatest(
            first_slot, routines.latest_slot(cadence, span_begin - interval '1 microsecond')) END;
    END LOOP;
    IF span_end IS NOT NULL THEN
        span_begin := first_slot;
        slot_count := routines.slots_in_span(cadence, span_begin, span_end);
        reason := 'missed';
        detail := 'too many slots were due to ask calendars and active hours about each';
        RETURN NEXT;
    END IF;
END $$;
COMMENT ON FUNCTION routines.judged_spans IS
    'The slots of a routine from first_slot to `newest` but the one that is spared, in spans with the same reason: calendar, outside_hours or missed. `cadence` is that of the routine. Tells at most 100 spans apart; those before them are missed.';

CREATE FUNCTION routines.spans_to_skip(
    of_routine bigint, first_passed timestamptz, first_slot timestamptz, newest timestamptz, spared timestamptz, newest_detail text
) RETURNS TABLE (
    span_begin timestamptz, span_end timestamptz, slot_count bigint, cadence routines.cadence, reason text, detail text
) LANGUAGE plpgsql VOLATILE ROWS 3 SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF first_passed < first_slot THEN
        RETURN QUERY
        SELECT span.span_begin, span.span_end, span.slot_count, span.cadence, span.reason,
               CASE span.reason WHEN 'missed' THEN routines.passed_over_detail(
                   (SELECT coalesce(first_slot + spread_offset, first_slot) FROM routines.routines WHERE id = of_routine)) ELSE span.detail END
        FROM routines.judged_spans(of_routine, first_passed, greatest(first_passed, routines.latest_slot(
            routines.current_cadence(of_routine), first_slot - interval '1 microsecond')), NULL, NULL) AS span;
    END IF;
    RETURN QUERY SELECT * FROM routines.judged_spans(of_routine, first_slot, newest, spared, newest_detail);
END $$;
COMMENT ON FUNCTION routines.spans_to_skip IS
    'What the tick records for a routine with a calendar or active hours: the slots from first_passed that a person set next_run_at past, and judged_spans from first_slot.';

------------------------------------------------------------------------------------------------------------ what is coming
CREATE FUNCTION routines.has_exclusions(routine routines.routines) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (routine).calendar IS NOT NULL OR (routine).active_minutes IS NOT NULL;
COMMENT ON FUNCTION routines.has_exclusions IS 'Returns true if the routine has a calendar or active hours.';

CREATE FUNCTION routines.exclusion_of(routine routines.routines, slot timestamptz) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    found     routines.stretch;
    next_slot timestamptz;
BEGIN
    IF NOT routines.has_exclusions(routine) THEN
        RETURN NULL;
    END IF;
    found := routines.stretch_at(routine, slot);
    IF found.reason IS NULL THEN
        RETURN NULL;
    END IF;
    next_slot := routines.next_fire(routines.cadence_of(routine), slot);
    RETURN routines.exclusion_detail(
        routine, slot, found, routines.moved_slot(routine, slot, found.reason, next_slot), next_slot);
END $$;
COMMENT ON FUNCTION routines.exclusion_of IS
    'Why a routine would not fire at a slot, as the ledger would say it; null if neither calendars nor active hours exclude it.';

CREATE FUNCTION routines.firing_slots(routine routines.routines, after timestamptz, slot_limit integer) RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE ROWS 10 AS $$
DECLARE
    cadence   routines.cadence := routines.cadence_of(routine);
    -- A time that a slot has moved to, or that a person has set, lies between two slots of the cadence.
    slot      timestamptz := coalesce(CASE WHEN routines.without_spread(routine, (routine).next_run_at) > after
                                           THEN routines.without_spread(routine, (routine).next_run_at) END, least(
        routines.next_fire(cadence, after), CASE WHEN (routine).moved_to > after THEN (routine).moved_to END));
    listed    integer := 0;
    found     routines.stretch;
    next_slot timestamptz;
    moved_to  timestamptz;
BEGIN
    FOR step IN 1 .. slot_limit + 1000 LOOP
        EXIT WHEN slot IS NULL OR listed >= slot_limit;
        found := routines.stretch_at(routine, slot);
        next_slot := routines.next_fire(cadence, slot);
        IF found.reason IS NULL THEN
            listed := listed + 1;
            RETURN NEXT slot;
            slot := next_slot;
            CONTINUE;
        END IF;
        moved_to := routines.moved_slot(routine, slot, found.reason, next_slot);
        IF moved_to IS NOT NULL THEN
            listed := listed + 1;
            RETURN NEXT moved_to;
            slot := next_slot;
        ELSIF next_slot < found.until AND NOT routines.should_move(routine, found.reason) THEN
            slot := routines.next_fire(cadence, found.until - interval '1 microsecond');
        ELSE
            slot := next_slot;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.firing_slots IS
    'The first slot_limit times later than `after` at which a routine with a calendar or active hours will fire. Those that are more than 1,000 excluded slots or stretches away are left out.';

CREATE FUNCTION routines.excluded_times(routine routines.routines, from_time timestamptz, until_time timestamptz) RETURNS tstzmultirange
LANGUAGE plpgsql STABLE AS $$
DECLARE
    excluded tstzmultirange := '{}';
    at       timestamptz := from_time;
    found    routines.stretch;
BEGIN
    FOR step IN 1 .. 2000 LOOP
        EXIT WHEN at >= until_time;
        found := routines.stretch_at(routine, at);
        IF found.reason IS NOT NULL THEN
            excluded := excluded + tstzmultirange(tstzrange(at, found.until));
        END IF;
        at := found.until;
    END LOOP;
    RETURN excluded;
END $$;
COMMENT ON FUNCTION routines.excluded_times IS
    'The times from from_time until before until_time at which slots of a routine are excluded. Looks at no more than 2,000 stretches.';

-- == sql/schema/05_runs.sql

-- Runs. A trajectory is one run of a task: the clients' word is trajectory, the programs' word is run, and both are one row
-- of routines.trajectories. The same table is the queue that workers claim from.

-- Triggers, in the order in which they fire. Where two share an event, Postgres fires them by name.
--   BEFORE INSERT                 check_place        with a place only: raises if the routine has no such place free; 0 waits
--                                                    (chapter 06_overlap)
--   BEFORE INSERT                 find_root          children only: fills in root_id
--   BEFORE INSERT                 hold_routine       run-now, reruns, backfills: locks the routine, so its ticks come before or after
--   BEFORE INSERT                 link_rerun         reruns only: raises if the run that is rerun is active; makes it the newest
--                                                    attempt (chapter 06_reruns)
--   BEFORE UPDATE of status       refuse_second_end  if the run has ended: raises, except for archiving
--   BEFORE UPDATE of status       settle_end         if the run ends: closes its steps, inserts a retry if it is to be retried,
--                                                    clears lease and secret_refs, queues the webhook
--   AFTER INSERT                  note_started_run   inserted as running, as a retry that waits, but not for a place: adds to
--                                                    begun_runs and file_uses
--   AFTER INSERT                  mark_day_of_created  for a slot of half an hour ago: notes that its day has changed
--                                                    (chapter 14_day_sums)
--   AFTER INSERT, per statement   note_late_starts   slots that started late: notes them for alert rules (chapter 08_alerts)
--   AFTER INSERT, per statement   refuse_overlap     raises for a scheduled run without a place next to any other active run
--   AFTER INSERT, per statement   wake_workers       notifies idle workers
--   AFTER UPDATE of status        follow_end         if the run ends: cancels its children, deletes it from begun_runs and
--                                                    dispatches, notes how a slot ended for alert rules, deletes secrets that
--                                                    no other row needs, admits the run that waits for its place
--   AFTER UPDATE of status        leave_queue        pending to another status: adds to begun_runs if running, and to
--                                                    file_uses at the first time
--   AFTER UPDATE of status        leave_worker       running to another status: stops counting it towards limits
--   AFTER UPDATE                  mark_day_of_changed  the same for what reports count, and for retries
--   AFTER DELETE                  forget_active_run  deleted while active: deletes it from begun_runs and limited_runs
--   AFTER DELETE, per statement   mark_days_of_deleted  the same
-- A fire is an INSERT without rows for note_started_run. Renewing a lease fires none of them.
--
-- No foreign keys, on purpose. History outlives the routine and the task, and an insert needs no lock on rows that the ticker
-- holds FOR UPDATE (a foreign key's KEY SHARE would make SKIP LOCKED pass routines over).
CREATE TABLE routines.trajectories (
    id                      bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT trajectories_pkey PRIMARY KEY,
    collection_id           bigint NOT NULL,
    task_id                 bigint NOT NULL,
    task_version            integer NOT NULL,
    nonce                   integer NOT NULL DEFAULT (random() * 4294967295 - 2147483648)::integer,
    triggered_by_routine_id bigint,
    scheduled_for           timestamptz,
    due_at                  timestamptz,
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    started_at              timestamptz,
    ended_at                timestamptz,
    lease_expires_at        timestamptz,
    deadline_at             timestamptz,
    timeout_seconds         integer,
    fence                   integer NOT NULL DEFAULT 0,
    step_bytes              integer NOT NULL DEFAULT 0,
    crashes                 smallint NOT NULL DEFAULT 0,
    trigger                 text NOT NULL CONSTRAINT trajectories_trigger_is_known
                            CHECK (trigger IN ('schedule', 'run-now', 'api', 'retry', 'rerun', 'backfill')),
    status                  text NOT NULL DEFAULT 'pending' CONSTRAINT trajectories_status_is_known
                            CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'archived')),
    engine                  text NOT NULL DEFAULT 'postgres' CONSTRAINT trajectories_engine_is_known
                            CHECK (engine IN ('postgres', 'temporal')),
    worker                  text,
    later_claims            jsonb CONSTRAINT trajectories_later_claims_is_array CHECK (jsonb_typeof(later_claims) = 'array'),
    first_workflow_id       text,
    traceparent             text CONSTRAINT trajectories_traceparent_is_valid
                            CHECK (traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'),
    parent_id               bigint,
    parent_step             text,
    parent_attempt          integer,
    child_index             integer,
    root_id                 bigint,
    retry_of                bigint,
    retried_by              bigint,
    retry_number            smallint,
    rerun_of                bigint,
    kept_steps              jsonb,
    backfill_id             bigint,
    fills_slot              timestamptz,
    place                   smallint,
    taken_over_as           bigint,
    is_transient            boolean,
    init_params             routines.json_object NOT NULL,
    secret_refs             routines.json_object NOT NULL DEFAULT '{}',
    webhook_url             text,
    webhook_secret_id       uuid,
    slot_values             jsonb,
    labels                  jsonb NOT NULL DEFAULT '[]' CONSTRAINT trajectories_labels_is_array CHECK (jsonb_typeof(labels) = 'array'),
    error                   text,
    final_status            text GENERATED ALWAYS AS (CASE WHEN ended_at IS NOT NULL THEN status END) STORED,
    -- One rule for slots, retries, reruns and backfills, because each fire checks it.
    CONSTRAINT trajectories_schedule_has_slot CHECK (
        CASE WHEN scheduled_for IS NOT NULL THEN trigger = 'schedule'
             ELSE trigger <> 'schedule' AND (trigger = 'retry') = (retry_of IS NOT NULL AND retry_number IS NOT NULL)
                  AND (trigger <> 'rerun' OR rerun_of IS NOT NULL)
                  AND (trigger = 'backfill') = (backfill_id IS NOT NULL AND fills_slot IS NOT NULL) END),
    CONSTRAINT trajectories_trigger_has_routine CHECK (trigger = 'rerun' OR (trigger = 'api') = (triggered_by_routine_id IS NULL)),
    CONSTRAINT trajectories_end_fits_status CHECK ((ended_at IS NULL) = (status IN ('pending', 'running'))),
    CONSTRAINT trajectories_lease_fits_status CHECK ((lease_expires_at IS NOT NULL) = (status = 'running')),
    CONSTRAINT trajectories_parent_is_whole CHECK (
        (parent_id IS NULL) = (parent_step IS NULL) AND (parent_id IS NOT NULL OR child_index IS NULL AND parent_attempt IS NULL))
) WITH (
    -- Room on the row's own page for pending -> running, lease renewals and checkpoints: they change no indexed column, and
    -- 82-87 % of them were HOT in measurements, against none at fillfactor 100. The rest are ends of runs, which leave the
    -- partial indexes and cannot be HOT.
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05
);

-- One run per slot: the second guard against a double fire, after the lock on the routine.
CREATE UNIQUE INDEX trajectories_slot_key ON routines.trajectories (triggered_by_routine_id, scheduled_for)
    WHERE scheduled_for IS NOT NULL;
-- The same for slots that backfills fill: one run that is not a later attempt.
CREATE UNIQUE INDEX trajectories_fill_key ON routines.trajectories (triggered_by_routine_id, fills_slot)
    WHERE fills_slot IS NOT NULL AND rerun_of IS NULL;
-- The runs of a backfill, which comes to each slot once.
CREATE UNIQUE INDEX trajectories_backfill_key ON routines.trajectories (backfill_id, fills_slot) WHERE backfill_id IS NOT NULL;
-- One active scheduled run per routine: the database enforces the overlap policy skip. This index and the next are worded so that
-- no other can answer `active_runs`. If the queue could, a plan made while there were few runs would use it, and go on to read all
-- active runs for each batch: so they are on final_status, which is null exactly while ended_at is.
CREATE UNIQUE INDEX trajectories_active_schedule_key ON routines.trajectories (triggered_by_routine_id)
    WHERE trigger = 'schedule' AND place IS NULL AND final_status IS NULL;
-- All other active runs of routines, which also hold back the schedule: run-now runs, retries, reruns, runs
-- of backfills, and scheduled runs with a place.
-- Nearly empty where nobody uses these, so nearly free.
CREATE INDEX trajectories_active_other_idx ON routines.trajectories (triggered_by_routine_id)
    WHERE (trigger <> 'schedule' OR place IS NOT NULL) AND triggered_by_routine_id IS NOT NULL AND final_status IS NULL;
-- The other overlap policies: one active run in each place of a routine.
CREATE UNIQUE INDEX trajectories_active_place_key ON routines.trajectories (triggered_by_routine_id, place)
    WHERE place IS NOT NULL AND final_status IS NULL;
-- The runs that wait for a place. A search for that of one routine says place < 1, which this index cannot answer.
CREATE INDEX trajectories_waiting_idx ON routines.trajectories (id) WHERE place = 0 AND final_status IS NULL;
-- A routine's run-now runs, its retries, its reruns and those of backfills, newest first. Its scheduled runs come from trajectories_slot_key.
CREATE INDEX trajectories_unscheduled_idx ON routines.trajectories (triggered_by_routine_id, trigger, id)
    WHERE scheduled_for IS NULL AND triggered_by_routine_id IS NOT NULL;
-- The queue, by collection and task, so that a claim goes from one to the next whatever the backlog of each. Its columns do
-- not change while a run is active, and it is on ended_at rather than status: pending -> running and lease renewals stay HOT.
-- A search for active runs by another key says status IN ('pending', 'running'), which this index cannot answer: a plan made while
-- the index was empty would read all of it for each run.
CREATE INDEX trajectories_active_idx ON routines.trajectories (collection_id, task_id, id) WHERE ended_at IS NULL;
-- A task's ended runs by status, newest first, for lists and for counts from the index alone. On a column that is null while a run
-- is active: with an index on status, no claim would be HOT. It includes the tenant so that the policy on it needs no access to the
-- table. There is no index of all runs of a task: together with the queue this one holds them, and a fire writes one entry less.
CREATE INDEX trajectories_final_status_idx ON routines.trajectories (task_id, final_status, id) INCLUDE (collection_id)
    WHERE final_status IS NOT NULL;
-- A collection's runs by when they ended, for clients that follow it. A fire writes no entry, and a claim stays HOT: both leave ended_at null.
CREATE INDEX trajectories_ended_at_idx ON routines.trajectories (collection_id, ended_at) WHERE ended_at IS NOT NULL;
-- The oldest version of a task that a retry or a rerun has: newer than other runs, and with an older version.
CREATE INDEX trajectories_repeated_version_idx ON routines.trajectories (task_id, task_version)
    WHERE trigger <> 'schedule' AND (retry_of IS NOT NULL OR rerun_of IS NOT NULL);
-- The active reruns that keep steps of other runs.
CREATE INDEX trajectories_keeping_idx ON routines.trajectories (id) WHERE kept_steps IS NOT NULL AND final_status IS NULL;
-- A step that is repeated finds the child that it started before.
CREATE UNIQUE INDEX trajectories_child_key ON routines.trajectories (parent_id, parent_step, child_index)
    WHERE parent_id IS NOT NULL;
-- The runs of a tree, for their limit. Only children are in it.
CREATE INDEX trajectories_root_id_idx ON routines.trajectories (root_id) WHERE root_id IS NOT NULL;

COMMENT ON TABLE  routines.trajectories IS
    'One run of a task: history and queue. Clients call it a trajectory, the programs call it a run.';
COMMENT ON COLUMN routines.trajectories.id IS 'trajectory_id in the API, and the last part of workflow_id.';
COMMENT ON COLUMN routines.trajectories.nonce IS
    '32 random bits that run_id is made of, since ids are given out again after a restore. See docs/decisions/0020.';
COMMENT ON COLUMN routines.trajectories.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.trajectories.task_id IS 'The task, which may have been deleted.';
COMMENT ON COLUMN routines.trajectories.task_version IS 'The version that it runs, fixed when the run was created.';
COMMENT ON COLUMN routines.trajectories.triggered_by_routine_id IS
    'The routine that started it, which may have been deleted; null if the API started it.';
COMMENT ON COLUMN routines.trajectories.scheduled_for IS 'Its slot; null if it was not started on schedule, also for a retry, whose slot is that of retry_of.';
COMMENT ON COLUMN routines.trajectories.due_at IS
    'When its slot was due, if its routine had a spread: scheduled_for plus the offset of the routine; null if it was due at scheduled_for.';
COMMENT ON COLUMN routines.trajectories.created_at IS
    'When it was fired. created_at - coalesce(due_at, scheduled_for) is the start delay.';
COMMENT ON COLUMN routines.trajectories.updated_at IS 'Its last change of status or checkpoint.';
COMMENT ON COLUMN routines.trajectories.started_at IS
    'When a worker first claimed it; null if none has. Later claims are in later_claims.';
COMMENT ON COLUMN routines.trajectories.ended_at IS 'When it reached a final status; null while it is active.';
COMMENT ON COLUMN routines.trajectories.lease_expires_at IS
    'When its worker''s lease expires, by this database''s clock, or without a worker when its wait is over, as that of a retry; infinity while Temporal has it, or while it waits without a worker for its children or for a place; null if it is not running.';
COMMENT ON COLUMN routines.trajectories.deadline_at IS 'When it fails if it has not ended; set by the first claim.';
COMMENT ON COLUMN routines.trajectories.timeout_seconds IS
    'The timeout_seconds of its routine when it was created; null for as long as the worker allows.';
COMMENT ON COLUMN routines.trajectories.fence IS
    'Raised by each claim and by anything else that takes the run from its worker. Every write of a worker names it, so earlier holders are fenced off.';
COMMENT ON COLUMN routines.trajectories.crashes IS 'How many times its worker was lost. At three the run fails.';
COMMENT ON COLUMN routines.trajectories.step_bytes IS
    'How many bytes its steps hold as JSON, inputs and outputs together; counted as they are written.';
COMMENT ON COLUMN routines.trajectories.trigger IS 'schedule, run-now, api, retry, rerun or backfill.';
COMMENT ON COLUMN routines.trajectories.status IS 'pending, running, or one of the final completed, failed, cancelled, archived.';
COMMENT ON COLUMN routines.trajectories.engine IS
    'The engine that runs it, or ran it at its end: postgres (a worker with a lease) or temporal, set at dispatch. Either may take a pending run.';
COMMENT ON COLUMN routines.trajectories.worker IS
    'The last worker that claimed it: host and process; null while it waits for the next attempt of a step, until lease_expires_at.';
COMMENT ON COLUMN routines.trajectories.later_claims IS
    'The newest 50 claims after the first, an array of {at, fence, crashes}; null if there were none.';
COMMENT ON COLUMN routines.trajectories.traceparent IS
    'The span of the request, step or tick that started it, if that was traced (W3C Trace Context).';
COMMENT ON COLUMN routines.trajectories.first_workflow_id IS
    'Its workflow_id at the first claim; null if never claimed. Its id in Temporal begins with it and survives renaming or deleting the task.';
COMMENT ON COLUMN routines.trajectories.parent_id IS 'The run whose step started it; null for none.';
COMMENT ON COLUMN routines.trajectories.parent_step IS 'That step.';
COMMENT ON COLUMN routines.trajectories.parent_attempt IS 'The attempt of that step; null for the first, and without a parent.';
COMMENT ON COLUMN routines.trajectories.child_index IS
    'Its place among the children of that step, from 0. Null with a parent: it did not complete and a later attempt replaced it.';
COMMENT ON COLUMN routines.trajectories.root_id IS
    'The run at the root of its tree, which no other run started; null for that run itself. A trigger fills it in.';
COMMENT ON COLUMN routines.trajectories.retry_of IS 'Of a later attempt at a run of a routine, a retry or a rerun: the first one; null otherwise.';
COMMENT ON COLUMN routines.trajectories.retried_by IS 'Of a run of a routine: the next attempt, which is its retry or, after the last retry, the newest rerun; null for none. The last run of the chain is the outcome of the slot: see last_attempt.';
COMMENT ON COLUMN routines.trajectories.retry_number IS 'Of a retry: which one it is, from 1; null otherwise.';
COMMENT ON COLUMN routines.trajectories.rerun_of IS 'Of a rerun, also one by a backfill: the run that it repeats; null otherwise.';
COMMENT ON COLUMN routines.trajectories.kept_steps IS
    'Of a rerun from a step: the steps before it, each with the run that executed it, {step: run}. They are not copied. Null if it keeps none.';
COMMENT ON COLUMN routines.trajectories.backfill_id IS 'The backfill that started it; null for none.';
COMMENT ON COLUMN routines.trajectories.fills_slot IS 'The slot that it fills, if a backfill started it; null otherwise.';
COMMENT ON COLUMN routines.trajectories.place IS
    'Of a scheduled run, if the overlap policy of its routine is not skip: its place among the runs that may be active at once, from 1, or 0 while it waits for one; null otherwise.';
COMMENT ON COLUMN routines.trajectories.taken_over_as IS
    'Of a run that waited and was taken over by a later slot: the id that a new run would have had, by which its revision is found (chapter 15_audit); null otherwise.';
COMMENT ON COLUMN routines.trajectories.is_transient IS
    'Of a failed run: true if the cause may go away by itself, such as a timeout, a refused connection, an HTTP status of 408, 425, 429 or 500 and above, or lost workers; null if it has not failed.';
COMMENT ON COLUMN routines.trajectories.init_params IS 'The task''s init_params with the routine''s overrides merged over them.';
COMMENT ON COLUMN routines.trajectories.secret_refs IS 'Secret params: their names, with ids in secrets. Emptied when the run ends.';
COMMENT ON COLUMN routines.trajectories.webhook_url IS 'Receives a webhook when the run has ended; null for none.';
COMMENT ON COLUMN routines.trajectories.webhook_secret_id IS 'The secret that signs that webhook; null for unsigned.';
COMMENT ON COLUMN routines.trajectories.slot_values IS
    'What its references to slot refer to, see slot_values; null until something asks. Then fixed, so that a resumed run sees the same.';
COMMENT ON COLUMN routines.trajectories.labels IS 'Array of {key, value, author, created}, by the time at which each was set.';
COMMENT ON COLUMN routines.trajectories.error IS 'Why it failed, a sentence that names step and cause; null if it did not.';
COMMENT ON COLUMN routines.trajectories.final_status IS 'The status of an ended run; null while it is active.';
SELECT routines.protect('routines.trajectories');

CREATE FUNCTION routines.workflow_id(collection_name text, task_name text, trajectory_id bigint)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'flow-' || collection_name || '-' || task_name || '--' || trajectory_id;
COMMENT ON FUNCTION routines.workflow_id IS 'The workflow_id that clients poll with. They take the part after the last -- as the trajectory''s id.';

CREATE FUNCTION routines.run_id(trajectory_id bigint, created_at timestamptz, nonce integer) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN md5('routines.run.' || trajectory_id || '.' || extract(epoch FROM created_at - timestamptz '2000-01-01 00:00:00+00')
           || '.' || nonce)::uuid;
COMMENT ON FUNCTION routines.run_id IS
    'The run_id of the API. No other run has it, in this database or any other, also after a restore.';

CREATE FUNCTION routines.run_name(run routines.trajectories) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT collections.name || '/' || coalesce(tasks.name, deleted_tasks.name, 'deleted')
    FROM routines.collections
    LEFT JOIN routines.tasks ON tasks.id = run.task_id
    LEFT JOIN routines.deleted_tasks ON deleted_tasks.id = run.task_id
    WHERE collections.id = run.collection_id
$$;
COMMENT ON FUNCTION routines.run_name IS 'collection/task, with the last name of a deleted task.';

CREATE FUNCTION routines.find_root() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.root_id := (SELECT coalesce(root_id, id) FROM routines.trajectories WHERE id = NEW.parent_id);
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.find_root IS 'Fills in the root of the tree of a run that another run started.';
CREATE TRIGGER find_root BEFORE INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.parent_id IS NOT NULL) EXECUTE FUNCTION routines.find_root();

--------------------------------------------------------------------------------------------------- starting: overlaps
-- A run-now run, a rerun or a run of a backfill waits for a tick that has locked its routine, and holds off a later tick. So the tick's active-run
-- check, which looks once it has its locks, sees every such run that came before it.
CREATE FUNCTION routines.hold_routine() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM routines.routines WHERE id = NEW.triggered_by_routine_id FOR UPDATE;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.hold_routine IS 'Serializes the ticks of a routine with run-now runs, reruns and runs of backfills.';
CREATE TRIGGER hold_routine BEFORE INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.trigger IN ('run-now', 'rerun', 'backfill')) EXECUTE FUNCTION routines.hold_routine();

-- Under the policy skip no scheduled run starts while any run of its routine is active, however that one was triggered. The
-- database enforces it, so an INSERT typed in psql is rejected too: trajectories_active_schedule_key rejects it next to a scheduled
-- run, this trigger next to any other. It runs once per statement over all rows, because a trigger per row would cost the tick far
-- more. It takes no lock: a run-now run that comes while the INSERT is open comes after it, and may run alongside a scheduled run.
CREATE FUNCTION routines.refuse_overlap() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    active record;
BEGIN
    SELECT id, triggered_by_routine_id AS routine_id INTO active
    FROM routines.trajectories
    WHERE (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL
      AND triggered_by_routine_id = ANY (ARRAY(SELECT triggered_by_routine_id FROM inserted
                                               WHERE inserted.trigger = 'schedule' AND inserted.place IS NULL))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'routine % has an active run, %: a scheduled run waits for its next slot', active.routine_id, active.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_schedule_does_not_overlap';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.refuse_overlap IS 'Rejects a scheduled run without a place while any other run of the same routine is active.';
CREATE TRIGGER refuse_overlap AFTER INSERT ON routines.trajectories
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.refuse_overlap();

-- VOLATILE, so that it takes a snapshot of its own. The tick calls it once it holds its locks, so it sees what was committed since
-- the tick began.
CREATE FUNCTION routines.active_runs(routine_ids bigint[])
RETURNS TABLE (routine_id bigint, trajectory_id bigint) LANGUAGE sql VOLATILE ROWS 1 AS $$
    SELECT active.routine_id, min(active.id) FROM (
        SELECT triggered_by_routine_id AS routine_id, id FROM routines.trajectories
        WHERE trigger = 'schedule' AND place IS NULL AND final_status IS NULL AND triggered_by_routine_id = ANY (routine_ids)
        UNION ALL
        SELECT triggered_by_routine_id, id FROM routines.trajectories
        WHERE (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL AND triggered_by_routine_id = ANY (routine_ids)
    ) AS active GROUP BY 1;
$$;
COMMENT ON FUNCTION routines.active_runs IS
    'The oldest active run of each of these routines that has one. VOLATILE, so that it takes its own snapshot.';

CREATE FUNCTION routines.newest_run(of_routine bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT greatest(
        (SELECT id FROM routines.trajectories WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL
         ORDER BY scheduled_for DESC LIMIT 1),
        (SELECT id FROM routines.trajectories
         WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NULL AND trigger = 'run-now'
         ORDER BY id DESC LIMIT 1));
$$;
COMMENT ON FUNCTION routines.newest_run IS 'The newest run of a routine other than later attempts; null if it has none.';

-- One search for each final status, since the index holds the runs of a task by status. The array of one task keeps task_id in the
-- order, where an equality would drop it, so that no index but this one has that order: the planner may think that every run has the
-- task and the status, and that the primary key finds the newest at once. Not by comparing rows: before Postgres 18 such a search
-- ends at the last run of the task, whatever its status. Plain SQL, which disappears from plans.
CREATE FUNCTION routines.newest_ended(of_task bigint, of_status text, before_id bigint, most bigint) RETURNS SETOF bigint
LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT ended.id FROM unnest(ARRAY['completed', 'failed', 'cancelled', 'archived']) AS wanted (final_status)
    CROSS JOIN LATERAL (
        SELECT id FROM routines.trajectories
        WHERE task_id = ANY (ARRAY[of_task]) AND final_status = wanted.final_status
          AND id < coalesce(before_id, 9223372036854775807)
        ORDER BY task_id DESC, id DESC LIMIT most) AS ended
    WHERE coalesce(wanted.final_status = of_status, true)
    ORDER BY ended.id DESC LIMIT most;
$$;
COMMENT ON FUNCTION routines.newest_ended IS
    'The newest ended runs of a task, newest first: those with this final status, or all if that is null, and with an id below before_id, if given.';

-- Searches each index in the same way.
CREATE FUNCTION routines.oldest_version_in_use(of_collection bigint, of_task bigint) RETURNS integer LANGUAGE sql STABLE
RETURN (SELECT min(task_version) FROM (
    (SELECT task_version FROM routines.trajectories
     WHERE ended_at IS NULL AND collection_id = ANY (ARRAY[of_collection]) AND task_id = of_task
     ORDER BY collection_id, id LIMIT 1)
    UNION ALL
    (SELECT ended.task_version FROM unnest(ARRAY['completed', 'failed', 'cancelled', 'archived']) AS wanted (final_status)
     CROSS JOIN LATERAL (
         SELECT task_version FROM routines.trajectories
         WHERE task_id = ANY (ARRAY[of_task]) AND final_status = wanted.final_status
         ORDER BY task_id, id LIMIT 1) AS ended)
    UNION ALL
    (SELECT task_version FROM routines.trajectories
     WHERE trigger <> 'schedule' AND (retry_of IS NOT NULL OR rerun_of IS NOT NULL) AND task_id = ANY (ARRAY[of_task])
     ORDER BY task_id, task_version LIMIT 1)
) AS oldest);
COMMENT ON FUNCTION routines.oldest_version_in_use IS
    'The oldest version of a task that a run has, active or ended; null if it has no runs. Versions only grow, so it is that of an oldest run, or of a retry or rerun, which has the version of an earlier run.';

-------------------------------------------------------------------------------------------- running: claims and returns
-- No triggers.
--
-- Begun runs apart from the backlog: queries for expired leases, deadlines or running runs of a task must not read all
-- pending runs. An index on the status would cost every claim its HOT update; a row here is written once, at a run's first
-- claim, and deleted at its end. Triggers maintain it, so that it also follows a statement typed in psql.
CREATE TABLE routines.begun_runs (
    task_id       bigint NOT NULL,
    trajectory_id bigint NOT NULL,
    collection_id bigint NOT NULL,
    CONSTRAINT begun_runs_pkey PRIMARY KEY (task_id, trajectory_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.begun_runs IS
    'Runs that a worker has claimed at least once and that have not ended: running, or pending again. Maintained by triggers.';
COMMENT ON COLUMN routines.begun_runs.task_id IS 'The task.';
COMMENT ON COLUMN routines.begun_runs.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.begun_runs.collection_id IS 'The tenant.';
SELECT routines.protect('routines.begun_runs');

CREATE FUNCTION routines.note_started_run() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.begun_runs (task_id, trajectory_id, collection_id) VALUES (NEW.task_id, NEW.id, NEW.collection_id)
    ON CONFLICT DO NOTHING;
    IF NEW.init_params::text ~ '[0-9a-f]{32}-' THEN
        PERFORM routines.use_files(NEW.id, NEW.collection_id, ARRAY(SELECT routines.file_paths(NEW.init_params::text)));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_started_run IS 'Records a run that was inserted as running, and the files that its parameters name.';
CREATE TRIGGER note_started_run AFTER INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.status = 'running' AND NEW.place IS NULL) EXECUTE FUNCTION routines.note_started_run();

CREATE FUNCTION routines.leave_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.status = 'running' THEN
        INSERT INTO routines.begun_runs (task_id, trajectory_id, collection_id) VALUES (NEW.task_id, NEW.id, NEW.collection_id)
        ON CONFLICT DO NOTHING;
    END IF;
    -- The files that its parameters name: here and not at the INSERT, because a tick has nothing to do with files. Deleting
    -- files looks at active runs itself. The pattern is the beginning of a path, see file_paths.
    IF OLD.fence = 0 AND NEW.init_params::text ~ '[0-9a-f]{32}-' THEN
        PERFORM routines.use_files(NEW.id, NEW.collection_id, ARRAY(SELECT routines.file_paths(NEW.init_params::text)));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.leave_queue IS
    'Records a run that has begun and, the first time, the files that its parameters name.';
CREATE TRIGGER leave_queue AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.status = 'pending' AND NEW.status <> 'pending') EXECUTE FUNCTION routines.leave_queue();

CREATE FUNCTION routines.leave_worker() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM routines.limited_runs WHERE trajectory_id = OLD.id;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.leave_worker IS 'Stops counting a run towards limits once no worker has claimed it.';
CREATE TRIGGER leave_worker AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.status = 'running' AND NEW.status <> 'running') EXECUTE FUNCTION routines.leave_worker();

CREATE FUNCTION routines.forget_active_run() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM routines.begun_runs WHERE task_id = OLD.task_id AND trajectory_id = OLD.id;
    DELETE FROM routines.limited_runs WHERE trajectory_id = OLD.id;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_active_run IS 'Removes a deleted run from the tables of active runs.';
CREATE TRIGGER forget_active_run AFTER DELETE ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL) EXECUTE FUNCTION routines.forget_active_run();

---------------------------------------------------------------------------------------------------------- ending a run
CREATE FUNCTION routines.refuse_second_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'run % is %: a final status is final', OLD.id, OLD.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_final_is_final';
END $$;
COMMENT ON FUNCTION routines.refuse_second_end IS 'Keeps final statuses final. Only archiving may follow.';
CREATE TRIGGER refuse_second_end BEFORE UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NOT NULL AND NEW.status IS DISTINCT FROM OLD.status AND NEW.status <> 'archived')
    EXECUTE FUNCTION routines.refuse_second_end();

-- BEFORE, so that it can change the row, and so that steps are closed while the run still belongs to its worker.
CREATE FUNCTION routines.settle_end() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE routines.steps
    SET status = CASE NEW.status WHEN 'failed' THEN 'failed' ELSE 'cancelled' END, ended_at = now(), error = NEW.error
    WHERE trajectory_id = NEW.id AND status = 'running';
    IF NEW.status = 'failed' THEN
        NEW.is_transient := routines.is_transient_failure(NEW, OLD.crashes);
        IF NEW.trigger IN ('schedule', 'retry') THEN
            NEW.retried_by := routines.follow_failure(NEW);
        END IF;
    END IF;
    NEW.lease_expires_at := NULL;
    NEW.secret_refs := '{}';
    -- A run that is retried sends none: its receiver hears of the last attempt.
    IF NEW.webhook_url IS NOT NULL AND NEW.retried_by IS NULL THEN
        INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, routine_id, event_status, url, secret_id)
        VALUES (NEW.collection_id, NEW.id, NEW.triggered_by_routine_id, NEW.status, NEW.webhook_url, NEW.webhook_secret_id);
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.settle_end IS
    'However a run ends, in the same transaction no step of it stays running, its lease and secrets are gone, and its retry is inserted or else its webhook is queued.';
CREATE TRIGGER settle_end BEFORE UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION routines.settle_end();

CREATE FUNCTION routines.follow_end() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.status <> 'completed' THEN
        UPDATE routines.trajectories
        SET status = 'cancelled', fence = fence + 1, ended_at = now(), updated_at = now(), lease_expires_at = NULL,
            error = 'cancelled: run ' || NEW.id || ', which started it, is ' || NEW.status
        WHERE parent_id = NEW.id AND status IN ('pending', 'running');
    END IF;
    DELETE FROM routines.begun_runs WHERE task_id = OLD.task_id AND trajectory_id = OLD.id;
    -- If the fence is unchanged, Temporal itself ended the run and knows it. Otherwise the run was taken from Temporal, and
    -- the dispatch stays until Temporal has been told.
    IF OLD.engine = 'temporal' AND NEW.fence = OLD.fence THEN
        DELETE FROM routines.dispatches WHERE trajectory_id = NEW.id AND fence = NEW.fence;
    END IF;
    IF NEW.trigger IN ('schedule', 'retry', 'rerun') AND NEW.status IN ('completed', 'failed') AND NEW.retried_by IS NULL THEN
        PERFORM routines.note_end(NEW);
    END IF;
    IF OLD.secret_refs <> '{}' OR OLD.webhook_secret_id IS NOT NULL THEN
        PERFORM routines.forget_secrets(
            routines.secret_ids(OLD.secret_refs, OLD.webhook_secret_id), OLD.triggered_by_routine_id, OLD.id);
    END IF;
    IF OLD.place > 0 OR OLD.trigger <> 'schedule' AND OLD.triggered_by_routine_id IS NOT NULL THEN
        PERFORM routines.admit_waiting_run(OLD.triggered_by_routine_id);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.follow_end IS
    'Cancels the children of a run that did not complete, notes for alert rules how a slot ended, deletes what only the active run needed (its rows in begun_runs and dispatches, and its secrets), and admits the run that waits for its place.';
CREATE TRIGGER follow_end AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION routines.follow_end();

-- Reports nothing but the end of runs, for any collection, so that one poll serves all waiting requests of a process.
CREATE FUNCTION routines.ended_runs(run_ids bigint[]) RETURNS SETOF bigint
LANGUAGE sql STABLE ROWS 10 SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT id FROM routines.trajectories WHERE id = ANY (run_ids) AND ended_at IS NOT NULL;
$$;
COMMENT ON FUNCTION routines.ended_runs IS 'Those of these runs that have ended, in any collection.';
REVOKE EXECUTE ON FUNCTION routines.ended_runs FROM PUBLIC;

-------------------------------------------------------------------------------------- the last attempt at a slot
-- Step by step through the chain, which max_attempts bounds, since it ends with one rerun. An attempt that retention has deleted ends
-- it too.
CREATE FUNCTION routines.last_attempt(of_run bigint, retried_by bigint) RETURNS bigint LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    later bigint;
BEGIN
    WHILE retried_by IS NOT NULL LOOP
        SELECT trajectories.retried_by INTO later FROM routines.trajectories WHERE id = last_attempt.retried_by;
        EXIT WHEN NOT FOUND;
        of_run := retried_by;
        retried_by := later;
    END LOOP;
    RETURN of_run;
END $$;
COMMENT ON FUNCTION routines.last_attempt IS 'The last run of the chain of attempts that begins with this run; the run itself if there was no other.';

CREATE FUNCTION routines.status_of_attempt(of_run bigint) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT status FROM routines.trajectories WHERE id = of_run);
END $$;
COMMENT ON FUNCTION routines.status_of_attempt IS 'The status of a run.';

-- Plain SQL, so that nothing is called for a run that was not retried.
CREATE FUNCTION routines.status_of_slot(run_id bigint, status text, retried_by bigint) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN retried_by IS NULL THEN status
            ELSE routines.status_of_attempt(routines.last_attempt(run_id, retried_by)) END;
COMMENT ON FUNCTION routines.status_of_slot IS 'The status of the last attempt at the slot of this scheduled run.';

-- == sql/schema/05_steps.sql

-- Steps: the checkpoints of runs.

-- Triggers:
--   AFTER INSERT            note_files          if inputs or outputs name a file: adds to file_uses
--   AFTER UPDATE of either  note_changed_files  the same
CREATE TABLE routines.steps (
    trajectory_id  bigint NOT NULL CONSTRAINT steps_trajectory_id_fkey REFERENCES routines.trajectories (id) ON DELETE CASCADE,
    name           text NOT NULL,
    position       integer NOT NULL,
    fence          integer NOT NULL,
    attempt        integer NOT NULL DEFAULT 1 CONSTRAINT steps_attempt_is_positive CHECK (attempt > 0),
    status         text NOT NULL CONSTRAINT steps_status_is_known CHECK (status IN ('running', 'completed', 'failed', 'cancelled')),
    activity       text NOT NULL,
    inputs         routines.json_object NOT NULL,
    outputs        jsonb,
    has_file       boolean NOT NULL DEFAULT false
                   CONSTRAINT steps_has_file_with_a_path CHECK (NOT has_file OR coalesce(outputs ->> 'file_path', '') <> ''),
    error          text,
    answer         jsonb,
    is_transient   boolean,
    earlier_errors jsonb NOT NULL DEFAULT '[]'
                   CONSTRAINT steps_earlier_errors_is_array CHECK (jsonb_typeof(earlier_errors) = 'array'),
    created_at     timestamptz NOT NULL DEFAULT now(),
    ended_at       timestamptz,
    CONSTRAINT steps_pkey PRIMARY KEY (trajectory_id, name),
    CONSTRAINT steps_end_fits_status CHECK ((ended_at IS NULL) = (status = 'running'))
) WITH (
    -- A step is inserted as running and updated once, in no indexed column. With this room on its page 70 % of these updates
    -- were HOT (20,000 runs of two steps), against 33 % at fillfactor 70 and none at 100.
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02
);
COMMENT ON TABLE  routines.steps IS 'The checkpoints of a run. A resumed run does not repeat steps that are completed here.';
COMMENT ON COLUMN routines.steps.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.steps.name IS 'The step''s name in the workflow.';
COMMENT ON COLUMN routines.steps.position IS 'Its place in workflow.steps, from 0.';
COMMENT ON COLUMN routines.steps.fence IS 'The fence of the run when this was written.';
COMMENT ON COLUMN routines.steps.attempt IS 'Which attempt of the step this is, from 1.';
COMMENT ON COLUMN routines.steps.status IS 'running, completed, failed or cancelled.';
COMMENT ON COLUMN routines.steps.activity IS 'The activity that it calls.';
COMMENT ON COLUMN routines.steps.inputs IS 'Its parameters, with references resolved.';
COMMENT ON COLUMN routines.steps.outputs IS 'The result of the activity; null if there is none yet.';
COMMENT ON COLUMN routines.steps.has_file IS
    'Whether the outputs were too large for the record: outputs is then {file_path, bytes}, and that file holds them as JSON. Set by the engine alone, so that no activity can return a value that is taken for such a reference.';
COMMENT ON COLUMN routines.steps.error IS 'Why it failed; null if it did not.';
COMMENT ON COLUMN routines.steps.answer IS
    'The HTTP response that made it fail: {status, headers, body, truncated}, with at most 4 KiB of its body and no secrets; null if there was none.';
COMMENT ON COLUMN routines.steps.is_transient IS
    'Of a step that failed by an error of its own: true if the cause may go away by itself, see trajectories.is_transient; null otherwise.';
COMMENT ON COLUMN routines.steps.earlier_errors IS
    'Why earlier attempts failed: an array of {started_at, at, error, answer}. The newest five keep the answer, if there was one.';
COMMENT ON COLUMN routines.steps.created_at IS 'When it started.';
COMMENT ON COLUMN routines.steps.ended_at IS 'When it ended; null while it is running.';
SELECT routines.protect('routines.steps',
                        'EXISTS (SELECT FROM routines.trajectories WHERE trajectories.id = steps.trajectory_id)');

-- Plain SQL, which disappears from plans. Each kept step is one search by key.
CREATE FUNCTION routines.steps_of(of_run bigint, kept_steps jsonb) RETURNS SETOF routines.steps LANGUAGE sql STABLE ROWS 10 AS $$
    SELECT * FROM routines.steps WHERE trajectory_id = of_run
    UNION ALL
    SELECT found.* FROM jsonb_each_text(kept_steps) AS kept (step, run)
    CROSS JOIN LATERAL (
        SELECT * FROM routines.steps WHERE trajectory_id = kept.run::bigint AND name = kept.step LIMIT 1) AS found;
$$;
COMMENT ON FUNCTION routines.steps_of IS
    'The steps of a run, with those that it keeps of other runs, as far as these still exist.';

-- Checking the pattern costs a few microseconds a step, so each text is checked once.
CREATE FUNCTION routines.note_files_of_step() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    named text := current_setting('routines.collection_id', true);
    of_collection bigint;
BEGIN
    PERFORM set_config('routines.collection_id', '', true);
    SELECT collection_id INTO of_collection FROM routines.trajectories WHERE id = NEW.trajectory_id;
    PERFORM routines.use_files(NEW.trajectory_id, of_collection,
                               ARRAY(SELECT routines.file_paths(concat_ws(' ', NEW.inputs, NEW.outputs))));
    PERFORM set_config('routines.collection_id', named, true);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_files_of_step IS 'Records the files that a step''s inputs and outputs name.';
CREATE TRIGGER note_files AFTER INSERT ON routines.steps
    FOR EACH ROW WHEN (NEW.inputs::text ~ '[0-9a-f]{32}-' OR NEW.outputs::text ~ '[0-9a-f]{32}-')
    EXECUTE FUNCTION routines.note_files_of_step();
CREATE TRIGGER note_changed_files AFTER UPDATE OF inputs, outputs ON routines.steps
    FOR EACH ROW WHEN (OLD.outputs IS DISTINCT FROM NEW.outputs AND NEW.outputs::text ~ '[0-9a-f]{32}-'
                       OR OLD.inputs IS DISTINCT FROM NEW.inputs AND NEW.inputs::text ~ '[0-9a-f]{32}-')
    EXECUTE FUNCTION routines.note_files_of_step();

-- == sql/schema/06_ledger.sql

-- The ledger: every slot has exactly one outcome, a trajectory or a skip.

-- Triggers:
--   AFTER INSERT, per statement  note_skips  slots missed, that could not start, or skipped late: notes them for alert rules (chapter
--                                            08_alerts)
-- No foreign keys: history outlives the routine.
CREATE TABLE routines.skips (
    id                     bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT skips_pkey PRIMARY KEY,
    collection_id          bigint NOT NULL,
    routine_id             bigint NOT NULL,
    scheduled_for          timestamptz NOT NULL,
    last_scheduled_for     timestamptz NOT NULL,
    due_at                 timestamptz,
    slot_count             bigint NOT NULL DEFAULT 1 CONSTRAINT skips_slot_count_is_positive CHECK (slot_count > 0),
    cadence                routines.cadence,
    reason                 text NOT NULL CONSTRAINT skips_reason_is_known
                           CHECK (reason IN ('overlap', 'coalesced', 'missed', 'paused', 'failed_to_start', 'calendar', 'outside_hours', 'backoff')),
    blocking_trajectory_id bigint,
    detail                 text,
    recorded_at            timestamptz NOT NULL DEFAULT now(),
    filled_by              bigint,
    CONSTRAINT skips_slot_key UNIQUE (routine_id, scheduled_for),
    CONSTRAINT skips_span_is_ordered CHECK (last_scheduled_for >= scheduled_for),
    CONSTRAINT skips_span_names_cadence CHECK (slot_count = 1 OR (cadence).type IS NOT NULL),
    CONSTRAINT skips_overlap_names_run CHECK (reason = 'overlap' OR blocking_trajectory_id IS NULL)
);
-- For span_across. Few skips are spans, so it is small.
CREATE INDEX skips_span_idx ON routines.skips (routine_id, scheduled_for) WHERE last_scheduled_for > scheduled_for;
COMMENT ON TABLE  routines.skips IS 'A slot, or a span of slots, that did not start a run, and why. Spans of a routine do not overlap.';
COMMENT ON COLUMN routines.skips.id IS 'Database id.';
COMMENT ON COLUMN routines.skips.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.skips.routine_id IS 'The routine, which may have been deleted.';
COMMENT ON COLUMN routines.skips.scheduled_for IS 'The slot, or the first slot of a span.';
COMMENT ON COLUMN routines.skips.last_scheduled_for IS 'The same slot, or the last slot of a span.';
COMMENT ON COLUMN routines.skips.due_at IS
    'When last_scheduled_for was due, if the routine had a spread; null if it was due at that time.';
COMMENT ON COLUMN routines.skips.slot_count IS 'The number of slots that this row accounts for.';
COMMENT ON COLUMN routines.skips.cadence IS 'The cadence that the slots of a span follow; null for a single slot.';
COMMENT ON COLUMN routines.skips.reason IS
    'overlap: a run was active. coalesced: its run waited for another, and a later slot took it over. missed: no ticker ran, or it came after the catch-up window, or the detail says why. paused: during a pause. failed_to_start: the fire raised an error. calendar: a calendar excludes the day. outside_hours: outside the active hours. backoff: the slots before it failed, see after_failures of routines.';
COMMENT ON COLUMN routines.skips.blocking_trajectory_id IS 'For overlap: the run that was active.';
COMMENT ON COLUMN routines.skips.detail IS
    'The cause, for failed_to_start and paused, and for coalesced the later slot, and for slots missed because of a person''s change. For calendar the label of the day, for outside_hours the local time; and where the slot has moved to.';
COMMENT ON COLUMN routines.skips.recorded_at IS 'When the tick decided.';
COMMENT ON COLUMN routines.skips.filled_by IS
    'The run by which a backfill has filled the slot since; for a span the last one. Null for none. The runs of all slots have fills_slot.';
SELECT routines.protect('routines.skips');

-- No triggers. No foreign keys: history outlives the routine.
CREATE TABLE routines.slot_moves (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT slot_moves_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    routine_id    bigint NOT NULL,
    moved_from    timestamptz NOT NULL,
    moved_to      timestamptz NOT NULL,
    timezone      text NOT NULL,
    moved_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT slot_moves_slot_key UNIQUE (routine_id, moved_from, moved_at)
);
COMMENT ON TABLE  routines.slot_moves IS
    'The next slots that `routines recompute` has moved, because the server has newer time zone data than when they were computed.';
COMMENT ON COLUMN routines.slot_moves.id IS 'Database id.';
COMMENT ON COLUMN routines.slot_moves.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.slot_moves.routine_id IS 'The routine, which may have been deleted.';
COMMENT ON COLUMN routines.slot_moves.moved_from IS 'The slot that was expected.';
COMMENT ON COLUMN routines.slot_moves.moved_to IS 'The slot in its place.';
COMMENT ON COLUMN routines.slot_moves.timezone IS 'The time zone whose rules have changed.';
COMMENT ON COLUMN routines.slot_moves.moved_at IS 'When it was moved.';
SELECT routines.protect('routines.slot_moves');

-- No triggers.
CREATE TABLE routines.retention (
    what          text CONSTRAINT retention_pkey PRIMARY KEY
                  CONSTRAINT retention_what_is_known CHECK (what IN ('trajectories', 'skips')),
    deleted_until timestamptz NOT NULL
);
COMMENT ON TABLE  routines.retention IS 'Up to which slot the ledger may have gaps, because retention has deleted old rows.';
COMMENT ON COLUMN routines.retention.what IS 'trajectories or skips.';
COMMENT ON COLUMN routines.retention.deleted_until IS
    'The newest slot that was deleted. Outcomes up to this slot may be missing; every later outcome is present.';

-- No triggers. Rows are written by a ticker that starts or was held up, never by a tick.
CREATE TABLE routines.ticker_outages (
    id       bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT ticker_outages_pkey PRIMARY KEY,
    began_at timestamptz NOT NULL CONSTRAINT ticker_outages_began_at_key UNIQUE,
    ended_at timestamptz NOT NULL,
    CONSTRAINT ticker_outages_is_ordered CHECK (ended_at > began_at)
);
COMMENT ON TABLE  routines.ticker_outages IS
    'Times in which routines were due and no ticker ran. The newest 10,000 are kept. Of no tenant: began_at may be the slot of any routine.';
COMMENT ON COLUMN routines.ticker_outages.id IS 'Database id.';
COMMENT ON COLUMN routines.ticker_outages.began_at IS
    'Since when the oldest slot was due, or the time of the last outcome that a ticker recorded, if that is later. The tickers may have stopped earlier.';
COMMENT ON COLUMN routines.ticker_outages.ended_at IS 'When a ticker was back, before its first tick.';

-- A view runs with the rights of its reader (security_invoker), not of its owner, so that policies apply.
CREATE VIEW routines.occurrences WITH (security_invoker = true) AS
    SELECT triggered_by_routine_id AS routine_id, collection_id, scheduled_for, scheduled_for AS last_scheduled_for,
           1::bigint AS slot_count, 'started' AS outcome, NULL::text AS reason, id AS trajectory_id,
           NULL::bigint AS blocking_trajectory_id, NULL::text AS detail, created_at AS recorded_at,
           created_at - coalesce(due_at, scheduled_for) AS delay, due_at,
           CASE WHEN retried_by IS NOT NULL THEN routines.last_attempt(id, retried_by) END AS last_trajectory_id, NULL::bigint AS filled_by
    FROM routines.trajectories WHERE scheduled_for IS NOT NULL
    UNION ALL
    SELECT routine_id, collection_id, scheduled_for, last_scheduled_for, slot_count, 'skipped', reason, NULL,
           blocking_trajectory_id, detail, recorded_at, greatest(recorded_at - coalesce(due_at, last_scheduled_for), '0'), due_at,
           NULL, filled_by
    FROM routines.skips;
COMMENT ON VIEW routines.occurrences IS
    'The ledger: the outcome of each slot. SELECT * FROM routines.occurrences WHERE routine_id = 1 ORDER BY scheduled_for DESC;';
COMMENT ON COLUMN routines.occurrences.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.occurrences.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.occurrences.scheduled_for IS 'The slot, or the first slot of a span.';
COMMENT ON COLUMN routines.occurrences.last_scheduled_for IS 'The same slot, or the last slot of a span.';
COMMENT ON COLUMN routines.occurrences.slot_count IS 'The number of slots that the row accounts for.';
COMMENT ON COLUMN routines.occurrences.outcome IS 'started or skipped.';
COMMENT ON COLUMN routines.occurrences.reason IS 'Why it was skipped; null if it started a run.';
COMMENT ON COLUMN routines.occurrences.trajectory_id IS 'The run that it started; null if skipped.';
COMMENT ON COLUMN routines.occurrences.blocking_trajectory_id IS 'For overlap: the run that was active.';
COMMENT ON COLUMN routines.occurrences.detail IS 'The cause of the skip, where the reason alone does not say it.';
COMMENT ON COLUMN routines.occurrences.recorded_at IS 'When the tick decided.';
COMMENT ON COLUMN routines.occurrences.delay IS 'From the time at which the slot was due to the decision; 0 if a change came before it was due.';
COMMENT ON COLUMN routines.occurrences.due_at IS
    'When the last slot was due, if the routine had a spread; null if it was due at that time.';
COMMENT ON COLUMN routines.occurrences.last_trajectory_id IS
    'The last attempt at the slot, a retry or a rerun, whose status is its outcome; null if the first was the last.';
COMMENT ON COLUMN routines.occurrences.filled_by IS 'Of a skip: the run by which a backfill has filled it since, for a span the last one; null for none.';

-- == sql/schema/06_overlap.sql

-- Overlap policies: what becomes of a slot that comes while a run of its routine is active. Under skip it is an overlap, which the
-- tick decides without this chapter. Under the other policies a scheduled run has a place: 1 to max_concurrent while it may run, or
-- 0 while it waits for one. trajectories_active_place_key keeps two runs out of one place, so at most one waits.
--   queue_one     a slot that comes while a run is active gets a run that waits until none is. If one waits already, the slot takes
--                 it over, and the slot that it had is recorded as coalesced
--   cancel_other  the same, and the workers stop the active runs. Those that they have not stopped after cancel_grace are fenced off
--   allow         up to max_concurrent runs are active at once. A slot beyond is an overlap
-- It makes no difference how the active runs were started. A waiting run is running, without a worker and with a lease that does not
-- expire, as a run that waits for its children; it has not begun, so nothing but admit_waiting_run looks for it.

CREATE TYPE routines.room AS (place smallint, waiting bigint, blocked_by bigint);
COMMENT ON TYPE routines.room IS
    'What a routine has room for: a run in this place; or the run `waiting`, which a slot may take over; or none, because `blocked_by` is active.';
COMMENT ON COLUMN routines.room.place IS 'The place of a new run; 0 to wait.';
COMMENT ON COLUMN routines.room.waiting IS 'The run that waits, locked until the transaction ends.';
COMMENT ON COLUMN routines.room.blocked_by IS 'The run in the way.';

CREATE FUNCTION routines.active_runs_of(of_routine bigint) RETURNS TABLE (trajectory_id bigint, place smallint)
LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
BEGIN
    RETURN QUERY
    SELECT id, trajectories.place FROM routines.trajectories
    WHERE trigger = 'schedule' AND trajectories.place IS NULL AND final_status IS NULL AND triggered_by_routine_id = of_routine
    UNION ALL
    SELECT id, trajectories.place FROM routines.trajectories
    WHERE (trigger <> 'schedule' OR trajectories.place IS NOT NULL) AND final_status IS NULL AND triggered_by_routine_id = of_routine;
END $$;
COMMENT ON FUNCTION routines.active_runs_of IS 'The active runs of a routine, with the place that each has. VOLATILE, so that it takes its own snapshot.';

-- With the routine locked. It waits for no run: one that is locked is about to end, and its slot keeps it.
CREATE FUNCTION routines.find_room(of_routine bigint, overlap_policy text, max_concurrent smallint) RETURNS routines.room
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    active  bigint[];
    places  smallint[];
    waiting bigint;
    found   routines.room;
BEGIN
    SELECT array_agg(trajectory_id ORDER BY trajectory_id), array_agg(place) FILTER (WHERE place IS NOT NULL),
           min(trajectory_id) FILTER (WHERE place = 0)
    INTO active, places, waiting FROM routines.active_runs_of(of_routine);
    CASE
        WHEN overlap_policy = 'allow' AND cardinality(active) >= max_concurrent THEN
            found.blocked_by := active[1];
        WHEN overlap_policy = 'allow' THEN
            found.place := (SELECT min(free) FROM generate_series(1, max_concurrent) AS free WHERE free <> ALL (coalesce(places, '{}')));
        WHEN active IS NULL THEN
            found.place := 1;
        WHEN waiting IS NULL THEN
            found.place := 0;
        ELSE
            found.waiting := (SELECT id FROM routines.trajectories WHERE id = waiting AND place = 0 FOR UPDATE SKIP LOCKED);
            found.blocked_by := CASE WHEN found.waiting IS NULL THEN waiting END;
    END CASE;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.find_room IS 'What a routine with this policy, other than skip, has room for now. The caller has locked the routine.';

-- So that an INSERT typed in psql keeps to the policy too.
CREATE FUNCTION routines.check_place() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    most integer := (SELECT CASE overlap_policy WHEN 'allow' THEN max_concurrent WHEN 'skip' THEN NULL ELSE 1 END
                     FROM routines.routines WHERE id = NEW.triggered_by_routine_id);
BEGIN
    IF NEW.trigger <> 'schedule' OR most IS NULL OR NEW.place NOT BETWEEN 0 AND most THEN
        RAISE EXCEPTION 'routine % has no place % for this run', NEW.triggered_by_routine_id, NEW.place
            USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_place_fits_policy';
    ELSIF NEW.place = 0 THEN
        NEW.status := 'running';
        NEW.lease_expires_at := 'infinity';
    ELSIF (SELECT count(*) FROM routines.active_runs_of(NEW.triggered_by_routine_id)) >= most THEN
        RAISE EXCEPTION 'routine % has as many active runs as it may have, %', NEW.triggered_by_routine_id, most
            USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_schedule_does_not_overlap';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.check_place IS 'Rejects a scheduled run in a place that its routine does not have, and lets one in place 0 wait.';
CREATE TRIGGER check_place BEFORE INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.place IS NOT NULL) EXECUTE FUNCTION routines.check_place();

--------------------------------------------------------------------------------------------------------- coalescing
-- The run keeps its id, since clients may know it, and is otherwise as if the later slot had created it.
CREATE FUNCTION routines.take_over_waiting_run(
    waiting bigint, slot timestamptz, due_at timestamptz, task_version integer, init_params jsonb, slot_values jsonb, secret_refs jsonb,
    webhook_url text, webhook_secret_id uuid, timeout_seconds integer, at timestamptz
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old routines.trajectories := (SELECT trajectories FROM routines.trajectories WHERE id = waiting);
BEGIN
    INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, due_at, reason, detail, recorded_at)
    VALUES (old.collection_id, old.triggered_by_routine_id, old.scheduled_for, old.scheduled_for, old.due_at, 'coalesced',
            format('run %s, which waited, is now for the slot of %s', waiting, routines.utc(slot)), at);
    UPDATE routines.trajectories
    SET scheduled_for = slot, due_at = take_over_waiting_run.due_at, created_at = at, updated_at = at,
        task_version = take_over_waiting_run.task_version, init_params = take_over_waiting_run.init_params,
        slot_values = take_over_waiting_run.slot_values, secret_refs = take_over_waiting_run.secret_refs,
        webhook_url = take_over_waiting_run.webhook_url, webhook_secret_id = take_over_waiting_run.webhook_secret_id,
        timeout_seconds = take_over_waiting_run.timeout_seconds, taken_over_as = nextval('routines.trajectories_id_seq')
    WHERE id = waiting;
    IF (old.secret_refs, old.webhook_secret_id) IS DISTINCT FROM (secret_refs, webhook_secret_id) THEN
        PERFORM routines.forget_secrets(
            routines.secret_ids(old.secret_refs, old.webhook_secret_id), old.triggered_by_routine_id, NULL);
    END IF;
    RETURN waiting;
END $$;
COMMENT ON FUNCTION routines.take_over_waiting_run IS
    'Lets a waiting run, which find_room has locked, stand for a later slot, and records the slot that it had as coalesced.';

----------------------------------------------------------------------------------------------------------- admission
CREATE FUNCTION routines.cancel_grace() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN interval '30 s';
COMMENT ON FUNCTION routines.cancel_grace IS
    'How long the policy cancel_other leaves a worker to stop a run, before the run is fenced off.';

-- It is called where a run ends, which holds locks already, so it waits for none: a routine that is locked is left to the next call,
-- by a worker within about a second (admit in queries/runs.sql).
CREATE FUNCTION routines.admit_waiting_run(of_routine bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    waiting bigint := (SELECT id FROM routines.trajectories
                       WHERE triggered_by_routine_id = of_routine AND place < 1 AND final_status IS NULL);
    places  smallint[];
    most    integer;
BEGIN
    IF waiting IS NULL THEN
        RETURN false;
    END IF;
    SELECT coalesce(max_concurrent, 1) INTO most FROM routines.routines WHERE id = of_routine FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR (SELECT count(*) FROM routines.active_runs_of(of_routine) WHERE place IS DISTINCT FROM 0) >= most THEN
        RETURN false;
    END IF;
    places := ARRAY(SELECT active.place FROM routines.active_runs_of(of_routine) AS active WHERE active.place IS NOT NULL);
    UPDATE routines.trajectories
    SET status = 'pending', lease_expires_at = NULL, updated_at = now(),
        place = (SELECT min(free) FROM generate_series(1, most) AS free WHERE free <> ALL (places))
    WHERE id = waiting AND place = 0 AND status IN ('pending', 'running');
    IF FOUND THEN
        PERFORM routines.wake_idle_workers();
    END IF;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION routines.admit_waiting_run IS
    'Puts the run of a routine that waits for a place into the queue, if as few other runs are active as it may run beside. Returns whether it did.';
REVOKE EXECUTE ON FUNCTION routines.find_room, routines.take_over_waiting_run, routines.admit_waiting_run FROM PUBLIC;

-- == sql/schema/06_reruns.sql

-- Reruns: a run that has ended runs again, whole or from a step, because a person asks for it. The steps before that one are not
-- executed again. They stay where they are, and kept_steps says which run executed each. A rerun has the version of the workflow and
-- the parameters of the run that it repeats, apart from those that are changed. Its secrets are today's.
--
-- A rerun of a run of a routine is its newest attempt, and so the outcome of its slot. The chain of attempts is the first run, its
-- retries, and the newest rerun alone, so that it does not grow with each rerun.

CREATE FUNCTION routines.steps_before(workflow json, from_step text, kept_steps jsonb, of_run bigint)
RETURNS TABLE (name text, kept_from bigint, is_finished boolean) LANGUAGE sql STABLE ROWS 10 AS $$
    SELECT step.name, origin.run, EXISTS (SELECT FROM routines.steps WHERE trajectory_id = origin.run AND steps.name = step.name
                                          AND status = 'completed')
    FROM json_array_elements_text(workflow -> 'steps') WITH ORDINALITY AS step (name, position)
    CROSS JOIN LATERAL (SELECT coalesce((kept_steps ->> step.name)::bigint, of_run) AS run) AS origin
    WHERE position < (SELECT min(found.position) FROM json_array_elements_text(workflow -> 'steps') WITH ORDINALITY AS found (name, position)
                      WHERE found.name = from_step)
    ORDER BY position;
$$;
COMMENT ON FUNCTION routines.steps_before IS
    'The steps of a run before this one, each with the run that executed it, and whether that run has it as completed; no rows if the workflow has no such step.';

CREATE FUNCTION routines.refuse_rerun(cause text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', cause || ': cancel it first, or wait for its end'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_rerun_of_ended';
END $$;
COMMENT ON FUNCTION routines.refuse_rerun IS 'Raises the error of a run that cannot be rerun now.';

-- The chain has one end, which the lock on the first run keeps: of two reruns at once the second finds the first one active. It waits
-- for no run that may be about to end, since that may wait for the routine.
CREATE FUNCTION routines.link_rerun() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    original    record;
    last_retry  bigint;
    newest      bigint;
    attempt     record;
BEGIN
    SELECT retry_of, task_id, triggered_by_routine_id, ended_at INTO original FROM routines.trajectories
    WHERE id = NEW.rerun_of FOR KEY SHARE;
    IF (original.task_id, original.triggered_by_routine_id) IS DISTINCT FROM (NEW.task_id, NEW.triggered_by_routine_id) THEN
        RAISE EXCEPTION 'there is no run % of this task and routine', NEW.rerun_of
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'trajectories_rerun_of_exists';
    ELSIF original.ended_at IS NULL THEN
        PERFORM routines.refuse_rerun(format('run %s is active', NEW.rerun_of));
    END IF;
    SELECT id INTO last_retry FROM routines.trajectories
    WHERE id = coalesce(original.retry_of, NEW.rerun_of) AND triggered_by_routine_id IS NOT NULL
    FOR NO KEY UPDATE;
    NEW.retry_of := last_retry;
    newest := last_retry;
    WHILE newest IS NOT NULL LOOP
        SELECT rerun_of, retried_by, ended_at INTO attempt FROM routines.trajectories WHERE id = newest;
        IF attempt.ended_at IS NULL THEN
            PERFORM routines.refuse_rerun(format('run %s, a later attempt, is active', newest));
        ELSIF attempt.rerun_of IS NULL THEN
            last_retry := newest;
        END IF;
        EXIT WHEN NOT EXISTS (SELECT FROM routines.trajectories WHERE id = attempt.retried_by);
        newest := attempt.retried_by;
    END LOOP;
    UPDATE routines.trajectories SET retried_by = NEW.id WHERE id IN (last_retry, newest);
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.link_rerun IS
    'Makes a rerun the newest attempt of a run of a routine. Rejects it while the run that it repeats, or a later attempt, is active.';

CREATE TRIGGER link_rerun BEFORE INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.rerun_of IS NOT NULL) EXECUTE FUNCTION routines.link_rerun();

-- VOLATILE, so that it takes a snapshot of its own: retention asks once it has locked the run, which a rerun locks before it keeps a
-- step of it.
CREATE FUNCTION routines.is_kept(run bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM routines.trajectories
                   WHERE kept_steps IS NOT NULL AND final_status IS NULL
                     AND EXISTS (SELECT FROM jsonb_each_text(kept_steps) AS kept WHERE kept.value::bigint = run));
END $$;
COMMENT ON FUNCTION routines.is_kept IS 'Whether an active rerun keeps steps of this run.';

-- == sql/schema/06_retries.sql

-- Retries of scheduled runs, and routines that stop after failures. A retry is a run of its own, inserted in the transaction that
-- ends the failed one, so no tick sees its routine without an active run in between. Until its time it waits as a run does that
-- waits for the next attempt of a step: running, without a worker, and with its time as the end of its lease (suspend and reap in
-- queries/runs.sql).

----------------------------------------------------------------------------------------------------- when to try again
CREATE FUNCTION routines.retry_delay(retry jsonb, retry_number integer) RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN make_interval(secs => CASE jsonb_typeof(retry -> 'backoff')
    WHEN 'array' THEN (retry -> 'backoff' ->> least(retry_number, jsonb_array_length(retry -> 'backoff')) - 1)::float8
    ELSE least(coalesce((retry -> 'backoff' ->> 'initial')::float8, 60)
                   * power(coalesce((retry -> 'backoff' ->> 'multiplier')::float8, 2), retry_number - 1),
               coalesce((retry -> 'backoff' ->> 'max')::float8, 3600)) END);
COMMENT ON FUNCTION routines.retry_delay IS
    'How long after the failure the retry of this number begins, by the backoff of a routine''s retry; without one after 1 minute, then 2, 4 and so on, up to an hour.';

CREATE FUNCTION routines.http_date(header text) RETURNS timestamptz LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN substring(header FROM '^[A-Z][a-z]{2}, ([0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT)$')::timestamptz;
EXCEPTION
    WHEN datetime_field_overflow OR invalid_datetime_format THEN
        RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.http_date IS 'A time as HTTP headers write it: Sun, 06 Nov 1994 08:49:37 GMT; null for any other text.';

CREATE FUNCTION routines.reset_time(reset text, answered_at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN reset ~ '^[0-9]{1,13}(\.[0-9]{1,9})?$' THEN CASE
    WHEN reset::float8 >= 1e12 THEN to_timestamp(reset::float8 / 1000)
    WHEN reset::float8 >= 1e9 THEN to_timestamp(reset::float8)
    ELSE answered_at + make_interval(secs => reset::float8) END END;
COMMENT ON FUNCTION routines.reset_time IS
    'The time at which a rate limit is reset, from a header that has it as seconds from then on, or in seconds or milliseconds since 1970; null for any other text.';

-- A date is compared with the Date of the same response, because the clock of the provider may differ from ours.
CREATE FUNCTION routines.answered_until(answer jsonb, answered_at timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    headers     jsonb := answer -> 'headers';
    retry_after text := trim(headers ->> 'retry-after');
    reset       text := coalesce(headers ->> 'ratelimit-reset', headers ->> 'x-ratelimit-reset',
                                 substring(headers ->> 'ratelimit' FROM '(?:^|[;, ])(?:t|reset)=([0-9]+)'));
BEGIN
    IF retry_after ~ '^[0-9]{1,9}$' THEN
        RETURN answered_at + make_interval(secs => retry_after::float8);
    ELSIF routines.http_date(retry_after) IS NOT NULL THEN
        RETURN answered_at + (routines.http_date(retry_after) - coalesce(routines.http_date(headers ->> 'date'), answered_at));
    -- Providers send the state of a rate limit with every response. It matters once the limit is reached.
    ELSIF answer ->> 'status' = '429'
          OR '0' IN (headers ->> 'ratelimit-remaining', headers ->> 'x-ratelimit-remaining') THEN
        RETURN routines.reset_time(trim(reset), answered_at);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.answered_until IS
    'The time before which the provider of this response wants no other request: by Retry-After, or by the reset of its rate limit if that is reached; null if it names none.';

------------------------------------------------------------------------------------------------------------- settings
CREATE FUNCTION routines.refuse_retry(field text, rule text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = 'retry' || field || ': ' || rule, ERRCODE = 'check_violation',
        CONSTRAINT = 'routines_retry_is_valid';
END $$;
COMMENT ON FUNCTION routines.refuse_retry IS 'Raises the error of a retry that is not valid.';

CREATE FUNCTION routines.is_number(value jsonb, at_least float8, at_most float8, whole boolean DEFAULT false) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(value) WHEN 'number' THEN (value #>> '{}')::numeric BETWEEN at_least::numeric AND at_most::numeric
    AND (NOT whole OR (value #>> '{}')::numeric % 1 = 0) ELSE false END;
COMMENT ON FUNCTION routines.is_number IS 'Whether a value is a number of this range, and a whole one if asked.';

CREATE FUNCTION routines.check_backoff(backoff jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    CASE jsonb_typeof(backoff)
        WHEN 'array' THEN
            IF jsonb_array_length(backoff) NOT BETWEEN 1 AND 20
               OR EXISTS (SELECT FROM jsonb_array_elements(backoff) WHERE NOT routines.is_number(value, 0, 86400)) THEN
                PERFORM routines.refuse_retry('.backoff', 'must be 1 to 20 delays of 0 to 86400 seconds');
            END IF;
        WHEN 'object' THEN
            IF backoff - '{initial,multiplier,max}'::text[] <> '{}' THEN
                PERFORM routines.refuse_retry('.backoff', 'takes initial, multiplier and max');
            ELSIF NOT (routines.is_number(coalesce(backoff -> 'initial', '60'), 0, 86400)
                       AND routines.is_number(coalesce(backoff -> 'max', '3600'), 0, 86400)) THEN
                PERFORM routines.refuse_retry('.backoff', 'initial and max must be 0 to 86400 seconds');
            ELSIF NOT routines.is_number(coalesce(backoff -> 'multiplier', '2'), 1, 10) THEN
                PERFORM routines.refuse_retry('.backoff', 'multiplier must be 1 to 10');
            END IF;
        ELSE
            PERFORM routines.refuse_retry('.backoff', 'must be an array of seconds, or an object');
    END CASE;
END $$;
COMMENT ON FUNCTION routines.check_backoff IS 'Raises an error if the backoff of a retry is not valid.';

CREATE FUNCTION routines.check_retry(retry jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(retry) <> 'object' OR retry - '{max_attempts,backoff,on,until}'::text[] <> '{}' THEN
        PERFORM routines.refuse_retry('', 'must be an object of max_attempts, backoff, on and until');
    ELSIF NOT routines.is_number(coalesce(retry -> 'max_attempts', 'null'), 2, 20, true) THEN
        PERFORM routines.refuse_retry('.max_attempts', 'must be 2 to 20, the first attempt included');
    ELSIF coalesce(retry -> 'on', '"any"') NOT IN ('"any"', '"transient"') THEN
        PERFORM routines.refuse_retry('.on', 'must be any or transient');
    ELSIF NOT (coalesce(retry -> 'until', '"next_slot"') = '"next_slot"' OR routines.is_number(retry -> 'until', 1, 604800, true)) THEN
        PERFORM routines.refuse_retry('.until', 'must be next_slot, or 1 to 604800 seconds');
    END IF;
    IF retry ? 'backoff' THEN
        PERFORM routines.check_backoff(retry -> 'backoff');
    END IF;
END $$;
COMMENT ON FUNCTION routines.check_retry IS 'Raises an error if a routine''s retry is not valid.';

--------------------------------------------------------------------------------------------------------------- retrying
CREATE FUNCTION routines.is_transient_failure(run routines.trajectories, crashes_before smallint) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT is_transient FROM routines.steps WHERE trajectory_id = run.id AND status = 'failed' ORDER BY position DESC LIMIT 1),
        -- Its workers were lost, or its deadline has passed. A worker may find that a moment before the database does.
        run.crashes > crashes_before OR run.deadline_at <= now() + interval '1 s', false);
$$;
COMMENT ON FUNCTION routines.is_transient_failure IS
    'Whether a run that fails now does so for a cause that may go away by itself, by the class of the step that failed; also if its workers were lost or its deadline has passed.';

-- The lock makes a pause or a deletion of the routine come before, and then there is no retry, or wait until this is committed and
-- then cancel the retry. Nothing that holds the routine waits for a run that a worker is ending.
CREATE FUNCTION routines.retry_run(run routines.trajectories) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    number   integer := coalesce(run.retry_number, 0) + 1;
    routine  record;
    first    record;
    retry_at timestamptz;
    made     bigint;
BEGIN
    SELECT retry, next_run_at, overlap_policy INTO routine FROM routines.routines
    WHERE id = run.triggered_by_routine_id AND retry IS NOT NULL AND NOT (paused AND coalesce(paused_until > now(), true))
    FOR SHARE;
    IF NOT FOUND OR number >= (routine.retry ->> 'max_attempts')::numeric
       OR routine.retry ->> 'on' = 'transient' AND NOT run.is_transient THEN
        RETURN NULL;
    END IF;
    -- The next slot has come: its run waits for this one.
    IF (jsonb_typeof(routine.retry -> 'until') IS DISTINCT FROM 'number' OR routine.overlap_policy = 'cancel_other')
       AND EXISTS (SELECT FROM routines.trajectories
                   WHERE triggered_by_routine_id = run.triggered_by_routine_id AND place < 1 AND final_status IS NULL) THEN
        RETURN NULL;
    END IF;
    SELECT id, created_at, scheduled_for INTO first FROM routines.trajectories WHERE id = coalesce(run.retry_of, run.id);
    retry_at := greatest(now() + routines.retry_delay(routine.retry, number), (
        SELECT routines.answered_until(answer, ended_at) FROM routines.steps
        WHERE trajectory_id = run.id AND status = 'failed' ORDER BY position DESC LIMIT 1));
    IF (CASE jsonb_typeof(routine.retry -> 'until')
           WHEN 'number' THEN retry_at > first.created_at + make_interval(secs => (routine.retry ->> 'until')::float8)
           -- Without a next slot a week at most: the provider of the failed response may have named a time in years.
           ELSE retry_at >= coalesce(routine.next_run_at, first.created_at + interval '7 days') END) THEN
        RETURN NULL;
    END IF;
    INSERT INTO routines.trajectories (
        collection_id, task_id, task_version, triggered_by_routine_id, trigger, retry_of, retry_number, status, lease_expires_at,
        timeout_seconds, traceparent, init_params, secret_refs, webhook_url, webhook_secret_id, slot_values)
    VALUES (
        run.collection_id, run.task_id, run.task_version, run.triggered_by_routine_id, 'retry', coalesce(run.retry_of, run.id), number,
        'running', retry_at, run.timeout_seconds, run.traceparent, run.init_params, run.secret_refs, run.webhook_url,
        run.webhook_secret_id,
        coalesce(run.slot_values, routines.slot_values(run.triggered_by_routine_id, first.scheduled_for, 'schedule')))
    RETURNING id INTO made;
    RETURN made;
END $$;
COMMENT ON FUNCTION routines.retry_run IS
    'Inserts the retry of a scheduled run, or of a retry, that fails now, and returns its id; null if its routine wants none: it was deleted or is paused, the attempts are spent, the failure is not of the kind that is retried, the run of the next slot waits already, or the time would be at or after that slot, or later than `until`. It waits at least as long as the provider of the failed response asked for, and has the parameters, secrets and slot of the run that failed.';

CREATE FUNCTION routines.cancel_unbegun() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE routines.trajectories
    SET status = 'cancelled', fence = fence + 1, ended_at = now(), updated_at = now(), lease_expires_at = NULL,
        error = 'cancelled: its routine was ' || CASE TG_OP WHEN 'DELETE' THEN 'deleted' ELSE 'paused' END || ' before the '
                || CASE trigger WHEN 'retry' THEN 'retry' ELSE 'run' END || ' began'
    WHERE triggered_by_routine_id = OLD.id AND (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL
      AND (trigger = 'retry' OR place = 0) AND started_at IS NULL;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.cancel_unbegun IS
    'Cancels a retry that no worker has begun, and a run that waits for a place, when its routine is paused or deleted.';
CREATE TRIGGER cancel_unbegun AFTER UPDATE OF paused ON routines.routines
    FOR EACH ROW WHEN (NEW.paused AND NOT OLD.paused) EXECUTE FUNCTION routines.cancel_unbegun();
CREATE TRIGGER cancel_unbegun_of_deleted AFTER DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.cancel_unbegun();

------------------------------------------------------------------------------------------------------------- breaker
-- The length of the streak is read from the ledger, so that a run that completes need not reset a counter.
CREATE FUNCTION routines.failures_in_a_row(of_routine bigint, before_slot timestamptz, since timestamptz, most integer) RETURNS integer
LANGUAGE plpgsql STABLE AS $$
DECLARE
    outcome  text;
    failures integer := 0;
BEGIN
    FOR outcome IN
        SELECT routines.status_of_slot(id, status, retried_by) FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND scheduled_for < before_slot
          AND (since IS NULL OR created_at >= since)
        ORDER BY scheduled_for DESC LIMIT 10 * most
    LOOP
        EXIT WHEN outcome = 'completed' OR failures >= most;
        failures := failures + (outcome = 'failed')::integer;
    END LOOP;
    RETURN failures;
END $$;
COMMENT ON FUNCTION routines.failures_in_a_row IS
    'How many slots of a routine before this one failed since the last one that completed, at most `most`. Cancelled and archived runs are passed over, and only runs created `since` then count.';

CREATE FUNCTION routines.trip_breaker(run routines.trajectories) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    routine  record;
    slot     timestamptz := (SELECT scheduled_for FROM routines.trajectories WHERE id = coalesce(run.retry_of, run.id));
    failures integer;
BEGIN
    SELECT pause_after_failures AS most, after_failures, counts_failures_since INTO routine FROM routines.routines
    WHERE id = run.triggered_by_routine_id AND pause_after_failures IS NOT NULL AND NOT paused
      AND (counts_failures_since IS NULL OR run.created_at >= counts_failures_since)
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    failures := 1 + routines.failures_in_a_row(run.triggered_by_routine_id, slot, routine.counts_failures_since, routine.most + 6);
    IF failures < routine.most THEN
        RETURN;
    ELSIF routine.after_failures = 'backoff' THEN
        UPDATE routines.routines SET backoff_left = 2 ^ least(failures - routine.most, 6) WHERE id = run.triggered_by_routine_id;
    ELSE
        UPDATE routines.routines
        SET paused = true, paused_reason = format(
            'paused after %s; the last: %s',
            CASE routine.most WHEN 1 THEN 'a failed slot' ELSE routine.most || ' failed slots in a row' END,
            routines.first_line(coalesce(run.error, 'no error was recorded')))
        WHERE id = run.triggered_by_routine_id;
    END IF;
END $$;
COMMENT ON FUNCTION routines.trip_breaker IS
    'Stops the routine of a scheduled run that fails now, and that is not retried, if as many slots in a row have failed as its pause_after_failures: pauses it, or lets it skip slots.';

CREATE FUNCTION routines.backoff_detail(backoff_left integer) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'the slots before it failed, and ' || CASE backoff_left - 1 WHEN 0 THEN 'the next slot is the next try'
    WHEN 1 THEN '1 more slot is skipped' ELSE backoff_left - 1 || ' more slots are skipped' END;
COMMENT ON FUNCTION routines.backoff_detail IS 'The detail of a slot that is skipped after failures, while this many are left to skip, itself included.';

-- One look at the routine, which for most routines is the only one.
CREATE FUNCTION routines.follow_failure(run routines.trajectories) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    retry bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM routines.routines WHERE id = run.triggered_by_routine_id
                   AND (routines.retry IS NOT NULL OR pause_after_failures IS NOT NULL)) THEN
        RETURN NULL;
    END IF;
    retry := routines.retry_run(run);
    IF retry IS NULL THEN
        PERFORM routines.trip_breaker(run);
    END IF;
    RETURN retry;
END $$;
COMMENT ON FUNCTION routines.follow_failure IS
    'What follows if a scheduled run or a retry fails now: its retry, whose id is returned, or else that its routine may stop.';

-- == sql/schema/06_slots.sql

-- What a run knows of the slot that it is for: the values of references such as slot.date.

-- Reads the newest scheduled runs one by one from trajectories_slot_key, up to the first that completed, and at most 1,000; and as many
-- from trajectories_fill_key.
CREATE FUNCTION routines.last_success(of_routine bigint, before timestamptz) RETURNS timestamptz LANGUAGE sql STABLE
RETURN greatest(
    (SELECT scheduled_for FROM (
        SELECT scheduled_for, routines.status_of_slot(id, status, retried_by) AS status FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND scheduled_for < coalesce(before, 'infinity')
        ORDER BY scheduled_for DESC LIMIT 1000) AS newest
     WHERE status = 'completed' ORDER BY scheduled_for DESC LIMIT 1),
    (SELECT fills_slot FROM (
        SELECT fills_slot, routines.status_of_slot(id, status, retried_by) AS status FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND fills_slot < coalesce(before, 'infinity') AND rerun_of IS NULL
        ORDER BY fills_slot DESC LIMIT 1000) AS newest
     WHERE status = 'completed' ORDER BY fills_slot DESC LIMIT 1));
COMMENT ON FUNCTION routines.last_success IS
    'The newest slot of a routine whose run completed, or its retry, before this slot, or of all if that is null; also a slot that a backfill has filled. Looks at the newest 1,000 scheduled runs and as many of backfills; null if none of them completed.';

-- VOLATILE, so that it takes snapshots of its own. The tick and run-now call it once they have locked the routine, whose cadence may
-- have been changed since they began.
CREATE FUNCTION routines.slot_values(of_routine bigint, slot timestamptz, trigger text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    cadence routines.cadence := routines.current_cadence(of_routine);
    -- Null without a cadence: the routine was deleted, and no date is better than a wrong one.
    zone    text := CASE WHEN (cadence).type IS NOT NULL THEN routines.clocks_of(coalesce((cadence).timezone, 'UTC')) END;
BEGIN
    RETURN jsonb_build_object(
        'scheduled_for', routines.utc(slot),
        'date', to_char(timezone(zone, slot), 'YYYY-MM-DD'),
        'local_time', routines.iso_local(zone, slot),
        'previous', routines.utc(routines.latest_slot(cadence, slot - interval '1 microsecond')),
        'last_success', routines.utc(routines.last_success(of_routine, slot)),
        'trigger', trigger);
END $$;
COMMENT ON FUNCTION routines.slot_values IS
    'What the references slot.scheduled_for, slot.date, slot.local_time, slot.previous, slot.last_success and slot.trigger of a run refer to. A null slot: the run is for none.';

------------------------------------------------------------------------------------------- parameters taken from the slot
-- A null value leaves the parameter as it is, so that a default can stand for the first time.
CREATE FUNCTION routines.params_from_slot(init_params_from_slot jsonb, slot_values jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(jsonb_object_agg(key, slot_values -> split_part(reference, '.', 2)), '{}')
    FROM jsonb_each_text(init_params_from_slot) AS taken (key, reference)
    WHERE slot_values ->> split_part(reference, '.', 2) IS NOT NULL;
$$;
COMMENT ON FUNCTION routines.params_from_slot IS
    'The parameters that a routine takes from the slot of a run: those of them that the slot has.';

CREATE FUNCTION routines.refuse_slot_param(field text, rule text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = 'init_params_from_slot' || field || ': ' || rule, ERRCODE = 'check_violation',
        CONSTRAINT = 'routines_init_params_from_slot_is_valid';
END $$;
COMMENT ON FUNCTION routines.refuse_slot_param IS 'Raises the error of parameters that cannot be taken from a slot.';

CREATE FUNCTION routines.check_slot_params(init_params_from_slot jsonb, known jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    names text[] := '{slot.scheduled_for,slot.date,slot.local_time,slot.previous,slot.last_success,slot.trigger}';
    taken record;
BEGIN
    IF jsonb_typeof(init_params_from_slot) <> 'object' THEN
        PERFORM routines.refuse_slot_param('', 'must be an object of parameters and references such as slot.date');
    ELSIF (SELECT count(*) FROM jsonb_object_keys(init_params_from_slot)) > 50 THEN
        PERFORM routines.refuse_slot_param('', 'must have at most 50 parameters');
    END IF;
    FOR taken IN SELECT key, value FROM jsonb_each(init_params_from_slot) LOOP
        IF jsonb_typeof(taken.value) <> 'string' OR taken.value #>> '{}' <> ALL (names) THEN
            PERFORM routines.refuse_slot_param('.' || left(taken.key, 100), 'must be ' || array_to_string(trim_array(names, 1), ', ')
                                               || ' or ' || names[cardinality(names)]);
        ELSIF NOT known ? taken.key THEN
            PERFORM routines.refuse_slot_param('.' || left(taken.key, 100), 'the task declares no such parameter');
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.check_slot_params IS
    'Raises an error if a parameter is not among the keys of `known`, or takes something that a slot does not have.';

-- A trigger and not constraints, which each fire would check. A parameter that the task no longer declares may stay, like an override.
CREATE FUNCTION routines.check_run_settings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.timeout_seconds < 1 THEN
        RAISE EXCEPTION USING MESSAGE = 'timeout_seconds: must be at least 1', ERRCODE = 'check_violation',
            CONSTRAINT = 'routines_timeout_seconds_is_positive';
    END IF;
    IF NEW.init_params_from_slot IS NOT NULL THEN
        PERFORM routines.check_slot_params(NEW.init_params_from_slot, task_versions.init_params || CASE TG_OP
            WHEN 'UPDATE' THEN coalesce(OLD.init_params_from_slot, '{}') ELSE '{}' END)
        FROM routines.tasks
        JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
        WHERE tasks.id = NEW.task_id;
        NEW.init_params_from_slot := nullif(NEW.init_params_from_slot, '{}');
    END IF;
    IF NEW.retry IS NOT NULL THEN
        PERFORM routines.check_retry(NEW.retry);
    END IF;
    IF NEW.pause_after_failures NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION USING MESSAGE = 'pause_after_failures: must be 1 to 100', ERRCODE = 'check_violation',
            CONSTRAINT = 'routines_pause_after_failures_in_range';
    ELSIF NEW.after_failures NOT IN ('pause', 'backoff') THEN
        RAISE EXCEPTION USING MESSAGE = 'then: must be pause or backoff', ERRCODE = 'check_violation',
            CONSTRAINT = 'routines_after_failures_is_known';
    END IF;
    IF NEW.overlap_policy <> 'allow' AND TG_OP = 'UPDATE' AND NEW.max_concurrent = OLD.max_concurrent THEN
        NEW.max_concurrent := NULL;  -- only the policy was changed
    ELSIF (NEW.overlap_policy = 'allow') <> (NEW.max_concurrent IS NOT NULL) OR NEW.max_concurrent NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION USING MESSAGE = 'max_concurrent: must be 1 to 100 with overlap_policy allow, and is not taken with the others',
            ERRCODE = 'check_violation', CONSTRAINT = 'routines_max_concurrent_fits_policy';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.check_run_settings IS 'Rejects an init_params_from_slot, a timeout_seconds, a retry, a pause_after_failures, an after_failures or a max_concurrent that is not valid.';
CREATE TRIGGER check_run_settings BEFORE INSERT OR UPDATE OF init_params_from_slot, timeout_seconds, retry, pause_after_failures, after_failures,
        overlap_policy, max_concurrent
    ON routines.routines
    FOR EACH ROW WHEN (NEW.overlap_policy = 'allow' OR num_nonnulls(
        NEW.init_params_from_slot, NEW.timeout_seconds, NEW.retry, NEW.pause_after_failures, NEW.after_failures, NEW.max_concurrent) > 0)
    EXECUTE FUNCTION routines.check_run_settings();

-- == sql/schema/07_queue.sql

-- How workers share the queue of runs: fair shares between collections and tasks, limits, and wakeups for idle workers. The
-- claim itself is in queries/runs.sql.

-- No triggers. An index on the status of trajectories would cost every run its HOT updates, so limited runs are counted here.
CREATE TABLE routines.limited_runs (
    trajectory_id bigint CONSTRAINT limited_runs_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    task_id       bigint NOT NULL
);
CREATE INDEX limited_runs_collection_id_idx ON routines.limited_runs (collection_id);
CREATE INDEX limited_runs_task_id_idx ON routines.limited_runs (task_id);
COMMENT ON TABLE  routines.limited_runs IS
    'Claimed runs that count towards a limit: those of limited collections and tasks that are not waiting for children.';
COMMENT ON COLUMN routines.limited_runs.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.limited_runs.collection_id IS 'Its collection.';
COMMENT ON COLUMN routines.limited_runs.task_id IS 'Its task.';
SELECT routines.protect('routines.limited_runs');

CREATE FUNCTION routines.free_capacity_of_collection(of_id bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most integer := (SELECT max_concurrent_runs FROM routines.collections WHERE id = of_id);
BEGIN
    IF most IS NULL THEN
        RETURN NULL;
    END IF;
    -- Of two concurrent claims one gets the lock and the other leaves the collection to it. NO KEY, because an insert that
    -- refers to the row locks its key, and SKIP LOCKED would pass the collection over.
    PERFORM FROM routines.collections WHERE id = of_id FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    RETURN greatest(0, most - (SELECT count(*) FROM routines.limited_runs WHERE collection_id = of_id));
END $$;
COMMENT ON FUNCTION routines.free_capacity_of_collection IS
    'How many more runs of a collection may be claimed; null without a limit. Locks a limited collection until the transaction ends. VOLATILE, so that it counts with a snapshot taken once it has the lock.';

CREATE FUNCTION routines.free_capacity_of_task(of_id bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most integer := (SELECT max_concurrent_runs FROM routines.tasks WHERE id = of_id);
BEGIN
    IF most IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM FROM routines.tasks WHERE id = of_id FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    RETURN greatest(0, most - (SELECT count(*) FROM routines.limited_runs WHERE task_id = of_id));
END $$;
COMMENT ON FUNCTION routines.free_capacity_of_task IS
    'How many more runs of a task may be claimed; null without a limit. Locks and counts like free_capacity_of_collection.';
REVOKE EXECUTE ON FUNCTION routines.free_capacity_of_collection, routines.free_capacity_of_task FROM PUBLIC;

-- Each lookup is one step in trajectories_active_idx. It passes over running runs, and over no pending ones. Conditions and
-- order use whole rows, because other indexes could serve a condition on a single column by reading all ended runs.
CREATE FUNCTION routines.collection_with_pending(after bigint) RETURNS bigint LANGUAGE sql STABLE
RETURN (SELECT collection_id FROM routines.trajectories
        WHERE ended_at IS NULL AND status = 'pending' AND collection_id > after
        ORDER BY collection_id, task_id LIMIT 1);
COMMENT ON FUNCTION routines.collection_with_pending IS 'The next collection after this one that has a pending run; null if there is none.';

CREATE FUNCTION routines.task_with_pending(of_collection bigint, after bigint) RETURNS bigint LANGUAGE sql STABLE
RETURN (SELECT CASE WHEN collection_id = of_collection THEN task_id END FROM routines.trajectories
        WHERE ended_at IS NULL AND status = 'pending' AND (collection_id, task_id) > (of_collection, after)
        ORDER BY collection_id, task_id LIMIT 1);
COMMENT ON FUNCTION routines.task_with_pending IS 'The next task of a collection after this one that has a pending run; null if there is none.';

CREATE FUNCTION routines.fair_shares(
    capacity integer, after bigint, last_tasks jsonb, but_collections bigint[] DEFAULT '{}', most_each integer DEFAULT NULL
)
RETURNS TABLE (place integer, collection_id bigint, task_id bigint, share integer, is_limited boolean)
LANGUAGE plpgsql VOLATILE ROWS 10 AS $$
DECLARE
    collections      bigint[] := '{}';
    collections_free integer[] := '{}';
    tasks            bigint[];
    tasks_free       integer[];
    free             integer;
    first            bigint;
    own_share        integer;
    lap              integer := 0;
BEGIN
    -- From the collection after the last one served, round to that one.
    collection_id := after;
    WHILE cardinality(collections) < capacity LOOP
        collection_id := routines.collection_with_pending(collection_id);
        IF collection_id IS NULL AND lap = 0 THEN
            lap := 1;
            collection_id := routines.collection_with_pending(0);
        END IF;
        EXIT WHEN collection_id IS NULL OR lap = 1 AND collection_id > after;
        CONTINUE WHEN collection_id = ANY (but_collections);
        free := routines.free_capacity_of_collection(collection_id);
        IF free IS NULL OR free > 0 THEN
            collections := collections || collection_id;
            collections_free := collections_free || free;
        END IF;
    END LOOP;
    FOR i IN 1 .. cardinality(collections) LOOP
        collection_id := collections[i];
        own_share := least(capacity / cardinality(collections), collections_free[i], most_each);
        tasks := '{}';
        tasks_free := '{}';
        -- The same for the tasks of the collection.
        first := coalesce((last_tasks ->> collection_id::text)::bigint, 0);
        task_id := first;
        lap := 0;
        WHILE cardinality(tasks) < own_share LOOP
            task_id := routines.task_with_pending(collection_id, task_id);
            IF task_id IS NULL AND lap = 0 THEN
                lap := 1;
                task_id := routines.task_with_pending(collection_id, 0);
            END IF;
            EXIT WHEN task_id IS NULL OR lap = 1 AND task_id > first;
            free := routines.free_capacity_of_task(task_id);
            IF free IS NULL OR free > 0 THEN
                tasks := tasks || task_id;
                tasks_free := tasks_free || free;
            END IF;
        END LOOP;
        FOR j IN 1 .. cardinality(tasks) LOOP
            place := i;
            task_id := tasks[j];
            share := least(own_share / cardinality(tasks), tasks_free[j]);
            is_limited := collections_free[i] IS NOT NULL OR tasks_free[j] IS NOT NULL;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.fair_shares IS
    'Divides the capacity of a claim equally between the collections with pending runs, starting after the collection `after`, and within each between its tasks, starting after its entry in last_tasks. Collections in but_collections get nothing, and no collection gets more than most_each. Limits are respected. The cost does not depend on how many runs are pending.';

-- No triggers. UNLOGGED: after a crash the table is empty, and workers poll anyway.
CREATE UNLOGGED TABLE routines.wakeups (
    worker       text CONSTRAINT wakeups_pkey PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.wakeups IS
    'Idle workers that asked to be woken. The next statement that inserts a run deletes these rows and sends one notification.';
COMMENT ON COLUMN routines.wakeups.worker IS 'Host and process.';
COMMENT ON COLUMN routines.wakeups.requested_at IS 'When it became idle.';

-- A notification costs each transaction that sends one a lock of the whole database at its commit. So only the first insert
-- after a worker became idle sends one, and a busy system sends none. A row that another transaction has locked is left to
-- that transaction. This is a hint: a worker that is not woken polls before long.
CREATE FUNCTION routines.wake_idle_workers() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM routines.wakeups
    WHERE worker = ANY (ARRAY(SELECT worker FROM routines.wakeups ORDER BY worker FOR UPDATE SKIP LOCKED));
    IF FOUND THEN
        PERFORM pg_notify('routines_pending', '');
    END IF;
END $$;
COMMENT ON FUNCTION routines.wake_idle_workers IS 'Notifies the workers that asked to be woken.';

CREATE FUNCTION routines.wake_workers() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM routines.wakeups) AND EXISTS (SELECT FROM inserted) THEN
        PERFORM routines.wake_idle_workers();
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.wake_workers IS 'Wakes idle workers when runs are inserted.';
CREATE TRIGGER wake_workers AFTER INSERT ON routines.trajectories
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.wake_workers();

-- == sql/schema/08_alerts.sql

-- Alerts: the rules by which a collection wants to be told, one row for each alert, and what alerts are opened for. Workers
-- evaluate the rules (queries/alerts.sql), so an alert needs no ticker. Its notice is a webhook like any other: chapter
-- 08_webhooks. What a notice says: chapter 13_notices. Why this design: docs/decisions/0030.

------------------------------------------------------------------------------------------------------------------ rules
-- Triggers, in the order in which they fire:
--   BEFORE UPDATE  keep_updated_at               of what a person sets: sets updated_at
--   AFTER INSERT   follow_created_webhook_url    restarts a stopped webhook endpoint that the rule names
--   AFTER UPDATE   follow_changed_webhook_url    the same
--   AFTER UPDATE   forget_replaced_secret        deletes the secret that signed its notices
--   AFTER UPDATE   suppress_unwatched            closes alerts that the rule no longer watches
--   AFTER DELETE   forget_secret_of_deleted      deletes the secret
--   AFTER all      note_rule                     adds to the audit (chapter 15_audit)
CREATE TABLE routines.alert_rules (
    id                bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alert_rules_pkey PRIMARY KEY,
    collection_id     bigint NOT NULL,
    name              routines.slug NOT NULL,
    events            text[] NOT NULL,
    task_id           bigint,
    routine_id        bigint CONSTRAINT alert_rules_routine_id_fkey REFERENCES routines.routine_names (routine_id) ON DELETE CASCADE,
    after_seconds     integer CONSTRAINT alert_rules_after_seconds_in_range CHECK (after_seconds BETWEEN 1 AND 2592000),
    streak            integer CONSTRAINT alert_rules_streak_in_range CHECK (streak BETWEEN 2 AND 100),
    webhook_url       text NOT NULL CONSTRAINT alert_rules_webhook_url_is_http
                      CHECK (webhook_url ~ '^[Hh][Tt][Tt][Pp][Ss]?://[^[:space:]/?#@]+([/?#][^[:space:]]*)?$' AND length(webhook_url) <= 2048),
    webhook_secret_id uuid,
    digest_at_utc     time CONSTRAINT alert_rules_digest_at_utc_is_a_minute
                      CHECK (digest_at_utc < '24:00' AND digest_at_utc = date_trunc('minute', digest_at_utc::interval)::time),
    digested_until    timestamptz NOT NULL DEFAULT now(),
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT alert_rules_name_key UNIQUE (collection_id, name),
    CONSTRAINT alert_rules_task_fkey FOREIGN KEY (task_id, collection_id) REFERENCES routines.tasks (id, collection_id) ON DELETE CASCADE,
    CONSTRAINT alert_rules_events_are_known CHECK (
        events <@ '{late,missed,failed,streak,slow,paused,webhook_stopped,recovered}' AND array_position(events, NULL) IS NULL
        AND cardinality(events) <= 8),
    CONSTRAINT alert_rules_events_alert CHECK (events && '{late,missed,failed,streak,slow,paused,webhook_stopped}'),
    CONSTRAINT alert_rules_after_seconds_fits_events CHECK (after_seconds IS NULL OR events && '{late,slow}'),
    CONSTRAINT alert_rules_streak_fits_events CHECK ((streak IS NOT NULL) = ('streak' = ANY (events))),
    CONSTRAINT alert_rules_routine_has_task CHECK (routine_id IS NULL OR task_id IS NOT NULL)
);
CREATE INDEX alert_rules_task_id_idx ON routines.alert_rules (task_id);
CREATE INDEX alert_rules_routine_id_idx ON routines.alert_rules (routine_id);
CREATE INDEX alert_rules_webhook_secret_id_idx ON routines.alert_rules (webhook_secret_id);
COMMENT ON TABLE  routines.alert_rules IS 'What a collection wants to be told of its routines, and where.';
COMMENT ON COLUMN routines.alert_rules.id IS 'Database id, never exposed by HTTP.';
COMMENT ON COLUMN routines.alert_rules.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.alert_rules.name IS 'Unique in its collection.';
COMMENT ON COLUMN routines.alert_rules.events IS
    '`on` in the API. late: a slot has been due for longer than after_seconds and has no outcome. missed: a slot was missed. failed: a slot failed, with its last attempt. streak: so many slots in a row did. slow: a run takes longer than after_seconds, or than three times what is usual. paused: the scheduler paused the routine. webhook_stopped: a webhook of its runs was given up. recovered: an alert of these is over.';
COMMENT ON COLUMN routines.alert_rules.task_id IS 'Watches only routines of this task, with which it is deleted; null for all.';
COMMENT ON COLUMN routines.alert_rules.routine_id IS 'Watches only this routine, with which it is deleted; null for all of the task.';
COMMENT ON COLUMN routines.alert_rules.after_seconds IS
    'For late and slow; null for 60 seconds, and for three times the usual duration of the routine.';
COMMENT ON COLUMN routines.alert_rules.streak IS 'For streak: how many slots; null without it.';
COMMENT ON COLUMN routines.alert_rules.webhook_url IS 'Receives the notices.';
COMMENT ON COLUMN routines.alert_rules.webhook_secret_id IS 'The secret that signs them; null for unsigned.';
COMMENT ON COLUMN routines.alert_rules.digest_at_utc IS 'When its daily digest is sent; null if each alert is told at once.';
COMMENT ON COLUMN routines.alert_rules.digested_until IS 'Up to when the last digest reached. Maintained by the workers.';
COMMENT ON COLUMN routines.alert_rules.created_at IS 'When it was created. What happened before opens no alert.';
COMMENT ON COLUMN routines.alert_rules.updated_at IS 'Its last change by a person.';
SELECT routines.protect('routines.alert_rules');

CREATE FUNCTION routines.watches(rule routines.alert_rules, of_task bigint, of_routine bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce((rule).task_id = of_task, true) AND coalesce((rule).routine_id = of_routine, true);
COMMENT ON FUNCTION routines.watches IS 'Whether a routine is in the scope of a rule of its collection.';

-- No triggers. No foreign keys: an alert outlives its routine, and a deleted rule leaves its alerts to retention.
CREATE TABLE routines.alerts (
    id                 bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alerts_pkey PRIMARY KEY,
    collection_id      bigint NOT NULL,
    rule_id            bigint NOT NULL,
    routine_id         bigint NOT NULL,
    event              text NOT NULL CONSTRAINT alerts_event_is_known
                       CHECK (event IN ('late', 'missed', 'failed', 'streak', 'slow', 'paused', 'webhook_stopped')),
    subject            text NOT NULL,
    scheduled_for      timestamptz,
    trajectory_id      bigint,
    detail             text NOT NULL,
    opened_at          timestamptz NOT NULL DEFAULT now(),
    closed_at          timestamptz,
    suppressed_reason  text,
    tells_recovery     boolean NOT NULL DEFAULT false,
    notice_id          bigint,
    recovery_notice_id bigint,
    -- The same thing opens no second alert, whatever is evaluated twice.
    CONSTRAINT alerts_subject_key UNIQUE (rule_id, routine_id, event, subject),
    CONSTRAINT alerts_suppression_closes CHECK (suppressed_reason IS NULL OR closed_at IS NOT NULL),
    CONSTRAINT alerts_only_recoveries_are_told CHECK (NOT tells_recovery OR closed_at IS NOT NULL AND suppressed_reason IS NULL)
);
-- Of these a routine has one open alert, since they last; each slot that fails or is missed is an alert of its own.
CREATE UNIQUE INDEX alerts_open_key ON routines.alerts (rule_id, routine_id, event)
    WHERE closed_at IS NULL AND event NOT IN ('missed', 'failed');
-- Open alerts by what closes them. A search by another key says coalesce(closed_at, 'infinity') = 'infinity', which this index
-- cannot answer: see trajectories_active_idx.
CREATE INDEX alerts_open_idx ON routines.alerts (event, routine_id) WHERE closed_at IS NULL;
-- Alerts and recoveries that no notice tells yet.
CREATE INDEX alerts_untold_idx ON routines.alerts (rule_id, id) WHERE notice_id IS NULL AND suppressed_reason IS NULL;
CREATE INDEX alerts_tells_recovery_idx ON routines.alerts (rule_id, id) WHERE tells_recovery;
-- The alerts of a notice; the second also finds the newest notice about late routines.
CREATE INDEX alerts_notice_id_idx ON routines.alerts (notice_id) WHERE notice_id IS NOT NULL;
CREATE INDEX alerts_late_notice_idx ON routines.alerts (rule_id, notice_id) WHERE event = 'late' AND notice_id IS NOT NULL;
CREATE INDEX alerts_recovery_notice_id_idx ON routines.alerts (recovery_notice_id) WHERE recovery_notice_id IS NOT NULL;
-- A collection's alerts, newest first.
CREATE INDEX alerts_collection_id_idx ON routines.alerts (collection_id, id);
COMMENT ON TABLE  routines.alerts IS 'What the rules found: one row for each alert, with its life. As the API shows them: alert_details.';
COMMENT ON COLUMN routines.alerts.id IS 'alert_id in a notice, and `id` in the API.';
COMMENT ON COLUMN routines.alerts.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.alerts.rule_id IS 'The rule that it is of, which may have been deleted.';
COMMENT ON COLUMN routines.alerts.routine_id IS 'The routine, which may have been deleted.';
COMMENT ON COLUMN routines.alerts.event IS 'What happened: see alert_rules.events.';
COMMENT ON COLUMN routines.alerts.subject IS 'What it is about: the slot, the run, the pause or the webhook. Unique for the rule, routine and event.';
COMMENT ON COLUMN routines.alerts.scheduled_for IS 'The slot; the first of several, and of late the first that was; null if it is about none.';
COMMENT ON COLUMN routines.alerts.trajectory_id IS 'The run; null if it is about none.';
COMMENT ON COLUMN routines.alerts.detail IS 'A sentence for people.';
COMMENT ON COLUMN routines.alerts.opened_at IS 'When it was found.';
COMMENT ON COLUMN routines.alerts.closed_at IS 'When it was over, or was suppressed; null while it is open.';
COMMENT ON COLUMN routines.alerts.suppressed_reason IS
    'Why nobody is told any more: the routine was paused by hand or deleted, or the rule was changed; null if it is open or has recovered.';
COMMENT ON COLUMN routines.alerts.tells_recovery IS 'Whether it has recovered and a notice is still to say so.';
COMMENT ON COLUMN routines.alerts.notice_id IS
    'The webhook delivery that tells it, perhaps with others; null if none has been queued.';
COMMENT ON COLUMN routines.alerts.recovery_notice_id IS
    'The delivery that tells its recovery: notice_id again if it had recovered before that was queued; null if none does.';
SELECT routines.protect('routines.alerts');

--------------------------------------------------------------------------------------------------- what is to be judged
-- No triggers. An outbox: what happened is committed with its cause, and deleted in the transaction that opens or closes the
-- alerts. So nothing that commits late is overlooked, as it would be by a worker that went by ids or times. What lasts needs no
-- row here: workers find slots that are due, runs that go on, and starts after an alert.
CREATE TABLE routines.alert_events (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alert_events_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    routine_id    bigint NOT NULL,
    event         text NOT NULL CONSTRAINT alert_events_event_is_known CHECK (event IN (
                  'late', 'missed', 'failed', 'paused', 'webhook_stopped', 'completed', 'held', 'resumed', 'deleted')),
    subject       text,
    scheduled_for timestamptz,
    trajectory_id bigint,
    late_seconds  float8,
    detail        text,
    at            timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.alert_events IS
    'What happened in collections with rules since the workers last looked: they delete each row as they open or close alerts for it.';
COMMENT ON COLUMN routines.alert_events.id IS 'Database id.';
COMMENT ON COLUMN routines.alert_events.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.alert_events.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.alert_events.event IS
    'An event that opens alerts; or completed (a slot), held (paused by hand), resumed or deleted, which close them.';
COMMENT ON COLUMN routines.alert_events.subject IS 'The subject of an alert that it opens.';
COMMENT ON COLUMN routines.alert_events.scheduled_for IS 'The slot; null if it is about none.';
COMMENT ON COLUMN routines.alert_events.trajectory_id IS 'The run; null if it is about none.';
COMMENT ON COLUMN routines.alert_events.late_seconds IS 'For late: how long the slot had been due when it got its outcome.';
COMMENT ON COLUMN routines.alert_events.detail IS 'The sentence of an alert that it opens, or the reason of a suppression.';
COMMENT ON COLUMN routines.alert_events.at IS 'When it happened.';
SELECT routines.protect('routines.alert_events');

CREATE FUNCTION routines.slot_subject(slot timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN 'slot:' || to_char(slot AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
COMMENT ON FUNCTION routines.slot_subject IS 'The subject of an alert about a slot.';

-- Called by follow_end, and only for the last attempt at a slot. One look, which in a collection without rules is the only one.
CREATE FUNCTION routines.note_end(run routines.trajectories) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    slot timestamptz := run.scheduled_for;
BEGIN
    IF NOT EXISTS (SELECT FROM routines.alert_rules WHERE collection_id = run.collection_id) THEN
        RETURN;
    END IF;
    IF run.retry_of IS NOT NULL THEN
        SELECT scheduled_for INTO slot FROM routines.trajectories WHERE id = run.retry_of;
    END IF;
    IF slot IS NULL THEN
        RETURN;  -- the rerun of a run that was for none
    END IF;
    INSERT INTO routines.alert_events (collection_id, routine_id, event, subject, scheduled_for, trajectory_id, detail)
    VALUES (run.collection_id, run.triggered_by_routine_id, run.status, routines.slot_subject(slot), slot, run.id,
            CASE run.status WHEN 'failed' THEN
                CASE WHEN run.retry_number > 0 THEN (run.retry_number + 1) || ' attempts failed; the last: ' ELSE '' END
                || routines.first_line(coalesce(run.error, 'no error was recorded')) END);
END $$;
COMMENT ON FUNCTION routines.note_end IS 'Notes how the last attempt at a slot ended, if the collection has rules.';

-- Once a statement, since the tick inserts in batches. Slots that a person passed over or settled count as missed, as they do in
-- routine_status.
CREATE FUNCTION routines.note_skips() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM routines.alert_rules) THEN
        RETURN NULL;
    END IF;
    INSERT INTO routines.alert_events (collection_id, routine_id, event, subject, scheduled_for, late_seconds, detail)
    SELECT inserted.collection_id, inserted.routine_id, CASE reason WHEN 'failed_to_start' THEN 'failed' ELSE 'missed' END,
           routines.slot_subject(scheduled_for), scheduled_for, NULL,
           CASE reason WHEN 'failed_to_start' THEN 'it could not start: ' || routines.first_line(coalesce(detail, 'no cause was recorded'))
                ELSE CASE WHEN slot_count > 1 THEN slot_count || ' slots were missed, the last at ' || routines.utc(last_scheduled_for)
                          ELSE 'the slot was missed' END || ': ' || coalesce(detail, 'no ticker ran in time') END
    FROM inserted
    WHERE reason IN ('missed', 'failed_to_start')
      AND EXISTS (SELECT FROM routines.alert_rules WHERE alert_rules.collection_id = inserted.collection_id)
    UNION ALL
    -- A tick that came late for the slot, which then started nothing.
    SELECT collection_id, routine_id, 'late', routines.slot_subject(scheduled_for), scheduled_for, late_seconds,
           'the slot was skipped ' || routines.duration_in_words(late_seconds) || ' after it was due'
    FROM (SELECT inserted.*, extract(epoch FROM recorded_at - scheduled_for
                                                - coalesce(due_at - last_scheduled_for, '0'))::float8 AS late_seconds
          FROM inserted WHERE reason IN ('overlap', 'failed_to_start', 'backoff', 'missed')) AS skipped
    WHERE routines.is_late_for_a_rule(collection_id, late_seconds);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_skips IS 'Notes slots that were missed, could not start, or were skipped late, in collections with rules.';

CREATE FUNCTION routines.is_late_for_a_rule(of_collection bigint, late_seconds float8) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT late_seconds > 0 AND EXISTS (
        SELECT FROM routines.alert_rules
        WHERE collection_id = of_collection AND 'late' = ANY (events) AND coalesce(after_seconds, 60) < late_seconds);
$$;
COMMENT ON FUNCTION routines.is_late_for_a_rule IS 'Whether a rule of this collection calls a slot late that got its outcome so long after it was due.';

CREATE TRIGGER note_skips AFTER INSERT ON routines.skips
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.note_skips();

CREATE FUNCTION routines.seconds_late(slot timestamptz, due_at timestamptz, at timestamptz) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN slot IS NOT NULL THEN extract(epoch FROM at - coalesce(due_at, slot))::float8 END;
COMMENT ON FUNCTION routines.seconds_late IS 'How long a slot had been due at this time, in seconds; null for no slot.';

-- A slot that was late between two looks of the workers.
CREATE FUNCTION routines.note_late_runs(run_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO routines.alert_events (collection_id, routine_id, event, subject, scheduled_for, trajectory_id, late_seconds, detail, at)
    SELECT collection_id, triggered_by_routine_id, 'late', routines.slot_subject(scheduled_for), scheduled_for, id, late_seconds,
           'it started ' || routines.duration_in_words(late_seconds) || ' after it was due', created_at
    FROM routines.trajectories, LATERAL routines.seconds_late(scheduled_for, due_at, created_at) AS late_seconds
    WHERE id = ANY (run_ids) AND routines.is_late_for_a_rule(collection_id, late_seconds);
END $$;
COMMENT ON FUNCTION routines.note_late_runs IS 'Notes those of these runs whose slots were late, in collections with a rule that calls them so.';

CREATE FUNCTION routines.note_late_starts() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM routines.alert_rules) THEN
        PERFORM routines.note_late_runs(late.ids)
        FROM (SELECT array_agg(id) AS ids FROM inserted
              WHERE routines.is_late_for_a_rule(collection_id, routines.seconds_late(scheduled_for, due_at, created_at))) AS late
        WHERE late.ids IS NOT NULL;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_late_starts IS 'Notes slots that started late.';
CREATE TRIGGER note_late_starts AFTER INSERT ON routines.trajectories
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.note_late_starts();

-- The run that waited for a place is now that of another slot: a later one, unless the cadence was changed. See take_over_waiting_run.
CREATE FUNCTION routines.note_late_takeover() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM routines.note_late_runs(ARRAY[NEW.id]);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_late_takeover IS 'Notes a late slot that took over the run of another.';
CREATE TRIGGER note_late_takeover AFTER UPDATE OF scheduled_for ON routines.trajectories
    FOR EACH ROW WHEN (OLD.scheduled_for IS DISTINCT FROM NEW.scheduled_for) EXECUTE FUNCTION routines.note_late_takeover();

CREATE FUNCTION routines.note_pause() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.alert_events (collection_id, routine_id, event, subject, detail)
    SELECT OLD.collection_id, OLD.id,
           CASE WHEN TG_OP = 'DELETE' THEN 'deleted' WHEN NOT NEW.paused THEN 'resumed'
                WHEN NEW.paused_reason IS NULL THEN 'held' ELSE 'paused' END,
           'pause:' || routines.utc(NEW.paused_at),
           CASE WHEN TG_OP = 'DELETE' THEN 'the routine was deleted'
                WHEN NOT NEW.paused THEN NULL
                WHEN NEW.paused_reason IS NULL THEN 'the routine was '
                    || routines.pause_in_words(NULL, NEW.paused_at, NEW.paused_until, NEW.paused_note)
                ELSE NEW.paused_reason END
    WHERE EXISTS (SELECT FROM routines.alert_rules WHERE collection_id = OLD.collection_id);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_pause IS 'Notes that a routine was paused, resumed or deleted, if its collection has rules.';
CREATE TRIGGER note_pause AFTER UPDATE OF paused, paused_reason ON routines.routines
    FOR EACH ROW WHEN ((OLD.paused, OLD.paused_reason) IS DISTINCT FROM (NEW.paused, NEW.paused_reason)) EXECUTE FUNCTION routines.note_pause();
CREATE TRIGGER note_deletion AFTER DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.note_pause();

----------------------------------------------------------------------------------------------------- changes of a rule
CREATE FUNCTION routines.keep_rule_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.keep_rule_updated_at IS 'Sets when a person last changed a rule.';
CREATE TRIGGER keep_updated_at
    BEFORE UPDATE OF name, events, task_id, routine_id, after_seconds, streak, webhook_url, webhook_secret_id, digest_at_utc
    ON routines.alert_rules FOR EACH ROW EXECUTE FUNCTION routines.keep_rule_updated_at();

CREATE TRIGGER follow_created_webhook_url AFTER INSERT ON routines.alert_rules
    FOR EACH ROW EXECUTE FUNCTION routines.restart_endpoint();
CREATE TRIGGER follow_changed_webhook_url AFTER UPDATE OF webhook_url ON routines.alert_rules
    FOR EACH ROW WHEN (NEW.webhook_url IS DISTINCT FROM OLD.webhook_url) EXECUTE FUNCTION routines.restart_endpoint();

CREATE FUNCTION routines.forget_secret_of_rule() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM routines.forget_secrets(ARRAY[OLD.webhook_secret_id], NULL, NULL);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secret_of_rule IS 'Deletes the secret that a rule no longer refers to, unless a due notice needs it.';
CREATE TRIGGER forget_replaced_secret AFTER UPDATE OF webhook_secret_id ON routines.alert_rules
    FOR EACH ROW WHEN (OLD.webhook_secret_id IS DISTINCT FROM NEW.webhook_secret_id AND OLD.webhook_secret_id IS NOT NULL)
    EXECUTE FUNCTION routines.forget_secret_of_rule();
CREATE TRIGGER forget_secret_of_deleted AFTER DELETE ON routines.alert_rules
    FOR EACH ROW WHEN (OLD.webhook_secret_id IS NOT NULL) EXECUTE FUNCTION routines.forget_secret_of_rule();

-- In the order in which workers close alerts.
CREATE FUNCTION routines.suppress_unwatched() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH unwatched AS MATERIALIZED (
        SELECT id FROM routines.alerts
        WHERE rule_id = NEW.id AND closed_at IS NULL
          AND NOT (event = ANY (NEW.events) AND routines.watches(NEW, (
              SELECT task_id FROM routines.routines WHERE routines.id = alerts.routine_id), alerts.routine_id))
        ORDER BY alerts.routine_id, id FOR UPDATE
    )
    UPDATE routines.alerts SET closed_at = now(), suppressed_reason = 'the rule no longer watches it'
    WHERE id = ANY (ARRAY(SELECT id FROM unwatched));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.suppress_unwatched IS 'Closes open alerts of events and routines that a rule no longer watches.';
CREATE TRIGGER suppress_unwatched AFTER UPDATE OF events, task_id, routine_id ON routines.alert_rules
    FOR EACH ROW WHEN ((OLD.events, OLD.task_id, OLD.routine_id) IS DISTINCT FROM (NEW.events, NEW.task_id, NEW.routine_id))
    EXECUTE FUNCTION routines.suppress_unwatched();

----------------------------------------------------------------------------------------------------- rounds of workers
-- No triggers.
CREATE TABLE routines.alert_rounds (
    what   text CONSTRAINT alert_rounds_pkey PRIMARY KEY
           CONSTRAINT alert_rounds_what_is_known CHECK (what IN ('events', 'late', 'slow', 'ends', 'notices', 'recoveries', 'digests')),
    ran_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10);
INSERT INTO routines.alert_rounds (what) VALUES ('events'), ('late'), ('slow'), ('ends'), ('notices'), ('recoveries'), ('digests');
COMMENT ON TABLE  routines.alert_rounds IS
    'When a worker last ran each statement of queries/alerts.sql. The statement locks its row, so that one worker runs it at a time.';
COMMENT ON COLUMN routines.alert_rounds.what IS 'The statement.';
COMMENT ON COLUMN routines.alert_rounds.ran_at IS 'When it last ran.';

-- SKIP LOCKED: another worker is at it. A time in the future is that of a clock that was set back since.
CREATE FUNCTION routines.take_alert_turn(of_round text, every_seconds float8, at timestamptz) RETURNS timestamptz
LANGUAGE sql VOLATILE AS $$
    UPDATE routines.alert_rounds SET ran_at = coalesce(at, now())
    WHERE what = (SELECT what FROM routines.alert_rounds
                  WHERE what = of_round AND EXISTS (SELECT FROM routines.alert_rules)
                    AND (every_seconds IS NULL OR ran_at > coalesce(at, now())
                         OR ran_at <= coalesce(at, now()) - make_interval(secs => every_seconds))
                  FOR UPDATE SKIP LOCKED)
    RETURNING ran_at;
$$;
COMMENT ON FUNCTION routines.take_alert_turn IS
    'Takes the turn to run a statement of queries/alerts.sql until the end of the transaction, and returns the time to judge by: `at`, or now. Null if another session has it, one had it less than every_seconds ago, or there are no rules.';

-- Row by row and notice by notice, because a statement that joins a batch with the table may compare each with each.
CREATE FUNCTION routines.started_since(of_routine bigint, slot timestamptz) RETURNS timestamptz LANGUAGE sql STABLE
RETURN (SELECT created_at FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND scheduled_for >= slot ORDER BY scheduled_for LIMIT 1);
COMMENT ON FUNCTION routines.started_since IS
    'When the routine started on schedule for this slot or the next one that ran; null if it has not. This is the end of its being late.';

CREATE FUNCTION routines.close_alert(alert_id bigint, at timestamptz, reason text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE routines.alerts
    SET closed_at = greatest(at, opened_at), suppressed_reason = reason,
        tells_recovery = reason IS NULL AND EXISTS (
            SELECT FROM routines.alert_rules WHERE alert_rules.id = rule_id AND 'recovered' = ANY (events))
    WHERE id = alert_id AND coalesce(closed_at, 'infinity') = 'infinity';
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION routines.close_alert IS
    'Closes an alert that is over, or with a reason one that is suppressed. Returns whether it was open.';

CREATE FUNCTION routines.note_notice(alert_ids bigint[], told_by bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    noted integer;
BEGIN
    UPDATE routines.alerts
    SET notice_id = coalesce(notice_id, told_by), recovery_notice_id = CASE WHEN tells_recovery THEN told_by END, tells_recovery = false
    WHERE id = ANY (alert_ids);
    GET DIAGNOSTICS noted = ROW_COUNT;
    RETURN noted;
END $$;
COMMENT ON FUNCTION routines.note_notice IS
    'Notes in alerts the webhook delivery that tells them: their opening if none does yet, and their recovery if they are over. Returns their number.';

-- == sql/schema/08_webhooks.sql

-- Webhooks: an outbox that is a queue of its own, and endpoints that are stopped when they keep failing. The claim is in
-- queries/deliveries.sql.

-- Triggers:
--   AFTER UPDATE, once a statement  forget_secrets_of_ended   delivered or given up: deletes secrets that nothing else needs
--   AFTER DELETE                    forget_secret_of_deleted  the same for a delivery that was still due
--   AFTER UPDATE                    note_given_up             given up: notes it for rules that watch webhook_stopped
-- Rows are inserted by the trigger settle_end of trajectories, and for notices by the workers that judge alerts.
CREATE TABLE routines.webhook_deliveries (
    id              bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT webhook_deliveries_pkey PRIMARY KEY,
    collection_id   bigint NOT NULL,
    trajectory_id   bigint CONSTRAINT webhook_deliveries_trajectory_id_fkey REFERENCES routines.trajectories (id) ON DELETE CASCADE,
    routine_id      bigint,
    rule_id         bigint,
    event_id        uuid NOT NULL DEFAULT gen_random_uuid(),
    event_status    text NOT NULL,
    url             text NOT NULL,
    host            text NOT NULL GENERATED ALWAYS AS (coalesce(lower(substring(url FROM '^[A-Za-z]+://([^/?#]*)')), '')) STORED,
    lane            integer NOT NULL GENERATED ALWAYS AS (
                    ('x' || left(md5(coalesce(lower(substring(url FROM '^[A-Za-z]+://([^/?#]*)')), '')), 8))::bit(32)::integer) STORED,
    secret_id       uuid,
    body            bytea,
    fence           integer NOT NULL DEFAULT 0,
    claimed_at      timestamptz,
    attempts        jsonb NOT NULL DEFAULT '[]' CONSTRAINT webhook_deliveries_attempts_is_array CHECK (jsonb_typeof(attempts) = 'array'),
    failures        integer NOT NULL DEFAULT 0,
    is_redelivery   boolean NOT NULL DEFAULT false,
    next_attempt_at timestamptz DEFAULT now(),
    created_at      timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz,
    give_up_reason  text,
    -- A notice has its body from the start: it tells what was so when it was queued.
    CONSTRAINT webhook_deliveries_is_of_a_run_or_a_rule CHECK (
        CASE WHEN rule_id IS NULL THEN trajectory_id IS NOT NULL
             ELSE trajectory_id IS NULL AND routine_id IS NULL AND body IS NOT NULL END),
    CONSTRAINT webhook_deliveries_claim_fits_state CHECK (claimed_at IS NULL OR next_attempt_at IS NOT NULL),
    CONSTRAINT webhook_deliveries_end_has_outcome
        CHECK (next_attempt_at IS NOT NULL OR delivered_at IS NOT NULL OR give_up_reason IS NOT NULL)
);
-- All due deliveries, oldest first.
CREATE INDEX webhook_deliveries_next_attempt_at_idx ON routines.webhook_deliveries (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
-- The lanes of the queue: the deliveries to one receiver, the earliest due first. A lane is a hash, so a walk that begins at a
-- random number begins at a random receiver.
CREATE INDEX webhook_deliveries_lane_idx ON routines.webhook_deliveries (collection_id, lane, next_attempt_at)
    WHERE next_attempt_at IS NOT NULL;
-- Claimed deliveries: few rows.
CREATE INDEX webhook_deliveries_claimed_idx ON routines.webhook_deliveries (collection_id, lane) WHERE claimed_at IS NOT NULL;
-- A routine's deliveries, newest first.
CREATE INDEX webhook_deliveries_routine_id_idx ON routines.webhook_deliveries (routine_id, id);
-- A run's deliveries.
CREATE INDEX webhook_deliveries_trajectory_id_idx ON routines.webhook_deliveries (trajectory_id);
-- Due webhooks that need a secret, for routines.forget_secrets.
CREATE INDEX webhook_deliveries_secret_id_idx ON routines.webhook_deliveries (secret_id)
    WHERE secret_id IS NOT NULL AND next_attempt_at IS NOT NULL;
COMMENT ON TABLE  routines.webhook_deliveries IS
    'The outbox of completion webhooks, written in the transaction that ends the run, and of notices of alerts.';
COMMENT ON COLUMN routines.webhook_deliveries.id IS 'Database id, and `id` in the API.';
COMMENT ON COLUMN routines.webhook_deliveries.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.webhook_deliveries.trajectory_id IS 'The run that ended; null for a notice.';
COMMENT ON COLUMN routines.webhook_deliveries.routine_id IS 'The routine that started the run; null if the API started it, and for a notice.';
COMMENT ON COLUMN routines.webhook_deliveries.rule_id IS 'Of a notice: the rule, which may have been deleted; null for the webhook of a run.';
COMMENT ON COLUMN routines.webhook_deliveries.event_id IS
    'The webhook-id of every attempt. Random, so that after a restore no other event gets the same id, which a receiver would take for a repetition.';
COMMENT ON COLUMN routines.webhook_deliveries.event_status IS
    'The final status that it reports; the run may have been archived since. Of a notice: the event, recovered or digest.';
COMMENT ON COLUMN routines.webhook_deliveries.url IS
    'The URL to send to, as it was when the run was created or the notice queued.';
COMMENT ON COLUMN routines.webhook_deliveries.host IS 'Host and port of the URL: the receiver.';
COMMENT ON COLUMN routines.webhook_deliveries.lane IS
    'A hash of the host. Deliveries to one receiver wait for each other, never for those to other receivers.';
COMMENT ON COLUMN routines.webhook_deliveries.secret_id IS 'The secret that signs it; null for unsigned.';
COMMENT ON COLUMN routines.webhook_deliveries.body IS
    'The body, the same bytes at every attempt; null before the first, but for notices.';
COMMENT ON COLUMN routines.webhook_deliveries.fence IS 'Raised by every claim. Every later write of the worker names it.';
COMMENT ON COLUMN routines.webhook_deliveries.claimed_at IS
    'When a worker claimed it; null if it is not claimed. The lease ends at next_attempt_at.';
COMMENT ON COLUMN routines.webhook_deliveries.attempts IS
    'The newest 50 attempts: {at, status, error, duration_seconds}, and of the newest three, if they failed, what was answered: {status, headers, body, truncated}, at most 4 KiB of the body.';
COMMENT ON COLUMN routines.webhook_deliveries.failures IS
    'Failed attempts since it was created or requested again: its place in the retry schedule.';
COMMENT ON COLUMN routines.webhook_deliveries.is_redelivery IS
    'True if a person requested it again: the next attempt is made even if the endpoint is stopped.';
COMMENT ON COLUMN routines.webhook_deliveries.next_attempt_at IS
    'When to try next, or when the lease of the worker that is trying ends; null once delivered or given up.';
COMMENT ON COLUMN routines.webhook_deliveries.created_at IS 'When the run ended, or the notice was queued.';
COMMENT ON COLUMN routines.webhook_deliveries.delivered_at IS 'When the receiver last accepted it; null if it has not.';
COMMENT ON COLUMN routines.webhook_deliveries.give_up_reason IS 'Why it is not tried again; null if delivered or still due.';
SELECT routines.protect('routines.webhook_deliveries');

CREATE FUNCTION routines.with_attempt(
    attempts jsonb, at timestamptz, status integer, error text, duration_seconds float8, answer jsonb DEFAULT NULL
) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE RETURN
    (CASE WHEN jsonb_array_length(attempts) >= 50 THEN attempts - 0 ELSE attempts END || (jsonb_build_object(
        'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'status', status, 'error', error,
        'duration_seconds', duration_seconds)
     || CASE WHEN answer IS NULL THEN '{}' ELSE jsonb_build_object('answer', answer) END)) #- '{-4,answer}';
COMMENT ON FUNCTION routines.with_attempt IS
    'The attempts of a delivery with one more appended. The newest 50 are kept, and what was answered to the newest three of these, if they failed.';

CREATE FUNCTION routines.forget_secrets_of_ended() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended record;
BEGIN
    IF NOT EXISTS (SELECT FROM after WHERE secret_id IS NOT NULL AND next_attempt_at IS NULL) THEN
        RETURN NULL;
    END IF;
    -- Of two deliveries that end at once, the second waits here and then sees that the first has ended. All secrets are locked
    -- in one order, so that two workers that settle many deliveries do not wait for each other.
    PERFORM FROM routines.secrets
    WHERE id IN (SELECT before.secret_id FROM before JOIN after USING (id)
                 WHERE before.next_attempt_at IS NOT NULL AND after.next_attempt_at IS NULL)
    ORDER BY id FOR UPDATE;
    FOR ended IN
        SELECT before.routine_id, array_agg(DISTINCT before.secret_id) AS secret_ids FROM before JOIN after USING (id)
        WHERE before.secret_id IS NOT NULL AND before.next_attempt_at IS NOT NULL AND after.next_attempt_at IS NULL
        GROUP BY before.routine_id
    LOOP
        PERFORM routines.forget_secrets(ended.secret_ids, ended.routine_id, NULL);
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secrets_of_ended IS 'Deletes secrets after the last delivery that needed them has ended.';
CREATE TRIGGER forget_secrets_of_ended AFTER UPDATE ON routines.webhook_deliveries
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION routines.forget_secrets_of_ended();

CREATE FUNCTION routines.forget_secret_of_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM routines.secrets WHERE id = OLD.secret_id FOR UPDATE;
    PERFORM routines.forget_secrets(ARRAY[OLD.secret_id], OLD.routine_id, NULL);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secret_of_deleted IS 'Deletes a secret after the last delivery that needed it was deleted.';
CREATE TRIGGER forget_secret_of_deleted AFTER DELETE ON routines.webhook_deliveries
    FOR EACH ROW WHEN (OLD.secret_id IS NOT NULL AND OLD.next_attempt_at IS NOT NULL)
    EXECUTE FUNCTION routines.forget_secret_of_deleted();

CREATE FUNCTION routines.note_given_up() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.alert_events (collection_id, routine_id, event, subject, trajectory_id, detail)
    SELECT NEW.collection_id, NEW.routine_id, 'webhook_stopped', 'webhook:' || NEW.id, NEW.trajectory_id,
           format('the webhook of run %s to %s was given up: %s', NEW.trajectory_id, NEW.host, NEW.give_up_reason)
    WHERE EXISTS (SELECT FROM routines.alert_rules WHERE collection_id = NEW.collection_id);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_given_up IS 'Notes that a webhook of a routine was given up, if its collection has rules.';
CREATE TRIGGER note_given_up AFTER UPDATE OF give_up_reason ON routines.webhook_deliveries
    FOR EACH ROW WHEN (NEW.routine_id IS NOT NULL AND NEW.give_up_reason IS NOT NULL AND OLD.give_up_reason IS NULL)
    EXECUTE FUNCTION routines.note_given_up();

------------------------------------------------------------------------------------------------------------------ bodies
CREATE FUNCTION routines.json_time(at timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE RETURN
    coalesce('"' || replace(to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '.000000', '') || 'Z"', 'null');
COMMENT ON FUNCTION routines.json_time IS 'A time as JSON, as the API writes it; null for null.';

-- jsonb writes all digits of a number: 1e22 is an integer of 23 digits, and 1e300 one of 301. Floats have at most 17
-- significant digits, so the others are zeros, which an exponent replaces. The number stays the same. Integers beyond bigint
-- with more digits come from activities, and stay as they are. The same rule in Python: src/routines_core/json_numbers.py.
CREATE FUNCTION routines.json_text(written text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (
        SELECT string_agg(CASE
            WHEN token ~ '^-?[0-9]{19,}$' AND length(trim(token, '-0')) <= 17
                 AND token::numeric NOT BETWEEN -9223372036854775808 AND 9223372036854775807
                 AND abs(token::numeric) <= 1.7976931348623157e308
            THEN rtrim(token, '0') || 'e' || length(token) - length(rtrim(token, '0'))
            WHEN token ~ '^-?0\.0[0-9]{18,}$' AND length(ltrim(token, '-0.')) <= 17
            THEN regexp_replace(token, '^(-?)0\.0*([0-9]+)$', '\1\2') || 'e-' || length(split_part(token, '.', 2))
            ELSE token END, '' ORDER BY number)
        FROM regexp_matches(written, '"(?:[^"\\]|\\.)*"|-?[0-9.]+|[^"0-9-]+', 'g') WITH ORDINALITY AS matched (parts, number)
        CROSS JOIN LATERAL (SELECT parts[1] AS token) AS first);
END $$;
COMMENT ON FUNCTION routines.json_text IS 'The text of a jsonb value with floats in a short form; null for null.';

CREATE FUNCTION routines.json_within(value jsonb, most_bytes integer) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    shown text;
BEGIN
    IF pg_column_size(value) > most_bytes THEN  -- the size as stored: a large value is not even read
        RETURN NULL;
    END IF;
    shown := coalesce(value::text, 'null');  -- may be longer: values are stored compressed
    IF shown ~ '[0-9]{19}' THEN
        shown := routines.json_text(shown);
    END IF;
    RETURN CASE WHEN octet_length(shown) <= most_bytes THEN shown END;
END $$;
COMMENT ON FUNCTION routines.json_within IS 'A value as text; null if it takes more than most_bytes, whether stored or written.';

CREATE FUNCTION routines.webhook_steps(
    run_id bigint, kept_steps jsonb, most_value_bytes integer, most_bytes integer, OUT shown text, OUT is_cut boolean
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    step record;
    head text;
    tail text;
    outputs text;
    inputs text;
    most integer;
    room integer := most_bytes;
    wasted integer := 0;
    steps text[] := '{}';
BEGIN
    is_cut := false;
    -- From the last step back, since the results stand at the end.
    FOR step IN SELECT * FROM routines.steps_of(run_id, kept_steps) ORDER BY position DESC LOOP
        head := format('%s:{"status":%s,"activity":%s', to_json(step.name), to_json(step.status), to_json(step.activity));
        tail := format(
            '"created":%s,"ended":%s,"duration_seconds":%s,"error":%s%s', routines.json_time(step.created_at),
            routines.json_time(step.ended_at),
            coalesce(extract(epoch FROM step.ended_at - step.created_at)::float8::text, 'null'),
            coalesce(to_json(step.error)::text, 'null'), ',"kept_from":' || nullif(step.trajectory_id, run_id));
        room := room - octet_length(head) - octet_length(tail) - 60;  -- the rest of the step's punctuation
        IF room < 0 THEN
            is_cut := true;
            EXIT;
        END IF;
        -- A value that proves too large only when it is written has cost time. After a few of them no more are read.
        most := CASE WHEN wasted < 4 THEN least(most_value_bytes, room) ELSE 0 END;
        outputs := routines.json_within(step.outputs, most);
        wasted := wasted + (outputs IS NULL AND pg_column_size(step.outputs) <= most)::integer;
        room := room - coalesce(octet_length(outputs), 0);
        most := CASE WHEN wasted < 4 THEN least(most_value_bytes, room) ELSE 0 END;
        inputs := routines.json_within(step.inputs, most);
        wasted := wasted + (inputs IS NULL AND pg_column_size(step.inputs) <= most)::integer;
        room := room - coalesce(octet_length(inputs), 0);
        is_cut := is_cut OR inputs IS NULL OR outputs IS NULL;
        steps := format('%s,"inputs":%s,"outputs":%s,%s%s}', head, coalesce(inputs, 'null'), coalesce(outputs, 'null'), tail,
                        CASE WHEN inputs IS NULL OR outputs IS NULL THEN ',"truncated":true' ELSE '' END) || steps;
    END LOOP;
    shown := array_to_string(steps, ',');
END $$;
COMMENT ON FUNCTION routines.webhook_steps IS
    'The steps of a run as members of a JSON object, in at most most_bytes, and whether anything was left out: values that take more than most_value_bytes or do not fit are null, and the first steps are left out if there are too many.';

CREATE FUNCTION routines.webhook_body(
    of_run bigint, event_status text, most_value_bytes integer, most_bytes integer
) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    run record;
    listed record;
    head text;
    tail text;
    params text;
    configs text;
    run_labels text;
    room integer;
BEGIN
    SELECT trajectories.*, collections.name AS collection, coalesce(tasks.name, deleted_tasks.name, 'deleted') AS task,
           coalesce(workflow -> 'step_configs', '{}') AS step_configs,
           coalesce(json_array_length(workflow -> 'steps'), 0) AS total_steps
    INTO run
    FROM routines.trajectories
    JOIN routines.task_versions ON task_versions.task_id = trajectories.task_id
                                AND task_versions.version = trajectories.task_version
    JOIN routines.collections ON collections.id = trajectories.collection_id
    LEFT JOIN routines.tasks ON tasks.id = trajectories.task_id
    LEFT JOIN routines.deleted_tasks ON deleted_tasks.id = trajectories.task_id
    WHERE trajectories.id = of_run;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    head := format(
        '"trajectory_id":%s,"workflow_id":%s,"run_id":%s,"name":%s,"status":%s,"created":%s,"updated":%s,"created_at":%s,'
        '"started_at":%s,"ended_at":%s',
        of_run, to_json(routines.workflow_id(run.collection, run.task, of_run)), to_json(routines.run_id(of_run, run.created_at, run.nonce)),
        to_json(run.collection || '/' || run.task), to_json(event_status), routines.json_time(run.created_at),
        routines.json_time(run.updated_at), routines.json_time(run.created_at), routines.json_time(run.started_at),
        routines.json_time(run.ended_at));
    tail := format(
        '"total_steps":%s,"completed_steps":%s,"error":%s,"triggered_by_routine_id":%s,"scheduled_for":%s,"trigger":%s,'
        '"webhook_url":%s%s%s%s%s%s%s%s%s',
        run.total_steps, (SELECT count(*) FROM routines.steps WHERE trajectory_id = of_run AND steps.status = 'completed')
                         + (SELECT count(*) FROM jsonb_object_keys(run.kept_steps)),
        coalesce(to_json(run.error)::text, 'null'), coalesce(run.triggered_by_routine_id::text, 'null'),
        routines.json_time(run.scheduled_for), to_json(run.trigger), coalesce(to_json(run.webhook_url)::text, 'null'),
        ',"retry_of":' || run.retry_of, ',"retry_number":' || run.retry_number, ',"rerun_of":' || run.rerun_of,
        ',"kept_steps":' || run.kept_steps::text,
        ',"backfill_id":' || run.backfill_id || ',"fills_slot":' || routines.json_time(run.fills_slot),
        ',"routine_revision":' || nullif(routines.revision_of_run(of_run), 1),
        ',"parent_trajectory_id":' || run.parent_id,
        ',"parent_name":' || (SELECT to_json(routines.run_name(parents)) FROM routines.trajectories AS parents
                              WHERE parents.id = run.parent_id));
    room := most_bytes - octet_length(head) - octet_length(tail) - 100;  -- the remaining names and punctuation
    params := routines.json_within(run.init_params, least(most_value_bytes, room));
    room := room - coalesce(octet_length(params), 0);
    run_labels := routines.json_within(run.labels, least(most_value_bytes, room));
    room := room - coalesce(octet_length(run_labels), 0);
    SELECT * INTO listed FROM routines.webhook_steps(of_run, run.kept_steps, most_value_bytes, room);
    room := room - octet_length(listed.shown);
    configs := CASE WHEN octet_length(run.step_configs::text) <= least(most_value_bytes, room) THEN run.step_configs::text END;
    RETURN format(
        '{%s,"init_params":%s,"step_configs":%s,"steps":{%s},"labels":%s,%s%s}', head, coalesce(params, 'null'),
        coalesce(configs, 'null'), listed.shown, coalesce(run_labels, 'null'), tail,
        CASE WHEN listed.is_cut OR params IS NULL OR run_labels IS NULL OR configs IS NULL THEN ',"truncated":true'
             ELSE '' END);
END $$;
COMMENT ON FUNCTION routines.webhook_body IS
    'The run as the API shows it, with the status in which it ended, as JSON of at most most_bytes. Values that take more than most_value_bytes, or do not fit, are null, and their step and the whole then say truncated: true.';

-- No triggers.
CREATE TABLE routines.webhook_endpoints (
    id             bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT webhook_endpoints_pkey PRIMARY KEY,
    collection_id  bigint NOT NULL,
    url            text NOT NULL,
    lane           integer NOT NULL GENERATED ALWAYS AS (
                   ('x' || left(md5(coalesce(lower(substring(url FROM '^[A-Za-z]+://([^/?#]*)')), '')), 8))::bit(32)::integer) STORED,
    failing_since  timestamptz NOT NULL,
    stopped_at     timestamptz,
    stopped_reason text,
    CONSTRAINT webhook_endpoints_stop_has_reason CHECK ((stopped_at IS NULL) = (stopped_reason IS NULL))
);
-- On a digest, because a URL may exceed the size limit of an index entry.
CREATE UNIQUE INDEX webhook_endpoints_url_key ON routines.webhook_endpoints (collection_id, md5(url));
COMMENT ON TABLE  routines.webhook_endpoints IS
    'Webhook URLs that are failing or were stopped for it. A working URL has no row. DELETE a row in psql to try the URL again; rows expire after 90 days.';
COMMENT ON COLUMN routines.webhook_endpoints.id IS 'Database id.';
COMMENT ON COLUMN routines.webhook_endpoints.collection_id IS 'The tenant. Failures in another collection stop nothing here.';
COMMENT ON COLUMN routines.webhook_endpoints.url IS 'The whole URL.';
COMMENT ON COLUMN routines.webhook_endpoints.lane IS 'Same as in webhook_deliveries.';
COMMENT ON COLUMN routines.webhook_endpoints.failing_since IS 'The first failure since it last worked.';
COMMENT ON COLUMN routines.webhook_endpoints.stopped_at IS 'When sending to it was stopped; null while it is still tried.';
COMMENT ON COLUMN routines.webhook_endpoints.stopped_reason IS 'Why it was stopped; null while it is still tried.';
SELECT routines.protect('routines.webhook_endpoints');

-- == sql/schema/09_secrets.sql

-- Ciphertexts. Other rows refer to them by id; only workers decrypt them.

-- No triggers.
CREATE TABLE routines.secrets (
    id            uuid CONSTRAINT secrets_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT secrets_collection_id_fkey REFERENCES routines.collections (id),
    kind          text NOT NULL CONSTRAINT secrets_kind_is_known
                  CHECK (kind IN ('secret_param', 'webhook_secret', 'environment')),
    field         text NOT NULL,
    owner         text NOT NULL CONSTRAINT secrets_owner_is_known CHECK (owner ~ '^((routine|run|rule):[1-9][0-9]*)?$'),
    key_id        text NOT NULL,
    ciphertext    bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX secrets_key_id_idx ON routines.secrets (key_id);
COMMENT ON TABLE  routines.secrets IS
    'AES-256-GCM ciphertexts. The associated data binds each to its collection, kind, field, owner and id.';
COMMENT ON COLUMN routines.secrets.id IS 'Chosen by the program that encrypts, because the ciphertext authenticates it.';
COMMENT ON COLUMN routines.secrets.collection_id IS 'The tenant. Authenticated.';
COMMENT ON COLUMN routines.secrets.kind IS 'What it is used for. Authenticated.';
COMMENT ON COLUMN routines.secrets.field IS
    'The name of the secret param or environment variable; empty for a webhook secret. Authenticated.';
COMMENT ON COLUMN routines.secrets.owner IS
    'routine:<id>, run:<trajectory id> or rule:<id> of an alert rule; empty for the collection itself. Authenticated. A program that decrypts takes collection, field and owner from the row that refers to the secret, never from here; these columns serve rotation and the doctor.';
COMMENT ON COLUMN routines.secrets.key_id IS 'The key of ROUTINES_ENCRYPTION_KEYS that opens it. Rotation searches by it.';
COMMENT ON COLUMN routines.secrets.ciphertext IS 'Version, key id, nonce, ciphertext and tag.';
COMMENT ON COLUMN routines.secrets.created_at IS 'When it was stored.';
SELECT routines.protect('routines.secrets');

-- Rules are few, so a foreign key does what a trigger does for routines.
ALTER TABLE routines.alert_rules ADD CONSTRAINT alert_rules_webhook_secret_id_fkey
    FOREIGN KEY (webhook_secret_id) REFERENCES routines.secrets (id);

-- A secret is deleted when a routine or a rule replaces it or is deleted, and when the last run or webhook that needs it has
-- ended.
CREATE FUNCTION routines.forget_secrets(secret_ids uuid[], of_routine_id bigint, but_trajectory_id bigint) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM routines.secrets WHERE id = ANY (forget_secrets.secret_ids)
        AND NOT EXISTS (SELECT FROM routines.routines WHERE routines.id = of_routine_id
                        AND secrets.id = ANY (routines.secret_ids(secret_refs, webhook_secret_id)))
        AND NOT EXISTS (SELECT FROM routines.alert_rules WHERE webhook_secret_id = secrets.id)
        -- The routine's own active runs, each kind by its index.
        AND NOT EXISTS (SELECT FROM routines.trajectories
                        WHERE triggered_by_routine_id = of_routine_id AND trigger = 'schedule' AND place IS NULL AND final_status IS NULL
                          AND trajectories.id IS DISTINCT FROM but_trajectory_id
                          AND secrets.id = ANY (routines.secret_ids(secret_refs, webhook_secret_id)))
        AND NOT EXISTS (SELECT FROM routines.trajectories
                        WHERE triggered_by_routine_id = of_routine_id AND (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL
                          AND trajectories.id IS DISTINCT FROM but_trajectory_id
                          AND secrets.id = ANY (routines.secret_ids(secret_refs, webhook_secret_id)))
        AND NOT EXISTS (SELECT FROM routines.webhook_deliveries
                        WHERE secret_id = secrets.id AND next_attempt_at IS NOT NULL);
$$;
COMMENT ON FUNCTION routines.forget_secrets IS
    'Deletes those of these secrets that neither the routine, nor another active run of it, nor a rule, nor a due webhook still needs.';

-- == sql/schema/10_files.sql

-- Which runs use which files, so that a file is deleted after the last run that uses it. A run uses the files that its
-- parameters, inputs and outputs name and those that its steps saved. They are recognized by the form of a path, in the
-- transaction that writes it, so a statement typed in psql counts too. The queries that delete are in queries/retention.sql.

CREATE FUNCTION routines.file_paths(text) RETURNS SETOF text LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1 AS $$
    SELECT DISTINCT found[1] FROM regexp_matches($1, '([0-9a-f]{32}-[A-Za-z0-9_-][A-Za-z0-9._-]{0,99})', 'g') AS found;
$$;
COMMENT ON FUNCTION routines.file_paths IS
    'Everything in a text that has the form of a file''s path. In running text a result may end in extra characters, so compare by file_id.';
CREATE FUNCTION routines.file_id(path text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(path FROM '[0-9a-f]{32}');
COMMENT ON FUNCTION routines.file_id IS 'The 128 random bits at the start of a file''s path, unique to the file.';

-- Triggers:
--   AFTER DELETE  note_unused_file  if it was the last use: adds the file to unused_files
CREATE TABLE routines.file_uses (
    trajectory_id bigint NOT NULL CONSTRAINT file_uses_trajectory_id_fkey REFERENCES routines.trajectories (id) ON DELETE CASCADE,
    path          text NOT NULL,
    collection_id bigint NOT NULL,
    CONSTRAINT file_uses_pkey PRIMARY KEY (trajectory_id, path)
);
CREATE INDEX file_uses_file_idx ON routines.file_uses (collection_id, routines.file_id(path));
COMMENT ON TABLE  routines.file_uses IS
    'Files that a run was given, saved, or names in its parameters, inputs or outputs. A file is kept as long as one such run exists.';
COMMENT ON COLUMN routines.file_uses.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.file_uses.path IS 'The file''s path within the collection. The file may not exist.';
COMMENT ON COLUMN routines.file_uses.collection_id IS 'The tenant.';
SELECT routines.protect('routines.file_uses');

-- No triggers.
CREATE TABLE routines.unused_files (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT unused_files_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    path          text NOT NULL,
    noted_at      timestamptz NOT NULL DEFAULT now(),
    condemned_at  timestamptz
);
CREATE UNIQUE INDEX unused_files_file_key ON routines.unused_files (collection_id, routines.file_id(path));
COMMENT ON TABLE  routines.unused_files IS 'Files to delete because no run uses them. A row is deleted once its file is.';
COMMENT ON COLUMN routines.unused_files.id IS 'Database id.';
COMMENT ON COLUMN routines.unused_files.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.unused_files.path IS
    'The file''s path within the collection; with a leading dot, a file that was begun and never finished.';
COMMENT ON COLUMN routines.unused_files.noted_at IS
    'When it was found to be unused. It is checked again minutes later, once every transaction open at that moment has ended.';
COMMENT ON COLUMN routines.unused_files.condemned_at IS
    'When its deletion was decided, after which no use saves it; null before that.';
SELECT routines.protect('routines.unused_files');

-- A use saves a file from deletion unless the deletion was decided before. Both sides lock the row.
CREATE FUNCTION routines.use_files(of_run bigint, of_collection bigint, paths text[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    named text := current_setting('routines.collection_id', true);
BEGIN
    PERFORM set_config('routines.collection_id', '', true);  -- the run's collection may not be the named one
    INSERT INTO routines.file_uses (trajectory_id, path, collection_id)
    SELECT DISTINCT of_run, path, of_collection FROM unnest(paths) AS path
    ON CONFLICT DO NOTHING;
    DELETE FROM routines.unused_files
    WHERE collection_id = of_collection AND condemned_at IS NULL
      AND routines.file_id(path) = ANY (ARRAY(SELECT routines.file_id(used) FROM unnest(paths) AS used));
    PERFORM set_config('routines.collection_id', named, true);
    RETURN true;
END $$;
COMMENT ON FUNCTION routines.use_files IS 'Records that a run uses these files.';
REVOKE EXECUTE ON FUNCTION routines.use_files FROM PUBLIC;

CREATE FUNCTION routines.note_unused_file() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.unused_files (collection_id, path)
    SELECT OLD.collection_id, OLD.path
    WHERE NOT EXISTS (SELECT FROM routines.file_uses
                      WHERE collection_id = OLD.collection_id AND routines.file_id(path) = routines.file_id(OLD.path))
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_unused_file IS 'Marks a file for deletion once the last run that used it is gone.';
CREATE TRIGGER note_unused_file AFTER DELETE ON routines.file_uses
    FOR EACH ROW EXECUTE FUNCTION routines.note_unused_file();

-- == sql/schema/11_feeds.sql

-- Calendar feeds: secret addresses at which a calendar program reads the coming slots without an API key. Statements: queries/feeds.sql.

-- Triggers:
--   AFTER INSERT, UPDATE or DELETE  note_feed  adds to the audit (chapter 15_audit); a reading is no change
--
-- A feed is deleted with its task or routine.
CREATE TABLE routines.feeds (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT feeds_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT feeds_collection_id_fkey REFERENCES routines.collections (id),
    task_id       bigint,
    routine_id    bigint CONSTRAINT feeds_routine_id_fkey REFERENCES routines.routine_names (routine_id) ON UPDATE CASCADE ON DELETE CASCADE,
    secret_hash   bytea NOT NULL CONSTRAINT feeds_secret_hash_is_sha256 CHECK (octet_length(secret_hash) = 32),
    pepper_id     uuid NOT NULL CONSTRAINT feeds_pepper_id_fkey REFERENCES routines.peppers (id),
    created_at    timestamptz NOT NULL DEFAULT now(),
    last_used_at  timestamptz,
    tokens        float8,
    filled_at     timestamptz,
    CONSTRAINT feeds_task_fkey FOREIGN KEY (task_id, collection_id) REFERENCES routines.tasks (id, collection_id) ON DELETE CASCADE,
    CONSTRAINT feeds_routine_has_task CHECK (routine_id IS NULL OR task_id IS NOT NULL)
) WITH (fillfactor = 50);
CREATE INDEX feeds_collection_id_idx ON routines.feeds (collection_id, id);
CREATE INDEX feeds_task_id_idx ON routines.feeds (task_id);
CREATE INDEX feeds_routine_id_idx ON routines.feeds (routine_id);
COMMENT ON TABLE  routines.feeds IS
    'Calendar feeds, rtf_<id>_<secret><checksum>. The secret is shown once, at creation; only its hash is stored.';
COMMENT ON COLUMN routines.feeds.id IS 'The <id> of its token, and `id` in the API.';
COMMENT ON COLUMN routines.feeds.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.feeds.task_id IS 'The task whose routines it shows; null for all tasks.';
COMMENT ON COLUMN routines.feeds.routine_id IS 'The routine that it shows; null for all routines.';
COMMENT ON COLUMN routines.feeds.secret_hash IS 'HMAC-SHA256 of the secret part, keyed with the pepper, as in api_keys.';
COMMENT ON COLUMN routines.feeds.pepper_id IS 'The pepper that keys its hash.';
COMMENT ON COLUMN routines.feeds.created_at IS 'When it was created.';
COMMENT ON COLUMN routines.feeds.last_used_at IS 'When it was last read, to the minute; null if never.';
COMMENT ON COLUMN routines.feeds.tokens IS 'How often it could be read at once at filled_at; null if it was never read.';
COMMENT ON COLUMN routines.feeds.filled_at IS 'When tokens was computed.';
SELECT routines.protect('routines.feeds');

-- The next three functions are all that a feed's token may do. They run as the owner, and no collection is named once they have
-- returned, so the rest of the transaction sees nothing.
CREATE FUNCTION routines.feed_to_check(of_feed bigint)
RETURNS TABLE (secret_hash bytea, pepper_id uuid, collection_id bigint, title text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    PERFORM set_config('routines.collection_id', '', true);
    RETURN QUERY
    SELECT feeds.secret_hash, feeds.pepper_id, feeds.collection_id, concat_ws('/', collections.name, tasks.name, routine_names.name)
    FROM routines.feeds
    JOIN routines.collections ON collections.id = feeds.collection_id
    LEFT JOIN routines.tasks ON tasks.id = feeds.task_id
    LEFT JOIN routines.routine_names ON routine_names.routine_id = feeds.routine_id AND routine_names.collection_id = feeds.collection_id
    WHERE feeds.id = of_feed;
END $$;
COMMENT ON FUNCTION routines.feed_to_check IS
    'The hash of one feed, to compare a token with, its tenant, and what it shows: collection/task/routine. No collection is named afterwards.';

CREATE FUNCTION routines.take_feed_tokens(of_feed bigint, wanted float8, rate float8, burst float8) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    clock timestamptz := clock_timestamp();
BEGIN
    PERFORM set_config('routines.collection_id', '', true);
    UPDATE routines.feeds
    SET tokens = least(burst, coalesce(tokens + rate * greatest(0, extract(epoch FROM clock - filled_at)::float8), burst)) - wanted,
        filled_at = greatest(filled_at, clock), last_used_at = date_trunc('minute', clock)
    WHERE id = of_feed
      AND least(burst, coalesce(tokens + rate * greatest(0, extract(epoch FROM clock - filled_at)::float8), burst)) >= wanted;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION routines.take_feed_tokens IS
    'Takes `wanted` tokens out of a feed''s bucket, which holds at most `burst` and gains `rate` per second, and records that it was read. Returns false if it holds too few.';

-- Most cron routines need no computing: the slots in `upcoming` reach that far. slots_between is in the chapter on planning.
CREATE FUNCTION routines.slots_of_routines(ids bigint[], firsts timestamptz[], from_time timestamptz, until_time timestamptz)
RETURNS TABLE (routine_id bigint, slot timestamptz) LANGUAGE plpgsql STABLE ROWS 1000 AS $$
BEGIN
    RETURN QUERY
    SELECT due.id, due.first_slot
    FROM unnest(ids, firsts) AS due (id, first_slot)
    JOIN routines.routines AS routine ON routine.id = due.id
    WHERE due.first_slot >= from_time AND due.first_slot < until_time
      AND CASE WHEN routines.has_exclusions(routine) THEN NOT routines.is_excluded(routine, first_slot) ELSE true END
    UNION ALL
    SELECT routine.id, coming.slot
    FROM unnest(ids, firsts) AS due (id, first_slot)
    JOIN routines.routines AS routine ON routine.id = due.id
    CROSS JOIN LATERAL unnest(CASE
        WHEN upcoming[1] <= first_slot AND upcoming[cardinality(upcoming)] >= until_time THEN upcoming
        ELSE ARRAY(SELECT routines.slots_between(routines.cadence_of(routine), greatest(from_time, first_slot), until_time))
        END) AS coming (slot)
    WHERE first_slot < until_time AND coming.slot > first_slot AND coming.slot >= from_time AND coming.slot < until_time
      AND CASE WHEN routines.has_exclusions(routine) THEN NOT routines.is_excluded(routine, coming.slot) ELSE true END;
END $$;
COMMENT ON FUNCTION routines.slots_of_routines IS
    'The slots of these routines at or after from_time and before until_time, given the first coming slot of each, without those that calendars or active hours exclude.';

-- Finds first where the answer ends: at until_time, at the first slot of a routine beyond routine_limit, or at the slot beyond slot_limit.
-- It has all slots before that; if there is none, because too many routines begin together, some of them. The spans that are searched grow, so that few slots are computed in vain.
CREATE FUNCTION routines.feed_slots(
    of_feed bigint, from_time timestamptz, until_time timestamptz, slot_limit integer, routine_limit integer
) RETURNS TABLE (routine_id bigint, routine text, cadence text, updated_at timestamptz, seconds float8, slots timestamptz[],
                 complete_until timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 10 AS $$
#variable_conflict use_column
DECLARE
    feed     routines.feeds;
    ids      bigint[];
    firsts   timestamptz[];
    complete timestamptz;
    end_time timestamptz;
    upto     timestamptz;
    beyond   timestamptz;
    hours    integer;
BEGIN
    PERFORM set_config('routines.collection_id', '', true);
    SELECT * INTO feed FROM routines.feeds WHERE id = of_feed;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'feed % is unknown or was revoked', of_feed USING ERRCODE = 'RT404';
    END IF;
    PERFORM set_config('routines.collection_id', feed.collection_id::text, true);
    SELECT array_agg(id ORDER BY first_slot, id), array_agg(first_slot ORDER BY first_slot, id) INTO ids, firsts
    FROM (SELECT routines.id, first_slot
          FROM routines.routine_names
          JOIN routines.routines ON routines.id = routine_names.routine_id
          CROSS JOIN LATERAL (SELECT coalesce(routines.without_spread(routines, next_run_at),
                                              routines.slot_after_pause(routines)) AS kept) AS planned
          -- One that has not fired yet is not shown. It would count as the earliest slot of all.
          CROSS JOIN LATERAL (SELECT CASE WHEN kept < from_time
                                          THEN routines.next_fire(routines.cadence_of(routines), from_time - interval '1 microsecond')
                                          ELSE kept END AS first_slot) AS coming
          WHERE routine_names.collection_id = feed.collection_id
            AND (feed.task_id IS NULL OR routine_names.task_id = feed.task_id OR routine_names.routine_id = feed.routine_id)
            AND (feed.routine_id IS NULL OR routine_names.routine_id = feed.routine_id)
            AND first_slot < until_time
          ORDER BY first_slot, routines.id LIMIT routine_limit + 1) AS chosen;
    complete := firsts[routine_limit + 1];
    -- If more than routine_limit routines begin together, it shows so many of them, since a calendar without events would mislead.
    end_time := CASE WHEN complete IS NULL THEN until_time ELSE greatest(complete, firsts[1] + interval '1 microsecond') END;
    ids := ids[:routine_limit];
    firsts := firsts[:routine_limit];
    FOREACH hours IN ARRAY '{1,6,36,216,NULL}'::integer[] LOOP
        upto := least(from_time + make_interval(hours => hours), end_time);
        beyond := (SELECT slot FROM routines.slots_of_routines(ids, firsts, from_time, upto) ORDER BY slot OFFSET slot_limit LIMIT 1);
        end_time := coalesce(beyond, end_time);
        complete := least(complete, beyond);
        EXIT WHEN beyond IS NOT NULL OR upto = end_time;
    END LOOP;
    RETURN QUERY
    WITH coming AS MATERIALIZED (
        SELECT routine_id, array_agg(slot ORDER BY slot) AS slots FROM routines.slots_of_routines(ids, firsts, from_time, end_time) GROUP BY 1
    ),
    shown AS MATERIALIZED (
        SELECT routines.id, routines.task_id, routines.name, routines.cadence_of(routines) AS cadence, routines.updated_at, coming.slots
        FROM coming JOIN routines.routines ON routines.id = coming.routine_id
    ),
    lasting AS MATERIALIZED (
        SELECT task_id, routines.usual_seconds(task_id) AS seconds FROM (SELECT DISTINCT task_id FROM shown) AS of_shown
    )
    SELECT shown.id, concat_ws('/', tasks.name, shown.name), routines.cadence_in_words(shown.cadence) || CASE WHEN (shown.cadence).timezone IS NULL THEN ' (UTC)' ELSE '' END, shown.updated_at, lasting.seconds,
           shown.slots, complete
    FROM shown JOIN routines.tasks ON tasks.id = shown.task_id JOIN lasting ON lasting.task_id = shown.task_id
    ORDER BY 2;
    PERFORM set_config('routines.collection_id', '', true);
END $$;
COMMENT ON FUNCTION routines.feed_slots IS
    'What a feed shows: its routines with their slots at or after from_time, all those before until_time, or before complete_until if there are more than slot_limit slots or routine_limit routines; if so many begin together, some of the slots at complete_until. Raises RT404 for a feed that does not exist. No collection is named afterwards.';
REVOKE EXECUTE ON FUNCTION routines.feed_to_check, routines.take_feed_tokens, routines.feed_slots FROM PUBLIC;

-- == sql/schema/11_temporal.sql

-- Runs that Temporal executes, where it is the engine. Why this design: docs/decisions/0016. Statements: queries/dispatches.sql.

-- No triggers. What is still to be settled between the two: only as many rows as Temporal currently has runs. The
-- trigger follow_end of trajectories deletes the row of a run that Temporal itself ended.
CREATE TABLE routines.dispatches (
    trajectory_id bigint CONSTRAINT dispatches_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    workflow_id   text NOT NULL,
    generation    integer NOT NULL,
    fence         integer NOT NULL,
    sequence      integer NOT NULL DEFAULT 0,
    attempt       integer NOT NULL DEFAULT 0,
    holder        text NOT NULL DEFAULT '',
    is_left       boolean NOT NULL DEFAULT true,
    waits         boolean NOT NULL DEFAULT false,
    dispatched_at timestamptz NOT NULL DEFAULT now(),
    submitted_at  timestamptz,
    checked_at    timestamptz NOT NULL DEFAULT now(),
    told_at       timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
COMMENT ON TABLE  routines.dispatches IS
    'Runs dispatched to Temporal: written with the claim, before Temporal is called, and deleted once both sides know the end.';
COMMENT ON COLUMN routines.dispatches.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.dispatches.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.dispatches.workflow_id IS 'Its id in Temporal, which accepts each id once: its workflow_id and run_id.';
COMMENT ON COLUMN routines.dispatches.generation IS
    'The run''s fence at the dispatch. It tells this dispatch from an earlier one of the same run that may still act in Temporal.';
COMMENT ON COLUMN routines.dispatches.fence IS
    'The fence of the current holder. If the trajectory''s fence differs, the run was taken from Temporal.';
COMMENT ON COLUMN routines.dispatches.sequence IS 'The activity of the workflow that has the run, counted from 1; 0 before the first.';
COMMENT ON COLUMN routines.dispatches.attempt IS 'The attempt of that activity, as Temporal counts.';
COMMENT ON COLUMN routines.dispatches.holder IS
    'Random, new for each claim of the run, so that a claim that was sent twice is known as one.';
COMMENT ON COLUMN routines.dispatches.is_left IS
    'True if the holder released the run cleanly, as at a shutdown or before a wait: the next one does not count as a crash.';
COMMENT ON COLUMN routines.dispatches.waits IS 'True while its step waits for children, during which it counts towards no limit.';
COMMENT ON COLUMN routines.dispatches.dispatched_at IS 'When it was claimed for Temporal.';
COMMENT ON COLUMN routines.dispatches.submitted_at IS 'When Temporal confirmed that it has the run; null if it has not confirmed it.';
COMMENT ON COLUMN routines.dispatches.checked_at IS 'When Temporal was last asked for its state.';
COMMENT ON COLUMN routines.dispatches.told_at IS
    'When Temporal was last told that the run was taken from it; null if it was not told or need not be.';
SELECT routines.protect('routines.dispatches');

-- == sql/schema/12_backfills.sql

-- Backfills: a range of nominal slots is filled afterwards. For each slot whose run is missing, or is to be repeated, a ticker starts a
-- run that knows the slot as its own. It starts a few at a time, so a backfill of a year is one row until its runs are started.
--
-- The ledger stays as it was written. A slot with a run gets a later attempt, as by a rerun, and its outcome follows that. A skip
-- stays a skip and says filled_by. A slot without a row is one from before the routine existed, or one that retention has deleted.
-- trajectories_fill_key keeps two runs from filling one slot, as trajectories_slot_key does for scheduled runs.

-- Triggers:
--   BEFORE INSERT  check_backfill     rejects what cannot be filled, and fills in collection_id and made_by
CREATE TABLE routines.backfills (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT backfills_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    routine_id    bigint NOT NULL,
    from_time     timestamptz NOT NULL,
    until_time    timestamptz NOT NULL,
    reprocess     text NOT NULL DEFAULT 'missing' CONSTRAINT backfills_reprocess_is_known
                  CHECK (reprocess IN ('missing', 'failed', 'all')),
    slot_order    text NOT NULL DEFAULT 'oldest' CONSTRAINT backfills_slot_order_is_known CHECK (slot_order IN ('oldest', 'newest')),
    max_active    smallint NOT NULL DEFAULT 1 CONSTRAINT backfills_max_active_in_range CHECK (max_active BETWEEN 1 AND 20),
    created_at    timestamptz NOT NULL DEFAULT now(),
    made_by       text NOT NULL,
    reached       timestamptz,
    started       integer NOT NULL DEFAULT 0,
    left_out      integer NOT NULL DEFAULT 0,
    next_look_at  timestamptz NOT NULL DEFAULT now(),
    held_by       text,
    ended_at      timestamptz,
    end_reason    text CONSTRAINT backfills_end_reason_is_known CHECK (end_reason IN ('expanded', 'cancelled', 'routine_deleted')),
    CONSTRAINT backfills_range_is_ordered CHECK (from_time < until_time),
    CONSTRAINT backfills_end_has_reason CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
-- All that a ticker looks at while there is nothing to fill.
CREATE INDEX backfills_open_idx ON routines.backfills (next_look_at) WHERE ended_at IS NULL;
CREATE INDEX backfills_routine_id_idx ON routines.backfills (routine_id, id);
COMMENT ON TABLE  routines.backfills IS
    'Ranges of slots that are filled afterwards. INSERT INTO routines.backfills (routine_id, from_time, until_time) VALUES (1, ''2026-05-01Z'', ''2026-06-01Z''); first look at routines.slots_to_fill().';
COMMENT ON COLUMN routines.backfills.id IS 'Database id.';
COMMENT ON COLUMN routines.backfills.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.backfills.routine_id IS 'The routine, which may have been deleted.';
COMMENT ON COLUMN routines.backfills.from_time IS 'No slot is earlier.';
COMMENT ON COLUMN routines.backfills.until_time IS 'Every slot is earlier. Never in the future.';
COMMENT ON COLUMN routines.backfills.reprocess IS
    'missing: slots without a run. failed: also those whose last attempt failed or was cancelled. all: also those that completed, and those that retention has forgotten.';
COMMENT ON COLUMN routines.backfills.slot_order IS 'oldest: the oldest slot first. newest: the newest slot first.';
COMMENT ON COLUMN routines.backfills.max_active IS 'How many of its runs may be active at once.';
COMMENT ON COLUMN routines.backfills.created_at IS 'When it was requested.';
COMMENT ON COLUMN routines.backfills.made_by IS 'Who requested it: key 7, operator, or login postgres.';
COMMENT ON COLUMN routines.backfills.reached IS 'The last slot that was decided; null at the start.';
COMMENT ON COLUMN routines.backfills.started IS 'How many runs it has started.';
COMMENT ON COLUMN routines.backfills.left_out IS 'How many slots it has left as they were.';
COMMENT ON COLUMN routines.backfills.next_look_at IS 'When a ticker looks at it next.';
COMMENT ON COLUMN routines.backfills.held_by IS 'Why no ticker could start a run at the last look, other than the number of its own active runs; null for nothing.';
COMMENT ON COLUMN routines.backfills.ended_at IS 'From when on it starts no more runs; its runs may still be active.';
COMMENT ON COLUMN routines.backfills.end_reason IS 'expanded: every slot is decided. cancelled: a person cancelled it. routine_deleted: its routine was deleted.';
SELECT routines.protect('routines.backfills');

------------------------------------------------------------------------------------------------- the slots of a range
-- The ledger has every slot since the routine was created, also those of a cadence that it had then, apart from what retention has
-- deleted. Before that time the cadence of today says which slots there are.
CREATE FUNCTION routines.ledger_since(routine routines.routines) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
RETURN greatest((routine).created_at, (SELECT max(deleted_until) + interval '1 microsecond' FROM routines.retention));
COMMENT ON FUNCTION routines.ledger_since IS 'From when on the ledger has every slot of a routine.';

CREATE FUNCTION routines.last_slot_of_span(
    cadence routines.cadence, first_slot timestamptz, last_slot timestamptz, before timestamptz
) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN last_slot < before THEN last_slot
    ELSE greatest(first_slot, routines.latest_slot(cadence, before - interval '1 microsecond')) END;
COMMENT ON FUNCTION routines.last_slot_of_span IS 'The last slot of a span in skips that is earlier than `before`, which is later than first_slot.';

-- plpgsql, planned once: they are called for each slot.
CREATE FUNCTION routines.slot_after(routine routines.routines, after timestamptz, clock timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT min(slot) FROM (
        SELECT routines.next_slot_of_span(begun.cadence, begun.scheduled_for, begun.last_scheduled_for, after) AS slot
        FROM (SELECT * FROM routines.skips WHERE routine_id = (routine).id AND scheduled_for <= after
              ORDER BY scheduled_for DESC LIMIT 1) AS begun
        UNION ALL
        SELECT min(scheduled_for) FROM routines.skips WHERE routine_id = (routine).id AND scheduled_for > after
        UNION ALL
        SELECT min(scheduled_for) FROM routines.trajectories
        WHERE triggered_by_routine_id = (routine).id AND scheduled_for IS NOT NULL AND scheduled_for > after
        UNION ALL
        SELECT next_fire FROM routines.next_fire(routines.cadence_of(routine), after)
        WHERE next_fire < routines.ledger_since(routine)
        UNION ALL
        SELECT routines.next_slot_of_span(routines.cadence_of(routine), scheduled_for, last_scheduled_for, after)
        FROM routines.open_spans(routine, clock) WHERE (routine).paused AND reason = 'paused'
    ) AS candidate);
END $$;
COMMENT ON FUNCTION routines.slot_after IS
    'The first slot of a routine after this time that has an outcome, falls in its current pause, or comes before the ledger begins; null for none.';

CREATE FUNCTION routines.slot_before(routine routines.routines, before timestamptz, clock timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT max(slot) FROM (
        SELECT routines.last_slot_of_span(begun.cadence, begun.scheduled_for, begun.last_scheduled_for, before) AS slot
        FROM (SELECT * FROM routines.skips WHERE routine_id = (routine).id AND scheduled_for < before
              ORDER BY scheduled_for DESC LIMIT 1) AS begun
        UNION ALL
        SELECT max(scheduled_for) FROM routines.trajectories
        WHERE triggered_by_routine_id = (routine).id AND scheduled_for IS NOT NULL AND scheduled_for < before
        UNION ALL
        SELECT routines.latest_slot(
            routines.cadence_of(routine), least(before, routines.ledger_since(routine)) - interval '1 microsecond')
        UNION ALL
        SELECT routines.last_slot_of_span(routines.cadence_of(routine), scheduled_for, last_scheduled_for, before)
        FROM routines.open_spans(routine, clock) WHERE (routine).paused AND reason = 'paused' AND scheduled_for < before
    ) AS candidate);
END $$;
COMMENT ON FUNCTION routines.slot_before IS 'The last such slot before this time, see slot_after; null for none.';

-- plpgsql, so that it is called only where it is needed, and planned once.
CREATE FUNCTION routines.last_fill(of_routine bigint, slot timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT routines.last_attempt(id, retried_by) FROM routines.trajectories
            WHERE triggered_by_routine_id = of_routine AND fills_slot IS NOT NULL AND rerun_of IS NULL AND fills_slot = slot);
END $$;
COMMENT ON FUNCTION routines.last_fill IS
    'The last attempt at a slot that a backfill filled and that no scheduled run was for; null if none did.';

------------------------------------------------------------------------------------------- what becomes of each slot
CREATE TYPE routines.fate AS (becomes text, reason text, last_run bigint, skip_id bigint);
COMMENT ON TYPE routines.fate IS 'What a backfill makes of a slot.';
COMMENT ON COLUMN routines.fate.becomes IS 'run: its first run. rerun: another attempt. left: nothing.';
COMMENT ON COLUMN routines.fate.reason IS
    'What it is now: the status of its last attempt, the reason of its skip, paused in the current pause, before_creation, or forgotten, if retention may have deleted its run.';
COMMENT ON COLUMN routines.fate.last_run IS 'Its last attempt.';
COMMENT ON COLUMN routines.fate.skip_id IS 'Its skip, which may be a span.';

-- A slot that a calendar or the active hours exclude was left out on purpose, and so is never filled.
CREATE FUNCTION routines.fate_of_slot(routine routines.routines, slot timestamptz, reprocess text) RETURNS routines.fate
LANGUAGE plpgsql STABLE AS $$
DECLARE
    fate routines.fate;
    run  record;
    skip record;
BEGIN
    SELECT id, retried_by INTO run FROM routines.trajectories
    WHERE triggered_by_routine_id = (routine).id AND scheduled_for IS NOT NULL AND scheduled_for = slot;
    IF NOT FOUND THEN
        SELECT id, retried_by INTO run FROM routines.trajectories
        WHERE triggered_by_routine_id = (routine).id AND fills_slot IS NOT NULL AND rerun_of IS NULL AND fills_slot = slot;
    END IF;
    IF FOUND THEN
        fate.last_run := routines.last_attempt(run.id, run.retried_by);
        fate.reason := routines.status_of_attempt(fate.last_run);
        fate.becomes := CASE WHEN fate.reason IN ('pending', 'running') THEN 'left'
                             WHEN reprocess = 'all' OR reprocess = 'failed' AND fate.reason IN ('failed', 'cancelled') THEN 'rerun'
                             ELSE 'left' END;
        RETURN fate;
    END IF;
    SELECT id, cadence, scheduled_for, last_scheduled_for, reason, slot_count, filled_by INTO skip FROM routines.skips
    WHERE routine_id = (routine).id AND scheduled_for <= slot ORDER BY scheduled_for DESC LIMIT 1;
    IF FOUND AND skip.last_scheduled_for >= slot
       AND coalesce(routines.is_slot_of_span(skip.cadence, skip.scheduled_for, skip.last_scheduled_for, slot), false) THEN
        fate.skip_id := skip.id;
        -- The run that filled it was deleted.
        fate.reason := CASE WHEN skip.filled_by IS NOT NULL AND skip.slot_count = 1 THEN 'forgotten' ELSE skip.reason END;
    ELSIF slot < (routine).created_at THEN
        fate.reason := 'before_creation';
    ELSIF slot < routines.ledger_since(routine) THEN
        fate.reason := 'forgotten';
    ELSE
        fate.reason := 'paused';
    END IF;
    IF fate.skip_id IS NULL THEN
        fate.reason := coalesce((SELECT CASE WHEN routines.exclusion_of(routine, slot) IS NOT NULL THEN 'excluded' END), fate.reason);
    END IF;
    fate.becomes := CASE WHEN fate.reason IN ('calendar', 'outside_hours', 'excluded') THEN 'left'
                         WHEN fate.reason = 'forgotten' AND reprocess <> 'all' THEN 'left' ELSE 'run' END;
    RETURN fate;
END $$;
COMMENT ON FUNCTION routines.fate_of_slot IS 'What a backfill with this reprocess makes of a slot of a routine.';

CREATE FUNCTION routines.slots_to_fill(
    of_routine bigint, from_time timestamptz, until_time timestamptz, reprocess text DEFAULT 'missing', slot_order text DEFAULT 'oldest',
    reached timestamptz DEFAULT NULL, most_slots integer DEFAULT 1000, most_runs integer DEFAULT NULL, clock timestamptz DEFAULT now()
) RETURNS TABLE (slot timestamptz, becomes text, reason text, trajectory_id bigint, skip_id bigint)
LANGUAGE plpgsql STABLE ROWS 100 AS $$
DECLARE
    routine routines.routines := (SELECT routines FROM routines.routines WHERE id = of_routine);
    fate    routines.fate;
    slots   integer := 0;
    runs    integer := 0;
BEGIN
    slot := coalesce(reached, CASE slot_order WHEN 'newest' THEN until_time ELSE from_time - interval '1 microsecond' END);
    WHILE slots < most_slots AND coalesce(runs < most_runs, true) LOOP
        slot := CASE slot_order WHEN 'newest' THEN routines.slot_before(routine, slot, clock)
                                ELSE routines.slot_after(routine, slot, clock) END;
        EXIT WHEN (slot >= from_time AND slot < until_time) IS NOT TRUE;
        fate := routines.fate_of_slot(routine, slot, reprocess);
        becomes := fate.becomes;
        reason := fate.reason;
        trajectory_id := fate.last_run;
        skip_id := fate.skip_id;
        slots := slots + 1;
        runs := runs + CASE becomes WHEN 'left' THEN 0 ELSE 1 END;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.slots_to_fill IS
    'The slots of a routine at or after from_time and before until_time, and what a backfill would make of each: run, rerun or left, and why. From after the slot `reached` on, at most most_slots, and no more once most_runs of them are to run. Slots that are due and have no outcome yet are left to the schedule. Try: SELECT * FROM routines.slots_to_fill(routines.routine_id(''demo/hello/every-hour''), now() - interval ''1 week'', now());';

------------------------------------------------------------------------------------------------------------- requests
CREATE FUNCTION routines.most_open_backfills() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 20;
COMMENT ON FUNCTION routines.most_open_backfills IS 'How many backfills of a collection may be open at once.';
CREATE FUNCTION routines.most_slots_to_fill() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 10000;
COMMENT ON FUNCTION routines.most_slots_to_fill IS 'How many slots a backfill may have.';

CREATE FUNCTION routines.refuse_backfill(rule text, message text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', message USING ERRCODE = 'check_violation', CONSTRAINT = rule;
END $$;
COMMENT ON FUNCTION routines.refuse_backfill IS 'Raises the error of a backfill that breaks this rule.';

-- The advisory lock lets the requests of a collection be counted one after the other.
CREATE FUNCTION routines.check_backfill() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    routine routines.routines := (SELECT routines FROM routines.routines WHERE id = NEW.routine_id);
BEGIN
    IF (routine).id IS NULL THEN
        PERFORM routines.refuse_backfill('backfills_routine_exists', format('there is no routine %s', NEW.routine_id));
    ELSIF (routine).cadence_type = 'manual' THEN
        PERFORM routines.refuse_backfill('backfills_routine_has_slots', 'a manual routine has no slots');
    END IF;
    NEW.collection_id := (routine).collection_id;
    NEW.made_by := coalesce(NEW.made_by, (routines.actor()).actor);
    NEW.until_time := least(NEW.until_time, now());
    PERFORM pg_advisory_xact_lock(hashtext('routines.backfills'), hashtext(NEW.collection_id::text));
    IF (SELECT count(*) FROM routines.backfills WHERE collection_id = NEW.collection_id AND ended_at IS NULL)
       >= routines.most_open_backfills() THEN
        PERFORM routines.refuse_backfill('backfills_open_is_bounded', format(
            'the collection has %s open backfills, as many as it may: cancel one, or wait for its end', routines.most_open_backfills()));
    ELSIF (SELECT count(*) FROM routines.slots_to_fill(NEW.routine_id, NEW.from_time, NEW.until_time, NEW.reprocess, 'oldest', NULL,
                                                       routines.most_slots_to_fill() + 1)) > routines.most_slots_to_fill() THEN
        PERFORM routines.refuse_backfill('backfills_slots_is_bounded', format(
            'to: the range has more than %s slots', routines.most_slots_to_fill()));
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.check_backfill IS
    'Rejects a backfill of a manual routine, of too many slots, or beside too many open ones. Fills in the tenant and who requests it, and ends its range now at the latest.';
CREATE TRIGGER check_backfill BEFORE INSERT ON routines.backfills FOR EACH ROW EXECUTE FUNCTION routines.check_backfill();

-- In two statements: the second sees the runs that a ticker inserted while the first waited for it.
CREATE FUNCTION routines.cancel_backfill(backfill bigint, reason text DEFAULT 'cancelled') RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE routines.backfills SET ended_at = now(), end_reason = reason, held_by = NULL WHERE id = backfill AND end_reason IS NULL;
    UPDATE routines.trajectories
    SET status = 'cancelled', fence = fence + 1, ended_at = now(), updated_at = now(), lease_expires_at = NULL,
        error = 'cancelled: its backfill was cancelled before the run began'
    WHERE backfill_id = backfill AND final_status IS NULL AND started_at IS NULL;
    RETURN EXISTS (SELECT FROM routines.backfills WHERE id = backfill);
END $$;
COMMENT ON FUNCTION routines.cancel_backfill IS
    'Ends a backfill, and cancels those of its runs that no worker has begun. Returns false if there is no such backfill.';

CREATE FUNCTION routines.end_backfills() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM routines.cancel_backfill(id, 'routine_deleted') FROM routines.backfills WHERE routine_id = OLD.id AND end_reason IS NULL;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.end_backfills IS 'Ends the backfills of a routine that is deleted.';
CREATE TRIGGER end_backfills AFTER DELETE ON routines.routines FOR EACH ROW EXECUTE FUNCTION routines.end_backfills();

------------------------------------------------------------------------------------------------------------ expansion
-- A backfill yields to the schedule: it starts no run while another run of the routine is active, and none shortly before the next
-- slot, since its own runs are active runs too and would hold that slot back.
CREATE FUNCTION routines.usual_duration(of_routine bigint) RETURNS interval LANGUAGE sql STABLE AS $$
    SELECT max(ended_at - started_at) FROM (
        (SELECT started_at, ended_at FROM routines.trajectories
         WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL ORDER BY scheduled_for DESC LIMIT 10)
        UNION ALL
        (SELECT started_at, ended_at FROM routines.trajectories
         WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NULL AND trigger = 'backfill' ORDER BY id DESC LIMIT 10)) AS newest;
$$;
COMMENT ON FUNCTION routines.usual_duration IS 'How long the longest of the newest runs of a routine took, of its scheduled ones and those of backfills; null if none has ended.';

CREATE FUNCTION routines.holds_backfill(routine routines.routines, others integer) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN (routine).paused THEN 'the routine is paused'
        WHEN others >= coalesce((routine).max_concurrent, 1) THEN 'another run of the routine is active'
        WHEN (routine).next_run_at - now() <= least(coalesce(routines.usual_duration((routine).id), '0'), (
            (routine).next_run_at - routines.with_spread(routine, routines.latest_slot(
                routines.cadence_of(routine), routines.without_spread(routine, (routine).next_run_at) - interval '1 microsecond'))) / 2)
            THEN 'the next slot comes before a run would usually end' END;
$$;
COMMENT ON FUNCTION routines.holds_backfill IS
    'Why a backfill of a routine must not start a run now, beside as many active runs that are not its own; null if it may. Up to half of the time between two slots is left to the next one.';

CREATE FUNCTION routines.start_backfill_run(
    backfill bigint, routine routines.routines, slot timestamptz, last_run bigint, skip_id bigint
) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    slot_values jsonb := routines.slot_values((routine).id, slot, 'backfill');
    made        bigint;
BEGIN
    INSERT INTO routines.trajectories (
        collection_id, task_id, task_version, triggered_by_routine_id, trigger, backfill_id, fills_slot, rerun_of, init_params,
        slot_values, secret_refs, webhook_url, webhook_secret_id, timeout_seconds)
    SELECT (routine).collection_id, tasks.id, tasks.version, (routine).id, 'backfill', backfill, slot, last_run,
           init_params || (routine).init_params_overrides || routines.params_from_slot((routine).init_params_from_slot, slot_values),
           slot_values, (routine).secret_refs, (routine).webhook_url, (routine).webhook_secret_id, (routine).timeout_seconds
    FROM routines.tasks JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    WHERE tasks.id = (routine).task_id
    RETURNING id INTO made;
    UPDATE routines.skips SET filled_by = made WHERE id = skip_id;
    RETURN made;
END $$;
COMMENT ON FUNCTION routines.start_backfill_run IS
    'Starts the run of a slot as the tick would start it now: by the version, the parameters and the secrets of today. As another attempt if last_run is given.';

-- All of it in one transaction: a ticker that is killed has advanced the backfill and started its runs, or neither. It waits for no
-- lock that a tick holds: a routine that is locked is left to the next look.
CREATE FUNCTION routines.expand_backfill(backfill bigint, most_slots integer DEFAULT 200) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    asked   routines.backfills;
    routine routines.routines;
    others  integer;
    free    integer;
    one     record;
    slots   integer := 0;
    runs    integer := 0;
BEGIN
    SELECT * INTO asked FROM routines.backfills WHERE id = backfill AND end_reason IS NULL FOR UPDATE SKIP LOCKED;
    SELECT * INTO routine FROM routines.routines WHERE id = asked.routine_id FOR UPDATE SKIP LOCKED;
    IF routine.id IS NULL THEN
        RETURN 0;
    END IF;
    SELECT count(*) FILTER (WHERE trajectories.backfill_id IS DISTINCT FROM backfill),
           asked.max_active - count(*) FILTER (WHERE trajectories.backfill_id = backfill)
    INTO others, free
    FROM routines.active_runs_of(routine.id) AS active JOIN routines.trajectories ON trajectories.id = active.trajectory_id;
    asked.held_by := routines.holds_backfill(routine, others);
    IF asked.held_by IS NULL AND free > 0 THEN
        FOR one IN SELECT * FROM routines.slots_to_fill(routine.id, asked.from_time, asked.until_time, asked.reprocess, asked.slot_order,
                                                          asked.reached, most_slots, free) LOOP
            slots := slots + 1;
            asked.reached := one.slot;
            IF one.becomes <> 'left' THEN
                PERFORM routines.start_backfill_run(backfill, routine, one.slot, one.trajectory_id, one.skip_id);
                runs := runs + 1;
            END IF;
        END LOOP;
        IF slots < most_slots AND runs < free THEN
            asked.ended_at := now();
            asked.end_reason := 'expanded';
        END IF;
    END IF;
    UPDATE routines.backfills
    SET reached = asked.reached, started = started + runs, left_out = left_out + slots - runs, held_by = asked.held_by,
        ended_at = asked.ended_at, end_reason = asked.end_reason,
        next_look_at = CASE WHEN slots = most_slots THEN now() ELSE now() + interval '1 s' END
    WHERE id = backfill;
    RETURN runs;
END $$;
COMMENT ON FUNCTION routines.expand_backfill IS
    'Starts as many runs of a backfill as may be active now, after looking at most_slots slots at most. Returns how many it started.';
REVOKE EXECUTE ON FUNCTION routines.expand_backfill FROM PUBLIC;

-- == sql/schema/12_troubles.sql

-- What is wrong with a routine: the one rule by which the console, the API and a person at psql tell what needs attention.

-- An outcome stands until another one replaces it. A run that is going on, was cancelled, or a slot that was left out on purpose
-- replaces none: a failed slot must not disappear behind a run-now that someone has just started. Each part reads the end of an index.
CREATE FUNCTION routines.troubles_of(of_routine bigint, clock timestamptz DEFAULT now())
RETURNS TABLE (kind text, trajectory_id bigint, since timestamptz, detail text)
LANGUAGE sql STABLE ROWS 1 AS $$
    WITH outcome AS (
        (SELECT slot.scheduled_for AS at, last.status AS kind, last.id, coalesce(last.ended_at, slot.scheduled_for) AS since,
                last.error AS detail
         FROM (SELECT id, scheduled_for, retried_by FROM routines.trajectories
               WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL
               ORDER BY scheduled_for DESC LIMIT 100) AS slot
         CROSS JOIN LATERAL (
             SELECT * FROM routines.trajectories
             WHERE trajectories.id = CASE WHEN slot.retried_by IS NULL THEN slot.id
                                          ELSE routines.last_attempt(slot.id, slot.retried_by) END
             LIMIT 1) AS last
         WHERE last.status IN ('completed', 'failed', 'archived')
         ORDER BY slot.scheduled_for DESC LIMIT 1)
        UNION ALL
        (SELECT run_now.created_at, last.status, last.id, last.ended_at, last.error
         FROM (SELECT id, created_at, retried_by FROM routines.trajectories
               WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NULL AND trigger = 'run-now'
               ORDER BY id DESC LIMIT 100) AS run_now
         CROSS JOIN LATERAL (
             SELECT * FROM routines.trajectories
             WHERE trajectories.id = CASE WHEN run_now.retried_by IS NULL THEN run_now.id
                                          ELSE routines.last_attempt(run_now.id, run_now.retried_by) END
             LIMIT 1) AS last
         WHERE last.status IN ('completed', 'failed', 'archived')
         ORDER BY run_now.id DESC LIMIT 1)
        UNION ALL
        (SELECT skip.scheduled_for, coalesce(fill.status, skip.reason), fill.id, coalesce(fill.ended_at, skip.recorded_at),
                CASE WHEN fill.id IS NULL THEN skip.detail ELSE fill.error END
         FROM (SELECT * FROM routines.skips WHERE routine_id = of_routine ORDER BY scheduled_for DESC LIMIT 100) AS skip
         LEFT JOIN LATERAL (
             SELECT attempt.* FROM routines.trajectories AS attempt
             WHERE skip.filled_by IS NOT NULL AND attempt.id = routines.last_fill(of_routine, skip.last_scheduled_for)
               AND attempt.status IN ('completed', 'failed', 'archived') LIMIT 1) AS fill ON true
         WHERE skip.reason IN ('failed_to_start', 'missed')
         ORDER BY skip.scheduled_for DESC LIMIT 1)
    ),
    active AS (
        SELECT id, started_at FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND trigger = 'schedule' AND place IS NULL AND final_status IS NULL
        UNION ALL
        SELECT id, started_at FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL
    ),
    slow AS (
        SELECT active.id, active.started_at, usual.longest
        FROM active CROSS JOIN LATERAL (
            SELECT percentile_disc(0.95) WITHIN GROUP (ORDER BY ended_at - started_at) AS longest, count(*) AS number
            FROM ((SELECT status, started_at, ended_at FROM routines.trajectories
                   WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL
                   ORDER BY scheduled_for DESC LIMIT 50)
                  UNION ALL
                  (SELECT status, started_at, ended_at FROM routines.trajectories
                   WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NULL AND trigger = 'run-now'
                   ORDER BY id DESC LIMIT 50)) AS run
            WHERE status = 'completed') AS usual
        WHERE active.started_at < clock - interval '1 minute' AND usual.number >= 3
          AND clock - active.started_at > 3 * usual.longest
    ),
    -- The newest webhook to the URL of today that arrived, was given up, or has failed three times.
    webhook AS (
        SELECT sent.trajectory_id, sent.created_at, sent.attempts -> -1 ->> 'error' AS error, stopped_at, stopped_reason,
               stopped_at IS NOT NULL OR sent.next_attempt_at IS NOT NULL OR sent.give_up_reason IS NOT NULL AS is_failing
        FROM routines.routines
        LEFT JOIN LATERAL (
            SELECT * FROM (SELECT * FROM routines.webhook_deliveries
                           WHERE routine_id = of_routine ORDER BY id DESC LIMIT 20) AS newest
            WHERE newest.url = routines.webhook_url AND (next_attempt_at IS NULL OR failures >= 3)
            ORDER BY id DESC LIMIT 1) AS sent ON true
        LEFT JOIN routines.webhook_endpoints ON webhook_endpoints.collection_id = routines.collection_id
             AND md5(webhook_endpoints.url) = md5(webhook_url)
        WHERE routines.id = of_routine AND webhook_url IS NOT NULL
    )
    (SELECT kind, id, since, detail FROM (SELECT * FROM outcome ORDER BY at DESC LIMIT 1) AS newest
     WHERE kind IN ('failed', 'failed_to_start', 'missed'))
    UNION ALL
    SELECT 'backoff', NULL, NULL, CASE backoff_left WHEN 1 THEN '1 slot is' ELSE backoff_left || ' slots are' END
                                  || ' skipped after failures, then one is tried'
    FROM routines.routines WHERE id = of_routine AND backoff_left IS NOT NULL
    UNION ALL
    SELECT 'slow', id, started_at, format('run %s has been running since %s, and 19 of 20 runs take at most %s s', id,
                                          routines.utc(started_at), greatest(1, ceil(extract(epoch FROM longest)))::bigint)
    FROM slow
    UNION ALL
    SELECT 'webhook', trajectory_id, coalesce(stopped_at, created_at),
           coalesce('nothing is sent to the webhook''s URL any more: ' || stopped_reason,
                    'the webhook does not arrive: ' || coalesce(error, 'it was given up'))
    FROM webhook WHERE is_failing;
$$;
COMMENT ON FUNCTION routines.troubles_of IS
    'What is wrong with a routine. failed, failed_to_start, missed: its newest slot or run-now that came to an end, if it ended so; those that are active, were cancelled or left out are passed over, up to 100 of them. backoff: it skips slots after failures. slow: an active run has taken more than a minute and three times as long as 19 of 20 of its newest completed runs, if there are three. webhook: the newest webhook has failed three times or was given up, or its URL was stopped.';

-- == sql/schema/12_views.sql

-- The views for a person at psql, and those that the API reads. docs/use/psql.md shows how to use them.

----------------------------------------------------------------------------------------------------- as the API shows it
CREATE VIEW routines.routine_details WITH (security_invoker = true) AS
    SELECT routines.id, routine_names.collection_id, routine_names.task_id, routine_names.name, tasks.name AS task_name,
           collections.name AS collection_name, routines.cadence_to_json(routines.cadence_of(routines)) AS cadence,
           init_params_overrides,
           CASE WHEN secret_refs = '{}' THEN '{}' ELSE ARRAY(SELECT jsonb_object_keys(secret_refs) ORDER BY 1) END AS secret_names,
           webhook_url,
           webhook_secret_id IS NOT NULL AS has_webhook_secret, paused, paused_reason, last_run_at, next_run_at, overlap_policy,
           catchup_window_seconds, paused_until, paused_note, starts_at, ends_at, spread_seconds, calendar, active_hours,
           init_params_from_slot, timeout_seconds, retry, pause_after_failures, after_failures, backoff_left, max_concurrent,
           CASE WHEN init_params_from_slot IS NULL THEN '{}'
                ELSE ARRAY(SELECT key FROM jsonb_object_keys(init_params_from_slot) AS key
                           WHERE NOT task_versions.init_params ? key ORDER BY key) END AS undeclared_slot_keys,
           CASE WHEN init_params_overrides = '{}' THEN '{}'
                ELSE ARRAY(SELECT key FROM jsonb_object_keys(init_params_overrides) AS key
                           WHERE NOT task_versions.init_params ? key ORDER BY key) END AS undeclared_keys
    FROM routines.routine_names
    JOIN routines.routines ON routines.id = routine_names.routine_id
    JOIN routines.tasks ON tasks.id = routine_names.task_id
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    JOIN routines.collections ON collections.id = routine_names.collection_id;
COMMENT ON VIEW routines.routine_details IS
    'Routines as the API shows them. SELECT * FROM routines.routine_details WHERE collection_name = ''demo'';';
COMMENT ON COLUMN routines.routine_details.id IS 'Database id, and `id` in the API.';
COMMENT ON COLUMN routines.routine_details.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.routine_details.task_id IS 'The task.';
COMMENT ON COLUMN routines.routine_details.name IS 'Unique in its task.';
COMMENT ON COLUMN routines.routine_details.task_name IS 'The {task} of its path.';
COMMENT ON COLUMN routines.routine_details.collection_name IS 'The {collection} of its path.';
COMMENT ON COLUMN routines.routine_details.cadence IS 'A JSON object with the fields of the type routines.cadence that it has.';
COMMENT ON COLUMN routines.routine_details.init_params_overrides IS 'Merged over the task''s init_params when it fires.';
COMMENT ON COLUMN routines.routine_details.secret_names IS 'The names of its secret params.';
COMMENT ON COLUMN routines.routine_details.webhook_url IS 'Receives a webhook when a run has ended; null for none.';
COMMENT ON COLUMN routines.routine_details.has_webhook_secret IS 'True if its webhooks are signed.';
COMMENT ON COLUMN routines.routine_details.paused IS 'True if the schedule is stopped.';
COMMENT ON COLUMN routines.routine_details.paused_reason IS 'Why the scheduler paused it; null if a person did.';
COMMENT ON COLUMN routines.routine_details.paused_until IS 'When the pause ends by itself; null if it does not.';
COMMENT ON COLUMN routines.routine_details.paused_note IS 'What a person noted about the pause; null for nothing.';
COMMENT ON COLUMN routines.routine_details.last_run_at IS 'When it last started a run; null if never.';
COMMENT ON COLUMN routines.routine_details.next_run_at IS 'When it fires next, its spread included; null while paused, for manual, and once no slot is left.';
COMMENT ON COLUMN routines.routine_details.overlap_policy IS 'What becomes of a slot that comes while a run is active: skip, queue_one, cancel_other or allow.';
COMMENT ON COLUMN routines.routine_details.max_concurrent IS 'For allow: how many runs may be active at once; null otherwise.';
COMMENT ON COLUMN routines.routine_details.starts_at IS 'No slot is earlier; null for no bound.';
COMMENT ON COLUMN routines.routine_details.ends_at IS 'No slot is later; null for no bound.';
COMMENT ON COLUMN routines.routine_details.spread_seconds IS 'Each slot fires up to this many seconds after its time; null for no spread.';
COMMENT ON COLUMN routines.routine_details.calendar IS 'Days on which it does not fire: {exclude, on_excluded}; null for none.';
COMMENT ON COLUMN routines.routine_details.active_hours IS 'Outside of these it does not fire: {timezone, windows, outside}; null for none.';
COMMENT ON COLUMN routines.routine_details.init_params_from_slot IS 'Parameters that each run takes from its slot; null for none.';
COMMENT ON COLUMN routines.routine_details.timeout_seconds IS 'How long its runs may take; null for as long as the worker allows.';
COMMENT ON COLUMN routines.routine_details.retry IS 'How a scheduled run that failed is retried; null for not at all.';
COMMENT ON COLUMN routines.routine_details.pause_after_failures IS 'After how many failed slots in a row it stops; null for never.';
COMMENT ON COLUMN routines.routine_details.after_failures IS 'How it stops then: pause or backoff; null for pause.';
COMMENT ON COLUMN routines.routine_details.backoff_left IS 'How many slots it will still skip after failures; null for none.';
COMMENT ON COLUMN routines.routine_details.undeclared_slot_keys IS 'Those of them that the task''s current version does not declare.';
COMMENT ON COLUMN routines.routine_details.undeclared_keys IS 'Override keys that the task''s current version does not declare.';
COMMENT ON COLUMN routines.routine_details.catchup_window_seconds IS
    'The age up to which a missed slot still fires after an outage; 0 to never catch up; null for the default of its cadence.';

-- What reading a stored value costs, in bytes, without reading it. A compressed value may become a hundred times as large; a
-- step's inputs and outputs are at most 1 MiB each.
CREATE FUNCTION routines.cost_of_reading(stored jsonb) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN pg_column_compression(stored) IS NULL THEN coalesce(pg_column_size(stored), 0)
            ELSE least(100 * pg_column_size(stored), 1048576) END;
COMMENT ON FUNCTION routines.cost_of_reading IS
    'An upper estimate of the bytes that a stored value expands to. Reads no value that is stored out of line.';

-- Appended as text, because json_build_object would show both fields of every step.
CREATE FUNCTION routines.with_tries(step json, tries integer, answer jsonb, kept_from bigint) RETURNS json
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN tries = 1 AND answer IS NULL AND kept_from IS NULL THEN step
            ELSE (left(step::text, -1) || CASE WHEN tries > 1 THEN ', "tries" : ' || tries ELSE '' END
                  || coalesce(', "answer" : ' || answer::text, '') || coalesce(', "kept_from" : ' || kept_from, '') || '}')::json END;
COMMENT ON FUNCTION routines.with_tries IS
    'A step as the API shows it, with the number of tries if there was more than one, the response that made it fail, and the run that it is kept from.';

-- Bounded work whatever the run: values are left out by their stored size before they are read, and by their length as text
-- before they are shown. The smallest steps are shown first.
CREATE FUNCTION routines.steps_shown(
    of_run bigint, kept_steps jsonb, value_bytes integer, total_bytes integer, work_bytes bigint, most_steps integer)
RETURNS TABLE (steps json, is_truncated boolean) LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT coalesce(json_object_agg(name, routines.with_tries(CASE WHEN is_whole THEN json_build_object(
                       'status', status, 'activity', activity, 'inputs', inputs::json, 'outputs', outputs::json,
                       'created', created, 'ended', ended, 'duration_seconds', seconds, 'error', error)
                   ELSE json_build_object(
                       'status', status, 'activity', activity, 'inputs', coalesce(inputs, '{}')::json, 'outputs', outputs::json,
                       'created', created, 'ended', ended, 'duration_seconds', seconds, 'error', error,
                       'truncated', true) END, attempt, answer, kept_from) ORDER BY position), '{}'),
           coalesce(bool_or(NOT is_whole) OR max(known) > most_steps, false)
    FROM (
        SELECT name, position, status, activity, created, ended, seconds, error, attempt, answer, kept_from, known,
               CASE WHEN fits AND octet_length(inputs) <= value_bytes THEN inputs END AS inputs,
               CASE WHEN fits AND octet_length(outputs) <= value_bytes THEN outputs END AS outputs,
               fits AND octet_length(inputs) <= value_bytes AND octet_length(coalesce(outputs, '')) <= value_bytes
                   AND has_outputs = (outputs IS NOT NULL) AS is_whole
        FROM (
            SELECT *, coalesce(sum(octet_length(inputs) + octet_length(coalesce(outputs, '')))
                                   OVER (ORDER BY octet_length(inputs) + octet_length(coalesce(outputs, '')), position)
                               <= total_bytes, false) AS fits
            FROM (
                SELECT name, position, status, activity, left(error, value_bytes) AS error, attempt, answer, known,
                       nullif(trajectory_id, of_run) AS kept_from,
                       outputs IS NOT NULL AS has_outputs,
                       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created,
                       to_char(ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS ended,
                       extract(epoch FROM ended_at - created_at)::float8 AS seconds,
                       CASE WHEN is_cheap AND pg_column_size(inputs) <= value_bytes THEN inputs::text END AS inputs,
                       CASE WHEN is_cheap AND pg_column_size(outputs) <= value_bytes THEN outputs::text END AS outputs
                FROM (
                    SELECT *, sum(cost) OVER (ORDER BY cost, position) <= work_bytes AS is_cheap
                    FROM (
                        SELECT step.*, count(*) OVER () AS known,
                               routines.cost_of_reading(inputs) + routines.cost_of_reading(outputs) AS cost
                        FROM routines.steps_of(of_run, kept_steps) AS step
                        ORDER BY position LIMIT most_steps
                    ) AS listed
                ) AS weighed
            ) AS read
        ) AS measured
    ) AS shown;
$$;
COMMENT ON FUNCTION routines.steps_shown IS
    'The steps of a run as trajectory_details shows them, within bounds. A value of more than value_bytes, an error beyond as many characters, and values of the largest steps beyond total_bytes, are left out: inputs read {}, outputs null, and the step has "truncated": true. No more than work_bytes are read, and no more than most_steps steps are shown. is_truncated: something was left out.';

CREATE VIEW routines.trajectory_details WITH (security_invoker = true) AS
    SELECT trajectories.id AS trajectory_id, trajectories.collection_id, trajectories.task_id,
           coalesce(tasks.name, deleted_tasks.name, 'deleted')::routines.slug AS task_name,
           routines.workflow_id(collections.name, coalesce(tasks.name, deleted_tasks.name, 'deleted'), trajectories.id) AS workflow_id,
           routines.run_id(trajectories.id, trajectories.created_at, nonce)::text AS run_id,
           collections.name || '/' || coalesce(tasks.name, deleted_tasks.name, 'deleted') AS name, status,
           trajectories.created_at AS created, trajectories.updated_at AS updated, trajectories.created_at, started_at,
           ended_at, trajectories.init_params, coalesce(task_versions.workflow -> 'step_configs', '{}') AS step_configs,
           (SELECT coalesce(json_object_agg(steps.name, routines.with_tries(json_build_object(
                       'status', steps.status, 'activity', activity, 'inputs', inputs, 'outputs', outputs,
                       'created', to_char(steps.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                       'ended', to_char(steps.ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                       'duration_seconds', extract(epoch FROM steps.ended_at - steps.created_at)::float8,
                       'error', steps.error), steps.attempt, steps.answer, nullif(steps.trajectory_id, trajectories.id))
                       ORDER BY position), '{}')
            FROM routines.steps_of(trajectories.id, kept_steps) AS steps) AS steps,
           coalesce(json_array_length(task_versions.workflow -> 'steps'), 0) AS total_steps,
           (SELECT count(*) FROM routines.steps
            WHERE steps.trajectory_id = trajectories.id AND steps.status = 'completed')::integer
           + (SELECT count(*) FROM jsonb_object_keys(kept_steps))::integer AS completed_steps,
           labels, error, triggered_by_routine_id, scheduled_for, trigger, webhook_url, retry_of, retry_number, retried_by, rerun_of,
           backfill_id, fills_slot, kept_steps,
           CASE WHEN kept_steps IS NULL THEN '{}' ELSE ARRAY(
               SELECT kept.key FROM jsonb_each_text(kept_steps) AS kept
               WHERE NOT EXISTS (SELECT FROM routines.trajectories AS origin WHERE origin.id = kept.value::bigint)
               ORDER BY kept.key) END AS lost_steps,
           parent_id AS parent_trajectory_id,
           (SELECT routines.run_name(parents) FROM routines.trajectories AS parents
            WHERE parents.id = trajectories.parent_id) AS parent_name,
           (SELECT coalesce(json_agg(json_build_object('trajectory_id', children.id, 'name', routines.run_name(children),
                                                       'status', children.status) ORDER BY children.id), '[]')
            FROM (SELECT * FROM routines.trajectories AS started WHERE started.parent_id = trajectories.id
                  ORDER BY id LIMIT 1000) AS children) AS children,
           CASE engine WHEN 'temporal' THEN first_workflow_id || '/' || routines.run_id(trajectories.id, trajectories.created_at, nonce)
           END AS temporal_id
    FROM routines.trajectories
    JOIN routines.task_versions ON task_versions.task_id = trajectories.task_id
                                AND task_versions.version = trajectories.task_version
    JOIN routines.collections ON collections.id = trajectories.collection_id
    LEFT JOIN routines.tasks ON tasks.id = trajectories.task_id
    LEFT JOIN routines.deleted_tasks ON deleted_tasks.id = trajectories.task_id;
COMMENT ON VIEW routines.trajectory_details IS
    'Runs as the API shows them, with their steps. SELECT * FROM routines.trajectory_details WHERE trajectory_id = 1;';
COMMENT ON COLUMN routines.trajectory_details.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.trajectory_details.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.trajectory_details.task_id IS 'The task.';
COMMENT ON COLUMN routines.trajectory_details.task_name IS 'The {task} of its path; for a deleted task, its last name.';
COMMENT ON COLUMN routines.trajectory_details.workflow_id IS 'What clients poll with.';
COMMENT ON COLUMN routines.trajectory_details.run_id IS 'The run, as a UUID that no other run has.';
COMMENT ON COLUMN routines.trajectory_details.name IS 'collection/task.';
COMMENT ON COLUMN routines.trajectory_details.status IS 'pending, running, or one of the final completed, failed, cancelled, archived.';
COMMENT ON COLUMN routines.trajectory_details.created IS 'The same as created_at.';
COMMENT ON COLUMN routines.trajectory_details.updated IS 'Its last change of status or checkpoint.';
COMMENT ON COLUMN routines.trajectory_details.created_at IS 'When it was fired.';
COMMENT ON COLUMN routines.trajectory_details.started_at IS 'When a worker first claimed it; null if none has.';
COMMENT ON COLUMN routines.trajectory_details.ended_at IS 'When it reached a final status; null while it is active.';
COMMENT ON COLUMN routines.trajectory_details.init_params IS 'The parameters of this run.';
COMMENT ON COLUMN routines.trajectory_details.step_configs IS 'The step_configs of the task version that this run uses.';
COMMENT ON COLUMN routines.trajectory_details.steps IS 'By step name: {status, activity, inputs, outputs, created, ended, duration_seconds, error}, with tries if there was more than one, answer, the HTTP response that made it fail, and kept_from, the run that it is kept from.';
COMMENT ON COLUMN routines.trajectory_details.total_steps IS 'The number of steps in the workflow.';
COMMENT ON COLUMN routines.trajectory_details.completed_steps IS 'The number of steps that have completed, with those that a rerun keeps.';
COMMENT ON COLUMN routines.trajectory_details.labels IS 'Array of {key, value, author}.';
COMMENT ON COLUMN routines.trajectory_details.error IS 'Why it failed; null if it did not.';
COMMENT ON COLUMN routines.trajectory_details.triggered_by_routine_id IS 'The routine that started it; null if the API started it.';
COMMENT ON COLUMN routines.trajectory_details.scheduled_for IS 'Its slot; null if it was not started on schedule.';
COMMENT ON COLUMN routines.trajectory_details.trigger IS 'schedule, run-now, api, retry, rerun or backfill.';
COMMENT ON COLUMN routines.trajectory_details.webhook_url IS 'Receives a webhook when it has ended; null for none.';
COMMENT ON COLUMN routines.trajectory_details.retry_of IS 'Of a later attempt at a run of a routine, a retry or a rerun: the first one; null otherwise.';
COMMENT ON COLUMN routines.trajectory_details.retry_number IS 'Of a retry: which one it is, from 1; null otherwise.';
COMMENT ON COLUMN routines.trajectory_details.retried_by IS 'Of a run of a routine: its retry or, after the last retry, its newest rerun; null for none.';
COMMENT ON COLUMN routines.trajectory_details.rerun_of IS 'Of a rerun: the run that it repeats; null otherwise.';
COMMENT ON COLUMN routines.trajectory_details.backfill_id IS 'The backfill that started it; null for none.';
COMMENT ON COLUMN routines.trajectory_details.fills_slot IS 'The slot that it fills, if a backfill started it; null otherwise.';
COMMENT ON COLUMN routines.trajectory_details.kept_steps IS 'Of a rerun from a step: the steps before it, each with the run that executed it; null if it keeps none.';
COMMENT ON COLUMN routines.trajectory_details.lost_steps IS 'Those of kept_steps whose run has been deleted since.';
COMMENT ON COLUMN routines.trajectory_details.parent_trajectory_id IS 'The run whose step started it; null for none.';
COMMENT ON COLUMN routines.trajectory_details.parent_name IS 'collection/task of that run.';
COMMENT ON COLUMN routines.trajectory_details.temporal_id IS 'Its id in Temporal; null if it was not executed there.';
COMMENT ON COLUMN routines.trajectory_details.children IS 'The first 1,000 runs that its steps started, oldest first: [{trajectory_id, name, status}].';

-- A step ends in the statement that starts the next one, at the same moment, so its end is ranked first.
CREATE VIEW routines.run_events WITH (security_invoker = true) AS
    SELECT id AS trajectory_id, collection_id, created_at AS at, -2 AS rank, 0::bigint AS position, 0 AS attempt,
           'run_created' AS event, NULL::text AS step, NULL::integer AS fence, trigger AS detail
    FROM routines.trajectories
    UNION ALL
    SELECT id, collection_id, started_at, -1, 0, 0, 'run_started', NULL, NULL, NULL
    FROM routines.trajectories WHERE started_at IS NOT NULL
    UNION ALL
    SELECT id, collection_id, (claimed.value ->> 'at')::timestamptz, -1, 0, 0, 'run_resumed', NULL,
           (claimed.value ->> 'fence')::integer, 'workers lost so far: ' || (claimed.value ->> 'crashes')
    FROM routines.trajectories CROSS JOIN LATERAL jsonb_array_elements(later_claims) AS claimed
    UNION ALL
    SELECT trajectories.id, collection_id, (tried.value ->> 'at')::timestamptz, 3 * steps.position, steps.position,
           tried.number::integer, 'step_try_failed', name, NULL, tried.value ->> 'error'
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id
    CROSS JOIN LATERAL jsonb_array_elements(earlier_errors) WITH ORDINALITY AS tried (value, number)
    UNION ALL
    SELECT trajectories.id, collection_id, (tried.value ->> 'started_at')::timestamptz, 3 * steps.position + 1, steps.position,
           tried.number::integer, 'step_started', name, NULL, activity
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id
    CROSS JOIN LATERAL jsonb_array_elements(earlier_errors) WITH ORDINALITY AS tried (value, number)
    WHERE tried.value ? 'started_at'
    UNION ALL
    SELECT trajectories.id, collection_id, steps.created_at, 3 * steps.position + 1, steps.position, steps.attempt,
           'step_started', name, steps.fence, activity
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id
    UNION ALL
    SELECT trajectories.id, collection_id, steps.ended_at, 3 * steps.position + 2, steps.position, steps.attempt,
           'step_' || steps.status, name, steps.fence, steps.error
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id WHERE steps.ended_at IS NOT NULL
    UNION ALL
    SELECT id, collection_id, ended_at, 2000000000, 0, 0,
           'run_' || CASE status WHEN 'archived' THEN 'ended' ELSE status END, NULL, fence, error
    FROM routines.trajectories WHERE ended_at IS NOT NULL
    UNION ALL
    SELECT id, collection_id, updated_at, 2000000001, 0, 0, 'run_archived', NULL, NULL, NULL
    FROM routines.trajectories WHERE status = 'archived'
    UNION ALL
    SELECT trajectory_id, collection_id, (tried.value ->> 'at')::timestamptz, 2000000002, id, tried.number::integer,
           'webhook_attempted', NULL, NULL, concat_ws(': ', tried.value ->> 'status', tried.value ->> 'error')
    FROM routines.webhook_deliveries
    CROSS JOIN LATERAL jsonb_array_elements(attempts) WITH ORDINALITY AS tried (value, number)
    WHERE trajectory_id IS NOT NULL;
COMMENT ON VIEW routines.run_events IS
    'The history of a run. SELECT * FROM routines.run_events WHERE trajectory_id = 1 ORDER BY at, rank, position, attempt;';
COMMENT ON COLUMN routines.run_events.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.run_events.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.run_events.at IS 'When it happened. A step that another worker took over started when that one did.';
COMMENT ON COLUMN routines.run_events.rank IS
    'Orders events of the same moment: the start of the run, its steps in order, its end.';
COMMENT ON COLUMN routines.run_events.position IS 'The step''s place in the workflow, or the id of the webhook delivery.';
COMMENT ON COLUMN routines.run_events.attempt IS 'The attempt of the step or of the delivery; 0 for events of the run.';
COMMENT ON COLUMN routines.run_events.event IS
    'run_created, run_started (its first claim), run_resumed (a later claim, after its worker was lost or released it), step_started, step_try_failed, step_completed, step_failed, step_cancelled, run_completed, run_failed, run_cancelled, run_ended (of a run archived since), run_archived, webhook_attempted.';
COMMENT ON COLUMN routines.run_events.step IS 'The step; null for events of the run.';
COMMENT ON COLUMN routines.run_events.fence IS 'The fence under which it was written; null where it was not recorded.';
COMMENT ON COLUMN routines.run_events.detail IS
    'The trigger of the run, the activity of the step, or the error; for a webhook, the HTTP status and the error.';

----------------------------------------------------------------------------------------------------------- at a glance
-- `needs_attention` is the rule by which the console sorts its overview (static/health.js). A test compares the two.
CREATE VIEW routines.routine_status WITH (security_invoker = true) AS
    SELECT collections.name || '/' || tasks.name || '/' || routine_names.name AS routine,
           routines.cadence_in_words(routines.cadence_of(routines)) AS cadence,
           CASE WHEN paused_until <= now() THEN 'due'
                WHEN paused AND paused_reason IS NOT NULL THEN 'paused by the scheduler'
                WHEN paused THEN 'paused'
                WHEN cadence_type = 'manual' THEN 'manual'
                WHEN next_run_at IS NULL THEN 'ended'
                WHEN next_run_at <= now() THEN 'due'
                ELSE 'scheduled' END AS state,
           next_run_at, last.scheduled_for AS last_slot, last.outcome AS last_outcome, last_run_at,
           coalesce(CASE WHEN paused_until IS NULL AND paused_note IS NULL THEN paused_reason
                         ELSE routines.pause_in_words(paused_reason, paused_at, paused_until, paused_note) END, last.detail) AS detail,
           coalesce(paused_reason IS NOT NULL OR least(next_run_at, paused_until) < now() - interval '60 s'
                    OR NOT paused AND found.troubles IS NOT NULL, false) AS needs_attention,
           CASE WHEN NOT paused THEN found.troubles END AS trouble, routines.id AS routine_id, routine_names.collection_id
    FROM routines.routine_names
    JOIN routines.routines ON routines.id = routine_names.routine_id
    JOIN routines.tasks ON tasks.id = routine_names.task_id
    JOIN routines.collections ON collections.id = routine_names.collection_id
    LEFT JOIN LATERAL (
        (SELECT scheduled_for, routines.status_of_slot(id, status, retried_by) AS outcome,
                CASE WHEN retried_by IS NULL THEN error
                     ELSE (SELECT attempt.error FROM routines.trajectories AS attempt
                           WHERE attempt.id = routines.last_attempt(trajectories.id, trajectories.retried_by)) END AS detail,
                scheduled_for AS at
         FROM routines.trajectories
         WHERE triggered_by_routine_id = routine_names.routine_id AND scheduled_for IS NOT NULL
         ORDER BY scheduled_for DESC LIMIT 1)
        UNION ALL
        (SELECT NULL, routines.status_of_slot(id, status, retried_by),
                CASE WHEN retried_by IS NULL THEN error
                     ELSE (SELECT attempt.error FROM routines.trajectories AS attempt
                           WHERE attempt.id = routines.last_attempt(trajectories.id, trajectories.retried_by)) END, created_at
         FROM routines.trajectories
         WHERE triggered_by_routine_id = routine_names.routine_id AND scheduled_for IS NULL AND trigger = 'run-now'
         ORDER BY id DESC LIMIT 1)
        UNION ALL
        (SELECT last_scheduled_for, reason, coalesce(detail, 'run ' || blocking_trajectory_id || ' was active'), scheduled_for
         FROM routines.skips
         WHERE skips.routine_id = routine_names.routine_id
         ORDER BY scheduled_for DESC LIMIT 1)
        ORDER BY at DESC LIMIT 1
    ) AS last ON true
    CROSS JOIN LATERAL (
        SELECT string_agg(kind || coalesce(': ' || split_part(detail, E'\n', 1), ''), '; ') AS troubles
        FROM routines.troubles_of(routine_names.routine_id)) AS found;
COMMENT ON VIEW routines.routine_status IS
    'The state of each routine. To list problems: SELECT * FROM routines.routine_status WHERE needs_attention;';
COMMENT ON COLUMN routines.routine_status.routine IS 'collection/task/name, as the functions why() and next() take it.';
COMMENT ON COLUMN routines.routine_status.cadence IS 'When its slots fall; in UTC unless it names a time zone.';
COMMENT ON COLUMN routines.routine_status.state IS 'scheduled; due (a slot, or the end of a pause, waits for a ticker); paused; paused by the scheduler (after three strikes, or after failures); manual; ended (no slot is left).';
COMMENT ON COLUMN routines.routine_status.next_run_at IS 'When it fires next, its spread included; null while paused, for manual, and once no slot is left.';
COMMENT ON COLUMN routines.routine_status.last_slot IS 'The newest slot that has its outcome; null if there is none yet, or if a run-now is newer.';
COMMENT ON COLUMN routines.routine_status.last_outcome IS
    'The status of the last attempt at that slot, or the reason why the slot was skipped; the status of the newest run-now if that is newer.';
COMMENT ON COLUMN routines.routine_status.last_run_at IS 'When it last started a run, on schedule or by run-now.';
COMMENT ON COLUMN routines.routine_status.detail IS 'Why it is paused, why the last run failed, or why the last slot was skipped.';
COMMENT ON COLUMN routines.routine_status.needs_attention IS
    'True if the scheduler paused it, if a slot or the end of its pause has waited for a ticker for over a minute, or if it is not paused and troubles_of() finds something.';
COMMENT ON COLUMN routines.routine_status.trouble IS
    'What troubles_of() finds wrong with it: failed, failed_to_start or missed; backoff; slow; webhook; null for nothing, and while it is paused.';
COMMENT ON COLUMN routines.routine_status.routine_id IS 'Its id, for use with routines and occurrences.';
COMMENT ON COLUMN routines.routine_status.collection_id IS 'The tenant.';

CREATE VIEW routines.help WITH (security_invoker = true) AS
    SELECT shown AS ask,
           CASE WHEN shown LIKE '%(%' THEN obj_description(to_regprocedure(shown), 'pg_proc')
                ELSE obj_description(to_regclass(shown), 'pg_class') END AS description
    FROM unnest(ARRAY[
        'routines.routine_status', 'routines.occurrences', 'routines.why(text, timestamptz)', 'routines.next(text, integer)',
        'routines.report(text, timestamptz, timestamptz, integer)', 'routines.gaps(text, timestamptz, timestamptz, boolean, integer)',
        'routines.slots_to_fill(bigint, timestamptz, timestamptz, text, text, timestamptz, integer, integer, timestamptz)',
        'routines.backfills', 'routines.changes', 'routines.spec_at(bigint, integer)', 'routines.revision_of_run(bigint)',
        'routines.alert_details', 'routines.routine_details', 'routines.trajectory_details', 'routines.run_events',
        'routines.next_fire(routines.cadence, timestamptz)',
        'routines.next_slots(routines.cadence, timestamptz, integer)',
        'routines.preview(routines.cadence, timestamptz, timestamptz, integer, timestamptz, integer)',
        'routines.preview_warnings(routines.cadence, timestamptz, timestamptz, integer, timestamptz, bigint)',
        'routines.collections', 'routines.tasks', 'routines.routines', 'routines.trajectories', 'routines.steps', 'routines.skips',
        'routines.alert_rules', 'routines.webhook_deliveries', 'routines.webhook_endpoints', 'routines.api_keys']) WITH ORDINALITY AS listed (shown, position)
    ORDER BY position;
COMMENT ON VIEW routines.help IS 'Where to start at psql: TABLE routines.help; then \d+ on what it names.';
COMMENT ON COLUMN routines.help.ask IS 'A view, a function or a table.';
COMMENT ON COLUMN routines.help.description IS 'Its comment, often with a statement to try.';

-- == sql/schema/12_why.sql

-- The sentences of `why`: what became of a time of a routine, and the reason. The API and psql read the same ones, from here.

CREATE FUNCTION routines.first_line(told text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(split_part(told, E'\n', 1)) > 200 THEN left(split_part(told, E'\n', 1), 200) || '…'
            ELSE rtrim(split_part(told, E'\n', 1), '. ') END;
COMMENT ON FUNCTION routines.first_line IS 'The first line of an error, at most 200 characters, as sentences quote it.';

CREATE FUNCTION routines.duration_in_words(seconds float8) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN seconds < 120 THEN round(seconds::numeric) || ' seconds'
    WHEN seconds < 7200 THEN round(seconds::numeric / 60) || ' minutes'
    ELSE round(seconds::numeric / 3600, 1) || ' hours' END;
COMMENT ON FUNCTION routines.duration_in_words IS 'A duration as sentences show it: 90 seconds, 45 minutes or 2.5 hours.';

-- The step that a run has reached, or where it ended. It is found by the key of the steps; a workflow has few.
CREATE FUNCTION routines.step_of_end(run routines.trajectories) RETURNS routines.steps LANGUAGE sql STABLE AS $$
    SELECT steps FROM routines.steps
    WHERE trajectory_id = run.id AND status IN ('running', 'failed', 'cancelled') AND run.status <> 'completed'
    ORDER BY position DESC LIMIT 1;
$$;
COMMENT ON FUNCTION routines.step_of_end IS
    'The step of a run that is running, or that failed or was cancelled; null for none and for a completed run.';

CREATE FUNCTION routines.runs_in_the_way(run routines.trajectories) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce('run ' || string_agg(id::text, ', ' ORDER BY id), 'other runs')
    FROM (SELECT id FROM routines.trajectories
          WHERE triggered_by_routine_id = run.triggered_by_routine_id
            AND trigger = 'schedule' AND place IS NULL AND final_status IS NULL
          UNION ALL
          SELECT id FROM routines.trajectories
          WHERE triggered_by_routine_id = run.triggered_by_routine_id
            AND (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL AND id <> run.id
          ORDER BY id LIMIT 3) AS active;
$$;
COMMENT ON FUNCTION routines.runs_in_the_way IS 'The first runs that a run which waits for a place waits for, as sentences show them.';

CREATE FUNCTION routines.run_in_words(run routines.trajectories, step routines.steps) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN format('run %s at %s', run.id, routines.utc(run.created_at)) || CASE run.status
    WHEN 'pending' THEN ', still waiting for a worker' || CASE WHEN run.started_at IS NOT NULL THEN ' to go on' ELSE '' END
    WHEN 'running' THEN coalesce(', running since ' || routines.utc(run.started_at),
                                 CASE WHEN run.retry_of IS NOT NULL THEN ', to begin at ' || routines.utc(run.lease_expires_at)
                                      WHEN run.place = 0 THEN ', waiting for the end of ' || routines.runs_in_the_way(run) END, ', running')
        || coalesce(', at try ' || step.attempt || ' of step ' || quote_literal(step.name), '')
    WHEN 'completed' THEN ', completed at ' || routines.utc(run.ended_at)
    WHEN 'failed' THEN ', failed at ' || routines.utc(run.ended_at)
        || coalesce(': step ' || quote_literal(step.name) || ' failed after ' || step.attempt
                    || CASE step.attempt WHEN 1 THEN ' try' ELSE ' tries' END, '')
        || coalesce(': ' || routines.first_line(coalesce(step.error, run.error)), '')
    WHEN 'cancelled' THEN ', cancelled at ' || routines.utc(run.ended_at) || coalesce(' during step ' || quote_literal(step.name), '')
        || coalesce(': ' || routines.first_line(regexp_replace(run.error, '^cancelled: ', '')), '')
    ELSE format(', ended at %s, now %s', routines.utc(run.ended_at), run.status)
        || coalesce(': ' || routines.first_line(run.error), '') END;
COMMENT ON FUNCTION routines.run_in_words IS
    'What became of a run: when it started and ended; the step at which it stands or ended, how often that was tried, and the cause.';

-- What held up a slot that was due at one time and decided at another. A ticker records outages only (Ticker.note_outage): if it
-- recorded none, tickers ran.
CREATE FUNCTION routines.longest_outage(due_at timestamptz, decided_at timestamptz) RETURNS routines.ticker_outages
LANGUAGE sql STABLE AS $$
    SELECT ticker_outages FROM routines.ticker_outages
    WHERE began_at < longest_outage.decided_at AND ended_at > longest_outage.due_at
    ORDER BY least(ended_at, longest_outage.decided_at) - greatest(began_at, longest_outage.due_at) DESC LIMIT 1;
$$;
COMMENT ON FUNCTION routines.longest_outage IS 'The outage of all tickers that took most of this time; null for none.';

-- Not from began_at where that is earlier, because it may be the slot of another tenant.
CREATE FUNCTION routines.outage_in_words(outage routines.ticker_outages, due_at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'no ticker ran from ' || routines.utc(greatest((outage).began_at, due_at)) || ' to ' || routines.utc((outage).ended_at);
COMMENT ON FUNCTION routines.outage_in_words IS 'An outage, from the time at which a slot was due; null for none.';

-- Since the routine's creation, every slot is in one of these groups: it is in the ledger, it is due, it falls in the current
-- pause, it lies in the future, or a person has set next_run_at past it. Any other time was not a slot, unless it is older than
-- what retention keeps. Rows of skips do not overlap, so only the latest that began by the time can contain it.
CREATE FUNCTION routines.explain_time(
    of_routine bigint, at_time timestamptz DEFAULT NULL, clock timestamptz DEFAULT now(), of_collection bigint DEFAULT NULL
) RETURNS TABLE (
    sentence text, kind text, at timestamptz, now timestamptz, scheduled_for timestamptz, last_scheduled_for timestamptz,
    slot_count bigint, recorded_at timestamptz, trajectory_id bigint, trajectory_status text, blocking_trajectory_id bigint,
    blocking_started_at timestamptz, blocking_ended_at timestamptz, detail text, routine_created_at timestamptz,
    paused_at timestamptz, paused_reason text, paused_until timestamptz, paused_note text, cadence_type text,
    is_slot_of_cadence boolean, next_slot timestamptz, due_at timestamptz, step text, tries integer, error text,
    delay_seconds float8, delay_reason text, missed_before bigint, last_trajectory_id bigint, filled_by bigint
) LANGUAGE sql STABLE ROWS 1 AS $$
    WITH asked AS MATERIALIZED (
        SELECT coalesce(at_time, (
            SELECT routines.latest_slot(routines.cadence_of(routines), routines.without_spread(routines, clock)) FROM routines.routines
            WHERE (of_collection IS NULL OR collection_id = of_collection) AND id = of_routine), clock) AS at, clock AS now
    ),
    run AS (
        SELECT trajectories.*, ended_step, routines.run_in_words(trajectories, ended_step) AS in_words,
               created_at - coalesce(due_at, scheduled_for) AS delay
        FROM asked JOIN routines.trajectories ON scheduled_for = at
        CROSS JOIN LATERAL (SELECT routines.step_of_end(trajectories) AS ended_step) AS found
        WHERE (of_collection IS NULL OR collection_id = of_collection)
          AND triggered_by_routine_id = of_routine
    ),
    -- Here and in `fill` the id comes from a subquery: row-level security keeps a condition that calls a function out of the search of
    -- an index, and every run would be read.
    last AS (
        SELECT trajectories.*, found.ended_step, routines.run_in_words(trajectories, found.ended_step) AS in_words
        FROM routines.trajectories
        CROSS JOIN LATERAL (SELECT routines.step_of_end(trajectories) AS ended_step) AS found
        WHERE trajectories.id = (SELECT routines.last_attempt(id, retried_by) FROM run WHERE retried_by IS NOT NULL)
          AND (of_collection IS NULL OR trajectories.collection_id = of_collection)
    ),
    begun AS (
        SELECT skips.*
        FROM asked JOIN routines.skips ON scheduled_for <= at
        WHERE (of_collection IS NULL OR collection_id = of_collection) AND routine_id = of_routine
        ORDER BY scheduled_for DESC LIMIT 1
    ),
    skip AS (
        SELECT begun.* FROM asked, begun
        WHERE last_scheduled_for >= at
          AND coalesce(routines.is_slot_of_span(cadence, scheduled_for, last_scheduled_for, at), false)
    ),
    -- What held up a run that is more than a minute late, or a slot that was missed for no other reason.
    outage AS (
        SELECT routines.outage_in_words(longest, held.due_at) AS in_words, longest.ended_at
        FROM (SELECT coalesce(due_at, scheduled_for) AS due_at, created_at AS decided_at FROM run WHERE delay > interval '60 s'
              UNION ALL
              SELECT at + coalesce(skip.due_at - skip.last_scheduled_for, '0'), recorded_at FROM asked, skip
              WHERE reason = 'missed' AND detail IS NULL) AS held,
             LATERAL routines.longest_outage(held.due_at, held.decided_at) AS longest
        WHERE longest.id IS NOT NULL
    ),
    fill AS (
        SELECT id, routines.run_in_words(trajectories, routines.step_of_end(trajectories)) AS in_words
        FROM routines.trajectories
        WHERE trajectories.id = (SELECT routines.last_fill(of_routine, at) FROM asked)
          AND (of_collection IS NULL OR trajectories.collection_id = of_collection)
    ),
    -- The first later slot that has its outcome, which may follow another cadence than today's.
    settled AS (
        SELECT min(slot) AS slot
        FROM asked, LATERAL (
            SELECT routines.next_slot_of_span(cadence, scheduled_for, last_scheduled_for, at) AS slot FROM begun
            UNION ALL
            SELECT min(scheduled_for) FROM routines.skips
            WHERE (of_collection IS NULL OR collection_id = of_collection)
              AND routine_id = of_routine AND scheduled_for > at
            UNION ALL
            SELECT min(scheduled_for) FROM routines.trajectories
            WHERE (of_collection IS NULL OR collection_id = of_collection)
              AND triggered_by_routine_id = of_routine AND scheduled_for > at) AS later
    ),
    routine AS (
        SELECT routines.*, own_now, coming, routines.without_spread(routines, paused_until) AS pause_end,
               coalesce(coming = at OR moved_to = at OR at = routines.latest_slot(routines.cadence_of(routines), at), false) AS is_slot,
               CASE WHEN at > own_now THEN routines.exclusion_of(routines, at) END AS exclusion,
               at > coalesce(settled_until, created_at) AND at < coming AS is_passed_over,
               CASE WHEN paused AND unsettled > own_now
                        THEN CASE WHEN paused_until IS NOT NULL THEN greatest(unsettled, routines.slot_after_pause(routines)) END
                    WHEN at >= own_now AND at < coming THEN coming
                    ELSE unsettled END AS next_slot
        -- On the clock of the routine, which its spread may set back.
        FROM asked, routines.routines, LATERAL (SELECT routines.without_spread(routines, now) AS own_now,
                                                       routines.without_spread(routines, next_run_at) AS coming) AS own,
             LATERAL (SELECT routines.next_fire(
            routines.cadence_of(routines), greatest(at, created_at, settled_until)) AS unsettled) AS next_fire
        WHERE (of_collection IS NULL OR collection_id = of_collection) AND id = of_routine
    ),
    facts AS (
        SELECT CASE WHEN run.id IS NOT NULL THEN 'started'
                    WHEN skip.id IS NOT NULL THEN skip.reason
                    WHEN routine.id IS NULL THEN 'deleted'
                    WHEN at < routine.created_at AND at < coalesce(coming, routine.created_at) THEN 'before_creation'
                    WHEN at <= settled_until AND at <= (SELECT max(deleted_until) FROM routines.retention) THEN 'forgotten'
                    WHEN NOT is_slot THEN 'not_a_slot'
                    WHEN paused AND at > own_now AND (at >= pause_end) IS NOT TRUE THEN 'paused_in_future'
                    WHEN exclusion IS NOT NULL AND (paused OR coming <= at) THEN 'excluded_in_future'
                    WHEN paused AND at > own_now THEN 'future'
                    WHEN paused AND at > coalesce(settled_until, paused_at)
                        THEN CASE WHEN at >= pause_end THEN 'pending' ELSE 'paused' END
                    WHEN coming <= at THEN CASE WHEN at > own_now THEN 'future' ELSE 'pending' END
                    WHEN is_passed_over THEN 'passed_over'
                    ELSE 'not_a_slot' END AS kind,
               at, now,
               coalesce(run.scheduled_for, skip.scheduled_for) AS scheduled_for,
               coalesce(run.scheduled_for, skip.last_scheduled_for) AS last_scheduled_for,
               coalesce(skip.slot_count, CASE WHEN run.id IS NOT NULL THEN 1 END) AS slot_count,
               coalesce(run.created_at, skip.recorded_at) AS recorded_at,
               run.id AS trajectory_id, coalesce(last.status, run.status) AS trajectory_status,
               skip.blocking_trajectory_id,
               coalesce(blocking.started_at, blocking.created_at) AS blocking_started_at, blocking.ended_at AS blocking_ended_at,
               coalesce(skip.detail, exclusion, CASE WHEN is_slot AND is_passed_over THEN routines.passed_over_detail(next_run_at) END) AS detail,
               routine.created_at AS routine_created_at, routine.paused_at, routine.paused_reason, routine.paused_until,
               routine.paused_note, routine.cadence_type,
               coalesce(is_slot, false) AS is_slot_of_cadence, coalesce(settled.slot, next_slot) AS next_slot,
               CASE WHEN run.id IS NOT NULL THEN run.due_at
                    WHEN skip.id IS NOT NULL THEN at + (skip.due_at - skip.last_scheduled_for)
                    WHEN is_slot THEN at + spread_offset END AS due_at,
               (shown_step).name AS step, (shown_step).attempt AS tries,
               routines.first_line(coalesce((shown_step).error, CASE WHEN last.id IS NULL THEN run.error ELSE last.error END)) AS error,
               extract(epoch FROM run.delay)::float8 AS delay_seconds,
               CASE WHEN outage.in_words IS NOT NULL THEN 'no_ticker' WHEN run.delay > interval '60 s' THEN 'backlog' END AS delay_reason,
               -- Slots that the same tick recorded as missed, because this one is newer.
               CASE WHEN begun.reason = 'missed' AND begun.detail IS NULL AND begun.recorded_at = run.created_at
                    THEN begun.slot_count END AS missed_before, last.id AS last_trajectory_id, (SELECT id FROM fill) AS filled_by
        FROM asked CROSS JOIN settled
        LEFT JOIN run ON true
        LEFT JOIN last ON true
        CROSS JOIN LATERAL (SELECT CASE WHEN last.id IS NULL THEN run.ended_step ELSE last.ended_step END AS shown_step) AS step_of_last
        LEFT JOIN skip ON true
        LEFT JOIN routine ON true
        LEFT JOIN outage ON true
        LEFT JOIN begun ON true
        LEFT JOIN routines.trajectories AS blocking ON blocking.id = skip.blocking_trajectory_id
    )
    SELECT CASE kind
           WHEN 'started' THEN 'Started: ' || (SELECT in_words FROM run) || '.'
               || coalesce(' ' || (SELECT CASE WHEN trigger <> 'retry' THEN 'Run again: ' WHEN retry_number = 1 THEN 'Retried: '
                                               ELSE format('Retried %s times, last: ', retry_number) END
                                          || in_words || '.' FROM last), '')
               || CASE WHEN delay_reason IS NULL THEN '' ELSE
               format(' It was %s late: %s.', routines.duration_in_words(delay_seconds), coalesce(
                   (SELECT in_words || CASE WHEN recorded_at - ended_at > interval '60 s' THEN ', and then the tickers were behind' ELSE '' END
                    FROM outage), 'the tickers were behind')) END
               || CASE WHEN missed_before > 1 THEN format(' The %s slots before it were missed.', missed_before)
                       WHEN missed_before = 1 THEN ' The slot before it was missed.' ELSE '' END
           WHEN 'overlap' THEN 'Skipped: run ' || blocking_trajectory_id || ' was still running'
               || coalesce(', started ' || routines.utc(blocking_started_at), '') || '.'
           WHEN 'coalesced' THEN 'Skipped: ' || detail || '.'
           WHEN 'missed' THEN 'Missed: ' || coalesce(detail, (SELECT in_words FROM outage), 'no ticker picked it up in time')
               || CASE WHEN slot_count > 1 THEN format(', as were all %s slots from %s to %s', slot_count,
                       routines.utc(scheduled_for), routines.utc(last_scheduled_for)) ELSE '' END
               || '; recorded ' || routines.utc(recorded_at) || '.'
           WHEN 'paused' THEN 'Skipped: ' || coalesce(detail, pause) || '.'
           WHEN 'failed_to_start' THEN 'Skipped: the run failed to start: ' || detail || '.'
           WHEN 'calendar' THEN 'Skipped: a calendar excludes the day: ' || detail || '.'
           WHEN 'backoff' THEN 'Skipped: ' || detail || '.'
           WHEN 'outside_hours' THEN 'Skipped: it was outside the active hours: ' || detail || '.'
           WHEN 'excluded_in_future' THEN 'It will be skipped: ' || detail || '.'
           WHEN 'pending' THEN 'Due since ' || routines.utc(coalesce(due_at, at)) || '; no ticker has picked it up yet.'
           WHEN 'future' THEN 'Upcoming: the slot is due at ' || routines.utc(coalesce(due_at, at)) || '.'
           WHEN 'passed_over' THEN 'It will be missed: ' || detail || '.'
           WHEN 'paused_in_future' THEN 'It will be skipped unless the routine is resumed: ' || pause || '.'
           WHEN 'before_creation' THEN 'No slot: the routine was created later, at ' || routines.utc(routine_created_at) || CASE
               WHEN facts.cadence_type = 'manual' THEN '; it is manual and has none.'
               WHEN routine_created_at <= (SELECT max(deleted_until) FROM routines.retention) THEN '.'
               ELSE coalesce(format('; its first slot %s ', CASE WHEN next_slot > now THEN 'is' ELSE 'was' END) || routines.utc(next_slot),
                             '; none is coming (' || pause || ')', '; none is coming') || '.' END
           WHEN 'forgotten' THEN 'No record: the ledger no longer goes back to that time.'
           WHEN 'deleted' THEN 'No record: the routine was deleted, and the ledger has no such slot.'
           ELSE 'No slot: ' || CASE
               WHEN facts.cadence_type = 'manual' THEN 'the routine is manual and has none.'
               WHEN is_slot_of_cadence THEN 'the routine had a different cadence then.'
               ELSE coalesce((SELECT format('it was moved to %s, since the rules of %s have changed; recorded %s', routines.utc(moved_to),
                                            timezone, routines.utc(moved_at))
                              FROM routines.slot_moves WHERE routine_id = of_routine AND moved_from = at
                                AND (of_collection IS NULL OR collection_id = of_collection) ORDER BY moved_at DESC LIMIT 1),
                             'the next is ' || routines.utc(next_slot), 'none is coming (' || pause || ')', 'none is coming') || '.' END
           END || coalesce(' Filled afterwards: ' || (SELECT in_words FROM fill) || '.', '')
           || coalesce(' ' || CASE WHEN is_slot_of_cadence THEN (
               SELECT routines.clock_note(routines.cadence_of(routines), at, kind NOT IN ('future', 'paused_in_future', 'excluded_in_future', 'passed_over'))
               FROM routines.routines WHERE id = of_routine) END, '')
           || CASE WHEN due_at IS NULL OR kind IN ('forgotten', 'before_creation', 'not_a_slot', 'deleted') THEN '' ELSE format(
               ' Its spread %s it due %s s after its time.',
               CASE WHEN kind IN ('future', 'paused_in_future', 'excluded_in_future', 'passed_over') THEN 'makes' ELSE 'made' END,
               extract(epoch FROM due_at - at)::integer) END,
           facts.*
    FROM facts, LATERAL (
        SELECT routines.pause_in_words(paused_reason, paused_at, paused_until, paused_note) AS pause) AS present;
$$;
COMMENT ON FUNCTION routines.explain_time IS
    'Explains a time of a routine, by default its newest slot, even of a deleted one: a sentence, and the facts behind it. `clock` moves the clock in tests; `of_collection` restricts it to one collection.';

CREATE FUNCTION routines.routine_id(routine text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    found bigint := (
        SELECT routine_id FROM routines.routine_names
        JOIN routines.tasks ON tasks.id = routine_names.task_id
        JOIN routines.collections ON collections.id = routine_names.collection_id
        WHERE collections.name = split_part(routine, '/', 1) AND tasks.name = split_part(routine, '/', 2)
          AND routine_names.name = split_part(routine, '/', 3) AND split_part(routine, '/', 4) = '');
BEGIN
    IF found IS NULL THEN
        RAISE EXCEPTION 'there is no routine %', routine USING ERRCODE = 'no_data_found', HINT =
            'Name it as collection/task/name: see SELECT routine FROM routines.routine_status. For a deleted routine: SELECT * FROM routines.explain_time(id, time).';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.routine_id IS 'The id of a routine. Try: SELECT routines.routine_id(''demo/hello/every-hour'');';

CREATE FUNCTION routines.why(routine text, at timestamptz DEFAULT NULL) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT sentence FROM routines.explain_time(routines.routine_id(routine), why.at);
$$;
COMMENT ON FUNCTION routines.why IS
    'Why a routine ran or did not run at a time, by default at its newest slot. Try: SELECT routines.why(''demo/hello/every-hour'', now() - interval ''1 day'');';

CREATE FUNCTION routines.next(routine text, slot_limit integer DEFAULT 10)
RETURNS TABLE (slot timestamptz, utc text, local_time text, dst text, due_at timestamptz, excluded text) LANGUAGE sql STABLE AS $$
    SELECT slot, routines.utc(slot), routines.local_time_of(cadence, slot), routines.dst_of(cadence, slot), slot + spread_offset,
           routines.exclusion_of(routine, slot)
    FROM (SELECT routines AS routine, routines.cadence_of(routines) AS cadence, routines.without_spread(routines, now()) AS own_now, spread_offset,
                 coalesce(routines.without_spread(routines, next_run_at), routines.slot_after_pause(routines)) AS first_slot
          FROM routines.routines WHERE id = routines.routine_id(routine)) AS found,
         routines.next_slots(cadence, greatest(own_now, first_slot - interval '1 microsecond'), slot_limit) AS slot
    WHERE first_slot IS NOT NULL;
$$;
COMMENT ON FUNCTION routines.next IS
    'The coming slots of a routine, in UTC and, for cron, in local time, with the time at which each is due if the routine has a spread, and the reason why one will not fire; while it is paused, those after the end of the pause, or no rows if it has no end. Try: SELECT * FROM routines.next(''demo/hello/every-hour'', 3);';

-- == sql/schema/13_metrics.sql

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

-- == sql/schema/13_notices.sql

-- Alerts as the API and a person at psql see them, what a notice says, and what workers ask while they judge. The statements that
-- open and close alerts are in queries/alerts.sql.

CREATE VIEW routines.alert_details WITH (security_invoker = true) AS
    SELECT alerts.id, alert_rules.name AS rule, event, coalesce(tasks.name, deleted_tasks.name, 'deleted')::routines.slug AS task,
           coalesce(routine_names.name, deleted_routines.name, 'deleted')::routines.slug AS routine, alerts.routine_id,
           scheduled_for, alerts.trajectory_id, detail,
           CASE WHEN closed_at IS NULL THEN 'open' WHEN suppressed_reason IS NULL THEN 'recovered' ELSE 'suppressed' END AS state,
           opened_at, notice.delivered_at AS notified_at,
           CASE WHEN notice_id IS NULL THEN CASE WHEN suppressed_reason IS NULL THEN 'waiting' ELSE 'none' END
                WHEN notice.next_attempt_at IS NOT NULL THEN 'pending'
                WHEN notice.give_up_reason IS NOT NULL THEN 'given_up' ELSE 'delivered' END AS notice,
           CASE WHEN suppressed_reason IS NULL THEN closed_at END AS recovered_at,
           CASE WHEN suppressed_reason IS NOT NULL THEN closed_at END AS suppressed_at, suppressed_reason,
           alerts.rule_id, alerts.collection_id
    FROM routines.alerts
    JOIN routines.alert_rules ON alert_rules.id = alerts.rule_id
    LEFT JOIN routines.routine_names ON routine_names.routine_id = alerts.routine_id
    LEFT JOIN routines.deleted_routines ON deleted_routines.id = alerts.routine_id
    LEFT JOIN routines.tasks ON tasks.id = coalesce(routine_names.task_id, deleted_routines.task_id)
    LEFT JOIN routines.deleted_tasks ON deleted_tasks.id = deleted_routines.task_id
    LEFT JOIN routines.webhook_deliveries AS notice ON notice.id = notice_id;
COMMENT ON VIEW routines.alert_details IS
    'Alerts with their state and names. To list open ones: SELECT * FROM routines.alert_details WHERE state = ''open'' ORDER BY id DESC;';
COMMENT ON COLUMN routines.alert_details.id IS 'alert_id in a notice.';
COMMENT ON COLUMN routines.alert_details.rule IS 'The rule that it is of.';
COMMENT ON COLUMN routines.alert_details.event IS 'late, missed, failed, streak, slow, paused or webhook_stopped.';
COMMENT ON COLUMN routines.alert_details.task IS 'The task; for a deleted one, its last name.';
COMMENT ON COLUMN routines.alert_details.routine IS 'The routine; for a deleted one, its last name.';
COMMENT ON COLUMN routines.alert_details.routine_id IS 'Its id.';
COMMENT ON COLUMN routines.alert_details.scheduled_for IS 'The slot; of late the first that was; null if it is about none.';
COMMENT ON COLUMN routines.alert_details.trajectory_id IS 'The run; null if it is about none.';
COMMENT ON COLUMN routines.alert_details.detail IS 'A sentence for people.';
COMMENT ON COLUMN routines.alert_details.state IS 'open, recovered or suppressed.';
COMMENT ON COLUMN routines.alert_details.opened_at IS 'When it was found.';
COMMENT ON COLUMN routines.alert_details.notified_at IS 'When the receiver accepted its notice; null if it has not.';
COMMENT ON COLUMN routines.alert_details.notice IS
    'waiting (for the next round of a worker, or for the digest), pending (queued, perhaps after failed attempts), delivered, given_up, or none (suppressed before it was told).';
COMMENT ON COLUMN routines.alert_details.recovered_at IS 'When it was over; null if it is not.';
COMMENT ON COLUMN routines.alert_details.suppressed_at IS 'When it was suppressed; null if it was not.';
COMMENT ON COLUMN routines.alert_details.suppressed_reason IS 'Why it was suppressed, say by a pause; null if it was not.';
COMMENT ON COLUMN routines.alert_details.rule_id IS 'The id of the rule.';
COMMENT ON COLUMN routines.alert_details.collection_id IS 'The tenant.';

-------------------------------------------------------------------------------------------------------------- judging
CREATE FUNCTION routines.last_tick_at() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT greatest(
        (SELECT max(created_at) FROM (SELECT created_at, trigger FROM routines.trajectories ORDER BY id DESC LIMIT 1000) AS newest
         WHERE trigger = 'schedule'),
        (SELECT max(recorded_at) FROM (SELECT recorded_at, reason, detail FROM routines.skips ORDER BY id DESC LIMIT 1000) AS newest
         WHERE reason IN ('overlap', 'coalesced', 'failed_to_start', 'backoff') OR reason = 'missed' AND detail IS NULL));
$$;
COMMENT ON FUNCTION routines.last_tick_at IS
    'When a ticker last recorded an outcome, judging by the newest 1,000 runs and skips; null if none of these is of a ticker.';

CREATE FUNCTION routines.slow_percentile(of_routine bigint) RETURNS float8 LANGUAGE sql STABLE AS $$
    SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - started_at))
    FROM (SELECT started_at, ended_at, final_status FROM routines.trajectories
          WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL ORDER BY scheduled_for DESC LIMIT 100) AS newest
    WHERE final_status = 'completed' AND started_at IS NOT NULL
    HAVING count(*) >= 5;
$$;
COMMENT ON FUNCTION routines.slow_percentile IS
    'The 95th percentile of how long the completed ones among the newest 100 scheduled runs of a routine took; null if fewer than 5 have completed.';

CREATE FUNCTION routines.has_completed_since(of_routine bigint, slot timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM (SELECT id, status, retried_by FROM routines.trajectories
                     WHERE triggered_by_routine_id = of_routine AND scheduled_for > slot ORDER BY scheduled_for LIMIT 100) AS later
        WHERE routines.status_of_slot(id, status, retried_by) = 'completed');
$$;
COMMENT ON FUNCTION routines.has_completed_since IS 'Whether one of the next 100 slots after this one has completed.';

------------------------------------------------------------------------------------------------------------- notices
CREATE FUNCTION routines.alert_json(alert_id bigint) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'alert_id', id, 'event', event, 'task', task, 'routine', routine, 'routine_id', routine_id,
        'scheduled_for', routines.json_time(scheduled_for)::json, 'trajectory_id', trajectory_id,
        'opened_at', routines.json_time(opened_at)::json, 'recovered_at', routines.json_time(recovered_at)::json, 'detail', detail)
    FROM routines.alert_details WHERE id = alert_id;
$$;
COMMENT ON FUNCTION routines.alert_json IS 'An alert as notices show it.';

CREATE FUNCTION routines.notice_body(
    of_rule bigint, notice text, alert_ids bigint[], remark text DEFAULT NULL, facts json DEFAULT '{}'
) RETURNS bytea LANGUAGE plpgsql STABLE AS $$
DECLARE
    number integer := cardinality(alert_ids);
    head   text;
    alone  json;
BEGIN
    SELECT format('"event":%s,"rule":%s,"collection":%s,"count":%s', to_json(notice), to_json(alert_rules.name),
                  to_json(collections.name), number) INTO head
    FROM routines.alert_rules JOIN routines.collections ON collections.id = collection_id WHERE alert_rules.id = of_rule;
    IF number = 1 AND notice <> 'digest' THEN
        alone := routines.alert_json(alert_ids[1]);
        RETURN convert_to(format(
            '{%s,"alert_id":%s,%s"task":%s,"routine":%s,"routine_id":%s,"scheduled_for":%s,"trajectory_id":%s,"opened_at":%s,'
            '"recovered_at":%s,"detail":%s}',
            head, alone -> 'alert_id', CASE WHEN notice = 'recovered' THEN format('"of":%s,', alone -> 'event') ELSE '' END,
            alone -> 'task', alone -> 'routine', alone -> 'routine_id', alone -> 'scheduled_for', alone -> 'trajectory_id',
            alone -> 'opened_at', alone -> 'recovered_at', to_json(concat_ws('; ', alone ->> 'detail', remark))), 'UTF8');
    END IF;
    RETURN convert_to(format(
        '{%s,"detail":%s,%s"alerts":%s}', head,
        to_json(concat_ws('; ', number || CASE WHEN notice = 'late' THEN ' routines are late'
                                               WHEN notice = 'recovered' THEN ' alerts are over'
                                               WHEN notice <> 'digest' THEN ' alerts at once'
                                               WHEN number = 1 THEN ' alert' ELSE ' alerts' END, remark)),
        (SELECT coalesce(string_agg(format('%s:%s,', to_json(key), value), ''), '') FROM json_each(facts)),
        (SELECT json_agg(routines.alert_json(listed) ORDER BY listed) FROM unnest(alert_ids[:20]) AS listed)), 'UTF8');
END $$;
COMMENT ON FUNCTION routines.notice_body IS
    'The body of a notice: of one alert its fields, of several and in a digest the first 20, with a remark and further facts. A few KiB, whatever their number.';

-- == sql/schema/14_day_sums.sql

-- Sums of days: how the scheduled runs of each routine ended on each day that has been over for two hours. A report of a month reads a
-- row for each day instead of every run. Workers add the rows. Whatever changes a run of a day later is noted in day_changes in the
-- same transaction; reports then read the runs of that day, until a worker has summed it up again. So a report is that of the
-- ledger at any moment.

-- Triggers:
--   AFTER TRUNCATE  begin_anew  lets workers begin at the oldest run again
-- No foreign keys: history outlives the routine.
CREATE TABLE routines.day_sums (
    routine_id     bigint NOT NULL,
    day            date NOT NULL,
    collection_id  bigint NOT NULL,
    is_open        boolean NOT NULL,
    started        integer NOT NULL DEFAULT 0,
    late           integer NOT NULL DEFAULT 0,
    completed      integer NOT NULL DEFAULT 0,
    failed         integer NOT NULL DEFAULT 0,
    cancelled      integer NOT NULL DEFAULT 0,
    archived       integer NOT NULL DEFAULT 0,
    max_delay      interval,
    failed_slots   timestamptz[],
    last_completed timestamptz,
    summed_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT day_sums_pkey PRIMARY KEY (routine_id, day)
);
-- What retention leaves behind.
CREATE INDEX day_sums_day_idx ON routines.day_sums (day);
COMMENT ON TABLE  routines.day_sums IS
    'How the scheduled runs of each routine ended, by day. Read by reports only. After TRUNCATE workers sum up anew; nothing else may delete rows.';
COMMENT ON COLUMN routines.day_sums.routine_id IS 'The routine, which may have been deleted. It has no row for a day without runs.';
COMMENT ON COLUMN routines.day_sums.day IS 'The UTC day of the slots.';
COMMENT ON COLUMN routines.day_sums.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.day_sums.is_open IS 'Whether a run had not ended: the sums do not count.';
COMMENT ON COLUMN routines.day_sums.started IS 'The number of runs.';
COMMENT ON COLUMN routines.day_sums.late IS 'How many began more than 60 seconds after the slot was due.';
COMMENT ON COLUMN routines.day_sums.completed IS 'Slots whose last attempt completed.';
COMMENT ON COLUMN routines.day_sums.failed IS 'Slots whose last attempt failed.';
COMMENT ON COLUMN routines.day_sums.cancelled IS 'Slots whose last attempt was cancelled.';
COMMENT ON COLUMN routines.day_sums.archived IS 'Slots whose last attempt was archived.';
COMMENT ON COLUMN routines.day_sums.max_delay IS 'The longest time from a slot''s due time to the start of its run.';
COMMENT ON COLUMN routines.day_sums.failed_slots IS 'The slots that failed; null if none did.';
COMMENT ON COLUMN routines.day_sums.last_completed IS 'The latest slot that completed; null if none did.';
COMMENT ON COLUMN routines.day_sums.summed_at IS 'When it was summed up.';
SELECT routines.protect('routines.day_sums');

-- No triggers. Rows are only added, so no transaction that changes a run waits for another. A worker deletes those that it saw before
-- it began to count.
CREATE TABLE routines.day_changes (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT day_changes_pkey PRIMARY KEY,
    routine_id    bigint NOT NULL,
    day           date NOT NULL,
    collection_id bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX day_changes_day_idx ON routines.day_changes (day);
COMMENT ON TABLE  routines.day_changes IS 'Days on which a run changed more than half an hour after its slot. Reports do not use their sums.';
COMMENT ON COLUMN routines.day_changes.id IS 'Database id.';
COMMENT ON COLUMN routines.day_changes.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.day_changes.day IS 'The UTC day of the slot.';
COMMENT ON COLUMN routines.day_changes.collection_id IS 'The tenant.';
SELECT routines.protect('routines.day_changes');

-- No triggers. One row.
CREATE TABLE routines.day_sums_progress (
    only_row      boolean NOT NULL DEFAULT true CONSTRAINT day_sums_progress_pkey PRIMARY KEY
                  CONSTRAINT day_sums_progress_is_one_row CHECK (only_row),
    summed_from   date NOT NULL,
    summed_until  date NOT NULL,
    after_routine bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
COMMENT ON TABLE  routines.day_sums_progress IS 'Which days workers have summed up. One of them at a time locks it. Empty: none, and they will begin at the oldest run.';
COMMENT ON COLUMN routines.day_sums_progress.only_row IS 'Always true.';
COMMENT ON COLUMN routines.day_sums_progress.summed_from IS 'The first day that has been summed up.';
COMMENT ON COLUMN routines.day_sums_progress.summed_until IS 'The first day that has not been summed up completely.';
COMMENT ON COLUMN routines.day_sums_progress.after_routine IS 'Up to which routine that day has been summed up.';

CREATE FUNCTION routines.begin_anew() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM routines.day_sums_progress;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.begin_anew IS 'Forgets which days have been summed up.';
CREATE TRIGGER begin_anew AFTER TRUNCATE ON routines.day_sums FOR EACH STATEMENT EXECUTE FUNCTION routines.begin_anew();

CREATE FUNCTION routines.first_day_with_all_runs() RETURNS date LANGUAGE sql STABLE AS $$
    SELECT (deleted_until AT TIME ZONE 'UTC')::date + 1 FROM routines.retention WHERE what = 'trajectories';
$$;
COMMENT ON FUNCTION routines.first_day_with_all_runs IS
    'The first UTC day from which retention has deleted no run; null if it has deleted none.';

CREATE FUNCTION routines.day_begins_at(day date) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
RETURN day::timestamp AT TIME ZONE 'UTC';
COMMENT ON FUNCTION routines.day_begins_at IS 'The beginning of a UTC day.';

---------------------------------------------------------------------------------------------------------------- changes
-- A day is summed up two hours after its end, and a change of a run is noted from half an hour after its slot. So a transaction would have
-- to last for an hour and a half to be overlooked.
CREATE FUNCTION routines.mark_changed_day() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.day_changes (routine_id, day, collection_id)
    SELECT DISTINCT run.routine_id, (run.slot AT TIME ZONE 'UTC')::date, NEW.collection_id
    FROM (VALUES (NEW.triggered_by_routine_id, NEW.scheduled_for),
                 (CASE WHEN TG_OP = 'UPDATE' THEN OLD.triggered_by_routine_id END, CASE WHEN TG_OP = 'UPDATE' THEN OLD.scheduled_for END),
                 -- A retry changes what became of the slot of the run that failed first.
                 (NEW.triggered_by_routine_id, (SELECT first.scheduled_for FROM routines.trajectories AS first
                                                WHERE first.id = NEW.retry_of))) AS run (routine_id, slot)
    WHERE run.routine_id IS NOT NULL AND run.slot < now() - interval '30 minutes';
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.mark_changed_day IS 'Notes that the day of a scheduled run, or of the slot of a retry, has changed.';
CREATE TRIGGER mark_day_of_created AFTER INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.scheduled_for < now() - interval '30 minutes') EXECUTE FUNCTION routines.mark_changed_day();
CREATE TRIGGER mark_day_of_changed
    AFTER UPDATE OF status, triggered_by_routine_id, scheduled_for, due_at, started_at, ended_at, retry_of, retried_by ON routines.trajectories
    FOR EACH ROW WHEN (NEW.scheduled_for < now() - interval '30 minutes' OR OLD.scheduled_for < now() - interval '30 minutes'
                       OR NEW.retry_of IS NOT NULL)
    EXECUTE FUNCTION routines.mark_changed_day();

-- Once a statement, since retention deletes in batches.
CREATE FUNCTION routines.mark_days_of_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.day_changes (routine_id, day, collection_id)
    SELECT DISTINCT deleted.triggered_by_routine_id, (slot AT TIME ZONE 'UTC')::date, deleted.collection_id
    FROM deleted CROSS JOIN LATERAL (SELECT CASE WHEN deleted.retry_of IS NULL THEN deleted.scheduled_for ELSE (
        SELECT first.scheduled_for FROM routines.trajectories AS first WHERE first.id = deleted.retry_of) END AS slot) AS of_first
    WHERE deleted.triggered_by_routine_id IS NOT NULL AND slot < now() - interval '30 minutes';
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.mark_days_of_deleted IS 'Notes that the days of deleted runs have changed.';
CREATE TRIGGER mark_days_of_deleted AFTER DELETE ON routines.trajectories
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION routines.mark_days_of_deleted();

--------------------------------------------------------------------------------------------------------------- counting
CREATE TYPE routines.run_counts AS (
    routine_id bigint, started integer, late integer, completed integer, failed integer, cancelled integer, archived integer,
    active integer,    max_delay interval, failed_slots timestamptz[], last_completed timestamptz
);
COMMENT ON COLUMN routines.run_counts.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.run_counts.started IS 'The number of runs.';
COMMENT ON COLUMN routines.run_counts.late IS 'How many began late.';
COMMENT ON COLUMN routines.run_counts.completed IS 'Slots whose last attempt completed.';
COMMENT ON COLUMN routines.run_counts.failed IS 'Slots whose last attempt failed.';
COMMENT ON COLUMN routines.run_counts.cancelled IS 'Slots whose last attempt was cancelled.';
COMMENT ON COLUMN routines.run_counts.archived IS 'Slots whose last attempt was archived.';
COMMENT ON COLUMN routines.run_counts.active IS 'Slots whose last attempt has not ended.';
COMMENT ON COLUMN routines.run_counts.max_delay IS 'The longest delay.';
COMMENT ON COLUMN routines.run_counts.failed_slots IS 'The slots that failed; null if none did.';
COMMENT ON COLUMN routines.run_counts.last_completed IS 'The latest slot that completed; null if none did.';
COMMENT ON TYPE routines.run_counts IS 'What became of the scheduled runs of a routine: as day_sums, and how many are active.';

-- Finds its runs in trajectories_slot_key and then reads each page of the table once, in the order of the pages, whichever routine
-- the rows belong to: a month of a thousand hourly routines took 0.45 s of processor time, and 1.1 s routine by routine. The
-- settings leave the planner no other way, and it plans for the ids that it is given. The runs are grouped twice, because the first
-- grouping is cheap for each run.
CREATE FUNCTION routines.count_runs(
    routine_ids bigint[], from_time timestamptz, until_time timestamptz, late_after interval, clock timestamptz
) RETURNS SETOF routines.run_counts LANGUAGE plpgsql STABLE ROWS 1000
SET plan_cache_mode = force_custom_plan SET enable_indexscan = off SET enable_seqscan = off SET work_mem = '64MB' AS $$
BEGIN
    RETURN QUERY
    SELECT id, sum(runs)::integer, coalesce(sum(runs) FILTER (WHERE is_late), 0)::integer,
           coalesce(sum(runs) FILTER (WHERE status = 'completed'), 0)::integer,
           coalesce(sum(runs) FILTER (WHERE status = 'failed'), 0)::integer,
           coalesce(sum(runs) FILTER (WHERE status = 'cancelled'), 0)::integer,
           coalesce(sum(runs) FILTER (WHERE status = 'archived'), 0)::integer,
           coalesce(sum(runs) FILTER (WHERE status IN ('pending', 'running')), 0)::integer, max(longest),
           max(failures) FILTER (WHERE is_late) || max(failures) FILTER (WHERE NOT is_late),
           max(newest) FILTER (WHERE status = 'completed')
    FROM (
        SELECT triggered_by_routine_id AS id, outcome.status, delay > late_after AS is_late, count(*)::integer AS runs, max(delay) AS longest,
               max(scheduled_for) AS newest, array_agg(scheduled_for) FILTER (WHERE outcome.status = 'failed') AS failures
        FROM routines.trajectories
        CROSS JOIN LATERAL (SELECT routines.status_of_slot(id, trajectories.status, retried_by) AS status) AS outcome
        CROSS JOIN LATERAL (SELECT greatest(
            coalesce(started_at, ended_at, clock) - coalesce(due_at, scheduled_for), '0') AS delay) AS begun
        WHERE triggered_by_routine_id = ANY (routine_ids) AND scheduled_for >= from_time AND scheduled_for < until_time
        GROUP BY 1, 2, 3
    ) AS alike
    GROUP BY id;
END $$;
COMMENT ON FUNCTION routines.count_runs IS
    'What became of the scheduled runs of these routines, of slots at or after from_time and before until_time. late: begun more than late_after after the slot was due. failed_slots: null if no run failed.';

---------------------------------------------------------------------------------------------------------------- summing
CREATE FUNCTION routines.sums_of_day(routine_ids bigint[], of_day date, clock timestamptz)
RETURNS SETOF routines.day_sums LANGUAGE sql STABLE ROWS 1000 AS $$
    SELECT run.routine_id, of_day, known.collection_id, run.active > 0, run.started::integer, run.late::integer, run.completed::integer,
           run.failed::integer, run.cancelled::integer, run.archived::integer, run.max_delay, run.failed_slots, run.last_completed, clock
    FROM routines.count_runs(routine_ids, routines.day_begins_at(of_day), routines.day_begins_at(of_day + 1), '60 s', clock) AS run
    CROSS JOIN LATERAL (
        SELECT collection_id FROM routines.routine_names WHERE routine_names.routine_id = run.routine_id
        UNION ALL
        SELECT collection_id FROM routines.deleted_routines WHERE deleted_routines.id = run.routine_id
        LIMIT 1) AS known;
$$;
COMMENT ON FUNCTION routines.sums_of_day IS
    'The sums of a day, from the runs. No row for a routine without runs, nor for one whose name is not known any more: no report lists it.';

-- What changes meanwhile is noted, and so summed up again.
CREATE FUNCTION routines.sum_up_next(batch_size integer, clock timestamptz DEFAULT now()) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    progress routines.day_sums_progress;
    page     bigint[];
BEGIN
    IF NOT EXISTS (SELECT FROM routines.day_sums_progress) THEN
        INSERT INTO routines.day_sums_progress (summed_from, summed_until)
        SELECT first_day, first_day
        FROM (SELECT (coalesce((SELECT created_at FROM routines.trajectories ORDER BY id LIMIT 1), clock) AT TIME ZONE 'UTC')::date) AS oldest (first_day)
        ON CONFLICT ON CONSTRAINT day_sums_progress_pkey DO NOTHING;
    END IF;
    SELECT * INTO progress FROM routines.day_sums_progress
    WHERE routines.day_begins_at(summed_until + 1) <= clock - interval '2 hours' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    page := ARRAY(
        SELECT id FROM (
            (SELECT routine_id AS id FROM routines.routine_names WHERE routine_id > progress.after_routine ORDER BY routine_id LIMIT batch_size)
            UNION ALL
            (SELECT id FROM routines.deleted_routines WHERE id > progress.after_routine ORDER BY id LIMIT batch_size)) AS known
        ORDER BY id LIMIT batch_size);
    INSERT INTO routines.day_sums SELECT * FROM routines.sums_of_day(page, progress.summed_until, clock) ORDER BY routine_id
    ON CONFLICT ON CONSTRAINT day_sums_pkey DO NOTHING;
    UPDATE routines.day_sums_progress
    SET (summed_until, after_routine) = (
        SELECT CASE WHEN is_last THEN progress.summed_until + 1 ELSE progress.summed_until END,
               CASE WHEN is_last THEN 0 ELSE page[cardinality(page)] END
        FROM (SELECT cardinality(page) < batch_size AS is_last) AS page_end);
    RETURN greatest(cardinality(page), 1);
END $$;
COMMENT ON FUNCTION routines.sum_up_next IS
    'Sums up the first day that is not summed up yet and has been over for two hours, for the next batch_size routines. Returns how many there were, 1 at least; 0 if nothing is to be done, or another session is at it.';

-- In statements of their own: what is counted is newer than the changes that are then deleted, and what commits later has noted
-- another change.
CREATE FUNCTION routines.sum_up_changed(batch_size integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    taken   bigint[];
    changed record;
BEGIN
    PERFORM FROM routines.day_sums_progress FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    taken := ARRAY(SELECT id FROM routines.day_changes WHERE day < (SELECT summed_until FROM routines.day_sums_progress)
                   ORDER BY id LIMIT batch_size FOR UPDATE SKIP LOCKED);
    FOR changed IN
        SELECT day, array_agg(DISTINCT routine_id ORDER BY routine_id) AS routine_ids FROM routines.day_changes
        WHERE id = ANY (taken) GROUP BY day ORDER BY day
    LOOP
        DELETE FROM routines.day_sums WHERE day = changed.day AND routine_id = ANY (changed.routine_ids);
        INSERT INTO routines.day_sums SELECT * FROM routines.sums_of_day(changed.routine_ids, changed.day, now())
        ON CONFLICT ON CONSTRAINT day_sums_pkey DO NOTHING;
    END LOOP;
    DELETE FROM routines.day_changes WHERE id = ANY (taken);
    RETURN cardinality(taken);
END $$;
COMMENT ON FUNCTION routines.sum_up_changed IS
    'Sums up again the days of up to batch_size changes, and returns their number; 0 also if another session is at it.';

-- Of days of which retention has deleted runs, few are left: reports read these.
CREATE FUNCTION routines.forget_day_sums(batch_size integer) RETURNS integer LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM routines.day_sums
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM routines.day_sums WHERE day < routines.first_day_with_all_runs()
            ORDER BY day LIMIT batch_size FOR UPDATE SKIP LOCKED))
        RETURNING 1
    ),
    unread AS (
        DELETE FROM routines.day_changes
        WHERE id = ANY (ARRAY(
            SELECT id FROM routines.day_changes WHERE day < routines.first_day_with_all_runs()
            ORDER BY day LIMIT batch_size FOR UPDATE SKIP LOCKED))
        RETURNING 1
    )
    SELECT ((SELECT count(*) FROM gone) + (SELECT count(*) FROM unread))::integer;
$$;
COMMENT ON FUNCTION routines.forget_day_sums IS
    'Deletes up to batch_size sums and up to batch_size changes of days whose runs retention has deleted. Returns how many rows it deleted.';

---------------------------------------------------------------------------------------------------------------- reading
-- Arrays of a month at most.
CREATE AGGREGATE routines.concatenated(timestamptz[]) (sfunc = array_cat, stype = timestamptz[], parallel = safe);
COMMENT ON AGGREGATE routines.concatenated(timestamptz[]) IS 'Joins arrays into one; null if all are null.';

-- One statement reads sums and runs, so it sees both as of one moment.
CREATE FUNCTION routines.counted_runs(
    routine_ids bigint[], from_time timestamptz, until_time timestamptz, late_after interval, clock timestamptz
) RETURNS SETOF routines.run_counts LANGUAGE plpgsql STABLE ROWS 1000 AS $$
DECLARE
    progress  routines.day_sums_progress := (SELECT day_sums_progress FROM routines.day_sums_progress);
    -- The whole days of this time that are summed up.
    first_day date := greatest((from_time AT TIME ZONE 'UTC' - interval '1 microsecond')::date + 1, routines.first_day_with_all_runs(),
                               progress.summed_from);
    end_day   date := least((until_time AT TIME ZONE 'UTC')::date, progress.summed_until);
    summed_from  timestamptz := routines.day_begins_at(first_day);
    summed_until timestamptz := routines.day_begins_at(end_day);
BEGIN
    IF late_after <> interval '60 s' OR progress IS NULL OR coalesce(first_day >= end_day, true) THEN
        RETURN QUERY SELECT * FROM routines.count_runs(routine_ids, from_time, until_time, late_after, clock);
        RETURN;
    END IF;
    RETURN QUERY
    WITH part AS (
        SELECT * FROM routines.count_runs(routine_ids, from_time, summed_from, late_after, clock) WHERE from_time < summed_from
        UNION ALL
        SELECT * FROM routines.count_runs(routine_ids, summed_until, until_time, late_after, clock) WHERE summed_until < until_time
        UNION ALL
        SELECT counted.*
        FROM (SELECT day, array_agg(unsure.routine_id) AS ids FROM (
                  SELECT day_sums.routine_id, day FROM routines.day_sums WHERE is_open AND day >= first_day AND day < end_day
                  UNION
                  SELECT day_changes.routine_id, day FROM routines.day_changes WHERE day >= first_day AND day < end_day) AS unsure
              WHERE unsure.routine_id IN (SELECT unnest(routine_ids)) GROUP BY day) AS stale
        CROSS JOIN LATERAL routines.count_runs(
            stale.ids, routines.day_begins_at(stale.day), routines.day_begins_at(stale.day + 1), late_after, clock) AS counted
        UNION ALL
        SELECT sums.routine_id, sums.started, sums.late, sums.completed, sums.failed, sums.cancelled, sums.archived, 0, sums.max_delay,
               sums.failed_slots, sums.last_completed
        FROM unnest(routine_ids) AS asked (id) JOIN routines.day_sums AS sums ON sums.routine_id = asked.id
        WHERE NOT is_open AND day >= first_day AND day < end_day
          AND (sums.routine_id, day) NOT IN (
              SELECT day_changes.routine_id, day_changes.day FROM routines.day_changes
              WHERE day_changes.day >= first_day AND day_changes.day < end_day)
    )
    SELECT part.routine_id, sum(part.started)::integer, sum(part.late)::integer, sum(part.completed)::integer, sum(part.failed)::integer,
           sum(part.cancelled)::integer, sum(part.archived)::integer, sum(part.active)::integer, max(part.max_delay),
           routines.concatenated(part.failed_slots), max(part.last_completed)
    FROM part GROUP BY part.routine_id HAVING sum(part.started) > 0;
END $$;
COMMENT ON FUNCTION routines.counted_runs IS 'As count_runs, by the sums of days where there are any.';

-- == sql/schema/14_limits.sql

-- What a collection and each of its runs may use. The table built_in_limits names every limit, with its default; operators set
-- others for all collections or for one in collection_limits. Programs read a limit with limit_of and a use with limit_use. Why
-- this design: docs/decisions/0019. Statements: queries/limits.sql.

-- No triggers.
CREATE TABLE routines.built_in_limits (
    name  text CONSTRAINT built_in_limits_pkey PRIMARY KEY,
    value bigint CONSTRAINT built_in_limits_value_is_not_negative CHECK (value >= 0)
);
COMMENT ON TABLE  routines.built_in_limits IS
    'Every limit, with the value that applies unless an operator has set another. A migration changes it; operators use `routines limits`.';
COMMENT ON COLUMN routines.built_in_limits.name IS 'The name of the limit. routines_core/limits.py says what each one bounds.';
COMMENT ON COLUMN routines.built_in_limits.value IS 'In the unit of the limit; null for no limit.';

INSERT INTO routines.built_in_limits (name, value) VALUES
    -- Of a collection.
    ('max_concurrent_runs', NULL),
    ('active_runs', 100000),
    ('runs_per_minute', 6000),
    ('routines', 100000),
    ('tasks', 10000),
    ('feeds', 100),
    ('calendars', 100),
    ('alert_rules', 100),
    ('pending_webhooks', 100000),
    ('stored_bytes', 107374182400),
    ('files', 100000),
    ('file_bytes', 107374182400),
    -- Of a run.
    ('run_step_bytes', 16777216),
    ('run_steps', 1000),
    ('run_children', 1000),
    ('run_log_events', 10000),
    ('run_secrets', 100);

-- Triggers:
--   AFTER INSERT, UPDATE or DELETE  note_limit  adds to the audit (chapter 15_audit)
CREATE TABLE routines.collection_limits (
    collection_id bigint CONSTRAINT collection_limits_collection_id_fkey REFERENCES routines.collections (id),
    name          text NOT NULL CONSTRAINT collection_limits_name_is_known REFERENCES routines.built_in_limits (name),
    -- The largest integer that every JSON reader keeps exact.
    value         bigint CONSTRAINT collection_limits_value_in_range CHECK (value BETWEEN 0 AND 9007199254740991),
    set_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT collection_limits_key UNIQUE NULLS NOT DISTINCT (name, collection_id),
    -- Claims read it from collections and tasks.
    CONSTRAINT collection_limits_has_no_concurrency CHECK (name <> 'max_concurrent_runs')
);
COMMENT ON TABLE  routines.collection_limits IS
    'Limits that an operator has set. A limit without a row has its built-in value.';
COMMENT ON COLUMN routines.collection_limits.collection_id IS
    'The tenant; null for the default of all collections that have no row of their own.';
COMMENT ON COLUMN routines.collection_limits.name IS 'The limit.';
COMMENT ON COLUMN routines.collection_limits.value IS 'In the unit of the limit; null for no limit.';
COMMENT ON COLUMN routines.collection_limits.set_at IS 'When it was set.';
-- Everybody reads the defaults; only the owner writes them.
SELECT routines.protect('routines.collection_limits');
CREATE POLICY defaults ON routines.collection_limits FOR SELECT USING (collection_id IS NULL);

CREATE FUNCTION routines.limit_of(of_collection bigint, limit_name text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    applied record;
BEGIN
    IF limit_name = 'max_concurrent_runs' THEN
        RETURN (SELECT max_concurrent_runs FROM routines.collections WHERE id = of_collection);
    END IF;
    SELECT CASE WHEN own.name IS NOT NULL THEN own.value WHEN general.name IS NOT NULL THEN general.value
                ELSE built_in_limits.value END AS value INTO applied
    FROM routines.built_in_limits
    LEFT JOIN routines.collection_limits AS own ON own.name = built_in_limits.name AND own.collection_id = of_collection
    LEFT JOIN routines.collection_limits AS general ON general.name = built_in_limits.name AND general.collection_id IS NULL
    WHERE built_in_limits.name = limit_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no limit has the name %', limit_name USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN applied.value;
END $$;
COMMENT ON FUNCTION routines.limit_of IS
    'A limit of a collection, or its default for a null collection; null for no limit. Raises an error for an unknown name.';

CREATE FUNCTION routines.run_limits(of_collection bigint)
RETURNS TABLE (step_bytes bigint, steps bigint, children bigint, log_events bigint, secrets bigint)
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT max(value) FILTER (WHERE name = 'run_step_bytes'), max(value) FILTER (WHERE name = 'run_steps'),
           max(value) FILTER (WHERE name = 'run_children'), max(value) FILTER (WHERE name = 'run_log_events'),
           max(value) FILTER (WHERE name = 'run_secrets')
    FROM (SELECT DISTINCT ON (name) name, value
          FROM (SELECT name, value, 3 AS rank FROM routines.built_in_limits
                UNION ALL
                SELECT name, value, CASE WHEN collection_id IS NULL THEN 2 ELSE 1 END FROM routines.collection_limits
                WHERE collection_id IS NULL OR collection_id = of_collection) AS given
          ORDER BY name, rank) AS applied;
$$;
COMMENT ON FUNCTION routines.run_limits IS 'The limits of each run of a collection, in one row; null for no limit.';

-- VOLATILE, so that it also counts what was committed while the statement waited for a lock.
CREATE FUNCTION routines.tree_size(of_run bigint, most bigint) RETURNS integer LANGUAGE sql VOLATILE AS $$
    SELECT count(*)::integer FROM (
        SELECT FROM routines.trajectories
        WHERE root_id = (SELECT coalesce(root_id, id) FROM routines.trajectories WHERE id = of_run) LIMIT most) AS counted;
$$;
COMMENT ON FUNCTION routines.tree_size IS
    'How many runs the tree of a run has below its root, ended ones included, counted up to `most`. The root is the run that no other run started.';

---------------------------------------------------------------------------------------------------------------- uses
-- No triggers. UNLOGGED: after a crash the minute begins again.
CREATE UNLOGGED TABLE routines.run_minutes (
    collection_id bigint CONSTRAINT run_minutes_pkey PRIMARY KEY,
    minute        timestamptz NOT NULL,
    begun         bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.run_minutes IS 'How many runs each collection has begun by HTTP in the present minute, over all API processes.';
COMMENT ON COLUMN routines.run_minutes.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.run_minutes.minute IS 'The beginning of the minute, by this database''s clock.';
COMMENT ON COLUMN routines.run_minutes.begun IS
    'Runs begun, with those that an API process has reserved and not begun yet.';
SELECT routines.protect('routines.run_minutes');

CREATE FUNCTION routines.take_runs(of_collection bigint, wanted bigint)
RETURNS TABLE (granted bigint, most bigint, begun bigint, seconds_left float8) LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
#variable_conflict use_column
DECLARE
    this_minute timestamptz := date_trunc('minute', clock_timestamp());
    before      bigint := 0;
BEGIN
    most := routines.limit_of(of_collection, 'runs_per_minute');
    seconds_left := greatest(0, extract(epoch FROM this_minute + interval '1 minute' - clock_timestamp()));
    IF most IS NULL THEN
        granted := wanted;
        RETURN NEXT;
        RETURN;
    END IF;
    INSERT INTO routines.run_minutes (collection_id, minute, begun) VALUES (of_collection, this_minute, 0)
    ON CONFLICT ON CONSTRAINT run_minutes_pkey DO UPDATE SET minute = greatest(run_minutes.minute, excluded.minute),
        begun = CASE WHEN run_minutes.minute < excluded.minute THEN 0 ELSE run_minutes.begun END
    RETURNING run_minutes.begun INTO before;
    granted := greatest(0, least(wanted, most - before));
    begun := before + granted;
    IF granted > 0 THEN
        UPDATE routines.run_minutes SET begun = before + take_runs.granted WHERE collection_id = of_collection;
    END IF;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION routines.take_runs IS
    'Reserves up to `wanted` of the runs that a collection may begin in the present minute. Returns how many were granted, the limit (null for none), how many the minute has then, and the seconds until the next minute.';

-- No triggers. Estimates: workers measure what is stored every few minutes, and files are also counted as they are saved.
CREATE TABLE routines.collection_usage (
    collection_id bigint CONSTRAINT collection_usage_pkey PRIMARY KEY
                  CONSTRAINT collection_usage_collection_id_fkey REFERENCES routines.collections (id),
    stored_bytes  bigint NOT NULL DEFAULT 0,
    files         bigint NOT NULL DEFAULT 0,
    file_bytes    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE  routines.collection_usage IS 'What each collection has stored, as last measured by a worker.';
COMMENT ON COLUMN routines.collection_usage.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.collection_usage.stored_bytes IS
    'Bytes of its runs and their steps as stored, estimated from a sample of both tables.';
COMMENT ON COLUMN routines.collection_usage.files IS 'Its files: as last listed, with those saved since.';
COMMENT ON COLUMN routines.collection_usage.file_bytes IS 'The same in bytes.';
SELECT routines.protect('routines.collection_usage');

-- Off by a few per cent for a collection that fills much of the tables, by more for a small one, which is far from its limit.
CREATE FUNCTION routines.measure_stored_bytes(most_pages integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    runs_percent  float8 := least(100, 100.0 * most_pages * current_setting('block_size')::bigint
                                       / greatest(1, pg_relation_size('routines.trajectories')));
    steps_percent float8 := least(100, 100.0 * most_pages * current_setting('block_size')::bigint
                                       / greatest(1, pg_relation_size('routines.steps')));
    measured      bigint;
BEGIN
    WITH sampled AS (
        -- pg_column_size reads no TOAST: the row holds the size of the value.
        SELECT collection_id, (100 + pg_column_size(init_params) + pg_column_size(labels)
                               + coalesce(pg_column_size(error), 0)) * 100 / runs_percent AS bytes
        FROM routines.trajectories TABLESAMPLE SYSTEM (runs_percent)
        UNION ALL
        SELECT trajectories.collection_id,
               (100 + pg_column_size(inputs) + coalesce(pg_column_size(outputs), 0) + coalesce(pg_column_size(steps.error), 0)
                + pg_column_size(earlier_errors)) * 100 / steps_percent
        FROM routines.steps TABLESAMPLE SYSTEM (steps_percent) JOIN routines.trajectories ON trajectories.id = trajectory_id
    ),
    estimated AS (
        SELECT id AS collection_id, coalesce(sum(bytes), 0)::bigint AS bytes
        FROM routines.collections LEFT JOIN sampled ON sampled.collection_id = collections.id
        GROUP BY id
    )
    INSERT INTO routines.collection_usage (collection_id, stored_bytes)
    SELECT collection_id, bytes FROM estimated WHERE bytes > 0
        OR EXISTS (SELECT FROM routines.collection_usage WHERE collection_usage.collection_id = estimated.collection_id)
    ORDER BY collection_id
    ON CONFLICT ON CONSTRAINT collection_usage_pkey DO UPDATE SET stored_bytes = excluded.stored_bytes
    WHERE collection_usage.stored_bytes <> excluded.stored_bytes;
    GET DIAGNOSTICS measured = ROW_COUNT;
    RETURN measured;
END $$;
COMMENT ON FUNCTION routines.measure_stored_bytes IS
    'Estimates stored_bytes of every collection from a random sample of at most about `most_pages` pages of trajectories and of steps; exact if the tables are smaller. Returns how many changed.';

CREATE FUNCTION routines.note_saved_files(of_collection bigint, count bigint, bytes bigint) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO routines.collection_usage (collection_id, files, file_bytes)
    SELECT of_collection, count, bytes WHERE of_collection IS NOT NULL AND count > 0
    ON CONFLICT ON CONSTRAINT collection_usage_pkey DO UPDATE
    SET files = collection_usage.files + excluded.files, file_bytes = collection_usage.file_bytes + excluded.file_bytes;
$$;
COMMENT ON FUNCTION routines.note_saved_files IS
    'Adds files just saved to the use of a collection. The next listing of the file store corrects the sum.';

-- The row is locked before it is compared, so that steps that save files at once do not exceed a limit together. Each statement
-- of the function sees what was committed while it waited.
CREATE FUNCTION routines.take_file(of_collection bigint, bytes bigint)
RETURNS TABLE (is_taken boolean, files bigint, most_files bigint, file_bytes bigint, most_bytes bigint)
LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
#variable_conflict use_column
BEGIN
    most_files := routines.limit_of(of_collection, 'files');
    most_bytes := routines.limit_of(of_collection, 'file_bytes');
    INSERT INTO routines.collection_usage (collection_id) VALUES (of_collection) ON CONFLICT DO NOTHING;
    SELECT collection_usage.files, collection_usage.file_bytes INTO take_file.files, take_file.file_bytes
    FROM routines.collection_usage WHERE collection_id = of_collection FOR NO KEY UPDATE;
    is_taken := coalesce(take_file.files + 1 <= most_files, true)
                AND coalesce(take_file.file_bytes + bytes <= most_bytes, true);
    IF is_taken THEN
        UPDATE routines.collection_usage SET files = take_file.files + 1, file_bytes = take_file.file_bytes + bytes
        WHERE collection_id = of_collection;
    END IF;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION routines.take_file IS
    'Counts a file that a step is about to save, unless the collection would exceed its limits. Returns whether it was counted, and the use before with the limits; null for no limit.';

CREATE FUNCTION routines.limit_use(of_collection bigint, limit_name text, most bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE limit_name
        WHEN 'max_concurrent_runs' THEN (SELECT count(*) FROM (
            SELECT FROM routines.limited_runs WHERE collection_id = of_collection LIMIT most) AS counted)
        -- In the order of trajectories_active_idx, because another index could serve the collection by reading all ended runs.
        WHEN 'active_runs' THEN (SELECT count(*) FROM (
            SELECT FROM routines.trajectories WHERE ended_at IS NULL AND collection_id = of_collection
            ORDER BY collection_id, task_id, id LIMIT most) AS counted)
        WHEN 'runs_per_minute' THEN coalesce((SELECT begun FROM routines.run_minutes
            WHERE collection_id = of_collection AND minute = date_trunc('minute', clock_timestamp())), 0)
        WHEN 'routines' THEN (SELECT count(*) FROM (
            SELECT FROM routines.routine_names WHERE collection_id = of_collection LIMIT most) AS counted)
        WHEN 'tasks' THEN (SELECT count(*) FROM (
            SELECT FROM routines.tasks WHERE collection_id = of_collection LIMIT most) AS counted)
        WHEN 'feeds' THEN (SELECT count(*) FROM (
            SELECT FROM routines.feeds WHERE collection_id = of_collection LIMIT most) AS counted)
        WHEN 'calendars' THEN (SELECT count(*) FROM (
            SELECT FROM routines.calendars WHERE collection_id = of_collection LIMIT most) AS counted)
        WHEN 'alert_rules' THEN (SELECT count(*) FROM (
            SELECT FROM routines.alert_rules WHERE collection_id = of_collection LIMIT most) AS counted)
        WHEN 'pending_webhooks' THEN (SELECT count(*) FROM (
            SELECT FROM routines.webhook_deliveries WHERE next_attempt_at IS NOT NULL AND collection_id = of_collection
            ORDER BY collection_id, host, next_attempt_at LIMIT most) AS counted)
        WHEN 'stored_bytes' THEN coalesce((SELECT stored_bytes FROM routines.collection_usage
            WHERE collection_id = of_collection), 0)
        WHEN 'files' THEN coalesce((SELECT files FROM routines.collection_usage WHERE collection_id = of_collection), 0)
        WHEN 'file_bytes' THEN coalesce((SELECT file_bytes FROM routines.collection_usage
            WHERE collection_id = of_collection), 0)
    END;
END $$;
COMMENT ON FUNCTION routines.limit_use IS
    'What a collection uses of a limit. Rows are counted up to `most`, from an index. Null for a limit of a run.';

CREATE FUNCTION routines.limits_in_use(of_collection bigint, limit_names text[], most bigint)
RETURNS TABLE (name text, value bigint, default_value bigint, is_set boolean, use bigint) LANGUAGE sql STABLE ROWS 10 AS $$
    SELECT built_in_limits.name, routines.limit_of(of_collection, built_in_limits.name),
           routines.limit_of(NULL, built_in_limits.name),
           CASE built_in_limits.name
               WHEN 'max_concurrent_runs' THEN routines.limit_of(of_collection, built_in_limits.name) IS NOT NULL
               ELSE EXISTS (SELECT FROM routines.collection_limits
                            WHERE collection_limits.name = built_in_limits.name AND collection_id = of_collection) END,
           routines.limit_use(of_collection, built_in_limits.name,
                              coalesce(most, routines.limit_of(of_collection, built_in_limits.name), 0))
    FROM routines.built_in_limits WHERE limit_names IS NULL OR built_in_limits.name = ANY (limit_names);
$$;
COMMENT ON FUNCTION routines.limits_in_use IS
    'Limits of a collection with their use, all for null names. Rows are counted up to `most`; for null, up to the limit itself, which is enough to refuse.';

-------------------------------------------------------------------------------------------------------------- operators
CREATE FUNCTION routines.open_as_operator(collection_name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    opened bigint;
BEGIN
    -- No key has the id 0. The audit reads it as the operator.
    PERFORM set_config('routines.collection_id', '', true), set_config('routines.key_id', '0', true);
    SELECT id INTO opened FROM routines.collections WHERE name = collection_name;
    PERFORM set_config('routines.collection_id', coalesce(opened::text, ''), true);
    RETURN opened;
END $$;
COMMENT ON FUNCTION routines.open_as_operator IS
    'Names a collection without a key until the transaction ends, for an operator, whose token the API has checked. Returns its id; null if there is none of this name.';
REVOKE EXECUTE ON FUNCTION routines.measure_stored_bytes, routines.note_saved_files, routines.open_as_operator FROM PUBLIC;

-- == sql/schema/15_audit.sql

-- The audit: each change of a routine, task, key, limit, calendar, feed, rule or environment, with who made it, and what was before and
-- after. Triggers write it, so a statement typed in psql leaves its trace too. Why this design: docs/decisions/0028. Statements:
-- queries/audit.sql.

-- No triggers. Programs may read it and not write it; the worker deletes old entries.
CREATE TABLE routines.audit (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_pkey PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    collection_id bigint,
    kind          text NOT NULL CONSTRAINT audit_kind_is_known
                  CHECK (kind IN ('routine', 'task', 'key', 'limit', 'calendar', 'feed', 'rule', 'environment')),
    action        text NOT NULL CONSTRAINT audit_action_is_known CHECK (action IN ('created', 'changed', 'deleted')),
    object_id     bigint,
    task_id       bigint,
    name          text,
    revision      integer,
    last_run_id   bigint,
    before        jsonb NOT NULL,
    after         jsonb NOT NULL,
    actor         text NOT NULL,
    key_id        bigint,
    login         text NOT NULL DEFAULT session_user
);
CREATE INDEX audit_collection_id_idx ON routines.audit (collection_id, id);
-- Entries of other kinds are few among those of routines.
CREATE INDEX audit_kind_idx ON routines.audit (collection_id, kind, id) WHERE kind <> 'routine';
-- Revisions of a routine. Neither column ever decreases from one to the next, so the order of both is that of revisions.
CREATE INDEX audit_revisions_idx ON routines.audit (object_id, last_run_id, revision) WHERE kind = 'routine';
-- Versions of a task, which has few entries.
CREATE INDEX audit_versions_idx ON routines.audit (object_id, id) WHERE kind = 'task';
COMMENT ON TABLE  routines.audit IS
    'Who changed what. Only triggers write it; entries are never changed, and only the owner deletes one younger than a week. Field by field: TABLE routines.changes;';
COMMENT ON COLUMN routines.audit.id IS 'Later changes of the same object have greater ids.';
COMMENT ON COLUMN routines.audit.at IS 'When it was changed, by the clock; the change could be seen a moment later, once it was committed.';
COMMENT ON COLUMN routines.audit.collection_id IS 'The tenant; null for a limit of all collections.';
COMMENT ON COLUMN routines.audit.kind IS 'routine, task, key, limit, calendar, feed, rule or environment.';
COMMENT ON COLUMN routines.audit.action IS 'created, changed or deleted.';
COMMENT ON COLUMN routines.audit.object_id IS 'The id of the routine, task, key, calendar or feed; null for limits and the environment.';
COMMENT ON COLUMN routines.audit.task_id IS 'Of a routine: its task.';
COMMENT ON COLUMN routines.audit.name IS 'What it was called then, or the name of the limit; the id of a key or a feed; null for the environment.';
COMMENT ON COLUMN routines.audit.revision IS 'Of a routine: the number of this change, from 1, its creation; null for other kinds.';
COMMENT ON COLUMN routines.audit.last_run_id IS
    'Of a routine: the greatest id that a run had at this change, any run; 0 if there was none; null for other kinds. Runs of the routine with a greater id have this revision, or a later one.';
COMMENT ON COLUMN routines.audit.before IS 'The fields that changed, as they were, in the words of the API. A field that is missing had no value.';
COMMENT ON COLUMN routines.audit.after IS 'The same fields as they are since. A secret reads as ********, and as changed where it was replaced.';
COMMENT ON COLUMN routines.audit.actor IS
    'Who changed it: key 7 (by HTTP), operator (by HTTP with the operator''s token), scheduler (a ticker or a worker), or login and the name of the login.';
COMMENT ON COLUMN routines.audit.key_id IS 'The API key; null if none was used.';
COMMENT ON COLUMN routines.audit.login IS 'The login of the database session, that of the program included. No session can choose it.';
SELECT routines.protect('routines.audit');
-- A worker that has been taken over cannot hide what was changed in the last week. Restrictive: besides the other policies.
CREATE POLICY kept ON routines.audit AS RESTRICTIVE FOR DELETE
    USING (at < now() - interval '7 days' OR (SELECT routines.is_owner()));

-------------------------------------------------------------------------------------------------------------------- who
-- A session can set routines.key_id to any key, and only one that may call open_collection is believed: that of the API, which has
-- checked the key, and the owner's. `role` is what SET ROLE has chosen, and session_user the login, also while the triggers run as
-- the owner. Key 0 stands for an operator, who has none: see open_as_operator.
CREATE FUNCTION routines.actor(OUT actor text, OUT key_id bigint) LANGUAGE plpgsql STABLE AS $$
DECLARE
    role text := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    IF nullif(current_setting('routines.key_id', true), '') IS NOT NULL
       AND has_function_privilege(role, 'routines.open_collection(bigint)'::regprocedure, 'EXECUTE') THEN
        key_id := nullif(routines.current_key(), 0);
        actor := coalesce('key ' || key_id, 'operator');
    ELSIF role IN ('routines_ticker', 'routines_worker') THEN
        actor := 'scheduler';
    ELSE
        actor := 'login ' || session_user;
    END IF;
END $$;
COMMENT ON FUNCTION routines.actor IS 'Who makes the present change, and with which API key.';

------------------------------------------------------------------------------------------------------------------- what
CREATE FUNCTION routines.exact_utc(at timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN replace(to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '.000000', '');
COMMENT ON FUNCTION routines.exact_utc IS 'A time as JSON has it, whatever the time zone of the session: 2026-05-04T09:00:00Z, with microseconds if it has any.';

-- A name whose secret is not the one of `earlier` reads as changed; without `earlier` none does.
CREATE FUNCTION routines.masked(secret_refs jsonb, earlier jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT jsonb_object_agg(key, CASE WHEN value <> earlier -> key THEN 'changed' ELSE '********' END)
    FROM jsonb_each(secret_refs);
$$;
COMMENT ON FUNCTION routines.masked IS
    'Secrets as the audit shows them: {"TOKEN": "********"}, or changed if there was another one of the name; null for none.';

-- Plain SQL, which disappears from the statements of the triggers. Columns that the scheduler writes, or that follow from others,
-- are not in it: a test wants each column of routines to be here or among those. Without nulls, except in what the user sent.
CREATE FUNCTION routines.spec_of(routine routines.routines) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
RETURN jsonb_strip_nulls(jsonb_build_object(
    'name', (routine).name,
    'cadence', jsonb_build_object(
        'type', (routine).cadence_type, 'hour_utc', (routine).hour_utc,
        'minute_utc', CASE WHEN (routine).cadence_type IN ('hourly', 'daily', 'weekdays', 'weekly') THEN (routine).minute_utc END,
        'day_of_week', (routine).day_of_week, 'expression', (routine).expression, 'timezone', (routine).timezone,
        'every_minutes', (routine).every_minutes, 'anchor', routines.exact_utc((routine).anchor),
        'at', routines.exact_utc((routine).once_at)),
    'starts_at', routines.exact_utc((routine).starts_at),
    'ends_at', routines.exact_utc((routine).ends_at),
    'init_params_from_slot', (routine).init_params_from_slot,
    'secret_params', CASE WHEN (routine).secret_refs <> '{}' THEN routines.masked((routine).secret_refs) END,
    'webhook_url', (routine).webhook_url,
    'webhook_secret', CASE WHEN (routine).webhook_secret_id IS NOT NULL THEN '********' END,
    'paused', (routine).paused,
    'paused_reason', (routine).paused_reason,
    'paused_until', routines.exact_utc((routine).paused_until),
    'paused_note', (routine).paused_note,
    'calendar', (routine).calendar,
    'active_hours', (routine).active_hours,
    'overlap_policy', (routine).overlap_policy,
    'max_concurrent', (routine).max_concurrent,
    'catchup_window_seconds', (routine).catchup_window_seconds,
    'timeout_seconds', (routine).timeout_seconds,
    'retry', (routine).retry,
    'pause_after_failures', (routine).pause_after_failures,
    'then', (routine).after_failures,
    'spread_seconds', (routine).spread_seconds
)) || jsonb_build_object('init_params_overrides', (routine).init_params_overrides);
COMMENT ON FUNCTION routines.spec_of IS
    'What a person decides about a routine, in the words of the API and without fields that are not set. Secrets are masked.';

CREATE FUNCTION routines.name_of_task(of_task bigint) RETURNS text LANGUAGE sql STABLE
RETURN coalesce((SELECT name FROM routines.tasks WHERE id = of_task), (SELECT name FROM routines.deleted_tasks WHERE id = of_task));
COMMENT ON FUNCTION routines.name_of_task IS 'The name of a task, or its last one if it was deleted.';

CREATE FUNCTION routines.note_change(
    kind text, operation text, collection_id bigint, object_id bigint, name text, before jsonb, after jsonb,
    task_id bigint DEFAULT NULL, revision integer DEFAULT NULL, last_run_id bigint DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_variable
BEGIN
    INSERT INTO routines.audit (collection_id, kind, action, object_id, task_id, name, revision, last_run_id, before, after, actor, key_id)
    SELECT collection_id, kind, CASE operation WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'changed' ELSE 'deleted' END,
           object_id, task_id, name, revision, last_run_id,
           CASE WHEN operation = 'UPDATE' THEN (SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(before)
                                                WHERE value IS DISTINCT FROM after -> key) ELSE before END,
           CASE WHEN operation = 'UPDATE' THEN (SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(after)
                                                WHERE value IS DISTINCT FROM before -> key) ELSE after END,
           who.actor, who.key_id
    FROM routines.actor() AS who WHERE before <> after;
END $$;
COMMENT ON FUNCTION routines.note_change IS
    'Adds an entry to the audit, by the current session, for a trigger: the fields that differ, or none if all are the same. `before` or `after` is {} where the object did not exist.';

--------------------------------------------------------------------------------------------------------------- routines
-- A fire, too, locks the routine, and draws the id of its run after that. So each run fired before a change has an id up to this one,
-- and each run fired after it a greater one. A slot that takes over a waiting run draws an id as well (taken_over_as). Times have
-- no such order: a change that began first may wait for a fire.
CREATE FUNCTION routines.last_run_id() RETURNS bigint LANGUAGE sql VOLATILE
RETURN coalesce(pg_sequence_last_value('routines.trajectories_id_seq'::regclass), 0);
COMMENT ON FUNCTION routines.last_run_id IS 'The greatest id that a run has been given; 0 if there was none yet.';

-- A session keeps the plan of its triggers. One made while the audit was nearly empty would read all of it, so none may.
--
-- Once per statement, so that an import of many routines pays little for each. A routine that comes back under its old id goes on
-- with its revisions.
CREATE FUNCTION routines.note_new_routines() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO routines.audit (collection_id, kind, action, object_id, task_id, name, revision, last_run_id, before, after, actor, key_id)
    SELECT made.collection_id, 'routine', 'created', made.id, made.task_id, made.name, coalesce(earlier.revision, 0) + 1,
           routines.last_run_id(), '{}', routines.spec_of(made), who.actor, who.key_id
    FROM inserted AS made CROSS JOIN routines.actor() AS who
    LEFT JOIN LATERAL (SELECT revision FROM routines.audit
                       WHERE kind = 'routine' AND object_id = made.id
                       ORDER BY object_id DESC, last_run_id DESC, revision DESC LIMIT 1) AS earlier ON true;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_new_routines IS 'Adds an entry to the audit for each new routine.';
CREATE TRIGGER note_new_routines AFTER INSERT ON routines.routines
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.note_new_routines();

CREATE FUNCTION routines.note_routine() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    before  jsonb := routines.spec_of(OLD);
    after   jsonb := CASE TG_OP WHEN 'UPDATE' THEN routines.spec_of(NEW) ELSE '{}' END;
    current routines.routines := CASE TG_OP WHEN 'UPDATE' THEN NEW ELSE OLD END;
    earlier integer;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.secret_refs <> OLD.secret_refs AND NEW.secret_refs <> '{}' THEN
            after := after || jsonb_build_object('secret_params', routines.masked(NEW.secret_refs, OLD.secret_refs));
        END IF;
        IF NEW.webhook_secret_id <> OLD.webhook_secret_id THEN
            after := after || '{"webhook_secret": "changed"}';
        END IF;
        IF NEW.task_id <> OLD.task_id THEN
            before := before || jsonb_build_object('task_name', routines.name_of_task(OLD.task_id));
            after := after || jsonb_build_object('task_name', routines.name_of_task(NEW.task_id));
        END IF;
        IF before = after THEN
            RETURN NULL;
        END IF;
    END IF;
    SELECT revision INTO earlier FROM routines.audit
    WHERE kind = 'routine' AND object_id = current.id ORDER BY object_id DESC, last_run_id DESC, revision DESC LIMIT 1;
    PERFORM routines.note_change(
        'routine', TG_OP, current.collection_id, current.id, current.name, before, after, current.task_id,
        coalesce(earlier, 0) + 1, routines.last_run_id());
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_routine IS 'Adds an entry to the audit when a person, or the scheduler, changes what a routine is to do, or deletes it.';
-- The columns that the tick writes with each fire are not among these, so a fire does not call it.
CREATE TRIGGER note_changed_routine AFTER UPDATE OF collection_id, task_id, name, cadence_type, hour_utc, minute_utc, day_of_week, expression,
        timezone, every_minutes, anchor, once_at, starts_at, ends_at, init_params_overrides, init_params_from_slot, secret_refs,
        webhook_url, webhook_secret_id, paused, paused_reason, paused_until, paused_note, calendar, active_hours, overlap_policy,
        max_concurrent, catchup_window_seconds, timeout_seconds, retry, pause_after_failures, after_failures, spread_seconds
    ON routines.routines FOR EACH ROW EXECUTE FUNCTION routines.note_routine();
CREATE TRIGGER note_deleted_routine AFTER DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.note_routine();

-- Of two changes of a field since, the earlier one has the value that it had then. Reads the later revisions only.
CREATE FUNCTION routines.spec_at(of_routine bigint, at_revision integer) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_object_agg(key, value) FILTER (WHERE value IS NOT NULL), '{}') FROM (
        SELECT DISTINCT ON (key) key, value FROM (
            SELECT key, before -> key AS value, revision
            FROM routines.audit CROSS JOIN LATERAL jsonb_object_keys(before || after) AS key
            WHERE kind = 'routine' AND object_id = of_routine AND revision > at_revision
            UNION ALL
            SELECT key, value, 2147483647
            FROM routines.routines CROSS JOIN LATERAL jsonb_each(routines.spec_of(routines))
            WHERE routines.id = of_routine) AS known
        ORDER BY key, revision) AS at_that_time;
$$;
COMMENT ON FUNCTION routines.spec_at IS
    'What spec_of returned for a routine at a revision. SELECT jsonb_pretty(routines.spec_at(42, 3));';

CREATE FUNCTION routines.revision_of_run(run bigint) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT (SELECT revision FROM routines.audit
            WHERE kind = 'routine' AND object_id = first.triggered_by_routine_id AND last_run_id < coalesce(first.taken_over_as, first.id)
            ORDER BY object_id DESC, last_run_id DESC, revision DESC LIMIT 1)
    FROM routines.trajectories JOIN routines.trajectories AS first ON first.id = coalesce(trajectories.retry_of, trajectories.id)
    WHERE trajectories.id = run;
$$;
COMMENT ON FUNCTION routines.revision_of_run IS
    'The revision of its routine that a run was fired with, for a retry that of the run which failed first; null if no routine started it, or if the audit does not go back so far.';

-------------------------------------------------------------------------------------------------------------- the others
-- A workflow with a number that jsonb does not have is kept as text, since the audit refuses no change.
CREATE FUNCTION routines.workflow_of(of_task bigint, of_version integer) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    found text := (SELECT workflow FROM routines.task_versions WHERE task_id = of_task AND version = of_version);
BEGIN
    RETURN found::jsonb;
EXCEPTION
    WHEN data_exception THEN RETURN to_jsonb(found);
END $$;
COMMENT ON FUNCTION routines.workflow_of IS 'The workflow of a version of a task; null if the version does not exist.';

CREATE FUNCTION routines.note_task() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before  jsonb := '{}';
    after   jsonb := '{}';
    current routines.tasks := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        before := jsonb_strip_nulls(jsonb_build_object(
            'name', OLD.name, 'description', OLD.description, 'version', OLD.version,
            'max_concurrent_runs', OLD.max_concurrent_runs));
    END IF;
    IF TG_OP <> 'DELETE' THEN
        after := jsonb_strip_nulls(jsonb_build_object(
            'name', NEW.name, 'description', NEW.description, 'version', NEW.version,
            'max_concurrent_runs', NEW.max_concurrent_runs));
    END IF;
    IF before -> 'version' IS DISTINCT FROM after -> 'version' THEN
        before := before || CASE WHEN TG_OP <> 'INSERT' THEN jsonb_build_object('workflow', routines.workflow_of(OLD.id, OLD.version))
                                 ELSE '{}' END;
        after := after || CASE WHEN TG_OP <> 'DELETE' THEN jsonb_build_object('workflow', routines.workflow_of(NEW.id, NEW.version))
                               ELSE '{}' END;
    END IF;
    PERFORM routines.note_change('task', TG_OP, current.collection_id, current.id, current.name, before, after);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_task IS 'Adds an entry to the audit when a task is created, changed or deleted, with its workflow where that is another one.';
CREATE TRIGGER note_task AFTER INSERT OR DELETE OR UPDATE OF name, description, version, max_concurrent_runs ON routines.tasks
    FOR EACH ROW EXECUTE FUNCTION routines.note_task();

CREATE FUNCTION routines.note_key() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before  jsonb := CASE WHEN TG_OP <> 'INSERT' THEN jsonb_strip_nulls(jsonb_build_object(
        'expires_at', routines.exact_utc(OLD.expires_at), 'revoked_at', routines.exact_utc(OLD.revoked_at), 'secret', '********'))
        ELSE '{}' END;
    after   jsonb := CASE WHEN TG_OP <> 'DELETE' THEN jsonb_strip_nulls(jsonb_build_object(
        'expires_at', routines.exact_utc(NEW.expires_at), 'revoked_at', routines.exact_utc(NEW.revoked_at), 'secret', '********'))
        ELSE '{}' END;
    current routines.api_keys := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.secret_hash, OLD.pepper_id) <> (NEW.secret_hash, NEW.pepper_id) THEN
        after := after || '{"secret": "changed"}';
    END IF;
    PERFORM routines.note_change('key', TG_OP, current.collection_id, current.id, current.id::text, before, after);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_key IS 'Adds an entry to the audit when an API key is created, revoked or deleted, or when its end or its secret changes.';
CREATE TRIGGER note_key AFTER INSERT OR DELETE OR UPDATE OF collection_id, secret_hash, pepper_id, expires_at, revoked_at ON routines.api_keys
    FOR EACH ROW EXECUTE FUNCTION routines.note_key();

CREATE FUNCTION routines.note_limit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    current routines.collection_limits := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    -- With null, which is a value: no limit.
    PERFORM routines.note_change(
        'limit', TG_OP, current.collection_id, NULL, current.name,
        CASE WHEN TG_OP <> 'INSERT' THEN jsonb_build_object('value', OLD.value) ELSE '{}' END,
        CASE WHEN TG_OP <> 'DELETE' THEN jsonb_build_object('value', NEW.value) ELSE '{}' END);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_limit IS 'Adds an entry to the audit when a limit is set, changed or reset.';
CREATE TRIGGER note_limit AFTER INSERT OR UPDATE OR DELETE ON routines.collection_limits
    FOR EACH ROW EXECUTE FUNCTION routines.note_limit();

CREATE FUNCTION routines.note_calendar() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    current routines.calendars := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    PERFORM routines.note_change(
        'calendar', TG_OP, current.collection_id, current.id, current.name,
        CASE WHEN TG_OP <> 'INSERT' THEN jsonb_strip_nulls(jsonb_build_object('timezone', OLD.timezone, 'days', OLD.days)) ELSE '{}' END,
        CASE WHEN TG_OP <> 'DELETE' THEN jsonb_strip_nulls(jsonb_build_object('timezone', NEW.timezone, 'days', NEW.days)) ELSE '{}' END);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_calendar IS 'Adds an entry to the audit when a calendar is created, changed or deleted.';
CREATE TRIGGER note_calendar AFTER INSERT OR UPDATE OR DELETE ON routines.calendars
    FOR EACH ROW EXECUTE FUNCTION routines.note_calendar();

CREATE FUNCTION routines.note_feed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    current routines.feeds := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    -- A feed that goes with its task or routine comes too late for their names.
    shown   jsonb := jsonb_strip_nulls(jsonb_build_object(
        'token', '********',
        'task', CASE WHEN current.task_id IS NOT NULL THEN coalesce(routines.name_of_task(current.task_id), '(deleted)') END,
        'routine', CASE WHEN current.routine_id IS NOT NULL THEN coalesce(
            (SELECT name FROM routines.routine_names WHERE routine_id = current.routine_id), '(deleted)') END));
BEGIN
    PERFORM routines.note_change(
        'feed', TG_OP, current.collection_id, current.id, current.id::text,
        CASE TG_OP WHEN 'INSERT' THEN '{}' WHEN 'DELETE' THEN shown ELSE '{"token": "********"}' END,
        CASE TG_OP WHEN 'INSERT' THEN shown WHEN 'DELETE' THEN '{}' ELSE '{"token": "changed"}' END);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_feed IS 'Adds an entry to the audit when a calendar feed is created or revoked, or when its token changes.';
CREATE TRIGGER note_feed AFTER INSERT OR DELETE OR UPDATE OF secret_hash, pepper_id ON routines.feeds
    FOR EACH ROW EXECUTE FUNCTION routines.note_feed();

-- A rule that goes with its task or routine comes too late for their names.
CREATE FUNCTION routines.spec_of_rule(rule routines.alert_rules) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_strip_nulls(jsonb_build_object(
    'on', (rule).events, 'after_seconds', (rule).after_seconds, 'streak', (rule).streak,
    'task', CASE WHEN (rule).task_id IS NOT NULL THEN coalesce(routines.name_of_task((rule).task_id), '(deleted)') END,
    'routine', CASE WHEN (rule).routine_id IS NOT NULL THEN coalesce(
        (SELECT name FROM routines.routine_names WHERE routine_id = (rule).routine_id), '(deleted)') END,
    'webhook_url', (rule).webhook_url,
    'webhook_secret', CASE WHEN (rule).webhook_secret_id IS NOT NULL THEN '********' END,
    'digest_at_utc', to_char((rule).digest_at_utc, 'HH24:MI')));
COMMENT ON FUNCTION routines.spec_of_rule IS 'What a person decides about an alert rule, in the words of the API and without fields that are not set. The secret is masked.';

CREATE FUNCTION routines.note_rule() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before  jsonb := CASE TG_OP WHEN 'INSERT' THEN '{}' ELSE routines.spec_of_rule(OLD) END;
    after   jsonb := CASE TG_OP WHEN 'DELETE' THEN '{}' ELSE routines.spec_of_rule(NEW) END;
    current routines.alert_rules := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.webhook_secret_id <> NEW.webhook_secret_id THEN
        after := after || '{"webhook_secret": "changed"}';
    END IF;
    PERFORM routines.note_change('rule', TG_OP, current.collection_id, current.id, current.name, before, after);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_rule IS 'Adds an entry to the audit when an alert rule is created, changed or deleted.';
CREATE TRIGGER note_rule AFTER INSERT OR DELETE OR UPDATE OF collection_id, name, events, task_id, routine_id, after_seconds, streak, webhook_url,
        webhook_secret_id, digest_at_utc ON routines.alert_rules
    FOR EACH ROW EXECUTE FUNCTION routines.note_rule();

CREATE FUNCTION routines.note_collection() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM routines.note_change(
        'limit', TG_OP, NEW.id, NULL, 'max_concurrent_runs',
        jsonb_build_object('value', OLD.max_concurrent_runs), jsonb_build_object('value', NEW.max_concurrent_runs));
    PERFORM routines.note_change(
        'environment', TG_OP, NEW.id, NULL, NULL,
        coalesce(routines.masked(OLD.environment_refs), '{}'),
        coalesce(routines.masked(NEW.environment_refs, OLD.environment_refs), '{}'));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_collection IS 'Adds an entry to the audit when the environment of a collection changes, or how many runs it may have at once.';
CREATE TRIGGER note_collection AFTER UPDATE OF environment_refs, max_concurrent_runs ON routines.collections
    FOR EACH ROW EXECUTE FUNCTION routines.note_collection();

-- Otherwise a login that has a table of its own could have its triggers call these, and write what it likes.
REVOKE EXECUTE ON FUNCTION routines.actor, routines.last_run_id, routines.note_change, routines.note_new_routines, routines.note_routine, routines.note_task,
    routines.note_key, routines.note_limit, routines.note_calendar, routines.note_feed, routines.note_rule, routines.note_collection FROM PUBLIC;

----------------------------------------------------------------------------------------------------------------- at psql
CREATE VIEW routines.changes WITH (security_invoker = true) AS
    SELECT audit.at, actor, action, kind,
           concat_ws('/', collections.name, CASE WHEN kind = 'routine' THEN routines.name_of_task(audit.task_id) END, audit.name) AS what,
           audit.revision, field, before -> field AS before, after -> field AS after, login, audit.id, audit.object_id, audit.collection_id
    FROM routines.audit
    LEFT JOIN routines.collections ON collections.id = audit.collection_id
    CROSS JOIN LATERAL jsonb_object_keys(before || after) AS field;
COMMENT ON VIEW routines.changes IS
    'Who changed what, a row for each field. SELECT * FROM routines.changes WHERE what = ''demo/hello/every-hour'' ORDER BY id DESC;';
COMMENT ON COLUMN routines.changes.at IS 'When it was changed.';
COMMENT ON COLUMN routines.changes.actor IS 'Who changed it: key 7, operator, scheduler, or login alice.';
COMMENT ON COLUMN routines.changes.action IS 'created, changed or deleted.';
COMMENT ON COLUMN routines.changes.kind IS 'routine, task, key, limit, calendar, feed, rule or environment.';
COMMENT ON COLUMN routines.changes.what IS
    'The collection and what was changed in it: collection/task/name for a routine, with the name that it had then; without a collection, a limit of all collections.';
COMMENT ON COLUMN routines.changes.revision IS 'Of a routine: the number of this change, from 1.';
COMMENT ON COLUMN routines.changes.field IS 'The field, in the words of the API.';
COMMENT ON COLUMN routines.changes.before IS 'Its value before; null if it had none.';
COMMENT ON COLUMN routines.changes.after IS 'Its value since; null if it has none. A secret reads as ********, and as changed where it was replaced.';
COMMENT ON COLUMN routines.changes.login IS 'The login of the database session that changed it.';
COMMENT ON COLUMN routines.changes.id IS 'The entry of the audit. Fields of one entry were changed together.';
COMMENT ON COLUMN routines.changes.object_id IS 'The id of the routine, task, key, calendar or feed.';
COMMENT ON COLUMN routines.changes.collection_id IS 'The tenant; null for a limit of all collections.';

-- == sql/schema/15_roles.sql

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

-- == sql/schema/16_planning.sql

-- Planning: how many slots are coming, and when it is quiet. Reads what the cadences and the ledger say, and writes nothing.

CREATE FUNCTION routines.slots_between(cadence routines.cadence, from_time timestamptz, until_time timestamptz)
RETURNS SETOF timestamptz LANGUAGE plpgsql IMMUTABLE ROWS 100 AS $$
DECLARE
    slot timestamptz;
    -- Hours and not days, whose length depends on the session's time zone.
    step interval := CASE (cadence).type WHEN 'hourly' THEN interval '1 hour' WHEN 'daily' THEN interval '24 hours'
                     WHEN 'weekly' THEN interval '168 hours'
                     WHEN 'interval' THEN make_interval(mins => (cadence).every_minutes) END;
BEGIN
    IF (cadence).type = 'cron' THEN
        RETURN QUERY SELECT moment FROM routines.cron_slots(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone),
            greatest(from_time, (cadence).starts_at) - interval '1 microsecond',
            least(until_time - interval '1 microsecond', (cadence).ends_at)) AS moment ORDER BY moment;
        RETURN;
    END IF;
    slot := routines.next_fire(cadence, from_time - interval '1 microsecond');
    IF step IS NOT NULL AND (cadence).ends_at IS NULL THEN
        RETURN QUERY SELECT generate_series(slot, until_time - interval '1 microsecond', step);
        RETURN;
    END IF;
    WHILE slot < until_time LOOP
        RETURN NEXT slot;
        slot := routines.next_fire(cadence, slot);
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.slots_between IS
    'The slots at or after from_time and before until_time. Try: SELECT routines.slots_between(routines.cadence_from_json(''{"type": "daily", "hour_utc": 9, "minute_utc": 0}''), now(), now() + interval ''1 week'');';

-- Computes no more than it returns, whatever the cadence: a year of an interval of a minute has half a million slots.
CREATE FUNCTION routines.first_slots_between(
    cadence routines.cadence, from_time timestamptz, until_time timestamptz, slot_limit integer
) RETURNS SETOF timestamptz LANGUAGE plpgsql IMMUTABLE ROWS 100 AS $$
BEGIN
    IF (cadence).type = 'cron' THEN
        RETURN QUERY SELECT * FROM routines.later_cron_slots(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone),
            greatest(from_time, (cadence).starts_at) - interval '1 microsecond',
            least(until_time - interval '1 microsecond', (cadence).ends_at), slot_limit);
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM routines.slots_between(cadence, from_time, CASE (cadence).type
        WHEN 'interval' THEN least(until_time, greatest(from_time, (cadence).starts_at)
                                               + (slot_limit + 1) * make_interval(mins => (cadence).every_minutes))
        ELSE until_time END) LIMIT slot_limit;
END $$;
COMMENT ON FUNCTION routines.first_slots_between IS
    'The first slot_limit slots at or after from_time and before until_time, in order.';

-- Searches the index as newest_ended does.
CREATE FUNCTION routines.usual_seconds(of_task bigint) RETURNS float8 LANGUAGE sql STABLE
RETURN (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - started_at)::float8)
        FROM (SELECT ended_at, started_at FROM routines.trajectories
              WHERE task_id = ANY (ARRAY[of_task]) AND final_status = 'completed'
              ORDER BY task_id DESC, id DESC LIMIT 100) AS newest);
COMMENT ON FUNCTION routines.usual_seconds IS
    'How long a run of this task usually takes: the median of its newest 100 completed runs; null if there is none.';

-- Routines with the same cadence have the same slots, so these are computed once for all of them. The load comes when a slot is
-- due, so routines with a spread count `away` from their slots: by whole minutes, since there are few of them.
CREATE FUNCTION routines.coming_slots(of_collection bigint, from_time timestamptz, until_time timestamptz)
RETURNS TABLE (slot timestamptz, slots bigint, expected_seconds float8) LANGUAGE sql STABLE ROWS 1000 AS $$
    WITH alike AS MATERIALIZED (
        SELECT routines.cadence_of(routine) AS cadence, routines.without_spread(routine, next_run_at) AS next_slot,
               CASE WHEN extract(second FROM next_run_at - spread_offset) = 0 THEN date_trunc('minute', spread_offset)
                    ELSE spread_offset END AS away, task.id AS task_id,
               CASE WHEN routines.has_exclusions(routine)
                    THEN jsonb_build_array(calendar, active_hours, routines.zone_of(routine)) END AS exclusions,
               count(*) AS number, min(routine.id) AS routine_id
        FROM routines.tasks AS task
        JOIN routines.routine_names ON routine_names.task_id = task.id
        JOIN routines.routines AS routine ON routine.id = routine_names.routine_id
        WHERE task.collection_id = of_collection AND routine.next_run_at < until_time
        GROUP BY 1, 2, 3, 4, 5
    ),
    excluded AS MATERIALIZED (
        SELECT exclusions, routines.excluded_times(
            (SELECT routine FROM routines.routines AS routine WHERE id = min(routine_id)), from_time - interval '1 hour', until_time) AS times
        FROM alike WHERE exclusions IS NOT NULL GROUP BY exclusions
    ),
    lasting AS MATERIALIZED (
        SELECT task_id, coalesce(routines.usual_seconds(task_id), 0) AS seconds FROM (SELECT DISTINCT task_id FROM alike) AS tasks
    )
    SELECT moved.slot, sum(part.number)::bigint, sum(part.seconds)
    FROM (SELECT cadence, next_slot, exclusions, array_agg(coalesce(away, '0')) AS aways, max(away) AS farthest,
                 array_agg(number) AS numbers, array_agg(seconds) AS seconds
          FROM (SELECT cadence, next_slot, exclusions, away, sum(number) AS number, sum(number * seconds) AS seconds
                FROM alike JOIN lasting USING (task_id) GROUP BY cadence, next_slot, exclusions, away) AS parts
          GROUP BY cadence, next_slot, exclusions) AS due
    LEFT JOIN excluded USING (exclusions)
    CROSS JOIN LATERAL (SELECT coalesce(from_time - farthest, from_time) AS since) AS reach
    CROSS JOIN LATERAL (
        SELECT due.next_slot AS slot WHERE due.next_slot >= since
        UNION ALL
        SELECT routines.slots_between(due.cadence, greatest(since, due.next_slot + interval '1 microsecond'), until_time)
    ) AS coming
    CROSS JOIN LATERAL unnest(due.aways, due.numbers, due.seconds) AS part (away, number, seconds)
    CROSS JOIN LATERAL (SELECT coming.slot + part.away AS slot) AS moved
    WHERE moved.slot >= from_time AND moved.slot < until_time
      AND (times IS NULL OR NOT times @> coming.slot)
    GROUP BY moved.slot;
$$;
COMMENT ON FUNCTION routines.coming_slots IS
    'When slots of a collection are due from from_time until before until_time: how many routines have one then, and how many seconds their runs usually take together. Spread slots are due in the minute in which they fire. Paused routines have none. Slots that calendars or active hours exclude do not count, and neither do times to which they will move.';

CREATE FUNCTION routines.past_slots(of_collection bigint, from_time timestamptz, until_time timestamptz)
RETURNS TABLE (slot timestamptz, is_started boolean, slots bigint) LANGUAGE sql STABLE ROWS 1000 AS $$
    WITH routine AS MATERIALIZED (
        SELECT routine_names.routine_id AS id
        FROM routines.tasks JOIN routines.routine_names ON routine_names.task_id = tasks.id
        WHERE tasks.collection_id = of_collection
    )
    SELECT run.due, true, count(*)
    FROM routine CROSS JOIN LATERAL (
        SELECT coalesce(due_at, scheduled_for) AS due FROM routines.trajectories
        -- A spread is an hour at most.
        WHERE triggered_by_routine_id = routine.id AND scheduled_for >= from_time - interval '1 hour' AND scheduled_for < until_time
    ) AS run
    WHERE run.due >= from_time AND run.due < until_time
    GROUP BY 1
    UNION ALL
    SELECT skipped.slot, false, count(*)
    FROM routine CROSS JOIN LATERAL (
        SELECT scheduled_for, last_scheduled_for, cadence, slot_count, due_at FROM routines.skips
        WHERE routine_id = routine.id AND scheduled_for >= from_time - interval '1 hour' AND scheduled_for < until_time
        UNION ALL
        -- Spans of a routine do not overlap, so only the latest that began before can reach into this time.
        SELECT * FROM (SELECT scheduled_for, last_scheduled_for, cadence, slot_count, due_at FROM routines.skips
                       WHERE routine_id = routine.id AND scheduled_for < from_time - interval '1 hour'
                       ORDER BY scheduled_for DESC LIMIT 1) AS earlier
        WHERE last_scheduled_for >= from_time - interval '1 hour'
    ) AS skip
    CROSS JOIN LATERAL (SELECT coalesce(due_at - last_scheduled_for, '0') AS away) AS spread
    CROSS JOIN LATERAL (
        SELECT skip.scheduled_for WHERE skip.scheduled_for >= from_time - away
        UNION ALL
        SELECT routines.slots_between(skip.cadence, greatest(from_time - away, skip.scheduled_for + interval '1 microsecond'),
                                      least(until_time - away, skip.last_scheduled_for)) WHERE skip.slot_count > 1
        UNION ALL
        SELECT skip.last_scheduled_for WHERE skip.slot_count > 1 AND skip.last_scheduled_for >= from_time - away
    ) AS slot (scheduled_for)
    CROSS JOIN LATERAL (SELECT slot.scheduled_for + away AS slot) AS skipped
    WHERE skipped.slot < until_time
    GROUP BY 1;
$$;
COMMENT ON FUNCTION routines.past_slots IS
    'The slots of a collection''s routines that were due from from_time until before until_time and have their outcome: how many started a run, and how many were skipped.';

CREATE FUNCTION routines.schedule_load(
    of_collection bigint, from_time timestamptz, until_time timestamptz, bucket interval, clock timestamptz DEFAULT now()
) RETURNS TABLE (at timestamptz, slots bigint, expected_seconds float8, started bigint, skipped bigint)
LANGUAGE sql STABLE ROWS 1000 AS $$
    SELECT date_bin(bucket, slot, timestamptz '1970-01-01Z'), sum(coming)::bigint, sum(seconds), sum(begun)::bigint, sum(left_out)::bigint
    FROM (
        SELECT slot, slots AS coming, expected_seconds AS seconds, 0 AS begun, 0 AS left_out
        FROM routines.coming_slots(of_collection, from_time, until_time)
        UNION ALL
        SELECT slot, 0, 0, CASE WHEN is_started THEN slots ELSE 0 END, CASE WHEN is_started THEN 0 ELSE slots END
        FROM routines.past_slots(of_collection, from_time, until_time) WHERE from_time < clock
    ) AS counted
    GROUP BY 1 ORDER BY 1;
$$;
COMMENT ON FUNCTION routines.schedule_load IS
    'The load of a collection''s schedule in each bucket in which there is any: coming slots and the seconds that their runs usually take, and what started or was skipped. Try: SELECT * FROM routines.schedule_load((SELECT id FROM routines.collections WHERE name = ''demo''), now(), now() + interval ''1 week'', ''1 hour'');';

CREATE FUNCTION routines.quiet_minutes(
    of_collection bigint, wish routines.cadence, window_minutes integer, clock timestamptz DEFAULT now()
) RETURNS TABLE (cadence jsonb, minutes_away integer, slots bigint) LANGUAGE sql STABLE ROWS 100 AS $$
    WITH load AS MATERIALIZED (
        SELECT date_bin('1 minute', slot, timestamptz '1970-01-01Z') AS slot, sum(slots)::bigint AS slots
        FROM routines.coming_slots(of_collection, clock, clock + interval '8 days') GROUP BY 1
    ),
    near AS (
        SELECT jsonb_populate_record(wish, CASE (wish).type WHEN 'hourly'
                   THEN jsonb_build_object('minute_utc', mod((wish).minute_utc + away + 60, 60))
                   ELSE jsonb_build_object('hour_utc', minute / 60, 'minute_utc', mod(minute, 60)) END) AS cadence, away
        FROM generate_series(-window_minutes, window_minutes) AS away
        CROSS JOIN LATERAL (SELECT (wish).hour_utc * 60 + (wish).minute_utc + away AS minute) AS moved
        -- Across midnight it would be another day, and half an hour away is as far as an hour goes.
        WHERE CASE (wish).type WHEN 'hourly' THEN away > -30 AND away <= 30 ELSE minute BETWEEN 0 AND 1439 END
    )
    SELECT routines.cadence_to_json(near.cadence), away, coalesce(max(load.slots), 0)
    FROM near
    CROSS JOIN LATERAL routines.slots_between(near.cadence, clock, clock + interval '8 days') AS own
    LEFT JOIN load ON load.slot = own
    GROUP BY near.cadence, away
    ORDER BY 3, abs(away), away;
$$;
COMMENT ON FUNCTION routines.quiet_minutes IS
    'The minutes around a wished cadence, the quietest first and of those the nearest: how many routines of the collection have a slot that is due in the same minute, at most, within the next eight days. For hourly, daily, weekdays and weekly.';

-------------------------------------------------------------------------------------------------- a cadence that is not saved
CREATE FUNCTION routines.preview(
    cadence routines.cadence, from_time timestamptz DEFAULT now(), until_time timestamptz DEFAULT now() + interval '1 year',
    slot_limit integer DEFAULT 10000, made_at timestamptz DEFAULT now(), spread_seconds integer DEFAULT NULL
) RETURNS TABLE (slot timestamptz, local_time text, dst text) LANGUAGE plpgsql STABLE ROWS 100 AS $$
DECLARE
    whole routines.cadence := routines.with_defaults(cadence, made_at);
BEGIN
    PERFORM routines.check_cadence(whole);
    PERFORM routines.check_spread(whole, spread_seconds);
    RETURN QUERY SELECT moment, routines.local_time_of(whole, moment), routines.dst_of(whole, moment)
                 FROM routines.first_slots_between(whole, from_time, until_time, slot_limit) AS moment;
END $$;
COMMENT ON FUNCTION routines.preview IS
    'The slots of a cadence as it is given for a routine made at made_at, by default those of a year, in UTC and, for cron, in local time. A spread is only checked: its offset comes with the id of a routine. Try: SELECT * FROM routines.preview(routines.cadence_from_json(''{"type": "cron", "expression": "30 2 * * *", "timezone": "Europe/Berlin"}''));';

CREATE FUNCTION routines.lack_of_slots(cadence routines.cadence, from_time timestamptz, until_time timestamptz) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    later   timestamptz := routines.next_fire(cadence, until_time - interval '1 microsecond');
    earlier timestamptz := routines.latest_slot(cadence, from_time - interval '1 microsecond');
BEGIN
    RETURN CASE
        WHEN (cadence).type = 'manual' THEN 'A manual routine has no slots: it runs only when someone starts it.'
        WHEN later IS NOT NULL THEN format('No slot falls in this time: the next is %s.', routines.utc(later))
        WHEN earlier IS NOT NULL THEN format('No slot is left: the last was %s.', routines.utc(earlier))
        ELSE 'It never comes: no slot lies between its first and its last time.' END;
END $$;
COMMENT ON FUNCTION routines.lack_of_slots IS 'Why a cadence has no slot at or after from_time and before until_time, in one sentence.';

CREATE FUNCTION routines.clock_changes(zone text, from_time timestamptz, until_time timestamptz)
RETURNS TABLE (moment timestamp, earlier interval, later interval) LANGUAGE plpgsql IMMUTABLE ROWS 2 AS $$
DECLARE
    day    timestamp;
    before timestamp;
    middle timestamp;
BEGIN
    FOR day IN SELECT * FROM generate_series(timezone('UTC', from_time), timezone('UTC', until_time), interval '1 day') LOOP
        earlier := routines.utc_offset(zone, day);
        later := routines.utc_offset(zone, day + interval '1 day');
        CONTINUE WHEN earlier = later;
        -- The change comes after `before` and not after `moment`.
        before := day;
        moment := day + interval '1 day';
        WHILE moment - before > interval '1 second' LOOP
            middle := date_trunc('second', before + (moment - before) / 2);
            EXIT WHEN middle <= before;
            IF routines.utc_offset(zone, middle) = later THEN
                moment := middle;
            ELSE
                before := middle;
            END IF;
        END LOOP;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.clock_changes IS
    'When the clocks of a time zone change, in UTC, and how far they are ahead of UTC before and after.';

-- Not for an expression that comes in every hour of a day: it misses an hour as everybody does.
CREATE FUNCTION routines.real_time_notes(cadence routines.cadence, from_time timestamptz, until_time timestamptz)
RETURNS TABLE (at timestamptz, note text) LANGUAGE sql STABLE ROWS 2 AS $$
    SELECT timezone('UTC', moment), format(
        CASE WHEN later > earlier THEN 'Clocks in %s skip %s to %s on %s: its slots at that time are left out.'
             ELSE 'Clocks in %s show %s to %s twice on %s: its slots at that time come twice.' END,
        (cadence).timezone, to_char(first, 'HH24:MI'), to_char(last, 'HH24:MI'), to_char(first, 'YYYY-MM-DD'))
    FROM routines.clock_changes(routines.clocks_of((cadence).timezone), from_time - interval '1 day', until_time)
    CROSS JOIN LATERAL (SELECT moment + least(earlier, later) AS first, moment + greatest(earlier, later) AS last) AS shown
    CROSS JOIN LATERAL (SELECT routines.cron_rules((cadence).expression) AS rules) AS parsed
    WHERE timezone('UTC', moment) BETWEEN from_time AND until_time AND EXISTS (
        SELECT FROM routines.cron_days(rules, routines.clocks_of((cadence).timezone), first::date, last::date)
        CROSS JOIN unnest((rules[rule_number]).minutes) AS minute
        WHERE (rules[rule_number]).is_real_time
          AND day + minute * interval '1 minute' >= first AND day + minute * interval '1 minute' < last
          AND (SELECT count(DISTINCT each / 60) FROM unnest((rules[rule_number]).minutes) AS each) < 24);
$$;
COMMENT ON FUNCTION routines.real_time_notes IS
    'A sentence for each change of the clocks at which an expression that goes by real time loses slots or has them twice.';

-- Only slots within a day of a change of the clocks are looked at closely.
CREATE FUNCTION routines.clock_warnings(
    cadence routines.cadence, slots timestamptz[], from_time timestamptz, until_time timestamptz, most integer
) RETURNS SETOF text LANGUAGE plpgsql STABLE ROWS 1 AS $$
DECLARE
    zone text := routines.clocks_of((cadence).timezone);
BEGIN
    RETURN QUERY
    WITH near AS MATERIALIZED (
        SELECT slot FROM unnest(slots) AS slot
        WHERE routines.utc_offset(zone, timezone('UTC', slot) - interval '1 day')
           <> routines.utc_offset(zone, timezone('UTC', slot) + interval '1 day')
    ),
    noted AS (
        SELECT note, row_number() OVER (ORDER BY at, note) AS position, count(*) OVER () AS total
        FROM (SELECT slot AS at, routines.clock_note(cadence, slot, slot <= now()) AS note FROM near
              UNION ALL
              SELECT * FROM routines.real_time_notes(
                  cadence, greatest(from_time, (cadence).starts_at), least(until_time, (cadence).ends_at))) AS notes
        WHERE note IS NOT NULL
    )
    SELECT CASE WHEN position <= most THEN note ELSE format('Clocks change at the time of %s more slots.', total - most) END
    FROM noted WHERE position <= most + 1 ORDER BY position;
END $$;
COMMENT ON FUNCTION routines.clock_warnings IS
    'A sentence for each of these slots that a change of the clocks moves, or whose time comes twice, and for each change from from_time to until_time that leaves slots out or repeats them; at most `most`, and then how many more there are.';

CREATE FUNCTION routines.overlap_warning(of_task bigint, slots timestamptz[]) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT format('Runs of %s usually take %s, but two slots are only %s apart, the first of them %s: a slot that comes while a run is active is skipped.',
                  tasks.name, routines.duration_in_words(usual.seconds), routines.duration_in_words(distance), routines.utc(slot))
    FROM routines.tasks
    CROSS JOIN LATERAL (SELECT routines.usual_seconds(tasks.id) AS seconds) AS usual
    CROSS JOIN LATERAL (
        SELECT slot, extract(epoch FROM lead(slot) OVER (ORDER BY slot) - slot)::float8 AS distance FROM unnest(slots) AS slot
        ORDER BY distance, slot LIMIT 1) AS nearest
    WHERE tasks.id = of_task AND distance < usual.seconds;
$$;
COMMENT ON FUNCTION routines.overlap_warning IS
    'A sentence if two of these slots are nearer to each other than a run of the task usually takes; otherwise null.';

CREATE FUNCTION routines.preview_warnings(
    cadence routines.cadence, from_time timestamptz DEFAULT now(), until_time timestamptz DEFAULT now() + interval '1 year',
    slot_limit integer DEFAULT 10000, made_at timestamptz DEFAULT now(), of_task bigint DEFAULT NULL
) RETURNS SETOF text LANGUAGE plpgsql STABLE ROWS 1 AS $$
DECLARE
    whole routines.cadence := routines.with_defaults(cadence, made_at);
    upto  timestamptz := until_time;
    slots timestamptz[];
BEGIN
    PERFORM routines.check_cadence(whole);
    slots := ARRAY(SELECT * FROM routines.first_slots_between(whole, from_time, until_time, slot_limit + 1));
    IF slots = '{}' THEN
        RETURN NEXT routines.lack_of_slots(whole, from_time, until_time);
        RETURN;
    END IF;
    IF cardinality(slots) > slot_limit THEN
        slots := slots[:slot_limit];
        upto := slots[slot_limit];
        RETURN NEXT format('This covers only the first %s slots, up to %s.', slot_limit, routines.utc(slots[slot_limit]));
    END IF;
    IF (whole).type = 'cron' THEN
        RETURN QUERY SELECT * FROM routines.clock_warnings(whole, slots, from_time, upto, 5);
    END IF;
    RETURN QUERY SELECT warning FROM routines.overlap_warning(of_task, slots) AS warning WHERE warning IS NOT NULL;
END $$;
COMMENT ON FUNCTION routines.preview_warnings IS
    'What to know before a cadence is saved, in sentences: slots that a change of the clocks moves or repeats, no slot at all, more slots than slot_limit, and slots nearer to each other than a run of the task usually takes. The same arguments as preview.';

-- == sql/schema/17_report.sql

-- The report: what was expected of a schedule, and what became of it. Reads the ledger, of days that have long been over their sums
-- (chapter 14_day_sums), and of routines the slots that are due but not in the ledger yet. Writes nothing.

-- Spans of a routine do not overlap, so of those that began before only the latest can reach into this time. Plain SQL, which
-- disappears from plans.
CREATE FUNCTION routines.span_across(of_routine bigint, from_time timestamptz, until_time timestamptz) RETURNS SETOF routines.skips
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT * FROM (SELECT * FROM routines.skips
                   WHERE routine_id = of_routine AND scheduled_for < least(from_time, until_time) AND last_scheduled_for > scheduled_for
                   ORDER BY scheduled_for DESC LIMIT 1) AS earlier
    WHERE last_scheduled_for >= from_time;
$$;
COMMENT ON FUNCTION routines.span_across IS 'The skipped span of a routine that began before from_time and reaches across; or no row.';

CREATE FUNCTION routines.skips_between(of_routine bigint, from_time timestamptz, until_time timestamptz) RETURNS SETOF routines.skips
LANGUAGE sql STABLE ROWS 10 AS $$
    SELECT * FROM routines.skips
    WHERE routine_id = of_routine AND scheduled_for >= from_time AND scheduled_for < until_time
    UNION ALL
    SELECT * FROM routines.span_across(of_routine, from_time, until_time);
$$;
COMMENT ON FUNCTION routines.skips_between IS
    'The skips of a routine with a slot at or after from_time and before until_time, or a span that reaches across.';

CREATE FUNCTION routines.count_slots_between(
    cadence routines.cadence, first_slot timestamptz, last_slot timestamptz, from_time timestamptz, until_time timestamptz
) RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    -- The slots between the first and the last one, which alone may be times that a person set.
    inner_first timestamptz := routines.next_fire(cadence, greatest(first_slot, from_time - interval '1 microsecond'));
    inner_last  timestamptz := routines.latest_slot(cadence, least(last_slot, until_time) - interval '1 microsecond');
BEGIN
    RETURN CASE WHEN first_slot >= from_time AND first_slot < until_time THEN 1 ELSE 0 END
        + CASE WHEN last_slot > first_slot AND last_slot >= from_time AND last_slot < until_time THEN 1 ELSE 0 END
        + CASE WHEN inner_first <= inner_last THEN routines.count_slots(cadence, inner_first, inner_last) ELSE 0 END;
END $$;
COMMENT ON FUNCTION routines.count_slots_between IS
    'How many slots of a span, from first_slot to last_slot, are at or after from_time and before until_time.';

-- Plain SQL: nearly all skips are a single slot, or lie wholly within the time.
CREATE FUNCTION routines.slots_of_skip(skip routines.skips, from_time timestamptz, until_time timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN (skip).scheduled_for >= from_time AND (skip).last_scheduled_for < until_time THEN (skip).slot_count
    ELSE routines.count_slots_between((skip).cadence, (skip).scheduled_for, (skip).last_scheduled_for, from_time, until_time) END;
COMMENT ON FUNCTION routines.slots_of_skip IS 'How many slots of a skip are at or after from_time and before until_time.';

---------------------------------------------------------------------------------------------- slots without an outcome
-- The same rules as in the tick and in settle_slots, which will record these slots, on the clock of the routine.
CREATE FUNCTION routines.open_spans(routine routines.routines, clock timestamptz DEFAULT now())
RETURNS TABLE (scheduled_for timestamptz, last_scheduled_for timestamptz, reason text)
LANGUAGE plpgsql STABLE ROWS 1 AS $$
DECLARE
    cadence   routines.cadence := routines.cadence_of(routine);
    own_now   timestamptz := routines.without_spread(routine, clock);
    settled   timestamptz := coalesce((routine).settled_until,
                                      CASE WHEN (routine).paused THEN (routine).paused_at ELSE (routine).created_at END);
    moved_to  timestamptz := CASE WHEN (routine).moved_to > settled THEN (routine).moved_to END;
    pause_end timestamptz := routines.without_spread(routine, (routine).paused_until);
    -- The first slot that the tick will look at.
    due       timestamptz := CASE WHEN (routine).paused THEN routines.slot_after_pause(routine)
                                  ELSE routines.without_spread(routine, (routine).next_run_at) END;
BEGIN
    IF due <= (routine).settled_until THEN
        due := routines.next_fire(cadence, (routine).settled_until);
    END IF;
    -- Slots of a pause; or those that a person has set next_run_at past.
    scheduled_for := least(moved_to, routines.next_fire(cadence, settled));
    last_scheduled_for := least(own_now, coalesce(CASE WHEN (routine).paused THEN pause_end ELSE due END, 'infinity')
                                         - interval '1 microsecond');
    IF scheduled_for <= last_scheduled_for AND (due IS NOT NULL OR (routine).paused) THEN
        last_scheduled_for := greatest(scheduled_for, routines.latest_slot(cadence, last_scheduled_for),
                                       CASE WHEN moved_to <= last_scheduled_for THEN moved_to END);
        reason := CASE WHEN (routine).paused THEN 'paused' ELSE 'pending' END;
        RETURN NEXT;
    END IF;
    IF due <= own_now THEN
        scheduled_for := due;
        last_scheduled_for := greatest(due, routines.latest_slot(cadence, own_now));
        reason := 'pending';
        RETURN NEXT;
    END IF;
END $$;
COMMENT ON FUNCTION routines.open_spans IS
    'Spans of slots of a routine that are due and not in the ledger yet. paused: they fall in its current pause, and will be skipped. pending: a tick will decide.';

-- Plain SQL, so that the rest is called for few routines.
CREATE FUNCTION routines.may_have_open_spans(routine routines.routines, clock timestamptz) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE RETURN
    (routine).paused OR (routine).next_run_at <= clock
    OR routines.latest_slot_of(routine, routines.without_spread(routine, clock)) > coalesce((routine).settled_until, (routine).created_at);
COMMENT ON FUNCTION routines.may_have_open_spans IS 'Returns false if open_spans has nothing for a routine.';

------------------------------------------------------------------------------------------------------------- the report
-- Plain SQL, so that it is planned once, with the report. As plpgsql it was planned for each routine with trouble, and took longer than
-- all the rest.
CREATE FUNCTION routines.recovered_slots(
    of_routine bigint, from_time timestamptz, until_time timestamptz, last_completed timestamptz, failed_slots timestamptz[],
    lost_slots timestamptz[], lost_counts bigint[], clock timestamptz
) RETURNS TABLE (recovered bigint) LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT CASE WHEN failed_slots IS NULL AND lost_slots IS NULL THEN 0 ELSE
        (SELECT count(*) FROM unnest(failed_slots) AS slot WHERE slot < recovery)
        + (SELECT coalesce(sum(slots)::bigint, 0) FROM unnest(lost_slots, lost_counts) AS lost (first_slot, slots) WHERE first_slot < recovery)
        -- Of the others, those that a backfill has filled.
        + (SELECT count(*) FROM routines.trajectories AS fill
           WHERE (recovery > ALL (lost_slots)) IS NOT TRUE AND lost_slots IS NOT NULL
             AND triggered_by_routine_id = of_routine AND rerun_of IS NULL
             AND fills_slot >= greatest(from_time, recovery) AND fills_slot < until_time
             AND routines.status_of_slot(id, status, retried_by) = 'completed'
             AND EXISTS (SELECT FROM routines.skips_between(of_routine, fills_slot, fills_slot + interval '1 microsecond')
                         WHERE reason IN ('missed', 'failed_to_start', 'backoff'))) END
    FROM (
        -- Most trouble is followed by a slot that completed within this time. Otherwise the next 100 runs are looked at.
        SELECT CASE WHEN until_time <= clock
            AND (last_completed > ALL (coalesce(failed_slots, '{}')) AND last_completed > ALL (coalesce(lost_slots, '{}'))) IS NOT TRUE
            AND EXISTS (SELECT FROM (SELECT routines.status_of_slot(id, status, retried_by) AS status FROM routines.trajectories
                                     WHERE triggered_by_routine_id = of_routine AND scheduled_for >= until_time
                                     ORDER BY scheduled_for LIMIT 100) AS later WHERE status = 'completed')
            THEN until_time ELSE last_completed END AS recovery OFFSET 0) AS since;
$$;
COMMENT ON FUNCTION routines.recovered_slots IS
    'How many failed or lost slots were filled since, or are followed by a slot whose run completed, even one after until_time. Each of lost_slots is the first of as many slots as lost_counts says.';

CREATE FUNCTION routines.reported_routines(of_collection bigint, from_time timestamptz, until_time timestamptz)
RETURNS TABLE (id bigint, task text, name text, is_deleted boolean) LANGUAGE sql STABLE ROWS 1000 AS $$
    SELECT routine_names.routine_id, tasks.name, routine_names.name, false
    FROM routines.tasks JOIN routines.routine_names ON routine_names.task_id = tasks.id
    WHERE tasks.collection_id = of_collection
    UNION ALL
    SELECT deleted.id, coalesce(tasks.name, deleted_tasks.name, 'deleted'), deleted.name, true
    FROM routines.deleted_routines AS deleted
    LEFT JOIN routines.tasks ON tasks.id = deleted.task_id
    LEFT JOIN routines.deleted_tasks ON deleted_tasks.id = deleted.task_id
    WHERE deleted.collection_id = of_collection AND deleted.deleted_at >= from_time
      AND (EXISTS (SELECT FROM routines.trajectories
                   WHERE triggered_by_routine_id = deleted.id AND scheduled_for >= from_time AND scheduled_for < until_time)
           OR EXISTS (SELECT FROM routines.skips_between(deleted.id, from_time, until_time)));
$$;
COMMENT ON FUNCTION routines.reported_routines IS
    'The routines of a collection, and those deleted since that have a slot in the ledger in this time.';

CREATE FUNCTION routines.report_of(
    of_collection bigint, from_time timestamptz, until_time timestamptz, late_after_seconds integer DEFAULT 60,
    clock timestamptz DEFAULT now(), after_task text DEFAULT NULL, after_routine text DEFAULT NULL, after_id bigint DEFAULT NULL,
    most integer DEFAULT NULL
) RETURNS TABLE (
    task text, routine text, routine_id bigint, is_deleted boolean, expected bigint, started bigint, on_time bigint, late bigint,
    completed bigint, failed bigint, cancelled bigint, archived bigint, active bigint, skipped bigint, overlap bigint, coalesced bigint, missed bigint,
    paused bigint, failed_to_start bigint, calendar bigint, outside_hours bigint, backoff bigint, pending bigint, recovered bigint,
    max_delay_seconds float8
) LANGUAGE sql STABLE ROWS 1000 AS $$
    WITH reported AS MATERIALIZED (
        SELECT id, task, name, is_deleted, row_number() OVER (ORDER BY task, name, id) AS place
        FROM routines.reported_routines(of_collection, from_time, until_time)
        WHERE after_id IS NULL OR (task, name, id) > (after_task, after_routine, after_id)
        ORDER BY place LIMIT most
    ),
    run AS MATERIALIZED (
        SELECT * FROM routines.counted_runs(ARRAY(SELECT id FROM reported), from_time, until_time,
                                            make_interval(secs => late_after_seconds), clock)
    ),
    skip AS MATERIALIZED (
        SELECT counted.id, sum(slots) FILTER (WHERE reason <> 'pending') AS skipped, sum(slots) FILTER (WHERE reason = 'overlap') AS overlap,
               sum(slots) FILTER (WHERE reason = 'coalesced') AS coalesced,
               sum(slots) FILTER (WHERE reason = 'missed') AS missed, sum(slots) FILTER (WHERE reason = 'paused') AS paused,
               sum(slots) FILTER (WHERE reason = 'failed_to_start') AS failed_to_start,
               sum(slots) FILTER (WHERE reason = 'calendar') AS calendar, sum(slots) FILTER (WHERE reason = 'outside_hours') AS outside_hours,
               sum(slots) FILTER (WHERE reason = 'backoff') AS backoff,
               sum(slots) FILTER (WHERE reason = 'pending') AS pending,
               array_agg(first_slot) FILTER (WHERE reason IN ('missed', 'failed_to_start', 'backoff')) AS lost_slots,
               array_agg(slots) FILTER (WHERE reason IN ('missed', 'failed_to_start', 'backoff')) AS lost_counts
        FROM (
            SELECT routine_id AS id, reason, scheduled_for AS first_slot, routines.slots_of_skip(skips, from_time, until_time) AS slots
            FROM routines.skips
            WHERE routine_id = ANY (ARRAY(SELECT id FROM reported)) AND scheduled_for >= from_time AND scheduled_for < until_time
            UNION ALL
            SELECT reported.id, across.reason, across.scheduled_for, routines.slots_of_skip(across, from_time, until_time)
            FROM reported CROSS JOIN LATERAL routines.span_across(reported.id, from_time, until_time) AS across
            UNION ALL
            SELECT routines.id, reason, open.scheduled_for, routines.count_slots_between(
                routines.cadence_of(routines), open.scheduled_for, open.last_scheduled_for, from_time, until_time)
            FROM routines.routines CROSS JOIN LATERAL routines.open_spans(routines, clock) AS open
            WHERE routines.id = ANY (ARRAY(SELECT id FROM reported)) AND coalesce(settled_until, created_at) < until_time
              AND routines.may_have_open_spans(routines, clock)
        ) AS counted
        GROUP BY counted.id
    )
    SELECT reported.task, reported.name, reported.id, reported.is_deleted,
           (coalesce(run.started, 0) + coalesce(skip.skipped, 0) + coalesce(skip.pending, 0))::bigint, coalesce(run.started, 0),
           coalesce(run.started - run.late, 0), coalesce(run.late, 0), coalesce(run.completed, 0), coalesce(run.failed, 0),
           coalesce(run.cancelled, 0), coalesce(run.archived, 0), coalesce(run.active, 0), coalesce(skip.skipped, 0)::bigint,
           coalesce(skip.overlap, 0)::bigint, coalesce(skip.coalesced, 0)::bigint, coalesce(skip.missed, 0)::bigint, coalesce(skip.paused, 0)::bigint,
           coalesce(skip.failed_to_start, 0)::bigint, coalesce(skip.calendar, 0)::bigint, coalesce(skip.outside_hours, 0)::bigint,
           coalesce(skip.backoff, 0)::bigint,
           coalesce(skip.pending, 0)::bigint,
           since.recovered,
           extract(epoch FROM run.max_delay)::float8
    FROM reported LEFT JOIN run ON run.routine_id = reported.id LEFT JOIN skip ON skip.id = reported.id
    CROSS JOIN LATERAL routines.recovered_slots(reported.id, from_time, until_time, run.last_completed, run.failed_slots,
                                                skip.lost_slots, skip.lost_counts, clock) AS since
    ORDER BY reported.place;
$$;
COMMENT ON FUNCTION routines.report_of IS
    'What the slots at or after from_time and before until_time became, for each routine of a collection, by task and name: after a given one, if given, and at most `most`. Slots that are not due yet do not count.';

CREATE FUNCTION routines.report(
    collection text, from_time timestamptz DEFAULT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC',
    until_time timestamptz DEFAULT now(), late_after_seconds integer DEFAULT 60
) RETURNS TABLE (
    task text, routine text, expected bigint, started bigint, on_time bigint, late bigint, completed bigint, failed bigint,
    cancelled bigint, archived bigint, active bigint, skipped bigint, overlap bigint, coalesced bigint, missed bigint, paused bigint,
    failed_to_start bigint, calendar bigint, outside_hours bigint, backoff bigint, pending bigint, recovered bigint,
    max_delay_seconds float8, routine_id bigint, is_deleted boolean
) LANGUAGE sql STABLE ROWS 1000 AS $$
    SELECT found.task, found.routine, found.expected, found.started, found.on_time, found.late, found.completed, found.failed,
           found.cancelled, found.archived, found.active, found.skipped, found.overlap, found.coalesced, found.missed, found.paused,
           found.failed_to_start, found.calendar, found.outside_hours, found.backoff, found.pending, found.recovered, found.max_delay_seconds,
           found.routine_id, found.is_deleted
    FROM routines.collections CROSS JOIN LATERAL routines.report_of(
        collections.id, from_time, until_time, late_after_seconds) AS found
    WHERE collections.name = collection
    ORDER BY 1, 2, found.routine_id;
$$;
COMMENT ON FUNCTION routines.report IS
    'What was expected of the routines of a collection and what became of it, for slots at or after from_time and before until_time; by default since 00:00 UTC. expected = started + skipped + pending. Try: SELECT task, routine, expected, on_time, late, failed, skipped, recovered FROM routines.report(''demo'', now() - interval ''1 day'');';

------------------------------------------------------------------------------------------------------------------- gaps
-- A loop, so that no more slots are computed than are returned, however long a span is.
CREATE FUNCTION routines.skipped_slots(
    of_routine bigint, from_time timestamptz, until_time timestamptz, slot_limit integer, only_reason text DEFAULT NULL,
    clock timestamptz DEFAULT now()
) RETURNS TABLE (
    scheduled_for timestamptz, due_at timestamptz, reason text, detail text, blocking_trajectory_id bigint, recorded_at timestamptz
) LANGUAGE plpgsql STABLE ROWS 100 AS $$
DECLARE
    span record;
    left_over integer := slot_limit;
    since timestamptz;
    filled timestamptz[];
BEGIN
    FOR span IN
        (SELECT skips.scheduled_for AS first_slot, skips.last_scheduled_for AS last_slot, skips.cadence, skips.reason, skips.detail,
                skips.blocking_trajectory_id, skips.recorded_at, skips.due_at - skips.last_scheduled_for AS away, skips.filled_by
         FROM routines.skips
         WHERE routine_id = of_routine AND skips.scheduled_for >= from_time AND skips.scheduled_for < until_time
           AND (skips.filled_by IS NULL OR skips.slot_count > 1)
           AND coalesce(skips.reason = only_reason, true)
         ORDER BY skips.scheduled_for LIMIT slot_limit)
        UNION ALL
        SELECT skips.scheduled_for, skips.last_scheduled_for, skips.cadence, skips.reason, skips.detail, skips.blocking_trajectory_id,
               skips.recorded_at, skips.due_at - skips.last_scheduled_for, skips.filled_by
        FROM routines.skips_between(of_routine, from_time, from_time) AS skips
        WHERE coalesce(skips.reason = only_reason, true) AND (skips.filled_by IS NULL OR skips.slot_count > 1)
        UNION ALL
        SELECT open.scheduled_for, open.last_scheduled_for, routines.cadence_of(routines), open.reason,
               routines.pause_in_words(paused_reason, paused_at, paused_until, paused_note), NULL, NULL, spread_offset, NULL
        FROM routines.routines CROSS JOIN LATERAL routines.open_spans(routines, clock) AS open
        WHERE routines.id = of_routine AND open.reason = 'paused' AND coalesce(only_reason = 'paused', true)
        ORDER BY first_slot
    LOOP
        reason := span.reason;
        detail := span.detail;
        blocking_trajectory_id := span.blocking_trajectory_id;
        recorded_at := span.recorded_at;
        since := greatest(from_time, span.first_slot + interval '1 microsecond');
        filled := CASE WHEN span.filled_by IS NOT NULL THEN ARRAY(
            SELECT fills_slot FROM routines.trajectories
            WHERE triggered_by_routine_id = of_routine AND fills_slot BETWEEN span.first_slot AND span.last_slot AND rerun_of IS NULL) END;
        FOR scheduled_for IN
            SELECT span.first_slot WHERE span.first_slot >= from_time AND span.first_slot < until_time
            UNION ALL
            SELECT routines.first_slots_between(span.cadence, since, least(until_time, span.last_slot),
                                                left_over + coalesce(cardinality(filled), 0))
            WHERE since < least(until_time, span.last_slot)
            UNION ALL
            SELECT span.last_slot
            WHERE span.last_slot > span.first_slot AND span.last_slot >= from_time AND span.last_slot < until_time
        LOOP
            CONTINUE WHEN scheduled_for = ANY (filled);
            EXIT WHEN left_over <= 0;
            due_at := scheduled_for + span.away;
            left_over := left_over - 1;
            RETURN NEXT;
        END LOOP;
        EXIT WHEN left_over <= 0;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.skipped_slots IS
    'The first slots of a routine at or after from_time and before until_time that were skipped and not filled since, or fall in its current pause, one by one, in order; at most slot_limit, and of one reason, if given.';

CREATE FUNCTION routines.gaps_of(
    of_routine bigint, from_time timestamptz, until_time timestamptz, slot_limit integer, only_reason text DEFAULT NULL,
    with_failed boolean DEFAULT false, clock timestamptz DEFAULT now(), of_collection bigint DEFAULT NULL
) RETURNS TABLE (
    scheduled_for timestamptz, due_at timestamptz, reason text, detail text, trajectory_id bigint, blocking_trajectory_id bigint,
    recorded_at timestamptz
) LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT * FROM (
        SELECT scheduled_for, due_at, reason, detail, NULL::bigint AS trajectory_id, blocking_trajectory_id, recorded_at
        FROM routines.skipped_slots(of_routine, from_time, until_time, slot_limit, only_reason, clock)
        UNION ALL
        (SELECT first.slot, due_at, 'failed', last.error, last.id, NULL, last.ended_at
         FROM (SELECT scheduled_for AS slot, due_at, id, retried_by FROM routines.trajectories
               WHERE triggered_by_routine_id = of_routine AND scheduled_for >= from_time AND scheduled_for < until_time
                 AND (status = 'failed' OR retried_by IS NOT NULL) AND coalesce(collection_id = of_collection, true)
               UNION ALL
               SELECT fills_slot, NULL, id, retried_by FROM routines.trajectories
               WHERE triggered_by_routine_id = of_routine AND fills_slot >= from_time AND fills_slot < until_time AND rerun_of IS NULL
                 AND (status = 'failed' OR retried_by IS NOT NULL) AND coalesce(collection_id = of_collection, true)) AS first
         CROSS JOIN LATERAL (SELECT attempt.id, attempt.error, attempt.ended_at FROM routines.trajectories AS attempt
                             WHERE attempt.id = routines.last_attempt(first.id, first.retried_by) AND attempt.status = 'failed' LIMIT 1) AS last
         WHERE with_failed
         ORDER BY first.slot LIMIT slot_limit)
    ) AS gap
    ORDER BY scheduled_for LIMIT slot_limit;
$$;
COMMENT ON FUNCTION routines.gaps_of IS 'As gaps, by the id of the routine.';

CREATE FUNCTION routines.gaps(
    routine text, from_time timestamptz DEFAULT now() - interval '30 days', until_time timestamptz DEFAULT now(),
    with_failed boolean DEFAULT false, slot_limit integer DEFAULT 1000
) RETURNS TABLE (
    scheduled_for timestamptz, due_at timestamptz, reason text, detail text, trajectory_id bigint, blocking_trajectory_id bigint,
    recorded_at timestamptz
) LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT * FROM routines.gaps_of(routines.routine_id(routine), from_time, until_time, slot_limit, NULL, with_failed)
$$;
COMMENT ON FUNCTION routines.gaps IS
    'The slots of a routine that never ran, and that no backfill has filled, oldest first, and why; with_failed also those whose run failed, with the reason failed. Try: SELECT * FROM routines.gaps(''demo/hello/every-hour'', now() - interval ''1 week'');';

-- == sql/schema/18_timeline.sql

-- The timeline: what many routines did and will do, beside each other. Reads the ledger, the runs and the cadences, and writes nothing.

-- plpgsql, so that it stops at the runs that are too old: those that no slot started have no index by time, but ids in the order
-- of their creation, nearly. It also passes those that came after until_time, so the recent past is cheaper than what is long ago.
CREATE FUNCTION routines.runs_between(of_routine bigint, from_time timestamptz, until_time timestamptz, clock timestamptz DEFAULT now())
RETURNS TABLE (id bigint, status text, slot timestamptz, began_at timestamptz, ended_at timestamptz)
LANGUAGE plpgsql STABLE ROWS 20 AS $$
DECLARE
    of_trigger text;
    run        record;
    earlier    integer;
BEGIN
    RETURN QUERY
    SELECT * FROM (
        SELECT found.id, found.status, found.scheduled_for, coalesce(found.started_at, found.created_at) AS began, found.ended_at AS ended
        FROM routines.trajectories AS found
        WHERE triggered_by_routine_id = of_routine AND scheduled_for >= from_time AND scheduled_for < until_time
        UNION ALL
        (SELECT found.id, found.status, found.scheduled_for, coalesce(found.started_at, found.created_at), found.ended_at
         FROM routines.trajectories AS found
         WHERE triggered_by_routine_id = of_routine AND scheduled_for < least(from_time, until_time)
         ORDER BY scheduled_for DESC LIMIT 10)
    ) AS scheduled
    WHERE began < until_time AND coalesce(ended, clock) >= from_time;
    FOREACH of_trigger IN ARRAY '{run-now,retry,rerun,backfill}'::text[] LOOP
        earlier := 0;
        FOR run IN SELECT found.id, found.status, coalesce(found.started_at, found.created_at) AS began, found.created_at, found.ended_at AS ended
                   FROM routines.trajectories AS found
                   WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NULL AND trigger = of_trigger
                   ORDER BY found.id DESC LOOP
            earlier := earlier + CASE WHEN run.created_at < from_time THEN 1 ELSE 0 END;
            EXIT WHEN earlier > 10;
            IF run.began < until_time AND coalesce(run.ended, clock) >= from_time THEN
                id := run.id; status := run.status; slot := NULL; began_at := run.began; ended_at := run.ended;
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.runs_between IS
    'The runs of a routine that were active or waiting at some moment from from_time until before until_time, whatever started them. Of those from before from_time the newest 10 are looked at, of scheduled runs and of each other trigger.';

-- A page of routines is chosen first, so that its cost does not depend on how many others there are. What is of one kind and begins
-- in one bucket is one mark, so that the size of an answer does not depend on how often a routine fires.
CREATE FUNCTION routines.timeline_of(
    of_collection bigint, from_time timestamptz, until_time timestamptz, bucket interval, clock timestamptz DEFAULT now(),
    ids bigint[] DEFAULT NULL, part_of_name text DEFAULT '', after_task text DEFAULT NULL, after_routine text DEFAULT NULL,
    after_id bigint DEFAULT NULL, most integer DEFAULT NULL
) RETURNS TABLE (
    task text, routine text, routine_id bigint, paused_at timestamptz, paused_until timestamptz, kind text, at timestamptz,
    until timestamptz, number bigint, trajectory_id bigint, scheduled_for timestamptz
) LANGUAGE sql STABLE ROWS 1000 AS $$
    WITH shown AS MATERIALIZED (
        SELECT names.routine_id AS id, tasks.name AS task, names.name
        FROM routines.tasks JOIN routines.routine_names AS names ON names.task_id = tasks.id
        WHERE tasks.collection_id = of_collection AND (ids IS NULL OR names.routine_id = ANY (ids))
          AND strpos(tasks.name || '/' || names.name, part_of_name) > 0
          AND (after_id IS NULL OR (tasks.name, names.name, names.routine_id) > (after_task, after_routine, after_id))
        ORDER BY tasks.name, names.name, names.routine_id LIMIT most
    )
    SELECT shown.task, shown.name, found.id, found.paused_at, found.paused_until, marks.kind, marks.at, nullif(marks.until, 'infinity'),
           marks.number, marks.run, marks.slot
    FROM shown
    JOIN routines.routines AS found ON found.id = shown.id
    LEFT JOIN LATERAL (
        SELECT kind, min(at) AS at, max(until) AS until, sum(number)::bigint AS number,
               CASE WHEN count(*) = 1 THEN min(run) END AS run, min(slot) AS slot
        FROM (
            SELECT run.status AS kind, run.began_at AS at, coalesce(run.ended_at, 'infinity') AS until, 1::bigint AS number, run.id AS run, run.slot
            FROM routines.runs_between(found.id, from_time, until_time, clock) AS run
            UNION ALL
            SELECT skip.reason, skip.scheduled_for + away, skip.last_scheduled_for + away, skip.slot_count, NULL, skip.scheduled_for
            FROM routines.skips_between(found.id, from_time, until_time) AS skip
            CROSS JOIN LATERAL (SELECT coalesce(skip.due_at - skip.last_scheduled_for, '0') AS away) AS spread
            UNION ALL
            -- Slots that are due and have no outcome yet are among them.
            SELECT CASE WHEN due_at <= clock THEN 'due' ELSE 'coming' END, due_at, due_at, 1, NULL, coming.slot
            FROM routines.slots_of_routines(
                ARRAY[found.id], ARRAY[coalesce(routines.without_spread(found, found.next_run_at), routines.slot_after_pause(found))],
                from_time - interval '1 hour', until_time) AS coming
            CROSS JOIN LATERAL (SELECT routines.with_spread(found, coming.slot) AS due_at) AS due
            WHERE due_at >= from_time AND due_at < until_time
        ) AS mark
        GROUP BY kind, date_bin(bucket, greatest(at, from_time), timestamptz '1970-01-01Z')
    ) AS marks ON true
    ORDER BY shown.task, shown.name, found.id, marks.at, marks.kind;
$$;
COMMENT ON FUNCTION routines.timeline_of IS
    'What routines of a collection did from from_time until before until_time, and will do: a row for each kind of mark in each bucket, by task and name, after a given routine, if given, and at most `most` of them; one row without a kind for a routine without any. kind is the status of runs, the reason of skips, `due` for slots without an outcome, or `coming`. Slots that calendars or active hours will exclude are left out. Try: SELECT * FROM routines.timeline_of((SELECT id FROM routines.collections WHERE name = ''demo''), now() - interval ''12 hours'', now() + interval ''6 hours'', ''10 minutes'');';
