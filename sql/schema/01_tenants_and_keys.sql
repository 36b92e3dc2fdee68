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
