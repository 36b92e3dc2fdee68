-- Where each secret belongs, to the field and the owner, and what API keys are hashed with.

ALTER TABLE routines.secrets
    ADD COLUMN field text NOT NULL DEFAULT '',
    ADD COLUMN owner text NOT NULL DEFAULT ''
        CONSTRAINT secrets_owner_is_routine_or_run CHECK (owner ~ '^((routine|run):[1-9][0-9]*)?$');
COMMENT ON TABLE  routines.secrets IS
    'AES-256-GCM ciphertexts; the associated data binds each to its collection, kind, field, owner and id.';
COMMENT ON COLUMN routines.secrets.field IS
    'The name of the secret param or environment variable; empty: of its kind there is one. Part of what is authenticated.';
COMMENT ON COLUMN routines.secrets.owner IS
    'routine:<id> or run:<trajectory id>; empty: the collection itself. Part of what is authenticated. A program that opens a secret takes collection, field and owner from what refers to it, never from here: these columns serve rotation and the doctor.';

-- What is there already is of version 1, which binds collection, kind and id alone: rotation binds the rest.
UPDATE routines.secrets SET field = ref.key, owner = 'routine:' || routines.id
FROM routines.routines CROSS JOIN LATERAL jsonb_each_text(secret_refs) AS ref WHERE secrets.id = ref.value::uuid;
UPDATE routines.secrets SET owner = 'routine:' || routines.id
FROM routines.routines WHERE secrets.id = webhook_secret_id;
UPDATE routines.secrets SET field = ref.key
FROM routines.collections CROSS JOIN LATERAL jsonb_each_text(environment_refs) AS ref WHERE secrets.id = ref.value::uuid;
UPDATE routines.secrets
SET field = ref.key, owner = coalesce('routine:' || triggered_by_routine_id, 'run:' || trajectories.id)
FROM routines.trajectories CROSS JOIN LATERAL jsonb_each_text(secret_refs) AS ref
WHERE ended_at IS NULL AND secrets.id = ref.value::uuid AND secrets.owner = '';
UPDATE routines.secrets SET owner = coalesce('routine:' || triggered_by_routine_id, 'run:' || trajectories.id)
FROM routines.trajectories WHERE secrets.id = webhook_secret_id AND secrets.owner = '';

CREATE TABLE routines.peppers (
    id         uuid CONSTRAINT peppers_pkey PRIMARY KEY,
    key_id     text NOT NULL,
    ciphertext bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  routines.peppers IS
    'What API keys are hashed with, itself encrypted: who has the hashes alone can check no guess at a key.';
COMMENT ON COLUMN routines.peppers.id IS 'Made by the program that encrypts, since it is part of what is authenticated.';
COMMENT ON COLUMN routines.peppers.key_id IS 'Which key of ROUTINES_ENCRYPTION_KEYS opens it: what rotation looks for.';
COMMENT ON COLUMN routines.peppers.ciphertext IS 'As in secrets.';
COMMENT ON COLUMN routines.peppers.created_at IS 'When it was made; new API keys take the newest.';

ALTER TABLE routines.api_keys
    ADD COLUMN pepper_id uuid CONSTRAINT api_keys_pepper_id_fkey REFERENCES routines.peppers (id);
COMMENT ON COLUMN routines.api_keys.pepper_id IS 'What its hash is keyed with; null: a key from before there were peppers.';
COMMENT ON COLUMN routines.api_keys.secret_hash IS
    'HMAC-SHA256 of the secret part under the pepper, or its SHA-256: 256 random bits need no slow hash.';
COMMENT ON TABLE  routines.api_keys IS
    'Bearer keys, rtn_<id>_<secret><checksum>. The secret is shown once, when made; only its hash is here.';
