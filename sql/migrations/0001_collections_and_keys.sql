-- Tenants and the keys that open them. The migrator has made the schema `routines`.

CREATE DOMAIN routines.slug AS text
    CONSTRAINT slug_is_valid CHECK (VALUE ~ '^[a-z0-9]([a-z0-9_-]{0,98}[a-z0-9])?$');
COMMENT ON DOMAIN routines.slug IS
    'Lower-case letters, digits, - and _, starting and ending with a letter or digit, 1 to 100 characters.';

CREATE DOMAIN routines.json_object AS jsonb
    CONSTRAINT json_is_object CHECK (jsonb_typeof(VALUE) = 'object');
COMMENT ON DOMAIN routines.json_object IS 'A JSON object: never an array, a scalar or a JSON null.';

CREATE TABLE routines.collections (
    id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT collections_pkey PRIMARY KEY,
    name        routines.slug NOT NULL CONSTRAINT collections_name_key UNIQUE,
    description text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  routines.collections IS 'A tenant: tasks, routines and keys belong to exactly one collection.';
COMMENT ON COLUMN routines.collections.id IS 'Database id; never leaves by HTTP.';
COMMENT ON COLUMN routines.collections.name IS 'The {collection} of every path.';
COMMENT ON COLUMN routines.collections.description IS 'Free text for people.';
COMMENT ON COLUMN routines.collections.created_at IS 'When the first key or task made it.';

CREATE TABLE routines.api_keys (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT api_keys_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT api_keys_collection_id_fkey REFERENCES routines.collections (id),
    secret_hash   bytea NOT NULL CONSTRAINT api_keys_secret_hash_is_sha256 CHECK (octet_length(secret_hash) = 32),
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz
);
CREATE INDEX api_keys_collection_id_idx ON routines.api_keys (collection_id);
COMMENT ON TABLE  routines.api_keys IS 'Bearer keys, rtn_<id>_<secret>. The secret is shown once, when made; only its hash is here.';
COMMENT ON COLUMN routines.api_keys.id IS 'The <id> of the key, and what `routines keys revoke` takes.';
COMMENT ON COLUMN routines.api_keys.collection_id IS 'The one collection that the key opens.';
COMMENT ON COLUMN routines.api_keys.secret_hash IS 'SHA-256 of the secret part: 256 random bits need no slow hash.';
COMMENT ON COLUMN routines.api_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN routines.api_keys.expires_at IS 'From this time on it opens nothing; null: never expires.';
COMMENT ON COLUMN routines.api_keys.revoked_at IS 'When it was revoked; null: not revoked.';
COMMENT ON COLUMN routines.api_keys.last_used_at IS 'Its last use, to the minute; null: never used.';
